//! `restore`: puts a snapshot back, and says how to undo it.

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
pub struct RestoreOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: String,
    /// Which snapshots are meant
    pub narrow: Narrow,
    /// The database file or URL to write; by default where the snapshot came from
    pub to: Option<String>,
    /// Insist on a new file; PostgreSQL: create the database
    pub create: bool,
    /// Overwrite what is there, even while programs have it open
    pub replace: bool,
    /// PostgreSQL: build a new database beside, then exchange the two; the old one is kept
    pub swap: bool,
    /// PostgreSQL: end the sessions of others in a database that is exchanged
    pub disconnect: bool,
    /// PostgreSQL: bring the tables back under this new schema, to look at and copy from
    pub beside: Option<String>,
    /// PostgreSQL: all belongs to the role that restores; no grants
    pub no_owner: bool,
    /// PostgreSQL: restore a snapshot that lacks something all the same
    pub allow_partial: bool,
    /// PostgreSQL: the longest to wait for others' locks, in seconds
    pub lock_timeout: u64,
    /// Only these tables, into an existing database: a name, or a pattern with * and ? (repeatable)
    pub table: Vec<String>,
    /// TimescaleDB: of the hypertables named with --table only rows from this time on, read as the column of time is (a
    /// time with or without a zone, then UTC's; a date; a number); other rows stay
    pub from: Option<String>,
    /// TimescaleDB: of the hypertables named with --table only rows before this time
    pub until: Option<String>,
    /// TimescaleDB: make ordinary tables of hypertables and continuous aggregates, for a server without the extension;
    /// what only the extension can do is left out, and named
    pub plain_tables: bool,
    /// Go on without a safety snapshot of what is overwritten
    pub no_safety: bool,
    /// Say what would be done, and do nothing
    pub dry_run: bool,
}

/// As the command line has it where nothing is said.
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
pub struct RestoredTable {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: Option<u64>,
    /// True where it was compared with the snapshot and is equal.
    pub ok: bool,
}

/// What was restored to where.
#[derive(Debug, Serialize)]
pub struct RestoreReport {
    /// The snapshot.
    pub id: String,
    /// The file, or the database's URL without its password.
    pub target: String,
    /// `create`, `replace`, `replace-damaged` or `tables`; of PostgreSQL also `empty`, `swap` and `beside`.
    pub mode: String,
    /// True where nothing was done.
    pub dry_run: bool,
    /// The time of which alone rows were restored, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// The snapshot of what was overwritten.
    pub safety_snapshot: Option<String>,
    /// The command that brings back what was there before.
    pub undo: Option<String>,
    /// Every table, with its rows.
    pub tables: Vec<RestoredTable>,
    /// Files that were moved out of the way.
    pub moved_aside: Vec<String>,
    /// Reading, hashing, decompressing and writing.
    pub stream_seconds: f64,
    /// Waiting for the disk.
    pub sync_seconds: f64,
    /// SQLite's checks, row counts and digests.
    pub check_seconds: f64,
    /// All of it.
    pub seconds: f64,
}

impl RestoreReport {
    /// A report of nothing done yet.
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

/// What is to be done, found out before anything is.
pub struct RestorePlan(Engine);

enum Engine {
    Sqlite(Box<sqlite::Plan>),
    Postgres(Box<postgres::Plan>),
}

impl RestorePlan {
    /// Finds the snapshot and looks at the target; changes nothing.
    pub fn make(options: &RestoreOptions, context: &Context) -> Result<Self> {
        let catalog = context.open_catalog()?;
        let listed = catalog.find(&options.snapshot, &options.narrow)?;
        RestorePlan::of(&listed.id, catalog, options, context)
    }

    /// The same for a snapshot that was found.
    pub(crate) fn of(id: &SnapshotId, catalog: Catalog, options: &RestoreOptions, context: &Context) -> Result<Self> {
        let opened = fetch::open(&catalog, id, context)?;
        Ok(RestorePlan(if opened.manifest.postgres.is_some() {
            Engine::Postgres(Box::new(postgres::Plan::make(options, catalog, opened, context)?))
        } else {
            Engine::Sqlite(Box::new(sqlite::Plan::make(options, catalog, opened, context)?))
        }))
    }

    /// The question to ask a person before anything is overwritten; None where nothing is.
    #[must_use]
    pub fn question(&self) -> Option<String> {
        match &self.0 {
            Engine::Sqlite(plan) => plan.question(),
            Engine::Postgres(plan) => plan.question(),
        }
    }

    /// Carries the plan out.
    pub fn run(self, options: &RestoreOptions, context: &Context) -> Result<RestoreReport> {
        match self.0 {
            Engine::Sqlite(plan) => plan.run(options, context),
            Engine::Postgres(plan) => plan.run(options, context),
        }
    }
}
