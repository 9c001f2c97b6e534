//! Connections with the settings that this program needs, and the translation of SQLite's errors.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::aliases;
use super::companions;
use super::files::{companion, file_bytes};
use super::header::Header;
use super::main_file::MainFile;
use super::stand_ins;
use crate::platform::disk::shown;
use crate::platform::error::{Error, Kind, Result};

/// The time to wait for a lock that another connection holds.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(30);

/// The number of virtual machine instructions between two checks for a signal to stop.
const STEPS_PER_CHECK: i32 = 100_000;

/// Returns the version of the SQLite library that this program is built with.
#[must_use]
pub fn library_version() -> &'static str {
    rusqlite::version()
}

/// Fails if the bundled SQLite was built without features that snapshots need. Called once at the start.
pub fn check_library() -> Result<()> {
    let memory = Connection::open_in_memory().map_err(|error| Error::failed("cannot start SQLite").because(error))?;
    for option in ["ENABLE_DBPAGE_VTAB", "ENABLE_SNAPSHOT"] {
        let used: rusqlite::Result<bool> =
            memory.query_row("SELECT sqlite_compileoption_used(?1)", [option], |row| row.get(0));
        if used != Ok(true) {
            return Err(Error::failed(format!("this lifeboat was built with an SQLite library without {option}"))
                .hint("build it inside its repository, where .cargo/config.toml sets LIBSQLITE3_FLAGS"));
        }
    }
    Ok(())
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reads a database that others may be using; changes nothing in it.
    Source,
    /// Like `Source`, but also writes no files beside it: a hot journal is not rolled back. Not for WAL databases,
    /// which cannot be read without a `-shm`.
    Inspect,
    /// Reads a file that no other process uses and nobody changes.
    Image,
    /// Changes a file that no other process uses.
    Scratch,
    /// Changes a database that others may be using.
    Target,
}

/// Opens an existing database. `path` must be absolute, with links resolved.
///
/// Fails with [`Kind::Problem`] if its WAL or journal does not belong to it, before SQLite applies or deletes that, and
/// with [`Kind::Usage`] if its WAL may be beside another name of the file.
pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Connection> {
    let connection =
        open_raw(path, purpose).map_err(|error| explain(error, &format!("cannot open {}", shown(path))))?;
    if !matches!(purpose, Purpose::Image | Purpose::Scratch) {
        companions::require_matching(&connection, path)?;
        let header = MainFile::of(&connection).and_then(|file| Header::of(&file.start()));
        header.map_or(Ok(()), |header| aliases::require_name_in_use(&header, path))?;
    }
    Ok(connection)
}

/// Opens like [`open`], but returns SQLite's own error, and does not check the WAL and the journal: for a database that
/// this process has open already.
pub(super) fn open_raw(path: &Path, purpose: Purpose) -> rusqlite::Result<Connection> {
    let keeps_wal = file_bytes(&companion(path, "-wal")) > 0;
    let writable = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let readable = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = match purpose {
        // A reader of a WAL database must be able to write its -shm, and a reader that finds a hot journal must roll it
        // back.
        Purpose::Source => {
            Connection::open_with_flags(path, writable).or_else(|_| Connection::open_with_flags(path, readable))
        }
        Purpose::Inspect => Connection::open_with_flags(path, readable),
        Purpose::Image => Connection::open_with_flags(immutable(path), readable | OpenFlags::SQLITE_OPEN_URI),
        Purpose::Scratch | Purpose::Target => Connection::open_with_flags(path, writable),
    }?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.progress_handler(STEPS_PER_CHECK, Some(|| crate::platform::interrupt::check().is_err()))?;
    let set = |config, value| connection.set_db_config(config, value).map(drop);
    set(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    set(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    set(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Otherwise SQLite would read the quoted name of a column that does not exist as a string: a digest would be of a
    // constant, and a rule on a misspelt column could be true.
    set(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    set(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    if purpose == Purpose::Source && keeps_wal {
        // The last connection to close must not checkpoint the WAL into the file: a snapshot changes nothing. If there
        // was no WAL, it may, so that the empty WAL that opening the database created is removed again. (If another
        // program writes and closes meanwhile, its changes are checkpointed, as they would have been when it closed.)
        set(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    if matches!(purpose, Purpose::Source | Purpose::Inspect | Purpose::Image) {
        set(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.pragma_update(None, "query_only", true)?;
        stand_ins::add_collations(&connection);
    }
    Ok(connection)
}

/// Runs work that executes statements out of a schema. Schemas of old programs have strings in double quotes.
pub(super) fn with_old_strings<T>(connection: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let set = |value| {
        let set = |config| connection.set_db_config(config, value).map(drop);
        set(DbConfig::SQLITE_DBCONFIG_DQS_DML)
            .and_then(|()| set(DbConfig::SQLITE_DBCONFIG_DQS_DDL))
            .map_err(|error| explain(error, "cannot configure the connection"))
    };
    set(true)?;
    let done = work();
    set(false).and(done)
}

/// Returns the URI of a file that does not change while it is open: no locks, no WAL, no journal.
fn immutable(path: &Path) -> String {
    format!("file:{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC))
}

/// Turns SQLite's error into an error of this program with the text `message`.
pub(super) fn explain(error: rusqlite::Error, message: &str) -> Error {
    let code = error.sqlite_error_code();
    let extended = error.sqlite_error().map_or(0, |inner| inner.extended_code);
    let text = sqlite_message(&error);
    let (kind, hint) = match code {
        Some(ErrorCode::DatabaseCorrupt) if text.starts_with("malformed database schema") => (
            Kind::Problem,
            Some(
                "the schema is damaged, or was written by a newer SQLite than this one ('lifeboat --version'): \
                 'lifeboat snapshot --allow-damaged' saves the bytes of the file, and 'lifeboat list' shows the \
                 snapshots that can be restored",
            ),
        ),
        Some(ErrorCode::DatabaseCorrupt) => {
            let hint = "the database is damaged: 'lifeboat list' shows the snapshots that can be restored, and 'lifeboat \
                        snapshot --allow-damaged' saves its bytes";
            (Kind::Problem, Some(hint))
        }
        Some(ErrorCode::NotADatabase) => (
            Kind::Usage,
            Some(
                "it is not an SQLite database, or it is encrypted; if it was an unencrypted SQLite database before, \
                 its header is damaged, and --allow-damaged saves its bytes",
            ),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Kind::Unreachable, Some("another program holds a lock on it: try again, or stop that program"))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (
            Kind::Unreachable,
            Some("reading a WAL database needs write access to its folder and to its -wal and -shm files"),
        ),
        Some(ErrorCode::ReadOnly) if extended != ffi::SQLITE_READONLY => (
            Kind::Unreachable,
            Some("the database needs recovery, or its -shm file cannot be written: run as a user who can write to it"),
        ),
        Some(ErrorCode::ReadOnly) => (Kind::Failed, Some("the file cannot be written: check its permissions")),
        Some(ErrorCode::DiskFull) => (Kind::Failed, Some("the disk is full: free some space, or use another disk")),
        Some(ErrorCode::SystemIoFailure) => {
            (Kind::Failed, Some("the disk may be full or failing: free some space, and check the system log"))
        }
        Some(ErrorCode::OperationInterrupted) => (Kind::Interrupted, None),
        _ => (Kind::Failed, None),
    };
    // SQLite's message once; the library repeats it with the code.
    let wrapped = Error::new(kind, message).because(text);
    match hint {
        Some(hint) => wrapped.hint(hint),
        None => wrapped,
    }
}

/// Returns SQLite's own message, without the SQL statement.
pub(super) fn sqlite_message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// Returns true if SQLite found that the file's content is damaged, not that something else failed.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Returns true if another connection holds a lock that prevents the operation.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Returns true if the failure comes from the circumstances (a lock, an interrupt, the disk), not from the table.
pub(super) fn is_circumstance(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OperationInterrupted
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::DiskFull
                | ErrorCode::CannotOpen
        )
    )
}
