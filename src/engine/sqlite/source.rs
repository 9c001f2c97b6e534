//! Takes a snapshot: one state of a database, as an image and as counted, hashed and checked rows.
//!
//! In WAL mode, the image, the survey and the checks are read through three connections that share one state of the
//! database (`sqlite3_snapshot`), and writers are not blocked. In a rollback-journal mode, a reader blocks writers:
//! there the image is copied to the scratch folder at disk speed, the lock is released, and everything else reads the
//! copy.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, InterruptHandle, ffi};

use super::connection::{self, Purpose, explain, is_busy};
use super::files::{FileState, companion, file_bytes};
use super::header::{Header, MAGIC};
use super::health;
use super::lock_wait::{self, BUSY_WAIT, wait_for_locks};
use super::main_file::MainFile;
use super::outside_writes::{self, OutsideWrites};
use super::reading::Reading;
use super::survey::{self, OnDamage, Survey};
use crate::platform::disk::{create_file, shown};
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::place;
use crate::platform::scratch::{Scratch, ScratchFolder};
use crate::snapshots::manifest::{Depth, Health, SqliteFacts};

/// The options of a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SourceOptions {
    /// The folder to which a rollback-journal database is copied.
    pub scratch: Scratch,
    /// The maximum time that writers may be locked out (rollback-journal mode only).
    pub max_lock: Duration,
    /// The handling of damage: it fails the snapshot, or is noted.
    pub on_damage: OnDamage,
    /// The depth of SQLite's own check.
    pub check: Depth,
}

/// One state of a database, held until it has been read.
pub(crate) struct SourceSnapshot {
    path: PathBuf,
    /// `None` if a copy is read, or if no locks can be taken.
    outside_writes: Option<OutsideWrites>,
    /// Dropped before the spool that it reads.
    image: Connection,
    readers: Option<Readers>,
    _spool: Option<ScratchFolder>,
    /// Dropped after all connections.
    reading: Reading,
    started: DateTime<Utc>,
    facts: SqliteFacts,
    wal_bytes: u64,
}

/// The content of a snapshot.
#[derive(Debug)]
pub(crate) struct SourceReport {
    /// Tables and rows.
    pub survey: Survey,
    /// The facts for the manifest; `image` is still empty.
    pub facts: SqliteFacts,
    /// The findings of SQLite's check and of the reading of the tables that mean damage.
    pub damage: Vec<String>,
}

/// The threads that read in parallel with the image.
struct Readers {
    survey: JoinHandle<Result<Survey>>,
    health: JoinHandle<Result<Health>>,
    interrupts: Vec<InterruptHandle>,
    failed: Arc<AtomicBool>,
}

/// The number of pages between two checks for a signal, the WAL and the other readers.
const PAGES_PER_CHECK: u64 = 256;

/// The number of times that a snapshot is begun if other programs replace the file or write to it without locks, and the
/// time after the first one; it doubles each time.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// The disturbance of a file that is written to while it is opened.
const WRITTEN_TO: &str = "its file is being written to by a program that does not use SQLite";

/// The growth of a WAL from which a warning is printed.
const WAL_GROWTH_WARNING_BYTES: u64 = 256 << 20;

/// Finds the file of a source, and returns its absolute path with links resolved. It must be a regular file.
pub(crate) fn locate(path: &Path) -> Result<PathBuf> {
    let shown = || one_line(&path.display().to_string());
    let real = place::resolve(path).map_err(|error| {
        if place::is_refused(&error) {
            return error.into();
        }
        Error::unreachable(format!("cannot find the database {}", shown()))
            .hint("check the path; in a container, check that its volume is mounted")
            .because(error)
    })?;
    let facts = fs::metadata(&real).io(Kind::Unreachable, || format!("cannot access {}", shown()))?;
    if facts.is_dir() {
        return Err(
            Error::usage(format!("{} is a folder, not a database file", shown())).hint("name the database file in it")
        );
    }
    if !facts.is_file() {
        return Err(Error::usage(format!("{} is not a regular file", shown())));
    }
    Ok(real)
}

/// Checks that a file (see [`locate`]) is a readable database. Returns the number of its tables without SQLite's own.
///
/// A file with a database's first bytes that cannot be read as a database is damaged; any other is a usage error. One
/// that somebody is writing to without SQLite is read again; [`Kind::Unreachable`] if that does not end.
pub(super) fn probe(path: &Path, reading: &Reading) -> Result<u64> {
    let mut pause = PAUSE;
    for _ in 0..ATTEMPTS {
        let before = FileState::at(path);
        let probed = probe_once(path, reading);
        let is_readable = match &probed {
            Ok(tables) => *tables > 0 || file_bytes(path) > 0,
            Err(error) => !matches!(error.kind, Kind::Problem | Kind::Usage),
        };
        if is_readable || !outside_writes::is_being_written(path, before)? {
            return probed;
        }
        crate::platform::interrupt::sleep(pause)?;
        pause *= 2;
    }
    Err(disturbed(path, WRITTEN_TO))
}

fn probe_once(path: &Path, reading: &Reading) -> Result<u64> {
    let shown = one_line(&path.display().to_string());
    let connection = reading.open()?;
    let sql = "SELECT count(*) FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_'";
    let tables: rusqlite::Result<i64> = connection.query_row(sql, [], |row| row.get(0));
    tables.map(i64::unsigned_abs).map_err(|error| {
        let not_a_database = error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase);
        // Others in this process may have the file open; see the module's rule.
        let has_magic = MainFile::of(&connection).is_some_and(|file| file.start().starts_with(MAGIC));
        let explained = explain(error, &format!("cannot read {shown}"));
        if has_magic && not_a_database {
            let hint = "restore an older snapshot, or save its bytes with --allow-damaged";
            return Error::problem(format!("{shown} is damaged: its header is invalid")).hint(hint);
        }
        explained
    })
}

impl SourceSnapshot {
    /// Starts a read transaction on the database at `path` (see [`locate`]), and starts the survey and the checks.
    ///
    /// Fails with [`Kind::Unreachable`] if others replace the file, or write to it without locks, again and again.
    pub(crate) fn begin(path: &Path, options: &SourceOptions) -> Result<Self> {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match SourceSnapshot::try_begin(path, options)? {
                Ok(begun) => return Ok(begun),
                Err(Disturbance(change)) => tracing::info!("{}: {change}: reading it again", shown(path)),
            }
            crate::platform::interrupt::sleep(pause)?;
            pause *= 2;
        }
        SourceSnapshot::try_begin(path, options)?.map_err(|Disturbance(change)| disturbed(path, &change))
    }

    fn try_begin(path: &Path, options: &SourceOptions) -> Result<std::result::Result<Self, Disturbance>> {
        let wal_bytes = file_bytes(&companion(path, "-wal"));
        let before = FileState::at(path);
        let opened = Reading::begin(path, &options.scratch)
            .and_then(|reading| Ok(open_shared(path, &reading)?.map(|held| (held, reading))));
        let (held, reading) = match opened {
            // The copying of a file over it begins by cutting it to 0 bytes.
            Ok(Ok((held, _))) if has_no_page(&held.image) && outside_writes::is_being_written(path, before)? => {
                return Ok(Err(Disturbance(WRITTEN_TO.to_owned())));
            }
            Ok(Ok(held)) => held,
            Ok(Err(disturbance)) => return Ok(Err(disturbance)),
            Err(error) if error.kind == Kind::Problem && outside_writes::is_being_written(path, before)? => {
                return Ok(Err(Disturbance(WRITTEN_TO.to_owned())));
            }
            Err(error) => return Err(error),
        };
        let HeldState { outside_writes, image, siblings, journal_mode, since } = held;
        let started = Utc::now();
        let mut facts = read_facts(&image, path, journal_mode)?;
        let (outside_writes, image, siblings, spool) = match siblings {
            Some(siblings) => (outside_writes, image, siblings, None),
            None => {
                let spooled = spool(&image, &facts, options, since);
                let spooled = match spooled {
                    Err(error) if error.kind != Kind::Problem => return Err(error),
                    spooled => spooled,
                };
                // Also if the pages could not be read: then this is the cause, not damage.
                if let Some(change) = outside_writes.as_ref().and_then(|watch| watch.found(&image)) {
                    return Ok(Err(Disturbance(change)));
                }
                let folder = spooled?;
                image.execute_batch("COMMIT").map_err(|error| explain(error, "cannot end the read transaction"))?;
                drop(image);
                facts.locked_seconds = since.elapsed().as_secs_f64();
                let open = || connection::open(&folder.path(SPOOL), Purpose::Image);
                (None, open()?, [open()?, open()?], Some(folder))
            }
        };
        let readers = Some(Readers::start(siblings, options)?);
        let path = path.to_owned();
        Ok(Ok(SourceSnapshot {
            path,
            outside_writes,
            image,
            readers,
            _spool: spool,
            reading,
            started,
            facts,
            wal_bytes,
        }))
    }

    /// Returns the time at which this state was current.
    #[must_use]
    pub(crate) fn started(&self) -> DateTime<Utc> {
        self.started
    }

    /// Returns the length of the image.
    #[must_use]
    pub(crate) fn image_bytes(&self) -> u64 {
        self.facts.page_bytes * self.facts.pages
    }

    /// Passes the image to `sink`, in order; fails as soon as the survey or a check fails.
    pub(crate) fn stream_image(&mut self, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut pages = 0u64;
        let mut warn_at = WAL_GROWTH_WARNING_BYTES;
        let failed = self.readers.as_ref().map(|readers| Arc::clone(&readers.failed));
        let read = read_image(&self.image, &self.facts, &mut |page| {
            if pages.is_multiple_of(PAGES_PER_CHECK) {
                crate::platform::interrupt::check()?;
                if failed.as_ref().is_some_and(|failed| failed.load(Ordering::Relaxed)) {
                    return Err(Error::failed("the survey has failed"));
                }
                if self._spool.is_none() && pages.is_multiple_of(64 * PAGES_PER_CHECK) {
                    let growth = self.wal_growth_bytes();
                    if growth >= warn_at {
                        tracing::warn!(
                            "the WAL of {} has grown by {} MiB, and cannot be reset until this snapshot ends",
                            self.path.display(),
                            growth >> 20
                        );
                        warn_at = growth.saturating_mul(2);
                    }
                }
            }
            pages += 1;
            sink(page)
        });
        let read = if failed.is_some_and(|failed| failed.load(Ordering::Relaxed)) {
            // The readers return the reason.
            self.readers.take().map_or(Ok(()), |readers| readers.join().map(drop)).and(read)
        } else {
            read
        };
        read.map_err(|error| self.cause_of(error))
    }

    /// Returns the error that other programs caused by what they did to the file, if they did; otherwise `error`.
    fn cause_of(&self, error: Error) -> Error {
        let is_consequence = !matches!(error.kind, Kind::Interrupted);
        let change = self.outside_writes.as_ref().filter(|_| is_consequence).and_then(|watch| watch.found(&self.image));
        change.map_or(error, |change| disturbed(&self.path, &change))
    }

    /// Fails if other programs wrote to the file in another way than SQLite does.
    fn require_undisturbed(&self) -> Result<()> {
        let Some(watch) = &self.outside_writes else { return Ok(()) };
        if let Some(change) = watch.found(&self.image) {
            return Err(disturbed(&self.path, &change));
        }
        if watch.has_moved(&self.image) {
            let (shown, started) = (shown(&self.path), self.started.to_rfc3339());
            tracing::warn!("another file is at {shown} by now: the snapshot is of the one that was there at {started}");
        }
        Ok(())
    }

    /// Waits for the survey and the checks, and releases the state.
    pub(crate) fn finish(mut self) -> Result<SourceReport> {
        let readers = self.readers.take().ok_or_else(|| Error::failed("the survey has already failed"))?;
        let (survey, health) = readers.join().map_err(|error| self.cause_of(error))?;
        self.require_undisturbed()?;
        self.reading.require_unchanged()?;
        self.facts.wal_growth_bytes = if self.facts.journal_mode == "wal" { self.wal_growth_bytes() } else { 0 };
        self.facts.schema_digest = survey.schema_digest;
        self.facts.views.clone_from(&survey.views);
        let mut damage: Vec<String> = health::damage(&health).into_iter().map(str::to_owned).collect();
        damage.extend(survey.tables.iter().filter_map(|table| {
            let reason = table.reason.as_ref().filter(|reason| reason.contains("malformed"))?;
            Some(format!("{}: {reason}", one_line(&table.name)))
        }));
        self.facts.health = Some(health);
        Ok(SourceReport { survey, facts: self.facts.clone(), damage })
    }

    /// Returns the growth of the WAL that this snapshot keeps from being reset.
    fn wal_growth_bytes(&self) -> u64 {
        match self.reading.purpose() {
            Purpose::Source => file_bytes(&companion(&self.path, "-wal")).saturating_sub(self.wal_bytes),
            _ => 0,
        }
    }
}

impl Drop for SourceSnapshot {
    fn drop(&mut self) {
        if let Some(readers) = self.readers.take() {
            readers.interrupts.iter().for_each(InterruptHandle::interrupt);
            let _ = readers.join();
        }
    }
}

impl Readers {
    fn start(siblings: [Connection; 2], options: &SourceOptions) -> Result<Self> {
        let SourceOptions { on_damage, check, .. } = *options;
        let failed = Arc::new(AtomicBool::new(false));
        let interrupts = siblings.iter().map(Connection::get_interrupt_handle).collect();
        let [for_survey, for_health] = siblings;
        let (survey_failed, health_failed) = (Arc::clone(&failed), Arc::clone(&failed));
        let spawn_failed = |error| Error::failed("cannot start a thread").because(error);
        let note = |flag: &AtomicBool, failed: bool| flag.fetch_or(failed, Ordering::Relaxed);
        let survey = thread::Builder::new().name("survey".to_owned()).spawn(move || {
            let result = survey::survey(&for_survey, on_damage);
            note(&survey_failed, result.is_err());
            result
        });
        let health = thread::Builder::new().name("health".to_owned()).spawn(move || {
            let result = health::examine(&for_health, check);
            // Damage that fails the snapshot anyway is reported without waiting for the image.
            let fatal = |health: &Health| on_damage == OnDamage::Fail && !health::damage(health).is_empty();
            let result = result.and_then(|health| if fatal(&health) { Err(damaged(&health)) } else { Ok(health) });
            note(&health_failed, result.is_err());
            result
        });
        Ok(Readers { survey: survey.map_err(spawn_failed)?, health: health.map_err(spawn_failed)?, interrupts, failed })
    }

    fn join(self) -> Result<(Survey, Health)> {
        if self.failed.load(Ordering::Relaxed) {
            self.interrupts.iter().for_each(InterruptHandle::interrupt);
        }
        let panicked = || Error::failed("a thread has panicked");
        let survey = self.survey.join().unwrap_or_else(|_| Err(panicked()));
        let health = self.health.join().unwrap_or_else(|_| Err(panicked()));
        match (survey, health) {
            (Ok(survey), Ok(health)) => Ok((survey, health)),
            // A reader that was only interrupted is not the cause.
            (Err(survey), Err(health)) if survey.kind == Kind::Interrupted => Err(health),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}

fn damaged(health: &Health) -> Error {
    let faults = health::damage(health);
    let first = faults.first().copied().unwrap_or_default();
    Error::problem(format!(
        "the database is damaged: {first}{}",
        if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() }
    ))
    .hint("restore an older snapshot, or save the damaged database with --allow-damaged")
}

/// A change of a file by other programs, without SQLite's locks, because of which it must be read again.
struct Disturbance(String);

fn disturbed(path: &Path, change: &str) -> Error {
    Error::unreachable(format!("cannot read one state of {}: {change}", shown(path)))
        .hint("a program replaces the file or writes to it without SQLite: let it finish, then take the snapshot again")
}

/// A state of a database, held by read transactions.
struct HeldState {
    /// The watch over changes that locks do not prevent, if locks could be taken.
    outside_writes: Option<OutsideWrites>,
    image: Connection,
    /// Two more connections on exactly the same state; `None` in a rollback-journal mode.
    siblings: Option<[Connection; 2]>,
    /// `wal` or `delete`.
    journal_mode: &'static str,
    /// The time from which writers may have been waiting.
    since: Instant,
}

/// Opens a read transaction; for a WAL database, also two more on exactly the same state. All are of one file, which was
/// at `path` when the transaction had begun.
fn open_shared(path: &Path, reading: &Reading) -> Result<std::result::Result<HeldState, Disturbance>> {
    let replaced = || Ok(Err(Disturbance("another file was put in its place".to_owned())));
    let shown = one_line(&path.display().to_string());
    let cannot = |error| explain(error, &format!("cannot read {shown}"));
    if reading.is_unlocked() {
        tracing::info!("{shown} cannot be locked here: it is read without locks, and compared afterwards");
    }
    let opened = reading.opened_path();
    let image = reading.open()?;
    let deadline = Instant::now() + BUSY_WAIT;
    let mut pause = Duration::from_micros(100);
    loop {
        crate::platform::interrupt::check()?;
        // Does not wait inside SQLite: the other connection may be waiting for a lock that is held here.
        let since = Instant::now();
        match try_hold(&image, reading) {
            Ok(Some(held)) => {
                held.siblings.iter().flatten().chain([&image]).for_each(|it| wait_for_locks(it, path));
                let Attempt { siblings, journal_mode } = held;
                let identity_of =
                    |connection: &Connection| MainFile::of(connection).and_then(|file| file.identity(&opened));
                let identity = identity_of(&image);
                let is_same = |sibling: &Connection| identity_of(sibling) == identity;
                let Some(identity) = identity.filter(|_| siblings.iter().flatten().all(is_same)) else {
                    return replaced();
                };
                let watch = || OutsideWrites::watch(&image, path, identity, journal_mode == "wal");
                let outside_writes = if reading.purpose() == Purpose::Source { Some(watch()?) } else { None };
                return Ok(Ok(HeldState { outside_writes, image, siblings, journal_mode, since }));
            }
            Err(error) if !is_busy(&error) => return Err(cannot(error)),
            Err(error) if Instant::now() > deadline => return Err(cannot(error)),
            Ok(None) if Instant::now() > deadline => {
                let message = format!("cannot get a consistent state of {shown}: it changes too fast");
                return Err(Error::unreachable(message));
            }
            _ => lock_wait::report(path, deadline - BUSY_WAIT),
        }
        if MainFile::of(&image).is_some_and(|file| file.has_moved()) {
            return replaced();
        }
        if !image.is_autocommit() {
            image.execute_batch("ROLLBACK").map_err(cannot)?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// The result of one successful attempt to hold a state.
struct Attempt {
    siblings: Option<[Connection; 2]>,
    journal_mode: &'static str,
}

/// Tries to hold one state. Returns `None` if the siblings would see another state, and a busy error if another
/// connection holds a lock.
fn try_hold(image: &Connection, reading: &Reading) -> rusqlite::Result<Option<Attempt>> {
    image.busy_timeout(Duration::ZERO)?;
    begin(image)?;
    let mode: String = image.query_row("PRAGMA main.journal_mode", [], |row| row.get(0))?;
    let mut journal_mode = if mode == "wal" { "wal" } else { "delete" };
    if reading.purpose() == Purpose::Source && journal_mode == "delete" {
        return Ok(Some(Attempt { siblings: None, journal_mode }));
    }
    // SQLite ignores the mode of a file that it reads without locks.
    if let (Purpose::Image, Some(main)) = (reading.purpose(), MainFile::of(image)) {
        journal_mode = Header::of(&main.start()).map_or(journal_mode, |header| header.journal_mode());
    }
    let open = || -> rusqlite::Result<Connection> {
        let sibling = connection::open_raw(&reading.opened_path(), reading.purpose())?;
        sibling.busy_timeout(Duration::ZERO)?;
        Ok(sibling)
    };
    let siblings: [Connection; 2] = [open()?, open()?];
    let shared = share_state(image, &siblings[0])? && share_state(image, &siblings[1])?;
    Ok(shared.then_some(Attempt { siblings: Some(siblings), journal_mode }))
}

fn begin(connection: &Connection) -> rusqlite::Result<()> {
    // The lock is taken by the first SELECT, not by BEGIN.
    connection.execute_batch("BEGIN; SELECT count(*) FROM main.sqlite_schema;")
}

/// Opens a read transaction on `sibling` that sees exactly the state that `first` sees. Returns false if that state no
/// longer exists.
fn share_state(first: &Connection, sibling: &Connection) -> rusqlite::Result<bool> {
    // The WAL must have been opened once before a state can be chosen.
    sibling.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))?;
    match WalState::of(first) {
        Some(state) => {
            sibling.execute_batch("BEGIN")?;
            // SAFETY: both handles are open, `state` is a snapshot that SQLite made, "main" is a C string.
            let code = unsafe { ffi::sqlite3_snapshot_open(sibling.handle(), c"main".as_ptr(), state.0) };
            match code {
                ffi::SQLITE_OK => Ok(true),
                // The state no longer exists, or a checkpoint is running: another attempt may succeed.
                ffi::SQLITE_ERROR | ffi::SQLITE_ERROR_SNAPSHOT => Ok(false),
                code => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)),
            }
        }
        None => {
            // No frame was ever written to this WAL, so `first` reads only the database file, and prevents checkpoints
            // from changing it. If the sibling also finds the WAL empty, both see the same file.
            begin(sibling)?;
            Ok(WalState::of(sibling).is_none())
        }
    }
}

/// A state of a WAL database, as SQLite's `sqlite3_snapshot`.
struct WalState(*mut ffi::sqlite3_snapshot);

impl WalState {
    /// Returns the state that a read transaction sees. Returns `None` if no frame was ever written to the WAL, or if
    /// there is no WAL.
    fn of(connection: &Connection) -> Option<Self> {
        let mut state = std::ptr::null_mut();
        // SAFETY: the handle is open and in a read transaction, "main" is a C string, `state` can hold a pointer.
        let code = unsafe { ffi::sqlite3_snapshot_get(connection.handle(), c"main".as_ptr(), &raw mut state) };
        (code == ffi::SQLITE_OK && !state.is_null()).then_some(WalState(state))
    }
}

impl Drop for WalState {
    fn drop(&mut self) {
        // SAFETY: made by sqlite3_snapshot_get and freed once.
        unsafe { ffi::sqlite3_snapshot_free(self.0) }
    }
}

fn has_no_page(connection: &Connection) -> bool {
    connection.query_row("PRAGMA main.page_count", [], |row| row.get(0)).is_ok_and(|pages: i64| pages == 0)
}

pub(super) fn read_facts(connection: &Connection, path: &Path, journal_mode: &str) -> Result<SqliteFacts> {
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get::<_, i64>(0));
    let facts = || {
        Ok(SqliteFacts {
            image: String::new(),
            journal_mode: journal_mode.to_owned(),
            page_bytes: number("page_size")?.unsigned_abs(),
            pages: number("page_count")?.unsigned_abs(),
            encoding: connection.query_row("PRAGMA main.encoding", [], |row| row.get(0))?,
            user_version: number("user_version")?,
            application_id: number("application_id")?,
            schema_digest: None,
            views: Vec::new(),
            file_mode: file_mode(path),
            file_owner: None,
            file_birth: None,
            file_attributes: BTreeMap::new(),
            locked_seconds: 0.0,
            wal_growth_bytes: 0,
            health: None,
        })
    };
    facts().map_err(|error| explain(error, &format!("cannot read {}", one_line(&path.display().to_string()))))
}

/// Returns the permissions of a file.
fn file_mode(path: &Path) -> u32 {
    // stat, not open: closing a descriptor here would drop the locks.
    fs::metadata(path).map_or(0o600, |facts| facts.mode() & 0o777)
}

/// Passes every page of the image to `sink`, in order; fails unless the number of pages is exactly as expected.
fn read_image(connection: &Connection, facts: &SqliteFacts, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let cannot = |error| explain(error, "cannot read the database's pages");
    let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage('main')").map_err(cannot)?;
    let mut rows = statement.query([]).map_err(cannot)?;
    let mut pages = 0;
    while let Some(row) = rows.next().map_err(cannot)? {
        match row.get_ref(0).map_err(cannot)? {
            ValueRef::Blob(page) if page.len() as u64 == facts.page_bytes && pages < facts.pages => sink(page)?,
            _ => return Err(Error::problem(format!("page {} of the database cannot be read", pages + 1))),
        }
        pages += 1;
    }
    if pages != facts.pages {
        return Err(Error::problem(format!("the database has {pages} pages, but its header says {}", facts.pages)));
    }
    Ok(())
}

/// The name of the copied image in its scratch folder.
const SPOOL: &str = "spool.db";

/// Copies the image to the scratch folder.
fn spool(source: &Connection, facts: &SqliteFacts, options: &SourceOptions, locked: Instant) -> Result<ScratchFolder> {
    let bytes = facts.page_bytes * facts.pages;
    let folder = options.scratch.folder(bytes)?;
    let path = folder.path(SPOOL);
    let cannot_write = || format!("cannot write {}", path.display());
    let mut file = std::io::BufWriter::with_capacity(1 << 20, create_file(&path)?);
    let mut pages = 0u64;
    read_image(source, facts, &mut |page| {
        if pages.is_multiple_of(PAGES_PER_CHECK) {
            crate::platform::interrupt::check()?;
            if locked.elapsed() > options.max_lock {
                let share = 100 * pages / facts.pages.max(1);
                return Err(Error::failed(format!(
                    "writers would be locked out for more than {} s: only {share}% was read in that time",
                    options.max_lock.as_secs()
                ))
                .hint(
                    "allow more time with --max-lock, or switch the database to WAL mode, where readers do not block \
                     writers",
                ));
            }
        }
        pages += 1;
        file.write_all(page).io(Kind::Failed, cannot_write)
    })?;
    file.into_inner().map_err(|error| Error::failed(cannot_write()).because(error.into_error()))?;
    Ok(folder)
}
