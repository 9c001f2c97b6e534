//! Compares a migration row by row with the files that it came from.
//!
//! Values are converted by separate code (`canon`, `times`, `json`), so that loading and comparing do not share an
//! error. Rows may come in any order, and memory is limited: both sides are summed into parts by their keys, and only
//! parts whose sums differ are read again and compared row by row.

mod canon;
mod json;
mod shape;
mod times;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use self::canon::{Canon, Column};
use super::ddl;
use super::plan::{Plan, TablePlan};
use super::state::{self, SCHEMA};
use crate::engine::postgres::Params;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::engine::sqlite::schema::TableFacts;
use crate::engine::sqlite::values::Reader;
use crate::platform::digest::RowEncoder;
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
    pub most_differences: usize,
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
        return Err(Error::problem("nothing of this plan was run").hint("'lifeboat migrate run' does it"));
    };
    if noted.digest != plan.digest() {
        return Err(Error::usage("the plan was changed since it was begun").hint("verify with the plan as it was"));
    }
    if !noted.finished {
        let message = "the run has not ended: 'lifeboat migrate run' goes on with it".to_owned();
        verdict.differences.push(Difference { kind: "run", message, ..Difference::default() });
    }
    let mut readers = BTreeMap::new();
    for (name, path) in files {
        let reader = Reader::open(path)?;
        reader.begin()?;
        let schema = reader.schema()?;
        readers.insert(name.clone(), (reader, schema));
    }
    progress.start("comparing", 0);
    let mut seen = BTreeSet::new();
    for table in &plan.tables {
        if !seen.insert((&table.schema, &table.name)) {
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
                .ok_or_else(|| Error::problem(format!("there is no table {} any more", other.shown_source())))?;
            sources.push(Source::new(plan, other, reader, facts, &mut session)?);
        }
        let there = session
            .row(&format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL AS there", literal(&ddl::target(table))))?;
        if !there.flag("there")? {
            let message = format!("{} is not there", table.shown_target());
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
        let comparison = Comparison { table, columns, sources, options, progress };
        comparison.run(&mut session, &mut verdict)?;
    }
    progress.finish();
    session.execute("COMMIT")?;
    Ok(verdict)
}

impl Verdict {
    fn add(&mut self, options: VerifyOptions, difference: Difference) {
        if self.differences.len() < options.most_differences {
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
                Error::problem(format!("{} has no column {} any more", table.shown_source(), one_line(&column.source)))
            })?;
            Ok((place, Column::new(table, column, plan.zone)?))
        });
        let columns = columns.collect::<Result<_>>()?;
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
        Ok(Source { plan: table, reader, facts, columns, rejects })
    }

    /// Passes every row that should be in the target to `see`, with its rowid and its values. The values are `None` if
    /// the row cannot be converted and was not rejected. Returns the number of rejected rows, and the number of those
    /// that are not in the file.
    fn each(
        &self,
        progress: &dyn Progress,
        see: &mut dyn FnMut(Option<i64>, Option<Vec<Canon>>) -> Result<()>,
    ) -> Result<(u64, u64)> {
        let mut rows = self.reader.rows(self.facts, None)?;
        let mut encoder = RowEncoder::default();
        let mut left = self.rejects.clone();
        let (mut rejected, mut count) = (0u64, 0u64);
        while rows.step()? {
            count += 1;
            if count.is_multiple_of(4096) {
                interrupt::check()?;
                progress.advance(4096);
            }
            if !left.is_empty() {
                rows.encode(&mut encoder)?;
                let hash = xxh3_128(encoder.encoded());
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
            see(rows.rowid()?, values)?;
        }
        Ok((rejected, left.values().map(|times| u64::from(*times)).sum()))
    }
}

/// The number of parts that rows are summed into.
const PARTS: u64 = 1 << 14;

/// The number of rows of each side that are kept in memory at once.
const HELD: u64 = 20_000;

/// The sum of a part's rows.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    rows: u64,
    hash: u128,
}

struct Comparison<'a> {
    table: &'a TablePlan,
    columns: Vec<Column>,
    sources: Vec<Source<'a>>,
    options: VerifyOptions,
    progress: &'a dyn Progress,
}

/// A row that is kept in memory, and the number of its occurrences.
struct Held {
    rowid: Option<i64>,
    values: Vec<Canon>,
    times: u64,
}

impl Comparison<'_> {
    fn run(&self, session: &mut Session, verdict: &mut Verdict) -> Result<()> {
        let shown = self.table.shown_target();
        let known_by = self.known_by();
        if let (Some(rows), Some(key)) = (self.options.sample, &known_by) {
            return self.sample(session, key, rows, verdict);
        }
        let key = known_by.unwrap_or_else(|| (0..self.columns.len()).collect());
        let mut sums: Vec<(Sum, Sum)> = vec![(Sum::default(), Sum::default()); PARTS as usize];
        let mut wanted = 0u64;
        for source in &self.sources {
            self.read_source(source, verdict, &mut |_, values| {
                wanted += 1;
                let sum = &mut sums[part(&values, &key) as usize].0;
                sum.rows += 1;
                sum.hash = sum.hash.wrapping_add(hash(&values));
            })?;
        }
        let mut there = 0u64;
        self.each_of_target(session, &self.all(), &mut |values| {
            there += 1;
            let sum = &mut sums[part(&values, &key) as usize].1;
            sum.rows += 1;
            sum.hash = sum.hash.wrapping_add(hash(&values));
            Ok(())
        })?;
        let count = verdict.tables.len() - self.sources.len();
        verdict.tables[count..].iter_mut().for_each(|table| table.rows = there);
        if there != wanted {
            verdict.add(self.options, count_differs(&shown, wanted, there));
        }
        let mut differing: Vec<usize> = (0..sums.len()).filter(|part| sums[*part].0 != sums[*part].1).collect();
        // Both sides are read again for some parts at a time, until the limit of reported differences is reached.
        while !differing.is_empty() && verdict.more == 0 {
            let mut held = 0;
            let mut chosen = BTreeSet::new();
            differing.retain(|part| {
                let rows = sums[*part].0.rows.max(sums[*part].1.rows);
                let fits = chosen.is_empty() || held + rows <= HELD;
                if fits {
                    held += rows;
                    chosen.insert(*part as u64);
                }
                !fits
            });
            self.tell(session, &key, &chosen, verdict)?;
        }
        // Each part that was not read again differs in at least one row.
        verdict.more += differing.len() as u64;
        Ok(())
    }

    /// Returns the positions of the columns that identify a row: a key of the plan that refuses NULL.
    fn known_by(&self) -> Option<Vec<usize>> {
        let place = |name: &String| {
            let place = self.columns.iter().position(|column| column.name == *name)?;
            self.columns[place].refuses_null.then_some(place)
        };
        self.table.keys().find_map(|key| key.iter().map(place).collect())
    }

    fn each_of_target(
        &self,
        session: &mut Session,
        query: &str,
        see: &mut dyn FnMut(Vec<Canon>) -> Result<()>,
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
                values.push(column.of_target(text.as_deref())?);
            }
            if values.len() != self.columns.len() {
                return Err(Error::failed("the server's row has another number of columns"));
            }
            see(values)
        })
    }

    /// Reads the rows of some parts again on both sides, and reports how they differ.
    fn tell(&self, session: &mut Session, key: &[usize], parts: &BTreeSet<u64>, verdict: &mut Verdict) -> Result<()> {
        let mut wanted: Rows = BTreeMap::new();
        let of_key = |values: &[Canon]| -> Vec<Canon> { key.iter().map(|place| values[*place].clone()).collect() };
        for source in &self.sources {
            source.each(self.progress, &mut |rowid, values| {
                if let Some(values) = values.filter(|values| parts.contains(&part(values, key))) {
                    hold(&mut wanted, of_key(&values), rowid, values);
                }
                Ok(())
            })?;
        }
        let mut unexpected: Rows = BTreeMap::new();
        self.each_of_target(session, &self.all(), &mut |values| {
            if parts.contains(&part(&values, key)) {
                strike(&mut wanted, &mut unexpected, of_key(&values), values);
            }
            Ok(())
        })?;
        self.settle(session, key, wanted, unexpected, verdict)
    }

    /// Passes the rows of a file that should be in the target to `see`, and reports rows that cannot be converted and
    /// rejected rows that are not in the file.
    fn read_source(
        &self,
        source: &Source<'_>,
        verdict: &mut Verdict,
        see: &mut dyn FnMut(Option<i64>, Vec<Canon>),
    ) -> Result<()> {
        let shown = self.table.shown_target();
        let from = source.plan.shown_source();
        let (rejected, strangers) = source.each(self.progress, &mut |rowid, values| {
            if let Some(values) = values {
                see(rowid, values);
                return Ok(());
            }
            let place = rowid.map_or("a row".to_owned(), |rowid| format!("the row {rowid}"));
            let message = format!("{place} of {from} cannot be converted by the plan, and was not kept aside");
            let difference =
                Difference { table: shown.clone(), kind: "reject", rowid, message, ..Difference::default() };
            verdict.add(self.options, difference);
            Ok(())
        })?;
        if strangers > 0 {
            let message = format!("{strangers} rows that were kept aside are not in {from} (any more)");
            let table = shown.clone();
            verdict.add(self.options, Difference { table, kind: "reject", message, ..Difference::default() });
        }
        verdict.tables.push(TableVerdict { source: from, target: shown, rows: 0, rejected: rejected + strangers });
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
            self.read_source(source, verdict, &mut |rowid, values| {
                number += 1;
                if number.is_multiple_of(step) {
                    let name: Vec<Canon> = key.iter().map(|place| values[*place].clone()).collect();
                    hold(&mut wanted, name, rowid, values);
                }
            })?;
            expected += number;
        }
        let row = session.row(&format!("SELECT count(*) AS rows FROM {}", ddl::target(self.table)))?;
        let there: u64 = row.number("rows")?;
        let count = verdict.tables.len() - self.sources.len();
        verdict.tables[count..].iter_mut().for_each(|table| table.rows = there);
        if there != expected {
            verdict.add(self.options, count_differs(&shown, expected, there));
        }
        let mut found: Rows = BTreeMap::new();
        let names: Vec<Vec<Canon>> = wanted.keys().cloned().collect();
        for some in names.chunks(500) {
            let value = |(place, value): (&usize, &Canon)| {
                let column = &self.columns[*place];
                match value {
                    Some(_) => format!("{}::{}", literal(&column.shown(value)), column.target_type),
                    None => format!("NULL::{}", column.target_type),
                }
            };
            let lines =
                some.iter().map(|name| format!("({})", key.iter().zip(name).map(value).collect::<Vec<_>>().join(", ")));
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
            self.each_of_target(session, &query, &mut |values| {
                let name: Vec<Canon> = key.iter().map(|place| values[*place].clone()).collect();
                strike(&mut wanted, &mut found, name, values);
                Ok(())
            })?;
        }
        self.settle(session, key, wanted, found, verdict)
    }

    /// Returns the query for all rows of the target.
    fn all(&self) -> String {
        format!("SELECT {} FROM {}", ddl::columns(self.table), ddl::target(self.table))
    }

    /// Reports the rows that have no equal row on the other side.
    fn settle(
        &self,
        session: &mut Session,
        key: &[usize],
        wanted: Rows,
        mut unexpected: Rows,
        verdict: &mut Verdict,
    ) -> Result<()> {
        for (name, rows) in wanted {
            let mut others = unexpected.remove(&name).unwrap_or_default();
            for row in rows {
                for _ in 0..row.times {
                    match take_one(&mut others) {
                        Some(other) => self.tell_columns(session, &name, key, &row, &other, verdict)?,
                        None => verdict.add(self.options, self.missing(&name, key, &row)),
                    }
                }
            }
            unexpected.insert(name, others);
        }
        for (name, rows) in unexpected {
            for _ in 0..rows.iter().map(|row| row.times).sum() {
                verdict.add(self.options, self.unexpected(&name, key));
            }
        }
        Ok(())
    }

    fn tell_columns(
        &self,
        session: &mut Session,
        name: &[Canon],
        key: &[usize],
        row: &Held,
        other: &[Canon],
        verdict: &mut Verdict,
    ) -> Result<()> {
        for (place, column) in self.columns.iter().enumerate() {
            let (source, target) = (&row.values[place], &other[place]);
            if source == target || self.is_same_for_the_server(session, column, source, target)? {
                continue;
            }
            let (source, target) = (short(&column.shown(source)), short(&column.shown(target)));
            let shown_key = self.shown_key(name, key);
            let message = format!(
                "{}, the row ({shown_key}): {} is {target}, and should be {source}",
                self.table.shown_target(),
                one_line(&column.name)
            );
            let difference = Difference {
                table: self.table.shown_target(),
                kind: "differs",
                key: Some(shown_key),
                rowid: row.rowid,
                column: Some(column.name.clone()),
                source: Some(source),
                target: Some(target),
                message,
            };
            verdict.add(self.options, difference);
        }
        Ok(())
    }

    /// Returns true if the server reads the file's text as the target's value. Checked only for types that only the
    /// server knows.
    fn is_same_for_the_server(
        &self,
        session: &mut Session,
        column: &Column,
        source: &Canon,
        target: &Canon,
    ) -> Result<bool> {
        let (super::convert::Kind::Other, Some(source), Some(target)) = (column.kind, source, target) else {
            return Ok(false);
        };
        let (source, target) = (String::from_utf8_lossy(source), String::from_utf8_lossy(target));
        session.execute("SAVEPOINT lifeboat_value")?;
        let query = format!("SELECT {}::{}::text AS text", literal(&source), column.target_type);
        let same = session.row(&query).and_then(|row| Ok(row.get("text")? == Some(&*target)));
        session.execute("ROLLBACK TO SAVEPOINT lifeboat_value; RELEASE SAVEPOINT lifeboat_value")?;
        Ok(same.unwrap_or(false))
    }

    fn shown_key(&self, name: &[Canon], key: &[usize]) -> String {
        let parts = key.iter().zip(name).map(|(place, value)| short(&self.columns[*place].shown(value)));
        parts.collect::<Vec<_>>().join(", ")
    }

    fn missing(&self, name: &[Canon], key: &[usize], row: &Held) -> Difference {
        let shown_key = self.shown_key(name, key);
        let place = row.rowid.map_or(String::new(), |rowid| format!(", the file's row {rowid},"));
        let message = format!("{}: the row ({shown_key}){place} is not there", self.table.shown_target());
        Difference {
            table: self.table.shown_target(),
            kind: "missing",
            key: Some(shown_key),
            rowid: row.rowid,
            message,
            ..Difference::default()
        }
    }

    fn unexpected(&self, name: &[Canon], key: &[usize]) -> Difference {
        let shown_key = self.shown_key(name, key);
        let from = self.sources.iter().map(|source| source.plan.shown_source()).collect::<Vec<_>>().join(", ");
        let message = format!("{}: the row ({shown_key}) is not in {from}", self.table.shown_target());
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
type Rows = BTreeMap<Vec<Canon>, Vec<Held>>;

/// Adds a row.
fn hold(rows: &mut Rows, name: Vec<Canon>, rowid: Option<i64>, values: Vec<Canon>) {
    let held = rows.entry(name).or_default();
    match held.iter_mut().find(|row| row.values == values) {
        Some(row) => row.times += 1,
        None => held.push(Held { rowid, values, times: 1 }),
    }
}

/// Removes a row that both sides have, or keeps a row that only the target has.
fn strike(wanted: &mut Rows, unexpected: &mut Rows, name: Vec<Canon>, values: Vec<Canon>) {
    if let Some(held) = wanted.get_mut(&name)
        && let Some(place) = held.iter().position(|row| row.values == values)
    {
        held[place].times -= 1;
        if held[place].times == 0 {
            held.swap_remove(place);
        }
        return;
    }
    hold(unexpected, name, None, values);
}

/// Removes one occurrence of a row and returns its values.
fn take_one(rows: &mut Vec<Held>) -> Option<Vec<Canon>> {
    let last = rows.last_mut()?;
    last.times -= 1;
    let values = last.values.clone();
    if last.times == 0 {
        rows.pop();
    }
    Some(values)
}

fn count_differs(table: &str, wanted: u64, there: u64) -> Difference {
    Difference {
        table: table.to_owned(),
        kind: "count",
        source: Some(wanted.to_string()),
        target: Some(there.to_string()),
        message: format!("{table} holds {there} rows, and should hold {wanted}"),
        ..Difference::default()
    }
}

/// Returns a value for messages: shortened and on one line.
fn short(text: &str) -> String {
    const MOST: usize = 80;
    let text = one_line(text);
    if text.chars().count() <= MOST { text } else { format!("{}...", text.chars().take(MOST).collect::<String>()) }
}

/// Encodes values with their lengths, so that different rows have different encodings.
fn encode(values: &[&Canon]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        match value {
            None => out.push(0),
            Some(bytes) => {
                out.push(1);
                out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
    }
    out
}

fn hash(values: &[Canon]) -> u128 {
    xxh3_128(&encode(&values.iter().collect::<Vec<_>>()))
}

/// Returns the part to which a row belongs, by its key.
fn part(values: &[Canon], key: &[usize]) -> u64 {
    xxh3_64(&encode(&key.iter().map(|place| &values[*place]).collect::<Vec<_>>())) % PARTS
}

/// Passes every line of a query's COPY output to `see`, without the line end.
fn copy_lines(session: &mut Session, query: &str, see: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut seen = 0u64;
    let (rest, told) = session.copy_out(&format!("COPY ({query}) TO STDOUT"), Vec::new(), |buffer| {
        let mut start = 0;
        while let Some(end) = memchr::memchr(b'\n', &buffer[start..]) {
            seen += 1;
            see(&buffer[start..start + end])?;
            start += end + 1;
        }
        buffer.drain(..start);
        Ok(())
    })?;
    let mut rest = rest.as_slice();
    while let Some(end) = memchr::memchr(b'\n', rest) {
        seen += 1;
        see(&rest[..end])?;
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() || seen != told {
        return Err(Error::failed(format!("{seen} rows came of a COPY, and the server says that it sent {told}")));
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
            None => return Err(Error::failed("the server's row ends within a value")),
        });
    }
    String::from_utf8(out).map(Some).map_err(|_| Error::failed("the server's row is not UTF-8"))
}
