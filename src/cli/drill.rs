//! `drill`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::cli::narrow::NarrowArgs;
use crate::ops::drill::{self, DrillOptions};
use crate::platform::error::Result;

/// Restores a snapshot into scratch, checks it, times it, and drops it; by default the newest of every source of the config
#[derive(Args, Clone, Debug)]
pub(super) struct DrillArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Any one of the full, undamaged snapshots, and not the newest
    #[arg(long, conflicts_with_all = ["snapshot", "tag", "before"])]
    random: bool,
    /// Which snapshots are meant
    #[command(flatten)]
    narrow: NarrowArgs,
    /// PostgreSQL: the server to make the scratch database on; by default the one the snapshot came from
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// PostgreSQL: leave owners and grants out, for a server that lacks the roles
    #[arg(long)]
    no_owner: bool,
}

impl From<DrillArgs> for DrillOptions {
    fn from(args: DrillArgs) -> Self {
        DrillOptions {
            snapshot: args.snapshot,
            random: args.random,
            narrow: args.narrow.into(),
            to: args.to,
            no_owner: args.no_owner,
        }
    }
}

impl Subcommand for DrillArgs {
    fn name(&self) -> &'static str {
        "drill"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&drill::run(&self.clone().into(), &call.context)?)
    }
}
