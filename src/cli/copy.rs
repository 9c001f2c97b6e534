//! `copy`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::narrow::NarrowArgs;
use crate::ops::copy::{self, Copied, CopyOptions, CopyReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::store::StoreUrl;

/// Copies snapshots into another store; every byte is hashed on both ends
#[derive(Args, Clone, Debug)]
pub(super) struct CopyArgs {
    /// An id, the start of one, or 'latest'
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
    /// Which snapshots are meant
    #[command(flatten)]
    narrow: NarrowArgs,
    /// All snapshots (of --source, where given) that the other store has not yet
    #[arg(long, conflicts_with_all = ["snapshot", "tag", "before"])]
    all: bool,
    /// The store to read from; by default --store
    #[arg(long, value_name = "STORE")]
    from: Option<StoreUrl>,
    /// The store to write to
    #[arg(long, value_name = "STORE")]
    to: StoreUrl,
    /// Make the store to write to where there is none yet
    #[arg(long)]
    create: bool,
}

impl From<CopyArgs> for CopyOptions {
    fn from(args: CopyArgs) -> Self {
        CopyOptions {
            snapshot: args.snapshot,
            narrow: args.narrow.into(),
            all: args.all,
            from: args.from,
            to: args.to,
            create: args.create,
        }
    }
}

impl Subcommand for CopyArgs {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&copy::run(&self.clone().into(), &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn uses_stores_of_config(&self) -> bool {
        false
    }
}

impl Text for CopyReport {
    fn text(&self) -> String {
        let line = |copied: &Copied| {
            let what = if copied.was_there { "was there already" } else { "copied and read back" };
            let bytes = text::bytes(copied.manifest.archive_bytes.unwrap_or(0));
            format!("{}  {what} ({bytes}), in {}\n", copied.manifest.id, one_line(&self.store))
        };
        self.snapshots.iter().map(line).collect()
    }
}
