//! `postdeploy`: its arguments, and its result for people.

use chrono::Duration;
use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::ops::gate::postdeploy::{self, PostdeployOptions};
use crate::platform::duration::parse_duration;
use crate::platform::error::Result;

/// Says whether a deploy lost data: compares databases with their snapshots from before it, and brings them back if that is asked for
#[derive(Args, Clone, Debug)]
pub(super) struct PostdeployArgs {
    /// Names of the config, SQLite files, or URLs; by default all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The commit that was deployed: its snapshots are compared with; in GitHub Actions by default the workflow's, else the newest of any gate
    #[arg(long, value_name = "COMMIT")]
    commit: Option<String>,
    /// How long to wait for what is not yet as it should be, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    wait: Duration,
    /// Restore what was lost; the exit code stays 3
    #[arg(long)]
    rollback: bool,
    /// PostgreSQL: the longest to wait for others' locks in a rollback, in seconds
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
