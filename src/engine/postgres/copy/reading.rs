//! Reads rows: locks, one exported snapshot for all sessions, rows by COPY.
//!
//! The order of the steps ensures correctness. Every table is locked (`ACCESS SHARE`) before the transaction's first
//! query, and the snapshot is taken after that: otherwise a TRUNCATE or a rewrite between the two would return zero
//! rows and no error. Then the tables are listed again inside the snapshot; if the list has changed, everything starts
//! again.
//!
//! Each try for the locks is short, and all locks are released between two tries. So a migration that waits for one
//! table is never kept from the others, and no deadlock can occur: `ATTEMPT` is shorter than `deadlock_timeout`. No
//! deadlock can occur later either: the session that holds the locks waits for no other session, and the other sessions
//! leave to it the parts for which they would have to wait.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::engine::postgres::copy::parts::{Part, cut};
use crate::engine::postgres::copy::plans;
use crate::engine::postgres::copy::row_source::{RowSource, Span};
use crate::engine::postgres::copy::rows::{BufferPool, Gatherer, RowSum};
use crate::engine::postgres::schema::data::TableData;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::{INSUFFICIENT_PRIVILEGE, Session, is_null_answer, open_up_to, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// The time limit of one attempt to get the locks. It stays the session's `lock_timeout`.
pub(in crate::engine::postgres) const ATTEMPT: Duration = Duration::from_millis(250);

/// The number of tables in one LOCK statement.
const LOCK_BATCH: usize = 500;

/// The version from which the server finds a range of ctids without reading the whole table.
const TID_RANGE_VERSION: u32 = 140_000;

/// A transaction with a single snapshot, in which every table is locked, and which other sessions can join.
pub(crate) struct Reading {
    params: Params,
    /// The connection that holds the locks and the snapshot.
    pub session: Session,
    jobs: usize,
    snapshot: String,
    locked: HashSet<u32>,
    /// The tables that must not be read by a query, once they were looked for.
    not_planned: Option<BTreeSet<String>>,
    /// The time at which the snapshot was taken, by this machine's clock.
    pub started: DateTime<Utc>,
}

/// Some whole rows of a table, in the text format of COPY.
pub(crate) struct Piece {
    /// The index in the tables given to [`Reading::read`].
    pub table: usize,
    /// The rows.
    pub rows: Vec<u8>,
    /// False if the rows contain bytes that are not valid UTF-8.
    pub is_utf8: bool,
}

impl Reading {
    /// Connects, locks every table and takes the snapshot. Tries to get the locks for at most `lock_timeout`.
    pub(crate) fn begin(params: &Params, jobs: usize, lock_timeout: Duration) -> Result<Self> {
        Self::begin_since(params, jobs, lock_timeout, Instant::now())
    }

    /// Begins like [`Reading::begin`], but counts the time for the locks from `since`.
    pub(crate) fn begin_since(params: &Params, jobs: usize, lock_timeout: Duration, since: Instant) -> Result<Self> {
        let mut session = Session::connect(params)?;
        settings::pin(&mut session)?;
        let (snapshot, locked) = begin_locked(&mut session, lock_timeout, since)?;
        let started = Utc::now();
        Ok(Reading { params: params.clone(), session, jobs: jobs.max(1), snapshot, locked, not_planned: None, started })
    }

    /// Reads in a transaction that the caller has begun, on its session alone. The transaction holds the locks on what
    /// is read.
    #[must_use]
    pub(crate) fn within(session: Session, params: &Params, locked: HashSet<u32>) -> Self {
        let params = params.clone();
        Reading { params, session, jobs: 1, snapshot: String::new(), locked, not_planned: None, started: Utc::now() }
    }

    /// Returns true if a table is locked: the role may read all of it.
    #[must_use]
    pub(crate) fn has_locked(&self, oid: u32) -> bool {
        self.locked.contains(&oid)
    }

    /// Asks the server for the sizes of the tables.
    pub(crate) fn measure(&mut self, tables: &[TableData], rows: &mut [RowSource]) -> Result<()> {
        let page: u64 = self.session.row("SELECT current_setting('block_size') AS bytes")?.number("bytes")?;
        let oids: Vec<String> = tables.iter().map(|table| table.oid.to_string()).collect();
        let sizes = self.session.rows(&format!(
            "SELECT c.oid, coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes
               FROM pg_catalog.pg_class c WHERE c.oid = ANY ('{{{}}}'::pg_catalog.oid[])",
            oids.join(",")
        ))?;
        let mut bytes = HashMap::new();
        for row in &sizes {
            bytes.insert(row.number::<u32>("oid")?, row.number::<u64>("bytes")?);
        }
        for (table, source) in tables.iter().zip(rows) {
            source.bytes = bytes.get(&table.oid).copied().unwrap_or(table.bytes);
            source.span = table.chunked.as_ref().map(Span::of);
            if let Some(chunked) = &table.chunked {
                source.bytes += chunked.bytes();
            }
            source.pages = if table.access_method == "heap" { table.bytes / page } else { 0 };
        }
        Ok(())
    }

    /// Reads all rows of all tables on all sessions. `sink` gets them in pieces; pieces of different tables come in any
    /// order.
    ///
    /// Memory: per session, one piece being filled and one waiting. A piece has
    /// [`PIECE_BYTES`](crate::engine::postgres::copy::rows::PIECE_BYTES) and up to one more row.
    pub(crate) fn read(&mut self, tables: &mut [RowSource], sink: &mut dyn FnMut(&Piece) -> Result<()>) -> Result<()> {
        self.lock_indexes_for_generated(tables)?;
        let parts = self.parts(tables)?;
        let jobs = self.jobs.min(parts.len()).max(1);
        let others = open_up_to(&self.params, jobs - 1, || self.join())?;
        let jobs = others.len() + 1;
        let queue = Queue {
            for_any: Mutex::new(parts.into()),
            for_main: Mutex::new(VecDeque::new()),
            others: AtomicUsize::new(others.len()),
            has_failed: AtomicBool::new(false),
            pool: BufferPool::default(),
        };
        let (sources, main) = (&*tables, &mut self.session);
        let (sender, receiver) = sync_channel::<Piece>(jobs);
        let sums = thread::scope(|scope| {
            let (queue, mut handles) = (&queue, Vec::new());
            let sessions = others.into_iter().map(Worker::Other).chain([Worker::Main(main)]);
            let mut started = Ok(());
            for session in sessions {
                let sender = sender.clone();
                let work = move || session.run(queue, sources, &sender);
                match thread::Builder::new().name("copy".to_owned()).spawn_scoped(scope, work) {
                    Ok(thread) => handles.push(thread),
                    Err(error) => started = Err(Error::failed("cannot start a thread").because(error)),
                }
            }
            drop(sender);
            let mut outcome = started;
            for piece in &receiver {
                if outcome.is_ok() {
                    outcome = sink(&piece);
                }
                queue.pool.put(piece.rows);
                if outcome.is_err() {
                    break;
                }
            }
            // A thread that still sends gets an error, and stops.
            drop(receiver);
            let mut sums: Vec<(usize, RowSum)> = Vec::new();
            let mut failed: Option<Error> = None;
            for handle in handles {
                match handle.join() {
                    Ok(Ok(part)) => sums.extend(part),
                    // A closed channel is not the reason, only a consequence of it.
                    Ok(Err(error)) => failed = failed.filter(|first| !is_writer_stopped(first)).or(Some(error)),
                    Err(_) => failed = Some(Error::failed("a thread has died")),
                }
            }
            outcome?;
            match failed {
                Some(error) => Err(error),
                None => Ok(sums),
            }
        })?;
        for (table, sum) in sums {
            tables[table].sum.merge(&sum);
        }
        let waiting = |parts: &Mutex<VecDeque<Part>>| parts.lock().map_or(0, |parts| parts.len());
        let unread = waiting(&queue.for_main) + waiting(&queue.for_any);
        if unread > 0 {
            return Err(Error::failed("some tables were not read: a session ended early"));
        }
        // If this session was lost, its locks were lost too, and a TRUNCATE might have left the other sessions no rows
        // to read: a snapshot does not protect against TRUNCATE.
        self.session.execute("SELECT 1").map_err(|error| error.context("the locks were lost before all rows were read"))
    }

    /// Opens another session with the same snapshot.
    fn join(&self) -> Result<Session> {
        let mut session = Session::connect(&self.params)?;
        settings::pin(&mut session)?;
        session.execute(&format!("SET lock_timeout = {}", ATTEMPT.as_millis()))?;
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
        session.execute(&format!("SET TRANSACTION SNAPSHOT '{}'", self.snapshot))?;
        Ok(session)
    }

    /// Returns the work, largest parts first.
    fn parts(&mut self, tables: &[RowSource]) -> Result<Vec<Part>> {
        let jobs = if self.session.version() >= TID_RANGE_VERSION { self.jobs } else { 1 };
        cut(tables, jobs, |table| self.lock_indexes(table))
    }

    /// Returns true if a query of a table would run code of its owner with the rights of the session.
    fn runs_code_if_planned(&mut self, table: &RowSource) -> Result<bool> {
        let found = match self.not_planned.take() {
            Some(found) => found,
            None => plans::tables_with_code(&mut self.session)?,
        };
        Ok(self.not_planned.insert(found).contains(&table.qualified))
    }

    /// Locks the indexes of the tables whose generated columns are read, because that takes a query. If another session holds
    /// a conflicting lock (REINDEX, for example), these columns are not read.
    fn lock_indexes_for_generated(&mut self, tables: &mut [RowSource]) -> Result<()> {
        for table in tables.iter_mut().filter(|table| !table.generated.is_empty()) {
            if self.lock_indexes(table)? {
                continue;
            }
            let reason = if self.runs_code_if_planned(table)? {
                "a query would run functions of its indexes with the rights of a superuser"
            } else {
                "another session holds a lock on an index"
            };
            let name = one_line(&table.qualified);
            tracing::warn!("the generated columns of {name} are not part of its digest: {reason}");
            table.generated.clear();
        }
        Ok(())
    }

    /// Locks the indexes of a table: planning a query needs these locks, a COPY of the table does not. Returns false if
    /// another session holds a conflicting lock (REINDEX, for example). If the other sessions took these locks, a
    /// REINDEX could wait for one of them, and the next one for the REINDEX.
    fn lock_indexes(&mut self, table: &RowSource) -> Result<bool> {
        if self.runs_code_if_planned(table)? {
            return Ok(false);
        }
        try_in_savepoint(&mut self.session, &format!("EXPLAIN SELECT FROM {}", table.relation()))
    }
}

const WRITER_STOPPED: &str = "the archive's writer has stopped";

fn is_writer_stopped(error: &Error) -> bool {
    error.message == WRITER_STOPPED || error.causes().iter().any(|cause| cause == WRITER_STOPPED)
}

/// The work that is still to do.
struct Queue {
    /// Parts for any free session.
    for_any: Mutex<VecDeque<Part>>,
    /// Parts only for the session that holds the locks.
    for_main: Mutex<VecDeque<Part>>,
    /// The number of other sessions that are still working.
    others: AtomicUsize,
    /// Set when one session has failed: then the work of all others is useless.
    has_failed: AtomicBool,
    /// Used buffers, for reuse.
    pool: BufferPool,
}

/// A session that reads parts.
#[expect(clippy::large_enum_variant, reason = "there are only a few, and they move into threads once")]
enum Worker<'a> {
    Main(&'a mut Session),
    Other(Session),
}

impl Worker<'_> {
    fn run(self, queue: &Queue, tables: &[RowSource], sender: &SyncSender<Piece>) -> Result<Vec<(usize, RowSum)>> {
        let is_main = matches!(self, Worker::Main(_));
        let done = self.work(queue, tables, sender);
        if done.is_err() {
            queue.has_failed.store(true, Ordering::Release);
        }
        if !is_main {
            queue.others.fetch_sub(1, Ordering::AcqRel);
        }
        done
    }

    fn work(self, queue: &Queue, tables: &[RowSource], sender: &SyncSender<Piece>) -> Result<Vec<(usize, RowSum)>> {
        let (is_main, mut own, main);
        let session: &mut Session = match self {
            Worker::Main(session) => {
                (is_main, main) = (true, session);
                main
            }
            Worker::Other(session) => {
                (is_main, own) = (false, session);
                &mut own
            }
        };
        let mut sums = Vec::new();
        loop {
            interrupt::check()?;
            if queue.has_failed.load(Ordering::Acquire) {
                break;
            }
            let next = |parts: &Mutex<VecDeque<Part>>| parts.lock().ok().and_then(|mut parts| parts.pop_front());
            // Loaded before the queues are read: a session puts the parts that it cannot read into the queue before it
            // reports its end.
            let others = queue.others.load(Ordering::Acquire);
            let main_part = if is_main { next(&queue.for_main) } else { None };
            let part = match main_part.or_else(|| next(&queue.for_any)) {
                Some(part) => part,
                None if is_main && others > 0 => {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                None => break,
            };
            let table = &tables[part.table];
            // Another session may already wait for an ACCESS EXCLUSIVE lock. A lock request of this session would queue
            // behind it, and it waits for the session that holds the locks. That session has the lock already.
            let own = table.span.as_ref().map_or(&table.qualified, |span| &span.relation);
            let lock = format!("LOCK TABLE ONLY {own} IN ACCESS SHARE MODE NOWAIT");
            let sum = if is_main || try_in_savepoint(session, &lock)? {
                copy(session, &part, table, sender, queue, !is_main)
                    .map_err(|error| error.context(format!("cannot read the table {}", one_line(&table.qualified))))?
            } else {
                None
            };
            match (sum, queue.for_main.lock()) {
                (Some(sum), _) => sums.push((part.table, sum)),
                (None, Ok(mut parts)) => parts.push_back(part),
                (None, Err(_)) => return Err(Error::failed("a thread has died")),
            }
        }
        Ok(sums)
    }
}

/// Runs a statement that takes a lock. Returns false if another session holds a conflicting lock or waits for one.
fn try_in_savepoint(session: &mut Session, sql: &str) -> Result<bool> {
    // A failed statement would abort the transaction, and so release the snapshot.
    session.execute("SAVEPOINT before_lock")?;
    match session.execute(sql) {
        Ok(()) => session.execute("RELEASE SAVEPOINT before_lock").map(|()| true),
        Err(error) if is_locked(&error) => session.execute("ROLLBACK TO SAVEPOINT before_lock").map(|()| false),
        Err(error) => Err(error),
    }
}

/// Returns true if a statement failed because another session holds a lock.
fn is_locked(error: &Error) -> bool {
    sqlstate(error).as_deref() == Some("55P03")
}

/// Reads a part of a table. Returns `None` if another session holds a lock and `may_be_locked` is true.
fn copy(
    session: &mut Session,
    part: &Part,
    table: &RowSource,
    sender: &SyncSender<Piece>,
    queue: &Queue,
    may_be_locked: bool,
) -> Result<Option<RowSum>> {
    let mut gatherer = Gatherer::new(&queue.pool, table.counts());
    let send = |rows: Vec<u8>| {
        if queue.has_failed.load(Ordering::Acquire) {
            return Err(Error::failed(WRITER_STOPPED));
        }
        // Pieces end at row boundaries, so no UTF-8 character is split.
        let is_utf8 = std::str::from_utf8(&rows).is_ok();
        sender.send(Piece { table: part.table, rows, is_utf8 }).map_err(|_| Error::failed(WRITER_STOPPED))
    };
    if may_be_locked {
        session.execute("SAVEPOINT before_rows")?;
    }
    let copied =
        session.copy_out(&table.copy_out(&part.range), gatherer.buffer(), |buffer| match gatherer.gather(buffer) {
            Some(rows) => send(rows),
            None => Ok(()),
        });
    let (rest, reported_rows) = match copied {
        // The server plans a query and takes its locks before it returns the first row.
        Err(error) if may_be_locked && is_locked(&error) && gatherer.sum.rows == 0 => {
            return session.execute("ROLLBACK TO SAVEPOINT before_rows").map(|()| None);
        }
        copied => copied?,
    };
    if may_be_locked {
        session.execute("RELEASE SAVEPOINT before_rows")?;
    }
    if let Some(rows) = gatherer.finish(rest, reported_rows)? {
        send(rows)?;
    }
    Ok(Some(gatherer.sum))
}

/// Begins the transaction with every table locked. Returns the name of its exported snapshot, and the locked tables.
fn begin_locked(session: &mut Session, lock_timeout: Duration, since: Instant) -> Result<(String, HashSet<u32>)> {
    session.execute(&format!("SET lock_timeout = {}", ATTEMPT.as_millis()))?;
    loop {
        interrupt::check()?;
        let failure = match try_begin(session) {
            Ok(Some(begun)) => return Ok(begun),
            Ok(None) => Error::failed("the tables change faster than they can be locked"),
            Err(error) if is_temporary(&error) => error,
            Err(error) => return Err(explain_lock_error(error)),
        };
        session.execute("ROLLBACK")?;
        if since.elapsed() >= lock_timeout {
            return Err(name_blockers(session, failure, lock_timeout));
        }
        pause();
    }
}

/// Waits longer than an attempt takes, so that sessions that wait for our locks get most of the time.
pub(crate) fn pause() {
    thread::sleep(ATTEMPT + Duration::from_millis(50));
}

/// Returns true if the next attempt may succeed: the cause is a lock of another session, or an object that was dropped
/// while the catalogs were read.
#[must_use]
pub(crate) fn is_temporary(error: &Error) -> bool {
    let state = sqlstate(error);
    // A transaction that only reads has no conflict but with the recovery of a standby (40001).
    const CONFLICTS: [&str; 3] = ["55P03", "40P01", "40001"];
    // Undefined tables, functions, objects and schemas, and failed lookups in the catalog cache.
    const DROPPED: [&str; 5] = ["42P01", "42883", "42704", "3F000", "XX000"];
    let is_one = |state: String| CONFLICTS.contains(&state.as_str()) || DROPPED.contains(&state.as_str());
    state.is_some_and(is_one) || is_null_answer(error)
}

/// Adds the sessions that held the locks to the error. The session must not be in a transaction.
#[must_use]
pub(crate) fn name_blockers(session: &mut Session, failure: Error, lock_timeout: Duration) -> Error {
    let seconds = lock_timeout.as_secs();
    if sqlstate(&failure).as_deref() == Some("40001") {
        return failure.context(format!("the tables could not be read within {seconds} s"));
    }
    if !is_locked(&failure) {
        return failure
            .context(format!("the tables and their dependent objects could not be read within {seconds} s"))
            .hint("other sessions keep creating and dropping objects: try again, or raise --lock-timeout");
    }
    let hint = "wait until the lock is released, end the session that holds it, or raise --lock-timeout";
    match blockers(session) {
        Ok(found) if !found.is_empty() => {
            failure.context(format!("cannot lock the tables within {seconds} s: {}", found.join("; "))).hint(hint)
        }
        _ => failure.context(format!("cannot lock the tables within {seconds} s")).hint(hint),
    }
}

fn explain_lock_error(error: Error) -> Error {
    match sqlstate(&error).as_deref() {
        Some("53200") => error
            .context("the server does not have enough shared memory for so many locks")
            .hint("raise max_locks_per_transaction on the server"),
        Some(INSUFFICIENT_PRIVILEGE) => error.context("cannot lock the tables").hint(
            "the role needs SELECT on every table, and USAGE on every schema (the role pg_read_all_data has both)",
        ),
        _ => error.context("cannot lock the tables"),
    }
}

/// Makes one attempt. Returns `None` if the tables changed meanwhile.
fn try_begin(session: &mut Session) -> Result<Option<(String, HashSet<u32>)>> {
    let listed = lockable(session)?;
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")?;
    let names: Vec<&str> = listed.iter().filter(|table| table.may_lock).map(|table| table.qualified.as_str()).collect();
    for batch in names.chunks(LOCK_BATCH) {
        session.execute(&format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", batch.join(", ONLY ")))?;
    }
    let snapshot = session.row("SELECT pg_catalog.pg_export_snapshot() AS name")?.text("name")?.to_owned();
    let now = lockable(session)?;
    // A changed name, kind or owner counts too: the locked tables must be the listed ones.
    let locked = listed.iter().filter(|table| table.may_lock).map(|table| table.oid).collect();
    Ok((now == listed).then_some((snapshot, locked)))
}

/// A table that a snapshot locks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lockable {
    oid: u32,
    qualified: String,
    may_lock: bool,
}

/// Lists every table whose definition or rows may be saved. Takes no locks on them.
fn lockable(session: &mut Session) -> Result<BTreeSet<Lockable>> {
    let rows = session.rows(
        "SELECT c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) AS qualified,
                pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                    AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AS may_lock
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
            AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
    )?;
    rows.iter()
        .map(|row| {
            Ok(Lockable {
                oid: row.number("oid")?,
                qualified: row.text("qualified")?.to_owned(),
                may_lock: row.flag("may_lock")?,
            })
        })
        .collect()
}

/// Lists the sessions that hold or wait for a lock that blocks readers.
fn blockers(session: &mut Session) -> Result<Vec<String>> {
    let rows = session.rows(
        "SELECT DISTINCT l.pid, x.gid, l.granted, c.oid::pg_catalog.regclass::text AS relation,
                coalesce(a.usename, x.owner) AS role,
                nullif(a.application_name, '') AS application, a.state,
                pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.xact_start)::text AS since,
                upper(pg_catalog.substring(a.query, '^\\s*(\\w+\\s+\\w+)')) AS statement
           FROM pg_catalog.pg_locks l
           JOIN pg_catalog.pg_class c ON c.oid = l.relation
           LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
           LEFT JOIN pg_catalog.pg_locks t ON l.pid IS NULL AND t.pid IS NULL AND t.locktype = 'transactionid'
                AND t.virtualtransaction = l.virtualtransaction
           LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid
          WHERE l.mode = 'AccessExclusiveLock' AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
            AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
          ORDER BY l.granted DESC, l.pid LIMIT 5",
    )?;
    rows.iter()
        .map(|row| {
            let verb = if row.flag("granted")? { "holds a lock on" } else { "waits for a lock on" };
            let holder = match row.get("pid")? {
                Some(pid) => format!("process {pid}"),
                // It belongs to no process; it waits for COMMIT PREPARED or ROLLBACK PREPARED.
                None => format!("the prepared transaction '{}'", one_line(row.get("gid")?.unwrap_or_default())),
            };
            let mut description = format!("{holder} {verb} {}", one_line(row.text("relation")?));
            for column in ["role", "application", "state", "statement"] {
                if let Some(value) = row.get(column)? {
                    description.push_str(&format!(", {column} {}", one_line(value)));
                }
            }
            if let Some(since) = row.get("since")? {
                description.push_str(&format!(", in a transaction for {since}"));
            }
            Ok(description)
        })
        .collect()
}
