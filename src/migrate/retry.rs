//! Loads rows again that the server has refused because the rows that they refer to were not there yet. A row that is still
//! refused when no other arrives is rejected.

use super::load::Loader;
use super::plan::Rejects;
use super::state::{self, Chunk, MISSING_PARENT};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

/// Loads such rows of all chunks until none arrives any more.
pub(super) fn load_again(session: &mut Session, loader: &mut Loader<'_>, chunks: &[Chunk]) -> Result<()> {
    let plan = loader.plan().id.clone();
    let mut order: Vec<&Chunk> = chunks.iter().collect();
    while state::has_rejects(session, &plan, MISSING_PARENT)? {
        if load_once(session, loader, order.iter().copied(), MISSING_PARENT)? == 0 {
            break;
        }
        // Rows may refer to later ones.
        order.reverse();
    }
    if loader.plan().rejects == Rejects::Stop && state::has_rejects(session, &plan, MISSING_PARENT)? {
        return Err(Error::problem("rows refer to rows that do not exist: see lifeboat_migrate.rejects").hint(
            "set rejects = \"table\" in the plan to keep such rows aside, and run it again; or run 'lifeboat migrate \
                 rollback', correct the rows, and run the plan again",
        ));
    }
    Ok(())
}

/// Loads the rows of these chunks again that were rejected with this SQLSTATE. Returns the number of rows that arrived.
pub(super) fn load_once<'a>(
    session: &mut Session,
    loader: &mut Loader<'_>,
    chunks: impl Iterator<Item = &'a Chunk>,
    state: &str,
) -> Result<u64> {
    let mut arrived = 0;
    for chunk in chunks {
        interrupt::check()?;
        session.execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE")?;
        let loaded = loader.load_rejected(session, chunk, state);
        if loaded.is_err() {
            session.defer_interrupts();
            let _ = session.execute("ROLLBACK");
        }
        arrived += loaded?;
        session.execute("COMMIT")?;
    }
    Ok(arrived)
}
