//! The snapshots that a store holds of the config's sources. Manifests never change: each is read once and kept in
//! memory, and later only new ones are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};

use crate::ops::check::mark_short;
use crate::ops::prune::candidate;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch};
use crate::platform::error::{Kind, Result};
use crate::platform::text;
use crate::serve::page::{DAYS, Growth, Removal};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::{Described, NewestListing};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::retention::{Candidate, plan};
use crate::snapshots::row_counts::RowCounts;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::StoreUrl;

/// The number of newest snapshots of a source that are listed at every inspection, and read before all others.
const NEWEST: usize = 16;
/// The number of the fastest growing tables that are shown, and of the slowest growing ones.
const TABLES_PER_END: usize = 5;
/// The shortest time, in seconds, from which the growth per day is calculated.
const SHORTEST_SPAN: f64 = 3600.0;
/// The number of days for which the next removals are predicted, assuming one new snapshot per day.
const DAYS_AHEAD: i64 = 60;
/// The maximum number of snapshots of a source for that prediction, which is calculated for every day.
const MAX_PREDICTED: usize = 2000;
/// The maximum number of predicted removals that are shown.
const MAX_REMOVALS: usize = 3;

/// A store, and what was read from it.
pub(crate) struct History {
    catalog: Catalog,
    sources: BTreeMap<SourceName, Known>,
}

/// The known snapshots of one source.
#[derive(Default)]
struct Known {
    /// The snapshots that were read; their manifests are kept without tables.
    snapshots: BTreeMap<SnapshotId, Arc<Described>>,
    /// The snapshots that are still to be read, the next one last.
    pending: Vec<Listed>,
    /// The archives without a manifest, newest first.
    without_manifest: Vec<ArchiveWithoutManifest>,
    /// True if anything changed since the last summary.
    has_changed: bool,
    summary: Summary,
}

/// A summary of the snapshots of a source.
#[derive(Clone, Default)]
pub(crate) struct Summary {
    /// The baseline: the newest good snapshot, with its tables.
    pub(crate) baseline: Option<Arc<Manifest>>,
    /// The reason, if the newest good snapshot cannot be read.
    pub(crate) baseline_error: Option<String>,
    /// The growth of its tables, fastest first.
    pub(crate) growth: Vec<Growth>,
    /// The times of the two snapshots between which the growth was calculated.
    pub(crate) growth_span: String,
    /// The snapshots that the retention plan removes next.
    pub(crate) removals: Vec<Removal>,
}

/// The result of the last inspection of a store.
#[derive(Clone, Default)]
pub(crate) struct StoreContents {
    /// True if the store is local.
    pub(crate) is_local: bool,
    /// The free space in bytes, if the store reports it.
    pub(crate) free_bytes: Option<u64>,
    /// Its snapshots, by source.
    pub(crate) sources: BTreeMap<SourceName, SourceContents>,
    /// The reason, if it cannot be read now; the other fields are then from an earlier inspection.
    pub(crate) error: Option<String>,
}

/// The snapshots that a store has of a source.
#[derive(Clone, Default)]
pub(crate) struct SourceContents {
    /// The snapshots, newest first.
    pub(crate) snapshots: Vec<Arc<Described>>,
    /// The archives without a manifest, newest first.
    pub(crate) without_manifest: Vec<ArchiveWithoutManifest>,
    /// The number of snapshots that are still to be read.
    pub(crate) unread: usize,
    /// Their summary.
    pub(crate) summary: Summary,
}

impl History {
    /// Opens a store; nothing is read yet.
    pub(crate) fn open(store: &StoreUrl, sources: &[SourceName], context: &Context) -> Result<History> {
        let sources = sources.iter().map(|source| (source.clone(), Known::default())).collect();
        Ok(History { catalog: context.open(store)?, sources })
    }

    /// Reads the newest snapshots that are not known yet.
    pub(crate) fn read_newest(&mut self) -> Result<()> {
        for (source, known) in &mut self.sources {
            let newest = self.catalog.list_with_archives(Some(source), None, NEWEST)?;
            known.note_archives(&newest);
            known.forget_deleted(&newest.listed);
            known.read(&self.catalog, newest.listed)?;
        }
        Ok(())
    }

    /// Lists all names. Deleted snapshots are forgotten; unknown ones are left to [`read_some`](Self::read_some).
    pub(crate) fn list(&mut self) -> Result<()> {
        for (source, known) in &mut self.sources {
            let (listed, without_manifest) = self.catalog.list_with_all_archives(source)?;
            known.without_manifest = without_manifest;
            let before = known.snapshots.len();
            let listed_ids: BTreeSet<&SnapshotId> = listed.iter().map(|listed| &listed.id).collect();
            known.snapshots.retain(|id, _| listed_ids.contains(id));
            known.has_changed |= known.snapshots.len() < before;
            known.pending = listed.into_iter().filter(|listed| known.must_read(listed)).collect();
            known.pending.reverse();
        }
        Ok(())
    }

    /// Reads up to `count` more snapshots of each source, newest first. Returns false if none are left to be read.
    pub(crate) fn read_some(&mut self, count: usize) -> Result<bool> {
        for known in self.sources.values_mut() {
            let some = known.pending.split_off(known.pending.len().saturating_sub(count));
            known.read(&self.catalog, some)?;
        }
        Ok(self.sources.values().any(|known| !known.pending.is_empty()))
    }

    /// Updates the summaries. Growth and removals are calculated again if something is new and all of it was read.
    pub(crate) fn update_summaries(&mut self, context: &Context) {
        for (source, known) in &mut self.sources {
            let newest_first: Vec<&Arc<Described>> = known.snapshots.values().rev().collect();
            let last = known.summary.baseline.take();
            // The baseline is chosen every time: a snapshot that could not be read, or that was dated in the future,
            // may be the baseline now.
            match baseline(&newest_first, last.clone(), &self.catalog, context) {
                Ok(baseline) => (known.summary.baseline, known.summary.baseline_error) = (baseline, None),
                Err(error) => {
                    known.summary.baseline = last;
                    known.summary.baseline_error = Some(error.full_message_with_hint());
                }
            }
            if !known.has_changed || !known.pending.is_empty() {
                continue;
            }
            // A snapshot that could not be read now is tried again at the next inspection.
            known.has_changed = known.summary.baseline_error.is_some();
            if let Some(baseline) = &known.summary.baseline {
                match growth(baseline, &newest_first, &self.catalog, context) {
                    Ok((span, growth)) => (known.summary.growth_span, known.summary.growth) = (span, growth),
                    Err(error) => {
                        known.has_changed = true;
                        tracing::debug!("{source}: {}", error.full_message());
                    }
                }
            }
            known.summary.removals = removals(source, &newest_first, context);
        }
    }

    /// Returns everything that is known now.
    pub(crate) fn contents(&self) -> StoreContents {
        let one = |(source, known): (&SourceName, &Known)| {
            let snapshots = known.snapshots.values().rev().cloned().collect();
            let summary = known.summary.clone();
            let without_manifest = known.without_manifest.clone();
            (source.clone(), SourceContents { snapshots, without_manifest, unread: known.pending.len(), summary })
        };
        StoreContents {
            is_local: self.catalog.is_local(),
            free_bytes: self.catalog.free_bytes(),
            sources: self.sources.iter().map(one).collect(),
            error: None,
        }
    }
}

impl Known {
    /// Returns true if a snapshot is not known, or has changed since it was read.
    fn must_read(&self, listed: &Listed) -> bool {
        self.snapshots.get(&listed.id).is_none_or(|known| {
            known.manifest.is_err() || known.listed.proofs != listed.proofs || bytes(&known.listed) != bytes(listed)
        })
    }

    /// Notes the archives without a manifest among the newest data, and forgets those that have one now.
    fn note_archives(&mut self, newest: &NewestListing) {
        self.without_manifest.retain(|known| newest.listed.iter().all(|listed| listed.id != known.id));
        for found in newest.without_manifest.iter().rev() {
            if self.without_manifest.iter().all(|known| known.id != found.id) {
                self.without_manifest.insert(0, found.clone());
            }
        }
    }

    /// Forgets deleted snapshots: those that would be among the newest but are not listed.
    fn forget_deleted(&mut self, newest: &[Listed]) {
        let listed_ids: BTreeSet<&SnapshotId> = newest.iter().map(|listed| &listed.id).collect();
        let oldest = listed_ids.first().copied().filter(|_| newest.len() >= NEWEST);
        let before = self.snapshots.len();
        self.snapshots.retain(|id, _| listed_ids.contains(id) || oldest.is_some_and(|oldest| id < oldest));
        self.has_changed |= self.snapshots.len() < before;
    }

    fn read(&mut self, catalog: &Catalog, listed: Vec<Listed>) -> Result<()> {
        let unread: Vec<Listed> = listed.into_iter().filter(|listed| self.must_read(listed)).collect();
        for mut described in catalog.describe(unread)? {
            mark_short(&mut described);
            if let Ok(manifest) = &mut described.manifest {
                // The tables of thousands of snapshots would take more memory than everything else.
                (manifest.tables, manifest.sqlite, manifest.postgres) = (Vec::new(), None, None);
            }
            self.has_changed = true;
            self.snapshots.insert(described.listed.id.clone(), Arc::new(described));
        }
        Ok(())
    }
}

fn bytes(listed: &Listed) -> Option<u64> {
    listed.archive.as_ref().map(|archive| archive.bytes)
}

/// Returns true if a snapshot is good to restore from: full, undamaged, and not tagged as suspect.
pub(crate) fn is_good(described: &Described) -> bool {
    described.proof.level != ProofLevel::Damaged
        && described
            .manifest
            .as_ref()
            .is_ok_and(|manifest| manifest.kind == SnapshotKind::Full && !manifest.has_tag(SUSPECT))
}

/// Returns the newest good snapshot, with its tables.
fn baseline(
    newest_first: &[&Arc<Described>],
    last: Option<Arc<Manifest>>,
    catalog: &Catalog,
    context: &Context,
) -> Result<Option<Arc<Manifest>>> {
    let now = Utc::now();
    let newest = newest_first.iter().find(|described| is_good(described) && described.listed.id.time() <= now);
    let Some(newest) = newest else { return Ok(None) };
    let id = &newest.listed.id;
    match last.filter(|last| last.id == *id) {
        Some(last) => Ok(Some(last)),
        None => Ok(Some(Arc::new(fetch::manifest(catalog, id, context)?))),
    }
}

/// Returns the growth of the tables, from the oldest good snapshot of the days that are shown to the newest one.
fn growth(
    newest: &Manifest,
    newest_first: &[&Arc<Described>],
    catalog: &Catalog,
    context: &Context,
) -> Result<(String, Vec<Growth>)> {
    let start = newest.created_at - Duration::days(i64::from(DAYS));
    let mut oldest_first = newest_first.iter().rev();
    let oldest = oldest_first.find(|described| is_good(described) && described.listed.id.time() >= start);
    let Some(oldest) = oldest.filter(|oldest| oldest.listed.id != newest.id) else {
        return Ok(Default::default());
    };
    let oldest = fetch::manifest(catalog, &oldest.listed.id, context)?;
    let seconds = (newest.created_at - oldest.created_at).num_seconds().max(1) as f64;
    let rows = |manifest: &Manifest| RowCounts::of(&manifest.tables).tables;
    let before = rows(&oldest);
    let mut grown: Vec<(f64, Growth)> = rows(newest)
        .into_iter()
        .map(|(table, after)| {
            let before = before.get(&table).copied().unwrap_or(0);
            let rows_per_day = (after as f64 - before as f64) / seconds * 86_400.0;
            // The growth per day cannot be predicted from a few minutes.
            let shown = if seconds >= SHORTEST_SPAN { format!("{rows_per_day:+.0}") } else { String::new() };
            (rows_per_day, Growth { table, before, after, rows_per_day: shown })
        })
        .collect();
    grown.sort_by(|one, other| other.0.total_cmp(&one.0));
    if grown.len() > 2 * TABLES_PER_END {
        grown.drain(TABLES_PER_END..grown.len() - TABLES_PER_END);
    }
    let span = format!("from {} to {}", text::time(oldest.created_at), text::time(newest.created_at));
    Ok((span, grown.into_iter().map(|(_, growth)| growth).collect()))
}

/// Returns the snapshots that the retention plan removes next: at the next prune, or else on the first day on which it
/// would remove any if one snapshot is taken every day.
fn removals(source: &SourceName, newest_first: &[&Arc<Described>], context: &Context) -> Vec<Removal> {
    let Ok(policy) = context.retention() else { return Vec::new() };
    let mut candidates: Vec<Candidate> =
        newest_first.iter().filter(|described| described.manifest.is_ok()).filter_map(|one| candidate(one)).collect();
    let (existing, now) = (candidates.len(), Utc::now());
    let last_day = if existing <= MAX_PREDICTED { DAYS_AHEAD } else { 0 };
    for day in 0..=last_day {
        let at = now + Duration::days(day);
        if day > 0 {
            candidates.push(simulated(source, at));
        }
        let mut removed = plan(&candidates, policy, at).delete;
        removed.retain(|id| candidates[..existing].iter().any(|candidate| candidate.id == *id));
        if removed.is_empty() {
            continue;
        }
        removed.sort();
        let when = match day {
            0 => "at the next prune".to_owned(),
            1 => "in 1 day".to_owned(),
            days => format!("in {days} days"),
        };
        return removed
            .iter()
            .take(MAX_REMOVALS)
            .map(|id| Removal { id: id.to_string(), when: when.clone() })
            .collect();
    }
    Vec::new()
}

fn simulated(source: &SourceName, at: DateTime<Utc>) -> Candidate {
    Candidate {
        id: SnapshotId::new(source, at, 0),
        created_at: at,
        kind: SnapshotKind::Full,
        damaged: false,
        drilled: false,
        passed: true,
        tags: Vec::new(),
        rows: None,
        is_trusted: true,
    }
}

/// Reads everything that a store holds of the sources. Only an interruption is returned as an error; other errors are
/// part of the result.
pub(crate) fn read_all(store: &StoreUrl, sources: &[SourceName], context: &Context) -> Result<StoreContents> {
    let read = || -> Result<StoreContents> {
        let mut history = History::open(store, sources, context)?;
        history.list()?;
        while history.read_some(1000)? {
            crate::platform::interrupt::check()?;
        }
        history.update_summaries(context);
        Ok(history.contents())
    };
    match read() {
        Err(error) if error.kind != Kind::Interrupted => {
            Ok(StoreContents { error: Some(error.full_message_with_hint()), ..StoreContents::default() })
        }
        read => read,
    }
}
