//! Inspects live databases: their integrity, the config's rules, and the rows lost since a snapshot.

use std::collections::BTreeMap;

use chrono::Utc;

use crate::engine::rules::{self, Condition, Rule, Verdict};
use crate::engine::source::Source;
use crate::ops::checks::Checks;
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch, stores};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::find::SnapshotFilter;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, Manifest, Table};

/// A snapshot, and the store that it was found in.
pub(crate) struct Found {
    pub(crate) catalog: Catalog,
    pub(crate) listed: Listed,
    /// The complete manifest if a key opens the archive, else the one outside it.
    pub(crate) manifest: Manifest,
}

impl Context {
    /// Returns the newest full, undamaged snapshot that matches, from any store. Logs a warning for a store that cannot
    /// be reached, and returns its error if no other store has a matching snapshot.
    pub(crate) fn newest(&self, filter: &SnapshotFilter) -> Result<Option<Found>> {
        let (mut newest, mut unreachable): (Option<(Catalog, Listed)>, Option<Error>) = (None, None);
        for store in self.all_stores()? {
            let found = stores::open(store).and_then(|catalog| {
                let listed = catalog.find("latest", filter)?;
                Ok((catalog, listed))
            });
            match found {
                Ok(found) => {
                    if newest.as_ref().is_none_or(|newest| newest.1.id.stamp() < found.1.id.stamp()) {
                        newest = Some(found);
                    }
                }
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    tracing::warn!("{}", error.full_message_with_hint());
                    unreachable = Some(error);
                }
            }
        }
        match (newest, unreachable) {
            (Some((catalog, listed)), _) => {
                let manifest = fetch::manifest(&catalog, &listed.id, self)?;
                Ok(Some(Found { catalog, listed, manifest }))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Returns the newest snapshot of a source that is a baseline for later ones.
    pub(crate) fn newest_baseline(&self, source: &SourceName) -> Result<Option<Found>> {
        self.newest(&SnapshotFilter {
            source: Some(source.clone()),
            without: Some(SUSPECT.to_owned()),
            ..SnapshotFilter::default()
        })
    }

    /// Returns the newest snapshot of one source.
    pub(crate) fn newest_of(&self, source: &SourceName) -> Result<Option<Found>> {
        self.newest(&SnapshotFilter { source: Some(source.clone()), ..SnapshotFilter::default() })
    }
}

/// The result of inspecting a source.
#[derive(Default)]
pub(crate) struct Inspection {
    /// The checks that were made.
    pub(crate) checks: Checks,
    /// True if a restore can repair what is wrong: the database is absent or damaged, or rows were lost.
    pub(crate) is_lost: bool,
}

/// The findings that make the inspection of a database fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Damage, failed rules and lost rows: for a gate, which an app that breaks its own foreign keys may still pass.
    Damage,
    /// Also an encrypted snapshot whose tables cannot be compared, since rows may have been lost.
    Loss,
    /// Also rows without their parents, and invalid indexes.
    Complaints,
    /// The same as `Complaints`, but a database without tables passes: it may be the target of a later restore.
    AllowEmpty,
}

/// Inspects a source: it must be readable and sound, the config's rules must hold, and no rows may be lost since
/// `before`, if that is given.
pub(crate) fn inspect(
    chosen: &Chosen,
    before: Option<&Manifest>,
    depth: Depth,
    strictness: Strictness,
) -> Result<Inspection> {
    let name = chosen.name()?;
    let mut inspection = Inspection::default();
    let mut live = match chosen.source.open() {
        Ok(live) => live,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            inspection.is_lost = chosen.source.is_absent_or_damaged(&error);
            inspection.checks.add(format!("{name}: database"), false, error.full_message_with_hint());
            return Ok(inspection);
        }
    };
    match live.integrity(depth) {
        Ok(found) => {
            inspection.is_lost |= !found.damage.is_empty();
            let is_strict = matches!(strictness, Strictness::Complaints | Strictness::AllowEmpty);
            let faults: Vec<&String> = found.damage.iter().chain(&found.complaints).collect();
            let some: Vec<String> = faults.iter().take(3).map(|fault| one_line(fault)).collect();
            let more = faults.len().saturating_sub(3);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let ok = found.damage.is_empty() && (found.complaints.is_empty() || !is_strict);
            let mut message = match (faults.is_empty(), found.unchecked.is_empty()) {
                (true, true) => "sound".to_owned(),
                (true, false) => "no fault found in the parts that can be checked".to_owned(),
                (false, _) => some.join("; ") + &more,
            };
            if let Some(first) = found.unchecked.first() {
                let more = found.unchecked.len() - 1;
                message += &format!("; not checked: {}", one_line(first));
                message += &if more > 0 { format!(", and {more} more") } else { String::new() };
            }
            inspection.checks.add(format!("{name}: integrity"), ok, message);
        }
        Err(error) => {
            inspection.is_lost |= error.kind == Kind::Problem;
            inspection.checks.note(format!("{name}: integrity"), Err(error))?;
        }
    }
    let now = Utc::now();
    for rule in chosen.rules().iter().filter(|rule| !matches!(rule.condition, Condition::MaxRowDrop(_))) {
        let verdict = rules::evaluate(rule, &mut *live, now);
        // A failed rule does not set `is_lost`: the snapshot may break the rule too. Only visible losses are restored.
        inspection.checks.add(format!("{name}: {}", verdict.name), verdict.ok, verdict.message());
    }
    let tables = match live.tables() {
        Ok(tables) => tables,
        Err(error) => {
            inspection.checks.note(format!("{name}: rows"), Err(error))?;
            return Ok(inspection);
        }
    };
    let rows: u64 = tables.values().sum();
    match before {
        None => {
            let is_empty = tables.is_empty();
            let message = if is_empty { "it has no tables".to_owned() } else { counted(tables.len(), rows) };
            inspection.checks.add(format!("{name}: rows"), !is_empty || strictness == Strictness::AllowEmpty, message);
        }
        Some(before) => compare(&name, before, &tables, chosen.rules(), strictness, &mut inspection),
    }
    Ok(inspection)
}

fn counted(tables: usize, rows: u64) -> String {
    format!("{tables} tables, {rows} rows")
}

/// Compares the rows with a snapshot's, table by table. Of an encrypted snapshot that no key opens, only the total is
/// compared.
fn compare(
    name: &SourceName,
    before: &Manifest,
    now: &BTreeMap<String, u64>,
    rules: &[Rule],
    strictness: Strictness,
    inspection: &mut Inspection,
) {
    let rows: u64 = now.values().sum();
    let lacks_tables = before.lacks_tables();
    let verdicts = compare_with(before, now, rules);
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.ok).collect();
    for verdict in &failed {
        inspection.is_lost |= verdict.evaluated;
        inspection.checks.add(format!("{name}: {}", verdict.name), false, verdict.message());
    }
    if lacks_tables {
        // An equal total does not prove that each table is complete: one may be gone while another has grown.
        let message = format!(
            "{} is encrypted, and no key here opens it: its tables cannot be compared, only the total of all rows, \
             which is {rows} now and {} in the snapshot (give a key with --identity, or identity_file in the config)",
            before.id, before.rows
        );
        inspection.checks.add(format!("{name}: tables"), strictness != Strictness::Loss, message);
    } else if failed.is_empty() {
        let message = format!("{}; nothing lost since {}", counted(now.len(), rows), before.id);
        inspection.checks.add(format!("{name}: rows"), true, message);
    }
}

/// Compares the rows now with those of a snapshot, table by table, or only the totals if no more is known of it.
fn compare_with(before: &Manifest, now: &BTreeMap<String, u64>, rules: &[Rule]) -> Vec<Verdict> {
    if before.lacks_tables() {
        return rules::compare_totals(before.rows, now.values().sum(), rules);
    }
    let ordinary = |table: &&Table| table.is_ordinary();
    rules::compare(&rows_of(before.tables.iter().filter(ordinary)), now, rules)
}

/// The result of a short inspection of a source. It does not check the integrity of the stored data, which would read
/// all of it.
#[derive(Debug, Default)]
pub(crate) struct BriefInspection {
    /// The reason that the source cannot be read.
    pub(crate) error: Option<String>,
    /// The results of the config's rules.
    pub(crate) rules: Vec<Verdict>,
    /// The comparison of its rows with those of the snapshot.
    pub(crate) comparison: Vec<Verdict>,
    /// The id of the snapshot that it was compared with.
    pub(crate) compared_with: Option<String>,
    /// True if only the total number of rows could be compared.
    pub(crate) only_totals: bool,
    /// The number of rows of each table.
    pub(crate) tables: BTreeMap<String, u64>,
}

/// Inspects a source without its integrity. Returns an error only after a signal.
pub(crate) fn inspect_briefly(chosen: &Chosen, before: Option<&Manifest>) -> Result<BriefInspection> {
    let mut brief = BriefInspection::default();
    let tables = chosen.source.open().and_then(|mut live| {
        let now = Utc::now();
        let rules = chosen.rules().iter().filter(|rule| !matches!(rule.condition, Condition::MaxRowDrop(_)));
        brief.rules = rules.map(|rule| rules::evaluate(rule, &mut *live, now)).collect();
        crate::platform::interrupt::check()?;
        live.tables()
    });
    match tables {
        Ok(tables) => brief.tables = tables,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            brief.error = Some(error.full_message_with_hint());
            return Ok(brief);
        }
    }
    if let Some(before) = before {
        brief.comparison = compare_with(before, &brief.tables, chosen.rules());
        brief.compared_with = Some(before.id.to_string());
        brief.only_totals = before.lacks_tables();
    }
    Ok(brief)
}

/// Returns the number of rows of each table that can be counted, by name.
pub(crate) fn rows_of<'a>(tables: impl Iterator<Item = &'a Table>) -> BTreeMap<String, u64> {
    tables.filter_map(|table| Some((table.name.clone(), table.rows?))).collect()
}

/// Returns the number of tables and rows of a database, or `None` if the database is absent.
pub(crate) fn count(source: &Source) -> Result<Option<(usize, u64)>> {
    match source.open() {
        Ok(mut live) => {
            let tables = live.tables()?;
            Ok(Some((tables.len(), tables.values().sum())))
        }
        Err(error) if error.kind != Kind::Interrupted && source.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
