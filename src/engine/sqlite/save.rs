//! The save of an SQLite file: its image, or its raw bytes if SQLite cannot open it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use super::files::companion;
use super::library_version;
use super::ownership;
use super::reading::Reading;
use super::readme;
use super::source::{self, SourceOptions, SourceSnapshot};
use super::survey::{OnDamage, Survey};
use crate::engine::context::EngineContext;
use crate::engine::saving::{self, Identity, SaveRequest, SavedContent, Saving};
use crate::platform::disk::{open_own, shown};
use crate::platform::entries::{EntryWriter, encode_name};
use crate::platform::error::{Error, IoContext, Kind, Result, one_line};
use crate::platform::progress::Progress;
use crate::snapshots::manifest::{Health, Origin, SqliteFacts};

/// Returns the origin of a file on this machine.
pub(crate) fn origin_of(path: &Path, host: &str) -> Result<Origin> {
    let text = path.to_str().ok_or_else(|| {
        Error::usage(format!("the path {} is not UTF-8", one_line(&path.display().to_string()))).hint("rename it")
    })?;
    Ok(Origin { host: host.to_owned(), path: Some(text.to_owned()), port: None, database: None })
}

/// Fails if the file certainly cannot be saved.
pub(super) fn require_database(path: &Path, request: &SaveRequest) -> Result<()> {
    let probed = match Reading::in_place(path) {
        Ok(Ok(reading)) => source::probe(path, &reading),
        // The copy is tested when it is read.
        Ok(Err(_)) => return Ok(()),
        Err(error) => Err(error),
    };
    match probed {
        Err(error) if request.allow_damaged && is_unreadable(&error) => Ok(()),
        Ok(0) if !request.allow_empty => {
            let what = if fs::metadata(path).is_ok_and(|facts| facts.len() == 0) {
                "the file has 0 bytes"
            } else {
                "it has no tables"
            };
            let shown = one_line(&path.display().to_string());
            Err(saving::empty(what).context(format!("no snapshot of {shown} was taken")))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The ways to handle a file that SQLite cannot open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnUnreadable {
    /// The save fails.
    Fail,
    /// The raw bytes of the file and its companions are saved.
    SaveRaw,
}

/// A file whose state is fixed.
pub(super) struct FileSaving {
    /// Absolute, links resolved.
    path: PathBuf,
    started: DateTime<Utc>,
    on_damage: OnDamage,
    /// `None` if the raw bytes are saved, or once the content is written.
    snapshot: Option<SourceSnapshot>,
    max_bytes: u64,
    is_raw: bool,
}

impl FileSaving {
    /// Fixes the state of a file.
    pub(super) fn begin(
        path: &Path,
        request: &SaveRequest,
        on_unreadable: OnUnreadable,
        context: &EngineContext,
    ) -> Result<Self> {
        let on_damage = if request.allow_damaged { OnDamage::Note } else { OnDamage::Fail };
        let options = SourceOptions {
            scratch: context.scratch.clone(),
            max_lock: request.max_lock,
            on_damage,
            check: request.check,
        };
        let path = path.to_owned();
        match SourceSnapshot::begin(&path, &options) {
            Ok(snapshot) => Ok(FileSaving {
                started: snapshot.started(),
                max_bytes: snapshot.image_bytes(),
                snapshot: Some(snapshot),
                is_raw: false,
                path,
                on_damage,
            }),
            Err(error)
                if on_damage == OnDamage::Note && on_unreadable == OnUnreadable::SaveRaw && is_unreadable(&error) =>
            {
                tracing::warn!("SQLite cannot open the database ({}): its raw bytes are saved", error.full_message());
                let max_bytes = raw_bytes(&path);
                Ok(FileSaving { started: Utc::now(), max_bytes, snapshot: None, is_raw: true, path, on_damage })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the path of the image in the archive.
    fn entry(&self) -> String {
        format!("data/{}", encode_name(&self.file_name()))
    }

    fn file_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn write_image(
        &self,
        mut snapshot: SourceSnapshot,
        out: &mut dyn EntryWriter,
        progress: &dyn Progress,
    ) -> Result<SavedContent> {
        let image = self.entry();
        let raw_bytes = snapshot.image_bytes();
        out.start_entry(&image, raw_bytes)?;
        progress.start(&format!("saving {}", self.file_name()), raw_bytes);
        let streamed = snapshot.stream_image(&mut |page| {
            progress.advance(page.len() as u64);
            out.write(page)
        });
        progress.finish();
        streamed?;
        out.finish_entry()?;
        let mut report = snapshot.finish()?;
        report.facts.image = image;
        ownership::record(&self.path, &mut report.facts);
        if let (Some(first), OnDamage::Fail) = (report.damage.first(), self.on_damage) {
            return Err(Error::problem(format!("the database is damaged: {first}"))
                .hint("restore an older snapshot, or save the damaged database with --allow-damaged"));
        }
        for table in report.survey.tables.iter().filter(|table| table.digest.is_none()) {
            let reason = table.reason.as_deref().unwrap_or_default();
            tracing::warn!(
                "the table {} is saved, but cannot be counted and compared: {reason}",
                one_line(&table.name)
            );
        }
        if let Some(health) = &report.facts.health {
            let broken = health.integrity.len() + health.orphans.len();
            if broken > 0 {
                tracing::warn!(
                    "the database already has {broken} faults, which are saved with it: {}",
                    health_summary(health)
                );
            }
            // Virtual tables without their modules are among the tables that cannot be counted.
            let unchecked = health.unchecked.iter().filter(|reason| !reason.starts_with("the virtual table "));
            let unchecked: Vec<&str> = unchecked.map(String::as_str).collect();
            if let Some(first) = unchecked.first() {
                let more = unchecked.len() - 1;
                let more = if more > 0 { format!(", and {more} more") } else { String::new() };
                tracing::warn!("every page is saved, but a part of the database cannot be checked: {first}{more}");
            }
        }
        Ok(content(report.survey, report.facts, raw_bytes, !report.damage.is_empty()))
    }

    /// Writes the file and its companions as they are. SQLite has no connection to them here.
    fn write_raw(&self, out: &mut dyn EntryWriter) -> Result<SavedContent> {
        let mut raw_bytes = 0;
        for suffix in ["", "-wal", "-journal"] {
            let path = companion(&self.path, suffix);
            let mut source = match open_own(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => continue,
                opened => {
                    opened.io(Kind::Unreachable, || format!("cannot open {}", one_line(&path.display().to_string())))?
                }
            };
            let cannot = || format!("cannot read {}", one_line(&path.display().to_string()));
            let facts = source.metadata().io(Kind::Failed, cannot)?;
            if !facts.is_file() {
                return Err(Error::usage(format!("{} is not a regular file", shown(&path))));
            }
            let bytes = facts.len();
            out.start_entry(&format!("{}{suffix}", self.entry()), bytes)?;
            let mut buffer = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                crate::platform::interrupt::check()?;
                let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                source.read_exact(&mut buffer[..length]).io(Kind::Failed, cannot)?;
                out.write(&buffer[..length])?;
                left -= length as u64;
            }
            out.finish_entry()?;
            raw_bytes += bytes;
        }
        let facts = SqliteFacts {
            image: self.entry(),
            journal_mode: "unknown".to_owned(),
            page_bytes: 0,
            pages: 0,
            encoding: String::new(),
            user_version: 0,
            application_id: 0,
            schema_digest: None,
            views: Vec::new(),
            file_mode: 0o600,
            file_owner: None,
            file_birth: None,
            file_attributes: BTreeMap::new(),
            locked_seconds: 0.0,
            wal_growth_bytes: 0,
            health: None,
        };
        Ok(content(Survey { tables: Vec::new(), views: Vec::new(), schema_digest: None }, facts, raw_bytes, true))
    }
}

impl Saving for FileSaving {
    fn started(&self) -> DateTime<Utc> {
        self.started
    }

    fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    fn readme(&self, identity: Identity<'_>) -> String {
        match self.is_raw {
            true => readme::of_raw_bytes(identity, self.started),
            false => readme::of_image(identity, self.started, &self.entry()),
        }
    }

    fn write(&mut self, _: Identity<'_>, out: &mut dyn EntryWriter, progress: &dyn Progress) -> Result<SavedContent> {
        match self.snapshot.take() {
            Some(snapshot) => self.write_image(snapshot, out, progress),
            None => self.write_raw(out),
        }
    }
}

fn content(survey: Survey, facts: SqliteFacts, raw_bytes: u64, is_damaged: bool) -> SavedContent {
    SavedContent {
        rows: survey.rows(),
        tables: survey.tables,
        raw_bytes,
        server_version: library_version().to_owned(),
        is_damaged,
        is_partial: false,
        has_all_tables: true,
        sqlite: Some(facts),
        postgres: None,
    }
}

/// Returns the bytes of the file and its companions.
fn raw_bytes(path: &Path) -> u64 {
    let bytes = |suffix: &&str| fs::metadata(companion(path, suffix)).map_or(0, |facts| facts.len());
    ["", "-wal", "-journal"].iter().map(bytes).sum()
}

fn is_unreadable(error: &Error) -> bool {
    // A file that is not a database is a usage error, unless the user says that it was a database.
    matches!(error.kind, Kind::Problem | Kind::Usage)
}

fn health_summary(health: &Health) -> String {
    let orphans = health.orphans.iter().map(|orphan| {
        format!("{} rows of {} refer to rows of {} that do not exist", orphan.rows, orphan.table, orphan.parent)
    });
    let words: Vec<String> = health.integrity.iter().cloned().chain(orphans).take(3).collect();
    one_line(&words.join("; "))
}
