//! Makes what comes after the rows, on several sessions: indexes, keys and constraints, each as soon as nothing stands
//! against it.
//!
//! Tables are analyzed when their indexes are there, before the foreign keys are checked: that is a query over two
//! tables, which the server plans many times better when it knows them; and whoever gets the database needs that too.
//! Hypertables, of which each chunk is analyzed as a table is, are left to the server where it does so by itself, as it
//! does for every new chunk: unless a foreign key is to be checked.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::restore::create::{Owners, make_one, shown};
use crate::engine::postgres::schema::{Item, Kind, Section};
use crate::engine::postgres::wire::params::is_this_machine;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{self, Error, Result};
use crate::platform::interrupt;

/// A table that has its rows.
#[derive(Clone, Copy)]
pub struct Filled<'a> {
    /// Its place in the list of items.
    pub item: usize,
    /// The table.
    pub table: &'a RowSource,
}

/// Makes the section `Post`: what reads whole tables side by side, then the rest in its order.
pub fn make(sessions: &mut [Session], items: &[Item], owners: Owners, filled: &[Filled<'_>]) -> Result<()> {
    let analyzes_itself = match sessions.first_mut() {
        Some(session) => {
            session.row("SELECT pg_catalog.current_setting('autovacuum') AS setting")?.text("setting")? == "on"
        }
        None => false,
    };
    let has_key = |filled: &Filled<'_>| {
        let is_of_it = |item: &Item| item.table == Some(filled.item) || item.needs.contains(&filled.item);
        items.iter().any(|item| item.kind == Kind::ForeignKey && is_of_it(item))
    };
    let is_left = |filled: &Filled<'_>| analyzes_itself && filled.table.span.is_some() && !has_key(filled);
    let filled: Vec<Filled<'_>> = filled.iter().filter(|filled| !is_left(filled)).copied().collect();
    let filled = filled.as_slice();
    let post: Vec<&Item> = items.iter().filter(|item| item.section == Section::Post).collect();
    // What needs something short is made with the short ones, in the order of the list.
    let mut short: HashSet<usize> = HashSet::new();
    for item in &post {
        if !is_long(item) || item.needs.iter().any(|need| short.contains(need)) {
            short.insert(item.id);
        }
    }
    limit_workers(sessions)?;
    let long: Vec<&Item> = post.iter().copied().filter(|item| !short.contains(&item.id)).collect();
    make_side_by_side(sessions, tasks(items, &long, filled), owners)?;
    let first = sessions.first_mut().ok_or_else(|| Error::failed("there is no session"))?;
    post.iter().filter(|item| short.contains(&item.id)).try_for_each(|item| make_one(first, item, owners))
}

/// Where there is a session for each processor of the server, workers of its own would only be in each other's way: an
/// index costs half as much again with them. A server on another machine has as many as it says.
fn limit_workers(sessions: &mut [Session]) -> Result<()> {
    let processors = thread::available_parallelism().map_or(usize::MAX, std::num::NonZero::get);
    if sessions.len() < processors {
        return Ok(());
    }
    sessions
        .iter_mut()
        .filter(|session| is_this_machine(&session.about().host))
        .try_for_each(|session| session.execute("SET max_parallel_maintenance_workers = 0"))
}

/// Whether an item is worth making beside others: it reads all rows of a table. A check is not made so, since it may
/// look at tables that nobody knows of: two that look at each other's would wait for each other.
fn is_long(item: &Item) -> bool {
    matches!(item.kind, Kind::Constraint | Kind::Index | Kind::IndexAttach | Kind::ForeignKey)
}

/// Something to do, and what stands against it.
struct Task<'a> {
    id: usize,
    what: What<'a>,
    /// Tasks that must be done before, and other things, which are there.
    needs: Vec<usize>,
    /// The tables that it locks against all others.
    changes: Vec<usize>,
    /// The tables that it locks only against changes (indexes are built side by side).
    reads: Vec<usize>,
    /// What takes longest is begun first, or it is waited for at the end.
    effort: u64,
}

enum What<'a> {
    Make(&'a Item),
    Analyze(&'a RowSource),
}

/// The tasks for these items and tables, those that take longest first.
fn tasks<'a>(items: &[Item], long: &[&'a Item], filled: &[Filled<'a>]) -> Vec<Task<'a>> {
    let bytes: HashMap<usize, u64> = filled.iter().map(|filled| (filled.item, filled.table.bytes)).collect();
    let of_table = |item: &Item| item.table.and_then(|table| bytes.get(&table)).copied().unwrap_or(0);
    let analysis = |table: usize| items.len() + table;
    let mut tasks: Vec<Task<'a>> = Vec::new();
    for item in long {
        let own = item.table.into_iter();
        let (mut needs, mut changes, mut reads) = (item.needs.clone(), Vec::new(), Vec::new());
        match item.kind {
            Kind::Index => reads.extend(own),
            Kind::ForeignKey => {
                // The table referred to is among the needs, with other things that no harm is done to.
                changes.extend(own.chain(item.needs.iter().copied()));
                needs.extend(changes.iter().filter(|table| bytes.contains_key(table)).map(|table| analysis(*table)));
            }
            _ => changes.extend(own),
        }
        tasks.push(Task {
            id: item.id,
            what: What::Make(item),
            needs,
            changes,
            reads,
            effort: effort(item, of_table(item)),
        });
    }
    let keys: HashSet<usize> = long.iter().filter(|item| item.kind == Kind::ForeignKey).map(|item| item.id).collect();
    for Filled { item: table, table: rows } in filled.iter().filter(|filled| filled.table.bytes > 0) {
        // Not what waits for a foreign key itself.
        let before = |item: &&&Item| item.table == Some(*table) && !item.needs.iter().any(|need| keys.contains(need));
        let needs = long.iter().filter(|item| !keys.contains(&item.id)).filter(before).map(|item| item.id).collect();
        let (what, changes) = (What::Analyze(rows), vec![*table]);
        tasks.push(Task { id: analysis(*table), what, needs, changes, reads: Vec::new(), effort: rows.bytes / 8 });
    }
    tasks.sort_by_key(|task| std::cmp::Reverse(task.effort));
    tasks
}

/// How long making an item takes, next to others. `bytes` is what its table holds.
fn effort(item: &Item, bytes: u64) -> u64 {
    let is_inverted = item.create.iter().any(|sql| sql.contains(" USING gin ") || sql.contains(" USING gist "));
    if is_inverted { bytes.saturating_mul(5) } else { bytes }
}

impl Task<'_> {
    fn run(&self, session: &mut Session, owners: Owners) -> Result<()> {
        match self.what {
            What::Make(item) => make_one(session, item, owners),
            What::Analyze(table) => {
                interrupt::check()?;
                // Nothing hangs on statistics but speed: where there are none to be had, that is only noted.
                match session.execute(&format!("ANALYZE {}", table.qualified)) {
                    Err(error) if error.kind == error::Kind::Failed => {
                        tracing::debug!("{}", error.whole());
                        Ok(())
                    }
                    done => done,
                }
            }
        }
    }
}

/// What is left to do, and what is being done.
struct Work<'a> {
    waiting: Vec<Task<'a>>,
    undone: HashSet<usize>,
    /// Tables that a running task changes, or only reads.
    changing: Vec<usize>,
    reading: Vec<usize>,
    running: usize,
    failed: Option<Error>,
}

impl<'a> Work<'a> {
    /// The next task that nothing stands against.
    fn take(&mut self) -> Option<Task<'a>> {
        let found = self.waiting.iter().position(|task| {
            let free = |table: &usize| !self.changing.contains(table);
            task.needs.iter().all(|need| !self.undone.contains(need))
                && task.reads.iter().all(free)
                && task.changes.iter().all(|table| free(table) && !self.reading.contains(table))
        })?;
        let task = self.waiting.remove(found);
        self.changing.extend(&task.changes);
        self.reading.extend(&task.reads);
        self.running += 1;
        Some(task)
    }

    fn done(&mut self, task: &Task<'_>, result: Result<()>) {
        let remove = |from: &mut Vec<usize>, table: &usize| {
            if let Some(at) = from.iter().position(|other| other == table) {
                from.swap_remove(at);
            }
        };
        task.changes.iter().for_each(|table| remove(&mut self.changing, table));
        task.reads.iter().for_each(|table| remove(&mut self.reading, table));
        self.undone.remove(&task.id);
        self.running -= 1;
        if let (Err(error), None) = (result, &self.failed) {
            self.failed = Some(error);
        }
    }
}

/// Does the tasks on all sessions.
fn make_side_by_side(sessions: &mut [Session], tasks: Vec<Task<'_>>, owners: Owners) -> Result<()> {
    let work = Work {
        undone: tasks.iter().map(|task| task.id).collect(),
        waiting: tasks,
        changing: Vec::new(),
        reading: Vec::new(),
        running: 0,
        failed: None,
    };
    let (work, changed) = (Mutex::new(work), Condvar::new());
    thread::scope(|scope| {
        for session in sessions.iter_mut() {
            let (work, changed) = (&work, &changed);
            scope.spawn(move || take_and_run(session, work, changed, owners));
        }
    });
    let work = work.into_inner().map_err(|_| Error::failed("a thread has died"))?;
    if let Some(error) = work.failed {
        return Err(error);
    }
    match work.waiting.first().map(|task| &task.what) {
        Some(What::Make(item)) => {
            Err(Error::failed(format!("the {} waits for something that is never made", shown(item))))
        }
        Some(What::Analyze(table)) => Err(Error::failed(format!("something on {} is never made", table.qualified))),
        None => Ok(()),
    }
}

fn take_and_run(session: &mut Session, work: &Mutex<Work<'_>>, changed: &Condvar, owners: Owners) {
    let Ok(mut state) = work.lock() else { return };
    loop {
        if state.failed.is_some() || state.waiting.is_empty() {
            break;
        }
        match state.take() {
            Some(task) => {
                drop(state);
                let result = task.run(session, owners);
                let Ok(again) = work.lock() else { return };
                state = again;
                state.done(&task, result);
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
