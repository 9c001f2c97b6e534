//! Failures of the store: lost replies, and operations that fail one by one.

use crate::support::controlled_store::ControlledStore;
use crate::support::{Sandbox, child_test};
use chrono::{DateTime, Utc};
use lifeboat::archive::{ArchiveReader, ArchiveWriter, Codec, Compression, MANIFEST_PATH};
use lifeboat::platform::entries::EntryWriter as _;
use lifeboat::platform::error::{Error, Kind, Result};
use lifeboat::snapshots::catalog::Catalog;
use lifeboat::snapshots::id::{SnapshotId, SourceName};
use lifeboat::snapshots::manifest::Manifest;
use lifeboat::store::memory::Faults;
use lifeboat::store::{Key, LocalStore, MemoryStore, Names, Store};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

/// The content of a snapshot that needs no database, in two blocks of an archive.
pub(crate) fn payload(seed: u8) -> Vec<u8> {
    (0..4_300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 7 | seed).collect()
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

/// Returns a store that loses the reply to one `finish`: the n-th from now on. The store inside it then fails at one
/// operation, counted from there.
fn lossy(inner: &MemoryStore, n: i64, fail_after: u64) -> ControlledStore {
    let replies_left = AtomicI64::new(n);
    let store = inner.clone();
    ControlledStore::new(inner, move |_, upload| {
        let published = upload.finish()?;
        if replies_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            store.inject(Faults::FailOnce(fail_after));
            return Err(Error::unreachable("the reply was lost"));
        }
        Ok(published)
    })
}

#[test]
fn failure_after_a_lost_reply_lists_no_incomplete_snapshot() {
    let (older, newer) = (payload(8), payload(16));
    for reply in 1..=2 {
        for fail_after in 1..=12 {
            let context = format!("reply {reply} is lost, then operation {fail_after} fails");
            let (inner, old) = store_with_snapshot(&older);
            let store = lossy(&inner, reply, fail_after);
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

#[test]
fn a_file_of_a_store_whose_sync_cannot_be_started_is_never_published() {
    let sandbox = Sandbox::new();
    let output = child_test(module_path!(), "child_writes_without_a_free_descriptor")
        .current_dir(sandbox.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A process of its own, since the limit holds for all threads.
#[test]
#[ignore = "it is the other process of the test above"]
fn child_writes_without_a_free_descriptor() {
    let store = LocalStore::create(std::path::Path::new("backups")).unwrap();
    let key: Key = "app/object".parse().unwrap();
    let mut upload = store.create(&key).unwrap();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..limit }).unwrap();
    // The file is synced after each 16 MiB, through a second descriptor.
    let piece = vec![0; 1 << 20];
    let written = (0..16).take_while(|_| upload.write_all(&piece).is_ok()).count();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(written, 15, "the sync must fail to start");
    // The bytes of the failed call are in the file, so a caller that repeats them would write them twice.
    assert!(upload.write_all(&piece).is_err());
    assert_eq!(upload.finish().unwrap_err().kind, Kind::Failed);
    assert!(store.list("app", Names::All).unwrap().objects.is_empty());
}
