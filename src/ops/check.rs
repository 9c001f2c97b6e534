//! `check`: checks that databases are sound and follow the config's rules, and that their backups are usable.

use std::io::ErrorKind;
use std::path::Path;

use chrono::{DateTime, Utc};

use crate::config::Backups;
use crate::ops::checks::{Checks, ChecksReport};
use crate::ops::lost_manifests::{check_archives, wait_for_manifests};
use crate::ops::newest_state::NewestState;
use crate::ops::origin::require_same_database;
use crate::ops::other_name::described;
use crate::ops::removed::check_removed;
use crate::ops::sources::Chosen;
use crate::ops::{Context, gate, inspect};
use crate::platform::disk::{may_write_to, shown};
use crate::platform::duration::format_duration;
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::find::LATEST;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::list::{Described, LeftOut, NewestListing};
use crate::snapshots::manifest::{Depth, Manifest, SnapshotKind};
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::search::SnapshotFilter;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::StoreUrl;

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckOptions {
    /// Source names from the config, SQLite files, or URLs; default: all sources of the config
    pub sources: Vec<String>,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    pub full: bool,
    /// Only the databases, not their backups
    pub no_backups: bool,
}

/// The number of earlier snapshots that the newest one is compared with.
pub(crate) const COMPARED_WITH: usize = 5;

/// Runs the command.
pub(crate) fn run(options: &CheckOptions, context: &Context) -> Result<ChecksReport> {
    let chosen = context.sources(&options.sources)?;
    let mut checks = Checks::default();
    let depth = if options.full { Depth::Full } else { Depth::Quick };
    for chosen in &chosen {
        let name = chosen.name()?;
        checks.of_source(&name, |checks| -> Result<()> {
            // `check` also reports what was lost since the last snapshot, before the next one is taken.
            let mut before = match context.stores.is_empty() {
                true => None,
                false => baseline(&name, context, checks)?,
            };
            if let Some(before) = &before {
                let same = require_same_database(before, &chosen.source, || Ok(Some(before.clone())), context);
                match same {
                    Ok(()) => {}
                    // `guard` and the gates refuse it too.
                    Err(error) if error.kind == Kind::Usage => {
                        checks.note(format!("{name}: origin"), Err(error))?;
                    }
                    Err(error) => return Err(error),
                }
            }
            if before.is_none() && is_first_deploy(chosen, context, checks)? {
                return Ok(());
            }
            if before.is_none() && !context.stores.is_empty() {
                before = under_other_name(chosen, context, checks)?;
            }
            let strictness = inspect::Strictness::Complaints;
            checks.append(inspect::inspect(chosen, before.as_ref(), depth, strictness, &context.scratch)?.checks);
            Ok(())
        })?;
    }
    if !options.no_backups {
        let default = Backups::default();
        let backups = match &context.config {
            Some(config) => config.backups()?,
            None => &default,
        };
        for store in context.all_stores()? {
            check_store(store, &chosen, backups, context, &mut checks)?;
        }
    }
    gate::free_space(&chosen, context, &mut checks)?;
    let mut report = checks.into_report();
    let failed = report.failed().count();
    report.verdict = match failed {
        0 => format!("all {} checks passed", report.checks.len()),
        failed => format!("{failed} of {} checks FAILED", report.checks.len()),
    };
    Ok(report)
}

/// Returns true, with a check that says so, before the first deploy of a source. That it has no backups is another check.
fn is_first_deploy(chosen: &Chosen, context: &Context, checks: &mut Checks) -> Result<bool> {
    let found = match context.stores.is_empty() {
        true => return Ok(false),
        false => context.first_deploy(chosen),
    };
    let database = format!("{}: database", chosen.name()?);
    match found {
        Ok(Some(state)) => checks.note(database, Ok(state)).map(|_| true),
        Ok(None) => Ok(false),
        Err(error) if error.kind == Kind::Problem => checks.note(database, Err(error)).map(|_| true),
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        // A store that cannot be read is reported by another check, and the database is inspected as always.
        Err(_) => Ok(false),
    }
}

/// Returns the snapshot with which a database is compared, if there is one. If it cannot be read, a failed check says that
/// lost rows are not found.
fn baseline(name: &SourceName, context: &Context, checks: &mut Checks) -> Result<Option<Manifest>> {
    match context.newest_state(name).and_then(NewestState::or_fail) {
        Ok(found) => Ok(found),
        Err(error) => {
            let error = error.context("the database is not compared with its newest snapshot");
            checks.note(format!("{name}: baseline"), Err(error)).map(|_| None)
        }
    }
}

/// Returns the newest snapshot of a source that was renamed, under its other name.
fn under_other_name(chosen: &Chosen, context: &Context, checks: &mut Checks) -> Result<Option<Manifest>> {
    match context.under_other_name(chosen) {
        Ok(Some(found)) => {
            let name = chosen.name()?;
            checks.add(format!("{name}: baseline"), true, described(&found, &name));
            Ok(Some(found.manifest))
        }
        Ok(None) => Ok(None),
        Err(error) if error.kind == Kind::Interrupted => Err(error),
        // A store that cannot be read is reported by another check.
        Err(_) => Ok(None),
    }
}

/// Checks the backups in one store.
fn check_store(
    store: &StoreUrl,
    chosen: &[Chosen],
    backups: &Backups,
    context: &Context,
    checks: &mut Checks,
) -> Result<()> {
    let catalog = match context.open(store) {
        Ok(catalog) => catalog,
        Err(error) => return checks.note("store", Err(error)).map(drop),
    };
    for chosen in chosen {
        let name = chosen.name()?;
        checks.of_source(&name, |checks| match newest_full(&catalog, &name) {
            Ok((described, archives)) => {
                let described: Vec<&Described> = described.iter().collect();
                check_backups(&catalog.location(), &name, &described, backups, checks);
                check_removed(&catalog, &name, &described, context, checks)?;
                let newest = described.first().map(|newest| &newest.listed.id);
                check_lost_manifests(&catalog, &name, archives, newest, checks)?;
                Ok(())
            }
            Err(error) => checks.note(format!("{name}: backups"), Err(error)).map(drop),
        })?;
    }
    if let Some(folder) = store.folder() {
        check_space(&catalog, chosen, checks)?;
        check_writing(folder, chosen, checks)?;
    }
    Ok(())
}

/// Checks that this user may store a snapshot in a folder. Changes nothing.
fn check_writing(folder: &Path, chosen: &[Chosen], checks: &mut Checks) -> Result<()> {
    let mut folders = vec![folder.to_owned()];
    for chosen in chosen {
        folders.push(folder.join(chosen.name()?.as_str()));
    }
    for folder in folders {
        match may_write_to(&folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let user = rustix::process::geteuid().as_raw();
                let message = format!("this user ({user}) cannot store snapshots in {}: {error}", shown(&folder));
                checks.add("store: writing", false, message);
                break;
            }
        }
    }
    Ok(())
}

/// Checks that the newest data of a source is no archive without a manifest.
fn check_lost_manifests(
    catalog: &Catalog,
    name: &SourceName,
    archives: Vec<ArchiveWithoutManifest>,
    newest: Option<&SnapshotId>,
    checks: &mut Checks,
) -> Result<()> {
    match wait_for_manifests(catalog, archives) {
        Ok(archives) => {
            // In a local store, the manifest would be there by now.
            let is_settled = |archive: &ArchiveWithoutManifest| catalog.is_local() || archive.is_old();
            check_archives(&catalog.location(), name, &archives, newest, is_settled, checks);
            Ok(())
        }
        Err(error) => checks.note(format!("{name}: archives"), Err(error)).map(drop),
    }
}

/// Returns the newest full snapshots of a source, newest first, including damaged ones and those whose manifest cannot
/// be read, and the archives without a manifest that are as new.
fn newest_full(catalog: &Catalog, name: &SourceName) -> Result<(Vec<Described>, Vec<ArchiveWithoutManifest>)> {
    let mut described_count = 0;
    let (mut found, mut archives): (Vec<Described>, _) = (Vec::new(), Vec::new());
    // Many snapshots of other kinds may lie between the full ones.
    for limit in [2 * COMPARED_WITH, 64, usize::MAX] {
        let NewestListing { listed, left_out, without_manifest } =
            catalog.list_with_archives(Some(name), None, limit)?;
        archives = without_manifest;
        let fresh = listed.into_iter().skip(described_count).collect::<Vec<_>>();
        described_count += fresh.len();
        let described = catalog.describe(fresh)?;
        found.extend(described.into_iter().filter(may_be_full));
        found.iter_mut().for_each(mark_short);
        if found.len() > COMPARED_WITH || left_out == LeftOut::Exactly(0) {
            break;
        }
    }
    Ok((found, archives))
}

/// Marks a snapshot as damaged if its archive is not as long as its manifest says. Only the listed size is needed for
/// that.
pub(crate) fn mark_short(described: &mut Described) {
    let is = described.listed.archive.as_ref().map(|archive| archive.bytes);
    let wanted = described.manifest.as_ref().ok().and_then(|manifest| manifest.archive_bytes);
    if is.is_some() && wanted.is_some() && is != wanted {
        described.proof.level = ProofLevel::Damaged;
    }
}

/// Returns true if a snapshot is a full one, or if its manifest cannot be read.
pub(crate) fn may_be_full(described: &Described) -> bool {
    described.manifest.as_ref().map_or(true, |manifest| matches!(manifest.kind, SnapshotKind::Full))
}

/// Checks the backups of one source: the newest must exist, be undamaged and young enough, and not be much smaller than
/// those before it.
pub(crate) fn check_backups(
    location: &str,
    name: &SourceName,
    described: &[&Described],
    backups: &Backups,
    checks: &mut Checks,
) {
    let place = one_line(location);
    let now = Utc::now();
    let Some(newest) = described.first() else {
        checks.add(format!("{name}: backups"), false, format!("there is no full snapshot in {place}"));
        return;
    };
    let id = &newest.listed.id;
    let manifest = match &newest.manifest {
        Ok(_) if newest.proof.level == ProofLevel::Damaged => {
            checks.add(format!("{name}: newest"), false, format!("{id} is damaged, in {place}"));
            return;
        }
        Ok(manifest) => manifest,
        Err(error) => {
            checks.add(format!("{name}: newest"), false, format!("{id}: {}", error.full_message_with_hint()));
            return;
        }
    };
    let age = now.signed_duration_since(manifest.created_at);
    let is_future = age < chrono::Duration::seconds(-60);
    let (ok, expected) = match backups.max_age {
        Some(most) => (age <= most, format!("; expected at most {}", format_duration(most))),
        None => (true, String::new()),
    };
    let age_message = if is_future {
        format!("{id} is dated in the future: a clock is or was wrong")
    } else {
        let untested = if newest.proof.level == ProofLevel::None { "; not tested yet (proof: none)" } else { "" };
        format!("{id} is {} old, in {place}{expected}{untested}", text::age(manifest.created_at, now))
    };
    checks.add(format!("{name}: newest"), ok && !is_future, age_message);
    let before: Vec<_> = described[1..]
        .iter()
        .filter(|described| described.proof.level != ProofLevel::Damaged)
        .filter_map(|described| described.manifest.as_ref().ok())
        .take(COMPARED_WITH)
        .collect();
    if !before.is_empty() {
        let sizes = [
            ("bytes", manifest.raw_bytes, median(before.iter().map(|manifest| manifest.raw_bytes))),
            ("rows", manifest.rows, median(before.iter().map(|manifest| manifest.rows))),
        ];
        let shrunk: Vec<String> = sizes
            .iter()
            .filter(|(_, is, was)| !backups.max_shrink.allows(*was, *is))
            .map(|(what, is, was)| format!("{is} {what}, and earlier snapshots have {was}"))
            .collect();
        let message = match shrunk.as_slice() {
            [] => format!("{}, {} rows: similar to earlier snapshots", text::bytes(manifest.raw_bytes), manifest.rows),
            shrunk => format!("{id} has {}; expected at most {} less", shrunk.join(", and "), backups.max_shrink),
        };
        checks.add(format!("{name}: size"), shrunk.is_empty(), message);
    }
    if let Some(within) = backups.proof_within {
        let proven = described.iter().filter_map(|described| proven_at(described, backups.proof_by_drill)).max();
        let word = if backups.proof_by_drill { "drilled" } else { "verified" };
        let (ok, message) = match proven {
            Some(at) => (
                now.signed_duration_since(at) <= within,
                format!("last {word} {}; expected at most {}", text::age_with("ago", at, now), format_duration(within)),
            ),
            None => {
                let within = format_duration(within);
                (false, format!("no snapshot was ever {word}; expected within {within}; run 'lifeboat drill'"))
            }
        };
        checks.add(format!("{name}: proof"), ok, message);
    }
}

/// Returns the time of the newest test that counts as proof.
fn proven_at(described: &Described, by_drill: bool) -> Option<DateTime<Utc>> {
    let proof = &described.proof;
    let is_proven = match by_drill {
        true => proof.drilled && proof.level != ProofLevel::Damaged,
        false => matches!(proof.level, ProofLevel::Verified | ProofLevel::Drilled),
    };
    if by_drill { proof.drilled_at.filter(|_| is_proven) } else { proof.at.filter(|_| is_proven) }
}

/// Returns the median, or the smaller of the two middle values if their number is even. Returns 0 if there are no
/// values.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Checks that the disk of a folder store has room for one more snapshot of each source.
fn check_space(catalog: &Catalog, chosen: &[Chosen], checks: &mut Checks) -> Result<()> {
    let Some(free) = catalog.free_bytes() else { return Ok(()) };
    let mut needed = 0;
    for chosen in chosen {
        let filter = SnapshotFilter { source: Some(chosen.name()?), ..SnapshotFilter::default() };
        match catalog.find(LATEST, &filter) {
            Ok(listed) => needed += listed.archive.map_or(0, |archive| archive.bytes),
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // `check_store` has already reported this error.
            Err(_) => {}
        }
    }
    let message = format!(
        "{} free in {}; the next snapshots need about {}",
        text::bytes(free),
        one_line(&catalog.location()),
        text::bytes(needed)
    );
    checks.add("store: free space", free > needed, message);
    Ok(())
}
