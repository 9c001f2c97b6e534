//! `doctor`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand};
use crate::ops::doctor::{self, DoctorOptions};
use crate::platform::error::Result;

/// Tests everything in the config: sources, stores (writes, reads, lists and deletes test objects), mount points, keys,
/// addresses
#[derive(Args, Clone, Debug)]
pub(super) struct DoctorArgs {
    /// Test only these: source names from the config, SQLite files, PostgreSQL URLs
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Also send a test notice and test pings, so that you can see them arrive
    #[arg(long)]
    notify: bool,
}

impl From<DoctorArgs> for DoctorOptions {
    fn from(args: DoctorArgs) -> Self {
        DoctorOptions { sources: args.sources, notify: args.notify }
    }
}

impl Subcommand for DoctorArgs {
    fn name(&self) -> &'static str {
        "doctor"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&doctor::run(&self.clone().into(), &call.context)?)
    }
}
