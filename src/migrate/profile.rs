//! Profiles a table: inspects every value, and tries it as each type that its column may become.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use chrono_tz::Tz;
use xxhash_rust::xxh3::xxh3_64;

use super::changes::{ChangeCounts, Changes};
use super::convert::{Converter, Kind, Limits};
use super::index_row::{self, IndexRow};
use super::output::Text;
use super::translate;
use crate::engine::rules::moment::Form;
use crate::engine::sqlite::schema::{ColumnFacts, IndexFacts, TableFacts};
use crate::engine::sqlite::values::{Cell, Reader, TableRows};
use crate::platform::error::{Result, one_line};
use crate::platform::interrupt;
use crate::platform::progress::Progress;

/// The profile of a table.
#[derive(Clone, Debug)]
pub(crate) struct TableProfile {
    /// The number of rows.
    pub rows: u64,
    /// The columns, in the table's order.
    pub columns: Vec<ColumnProfile>,
    /// The number of rows with a value that does not fit an existing column.
    pub unfit: u64,
    /// The rows that are too long for a btree index on columns of the table, by the numbers of these columns.
    pub long_rows: Vec<LongRows>,
}

/// The rows that are too long for a btree index.
#[derive(Clone, Debug)]
pub(crate) struct LongRows {
    /// The numbers of the index's columns.
    pub columns: Vec<usize>,
    /// The condition of a partial index, in SQLite's SQL.
    pub condition: Option<String>,
    /// The number of rows that are too long.
    pub rows: u64,
    /// The rowid of the longest row.
    pub rowid: Option<i64>,
    /// The size of the longest row in the index.
    pub bytes: usize,
    /// The longest value of the longest row: the number of its column, and its bytes.
    pub longest: (usize, usize),
}

/// The profile of a column's values.
#[derive(Clone, Debug)]
pub(crate) struct ColumnProfile {
    /// The number of NULLs.
    pub nulls: u64,
    /// The number of integers.
    pub integers: u64,
    /// The number of reals.
    pub reals: u64,
    /// The number of texts.
    pub texts: u64,
    /// The number of blobs.
    pub blobs: u64,
    /// The smallest and the greatest integer.
    pub range: Option<(i64, i64)>,
    /// The types that were tried.
    pub trials: Vec<Trial>,
    /// The number of different values; at most [`DISTINCT`] are counted.
    pub distinct: u64,
    /// The forms in which the values that are times are written.
    pub forms: Forms,
    /// The number of time values that are not earlier than the one before.
    pub in_order: u64,
    /// The earliest and the latest time, in UTC as COPY writes them.
    pub span: Option<(String, String)>,
    /// The earliest and the latest of the times that were counted from a number.
    pub counted: Option<(Counted, Counted)>,
    /// The smallest and the greatest number other than 0 that was counted as a time.
    pub counts: Option<(Cell<'static>, Cell<'static>)>,
    /// Words for true and false that occur, in lower case and otherwise unchanged.
    pub boolean_words: BTreeSet<String>,
    /// The number of texts that begin as a JSON object or array does.
    pub structured: u64,
    target: Option<ColumnTarget>,
    hashes: HashSet<u64>,
    last_time: Option<Vec<u8>>,
}

/// A time that was counted from a number, such as seconds since 1970.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    /// The time in UTC, as COPY writes it.
    pub time: String,
    /// The number; a text that is a number is converted to one.
    pub number: Cell<'static>,
}

/// The number of times in each form.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Forms {
    /// Texts without an offset.
    pub local: u64,
    /// Texts with an offset.
    pub offset: u64,
    /// Texts that are dates without a time.
    pub dates: u64,
    /// Dates of eight digits, as numbers or texts.
    pub date_digits: u64,
    /// Dates and times of fourteen digits.
    pub local_digits: u64,
    /// Julian days.
    pub julian_days: u64,
    /// Other numbers, by their unit: seconds, milliseconds, microseconds, nanoseconds.
    pub counted: [u64; 4],
}

/// A type that was tried.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    /// The type.
    pub kind: Kind,
    /// The number of values that fit the type.
    pub fits: u64,
    /// The number of values that do not fit it, except texts that mean NULL.
    pub failures: u64,
    /// Texts that do not fit and mean NULL, with the number of times that each occurs.
    pub nulls: BTreeMap<String, u64>,
    /// Some of the values that do not fit.
    pub examples: Vec<Example>,
    /// The number of values that fit and change.
    pub changes: ChangeCounts,
    /// Some of the values that change, each with its change.
    pub changed: Vec<(Changes, Example)>,
    converter: Converter,
    /// True if it is the type of an existing column, which is tried to the end.
    is_target: bool,
    /// The change of the present row's value in an existing column.
    pending: Option<(Changes, Example)>,
}

/// A value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Example {
    /// The row's rowid.
    pub rowid: Option<i64>,
    /// The value, shortened and on one line.
    pub value: String,
    /// The reason why it does not fit.
    pub reason: &'static str,
}

/// The greatest number of different values of a column that are counted.
pub(crate) const DISTINCT: u64 = 10_000;

/// The greatest number of values that do not fit and are shown.
const EXAMPLES: usize = 5;

/// Texts that programs write for an absent value, in lower case.
const NULL_TEXTS: [&str; 14] =
    ["", "none", "null", "nil", "nan", "nat", "n/a", "na", "<na>", "-", "--", "undefined", "(null)", "\\n"];

/// The greatest number of boolean words that are kept; with different spaces around it, a word counts again.
const MAX_BOOLEAN_WORDS: usize = 32;

/// A type with more failures than this is not tried any further, unless at least as many values fit it.
const MAX_FAILURES: u64 = 1000;

/// The type of an existing column that values are to fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ColumnTarget {
    /// Its class.
    pub kind: Kind,
    /// Its limits.
    pub limits: Limits,
    /// True if it refuses NULL.
    pub not_null: bool,
}

/// Inspects every value of a table. `targets` has one element for each column.
pub(crate) fn profile(
    reader: &Reader,
    table: &TableFacts,
    targets: &[Option<ColumnTarget>],
    zone: Tz,
    progress: &dyn Progress,
) -> Result<TableProfile> {
    let columns = table.columns.iter().zip(targets);
    let mut columns: Vec<ColumnProfile> =
        columns.map(|(column, target)| ColumnProfile::new(column, *target, zone)).collect();
    let mut rows = reader.rows(table, None)?;
    let (mut count, mut unfit, mut scratch) = (0u64, 0u64, Vec::new());
    let mut long_rows = indexed_columns(table);
    while rows.step()? {
        let rowid = rows.rowid()?;
        let mut fits = true;
        for (place, column) in columns.iter_mut().enumerate() {
            let before = column.unfit();
            column.add(rows.cell(place)?, rowid, &mut scratch);
            fits &= before == column.unfit();
        }
        // The values of a row that is rejected do not change.
        for column in &mut columns {
            column.settle(fits);
        }
        unfit += u64::from(!fits);
        for index in &mut long_rows {
            index.add(&rows, rowid)?;
        }
        count += 1;
        if count.is_multiple_of(4096) {
            interrupt::check()?;
            progress.advance(4096);
        }
    }
    for column in &mut columns {
        column.distinct = column.hashes.len() as u64;
        column.hashes = HashSet::new();
    }
    long_rows.retain(|index| index.rows > 0);
    for index in &mut long_rows {
        if let Some(condition) = index.condition.clone() {
            index.read_again(reader, table, &condition)?;
        }
    }
    long_rows.retain(|index| index.rows > 0);
    Ok(TableProfile { rows: count, unfit, columns, long_rows })
}

/// Returns the sets of columns on which the table has a key or an index without expressions, each with the condition of a
/// partial index.
fn indexed_columns(table: &TableFacts) -> Vec<LongRows> {
    let place = |name: &str| table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
    let primary: Option<Vec<usize>> = table.primary_key().iter().map(|column| place(&column.name)).collect();
    let indexes = table.indexes.iter();
    let set = |index: &IndexFacts| -> Option<(Vec<usize>, Option<String>)> {
        let columns = index.columns.iter().map(|(name, _)| place(name.as_deref()?)).collect::<Option<_>>()?;
        Some((columns, translate::condition_of(index)))
    };
    let mut sets: Vec<(Vec<usize>, Option<String>)> = indexes.filter_map(set).collect();
    sets.extend(primary.filter(|columns| !columns.is_empty()).map(|columns| (columns, None)));
    sets.sort();
    sets.dedup();
    let none = |(columns, condition)| LongRows { columns, condition, rows: 0, rowid: None, bytes: 0, longest: (0, 0) };
    sets.into_iter().map(none).collect()
}

impl LongRows {
    /// Counts the rows again, but only those that fulfil the condition. Without a function that the condition calls, all rows
    /// count.
    fn read_again(&mut self, reader: &Reader, table: &TableFacts, condition: &str) -> Result<()> {
        let Ok(mut rows) = reader.rows_where(table, condition) else { return Ok(()) };
        (self.rows, self.rowid, self.bytes, self.longest) = (0, None, 0, (0, 0));
        while rows.step()? {
            interrupt::check()?;
            self.add(&rows, rows.rowid()?)?;
        }
        Ok(())
    }

    fn add(&mut self, row: &TableRows<'_>, rowid: Option<i64>) -> Result<()> {
        let mut lengths = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            lengths.push(match row.cell(*column)? {
                Cell::Text(bytes) | Cell::Blob(bytes) => bytes.len(),
                _ => 0,
            });
        }
        if !index_row::may_be_too_long(lengths.iter().sum()) {
            return Ok(());
        }
        let mut size = IndexRow::default();
        for column in &self.columns {
            match row.cell(*column)? {
                Cell::Text(bytes) | Cell::Blob(bytes) => size.add_bytes(bytes),
                Cell::Null => size.add_null(),
                _ => size.add_fixed(),
            }
        }
        let bytes = size.finish();
        if bytes > index_row::MAX_BYTES {
            self.rows += 1;
            if bytes > self.bytes {
                let longest = lengths.iter().zip(&self.columns).max_by_key(|(length, _)| **length);
                self.longest = longest.map_or((0, 0), |(length, column)| (*column, *length));
                (self.bytes, self.rowid) = (bytes, rowid);
            }
        }
        Ok(())
    }
}

impl ColumnProfile {
    fn new(facts: &ColumnFacts, target: Option<ColumnTarget>, zone: Tz) -> Self {
        let mut kinds = candidates(facts);
        kinds.extend(target.map(|target| target.kind).filter(|kind| !kinds.contains(kind)));
        let limits =
            |kind| target.filter(|target| target.kind == kind).map_or(Limits::default(), |target| target.limits);
        let trial = |kind| Trial {
            kind,
            fits: 0,
            failures: 0,
            nulls: BTreeMap::new(),
            examples: Vec::new(),
            changes: ChangeCounts::default(),
            changed: Vec::new(),
            converter: Converter::of(kind, zone).within(limits(kind)),
            is_target: target.is_some_and(|target| target.kind == kind),
            pending: None,
        };
        ColumnProfile {
            nulls: 0,
            integers: 0,
            reals: 0,
            texts: 0,
            blobs: 0,
            range: None,
            trials: kinds.into_iter().map(trial).collect(),
            distinct: 0,
            forms: Forms::default(),
            in_order: 0,
            span: None,
            counted: None,
            counts: None,
            boolean_words: BTreeSet::new(),
            structured: 0,
            target,
            hashes: HashSet::new(),
            last_time: None,
        }
    }

    /// Returns the number of values that are not NULL.
    #[must_use]
    pub(crate) fn values(&self) -> u64 {
        self.integers + self.reals + self.texts + self.blobs
    }

    /// Returns the result of trying a type.
    #[must_use]
    pub(crate) fn trial(&self, kind: Kind) -> Option<&Trial> {
        self.trials.iter().find(|trial| trial.kind == kind)
    }

    /// Returns the number of values that do not fit the existing column; 0 if the column is new.
    fn unfit(&self) -> u64 {
        let Some(target) = self.target else { return 0 };
        let trial = self.trial(target.kind);
        let null_texts = trial.map_or(0, |trial| trial.nulls.values().sum::<u64>());
        let nulls = if target.not_null { self.nulls + null_texts } else { 0 };
        trial.map_or(0, |trial| trial.failures) + nulls
    }

    fn add(&mut self, cell: Cell<'_>, rowid: Option<i64>, scratch: &mut Vec<u8>) {
        match cell {
            Cell::Null => {
                self.nulls += 1;
                return;
            }
            Cell::Integer(number) => {
                self.integers += 1;
                let (least, greatest) = self.range.unwrap_or((number, number));
                self.range = Some((least.min(number), greatest.max(number)));
                self.count_distinct(number.to_le_bytes().as_slice());
            }
            Cell::Real(number) => {
                self.reals += 1;
                self.count_distinct(number.to_le_bytes().as_slice());
            }
            Cell::Text(text) => {
                self.texts += 1;
                self.structured +=
                    u64::from(text.trim_ascii_start().starts_with(b"{") || text.trim_ascii_start().starts_with(b"["));
                self.count_distinct(text);
            }
            Cell::Blob(bytes) => {
                self.blobs += 1;
                self.count_distinct(bytes);
            }
        }
        for trial in &mut self.trials {
            if trial.is_ruled_out() {
                continue;
            }
            scratch.clear();
            let written = match trial.kind {
                Kind::Instant => {
                    trial.converter.write_instant(cell, &mut Text(scratch)).map(|(form, changes)| (Some(form), changes))
                }
                _ => trial.converter.write(cell, scratch).map(|changes| (None, changes)),
            };
            match written {
                Ok((form, changes)) => {
                    trial.fits += 1;
                    if !changes.is_none() {
                        trial.change(cell, rowid, changes);
                    }
                    if let Some(form) = form {
                        self.forms.add(form);
                        if is_counted(form) {
                            widen_counted(&mut self.counted, scratch, cell);
                            widen_counts(&mut self.counts, cell);
                        }
                        if self.last_time.as_ref().is_none_or(|last| last <= scratch) {
                            self.in_order += 1;
                        }
                        match &mut self.last_time {
                            Some(last) => last.clone_from(scratch),
                            none => *none = Some(scratch.clone()),
                        }
                        widen(&mut self.span, scratch);
                    }
                    // There are only a few words, but they may differ in the spaces around them.
                    if trial.kind == Kind::Boolean
                        && let Cell::Text(text) = cell
                        && let Ok(text) = std::str::from_utf8(text)
                        && self.boolean_words.len() < MAX_BOOLEAN_WORDS
                        && !self.boolean_words.contains(text)
                    {
                        self.boolean_words.insert(text.to_ascii_lowercase());
                    }
                }
                Err(reason) => trial.fail(cell, rowid, reason.0),
            }
        }
    }

    /// Counts the change of the present row's value if the row fits.
    fn settle(&mut self, fits: bool) {
        for trial in &mut self.trials {
            if let Some((changes, example)) = trial.pending.take().filter(|_| fits) {
                trial.count(changes, example);
            }
        }
    }

    fn count_distinct(&mut self, bytes: &[u8]) {
        if (self.hashes.len() as u64) < DISTINCT {
            self.hashes.insert(xxh3_64(bytes));
        }
    }
}

fn widen(span: &mut Option<(String, String)>, time: &[u8]) {
    let text = || String::from_utf8_lossy(time).into_owned();
    match span {
        None => *span = Some((text(), text())),
        Some((earliest, _)) if time < earliest.as_bytes() => *earliest = text(),
        Some((_, latest)) if time > latest.as_bytes() => *latest = text(),
        Some(_) => {}
    }
}

/// Returns true if a number counts a unit of time. Digits that spell a date are not counted.
fn is_counted(form: Form) -> bool {
    matches!(form, Form::JulianDay | Form::Seconds | Form::Millis | Form::Micros | Form::Nanos)
}

/// Returns a number, or the number that a text consists of.
fn number_of(cell: Cell<'_>) -> Option<Cell<'static>> {
    Some(match cell {
        Cell::Integer(number) => Cell::Integer(number),
        Cell::Real(number) => Cell::Real(number),
        Cell::Text(text) => {
            let text = std::str::from_utf8(text).ok()?.trim();
            text.parse().map(Cell::Integer).or_else(|_| text.parse().map(Cell::Real)).ok()?
        }
        _ => return None,
    })
}

fn widen_counts(ends: &mut Option<(Cell<'static>, Cell<'static>)>, cell: Cell<'_>) {
    let size = |cell: &Cell<'_>| match cell {
        Cell::Integer(number) => *number as f64,
        Cell::Real(number) => *number,
        _ => 0.0,
    };
    let Some(number) = number_of(cell).filter(|number| size(number) != 0.0) else { return };
    let (least, greatest) = ends.unwrap_or((number, number));
    let least = if size(&number) < size(&least) { number } else { least };
    *ends = Some((least, if size(&number) > size(&greatest) { number } else { greatest }));
}

fn widen_counted(ends: &mut Option<(Counted, Counted)>, time: &[u8], cell: Cell<'_>) {
    let counted = || Some(Counted { time: String::from_utf8_lossy(time).into_owned(), number: number_of(cell)? });
    let wide = match ends {
        None => counted().map(|one| (one.clone(), one)),
        Some((earliest, latest)) if time < earliest.time.as_bytes() => counted().map(|one| (one, latest.clone())),
        Some((earliest, latest)) if time > latest.time.as_bytes() => counted().map(|one| (earliest.clone(), one)),
        Some(_) => None,
    };
    if wide.is_some() {
        *ends = wide;
    }
}

impl Trial {
    /// Returns true if at most one value fails for every ten that fit. Texts that mean NULL are not included.
    #[must_use]
    pub(crate) fn is_likely(&self) -> bool {
        self.fits > 0 && self.failures.saturating_mul(10) <= self.fits
    }

    fn is_ruled_out(&self) -> bool {
        !self.is_target && self.failures > MAX_FAILURES && self.failures > self.fits
    }

    fn change(&mut self, cell: Cell<'_>, rowid: Option<i64>, changes: Changes) {
        let example = Example { rowid, value: shown(cell), reason: "" };
        if self.is_target {
            self.pending = Some((changes, example));
        } else {
            self.count(changes, example);
        }
    }

    fn count(&mut self, changes: Changes, example: Example) {
        self.changes.add(changes);
        if self.changed.iter().filter(|(other, _)| *other == changes).count() < EXAMPLES {
            self.changed.push((changes, example));
        }
    }

    fn fail(&mut self, cell: Cell<'_>, rowid: Option<i64>, reason: &'static str) {
        // A column of texts holds such a text as it is, or it is too long for it.
        if !matches!(self.kind, Kind::Text | Kind::Character | Kind::Other)
            && let Cell::Text(text) = cell
            && let Ok(text) = std::str::from_utf8(text)
            && text.len() <= 16
            && NULL_TEXTS.contains(&text.trim().to_ascii_lowercase().as_str())
        {
            *self.nulls.entry(text.to_owned()).or_default() += 1;
            return;
        }
        self.failures += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(Example { rowid, value: shown(cell), reason });
        }
    }
}

impl Forms {
    fn add(&mut self, form: Form) {
        let count = match form {
            Form::Date => &mut self.dates,
            Form::Local => &mut self.local,
            Form::Offset => &mut self.offset,
            Form::DateDigits => &mut self.date_digits,
            Form::LocalDigits => &mut self.local_digits,
            Form::JulianDay => &mut self.julian_days,
            Form::Seconds => &mut self.counted[0],
            Form::Millis => &mut self.counted[1],
            Form::Micros => &mut self.counted[2],
            Form::Nanos => &mut self.counted[3],
        };
        *count += 1;
    }

    /// Returns the number of times that are numbers, or texts that consist of one number.
    #[must_use]
    pub(crate) fn numbers(&self) -> u64 {
        self.counted.iter().sum::<u64>() + self.julian_days + self.date_digits + self.local_digits
    }
}

/// Returns the types that a column may become.
fn candidates(facts: &ColumnFacts) -> Vec<Kind> {
    let mut kinds = vec![Kind::Instant, Kind::Date, Kind::Jsonb, Kind::Json, Kind::Boolean];
    kinds.extend([Kind::Whole(64), Kind::Double, Kind::Numeric(None)]);
    if let Some(Kind::Numeric(Some(bounds))) = declared(facts) {
        kinds.push(Kind::Numeric(Some(bounds)));
    }
    kinds.extend([Kind::Text, Kind::Bytes]);
    kinds
}

/// Returns the type that a column was declared with, if it is known. SQLite does not enforce it.
#[must_use]
pub(crate) fn declared(facts: &ColumnFacts) -> Option<Kind> {
    let declared = facts.declared.trim().to_ascii_lowercase();
    let word = declared.split('(').next().unwrap_or_default().trim();
    Some(match word {
        "" => return None,
        "bool" | "boolean" => Kind::Boolean,
        "datetime" | "timestamp" | "timestamptz" | "timestamp with time zone" | "timestamp without time zone" => {
            Kind::Instant
        }
        "date" => Kind::Date,
        "json" | "jsonb" => Kind::Jsonb,
        "numeric" | "decimal" | "number" | "money" => match Kind::parse(&declared.replacen(word, "numeric", 1)) {
            Ok(kind @ Kind::Numeric(_)) => kind,
            _ => Kind::Numeric(None),
        },
        "blob" | "bytea" | "binary" | "varbinary" => Kind::Bytes,
        "uuid" | "guid" => Kind::Uuid,
        _ if word.contains("int") => Kind::Whole(64),
        _ if ["char", "clob", "text", "string"].iter().any(|part| word.contains(part)) => Kind::Text,
        _ if ["real", "floa", "doub"].iter().any(|part| word.contains(part)) => Kind::Double,
        _ => return None,
    })
}

/// Returns a value for messages: shortened and on one line.
#[must_use]
pub(crate) fn shown(cell: Cell<'_>) -> String {
    const MAX_CHARS: usize = 40;
    let cut = |text: &str| {
        let short: String = text.chars().take(MAX_CHARS).collect();
        one_line(&if short.len() < text.len() { format!("{short}...") } else { short })
    };
    match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Integer(number) => number.to_string(),
        Cell::Real(number) => format!("{number:?}"),
        Cell::Text(text) => format!("'{}'", cut(&String::from_utf8_lossy(&text[..text.len().min(4 * MAX_CHARS)]))),
        Cell::Blob(bytes) => {
            let dots = if bytes.len() > 16 { "..." } else { "" };
            format!("x'{}{dots}'", hex::encode(&bytes[..bytes.len().min(16)]))
        }
    }
}
