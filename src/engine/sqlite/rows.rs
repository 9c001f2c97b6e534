//! Reads rows with as few calls as SQLite allows: hashing every value of a database runs in this loop.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};

use super::names::quote;
use crate::platform::digest::RowHasher;

/// A value as it is stored: its storage class, and for text the bytes, which may not be valid UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell<'a> {
    /// NULL.
    Null,
    /// A whole number.
    Integer(i64),
    /// A real number, never a NaN.
    Real(f64),
    /// Text in UTF-8, if the program that wrote it wrote valid UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
}

impl Cell<'_> {
    /// Returns the length of a text or blob; 0 for other values.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Cell::Text(bytes) | Cell::Blob(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl<'a> From<ValueRef<'a>> for Cell<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Integer(number),
            ValueRef::Real(number) => Cell::Real(number),
            ValueRef::Text(text) => Cell::Text(text),
            ValueRef::Blob(bytes) => Cell::Blob(bytes),
        }
    }
}

/// A query whose rows are being read.
pub(super) struct Rows<'a> {
    connection: &'a Connection,
    statement: *mut ffi::sqlite3_stmt,
    columns: i32,
    has_ended: bool,
}

impl<'a> Rows<'a> {
    /// Prepares a query without parameters. It is bytes, because names need not be UTF-8.
    pub(super) fn query(connection: &'a Connection, sql: &[u8]) -> rusqlite::Result<Self> {
        let mut statement = std::ptr::null_mut();
        let length = i32::try_from(sql.len())
            .map_err(|_| rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), None))?;
        // SAFETY: the handle is open; the text is valid for the length given; `statement` can hold a pointer.
        let code = unsafe {
            ffi::sqlite3_prepare_v2(
                connection.handle(),
                sql.as_ptr().cast(),
                length,
                &raw mut statement,
                std::ptr::null_mut(),
            )
        };
        if code != ffi::SQLITE_OK {
            return Err(last_error(connection, code));
        }
        if statement.is_null() {
            // The text has no statement: a name in it has a NUL byte.
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ERROR), None));
        }
        // SAFETY: prepared just above.
        let columns = unsafe { ffi::sqlite3_column_count(statement) };
        Ok(Rows { connection, statement, columns, has_ended: false })
    }

    /// Gives the parameter `number`, counted from 1, a value. The statement does not copy it, so it must live as long.
    pub(super) fn bind(&mut self, number: i32, value: Cell<'a>) -> rusqlite::Result<()> {
        // SAFETY: the statement is valid until dropped, and the value lives as long as its connection.
        let code = unsafe {
            match value {
                Cell::Null => ffi::sqlite3_bind_null(self.statement, number),
                Cell::Integer(value) => ffi::sqlite3_bind_int64(self.statement, number, value),
                Cell::Real(value) => ffi::sqlite3_bind_double(self.statement, number, value),
                Cell::Text(text) => ffi::sqlite3_bind_text64(
                    self.statement,
                    number,
                    text.as_ptr().cast(),
                    text.len() as u64,
                    ffi::SQLITE_STATIC(),
                    ffi::SQLITE_UTF8 as u8,
                ),
                Cell::Blob(bytes) => ffi::sqlite3_bind_blob64(
                    self.statement,
                    number,
                    bytes.as_ptr().cast(),
                    bytes.len() as u64,
                    ffi::SQLITE_STATIC(),
                ),
            }
        };
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(last_error(self.connection, code)) }
    }

    /// Returns the number of columns.
    pub(super) fn columns(&self) -> i32 {
        self.columns
    }

    /// Hashes the next row. Returns false after the last.
    pub(super) fn next(&mut self, hasher: &mut RowHasher) -> rusqlite::Result<bool> {
        if !self.step()? {
            return Ok(false);
        }
        self.hash(self.columns, hasher)?;
        Ok(true)
    }

    /// Goes to the next row. Returns false after the last row and from then on; SQLite itself would start again.
    pub(super) fn step(&mut self) -> rusqlite::Result<bool> {
        if self.has_ended {
            return Ok(false);
        }
        // SAFETY: the statement is valid until dropped, and used by this thread alone.
        match unsafe { ffi::sqlite3_step(self.statement) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => {
                self.has_ended = true;
                Ok(false)
            }
            code => Err(last_error(self.connection, code)),
        }
    }

    /// Hashes the first `columns` values of the row.
    pub(super) fn hash(&self, columns: i32, hasher: &mut RowHasher) -> rusqlite::Result<()> {
        hasher.clear();
        for column in 0..columns {
            match self.cell(column)? {
                Cell::Null => hasher.null(),
                Cell::Integer(number) => hasher.integer(number),
                Cell::Real(number) => hasher.real(number),
                Cell::Text(text) => hasher.text(text),
                Cell::Blob(bytes) => hasher.blob(bytes),
            }
        }
        Ok(())
    }

    /// Returns one value of the row. Call it only after [`step`](Self::step) returned true, and for a column that
    /// exists.
    pub(super) fn cell(&self, column: i32) -> rusqlite::Result<Cell<'_>> {
        debug_assert!(column < self.columns);
        // SAFETY: there is a current row and the column exists. The value is valid until the next step, which needs
        // `&mut self`. It is "unprotected", which matters only to other threads: this connection is used by one.
        unsafe {
            let value = ffi::sqlite3_column_value(self.statement, column);
            Ok(match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => Cell::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => Cell::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => {
                    let start = ffi::sqlite3_value_text(value);
                    Cell::Text(bytes(start.cast(), ffi::sqlite3_value_bytes(value), self)?)
                }
                ffi::SQLITE_BLOB => {
                    let start = ffi::sqlite3_value_blob(value);
                    Cell::Blob(bytes(start.cast(), ffi::sqlite3_value_bytes(value), self)?)
                }
                _ => Cell::Null,
            })
        }
    }
}

/// Runs a query that returns one whole number, and returns the number.
pub(super) fn number(connection: &Connection, sql: &[u8]) -> rusqlite::Result<i64> {
    let mut rows = Rows::query(connection, sql)?;
    match rows.step()?.then(|| rows.cell(0)).transpose()? {
        Some(Cell::Integer(number)) => Ok(number),
        _ => Err(rusqlite::Error::QueryReturnedNoRows),
    }
}

/// Counts the rows of a table or view of `main`.
pub(super) fn count(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    number(connection, &[b"SELECT count(*) FROM main.", &quote(table)[..]].concat()).map(i64::unsigned_abs)
}

/// Runs one statement, and ignores the rows that it returns.
pub(super) fn run(connection: &Connection, sql: &[u8]) -> rusqlite::Result<()> {
    let mut rows = Rows::query(connection, sql)?;
    while rows.step()? {}
    Ok(())
}

/// Returns the bytes of a value. A null pointer with a length above zero means that SQLite ran out of memory.
///
/// # Safety
/// `start` is null or points to `length` bytes that stay as they are until the next step.
unsafe fn bytes<'a>(start: *const u8, length: i32, rows: &'a Rows<'_>) -> rusqlite::Result<&'a [u8]> {
    match usize::try_from(length) {
        Ok(0) | Err(_) => Ok(&[]),
        Ok(_) if start.is_null() => Err(last_error(rows.connection, ffi::SQLITE_NOMEM)),
        // SAFETY: by this function's own contract.
        Ok(length) => Ok(unsafe { std::slice::from_raw_parts(start, length) }),
    }
}

impl Drop for Rows<'_> {
    fn drop(&mut self) {
        // SAFETY: finalized once, here; null is allowed.
        unsafe { ffi::sqlite3_finalize(self.statement) };
    }
}

fn last_error(connection: &Connection, code: i32) -> rusqlite::Error {
    // SAFETY: the handle is open; the message is copied before the next call on it.
    let message =
        unsafe { std::ffi::CStr::from_ptr(ffi::sqlite3_errmsg(connection.handle())).to_string_lossy().into_owned() };
    // SAFETY: the handle is open.
    let extended = unsafe { ffi::sqlite3_extended_errcode(connection.handle()) };
    rusqlite::Error::SqliteFailure(
        ffi::Error::new(if extended & 0xff == code & 0xff { extended } else { code }),
        Some(message),
    )
}
