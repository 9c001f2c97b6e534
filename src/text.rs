//! Sizes, ages and tables as people read them.

use chrono::{DateTime, Utc};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, TableStyle};
use indicatif::BinaryBytes;

use crate::error::one_line;

/// A size in binary units.
#[must_use]
pub fn bytes(count: u64) -> String {
    BinaryBytes(count).to_string()
}

/// The time between then and now, in its largest unit; `in the future` where there is none.
#[must_use]
pub fn age(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - then).num_seconds();
    match seconds {
        ..-60 => "future".to_owned(),
        -60..60 => format!("{}s", seconds.max(0)),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Seconds as people read them.
#[must_use]
pub fn seconds(count: f64) -> String {
    match count {
        c if c < 10.0 => format!("{c:.2}s"),
        c if c < 120.0 => format!("{c:.0}s"),
        c if c < 7200.0 => format!("{:.0}m", c / 60.0),
        c => format!("{:.1}h", c / 3600.0),
    }
}

/// A time in full.
#[must_use]
pub fn time(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A table without lines; columns whose heading starts with `>` are aligned to the right.
#[must_use]
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    for row in rows {
        // What comes from a store or a database must not move the cursor.
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
    fn a_table_is_plain_and_aligned() {
        let text = table(&["ID", ">SIZE"], [vec!["a".into(), "1".into()], vec!["bb".into(), "20".into()]]);
        assert_eq!(text, "ID  SIZE\na      1\nbb    20\n");
    }
}
