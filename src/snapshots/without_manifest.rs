//! Archives without a manifest, or with one that was cut, emptied or overwritten. They are data: an archive holds its own
//! manifest, so it can be listed, verified, restored and put back. They are deleted only if the user names them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::platform::ranged::Ranged;
use crate::snapshots::catalog::{Catalog, LEFTOVER_AGE, Listed};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::{archive_key, manifest_key};
use crate::snapshots::rivals::Rivals;
use crate::store::{Key, Names, ObjectMeta, Published, StoreExt};

/// The length of the shortest footer. A shorter object holds no data, and is what a crash has left.
pub(super) const LEAST_ARCHIVE_BYTES: u64 = 72;

/// An archive in a store that has no manifest there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveWithoutManifest {
    /// The id in its name.
    pub id: SnapshotId,
    /// The archive.
    pub archive: ObjectMeta,
    /// The keys of proofs with its id, oldest first.
    pub proofs: Vec<Key>,
    /// True if there is an object in the manifest's place that is not a JSON document.
    pub has_lost_manifest: bool,
}

impl ArchiveWithoutManifest {
    /// Returns true if it is too old to belong to a snapshot that is being written now.
    #[must_use]
    pub fn is_old(&self) -> bool {
        SystemTime::now().duration_since(self.archive.modified).is_ok_and(|age| age > LEFTOVER_AGE)
    }
}

impl Catalog {
    /// Returns those of the archives that still have no manifest. The listing may have been made while it was written.
    pub(super) fn only_without_manifest(
        &self,
        archives: Vec<ArchiveWithoutManifest>,
    ) -> Result<Vec<ArchiveWithoutManifest>> {
        let mut without_manifest = Vec::new();
        for archive in archives {
            if archive.is_old() || self.store.stat(&manifest_key(&archive.id)?)?.is_none() {
                without_manifest.push(archive);
            }
        }
        Ok(without_manifest)
    }

    /// Returns the archive of a snapshot whose manifest was cut, emptied or overwritten; `None` if the manifest can be read,
    /// or if there is no archive.
    pub fn with_lost_manifest(&self, listed: &Listed) -> Result<Option<ArchiveWithoutManifest>> {
        let Some(archive) = listed.archive.clone() else { return Ok(None) };
        let (id, proofs) = (listed.id.clone(), listed.proofs.clone());
        let is_lost = self.has_lost_manifest(&id)?;
        Ok(is_lost.then_some(ArchiveWithoutManifest { id, archive, proofs, has_lost_manifest: true }))
    }

    /// Returns true if the manifest of a snapshot was cut, emptied or overwritten.
    pub fn has_lost_manifest(&self, id: &SnapshotId) -> Result<bool> {
        match self.manifest_as_stored(id) {
            Err(error) if matches!(error.kind, Kind::Problem | Kind::NotFound) || error.is_newer_format() => {
                Ok(error.reason == Some(Reason::ManifestIsLost))
            }
            read => read.map(|_| false),
        }
    }

    /// Deletes a manifest that was cut, emptied or overwritten, right before it is written again.
    pub fn delete_lost_manifest(&self, id: &SnapshotId) -> Result<()> {
        if self.has_lost_manifest(id)? { self.store.delete(&manifest_key(id)?) } else { Ok(()) }
    }

    /// Opens an archive that has no manifest.
    pub fn open_without_manifest(&self, archive: &ArchiveWithoutManifest) -> Result<Arc<dyn Ranged>> {
        Ok(Arc::from(self.store.open(&archive.archive.key)?))
    }

    /// Returns the archive that the store has for a manifest, or `None`.
    pub fn stored_archive(&self, manifest: &Manifest) -> Result<Option<Arc<dyn Ranged>>> {
        match self.store.open(&archive_key(manifest)?) {
            Ok(archive) => Ok(Some(Arc::from(archive))),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the manifest of an archive that the store has already, and that was read and found whole. `document` is the
    /// manifest's text. Fails if the source has a snapshot of another database, unless this is a safety snapshot. The
    /// archive is not touched, whatever happens.
    pub fn put_manifest_back(&self, manifest: &Manifest, document: &[u8]) -> Result<()> {
        let key = manifest_key(&manifest.id)?;
        let context = |error: Error| error.context(format!("cannot write the manifest of {}", manifest.id));
        let before = match Rivals::of(manifest) {
            Rivals::Ignore => None,
            Rivals::Refuse => Some(self.require_no_rival(manifest).map_err(context)?),
        };
        // A signature that the store has is kept, if it is one of this document.
        let signature = self.signature_of(&manifest.id, document).map_err(context)?;
        if signature.is_none() && self.signature(&manifest.id).map_or(true, |found| found.is_some()) {
            self.delete_signature(&manifest.id).map_err(context)?;
        }
        let written = match self.store.write(&key, document) {
            Ok(Published::Created) => Ok(()),
            Ok(Published::AlreadyExists) => Err(Error::failed("a manifest with this id already exists")),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            // The reply may be lost, or another process may have written the same.
            match self.store.read(&key, Manifest::MAX_BYTES) {
                Ok(stored) if stored == document => {}
                _ => return Err(context(error)),
            }
        }
        if let Some(before) = before
            && let Err(rival) = self.settle_rivals(manifest, &before)
        {
            self.store.delete(&key).map_err(context)?;
            return Err(context(rival));
        }
        match self.store.stat(&archive_key(manifest)?) {
            Ok(Some(meta)) if Some(meta.bytes) == manifest.archive_bytes => Ok(()),
            Ok(_) => {
                self.store.delete(&key).map_err(context)?;
                Err(context(Error::failed("the archive disappeared while its manifest was written")))
            }
            Err(error) => {
                tracing::warn!(
                    "cannot check that the archive of {} still exists: {}",
                    manifest.id,
                    error.full_message()
                );
                Ok(())
            }
        }
    }

    /// Finds the archives without a manifest that a user names by their id, or a unique prefix of it. Fails if there is a
    /// snapshot of this name, or none at all.
    pub fn find_without_manifest(&self, wanted: &str) -> Result<Vec<ArchiveWithoutManifest>> {
        let (snapshots, mut found) = if wanted.is_empty() { Default::default() } else { self.matching(wanted, None)? };
        let ids: BTreeSet<&SnapshotId> = found.iter().map(|archive| &archive.id).collect();
        let exact = found.iter().any(|archive| archive.id.to_string() == wanted);
        let location = one_line(&self.location());
        if !exact && let Some(listed) = snapshots.first() {
            return Err(Error::usage(format!("{} in {location} has a manifest", listed.id))
                .hint("'lifeboat delete' deletes snapshots"));
        }
        if !exact && ids.len() > 1 {
            return Err(Error::usage(format!(
                "'{}' is the start of {} ids of archives without a manifest",
                one_line(wanted),
                ids.len()
            ))
            .hint("give more characters of the id; 'lifeboat list' shows the ids"));
        }
        if found.is_empty() {
            let name = one_line(wanted);
            return Err(Error::not_found(format!("there is no archive without a manifest {name} in {location}"))
                .hint("'lifeboat list' shows them"));
        }
        if exact {
            found.retain(|archive| archive.id.to_string() == wanted);
        }
        Ok(found)
    }

    /// Deletes an archive without a manifest and its proofs, after checking again that there is no manifest. Returns its
    /// length in bytes.
    pub fn delete_without_manifest(&self, archive: &ArchiveWithoutManifest) -> Result<u64> {
        let context = |error: Error| error.context(format!("cannot delete the archive {}", archive.archive.key));
        if self.store.stat(&manifest_key(&archive.id)?).map_err(context)?.is_some() {
            return Err(context(Error::failed("it has a manifest now").hint("'lifeboat delete' deletes snapshots")));
        }
        self.store.delete(&archive.archive.key).map_err(context)?;
        self.store.delete_all(&archive.proofs).map_err(context)?;
        Ok(archive.archive.bytes)
    }

    /// Returns the archives without a manifest of all sources, or of one, newest first.
    pub fn list_without_manifest(&self, source: Option<&SourceName>) -> Result<Vec<ArchiveWithoutManifest>> {
        let sources = match source {
            Some(source) => vec![source.clone()],
            None => self.sources()?,
        };
        let mut found = Vec::new();
        for source in &sources {
            found.extend(self.list_grouped(source, Names::All)?.1);
        }
        found.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        self.only_without_manifest(found)
    }
}
