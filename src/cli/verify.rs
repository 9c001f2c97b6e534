//! `verify`: its arguments, and its result for people.

use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::cli::filter::FilterArgs;
use crate::cli::trust::TrustArgs;
use crate::ops::verify::{self, Outcome, VerifyOptions, VerifyReport};
use crate::ops::watch::Asked;
use crate::platform::error::Result;
use crate::platform::text;

/// Reads every byte of a snapshot and compares all hashes
#[derive(Args, Clone, Debug)]
pub(super) struct VerifyArgs {
    /// A snapshot id, the start of one, 'latest', or the path of an archive
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    snapshot: String,
    /// The options that choose snapshots.
    #[command(flatten)]
    filter: FilterArgs,
    /// Verify all snapshots (of --source, if given)
    #[arg(long, conflicts_with_all = ["snapshot", "tag", "before"])]
    all: bool,
    /// Check only manifests, indexes and sizes: finds missing and truncated files, but not changed bytes
    #[arg(long)]
    quick: bool,
    /// The options about snapshots that are not trusted.
    #[command(flatten)]
    trust: TrustArgs,
}

impl From<VerifyArgs> for VerifyOptions {
    fn from(args: VerifyArgs) -> Self {
        VerifyOptions { snapshot: args.snapshot, filter: args.filter.into(), all: args.all, quick: args.quick }
    }
}

impl Subcommand for VerifyArgs {
    fn name(&self) -> &'static str {
        "verify"
    }

    fn asked(&self) -> Asked {
        self.filter.asked(Some(self.snapshot.as_str()).filter(|_| !self.all))
    }

    fn trust(&self) -> TrustArgs {
        self.trust
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&verify::run(&self.clone().into(), &call.context)?)
    }
}

impl Text for VerifyReport {
    /// Returns a line for each snapshot, those with problems last, and the sum if there are several.
    fn text(&self) -> String {
        let mut lines = String::new();
        let (good, bad): (Vec<&Outcome>, Vec<&Outcome>) = self.snapshots.iter().partition(|outcome| outcome.ok);
        for outcome in good.iter().chain(&bad) {
            let restore = outcome
                .restore_seconds
                .map(|seconds| format!(", restored in {}", text::seconds(seconds)))
                .unwrap_or_default();
            let (id, verdict) = (&outcome.id, verdict(outcome));
            lines.push_str(&format!("{id}  {verdict}  ({}{restore})\n", text::seconds(outcome.seconds)));
            for problem in &outcome.problems {
                lines.push_str(&format!("  {}\n", problem.message));
            }
        }
        if self.snapshots.len() > 1 {
            let damaged = bad.iter().filter(|outcome| verdict(outcome) == DAMAGED).count();
            let all = self.snapshots.len();
            let others = bad.len() - damaged;
            let mut sum = format!("{} of {all} snapshots without a problem", good.len());
            for (count, what) in [(damaged, DAMAGED), (others, "not tested or not proven")] {
                if count > 0 {
                    sum += &format!(", {count} {what}");
                }
            }
            lines.push_str(&(sum + "\n"));
        }
        lines
    }
}

/// The verdict on a snapshot whose bytes are not what was written.
const DAMAGED: &str = "DAMAGED";

fn verdict(outcome: &Outcome) -> &'static str {
    match (outcome.ok, outcome.level) {
        _ if outcome.is_newer() => "NOT TESTED",
        (true, "none") => "complete (quick check)",
        (true, level) => level,
        (false, "none") => "NOT PROVEN",
        (false, _) => DAMAGED,
    }
}
