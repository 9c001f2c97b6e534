//! `postdeploy`: its arguments, and its result for people.

use chrono::Duration;
use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::ops::gate::postdeploy::{self, PostdeployOptions};
use crate::platform::duration::parse_duration;
use crate::platform::error::Result;

/// Checks for data lost in a deploy: compares databases with their snapshots from before it, and restores them if
/// --rollback is given
#[derive(Args, Clone, Debug)]
pub(super) struct PostdeployArgs {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The deployed commit: databases are compared with its snapshots; default: the workflow's commit in GitHub
    /// Actions, otherwise the newest snapshots of 'predeploy' for any commit
    #[arg(long, value_name = "COMMIT")]
    commit: Option<String>,
    /// The maximum time to wait until failing checks pass, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    wait: Duration,
    /// Restore what was lost; the exit code stays 3
    #[arg(long)]
    rollback: bool,
    /// PostgreSQL: the maximum time to wait for locks of other sessions during a rollback, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    lock_timeout: u64,
}

impl From<PostdeployArgs> for PostdeployOptions {
    fn from(args: PostdeployArgs) -> Self {
        PostdeployOptions {
            sources: args.sources,
            commit: args.commit,
            wait: args.wait,
            rollback: args.rollback,
            lock_timeout: args.lock_timeout,
        }
    }
}

impl Subcommand for PostdeployArgs {
    fn name(&self) -> &'static str {
        "postdeploy"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&postdeploy::run(&self.clone().into(), &call.context)?)
    }

    fn is_gate(&self) -> bool {
        true
    }
}
