//! A consistent snapshot of a database: finds out what to save before any row is read.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::engine::postgres::copy::large_objects::{self, LargeObjects};
use crate::engine::postgres::copy::reading::{self, Piece, Reading};
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::selection::Selection;
use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::restore::target::Mark;
use crate::engine::postgres::schema::data::{self, TableData};
use crate::engine::postgres::schema::{self, Schema, provided, sequences};
use crate::engine::postgres::wire::majors::VERSION_16;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;
use crate::snapshots::manifest::{DatabaseFacts, ProviderFacts, SequenceValue};

/// The options of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotOptions {
    /// The number of sessions that read rows.
    pub jobs: usize,
    /// The maximum time to try to get the locks.
    pub lock_timeout: Duration,
    /// The tables to save.
    pub selection: Selection,
    /// True if the snapshot is taken without the objects that cannot be saved.
    pub allow_partial: bool,
    /// The provider whose objects are left out.
    pub provider: Option<Provider>,
}

/// A snapshot that is held open.
pub(crate) struct Snapshot {
    /// The transaction that holds the snapshot.
    pub reading: Reading,
    /// The whole schema.
    pub schema: Schema,
    /// The tables whose rows are saved, largest first.
    pub tables: Vec<TableData>,
    /// The rows of those tables; their sums are set once they have been read.
    pub rows: Vec<RowSource>,
    /// The tables whose rows the user excluded.
    pub left_out: Vec<TableData>,
    /// Large objects.
    pub large_objects: LargeObjects,
    /// The values of all sequences.
    pub sequences: Vec<SequenceValue>,
    /// The objects that cannot be saved, each with the reason; empty unless a partial snapshot is allowed.
    pub refused: Vec<String>,
    /// The database itself.
    pub database: DatabaseFacts,
    /// The objects of the provider that were left out.
    pub provider: Option<ProviderFacts>,
}

impl Snapshot {
    /// Locks the tables, takes the snapshot and reads the schema. Fails before any row is read if something cannot be
    /// saved.
    ///
    /// Views, sequences, functions and types cannot be locked with the tables. If another session locks or drops one of
    /// them while the schema is read, everything is released and started again, until the time for the locks is over.
    pub(crate) fn begin(params: &Params, options: &SnapshotOptions) -> Result<Self> {
        let clock = Instant::now();
        loop {
            let mut reading = Reading::begin_since(params, options.jobs, options.lock_timeout, clock)?;
            let failure = match Contents::read(&mut reading, options) {
                Ok(contents) => return Ok(contents.with(reading)),
                Err(error) => error,
            };
            if !reading::is_temporary(&failure) {
                return Err(failure);
            }
            reading.session.execute("ROLLBACK")?;
            if clock.elapsed() >= options.lock_timeout {
                return Err(reading::name_blockers(&mut reading.session, failure, options.lock_timeout));
            }
            tracing::debug!("beginning the snapshot again: {}", failure.full_message());
            drop(reading);
            reading::pause();
            interrupt::check()?;
        }
    }

    /// Builds the snapshot of a transaction that is already open.
    pub(crate) fn of(mut reading: Reading, options: &SnapshotOptions) -> Result<Self> {
        Contents::read(&mut reading, options).map(|contents| contents.with(reading))
    }

    /// Reads all rows of all tables; see [`Reading::read`].
    pub(crate) fn read_rows(&mut self, sink: &mut dyn FnMut(&Piece) -> Result<()>) -> Result<()> {
        self.reading.read(&mut self.rows, sink)
    }
}

/// Everything of a snapshot but the transaction.
struct Contents {
    schema: Schema,
    tables: Vec<TableData>,
    rows: Vec<RowSource>,
    left_out: Vec<TableData>,
    large_objects: LargeObjects,
    sequences: Vec<SequenceValue>,
    refused: Vec<String>,
    database: DatabaseFacts,
    provider: Option<ProviderFacts>,
}

impl Contents {
    fn with(self, reading: Reading) -> Snapshot {
        let Contents { schema, tables, rows, left_out, large_objects, sequences, refused, database, provider } = self;
        Snapshot { reading, schema, tables, rows, left_out, large_objects, sequences, refused, database, provider }
    }

    fn read(reading: &mut Reading, options: &SnapshotOptions) -> Result<Self> {
        let database = database_facts(&mut reading.session)?;
        require_finished(&mut reading.session)?;
        options.provider.map(|provider| provided::require(&mut reading.session, provider)).transpose()?;
        let provided = provided::schemas(&mut reading.session, options.provider)?;
        let mut all = data::tables(&mut reading.session)?;
        all.retain(|table| !provided.contains(&table.schema));
        options.selection.require_matches(
            all.iter().map(|table| (table.schema.as_str(), table.name.as_str(), table.qualified.as_str())),
        )?;
        let takes_rows = |table: &TableData| options.selection.takes_rows(&table.schema, &table.name, &table.qualified);
        let (mut tables, left_out): (Vec<TableData>, Vec<TableData>) = all.into_iter().partition(takes_rows);
        let unloadable = hashed_by_enum(&mut reading.session)?;
        let in_recovery = reading.session.about().in_recovery;
        let unreadable = |table: &TableData| {
            let name = one_line(&table.qualified);
            if table.is_unlogged && in_recovery {
                return Some(format!("table {name}: it is unlogged, and has no rows on a standby"));
            }
            if unloadable.contains(&table.oid) {
                return Some(format!(
                    "table {name}: it is a hash partition by an enum, and its rows would belong to other partitions \
                     after a restore"
                ));
            }
            let chunks = table.chunked.iter().flat_map(|chunked| &chunked.chunks);
            let locked = reading.has_locked(table.oid) && chunks.into_iter().all(|chunk| reading.has_locked(*chunk));
            unreadable(table, locked)
        };
        let mut refused: Vec<String> = tables.iter().filter_map(unreadable).collect();
        tables.retain(|table| unreadable(table).is_none());
        // First the objects that other sessions may have locked: the sooner a lock is found, the shorter others wait
        // for the tables.
        let sequences = sequences::values(&mut reading.session, &mut refused, &provided)?;
        let mut schema = schema::read(&mut reading.session)?;
        let provider = match options.provider {
            Some(provider) => {
                let facts = provided::leave_out(&mut reading.session, provider, &mut schema)?;
                let tables_with_rows = provided::tables_with_rows(&mut reading.session, &provided)?;
                Some(ProviderFacts { tables_with_rows, ..facts })
            }
            None => None,
        };
        refused.extend(schema.refused.iter().cloned());
        let large_objects = if options.selection.takes_large_objects() {
            large_objects::list(&mut reading.session, &mut refused)?
        } else {
            LargeObjects::default()
        };
        if !refused.is_empty() && !options.allow_partial {
            return Err(cannot_save(&mut reading.session, &refused, options.provider));
        }
        let mut rows: Vec<RowSource> = tables.iter().map(RowSource::of).collect();
        reading.measure(&tables, &mut rows)?;
        let mut pairs: Vec<(TableData, RowSource)> = tables.into_iter().zip(rows).collect();
        pairs.sort_by(|(_, a), (_, b)| b.bytes.cmp(&a.bytes).then_with(|| a.qualified.cmp(&b.qualified)));
        let (tables, rows) = pairs.into_iter().unzip();
        Ok(Contents { schema, tables, rows, left_out, large_objects, sequences, refused, database, provider })
    }
}

/// Refuses a database whose restore has not finished: half of a database must not become the newest good snapshot.
fn require_finished(session: &mut Session) -> Result<()> {
    let row = session.row(
        "SELECT pg_catalog.shobj_description(d.oid, 'pg_database') AS comment
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
    )?;
    match row.get("comment")?.and_then(Mark::read) {
        None => Ok(()),
        Some(mark) => Err(Error::problem(format!(
            "the database is incomplete: its comment says that a restore of {} has not finished",
            one_line(&mark.snapshot)
        ))
        .hint("wait until the restore has finished; if it was interrupted, drop the database and restore again")),
    }
}

/// Returns the partitions of tables that are hash-partitioned by an enum: the hash depends on oids, which are different
/// after a restore.
fn hashed_by_enum(session: &mut Session) -> Result<HashSet<u32>> {
    let rows = session.rows(
        "WITH RECURSIVE enums AS (
             -- And types that contain an enum: the hash of a value is made of the hashes of its parts.
             SELECT oid FROM pg_catalog.pg_type WHERE typtype = 'e'
              UNION SELECT t.oid FROM enums e JOIN (
                  SELECT oid, typelem AS part FROM pg_catalog.pg_type
                   UNION ALL SELECT oid, typbasetype FROM pg_catalog.pg_type
                   UNION ALL SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range
                   UNION ALL SELECT c.reltype, a.atttypid FROM pg_catalog.pg_class c
                                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
                               WHERE c.reltype <> 0) t ON t.part = e.oid),
         below AS (
             SELECT p.partrelid AS oid FROM pg_catalog.pg_partitioned_table p
              WHERE p.partstrat = 'h' AND (EXISTS (
                  SELECT FROM pg_catalog.pg_opclass c
                   WHERE c.oid = ANY (p.partclass::pg_catalog.oid[]) AND c.opcname = 'enum_ops')
                 OR EXISTS (
                  SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::pg_catalog.int2[])
                     AND a.atttypid IN (SELECT oid FROM enums)))
              UNION SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid)
         SELECT c.oid FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid WHERE c.relkind = 'r'",
    )?;
    rows.iter().map(|row| row.number("oid")).collect()
}

fn unreadable(table: &TableData, locked: bool) -> Option<String> {
    let name = one_line(&table.qualified);
    if !table.readable || !locked {
        Some(format!("table {name}: the role may not read it"))
    } else if table.rls_applies {
        Some(format!("table {name}: row security would hide rows from the role"))
    } else {
        None
    }
}

fn cannot_save(session: &mut Session, refused: &[String], provider: Option<Provider>) -> Error {
    let noun = if refused.len() == 1 { "object" } else { "objects" };
    let mut message = format!("{} {noun} cannot be saved: ", refused.len());
    message.push_str(&refused.iter().take(20).cloned().collect::<Vec<_>>().join("; "));
    if refused.len() > 20 {
        message.push_str("; ...");
    }
    let error = Error::failed(message);
    if let Some(provider) = provided::of_server(session).ok().flatten().filter(|found| Some(*found) != provider) {
        return error.hint(format!(
            "the server seems to be of the provider {provider}: leave out what the provider owns, with provider = \
             \"{provider}\" for the source in lifeboat.toml, or with snapshot --provider {provider}"
        ));
    }
    error.hint(
        "grant the role the missing privileges (the role pg_read_all_data can read every table, BYPASSRLS bypasses \
         row security), or use --allow-partial to save everything else",
    )
}

/// Reads the properties of the database itself.
pub(crate) fn database_facts(session: &mut Session) -> Result<DatabaseFacts> {
    let version = session.version();
    let provider = if version >= 150_000 { "d.datlocprovider" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL",
    };
    let rules = if version >= VERSION_16 { "d.daticurules" } else { "NULL" };
    let row = session.row(&format!(
        "SELECT d.datname AS name, pg_catalog.pg_get_userbyid(d.datdba) AS owner,
                pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate, d.datctype AS ctype,
                {provider} AS provider, {locale} AS locale, {rules} AS rules,
                CASE WHEN pg_catalog.has_database_privilege(d.oid, 'CONNECT') THEN pg_catalog.pg_database_size(d.oid) END AS bytes
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    ))?;
    Ok(DatabaseFacts {
        name: row.text("name")?.to_owned(),
        owner: row.text("owner")?.to_owned(),
        encoding: row.text("encoding")?.to_owned(),
        collate: row.text("collate")?.to_owned(),
        ctype: row.text("ctype")?.to_owned(),
        provider: match row.text("provider")? {
            "i" => "icu",
            "b" => "builtin",
            _ => "libc",
        }
        .to_owned(),
        locale: row.owned("locale")?,
        icu_rules: row.owned("rules")?,
        bytes: row.get("bytes")?.and_then(|bytes| bytes.parse().ok()).unwrap_or(0),
    })
}
