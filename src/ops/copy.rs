//! `copy`: copies snapshots from one store into another, byte for byte. Bytes are hashed when they are read and when
//! they are written.

use chrono::Utc;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::archive::{self, ArchiveSummary};
use crate::ops::{Context, Narrow, Problem, Report, error_document, snapshot_document, stores};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::snapshots::catalog::{Catalog, Listed, Proof, ProofLevel, ProofSummary, ReadBack};
use crate::snapshots::manifest::Manifest;
use crate::store::StoreUrl;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct CopyOptions {
    /// An id, the start of one, or 'latest'
    pub snapshot: String,
    /// Filters for the snapshots to choose from
    pub narrow: Narrow,
    /// All snapshots (of --source, if given) that the other store does not have yet
    pub all: bool,
    /// The store to read from; by default --store
    pub from: Option<StoreUrl>,
    /// The store to write to
    pub to: StoreUrl,
    /// Create the store to write to if it does not exist
    pub create: bool,
}

/// A snapshot that is in the other store now.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Its manifest, as it is stored outside the archive.
    pub manifest: Manifest,
    /// True if the other store had it before.
    pub was_there: bool,
}

/// The snapshots that are in the other store now, and the errors of those that could not be copied.
#[derive(Debug)]
pub(crate) struct CopyReport {
    /// Newest first.
    pub snapshots: Vec<Copied>,
    /// The errors of the other snapshots; the first one decides the exit code.
    pub failures: Vec<Error>,
    /// The location of the other store.
    pub store: String,
}

impl Serialize for CopyReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(error) = self.failures.first().filter(|error| error.kind != Kind::Problem) {
            map.serialize_entry("error", &error_document(error))?;
        }
        let document = |copied: &Copied| {
            let mut document = snapshot_document(&copied.manifest, &ProofSummary::default());
            document.insert("was_there".to_owned(), json!(copied.was_there));
            document
        };
        map.serialize_entry("snapshots", &self.snapshots.iter().map(document).collect::<Vec<_>>())?;
        if !self.failures.is_empty() {
            let problems: Vec<_> = self.failures.iter().map(|error| Problem::of(error.kind.name(), error)).collect();
            map.serialize_entry("problems", &problems)?;
        }
        map.end()
    }
}

impl Report for CopyReport {
    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

/// Runs the command. If one of several snapshots fails, the others are still copied.
pub(crate) fn run(options: &CopyOptions, context: &Context) -> Result<CopyReport> {
    let named = |given: &StoreUrl| match &context.config {
        Some(config) => config.store_named(given),
        None => Ok(given.clone()),
    };
    let (from, to_url) = (options.from.as_ref().map(named).transpose()?, named(&options.to)?);
    let from_url = match &from {
        Some(from) => from,
        None if context.stores.is_empty() => {
            return Err(Error::usage("the store to copy from is not said").hint("name it with --from"));
        }
        None => context.store()?,
    };
    let from = stores::open(from_url)?;
    let listed = if options.all {
        from.list_all(options.narrow.source.as_ref())?
    } else {
        vec![from.find(&options.snapshot, &options.narrow)?]
    };
    if listed.is_empty() {
        return Err(Error::not_found(format!("there is no snapshot to copy in {}", one_line(&from.location())))
            .hint("take one with 'lifeboat snapshot'"));
    }
    let to =
        if options.create { stores::open_or_create(&to_url)? } else { stores::open(&to_url).map_err(hint_create)? };
    if stores::are_one(from_url, &to_url) {
        return Err(Error::usage("the two stores are one").hint("name another one with --to"));
    }
    let mut report = CopyReport { snapshots: Vec::new(), failures: Vec::new(), store: to.location() };
    for listed in &listed {
        match copy(&from, &to, listed, options.all, context) {
            Ok(copied) => report.snapshots.push(copied),
            Err(error) if error.kind == Kind::Interrupted && report.snapshots.is_empty() => return Err(error),
            Err(error) if error.kind == Kind::Interrupted => {
                report.failures.insert(0, error.context(format!("{} was not copied", listed.id)));
                break;
            }
            // The snapshot was pruned while others were copied.
            Err(error) if error.kind == Kind::NotFound && options.all => {}
            Err(error) => report.failures.push(error.context(format!("{} was not copied", listed.id))),
        }
    }
    Ok(report)
}

/// Adds the hint about --create only if the store is certainly absent: a store that cannot be reached may exist.
fn hint_create(error: Error) -> Error {
    if error.message.starts_with("there is no") {
        error.hint("check its name; --create makes a new store there")
    } else {
        error
    }
}

fn copy(from: &Catalog, to: &Catalog, listed: &Listed, is_one_of_all: bool, context: &Context) -> Result<Copied> {
    let (manifest, document) = from.manifest(&listed.id)?;
    let is_damaged = from.proof(listed)?.level == ProofLevel::Damaged;
    if is_damaged && is_one_of_all {
        return Err(Error::problem("a test found it damaged").hint("name it to have it copied all the same"));
    }
    if to.has(&manifest.id)? {
        let (other, theirs) = to.manifest(&manifest.id)?;
        if theirs != document {
            return Err(Error::failed("the other store has another snapshot of that id"));
        }
        to.open_archive(&other)?;
        return Ok(Copied { manifest, was_there: true });
    }
    if let Some(other) = to.newest_full(&manifest.source)?.filter(|other| other.origin != manifest.origin) {
        return Err(Error::usage(format!("the other store has a source {} from {}", manifest.source, other.origin))
            .hint("copy into a store of its own"));
    }
    let archive = from.open_archive(&manifest)?;
    let bytes = archive.len();
    let mut upload = to.start_archive(&manifest.id, &manifest.archive, bytes)?;
    context.progress.start(&format!("copying {}", manifest.id), bytes);
    let read = archive::stream(archive, &mut |bytes| {
        context.progress.advance(bytes.len() as u64);
        Ok(upload.write_all(bytes)?)
    });
    context.progress.finish();
    let sha256 = read?;
    if Some(sha256) != manifest.sha256 {
        return Err(Error::problem(format!("the snapshot {} is damaged: its archive's SHA-256 is off", manifest.id)));
    }
    to.publish_document(upload, ArchiveSummary { bytes, sha256 }, &manifest, &document, ReadBack::Always)?;
    if is_damaged {
        // Its bytes are as they were written, but a test found it damaged: it must not become the other store's latest.
        to.record_proof(&Proof {
            id: manifest.id.clone(),
            level: ProofLevel::Damaged,
            at: Utc::now(),
            host: context.host.clone(),
            seconds: 0.0,
            restore_seconds: None,
            problems: vec!["it was found damaged in the store that it was copied from".to_owned()],
        })?;
    }
    Ok(Copied { manifest, was_there: false })
}
