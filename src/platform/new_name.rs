//! Gives a complete file its final name, but never replaces another file: also on file systems that have neither
//! `RENAME_NOREPLACE` nor hard links, such as vfat, many FUSE file systems, CIFS, and the shared folders of virtual
//! machines.
//!
//! There, a process first creates a lock file beside the new name (`O_CREAT | O_EXCL`), then requires that the new name
//! is free, and then renames the file. Readers find the complete file or none. The lock file of a process that was
//! killed is removed by a later process: at once if it is old, otherwise after it was watched for a time. A process that
//! holds its lock file with `flock`, which works at least among the processes of one machine, is always waited for.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;
use tempfile::NamedTempFile;

use crate::platform::digest::Sha256;
use crate::platform::disk::{folder_of, open_plain, remove_file, rename, set_mode, shown, sync_folder, temporary_file};
use crate::platform::error::Error;
use crate::platform::interrupt;
use crate::platform::place::Place;

const LOCK_PREFIX: &str = ".lifeboat-";
const LOCK_ENDING: &str = ".lock";
/// The age of a lock file, or the time for which it was watched, after which its process counts as killed.
const STALE: Duration = Duration::from_secs(30);
/// The maximum time to wait for other processes that want the same name.
const LONGEST_WAIT: Duration = Duration::from_secs(120);
/// The pause between two attempts to create a lock file.
const PAUSE: Duration = Duration::from_millis(20);

/// Gives a temporary file its final name, in the same folder. Fails with [`io::ErrorKind::AlreadyExists`] if the name
/// exists. On failure the temporary file is removed. Does not sync.
pub(crate) fn persist_new(temporary: NamedTempFile, path: &Path) -> io::Result<File> {
    let taken = take_name(temporary.path(), path)?;
    let (file, temporary) = temporary.into_parts();
    match taken {
        Taken::Renamed => drop(temporary.keep()),
        // Dropping it removes the first name.
        Taken::Linked => drop(temporary),
    }
    Ok(file)
}

/// Writes a small new file with this mode, durably or not at all. Returns false and changes nothing if the file exists.
pub(crate) fn write_new_file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<bool> {
    let folder = folder_of(path);
    let mut file = temporary_file(folder, ".lifeboat-", "")?;
    file.write_all(bytes)?;
    set_mode(file.as_file(), folder, mode)?;
    file.as_file().sync_all()?;
    match persist_new(file, path) {
        Ok(_) => sync_folder(folder).map(|()| true),
        Err(refused) if refused.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(refused) => Err(refused),
    }
}

/// Renames a file. Fails with [`io::ErrorKind::AlreadyExists`] if the new name exists. Does not sync.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match take_name(from, to)? {
        Taken::Renamed => Ok(()),
        Taken::Linked => remove_file(from),
    }
}

/// Returns true if a file of this name is a lock file of this module.
#[must_use]
pub(crate) fn is_lock_name(name: &str) -> bool {
    name.starts_with(LOCK_PREFIX) && name.ends_with(LOCK_ENDING)
}

/// Returns the guarantee that the file system of `folder` does not give to new names, as a message.
#[must_use]
pub(crate) fn missing_guarantee(folder: &Path) -> Option<String> {
    // If this process is killed, the files are cleared away as lock files are.
    let temporary = temporary_file(folder, LOCK_PREFIX, LOCK_ENDING).ok()?;
    let name = temporary.path().with_extension("new.lock");
    match take_exclusively(temporary.path(), &name).ok()? {
        Some(_) => {
            let _ = remove_file(&name);
            None
        }
        None => Some(
            "there are no hard links and no RENAME_NOREPLACE, so a lock file keeps two writers of one name apart"
                .to_owned(),
        ),
    }
}

/// The way in which a file got a new name.
enum Taken {
    /// The old name is gone.
    Renamed,
    /// The file has both names.
    Linked,
}

fn take_name(from: &Path, to: &Path) -> io::Result<Taken> {
    if let Some(taken) = take_exclusively(from, to)? {
        return Ok(taken);
    }
    tracing::info!(
        "the file system of {} has neither hard links nor RENAME_NOREPLACE: a lock file keeps two writers of one name \
         apart",
        shown(folder_of(to))
    );
    let written_at = fs::symlink_metadata(from)?.modified()?;
    let _lock = NameLock::acquire(to, written_at)?;
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => rename(from, to).map(|()| Taken::Renamed),
        Err(error) => Err(error),
    }
}

/// Gives a file a new name in one step that fails if the name exists. Returns `None` if the file system has no such
/// step.
fn take_exclusively(from: &Path, to: &Path) -> io::Result<Option<Taken>> {
    let (from, to) = (Place::of(from)?, Place::of(to)?);
    let renamed = match from.rename_exclusively(&to) {
        Ok(()) => return Ok(Some(Taken::Renamed)),
        Err(error) if is_final(error) => return Err(error.into()),
        Err(error) => error,
    };
    match from.link(&to) {
        Ok(()) => Ok(Some(Taken::Linked)),
        // The first step may have been done, and its reply lost.
        Err(Errno::NOENT) => Err(renamed.into()),
        Err(error) if is_final(error) => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Returns true for errors that another way to give the file its name would meet too. File systems report a step that
/// they do not have with various errors: EINVAL, ENOSYS, EOPNOTSUPP, EPERM, EIO, EMLINK and others.
fn is_final(error: Errno) -> bool {
    matches!(
        error,
        Errno::EXIST
            | Errno::NOENT
            | Errno::NOSPC
            | Errno::DQUOT
            | Errno::ROFS
            | Errno::NOTDIR
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::ISDIR
    )
}

/// The right to create one name. It is given up when dropped.
struct NameLock {
    path: PathBuf,
    _file: File,
}

impl NameLock {
    /// Waits for the right to create `target`. `written_at` is a time at or before now by the clock of the file system.
    fn acquire(target: &Path, written_at: SystemTime) -> io::Result<Self> {
        let path = lock_path(target);
        let start = Instant::now();
        let mut watched = None;
        loop {
            match Place::of(&path)?.create_new(0o600) {
                Ok(file) => {
                    // Another process holds the lock of a new lock file only for a moment, while it inspects it.
                    let _ = file.lock();
                    return Ok(NameLock { path, _file: file });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            if let Some(_held) = stale(&path, written_at, &mut watched) {
                match remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => continue,
                }
            }
            if start.elapsed() > LONGEST_WAIT {
                return Err(Error::failed(format!("another process is creating {}", shown(target)))
                    .hint(format!("if there is none, remove {}", shown(&path)))
                    .into());
            }
            interrupt::sleep(PAUSE)?;
        }
    }
}

impl Drop for NameLock {
    fn drop(&mut self) {
        if let Err(error) = remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {error}", shown(&self.path));
        }
    }
}

/// Returns the path of the lock file for `target`. Its name has a fixed length, so that it fits wherever that of the
/// target does, and is the same for names that a file system without case takes for one.
fn lock_path(target: &Path) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let hash = Sha256::of(name.as_bytes()).to_string();
    folder_of(target).join(format!("{LOCK_PREFIX}{}{LOCK_ENDING}", &hash[..16]))
}

/// Opens and locks the lock file of a process that was killed. Returns `None` if its process may still run.
///
/// `watched` holds inode and time of the file that was seen first, and the instant.
fn stale(path: &Path, written_at: SystemTime, watched: &mut Option<(u64, SystemTime, Instant)>) -> Option<File> {
    let file = open_plain(path, OFlags::RDWR).ok()?;
    if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        *watched = None;
        return None;
    }
    let facts = file.metadata().ok()?;
    let (inode, modified) = (facts.ino(), facts.modified().ok()?);
    let since = match *watched {
        Some((other, time, since)) if (other, time) == (inode, modified) => since,
        _ => {
            let since = Instant::now();
            *watched = Some((inode, modified, since));
            since
        }
    };
    let is_old = written_at.duration_since(modified).is_ok_and(|age| age > STALE);
    (is_old || since.elapsed() > STALE).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("writable");
    }

    #[test]
    fn lock_file_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("app.json");
        let lock = lock_path(&target);
        write(&lock, "");
        let an_hour = Duration::from_secs(3600);
        File::options().write(true).open(&lock).expect("there").set_modified(SystemTime::now() - an_hour).expect("set");
        drop(NameLock::acquire(&target, SystemTime::now()).expect("the process was killed"));
        assert!(!lock.exists());
        let held = NameLock::acquire(&target, SystemTime::now()).expect("free");
        File::options().write(true).open(&lock).expect("there").set_modified(SystemTime::now() - an_hour).expect("set");
        assert!(stale(&lock, SystemTime::now(), &mut None).is_none(), "its process lives");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| NameLock::acquire(&target, SystemTime::now()).map(drop));
            std::thread::yield_now();
            drop(held);
            waiting.join().expect("no panic").expect("free again");
        });
    }

    #[test]
    fn names_that_differ_only_in_case_have_one_lock_file() {
        assert_eq!(lock_path(Path::new("a/App.json")), lock_path(Path::new("a/app.JSON")));
        assert_ne!(lock_path(Path::new("a/app.json")), lock_path(Path::new("a/app2.json")));
        let name = lock_path(Path::new("x")).file_name().expect("a name").to_string_lossy().into_owned();
        assert!(is_lock_name(&name), "{name}");
    }
}
