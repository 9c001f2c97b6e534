//! Tries the statements of a plan in a transaction that is rolled back, so that a plan which cannot be run is found before
//! rows are loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::convert::Converter;
use super::notation::is_refusal;
use super::plan::{Plan, TablePlan};
use super::{ddl, existing, foreign_key, state, steps};
use crate::engine::postgres::schema::quote::ident;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::sqlite::values::Reader;
use crate::platform::error::{Error, Result, one_line};

/// A reason why a plan cannot be run.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    /// The place of the table in the plan; `None` if it is not about one table.
    pub table: Option<usize>,
    /// The reason, and a way out.
    pub message: String,
}

/// The extent of a rehearsal.
pub(crate) struct Scope<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The paths of its files.
    pub files: &'a BTreeMap<String, PathBuf>,
    /// Returns true for the place of a table that is tried.
    pub is_tried: &'a dyn Fn(usize) -> bool,
    /// Returns true for the place of a table whose first row is tried, because code of the target is run for each row.
    pub has_triggers: &'a dyn Fn(usize) -> bool,
}

/// Returns all reasons why a plan cannot be run. Nothing is changed, except that sequences may have given away a number.
pub(crate) fn obstacles(session: &mut Session, scope: &Scope<'_>) -> Result<Vec<Obstacle>> {
    session.execute("BEGIN")?;
    let found = Rehearsal { session, scope, plan: scope.plan, obstacles: Vec::new() }.run();
    session.execute("ROLLBACK")?;
    found
}

struct Rehearsal<'a> {
    session: &'a mut Session,
    scope: &'a Scope<'a>,
    plan: &'a Plan,
    obstacles: Vec<Obstacle>,
}

impl Rehearsal<'_> {
    fn run(mut self) -> Result<Vec<Obstacle>> {
        self.try_one(None, state::make_tables)?;
        self.try_temporary_table()?;
        self.try_keys()?;
        let mut targets = BTreeSet::new();
        let mut made = BTreeSet::new();
        for (place, table) in self.plan.tables.iter().enumerate() {
            if !(self.scope.is_tried)(place) || !targets.insert((&table.schema, &table.name)) {
                continue;
            }
            let is_there = if table.existing {
                let is_there = self.try_one(Some(place), |session| {
                    existing::require_empty(session, &self.plan.id, table)?;
                    session.execute(&insert_nothing(table))
                })?;
                if is_there && (self.scope.has_triggers)(place) {
                    self.try_first_row(place, table)?;
                }
                is_there
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

    /// Creates a temporary table, as a run does.
    fn try_temporary_table(&mut self) -> Result<()> {
        let tried = self.try_one(None, |session| {
            session.execute("CREATE TEMPORARY TABLE lifeboat_trial (a integer) ON COMMIT DROP").map_err(|error| {
                error
                    .context("cannot create a temporary table, through which rows are loaded")
                    .hint("the role needs TEMPORARY on the database: run GRANT TEMPORARY ON DATABASE ... TO ...")
            })
        });
        tried.map(|_| ())
    }

    /// Drops each foreign key between existing tables that a run drops, and creates it again: an event trigger may refuse
    /// that. The tables are locked for this moment only, and left alone if others use them.
    fn try_keys(&mut self) -> Result<()> {
        const NOT_AVAILABLE: &str = "55P03";
        let mut existing = self.plan.clone();
        existing.tables.retain(|table| table.existing);
        for (key, _) in foreign_key::between(self.session, &existing)?.iter().filter(|(_, may_change)| *may_change) {
            let (relation, name) = (key.relation(), ident(&key.name));
            self.session.execute("SAVEPOINT lifeboat_key; SET LOCAL lock_timeout = '500ms'")?;
            let tried = self.session.execute(&format!(
                "ALTER TABLE {relation} DROP CONSTRAINT {name}; ALTER TABLE {relation} ADD CONSTRAINT {name} {}",
                key.definition
            ));
            self.session.execute("ROLLBACK TO SAVEPOINT lifeboat_key; RELEASE SAVEPOINT lifeboat_key")?;
            let Err(error) = tried else { continue };
            if sqlstate(&error).as_deref() == Some(NOT_AVAILABLE) {
                continue;
            }
            let error = error
                .context(format!("cannot drop the foreign key {} and create it again", one_line(&key.name)))
                .hint("a run does that: if an event trigger refuses it, disable the event trigger for that time");
            let place = self.plan.tables.iter().position(|table| key.is_of(table));
            self.obstacles.push(Obstacle { table: place, message: shown(&error) });
        }
        Ok(())
    }

    /// Loads the first row of a table whose triggers run for each row, and keeps the reason if one of them fails. A row that
    /// is refused for its values is rejected by a run.
    fn try_first_row(&mut self, place: usize, table: &TablePlan) -> Result<()> {
        let Some(line) = first_row(self.plan, table, &self.scope.files[&table.file])? else { return Ok(()) };
        self.session.execute("SAVEPOINT lifeboat_row; SET LOCAL search_path = DEFAULT")?;
        let copy = format!("COPY {} ({}) FROM STDIN", ddl::target(table), ddl::columns(table));
        let mut line = Some(Bytes::from(line));
        let tried = self.session.copy_in(&copy, || Ok(line.take()));
        self.session.execute("ROLLBACK TO SAVEPOINT lifeboat_row; RELEASE SAVEPOINT lifeboat_row")?;
        let message = match tried {
            Ok(0) => "a trigger leaves out its first row: disable it during the run".to_owned(),
            // The values of a file that are NULL are refused before.
            Err(error) if sqlstate(&error).as_deref() == Some("23502") => format!(
                "its first row is refused ({}), and no trigger fills the column: give it a default, or drop NOT NULL",
                error.full_message()
            ),
            // One that raises an exception for the first row probably does so for every row.
            Err(error) if !is_refusal(&error) || sqlstate(&error).as_deref() == Some("P0001") => {
                format!("a trigger refuses its first row ({}): disable it during the run", error.full_message())
            }
            _ => return Ok(()),
        };
        self.obstacles.push(Obstacle { table: Some(place), message });
        Ok(())
    }

    /// Creates a new table with its keys and indexes. Returns true if the table itself is there.
    fn create(&mut self, place: usize, table: &TablePlan) -> Result<bool> {
        let schema = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(&table.schema));
        let is_there = self.try_one(Some(place), |session| {
            if !state::schema_exists(session, &table.schema)? {
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

/// Returns the first row of a table that can be converted, as a line of COPY.
fn first_row(plan: &Plan, table: &TablePlan, path: &Path) -> Result<Option<Vec<u8>>> {
    /// The number of rows that are read for it.
    const MOST: usize = 1000;
    let reader = Reader::open(path)?;
    let Some(facts) = reader.schema()?.tables.into_iter().find(|facts| facts.name == table.source) else {
        return Ok(None);
    };
    let mut columns = Vec::new();
    for column in &table.columns {
        let place = facts.columns.iter().position(|one| one.name == column.source);
        let Some(place) = place else { return Ok(None) };
        columns.push((place, Converter::new(column, plan.zone, ddl::refuses_null(table, column))?));
    }
    let (mut rows, mut line) = (reader.rows(&facts, None)?, Vec::new());
    'rows: for _ in 0..MOST {
        if !rows.step()? {
            break;
        }
        line.clear();
        for (number, (place, converter)) in columns.iter().enumerate() {
            if number > 0 {
                line.push(b'\t');
            }
            if converter.write(rows.cell(*place)?, &mut line).is_err() {
                continue 'rows;
            }
        }
        line.push(b'\n');
        return Ok(Some(line));
    }
    Ok(None)
}

/// Returns an error with its hint, in one text.
fn shown(error: &Error) -> String {
    match &error.hint {
        Some(hint) => format!("{} ({hint})", error.full_message()),
        None => error.full_message(),
    }
}
