//! `check`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::ops::check::{self, CheckOptions};
use crate::ops::watch::Asked;
use crate::platform::error::Result;

/// Checks databases, the config's rules for them, and their backups; exits with 3 if a check fails
#[derive(Args, Clone, Debug)]
pub(super) struct CheckArgs {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    #[arg(long)]
    full: bool,
    /// Check only the databases, not their backups
    #[arg(long)]
    no_backups: bool,
}

impl From<CheckArgs> for CheckOptions {
    fn from(args: CheckArgs) -> Self {
        CheckOptions { sources: args.sources, full: args.full, no_backups: args.no_backups }
    }
}

impl Subcommand for CheckArgs {
    fn name(&self) -> &'static str {
        "check"
    }

    fn asked(&self) -> Asked {
        Asked::of(&self.sources)
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&check::run(&self.clone().into(), &call.context)?)
    }
}
