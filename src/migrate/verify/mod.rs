//! Compares a migration row by row with the files that it came from.
//!
//! Values are converted by separate code (`canon`, `times`, `json`), so that loading and comparing do not share an
//! error. Rows may come in any order, and memory is limited: both sides are summed into parts by their keys, and only
//! parts whose sums differ are read again and compared row by row.

mod canon;
mod json;
mod shape;
mod shown;
mod times;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use self::canon::{Canon, Column};
use super::changes;
use super::convert::Kind;
use super::ddl;
use super::not_planned;
use super::notation::ServerType;
use super::plan::{Plan, TablePlan};
use super::state::{self, SCHEMA, Unexpected};
use crate::engine::postgres::Params;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::sqlite::schema::TableFacts;
use crate::engine::sqlite::values::Reader;
use crate::platform::digest::RowHasher;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;
use crate::platform::progress::Progress;

/// The extent of a comparison and of its report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerifyOptions {
    /// The number of rows of each table that are compared; `None` for all rows. Tables without a key are always
    /// compared completely.
    pub sample: Option<u64>,
    /// The number of differences that are reported one by one.
    pub max_differences: usize,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// The tables, in the plan's order.
    pub tables: Vec<TableVerdict>,
    /// The differences that are reported one by one.
    pub differences: Vec<Difference>,
    /// The number of further differences that are not reported one by one.
    pub more: u64,
    /// Remarks that are not differences.
    pub notes: Vec<String>,
}

/// A table that was compared.
#[derive(Clone, Debug)]
pub(crate) struct TableVerdict {
    /// `file:table`.
    pub source: String,
    /// `schema.table`.
    pub target: String,
    /// The number of rows in the target; for merged tables, of all of them together.
    pub rows: u64,
    /// The number of rejected rows.
    pub rejected: u64,
}

/// A difference.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Difference {
    /// `schema.table`.
    pub table: String,
    /// `missing`, `unexpected`, `differs`, `count`, `shape`, `reject` or `run`.
    pub kind: &'static str,
    /// The row's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The row's rowid in its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rowid: Option<i64>,
    /// The column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The value of the file, in the form that the target should have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The value of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The difference as text.
    pub message: String,
}

/// Compares all tables of a plan, in one transaction in the target and in each file.
pub(crate) fn verify(
    plan: &Plan,
    files: &BTreeMap<String, PathBuf>,
    params: &Params,
    options: VerifyOptions,
    progress: &dyn Progress,
) -> Result<Verdict> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let mut verdict = Verdict::default();
    let Some(noted) = state::find(&mut session, &plan.id)? else {
        return Err(Error::problem("this plan was not run").hint("run it with 'lifeboat migrate run'"));
    };
    if noted.digest != plan.digest() {
        return Err(Error::usage("the plan was changed after it was started").hint("verify with the unchanged plan"));
    }
    if !noted.finished {
        let message = "the run is not complete: continue it with 'lifeboat migrate run'".to_owned();
        verdict.differences.push(Difference { kind: "run", message, ..Difference::default() });
    }
    for found in state::unexpected_rejects(&mut session, plan)? {
        let Unexpected { table, message } = found;
        verdict.add(options, Difference { table, kind: "reject", message, ..Difference::default() });
    }
    let mut readers = BTreeMap::new();
    for (name, path) in files {
        let reader = Reader::open(path)?;
        reader.begin()?;
        let schema = reader.schema()?;
        readers.insert(name.clone(), (reader, schema));
    }
    for (file, (_, schema)) in &readers {
        verdict.notes.extend(not_planned::notes(plan, file, schema));
    }
    progress.start("comparing", 0);
    let mut compared = BTreeSet::new();
    for table in &plan.tables {
        if !compared.insert((&table.schema, &table.name)) {
            continue;
        }
        let mut sources = Vec::new();
        for other in &plan.tables {
            if (&other.schema, &other.name) != (&table.schema, &table.name) {
                continue;
            }
            let (reader, schema) = readers
                .get(&other.file)
                .ok_or_else(|| Error::failed(format!("the file {} was not opened", one_line(&other.file))))?;
            let facts = schema
                .tables
                .iter()
                .find(|facts| facts.name == other.source)
                .ok_or_else(|| Error::problem(format!("the table {} no longer exists", other.shown_source())))?;
            sources.push(Source::new(plan, other, reader, facts, &mut session)?);
        }
        if !state::relation_exists(&mut session, &ddl::target(table))? {
            let message = format!("{} does not exist", table.shown_target());
            verdict.add(
                options,
                Difference { table: table.shown_target(), kind: "missing", message, ..Difference::default() },
            );
            continue;
        }
        let shape = shape::compare(&mut session, plan, table, &mut verdict.notes)?;
        verdict.add_all(options, shape);
        let columns: Vec<Column> =
            table.columns.iter().map(|column| Column::new(table, column, plan.zone)).collect::<Result<_>>()?;
        let comparison = Comparison { plan, table, columns, sources, options, progress };
        comparison.run(&mut session, &mut verdict)?;
    }
    progress.finish();
    session.execute("COMMIT")?;
    Ok(verdict)
}

impl Verdict {
    fn add(&mut self, options: VerifyOptions, difference: Difference) {
        if self.differences.len() < options.max_differences {
            self.differences.push(difference);
        } else {
            self.more += 1;
        }
    }

    fn add_all(&mut self, options: VerifyOptions, differences: Vec<Difference>) {
        differences.into_iter().for_each(|difference| self.add(options, difference));
    }
}

/// A table of a file that is compared.
struct Source<'a> {
    plan: &'a TablePlan,
    reader: &'a Reader,
    facts: &'a TableFacts,
    columns: Vec<(usize, Column)>,
    /// The types that only the server reads, with the numbers of their columns.
    server_types: Vec<(usize, ServerType)>,
    /// The number of rejected rows by their hash.
    rejects: HashMap<u128, u32>,
}

impl<'a> Source<'a> {
    fn new(
        plan: &'a Plan,
        table: &'a TablePlan,
        reader: &'a Reader,
        facts: &'a TableFacts,
        session: &mut Session,
    ) -> Result<Self> {
        let columns = table.columns.iter().map(|column| {
            let place = facts.columns.iter().position(|other| other.name == column.source).ok_or_else(|| {
                Error::problem(format!("{} no longer has a column {}", table.shown_source(), one_line(&column.source)))
            })?;
            Ok((place, Column::new(table, column, plan.zone)?))
        });
        let columns: Vec<(usize, Column)> = columns.collect::<Result<_>>()?;
        let mut server_types = Vec::new();
        for (number, (_, column)) in columns.iter().enumerate().filter(|(_, (_, column))| column.kind == Kind::Other) {
            server_types.push((number, ServerType::read(session, &column.target_type)?));
        }
        let mut rejects: HashMap<u128, u32> = HashMap::new();
        let query = format!(
            "SELECT row_hash FROM {SCHEMA}.rejects WHERE plan = {} AND file = {} AND source = {}",
            literal(&plan.id),
            literal(&table.file),
            literal(&table.source)
        );
        copy_lines(session, &query, &mut |line| {
            let hash = std::str::from_utf8(line).ok().and_then(|text| u128::from_str_radix(text, 16).ok());
            *rejects.entry(hash.ok_or_else(|| Error::failed("a rejected row has no hash"))?).or_default() += 1;
            Ok(())
        })?;
        Ok(Source { plan: table, reader, facts, columns, server_types, rejects })
    }

    /// Passes every row that should be in the target to `visit`, with its rowid and its values. The values are `None`
    /// if the row cannot be converted and was not rejected. Returns the number of rejected rows, and the number of
    /// rejected rows that are not in the file.
    fn for_each_row(
        &self,
        session: &mut Session,
        progress: &dyn Progress,
        visit: &mut dyn FnMut(Option<i64>, Option<Vec<Canon>>) -> Result<()>,
    ) -> Result<(u64, u64)> {
        let mut rows = self.reader.rows(self.facts, None)?;
        let mut hasher = RowHasher::default();
        let mut left = self.rejects.clone();
        let (mut rejected, mut count) = (0u64, 0u64);
        let mut batch = Batch::default();
        while rows.step()? {
            count += 1;
            if count.is_multiple_of(4096) {
                interrupt::check()?;
                progress.advance(4096);
            }
            if !left.is_empty() {
                rows.hash(&mut hasher)?;
                let hash = hasher.hash();
                if let Some(times) = left.get_mut(&hash).filter(|times| **times > 0) {
                    *times -= 1;
                    rejected += 1;
                    continue;
                }
            }
            let mut values = Some(Vec::with_capacity(self.columns.len()));
            for (place, column) in &self.columns {
                match (column.of_file(rows.cell(*place)?), &mut values) {
                    (Some(value), Some(values)) => values.push(value),
                    _ => values = None,
                }
            }
            if self.server_types.is_empty() {
                visit(rows.rowid()?, values)?;
                continue;
            }
            batch.add(rows.rowid()?, values);
            if batch.is_full() {
                self.visit_batch(session, &mut batch, visit)?;
            }
        }
        self.visit_batch(session, &mut batch, visit)?;
        Ok((rejected, left.values().map(|times| u64::from(*times)).sum()))
    }
}

/// Rows of a file that wait for the server's notation of their values.
#[derive(Default)]
struct Batch {
    rows: Vec<(Option<i64>, Option<Vec<Canon>>)>,
    bytes: u64,
}

impl Batch {
    fn add(&mut self, rowid: Option<i64>, values: Option<Vec<Canon>>) {
        self.bytes += values.as_ref().map_or(0, |values| size(values));
        self.rows.push((rowid, values));
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= 1000 || self.bytes >= 4 << 20
    }
}

impl Source<'_> {
    /// Brings the values of types that only the server reads into its notation, and passes the rows to `visit`. A value that
    /// the server does not hold exactly stays as it is, so that it differs from every value of the target.
    fn visit_batch(
        &self,
        session: &mut Session,
        batch: &mut Batch,
        visit: &mut dyn FnMut(Option<i64>, Option<Vec<Canon>>) -> Result<()>,
    ) -> Result<()> {
        let Batch { mut rows, .. } = std::mem::take(batch);
        for (number, server_type) in &self.server_types {
            let cells = rows.iter_mut().filter_map(|(_, values)| values.as_mut()?[*number].as_mut());
            let mut cells: Vec<&mut Vec<u8>> = cells.collect();
            let texts: Vec<String> = cells.iter().map(|cell| String::from_utf8_lossy(cell).into_owned()).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            for (cell, text) in cells.iter_mut().zip(server_type.canonical(session, &texts)?) {
                if let Some(text) = text {
                    **cell = text.into_bytes();
                }
            }
        }
        rows.into_iter().try_for_each(|(rowid, values)| visit(rowid, values))
    }
}

/// The number of parts that rows are summed into.
const PARTS: u64 = 1 << 14;

/// The number of rows of each side that are kept in memory at once.
const ROWS_IN_MEMORY: u64 = 20_000;

/// The number of bytes of both sides that are kept in memory at once, if a part does not have more.
const BYTES_IN_MEMORY: u64 = 64 << 20;

/// The sum of a part's rows.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    bytes: u64,
    hash: u128,
}

impl Sum {
    fn add(&mut self, values: &[Canon]) {
        self.rows += 1;
        self.bytes += size(values);
        self.hash = self.hash.wrapping_add(hash(values));
    }
}

struct Comparison<'a> {
    plan: &'a Plan,
    table: &'a TablePlan,
    columns: Vec<Column>,
    sources: Vec<Source<'a>>,
    options: VerifyOptions,
    progress: &'a dyn Progress,
}

/// A row that is kept in memory, with the number of its occurrences.
struct CountedRow {
    rowid: Option<i64>,
    values: Vec<Canon>,
    times: u64,
}

impl Comparison<'_> {
    fn run(&self, session: &mut Session, verdict: &mut Verdict) -> Result<()> {
        let shown = self.table.shown_target();
        let key_columns = self.key_columns();
        if let (Some(rows), Some(key)) = (self.options.sample, &key_columns) {
            return self.sample(session, key, rows, verdict);
        }
        let key = key_columns.unwrap_or_else(|| (0..self.columns.len()).collect());
        let mut sums: Vec<(Sum, Sum)> = vec![(Sum::default(), Sum::default()); PARTS as usize];
        let mut expected = 0u64;
        for source in &self.sources {
            self.read_source(session, source, verdict, &mut |_, values| {
                expected += 1;
                sums[part(&values, &key) as usize].0.add(&values);
            })?;
        }
        let mut actual = 0u64;
        self.for_each_target_row(session, &self.all(), &mut |values| {
            actual += 1;
            sums[part(&values, &key) as usize].1.add(&values);
            Ok(())
        })?;
        let count = verdict.tables.len() - self.sources.len();
        verdict.tables[count..].iter_mut().for_each(|table| table.rows = actual);
        if actual != expected {
            verdict.add(self.options, count_differs(&shown, expected, actual));
        }
        let mut differing: Vec<usize> = (0..sums.len()).filter(|part| sums[*part].0 != sums[*part].1).collect();
        // Both sides are read again for some parts at a time, until the limit of reported differences is reached.
        while !differing.is_empty() && verdict.more == 0 {
            let (mut row_count, mut byte_count) = (0, 0);
            let mut chosen = BTreeSet::new();
            differing.retain(|part| {
                let rows = sums[*part].0.rows.max(sums[*part].1.rows);
                let bytes = sums[*part].0.bytes + sums[*part].1.bytes;
                let is_small = row_count + rows <= ROWS_IN_MEMORY && byte_count + bytes <= BYTES_IN_MEMORY;
                let fits = chosen.is_empty() || is_small;
                if fits {
                    row_count += rows;
                    byte_count += bytes;
                    chosen.insert(*part as u64);
                }
                !fits
            });
            self.report_parts(session, &key, &chosen, verdict)?;
        }
        // Each part that was not read again differs in at least one row.
        verdict.more += differing.len() as u64;
        Ok(())
    }

    /// Returns the positions of the columns that identify a row: a key of the plan that refuses NULL.
    fn key_columns(&self) -> Option<Vec<usize>> {
        let place = |name: &String| {
            let place = self.columns.iter().position(|column| column.name == *name)?;
            self.columns[place].refuses_null.then_some(place)
        };
        self.table.keys().find_map(|key| key.iter().map(place).collect())
    }

    fn for_each_target_row(
        &self,
        session: &mut Session,
        query: &str,
        visit: &mut dyn FnMut(Vec<Canon>) -> Result<()>,
    ) -> Result<()> {
        let mut count = 0u64;
        copy_lines(session, query, &mut |line| {
            count += 1;
            if count.is_multiple_of(4096) {
                interrupt::check()?;
                self.progress.advance(4096);
            }
            let mut values = Vec::with_capacity(self.columns.len());
            for (field, column) in line.split(|byte| *byte == b'\t').zip(&self.columns) {
                let text = unescape(field)?;
                values.push(column.of_target(text)?);
            }
            if values.len() != self.columns.len() {
                return Err(Error::failed("the server returned a row with a wrong number of columns"));
            }
            visit(values)
        })
    }

    /// Reads the rows of some parts again on both sides, and reports how they differ.
    fn report_parts(
        &self,
        session: &mut Session,
        key: &[usize],
        parts: &BTreeSet<u64>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let mut wanted: Rows = BTreeMap::new();
        let of_key = |values: &[Canon]| -> Vec<Canon> { key.iter().map(|place| values[*place].clone()).collect() };
        for source in &self.sources {
            source.for_each_row(session, self.progress, &mut |rowid, values| {
                if let Some(values) = values.filter(|values| parts.contains(&part(values, key))) {
                    add_row(&mut wanted, of_key(&values), rowid, values);
                }
                Ok(())
            })?;
        }
        let mut unexpected: Rows = BTreeMap::new();
        self.for_each_target_row(session, &self.all(), &mut |values| {
            if parts.contains(&part(&values, key)) {
                match_target_row(&mut wanted, &mut unexpected, of_key(&values), values);
            }
            Ok(())
        })?;
        self.report_unmatched(key, wanted, unexpected, verdict);
        Ok(())
    }

    /// Passes the rows of a file that should be in the target to `visit`, and reports rows that cannot be converted and
    /// rejected rows that are not in the file.
    fn read_source(
        &self,
        session: &mut Session,
        source: &Source<'_>,
        verdict: &mut Verdict,
        visit: &mut dyn FnMut(Option<i64>, Vec<Canon>),
    ) -> Result<()> {
        let shown = self.table.shown_target();
        let from = source.plan.shown_source();
        let (rejected, unknown_rejects) = source.for_each_row(session, self.progress, &mut |rowid, values| {
            if let Some(values) = values {
                visit(rowid, values);
                return Ok(());
            }
            let place = rowid.map_or("a row".to_owned(), |rowid| format!("the row {rowid}"));
            let message = format!("{place} of {from} cannot be converted, and is not among the rejected rows");
            let difference =
                Difference { table: shown.clone(), kind: "reject", rowid, message, ..Difference::default() };
            verdict.add(self.options, difference);
            Ok(())
        })?;
        if unknown_rejects > 0 {
            let message = format!("{unknown_rejects} rejected rows do not (or no longer) exist in {from}");
            let table = shown.clone();
            verdict.add(self.options, Difference { table, kind: "reject", message, ..Difference::default() });
        }
        let counts = source.columns.iter().zip(&source.plan.columns);
        let changes = counts.map(|((_, column), plan)| (plan.source.clone(), column.changes.take())).collect();
        verdict.notes.extend(changes::remarks(self.plan, source.plan, &changes));
        let rejected = rejected + unknown_rejects;
        verdict.tables.push(TableVerdict { source: from, target: shown, rows: 0, rejected });
        Ok(())
    }

    /// Compares a sample of rows, spread evenly over each file, with the rows of the same keys in the target, and the
    /// total numbers of rows.
    fn sample(&self, session: &mut Session, key: &[usize], rows: u64, verdict: &mut Verdict) -> Result<()> {
        let shown = self.table.shown_target();
        let mut wanted: Rows = BTreeMap::new();
        let mut expected = 0u64;
        for source in &self.sources {
            let all = source.reader.count(source.facts)?;
            let step = all.div_ceil(rows.max(1)).max(1);
            let mut number = 0u64;
            self.read_source(session, source, verdict, &mut |rowid, values| {
                number += 1;
                if number.is_multiple_of(step) {
                    let key_values: Vec<Canon> = key.iter().map(|place| values[*place].clone()).collect();
                    add_row(&mut wanted, key_values, rowid, values);
                }
            })?;
            expected += number;
        }
        let row = session.row(&format!("SELECT count(*) AS rows FROM {}", ddl::target(self.table)))?;
        let actual: u64 = row.number("rows")?;
        let count = verdict.tables.len() - self.sources.len();
        verdict.tables[count..].iter_mut().for_each(|table| table.rows = actual);
        if actual != expected {
            verdict.add(self.options, count_differs(&shown, expected, actual));
        }
        let mut found: Rows = BTreeMap::new();
        let keys: Vec<Vec<Canon>> = wanted.keys().cloned().collect();
        for some in keys.chunks(500) {
            let value = |(place, value): (&usize, &Canon)| {
                let column = &self.columns[*place];
                match value {
                    Some(_) => format!("{}::{}", literal(&column.shown(value)), column.target_type),
                    None => format!("NULL::{}", column.target_type),
                }
            };
            let line = |key_values: &Vec<Canon>| {
                format!("({})", key.iter().zip(key_values).map(value).collect::<Vec<_>>().join(", "))
            };
            let lines = some.iter().map(line);
            let same = key
                .iter()
                .enumerate()
                .map(|(number, place)| format!("t.{} = v.k{number}", ident(&self.columns[*place].name)));
            let columns = self.columns.iter().map(|column| format!("t.{}", ident(&column.name)));
            let query = format!(
                "SELECT {} FROM (VALUES {}) v({}) JOIN {} t ON {}",
                columns.collect::<Vec<_>>().join(", "),
                lines.collect::<Vec<_>>().join(", "),
                (0..key.len()).map(|number| format!("k{number}")).collect::<Vec<_>>().join(", "),
                ddl::target(self.table),
                same.collect::<Vec<_>>().join(" AND ")
            );
            self.for_each_target_row(session, &query, &mut |values| {
                let key_values: Vec<Canon> = key.iter().map(|place| values[*place].clone()).collect();
                match_target_row(&mut wanted, &mut found, key_values, values);
                Ok(())
            })?;
        }
        self.report_unmatched(key, wanted, found, verdict);
        Ok(())
    }

    /// Returns the query for all rows of the target.
    fn all(&self) -> String {
        format!("SELECT {} FROM {}", ddl::columns(self.table), ddl::target(self.table))
    }

    /// Reports the rows that have no equal row on the other side.
    fn report_unmatched(&self, key: &[usize], wanted: Rows, mut unexpected: Rows, verdict: &mut Verdict) {
        for (key_values, rows) in wanted {
            let mut others = unexpected.remove(&key_values).unwrap_or_default();
            for row in rows {
                for _ in 0..row.times {
                    match take_one(&mut others) {
                        Some(other) => self.report_columns(&key_values, key, &row, &other, verdict),
                        None => verdict.add(self.options, self.missing(&key_values, key, &row)),
                    }
                }
            }
            unexpected.insert(key_values, others);
        }
        for (key_values, rows) in unexpected {
            for _ in 0..rows.iter().map(|row| row.times).sum() {
                verdict.add(self.options, self.unexpected(&key_values, key));
            }
        }
    }

    fn report_columns(
        &self,
        key_values: &[Canon],
        key: &[usize],
        row: &CountedRow,
        other: &[Canon],
        verdict: &mut Verdict,
    ) {
        for (place, column) in self.columns.iter().enumerate() {
            let (source, target) = (&row.values[place], &other[place]);
            if source == target {
                continue;
            }
            let (source, target) = shown::both(column, source, target);
            let (shown_key, key_in_sentence) = self.shown_key(key_values, key);
            let message = format!(
                "{}: in the row ({key_in_sentence}), {} is {}, but should be {}",
                self.table.shown_target(),
                one_line(&column.name),
                target.in_sentence,
                source.in_sentence
            );
            let difference = Difference {
                table: self.table.shown_target(),
                kind: "differs",
                key: Some(shown_key),
                rowid: row.rowid,
                column: Some(column.name.clone()),
                source: Some(source.plain),
                target: Some(target.plain),
                message,
            };
            verdict.add(self.options, difference);
        }
    }

    /// Returns a key alone, and as it stands in a sentence.
    fn shown_key(&self, key_values: &[Canon], key: &[usize]) -> (String, String) {
        let parts = key.iter().zip(key_values).map(|(place, value)| shown::one(&self.columns[*place], value));
        let (plain, in_sentence): (Vec<_>, Vec<_>) = parts.map(|part| (part.plain, part.in_sentence)).unzip();
        (plain.join(", "), in_sentence.join(", "))
    }

    fn missing(&self, key_values: &[Canon], key: &[usize], row: &CountedRow) -> Difference {
        let (shown_key, key_in_sentence) = self.shown_key(key_values, key);
        let place = row.rowid.map_or(String::new(), |rowid| format!(" (row {rowid} of the file)"));
        let message = format!("{}: the row ({key_in_sentence}){place} is missing", self.table.shown_target());
        Difference {
            table: self.table.shown_target(),
            kind: "missing",
            key: Some(shown_key),
            rowid: row.rowid,
            message,
            ..Difference::default()
        }
    }

    fn unexpected(&self, key_values: &[Canon], key: &[usize]) -> Difference {
        let (shown_key, key_in_sentence) = self.shown_key(key_values, key);
        let from = self.sources.iter().map(|source| source.plan.shown_source()).collect::<Vec<_>>().join(", ");
        let message = format!("{}: the row ({key_in_sentence}) does not exist in {from}", self.table.shown_target());
        Difference {
            table: self.table.shown_target(),
            kind: "unexpected",
            key: Some(shown_key),
            message,
            ..Difference::default()
        }
    }
}

/// Rows by their keys.
type Rows = BTreeMap<Vec<Canon>, Vec<CountedRow>>;

/// Adds a row.
fn add_row(rows: &mut Rows, key_values: Vec<Canon>, rowid: Option<i64>, values: Vec<Canon>) {
    let same_key = rows.entry(key_values).or_default();
    match same_key.iter_mut().find(|row| row.values == values) {
        Some(row) => row.times += 1,
        None => same_key.push(CountedRow { rowid, values, times: 1 }),
    }
}

/// Removes a row that both sides have, or keeps a row that only the target has.
fn match_target_row(wanted: &mut Rows, unexpected: &mut Rows, key_values: Vec<Canon>, values: Vec<Canon>) {
    if let Some(same_key) = wanted.get_mut(&key_values)
        && let Some(place) = same_key.iter().position(|row| row.values == values)
    {
        same_key[place].times -= 1;
        if same_key[place].times == 0 {
            same_key.swap_remove(place);
        }
        return;
    }
    add_row(unexpected, key_values, None, values);
}

/// Removes one occurrence of a row and returns its values.
fn take_one(rows: &mut Vec<CountedRow>) -> Option<Vec<Canon>> {
    let last = rows.last_mut()?;
    last.times -= 1;
    let values = last.values.clone();
    if last.times == 0 {
        rows.pop();
    }
    Some(values)
}

fn count_differs(table: &str, expected: u64, actual: u64) -> Difference {
    Difference {
        table: table.to_owned(),
        kind: "count",
        source: Some(expected.to_string()),
        target: Some(actual.to_string()),
        message: format!("{table} has {actual} rows, but should have {expected}"),
        ..Difference::default()
    }
}

/// Hashes values with their lengths, so that different rows have different hashes.
fn digest<'a>(values: impl Iterator<Item = &'a Canon>) -> Xxh3 {
    let mut hasher = Xxh3::new();
    for value in values {
        match value {
            None => hasher.update(&[0]),
            Some(bytes) => {
                hasher.update(&[1]);
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        }
    }
    hasher
}

fn hash(values: &[Canon]) -> u128 {
    digest(values.iter()).digest128()
}

/// Returns the part to which a row belongs, by its key.
fn part(values: &[Canon], key: &[usize]) -> u64 {
    digest(key.iter().map(|place| &values[*place])).digest() % PARTS
}

/// Returns the bytes of a row's values.
fn size(values: &[Canon]) -> u64 {
    values.iter().map(|value| 32 + value.as_ref().map_or(0, |bytes| bytes.len() as u64)).sum()
}

/// Passes every line of a query's COPY output to `visit`, without the line end.
fn copy_lines(session: &mut Session, query: &str, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut received = 0u64;
    // The beginning of a long line, which has no end yet, is searched only once.
    let mut searched = 0;
    let (rest, sent) = session.copy_out(&format!("COPY ({query}) TO STDOUT"), Vec::new(), |buffer| {
        let mut start = 0;
        while let Some(end) = memchr::memchr(b'\n', &buffer[searched..]) {
            received += 1;
            visit(&buffer[start..searched + end])?;
            start = searched + end + 1;
            searched = start;
        }
        buffer.drain(..start);
        searched = buffer.len();
        Ok(())
    })?;
    let mut rest = rest.as_slice();
    while let Some(end) = memchr::memchr(b'\n', rest) {
        received += 1;
        visit(&rest[..end])?;
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() || received != sent {
        return Err(Error::failed(format!("{received} rows were received from COPY, but the server sent {sent}")));
    }
    Ok(())
}

/// Decodes a field of COPY's text format. Returns `None` for NULL.
fn unescape(field: &[u8]) -> Result<Option<String>> {
    if field == b"\\N" {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'v') => 11,
            Some(other) => *other,
            None => return Err(Error::failed("the server returned an incomplete value")),
        });
    }
    String::from_utf8(out).map(Some).map_err(|_| Error::failed("the server returned a value that is not UTF-8"))
}
