//! A quick overview of the tables of a database that is not backed up yet.

use std::path::Path;
use std::time::Duration;

use super::connection::{Purpose, open};
use super::names::{name_at, quote};
use super::rows;

/// The maximum number of rows that are counted.
const MAX_ROWS: u32 = 100_000;
/// The maximum number of tables that are listed.
const MAX_TABLES: u32 = 200;

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
    let Ok(connection) = open(&path, Purpose::Source) else { return Ok(Vec::new()) };
    connection.busy_timeout(Duration::from_millis(200))?;
    let mut names = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name LIMIT ?1",
    )?;
    let names: Vec<String> = names.query_map([MAX_TABLES], |row| name_at(row, 0))?.flatten().collect();
    let count = |name: String| {
        let limit = format!(" LIMIT {MAX_ROWS})");
        let query = [b"SELECT count(*) FROM (SELECT 1 FROM main.", &quote(&name)[..], limit.as_bytes()].concat();
        let rows = rows::number(&connection, &query).ok()?;
        Some(TableCount { name, rows: u64::try_from(rows).unwrap_or(0) })
    };
    Ok(names.into_iter().filter_map(count).collect())
}
