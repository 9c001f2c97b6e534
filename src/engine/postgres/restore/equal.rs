//! Compares the rows of a restored table with those that were saved.

use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::restoring::LeftOut;
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Result, one_line};
use crate::snapshots::manifest::Table;

/// The treatment of generated columns whose values differ, although the rows themselves are those that were saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherValues {
    /// The restore fails.
    Refuse,
    /// They are named among what is left out.
    LeaveOut,
    /// A warning names them: the restore runs by itself, and must not become impossible.
    Warn,
}

impl OtherValues {
    /// Returns the object that is left out; `None` if a warning says it. Fails if the values must be equal.
    pub(super) fn accept(self, table: &str, error: Error) -> Result<Option<LeftOut>> {
        match self {
            OtherValues::Refuse => Err(error),
            OtherValues::Warn => {
                tracing::warn!("{}", error.message);
                Ok(None)
            }
            OtherValues::LeaveOut => Ok(Some(LeftOut {
                kind: "generated values".to_owned(),
                name: table.to_owned(),
                table: table.to_owned(),
                reason: error.message,
                statements: Vec::new(),
            })),
        }
    }
}

/// Fails if the rows of a table differ from those that were saved. Returns the difference if only its generated columns have
/// other values.
pub(super) fn compare_rows(table: &Table, found: &RowSum) -> Result<Option<Error>> {
    if table.rows == Some(found.rows) && table.digest == Some(found.digest) {
        return Ok(require_equal_generated(table, found.with_generated).err());
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

/// Fails if the rows of a table, or the values of its generated columns, differ from those that were saved.
pub(super) fn require_equal(table: &Table, found: &RowSum) -> Result<()> {
    compare_rows(table, found)?.map_or(Ok(()), Err)
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
