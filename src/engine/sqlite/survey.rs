//! Counts and hashes the rows of every table in one state of a database.

use std::path::Path;

use rusqlite::Connection;

use super::connection::{self, Purpose, explain, is_circumstance, is_damage, sqlite_message};
use super::derived;
use super::names::{Match, Name, match_columns, match_names, name_at, quote};
use super::reading::Reading;
use super::rows::{self, Rows};
use crate::platform::digest::{RowDigest, RowHasher};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::scratch::Scratch;
use crate::snapshots::manifest::{Column, Table, by_name};
use crate::snapshots::row_counts::stored_rows;

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
    /// The names of the views.
    pub views: Vec<String>,
    /// The digest of type, name, table and SQL of every object in the schema.
    pub schema_digest: Option<RowDigest>,
}

impl Survey {
    /// Returns the total that manifests record. A virtual table shows the rows of its shadow tables, and SQLite's own
    /// tables (counters, statistics) can keep rows when all others are gone; neither is counted.
    #[must_use]
    pub(crate) fn rows(&self) -> u64 {
        stored_rows(&self.tables)
    }
}

/// Surveys the current state of a database in one read transaction.
pub(crate) fn survey_live(path: &Path, on_damage: OnDamage, scratch: &Scratch) -> Result<Survey> {
    let reading = Reading::begin(path, scratch)?;
    let connection = reading.open()?;
    connection.execute_batch("BEGIN").map_err(|error| explain(error, "cannot start a read transaction"))?;
    let survey = survey(&connection, on_damage)?;
    reading.require_unchanged().map(|()| survey)
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
    // The schema of a damaged database may be readable only in part.
    let contents = derived::external_contents(connection).unwrap_or_default();
    for (name, kind) in list {
        crate::platform::interrupt::check()?;
        let content = contents.get(&name).cloned();
        tables.push(Table { content, ..survey_table(connection, &name, &kind, on_damage)? });
    }
    let schema_digest = match digest(connection, b"SELECT type, name, tbl_name, sql FROM main.sqlite_schema") {
        Ok((_, _, digest)) => Some(digest),
        Err(error) if on_damage == OnDamage::Note && is_damage(&error) => None,
        Err(error) => return Err(explain(error, "cannot read the schema")),
    };
    let views = match list_views(connection) {
        Ok(views) => views,
        Err(error) if on_damage == OnDamage::Note && is_damage(&error) => Vec::new(),
        Err(error) => return Err(explain(error, "cannot read the schema")),
    };
    Ok(Survey { tables, views, schema_digest })
}

/// Lists names and kinds (`table`, `virtual`, `shadow`) of all tables in `main`, by name.
pub(super) fn list_tables(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = "SELECT name, type FROM pragma_table_list WHERE schema = 'main' \
               AND type IN ('table', 'virtual', 'shadow') AND name NOT IN ('sqlite_schema', 'sqlite_master') ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    statement.query_map([], |row| Ok((name_at(row, 0)?, name_at(row, 1)?)))?.collect()
}

/// Lists the names of all views in `main`.
pub(super) fn list_views(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM main.sqlite_schema WHERE type = 'view' ORDER BY name")?;
    statement.query_map([], |row| name_at(row, 0))?.collect()
}

/// Returns the columns of a table, without the hidden columns of a virtual table.
pub(super) fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut statement = connection
        .prepare("SELECT name, type, hidden FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid")?;
    let rows = statement.query_map([Name::of(table)], |row| {
        let hidden: i64 = row.get(2)?;
        Ok(Column { name: name_at(row, 0)?, declared: name_at(row, 1)?, generated: hidden != 0, not_null: false })
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
        with_generated: None,
        reason: None,
        kind: kind.to_owned(),
        content: None,
        columns: Vec::new(),
    };
    let read = || {
        let columns = columns(connection, name)?;
        let own = columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str());
        let digest = digest(connection, &select(own, name, kind))?;
        Ok((columns, digest))
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
            table.rows = count(connection, name, kind).ok();
        }
    }
    Ok(table)
}

/// Counts the rows of a table. If a full-text index cannot be read because its tokenizer is missing here, counts the
/// rows of the shadow table that has one row for each of its own.
pub(super) fn count(connection: &Connection, name: &str, kind: &str) -> rusqlite::Result<u64> {
    match rows::count(connection, name) {
        Err(error) if kind == "virtual" && !is_circumstance(&error) => {
            let of_shadow = |word: &str| rows::count(connection, &format!("{name}_{word}")).ok();
            ["content", "docsize"].iter().find_map(|word| of_shadow(word)).ok_or(error)
        }
        counted => counted,
    }
}

/// Returns the query that reads columns of a table of `main`: from the table itself, never from an index that happens to
/// cover them, because the two may disagree.
pub(super) fn select<'a>(columns: impl Iterator<Item = &'a str>, table: &str, kind: &str) -> Vec<u8> {
    let columns: Vec<Vec<u8>> = columns.map(quote).collect();
    let hint: &[u8] = if kind == "virtual" { b"" } else { b" NOT INDEXED" };
    [b"SELECT ", &columns.join(&b", "[..])[..], b" FROM main.", &quote(table), hint].concat()
}

/// Returns the rows, bytes and digest of a query's result.
pub(super) fn digest(connection: &Connection, sql: &[u8]) -> rusqlite::Result<(u64, u64, RowDigest)> {
    let mut rows = Rows::query(connection, sql)?;
    let (mut count, mut bytes, mut digest) = (0u64, 0u64, RowDigest::default());
    let mut hasher = RowHasher::default();
    while rows.next(&mut hasher)? {
        digest.add_hash(hasher.hash());
        bytes += hasher.payload_bytes();
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
///
/// An earlier version may not have been able to read a table that can be read now. Such a table is not compared.
#[must_use]
pub(crate) fn compare(expected: &[Table], found: &[Table]) -> Vec<TableCheck> {
    let (expected_names, found_names) = (by_name(expected), by_name(found));
    let counterpart = |table: &Table| match found_names.get(table.name.as_str()) {
        Some(found) => Some(*found),
        None => found.iter().find(|other| match_names(&table.name, &other.name) != Match::Different),
    };
    let mut checks: Vec<TableCheck> = expected
        .iter()
        .map(|table| {
            let counterpart = counterpart(table);
            let (ok, compared) = counterpart.map_or((false, false), |other| compare_table(table, other));
            TableCheck { name: table.name.clone(), rows: counterpart.and_then(|other| other.rows), ok, compared }
        })
        .collect();
    let is_expected = |other: &Table| {
        expected_names.contains_key(other.name.as_str())
            || expected.iter().any(|table| match_names(&table.name, &other.name) != Match::Different)
    };
    let extra = found.iter().filter(|other| !is_expected(other));
    checks.extend(extra.map(|other| TableCheck {
        name: other.name.clone(),
        rows: other.rows,
        ok: false,
        compared: true,
    }));
    checks
}

/// Returns whether a table is as expected, and whether its rows could be compared.
fn compare_table(expected: &Table, found: &Table) -> (bool, bool) {
    let columns = match_columns(expected, &found.columns);
    let same_rows = expected.rows == found.rows;
    match (expected.digest, columns) {
        (Some(digest), Match::Same) => (same_rows && found.digest == Some(digest), true),
        // The digest is of a constant in place of the column's values.
        (Some(_), Match::Replaced) => (same_rows && found.digest.is_some(), false),
        // Without a recorded reason, the table was readable, and its digest was taken out of the manifest.
        (None, _) if expected.reason.is_none() && found.digest.is_some() => (false, true),
        (None, _) if expected.rows.is_none() && expected.columns.is_empty() => (true, false),
        (None, Match::Same | Match::Replaced) => (same_rows || expected.rows.is_none(), false),
        (_, Match::Different) => (false, expected.digest.is_some()),
    }
}

/// Returns the error for a table that does not exist in a snapshot with these views; the command `show` lists its tables.
pub(super) fn no_such_table(snapshot: &str, table: &str, views: &[String], show: &str) -> Error {
    let shown = one_line(table);
    if !views.iter().any(|view| view.eq_ignore_ascii_case(table)) {
        return Error::usage(format!("{snapshot} has no table {shown}")).hint(format!("'{show}' lists its tables"));
    }
    Error::usage(format!("{shown} is a view in {snapshot}, not a table: a view stores no rows")).hint(
        "name the tables that the view reads, or restore the whole snapshot to a new path, and query the view there",
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, column: &str, rows: Option<u64>, digest: Option<&[u8]>) -> Table {
        let columns = if column.is_empty() { Vec::new() } else { vec![column] };
        let columns = columns.into_iter().map(|name| Column {
            name: name.to_owned(),
            declared: String::new(),
            generated: false,
            not_null: false,
        });
        let digest = digest.map(|row| {
            let mut digest = RowDigest::default();
            digest.add(row);
            digest
        });
        Table {
            relation: None,
            name: name.to_owned(),
            rows,
            bytes: None,
            digest,
            with_generated: None,
            reason: None,
            kind: "table".to_owned(),
            content: None,
            columns: columns.collect(),
        }
    }

    fn check(expected: Table, found: Table) -> (bool, bool) {
        let checks = compare(&[expected], &[found]);
        assert_eq!(checks.len(), 1, "{checks:?}");
        (checks[0].ok, checks[0].compared)
    }

    #[test]
    fn tables_of_earlier_versions_that_could_not_be_read_are_not_compared() {
        let found = table("t", "a", Some(2), Some(b"row"));
        assert_eq!(check(table("t", "a", Some(2), Some(b"row")), found.clone()), (true, true));
        assert_eq!(check(table("t", "a", Some(2), Some(b"other")), found.clone()), (false, true));
        assert_eq!(check(table("t", "b", Some(2), Some(b"row")), found.clone()), (false, true));
        let unread = |column: &str, rows: Option<u64>| Table {
            reason: Some("no such collation sequence".to_owned()),
            ..table("t", column, rows, None)
        };
        assert_eq!(check(unread("a", None), found.clone()), (true, false));
        assert_eq!(check(unread("", None), found.clone()), (true, false));
        assert_eq!(check(unread("a", Some(3)), found.clone()), (false, false));
        assert_eq!(check(unread("b", None), found.clone()), (false, false));
        // A manifest without a digest and without a reason was changed.
        assert_eq!(check(table("t", "a", Some(2), None), found), (false, true));
    }

    #[test]
    fn a_digest_of_constants_is_not_compared() {
        let found = table("Gr\\xF6", "Gr\\xF6", Some(2), Some(b"row"));
        assert_eq!(check(table("Gr\u{fffd}", "Gr\u{fffd}", Some(2), Some(b"constant")), found.clone()), (true, false));
        assert_eq!(check(table("Gr\u{fffd}", "Gr\u{fffd}", Some(3), Some(b"constant")), found.clone()), (false, false));
        assert_eq!(check(table("Gr\\xF6", "Gr\\xF6", Some(2), Some(b"constant")), found), (false, true));
    }
}
