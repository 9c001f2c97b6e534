//! Code that the readers of tables and similar objects share: addresses that no catalog has, and fragments of queries.

use std::collections::HashMap;

use crate::engine::postgres::schema::Reader;
use crate::engine::postgres::schema::object::Address;
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// The address of the ownership of a sequence by a column.
pub(super) fn ownership_at(sequence: u32) -> Address {
    Address { catalog: 0, oid: sequence, column: 1 }
}

/// The address of the refresh of a materialized view.
pub(super) fn refresh_at(view: u32) -> Address {
    Address { catalog: 0, oid: view, column: 2 }
}

/// The address of the statement that enables a table's row security.
pub(super) fn row_security_at(table: u32) -> Address {
    Address { catalog: 0, oid: table, column: 3 }
}

/// The condition that `pg_class c` in `pg_namespace n` belongs to the user: it is in no schema of the system, no member
/// of an extension, and not temporary.
pub(super) const USER_RELATIONS: &str = "c.relpersistence <> 't' AND n.nspname !~ '^pg_'
    AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend own
                      JOIN pg_catalog.pg_extension owning ON owning.oid = own.refobjid
                     WHERE own.classid = 1259 AND own.objid = c.oid AND own.objsubid = 0 AND own.deptype = 'e')";

/// The condition that the constraint `k` is a check that calls a function which is not built in. The function may read
/// other tables, so such a check is created after all rows are loaded. Tables with inheritance are excluded: they have
/// the check from the beginning.
pub(super) const CALLS_A_FUNCTION: &str = "(k.contype = 'c'
    AND EXISTS (SELECT FROM pg_catalog.pg_depend called
                 WHERE called.classid = 2606 AND called.objid = k.oid AND called.refclassid = 1255)
    AND EXISTS (SELECT FROM pg_catalog.pg_class plain WHERE plain.oid = k.conrelid AND plain.relkind = 'r')
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE k.conrelid IN (i.inhrelid, i.inhparent)))";

/// The columns of a query that return the names and the owner of the relation `c` in schema `n`.
pub(super) const NAMES: &str = "c.oid, n.nspname AS schema, c.relname AS name,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS qualified,
    pg_catalog.pg_get_userbyid(c.relowner) AS owner";

/// The columns of a query that return the names of the table `c` in schema `n` that an object belongs to.
pub(super) const TABLE_NAMES: &str = "c.oid AS table_oid, c.relkind AS table_kind, n.nspname AS schema,
    c.relname AS table_name,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS table_qualified";

/// Returns an expression: the options `o` in a `text[]` that meet a condition, in the syntax of `WITH`, or NULL if
/// there are none.
pub(super) fn options(array: &str, prefix: &str, condition: &str) -> String {
    format!(
        "(SELECT string_agg('{prefix}' || pg_catalog.quote_ident(o.option_name) || '='
                            || pg_catalog.quote_literal(o.option_value), ', ')
            FROM pg_catalog.pg_options_to_table({array}) o WHERE {condition})"
    )
}

/// Returns an expression: the options of a foreign object in a `text[]`, in the syntax of `OPTIONS`, or NULL if there
/// are none.
pub(super) fn foreign_options(array: &str) -> String {
    format!(
        "(SELECT string_agg(pg_catalog.quote_ident(o.option_name) || ' '
                            || pg_catalog.quote_literal(o.option_value), ', ' ORDER BY o.option_name)
            FROM pg_catalog.pg_options_to_table({array}) o)"
    )
}

/// Returns the letter in a column, or `None` for NULL.
pub(super) fn letter(row: &Row, column: &str) -> Result<Option<char>> {
    Ok(row.get(column)?.and_then(|text| text.chars().next()))
}

/// Returns the word that follows `ALTER` for a table of this kind.
pub(super) fn word(kind: char) -> &'static str {
    if kind == 'f' { "FOREIGN TABLE" } else { "TABLE" }
}

/// Reads pg_inherits, from parent to children: of tables, and of indexes.
pub(super) fn children(reader: &mut Reader<'_>) -> Result<HashMap<u32, Vec<u32>>> {
    let rows = reader.rows(
        "SELECT inhparent AS parent, inhrelid AS child FROM pg_catalog.pg_inherits ORDER BY inhparent, inhrelid",
    )?;
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for row in &rows {
        children.entry(row.number("parent")?).or_default().push(row.number("child")?);
    }
    Ok(children)
}

/// Returns all direct and indirect children of one relation in `children`.
pub(super) fn descendants(children: &HashMap<u32, Vec<u32>>, top: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![top];
    while let Some(next) = open.pop() {
        let below = children.get(&next).into_iter().flatten();
        found.extend(below.clone());
        open.extend(below);
    }
    found
}
