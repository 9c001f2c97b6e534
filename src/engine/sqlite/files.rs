//! The files of a database: the main file, and its WAL and journal beside it. None is opened here.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::platform::error::Result;
use crate::platform::interrupt;

/// The age from which a time of change is certainly older than any later one: the kernel's clock for files ticks every
/// 10 ms or faster.
const TICK: Duration = Duration::from_millis(20);

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

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of the file at a path, or `None` if there is none.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|facts| FileIdentity::in_facts(&facts))
    }

    /// Returns the identity of the file that has this metadata.
    pub(super) fn in_facts(facts: &fs::Metadata) -> Self {
        FileIdentity { device: facts.dev(), inode: facts.ino() }
    }

    /// Returns true if this process has the file open.
    pub(super) fn is_open(self) -> bool {
        self.descriptor().is_some()
    }

    /// Returns a path at which the facts of a file that this process has open can be read, also if the file was renamed
    /// or deleted: that of its descriptor. Returns `path` where the system does not show descriptors.
    pub(super) fn descriptor_or(self, path: &Path) -> PathBuf {
        self.descriptor().unwrap_or_else(|| path.to_owned())
    }

    fn descriptor(self) -> Option<PathBuf> {
        let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).find(|path| FileIdentity::at(path) == Some(self))
    }
}

/// The metadata of a file that change when somebody writes to it, or puts another file in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) identity: FileIdentity,
    /// The length.
    pub(super) bytes: u64,
    /// The time of the last change of its content, in seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    /// The time of the last change of its content or attributes.
    changed: (i64, i64),
}

impl FileState {
    /// Returns the state of the file at a path, or `None` if there is none. The file is not opened.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let facts = fs::metadata(path).ok()?;
        Some(FileState {
            identity: FileIdentity::in_facts(&facts),
            bytes: facts.len(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        })
    }

    fn last_change(&self) -> (i64, i64) {
        self.modified.max(self.changed)
    }

    /// Returns the time since the last change; `None` if that is in the future.
    pub(super) fn age(&self) -> Option<Duration> {
        let (seconds, nanos) = self.last_change();
        let since = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?);
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + since).ok()
    }
}

/// The states of a file and its companions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([Option<FileState>; 3]);

impl Fingerprint {
    pub(super) fn of(path: &Path) -> Self {
        // A reader creates an empty WAL, and the last connection to close removes it.
        let state =
            |suffix: &str| FileState::at(&companion(path, suffix)).filter(|state| state.bytes > 0 || suffix.is_empty());
        Fingerprint(["", "-wal", "-journal"].map(state))
    }

    /// Returns the states, when every write from now on is certain to change them. Fails after a signal.
    pub(super) fn settled(path: &Path) -> Result<Self> {
        let states = Fingerprint::of(path);
        wait_for_next_tick(states.0.iter().flatten())?;
        Ok(states)
    }

    /// Returns true if both describe the same files with the same content, as far as lengths and times show. Attributes
    /// may differ: a connection of root gives every WAL that it opens the owner of the database.
    pub(super) fn has_same_content(&self, other: &Fingerprint) -> bool {
        let content = |file: Option<FileState>| file.map(|file| (file.identity, file.bytes, file.modified));
        self.0.map(content) == other.0.map(content)
    }

    /// Returns the time since the newest change; `None` if that is in the future.
    pub(super) fn age(&self) -> Option<Duration> {
        let mut ages = self.0.iter().flatten().map(FileState::age);
        let first = ages.next()??;
        ages.try_fold(first, |newest, age| Some(newest.min(age?)))
    }

    /// Returns the main file; `None` if it does not exist.
    pub(super) fn main(&self) -> Option<FileState> {
        self.0[0]
    }

    /// Returns the lengths of the main file, the WAL and the journal; 0 for one that does not exist.
    pub(super) fn bytes(&self) -> [u64; 3] {
        self.0.map(|file| file.map_or(0, |file| file.bytes))
    }
}

/// Waits until the times of the next change are certain to differ from those of the last one: a write within the same
/// tick of the clock as an earlier one does not change them. Fails after a signal.
pub(super) fn wait_for_next_tick<'a>(files: impl Iterator<Item = &'a FileState>) -> Result<()> {
    let Some(newest) = files.max_by_key(|file| file.last_change()) else { return Ok(()) };
    // A time in the future is of a clock that was, or is, wrong.
    interrupt::sleep(newest.age().map_or(TICK, |age| TICK.saturating_sub(age)))
}
