//! The restore of a database: its settings, its plan, its report, and what it needs from its caller.

use serde::Serialize;

use crate::engine::saving::Saving;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, Result};
use crate::snapshots::manifest::{Manifest, Origin};

/// The objects and properties of a PostgreSQL snapshot that are left out.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the options of pg_restore")]
pub struct Without {
    /// Leave out all privileges.
    pub acl: bool,
    /// Leave out all comments.
    pub comments: bool,
    /// Leave out publications.
    pub publications: bool,
    /// Leave out subscriptions.
    pub subscriptions: bool,
}

impl Without {
    /// Returns the first option that was given.
    #[must_use]
    pub fn option(self) -> Option<&'static str> {
        let options = [
            ("--no-acl", self.acl),
            ("--no-comments", self.comments),
            ("--no-publications", self.publications),
            ("--no-subscriptions", self.subscriptions),
        ];
        options.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }
}

/// The settings of a restore. An engine refuses those that it has no use for.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// Require a new file; PostgreSQL: create the database.
    pub create: bool,
    /// Overwrite the existing data, even while programs have it open.
    pub replace: bool,
    /// PostgreSQL: build a new database, then exchange it with the old one, which is kept.
    pub swap: bool,
    /// PostgreSQL: end the sessions of others in a database that is exchanged.
    pub disconnect: bool,
    /// PostgreSQL: restore the tables into this new schema, to inspect and copy from.
    pub beside: Option<String>,
    /// PostgreSQL: the role that restores owns everything; no grants.
    pub no_owner: bool,
    /// PostgreSQL: make the roles that are missing on the server.
    pub create_roles: bool,
    /// PostgreSQL: store everything in the database's own tablespace.
    pub no_tablespaces: bool,
    /// PostgreSQL: the objects that are left out.
    pub without: Without,
    /// PostgreSQL: restore a snapshot even if it is incomplete, and without objects whose code fails.
    pub allow_partial: bool,
    /// PostgreSQL: the restore runs by itself, so that nobody can allow that generated columns get other values.
    pub by_itself: bool,
    /// PostgreSQL: the maximum wait for the locks of other sessions, in seconds.
    pub lock_timeout: u64,
    /// Only these tables, into an existing database: names, or patterns with * and ?.
    pub table: Vec<String>,
    /// TimescaleDB: restore only the rows from this time on.
    pub from: Option<String>,
    /// TimescaleDB: restore only the rows before this time.
    pub until: Option<String>,
    /// TimescaleDB: restore hypertables and continuous aggregates as ordinary tables.
    pub plain_tables: bool,
    /// Continue without a safety snapshot of the data that is overwritten.
    pub no_safety: bool,
    /// Change nothing.
    pub dry_run: bool,
}

/// Sets the defaults of the command line.
impl Default for RestoreSettings {
    fn default() -> Self {
        RestoreSettings {
            create: false,
            replace: false,
            swap: false,
            disconnect: false,
            beside: None,
            no_owner: false,
            create_roles: false,
            no_tablespaces: false,
            without: Without::default(),
            allow_partial: false,
            by_itself: false,
            lock_timeout: 30,
            table: Vec::new(),
            from: None,
            until: None,
            plain_tables: false,
            no_safety: false,
            dry_run: false,
        }
    }
}

/// A snapshot whose content can be read.
pub trait SavedSnapshot {
    /// Returns the complete manifest.
    fn manifest(&self) -> &Manifest;

    /// Returns the path and length of every entry, in the order of the archive.
    fn entries(&self) -> Vec<(&str, u64)>;

    /// Reads a small entry into memory. Fails if it has more than `max_bytes`.
    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>>;

    /// Reads every byte of the archive, and passes all entries to `visitor`. Fails if any byte differs from what was
    /// written.
    fn read_all(&self, visitor: &mut dyn EntryVisitor) -> Result<()>;

    /// Reads only the entries whose paths `is_wanted` accepts, and fails if any byte of them differs from what was
    /// written.
    fn read_some(&self, is_wanted: &dyn Fn(&str) -> bool, visitor: &mut dyn EntryVisitor) -> Result<()>;
}

/// The caller of a restore, as far as the restore needs it.
pub trait RestoreCaller {
    /// Saves the data that is about to be overwritten into the store that the snapshot is in. Returns the id of the
    /// safety snapshot.
    fn save_safety(&self, origin: Origin, saving: &mut dyn Saving) -> Result<String>;

    /// Returns a `lifeboat` command on the snapshot's store that the reader can copy.
    fn command_line(&self, words: &[&str]) -> String;

    /// Returns the word for a database in a printed command: its name in the config, which has its password, or
    /// `shown`.
    fn target_word(&self, shown: &str) -> Result<String>;
}

/// A plan of a restore, made before anything is changed.
pub trait RestorePlan {
    /// Returns the question to ask the user before data is overwritten, or `None` if nothing is overwritten.
    fn question(&self) -> Option<String>;

    /// Returns the report of a restore that changes nothing: the tables that would be restored.
    fn preview(&self) -> Result<RestoreReport>;

    /// Carries the plan out; if the restore is a dry run, does the same as [`preview`](Self::preview).
    fn run(&self, caller: &dyn RestoreCaller) -> Result<RestoreReport>;
}

/// One restored table.
#[derive(Debug, Serialize)]
pub struct RestoredTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Option<u64>,
    /// True if it was compared with the snapshot and is equal.
    pub ok: bool,
}

/// A table whose rows a restore replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overwritten {
    /// Its name.
    pub table: String,
    /// The rows that it has now; `None` if there is no such table, or if they cannot be counted.
    pub rows_now: Option<u64>,
    /// The rows that it has afterwards; `None` if it is dropped, or if the snapshot does not know them.
    pub rows_after: Option<u64>,
}

/// An object that was not created: an index or a trigger of a restored table; of PostgreSQL, any object whose code fails.
#[derive(Clone, Debug, Serialize)]
pub struct LeftOut {
    /// `index`, `trigger` or another kind of object; of PostgreSQL also `rows` and `generated values`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its table.
    pub table: String,
    /// The reason.
    pub reason: String,
    /// The statements that create it.
    pub statements: Vec<String>,
}

/// A trigger of a restored table that did not run for the restored rows.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedTrigger {
    /// Its name.
    pub name: String,
    /// The restored table.
    pub table: String,
    /// The tables that it writes to, which may be out of date.
    pub writes: Vec<String>,
}

/// A report of what was restored, and to which target.
#[derive(Debug, Serialize)]
pub struct RestoreReport {
    /// The snapshot.
    pub id: String,
    /// The file, or the database's URL without its password.
    pub target: String,
    /// `create`, `replace`, `replace-damaged` or `tables`; of PostgreSQL also `empty`, `swap` and `beside`.
    pub mode: String,
    /// True if nothing was done.
    pub dry_run: bool,
    /// The time window of the restored rows, in words; absent if all rows were restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// The snapshot of the data that was overwritten.
    pub safety_snapshot: Option<String>,
    /// The command that restores the previous state.
    pub undo: Option<String>,
    /// Every table, with its rows.
    pub tables: Vec<RestoredTable>,
    /// Only of a dry run: the tables whose rows would be replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overwrites: Vec<Overwritten>,
    /// Only of a dry run: the seconds that it would take, as measured by the newest drill of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_seconds: Option<f64>,
    /// Files that were moved out of the way.
    pub moved_aside: Vec<String>,
    /// Facts that the reader should know: an owner that differs from the saved one, or work that is left to do.
    pub notes: Vec<String>,
    /// SQLite, restored tables: the full-text indexes that were built again from their tables, and the indexes kept by
    /// triggers that were copied from the snapshot; all of them were checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rebuilt: Vec<String>,
    /// The objects that were not created. SQLite, restored tables: indexes and triggers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// PostgreSQL: true if objects or rows of the snapshot could not be restored, and this was allowed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_incomplete: bool,
    /// SQLite, restored tables: the triggers that did not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_triggers: Vec<SkippedTrigger>,
    /// Seconds for reading, hashing, decompressing and writing.
    pub stream_seconds: f64,
    /// Seconds of waiting for the disk.
    pub sync_seconds: f64,
    /// Seconds for SQLite's checks, row counts and digests.
    pub check_seconds: f64,
    /// Seconds in all.
    pub seconds: f64,
}

impl RestoreReport {
    /// Creates the report of a restore that has not begun.
    #[must_use]
    pub fn new(id: String, target: String, mode: &str, dry_run: bool) -> Self {
        RestoreReport {
            id,
            target,
            mode: mode.to_owned(),
            dry_run,
            window: None,
            safety_snapshot: None,
            undo: None,
            tables: Vec::new(),
            overwrites: Vec::new(),
            estimated_seconds: None,
            moved_aside: Vec::new(),
            notes: Vec::new(),
            rebuilt: Vec::new(),
            left_out: Vec::new(),
            is_incomplete: false,
            skipped_triggers: Vec::new(),
            stream_seconds: 0.0,
            sync_seconds: 0.0,
            check_seconds: 0.0,
            seconds: 0.0,
        }
    }
}

/// Returns the error for a restore that stopped because the data that it would overwrite could not be saved.
pub(crate) fn safety_failed(error: Error) -> Error {
    let error = error.context("cannot save the data that would be overwritten; nothing was changed");
    match error.hint {
        None => error.hint("--no-safety restores without a safety snapshot: the overwritten data is then lost"),
        Some(_) => error,
    }
}
