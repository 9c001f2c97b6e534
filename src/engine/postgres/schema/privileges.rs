//! Privileges on objects that no restore creates: those of the system and of extensions, and existing schemas.

use std::collections::BTreeMap;

use crate::engine::postgres::schema::gone_roles::GoneRoles;
use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::{
    Address, FIRST_NORMAL_OID, Item, Kind, Object, Reader, Section, USER_SCHEMAS, grants, quote,
};
use crate::engine::postgres::wire::session::{Row, Session};
use crate::platform::error::Result;

/// For each class of objects that have privileges: its catalog, the name of the catalog, the word in GRANT, the name in
/// GRANT, the prefix of its columns, its letter for acldefault(), and the join that its name needs.
const WITH_PRIVILEGES: [(u32, &str, &str, &str, &str, &str, &str); 7] = [
    (
        catalogs::CLASS,
        "pg_class",
        "CASE x.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END",
        "pg_catalog.format('%I.%I', n.nspname, x.relname)",
        "rel",
        "CASE x.relkind WHEN 'S' THEN 's'::\"char\" ELSE 'r'::\"char\" END",
        "JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace",
    ),
    (
        catalogs::PROC,
        "pg_proc",
        "CASE x.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END",
        "pg_catalog.format('%I.%I(%s)', n.nspname, x.proname, pg_catalog.oidvectortypes(x.proargtypes))",
        "pro",
        "'f'::\"char\"",
        "JOIN pg_catalog.pg_namespace n ON n.oid = x.pronamespace",
    ),
    (
        catalogs::TYPE,
        "pg_type",
        "'TYPE'",
        "pg_catalog.format('%I.%I', n.nspname, x.typname)",
        "typ",
        "'T'::\"char\"",
        "JOIN pg_catalog.pg_namespace n ON n.oid = x.typnamespace",
    ),
    (catalogs::NAMESPACE, "pg_namespace", "'SCHEMA'", "pg_catalog.quote_ident(x.nspname)", "nsp", "'n'::\"char\"", ""),
    (catalogs::LANGUAGE, "pg_language", "'LANGUAGE'", "pg_catalog.quote_ident(x.lanname)", "lan", "'l'::\"char\"", ""),
    (
        catalogs::FOREIGN_DATA_WRAPPER,
        "pg_foreign_data_wrapper",
        "'FOREIGN DATA WRAPPER'",
        "pg_catalog.quote_ident(x.fdwname)",
        "fdw",
        "'F'::\"char\"",
        "",
    ),
    (
        catalogs::FOREIGN_SERVER,
        "pg_foreign_server",
        "'FOREIGN SERVER'",
        "pg_catalog.quote_ident(x.srvname)",
        "srv",
        "'S'::\"char\"",
        "",
    ),
];

/// Objects whose privileges are queried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The objects of the system and of extensions whose privileges differ from their initial privileges.
    Changed,
    /// All objects of the system and of extensions, but not columns without privileges.
    All,
    /// The schemas that do not belong to the system.
    UserSchemas,
}

/// Queries privileges. The base of [`Which::Changed`] are the initial privileges.
fn privileges(session: &mut Session, which: Which) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    for (catalog, relation, word, name, prefix, class, join) in WITH_PRIVILEGES {
        // The grants of information_schema are not recorded in pg_init_privs, although no user has changed them.
        // pg_dump ignores them, too.
        let system = match catalog {
            catalogs::NAMESPACE => "x.nspname <> 'information_schema'",
            _ if join.contains("pg_namespace n") => "n.nspname <> 'information_schema'",
            _ => "true",
        };
        let system = format!(
            "(x.oid < {FIRST_NORMAL_OID} AND {system} OR e.refobjid IS NOT NULL) AND NOT ({catalog} = {} AND x.oid = 2200)",
            catalogs::NAMESPACE
        );
        let condition = match which {
            Which::Changed => format!("{system} AND x.{prefix}acl IS DISTINCT FROM i.initprivs"),
            Which::All => system,
            Which::UserSchemas if catalog == catalogs::NAMESPACE => USER_SCHEMAS.replace("n.nspname", "x.nspname"),
            Which::UserSchemas => continue,
        };
        found.extend(session.rows(&format!(
            "SELECT {catalog} AS catalog, x.oid, {word} AS word, {name} AS name, NULL AS column_name, \
             pg_catalog.pg_get_userbyid(x.{prefix}owner) AS owner, e.refobjid AS extension, \
             to_json(coalesce(x.{prefix}acl, pg_catalog.acldefault({class}, x.{prefix}owner))::text[]) AS acl, \
             to_json(coalesce(i.initprivs, pg_catalog.acldefault({class}, x.{prefix}owner))::text[]) AS acl_base \
             FROM pg_catalog.{relation} x {join} \
             LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid = {catalog} AND i.objoid = x.oid AND i.objsubid = 0 \
             LEFT JOIN pg_catalog.pg_depend e ON e.classid = {catalog} AND e.objid = x.oid AND e.objsubid = 0 \
             AND e.deptype = 'e' AND e.refobjid IN (SELECT oid FROM pg_catalog.pg_extension) \
             WHERE {condition} ORDER BY 4"
        ))?);
    }
    let condition = match which {
        Which::Changed => "a.attacl IS DISTINCT FROM i.initprivs",
        Which::All => "a.attacl IS NOT NULL",
        Which::UserSchemas => return Ok(found),
    };
    found.extend(session.rows(&format!(
        "SELECT {0} AS catalog, c.oid, 'TABLE' AS word, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, \
         pg_catalog.quote_ident(a.attname) AS column_name, pg_catalog.pg_get_userbyid(c.relowner) AS owner, \
         e.refobjid AS extension, to_json(a.attacl::text[]) AS acl, to_json(i.initprivs::text[]) AS acl_base \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid = {0} AND i.objoid = c.oid AND i.objsubid = a.attnum \
         LEFT JOIN pg_catalog.pg_depend e ON e.classid = {0} AND e.objid = c.oid AND e.objsubid = 0 \
         AND e.deptype = 'e' AND e.refobjid IN (SELECT oid FROM pg_catalog.pg_extension) \
         WHERE (c.oid < {FIRST_NORMAL_OID} AND n.nspname <> 'information_schema' OR e.refobjid IS NOT NULL) \
         AND NOT a.attisdropped AND {condition} ORDER BY 4, a.attnum",
        catalogs::CLASS
    ))?);
    Ok(found)
}

/// Reads the changed privileges on objects that belong to the system or to an extension.
///
/// pg_init_privs has the initial privileges of the objects whose initial privileges differ from the defaults.
pub(super) fn system_privileges(reader: &mut Reader) -> Result<()> {
    let found = privileges(reader.session, Which::Changed)?;
    let oid: u32 = reader
        .session
        .row("SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()")?
        .number("oid")?;
    let address = Address { catalog: catalogs::DATABASE, oid, column: -1 };
    let mut system = Object::new(address, Kind::SystemPrivileges, None, "system objects").at(Section::Last);
    for row in found {
        let extension = row.get("extension")?.and_then(|oid| oid.parse().ok());
        let extension = extension.map(|oid| Address::new(catalogs::EXTENSION, oid));
        let place = reader.objects.iter().position(|object| Some(object.address) == extension);
        let object = match place {
            Some(place) => &mut reader.objects[place],
            None => &mut system,
        };
        let (acl, base, owner) = (row.list("acl")?, row.list("acl_base")?, row.text("owner")?);
        let (word, name, column) = (row.text("word")?, row.text("name")?, row.get("column_name")?);
        let target = grants::Target { word, name, column, owner };
        let statements = grants::statements(&mut reader.gone_roles, object, &target, &acl, &base)?;
        match place {
            Some(_) => object.grants.extend(statements),
            None => object.set_owner.extend(statements),
        }
    }
    if !system.set_owner.is_empty() {
        reader.add(system);
    }
    Ok(())
}

/// The privileges, at one time, on the objects that a restore finds in a database, and whose privileges it may change. The key is
/// the object as GRANT names it, and a column.
pub(in crate::engine::postgres) struct ExistingPrivileges(BTreeMap<(String, Option<String>), List>);

/// The privileges on an object.
struct List {
    word: String,
    name: String,
    owner: String,
    acl: Vec<String>,
}

impl ExistingPrivileges {
    /// Reads the privileges of those objects that the items name.
    pub(in crate::engine::postgres) fn read(session: &mut Session, items: &[Item]) -> Result<Self> {
        let mut rows = privileges(session, Which::UserSchemas)?;
        let of_system = |item: &&Item| matches!(item.kind, Kind::SystemPrivileges | Kind::Extension);
        let statements: Vec<&String> =
            items.iter().filter(of_system).flat_map(|item| item.set_owner.iter().chain(&item.grants)).collect();
        if !statements.is_empty() {
            rows.extend(privileges(session, Which::All)?);
        }
        let schemas: Vec<String> =
            items.iter().filter(|item| item.kind == Kind::Schema).map(|item| quote::ident(&item.name)).collect();
        let mut lists = BTreeMap::new();
        for row in &rows {
            let (word, name) = (row.text("word")?.to_owned(), row.text("name")?.to_owned());
            let object = format!("{word} {name}");
            let is_named = || statements.iter().any(|statement| statement.contains(&format!(" ON {object} ")));
            if word == "SCHEMA" && schemas.contains(&name) || is_named() {
                let list = List { word, name, owner: row.text("owner")?.to_owned(), acl: row.list("acl")? };
                lists.insert((object, row.owned("column_name")?), list);
            }
        }
        Ok(ExistingPrivileges(lists))
    }

    /// Returns the statements that set the privileges back to what they are here, from what they are `now`.
    pub(in crate::engine::postgres) fn put_back(&self, now: &Self) -> Result<Vec<String>> {
        let keys = self.0.keys().chain(now.0.keys().filter(|key| !self.0.contains_key(key)));
        let mut statements = Vec::new();
        for key in keys {
            // Only columns may be absent because they have no privileges.
            let (from, to, of) = match (self.0.get(key), now.0.get(key)) {
                (Some(before), Some(now)) => (&now.acl, &before.acl, now),
                (Some(before), None) if key.1.is_some() => (&Vec::new(), &before.acl, before),
                (None, Some(now)) if key.1.is_some() => (&now.acl, &Vec::new(), now),
                _ => continue,
            };
            let mut object = Object::new(Address::default(), Kind::SystemPrivileges, None, &of.name);
            let target = grants::Target { word: &of.word, name: &of.name, column: key.1.as_deref(), owner: &of.owner };
            statements.extend(grants::statements(&mut GoneRoles::default(), &mut object, &target, to, from)?);
        }
        Ok(statements)
    }
}
