//! `drill`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::cli::filter::FilterArgs;
use crate::cli::trust::TrustArgs;
use crate::cli::without::WithoutArgs;
use crate::ops::drill::{self, DrillOptions};
use crate::ops::watch::Asked;
use crate::platform::error::Result;

/// Restores a snapshot into a scratch database, checks the data, measures the time, and deletes the scratch database;
/// default: the newest snapshot of every source of the config
#[derive(Args, Clone, Debug)]
pub(super) struct DrillArgs {
    /// A snapshot id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    /// Choose one of the full, undamaged snapshots at random, instead of the newest
    #[arg(long, conflicts_with_all = ["snapshot", "tag", "before"])]
    random: bool,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// PostgreSQL: the server to create the scratch database on; default: the server that the snapshot was taken from.
    /// If the role may not create databases, or not the extensions, name an empty database: the snapshot is restored
    /// into it, and it is emptied again
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// PostgreSQL: do not restore owners and grants, for a server that lacks the roles
    #[arg(long)]
    no_owner: bool,
    /// The objects that are left out.
    #[command(flatten)]
    without: WithoutArgs,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<DrillArgs> for DrillOptions {
    fn from(args: DrillArgs) -> Self {
        DrillOptions {
            snapshot: args.snapshot,
            random: args.random,
            filter: args.filter.into(),
            to: args.to,
            no_owner: args.no_owner,
            without: args.without.into(),
        }
    }
}

impl Subcommand for DrillArgs {
    fn name(&self) -> &'static str {
        "drill"
    }

    fn asked(&self) -> Asked {
        self.filter.asked(self.snapshot.as_deref())
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&drill::run(&self.clone().into(), &call.context)?)
    }
}
