//! `copy`: copies snapshots from one store to another, byte for byte, or encrypted to other keys. The bytes are hashed
//! when they are read, and again when the copy is read back.

use std::collections::BTreeSet;

use chrono::Utc;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::archive::{self, ArchiveSummary, EncryptWith, Recipient};
use crate::ops::choose::{Choice, archive_path};
use crate::ops::put_back::{Effect, put_back};
use crate::ops::summary::{RunSummary, SnapshotSummary, SourceResults};
use crate::ops::{
    Context, Problem, Report, SnapshotFilter, error_document, in_store, reencrypt, snapshot_document, stores,
};
use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::snapshots::catalog::{Catalog, Listed};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::proofs::{Proof, ProofLevel, ProofSummary};
use crate::snapshots::publish::{Publishing, ReadBack};
use crate::snapshots::rivals::{Rivals, SEPARATE_STORE};
use crate::snapshots::signatures::Signing;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::StoreUrl;

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct CopyOptions {
    /// A snapshot id, the start of one, or 'latest'
    pub snapshot: String,
    /// The filters for the snapshots to choose from
    pub filter: SnapshotFilter,
    /// Copy all snapshots (of --source, if given) that the target store does not have yet
    pub all: bool,
    /// The store to copy from; default: --store
    pub from: Option<StoreUrl>,
    /// The store to copy to
    pub to: StoreUrl,
    /// Create the target store if it does not exist
    pub create: bool,
    /// The keys to which encrypted snapshots are encrypted anew; none: every byte is copied as it is
    pub encrypt_to: Vec<Recipient>,
}

impl CopyOptions {
    fn encrypt_with(&self) -> Option<EncryptWith> {
        (!self.encrypt_to.is_empty()).then(|| EncryptWith::Recipients(self.encrypt_to.clone()))
    }
}

/// A snapshot that is in the target store now.
#[derive(Debug)]
pub(crate) struct Copied {
    /// Its manifest, as it is stored outside the archive.
    pub manifest: Manifest,
    /// True if the target store already had it.
    pub was_there: bool,
    /// True if its archive in the other store was missing or damaged, and was copied again.
    pub mended: bool,
    /// True if the target store had the archive without a manifest, and the manifest was written again.
    pub manifest_written: bool,
}

/// The snapshots that are in the target store now, and the errors of those that could not be copied.
#[derive(Debug, Default)]
pub(crate) struct CopyReport {
    /// Newest first.
    pub snapshots: Vec<Copied>,
    /// The errors of the snapshots that were not copied. The first one decides the exit code.
    pub failures: Vec<Error>,
    /// The location of the target store.
    pub store: String,
    /// The failures, by source. The successes are added in the summary.
    pub results: SourceResults,
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
            document.insert("mended".to_owned(), json!(copied.mended));
            document.insert("manifest_written".to_owned(), json!(copied.manifest_written));
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
    fn summary(&self) -> RunSummary {
        let of = |copied: &Copied| SnapshotSummary::of(&copied.manifest, &ProofSummary::default());
        let mut results = self.results.clone();
        self.snapshots.iter().for_each(|copied| results.succeed(&copied.manifest.source));
        RunSummary { snapshots: self.snapshots.iter().map(of).collect(), results, ..RunSummary::default() }
    }

    fn errors(&self) -> &[Error] {
        &self.failures
    }
}

/// Runs the command. If one of several snapshots fails, the others are still copied.
pub(crate) fn run(options: &CopyOptions, context: &Context) -> Result<CopyReport> {
    let resolve = |given: &StoreUrl| match &context.config {
        Some(config) => config.store_named(given),
        None => Ok(given.clone()),
    };
    let (from, to_url) = (options.from.as_ref().map(resolve).transpose()?, resolve(&options.to)?);
    let of_file = archive_path(&options.snapshot).filter(|_| !options.all);
    if of_file.is_some() {
        refuse_encryption(options)?;
        let to = open_target(options, &to_url, context)?;
        let choice = Choice::find(&options.snapshot, &options.filter, || context.open_catalog())?;
        return put_one_back(&choice, &to, false, context);
    }
    let from_url = match &from {
        Some(from) => from,
        None if context.stores.is_empty() => {
            return Err(Error::usage("no store to copy from is given").hint("name it with --from"));
        }
        None => context.store()?,
    };
    let from = context.open(from_url)?;
    let is_same_store = from_url.is_same_place(&to_url);
    let mut left_out = Vec::new();
    let (from, listed) = if options.all {
        let listed = from.list_all(options.filter.source.as_ref())?;
        left_out = from.list_without_manifest(options.filter.source.as_ref())?;
        // A younger one may belong to a snapshot that is being written.
        left_out.retain(ArchiveWithoutManifest::is_old);
        (from, listed)
    } else {
        match Choice::find(&options.snapshot, &options.filter, || Ok(from))? {
            Choice::Snapshot(from, listed) => (from, vec![listed]),
            choice => {
                refuse_encryption(options)?;
                return put_one_back(&choice, &open_target(options, &to_url, context)?, is_same_store, context);
            }
        }
    };
    if listed.is_empty() && left_out.is_empty() {
        return Err(Error::not_found(format!("there is no snapshot to copy in {}", one_line(&from.location())))
            .hint("take one with 'lifeboat snapshot'"));
    }
    let to = open_target(options, &to_url, context)?;
    if is_same_store {
        return Err(Error::usage("the two stores are the same").hint("name another store with --to"));
    }
    let mut report = CopyReport { store: to.location(), ..CopyReport::default() };
    // The first copy of a source settles which database has the name of the source.
    let mut settled: BTreeSet<SourceName> = BTreeSet::new();
    let all = listed;
    for (number, listed) in all.iter().enumerate() {
        let rivals = if settled.contains(listed.id.source()) { Rivals::Ignore } else { Rivals::Refuse };
        match copy(&from, &to, listed, options, rivals, context) {
            Ok(copied) => {
                if !copied.was_there && copied.manifest.kind == SnapshotKind::Full {
                    settled.insert(copied.manifest.source.clone());
                }
                report.snapshots.push(copied);
            }
            Err(error) if error.kind == Kind::Interrupted && report.snapshots.is_empty() => return Err(error),
            Err(error) if error.kind == Kind::Interrupted => {
                let error = error.context(format!("{} was not copied", listed.id));
                all[number..].iter().for_each(|missed| report.results.fail(missed.id.source(), Some(&error)));
                report.failures.insert(0, error);
                break;
            }
            // This snapshot was pruned while others were copied.
            Err(error) if error.kind == Kind::NotFound && options.all => {}
            Err(error) => {
                let error = error.context(format!("{} was not copied", listed.id));
                report.results.fail(listed.id.source(), Some(&error));
                report.failures.push(error);
            }
        }
    }
    for archive in &left_out {
        let error = not_copied(archive);
        report.results.fail(archive.id.source(), Some(&error));
        report.failures.push(error);
    }
    Ok(report)
}

/// Returns the error for an archive without a manifest that `copy --all` leaves out.
fn not_copied(archive: &ArchiveWithoutManifest) -> Error {
    let id = &archive.id;
    Error::problem(format!("{id} was not copied: it is an archive without a manifest"))
        .hint(format!("'lifeboat copy {id}' copies it, and writes its manifest again"))
}

/// Fails if --encrypt-to is given for an archive without a manifest, whose bytes are put back as they are.
fn refuse_encryption(options: &CopyOptions) -> Result<()> {
    match options.encrypt_to.is_empty() {
        true => Ok(()),
        false => Err(Error::usage("an archive without a manifest cannot be encrypted to other keys")
            .hint("copy it without --encrypt-to first: then it is a snapshot")),
    }
}

/// Opens the store to copy to.
fn open_target(options: &CopyOptions, url: &StoreUrl, context: &Context) -> Result<Catalog> {
    let opened = match options.create {
        true => stores::open_or_create(url),
        false => stores::open_to_write(url).map_err(hint_create),
    };
    opened.map(|catalog| catalog.with_trust(context.trust.clone()))
}

/// Copies an archive that has no manifest.
fn put_one_back(choice: &Choice, to: &Catalog, is_same_store: bool, context: &Context) -> Result<CopyReport> {
    let (manifest, effect) = put_back(choice, to, is_same_store, context)
        .map_err(|error| error.context(format!("{} was not copied", one_line(&choice.shown()))))?;
    if let Some(distrust) = to.manifest(&manifest.id).err().filter(Error::is_not_trusted) {
        warn_of_untrusted(&distrust);
    }
    let copied = Copied {
        manifest,
        was_there: effect != Effect::Copied,
        mended: effect == Effect::Mended,
        manifest_written: effect == Effect::ManifestWritten,
    };
    Ok(CopyReport { snapshots: vec![copied], store: to.location(), ..CopyReport::default() })
}

fn warn_of_untrusted(distrust: &Error) {
    tracing::warn!("copying a snapshot that is not trusted: {}", distrust.full_message());
}

/// Adds a hint about --create, but only if the store is known to be absent: a store that cannot be reached may exist.
fn hint_create(error: Error) -> Error {
    if error.reason == Some(Reason::StoreIsAbsent) {
        error.hint("check its name; --create creates a new store there")
    } else {
        error
    }
}

fn copy(
    from: &Catalog,
    to: &Catalog,
    listed: &Listed,
    options: &CopyOptions,
    rivals: Rivals,
    context: &Context,
) -> Result<Copied> {
    let in_source = |error: Error| in_store(error, from);
    let in_target = |error: Error| in_store(error, to);
    let (manifest, document) = from.manifest_as_stored(&listed.id).map_err(in_source)?;
    from.distrust_of(&manifest, &document).iter().for_each(warn_of_untrusted);
    let is_damaged = from.proof(listed).map_err(in_source)?.level == ProofLevel::Damaged;
    if is_damaged && (options.all || !options.encrypt_to.is_empty()) {
        return Err(in_source(Error::problem("a test found it damaged"))
            .hint("name its id, without --encrypt-to, to copy it in spite of that"));
    }
    let mut there = to.listed(&manifest.id).map_err(in_target)?;
    if there.is_some() && to.has_lost_manifest(&manifest.id).map_err(in_target)? {
        // The snapshot is written as if it were not there, over the archive if that is the same.
        to.delete_lost_manifest(&manifest.id).map_err(in_target)?;
        there = None;
    }
    if let Some(there) = &there {
        if !options.encrypt_to.is_empty() {
            // An archive does not show its keys, so this one may be encrypted to others.
            let message = format!("it already has the snapshot {}", there.id);
            return Err(in_target(Error::failed(message)).hint("--encrypt-to needs a store without that snapshot"));
        }
        let (other, theirs) = to.manifest_as_stored(&manifest.id).map_err(in_target)?;
        if theirs != document {
            return Err(in_target(Error::failed("it has a different snapshot with this id")));
        }
        if let Some(signature) = signature_to_copy(from, listed, &document).map_err(in_source)?
            && to.signature_of(&manifest.id, &document).map_err(in_target)?.is_none()
        {
            to.put_signature(&manifest.id, &signature).map_err(in_target)?;
        }
        if is_whole(to, there, &other).map_err(in_target)? {
            return Ok(Copied { manifest, was_there: true, mended: false, manifest_written: false });
        }
        if is_damaged {
            return Err(in_target(Error::problem("it is damaged in both stores")));
        }
    } else {
        to.require_same_database(&manifest)?;
    }
    let rivals = if Rivals::of(&manifest) == Rivals::Ignore { Rivals::Ignore } else { rivals };
    if let Some(encrypt_with) = options.encrypt_with() {
        let manifest = reencrypt::copy(from, to, &manifest, &encrypt_with, rivals, context)?;
        return Ok(Copied { manifest, was_there: false, mended: false, manifest_written: false });
    }
    let archive = from.open_archive(&manifest).map_err(in_source)?;
    let signature = signature_to_copy(from, listed, &document).map_err(in_source)?;
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
        let message = "the SHA-256 of its archive is not the one in the manifest";
        return Err(in_source(Error::problem(format!("the snapshot {} is damaged: {message}", manifest.id))));
    }
    let summary = ArchiveSummary { bytes, sha256, index_sha256: None };
    if let Some(there) = &there {
        to.mend_archive(upload, summary, &manifest)?;
        to.forget_damage(there)?;
        return Ok(Copied { manifest, was_there: true, mended: true, manifest_written: false });
    }
    let options = Publishing { read_back: ReadBack::Always, rivals, signing: Signing::Keep(signature) };
    to.publish_document(upload, summary, &manifest, &document, options).map_err(|error| match error.kind {
        Kind::Usage => in_target(error).hint(SEPARATE_STORE),
        _ => error,
    })?;
    if is_damaged {
        // Its bytes were copied correctly, but an earlier test found it damaged: it must not be 'latest' in the target
        // store.
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
    Ok(Copied { manifest, was_there: false, mended: false, manifest_written: false })
}

/// Returns the signature of a snapshot, if it has one that is of its manifest. A copy is never signed anew.
fn signature_to_copy(from: &Catalog, listed: &Listed, document: &[u8]) -> Result<Option<Vec<u8>>> {
    match &listed.signature {
        Some(_) => from.signature_of(&listed.id, document),
        None => Ok(None),
    }
}

/// Returns false if the archive is missing, if it has another length than its manifest says, or if a test found it
/// damaged.
fn is_whole(catalog: &Catalog, listed: &Listed, manifest: &Manifest) -> Result<bool> {
    match catalog.open_archive(manifest) {
        Ok(_) => Ok(catalog.proof(listed)?.level != ProofLevel::Damaged),
        Err(error) if error.kind == Kind::Problem => {
            tracing::warn!("{}: {}", one_line(&catalog.location()), error.full_message());
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
