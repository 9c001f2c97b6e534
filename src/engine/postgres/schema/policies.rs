//! Row security policies.

use crate::engine::postgres::schema::object::{Address, Kind, Object, Section, catalogs};
use crate::engine::postgres::schema::relation::{TABLE_NAMES, USER_RELATIONS};
use crate::engine::postgres::schema::{Reader, quote};
use crate::platform::error::Result;

/// Reads the policies.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<()> {
    let rows = reader.rows(&format!(
        "SELECT p.oid, p.polname AS name, p.polcmd AS command, p.polpermissive AS permissive,
                (SELECT to_json(array_agg(pg_catalog.pg_get_userbyid(r) ORDER BY pg_catalog.pg_get_userbyid(r)))
                   FROM unnest(p.polroles) r WHERE r <> 0) AS roles,
                pg_catalog.pg_get_expr(p.polqual, p.polrelid) AS using,
                pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS with_check,
                {TABLE_NAMES}, pg_catalog.pg_get_userbyid(c.relowner) AS owner
           FROM pg_catalog.pg_policy p
           JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE {USER_RELATIONS}
          ORDER BY p.oid"
    ))?;
    for row in &rows {
        let (name, table) = (row.text("name")?, row.text("table_qualified")?);
        let quoted = quote::ident(name);
        let address = Address::new(catalogs::POLICY, row.number("oid")?);
        let mut object = Object::new(address, Kind::Policy, Some(row.text("schema")?), name).at(Section::Post);
        object.identity = format!("POLICY {quoted} ON {table}");
        let mut sql = format!("CREATE POLICY {quoted} ON {table}");
        if !row.flag("permissive")? {
            sql.push_str(" AS RESTRICTIVE");
        }
        match row.text("command")? {
            "r" => sql.push_str(" FOR SELECT"),
            "a" => sql.push_str(" FOR INSERT"),
            "w" => sql.push_str(" FOR UPDATE"),
            "d" => sql.push_str(" FOR DELETE"),
            _ => {}
        }
        let mut roles = row.list("roles")?;
        let all = roles.len();
        roles.retain(|role| !reader.gone_roles.is_gone_owner(role));
        if roles.len() < all {
            let outcome = if roles.is_empty() { "the policy was" } else { "that was" };
            let note = format!("the policy {quoted} on {table} names a role that does not exist: {outcome} left out");
            reader.notes.push(note);
        }
        // A policy that names no role would be for all of them.
        if roles.is_empty() && all > 0 {
            continue;
        }
        if !roles.is_empty() {
            let quoted: Vec<String> = roles.iter().map(|role| quote::ident(role)).collect();
            sql.push_str(&format!(" TO {}", quoted.join(", ")));
        }
        for role in &roles {
            object.role(role);
        }
        if let Some(using) = row.get("using")? {
            sql.push_str(&format!(" USING ({using})"));
        }
        if let Some(check) = row.get("with_check")? {
            sql.push_str(&format!(" WITH CHECK ({check})"));
        }
        object.create = vec![sql];
        object.owner = row.owned("owner")?;
        object.table = Some(Address::new(catalogs::CLASS, row.number("table_oid")?));
        object.needs.extend(object.table);
        reader.add(object);
    }
    Ok(())
}
