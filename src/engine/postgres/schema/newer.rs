//! Servers that are newer than those tested: a database is used only if every catalog that is not known is empty, and if the
//! columns that are not known have only values that objects of the system have too.

use std::collections::BTreeSet;

use crate::engine::postgres::schema::FIRST_NORMAL_OID;
use crate::engine::postgres::schema::quote::ident;
use crate::engine::postgres::wire::majors::is_newer;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};

/// The columns of the catalogs of all tested versions. A test compares this list with every server.
const KNOWN_COLUMNS: &str = include_str!("catalog_columns.txt");

/// The catalogs whose rows do not define objects, or are compared in another way.
const NOT_COMPARED: [&str; 8] = [
    "pg_depend",
    "pg_description",
    "pg_init_privs",
    "pg_largeobject",
    "pg_seclabel",
    "pg_statistic",
    "pg_statistic_ext_data",
    "pg_subscription_rel",
];

/// Returns the columns of the catalogs of all tested versions, as `catalog.column`.
fn known_columns() -> BTreeSet<&'static str> {
    KNOWN_COLUMNS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect()
}

/// Returns the catalogs that have these columns.
fn catalogs_of(columns: &BTreeSet<&'static str>) -> BTreeSet<&'static str> {
    columns.iter().filter_map(|name| Some(name.split_once('.')?.0)).collect()
}

/// The beginnings of the names of catalogs of newer versions, each with the objects that they describe.
const OF_NEWER_VERSIONS: [(&str, &str); 1] = [("pg_propgraph", "property graphs")];

/// Returns a message for everything that is not known in the catalogs of the session's database: a snapshot would lose it.
/// Returns none for a version that is tested.
pub(super) fn unknown(session: &mut Session) -> Result<Vec<String>> {
    let mut messages = unknown_catalogs(session)?;
    messages.extend(unknown_values(session)?);
    Ok(messages)
}

/// Returns a message for each catalog that is not known and is not empty, or cannot be read.
fn unknown_catalogs(session: &mut Session) -> Result<Vec<String>> {
    if !is_newer(session.version()) {
        return Ok(Vec::new());
    }
    let found = session.rows(
        "SELECT c.relname AS name, pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable FROM pg_catalog.pg_class c
          WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r' ORDER BY c.relname COLLATE \"C\"",
    )?;
    let known = catalogs_of(&known_columns());
    let mut messages = Vec::new();
    for row in &found {
        let name = row.text("name")?;
        if known.contains(name) {
            continue;
        }
        let is_empty = row.flag("readable")? && {
            let sql = format!("SELECT EXISTS (SELECT FROM pg_catalog.{}) AS has_rows", ident(name));
            !session.row(&sql)?.flag("has_rows")?
        };
        if !is_empty {
            let of = OF_NEWER_VERSIONS.iter().find(|(start, _)| name.starts_with(start));
            let objects = of.map_or("objects of a kind that this lifeboat does not know", |(_, objects)| *objects);
            messages.push(format!("the catalog {}: it describes {objects}, and is not empty", one_line(name)));
        }
    }
    Ok(messages)
}

/// Returns a message for each column that is not known of a known catalog, if it has a value for an object of a user that it
/// has for no object of the system: then the object has a property that is not known.
fn unknown_values(session: &mut Session) -> Result<Vec<String>> {
    if !is_newer(session.version()) {
        return Ok(Vec::new());
    }
    let columns = known_columns();
    let catalogs = catalogs_of(&columns);
    // The first column is the oid of the object, or of the one that it belongs to.
    let found = session.rows(
        "SELECT c.relname AS catalog, a.attname AS name, k.attname AS key FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
           JOIN pg_catalog.pg_attribute k ON k.attrelid = c.oid AND k.attnum = 1
          WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r' AND NOT c.relisshared
            AND a.attnum > 0 AND NOT a.attisdropped AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
          ORDER BY c.relname COLLATE \"C\", a.attnum",
    )?;
    let mut messages = Vec::new();
    for row in &found {
        let (catalog, name, key) = (row.text("catalog")?, row.text("name")?, ident(row.text("key")?));
        let shown = format!("{catalog}.{name}");
        if !catalogs.contains(catalog) || columns.contains(shown.as_str()) || NOT_COMPARED.contains(&catalog) {
            continue;
        }
        let (table, column) = (format!("pg_catalog.{}", ident(catalog)), ident(name));
        let value = session.row(&format!(
            "SELECT EXISTS (SELECT {column}::text FROM {table} WHERE {key}::oid >= {FIRST_NORMAL_OID} AND {column} IS NOT NULL
             EXCEPT SELECT {column}::text FROM {table} WHERE {key}::oid < {FIRST_NORMAL_OID}) AS is_new"
        ))?;
        if value.flag("is_new")? {
            messages.push(format!(
                "the column {} of the catalogs: it has a value that this lifeboat does not know",
                one_line(&shown)
            ));
        }
    }
    Ok(messages)
}

/// Fails if the session's database has a catalog that is not known and is not empty.
pub(in crate::engine::postgres) fn require_known(session: &mut Session) -> Result<()> {
    let found = unknown_catalogs(session)?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("the server is too new for this lifeboat: {}", found.join("; ")))
        .hint("use a newer lifeboat; nothing was changed"))
}
