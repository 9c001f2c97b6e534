//! Loads one chunk of a table in one transaction: reads and converts its rows, copies them, and notes the chunk as
//! done.
//!
//! Rows are copied directly into the target with COPY. If the server refuses a row, or if keys are enforced during the
//! load, the chunk is copied into a staging table of text columns instead. Its rows are then inserted in one statement;
//! if that fails, the range is halved again and again until the rows that cannot be inserted are isolated.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::changes::{self, Changes, TableChanges};
use super::convert::{self, Converter};
use super::ddl;
use super::foreign_key::ForeignKey;
use super::notation::{self, ServerType, is_refusal};
use super::output::{BINARY_END, BINARY_HEADER, Binary, escape};
use super::plan::{ColumnPlan, Plan, Rejects, TablePlan};
use super::profile::shown;
use super::state::{self, Chunk, ChunkDone, MISSING_PARENT, RowCounts, SCHEMA, TAKEN_KEY};
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::sqlite::schema::TableFacts;
use crate::engine::sqlite::values::{Cell, Reader, TableRows};
use crate::platform::digest::{RowDigest, RowHasher};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::interrupt;
use crate::platform::progress::Progress;

/// A table that is loaded: its plan, its source and the load method.
pub(crate) struct Sink {
    /// The table in the plan.
    pub plan: TablePlan,
    /// The table in its SQLite file.
    pub facts: TableFacts,
    /// The path of the SQLite file.
    pub path: PathBuf,
    /// True if the target's keys are enforced from the beginning, so that rows go through the staging table.
    pub is_staged: bool,
    /// For each column of the plan: its position in the file's table, its converter, and its name for messages.
    columns: Vec<(usize, Converter, String)>,
    copy: String,
    /// True if rows are copied in COPY's binary format.
    is_binary: bool,
    /// The types of the columns.
    types: OnceLock<Vec<ServerType>>,
}

impl Sink {
    /// Prepares a table.
    pub(crate) fn new(
        plan: &Plan,
        table: &TablePlan,
        facts: &TableFacts,
        path: PathBuf,
        is_staged: bool,
    ) -> Result<Self> {
        let columns = table.columns.iter().map(|column| {
            let place = facts.columns.iter().position(|other| other.name == column.source).ok_or_else(|| {
                Error::usage(format!("{} has no column {}", table.shown_source(), one_line(&column.source)))
            })?;
            let converter = Converter::new(column, plan.zone, ddl::refuses_null(table, column))?;
            Ok((place, converter, one_line(&column.source)))
        });
        let columns: Vec<(usize, Converter, String)> = columns.collect::<Result<_>>()?;
        let is_binary = columns.iter().all(|(_, converter, _)| converter.has_binary_form());
        let options = if is_binary { " (FORMAT binary)" } else { "" };
        Ok(Sink {
            copy: format!("COPY {} ({}) FROM STDIN{options}", ddl::target(table), ddl::columns(table)),
            columns,
            is_binary,
            types: OnceLock::new(),
            plan: table.clone(),
            facts: facts.clone(),
            path,
            is_staged,
        })
    }
}

impl Sink {
    /// Returns a staged column, cast to its type without length or precision; the server then assigns it to the
    /// target's type. A cast to a type with a length or precision would silently cut a text or round a number.
    pub(super) fn typed(&self, session: &mut Session, name: &str) -> Result<String> {
        let types = self.types(session)?;
        let place = self.plan.columns.iter().position(|column| column.target_name() == name);
        let found = place.and_then(|place| types.get(place));
        let found = found.ok_or_else(|| Error::failed(format!("there is no column {}", one_line(name))))?;
        Ok(format!("{}::{}", ident(name), found.unbounded))
    }

    fn types(&self, session: &mut Session) -> Result<&[ServerType]> {
        if let Some(types) = self.types.get() {
            return Ok(types);
        }
        let read = self.plan.columns.iter().map(|column| ServerType::read(session, &column.target_type));
        let read = read.collect::<Result<Vec<_>>>()?;
        Ok(self.types.get_or_init(|| read))
    }

    /// Returns the columns whose type the server may not hold exactly, each with the condition that it does.
    fn checked(&self, session: &mut Session) -> Result<Vec<(&ColumnPlan, String)>> {
        let kinds = self.columns.iter().map(|(_, converter, _)| converter.kind());
        if kinds.clone().all(|kind| kind != convert::Kind::Other) {
            return Ok(Vec::new());
        }
        let columns = self.plan.columns.iter().zip(self.types(session)?).zip(kinds);
        let checked = columns.filter(|((_, found), kind)| *kind == convert::Kind::Other && found.may_change());
        Ok(checked.map(|((column, found), _)| (column, found.is_held(&ident(column.target_name())))).collect())
    }
}

/// The data that all workers share.
pub(crate) struct Shared<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The plan's tables, in its order.
    pub sinks: &'a [Sink],
    /// The foreign keys of existing tables that the server enforces during the load.
    pub(super) enforced: &'a [ForeignKey],
    /// Set when a worker has failed: the others stop.
    pub stop: &'a AtomicBool,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
}

/// A row that was rejected.
struct Reject {
    rowid: Option<i64>,
    hash: u128,
    reason: String,
    row: String,
}

/// The number of bytes of rejected rows that are kept before they are sent.
const REJECTS_BYTES: usize = 4 << 20;

/// The longest line that COPY reads: the server holds it in one buffer (`MaxAllocSize`).
const MAX_LINE_BYTES: usize = 0x3fff_fffe;

/// The number of bytes of a rejected row that are kept.
const MAX_REJECT_BYTES: usize = 16 << 20;

/// The number of bytes of converted rows that are sent at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Loads chunks, one after the other, on one session.
pub(crate) struct Loader<'a> {
    shared: &'a Shared<'a>,
    readers: HashMap<PathBuf, Reader>,
}

impl<'a> Loader<'a> {
    /// Creates a loader that has no file open.
    #[must_use]
    pub(crate) fn new(shared: &'a Shared<'a>) -> Self {
        Loader { shared, readers: HashMap::new() }
    }

    /// Returns the plan.
    #[must_use]
    pub(super) fn plan(&self) -> &'a Plan {
        self.shared.plan
    }

    /// Returns the table of a chunk.
    #[must_use]
    pub(super) fn sink(&self, chunk: &Chunk) -> Option<&'a Sink> {
        self.shared.sinks.get(chunk.table)
    }

    /// Opens the file of a chunk, if it is not open yet, and returns the table.
    fn open(&mut self, chunk: &Chunk) -> Result<&'a Sink> {
        let sink = self
            .sink(chunk)
            .ok_or_else(|| Error::failed("the notes of the migration name a table that is not in the plan"))?;
        if !self.readers.contains_key(&sink.path) {
            self.readers.insert(sink.path.clone(), Reader::open(&sink.path)?);
        }
        Ok(sink)
    }

    fn reader(&self, sink: &Sink) -> Result<&Reader> {
        self.readers.get(&sink.path).ok_or_else(|| Error::failed("a file is not open"))
    }

    /// Fills a new staging table with the rows of a chunk that are not rejected. Must be called in a transaction.
    pub(super) fn stage(&mut self, session: &mut Session, chunk: &Chunk) -> Result<Staged<'a>> {
        let sink = self.open(chunk)?;
        let rows = self.reader(sink)?.rows(&sink.facts, chunk.range)?;
        stage_rows(session, sink, Converted::begin(self.shared, sink, rows, LoadMethod::Staged))?;
        state::remove_rejected(session, &self.shared.plan.id, &sink.plan, chunk)?;
        Ok(Staged { shared: self.shared, sink })
    }

    /// Loads the rows of a chunk again that were rejected with this SQLSTATE, or as many of them as are kept in memory.
    /// Returns the number of rows that arrived. Must be called in a transaction.
    pub(super) fn load_rejected(&mut self, session: &mut Session, chunk: &Chunk, state: &str) -> Result<u64> {
        let sink = self.open(chunk)?;
        let plan = &self.shared.plan.id;
        let rejected = state::take_rejects(session, plan, &sink.plan, chunk, state)?;
        let count: u64 = rejected.values().map(|times| u64::from(*times)).sum();
        if count == 0 {
            return Ok(0);
        }
        state::note_transaction(session, plan)?;
        let rows = self.reader(sink)?.rows(&sink.facts, chunk.range)?;
        let staged =
            stage_rows(session, sink, Converted::begin(self.shared, sink, rows, LoadMethod::Staged).only(rejected))?;
        if staged != count {
            return Err(Error::problem(format!("rejected rows of {} were changed", sink.plan.shown_source())));
        }
        let refused = self.insert_staged(session, sink, staged)?;
        session.execute("DROP TABLE pg_temp.lifeboat_stage")?;
        let arrived = count - refused;
        state::move_to_rejected(session, plan, chunk, -i64::try_from(arrived).unwrap_or(i64::MAX))?;
        Ok(arrived)
    }

    /// Loads a chunk in one transaction: all of it or nothing.
    pub(crate) fn load(&mut self, session: &mut Session, chunk: &Chunk) -> Result<ChunkDone> {
        let sink = self.open(chunk)?;
        let reader = self.reader(sink)?;
        let add_context = |error: Error| {
            error.context(format!("cannot load {} into {}", sink.plan.shown_source(), sink.plan.shown_target()))
        };
        let is_staged = sink.is_staged || !sink.checked(session)?.is_empty();
        let methods: &[LoadMethod] =
            if is_staged { &[LoadMethod::Staged] } else { &[LoadMethod::Direct, LoadMethod::Staged] };
        for (number, method) in methods.iter().enumerate() {
            // A foreign key that is checked only at the end would refuse the whole chunk.
            session.execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE")?;
            match self.load_and_note(session, sink, reader, chunk, *method) {
                Ok(done) => {
                    session.execute("COMMIT").map_err(add_context)?;
                    return Ok(done);
                }
                Err(error) => {
                    if error.kind == Kind::Interrupted || (number + 1 == methods.len() || !is_refusal(&error)) {
                        session.defer_interrupts();
                        let _ = session.execute("ROLLBACK");
                        return Err(add_context(error));
                    }
                    session.execute("ROLLBACK")?;
                    tracing::debug!("loading the chunk again, row by row: {}", error.full_message());
                }
            }
        }
        Err(add_context(Error::failed("no load method is left")))
    }

    /// Loads a chunk that is not loaded yet and notes it as done, in the transaction that is open.
    fn load_and_note(
        &self,
        session: &mut Session,
        sink: &Sink,
        reader: &Reader,
        chunk: &Chunk,
        method: LoadMethod,
    ) -> Result<ChunkDone> {
        let plan = &self.shared.plan.id;
        state::claim(session, plan, chunk)?;
        state::note_transaction(session, plan)?;
        let (done, changes) = self.try_load(session, sink, reader, chunk, method)?;
        state::note_loaded(session, plan, chunk, &done)?;
        if !changes.is_empty() {
            let note =
                serde_json::to_string(&changes).map_err(|error| Error::failed("cannot note changes").because(error))?;
            let step = state::Step { note: Some(note), planned: None };
            state::note_step(session, plan, &changes::step(chunk.table, chunk.number), &step)?;
        }
        Ok(done)
    }

    fn try_load(
        &self,
        session: &mut Session,
        sink: &Sink,
        reader: &Reader,
        chunk: &Chunk,
        method: LoadMethod,
    ) -> Result<(ChunkDone, TableChanges)> {
        let mut rows = Converted::begin(self.shared, sink, reader.rows(&sink.facts, chunk.range)?, method);
        if method == LoadMethod::Staged {
            session.execute(&create_stage(&sink.plan))?;
        }
        let copy = match method {
            LoadMethod::Direct => sink.copy.clone(),
            LoadMethod::Staged => "COPY pg_temp.lifeboat_stage FROM STDIN".to_owned(),
        };
        let mut rejected = 0;
        while !rows.ended {
            let before = rows.sent;
            let taken = session.copy_in(&copy, || rows.next_part())?;
            if taken != rows.sent - before {
                return Err(left_out(&sink.plan, rows.sent - before, taken));
            }
            rejected += self.write_rejects(session, sink, &mut rows)?;
        }
        if method == LoadMethod::Direct {
            return Ok((ChunkDone { rows: rows.sent, rejected, digest: rows.digest }, rows.changes));
        }
        let staged = rows.sent;
        let refused = self.insert_staged(session, sink, staged)?;
        session.execute("DROP TABLE pg_temp.lifeboat_stage")?;
        let done = ChunkDone { rows: staged - refused, rejected: rejected + refused, digest: rows.digest };
        Ok((done, rows.changes))
    }

    /// Writes the rows that could not be converted to the table of rejected rows, and returns their number.
    fn write_rejects(&self, session: &mut Session, sink: &Sink, rows: &mut Converted<'_>) -> Result<u64> {
        if rows.rejects.is_empty() {
            return Ok(0);
        }
        let mut text = Vec::new();
        let count = rows.rejects.len() as u64;
        for reject in rows.rejects.drain(..) {
            let rowid = reject.rowid.map_or("\\N".to_owned(), |rowid| rowid.to_string());
            add_fields(&[&self.shared.plan.id, &sink.plan.file, &sink.plan.source], &mut text);
            text.extend_from_slice(format!("{rowid}\t{:032x}\t", reject.hash).as_bytes());
            add_fields(&[&sink.plan.schema, &sink.plan.name, &reject.reason, &reject.row], &mut text);
            text.pop();
            text.push(b'\n');
        }
        rows.rejects_bytes = 0;
        let copy = format!("COPY {SCHEMA}.rejects ({REJECT_COLUMNS}) FROM STDIN");
        let mut rest = Some(Bytes::from(text));
        session.copy_in(&copy, || Ok(rest.take()))?;
        Ok(count)
    }

    /// Inserts the staged rows, except rows whose keys exist already and rows that the server refuses. Returns the
    /// number of rows that were not inserted.
    fn insert_staged(&self, session: &mut Session, sink: &Sink, staged: u64) -> Result<u64> {
        let mut refused = 0;
        // These come first: a row that is not loaded must not take the key of another one.
        for key in self.shared.enforced.iter().filter(|key| key.is_of(&sink.plan) && key.is_loaded(&sink.plan)) {
            refused += self.reject_orphans(session, sink, key)?;
        }
        if sink.is_staged {
            for key in sink.plan.keys() {
                refused += self.reject_duplicates(session, sink, key)?;
            }
        }
        let rows = i64::try_from(staged).unwrap_or(i64::MAX);
        if rows > 0 {
            refused += self.insert_range(session, sink, 1, rows)?;
        }
        Ok(refused)
    }

    /// Rejects staged rows that refer to rows which are neither in the target nor staged. Returns their number. The server
    /// would refuse a whole statement for one of them.
    fn reject_orphans(&self, session: &mut Session, sink: &Sink, key: &ForeignKey) -> Result<u64> {
        let violated = key.is_violated(|name| Ok(format!("s.{}", sink.typed(session, name)?)))?;
        let mut numbers = format!("SELECT lifeboat_n FROM pg_temp.lifeboat_stage s WHERE {violated}");
        if key.table == key.parent {
            let staged = key.is_staged_too(|name| sink.typed(session, name))?;
            numbers.push_str(&format!(" AND NOT {staged}"));
        }
        // A value that its type cannot hold is found when it is inserted.
        session.execute("SAVEPOINT lifeboat_orphans")?;
        match self.reject_staged(session, sink, &numbers, &key.reason(), Some(MISSING_PARENT)) {
            Ok(count) => {
                session.execute("RELEASE SAVEPOINT lifeboat_orphans")?;
                Ok(count)
            }
            Err(error) if is_refusal(&error) => {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_orphans")?;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Rejects staged rows with the key of an earlier staged row or of a row in the target. Returns their number.
    fn reject_duplicates(&self, session: &mut Session, sink: &Sink, key: &[String]) -> Result<u64> {
        let table = &sink.plan;
        let typed = key.iter().map(|name| sink.typed(session, name)).collect::<Result<Vec<_>>>()?;
        let not_null: Vec<String> = key.iter().map(|name| format!("{} IS NOT NULL", ident(name))).collect();
        let same: Vec<String> =
            key.iter().zip(&typed).map(|(name, typed)| format!("t.{} = s.{typed}", ident(name))).collect();
        let (typed, not_null, same) = (typed.join(", "), not_null.join(" AND "), same.join(" AND "));
        let wanted = format!(
            "SELECT lifeboat_n FROM (SELECT lifeboat_n, row_number() OVER (PARTITION BY {typed} ORDER BY lifeboat_n) AS place
                              FROM pg_temp.lifeboat_stage WHERE {not_null}) x WHERE place > 1
             UNION
             SELECT s.lifeboat_n FROM pg_temp.lifeboat_stage s JOIN {} t ON {same}",
            ddl::target(table)
        );
        let reason = format!("{} ({})", state::SAME_KEY, one_line(&key.join(", ")));
        // A value that its type cannot hold is found when it is inserted.
        session.execute("SAVEPOINT lifeboat_keys")?;
        match self.reject_staged(session, sink, &wanted, &reason, Some(TAKEN_KEY)) {
            Ok(count) => {
                session.execute("RELEASE SAVEPOINT lifeboat_keys")?;
                Ok(count)
            }
            Err(error) if is_refusal(&error) => {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_keys")?;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Rejects staged rows with a value that the server would cut or round. Returns their number. Fails if the server
    /// refuses a value.
    fn reject_changed(&self, session: &mut Session, sink: &Sink, first: i64, last: i64) -> Result<u64> {
        let mut changed = 0;
        for (column, is_held) in sink.checked(session)? {
            let name = ident(column.target_name());
            let numbers = format!(
                "SELECT lifeboat_n FROM pg_temp.lifeboat_stage
                  WHERE lifeboat_n BETWEEN {first} AND {last} AND {name} IS NOT NULL AND NOT ({is_held})"
            );
            let reason = format!("{}: {}", one_line(&column.source), notation::not_held(&column.target_type));
            changed += self.reject_staged(session, sink, &numbers, &reason, None)?;
        }
        Ok(changed)
    }

    /// Moves the staged rows with these numbers to the table of rejected rows, and returns the number of moved rows. A row
    /// that refers to a missing one does not end the run yet, because that one may still arrive.
    fn reject_staged(
        &self,
        session: &mut Session,
        sink: &Sink,
        numbers: &str,
        reason: &str,
        state: Option<&str>,
    ) -> Result<u64> {
        let stops = self.shared.plan.rejects == Rejects::Stop && state != Some(MISSING_PARENT);
        reject_staged(session, self.shared.plan, sink, numbers, reason, state).and_then(|(count, first)| match count {
            1.. if stops => Err(stop_error(&sink.plan, first, reason)),
            _ => Ok(count),
        })
    }

    fn insert_range(&self, session: &mut Session, sink: &Sink, first: i64, last: i64) -> Result<u64> {
        let plan = &sink.plan;
        let names = plan.columns.iter().map(|column| column.target_name());
        let typed = names.map(|name| sink.typed(session, name)).collect::<Result<Vec<_>>>()?;
        session.execute("SAVEPOINT lifeboat_rows")?;
        state::note_transaction(session, &self.shared.plan.id)?;
        let range = format!("FROM pg_temp.lifeboat_stage WHERE lifeboat_n BETWEEN {first} AND {last}");
        let insert = format!(
            "WITH inserted AS (INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} {range} ORDER BY lifeboat_n RETURNING 1)
             SELECT (SELECT count(*) FROM inserted) AS inserted, (SELECT count(*) {range}) AS staged",
            ddl::target(plan),
            ddl::columns(plan),
            typed.join(", ")
        );
        let changed = self.reject_changed(session, sink, first, last);
        match changed.and_then(|changed| Ok((changed, session.row(&insert)?))) {
            Ok((changed, row)) => {
                session.execute("RELEASE SAVEPOINT lifeboat_rows")?;
                let (inserted, staged): (u64, u64) = (row.number("inserted")?, row.number("staged")?);
                if inserted == staged { Ok(changed) } else { Err(left_out(plan, staged, inserted)) }
            }
            Err(error) if is_refusal(&error) => {
                session.execute("ROLLBACK TO SAVEPOINT lifeboat_rows; RELEASE SAVEPOINT lifeboat_rows")?;
                if first == last {
                    let reason = format!("the server refuses it: {}", one_line(&error.message));
                    let state = sqlstate(&error);
                    return self.reject_staged(session, sink, &first.to_string(), &reason, state.as_deref());
                }
                let middle = first + (last - first) / 2;
                let lower = self.insert_range(session, sink, first, middle)?;
                Ok(lower + self.insert_range(session, sink, middle + 1, last)?)
            }
            Err(error) => Err(error),
        }
    }
}

/// Appends texts as COPY reads them, each with a tab after it.
fn add_fields(fields: &[&str], out: &mut Vec<u8>) {
    for field in fields {
        escape(field.as_bytes(), out);
        out.push(b'\t');
    }
}

const REJECT_COLUMNS: &str = "plan, file, source, rowid, row_hash, target_schema, target_name, reason, \"row\"";

/// The staging table of a chunk.
pub(super) struct Staged<'a> {
    shared: &'a Shared<'a>,
    sink: &'a Sink,
}

impl Staged<'_> {
    /// Moves rows to the table of rejected rows. Returns the number of these rows.
    pub(super) fn reject(&self, session: &mut Session, numbers: &str, reason: &str) -> Result<u64> {
        let (count, first) = reject_staged(session, self.shared.plan, self.sink, numbers, reason, None)?;
        if count > 0 && self.shared.plan.rejects == Rejects::Stop {
            return Err(stop_error(&self.sink.plan, first, reason));
        }
        Ok(count)
    }

    /// Drops the staging table.
    pub(super) fn finish(self, session: &mut Session) -> Result<()> {
        session.execute("DROP TABLE pg_temp.lifeboat_stage")
    }
}

/// Creates the staging table and copies the rows that can be converted into it. Returns their number.
fn stage_rows(session: &mut Session, sink: &Sink, mut rows: Converted<'_>) -> Result<u64> {
    session.execute(&create_stage(&sink.plan))?;
    while !rows.ended {
        session.copy_in("COPY pg_temp.lifeboat_stage FROM STDIN", || rows.next_part())?;
        rows.rejects.clear();
        rows.rejects_bytes = 0;
    }
    Ok(rows.sent)
}

/// Moves staged rows to the table of rejected rows. Returns their number, and the first rowid.
fn reject_staged(
    session: &mut Session,
    plan: &Plan,
    sink: &Sink,
    numbers: &str,
    reason: &str,
    state: Option<&str>,
) -> Result<(u64, Option<i64>)> {
    let table = &sink.plan;
    let row = session.row(&format!(
        "WITH gone AS (DELETE FROM pg_temp.lifeboat_stage WHERE lifeboat_n IN ({numbers})
                       RETURNING lifeboat_rowid, lifeboat_hash, lifeboat_json),
              kept AS (INSERT INTO {SCHEMA}.rejects ({REJECT_COLUMNS}, state)
                       SELECT {}, {}, {}, lifeboat_rowid, lifeboat_hash, {}, {}, {}, lifeboat_json::jsonb, {} FROM gone RETURNING 1)
         SELECT count(*) AS count, (SELECT min(lifeboat_rowid) FROM gone) AS first FROM kept",
        literal(&plan.id),
        literal(&table.file),
        literal(&table.source),
        literal(&table.schema),
        literal(&table.name),
        literal(reason),
        state.map_or_else(|| "NULL".to_owned(), literal)
    ))?;
    Ok((row.number("count")?, row.get("first")?.and_then(|text| text.parse().ok())))
}

/// The way in which rows are loaded: directly with COPY, or through the staging table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoadMethod {
    Direct,
    Staged,
}

/// Returns the statement that creates the staging table of text columns for one chunk.
fn create_stage(table: &TablePlan) -> String {
    let columns: Vec<String> =
        table.columns.iter().map(|column| format!("{} text", ident(column.target_name()))).collect();
    format!(
        "CREATE TEMPORARY TABLE lifeboat_stage (lifeboat_n bigint PRIMARY KEY, lifeboat_rowid bigint, lifeboat_hash text, \
         lifeboat_json text, {}) ON COMMIT DROP",
        columns.join(", ")
    )
}

/// Returns the error for a server that has stored fewer rows than it got.
fn left_out(table: &TablePlan, sent: u64, stored: u64) -> Error {
    Error::problem(format!("{sent} rows were sent to {}, but only {stored} were stored", table.shown_target()))
        .hint("a trigger or a rule of the table leaves rows out: disable it, then run the plan again")
}

fn stop_error(table: &TablePlan, rowid: Option<i64>, reason: &str) -> Error {
    let row = rowid.map_or("a row".to_owned(), |rowid| format!("the row {rowid}"));
    Error::problem(format!("{row} of {} cannot be converted: {reason}", table.shown_source())).hint(
        "set rejects = \"table\" in the plan to keep such rows aside, and run it again; or run 'lifeboat migrate \
             rollback', correct the row or the plan, and run the plan again",
    )
}

/// The part of a COPY that comes next.
#[derive(Clone, Copy)]
enum Part {
    Header,
    Rows,
    Nothing,
}

/// Rows that are being read and converted.
struct Converted<'a> {
    shared: &'a Shared<'a>,
    sink: &'a Sink,
    rows: TableRows<'a>,
    hasher: RowHasher,
    method: LoadMethod,
    digest: RowDigest,
    /// The number of rows that were read.
    read: u64,
    /// The number of rows that were sent to the server.
    sent: u64,
    rejects: Vec<Reject>,
    rejects_bytes: usize,
    /// The values that were sent and that change in the target.
    changes: TableChanges,
    /// The changes in the current row, with the numbers of their columns.
    row_changes: Vec<(usize, Changes)>,
    ended: bool,
    part: Part,
    /// The rows that are taken, by their hash, with the number of times that each is still to come; `None` for all rows.
    chosen: Option<RowCounts>,
}

impl<'a> Converted<'a> {
    fn begin(shared: &'a Shared<'a>, sink: &'a Sink, rows: TableRows<'a>, method: LoadMethod) -> Self {
        Converted {
            shared,
            sink,
            rows,
            hasher: RowHasher::default(),
            method,
            digest: RowDigest::default(),
            read: 0,
            sent: 0,
            rejects: Vec::new(),
            rejects_bytes: 0,
            changes: TableChanges::new(),
            row_changes: Vec::new(),
            ended: false,
            part: Part::Header,
            chosen: None,
        }
    }

    /// Restricts the rows to these.
    fn only(self, rows: RowCounts) -> Self {
        Converted { chosen: Some(rows), ..self }
    }

    /// Returns true if the present row is taken.
    fn is_chosen(&mut self) -> bool {
        let hash = self.hasher.hash();
        let Some(rows) = &mut self.chosen else { return true };
        rows.get_mut(&hash).filter(|times| **times > 0).map(|times| *times -= 1).is_some()
    }

    /// Returns true if rows are written in the binary format.
    fn is_binary(&self) -> bool {
        self.sink.is_binary && self.method == LoadMethod::Direct
    }

    /// Returns what is sent next in a COPY. Returns `None` at its end; the next call begins another one.
    fn next_part(&mut self) -> Result<Option<Bytes>> {
        let is_binary = self.is_binary();
        match self.part {
            Part::Header => {
                self.part = Part::Rows;
                if is_binary { Ok(Some(Bytes::from_static(BINARY_HEADER))) } else { self.next_part() }
            }
            Part::Rows => match self.next()? {
                Some(rows) => Ok(Some(rows)),
                None => {
                    self.part = Part::Nothing;
                    if is_binary { Ok(Some(Bytes::from_static(BINARY_END))) } else { self.next_part() }
                }
            },
            Part::Nothing => {
                self.part = Part::Header;
                Ok(None)
            }
        }
    }

    /// Returns the next buffer of rows. Returns `None` after the last row, or if rejected rows must be sent first.
    fn next(&mut self) -> Result<Option<Bytes>> {
        if self.shared.stop.load(Ordering::Relaxed) {
            return Err(Error::new(Kind::Interrupted, "another worker has failed"));
        }
        let mut out = Vec::with_capacity(BUFFER_BYTES + (16 << 10));
        while !self.ended && out.len() < BUFFER_BYTES && self.rejects_bytes < REJECTS_BYTES {
            if !self.rows.step()? {
                self.ended = true;
                break;
            }
            self.read += 1;
            if self.read.is_multiple_of(4096) {
                interrupt::check()?;
            }
            self.add(&mut out)?;
        }
        self.shared.progress.advance(out.len() as u64);
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    fn add(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.rows.hash(&mut self.hasher)?;
        if !self.is_chosen() {
            return Ok(());
        }
        self.digest.add_hash(self.hasher.hash());
        let start = out.len();
        let is_binary = self.is_binary();
        if is_binary {
            let count = i16::try_from(self.sink.columns.len()).map_err(|_| Error::failed("too many columns"))?;
            out.extend_from_slice(&count.to_be_bytes());
        }
        if self.method == LoadMethod::Staged {
            let hash = self.hasher.hash();
            let rowid = self.rows.rowid()?.map_or("\\N".to_owned(), |rowid| rowid.to_string());
            out.extend_from_slice(format!("{}\t{rowid}\t{hash:032x}\t", self.sent + 1).as_bytes());
            escape(self.json()?.as_bytes(), out);
            out.push(b'\t');
        }
        for (number, (place, converter, name)) in self.sink.columns.iter().enumerate() {
            let cell = self.rows.cell(*place)?;
            let written = if is_binary {
                converter.write_to(cell, &mut Binary(out))
            } else {
                let written = converter.write(cell, out);
                out.push(if number + 1 < self.sink.columns.len() { b'\t' } else { b'\n' });
                written
            };
            match written {
                Ok(changes) if changes.is_none() => {}
                Ok(changes) => self.row_changes.push((number, changes)),
                Err(reason) => {
                    let reason = format!("{name}: {}: {}", shown(cell), reason.0);
                    out.truncate(start);
                    self.row_changes.clear();
                    return self.reject(reason);
                }
            }
        }
        if out.len() - start > MAX_LINE_BYTES {
            let reason = format!("the row has {} bytes, but PostgreSQL reads at most 1 GB of a row", out.len() - start);
            out.truncate(start);
            out.shrink_to(BUFFER_BYTES);
            self.row_changes.clear();
            return self.reject(reason);
        }
        self.sent += 1;
        for (number, changes) in self.row_changes.drain(..) {
            let column = &self.sink.plan.columns[number].source;
            self.changes.entry(column.clone()).or_default().add(changes);
        }
        Ok(())
    }

    fn reject(&mut self, reason: String) -> Result<()> {
        let rowid = self.rows.rowid()?;
        if self.shared.plan.rejects == Rejects::Stop {
            return Err(stop_error(&self.sink.plan, rowid, &reason));
        }
        let row = self.json()?;
        self.rejects_bytes += row.len() + reason.len() + 64;
        self.rejects.push(Reject { rowid, hash: self.hasher.hash(), reason, row });
        Ok(())
    }

    /// Returns the row as JSON: blobs, and texts that `jsonb` cannot hold, are written as hexadecimal digits. Of values
    /// that are too long to keep twice, only the length is written; the file has them.
    fn json(&self) -> Result<String> {
        let mut out = String::from("{");
        for (place, column) in self.sink.facts.columns.iter().enumerate() {
            if place > 0 {
                out.push_str(", ");
            }
            out.push_str(&serde_json::to_string(&column.name.replace('\0', "")).unwrap_or_default());
            out.push_str(": ");
            match self.rows.cell(place)? {
                Cell::Text(bytes) | Cell::Blob(bytes) if out.len() + bytes.len() > MAX_REJECT_BYTES => {
                    let _ = write!(out, "{{\"omitted_bytes\": {}}}", bytes.len());
                }
                Cell::Null => out.push_str("null"),
                Cell::Integer(number) => {
                    let _ = write!(out, "{number}");
                }
                Cell::Real(number) if number.is_finite() => {
                    let _ = write!(out, "{number:?}");
                }
                Cell::Real(number) => {
                    let _ = write!(out, "{{\"real\": \"{number}\"}}");
                }
                Cell::Text(text) => match std::str::from_utf8(text) {
                    Ok(text) if !text.contains('\0') => {
                        out.push_str(&serde_json::to_string(text).unwrap_or_default());
                    }
                    _ => {
                        let _ = write!(out, "{{\"text\": \"{}\"}}", hex::encode(text));
                    }
                },
                Cell::Blob(bytes) => {
                    let _ = write!(out, "{{\"blob\": \"{}\"}}", hex::encode(bytes));
                }
            }
        }
        out.push('}');
        Ok(out)
    }
}
