//! Finds the rows of a live database that a restore of a snapshot would take away.

use crate::engine::database::TablePair;
use crate::engine::rules::migration_tables::is_of_migrations;
use crate::ops::inspect::Found;
use crate::ops::new_rows::{NewRows, NewRowsOfTable};
use crate::ops::sources::Chosen;
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::manifest::{Table, by_name};
use crate::snapshots::row_counts::RowCounts;

/// Finds the rows of a source that its snapshot does not have. Returns `None` if there are none, or if the database is
/// absent, or is so damaged that it cannot be read: then a restore keeps its files.
pub(super) fn find(before: &Found, chosen: &Chosen, context: &Context) -> Result<Option<NewRows>> {
    match chosen.source.open(&context.scratch).and_then(|mut live| live.tables()) {
        Err(error) if error.kind != Kind::Interrupted && chosen.source.is_absent_or_damaged(&error) => Ok(None),
        now => compare(&now?, before, chosen, context),
    }
}

fn compare(now: &RowCounts, before: &Found, chosen: &Chosen, context: &Context) -> Result<Option<NewRows>> {
    let manifest = &before.manifest;
    // The restore of a snapshot that no key opens fails by itself.
    if manifest.lacks_tables() || manifest.is_raw() || now.is_without_rows() {
        return Ok(None);
    }
    if let Some((table, reason)) = now.uncounted.first_key_value() {
        return Err(Error::problem(format!("the rows of {} cannot be counted: {}", one_line(table), one_line(reason))));
    }
    let known = by_name(&manifest.tables);
    let contents = chosen.source.contents(&context.for_engine())?.tables;
    // Only tables that differ must be compared row by row.
    let differs = |table: &&Table| match known.get(table.name.as_str()) {
        Some(before) => !table.has_same_rows(before) || table.columns != before.columns,
        None => true,
    };
    let has_rows = |table: &&Table| now.tables.get(&table.name).is_some_and(|rows| *rows > 0);
    let pairs: Vec<TablePair> = contents
        .iter()
        .filter(has_rows)
        .filter(differs)
        // A deploy that is rolled back has changed them, and its rows in them go with it.
        .filter(|table| !is_of_migrations(&table.name))
        .map(|table| {
            let before = known.get(table.name.as_str()).map(|table| (*table).clone());
            TablePair { now: table.name.clone(), before, counts_missing: false }
        })
        .collect();
    if pairs.is_empty() {
        return Ok(None);
    }
    let opened = fetch::open(&before.catalog, &before.listed.id, context)?;
    let compared = chosen.source.compare_rows(&opened, &pairs, &context.for_engine())?;
    let added = compared.iter().map(|changes| changes.added);
    let tables = pairs.into_iter().zip(added).filter(|(_, rows)| *rows > 0);
    let mut tables: Vec<NewRowsOfTable> = tables.map(|(pair, rows)| NewRowsOfTable { name: pair.now, rows }).collect();
    tables.sort_by(|one, other| other.rows.cmp(&one.rows).then_with(|| one.name.cmp(&other.name)));
    let (source, snapshot) = (chosen.name()?.to_string(), manifest.id.to_string());
    Ok((!tables.is_empty()).then_some(NewRows { source, snapshot, tables }))
}
