//! Adds up losses that are each within the tolerance. A table that loses 9% between every two snapshots has lost half of its
//! rows after eight of them, although no comparison of two snapshots shows that.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::rules::Verdict;
use crate::platform::error::one_line;
use crate::snapshots::manifest::{ComparedWith, Manifest};
use crate::snapshots::row_counts::RowCounts;

/// The tables of a new snapshot that have lost rows, since when, and how many.
#[derive(Clone, Debug, Default)]
pub(super) struct SmallLosses {
    /// The last snapshot before the losses of a table, and the rows of the table in it.
    since: BTreeMap<String, ComparedWith>,
    /// The rows now of the tables that have lost half of their rows or more.
    halved: BTreeMap<String, u64>,
}

impl SmallLosses {
    /// Adds the losses since `before` to those that its manifest records. A table that has as many rows again has lost
    /// none. Losses that a rule on the table allows are not added up.
    pub(super) fn add(before: &Manifest, now: &RowCounts, verdicts: &[Verdict]) -> Self {
        let intended = verdicts.iter().filter(|verdict| verdict.is_intended).flat_map(|verdict| &verdict.tables);
        let intended: BTreeSet<&String> = intended.collect();
        let mut losses = SmallLosses::default();
        for (table, was) in RowCounts::of(&before.tables).tables {
            let Some(is) = now.tables.get(&table).filter(|_| !intended.contains(&table)) else { continue };
            let recorded = before.losses_since.get(&table).cloned();
            let has_earlier = recorded.is_some();
            let first = recorded.unwrap_or_else(|| ComparedWith { id: before.id.clone(), rows: was });
            let is_halved = is.saturating_mul(2) <= first.rows;
            // A loss in one step is reported by the comparison with the previous snapshot.
            if *is >= first.rows || (is_halved && !has_earlier) {
                continue;
            }
            if is_halved {
                losses.halved.insert(table.clone(), *is);
            }
            losses.since.insert(table, first);
        }
        losses
    }

    /// Returns the losses that the manifest records. Those of tables that have lost half of their rows begin anew, so
    /// that each halving is reported once.
    pub(super) fn recorded(mut self) -> BTreeMap<String, ComparedWith> {
        self.since.retain(|table, _| !self.halved.contains_key(table));
        self.since
    }

    /// Returns the last snapshot before the losses of each table, and the rows of the table in it.
    pub(super) fn since(&self) -> &BTreeMap<String, ComparedWith> {
        &self.since
    }

    /// Warns of the tables that have lost half of their rows.
    pub(super) fn warn(&self) {
        for (table, rows) in &self.halved {
            if let Some(ComparedWith { id, rows: before }) = self.since.get(table) {
                tracing::warn!(
                    "the table {} has lost half of its rows or more in small steps, each within the tolerance: {rows} rows \
                     now, {before} in {id}; if that is intended, a rule max_row_drop on the table says so",
                    one_line(table)
                );
            }
        }
    }
}
