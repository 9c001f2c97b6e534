//! Poolers between this program and a server.
//!
//! In session mode, a pooler gives each client a connection to the server of its own, and cleans it when the client leaves.
//! In transaction or statement mode, clients share the connections: whatever one of them sets for its session, others get.
//! So nothing is set before it is certain that the connection is not shared, and the queries that find this out change
//! nothing.
//!
//! A connection is direct if `pg_backend_pid()` is the process that the server named in the login (the message
//! BackendKeyData). A pooler names a process of its own. Then a second connection is opened, and both ask several times for
//! the process that answers them: a client of a pool in session mode always gets the same answer, and no other client gets
//! it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::engine::postgres::wire::hosted;
use crate::engine::postgres::wire::params::{Host, Params};
use crate::platform::error::{Error, Result};

/// The query for the process that answers.
const PROCESS: &str = "SELECT pg_catalog.pg_backend_pid()";

/// The number of times that a query is repeated that was cancelled.
const MOST_TRIES: u32 = 20;

/// The number of times that both connections ask.
const ROUNDS: u32 = 4;

/// The time to wait for the answer to the second client. A pool in session mode that has no more connections lets it wait.
const SECOND_TIMEOUT: Duration = Duration::from_secs(1);

/// The time to wait for the answer to a client that was answered before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The time in which an answer arrives that was sent before another one that has arrived.
const LATE_TIMEOUT: Duration = Duration::from_millis(200);

/// The time for which it is known that the clients of a pool do not share connections.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The reason why a pooler cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine::postgres) enum Pooled {
    /// Its clients share connections to the server.
    #[error("the connections to the server are shared between clients")]
    Shared,
    /// Too few connections were possible to find out whether they are shared.
    #[error("it is not known whether the connections to the server are shared between clients")]
    Unknown,
}

/// Returns the processes in the answers to [`PROCESS`].
fn process(messages: &[SimpleQueryMessage]) -> Option<i32> {
    messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    })
}

/// Asks for the process that answers.
///
/// A role or a database may set a statement_timeout that even this query exceeds. Then it is asked in a transaction without
/// that limit.
async fn ask(client: &Client) -> Result<Option<i32>, tokio_postgres::Error> {
    let mut answer = client.simple_query(PROCESS).await;
    for _ in 0..MOST_TRIES {
        let is_cancelled =
            |code: &SqlState| [SqlState::QUERY_CANCELED, SqlState::IN_FAILED_SQL_TRANSACTION].contains(code);
        match &answer {
            Err(error) if error.code().is_some_and(is_cancelled) => {}
            _ => break,
        }
        let unlimited = format!("ROLLBACK; BEGIN; SET LOCAL statement_timeout = 0; {PROCESS}; COMMIT");
        answer = client.simple_query(&unlimited).await;
    }
    answer.map(|messages| process(&messages))
}

/// Asks for the process that answers, in two transactions that are sent together.
pub(in crate::engine::postgres) async fn ask_twice(
    client: &Client,
) -> Result<(Option<i32>, Option<i32>), tokio_postgres::Error> {
    let (first, second) = futures_util::join!(ask(client), ask(client));
    Ok((first?, second?))
}

/// Asks again for the process that answers. Returns `None` if there is no answer in time.
async fn ask_in_time(client: &Client) -> Result<Option<Option<i32>>, tokio_postgres::Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, ask(client)).await.ok().transpose()
}

/// Finds out whether a pooler keeps a connection to the server for a client alone: `own` is the process that has answered it
/// so far, and `second` is another client, whose login took `login`. Returns the reason if it does not, or if this cannot be
/// found out.
pub(in crate::engine::postgres) async fn inspect(
    client: &Client,
    own: Option<i32>,
    second: &Client,
    login: Duration,
) -> Result<Option<Pooled>, tokio_postgres::Error> {
    let mut asked = pin!(ask(second));
    // On a slow network, the query needs as much time as one step of the login.
    let answer = match tokio::time::timeout(SECOND_TIMEOUT.max(login), &mut asked).await {
        Ok(answer) => answer,
        Err(_) => {
            for _ in 0..2 {
                match ask_in_time(client).await? {
                    None => return Ok(Some(Pooled::Unknown)),
                    Some(process) if process != own => return Ok(Some(Pooled::Shared)),
                    Some(_) => {}
                }
            }
            // A pooler serves its clients in the order in which they ask. This one was served, and the one that has asked
            // before still waits: so it has a connection of its own.
            match tokio::time::timeout(LATE_TIMEOUT, &mut asked).await {
                Ok(answer) => answer,
                Err(_) => return Ok(None),
            }
        }
    };
    let Ok(other) = answer else { return Ok(Some(Pooled::Unknown)) };
    for _ in 0..ROUNDS {
        for (client, before, other) in [(client, own, other), (second, other, own)] {
            match ask_in_time(client).await? {
                None => return Ok(Some(Pooled::Unknown)),
                Some(process) if process != before || process == other => return Ok(Some(Pooled::Shared)),
                Some(_) => {}
            }
        }
    }
    Ok(None)
}

/// The knowledge about a host, which is kept for a short time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum Known {
    /// There is no pooler.
    Direct,
    /// There is a pooler in session mode.
    SessionMode,
}

/// The pools and servers about which it is known that their clients do not share connections, with the time.
static KNOWN: Mutex<Option<HashMap<Pool, (Known, Instant)>>> = Mutex::new(None);

/// The names by which a pooler chooses a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::engine::postgres) struct Pool {
    host: String,
    port: u16,
    database: String,
    user: String,
}

impl Pool {
    /// Returns the pool that these parameters name.
    pub(in crate::engine::postgres) fn of(params: &Params, host: &Host) -> Self {
        Pool {
            host: host.name.clone(),
            port: host.port,
            database: params.database().to_owned(),
            user: params.user().to_owned(),
        }
    }

    fn known(&self) -> Option<(Known, Instant)> {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref()?.get(self).copied()
    }

    /// Returns true if it was found shortly before that its clients do not share connections.
    pub(in crate::engine::postgres) fn is_known(&self) -> bool {
        self.known().is_some_and(|(_, since)| since.elapsed() < KNOWN_FOR)
    }

    /// Returns true if it was found before that there is a pooler in session mode.
    pub(in crate::engine::postgres) fn is_in_session_mode(&self) -> bool {
        self.known().is_some_and(|(known, _)| known == Known::SessionMode)
    }

    /// Remembers what was found.
    pub(in crate::engine::postgres) fn remember(&self, known: Known) {
        let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        all.get_or_insert_default().insert(self.clone(), (known, Instant::now()));
    }
}

/// Fails if the name of a host is one that always leads to a pool in transaction mode.
pub(in crate::engine::postgres) fn refuse_by_name(params: &Params) -> Result<()> {
    match params.hosts.iter().find(|host| hosted::is_shared_pool(&host.name, host.port)) {
        Some(host) => Err(refused(params, host, Pooled::Shared)),
        None => Ok(()),
    }
}

/// Builds the error for a pooler that cannot be used.
pub(in crate::engine::postgres) fn refused(params: &Params, host: &Host, why: Pooled) -> Error {
    let url = params.shown_at(std::slice::from_ref(host));
    let way = hosted::way_around_pooler(&host.name, host.port);
    let hint = format!("{way}; nothing was set in the pool's sessions");
    match why {
        Pooled::Shared => Error::usage(format!(
            "{url} is a pooler in transaction or statement mode: its clients share the server's sessions, and the settings \
             of one would reach the others"
        ))
        .hint(hint),
        Pooled::Unknown => Error::unreachable(format!(
            "{url} is a pooler, and it cannot be found out whether its clients share the server's sessions: all of them are \
             in use, or it accepts no second connection"
        ))
        .hint(format!("{hint}; if each client has a session of its own, add pgbouncer=false to the URL's parameters")),
    }
}
