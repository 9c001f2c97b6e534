//! A quick overview of the tables of a database that is not backed up yet.

use std::path::Path;
use std::time::Duration;

use super::names::quote;
use super::reading::Reading;
use super::{derived, rows, survey};
use crate::snapshots::row_counts::Shadows;

/// The maximum number of rows that are counted.
const MAX_ROWS: u32 = 100_000;
/// The maximum number of tables that are listed.
const MAX_TABLES: usize = 200;

/// A table in the overview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableCount {
    /// The name of the table.
    pub name: String,
    /// The number of rows, or 100 000 if there are more.
    pub rows: u64,
}

/// Lists the tables of a database with their numbers of rows; what cannot be read is omitted. Changes nothing, and
/// waits for locks only for a moment.
#[must_use]
pub(crate) fn table_counts(path: &Path) -> Vec<TableCount> {
    read(path).unwrap_or_default()
}

fn read(path: &Path) -> rusqlite::Result<Vec<TableCount>> {
    let Ok(path) = path.canonicalize() else { return Ok(Vec::new()) };
    let Ok(Ok(reading)) = Reading::in_place(&path) else { return Ok(Vec::new()) };
    let Ok(connection) = reading.open() else { return Ok(Vec::new()) };
    connection.busy_timeout(Duration::from_millis(200))?;
    let list = survey::list_tables(&connection)?;
    let shadows = Shadows::of(list.iter().map(|(name, kind)| (name.as_str(), kind.as_str())));
    let contents = derived::external_contents(&connection)?;
    let keeps_rows = |name: &str, kind: &str| match kind {
        "table" => !name.starts_with("sqlite_"),
        kind => kind == "virtual" && shadows.has_storage_of(name) && !contents.contains_key(name),
    };
    let names = list.iter().filter(|(name, kind)| keeps_rows(name, kind)).map(|(name, _)| name.clone());
    let count = |name: String| {
        let limit = format!(" LIMIT {MAX_ROWS})");
        let query = [b"SELECT count(*) FROM (SELECT 1 FROM main.", &quote(&name)[..], limit.as_bytes()].concat();
        let rows = rows::number(&connection, &query).ok()?;
        Some(TableCount { name, rows: u64::try_from(rows).unwrap_or(0) })
    };
    Ok(names.take(MAX_TABLES).filter_map(count).collect())
}
