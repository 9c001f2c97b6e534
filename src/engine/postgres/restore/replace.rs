//! Replaces the rows of tables in a live database, in place and in one transaction: views, grants and oids are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::postgres::copy::reading::{ATTEMPT, Reading};
use crate::engine::postgres::copy::row_source::{RowSource, Span};
use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::restore::commit::commit;
use crate::engine::postgres::restore::locks::require_room;
use crate::engine::postgres::schema::data::{self, TableData};
use crate::engine::postgres::schema::provided;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::schema::sequences;
use crate::engine::postgres::timescale::{self, EXTENSION};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;
use crate::snapshots::manifest::{SequenceValue, Table};

/// A transaction in which the rows of tables are replaced. From its beginning, other sessions cannot use the tables.
pub(crate) struct Replacement {
    session: Session,
    params: Params,
    /// The tables, in the order in which they were named.
    tables: Vec<RowSource>,
    /// The oids of `tables`, and of the partitioned tables all of whose partitions are among them.
    oids: BTreeSet<u32>,
    /// The chunks of the hypertables among them. They are accessed only through the hypertables.
    chunks: BTreeSet<u32>,
    /// The statements that add the dropped foreign keys again and enable the triggers again.
    statements_after: Vec<String>,
}

/// Compares the tables of a snapshot with the tables in the database. Returns the differences, as messages.
#[must_use]
pub(crate) fn differences(tables: &[&Table], live: &[TableData], all: bool) -> Vec<String> {
    let mut found = Vec::new();
    let by_name: BTreeMap<(&str, &str), &TableData> =
        live.iter().map(|table| ((table.schema.as_str(), table.name.as_str()), table)).collect();
    for table in tables {
        let Some(relation) = &table.relation else { continue };
        let name = one_line(&table.name);
        let Some(now) = by_name.get(&(relation.schema.as_str(), relation.table.as_str())) else {
            found.push(format!("the table {name} does not exist"));
            continue;
        };
        // The order of the columns does not matter: rows are loaded by the names of columns.
        let then: BTreeSet<_> =
            table.columns.iter().map(|c| (c.name.as_str(), c.declared.as_str(), c.generated, c.not_null)).collect();
        let of_extension = now.extension_condition.clone().flatten();
        let now: BTreeSet<_> =
            now.columns.iter().map(|c| (c.name.as_str(), c.type_name.as_str(), c.generated, c.not_null)).collect();
        // The condition becomes part of a statement: it is accepted only if the database itself has it.
        if relation.condition != of_extension {
            found.push(format!("the extension that owns {name} now selects its rows by another condition"));
        }
        if then != now {
            let shown = |sign: char, (name, declared, generated, not_null): &(&str, &str, bool, bool)| {
                let generated = if *generated { " GENERATED" } else { "" };
                let not_null = if *not_null { " NOT NULL" } else { "" };
                format!("{sign}{name} {declared}{generated}{not_null}")
            };
            let gone = then.difference(&now).map(|column| shown('-', column));
            let changes: Vec<String> = gone.chain(now.difference(&then).map(|column| shown('+', column))).collect();
            found.push(format!("the columns of {name} have changed ({})", one_line(&changes.join(", "))));
        }
    }
    if all {
        let known: BTreeSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let new = live.iter().filter(|table| !known.contains(table.qualified.as_str()));
        found.extend(new.map(|table| format!("the table {} is not in the snapshot", one_line(&table.qualified))));
    }
    found
}

impl Replacement {
    /// Begins the transaction, locks everything that it changes, and checks that the rows can be replaced.
    ///
    /// The locks are those that TRUNCATE takes, so readers are kept out too: a session that takes a stronger lock later
    /// meets others that have read and now want to write, and they would wait for each other. The locks are tried for a
    /// moment at a time, and all of them are released between two tries. So no deadlock lasts, in whatever order other
    /// sessions take their locks.
    pub(crate) fn begin(
        params: &Params,
        tables: &[&Table],
        sequences: &[&SequenceValue],
        all: bool,
        lock_timeout: Duration,
    ) -> Result<Self> {
        let mut session = Session::connect(params)?;
        settings::pin(&mut session)?;
        let live = read_tables(&mut session, params.provider)?;
        require_no_obstacles(&differences(tables, &live, all))?;
        let mut replacement = Replacement {
            session,
            params: params.clone(),
            tables: tables.iter().map(|table| target_of(table, &live)).collect(),
            oids: BTreeSet::new(),
            chunks: BTreeSet::new(),
            statements_after: Vec::new(),
        };
        let clock = Instant::now();
        loop {
            interrupt::check()?;
            let error = match replacement.try_begin(tables, sequences, all) {
                Ok(()) => return Ok(replacement),
                Err(error) => error,
            };
            // Another session holds a lock, or there was a deadlock with a session whose deadlock_timeout is even
            // shorter.
            if !matches!(sqlstate(&error).as_deref(), Some("55P03" | "40P01")) {
                return Err(error);
            }
            replacement.session.execute("ROLLBACK")?;
            if clock.elapsed() >= lock_timeout {
                let seconds = lock_timeout.as_secs();
                let who = replacement.lock_holders().unwrap_or_default();
                let who = if who.is_empty() { String::new() } else { format!(": {}", who.join("; ")) };
                return Err(error
                    .context(format!("cannot lock the tables within {seconds} s{who}"))
                    .hint("stop the programs that use them, or wait longer with --lock-timeout; nothing was changed"));
            }
            thread::sleep(ATTEMPT);
        }
    }

    fn try_begin(&mut self, tables: &[&Table], sequences: &[&SequenceValue], all: bool) -> Result<()> {
        self.session.execute(&format!("BEGIN; SET LOCAL lock_timeout = {}", ATTEMPT.as_millis()))?;
        let names: Vec<String> = self.tables.iter().map(|source| source.qualified.clone()).collect();
        self.lock(&names)?;
        // Check once more, now that the tables are locked.
        let live = tables_of_users(&mut self.session, self.params.provider)?;
        require_no_obstacles(&differences(tables, &live, all))?;
        self.oids = affected_oids(&mut self.session, tables, &live)?;
        self.chunks = chunks_of(&self.oids, &live);
        require_no_obstacles(&references_from_outside(&mut self.session, &self.oids, &self.chunks)?)?;
        let others = self.session.rows(&format!(
            "SELECT c.oid::pg_catalog.regclass::text AS name FROM pg_catalog.pg_class c
              WHERE c.oid = ANY ({0}) AND c.relkind = 'p'
                 OR c.oid IN (SELECT k.confrelid FROM pg_catalog.pg_constraint k WHERE {1}) ORDER BY c.oid",
            self.oid_list(),
            self.dropped_keys()
        ))?;
        let others: Result<Vec<String>> = others.iter().map(|row| row.text("name").map(str::to_owned)).collect();
        self.lock(&others?)?;
        // No statement only locks a sequence. This one locks it and does not change it.
        for value in sequences {
            let live = self.session.rows(&format!(
                "SELECT seqincrement AS increment FROM pg_catalog.pg_sequence WHERE seqrelid = pg_catalog.to_regclass({})",
                literal(&qualified(&value.schema, &value.name))
            ))?;
            if let Some(row) = live.first() {
                let name = qualified(&value.schema, &value.name);
                self.session
                    .execute(&format!("ALTER SEQUENCE {name} INCREMENT BY {}", row.number::<i64>("increment")?))
                    .map_err(|error| error.context(format!("cannot lock the sequence {}", one_line(&name))))?;
            }
        }
        self.session.execute("SET LOCAL lock_timeout = 0; SET CONSTRAINTS ALL IMMEDIATE")
    }

    fn lock(&mut self, names: &[String]) -> Result<()> {
        for some in names.chunks(500) {
            self.session
                .execute(&format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE", some.join(", ONLY ")))
                .map_err(|error| error.context("cannot lock the tables"))?;
        }
        Ok(())
    }

    /// Returns the sessions that hold locks on the tables, as messages.
    fn lock_holders(&mut self) -> Result<Vec<String>> {
        let names: Vec<String> = self.tables.iter().map(|source| literal(&source.qualified)).collect();
        let rows = self.session.rows(&format!(
            "SELECT l.pid, x.gid, min(c.oid::pg_catalog.regclass::text) AS relation, coalesce(a.usename, x.owner) AS role,
                    nullif(a.application_name, '') AS application, a.state
               FROM pg_catalog.pg_locks l
               JOIN pg_catalog.pg_class c ON c.oid = l.relation
               LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
               LEFT JOIN pg_catalog.pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
                    AND t.virtualtransaction = l.virtualtransaction
               LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid
              WHERE l.granted AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
                AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
                AND c.oid IN (SELECT pg_catalog.to_regclass(name) FROM unnest(ARRAY[{}]::text[]) AS name)
              GROUP BY l.pid, x.gid, x.owner, a.usename, a.application_name, a.state ORDER BY l.pid LIMIT 5",
            names.join(", ")
        ))?;
        rows.iter()
            .map(|row| {
                let holder = match row.get("pid")? {
                    Some(pid) => format!("process {pid}"),
                    None => format!("the prepared transaction '{}'", one_line(row.get("gid")?.unwrap_or_default())),
                };
                let mut message = format!("{holder} uses {}", one_line(row.text("relation")?));
                for column in ["role", "application", "state"] {
                    if let Some(value) = row.get(column)? {
                        message.push_str(&format!(", {column} {}", one_line(value)));
                    }
                }
                Ok(message)
            })
            .collect()
    }

    /// Lends the transaction's session to `read`, which reads in it, and takes it back.
    pub(crate) fn read<T>(mut self, read: impl FnOnce(Reading) -> Result<(T, Session)>) -> Result<(T, Self)> {
        let locked = self.oids.iter().chain(&self.chunks).copied().collect();
        let (result, session) = read(Reading::within(self.session, &self.params, locked))?;
        self.session = session;
        Ok((result, self))
    }

    /// Returns the transaction's session, for loading rows.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Returns the tables.
    #[must_use]
    pub(crate) fn tables(&self) -> &[RowSource] {
        &self.tables
    }

    fn oid_list(&self) -> String {
        oid_list(&self.oids)
    }

    /// Returns a condition on `k`, pg_constraint: the foreign keys that are dropped and added again.
    ///
    /// Foreign keys that reference other tables than these are not among them, so that those tables stay accessible;
    /// the rows are checked while they are loaded. But a foreign key that is `NOT VALID`, which not all rows need to
    /// meet, is dropped and added again.
    fn dropped_keys(&self) -> String {
        format!(
            "k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = ANY ({0})
             AND (k.confrelid = ANY ({0}) OR NOT k.convalidated)",
            self.oid_list()
        )
    }

    /// Drops the foreign keys, disables the triggers, and deletes all rows of the tables.
    ///
    /// If a time is given, only the rows in that range are deleted from each table. The end is exclusive.
    pub(crate) fn delete_rows(&mut self, from: Option<&str>, until: Option<&str>) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        let timescale = timescale::read(&mut self.session)?;
        let is_bounded = timescale.is_some() && self.has_limit_on_decompression()?;
        let keys = self.session.rows(&format!(
            "SELECT k.conrelid::pg_catalog.regclass::text AS relation, pg_catalog.quote_ident(k.conname) AS name,
                    pg_catalog.pg_get_constraintdef(k.oid) AS definition,
                    pg_catalog.obj_description(k.oid, 'pg_constraint') AS comment
               FROM pg_catalog.pg_constraint k WHERE {} ORDER BY 1, 2",
            self.dropped_keys()
        ))?;
        let mut statements = Vec::new();
        for key in &keys {
            let (table, name) = (key.text("relation")?, key.text("name")?);
            statements.push(format!("ALTER TABLE {table} DROP CONSTRAINT {name}"));
            self.statements_after
                .push(format!("ALTER TABLE {table} ADD CONSTRAINT {name} {}", key.text("definition")?));
            if let Some(comment) = key.get("comment")? {
                self.statements_after.push(format!("COMMENT ON CONSTRAINT {name} ON {table} IS {}", literal(comment)));
            }
        }
        let triggers = self.session.rows(&format!(
            "SELECT t.tgrelid::pg_catalog.regclass::text AS relation, pg_catalog.quote_ident(t.tgname) AS name,
                    CASE t.tgenabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END AS enable
               FROM pg_catalog.pg_trigger t
               JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
              WHERE (NOT t.tgisinternal
                     -- Before 15 a partition's copy of its parent's trigger counts as internal.
                     OR t.tgparentid <> 0
                        AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = t.tgconstraint AND k.contype <> 't'))
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
                     WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = t.tgfoid
                       AND d.deptype = 'e' AND x.extname = '{EXTENSION}')
                AND t.tgenabled <> 'D' AND c.relkind = 'r' AND t.tgrelid = ANY ({}) ORDER BY 1, 2",
            self.oid_list()
        ))?;
        for trigger in &triggers {
            let (table, name) = (trigger.text("relation")?, trigger.text("name")?);
            statements.push(format!("ALTER TABLE {table} DISABLE TRIGGER {name}"));
            self.statements_after.push(format!("ALTER TABLE {table} {} TRIGGER {name}", trigger.text("enable")?));
        }
        // In a table of an extension, the rows that the extension fills in itself were not saved, so they are kept.
        // Truncating a hypertable would make its aggregates lose all rows whose raw data is gone.
        let is_part = from.is_some() || until.is_some();
        let read = |table: &RowSource| {
            timescale.as_ref().is_some_and(|found| found.is_read_by_an_aggregate(&table.relation()))
        };
        let (whole, parts): (Vec<&RowSource>, Vec<&RowSource>) =
            self.tables.iter().partition(|table| table.condition.is_none() && !is_part && !read(table));
        if !whole.is_empty() {
            let names: Vec<String> = whole.iter().map(|table| table.relation()).collect();
            statements.push(format!("TRUNCATE TABLE {}", names.join(", ")));
        }
        if is_bounded && parts.iter().any(|table| table.span.is_some()) {
            statements.push("SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0".to_owned());
        }
        for table in parts {
            let condition = table.condition.clone().unwrap_or_else(|| table.within(from, until));
            statements.push(format!("DELETE FROM {} {condition}", table.relation()));
        }
        for statement in statements {
            self.session.execute(&statement).map_err(|error| {
                let error = error.context("cannot delete the rows of the tables");
                // Older versions do not allow dropping the foreign keys of a hypertable with compression enabled.
                if timescale.is_some() && sqlstate(&error).as_deref() == Some("0A000") {
                    error.hint("restore only tables without foreign keys (--table), or the whole database (--swap)")
                } else {
                    error
                }
            })?;
        }
        Ok(())
    }

    /// Returns true if the server limits how many compressed rows a statement may change.
    fn has_limit_on_decompression(&mut self) -> Result<bool> {
        let name = "timescaledb.max_tuples_decompressed_per_dml_transaction";
        let row = self
            .session
            .row(&format!("SELECT pg_catalog.current_setting({}, true) IS NOT NULL AS there", literal(name)))?;
        row.flag("there")
    }

    /// Adds the foreign keys again, enables the triggers, and sets the sequences. With `forward_only`, sequences are
    /// never set back.
    pub(crate) fn restore_constraints(&mut self, values: &[&SequenceValue], forward_only: bool) -> Result<()> {
        for statement in std::mem::take(&mut self.statements_after) {
            self.session
                .execute(&statement)
                .map_err(|error| error.context("the restored rows conflict with other data in the database"))?;
        }
        let live = sequences::values(&mut self.session, &mut Vec::new(), &BTreeSet::new())?;
        for value in values {
            let Some(now) = live.iter().find(|now| now.schema == value.schema && now.name == value.name) else {
                let name = one_line(&qualified(&value.schema, &value.name));
                return Err(Error::failed(format!("the sequence {name} does not exist, or the role may not read it")));
            };
            if forward_only && is_ahead(now, value) {
                continue;
            }
            // By itself, setval is not undone by a rollback. But the statement that locked the sequence gave it a new
            // file, which is discarded if the transaction is rolled back.
            self.session.rows(&sequences::statement(value)).map_err(|error| {
                error.context(format!("cannot set the sequence {}", one_line(&qualified(&value.schema, &value.name))))
            })?;
        }
        Ok(())
    }

    /// Moves sequences that other tables use too past the values in the rows of these tables. This is done at the very
    /// end, because a session that draws a value waits until the commit. A sequence that does not exist or is ahead
    /// already is not changed. If the server refuses to move one, for example because the role may not, it is not
    /// changed and a warning is logged.
    pub(crate) fn move_forward(&mut self, values: &[&SequenceValue]) -> Result<()> {
        let live = sequences::values(&mut self.session, &mut Vec::new(), &BTreeSet::new())?;
        for value in values {
            let is_same = |now: &&SequenceValue| now.schema == value.schema && now.name == value.name;
            let Some(now) = live.iter().find(is_same).filter(|now| !is_ahead(now, value)) else { continue };
            let name = qualified(&value.schema, &value.name);
            self.session.execute(&format!("SAVEPOINT moving; SET LOCAL lock_timeout = {}", ATTEMPT.as_millis()))?;
            let moved = self
                .session
                .execute(&format!("ALTER SEQUENCE {name} INCREMENT BY {}", now.increment))
                .and_then(|()| self.session.rows(&sequences::statement(value)).map(drop));
            match moved {
                Ok(()) => self.session.execute("RELEASE SAVEPOINT moving; SET LOCAL lock_timeout = 0")?,
                Err(error) if sqlstate(&error).is_some() => {
                    self.session.execute("ROLLBACK TO SAVEPOINT moving")?;
                    tracing::warn!(
                        "the sequence {} returns values that restored rows already have, and cannot be advanced: {}",
                        one_line(&name),
                        error.full_message()
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the names and owners of the materialized views to refresh: all of them, or those that show rows of the tables.
    pub(crate) fn views_to_refresh(&mut self, all: bool) -> Result<Vec<(String, String)>> {
        let rows = self.session.rows(&format!(
            "WITH RECURSIVE uses AS (
                 SELECT DISTINCT r.ev_class AS view, d.refobjid AS source
                   FROM pg_catalog.pg_rewrite r
                   JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                        AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND d.refobjid <> r.ev_class),
             -- A table's rows are seen through those that it is a part of.
             above AS (
                 SELECT oid FROM unnest({0}) AS oid
                  UNION SELECT i.inhparent FROM above a JOIN pg_catalog.pg_inherits i ON i.inhrelid = a.oid),
             reached AS (
                 SELECT view, 1 AS depth FROM uses WHERE source IN (SELECT oid FROM above)
                  UNION SELECT u.view, r.depth + 1 FROM reached r JOIN uses u ON u.source = r.view WHERE r.depth < 200)
             SELECT c.oid::pg_catalog.regclass::text AS name, pg_catalog.pg_get_userbyid(c.relowner) AS owner
               FROM pg_catalog.pg_class c LEFT JOIN reached r ON r.view = c.oid
              WHERE c.relkind = 'm' AND c.relispopulated AND ({all} OR r.view IS NOT NULL)
              GROUP BY c.oid, c.relowner ORDER BY coalesce(max(r.depth), 0), c.oid",
            self.oid_list()
        ))?;
        rows.iter().map(|row| Ok((row.text("name")?.to_owned(), row.text("owner")?.to_owned()))).collect()
    }

    /// Commits the transaction.
    pub(crate) fn commit(mut self) -> Result<()> {
        commit(&mut self.session, &self.params)
    }
}

/// Returns the existing table that the rows of a snapshot's table are loaded into.
fn target_of(table: &Table, live: &[TableData]) -> RowSource {
    let mut source = RowSource::like(table);
    let Some(relation) = &table.relation else { return source };
    let found = live.iter().find(|live| (&live.schema, &live.name) == (&relation.schema, &relation.table));
    if let Some(chunked) = found.and_then(|found| found.chunked.as_ref()) {
        source.qualified.clone_from(&chunked.relation);
        source.span = Some(Span::of(chunked));
    } else {
        source.qualified = qualified(&relation.schema, &relation.table);
        source.span = None;
    }
    source
}

/// Checks that the rows of tables can be replaced with the snapshot's, without the locks of a replacement. Returns an
/// error that names the obstacles.
pub(crate) fn require_fit(
    session: &mut Session,
    tables: &[&Table],
    all: bool,
    provider: Option<Provider>,
) -> Result<()> {
    let live = tables_of_users(session, provider)?;
    require_no_obstacles(&differences(tables, &live, all))?;
    let oids = affected_oids(session, tables, &live)?;
    let chunks = chunks_of(&oids, &live);
    require_no_obstacles(&references_from_outside(session, &oids, &chunks)?)?;
    require_room(session, &oids.union(&chunks).copied().collect())
}

/// Returns the tables of a database, without those of its provider.
fn tables_of_users(session: &mut Session, provider: Option<Provider>) -> Result<Vec<TableData>> {
    let mut live = data::tables(session)?;
    let provided = provided::schemas(session, provider)?;
    live.retain(|table| !provided.contains(&table.schema));
    Ok(live)
}

/// Returns the chunks of the hypertables among these tables.
fn chunks_of(oids: &BTreeSet<u32>, live: &[TableData]) -> BTreeSet<u32> {
    let tables = live.iter().filter(|table| oids.contains(&table.oid));
    tables.filter_map(|table| table.chunked.as_ref()).flat_map(|chunked| chunked.chunks.iter().copied()).collect()
}

fn oid_list(oids: &BTreeSet<u32>) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    format!("'{{{}}}'::pg_catalog.oid[]", oids.join(","))
}

/// Returns the oids of the tables, and of the partitioned tables all of whose partitions are among them: these have no
/// other rows.
fn affected_oids(session: &mut Session, tables: &[&Table], live: &[TableData]) -> Result<BTreeSet<u32>> {
    let named: BTreeSet<(&str, &str)> = tables
        .iter()
        .filter_map(|table| table.relation.as_ref())
        .map(|relation| (relation.schema.as_str(), relation.table.as_str()))
        .collect();
    let mut oids: BTreeSet<u32> = live
        .iter()
        .filter(|table| named.contains(&(table.schema.as_str(), table.name.as_str())))
        .map(|table| table.oid)
        .collect();
    loop {
        let rows = session.rows(&format!(
            "SELECT c.oid FROM pg_catalog.pg_class c
              WHERE c.relkind = 'p' AND NOT c.oid = ANY ({0})
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i
                                 WHERE i.inhparent = c.oid AND NOT i.inhrelid = ANY ({0}))",
            oid_list(&oids)
        ))?;
        if rows.is_empty() {
            return Ok(oids);
        }
        for row in &rows {
            oids.insert(row.number("oid")?);
        }
    }
}

/// Returns the foreign keys of other tables that reference these, as messages. Those of the tables' chunks are not
/// included.
fn references_from_outside(session: &mut Session, oids: &BTreeSet<u32>, chunks: &BTreeSet<u32>) -> Result<Vec<String>> {
    let rows = session.rows(&format!(
        "SELECT DISTINCT c.conrelid::pg_catalog.regclass::text AS from_table,
                c.confrelid::pg_catalog.regclass::text AS to_table
           FROM pg_catalog.pg_constraint c
          WHERE c.contype = 'f' AND c.confrelid = ANY ({0}) AND NOT c.conrelid = ANY ({0})
            AND NOT c.conrelid = ANY ({1})
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
                             WHERE t.oid = c.conrelid AND n.nspname ~ '^_timescaledb_') ORDER BY 1, 2",
        oid_list(oids),
        oid_list(chunks)
    ))?;
    rows.iter()
        .map(|row| {
            let (from, to) = (one_line(row.text("from_table")?), one_line(row.text("to_table")?));
            Ok(format!("the table {from}, which is not restored, refers to rows of {to}"))
        })
        .collect()
}

/// Reads the tables in a separate transaction, so that it holds no locks afterwards.
fn read_tables(session: &mut Session, provider: Option<Provider>) -> Result<Vec<TableData>> {
    session.execute("BEGIN")?;
    let tables = tables_of_users(session, provider)?;
    session.execute("COMMIT")?;
    Ok(tables)
}

/// Returns true if a sequence is at the value of another one, or beyond it.
fn is_ahead(now: &SequenceValue, then: &SequenceValue) -> bool {
    let (a, b) = ((now.last_value, now.is_called), (then.last_value, then.is_called));
    if then.increment > 0 { a >= b } else { (-i128::from(a.0), a.1) >= (-i128::from(b.0), b.1) }
}

/// Fails if there are obstacles to replacing rows in place. The error names them.
pub(crate) fn require_no_obstacles(differences: &[String]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = differences.iter().take(20).map(String::as_str).collect();
    let more = if differences.len() > 20 { "; ..." } else { "" };
    Err(Error::failed(format!("the rows cannot be replaced in place: {}{more}", shown.join("; "))).hint(
        "nothing was changed; --beside SCHEMA restores the tables into a new schema, \
         --swap replaces the whole database, and --table names the tables to restore",
    ))
}

/// Fails if a text from the archive that becomes part of a statement is anything but the name of a type.
fn require_type(session: &mut Session, text: &str) -> Result<()> {
    let row = session.row(&format!("SELECT pg_catalog.to_regtype({}) IS NOT NULL AS there", literal(text)));
    match row.and_then(|row| row.flag("there")) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::failed(format!("the type {} does not exist in the database", one_line(text)))
            .hint("restore the whole snapshot as a new database, with --create")),
        Err(error) => Err(error.context(format!("the type {} cannot be used", one_line(text)))),
    }
}

/// Creates plain tables like the snapshot's in a new schema. Returns the tables to load into, in the same order.
pub(crate) fn create_beside(session: &mut Session, schema: &str, tables: &[&Table]) -> Result<Vec<RowSource>> {
    session.execute(&format!("CREATE SCHEMA {}", ident(schema))).map_err(|error| {
        error
            .context(format!("cannot create the schema {}", one_line(schema)))
            .hint("name a schema that does not exist")
    })?;
    let mut taken = BTreeSet::new();
    let mut created = Vec::new();
    for table in tables {
        let relation = table.relation.as_ref().ok_or_else(|| Error::problem("a table of the manifest has no name"))?;
        let mut name = relation.table.clone();
        if !taken.insert(name.clone()) {
            name = format!("{}_{}", relation.schema, relation.table);
            taken.insert(name.clone());
        }
        for column in &table.columns {
            require_type(session, &column.declared)?;
        }
        let columns = table.columns.iter().map(|column| {
            let not_null = if column.not_null && !column.generated { " NOT NULL" } else { "" };
            format!("{} {}{not_null}", ident(&column.name), column.declared)
        });
        let columns: Vec<String> = columns.collect();
        let target = qualified(schema, &name);
        session
            .execute(&format!("CREATE TABLE {target} ({})", columns.join(", ")))
            .map_err(|error| error.context(format!("cannot create the table {}", one_line(&target))))?;
        let mut source = RowSource::like(table);
        source.qualified = target;
        source.condition = None;
        if let Some(span) = &mut source.span {
            span.relation.clone_from(&source.qualified);
        }
        created.push(source);
    }
    Ok(created)
}
