//! Decides whether a snapshot may be the baseline for later snapshots: a snapshot of a database that has just lost its
//! rows must not be.

use std::cell::RefCell;
use std::collections::BTreeMap;

use chrono::Utc;

use crate::engine::rules::{self, Demand, Rule, Verdict};
use crate::ops::Context;
use crate::ops::look::rows_of;
use crate::ops::snapshot::is_ordinary;
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::platform::error::Result;
use crate::snapshots::manifest::{Manifest, Table};

/// The baseline that a snapshot of a source of the config is compared with.
pub(crate) struct Measure {
    /// The newest snapshot that may be a baseline.
    before: Option<Manifest>,
    rules: Vec<Rule>,
    /// The findings against the new snapshot, in words.
    found: RefCell<Vec<String>>,
}

impl Measure {
    /// Checks the rules on the live database; lost data is found later, in the snapshot itself.
    pub(super) fn of(chosen: &Chosen, context: &Context) -> Result<Self> {
        let before = context.newest_measure(&chosen.name()?)?.map(|found| found.manifest);
        let mut found = Vec::new();
        // A database that cannot be opened will not be saved either, and that is reported.
        if let Ok(mut live) = chosen.source.open() {
            let now = Utc::now();
            for rule in chosen.rules() {
                // Old data is not a loss.
                if matches!(rule.demand, Demand::MinRows(_) | Demand::Query(_)) {
                    let verdict = rules::judge(rule, &mut *live, now);
                    if !verdict.ok {
                        found.push(told(&verdict));
                    }
                }
            }
        }
        Ok(Measure { before, rules: chosen.rules().to_vec(), found: RefCell::new(found) })
    }

    /// Compares the tables of a snapshot with the baseline. Returns the tag for a snapshot with findings, `None`
    /// without.
    pub(super) fn tag(&self, tables: &[Table]) -> Option<String> {
        if let Some(before) = &self.before {
            let now: BTreeMap<String, u64> = rows_of(tables.iter().filter(is_ordinary));
            let verdicts = if before.encrypted && before.tables.is_empty() {
                rules::compare_totals(before.rows, now.values().sum(), &[])
            } else {
                rules::compare(&rows_of(before.tables.iter().filter(is_ordinary)), &now, &self.rules)
            };
            self.found.borrow_mut().extend(verdicts.iter().filter(|verdict| !verdict.ok).map(told));
        }
        (!self.found.borrow().is_empty()).then(|| SUSPECT.to_owned())
    }

    /// Returns the findings.
    pub(super) fn found(&self) -> Vec<String> {
        self.found.borrow().clone()
    }
}

fn told(verdict: &Verdict) -> String {
    format!("{}: {}", verdict.name, verdict.message())
}
