//! A quick look at the tables of a database that nobody has asked to save yet.

use std::path::Path;
use std::time::Duration;

use super::connection::{Purpose, open_raw, quote};

/// Rows beyond these are not counted.
const MAX_ROWS: u32 = 100_000;
/// Tables beyond these are not looked at.
const MAX_TABLES: u32 = 200;

/// A table, at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Its name.
    pub name: String,
    /// Its rows, or 100 000 where it has more.
    pub rows: u64,
}

/// The tables of a database and how many rows they have; what cannot be read is left out. Changes nothing, waits for nobody.
#[must_use]
pub fn glance(path: &Path) -> Vec<Glance> {
    look(path).unwrap_or_default()
}

fn look(path: &Path) -> rusqlite::Result<Vec<Glance>> {
    let Ok(path) = path.canonicalize() else { return Ok(Vec::new()) };
    let connection = open_raw(&path, Purpose::Source)?;
    connection.busy_timeout(Duration::from_millis(200))?;
    let mut names = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
         AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name LIMIT ?1",
    )?;
    let names: Vec<String> = names.query_map([MAX_TABLES], |row| row.get(0))?.flatten().collect();
    let count = |name: String| {
        let query = format!("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {MAX_ROWS})", quote(&name));
        let rows: i64 = connection.query_row(&query, [], |row| row.get(0)).ok()?;
        Some(Glance { name, rows: u64::try_from(rows).unwrap_or(0) })
    };
    Ok(names.into_iter().filter_map(count).collect())
}
