//! Extended statistics.

use crate::engine::postgres::schema::Reader;
use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::relation::USER_RELATIONS;
use crate::platform::error::Result;

/// Reads the statistics objects.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT s.oid, s.stxname AS name, sn.nspname AS schema, c.oid AS table_oid,
                pg_catalog.quote_ident(sn.nspname) || '.' || pg_catalog.quote_ident(s.stxname) AS qualified,
                pg_catalog.pg_get_statisticsobjdef(s.oid) AS definition,
                CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget END AS target,
                pg_catalog.pg_get_userbyid(s.stxowner) AS owner
           FROM pg_catalog.pg_statistic_ext s
           JOIN pg_catalog.pg_namespace sn ON sn.oid = s.stxnamespace
           JOIN pg_catalog.pg_class c ON c.oid = s.stxrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE {USER_RELATIONS}
          ORDER BY s.oid"
    ))?;
    for row in &rows {
        let qualified = row.text("qualified")?;
        let address = Address::new(catalogs::STATISTIC_EXT, row.number("oid")?);
        let mut object =
            Object::new(address, Kind::Statistics, Some(row.text("schema")?), row.text("name")?).at(Section::Post);
        object.identity = format!("STATISTICS {qualified}");
        object.own(row.text("owner")?);
        object.create = vec![row.text("definition")?.to_owned()];
        if let Some(target) = row.get("target")? {
            object.create.push(format!("ALTER STATISTICS {qualified} SET STATISTICS {target}"));
        }
        object.table = Some(Address::new(catalogs::CLASS, row.number("table_oid")?));
        object.needs.extend(object.table);
        reader.add(object);
    }
    Ok(())
}
