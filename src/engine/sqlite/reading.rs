//! Chooses how a database is read, so that reading it changes neither the file nor its WAL nor its journal.
//!
//! A database is read in place, with SQLite's locks, if that changes nothing. Otherwise:
//!
//! - A file without a WAL and a journal that cannot be locked (on a disk mounted read-only, or in WAL mode and of a user
//!   who may only read it) is read without locks.
//! - Files that SQLite can read only after it has changed them, or created a `-shm` that it cannot create, are copied to
//!   the scratch folder, and SQLite recovers the copy. Those are files with a hot journal, which the first reader rolls
//!   back, and files with a WAL of a user who may only read them.
//!
//! Without locks, the metadata of the files must be the same before and after, which proves that nobody wrote meanwhile.
//!
//! In place, SQLite creates the index of a WAL (`-shm`), and a `-wal` for a database in WAL mode that has none. The last
//! connection to close removes the `-wal` that it has created; [`Reading`] removes the `-shm`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};
use rustix::fs::{Access, AtFlags, CWD, OFlags, StatVfsMountFlags};

use super::aliases;
use super::connection::{self, Purpose, explain, is_damage};
use super::files::{Fingerprint, companion, file_bytes};
use super::header::Header;
use super::journal::{self, Journal};
use super::main_file::MainFile;
use crate::platform::disk::{create_file, folder_of, open_plain, remove_file, shown};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::interrupt;
use crate::platform::scratch::{Scratch, ScratchFolder};

/// The number of times that files are copied if somebody writes to them meanwhile, and that a journal is tested. A
/// journal that a program is about to remove looks like a hot one for a moment.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// The number of bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// The way in which a database is read. Keep it as long as any connection that it has opened.
pub(super) struct Reading {
    path: PathBuf,
    way: Way,
}

enum Way {
    /// In place, with locks.
    Locked {
        /// True if the `-shm` does not belong to another program, and is removed at the end.
        creates_index: bool,
    },
    /// In place, without locks; the metadata are those from before.
    Frozen(Fingerprint),
    /// From a recovered copy in a scratch folder.
    Copied(ScratchFolder, CopyReason),
}

/// The reason why a database is read from a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CopyReason {
    /// Its journal is hot: a program was stopped in the middle of a write.
    HotJournal,
    /// Its WAL cannot be read in place by this user, or on this disk.
    ReadOnly,
}

/// The name of the copy in its scratch folder.
const COPY: &str = "copy.db";

impl Reading {
    /// Chooses the way to read a database; copies it if necessary. `path` must be absolute, with links resolved.
    ///
    /// Fails like [`connection::open`], and with [`Kind::Unreachable`] if others write to the files again and again
    /// while they are copied.
    pub(super) fn begin(path: &Path, scratch: &Scratch) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let reason = match Reading::in_place(path)? {
                Ok(reading) => return Ok(reading),
                Err(reason) => reason,
            };
            let why = match reason {
                CopyReason::HotJournal => "a write to it was interrupted",
                CopyReason::ReadOnly => "it cannot be read in place",
            };
            let copied = copy(path, scratch);
            let copied = copied.map_err(|error| error.context(format!("{}: {why}, and a copy is needed", shown(path))));
            if let Some(folder) = copied? {
                tracing::info!("{}: {why}: a copy of its files is read", shown(path));
                return Ok(Reading { path: path.to_owned(), way: Way::Copied(folder, reason) });
            }
            tracing::info!("{} changed while it was copied: trying again", shown(path));
        }
        Err(Error::unreachable(format!("cannot copy {}: other programs write to it without end", shown(path)))
            .hint("run as a user who can write to its folder, so that locks can be taken"))
    }

    /// Chooses the way to read a database where it is. Returns the reason if only a copy can be read.
    pub(super) fn in_place(path: &Path) -> Result<std::result::Result<Self, CopyReason>> {
        let reading = |way| Ok(Ok(Reading { path: path.to_owned(), way }));
        if is_frozen(path) {
            return reading(Way::Frozen(Fingerprint::settled(path)?));
        }
        let [has_wal, has_index] = ["-wal", "-shm"].map(|suffix| companion(path, suffix).exists());
        for attempt in 0..ATTEMPTS {
            match copy_reason(path)? {
                None => break,
                Some(CopyReason::HotJournal) if attempt + 1 < ATTEMPTS => interrupt::sleep(PAUSE)?,
                Some(reason) => return Ok(Err(reason)),
            }
        }
        reading(Way::Locked { creates_index: has_wal && !has_index })
    }

    /// Like [`in_place`](Self::in_place), but fails if only a copy can be read.
    pub(super) fn require_in_place(path: &Path) -> Result<Self> {
        Reading::in_place(path)?.map_err(|reason| match reason {
            CopyReason::HotJournal => Error::problem(format!(
                "{} was left in the middle of a write: there is a hot journal beside it",
                shown(path)
            ))
            .hint("open it with its own program, which rolls back that write"),
            CopyReason::ReadOnly => Error::unreachable(format!("cannot read the WAL of {}", shown(path)))
                .hint("run as a user who can write to the file and its folder"),
        })
    }

    /// Opens a connection.
    pub(super) fn open(&self) -> Result<Connection> {
        connection::open(&self.opened_path(), self.purpose())
    }

    /// Returns the path that connections open: that of the database, or of its copy.
    pub(super) fn opened_path(&self) -> PathBuf {
        match &self.way {
            Way::Copied(folder, _) => folder.path(COPY),
            _ => self.path.clone(),
        }
    }

    /// Returns the purpose of the connections.
    pub(super) fn purpose(&self) -> Purpose {
        if matches!(self.way, Way::Locked { .. }) { Purpose::Source } else { Purpose::Image }
    }

    /// Returns true if the database is read in place without locks.
    pub(super) fn is_unlocked(&self) -> bool {
        matches!(self.way, Way::Frozen(_))
    }

    /// Describes the way to users, if it is not the usual one.
    pub(super) fn remark(&self) -> Option<&'static str> {
        match self.way {
            Way::Locked { .. } => None,
            Way::Frozen(_) => Some("read without locks, because no files can be created in its folder"),
            Way::Copied(_, CopyReason::HotJournal) => {
                Some("it was left in the middle of a write: its hot journal was rolled back in a copy, which was read")
            }
            Way::Copied(_, CopyReason::ReadOnly) => Some("read from a copy, because its files can only be read"),
        }
    }

    /// Fails with [`Kind::Unreachable`] if a file that is read without locks is not as it was at the beginning.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        match &self.way {
            Way::Frozen(before) if *before != Fingerprint::of(&self.path) => {
                let message = format!("{} was written to while it was read without locks", shown(&self.path));
                Err(Error::unreachable(message)
                    .hint("try again when no program writes to it, or run as a user who can write to its folder"))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if matches!(self.way, Way::Locked { creates_index: true }) {
            remove_index(&self.path);
        }
    }
}

/// Removes the `-shm` of a database that no connection has open, as SQLite does when it closes the last one. (It would
/// also checkpoint the WAL.) Every connection to a database in WAL mode holds a lock that excludes the one taken here.
fn remove_index(path: &Path) {
    let Ok(connection) = connection::open_raw(path, Purpose::Target) else { return };
    let Some(file) = MainFile::of(&connection) else { return };
    if file.lock_exclusively() && !file.has_moved() {
        let _ = remove_file(&companion(path, "-shm"));
    }
}

/// Returns true if a file can only be read without locks, and is all that there is of its database: it has no WAL and no
/// journal.
fn is_frozen(path: &Path) -> bool {
    let has = |suffix: &&str| file_bytes(&companion(path, suffix)) > 0;
    // A file with another name may have its WAL there; it is opened in the usual way, which tests that.
    if ["-wal", "-journal"].iter().any(has) || aliases::has_other_name(path) {
        return false;
    }
    is_on_read_only_mount(path) || (!may_use_wal(path) && is_wal_file(path))
}

/// Returns true if the header says WAL mode.
fn is_wal_file(path: &Path) -> bool {
    // Read through SQLite, because others in this process may have the file open.
    let Ok(connection) = connection::open_raw(path, Purpose::Inspect) else { return false };
    MainFile::of(&connection).and_then(|file| Header::of(&file.start())).is_some_and(|header| header.is_wal)
}

fn is_on_read_only_mount(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|state| state.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Returns true if this user may read a database in WAL mode in place: the files exist that a reader needs, or the reader
/// can create them and remove them again.
fn may_use_wal(path: &Path) -> bool {
    let may_write = |path: &Path| rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    let [wal, index] = ["-wal", "-shm"].map(|suffix| companion(path, suffix));
    (wal.exists() && may_write(&index)) || (may_write(path) && may_write(folder_of(path)))
}

/// Tries to read a database. Returns the reason if SQLite cannot read it in place without a change.
fn copy_reason(path: &Path) -> Result<Option<CopyReason>> {
    let connection = connection::open(path, Purpose::Inspect)?;
    let is_wal = MainFile::of(&connection).and_then(|file| Header::of(&file.start())).is_some_and(|it| it.is_wal)
        || file_bytes(&companion(path, "-wal")) > 0;
    let journal = companion(path, "-journal");
    let may_be_hot = file_bytes(&journal) > 0 && !matches!(Journal::read(&journal), Some(Journal::Cold));
    // A connection that may write would roll the journal back. One that may not write would leave a new WAL behind.
    let connection = match (may_be_hot, is_wal) {
        (true, _) | (_, false) => connection,
        (_, true) if !may_use_wal(path) => return Ok(Some(CopyReason::ReadOnly)),
        (_, true) => connection::open(path, Purpose::Source)?,
    };
    Ok(test_read(&connection).err().and_then(|error| match (error.sqlite_error_code(), error.sqlite_error()) {
        (_, Some(inner)) if inner.extended_code == ffi::SQLITE_READONLY_ROLLBACK => Some(CopyReason::HotJournal),
        (Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied), _) => {
            Some(CopyReason::ReadOnly)
        }
        // The reader finds other errors again, and reports them. It also waits for locks.
        _ => None,
    }))
}

/// Takes a lock for reading, and releases it.
fn test_read(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    connection.query_row("PRAGMA main.user_version", [], |_| Ok(()))
}

/// Copies a database with its WAL and journal, and lets SQLite recover the copy. Returns `None` if somebody wrote to the
/// files meanwhile.
fn copy(path: &Path, scratch: &Scratch) -> Result<Option<ScratchFolder>> {
    let cannot_open = |error| explain(error, &format!("cannot open {}", shown(path)));
    let connection = connection::open_raw(path, Purpose::Inspect).map_err(cannot_open)?;
    let before = Fingerprint::settled(path)?;
    let main = MainFile::of(&connection);
    let Some(main) = main.filter(|main| main.identity(path) == before.main().map(|main| main.identity)) else {
        return Ok(None);
    };
    let [main_bytes, wal_bytes, journal_bytes] = before.bytes();
    // The WAL is copied into the main file.
    let folder = scratch.folder(main_bytes.saturating_add(wal_bytes).saturating_add(wal_bytes.max(journal_bytes)))?;
    let target = folder.path(COPY);
    let copied = copy_main(&main, &target, main_bytes).and_then(|()| {
        let companions = [("-wal", wal_bytes), ("-journal", journal_bytes)];
        companions
            .into_iter()
            .filter(|(_, bytes)| *bytes > 0)
            .try_for_each(|(suffix, bytes)| copy_file(&companion(path, suffix), &companion(&target, suffix), bytes))
    });
    if before != Fingerprint::of(path) {
        return Ok(None);
    }
    copied?;
    recover(&target)?;
    Ok(Some(folder))
}

/// Copies the main file through SQLite's descriptor: others in this process may have the file open.
fn copy_main(main: &MainFile<'_>, to: &Path, bytes: u64) -> Result<()> {
    let mut target = create_file(to)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < bytes {
        interrupt::check()?;
        let length = CHUNK_BYTES.min(usize::try_from(bytes - done).unwrap_or(CHUNK_BYTES));
        if !main.read_exact_at(&mut buffer[..length], done) {
            return Err(Error::failed(format!("cannot read byte {done} of the database file")));
        }
        write(&mut target, &buffer[..length], to)?;
        done += length as u64;
    }
    Ok(())
}

/// Copies exactly the first `bytes` of a WAL or journal.
fn copy_file(from: &Path, to: &Path, bytes: u64) -> Result<()> {
    let cannot_read = || format!("cannot read {}", shown(from));
    let opened = open_plain(from, OFlags::RDONLY).io(Kind::Unreachable, cannot_read);
    let mut source = opened.map_err(|error| error.hint("run as a user who can read it"))?.take(bytes);
    let mut target = create_file(to)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        interrupt::check()?;
        match source.read(&mut buffer).io(Kind::Failed, cannot_read)? {
            0 => return Ok(()),
            length => write(&mut target, &buffer[..length], to)?,
        }
    }
}

fn write(target: &mut File, bytes: &[u8], path: &Path) -> Result<()> {
    target.write_all(bytes).io(Kind::Failed, || format!("cannot write {}", shown(path)))
}

/// Lets SQLite roll back the journal of a copy and move its WAL into the file, so that the file is all that there is.
fn recover(copy: &Path) -> Result<()> {
    let journal = companion(copy, "-journal");
    if let Some(Journal::Hot(hot)) = Journal::read(&journal)
        && hot.super_journal.is_some_and(|path| path.exists())
    {
        // The transaction of several databases was not committed. SQLite would look for the journals of the others, and
        // might delete the file that decides about them. Without its name, the journal is rolled back in the same way.
        forget_super_journal(&journal)?;
    }
    let cannot = |error| explain(error, &format!("cannot recover the copy {}", shown(copy)));
    let connection = connection::open_raw(copy, Purpose::Scratch).map_err(cannot)?;
    match connection.query_row("PRAGMA main.user_version", [], |_| Ok(())) {
        // The reader finds the damage again, and reports it.
        Err(error) if !is_damage(&error) => return Err(cannot(error)),
        _ => {}
    }
    // The last connection to close checkpoints the WAL and removes it.
    connection.close().map_err(|(_, error)| cannot(error))?;
    let is_hot = matches!(Journal::read(&journal), Some(Journal::Hot(_)));
    if is_hot || file_bytes(&companion(copy, "-wal")) > 0 {
        return Err(Error::failed(format!("cannot recover the copy {}", shown(copy)))
            .hint("the disk of the temporary folder may be full: name another one with --scratch"));
    }
    Ok(())
}

/// Overwrites the mark at the end of a journal that says that the name of a super-journal is before it.
fn forget_super_journal(journal: &Path) -> Result<()> {
    let cannot = || format!("cannot write {}", shown(journal));
    let file = open_plain(journal, OFlags::RDWR).io(Kind::Failed, cannot)?;
    let end = file_bytes(journal).saturating_sub(journal::MARK_BYTES as u64);
    file.write_all_at(&[0; journal::MARK_BYTES], end).io(Kind::Failed, cannot)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn a_journal_that_becomes_hot_while_a_database_is_read_is_not_rolled_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("app.db");
        let journal = companion(&path, "-journal");
        let program = Connection::open(&path).unwrap();
        let rows = "WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                    INSERT INTO t SELECT hex(zeroblob(100)) FROM n";
        program.execute_batch(&format!("PRAGMA cache_size = 2; CREATE TABLE t(a); {rows}")).unwrap();
        program.execute_batch("BEGIN; UPDATE t SET a = a || 'x'").unwrap();
        let crashed = [fs::read(&path).unwrap(), fs::read(&journal).unwrap()];
        program.execute_batch("ROLLBACK").unwrap();
        drop(program);

        let reading = Reading::in_place(&path).unwrap().unwrap();
        let connection = reading.open().unwrap();
        connection.busy_timeout(Duration::ZERO).unwrap();
        let count = || connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(count(), Ok(1000));
        fs::write(&path, &crashed[0]).unwrap();
        fs::write(&journal, &crashed[1]).unwrap();
        assert!(count().is_err_and(|error| connection::is_busy(&error)));
        assert!(fs::read(&path).unwrap() == crashed[0] && fs::read(&journal).unwrap() == crashed[1]);
        drop((connection, reading));
        assert!(fs::read(&path).unwrap() == crashed[0] && fs::read(&journal).unwrap() == crashed[1]);

        let copied = Reading::begin(&path, &Scratch::new(Some(folder.path().to_owned()))).unwrap();
        let copy = copied.open().unwrap();
        let sum = "SELECT count(*) || ' ' || sum(length(a)) FROM t";
        assert_eq!(copy.query_row(sum, [], |row| row.get::<_, String>(0)), Ok("1000 200000".to_owned()));
        assert!(fs::read(&path).unwrap() == crashed[0] && fs::read(&journal).unwrap() == crashed[1]);
    }
}
