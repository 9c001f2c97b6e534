//! `guard`: its arguments, and its result for people.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::config::OnDoubt;
use crate::ops::guard::{self, GuardOptions};
use crate::ops::watch::Asked;
use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result};

/// Runs CMD as a container's entry point: judges the databases and restores missing ones before CMD starts, forwards
/// signals to CMD, and takes snapshots while CMD runs and after it ends
#[derive(Args, Clone, Debug)]
pub(super) struct GuardArgs {
    /// The time that the platform allows between SIGTERM and SIGKILL: 10s with Docker, 30s with Kubernetes; default:
    /// grace in the config, or 10s
    #[arg(long, value_name = "TIME", value_parser = parse_grace)]
    grace: Option<Duration>,
    /// The maximum time to wait until failing checks pass, before CMD is started, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_grace, default_value = "0s")]
    wait: Duration,
    /// Restore the newest snapshot of a database that is missing or empty. With false, CMD is started without it, and a
    /// warning names the snapshot and the command that restores it; default: restore_if_missing in the config, or true
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    restore_if_missing: Option<bool>,
    /// The action if the snapshot to restore is perhaps not the newest state, or if rows are missing: refuse (do not
    /// start), restore-older, or start (with the database as it is); default: on_doubt in the config, or refuse
    #[arg(long, value_name = "ACTION")]
    on_doubt: Option<OnDoubt>,
    /// The interval between snapshots while CMD runs, such as 15m; none is stored if nothing has changed; default: every
    /// in the config, or no snapshots before the end
    #[arg(long, value_name = "TIME", value_parser = parse_grace)]
    every: Option<Duration>,
    /// The maximum time to wait for the last snapshot of another container of the same source that is still running, if
    /// the database must be restored; default: handover in the config, or 3m
    #[arg(long, value_name = "TIME", value_parser = parse_grace)]
    handover: Option<Duration>,
    /// A source to restore and save: a name from the config, or an SQLite file (repeatable); default: all sources of
    /// the config
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
            on_doubt: args.on_doubt,
            every: args.every,
            handover: args.handover,
            source: args.source,
            command: args.command,
        }
    }
}

impl Subcommand for GuardArgs {
    fn name(&self) -> &'static str {
        "guard"
    }

    fn asked(&self) -> Asked {
        Asked::of(&self.source)
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let outcome = guard::run(&self.clone().into(), call.watch.as_ref(), &call.context)?;
        call.summary = outcome.summary;
        call.code = Some(outcome.own_code);
        call.error = outcome.failures.into_iter().next();
        Ok(outcome.code)
    }

    fn handles_signals(&self) -> bool {
        true
    }

    fn shows_log(&self) -> bool {
        true
    }

    fn shows_progress(&self) -> bool {
        false
    }
}

fn parse_grace(text: &str) -> Result<Duration> {
    parse_duration(text)?.to_std().map_err(|error| Error::usage("a duration cannot be negative").because(error))
}
