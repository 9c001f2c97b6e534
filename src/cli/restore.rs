//! `restore`: its arguments, and its result for people.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::cli::trust::TrustArgs;
use crate::cli::without::WithoutArgs;
use crate::engine::restoring::{Overwritten, RestoreReport, RestoreSettings};
use crate::ops::restore::{RestoreOptions, RestorePlan};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::{interrupt, text};

/// The interval at which the wait for an answer checks whether a signal asked to stop.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Restores a snapshot, after taking a safety snapshot of what it overwrites
#[derive(Args, Clone, Debug)]
pub(super) struct RestoreArgs {
    /// A snapshot id, the start of one, 'latest', or the path of an archive
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// The database file or URL to restore to; default: the database that the snapshot was taken from
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// Fail if the target already exists; PostgreSQL: create the database
    #[arg(long, conflicts_with_all = ["replace", "swap", "beside"])]
    create: bool,
    /// Overwrite the target, even while programs have it open
    #[arg(long, conflicts_with_all = ["swap", "beside"])]
    replace: bool,
    /// PostgreSQL: build a new database, then exchange it with the old one, which is kept under another name
    #[arg(long, conflicts_with = "beside")]
    swap: bool,
    /// PostgreSQL: end the other sessions in the database that is exchanged
    #[arg(long, requires = "swap")]
    disconnect: bool,
    /// PostgreSQL: restore the tables into this new schema, to inspect them and copy from them
    #[arg(long, value_name = "SCHEMA")]
    beside: Option<String>,
    /// PostgreSQL: make the restoring role the owner of all objects, and restore no grants
    #[arg(long)]
    no_owner: bool,
    /// PostgreSQL: make the roles that are missing on the server, without passwords and unable to log in
    #[arg(long, conflicts_with_all = ["no_owner", "replace", "beside"])]
    create_roles: bool,
    /// PostgreSQL: store all tables and indexes in the database's own tablespace
    #[arg(long, conflicts_with_all = ["replace", "beside"])]
    no_tablespaces: bool,
    /// The objects that are left out.
    #[command(flatten)]
    without: WithoutArgs,
    /// PostgreSQL: restore a partial snapshot, and leave out objects whose functions fail; they are named (exit code 3)
    #[arg(long)]
    allow_partial: bool,
    /// PostgreSQL: the maximum time to wait for locks of other sessions, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lock_timeout: u64,
    /// Restore only these tables, into an existing database: a name, or a pattern with * and ? (repeatable)
    #[arg(long, value_name = "PATTERN")]
    table: Vec<String>,
    /// TimescaleDB: restore only the rows of the --table hypertables from this time on, and keep all other rows; the
    /// time has the type of the time column: a time with a zone or without one (then UTC), a date, or a number
    #[arg(long, value_name = "TIME", requires = "table", allow_hyphen_values = true)]
    from: Option<String>,
    /// TimescaleDB: restore only the rows of the --table hypertables before this time
    #[arg(long, value_name = "TIME", requires = "table", allow_hyphen_values = true)]
    until: Option<String>,
    /// TimescaleDB: restore hypertables and continuous aggregates as ordinary tables, for a server without the
    /// extension; features that need the extension are left out and listed
    #[arg(long)]
    plain_tables: bool,
    /// Take no safety snapshot of what is overwritten
    #[arg(long)]
    no_safety: bool,
    /// Print what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short = 'y')]
    yes: bool,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<RestoreArgs> for RestoreOptions {
    fn from(args: RestoreArgs) -> Self {
        RestoreOptions {
            snapshot: args.snapshot,
            filter: args.filter.into(),
            to: args.to,
            settings: RestoreSettings {
                create: args.create,
                replace: args.replace,
                swap: args.swap,
                disconnect: args.disconnect,
                beside: args.beside,
                no_owner: args.no_owner,
                create_roles: args.create_roles,
                no_tablespaces: args.no_tablespaces,
                without: args.without.into(),
                allow_partial: args.allow_partial,
                by_itself: false,
                lock_timeout: args.lock_timeout,
                table: args.table,
                from: args.from,
                until: args.until,
                plain_tables: args.plain_tables,
                no_safety: args.no_safety,
                dry_run: args.dry_run,
            },
        }
    }
}

impl Subcommand for RestoreArgs {
    fn name(&self) -> &'static str {
        "restore"
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = self.clone().into();
        let plan = RestorePlan::make(&options, &call.context)?;
        if let Some(question) = plan.question().filter(|_| !self.yes && !self.dry_run && can_ask()) {
            let preview = plan.preview(&call.context)?;
            ask(&format!("{}{question}", preview_text(&preview)))?;
        }
        call.finish(&plan.run(&call.context)?)
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

/// Returns true if there is a terminal. Without one, the arguments count as the confirmation.
fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for confirmation on the terminal.
fn ask(question: &str) -> Result<()> {
    let mut terminal = io::stderr().lock();
    write!(terminal, "{question} [y/N] ").and_then(|()| terminal.flush())?;
    let answer = read_answer()?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Error::new(Kind::Interrupted, "nothing was changed").hint("answer y, or use --yes"))
}

/// Reads a line from the terminal. Ends early, with an error, after a signal has asked to stop.
fn read_answer() -> Result<String> {
    let (sender, answers) = sync_channel(1);
    // After a signal, the thread is abandoned: the process is about to end.
    let read = move || {
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).map(|_| answer);
        drop(sender.send(read));
    };
    let spawned = thread::Builder::new().name("answer".to_owned()).spawn(read);
    spawned.map_err(|error| Error::failed("cannot start a thread").because(error))?;
    loop {
        match answers.recv_timeout(SIGNAL_CHECK_INTERVAL) {
            Ok(answer) => return Ok(answer?),
            Err(RecvTimeoutError::Timeout) => interrupt::check()?,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::failed("a thread has died")),
        }
    }
}

impl Text for RestoreReport {
    fn text(&self) -> String {
        let rows: u64 = self.tables.iter().filter_map(|table| table.rows).sum();
        let uncompared = self.tables.iter().filter(|table| !table.ok).count();
        let done = if self.dry_run { "would be restored" } else { "restored" };
        let mut lines = format!("{} {done} to {} ({})\n", self.id, one_line(&self.target), self.mode);
        if let Some(window) = &self.window {
            lines.push_str(&format!("  only rows {}\n", one_line(window)));
        }
        if self.dry_run {
            lines.push_str(&preview_text(self));
            lines.push_str(&format!("  {} tables; nothing was changed\n", self.tables.len()));
        } else {
            let took = text::seconds(self.seconds);
            lines.push_str(&format!(
                "  {} tables, {rows} rows, compared and equal, in {took}\n",
                self.tables.len() - uncompared
            ));
            if uncompared > 0 && self.is_incomplete {
                lines.push_str(&format!("  {uncompared} tables differ from the snapshot (see below)\n"));
            } else if uncompared > 0 {
                lines.push_str(&format!(
                    "  {uncompared} tables could not be compared, because they cannot be read on this machine\n"
                ));
            }
        }
        for path in &self.moved_aside {
            lines.push_str(&format!("  moved aside: {}\n", one_line(path)));
        }
        for note in &self.notes {
            lines.push_str(&format!("  note: {}\n", one_line(note)));
        }
        lines.push_str(&derived_text(self));
        if let Some(undo) = &self.undo {
            lines.push_str(&format!("  undo: {undo}\n"));
        }
        lines
    }
}

/// Describes the rows that would be replaced, and the time that this would take.
fn preview_text(report: &RestoreReport) -> String {
    let number = |rows: Option<u64>, none: &str| rows.map_or(none.to_owned(), |rows| rows.to_string());
    let after = |one: &Overwritten| match report.window {
        Some(_) => "?".to_owned(),
        None => number(one.rows_after, "dropped"),
    };
    let row = |one: &Overwritten| vec![one.table.clone(), number(one.rows_now, "-"), after(one)];
    let mut lines = String::new();
    if !report.overwrites.is_empty() {
        let table = text::table(&["TABLE", ">ROWS NOW", ">ROWS AFTER"], report.overwrites.iter().map(row));
        table.lines().for_each(|line| lines.push_str(&format!("  {line}\n")));
    }
    if let Some(seconds) = report.estimated_seconds {
        lines.push_str(&format!("  it takes about {}, as a drill has measured\n", text::seconds(seconds)));
    }
    lines
}

/// Describes what depends on restored tables: renewed, left out, or possibly out of date.
fn derived_text(report: &RestoreReport) -> String {
    let mut lines = String::new();
    for index in &report.rebuilt {
        lines.push_str(&format!("  index renewed and checked: {}\n", one_line(index)));
    }
    for trigger in &report.skipped_triggers {
        let writes: Vec<String> = trigger.writes.iter().map(|table| one_line(table)).collect();
        lines.push_str(&format!(
            "  note: the trigger {} of {} did not run for the restored rows; what it writes may be out of date: {}\n",
            one_line(&trigger.name),
            one_line(&trigger.table),
            writes.join(", ")
        ));
    }
    for object in &report.left_out {
        let (kind, name, table) = (one_line(&object.kind), one_line(&object.name), one_line(&object.table));
        let line = match kind.as_str() {
            "rows" => format!("the rows of {table} were NOT loaded: {}", one_line(&object.reason)),
            "generated values" => one_line(&object.reason),
            _ => {
                let of = if object.name == object.table { String::new() } else { format!(" of {table}") };
                let reason = one_line(&object.reason);
                format!("the {kind} {name}{of} was NOT created: {reason}; these statements create it:")
            }
        };
        lines.push_str(&format!("  note: {line}\n"));
        let statements = object.statements.iter().flat_map(|statement| statement.lines());
        statements.for_each(|line| lines.push_str(&format!("    {}\n", one_line(line))));
    }
    lines
}
