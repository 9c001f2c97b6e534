//! Creates the objects that come after the rows, on several sessions: indexes, keys and constraints, each as soon as
//! its dependencies and locks allow it.
//!
//! Tables are analyzed after their indexes are created, before the foreign keys are checked: the check is a query over
//! two tables, for which the server finds a plan that is many times faster if it has statistics. The users of the
//! database need the statistics too. Hypertables, whose chunks are analyzed one by one as tables are, are left to
//! autovacuum if it is on, as it analyzes every new chunk. They are not left to it if a foreign key must be checked.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::restore::again::{Failed, try_item};
use crate::engine::postgres::restore::create::{Owners, shown};
use crate::engine::postgres::restore::items::parent_of;
use crate::engine::postgres::schema::{Item, Kind, Section};
use crate::engine::postgres::wire::params::is_this_machine;
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{self, Error, Result};
use crate::platform::interrupt;

/// A table whose rows are loaded.
#[derive(Clone, Copy)]
pub(crate) struct Filled<'a> {
    /// Its position in the list of items.
    pub item: usize,
    /// The table.
    pub table: &'a RowSource,
}

/// Creates the section `Post`: first the items that read whole tables, in parallel, then the rest in order. Returns the items
/// whose code has failed.
pub(super) fn create(
    sessions: &mut [Session],
    items: &[Item],
    owners: Owners,
    filled: &[Filled<'_>],
) -> Result<Vec<Failed>> {
    let is_autovacuum_on = match sessions.first_mut() {
        Some(session) => {
            session.row("SELECT pg_catalog.current_setting('autovacuum') AS setting")?.text("setting")? == "on"
        }
        None => false,
    };
    let has_key = |filled: &Filled<'_>| {
        let is_of_it = |item: &Item| item.table == Some(filled.item) || item.needs.contains(&filled.item);
        items.iter().any(|item| item.kind == Kind::ForeignKey && is_of_it(item))
    };
    let is_left_to_autovacuum =
        |filled: &Filled<'_>| is_autovacuum_on && filled.table.span.is_some() && !has_key(filled);
    let analyzed: Vec<Filled<'_>> = filled.iter().filter(|filled| !is_left_to_autovacuum(filled)).copied().collect();
    let post: Vec<&Item> = items.iter().filter(|item| item.section == Section::Post).collect();
    // An item that depends on a short one is created with the short ones, in the order of the list.
    let mut short: HashSet<usize> = HashSet::new();
    for item in &post {
        if !is_long(item) || item.needs.iter().any(|need| short.contains(need)) {
            short.insert(item.id);
        }
    }
    limit_workers(sessions)?;
    let long: Vec<&Item> = post.iter().copied().filter(|item| !short.contains(&item.id)).collect();
    let mut failed = run_in_parallel(sessions, tasks(items, &long, &analyzed), owners)?;
    let first = sessions.first_mut().ok_or_else(|| Error::failed("there is no session"))?;
    for item in post.iter().filter(|item| short.contains(&item.id)) {
        failed.extend(try_item(first, item, owners)?);
    }
    Ok(failed)
}

/// Turns the parallel workers of index builds off if there is a session for each processor of the server: sessions and
/// workers would compete for the processors, and an index would cost half as much again. A server on another machine
/// keeps its own setting.
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

/// Returns true if an item is worth creating in parallel with others: it reads all rows of a table. Checks are not,
/// because they may read tables that are not known here: two checks that read each other's tables would wait for each
/// other.
fn is_long(item: &Item) -> bool {
    matches!(item.kind, Kind::Constraint | Kind::Index | Kind::IndexAttach | Kind::ForeignKey)
}

/// One piece of work, with its dependencies and locks.
struct Task<'a> {
    id: usize,
    action: Action<'a>,
    /// The tasks that must be done before it. It may contain other items too, which are created already.
    needs: Vec<usize>,
    /// The tables and trees of partitions that it locks against all other tasks.
    changes: Vec<Lock>,
    /// The tables and trees that it locks only against changes (several indexes of a table are built in parallel).
    reads: Vec<Lock>,
    /// The longest tasks start first, so that none of them runs alone at the end.
    effort: u64,
}

/// Something that a task locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    /// A table, by its place in the list of items.
    Table(usize),
    /// A partitioned table with all its partitions, by the place of the topmost table.
    Tree(usize),
}

/// The trees that partitioned tables form with their partitions.
struct Trees {
    /// For each partition, the table that it is attached to.
    parents: HashMap<usize, usize>,
    partitioned: HashSet<usize>,
}

impl Trees {
    fn of(items: &[Item]) -> Self {
        let attachments = items.iter().filter(|item| item.kind == Kind::AttachPartition);
        let parents: HashMap<usize, usize> =
            attachments.filter_map(|attach| Some((attach.table?, parent_of(items, attach)?.id))).collect();
        let partitioned = parents.values().copied().collect();
        Trees { parents, partitioned }
    }

    /// Returns the tree that a table belongs to.
    fn tree_of(&self, table: usize) -> Option<Lock> {
        let is_member = self.parents.contains_key(&table) || self.partitioned.contains(&table);
        let mut top = table;
        while let Some(parent) = self.parents.get(&top) {
            top = *parent;
        }
        is_member.then_some(Lock::Tree(top))
    }

    fn trees_of(&self, tables: &[usize]) -> Vec<Lock> {
        tables.iter().filter_map(|table| self.tree_of(*table)).collect()
    }
}

enum Action<'a> {
    Create(&'a Item),
    Analyze(&'a RowSource),
}

/// Returns the tasks for these items and tables, the longest first.
fn tasks<'a>(items: &[Item], long: &[&'a Item], filled: &[Filled<'a>]) -> Vec<Task<'a>> {
    let bytes: HashMap<usize, u64> = filled.iter().map(|filled| (filled.item, filled.table.bytes)).collect();
    let table_bytes = |item: &Item| item.table.and_then(|table| bytes.get(&table)).copied().unwrap_or(0);
    let analysis = |table: usize| items.len() + table;
    let trees = Trees::of(items);
    let mut tasks: Vec<Task<'a>> = Vec::new();
    for item in long {
        let own: Vec<usize> = item.table.into_iter().collect();
        let locks: Vec<Lock> = own.iter().map(|table| Lock::Table(*table)).collect();
        let (mut needs, mut changes, mut reads) = (item.needs.clone(), Vec::new(), Vec::new());
        match item.kind {
            Kind::Index => reads.extend(locks.into_iter().chain(trees.trees_of(&own))),
            // It locks the index that it attaches and, at another level of the tree, is itself the index that is
            // attached to: two of them in one tree could wait for each other.
            Kind::IndexAttach => changes.extend(locks.into_iter().chain(trees.trees_of(&own))),
            Kind::ForeignKey => {
                // The referenced table is among the needs. Locking the other items too does no harm. The key of a
                // partitioned table is created for all its partitions, and so is one that refers to it.
                let tables: Vec<usize> = own.into_iter().chain(item.needs.iter().copied()).collect();
                changes.extend(tables.iter().map(|table| Lock::Table(*table)).chain(trees.trees_of(&tables)));
                needs.extend(tables.iter().filter(|table| bytes.contains_key(table)).map(|table| analysis(*table)));
            }
            _ => {
                changes.extend(locks);
                reads.extend(trees.trees_of(&own));
            }
        }
        tasks.push(Task {
            id: item.id,
            action: Action::Create(item),
            needs,
            changes,
            reads,
            effort: effort(item, table_bytes(item)),
        });
    }
    let keys: HashSet<usize> = long.iter().filter(|item| item.kind == Kind::ForeignKey).map(|item| item.id).collect();
    for Filled { item: table, table: rows } in filled.iter().filter(|filled| filled.table.bytes > 0) {
        // Without the items that depend on a foreign key.
        let before = |item: &&&Item| item.table == Some(*table) && !item.needs.iter().any(|need| keys.contains(need));
        let needs = long.iter().filter(|item| !keys.contains(&item.id)).filter(before).map(|item| item.id).collect();
        let (action, changes) = (Action::Analyze(rows), vec![Lock::Table(*table)]);
        let reads = trees.trees_of(&[*table]);
        tasks.push(Task { id: analysis(*table), action, needs, changes, reads, effort: rows.bytes / 8 });
    }
    tasks.sort_by_key(|task| std::cmp::Reverse(task.effort));
    tasks
}

/// Returns the relative time that creating an item takes. `bytes` is the size of its table.
fn effort(item: &Item, bytes: u64) -> u64 {
    let is_inverted = item.create.iter().any(|sql| sql.contains(" USING gin ") || sql.contains(" USING gist "));
    if is_inverted { bytes.saturating_mul(5) } else { bytes }
}

impl Task<'_> {
    /// Runs the task. Returns the item if its code has failed.
    fn run(&self, session: &mut Session, owners: Owners) -> Result<Option<Failed>> {
        match self.action {
            Action::Create(item) => try_item(session, item, owners),
            Action::Analyze(table) => {
                interrupt::check()?;
                // Statistics matter only for speed, so a failure to collect them is only logged.
                match session.execute(&format!("ANALYZE {}", table.qualified)) {
                    Err(error) if error.kind == error::Kind::Failed => {
                        tracing::debug!("{}", error.full_message());
                        Ok(None)
                    }
                    done => done.map(|()| None),
                }
            }
        }
    }
}

/// The tasks that are waiting or running.
struct Queue<'a> {
    waiting: Vec<Task<'a>>,
    unfinished: HashSet<usize>,
    /// The locks against all other tasks that running tasks hold, and below those against changes.
    changing: Vec<Lock>,
    reading: Vec<Lock>,
    running: usize,
    failed: Option<Error>,
    /// The items whose code has failed.
    later: Vec<Failed>,
}

impl<'a> Queue<'a> {
    /// Returns the next task whose dependencies are done and whose locks are free.
    fn take(&mut self) -> Option<Task<'a>> {
        let found = self.waiting.iter().position(|task| {
            let free = |lock: &Lock| !self.changing.contains(lock);
            task.needs.iter().all(|need| !self.unfinished.contains(need))
                && task.reads.iter().all(free)
                && task.changes.iter().all(|lock| free(lock) && !self.reading.contains(lock))
        })?;
        let task = self.waiting.remove(found);
        self.changing.extend(&task.changes);
        self.reading.extend(&task.reads);
        self.running += 1;
        Some(task)
    }

    fn done(&mut self, task: &Task<'_>, result: Result<Option<Failed>>) {
        let remove = |from: &mut Vec<Lock>, lock: &Lock| {
            if let Some(at) = from.iter().position(|other| other == lock) {
                from.swap_remove(at);
            }
        };
        task.changes.iter().for_each(|lock| remove(&mut self.changing, lock));
        task.reads.iter().for_each(|lock| remove(&mut self.reading, lock));
        self.unfinished.remove(&task.id);
        self.running -= 1;
        match result {
            Ok(later) => self.later.extend(later),
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
    }
}

/// Runs the tasks on all sessions. Returns the items whose code has failed.
fn run_in_parallel(sessions: &mut [Session], tasks: Vec<Task<'_>>, owners: Owners) -> Result<Vec<Failed>> {
    let queue = Queue {
        unfinished: tasks.iter().map(|task| task.id).collect(),
        waiting: tasks,
        changing: Vec::new(),
        reading: Vec::new(),
        running: 0,
        failed: None,
        later: Vec::new(),
    };
    let (queue, changed) = (Mutex::new(queue), Condvar::new());
    thread::scope(|scope| {
        for session in sessions.iter_mut() {
            let (queue, changed) = (&queue, &changed);
            scope.spawn(move || take_and_run(session, queue, changed, owners));
        }
    });
    let queue = queue.into_inner().map_err(|_| Error::failed("a thread has died"))?;
    if let Some(error) = queue.failed {
        return Err(error);
    }
    match queue.waiting.first().map(|task| &task.action) {
        Some(Action::Create(item)) => {
            Err(Error::failed(format!("the {} depends on an object that is never created", shown(item))))
        }
        Some(Action::Analyze(table)) => {
            Err(Error::failed(format!("an index or constraint of {} is never created", table.qualified)))
        }
        None => Ok(queue.later),
    }
}

fn take_and_run(session: &mut Session, queue: &Mutex<Queue<'_>>, changed: &Condvar, owners: Owners) {
    let Ok(mut state) = queue.lock() else { return };
    loop {
        if state.failed.is_some() || state.waiting.is_empty() {
            break;
        }
        match state.take() {
            Some(task) => {
                drop(state);
                let result = task.run(session, owners);
                let Ok(again) = queue.lock() else { return };
                state = again;
                state.done(&task, result);
                changed.notify_all();
            }
            // Nothing is running and nothing can start: the caller reports the error.
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
