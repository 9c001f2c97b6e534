//! The leases of running guards: an object in the folder of each source says which guard works with the database, so that
//! a second one knows that the first has data which the store does not have yet.
//!
//! Objects are written once. So a lease is renewed by writing `guard.lease-<id>-<number>` with the next number, and then
//! deleting the one before. All times that are compared are times of the store's clock: those at which the objects were
//! written. A lease that was not renewed for [`EXPIRES_AFTER`] belongs to a guard that was killed.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::platform::error::{Error, Kind, Reason, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SourceName;
use crate::snapshots::mark::warn_once;
use crate::snapshots::names::key;
use crate::snapshots::signed;
use crate::snapshots::trust::Signer;
use crate::store::{Key, Names, ObjectMeta, Published, StoreExt};

/// The time after which a guard renews its lease.
pub(crate) const RENEW_AFTER: Duration = Duration::from_secs(60);
/// The age from which a lease is no longer valid: two renewals have failed.
pub(crate) const EXPIRES_AFTER: Duration = Duration::from_secs(150);
/// The age at which `prune` deletes a lease. It compares the times of two clocks, which may differ.
const LEFTOVER_AFTER: Duration = Duration::from_secs(3600);

/// The difference between the time in a signed lease and that of its object from which it is a copy. The clocks of two
/// machines may differ.
const COPY_AFTER: Duration = Duration::from_secs(600);

/// The start of the names of these objects. No id of a snapshot begins like this, whatever the source's name.
const PREFIX: &str = "guard.lease-";
/// The version of the document.
const FORMAT: u32 = 1;
/// The maximum size of the document.
const MAX_BYTES: u64 = 16 << 10;
/// The maximum number of attempts to list leases that are renewed meanwhile.
const MOST_LISTINGS: usize = 10;
/// The maximum number of leases of one source that are read.
const MOST_READ: usize = 64;

/// The work of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GuardState {
    /// It has just started, and has not decided yet.
    Starting,
    /// It waits for another guard.
    Waiting,
    /// It restores the database, or its program runs.
    Running,
    /// Its program has ended, and it takes the last snapshot.
    Ending,
    /// It has ended, and has not saved all.
    Unsaved,
}

/// The document of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardLease {
    /// The version of this document.
    pub(crate) format: u32,
    /// The id of the guard, the same in all stores.
    pub(crate) id: String,
    /// The name of the machine, as origins have it.
    pub(crate) host: String,
    /// The time at which the guard started, by its own clock.
    pub(crate) started_at: DateTime<Utc>,
    /// The time at which the first of its leases was written, in milliseconds since 1970 by the store's clock; `None` in
    /// that first one.
    pub(crate) began_ms: Option<u64>,
    /// Its work.
    pub(crate) state: GuardState,
    /// The source and the number of the object, which a copy of it under another name does not change.
    #[serde(default)]
    pub(crate) source: Option<SourceName>,
    #[serde(default)]
    pub(crate) number: u64,
    /// The time at which it was written, by the guard's clock: a copy that is written later is no lease.
    #[serde(default)]
    pub(crate) written_at: Option<DateTime<Utc>>,
    /// A mark of the database file, to find out that two guards share it.
    #[serde(default)]
    pub(crate) file: Option<String>,
    /// The process, to find out on the same machine that it is gone.
    pub(crate) process: ProcessMark,
}

/// A process: two are the same only if all fields are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessMark {
    /// The kernel's name of the machine or of the container.
    pub(crate) node: String,
    /// The id of the current boot of the kernel.
    pub(crate) boot: String,
    /// The namespace of the process ids.
    pub(crate) namespace: String,
    /// The process id in that namespace.
    pub(crate) pid: i32,
    /// The time at which it started, in ticks since the boot.
    pub(crate) started: u64,
}

/// A lease that was found in a store.
#[derive(Debug)]
pub(crate) struct FoundLease {
    /// The id of the guard.
    pub(crate) id: String,
    /// All of its objects. There are several for a moment while it is renewed.
    pub(crate) keys: Vec<Key>,
    /// The time at which the newest was written, by the store's clock.
    pub(crate) renewed: SystemTime,
    /// The document, or the error for one that is invalid or has a newer format.
    pub(crate) lease: Result<GuardLease>,
}

impl GuardLease {
    /// Makes the first lease of a guard.
    pub(crate) fn new(id: String, host: String, process: ProcessMark) -> Self {
        let (started_at, state) = (Utc::now(), GuardState::Starting);
        GuardLease {
            format: FORMAT,
            id,
            host,
            started_at,
            began_ms: None,
            state,
            source: None,
            number: 0,
            written_at: None,
            file: None,
            process,
        }
    }
}

impl GuardLease {
    /// Returns true if an object is the one that this lease was written as, at its time.
    fn is_of(&self, object: &ObjectMeta, source: &SourceName) -> bool {
        let name = format!("{PREFIX}{}-{}", self.id, self.number);
        let age = self.written_at.map(|written| DateTime::<Utc>::from(object.modified) - written);
        let is_now = age.and_then(|age| age.abs().to_std().ok()).is_some_and(|age| age < COPY_AFTER);
        self.source.as_ref() == Some(source) && object.key.name() == name && is_now
    }
}

impl FoundLease {
    /// Returns the order in which guards that start at the same time may go on.
    pub(crate) fn order(&self) -> (u64, &str) {
        let began = self.lease.as_ref().ok().and_then(|lease| lease.began_ms);
        (began.unwrap_or_else(|| milliseconds(self.renewed)), &self.id)
    }
}

/// Returns a time as milliseconds since 1970.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Catalog {
    /// Writes a lease with this number. Returns its object, with the store's time.
    pub(crate) fn write_guard_lease(&self, source: &SourceName, lease: &GuardLease, number: u64) -> Result<ObjectMeta> {
        let key = key(&format!("{source}/{PREFIX}{}-{number}", lease.id))?;
        let (source, written_at) = (Some(source.clone()), Some(Utc::now()));
        let lease = GuardLease { source, number, written_at, ..lease.clone() };
        let mut document = serde_json::to_vec_pretty(&lease).expect("a lease has only string keys");
        match self.signer() {
            Signer::Key(key) => document = signed::sign(&document, signed::LEASE, key)?,
            Signer::Unusable(error) => tracing::debug!("a lease is not signed: {}", error.full_message()),
            Signer::None => {}
        }
        document.push(b'\n');
        match self.store.write(&key, &document)? {
            Published::Created => {}
            Published::AlreadyExists => return Err(Error::failed(format!("the lease {key} already exists"))),
        }
        let found = self.store.stat(&key)?;
        found.ok_or_else(|| Error::failed(format!("the lease {key} disappeared after it was written")))
    }

    /// Deletes an object of a lease.
    pub(crate) fn delete_guard_lease(&self, key: &Key) -> Result<()> {
        self.store.delete(key)
    }

    /// Returns the leases of the guards of a source. If signatures are checked, warns about those that no trusted key has
    /// signed, and leaves them out: whoever may write to the store could prevent every start.
    pub(crate) fn guard_leases(&self, source: &SourceName) -> Result<Vec<FoundLease>> {
        let is_trusted = |found: &FoundLease| match &found.lease {
            Err(error) if error.is_not_trusted() => {
                warn_once(format!("a lease of {source} is ignored: {}", error.full_message()));
                false
            }
            _ => true,
        };
        Ok(self.guard_leases_as_stored(source)?.into_iter().filter(is_trusted).collect())
    }

    /// Returns the leases of the guards of a source, trusted or not.
    pub(crate) fn guard_leases_as_stored(&self, source: &SourceName) -> Result<Vec<FoundLease>> {
        for _ in 0..MOST_LISTINGS {
            if let Some(found) = self.try_guard_leases(source)? {
                return Ok(found);
            }
        }
        Err(Error::failed(format!("the leases of {source} change again and again while they are read")))
    }

    /// Returns the leases of a source, or `None` if one of them was renewed or deleted meanwhile.
    fn try_guard_leases(&self, source: &SourceName) -> Result<Option<Vec<FoundLease>>> {
        let mut groups: BTreeMap<String, Vec<(u64, ObjectMeta)>> = BTreeMap::new();
        for object in self.store.list(source.as_str(), Names::StartingWith(PREFIX))?.objects {
            let rest = object.key.name().strip_prefix(PREFIX).unwrap_or_default();
            let (id, number) = rest.rsplit_once('-').unwrap_or((rest, "0"));
            groups.entry(id.to_owned()).or_default().push((number.parse().unwrap_or(0), object));
        }
        let mut found = Vec::new();
        for (id, mut objects) in groups {
            objects.sort_by_key(|(number, _)| *number);
            let Some((_, newest)) = objects.last() else { continue };
            let renewed = newest.modified;
            let lease = match found.len() < MOST_READ {
                true => self.read_guard_lease(newest, &id, source),
                false => Err(Error::problem("there are too many leases")),
            };
            match &lease {
                Err(error) if error.kind == Kind::NotFound => return Ok(None),
                Err(error) if matches!(error.kind, Kind::Unreachable | Kind::Interrupted) => {
                    return lease.map(|_| None);
                }
                _ => {}
            }
            let keys = objects.into_iter().map(|(_, object)| object.key).collect();
            found.push(FoundLease { id, keys, renewed, lease });
        }
        Ok(Some(found))
    }

    fn read_guard_lease(&self, object: &ObjectMeta, id: &str, source: &SourceName) -> Result<GuardLease> {
        let is_signed = self.trust.trusted().is_some();
        let too_large = |error: Error| match error.kind {
            Kind::Problem if is_signed => error.reason(Reason::NotTrusted),
            _ => error,
        };
        let bytes = self.store.read(&object.key, MAX_BYTES).map_err(too_large)?;
        let bytes = signed::trusted_part(bytes, signed::LEASE, &self.trust)
            .map_err(|error| error.context(format!("{} is not trusted", object.key)))?;
        let invalid = || Error::problem("its lease is invalid, or was made by a newer lifeboat");
        let lease: GuardLease = serde_json::from_slice(&bytes).map_err(|error| invalid().because(error))?;
        if lease.format != FORMAT || lease.id != id {
            return Err(invalid());
        }
        // Anybody can write a lease again that was signed once.
        if is_signed && !lease.is_of(object, source) {
            let message = format!("{} is not trusted: it is a copy of a signed lease", object.key);
            return Err(Error::problem(message).reason(Reason::NotTrusted));
        }
        Ok(lease)
    }

    /// Deletes the leases of a source that were not renewed for a long time.
    pub(crate) fn clear_guard_leases(&self, source: &SourceName) -> Result<()> {
        let now = SystemTime::now();
        for object in self.store.list(source.as_str(), Names::StartingWith(PREFIX))?.objects {
            if now.duration_since(object.modified).is_ok_and(|age| age > LEFTOVER_AFTER) {
                self.store.delete(&object.key)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::platform::signature::{SigningKey, generate_key};
    use crate::snapshots::trust::Trust;
    use crate::store::{MemoryStore, Store};

    #[test]
    fn a_renewed_lease_is_one_and_garbage_is_not_trusted() {
        let store = MemoryStore::new();
        let catalog = Catalog::create(Box::new(store.clone())).expect("a store");
        let source: SourceName = "app".parse().expect("a name");
        let mut lease = GuardLease::new("a1".to_owned(), "shop".to_owned(), ProcessMark::default());
        let first = catalog.write_guard_lease(&source, &lease, 9).expect("written");
        lease.state = GuardState::Running;
        catalog.write_guard_lease(&source, &lease, 10).expect("written");
        catalog.write_guard_lease(&source, &lease, 10).expect_err("it exists");
        let key: Key = "app/guard.lease-b2-1".parse().expect("a key");
        let _ = store.write(&key, b"{\"format\": 2, \"id\": \"b2\"}").expect("written");
        let found = catalog.guard_leases(&source).expect("listed");
        assert_eq!(found.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>(), ["a1", "b2"]);
        assert_eq!(found[0].lease.as_ref().expect("valid").state, GuardState::Running);
        assert_eq!(found[0].keys.len(), 2);
        assert!(found[1].lease.is_err());
        catalog.delete_guard_lease(&first.key).expect("deleted");
        assert_eq!(catalog.guard_leases(&source).expect("listed")[0].keys.len(), 1);
        assert!(catalog.list(&source).expect("listed").is_empty(), "no lease is a snapshot");
        assert!(catalog.orphans(&source).expect("listed").objects.is_empty());
    }

    #[test]
    fn a_signed_lease_that_is_written_again_is_not_trusted() {
        let store = MemoryStore::new();
        let (public, text) = generate_key("test").expect("a key");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text.expose()).expect("written");
        let key = Arc::new(SigningKey::read(file.path()).expect("a key"));
        let trust = Trust::default().with_trusted(Some(vec![public]), false).with_signer(Signer::Key(Arc::clone(&key)));
        let catalog = Catalog::create(Box::new(store.clone())).expect("a store").with_trust(trust);
        let source: SourceName = "app".parse().expect("a name");
        let lease = GuardLease::new("a1".to_owned(), "shop".to_owned(), ProcessMark::default());
        let written = catalog.write_guard_lease(&source, &lease, 9).expect("written");
        assert_eq!(catalog.guard_leases(&source).expect("listed").len(), 1);
        let document = store.read(&written.key, MAX_BYTES).expect("read");
        let write = |name: &str, bytes: &[u8]| store.write(&name.parse().expect("a key"), bytes).expect("written");
        // Under another name, and for another source.
        catalog.delete_guard_lease(&written.key).expect("deleted");
        for name in ["app/guard.lease-a1-10", "other/guard.lease-a1-9"] {
            let _ = write(name, &document);
        }
        let other: SourceName = "other".parse().expect("a name");
        assert!(catalog.guard_leases(&source).expect("listed").is_empty());
        assert!(catalog.guard_leases(&other).expect("listed").is_empty());
        // Long after its time.
        let written_at = Some(Utc::now() - chrono::Duration::hours(1));
        let old = GuardLease { source: Some(other.clone()), number: 11, written_at, ..lease };
        let old = serde_json::to_vec_pretty(&old).expect("only string keys");
        let _ = write("other/guard.lease-a1-11", &signed::sign(&old, signed::LEASE, &key).expect("signed"));
        assert!(catalog.guard_leases(&other).expect("listed").is_empty());
        assert_eq!(catalog.guard_leases_as_stored(&other).expect("listed").len(), 1);
    }
}
