//! Writes one table of an image as text: SQL that recreates it, or CSV.

use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::connection::{self, Purpose, explain};
use super::names::{Name, bytes_of, quote};
use super::rows::{Cell, Rows};
use super::survey;
use crate::platform::error::{Error, Result, one_line};

/// The format of a dumped table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpFormat {
    /// CREATE, INSERT, indexes and triggers, in one transaction; `sqlite3 NEW.db < FILE` loads it. Keeps every value. A
    /// rowid that is not stored in a column is not kept.
    Sql,
    /// A header line and one line per row (RFC 4180). NULL is an empty field, an empty text is `""`, a blob is
    /// hexadecimal. Bytes that are not UTF-8 stay as they are.
    Csv,
}

impl FromStr for DumpFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sql" => Ok(DumpFormat::Sql),
            "csv" => Ok(DumpFormat::Csv),
            _ => Err(Error::usage(format!("unknown format '{}'", one_line(text))).hint("use sql or csv")),
        }
    }
}

/// Writes a table of the image at `path`; its name may differ in case. Returns the number of rows.
pub(crate) fn dump_table(path: &Path, table: &str, format: DumpFormat, out: &mut dyn Write) -> Result<u64> {
    let connection = connection::open(path, Purpose::Image)?;
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    let tables = survey::list_tables(&connection).map_err(failed)?;
    let found = tables.iter().find(|(name, _)| name == table);
    let found = found.or_else(|| tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)));
    let Some((name, kind)) = found else {
        let views = survey::list_views(&connection).map_err(failed)?;
        return Err(survey::no_such_table("the snapshot", table, &views, "lifeboat show"));
    };
    let columns = survey::columns(&connection, name).map_err(failed)?;
    let own: Vec<&str> = columns
        .iter()
        .filter(|column| !column.generated || format == DumpFormat::Csv)
        .map(|column| column.name.as_str())
        .collect();
    let query = survey::select(own.iter().copied(), name, kind);
    match format {
        DumpFormat::Sql => {
            let sql = "SELECT sql FROM main.sqlite_schema WHERE name = ?1 AND type = 'table'";
            out.write_all(b"PRAGMA foreign_keys=OFF;\nBEGIN;\n")?;
            write_statements(&connection, sql, name, out)?;
            let list: Vec<Vec<u8>> = own.iter().map(|name| quote(name)).collect();
            let start = [b"INSERT INTO ", &quote(name)[..], b" (", &list.join(&b","[..]), b") VALUES ("].concat();
            let rows = each_row(&connection, name, &query, &mut |values| {
                out.write_all(&start)?;
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.write_all(b",")?;
                    }
                    literal(*value, out)?;
                }
                out.write_all(b");\n")
            })?;
            let sql = "SELECT sql FROM main.sqlite_schema WHERE tbl_name = ?1 AND type IN ('index', 'trigger')";
            write_statements(&connection, sql, name, out)?;
            writeln!(out, "COMMIT;")?;
            Ok(rows)
        }
        DumpFormat::Csv => {
            let heading: Vec<Vec<u8>> = own.iter().map(|name| csv_text(&bytes_of(name))).collect();
            out.write_all(&[&heading.join(&b","[..])[..], b"\r\n"].concat())?;
            each_row(&connection, name, &query, &mut |values| {
                let cells: Vec<Vec<u8>> = values.iter().map(|value| csv_cell(*value)).collect();
                out.write_all(&[&cells.join(&b","[..])[..], b"\r\n"].concat())
            })
        }
    }
}

/// Writes the statements that a query on the schema returns for a table.
fn write_statements(connection: &Connection, sql: &str, table: &str, out: &mut dyn Write) -> Result<()> {
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    let mut query = connection.prepare(sql).map_err(failed)?;
    let mut rows = query.query([Name::of(table)]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let ValueRef::Text(statement) = row.get_ref(0).map_err(failed)? else { continue };
        out.write_all(statement)?;
        // A comment at the end of a statement extends to the end of its line.
        let last_line = statement.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let has_comment = last_line.windows(2).any(|pair| pair == b"--");
        out.write_all(if has_comment { b"\n;\n" } else { b";\n" })?;
    }
    Ok(())
}

fn each_row(
    connection: &Connection,
    table: &str,
    query: &[u8],
    visit: &mut dyn FnMut(&[Cell<'_>]) -> std::io::Result<()>,
) -> Result<u64> {
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    let mut rows = Rows::query(connection, query).map_err(failed)?;
    let mut count = 0;
    while rows.step().map_err(failed)? {
        let values = (0..rows.columns()).map(|column| rows.cell(column)).collect::<rusqlite::Result<Vec<_>>>();
        visit(&values.map_err(failed)?)?;
        count += 1;
    }
    Ok(count)
}

fn literal(value: Cell<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match value {
        Cell::Null => out.write_all(b"NULL"),
        Cell::Integer(number) => write!(out, "{number}"),
        Cell::Real(number) if number.is_infinite() => out.write_all(if number > 0.0 { b"9e999" } else { b"-9e999" }),
        // The shortest text that reads back as the same number.
        Cell::Real(number) => write!(out, "{number:?}"),
        Cell::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => write!(out, "'{}'", text.replace('\'', "''")),
            _ => write!(out, "CAST(x'{}' AS TEXT)", hex::encode(bytes)),
        },
        Cell::Blob(bytes) => write!(out, "x'{}'", hex::encode(bytes)),
    }
}

fn csv_cell(value: Cell<'_>) -> Vec<u8> {
    match value {
        Cell::Null => Vec::new(),
        Cell::Integer(number) => number.to_string().into_bytes(),
        Cell::Real(number) => format!("{number:?}").into_bytes(),
        Cell::Text([]) => b"\"\"".to_vec(),
        Cell::Text(bytes) => csv_text(bytes),
        Cell::Blob(bytes) => hex::encode(bytes).into_bytes(),
    }
}

/// Quotes a text where CSV requires it. Its bytes stay as they are, also if they are not UTF-8.
fn csv_text(text: &[u8]) -> Vec<u8> {
    if !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        return text.to_vec();
    }
    let mut quoted = vec![b'"'];
    for byte in text {
        if *byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    quoted
}
