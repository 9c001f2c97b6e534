//! Writes one table of an image as text: SQL that recreates it, or CSV.

use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};

use super::connection::{self, Purpose, explain, quote};
use super::survey;
use crate::platform::error::{Error, Result, one_line};

/// The format of a dumped table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpFormat {
    /// CREATE, INSERT, indexes and triggers, in one transaction; `sqlite3 NEW.db < FILE` loads it. Keeps every value. A
    /// rowid that is not stored in a column is not kept.
    Sql,
    /// A header line and one line per row (RFC 4180). NULL is an empty field, an empty text is `""`, a blob is
    /// hexadecimal.
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
    let sql = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
    let found: Option<(String, Option<String>)> =
        connection.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?))).optional().map_err(failed)?;
    let (name, create) = found.ok_or_else(|| {
        Error::usage(format!("the snapshot has no table {}", one_line(table))).hint("'lifeboat show' lists its tables")
    })?;
    let columns = survey::columns(&connection, &name).map_err(failed)?;
    let own: Vec<&str> = columns
        .iter()
        .filter(|column| !column.generated || format == DumpFormat::Csv)
        .map(|column| column.name.as_str())
        .collect();
    let list: Vec<String> = own.iter().map(|name| quote(name)).collect();
    match format {
        DumpFormat::Sql => {
            writeln!(out, "PRAGMA foreign_keys=OFF;\nBEGIN;\n{};", create.unwrap_or_default())?;
            let start = format!("INSERT INTO {} ({}) VALUES (", quote(&name), list.join(","));
            let rows = each_row(&connection, &name, &list, &mut |values| {
                out.write_all(start.as_bytes())?;
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.write_all(b",")?;
                    }
                    literal(*value, out)?;
                }
                out.write_all(b");\n")
            })?;
            let sql = "SELECT sql FROM main.sqlite_schema WHERE tbl_name = ?1 AND type IN ('index', 'trigger') AND sql IS NOT NULL";
            let mut statement = connection.prepare(sql).map_err(failed)?;
            let extras: Vec<String> =
                statement.query_map([&name], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)?;
            for extra in extras {
                writeln!(out, "{extra};")?;
            }
            writeln!(out, "COMMIT;")?;
            Ok(rows)
        }
        DumpFormat::Csv => {
            let heading: Vec<String> = own.iter().map(|name| csv_text(name)).collect();
            write!(out, "{}\r\n", heading.join(","))?;
            each_row(&connection, &name, &list, &mut |values| {
                let cells: Vec<String> = values.iter().map(|value| csv_cell(*value)).collect();
                write!(out, "{}\r\n", cells.join(","))
            })
        }
    }
}

fn each_row(
    connection: &Connection,
    table: &str,
    columns: &[String],
    visit: &mut dyn FnMut(&[ValueRef<'_>]) -> std::io::Result<()>,
) -> Result<u64> {
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    let mut statement =
        connection.prepare(&format!("SELECT {} FROM main.{}", columns.join(","), quote(table))).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut count = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        let values =
            (0..columns.len()).map(|index| row.get_ref(index)).collect::<rusqlite::Result<Vec<_>>>().map_err(failed)?;
        visit(&values)?;
        count += 1;
    }
    Ok(count)
}

fn literal(value: ValueRef<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match value {
        ValueRef::Null => out.write_all(b"NULL"),
        ValueRef::Integer(number) => write!(out, "{number}"),
        ValueRef::Real(number) if number.is_infinite() => {
            out.write_all(if number > 0.0 { b"9e999" } else { b"-9e999" })
        }
        // The shortest text that reads back as the same number.
        ValueRef::Real(number) => write!(out, "{number:?}"),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => write!(out, "'{}'", text.replace('\'', "''")),
            _ => write!(out, "CAST(x'{}' AS TEXT)", hex::encode(bytes)),
        },
        ValueRef::Blob(bytes) => write!(out, "x'{}'", hex::encode(bytes)),
    }
}

fn csv_cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text([]) => "\"\"".to_owned(),
        ValueRef::Text(bytes) => csv_text(&String::from_utf8_lossy(bytes)),
        ValueRef::Blob(bytes) => hex::encode(bytes),
    }
}

fn csv_text(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
