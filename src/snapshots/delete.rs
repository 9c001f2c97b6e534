//! Deletes snapshots, and the data of processes that died.

use crate::platform::error::{Error, Result};
use crate::snapshots::catalog::{Catalog, LEFTOVER_AGE, Listed, TRIAL_PREFIX};
use crate::snapshots::id::{STAMP_BYTES, SnapshotId};
use crate::snapshots::names::manifest_key;
use crate::store::{Key, Names, ObjectMeta};

/// The number of snapshots of a remote store that are deleted together.
const DELETED_AT_ONCE: usize = 300;

/// The result of [`Catalog::delete`].
#[derive(Debug, Default)]
pub struct Deletion {
    /// The snapshots that no longer exist, also if objects of them are left after a failure.
    pub gone: Vec<SnapshotId>,
    /// The bytes of their archives that were deleted.
    pub freed_bytes: u64,
    /// The error that ended the deletion early.
    pub failure: Option<Error>,
}

impl Catalog {
    /// Deletes snapshots, manifests first, so that an interrupted deletion leaves no partly deleted snapshot in
    /// listings. Ends at the first failure.
    #[must_use]
    pub fn delete(&self, snapshots: &[&Listed]) -> Deletion {
        let mut deletion = Deletion::default();
        for some in snapshots.chunks(if self.store.is_local() { 1 } else { DELETED_AT_ONCE }) {
            if let Err(error) = self.delete_some(some, &mut deletion) {
                deletion.failure = Some(error);
                break;
            }
        }
        deletion
    }

    /// Deletes a few snapshots together.
    fn delete_some(&self, some: &[&Listed], deletion: &mut Deletion) -> Result<()> {
        crate::platform::interrupt::check()?;
        let manifests = some.iter().map(|listed| manifest_key(&listed.id)).collect::<Result<Vec<_>>>()?;
        let archives = some.iter().filter_map(|listed| listed.archive.as_ref());
        let rest = some.iter().flat_map(|listed| listed.proofs.iter().chain(&listed.signature));
        let rest = rest.chain(archives.clone().map(|archive| &archive.key));
        let delete = |keys: &[Key]| {
            let first = &some[0].id;
            self.store.delete_all(keys).map_err(|error| match some.len() {
                1 => error.context(format!("cannot delete the snapshot {first}")),
                more => error.context(format!("cannot delete {more} snapshots (the newest is {first})")),
            })
        };
        if let Err(error) = delete(&manifests) {
            // Some of them may be deleted. One whose state cannot be read counts as still there.
            let gone = some.iter().filter(|listed| matches!(self.has(&listed.id), Ok(false)));
            deletion.gone.extend(gone.map(|listed| listed.id.clone()));
            return Err(error);
        }
        deletion.gone.extend(some.iter().map(|listed| listed.id.clone()));
        delete(&rest.cloned().collect::<Vec<_>>())?;
        deletion.freed_bytes += archives.map(|archive| archive.bytes).sum::<u64>();
        Ok(())
    }

    /// Deletes an object that belongs to no snapshot, after checking again that there is no manifest.
    pub fn delete_orphan(&self, object: &ObjectMeta) -> Result<()> {
        let id_bytes = object.key.folder().len() + 1 + STAMP_BYTES;
        let id = object.key.name().get(..id_bytes).and_then(|id| id.parse::<SnapshotId>().ok());
        match id {
            Some(id) if self.store.stat(&manifest_key(&id)?)?.is_none() => self.store.delete(&object.key),
            _ => Ok(()),
        }
    }

    /// Removes data of crashed uploads and of interrupted tests of the store that is older than [`LEFTOVER_AGE`].
    /// Returns the number of bytes freed.
    pub fn clear_leftovers(&self) -> Result<u64> {
        let mut freed_bytes = self.store.clear_leftovers(LEFTOVER_AGE)?;
        let now = std::time::SystemTime::now();
        for object in self.store.list("", Names::StartingWith(TRIAL_PREFIX))?.objects {
            if now.duration_since(object.modified).is_ok_and(|age| age > LEFTOVER_AGE) {
                self.store.delete(&object.key)?;
                freed_bytes += object.bytes;
            }
        }
        Ok(freed_bytes)
    }
}
