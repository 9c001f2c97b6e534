//! The plan of a migration: a TOML file that `migrate plan` writes, a person edits, and all else obeys.
//!
//! It says which tables of which files become which tables of the target, and how each column is read. What
//! is proposed stands in it as it will be done; why, as comments. No password is ever in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::platform::digest::Sha256;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};

/// The version of the plan's form.
pub const FORMAT: u32 = 1;

/// A whole plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// Names the migration in the target, for ever.
    pub id: String,
    /// What times without an offset are local to, unless their column says otherwise.
    pub zone: Tz,
    /// What becomes of rows that cannot be converted.
    #[serde(default)]
    pub rejects: Rejects,
    /// Where all goes.
    pub target: Target,
    /// Where it comes from.
    #[serde(rename = "file", default)]
    pub files: Vec<SourceFile>,
    /// What comes of it.
    #[serde(rename = "table", default)]
    pub tables: Vec<TablePlan>,
}

/// What becomes of rows that cannot be converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rejects {
    /// They are kept, with the reason, in a table of their own.
    #[default]
    Table,
    /// The first ends the run.
    Stop,
}

/// The target's connection: a URL, a source of the config, or variables of a file; never a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A URL, or key=value words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name of a source in lifeboat.toml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A file of variables, beside the environment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// What the variables' names begin with: HOST, PORT, NAME, USER and PASSWORD stand behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_prefix: Option<String>,
}

/// An SQLite file, or a snapshot of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// What tables call it.
    pub name: String,
    /// Its absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The id of a snapshot, in the store that the command line or the config names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// A table of a file, and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePlan {
    /// The file's name in the plan.
    pub file: String,
    /// The table's name there.
    pub source: String,
    /// The target's schema, unquoted.
    pub schema: String,
    /// The target's name, unquoted.
    pub name: String,
    /// Whether it shares its target with other tables that say so too: the rows of the first come first, and of rows with
    /// the same key the later are rejected.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// In the target's order.
    pub columns: Vec<ColumnPlan>,
    /// Empty for none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary_key: Vec<String>,
    /// Unique constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uniques: Vec<UniquePlan>,
    /// Conditions on rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckPlan>,
    /// Indexes that hold no constraint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<IndexPlan>,
    /// References to other tables of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKeyPlan>,
    /// Where it becomes a hypertable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypertable: Option<HypertablePlan>,
}

/// A column, and how its values are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnPlan {
    /// Its name in the file.
    pub source: String,
    /// The target's name, unquoted; the same unless it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The target's type, as PostgreSQL writes it. It decides how values are read.
    #[serde(rename = "type")]
    pub target_type: String,
    /// What times without an offset are local to, where it is not the plan's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Tz>,
    /// What numbers count that are times.
    #[serde(default, skip_serializing_if = "Epoch::is_auto")]
    pub epoch: Epoch,
    /// Texts that mean NULL here, compared as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nulls: Vec<String>,
    /// Whether NULL is refused: such rows are rejected.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_null: bool,
    /// Whether it is numbered by itself from the greatest value on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub identity: bool,
    /// An expression of PostgreSQL's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What numbers count since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Epoch {
    /// Told by each number's size.
    #[default]
    Auto,
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// A unique constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniquePlan {
    /// Unquoted.
    pub name: String,
    /// Names in the target.
    pub columns: Vec<String>,
}

/// A condition on rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckPlan {
    /// Unquoted.
    pub name: String,
    /// In PostgreSQL's words.
    pub expression: String,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexPlan {
    /// Unquoted.
    pub name: String,
    /// Names in the target.
    pub columns: Vec<String>,
    /// Those of them that come in descending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descending: Vec<String>,
    /// The access method: btree unless it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub using: Option<String>,
    /// The operator class of every column, where it is not the type's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_class: Option<String>,
    /// The rows that it holds, in PostgreSQL's words; all unless it is given.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Whether no two rows may have the same values.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique: bool,
}

/// A reference to another table of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignKeyPlan {
    /// Unquoted.
    pub name: String,
    /// Names in the target.
    pub columns: Vec<String>,
    /// The table referred to, in the same schema unless `schema` is given; unquoted.
    pub references: String,
    /// Its schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Its columns.
    pub referenced: Vec<String>,
    /// CASCADE and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<String>,
    /// The same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_update: Option<String>,
    /// Whether rows that are there must keep it; without, only new ones.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub validate: bool,
}

/// What makes a hypertable of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HypertablePlan {
    /// The column that it is cut by.
    pub time: String,
    /// The time that a chunk spans: an interval, or a whole number for a column of numbers.
    pub interval: String,
    /// Where old chunks are compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<CompressPlan>,
    /// The age at which chunks are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
}

/// How old chunks are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressPlan {
    /// Columns by which rows are put together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segment_by: Vec<String>,
    /// Their order within, as TimescaleDB writes it: `created_at DESC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<String>,
    /// The age at which chunks are compressed.
    pub after: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

impl Epoch {
    fn is_auto(&self) -> bool {
        *self == Epoch::Auto
    }
}

impl ColumnPlan {
    /// The target's name.
    #[must_use]
    pub fn target_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.source)
    }
}

impl TablePlan {
    /// `file:table`, for messages.
    #[must_use]
    pub fn shown_source(&self) -> String {
        one_line(&format!("{}:{}", self.file, self.source))
    }

    /// `schema.table`, for messages.
    #[must_use]
    pub fn shown_target(&self) -> String {
        one_line(&format!("{}.{}", self.schema, self.name))
    }

    /// The column of that name in the target.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&ColumnPlan> {
        self.columns.iter().find(|column| column.target_name() == name)
    }

    /// Every set of columns by which no two rows may be equal.
    pub fn keys(&self) -> impl Iterator<Item = &[String]> {
        let primary = Some(self.primary_key.as_slice()).filter(|key| !key.is_empty());
        let uniques = self.uniques.iter().map(|unique| unique.columns.as_slice());
        let indexes = self.indexes.iter().filter(|index| index.unique && index.condition.is_none());
        primary.into_iter().chain(uniques).chain(indexes.map(|index| index.columns.as_slice()))
    }
}

impl Plan {
    /// Reads a plan and looks whether it makes sense.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).io(Kind::Usage, || format!("cannot read the plan {}", shown(path)))?;
        Plan::parse(&text).map_err(|error| error.context(format!("the plan {} cannot be followed", shown(path))))
    }

    /// The same of its text.
    pub fn parse(text: &str) -> Result<Self> {
        let plan: Plan = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            Error::usage(format!("line {line}: {}", one_line(error.message())))
        })?;
        plan.require_sense()?;
        Ok(plan)
    }

    /// The file that a table comes from.
    pub fn file(&self, name: &str) -> Result<&SourceFile> {
        self.files
            .iter()
            .find(|file| file.name == name)
            .ok_or_else(|| Error::usage(format!("there is no [[file]] named {}", one_line(name))))
    }

    /// The digest of all that it says: comments and order of keys do not count.
    #[must_use]
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("a plan has only string keys");
        Sha256::of(&json).to_string()
    }

    fn require_sense(&self) -> Result<()> {
        if self.format != FORMAT {
            return Err(Error::usage(format!("it has the form {}, and this lifeboat knows {FORMAT}", self.format)));
        }
        if self.id.is_empty() || !self.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Error::usage("its id has other characters than letters, digits and '-'"));
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            if !names.insert(&file.name) {
                return Err(Error::usage(format!("two files are named {}", one_line(&file.name))));
            }
            if file.path.is_some() == file.snapshot.is_some() {
                return Err(Error::usage(format!("the file {} needs a path or a snapshot", one_line(&file.name))));
            }
            if file.path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(Error::usage(format!("the path of the file {} is not absolute", one_line(&file.name))));
            }
        }
        let mut sources = BTreeSet::new();
        for table in &self.tables {
            self.file(&table.file)?;
            if !sources.insert((&table.file, &table.source)) {
                return Err(Error::usage(format!("the table {} is there twice", table.shown_source())));
            }
            table.require_sense().map_err(|error| error.context(format!("the table {}", table.shown_source())))?;
        }
        self.require_targets()
    }

    /// Fails where two tables would become one, and neither says so, or they would not fit together.
    fn require_targets(&self) -> Result<()> {
        for (number, table) in self.tables.iter().enumerate() {
            let target = |table: &TablePlan| (table.schema.clone(), table.name.clone());
            for other in self.tables[..number].iter().filter(|other| target(other) == target(table)) {
                if !table.merge || !other.merge {
                    return Err(Error::usage(format!(
                        "{} and {} would both become {}",
                        other.shown_source(),
                        table.shown_source(),
                        table.shown_target()
                    ))
                    .hint("give one of them another name, or 'merge = true' to both"));
                }
                let shape = |table: &TablePlan| {
                    let columns = table.columns.iter();
                    let columns: Vec<_> = columns
                        .map(|column| (column.target_name().to_owned(), column.target_type.clone(), column.identity))
                        .collect();
                    (columns, table.primary_key.clone(), table.uniques.clone(), table.hypertable.clone())
                };
                if shape(table) != shape(other) {
                    return Err(Error::usage(format!(
                        "{} and {} are merged, and differ in columns, keys or hypertable",
                        other.shown_source(),
                        table.shown_source()
                    ))
                    .hint("give both the same columns, in the same order"));
                }
            }
        }
        Ok(())
    }
}

impl TablePlan {
    fn require_sense(&self) -> Result<()> {
        for name in [&self.schema, &self.name].into_iter().chain(self.columns.iter().flat_map(|column| &column.name)) {
            require_name(name)?;
        }
        if self.columns.is_empty() {
            return Err(Error::usage("it has no columns"));
        }
        let mut names = BTreeSet::new();
        for column in &self.columns {
            require_name(column.target_name())?;
            if !names.insert(column.target_name()) {
                return Err(Error::usage(format!("it has two columns named {}", one_line(column.target_name()))));
            }
            if column.target_type.trim().is_empty() {
                return Err(Error::usage(format!("the column {} has no type", one_line(&column.source))));
            }
        }
        let indexes = self.indexes.iter().flat_map(|index| index.columns.iter().chain(&index.descending));
        let keys = self.keys().flatten();
        let foreign = self.foreign_keys.iter().flat_map(|key| &key.columns);
        let hypertable = self.hypertable.iter();
        let compressed = hypertable.clone().flat_map(|table| &table.compress).flat_map(|compress| &compress.segment_by);
        let used = indexes.chain(keys).chain(foreign).chain(compressed).chain(hypertable.map(|table| &table.time));
        for name in used {
            if self.column(name).is_none() {
                return Err(Error::usage(format!("it has no column {}", one_line(name))));
            }
        }
        for key in &self.foreign_keys {
            if key.columns.len() != key.referenced.len() || key.columns.is_empty() {
                return Err(Error::usage(format!("the foreign key {} has uneven columns", one_line(&key.name))));
            }
            const ACTIONS: [&str; 5] = ["CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT", "NO ACTION"];
            let mut actions = key.on_delete.iter().chain(&key.on_update);
            if let Some(action) = actions.find(|action| !ACTIONS.contains(&action.to_uppercase().as_str())) {
                return Err(Error::usage(format!("'{}' is nothing that a foreign key does", one_line(action)))
                    .hint(ACTIONS.join(", ")));
            }
        }
        self.require_partitionable()
    }

    /// TimescaleDB keeps no key without the time column: each chunk has an index of its own.
    fn require_partitionable(&self) -> Result<()> {
        let Some(hypertable) = &self.hypertable else { return Ok(()) };
        match self.keys().find(|key| !key.contains(&hypertable.time)) {
            None => Ok(()),
            Some(key) => Err(Error::usage(format!(
                "a hypertable cannot keep ({}) unique: the time column {} is not in it",
                one_line(&key.join(", ")),
                one_line(&hypertable.time)
            ))
            .hint("add the time column to that key, take the key out, or take the table's hypertable out")),
        }
    }
}

/// The longest name that the server keeps whole, in bytes.
pub const NAME_BYTES: usize = 63;

fn require_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        return Err(Error::usage(format!(
            "'{}' cannot be a name in PostgreSQL: names have 1 to {NAME_BYTES} bytes",
            one_line(name)
        )));
    }
    Ok(())
}
