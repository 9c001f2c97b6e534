//! The options of tables, indexes, views, columns and tablespaces that a user can set: storage parameters, view options
//! and attribute options.
//!
//! The catalogs store them as `name=value` in `reloptions`, `attoptions` and `spcoptions`. A server may store internal
//! data there too: PostgreSQL 15.20 has a `pg_attver` in the `attoptions` of every column, which its pg_dump leaves out
//! and which no other server accepts. So only the options in the list of this module are saved. Any other option of a
//! known major version is left out, and a note says so. On a major version that is newer than the list, all options are
//! saved, except those with names that begin with `pg_`, which PostgreSQL reserves for itself.
//!
//! An access method of an extension may have additional options, and so may an operator class. All of them are saved, except
//! those whose names begin with `pg_`.

use crate::engine::postgres::schema::option_text::{self, OptionText};
use crate::engine::postgres::schema::relation::USER_RELATIONS;
use crate::engine::postgres::schema::{Item, Kind, Reader, quote};
use crate::engine::postgres::wire::majors;
use crate::platform::error::Result;

/// The newest major version whose options are in the list.
pub const NEWEST_LISTED_MAJOR: u32 = majors::NEWEST;

/// The kinds of objects that have options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A table, a materialized view, or the TOAST table of one of these.
    Table,
    /// A view.
    View,
    /// An index of one of PostgreSQL's built-in access methods.
    Index,
    /// A column of a table or view (an index's columns have options of their operator classes).
    Column,
    /// A tablespace. Tablespaces are not part of a snapshot.
    Tablespace,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [ObjectKind; 5] =
        [ObjectKind::Table, ObjectKind::View, ObjectKind::Index, ObjectKind::Column, ObjectKind::Tablespace];
}

/// An option: the kind of object that has it, its name, and the first and the last major version that have it
/// (`u32::MAX` if the newest version still has it). 13 is the oldest supported version.
type ListedOption = (ObjectKind, &'static str, u32, u32);

/// All options that users can set, as in PostgreSQL's `reloptions.c`. A test compares this list with the options of
/// every server.
const LIST: &[ListedOption] = {
    use ObjectKind::{Column, Index, Table, Tablespace, View};
    const NEWEST: u32 = u32::MAX;
    &[
        (Table, "autovacuum_analyze_scale_factor", 13, NEWEST),
        (Table, "autovacuum_analyze_threshold", 13, NEWEST),
        (Table, "autovacuum_enabled", 13, NEWEST),
        (Table, "autovacuum_freeze_max_age", 13, NEWEST),
        (Table, "autovacuum_freeze_min_age", 13, NEWEST),
        (Table, "autovacuum_freeze_table_age", 13, NEWEST),
        (Table, "autovacuum_multixact_freeze_max_age", 13, NEWEST),
        (Table, "autovacuum_multixact_freeze_min_age", 13, NEWEST),
        (Table, "autovacuum_multixact_freeze_table_age", 13, NEWEST),
        (Table, "autovacuum_vacuum_cost_delay", 13, NEWEST),
        (Table, "autovacuum_vacuum_cost_limit", 13, NEWEST),
        (Table, "autovacuum_vacuum_insert_scale_factor", 13, NEWEST),
        (Table, "autovacuum_vacuum_insert_threshold", 13, NEWEST),
        (Table, "autovacuum_vacuum_max_threshold", 18, NEWEST),
        (Table, "autovacuum_vacuum_scale_factor", 13, NEWEST),
        (Table, "autovacuum_vacuum_threshold", 13, NEWEST),
        (Table, "fillfactor", 13, NEWEST),
        (Table, "log_autovacuum_min_duration", 13, NEWEST),
        (Table, "parallel_workers", 13, NEWEST),
        (Table, "toast_tuple_target", 13, NEWEST),
        (Table, "user_catalog_table", 13, NEWEST),
        (Table, "vacuum_index_cleanup", 13, NEWEST),
        (Table, "vacuum_max_eager_freeze_failure_rate", 18, NEWEST),
        (Table, "vacuum_truncate", 13, NEWEST),
        (View, "check_option", 13, NEWEST),
        (View, "security_barrier", 13, NEWEST),
        (View, "security_invoker", 15, NEWEST),
        (Index, "autosummarize", 13, NEWEST),
        (Index, "buffering", 13, NEWEST),
        (Index, "deduplicate_items", 13, NEWEST),
        (Index, "fastupdate", 13, NEWEST),
        (Index, "fillfactor", 13, NEWEST),
        (Index, "gin_pending_list_limit", 13, NEWEST),
        (Index, "pages_per_range", 13, NEWEST),
        (Index, "vacuum_cleanup_index_scale_factor", 13, NEWEST),
        (Column, "n_distinct", 13, NEWEST),
        (Column, "n_distinct_inherited", 13, NEWEST),
        (Tablespace, "effective_io_concurrency", 13, NEWEST),
        (Tablespace, "maintenance_io_concurrency", 13, NEWEST),
        (Tablespace, "random_page_cost", 13, NEWEST),
        (Tablespace, "seq_page_cost", 13, NEWEST),
    ]
};

/// The options that servers use internally. They are left out without a note, as in pg_dump.
pub const INTERNAL_OPTIONS: &[&str] = &["pg_attver"];

/// Returns the names of the options that users of this major version can set on a kind of object.
pub fn known(kind: ObjectKind, major: u32) -> impl Iterator<Item = &'static str> {
    let major = major.min(NEWEST_LISTED_MAJOR);
    LIST.iter()
        .filter(move |(of, _, first, last)| *of == kind && (*first..=*last).contains(&major))
        .map(|(_, name, ..)| *name)
}

/// Removes, from an item of an archive, the options that the source's server used internally.
pub fn remove_internal_options(item: &mut Item) {
    if has_options(item.kind) {
        let is_internal = |option: &OptionText| INTERNAL_OPTIONS.contains(&option.name.as_str());
        let kept = item.create.iter().filter_map(|statement| option_text::without(statement, is_internal));
        item.create = kept.collect();
    }
}

/// Returns true if the statements that create this kind of item can set options that are in the list.
#[must_use]
pub fn has_options(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Table
            | Kind::ForeignTable
            | Kind::View
            | Kind::MaterializedView
            | Kind::Index
            | Kind::AggregateIndex
            | Kind::Constraint
    )
}

/// Returns an SQL condition on `o.option_name`. It is true if a user can set this option on this kind of object.
pub(super) fn is_settable(kind: ObjectKind, version: u32) -> String {
    if version / 10_000 > NEWEST_LISTED_MAJOR {
        return "NOT pg_catalog.starts_with(o.option_name, 'pg_')".to_owned();
    }
    let names: Vec<String> = known(kind, version / 10_000).map(quote::literal).collect();
    format!("o.option_name IN ({})", names.join(", "))
}

/// Returns the condition of [`is_settable`] for a relation with an access method, because access methods of extensions
/// have additional options. The SQL alias `m` is the method's row in pg_am, or a row of NULLs. (16384 is the first OID
/// that does not belong to PostgreSQL itself.)
pub(super) fn is_settable_by_method(kind: ObjectKind, version: u32) -> String {
    format!(
        "(coalesce(m.oid >= 16384, false) AND NOT pg_catalog.starts_with(o.option_name, 'pg_') OR {})",
        is_settable(kind, version)
    )
}

/// Returns an SQL expression for the names of the options in an index's `reloptions` that users cannot set: a JSON
/// list, or NULL if there are none. The SQL alias `m` is the index's access method.
pub(in crate::engine::postgres) fn unsettable_of_index(array: &str, version: u32) -> String {
    format!(
        "(SELECT to_json(array_agg(o.option_name)) FROM pg_catalog.pg_options_to_table({array}) o WHERE NOT {})",
        is_settable_by_method(ObjectKind::Index, version)
    )
}

/// Removes the options that users cannot set from an index's definition, as the server prints it.
pub(in crate::engine::postgres) fn only_settable(definition: &str, unsettable: &[String]) -> String {
    let is_unsettable = |option: &OptionText| match option.of_class {
        true => option.name.starts_with("pg_"),
        false => unsettable.contains(&option.name),
    };
    option_text::without(definition, is_unsettable).unwrap_or_default()
}

/// Adds a note for each option that is left out and is not in [`INTERNAL_OPTIONS`]: its name, the number of objects
/// that have it, and one of these objects.
pub(super) fn note_left_out(reader: &mut Reader<'_>) -> Result<()> {
    let version = reader.version();
    let relation = "pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)";
    let of_relations = |kinds: &str, kind: ObjectKind, what: &str, array: &str, join: &str| {
        format!(
            "SELECT '{what}' AS what, o.option_name, {relation} AS object
               FROM pg_catalog.pg_class c
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_am m ON m.oid = c.relam
               {join} CROSS JOIN LATERAL pg_catalog.pg_options_to_table({array}) o
              WHERE c.relkind IN ({kinds}) AND {USER_RELATIONS} AND NOT {}",
            is_settable_by_method(kind, version)
        )
    };
    let of_indexes = |array: &str, join: &str, condition: &str| {
        format!(
            "SELECT 'index' AS what, o.option_name,
                    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(i.relname) AS object
               FROM pg_catalog.pg_index x
               JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
               JOIN pg_catalog.pg_class c ON c.oid = x.indrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               LEFT JOIN pg_catalog.pg_am m ON m.oid = i.relam
               {join} CROSS JOIN LATERAL pg_catalog.pg_options_to_table({array}) o
              WHERE {USER_RELATIONS} AND {condition}"
        )
    };
    let toast = "JOIN pg_catalog.pg_class toast ON toast.oid = c.reltoastrelid";
    let parts = [
        of_relations("'r', 'p', 'm'", ObjectKind::Table, "table", "c.reloptions", ""),
        of_relations("'r', 'm'", ObjectKind::Table, "table", "toast.reloptions", toast),
        of_relations("'v'", ObjectKind::View, "view", "c.reloptions", ""),
        of_indexes("i.reloptions", "", &format!("NOT {}", is_settable_by_method(ObjectKind::Index, version))),
        format!(
            "SELECT 'column' AS what, o.option_name, {relation} || '.' || pg_catalog.quote_ident(a.attname) AS object
               FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               CROSS JOIN LATERAL pg_catalog.pg_options_to_table(a.attoptions) o
              WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND {USER_RELATIONS}
                AND NOT {}",
            is_settable(ObjectKind::Column, version)
        ),
        of_indexes(
            "a.attoptions",
            "JOIN pg_catalog.pg_attribute a ON a.attrelid = i.oid",
            "pg_catalog.starts_with(o.option_name, 'pg_')",
        ),
    ];
    let internal: Vec<String> = INTERNAL_OPTIONS.iter().map(|name| quote::literal(name)).collect();
    let rows = reader.rows(&format!(
        "SELECT what, option_name AS name, count(*) AS number, min(object COLLATE \"C\") AS example
           FROM ({}) AS options
          WHERE option_name NOT IN ({})
          GROUP BY what, option_name ORDER BY what, option_name COLLATE \"C\"",
        parts.join(" UNION ALL "),
        internal.join(", ")
    ))?;
    let major = version / 10_000;
    for row in &rows {
        let (what, name, example) = (row.text("what")?, row.text("name")?, row.text("example")?);
        let number: u64 = row.number("number")?;
        let others = if number > 1 { format!(" and {} more", number - 1) } else { String::new() };
        reader.notes.push(format!(
            "the option {} of the {what} {example}{others} is left out: it is not an option that users of PostgreSQL \
             {major} can set",
            quote::ident(name)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_differ_in_their_options() {
        let has = |major, name| known(ObjectKind::View, major).any(|known| known == name);
        assert!(has(15, "security_invoker") && !has(14, "security_invoker") && has(14, "security_barrier"));
        // A major version that is not in the list yet is treated as the newest one that is.
        assert!(has(19, "security_invoker"));
    }

    #[test]
    fn the_list_has_each_option_once() {
        for (place, (kind, name, first, last)) in LIST.iter().enumerate() {
            assert!(first <= last, "{name}");
            let again = LIST[..place].iter().any(|(other, known, ..)| other == kind && known == name);
            assert!(!again, "{kind:?} {name} is listed twice");
        }
    }
}
