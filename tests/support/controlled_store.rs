//! A store in memory, of which a test decides how the uploads end.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use lifeboat::platform::error::Result;
use lifeboat::platform::ranged::Ranged;
use lifeboat::store::{Key, Listing, MemoryStore, Names, ObjectMeta, Published, Store, Upload};

type Finish = dyn Fn(&Key, Box<dyn Upload>) -> Result<Published> + Send + Sync;

/// See the module. It does not count as local, so the code takes the steps for a remote store.
#[derive(Clone)]
pub struct ControlledStore {
    inner: MemoryStore,
    finish: Arc<Finish>,
}

impl ControlledStore {
    /// Returns a store with the objects of `inner`. `finish` is called at the end of each upload, to finish it or not.
    pub fn new(
        inner: &MemoryStore,
        finish: impl Fn(&Key, Box<dyn Upload>) -> Result<Published> + Send + Sync + 'static,
    ) -> Self {
        ControlledStore { inner: inner.clone(), finish: Arc::new(finish) }
    }

    fn controlled(&self, key: &Key, upload: Box<dyn Upload>) -> Box<dyn Upload> {
        Box::new(ControlledUpload { inner: upload, key: key.clone(), finish: Arc::clone(&self.finish) })
    }
}

struct ControlledUpload {
    inner: Box<dyn Upload>,
    key: Key,
    finish: Arc<Finish>,
}

impl Write for ControlledUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Upload for ControlledUpload {
    fn finish(self: Box<Self>) -> Result<Published> {
        (self.finish)(&self.key, self.inner)
    }
}

impl Store for ControlledStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(self.controlled(key, self.inner.create(key)?))
    }

    fn create_large(&self, key: &Key, max_bytes: u64) -> Result<Box<dyn Upload>> {
        Ok(self.controlled(key, self.inner.create_large(key, max_bytes)?))
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>> {
        self.inner.open(key)
    }

    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.inner.stat(key)
    }

    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing> {
        self.inner.list(folder, names)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key)
    }

    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        self.inner.delete_all(keys)
    }

    fn clear_leftovers(&self, age: Duration) -> Result<u64> {
        self.inner.clear_leftovers(age)
    }

    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        self.inner.read(key, max_bytes)
    }

    fn is_local(&self) -> bool {
        false
    }

    fn some_names(&self) -> Result<Vec<String>> {
        self.inner.some_names()
    }

    fn probe(&self, key: &Key) -> Vec<(String, Result<String>)> {
        self.inner.probe(key)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }
}
