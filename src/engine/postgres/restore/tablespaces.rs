//! The tablespaces of restored tables and indexes.

use crate::engine::postgres::restore::target::Server;
use crate::engine::postgres::schema::Item;
use crate::engine::postgres::schema::quote::literal;
use crate::platform::error::{Result, one_line};
use crate::snapshots::manifest::PostgresFacts;

/// Returns the tablespaces of a snapshot that the server does not have, or in which the role may not create objects.
pub(super) fn missing(server: &mut Server, facts: &PostgresFacts) -> Result<Vec<String>> {
    if facts.tablespaces.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = facts.tablespaces.iter().map(|name| literal(name)).collect();
    let rows = server.session().rows(&format!(
        "SELECT spcname AS name FROM pg_catalog.pg_tablespace
          WHERE spcname IN ({}) AND pg_catalog.has_tablespace_privilege(oid, 'CREATE')",
        names.join(", ")
    ))?;
    let usable: Vec<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
    Ok(facts.tablespaces.iter().filter(|name| !usable.contains(&name.as_str())).cloned().collect())
}

/// Leaves the tablespaces out for which `is_left_out` returns true: the objects are stored in the database's own.
pub(super) fn leave_out(items: &mut [Item], is_left_out: impl Fn(&str) -> bool) {
    for item in items {
        item.tablespace.take_if(|name| is_left_out(name));
    }
}

/// Warns about the tablespaces that the server does not have.
pub(super) fn warn_about(missing: &[String]) {
    for name in missing {
        tracing::warn!(
            "the tablespace {} does not exist on the server, or the role may not use it: what was in it is restored to the \
             database's own tablespace (--no-tablespaces does so without a warning)",
            one_line(name)
        );
    }
}
