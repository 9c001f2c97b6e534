//! Decides whether a new snapshot may be the baseline for later snapshots. A snapshot of a database that has just lost
//! rows must not be one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::engine::rules::{Rule, Verdict};
use crate::ops::Context;
use crate::ops::differences::some;
use crate::ops::inspect::{Compared, allowed_losses, compare_with, rules_about_missing_data};
use crate::ops::other_name::described;
use crate::ops::save::small_losses::SmallLosses;
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::platform::error::{Result, one_line};
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::{ComparedWith, Manifest, Table};
use crate::snapshots::row_counts::{RowCounts, stored_rows};

/// Returns the last state of a source that was renamed: that of the same database under the other name.
fn last_state_under_other_name(chosen: &Chosen, context: &Context) -> Result<Option<Manifest>> {
    let Some(found) = context.under_other_name(chosen)? else { return Ok(None) };
    tracing::warn!("{}, with which it is compared", described(&found, &chosen.name()?));
    let is_suspect = found.manifest.has_tag(SUSPECT);
    let compared = if is_suspect { found.manifest.of_compared() } else { None };
    Ok(Some(compared.unwrap_or(found.manifest)))
}

/// The baseline with which a new snapshot of a source of the config is compared, and the result.
#[derive(Default)]
pub(crate) struct Baseline {
    /// The newest earlier snapshot that may be a baseline, also if it cannot be restored any more.
    before: Option<Manifest>,
    rules: Vec<Rule>,
    /// The reasons why the new snapshot is tagged as suspect; empty if there is none.
    reasons: RefCell<Vec<String>>,
    /// The comparison of the new snapshot with the earlier one.
    comparison: RefCell<Option<Comparison>>,
}

/// The comparison of a new snapshot with its baseline.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// The snapshot that it was compared with.
    with: SnapshotId,
    compared: Compared,
    /// The losses that the rules allow, each with its tolerance.
    allowed: Vec<Verdict>,
    /// The losses within the tolerance that add up.
    small: SmallLosses,
}

impl Comparison {
    fn new(before: &Manifest, tables: &[Table], verdicts: Vec<Verdict>) -> Self {
        let (now, rows) = (RowCounts::of(tables), stored_rows(tables));
        let small = SmallLosses::add(before, &now, &verdicts);
        let compared = match before.lacks_tables() {
            true => Compared::Total { now: rows, before: before.rows },
            false => Compared::Tables,
        };
        let allowed = verdicts.into_iter().filter(|verdict| verdict.ok && verdict.is_loss).collect();
        Comparison { with: before.id.clone(), compared, allowed, small }
    }

    /// Returns what must be known about the snapshot, each on one line: the losses that the rules let pass, and that
    /// only a total was compared.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Compared::Total { now, before } = self.compared {
            notes.push(format!(
                "only the total number of rows was compared with {}, which is encrypted, and no key here opens it: {now} \
                 rows now, {before} before",
                self.with
            ));
        }
        if !self.allowed.is_empty() {
            notes.push(format!("fewer rows than in {}, as allowed: {}", self.with, allowed_losses(&self.allowed)));
        }
        let earlier = self.small.since().iter().filter(|(_, since)| since.id != self.with);
        let earlier: Vec<String> =
            earlier.map(|(table, since)| format!("{} in {}: {}", one_line(table), since.id, since.rows)).collect();
        if !earlier.is_empty() {
            notes.push(format!("rows before several losses within the tolerance: {}", some(earlier.iter())));
        }
        notes
    }
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let allowed: Vec<String> = self.allowed.iter().map(Verdict::description).collect();
        json!({
            "with": self.with,
            "tables": self.compared == Compared::Tables,
            "allowed_losses": allowed,
            "losses_since": self.small.since(),
        })
        .serialize(serializer)
    }
}

impl Baseline {
    /// Finds the baseline of a source, and checks the rules on the live database. Lost data is found later, by
    /// [`Baseline::tag`], in the snapshot itself.
    pub(super) fn of(chosen: &Chosen, context: &Context) -> Result<Self> {
        let mut before = context.newest_state(&chosen.name()?)?.or_warn();
        if before.is_none() {
            before = last_state_under_other_name(chosen, context)?;
        }
        let mut reasons = Vec::new();
        let rules = chosen.rules();
        // If the database cannot be opened, the save fails too, and reports the error.
        if rules.iter().any(Rule::finds_missing_data)
            && let Ok(mut live) = chosen.source.open(&context.scratch)
        {
            let verdicts = rules_about_missing_data(&rules, &mut *live);
            reasons.extend(verdicts.iter().filter(|verdict| !verdict.ok).map(Verdict::description));
        }
        Ok(Baseline { before, rules, reasons: RefCell::new(reasons), comparison: RefCell::default() })
    }

    /// Adds a reason to tag the new snapshot as suspect.
    pub(super) fn with_doubt(self, reason: String) -> Self {
        self.reasons.borrow_mut().push(reason);
        self
    }

    /// Returns the newest earlier snapshot that may be a baseline, as far as it is known.
    pub(super) fn before(&self) -> Option<&Manifest> {
        self.before.as_ref()
    }

    /// Compares the tables of the new snapshot with the baseline. Returns the tag `suspect` if there is a reason to add
    /// it.
    pub(super) fn tag(&self, tables: &[Table]) -> Option<String> {
        if let Some(before) = &self.before {
            // A rule on one table cannot be evaluated if only the totals are known. That is not a loss.
            let rules = if before.lacks_tables() { &[] } else { self.rules.as_slice() };
            let verdicts = compare_with(before, &RowCounts::of(tables), stored_rows(tables), rules);
            let lost = verdicts.iter().filter(|verdict| !verdict.ok).map(Verdict::description);
            self.reasons.borrow_mut().extend(lost);
            self.comparison.replace(Some(Comparison::new(before, tables, verdicts)));
        }
        if !self.reasons.borrow().is_empty() {
            return Some(SUSPECT.to_owned());
        }
        self.comparison.borrow().iter().for_each(|comparison| comparison.small.warn());
        None
    }

    /// Returns the snapshot that the new one was compared with, and the rows of its tables, for the manifest of a suspect
    /// snapshot.
    pub(super) fn compared(&self) -> (Option<ComparedWith>, BTreeMap<String, u64>) {
        let Some(before) = &self.before else { return Default::default() };
        let tables = RowCounts::of(&before.tables).tables;
        (Some(ComparedWith { id: before.id.clone(), rows: before.rows }), tables)
    }

    /// Returns the losses within the tolerance that the manifest of the new snapshot records.
    pub(super) fn losses_since(&self) -> BTreeMap<String, ComparedWith> {
        self.comparison().map(|comparison| comparison.small.recorded()).unwrap_or_default()
    }

    /// Returns the comparison of the new snapshot with the earlier one, if there was one.
    pub(super) fn comparison(&self) -> Option<Comparison> {
        self.comparison.borrow().clone()
    }

    /// Returns the reasons why the new snapshot is tagged as suspect.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.reasons.borrow().clone()
    }
}
