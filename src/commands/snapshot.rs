//! `snapshot`: saves the state of databases into the store.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Args;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Context, Problem, Report, error_document, parse_source, readme, snapshot_document};
use crate::archive::{ArchiveSummary, ArchiveWriter, Compression, MANIFEST_PATH, README_PATH, encode_name};
use crate::catalog::{Catalog, ProofSummary};
use crate::engine::sqlite::library_version;
use crate::engine::sqlite::source::{self, SourceOptions, SourceSnapshot};
use crate::engine::sqlite::survey::{OnDamage, Survey};
use crate::error::{Error, IoContext, Kind, Result, one_line};
use crate::id::{SnapshotId, SourceName};
use crate::manifest::{Depth, FORMAT, Manifest, Origin, SnapshotKind, SqliteFacts};
use crate::store::Upload;
use crate::text;

/// Takes a snapshot of each SOURCE
#[derive(Args, Clone, Debug)]
pub struct SnapshotArgs {
    /// SQLite files, or URLs such as sqlite:///data/app.db
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<String>,
    /// The source's name in the store; by default made of the file's
    #[arg(long, value_name = "NAME")]
    pub name: Option<SourceName>,
    /// Words to find the snapshot by (repeatable)
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// gzip[:1-9] opens everywhere, zstd[:1-19] is faster
    #[arg(long, value_name = "CODEC", default_value = "gzip:6")]
    pub compression: Compression,
    /// Save a database that is damaged, as kind 'damaged', which is never 'latest'
    #[arg(long)]
    pub allow_damaged: bool,
    /// Save a database that holds nothing
    #[arg(long)]
    pub allow_empty: bool,
    /// The longest that writers may be locked out, in seconds (only without WAL)
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub max_lock: u64,
    /// Run SQLite's integrity_check, which compares every index with its table, instead of quick_check
    #[arg(long)]
    pub full_check: bool,
    /// For PostgreSQL only: an SQLite image is whole
    #[arg(long, value_name = "PATTERN", hide = true)]
    pub table: Vec<String>,
    /// For PostgreSQL only: an SQLite image is whole
    #[arg(long, value_name = "PATTERN", hide = true)]
    pub exclude_table: Vec<String>,
    /// For PostgreSQL only: an SQLite image is whole
    #[arg(long, value_name = "PATTERN", hide = true)]
    pub exclude_data: Vec<String>,
}

/// The snapshots that were made, and what kept others from being made.
#[derive(Debug)]
pub struct SnapshotReport {
    /// One manifest for each snapshot made.
    pub snapshots: Vec<Manifest>,
    /// What was wrong with the sources that were not saved; the first decides the exit code.
    pub failures: Vec<Error>,
}

impl Serialize for SnapshotReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.failures.first() {
            Some(error) if error.kind != Kind::Problem => map.serialize_entry("error", &error_document(error))?,
            _ => {}
        }
        let snapshots: Vec<_> =
            self.snapshots.iter().map(|manifest| snapshot_document(manifest, &ProofSummary::default())).collect();
        map.serialize_entry("snapshots", &snapshots)?;
        if !self.failures.is_empty() {
            let problems: Vec<_> = self.failures.iter().map(|error| Problem::of(error.kind.name(), error)).collect();
            map.serialize_entry("problems", &problems)?;
        }
        map.end()
    }
}

impl Report for SnapshotReport {
    fn text(&self) -> String {
        let lines = self.snapshots.iter().map(|manifest| {
            let rate = text::bytes((manifest.raw_bytes as f64 / manifest.seconds.max(0.001)) as u64);
            let mut line = format!(
                "{}  {} tables, {} rows, {} in {} ({rate}/s, {})\n",
                manifest.id,
                manifest.tables.len(),
                manifest.rows,
                text::bytes(manifest.raw_bytes),
                text::bytes(manifest.archive_bytes.unwrap_or(0)),
                text::seconds(manifest.seconds),
            );
            if let Some(facts) = &manifest.sqlite {
                if facts.journal_mode != "wal" && facts.health.is_some() {
                    line.push_str(&format!("  writers were locked out for {}\n", text::seconds(facts.locked_seconds)));
                }
                if facts.wal_growth_bytes > 0 {
                    line.push_str(&format!("  the WAL grew by {} meanwhile\n", text::bytes(facts.wal_growth_bytes)));
                }
            }
            line
        });
        lines.collect()
    }

    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

/// Runs the command: every source is tried, whatever becomes of the others.
pub fn run(args: &SnapshotArgs, context: &Context) -> Result<SnapshotReport> {
    if args.name.is_some() && args.sources.len() > 1 {
        return Err(Error::usage("--name names one source, and several are given").hint("take them one by one"));
    }
    for (flag, given) in
        [("--table", &args.table), ("--exclude-table", &args.exclude_table), ("--exclude-data", &args.exclude_data)]
    {
        if !given.is_empty() {
            return Err(Error::usage(format!("{flag} does not go with an SQLite snapshot: its image is whole"))
                .hint("choose tables when you restore: 'lifeboat restore --table'"));
        }
    }
    let paths = args.sources.iter().map(|source| parse_source(source)).collect::<Result<Vec<_>>>()?;
    // Sources first: a mistyped one must not leave a new, empty store behind.
    let mut report = SnapshotReport { snapshots: Vec::new(), failures: Vec::new() };
    let mut located = Vec::new();
    for path in &paths {
        match source::locate(path).and_then(|real| require_database(&real, args).map(|()| real)) {
            Ok(real) if located.contains(&real) => {}
            Ok(real) => located.push(real),
            Err(error) => report.failures.push(error),
        }
    }
    if located.is_empty() {
        return Ok(report);
    }
    let catalog = context.open_or_create_catalog()?;
    for path in &located {
        match save(path, args, &catalog, context) {
            Ok(manifest) => report.snapshots.push(manifest),
            Err(error) if error.kind == Kind::Interrupted => return Err(error),
            Err(error) => report
                .failures
                .push(error.context(format!("no snapshot of {} was made", one_line(&path.display().to_string())))),
        }
    }
    Ok(report)
}

/// Fails for what will certainly not be saved.
fn require_database(path: &Path, args: &SnapshotArgs) -> Result<()> {
    match source::probe(path) {
        Err(error) if args.allow_damaged && is_unreadable(&error) => Ok(()),
        Ok(0) if !args.allow_empty => {
            let what = if fs::metadata(path).is_ok_and(|facts| facts.len() == 0) {
                "the file has 0 bytes"
            } else {
                "it has no tables"
            };
            let shown = one_line(&path.display().to_string());
            Err(empty(what).context(format!("no snapshot of {shown} was made")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn save(path: &Path, args: &SnapshotArgs, catalog: &Catalog, context: &Context) -> Result<Manifest> {
    let origin = origin_of(path, &context.host)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => derive_name(path)?,
    };
    let previous = catalog.newest_full(&name)?;
    if let Some(previous) = previous.as_ref().filter(|previous| previous.origin != origin) {
        return Err(Error::usage(format!("the store already has a source {name}, from {}", previous.origin))
            .hint("give this one another name with --name"));
    }
    let plan = Plan {
        path,
        name,
        origin,
        kind: SnapshotKind::Full,
        tags: args.tag.clone(),
        compression: args.compression,
        max_lock: Duration::from_secs(args.max_lock),
        on_damage: if args.allow_damaged { OnDamage::Note } else { OnDamage::Fail },
        check: if args.full_check { Depth::Full } else { Depth::Quick },
        allow_empty: args.allow_empty,
        previous,
    };
    plan.run(catalog, context)
}

/// Where a local database lives.
pub(super) fn origin_of(path: &Path, host: &str) -> Result<Origin> {
    let text = path.to_str().ok_or_else(|| {
        Error::usage(format!("the path {} is not UTF-8", one_line(&path.display().to_string()))).hint("rename it")
    })?;
    Ok(Origin { host: host.to_owned(), path: Some(text.to_owned()) })
}

fn derive_name(path: &Path) -> Result<SourceName> {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    SourceName::derive(&file).ok_or_else(|| {
        Error::usage(format!("no name for the source can be made of '{}'", one_line(&file)))
            .hint("give it one with --name")
    })
}

/// A snapshot to be taken.
pub(super) struct Plan<'a> {
    /// Absolute, links resolved.
    pub(super) path: &'a Path,
    pub(super) name: SourceName,
    pub(super) origin: Origin,
    pub(super) kind: SnapshotKind,
    pub(super) tags: Vec<String>,
    pub(super) compression: Compression,
    pub(super) max_lock: Duration,
    pub(super) on_damage: OnDamage,
    pub(super) check: Depth,
    pub(super) allow_empty: bool,
    /// The snapshot that this one follows, if any.
    pub(super) previous: Option<Manifest>,
}

/// What an archive holds besides its manifest.
struct Content {
    started: DateTime<Utc>,
    survey: Survey,
    facts: SqliteFacts,
    raw_bytes: u64,
    damaged: bool,
}

impl Plan<'_> {
    /// Takes the snapshot and publishes it; on failure nothing new is in the store.
    pub(super) fn run(&self, catalog: &Catalog, context: &Context) -> Result<Manifest> {
        let clock = Instant::now();
        let options = SourceOptions {
            scratch: context.scratch.clone(),
            max_lock: self.max_lock,
            on_damage: self.on_damage,
            check: self.check,
        };
        let begun = match SourceSnapshot::begin(self.path, &options) {
            Ok(snapshot) => Some(snapshot),
            // What a restore is about to overwrite is open already, and is read through SQLite only.
            Err(error)
                if self.on_damage == OnDamage::Note && self.kind == SnapshotKind::Full && is_unreadable(&error) =>
            {
                tracing::warn!("SQLite cannot open the database ({}): its raw bytes are saved", error.whole());
                None
            }
            Err(error) => return Err(error),
        };
        let started = begun.as_ref().map_or_else(Utc::now, SourceSnapshot::started);
        let id = catalog.new_id(&self.name, started)?;
        let upload = catalog.start_archive(&id, self.compression.codec())?;
        let mtime = started.timestamp().unsigned_abs();
        let mut archive = ArchiveWriter::create(upload, self.compression, context.jobs, mtime)?;
        let name = format!("{id}{}", self.compression.codec().extension());
        let content = match begun {
            Some(snapshot) => self.save_image(snapshot, &mut archive, &id, &name, context)?,
            None => self.save_raw(&mut archive, &id, started)?,
        };
        self.require_something(&content)?;
        self.tell_losses(&content.survey);
        let mut manifest = self.manifest(id, name, content, clock);
        archive.append(MANIFEST_PATH, &manifest.to_json())?;
        let (upload, ArchiveSummary { bytes, sha256 }) = archive.finish()?;
        (manifest.archive_bytes, manifest.sha256) = (Some(bytes), Some(sha256));
        catalog.publish(upload, ArchiveSummary { bytes, sha256 }, &manifest)?;
        Ok(manifest)
    }

    fn save_image(
        &self,
        mut snapshot: SourceSnapshot,
        archive: &mut ArchiveWriter<Box<dyn Upload>>,
        id: &SnapshotId,
        name: &str,
        context: &Context,
    ) -> Result<Content> {
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let image = format!("data/{}", encode_name(&file));
        let started = snapshot.started();
        archive.append(README_PATH, readme::sqlite(id, &self.origin, started, name, &image).as_bytes())?;
        let raw_bytes = snapshot.image_bytes();
        archive.start_entry(&image, raw_bytes)?;
        context.progress.start(&format!("saving {file}"), raw_bytes);
        let streamed = snapshot.stream_image(&mut |page| {
            context.progress.advance(page.len() as u64);
            archive.write(page)
        });
        context.progress.finish();
        streamed?;
        archive.finish_entry()?;
        let mut report = snapshot.finish()?;
        report.facts.image = image;
        if let (Some(first), OnDamage::Fail) = (report.damage.first(), self.on_damage) {
            return Err(Error::problem(format!("the database is damaged: {first}"))
                .hint("restore an older snapshot, or save what is there with --allow-damaged"));
        }
        for table in report.survey.tables.iter().filter(|table| table.digest.is_none()) {
            let reason = table.reason.as_deref().unwrap_or_default();
            tracing::warn!(
                "the table {} is saved, but cannot be counted and compared: {reason}",
                one_line(&table.name)
            );
        }
        if let Some(health) = &report.facts.health {
            let broken = health.integrity.len() + health.orphans.len() + health.unchecked.len();
            if broken > 0 {
                tracing::warn!(
                    "the database has {broken} faults of its own, which are saved with it: {}",
                    health_words(health)
                );
            }
        }
        Ok(Content {
            started,
            damaged: !report.damage.is_empty(),
            survey: report.survey,
            facts: report.facts,
            raw_bytes,
        })
    }

    /// Saves the file and its companions as they are. SQLite has no connection to them here.
    fn save_raw(
        &self,
        archive: &mut ArchiveWriter<Box<dyn Upload>>,
        id: &SnapshotId,
        started: DateTime<Utc>,
    ) -> Result<Content> {
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        archive.append(README_PATH, readme::raw(id, &self.origin, started).as_bytes())?;
        let mut raw_bytes = 0;
        for suffix in ["", "-wal", "-journal"] {
            let mut path = self.path.as_os_str().to_owned();
            path.push(suffix);
            let path = PathBuf::from(path);
            let mut source = match File::open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => continue,
                opened => {
                    opened.io(Kind::Unreachable, || format!("cannot open {}", one_line(&path.display().to_string())))?
                }
            };
            let cannot = || format!("cannot read {}", one_line(&path.display().to_string()));
            let bytes = source.metadata().io(Kind::Failed, cannot)?.len();
            archive.start_entry(&format!("data/{}{suffix}", encode_name(&file)), bytes)?;
            let mut buffer = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                crate::interrupt::check()?;
                let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                source.read_exact(&mut buffer[..length]).io(Kind::Failed, cannot)?;
                archive.write(&buffer[..length])?;
                left -= length as u64;
            }
            archive.finish_entry()?;
            raw_bytes += bytes;
        }
        let facts = SqliteFacts {
            image: format!("data/{}", encode_name(&file)),
            journal_mode: "unknown".to_owned(),
            page_bytes: 0,
            pages: 0,
            encoding: String::new(),
            user_version: 0,
            application_id: 0,
            schema_digest: None,
            file_mode: 0o600,
            locked_seconds: 0.0,
            wal_growth_bytes: 0,
            health: None,
        };
        Ok(Content {
            started,
            survey: Survey { tables: Vec::new(), schema_digest: None },
            facts,
            raw_bytes,
            damaged: true,
        })
    }

    /// An empty database never quietly becomes the newest good backup.
    fn require_something(&self, content: &Content) -> Result<()> {
        if self.allow_empty || content.damaged {
            return Ok(());
        }
        if !content.survey.tables.iter().any(|table| !table.name.starts_with("sqlite_")) {
            return Err(empty("it has no tables"));
        }
        let had_rows = self.previous.as_ref().filter(|previous| previous.rows > 0);
        match had_rows {
            Some(previous) if content.survey.rows() == 0 => {
                Err(empty(&format!("it has no rows, where {} had {}", previous.id, previous.rows)))
            }
            _ => Ok(()),
        }
    }

    /// Makes it heard where much is gone since the snapshot before.
    fn tell_losses(&self, survey: &Survey) {
        let Some(previous) = &self.previous else { return };
        for before in previous.tables.iter().filter(|table| table.kind == "table" && !table.name.starts_with("sqlite_"))
        {
            let Some(rows_before) = before.rows.filter(|rows| *rows > 0) else { continue };
            let now = survey.tables.iter().find(|table| table.name == before.name);
            let name = one_line(&before.name);
            match now.map(|table| table.rows) {
                None => tracing::warn!("the table {name} is gone; {} had {rows_before} rows of it", previous.id),
                Some(Some(rows)) if rows < rows_before / 2 => {
                    tracing::warn!("the table {name} has {rows} rows; {} had {rows_before}", previous.id);
                }
                Some(_) => {}
            }
        }
    }

    fn manifest(&self, id: SnapshotId, archive: String, content: Content, clock: Instant) -> Manifest {
        Manifest {
            format: FORMAT,
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
            id,
            source: self.name.clone(),
            origin: self.origin.clone(),
            kind: if content.damaged && self.kind == SnapshotKind::Full { SnapshotKind::Damaged } else { self.kind },
            engine: "sqlite".to_owned(),
            created_at: content.started,
            tags: self.tags.clone(),
            archive,
            archive_bytes: None,
            raw_bytes: content.raw_bytes,
            sha256: None,
            codec: self.compression.codec().name().to_owned(),
            encrypted: false,
            server_version: library_version().to_owned(),
            rows: content.survey.rows(),
            tables: content.survey.tables,
            seconds: clock.elapsed().as_secs_f64(),
            sqlite: Some(content.facts),
        }
    }
}

fn empty(what: &str) -> Error {
    Error::problem(format!("the database is empty: {what}"))
        .hint("check that this is the right file and that its volume is mounted; --allow-empty saves it all the same")
}

fn is_unreadable(error: &Error) -> bool {
    // That a file is no database is a usage error, unless the user says that it was one.
    matches!(error.kind, Kind::Problem | Kind::Usage)
}

fn health_words(health: &crate::manifest::Health) -> String {
    let unchecked = health.unchecked.iter().map(|reason| format!("not checked: {reason}"));
    let orphans = health.orphans.iter().map(|orphan| {
        format!("{} rows of {} refer to rows of {} that are not there", orphan.rows, orphan.table, orphan.parent)
    });
    let words: Vec<String> = health.integrity.iter().cloned().chain(orphans).chain(unchecked).take(3).collect();
    one_line(&words.join("; "))
}
