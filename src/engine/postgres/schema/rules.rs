//! Rewrite rules, except those that define views.

use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::relation::{self, TABLE_NAMES, USER_RELATIONS, letter};
use crate::engine::postgres::schema::{Reader, quote};
use crate::platform::error::Result;

/// Reads the rules.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT r.oid, r.rulename AS name, pg_catalog.pg_get_ruledef(r.oid) AS definition, r.ev_enabled AS enabled,
                {TABLE_NAMES}, pg_catalog.pg_get_userbyid(c.relowner) AS owner
           FROM pg_catalog.pg_rewrite r
           JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE r.ev_type <> '1' AND {USER_RELATIONS}
          ORDER BY r.oid"
    ))?;
    for row in &rows {
        let (name, table) = (row.text("name")?, row.text("table_qualified")?);
        let quoted = quote::ident(name);
        let address = Address::new(catalogs::REWRITE, row.number("oid")?);
        let mut object = Object::new(address, Kind::Rule, Some(row.text("schema")?), name).at(Section::Post);
        object.identity = format!("RULE {quoted} ON {table}");
        object.create = vec![row.text("definition")?.trim_end().trim_end_matches(';').to_owned()];
        let kind = letter(row, "table_kind")?.unwrap_or('r');
        if let Some(state) = state(letter(row, "enabled")?) {
            object.create.push(format!("ALTER {} {table} {state} RULE {quoted}", relation::word(kind)));
        }
        object.owner = row.owned("owner")?;
        object.table = Some(Address::new(catalogs::CLASS, row.number("table_oid")?));
        object.needs.extend(object.table);
        reader.add(object);
    }
    Ok(())
}

/// Returns the words for the firing state of a rule or trigger. Returns `None` for the default state.
pub(super) fn state(enabled: Option<char>) -> Option<&'static str> {
    match enabled {
        Some('D') => Some("DISABLE"),
        Some('A') => Some("ENABLE ALWAYS"),
        Some('R') => Some("ENABLE REPLICA"),
        _ => None,
    }
}
