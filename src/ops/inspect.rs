//! Inspects live databases: their integrity, the config's rules, and the rows lost since a snapshot.

use std::collections::BTreeSet;

use chrono::Utc;

use crate::engine::live::Live;
use crate::engine::rules::{self, Condition, Rule, Verdict};
use crate::engine::source::Source;
use crate::ops::checks::Checks;
use crate::ops::first_deploy::absence;
use crate::ops::gone;
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::scratch::Scratch;
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::find::LATEST;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, Manifest};
use crate::snapshots::row_counts::RowCounts;
use crate::snapshots::search::SnapshotFilter;

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
            let found = self.open(store).and_then(|catalog| {
                let listed = catalog.find(LATEST, filter)?;
                Ok((catalog, listed))
            });
            match found {
                Ok(found) => {
                    let order = |listed: &Listed| (listed.time(), listed.id.stamp().to_owned());
                    if newest.as_ref().is_none_or(|newest| order(&newest.1) < order(&found.1)) {
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
    /// The tables whose rows were not compared, because they cannot be counted: data in them may be lost.
    pub(crate) uncounted: Vec<String>,
    /// True if it has fewer rows than the snapshot, beyond the tolerance, or lacks tables of it.
    pub(crate) has_lost_rows: bool,
    /// The tables of the snapshot that are gone, and must not be.
    pub(crate) gone_tables: Vec<String>,
    /// The losses that the rules allow; empty if there are none.
    pub(crate) allowed_losses: String,
    /// The part of it that was compared with the snapshot.
    pub(crate) compared: Compared,
    /// The columns and views that are gone since the snapshot, or have another name; empty if there are none.
    pub(crate) gone: String,
    /// The number of rows of each table, if it could be read.
    pub(crate) tables: Option<RowCounts>,
}

/// The part of a database that was compared with a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Compared {
    /// Nothing, because there is no snapshot, or because the database cannot be read.
    #[default]
    Nothing,
    /// Only the total number of rows, because no key here opens the snapshot.
    Total {
        /// The rows of the database.
        now: u64,
        /// The rows of the snapshot.
        before: u64,
    },
    /// The number of rows of each table.
    Tables,
}

/// The number of tables whose allowed losses are described.
const SHOWN_LOSSES: usize = 5;

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
    scratch: &Scratch,
) -> Result<Inspection> {
    let name = chosen.name()?;
    let mut inspection = Inspection::default();
    let mut live = match chosen.source.open(scratch) {
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
    let rules = chosen.rules();
    for rule in rules.iter().filter(|rule| !rule.is_about_loss()) {
        let verdict = rules::evaluate(rule, &mut *live, now);
        // A failed rule does not set `is_lost`: the snapshot may break the rule too. Only visible losses are restored.
        inspection.checks.add(format!("{name}: {}", verdict.name), verdict.ok, verdict.message());
    }
    let (tables, total) = match count_rows(&mut *live, before) {
        Ok(counted) => counted,
        Err(error) => {
            inspection.checks.note(format!("{name}: rows"), Err(error))?;
            return Ok(inspection);
        }
    };
    match before {
        None => {
            let is_empty = tables.number_of_tables() == 0;
            let message = if is_empty { "it has no tables".to_owned() } else { counted(&tables) };
            inspection.checks.add(format!("{name}: rows"), !is_empty || strictness == Strictness::AllowEmpty, message);
        }
        Some(before) => {
            compare(&name, before, (&tables, total), &rules, strictness, &mut inspection);
            let renames = rules::renames(&RowCounts::of(&before.tables), &tables, &rules);
            let dropped = rules.iter().filter(|rule| rule.condition == Condition::MustDrop);
            let dropped: Vec<&str> = dropped.filter_map(|rule| rule.table.as_deref()).collect();
            for view in gone::views_still_there(before, &mut *live, &dropped)? {
                let name = format!("{name}: drop of {}", one_line(&view));
                inspection.checks.add(name, false, "the view is still there; expected the intended change");
            }
            inspection.gone = gone::since(before, &mut *live, &renames, &dropped)?;
            if !inspection.gone.is_empty() {
                inspection.checks.add(format!("{name}: schema"), true, inspection.gone.clone());
            }
        }
    }
    inspection.tables = Some(tables);
    Ok(inspection)
}

/// Describes the tables and rows of a database, and names a table whose rows cannot be counted.
pub(crate) fn counted(tables: &RowCounts) -> String {
    let mut text = format!("{} tables, {} rows", tables.number_of_tables(), tables.total());
    if let Some((table, reason)) = tables.uncounted.first_key_value() {
        let more = tables.uncounted.len() - 1;
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        text += &one_line(&format!("; the rows of {table} cannot be counted: {reason}{more}"));
    }
    text
}

/// Counts the rows of a live database. The second number is their total as the manifest counts it with which they are
/// compared.
pub(crate) fn count_rows(live: &mut dyn Live, before: Option<&Manifest>) -> Result<(RowCounts, u64)> {
    let tables = live.tables()?;
    let total = match before {
        Some(before) if before.lacks_tables() => live.stored_rows()?,
        _ => tables.total(),
    };
    Ok((tables, total))
}

/// Compares the rows with a snapshot's, table by table. Of an encrypted snapshot that no key opens, only the total is
/// compared.
fn compare(
    name: &SourceName,
    before: &Manifest,
    (now, total): (&RowCounts, u64),
    rules: &[Rule],
    strictness: Strictness,
    inspection: &mut Inspection,
) {
    let lacks_tables = before.lacks_tables();
    let verdicts = compare_with(before, now, total, rules);
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.ok).collect();
    for verdict in &failed {
        inspection.is_lost |= verdict.is_loss;
        inspection.has_lost_rows |= verdict.is_loss;
        inspection.gone_tables.extend(verdict.gone_table().cloned());
        inspection.checks.add(format!("{name}: {}", verdict.name), false, verdict.message());
    }
    inspection.compared = match lacks_tables {
        true => Compared::Total { now: total, before: before.rows },
        false => Compared::Tables,
    };
    inspection.allowed_losses = allowed_losses(&verdicts);
    let not_evaluated = verdicts.iter().filter(|verdict| !verdict.evaluated).flat_map(|verdict| &verdict.tables);
    let counts_before = RowCounts::of(&before.tables);
    let not_counted = now.uncounted.keys().chain(counts_before.uncounted.keys());
    let uncounted: BTreeSet<&String> = not_counted.chain(not_evaluated).collect();
    inspection.uncounted = uncounted.into_iter().map(|table| one_line(table)).collect();
    if lacks_tables {
        // An equal total does not prove that each table is complete: one may be gone while another has grown.
        let message = format!(
            "{} is encrypted, and no key here opens it: its tables cannot be compared, only the total of all rows, \
             which is {total} now and {} in the snapshot (give a key with --identity, or identity_file in the config)",
            before.id, before.rows
        );
        inspection.checks.add(format!("{name}: tables"), strictness != Strictness::Loss, message);
    } else if failed.is_empty() || !inspection.allowed_losses.is_empty() {
        let message = compared_message(&counted(now), &before.id.to_string(), &inspection.allowed_losses);
        inspection.checks.add(format!("{name}: rows"), true, message);
    }
}

/// Describes a comparison of the numbers of rows in which no loss is beyond what the rules allow. `allowed` describes the
/// losses that they do allow.
pub(crate) fn compared_message(counted: &str, id: &str, allowed: &str) -> String {
    match allowed {
        "" => format!("{counted}; no table has fewer rows than in {id}"),
        allowed => format!("{counted}; allowed since {id}: {allowed}"),
    }
}

/// Describes the losses that the rules allow, each with its tolerance. Returns an empty text if nothing is lost.
pub(crate) fn allowed_losses(verdicts: &[Verdict]) -> String {
    let losses = verdicts.iter().filter(|verdict| verdict.ok && verdict.is_loss);
    let texts: Vec<String> = losses.map(|verdict| format!("{}: {}", verdict.name, verdict.message())).collect();
    let more = texts.len().saturating_sub(SHOWN_LOSSES);
    let more = if more > 0 { format!("; and {more} more tables") } else { String::new() };
    one_line(&(texts.into_iter().take(SHOWN_LOSSES).collect::<Vec<_>>().join("; ") + &more))
}

/// Compares the rows now with those of a snapshot, table by table, or only the totals if no more is known of it. `total`
/// is the number of rows as [`Manifest::rows`] counts them.
pub(crate) fn compare_with(before: &Manifest, now: &RowCounts, total: u64, rules: &[Rule]) -> Vec<Verdict> {
    if before.lacks_tables() {
        return rules::compare_totals(before.rows, total, rules);
    }
    rules::compare(&RowCounts::of(&before.tables), now, rules)
}

/// Evaluates the rules that fail when data is missing.
pub(crate) fn rules_about_missing_data(rules: &[Rule], live: &mut dyn Live) -> Vec<Verdict> {
    let now = Utc::now();
    let rules = rules.iter().filter(|rule| rule.finds_missing_data());
    rules.map(|rule| rules::evaluate(rule, live, now)).collect()
}

/// The result of a short inspection of a source. It does not check the integrity of the stored data, which would read
/// all of it.
#[derive(Debug, Default)]
pub(crate) struct BriefInspection {
    /// The reason that the source cannot be read.
    pub(crate) error: Option<String>,
    /// A description, if there is no database, or no table in it, and no snapshot to compare it with.
    pub(crate) absence: Option<String>,
    /// The results of the config's rules.
    pub(crate) rules: Vec<Verdict>,
    /// The comparison of its rows with those of the snapshot.
    pub(crate) comparison: Vec<Verdict>,
    /// The id of the snapshot that it was compared with.
    pub(crate) compared_with: Option<String>,
    /// True if only the total number of rows could be compared.
    pub(crate) only_totals: bool,
    /// The number of rows of each table.
    pub(crate) tables: RowCounts,
}

/// Inspects a source without its integrity. Returns an error only after a signal.
pub(crate) fn inspect_briefly(
    chosen: &Chosen,
    before: Option<&Manifest>,
    scratch: &Scratch,
) -> Result<BriefInspection> {
    let mut brief = BriefInspection::default();
    if before.is_none() {
        brief.absence = absence(&chosen.source, scratch)?;
    }
    let tables = chosen.source.open(scratch).and_then(|mut live| {
        let now = Utc::now();
        let rules = chosen.rules();
        let rules = rules.iter().filter(|rule| !rule.is_about_loss());
        brief.rules = rules.map(|rule| rules::evaluate(rule, &mut *live, now)).collect();
        crate::platform::interrupt::check()?;
        count_rows(&mut *live, before)
    });
    let total = match tables {
        Ok((tables, total)) => {
            brief.tables = tables;
            total
        }
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            brief.error = Some(error.full_message_with_hint());
            return Ok(brief);
        }
    };
    if let Some(before) = before {
        brief.comparison = compare_with(before, &brief.tables, total, &chosen.rules());
        brief.compared_with = Some(before.id.to_string());
        brief.only_totals = before.lacks_tables();
    }
    Ok(brief)
}

/// Counts the rows of a database. Returns `None` if the database is absent.
pub(crate) fn count(source: &Source, scratch: &Scratch) -> Result<Option<RowCounts>> {
    match source.open(scratch) {
        Ok(mut live) => live.tables().map(Some),
        Err(error) if error.kind != Kind::Interrupted && source.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}
