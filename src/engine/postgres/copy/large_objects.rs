//! Large objects: read and written with `lo_get` and `lo_put`, which any role that has access to the object may call.

use crate::engine::postgres::copy::rows::{BufferPool, Columns, Gatherer, RowSum};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

/// The number of an object's bytes in one row.
const CHUNK_BYTES: u64 = 256 << 10;

/// The temporary table that rows of chunks are loaded into; `lo_put` then copies them into the objects.
pub(crate) const LOADING_TABLE: &str = "pg_temp.lifeboat_large_objects";

/// The statement that creates that table.
pub(crate) const CREATE_LOADING_TABLE: &str = "CREATE TEMPORARY TABLE lifeboat_large_objects (object oid NOT NULL, start bigint NOT NULL, content bytea NOT NULL)";

/// The statement that writes the content of the table into the objects, which must exist.
pub(crate) const PUT_LOADED: &str =
    "SELECT pg_catalog.lo_put(object, start, content) FROM pg_temp.lifeboat_large_objects";

/// The large objects of a snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct LargeObjects {
    /// The oids.
    pub oids: Vec<u32>,
    /// The sum of their content, once it has been read; a row is `oid, offset, bytes`.
    pub sum: RowSum,
}

/// Lists the large objects. Those that the role may not read are added to `refused`.
pub(crate) fn list(session: &mut Session, refused: &mut Vec<String>) -> Result<LargeObjects> {
    // No function of the server tests the right to read a large object, so the query evaluates the object's ACL.
    let rows = session.rows(
        "SELECT m.oid,
                (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
                    OR pg_catalog.pg_has_role(m.lomowner, 'USAGE')
                    OR EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a
                                WHERE a.privilege_type = 'SELECT'
                                  AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE'))) AS readable
           FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid",
    )?;
    let mut found = LargeObjects::default();
    for row in &rows {
        let oid: u32 = row.number("oid")?;
        if row.flag("readable")? {
            found.oids.push(oid);
        } else {
            refused.push(format!("large object {oid}: the role may not read it"));
        }
    }
    Ok(found)
}

/// Reads all large objects in the session's snapshot; `sink` gets pieces of whole rows.
pub(crate) fn read(
    session: &mut Session,
    objects: &mut LargeObjects,
    sink: &mut dyn FnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    let pool = BufferPool::default();
    let mut gatherer = Gatherer::new(&pool, Columns::default());
    let (mut buffer, mut rows) = (gatherer.buffer(), 0);
    for oid in &objects.oids {
        let mut start = 0;
        loop {
            interrupt::check()?;
            let sql =
                format!("COPY (SELECT {oid}, {start}, pg_catalog.lo_get({oid}, {start}, {CHUNK_BYTES})) TO STDOUT");
            let (row, reported_rows) = session
                .copy_out(&sql, Vec::new(), |_| Ok(()))
                .map_err(|error: Error| error.context(format!("cannot read the large object {oid}")))?;
            // Two hexadecimal digits per byte, after the last tab and `\\x`, before the line break.
            let value = row.iter().rposition(|byte| *byte == b'\t').map_or(0, |tab| tab + 1);
            let content = (row.len().saturating_sub(value + 4) / 2) as u64;
            if content > 0 || start == 0 {
                buffer.extend_from_slice(&row);
                rows += reported_rows;
                if let Some(piece) = gatherer.gather(&mut buffer) {
                    sink(piece)?;
                }
            }
            if content < CHUNK_BYTES {
                break;
            }
            start += CHUNK_BYTES;
        }
    }
    if let Some(piece) = gatherer.finish(buffer, rows)? {
        sink(piece)?;
    }
    objects.sum = gatherer.sum;
    Ok(())
}
