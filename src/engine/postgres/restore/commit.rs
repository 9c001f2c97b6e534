//! The commit of a transaction that changes a live database. Whenever possible, it is known afterwards whether it was
//! committed.

use std::thread;
use std::time::Duration;

use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::Session;
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Kind, Result};

/// The number of times that the server is asked for the outcome of a transaction.
const TRIES: u32 = 20;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Commits the session's transaction. If the reply is lost, the server is asked over another connection for the
/// outcome.
pub(crate) fn commit(session: &mut Session, params: &Params) -> Result<()> {
    let transaction = session.row("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text AS id")?.owned("id")?;
    session.defer_interrupts();
    let Err(error) = session.execute("COMMIT") else { return Ok(()) };
    let failed = |error: Error, outcome: &str| error.context(format!("cannot commit the transaction; {outcome}"));
    match (error.kind, transaction) {
        (Kind::Unreachable | Kind::Interrupted, Some(transaction)) => match outcome(&transaction, params) {
            Ok(true) => {
                tracing::warn!("the connection was lost during COMMIT, but the server did commit the transaction");
                Ok(())
            }
            Ok(false) => Err(failed(error, "nothing was changed")),
            Err(why) => {
                tracing::warn!("cannot ask the server for the outcome of the transaction: {}", why.full_message());
                Err(failed(error, "it is unknown whether the server has committed it: look at the rows"))
            }
        },
        _ => Err(failed(error, "nothing was changed")),
    }
}

/// Returns true if a transaction was committed, false if it was aborted. Fails if the outcome cannot be found out.
fn outcome(transaction: &str, params: &Params) -> Result<bool> {
    let mut last = Error::unreachable("the transaction has not ended");
    for attempt in 0..TRIES {
        if attempt > 0 {
            thread::sleep(PAUSE);
            crate::platform::interrupt::check()?;
        }
        let status = Session::connect_for_cleanup(params).and_then(|mut session| {
            settings::pin(&mut session)?;
            session
                .row(&format!("SELECT pg_catalog.pg_xact_status({}::pg_catalog.xid8) AS status", literal(transaction)))?
                .owned("status")
        });
        match status.as_ref().map(Option::as_deref) {
            Ok(Some("committed")) => return Ok(true),
            Ok(Some("aborted")) => return Ok(false),
            Ok(_) => {}
            Err(_) => last = status.err().unwrap_or(last),
        }
    }
    Err(last)
}
