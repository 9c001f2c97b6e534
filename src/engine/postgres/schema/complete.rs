//! The check that no object was missed: every row of every catalog of objects was read as an object, is part of one, or
//! belongs to the server or to an extension.

use std::fmt::Write as _;

use crate::engine::postgres::schema::depends::Places;
use crate::engine::postgres::schema::object::{Address, catalogs};
use crate::engine::postgres::schema::{FIRST_NORMAL_OID, Reader, catalog_rows};
use crate::platform::error::Result;

/// Returns the condition on `x`, a row of a catalog, under which it must belong to an object. Returns `None` if another
/// check covers the catalog.
fn condition(catalog: u32) -> Option<&'static str> {
    match catalog {
        catalogs::NAMESPACE => Some("x.nspname !~ '^pg_(temp|toast)'"),
        // An operator without a function is only a name that another operator mentions.
        catalogs::OPERATOR => Some("x.oprcode <> 0"),
        // The copies on partitions are created with the trigger of the partitioned table.
        catalogs::TRIGGER => Some("NOT x.tgisinternal AND x.tgparentid = 0"),
        // Every row of these is read.
        catalogs::LARGE_OBJECT | catalogs::SUBSCRIPTION => None,
        _ => Some("true"),
    }
}

/// Refuses every row of the catalogs that belongs to no known object. A row that was left over when its object was dropped
/// is noted.
pub(super) fn check(reader: &mut Reader, places: &Places) -> Result<()> {
    let version = reader.version();
    let mut query = String::new();
    for catalog in catalog_rows::catalogs_of(version) {
        let Some(condition) = condition(catalog.oid) else { continue };
        if !query.is_empty() {
            query.push_str(" UNION ALL ");
        }
        let _ = write!(
            query,
            "SELECT {} AS catalog, x.oid FROM pg_catalog.{} x WHERE x.oid >= {FIRST_NORMAL_OID} AND {condition}",
            catalog.oid, catalog.name
        );
    }
    let mut missing: Vec<Address> = Vec::new();
    for row in reader.rows(&query)? {
        let address = Address::new(row.number("catalog")?, row.number("oid")?);
        if places.find(address).is_none() && !places.is_built_in_or_member(address) {
            missing.push(address);
        }
    }
    for address in missing {
        let target = catalog_rows::identify(&address.catalog.to_string(), &address.oid.to_string(), "0", version);
        let row = reader.session.row(&format!(
            "SELECT d.target IS NULL AS is_gone, d.target ->> 'type' AS type, d.target ->> 'identity' AS identity, \
             d.target ->> 'schema' AS schema FROM (SELECT {target} AS target) d"
        ))?;
        if row.flag("is_gone")? {
            let row = catalog_rows::shown(address);
            if let Some(name) = kept_name(reader, address)? {
                reader
                    .refused
                    .push(format!("{row} ({name}): its schema, or another object that it needs, does not exist"));
                continue;
            }
            reader.notes.push(format!("{row} was left out: it is the rest of an object that was dropped"));
            continue;
        }
        let name = format!("{} {}", row.get("type")?.unwrap_or("object"), row.get("identity")?.unwrap_or_default());
        if matches!(row.get("schema")?, Some("pg_catalog" | "information_schema")) {
            reader.notes.push(format!("{name} is in a schema of the system and was left out"));
        } else if !reader.refused.iter().chain(&reader.notes).any(|reason| reason.contains(&name)) {
            reader.refused.push(format!("{name}: lifeboat cannot determine how to create it"));
        }
    }
    Ok(())
}

/// Returns the name of an object, which may be empty, if its row must not be left out although something that it needs
/// does not exist. Returns `None` if the row is only the rest of a dropped object.
fn kept_name(reader: &mut Reader, address: Address) -> Result<Option<String>> {
    let Some(query) = catalog_rows::kept_name(address) else { return Ok(None) };
    let rows = reader.session.rows(&query)?;
    rows.first().map(|row| Ok(row.owned("name")?.unwrap_or_default())).transpose()
}
