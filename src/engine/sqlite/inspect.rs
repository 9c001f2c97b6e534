//! Inspects a database that is not backed up yet: the type of the file, and the exact number of rows in each table.
//!
//! Nothing in the database is changed. For a WAL database, the `-shm` is created, because it cannot be read without
//! one. A hot journal, which any other reader would roll back, is left as it is and reported.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, ErrorCode, ffi};

use super::aliases;
use super::companions;
use super::connection::{self, Purpose, explain, is_circumstance, is_damage, sqlite_message};
use super::files::{Fingerprint, companion, file_bytes};
use super::header::Header;
use super::rows;
use super::source;
use super::survey::list_tables;
use super::target::data_version;
use super::unlocked;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
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
    /// True if it was read without locks, because its disk or folder cannot be written to.
    pub is_unlocked: bool,
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

/// A connection that only reads.
pub(super) struct ReadConnection {
    pub(super) connection: Connection,
    /// The metadata of the files before they were opened, if no lock could be taken.
    pub(super) unlocked: Option<Fingerprint>,
}

/// Opens a database to inspect it. Fails with [`Kind::Problem`] if it has a hot journal, or a WAL or journal that does
/// not belong to it.
pub(super) fn open(path: &Path, header: &Header) -> Result<ReadConnection> {
    if let Ok(connection) = connection::open_raw(path, Purpose::Inspect) {
        companions::require_matching(&connection, path)?;
    }
    let unlocked = Fingerprint::of(path);
    // If there is a WAL, it is read even if the header does not say WAL mode. A journal may be hot, and only
    // `Purpose::Inspect` leaves it as it is.
    let has_wal = header.is_wal || file_bytes(&companion(path, "-wal")) > 0;
    let may_be_hot = file_bytes(&companion(path, "-journal")) > 0;
    let purpose = if has_wal && !may_be_hot { Purpose::Source } else { Purpose::Inspect };
    let open_and_read = |purpose| -> rusqlite::Result<Connection> {
        let connection = connection::open_raw(path, purpose)?;
        connection.busy_timeout(LOCK_WAIT)?;
        connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match open_and_read(purpose) {
        Ok(connection) => Ok(ReadConnection { connection, unlocked: None }),
        Err(error) if is_hot_journal(&error) => Err(Error::problem(format!(
            "{} was left in the middle of a write: there is a hot journal beside it",
            shown(path)
        ))
        .hint("copy both files to another folder, then open it with its own program, which rolls back that write")),
        Err(error) => {
            let cannot_open = matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly));
            let has_companions = ["-wal", "-journal"].iter().any(|suffix| file_bytes(&companion(path, suffix)) > 0);
            // If no files can be created beside it, no locks can be taken; afterwards the caller checks that nobody
            // wrote.
            if (cannot_open && !has_companions) || unlocked::is_frozen(path) {
                return match open_and_read(Purpose::Image) {
                    Ok(connection) => Ok(ReadConnection { connection, unlocked: Some(unlocked) }),
                    Err(_) => Err(explain(error, &format!("cannot read {}", shown(path)))),
                };
            }
            Err(explain(error, &format!("cannot read {}", shown(path))))
        }
    }
}

fn is_hot_journal(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|inner| inner.extended_code == ffi::SQLITE_READONLY_ROLLBACK)
}

/// Inspects a database (see [`source::locate`]): its properties and the number of rows in each table.
///
/// A WAL database is counted in one read transaction, which blocks nobody. In the other journal modes, each table is
/// counted separately, so that a writer waits for one table at most.
pub(crate) fn inspect_database(path: &Path, header: &Header) -> Result<DatabaseContent> {
    aliases::require_name_in_use(header, path)?;
    let ReadConnection { connection, unlocked } = open(path, header)?;
    let cannot = |error| explain(error, &format!("cannot read {}", shown(path)));
    let mode: String = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).map_err(cannot)?;
    let in_one_transaction = mode == "wal" || unlocked.is_some();
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
    let is_unlocked = unlocked.is_some();
    let changed_meanwhile = match unlocked {
        Some(fingerprint) => fingerprint != Fingerprint::of(path),
        None => !in_one_transaction && data_version(&connection)? != before,
    };
    Ok(DatabaseContent { facts, free_pages, auto_vacuum, schema, tables, is_unlocked, changed_meanwhile })
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
