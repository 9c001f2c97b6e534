//! The roles that a restore acts as: it gives objects to their owners, and grants as their grantors. A role that only
//! receives privileges must exist, and nothing more.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::postgres::copy::as_owner::Lent;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::schema::{Item, Kind};
use crate::engine::postgres::wire::majors::VERSION_16;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Result, one_line};

/// The role of which the owner of a database is a member in this database, without a grant.
const DATABASE_OWNER: &str = "pg_database_owner";

/// The ways in which the statements of a restore act as a role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RoleUse {
    /// `ALTER ... OWNER TO`; the later statements for the object need the owner's privileges.
    owns: bool,
    /// `SET ROLE`, for privileges that another role than the owner granted.
    grants: bool,
    /// `ALTER DEFAULT PRIVILEGES FOR ROLE`.
    has_defaults: bool,
}

/// Returns the roles that the statements of `items` act as. The owner of the database itself is one of them only if
/// `with_database` is true.
fn required(items: &[Item], with_database: bool) -> BTreeMap<String, RoleUse> {
    let mut roles: BTreeMap<String, RoleUse> = BTreeMap::new();
    // Privileges on objects of the system are set as far as the session may.
    let is_needed =
        |item: &&Item| item.kind != Kind::SystemPrivileges && (with_database || !item.kind.is_of_database());
    for item in items.iter().filter(is_needed) {
        for statement in item.set_owner.iter().chain(&item.grants) {
            if let Some(grantor) = statement.strip_prefix("SET ROLE ") {
                roles.entry(unquoted(grantor)).or_default().grants = true;
            }
        }
        let Some(owner) = item.owner.as_ref().filter(|_| !item.set_owner.is_empty()) else { continue };
        let use_of_role = roles.entry(owner.clone()).or_default();
        if item.kind == Kind::DefaultPrivileges {
            use_of_role.has_defaults = true;
        } else {
            use_of_role.owns = true;
        }
    }
    roles.remove(DATABASE_OWNER);
    roles
}

/// Returns the names of the roles that the restore of a whole database from `items` acts as.
pub(super) fn required_names(items: &[Item]) -> BTreeSet<String> {
    required(items, true).into_keys().collect()
}

/// Returns the name in a quoted identifier.
fn unquoted(ident: &str) -> String {
    match ident.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => ident.to_owned(),
    }
}

/// Returns the roles that the session cannot act as although the restore of `items` needs it, as messages. Roles that do
/// not exist are not named.
pub(super) fn obstacles(session: &mut Session, items: &[Item], with_database: bool) -> Result<Vec<String>> {
    let required = required(items, with_database);
    if required.is_empty() || session.about().is_superuser {
        return Ok(Vec::new());
    }
    let names: Vec<String> = required.keys().map(|role| literal(role)).collect();
    let may_set = if session.version() >= VERSION_16 { "SET" } else { "MEMBER" };
    let rows = session.rows(&format!(
        "SELECT rolname AS name, pg_catalog.pg_has_role(oid, 'MEMBER') AS member,
                pg_catalog.pg_has_role(oid, '{may_set}') AS may_set, pg_catalog.pg_has_role(oid, 'USAGE') AS inherits
           FROM pg_catalog.pg_roles WHERE rolname IN ({}) ORDER BY 1",
        names.join(", ")
    ))?;
    let has_options = session.version() >= VERSION_16;
    let user = &session.about().user;
    let us = one_line(user);
    let mut found = Vec::new();
    for row in &rows {
        let name = row.text("name")?;
        let Some(use_of_role) = required.get(name) else { continue };
        let role = one_line(name);
        let needs_privileges = use_of_role.owns || use_of_role.has_defaults && has_options;
        let grant = one_line(&format!("GRANT {} TO {}", ident(name), ident(user)));
        if !row.flag("member")? {
            found.push(format!("the role {us} is not a member of {role} ({grant})"));
        } else if (use_of_role.owns || use_of_role.grants) && !row.flag("may_set")? {
            found.push(format!("the role {us} is a member of {role} without the option SET ({grant} WITH SET TRUE)"));
        } else if needs_privileges && !row.flag("inherits")? {
            let remedy = if has_options {
                format!("{grant} WITH INHERIT TRUE")
            } else {
                format!("ALTER ROLE {} INHERIT", ident(user))
            };
            found.push(format!("the role {us} does not inherit the privileges of {role} ({})", one_line(&remedy)));
        }
    }
    Ok(found)
}

/// Grants the owners of the objects in a new schema what the server requires of a new owner: CREATE on the schema. All
/// privileges are set at the end of a restore. A superuser can give objects to anyone.
pub(super) fn lend_create(session: &mut Session, items: &[Item], schema: &str, lent: &mut Lent) -> Result<()> {
    if session.about().is_superuser {
        return Ok(());
    }
    let is_given = |item: &&Item| item.schema.as_deref() == Some(schema) && !item.set_owner.is_empty();
    let owners: BTreeSet<&String> = items.iter().filter(is_given).filter_map(|item| item.owner.as_ref()).collect();
    if owners.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = owners.into_iter().map(|owner| literal(owner)).collect();
    let rows = session.rows(&format!(
        "SELECT r.rolname AS owner FROM pg_catalog.pg_roles r, pg_catalog.pg_namespace n
          WHERE n.nspname = {} AND r.rolname IN ({}) AND NOT pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')",
        literal(schema),
        names.join(", ")
    ))?;
    for row in &rows {
        let (schema, owner) = (ident(schema), ident(row.text("owner")?));
        session.execute(&format!("GRANT CREATE ON SCHEMA {schema} TO {owner}"))?;
        lent.add(format!("REVOKE CREATE ON SCHEMA {schema} FROM {owner}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn item(json: &str) -> Item {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_role_that_only_receives_privileges_is_not_acted_as() {
        let items = [
            item(
                r#"{"id": 0, "oid": 1, "kind": "table", "name": "t", "section": "pre", "owner": "app", "set_owner":
                ["ALTER TABLE s.t OWNER TO app"], "grants": ["GRANT SELECT ON TABLE s.t TO reader", "SET ROLE \"A \"\"b\"",
                "GRANT SELECT ON TABLE s.t TO writer", "RESET ROLE"], "roles": ["app", "reader", "A \"b", "writer"]}"#,
            ),
            item(
                r#"{"id": 1, "oid": 2, "kind": "default_privileges", "name": "tables of maker", "section": "last",
                "owner": "maker", "set_owner": ["ALTER DEFAULT PRIVILEGES FOR ROLE maker GRANT SELECT ON TABLES TO reader"]}"#,
            ),
            item(
                r#"{"id": 2, "oid": 3, "kind": "schema", "name": "public", "section": "pre", "owner": "pg_database_owner",
                "set_owner": ["ALTER SCHEMA public OWNER TO pg_database_owner"]}"#,
            ),
            item(
                r#"{"id": 3, "oid": 4, "kind": "database_setting", "name": "owner", "section": "last", "owner": "boss",
                "set_owner": ["..."]}"#,
            ),
        ];
        let names = |with_database| required(&items, with_database).into_keys().collect::<Vec<_>>();
        assert_eq!(names(false), ["A \"b", "app", "maker"]);
        assert_eq!(names(true), ["A \"b", "app", "boss", "maker"]);
        let use_of_role = required(&items, false);
        assert_eq!(use_of_role["app"], RoleUse { owns: true, ..RoleUse::default() });
        assert_eq!(use_of_role["A \"b"], RoleUse { grants: true, ..RoleUse::default() });
        assert_eq!(use_of_role["maker"], RoleUse { has_defaults: true, ..RoleUse::default() });
    }
}
