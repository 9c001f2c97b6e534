//! Failures of the store: lost replies, and operations that fail one by one.

use chrono::{DateTime, Utc};
use lifeboat::archive::{ArchiveReader, ArchiveWriter, Codec, Compression, MANIFEST_PATH};
use lifeboat::platform::entries::EntryWriter as _;
use lifeboat::platform::error::{Kind, Result};
use lifeboat::platform::ranged::Ranged;
use lifeboat::snapshots::catalog::Catalog;
use lifeboat::snapshots::id::{SnapshotId, SourceName};
use lifeboat::snapshots::manifest::Manifest;
use lifeboat::store::memory::Faults;
use lifeboat::store::{Key, Listing, MemoryStore, Names, ObjectMeta, Published, Store, Upload};
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// The content of a snapshot that needs no database.
pub(crate) fn payload(seed: u8) -> Vec<u8> {
    (0..9_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 7 | seed).collect()
}

fn document(id: &SnapshotId, path: &str, raw_bytes: usize) -> Manifest {
    let manifest = json!({
        "format": 1, "lifeboat_version": "0.1.0", "id": id.to_string(), "source": id.source().as_str(),
        "origin": {"host": "here", "path": path}, "kind": "full", "engine": "sqlite",
        "created_at": id.time().to_rfc3339(), "tags": [], "archive": format!("{id}{}", Codec::Zstd.extension()),
        "raw_bytes": raw_bytes, "codec": "zstd", "encrypted": false, "server_version": "3", "rows": 0, "tables": [],
        "seconds": 0.5,
    });
    Manifest::from_json(manifest.to_string().as_bytes()).unwrap()
}

fn save(catalog: &Catalog, payload: &[u8]) -> Result<SnapshotId> {
    save_of(catalog, payload, "/app.db", 0)
}

/// Writes and publishes a snapshot of the database at `path` with the same steps as the command, taken `seconds` after
/// the others.
pub(crate) fn save_of(catalog: &Catalog, payload: &[u8], path: &str, seconds: i64) -> Result<SnapshotId> {
    let source: SourceName = "app".parse()?;
    let time: DateTime<Utc> = "2026-11-21T17:05:01Z".parse().unwrap();
    let time = time + chrono::Duration::seconds(seconds);
    let _ = catalog.newest_full(&source)?;
    let id = catalog.new_id(&source, time)?;
    let compression: Compression = "zstd:1".parse()?;
    let upload =
        catalog.start_archive(&id, &format!("{id}{}", compression.codec().extension()), payload.len() as u64)?;
    let mut archive = ArchiveWriter::create(upload, compression, 2, 1)?;
    archive.start_entry("data/app.db", payload.len() as u64)?;
    for piece in payload.chunks(1 << 20) {
        archive.write(piece)?;
    }
    archive.finish_entry()?;
    let mut manifest = document(&id, path, payload.len());
    archive.append(MANIFEST_PATH, &manifest.to_json())?;
    let (upload, summary) = archive.finish()?;
    (manifest.archive_bytes, manifest.sha256) = (Some(summary.bytes), Some(summary.sha256));
    catalog.publish(upload, summary, &manifest)?;
    Ok(id)
}

pub(crate) fn listed(catalog: &Catalog) -> Vec<SnapshotId> {
    catalog.list_all(None).unwrap().into_iter().map(|listed| listed.id).collect()
}

/// Requires that a listed snapshot can be read, and that all its bytes match their hashes.
fn require_complete(catalog: &Catalog, id: &SnapshotId, payload: &[u8], context: &str) {
    let (manifest, _) = catalog.manifest(id).unwrap_or_else(|error| panic!("{context}: {id}: {error:?}"));
    let archive = catalog.open_archive(&manifest).unwrap_or_else(|error| panic!("{context}: {id}: {error:?}"));
    let reader = ArchiveReader::open(archive, 2).unwrap_or_else(|error| panic!("{context}: {id}: {error:?}"));
    let walk = reader.inspect().unwrap_or_else(|error| panic!("{context}: {id}: {error:?}"));
    assert!(walk.problems.is_empty(), "{context}: {id}: {:?}", walk.problems);
    assert_eq!(Some(walk.sha256), manifest.sha256, "{context}: {id}");
    assert!(reader.read_entry("data/app.db", 1 << 30).unwrap() == payload, "{context}: {id} has other bytes");
}

/// A store with one snapshot.
fn store_with_snapshot(older: &[u8]) -> (MemoryStore, SnapshotId) {
    let store = MemoryStore::new();
    let catalog = Catalog::create(Box::new(store.clone())).unwrap();
    let id = save(&catalog, older).unwrap();
    (store, id)
}

fn open_catalog(store: &MemoryStore) -> Catalog {
    store.inject(Faults::None);
    Catalog::open(Box::new(store.clone())).unwrap()
}

#[test]
fn failure_of_any_store_operation_lists_nothing_new_and_a_retry_succeeds() {
    let (older, newer) = (payload(8), payload(16));
    let mut wrong = String::new();
    for (name, fault) in [("once", Faults::FailOnce as fn(u64) -> Faults), ("permanently", Faults::FailFrom)] {
        for n in 1.. {
            let context = format!("operation {n} fails {name}");
            let (store, old) = store_with_snapshot(&older);
            store.inject(fault(n));
            let result = Catalog::open(Box::new(store.clone())).and_then(|catalog| save(&catalog, &newer));
            let was_hit = store.operations() >= n;
            let catalog = open_catalog(&store);
            let listed_ids = listed(&catalog);
            require_complete(&catalog, &old, &older, &context);
            match &result {
                // The command may ignore a failure after the publication, but then the snapshot must be complete.
                Ok(id) => {
                    assert_eq!(listed_ids.len(), 2, "{context}: {listed_ids:?}");
                    require_complete(&catalog, id, &newer, &context);
                }
                Err(error) if listed_ids != [old.clone()] => {
                    let _ = writeln!(wrong, "{context}: the command failed ({error}), but {listed_ids:?} are listed");
                }
                Err(_) => {
                    let id = save(&catalog, &newer).unwrap_or_else(|error| panic!("{context}, retried: {error:?}"));
                    assert_eq!(listed(&catalog).len(), 2, "{context}, retried");
                    require_complete(&catalog, &id, &newer, &context);
                    require_complete(&catalog, &old, &older, &context);
                }
            }
            if !was_hit {
                assert!(result.is_ok(), "{context}: {result:?}");
                assert!(n > 10, "the command has only {n} operations");
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn failure_of_any_operation_while_a_store_is_created_leaves_no_store_or_an_empty_one() {
    for n in 1.. {
        let store = MemoryStore::new();
        store.inject(Faults::FailOnce(n));
        let created = Catalog::create(Box::new(store.clone())).map(drop);
        let was_hit = store.operations() >= n;
        store.inject(Faults::None);
        let second = Catalog::create(Box::new(store.clone())).unwrap();
        assert!(listed(&second).is_empty());
        let payload = payload(8);
        let id = save(&second, &payload).unwrap();
        require_complete(&second, &id, &payload, "created again");
        if !was_hit {
            created.unwrap();
            break;
        }
        assert_eq!(created.unwrap_err().kind, Kind::Unreachable, "operation {n}");
    }
}

#[test]
fn snapshot_succeeds_after_a_lost_reply_and_is_listed_once() {
    let (older, newer) = (payload(8), payload(16));
    for reply in 1..=2 {
        let context = format!("reply {reply} is lost");
        let (store, old) = store_with_snapshot(&older);
        let catalog = Catalog::open(Box::new(store.clone())).unwrap();
        store.inject(Faults::LoseReply(reply));
        let id = save(&catalog, &newer).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        let catalog = open_catalog(&store);
        let listed_ids = listed(&catalog);
        assert_eq!(listed_ids.iter().filter(|listed| **listed == id).count(), 1, "{context}: {listed_ids:?}");
        assert_eq!(listed_ids.len(), 2, "{context}: {listed_ids:?}");
        require_complete(&catalog, &id, &newer, &context);
        require_complete(&catalog, &old, &older, &context);
    }
}

/// A store that loses the reply to one `finish`. A later operation of the store inside it fails.
#[derive(Clone)]
struct Lossy {
    inner: MemoryStore,
    /// The number of `finish` calls until the one whose reply is lost.
    replies_left: Arc<std::sync::atomic::AtomicI64>,
    /// The operation after the lost reply that fails.
    fail_after: u64,
}

struct LossyUpload(Box<dyn Upload>, Lossy);

impl std::io::Write for LossyUpload {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Upload for LossyUpload {
    fn finish(self: Box<Self>) -> Result<Published> {
        let published = self.0.finish()?;
        if self.1.replies_left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            self.1.inner.inject(Faults::FailOnce(self.1.fail_after));
            return Err(lifeboat::platform::error::Error::unreachable("the reply was lost"));
        }
        Ok(published)
    }
}

impl Store for Lossy {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(LossyUpload(self.inner.create(key)?, self.clone())))
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
    fn clear_leftovers(&self, age: Duration) -> Result<u64> {
        self.inner.clear_leftovers(age)
    }
    fn create_large(&self, key: &Key, _: u64) -> Result<Box<dyn Upload>> {
        self.create(key)
    }
    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        self.inner.read(key, max_bytes)
    }
    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        self.inner.delete_all(keys)
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

#[test]
fn failure_after_a_lost_reply_lists_no_incomplete_snapshot() {
    let (older, newer) = (payload(8), payload(16));
    for reply in 1..=2 {
        for fail_after in 1..=12 {
            let context = format!("reply {reply} is lost, then operation {fail_after} fails");
            let (inner, old) = store_with_snapshot(&older);
            let store = Lossy { inner: inner.clone(), replies_left: Arc::new(reply.into()), fail_after };
            let result = Catalog::open(Box::new(store)).and_then(|catalog| save(&catalog, &newer));
            let catalog = open_catalog(&inner);
            let listed_ids = listed(&catalog);
            require_complete(&catalog, &old, &older, &context);
            for id in listed_ids.iter().filter(|id| **id != old) {
                require_complete(&catalog, id, &newer, &context);
            }
            if let Ok(id) = result {
                assert!(listed_ids.contains(&id), "{context}: {listed_ids:?}");
            }
        }
    }
}
