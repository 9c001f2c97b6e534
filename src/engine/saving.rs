//! The save of a database, in two steps: first the state that is saved is fixed, then its content is written.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::engine::postgres::provider::Provider;
use crate::platform::entries::EntryWriter;
use crate::platform::error::{Error, Result};
use crate::platform::progress::Progress;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::{Depth, Origin, PostgresFacts, SqliteFacts, Table};

/// The settings of a save. An engine ignores those that it has no use for.
#[derive(Clone, Debug)]
pub struct SaveRequest {
    /// Save a database that is damaged.
    pub allow_damaged: bool,
    /// Save an empty database.
    pub allow_empty: bool,
    /// SQLite: the maximum time that writers may be locked out.
    pub max_lock: Duration,
    /// SQLite: the check that the database must pass.
    pub check: Depth,
    /// PostgreSQL: the maximum wait for the locks of other sessions.
    pub lock_timeout: Duration,
    /// PostgreSQL: patterns of the tables to save; all tables if it is empty.
    pub tables: Vec<String>,
    /// PostgreSQL: patterns of the tables to leave out.
    pub exclude_tables: Vec<String>,
    /// PostgreSQL: patterns of the tables of which only the definition is saved.
    pub exclude_data: Vec<String>,
    /// PostgreSQL: save no rows.
    pub schema_only: bool,
    /// PostgreSQL: continue without what cannot be saved.
    pub allow_partial: bool,
    /// PostgreSQL: leave out what this provider owns; `None` for the source's provider, if it has one.
    pub provider: Option<Provider>,
}

/// Sets the defaults of the command line.
impl Default for SaveRequest {
    fn default() -> Self {
        SaveRequest {
            allow_damaged: false,
            allow_empty: false,
            max_lock: Duration::from_secs(300),
            check: Depth::Quick,
            lock_timeout: Duration::from_secs(30),
            tables: Vec::new(),
            exclude_tables: Vec::new(),
            exclude_data: Vec::new(),
            schema_only: false,
            allow_partial: false,
            provider: None,
        }
    }
}

impl SaveRequest {
    /// Returns the first given flag of the command line that only PostgreSQL supports.
    pub(super) fn postgres_only(&self) -> Option<&'static str> {
        let given = [
            ("--table", !self.tables.is_empty()),
            ("--exclude-table", !self.exclude_tables.is_empty()),
            ("--exclude-data", !self.exclude_data.is_empty()),
            ("--schema-only", self.schema_only),
            ("--allow-partial", self.allow_partial),
            ("--provider", self.provider.is_some()),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

/// The identity of a snapshot that is being taken.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The snapshot's id.
    pub id: &'a SnapshotId,
    /// The place that the database is in.
    pub origin: &'a Origin,
    /// The archive's file name.
    pub archive: &'a str,
}

/// The state of a database, which stays as it is until this is dropped.
pub trait Saving {
    /// Returns the time of the state.
    fn started(&self) -> DateTime<Utc>;

    /// Returns an upper limit for the number of bytes of the content, as far as it is known.
    fn max_bytes(&self) -> u64;

    /// Returns the text of the archive's first entry: an explanation of the archive, and how to get the data back
    /// without this program.
    fn readme(&self, identity: Identity<'_>) -> String;

    /// Writes the content. Called once.
    fn write(
        &mut self,
        identity: Identity<'_>,
        out: &mut dyn EntryWriter,
        progress: &dyn Progress,
    ) -> Result<SavedContent>;
}

/// The content of a saved database, as it is recorded in the manifest.
pub struct SavedContent {
    /// The tables, with their rows and digests.
    pub tables: Vec<Table>,
    /// The number of rows of all tables.
    pub rows: u64,
    /// The number of bytes of the data, before compression.
    pub raw_bytes: u64,
    /// The version of the server or library that read it.
    pub server_version: String,
    /// True if the database is damaged.
    pub is_damaged: bool,
    /// True if a part of the database was left out, or could not be saved.
    pub is_partial: bool,
    /// True if the tables are all those of the database, so that they can be compared with an earlier snapshot.
    pub has_all_tables: bool,
    /// The facts of an SQLite database.
    pub sqlite: Option<SqliteFacts>,
    /// The facts of a PostgreSQL database.
    pub postgres: Option<PostgresFacts>,
}

/// Returns the error for a database without tables or rows, so that it never silently becomes the newest good backup.
pub(crate) fn empty(what: &str) -> Error {
    Error::problem(format!("the database is empty: {what}"))
        .hint("check that this is the right database and that its volume is mounted; --allow-empty saves it anyway")
}
