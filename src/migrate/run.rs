//! Executes a plan: creates tables, loads them, creates keys and indexes, and finally policies. An interrupted run may
//! be repeated: work that is done is not done twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::changes;
use super::convert::Kind;
use super::foreign_key::{self, ForeignKey};
use super::keys;
use super::load::{Loader, Shared, Sink};
use super::loaded;
use super::make;
use super::not_planned;
use super::parallel::{first, run_in_parallel};
use super::plan::{Plan, TablePlan};
use super::profile;
use super::retry;
use super::state::{self, Chunk, ChunkDone, PlanState, SourceState};
use super::steps::{self, Steps};
use crate::engine::postgres::Params;
use crate::engine::postgres::wire::session::{self, Session, sqlstate};
use crate::engine::postgres::wire::settings;
use crate::engine::sqlite::schema::{SchemaFacts, TableFacts};
use crate::engine::sqlite::still::Watched;
use crate::engine::sqlite::values::Reader;
use crate::platform::digest::RowDigest;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;
use crate::platform::progress::Progress;

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The tables, in the plan's order.
    pub tables: Vec<Loaded>,
    /// Differences from the plan that were noted instead of ending the run.
    pub notes: Vec<String>,
    /// Tables with more rejected rows than the plan expects.
    pub unexpected: Vec<state::Unexpected>,
    /// Foreign keys of existing tables that were dropped and not created again.
    pub missing_keys: Vec<state::Unexpected>,
    /// True if an earlier run was complete: this one has loaded no rows.
    pub was_complete: bool,
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
    let mut found = state::find(&mut session, &plan.id)?;
    if found.is_some() && state::forget_rolled_back(&mut session, &plan.id)? {
        found = None;
    }
    if found.as_ref().is_some_and(|found| found.digest != plan.digest()) {
        return Err(Error::usage("the plan was changed after it was started")
            .hint("run the unchanged plan, or undo the run with 'lifeboat migrate rollback'"));
    }
    Ok((session, found))
}

impl Job<'_> {
    /// Runs the plan. `sources` is the content of the files when they were saved, `noted` are the notes of an earlier run. Fails
    /// if a file in `watched` has changed since.
    pub(crate) fn run(
        &self,
        mut session: Session,
        sources: &BTreeMap<String, SourceState>,
        noted: Option<&PlanState>,
        watched: &[Watched],
    ) -> Result<Outcome> {
        let clock = Instant::now();
        let schemas = self.schemas()?;
        let sinks = self.sinks(&schemas)?;
        self.require_snapshot_tables(sources)?;
        session.execute("BEGIN")?;
        if noted.is_none() {
            state::lock_notes(&mut session)?;
            state::make_tables(&mut session)?;
            state::begin(&mut session, self.plan, sources)?;
            // Sessions that come meanwhile wait behind this one.
            session.execute("SET LOCAL lock_timeout = '10s'")?;
            make::make(&mut session, self.plan, &sinks).map_err(name_lock)?;
        }
        session.execute("COMMIT")?;
        let was_complete = noted.is_some_and(|noted| noted.finished);
        let dropped = foreign_key::dropped(&mut session, &self.plan.id)?;
        let loaded = self.load_missing(session, noted, &sinks, &dropped, watched);
        let mut sessions = loaded.map_err(|error| keys::name_dropped(error, &dropped))?;
        let session = first(&mut sessions)?;
        let chunks = state::chunks(session, &self.plan.id)?;
        let tables = self.require_complete(sources, &chunks)?;
        let mut outcome = Outcome { tables, was_complete, ..Outcome::default() };
        for one in watched {
            one.require_unchanged()?;
        }
        let mut steps = Steps::begin(self.plan, first(&mut sessions)?)?;
        let mut sessions = steps.indexes(sessions, &sinks)?;
        let session = first(&mut sessions)?;
        steps.identities(session, &sinks)?;
        steps.analyze(session)?;
        steps.foreign_keys(session)?;
        loaded::require_rows(session, &self.plan.id, true)?;
        steps.policies(session)?;
        let mut steps = state::steps(session, &self.plan.id)?;
        outcome.missing_keys = keys::missing(&mut steps);
        outcome.missing_keys.extend(steps::missing_keys(self.plan, &mut steps));
        let steps = steps.into_iter().map(|(name, step)| (name, step.note)).collect();
        outcome.notes = changes::notes_of_steps(self.plan, steps);
        outcome.notes.extend(schemas.iter().flat_map(|(file, schema)| not_planned::notes(self.plan, file, schema)));
        outcome.unexpected = state::unexpected_rejects(session, self.plan)?;
        for one in watched {
            one.require_unchanged()?;
        }
        if was_complete {
            outcome.notes.push("the plan was completed before: no rows were loaded again".to_owned());
        } else {
            state::finish(session, &self.plan.id)?;
        }
        outcome.load_seconds = clock.elapsed().as_secs_f64();
        Ok(outcome)
    }

    /// Loads what is not loaded yet, and returns more sessions. If the run is complete, nothing is loaded any more: rows that
    /// were rejected because others were missing stay rejected.
    fn load_missing(
        &self,
        mut session: Session,
        noted: Option<&PlanState>,
        sinks: &[Sink],
        dropped: &[ForeignKey],
        watched: &[Watched],
    ) -> Result<Vec<Session>> {
        let id = &self.plan.id;
        loaded::require_same_tables(&mut session, id)?;
        if noted.is_some_and(|noted| noted.finished) {
            return self.sessions(session);
        }
        if noted.is_some() {
            loaded::require_rows(&mut session, id, false)?;
        }
        let chunks = state::chunks(&mut session, id)?;
        let enforced = foreign_key::enforced(&mut session, self.plan)?;
        let fills_existing = state::made(&mut session, id)?.iter().any(|one| one.kind == "filled");
        let mut sessions = self.sessions(session)?;
        // Triggers and defaults of existing tables find their functions by the search path that the app has.
        let search_path = if fills_existing { "DEFAULT" } else { "''" };
        for session in &mut sessions {
            session.execute(&format!("SET search_path = {search_path}"))?;
        }
        let stop = AtomicBool::new(false);
        let shared = Shared { plan: self.plan, sinks, enforced: &enforced, stop: &stop, progress: self.progress };
        self.progress.start("loading", self.files.values().map(|path| size_of(path)).sum());
        let loaded = self.load(&shared, dropped, &chunks, sessions, watched);
        self.progress.finish();
        let mut sessions = loaded?;
        for session in &mut sessions {
            session.execute("SET search_path = ''")?;
        }
        Ok(sessions)
    }

    /// Loads all chunks: those of tables that others refer to first, also if the key is dropped, because triggers may look for
    /// the referenced rows. Then rejects the rows that foreign keys of existing tables refuse.
    fn load(
        &self,
        shared: &Shared<'_>,
        dropped: &[ForeignKey],
        chunks: &[Chunk],
        mut sessions: Vec<Session>,
        watched: &[Watched],
    ) -> Result<Vec<Session>> {
        let levels = foreign_key::levels(self.plan, shared.enforced.iter().chain(dropped));
        for level in 0..=levels.iter().max().copied().unwrap_or(0) {
            let is_now = |chunk: &&Chunk| levels.get(chunk.table).copied().unwrap_or(0) == level;
            let now: Vec<Chunk> = chunks.iter().filter(is_now).copied().collect();
            sessions = load_all(shared, &now, sessions, watched)?;
        }
        let session = first(&mut sessions)?;
        let mut loader = Loader::new(shared);
        retry::load_again(session, &mut loader, chunks)?;
        keys::create_again(session, &mut loader, chunks)?;
        Ok(sessions)
    }

    /// Reads the schemas of the files.
    fn schemas(&self) -> Result<BTreeMap<String, SchemaFacts>> {
        self.files.iter().map(|(name, path)| Ok((name.clone(), Reader::open(path)?.schema()?))).collect()
    }

    fn sinks(&self, schemas: &BTreeMap<String, SchemaFacts>) -> Result<Vec<Sink>> {
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

/// Adds the way out to an error because of a lock of another session.
fn name_lock(error: Error) -> Error {
    match sqlstate(&error).as_deref() {
        Some("55P03") => error.hint(
            "another session uses a table that the plan fills: end its transaction (pg_stat_activity has it, perhaps as \
             'idle in transaction'), then run again; nothing was changed",
        ),
        _ => error,
    }
}

fn size_of(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |facts| facts.len())
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
