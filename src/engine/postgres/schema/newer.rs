//! Servers that are newer than those tested: a database is used only if every catalog that is not known is empty.

use std::collections::BTreeSet;

use crate::engine::postgres::schema::quote::ident;
use crate::engine::postgres::wire::majors::is_newer;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};

/// The catalogs of all tested versions. A test compares this list with the catalogs of every server.
pub const KNOWN_CATALOGS: &[&str] = &[
    "pg_aggregate",
    "pg_am",
    "pg_amop",
    "pg_amproc",
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_authid",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_database",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_index",
    "pg_inherits",
    "pg_init_privs",
    "pg_language",
    "pg_largeobject",
    "pg_largeobject_metadata",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_parameter_acl",
    "pg_partitioned_table",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_publication_namespace",
    "pg_publication_rel",
    "pg_range",
    "pg_replication_origin",
    "pg_rewrite",
    "pg_seclabel",
    "pg_sequence",
    "pg_shdepend",
    "pg_shdescription",
    "pg_shseclabel",
    "pg_statistic",
    "pg_statistic_ext",
    "pg_statistic_ext_data",
    "pg_subscription",
    "pg_subscription_rel",
    "pg_tablespace",
    "pg_transform",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_config_map",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
    "pg_user_mapping",
];

/// The beginnings of the names of catalogs of newer versions, each with the objects that they describe.
const OF_NEWER_VERSIONS: [(&str, &str); 1] = [("pg_propgraph", "property graphs")];

/// Returns a message for each catalog of the session's database that is not known and is not empty, or cannot be read.
/// Returns none for a version that is tested.
pub(super) fn unknown(session: &mut Session) -> Result<Vec<String>> {
    if !is_newer(session.version()) {
        return Ok(Vec::new());
    }
    let found = session.rows(
        "SELECT c.relname AS name, pg_catalog.has_table_privilege(c.oid, 'SELECT') AS readable FROM pg_catalog.pg_class c
          WHERE c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace AND c.relkind = 'r' ORDER BY c.relname COLLATE \"C\"",
    )?;
    let known: BTreeSet<&str> = KNOWN_CATALOGS.iter().copied().collect();
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

/// Fails if the session's database has a catalog that is not known and is not empty.
pub(in crate::engine::postgres) fn require_known(session: &mut Session) -> Result<()> {
    let found = unknown(session)?;
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("the server is too new for this lifeboat: {}", found.join("; ")))
        .hint("use a newer lifeboat; nothing was changed"))
}
