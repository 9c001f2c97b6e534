//! The objects that a database has before a restore, although it counts as empty: the extensions, and the schemas without
//! objects of users. On managed servers, an administrator creates the extensions that other roles may not create.

use std::collections::{BTreeSet, HashSet};

use super::create;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Result, one_line};
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
    let names = read_names(session, items)?;
    let originals = items;
    let mut items = items.to_vec();
    for item in &mut items {
        if item.refers_to.as_deref().is_some_and(|schema| !schemas.contains(schema)) {
            item.create.clear();
            item.comments.clear();
        }
        match item.kind {
            Kind::Extension if extensions.contains(item.name.as_str()) => {
                if item.provided {
                    item.grants.clear();
                }
            }
            _ if item.provided => {
                if !is_there(originals, item, &schemas, &names) {
                    make_stand_in(item);
                    continue;
                }
                item.grants.clear();
            }
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

/// The schemas and names of the relations, types and functions in schemas of a provider.
type Names = HashSet<(String, String)>;

/// Reads the names in those schemas of a provider that the items name.
fn read_names(session: &mut Session, items: &[Item]) -> Result<Names> {
    let schemas: BTreeSet<String> =
        items.iter().filter(|item| item.provided).filter_map(|item| item.schema.as_deref()).map(literal).collect();
    if schemas.is_empty() {
        return Ok(Names::new());
    }
    let schemas = schemas.into_iter().collect::<Vec<_>>().join(", ");
    let rows = session.rows(&format!(
        "SELECT n.nspname AS schema, o.name FROM pg_catalog.pg_namespace n JOIN (
                SELECT relnamespace AS schema, relname AS name FROM pg_catalog.pg_class
                 UNION ALL SELECT typnamespace, typname FROM pg_catalog.pg_type
                 UNION ALL SELECT pronamespace, proname FROM pg_catalog.pg_proc) o ON o.schema = n.oid
          WHERE n.nspname = ANY (ARRAY[{schemas}]::name[])"
    ))?;
    rows.iter().map(|row| Ok((row.text("schema")?.to_owned(), row.text("name")?.to_owned()))).collect()
}

/// Returns true if the database has an object of a provider: itself, or the table or schema that it belongs to.
fn is_there(items: &[Item], item: &Item, schemas: &HashSet<&str>, names: &Names) -> bool {
    let table = item.table.map_or(item, |table| &items[table]);
    // The name of a function includes its argument types.
    let name = table.name.split('(').next().unwrap_or_default();
    match (&table.schema, table.kind) {
        (_, Kind::Schema) => schemas.contains(table.name.as_str()),
        (Some(schema), kind) if has_name(kind) => names.contains(&(schema.clone(), name.to_owned())),
        (Some(schema), _) => schemas.contains(schema.as_str()),
        (None, _) => false,
    }
}

/// Returns true if the name of an object of this kind is among [`Names`].
fn has_name(kind: Kind) -> bool {
    let relation = [Kind::Table, Kind::ForeignTable, Kind::Sequence, Kind::View, Kind::MaterializedView];
    let other = [Kind::Type, Kind::Domain, Kind::Function, Kind::Procedure, Kind::Aggregate];
    relation.contains(&kind) || other.contains(&kind)
}

/// Fails if extensions are in other schemas than in the snapshot, whose objects name them with their schemas.
pub(super) fn require_same_schemas(session: &mut Session, facts: &PostgresFacts) -> Result<()> {
    let rows = session.rows(
        "SELECT e.extname AS name, n.nspname AS schema, e.extrelocatable AS moves,
                pg_catalog.pg_get_userbyid(e.extowner) AS owner,
                pg_catalog.pg_has_role(e.extowner, 'USAGE') AS is_owner
           FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1",
    )?;
    let (mut found, mut remedies) = (Vec::new(), Vec::new());
    for row in &rows {
        let (name, schema, owner) = (row.text("name")?, row.text("schema")?, one_line(row.text("owner")?));
        let Some(saved) = facts.extensions.iter().find(|extension| extension.name == name) else { continue };
        if saved.schema == schema {
            continue;
        }
        let (shown, here, there) = (one_line(&ident(name)), one_line(&ident(schema)), one_line(&ident(&saved.schema)));
        found.push(format!("{shown} is in the schema {here}, and in {there} in the snapshot"));
        let remedy = if row.flag("moves")? {
            format!("ALTER EXTENSION {shown} SET SCHEMA {there};")
        } else {
            format!("DROP EXTENSION {shown}; CREATE EXTENSION {shown} SCHEMA {there}; (it cannot be moved)")
        };
        let who = if row.flag("is_owner")? { String::new() } else { format!(" as {owner}, to whom it belongs") };
        remedies.push(format!("{remedy}{who}"));
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "extensions of the database are in other schemas than in the snapshot: {}",
        found.join("; ")
    ))
    .hint(format!(
        "create the schemas that are missing, run the following, and drop the schemas that are empty then: {}",
        remedies.join(" ")
    )))
}

/// Warns about the extensions that differ from those of the snapshot, and are left as they are.
pub(super) fn warn_about_extensions(session: &mut Session, facts: &PostgresFacts) -> Result<()> {
    let rows =
        session.rows("SELECT e.extname AS name, e.extversion AS version FROM pg_catalog.pg_extension e ORDER BY 1")?;
    for row in &rows {
        let (name, version) = (row.text("name")?, row.text("version")?);
        let Some(saved) = facts.extensions.iter().find(|extension| extension.name == name) else { continue };
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
