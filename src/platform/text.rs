//! Formats sizes, ages, times and tables for people.

use chrono::{DateTime, Utc};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, TableStyle};
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

/// Formats a table without lines. Columns whose heading starts with `>` are aligned to the right.
#[must_use]
pub(crate) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    for row in rows {
        // Texts from a store or a database must not move the cursor.
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    for (index, heading) in headings.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2)).set_constraint(ColumnConstraint::ContentWidth);
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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
    fn a_table_is_plain_and_aligned() {
        let text = table(&["ID", ">SIZE"], [vec!["a".into(), "1".into()], vec!["bb".into(), "20".into()]]);
        assert_eq!(text, "ID  SIZE\na      1\nbb    20\n");
    }
}
