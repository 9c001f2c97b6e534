//! One connection to a server, for use from a normal thread.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, Stream, StreamExt};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, CopyOutStream, SimpleQueryMessage};

use crate::engine::postgres::wire::about::ServerAbout;
use crate::engine::postgres::wire::connect::{self, Endpoint, Link, LinkState};
use crate::engine::postgres::wire::copy_stream::Rows;
use crate::engine::postgres::wire::created::Created;
use crate::engine::postgres::wire::failure;
pub(in crate::engine::postgres) use crate::engine::postgres::wire::failure::INSUFFICIENT_PRIVILEGE;
pub use crate::engine::postgres::wire::failure::sqlstate;
use crate::engine::postgres::wire::params::Params;
use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

/// The interval at which a wait for the server checks for a signal to stop.
const TICK: Duration = Duration::from_millis(100);

/// The time limit for a cancel request; the user who pressed Ctrl-C is waiting.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);

/// The time limit for closing the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The time limit for closing the connection after Ctrl-C.
const CLOSE_TIMEOUT_INTERRUPTED: Duration = Duration::from_millis(100);

/// The time limit for cleanup after Ctrl-C.
const CLEANUP_TIMEOUT: Duration = Duration::from_millis(1000);

/// If a COPY returns fewer bytes than this, the client is faster than the server. The server would wake it for every 8
/// KiB that it sends, which costs both sides more than the bytes do. So the client sleeps while the socket receives
/// more (it has room for at least 200 KiB).
const FEW_BYTES: usize = 96 * 1024;
const BACKOFF: Duration = Duration::from_micros(300);

/// The size up to which the client does not sleep: a COPY that has returned no more may be at its end.
const BACKOFF_FROM_BYTES: u64 = 1 << 20;

/// The number of COPY bytes that are passed to the connection at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// One connection. It belongs to one thread at a time; dropping it closes it.
///
/// Must not be used or dropped inside an async task, because it blocks.
pub struct Session {
    // Declared before the driver: dropping it first lets the connection close properly.
    client: Client,
    driver: Driver,
    state: Arc<LinkState>,
    rows: Rows,
    endpoint: Endpoint,
    about: ServerAbout,
    pid: i32,
    /// The server's URL for messages, without a password.
    url: String,
    /// True if a signal to stop ends a wait at once.
    stops_at_once: bool,
    in_transaction: bool,
    /// The list of the objects that it creates, if there is one.
    created: Option<Created>,
}

/// One row of a query's result; every value is in the text format of the server.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Option<String>>,
}

/// The runtime of a connection, and the task that drives it.
struct Driver {
    runtime: Option<Runtime>,
    task: Option<JoinHandle<()>>,
}

impl Driver {
    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("the runtime exists until the driver is dropped")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // The client is already dropped, so the connection ends by itself if there is enough time.
        if let Some(task) = self.task.take().filter(|_| tokio::runtime::Handle::try_current().is_err()) {
            let limit = if interrupt::check().is_ok() { CLOSE_TIMEOUT } else { CLOSE_TIMEOUT_INTERRUPTED };
            let _ = runtime.block_on(async { tokio::time::timeout(limit, task).await });
        }
        // A lookup of a host's name may still hang; it is not waited for.
        runtime.shutdown_background();
    }
}

impl Session {
    /// Connects, trying the hosts in turn, and finds out the server's version and settings.
    ///
    /// Fails with [`crate::platform::error::Kind::Unreachable`] if no server can be reached or none accepts the login.
    /// A signal to stop ends it.
    pub fn connect(params: &Params) -> Result<Self> {
        Self::connect_with(params, true)
    }

    /// Connects for cleanup, or for work that must not be left half done: see [`Session::defer_interrupts`].
    pub fn connect_for_cleanup(params: &Params) -> Result<Self> {
        Self::connect_with(params, false)
    }

    fn connect_with(params: &Params, stops_at_once: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::failed("cannot start the network runtime").because(error))?;
        let mut driver = Driver { runtime: Some(runtime), task: None };
        let link = driver.runtime().block_on(until_interrupted(connect::connect(params), stops_at_once)).flatten()?;
        let Link { client, driver: task, state, rows, endpoint, about, pid } = link;
        driver.task = Some(task);
        let url = params.shown();
        tracing::info!(
            "connected to {url}: PostgreSQL {} at {}:{}{}, as {}{}",
            about.version,
            about.host,
            about.port,
            if about.in_recovery { " (a standby)" } else { "" },
            about.user,
            if about.is_superuser { " (a superuser)" } else { "" },
        );
        let (in_transaction, created) = (false, None);
        Ok(Session { client, driver, state, rows, endpoint, about, pid, url, stops_at_once, in_transaction, created })
    }

    /// Makes this session finish its work after a signal to stop. A signal then no longer ends a wait at once, but only
    /// after one more second, and no cancel request is sent: the server finishes the command by itself.
    pub fn defer_interrupts(&mut self) {
        self.stops_at_once = false;
    }

    /// Sets the list of the objects that this session creates.
    pub(in crate::engine::postgres) fn record_created(&mut self, created: Created) {
        self.created = Some(created);
    }

    /// Returns the list of the objects that this session creates, if there is one.
    pub(in crate::engine::postgres) fn created(&self) -> Option<Created> {
        self.created.clone()
    }

    /// Returns the server's version as a number: 150004 for 15.4.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.about.version_num
    }

    /// Returns what the server reported about itself and the session when connecting.
    #[must_use]
    pub fn about(&self) -> &ServerAbout {
        &self.about
    }

    /// Returns the id of the server's process for this connection, as in `pg_stat_activity`.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Returns the server's notices and warnings since the last call, oldest first. If there are very many, only the
    /// newest are kept.
    #[must_use]
    pub fn take_notices(&self) -> Vec<String> {
        self.state.take_notices()
    }

    /// Runs statements that return no rows. Several statements, separated by semicolons, run as one transaction.
    pub fn execute(&mut self, sql: &str) -> Result<()> {
        self.wait(self.client.batch_execute(sql))?;
        if sql.starts_with("BEGIN") {
            self.in_transaction = true;
        }
        if sql.rsplit(';').next().is_some_and(|last| matches!(last.trim(), "COMMIT" | "ROLLBACK")) {
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Returns true if [`Session::execute`] has begun a transaction and not ended it.
    #[must_use]
    pub fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Runs one query and returns its rows.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Row>> {
        let messages = self.wait(self.client.simple_query(sql))?;
        let mut columns: Arc<[String]> = Arc::new([]);
        let mut rows = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(description) => {
                    columns = description.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) => {
                    let value = |index| row.try_get(index).map(|value| value.map(str::to_owned));
                    // Only a database that accepts any bytes as text (SQL_ASCII) can have text that is not valid UTF-8.
                    let values: std::result::Result<_, _> = (0..row.len()).map(value).collect();
                    let values = values
                        .map_err(|error| Error::failed("the server's answer is not valid UTF-8").because(error))?;
                    rows.push(Row { columns: Arc::clone(&columns), values });
                }
                _ => {}
            }
        }
        Ok(rows)
    }

    /// Runs one query that returns exactly one row.
    pub fn row(&mut self, sql: &str) -> Result<Row> {
        let mut rows = self.rows(sql)?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Error::failed("the server did not return exactly one row").hint(sql)),
        }
    }

    /// Runs a `COPY ... TO STDOUT` into `buffer`. Returns the buffer with the bytes that are left in it, and the number
    /// of rows by the server's count.
    ///
    /// Each time that bytes have arrived, `sink` gets the buffer and may take all of it or its beginning; new bytes are
    /// appended to what it leaves. If `sink` fails, the COPY is cancelled on the server.
    pub fn copy_out(
        &mut self,
        sql: &str,
        buffer: Vec<u8>,
        mut sink: impl FnMut(&mut Vec<u8>) -> Result<()>,
    ) -> Result<(Vec<u8>, u64)> {
        self.rows.keep_next(buffer);
        let copied = self.copy_out_rows(sql, &mut sink);
        let rest = self.rows.keep_none();
        copied.map(|rows| (rest, rows))
    }

    fn copy_out_rows(&mut self, sql: &str, sink: &mut impl FnMut(&mut Vec<u8>) -> Result<()>) -> Result<u64> {
        let stream = self.wait(self.client.copy_out(sql))?;
        let mut stream = pin!(stream);
        let (mut bytes, mut has_ended) = (0, false);
        loop {
            if let Some(rows) = self.wait(next_rows(stream.as_mut(), &mut has_ended, &self.rows))? {
                return Ok(rows);
            }
            // The sink is called between the waits, so that it may itself wait, for example for another session.
            match interrupt::check().and_then(|()| self.rows.process(&mut *sink)) {
                Ok(new_bytes) => {
                    bytes += new_bytes as u64;
                    if new_bytes < FEW_BYTES && bytes > BACKOFF_FROM_BYTES {
                        thread::sleep(BACKOFF);
                    }
                }
                Err(error) => {
                    self.rows.keep_none();
                    self.cancel();
                    // Reads to the end, so that a late cancel request does not hit the next statement.
                    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
                    let _ = self.driver.runtime().block_on(async { tokio::time::timeout(CANCEL_TIMEOUT, rest).await });
                    return Err(error);
                }
            }
        }
    }

    /// Runs a `COPY ... FROM STDIN` with the bytes from `source`, until it returns `None`. Returns the number of rows
    /// that the server stored.
    ///
    /// The pieces need not end at row boundaries. If `source` fails, the server stores nothing.
    pub fn copy_in(&mut self, sql: &str, mut source: impl FnMut() -> Result<Option<Bytes>>) -> Result<u64> {
        let sink = self.wait(self.client.copy_in::<_, Bytes>(sql))?;
        let mut sink = pin!(sink);
        let mut chunk = BytesMut::new();
        // Dropping the sink before finish() makes the server roll back the COPY.
        while let Some(mut bytes) = source()? {
            interrupt::check()?;
            // The library copies what it is given, so a long value is given to it in parts.
            while !bytes.is_empty() {
                if chunk.is_empty() && bytes.len() >= CHUNK_BYTES {
                    self.wait(sink.as_mut().feed(bytes.split_to(CHUNK_BYTES)))?;
                    continue;
                }
                chunk.extend_from_slice(&bytes.split_to(bytes.len().min(CHUNK_BYTES - chunk.len())));
                if chunk.len() >= CHUNK_BYTES {
                    self.wait(sink.as_mut().feed(chunk.split().freeze()))?;
                }
            }
        }
        if !chunk.is_empty() {
            self.wait(sink.as_mut().feed(chunk.freeze()))?;
        }
        self.wait(sink.as_mut().finish())
    }

    /// Asks the server to cancel the running command of this connection; the command may already have ended.
    fn cancel(&self) {
        let token = self.client.cancel_token();
        let request = async { tokio::time::timeout(CANCEL_TIMEOUT, self.endpoint.cancel(token)).await };
        match self.driver.runtime().block_on(request) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("cannot send a cancel request to {}: {error}", self.url),
            Err(_) => tracing::debug!("{} does not answer a cancel request", self.url),
        }
    }

    /// Waits for the server or a signal. At a signal, it also asks the server to cancel the command.
    fn wait<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        match self.driver.runtime().block_on(until_interrupted(work, self.stops_at_once)) {
            Ok(done) => done.map_err(|error| failure::in_session(&error, self.state.lost().as_deref(), &self.url)),
            Err(interrupted) => {
                if self.stops_at_once {
                    self.cancel();
                }
                Err(interrupted)
            }
        }
    }
}

/// The most sessions that each pool has opened for [`open_up_to`] when it last let a client wait in vain.
static MOST_OF_POOLS: Mutex<BTreeMap<String, MostOfPool>> = Mutex::new(BTreeMap::new());

/// The most sessions that a pool has opened.
#[derive(Clone, Copy)]
struct MostOfPool {
    sessions: usize,
    since: Instant,
}

impl MostOfPool {
    /// The time after which a pool is asked for more again. It may have been busy for a moment only.
    const KNOWN_FOR: Duration = Duration::from_secs(300);

    fn is_known(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < MostOfPool::KNOWN_FOR
    }
}

/// The time after which a refusal comes from a pool that has let the client wait. A server refuses at once.
const SLOW_REFUSAL: Duration = Duration::from_millis(500);

/// Opens up to `most` sessions of these parameters; fewer if the server accepts no more. A pool that has let a client wait in
/// vain is not asked for as many again for some minutes.
pub fn open_up_to(params: &Params, most: usize, open: impl Fn() -> Result<Session>) -> Result<Vec<Session>> {
    let limits = || MOST_OF_POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = params.shown();
    let known = limits().get(&pool).copied().filter(|known| known.is_known(Instant::now()));
    let limit = known.map_or(most, |known| known.sessions.min(most));
    let mut sessions = Vec::new();
    while sessions.len() < limit {
        let asked = Instant::now();
        match open() {
            Ok(session) => sessions.push(session),
            // too_many_connections: of the server, the database or the role.
            Err(error) if sqlstate(&error).as_deref() == Some("53300") => {
                let reason = error.full_message();
                tracing::warn!("continuing with {} of {} sessions: {reason}", sessions.len() + 1, most + 1);
                if asked.elapsed() >= SLOW_REFUSAL {
                    limits().insert(pool, MostOfPool { sessions: sessions.len(), since: Instant::now() });
                }
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sessions)
}

const NULL_ANSWER: &str = "the server returned NULL for";

/// Returns true if an error reports that a value was NULL. The server's functions return NULL for objects that were
/// dropped just before.
#[must_use]
pub fn is_null_answer(error: &Error) -> bool {
    error.message.starts_with(NULL_ANSWER) || error.causes().iter().any(|cause| cause.starts_with(NULL_ANSWER))
}

/// Waits for `work`, and fails when a signal asks to stop: at once, or when the time for cleanup is over.
async fn until_interrupted<T>(work: impl Future<Output = T>, at_once: bool) -> Result<T> {
    let mut work = pin!(work);
    let mut interrupted_at: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(TICK) => {}
        }
        if let Err(interrupted) = interrupt::check()
            && (at_once || interrupted_at.get_or_insert_with(Instant::now).elapsed() >= CLEANUP_TIMEOUT)
        {
            return Err(interrupted);
        }
    }
}

/// Waits for rows of a COPY. When the COPY has ended, returns the number of rows by the server's count.
///
/// `has_ended` is true once the library's own stream has ended; after that, only the number of rows is to come.
async fn next_rows(
    mut stream: Pin<&mut CopyOutStream>,
    has_ended: &mut bool,
    rows: &Rows,
) -> Result<Option<u64>, tokio_postgres::Error> {
    poll_fn(|cx| {
        // The end of the COPY comes after its rows, but by another path. It is checked first, because an error is
        // reported only once.
        let ended = match stream.as_mut().poll_next(cx) {
            Poll::Ready(None) => {
                *has_ended = true;
                // Polled once more, so that a failure wakes this task.
                stream.as_mut().poll_next(cx)
            }
            polled => polled,
        };
        if let Poll::Ready(Some(Err(error))) = ended {
            // After the end of the COPY, the library expects no message, not even the row count that is waited for
            // here.
            let is_number = *has_ended && rows.reported_rows(cx).is_some();
            if !is_number || error.as_db_error().is_some() || error.is_closed() {
                return Poll::Ready(Err(error));
            }
        }
        if rows.have_arrived(cx) {
            return Poll::Ready(Ok(None));
        }
        match rows.reported_rows(cx) {
            Some(number) if *has_ended => Poll::Ready(Ok(Some(number))),
            _ => Poll::Pending,
        }
    })
    .await
}

impl Row {
    /// Returns the text in a column, or `None` for NULL. Fails if there is no such column.
    pub fn get(&self, column: &str) -> Result<Option<&str>> {
        match self.columns.iter().position(|name| name == column) {
            Some(index) => Ok(self.values[index].as_deref()),
            None => Err(Error::failed(format!("the server's answer has no column {column}"))),
        }
    }

    /// Returns the text in a column that is never NULL.
    pub fn text(&self, column: &str) -> Result<&str> {
        self.get(column)?.ok_or_else(|| Error::failed(format!("{NULL_ANSWER} {column}")))
    }

    /// Returns an owned copy of the text in a column, or `None` for NULL.
    pub fn owned(&self, column: &str) -> Result<Option<String>> {
        Ok(self.get(column)?.map(str::to_owned))
    }

    /// Returns a number; also for an oid.
    pub fn number<T: std::str::FromStr>(&self, column: &str) -> Result<T> {
        let text = self.text(column)?;
        text.parse()
            .map_err(|_| Error::failed(format!("the server returned '{text}' for {column}, which is not a number")))
    }

    /// Returns a boolean; NULL is false.
    pub fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.get(column)? == Some("t"))
    }

    /// Returns a list that the query made with `to_json(array)`; NULL is the empty list.
    pub fn list(&self, column: &str) -> Result<Vec<String>> {
        match self.get(column)? {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_str(json)
                .map_err(|error| Error::failed(format!("the server's {column} is not a JSON list")).because(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_was_busy_is_asked_for_more_sessions_after_some_minutes() {
        let known = MostOfPool { sessions: 1, since: Instant::now() };
        assert!(known.is_known(known.since + Duration::from_secs(60)));
        assert!(!known.is_known(known.since + Duration::from_secs(600)));
    }
}
