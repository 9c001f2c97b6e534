//! Databases that cannot be locked here: on a disk mounted read-only, such as a snapshot of a file system, or of a user
//! whose files this process may only read.
//!
//! In WAL mode, a reader needs a `-shm` file that it can write, and a hot journal must be rolled back before anybody can
//! read. Where that is impossible, a file without a WAL and a journal is read without locks, and files with one of them
//! are copied to the scratch folder and read there. In both cases the metadata of the files must be the same before and
//! after, which proves that nobody wrote meanwhile.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::ErrorCode;
use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags};

use super::aliases;
use super::connection::{self, Purpose};
use super::files::{Fingerprint, TICK, companion, file_bytes};
use super::header::Header;
use super::main_file::MainFile;
use crate::platform::disk::{create_file, shown};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::interrupt;
use crate::platform::scratch::{Scratch, ScratchFolder};

/// The number of times that files are copied if somebody writes to them meanwhile.
const ATTEMPTS: u32 = 5;

/// Returns true if a file can only be read without locks, and is all that there is of its database: it has no WAL and no
/// journal.
pub(super) fn is_frozen(path: &Path) -> bool {
    let has = |suffix: &&str| file_bytes(&companion(path, suffix)) > 0;
    // A file with another name may have its WAL there; it is opened in the usual way, which tests that.
    if ["-wal", "-journal"].iter().any(has) || aliases::has_other_name(path) {
        return false;
    }
    is_on_read_only_mount(path) || (!may_create_beside(path) && is_idle_wal_file(path))
}

/// Returns true for a file in WAL mode that no program has open.
fn is_idle_wal_file(path: &Path) -> bool {
    // Any program that has it open has created both.
    if ["-wal", "-shm"].iter().any(|suffix| companion(path, suffix).exists()) {
        return false;
    }
    // Read through SQLite, because others in this process may have the file open.
    let Ok(connection) = connection::open_raw(path, Purpose::Inspect) else { return false };
    MainFile::of(&connection).and_then(|file| Header::of(&file.start())).is_some_and(|header| header.is_wal)
}

fn is_on_read_only_mount(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|state| state.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn may_create_beside(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    rustix::fs::accessat(CWD, folder, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Fails with [`Kind::Unreachable`] if a file that was read without locks is not as it was before.
pub(super) fn require_unchanged(path: &Path, before: &Fingerprint) -> Result<()> {
    if *before == Fingerprint::of(path) {
        return Ok(());
    }
    Err(Error::unreachable(format!("{} was written to while it was read without locks", shown(path)))
        .hint("try again when no program writes to it, or run as a user who can write to its folder"))
}

/// Returns true if a database can only be read from a copy: it has a WAL or a journal that SQLite cannot use here.
pub(super) fn needs_copy(path: &Path) -> bool {
    if (may_create_beside(path) && !is_on_read_only_mount(path)) || is_frozen(path) {
        return false;
    }
    let Ok(connection) = connection::open_raw(path, Purpose::Source) else { return false };
    let read = connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()));
    let code = read.err().and_then(|error| error.sqlite_error_code());
    matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
}

/// Copies a database with its WAL and journal. Returns the path of the copy.
///
/// Fails with [`Kind::Unreachable`] if others write to the files again and again.
pub(super) fn copy(path: &Path, scratch: &Scratch) -> Result<(ScratchFolder, PathBuf)> {
    for _ in 0..ATTEMPTS {
        let before = Fingerprint::of(path);
        // A write within the same tick would not change the times.
        if before.newest_change().is_some_and(|at| SystemTime::now() < at + TICK) {
            interrupt::sleep(TICK)?;
        }
        let files = ["", "-wal", "-journal"].map(|suffix| (suffix, file_bytes(&companion(path, suffix))));
        let folder = scratch.folder(files.iter().map(|(_, bytes)| bytes).sum())?;
        let target = folder.path("copy.db");
        let copied = files
            .iter()
            .filter(|(suffix, bytes)| suffix.is_empty() || *bytes > 0)
            .try_for_each(|(suffix, bytes)| copy_file(&companion(path, suffix), &companion(&target, suffix), *bytes));
        if before == Fingerprint::of(path) {
            copied?;
            return Ok((folder, target));
        }
        tracing::info!("{} changed while it was copied: copying it again", shown(path));
    }
    Err(Error::unreachable(format!("cannot copy {}: other programs write to it without end", shown(path)))
        .hint("run as a user who can write to its folder, so that locks can be taken"))
}

/// Copies exactly the first `bytes` of a file.
fn copy_file(from: &Path, to: &Path, bytes: u64) -> Result<()> {
    let cannot_read = || format!("cannot read {}", shown(from));
    let cannot_write = || format!("cannot write {}", shown(to));
    let mut source = File::open(from).io(Kind::Unreachable, cannot_read)?.take(bytes);
    let mut target = create_file(to)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        interrupt::check()?;
        match source.read(&mut buffer).io(Kind::Failed, cannot_read)? {
            0 => return Ok(()),
            length => target.write_all(&buffer[..length]).io(Kind::Failed, cannot_write)?,
        }
    }
}
