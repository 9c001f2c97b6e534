//! Puts chosen tables of an image into an existing database: in one transaction, touching no other table.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OptionalExtension};

use super::connection::{explain, quote};
use super::health;
use super::survey::{self, OnDamage, TableCheck};
use super::target::LiveTarget;
use crate::error::{Error, Result, one_line};
use crate::manifest::Table;

/// Whether rows that are in a table may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// A table that holds rows is refused.
    Refuse,
    /// Its rows are replaced.
    Replace,
}

/// Gives the named tables exactly the image's rows; one that is not there is made, with its indexes and triggers.
///
/// Refused, with nothing changed: virtual tables and SQLite's own, tables whose columns are others than the
/// snapshot's, and a result in which rows of other tables refer to rows that are gone.
pub fn restore_tables(
    target: &LiveTarget,
    image: &Path,
    tables: &[&Table],
    overwrite: Overwrite,
    expect_unchanged: bool,
) -> Result<Vec<TableCheck>> {
    for table in tables {
        if table.kind != "table" || table.name.starts_with("sqlite_") {
            return Err(Error::usage(format!(
                "the table {} is a {} table, and cannot be restored alone",
                one_line(&table.name),
                if table.kind == "table" { "system" } else { &table.kind }
            ))
            .hint("restore the whole snapshot to a new path, and copy from there"));
        }
        if table.digest.is_none() {
            return Err(Error::usage(format!(
                "the table {} could not be read when the snapshot was taken",
                one_line(&table.name)
            )));
        }
    }
    let connection = &target.connection;
    let failed = |error| explain(error, "cannot restore the tables; nothing was changed");
    let uri = format!("file:{}?immutable=1", percent_encode(path_bytes(image), NON_ALPHANUMERIC));
    connection.execute("ATTACH ?1 AS lifeboat_image", [uri]).map_err(failed)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    if expect_unchanged {
        target.require_unchanged()?;
    }
    let before = health::orphans(connection, None).ok();
    if before.is_none() {
        tracing::warn!(
            "the target's foreign keys cannot be checked, so rows that refer to the restored tables are not"
        );
    }
    let mut checks = Vec::new();
    for table in tables {
        crate::interrupt::check()?;
        restore_table(connection, table, overwrite)?;
        let found = survey::survey_table(connection, &table.name, &table.kind, OnDamage::Fail)?;
        checks.extend(survey::compare(&[(*table).clone()], &[found]));
    }
    survey::require_all(&checks)?;
    if let Some(before) = before {
        let now = health::orphans(connection, None).map_err(failed)?;
        if let Some(first) = health::new_orphans(&before, &now).first() {
            return Err(Error::failed(format!(
                "restoring these tables alone would break references: {first}; nothing was changed"
            ))
            .hint("name those tables too, with --table, or restore the whole database"));
        }
    }
    connection.execute_batch("COMMIT").map_err(failed)?;
    connection
        .execute_batch("DETACH lifeboat_image")
        .map_err(|error| explain(error, "the tables were restored, but the image cannot be detached"))?;
    Ok(checks)
}

fn path_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

fn restore_table(connection: &Connection, table: &Table, overwrite: Overwrite) -> Result<()> {
    let shown = one_line(&table.name);
    let failed = |error| explain(error, &format!("cannot restore the table {shown}; nothing was changed"));
    let name = quote(&table.name);
    let exists = |schema: &str| {
        let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE");
        connection.query_row(&sql, [&table.name], |_| Ok(())).optional().map(|found| found.is_some())
    };
    let is_new = !exists("main").map_err(failed)?;
    if is_new {
        let sql = "SELECT sql FROM lifeboat_image.sqlite_schema WHERE type = 'table' AND name = ?1";
        let create: String = connection.query_row(sql, [&table.name], |row| row.get(0)).map_err(failed)?;
        connection.execute_batch(&create).map_err(failed)?;
    } else {
        let columns = survey::columns(connection, &table.name).map_err(failed)?;
        if columns != table.columns {
            return Err(Error::usage(format!(
                "the table {shown} has other columns now than in the snapshot; nothing was changed"
            ))
            .hint("restore the whole snapshot to a new path, and copy from there"));
        }
        let holds_rows = connection
            .query_row(&format!("SELECT 1 FROM main.{name} LIMIT 1"), [], |_| Ok(()))
            .optional()
            .map_err(failed)?
            .is_some();
        if holds_rows && overwrite == Overwrite::Refuse {
            return Err(Error::usage(format!("the table {shown} holds rows; nothing was changed"))
                .hint("overwrite them with --replace"));
        }
        connection.execute(&format!("DELETE FROM main.{name}"), []).map_err(failed)?;
    }
    let mut columns: Vec<String> =
        table.columns.iter().filter(|column| !column.generated).map(|column| quote(&column.name)).collect();
    // Rowids that nobody declared are kept too: full-text indexes and programs may have noted them.
    let without_rowid: bool = connection
        .query_row(
            "SELECT wr FROM pragma_table_list WHERE schema = 'lifeboat_image' AND name = ?1",
            [&table.name],
            |row| row.get(0),
        )
        .map_err(failed)?;
    let taken = |name: &&str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    if !without_rowid && let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name)) {
        columns.insert(0, rowid.to_owned());
    }
    let columns = columns.join(", ");
    let copy = format!("INSERT INTO main.{name} ({columns}) SELECT {columns} FROM lifeboat_image.{name} NOT INDEXED");
    connection.execute(&copy, []).map_err(failed)?;
    restore_sequence(connection, &table.name).map_err(failed)?;
    if is_new {
        let sql = "SELECT sql FROM lifeboat_image.sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('index', 'trigger') AND sql IS NOT NULL";
        let mut statement = connection.prepare(sql).map_err(failed)?;
        let extras: Vec<String> =
            statement.query_map([&table.name], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
        for create in extras {
            connection.execute_batch(&create).map_err(failed)?;
        }
    }
    Ok(())
}

/// Moves an AUTOINCREMENT counter forward to the snapshot's, never backwards.
fn restore_sequence(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let has = |schema: &str| {
        let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE name = 'sqlite_sequence'");
        connection.query_row(&sql, [], |_| Ok(())).optional().map(|found| found.is_some())
    };
    if !has("lifeboat_image")? || !has("main")? {
        return Ok(());
    }
    let sql = "SELECT seq FROM lifeboat_image.sqlite_sequence WHERE name = ?1";
    let Some(sequence) = connection.query_row(sql, [table], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(());
    };
    let changed =
        connection.execute("UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", (table, sequence))?;
    if changed == 0 {
        connection.execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)", (table, sequence))?;
    }
    Ok(())
}
