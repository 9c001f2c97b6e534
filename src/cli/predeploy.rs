//! `predeploy`: its arguments, and its result for people.

use crate::cli::call::{Call, Subcommand};
use crate::cli::remote::RemoteArgs;
use crate::cli::trust::TrustArgs;
use crate::ops::gate::predeploy::{self, PredeployOptions};
use crate::ops::watch::Asked;
use crate::platform::duration::parse_duration;
use crate::platform::error::Result;
use chrono::Duration;
use clap::Args;

/// Fails unless the data is healthy and freshly backed up: checks the data, compares it with the last good snapshot,
/// takes a new snapshot, and reads that back
#[derive(Args, Clone, Debug)]
pub(super) struct PredeployArgs {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The commit to deploy, which becomes a tag of the snapshots; default: the workflow's commit in GitHub Actions
    #[arg(long, value_name = "COMMIT")]
    commit: Option<String>,
    /// An additional tag for the snapshots (repeatable)
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// The maximum time to wait until failing checks pass, such as 60s
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s")]
    wait: Duration,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    #[arg(long)]
    full_check: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<PredeployArgs> for PredeployOptions {
    fn from(args: PredeployArgs) -> Self {
        PredeployOptions {
            sources: args.sources,
            commit: args.commit,
            tag: args.tag,
            wait: args.wait,
            full_check: args.full_check,
        }
    }
}

impl Subcommand for PredeployArgs {
    fn name(&self) -> &'static str {
        "predeploy"
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
            Some(remote) => call.finish(&remote.predeploy(&options)?),
            None => call.finish(&predeploy::run(&options, &call.context)?),
        }
    }

    fn is_gate(&self) -> bool {
        true
    }
}
