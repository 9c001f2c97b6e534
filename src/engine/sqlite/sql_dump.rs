//! Writes one table of an image as SQL that the `sqlite3` program loads to the same rows.
//!
//! The SQL is loaded into a scratch database while it is written, and both are compared at the end. A table that cannot
//! be written so is refused: nothing is worse than a file that seems to hold the rows.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, ffi};

use super::connection::{self, Purpose, explain, is_circumstance, sqlite_message};
use super::derived::{self, StoredRows};
use super::names::{Name, bytes_of, quote};
use super::rows::{self, Cell, Rows};
use super::survey;
use crate::platform::disk::create_file;
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::scratch::ScratchFolder;

/// The hint for a table that cannot be written as SQL.
const OTHER_WAYS: &str =
    "use --format csv, or restore the whole snapshot to a new path ('lifeboat restore SNAPSHOT --to NEW.db')";

/// The number of rows between two checks for a signal to stop.
const ROWS_PER_CHECK: u64 = 4096;

/// The length of texts and blobs from which a row is large.
const LARGE_ROW_BYTES: usize = 1 << 20;

/// Writes a table as SQL into a file in `scratch`. Returns the file, at its start, and the number of rows.
pub(super) fn write(image: &Connection, table: &str, kind: &str, scratch: &ScratchFolder) -> Result<(File, u64)> {
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    if table.to_lowercase().starts_with("sqlite_") {
        return Err(refused(table, "SQLite keeps it by itself, and does not let anyone create it"));
    }
    let create = schema_statements(image, "name = ?1 AND type = 'table'", table).map_err(failed)?;
    let stored = create.first().map_or(StoredRows::InTable, |sql| derived::stored_rows(sql));
    if kind == "virtual" && stored == StoredRows::Elsewhere {
        return Err(refused(table, "it is a full-text index that stores no rows: extract the table that has the rows"));
    }
    let columns = survey::columns(image, table).map_err(failed)?;
    let own: Vec<&str> = columns.iter().filter(|column| !column.generated).map(|column| column.name.as_str()).collect();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let mut rowid = rowid_name(image, table, &names, stored).map_err(failed)?;
    // SAFETY: the handle is open; a negative number changes nothing.
    let limit = unsafe { ffi::sqlite3_limit(image.handle(), ffi::SQLITE_LIMIT_COLUMN, -1) };
    if rowid.is_some() && i32::try_from(own.len()).is_ok_and(|count| count >= limit) {
        tracing::warn!("the rowids of {} are not extracted, because SQLite reads no more columns", one_line(table));
        rowid = None;
    }
    let query = survey::select(rowid.into_iter().chain(own.iter().copied()), table, kind);
    let mut loader = Loader::create(scratch, table)?;
    for statement in ["PRAGMA foreign_keys=OFF;", "PRAGMA ignore_check_constraints=ON;", "BEGIN;"] {
        loader.add(statement.as_bytes())?;
    }
    create.iter().try_for_each(|sql| loader.add_schema(sql))?;
    let list: Vec<Vec<u8>> = rowid.into_iter().chain(own.iter().copied()).map(quote).collect();
    let start = [b"INSERT INTO ", &quote(table)[..], b" (", &list.join(&b","[..]), b") VALUES ("].concat();
    let count = each_row(image, table, &query, &mut |values| loader.add_row(&start, values))?;
    if let Some(sequence) = sequence(image, table).map_err(failed)?
        && has_sequences(&loader.database).map_err(failed)?
    {
        let mut name = Vec::new();
        literal(Cell::Text(&bytes_of(table)), &mut name)?;
        loader.add(&[b"DELETE FROM sqlite_sequence WHERE name = ", &name[..], b";"].concat())?;
        let value = format!(",{sequence});");
        loader.add(&[b"INSERT INTO sqlite_sequence (name,seq) VALUES (", &name[..], value.as_bytes()].concat())?;
    }
    let rest = "tbl_name = ?1 COLLATE NOCASE AND type IN ('index', 'trigger')";
    schema_statements(image, rest, table).map_err(failed)?.iter().try_for_each(|sql| loader.add_schema(sql))?;
    for statement in ["COMMIT;", "PRAGMA ignore_check_constraints=OFF;"] {
        loader.add(statement.as_bytes())?;
    }
    let facts = facts_query(table)?;
    for query in [&query, &facts] {
        let saved = survey::digest(image, query).map_err(failed)?;
        let loaded = survey::digest(&loader.database, query).map_err(|error| loader.explain(error))?;
        if saved != loaded {
            return Err(refused(table, "after loading it, values differ from the values in the snapshot"));
        }
    }
    Ok((loader.finish()?, count))
}

fn refused(table: &str, reason: &str) -> Error {
    Error::usage(format!("the table {} cannot be extracted as SQL: {reason}", one_line(table))).hint(OTHER_WAYS)
}

/// Returns the query for name, type, default and key of each column.
fn facts_query(table: &str) -> Result<Vec<u8>> {
    let mut name = Vec::new();
    literal(Cell::Text(&bytes_of(table)), &mut name)?;
    let sql = b"SELECT cid, name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(";
    Ok([&sql[..], &name, b", 'main')"].concat())
}

/// Returns the SQL of the objects in the schema that a condition on a table selects.
fn schema_statements(connection: &Connection, condition: &str, table: &str) -> rusqlite::Result<Vec<Vec<u8>>> {
    let sql = format!("SELECT sql FROM main.sqlite_schema WHERE {condition}");
    let mut query = connection.prepare(&sql)?;
    let mut rows = query.query([Name::of(table)])?;
    let mut statements = Vec::new();
    while let Some(row) = rows.next()? {
        if let ValueRef::Text(statement) = row.get_ref(0)? {
            statements.push(statement.to_vec());
        }
    }
    Ok(statements)
}

/// Returns a name of the rowid, if rows have one that is in no column. Full-text indexes and programs may refer to it.
fn rowid_name(
    connection: &Connection,
    table: &str,
    columns: &[&str],
    stored: StoredRows,
) -> rusqlite::Result<Option<&'static str>> {
    let is_free = |word: &&str| !columns.iter().any(|column| column.eq_ignore_ascii_case(word));
    if stored == StoredRows::InFullTextIndex {
        return Ok(Some("rowid").filter(is_free));
    }
    let sql =
        "SELECT type IN ('table', 'shadow') AND NOT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1";
    let has_rowids: bool = connection.query_row(sql, [Name::of(table)], |row| row.get(0))?;
    let sql = "SELECT count(*) = 1 AND max(upper(type)) = 'INTEGER' \
               AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, 'main') WHERE origin = 'pk') \
               FROM pragma_table_xinfo(?1, 'main') WHERE pk > 0";
    let has_column: bool = connection.query_row(sql, [Name::of(table)], |row| row.get(0))?;
    let names = ["rowid", "_rowid_", "oid"];
    Ok(names.into_iter().find(|name| has_rowids && !has_column && is_free(name)))
}

fn has_sequences(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'";
    connection.query_row(sql, [], |_| Ok(())).optional().map(|found| found.is_some())
}

/// Returns the AUTOINCREMENT counter of a table.
fn sequence(connection: &Connection, table: &str) -> rusqlite::Result<Option<i64>> {
    if !has_sequences(connection)? {
        return Ok(None);
    }
    let sql = "SELECT max(seq) FROM main.sqlite_sequence WHERE name = ?1 AND typeof(seq) = 'integer'";
    connection.query_row(sql, [Name::of(table)], |row| row.get(0))
}

/// A file of SQL, and a scratch database into which each statement is loaded as it is written.
struct Loader<'a> {
    table: &'a str,
    database: Connection,
    file: BufWriter<File>,
}

impl<'a> Loader<'a> {
    fn create(scratch: &ScratchFolder, table: &'a str) -> Result<Self> {
        let path = scratch.path("loaded.db");
        drop(create_file(&path)?);
        let database = connection::open(&path, Purpose::Scratch)?;
        // The database is deleted at the end, whatever happens.
        database
            .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE")
            .map_err(|error| explain(error, "cannot create a scratch database"))?;
        let file = BufWriter::with_capacity(1 << 20, create_file(&scratch.path("table.sql"))?);
        Ok(Loader { table, database, file })
    }

    /// Loads and writes one statement, which ends in a semicolon.
    fn add(&mut self, statement: &[u8]) -> Result<()> {
        rows::run(&self.database, statement).map_err(|error| self.explain(error))?;
        self.file
            .write_all(statement)
            .and_then(|()| self.file.write_all(b"\n"))
            .io(Kind::Failed, || "cannot write to the scratch folder".to_owned())
    }

    /// Loads and writes a row, whose statement begins with `start`.
    ///
    /// SQLite copies the text of a statement several times. So a large row is loaded by its values, and its text is only
    /// written.
    fn add_row(&mut self, start: &[u8], values: &[Cell<'_>]) -> Result<()> {
        let bytes: usize = values.iter().map(|value| value.bytes()).sum();
        if bytes <= LARGE_ROW_BYTES {
            let mut statement = start.to_vec();
            write_values(values, &mut statement)?;
            return self.add(&statement);
        }
        let parameters = vec![&b"?"[..]; values.len()].join(&b","[..]);
        let sql = [start, &parameters, b");"].concat();
        let load = |database: &Connection| -> rusqlite::Result<()> {
            let mut rows = Rows::query(database, &sql)?;
            for (number, value) in (1..).zip(values) {
                rows.bind(number, *value)?;
            }
            while rows.step()? {}
            Ok(())
        };
        load(&self.database).map_err(|error| self.explain(error))?;
        // SAFETY: the handle is open; a negative number changes nothing.
        let limit = unsafe { ffi::sqlite3_limit(self.database.handle(), ffi::SQLITE_LIMIT_SQL_LENGTH, -1) };
        let mut file = Counted { inner: &mut self.file, bytes: 0 };
        file.write_all(start)
            .and_then(|()| write_values(values, &mut file))
            .and_then(|()| file.write_all(b"\n"))
            .io(Kind::Failed, || "cannot write to the scratch folder".to_owned())?;
        if file.bytes > u64::from(limit.unsigned_abs()) {
            return Err(refused(self.table, "a row needs a longer statement than SQLite reads"));
        }
        Ok(())
    }

    /// Loads and writes a statement of the schema.
    fn add_schema(&mut self, sql: &[u8]) -> Result<()> {
        let mut statement = sql.to_vec();
        statement.extend_from_slice(comment_end(sql));
        statement.push(b';');
        // The program reads lines: it removes the first character of a line break of Windows, and takes a line with a
        // slash or 'go' as the end of a statement.
        let is_end = |line: &[u8]| {
            let line = line.trim_ascii();
            line == b"/" || line.eq_ignore_ascii_case(b"go")
        };
        if !is_complete(&statement) || sql.split(|byte| *byte == b'\n').any(is_end) {
            return Err(refused(self.table, "the sqlite3 program would not find the end of a statement of its schema"));
        }
        let text = statement.clone();
        statement.clear();
        for (at, byte) in text.iter().enumerate() {
            if *byte != b'\r' || text.get(at + 1) != Some(&b'\n') {
                statement.push(*byte);
            }
        }
        self.add(&statement)
    }

    fn explain(&self, error: rusqlite::Error) -> Error {
        if is_circumstance(&error) {
            return explain(error, "cannot load the extracted SQL into a scratch database");
        }
        refused(self.table, &format!("it cannot be loaded: {}", one_line(&sqlite_message(&error))))
    }

    /// Returns the file, at its start.
    fn finish(self) -> Result<File> {
        let cannot = || "cannot write to the scratch folder".to_owned();
        let file = self.file.into_inner().map_err(|error| error.into_error());
        let mut file = file.io(Kind::Failed, cannot)?;
        file.seek(SeekFrom::Start(0)).io(Kind::Failed, cannot)?;
        Ok(file)
    }
}

/// Returns true if the sqlite3 program takes a text as one or more complete statements.
fn is_complete(sql: &[u8]) -> bool {
    let Ok(text) = std::ffi::CString::new(sql) else { return false };
    // SAFETY: the text is a C string.
    unsafe { ffi::sqlite3_complete(text.as_ptr()) == 1 }
}

/// Returns the text that ends an open comment at the end of a statement, if there is one: a comment in a line extends to
/// the end of the line, and the last other comment may be left open.
fn comment_end(sql: &[u8]) -> &'static [u8] {
    // Each of the endings is harmless where the statement is complete without it.
    let with = |end: &[u8]| is_complete(&[sql, end, b";"].concat());
    match () {
        () if with(b"") => b"",
        () if with(b"\n") => b"\n",
        () if with(b"*/") => b"*/",
        () => b"",
    }
}

/// Reads the rows of a query. Returns their number.
pub(super) fn each_row(
    connection: &Connection,
    table: &str,
    query: &[u8],
    visit: &mut dyn FnMut(&[Cell<'_>]) -> Result<()>,
) -> Result<u64> {
    let failed = |error| explain(error, &format!("cannot read the table {}", one_line(table)));
    let mut rows = Rows::query(connection, query).map_err(failed)?;
    let mut count = 0u64;
    while rows.step().map_err(failed)? {
        if count.is_multiple_of(ROWS_PER_CHECK) {
            crate::platform::interrupt::check()?;
        }
        let values = (0..rows.columns()).map(|column| rows.cell(column)).collect::<rusqlite::Result<Vec<_>>>();
        visit(&values.map_err(failed)?)?;
        count += 1;
    }
    Ok(count)
}

/// A writer that counts the bytes.
struct Counted<'a> {
    inner: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the values of an INSERT, and its end.
fn write_values(values: &[Cell<'_>], out: &mut dyn Write) -> std::io::Result<()> {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        literal(*value, out)?;
    }
    out.write_all(b");")
}

/// Writes a value as an SQL expression that has exactly this value.
fn literal(value: Cell<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    match value {
        Cell::Null => out.write_all(b"NULL"),
        Cell::Integer(number) => write!(out, "{number}"),
        Cell::Real(number) => out.write_all(real(number).as_bytes()),
        Cell::Text(bytes) => match std::str::from_utf8(bytes) {
            // The program removes the first character of a line break of Windows, and stops at a NUL.
            Ok(text) if !text.bytes().any(|byte| byte < b' ' && byte != b'\n' && byte != b'\t') => {
                write_quoted(bytes, b'\'', out)
            }
            _ => {
                out.write_all(b"CAST(x'")?;
                write_hex(bytes, out)?;
                out.write_all(b"' AS TEXT)")
            }
        },
        Cell::Blob(bytes) => {
            out.write_all(b"x'")?;
            write_hex(bytes, out)?;
            out.write_all(b"'")
        }
    }
}

/// Writes a text between quotes, and the quotes in it twice.
pub(super) fn write_quoted(text: &[u8], quote: u8, out: &mut dyn Write) -> std::io::Result<()> {
    for part in text.split(|byte| *byte == quote) {
        // Before each part is the start, or a quote of the text.
        out.write_all(&[quote])?;
        out.write_all(part)?;
        out.write_all(&[quote])?;
    }
    Ok(())
}

/// Writes bytes as hexadecimal digits.
pub(super) fn write_hex(bytes: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    let mut digits = [0; 8192];
    for part in bytes.chunks(digits.len() / 2) {
        let digits = &mut digits[..2 * part.len()];
        hex::encode_to_slice(part, digits).map_err(std::io::Error::other)?;
        out.write_all(digits)?;
    }
    Ok(())
}

/// Returns an expression for a real number.
///
/// SQLite reads decimal numbers of up to 15 digits exactly, and longer ones nearly: versions differ in the last bit. So a
/// number that needs more digits is written as a whole number multiplied or divided by powers of two, which is exact.
fn real(number: f64) -> String {
    if number.is_infinite() {
        return if number > 0.0 { "9e999" } else { "-9e999" }.to_owned();
    }
    let shortest = format!("{number:?}");
    let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let exponent =
        exponent.parse::<i64>().unwrap_or(i64::MAX).saturating_sub(i64::try_from(decimals).unwrap_or(i64::MAX));
    // Powers of ten up to this one are exact.
    if digits.bytes().filter(u8::is_ascii_digit).count() <= 15 && (-22..=22).contains(&exponent) {
        return shortest;
    }
    let bits = number.abs().to_bits();
    let (fraction, raised) = (bits & ((1 << 52) - 1), i32::try_from(bits >> 52).unwrap_or_default());
    // Below the smallest normal number, the first bit is not implied.
    let (mut whole, mut power) = if raised == 0 { (fraction, -1074) } else { (fraction | 1 << 52, raised - 1075) };
    let zeros = whole.trailing_zeros().min(63);
    whole >>= zeros;
    power += i32::try_from(zeros).unwrap_or_default();
    let sign = if number < 0.0 { "-" } else { "" };
    let mut text = format!("{sign}{whole}.0");
    let operator = if power < 0 { '/' } else { '*' };
    let mut left = power.unsigned_abs();
    while left > 0 {
        let step = left.min(52);
        text.push_str(&format!("{operator}{}.0", 1u64 << step));
        left -= step;
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_real_number_is_written_exactly() {
        let database = Connection::open_in_memory().unwrap();
        let read = |text: &str| -> f64 { database.query_row(&format!("SELECT {text}"), [], |row| row.get(0)).unwrap() };
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut numbers =
            vec![0.1 + 0.2, 5e-324, 1e300, f64::MAX, f64::MIN_POSITIVE, 9_007_199_254_740_993.0, 1e15, 0.5];
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            numbers.push(f64::from_bits(state));
        }
        for number in numbers.into_iter().filter(|number| !number.is_nan()) {
            for number in [number, -number] {
                assert_eq!(read(&real(number)).to_bits(), number.to_bits(), "{number:?} {}", real(number));
            }
        }
        assert_eq!(real(0.1), "0.1");
        assert_eq!(real(-2.0), "-2.0");
    }

    #[test]
    fn a_comment_at_the_end_of_a_statement_is_ended() {
        for (sql, end) in [
            ("CREATE TABLE t(a)", ""),
            ("CREATE TABLE t(a) -- x", "\n"),
            ("CREATE TABLE t(a) /* x", "*/"),
            ("CREATE TABLE t(a) /* -- x */", ""),
            ("CREATE TABLE t(a DEFAULT '--')", ""),
            ("CREATE TABLE t(a) -- /* x", "\n"),
        ] {
            assert_eq!(comment_end(sql.as_bytes()), end.as_bytes(), "{sql}");
        }
    }
}
