//! Triggers on tables and views.

use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::relation::{self, TABLE_NAMES, USER_RELATIONS, letter};
use crate::engine::postgres::schema::{Reader, quote, rules};
use crate::platform::error::Result;

/// Reads the triggers. The trigger of a partitioned table creates its copies on the partitions. A copy is listed only
/// if its firing state differs.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT t.oid, t.tgname AS name, t.tgenabled AS enabled,
                (WITH RECURSIVE up (oid) AS (
                     SELECT t.tgparentid UNION ALL
                     SELECT p.tgparentid FROM up JOIN pg_catalog.pg_trigger p ON p.oid = up.oid)
                 SELECT to_json(array_agg(up.oid::text)) FROM up WHERE up.oid <> 0) AS parents,
                CASE WHEN t.tgparentid = 0 THEN pg_catalog.pg_get_triggerdef(t.oid, false) END AS definition,
                {TABLE_NAMES}, pg_catalog.pg_get_userbyid(c.relowner) AS owner, t.tgconstraint AS constraint
           FROM pg_catalog.pg_trigger t
           LEFT JOIN pg_catalog.pg_trigger u ON u.oid = t.tgparentid
           LEFT JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
           JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE (t.tgparentid = 0 AND NOT t.tgisinternal
                 OR t.tgenabled <> u.tgenabled AND coalesce(k.contype, 't') = 't') AND {USER_RELATIONS}
          ORDER BY t.oid"
    ))?;
    let copies = reader.rows(
        "SELECT t.oid, t.tgparentid AS parent, t.tgconstraint AS constraint
           FROM pg_catalog.pg_trigger t
           LEFT JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
          WHERE t.tgparentid <> 0 AND coalesce(k.contype, 't') = 't'",
    )?;
    for row in &copies {
        let parent = Address::new(catalogs::TRIGGER, row.number("parent")?);
        reader.aliases.insert(Address::new(catalogs::TRIGGER, row.number("oid")?), parent);
        reader.aliases.insert(Address::new(catalogs::CONSTRAINT, row.number("constraint")?), parent);
    }
    let disabled = reader.rows(&format!(
        "SELECT DISTINCT {TABLE_NAMES}
           FROM pg_catalog.pg_trigger t
           JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint AND k.contype <> 't'
          WHERE t.tgisinternal AND t.tgenabled <> 'O' AND {USER_RELATIONS}
          ORDER BY table_qualified"
    ))?;
    for row in &disabled {
        let table = row.text("table_qualified")?;
        reader.notes.push(format!("table {table}: disabled triggers of its constraints are restored as enabled"));
    }
    for row in &rows {
        let (name, table) = (row.text("name")?, row.text("table_qualified")?);
        let quoted = quote::ident(name);
        let word = relation::word(letter(row, "table_kind")?.unwrap_or('r'));
        let address = Address::new(catalogs::TRIGGER, row.number("oid")?);
        let mut object = Object::new(address, Kind::Trigger, Some(row.text("schema")?), name).at(Section::Post);
        if row.text("constraint")? != "0" {
            reader.aliases.insert(Address::new(catalogs::CONSTRAINT, row.number("constraint")?), address);
        }
        object.identity = format!("TRIGGER {quoted} ON {table}");
        let state = rules::state(letter(row, "enabled")?);
        match row.get("definition")? {
            Some(definition) => object.create.push(definition.to_owned()),
            // The triggers of the parents come first: a statement about a partitioned table's trigger also applies to
            // all its partitions.
            None => {
                let parents = row.list("parents")?.into_iter().filter_map(|oid| oid.parse().ok());
                object.needs.extend(parents.map(|oid| Address::new(catalogs::TRIGGER, oid)));
            }
        }
        let copy = object.create.is_empty().then_some("ENABLE");
        if let Some(state) = state.or(copy) {
            object.create.push(format!("ALTER {word} {table} {state} TRIGGER {quoted}"));
        }
        object.owner = row.owned("owner")?;
        object.table = Some(Address::new(catalogs::CLASS, row.number("table_oid")?));
        object.needs.extend(object.table);
        reader.add(object);
    }
    Ok(())
}
