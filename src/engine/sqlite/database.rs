//! SQLite as an engine: a database is a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::dump::{DumpFormat, dump_table};
use super::fetch::fetch_image;
use super::files::Fingerprint;
use super::header::Content;
use super::restore::Plan;
use super::save::{self, FileSaving, OnUnreadable, origin_of};
use super::survey::{self, OnDamage};
use super::{compare_rows, image, live, ownership, source};
use crate::engine::context::EngineContext;
use crate::engine::database::{
    ChangeMark, Contents, Database, DrillSettings, Drilled, Engine, RowChanges, Source, TableFormat, TablePair,
};
use crate::engine::live::Live;
use crate::engine::restoring::{RestorePlan, RestoreSettings, SavedSnapshot};
use crate::engine::saving::{SaveRequest, Saving};
use crate::platform::attributes;
use crate::platform::disk::real_path;
use crate::platform::error::{Error, Kind, Reason, Result};
use crate::platform::place;
use crate::platform::scratch::Scratch;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, Origin, SnapshotKind};

/// The name of the engine in manifests.
const NAME: &str = "sqlite";

/// The longest step in which a file system counts time: two seconds in FAT.
const LONGEST_STEP: Duration = Duration::from_secs(3);

/// A database file.
#[derive(Clone, Debug)]
pub(crate) struct SqliteFile(pub(crate) PathBuf);

impl Database for SqliteFile {
    fn engine(&self) -> &'static str {
        NAME
    }

    fn shown(&self) -> String {
        self.0.display().to_string()
    }

    fn derived_name(&self) -> Option<SourceName> {
        self.0.file_name().and_then(|name| SourceName::derive(&name.to_string_lossy()))
    }

    fn origin(&self, host: &str) -> Result<Origin> {
        origin_of(&real_path(&self.0), host)
    }

    fn file(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn is_same(&self, other: &dyn Database) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        other.file().is_some_and(|other| real(&self.0) == real(other))
    }

    fn is_absent(&self) -> bool {
        std::fs::metadata(&self.0).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    }

    fn is_absent_or_damaged(&self, error: &Error) -> bool {
        let is_damaged = error.kind == Kind::Problem || error.reason == Some(Reason::NotADatabase);
        self.is_absent() || (is_damaged && !Content::is_of_newer_format(&self.0)) || self.0.is_dir()
    }

    fn is_of_another_kind(&self) -> bool {
        self.0.is_dir() || Content::is_other_kind(&self.0)
    }

    fn change_mark(&self) -> Option<ChangeMark> {
        let path = self.0.canonicalize().ok()?;
        let fingerprint = Fingerprint::of(&path);
        // The times of a file system count in steps. A later write in the same step would leave no trace.
        (fingerprint.age()? > LONGEST_STEP).then(|| ChangeMark(format!("{} {fingerprint:?}", path.display())))
    }

    fn open(&self, scratch: &Scratch) -> Result<Box<dyn Live>> {
        live::open(&self.0, scratch)
    }

    fn contents(&self, context: &EngineContext) -> Result<Contents> {
        let path = source::locate(&self.0)?;
        let survey = survey::survey_live(&path, OnDamage::Fail, &context.scratch)?;
        Ok(Contents { name: path.display().to_string(), tables: survey.tables, schema: survey.schema_digest })
    }

    fn compare_rows(
        &self,
        snapshot: &dyn SavedSnapshot,
        pairs: &[TablePair],
        context: &EngineContext,
    ) -> Result<Vec<RowChanges>> {
        let scratch = context.scratch.folder(snapshot.manifest().raw_bytes)?;
        let fetched = fetch_image(snapshot, scratch.path("image.db"), &*context.progress)?;
        compare_rows::compare(&self.0, fetched.image.path(), pairs, &context.scratch)
    }

    fn require_supported(&self, request: &SaveRequest) -> Result<()> {
        match request.postgres_only() {
            None => Ok(()),
            Some(flag) => {
                Err(Error::usage(format!("{flag} is not supported: an SQLite snapshot has the whole database"))
                    .hint("choose tables when you restore: 'lifeboat restore --table'"))
            }
        }
    }

    fn locate(&self, request: &SaveRequest) -> Result<Source> {
        let real = source::locate(&self.0)?;
        save::require_database(&real, request).map(|()| Source::new(SqliteFile(real)))
    }

    fn begin_save(&self, request: &SaveRequest, context: &EngineContext) -> Result<Box<dyn Saving>> {
        Ok(Box::new(FileSaving::begin(&self.0, request, OnUnreadable::SaveRaw, context)?))
    }

    fn plan_restore(
        &self,
        snapshot: Arc<dyn SavedSnapshot>,
        settings: &RestoreSettings,
        context: &EngineContext,
    ) -> Result<Box<dyn RestorePlan>> {
        Ok(Box::new(Plan::make(&self.0, snapshot, settings, context)?))
    }

    fn plan_restore_in_place(
        &self,
        snapshot: Arc<dyn SavedSnapshot>,
        lock_timeout: u64,
        context: &EngineContext,
    ) -> Result<Box<dyn RestorePlan>> {
        // A link whose target does not exist is followed, unless root must not do that.
        match place::resolve(&self.0) {
            Err(error) if place::is_refused(&error) => return Err(error.into()),
            _ => {}
        }
        let real = real_path(&self.0);
        if let Some(folder) = real.parent() {
            let owner = ownership::owner_for_folders(snapshot.manifest(), &real, &context.host);
            attributes::create_folders(folder, owner)?;
        }
        let replace = std::fs::metadata(&self.0).is_ok();
        let settings = RestoreSettings { replace, lock_timeout, ..RestoreSettings::default() };
        self.plan_restore(snapshot, &settings, context)
    }
}

/// The engine of SQLite snapshots.
pub(crate) struct SqliteEngine;

impl Engine for SqliteEngine {
    fn name(&self) -> &'static str {
        NAME
    }

    fn title(&self) -> &'static str {
        "SQLite"
    }

    fn origin_of(&self, manifest: &Manifest, host: &str) -> Result<Option<Source>> {
        let path = manifest.origin.path.as_ref().filter(|_| manifest.origin.host == host);
        Ok(path.map(|path| Source::new(SqliteFile(PathBuf::from(path)))))
    }

    fn check_layout(&self, manifest: &Manifest, entries: &[(&str, u64)]) -> Result<()> {
        let wrong = || Error::problem("its archive does not have the files of an SQLite snapshot");
        let not_sqlite = || Error::problem("its manifest does not describe an SQLite snapshot");
        let facts = manifest.sqlite.as_ref().ok_or_else(not_sqlite)?;
        let is_whole = facts.health.is_some();
        let mut expected = vec![facts.image.clone()];
        for suffix in ["-wal", "-journal"] {
            let companion = format!("{}{suffix}", facts.image);
            if !is_whole && entries.iter().any(|(path, _)| *path == companion) {
                expected.push(companion);
            }
        }
        let one_part = facts.image.strip_prefix("data/").is_some_and(|name| !name.is_empty() && !name.contains('/'));
        if !one_part || !entries.iter().map(|(path, _)| *path).eq(expected.iter().map(String::as_str)) {
            return Err(wrong());
        }
        let image = entries.first().map(|(_, bytes)| *bytes).ok_or_else(wrong)?;
        if is_whole && (image != manifest.raw_bytes || facts.page_bytes.checked_mul(facts.pages) != Some(image)) {
            return Err(Error::problem("the length of the image differs from the manifest"));
        }
        Ok(())
    }

    fn restore_commands(
        &self,
        manifest: &Manifest,
        target: Option<&Source>,
        _: &dyn Fn(&str) -> Result<String>,
    ) -> Result<Vec<(&'static str, Vec<String>)>> {
        let id = manifest.id.to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        if manifest.kind == SnapshotKind::Damaged && manifest.sqlite.as_ref().is_none_or(|facts| facts.health.is_none())
        {
            return Ok(vec![("the raw files", words(&["extract", &id, "--to", "DIR"]))]);
        }
        let copy = format!("{}-restored.db", manifest.source);
        let replace = match target.and_then(|target| target.file()).and_then(Path::to_str) {
            Some(path) => ("over the database that it came from", words(&["restore", &id, "--to", path, "--replace"])),
            None => ("over another database", words(&["restore", &id, "--to", "TARGET.db", "--replace"])),
        };
        Ok(vec![("to look at it, as a new file", words(&["restore", &id, "--to", &copy])), replace])
    }

    fn drill(
        &self,
        snapshot: &dyn SavedSnapshot,
        settings: &DrillSettings,
        context: &EngineContext,
    ) -> Result<Drilled> {
        if settings.to.is_some() || settings.no_owner {
            return Err(Error::usage(
                "--to and --no-owner are only valid for PostgreSQL, but the snapshot is of an SQLite database",
            )
            .hint("the drill uses a temporary file: --scratch names its folder"));
        }
        if let Some(option) = settings.without.option() {
            return Err(Error::usage(format!("{option} is not supported for an SQLite snapshot")));
        }
        let manifest = snapshot.manifest();
        // The folder is marked as owned by this process, and is removed later if the process dies.
        let scratch = context.scratch.folder(manifest.raw_bytes)?;
        let fetched = fetch_image(snapshot, scratch.path("drill.db"), &*context.progress)?;
        image::check(fetched.image.path(), manifest).map(|_| Drilled::Equal)
    }

    fn write_table(
        &self,
        snapshot: &dyn SavedSnapshot,
        table: &str,
        format: Option<TableFormat>,
        context: &EngineContext,
        out: &mut dyn Write,
    ) -> Result<()> {
        let format = match format {
            Some(TableFormat::Copy) => {
                return Err(Error::usage("an SQLite table has no COPY format").hint("use sql or csv"));
            }
            Some(TableFormat::Csv) => DumpFormat::Csv,
            Some(TableFormat::Sql) | None => DumpFormat::Sql,
        };
        // An image consists of pages: extracting one table needs the whole image.
        let scratch = context.scratch.folder(snapshot.manifest().raw_bytes)?;
        let fetched = fetch_image(snapshot, scratch.path("image.db"), &*context.progress)?;
        dump_table(fetched.image.path(), table, format, &scratch, out).map(drop)
    }
}
