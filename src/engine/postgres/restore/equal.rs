//! Compares the rows of a restored table with those that were saved.

use crate::engine::postgres::copy::rows::RowSum;
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Table;

/// Fails if the rows of a table differ from those that were saved.
pub(super) fn require_equal(table: &Table, found: &RowSum) -> Result<()> {
    if table.rows == Some(found.rows) && table.digest == Some(found.digest) {
        return require_equal_generated(table, found.with_generated);
    }
    let name = one_line(&table.name);
    Err(match table.rows {
        Some(rows) if rows != found.rows => {
            Error::problem(format!("the table {name} has {} rows, but {rows} were saved", found.rows))
        }
        _ => Error::problem(format!(
            "the rows of the table {name} differ from those that were saved: the digest does not match"
        )),
    })
}

/// Fails if the generated columns of a table have other values than those that were saved.
pub(super) fn require_equal_generated(saved: &Table, found: Option<RowDigest>) -> Result<()> {
    match (&saved.with_generated, found) {
        (Some(expected), Some(found)) if expected.digest != found => {
            let (name, columns) = (one_line(&saved.name), one_line(&expected.columns.join(", ")));
            let noun = if expected.columns.len() == 1 { "column" } else { "columns" };
            Err(Error::problem(format!(
                "the generated {noun} {columns} of the table {name} differ from those that were saved: the server \
                 computes other values"
            ))
            .hint(
                "its expression gives other values now: a function was changed after the rows were written, reads other \
                 tables, or depends on settings or the version of the server; restore with --allow-partial to accept that",
            ))
        }
        _ => Ok(()),
    }
}
