//! Separates the objects of a provider from those of the users of a managed server.
//!
//! The objects of users may use those of the provider: a policy calls `auth.uid()`, a foreign key refers to `auth.users`.
//! Where the provider has created them, such objects find them again. In another database, such as that of a drill, the
//! objects that are used are created as stand-ins, without rows, owners and privileges.

use std::collections::BTreeSet;

use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::schema::{Item, Kind, Schema, USER_SCHEMAS, quote};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;
use crate::snapshots::manifest::{PostgresFacts, ProviderFacts};

/// Returns the provider whose objects a snapshot does not contain.
pub(in crate::engine::postgres) fn of(facts: &PostgresFacts) -> Option<Provider> {
    facts.provider.as_ref().and_then(|provider| provider.name.parse().ok())
}

/// Returns the schemas of a database that belong to a provider: none without a provider.
pub(in crate::engine::postgres) fn schemas(
    session: &mut Session,
    provider: Option<Provider>,
) -> Result<BTreeSet<String>> {
    let Some(provider) = provider else { return Ok(BTreeSet::new()) };
    let rows = session.rows(&format!(
        "SELECT n.nspname AS name, pg_catalog.pg_get_userbyid(n.nspowner) AS owner
           FROM pg_catalog.pg_namespace n WHERE {USER_SCHEMAS} AND n.nspname <> 'public'"
    ))?;
    let mut schemas = BTreeSet::new();
    for row in &rows {
        let (name, owner) = (row.text("name")?, row.text("owner")?);
        if provider.schemas().contains(&name) || provider.roles().contains(&owner) {
            schemas.insert(name.to_owned());
        }
    }
    Ok(schemas)
}

/// Returns true if an object belongs to a provider. `schemas` are the provider's.
fn is_provided(item: &Item, items: &[Item], provider: Provider, schemas: &BTreeSet<String>) -> bool {
    let is_in = |schema: &Option<String>| schema.as_ref().is_some_and(|schema| schemas.contains(schema));
    let is_of_roles = || item.owner.as_deref().is_some_and(|owner| provider.roles().contains(&owner));
    match item.kind {
        Kind::Schema => schemas.contains(&item.name),
        Kind::Extension => item.create.first().is_some_and(|create| {
            schemas.iter().any(|schema| create.ends_with(&format!(" WITH SCHEMA {}", quote::ident(schema))))
        }),
        Kind::DefaultPrivileges => is_in(&item.schema) || is_of_roles(),
        Kind::EventTrigger => is_of_roles() || item.needs.iter().any(|need| is_in(&items[*need].schema)),
        // The provider has changed these in every database, and only a superuser may.
        Kind::SystemPrivileges => true,
        _ => is_in(&item.schema) || item.table.is_some_and(|table| is_in(&items[table].schema)),
    }
}

/// Removes the objects of a provider from a schema, except those that other objects use, which are marked. Returns what was
/// removed.
pub(in crate::engine::postgres) fn leave_out(
    session: &mut Session,
    provider: Provider,
    schema: &mut Schema,
) -> Result<ProviderFacts> {
    let schemas = schemas(session, Some(provider))?;
    let items = std::mem::take(&mut schema.items);
    let provided: Vec<bool> = items.iter().map(|item| is_provided(item, &items, provider, &schemas)).collect();
    let mut facts = ProviderFacts {
        name: provider.name().to_owned(),
        schemas: schemas.iter().cloned().collect(),
        objects: Vec::new(),
    };
    // A user creates triggers and policies on tables of the provider.
    for item in items.iter().filter(|item| provided[item.id] && matches!(item.kind, Kind::Trigger | Kind::Policy)) {
        let uses_function = item.needs.iter().any(|need| !provided[*need] && items[*need].kind == Kind::Function);
        if item.kind == Kind::Policy || uses_function {
            facts.objects.push(item.identity.clone());
        }
    }
    let by_role = items.iter().filter(|item| provided[item.id] && item.kind == Kind::EventTrigger);
    facts.objects.extend(by_role.map(|item| item.identity.clone()));
    let kept = used(&items, &provided);
    let mut places = vec![0; items.len()];
    for item in items.iter().filter(|item| kept[item.id]) {
        places[item.id] = schema.items.len();
        schema.items.push(item.clone());
    }
    for item in &mut schema.items {
        let old = &items[item.id];
        item.id = places[old.id];
        item.provided = provided[old.id];
        if old.kind == Kind::ForeignKey {
            let referred = old.needs.iter().find(|need| provided[**need]);
            item.refers_to = referred.and_then(|need| items[*need].schema.clone());
        }
        item.needs = old.needs.iter().filter(|need| kept[**need]).map(|need| places[*need]).collect();
        item.table = old.table.filter(|table| kept[*table]).map(|table| places[table]);
    }
    let own = || schema.items.iter().filter(|item| !item.provided);
    schema.roles = own().flat_map(|item| item.roles.iter().cloned()).collect();
    let extensions: BTreeSet<&str> =
        own().filter(|item| item.kind == Kind::Extension).map(|item| item.name.as_str()).collect();
    schema.extensions.retain(|extension| extensions.contains(extension.name.as_str()));
    let is_theirs = |reason: &String| schemas.iter().any(|schema| reason.contains(&format!(" {schema}.")));
    schema.refused.retain(|reason| !is_theirs(reason));
    Ok(facts)
}

/// Returns the items to keep, by their ids: those of users, and those of the provider that they use. A foreign key can be
/// left out, so what it refers to is not kept for it.
fn used(items: &[Item], provided: &[bool]) -> Vec<bool> {
    let mut kept: Vec<bool> = provided.iter().map(|provided| !provided).collect();
    let is_first = |item: &&Item| !provided[item.id] && item.kind != Kind::ForeignKey;
    let mut rest: Vec<usize> = items.iter().filter(is_first).map(|item| item.id).collect();
    while let Some(id) = rest.pop() {
        let schema = items[id].schema.as_ref();
        let own_schema = items.iter().find(|item| item.kind == Kind::Schema && Some(&item.name) == schema);
        let needs = items[id].needs.iter().copied().chain(own_schema.map(|item| item.id));
        for need in needs {
            if !std::mem::replace(&mut kept[need], true) {
                rest.push(need);
            }
        }
    }
    kept
}
