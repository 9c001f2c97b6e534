//! Connections with the settings that this program needs, and the translation of SQLite's errors.

use std::cell::Cell;
use std::ffi::c_int;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::aliases;
use super::companions;
use super::files::{companion, file_bytes};
use super::header::Header;
use super::lock_wait::wait_for_locks;
use super::main_file::MainFile;
use super::stand_ins;
use super::system_calls;
use crate::platform::disk::shown;
use crate::platform::error::{Error, IoContext, Kind, Reason, Result};
use crate::platform::place::Place;

/// The longest value that a connection may handle if the file is smaller: another connection may add values meanwhile.
const MIN_VALUE_BYTES: u64 = 64 << 20;
/// The longest value of SQLite.
const MAX_VALUE_BYTES: u64 = 1_000_000_000;
/// The memory of SQLite, beside a few copies of the longest value.
const HEAP_BYTES: u64 = 256 << 20;
/// The number of such copies.
const COPIES: u64 = 4;

/// The number of virtual machine instructions between two checks for a reason to stop.
pub(super) const STEPS_PER_CHECK: i32 = 100_000;

thread_local! {
    /// The number of instructions that the statement of this thread may still run; see [`within`].
    static STEPS_LEFT: Cell<i64> = const { Cell::new(i64::MAX) };
}

/// Returns true if the statement that runs on this thread must stop: a signal has asked for it, or it has run too long.
/// SQLite calls this after every [`STEPS_PER_CHECK`] instructions.
pub(super) fn must_stop() -> bool {
    let left = STEPS_LEFT.get().saturating_sub(i64::from(STEPS_PER_CHECK));
    STEPS_LEFT.set(left);
    left < 0 || crate::platform::interrupt::check().is_err()
}

/// Runs statements that evaluate the expressions of a schema, and stops them after `steps` instructions of SQLite's virtual
/// machine, of which it takes those that were run: whoever owns a table can write a constraint that takes hours.
pub(super) fn within<T>(steps: &Cell<i64>, work: impl FnOnce() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    STEPS_LEFT.set(steps.get());
    let done = work();
    steps.set(STEPS_LEFT.replace(i64::MAX));
    match done {
        Err(error) if steps.get() < 0 && error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            let message = "the expressions of its schema take too long to evaluate".to_owned();
            Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), Some(message)))
        }
        done => done,
    }
}

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
    /// Reads a database that others may be using, as [`super::reading`] has decided: its journal is not hot. If it
    /// becomes hot meanwhile, it is not rolled back.
    Source,
    /// Tests how a database can be read. A hot journal is an error. In WAL mode, the connection must not read anything:
    /// it would leave files behind.
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
/// with [`Kind::Usage`] if its WAL may be beside another name of the file, or if another user may have planted one of its
/// files for root.
pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Connection> {
    require_own_files(path)?;
    let connection =
        open_raw(path, purpose).map_err(|error| explain(error, &format!("cannot open {}", shown(path))))?;
    if !matches!(purpose, Purpose::Image | Purpose::Scratch) {
        companions::require_matching(&connection, path)?;
        let header = MainFile::of(&connection).and_then(|file| Header::of(&file.start()));
        header.map_or(Ok(()), |header| aliases::require_name_in_use(&header, path))?;
    }
    Ok(connection)
}

/// Fails if root must not open the database or a file beside it. (The system calls of SQLite have the same check, but
/// SQLite does not report its reason.)
fn require_own_files(path: &Path) -> Result<()> {
    ["", "-wal", "-shm", "-journal"].into_iter().try_for_each(|suffix| {
        let file = companion(path, suffix);
        let checked = Place::of(&file).and_then(|place| place.require_own());
        checked.io(Kind::Unreachable, || format!("cannot open {}", shown(path)))
    })
}

/// Opens like [`open`], but returns SQLite's own error, and does not check the WAL and the journal: for a database that
/// this process has open already.
pub(super) fn open_raw(path: &Path, purpose: Purpose) -> rusqlite::Result<Connection> {
    system_calls::install();
    let keeps_wal = companion(path, "-wal").exists();
    // The links of the path are resolved: one that is there now was put there meanwhile.
    let always = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let (writable, readable) = (OpenFlags::SQLITE_OPEN_READ_WRITE | always, OpenFlags::SQLITE_OPEN_READ_ONLY | always);
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
    wait_for_locks(&connection, path);
    connection.progress_handler(STEPS_PER_CHECK, Some(must_stop))?;
    let set = |config, value| connection.set_db_config(config, value).map(drop);
    set(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
    set(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    set(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Otherwise SQLite would read the quoted name of a column that does not exist as a string: a digest would be of a
    // constant, and a rule on a misspelt column could be true.
    set(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
    set(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
    if purpose == Purpose::Source && keeps_wal {
        // The last connection to close must not checkpoint the WAL into the file: a reader changes nothing. If there
        // was no WAL, it may, so that the empty WAL that opening the database created is removed again. (If another
        // program writes and closes meanwhile, its changes are checkpointed, as they would have been when it closed.)
        set(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    }
    if purpose == Purpose::Source
        && !keeps_wal
        && let Some(file) =
            MainFile::of(&connection).filter(|file| !Header::of(&file.start()).is_some_and(|it| it.is_wal))
    {
        file.refuse_exclusive_lock();
    }
    if matches!(purpose, Purpose::Source | Purpose::Inspect | Purpose::Image) {
        limit_values(&connection, &[path]);
        set(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.pragma_update(None, "query_only", true)?;
        stand_ins::add_collations(&connection);
    }
    Ok(connection)
}

/// The limit of SQLite's memory: one for all connections of the process, that of the largest file.
static HEAP_LIMIT: Mutex<i64> = Mutex::new(0);

/// Limits the values that the expressions of a schema can build, and SQLite's memory. A stored value is never longer than
/// its file and the WAL, but a CHECK constraint or an index can compute one of a gigabyte from nothing. `paths` are the
/// files that the connection reads.
pub(super) fn limit_values(connection: &Connection, paths: &[&Path]) {
    let bytes = |path: &&Path| file_bytes(path).saturating_add(file_bytes(&companion(path, "-wal")));
    let longest = paths.iter().map(bytes).max().unwrap_or(0).saturating_mul(2);
    let longest = longest.clamp(MIN_VALUE_BYTES, MAX_VALUE_BYTES);
    let heap = i64::try_from(longest * COPIES + HEAP_BYTES).unwrap_or(i64::MAX);
    let mut limit = HEAP_LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the handle is that of an open connection.
    unsafe {
        let longest = c_int::try_from(longest).unwrap_or(c_int::MAX);
        ffi::sqlite3_limit(connection.handle(), ffi::SQLITE_LIMIT_LENGTH, longest);
        if heap > *limit {
            *limit = heap;
            ffi::sqlite3_hard_heap_limit64(heap);
            // The hard limit has lowered it to the first, smallest one, above which SQLite gives caches up.
            ffi::sqlite3_soft_heap_limit64(heap);
        }
    }
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
    let mut wrapped = Error::new(kind, message).because(text);
    wrapped.reason = (code == Some(ErrorCode::NotADatabase)).then_some(Reason::NotADatabase);
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
