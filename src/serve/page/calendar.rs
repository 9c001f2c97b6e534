//! A calendar of days with one column for each week. It shows snapshots, failures and gaps.

use std::collections::BTreeMap;

use chrono::{Datelike as _, Days, NaiveDate};

/// The number of days that a page shows.
pub(crate) const DAYS: u32 = 90;

/// The kind of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DayKind {
    /// The day is before the first snapshot, or it is today and is not over.
    Nothing,
    /// At least one good snapshot was taken, and nothing failed.
    Good,
    /// Something failed, or a snapshot is damaged.
    Failed,
    /// No full snapshot was taken.
    Gap,
}

/// The snapshots and failures of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Day {
    /// The number of snapshots that were taken.
    pub snapshots: u32,
    /// The number of those that are good: full and undamaged.
    pub good: u32,
    /// Descriptions of the failures.
    pub failures: Vec<String>,
}

/// A day at its place in the drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// The distance from the left, in units of the drawing.
    pub(super) x: u32,
    /// The distance from the top, in units of the drawing.
    pub(super) y: u32,
    /// The day.
    pub(super) date: NaiveDate,
    /// The kind of the day.
    pub(super) kind: DayKind,
    /// A description of the day.
    pub(super) description: String,
}

impl Cell {
    /// Returns the CSS class.
    pub(super) fn class(&self) -> &'static str {
        match self.kind {
            DayKind::Nothing => "nothing",
            DayKind::Good => "good",
            DayKind::Failed => "bad",
            DayKind::Gap => "gap",
        }
    }
}

/// The last [`DAYS`] days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    /// One cell for each day, oldest first.
    pub(super) cells: Vec<Cell>,
    /// The width of the drawing.
    pub(super) width: u32,
}

/// The distance from one day to the next, in units of the drawing.
const STEP: u32 = 15;

impl Calendar {
    /// Makes a calendar that ends today. Days before the earliest one in `known` do not count as gaps.
    #[must_use]
    pub(crate) fn new(today: NaiveDate, known: &[(NaiveDate, Day)]) -> Calendar {
        let days: BTreeMap<NaiveDate, &Day> = known.iter().map(|(date, day)| (*date, day)).collect();
        let first = days.keys().next().copied();
        let start = today - Days::new(u64::from(DAYS) - 1);
        let offset = start.weekday().num_days_from_monday();
        let cell = |number: u32| {
            let date = start + Days::new(u64::from(number));
            let (kind, description) = classify(date, today, first, days.get(&date).copied());
            let place = number + offset;
            Cell { x: place / 7 * STEP, y: place % 7 * STEP, date, kind, description }
        };
        Calendar { cells: (0..DAYS).map(cell).collect(), width: (DAYS + offset).div_ceil(7) * STEP }
    }

    /// Returns the number of days of a kind.
    #[must_use]
    pub(crate) fn count(&self, kind: DayKind) -> usize {
        self.cells.iter().filter(|cell| cell.kind == kind).count()
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{} days with good snapshots, {} with failures, {} without a full snapshot",
            self.count(DayKind::Good),
            self.count(DayKind::Failed),
            self.count(DayKind::Gap)
        )
    }
}

fn classify(date: NaiveDate, today: NaiveDate, first: Option<NaiveDate>, day: Option<&Day>) -> (DayKind, String) {
    let count = |day: &Day| match day.snapshots {
        1 => "1 snapshot".to_owned(),
        count => format!("{count} snapshots"),
    };
    match day {
        Some(day) if !day.failures.is_empty() => {
            (DayKind::Failed, format!("{date}: {}; {}", count(day), day.failures.join("; ")))
        }
        Some(day) if day.good > 0 => (DayKind::Good, format!("{date}: {}", count(day))),
        Some(day) if day.snapshots > 0 => (DayKind::Gap, format!("{date}: {}, none of them full", count(day))),
        _ if date < today && first.is_some_and(|first| first < date) => (DayKind::Gap, format!("{date}: no snapshot")),
        _ => (DayKind::Nothing, format!("{date}: no snapshot yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    #[test]
    fn days_without_a_snapshot_are_gaps_once_there_was_one() {
        let good = Day { snapshots: 2, good: 2, failures: Vec::new() };
        let failed = Day { snapshots: 1, good: 0, failures: vec!["x is damaged".to_owned()] };
        let partial = Day { snapshots: 1, good: 0, failures: Vec::new() };
        let known = [(date("2026-11-20"), good), (date("2026-11-22"), failed), (date("2026-11-23"), partial)];
        let calendar = Calendar::new(date("2026-11-26"), &known);
        assert_eq!(calendar.cells.len(), 90);
        let kind = |text: &str| calendar.cells.iter().find(|cell| cell.date == date(text)).map(|cell| cell.kind);
        assert_eq!(kind("2026-11-19"), Some(DayKind::Nothing), "before the first");
        assert_eq!(kind("2026-11-20"), Some(DayKind::Good));
        assert_eq!(kind("2026-11-21"), Some(DayKind::Gap));
        assert_eq!(kind("2026-11-22"), Some(DayKind::Failed));
        assert_eq!(kind("2026-11-23"), Some(DayKind::Gap), "a part is no backup");
        assert_eq!(kind("2026-11-26"), Some(DayKind::Nothing), "today is not over");
        assert_eq!(calendar.summary(), "1 days with good snapshots, 1 with failures, 4 without a full snapshot");
        // Every day has a place of its own.
        let mut places: Vec<_> = calendar.cells.iter().map(|cell| (cell.x, cell.y)).collect();
        places.dedup();
        assert_eq!(places.len(), 90);
        assert!(calendar.cells.iter().all(|cell| cell.x + STEP <= calendar.width && cell.y <= 6 * STEP));
    }
}
