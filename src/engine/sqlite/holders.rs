//! Lists the processes that have a database open, by their descriptors in `/proc` and by their locks.
//!
//! The list shows what this user can see on this machine: only root sees the descriptors of other users' processes, and
//! of processes in other containers at most the locks are visible.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::companion;
use crate::platform::disk::shown;
use crate::platform::error::{Result, one_line};

/// A process that has a database open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    /// The process id; `None` for a process in another container.
    pub pid: Option<u32>,
    /// The command name of the process, if known.
    pub command: Option<String>,
    /// True if it has the database, or a file beside it, open for writing.
    pub writes: bool,
}

impl Holder {
    /// Returns a text for messages: `process 17 (python3)`.
    #[must_use]
    pub(crate) fn shown(&self) -> String {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => format!("process {pid} ({})", one_line(command)),
            (Some(pid), None) => format!("process {pid}"),
            (None, _) => "a process in another container".to_owned(),
        }
    }
}

/// Device and inode of the files to search for, each with the number of its database.
pub(crate) struct Wanted(BTreeMap<(u64, u64), usize>);

/// The result of a search: the processes that hold each database, and how many could not be inspected.
#[derive(Debug, Default)]
pub(crate) struct FoundHolders {
    /// The processes by the number of the database.
    pub holders: BTreeMap<usize, Vec<Holder>>,
    /// The number of processes whose descriptors this user may not see.
    pub hidden: usize,
}

impl Wanted {
    /// Collects the current files of the databases, and those beside them.
    #[must_use]
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut wanted = BTreeMap::new();
        for (number, path) in paths.into_iter().enumerate() {
            for suffix in ["", "-wal", "-shm", "-journal"] {
                if let Some(identity) = identity(&companion(path, suffix)) {
                    wanted.insert(identity, number);
                }
            }
        }
        Wanted(wanted)
    }

    /// Inspects the descriptors of all other processes.
    #[must_use]
    pub(crate) fn search(&self) -> FoundHolders {
        let mut result = FoundHolders::default();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            if pid == std::process::id() {
                continue;
            }
            let folder = process.path();
            let descriptors = match fs::read_dir(folder.join("fd")) {
                Ok(descriptors) => descriptors,
                Err(error) => {
                    result.hidden += usize::from(error.kind() == std::io::ErrorKind::PermissionDenied);
                    continue;
                }
            };
            let mut found: BTreeMap<usize, bool> = BTreeMap::new();
            for descriptor in descriptors.flatten() {
                let number = identity(&descriptor.path()).and_then(|identity| self.0.get(&identity));
                if let Some(number) = number {
                    *found.entry(*number).or_default() |= is_writable(&folder, &descriptor.path());
                }
            }
            for (number, writes) in found {
                let command = command(pid);
                result.holders.entry(number).or_default().push(Holder { pid: Some(pid), command, writes });
            }
        }
        result
    }
}

/// Returns the other processes that hold `path` or one of its companions open or locked, as far as this user can see.
/// Do not call it while this process has the database open: the search for locks would drop its own locks.
pub(super) fn of(path: &Path) -> Result<Vec<Holder>> {
    let mut found = Wanted::of([path]).search().holders.remove(&0).unwrap_or_default();
    let pids: Vec<Option<u32>> = found.iter().map(|holder| holder.pid).collect();
    // Processes of other users or in other containers are at least visible by their locks.
    found.extend(lock_holders(path).into_iter().filter(|holder| !pids.contains(&holder.pid)));
    found.sort();
    found.dedup();
    Ok(found)
}

/// Returns the processes that have a lock on a database. Do not call it while this process has the database open.
#[must_use]
pub(crate) fn lock_holders(path: &Path) -> Vec<Holder> {
    let mut found = Vec::new();
    for path in [path.to_owned(), companion(path, "-shm")] {
        let Ok(file) = File::open(&path) else { continue };
        let all = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
        match rustix::process::fcntl_getlk(&file, &all) {
            Ok(Some(lock)) => {
                let pid = lock.pid.and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
                found.push(Holder { pid, command: pid.and_then(command), writes: false });
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("cannot check for locks on {}: {error}", shown(&path)),
        }
    }
    found.sort();
    found.dedup();
    found
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}

fn command(pid: u32) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Returns true if a descriptor is open for writing, according to its `flags` (octal).
fn is_writable(process: &Path, descriptor: &Path) -> bool {
    let Some(number) = descriptor.file_name() else { return false };
    let info: PathBuf = process.join("fdinfo").join(number);
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    flags & 0o3 != 0
}
