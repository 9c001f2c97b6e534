//! Detects changes of a database, while it is read, that do not come from SQLite: another file under its name, a file
//! that is copied over it, a WAL that is removed. SQLite's locks do not prevent them, and a reader would see pages of
//! both states.
//!
//! In a rollback-journal mode, nobody may write while a reader holds its lock. In WAL mode, checkpoints write to the main
//! file; the index of the WAL shows whether there was one. A write cannot be distinguished from a checkpoint that does
//! not end; then only the main file and the WAL are compared.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::companions;
use super::files::{FileIdentity, FileState, companion, wait_for_next_tick};
use super::main_file::{Checkpoint, MainFile};
use crate::platform::error::{Kind, Result};
use crate::platform::interrupt;

/// A watch over the main file of a database that is read.
pub(super) struct OutsideWrites {
    path: PathBuf,
    /// A path of the descriptor that is read, which stays valid if the file is renamed or deleted.
    descriptor: PathBuf,
    is_wal: bool,
    before: State,
}

/// The state of the files.
struct State {
    file: Option<FileState>,
    checkpoint: Option<Checkpoint>,
    wal: Option<FileIdentity>,
}

/// The age from which a file is taken for one that nobody is writing to now, and the time after which a younger one is
/// read again.
const RECENT: Duration = Duration::from_secs(1);
const SECOND_LOOK: Duration = Duration::from_millis(100);

/// Returns true if somebody writes to a file that SQLite cannot read: it is then half of two states, and not damaged.
/// `before` is from before it was read.
pub(super) fn is_being_written(path: &Path, before: Option<FileState>) -> Result<bool> {
    if before.and_then(|before| before.age()).is_some_and(|age| age < RECENT) {
        interrupt::sleep(SECOND_LOOK)?;
    }
    Ok(FileState::at(path) != before)
}

impl OutsideWrites {
    /// Begins to watch the file that a connection has open in a read transaction.
    pub(super) fn watch(connection: &Connection, path: &Path, identity: FileIdentity, is_wal: bool) -> Result<Self> {
        let descriptor = identity.descriptor_or(path);
        // The checkpoint is read first here, and last in `found`: one that runs in between is then a difference.
        let checkpoint = checkpoint_of(connection, is_wal);
        let before = State { checkpoint, ..State::of(path, &descriptor, is_wal) };
        wait_for_next_tick(before.file.iter())?;
        Ok(OutsideWrites { path: path.to_owned(), descriptor, is_wal, before })
    }

    /// Describes a change since the watch began; `None` if there was none. `connection` is the one from the beginning.
    pub(super) fn found(&self, connection: &Connection) -> Option<String> {
        let mut now = State::of(&self.path, &self.descriptor, self.is_wal);
        now.checkpoint = checkpoint_of(connection, self.is_wal);
        if !self.is_wal {
            return (now.file != self.before.file).then(|| "its file was changed despite SQLite's lock".to_owned());
        }
        let has_moved = self.has_moved(connection);
        if now.wal != self.before.wal && !has_moved {
            return Some("its WAL was removed or replaced".to_owned());
        }
        let content = |state: &State| state.file.map(|file| (file.bytes, file.modified));
        if content(&now) == content(&self.before) {
            return None;
        }
        let is_same = now.checkpoint.is_some() && now.checkpoint == self.before.checkpoint;
        if is_same && now.checkpoint.is_some_and(|checkpoint| !checkpoint.is_running()) {
            return Some("its file was changed, but not by a checkpoint".to_owned());
        }
        if has_moved {
            return None;
        }
        let compared = companions::require_matching(connection, &self.path);
        compared.err().filter(|error| error.kind == Kind::Problem).map(|error| error.message)
    }

    /// Returns true if another file, or none, is at the path by now. The file that was opened is still complete.
    pub(super) fn has_moved(&self, connection: &Connection) -> bool {
        MainFile::of(connection).is_some_and(|file| file.has_moved())
    }
}

impl State {
    /// Returns the state without the checkpoint.
    fn of(path: &Path, descriptor: &Path, is_wal: bool) -> Self {
        let wal = is_wal.then(|| FileIdentity::at(&companion(path, "-wal"))).flatten();
        State { file: FileState::at(descriptor), checkpoint: None, wal }
    }
}

fn checkpoint_of(connection: &Connection, is_wal: bool) -> Option<Checkpoint> {
    let read = || MainFile::of(connection).and_then(|file| file.checkpoint());
    is_wal.then(read).flatten()
}
