//! Compares the rows of a live database with those of a snapshot's image: the rows that only one of them has.
//!
//! Two rows are equal if all columns that both tables have are equal, byte by byte. (A migration that only adds a column and
//! fills it adds no rows.) SQLite sorts the rows in temporary
//! files, so the memory is bounded.

use std::path::Path;

use rusqlite::Connection;

use super::connection::{explain, is_circumstance, limit_values};
use super::derived;
use super::names::{Name, name_at, optional_message_at, quote};
use super::reading::Reading;
use super::tables::attach;
use super::{rows, source, survey};
use crate::engine::database::{RowChanges, TablePair};
use crate::platform::error::{Result, one_line};
use crate::platform::scratch::Scratch;

/// The schemas of the live database and of the attached image.
const MAIN: &str = "main";
const IMAGE: &str = "lifeboat_image";

/// Compares pairs of tables.
pub(super) fn compare(path: &Path, image: &Path, pairs: &[TablePair], scratch: &Scratch) -> Result<Vec<RowChanges>> {
    let path = source::locate(path)?;
    let reading = Reading::begin(&path, scratch)?;
    let connection = reading.open()?;
    attach(&connection, image)?;
    // The live file may have lost most of its rows.
    limit_values(&connection, &[&path, image]);
    // All tables are read in one state.
    connection.execute_batch("BEGIN").map_err(|error| explain(error, "cannot start a read transaction"))?;
    let compared = pairs.iter().map(|pair| {
        crate::platform::interrupt::check()?;
        compare_pair(&connection, pair)
            .map_err(|error| explain(error, &format!("cannot compare the rows of {}", one_line(&pair.now))))
    });
    let compared = compared.collect::<Result<_>>()?;
    reading.require_unchanged().map(|()| compared)
}

fn compare_pair(connection: &Connection, pair: &TablePair) -> rusqlite::Result<RowChanges> {
    let rows_now = survey::count(connection, &pair.now, kind(connection, &pair.now)?)?;
    let Some(before) = &pair.before else { return Ok(RowChanges { missing: 0, added: rows_now, is_exact: true }) };
    let rows_before = before.rows.unwrap_or_default();
    let by_number = RowChanges {
        missing: rows_before.saturating_sub(rows_now),
        added: rows_now.saturating_sub(rows_before),
        is_exact: false,
    };
    if derived::is_without_content(connection, &pair.now)? {
        // Such a full-text index shows only the numbers of its rows, and not what was indexed. It is compared because it
        // is not as it was.
        return Ok(RowChanges { added: by_number.added.max(1), ..by_number });
    }
    let compared = match compare_tables(connection, &pair.now, &before.name, pair.counts_missing) {
        // The tokenizer of a full-text index is missing here: its rows are in a shadow table.
        Err(error) if before.kind == "virtual" && !is_circumstance(&error) => {
            let [now, before] = [&pair.now, &before.name].map(|name| format!("{name}_content"));
            compare_tables(connection, &now, &before, pair.counts_missing).map_err(|_| error)?
        }
        compared => compared?,
    };
    let Some(compared) = compared else { return Ok(by_number) };
    // EXCEPT drops duplicates. Of equal rows, the numbers of rows show how many are gone or new.
    Ok(RowChanges {
        missing: compared.missing.max(by_number.missing),
        added: compared.added.max(by_number.added),
        ..compared
    })
}

/// Compares two tables by the columns that both have. Returns `None` if there are none.
fn compare_tables(
    connection: &Connection,
    now: &str,
    before: &str,
    counts_missing: bool,
) -> rusqlite::Result<Option<RowChanges>> {
    let (columns, columns_before) = (columns(connection, MAIN, now)?, columns(connection, IMAGE, before)?);
    let is_common = |column: &&Column| columns_before.iter().any(|other| other.name.eq_ignore_ascii_case(&column.name));
    let (common, new): (Vec<&Column>, Vec<&Column>) = columns.iter().partition(is_common);
    // SQLite would compare texts by the collation of their column.
    let list: Vec<Vec<u8>> =
        common.iter().map(|column| [&quote(&column.name)[..], b" COLLATE BINARY"].concat()).collect();
    if list.is_empty() {
        return Ok(None);
    }
    let list = list.join(&b", "[..]);
    let select =
        |schema: &str, table: &str| [b"SELECT ", &list[..], b" FROM ", schema.as_bytes(), b".", &quote(table)].concat();
    let (main, image) = (select(MAIN, now), select(IMAGE, before));
    let only_in = |one: &[u8], other: &[u8]| {
        let sql = [b"SELECT count(*) FROM (", one, b" EXCEPT ", other, b")"].concat();
        rows::number(connection, &sql).map(i64::unsigned_abs)
    };
    let missing = if counts_missing { only_in(&image, &main)? } else { 0 };
    let is_exact = !has_values(connection, now, &new)?;
    Ok(Some(RowChanges { missing, added: only_in(&main, &image)?, is_exact }))
}

/// Returns true if some of these columns have a value in some row: neither NULL nor the default.
fn has_values(connection: &Connection, table: &str, columns: &[&Column]) -> rusqlite::Result<bool> {
    if columns.is_empty() {
        return Ok(false);
    }
    let is_value = |column: &&Column| {
        let name = quote(&column.name);
        let default = column.default.as_deref().unwrap_or("NULL");
        [b"(", &name[..], b" IS NOT NULL AND ", &name, b" IS NOT (", default.as_bytes(), b"))"].concat()
    };
    let conditions: Vec<Vec<u8>> = columns.iter().map(is_value).collect();
    let sql =
        [b"SELECT EXISTS (SELECT 1 FROM main.", &quote(table)[..], b" WHERE ", &conditions.join(&b" OR "[..]), b")"];
    match rows::number(connection, &sql.concat()) {
        Ok(found) => Ok(found != 0),
        Err(error) if is_circumstance(&error) => Err(error),
        // A default that cannot be evaluated here.
        Err(_) => Ok(true),
    }
}

/// Returns the kind of a table: `virtual` or `table`.
fn kind(connection: &Connection, table: &str) -> rusqlite::Result<&'static str> {
    let sql = "SELECT count(*) > 0 FROM main.sqlite_schema
                WHERE type = 'table' AND name = ?1 COLLATE NOCASE AND ifnull(rootpage, 0) = 0";
    let is_virtual: bool = connection.query_row(sql, [Name::of(table)], |row| row.get(0))?;
    Ok(if is_virtual { "virtual" } else { "table" })
}

/// A column of a table.
struct Column {
    name: String,
    /// The expression of its default value.
    default: Option<String>,
}

/// Returns the columns of a table that are stored: not those that are generated or hidden.
fn columns(connection: &Connection, schema: &str, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement =
        connection.prepare("SELECT name, dflt_value FROM pragma_table_xinfo(?1, ?2) WHERE hidden = 0 ORDER BY cid")?;
    let column = |row: &rusqlite::Row<'_>| Ok(Column { name: name_at(row, 0)?, default: optional_message_at(row, 1)? });
    statement.query_map((Name::of(table), schema), column)?.collect()
}
