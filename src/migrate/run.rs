//! Executes a plan: creates tables, loads them, creates keys and indexes, and finally policies. An interrupted run may
//! be repeated: work that is done is not done twice.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::changes;
use super::convert::Kind;
use super::ddl;
use super::existing;
use super::foreign_key;
use super::keys;
use super::load::{Loader, Shared, Sink};
use super::plan::{IndexPlan, Plan, TablePlan};
use super::profile;
use super::retry;
use super::state::{self, Chunk, ChunkDone, SourceState, Step};
use crate::engine::postgres::Params;
use crate::engine::postgres::schema::quote::{ident, literal, qualified};
use crate::engine::postgres::wire::session::{self, Session};
use crate::engine::postgres::wire::settings;
use crate::engine::sqlite::schema::TableFacts;
use crate::engine::sqlite::still::Watched;
use crate::engine::sqlite::values::{Range, Reader};
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Kind as ErrorKind, Result, one_line};
use crate::platform::interrupt;
use crate::platform::progress::Progress;

/// The number of rows that are loaded in one transaction.
const CHUNK_ROWS: usize = 50_000;

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The tables, in the plan's order.
    pub tables: Vec<Loaded>,
    /// Differences from the plan that were noted instead of ending the run.
    pub notes: Vec<String>,
    /// Tables with more rejected rows than the plan expects.
    pub unexpected: Vec<state::Unexpected>,
    /// Seconds from the first row to the last index.
    pub load_seconds: f64,
}

/// A table that is loaded.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// `file:table`.
    pub source: String,
    /// `schema.table`.
    pub target: String,
    /// The number of rows in the target.
    pub rows: u64,
    /// The number of rejected rows.
    pub rejected: u64,
}

/// The input and the settings of a run.
pub(crate) struct Job<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The path of each of the plan's files, or of the image of its snapshot.
    pub files: &'a BTreeMap<String, PathBuf>,
    /// The target.
    pub params: &'a Params,
    /// The number of sessions that load in parallel.
    pub jobs: usize,
    /// Receives the progress.
    pub progress: &'a dyn Progress,
}

/// Connects and reads the notes of an earlier run of the plan. No other process can run the plan as long as the session
/// lasts. Fails if the plan was changed after it was started.
pub(crate) fn connect(plan: &Plan, params: &Params) -> Result<(Session, Option<state::PlanState>)> {
    let mut session = Session::connect(params)?;
    settings::pin(&mut session)?;
    state::lock(&mut session, &plan.id)?;
    let found = state::find(&mut session, &plan.id)?;
    if found.as_ref().is_some_and(|found| found.digest != plan.digest()) {
        return Err(Error::usage("the plan was changed after it was started")
            .hint("run the unchanged plan, or undo the run with 'lifeboat migrate rollback'"));
    }
    Ok((session, found))
}

impl Job<'_> {
    /// Runs the plan. `sources` is the content of the files when they were saved. Fails if a file in `watched` has
    /// changed since.
    pub(crate) fn run(
        &self,
        mut session: Session,
        sources: &BTreeMap<String, SourceState>,
        is_begun: bool,
        watched: &[Watched],
    ) -> Result<Outcome> {
        let clock = Instant::now();
        let sinks = self.sinks()?;
        self.require_snapshot_tables(sources)?;
        session.execute("BEGIN")?;
        if !is_begun {
            state::lock_notes(&mut session)?;
            state::make_tables(&mut session)?;
            state::begin(&mut session, self.plan, sources)?;
            self.make(&mut session, &sinks)?;
        }
        session.execute("COMMIT")?;
        let chunks = state::chunks(&mut session, &self.plan.id)?;
        let mut sessions = self.sessions(session)?;
        let stop = AtomicBool::new(false);
        let existing = self.existing(first(&mut sessions)?)?;
        let enforced = foreign_key::enforced(first(&mut sessions)?, &existing)?;
        let (plan, sinks, enforced) = (self.plan, &*sinks, &*enforced);
        let shared = Shared { plan, sinks, enforced, stop: &stop, progress: self.progress };
        self.progress.start("loading", self.files.values().map(|path| size_of(path)).sum());
        let loaded = self.load(&shared, !existing.tables.is_empty(), &chunks, sessions, watched);
        self.progress.finish();
        sessions = loaded?;
        let session = first(&mut sessions)?;
        let chunks = state::chunks(session, &self.plan.id)?;
        let mut outcome = Outcome { tables: self.require_complete(sources, &chunks)?, ..Outcome::default() };
        for one in watched {
            one.require_unchanged()?;
        }
        let mut steps = Steps::begin(self.plan, first(&mut sessions)?)?;
        let mut sessions = steps.indexes(sessions, sinks)?;
        let session = first(&mut sessions)?;
        steps.identities(session, sinks)?;
        steps.analyze(session)?;
        steps.foreign_keys(session)?;
        state::note_rows(session, &self.plan.id)?;
        steps.policies(session)?;
        let steps = state::steps(session, &self.plan.id)?.into_iter().map(|(name, step)| (name, step.note)).collect();
        outcome.notes = changes::notes_of_steps(self.plan, steps);
        outcome.unexpected = state::unexpected_rejects(session, self.plan)?;
        for one in watched {
            one.require_unchanged()?;
        }
        state::finish(session, &self.plan.id)?;
        outcome.load_seconds = clock.elapsed().as_secs_f64();
        Ok(outcome)
    }

    /// Loads all chunks: those of tables that others refer to first, as far as the server checks that. Then rejects the rows
    /// that foreign keys of existing tables refuse.
    fn load(
        &self,
        shared: &Shared<'_>,
        fills_existing: bool,
        chunks: &[Chunk],
        mut sessions: Vec<Session>,
        watched: &[Watched],
    ) -> Result<Vec<Session>> {
        // Triggers and defaults of existing tables find their functions by the search path that the app has.
        let search_path = if fills_existing { "DEFAULT" } else { "''" };
        for session in &mut sessions {
            session.execute(&format!("SET search_path = {search_path}"))?;
        }
        let levels = keys::levels(self.plan, shared.enforced);
        for level in 0..=levels.iter().max().copied().unwrap_or(0) {
            let is_now = |chunk: &&Chunk| levels.get(chunk.table).copied().unwrap_or(0) == level;
            let now: Vec<Chunk> = chunks.iter().filter(is_now).copied().collect();
            sessions = load_all(shared, &now, sessions, watched)?;
        }
        let session = first(&mut sessions)?;
        let mut loader = Loader::new(shared);
        retry::load_again(session, &mut loader, chunks)?;
        keys::create_again(session, &mut loader, chunks)?;
        for session in &mut sessions {
            session.execute("SET search_path = ''")?;
        }
        Ok(sessions)
    }

    fn sinks(&self) -> Result<Vec<Sink>> {
        let mut schemas = BTreeMap::new();
        for (name, path) in self.files {
            schemas.insert(name.clone(), Reader::open(path)?.schema()?);
        }
        let facts_of = |table: &TablePlan| {
            let schema = schemas
                .get(&table.file)
                .ok_or_else(|| Error::failed(format!("the file {} was not opened", one_line(&table.file))))?;
            schema.tables.iter().find(|facts| facts.name == table.source).ok_or_else(|| {
                Error::usage(format!("there is no table {}", table.shown_source()))
                    .hint("remove it from the plan, or create a new plan")
            })
        };
        let mut staged = BTreeSet::new();
        for table in &self.plan.tables {
            if table.merge || may_collide(table, facts_of(table)?) {
                staged.insert((table.schema.clone(), table.name.clone()));
            }
        }
        let sink = |table: &TablePlan| {
            let is_staged = staged.contains(&(table.schema.clone(), table.name.clone()));
            Sink::new(self.plan, table, facts_of(table)?, self.files[&table.file].clone(), is_staged)
        };
        self.plan.tables.iter().map(sink).collect()
    }

    /// Fails if the snapshot did not read every table of the plan completely.
    fn require_snapshot_tables(&self, sources: &BTreeMap<String, SourceState>) -> Result<()> {
        for table in &self.plan.tables {
            let state = sources.get(&table.file).and_then(|source| source.tables.get(&table.source));
            if state.is_none() {
                return Err(Error::failed(format!(
                    "the snapshot of {} has no digest of the table {}: the table could not be read completely",
                    one_line(&table.file),
                    one_line(&table.source)
                )));
            }
        }
        Ok(())
    }

    /// Creates schemas and tables, and notes the chunks. Must be called in a transaction.
    fn make(&self, session: &mut Session, sinks: &[Sink]) -> Result<()> {
        let id = &self.plan.id;
        self.require_free_names(session)?;
        let existing = self.existing(session)?;
        keys::drop_all(session, &existing)?;
        let mut made: BTreeSet<(String, String)> = BTreeSet::new();
        let mut extension = None;
        for (number, sink) in sinks.iter().enumerate() {
            let table = &sink.plan;
            let add_context =
                |error: Error| error.context(format!("cannot create {}; nothing was changed", table.shown_target()));
            if made.insert((table.schema.clone(), table.name.clone())) {
                make_schema(session, id, &table.schema).map_err(add_context)?;
                let is_made = make_table(session, id, table).map_err(add_context)?;
                if let Some(hypertable) = table.hypertable.as_ref().filter(|_| is_made) {
                    if extension.is_none() {
                        extension = Some(timescale(session)?.ok_or_else(|| {
                            Error::usage("the plan has hypertables, but the target has no TimescaleDB")
                                .hint("run CREATE EXTENSION timescaledb, or remove [table.hypertable] from the plan")
                        })?);
                    }
                    let functions = extension.as_deref().unwrap_or("public");
                    let sql = ddl::create_hypertable(table, hypertable, functions);
                    session.rows(&sql).map_err(add_context)?;
                }
                if is_made && sink.is_staged {
                    for (step, sql) in early_steps(table) {
                        session.execute(&sql).map_err(add_context)?;
                        let done = Step { note: None, planned: Some(sql) };
                        state::note_step(session, id, &step, &done)?;
                    }
                }
            }
            let ranges = Reader::open(&sink.path)?.ranges(&sink.facts, CHUNK_ROWS)?;
            let ranges: Vec<Option<Range>> = match ranges {
                Some(ranges) => ranges.into_iter().map(Some).collect(),
                None => vec![None],
            };
            let target = format!("{}::pg_catalog.regclass::pg_catalog.oid", literal(&ddl::target(table)));
            state::note_chunks(session, id, number, &target, &ranges)?;
        }
        Ok(())
    }

    /// Returns the plan with the tables alone that exist already.
    fn existing(&self, session: &mut Session) -> Result<Plan> {
        let mut existing = self.plan.clone();
        let mut failed = None;
        existing.tables.retain(|table| {
            exists(session, &ddl::target(table)).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        failed.map_or(Ok(existing), Err)
    }

    /// Fails if the name of an index or constraint is taken. The conflict would otherwise appear only when all rows are
    /// loaded.
    fn require_free_names(&self, session: &mut Session) -> Result<()> {
        let (mut targets, mut taken) = (BTreeSet::new(), BTreeMap::new());
        let mut exists = |schema: &str, name: &str| {
            let sql =
                format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL AS there", literal(&qualified(schema, name)));
            session.row(&sql)?.flag("there")
        };
        let mut tables = Vec::new();
        for table in &self.plan.tables {
            // Existing tables keep the indexes that they have.
            if targets.insert((&table.schema, &table.name)) && !exists(&table.schema, &table.name)? {
                taken.insert((&table.schema, table.name.clone()), "a table of the plan".to_owned());
                tables.push(table);
            }
        }
        for table in tables {
            let shown = table.shown_target();
            let clash = |name: &str, other: &str| {
                Error::usage(format!(
                    "the name {} of an index or constraint of {shown} is also used by {other}; nothing was changed",
                    one_line(name)
                ))
                .hint("change one of the names in the plan; the name of a primary key follows from the table's name")
            };
            let keys = unique_keys(table).into_iter().map(|(name, ..)| name);
            let constraints = keys.clone().chain(table.checks.iter().map(|check| check.name.clone()));
            let mut own = BTreeSet::new();
            for name in constraints.chain(table.foreign_keys.iter().map(|key| key.name.clone())) {
                if !own.insert(name.clone()) {
                    return Err(clash(&name, "another constraint of that table"));
                }
            }
            for name in keys.chain(table.indexes.iter().map(|index| index.name.clone())) {
                if exists(&table.schema, &name)? {
                    return Err(clash(&name, "an existing object in that schema"));
                }
                if let Some(other) = taken.insert((&table.schema, name.clone()), format!("an index of {shown}")) {
                    return Err(clash(&name, &other));
                }
            }
        }
        Ok(())
    }

    /// Opens more sessions, up to `jobs` in total or as many as the server accepts.
    fn sessions(&self, first: Session) -> Result<Vec<Session>> {
        let open = || {
            let mut session = Session::connect(self.params)?;
            settings::pin(&mut session)?;
            Ok(session)
        };
        let mut sessions = vec![first];
        sessions.extend(session::open_up_to(self.params, self.jobs.max(1) - 1, open)?);
        Ok(sessions)
    }

    /// Fails if the rows that were read are not the rows that were saved, by number and digest. Returns the result of
    /// each table.
    fn require_complete(&self, sources: &BTreeMap<String, SourceState>, chunks: &[Chunk]) -> Result<Vec<Loaded>> {
        let mut tables = Vec::new();
        for (number, table) in self.plan.tables.iter().enumerate() {
            let mut sum = ChunkDone::default();
            let mut digest = RowDigest::default();
            for chunk in chunks.iter().filter(|chunk| chunk.table == number) {
                let done = chunk
                    .done
                    .ok_or_else(|| Error::failed(format!("a part of {} was not loaded", table.shown_source())))?;
                sum.rows += done.rows;
                sum.rejected += done.rejected;
                digest.merge(done.digest);
            }
            let saved = sources.get(&table.file).and_then(|source| source.tables.get(&table.source));
            if saved.is_none_or(|saved| saved.rows != sum.rows + sum.rejected || saved.digest != digest) {
                return Err(Error::problem(format!(
                    "the rows read from {} differ from the rows that were saved: the table was changed in the meantime",
                    table.shown_source()
                ))
                .hint("stop the programs that write to it, run 'lifeboat migrate rollback', then run the plan again"));
            }
            tables.push(Loaded {
                source: table.shown_source(),
                target: table.shown_target(),
                rows: sum.rows,
                rejected: sum.rejected,
            });
        }
        Ok(tables)
    }
}

/// Returns true if rows with different keys in the file may have equal keys in the target, because the values are
/// converted to another type.
fn may_collide(table: &TablePlan, facts: &TableFacts) -> bool {
    let is_unchanged = |name: &String| {
        let Some(column) = table.column(name) else { return false };
        let Some(source) = facts.columns.iter().find(|source| source.name == column.source) else { return false };
        let kind = Kind::parse(&column.target_type).ok();
        // SQLite's type affinity has converted the values of such a column to that class, as far as possible.
        let is_same_class = matches!(
            (profile::declared(source), kind),
            (Some(Kind::Text), Some(Kind::Text)) | (Some(Kind::Whole(_)), Some(Kind::Whole(_)))
        );
        column.identity || is_same_class
    };
    let target = |source: &str| {
        let column = table.columns.iter().find(|column| column.source == source);
        column.map(|column| column.target_name().to_owned())
    };
    let mut unique: Vec<Option<Vec<String>>> =
        vec![facts.primary_key().iter().map(|column| target(&column.name)).collect()];
    let unique_indexes = facts.indexes.iter().filter(|index| index.unique && !index.partial);
    unique.extend(unique_indexes.map(|index| index.columns.iter().map(|(name, _)| target(name.as_deref()?)).collect()));
    let unique: Vec<Vec<String>> =
        unique.into_iter().flatten().filter(|key| !key.is_empty() && key.iter().all(is_unchanged)).collect();
    !table.keys().all(|key| unique.iter().any(|own| own.iter().all(|name| key.contains(name))))
}

fn size_of(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
}

fn first(sessions: &mut [Session]) -> Result<&mut Session> {
    sessions.first_mut().ok_or_else(|| Error::failed("no database session is left"))
}

/// Returns the primary key and the unique constraints: name, kind and columns.
pub(super) fn unique_keys(table: &TablePlan) -> Vec<(String, &'static str, Vec<String>)> {
    let primary = Some(table.primary_key.clone()).filter(|key| !key.is_empty());
    let primary = primary.map(|key| (ddl::primary_key_name(&table.name), "PRIMARY KEY", key));
    let uniques = table.uniques.iter().map(|unique| (unique.name.clone(), "UNIQUE", unique.columns.clone()));
    primary.into_iter().chain(uniques).collect()
}

/// Returns the steps that create unique keys and indexes of a table before loading, with their statements.
fn early_steps(table: &TablePlan) -> Vec<(String, String)> {
    let keys = unique_keys(table)
        .into_iter()
        .map(|(name, kind, columns)| (key_step(table, &name), ddl::add_key(table, &name, kind, &columns)));
    let indexes = table.indexes.iter().filter(|index| index.unique);
    keys.chain(indexes.map(|index| (index_step(table, index), ddl::create_index(table, index)))).collect()
}

fn key_step(table: &TablePlan, name: &str) -> String {
    format!("key {} {name}", table.shown_target())
}

fn index_step(table: &TablePlan, index: &IndexPlan) -> String {
    format!("index {} {}", table.shown_target(), index.name)
}

/// Returns the schema of TimescaleDB's functions, or `None` if TimescaleDB is not installed.
pub(crate) fn timescale(session: &mut Session) -> Result<Option<String>> {
    let rows = session.rows(
        "SELECT n.nspname AS schema FROM pg_catalog.pg_extension e
           JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'timescaledb'",
    )?;
    rows.first().map(|row| row.text("schema").map(str::to_owned)).transpose()
}

fn make_schema(session: &mut Session, plan: &str, schema: &str) -> Result<()> {
    let query = format!("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL AS there", literal(&ident(schema)));
    if session.row(&query)?.flag("there")? {
        return Ok(());
    }
    session.execute(&format!("CREATE SCHEMA {}", ident(schema)))?;
    let oid = format!("{}::pg_catalog.regnamespace::pg_catalog.oid", literal(&ident(schema)));
    state::note_made(session, plan, "schema", schema, schema, &oid)
}

/// Returns true if there is a relation with this quoted name.
fn exists(session: &mut Session, qualified: &str) -> Result<bool> {
    session.row(&format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL AS there", literal(qualified)))?.flag("there")
}

/// Creates a table and returns true, or accepts an existing table that is empty and has these columns, and returns
/// false.
fn make_table(session: &mut Session, plan: &str, table: &TablePlan) -> Result<bool> {
    let name = literal(&ddl::target(table));
    let oid = format!("{name}::pg_catalog.regclass::pg_catalog.oid");
    if !exists(session, &ddl::target(table))? {
        if table.existing {
            return Err(Error::usage(format!("{} is not there any more", table.shown_target()))
                .hint("create it, or make a new plan with 'lifeboat migrate plan'"));
        }
        session.execute(&ddl::create_table(table))?;
        state::note_made(session, plan, "table", &table.schema, &table.name, &oid)?;
        return Ok(true);
    }
    existing::require_empty(session, plan, table)?;
    // Only the server knows what a type's name means, including its precision. A temporary table with these types shows
    // it.
    session
        .execute(&format!("CREATE TEMPORARY TABLE lifeboat_types ({}) ON COMMIT DROP", ddl::typed_columns(table)))?;
    let wanted = session.rows(&format!(
        "SELECT w.attname AS name, pg_catalog.format_type(w.atttypid, w.atttypmod) AS wanted,
                pg_catalog.format_type(t.atttypid, t.atttypmod) AS found,
                coalesce(t.atttypid = w.atttypid AND t.atttypmod IN (-1, w.atttypmod), false) AS fits
           FROM pg_catalog.pg_attribute w LEFT JOIN pg_catalog.pg_attribute t
             ON t.attrelid = {name}::pg_catalog.regclass AND t.attname = w.attname AND t.attnum > 0 AND NOT t.attisdropped
          WHERE w.attrelid = 'pg_temp.lifeboat_types'::pg_catalog.regclass AND w.attnum > 0 ORDER BY w.attnum"
    ))?;
    session.execute("DROP TABLE pg_temp.lifeboat_types")?;
    for column in &wanted {
        if !column.flag("fits")? {
            let found = column.get("found")?.map_or("is missing".to_owned(), |found| format!("has the type {found}"));
            return Err(Error::usage(format!(
                "{} already exists, but its column {} {found}; the plan requires {}",
                table.shown_target(),
                one_line(column.text("name")?),
                column.text("wanted")?
            ))
            .hint("give the table another name or schema in the plan, or give the column the type of the plan"));
        }
    }
    state::note_made(session, plan, "filled", &table.schema, &table.name, &oid)?;
    Ok(false)
}

/// Loads all chunks that are not loaded yet, in parallel, and returns the sessions.
fn load_all(
    shared: &Shared<'_>,
    chunks: &[Chunk],
    sessions: Vec<Session>,
    watched: &[Watched],
) -> Result<Vec<Session>> {
    // Chunks whose keys are enforced during the load are loaded one after the other, in the plan's order.
    let mut serial: BTreeMap<(String, String), Vec<Chunk>> = BTreeMap::new();
    let mut tasks: VecDeque<Vec<Chunk>> = VecDeque::new();
    for chunk in chunks.iter().filter(|chunk| chunk.done.is_none()) {
        match shared.sinks.get(chunk.table) {
            Some(sink) if sink.is_staged => {
                serial.entry((sink.plan.schema.clone(), sink.plan.name.clone())).or_default().push(*chunk);
            }
            _ => tasks.push_back(vec![*chunk]),
        }
    }
    let mut serial: Vec<Vec<Chunk>> = serial.into_values().collect();
    serial.sort_by_key(Vec::len);
    serial.into_iter().for_each(|chunks| tasks.push_front(chunks));
    for one in watched {
        one.require_unchanged()?;
    }
    run_in_parallel(sessions, tasks, shared.stop, |session, chunks: Vec<Chunk>, loader: &mut Option<Loader<'_>>| {
        let loader = loader.get_or_insert_with(|| Loader::new(shared));
        for chunk in &chunks {
            if shared.stop.load(Ordering::Relaxed) {
                break;
            }
            interrupt::check()?;
            loader.load(session, chunk)?;
        }
        Ok(())
    })
}

/// Runs tasks on several sessions. The first failure stops all of them and is returned.
fn run_in_parallel<T: Send, S>(
    sessions: Vec<Session>,
    tasks: VecDeque<T>,
    stop: &AtomicBool,
    work: impl Fn(&mut Session, T, &mut Option<S>) -> Result<()> + Sync,
) -> Result<Vec<Session>> {
    let tasks = Mutex::new(tasks);
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = |mut session: Session| -> Result<Session> {
        let mut state = None;
        while let Some(task) = next().filter(|_| !stop.load(Ordering::Relaxed)) {
            work(&mut session, task, &mut state).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
        Ok(session)
    };
    let results: Vec<Result<Session>> = thread::scope(|scope| {
        let threads: Vec<_> = sessions.into_iter().map(|session| scope.spawn(|| run(session))).collect();
        let panicked = || Err(Error::failed("a worker thread has panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut sessions = Vec::new();
    let mut failed: Option<Error> = None;
    for result in results {
        match result {
            Ok(session) => sessions.push(session),
            // A worker that stopped only because another one failed is not the cause.
            Err(error) if failed.as_ref().is_none_or(|first| first.kind == ErrorKind::Interrupted) => {
                failed = Some(error)
            }
            Err(_) => {}
        }
    }
    failed.map_or(Ok(sessions), Err)
}

/// An index that is created after loading.
struct IndexTask {
    step: String,
    sql: String,
    /// True if the index enforces a constraint of the plan, so that the run fails without it.
    is_required: bool,
}

impl IndexTask {
    fn of_key(step: String, sql: String) -> Self {
        IndexTask { step, sql, is_required: true }
    }

    /// Creates the index. If an index that enforces nothing cannot be created, this is noted, and the run continues
    /// without it.
    fn make(&self, session: &mut Session, plan: &str) -> Result<()> {
        let Err(error) = do_step(session, plan, &self.step, &self.sql) else { return Ok(()) };
        // A key that the loaded rows violate ends the run. A key with values that are too long for an index does not:
        // no row is wrong, and the key can be created in another way.
        let is_too_long = session::sqlstate(&error).is_some_and(|state| state.starts_with("54"));
        if (self.is_required && !is_too_long) || !is_permanent(&error) {
            return Err(error);
        }
        let note = format!(
            "the {} was not created: {}. Create another index, such as one on md5(COLUMN), or do without it: {}",
            one_line(&self.step),
            error.causes().join(": "),
            one_line(&self.sql)
        );
        do_noted_step(session, plan, &self.step, ("", &self.sql), Some(&note))
    }
}

/// Returns true if the object itself caused the failure, so that the next attempt would fail too.
fn is_permanent(error: &Error) -> bool {
    let transient_classes = ["08", "25", "40", "53", "55", "57", "58", "XX"];
    session::sqlstate(error).is_some_and(|state| !transient_classes.iter().any(|class| state.starts_with(class)))
}

/// The steps after loading, each of which is done once.
struct Steps<'a> {
    plan: &'a Plan,
    done: BTreeMap<String, Step>,
    /// Tables that existed before. Their keys and indexes are left to their owner.
    filled: BTreeSet<(String, String)>,
}

impl<'a> Steps<'a> {
    fn begin(plan: &'a Plan, session: &mut Session) -> Result<Self> {
        let made = state::made(session, &plan.id)?;
        let filled = made.into_iter().filter(|one| one.kind == "filled").map(|one| (one.schema, one.name));
        let mut steps = Steps { plan, done: state::steps(session, &plan.id)?, filled: filled.collect() };
        for (schema, name) in steps.filled.clone() {
            let shown = one_line(&format!("{schema}.{name}"));
            let step = format!("filled {shown}");
            if let Entry::Vacant(vacant) = steps.done.entry(step) {
                let note = format!("{shown} existed before: its keys, indexes and policies were not changed");
                do_noted_step(session, &plan.id, vacant.key(), ("", ""), Some(&note))?;
                vacant.insert(Step::default());
            }
        }
        Ok(steps)
    }

    /// Returns one table for each target, the first of those that are merged. Tables that existed before are left out.
    fn targets(&self) -> Vec<&TablePlan> {
        let mut listed = BTreeSet::new();
        let is_ours = |table: &&TablePlan| !self.filled.contains(&(table.schema.clone(), table.name.clone()));
        let tables = self.plan.tables.iter().filter(is_ours);
        tables.filter(|table| listed.insert((&table.schema, &table.name))).collect()
    }

    /// Returns true if a step is done as the plan has it now. A step that could not be done may be changed; fails if one
    /// that was done is changed.
    fn is_done(&self, step: &str, sql: &str) -> Result<bool> {
        let Some(done) = self.done.get(step) else { return Ok(false) };
        match &done.planned {
            Some(then) if then != sql && done.note.is_none() => Err(Error::usage(format!(
                "the step '{}' is done, but the plan was changed since: it was '{}', and is '{}' now",
                one_line(step),
                one_line(then),
                one_line(sql)
            ))
            .hint("only what is not done yet may be changed: put it back, or run 'lifeboat migrate rollback' first")),
            Some(then) => Ok(then == sql),
            None => Ok(true),
        }
    }

    /// Does a step that is not done yet, in a transaction that notes it.
    fn once(&mut self, session: &mut Session, step: &str, sql: &str) -> Result<()> {
        if self.is_done(step, sql)? {
            return Ok(());
        }
        interrupt::check()?;
        do_step(session, &self.plan.id, step, sql)?;
        self.done.insert(step.to_owned(), Step::default());
        Ok(())
    }

    /// Creates the missing indexes in parallel, then the constraints that use them.
    fn indexes(&mut self, sessions: Vec<Session>, sinks: &[Sink]) -> Result<Vec<Session>> {
        let mut tasks: VecDeque<IndexTask> = VecDeque::new();
        let mut attach: Vec<(String, String)> = Vec::new();
        for table in self.targets() {
            let is_target = |sink: &&Sink| (&sink.plan.schema, &sink.plan.name) == (&table.schema, &table.name);
            let is_keyed = sinks.iter().find(is_target).is_some_and(|sink| sink.is_staged);
            for (name, kind, columns) in unique_keys(table) {
                let step = key_step(table, &name);
                if table.hypertable.is_some() || is_keyed {
                    tasks.push_back(IndexTask::of_key(step, ddl::add_key(table, &name, kind, &columns)));
                    continue;
                }
                let index = IndexPlan { name: name.clone(), columns, unique: true, ..IndexPlan::default() };
                tasks.push_back(IndexTask::of_key(format!("index of {step}"), ddl::create_index(table, &index)));
                attach.push((step, ddl::add_key_of_index(table, &name, kind)));
            }
            for index in &table.indexes {
                let step = index_step(table, index);
                tasks.push_back(IndexTask { step, sql: ddl::create_index(table, index), is_required: index.unique });
            }
            if let Some(hypertable) = &table.hypertable {
                let starts_with_time = |columns: &[String]| columns.first() == Some(&hypertable.time);
                let has_time_index = starts_with_time(&table.primary_key)
                    || table.indexes.iter().any(|index| starts_with_time(&index.columns));
                if !has_time_index {
                    let sql = format!("CREATE INDEX ON {} ({} DESC)", ddl::target(table), ident(&hypertable.time));
                    tasks.push_back(IndexTask {
                        step: format!("index {} by time", table.shown_target()),
                        sql,
                        is_required: false,
                    });
                }
            }
        }
        let mut missing = VecDeque::new();
        for task in tasks {
            if !self.is_done(&task.step, &task.sql)? {
                missing.push_back(task);
            }
        }
        let stop = AtomicBool::new(false);
        let plan = &self.plan.id;
        let sessions = run_in_parallel(sessions, missing, &stop, |session, task: IndexTask, _: &mut Option<()>| {
            interrupt::check()?;
            task.make(session, plan)
        })?;
        let mut sessions = sessions;
        let noted = state::steps(first(&mut sessions)?, &self.plan.id)?;
        for (step, sql) in attach {
            // The index could not be created, as a note says.
            if noted.get(&format!("index of {step}")).is_some_and(|step| step.note.is_some()) {
                continue;
            }
            self.once(first(&mut sessions)?, &step, &sql)?;
        }
        Ok(sessions)
    }

    /// Moves the sequences of identity columns past the greatest value that exists or ever existed. Does so only once
    /// and never moves them back, because others may have taken numbers already.
    fn identities(&mut self, session: &mut Session, sinks: &[Sink]) -> Result<()> {
        for sink in sinks {
            for column in sink.plan.columns.iter().filter(|column| column.identity) {
                let step = format!("numbers {} {}", sink.plan.shown_source(), column.target_name());
                if self.done.contains_key(&step) {
                    continue;
                }
                let (table, name) = (ddl::target(&sink.plan), column.target_name());
                let serial = format!(
                    "SELECT pg_catalog.pg_get_serial_sequence({}, {}) AS sequence",
                    literal(&table),
                    literal(name)
                );
                let Some(sequence) = session.row(&serial)?.owned("sequence")? else { continue };
                let ever = sink.facts.sequence.unwrap_or(0);
                let greatest = format!("SELECT greatest(max({}), {ever}) AS greatest FROM {table}", ident(name));
                let greatest: i64 = session.row(&greatest)?.number("greatest")?;
                // The check and the change are one statement, which leaves little time for another session to come
                // between.
                let sql = format!(
                    "SELECT pg_catalog.setval({}, {greatest}) FROM {sequence}
                      WHERE last_value < {greatest} OR (last_value = {greatest} AND NOT is_called)",
                    literal(&sequence)
                );
                self.once(session, &step, if greatest >= 1 { &sql } else { "" })?;
            }
        }
        Ok(())
    }

    fn analyze(&mut self, session: &mut Session) -> Result<()> {
        let sql: Vec<(String, String)> = self
            .targets()
            .into_iter()
            .map(|table| (format!("analyze {}", table.shown_target()), format!("ANALYZE {}", ddl::target(table))))
            .collect();
        for (step, sql) in sql {
            self.once(session, &step, &sql)?;
        }
        Ok(())
    }

    fn foreign_keys(&mut self, session: &mut Session) -> Result<()> {
        let tables: Vec<TablePlan> = self.targets().into_iter().cloned().collect();
        for table in &tables {
            for key in &table.foreign_keys {
                let step = format!("foreign key {} {}", table.shown_target(), key.name);
                let planned = ddl::add_foreign_key(table, key, false);
                if self.is_done(&step, &planned)? {
                    continue;
                }
                interrupt::check()?;
                // If existing rows violate the foreign key, it is added as NOT VALID, which checks new rows; a note
                // says so.
                let added = do_step(session, &self.plan.id, &step, &planned);
                let Err(error) = added else { continue };
                if session::sqlstate(&error).as_deref() != Some("23503") && key.validate {
                    return Err(error);
                }
                let note = key.validate.then(|| {
                    format!(
                        "{}: existing rows violate the foreign key {}; only new rows are checked",
                        table.shown_target(),
                        one_line(&key.name)
                    )
                });
                let sql = ddl::add_foreign_key(table, key, true);
                do_noted_step(session, &self.plan.id, &step, (&sql, &planned), note.as_deref())?;
            }
        }
        Ok(())
    }

    /// Sets up compression and retention. This step comes last, so that no policy acts on an incomplete table.
    fn policies(&mut self, session: &mut Session) -> Result<()> {
        let tables: Vec<TablePlan> = self.targets().into_iter().cloned().collect();
        let Some(extension) = timescale(session)? else { return Ok(()) };
        let functions = ident(&extension);
        for table in &tables {
            let Some(hypertable) = &table.hypertable else { continue };
            let (shown, name) = (table.shown_target(), literal(&ddl::target(table)));
            if let Some(compress) = &hypertable.compress {
                let mut options = vec!["timescaledb.compress".to_owned()];
                if !compress.segment_by.is_empty() {
                    options.push(format!(
                        "timescaledb.compress_segmentby = {}",
                        literal(&ddl::names(&compress.segment_by))
                    ));
                }
                let order = compress.order(table)?;
                if !order.is_empty() {
                    let order = order.iter().map(|(name, words)| format!("{} {words}", ident(name)));
                    let order = order.collect::<Vec<_>>().join(", ");
                    options.push(format!("timescaledb.compress_orderby = {}", literal(&order)));
                }
                let sql = format!("ALTER TABLE {} SET ({})", ddl::target(table), options.join(", "));
                self.once(session, &format!("compression {shown}"), &sql)?;
                let after = ddl::interval(&compress.after);
                let sql = format!("SELECT {functions}.add_compression_policy({name}, compress_after => {after})");
                self.once(session, &format!("compression policy {shown}"), &sql)?;
            }
            if let Some(retention) = &hypertable.retention {
                let step = format!("retention policy {shown}");
                if self.done.contains_key(&step) {
                    continue;
                }
                let sql = format!(
                    "SELECT {functions}.add_retention_policy({name}, drop_after => {})",
                    ddl::interval(retention)
                );
                let old = match retention.trim().parse::<i64>() {
                    Ok(_) => 0,
                    Err(_) => {
                        let count = format!(
                            "SELECT count(*) AS rows FROM {} WHERE {} < now() - {}",
                            ddl::target(table),
                            ident(&hypertable.time),
                            ddl::interval(retention)
                        );
                        session.row(&count)?.number::<u64>("rows")?
                    }
                };
                if old > 0 {
                    let note = format!(
                        "{shown}: no retention policy was created, because it would drop {old} rows that were just \
                         loaded. After you have verified them, run: {sql}"
                    );
                    do_noted_step(session, &self.plan.id, &step, ("", &sql), Some(&note))?;
                } else {
                    self.once(session, &step, &sql)?;
                }
            }
        }
        Ok(())
    }
}

fn do_step(session: &mut Session, plan: &str, step: &str, sql: &str) -> Result<()> {
    do_noted_step(session, plan, step, (sql, sql), None)
}

/// Runs a statement and notes the step, with the statement that the plan has for it.
fn do_noted_step(
    session: &mut Session,
    plan: &str,
    step: &str,
    (sql, planned): (&str, &str),
    note: Option<&str>,
) -> Result<()> {
    session.execute("BEGIN")?;
    let done = Step { note: note.map(str::to_owned), planned: Some(planned.to_owned()).filter(|sql| !sql.is_empty()) };
    let done = do_in_transaction(session, plan, step, sql, &done);
    if done.is_err() {
        let _ = session.execute("ROLLBACK");
    }
    done.map_err(|error| {
        error
            .context(format!("cannot complete the step '{}'", one_line(step)))
            .hint("completed steps are kept: correct the cause or the plan, then run the plan again")
    })
}

fn do_in_transaction(session: &mut Session, plan: &str, name: &str, sql: &str, step: &Step) -> Result<()> {
    if !sql.is_empty() {
        session.execute(sql)?;
    }
    state::note_step(session, plan, name, step)?;
    session.execute("COMMIT")
}
