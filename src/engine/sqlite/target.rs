//! Puts a checked image in place: as a new file, as the new content of a live database, or in place of a damaged one.
//!
//! `kill -9` at any time leaves either the old or the new database, complete.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ffi};
use rustix::fs::OFlags;

use super::connection::{self, Purpose, explain, is_damage};
use super::files::{companion, file_bytes};
use super::holders::{self, Holder};
use super::lock_wait::wait_for_locks;
use super::main_file::MainFile;
use super::reading::Reading;
use crate::platform::attributes::{self, Owner, Wanted};
use crate::platform::disk::{create_file, folder_of, link, open_plain, remove_file, rename, shown, sync_folder};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::new_name;
use crate::platform::scratch::Scratch;
use crate::platform::shell::quote_path;

/// The state of a restore's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// There is no file.
    Absent,
    /// A database that SQLite can open.
    Database {
        /// The page size in bytes; `None` if the database has no pages yet.
        page_bytes: Option<u64>,
        /// The length without the WAL.
        bytes: u64,
        /// The text encoding.
        encoding: String,
    },
    /// A file that SQLite cannot open, with the reason.
    Damaged(String),
}

/// A file that was renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its old path.
    pub from: PathBuf,
    /// Its new path.
    pub to: PathBuf,
}

const COMPANIONS: [&str; 3] = ["-wal", "-journal", "-shm"];
const PAGES_PER_STEP: i32 = 4096;

/// Inspects the target at `path`, which must be absolute, with links resolved. Changes nothing.
pub fn inspect(path: &Path, scratch: &Scratch) -> Result<TargetState> {
    let facts = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(TargetState::Absent),
        other => other.io(Kind::Unreachable, || format!("cannot access {}", shown(path)))?,
    };
    if facts.is_dir() {
        return Err(Error::usage(format!("{} is a folder, not a database file", shown(path)))
            .hint("name a file; if this is the place of a database, move the folder away first"));
    }
    if !facts.is_file() {
        return Err(Error::usage(format!("{} is not a regular file", shown(path))).hint("name a file"));
    }
    let opened = Reading::begin(path, scratch).and_then(|reading| {
        let connection = reading.open()?;
        Ok((reading, connection))
    });
    let (_reading, connection) = match opened {
        Err(error) if error.kind == Kind::Problem => return Ok(TargetState::Damaged(error.full_message())),
        opened => opened?,
    };
    let number = |pragma: &str| connection.query_row(&format!("PRAGMA main.{pragma}"), [], |row| row.get::<_, i64>(0));
    let read_state = || {
        connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()))?;
        let page_bytes = number("page_size")?.unsigned_abs();
        let pages = number("page_count")?.unsigned_abs();
        let encoding = connection.query_row("PRAGMA main.encoding", [], |row| row.get(0))?;
        Ok(TargetState::Database { page_bytes: (pages > 0).then_some(page_bytes), bytes: page_bytes * pages, encoding })
    };
    match read_state() {
        Err(error) if is_damage(&error) => Ok(TargetState::Damaged(error.to_string())),
        other => other.map_err(|error| explain(error, &format!("cannot open {}", shown(path)))),
    }
}

/// Appends `suffix` to the name of `path`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Renames an image in the target's folder to the target's name; fails if a file with that name exists.
///
/// Companions of a deleted database are moved aside first, because SQLite would replay a stale WAL or journal into the
/// new database. Returns them.
pub fn place_new(image: &Path, target: &Path, stamp: &str) -> Result<Vec<Moved>> {
    if fs::symlink_metadata(target).is_ok() {
        return Err(already_exists(target));
    }
    // A process that still holds a WAL works on a database whose name is deleted.
    let holders = holders::of(target)?;
    if !holders.is_empty() {
        return Err(held_open(target, "was removed", &holders));
    }
    let mut moved = Vec::new();
    let placed =
        move_aside(target, &mut moved, |suffix| beside(&companion(target, suffix), &format!(".stale-{stamp}")))
            .and_then(|()| rename_new(image, target));
    if let Err(error) = placed {
        // They may belong to a database that has been created under the name meanwhile.
        undo_moves(&moved);
        return Err(error);
    }
    sync_folder(folder_of(target)).io(Kind::Failed, || format!("cannot sync the folder of {}", shown(target)))?;
    Ok(moved)
}

fn held_open(path: &Path, state: &str, holders: &[Holder]) -> Error {
    let holders: Vec<String> = holders.iter().map(Holder::shown).collect();
    Error::unreachable(format!("{} {state}, but it is still open in {}", shown(path), holders.join(", ")))
        .hint("stop the program that uses it, then restore again")
}

fn already_exists(path: &Path) -> Error {
    Error::failed(format!("{} was created by another program meanwhile, and was not changed", shown(path)))
        .hint("overwrite it with --replace")
}

/// Renames a file, unless the new name exists.
fn rename_new(from: &Path, to: &Path) -> Result<()> {
    match new_name::rename_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(already_exists(to)),
        renamed => renamed.io(Kind::Failed, || format!("cannot rename {} to {}", shown(from), shown(to))),
    }
}

/// Returns the path to which [`replace_damaged`] moves the old file.
#[must_use]
pub fn aside_path(target: &Path, stamp: &str) -> PathBuf {
    beside(target, &format!(".damaged-{stamp}"))
}

/// Returns the shell command that removes a restored database and files that a program may have created beside it
/// since, and puts the files back that were moved aside.
#[must_use]
pub fn undo_new(target: &Path, moved: &[Moved]) -> String {
    let files: Vec<String> =
        ["", "-wal", "-shm", "-journal"].map(|suffix| quote_path(&companion(target, suffix))).into();
    let mut command = format!("rm -f {}", files.join(" "));
    for Moved { from, to } in moved {
        command.push_str(&format!(" && mv -f {} {}", quote_path(to), quote_path(from)));
    }
    command
}

/// The way in which a damaged database was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The image was renamed to the name of the old file.
    Renamed,
    /// The image was copied into the old file, which is a mount and cannot be renamed.
    Overwritten,
}

/// Returns the shell command that puts a damaged database back in its place.
#[must_use]
pub fn undo_damaged(target: &Path, aside: &Path, replaced: Replaced) -> String {
    let mut command = match replaced {
        Replaced::Renamed => {
            let main = Moved { from: target.to_owned(), to: aside.to_owned() };
            undo_new(target, &[main])
        }
        Replaced::Overwritten => {
            let companions: Vec<String> =
                COMPANIONS.iter().map(|suffix| quote_path(&companion(target, suffix))).collect();
            let (companions, aside, target) = (companions.join(" "), quote_path(aside), quote_path(target));
            format!("rm -f {companions} && cp {aside} {target} && rm -f {aside}")
        }
    };
    for suffix in COMPANIONS {
        if companion(aside, suffix).exists() {
            command.push_str(&format!(
                " && mv -f {} {}",
                quote_path(&companion(aside, suffix)),
                quote_path(&companion(target, suffix))
            ));
        }
    }
    command
}

/// Replaces a database that SQLite cannot open with an image. The old file and its companions are moved aside together
/// (see [`aside_path`]). Refused while any process holds the old file.
///
/// A file that is a mount of its own, as in a container, cannot be replaced by a rename: it is overwritten. A kill in
/// between leaves a file that no program can open as a database, and the old one aside.
pub fn replace_damaged(image: &Path, target: &Path, stamp: &str) -> Result<(PathBuf, Replaced)> {
    let holders = holders::of(target)?;
    if !holders.is_empty() {
        return Err(held_open(target, "is damaged", &holders));
    }
    let aside = aside_path(target, stamp);
    // The order is: link the old file to its new name, move its companions, then rename the new file into place. So the
    // new file never meets an old WAL or journal. A kill in between leaves the old file in place, and its companions
    // aside.
    if link(target, &aside).is_err() {
        copy_aside(target, &aside)?;
    }
    let mut moved = Vec::new();
    let replaced = move_aside(target, &mut moved, |suffix| companion(&aside, suffix)).and_then(|()| {
        sync_folder(folder_of(target)).io(Kind::Failed, || format!("cannot sync the folder of {}", shown(target)))?;
        match rename(image, target) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                reserve(target, file_bytes(image)).map(|()| Replaced::Overwritten)
            }
            renamed => renamed
                .map(|()| Replaced::Renamed)
                .io(Kind::Failed, || format!("cannot rename {} to {}", shown(image), shown(target))),
        }
    });
    let replaced = match replaced {
        Ok(replaced) => replaced,
        Err(error) => {
            undo_moves(&moved);
            let _ = remove_file(&aside);
            return Err(error);
        }
    };
    if replaced == Replaced::Overwritten {
        overwrite_damaged(image, target).map_err(|error| {
            // The old bytes are aside, and stay there.
            error.hint(format!("its old bytes are in {}; restore again when the cause is gone", shown(&aside)))
        })?;
    }
    sync_folder(folder_of(target)).io(Kind::Failed, || format!("cannot sync the folder of {}", shown(target)))?;
    Ok((aside, replaced))
}

/// Copies a file that cannot get a second name to a new file, with its owner and mode.
fn copy_aside(target: &Path, aside: &Path) -> Result<()> {
    let cannot = || format!("cannot copy {} to {}", shown(target), shown(aside));
    let mut old = open_plain(target, OFlags::RDONLY).io(Kind::Failed, cannot)?;
    let facts = old.metadata().io(Kind::Failed, cannot)?;
    if !facts.is_file() {
        return Err(Error::failed(format!("{} is no longer a regular file", shown(target))));
    }
    let mut copy = create_file(aside)?;
    let (extended, _) = attributes::read_extended(target).unwrap_or_default();
    let owner = Some(Owner::of(&facts));
    let wanted = Wanted { owner, mode: facts.mode() & 0o777, extended, is_exact: true };
    let copied = io::copy(&mut old, &mut copy).and_then(|_| attributes::set(&copy, &wanted));
    if copied.is_err() {
        let _ = remove_file(aside);
    }
    copied.map(drop).io(Kind::Failed, cannot)
}

/// The first bytes of a file that is being overwritten: not the first bytes of an SQLite database, and never empty,
/// because SQLite takes an empty file for an empty database.
const UNFINISHED: &[u8] = b"lifeboat is restoring this file\n";

/// Reserves space for a file that is about to grow, if the file system supports that.
fn reserve(path: &Path, bytes: u64) -> Result<()> {
    let cannot = || format!("cannot write {}", shown(path));
    let file = open_plain(path, OFlags::WRONLY).io(Kind::Failed, cannot)?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, bytes.max(1)) {
        Err(rustix::io::Errno::NOSPC) => {
            Err(Error::failed(format!("not enough space for {bytes} bytes in {}", shown(path))).hint("free some space"))
        }
        _ => Ok(()),
    }
}

/// Copies an image into a file that cannot be renamed. The bytes that make the file a database are written last, after
/// all others are on disk.
fn overwrite_damaged(image: &Path, target: &Path) -> Result<()> {
    let cannot = || format!("cannot overwrite {}", shown(target));
    let copy = || -> io::Result<()> {
        let mut source = open_plain(image, OFlags::RDONLY)?;
        let mut file = open_plain(target, OFlags::WRONLY)?;
        file.write_all(UNFINISHED)?;
        file.sync_all()?;
        let mut start = vec![0; UNFINISHED.len()];
        source.read_exact(&mut start)?;
        io::copy(&mut source, &mut file)?;
        file.set_len(source.metadata()?.len())?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&start)?;
        file.sync_all()
    };
    copy().io(Kind::Failed, cannot)
}

/// Renames the companions of `target`; `moved` lists the renamed ones, also on failure.
fn move_aside(target: &Path, moved: &mut Vec<Moved>, aside: impl Fn(&str) -> PathBuf) -> Result<()> {
    for suffix in COMPANIONS {
        let old = companion(target, suffix);
        if fs::symlink_metadata(&old).is_ok() {
            let new = aside(suffix);
            rename_new(&old, &new)?;
            moved.push(Moved { from: old, to: new });
        }
    }
    Ok(())
}

fn undo_moves(moved: &[Moved]) {
    for Moved { from, to } in moved.iter().rev() {
        if let Err(error) = rename_new(to, from) {
            tracing::warn!("cannot rename {} back to {}: {}", shown(to), shown(from), error.full_message());
        }
    }
}

/// A live database that is about to be overwritten. It detects every change that others make after `open`.
pub struct LiveTarget {
    pub(super) connection: Connection,
    path: PathBuf,
    version: u32,
    /// Holds the write lock, so that the database stays as it was saved.
    guard: Option<Connection>,
}

impl LiveTarget {
    /// Opens the database and records its state.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = connection::open(path, Purpose::Target)?;
        let cannot = |error| explain(error, &format!("cannot open {}", shown(path)));
        connection
            .execute_batch("PRAGMA main.synchronous = EXTRA; SELECT count(*) FROM main.sqlite_schema;")
            .map_err(cannot)?;
        let version = data_version(&connection)?;
        Ok(LiveTarget { connection, path: path.to_owned(), version, guard: None })
    }

    /// Blocks other writers (not readers) until the database is overwritten or this is dropped. Changes that others
    /// made before this call are accepted.
    ///
    /// The lock must be released for a moment before the overwrite takes it again; a write in between is detected.
    pub fn keep_writers_out(&mut self) -> Result<()> {
        let cannot = |error| explain(error, &format!("cannot block writers of {}", shown(&self.path)));
        let guard = connection::open(&self.path, Purpose::Target)?;
        guard.execute_batch("BEGIN IMMEDIATE").map_err(cannot)?;
        self.connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(())).map_err(cannot)?;
        self.version = data_version(&self.connection)?;
        self.guard = Some(guard);
        Ok(())
    }

    /// Releases the write lock.
    pub(super) fn let_writers_in(&mut self) -> Result<()> {
        match self.guard.take() {
            None => Ok(()),
            Some(guard) => {
                guard.execute_batch("ROLLBACK").map_err(|error| explain(error, "cannot release the write lock"))
            }
        }
    }

    /// Fails if another connection has changed the database since its state was recorded (see [`open`](Self::open)).
    /// Call it with a lock held.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        if MainFile::of(&self.connection).is_some_and(|file| file.has_moved()) {
            let message = format!("another file was put in the place of {}; nothing was changed", shown(&self.path));
            return Err(Error::unreachable(message).hint("stop the program that replaces it, then restore again"));
        }
        if data_version(&self.connection)? == self.version {
            return Ok(());
        }
        Err(Error::failed(format!(
            "{} was written to after the safety snapshot was taken; nothing was changed",
            shown(&self.path)
        ))
        .hint("stop the program that writes to it, and restore again"))
    }

    /// Replaces the whole content in one transaction of SQLite's backup API: open connections of other processes see
    /// the old or the new content, and a crash rolls back. The page sizes must be equal if the target has pages.
    /// `prepare` is called when the target is locked, before the first page is written.
    pub(super) fn replace_with(
        &mut self,
        image: &Path,
        expect_unchanged: bool,
        prepare: &mut dyn FnMut(&Connection),
    ) -> Result<()> {
        let source = connection::open(image, Purpose::Image)?;
        if expect_unchanged && file_bytes(image) == 0 {
            // A backup without pages is done with its first step, so the check below would come too late.
            self.let_writers_in()?;
            self.connection
                .execute_batch("BEGIN IMMEDIATE")
                .map_err(|error| explain(error, "cannot lock the target"))?;
            let unchanged = self.require_unchanged();
            self.connection.execute_batch("ROLLBACK").map_err(|error| explain(error, "cannot unlock the target"))?;
            unchanged?;
        }
        // SAFETY: both handles are open and outlive the backup, the names are C strings, and neither connection is used
        // for anything else until the backup is finished.
        let backup = unsafe {
            ffi::sqlite3_backup_init(self.connection.handle(), c"main".as_ptr(), source.handle(), c"main".as_ptr())
        };
        let message = format!("cannot overwrite {}", shown(&self.path));
        if backup.is_null() {
            return Err(Error::failed(message).because(self.last_error()));
        }
        let backup = Backup(backup);
        self.let_writers_in()?;
        // Copies no page yet, but takes the lock on the target.
        let mut code = backup.step(0);
        if code == ffi::SQLITE_OK && expect_unchanged {
            self.require_unchanged()?;
        }
        if matches!(code, ffi::SQLITE_OK | ffi::SQLITE_DONE) {
            prepare(&self.connection);
        }
        while code == ffi::SQLITE_OK {
            crate::platform::interrupt::check()?;
            code = backup.step(PAGES_PER_STEP);
        }
        if code != ffi::SQLITE_DONE {
            drop(backup);
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            return Err(explain(error, &message));
        }
        drop(backup);
        if MainFile::of(&self.connection).is_some_and(|file| file.has_moved()) {
            return Err(Error::unreachable(format!("{message}: another file was put in its place meanwhile"))
                .hint("stop the program that replaces it, then restore again"));
        }
        self.version = data_version(&self.connection)?;
        // If readers keep the WAL from being truncated here, the next checkpoint of any connection can do it.
        let _ = self.connection.busy_timeout(Duration::from_secs(1));
        let _ = self.connection.query_row("PRAGMA main.wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        wait_for_locks(&self.connection, &self.path);
        Ok(())
    }

    /// Returns true if another connection has written since the state was recorded, or if the database cannot be read.
    #[must_use]
    pub fn was_written_to(&self) -> bool {
        let read = self.connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()));
        read.is_err() || !data_version(&self.connection).is_ok_and(|version| version == self.version)
    }

    fn last_error(&self) -> String {
        // SAFETY: the handle is open; the message is valid until the next call on it, and is copied at once.
        unsafe {
            std::ffi::CStr::from_ptr(ffi::sqlite3_errmsg(self.connection.handle())).to_string_lossy().into_owned()
        }
    }
}

/// A running backup; finishing one that is incomplete rolls back the target.
struct Backup(*mut ffi::sqlite3_backup);

impl Backup {
    fn step(&self, pages: i32) -> i32 {
        // SAFETY: made by sqlite3_backup_init and not finished yet.
        unsafe { ffi::sqlite3_backup_step(self.0, pages) }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        // SAFETY: as above; this is the only place that finishes it.
        unsafe { ffi::sqlite3_backup_finish(self.0) };
    }
}

/// Returns a number that changes whenever the database content that the connection sees changes.
pub(super) fn data_version(connection: &Connection) -> Result<u32> {
    let mut version: u32 = 0;
    // SAFETY: the handle is open, "main" is a C string, and this operation writes one 32-bit number.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_DATA_VERSION,
            (&raw mut version).cast(),
        )
    };
    if code == ffi::SQLITE_OK {
        Ok(version)
    } else {
        Err(Error::failed(format!("SQLite does not report a data version (code {code})")))
    }
}

/// Returns the bytes that a restore over a live database may need beside it, for the WAL or journal.
#[must_use]
pub fn replace_bytes(path: &Path, image_bytes: u64) -> u64 {
    image_bytes.max(file_bytes(path)) + image_bytes / 8
}
