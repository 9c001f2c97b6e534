//! Files, folders and their durability: the few helpers that nobody may forget a part of.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::platform::error::{Error, IoContext, Kind, Result, one_line};

/// Kept free on every disk that something large is written to.
const HEADROOM_BYTES: u64 = 16 << 20;

/// The folder that `path` lies in; `.` for a bare name.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    or_here(path.parent().unwrap_or(path))
}

/// `path`, or `.` where it is empty: the parent of a bare name is "" in Rust and no path to the system.
#[must_use]
pub fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// A path in a message.
#[must_use]
pub fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Makes what was done in a folder (names made, changed, removed) survive a power cut. A file system
/// that cannot sync a folder has nothing to sync there.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Bytes that an ordinary user can still write to the disk of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let usage = rustix::fs::statvfs(or_here(path))?;
    Ok(usage.f_bavail.saturating_mul(usage.f_frsize))
}

/// Files that can still be made on the disk of `path`; None where its file system does not count them.
pub fn free_files(path: &Path) -> io::Result<Option<u64>> {
    let usage = rustix::fs::statvfs(or_here(path))?;
    Ok((usage.f_files > 0).then_some(usage.f_favail))
}

/// Fails where the disk of `folder` has not room for `bytes` more, and a little.
pub fn require_space(folder: &Path, bytes: u64) -> Result<()> {
    let free = free_bytes(folder).io(Kind::Unreachable, || format!("cannot look at {}", shown(folder)))?;
    // What is small itself need not leave much.
    let needed = bytes.saturating_add(HEADROOM_BYTES.min(bytes / 8));
    if free >= needed {
        return Ok(());
    }
    Err(Error::failed(format!("{} has {free} bytes free and {needed} are needed", shown(folder)))
        .hint("free some space"))
}

/// Makes a file (0600) that was not there.
pub fn create_file(path: &Path) -> Result<File> {
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    file.io(Kind::Failed, || format!("cannot create {}", shown(path)))
}

/// Makes a file (0600) that was not there, and locks it (`flock`) for as long as it is open, so that what a crash
/// leaves can be told and cleared. None where somebody took it for that and removed it before it was locked.
///
/// Where the file system has no locks, what a crash leaves stays there.
pub fn create_locked(path: &Path) -> Result<Option<File>> {
    let file = create_file(path)?;
    // Whoever clears holds the lock for a moment only.
    let _ = rustix::fs::flock(&file, FlockOperation::LockExclusive);
    let facts = file.metadata().io(Kind::Failed, || format!("cannot look at {}", shown(path)))?;
    Ok((facts.nlink() > 0).then_some(file))
}

/// Opens a file without following a link in its last part and without waiting for a pipe's other end.
pub fn open_plain(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// A file made by [`create_locked`] whose maker has died, locked; None where the maker lives.
#[must_use]
pub fn lock_left_over(path: &Path) -> Option<File> {
    let file = open_plain(path, OFlags::RDONLY).ok()?;
    // Others may put anything under such a name into a folder that all share.
    let facts = file.metadata().ok()?;
    if !facts.is_file() || facts.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file)
}

/// Writes a whole small new file of this mode, durably or not at all; false, with nothing changed, where there is one.
pub fn write_new_file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<bool> {
    let folder = folder_of(path);
    let mut file = tempfile::Builder::new().prefix(".lifeboat-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => sync_folder(folder).map(|()| true),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(refused) => Err(refused.error),
    }
}

/// Writes a whole small file in place of the one that may be there: whoever reads finds the old one or the new one,
/// also after a power cut. A link is followed, so that what it points to is replaced and not the link.
pub fn replace_file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = folder_of(path);
    let mut file = tempfile::Builder::new().prefix(".lifeboat-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    // Not as it is made: the umask would have its say.
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Locks a folder (`flock`) for as long as what this gives is open, so that a file in it is read and replaced by one
/// at a time. None where somebody holds it for longer than `longest`, or the file system has no locks.
#[must_use]
pub fn lock_folder(folder: &Path, longest: Duration) -> Option<File> {
    let start = Instant::now();
    let file = File::open(or_here(folder)).ok()?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if start.elapsed() < longest => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return None,
        }
    }
}

/// Makes a folder (0700) that was not there.
pub fn create_folder(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).io(Kind::Failed, || format!("cannot create {}", shown(path)))
}

/// Brings what is written to a large file to the disk while more is being written, so that the sync
/// at the end has little left to wait for.
///
/// It never replaces that last sync; but an error that the disk told it of is not told a second time,
/// so [`finish`](Self::finish) must be asked before the file is trusted.
pub struct SyncBehind {
    file: File,
    unsynced_bytes: u64,
    running: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl SyncBehind {
    /// How much is written between two syncs.
    const STEP_BYTES: u64 = 16 << 20;

    /// Watches a file that is being written.
    pub fn new(file: &File) -> io::Result<Self> {
        Ok(SyncBehind { file: file.try_clone()?, unsynced_bytes: 0, running: None })
    }

    /// So many bytes more were written. Never waits.
    pub fn wrote(&mut self, bytes: u64) -> io::Result<()> {
        self.unsynced_bytes += bytes;
        if self.unsynced_bytes < Self::STEP_BYTES {
            return Ok(());
        }
        self.unsynced_bytes = 0;
        if self.running.is_none() {
            let (sender, requests) = sync_channel::<()>(1);
            let file = self.file.try_clone()?;
            let work = move || requests.iter().try_for_each(|()| file.sync_data());
            self.running = Some((sender, thread::Builder::new().name("sync".to_owned()).spawn(work)?));
        }
        if let Some((sender, _)) = &self.running {
            // Full: it will be asked again. Closed: it has failed, and `finish` tells.
            let _ = sender.try_send(());
        }
        Ok(())
    }

    /// Waits for the sync under way, and tells whether all of them went well.
    pub fn finish(&mut self) -> io::Result<()> {
        match self.running.take() {
            None => Ok(()),
            Some((sender, thread)) => {
                drop(sender);
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread has died")))
            }
        }
    }
}

impl Drop for SyncBehind {
    fn drop(&mut self) {
        let _ = self.finish();
    }
}

/// Reads a file of at most so many bytes; None where it has more. It may be a pipe, or a device that has no end.
pub fn read_bounded(path: &Path, max_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= max_bytes).then_some(bytes))
}
