//! Fills a database from the archive of a PostgreSQL snapshot, and compares what is in it with what was saved.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::engine::context::EngineContext;
use crate::engine::postgres::copy::as_owner::{self, Lent};
use crate::engine::postgres::copy::large_objects;
use crate::engine::postgres::copy::load::Loaders;
use crate::engine::postgres::copy::reading::Reading;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::restore::again::{self, Failed};
use crate::engine::postgres::restore::archive_rows::Rows;
use crate::engine::postgres::restore::create::{self, Owners};
use crate::engine::postgres::restore::equal::{OtherValues, compare_rows};
use crate::engine::postgres::restore::existing;
use crate::engine::postgres::restore::in_use::without_login_triggers;
use crate::engine::postgres::restore::post_data::{self, Filled};
use crate::engine::postgres::restore::refresh;
use crate::engine::postgres::restore::reload::{self, Pending, Reload};
use crate::engine::postgres::restore::roles;
use crate::engine::postgres::restore::target::{self, Mark};
use crate::engine::postgres::restore::tied;
use crate::engine::postgres::schema::quote::{ident, qualified};
use crate::engine::postgres::schema::{Item, Kind as ItemKind, Section, data, newer, sequences};
use crate::engine::postgres::timescale::{AGGREGATE, aggregate_rows_table};
use crate::engine::postgres::wire::created::Created;
use crate::engine::postgres::wire::params::Params;
use crate::engine::postgres::wire::session::{Session, open_up_to};
use crate::engine::postgres::wire::settings;
use crate::engine::restoring::{LeftOut, SavedSnapshot};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::manifest::{LargeObjectFacts, Manifest, SequenceValue, Table};

/// The hint for objects whose code fails.
const ALLOW_PARTIAL: &str = "restore everything else with --allow-partial, which names what is left out (exit code 3)";

/// The maximum wait for locks in a database that no other session uses.
const OWN_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of building a database.
#[derive(Default)]
pub(super) struct Built {
    /// The comment of the database, in whose place the mark is.
    pub(super) comment: Option<String>,
    /// The objects that were not created, because their code fails.
    pub(super) left_out: Vec<LeftOut>,
    /// The tables whose rows are not those of the snapshot, because their code fails.
    pub(super) unlike: BTreeSet<String>,
    /// The tables whose generated columns have other values than those that were saved, with the difference.
    pub(super) other_values: BTreeMap<String, Error>,
    /// The tables that do not exist, because the server does not allow an extension in this database.
    pub(super) absent: BTreeSet<String>,
    /// The sequences that do not exist for the same reason.
    pub(super) absent_sequences: Vec<SequenceValue>,
    /// Set if nothing more was done, because rows differ from those that were saved.
    pub(super) different: Option<Error>,
}

/// A database that is built from a snapshot.
pub(super) struct Build<'a> {
    pub(super) snapshot: &'a dyn SavedSnapshot,
    pub(super) items: &'a [Item],
    pub(super) owners: Owners,
    pub(super) params: &'a Params,
    pub(super) context: &'a EngineContext,
    /// True if hypertables and continuous aggregates are restored as ordinary tables.
    pub(super) plain: bool,
    /// True if everything else is restored where the code of an object fails.
    pub(super) allow_partial: bool,
    /// The treatment of generated columns that have other values.
    pub(super) other_values: OtherValues,
    /// True if the items lack those that need an extension which the server does not allow in this database.
    pub(super) lacks_extensions: bool,
    /// The list of the objects that are created, if these may have to be dropped one by one.
    pub(super) created: Option<&'a Created>,
}

impl Build<'_> {
    fn session(&self) -> Result<Session> {
        let mut session = Session::connect(self.params)?;
        settings::pin(&mut session)?;
        if let Some(created) = self.created {
            session.record_created(created.clone());
        }
        // No other session uses this database, and it is dropped if it is not finished: a commit need not wait for the
        // disk.
        session.execute("SET synchronous_commit = off; SET lock_timeout = 0")?;
        Ok(session)
    }

    /// Creates and loads everything; see `Plan::build` for the mark and the comment.
    pub(super) fn run(&self, mark: Option<&Mark>) -> Result<Built> {
        let mut first = self.session()?;
        newer::require_known(&mut first)?;
        let items = existing::leave_alone(&mut first, self.items)?;
        existing::warn_about_lacking(&items);
        Build { items: &items, ..*self }.run_on(first, mark)
    }

    fn run_on(&self, mut first: Session, mark: Option<&Mark>) -> Result<Built> {
        let clock = Instant::now();
        let lent_schemas = self.create_before_rows(&mut first)?;
        let mut sessions = vec![first];
        sessions.extend(open_up_to(self.params, self.context.jobs.saturating_sub(1), || self.session())?);
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
        let (absent, absent_sequences) = match &self.snapshot.manifest().postgres {
            Some(facts) if self.lacks_extensions => tied::absent(&mut sessions[0], &copies, &tables, &facts.sequences)?,
            _ => Default::default(),
        };
        let (tables, copies): (Vec<&Table>, Vec<RowSource>) =
            tables.into_iter().zip(copies).filter(|(table, _)| !absent.contains(&table.name)).unzip();
        let all: Vec<(&Table, &RowSource)> = tables.into_iter().zip(&copies).collect();
        let later = reload::in_order_of_keys(&mut sessions[0], &copies)?;
        let is_now = |(place, _): &(usize, &(&Table, &RowSource))| !later.contains(place);
        let sinks: Vec<(&Table, &RowSource)> = all.iter().enumerate().filter(is_now).map(|(_, sink)| *sink).collect();
        let loaders = Loaders::start(sessions)?;
        self.context.progress.start("restoring", self.snapshot.manifest().raw_bytes);
        let mut visitor = Rows::new(&sinks, &*self.context.progress, |work| Ok(loaders.load(work)));
        let walked = self.snapshot.read_all(&mut visitor);
        let stopped = visitor.stopped;
        drop(visitor);
        self.context.progress.finish();
        let loaded = loaders.finish();
        // If a loader has stopped, its error has the reason; the walk only saw that it stopped.
        let (mut sessions, mut failed) = match (walked, loaded) {
            (_, Err(error)) if stopped => return Err(error),
            (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
            (Ok(()), Ok(loaded)) => loaded,
        };
        let mut pending: Vec<Pending> = later.into_iter().map(|table| Pending { table, error: None }).collect();
        pending.extend(
            all.iter()
                .enumerate()
                .filter_map(|(table, (_, rows))| Some(Pending { table, error: Some(failed.remove(&rows.qualified)?) })),
        );
        let built = self.load_later(&mut sessions[0], all, pending)?;
        if built.different.is_some() {
            return Ok(built);
        }
        let built = Built { absent, absent_sequences, ..built };
        tracing::info!("rows loaded in {}", text::seconds(clock.elapsed().as_secs_f64()));
        self.context.progress.start("creating indexes and keys", 0);
        let created = self.create_rest(&mut sessions, &copies, lent, mark, built);
        self.context.progress.finish();
        created
    }

    /// Creates everything that the rows need. Returns what the owners of objects got for that time.
    ///
    /// The server runs functions of generated columns and checks that have no arguments when it creates a table, so items are
    /// tried again, too.
    fn create_before_rows(&self, session: &mut Session) -> Result<Lent> {
        let (mut lent, mut failed) = (Lent::default(), Vec::new());
        for item in self.items.iter().filter(|item| item.section == Section::Pre) {
            failed.extend(again::try_item(session, item, self.owners)?);
            if item.kind == ItemKind::Schema && self.owners == Owners::Keep {
                roles::lend_create(session, self.items, &item.name, &mut lent)?;
            }
        }
        let failed = again::create_again(session, self.items, self.owners, failed, &mut None)?;
        // The others may need the first one.
        failed.into_iter().next().map_or(Ok(lent), |failed| Err(failed.error))
    }

    /// Loads the rows that could not be loaded with the others.
    fn load_later(
        &self,
        session: &mut Session,
        tables: Vec<(&Table, &RowSource)>,
        pending: Vec<Pending>,
    ) -> Result<Built> {
        let (snapshot, progress) = (self.snapshot, &*self.context.progress);
        let reload = Reload { snapshot, items: self.items, owners: self.owners, progress, tables, has_generated: true };
        let mut built = Built::default();
        for failed in reload.run(session, pending)? {
            let name = &reload.tables[failed.table].0.name;
            let error =
                failed.error.unwrap_or_else(|| Error::failed(format!("cannot load rows into {}", one_line(name))));
            if error.kind == Kind::Problem {
                if self.other_values == OtherValues::Refuse {
                    return Ok(Built { different: Some(error), ..Built::default() });
                }
                built.other_values.insert(name.clone(), error);
                continue;
            }
            if !self.allow_partial {
                return Err(error.hint(ALLOW_PARTIAL));
            }
            built.left_out.push(LeftOut {
                kind: "rows".to_owned(),
                name: name.clone(),
                table: name.clone(),
                reason: error.full_message(),
                statements: Vec::new(),
            });
            built.unlike.insert(name.clone());
        }
        Ok(built)
    }

    /// Adds the objects whose code still fails to those that are left out. Fails if nothing may be left out.
    fn leave_out(&self, session: &mut Session, failed: Vec<Failed>, built: &mut Built) -> Result<()> {
        let names: Vec<String> = failed.iter().map(|failed| create::shown(&self.items[failed.item])).collect();
        for failed in failed {
            if !self.allow_partial {
                let error = match names.as_slice() {
                    [_] => failed.error,
                    names => {
                        failed.error.context(format!("{} objects cannot be created: {}", names.len(), names.join(", ")))
                    }
                };
                return Err(error.hint(ALLOW_PARTIAL));
            }
            let item = &self.items[failed.item];
            create::drop_unchecked(session, item)?;
            let table = item.table.map(|table| &self.items[table]);
            let qualified = |item: &Item| qualified(item.schema.as_deref().unwrap_or_default(), &item.name);
            built.left_out.push(LeftOut {
                kind: if item.kind == ItemKind::Refresh {
                    "rows of the materialized view".to_owned()
                } else {
                    item.kind.words()
                },
                name: qualified(item),
                table: table.map_or_else(|| qualified(item), qualified),
                reason: failed.error.full_message(),
                statements: item.create.clone(),
            });
        }
        Ok(())
    }

    fn create_rest(
        &self,
        sessions: &mut [Session],
        filled: &[RowSource],
        lent: Lent,
        mark: Option<&Mark>,
        mut built: Built,
    ) -> Result<Built> {
        let facts = self.snapshot.manifest().postgres.as_ref();
        let is_there = |value: &&SequenceValue| !built.absent_sequences.contains(value);
        for value in facts.iter().flat_map(|facts| &facts.sequences).filter(is_there) {
            sessions[0].rows(&sequences::statement(value))?;
        }
        if self.plain {
            self.rename_aggregate_tables(&mut sessions[0])?;
        }
        let by_name: HashMap<String, usize> = self
            .items
            .iter()
            .filter(|item| item.kind == ItemKind::Table)
            .map(|item| (qualified(item.schema.as_deref().unwrap_or_default(), &item.name), item.id))
            .collect();
        let filled = filled.iter().filter_map(|table| Some(Filled { item: *by_name.get(&table.qualified)?, table }));
        let failed = post_data::create(sessions, self.items, self.owners, &filled.collect::<Vec<_>>())?;
        let mut own = None;
        let mut failed = again::create_again(&mut sessions[0], self.items, self.owners, failed, &mut own)?;
        lent.take_back(&mut sessions[0])?;
        let last: Vec<Item> =
            self.items.iter().filter(|item| mark.is_some() || !item.kind.is_of_database()).cloned().collect();
        if self.owners == Owners::Keep {
            create::grant(&mut sessions[0], &last)?;
        }
        let session = &mut sessions[0];
        let is_comment = |item: &&Item| item.kind == ItemKind::DatabaseSetting && item.name == "comment";
        let (comment, rest): (Vec<&Item>, Vec<&Item>) =
            last.iter().filter(|item| item.section == Section::Last).partition(is_comment);
        // Event triggers come last, because they fire for the statements after them.
        let (refreshes, rest): (Vec<&Item>, Vec<&Item>) =
            rest.into_iter().partition(|item| matches!(item.kind, ItemKind::AggregateRows | ItemKind::Refresh));
        for item in refreshes {
            failed.extend(again::try_item(session, item, self.owners)?);
        }
        let mut failed = again::create_again(session, self.items, self.owners, failed, &mut own)?;
        failed.extend(refresh::refresh_again(session, self.items, self.owners, &mut own)?);
        self.leave_out(session, failed, &mut built)?;
        // Old archives have another order.
        let (triggers, rest): (Vec<&Item>, Vec<&Item>) =
            rest.into_iter().partition(|item| item.kind == ItemKind::EventTrigger);
        rest.into_iter().chain(triggers).try_for_each(|item| create::create_item(session, item, self.owners))?;
        let Some(mark) = mark else { return Ok(built) };
        // One transaction, so that the database always has its mark.
        session.execute("BEGIN")?;
        comment.iter().try_for_each(|item| create::create_item(session, item, self.owners))?;
        built.comment = target::exchange_comment(session, mark)?;
        session.execute("COMMIT")?;
        Ok(built)
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

    /// Compares every table with what was saved, but not those that are absent or are known to be unlike it.
    ///
    /// Adds the tables of which only generated columns differ to those with other values, if that is accepted.
    pub(super) fn compare(&self, jobs: usize, built: &mut Built) -> Result<()> {
        let others = built.unlike.union(&built.absent).cloned().collect();
        let found = compare(self.snapshot.manifest(), &without_login_triggers(self.params, self.items), jobs, &others)?;
        for (table, error) in found {
            if self.other_values == OtherValues::Refuse {
                return Err(error);
            }
            built.other_values.entry(table).or_insert(error);
        }
        Ok(())
    }
}

/// Compares every table in a database with what was saved. Returns the tables of which only generated columns differ.
fn compare(
    manifest: &Manifest,
    params: &Params,
    jobs: usize,
    unlike: &BTreeSet<String>,
) -> Result<Vec<(String, Error)>> {
    let mut reading = Reading::begin(params, jobs, OWN_LOCK_TIMEOUT)?;
    let live = data::tables(&mut reading.session)?;
    let by_name: HashMap<(&str, &str), &data::TableData> =
        live.iter().map(|table| ((table.schema.as_str(), table.name.as_str()), table)).collect();
    let mut found_tables = Vec::new();
    let tables: Vec<&Table> = manifest.tables.iter().filter(|table| !unlike.contains(&table.name)).collect();
    for table in &tables {
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
    let mut rows: Vec<RowSource> = tables.iter().map(|table| RowSource::like(table).with_generated(table)).collect();
    for (rows, found) in rows.iter_mut().zip(&found_tables) {
        rows.qualified.clone_from(&found.qualified);
    }
    reading.measure(&found_tables, &mut rows)?;
    reading.read(&mut rows, &mut |_| Ok(()))?;
    let mut other_values = Vec::new();
    for (table, rows) in tables.iter().zip(&rows) {
        other_values.extend(compare_rows(table, &rows.sum)?.map(|error| (table.name.clone(), error)));
    }
    let Some(facts) = manifest.postgres.as_ref() else { return Ok(other_values) };
    if facts.left_out.iter().any(|what| what.starts_with("large object")) {
        if facts.large_objects.count > 0 {
            tracing::warn!("the large objects were not compared: not all of them are in the snapshot");
        }
        return Ok(other_values);
    }
    compare_large_objects(&facts.large_objects, &mut reading.session).map(|()| other_values)
}

fn compare_large_objects(saved: &LargeObjectFacts, session: &mut Session) -> Result<()> {
    let mut found = large_objects::list(session, &mut Vec::new())?;
    large_objects::read(session, &mut found, &mut |_| Ok(()))?;
    if (found.sum.rows, found.sum.digest) == (saved.rows, saved.digest) {
        return Ok(());
    }
    Err(Error::problem("the large objects differ from those that were saved: the digest does not match"))
}
