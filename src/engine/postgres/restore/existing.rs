//! The objects that a database has before a restore, although it counts as empty: the extensions, and the schemas without
//! objects of users. On managed servers, an administrator creates the extensions that other roles may not create.

use std::collections::HashSet;

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
    let mut items = items.to_vec();
    for item in &mut items {
        match item.kind {
            Kind::Extension if extensions.contains(item.name.as_str()) => {}
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
