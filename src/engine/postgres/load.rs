//! Makes a schema from its steps, and loads rows into it, on several sessions.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use super::catalog::{Item, Kind, Section};
use super::large_objects::{CREATE_LOADING_TABLE, LOADING_TABLE, PUT_LOADED};
use super::session::Session;
use crate::error::{self, Error, Result, one_line};
use crate::interrupt;

/// How much of a piece goes into one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Whether owners and grants are set as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As they were.
    Keep,
    /// All belongs to the role that restores.
    Leave,
}

/// Makes the items of a section, one after the other.
pub fn make(session: &mut Session, items: &[Item], section: Section, owners: Owners) -> Result<()> {
    items.iter().filter(|item| item.section == section).try_for_each(|item| make_one(session, item, owners))
}

/// Makes one item: its statements, its owner, its comments.
pub fn make_one(session: &mut Session, item: &Item, owners: Owners) -> Result<()> {
    interrupt::check()?;
    let set_owner: &[String] = if owners == Owners::Keep { &item.set_owner } else { &[] };
    for statement in item.create.iter().chain(set_owner).chain(&item.comments) {
        session.execute(statement).map_err(|error| error.context(format!("cannot make the {}", shown(item))))?;
    }
    Ok(())
}

/// Grants what the items grant.
pub fn grant(session: &mut Session, items: &[Item]) -> Result<()> {
    for item in items {
        for statement in &item.grants {
            session
                .execute(statement)
                .map_err(|error| error.context(format!("cannot set the privileges of the {}", shown(item))))?;
        }
    }
    Ok(())
}

/// Makes the items that set what belongs to the database itself.
pub fn apply_settings(session: &mut Session, items: &[Item]) -> Result<()> {
    items.iter().try_for_each(|item| make_one(session, item, Owners::Keep))?;
    grant(session, items)
}

/// Takes away what a failed restore has made in a database that was empty; an error where something is left.
pub fn unmake(session: &mut Session, items: &[Item]) -> Result<()> {
    for item in items.iter().rev() {
        let statement = match item.kind {
            Kind::LargeObject => format!("SELECT pg_catalog.lo_unlink({})", item.oid),
            Kind::Schema if item.name == "public" => continue,
            _ if item.identity.is_empty() || item.identity.contains(" ON ") => continue,
            // Not made yet, or gone with what it hung on: what is left is looked for at the end.
            _ => format!("DROP {} CASCADE", item.identity),
        };
        if let Err(error) = session.execute(&statement) {
            // Nobody answers any more, or there is no time for it.
            if matches!(error.kind, error::Kind::Unreachable | error::Kind::Interrupted) {
                return Err(error);
            }
            tracing::debug!("{}", error.whole());
        }
    }
    let left = super::target::contents(session)?;
    if left.is_empty() { Ok(()) } else { Err(Error::failed(format!("still there: {}", left.join(", ")))) }
}

fn shown(item: &Item) -> String {
    let name = match &item.schema {
        Some(schema) => format!("{schema}.{}", item.name),
        None => item.name.clone(),
    };
    format!("{} {}", item.kind.words(), one_line(&name))
}

/// What one session is to load.
pub enum Load {
    /// Whole rows, by a COPY.
    Rows {
        /// The COPY.
        copy: Arc<str>,
        /// What they are of, for messages.
        table: Arc<str>,
        /// The rows.
        rows: Vec<u8>,
    },
    /// Rows of large objects' content.
    LargeObjects(Vec<u8>),
}

/// Loads one piece; the rows that the server took.
pub fn load(session: &mut Session, work: Load) -> Result<u64> {
    match work {
        Load::Rows { copy, table, rows } => copy_in(session, &copy, rows)
            .map_err(|error| error.context(format!("cannot load rows into {}", one_line(&table)))),
        Load::LargeObjects(rows) => {
            let load = |session: &mut Session| {
                session.execute(CREATE_LOADING_TABLE)?;
                let taken = copy_in(session, &format!("COPY {LOADING_TABLE} FROM STDIN"), rows)?;
                session.execute(PUT_LOADED)?;
                session.execute(&format!("DROP TABLE {LOADING_TABLE}"))?;
                Ok(taken)
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

/// Sessions that load side by side, each in transactions of its own.
///
/// Memory: two pieces a session.
pub struct Loaders {
    sender: SyncSender<Load>,
    threads: Vec<JoinHandle<Result<Session>>>,
}

impl Loaders {
    /// Starts a thread for each session.
    pub fn start(sessions: Vec<Session>) -> Result<Self> {
        let (sender, receiver) = sync_channel::<Load>(sessions.len());
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::new();
        for session in sessions {
            let receiver = Arc::clone(&receiver);
            let thread = thread::Builder::new().name("load".to_owned()).spawn(move || run(session, &receiver));
            threads.push(thread.map_err(|error| Error::failed("cannot start a thread").because(error))?);
        }
        Ok(Loaders { sender, threads })
    }

    /// Hands out work; false where nobody takes it any more: [`finish`](Self::finish) knows why.
    #[must_use]
    pub fn load(&self, work: Load) -> bool {
        self.sender.send(work).is_ok() && !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Waits until all is loaded, and gives the sessions back.
    pub fn finish(self) -> Result<Vec<Session>> {
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
        failed.map_or(Ok(sessions), Err)
    }
}

fn run(mut session: Session, receiver: &Mutex<Receiver<Load>>) -> Result<Session> {
    loop {
        let next = receiver.lock().map_err(|_| Error::failed("a thread has died"))?.recv();
        match next {
            Ok(work) => {
                load(&mut session, work)?;
            }
            Err(_) => return Ok(session),
        }
    }
}

/// Whether an item is worth making beside others: it reads all rows of a table.
fn is_long(item: &Item) -> bool {
    matches!(item.kind, Kind::Check | Kind::Constraint | Kind::Index | Kind::IndexAttach | Kind::ForeignKey)
}

/// What is left to make, and what is being made.
struct Work<'a> {
    waiting: Vec<&'a Item>,
    undone: HashSet<usize>,
    /// Tables that a running item changes, or only reads (indexes are built side by side).
    changing: Vec<usize>,
    reading: Vec<usize>,
    running: usize,
    failed: Option<Error>,
}

impl<'a> Work<'a> {
    /// The next item that nothing stands against.
    fn take(&mut self) -> Option<&'a Item> {
        let found = self.waiting.iter().position(|item| {
            let free = |table: &usize| !self.changing.contains(table);
            let (changes, reads) = tables(item);
            item.needs.iter().all(|need| !self.undone.contains(need))
                && reads.iter().all(free)
                && changes.iter().all(|table| free(table) && !self.reading.contains(table))
        })?;
        let item = self.waiting.remove(found);
        let (changes, reads) = tables(item);
        self.changing.extend(changes);
        self.reading.extend(reads);
        self.running += 1;
        Some(item)
    }

    fn done(&mut self, item: &Item, result: Result<()>) {
        let (changes, reads) = tables(item);
        let remove = |from: &mut Vec<usize>, table: &usize| {
            if let Some(at) = from.iter().position(|other| other == table) {
                from.swap_remove(at);
            }
        };
        changes.iter().for_each(|table| remove(&mut self.changing, table));
        reads.iter().for_each(|table| remove(&mut self.reading, table));
        self.undone.remove(&item.id);
        self.running -= 1;
        if let (Err(error), None) = (result, &self.failed) {
            self.failed = Some(error);
        }
    }
}

/// The tables that making an item locks: against all others, and only against changes.
fn tables(item: &Item) -> (Vec<usize>, Vec<usize>) {
    match item.kind {
        Kind::Index => (Vec::new(), item.table.into_iter().collect()),
        // The table referred to is among the needs, with other things that no harm is done to.
        Kind::ForeignKey => (item.table.into_iter().chain(item.needs.iter().copied()).collect(), Vec::new()),
        _ => (item.table.into_iter().collect(), Vec::new()),
    }
}

/// How long making an item takes, next to others: what takes longest is begun first, or it is waited for at the end.
/// `bytes` is what its table holds.
fn effort(item: &Item, bytes: u64) -> u64 {
    let is_inverted = item.create.iter().any(|sql| sql.contains(" USING gin ") || sql.contains(" USING gist "));
    if is_inverted { bytes.saturating_mul(5) } else { bytes }
}

/// Makes the section `Post`: what reads whole tables on all sessions side by side, then the rest. `bytes` says how
/// much the table that is an item of the list holds.
pub fn make_post(sessions: &mut [Session], items: &[Item], owners: Owners, bytes: &dyn Fn(&Item) -> u64) -> Result<()> {
    let post: Vec<&Item> = items.iter().filter(|item| item.section == Section::Post).collect();
    // What needs something short is made with the short ones, in the order of the list.
    let mut short: HashSet<usize> = HashSet::new();
    for item in &post {
        if !is_long(item) || item.needs.iter().any(|need| short.contains(need)) {
            short.insert(item.id);
        }
    }
    let mut long: Vec<&Item> = post.iter().copied().filter(|item| !short.contains(&item.id)).collect();
    long.sort_by_cached_key(|item| {
        let table = item.table.and_then(|table| items.get(table));
        std::cmp::Reverse(table.map_or(0, |table| effort(item, bytes(table))))
    });
    let work = Work {
        undone: long.iter().map(|item| item.id).collect(),
        waiting: long,
        changing: Vec::new(),
        reading: Vec::new(),
        running: 0,
        failed: None,
    };
    let (work, changed) = (Mutex::new(work), Condvar::new());
    thread::scope(|scope| {
        for session in sessions.iter_mut() {
            let (work, changed) = (&work, &changed);
            scope.spawn(move || make_side_by_side(session, work, changed, owners));
        }
    });
    let work = work.into_inner().map_err(|_| Error::failed("a thread has died"))?;
    if let Some(error) = work.failed {
        return Err(error);
    }
    if let Some(item) = work.waiting.first() {
        return Err(Error::failed(format!("the {} waits for something that is never made", shown(item))));
    }
    let first = sessions.first_mut().ok_or_else(|| Error::failed("there is no session"))?;
    post.iter().filter(|item| short.contains(&item.id)).try_for_each(|item| make_one(first, item, owners))
}

fn make_side_by_side(session: &mut Session, work: &Mutex<Work<'_>>, changed: &Condvar, owners: Owners) {
    let Ok(mut state) = work.lock() else { return };
    loop {
        if state.failed.is_some() || state.waiting.is_empty() {
            break;
        }
        match state.take() {
            Some(item) => {
                drop(state);
                let result = make_one(session, item, owners);
                let Ok(again) = work.lock() else { return };
                state = again;
                state.done(item, result);
                changed.notify_all();
            }
            // Nothing runs and nothing can: whoever started this tells.
            None if state.running == 0 => break,
            None => match changed.wait(state) {
                Ok(again) => state = again,
                Err(_) => return,
            },
        }
    }
    drop(state);
    changed.notify_all();
}
