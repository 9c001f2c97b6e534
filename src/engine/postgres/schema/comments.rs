//! Comments and security labels, of whatever kind of thing.

use crate::engine::postgres::schema::depends::Places;
use crate::engine::postgres::schema::object::{Address, Kind, catalogs};
use crate::engine::postgres::schema::{FIRST_NORMAL_OID, Reader, quote};
use crate::platform::error::Result;

/// Adds every comment and label to the object that it is of, or of a part of which it is.
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
        let told = (row.text("type")?, row.text("identity")?);
        let text = quote::literal(row.text("text")?);
        let Some(index) = places.find(address) else {
            let known = reader.refused.iter().any(|reason| reason.contains(told.1));
            if !known && !places.comes_otherwise(address) {
                let what = if row.get("provider")?.is_some() { "security label" } else { "comment" };
                reader.refused.push(format!("the {what} on {} {}: what it is on is not carried", told.0, told.1));
            }
            continue;
        };
        let object = &mut reader.objects[index];
        // The comment on public has a default, which whoever read the schema has seen to.
        if object.kind == Kind::Schema && object.name == "public" && row.get("provider")?.is_none() {
            continue;
        }
        // An extension's own objects bring their comments along.
        if object.kind == Kind::Extension && object.address != address {
            continue;
        }
        let own = object.address == address && !object.identity.is_empty();
        let identity = if own { object.identity.clone() } else { spoken(address, told.0, told.1) };
        object.comments.push(match row.get("provider")? {
            None => format!("COMMENT ON {identity} IS {text}"),
            Some(provider) => format!("SECURITY LABEL FOR {} ON {identity} IS {text}", quote::ident(provider)),
        });
    }
    Ok(())
}

/// What `COMMENT ON` calls something, from what `pg_identify_object` calls it.
pub(super) fn spoken(address: Address, kind: &str, identity: &str) -> String {
    if address.column != 0 {
        return format!("COLUMN {identity}");
    }
    let word = match kind {
        "table constraint" => "CONSTRAINT",
        "domain constraint" => {
            let (name, domain) = identity.split_at(name_length(identity));
            let domain = domain.strip_prefix(" on ").unwrap_or(domain);
            return format!("CONSTRAINT {name} ON DOMAIN {domain}");
        }
        "statistics object" => "STATISTICS",
        "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
        "composite type" => "TYPE",
        other => return format!("{} {}", other.to_uppercase(), with_on(address, identity)),
    };
    format!("{word} {}", with_on(address, identity))
}

/// `c on public.t` with the `on` of a statement.
fn with_on(address: Address, identity: &str) -> String {
    let on_a_table =
        [catalogs::CONSTRAINT, catalogs::TRIGGER, catalogs::REWRITE, catalogs::POLICY].contains(&address.catalog);
    let (name, rest) = identity.split_at(if on_a_table { name_length(identity) } else { identity.len() });
    match rest.strip_prefix(" on ") {
        Some(table) => format!("{name} ON {table}"),
        None => identity.to_owned(),
    }
}

/// How much of `text` is the name, perhaps quoted, at its start.
fn name_length(text: &str) -> usize {
    if !text.starts_with('"') {
        return text.find(' ').unwrap_or(text.len());
    }
    let mut at = 1;
    while let Some(quote) = text[at..].find('"') {
        at += quote + 1;
        if !text[at..].starts_with('"') {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_with_their_whole() {
        let constraint = Address::new(catalogs::CONSTRAINT, 1);
        assert_eq!(
            spoken(constraint, "table constraint", "\"a \"\" on b\" on public.t"),
            "CONSTRAINT \"a \"\" on b\" ON public.t"
        );
        assert_eq!(spoken(constraint, "domain constraint", "c on public.d"), "CONSTRAINT c ON DOMAIN public.d");
        let column = Address { column: 2, ..Address::new(catalogs::CLASS, 1) };
        assert_eq!(spoken(column, "table column", "public.t.b"), "COLUMN public.t.b");
        assert_eq!(
            spoken(Address::new(catalogs::CLASS, 1), "materialized view", "public.m"),
            "MATERIALIZED VIEW public.m"
        );
    }
}
