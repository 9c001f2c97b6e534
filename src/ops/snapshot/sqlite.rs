//! Takes a snapshot of an SQLite file: its image, or its raw bytes if SQLite cannot open it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::archive::{Compression, FORMAT, README_PATH, encode_name};
use crate::engine::sqlite::library_version;
use crate::engine::sqlite::source::{self, SourceOptions, SourceSnapshot};
use crate::engine::sqlite::survey::{OnDamage, Survey};
use crate::ops::destination::Destination;
use crate::ops::snapshot::draft::{Draft, Saved};
use crate::ops::snapshot::{Measure, SaveOptions, empty, require_something, tell_losses};
use crate::ops::{Context, readme};
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Depth, Manifest, Origin, SnapshotKind, SqliteFacts};

/// Fails if the file certainly cannot be saved.
pub(super) fn require_database(path: &Path, options: &SaveOptions) -> Result<()> {
    match source::probe(path) {
        Err(error) if options.allow_damaged && is_unreadable(&error) => Ok(()),
        Ok(0) if !options.allow_empty => {
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

pub(super) fn save(
    path: &Path,
    options: &SaveOptions,
    measure: Option<&Measure>,
    mut destination: Destination<'_>,
    context: &Context,
) -> Result<Saved> {
    let origin = origin_of(path, &context.host)?;
    let name = match &options.name {
        Some(name) => name.clone(),
        None => derive_name(path)?,
    };
    let (previous, failures) = destination.previous(&name, &origin)?;
    let plan = Plan {
        path,
        name,
        origin,
        kind: SnapshotKind::Full,
        tags: options.tag.clone(),
        compression: options.compression.unwrap_or_default(),
        max_lock: Duration::from_secs(options.max_lock),
        on_damage: if options.allow_damaged { OnDamage::Note } else { OnDamage::Fail },
        check: if options.full_check { Depth::Full } else { Depth::Quick },
        allow_empty: options.allow_empty,
        previous,
        measure,
    };
    let mut saved = plan.run(&destination, context)?;
    saved.failures.extend(failures);
    Ok(saved)
}

/// Returns the origin of a local database.
pub(crate) fn origin_of(path: &Path, host: &str) -> Result<Origin> {
    let text = path.to_str().ok_or_else(|| {
        Error::usage(format!("the path {} is not UTF-8", one_line(&path.display().to_string()))).hint("rename it")
    })?;
    Ok(Origin { host: host.to_owned(), path: Some(text.to_owned()), port: None, database: None })
}

fn derive_name(path: &Path) -> Result<SourceName> {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    SourceName::derive(&file).ok_or_else(|| {
        Error::usage(format!("no name for the source can be made of '{}'", one_line(&file)))
            .hint("give it one with --name")
    })
}

/// A snapshot to be taken.
pub(crate) struct Plan<'a> {
    /// Absolute, links resolved.
    pub(crate) path: &'a Path,
    pub(crate) name: SourceName,
    pub(crate) origin: Origin,
    pub(crate) kind: SnapshotKind,
    pub(crate) tags: Vec<String>,
    pub(crate) compression: Compression,
    pub(crate) max_lock: Duration,
    pub(crate) on_damage: OnDamage,
    pub(crate) check: Depth,
    pub(crate) allow_empty: bool,
    /// The snapshot that this one follows, if any.
    pub(crate) previous: Option<Manifest>,
    /// The baseline that it is compared with, if any.
    pub(crate) measure: Option<&'a Measure>,
}

/// The contents of an archive besides its manifest.
struct Content {
    started: DateTime<Utc>,
    survey: Survey,
    facts: SqliteFacts,
    raw_bytes: u64,
    damaged: bool,
}

impl Plan<'_> {
    /// Takes the snapshot and publishes it; on failure nothing new is in any store.
    pub(crate) fn run(&self, destination: &Destination<'_>, context: &Context) -> Result<Saved> {
        let clock = Instant::now();
        let source_options = SourceOptions {
            scratch: context.scratch.clone(),
            max_lock: self.max_lock,
            on_damage: self.on_damage,
            check: self.check,
        };
        let begun = match SourceSnapshot::begin(self.path, &source_options) {
            Ok(snapshot) => Some(snapshot),
            // A database that a restore is about to overwrite is already open, and is read only through SQLite.
            Err(error)
                if self.on_damage == OnDamage::Note && self.kind == SnapshotKind::Full && is_unreadable(&error) =>
            {
                tracing::warn!("SQLite cannot open the database ({}): its raw bytes are saved", error.whole());
                None
            }
            Err(error) => return Err(error),
        };
        let started = begun.as_ref().map_or_else(Utc::now, SourceSnapshot::started);
        let most_bytes = match &begun {
            Some(snapshot) => snapshot.image_bytes(),
            None => self.raw_bytes(),
        };
        let mut draft = Draft::start(destination, &self.name, started, self.compression, most_bytes, context)?;
        let content = match begun {
            Some(snapshot) => self.save_image(snapshot, &mut draft, context)?,
            None => self.save_raw(&mut draft, started)?,
        };
        if !self.allow_empty && !content.damaged {
            require_something(&content.survey.tables, self.previous.as_ref())?;
        }
        if let Some(previous) = &self.previous {
            tell_losses(&content.survey.tables, previous);
        }
        let mut manifest = self.manifest(&draft, content, clock);
        manifest.tags.extend(self.measure.and_then(|measure| measure.tag(&manifest.tables)));
        draft.publish(manifest)
    }

    fn save_image(&self, mut snapshot: SourceSnapshot, draft: &mut Draft<'_>, context: &Context) -> Result<Content> {
        let name = draft.name();
        let Draft { id, archive, .. } = draft;
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let image = format!("data/{}", encode_name(&file));
        let started = snapshot.started();
        archive.append(README_PATH, readme::sqlite(id, &self.origin, started, &name, &image).as_bytes())?;
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

    /// Returns the bytes of the file and its companions.
    fn raw_bytes(&self) -> u64 {
        let bytes = |suffix: &&str| fs::metadata(self.companion(suffix)).map_or(0, |facts| facts.len());
        ["", "-wal", "-journal"].iter().map(bytes).sum()
    }

    fn companion(&self, suffix: &str) -> PathBuf {
        let mut path = self.path.as_os_str().to_owned();
        path.push(suffix);
        PathBuf::from(path)
    }

    /// Saves the file and its companions as they are. SQLite has no connection to them here.
    fn save_raw(&self, Draft { id, archive, .. }: &mut Draft<'_>, started: DateTime<Utc>) -> Result<Content> {
        let file = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        archive.append(README_PATH, readme::raw(id, &self.origin, started).as_bytes())?;
        let mut raw_bytes = 0;
        for suffix in ["", "-wal", "-journal"] {
            let path = self.companion(suffix);
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
                crate::platform::interrupt::check()?;
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

    fn manifest(&self, draft: &Draft<'_>, content: Content, clock: Instant) -> Manifest {
        Manifest {
            format: FORMAT,
            lifeboat_version: env!("CARGO_PKG_VERSION").to_owned(),
            id: draft.id.clone(),
            source: self.name.clone(),
            origin: self.origin.clone(),
            kind: if content.damaged && self.kind == SnapshotKind::Full { SnapshotKind::Damaged } else { self.kind },
            engine: "sqlite".to_owned(),
            created_at: content.started,
            tags: self.tags.clone(),
            archive: draft.name(),
            archive_bytes: None,
            raw_bytes: content.raw_bytes,
            sha256: None,
            codec: self.compression.codec().name().to_owned(),
            encrypted: draft.is_sealed(),
            server_version: library_version().to_owned(),
            rows: content.survey.rows(),
            tables: content.survey.tables,
            seconds: clock.elapsed().as_secs_f64(),
            sqlite: Some(content.facts),
            postgres: None,
        }
    }
}

fn is_unreadable(error: &Error) -> bool {
    // A file that is not a database is a usage error, unless the user says that it was a database.
    matches!(error.kind, Kind::Problem | Kind::Usage)
}

fn health_words(health: &crate::snapshots::manifest::Health) -> String {
    let unchecked = health.unchecked.iter().map(|reason| format!("not checked: {reason}"));
    let orphans = health.orphans.iter().map(|orphan| {
        format!("{} rows of {} refer to rows of {} that are not there", orphan.rows, orphan.table, orphan.parent)
    });
    let words: Vec<String> = health.integrity.iter().cloned().chain(orphans).chain(unchecked).take(3).collect();
    one_line(&words.join("; "))
}
