//! The locks that replacing rows takes, compared with the room that the server has for locks.

use std::collections::BTreeSet;

use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result};

/// Fails if the server has no room for the locks on these tables, their indexes and sequences, and on materialized views.
/// Otherwise it would run out of memory for locks in the middle of the work.
pub(super) fn require_room(session: &mut Session, oids: &BTreeSet<u32>) -> Result<()> {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    let row = session.row(&format!(
        "WITH relations AS (
             SELECT oid FROM unnest('{{{}}}'::pg_catalog.oid[]) AS oid
              UNION SELECT c.reltoastrelid FROM pg_catalog.pg_class c
                     WHERE c.oid = ANY ('{{{0}}}'::pg_catalog.oid[]) AND c.reltoastrelid <> 0),
         locked AS (
             SELECT oid FROM relations
              UNION SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid IN (SELECT oid FROM relations)
              UNION SELECT d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_sequence s ON s.seqrelid = d.objid
                     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                       AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                       AND d.refobjid IN (SELECT oid FROM relations))
         SELECT (SELECT count(*) FROM locked) + (SELECT count(*) FROM pg_catalog.pg_class WHERE relkind = 'm') AS needed,
                (SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT fastpath) AS used,
                current_setting('max_locks_per_transaction')::bigint AS per_transaction,
                current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint
                    + current_setting('max_worker_processes')::bigint + current_setting('max_wal_senders')::bigint
                    + coalesce(current_setting('autovacuum_worker_slots', true),
                               current_setting('autovacuum_max_workers'))::bigint + 1 AS transactions",
        oids.join(",")
    ))?;
    let number = |column: &str| row.number::<u64>(column);
    let (needed, used) = (number("needed")?, number("used")?);
    let (each, transactions) = (number("per_transaction")?, number("transactions")?.max(1));
    let room = each * transactions;
    if needed + used <= room {
        return Ok(());
    }
    let enough = (needed + used).div_ceil(transactions) + 1;
    Err(Error::failed(format!(
        "replacing the rows of {} tables takes {needed} locks, but the server has room for {room}, of which {used} are taken \
         (max_locks_per_transaction = {each})",
        oids.len()
    ))
    .hint(format!(
        "set max_locks_per_transaction to {enough} or more and restart the server, restore fewer tables at a time with \
         --table, or replace the whole database with --swap; nothing was changed"
    )))
}
