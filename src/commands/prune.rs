//! `prune`: removes what the policy no longer keeps; the only command that deletes.

use chrono::{Duration, Utc};
use clap::Args;
use serde::{Serialize, Serializer};

use super::{Context, Problem, Report};
use crate::catalog::{Catalog, Described, Listed, ProofLevel};
use crate::duration::parse_duration;
use crate::error::{Error, Result, one_line};
use crate::id::SourceName;
use crate::manifest::SnapshotKind;
use crate::retention::{Candidate, Plan, Policy, plan};
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
    /// Bytes of the archives that were deleted, or would be, and of what crashed writers left behind.
    pub freed_bytes: u64,
    /// What could not be cleared beside the snapshots; the first decides the exit code.
    #[serde(rename = "problems", skip_serializing_if = "Vec::is_empty", serialize_with = "as_problems")]
    pub failures: Vec<Error>,
}

fn as_problems<S: Serializer>(failures: &[Error], serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(failures.iter().map(|error| Problem::of(error.kind.name(), error)))
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

    fn errors(&self) -> &[Error] {
        &self.failures
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
    if let Some(source) = &args.source {
        catalog.require_source(source)?;
    }
    let described = catalog.describe(catalog.list_all(args.source.as_ref())?)?;
    // What cannot be read cannot be judged, and stays.
    let candidates: Vec<Candidate> = described.iter().filter_map(candidate).collect();
    let mut plan = plan(&candidates, &policy, Utc::now());
    spare_last_copies(&candidates, &mut plan);
    for unreadable in described.iter().filter(|described| described.manifest.is_err()) {
        plan.keep.push((unreadable.listed.id.clone(), vec!["unreadable".to_owned()]));
    }
    plan.keep.sort_by(|a, b| b.0.stamp().cmp(a.0.stamp()));
    let sources = match &args.source {
        Some(source) => vec![source.clone()],
        None => catalog.sources()?,
    };
    let doomed = described.iter().map(|described| &described.listed).filter(|listed| plan.delete.contains(&listed.id));
    let doomed: Vec<&Listed> = doomed.collect();
    let mut freed_bytes = if args.yes {
        catalog.delete(&doomed)?
    } else {
        doomed.iter().filter_map(|listed| listed.archive.as_ref()).map(|archive| archive.bytes).sum()
    };
    // The snapshots are gone by now, and that is told whatever becomes of the rest.
    let mut failures = Vec::new();
    match clear(&catalog, &sources, args.yes) {
        Ok(freed) => freed_bytes += freed,
        Err(error) if error.kind == crate::error::Kind::Interrupted => return Err(error),
        Err(error) => failures.push(error.context("cannot clear what crashed writers left behind")),
    }
    let keep = plan.keep.into_iter().map(|(id, reasons)| Kept { id: id.to_string(), reasons }).collect();
    let delete = plan.delete.into_iter().map(|id| Deleted { id: id.to_string() }).collect();
    Ok(PruneReport { dry_run: !args.yes, keep, delete, freed_bytes, failures })
}

/// Clears what belongs to no snapshot, or says how much that would free; the bytes.
fn clear(catalog: &Catalog, sources: &[SourceName], for_real: bool) -> Result<u64> {
    let mut freed_bytes = 0;
    for source in sources {
        for object in catalog.orphans(source)?.objects {
            freed_bytes += object.bytes;
            if for_real {
                tracing::info!("clearing {}, which belongs to no snapshot", object.key);
                catalog.delete_orphan(&object)?;
            }
        }
    }
    Ok(if for_real { freed_bytes + catalog.clear_leftovers()? } else { freed_bytes })
}

/// Where a source has no good full snapshot left, its newest full one stays although it is damaged: parts of it may be all there is.
fn spare_last_copies(candidates: &[Candidate], plan: &mut Plan) {
    let full = |candidate: &&Candidate| candidate.kind == SnapshotKind::Full;
    let has_good = |source| candidates.iter().filter(full).any(|other| other.id.source() == source && !other.damaged);
    let mut hopeless: Vec<&Candidate> =
        candidates.iter().filter(full).filter(|candidate| !has_good(candidate.id.source())).collect();
    hopeless.sort_by(|a, b| b.id.cmp(&a.id));
    hopeless.dedup_by(|later, first| later.id.source() == first.id.source());
    for candidate in hopeless {
        if plan.delete.contains(&candidate.id) {
            plan.delete.retain(|id| id != &candidate.id);
            plan.keep.push((candidate.id.clone(), vec!["the newest, though damaged".to_owned()]));
        }
    }
}

fn candidate(described: &Described) -> Option<Candidate> {
    let id = described.listed.id.clone();
    match &described.manifest {
        Err(error) => {
            tracing::warn!("{id} does not count, and stays: {}", error.whole());
            None
        }
        Ok(manifest) => Some(Candidate {
            created_at: manifest.created_at,
            kind: manifest.kind,
            damaged: described.proof.level == ProofLevel::Damaged,
            drilled: described.proof.drilled,
            tags: manifest.tags.clone(),
            id,
        }),
    }
}
