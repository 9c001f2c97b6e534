//! The command line: parse, run one command, print its report.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::error::ContextKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::archive::{Keys, read_passphrase_file};
use crate::commands::restore::RestorePlan;
use crate::commands::{
    Context, copy, diff, doctor, drill, extract, keygen, list, prune, restore, show, snapshot, verify,
};
use crate::disk::shown;
use crate::engine::sqlite::check_library;
use crate::error::{Error, Kind, Result};
use crate::output::{self, Bars, ErasedReport};
use crate::progress::{Progress, Silent};
use crate::scratch::Scratch;
use crate::secret::Secret;
use crate::store::StoreUrl;

/// Snapshots SQLite and PostgreSQL databases into checksummed, compressed archives, proves them, and restores them.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, max_term_width = 80, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
struct GlobalArgs {
    /// What holds the snapshots: a folder, or s3://bucket/prefix; 'snapshot' takes several
    #[arg(long, global = true, value_name = "STORE")]
    store: Vec<StoreUrl>,
    /// A file of secret keys of age that open encrypted snapshots (repeatable); LIFEBOAT_IDENTITY holds such keys, or a file's name
    #[arg(long, global = true, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// A file whose first line is the passphrase that encrypts and opens snapshots
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print exactly one JSON document on stdout
    #[arg(long, global = true)]
    json: bool,
    /// Print nothing but the result, warnings and errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more of what is done (twice: much more)
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Threads for compressing and decompressing, 8 to 16 MiB of memory each; by default one a core, at most 8
    #[arg(long, short, global = true, value_name = "JOBS", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
    /// A folder for temporary files; by default the system's
    #[arg(long, global = true, value_name = "DIR", env = "LIFEBOAT_SCRATCH")]
    scratch: Option<PathBuf>,
    /// This machine's name in the origin of snapshots; set it in containers, whose names change
    #[arg(long, global = true, value_name = "NAME", env = "LIFEBOAT_HOST")]
    host: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(alias = "backup")]
    Snapshot(snapshot::SnapshotArgs),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Verify(verify::VerifyArgs),
    Drill(drill::DrillArgs),
    Restore(restore::RestoreArgs),
    Extract(extract::ExtractArgs),
    Diff(diff::DiffArgs),
    Prune(prune::PruneArgs),
    Copy(copy::CopyArgs),
    Doctor(doctor::DoctorArgs),
    Keygen(keygen::KeygenArgs),
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    Man,
}

/// The environment's variable for keys that open snapshots. Not read by clap, which shows what a variable holds.
const IDENTITY: &str = "LIFEBOAT_IDENTITY";

/// The most threads that are used unasked: each costs memory.
const DEFAULT_JOBS: usize = 8;

/// Runs the program on its arguments; the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, arguments.iter().any(|argument| argument == "--json")),
    };
    start_log(&cli.global);
    let json = cli.global.json;
    let own = own_fields(&cli.command);
    match execute(cli) {
        Ok(code) => code,
        // Who reads our output has read enough.
        Err(error) if is_closed_pipe(&error) => 0,
        Err(error) => fail(&error, json, &own),
    }
}

/// The fields that a command's document has also where it ends with a problem.
fn own_fields(command: &Command) -> Vec<(&'static str, Value)> {
    match command {
        Command::Restore(args) => vec![
            ("id", json!(args.snapshot)),
            ("target", json!(args.to)),
            ("mode", Value::Null),
            ("safety_snapshot", Value::Null),
            ("undo", Value::Null),
            ("tables", json!([])),
            ("seconds", json!(0.0)),
        ],
        Command::Extract(args) => vec![("id", json!(args.snapshot)), ("files", json!([]))],
        Command::Show(args) => vec![("id", json!(args.snapshot))],
        _ => Vec::new(),
    }
}

fn fail(error: &Error, json: bool, own: &[(&str, Value)]) -> u8 {
    output::print_error(error);
    if json {
        let _ = output::write_stdout(output::error_json(error, own).as_bytes());
    }
    error.kind.exit_code()
}

fn usage(error: &clap::Error, json: bool) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    // A value that one of our types has refused: its own words and hint.
    let refused = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
    let argument = error.get(ContextKind::InvalidArg).map(|argument| argument.to_string());
    if let (Some(refused), Some(argument)) = (refused, argument) {
        let told = Error::usage(format!("{argument}: {}", refused.message));
        return fail(&if let Some(hint) = &refused.hint { told.hint(hint) } else { told }, json, &[]);
    }
    if json {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return fail(&Error::usage(first).hint("'lifeboat --help' lists commands and options"), true, &[]);
    }
    let _ = error.print();
    Kind::Usage.exit_code()
}

fn is_closed_pipe(error: &Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = cause.source();
    }
    false
}

fn start_log(global: &GlobalArgs) {
    // Warnings are shown however quiet it is to be: silence must mean success.
    let level = match global.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    // What the libraries beneath have to say is for whoever looks for a fault of theirs.
    let others = if global.verbose > 1 { LevelFilter::WARN } else { LevelFilter::OFF };
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .without_time()
        .finish()
        .with(Targets::new().with_default(others).with_target(env!("CARGO_CRATE_NAME"), level));
    // A second start (in tests of the library) keeps the first.
    let _ = log.try_init();
}

impl GlobalArgs {
    fn context(&self, with_keys: bool) -> Result<Context> {
        let progress: Arc<dyn Progress> =
            if Bars::would_show() && !self.quiet && !self.json { Arc::new(Bars::default()) } else { Arc::new(Silent) };
        let host =
            self.host.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_JOBS);
        let passphrase = self.passphrase_file.as_deref().map(read_passphrase_file).transpose()?;
        Ok(Context {
            stores: self.store.clone(),
            keys: if with_keys { self.keys(passphrase.clone())? } else { Keys::new() },
            passphrase,
            key_flags: self.key_flags()?,
            host,
            jobs: self.jobs.map_or_else(cores, usize::from),
            scratch: Scratch::new(self.scratch.clone()),
            progress,
        })
    }

    /// The flags that gave the keys, with absolute paths: what is printed works from anywhere.
    fn key_flags(&self) -> Result<Vec<String>> {
        let identities = self.identity.iter().map(|path| ("--identity", path));
        let flags = identities.chain(self.passphrase_file.iter().map(|path| ("--passphrase-file", path)));
        let mut words = Vec::new();
        for (flag, path) in flags {
            let path = std::path::absolute(path)
                .map_err(|error| Error::usage(format!("cannot find {}", shown(path))).because(error))?;
            words.extend([flag.to_owned(), path.display().to_string()]);
        }
        Ok(words)
    }

    fn keys(&self, passphrase: Option<Secret>) -> Result<Keys> {
        let mut keys = Keys::new();
        // Empty is what a secret that is not set is in many a pipeline.
        if let Some(text) = std::env::var_os(IDENTITY) {
            let text = text.to_str().ok_or_else(|| Error::usage(format!("{IDENTITY} is not UTF-8")))?;
            if !text.trim().is_empty() {
                keys.add_identity(text, IDENTITY)?;
            }
        }
        self.identity.iter().try_for_each(|path| keys.add_identity_file(path))?;
        passphrase.into_iter().for_each(|passphrase| keys.add_passphrase(passphrase));
        Ok(keys)
    }
}

/// Whether a command may open encrypted archives: the others need no key, and none that is wrong keeps them from working.
fn opens_archives(command: &Command) -> bool {
    match command {
        Command::Show(_)
        | Command::Verify(_)
        | Command::Drill(_)
        | Command::Restore(_)
        | Command::Extract(_)
        | Command::Diff(_) => true,
        Command::Snapshot(_)
        | Command::List(_)
        | Command::Prune(_)
        | Command::Copy(_)
        | Command::Doctor(_)
        | Command::Keygen(_)
        | Command::Completions { .. }
        | Command::Man => false,
    }
}

fn execute(cli: Cli) -> Result<u8> {
    let json = cli.global.json;
    // A restore asks first, and there Ctrl-C simply ends the program.
    if !matches!(cli.command, Command::Restore(_)) {
        crate::interrupt::listen()?;
    }
    check_library()?;
    let context = cli.global.context(opens_archives(&cli.command))?;
    let report: Box<dyn ErasedReport> = match &cli.command {
        Command::Snapshot(args) => Box::new(snapshot::run(args, &context)?),
        Command::List(args) => Box::new(list::run(args, &context)?),
        Command::Show(args) => Box::new(show::run(args, &context)?),
        Command::Verify(args) => Box::new(verify::run(args, &context)?),
        Command::Drill(args) => Box::new(drill::run(args, &context)?),
        Command::Restore(args) => {
            let plan = RestorePlan::make(args, &context)?;
            if let Some(question) = plan.question().filter(|_| !args.yes && !args.dry_run) {
                ask(&question)?;
            }
            crate::interrupt::listen()?;
            Box::new(plan.run(args, &context)?)
        }
        Command::Extract(args) => Box::new(extract::run(args, json, &context, &mut io::stdout().lock())?),
        Command::Diff(args) => Box::new(diff::run(args, &context)?),
        Command::Prune(args) => Box::new(prune::run(args, &context)?),
        Command::Copy(args) => Box::new(copy::run(args, &context)?),
        Command::Doctor(args) => Box::new(doctor::run(args, &context)?),
        Command::Keygen(args) => {
            let report = keygen::run(args, json)?;
            if let Some(note) = report.note().filter(|_| !cli.global.quiet) {
                output::print_note(&note);
            }
            Box::new(report)
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "lifeboat", &mut script);
            output::write_stdout(&script)?;
            return Ok(0);
        }
        Command::Man => {
            let mut page = Vec::new();
            manual(&mut page)?;
            output::write_stdout(&page)?;
            return Ok(0);
        }
    };
    for error in report.failures() {
        output::print_error(error);
    }
    output::print(&*report, json)?;
    Ok(report.code())
}

/// Asks on a terminal; elsewhere the flags have said it all.
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

/// The manual: the program's page, and one for each command behind it.
fn manual(page: &mut Vec<u8>) -> Result<()> {
    let mut root = Cli::command();
    root.build();
    clap_mangen::Man::new(root.clone()).render(page)?;
    for command in root.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        let name = format!("lifeboat-{}", command.get_name());
        clap_mangen::Man::new(command.clone().name(name)).render(page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
