//! The snapshots of one store. Other files list, find, publish and delete them.
//!
//! ```text
//! lifeboat.json                     the store's format version (see `mark`)
//! <source>/<id>.tar.gz              the archive; .tar.zst with zstd, followed by .age if it is encrypted
//! <source>/<id>.json                the manifest, written last: it makes the snapshot exist
//! <source>/<id>.proof-<time>.json   the result of a verify or drill
//! <source>/<id>.lease-<random>      the mark of a reader at work (see `leases`)
//! ```

use std::time::Duration;

use crate::platform::error::Result;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::store::{Key, Names, ObjectMeta, Store};

/// The name of the object that marks a store.
pub(super) const STORE_DOCUMENT: &str = "lifeboat.json";
/// The prefix of the names of objects with which `doctor` tests a store.
pub const TRIAL_PREFIX: &str = "trial-";
/// The maximum time by which another machine's clock may be ahead before its snapshots count as dated in the future.
pub(super) const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(60);
/// The minimum age of a crashed writer's data before it is removed.
pub const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// The snapshots of one store.
pub struct Catalog {
    pub(super) store: Box<dyn Store>,
}

/// A snapshot known only from the names in a store: its manifest exists, but was not read yet.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: SnapshotId,
    /// Its archive; `None` if it is missing.
    pub archive: Option<ObjectMeta>,
    /// The keys of its proofs, oldest first.
    pub proofs: Vec<Key>,
}

impl Catalog {
    /// Returns true if an object with this name at a store's top level belongs to the store itself.
    #[must_use]
    pub fn is_own(name: &str) -> bool {
        name == STORE_DOCUMENT || name.starts_with(TRIAL_PREFIX)
    }

    /// Returns the store's location.
    #[must_use]
    pub fn location(&self) -> String {
        self.store.location()
    }

    /// Returns the store's free space in bytes, or `None` if it is not known.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        self.store.free_bytes()
    }

    /// Returns true if the store is local, false if it is reached over a network.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.store.is_local()
    }

    /// Returns the sources that have a folder in the store, sorted by name. A folder may have no snapshot.
    pub fn sources(&self) -> Result<Vec<SourceName>> {
        Ok(self.store.list("", Names::All)?.folders.iter().filter_map(|folder| folder.parse().ok()).collect())
    }
}
