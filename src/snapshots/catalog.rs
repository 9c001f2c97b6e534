//! The snapshots of one store. Other files list, find, publish and delete them.
//!
//! ```text
//! lifeboat.json                     the store's format version (see `mark`)
//! <source>/<id>.tar.gz              the archive; .tar.zst with zstd, followed by .age if it is encrypted
//! <source>/<id>.json.sig            the signature of the manifest, if there is a key (see `signatures`)
//! <source>/<id>.json                the manifest, written last: it makes the snapshot exist
//! <source>/<id>.proof-<time>.json   the result of a verify or drill
//! <source>/<id>.lease-<random>      the mark of a reader at work (see `leases`)
//! <source>/guard.lease-<id>-<n>     the mark of a running guard (see `guard_leases`)
//! ```

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::platform::error::Result;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::trust::Trust;
use crate::store::{Key, Names, ObjectMeta, Store};

/// The name of the object that marks a store.
pub(super) const STORE_DOCUMENT: &str = "lifeboat.json";
/// The prefix of the names of objects with which `doctor` tests a store.
pub const TRIAL_PREFIX: &str = "trial-";
/// The maximum time by which another machine's clock may be ahead before its snapshots count as dated in the future.
pub(crate) const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(60);
/// The minimum age of a crashed writer's data before it is removed.
pub const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// The snapshots of one store.
pub struct Catalog {
    pub(super) store: Box<dyn Store>,
    /// The rules by which its snapshots are trusted.
    pub(super) trust: Trust,
}

/// A snapshot known only from the names in a store: its manifest exists, but was not read yet.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: SnapshotId,
    /// The size of its manifest, in bytes.
    pub manifest_bytes: u64,
    /// Its archive; `None` if it is missing.
    pub archive: Option<ObjectMeta>,
    /// The keys of its proofs, oldest first.
    pub proofs: Vec<Key>,
    /// The key of the signature of its manifest, if there is one.
    pub signature: Option<Key>,
}

impl Listed {
    /// Returns the time by which the order of snapshots is decided. See [`time_of`].
    pub(crate) fn time(&self) -> DateTime<Utc> {
        time_of(&self.id, self.archive.as_ref())
    }
}

/// Returns the time by which the order of snapshots is decided: that of the id, or, if a wrong clock has dated the id in
/// the future, the time at which the store received the archive. The data is not newer than that.
pub(crate) fn time_of(id: &SnapshotId, archive: Option<&ObjectMeta>) -> DateTime<Utc> {
    let received = archive.map(|archive| DateTime::<Utc>::from(archive.modified));
    received.filter(|received| *received + CLOCK_SLACK < id.time()).unwrap_or(id.time())
}

impl Catalog {
    /// Makes the catalog of a store, with the rules of trust that need no config.
    pub(super) fn of(store: Box<dyn Store>) -> Self {
        Catalog { store, trust: Trust::default() }
    }

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
