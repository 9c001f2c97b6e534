//! The interface between a subcommand and the command line: its arguments, a way to run them, and a result to print.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::cli::output;
use crate::ops::watch::Watch;
use crate::ops::{Context, Report};
use crate::platform::error::{Error, Result};

/// A subcommand with its arguments.
pub(super) trait Subcommand {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Runs its operation and prints the result; returns the exit code.
    fn run(&self, call: &mut Call) -> Result<u8>;

    /// False if it never opens an archive. Then no keys are read, and an invalid key does not make the command fail.
    fn opens_archives(&self) -> bool {
        true
    }

    /// False if it also works where the config is absent or broken.
    fn reads_config(&self) -> bool {
        true
    }

    /// False if it names its stores in arguments of its own.
    fn uses_stores_of_config(&self) -> bool {
        true
    }

    /// True if it installs its own signal handlers.
    fn handles_signals(&self) -> bool {
        false
    }

    /// True if its log messages are part of its output, and are shown without --verbose.
    fn shows_log(&self) -> bool {
        false
    }

    /// False if it runs without end, so that a progress bar has nothing to show.
    fn shows_progress(&self) -> bool {
        true
    }

    /// True if it decides on a deployment: GitHub Actions then gets annotations and a summary.
    fn is_gate(&self) -> bool {
        false
    }

    /// Returns the fields that its document also has if it ends with a problem.
    fn fields_on_problem(&self) -> Vec<(&'static str, Value)> {
        Vec::new()
    }
}

/// A result that can be printed for people.
pub(super) trait Text {
    /// Returns the lines for stdout.
    fn text(&self) -> String;
}

/// One run of a subcommand.
pub(super) struct Call {
    /// The settings that operations receive in addition to their options.
    pub(super) context: Arc<Context>,
    /// The config that --config names.
    pub(super) config: Option<PathBuf>,
    /// The host's name that --host gives.
    pub(super) host: Option<String>,
    /// True if stdout gets one JSON document.
    pub(super) json: bool,
    /// True if only results, warnings and errors are printed.
    pub(super) quiet: bool,
    /// Builds the whole command line, for manuals and completions.
    pub(super) command_line: fn() -> clap::Command,
    /// Notices and metrics of this run, if the config has any for it.
    pub(super) watch: Option<Watch>,
    /// The document that was printed, or would have been with --json.
    pub(super) document: Value,
    /// The first failure that did not end the operation.
    pub(super) error: Option<Error>,
    /// The exit code of the operation itself, if the process returns the exit code of another program.
    pub(super) code: Option<u8>,
}

impl Call {
    /// Prints a result and its errors; returns the exit code.
    pub(super) fn finish<R: Report + Text>(&mut self, report: &R) -> Result<u8> {
        for error in report.errors() {
            output::print_error(error);
        }
        let document = if self.json || self.watch.is_some() { Some(output::document(report)?) } else { None };
        if self.watch.is_some() {
            self.document = document.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            self.error = report.errors().first().map(Error::again);
        }
        output::write_stdout(
            match document.filter(|_| self.json) {
                Some(document) => document,
                None => report.text(),
            }
            .as_bytes(),
        )?;
        Ok(report.exit_code())
    }
}
