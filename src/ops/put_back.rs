//! `copy` of an archive that has no manifest: puts it into a store, and writes its manifest there. Every byte of the
//! archive is read and compared with its own hashes first.

use std::sync::Arc;

use crate::archive::{self, ArchiveSummary};
use crate::ops::choose::Choice;
use crate::ops::fetch::{self, Opened};
use crate::ops::{Context, choose, in_store};
use crate::platform::digest::Sha256;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::ranged::Ranged;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::proofs::ProofLevel;
use crate::snapshots::publish::{Publishing, ReadBack};
use crate::snapshots::rivals::Rivals;
use crate::snapshots::signatures::Signing;

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
    let in_target = |error: Error| in_store(error, to);
    let there = to.listed(&manifest.id).map_err(in_target)?;
    let has_lost_manifest = there.is_some() && to.has_lost_manifest(&manifest.id).map_err(in_target)?;
    if let Some(there) = there.as_ref().filter(|_| !has_lost_manifest) {
        let (other, _) = to.manifest_as_stored(&manifest.id).map_err(in_target)?;
        if (other.sha256, other.archive_bytes) != (manifest.sha256, manifest.archive_bytes) {
            return Err(in_target(Error::failed("it has a different snapshot with this id")));
        }
        let is_intact = match to.open_archive(&other) {
            Ok(_) => to.proof(there).map_err(in_target)?.level != ProofLevel::Damaged,
            Err(error) if error.kind == Kind::Problem => false,
            Err(error) => return Err(in_target(error)),
        };
        if is_intact {
            return Ok((manifest, Effect::WasThere));
        }
        let upload = upload(&whole, to, context)?;
        to.mend_archive(upload, whole.summary, &other)?;
        to.forget_damage(there)?;
        return Ok((manifest, Effect::Mended));
    }
    to.require_same_database(&manifest)?;
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
            to.delete_lost_manifest(&manifest.id).map_err(in_target)?;
            let signature = match choice.catalog() {
                Some(from) => from.signature_of(&manifest.id, &whole.document)?,
                None => None,
            };
            warn_if_unsigned(signature.is_some(), to, &manifest);
            let rivals = Rivals::of(&manifest);
            let options = Publishing { read_back: ReadBack::Always, rivals, signing: Signing::Keep(signature) };
            to.publish_document(upload, whole.summary, &manifest, &whole.document, options)?;
            return Ok((manifest, Effect::Copied));
        }
    }
    to.delete_lost_manifest(&manifest.id).map_err(in_target)?;
    to.put_manifest_back(&manifest, &whole.document)?;
    warn_if_unsigned(to.signature_of(&manifest.id, &whole.document)?.is_some(), to, &manifest);
    if let Some(there) = &there {
        to.forget_damage(there)?;
    }
    Ok((manifest, Effect::ManifestWritten))
}

/// Warns if signatures are used, and the manifest that was written has none: whoever put the archive there may have made it.
fn warn_if_unsigned(is_signed: bool, to: &Catalog, manifest: &Manifest) {
    if !is_signed && to.uses_signatures() {
        tracing::warn!(
            "{0} is not signed, because it is not known who made its archive: if you know it, \
             'ssh-keygen -Y sign -f KEY -n lifeboat-manifest {0}.json' signs it",
            manifest.id
        );
    }
}

/// Reads every byte of an archive, and makes the manifest outside from the one in it.
fn read_whole(choice: &Choice, context: &Context) -> Result<Whole> {
    let opened: Opened = choice.open_as_stored(context)?;
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
    let mut manifest = Manifest { sha256: Some(walk.sha256), ..opened.manifest };
    let mut document = manifest.document_from(&opened.document)?;
    // The manifest of a snapshot that was signed has the hash of the index, too.
    let signature = choice.catalog().map(|catalog| catalog.signature_of(&manifest.id, &document)).transpose()?;
    if signature.flatten().is_none() {
        manifest.index_sha256 = None;
        document = manifest.document_from(&opened.document)?;
    }
    // The document must be read as the manifest that it stands for.
    let outside = Manifest::from_json(&document)?;
    let summary = ArchiveSummary { bytes: archive.len(), sha256: walk.sha256, index_sha256: None };
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
