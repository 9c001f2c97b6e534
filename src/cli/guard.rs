//! `guard`: its arguments, and its result for people.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::ops::guard::{self, GuardOptions};
use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result};

/// Runs CMD as a container's entry point: restores databases that are missing, passes signals on, saves them when CMD has ended
#[derive(Args, Clone, Debug)]
pub(super) struct GuardArgs {
    /// From SIGTERM to SIGKILL: what the platform grants, 10s with Docker, 30s with Kubernetes; by default what the config says, or 10s
    #[arg(long, value_name = "TIME", value_parser = parse_grace)]
    grace: Option<Duration>,
    /// How long to wait for what is not yet as it should be before CMD is started, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_grace, default_value = "0s")]
    wait: Duration,
    /// Restore a database that is missing or empty; by default what the config says, or true
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    restore_if_missing: Option<bool>,
    /// The source to keep, by its name in the config, or as a file (repeatable); by default all of the config
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// The program to run, and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl From<GuardArgs> for GuardOptions {
    fn from(args: GuardArgs) -> Self {
        GuardOptions {
            grace: args.grace,
            wait: args.wait,
            restore_if_missing: args.restore_if_missing,
            source: args.source,
            command: args.command,
        }
    }
}

impl Subcommand for GuardArgs {
    fn name(&self) -> &'static str {
        "guard"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let guarded = guard::run(&self.clone().into(), &call.context)?;
        call.document = guarded.document;
        call.code = Some(guarded.failures.first().map_or(0, |error| error.kind.exit_code()));
        call.error = guarded.failures.into_iter().next();
        Ok(guarded.code)
    }

    fn handles_signals(&self) -> bool {
        true
    }

    fn shows_log(&self) -> bool {
        true
    }
}

fn parse_grace(text: &str) -> Result<Duration> {
    parse_duration(text)?.to_std().map_err(|error| Error::usage("a time cannot be negative").because(error))
}
