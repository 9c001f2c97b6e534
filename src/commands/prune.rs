//! `prune`: removes what the policy no longer keeps; the only command that deletes.

use chrono::{Duration, Utc};
use clap::Args;
use serde::Serialize;

use super::{Context, Report};
use crate::catalog::{Described, ProofLevel};
use crate::duration::parse_duration;
use crate::error::{Error, Kind, Result, one_line};
use crate::id::SourceName;
use crate::manifest::SnapshotKind;
use crate::retention::{Candidate, Policy, plan};
use crate::text;

/// Removes old snapshots by a policy; prints its plan, and deletes only with --yes
#[derive(Args, Clone, Debug)]
pub struct PruneArgs {
    /// Only snapshots of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<SourceName>,
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: u32,
    /// Keep the newest of each hour, for N hours that have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_hourly: u32,
    /// Keep the newest of each day
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_daily: u32,
    /// Keep the newest of each ISO week
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_weekly: u32,
    /// Keep the newest of each month
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_monthly: u32,
    /// Keep the newest of each year
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_yearly: u32,
    /// Keep all that are younger, such as 7d
    #[arg(long, value_name = "AGE", value_parser = parse_duration)]
    pub keep_within: Option<Duration>,
    /// Keep all with this tag (repeatable)
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
    /// Keep safety, partial and damaged ones, which do not count, while they are younger
    #[arg(long, value_name = "AGE", value_parser = parse_duration, default_value = "30d")]
    pub keep_others: Duration,
    /// Delete, not only say what would be deleted
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// A snapshot that stays.
#[derive(Debug, Serialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Why it stays.
    pub reasons: Vec<String>,
}

/// A snapshot that goes.
#[derive(Debug, Serialize)]
pub struct Deleted {
    /// Its id.
    pub id: String,
}

/// What stays and what goes.
#[derive(Debug, Serialize)]
pub struct PruneReport {
    /// True where nothing was deleted.
    pub dry_run: bool,
    /// Newest first.
    pub keep: Vec<Kept>,
    /// Newest first.
    pub delete: Vec<Deleted>,
    /// What was freed, or would be: snapshots and what crashed writers left behind.
    pub freed_bytes: u64,
}

impl Report for PruneReport {
    fn text(&self) -> String {
        let kept =
            self.keep.iter().map(|kept| vec!["keep".to_owned(), kept.id.clone(), one_line(&kept.reasons.join(", "))]);
        let verb = if self.dry_run { "delete" } else { "deleted" };
        let gone = self.delete.iter().map(|gone| vec![verb.to_owned(), gone.id.clone(), String::new()]);
        let mut lines = text::table(&["", "ID", "BECAUSE"], kept.chain(gone));
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

/// Runs the command.
pub fn run(args: &PruneArgs, context: &Context) -> Result<PruneReport> {
    let policy = Policy {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: args.keep_within,
        tags: args.keep_tag.clone(),
        others_within: args.keep_others,
    };
    if policy.is_empty() {
        return Err(Error::usage("the policy keeps nothing")
            .hint("say what to keep, with --keep-last, --keep-daily, --keep-within and the like"));
    }
    let catalog = context.open_catalog()?;
    let described = catalog.describe(catalog.list_all(args.source.as_ref())?)?;
    let candidates: Vec<Candidate> = described.iter().map(candidate).collect();
    let plan = plan(&candidates, &policy, Utc::now());
    let size = |described: &Described| described.listed.archive.as_ref().map_or(0, |archive| archive.bytes);
    let sources = match &args.source {
        Some(source) => vec![source.clone()],
        None => catalog.sources()?,
    };
    let mut freed_bytes = 0;
    for id in &plan.delete {
        crate::interrupt::check()?;
        if args.yes {
            freed_bytes +=
                catalog.delete(id).map_err(|error| error.context(format!("cannot delete the snapshot {id}")))?;
        } else {
            freed_bytes += described.iter().find(|described| &described.listed.id == id).map_or(0, size);
        }
    }
    for source in &sources {
        for object in catalog.orphans(source)?.objects {
            freed_bytes += object.bytes;
            if args.yes {
                tracing::info!("clearing {}, which belongs to no snapshot", object.key);
                catalog.delete_orphan(&object)?;
            }
        }
    }
    if args.yes {
        freed_bytes += catalog.clear_leftovers()?;
    }
    let keep = plan.keep.into_iter().map(|(id, reasons)| Kept { id: id.to_string(), reasons }).collect();
    let delete = plan.delete.into_iter().map(|id| Deleted { id: id.to_string() }).collect();
    Ok(PruneReport { dry_run: !args.yes, keep, delete, freed_bytes })
}

fn candidate(described: &Described) -> Candidate {
    let id = described.listed.id.clone();
    let manifest = described.manifest.as_ref();
    if let Err(error) = manifest {
        debug_assert_eq!(error.kind, Kind::Problem, "describe gives no other");
        tracing::warn!("{} does not count: {}", id, one_line(&error.message));
    }
    Candidate {
        created_at: manifest.map_or(id.time(), |manifest| manifest.created_at),
        kind: manifest.map_or(SnapshotKind::Damaged, |manifest| manifest.kind),
        damaged: described.proof.level == ProofLevel::Damaged,
        drilled: described.proof.drilled,
        tags: manifest.map(|manifest| manifest.tags.clone()).unwrap_or_default(),
        id,
    }
}
