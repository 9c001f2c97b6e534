//! Whether a snapshot may be the measure for those that come after it: one of a database that has just lost its rows must not.

use std::cell::RefCell;
use std::collections::BTreeMap;

use chrono::Utc;

use crate::engine::rules::{self, Demand, Rule, Verdict};
use crate::ops::Context;
use crate::ops::look::{live_of, rows_of};
use crate::ops::snapshot::is_ordinary;
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::platform::error::Result;
use crate::snapshots::manifest::{Manifest, Table};

/// What a snapshot of a source of the config is held against.
pub(crate) struct Measure {
    /// The newest one that is a measure itself.
    before: Option<Manifest>,
    rules: Vec<Rule>,
    /// What speaks against it, in words.
    found: RefCell<Vec<String>>,
}

impl Measure {
    /// Judges the rules on the live database; what is lost is seen in the snapshot itself.
    pub(super) fn of(chosen: &Chosen, context: &Context) -> Result<Self> {
        let before = context.newest_measure(&chosen.name()?)?.map(|found| found.manifest);
        let mut found = Vec::new();
        // A database that cannot be opened will not be saved either, and that is told.
        if let Ok(mut live) = live_of(&chosen.source) {
            let now = Utc::now();
            for rule in chosen.rules() {
                // Data that is old is no loss.
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

    /// Holds the tables of a snapshot against it: the tag that it gets for what was found.
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

    /// What was found.
    pub(super) fn found(&self) -> Vec<String> {
        self.found.borrow().clone()
    }
}

fn told(verdict: &Verdict) -> String {
    format!("{}: {}", verdict.name, verdict.message())
}
