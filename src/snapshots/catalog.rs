//! The snapshots of one store. Other files list, find, publish and delete them.
//!
//! ```text
//! lifeboat.json                     the store's format version
//! <source>/<id>.tar.gz              the archive; .tar.zst with zstd, followed by .age if it is encrypted
//! <source>/<id>.json                the manifest, written last: it makes the snapshot exist
//! <source>/<id>.proof-<time>.json   the result of a verify or drill
//! <source>/<id>.lease-<random>      the mark of a reader at work (see `leases`)
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::archive::{FORMAT, check_version};
use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::names::key;
use crate::store::{Key, Names, ObjectMeta, Store, StoreExt};

const STORE_DOCUMENT: &str = "lifeboat.json";
/// The prefix of the names of objects with which `doctor` tests a store.
pub const TRIAL_PREFIX: &str = "trial-";
/// The maximum time by which another machine's clock may be ahead before its snapshots count as dated in the future.
pub(super) const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(60);
const MAX_DOCUMENT_BYTES: u64 = 1 << 16;
/// The minimum age of a crashed writer's data before it is removed.
pub const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize, Deserialize)]
struct StoreDocument {
    lifeboat_store: Value,
}

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
    /// Opens an existing store.
    pub fn open(store: Box<dyn Store>) -> Result<Self> {
        let location = store.location();
        let document = match store.read(&key(STORE_DOCUMENT)?, MAX_DOCUMENT_BYTES) {
            // A lifecycle rule of the bucket moved it. It exists, so the store does, and new snapshots can be written.
            Err(error) if error.reason == Some(Reason::ObjectIsArchived) => {
                tracing::warn!("{STORE_DOCUMENT} is not read: {}", error.full_message());
                return Ok(Catalog { store });
            }
            read => read,
        };
        let document = document.map_err(|error| match error.kind {
            Kind::NotFound => Error::unreachable(format!("there is no lifeboat store in {}", one_line(&location)))
                .reason(Reason::StoreIsAbsent)
                .hint(match store.is_local() {
                    true => {
                        "check the path, and that its disk is mounted; 'lifeboat snapshot --store' creates a store if \
                         the folder does not exist"
                    }
                    false => {
                        "check the bucket and the prefix; 'lifeboat snapshot --store' creates a store if no object \
                         exists there"
                    }
                }),
            _ => error,
        })?;
        let document: StoreDocument = serde_json::from_slice(&document).map_err(|error| {
            // A page for people, such as the login page of a network, says nothing about the store.
            if !store.is_local() && document.trim_ascii_start().starts_with(b"<") {
                return Error::unreachable(format!("cannot read {STORE_DOCUMENT} in {}", one_line(&location)))
                    .because("the answer is a web page, and not that of an S3 service")
                    .hint("check the endpoint");
            }
            Error::problem(format!("cannot parse {STORE_DOCUMENT} in {}", one_line(&location))).because(error)
        })?;
        check_version(&format!("the store {}", one_line(&location)), &document.lifeboat_store)?;
        Ok(Catalog { store })
    }

    /// Returns true if `store` is already a store of snapshots.
    pub fn exists(store: &dyn Store) -> Result<bool> {
        // Read instead of stat: if the request is refused, only a reply with a body has the cause.
        match store.read(&key(STORE_DOCUMENT)?, MAX_DOCUMENT_BYTES) {
            Ok(_) => Ok(true),
            Err(error) if error.reason == Some(Reason::ObjectIsArchived) => Ok(true),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns true if an object with this name at a store's top level belongs to the store itself.
    #[must_use]
    pub fn is_own(name: &str) -> bool {
        name == STORE_DOCUMENT || name.starts_with(TRIAL_PREFIX)
    }

    /// Creates a store in an empty place, and opens it.
    pub fn create(store: Box<dyn Store>) -> Result<Self> {
        let document = serde_json::to_vec(&StoreDocument { lifeboat_store: FORMAT.into() }).expect("one number");
        // If another process was first, the document is the same.
        let _ = store.write(&key(STORE_DOCUMENT)?, &document)?;
        Catalog::open(store)
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
