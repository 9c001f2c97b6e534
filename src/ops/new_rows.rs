//! The rows of a live database that a restore of a snapshot would take away, because the snapshot does not have them.

use serde::Serialize;

use crate::platform::error::one_line;

/// The rows of one source that its snapshot does not have.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewRows {
    /// The source.
    pub source: String,
    /// The snapshot.
    pub snapshot: String,
    /// The tables with such rows, most rows first.
    pub tables: Vec<NewRowsOfTable>,
}

/// The rows of one table that a snapshot does not have.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NewRowsOfTable {
    /// The table.
    pub name: String,
    /// The number of rows that were added or changed; if the rows cannot be compared, the least number.
    pub rows: u64,
}

impl NewRows {
    /// Returns the number of rows in all tables.
    pub(crate) fn total(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Returns a description such as `3 rows that came after app-...: 2 of orders, 1 of users`.
    pub(crate) fn description(&self) -> String {
        let tables: Vec<String> =
            self.tables.iter().map(|table| format!("{} of {}", table.rows, one_line(&table.name))).collect();
        format!("{} rows that came after {}: {}", self.total(), self.snapshot, tables.join(", "))
    }
}
