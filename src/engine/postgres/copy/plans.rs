//! Tables whose code runs as soon as a query is planned.
//!
//! The server evaluates functions with constant arguments in the expressions of indexes and statistics when it plans a query,
//! with the rights of the session. A COPY of a table is not planned. So a superuser reads such tables of other roles by COPY
//! only.

use std::collections::BTreeSet;

use crate::engine::postgres::copy::as_owner::is_superuser;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// Returns the tables and materialized views, by their names, quoted for statements, that the session must not read by a
/// query: their owners have fewer rights, and their indexes or statistics call functions that are not built in.
pub(crate) fn tables_with_code(session: &mut Session) -> Result<BTreeSet<String>> {
    if !is_superuser(session)? {
        return Ok(BTreeSet::new());
    }
    let statistics = if session.version() >= 140_000 {
        "UNION ALL SELECT s.stxexprs::text FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid"
    } else {
        ""
    };
    let rows = session.rows(&format!(
        "SELECT DISTINCT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS name
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND NOT r.rolsuper
          CROSS JOIN LATERAL (
              SELECT x.indexprs::text AS tree FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid
               UNION ALL SELECT x.indpred::text FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid {statistics}) AS e
          WHERE c.relkind IN ('r', 'p', 'm') AND e.tree IS NOT NULL AND EXISTS (
              SELECT FROM pg_catalog.regexp_matches(e.tree,
                         ':(opno|funcid|opfuncid|elemfuncid|resulttype) ([0-9]+)', 'g') AS part
               WHERE part[2]::pg_catalog.oid >= 16384)"
    ))?;
    rows.iter().map(|row| Ok(row.text("name")?.to_owned())).collect()
}
