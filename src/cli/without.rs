//! The options that leave objects of a PostgreSQL snapshot out of a restore or a drill.

use clap::Args;

use crate::engine::restoring::Without;

/// The objects that are left out.
#[derive(Args, Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the options of pg_restore")]
pub(super) struct WithoutArgs {
    /// PostgreSQL: restore no privileges (grants)
    #[arg(long)]
    no_acl: bool,
    /// PostgreSQL: restore no comments
    #[arg(long)]
    no_comments: bool,
    /// PostgreSQL: restore no publications
    #[arg(long)]
    no_publications: bool,
    /// PostgreSQL: restore no subscriptions
    #[arg(long)]
    no_subscriptions: bool,
}

impl From<WithoutArgs> for Without {
    fn from(args: WithoutArgs) -> Self {
        Without {
            acl: args.no_acl,
            comments: args.no_comments,
            publications: args.no_publications,
            subscriptions: args.no_subscriptions,
        }
    }
}
