//! Counts the rows of a file whose values of types that only the server reads are refused by it, or not held exactly.

use std::path::Path;

use super::convert::{Converter, Kind};
use super::ddl;
use super::notation::{self, ServerType};
use super::plan::{Plan, TablePlan};
use super::profile::shown;
use crate::engine::postgres::wire::session::Session;
use crate::engine::sqlite::values::{Cell, Reader};
use crate::platform::error::{Result, one_line};
use crate::platform::interrupt;

/// The rows of a table that will be rejected for such values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused {
    /// The number of rows; those that are rejected for another value are left out.
    pub rows: u64,
    /// A remark for each column with such values, with the number of the column.
    pub remarks: Vec<(usize, String)>,
}

/// The number of rows that are tried at once.
const BATCH: usize = 1000;

/// A column of such a type.
struct Column {
    number: usize,
    server_type: ServerType,
    /// The values of the batch; `None` is NULL.
    texts: Vec<Option<String>>,
    values: u64,
    example: Option<String>,
}

/// Counts the rows of a table.
pub(crate) fn count(session: &mut Session, plan: &Plan, table: &TablePlan, path: &Path) -> Result<Refused> {
    let mut columns = Vec::new();
    for (number, column) in table.columns.iter().enumerate() {
        if Kind::parse(&column.target_type)? == Kind::Other {
            let server_type = ServerType::read(session, &column.target_type)?;
            columns.push(Column { number, server_type, texts: Vec::new(), values: 0, example: None });
        }
    }
    let reader = Reader::open(path)?;
    let facts = reader.schema()?.tables.into_iter().find(|facts| facts.name == table.source);
    let Some(facts) = facts.filter(|_| !columns.is_empty()) else { return Ok(Refused::default()) };
    let mut converters = Vec::new();
    for column in &table.columns {
        let place = facts.columns.iter().position(|one| one.name == column.source);
        let Some(place) = place else { return Ok(Refused::default()) };
        converters.push((place, Converter::new(column, plan.zone, ddl::refuses_null(table, column))?));
    }
    let (mut rows, mut refused, mut rowids, mut scratch) = (reader.rows(&facts, None)?, 0, Vec::new(), Vec::new());
    loop {
        let has_row = rows.step()?;
        if has_row {
            scratch.clear();
            let mut is_converted = true;
            for (place, converter) in &converters {
                is_converted &= converter.write(rows.cell(*place)?, &mut scratch).is_ok();
            }
            if !is_converted {
                continue;
            }
            rowids.push(rows.rowid()?);
            for column in &mut columns {
                column.texts.push(text_of(rows.cell(converters[column.number].0)?));
            }
        }
        if rowids.len() == BATCH || !has_row {
            interrupt::check()?;
            refused += try_batch(session, &mut columns, &rowids)?;
            rowids.clear();
        }
        if !has_row {
            break;
        }
    }
    let remark = |column: &Column| {
        let example = column.example.clone()?;
        let reason = notation::not_held(&table.columns[column.number].target_type);
        let values = column.values;
        Some((
            column.number,
            format!("{values} values do not fit the type, so their rows are rejected: {example}, {reason}"),
        ))
    };
    Ok(Refused { rows: refused, remarks: columns.iter().filter_map(remark).collect() })
}

/// Tries the values of a batch, and returns the number of rows with one that does not fit.
fn try_batch(session: &mut Session, columns: &mut [Column], rowids: &[Option<i64>]) -> Result<u64> {
    let mut fits = vec![true; rowids.len()];
    for column in columns {
        let texts: Vec<&str> = column.texts.iter().flatten().map(String::as_str).collect();
        let mut held = column.server_type.held(session, &texts)?.into_iter();
        for (row, text) in column.texts.iter().enumerate() {
            let Some(text) = text else { continue };
            if held.next().flatten().is_some() {
                continue;
            }
            (fits[row], column.values) = (false, column.values + 1);
            let place = rowids[row].map_or(String::new(), |rowid| format!("row {rowid}: "));
            column.example.get_or_insert_with(|| format!("{place}{}", one_line(&shown(Cell::Text(text.as_bytes())))));
        }
        column.texts.clear();
    }
    Ok(fits.iter().filter(|fits| !**fits).count() as u64)
}

/// Returns a value as the text that the server reads.
fn text_of(cell: Cell<'_>) -> Option<String> {
    match cell {
        Cell::Null => None,
        Cell::Integer(number) => Some(number.to_string()),
        Cell::Real(number) => Some(format!("{number:?}")),
        Cell::Text(bytes) | Cell::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}
