//! Counts values that fit the type of the target but are not exactly the same there.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, TablePlan};
use crate::platform::error::one_line;

/// The ways in which one value changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// It is a local time that occurs twice, because clocks are put back.
    pub twice: bool,
    /// It is a local time that never occurs, because clocks are put forward.
    pub skipped: bool,
    /// It is a time with digits beyond microseconds.
    pub finer: bool,
    /// It is a time in a leap second, such as 23:59:60.
    pub leap: bool,
    /// It is JSON with an object that has a key more than once.
    pub repeats: bool,
}

/// The number of values of a column that change, by the way in which they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ChangeCounts {
    /// See [`Changes::twice`].
    pub twice: u64,
    /// See [`Changes::skipped`].
    pub skipped: u64,
    /// See [`Changes::finer`].
    pub finer: u64,
    /// See [`Changes::leap`].
    pub leap: u64,
    /// See [`Changes::repeats`].
    pub repeats: u64,
}

impl Changes {
    /// Returns true if the value stays the same.
    #[must_use]
    pub(crate) fn is_none(self) -> bool {
        self == Changes::default()
    }
}

impl ChangeCounts {
    /// Counts one value.
    pub(crate) fn add(&mut self, changes: Changes) {
        self.twice += u64::from(changes.twice);
        self.skipped += u64::from(changes.skipped);
        self.finer += u64::from(changes.finer);
        self.leap += u64::from(changes.leap);
        self.repeats += u64::from(changes.repeats);
    }

    /// Adds the counts of other values.
    pub(crate) fn merge(&mut self, other: ChangeCounts) {
        self.twice += other.twice;
        self.skipped += other.skipped;
        self.finer += other.finer;
        self.leap += other.leap;
        self.repeats += other.repeats;
    }

    /// Returns a sentence for each way in which values change, together with a change of that kind.
    #[must_use]
    pub(crate) fn sentences(&self, zone: Tz) -> Vec<(Changes, String)> {
        let none = Changes::default();
        let twice = format!(
            "local times occur twice, because clocks in {zone} are put back: they are read as the earlier of the two instants"
        );
        let skipped = format!(
            "local times do not exist, because clocks in {zone} are put forward: they are read with the offset after the change"
        );
        let finer = "times have digits beyond microseconds, which are cut off".to_owned();
        let leap = "times are in a leap second (:60), which PostgreSQL does not have: they become the last microsecond before it";
        let repeats = "JSON values have an object with the same key twice: jsonb keeps only the last value of that key, \
                       the type json keeps both";
        [
            (self.twice, Changes { twice: true, ..none }, twice),
            (self.skipped, Changes { skipped: true, ..none }, skipped),
            (self.finer, Changes { finer: true, ..none }, finer),
            (self.leap, Changes { leap: true, ..none }, leap.to_owned()),
            (self.repeats, Changes { repeats: true, ..none }, repeats.to_owned()),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, change, text)| (change, format!("{count} {text}")))
        .collect()
    }
}

/// The counts of a table's columns, by their names in the file. Columns whose values stay the same are left out.
pub(crate) type TableChanges = BTreeMap<String, ChangeCounts>;

/// Returns a remark for each way in which values of a table's columns change.
#[must_use]
pub(crate) fn remarks(plan: &Plan, table: &TablePlan, changes: &TableChanges) -> Vec<String> {
    let of_column = |(name, counts): (&String, &ChangeCounts)| -> Vec<String> {
        let column = table.columns.iter().find(|column| column.source == *name);
        let zone = column.and_then(|column| column.zone).unwrap_or(plan.zone);
        let remark = |(_, sentence)| format!("{}: {}: {sentence}", table.shown_source(), one_line(name));
        counts.sentences(zone).into_iter().map(remark).collect()
    };
    changes.iter().flat_map(of_column).collect()
}

/// The beginning of the names of steps whose notes are the changes of one chunk.
const STEP: &str = "changes ";

/// Returns the name of the step that notes the changes of a chunk of a table.
#[must_use]
pub(crate) fn step(table: usize, chunk: usize) -> String {
    format!("{STEP}{table} {chunk}")
}

/// Returns the notes of a plan's steps, with the changes of all chunks of a table added up.
#[must_use]
pub(crate) fn notes_of_steps(plan: &Plan, steps: BTreeMap<String, Option<String>>) -> Vec<String> {
    let (mut notes, mut tables) = (Vec::new(), BTreeMap::<usize, TableChanges>::new());
    for (step, note) in steps {
        let Some(note) = note else { continue };
        let chunk = step.strip_prefix(STEP).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let (Some(table), Ok(changes)) = (chunk, serde_json::from_str::<TableChanges>(&note)) else {
            notes.push(note);
            continue;
        };
        let sums = tables.entry(table).or_default();
        changes.into_iter().for_each(|(column, counts)| sums.entry(column).or_default().merge(counts));
    }
    let of_table = |(table, changes): (usize, TableChanges)| -> Vec<String> {
        plan.tables.get(table).map(|table| remarks(plan, table, &changes)).unwrap_or_default()
    };
    notes.extend(tables.into_iter().flat_map(of_table));
    notes
}
