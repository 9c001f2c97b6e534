//! `delete`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::delete::{self, DeleteOptions, DeleteReport};
use crate::platform::error::{Result, one_line};
use crate::platform::text;

/// Deletes the named snapshots; without --yes it only prints what would be deleted
#[derive(Args, Clone, Debug)]
pub(super) struct DeleteArgs {
    /// Snapshot ids, or the starts of ids
    #[arg(value_name = "SNAPSHOT", required = true)]
    snapshots: Vec<String>,
    /// Delete the snapshots, instead of only printing what would be deleted
    #[arg(long, short = 'y')]
    yes: bool,
}

impl Subcommand for DeleteArgs {
    fn name(&self) -> &'static str {
        "delete"
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        let options = DeleteOptions { snapshots: self.snapshots.clone(), yes: self.yes };
        call.finish(&delete::run(&options, &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }
}

impl Text for DeleteReport {
    fn text(&self) -> String {
        let verb = if self.dry_run { "would be deleted" } else { "deleted" };
        let line = |one: &delete::Deleted| format!("{}  {verb}, in {}\n", one.id, one_line(&one.store));
        let lines: String = self.delete.iter().map(line).collect();
        let freed = text::bytes(self.freed_bytes);
        let count = self.delete.len();
        lines
            + &match self.dry_run {
                true => format!("nothing was deleted; --yes deletes {count} snapshots and frees {freed}\n"),
                false => format!("{count} snapshots deleted, {freed} freed\n"),
            }
    }
}
