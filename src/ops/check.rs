//! `check`: whether databases are sound and as the rules want them, and whether their backups are.

use chrono::{DateTime, Utc};

use crate::config::Backups;
use crate::ops::checks::{Checks, ChecksReport, told};
use crate::ops::sources::Chosen;
use crate::ops::{Context, gate, look, stores};
use crate::platform::duration::format_duration;
use crate::platform::error::{Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::{Catalog, Described, Narrow, ProofLevel};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, SnapshotKind};
use crate::store::StoreUrl;

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Names of the config, SQLite files, or URLs; by default all sources of the config
    pub sources: Vec<String>,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    pub full: bool,
    /// Only the databases, not their backups
    pub no_backups: bool,
}

/// How many snapshots before the newest are what it is compared with.
pub(crate) const COMPARED_WITH: usize = 5;

/// Runs the command.
pub fn run(options: &CheckOptions, context: &Context) -> Result<ChecksReport> {
    let chosen = context.sources(&options.sources)?;
    let mut checks = Checks::default();
    let depth = if options.full { Depth::Full } else { Depth::Quick };
    for chosen in &chosen {
        // What was lost since the last snapshot is a matter for it too: before the next one is taken.
        let before = match context.stores.is_empty() {
            true => None,
            false => chosen.name().and_then(|name| context.newest_measure(&name)).unwrap_or_default(),
        };
        let before = before.as_ref().map(|found| &found.manifest);
        checks.append(look::look(chosen, before, depth, look::Strictness::Complaints)?.checks);
    }
    if !options.no_backups {
        let default = Backups::default();
        let backups = match &context.config {
            Some(config) => config.backups()?,
            None => &default,
        };
        for store in context.all_stores()? {
            check_store(store, &chosen, backups, &mut checks)?;
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

/// Looks at the backups in one store.
fn check_store(store: &StoreUrl, chosen: &[Chosen], backups: &Backups, checks: &mut Checks) -> Result<()> {
    let catalog = match stores::open(store) {
        Ok(catalog) => catalog,
        Err(error) => return checks.note("store", Err(error)).map(drop),
    };
    for chosen in chosen {
        let name = chosen.name()?;
        match newest_some(&catalog, &name) {
            Ok(described) => {
                let described: Vec<&Described> = described.iter().collect();
                judge(&catalog.location(), &name, &described, backups, checks);
            }
            Err(error) => {
                checks.note(format!("{name}: backups"), Err(error))?;
            }
        }
    }
    if let StoreUrl::Folder(_) = store {
        room_for_another(&catalog, chosen, checks)?;
    }
    Ok(())
}

/// The newest full snapshots of a source, newest first, damaged ones too.
fn newest_some(catalog: &Catalog, name: &SourceName) -> Result<Vec<Described>> {
    let mut looked_at = 0;
    let mut found: Vec<Described> = Vec::new();
    // Of some kinds many may lie between.
    for limit in [2 * COMPARED_WITH, 64, usize::MAX] {
        let (listed, left_out) = catalog.list_newest(Some(name), None, limit)?;
        let fresh = listed.into_iter().skip(looked_at).collect::<Vec<_>>();
        looked_at += fresh.len();
        let described = catalog.describe(fresh)?;
        found.extend(described.into_iter().filter(may_be_full));
        found.iter_mut().for_each(mark_short);
        if found.len() > COMPARED_WITH || matches!(left_out, crate::snapshots::catalog::LeftOut::These(0)) {
            break;
        }
    }
    Ok(found)
}

/// An archive that is not as long as its manifest says is damaged: the names alone tell that.
pub(crate) fn mark_short(described: &mut Described) {
    let is = described.listed.archive.as_ref().map(|archive| archive.bytes);
    let wanted = described.manifest.as_ref().ok().and_then(|manifest| manifest.archive_bytes);
    if is.is_some() && wanted.is_some() && is != wanted {
        described.proof.level = ProofLevel::Damaged;
    }
}

/// Whether a snapshot is a full one, or one whose manifest cannot be read.
pub(crate) fn may_be_full(described: &Described) -> bool {
    described.manifest.as_ref().map_or(true, |manifest| matches!(manifest.kind, SnapshotKind::Full))
}

/// Judges the backups of one source: that the newest is there, whole, young enough, and not much smaller than those before it.
pub(crate) fn judge(
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
            checks.add(format!("{name}: newest"), false, format!("{id}: {}", told(error)));
            return;
        }
    };
    let age = now.signed_duration_since(manifest.created_at);
    let is_future = age < chrono::Duration::seconds(-60);
    let (ok, expected) = match backups.max_age {
        Some(most) => (age <= most, format!("; expected at most {}", format_duration(most))),
        None => (true, String::new()),
    };
    let told_age = if is_future {
        format!("{id} is dated in the future: a clock is or was wrong")
    } else {
        format!("{id} is {} old, in {place}{expected}", text::age(manifest.created_at, now))
    };
    checks.add(format!("{name}: newest"), ok && !is_future, told_age);
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
            .map(|(what, is, was)| format!("{is} {what} where those before it have {was}"))
            .collect();
        let message = match shrunk.as_slice() {
            [] => format!("{} and {} rows, as those before it", text::bytes(manifest.raw_bytes), manifest.rows),
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
                format!("last {word} {} ago; expected at most {}", text::age(at, now), format_duration(within)),
            ),
            None => (
                false,
                format!("no snapshot was ever {word}; expected within {}: 'lifeboat drill'", format_duration(within)),
            ),
        };
        checks.add(format!("{name}: proof"), ok, message);
    }
}

fn proven_at(described: &Described, by_drill: bool) -> Option<DateTime<Utc>> {
    let proof = &described.proof;
    let is_proven = match by_drill {
        true => proof.drilled && proof.level != ProofLevel::Damaged,
        false => matches!(proof.level, ProofLevel::Verified | ProofLevel::Drilled),
    };
    if by_drill { proof.drilled_at.filter(|_| is_proven) } else { proof.at.filter(|_| is_proven) }
}

/// The middle one; of an even number the smaller of the two.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

/// Whether a folder has room for one more of each.
fn room_for_another(catalog: &Catalog, chosen: &[Chosen], checks: &mut Checks) -> Result<()> {
    let Some(free) = catalog.free_bytes() else { return Ok(()) };
    let mut needed = 0;
    for chosen in chosen {
        let narrow = Narrow { source: Some(chosen.name()?), ..Narrow::default() };
        match catalog.find("latest", &narrow) {
            Ok(listed) => needed += listed.archive.map_or(0, |archive| archive.bytes),
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            // Told of already.
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
