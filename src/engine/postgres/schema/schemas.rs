//! Schemas, extensions, languages and access methods.

use crate::engine::postgres::schema::object::catalogs;
use crate::engine::postgres::schema::{
    Address, Extension, FIRST_NORMAL_OID, Kind, Object, Reader, USER_SCHEMAS, grants, quote,
};
use crate::platform::error::Result;

/// The comment that every new database has on its schema public.
const PUBLIC_COMMENT: &str = "standard public schema";

/// Reads the schemas. Every new database has `public`, so only the differences from the default are written.
pub(super) fn schemas(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT n.oid, n.nspname AS name, pg_catalog.pg_get_userbyid(n.nspowner) AS owner, n.nspowner AS owner_oid, \
         pg_catalog.obj_description(n.oid, 'pg_namespace') AS comment, {} \
         FROM pg_catalog.pg_namespace n WHERE {USER_SCHEMAS}",
        grants::columns('n', "n.nspacl", "n.nspowner")
    ))?;
    let is_before_15 = reader.version() < 150_000;
    for row in rows {
        let name = row.text("name")?;
        let address = Address::new(catalogs::NAMESPACE, row.number("oid")?);
        let mut object = Object::new(address, Kind::Schema, None, name);
        let quoted = quote::ident(name);
        object.identity = format!("SCHEMA {quoted}");
        let owner = row.text("owner")?;
        if name != "public" {
            object.create.push(format!("CREATE SCHEMA {quoted}"));
            object.own(owner);
            grants::add(&mut reader.gone_roles, &mut object, &row, "SCHEMA", &quoted)?;
            reader.add(object);
            continue;
        }
        // The schema public of a new database belongs to pg_database_owner. Before version 15, it belongs to the first
        // superuser, whose name differs between hosted servers.
        let is_default_owner = owner == "pg_database_owner" || is_before_15 && row.number::<u32>("owner_oid")? == 10;
        object.owner = Some(owner.to_owned());
        if !is_default_owner {
            object.own(owner);
        }
        // The default privileges of PUBLIC on it changed in version 15, so all privileges are written.
        let base = row.list("acl_base")?;
        let acl = if row.get("acl")?.is_some() { row.list("acl")? } else { base.clone() };
        object.grants.push(format!("REVOKE ALL ON SCHEMA {quoted} FROM PUBLIC"));
        let target = grants::Target { word: "SCHEMA", name: &quoted, column: None, owner };
        let statements = grants::statements(&mut reader.gone_roles, &mut object, &target, &acl, &base)?;
        object.grants.extend(statements);
        let comment = row.get("comment")?;
        if comment != Some(PUBLIC_COMMENT) {
            let text = comment.map_or_else(|| "''".to_owned(), quote::literal);
            object.comments.push(format!("COMMENT ON SCHEMA {quoted} IS {text}"));
        }
        reader.add(object);
    }
    Ok(())
}

/// Reads the extensions. `CREATE EXTENSION` creates their members.
pub(super) fn extensions(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT e.oid, e.extname AS name, e.extversion AS version, n.nspname AS schema \
         FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace \
         WHERE e.oid >= {FIRST_NORMAL_OID} ORDER BY 2"
    ))?;
    for row in rows {
        let (name, schema) = (row.text("name")?, row.text("schema")?);
        let mut object =
            Object::new(Address::new(catalogs::EXTENSION, row.number("oid")?), Kind::Extension, None, name);
        let quoted = quote::ident(name);
        object.identity = format!("EXTENSION {quoted}");
        object.create.push(format!("CREATE EXTENSION IF NOT EXISTS {quoted} WITH SCHEMA {}", quote::ident(schema)));
        reader.extensions.push(Extension {
            name: name.to_owned(),
            version: row.text("version")?.to_owned(),
            schema: schema.to_owned(),
        });
        reader.add(object);
    }
    Ok(())
}

/// Reads the procedural languages that are not members of an extension.
pub(super) fn languages(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT l.oid, l.lanname AS name, pg_catalog.pg_get_userbyid(l.lanowner) AS owner, l.lanpltrusted AS trusted, \
         {} AS handler, {} AS inline, {} AS validator, {} \
         FROM pg_catalog.pg_language l WHERE l.lanispl AND l.oid >= {FIRST_NORMAL_OID}",
        function_name("l.lanplcallfoid"),
        function_name("l.laninline"),
        function_name("l.lanvalidator"),
        grants::columns('l', "l.lanacl", "l.lanowner")
    ))?;
    for row in rows {
        let name = row.text("name")?;
        let mut object = Object::new(Address::new(catalogs::LANGUAGE, row.number("oid")?), Kind::Language, None, name);
        let quoted = quote::ident(name);
        object.identity = format!("LANGUAGE {quoted}");
        let trusted = if row.flag("trusted")? { "TRUSTED " } else { "" };
        let mut create = format!("CREATE {trusted}PROCEDURAL LANGUAGE {quoted}");
        for (word, column) in [("HANDLER", "handler"), ("INLINE", "inline"), ("VALIDATOR", "validator")] {
            if let Some(function) = row.get(column)? {
                create.push_str(&format!(" {word} {function}"));
            }
        }
        object.create.push(create);
        object.own(row.text("owner")?);
        if row.flag("trusted")? {
            grants::add(&mut reader.gone_roles, &mut object, &row, "LANGUAGE", &quoted)?;
        }
        reader.add(object);
    }
    Ok(())
}

/// Reads the access methods.
pub(super) fn access_methods(reader: &mut Reader) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT a.oid, a.amname AS name, a.amtype AS type, {} AS handler \
         FROM pg_catalog.pg_am a WHERE a.oid >= {FIRST_NORMAL_OID}",
        function_name("a.amhandler")
    ))?;
    for row in rows {
        let name = row.text("name")?;
        let mut object = Object::new(Address::new(catalogs::AM, row.number("oid")?), Kind::AccessMethod, None, name);
        object.identity = format!("ACCESS METHOD {}", quote::ident(name));
        let of = match row.text("type")? {
            "i" => "INDEX",
            "t" => "TABLE",
            other => {
                reader.refused.push(format!("the access method {name}: unknown type '{other}'"));
                continue;
            }
        };
        object.create.push(format!("CREATE {} TYPE {of} HANDLER {}", object.identity, row.text("handler")?));
        reader.add(object);
    }
    Ok(())
}

/// Returns an expression for the qualified and quoted name of the function whose oid is the expression `oid`, or NULL
/// if there is no such function.
pub(super) fn function_name(oid: &str) -> String {
    format!(
        "(SELECT pg_catalog.format('%I.%I', fn.nspname, fp.proname) FROM pg_catalog.pg_proc fp \
         JOIN pg_catalog.pg_namespace fn ON fn.oid = fp.pronamespace WHERE fp.oid = {oid})"
    )
}
