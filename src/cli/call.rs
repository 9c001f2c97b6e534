//! The interface between a subcommand and the command line: its arguments, a way to run them, and a result to print.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use crate::cli::output;
use crate::cli::trust::TrustArgs;
use crate::ops::summary::RunSummary;
use crate::ops::watch::{Asked, Watch};
use crate::ops::{Context, Report};
use crate::platform::error::{Error, Result};

/// A subcommand with its arguments.
pub(super) trait Subcommand {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// Runs its operation and prints the result; returns the exit code.
    fn run(&self, call: &mut Call) -> Result<u8>;

    /// Returns false if it never opens an archive. Then no keys are read, and an invalid key does not make the command
    /// fail.
    fn opens_archives(&self) -> bool {
        true
    }

    /// Returns true if it never needs to open an archive, but compares encrypted snapshots more exactly with a key. Then
    /// keys are read, and an invalid one does not make the command fail.
    fn compares_archives(&self) -> bool {
        false
    }

    /// Returns false if it does not read the config, so that it also works if the config is absent or invalid.
    fn reads_config(&self) -> bool {
        true
    }

    /// Returns false if it has its own arguments for stores, and does not use those of the config.
    fn uses_stores_of_config(&self) -> bool {
        true
    }

    /// Returns the sources that its arguments name.
    fn asked(&self) -> Asked {
        Asked::Unknown
    }

    /// Returns its options about snapshots that are not trusted.
    fn trust(&self) -> TrustArgs {
        TrustArgs::default()
    }

    /// Returns true if it installs its own signal handlers.
    fn handles_signals(&self) -> bool {
        false
    }

    /// Returns true if its log messages are part of its output, and are shown without --verbose.
    fn shows_log(&self) -> bool {
        false
    }

    /// Returns false if it runs until it is stopped, so that a progress bar has nothing to show.
    fn shows_progress(&self) -> bool {
        true
    }

    /// Returns true if its exit code decides whether a deployment continues. In GitHub Actions, such a command also
    /// writes annotations and a summary.
    fn is_gate(&self) -> bool {
        false
    }

    /// Returns the additional fields of its JSON document if it fails with a problem (exit 3).
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
    /// Returns the definition of the whole command line, for the manual page and completions.
    pub(super) command_line: fn() -> clap::Command,
    /// The notices and metrics of this run, if the config sets any for this subcommand.
    pub(super) watch: Option<Watch>,
    /// The summary of the run, for notices, metrics and GitHub.
    pub(super) summary: RunSummary,
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
        self.summary = report.summary();
        self.error = report.errors().first().map(Error::duplicate);
        let text = if self.json { output::document(report)? } else { report.text() };
        output::write_result(&text, self.json)?;
        Ok(report.exit_code())
    }
}
