//! The rows that a run has loaded, and what others have done with them since.

use super::existing;
use super::state::{self, Made, SCHEMA};
use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// The rows that a table has now.
#[derive(Clone, Debug)]
pub(super) struct TableRows {
    /// The number of rows.
    pub rows: u64,
    /// The number of those that the run has written, and that nobody has changed since. All of them, if the server cannot say
    /// it of this table.
    pub own: u64,
    /// True if the server can say who has written a row.
    pub is_known: bool,
    /// The content of [`Made::rows_digest`] if these are the rows that were loaded: the digest of a hypertable's, or [`OWN`].
    pub digest: String,
}

/// In place of a digest: the server can say which rows the run has written.
const OWN: &str = "own";

impl TableRows {
    /// Returns true if these are the rows that were loaded, and no others. `noted` is the table's [`Made::rows_digest`].
    pub(super) fn are_as_loaded(&self, noted: Option<&str>) -> bool {
        self.own == self.rows && noted.is_none_or(|noted| noted == self.digest)
    }
}

/// Reads all rows of a table that the run has created or filled.
pub(super) fn rows_now(session: &mut Session, plan: &str, table: &Made) -> Result<TableRows> {
    let (mut digest, mut has_xmin) = (OWN.to_owned(), true);
    if let Some(is_compressed) = hypertable(session, table)? {
        has_xmin = !is_compressed;
        let row = session.row(&format!(
            "SELECT coalesce(pg_catalog.sum(pg_catalog.hashtextextended(lifeboat_row::text COLLATE \"C\", 0)), 0)::text AS digest
               FROM {} lifeboat_row",
            table.quoted()
        ))?;
        digest = row.text("digest")?.to_owned();
    }
    let id = if has_xmin { "lifeboat_row.xmin" } else { "NULL::xid" };
    let from = own_rows(session, table)?;
    let row = session.row(&format!(
        "SELECT coalesce(pg_catalog.sum(x.rows), 0) AS rows, coalesce(pg_catalog.sum(x.rows) FILTER (WHERE x.id IN (
                    SELECT t.xmin FROM {SCHEMA}.transactions t WHERE t.plan = {})), 0) AS own
           FROM (SELECT {id} AS id, count(*) AS rows FROM {from} lifeboat_row GROUP BY 1) x",
        literal(plan)
    ))?;
    let (rows, own) = (row.number("rows")?, row.number("own")?);
    Ok(TableRows { rows, own: if has_xmin { own } else { rows }, is_known: has_xmin, digest })
}

/// Returns the item of a statement that means the rows of a table, without those of tables that inherit from it and are
/// others'. Partitions and the chunks of a hypertable are parts of the table.
pub(super) fn own_rows(session: &mut Session, table: &Made) -> Result<String> {
    let row = session.row(&format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
                         WHERE i.inhparent = {} AND NOT c.relispartition) AS inherits",
        table.oid
    ))?;
    let is_only = row.flag("inherits")? && hypertable(session, table)?.is_none();
    Ok(if is_only { format!("ONLY {}", table.quoted()) } else { table.quoted() })
}

/// Returns the name that a table has now, if it was renamed or moved to another schema since it was created or filled.
pub(super) fn new_name(session: &mut Session, table: &Made) -> Result<Option<String>> {
    let rows = session.rows(&format!(
        "SELECT c.oid::pg_catalog.regclass::text AS name FROM pg_catalog.pg_class c
          WHERE c.oid = {} AND c.relkind IN ('r', 'p')",
        table.oid
    ))?;
    rows.first().map(|row| row.text("name").map(one_line)).transpose()
}

/// Returns true if a table is a hypertable whose rows are compressed at some time, which then have no `xmin`, false if it is
/// another hypertable, and `None` if it is an ordinary table.
fn hypertable(session: &mut Session, table: &Made) -> Result<Option<bool>> {
    if existing::timescale(session)?.is_none() {
        return Ok(None);
    }
    let rows = session.rows(&format!(
        "SELECT compression_enabled FROM timescaledb_information.hypertables
          WHERE hypertable_schema = {} AND hypertable_name = {}",
        literal(&table.schema),
        literal(&table.name)
    ))?;
    rows.first().map(|row| row.flag("compression_enabled")).transpose()
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
                "stop the programs that write to the table, and disable triggers that change its rows in a block with \
                 EXCEPTION; run 'lifeboat migrate rollback --even-changed', then run the plan again",
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
