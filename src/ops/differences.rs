//! Describes the differences between the numbers of rows of two snapshots.

use std::collections::{BTreeMap, BTreeSet};

use crate::platform::error::one_line;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::row_counts::RowCounts;

/// The most tables that a message names.
pub(crate) const MOST_TABLES: usize = 5;

/// Describes the tables in which a newer snapshot has more or fewer rows than an older one.
pub(crate) fn differences(newer: &Manifest, older: &Manifest) -> String {
    let rows = |manifest: &Manifest| RowCounts::of(&manifest.tables).tables;
    let (now, before) = (rows(newer), rows(older));
    let compared = |wanted: fn(u64, u64) -> bool| -> Vec<String> {
        let names: BTreeSet<&String> = now.keys().chain(before.keys()).collect();
        let of = |tables: &BTreeMap<String, u64>, name: &String| tables.get(name).copied().unwrap_or(0);
        let chosen = names.into_iter().map(|name| (name, of(&now, name), of(&before, name)));
        let chosen = chosen.filter(|(_, now, before)| wanted(*now, *before));
        chosen.map(|(name, now, before)| format!("{now} rows of {} ({before})", one_line(name))).collect()
    };
    let (more, fewer) = (compared(|now, before| now > before), compared(|now, before| now < before));
    let mut parts = Vec::new();
    if !more.is_empty() {
        parts.push(format!("it has more rows than {}: {}", older.id, some(more.iter())));
    }
    if !fewer.is_empty() {
        parts.push(format!(
            "{}: {}",
            if more.is_empty() { "it has fewer rows" } else { "and fewer" },
            some(fewer.iter())
        ));
    }
    match parts.is_empty() {
        true => format!("it has as many rows as {} in each table", older.id),
        false => parts.join("; "),
    }
}

/// Joins the first names, and counts the rest.
pub(crate) fn some(names: impl ExactSizeIterator<Item = impl AsRef<str>>) -> String {
    let more = names.len().saturating_sub(MOST_TABLES);
    let mut text: Vec<String> = names.take(MOST_TABLES).map(|name| one_line(name.as_ref())).collect();
    if more > 0 {
        text.push(format!("and {more} more"));
    }
    text.join(", ")
}
