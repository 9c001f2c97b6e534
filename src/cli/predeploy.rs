//! `predeploy`: its arguments, and its result for people.

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::checks::checks_table;
use crate::ops::Report as _;
use crate::ops::gate::predeploy::{self, PredeployOptions};
use crate::ops::gate::remote::{self, RemoteReport};
use crate::platform::duration::parse_duration;
use crate::platform::error::Result;
use crate::platform::http::Url;
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
    /// Let the 'lifeboat serve' at this URL do the work, for databases that cannot be reached from this machine; SOURCE
    /// is then a name from its config, and the token is read from LIFEBOAT_TOKEN
    #[arg(long, value_name = "URL")]
    remote: Option<Url>,
    /// The maximum time to wait for the response of --remote
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1h", requires = "remote")]
    remote_timeout: Duration,
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

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = self.clone().into();
        match &self.remote {
            Some(url) => call.finish(&remote::run(&options, url, self.remote_timeout)?),
            None => call.finish(&predeploy::run(&options, &call.context)?),
        }
    }

    fn is_gate(&self) -> bool {
        true
    }
}

impl Text for RemoteReport {
    fn text(&self) -> String {
        let summary = self.summary();
        let mut lines = checks_table(&summary.checks);
        for snapshot in &summary.snapshots {
            lines.push_str(&format!("{} was taken\n", snapshot.id));
        }
        if self.code != 0 {
            lines.push_str("the gate is CLOSED\n");
            return lines;
        }
        lines.push_str(
            "the gate is open; if the deploy damages the data, run this on the database's machine to restore it:\n",
        );
        for command in &summary.rollback {
            lines.push_str(&format!("  {command}\n"));
        }
        lines
    }
}
