//! The plan of a migration: a TOML file that `migrate plan` writes, a person edits, and all other commands follow.
//!
//! It defines which tables of which files become which tables of the target, and how each column is read. The proposals
//! are written as plain settings, with their reasons as comments. The plan never contains a password.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use crate::platform::digest::Sha256;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};

/// The version of the plan's format.
pub(crate) const FORMAT: u32 = 1;

/// A complete plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// The format's version, which must be [`FORMAT`].
    pub format: u32,
    /// The permanent name of the migration in the target.
    pub id: String,
    /// The zone of times without an offset, unless their column names another.
    pub zone: Tz,
    /// The treatment of rows that cannot be converted.
    #[serde(default)]
    pub rejects: Rejects,
    /// The target database.
    pub target: Target,
    /// The SQLite files that are migrated.
    #[serde(rename = "file", default)]
    pub files: Vec<SourceFile>,
    /// The tables that are migrated.
    #[serde(rename = "table", default)]
    pub tables: Vec<TablePlan>,
}

/// The treatment of rows that cannot be converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Rejects {
    /// Rejected rows are kept, with the reason, in the table `lifeboat_migrate.rejects`.
    #[default]
    Table,
    /// The first such row ends the run.
    Stop,
}

/// The target's connection: a URL, a source of lifeboat.toml, or variables of a file; never a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// A URL or a `key=value` connection string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name of a source in lifeboat.toml.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A file of variables, in addition to the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// The prefix of the variables' names; HOST, PORT, NAME, USER and PASSWORD follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_prefix: Option<String>,
}

/// An SQLite file, or a snapshot of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceFile {
    /// The file's name in the plan.
    pub name: String,
    /// Its absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The id of a snapshot, in the store that the command line or the config names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// A table of a file, and the table of the target that it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TablePlan {
    /// The file's name in the plan.
    pub file: String,
    /// The table's name there.
    pub source: String,
    /// The target's schema, unquoted.
    pub schema: String,
    /// The target's name, unquoted.
    pub name: String,
    /// True if the table shares its target with other tables that set this too. The rows of the first table are loaded
    /// first; of rows with the same key, the later ones are rejected.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// True if the table was in the target before: its keys, indexes, defaults and triggers are left as they are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub existing: bool,
    /// The number of rows that may be rejected. If more are, the run and the comparison report a problem.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub expected_rejects: u64,
    /// The columns, in the target's order.
    pub columns: Vec<ColumnPlan>,
    /// The columns of the primary key; empty if the table has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary_key: Vec<String>,
    /// Unique constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uniques: Vec<UniquePlan>,
    /// CHECK constraints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckPlan>,
    /// Indexes that do not belong to a constraint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<IndexPlan>,
    /// Foreign keys to other tables of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKeyPlan>,
    /// The settings of the hypertable that the table becomes, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypertable: Option<HypertablePlan>,
}

/// A column, and the way to read its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnPlan {
    /// Its name in the file.
    pub source: String,
    /// The target's name, unquoted; `source` if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The target's type, as PostgreSQL writes it. It decides how values are read.
    #[serde(rename = "type")]
    pub target_type: String,
    /// The zone of times without an offset, if it is not the plan's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Tz>,
    /// The unit of numbers that are times.
    #[serde(default, skip_serializing_if = "Epoch::is_auto")]
    pub epoch: Epoch,
    /// Texts that mean NULL in this column, compared exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nulls: Vec<String>,
    /// True if NULL is refused: rows with NULL are rejected.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_null: bool,
    /// True if it is an identity column, whose sequence continues after the greatest value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub identity: bool,
    /// The default, an expression in PostgreSQL's SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// The unit of numbers that count time, since 1970 if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Epoch {
    /// Derived from the size of each number.
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
    /// Seconds since 2001, as Apple's Core Data writes them.
    Apple,
    /// Nanoseconds since 2001.
    #[serde(rename = "apple_ns")]
    AppleNs,
    /// Microseconds since 1601, as WebKit and Chrome write them.
    Webkit,
    /// Windows file times: 100 nanoseconds since 1601.
    Filetime,
    /// Ticks of .NET: 100 nanoseconds since the year 1.
    Dotnet,
}

/// A unique constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UniquePlan {
    /// The constraint's name, unquoted.
    pub name: String,
    /// The columns' names in the target.
    pub columns: Vec<String>,
}

/// A CHECK constraint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CheckPlan {
    /// The constraint's name, unquoted.
    pub name: String,
    /// The condition, in PostgreSQL's SQL.
    pub expression: String,
}

/// An index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexPlan {
    /// The index's name, unquoted.
    pub name: String,
    /// The columns' names in the target.
    pub columns: Vec<String>,
    /// The columns among them in descending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descending: Vec<String>,
    /// The columns among them that are indexed by the md5 digests of their values, which may be of any length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<String>,
    /// The access method; btree if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub using: Option<String>,
    /// The operator class of every column, if it is not the default of the type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_class: Option<String>,
    /// The predicate of a partial index, in PostgreSQL's SQL; all rows are indexed if it is absent.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// True if the index is unique.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unique: bool,
}

/// A foreign key to another table of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForeignKeyPlan {
    /// The constraint's name, unquoted.
    pub name: String,
    /// The columns' names in the target.
    pub columns: Vec<String>,
    /// The referenced table, unquoted; in the same schema unless `schema` is given.
    pub references: String,
    /// The schema of the referenced table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The referenced columns.
    pub referenced: Vec<String>,
    /// The action on delete, such as CASCADE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_delete: Option<String>,
    /// The action on update, such as CASCADE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_update: Option<String>,
    /// True if existing rows must satisfy it; otherwise only new rows are checked.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub validate: bool,
}

/// The settings that make a table a hypertable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HypertablePlan {
    /// The column by which it is partitioned.
    pub time: String,
    /// The range of a chunk: an interval, or a whole number if the column holds numbers.
    pub interval: String,
    /// The compression of old chunks, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<CompressPlan>,
    /// The age at which chunks are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
}

/// The compression settings of old chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompressPlan {
    /// The columns by which rows are grouped before compression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segment_by: Vec<String>,
    /// The order of rows within a group: names of columns, separated by commas, each with ASC or DESC and NULLS FIRST or
    /// LAST. A name with a comma or a quote is written in double quotes, as in SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_by: Option<String>,
    /// The age at which chunks are compressed.
    pub after: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

impl Epoch {
    /// The units, each with its name in a plan and its description.
    pub(crate) const NAMES: [(Epoch, &str, &str); 9] = [
        (Epoch::S, "s", "seconds since 1970"),
        (Epoch::Ms, "ms", "milliseconds since 1970"),
        (Epoch::Us, "us", "microseconds since 1970"),
        (Epoch::Ns, "ns", "nanoseconds since 1970"),
        (Epoch::Apple, "apple", "seconds since 2001, as Apple's Core Data writes them"),
        (Epoch::AppleNs, "apple_ns", "nanoseconds since 2001"),
        (Epoch::Webkit, "webkit", "microseconds since 1601, as WebKit and Chrome write them"),
        (Epoch::Filetime, "filetime", "100 nanoseconds since 1601, as Windows writes them"),
        (Epoch::Dotnet, "dotnet", "100 nanoseconds since the year 1, as .NET writes them"),
    ];

    fn is_auto(&self) -> bool {
        *self == Epoch::Auto
    }
}

impl CompressPlan {
    /// Returns the columns of `order_by`, each with the words that follow its name.
    pub(crate) fn order(&self, table: &TablePlan) -> Result<Vec<(String, String)>> {
        let text = self.order_by.as_deref().unwrap_or_default();
        let (mut parts, mut is_quoted) = (vec![String::new()], false);
        for letter in text.chars() {
            is_quoted ^= letter == '"';
            match letter {
                ',' if !is_quoted => parts.push(String::new()),
                _ => parts.last_mut().expect("there is a part").push(letter),
            }
        }
        parts.iter().filter(|part| !part.trim().is_empty()).map(|part| order_of(part.trim(), table)).collect()
    }
}

/// Splits a part of an order into the name of its column and the words after it.
fn order_of(part: &str, table: &TablePlan) -> Result<(String, String)> {
    let (mut name, mut words) = (part, Vec::new());
    for endings in [["NULLS FIRST", "NULLS LAST"], ["ASC", "DESC"]] {
        let ending = endings.iter().find(|ending| {
            let start = name.len().checked_sub(ending.len()).filter(|start| name.is_char_boundary(*start));
            let is_word = start
                .is_some_and(|start| name[..start].ends_with(|letter: char| letter.is_whitespace() || letter == '"'));
            is_word && start.is_some_and(|start| name[start..].eq_ignore_ascii_case(ending))
        });
        if let Some(ending) = ending.filter(|_| table.column(name).is_none()) {
            name = name[..name.len() - ending.len()].trim_end();
            words.insert(0, *ending);
        }
    }
    let inner = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).map(|inner| inner.replace("\"\"", "\""));
    let candidates = [Some(name.to_owned()), inner, Some(name.to_ascii_lowercase())];
    let found = candidates.into_iter().flatten().find(|name| table.column(name).is_some());
    let found = found.ok_or_else(|| {
        Error::usage(format!("order_by: it has no column {}", one_line(name)))
            .hint("write order_by = \"COLUMN DESC, COLUMN\", and names with commas in double quotes")
    })?;
    Ok((found, words.join(" ")))
}

impl ColumnPlan {
    /// Returns the column's name in the target.
    #[must_use]
    pub(crate) fn target_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.source)
    }
}

impl TablePlan {
    /// Returns `file:table`, for messages.
    #[must_use]
    pub(crate) fn shown_source(&self) -> String {
        one_line(&format!("{}:{}", self.file, self.source))
    }

    /// Returns `schema.table`, for messages.
    #[must_use]
    pub(crate) fn shown_target(&self) -> String {
        one_line(&format!("{}.{}", self.schema, self.name))
    }

    /// Returns the column with this name in the target.
    #[must_use]
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnPlan> {
        self.columns.iter().find(|column| column.target_name() == name)
    }

    /// Returns every set of columns that must be unique.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &[String]> {
        let primary = Some(self.primary_key.as_slice()).filter(|key| !key.is_empty());
        let uniques = self.uniques.iter().map(|unique| unique.columns.as_slice());
        let indexes = self.indexes.iter().filter(|index| index.unique && index.condition.is_none());
        primary.into_iter().chain(uniques).chain(indexes.map(|index| index.columns.as_slice()))
    }
}

impl Plan {
    /// Reads a plan from a file and validates it.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).io(Kind::Usage, || format!("cannot read the plan {}", shown(path)))?;
        Plan::parse(&text).map_err(|error| error.context(format!("the plan {} is not valid", shown(path))))
    }

    /// Parses a plan from its text and validates it.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let plan: Plan = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
            Error::usage(format!("line {line}: {}", one_line(error.message())))
        })?;
        plan.validate()?;
        Ok(plan)
    }

    /// Returns the file with this name in the plan.
    pub(crate) fn file(&self, name: &str) -> Result<&SourceFile> {
        self.files
            .iter()
            .find(|file| file.name == name)
            .ok_or_else(|| Error::usage(format!("there is no [[file]] named {}", one_line(name))))
    }

    /// Returns the digest of the part of the plan that decides how rows are loaded. Comments and the order of keys do not
    /// change it, and neither do the treatment of rejected rows and the objects that are created after loading: as long as
    /// they are not there, they may be edited.
    #[must_use]
    pub(crate) fn digest(&self) -> String {
        let mut rows = self.clone();
        rows.rejects = Rejects::default();
        for table in &mut rows.tables {
            table.expected_rejects = 0;
            table.indexes.clear();
            table.foreign_keys.clear();
            table.uniques.clear();
            if let Some(hypertable) = &mut table.hypertable {
                hypertable.compress = None;
                hypertable.retention = None;
            }
        }
        let json = serde_json::to_vec(&rows).expect("a plan has only string keys");
        Sha256::of(&json).to_string()
    }

    fn validate(&self) -> Result<()> {
        if self.format != FORMAT {
            return Err(Error::usage(format!(
                "it has format {}, but this lifeboat supports only format {FORMAT}",
                self.format
            )));
        }
        if self.id.is_empty() || !self.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Error::usage("its id must consist of letters, digits and '-'"));
        }
        let mut names = BTreeSet::new();
        for file in &self.files {
            if !names.insert(&file.name) {
                return Err(Error::usage(format!("two files are named {}", one_line(&file.name))));
            }
            if file.path.is_some() == file.snapshot.is_some() {
                return Err(Error::usage(format!(
                    "the file {} must have either a path or a snapshot",
                    one_line(&file.name)
                )));
            }
            if file.path.as_ref().is_some_and(|path| !path.is_absolute()) {
                return Err(Error::usage(format!("the path of the file {} is not absolute", one_line(&file.name))));
            }
        }
        let mut sources = BTreeSet::new();
        for table in &self.tables {
            self.file(&table.file)?;
            if !sources.insert((&table.file, &table.source)) {
                return Err(Error::usage(format!("the table {} is listed twice", table.shown_source())));
            }
            table
                .validate()
                .map_err(|error| error.context(format!("the table {} is not valid", table.shown_source())))?;
        }
        self.validate_targets()
    }

    /// Fails if two tables would become one table although not both set `merge`, or if merged tables differ in columns,
    /// keys or hypertable.
    fn validate_targets(&self) -> Result<()> {
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
                    .hint("give one of them another name, or set 'merge = true' for both"));
                }
                let shape = |table: &TablePlan| {
                    let columns = table.columns.iter();
                    let columns: Vec<_> = columns
                        .map(|column| (column.target_name().to_owned(), column.target_type.clone(), column.identity))
                        .collect();
                    let uniques: Vec<_> = table.uniques.iter().map(|unique| unique.columns.clone()).collect();
                    (columns, table.primary_key.clone(), uniques, table.hypertable.clone())
                };
                if shape(table) != shape(other) {
                    return Err(Error::usage(format!(
                        "{} and {} are merged, but differ in columns, keys or hypertable",
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
    fn validate(&self) -> Result<()> {
        for name in [&self.schema, &self.name].into_iter().chain(self.columns.iter().flat_map(|column| &column.name)) {
            require_name(name)?;
        }
        if self.columns.is_empty() {
            return Err(Error::usage("it has no columns"));
        }
        if self.columns.len() > MAX_COLUMNS {
            let count = self.columns.len();
            return Err(Error::usage(format!(
                "it has {count} columns, but a table in PostgreSQL has at most {MAX_COLUMNS} columns"
            ))
            .hint("remove columns from the plan"));
        }
        let mut names = BTreeSet::new();
        for column in &self.columns {
            require_name(column.target_name())?;
            if STAGING.contains(&column.target_name()) {
                return Err(Error::usage(format!(
                    "its column cannot be named {}: the tables through which Lifeboat loads rows have a column of that name",
                    column.target_name()
                ))
                .hint("give the column another name, in the target too if the table exists"));
            }
            if !names.insert(column.target_name()) {
                return Err(Error::usage(format!("it has two columns named {}", one_line(column.target_name()))));
            }
            if column.target_type.trim().is_empty() {
                return Err(Error::usage(format!("the column {} has no type", one_line(&column.source))));
            }
        }
        let indexes =
            self.indexes.iter().flat_map(|index| index.columns.iter().chain(&index.descending).chain(&index.digest));
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
        if let Some(compress) = self.hypertable.as_ref().and_then(|hypertable| hypertable.compress.as_ref()) {
            compress.order(self)?;
        }
        for key in &self.foreign_keys {
            if key.columns.len() != key.referenced.len() || key.columns.is_empty() {
                return Err(Error::usage(format!(
                    "the foreign key {} must have as many columns as it references, and at least one",
                    one_line(&key.name)
                )));
            }
            const ACTIONS: [&str; 5] = ["CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT", "NO ACTION"];
            let mut actions = key.on_delete.iter().chain(&key.on_update);
            if let Some(action) = actions.find(|action| !ACTIONS.contains(&action.to_uppercase().as_str())) {
                return Err(Error::usage(format!("'{}' is not an action of a foreign key", one_line(action)))
                    .hint(format!("use one of {}", ACTIONS.join(", "))));
            }
        }
        self.require_partitionable()
    }

    /// Fails if a key of a hypertable lacks the time column. TimescaleDB cannot enforce such a key, because each chunk
    /// has its own index.
    fn require_partitionable(&self) -> Result<()> {
        let Some(hypertable) = &self.hypertable else { return Ok(()) };
        match self.keys().find(|key| !key.contains(&hypertable.time)) {
            None => Ok(()),
            Some(key) => Err(Error::usage(format!(
                "a hypertable cannot keep ({}) unique: the key lacks the time column {}",
                one_line(&key.join(", ")),
                one_line(&hypertable.time)
            ))
            .hint("add the time column to that key, remove the key, or remove the table's hypertable")),
        }
    }
}

/// The columns that the temporary table through which rows are loaded has besides those of the target.
pub(crate) const STAGING: [&str; 4] = ["lifeboat_n", "lifeboat_rowid", "lifeboat_hash", "lifeboat_json"];

/// The greatest number of columns of a table in PostgreSQL.
pub(crate) const MAX_COLUMNS: usize = 1600;

/// The maximum length of a name in PostgreSQL, in bytes; the server truncates longer names.
pub(crate) const NAME_BYTES: usize = 63;

fn require_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
        return Err(Error::usage(format!(
            "'{}' cannot be a name in PostgreSQL: names have 1 to {NAME_BYTES} bytes",
            one_line(name)
        )));
    }
    Ok(())
}
