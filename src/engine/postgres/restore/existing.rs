//! The objects that a database has before a restore, although it counts as empty: the extensions, and the schemas without
//! objects of users. On managed servers, an administrator creates the extensions that other roles may not create.

use std::collections::{HashMap, HashSet};

use crate::engine::postgres::schema::quote::ident;
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Result, one_line};

/// Returns the items without the statements that would create, change or drop an extension or a schema that exists. Their
/// owners, comments and versions are left as they are; their privileges are still set, as far as the session may.
pub(super) fn leave_alone(session: &mut Session, items: &[Item]) -> Result<Vec<Item>> {
    let rows = session.rows(
        "SELECT e.extname AS name, n.nspname AS schema
           FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace",
    )?;
    let mut extensions: HashMap<String, String> = HashMap::new();
    for row in &rows {
        extensions.insert(row.text("name")?.to_owned(), row.text("schema")?.to_owned());
    }
    let rows = session.rows("SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname <> 'public'")?;
    let schemas: HashSet<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
    let mut items = items.to_vec();
    for item in &mut items {
        match item.kind {
            Kind::Extension => {
                let Some(schema) = extensions.get(&item.name) else { continue };
                let is_there = |statement: &String| statement.ends_with(&format!(" WITH SCHEMA {}", ident(schema)));
                if item.create.first().is_some_and(|statement| !is_there(statement)) {
                    tracing::warn!(
                        "the extension {} is in another schema here ({}) than in the snapshot: objects that use it may \
                         not find it",
                        one_line(&item.name),
                        one_line(schema)
                    );
                }
            }
            Kind::Schema if schemas.contains(item.name.as_str()) => {}
            _ => continue,
        }
        item.exists = true;
        item.identity.clear();
        item.create.clear();
        item.set_owner.clear();
        item.comments.clear();
    }
    Ok(items)
}
