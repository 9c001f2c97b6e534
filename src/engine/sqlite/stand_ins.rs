//! Stand-ins for the collations and functions that the program of a database adds to SQLite.
//!
//! SQLite opens no index with a collation that it does not have, and so it checks no page of that index. With a
//! stand-in, every page can be read and checked. A stand-in says nothing about the order of an index, about orphan rows,
//! or about a constraint: [`Missing`] names those parts, which stay unchecked.
//!
//! Only connections that read have stand-ins: an index that is written with one is damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, c_char, c_int, c_void};

use rusqlite::{Connection, ffi};

use super::names::{Name, bytes_of, message_at, name_at, optional_name_at};
use crate::snapshots::manifest::{Depth, OrphanRows};

/// The collations that SQLite itself has.
const OWN_COLLATIONS: [&str; 3] = ["BINARY", "NOCASE", "RTRIM"];

/// The end of every reason of [`Missing`].
pub(super) const MISSING_HERE: &str = "is missing here";

/// The most functions of a database that get a stand-in.
const MAX_FUNCTIONS: usize = 1000;

/// Refuses every missing collation, as SQLite does by itself. Call it before the first statement that needs one.
pub(super) fn remove(connection: &Connection) {
    // SAFETY: the handle is open, and a null callback is allowed.
    unsafe { ffi::sqlite3_collation_needed(connection.handle(), std::ptr::null_mut(), None) };
}

/// The functions of the database's program that were needed so far.
#[derive(Debug, Default)]
pub(super) struct Functions(Vec<String>);

impl Functions {
    /// Runs work; if it needs a function that SQLite does not have, it is run again with one that returns NULL.
    pub(super) fn run<T>(
        &mut self,
        connection: &Connection,
        mut work: impl FnMut() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        loop {
            let done = work();
            let missing = done.as_ref().err().and_then(missing_function);
            match missing {
                Some(name) if !self.0.contains(&name) && self.0.len() < MAX_FUNCTIONS => {
                    create_function(connection, &name)?;
                    self.0.push(name);
                }
                _ => return done,
            }
        }
    }
}

fn missing_function(error: &rusqlite::Error) -> Option<String> {
    let (rusqlite::Error::SqliteFailure(_, Some(message)) | rusqlite::Error::SqlInputError { msg: message, .. }) =
        error
    else {
        return None;
    };
    let name = message.strip_prefix("unknown function: ").or_else(|| message.strip_prefix("no such function: "))?;
    Some(name.strip_suffix("()").unwrap_or(name).to_owned())
}

fn create_function(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    unsafe extern "C" fn null(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
        // SAFETY: SQLite passes a valid context.
        unsafe { ffi::sqlite3_result_null(context) };
    }
    let name = CString::new(bytes_of(name).into_owned()).map_err(rusqlite::Error::NulError)?;
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    // SAFETY: the handle is open, the name is a C string that SQLite copies, and the function has no state.
    let code = unsafe {
        ffi::sqlite3_create_function_v2(
            connection.handle(),
            name.as_ptr(),
            -1,
            flags,
            std::ptr::null_mut(),
            Some(null),
            None,
            None,
            None,
        )
    };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)) }
}

/// The parts of a database that SQLite cannot check here, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// Indexes whose order, and for each row whose entry, is not known.
    indexes: BTreeMap<String, String>,
    /// Tables WITHOUT ROWID whose order is not known.
    keys: BTreeMap<String, String>,
    /// Tables with constraints or generated columns that cannot be computed.
    constraints: BTreeMap<String, String>,
    /// Virtual tables without their modules.
    virtual_tables: BTreeMap<String, String>,
    /// Keys that other tables may refer to: the table, and the columns of the key; no columns for the primary key.
    parent_keys: Vec<(String, BTreeSet<String>)>,
}

impl Missing {
    /// Determines what a check that has just been run on this connection could not know.
    pub(super) fn read(connection: &Connection, functions: &Functions) -> rusqlite::Result<Self> {
        let mut missing = Missing::default();
        missing.read_modules(connection)?;
        let mut statement = connection.prepare("SELECT name FROM pragma_collation_list")?;
        let collations = statement.query_map([], |row| name_at(row, 0))?.collect::<rusqlite::Result<Vec<_>>>()?;
        let is_own = |name: &str| OWN_COLLATIONS.iter().any(|own| own.eq_ignore_ascii_case(name));
        let collations: Vec<String> = collations.into_iter().filter(|name| !is_own(name)).collect();
        if collations.is_empty() && functions.0.is_empty() {
            return Ok(missing);
        }
        for collation in &collations {
            missing.read_indexes(connection, collation)?;
        }
        missing.read_statements(connection, &collations, &functions.0)?;
        Ok(missing)
    }

    fn read_modules(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND ifnull(rootpage, 0) = 0";
        let mut statement = connection.prepare(sql)?;
        let tables = statement.query_map([], |row| Ok((name_at(row, 0)?, message_at(row, 1)?)))?;
        let tables = tables.collect::<rusqlite::Result<Vec<_>>>()?;
        for (table, sql) in tables {
            let Some(module) = words(&sql).skip_while(|word| !word.eq_ignore_ascii_case("using")).nth(1) else {
                continue;
            };
            let sql = "SELECT count(*) FROM pragma_module_list WHERE name = ?1 COLLATE NOCASE";
            if connection.query_row(sql, [module], |row| row.get::<_, i64>(0))? == 0 {
                self.virtual_tables.insert(table, format!("the module {module} {MISSING_HERE}"));
            }
        }
        Ok(())
    }

    /// Reads the indexes that are in the order of a collation.
    fn read_indexes(&mut self, connection: &Connection, collation: &str) -> rusqlite::Result<()> {
        let sql = "SELECT DISTINCT s.name, l.name, l.origin FROM main.sqlite_schema s, \
                   pragma_index_list(s.name, 'main') l, pragma_index_xinfo(l.name, 'main') x \
                   WHERE s.type = 'table' AND x.key AND x.coll = ?1 COLLATE NOCASE";
        let mut statement = connection.prepare(sql)?;
        let row = |row: &rusqlite::Row<'_>| Ok((name_at(row, 0)?, name_at(row, 1)?, name_at(row, 2)?));
        let found = statement.query_map([Name::of(collation)], row)?.collect::<rusqlite::Result<Vec<_>>>()?;
        let reason = missing_collation(collation);
        for (table, index, origin) in found {
            let mut columns = connection.prepare("SELECT name FROM pragma_index_info(?1, 'main')")?;
            let columns = columns.query_map([Name::of(&index)], |row| optional_name_at(row, 0))?;
            let columns = columns.filter_map(|name| name.map(|name| name.map(|name| name.to_lowercase())).transpose());
            self.parent_keys.push((table.to_lowercase(), columns.collect::<rusqlite::Result<_>>()?));
            if origin == "pk" {
                self.parent_keys.push((table.to_lowercase(), BTreeSet::new()));
                self.keys.insert(table, reason.clone());
            }
            self.indexes.insert(index, reason.clone());
        }
        Ok(())
    }

    /// Reads the indexes and tables whose statements mention something that is missing.
    fn read_statements(
        &mut self,
        connection: &Connection,
        collations: &[String],
        functions: &[String],
    ) -> rusqlite::Result<()> {
        let sql = "SELECT i.name, ifnull(i.sql, ''), t.name, ifnull(t.sql, '') FROM main.sqlite_schema t \
                   LEFT JOIN main.sqlite_schema i ON i.type = 'index' AND i.tbl_name = t.name WHERE t.type = 'table'";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (index, index_sql) = (optional_name_at(row, 0)?, message_at(row, 1)?);
            let (table, table_sql) = (name_at(row, 2)?, message_at(row, 3)?);
            let has_expression =
                mentions(&index_sql, "where") || index_sql.bytes().filter(|byte| *byte == b'(').count() > 1;
            for (names, is_function) in [(collations, false), (functions, true)] {
                for name in names {
                    let reason = if is_function { missing_function_reason(name) } else { missing_collation(name) };
                    let in_table = mentions(&table_sql, name);
                    if in_table && (is_function || mentions(&table_sql, "check")) {
                        self.constraints.insert(table.clone(), reason.clone());
                    }
                    let in_index = mentions(&index_sql, name) || (in_table && (is_function || has_expression));
                    if let (Some(index), true) = (&index, in_index) {
                        self.indexes.entry(index.clone()).or_insert(reason);
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns true if nothing is missing.
    pub(super) fn is_empty(&self) -> bool {
        self.indexes.is_empty() && self.constraints.is_empty() && self.virtual_tables.is_empty()
    }

    /// Returns true for a line of `integrity_check` that may come from a stand-in.
    pub(super) fn explains(&self, fault: &str) -> bool {
        // SQLite takes an entry for a duplicate if the next entry is not after it.
        let by_order =
            fault.split_once(" missing from index ").or_else(|| fault.split_once("non-unique entry in index "));
        if let Some((_, index)) = by_order {
            return self.indexes.contains_key(index);
        }
        if let Some(table) = fault.strip_prefix("row not in PRIMARY KEY order for ") {
            return self.keys.contains_key(table);
        }
        if let Some(table) = fault.strip_prefix("CHECK constraint failed in ") {
            return self.constraints.contains_key(table);
        }
        let Some((_, column)) = fault.split_once(" value in ") else { return false };
        self.constraints
            .keys()
            .any(|table| column.strip_prefix(table.as_str()).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Returns true if rows that seem to be orphans may have their parents: the parents were searched for in the order
    /// of a stand-in.
    pub(super) fn explains_orphans(&self, connection: &Connection, orphan: &OrphanRows) -> rusqlite::Result<bool> {
        if self.parent_keys.is_empty() {
            return Ok(false);
        }
        let sql = "SELECT \"to\" FROM pragma_foreign_key_list(?1, 'main') WHERE id = ?2";
        let mut statement = connection.prepare(sql)?;
        let columns = statement.query_map((Name::of(&orphan.table), orphan.key), |row| optional_name_at(row, 0))?;
        let columns = columns.filter_map(|name| name.map(|name| name.map(|name| name.to_lowercase())).transpose());
        let columns = columns.collect::<rusqlite::Result<BTreeSet<String>>>()?;
        let parent = orphan.parent.to_lowercase();
        Ok(self.parent_keys.iter().any(|(table, key)| *table == parent && *key == columns))
    }

    /// Lists the parts that a check of this depth did not cover.
    pub(super) fn reasons(&self, depth: Depth) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        let mut add = |what: &str, parts: &BTreeMap<String, String>| {
            reasons.extend(parts.iter().map(|(name, reason)| format!("{what} {name}: {reason}")));
        };
        add("the virtual table", &self.virtual_tables);
        add("the constraints of the table", &self.constraints);
        if depth == Depth::Full {
            add("the order of the index", &self.indexes);
        }
        reasons
    }
}

fn missing_collation(name: &str) -> String {
    format!("the collation {name} {MISSING_HERE}")
}

fn missing_function_reason(name: &str) -> String {
    format!("the function {name} {MISSING_HERE}")
}

/// Returns true if a statement contains a word.
fn mentions(sql: &str, word: &str) -> bool {
    words(sql).any(|other| other.eq_ignore_ascii_case(word))
}

fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|character: char| character.is_ascii() && !character.is_ascii_alphanumeric() && character != '_')
        .filter(|word| !word.is_empty())
}

/// Lets a connection that only reads open indexes with any collation: a stand-in compares bytes.
pub(super) fn add_collations(connection: &Connection) {
    // SAFETY: the handle is open; the callback has no state.
    unsafe { ffi::sqlite3_collation_needed(connection.handle(), std::ptr::null_mut(), Some(needed)) };
}

unsafe extern "C" fn needed(_: *mut c_void, connection: *mut ffi::sqlite3, _: c_int, name: *const c_char) {
    // SAFETY: SQLite passes its own handle and a C string; the collation has no state. If it fails, SQLite reports that
    // the collation is missing.
    unsafe {
        ffi::sqlite3_create_collation_v2(
            connection,
            name,
            ffi::SQLITE_UTF8,
            std::ptr::null_mut(),
            Some(compare_bytes),
            None,
        );
    }
}

unsafe extern "C" fn compare_bytes(
    _: *mut c_void,
    first_bytes: c_int,
    first: *const c_void,
    second_bytes: c_int,
    second: *const c_void,
) -> c_int {
    /// # Safety
    /// `start` is null or points to `length` bytes.
    unsafe fn slice<'a>(start: *const c_void, length: c_int) -> &'a [u8] {
        match usize::try_from(length) {
            // SAFETY: by the function's contract.
            Ok(length) if !start.is_null() => unsafe { std::slice::from_raw_parts(start.cast(), length) },
            _ => &[],
        }
    }
    // SAFETY: SQLite passes pointers to as many bytes as it says.
    unsafe { slice(first, first_bytes).cmp(slice(second, second_bytes)) as c_int }
}
