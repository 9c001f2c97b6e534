//! `restore`: its arguments, and its result for people.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::narrow::NarrowArgs;
use crate::ops::restore::{RestoreOptions, RestorePlan, RestoreReport};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::{interrupt, text};

/// Restores a snapshot, after a safety snapshot of what it overwrites
#[derive(Args, Clone, Debug)]
pub(super) struct RestoreArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// Which snapshots are meant
    #[command(flatten)]
    narrow: NarrowArgs,
    /// The database file or URL to write; by default where the snapshot came from
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Insist on a new file; PostgreSQL: create the database
    #[arg(long, conflicts_with_all = ["replace", "swap", "beside"])]
    create: bool,
    /// Overwrite what is there, even while programs have it open
    #[arg(long, conflicts_with_all = ["swap", "beside"])]
    replace: bool,
    /// PostgreSQL: build a new database beside, then exchange the two; the old one is kept
    #[arg(long, conflicts_with = "beside")]
    swap: bool,
    /// PostgreSQL: end the sessions of others in a database that is exchanged
    #[arg(long, requires = "swap")]
    disconnect: bool,
    /// PostgreSQL: bring the tables back under this new schema, to look at and copy from
    #[arg(long, value_name = "SCHEMA")]
    beside: Option<String>,
    /// PostgreSQL: all belongs to the role that restores; no grants
    #[arg(long)]
    no_owner: bool,
    /// PostgreSQL: restore a snapshot that lacks something all the same
    #[arg(long)]
    allow_partial: bool,
    /// PostgreSQL: the longest to wait for others' locks, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lock_timeout: u64,
    /// Only these tables, into an existing database: a name, or a pattern with * and ? (repeatable)
    #[arg(long, value_name = "PATTERN")]
    table: Vec<String>,
    /// TimescaleDB: of the hypertables named with --table only rows from this time on, read as the column of time is (a
    /// time with or without a zone, then UTC's; a date; a number); other rows stay
    #[arg(long, value_name = "TIME", requires = "table", allow_hyphen_values = true)]
    from: Option<String>,
    /// TimescaleDB: of the hypertables named with --table only rows before this time
    #[arg(long, value_name = "TIME", requires = "table", allow_hyphen_values = true)]
    until: Option<String>,
    /// TimescaleDB: make ordinary tables of hypertables and continuous aggregates, for a server without the extension;
    /// what only the extension can do is left out, and named
    #[arg(long)]
    plain_tables: bool,
    /// Go on without a safety snapshot of what is overwritten
    #[arg(long)]
    no_safety: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
}

impl From<RestoreArgs> for RestoreOptions {
    fn from(args: RestoreArgs) -> Self {
        RestoreOptions {
            snapshot: args.snapshot,
            narrow: args.narrow.into(),
            to: args.to,
            create: args.create,
            replace: args.replace,
            swap: args.swap,
            disconnect: args.disconnect,
            beside: args.beside,
            no_owner: args.no_owner,
            allow_partial: args.allow_partial,
            lock_timeout: args.lock_timeout,
            table: args.table,
            from: args.from,
            until: args.until,
            plain_tables: args.plain_tables,
            no_safety: args.no_safety,
            dry_run: args.dry_run,
        }
    }
}

impl Subcommand for RestoreArgs {
    fn name(&self) -> &'static str {
        "restore"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = self.clone().into();
        let plan = RestorePlan::make(&options, &call.context)?;
        if let Some(question) = plan.question().filter(|_| !self.yes && !self.dry_run) {
            ask(&question)?;
        }
        interrupt::listen()?;
        call.finish(&plan.run(&options, &call.context)?)
    }

    // Ctrl-C simply ends the program while it asks.
    fn handles_signals(&self) -> bool {
        true
    }

    fn fields_on_problem(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("id", json!(self.snapshot)),
            ("target", json!(self.to)),
            ("mode", Value::Null),
            ("safety_snapshot", Value::Null),
            ("undo", Value::Null),
            ("tables", json!([])),
            ("seconds", json!(0.0)),
        ]
    }
}

/// Asks for confirmation on a terminal. Without a terminal the arguments count as the confirmation.
fn ask(question: &str) -> Result<()> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(());
    }
    let mut terminal = io::stderr().lock();
    write!(terminal, "{question} [y/N] ").and_then(|()| terminal.flush())?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::new(Kind::Interrupted, "nothing was changed").hint("answer y, or give --yes"))
}

impl Text for RestoreReport {
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
