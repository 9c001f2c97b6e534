//! Restores an SQLite snapshot: to a new file, over a live database, or some of its tables.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use rusqlite::Connection;
use wildmatch::WildMatch;

use super::fetch::{Fetched, fetch_image, image_facts};
use super::image::{self, ImageFile};
use super::ownership::{self, Former, Given};
use super::reading::Reading;
use super::save::{FileSaving, OnUnreadable, origin_of};
use super::survey::{self, TableCheck};
use super::tables::{self, Overwrite, TablesRestore};
use super::target::{self, LiveTarget, Replaced, TargetState};
use crate::engine::context::EngineContext;
use crate::engine::restoring::{
    RestoreCaller, RestorePlan, RestoreReport, RestoreSettings, RestoredTable, SavedSnapshot, safety_failed,
};
use crate::engine::saving::SaveRequest;
use crate::platform::disk::{folder_of, require_space, resolve_target, shown};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::manifest::{Depth, Table};

/// A plan of a restore, made before anything is changed.
pub(super) struct Plan {
    snapshot: Arc<dyn SavedSnapshot>,
    settings: RestoreSettings,
    context: EngineContext,
    target: PathBuf,
    state: TargetState,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Create,
    Replace,
    ReplaceDamaged,
    Tables,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Create => "create",
            Mode::Replace => "replace",
            Mode::ReplaceDamaged => "replace-damaged",
            Mode::Tables => "tables",
        }
    }
}

#[derive(Default)]
struct Times {
    stream: f64,
    sync: f64,
    check: f64,
}

impl Plan {
    /// Inspects the target and chooses what to do; changes nothing.
    pub(super) fn make(
        target: &Path,
        snapshot: Arc<dyn SavedSnapshot>,
        settings: &RestoreSettings,
        context: &EngineContext,
    ) -> Result<Self> {
        for (flag, given) in [
            ("--swap", settings.swap),
            ("--beside", settings.beside.is_some()),
            ("--no-owner", settings.no_owner),
            ("--create-roles", settings.create_roles),
            ("--no-tablespaces", settings.no_tablespaces),
            ("--disconnect", settings.disconnect),
            ("--from", settings.from.is_some()),
            ("--until", settings.until.is_some()),
            ("--plain-tables", settings.plain_tables),
            (settings.without.option().unwrap_or_default(), settings.without.option().is_some()),
        ] {
            if given {
                return Err(Error::usage(format!("{flag} is not supported for an SQLite snapshot"))
                    .hint("use --to NEW.db to restore to a new file, or --replace to overwrite the database"));
            }
        }
        let target = resolve_target(target)?;
        let state = target::inspect(&target, &context.scratch)?;
        let shown = shown(&target);
        let mode = match (&state, settings.table.is_empty()) {
            (TargetState::Absent, true) => Mode::Create,
            (TargetState::Absent, false) => {
                return Err(Error::usage(format!(
                    "--table restores tables into an existing database, but {shown} does not exist"
                ))
                .hint("restore the whole snapshot, without --table"));
            }
            (TargetState::Damaged(reason), false) => {
                return Err(Error::usage(format!(
                    "--table needs a database that can be opened, but {shown} cannot be opened: {reason}"
                ))
                .hint("restore the whole snapshot over it, with --replace"));
            }
            (TargetState::Database { .. }, false) => Mode::Tables,
            (_, true) if !settings.replace => {
                return Err(Error::usage(format!("{shown} already exists"))
                    .hint("overwrite it with --replace, or restore to another path with --to"));
            }
            (TargetState::Damaged(_), true) => Mode::ReplaceDamaged,
            (TargetState::Database { .. }, true) => Mode::Replace,
        };
        let plan = Plan { snapshot, settings: settings.clone(), context: context.clone(), target, state, mode };
        plan.require_fit()?;
        Ok(plan)
    }

    /// Fails if the restore is certain to fail, before anything is read or written.
    fn require_fit(&self) -> Result<()> {
        let manifest = self.snapshot.manifest();
        let facts = image_facts(manifest)?;
        if let TargetState::Database { page_bytes: Some(_), encoding, .. } = &self.state
            && !manifest.tables.is_empty()
            && *encoding != facts.encoding
        {
            return Err(Error::usage(format!(
                "the target's text encoding is {encoding}, but the snapshot's is {}",
                facts.encoding
            ))
            .hint(
                "restore to a new path, stop the program that uses the old file, and move the new file to its path",
            ));
        }
        let needed = match self.mode {
            Mode::Create | Mode::ReplaceDamaged => manifest.raw_bytes,
            Mode::Replace | Mode::Tables => target::replace_bytes(&self.target, manifest.raw_bytes),
        };
        require_space(folder_of(&self.target), needed)
    }

    /// Returns the tables that were asked for; every pattern must match at least one. An exact name goes before a
    /// pattern.
    fn choose_tables(&self) -> Result<Vec<&Table>> {
        let all = &self.snapshot.manifest().tables;
        if self.settings.table.is_empty() {
            return Ok(all.iter().collect());
        }
        let mut chosen: Vec<&Table> = Vec::new();
        for pattern in &self.settings.table {
            let exact: Vec<&Table> = all.iter().filter(|table| table.name.eq_ignore_ascii_case(pattern)).collect();
            let wild = WildMatch::new(&pattern.to_lowercase());
            let ordinary = |table: &&Table| table.kind == "table" && !table.name.starts_with("sqlite_");
            let found = if exact.is_empty() {
                all.iter().filter(ordinary).filter(|table| wild.matches(&table.name.to_lowercase())).collect()
            } else {
                exact
            };
            if found.is_empty() {
                let manifest = self.snapshot.manifest();
                let views = manifest.sqlite.as_ref().map_or(&[][..], |facts| &facts.views);
                let snapshot = format!("the snapshot {}", manifest.id);
                let show = format!("lifeboat show {}", manifest.id);
                return Err(survey::no_such_table(&snapshot, pattern, views, &show));
            }
            for table in found {
                if !chosen.iter().any(|other| other.name == table.name) {
                    chosen.push(table);
                }
            }
        }
        Ok(chosen)
    }

    /// Fails if one of the tables cannot be restored alone, or not in the place of what has its name in the target.
    fn require_tables(&self, chosen: &[&Table]) -> Result<()> {
        let id = self.snapshot.manifest().id.to_string();
        chosen.iter().try_for_each(|table| tables::require_ordinary(table, &id))?;
        let overwrite = self.overwrite_tables_with();
        let reading = Reading::begin(&self.target, &self.context.scratch)?;
        let connection = reading.open()?;
        chosen.iter().try_for_each(|table| tables::require_place(&connection, table, overwrite).map(drop))
    }

    fn overwrite_tables_with(&self) -> Overwrite {
        if self.settings.replace { Overwrite::Replace } else { Overwrite::Refuse }
    }

    /// Streams the image to `path` and checks it there.
    fn fetch_and_check(&self, path: PathBuf, times: &mut Times) -> Result<(ImageFile, Vec<TableCheck>)> {
        let Fetched { image, stream_seconds, sync_seconds } =
            fetch_image(&*self.snapshot, path, &*self.context.progress)?;
        (times.stream, times.sync) = (stream_seconds, sync_seconds);
        let clock = Instant::now();
        let checks = image::check(image.path(), self.snapshot.manifest()).map_err(|error| {
            error.context(format!("the image of {} did not pass its checks", self.snapshot.manifest().id))
        })?;
        times.check = clock.elapsed().as_secs_f64();
        Ok((image, checks))
    }

    /// Streams the image to a file beside the target and checks it there.
    fn fetch_beside(&self, stamp: &str, times: &mut Times) -> Result<(ImageFile, Vec<TableCheck>)> {
        image::clear_unfinished(&self.target);
        self.fetch_and_check(image::path_beside(&self.target, stamp), times)
    }

    fn create(&self, stamp: &str, report: &mut RestoreReport, times: &mut Times) -> Result<Vec<TableCheck>> {
        let (image, checks) = self.fetch_beside(stamp, times)?;
        let notes = ownership::give_to_new(&image, self.snapshot.manifest(), &self.target, &self.context.host)?;
        let clock = Instant::now();
        let moved = target::place_new(image.path(), &self.target, stamp)?;
        self.require_in_place(&image)?;
        report.notes.extend(notes);
        times.sync += clock.elapsed().as_secs_f64();
        report.moved_aside = moved.iter().map(|moved| moved.to.display().to_string()).collect();
        report.undo = Some(target::undo_new(&self.target, &moved));
        Ok(checks)
    }

    /// Fails if the restored file is not the one that was checked: the owner of its folder can exchange files in it.
    fn require_in_place(&self, image: &ImageFile) -> Result<()> {
        if image.is_at(&self.target) {
            return Ok(());
        }
        Err(Error::failed(format!("{} was exchanged by another program while it was restored", shown(&self.target)))
            .hint("find out which program writes to its folder, then restore again"))
    }

    fn replace_damaged(&self, stamp: &str, report: &mut RestoreReport, times: &mut Times) -> Result<Vec<TableCheck>> {
        let (image, checks) = self.fetch_beside(stamp, times)?;
        let notes = ownership::give_as_before(&image, self.snapshot.manifest(), &self.target, &self.context.host)?;
        let (aside, replaced) = target::replace_damaged(image.path(), &self.target, stamp)?;
        if replaced == Replaced::Renamed {
            self.require_in_place(&image)?;
            report.notes.extend(notes);
        }
        report.moved_aside = vec![aside.display().to_string()];
        report.undo = Some(target::undo_damaged(&self.target, &aside, replaced));
        Ok(checks)
    }

    /// Overwrites a live database: makes and checks the image in scratch, takes a safety snapshot, then changes all at
    /// once.
    fn overwrite(
        &self,
        chosen: &[&Table],
        report: &mut RestoreReport,
        times: &mut Times,
        caller: &dyn RestoreCaller,
    ) -> Result<Vec<TableCheck>> {
        let manifest = self.snapshot.manifest();
        let facts = manifest
            .sqlite
            .as_ref()
            .ok_or_else(|| Error::problem("the manifest does not describe an SQLite snapshot"))?;
        let TargetState::Database { page_bytes, .. } = &self.state else {
            return Err(Error::failed("the target was changed by another program meanwhile"));
        };
        let scratch = self.context.scratch.folder(manifest.raw_bytes * 2)?;
        let (image, mut checks) = self.fetch_and_check(scratch.path("image.db"), times)?;
        let clock = Instant::now();
        image::leave_wal(image.path())?;
        let mut image_path = image.path().to_owned();
        if self.mode == Mode::Replace && page_bytes.is_some_and(|page_bytes| page_bytes != facts.page_bytes) {
            let page_bytes = page_bytes.expect("checked in the condition above");
            tracing::info!(
                "the target has pages of {page_bytes} bytes, the snapshot has pages of {} bytes: converting",
                facts.page_bytes
            );
            let converted = scratch.path("converted.db");
            image::convert_pages(image.path(), page_bytes, &converted)?;
            checks = image::check(&converted, manifest)?;
            image_path = converted;
        }
        times.check += clock.elapsed().as_secs_f64();
        let mut live = LiveTarget::open(&self.target)?;
        if self.mode == Mode::Tables {
            return self.overwrite_tables(&mut live, image.path(), chosen, report, caller);
        }
        if !self.settings.no_safety {
            live.keep_writers_out()?;
            self.save_what_is_overwritten(report, caller)?;
        }
        let explain = |error| self.explain(error, report);
        let clock = Instant::now();
        let given = self.replace_live(&mut live, &image_path, page_bytes.is_none()).map_err(explain)?;
        times.sync += clock.elapsed().as_secs_f64();
        report.notes.extend(given.notes);
        if let Some(undo) = &mut report.undo {
            given.undo.iter().for_each(|command| undo.push_str(&format!(" && {command}")));
        }
        let clock = Instant::now();
        // The image was compared and checked before. A difference that is found now should come from other programs
        // that already write.
        let shown = one_line(&report.target);
        let compared = survey::survey_in_pieces(&self.target)
            .and_then(|survey| survey::require_all(&survey::compare(&manifest.tables, &survey.tables)));
        times.check += clock.elapsed().as_secs_f64();
        match compared {
            Err(error) if error.kind == Kind::Problem && !live.was_written_to() => {
                let undo = report.undo.as_deref().unwrap_or("restore another snapshot");
                return Err(error.context(format!("{shown} was overwritten, but its content is wrong")).hint(undo));
            }
            Err(error) if error.kind == Kind::Problem => {
                tracing::warn!("other programs have written to {shown} since it was restored");
            }
            Err(error) => {
                tracing::warn!("{shown} was restored, but could not be compared again: {}", error.full_message())
            }
            Ok(()) => {}
        }
        Ok(checks)
    }

    /// Replaces the content of a live database, and gives the file an owner that can write to it.
    fn replace_live(&self, live: &mut LiveTarget, image: &Path, is_empty: bool) -> Result<Given> {
        let (manifest, host) = (self.snapshot.manifest(), &self.context.host);
        let give =
            |connection: &Connection, former| ownership::give_to_live(connection, former, manifest, &self.target, host);
        let mut given = Given::default();
        // An empty file has its owner before the first byte. The old pages of a database are gone from a file before it
        // is given to another user.
        let mut prepare = |connection: &Connection| {
            if is_empty {
                given = give(connection, Former::Nothing);
            }
        };
        live.replace_with(image, !self.settings.no_safety, &mut prepare)?;
        if !is_empty {
            given = give(&live.connection, Former::Database);
        }
        Ok(given)
    }

    /// Restores tables in a live database. What would make that fail is found by a rehearsal, before the safety snapshot.
    fn overwrite_tables(
        &self,
        live: &mut LiveTarget,
        image: &Path,
        chosen: &[&Table],
        report: &mut RestoreReport,
        caller: &dyn RestoreCaller,
    ) -> Result<Vec<TableCheck>> {
        let health = self.snapshot.manifest().sqlite.as_ref().and_then(|facts| facts.health.as_ref());
        let orphans = health.map_or(&[][..], |health| &health.orphans);
        let tables = TablesRestore::plan(live, image, chosen, orphans, self.overwrite_tables_with())?;
        if !self.settings.no_safety {
            tables.rehearse(live)?;
            live.keep_writers_out()?;
            self.save_what_is_overwritten(report, caller)?;
        }
        let restored = tables.run(live, !self.settings.no_safety).map_err(|error| self.explain(error, report))?;
        report.notes.extend(restored.notes);
        (report.rebuilt, report.left_out) = (restored.rebuilt, restored.left_out);
        report.skipped_triggers = restored.skipped_triggers;
        Ok(restored.checks)
    }

    /// Takes the safety snapshot, and reports it and the command that restores it.
    fn save_what_is_overwritten(&self, report: &mut RestoreReport, caller: &dyn RestoreCaller) -> Result<()> {
        let safety = self.save_safety(caller)?;
        let undo = ["restore", &safety, "--to", &report.target, "--replace"];
        report.undo = Some(caller.command_line(&undo));
        report.safety_snapshot = Some(safety);
        Ok(())
    }

    /// Adds to an error that the safety snapshot was taken.
    fn explain(&self, error: Error, report: &RestoreReport) -> Error {
        let id = &self.snapshot.manifest().id;
        match &report.safety_snapshot {
            Some(safety) => error.context(format!("cannot restore {id} (the safety snapshot {safety} was taken)")),
            None => error,
        }
    }

    /// Saves the data that is about to be overwritten. The database is open already, so it is read only through SQLite.
    fn save_safety(&self, caller: &dyn RestoreCaller) -> Result<String> {
        let request = SaveRequest {
            allow_damaged: true,
            allow_empty: true,
            max_lock: Duration::from_secs(300),
            check: Depth::Quick,
            ..SaveRequest::default()
        };
        let save = || {
            let origin = origin_of(&self.target, &self.context.host)?;
            let mut saving = FileSaving::begin(&self.target, &request, OnUnreadable::Fail, &self.context)?;
            caller.save_safety(origin, &mut saving)
        };
        save().map_err(safety_failed)
    }
}

impl Plan {
    /// Returns the report of a restore that has not begun.
    fn report(&self, dry_run: bool) -> RestoreReport {
        let id = self.snapshot.manifest().id.to_string();
        RestoreReport::new(id, self.target.display().to_string(), self.mode.name(), dry_run)
    }
}

impl RestorePlan for Plan {
    fn question(&self) -> Option<String> {
        let target = one_line(&self.target.display().to_string());
        let manifest = self.snapshot.manifest();
        let what = match self.mode {
            Mode::Create => return None,
            Mode::Replace | Mode::ReplaceDamaged => "the whole content of",
            Mode::Tables => "tables in",
        };
        let age = text::age_with("old", manifest.created_at, Utc::now());
        Some(format!("Replace {what} {target} with {} ({age}, {} rows)?", manifest.id, manifest.rows))
    }

    fn preview(&self) -> Result<RestoreReport> {
        let chosen = self.choose_tables()?;
        if self.mode == Mode::Tables {
            self.require_tables(&chosen)?;
        }
        let restored = |table: &&Table| RestoredTable { name: table.name.clone(), rows: table.rows, ok: false };
        let tables = chosen.iter().map(restored).collect();
        Ok(RestoreReport { tables, ..self.report(true) })
    }

    fn run(&self, caller: &dyn RestoreCaller) -> Result<RestoreReport> {
        if self.settings.dry_run {
            return self.preview();
        }
        let clock = Instant::now();
        let stamp = Utc::now().format("%Y%m%dT%H%M%S%3fZ").to_string();
        let chosen = self.choose_tables()?;
        if self.mode == Mode::Tables {
            self.require_tables(&chosen)?;
        }
        let mut report = self.report(false);
        let mut times = Times::default();
        let checks = match self.mode {
            Mode::Create => self.create(&stamp, &mut report, &mut times)?,
            Mode::ReplaceDamaged => self.replace_damaged(&stamp, &mut report, &mut times)?,
            Mode::Replace | Mode::Tables => self.overwrite(&chosen, &mut report, &mut times, caller)?,
        };
        report.tables = checks
            .into_iter()
            .map(|check| RestoredTable { name: check.name, rows: check.rows, ok: check.ok && check.compared })
            .collect();
        (report.stream_seconds, report.sync_seconds, report.check_seconds) = (times.stream, times.sync, times.check);
        report.seconds = clock.elapsed().as_secs_f64();
        Ok(report)
    }
}
