//! Formats sizes, ages, times and tables for people.

use chrono::{DateTime, Local, NaiveDateTime, TimeZone, Utc};
use chrono_tz::Tz;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, TableStyle, Width};
use indicatif::BinaryBytes;

use crate::platform::error::one_line;

/// Formats a size in binary units.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}

/// Parses a size: a whole number of bytes, or one with a binary unit (`KiB`, `MiB`, `GiB`, `TiB`). Returns `None` for
/// anything else.
#[must_use]
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Returns true if `then` is more than a minute after `now`. Clocks of two machines are rarely closer.
#[must_use]
pub(crate) fn is_in_future(then: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (now - then).num_seconds() < -60
}

/// Formats the time between `then` and `now` in its largest unit; `future` if `then` is more than a minute after `now`.
#[must_use]
pub(crate) fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds();
    match seconds {
        _ if is_in_future(then, now) => "future".to_owned(),
        ..60 => format!("{}s", seconds.max(0)),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Formats the time between `then` and `now`, followed by `word`: `3h ago`, `3h old`. Returns `dated 3h in the future` if
/// `then` is more than a minute after `now`.
#[must_use]
pub(crate) fn age_with(word: &str, then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match is_in_future(then, now) {
        true => format!("dated {} in the future", age(now, then)),
        false => format!("{} {word}", age(then, now)),
    }
}

/// Formats a number of seconds.
#[must_use]
pub(crate) fn seconds(count: f64) -> String {
    match count {
        c if c < 10.0 => format!("{c:.2}s"),
        c if c < 120.0 => format!("{c:.0}s"),
        c if c < 7200.0 => format!("{:.0}m", c / 60.0),
        c => format!("{:.1}h", c / 3600.0),
    }
}

/// Formats a time in full, in UTC.
#[must_use]
pub(crate) fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The time zone of this machine: that of the environment variable `TZ`, or the system's.
enum HomeZone {
    Named(Tz),
    System,
}

impl HomeZone {
    fn find() -> Self {
        // The names are built in, because a slim container has no files of time zones.
        let named = std::env::var("TZ").ok().and_then(|name| name.trim_start_matches(':').parse().ok());
        named.map_or(HomeZone::System, HomeZone::Named)
    }

    /// Returns the first instant at which clocks show this time, or `None` if they never do.
    fn instant(&self, clock: NaiveDateTime) -> Option<DateTime<Utc>> {
        match self {
            HomeZone::Named(zone) => zone.from_local_datetime(&clock).earliest().map(|time| time.to_utc()),
            HomeZone::System => Local.from_local_datetime(&clock).earliest().map(|time| time.to_utc()),
        }
    }

    fn clock(&self, time: DateTime<Utc>) -> NaiveDateTime {
        match self {
            HomeZone::Named(zone) => time.with_timezone(zone).naive_local(),
            HomeZone::System => time.with_timezone(&Local).naive_local(),
        }
    }
}

/// Returns the first instant at which clocks in the zone of this machine show a time, or `None` if they never do.
#[must_use]
pub(crate) fn local_instant(clock: NaiveDateTime) -> Option<DateTime<Utc>> {
    HomeZone::find().instant(clock)
}

/// Formats a time in 12 characters, in UTC or in the zone of this machine: without the year if it is less than ten months
/// away from `now`, and without the time of day otherwise.
#[must_use]
pub(crate) fn short_time(time: DateTime<Utc>, now: DateTime<Utc>, in_utc: bool) -> String {
    let clock = if in_utc { time.naive_utc() } else { HomeZone::find().clock(time) };
    let form = if (now - time).num_days().abs() < 300 { "%b %d %H:%M" } else { "%b %d  %Y" };
    clock.format(form).to_string()
}

/// Formats a table without lines. Columns whose heading starts with `>` are aligned to the right.
#[must_use]
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    layout(headings, &rows.into_iter().collect::<Vec<_>>(), None).text()
}

/// Formats a table as [`table`] does, but no wider than `width`, as far as that is possible: the columns in `optional` are
/// left out, in this order, and if `cuts` is set, the texts of the last column are cut.
#[must_use]
pub(crate) fn table_within(
    headings: &[&str],
    rows: &[Vec<String>],
    width: usize,
    cuts: bool,
    optional: &[&str],
) -> String {
    /// The width to which the last column may be cut before another column is left out.
    const LEAST_OF_LAST: usize = 10;
    let mut kept: Vec<usize> = (0..headings.len()).collect();
    let mut optional = optional.iter();
    loop {
        let chosen: Vec<&str> = kept.iter().map(|place| headings[*place]).collect();
        let cells = |row: &Vec<String>| kept.iter().filter_map(|place| row.get(*place).cloned()).collect();
        let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
        let whole = layout(&chosen, &cells, None);
        let widths = whole.0.column_max_content_widths();
        let (last, others) = widths.split_last().map_or((0, &[][..]), |(last, others)| (usize::from(*last), others));
        let before: usize = others.iter().map(|width| usize::from(*width) + GAP).sum();
        if before + last <= width {
            return whole.text();
        }
        match optional.next() {
            Some(heading) if !cuts || before + last.min(LEAST_OF_LAST) > width || last <= LEAST_OF_LAST => {
                kept.retain(|place| headings[*place] != *heading);
            }
            _ if !cuts => return whole.text(),
            _ => return layout(&chosen, &cells, Some(width.saturating_sub(before).max(1))).text(),
        }
    }
}

/// The spaces between two columns.
const GAP: usize = 2;

/// A table of this module.
struct Plain(Table);

impl Plain {
    fn text(&self) -> String {
        self.0.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

/// Lays a table out. The texts of the last column are cut to `last`, if it is given.
fn layout(headings: &[&str], rows: &[Vec<String>], last: Option<usize>) -> Plain {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    // A text is cut after any character, and not at a space.
    table.set_truncation_indicator("…").set_delimiter('\0');
    let mut header = Row::from(headings.iter().map(|heading| heading.trim_start_matches('>')));
    table.set_header(std::mem::take(header.max_height(1)));
    for row in rows {
        // Texts from a store or a database must not move the cursor.
        let mut row = Row::from(row.iter().map(|cell| one_line(cell)));
        table.add_row(std::mem::take(row.max_height(1)));
    }
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            let is_last = index + 1 == headings.len();
            let padding = if is_last { 0 } else { GAP as u16 };
            column.set_padding((0, padding)).set_constraint(match last.filter(|_| is_last) {
                Some(last) => ColumnConstraint::Absolute(Width::Fixed(u16::try_from(last).unwrap_or(u16::MAX))),
                None => ColumnConstraint::ContentWidth,
            });
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    Plain(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_the_future_is_called_so() {
        let now = DateTime::UNIX_EPOCH;
        let hours = chrono::Duration::hours(3);
        assert_eq!(age_with("ago", now - hours, now), "3h ago");
        assert_eq!(age_with("ago", now + hours, now), "dated 3h in the future");
        assert_eq!(age_with("old", now + chrono::Duration::seconds(30), now), "0s old");
    }

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let read = [("0", 0), ("17", 17), ("17B", 17), ("1KiB", 1024), ("64 MiB", 64 << 20), ("2TiB", 2 << 40)];
        for (text, count) in read {
            assert_eq!(parse_bytes(text), Some(count), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5GiB", "1MB", "1 mib", "99999999999999999999", "99999999TiB"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_short_time_has_the_year_only_if_it_is_long_ago() {
        let now = DateTime::from_timestamp(1_795_700_818, 0).expect("it is a time");
        assert_eq!(short_time(now, now, true), "Nov 26 13:46");
        assert_eq!(short_time(now - chrono::Duration::days(400), now, true), "Oct 22  2025");
        let shanghai = HomeZone::Named(Tz::Asia__Shanghai);
        assert_eq!(shanghai.clock(now).to_string(), "2026-11-26 21:46:58");
        assert_eq!(shanghai.instant(shanghai.clock(now)), Some(now));
    }

    #[test]
    fn a_table_is_plain_and_aligned() {
        let text = table(&["ID", ">SIZE"], [vec!["a".into(), "1".into()], vec!["bb".into(), "20".into()]]);
        assert_eq!(text, "ID  SIZE\na      1\nbb    20\n");
    }

    #[test]
    fn a_table_is_cut_to_a_width() {
        let rows = [vec!["a1".into(), "5m".into(), "7".into(), "nightly, before-the-move".into()]];
        let within = |width| table_within(&["ID", ">AGE", ">ROWS", "NOTES"], &rows, width, true, &[">ROWS", ">AGE"]);
        assert_eq!(within(39), "ID  AGE  ROWS  NOTES\na1   5m     7  nightly, before-the-move\n");
        assert_eq!(within(30), "ID  AGE  ROWS  NOTES\na1   5m     7  nightly, befor…\n");
        assert_eq!(within(20), "ID  AGE  NOTES\na1   5m  nightly, b…\n");
        assert_eq!(within(10), "ID  NOTES\na1  night…\n");
        let uncut = table_within(&["ID", ">AGE", ">ROWS", "NOTES"], &rows, 33, false, &[">ROWS", ">AGE"]);
        assert_eq!(uncut, "ID  AGE  NOTES\na1   5m  nightly, before-the-move\n");
    }
}
