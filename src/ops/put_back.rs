//! `copy` of an archive that has no manifest: puts it into a store, and writes its manifest there. Every byte of the
//! archive is read and compared with its own hashes first.

use std::sync::Arc;

use crate::archive::{self, ArchiveSummary};
use crate::ops::choose::Choice;
use crate::ops::fetch::{self, Opened};
use crate::ops::{Context, choose};
use crate::platform::digest::Sha256;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::ranged::Ranged;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::publish::{ReadBack, Rivals};

/// The effect of putting an archive into a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The store has it now.
    Copied,
    /// The store had the archive, and has its manifest now.
    ManifestWritten,
    /// The store had both.
    WasThere,
    /// The store had the manifest, and has a whole archive now.
    Mended,
}

/// An archive that was read and found whole.
struct Whole {
    archive: Arc<dyn Ranged>,
    /// The manifest outside, as it is to be stored.
    manifest: Manifest,
    document: Vec<u8>,
    summary: ArchiveSummary,
}

/// Puts an archive into `to`. `is_same_store` is true if it is in that store already.
pub(crate) fn put_back(
    choice: &Choice,
    to: &Catalog,
    is_same_store: bool,
    context: &Context,
) -> Result<(Manifest, Effect)> {
    let whole = read_whole(choice, context)?;
    let manifest = whole.manifest.clone();
    let in_target = |error: Error| error.context(format!("a problem in {}", one_line(&to.location())));
    if let Some(there) = to.listed(&manifest.id).map_err(in_target)? {
        let (other, _) = to.manifest(&manifest.id).map_err(in_target)?;
        if (other.sha256, other.archive_bytes) != (manifest.sha256, manifest.archive_bytes) {
            return Err(in_target(Error::failed("it has a different snapshot with this id")));
        }
        let is_intact = match to.open_archive(&other) {
            Ok(_) => to.proof(&there).map_err(in_target)?.level != ProofLevel::Damaged,
            Err(error) if error.kind == Kind::Problem => false,
            Err(error) => return Err(in_target(error)),
        };
        if is_intact {
            return Ok((manifest, Effect::WasThere));
        }
        let upload = upload(&whole, to, context)?;
        to.mend_archive(upload, whole.summary, &other)?;
        to.forget_damage(&there)?;
        return Ok((manifest, Effect::Mended));
    }
    if let Some(other) = to.newest_full(&manifest.source)?.filter(|other| !other.is_of_same_database(&manifest)) {
        return Err(in_target(Error::usage(format!("it has a source {} from {}", manifest.source, other.origin)))
            .hint("copy it into a separate store"));
    }
    match to.stored_archive(&manifest).map_err(in_target)? {
        // In its own store, the archive that was read is this one.
        Some(_) if is_same_store => {}
        Some(stored) if hash(Arc::clone(&stored)).map_err(in_target)? == whole.summary.sha256 => {}
        Some(_) => {
            let id = &manifest.id;
            return Err(in_target(Error::failed(format!("it has another archive of {id}, without a manifest")))
                .hint(format!("'lifeboat prune --without-manifest {id}' deletes that one")));
        }
        None if is_same_store => {
            return Err(in_target(Error::not_found(format!("the archive of {} no longer exists", manifest.id))));
        }
        None => {
            let upload = upload(&whole, to, context)?;
            to.publish_document(upload, whole.summary, &manifest, &whole.document, ReadBack::Always, Rivals::Ignore)?;
            return Ok((manifest, Effect::Copied));
        }
    }
    to.put_manifest_back(&manifest, &whole.document)?;
    Ok((manifest, Effect::ManifestWritten))
}

/// Reads every byte of an archive, and makes the manifest outside from the one in it.
fn read_whole(choice: &Choice, context: &Context) -> Result<Whole> {
    let opened: Opened = choice.open(context)?;
    let shown = choice.shown();
    let archive = match choice {
        Choice::WithoutManifest(catalog, found) => catalog.open_without_manifest(found)?,
        Choice::File(path) => choose::open_file(path)?,
        Choice::Snapshot(..) => return Err(Error::failed(format!("{shown} has a manifest"))),
    };
    if fetch::is_encrypted(&*archive)? != opened.manifest.encrypted {
        return Err(Error::usage(format!(
            "{shown} is not the archive as it was stored: it was encrypted or decrypted since"
        ))
        .hint("give the original file; 'lifeboat restore' can use this one"));
    }
    context.progress.start(&format!("verifying {}", opened.manifest.id), 0);
    let walk = opened.reader.inspect();
    context.progress.finish();
    let walk = walk.map_err(|error| error.context(format!("the archive {shown} is damaged")))?;
    if let Some(problem) = walk.problems.into_iter().next() {
        return Err(problem.context(format!("the archive {shown} is damaged")));
    }
    let manifest = Manifest { sha256: Some(walk.sha256), ..opened.manifest };
    let document = manifest.document_from(&opened.document)?;
    // The document must be read as the manifest that it stands for.
    let outside = Manifest::from_json(&document)?;
    let summary = ArchiveSummary { bytes: archive.len(), sha256: walk.sha256 };
    Ok(Whole { archive, manifest: outside, document, summary })
}

/// Writes the archive to `to`; it is not published yet.
fn upload(whole: &Whole, to: &Catalog, context: &Context) -> Result<Box<dyn crate::store::Upload>> {
    let mut upload = to.start_archive(&whole.manifest.id, &whole.manifest.archive, whole.summary.bytes)?;
    context.progress.start(&format!("copying {}", whole.manifest.id), whole.summary.bytes);
    let read = archive::stream(Arc::clone(&whole.archive), &mut |bytes| {
        context.progress.advance(bytes.len() as u64);
        Ok(upload.write_all(bytes)?)
    });
    context.progress.finish();
    if read? != whole.summary.sha256 {
        return Err(Error::failed(format!("the archive of {} changed while it was read", whole.manifest.id)));
    }
    Ok(upload)
}

fn hash(archive: Arc<dyn Ranged>) -> Result<Sha256> {
    archive::stream(archive, &mut |_| Ok(()))
}
