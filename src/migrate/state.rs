//! Keeps the notes of a migration in the target, by which it can be continued, checked and rolled back.
//!
//! All notes are in the schema `lifeboat_migrate`, which the first run creates and the last rollback removes. Each
//! action is noted in the same transaction that performs it.

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::plan::{Plan, TablePlan};
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::sqlite::values::Range;
use crate::platform::digest::{RowDigest, Sha256};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// The schema of the notes.
pub(crate) const SCHEMA: &str = "lifeboat_migrate";

/// The tables of the notes, each with its columns.
const TABLES: [(&str, &str); 7] = [
    (
        "plans",
        "id text PRIMARY KEY, digest text NOT NULL, lifeboat_version text NOT NULL, sources jsonb NOT NULL,
         begun_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz",
    ),
    (
        "made",
        "plan text NOT NULL REFERENCES lifeboat_migrate.plans ON DELETE CASCADE, number bigint GENERATED ALWAYS AS IDENTITY,
         kind text NOT NULL, schema text NOT NULL, name text NOT NULL, oid oid NOT NULL, rows_digest text,
         at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (plan, number)",
    ),
    (
        "chunks",
        "plan text NOT NULL REFERENCES lifeboat_migrate.plans ON DELETE CASCADE, source_table integer NOT NULL,
         chunk integer NOT NULL, target oid NOT NULL, first_rowid bigint, last_rowid bigint, rows bigint, rejected bigint,
         digest text, done_at timestamptz, PRIMARY KEY (plan, source_table, chunk)",
    ),
    (
        "steps",
        "plan text NOT NULL REFERENCES lifeboat_migrate.plans ON DELETE CASCADE, step text NOT NULL, note text,
         done_at timestamptz NOT NULL DEFAULT now(), planned text, PRIMARY KEY (plan, step)",
    ),
    (
        "rejects",
        "plan text NOT NULL REFERENCES lifeboat_migrate.plans ON DELETE CASCADE, file text NOT NULL, source text NOT NULL,
         rowid bigint, row_hash text NOT NULL, target_schema text NOT NULL, target_name text NOT NULL, reason text NOT NULL,
         \"row\" jsonb NOT NULL, at timestamptz NOT NULL DEFAULT now(), state text",
    ),
    (
        "keys",
        "plan text NOT NULL REFERENCES lifeboat_migrate.plans ON DELETE CASCADE, number bigint GENERATED ALWAYS AS IDENTITY,
         schema text NOT NULL, relation text NOT NULL, parent_schema text NOT NULL, parent text NOT NULL, name text NOT NULL,
         definition text NOT NULL, comment text, columns json NOT NULL, referenced json NOT NULL, operators json NOT NULL,
         is_full boolean NOT NULL",
    ),
    ("transactions", "plan text NOT NULL REFERENCES lifeboat_migrate.plans ON DELETE CASCADE"),
];

/// The columns that the tables of older versions lack, each with its type.
const LATER_COLUMNS: [(&str, &str, &str); 2] = [("steps", "planned", "text"), ("rejects", "state", "text")];

/// The content of a file's tables when it was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SourceState {
    /// The snapshot that was taken, or that is read.
    pub snapshot: Option<String>,
    /// The rows and digest of every table that is migrated.
    pub tables: BTreeMap<String, TableState>,
}

/// The content of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableState {
    /// The number of rows.
    pub rows: u64,
    /// The digest of the rows.
    pub digest: RowDigest,
}

/// The notes of a plan.
#[derive(Clone, Debug)]
pub(crate) struct PlanState {
    /// The digest of the plan when it was started.
    pub digest: String,
    /// The content of the files when the plan was started.
    pub sources: BTreeMap<String, SourceState>,
    /// True if the run is complete.
    pub finished: bool,
}

/// A part of a table that is loaded in one transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    /// The number of the table in the plan.
    pub table: usize,
    /// The number of the chunk.
    pub number: usize,
    /// The range of its rows; `None` for all rows.
    pub range: Option<Range>,
    /// The result, if the chunk is loaded.
    pub done: Option<ChunkDone>,
}

/// The result of loading a chunk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChunkDone {
    /// The number of rows in the target.
    pub rows: u64,
    /// The number of rejected rows.
    pub rejected: u64,
    /// The digest of all these rows as they are in the file.
    pub digest: RowDigest,
}

/// An object that was created, or an existing table that was filled.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    /// `schema`, `table`, `filled`, `index` or `constraint`.
    pub kind: String,
    /// Its schema, unquoted.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// Its OID.
    pub oid: u32,
    /// The digest of a hypertable's rows when all were loaded, independent of their order, or `own` for an ordinary table,
    /// where the `xmin` of a row shows who has written it; `None` if the run did not get that far.
    pub rows_digest: Option<String>,
}

impl Made {
    /// Returns true if it is a table: a new one, or an existing one that was filled.
    pub(super) fn is_table(&self) -> bool {
        matches!(self.kind.as_str(), "table" | "filled")
    }

    /// Returns `schema.name`, for messages.
    pub(super) fn shown(&self) -> String {
        one_line(&format!("{}.{}", self.schema, self.name))
    }

    /// Returns its quoted name.
    pub(super) fn quoted(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Returns true if this database holds the notes of a migration.
pub(crate) fn has_notes(session: &mut Session) -> Result<bool> {
    relation_exists(session, &qualified(SCHEMA, "plans"))
}

/// Creates the tables of the notes, as far as they are missing. Must be called in a transaction.
pub(crate) fn make_tables(session: &mut Session) -> Result<()> {
    make_missing(session).map_err(|error| {
        let lacks_privilege = sqlstate(&error).as_deref() == Some("42501");
        let error = error.context(format!("cannot create the schema {SCHEMA} for the notes of the migration"));
        match lacks_privilege {
            true => error.hint("the role needs CREATE on the database: run GRANT CREATE ON DATABASE ... TO ..."),
            false => error,
        }
    })
}

/// Creates what is missing. A statement for a table that is there, even one that would do nothing, waits for the transactions
/// of other migrations.
fn make_missing(session: &mut Session) -> Result<()> {
    let mut missing = Vec::new();
    if !schema_exists(session, SCHEMA)? {
        missing.push(format!(
            "CREATE SCHEMA {SCHEMA}; COMMENT ON SCHEMA {SCHEMA} IS 'what lifeboat migrate notes of its migrations'"
        ));
    }
    for (table, columns) in TABLES {
        if !relation_exists(session, &qualified(SCHEMA, table))? {
            missing.push(format!("CREATE TABLE {SCHEMA}.{table} ({columns})"));
            if table == "rejects" {
                missing.push(format!("CREATE INDEX rejects_plan_idx ON {SCHEMA}.rejects (plan, file, source)"));
            }
            continue;
        }
        for (_, column, kind) in LATER_COLUMNS.iter().filter(|(of, ..)| *of == table) {
            let found = session.row(&format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = pg_catalog.to_regclass('{SCHEMA}.{table}') AND attname = '{column}') AS found"
            ))?;
            if !found.flag("found")? {
                missing.push(format!("ALTER TABLE {SCHEMA}.{table} ADD COLUMN {column} {kind}"));
            }
        }
    }
    missing.iter().try_for_each(|sql| session.execute(sql))
}

/// Returns the names of the tables of the notes. Those that others refer to come first.
pub(super) fn tables() -> impl DoubleEndedIterator<Item = &'static str> {
    TABLES.into_iter().map(|(name, _)| name)
}

/// Returns true if there is a schema with this name.
pub(super) fn schema_exists(session: &mut Session, name: &str) -> Result<bool> {
    let query = format!("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL AS found", literal(&ident(name)));
    session.row(&query)?.flag("found")
}

/// Returns true if there is a relation with this quoted name.
pub(super) fn relation_exists(session: &mut Session, qualified: &str) -> Result<bool> {
    session.row(&format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL AS found", literal(qualified)))?.flag("found")
}

/// The longest wait for the lock of a plan. The server holds the locks of a process that has just ended for a moment.
const LOCK_WAIT: Duration = Duration::from_secs(3);
/// The pause between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Takes the lock of a plan, so that no other process runs it or rolls it back while the session lasts. Fails if
/// another process holds the lock.
pub(crate) fn lock(session: &mut Session, plan: &str) -> Result<()> {
    let key = lock_key(&format!("lifeboat migrate {plan}"));
    let start = Instant::now();
    loop {
        let row = session.row(&format!("SELECT pg_catalog.pg_try_advisory_lock({key}) AS locked"))?;
        if row.flag("locked")? {
            return Ok(());
        }
        if start.elapsed() >= LOCK_WAIT {
            break;
        }
        interrupt::check()?;
        thread::sleep(LOCK_PAUSE);
    }
    Err(Error::failed(format!("another process is running or rolling back the plan {}", one_line(plan)))
        .hint("wait until it ends, or end it: its completed work is kept"))
}

/// Takes the lock of the notes until the transaction ends, so that no other process begins a plan or rolls one back.
/// The rollback of the last plan removes the notes, which must not happen while another plan begins.
pub(crate) fn lock_notes(session: &mut Session) -> Result<()> {
    session
        .rows(&format!("SELECT pg_catalog.pg_advisory_xact_lock({})", lock_key("lifeboat migrate")))
        .map(|_| ())
        .map_err(|error| {
            error
                .context("another migration into this database is being started or rolled back")
                .hint("run the command again later")
        })
}

fn lock_key(text: &str) -> i64 {
    let hash = Sha256::of(text.as_bytes());
    i64::from_le_bytes(hash.0[..8].try_into().unwrap_or_default())
}

/// Returns the notes of a plan, or `None` if there are none.
pub(crate) fn find(session: &mut Session, plan: &str) -> Result<Option<PlanState>> {
    if !has_notes(session)? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT digest, sources, finished_at IS NOT NULL AS finished FROM {SCHEMA}.plans WHERE id = {}",
        literal(plan)
    );
    let rows = match session.rows(&sql) {
        Ok(rows) => rows,
        // The last plan was rolled back just now, which removed the notes.
        Err(error) if matches!(sqlstate(&error).as_deref(), Some("42P01" | "3F000")) => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(row) = rows.first() else { return Ok(None) };
    let sources = serde_json::from_str(row.text("sources")?)
        .map_err(|error| Error::failed("cannot read the notes of the migration in the target").because(error))?;
    Ok(Some(PlanState { digest: row.text("digest")?.to_owned(), sources, finished: row.flag("finished")? }))
}

/// Notes that a plan was started.
pub(crate) fn begin(session: &mut Session, plan: &Plan, sources: &BTreeMap<String, SourceState>) -> Result<()> {
    let json = serde_json::to_string(sources).expect("names are strings");
    session.execute(&format!(
        "INSERT INTO {SCHEMA}.plans (id, digest, lifeboat_version, sources) VALUES ({}, {}, {}, {})",
        literal(&plan.id),
        literal(&plan.digest()),
        literal(env!("CARGO_PKG_VERSION")),
        literal(&json)
    ))
}

/// Notes that the run is complete.
pub(crate) fn finish(session: &mut Session, plan: &str) -> Result<()> {
    session.execute(&format!("UPDATE {SCHEMA}.plans SET finished_at = now() WHERE id = {}", literal(plan)))
}

/// Removes all notes of a plan.
pub(super) fn forget(session: &mut Session, plan: &str) -> Result<()> {
    session.execute(&format!("DELETE FROM {SCHEMA}.plans WHERE id = {}", literal(plan)))
}

/// The step that a rollback notes if it has kept tables.
const ROLLED_BACK: &str = "rollback";

/// Keeps only the notes that another rollback needs: of tables that were left with their rows, and of tables that were emptied.
pub(super) fn keep_tables(session: &mut Session, plan: &str, whole: &[u32], emptied: &[u32]) -> Result<()> {
    let list = |oids: &[u32]| oids.iter().chain(&[0]).map(u32::to_string).collect::<Vec<_>>().join(", ");
    session.execute(&format!(
        "DELETE FROM {SCHEMA}.chunks WHERE plan = {plan} AND target NOT IN ({whole});
         DELETE FROM {SCHEMA}.made WHERE plan = {plan} AND kind <> 'schema' AND oid NOT IN ({whole}, {emptied});
         UPDATE {SCHEMA}.made SET rows_digest = NULL WHERE plan = {plan} AND oid IN ({emptied});
         DELETE FROM {SCHEMA}.rejects WHERE plan = {plan};
         DELETE FROM {SCHEMA}.steps WHERE plan = {plan}",
        plan = literal(plan),
        whole = list(whole),
        emptied = list(emptied)
    ))?;
    note_step(session, plan, ROLLED_BACK, &Step::default())
}

/// Forgets a plan that was rolled back, if the tables that the rollback has kept are empty, and returns true. Fails if they
/// have rows.
pub(super) fn forget_rolled_back(session: &mut Session, plan: &str) -> Result<bool> {
    if !steps(session, plan)?.contains_key(ROLLED_BACK) {
        return Ok(false);
    }
    for one in made(session, plan)?.iter().filter(|one| one.is_table()) {
        if rows_loaded(session, plan, one)? > 0 {
            return Err(Error::usage(format!("the plan was rolled back, but {} was kept with its rows", one.shown()))
                .hint("remove what refers to them, and run 'lifeboat migrate rollback' again, then run the plan"));
        }
    }
    forget(session, plan)?;
    Ok(true)
}

/// Notes that an object was created; `oid` is an SQL expression.
pub(crate) fn note_made(
    session: &mut Session,
    plan: &str,
    kind: &str,
    schema: &str,
    name: &str,
    oid: &str,
) -> Result<()> {
    session.execute(&format!(
        "INSERT INTO {SCHEMA}.made (plan, kind, schema, name, oid) VALUES ({}, {}, {}, {}, {oid})",
        literal(plan),
        literal(kind),
        literal(schema),
        literal(name)
    ))
}

/// Returns the objects that were created, in the order of their creation.
pub(crate) fn made(session: &mut Session, plan: &str) -> Result<Vec<Made>> {
    let sql = format!(
        "SELECT kind, schema, name, oid, rows_digest FROM {SCHEMA}.made WHERE plan = {} ORDER BY number",
        literal(plan)
    );
    let one = |row: &crate::engine::postgres::wire::session::Row| {
        Ok(Made {
            kind: row.text("kind")?.to_owned(),
            schema: row.text("schema")?.to_owned(),
            name: row.text("name")?.to_owned(),
            oid: row.number("oid")?,
            rows_digest: row.owned("rows_digest")?,
        })
    };
    session.rows(&sql)?.iter().map(one).collect()
}

/// Notes the open transaction, or the innermost savepoint in it, as one that loads rows. Its id is the `xmin` of this note,
/// and of every row that it writes.
pub(super) fn note_transaction(session: &mut Session, plan: &str) -> Result<()> {
    session.execute(&format!("INSERT INTO {SCHEMA}.transactions (plan) VALUES ({})", literal(plan)))
}

/// Returns the number of rows that were loaded into a table, whatever the plan says now.
pub(crate) fn rows_loaded(session: &mut Session, plan: &str, table: &Made) -> Result<u64> {
    let sql = format!(
        "SELECT coalesce(pg_catalog.sum(rows), 0) AS rows FROM {SCHEMA}.chunks WHERE plan = {} AND target = {}",
        literal(plan),
        table.oid
    );
    session.row(&sql)?.number("rows")
}

/// Fails if another plan has created or filled a table: its rows may exist before they are visible.
pub(crate) fn require_no_other(session: &mut Session, plan: &str, schema: &str, name: &str) -> Result<()> {
    let rows = session.rows(&format!(
        "SELECT plan FROM {SCHEMA}.made WHERE kind IN ('table', 'filled') AND plan <> {}
            AND oid = {}::pg_catalog.regclass::pg_catalog.oid",
        literal(plan),
        literal(&qualified(schema, name))
    ))?;
    let Some(row) = rows.first() else { return Ok(()) };
    Err(Error::usage(format!(
        "{} already exists: the plan {} created or filled it",
        one_line(&format!("{schema}.{name}")),
        one_line(row.text("plan")?)
    ))
    .hint("give the table another name or schema, or roll back that plan first with 'lifeboat migrate rollback'"))
}

/// Notes the chunks of a table; `target` is an SQL expression for the OID of the target table.
pub(crate) fn note_chunks(
    session: &mut Session,
    plan: &str,
    table: usize,
    target: &str,
    ranges: &[Option<Range>],
) -> Result<()> {
    let number = |value: Option<i64>| value.map_or("NULL".to_owned(), |value| value.to_string());
    for (start, some) in ranges.chunks(1000).enumerate() {
        let values: Vec<String> = some
            .iter()
            .enumerate()
            .map(|(place, range)| {
                let (first, last) = (range.map(|range| range.first), range.map(|range| range.last));
                let place = start * 1000 + place;
                format!("({}, {table}, {place}, {target}, {}, {})", literal(plan), number(first), number(last))
            })
            .collect();
        session.execute(&format!(
            "INSERT INTO {SCHEMA}.chunks (plan, source_table, chunk, target, first_rowid, last_rowid) VALUES {}",
            values.join(", ")
        ))?;
    }
    Ok(())
}

/// Returns the chunks of all tables, in order.
pub(crate) fn chunks(session: &mut Session, plan: &str) -> Result<Vec<Chunk>> {
    let sql = format!(
        "SELECT source_table, chunk, first_rowid, last_rowid, rows, rejected, digest, done_at IS NOT NULL AS done
           FROM {SCHEMA}.chunks WHERE plan = {} ORDER BY source_table, chunk",
        literal(plan)
    );
    let one = |row: &crate::engine::postgres::wire::session::Row| {
        let range = match row.get("first_rowid")? {
            Some(_) => Some(Range { first: row.number("first_rowid")?, last: row.number("last_rowid")? }),
            None => None,
        };
        let done = match row.flag("done")? {
            true => Some(ChunkDone {
                rows: row.number("rows")?,
                rejected: row.number("rejected")?,
                digest: row.text("digest")?.parse()?,
            }),
            false => None,
        };
        Ok(Chunk { table: row.number("source_table")?, number: row.number("chunk")?, range, done })
    };
    session.rows(&sql)?.iter().map(one).collect()
}

/// Locks a chunk for the transaction that loads it. Fails if another process has loaded it or if it no longer exists.
/// The plan's lock alone is not enough, because it ends with the session that took it.
pub(crate) fn claim(session: &mut Session, plan: &str, chunk: &Chunk) -> Result<()> {
    let rows = session.rows(&format!(
        "SELECT done_at IS NOT NULL AS done FROM {SCHEMA}.chunks
          WHERE plan = {} AND source_table = {} AND chunk = {} FOR UPDATE",
        literal(plan),
        chunk.table,
        chunk.number
    ))?;
    match rows.first() {
        Some(row) if !row.flag("done")? => Ok(()),
        _ => Err(taken_by_another(plan)),
    }
}

/// Notes that a chunk is loaded. Must be called in the transaction that loads it.
pub(crate) fn note_loaded(session: &mut Session, plan: &str, chunk: &Chunk, done: &ChunkDone) -> Result<()> {
    let noted = session.rows(&format!(
        "UPDATE {SCHEMA}.chunks SET rows = {}, rejected = {}, digest = {}, done_at = now()
          WHERE plan = {} AND source_table = {} AND chunk = {} AND done_at IS NULL RETURNING chunk",
        done.rows,
        done.rejected,
        literal(&done.digest.to_string()),
        literal(plan),
        chunk.table,
        chunk.number
    ))?;
    if noted.len() == 1 { Ok(()) } else { Err(taken_by_another(plan)) }
}

fn taken_by_another(plan: &str) -> Error {
    Error::failed(format!("another process has loaded or rolled back a part of the plan {}", one_line(plan)))
        .hint("make sure that only one process runs the plan, then run it again: no row is loaded twice")
}

/// A step that was done after loading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Step {
    /// A remark, if it was not done as the plan has it.
    pub note: Option<String>,
    /// The statement that the plan had for it.
    pub planned: Option<String>,
}

/// Returns the steps that were done after loading.
pub(crate) fn steps(session: &mut Session, plan: &str) -> Result<BTreeMap<String, Step>> {
    let sql = format!("SELECT step, note, planned FROM {SCHEMA}.steps WHERE plan = {}", literal(plan));
    let one = |row: &crate::engine::postgres::wire::session::Row| {
        let step = Step { note: row.owned("note")?, planned: row.owned("planned")? };
        Ok((row.text("step")?.to_owned(), step))
    };
    session.rows(&sql)?.iter().map(one).collect()
}

/// Notes that a step after loading was done. Must be called in the transaction that does it.
pub(crate) fn note_step(session: &mut Session, plan: &str, name: &str, step: &Step) -> Result<()> {
    let text = |text: &Option<String>| text.as_deref().map_or_else(|| "NULL".to_owned(), literal);
    session.execute(&format!(
        "INSERT INTO {SCHEMA}.steps (plan, step, note, planned) VALUES ({}, {}, {}, {})
         ON CONFLICT (plan, step) DO UPDATE SET note = excluded.note, planned = excluded.planned",
        literal(plan),
        literal(name),
        text(&step.note),
        text(&step.planned)
    ))
}

/// A state of a table that the plan does not expect: rejected rows, or a missing key.
#[derive(Clone, Debug)]
pub(crate) struct Unexpected {
    /// `schema.table`.
    pub table: String,
    /// The message: for rejected rows, the numbers and the most frequent reasons.
    pub message: String,
}

/// Returns the tables with more rejected rows than the plan expects. Rows of merged tables with the key of an earlier row
/// are expected.
pub(crate) fn unexpected_rejects(session: &mut Session, plan: &Plan) -> Result<Vec<Unexpected>> {
    /// The number of reasons that are shown.
    const REASONS: usize = 3;
    let mut found = Vec::new();
    for table in &plan.tables {
        let reasons = session.rows(&format!(
            "SELECT reason, count(*) AS rows, min(rowid) AS first FROM {SCHEMA}.rejects
              WHERE plan = {} AND file = {} AND source = {} AND NOT ({} AND pg_catalog.starts_with(reason, {}))
              GROUP BY reason ORDER BY count(*) DESC, reason",
            literal(&plan.id),
            literal(&table.file),
            literal(&table.source),
            table.merge,
            literal(SAME_KEY)
        ))?;
        let mut count = 0;
        let mut shown = Vec::new();
        for row in &reasons {
            let rows: u64 = row.number("rows")?;
            count += rows;
            if shown.len() < REASONS {
                let first = row.get("first")?.map_or(String::new(), |first| format!(", first in row {first}"));
                shown.push(format!("{} ({rows}{first})", one_line(row.text("reason")?)));
            }
        }
        if count > table.expected_rejects {
            let more = if reasons.len() > shown.len() { "; and other reasons" } else { "" };
            let message = format!(
                "{}: {count} rows of {} were rejected, and the plan expects at most {}: {}{more}",
                table.shown_target(),
                table.shown_source(),
                table.expected_rejects,
                shown.join("; ")
            );
            found.push(Unexpected { table: table.shown_target(), message });
        }
    }
    Ok(found)
}

/// The first words of the reason for a row that has the key of another one.
pub(super) const SAME_KEY: &str = "another row has the same key";

/// The SQLSTATE of a row that refers to a missing row.
pub(super) const MISSING_PARENT: &str = "23503";

/// The SQLSTATE of a row whose key another row has.
pub(super) const TAKEN_KEY: &str = "23505";

/// Rows by their hash, and how often each occurs.
pub(super) type RowCounts = HashMap<u128, u32>;

/// Returns the condition for the rejected rows of a chunk.
fn of_chunk(plan: &str, table: &TablePlan, chunk: &Chunk) -> String {
    let range =
        chunk.range.map_or(String::new(), |range| format!(" AND rowid BETWEEN {} AND {}", range.first, range.last));
    format!(
        "plan = {} AND file = {} AND source = {}{range}",
        literal(plan),
        literal(&table.file),
        literal(&table.source)
    )
}

/// Removes the rejected rows of a chunk from the staging table.
pub(super) fn remove_rejected(session: &mut Session, plan: &str, table: &TablePlan, chunk: &Chunk) -> Result<()> {
    // Of equal rows, as many are rejected as are noted.
    session.execute(&format!(
        "DELETE FROM pg_temp.lifeboat_stage USING (
             SELECT lifeboat_n AS number, lifeboat_hash AS hash,
                    row_number() OVER (PARTITION BY lifeboat_hash ORDER BY lifeboat_n) AS place FROM pg_temp.lifeboat_stage) s
           JOIN (SELECT row_hash, count(*) AS times FROM {SCHEMA}.rejects WHERE {} GROUP BY row_hash) r ON r.row_hash = s.hash
          WHERE s.number = lifeboat_n AND s.place <= r.times",
        of_chunk(plan, table, chunk)
    ))
}

/// Returns the rows of a chunk that were rejected with this SQLSTATE, and removes their notes. Of very many, only some are
/// taken.
pub(super) fn take_rejects(
    session: &mut Session,
    plan: &str,
    table: &TablePlan,
    chunk: &Chunk,
    state: &str,
) -> Result<RowCounts> {
    /// The number of rows that are kept in memory.
    const MOST: usize = 500_000;
    let mut counts = RowCounts::new();
    let rows = session.rows(&format!(
        "DELETE FROM {SCHEMA}.rejects WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM {SCHEMA}.rejects WHERE {} AND state = {} LIMIT {MOST})) RETURNING row_hash",
        of_chunk(plan, table, chunk),
        literal(state)
    ))?;
    for row in &rows {
        let hash = u128::from_str_radix(row.text("row_hash")?, 16)
            .map_err(|error| Error::failed("a rejected row has no hash").because(error))?;
        *counts.entry(hash).or_default() += 1;
    }
    Ok(counts)
}

/// Returns true if rows were rejected with this SQLSTATE.
pub(super) fn has_rejects(session: &mut Session, plan: &str, state: &str) -> Result<bool> {
    let row = session.row(&format!(
        "SELECT EXISTS (SELECT FROM {SCHEMA}.rejects WHERE plan = {} AND state = {}) AS found",
        literal(plan),
        literal(state)
    ))?;
    row.flag("found")
}

/// Counts rows of a loaded chunk as rejected, or rejected ones as loaded if the number is negative.
pub(super) fn move_to_rejected(session: &mut Session, plan: &str, chunk: &Chunk, rows: i64) -> Result<()> {
    session.execute(&format!(
        "UPDATE {SCHEMA}.chunks SET rows = rows - ({rows}), rejected = rejected + ({rows})
          WHERE plan = {} AND source_table = {} AND chunk = {}",
        literal(plan),
        chunk.table,
        chunk.number
    ))
}
