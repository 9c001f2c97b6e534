//! Reads a file's rows value by value, with their rowids, for conversion to other formats.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::connection::explain;
use super::names::quote;
use super::reading::Reading;
pub(crate) use super::rows::Cell;
use super::rows::{self, Rows};
use super::schema::{self, SchemaFacts, TableFacts};
use super::survey;
use crate::platform::digest::RowHasher;
use crate::platform::disk::shown;
use crate::platform::error::{Error, Result, one_line};

/// A database that is read and not changed: a live file, or an image that nobody else uses.
///
/// It belongs to one thread.
pub(crate) struct Reader {
    path: PathBuf,
    connection: Connection,
    /// Dropped after the connection.
    _reading: Reading,
}

/// The rows from one rowid to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first rowid.
    pub first: i64,
    /// The last rowid.
    pub last: i64,
}

/// Columns of a table that refer to those of another one.
pub(crate) struct Reference<'a> {
    /// The referencing table.
    pub table: &'a str,
    /// Its columns.
    pub columns: Vec<String>,
    /// The referenced table.
    pub parent: &'a str,
    /// Its columns, in the same order.
    pub referenced: Vec<String>,
    /// For each of the columns, the texts that mean NULL.
    pub nulls: Vec<Vec<String>>,
}

impl Reader {
    /// Opens a file; see [`super::source::locate`].
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let reading = Reading::require_in_place(path)?;
        Ok(Reader { path: path.to_owned(), connection: reading.open()?, _reading: reading })
    }

    /// Begins a read transaction; all reads see the same state until [`end`](Self::end).
    pub(crate) fn begin(&self) -> Result<()> {
        let begun = self.connection.execute_batch("BEGIN; SELECT count(*) FROM main.sqlite_schema");
        begun.map_err(|error| explain(error, &format!("cannot read {}", shown(&self.path))))
    }

    /// Ends the read transaction.
    pub(crate) fn end(&self) -> Result<()> {
        self.connection.execute_batch("COMMIT").map_err(|error| explain(error, "cannot end a read transaction"))
    }

    /// Reads the schema.
    pub(crate) fn schema(&self) -> Result<SchemaFacts> {
        schema::read(&self.connection).map_err(|error| error.context(format!("cannot read {}", shown(&self.path))))
    }

    /// Counts the rows that refer to missing rows. Those with NULL in one of the columns refer to none. Returns 0 if a name is not
    /// UTF-8.
    pub(crate) fn orphans(&self, reference: &Reference<'_>) -> Result<u64> {
        let name = |name: &str| String::from_utf8(quote(name)).ok();
        let names = |names: &[String]| names.iter().map(|one| name(one)).collect::<Option<Vec<_>>>();
        let (Some(table), Some(parent)) = (name(reference.table), name(reference.parent)) else { return Ok(0) };
        let (Some(columns), Some(referenced)) = (names(&reference.columns), names(&reference.referenced)) else {
            return Ok(0);
        };
        let text = |text: &String| format!("'{}'", text.replace('\'', "''"));
        let mut conditions = Vec::new();
        for (column, nulls) in columns.iter().zip(&reference.nulls) {
            let nulls: Vec<String> = nulls.iter().map(text).collect();
            conditions.push(format!("{column} IS NOT NULL AND {column} NOT IN ({})", nulls.join(", ")));
        }
        let not_null: Vec<String> = referenced.iter().map(|column| format!("{column} IS NOT NULL")).collect();
        let sql = format!(
            "SELECT count(*) FROM main.{table} WHERE {} AND ({}) NOT IN (SELECT {} FROM main.{parent} WHERE {})",
            conditions.join(" AND "),
            columns.join(", "),
            referenced.join(", "),
            not_null.join(" AND ")
        );
        let count = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        let count = count.map_err(|error| explain(error, &format!("cannot read {}", one_line(reference.table))))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Reads a table: all rows, or the rows in a range.
    pub(crate) fn rows(&self, table: &TableFacts, range: Option<Range>) -> Result<TableRows<'_>> {
        let condition = range.zip(table.rowid);
        let condition = condition.map(|(range, rowid)| format!("{rowid} BETWEEN {} AND {}", range.first, range.last));
        self.select(table, condition.as_deref())
    }

    /// Reads the rows of a table that fulfil a condition of its schema, such as that of a partial index.
    pub(crate) fn rows_where(&self, table: &TableFacts, condition: &str) -> Result<TableRows<'_>> {
        self.select(table, Some(condition))
    }

    fn select(&self, table: &TableFacts, condition: Option<&str>) -> Result<TableRows<'_>> {
        let own = table.columns.iter().filter(|column| !column.generated);
        let generated = table.columns.iter().filter(|column| column.generated);
        let order: Vec<&str> = own.clone().chain(generated).map(|column| column.name.as_str()).collect();
        // The name of the rowid needs no quotes, but may have them.
        let mut sql = survey::select(order.iter().copied().chain(table.rowid), &table.name, "table");
        if let Some(condition) = condition {
            sql.extend(format!(" WHERE {condition}").bytes());
        }
        let cells = table.columns.iter().map(|column| {
            let place = order.iter().position(|name| *name == column.name);
            place.and_then(|place| i32::try_from(place).ok()).unwrap_or_default()
        });
        let message = format!("cannot read the table {} of {}", one_line(&table.name), shown(&self.path));
        let rows = Rows::query(&self.connection, &sql).map_err(|error| explain(error, &message))?;
        Ok(TableRows {
            rows,
            cells: cells.collect(),
            own: i32::try_from(own.count()).unwrap_or(i32::MAX),
            rowid: table.rowid.and_then(|_| i32::try_from(order.len()).ok()),
            message,
        })
    }

    /// Counts the rows of a table.
    pub(crate) fn count(&self, table: &TableFacts) -> Result<u64> {
        rows::count(&self.connection, &table.name)
            .map_err(|error| explain(error, &format!("cannot count the rows of the table {}", one_line(&table.name))))
    }

    /// Divides a table into ranges of about `rows` rows that together contain all rows. Returns `None` if the table has
    /// no rowids.
    pub(crate) fn ranges(&self, table: &TableFacts, rows: usize) -> Result<Option<Vec<Range>>> {
        let Some(rowid) = table.rowid else { return Ok(None) };
        let order = format!(" NOT INDEXED ORDER BY {rowid}");
        let sql = [b"SELECT ", rowid.as_bytes(), b" FROM main.", &quote(&table.name), order.as_bytes()].concat();
        let cut = || -> rusqlite::Result<Vec<Range>> {
            let mut found = Rows::query(&self.connection, &sql)?;
            let (mut ranges, mut count): (Vec<Range>, usize) = (Vec::new(), rows);
            while found.step()? {
                let Cell::Integer(number) = found.cell(0)? else { continue };
                match ranges.last_mut() {
                    Some(range) if count < rows => {
                        range.last = number;
                        count += 1;
                    }
                    _ => {
                        ranges.push(Range { first: number, last: number });
                        count = 1;
                    }
                }
            }
            Ok(ranges)
        };
        cut().map(Some).map_err(|error| explain(error, &format!("cannot read the table {}", one_line(&table.name))))
    }
}

/// The rows of a table that is being read.
pub(crate) struct TableRows<'a> {
    rows: Rows<'a>,
    /// The position in the query's result of each of the table's columns.
    cells: Vec<i32>,
    own: i32,
    rowid: Option<i32>,
    /// The message for errors while the rows are read.
    message: String,
}

impl TableRows<'_> {
    /// Goes to the next row. Returns false after the last.
    pub(crate) fn step(&mut self) -> Result<bool> {
        self.rows.step().map_err(|error| explain(error, &self.message))
    }

    /// Returns the value of the column at an index of [`TableFacts::columns`].
    pub(crate) fn cell(&self, column: usize) -> Result<Cell<'_>> {
        let place = self.cells.get(column).ok_or_else(|| Error::failed("the table has no such column"))?;
        self.rows.cell(*place).map_err(|error| explain(error, &self.message))
    }

    /// Returns the rowid of the row, if it has one.
    pub(crate) fn rowid(&self) -> Result<Option<i64>> {
        let Some(place) = self.rowid else { return Ok(None) };
        match self.rows.cell(place).map_err(|error| explain(error, &self.message))? {
            Cell::Integer(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    /// Hashes the row as for a manifest's digest: stored values only, without generated columns.
    pub(crate) fn hash(&self, hasher: &mut RowHasher) -> Result<()> {
        self.rows.hash(self.own, hasher).map_err(|error| explain(error, &self.message))
    }
}
