//! `report`: its arguments, and its result for people.

use std::path::PathBuf;

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::summary::Check;
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::serve::report::{self, ReportOptions, ReportReport};

/// Writes the status of sources, snapshots and stores to a file: HTML for a CI artifact, Markdown for a job summary
#[derive(Args, Clone, Debug)]
pub(super) struct ReportArgs {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Write the status page to this file
    #[arg(long, value_name = "FILE", required_unless_present = "markdown")]
    html: Option<PathBuf>,
    /// Write a summary to this file; - is stdout
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl From<ReportArgs> for ReportOptions {
    fn from(args: ReportArgs) -> Self {
        ReportOptions { sources: args.sources, html: args.html, markdown: args.markdown }
    }
}

impl Subcommand for ReportArgs {
    fn name(&self) -> &'static str {
        "report"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&report::run(&self.clone().into(), &call.context)?)
    }
}

impl Text for ReportReport {
    fn text(&self) -> String {
        if let Some(text) = &self.stdout {
            return text.clone();
        }
        let mut lines: String = self.files.iter().map(|file| format!("wrote {}\n", one_line(file))).collect();
        let row = |check: &Check| vec!["FAILED".to_owned(), check.name.clone(), check.message.clone()];
        if !self.ok {
            lines += &text::table(&["", "CHECK", "FOUND"], self.checks.iter().filter(|check| !check.ok).map(row));
        }
        lines
    }
}
