//! Restores an SQLite snapshot: to a new file, over a live database, or some of its tables.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::Utc;
use wildmatch::WildMatch;

use crate::archive::Compression;
use crate::engine::source::Source;
use crate::engine::sqlite::image::{self, ImageFile};
use crate::engine::sqlite::survey::{self, OnDamage, TableCheck};
use crate::engine::sqlite::tables::{self, Overwrite};
use crate::engine::sqlite::target::{self, LiveTarget, TargetState};
use crate::ops::fetch::{Fetched, Opened};
use crate::ops::restore::{RestoreOptions, RestoreReport, RestoredTable};
use crate::ops::snapshot::{SqlitePlan, sqlite_origin_of};
use crate::ops::{Context, resolve_target};
use crate::platform::disk::{folder_of, require_space};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::text;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::{Depth, Manifest, SnapshotKind, Table};

/// A plan of a restore, made before anything is changed.
pub(super) struct Plan {
    opened: Opened,
    catalog: Catalog,
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
    pub(super) fn make(options: &RestoreOptions, catalog: Catalog, opened: Opened, context: &Context) -> Result<Self> {
        for (flag, given) in [
            ("--swap", options.swap),
            ("--beside", options.beside.is_some()),
            ("--no-owner", options.no_owner),
            ("--disconnect", options.disconnect),
            ("--from", options.from.is_some()),
            ("--until", options.until.is_some()),
            ("--plain-tables", options.plain_tables),
        ] {
            if given {
                return Err(Error::usage(format!("{flag} does not go with an SQLite snapshot"))
                    .hint("use --to NEW.db for a copy beside, or --replace to overwrite in place"));
            }
        }
        let target =
            match options.to.as_deref().map(|to| context.named_source(to)).transpose()?.map(|chosen| chosen.source) {
                Some(Source::Sqlite(path)) => path,
                Some(Source::Postgres(_)) => {
                    return Err(Error::usage(format!(
                        "{} is of an SQLite database, and cannot be restored into PostgreSQL",
                        opened.manifest.id
                    ))
                    .hint("name a file with --to"));
                }
                None => context.home_path(&opened.manifest)?.ok_or_else(|| {
                    let Manifest { id, origin, .. } = &opened.manifest;
                    Error::usage(format!("{id} came from another machine, {origin}")).hint("say where to with --to")
                })?,
            };
        let target = resolve_target(&target)?;
        let state = target::look(&target)?;
        let shown = one_line(&target.display().to_string());
        let mode = match (&state, options.table.is_empty()) {
            (TargetState::Absent, true) => Mode::Create,
            (TargetState::Absent, false) => {
                return Err(Error::usage(format!(
                    "--table puts tables into an existing database, and {shown} is not there"
                ))
                .hint("restore the whole snapshot, without --table"));
            }
            (TargetState::Damaged(why), false) => {
                return Err(Error::usage(format!(
                    "--table needs a database that can be opened, and {shown} cannot: {why}"
                ))
                .hint("restore the whole snapshot over it, with --replace"));
            }
            (TargetState::Database { .. }, false) => Mode::Tables,
            (_, true) if !options.replace => {
                return Err(Error::usage(format!("{shown} is there already"))
                    .hint("overwrite it with --replace, or restore to another path with --to"));
            }
            (TargetState::Damaged(_), true) => Mode::ReplaceDamaged,
            (TargetState::Database { .. }, true) => Mode::Replace,
        };
        let plan = Plan { opened, catalog, target, state, mode };
        plan.require_fit()?;
        Ok(plan)
    }

    /// Fails if the restore is certain to fail, before anything is read or written.
    fn require_fit(&self) -> Result<()> {
        let manifest = &self.opened.manifest;
        let facts = self.opened.image_facts()?;
        if let TargetState::Database { page_bytes: Some(_), encoding, .. } = &self.state
            && !manifest.tables.is_empty()
            && *encoding != facts.encoding
        {
            return Err(Error::usage(format!(
                "the target's text encoding is {encoding}, the snapshot's {}",
                facts.encoding
            ))
            .hint("restore to a new path, stop the program that uses the old file, and move the new one in place"));
        }
        let needed = match self.mode {
            Mode::Create | Mode::ReplaceDamaged => manifest.raw_bytes,
            Mode::Replace | Mode::Tables => target::replace_bytes(&self.target, manifest.raw_bytes),
        };
        require_space(folder_of(&self.target), needed)
    }

    /// Returns the question to ask the user before data is overwritten, or `None` if nothing is overwritten.
    #[must_use]
    pub(super) fn question(&self) -> Option<String> {
        let target = one_line(&self.target.display().to_string());
        let manifest = &self.opened.manifest;
        let what = match self.mode {
            Mode::Create => return None,
            Mode::Replace | Mode::ReplaceDamaged => "the whole content of",
            Mode::Tables => "tables in",
        };
        let age = text::age(manifest.created_at, Utc::now());
        Some(format!("Replace {what} {target} by {} ({age} old, {} rows)?", manifest.id, manifest.rows))
    }

    /// Carries the plan out.
    pub(super) fn run(self, options: &RestoreOptions, context: &Context) -> Result<RestoreReport> {
        let clock = Instant::now();
        let manifest = &self.opened.manifest;
        let stamp = Utc::now().format("%Y%m%dT%H%M%S%3fZ").to_string();
        let chosen = self.choose_tables(options)?;
        let mut report = RestoreReport::new(
            manifest.id.to_string(),
            self.target.display().to_string(),
            self.mode.name(),
            options.dry_run,
        );
        if options.dry_run {
            report.tables = chosen
                .iter()
                .map(|table| RestoredTable { name: table.name.clone(), rows: table.rows, ok: false })
                .collect();
            return Ok(report);
        }
        let _lease = self.catalog.lease(&self.opened.manifest.id);
        let mut times = Times::default();
        let checks = match self.mode {
            Mode::Create => self.create(&stamp, &mut report, &mut times, context)?,
            Mode::ReplaceDamaged => self.replace_damaged(&stamp, &mut report, &mut times, context)?,
            Mode::Replace | Mode::Tables => self.overwrite(options, &chosen, &mut report, &mut times, context)?,
        };
        report.tables = checks
            .into_iter()
            .map(|check| RestoredTable { name: check.name, rows: check.rows, ok: check.ok && check.compared })
            .collect();
        (report.stream_seconds, report.sync_seconds, report.check_seconds) = (times.stream, times.sync, times.check);
        report.seconds = clock.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Returns the tables that were asked for; every pattern must match at least one. An exact name goes before a
    /// pattern.
    fn choose_tables(&self, options: &RestoreOptions) -> Result<Vec<&Table>> {
        let all = &self.opened.manifest.tables;
        if options.table.is_empty() {
            return Ok(all.iter().collect());
        }
        let mut chosen: Vec<&Table> = Vec::new();
        for pattern in &options.table {
            let exact: Vec<&Table> = all.iter().filter(|table| table.name.eq_ignore_ascii_case(pattern)).collect();
            let wild = WildMatch::new(&pattern.to_lowercase());
            let ordinary = |table: &&Table| table.kind == "table" && !table.name.starts_with("sqlite_");
            let found = if exact.is_empty() {
                all.iter().filter(ordinary).filter(|table| wild.matches(&table.name.to_lowercase())).collect()
            } else {
                exact
            };
            if found.is_empty() {
                return Err(Error::usage(format!(
                    "the snapshot {} has no table {}",
                    self.opened.manifest.id,
                    one_line(pattern)
                ))
                .hint(format!("'lifeboat show {}' lists its tables", self.opened.manifest.id)));
            }
            for table in found {
                if !chosen.iter().any(|other| other.name == table.name) {
                    chosen.push(table);
                }
            }
        }
        Ok(chosen)
    }

    /// Streams the image to `path` and checks it there.
    fn fetch_and_check(
        &self,
        path: PathBuf,
        times: &mut Times,
        context: &Context,
    ) -> Result<(ImageFile, Vec<TableCheck>)> {
        let Fetched { image, stream_seconds, sync_seconds } = self.opened.fetch_image(path, context)?;
        (times.stream, times.sync) = (stream_seconds, sync_seconds);
        let clock = Instant::now();
        let checks = image::check(image.path(), &self.opened.manifest).map_err(|error| {
            error.context(format!("the image of {} did not pass its checks", self.opened.manifest.id))
        })?;
        times.check = clock.elapsed().as_secs_f64();
        Ok((image, checks))
    }

    /// Streams the image to a file beside the target and checks it there.
    fn fetch_beside(&self, stamp: &str, times: &mut Times, context: &Context) -> Result<(ImageFile, Vec<TableCheck>)> {
        image::clear_unfinished(&self.target);
        self.fetch_and_check(image::path_beside(&self.target, stamp), times, context)
    }

    fn create(
        &self,
        stamp: &str,
        report: &mut RestoreReport,
        times: &mut Times,
        context: &Context,
    ) -> Result<Vec<TableCheck>> {
        let (image, checks) = self.fetch_beside(stamp, times, context)?;
        let mode = self.opened.manifest.sqlite.as_ref().map_or(0o600, |facts| facts.file_mode & 0o777);
        target::set_mode(image.path(), mode)?;
        let clock = Instant::now();
        let moved = target::place_new(image.path(), &self.target, stamp)?;
        times.sync += clock.elapsed().as_secs_f64();
        report.moved_aside = moved.iter().map(|path| path.display().to_string()).collect();
        report.undo = Some(target::undo_new(&self.target));
        Ok(checks)
    }

    fn replace_damaged(
        &self,
        stamp: &str,
        report: &mut RestoreReport,
        times: &mut Times,
        context: &Context,
    ) -> Result<Vec<TableCheck>> {
        let (image, checks) = self.fetch_beside(stamp, times, context)?;
        let aside = target::replace_damaged(image.path(), &self.target, stamp)?;
        report.moved_aside = vec![aside.display().to_string()];
        report.undo = Some(target::undo_damaged(&self.target, &aside));
        Ok(checks)
    }

    /// Overwrites a live database: makes and checks the image in scratch, takes a safety snapshot, then changes all at
    /// once.
    fn overwrite(
        &self,
        options: &RestoreOptions,
        chosen: &[&Table],
        report: &mut RestoreReport,
        times: &mut Times,
        context: &Context,
    ) -> Result<Vec<TableCheck>> {
        let manifest = &self.opened.manifest;
        let facts =
            manifest.sqlite.as_ref().ok_or_else(|| Error::problem("the manifest is not of an SQLite snapshot"))?;
        let TargetState::Database { page_bytes, .. } = &self.state else {
            return Err(Error::failed("the target has changed meanwhile"));
        };
        let scratch = context.scratch.folder(manifest.raw_bytes * 2)?;
        let (image, mut checks) = self.fetch_and_check(scratch.path("image.db"), times, context)?;
        let clock = Instant::now();
        image::leave_wal(image.path())?;
        let mut image_path = image.path().to_owned();
        if self.mode == Mode::Replace && page_bytes.is_some_and(|page_bytes| page_bytes != facts.page_bytes) {
            let page_bytes = page_bytes.expect("seen just above");
            tracing::info!(
                "the target has pages of {page_bytes} bytes, the snapshot of {}: converting",
                facts.page_bytes
            );
            let converted = scratch.path("converted.db");
            image::convert_pages(image.path(), page_bytes, &converted)?;
            checks = image::check(&converted, manifest)?;
            image_path = converted;
        }
        times.check += clock.elapsed().as_secs_f64();
        let mut live = LiveTarget::open(&self.target)?;
        let overwrite = if options.replace { Overwrite::Replace } else { Overwrite::Refuse };
        if self.mode == Mode::Tables {
            tables::require_restorable(&live, image.path(), chosen, overwrite)?;
        }
        if !options.no_safety {
            live.keep_writers_out()?;
            let safety = self.save_safety(context)?;
            let undo = ["restore", &safety, "--to", &report.target, "--replace"];
            report.undo = Some(context.command_line(&undo, &self.opened.manifest, &self.catalog.location()));
            report.safety_snapshot = Some(safety);
        }
        let told = |error: Error| match &report.safety_snapshot {
            Some(safety) => {
                error.context(format!("cannot restore {} (the safety snapshot {safety} was taken)", manifest.id))
            }
            None => error,
        };
        let clock = Instant::now();
        if self.mode == Mode::Tables {
            let birth = facts.health.as_ref().map_or(&[][..], |health| &health.orphans);
            return tables::restore_tables(&mut live, image.path(), chosen, birth, overwrite, !options.no_safety)
                .map_err(told);
        }
        live.replace_with(&image_path, !options.no_safety).map_err(told)?;
        times.sync += clock.elapsed().as_secs_f64();
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
                return Err(error.context(format!("{shown} was overwritten, and is not what it should be")).hint(undo));
            }
            Err(error) if error.kind == Kind::Problem => {
                tracing::warn!("other programs have written to {shown} since it was restored");
            }
            Err(error) => {
                tracing::warn!("{shown} was restored, but could not be compared once more: {}", error.whole())
            }
            Ok(()) => {}
        }
        Ok(checks)
    }

    /// Saves the data that is about to be overwritten, into the same store.
    fn save_safety(&self, context: &Context) -> Result<String> {
        let plan = SqlitePlan {
            path: &self.target,
            name: self.opened.manifest.source.clone(),
            origin: sqlite_origin_of(&self.target, &context.host)?,
            kind: SnapshotKind::Safety,
            tags: vec!["safety".to_owned()],
            compression: Compression::default(),
            max_lock: Duration::from_secs(300),
            on_damage: OnDamage::Note,
            check: Depth::Quick,
            allow_empty: true,
            previous: None,
            measure: None,
        };
        let saved = plan.run(&self.opened.safety_destination(&self.catalog, context)?, context).map_err(|error| {
            let error = error.context("cannot save what would be overwritten; nothing was changed");
            if error.hint.is_none() { error.hint("--no-safety goes on without a way back") } else { error }
        })?;
        Ok(saved.manifest.id.to_string())
    }
}
