//! `prune`: deletes the snapshots that the policy does not keep. Only this and `delete` delete snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Duration, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::ops::list::without_manifest_document;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, Report, serialize_failures};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::interrupt;
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::Described;
use crate::snapshots::manifest::{Manifest, MissingPeriod, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::retention::{Candidate, Plan, Policy, Rows, plan};
use crate::snapshots::row_counts::RowCounts;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct PruneOptions {
    /// Only snapshots of this source
    pub source: Option<SourceName>,
    /// Keep the newest N
    pub keep_last: u32,
    /// Keep the newest of each hour, for the last N hours that have one
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
    /// Keep safety, partial, damaged and suspect snapshots, which the policy does not count, while they are younger than
    /// this; default: as the config says, or 30 days
    pub keep_others: Option<Duration>,
    /// Delete only these archives without a manifest, by their ids or the starts of ids
    pub without_manifest: Vec<String>,
    /// Delete, instead of only printing what would be deleted
    pub yes: bool,
}

/// A snapshot that is kept.
#[derive(Debug, Serialize)]
pub(crate) struct Kept {
    /// Its id.
    pub id: String,
    /// The reasons why it is kept.
    pub reasons: Vec<String>,
}

/// A snapshot that is deleted.
#[derive(Debug, Serialize)]
pub(crate) struct Deleted {
    /// Its id.
    pub id: String,
}

/// The snapshots that are kept and deleted.
#[derive(Debug, Default)]
pub(crate) struct PruneReport {
    /// True if nothing was deleted.
    pub dry_run: bool,
    /// Newest first.
    pub keep: Vec<Kept>,
    /// Newest first.
    pub delete: Vec<Deleted>,
    /// The archives without a manifest: none of them is deleted unless it is named.
    pub without_manifest: Vec<ArchiveWithoutManifest>,
    /// The bytes of the archives that were deleted, or would be, and of objects that crashed writers left behind.
    pub freed_bytes: u64,
    /// The errors that did not stop the rest of the work; the first one decides the exit code.
    pub failures: Vec<Error>,
}

impl Serialize for PruneReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        serialize_failures(&mut map, &self.failures)?;
        map.serialize_entry("dry_run", &self.dry_run)?;
        map.serialize_entry("keep", &self.keep)?;
        map.serialize_entry("delete", &self.delete)?;
        let archives: Vec<_> = self.without_manifest.iter().map(without_manifest_document).collect();
        map.serialize_entry("without_manifest", &archives)?;
        map.serialize_entry("freed_bytes", &self.freed_bytes)?;
        map.end()
    }
}

impl PruneReport {
    /// Adds the report of another store.
    fn add(&mut self, other: PruneReport) {
        self.keep.extend(other.keep);
        self.delete.extend(other.delete);
        self.without_manifest.extend(other.without_manifest);
        self.freed_bytes += other.freed_bytes;
        self.failures.extend(other.failures);
    }

    /// Returns true if a signal ended the work early.
    fn is_interrupted(&self) -> bool {
        self.failures.iter().any(|error| error.kind == Kind::Interrupted)
    }
}

impl Report for PruneReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

impl PruneOptions {
    /// Returns the policy that the command line names, or an empty one if it names none.
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
            others_within: self.keep_others.unwrap_or(Policy::default().others_within),
        }
    }
}

impl Context {
    /// Returns the config's policy. Fails if there is none, or if it keeps nothing.
    pub(crate) fn retention(&self) -> Result<&Policy> {
        let nothing = || {
            Error::usage("the policy keeps nothing").hint(
                "set what to keep with --keep-last, --keep-daily, --keep-within and similar options, or under \
                 [retention] in the config",
            )
        };
        let config = self.config.as_ref().ok_or_else(nothing)?;
        Some(&config.retention()?.policy).filter(|policy| !policy.is_empty()).ok_or_else(nothing)
    }

    /// Returns true if the config asks for pruning after every successful snapshot.
    pub(crate) fn prunes_after_snapshot(&self) -> Result<bool> {
        match &self.config {
            Some(config) => Ok(config.retention()?.after_snapshot),
            None => Ok(false),
        }
    }
}

/// Runs the command with the policy of the command line, or else with the config's.
pub(crate) fn run(options: &PruneOptions, context: &Context) -> Result<PruneReport> {
    if !options.without_manifest.is_empty() {
        return delete_without_manifest(options, context);
    }
    let policy = match options.policy() {
        policy if policy.is_empty() => {
            let configured = context.retention()?.clone();
            Policy { others_within: options.keep_others.unwrap_or(configured.others_within), ..configured }
        }
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
    // The same policy applies to every store of the config. If one cannot be reached, the others are still pruned.
    let mut all = PruneReport { dry_run: !options.yes, ..PruneReport::default() };
    for store in context.all_stores()? {
        match context.open(store).and_then(|catalog| prune(&catalog, sources.as_deref(), &policy, options.yes)) {
            Ok(report) => all.add(report),
            Err(error) => all.failures.push(error.context("a store was not pruned")),
        }
        if all.is_interrupted() {
            break;
        }
    }
    // A signal decides the exit code, whatever failed before it.
    all.failures.sort_by_key(|error| error.kind != Kind::Interrupted);
    Ok(all)
}

/// Prunes these sources in every store by the config's policy. Returns the reports, and all errors. A signal ends the
/// work, and its error is the first.
pub(crate) fn after_snapshot(sources: &[SourceName], context: &Context) -> Result<(Vec<PruneReport>, Vec<Error>)> {
    let policy = context.retention()?;
    let (mut pruned, mut failures) = (Vec::new(), Vec::new());
    for store in context.all_stores()? {
        match context.open(store).and_then(|catalog| prune(&catalog, Some(sources), policy, true)) {
            Ok(report) => {
                failures.extend(report.failures.iter().map(Error::duplicate));
                pruned.push(report);
            }
            Err(error) => failures.push(error),
        }
        if failures.iter().any(|error: &Error| error.kind == Kind::Interrupted) {
            break;
        }
    }
    failures.sort_by_key(|error| error.kind != Kind::Interrupted);
    Ok((pruned, failures))
}

/// Prunes one store: all of its sources, or the given ones.
fn prune(catalog: &Catalog, sources: Option<&[SourceName]>, policy: &Policy, deletes: bool) -> Result<PruneReport> {
    let sources = match sources {
        Some(sources) => sources.to_vec(),
        None => catalog.sources()?,
    };
    let mut listed = Vec::new();
    for source in &sources {
        listed.extend(catalog.list(source)?);
    }
    let described = catalog.describe_as_stored(listed)?;
    // A snapshot whose manifest cannot be read cannot be classified, and is kept.
    let mut candidates: Vec<Candidate> = Vec::new();
    for described in &described {
        let is_trusted = described.distrust.is_none();
        candidates.extend(candidate(described).map(|candidate| Candidate { is_trusted, ..candidate }));
    }
    let now = Utc::now();
    read_rows(catalog, &mut candidates, policy, now)?;
    let mut plan = plan(&candidates, policy, now);
    require_tagged(&candidates, policy, &plan)?;
    keep_last_copies(&candidates, &mut plan);
    keep_missing_periods(&described, &candidates, &mut plan);
    for described in &described {
        let reason = match &described.manifest {
            Err(error) => reason_to_keep(error),
            Ok(_) if described.proof.has_newer => "tested by a newer lifeboat",
            Ok(_) => continue,
        };
        plan.keep.push((described.listed.id.clone(), vec![reason.to_owned()]));
    }
    let mut in_use = BTreeSet::new();
    for source in &sources {
        in_use.extend(catalog.in_use(source, deletes)?);
    }
    keep_snapshots_in_use(&in_use, &mut plan);
    keep_unknown_archives(catalog, &described, &mut plan)?;
    plan.keep.sort_by(|a, b| b.0.stamp().cmp(a.0.stamp()));
    let listed = described.iter().map(|described| &described.listed);
    let to_delete: Vec<&Listed> = listed.filter(|listed| plan.delete.contains(&listed.id)).collect();
    let mut failures = Vec::new();
    let mut freed_bytes = if deletes {
        let deletion = catalog.delete(&to_delete);
        // The report must say what is gone, even if the rest fails.
        keep_what_is_left(&deletion.gone, &mut plan);
        failures.extend(deletion.failure);
        deletion.freed_bytes
    } else {
        to_delete.iter().filter_map(|listed| listed.archive.as_ref()).map(|archive| archive.bytes).sum()
    };
    if failures.is_empty() {
        match delete_orphans(catalog, &sources, deletes) {
            Ok(freed) => freed_bytes += freed,
            Err(error) => failures.push(error.context("cannot delete the objects that crashed writers left behind")),
        }
        if deletes {
            let cleared = sources.iter().try_for_each(|source| catalog.clear_guard_leases(source));
            failures.extend(
                cleared.err().map(|error| error.context("cannot delete the leases of guards that were killed")),
            );
        }
    }
    let keep = plan.keep.into_iter().map(|(id, reasons)| Kept { id: id.to_string(), reasons }).collect();
    let delete = plan.delete.into_iter().map(|id| Deleted { id: id.to_string() }).collect();
    let mut without_manifest = Vec::new();
    for source in &sources {
        match catalog.list_without_manifest(Some(source)) {
            Ok(found) => without_manifest.extend(found),
            Err(error) => failures.push(error),
        }
    }
    let old = without_manifest.iter().filter(|archive| archive.is_old()).count();
    if old > 0 {
        tracing::warn!(
            "{old} archives in {} have no manifest, and are kept: 'lifeboat list' shows them",
            one_line(&catalog.location())
        );
    }
    Ok(PruneReport { dry_run: !deletes, keep, delete, without_manifest, freed_bytes, failures })
}

/// Deletes the archives without a manifest that the options name, and nothing else. Nothing is deleted unless all were
/// found, and none is being read.
fn delete_without_manifest(options: &PruneOptions, context: &Context) -> Result<PruneReport> {
    let urls = if context.stores_are_given { std::slice::from_ref(context.store()?) } else { context.all_stores()? };
    let catalogs = urls.iter().map(|url| context.open(url)).collect::<Result<Vec<_>>>()?;
    let mut chosen: Vec<(&Catalog, ArchiveWithoutManifest)> = Vec::new();
    for wanted in &options.without_manifest {
        let (mut is_found, mut absent) = (false, None);
        for catalog in &catalogs {
            match catalog.find_without_manifest(wanted) {
                Ok(found) => {
                    is_found = true;
                    chosen.extend(found.into_iter().map(|archive| (catalog, archive)));
                }
                Err(error) if error.kind == Kind::NotFound => absent = Some(error),
                Err(error) => return Err(error),
            }
        }
        if let Some(error) = absent.filter(|_| !is_found) {
            return Err(error);
        }
    }
    let mut unique: Vec<(&Catalog, ArchiveWithoutManifest)> = Vec::new();
    for (catalog, archive) in chosen {
        let is_same = |(other, known): &(&Catalog, ArchiveWithoutManifest)| {
            std::ptr::eq(*other, catalog) && known.archive.key == archive.archive.key
        };
        if unique.iter().any(is_same) {
            continue;
        }
        if catalog.in_use(archive.id.source(), false)?.contains(&archive.id) {
            return Err(Error::failed(format!("{} is being restored", archive.id))
                .hint("try again when that has ended; the mark of a process that was killed expires after a day"));
        }
        unique.push((catalog, archive));
    }
    let mut report = PruneReport { dry_run: !options.yes, ..PruneReport::default() };
    for (catalog, archive) in unique {
        report.freed_bytes += match options.yes {
            true => catalog.delete_without_manifest(&archive)?,
            false => archive.archive.bytes,
        };
        report.delete.push(Deleted { id: archive.id.to_string() });
    }
    Ok(report)
}

/// Moves the snapshots that were to be deleted, and still exist, to those that are kept.
fn keep_what_is_left(gone: &[SnapshotId], plan: &mut Plan) {
    let (deleted, left): (Vec<_>, Vec<_>) = plan.delete.drain(..).partition(|id| gone.contains(id));
    plan.delete = deleted;
    if !left.is_empty() {
        plan.keep.extend(left.into_iter().map(|id| (id, vec!["could not be deleted".to_owned()])));
        plan.keep.sort_by(|a, b| b.0.stamp().cmp(a.0.stamp()));
    }
}

/// Reads the rows of the snapshots from whose rows the plan depends: those of the sources with a snapshot that only its
/// rows can keep, from the oldest such one on. Rows that cannot be read stay unknown.
fn read_rows(catalog: &Catalog, candidates: &mut [Candidate], policy: &Policy, now: DateTime<Utc>) -> Result<()> {
    let mut oldest: BTreeMap<SourceName, DateTime<Utc>> = BTreeMap::new();
    for candidate in candidates.iter().filter(|candidate| candidate.depends_on_rows(policy, now)) {
        let time = oldest.entry(candidate.id.source().clone()).or_insert(candidate.created_at);
        *time = (*time).min(candidate.created_at);
    }
    // Many snapshots have the same tables.
    let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
    let is_needed = |candidate: &&mut Candidate| {
        oldest.get(candidate.id.source()).is_some_and(|time| candidate.created_at >= *time)
    };
    for candidate in candidates.iter_mut().filter(is_needed) {
        interrupt::check()?;
        let manifest = match catalog.manifest_as_stored(&candidate.id) {
            Ok((manifest, _)) => manifest,
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => {
                tracing::warn!("the rows of {} are not known: {}", candidate.id, error.full_message());
                continue;
            }
        };
        let mut rows = Rows { total: manifest.rows, ..Rows::default() };
        let RowCounts { tables, uncounted, .. } = RowCounts::of(&manifest.tables);
        for (table, number) in tables.into_iter().chain(uncounted.into_keys().map(|table| (table, 0))) {
            let name = names.get(table.as_str()).cloned().unwrap_or_else(|| Arc::from(table.as_str()));
            names.insert(Arc::clone(&name));
            rows.tables.insert(name, number);
        }
        candidate.rows = Some(rows);
    }
    Ok(())
}

/// Fails if tags are all that a policy keeps, and a source has no snapshot with one of them: a mistyped tag would
/// delete all but the newest.
fn require_tagged(candidates: &[Candidate], policy: &Policy, plan: &Plan) -> Result<()> {
    let without_tags = Policy { tags: Vec::new(), ..policy.clone() };
    if policy.tags.is_empty() || !without_tags.is_empty() {
        return Ok(());
    }
    let is_tagged = |candidate: &&Candidate| policy.tags.iter().any(|tag| candidate.tags.contains(tag));
    let tagged: BTreeSet<&SourceName> =
        candidates.iter().filter(is_tagged).map(|candidate| candidate.id.source()).collect();
    let Some(emptied) = plan.delete.iter().map(SnapshotId::source).find(|source| !tagged.contains(source)) else {
        return Ok(());
    };
    let tags: Vec<String> = policy.tags.iter().map(|tag| one_line(tag)).collect();
    Err(Error::usage(format!("no snapshot of {emptied} has the tag {}", tags.join(" or ")))
        .hint("check the tag with 'lifeboat list'; or also keep others, such as with --keep-last"))
}

/// Keeps the snapshots that are being restored or drilled, so that those can finish.
fn keep_snapshots_in_use(in_use: &BTreeSet<SnapshotId>, plan: &mut Plan) {
    let (kept, to_delete) = std::mem::take(&mut plan.delete).into_iter().partition(|id| in_use.contains(id));
    plan.delete = to_delete;
    let kept: Vec<SnapshotId> = kept;
    plan.keep.extend(kept.into_iter().map(|id| (id, vec!["being read".to_owned()])));
}

/// Keeps the snapshots whose archives are not known to be of this version: their manifests do not say so.
fn keep_unknown_archives(catalog: &Catalog, described: &[Described], plan: &mut Plan) -> Result<()> {
    let listed = described.iter().map(|described| &described.listed);
    let to_delete: Vec<&Listed> = listed.filter(|listed| plan.delete.contains(&listed.id)).collect();
    for (id, error) in catalog.unknown_archives(&to_delete)? {
        tracing::warn!("{id} is kept: {}", error.full_message());
        plan.delete.retain(|deleted| *deleted != id);
        plan.keep.push((id, vec![reason_to_keep(&error).to_owned()]));
    }
    Ok(())
}

/// Returns the reason to keep a snapshot that cannot be read.
fn reason_to_keep(error: &Error) -> &'static str {
    if error.is_newer_format() { "made by a newer lifeboat" } else { "unreadable" }
}

/// Deletes the objects that belong to no snapshot, or only counts them. Returns their size in bytes.
fn delete_orphans(catalog: &Catalog, sources: &[SourceName], deletes: bool) -> Result<u64> {
    let mut freed_bytes = 0;
    for source in sources {
        for object in catalog.orphans(source)?.objects {
            freed_bytes += object.bytes;
            if deletes {
                tracing::info!("deleting {}, which belongs to no snapshot", object.key);
                catalog.delete_orphan(&object)?;
            }
        }
    }
    Ok(if deletes { freed_bytes + catalog.clear_leftovers()? } else { freed_bytes })
}

/// Keeps the newest full snapshot of a source that has no undamaged one: parts of it may be the only data left.
fn keep_last_copies(candidates: &[Candidate], plan: &mut Plan) {
    let full = |candidate: &&Candidate| candidate.kind == SnapshotKind::Full;
    let kind = |candidate: &Candidate| (candidate.id.source().clone(), candidate.is_trusted);
    let has_good =
        |of: &Candidate| candidates.iter().filter(full).any(|other| kind(other) == kind(of) && !other.damaged);
    let mut only_damaged: Vec<&Candidate> =
        candidates.iter().filter(full).filter(|candidate| !has_good(candidate)).collect();
    only_damaged.sort_by(|a, b| (b.is_trusted, &b.id).cmp(&(a.is_trusted, &a.id)));
    only_damaged.dedup_by(|later, first| kind(later) == kind(first));
    for candidate in only_damaged {
        if plan.delete.contains(&candidate.id) {
            plan.delete.retain(|id| id != &candidate.id);
            plan.keep.push((candidate.id.clone(), vec!["the newest, although damaged".to_owned()]));
        }
    }
}

/// Keeps the snapshots taken in the periods whose rows the newest good snapshot of their source may lack: `guard` has
/// restored an older one, and their rows may be in no other.
fn keep_missing_periods(described: &[Described], candidates: &[Candidate], plan: &mut Plan) {
    let good = candidates.iter().filter(|candidate| candidate.counts());
    let good: BTreeMap<&SnapshotId, bool> = good.map(|candidate| (&candidate.id, candidate.is_trusted)).collect();
    // One that is not trusted may keep others, and does not hide the periods of one that is.
    let mut newest: BTreeMap<(&SourceName, bool), &Manifest> = BTreeMap::new();
    let manifests = || described.iter().filter_map(|described| described.manifest.as_ref().ok());
    for (manifest, is_trusted) in manifests().filter_map(|manifest| Some((manifest, *good.get(&manifest.id)?))) {
        let known = newest.entry((&manifest.source, is_trusted)).or_insert(manifest);
        if manifest.id > known.id {
            *known = manifest;
        }
    }
    let to_delete: BTreeSet<SnapshotId> = plan.delete.iter().cloned().collect();
    for manifest in manifests().filter(|manifest| to_delete.contains(&manifest.id)) {
        if manifest.kind == SnapshotKind::Safety {
            continue;
        }
        let newest = [true, false].into_iter().filter_map(|is_trusted| newest.get(&(&manifest.source, is_trusted)));
        // Those that lack the rows themselves follow the restore.
        let is_missed =
            |period: &&MissingPeriod| period.contains(&manifest.id) && !manifest.missing_periods.contains(period);
        if let Some(period) = newest.flat_map(|newest| &newest.missing_periods).find(is_missed) {
            plan.delete.retain(|id| *id != manifest.id);
            let reason = format!(
                "newer than {}, which guard has restored: 'snapshot --accept' accepts that its rows are missing",
                period.after
            );
            plan.keep.push((manifest.id.clone(), vec![reason]));
        }
    }
}

/// Returns the facts that the policy needs, or `None` with a warning if the manifest cannot be read.
pub(crate) fn candidate(described: &Described) -> Option<Candidate> {
    let id = described.listed.id.clone();
    match &described.manifest {
        Err(error) if error.is_not_trusted() => None,
        Err(error) => {
            tracing::warn!("{id} is kept, and not counted: {}", error.full_message());
            None
        }
        Ok(_) if described.proof.has_newer => {
            tracing::warn!("{id} is kept, and not counted: it was tested by a newer lifeboat");
            None
        }
        Ok(manifest) => Some(Candidate {
            created_at: manifest.created_at,
            kind: manifest.kind,
            damaged: described.proof.level == ProofLevel::Damaged,
            drilled: described.proof.drilled,
            passed: !manifest.has_tag(SUSPECT),
            tags: manifest.tags.clone(),
            rows: None,
            is_trusted: true,
            id,
        }),
    }
}
