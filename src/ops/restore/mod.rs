//! `restore`: restores a snapshot, and reports how to undo that.

mod build;
mod postgres;
mod sqlite;

use serde::Serialize;

use crate::ops::{Context, Narrow, Report, fetch};
use crate::platform::error::Result;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;

pub(crate) use postgres::{drill as drill_postgres, origin_params, target_word};

/// Options of a restore.
#[derive(Clone, Debug)]
pub(crate) struct RestoreOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: String,
    /// Restrict the search to these snapshots
    pub narrow: Narrow,
    /// The database file or URL to write; by default the origin of the snapshot
    pub to: Option<String>,
    /// Require a new file; PostgreSQL: create the database
    pub create: bool,
    /// Overwrite the existing data, even while programs have it open
    pub replace: bool,
    /// PostgreSQL: build a new database, then exchange it with the old one, which is kept
    pub swap: bool,
    /// PostgreSQL: end the sessions of others in a database that is exchanged
    pub disconnect: bool,
    /// PostgreSQL: restore the tables into this new schema, to inspect and copy from
    pub beside: Option<String>,
    /// PostgreSQL: the role that restores owns everything; no grants
    pub no_owner: bool,
    /// PostgreSQL: restore a snapshot even if it is incomplete
    pub allow_partial: bool,
    /// PostgreSQL: the longest to wait for others' locks, in seconds
    pub lock_timeout: u64,
    /// Only these tables, into an existing database: a name, or a pattern with * and ? (repeatable)
    pub table: Vec<String>,
    /// TimescaleDB: restore only the rows from this time on of the hypertables named with --table; other rows stay. The
    /// value is read as the time column is (a time with or without a zone, then UTC; a date; a number)
    pub from: Option<String>,
    /// TimescaleDB: restore only the rows before this time of the hypertables named with --table
    pub until: Option<String>,
    /// TimescaleDB: restore hypertables and continuous aggregates as ordinary tables, for a server without the
    /// extension; what only the extension can do is left out, and named
    pub plain_tables: bool,
    /// Continue without a safety snapshot of the data that is overwritten
    pub no_safety: bool,
    /// Show what would be done, and do nothing
    pub dry_run: bool,
}

/// Sets the defaults of the command line.
impl Default for RestoreOptions {
    fn default() -> Self {
        RestoreOptions {
            snapshot: String::new(),
            narrow: Narrow::default(),
            to: None,
            create: false,
            replace: false,
            swap: false,
            disconnect: false,
            beside: None,
            no_owner: false,
            allow_partial: false,
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

/// One restored table.
#[derive(Debug, Serialize)]
pub(crate) struct RestoredTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Option<u64>,
    /// True if it was compared with the snapshot and is equal.
    pub ok: bool,
}

/// A report of what was restored, and to which target.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreReport {
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
    /// Files that were moved out of the way.
    pub moved_aside: Vec<String>,
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
    fn new(id: String, target: String, mode: &str, dry_run: bool) -> Self {
        RestoreReport {
            id,
            target,
            mode: mode.to_owned(),
            dry_run,
            window: None,
            safety_snapshot: None,
            undo: None,
            tables: Vec::new(),
            moved_aside: Vec::new(),
            stream_seconds: 0.0,
            sync_seconds: 0.0,
            check_seconds: 0.0,
            seconds: 0.0,
        }
    }
}

impl Report for RestoreReport {}

/// A plan of a restore, made before anything is changed.
pub(crate) struct RestorePlan(Engine);

enum Engine {
    Sqlite(Box<sqlite::Plan>),
    Postgres(Box<postgres::Plan>),
}

impl RestorePlan {
    /// Finds the snapshot and inspects the target; changes nothing.
    pub(crate) fn make(options: &RestoreOptions, context: &Context) -> Result<Self> {
        let catalog = context.open_catalog()?;
        let listed = catalog.find(&options.snapshot, &options.narrow)?;
        RestorePlan::of(&listed.id, catalog, options, context)
    }

    /// Plans the restore of a snapshot that was already found.
    pub(crate) fn of(id: &SnapshotId, catalog: Catalog, options: &RestoreOptions, context: &Context) -> Result<Self> {
        let opened = fetch::open(&catalog, id, context)?;
        Ok(RestorePlan(if opened.manifest.postgres.is_some() {
            Engine::Postgres(Box::new(postgres::Plan::make(options, catalog, opened, context)?))
        } else {
            Engine::Sqlite(Box::new(sqlite::Plan::make(options, catalog, opened, context)?))
        }))
    }

    /// Returns the question to ask the user before data is overwritten, or `None` if nothing is overwritten.
    #[must_use]
    pub(crate) fn question(&self) -> Option<String> {
        match &self.0 {
            Engine::Sqlite(plan) => plan.question(),
            Engine::Postgres(plan) => plan.question(),
        }
    }

    /// Carries the plan out.
    pub(crate) fn run(self, options: &RestoreOptions, context: &Context) -> Result<RestoreReport> {
        match self.0 {
            Engine::Sqlite(plan) => plan.run(options, context),
            Engine::Postgres(plan) => plan.run(options, context),
        }
    }
}
