//! Fills a database from the archive of a PostgreSQL snapshot, and compares what is in it with what was saved.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::context::EngineContext;
use crate::engine::postgres::copy::as_owner::{self, Lent};
use crate::engine::postgres::copy::large_objects;
use crate::engine::postgres::copy::load::{Load, Loaders};
use crate::engine::postgres::copy::reading::Reading;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::{PIECE_BYTES, RowSum};
use crate::engine::postgres::layout;
use crate::engine::postgres::restore::create::{self, Owners};
use crate::engine::postgres::restore::existing;
use crate::engine::postgres::restore::holders::without_login_triggers;
use crate::engine::postgres::restore::post_data::{self, Filled};
use crate::engine::postgres::restore::roles;
use crate::engine::postgres::restore::target::{self, Mark};
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::schema::{Item, Kind, Section, data, newer, sequences};
use crate::engine::postgres::timescale::{AGGREGATE, aggregate_rows_table};
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::{Session, open_up_to};
use crate::engine::postgres::wire::settings;
use crate::engine::restoring::SavedSnapshot;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::progress::Progress;
use crate::platform::text;
use crate::snapshots::manifest::{LargeObjectFacts, Manifest, Table};

/// The maximum wait for locks in a database that no other session uses.
const OWN_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// A database that is built from a snapshot.
pub(super) struct Build<'a> {
    pub(super) snapshot: &'a dyn SavedSnapshot,
    pub(super) items: &'a [Item],
    pub(super) owners: Owners,
    pub(super) params: &'a Params,
    pub(super) context: &'a EngineContext,
    /// True if hypertables and continuous aggregates are restored as ordinary tables.
    pub(super) plain: bool,
}

impl Build<'_> {
    fn session(&self) -> Result<Session> {
        let mut session = Session::connect(self.params)?;
        settings::pin(&mut session)?;
        // No other session uses this database, and it is dropped if it is not finished: a commit need not wait for the
        // disk.
        session.execute("SET synchronous_commit = off; SET lock_timeout = 0")?;
        Ok(session)
    }

    /// Creates and loads everything; see `Plan::build` for the mark and the comment.
    pub(super) fn run(&self, mark: Option<&Mark>) -> Result<Option<String>> {
        let mut first = self.session()?;
        newer::require_known(&mut first)?;
        let items = existing::leave_alone(&mut first, self.items)?;
        Build { items: &items, ..*self }.run_on(first, mark)
    }

    fn run_on(&self, mut first: Session, mark: Option<&Mark>) -> Result<Option<String>> {
        let clock = Instant::now();
        let lent_schemas = self.create_before_rows(&mut first)?;
        let mut sessions = vec![first];
        sessions.extend(open_up_to(self.context.jobs.saturating_sub(1), || self.session())?);
        let tables: Vec<&Table> = self.snapshot.manifest().tables.iter().collect();
        let mut copies: Vec<RowSource> = tables.iter().map(|table| RowSource::like(table)).collect();
        let lent = match self.owners {
            Owners::Keep => {
                create::grant_for_code(&mut sessions[0], self.items)?;
                as_owner::protect(&mut sessions[0], &mut copies)?
            }
            Owners::Leave => as_owner::warn_about_superuser(&mut sessions[0]).map(|()| Lent::default())?,
        };
        let lent = lent.and(lent_schemas);
        let sinks: Vec<(&Table, &RowSource)> = tables.into_iter().zip(&copies).collect();
        let loaders = Loaders::start(sessions)?;
        self.context.progress.start("restoring", self.snapshot.manifest().raw_bytes);
        let mut visitor = Rows::new(&sinks, &*self.context.progress, |work| Ok(loaders.load(work)));
        let walked = self.snapshot.read_all(&mut visitor);
        let stopped = visitor.stopped;
        drop(visitor);
        self.context.progress.finish();
        let loaded = loaders.finish();
        // If a loader has stopped, its error has the reason; the walk only saw that it stopped.
        let mut sessions = match (walked, loaded) {
            (_, Err(error)) if stopped => return Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
            (Ok(()), Ok(sessions)) => sessions,
        };
        tracing::info!("rows loaded in {}", text::seconds(clock.elapsed().as_secs_f64()));
        self.context.progress.start("creating indexes and keys", 0);
        let created = self.create_rest(&mut sessions, &copies, lent, mark);
        self.context.progress.finish();
        created
    }

    /// Creates everything that the rows need. Returns what the owners of objects got for that time.
    fn create_before_rows(&self, session: &mut Session) -> Result<Lent> {
        let mut lent = Lent::default();
        for item in self.items.iter().filter(|item| item.section == Section::Pre) {
            create::create_item(session, item, self.owners)?;
            if item.kind == Kind::Schema && self.owners == Owners::Keep {
                roles::lend_create(session, self.items, &item.name, &mut lent)?;
            }
        }
        Ok(lent)
    }

    fn create_rest(
        &self,
        sessions: &mut [Session],
        filled: &[RowSource],
        lent: Lent,
        mark: Option<&Mark>,
    ) -> Result<Option<String>> {
        let facts = self.snapshot.manifest().postgres.as_ref();
        for value in facts.iter().flat_map(|facts| &facts.sequences) {
            sessions[0].rows(&sequences::statement(value))?;
        }
        if self.plain {
            self.rename_aggregate_tables(&mut sessions[0])?;
        }
        let by_name: HashMap<String, usize> = self
            .items
            .iter()
            .filter(|item| item.kind == Kind::Table)
            .map(|item| (qualified(item.schema.as_deref().unwrap_or_default(), &item.name), item.id))
            .collect();
        let filled = filled.iter().filter_map(|table| Some(Filled { item: *by_name.get(&table.qualified)?, table }));
        post_data::create(sessions, self.items, self.owners, &filled.collect::<Vec<_>>())?;
        lent.take_back(&mut sessions[0])?;
        let last: Vec<Item> =
            self.items.iter().filter(|item| mark.is_some() || !item.kind.is_of_database()).cloned().collect();
        if self.owners == Owners::Keep {
            create::grant(&mut sessions[0], &last)?;
        }
        let session = &mut sessions[0];
        let is_comment = |item: &&Item| item.kind == Kind::DatabaseSetting && item.name == "comment";
        let (comment, rest): (Vec<&Item>, Vec<&Item>) =
            last.iter().filter(|item| item.section == Section::Last).partition(is_comment);
        // Event triggers come last, because they fire for the statements after them. Old archives have another order.
        let (triggers, rest): (Vec<&Item>, Vec<&Item>) =
            rest.into_iter().partition(|item| item.kind == Kind::EventTrigger);
        rest.into_iter().chain(triggers).try_for_each(|item| create::create_item(session, item, self.owners))?;
        let Some(mark) = mark else { return Ok(None) };
        // One transaction, so that the database always has its mark.
        session.execute("BEGIN")?;
        comment.iter().try_for_each(|item| create::create_item(session, item, self.owners))?;
        let comment = target::exchange_comment(session, mark)?;
        session.execute("COMMIT")?;
        Ok(comment)
    }

    /// Renames the tables that hold the rows of continuous aggregates to the names of the aggregates, which are not
    /// created.
    fn rename_aggregate_tables(&self, session: &mut Session) -> Result<()> {
        let tables = self.snapshot.manifest().tables.iter().filter(|table| table.kind == AGGREGATE);
        for relation in tables.filter_map(|table| table.relation.as_ref()) {
            let rows_table = qualified(&relation.schema, &aggregate_rows_table(&relation.table));
            session.execute(&format!("ALTER TABLE {rows_table} RENAME TO {}", ident(&relation.table)))?;
        }
        Ok(())
    }

    /// Compares every table with what was saved.
    pub(super) fn compare(&self, jobs: usize) -> Result<()> {
        compare(self.snapshot.manifest(), &without_login_triggers(self.params, self.items), jobs)
    }
}

/// Compares every table in a database with what was saved.
fn compare(manifest: &Manifest, params: &Params, jobs: usize) -> Result<()> {
    let mut reading = Reading::begin(params, jobs, OWN_LOCK_TIMEOUT)?;
    let live = data::tables(&mut reading.session)?;
    let by_name: HashMap<(&str, &str), &data::TableData> =
        live.iter().map(|table| ((table.schema.as_str(), table.name.as_str()), table)).collect();
    let mut found_tables = Vec::new();
    for table in &manifest.tables {
        let named = |schema: &str, name: &str| by_name.get(&(schema, name)).copied();
        let found = table.relation.as_ref().and_then(|relation| {
            let (schema, name) = (relation.schema.as_str(), relation.table.as_str());
            let kept = (table.kind == AGGREGATE).then(|| named(schema, &aggregate_rows_table(name))).flatten();
            if let Some(kept) = kept {
                tracing::warn!(
                    "the server does not accept the materialized rows of the continuous aggregate {}: they were \
                     restored into the table {}, which can be queried and copied from",
                    one_line(&table.name),
                    one_line(&kept.qualified)
                );
            }
            kept.or_else(|| named(schema, name))
        });
        found_tables.push(
            found.ok_or_else(|| Error::problem(format!("the table {} does not exist", one_line(&table.name))))?.clone(),
        );
    }
    let mut rows: Vec<RowSource> = manifest.tables.iter().map(RowSource::like).collect();
    for (rows, found) in rows.iter_mut().zip(&found_tables) {
        rows.qualified.clone_from(&found.qualified);
    }
    reading.measure(&found_tables, &mut rows)?;
    reading.read(&mut rows, &mut |_| Ok(()))?;
    manifest.tables.iter().zip(&rows).try_for_each(|(table, rows)| require_equal(table, &rows.sum))?;
    let Some(facts) = manifest.postgres.as_ref() else { return Ok(()) };
    if facts.left_out.iter().any(|what| what.starts_with("large object")) {
        if facts.large_objects.count > 0 {
            tracing::warn!("the large objects were not compared: not all of them are in the snapshot");
        }
        return Ok(());
    }
    compare_large_objects(&facts.large_objects, &mut reading.session)
}

fn compare_large_objects(saved: &LargeObjectFacts, session: &mut Session) -> Result<()> {
    let mut found = large_objects::list(session, &mut Vec::new())?;
    large_objects::read(session, &mut found, &mut |_| Ok(()))?;
    if (found.sum.rows, found.sum.digest) == (saved.rows, saved.digest) {
        return Ok(());
    }
    Err(Error::problem("the large objects differ from those that were saved: the digest does not match"))
}

pub(super) fn require_equal(table: &Table, found: &RowSum) -> Result<()> {
    if table.rows == Some(found.rows) && table.digest == Some(found.digest) {
        return Ok(());
    }
    let name = one_line(&table.name);
    Err(match table.rows {
        Some(rows) if rows != found.rows => {
            Error::problem(format!("the table {name} has {} rows, but {rows} were saved", found.rows))
        }
        _ => Error::problem(format!(
            "the rows of the table {name} differ from those that were saved: the digest does not match"
        )),
    })
}

/// Returns the folder of an entry, with a slash at its end.
pub(super) fn folder_of(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(folder, _)| format!("{folder}/"))
}

/// Visits the entries of an archive and passes whole pieces of rows to `load`, which returns true if it accepts more.
pub(super) struct Rows<'a, F> {
    folders: HashMap<String, Arc<RowSource>>,
    progress: &'a dyn Progress,
    load: F,
    piece: Option<Vec<u8>>,
    current: Option<Arc<RowSource>>,
    with_large_objects: bool,
    /// True once `load` accepts no more.
    stopped: bool,
}

impl<'a, F: FnMut(Load) -> Result<bool>> Rows<'a, F> {
    pub(super) fn new(sinks: &[(&Table, &RowSource)], progress: &'a dyn Progress, load: F) -> Self {
        let folder = |table: &Table| {
            table.relation.as_ref().map(|relation| layout::table_folder(&relation.schema, &relation.table))
        };
        let folders = sinks.iter().filter_map(|(table, copy)| Some((folder(table)?, Arc::new((*copy).clone()))));
        let folders = folders.collect();
        Rows { folders, progress, load, piece: None, current: None, with_large_objects: true, stopped: false }
    }

    /// Returns the folders of the entries whose rows are loaded.
    pub(super) fn folders(&self) -> HashSet<String> {
        self.folders.keys().cloned().collect()
    }
}

impl<F: FnMut(Load) -> Result<bool>> EntryVisitor for Rows<'_, F> {
    fn start(&mut self, path: &str, bytes: u64) -> Result<()> {
        self.current = folder_of(path).as_ref().and_then(|folder| self.folders.get(folder).cloned());
        let is_large = self.with_large_objects && path.starts_with(layout::LARGE_OBJECTS);
        let bytes = usize::try_from(bytes).map_err(|_| Error::problem("an entry is larger than memory"))?;
        self.piece = (self.current.is_some() || is_large).then(|| Vec::with_capacity(bytes.min(2 * PIECE_BYTES)));
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(piece) = &mut self.piece {
            piece.extend_from_slice(bytes);
            self.progress.advance(bytes.len() as u64);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(rows) = self.piece.take() else { return Ok(()) };
        let work = match self.current.take() {
            Some(table) => Load::Rows { table, rows },
            None => Load::LargeObjects(rows),
        };
        if (self.load)(work)? {
            return Ok(());
        }
        self.stopped = true;
        Err(Error::failed("the server accepts no more rows"))
    }
}
