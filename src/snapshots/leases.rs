//! Leases: a reader of a snapshot marks it in the store, so that no prune deletes it meanwhile.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::platform::error::{Error, Result};
use crate::snapshots::catalog::{Catalog, LEFTOVER_AGE};
use crate::snapshots::id::{STAMP_BYTES, SnapshotId, SourceName};
use crate::snapshots::names::key;
use crate::store::{Key, Names, Store, StoreExt};

const MARK: &str = ".lease-";

/// The mark of a snapshot that is being read. It ends when dropped, or a day after a crash.
pub struct Lease<'a> {
    store: &'a dyn Store,
    key: Key,
}

impl Catalog {
    /// Marks a snapshot as being read. Returns `None` if the store cannot be written to; the caller then reads without
    /// a lease.
    #[must_use]
    pub fn lease(&self, id: &SnapshotId) -> Option<Lease<'_>> {
        let write = || -> Result<Key> {
            let mut random = [0; 6];
            getrandom::fill(&mut random).map_err(|error| {
                Error::failed("cannot get random numbers from the system").because(error.to_string())
            })?;
            let key = key(&format!("{}/{id}{MARK}{}", id.source(), hex::encode(random)))?;
            let _ = self.store.write(&key, b"a restore or a drill is reading this snapshot")?;
            Ok(key)
        };
        match write() {
            Ok(key) => Some(Lease { store: &*self.store, key }),
            Err(error) => {
                tracing::info!("cannot mark {id} as in use, so a prune may delete it: {}", error.full_message());
                None
            }
        }
    }

    /// Returns the snapshots of a source that are being read. With `clear`, deletes the leases of crashed readers.
    pub fn in_use(&self, source: &SourceName, clear: bool) -> Result<BTreeSet<SnapshotId>> {
        let now = SystemTime::now();
        let mut ids = BTreeSet::new();
        for object in self.store.list(source.as_str(), Names::All)?.objects {
            let Some((id, rest)) = object.key.name().split_at_checked(source.as_str().len() + 1 + STAMP_BYTES) else {
                continue;
            };
            let (Ok(id), true) = (id.parse::<SnapshotId>(), rest.starts_with(MARK)) else { continue };
            if now.duration_since(object.modified).is_ok_and(|age| age > LEFTOVER_AGE) {
                if clear {
                    self.store.delete(&object.key)?;
                }
            } else {
                ids.insert(id);
            }
        }
        Ok(ids)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.store.delete(&self.key) {
            tracing::info!("cannot delete the lease {}, which expires after a day: {}", self.key, error.full_message());
        }
    }
}
