//! Separates the objects of a provider from those of the users of a managed server.
//!
//! The objects of users may use those of the provider: a policy calls `auth.uid()`, a foreign key refers to `auth.users`.
//! On a server of the provider, such objects find them again. In another database, such as that of a drill, the
//! objects that are used are created as stand-ins, without rows, owners and privileges.
//!
//! Users also have objects in schemas of the provider, and rows in its tables. They are left out with it, and named.

use std::collections::BTreeSet;

use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::schema::{Item, Kind, Schema, USER_SCHEMAS, quote};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result};
use crate::snapshots::manifest::{PostgresFacts, ProviderFacts};

/// Returns the provider whose objects a snapshot does not contain.
fn of(facts: &PostgresFacts) -> Option<Provider> {
    facts.provider.as_ref().and_then(|provider| provider.name.parse().ok())
}

/// Reads the roles of a server, and decides something by their names.
fn by_roles<T>(session: &mut Session, decide: impl FnOnce(&[&str]) -> T) -> Result<T> {
    let rows = session.rows("SELECT rolname AS name FROM pg_catalog.pg_roles")?;
    let names: Vec<&str> = rows.iter().map(|row| row.text("name")).collect::<Result<_>>()?;
    Ok(decide(&names))
}

/// Returns the provider of a server, by its roles; `None` if they are of several providers.
pub(in crate::engine::postgres) fn of_server(session: &mut Session) -> Result<Option<Provider>> {
    by_roles(session, Provider::of_roles)
}

/// Returns the provider of the server that a snapshot is restored to: the one that the config names for it, or that of the
/// snapshot if the server is of it too. Fails if the server is not of the provider that the config names.
pub(in crate::engine::postgres) fn of_target(
    session: &mut Session,
    configured: Option<Provider>,
    facts: &PostgresFacts,
) -> Result<Option<Provider>> {
    if let Some(provider) = configured {
        require(session, provider)?;
        return Ok(Some(provider));
    }
    match of(facts) {
        Some(provider) => Ok(of_server(session)?.filter(|found| *found == provider)),
        None => Ok(None),
    }
}

/// Fails if the server is not of this provider: then schemas of the names that the provider uses belong to users.
pub(in crate::engine::postgres) fn require(session: &mut Session, provider: Provider) -> Result<()> {
    if by_roles(session, |roles| provider.has_role_in(roles))? {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the server is not of the provider {provider}: it has none of the roles {}, so that nothing can be left out as the \
         provider's",
        provider.roles().join(", ")
    ))
    .hint("remove the provider of the source from lifeboat.toml, or omit --provider; or connect to the provider's server"))
}

/// Returns the schemas of a database that belong to a provider: none without a provider, or on the server of another.
pub(in crate::engine::postgres) fn schemas(
    session: &mut Session,
    provider: Option<Provider>,
) -> Result<BTreeSet<String>> {
    let Some(provider) = provider else { return Ok(BTreeSet::new()) };
    if !by_roles(session, |roles| provider.has_role_in(roles))? {
        return Ok(BTreeSet::new());
    }
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

/// Returns the tables in schemas of a provider that may have rows: those with a file that is not empty.
pub(in crate::engine::postgres) fn tables_with_rows(
    session: &mut Session,
    schemas: &BTreeSet<String>,
) -> Result<Vec<String>> {
    let names: Vec<String> = schemas.iter().map(|name| quote::literal(name)).collect();
    let rows = session.rows(&format!(
        "SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind = 'r' AND n.nspname = ANY (ARRAY[{}]::name[]) AND pg_catalog.pg_relation_size(c.oid) > 0
          ORDER BY 1",
        names.join(", ")
    ))?;
    rows.iter().map(|row| Ok(row.text("name")?.to_owned())).collect()
}

/// The rules by which an object belongs to a provider.
struct Rules<'a> {
    provider: Provider,
    schemas: &'a BTreeSet<String>,
    items: &'a [Item],
}

impl Rules<'_> {
    fn is_in(&self, schema: Option<&String>) -> bool {
        schema.is_some_and(|schema| self.schemas.contains(schema))
    }

    fn is_in_its_schemas(&self, item: &Item) -> bool {
        self.is_in(item.schema.as_ref())
            || item.table.is_some_and(|table| self.is_in(self.items[table].schema.as_ref()))
    }

    /// Returns true if a role of the provider owns the object.
    fn is_owned(&self, item: &Item) -> bool {
        item.owner.as_deref().is_some_and(|owner| self.provider.roles().contains(&owner))
    }

    /// Returns true if the object belongs to a publication of the provider.
    fn is_in_its_publication(&self, item: &Item) -> bool {
        item.needs
            .iter()
            .map(|need| &self.items[*need])
            .any(|need| need.kind == Kind::Publication && self.is_owned(need))
    }

    /// Returns true if the object belongs to the provider, or to a user in a schema of the provider.
    fn is_left_out(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Schema => self.schemas.contains(&item.name),
            Kind::Extension => {
                let is_there = |create: &String| {
                    let is_in = |schema| create.ends_with(&format!(" WITH SCHEMA {}", quote::ident(schema)));
                    self.schemas.iter().any(|schema| is_in(schema))
                };
                self.provider.extensions().contains(&item.name.as_str()) || item.create.first().is_some_and(is_there)
            }
            Kind::DefaultPrivileges => self.is_in(item.schema.as_ref()) || self.is_owned(item),
            Kind::EventTrigger => {
                self.is_owned(item) || item.needs.iter().any(|need| self.is_in(self.items[*need].schema.as_ref()))
            }
            Kind::Publication => self.is_owned(item),
            Kind::PublicationTable => self.is_in_its_schemas(item) || self.is_in_its_publication(item),
            // The provider has changed these in every database, and only a superuser may.
            Kind::SystemPrivileges => true,
            _ => {
                let is_shared = |schema: &String| self.provider.shared_schemas().contains(&schema.as_str());
                self.is_in_its_schemas(item) || item.schema.as_ref().is_some_and(is_shared) && self.is_owned(item)
            }
        }
    }

    /// Returns true if an object that is left out is named: a user may have created it.
    fn is_named(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Policy | Kind::EventTrigger => true,
            // A trigger of the provider calls a function in the schema of its table.
            Kind::Trigger => item.needs.iter().map(|need| &self.items[*need]).any(|need| {
                need.kind == Kind::Function
                    && (!self.is_owned(need) || item.table.is_some_and(|table| need.schema != self.items[table].schema))
            }),
            Kind::PublicationTable => !self.is_in_its_schemas(item) || !self.is_in_its_publication(item),
            Kind::Schema | Kind::Extension | Kind::DefaultPrivileges => false,
            _ => item.owner.is_some() && !self.is_owned(item),
        }
    }
}

/// Returns the kind and name of an object, as `COMMENT ON` has them where it can be used.
fn shown(item: &Item) -> String {
    if item.identity.is_empty() { format!("{} {}", item.kind.words(), item.name) } else { item.identity.clone() }
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
    let rules = Rules { provider, schemas: &schemas, items: &items };
    let provided: Vec<bool> = items.iter().map(|item| rules.is_left_out(item)).collect();
    let named = items.iter().filter(|item| provided[item.id] && rules.is_named(item));
    let facts = ProviderFacts {
        name: provider.name().to_owned(),
        schemas: schemas.iter().cloned().collect(),
        objects: named.map(shown).collect(),
        tables_with_rows: Vec::new(),
    };
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
        keep_owner_of_public(item, provider);
    }
    let own = || schema.items.iter().filter(|item| !item.provided);
    schema.roles = own().flat_map(|item| item.roles.iter().cloned()).collect();
    let extensions: BTreeSet<&str> =
        own().filter(|item| item.kind == Kind::Extension).map(|item| item.name.as_str()).collect();
    schema.extensions.retain(|extension| extensions.contains(extension.name.as_str()));
    let starts: Vec<String> = schemas.iter().map(|schema| format!(" {}.", quote::ident(schema))).collect();
    let subject = |reason: &String| reason.split(": ").next().unwrap_or_default().to_owned();
    schema.refused.retain(|reason| !starts.iter().any(|start| subject(reason).contains(start)));
    Ok(facts)
}

/// Leaves the schema `public` to the role that the provider has given it to in every new database.
fn keep_owner_of_public(item: &mut Item, provider: Provider) {
    let is_default = |owner: &str| provider.roles().contains(&owner) || provider.administrators().contains(&owner);
    if item.kind == Kind::Schema && item.name == "public" && item.owner.as_deref().is_some_and(is_default) {
        item.set_owner.clear();
        // The privileges may name it too: `TO role`, `FROM role` or `SET ROLE role`.
        let is_named = |role: &String| {
            let end = format!(" {}", quote::ident(role));
            item.grants.iter().any(|grant| grant.trim_end_matches(" WITH GRANT OPTION").ends_with(&end))
        };
        item.roles.retain(|role| item.owner.as_ref() != Some(role) || is_named(role));
    }
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
