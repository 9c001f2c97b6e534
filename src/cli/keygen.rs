//! `keygen`: its arguments, and its result for people.

use std::path::PathBuf;

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::output;
use crate::ops::keygen::{self, KeygenOptions, KeygenReport};
use crate::platform::error::Result;

/// Creates a key for encrypted archives, which everybody who has the key file can decrypt, or one that signs snapshots
#[derive(Args, Clone, Debug)]
pub(super) struct KeygenArgs {
    /// Write the key to this new file, which only you can read; default: stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Do not create a key; print the public keys of the secret keys in this file
    #[arg(long, value_name = "FILE", conflicts_with = "output")]
    public: Option<PathBuf>,
    /// Create an Ed25519 key in the format of OpenSSH that signs snapshots: key_file in the config
    #[arg(long, conflicts_with = "public")]
    signing: bool,
}

impl From<KeygenArgs> for KeygenOptions {
    fn from(args: KeygenArgs) -> Self {
        KeygenOptions { output: args.output, public: args.public, signing: args.signing }
    }
}

impl Subcommand for KeygenArgs {
    fn name(&self) -> &'static str {
        "keygen"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let report = keygen::run(&self.clone().into(), call.json)?;
        if let Some(note) = report.note().filter(|_| !call.quiet) {
            output::print_note(&note);
        }
        call.finish(&report)
    }

    fn opens_archives(&self) -> bool {
        false
    }

    fn reads_config(&self) -> bool {
        false
    }
}

impl Text for KeygenReport {
    fn text(&self) -> String {
        match self {
            KeygenReport::Made { text, .. } => text.as_ref().map(|text| text.expose().to_owned()).unwrap_or_default(),
            KeygenReport::Public { public_keys, .. } => public_keys.iter().map(|key| format!("{key}\n")).collect(),
        }
    }
}
