//! The objects that a database has before a restore, although it counts as empty: the extensions, and the schemas without
//! objects of users. On managed servers, an administrator creates the extensions that other roles may not create.

use std::collections::HashSet;

use super::create;
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Result, one_line};
use crate::snapshots::manifest::PostgresFacts;

/// Opens a session in a database that is filled.
pub(super) fn session(params: &Params, connect: impl Fn(&Params) -> Result<Session>) -> Result<Session> {
    let mut session = connect(params)?;
    settings::pin(&mut session)?;
    Ok(session)
}

/// Returns the items without the statements that would create, change or drop an extension or a schema that exists. Their
/// owners, comments and versions are left as they are; their privileges are still set, as far as the session may.
pub(super) fn leave_alone(session: &mut Session, items: &[Item]) -> Result<Vec<Item>> {
    let rows = session.rows("SELECT extname AS name FROM pg_catalog.pg_extension")?;
    let extensions: HashSet<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
    let rows = session.rows("SELECT nspname AS name FROM pg_catalog.pg_namespace WHERE nspname <> 'public'")?;
    let schemas: HashSet<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
    let rows = session.rows("SELECT pubname AS name FROM pg_catalog.pg_publication")?;
    let publications: HashSet<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
    let mut items = items.to_vec();
    for item in &mut items {
        if item.refers_to.as_deref().is_some_and(|schema| !schemas.contains(schema)) {
            item.create.clear();
            item.comments.clear();
        }
        match item.kind {
            _ if item.provided => {
                let schema = if item.kind == Kind::Schema { Some(item.name.as_str()) } else { item.schema.as_deref() };
                if !schema.is_some_and(|schema| schemas.contains(schema)) {
                    make_stand_in(item);
                    continue;
                }
                item.grants.clear();
            }
            Kind::Extension if extensions.contains(item.name.as_str()) => {}
            Kind::Schema if schemas.contains(item.name.as_str()) => {}
            Kind::Publication if publications.contains(item.name.as_str()) => {}
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

/// Warns about the extensions that differ from those of the snapshot, and are left as they are.
pub(super) fn warn_about_extensions(session: &mut Session, facts: &PostgresFacts) -> Result<()> {
    let rows = session.rows(
        "SELECT e.extname AS name, e.extversion AS version, n.nspname AS schema
           FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace",
    )?;
    for row in &rows {
        let (name, version, schema) = (row.text("name")?, row.text("version")?, row.text("schema")?);
        let Some(saved) = facts.extensions.iter().find(|extension| extension.name == name) else { continue };
        if saved.schema != schema {
            tracing::warn!(
                "the extension {} is in another schema here ({}) than in the snapshot: objects that use it may not find it",
                one_line(name),
                one_line(schema)
            );
        }
        if numbers(version) < numbers(&saved.version) {
            tracing::warn!(
                "the extension {} has an older version here ({}) than in the snapshot ({}): it may lack functions that \
                 objects use",
                one_line(name),
                one_line(version),
                one_line(&saved.version)
            );
        }
    }
    Ok(())
}

/// Returns the numbers in a version.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Removes the statements that change what an empty database has already, and that dropping the restored objects does not
/// undo. Returns true if there were any.
pub(super) fn leave_out_changes(items: &mut [Item]) -> bool {
    let mut is_changed = false;
    for item in items {
        let is_there = item.exists || item.kind == Kind::Schema && item.name == "public";
        if !is_there && !matches!(item.kind, Kind::DefaultPrivileges | Kind::SystemPrivileges) {
            continue;
        }
        for statements in [&mut item.create, &mut item.set_owner, &mut item.comments, &mut item.grants] {
            is_changed |= !statements.is_empty();
            statements.clear();
        }
    }
    is_changed
}

/// Returns the items as they are created in a database that has no schema of a provider.
pub(super) fn without_provider(items: &[Item]) -> Vec<Item> {
    let mut items = items.to_vec();
    for item in &mut items {
        if item.provided {
            make_stand_in(item);
        }
        if item.refers_to.is_some() {
            item.create.clear();
            item.comments.clear();
        }
    }
    items
}

/// Makes an object of a provider one that only other objects can refer to.
fn make_stand_in(item: &mut Item) {
    if item.kind == Kind::Extension {
        item.create.clear();
    }
    item.set_owner.clear();
    item.comments.clear();
    item.grants.clear();
}

/// Returns what a database lacks because it is not of the snapshot's provider: the objects for which stand-ins are created,
/// and the foreign keys that are left out. `items` are those that are created in it.
pub(super) fn lacking(items: &[Item]) -> Vec<String> {
    let is_shown = |item: &&Item| {
        let is_stand_in = item.provided && !item.exists && !item.identity.is_empty() && item.kind != Kind::Schema;
        is_stand_in || item.refers_to.is_some() && item.create.is_empty()
    };
    items.iter().filter(is_shown).map(create::shown).collect()
}

/// Warns about what a database lacks because it is not of the snapshot's provider.
pub(super) fn warn_about_lacking(items: &[Item]) {
    let lacking = lacking(items);
    if !lacking.is_empty() {
        tracing::warn!(
            "not restored, because they belong to the provider of the server, or need it (objects have empty stand-ins): {}",
            lacking.join(", ")
        );
    }
}
