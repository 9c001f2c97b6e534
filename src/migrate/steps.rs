//! The steps after loading: keys, indexes, identity columns, foreign keys and policies. Each is done once.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;

use super::load::Sink;
use super::parallel::{first, run_in_parallel};
use super::plan::{IndexPlan, Plan, TablePlan};
use super::state::{self, Step, Unexpected};
use super::{ddl, existing};
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::{self, Session};
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;

/// Returns the primary key and the unique constraints: name, kind and columns.
pub(super) fn unique_keys(table: &TablePlan) -> Vec<(String, &'static str, Vec<String>)> {
    let primary = Some(table.primary_key.clone()).filter(|key| !key.is_empty());
    let primary = primary.map(|key| (ddl::primary_key_name(&table.name), "PRIMARY KEY", key));
    let uniques = table.uniques.iter().map(|unique| (unique.name.clone(), "UNIQUE", unique.columns.clone()));
    primary.into_iter().chain(uniques).collect()
}

/// Returns the steps that create unique keys and indexes of a table before loading, with their statements.
pub(super) fn early_steps(table: &TablePlan) -> Vec<(String, String)> {
    let keys = unique_keys(table)
        .into_iter()
        .map(|(name, kind, columns)| (key_step(table, &name), ddl::add_key(table, &name, kind, &columns)));
    let indexes = table.indexes.iter().filter(|index| index.unique);
    keys.chain(indexes.map(|index| (index_step(table, index), ddl::create_index(table, index)))).collect()
}

fn key_step(table: &TablePlan, name: &str) -> String {
    format!("key {} {}", ddl::target(table), ident(name))
}

/// Returns the name of the step that creates an index.
pub(super) fn index_step(table: &TablePlan, index: &IndexPlan) -> String {
    format!("index {} {}", ddl::target(table), ident(&index.name))
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

/// Takes the notes about unique keys that could not be created out of the steps: their values are too long for an index.
pub(super) fn missing_keys(plan: &Plan, steps: &mut BTreeMap<String, Step>) -> Vec<Unexpected> {
    let mut found = Vec::new();
    for table in &plan.tables {
        let keys = unique_keys(table).into_iter().map(|(name, ..)| key_step(table, &name));
        let keys = keys.flat_map(|step| [format!("index of {step}"), step]);
        let indexes = table.indexes.iter().filter(|index| index.unique).map(|index| index_step(table, index));
        let notes = keys.chain(indexes).filter_map(|step| steps.get_mut(&step)?.note.take());
        found.extend(notes.map(|message| Unexpected { table: table.shown_target(), message }));
    }
    found
}

/// The steps after loading, each of which is done once.
pub(super) struct Steps<'a> {
    plan: &'a Plan,
    done: BTreeMap<String, Step>,
    /// Tables that existed before. Their keys and indexes are left to their owner.
    filled: BTreeSet<(String, String)>,
}

impl<'a> Steps<'a> {
    pub(super) fn begin(plan: &'a Plan, session: &mut Session) -> Result<Self> {
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
    pub(super) fn indexes(&mut self, sessions: Vec<Session>, sinks: &[Sink]) -> Result<Vec<Session>> {
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
    pub(super) fn identities(&mut self, session: &mut Session, sinks: &[Sink]) -> Result<()> {
        for sink in sinks {
            for column in sink.plan.columns.iter().filter(|column| column.identity || sink.plan.existing) {
                let step = format!("numbers {} {}", sink.plan.shown_source(), column.target_name());
                if self.done.contains_key(&step) {
                    continue;
                }
                let (table, name) = (ddl::target(&sink.plan), column.target_name());
                let Some(sequence) = existing::sequence_of(session, &sink.plan, name)? else { continue };
                let is_rowid = sink.facts.rowid_column().is_some_and(|rowid| rowid.name == column.source);
                let ever = sink.facts.sequence.filter(|_| is_rowid).unwrap_or(0);
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

    pub(super) fn analyze(&mut self, session: &mut Session) -> Result<()> {
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

    pub(super) fn foreign_keys(&mut self, session: &mut Session) -> Result<()> {
        let tables: Vec<TablePlan> = self.targets().into_iter().cloned().collect();
        for table in &tables {
            for key in &table.foreign_keys {
                let step = format!("foreign key {} {}", ddl::target(table), ident(&key.name));
                let (valid, planned) =
                    (ddl::add_foreign_key(table, key, false), ddl::add_foreign_key(table, key, !key.validate));
                // A key that was edited in the plan is created anew.
                let drop = match self.done.get(&step) {
                    Some(done) if done.planned.as_ref().is_none_or(|then| *then == planned) => continue,
                    Some(_) => {
                        format!("ALTER TABLE {} DROP CONSTRAINT IF EXISTS {}; ", ddl::target(table), ident(&key.name))
                    }
                    None => String::new(),
                };
                interrupt::check()?;
                // If existing rows violate the foreign key, it is added as NOT VALID, which checks new rows; a note
                // says so.
                let added = do_noted_step(session, &self.plan.id, &step, (&format!("{drop}{valid}"), &planned), None);
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
                let sql = drop + &ddl::add_foreign_key(table, key, true);
                do_noted_step(session, &self.plan.id, &step, (&sql, &planned), note.as_deref())?;
            }
        }
        Ok(())
    }

    /// Sets up compression and retention. This step comes last, so that no policy acts on an incomplete table.
    pub(super) fn policies(&mut self, session: &mut Session) -> Result<()> {
        let tables: Vec<TablePlan> = self.targets().into_iter().cloned().collect();
        let Some(extension) = existing::timescale(session)? else { return Ok(()) };
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
                let sql = format!(
                    "SELECT {functions}.add_retention_policy({name}, drop_after => {})",
                    ddl::interval(retention)
                );
                if self.is_done(&step, &sql)? {
                    continue;
                }
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
