//! The user objects in a database, to decide whether a restore may write to it. Extensions are not among them: on managed
//! servers, an administrator creates those that other roles may not create. Neither are the schemas that they are in. But the
//! rows that a snapshot has of their tables are.

use crate::engine::postgres::restore::configuration;
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::schema::{self, Item, Kind as ItemKind};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::Result;

/// Returns the objects in a database that conflict with the restore of a whole snapshot: none for an empty database. At
/// most 6 are returned.
pub(crate) fn contents(session: &mut Session) -> Result<Vec<String>> {
    settings::pin(session)?;
    session.execute("BEGIN READ ONLY")?;
    let schema = schema::read(session)?;
    let configuration = configuration::with_rows(session)?;
    session.execute("COMMIT")?;
    let is_of_extension = |name: &str| schema.extensions.iter().any(|extension| extension.schema == name);
    let own = schema.items.iter().filter(|item| match item.kind {
        ItemKind::Database | ItemKind::DatabaseSetting | ItemKind::SystemPrivileges | ItemKind::Extension => false,
        ItemKind::Schema => item.name != "public" && !is_of_extension(&item.name),
        _ => true,
    });
    let shown = |item: &Item| match &item.schema {
        Some(schema) => format!("{} {}", item.kind.words(), qualified(schema, &item.name)),
        None if item.kind == ItemKind::LargeObject => format!("large object {}", item.name),
        None => format!("{} {}", item.kind.words(), ident(&item.name)),
    };
    // Objects that cannot be saved are also in the database.
    Ok(own.map(shown).chain(schema.refused.iter().cloned()).chain(configuration).take(6).collect())
}
