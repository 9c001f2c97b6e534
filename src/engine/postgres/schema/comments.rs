//! Comments and security labels on objects of all kinds.

use crate::engine::postgres::schema::comment_target::comment_target;
use crate::engine::postgres::schema::depends::Places;
use crate::engine::postgres::schema::object::{Address, Kind, catalogs};
use crate::engine::postgres::schema::{FIRST_NORMAL_OID, Reader, catalog_rows, quote};
use crate::engine::postgres::wire::session::Row;
use crate::platform::error::Result;

/// Adds every comment and security label to its object, or to the object that its target is a part of. Those on objects
/// that do not exist are left out, and a note says so.
pub(super) fn add(reader: &mut Reader, places: &Places) -> Result<()> {
    let version = reader.version();
    let query = format!("SELECT {} AS has_lost", catalog_rows::has_lost_schemas(version));
    let has_lost_schemas = reader.session.row(&query)?.flag("has_lost")?;
    let identify = catalog_rows::identify_each("d", version, has_lost_schemas);
    // The oids of large objects may be chosen by users.
    let query = |catalog: &str, extra: &str| {
        format!(
            "SELECT d.classoid, d.objoid, d.objsubid, {extra}, i.type, i.identity \
             FROM pg_catalog.{catalog} d, LATERAL {identify} i \
             WHERE (d.objoid >= {FIRST_NORMAL_OID} OR d.classoid = {} AND d.objoid = 2200 OR d.classoid = {}) \
             AND coalesce(i.schema, '') !~ '^pg_(toast|temp)' ORDER BY 1, 2, 3, 4",
            catalogs::NAMESPACE,
            catalogs::LARGE_OBJECT
        )
    };
    let comments = reader.session.rows(&query("pg_description", "NULL AS provider, d.description AS text"))?;
    let labels = reader.session.rows(&query("pg_seclabel", "d.provider, d.label AS text"))?;
    for row in comments.iter().chain(&labels) {
        let address =
            Address { catalog: row.number("classoid")?, oid: row.number("objoid")?, column: row.number("objsubid")? };
        let word = if row.get("provider")?.is_some() { "security label" } else { "comment" };
        // The server has such a name for a column that was dropped.
        let looks_gone = row.get("identity")?.is_none_or(|identity| identity.contains("........pg.dropped."));
        if looks_gone && is_gone(reader, address)? {
            let gone = catalog_rows::shown(address);
            reader.notes.push(format!("a {word} on an object that does not exist ({gone}) was left out"));
            continue;
        }
        add_one(reader, places, row, address, word)?;
    }
    Ok(())
}

/// Returns true if the object at an address does not exist in the catalogs. An object that was dropped just now does.
fn is_gone(reader: &mut Reader, address: Address) -> Result<bool> {
    let Address { catalog, oid, column } = address;
    let exists = catalog_rows::exists(&catalog.to_string(), &oid.to_string(), &column.to_string(), reader.version());
    Ok(!reader.session.row(&format!("SELECT {exists} AS it_exists"))?.flag("it_exists")?)
}

/// Adds the comment or security label in a row to the object at an address, or to the one that it is a part of.
fn add_one(reader: &mut Reader, places: &Places, row: &Row, address: Address, word: &str) -> Result<()> {
    let (target_type, target) = (row.text("type")?, row.text("identity")?);
    let text = quote::literal(row.text("text")?);
    let Some(index) = places.find(address) else {
        let known = reader.refused.iter().any(|reason| reason.contains(target));
        if !known && !places.is_built_in_or_member(address) {
            reader.refused.push(format!("the {word} on {target_type} {target}: the {target_type} is not saved"));
        }
        return Ok(());
    };
    let object = &mut reader.objects[index];
    // The schema `public` has a comment by default. The code that reads the schemas handles it.
    if object.kind == Kind::Schema && object.name == "public" && row.get("provider")?.is_none() {
        return Ok(());
    }
    // `CREATE EXTENSION` creates the comments on the objects of an extension.
    if object.kind == Kind::Extension && object.address != address {
        return Ok(());
    }
    let is_whole_object = object.address == address && !object.identity.is_empty();
    let identity = if is_whole_object { object.identity.clone() } else { comment_target(address, target_type, target) };
    object.comments.push(match row.get("provider")? {
        None => format!("COMMENT ON {identity} IS {text}"),
        Some(provider) => format!("SECURITY LABEL FOR {} ON {identity} IS {text}", quote::ident(provider)),
    });
    Ok(())
}
