//! The command line: parse, run one command, print its report.

mod github;
mod output;

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
use crate::cli::output::{Bars, ErasedReport};
use crate::config::{self, Config};
use crate::engine::sqlite::check_library;
use crate::ops::gate::{postdeploy, predeploy, remote};
use crate::ops::restore::{self, RestorePlan};
use crate::ops::watch::{Ending, Watch};
use crate::ops::{
    Context, check, copy, diff, doctor, drill, extract, guard, init, inventory, keygen, list, migrate, prune, show,
    snapshot, verify,
};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::progress::{Progress, Silent};
use crate::platform::scratch::Scratch;
use crate::platform::secret::Secret;
use crate::serve::{self, report};
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
    /// What holds the snapshots: a folder, s3://bucket/prefix, or a store's name in the config; 'snapshot' takes several
    #[arg(long, global = true, value_name = "STORE")]
    store: Vec<StoreUrl>,
    /// The config; by default what LIFEBOAT_CONFIG names, or lifeboat.toml in this folder
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
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
    /// A file that metrics are written to, for Prometheus' node_exporter; by default what the config says
    #[arg(long, global = true, value_name = "FILE")]
    metrics_file: Option<PathBuf>,
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
    Check(check::CheckArgs),
    Inventory(inventory::InventoryArgs),
    Predeploy(predeploy::PredeployArgs),
    Postdeploy(postdeploy::PostdeployArgs),
    Init(init::InitArgs),
    Doctor(doctor::DoctorArgs),
    Keygen(keygen::KeygenArgs),
    Guard(guard::GuardArgs),
    Migrate(migrate::MigrateArgs),
    Serve(serve::ServeArgs),
    Report(report::ReportArgs),
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
    // What a guard does is told where its program's own words are told.
    start_log(&cli.global, matches!(cli.command, Command::Guard(_) | Command::Serve(_)));
    let json = cli.global.json;
    let own = own_fields(&cli.command);
    let (name, shows_in_actions) = (name(&cli.command), is_gate(&cli.command) && github::is_here());
    let mut run = Run::default();
    let outcome = execute(cli, &mut run);
    let code = match &outcome {
        Ok(code) => *code,
        // Who reads our output has read enough.
        Err(error) if is_closed_pipe(error) => 0,
        Err(error) => fail(error, json, &own),
    };
    let error = outcome.as_ref().err().or(run.error.as_ref());
    let own_code = run.code.unwrap_or(code);
    let ending = Ending { code: own_code, error: error.filter(|_| own_code != 0), document: &run.document };
    if let Some(watch) = run.watch {
        watch.end(&ending);
    }
    if shows_in_actions {
        github::annotations(name, &ending).iter().for_each(|line| output::print_note(line));
        if let Err(error) = github::write(name, &ending) {
            tracing::warn!("the summary of the job was not written: {}", error.whole());
        }
    }
    code
}

/// What is known of a run beside its exit code.
#[derive(Default)]
struct Run {
    /// Who tells others of it.
    watch: Option<Watch>,
    /// The document that it has printed, or would have with --json.
    document: Value,
    /// The first failure that did not keep the rest from being done.
    error: Option<Error>,
    /// The exit code that its own work would have, where the process has that of another program.
    code: Option<u8>,
}

/// What the command line calls a command that others are told of; empty for the others.
fn name(command: &Command) -> &'static str {
    match command {
        Command::Snapshot(_) => "snapshot",
        Command::Check(_) => "check",
        Command::Predeploy(_) => "predeploy",
        Command::Postdeploy(_) => "postdeploy",
        Command::Drill(_) => "drill",
        Command::Verify(_) => "verify",
        Command::Prune(_) => "prune",
        Command::Guard(_) => "guard",
        _ => "",
    }
}

fn is_gate(command: &Command) -> bool {
    matches!(command, Command::Predeploy(_) | Command::Postdeploy(_))
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
        Command::Inventory(_) => vec![("databases", json!([]))],
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

fn start_log(global: &GlobalArgs, tells: bool) {
    // Warnings are shown however quiet it is to be: silence must mean success.
    let level = match global.verbose {
        0 if tells && !global.quiet => LevelFilter::INFO,
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
    fn context(&self, command: &Command) -> Result<Context> {
        let progress: Arc<dyn Progress> =
            if Bars::would_show() && !self.quiet && !self.json && !matches!(command, Command::Serve(_)) {
                Arc::new(Bars::default())
            } else {
                Arc::new(Silent)
            };
        let config = match config::discover(self.config.as_deref()).filter(|_| uses_config(command)) {
            Some(path) => Some(Config::load(&path)?),
            None => None,
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_JOBS);
        let passphrase = self.passphrase_file.as_deref().map(read_passphrase_file).transpose()?;
        Ok(Context {
            stores: self.stores(config.as_ref(), command)?,
            stores_are_given: !self.store.is_empty(),
            keys: if opens_archives(command) { self.keys(passphrase.clone(), config.as_ref())? } else { Keys::new() },
            passphrase,
            key_flags: self.key_flags()?,
            host: self.host(config.as_ref())?,
            config,
            jobs: self.jobs.map_or_else(cores, usize::from),
            scratch: Scratch::new(self.scratch.clone()),
            progress,
        })
    }

    /// The stores that the command line names, by their place or their name in the config, or else the config's.
    fn stores(&self, config: Option<&Config>, command: &Command) -> Result<Vec<StoreUrl>> {
        let Some(config) = config else { return Ok(self.store.clone()) };
        if self.store.is_empty() {
            // It says where from and where to by itself.
            return match command {
                Command::Copy(_) => Ok(Vec::new()),
                _ => Ok(config.stores()?.iter().map(|configured| configured.store.clone()).collect()),
            };
        }
        self.store.iter().map(|given| config.store_named(given)).collect()
    }

    fn host(&self, config: Option<&Config>) -> Result<String> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        if let Some(host) = config.map(Config::host).transpose()?.flatten() {
            return Ok(host.to_owned());
        }
        Ok(rustix::system::uname().nodename().to_string_lossy().into_owned())
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

    fn keys(&self, passphrase: Option<Secret>, config: Option<&Config>) -> Result<Keys> {
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
        if let Some(config) = config {
            match config.encryption() {
                // What is not encrypted needs no key.
                Ok(encryption) => {
                    if let Err(error) = encryption.add_to(&mut keys) {
                        tracing::warn!("encrypted snapshots cannot be opened: {}", error.whole());
                    }
                }
                Err(error) => tracing::info!("{}", error.whole()),
            }
        }
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
        | Command::Diff(_)
        | Command::Doctor(_)
        | Command::Guard(_)
        | Command::Migrate(_)
        | Command::Serve(_)
        | Command::Report(_)
        | Command::Check(_)
        | Command::Predeploy(_)
        | Command::Postdeploy(_) => true,
        Command::Snapshot(_)
        | Command::List(_)
        | Command::Prune(_)
        | Command::Copy(_)
        | Command::Inventory(_)
        | Command::Keygen(_)
        | Command::Init(_)
        | Command::Completions { .. }
        | Command::Man => false,
    }
}

/// Whether a command looks at the config: the others work where it is broken, or not there yet.
fn uses_config(command: &Command) -> bool {
    !matches!(command, Command::Init(_) | Command::Keygen(_) | Command::Completions { .. } | Command::Man)
}

fn execute(cli: Cli, run: &mut Run) -> Result<u8> {
    let json = cli.global.json;
    // A restore asks first, and there Ctrl-C simply ends the program; guard hears the signals itself.
    if !matches!(cli.command, Command::Restore(_) | Command::Guard(_)) {
        crate::platform::interrupt::listen()?;
    }
    check_library()?;
    let context = Arc::new(cli.global.context(&cli.command)?);
    if is_gate(&cli.command) && github::is_here() {
        let secrets = context.config.as_ref().map(Config::secrets).unwrap_or_default();
        github::masks(&secrets).iter().for_each(|line| output::print_note(line));
    }
    if let Some(command) = config::WATCHED.into_iter().find(|watched| *watched == name(&cli.command)) {
        run.watch = Some(Watch::begin(command, cli.global.metrics_file.clone(), Arc::clone(&context)));
    }
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
            crate::platform::interrupt::listen()?;
            Box::new(plan.run(args, &context)?)
        }
        Command::Extract(args) => Box::new(extract::run(args, json, &context, &mut io::stdout().lock())?),
        Command::Diff(args) => Box::new(diff::run(args, &context)?),
        Command::Prune(args) => Box::new(prune::run(args, &context)?),
        Command::Copy(args) => Box::new(copy::run(args, &context)?),
        Command::Check(args) => Box::new(check::run(args, &context)?),
        Command::Inventory(args) => Box::new(inventory::run(args, &context)?),
        Command::Predeploy(args) => match &args.remote {
            Some(url) => Box::new(remote::run(args, url)?),
            None => Box::new(predeploy::run(args, &context)?),
        },
        Command::Postdeploy(args) => Box::new(postdeploy::run(args, &context)?),
        Command::Doctor(args) => Box::new(doctor::run(args, &context)?),
        Command::Migrate(args) => Box::new(migrate::run(args, &context)?),
        Command::Serve(args) => Box::new(serve::run(args, &context)?),
        Command::Report(args) => Box::new(report::run(args, &context)?),
        Command::Init(args) => {
            Box::new(init::run(args, cli.global.config.as_deref(), cli.global.host.as_deref(), &context)?)
        }
        Command::Keygen(args) => {
            let report = keygen::run(args, json)?;
            if let Some(note) = report.note().filter(|_| !cli.global.quiet) {
                output::print_note(&note);
            }
            Box::new(report)
        }
        Command::Guard(args) => {
            let guarded = guard::run(args, &context)?;
            run.document = guarded.document;
            run.code = Some(guarded.failures.first().map_or(0, |error| error.kind.exit_code()));
            run.error = guarded.failures.into_iter().next();
            return Ok(guarded.code);
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
    if run.watch.is_some() {
        run.document = serde_json::from_str(&report.json()?).unwrap_or_default();
        run.error = report.failures().first().map(Error::again);
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
