//! `restore`: puts a snapshot back, and says how to undo it.

mod build;
mod postgres;
mod sqlite;

use clap::Args;
use serde::Serialize;

use crate::ops::{Context, NarrowArgs, Report, fetch};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;

pub(crate) use postgres::{drill as drill_postgres, origin_params, target_word};

/// Restores a snapshot, after a safety snapshot of what it overwrites
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT")]
    pub snapshot: String,
    /// Which snapshots are meant
    #[command(flatten)]
    pub narrow: NarrowArgs,
    /// The database file or URL to write; by default where the snapshot came from
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,
    /// Insist on a new file; PostgreSQL: create the database
    #[arg(long, conflicts_with_all = ["replace", "swap", "beside"])]
    pub create: bool,
    /// Overwrite what is there, even while programs have it open
    #[arg(long, conflicts_with_all = ["swap", "beside"])]
    pub replace: bool,
    /// PostgreSQL: build a new database beside, then exchange the two; the old one is kept
    #[arg(long, conflicts_with = "beside")]
    pub swap: bool,
    /// PostgreSQL: end the sessions of others in a database that is exchanged
    #[arg(long, requires = "swap")]
    pub disconnect: bool,
    /// PostgreSQL: bring the tables back under this new schema, to look at and copy from
    #[arg(long, value_name = "SCHEMA")]
    pub beside: Option<String>,
    /// PostgreSQL: all belongs to the role that restores; no grants
    #[arg(long)]
    pub no_owner: bool,
    /// PostgreSQL: restore a snapshot that lacks something all the same
    #[arg(long)]
    pub allow_partial: bool,
    /// PostgreSQL: the longest to wait for others' locks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub lock_timeout: u64,
    /// Only these tables, into an existing database: a name, or a pattern with * and ? (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub table: Vec<String>,
    /// TimescaleDB: of the hypertables named with --table only rows from this time on, read as the column of time is (a
    /// time with or without a zone, then UTC's; a date; a number); other rows stay
    #[arg(long, value_name = "TIME", requires = "table", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// TimescaleDB: of the hypertables named with --table only rows before this time
    #[arg(long, value_name = "TIME", requires = "table", allow_hyphen_values = true)]
    pub until: Option<String>,
    /// TimescaleDB: make ordinary tables of hypertables and continuous aggregates, for a server without the extension;
    /// what only the extension can do is left out, and named
    #[arg(long)]
    pub plain_tables: bool,
    /// Go on without a safety snapshot of what is overwritten
    #[arg(long)]
    pub no_safety: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// As the command line has it where nothing is said.
impl Default for RestoreArgs {
    fn default() -> Self {
        RestoreArgs {
            snapshot: String::new(),
            narrow: NarrowArgs::default(),
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
            yes: false,
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

impl Report for RestoreReport {
    fn text(&self) -> String {
        let rows: u64 = self.tables.iter().filter_map(|table| table.rows).sum();
        let apart = self.tables.iter().filter(|table| !table.ok).count();
        let done = if self.dry_run { "would be restored" } else { "restored" };
        let mut lines = format!("{} {done} to {} ({})\n", self.id, one_line(&self.target), self.mode);
        if let Some(window) = &self.window {
            lines.push_str(&format!("  only rows {}\n", one_line(window)));
        }
        if self.dry_run {
            lines.push_str(&format!("  {} tables; nothing was changed\n", self.tables.len()));
        } else {
            let took = text::seconds(self.seconds);
            lines.push_str(&format!(
                "  {} tables, {rows} rows, compared and equal, in {took}\n",
                self.tables.len() - apart
            ));
            if apart > 0 {
                lines.push_str(&format!("  {apart} tables could not be compared: they cannot be read here\n"));
            }
        }
        for path in &self.moved_aside {
            lines.push_str(&format!("  moved aside: {}\n", one_line(path)));
        }
        if let Some(undo) = &self.undo {
            lines.push_str(&format!("  undo: {undo}\n"));
        }
        lines
    }
}

/// What is to be done, found out before anything is.
pub struct RestorePlan(Engine);

enum Engine {
    Sqlite(Box<sqlite::Plan>),
    Postgres(Box<postgres::Plan>),
}

impl RestorePlan {
    /// Finds the snapshot and looks at the target; changes nothing.
    pub fn make(args: &RestoreArgs, context: &Context) -> Result<Self> {
        let catalog = context.open_catalog()?;
        let listed = catalog.find(&args.snapshot, &(&args.narrow).into())?;
        RestorePlan::of(&listed.id, catalog, args, context)
    }

    /// The same for a snapshot that was found.
    pub(crate) fn of(id: &SnapshotId, catalog: Catalog, args: &RestoreArgs, context: &Context) -> Result<Self> {
        let opened = fetch::open(&catalog, id, context)?;
        Ok(RestorePlan(if opened.manifest.postgres.is_some() {
            Engine::Postgres(Box::new(postgres::Plan::make(args, catalog, opened, context)?))
        } else {
            Engine::Sqlite(Box::new(sqlite::Plan::make(args, catalog, opened, context)?))
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
    pub fn run(self, args: &RestoreArgs, context: &Context) -> Result<RestoreReport> {
        match self.0 {
            Engine::Sqlite(plan) => plan.run(args, context),
            Engine::Postgres(plan) => plan.run(args, context),
        }
    }
}
