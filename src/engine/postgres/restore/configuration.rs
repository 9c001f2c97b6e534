//! The rows in configuration tables of extensions that a snapshot contains, such as the jobs of pg_cron: those that match
//! the condition with which the extension declares the table.

use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::schema::provided;
use crate::engine::postgres::schema::quote::qualified;
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Result, one_line};

/// A configuration table that the role may read.
struct Configuration {
    extension: String,
    qualified: String,
    condition: String,
}

/// Reads the configuration tables, without those of a provider. TimescaleDB adds rows to its own when it is created.
fn tables(session: &mut Session, provider: Option<Provider>) -> Result<Vec<Configuration>> {
    let provided = provided::schemas(session, provider)?;
    let rows = session.rows(
        "SELECT e.extname AS extension, n.nspname AS schema, c.relname AS name, coalesce(u.condition, '') AS condition
           FROM pg_catalog.pg_extension e, unnest(e.extconfig, e.extcondition) AS u(oid, condition)
           JOIN pg_catalog.pg_class c ON c.oid = u.oid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind = 'r' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
            AND pg_catalog.has_table_privilege(c.oid, 'SELECT')",
    )?;
    let mut tables = Vec::new();
    for row in &rows {
        let extension = row.text("extension")?.to_owned();
        let schema = row.text("schema")?;
        if extension == timescale::EXTENSION || provided.contains(schema) {
            continue;
        }
        let qualified = qualified(schema, row.text("name")?);
        tables.push(Configuration { extension, qualified, condition: row.text("condition")?.to_owned() });
    }
    Ok(tables)
}

/// Returns the tables that have such rows, in words. The session must be in a transaction.
pub(super) fn with_rows(session: &mut Session, provider: Option<Provider>) -> Result<Vec<String>> {
    // Rows that row security hides are those of other roles.
    session.execute("SET LOCAL row_security = on")?;
    let mut found = Vec::new();
    for Configuration { extension, qualified, condition } in tables(session, provider)? {
        let row = session.row(&format!("SELECT EXISTS (SELECT FROM ONLY {qualified} {condition}) AS is_filled"))?;
        if row.flag("is_filled")? {
            found.push(format!("rows in {qualified} of the extension {extension}"));
        }
    }
    Ok(found)
}

/// Deletes these rows. If the role may not delete some of them, they are left.
pub(super) fn delete_rows(session: &mut Session, provider: Option<Provider>) -> Result<()> {
    session.execute("SET row_security = on")?;
    for Configuration { qualified, condition, .. } in tables(session, provider)? {
        if let Err(error) = session.execute(&format!("DELETE FROM ONLY {qualified} {condition}")) {
            tracing::debug!("cannot delete the rows of {}: {}", one_line(&qualified), error.full_message());
        }
    }
    session.execute("SET row_security = off")
}
