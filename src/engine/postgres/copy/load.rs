//! Loads rows on several sessions.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::engine::postgres::copy::as_owner;
use crate::engine::postgres::copy::large_objects::{CREATE_LOADING_TABLE, LOADING_TABLE, PUT_LOADED};
use crate::engine::postgres::copy::retry::may_succeed_later;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};

/// The maximum size of one message to the server.
const CHUNK_BYTES: usize = 256 << 10;

/// The work for one session.
pub(crate) enum Load {
    /// Whole rows, by a COPY.
    Rows {
        /// The table.
        table: Arc<RowSource>,
        /// The rows.
        rows: Vec<u8>,
    },
    /// Rows of large objects' content.
    LargeObjects(Vec<u8>),
}

/// Loads one piece. Returns the number of rows that the server stored.
pub(crate) fn load(session: &mut Session, work: Load) -> Result<u64> {
    match work {
        Load::Rows { table, rows } => {
            let loaded = match &table.owned {
                Some(owned) => as_owner::load(session, &table, owned, |session, copy| copy_in(session, copy, rows)),
                None => copy_in(session, &table.copy_in(), rows),
            };
            loaded.map_err(|error| error.context(format!("cannot load rows into {}", one_line(&table.qualified))))
        }
        Load::LargeObjects(rows) => {
            let load = |session: &mut Session| {
                session.execute(CREATE_LOADING_TABLE)?;
                let loaded = copy_in(session, &format!("COPY {LOADING_TABLE} FROM STDIN"), rows)?;
                session.execute(PUT_LOADED)?;
                session.execute(&format!("DROP TABLE {LOADING_TABLE}"))?;
                Ok(loaded)
            };
            load(session).map_err(|error: Error| error.context("cannot load large objects"))
        }
    }
}

fn copy_in(session: &mut Session, copy: &str, rows: Vec<u8>) -> Result<u64> {
    let mut rest = Bytes::from(rows);
    session.copy_in(copy, || {
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.len().min(CHUNK_BYTES);
        Ok(Some(rest.split_to(length)))
    })
}

/// Sessions that load in parallel, each in its own transactions.
///
/// Memory: two pieces per session.
pub(crate) struct Loaders {
    sender: SyncSender<Load>,
    threads: Vec<JoinHandle<Result<Session>>>,
    failed: FailedTables,
}

/// The tables whose rows were not all loaded, by their names, quoted for statements. Their code has failed, and may succeed
/// once the rows of other tables are loaded.
type FailedTables = Arc<Mutex<HashMap<String, Error>>>;

impl Loaders {
    /// Starts a thread for each session.
    pub(crate) fn start(sessions: Vec<Session>) -> Result<Self> {
        let (sender, receiver) = sync_channel::<Load>(sessions.len());
        let receiver = Arc::new(Mutex::new(receiver));
        let failed = FailedTables::default();
        let mut threads = Vec::new();
        for session in sessions {
            let (receiver, failed) = (Arc::clone(&receiver), Arc::clone(&failed));
            let thread = thread::Builder::new().name("load".to_owned()).spawn(move || run(session, &receiver, &failed));
            threads.push(thread.map_err(|error| Error::failed("cannot start a thread").because(error))?);
        }
        Ok(Loaders { sender, threads, failed })
    }

    /// Passes work to the sessions. Returns false if a session has ended; [`finish`](Self::finish) returns the reason.
    #[must_use]
    pub(crate) fn load(&self, work: Load) -> bool {
        self.sender.send(work).is_ok() && !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until everything is loaded. Returns the sessions, and the tables whose code has failed.
    pub(crate) fn finish(self) -> Result<(Vec<Session>, HashMap<String, Error>)> {
        drop(self.sender);
        let mut sessions = Vec::new();
        let mut failed = None;
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(session)) => sessions.push(session),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(_) => failed = failed.or_else(|| Some(Error::failed("a thread has died"))),
            }
        }
        let tables = self
            .failed
            .lock()
            .map_err(|_| Error::failed("a thread has died"))
            .map(|mut tables| std::mem::take(&mut *tables));
        failed.map_or(Ok((sessions, tables?)), Err)
    }
}

fn run(
    mut session: Session,
    receiver: &Mutex<Receiver<Load>>,
    failed: &Mutex<HashMap<String, Error>>,
) -> Result<Session> {
    let died = || Error::failed("a thread has died");
    loop {
        let next = receiver.lock().map_err(|_| died())?.recv();
        let Ok(work) = next else { return Ok(session) };
        let table = match &work {
            Load::Rows { table, .. } => Some(Arc::clone(table)),
            Load::LargeObjects(_) => None,
        };
        if let Some(table) = &table
            && failed.lock().map_err(|_| died())?.contains_key(&table.qualified)
        {
            continue;
        }
        match (load(&mut session, work), table) {
            (Err(error), Some(table)) if may_succeed_later(&error) && has_code(&mut session, &table)? => {
                tracing::debug!("loading these rows later: {}", error.full_message());
                failed.lock().map_err(|_| died())?.insert(table.qualified.clone(), error);
            }
            (loaded, _) => drop(loaded?),
        }
    }
}

/// Returns true if code of users or extensions loads the rows of a table.
fn has_code(session: &mut Session, table: &RowSource) -> Result<bool> {
    Ok(as_owner::tables_with_code(session)?.contains(&table.qualified))
}
