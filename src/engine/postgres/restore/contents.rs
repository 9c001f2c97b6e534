//! The user objects in a database, to decide whether a restore may write to it. Extensions are not among them: on managed
//! servers, an administrator creates those that other roles may not create. Neither are the schemas that they are in. But the
//! rows that a snapshot has of their tables are.

use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::restore::configuration;
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::schema::{self, Item, Kind as ItemKind, provided};
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::Result;

/// Returns the objects in a database that conflict with the restore of a whole snapshot: none for an empty database. At
/// most 6 are returned.
///
/// With a provider, its objects do not count, nor do the default privileges and publications of every database there.
pub(crate) fn contents(session: &mut Session, provider: Option<Provider>) -> Result<Vec<String>> {
    settings::pin(session)?;
    session.execute("BEGIN READ ONLY")?;
    let mut schema = schema::read(session)?;
    if let Some(provider) = provider {
        provided::leave_out(session, provider, &mut schema)?;
    }
    let configuration = configuration::with_rows(session, provider)?;
    session.execute("COMMIT")?;
    let is_of_extension = |name: &str| schema.extensions.iter().any(|extension| extension.schema == name);
    let is_shared = |name: &str| provider.is_some_and(|provider| provider.shared_schemas().contains(&name));
    let own = schema.items.iter().filter(|item| match item.kind {
        ItemKind::Database | ItemKind::DatabaseSetting | ItemKind::SystemPrivileges | ItemKind::Extension => false,
        ItemKind::Schema => {
            item.name != "public" && !is_of_extension(&item.name) && !is_shared(&item.name) && !item.provided
        }
        ItemKind::DefaultPrivileges | ItemKind::Publication => provider.is_none(),
        _ => !item.provided,
    });
    let shown = |item: &Item| match &item.schema {
        Some(schema) => format!("{} {}", item.kind.words(), qualified(schema, &item.name)),
        None if item.kind == ItemKind::LargeObject => format!("large object {}", item.name),
        None => format!("{} {}", item.kind.words(), ident(&item.name)),
    };
    // Objects that cannot be saved are also in the database.
    Ok(own.map(shown).chain(schema.refused.iter().cloned()).chain(configuration).take(6).collect())
}
