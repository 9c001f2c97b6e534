//! Comments and security labels on objects of all kinds.

use crate::engine::postgres::schema::comment_target::comment_target;
use crate::engine::postgres::schema::depends::Places;
use crate::engine::postgres::schema::object::{Address, Kind, catalogs};
use crate::engine::postgres::schema::{FIRST_NORMAL_OID, Reader, quote};
use crate::platform::error::Result;

/// Adds every comment and security label to its object, or to the object that its target is a part of.
pub(super) fn add(reader: &mut Reader, places: &Places) -> Result<()> {
    let query = |catalog: &str, extra: &str| {
        format!(
            "SELECT d.classoid, d.objoid, d.objsubid, {extra}, i.type, i.identity \
             FROM pg_catalog.{catalog} d, LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i \
             WHERE (d.objoid >= {FIRST_NORMAL_OID} OR d.classoid = {} AND d.objoid = 2200) AND coalesce(i.schema, '') !~ '^pg_(toast|temp)' \
             AND i.type IS NOT NULL ORDER BY 1, 2, 3, 4",
            catalogs::NAMESPACE
        )
    };
    let comments = reader.session.rows(&query("pg_description", "NULL AS provider, d.description AS text"))?;
    let labels = reader.session.rows(&query("pg_seclabel", "d.provider, d.label AS text"))?;
    for row in comments.iter().chain(&labels) {
        let address =
            Address { catalog: row.number("classoid")?, oid: row.number("objoid")?, column: row.number("objsubid")? };
        let (target_type, target) = (row.text("type")?, row.text("identity")?);
        let text = quote::literal(row.text("text")?);
        let Some(index) = places.find(address) else {
            let known = reader.refused.iter().any(|reason| reason.contains(target));
            if !known && !places.is_built_in_or_member(address) {
                let what = if row.get("provider")?.is_some() { "security label" } else { "comment" };
                reader.refused.push(format!("the {what} on {target_type} {target}: the {target_type} is not saved"));
            }
            continue;
        };
        let object = &mut reader.objects[index];
        // The schema `public` has a comment by default. The code that reads the schemas handles it.
        if object.kind == Kind::Schema && object.name == "public" && row.get("provider")?.is_none() {
            continue;
        }
        // `CREATE EXTENSION` creates the comments on the objects of an extension.
        if object.kind == Kind::Extension && object.address != address {
            continue;
        }
        let is_whole_object = object.address == address && !object.identity.is_empty();
        let identity =
            if is_whole_object { object.identity.clone() } else { comment_target(address, target_type, target) };
        object.comments.push(match row.get("provider")? {
            None => format!("COMMENT ON {identity} IS {text}"),
            Some(provider) => format!("SECURITY LABEL FOR {} ON {identity} IS {text}", quote::ident(provider)),
        });
    }
    Ok(())
}
