//! Writes one table of an image as text: SQL that recreates it, or CSV.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use super::connection::{self, Purpose, explain};
use super::names::bytes_of;
use super::rows::Cell;
use super::sql_dump::{self, each_row, write_hex, write_quoted};
use super::survey;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::scratch::ScratchFolder;

/// The format of a dumped table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpFormat {
    /// CREATE, INSERT, indexes and triggers, in one transaction; `sqlite3 NEW.db < FILE` loads it. Keeps every value, the
    /// rowids and the AUTOINCREMENT counter.
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
///
/// SQL is first loaded into a database in `scratch`, and is written to `out` only if that has the same rows.
pub(crate) fn dump_table(
    path: &Path,
    table: &str,
    format: DumpFormat,
    scratch: &ScratchFolder,
    out: &mut dyn Write,
) -> Result<u64> {
    let connection = connection::open(path, Purpose::Image)?;
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    let tables = survey::list_tables(&connection).map_err(failed)?;
    let found = tables.iter().find(|(name, _)| name == table);
    let found = found.or_else(|| tables.iter().find(|(name, _)| name.eq_ignore_ascii_case(table)));
    let Some((name, kind)) = found else {
        let views = survey::list_views(&connection).map_err(failed)?;
        return Err(survey::no_such_table("the snapshot", table, &views, "lifeboat show"));
    };
    match format {
        DumpFormat::Sql => {
            let (mut sql, rows) = sql_dump::write(&connection, name, kind, scratch)?;
            std::io::copy(&mut sql, out)?;
            Ok(rows)
        }
        DumpFormat::Csv => {
            let columns = survey::columns(&connection, name).map_err(failed)?;
            let query = survey::select(columns.iter().map(|column| column.name.as_str()), name, kind);
            for (index, column) in columns.iter().enumerate() {
                let comma: &[u8] = if index > 0 { b"," } else { b"" };
                out.write_all(comma)?;
                csv_text(&bytes_of(&column.name), out)?;
            }
            out.write_all(b"\r\n")?;
            // Many rows have few bytes.
            let mut out = BufWriter::with_capacity(1 << 16, out);
            let count = each_row(&connection, name, &query, &mut |values| {
                for (index, value) in values.iter().enumerate() {
                    let comma: &[u8] = if index > 0 { b"," } else { b"" };
                    out.write_all(comma)?;
                    csv_cell(*value, &mut out)?;
                }
                out.write_all(b"\r\n")?;
                Ok(())
            })?;
            out.flush()?;
            Ok(count)
        }
    }
}

fn csv_cell(value: Cell<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match value {
        Cell::Null => Ok(()),
        Cell::Integer(number) => write!(out, "{number}"),
        Cell::Real(number) => write!(out, "{number:?}"),
        Cell::Text([]) => out.write_all(b"\"\""),
        Cell::Text(bytes) => csv_text(bytes, out),
        Cell::Blob(bytes) => write_hex(bytes, out),
    }
}

/// Quotes a text where CSV requires it. Its bytes stay as they are, also if they are not UTF-8.
fn csv_text(text: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    if !text.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        return out.write_all(text);
    }
    write_quoted(text, b'"', out)
}
