//! Decides whether a new snapshot may be the baseline for later snapshots. A snapshot of a database that has just lost
//! rows must not be one.

use std::cell::RefCell;
use std::collections::BTreeMap;

use chrono::Utc;

use crate::engine::rules::{self, Condition, Rule, Verdict};
use crate::ops::Context;
use crate::ops::inspect::rows_of;
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::platform::error::Result;
use crate::snapshots::manifest::{Manifest, Table};

/// The baseline with which a new snapshot of a source of the config is compared, and the result.
pub(crate) struct Baseline {
    /// The newest earlier snapshot that may be a baseline.
    before: Option<Manifest>,
    rules: Vec<Rule>,
    /// The reasons why the new snapshot is tagged as suspect; empty if there is none.
    reasons: RefCell<Vec<String>>,
}

impl Baseline {
    /// Finds the baseline of a source, and checks the rules on the live database. Lost data is found later, by
    /// [`Baseline::tag`], in the snapshot itself.
    pub(super) fn of(chosen: &Chosen, context: &Context) -> Result<Self> {
        let before = match context.newest_baseline(&chosen.name()?) {
            // A warning was logged. A snapshot without a comparison is better than none.
            Err(error) if error.is_newer_format() => None,
            found => found?.map(|found| found.manifest),
        };
        let mut reasons = Vec::new();
        // If the database cannot be opened, the save fails too, and reports the error.
        if let Ok(mut live) = chosen.source.open() {
            let now = Utc::now();
            for rule in chosen.rules() {
                // The condition `fresh` is left out: old data is not lost data.
                if matches!(rule.condition, Condition::MinRows(_) | Condition::Query(_)) {
                    let verdict = rules::evaluate(rule, &mut *live, now);
                    if !verdict.ok {
                        reasons.push(description(&verdict));
                    }
                }
            }
        }
        Ok(Baseline { before, rules: chosen.rules().to_vec(), reasons: RefCell::new(reasons) })
    }

    /// Compares the tables of the new snapshot with the baseline. Returns the tag `suspect` if there is a reason to add
    /// it.
    pub(super) fn tag(&self, tables: &[Table]) -> Option<String> {
        if let Some(before) = &self.before {
            let now: BTreeMap<String, u64> = rows_of(tables.iter().filter(|table| table.is_ordinary()));
            let verdicts = if before.lacks_tables() {
                rules::compare_totals(before.rows, now.values().sum(), &[])
            } else {
                rules::compare(&rows_of(before.tables.iter().filter(|table| table.is_ordinary())), &now, &self.rules)
            };
            self.reasons.borrow_mut().extend(verdicts.iter().filter(|verdict| !verdict.ok).map(description));
        }
        (!self.reasons.borrow().is_empty()).then(|| SUSPECT.to_owned())
    }

    /// Returns the reasons why the new snapshot is tagged as suspect.
    pub(super) fn reasons(&self) -> Vec<String> {
        self.reasons.borrow().clone()
    }
}

fn description(verdict: &Verdict) -> String {
    format!("{}: {}", verdict.name, verdict.message())
}
