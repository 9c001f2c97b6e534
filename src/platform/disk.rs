//! Files, folders and their durability: helpers that do every step, so that no caller can forget one.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::interrupt;
use crate::platform::place::{self, Place};

/// The greatest number of bytes that is kept free on a disk beyond what is written to it.
const HEADROOM_BYTES: u64 = 16 << 20;

/// Returns the folder that contains `path`; `.` for a bare name.
#[must_use]
pub(crate) fn folder_of(path: &Path) -> &Path {
    or_here(path.parent().unwrap_or(path))
}

/// Returns `path`, or `.` if it is empty: Rust gives "" as the parent of a bare name, which system calls do not accept.
#[must_use]
pub(crate) fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Returns a path for a message, on one line.
#[must_use]
pub(crate) fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// Syncs a folder, so that names created, changed or removed in it survive a power failure. Succeeds if the file system
/// does not support syncing folders, or if this user may change the folder but not open it.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    match try_sync_folder(folder) {
        Err(error) if is_sync_unsupported(&error) => {
            tracing::debug!("{} cannot be synced: {error}", shown(folder));
            Ok(())
        }
        synced => synced,
    }
}

fn try_sync_folder(folder: &Path) -> io::Result<()> {
    File::open(or_here(folder))?.sync_all()
}

/// Returns true for the errors of file systems on which a folder cannot be opened or synced. An error of the disk is
/// none of them.
fn is_sync_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF | Errno::PERM | Errno::ACCESS | Errno::ISDIR)
    )
}

/// Returns the number of bytes that an unprivileged user can still write to the disk of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let usage = rustix::fs::statvfs(or_here(path))?;
    Ok(usage.f_bavail.saturating_mul(usage.f_frsize))
}

/// Returns the number of files that can still be created on the disk of `path`, or `None` if its file system does not
/// count them.
pub(crate) fn free_files(path: &Path) -> io::Result<Option<u64>> {
    let usage = rustix::fs::statvfs(or_here(path))?;
    Ok((usage.f_files > 0).then_some(usage.f_favail))
}

/// Fails if the disk of `folder` does not have space for `bytes` more and a small reserve.
pub(crate) fn require_space(folder: &Path, bytes: u64) -> Result<()> {
    let free =
        free_bytes(folder).io(Kind::Unreachable, || format!("cannot read the free space of {}", shown(folder)))?;
    // The reserve is smaller for small files.
    let needed = bytes.saturating_add(HEADROOM_BYTES.min(bytes / 8));
    if free >= needed {
        return Ok(());
    }
    Err(Error::failed(format!("{} has {free} bytes free, but {needed} are needed", shown(folder)))
        .hint("free some space"))
}

/// Creates a file (0600). Fails if it exists.
pub(crate) fn create_file(path: &Path) -> Result<File> {
    let created = Place::of(path).and_then(|place| place.create_new(0o600));
    created.io(Kind::Failed, || format!("cannot create {}", shown(path)))
}

/// Creates a file (0600) and locks it (`flock`) as long as it is open, so that files left over from a crash can be
/// recognized and removed. Fails if the file exists. Returns `None` if another process took it for such a file and
/// removed it before it was locked.
///
/// If the file system does not support locks, files left over from a crash are not removed.
pub(crate) fn create_locked(path: &Path) -> Result<Option<File>> {
    let file = create_file(path)?;
    // A process that removes such files holds the lock only for a moment.
    let _ = file.lock();
    let facts = file.metadata().io(Kind::Failed, || format!("cannot read the metadata of {}", shown(path)))?;
    // Some file systems count no links at all.
    let is_there = || fs::symlink_metadata(path).is_ok_and(|there| there.ino() == facts.ino());
    Ok((facts.nlink() > 0 || is_there()).then_some(file))
}

/// Opens a file. Does not follow a symbolic link in the last component, and does not wait for the other end of a pipe.
pub(crate) fn open_plain(path: &Path, flags: OFlags) -> io::Result<File> {
    Place::of(path)?.open(flags)
}

/// Opens a file for reading like [`open_plain`]. Fails if another user may have planted it for root.
pub(crate) fn open_own(path: &Path) -> io::Result<File> {
    Ok(Place::of(path)?.open_own(OFlags::RDONLY, Mode::empty())?.into())
}

/// Removes a file or a link.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    Place::of(path)?.remove()
}

/// Renames a file or a folder. Replaces a file that has the new name.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Place::of(from)?.rename(&Place::of(to)?)
}

/// Gives a file a second name. Fails if that exists.
pub(crate) fn link(path: &Path, second: &Path) -> io::Result<()> {
    Ok(Place::of(path)?.link(&Place::of(second)?)?)
}

/// Creates a temporary file (0600) in a folder. It is removed when dropped.
pub(crate) fn temporary_file(folder: &Path, prefix: &str, suffix: &str) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(suffix).rand_bytes(16);
    builder.make_in(or_here(folder), |path| Place::of(path)?.create_new(0o600))
}

/// Opens and locks a file whose creator (see [`create_locked`]) has died. Returns `None` if the creator still runs, or
/// if the file is not a regular file of this user.
#[must_use]
pub(crate) fn lock_left_over(path: &Path) -> Option<File> {
    let file = open_plain(path, OFlags::RDONLY).ok()?;
    // In a shared folder, other users may create anything under such a name.
    let facts = file.metadata().ok()?;
    if !facts.is_file() || facts.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    file.try_lock().is_ok().then_some(file)
}

/// Replaces or creates a small file atomically and durably: readers find the old file or the new one, also after a
/// power failure. A symbolic link is followed, so that its target is replaced and not the link.
pub(crate) fn replace_file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let path = &match place::resolve(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
        resolved => resolved?,
    };
    let folder = folder_of(path);
    let mut file = temporary_file(folder, ".lifeboat-", "")?;
    file.write_all(bytes)?;
    // Set afterwards, because the umask would restrict the mode at creation.
    set_mode(file.as_file(), folder, mode)?;
    file.as_file().sync_all()?;
    rename(file.path(), path)?;
    let _ = file.into_temp_path().keep();
    sync_folder(folder)
}

/// Sets the permission bits of a new file in a folder. A file system that stores none (vfat, many network file systems)
/// is no failure; a warning is logged if it lets other users do more with the file than `mode` allows.
pub(crate) fn set_mode(file: &File, folder: &Path, mode: u32) -> io::Result<()> {
    match file.set_permissions(fs::Permissions::from_mode(mode)) {
        Err(error) if is_mode_unsupported(&error) => {
            if file.metadata()?.mode() & !mode & 0o077 != 0 {
                tracing::warn!("{}", open_to_others(&shown(folder)));
            }
            Ok(())
        }
        set => set,
    }
}

fn is_mode_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}

fn open_to_others(folder: &str) -> String {
    format!("the file system of {folder} stores no permissions: other users of this machine may read the files in it")
}

/// Returns the guarantees that the file system of `folder` does not give to new files, each as a message. Returns fewer
/// if no file can be created in it.
#[must_use]
pub(crate) fn missing_guarantees(folder: &Path) -> Vec<String> {
    let mut missing = Vec::new();
    if try_sync_folder(folder).is_err_and(|error| is_sync_unsupported(&error)) {
        missing
            .push("new names cannot be synced, so a power failure may remove a file that was just written".to_owned());
    }
    let created = temporary_file(folder, ".lifeboat-", "");
    if let Ok(file) = created.and_then(|file| file.as_file().metadata())
        && file.mode() & 0o077 != 0
    {
        missing.push("permissions are not stored, so other users of this machine may read the files".to_owned());
    }
    missing
}

/// Locks a folder (`flock`) as long as the returned file is open, so that only one process at a time reads and replaces
/// a file in it. Returns `None` if another process holds the lock for longer than `longest`, or if the file system does
/// not support locks.
#[must_use]
pub(crate) fn lock_folder(folder: &Path, longest: Duration) -> Option<File> {
    let start = Instant::now();
    let file = File::open(or_here(folder)).ok()?;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if start.elapsed() < longest => thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(error))
                if error.kind() == io::ErrorKind::Interrupted && start.elapsed() < longest => {}
            Err(_) => return None,
        }
    }
}

/// Fails if this user may not create files in a folder, or if its disk is mounted read-only. Changes nothing.
pub(crate) fn may_write_to(folder: &Path) -> io::Result<()> {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    Ok(rustix::fs::accessat(CWD, or_here(folder), wanted, AtFlags::EACCESS)?)
}

/// Creates a folder (0700). Fails if it exists.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    let created = Place::of(path).and_then(|place| place.create_folder(0o700));
    created.io(Kind::Failed, || format!("cannot create {}", shown(path)))
}

/// Syncs a large file to disk in the background while it is being written, so that little is left for the final sync.
///
/// It does not replace the final sync. An error that it has received from the disk is not reported to the final sync
/// again, so [`finish`](Self::finish) must succeed before the file is trusted.
pub(crate) struct SyncBehind {
    file: File,
    unsynced_bytes: u64,
    running: Option<(SyncSender<()>, JoinHandle<io::Result<()>>)>,
}

impl SyncBehind {
    /// The number of bytes that are written between two syncs.
    const STEP_BYTES: u64 = 16 << 20;

    /// Prepares for a file that is being written.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        Ok(SyncBehind { file: file.try_clone()?, unsynced_bytes: 0, running: None })
    }

    /// Notes that this many more bytes were written, and starts a sync if enough have accumulated. Never waits.
    pub(crate) fn wrote(&mut self, bytes: u64) -> io::Result<()> {
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
            // If the channel is full, a later call asks again. If it is closed, a sync has failed, and `finish` returns
            // the error.
            let _ = sender.try_send(());
        }
        Ok(())
    }

    /// Waits for the running sync, and fails if any sync has failed.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
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

/// Reads a file of at most `max_bytes`. Returns `None` if it is larger. The file may be a pipe, or a device without an
/// end.
pub(crate) fn read_bounded(path: &Path, max_bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
    let bytes = read_or_stop(path, max_bytes)?;
    Ok((bytes.len() as u64 <= max_bytes).then_some(bytes))
}

/// Reads a file up to one byte more than `max_bytes`. A pipe may never be written to: a signal ends the wait, and then the
/// error carries one of [`Kind::Interrupted`].
pub(crate) fn read_or_stop(path: &Path, max_bytes: u64) -> std::io::Result<Vec<u8>> {
    let read = move |path: &Path| {
        let mut bytes = Vec::new();
        place::open_file(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    if std::fs::metadata(path)?.is_file() {
        return read(path);
    }
    // A signal interrupts neither the open nor the read, so another thread does both. It ends with the process.
    let (sender, receiver) = channel();
    let owned = path.to_owned();
    thread::Builder::new().name("reader".to_owned()).spawn(move || sender.send(read(&owned)))?;
    loop {
        match receiver.recv_timeout(Duration::from_millis(50)) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            Err(error) => return Err(std::io::Error::other(error)),
        }
    }
}

/// Resolves a path, whether all of it exists or not. Links and `..` are followed as far as possible.
pub(crate) fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(target) = std::fs::read_link(&absolute)
        && !absolute.exists()
    {
        return real_path(&absolute.parent().unwrap_or(Path::new("/")).join(target));
    }
    let mut rest = Vec::new();
    let mut above = absolute.as_path();
    loop {
        if let Ok(real) = above.canonicalize() {
            return rest.iter().rev().fold(real, |path, name| path.join(name));
        }
        match (above.parent(), above.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                above = parent;
            }
            _ => return absolute,
        }
    }
}

/// Returns an absolute form of `path`, whether it exists or not. Links in the part that exists are resolved.
pub(crate) fn resolve_target(path: &Path) -> Result<PathBuf> {
    let shown = || shown(path);
    match place::resolve(path) {
        Ok(real) => return Ok(real),
        Err(error) if place::is_refused(&error) => return Err(error.into()),
        Err(_) => {}
    }
    // A link whose target does not exist yet is followed too.
    if let Ok(next) = std::fs::read_link(path) {
        let next = path.parent().unwrap_or(Path::new(".")).join(next);
        if next != path && std::fs::symlink_metadata(&next).is_err() {
            return resolve_target(&next);
        }
        return Err(Error::usage(format!("{} is a link that leads nowhere", shown())));
    }
    let name = path.file_name().ok_or_else(|| Error::usage(format!("{} names no file", shown())))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = place::resolve(parent).map_err(|error| {
        if place::is_refused(&error) {
            return error.into();
        }
        Error::unreachable(format!("the folder of {} is not there", shown()))
            .hint("make it first, or check the path")
            .because(error)
    })?;
    Ok(folder.join(name))
}
