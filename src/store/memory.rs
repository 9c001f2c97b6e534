//! A store in memory, for tests. It has every guarantee of a store except durability. Tests can make it fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::platform::error::{Error, Result};
use crate::platform::ranged::Ranged;
use crate::store::interface::{Key, Listing, Names, ObjectMeta, Published, Store, Upload, read_opened};

/// The operation at which a [`MemoryStore`] fails. Operations are counted from 1, starting at the call of
/// [`MemoryStore::inject`].
///
/// A call of `create`, `open`, `stat`, `list`, `delete`, `finish`, `write` or `read_at` is one operation. An operation
/// that fails does nothing and returns a [`Kind::Unreachable`] error.
///
/// [`Kind::Unreachable`]: crate::platform::error::Kind::Unreachable
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Faults {
    /// No operation fails.
    #[default]
    None,
    /// Only the n-th operation fails: a transient error.
    FailOnce(u64),
    /// The n-th operation and all later ones fail: the store is lost.
    FailFrom(u64),
    /// The n-th `finish` publishes the object but returns an error, as if the reply was lost.
    LoseReply(u64),
}

/// A store in memory. Clones share their objects.
///
/// A test covers every failure if it repeats its work with `FailOnce(1)`, `FailOnce(2)` and so on, until
/// [`MemoryStore::operations`] returns a smaller number.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<Key, Object>,
    faults: Faults,
    operations: u64,
    finishes: u64,
}

#[derive(Debug)]
struct Object {
    bytes: Arc<Vec<u8>>,
    modified: SystemTime,
}

impl Object {
    fn meta(&self, key: &Key) -> ObjectMeta {
        ObjectMeta { key: key.clone(), bytes: self.bytes.len() as u64, modified: self.modified }
    }
}

impl MemoryStore {
    /// Creates an empty store that does not fail.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore::default()
    }

    /// Makes the store fail at `faults`, and resets the counters. After [`Faults::None`], it does not fail any more.
    pub fn inject(&self, faults: Faults) {
        let mut inner = self.lock();
        inner.faults = faults;
        inner.operations = 0;
        inner.finishes = 0;
    }

    /// Returns the number of operations since the last [`MemoryStore::inject`], including failed ones.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // If a test panicked in another thread, the objects are still complete.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one operation and returns the locked store, or an error if this operation must fail.
    fn operate(&self, operation: &str, key: &str) -> Result<MutexGuard<'_, Inner>> {
        let mut inner = self.lock();
        inner.operations += 1;
        let fails = match inner.faults {
            Faults::FailOnce(n) => inner.operations == n,
            Faults::FailFrom(n) => inner.operations >= n,
            Faults::None | Faults::LoseReply(_) => false,
        };
        if fails {
            return Err(Error::unreachable(format!("cannot {operation} '{key}' in the store in memory"))
                .because(format!("a fault was injected at operation {}", inner.operations)));
        }
        Ok(inner)
    }
}

impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        drop(self.operate("create", key.as_str())?);
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.clone(), bytes: Vec::new(), failed: false }))
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>> {
        let inner = self.operate("open", key.as_str())?;
        match inner.objects.get(key) {
            Some(object) => {
                Ok(Box::new(MemoryObject { store: self.clone(), key: key.clone(), bytes: Arc::clone(&object.bytes) }))
            }
            None => Err(Error::not_found(format!("{key} does not exist in {}", self.location()))),
        }
    }

    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        Ok(self.operate("stat", key.as_str())?.objects.get(key).map(|object| object.meta(key)))
    }

    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing> {
        if !folder.is_empty() {
            folder.parse::<Key>()?;
        }
        let inner = self.operate("list", folder)?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut folders = BTreeSet::new();
        let mut objects = Vec::new();
        for (key, object) in &inner.objects {
            match key.as_str().strip_prefix(&prefix).map(|rest| rest.split_once('/').ok_or(rest)) {
                Some(Ok((name, _))) if names.include(name) => _ = folders.insert(name.to_owned()),
                Some(Err(name)) if names.include(name) => objects.push(object.meta(key)),
                _ => {}
            }
        }
        Ok(Listing { folders: folders.into_iter().collect(), objects })
    }

    fn is_local(&self) -> bool {
        true
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.operate("delete", key.as_str())?.objects.remove(key);
        Ok(())
    }

    /// Does nothing and returns 0: a crashed upload in memory leaves no data.
    fn clear_leftovers(&self, _age: Duration) -> Result<u64> {
        Ok(0)
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn some_names(&self) -> Result<Vec<String>> {
        let listing = self.list("", Names::All)?;
        let objects = listing.objects.iter().map(|object| object.key.as_str().to_owned());
        Ok(objects.chain(listing.folders.iter().cloned()).collect())
    }

    fn create_large(&self, key: &Key, _: u64) -> Result<Box<dyn Upload>> {
        self.create(key)
    }

    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        read_opened(self, key, max_bytes)
    }

    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        keys.iter().try_for_each(|key| self.delete(key))
    }

    fn probe(&self, _: &Key) -> Vec<(String, Result<String>)> {
        Vec::new()
    }
}

struct MemoryUpload {
    store: MemoryStore,
    key: Key,
    bytes: Vec<u8>,
    /// True after the first error. Bytes may be missing, so the object must never be published.
    failed: bool,
}

impl MemoryUpload {
    fn check_not_failed(&self) -> Result<()> {
        if self.failed {
            return Err(Error::failed(format!("cannot write '{}' after an earlier failure", self.key)));
        }
        Ok(())
    }
}

impl Write for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_not_failed()?;
        if let Err(error) = self.store.operate("write", self.key.as_str()) {
            self.failed = true;
            return Err(error.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Upload for MemoryUpload {
    fn finish(self: Box<Self>) -> Result<Published> {
        self.check_not_failed()?;
        let mut inner = self.store.operate("finish", self.key.as_str())?;
        let published = if inner.objects.contains_key(&self.key) {
            Published::AlreadyExists
        } else {
            let object = Object { bytes: Arc::new(self.bytes), modified: SystemTime::now() };
            inner.objects.insert(self.key.clone(), object);
            Published::Created
        };
        inner.finishes += 1;
        if inner.faults == Faults::LoseReply(inner.finishes) {
            return Err(Error::unreachable(format!("the reply to the finish of '{}' was lost", self.key)));
        }
        Ok(published)
    }
}

struct MemoryObject {
    store: MemoryStore,
    key: Key,
    bytes: Arc<Vec<u8>>,
}

impl Ranged for MemoryObject {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        drop(self.store.operate("read", self.key.as_str())?);
        self.bytes.read_at(offset, buffer)
    }
}
