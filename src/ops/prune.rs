//! `prune`: removes what the policy no longer keeps; the only command that deletes.

use std::collections::BTreeSet;

use chrono::{Duration, Utc};
use serde::{Serialize, Serializer};

use crate::ops::tags::SUSPECT;
use crate::ops::{Context, Problem, Report, stores};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{Catalog, Described, Listed, ProofLevel};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::SnapshotKind;
use crate::snapshots::retention::{Candidate, Plan, Policy, plan};

/// Options of [`run`].
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// Only snapshots of this source
    pub source: Option<SourceName>,
    /// Keep the newest N
    pub keep_last: u32,
    /// Keep the newest of each hour, for N hours that have one
    pub keep_hourly: u32,
    /// Keep the newest of each day
    pub keep_daily: u32,
    /// Keep the newest of each ISO week
    pub keep_weekly: u32,
    /// Keep the newest of each month
    pub keep_monthly: u32,
    /// Keep the newest of each year
    pub keep_yearly: u32,
    /// Keep all that are younger, such as 7d
    pub keep_within: Option<Duration>,
    /// Keep all with this tag (repeatable)
    pub keep_tag: Vec<String>,
    /// Keep safety, partial and damaged ones, which do not count, while they are younger
    pub keep_others: Duration,
    /// Delete, not only say what would be deleted
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
#[derive(Debug, Default, Serialize)]
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

impl PruneReport {
    /// Adds what became of another store.
    fn add(&mut self, other: PruneReport) {
        self.keep.extend(other.keep);
        self.delete.extend(other.delete);
        self.freed_bytes += other.freed_bytes;
        self.failures.extend(other.failures);
    }
}

impl Report for PruneReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

impl PruneOptions {
    /// The policy that the command line names; an empty one where it names none.
    fn policy(&self) -> Policy {
        Policy {
            last: self.keep_last,
            hourly: self.keep_hourly,
            daily: self.keep_daily,
            weekly: self.keep_weekly,
            monthly: self.keep_monthly,
            yearly: self.keep_yearly,
            within: self.keep_within,
            tags: self.keep_tag.clone(),
            others_within: self.keep_others,
        }
    }
}

impl Context {
    /// The config's policy, which must keep something.
    pub(crate) fn retention(&self) -> Result<&Policy> {
        let nothing = || {
            Error::usage("the policy keeps nothing").hint(
                "say what to keep, with --keep-last, --keep-daily, --keep-within and the like, or under [retention] in the config",
            )
        };
        let config = self.config.as_ref().ok_or_else(nothing)?;
        Some(&config.retention()?.policy).filter(|policy| !policy.is_empty()).ok_or_else(nothing)
    }

    /// Whether the config wants pruning after every good snapshot.
    pub(crate) fn prunes_after_snapshot(&self) -> Result<bool> {
        match &self.config {
            Some(config) => Ok(config.retention()?.after_snapshot),
            None => Ok(false),
        }
    }
}

/// Runs the command: by the policy of the command line, or else the config's.
pub fn run(options: &PruneOptions, context: &Context) -> Result<PruneReport> {
    let policy = match options.policy() {
        policy if policy.is_empty() => context.retention()?.clone(),
        policy => policy,
    };
    let sources: Option<Vec<SourceName>> = options.source.clone().map(|source| vec![source]);
    if context.stores_are_given || context.stores.len() < 2 {
        let catalog = context.open_catalog()?;
        if let Some(source) = &options.source {
            catalog.require_source(source)?;
        }
        return prune(&catalog, sources.as_deref(), &policy, options.yes);
    }
    // Every store of the config keeps the same; one that is out of reach does not keep the others from it.
    let mut all = PruneReport { dry_run: !options.yes, ..PruneReport::default() };
    for store in context.all_stores()? {
        match stores::open(store).and_then(|catalog| prune(&catalog, sources.as_deref(), &policy, options.yes)) {
            Ok(report) => all.add(report),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => all.failures.push(error.context("a store was not pruned")),
        }
    }
    Ok(all)
}

/// Prunes these sources in every store by the config's policy, and says which could not be.
pub(crate) fn after_snapshot(sources: &[SourceName], context: &Context) -> Result<(Vec<PruneReport>, Vec<Error>)> {
    let policy = context.retention()?;
    let (mut pruned, mut failures) = (Vec::new(), Vec::new());
    for store in context.all_stores()? {
        match stores::open(store).and_then(|catalog| prune(&catalog, Some(sources), policy, true)) {
            Ok(report) => pruned.push(report),
            Err(error) => failures.push(error),
        }
    }
    Ok((pruned, failures))
}

/// Prunes one store: all sources, or some.
fn prune(catalog: &Catalog, sources: Option<&[SourceName]>, policy: &Policy, for_real: bool) -> Result<PruneReport> {
    let sources = match sources {
        Some(sources) => sources.to_vec(),
        None => catalog.sources()?,
    };
    let mut listed = Vec::new();
    for source in &sources {
        listed.extend(catalog.list(source)?);
    }
    let described = catalog.describe(listed)?;
    // What cannot be read cannot be judged, and stays.
    let candidates: Vec<Candidate> = described.iter().filter_map(candidate).collect();
    let mut plan = plan(&candidates, policy, Utc::now());
    spare_last_copies(&candidates, &mut plan);
    for unreadable in described.iter().filter(|described| described.manifest.is_err()) {
        plan.keep.push((unreadable.listed.id.clone(), vec!["unreadable".to_owned()]));
    }
    let mut in_use = BTreeSet::new();
    for source in &sources {
        in_use.extend(catalog.in_use(source, for_real)?);
    }
    spare_those_in_use(&in_use, &mut plan);
    plan.keep.sort_by(|a, b| b.0.stamp().cmp(a.0.stamp()));
    let doomed = described.iter().map(|described| &described.listed).filter(|listed| plan.delete.contains(&listed.id));
    let doomed: Vec<&Listed> = doomed.collect();
    let mut freed_bytes = if for_real {
        catalog.delete(&doomed)?
    } else {
        doomed.iter().filter_map(|listed| listed.archive.as_ref()).map(|archive| archive.bytes).sum()
    };
    // The snapshots are gone by now, and that is told whatever becomes of the rest.
    let mut failures = Vec::new();
    match clear(catalog, &sources, for_real) {
        Ok(freed) => freed_bytes += freed,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => failures.push(error.context("cannot clear what crashed writers left behind")),
    }
    let keep = plan.keep.into_iter().map(|(id, reasons)| Kept { id: id.to_string(), reasons }).collect();
    let delete = plan.delete.into_iter().map(|id| Deleted { id: id.to_string() }).collect();
    Ok(PruneReport { dry_run: !for_real, keep, delete, freed_bytes, failures })
}

/// What is being restored or drilled stays until that is over: half a restore is none.
fn spare_those_in_use(in_use: &BTreeSet<SnapshotId>, plan: &mut Plan) {
    let (spared, doomed) = std::mem::take(&mut plan.delete).into_iter().partition(|id| in_use.contains(id));
    plan.delete = doomed;
    let spared: Vec<SnapshotId> = spared;
    plan.keep.extend(spared.into_iter().map(|id| (id, vec!["being read".to_owned()])));
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

pub(crate) fn candidate(described: &Described) -> Option<Candidate> {
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
            passed: !manifest.tags.iter().any(|tag| tag == SUSPECT),
            tags: manifest.tags.clone(),
            id,
        }),
    }
}
