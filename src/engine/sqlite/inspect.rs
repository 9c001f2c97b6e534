//! Inspects a database that is not backed up yet: the type of the file, and the exact number of rows in each table.
//!
//! Nothing is changed, neither in the database nor in the files beside it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use super::connection::{Purpose, explain, is_circumstance, is_damage, sqlite_message};
use super::files::{companion, file_bytes};
use super::header::Header;
use super::reading::Reading;
use super::rows;
use super::source;
use super::survey::list_tables;
use super::target::data_version;
use crate::platform::disk::shown;
use crate::platform::error::{IoContext, Kind, Result, one_line};
use crate::platform::scratch::Scratch;
use crate::snapshots::manifest::SqliteFacts;

/// The time to wait for a lock before a table counts as not readable.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The properties of a database's files.
#[derive(Clone, Debug)]
pub(crate) struct FileFacts {
    /// Length of the file.
    pub bytes: u64,
    /// Length of its WAL; 0 if it does not exist.
    pub wal_bytes: u64,
    /// Length of its rollback journal; 0 if it does not exist.
    pub journal_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// The owner's user id.
    pub owner: u32,
    /// The group id.
    pub group: u32,
    /// The time of the last write to the file or its WAL.
    pub modified_at: DateTime<Utc>,
}

/// The properties of a database and its tables.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseContent {
    /// The facts as they are in manifests.
    pub facts: SqliteFacts,
    /// The number of unused pages.
    pub free_pages: u64,
    /// `none`, `full` or `incremental`.
    pub auto_vacuum: &'static str,
    /// The number of objects of each kind in the schema.
    pub schema: SchemaCounts,
    /// All tables by name, without SQLite's own (`sqlite_...`).
    pub tables: Vec<CountedTable>,
    /// The reason why it was not read in place with locks, and how it was read instead.
    pub way: Option<&'static str>,
    /// True if another connection wrote while the tables were counted one by one, so that the counts are from different
    /// times.
    pub changed_meanwhile: bool,
}

/// The numbers of objects in a schema, without SQLite's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct SchemaCounts {
    /// Ordinary tables, including the shadow tables of virtual ones.
    pub tables: u64,
    /// Virtual tables.
    pub virtual_tables: u64,
    /// Indexes, including those of keys.
    pub indexes: u64,
    /// Triggers.
    pub triggers: u64,
    /// Views.
    pub views: u64,
}

/// A table and its rows.
#[derive(Clone, Debug)]
pub(crate) struct CountedTable {
    /// The name of the table.
    pub name: String,
    /// `table`, `virtual` or `shadow`.
    pub kind: String,
    /// The number of rows, or the reason why they cannot be counted.
    pub rows: Result<u64, Uncounted>,
}

/// The reason why a table has no number of rows.
#[derive(Clone, Debug)]
pub(crate) struct Uncounted {
    /// SQLite's message.
    pub reason: String,
    /// True if the cause is the design of the database (for example, a module that is missing here), not damage or a
    /// lock.
    pub is_harmless: bool,
}

/// Reads the properties of the files; no file is opened.
pub(crate) fn inspect_files(path: &Path) -> Result<FileFacts> {
    let facts = fs::metadata(path).io(Kind::Problem, || format!("cannot access {}", shown(path)))?;
    let written = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified()).ok();
    // An empty WAL has the time of the last reader, not of a write.
    let wal = companion(path, "-wal");
    let wal_bytes = file_bytes(&wal);
    let wal_written = (wal_bytes > 0).then(|| written(&wal)).flatten();
    let newest = written(path).into_iter().chain(wal_written).max().unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(FileFacts {
        bytes: facts.len(),
        wal_bytes,
        journal_bytes: file_bytes(&companion(path, "-journal")),
        mode: facts.mode() & 0o7777,
        owner: facts.uid(),
        group: facts.gid(),
        modified_at: newest.into(),
    })
}

/// Inspects a database (see [`source::locate`]): its properties and the number of rows in each table. If it cannot be read
/// in place without a change, a copy in `scratch` is read.
///
/// A WAL database is counted in one read transaction, which blocks nobody. In the other journal modes, each table is
/// counted separately, so that a writer waits for one table at most.
pub(crate) fn inspect_database(path: &Path, header: &Header, scratch: &Scratch) -> Result<DatabaseContent> {
    let reading = Reading::begin(path, scratch)?;
    let connection = reading.open()?;
    let cannot = |error| explain(error, &format!("cannot read {}", shown(path)));
    connection.busy_timeout(LOCK_WAIT).map_err(cannot)?;
    let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).map_err(cannot)?;
    let in_one_transaction = mode == "wal" || reading.purpose() == Purpose::Image;
    let before = data_version(&connection)?;
    if in_one_transaction {
        connection.execute_batch("BEGIN").map_err(cannot)?;
    }
    let mut facts = source::read_facts(&connection, path, header.journal_mode())?;
    facts.file_mode = 0;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs);
    let free_pages = number("PRAGMA main.freelist_count").map_err(cannot)?;
    let auto_vacuum = match number("PRAGMA main.auto_vacuum").map_err(cannot)? {
        1 => "full",
        2 => "incremental",
        _ => "none",
    };
    let schema = count_schema(&connection).map_err(cannot)?;
    let mut tables = Vec::new();
    for (name, kind) in list_tables(&connection).map_err(cannot)? {
        if name.starts_with("sqlite_") {
            continue;
        }
        crate::platform::interrupt::check()?;
        let rows = count(&connection, &name)?;
        tables.push(CountedTable { name, kind, rows });
    }
    if in_one_transaction {
        connection.execute_batch("COMMIT").map_err(cannot)?;
    }
    let changed_meanwhile = match in_one_transaction {
        true => reading.require_unchanged().is_err(),
        false => data_version(&connection)? != before,
    };
    let way = reading.remark();
    Ok(DatabaseContent { facts, free_pages, auto_vacuum, schema, tables, way, changed_meanwhile })
}

fn count_schema(connection: &Connection) -> rusqlite::Result<SchemaCounts> {
    let sql = "SELECT count(*) FILTER (WHERE type = 'table' AND rootpage > 0 AND substr(name, 1, 7) <> 'sqlite_'),
                      count(*) FILTER (WHERE type = 'table' AND ifnull(rootpage, 0) = 0),
                      count(*) FILTER (WHERE type = 'index'), count(*) FILTER (WHERE type = 'trigger'),
                      count(*) FILTER (WHERE type = 'view')
                 FROM main.sqlite_schema";
    connection.query_row(sql, [], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        Ok(SchemaCounts {
            tables: number(0)?,
            virtual_tables: number(1)?,
            indexes: number(2)?,
            triggers: number(3)?,
            views: number(4)?,
        })
    })
}

/// Counts the rows of a table. A failure that concerns the table is returned as the reason; only a signal fails the
/// call.
fn count(connection: &Connection, table: &str) -> Result<Result<u64, Uncounted>> {
    let rows = rows::count(connection, table);
    crate::platform::interrupt::check()?;
    Ok(rows.map_err(|error| Uncounted {
        reason: one_line(&sqlite_message(&error)),
        is_harmless: !is_damage(&error) && !is_circumstance(&error),
    }))
}
