//! Deletes snapshots, and the data of processes that died.

use crate::platform::error::Result;
use crate::snapshots::catalog::{Catalog, LEFTOVER_AGE, Listed, TRIAL_PREFIX};
use crate::snapshots::id::{STAMP_BYTES, SnapshotId};
use crate::snapshots::names::manifest_key;
use crate::store::{Key, Names, ObjectMeta};

/// The number of snapshots of a remote store that are deleted together.
const DELETED_AT_ONCE: usize = 300;

impl Catalog {
    /// Deletes snapshots, manifests first, so that an interrupted deletion leaves no partly deleted snapshot in
    /// listings. Returns the bytes of their archives.
    pub fn delete(&self, snapshots: &[&Listed]) -> Result<u64> {
        let mut freed_bytes = 0;
        for some in snapshots.chunks(if self.store.is_local() { 1 } else { DELETED_AT_ONCE }) {
            crate::platform::interrupt::check()?;
            let manifests = some.iter().map(|listed| manifest_key(&listed.id)).collect::<Result<Vec<_>>>()?;
            let archives = some.iter().filter_map(|listed| listed.archive.as_ref());
            let rest =
                some.iter().flat_map(|listed| &listed.proofs).chain(archives.clone().map(|archive| &archive.key));
            let delete = |keys: &[Key]| {
                let first = &some[0].id;
                self.store.delete_all(keys).map_err(|error| match some.len() {
                    1 => error.context(format!("cannot delete the snapshot {first}")),
                    more => error.context(format!("cannot delete {more} snapshots (the newest is {first})")),
                })
            };
            delete(&manifests)?;
            delete(&rest.cloned().collect::<Vec<_>>())?;
            freed_bytes += archives.map(|archive| archive.bytes).sum::<u64>();
        }
        Ok(freed_bytes)
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
