//! Which processes have a database open: what `/proc` shows of their descriptors, and their locks.
//!
//! A look from this machine as this user: descriptors of other users' processes are seen by root alone, and of processes in
//! other containers at most the locks are.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::connection::companion;
use crate::platform::disk::shown;
use crate::platform::error::{Result, one_line};

/// A process that has a database open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its number; None for a process in another container.
    pub pid: Option<u32>,
    /// The name that it goes by, where it can be told.
    pub command: Option<String>,
    /// Whether it has the database, or a file beside it, open for writing.
    pub writes: bool,
}

impl Holder {
    /// For messages: `process 17 (python3)`.
    #[must_use]
    pub fn shown(&self) -> String {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => format!("process {pid} ({})", one_line(command)),
            (Some(pid), None) => format!("process {pid}"),
            (None, _) => "a process in another container".to_owned(),
        }
    }
}

/// Device and inode of files that are looked for, and which database they are of.
pub struct Wanted(BTreeMap<(u64, u64), usize>);

/// What a look showed: the processes that hold each database, and how many could not be looked into.
#[derive(Debug, Default)]
pub struct Held {
    /// By the number of the database.
    pub holders: BTreeMap<usize, Vec<Holder>>,
    /// Processes whose descriptors this user may not see.
    pub hidden: usize,
}

impl Wanted {
    /// The files of databases as they are now, and those beside them.
    #[must_use]
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
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

    /// Looks at the descriptors of all other processes.
    #[must_use]
    pub fn look(&self) -> Held {
        let mut held = Held::default();
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
                    held.hidden += usize::from(error.kind() == std::io::ErrorKind::PermissionDenied);
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
                held.holders.entry(number).or_default().push(Holder { pid: Some(pid), command, writes });
            }
        }
        held
    }
}

/// The other processes that hold `path` or one of its companions open or locked, as far as this user can see. Not to be
/// asked while this process has the database open: the look at the locks would drop its own.
pub(super) fn of(path: &Path) -> Result<Vec<Holder>> {
    let mut found = Wanted::of([path]).look().holders.remove(&0).unwrap_or_default();
    let seen: Vec<Option<u32>> = found.iter().map(|holder| holder.pid).collect();
    // Whoever runs as another user, or in another container, shows by its locks at least.
    found.extend(lockers(path).into_iter().filter(|holder| !seen.contains(&holder.pid)));
    found.sort();
    found.dedup();
    Ok(found)
}

/// Who has a lock on a database. Not to be asked while this process has it open.
#[must_use]
pub fn lockers(path: &Path) -> Vec<Holder> {
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
            Err(error) => tracing::warn!("cannot look who has locked {}: {error}", shown(&path)),
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

/// Whether a descriptor is open for writing, as its `flags` (octal) say.
fn is_writable(process: &Path, descriptor: &Path) -> bool {
    let Some(number) = descriptor.file_name() else { return false };
    let info: PathBuf = process.join("fdinfo").join(number);
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
    flags & 0o3 != 0
}
