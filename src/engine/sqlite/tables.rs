//! Restores selected tables of an image into an existing database: in one transaction, without touching other tables.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, OptionalExtension, Row};

use super::connection::{explain, with_old_strings};
use super::health;
use super::names::{Match, Name, match_columns, quote};
use super::rows::{self, Rows};
use super::survey::{self, OnDamage, TableCheck};
use super::target::LiveTarget;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::{OrphanRows, Table};

/// The handling of existing rows in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    /// A table that has rows is refused.
    Refuse,
    /// Its rows are replaced.
    Replace,
}

/// Fails if [`restore_tables`] would refuse, before anything is changed.
pub(crate) fn require_restorable(
    target: &LiveTarget,
    image: &Path,
    tables: &[&Table],
    overwrite: Overwrite,
) -> Result<()> {
    for table in tables {
        let shown = one_line(&table.name);
        if table.kind != "table" || table.name.starts_with("sqlite_") {
            let kind = if table.kind == "table" { "system" } else { &table.kind };
            return Err(Error::usage(format!("the table {shown} is a {kind} table, and cannot be restored alone"))
                .hint(RESTORE_WHOLE));
        }
        if table.digest.is_none() {
            return Err(Error::usage(format!("the table {shown} could not be read when the snapshot was taken"))
                .hint(RESTORE_WHOLE));
        }
    }
    let connection = &target.connection;
    attach(connection, image)?;
    let checked = tables.iter().try_for_each(|table| require_target(connection, table, overwrite).map(drop));
    detach(connection)?;
    checked
}

/// Gives the named tables exactly the image's rows. A table that does not exist is created, with its indexes and
/// triggers.
///
/// Refused, with nothing changed: virtual tables and SQLite's own, tables whose columns differ from the snapshot's, and
/// a result with orphan rows that neither the target had before nor the snapshot (`orphans_at_snapshot`).
pub(crate) fn restore_tables(
    target: &mut LiveTarget,
    image: &Path,
    tables: &[&Table],
    orphans_at_snapshot: &[OrphanRows],
    overwrite: Overwrite,
    expect_unchanged: bool,
) -> Result<Vec<TableCheck>> {
    require_restorable(target, image, tables, overwrite)?;
    attach(&target.connection, image)?;
    target.let_writers_in()?;
    let target = &*target;
    let connection = &target.connection;
    let failed = |error| explain(error, "cannot restore the tables; nothing was changed");
    // Rows that break a CHECK constraint did so when they were saved, and must match their digests.
    connection.execute_batch("PRAGMA ignore_check_constraints = ON; BEGIN IMMEDIATE").map_err(failed)?;
    if expect_unchanged {
        target.require_unchanged()?;
    }
    let before = health::orphans(connection, None).ok();
    if before.is_none() {
        tracing::warn!(
            "the target's foreign keys cannot be checked, so references to the restored tables are not checked"
        );
    }
    let mut checks = Vec::new();
    for table in tables {
        crate::platform::interrupt::check()?;
        restore_table(connection, table, overwrite)?;
        let found = survey::survey_table(connection, &table.name, &table.kind, OnDamage::Fail)?;
        checks.extend(survey::compare(&[(*table).clone()], &[found]));
    }
    survey::require_all(&checks)?;
    if let Some(mut allowed) = before {
        let is_restored = |orphan: &&OrphanRows| tables.iter().any(|table| table.name == orphan.table);
        allowed.extend(orphans_at_snapshot.iter().filter(is_restored).cloned());
        let now = health::orphans(connection, None).map_err(failed)?;
        if let Some(first) = health::new_orphans(&allowed, &now).first() {
            return Err(Error::failed(format!(
                "restoring these tables alone would break references: {first}; nothing was changed"
            ))
            .hint("also name those tables with --table, or restore the whole database"));
        }
    }
    connection.execute_batch("COMMIT").map_err(failed)?;
    detach(connection)?;
    Ok(checks)
}

const RESTORE_WHOLE: &str = "restore the whole snapshot to a new path, and copy the table from there";

fn attach(connection: &Connection, image: &Path) -> Result<()> {
    let uri = format!("file:{}?immutable=1", percent_encode(path_bytes(image), NON_ALPHANUMERIC));
    let attached = connection.execute("ATTACH ?1 AS lifeboat_image", [uri]);
    attached.map(drop).map_err(|error| explain(error, "cannot attach the restored image; nothing was changed"))
}

fn detach(connection: &Connection) -> Result<()> {
    connection
        .execute_batch("DETACH lifeboat_image")
        .map_err(|error| explain(error, "cannot detach the restored image"))
}

fn path_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

/// The state of a table's name in the target.
enum Place {
    /// No table or view has this name.
    Free,
    /// A table with the same columns has this name.
    Taken,
}

/// Checks whether a table can be restored under its name; fails if not.
fn require_target(connection: &Connection, table: &Table, overwrite: Overwrite) -> Result<Place> {
    let shown = one_line(&table.name);
    let failed = |error| explain(error, &format!("cannot read the table {shown}; nothing was changed"));
    let sql = "SELECT type FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE AND type <> 'trigger'";
    let found: Option<String> =
        connection.query_row(sql, [Name::of(&table.name)], |row| row.get(0)).optional().map_err(failed)?;
    match found.as_deref() {
        None => return Ok(Place::Free),
        Some("table") => {}
        Some(other) => {
            return Err(Error::usage(format!(
                "{shown} is a table in the snapshot, but a {other} in the target; nothing was changed"
            ))
            .hint(RESTORE_WHOLE));
        }
    }
    let columns = survey::columns(connection, &table.name).map_err(failed)?;
    if match_columns(table, &columns) != Match::Same
        || has_rowids(connection, "main", table)? != has_rowids(connection, "lifeboat_image", table)?
    {
        return Err(Error::usage(format!(
            "the columns of the table {shown} differ from the columns in the snapshot; nothing was changed"
        ))
        .hint(RESTORE_WHOLE));
    }
    let any = [b"SELECT 1 FROM main.", &quote(&table.name)[..], b" LIMIT 1"].concat();
    let has_rows = Rows::query(connection, &any).and_then(|mut rows| rows.step()).map_err(failed)?;
    if has_rows && overwrite == Overwrite::Refuse {
        return Err(Error::usage(format!("the table {shown} has rows; nothing was changed"))
            .hint("replace them with --replace"));
    }
    Ok(Place::Taken)
}

fn has_rowids(connection: &Connection, schema: &str, table: &Table) -> Result<bool> {
    let sql = "SELECT NOT wr FROM pragma_table_list WHERE schema = ?1 AND name = ?2 COLLATE NOCASE";
    let found = connection.query_row(sql, (schema, Name::of(&table.name)), |row| row.get(0));
    found.map_err(|error| explain(error, &format!("cannot read the table {}", one_line(&table.name))))
}

fn restore_table(connection: &Connection, table: &Table, overwrite: Overwrite) -> Result<()> {
    let failed =
        |error| explain(error, &format!("cannot restore the table {}; nothing was changed", one_line(&table.name)));
    let name = quote(&table.name);
    let place = require_target(connection, table, overwrite)?;
    match place {
        Place::Free => {
            let sql = "SELECT sql FROM lifeboat_image.sqlite_schema WHERE type = 'table' AND name = ?1";
            create(connection, sql, table)?;
        }
        Place::Taken => {
            rows::run(connection, &[b"DELETE FROM main.", &name[..]].concat()).map_err(failed)?;
        }
    }
    let mut columns: Vec<Vec<u8>> =
        table.columns.iter().filter(|column| !column.generated).map(|column| quote(&column.name)).collect();
    // Rowids that are not declared are kept too: full-text indexes and programs may refer to them.
    let taken = |name: &&str| table.columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    if has_rowids(connection, "lifeboat_image", table)?
        && let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name))
    {
        columns.insert(0, rowid.as_bytes().to_vec());
    }
    let columns = columns.join(&b", "[..]);
    let copy = [
        b"INSERT INTO main.",
        &name[..],
        b" (",
        &columns,
        b") SELECT ",
        &columns,
        b" FROM lifeboat_image.",
        &name,
        b" NOT INDEXED",
    ];
    rows::run(connection, &copy.concat()).map_err(failed)?;
    restore_sequence(connection, &table.name).map_err(failed)?;
    if matches!(place, Place::Free) {
        let sql = "SELECT sql FROM lifeboat_image.sqlite_schema \
                   WHERE tbl_name = ?1 COLLATE NOCASE AND type IN ('index', 'trigger') AND sql IS NOT NULL";
        create(connection, sql, table)?;
    }
    Ok(())
}

/// Runs the statements that a query on the image's schema returns for a table.
fn create(connection: &Connection, sql: &str, table: &Table) -> Result<()> {
    let failed =
        |error| explain(error, &format!("cannot restore the table {}; nothing was changed", one_line(&table.name)));
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let bytes = |row: &Row<'_>| Ok(row.get_ref(0)?.as_bytes()?.to_vec());
    let statements: Vec<Vec<u8>> =
        statement.query_map([Name::of(&table.name)], bytes).and_then(Iterator::collect).map_err(failed)?;
    with_old_strings(connection, || {
        statements.iter().try_for_each(|statement| rows::run(connection, statement).map_err(failed))
    })
}

/// Moves an AUTOINCREMENT counter forward to the snapshot's value, never backwards.
fn restore_sequence(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let has = |schema: &str| {
        let sql = format!("SELECT 1 FROM {schema}.sqlite_schema WHERE name = 'sqlite_sequence'");
        connection.query_row(&sql, [], |_| Ok(())).optional().map(|found| found.is_some())
    };
    if !has("lifeboat_image")? || !has("main")? {
        return Ok(());
    }
    let sql = "SELECT seq FROM lifeboat_image.sqlite_sequence WHERE name = ?1";
    let Some(sequence) = connection.query_row(sql, [Name::of(table)], |row| row.get::<_, i64>(0)).optional()? else {
        return Ok(());
    };
    let changed = connection
        .execute("UPDATE main.sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1", (Name::of(table), sequence))?;
    if changed == 0 {
        connection
            .execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (?1, ?2)", (Name::of(table), sequence))?;
    }
    Ok(())
}
