//! Loads the rows of tables again, or for the first time, once the rows of the others are loaded.
//!
//! The code of a table (generated columns, domains, checks, bounds of partitions) may look into other tables, although the
//! server expects that it does not. While those tables are still being loaded, it fails or, worse, returns other values. So
//! the values of generated columns are compared with those that were saved, and rows that differ are loaded again. Tables
//! that refer to each other by foreign keys before the rows are loaded, as those of extensions do, are loaded in the order
//! of these keys.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::engine::postgres::copy::as_owner;
use crate::engine::postgres::copy::compared;
use crate::engine::postgres::copy::load;
use crate::engine::postgres::copy::retry::may_succeed_later;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::restore::archive_rows::{Rows, folder_of};
use crate::engine::postgres::restore::create::Owners;
use crate::engine::postgres::restore::equal::require_equal_generated;
use crate::engine::postgres::restore::own_settings::{OwnSettings, Settings};
use crate::engine::postgres::schema::Item;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::timescale;
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::restoring::SavedSnapshot;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::progress::Progress;
use crate::snapshots::manifest::Table;

/// A table whose rows are to be loaded.
pub(super) struct Pending {
    /// Its place in the list of tables.
    pub(super) table: usize,
    /// The reason why its rows were not loaded, or have to be loaded again; `None` if nobody has tried yet.
    pub(super) error: Option<Error>,
}

/// The loading of rows after those of other tables.
pub(super) struct Reload<'a> {
    pub(super) snapshot: &'a dyn SavedSnapshot,
    pub(super) items: &'a [Item],
    pub(super) owners: Owners,
    pub(super) progress: &'a dyn Progress,
    /// The tables of the snapshot, with those that their rows are loaded into.
    pub(super) tables: Vec<(&'a Table, &'a RowSource)>,
    /// True if generated columns are generated in the restored tables too.
    pub(super) has_generated: bool,
}

impl Reload<'_> {
    /// Loads the rows of the pending tables, and those of tables whose generated columns differ from the saved ones. Tries
    /// several times, as long as that helps, and then with the settings that the database has for its own sessions. Returns
    /// the tables whose rows are not right.
    pub(super) fn run(&self, session: &mut Session, mut pending: Vec<Pending>) -> Result<Vec<Pending>> {
        let waiting: BTreeSet<usize> = pending.iter().map(|one| one.table).collect();
        pending.extend(self.tables_with_other_values(session, &waiting)?);
        let pending = self.in_rounds(session, pending, None)?;
        if pending.is_empty() {
            return Ok(pending);
        }
        let pending = self.without_keys(session, pending)?;
        if pending.is_empty() {
            return Ok(pending);
        }
        let own = OwnSettings::read(session, self.items)?;
        self.in_rounds(session, pending, Some(&own))
    }

    /// Returns the tables whose generated columns have other values than those that were saved.
    fn tables_with_other_values(&self, session: &mut Session, without: &BTreeSet<usize>) -> Result<Vec<Pending>> {
        let is_covered = |index: &usize| {
            self.has_generated && self.tables[*index].0.with_generated.is_some() && !without.contains(index)
        };
        let covered: Vec<usize> = (0..self.tables.len()).filter(is_covered).collect();
        if covered.is_empty() {
            return Ok(Vec::new());
        }
        let with_code = as_owner::tables_with_code(session)?;
        let mut found = Vec::new();
        for table in covered.into_iter().filter(|index| with_code.contains(&self.tables[*index].1.qualified)) {
            if let Err(error) = self.require_equal_values(session, table)? {
                found.push(Pending { table, error: Some(error) });
            }
        }
        Ok(found)
    }

    fn require_equal_values(&self, session: &mut Session, table: usize) -> Result<Result<()>> {
        let (saved, rows) = self.tables[table];
        if saved.with_generated.is_none() || !self.has_generated {
            return Ok(Ok(()));
        }
        let found = compared::sum(session, &rows.clone().with_generated(saved))?;
        Ok(require_equal_generated(saved, found.with_generated))
    }

    /// Tries all pending tables, again and again while the number of those that fail becomes smaller.
    fn in_rounds(
        &self,
        session: &mut Session,
        mut pending: Vec<Pending>,
        own: Option<&OwnSettings>,
    ) -> Result<Vec<Pending>> {
        loop {
            let before = pending.len();
            let mut rest = Vec::new();
            for one in pending {
                let failed = match own {
                    None => self.attempt(session, &one, None)?,
                    Some(own) => self.attempt_with_own(session, &one, own)?,
                };
                rest.extend(failed.map(|error| Pending { table: one.table, error: Some(error) }));
            }
            if rest.is_empty() || rest.len() == before {
                return Ok(rest);
            }
            pending = rest;
        }
    }

    /// Tries a table with each of the settings that sessions of its owner would have.
    fn attempt_with_own(&self, session: &mut Session, one: &Pending, own: &OwnSettings) -> Result<Option<Error>> {
        let (saved, rows) = self.tables[one.table];
        let user = session.about().user.clone();
        let owner = self.owner_of(saved);
        let runs_as = rows.owned.as_ref().map_or(user.as_str(), |owned| owned.owner.as_str());
        let mut last = Pending { table: one.table, error: one.error.as_ref().map(Error::duplicate) };
        for settings in own.of(owner.unwrap_or(runs_as)) {
            if let Some(other) = settings.obstacle(session, runs_as, owner, self.items, self.owners)? {
                tracing::warn!(
                    "the rows of {} are not loaded with search_path = {}: functions of {} would run with the rights of {}",
                    one_line(&saved.name),
                    one_line(&settings.path()),
                    one_line(&other),
                    one_line(runs_as)
                );
                continue;
            }
            match self.attempt(session, &last, Some(&settings))? {
                None => return Ok(None),
                failed => last.error = failed,
            }
        }
        Ok(Some(last.error.unwrap_or_else(|| never_loaded(saved))))
    }

    /// Returns the role that owned a table.
    fn owner_of(&self, saved: &Table) -> Option<&str> {
        let relation = saved.relation.as_ref()?;
        let is_it = |item: &&Item| {
            item.kind == crate::engine::postgres::schema::Kind::Table
                && item.schema.as_ref() == Some(&relation.schema)
                && item.name == relation.table
        };
        self.items.iter().find(is_it)?.owner.as_deref()
    }

    /// Loads the rows of a table. Returns the reason if its code has failed, or if its generated columns differ.
    ///
    /// A table that has all its rows, with other values in generated columns, keeps them if this attempt fails. Otherwise, it
    /// has no rows then.
    fn attempt(&self, session: &mut Session, one: &Pending, settings: Option<&Settings>) -> Result<Option<Error>> {
        let complete = one.error.as_ref().filter(|error| error.kind == Kind::Problem);
        if one.error.is_some()
            && complete.is_none()
            && let Some(error) = in_step(session, |session| self.delete(session, one))?
        {
            return Ok(Some(error));
        }
        let failed = in_step(session, |session| {
            if complete.is_some() {
                self.delete(session, one)?;
            }
            self.load(session, one, settings)
        })?;
        match (failed, complete) {
            (None, _) => Ok(self.require_equal_values(session, one.table)?.err()),
            (Some(_), Some(complete)) => Ok(Some(complete.duplicate())),
            (failed, None) => Ok(failed),
        }
    }

    /// Deletes the rows that the table has.
    fn delete(&self, session: &mut Session, one: &Pending) -> Result<()> {
        let (_, rows) = self.tables[one.table];
        // Truncating a hypertable would make its aggregates lose all rows whose raw data is gone.
        let is_read = timescale::read(session)?.is_some_and(|found| found.is_read_by_an_aggregate(&rows.relation()));
        let delete = match &rows.condition {
            Some(condition) => format!("DELETE FROM {} {condition}", rows.relation()),
            None if is_read || self.is_referenced(session, rows)? => format!("DELETE FROM {}", rows.relation()),
            None => format!("TRUNCATE TABLE {}", rows.relation()),
        };
        session.execute(&delete)
    }

    /// Loads the rows of the archive.
    fn load(&self, session: &mut Session, one: &Pending, settings: Option<&Settings>) -> Result<()> {
        let (saved, rows) = self.tables[one.table];
        let mut rows = rows.clone();
        if let (Some(owned), Some(settings)) = (&mut rows.owned, settings) {
            owned.path = Some(settings.path());
        }
        let in_session = rows.owned.is_none();
        let sinks = [(saved, &rows)];
        let mut visitor = Rows::new(&sinks, self.progress, |work| {
            let loaded = match settings {
                Some(settings) => settings.run(session, in_session, |session| load::load(session, work)),
                None => load::load(session, work),
            };
            loaded.map(|_| true)
        });
        let folders = visitor.folders();
        let is_wanted = |path: &str| folder_of(path).is_some_and(|folder| folders.contains(&folder));
        self.snapshot.read_some(&is_wanted, &mut visitor)
    }

    /// Returns true if a foreign key refers to a table.
    fn is_referenced(&self, session: &mut Session, rows: &RowSource) -> Result<bool> {
        let name = literal(&rows.qualified);
        let row = session.row(&format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint
                             WHERE contype = 'f' AND confrelid = pg_catalog.to_regclass({name})) AS is"
        ))?;
        row.flag("is")
    }

    /// Loads those tables whose rows refer to each other in a circle: their foreign keys are dropped, and are added again when
    /// all of them are loaded.
    fn without_keys(&self, session: &mut Session, pending: Vec<Pending>) -> Result<Vec<Pending>> {
        const FOREIGN_KEY_VIOLATION: &str = "23503";
        let violates =
            |one: &Pending| one.error.as_ref().and_then(sqlstate).is_some_and(|state| state == FOREIGN_KEY_VIOLATION);
        if session.is_in_transaction() || !pending.iter().any(violates) {
            return Ok(pending);
        }
        let names: Vec<String> = pending.iter().map(|one| literal(&self.tables[one.table].1.qualified)).collect();
        let keys = session.rows(&format!(
            "SELECT k.conrelid::pg_catalog.regclass::text AS relation, k.conname AS name,
                    pg_catalog.pg_get_constraintdef(k.oid) AS definition
               FROM pg_catalog.pg_constraint k
              WHERE k.contype = 'f' AND k.conparentid = 0
                AND k.conrelid IN (SELECT pg_catalog.to_regclass(name) FROM unnest(ARRAY[{}]::text[]) AS name)
              ORDER BY 1, 2",
            names.join(", ")
        ))?;
        session.execute("BEGIN")?;
        let load = || -> Result<Vec<Pending>> {
            for key in &keys {
                let (table, name) = (key.text("relation")?, ident(key.text("name")?));
                session.execute(&format!("ALTER TABLE {table} DROP CONSTRAINT {name}"))?;
            }
            let rest = self.in_rounds(session, pending, None)?;
            for key in &keys {
                let (table, name) = (key.text("relation")?, ident(key.text("name")?));
                session.execute(&format!("ALTER TABLE {table} ADD CONSTRAINT {name} {}", key.text("definition")?))?;
            }
            session.execute("COMMIT").map(|()| rest)
        };
        load().inspect_err(|_| drop(session.execute("ROLLBACK")))
    }
}

/// Runs a step in a transaction of its own or, inside of one, behind a savepoint. Returns the reason if code has failed: then
/// the step has changed nothing.
fn in_step(session: &mut Session, step: impl FnOnce(&mut Session) -> Result<()>) -> Result<Option<Error>> {
    let (begin, end, undo) = if session.is_in_transaction() {
        let undo = "ROLLBACK TO SAVEPOINT lifeboat_reload; RELEASE SAVEPOINT lifeboat_reload";
        ("SAVEPOINT lifeboat_reload", "RELEASE SAVEPOINT lifeboat_reload", undo)
    } else {
        ("BEGIN", "COMMIT", "ROLLBACK")
    };
    session.execute(begin)?;
    // A deferred constraint fails at the end.
    match step(session).and_then(|()| session.execute(end)) {
        Ok(()) => Ok(None),
        Err(error) if may_succeed_later(&error) => {
            if session.is_in_transaction() {
                session.execute(undo)?;
            }
            Ok(Some(error))
        }
        Err(error) => {
            let _ = session.execute(undo);
            Err(error)
        }
    }
}

fn never_loaded(saved: &Table) -> Error {
    Error::failed(format!("the rows of {} cannot be loaded", one_line(&saved.name)))
}

/// Returns the tables that refer to other tables by foreign keys which exist already, as those of extensions do: each after
/// the ones that it refers to, if they do not refer to each other in a circle.
pub(super) fn in_order_of_keys(session: &mut Session, tables: &[RowSource]) -> Result<Vec<usize>> {
    let rows = session.rows(
        "SELECT pg_catalog.quote_ident(a.nspname) || '.' || pg_catalog.quote_ident(f.relname) AS source,
                pg_catalog.quote_ident(b.nspname) || '.' || pg_catalog.quote_ident(t.relname) AS target
           FROM pg_catalog.pg_constraint k
           JOIN pg_catalog.pg_class f ON f.oid = k.conrelid JOIN pg_catalog.pg_namespace a ON a.oid = f.relnamespace
           JOIN pg_catalog.pg_class t ON t.oid = k.confrelid JOIN pg_catalog.pg_namespace b ON b.oid = t.relnamespace
          WHERE k.contype = 'f' ORDER BY 1, 2",
    )?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let places: HashMap<&str, usize> =
        tables.iter().enumerate().map(|(place, table)| (table.qualified.as_str(), place)).collect();
    let mut needs: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for row in &rows {
        if let (Some(source), Some(target)) = (places.get(row.text("source")?), places.get(row.text("target")?)) {
            needs.entry(*source).or_default().insert(*target);
        }
    }
    let mut ordered: Vec<usize> = Vec::new();
    while ordered.len() < needs.len() {
        let is_ready = |table: &&usize| {
            let is_done = |need: &usize| *need == **table || !needs.contains_key(need) || ordered.contains(need);
            !ordered.contains(table) && needs[*table].iter().all(is_done)
        };
        let next = needs.keys().find(is_ready).or_else(|| needs.keys().find(|table| !ordered.contains(table)));
        ordered.extend(next);
    }
    Ok(ordered)
}
