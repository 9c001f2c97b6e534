//! The check for snapshots that were removed: a manifest names the snapshot before it, and a prune by the retention of the
//! config would have kept that one.
//!
//! The choice of a prune depends only on newer snapshots, so the decision on one that is gone can be made again.

use std::collections::BTreeSet;

use chrono::Utc;

use crate::ops::Context;
use crate::ops::checks::Checks;
use crate::ops::prune::candidate;
use crate::platform::error::{Result, one_line};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::Described;
use crate::snapshots::manifest::SnapshotKind;
use crate::snapshots::retention::{Candidate, Policy, plan};

/// The number of the newest snapshots whose predecessors are looked for.
const EXAMINED: usize = 5;

/// Adds a check for each of the newest snapshots whose predecessor is in no store, although the retention would have kept it.
/// It fails if signatures are checked, and is a remark otherwise. `described` are the newest full snapshots of the store.
pub(crate) fn check_removed(
    catalog: &Catalog,
    name: &SourceName,
    described: &[&Described],
    context: &Context,
    checks: &mut Checks,
) -> Result<()> {
    let policy = match &context.config {
        Some(config) => config.retention()?.policy.clone(),
        None => Policy::default(),
    };
    let is_strict = context.trust.trusted().is_some();
    if policy.is_empty() && !is_strict {
        return Ok(());
    }
    let mut known: Vec<Candidate> = described.iter().filter_map(|described| candidate(described)).collect();
    let ids: BTreeSet<&SnapshotId> = described.iter().map(|described| &described.listed.id).collect();
    let manifests = described.iter().take(EXAMINED).filter_map(|described| described.manifest.as_ref().ok());
    for manifest in manifests {
        let is_unknown = |previous: &&SnapshotId| previous.source() == name && !ids.contains(previous);
        let Some(previous) = manifest.previous.as_ref().filter(is_unknown) else { continue };
        // It counts for the decision on older ones.
        known.push(as_candidate(previous));
        let kept = plan(&known, &policy, Utc::now()).keep.into_iter().find(|(id, _)| id == previous);
        let Some((_, reasons)) = kept.filter(|_| !exists(previous, catalog, context)) else { continue };
        let message = format!(
            "{previous} is gone, and {} names it as the snapshot before it, in {}; the retention keeps such a snapshot ({}): \
             if nobody here has deleted it, somebody else has (this is no longer reported after {EXAMINED} more snapshots)",
            manifest.id,
            one_line(&catalog.location()),
            reasons.join(", ")
        );
        checks.add(format!("{name}: history"), policy.is_empty() || !is_strict, message);
    }
    Ok(())
}

/// Returns a snapshot of which only the id is known, as it was when it was the newest good one.
fn as_candidate(id: &SnapshotId) -> Candidate {
    Candidate {
        id: id.clone(),
        created_at: id.time(),
        kind: SnapshotKind::Full,
        damaged: false,
        drilled: false,
        passed: true,
        tags: Vec::new(),
        is_trusted: true,
        rows: None,
    }
}

/// Returns true if a store has a snapshot, or may have it.
fn exists(id: &SnapshotId, catalog: &Catalog, context: &Context) -> bool {
    let is_there = |catalog: &Catalog| catalog.has(id).unwrap_or(true);
    is_there(catalog) || context.stores.iter().any(|store| context.open(store).map_or(true, |other| is_there(&other)))
}
