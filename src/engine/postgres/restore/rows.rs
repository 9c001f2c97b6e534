//! Replaces the rows of existing tables, and loads chosen tables in one transaction.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::again;
use super::archive_rows::{Rows, folder_of};
use super::create::{self, Owners};
use super::equal::{OtherValues, compare_rows, require_equal};
use super::items::names_of;
use super::own_settings::OwnSettings;
use super::plan::Plan;
use super::reload::{Pending, Reload};
use super::replace::Replacement;
use crate::engine::postgres::copy::as_owner;
use crate::engine::postgres::copy::compared;
use crate::engine::postgres::copy::load::{self, Load};
use crate::engine::postgres::copy::retry::may_succeed_later;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::copy::selection::{Pattern, Selection};
use crate::engine::postgres::copy::snapshot::SnapshotOptions;
use crate::engine::postgres::save::{DatabaseSaving, origin_of};
use crate::engine::postgres::schema::{Item, Kind, Section};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::engine::restoring::{RestoreCaller, RestoreReport, RestoredTable, safety_failed};
use crate::platform::error::{Error, Kind as ErrorKind, Result, one_line};
use crate::snapshots::manifest::{SequenceValue, Table};

impl Plan {
    pub(super) fn replace(&self, report: &mut RestoreReport, caller: &dyn RestoreCaller) -> Result<()> {
        self.in_use.warnings_about_replacement().iter().for_each(|message| tracing::warn!("{message}"));
        let all_tables = self.settings.table.is_empty();
        let tables = self.tables();
        let lock_timeout = Duration::from_secs(self.settings.lock_timeout);
        let is_owned = |value: &&SequenceValue| {
            all_tables || value.table.as_ref().is_some_and(|owner| tables.iter().any(|table| table.name == *owner))
        };
        let (sequences, others): (Vec<&SequenceValue>, Vec<&SequenceValue>) =
            self.facts.sequences.iter().partition(is_owned);
        let drawn_from = self.sequences_drawn_from();
        let is_shared = |value: &&&SequenceValue| drawn_from.contains(&(value.schema.as_str(), value.name.as_str()));
        let shared: Vec<&SequenceValue> = others.iter().filter(is_shared).copied().collect();
        let mut replacement = Replacement::begin(&self.params, &tables, &sequences, all_tables, lock_timeout)?;
        if !self.settings.no_safety {
            // No other session can write to the tables any more: what is saved is what is overwritten.
            let safety;
            (safety, replacement) = self.save_safety(replacement, &tables, all_tables, caller)?;
            let target = caller.target_word(&self.params.shown())?;
            let mut undo = vec!["restore", &safety, "--to", &target, "--replace"];
            if !all_tables {
                tables.iter().for_each(|table| undo.extend(["--table", &table.name]));
            }
            report.undo = Some(caller.command_line(&undo));
            report.safety_snapshot = Some(safety);
        }
        let mut work = || -> Result<()> {
            let clock = Instant::now();
            let (from, until) = self.bounds();
            replacement.delete_rows(from, until)?;
            let mut copies: Vec<RowSource> = replacement.tables().to_vec();
            let lent = as_owner::protect_existing(replacement.session(), &mut copies)?;
            let expected = self.load_chosen(replacement.session(), &copies, all_tables)?;
            lent.take_back(replacement.session())?;
            replacement.restore_constraints(&sequences, !all_tables)?;
            let views = replacement.views_to_refresh(all_tables)?;
            self.refresh(replacement.session(), &views)?;
            self.compress_again(replacement.session())?;
            report.stream_seconds = clock.elapsed().as_secs_f64();
            let clock = Instant::now();
            self.compare_chosen(replacement.session(), &copies, &expected, report)?;
            report.check_seconds = clock.elapsed().as_secs_f64();
            replacement.move_forward(&shared)
        };
        let explain = |error: Error| {
            error.context(format!("cannot restore {}; nothing was changed", self.snapshot.manifest().id))
        };
        work().map_err(explain)?;
        replacement.commit().map_err(|error| match (&error.hint, &report.undo) {
            (None, Some(undo)) => error.hint(format!("to restore the previous state, run: {undo}")),
            _ => error,
        })
    }

    /// Returns the schema and name of each chosen table.
    pub(super) fn relations(&self) -> BTreeSet<(&str, &str)> {
        let relations = self.tables().into_iter().filter_map(|table| table.relation.as_ref());
        relations.map(|relation| (relation.schema.as_str(), relation.table.as_str())).collect()
    }

    /// Returns the schema and name of each sequence that the tables' defaults use, whichever table owns it.
    fn sequences_drawn_from(&self) -> BTreeSet<(&str, &str)> {
        let chosen = self.relations();
        let is_chosen = |item: &Item| item.kind == Kind::Table && chosen.contains(&names_of(item));
        let of_theirs = |item: &&Item| is_chosen(item) || item.table.is_some_and(|table| is_chosen(&self.items[table]));
        let needed = self.items.iter().filter(of_theirs).flat_map(|item| &item.needs).map(|need| &self.items[*need]);
        needed.filter(|item| item.kind == Kind::Sequence).map(names_of).collect()
    }

    /// Loads the chosen tables in the session's transaction. Reads only their entries, unless all tables are wanted:
    /// then the whole archive is read, and hashed as a whole. Returns the tables whose code has failed.
    fn load_serially(
        &self,
        session: &mut Session,
        copies: &[RowSource],
        with_code: &BTreeSet<String>,
        all_tables: bool,
    ) -> Result<Vec<Pending>> {
        let tables = self.tables();
        let sinks: Vec<(&Table, &RowSource)> = tables.iter().copied().zip(copies).collect();
        let total = tables.iter().filter_map(|table| table.bytes).sum();
        self.context.progress.start("restoring", total);
        let mut failed: HashMap<String, Error> = HashMap::new();
        let mut visitor = Rows::new(&sinks, &*self.context.progress, |work| {
            let name = match &work {
                Load::Rows { table, .. } if with_code.contains(&table.qualified) => table.qualified.clone(),
                _ => return load::load(session, work).map(|_| true),
            };
            if failed.contains_key(&name) {
                return Ok(true);
            }
            session.execute("SAVEPOINT lifeboat_rows")?;
            match load::load(session, work) {
                Ok(_) => session.execute("RELEASE SAVEPOINT lifeboat_rows")?,
                Err(error) if may_succeed_later(&error) => {
                    session.execute("ROLLBACK TO SAVEPOINT lifeboat_rows")?;
                    failed.insert(name, error);
                }
                Err(error) => return Err(error),
            }
            Ok(true)
        });
        let read = if all_tables {
            self.snapshot.read_all(&mut visitor)
        } else {
            let folders = visitor.folders();
            let is_wanted = |path: &str| folder_of(path).is_some_and(|folder| folders.contains(&folder));
            self.snapshot.read_some(&is_wanted, &mut visitor)
        };
        self.context.progress.finish();
        drop(visitor);
        read?;
        let places = copies.iter().enumerate();
        let pending =
            places.filter_map(|(table, copy)| Some(Pending { table, error: Some(failed.remove(&copy.qualified)?) }));
        Ok(pending.collect())
    }

    /// Returns the start and the end of the time window of the rows that are restored.
    fn bounds(&self) -> (Option<&str>, Option<&str>) {
        let window = self.window.as_ref();
        (window.and_then(|window| window.from.as_deref()), window.and_then(|window| window.until.as_deref()))
    }

    /// Loads the chosen tables in the session's transaction, or only their rows in the window. Returns a sum of each
    /// table's rows in the window; empty without a window.
    ///
    /// The server decides which rows are in the window, since it knows what their text means: all rows are loaded into
    /// temporary tables that the end of the transaction drops, and compared there as a whole. Then the rows of the
    /// window are copied from there.
    pub(super) fn load_chosen(
        &self,
        session: &mut Session,
        copies: &[RowSource],
        all_tables: bool,
    ) -> Result<Vec<RowSum>> {
        if self.window.is_none() {
            let with_code = as_owner::tables_with_code(session)?;
            let pending = self.load_serially(session, copies, &with_code, all_tables)?;
            let (snapshot, progress) = (&*self.snapshot, &*self.context.progress);
            let tables: Vec<(&Table, &RowSource)> = self.tables().into_iter().zip(copies).collect();
            let has_generated = !self.is_beside();
            let reload = Reload { snapshot, items: &self.items, owners: self.owners, progress, tables, has_generated };
            // The comparison finds other values of generated columns again, and names them.
            let is_accepted =
                |error: &Error| error.kind == ErrorKind::Problem && self.other_values() != OtherValues::Refuse;
            let failed = reload.run(session, pending)?.into_iter().filter_map(|pending| pending.error);
            return match failed.into_iter().find(|error| !is_accepted(error)) {
                Some(error) => Err(error),
                None => Ok(Vec::new()),
            };
        }
        let (from, until) = self.bounds();
        let mut staging_tables = Vec::new();
        for (number, copy) in copies.iter().enumerate() {
            let mut staging = copy.clone();
            staging.qualified = format!("pg_temp.lifeboat_window_{number}");
            if let Some(span) = &mut staging.span {
                span.relation.clone_from(&staging.qualified);
            }
            session.execute(&format!(
                "CREATE TEMPORARY TABLE lifeboat_window_{number} ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA",
                copy.columns.join(", "),
                copy.relation()
            ))?;
            staging_tables.push(staging);
        }
        self.load_serially(session, &staging_tables, &BTreeSet::new(), all_tables)?;
        let mut sums = Vec::new();
        for ((table, copy), staging) in self.tables().iter().zip(copies).zip(&staging_tables) {
            require_equal(table, &staging.sum(session)?)?;
            let columns = copy.columns.join(", ");
            session
                .execute(&format!(
                    "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {} {}",
                    copy.qualified,
                    staging.qualified,
                    staging.within(from, until)
                ))
                .map_err(|error| error.context(format!("cannot load rows into {}", one_line(&copy.qualified))))?;
            sums.push(staging.sum_within(session, from, until)?);
        }
        Ok(sums)
    }

    /// Compares the restored rows with what was saved or, with a window, its rows with those that were loaded for it.
    pub(super) fn compare_chosen(
        &self,
        session: &mut Session,
        copies: &[RowSource],
        expected: &[RowSum],
        report: &mut RestoreReport,
    ) -> Result<()> {
        if self.window.is_none() {
            for (table, copy) in self.tables().into_iter().zip(copies) {
                // Beside existing tables, generated columns are ordinary ones without values.
                let copy = if self.is_beside() { copy.clone() } else { copy.clone().with_generated(table) };
                let other_values = compare_rows(table, &compared::sum(session, &copy)?)?;
                let accepted = other_values.map(|error| self.other_values().accept(&table.name, error)).transpose()?;
                let left_out = accepted.flatten();
                let ok = left_out.is_none();
                report.tables.push(RestoredTable { name: table.name.clone(), rows: table.rows, ok });
                report.is_incomplete |= !ok;
                report.left_out.extend(left_out);
            }
            return Ok(());
        }
        let (from, until) = self.bounds();
        for ((table, copy), expected) in self.tables().iter().zip(copies).zip(expected) {
            let found = copy.sum_within(session, from, until)?;
            let of_window = Table { rows: Some(expected.rows), digest: Some(expected.digest), ..(*table).clone() };
            require_equal(&of_window, &found)?;
            report.tables.push(RestoredTable { name: table.name.clone(), rows: Some(found.rows), ok: true });
        }
        Ok(())
    }

    /// Refreshes materialized views, given as their names and owners. A view whose functions fail is tried again after the
    /// others, and then with the settings of the database.
    fn refresh(&self, session: &mut Session, views: &[(String, String)]) -> Result<()> {
        let items: Vec<Item> =
            views.iter().enumerate().map(|(id, (name, owner))| refresh_of(id, name, owner)).collect();
        let mut failed = Vec::new();
        for item in &items {
            failed.extend(again::try_item(session, item, Owners::Keep)?);
        }
        if failed.is_empty() {
            return Ok(());
        }
        let mut own = Some(OwnSettings::read(session, &self.items)?);
        let failed = again::create_again(session, &items, Owners::Keep, failed, &mut own)?;
        failed.into_iter().next().map_or(Ok(()), |failed| {
            let name = one_line(&items[failed.item].name);
            Err(failed.error.context(format!("cannot refresh the materialized view {name}")))
        })
    }

    /// Compresses the chunks of the chosen tables that were compressed. If the server cannot compress them, their rows
    /// are still restored, and a warning is logged.
    fn compress_again(&self, session: &mut Session) -> Result<()> {
        let chosen = self.relations();
        let is_chosen = |item: &&Item| item.kind == Kind::CompressedChunks && chosen.contains(&names_of(item));
        for item in self.items.iter().filter(is_chosen) {
            session.execute("SAVEPOINT compressing")?;
            match create::create_item(session, item, self.owners) {
                Ok(()) => session.execute("RELEASE SAVEPOINT compressing")?,
                Err(error) if sqlstate(&error).is_some() => {
                    session.execute("ROLLBACK TO SAVEPOINT compressing")?;
                    let reason = error.full_message();
                    tracing::warn!("the chunks of {} stay uncompressed: {reason}", one_line(&item.name));
                }
                Err(error) => return Err(error),
            }
        }
        let names: Vec<&str> = self
            .items
            .iter()
            .filter(|item| item.kind == Kind::ContinuousAggregate && !chosen.contains(&names_of(item)))
            .filter(|item| item.needs.iter().any(|need| chosen.contains(&names_of(&self.items[*need]))))
            .map(|item| item.name.as_str())
            .collect();
        if !names.is_empty() {
            tracing::warn!(
                "the continuous aggregates {} show the previous rows until they are refreshed",
                one_line(&names.join(", "))
            );
        }
        Ok(())
    }

    /// Saves the data that is about to be overwritten, into the same store.
    fn save_safety(
        &self,
        replacement: Replacement,
        tables: &[&Table],
        all_tables: bool,
        caller: &dyn RestoreCaller,
    ) -> Result<(String, Replacement)> {
        let selected = tables.iter().map(|table| Pattern::exact(&table.name)).collect();
        let options = SnapshotOptions {
            jobs: 1,
            lock_timeout: Duration::ZERO,
            selection: Selection {
                tables: if all_tables { Vec::new() } else { selected },
                without_large_objects: true,
                ..Selection::default()
            },
            allow_partial: true,
            provider: self.params.provider,
        };
        let origin = origin_of(&self.params, &self.context.host);
        let save = |reading| {
            let mut saving = DatabaseSaving::within(reading, tables, &self.params, options)?;
            let id = caller.save_safety(origin, &mut saving)?;
            Ok((id, saving.into_session()))
        };
        replacement.read(save).map_err(safety_failed)
    }
}

/// Returns the step that refreshes a materialized view.
fn refresh_of(id: usize, name: &str, owner: &str) -> Item {
    Item {
        id,
        oid: 0,
        kind: Kind::Refresh,
        schema: None,
        name: name.to_owned(),
        identity: String::new(),
        section: Section::Last,
        first_form: false,
        create: vec![format!("REFRESH MATERIALIZED VIEW {name}")],
        owner: Some(owner.to_owned()),
        set_owner: Vec::new(),
        comments: Vec::new(),
        grants: Vec::new(),
        roles: Vec::new(),
        needs: Vec::new(),
        table: None,
        provided: false,
        refers_to: None,
        exists: false,
        tablespace: None,
    }
}
