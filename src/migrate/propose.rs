//! Proposes a plan from the content of files: the type of each column, the objects of each table, and the reasons.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDateTime;
use chrono_tz::Tz;

use super::choose::{self, Choice};
use super::convert::Kind;
use super::ddl;
use super::defaults::{self, Clock};
use super::existing::ExistingSchema;
use super::index_row;
use super::plan::{
    CheckPlan, ColumnPlan, ForeignKeyPlan, HypertablePlan, IndexPlan, NAME_BYTES, STAGING, TablePlan, UniquePlan,
};
use super::profile::{ColumnProfile, DISTINCT, LongRows, TableProfile};
use super::remarks;
use super::translate::{self, ColumnProperties};
use crate::engine::postgres::schema::quote::ident;
use crate::engine::sqlite::schema::{ColumnFacts, ForeignKeyFacts, SchemaFacts, TableFacts};
use crate::platform::error::one_line;

/// The options for a proposal.
#[derive(Clone, Debug)]
pub(crate) struct ProposeOptions {
    /// The target's schema.
    pub schema: String,
    /// True if the target can create hypertables.
    pub has_timescale: bool,
    /// True if objects are proposed that no file defines: hypertables and indexes for histories, indexes for JSON.
    pub proposes: bool,
    /// The zone of times without an offset.
    pub zone: Tz,
    /// True if names keep their upper-case letters, so that statements must quote them.
    pub keeps_case: bool,
}

impl ProposeOptions {
    /// Returns a name of a file as a name of the target: folded as PostgreSQL folds unquoted names, to lower case, unless
    /// names keep their case.
    fn name(&self, name: &str) -> String {
        if self.keeps_case { name.to_owned() } else { name.to_ascii_lowercase() }
    }
}

/// A file that was inspected.
pub(crate) struct InspectedFile<'a> {
    /// Its name in the plan.
    pub name: &'a str,
    /// Its schema.
    pub schema: &'a SchemaFacts,
    /// The profiles of its tables, in the same order.
    pub profiles: &'a [TableProfile],
}

/// A proposed table, with the reasons.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    /// The table.
    pub plan: TablePlan,
    /// Remarks on the table: objects that are not carried over, and differences.
    pub notes: Vec<String>,
    /// Remarks on each column.
    pub column_notes: Vec<Vec<String>>,
    /// Lines with options of the hypertable that the reader may enable.
    pub options: Vec<String>,
    /// The reasons why the plan cannot be run as it is, each with a way out.
    pub conflicts: Vec<String>,
    /// The number of rows.
    pub rows: u64,
    /// The greatest number of rows that may be rejected.
    pub rejected: u64,
}

/// Proposes a new table for a table of a file, without foreign keys.
pub(super) fn new_table(
    file: &InspectedFile<'_>,
    (table, profile): (&TableFacts, &TableProfile),
    options: &ProposeOptions,
    names: &mut Names,
) -> Proposal {
    Draft::new(file, table, profile, options).finish(names)
}

/// The names that are taken in the target's schema.
#[derive(Debug)]
pub(crate) struct Names(BTreeSet<String>);

impl Names {
    /// Begins with the names that the schema has, and with those of the tables that files become and of their primary
    /// keys.
    pub(crate) fn new<'a>(
        existing: &ExistingSchema,
        options: &ProposeOptions,
        tables: impl Iterator<Item = &'a TableFacts>,
    ) -> Self {
        let new = tables.map(|table| cut(&options.name(&table.name), 0));
        let new = new.flat_map(|name| [ddl::primary_key_name(&name), name]);
        Names(existing.names.iter().cloned().chain(new).collect())
    }

    /// Reserves a free name and returns it: the wanted one, the wanted one after the table's name, or one with a
    /// number.
    fn take(&mut self, table: &str, wanted: &str) -> String {
        let wanted = cut(wanted, 0);
        let own = if wanted.starts_with(table) { wanted.clone() } else { cut(&format!("{table}_{wanted}"), 0) };
        let numbered = (2..).map(|number| cut(&format!("{own}_{number}"), number));
        let free = [wanted, own.clone()].into_iter().chain(numbered).find(|name| !self.0.contains(name));
        let free = free.expect("an unused number exists");
        self.0.insert(free.clone());
        free
    }
}

/// Cuts a name to the maximum length of the server. A cut name ends with `number`, unless that is 0.
fn cut(name: &str, number: usize) -> String {
    if name.len() <= NAME_BYTES {
        return name.to_owned();
    }
    let tail = if number == 0 { String::new() } else { format!("_{number}") };
    let mut end = NAME_BYTES - tail.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{tail}", &name[..end])
}

/// Returns unique names in the target for a table's columns, each with the reason if the name differs from what people
/// would expect.
fn column_names(columns: &[ColumnFacts], options: &ProposeOptions) -> Vec<(String, Option<&'static str>)> {
    /// The system columns, which every table in PostgreSQL has.
    const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
    let folded: Vec<String> = columns.iter().map(|column| options.name(&column.name)).collect();
    let wanted = |place: usize| -> String {
        let is_clear = folded.iter().filter(|name| **name == folded[place]).count() == 1;
        if is_clear { folded[place].clone() } else { columns[place].name.clone() }
    };
    let wanted: Vec<String> = (0..columns.len()).map(wanted).collect();
    let why = |name: &str| match name {
        "" => Some("renamed: in the file it has no name"),
        _ if STAGING.contains(&name) => Some("renamed: Lifeboat's own tables have a column of that name"),
        _ if SYSTEM.contains(&name) => Some("renamed: PostgreSQL has a system column of that name"),
        _ if name.len() > NAME_BYTES => Some("its name is shortened: names in PostgreSQL have at most 63 bytes"),
        _ => None,
    };
    let mut taken: BTreeSet<String> = wanted.iter().filter(|name| why(name).is_none()).cloned().collect();
    let mut named = |name: String| {
        let why = why(&name);
        if why.is_none() {
            return (name, None);
        }
        let other = if name.len() > NAME_BYTES { name } else { format!("{name}_") };
        let numbered = (2..).map(|number| cut(&format!("{other}_{number}"), number));
        let free = std::iter::once(cut(&other, 0)).chain(numbered).find(|name| !taken.contains(name));
        let free = free.expect("an unused number exists");
        taken.insert(free.clone());
        (free, why)
    };
    wanted.into_iter().map(&mut named).collect()
}

/// A table that is being proposed.
struct Draft<'a> {
    facts: &'a TableFacts,
    profile: &'a TableProfile,
    schema: &'a SchemaFacts,
    options: &'a ProposeOptions,
    proposal: Proposal,
    kinds: Vec<Kind>,
    collations: HashMap<String, String>,
}

impl<'a> Draft<'a> {
    fn new(
        file: &InspectedFile<'a>,
        facts: &'a TableFacts,
        profile: &'a TableProfile,
        options: &'a ProposeOptions,
    ) -> Self {
        let mut columns = Vec::new();
        let mut column_notes = Vec::new();
        let (mut rejected, mut kinds, mut notes) = (0u64, Vec::new(), Vec::new());
        let target_names = column_names(&facts.columns, options);
        let collations = translate::collations(&facts.sql);
        for ((column, profile), (name, why)) in facts.columns.iter().zip(&profile.columns).zip(target_names) {
            let is_rowid = facts.rowid_column().is_some_and(|rowid| rowid.name == column.name);
            let chosen = choose::choose(column, profile, is_rowid);
            let mut proposed = propose_column(column, profile, &chosen, is_rowid, options);
            proposed.plan.name = (name != column.name).then_some(name);
            proposed.notes.extend(why.map(str::to_owned));
            if let Some(collation) = collations.get(&column.name.to_ascii_lowercase()) {
                let collation = one_line(collation);
                proposed
                    .notes
                    .push(format!("COLLATE {collation} is not carried over: the target compares texts exactly"));
            }
            rejected += profile.trial(chosen.kind).map_or(0, |trial| trial.failures);
            kinds.push(chosen.kind);
            notes.extend(proposed.warnings.iter().map(|note| format!("{}: {note}", one_line(&column.name))));
            proposed.notes.append(&mut proposed.warnings);
            columns.push(proposed.plan);
            column_notes.push(proposed.notes);
        }
        let plan = TablePlan {
            file: file.name.to_owned(),
            source: facts.name.clone(),
            schema: options.schema.clone(),
            name: cut(&options.name(&facts.name), 0),
            merge: false,
            existing: false,
            expected_rejects: 0,
            columns,
            primary_key: Vec::new(),
            uniques: Vec::new(),
            checks: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            hypertable: None,
        };
        let proposal = Proposal {
            plan,
            notes,
            column_notes,
            options: Vec::new(),
            conflicts: Vec::new(),
            rows: profile.rows,
            rejected,
        };
        Draft { facts, profile, schema: file.schema, options, proposal, kinds, collations }
    }

    fn finish(mut self, names: &mut Names) -> Proposal {
        self.keys(names);
        self.checks(names);
        self.indexes(names);
        if self.options.proposes {
            self.time_series(names);
            self.json_indexes(names);
        }
        self.note_omissions();
        self.proposal
    }

    /// Returns the name in the target of a column of the file.
    fn target(&self, source: &str) -> Option<String> {
        let column = self.proposal.plan.columns.iter().find(|column| column.source.eq_ignore_ascii_case(source));
        column.map(|column| column.target_name().to_owned())
    }

    fn keys(&mut self, names: &mut Names) {
        let key: Vec<String> = self.facts.primary_key().iter().filter_map(|column| self.target(&column.name)).collect();
        let nulls = self.facts.columns.iter().zip(&self.profile.columns);
        let nulls: u64 = nulls.filter(|(column, _)| column.key > 0).map(|(_, profile)| profile.nulls).sum();
        if nulls > 0 {
            let note =
                format!("{nulls} values of the primary key are NULL, which only SQLite allows: the rows are rejected");
            self.proposal.notes.push(note);
            self.proposal.rejected += nulls;
        }
        let table = self.proposal.plan.name.clone();
        match self.long_rows(&key, None) {
            Some(long) => {
                let name = names.take(&table, &format!("{table}_key"));
                self.index_by_digest(name, "the primary key", key, &long);
            }
            None => self.proposal.plan.primary_key = key,
        }
        for index in self.facts.indexes.iter().filter(|index| index.origin == "u") {
            let columns: Option<Vec<String>> =
                index.columns.iter().map(|(name, _)| self.target(name.as_deref()?)).collect();
            match columns {
                Some(columns) if let Some(long) = self.long_rows(&columns, None) => {
                    let name = names.take(&table, &format!("{table}_{}_key", columns.join("_")));
                    self.index_by_digest(name, "a UNIQUE constraint", columns, &long);
                }
                Some(columns) => {
                    let name = names.take(&table, &format!("{table}_{}_key", columns.join("_")));
                    self.proposal.plan.uniques.push(UniquePlan { name, columns });
                }
                None => {
                    let note = "a UNIQUE constraint is not carried over: it uses an expression";
                    self.proposal.notes.push(note.to_owned());
                }
            }
        }
    }

    /// Returns the rows that are too long for a btree index on columns of the target; of a partial index, those that fulfil
    /// its condition.
    fn long_rows(&self, columns: &[String], condition: Option<&str>) -> Option<LongRows> {
        let place = |name: &String| self.proposal.plan.columns.iter().position(|column| column.target_name() == name);
        let places: Vec<usize> = columns.iter().map(place).collect::<Option<_>>()?;
        let has_values =
            |place: &usize| matches!(self.kinds[*place], Kind::Text | Kind::Bytes | Kind::Jsonb | Kind::Json);
        let found = self
            .profile
            .long_rows
            .iter()
            .find(|long| long.columns == places && long.condition.as_deref() == condition)?;
        has_values(&found.longest.0).then(|| found.clone())
    }

    /// Describes an index that a btree cannot hold.
    fn too_long(&self, object: &str, columns: &[String], long: &LongRows) -> String {
        let (place, bytes) = long.longest;
        let row = long.rowid.map_or("a row".to_owned(), |rowid| format!("row {rowid}"));
        format!(
            "{object} ({}) is too long for an index in {} rows: {} in {row} has {bytes} bytes, which take {} bytes in the index, \
             and a btree index of PostgreSQL holds at most {} bytes per row",
            one_line(&columns.join(", ")),
            long.rows,
            one_line(&self.facts.columns[place].name),
            long.bytes,
            index_row::MAX_BYTES
        )
    }

    /// Proposes a unique index on the digests of long columns in place of a key that a btree index cannot hold.
    fn index_by_digest(&mut self, name: String, object: &str, columns: Vec<String>, long: &LongRows) {
        let described = self.too_long(object, &columns, long);
        let is_long = |column: &&String| {
            let place = self.proposal.plan.columns.iter().position(|one| one.target_name() == column.as_str());
            place.is_some_and(|place| matches!(self.kinds[place], Kind::Text | Kind::Bytes))
        };
        let digest: Vec<String> = columns.iter().filter(is_long).cloned().collect();
        if digest.is_empty() {
            self.proposal.notes.push(format!("{described}: the key is left out"));
            return;
        }
        if object == "the primary key" {
            for column in &mut self.proposal.plan.columns {
                column.not_null |= columns.iter().any(|name| column.target_name() == name);
            }
        }
        self.proposal.notes.push(format!(
            "{described}: a unique index on the md5 digests of its texts is proposed instead, which foreign keys and \
             ON CONFLICT ({}) cannot use",
            one_line(&columns.join(", "))
        ));
        let index = IndexPlan { name, columns, digest, unique: true, ..IndexPlan::default() };
        self.proposal.plan.indexes.push(index);
    }

    fn checks(&mut self, names: &mut Names) {
        let table = self.proposal.plan.name.clone();
        for (number, expression) in translate::checks(&self.facts.sql).into_iter().enumerate() {
            match translate::condition(&expression, &self.condition_columns()) {
                Ok(translated) => {
                    let name = names.take(&table, &format!("{table}_check{}", number + 1));
                    self.proposal.plan.checks.push(CheckPlan { name, expression: translated });
                }
                Err(why) => {
                    let note = format!("CHECK ({}) is not carried over: {why}", one_line(&expression));
                    self.proposal.notes.push(note);
                }
            }
        }
    }

    /// Returns the columns to which conditions may refer.
    fn condition_columns(&self) -> translate::Columns {
        let columns = self.proposal.plan.columns.iter().zip(&self.kinds).zip(&self.profile.columns);
        let entry = |((column, kind), profile): ((&ColumnPlan, &Kind), &ColumnProfile)| {
            let source = column.source.to_ascii_lowercase();
            let properties = ColumnProperties {
                name: column.target_name().to_owned(),
                kind: *kind,
                has_collation: self.collations.contains_key(&source),
                is_plain: choose::is_plain(profile, *kind),
                gains_nulls: !column.nulls.is_empty(),
            };
            (source, properties)
        };
        columns.map(entry).collect()
    }

    fn indexes(&mut self, names: &mut Names) {
        let table = self.proposal.plan.name.clone();
        for index in self.facts.indexes.iter().filter(|index| index.origin == "c") {
            let columns: Option<Vec<(String, bool)>> = index
                .columns
                .iter()
                .map(|(name, descending)| Some((self.target(name.as_deref()?)?, *descending)))
                .collect();
            let Some(columns) = columns else {
                self.proposal
                    .notes
                    .push(format!("the index {} is not carried over: it uses an expression", one_line(&index.name)));
                continue;
            };
            let in_file = translate::condition_of(index);
            let condition = match &in_file {
                None if index.partial => Err("its condition cannot be found".to_owned()),
                None => Ok(None),
                Some(condition) => translate::condition(condition, &self.condition_columns()).map(Some),
            };
            match condition {
                Ok(condition) => {
                    let name = names.take(&table, &self.options.name(&index.name));
                    let descending = columns.iter().filter(|(_, down)| *down).map(|(name, _)| name.clone()).collect();
                    let columns = columns.into_iter().map(|(name, _)| name).collect();
                    let (unique, rest) = (index.unique, IndexPlan::default());
                    let index = IndexPlan { name, descending, columns, condition, unique, ..rest };
                    self.add_index(index, in_file.as_deref());
                }
                Err(why) => {
                    self.proposal.notes.push(format!("the index {} is not carried over: {why}", one_line(&index.name)));
                }
            }
        }
    }

    /// Proposes an index, which has this condition in the file. If a btree index cannot hold its rows, it is replaced, or left
    /// out.
    fn add_index(&mut self, mut index: IndexPlan, in_file: Option<&str>) {
        let Some(long) = self.long_rows(&index.columns, in_file) else {
            self.proposal.plan.indexes.push(index);
            return;
        };
        let object = format!("the index {}", one_line(&index.name));
        if index.unique && index.condition.is_none() {
            self.index_by_digest(index.name, &object, index.columns, &long);
            return;
        }
        let described = self.too_long(&object, &index.columns, &long);
        if index.columns.len() > 1 || index.unique {
            self.proposal.notes.push(format!("{described}: it is left out"));
            return;
        }
        self.proposal
            .notes
            .push(format!("{described}: a hash index is proposed instead, which finds equal values only"));
        (index.using, index.descending) = (Some("hash".to_owned()), Vec::new());
        self.proposal.plan.indexes.push(index);
    }

    /// Proposes the objects that queries on a time series need: a hypertable, and an index by key and time.
    fn time_series(&mut self, names: &mut Names) {
        let Some((place, interval)) = self.time_column() else { return };
        let time = self.proposal.plan.columns[place].target_name().to_owned();
        let key = self.key_column(place);
        let is_referred_to = self.schema.tables.iter().any(|other| {
            let refers = |key: &ForeignKeyFacts| key.references.eq_ignore_ascii_case(&self.facts.name);
            other.foreign_keys.iter().any(refers)
        });
        if let Some(key) = &key {
            let is_same_index =
                |index: &IndexPlan| index.columns.first() == Some(key) && index.columns.get(1) == Some(&time);
            if !self.proposal.plan.indexes.iter().any(is_same_index) {
                let table = self.proposal.plan.name.clone();
                let name = names.take(&table, &format!("{table}_{key}_{time}_idx"));
                let index = IndexPlan {
                    name,
                    columns: vec![key.clone(), time.clone()],
                    descending: vec![time.clone()],
                    ..IndexPlan::default()
                };
                self.proposal.plan.indexes.push(index);
            }
        }
        if is_referred_to {
            let note = format!(
                "a time series by {}, but other tables reference this table: no hypertable is proposed",
                one_line(&time)
            );
            self.proposal.notes.push(note);
            return;
        }
        if !self.options.has_timescale {
            let note = format!(
                "a time series by {}: a hypertable would be proposed if the target had TimescaleDB",
                one_line(&time)
            );
            self.proposal.notes.push(note);
            return;
        }
        self.hypertable(time, interval, key);
    }

    fn hypertable(&mut self, time: String, interval: &str, key: Option<String>) {
        let plan = &mut self.proposal.plan;
        let shown = |columns: &[String]| one_line(&columns.join(", "));
        let mut notes = Vec::new();
        let uniques = plan.uniques.iter_mut().map(|unique| &mut unique.columns);
        let indexes = plan.indexes.iter_mut().filter(|index| index.unique).map(|index| &mut index.columns);
        for columns in std::iter::once(&mut plan.primary_key).chain(uniques).chain(indexes) {
            if !columns.is_empty() && !columns.contains(&time) {
                notes.push(format!(
                    "every key of a hypertable must have its time column: ({}) is unique only together with {}",
                    shown(columns),
                    one_line(&time)
                ));
                columns.push(time.clone());
            }
        }
        let quoted = |name: &str| serde_json::to_string(name).unwrap_or_default();
        let order = if time.contains(['"', ',']) { ident(&time) } else { time.clone() };
        let segment = key.map_or(String::new(), |key| format!("segment_by = [{}], ", quoted(&key)));
        self.proposal.options = vec![
            format!("compress = {{ {segment}order_by = {}, after = \"30 days\" }}", quoted(&format!("{order} DESC"))),
            "retention = \"5 years\"".to_owned(),
        ];
        plan.hypertable = Some(HypertablePlan { time, interval: interval.to_owned(), compress: None, retention: None });
        self.proposal.notes.extend(notes);
    }

    /// Returns the time column that makes the table a time series, and the interval of a chunk.
    fn time_column(&self) -> Option<(usize, &'static str)> {
        /// The number of rows below which a hypertable is not worthwhile.
        const ROWS: u64 = 1000;
        if self.profile.rows < ROWS {
            return None;
        }
        let is_history = |(_, (kind, profile)): &(usize, (&Kind, &ColumnProfile))| {
            let nulls = profile.trial(**kind).map_or(0, |trial| trial.nulls.values().sum::<u64>());
            matches!(kind, Kind::Instant | Kind::Date)
                && profile.nulls + nulls == 0
                && profile.in_order.saturating_mul(10) >= profile.values().saturating_mul(9)
        };
        let found = self.kinds.iter().zip(&self.profile.columns).enumerate().filter(is_history);
        let (place, (_, profile)) = found.max_by_key(|(place, (_, profile))| (profile.in_order, usize::MAX - place))?;
        let (earliest, latest) = profile.span.as_ref()?;
        let read = |text: &str| NaiveDateTime::parse_from_str(text.get(..19)?, "%Y-%m-%d %H:%M:%S").ok();
        let days = (read(latest)? - read(earliest)?).num_days().unsigned_abs();
        // Some dozens of chunks, none of them tiny.
        let by_rows = days * 200_000 / self.profile.rows.max(1);
        Some((
            place,
            match (days / 100).max(by_rows.min(days / 10)) {
                0..=3 => "1 day",
                4..=20 => "7 days",
                _ => "1 month",
            },
        ))
    }

    /// Returns the column that identifies the subject of the time series, such as a symbol or an account.
    fn key_column(&self, time: usize) -> Option<String> {
        const NAMES: [&str; 8] = ["symbol", "stock_code", "ticker", "code", "instrument", "account", "sector", "name"];
        let rows = self.profile.rows;
        let columns = self.proposal.plan.columns.iter().zip(&self.kinds).zip(&self.profile.columns).enumerate();
        let keys = columns.filter(|(place, ((column, kind), profile))| {
            *place != time
                && matches!(kind, Kind::Text | Kind::Whole(_))
                && !column.identity
                && profile.nulls == 0
                && (2..=(rows / 5).min(DISTINCT - 1)).contains(&profile.distinct)
        });
        let rank = |name: &str| {
            let name = name.to_ascii_lowercase();
            let is_key = name.ends_with("_id") || name.ends_with("_code") || name.ends_with("_symbol");
            NAMES.iter().position(|known| *known == name).or(is_key.then_some(NAMES.len()))
        };
        let best = keys.filter_map(|(_, ((column, _), _))| Some((rank(&column.source)?, column.target_name())));
        best.min_by_key(|(rank, _)| *rank).map(|(_, name)| name.to_owned())
    }

    fn json_indexes(&mut self, names: &mut Names) {
        let table = self.proposal.plan.name.clone();
        for (place, kind) in self.kinds.iter().enumerate() {
            if *kind != Kind::Jsonb || self.profile.columns[place].structured == 0 {
                continue;
            }
            let column = self.proposal.plan.columns[place].target_name().to_owned();
            let name = names.take(&table, &format!("{table}_{column}_gin"));
            self.proposal.plan.indexes.push(IndexPlan {
                name,
                columns: vec![column],
                using: Some("gin".to_owned()),
                operator_class: Some("jsonb_path_ops".to_owned()),
                ..IndexPlan::default()
            });
        }
    }

    fn note_omissions(&mut self) {
        for index in &self.facts.indexes {
            let mut collations = index.collations.iter().filter(|name| !name.eq_ignore_ascii_case("BINARY"));
            let Some(collation) = collations.next() else { continue };
            let object = match index.origin.as_str() {
                "c" => format!("the index {}", one_line(&index.name)),
                "pk" => "the primary key".to_owned(),
                _ => "a UNIQUE constraint".to_owned(),
            };
            let effect = if index.unique { ": texts that are equal in SQLite may differ in the target" } else { "" };
            let note = format!("{object} uses COLLATE {}, which is not carried over{effect}", one_line(collation));
            self.proposal.notes.push(note);
        }
        for (name, _) in self.schema.triggers.iter().filter(|(_, table)| *table == self.facts.name) {
            self.proposal.notes.push(format!("the trigger {} is not carried over", one_line(name)));
        }
    }
}

/// Carries over the foreign keys whose referenced tables are proposed too, with columns of the same type.
pub(super) fn add_foreign_keys(proposals: &mut [Proposal], file: &InspectedFile<'_>, names: &mut Names) {
    let parents: HashMap<String, TablePlan> =
        proposals.iter().map(|proposal| (proposal.plan.source.to_ascii_lowercase(), proposal.plan.clone())).collect();
    let of_new = |(proposal, _): &(&mut Proposal, &TableFacts)| !proposal.plan.existing;
    for (proposal, facts) in proposals.iter_mut().zip(&file.schema.tables).filter(of_new) {
        for key in &facts.foreign_keys {
            match foreign_key(&proposal.plan, key, &parents, file, names) {
                Ok(mut carried) => {
                    let parent = one_line(&key.references);
                    let reason = match &key.orphans {
                        Ok(0) => None,
                        Ok(rows) => Some(format!("{rows} rows reference missing rows of {parent}")),
                        Err(error) => Some(format!("SQLite cannot check the foreign key to {parent} ({error})")),
                    };
                    if let Some(reason) = reason {
                        carried.validate = false;
                        proposal.notes.push(format!("{reason}: the foreign key is checked only for new rows"));
                    }
                    proposal.plan.foreign_keys.push(carried);
                }
                Err(why) => proposal.notes.push(format!(
                    "the foreign key ({}) to {} is not carried over: {why}",
                    one_line(&key.columns.join(", ")),
                    one_line(&key.references)
                )),
            }
        }
    }
}

fn foreign_key(
    plan: &TablePlan,
    key: &ForeignKeyFacts,
    parents: &HashMap<String, TablePlan>,
    file: &InspectedFile<'_>,
    names: &mut Names,
) -> Result<ForeignKeyPlan, String> {
    let parent = parents.get(&key.references.to_ascii_lowercase()).ok_or("that table does not exist")?;
    if parent.hypertable.is_some() {
        return Err("it would reference a hypertable".to_owned());
    }
    let facts = file.schema.tables.iter().find(|table| table.name.eq_ignore_ascii_case(&key.references));
    let referenced: Vec<String> = if key.referenced.is_empty() {
        facts.map(|facts| facts.primary_key().iter().map(|column| column.name.clone()).collect()).unwrap_or_default()
    } else {
        key.referenced.clone()
    };
    let find = |plan: &TablePlan, names: &[String]| -> Option<Vec<ColumnPlan>> {
        let one = |name: &String| plan.columns.iter().find(|column| column.source.eq_ignore_ascii_case(name)).cloned();
        names.iter().map(one).collect()
    };
    let own = find(plan, &key.columns).ok_or("a column does not exist")?;
    let theirs = find(parent, &referenced).filter(|found| found.len() == own.len()).ok_or("a column does not exist")?;
    if own.iter().zip(&theirs).any(|(own, their)| own.target_type != their.target_type) {
        return Err("the columns have different types".to_owned());
    }
    let targets = |columns: &[ColumnPlan]| columns.iter().map(|column| column.target_name().to_owned()).collect();
    let (columns, referenced): (Vec<String>, Vec<String>) = (targets(&own), targets(&theirs));
    let set = |columns: &[String]| columns.iter().cloned().collect::<BTreeSet<_>>();
    let by_digest =
        |key: &[String]| parent.indexes.iter().any(|index| index.columns == key && !index.digest.is_empty());
    if !parent.keys().any(|key| set(key) == set(&referenced) && !by_digest(key)) {
        return Err("the referenced columns are not unique".to_owned());
    }
    let action = |word: &str| Some(word.to_owned()).filter(|word| word != "NO ACTION");
    Ok(ForeignKeyPlan {
        name: names.take(&plan.name, &format!("{}_{}_fkey", plan.name, columns.join("_"))),
        columns,
        references: parent.name.clone(),
        schema: None,
        referenced,
        on_delete: action(&key.on_delete),
        on_update: action(&key.on_update),
        validate: true,
    })
}

/// A column that is proposed.
struct ProposedColumn {
    plan: ColumnPlan,
    /// Remarks for the plan's comments.
    notes: Vec<String>,
    /// Remarks for the plan's comments and for the console.
    warnings: Vec<String>,
}

fn propose_column(
    facts: &ColumnFacts,
    profile: &ColumnProfile,
    choice: &Choice,
    is_rowid: bool,
    options: &ProposeOptions,
) -> ProposedColumn {
    let kind = choice.kind;
    let mut notes = vec![remarks::evidence(facts, profile, kind, options.zone)];
    let trial = profile.trial(kind);
    let nulls: Vec<String> = match kind {
        Kind::Text => Vec::new(),
        _ => trial.map(|trial| trial.nulls.keys().cloned().collect()).unwrap_or_default(),
    };
    let mut not_null = facts.not_null && !is_rowid;
    if not_null && (profile.nulls > 0 || !nulls.is_empty()) {
        not_null = false;
        notes.push("declared NOT NULL, but some values are NULL or mean NULL: the target allows NULL".to_owned());
    }
    if let Some(trial) = trial {
        notes.extend(remarks::null_texts(trial).filter(|_| kind != Kind::Text));
        notes.extend(remarks::failures(trial));
    }
    let mut warnings = remarks::changes(profile, kind, options.zone);
    warnings.extend(choose::epoch_question(facts, profile, kind));
    if facts.generated {
        notes.push("a generated column in the file: an ordinary column with the same values in the target".to_owned());
    }
    let mut default = None;
    if let Some(sql) = facts.default.as_deref().filter(|_| !is_rowid && !facts.generated) {
        match defaults::default(sql, defaults::Target { kind, epoch: choice.epoch, zone: options.zone }) {
            Ok(carried) => {
                notes.extend(carried.clock.and_then(|clock| clock_note(clock, profile, kind, options.zone)));
                default = carried.sql;
            }
            Err(why) => {
                let note = format!("the default {} is not carried over: {why}", one_line(sql));
                match not_null {
                    true => warnings.push(format!(
                        "{note}. The column is NOT NULL: give it a default in the plan, or every INSERT needs a value for it"
                    )),
                    false => notes.push(note),
                }
            }
        }
    }
    let plan = ColumnPlan {
        source: facts.name.clone(),
        name: None,
        target_type: choose::written(kind),
        zone: None,
        epoch: choice.epoch,
        nulls,
        not_null,
        identity: is_rowid,
        default,
    };
    ProposedColumn { plan, notes, warnings }
}

/// Returns the remark on a default that writes times without an offset, if the plan reads the times of the file in
/// another zone.
fn clock_note(clock: Clock, profile: &ColumnProfile, kind: Kind, zone: Tz) -> Option<String> {
    let has_local_times = kind == Kind::Instant && profile.forms.local > 0;
    match clock {
        _ if !has_local_times => None,
        Clock::Utc if zone != Tz::UTC => Some(
            "its default writes UTC in SQLite: if it wrote the times in the file, they need zone = \"UTC\"".to_owned(),
        ),
        Clock::Local if zone == Tz::UTC => Some(
            "its default writes the local time of the machine in SQLite: if it wrote the times in the file, they need the \
             zone of that machine"
                .to_owned(),
        ),
        _ => None,
    }
}
