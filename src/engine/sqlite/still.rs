//! Checks that nobody writes to a database for a while, and reports the changes if somebody does.
//!
//! Meanwhile a connection is held, which takes no lock that blocks a writer. It detects every commit of another
//! connection (`PRAGMA data_version`). The change counter in the file's header, the start of the WAL and the metadata
//! of the files detect writes that are not commits, such as checkpoints.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::connection::explain;
use super::files::{Fingerprint, companion, file_bytes};
use super::header::{Content, Header};
use super::main_file::MainFile;
use super::reading::Reading;
use super::target::data_version;
use crate::platform::disk::{open_plain, shown};
use crate::platform::error::{Error, Kind, Result};

/// A database that is watched.
pub(crate) struct Watched {
    /// `None` if the database can only be read from a copy. Then only the metadata of its files are watched.
    connection: Option<Connection>,
    /// Dropped after the connection.
    _reading: Option<Reading>,
    path: PathBuf,
    first: State,
}

/// The state of a file before this process opened it.
///
/// While a connection is held, nobody in this process may open the file outside SQLite. So this only notes the state,
/// and other code may open and close the file in between.
pub(crate) struct Before {
    path: PathBuf,
    fingerprint: Fingerprint,
}

impl Before {
    /// Notes the state.
    #[must_use]
    pub(crate) fn note(path: &Path) -> Self {
        Before { path: path.to_owned(), fingerprint: Fingerprint::of(path) }
    }

    /// Begins to watch the database. Fails if somebody has written to it since the state was noted.
    pub(crate) fn hold(self) -> Result<Watched> {
        let content = Content::read(&self.path)
            .map_err(|error| Error::unreachable(format!("cannot read {}", shown(&self.path))).because(error))?;
        if !matches!(content, Content::Database(_)) {
            return Err(Error::problem(format!("{} is no longer a database", shown(&self.path))));
        }
        let watched = Watched::begin(&self.path)?;
        if !watched.first.fingerprint.has_same_content(&self.fingerprint) {
            return Err(written(&self.path, "its files have changed"));
        }
        Ok(watched)
    }
}

fn written(path: &Path, change: &str) -> Error {
    Error::problem(format!("{} was written to meanwhile: {change}", shown(path)))
        .hint("stop the program that writes to it ('lifeboat inventory --watch 30s' names it), and start again")
}

/// The state of a database; every write changes at least one part of it.
struct State {
    version: Option<u32>,
    counter: Option<u32>,
    wal_start: Vec<u8>,
    wal_bytes: u64,
    bytes: u64,
    fingerprint: Fingerprint,
}

/// The length of the WAL's header; its salts change whenever the WAL is restarted.
const WAL_HEADER_BYTES: u64 = 32;

/// The number of descriptors for each watched database, and for the rest of the program.
const FILES_EACH: u64 = 4;
const FILES_BESIDE: u64 = 128;

/// Makes sure that this number of databases can be held open at once; raises the process's own limit if allowed.
pub(crate) fn require_files(databases: usize) -> Result<()> {
    let needed = databases as u64 * FILES_EACH + FILES_BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = rustix::process::Rlimit { current: Some(needed), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).map_err(|error| {
        Error::failed(format!("cannot hold {databases} databases open: this needs {needed} file descriptors"))
            .hint("raise the limit with 'ulimit -n', or watch fewer databases at a time")
            .because(error)
    })
}

impl Watched {
    /// Begins to watch a database (see [`super::source::locate`]).
    pub(crate) fn begin(path: &Path) -> Result<Self> {
        let reading = Reading::in_place(path)?.ok();
        let connection = reading.as_ref().map(Reading::open).transpose()?;
        // Read only after the connection is open: opening a WAL database creates files beside it.
        let first = State::of(connection.as_ref(), path)?;
        Ok(Watched { connection, _reading: reading, path: path.to_owned(), first })
    }

    /// Returns true if the metadata of the files is unchanged. No file is opened, so this is cheap.
    #[must_use]
    pub(crate) fn has_same_metadata(&self) -> bool {
        Fingerprint::of(&self.path).has_same_content(&self.first.fingerprint)
    }

    /// Fails if anything has changed since the watch began.
    pub(crate) fn require_unchanged(&self) -> Result<()> {
        let changes = self.changes()?;
        if changes.is_empty() { Ok(()) } else { Err(written(&self.path, &changes.join(", "))) }
    }

    /// Describes the changes since the watch began; empty if there are none.
    pub(crate) fn changes(&self) -> Result<Vec<String>> {
        if fs::symlink_metadata(&self.path).is_err() {
            return Ok(vec!["the file was removed".to_owned()]);
        }
        let now = match State::of(self.connection.as_ref(), &self.path) {
            Ok(now) => now,
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => return Ok(vec![format!("it can no longer be read: {}", error.full_message())]),
        };
        Ok(self.first.differences(&now))
    }
}

impl State {
    fn of(connection: Option<&Connection>, path: &Path) -> Result<Self> {
        let (mut version, mut counter) = (None, None);
        if let Some(connection) = connection {
            // A connection detects changes by others only when it reads.
            let read = connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()));
            read.map_err(|error| explain(error, &format!("cannot read {}", shown(path))))?;
            version = Some(data_version(connection)?);
            let header = MainFile::of(connection).and_then(|file| Header::of(&file.start()));
            counter = header.map(|header| header.change_counter);
        }
        let wal = companion(path, "-wal");
        Ok(State {
            version,
            counter,
            wal_start: wal_start(&wal),
            wal_bytes: file_bytes(&wal),
            bytes: file_bytes(path),
            fingerprint: Fingerprint::settled(path)?,
        })
    }

    fn differences(&self, now: &State) -> Vec<String> {
        let mut found = Vec::new();
        if now.version != self.version {
            found.push("another program committed to it".to_owned());
        }
        if now.counter != self.counter {
            let number = |counter: Option<u32>| counter.map_or("unreadable".to_owned(), |counter| counter.to_string());
            found.push(format!("its change counter was {} and is now {}", number(self.counter), number(now.counter)));
        }
        if now.wal_start != self.wal_start {
            found.push("its WAL was restarted".to_owned());
        }
        if now.wal_bytes != self.wal_bytes {
            found.push(format!("its WAL had {} bytes and now has {}", self.wal_bytes, now.wal_bytes));
        }
        if now.bytes != self.bytes {
            found.push(format!("it had {} bytes and now has {}", self.bytes, now.bytes));
        }
        if found.is_empty() && !now.fingerprint.has_same_content(&self.fingerprint) {
            found.push("its file, or its WAL or journal, was written to or replaced".to_owned());
        }
        found
    }
}

/// Reads the header of a WAL. SQLite takes no locks on that file, so it may be opened and closed.
fn wal_start(wal: &Path) -> Vec<u8> {
    let mut start = Vec::new();
    match open_plain(wal, OFlags::RDONLY).and_then(|file| file.take(WAL_HEADER_BYTES).read_to_end(&mut start)) {
        Ok(_) => start,
        Err(error) => {
            tracing::debug!("cannot read {}: {error}", shown(wal));
            Vec::new()
        }
    }
}
