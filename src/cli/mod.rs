//! The command line: one file for each subcommand, with its arguments and its result for people.
//!
//! A subcommand turns its arguments into the options of an operation ([`crate::ops`], [`crate::serve`]) and prints the
//! report that it returns. Nothing below this folder uses arguments, stdout or exit codes.

mod call;
mod check;
mod checks;
mod completions;
mod copy;
mod delete;
mod diff;
mod doctor;
mod drill;
mod extract;
mod filter;
mod github;
mod global;
mod guard;
mod hints;
mod init;
mod inventory;
mod keygen;
mod list;
mod man;
mod migrate;
mod output;
mod postdeploy;
mod predeploy;
mod prune;
mod remote;
mod report;
mod restore;
mod serve;
mod show;
mod snapshot;
mod trust;
mod verify;
mod without;

use std::any::TypeId;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::error::ContextKind;
use clap::{CommandFactory, Parser};
use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::call::{Call, Subcommand};
use crate::cli::global::GlobalArgs;
use crate::config::{self, Config};
use crate::engine::postgres::wire::majors;
use crate::engine::sqlite::check_library;
use crate::ops::gate::remote::token as remote_token;
use crate::ops::summary::RunSummary;
use crate::ops::watch::{Ending, Watch};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::interrupt;
use crate::platform::shell::quote_path;
use crate::platform::{home, home_variable};

/// Saves SQLite and PostgreSQL databases as snapshots in checksummed, compressed archives, verifies the snapshots, and
/// restores them.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, max_term_width = 80, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

/// Declares the subcommands, in the order of --help.
macro_rules! subcommands {
    ($($(#[$attribute:meta])* $name:ident($arguments:ty),)*) => {
        #[derive(Debug, clap::Subcommand)]
        enum Command {
            $($(#[$attribute])* $name($arguments),)*
        }

        impl Command {
            fn subcommand(&self) -> &dyn Subcommand {
                match self {
                    $(Command::$name(arguments) => arguments,)*
                }
            }
        }
    };
}

subcommands! {
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
    Delete(delete::DeleteArgs),
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
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs the program on its arguments; returns the exit code.
///
/// # Safety
///
/// No other thread may run, because variables that are missing are added to the environment.
pub unsafe fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    // SAFETY: the caller guarantees it.
    unsafe { home_variable::set_if_missing() };
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    // First of all: the parsers of some arguments need the time.
    if let Err(error) = require_clock(SystemTime::now()) {
        return fail(&error, json, &[]);
    }
    // A signal is received from now on, so that it cannot end the program without a document. A command that handles
    // signals itself is an exception, and its name may be any of the arguments.
    let listens_early = !arguments.iter().any(|argument| argument == "guard");
    let last_words: Option<fn() -> bool> = json.then_some(output::end_with_document);
    if listens_early && let Err(error) = interrupt::listen_with(last_words) {
        return fail(&error, json, &[]);
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, json),
    };
    if let Some(error) = unexpanded_tilde(&arguments) {
        return fail(&error, cli.global.json, &[]);
    }
    let command = cli.command.subcommand();
    start_log(&cli.global, command.shows_log());
    if cli.global.allow_newer_server {
        majors::allow_newer();
    }
    let mut ended = Ended::default();
    let listens = listens_early || command.handles_signals();
    let outcome = execute(&cli.global, command, listens, &mut ended);
    let outcome = outcome.map_err(|error| hints::with_commands(error, &arguments));
    let code = match &outcome {
        Ok(code) => *code,
        // The reader of our output has closed the pipe because it has read enough.
        Err(error) if is_closed_pipe(error) => 0,
        Err(error) => fail(error, cli.global.json, &command.fields_on_problem()),
    };
    let error = outcome.as_ref().err().or(ended.error.as_ref());
    let own_code = ended.code.unwrap_or(code);
    let ending = Ending { code: own_code, error: error.filter(|_| own_code != 0), summary: &ended.summary };
    if let Some(watch) = ended.watch {
        watch.end(&ending);
    }
    if command.is_gate() && github::is_active() {
        github::annotations(command.name(), &ending).iter().for_each(|line| output::print_note(line));
        if let Err(error) = github::write(command.name(), &ending) {
            tracing::warn!("cannot write the summary of the GitHub job: {}", error.full_message());
        }
    }
    code
}

/// The results of a run that notices, metrics and GitHub need.
#[derive(Default)]
struct Ended {
    watch: Option<Watch>,
    summary: RunSummary,
    error: Option<Error>,
    code: Option<u8>,
}

/// Fails if the clock shows a time before 1970, as on a machine whose clock has no battery: no time in an id, in a
/// manifest or in a certificate can be compared with it.
fn require_clock(now: SystemTime) -> Result<()> {
    if now < SystemTime::UNIX_EPOCH {
        return Err(Error::failed("this machine's clock shows a time before 1970")
            .hint("set the clock, such as with 'timedatectl set-ntp true', and try again"));
    }
    Ok(())
}

fn execute(global: &GlobalArgs, command: &dyn Subcommand, listens: bool, ended: &mut Ended) -> Result<u8> {
    if !listens {
        interrupt::listen_with(global.json.then_some(output::end_with_document))?;
    }
    check_library()?;
    let (context, failed) = global.context(command)?;
    // A signal may have ended the reading of a key that is not needed by every command.
    interrupt::check()?;
    let context = Arc::new(context);
    if command.is_gate() && github::is_active() {
        let mut secrets = context.config.as_ref().map(Config::secrets).unwrap_or_default();
        secrets.extend(remote_token());
        github::masks(&secrets).iter().for_each(|line| output::print_note(line));
    }
    let watched = config::WATCHED.into_iter().find(|watched| *watched == command.name());
    let begin = |name| Watch::begin(name, command.asked(), global.metrics_file.clone(), Arc::clone(&context));
    let watch = watched.map(begin);
    let mut call = Call {
        context,
        config: global.config.clone(),
        host: global.host.clone(),
        json: global.json,
        quiet: global.quiet,
        command_line: Cli::command,
        watch,
        summary: RunSummary::default(),
        error: None,
        code: None,
    };
    let outcome = match failed {
        Some(error) => Err(error),
        None => command.run(&mut call),
    };
    *ended = Ended { watch: call.watch, summary: call.summary, error: call.error, code: call.code };
    outcome
}

fn fail(error: &Error, json: bool, fields: &[(&str, Value)]) -> u8 {
    output::print_error(error);
    if json {
        let _ = output::write_result(&output::error_json(error, fields), true);
    }
    error.kind.exit_code()
}

fn usage(error: &clap::Error, json: bool) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    // If one of our own types has rejected a value, the error has its own message and hint.
    let refused = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
    let argument = error.get(ContextKind::InvalidArg).map(|argument| argument.to_string());
    if let (Some(refused), Some(argument)) = (refused, argument) {
        let error = Error::usage(format!("{argument}: {}", refused.message));
        return fail(&if let Some(hint) = &refused.hint { error.hint(hint) } else { error }, json, &[]);
    }
    let is_not_text = |argument: &OsString| argument.to_str().is_none();
    if error.kind() == clap::error::ErrorKind::InvalidUtf8
        && let Some(argument) = std::env::args_os().find(is_not_text)
    {
        let message = format!("the argument {} is not UTF-8", quote_path(Path::new(&argument)));
        return fail(&Error::usage(message).hint("give the file or folder another name"), json, &[]);
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if error.kind() == clap::error::ErrorKind::UnknownArgument
        && let Some(wrong) = error.get(ContextKind::InvalidArg).map(|argument| argument.to_string())
        && let Some(hint) = hints::meant(&arguments, &wrong)
    {
        return fail(&Error::usage(format!("unexpected argument '{wrong}'")).hint(hint), json, &[]);
    }
    if json {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        return fail(&Error::usage(first).hint("run 'lifeboat --help' to list the commands and options"), true, &[]);
    }
    let _ = error.print();
    Kind::Usage.exit_code()
}

/// Returns an error if the value of an option is a path that begins with '~'. Shells expand '~' only at the start of a
/// word without quotes, so that `--store=~/backups` would mean a folder named '~' in the current folder.
fn unexpanded_tilde(arguments: &[OsString]) -> Option<Error> {
    // The arguments after '--' belong to another program.
    let own = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    let own: Vec<&str> = own.map(|argument| argument.to_str().unwrap_or_default()).collect();
    let mut quoted = own.windows(2).filter(|pair| home::is_expanded_by_shells(pair[1])).peekable();
    if quoted.peek().is_some() {
        let options = path_options(&Cli::command());
        let hint = "write the full path, or remove the quotes so that the shell expands it";
        let pair = quoted.find(|pair| options.iter().any(|option| option == pair[0]));
        if let Some(error) = pair.and_then(|pair| home::refuse(pair[1], hint).err()) {
            return Some(error);
        }
    }
    let mut pairs = own.iter().filter_map(|word| word.split_once('='));
    let is_option = |option: &str| option.starts_with("--");
    let (option, value) = pairs.find(|(option, value)| is_option(option) && home::is_expanded_by_shells(value))?;
    Some(Error::usage(format!("{option}: '~' is not expanded after '='")).hint(format!(
        "write the full path, or leave out the '=' so that the shell expands it: {option} {}",
        one_line(value)
    )))
}

/// Returns the names of all options whose values are paths.
fn path_options(command: &clap::Command) -> Vec<String> {
    let is_path = |argument: &&clap::Arg| argument.get_value_parser().type_id() == TypeId::of::<PathBuf>();
    let own = command.get_arguments().filter(is_path).flat_map(|argument| {
        let long = argument.get_long().map(|name| format!("--{name}"));
        long.into_iter().chain(argument.get_short().map(|letter| format!("-{letter}")))
    });
    own.chain(command.get_subcommands().flat_map(path_options)).collect()
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

/// Starts the log on stderr.
fn start_log(global: &GlobalArgs, shows_log: bool) {
    // Warnings are shown even with --quiet: silence must mean success.
    let level = match global.verbose {
        0 if shows_log && !global.quiet => LevelFilter::INFO,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    // Messages of libraries are shown only to find faults in a library.
    let others = if global.verbose > 1 { LevelFilter::WARN } else { LevelFilter::OFF };
    let log = tracing_subscriber::fmt()
        .with_writer(|| output::Stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .without_time()
        .finish()
        .with(Targets::new().with_default(others).with_target(env!("CARGO_CRATE_NAME"), level));
    // If the log was already started (in tests of the library), that log is kept.
    let _ = log.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_an_error() {
        assert!(require_clock(SystemTime::UNIX_EPOCH).is_ok());
        let before = SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1);
        assert_eq!(require_clock(before).expect_err("before 1970").kind, Kind::Failed);
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
