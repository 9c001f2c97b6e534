//! Writes one table of an image as text: SQL that recreates it, or CSV.

use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use super::connection::{self, Purpose, explain};
use super::names::bytes_of;
use super::rows::Cell;
use super::sql_dump::{self, each_row};
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
            let heading: Vec<Vec<u8>> = columns.iter().map(|column| csv_text(&bytes_of(&column.name))).collect();
            out.write_all(&[&heading.join(&b","[..])[..], b"\r\n"].concat())?;
            each_row(&connection, name, &query, &mut |values| {
                let cells: Vec<Vec<u8>> = values.iter().map(|value| csv_cell(*value)).collect();
                out.write_all(&[&cells.join(&b","[..])[..], b"\r\n"].concat())?;
                Ok(())
            })
        }
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
