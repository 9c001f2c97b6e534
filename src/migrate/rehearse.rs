//! Tries the statements of a plan in a transaction that is rolled back, so that a plan which cannot be run is found before
//! rows are loaded.

use std::collections::BTreeSet;

use super::existing;
use super::plan::{Plan, TablePlan};
use super::{ddl, state, steps};
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Result, one_line};

/// A reason why a plan cannot be run.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    /// The place of the table in the plan; `None` if it is not about one table.
    pub table: Option<usize>,
    /// The reason, and a way out.
    pub message: String,
}

/// Returns all reasons why a plan cannot be run. Only the tables for whose place `is_tried` is true are tried. Nothing is
/// changed.
pub(crate) fn obstacles(session: &mut Session, plan: &Plan, is_tried: &dyn Fn(usize) -> bool) -> Result<Vec<Obstacle>> {
    session.execute("BEGIN")?;
    let found = Rehearsal { session, plan, obstacles: Vec::new() }.run(is_tried);
    session.execute("ROLLBACK")?;
    found
}

struct Rehearsal<'a> {
    session: &'a mut Session,
    plan: &'a Plan,
    obstacles: Vec<Obstacle>,
}

impl Rehearsal<'_> {
    fn run(mut self, is_tried: &dyn Fn(usize) -> bool) -> Result<Vec<Obstacle>> {
        self.try_one(None, state::make_tables)?;
        let mut targets = BTreeSet::new();
        let mut made = BTreeSet::new();
        for (place, table) in self.plan.tables.iter().enumerate() {
            if !is_tried(place) || !targets.insert((&table.schema, &table.name)) {
                continue;
            }
            let is_there = if table.existing {
                self.try_one(Some(place), |session| {
                    existing::require_empty(session, &self.plan.id, table)?;
                    session.execute(&insert_nothing(table))
                })?
            } else {
                self.create(place, table)?
            };
            if is_there {
                made.insert((&table.schema, &table.name));
            }
        }
        for (place, table) in self.plan.tables.iter().enumerate() {
            for key in table.foreign_keys.iter().filter(|_| made.contains(&(&table.schema, &table.name))) {
                let schema = key.schema.as_ref().unwrap_or(&table.schema);
                // A missing table has its own message.
                if made.contains(&(schema, &key.references)) {
                    let sql = ddl::add_foreign_key(table, key, false);
                    self.try_one(Some(place), |session| session.execute(&sql))?;
                }
            }
        }
        Ok(self.obstacles)
    }

    /// Creates a new table with its keys and indexes. Returns true if the table itself is there.
    fn create(&mut self, place: usize, table: &TablePlan) -> Result<bool> {
        let schema = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(&table.schema));
        let is_there = self.try_one(Some(place), |session| {
            let there =
                format!("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL AS there", literal(&ident(&table.schema)));
            if !session.row(&there)?.flag("there")? {
                session.execute(&schema)?;
            }
            session.execute(&ddl::create_table(table))
        })?;
        if !is_there {
            return Ok(false);
        }
        for column in &table.columns {
            let Some(default) = &column.default else { continue };
            self.try_one(Some(place), |session| {
                let tried = session.rows(&format!("SELECT CAST(({default}) AS {})", column.target_type));
                let name = one_line(column.target_name());
                tried.map(|_| ()).map_err(|error| {
                    error
                        .context(format!("the default of its column {name} cannot be computed: {}", one_line(default)))
                        .hint("change it in the plan, or remove it there")
                })
            })?;
        }
        if let Some(hypertable) = &table.hypertable {
            self.try_one(Some(place), |session| {
                let functions = existing::timescale(session)?.unwrap_or_else(|| "public".to_owned());
                session.rows(&ddl::create_hypertable(table, hypertable, &functions)).map(|_| ())
            })?;
        }
        let keys = steps::unique_keys(table)
            .into_iter()
            .map(|(name, kind, columns)| ddl::add_key(table, &name, kind, &columns));
        let indexes = table.indexes.iter().map(|index| ddl::create_index(table, index));
        for sql in keys.chain(indexes).collect::<Vec<_>>() {
            self.try_one(Some(place), |session| session.execute(&sql))?;
        }
        Ok(true)
    }

    /// Tries statements. If they fail, they are undone, and the reason is kept. Returns true if they did not fail.
    fn try_one(&mut self, table: Option<usize>, work: impl FnOnce(&mut Session) -> Result<()>) -> Result<bool> {
        self.session.execute("SAVEPOINT lifeboat_rehearsal")?;
        let Err(error) = work(self.session) else {
            self.session.execute("RELEASE SAVEPOINT lifeboat_rehearsal")?;
            return Ok(true);
        };
        // Without a connection, this fails too.
        self.session.execute("ROLLBACK TO SAVEPOINT lifeboat_rehearsal; RELEASE SAVEPOINT lifeboat_rehearsal")?;
        self.obstacles.push(Obstacle { table, message: shown(&error) });
        Ok(false)
    }
}

/// Returns a statement that needs the privileges of one that loads rows, and loads none.
fn insert_nothing(table: &TablePlan) -> String {
    let nulls: Vec<String> = table.columns.iter().map(|column| format!("NULL::{}", column.target_type)).collect();
    format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} LIMIT 0",
        ddl::target(table),
        ddl::columns(table),
        nulls.join(", ")
    )
}

/// Returns an error with its hint, in one text.
fn shown(error: &Error) -> String {
    match &error.hint {
        Some(hint) => format!("{} ({hint})", error.full_message()),
        None => error.full_message(),
    }
}
