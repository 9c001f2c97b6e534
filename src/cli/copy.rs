//! `copy`: its arguments, and its result for people.

use clap::Args;

use crate::archive::Recipient;
use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::ops::copy::{self, Copied, CopyOptions, CopyReport};
use crate::ops::watch::Asked;
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::store::StoreUrl;

/// Copies snapshots to another store, and hashes every byte in both stores
#[derive(Args, Clone, Debug)]
pub(super) struct CopyArgs {
    /// A snapshot id, the start of one, 'latest', or the path of an archive; an archive without a manifest gets its
    /// manifest back, also if --from and --to are the same store
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// Copy all snapshots (of --source, if given) that the target store does not have yet, and those whose archive there
    /// is missing or damaged
    #[arg(long, conflicts_with_all = ["snapshot", "tag", "before"])]
    all: bool,
    /// The store to copy from; default: --store
    #[arg(long, value_name = "STORE")]
    from: Option<StoreUrl>,
    /// The store to copy to
    #[arg(long, value_name = "STORE")]
    to: StoreUrl,
    /// Create the target store if it does not exist
    #[arg(long)]
    create: bool,
    /// Encrypt the copy of an encrypted snapshot for this public age key instead (repeatable); the old secret key is
    /// needed to read the snapshot
    #[arg(long, value_name = "age1...")]
    encrypt_to: Vec<Recipient>,
}

impl From<CopyArgs> for CopyOptions {
    fn from(args: CopyArgs) -> Self {
        CopyOptions {
            snapshot: args.snapshot,
            filter: args.filter.into(),
            all: args.all,
            from: args.from,
            to: args.to,
            create: args.create,
            encrypt_to: args.encrypt_to,
        }
    }
}

impl Subcommand for CopyArgs {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn asked(&self) -> Asked {
        self.filter.asked(Some(self.snapshot.as_str()).filter(|_| !self.all))
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&copy::run(&self.clone().into(), &call.context)?)
    }

    /// An archive without a manifest is opened, and only a name can mean one. So is one that is encrypted to other keys.
    fn opens_archives(&self) -> bool {
        !self.encrypt_to.is_empty() || (!self.all && self.snapshot != "latest")
    }

    fn uses_stores_of_config(&self) -> bool {
        false
    }
}

impl Text for CopyReport {
    fn text(&self) -> String {
        let line = |copied: &Copied| {
            let action = match (copied.was_there, copied.mended) {
                _ if copied.manifest_written => "every byte was read, and its manifest was written again",
                (_, true) => "mended: its archive was copied again and read back",
                (true, false) => "already exists",
                (false, false) => "copied and read back",
            };
            let bytes = text::bytes(copied.manifest.archive_bytes.unwrap_or(0));
            format!("{}  {action} ({bytes}), in {}\n", copied.manifest.id, one_line(&self.store))
        };
        self.snapshots.iter().map(line).collect()
    }
}
