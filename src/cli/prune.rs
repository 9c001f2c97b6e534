//! `prune`: its arguments, and its result for people.

use chrono::Duration;
use clap::Args;

use crate::cli::call::{Call, Subcommand, Text};
use crate::ops::prune::{self, PruneOptions, PruneReport};
use crate::ops::watch::Asked;
use crate::platform::duration::parse_duration;
use crate::platform::error::{Result, one_line};
use crate::platform::text;
use crate::snapshots::id::SourceName;

/// Deletes old snapshots by a retention policy; without --yes it only prints its plan
#[derive(Args, Clone, Debug)]
pub(super) struct PruneArgs {
    /// Only snapshots of this source
    #[arg(long, value_name = "NAME")]
    source: Option<SourceName>,
    /// Keep the newest N snapshots
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_last: u32,
    /// Keep the newest snapshot of each hour, for the last N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_hourly: u32,
    /// Keep the newest snapshot of each day, for the last N days that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_daily: u32,
    /// Keep the newest snapshot of each ISO week, for the last N weeks that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_weekly: u32,
    /// Keep the newest snapshot of each month, for the last N months that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_monthly: u32,
    /// Keep the newest snapshot of each year, for the last N years that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    keep_yearly: u32,
    /// Keep all snapshots that are younger than this, such as 7d
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    keep_within: Option<Duration>,
    /// Keep all snapshots with this tag (repeatable)
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Keep safety, partial, damaged and suspect snapshots that are younger than this; --keep-last and similar options
    /// do not count them [default: keep_others in the config, or 30d]
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    keep_others: Option<Duration>,
    /// Delete only these archives without a manifest: ids or the starts of ids, as 'lifeboat list' shows them
    #[arg(long, value_name = "ID", num_args = 1.., conflicts_with_all = [
        "source", "keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly", "keep_within",
        "keep_tag", "keep_others",
    ])]
    without_manifest: Vec<String>,
    /// Delete the snapshots, instead of only printing what would be deleted
    #[arg(long, short = 'y')]
    yes: bool,
}

impl From<PruneArgs> for PruneOptions {
    fn from(args: PruneArgs) -> Self {
        PruneOptions {
            source: args.source,
            keep_last: args.keep_last,
            keep_hourly: args.keep_hourly,
            keep_daily: args.keep_daily,
            keep_weekly: args.keep_weekly,
            keep_monthly: args.keep_monthly,
            keep_yearly: args.keep_yearly,
            keep_within: args.keep_within,
            keep_tag: args.keep_tag,
            keep_others: args.keep_others,
            without_manifest: args.without_manifest,
            yes: args.yes,
        }
    }
}

impl Subcommand for PruneArgs {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn asked(&self) -> Asked {
        self.source.as_ref().map_or(Asked::All, |source| Asked::Named(vec![source.to_string()]))
    }

    fn run(&self, call: &mut Call) -> Result<u8> {
        call.finish(&prune::run(&self.clone().into(), &call.context)?)
    }

    fn opens_archives(&self) -> bool {
        false
    }
}

impl Text for PruneReport {
    fn text(&self) -> String {
        let kept =
            self.keep.iter().map(|kept| vec!["keep".to_owned(), kept.id.clone(), one_line(&kept.reasons.join(", "))]);
        let verb = if self.dry_run { "delete" } else { "deleted" };
        let deleted = self.delete.iter().map(|deleted| vec![verb.to_owned(), deleted.id.clone(), String::new()]);
        let without = self
            .without_manifest
            .iter()
            .map(|found| vec!["keep".to_owned(), found.id.to_string(), "archive without manifest".to_owned()]);
        let mut lines = text::table(&["", "ID", "REASON"], kept.chain(without).chain(deleted));
        if let Some(first) = self.without_manifest.first() {
            let id = &first.id;
            lines.push_str(&format!(
                "Archives without manifest are never deleted unless they are named: 'lifeboat prune --without-manifest \
                 {id}'. 'lifeboat copy {id} --from STORE --to STORE' writes the manifest again.\n"
            ));
        }
        let freed = text::bytes(self.freed_bytes);
        if self.dry_run {
            lines.push_str(&format!(
                "nothing was deleted; --yes deletes {} snapshots and frees {freed}\n",
                self.delete.len()
            ));
        } else {
            lines.push_str(&format!("{} snapshots deleted, {freed} freed\n", self.delete.len()));
        }
        lines
    }
}
