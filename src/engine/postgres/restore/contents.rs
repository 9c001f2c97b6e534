//! What a database holds of its own, to know whether a restore may go into it.

use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::schema::{self, Item, Kind as ItemKind};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// The things in a database that a restore of a whole snapshot would meet: empty for an empty database.
pub fn contents(session: &mut Session) -> Result<Vec<String>> {
    session.execute("BEGIN READ ONLY")?;
    let schema = schema::read(session)?;
    session.execute("COMMIT")?;
    let own = schema.items.iter().filter(|item| match item.kind {
        ItemKind::Database | ItemKind::DatabaseSetting | ItemKind::SystemPrivileges => false,
        ItemKind::Schema => item.name != "public",
        // What this one brings along has no rows, and a restore would make it first.
        ItemKind::Extension => !["plpgsql", timescale::EXTENSION].contains(&item.name.as_str()),
        _ => true,
    });
    let shown = |item: &Item| match &item.schema {
        Some(schema) => format!("{} {}", item.kind.words(), qualified(schema, &item.name)),
        None if item.kind == ItemKind::LargeObject => format!("large object {}", item.name),
        None => format!("{} {}", item.kind.words(), ident(&item.name)),
    };
    // What cannot be carried is there all the same.
    Ok(own.map(shown).chain(schema.refused.iter().cloned()).take(6).collect())
}
