//! Counts and hashes the rows of every table in one state of a database.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::connection::{self, Purpose, explain, is_circumstance, is_damage, quote, sqlite_message};
use super::rows::Rows;
use crate::platform::digest::{RowDigest, RowEncoder};
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::{Column, Table};

/// The handling of damage that is found while rows are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// It fails the survey.
    Fail,
    /// It is noted as the reason why a table has no digest.
    Note,
}

/// The tables of a database and its schema, counted and hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Every table but `sqlite_schema`, by name.
    pub tables: Vec<Table>,
    /// The digest of type, name, table and SQL of every object in the schema.
    pub schema_digest: Option<RowDigest>,
}

impl Survey {
    /// Returns the number of rows in all tables that store rows themselves. A virtual table shows the rows of its
    /// shadow tables, and SQLite's own tables (counters, statistics) can keep rows when all others are gone; neither is
    /// counted.
    #[must_use]
    pub(crate) fn rows(&self) -> u64 {
        let own = |table: &&Table| table.kind != "virtual" && !table.name.starts_with("sqlite_");
        self.tables.iter().filter(own).filter_map(|table| table.rows).sum()
    }
}

/// Surveys the current state of a database in one read transaction.
pub(crate) fn survey_live(path: &Path, on_damage: OnDamage) -> Result<Survey> {
    let connection = connection::open(path, Purpose::Source)?;
    connection.execute_batch("BEGIN").map_err(|error| explain(error, "cannot start a read transaction"))?;
    survey(&connection, on_damage)
}

/// Surveys a database table by table, so that nobody waits for long. The caller must find out whether others wrote
/// meanwhile.
pub(crate) fn survey_in_pieces(path: &Path) -> Result<Survey> {
    survey(&connection::open(path, Purpose::Source)?, OnDamage::Note)
}

/// Surveys `main` of a connection that is in a read transaction, or that is the only one.
pub(super) fn survey(connection: &Connection, on_damage: OnDamage) -> Result<Survey> {
    let mut tables = Vec::new();
    let list = match list_tables(connection) {
        Ok(list) => list,
        Err(error) if on_damage == OnDamage::Note && is_damage(&error) => Vec::new(),
        Err(error) => return Err(explain(error, "cannot read the schema")),
    };
    for (name, kind) in list {
        crate::platform::interrupt::check()?;
        tables.push(survey_table(connection, &name, &kind, on_damage)?);
    }
    let schema = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema";
    let schema_digest = match digest(connection, schema) {
        Ok((_, _, digest)) => Some(digest),
        Err(error) if on_damage == OnDamage::Note && is_damage(&error) => None,
        Err(error) => return Err(explain(error, "cannot read the schema")),
    };
    Ok(Survey { tables, schema_digest })
}

/// Lists names and kinds (`table`, `virtual`, `shadow`) of all tables in `main`, by name.
pub(super) fn list_tables(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT name, type FROM pragma_table_list WHERE schema = 'main' \
               AND type IN ('table', 'virtual', 'shadow') AND name NOT IN ('sqlite_schema', 'sqlite_master') ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let text = |row: &Row<'_>, column| row.get_ref(column).map(|value| text_of(value));
    statement.query_map([], |row| Ok((text(row, 0)?, text(row, 1)?)))?.collect()
}

fn text_of(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    }
}

/// Returns the columns of a table, without the hidden columns of a virtual table.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection
        .prepare("SELECT name, type, hidden FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid")?;
    let rows = statement.query_map([table], |row| {
        let hidden: i64 = row.get(2)?;
        Ok(Column {
            name: text_of(row.get_ref(0)?),
            declared: text_of(row.get_ref(1)?),
            generated: hidden != 0,
            not_null: false,
        })
    })?;
    rows.collect()
}

/// Counts and hashes one table of `main`.
pub(super) fn survey_table(connection: &Connection, name: &str, kind: &str, on_damage: OnDamage) -> Result<Table> {
    let mut table = Table {
        relation: None,
        name: name.to_owned(),
        rows: None,
        bytes: None,
        digest: None,
        reason: None,
        kind: kind.to_owned(),
        columns: Vec::new(),
    };
    let read = || {
        let columns = columns(connection, name)?;
        let own: Vec<String> =
            columns.iter().filter(|column| !column.generated).map(|column| quote(&column.name)).collect();
        // Reads the table itself, never an index that happens to cover all its columns: the two may disagree.
        let hint = if kind == "virtual" { "" } else { " NOT INDEXED" };
        let sql = format!("SELECT {} FROM main.{}{hint}", own.join(", "), quote(name));
        Ok((columns, digest(connection, &sql)?))
    };
    match read() {
        Ok((columns, (rows, bytes, digest))) => {
            table.columns = columns;
            (table.rows, table.bytes, table.digest) = (Some(rows), Some(bytes), Some(digest));
        }
        Err(error) => {
            let message = || format!("cannot read the table {}", one_line(name));
            if is_circumstance(&error) || (is_damage(&error) && on_damage == OnDamage::Fail) {
                return Err(explain(error, &message()));
            }
            table.reason = Some(one_line(&sqlite_message(&error)));
            table.columns = columns(connection, name).unwrap_or_default();
            let count = format!("SELECT count(*) FROM main.{}", quote(name));
            table.rows = connection.query_row(&count, [], |row| row.get::<_, i64>(0)).ok().map(i64::unsigned_abs);
        }
    }
    Ok(table)
}

/// Returns the rows, bytes and digest of a query's result.
fn digest(connection: &Connection, sql: &str) -> rusqlite::Result<(u64, u64, RowDigest)> {
    let mut rows = Rows::query(connection, sql)?;
    let (mut count, mut bytes, mut digest) = (0u64, 0u64, RowDigest::default());
    let mut encoder = RowEncoder::default();
    while rows.next(&mut encoder)? {
        digest.add(encoder.encoded());
        bytes += encoder.payload_bytes();
        count += 1;
    }
    Ok((count, bytes, digest))
}

/// The result of checking one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableCheck {
    /// The name of the table.
    pub name: String,
    /// The number of rows found; `None` if the table cannot be read.
    pub rows: Option<u64>,
    /// True if the table is as in the manifest, as far as it could be compared.
    pub ok: bool,
    /// True if its rows could be hashed, and so compared.
    pub compared: bool,
}

/// Compares the tables found with those of a manifest, digest by digest. A table that only one side has is not ok.
#[must_use]
pub(crate) fn compare(expected: &[Table], found: &[Table]) -> Vec<TableCheck> {
    let mut checks: Vec<TableCheck> = expected
        .iter()
        .map(|table| {
            let counterpart = found.iter().find(|other| other.name == table.name);
            let same = |other: &Table| {
                other.rows == table.rows && other.digest == table.digest && other.columns == table.columns
            };
            TableCheck {
                name: table.name.clone(),
                rows: counterpart.and_then(|other| other.rows),
                ok: counterpart.is_some_and(same),
                compared: table.digest.is_some(),
            }
        })
        .collect();
    let extra = found.iter().filter(|other| !expected.iter().any(|table| table.name == other.name));
    checks.extend(extra.map(|other| TableCheck {
        name: other.name.clone(),
        rows: other.rows,
        ok: false,
        compared: true,
    }));
    checks
}

/// Fails with the names of the tables that are not as expected.
pub(crate) fn require_all(checks: &[TableCheck]) -> Result<()> {
    let wrong: Vec<String> = checks.iter().filter(|check| !check.ok).map(|check| one_line(&check.name)).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::problem(format!("rows differ from the rows in the snapshot in: {}", wrong.join(", "))))
    }
}
