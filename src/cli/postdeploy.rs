//! `postdeploy`: its arguments, and its result for people.

use chrono::Duration;
use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::cli::remote::RemoteArgs;
use crate::cli::trust::TrustArgs;
use crate::ops::gate::intended::IntendedChanges;
use crate::ops::gate::postdeploy::{self, DEFAULT_LOCK_TIMEOUT, PostdeployOptions};
use crate::ops::watch::Asked;
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
    /// The deploy drops this table: it must be gone (repeatable)
    #[arg(long, value_name = "TABLE")]
    expect_dropped: Vec<String>,
    /// The deploy renames a table: NEW must have the rows that OLD had (repeatable, also for a table that is split or
    /// for several that become one)
    #[arg(long, value_name = "OLD=NEW")]
    expect_renamed: Vec<String>,
    /// Restore what was lost; the exit code stays 3
    #[arg(long)]
    rollback: bool,
    /// With --rollback: restore also if that takes away rows that came after the snapshot; they are then only in the
    /// safety snapshot that a restore takes first
    #[arg(long, requires = "rollback")]
    discard_new: bool,
    /// PostgreSQL: the maximum time to wait for locks of other sessions during a rollback, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LOCK_TIMEOUT)]
    lock_timeout: u64,
    #[command(flatten)]
    remote: RemoteArgs,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<PostdeployArgs> for PostdeployOptions {
    fn from(args: PostdeployArgs) -> Self {
        PostdeployOptions {
            sources: args.sources,
            commit: args.commit,
            wait: args.wait,
            intended: IntendedChanges { dropped: args.expect_dropped, renamed: args.expect_renamed },
            rollback: args.rollback,
            discard_new: args.discard_new,
            lock_timeout: args.lock_timeout,
        }
    }
}

impl Subcommand for PostdeployArgs {
    fn name(&self) -> &'static str {
        "postdeploy"
    }

    fn asked(&self) -> Asked {
        Asked::of(&self.sources)
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = self.clone().into();
        match self.remote.remote(call)? {
            Some(remote) => call.finish(&remote.postdeploy(&options)?),
            None => call.finish(&postdeploy::run(&options, &call.context)?),
        }
    }

    fn is_gate(&self) -> bool {
        true
    }
}
