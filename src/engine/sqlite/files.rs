//! The files of a database: the main file, and its WAL and journal beside it. None is opened here.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The age from which a time of change is certainly older than any later one: the kernel's clock for files ticks every
/// 10 ms or faster.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// Returns the name of one of a database's companion files: `-wal`, `-shm` or `-journal`.
pub(super) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(OsStr::new(suffix));
    name.into()
}

/// Returns the length of a file, or 0 if it does not exist. The file is not opened.
pub(super) fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |facts| facts.len())
}

/// The metadata of a file and its companions; it changes when somebody writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([Option<FileFingerprint>; 3]);

/// Device, inode and length; times of the last change of content and of attributes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileFingerprint {
    identity: (u64, u64, u64),
    changed: [(i64, i64); 2],
}

impl Fingerprint {
    /// Returns true if both describe the same files with the same content, as far as lengths and times show. Attributes
    /// may differ: a connection of root gives every WAL that it opens the owner of the database.
    pub(super) fn has_same_content(&self, other: &Fingerprint) -> bool {
        let content = |file: Option<FileFingerprint>| file.map(|file| (file.identity, file.changed[0]));
        self.0.map(content) == other.0.map(content)
    }

    pub(super) fn of(path: &Path) -> Self {
        Fingerprint(["", "-wal", "-journal"].map(|suffix| {
            let facts = fs::metadata(companion(path, suffix)).ok()?;
            // A reader creates an empty WAL, and the last connection to close removes it.
            if facts.len() == 0 && !suffix.is_empty() {
                return None;
            }
            let changed = [(facts.mtime(), facts.mtime_nsec()), (facts.ctime(), facts.ctime_nsec())];
            Some(FileFingerprint { identity: (facts.dev(), facts.ino(), facts.len()), changed })
        }))
    }

    /// Returns the time of the newest change of content or attributes.
    pub(super) fn newest_change(&self) -> Option<SystemTime> {
        let newest = self.0.iter().flatten().flat_map(|file| file.changed).max()?;
        let since = Duration::new(u64::try_from(newest.0).ok()?, u32::try_from(newest.1).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    }
}
