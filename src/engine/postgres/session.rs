//! One connection to a server, used from a plain thread.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::error::{Error, Kind, Result};
use crate::interrupt;

/// How often a wait for the server looks whether a signal asked to stop.
const TICK: Duration = Duration::from_millis(100);

/// One connection. It belongs to one thread at a time; dropping it closes it.
pub struct Session {
    // Declared before the runtime: dropping it first lets the connection say goodbye.
    client: Client,
    runtime: Runtime,
    version: u32,
}

/// One row of a query's result; every value is the text that the server prints for it.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Option<String>>,
}

impl Session {
    /// Connects; `url` is a libpq URL or keyword string.
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::failed("cannot start the network runtime").because(error))?;
        let config: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| Error::usage("bad PostgreSQL URL").because(error))?;
        let (client, connection) = runtime
            .block_on(config.connect(NoTls))
            .map_err(|error| Error::unreachable("cannot connect to the server").because(error))?;
        runtime.spawn(connection);
        let mut session = Session { client, runtime, version: 0 };
        let version = session.row("SELECT current_setting('server_version_num') AS version")?;
        session.version = version.number("version")?;
        Ok(session)
    }

    /// The server's version as a number: 150004 for 15.4.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Runs statements that give no rows; several, parted by semicolons, run as one transaction.
    pub fn execute(&mut self, sql: &str) -> Result<()> {
        self.wait(self.client.batch_execute(sql))
    }

    /// Runs one query; its rows.
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
                    let values = (0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect();
                    rows.push(Row { columns: Arc::clone(&columns), values });
                }
                _ => {}
            }
        }
        Ok(rows)
    }

    /// Runs one query that gives exactly one row.
    pub fn row(&mut self, sql: &str) -> Result<Row> {
        let mut rows = self.rows(sql)?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(Error::failed("the server gave more or fewer rows than one").hint(sql)),
        }
    }

    /// Runs a `COPY ... TO STDOUT`, giving every message (in text form: one row with its newline) to `sink`.
    pub fn copy_out(&mut self, sql: &str, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let stream = self.wait(self.client.copy_out(sql))?;
        let mut stream = pin!(stream);
        loop {
            let next = self.wait(async { stream.next().await.transpose() })?;
            match next {
                Some(bytes) => sink(&bytes)?,
                None => return Ok(()),
            }
        }
    }

    /// Runs a `COPY ... FROM STDIN` with what `source` gives until it gives None; the rows that the server took.
    pub fn copy_in(&mut self, sql: &str, mut source: impl FnMut() -> Result<Option<Bytes>>) -> Result<u64> {
        let sink = self.wait(self.client.copy_in::<_, Bytes>(sql))?;
        let mut sink = pin!(sink);
        // Dropping the sink before finish() makes the server roll the COPY back.
        while let Some(bytes) = source()? {
            self.wait(sink.as_mut().feed(bytes))?;
        }
        self.wait(sink.as_mut().finish())
    }

    /// Waits for the server, and for a signal.
    fn wait<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        self.runtime.block_on(async {
            let mut work = pin!(work);
            loop {
                tokio::select! {
                    biased;
                    done = &mut work => return done.map_err(server_error),
                    () = tokio::time::sleep(TICK) => interrupt::check()?,
                }
            }
        })
    }
}

/// An error of the server's or of the connection to it, in words.
fn server_error(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(told) => Error::new(Kind::Failed, told.message()).because(error),
        None => Error::unreachable("the connection to the server failed").because(error),
    }
}

impl Row {
    /// The text in a column, None for NULL; an error where there is no such column.
    pub fn get(&self, column: &str) -> Result<Option<&str>> {
        match self.columns.iter().position(|name| name == column) {
            Some(index) => Ok(self.values[index].as_deref()),
            None => Err(Error::failed(format!("the server's answer has no column {column}"))),
        }
    }

    /// The text in a column that is never NULL.
    pub fn text(&self, column: &str) -> Result<&str> {
        self.get(column)?.ok_or_else(|| Error::failed(format!("the server says NULL for {column}")))
    }

    /// An owned copy of the text in a column, None for NULL.
    pub fn owned(&self, column: &str) -> Result<Option<String>> {
        Ok(self.get(column)?.map(str::to_owned))
    }

    /// A number, an oid included.
    pub fn number<T: std::str::FromStr>(&self, column: &str) -> Result<T> {
        let text = self.text(column)?;
        text.parse().map_err(|_| Error::failed(format!("the server says '{text}' for {column}, which is no number")))
    }

    /// A boolean; NULL is false.
    pub fn flag(&self, column: &str) -> Result<bool> {
        Ok(self.get(column)? == Some("t"))
    }

    /// A list that the query made with `to_json(array)`; NULL is the empty list.
    pub fn list(&self, column: &str) -> Result<Vec<String>> {
        match self.get(column)? {
            None => Ok(Vec::new()),
            Some(json) => serde_json::from_str(json)
                .map_err(|error| Error::failed(format!("the server says no JSON list for {column}")).because(error)),
        }
    }
}
