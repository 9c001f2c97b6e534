//! The rows that a run has loaded, and what others have done with them since.

use super::existing;
use super::state::{self, Made, SCHEMA};
use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

/// The rows that a table has now.
#[derive(Clone, Debug)]
pub(super) struct TableRows {
    /// The number of rows.
    pub rows: u64,
    /// The number of those that the run has written, and that nobody has changed since. All of them, if the server cannot say
    /// it of this table.
    pub own: u64,
    /// Their digest (see [`Made::rows_digest`]).
    pub digest: String,
}

/// Reads all rows of a table that the run has created or filled.
pub(super) fn rows_now(session: &mut Session, plan: &str, table: &Made) -> Result<TableRows> {
    let has_xmin = has_xmin(session, table)?;
    let id = if has_xmin { "lifeboat_row.xmin" } else { "NULL" };
    let row = session.row(&format!(
        "SELECT count(*) AS rows, count(lifeboat_own.id) AS own,
                coalesce(pg_catalog.sum(pg_catalog.hashtextextended(lifeboat_row::text COLLATE \"C\", 0)), 0)::text AS digest
           FROM {} lifeboat_row
           LEFT JOIN (SELECT DISTINCT t.xmin AS id FROM {SCHEMA}.transactions t WHERE t.plan = {}) lifeboat_own
             ON lifeboat_own.id = {id}",
        table.quoted(),
        literal(plan)
    ))?;
    let (rows, own, digest) = (row.number("rows")?, row.number("own")?, row.text("digest")?.to_owned());
    Ok(TableRows { rows, own: if has_xmin { own } else { rows }, digest })
}

/// Returns true if the rows of a table have an `xmin`. Those of a hypertable have none after they are compressed.
fn has_xmin(session: &mut Session, table: &Made) -> Result<bool> {
    if existing::timescale(session)?.is_none() {
        return Ok(true);
    }
    let row = session.row(&format!(
        "SELECT NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                             WHERE hypertable_schema = {} AND hypertable_name = {} AND compression_enabled) AS has_xmin",
        literal(&table.schema),
        literal(&table.name)
    ))?;
    row.flag("has_xmin")
}

/// Fails if rows that were loaded are gone or were changed. Notes the digests of the tables if `is_complete` is set: all rows
/// are loaded. Skips tables whose digest is noted already.
pub(super) fn require_rows(session: &mut Session, plan: &str, is_complete: bool) -> Result<()> {
    for one in state::made(session, plan)?.iter().filter(|one| one.is_table() && one.rows_digest.is_none()) {
        interrupt::check()?;
        let (now, loaded) = (rows_now(session, plan, one)?, state::rows_loaded(session, plan, one)?);
        if now.own < loaded {
            return Err(Error::problem(format!(
                "{} of the {loaded} rows that were loaded into {} are gone, or were changed by another program",
                loaded - now.own,
                one.shown()
            ))
            .hint(
                "stop the programs that write to the table, run 'lifeboat migrate rollback --even-changed', then run \
                 the plan again",
            ));
        }
        if is_complete {
            session.execute(&format!(
                "UPDATE {SCHEMA}.made SET rows_digest = {} WHERE plan = {} AND oid = {} AND kind = {}",
                literal(&now.digest),
                literal(plan),
                one.oid,
                literal(&one.kind)
            ))?;
        }
    }
    Ok(())
}

/// Returns true if the object with this name is the one that the plan created or filled.
pub(super) fn is_same(session: &mut Session, made: &Made) -> Result<bool> {
    let row = session.row(&format!(
        "SELECT coalesce(pg_catalog.to_regclass({})::pg_catalog.oid = {}, false) AS same",
        literal(&made.quoted()),
        made.oid
    ))?;
    row.flag("same")
}

/// Fails if a table that the plan has created or fills is not the same any more: what was loaded into it is gone.
pub(super) fn require_same_tables(session: &mut Session, plan: &str) -> Result<()> {
    for one in state::made(session, plan)?.iter().filter(|one| one.is_table()) {
        if !is_same(session, one)? {
            return Err(Error::problem(format!(
                "{} is not the table that the run began with: it was dropped or renamed",
                one.shown()
            ))
            .hint("run 'lifeboat migrate rollback', then run the plan again"));
        }
    }
    Ok(())
}
