//! Tests of the guarantees that every store gives, run against each kind of store, and tests of stores in folders.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, SystemTime};

use lifeboat::platform::error::{Error, Kind};
use lifeboat::store::memory::Faults;
use lifeboat::store::{Key, Listing, LocalStore, MemoryStore, Names, Published, Store, StoreExt};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.objects.iter().map(|object| object.key.as_str()).collect()
}

/// Returns the objects in the root and in the folders of the first level, with their bytes.
fn contents(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let top = store.list("", Names::All).unwrap();
    let mut objects = top.objects;
    for folder in &top.folders {
        objects.extend(store.list(folder, Names::All).unwrap().objects);
    }
    objects
        .into_iter()
        .map(|object| {
            let bytes = store.read(&object.key, u64::MAX).unwrap();
            assert_eq!(object.bytes, bytes.len() as u64, "{}", object.key);
            (object.key.to_string(), bytes)
        })
        .collect()
}

/// Returns bytes that depend on the offset and the seed.
fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(31) ^ (i >> 8)) as u8 ^ seed).collect()
}

mod contract {
    use super::*;

    pub(crate) fn object_is_read_back_unchanged(store: &dyn Store) {
        let bytes = pattern(1, 300_000);
        assert_eq!(store.write(&key("app/a.tar.gz"), &bytes).unwrap(), Published::Created);
        assert_eq!(store.read(&key("app/a.tar.gz"), 300_000).unwrap(), bytes);
    }

    pub(crate) fn objects_in_the_root_and_in_nested_folders_are_stored(store: &dyn Store) {
        for name in ["lifeboat.json", "a/b/c/d.json", "a/b/e.json"] {
            assert_eq!(store.write(&key(name), name.as_bytes()).unwrap(), Published::Created);
        }
        for name in ["lifeboat.json", "a/b/c/d.json", "a/b/e.json"] {
            assert_eq!(store.read(&key(name), 100).unwrap(), name.as_bytes());
        }
        assert_eq!(store.list("a/b", Names::All).unwrap().folders, ["c"]);
    }

    pub(crate) fn upload_is_invisible_before_finish(store: &dyn Store) {
        let mut upload = store.create(&key("app/a")).unwrap();
        for piece in [&b"one"[..], b"", b"two"] {
            upload.write_all(piece).unwrap();
            upload.flush().unwrap();
            assert_eq!(store.stat(&key("app/a")).unwrap(), None);
            assert_eq!(store.open(&key("app/a")).err().unwrap().kind, Kind::NotFound);
            assert!(contents(store).is_empty());
        }
        assert_eq!(upload.finish().unwrap(), Published::Created);
        assert_eq!(contents(store), [("app/a".to_owned(), b"onetwo".to_vec())]);
    }

    pub(crate) fn dropped_upload_leaves_no_object(store: &dyn Store) {
        let mut upload = store.create(&key("app/a")).unwrap();
        upload.write_all(b"half").unwrap();
        drop(upload);
        assert!(contents(store).is_empty());
        assert_eq!(store.write(&key("app/a"), b"whole").unwrap(), Published::Created);
        assert_eq!(store.read(&key("app/a"), 5).unwrap(), b"whole");
    }

    pub(crate) fn existing_object_is_never_overwritten(store: &dyn Store) {
        assert_eq!(store.write(&key("app/a"), b"first").unwrap(), Published::Created);
        let before = store.stat(&key("app/a")).unwrap();
        assert_eq!(store.write(&key("app/a"), b"second one").unwrap(), Published::AlreadyExists);
        assert_eq!(store.write(&key("app/a"), b"first").unwrap(), Published::AlreadyExists);
        assert_eq!(store.stat(&key("app/a")).unwrap(), before);
        assert_eq!(contents(store), [("app/a".to_owned(), b"first".to_vec())]);
    }

    pub(crate) fn of_many_uploads_of_one_key_exactly_one_succeeds(store: &dyn Store) {
        for round in 0..20 {
            let name = key(&format!("app/{round}"));
            let start = Barrier::new(4);
            let results: Vec<Published> = thread::scope(|scope| {
                let upload = |seed: u8| {
                    let (start, name) = (&start, &name);
                    scope.spawn(move || {
                        let mut upload = store.create(name).unwrap();
                        upload.write_all(&pattern(seed, 10_000)).unwrap();
                        start.wait();
                        upload.finish().unwrap()
                    })
                };
                let running: Vec<_> = (0..4).map(upload).collect();
                running.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let winners: Vec<usize> = (0..4).filter(|i| results[*i] == Published::Created).collect();
            assert_eq!(winners.len(), 1, "{results:?}");
            assert_eq!(store.read(&name, 10_000).unwrap(), pattern(winners[0] as u8, 10_000));
        }
    }

    pub(crate) fn uploads_can_run_in_parallel(store: &dyn Store) {
        thread::scope(|scope| {
            for worker in 0..8_u8 {
                scope.spawn(move || {
                    for i in 0..10 {
                        // Half of the folders are shared, and each folder is new for at least one worker.
                        let folder = if i % 2 == 0 { format!("shared{i}") } else { format!("own{worker}") };
                        let name = key(&format!("{folder}/{worker}-{i}"));
                        let mut upload = store.create(&name).unwrap();
                        for piece in pattern(worker, 5_000).chunks(700) {
                            upload.write_all(piece).unwrap();
                        }
                        assert_eq!(upload.finish().unwrap(), Published::Created);
                        assert_eq!(store.read(&name, 5_000).unwrap(), pattern(worker, 5_000));
                    }
                });
            }
        });
        assert_eq!(contents(store).len(), 80);
    }

    pub(crate) fn large_object_is_read_back_completely_and_by_ranges(store: &dyn Store) {
        let bytes = pattern(9, (21 << 20) + 5);
        let mut upload = store.create_large(&key("app/large"), bytes.len() as u64).unwrap();
        for piece in bytes.chunks(3_000_001) {
            upload.write_all(piece).unwrap();
            assert_eq!(store.stat(&key("app/large")).unwrap(), None);
        }
        assert_eq!(upload.finish().unwrap(), Published::Created);
        assert_eq!(store.stat(&key("app/large")).unwrap().unwrap().bytes, bytes.len() as u64);
        let object = store.open(&key("app/large")).unwrap();
        // Some ranges are at the borders between the parts of an upload.
        for (offset, length) in [(0, bytes.len()), ((8 << 20) - 3, 7), ((16 << 20) - 1, 5 << 20), (bytes.len() - 1, 1)]
        {
            let mut buffer = vec![0; length];
            object.read_at(offset as u64, &mut buffer).unwrap();
            assert!(buffer == bytes[offset..][..length], "{offset}+{length}");
        }
        let mut other = store.create_large(&key("app/large"), 1 << 30).unwrap();
        other.write_all(&pattern(8, 9 << 20)).unwrap();
        assert_eq!(other.finish().unwrap(), Published::AlreadyExists);
        assert_eq!(store.stat(&key("app/large")).unwrap().unwrap().bytes, bytes.len() as u64);
    }

    pub(crate) fn dropped_large_upload_leaves_nothing(store: &dyn Store) {
        let mut upload = store.create_large(&key("app/large"), 1 << 30).unwrap();
        upload.write_all(&pattern(9, 20 << 20)).unwrap();
        drop(upload);
        assert!(contents(store).is_empty());
        // An unfinished multipart upload is not visible in a listing, but this call would find it.
        assert_eq!(store.clear_leftovers(Duration::ZERO).unwrap(), 0);
    }

    pub(crate) fn list_filters_by_range_and_prefix_of_names(store: &dyn Store) {
        for name in ["app/1", "app/2", "app/2.x", "app/20", "app/3", "app/30", "app/a-1", "app/a-2"] {
            let _ = store.write(&key(name), b"").unwrap();
        }
        let list = |wanted| store.list("app", wanted).unwrap().objects.into_iter().map(|object| object.key.to_string());
        let list = |wanted| list(wanted).collect::<Vec<_>>().join(" ");
        assert_eq!(list(Names::Between("2", Some("3"))), "app/2 app/2.x app/20");
        assert_eq!(list(Names::Between("", Some("2"))), "app/1");
        assert_eq!(list(Names::Between("20", Some("20"))), "");
        assert_eq!(list(Names::StartingWith("2")), "app/2 app/2.x app/20");
        assert_eq!(list(Names::StartingWith("a-")), "app/a-1 app/a-2");
        assert_eq!(list(Names::StartingWith("nothing")), "");
    }

    pub(crate) fn many_objects_are_deleted_at_once(store: &dyn Store) {
        let keys: Vec<Key> = (0..30).map(|i| key(&format!("app/{i}"))).collect();
        for key in &keys {
            let _ = store.write(key, b"x").unwrap();
        }
        let _ = store.write(&key("app/kept"), b"kept").unwrap();
        store.delete_all(&keys).unwrap();
        assert_eq!(contents(store), [("app/kept".to_owned(), b"kept".to_vec())]);
        // Objects that are already deleted, and an empty list.
        store.delete_all(&keys[..3]).unwrap();
        store.delete_all(&[]).unwrap();
    }

    pub(crate) fn ranged_read_is_exact_or_fails(store: &dyn Store) {
        let bytes = pattern(7, 10_000);
        let _ = store.write(&key("app/a"), &bytes).unwrap();
        let object = store.open(&key("app/a")).unwrap();
        assert_eq!((object.len(), object.is_empty()), (10_000, false));
        for (offset, length) in [(0, 10_000), (0, 1), (9_999, 1), (5_000, 777), (0, 0), (10_000, 0)] {
            let mut buffer = vec![0; length];
            object.read_at(offset, &mut buffer).unwrap();
            assert_eq!(buffer, bytes[offset as usize..][..length], "{offset}+{length}");
        }
        for (offset, length) in [(0, 10_001), (9_999, 2), (10_000, 1), (1 << 40, 1), (u64::MAX, 1), (u64::MAX - 3, 8)] {
            let error = object.read_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{offset}+{length}");
        }
    }

    pub(crate) fn one_object_is_read_by_many_threads(store: &dyn Store) {
        let bytes = pattern(3, 100_000);
        let _ = store.write(&key("app/a"), &bytes).unwrap();
        let object = store.open(&key("app/a")).unwrap();
        thread::scope(|scope| {
            for worker in 0..8 {
                let (object, bytes) = (&object, &bytes);
                scope.spawn(move || {
                    for i in 0..100 {
                        let offset = (worker * 12_345 + i * 789) % 99_000;
                        let mut buffer = [0; 1_000];
                        object.read_at(offset as u64, &mut buffer).unwrap();
                        assert_eq!(buffer, bytes[offset..offset + 1_000]);
                    }
                });
            }
        });
    }

    pub(crate) fn empty_object_can_be_stored_and_read(store: &dyn Store) {
        assert_eq!(store.create(&key("app/none")).unwrap().finish().unwrap(), Published::Created);
        assert_eq!(store.write(&key("app/none"), b"x").unwrap(), Published::AlreadyExists);
        assert_eq!(store.stat(&key("app/none")).unwrap().unwrap().bytes, 0);
        let object = store.open(&key("app/none")).unwrap();
        assert!(object.is_empty());
        object.read_at(0, &mut []).unwrap();
        assert_eq!(object.read_at(0, &mut [0]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(store.read(&key("app/none"), 0).unwrap(), b"");
    }

    pub(crate) fn stat_returns_length_and_time(store: &dyn Store) {
        assert_eq!(store.stat(&key("app/a")).unwrap(), None);
        let slack = Duration::from_secs(2); // File times are less exact than the clock.
        let before = SystemTime::now() - slack;
        let _ = store.write(&key("app/a"), b"12345").unwrap();
        let meta = store.stat(&key("app/a")).unwrap().unwrap();
        assert_eq!((meta.key, meta.bytes), (key("app/a"), 5));
        assert!(meta.modified >= before && meta.modified <= SystemTime::now() + slack);
        // A folder is not an object, and there is nothing below an object.
        assert_eq!(store.stat(&key("app")).unwrap(), None);
        assert_eq!(store.stat(&key("app/a/b")).unwrap(), None);
    }

    pub(crate) fn missing_object_is_reported_as_not_found(store: &dyn Store) {
        let _ = store.write(&key("app/a"), b"x").unwrap();
        for name in ["b", "app", "app/b", "app/a/b", "other/a"] {
            let error = store.open(&key(name)).err().unwrap();
            assert_eq!(error.kind, Kind::NotFound, "{name}");
            assert!(error.message.contains(name), "{error}");
            assert_eq!(store.read(&key(name), 10).unwrap_err().kind, Kind::NotFound, "{name}");
        }
    }

    pub(crate) fn read_refuses_an_object_above_the_limit(store: &dyn Store) {
        let _ = store.write(&key("app/a"), &[7; 100]).unwrap();
        assert_eq!(store.read(&key("app/a"), 100).unwrap(), [7; 100]);
        let error = store.read(&key("app/a"), 99).unwrap_err();
        assert_eq!(error.kind, Kind::Problem);
        assert!(error.message.contains("100 bytes"), "{error}");
    }

    pub(crate) fn list_is_sorted_and_not_recursive(store: &dyn Store) {
        for name in ["b/z", "a", "b/B", "b/a.x", "b/a", "c/x/y", "b/a-1", "C/x", "10", "9"] {
            let _ = store.write(&key(name), name.as_bytes()).unwrap();
        }
        let top = store.list("", Names::All).unwrap();
        assert_eq!((names(&top), top.folders.join(" ")), (vec!["10", "9", "a"], "C b c".to_owned()));
        let b = store.list("b", Names::All).unwrap();
        assert_eq!((names(&b), b.folders.len()), (vec!["b/B", "b/a", "b/a-1", "b/a.x", "b/z"], 0));
        let c = store.list("c", Names::All).unwrap();
        assert_eq!((names(&c), c.folders.join(" ")), (vec![], "x".to_owned()));
        // There is a folder 'c/x', but none with the name 'x'.
        assert_eq!(store.list("x", Names::All).unwrap(), Listing::default());
        for object in b.objects {
            assert_eq!(store.stat(&object.key).unwrap().unwrap(), object);
        }
    }

    pub(crate) fn list_begins_at_the_given_name(store: &dyn Store) {
        for name in ["app/1", "app/2", "app/20", "app/3", "f1/x", "f2/x", "top"] {
            let _ = store.write(&key(name), b"").unwrap();
        }
        assert_eq!(names(&store.list("app", Names::Between("2", None)).unwrap()), ["app/2", "app/20", "app/3"]);
        assert_eq!(names(&store.list("app", Names::Between("21", None)).unwrap()), ["app/3"]);
        assert_eq!(names(&store.list("app", Names::Between("~", None)).unwrap()), [""; 0]);
        let top = store.list("", Names::Between("f2", None)).unwrap();
        assert_eq!((names(&top), top.folders.join(" ")), (vec!["top"], "f2".to_owned()));
    }

    pub(crate) fn list_of_an_absent_folder_is_empty_and_of_an_invalid_one_is_refused(store: &dyn Store) {
        let _ = store.write(&key("app/a"), b"x").unwrap();
        for folder in ["nothing", "nothing/below", "app/a"] {
            assert_eq!(store.list(folder, Names::All).unwrap(), Listing::default(), "{folder}");
        }
        for folder in ["..", "app/..", "/", "app/", ".", "/etc", "app//a", ".upload-x"] {
            assert_eq!(store.list(folder, Names::All).unwrap_err().kind, Kind::Usage, "{folder}");
        }
    }

    pub(crate) fn delete_can_be_repeated_and_removes_only_one_object(store: &dyn Store) {
        let _ = store.write(&key("app/a"), b"old").unwrap();
        let _ = store.write(&key("app/ab"), b"other").unwrap();
        store.delete(&key("app/a")).unwrap();
        assert_eq!(contents(store), [("app/ab".to_owned(), b"other".to_vec())]);
        for name in ["app/a", "app", "app/ab/c", "nothing/at/all"] {
            store.delete(&key(name)).unwrap();
        }
        assert_eq!(store.write(&key("app/a"), b"new").unwrap(), Published::Created);
        assert_eq!(store.read(&key("app/a"), 3).unwrap(), b"new");
    }

    pub(crate) fn clear_leftovers_keeps_objects_and_running_uploads(store: &dyn Store) {
        let _ = store.write(&key("app/a"), b"kept").unwrap();
        let mut upload = store.create(&key("app/b")).unwrap();
        upload.write_all(b"kept ").unwrap();
        assert_eq!(store.clear_leftovers(Duration::ZERO).unwrap(), 0);
        upload.write_all(b"too").unwrap();
        assert_eq!(upload.finish().unwrap(), Published::Created);
        assert_eq!(store.clear_leftovers(Duration::ZERO).unwrap(), 0);
        let expected = [("app/a".to_owned(), b"kept".to_vec()), ("app/b".to_owned(), b"kept too".to_vec())];
        assert_eq!(contents(store), expected);
    }
}

/// Runs every test of the suite against every kind of store, each time in a new store.
macro_rules! against_every_store {
    ($($test:ident)*) => {
        mod local {
            $(#[test]
            fn $test() {
                let (folder, store) = super::new_local();
                super::contract::$test(&store);
                assert!(super::leftovers(folder.path()).is_empty(), "{:?}", super::leftovers(folder.path()));
            })*
        }

        mod seaweedfs {
            $(#[test]
            #[ignore = "needs S3 servers"]
            fn $test() {
                super::contract::$test(&crate::support::s3::s3_server("seaweedfs").open_new());
            })*
        }

        mod ceph {
            $(#[test]
            #[ignore = "needs S3 servers"]
            fn $test() {
                super::contract::$test(&crate::support::s3::s3_server("ceph").open_new());
            })*
        }

        mod memory {
            $(#[test]
            fn $test() {
                super::contract::$test(&super::MemoryStore::new());
            })*
        }
    };
}

against_every_store! {
    object_is_read_back_unchanged
    objects_in_the_root_and_in_nested_folders_are_stored
    upload_is_invisible_before_finish
    dropped_upload_leaves_no_object
    existing_object_is_never_overwritten
    of_many_uploads_of_one_key_exactly_one_succeeds
    uploads_can_run_in_parallel
    large_object_is_read_back_completely_and_by_ranges
    dropped_large_upload_leaves_nothing
    list_filters_by_range_and_prefix_of_names
    many_objects_are_deleted_at_once
    ranged_read_is_exact_or_fails
    one_object_is_read_by_many_threads
    empty_object_can_be_stored_and_read
    stat_returns_length_and_time
    missing_object_is_reported_as_not_found
    read_refuses_an_object_above_the_limit
    list_is_sorted_and_not_recursive
    list_begins_at_the_given_name
    list_of_an_absent_folder_is_empty_and_of_an_invalid_one_is_refused
    delete_can_be_repeated_and_removes_only_one_object
    clear_leftovers_keeps_objects_and_running_uploads
}

/// Returns every file below `folder` whose name starts with a dot.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        } else if entry.file_name().to_str().is_some_and(|name| name.starts_with('.')) {
            found.push(entry.path());
        }
    }
    found
}

fn new_local() -> (tempfile::TempDir, LocalStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalStore::create(&folder.path().join("store")).unwrap();
    (folder, store)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn make_older(path: &Path, age: Duration) {
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn local_files_and_folders_are_accessible_only_to_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new/parents/store");
    let store = LocalStore::create(&root).unwrap();
    let mut upload = store.create(&key("app/x/a")).unwrap();
    upload.write_all(b"x").unwrap();
    assert_eq!(leftovers(&root).iter().map(|path| mode(path)).collect::<Vec<_>>(), [0o600]);
    let _ = upload.finish().unwrap();
    assert_eq!(mode(&root.join("app/x/a")), 0o600);
    for made in [root.join("app/x"), root.join("app"), root.clone(), folder.path().join("new")] {
        assert_eq!(mode(&made), 0o700, "{}", made.display());
    }
}

#[test]
fn local_store_keeps_the_mode_and_objects_of_an_existing_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let _ = LocalStore::create(folder.path()).unwrap().write(&key("a"), b"x").unwrap();
    assert_eq!(mode(folder.path()), 0o755);
    let again = LocalStore::create(folder.path()).unwrap();
    assert_eq!(again.read(&key("a"), 1).unwrap(), b"x");
    assert_eq!(again.location(), folder.path().to_str().unwrap());
    assert!(again.free_bytes().unwrap() > 0);
}

#[test]
fn missing_local_store_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let (absent, dangling) = (folder.path().join("absent"), folder.path().join("dangling"));
    symlink(&absent, &dangling).unwrap();
    for path in [&absent, &file, &file.join("below"), &dangling] {
        let error = LocalStore::open(path).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable);
        assert!(error.message.contains(path.to_str().unwrap()), "{error}");
        assert!(error.hint.is_some());
    }
    assert!(LocalStore::open(&absent).unwrap_err().hint.unwrap().contains("mounted"));
    for path in [&file, &file.join("below"), &dangling] {
        assert_eq!(LocalStore::create(path).unwrap_err().kind, Kind::Unreachable, "{}", path.display());
    }
    assert!(!absent.exists());
}

#[test]
fn local_store_that_disappears_is_unreachable_and_not_empty() {
    let (folder, store) = new_local();
    let _ = store.write(&key("app/a"), b"x").unwrap();
    fs::rename(folder.path().join("store"), folder.path().join("unmounted")).unwrap();
    let a = key("app/a");
    let failures: [Error; 8] = [
        store.stat(&a).unwrap_err(),
        store.open(&a).err().unwrap(),
        store.list("", Names::All).unwrap_err(),
        store.list("app", Names::All).unwrap_err(),
        store.delete(&a).unwrap_err(),
        store.create(&a).err().unwrap(),
        store.create(&key("top")).err().unwrap(),
        store.clear_leftovers(DAY).unwrap_err(),
    ];
    for error in failures {
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
    }
    assert!(store.create(&a).err().unwrap().hint.unwrap().contains("mounted"));
    assert!(!folder.path().join("store").exists());
}

#[test]
fn local_upload_fails_when_its_folder_disappears() {
    let (folder, store) = new_local();
    let mut upload = store.create(&key("app/a")).unwrap();
    upload.write_all(b"x").unwrap();
    fs::rename(folder.path().join("store/app"), folder.path().join("moved")).unwrap();
    let error = upload.finish().unwrap_err();
    assert_eq!(error.kind, Kind::Failed);
    assert!(error.message.contains("store/app/a"), "{error}");
    assert!(!error.causes().is_empty());
    assert!(contents(&store).is_empty());
}

#[test]
fn local_list_ignores_files_that_are_not_objects() {
    let (folder, store) = new_local();
    let _ = store.write(&key("app/a"), b"x").unwrap();
    let root = folder.path().join("store");
    fs::create_dir(root.join("lost+found")).unwrap();
    fs::create_dir(root.join(".hidden")).unwrap();
    for name in [".upload-dead", ".DS_Store", "a file", "\u{e4}"] {
        fs::write(root.join("app").join(name), b"x").unwrap();
    }
    symlink("a", root.join("app/link")).unwrap();
    symlink("/dev/zero", root.join("app/zero")).unwrap();
    symlink("nowhere", root.join("app/dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("app/socket")).unwrap();
    let top = store.list("", Names::All).unwrap();
    assert_eq!((names(&top), top.folders.join(" ")), (vec![], "app".to_owned()));
    let app = store.list("app", Names::All).unwrap();
    assert_eq!((names(&app), app.folders.len()), (vec!["app/a"], 0));
    // The other operations do not treat these as objects either: they do not follow, replace or remove them.
    for name in ["app/link", "app/zero", "app/dangling", "app/socket"] {
        assert_eq!(store.stat(&key(name)).unwrap(), None, "{name}");
        assert!(store.open(&key(name)).is_err(), "{name}");
        store.delete(&key(name)).unwrap();
        let error = store.write(&key(name), b"y").unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{name}");
        assert!(error.hint.unwrap().contains("move it away"), "{name}");
        assert!(!root.join(name).symlink_metadata().unwrap().is_file(), "{name}");
    }
    assert_eq!(store.read(&key("app/a"), 1).unwrap(), b"x");
}

#[test]
fn local_folder_may_be_a_link_to_another_disk() {
    let (folder, store) = new_local();
    fs::create_dir(folder.path().join("disk")).unwrap();
    symlink(folder.path().join("disk"), folder.path().join("store/app")).unwrap();
    let _ = store.write(&key("app/a"), b"x").unwrap();
    assert_eq!(store.list("", Names::All).unwrap().folders, ["app"]);
    assert_eq!(contents(&store), [("app/a".to_owned(), b"x".to_vec())]);
    assert!(folder.path().join("disk/a").exists());
}

#[test]
fn local_leftovers_are_cleared_if_old_and_abandoned() {
    let (folder, store) = new_local();
    let root = folder.path().join("store");
    let _ = store.write(&key("app/a"), b"object").unwrap();
    make_older(&root.join("app/a"), 9 * DAY);
    let mut live = store.create(&key("app/live")).unwrap();
    live.write_all(b"slow").unwrap();
    for path in leftovers(&root) {
        make_older(&path, 3 * DAY);
    }
    let old = [root.join(".upload-old1"), root.join("app/.upload-old2")];
    let kept = [root.join("app/.upload-young"), root.join("app/.other"), root.join("app/upload-old")];
    for path in old.iter().chain(&kept) {
        fs::write(path, b"12345").unwrap();
    }
    for path in old.iter().chain(&kept[1..]) {
        make_older(path, 2 * DAY);
    }
    symlink("a", root.join("app/.upload-link")).unwrap();

    assert_eq!(store.clear_leftovers(DAY).unwrap(), 10);
    assert!(old.iter().all(|path| !path.exists()));
    assert!(kept.iter().all(|path| path.exists()));
    assert_eq!(store.clear_leftovers(DAY).unwrap(), 0);

    assert_eq!(live.finish().unwrap(), Published::Created);
    assert_eq!(store.read(&key("app/live"), 4).unwrap(), b"slow");
    assert_eq!(store.read(&key("app/a"), 6).unwrap(), b"object");
}

#[test]
fn open_local_object_stays_readable_after_it_is_deleted() {
    let (_folder, store) = new_local();
    let _ = store.write(&key("app/a"), b"x").unwrap();
    let object = store.open(&key("app/a")).unwrap();
    store.delete(&key("app/a")).unwrap();
    let mut buffer = [0];
    object.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"x");
}

#[test]
fn local_list_of_twenty_thousand_objects_is_complete() {
    let (folder, store) = new_local();
    fs::create_dir(folder.path().join("store/app")).unwrap();
    for i in 0..20_000 {
        File::create(folder.path().join(format!("store/app/{i:05}.json"))).unwrap();
    }
    let listing = store.list("app", Names::All).unwrap();
    assert_eq!(listing.objects.len(), 20_000);
    assert!(listing.objects.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!(store.list("app", Names::Between("19990", None)).unwrap().objects.len(), 10);
}

#[test]
fn only_plain_relative_names_are_valid_keys() {
    let longest = "x".repeat(255);
    for text in ["a", "lifeboat.json", "app/app-20261121T170501Z-7f3a.tar.gz", "A/b_c/d-e.f", "a..b", "-", &longest] {
        let key: Key = text.parse().unwrap();
        assert_eq!((key.as_str(), key.to_string().as_str()), (text, text));
    }
    let overlong = "x".repeat(256);
    let refused = "|/|/a|a/|a//b|.|..|../a|a/..|a/../b|./a|a/./b|.hidden|a/.upload-x|a b|a\\b|a\0b|a\nb|a:b|a%2fb|~|a*|caf\u{e9}|\u{ff0e}\u{ff0e}/a|C:a";
    for text in refused.split('|').chain([overlong.as_str()]) {
        let error = text.parse::<Key>().unwrap_err();
        assert_eq!(error.kind, Kind::Usage, "{text:?}");
        assert!(!error.message.contains('\n'), "{text:?}");
    }
    let key = key("a/b/c.json");
    assert_eq!((key.folder(), key.name()), ("a/b", "c.json"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn no_key_leads_out_of_its_folder(text in "[a.~/\\\\ \u{e9}\0-]{0,8}") {
        if let Ok(key) = text.parse::<Key>() {
            let parts: Vec<_> = Path::new(key.as_str()).components().collect();
            prop_assert_eq!(parts.len(), key.as_str().split('/').count());
            prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))));
        }
    }
}

/// Uses a store like a command does: writes an archive, then its manifest, and deletes the old manifest last.
fn replace_snapshot(store: &dyn Store) -> lifeboat::platform::error::Result<()> {
    let _ = store.list("app", Names::All)?;
    let mut archive = store.create(&key("app/1.tar.gz"))?;
    for piece in [b"one", b"two"] {
        archive.write_all(piece)?;
    }
    let _ = archive.finish()?;
    assert_eq!(store.stat(&key("app/1.tar.gz"))?.unwrap().bytes, 6);
    assert_eq!(store.read(&key("app/1.tar.gz"), 6)?, b"onetwo");
    let _ = store.write(&key("app/1.json"), b"{}")?;
    store.delete(&key("app/0.json"))
}

/// Requires what must hold after every failure: objects are complete, and the old or the new snapshot exists.
fn require_complete_objects(store: &MemoryStore) {
    store.inject(Faults::None);
    let expected = [("app/1.json", &b"{}"[..]), ("app/1.tar.gz", b"onetwo"), ("app/0.json", b"old")];
    let found = contents(store);
    for (name, bytes) in &found {
        assert!(expected.contains(&(name.as_str(), bytes.as_slice())), "{name}");
    }
    let names: BTreeSet<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains("app/1.tar.gz") || !names.contains("app/1.json"), "{names:?}");
    assert!(names.contains("app/0.json") || names.contains("app/1.json"), "{names:?}");
}

#[test]
fn injected_failure_at_any_operation_leaves_only_complete_objects() {
    for fault in [Faults::FailOnce, Faults::FailFrom] {
        // The operations: list, create, write, write, finish, stat, open, read, create, write, finish, delete.
        for n in 1..=13 {
            let store = MemoryStore::new();
            let _ = store.write(&key("app/0.json"), b"old").unwrap();
            store.inject(fault(n));
            let result = replace_snapshot(&store);
            assert_eq!(store.operations(), n.min(12));
            require_complete_objects(&store);
            match result {
                Err(error) => assert_eq!(error.kind, Kind::Unreachable, "{error}"),
                Ok(()) => assert_eq!(n, 13),
            }
        }
    }
}

#[test]
fn lost_reply_leaves_the_object_published() {
    let store = MemoryStore::new();
    store.inject(Faults::LoseReply(2));
    assert_eq!(store.write(&key("app/a"), b"1").unwrap(), Published::Created);
    assert_eq!(store.write(&key("app/b"), b"2").unwrap_err().kind, Kind::Unreachable);
    assert_eq!(store.write(&key("app/c"), b"3").unwrap(), Published::Created);
    assert_eq!(store.read(&key("app/b"), 1).unwrap(), b"2");
    assert_eq!(store.write(&key("app/b"), b"2").unwrap(), Published::AlreadyExists);
}

#[test]
fn upload_with_a_failed_write_is_never_published() {
    let store = MemoryStore::new();
    store.inject(Faults::FailOnce(3));
    let mut upload = store.create(&key("app/a")).unwrap();
    upload.write_all(b"1").unwrap();
    assert_eq!(Error::from(upload.write_all(b"2").unwrap_err()).kind, Kind::Unreachable);
    assert_eq!(Error::from(upload.write_all(b"3").unwrap_err()).kind, Kind::Failed);
    assert_eq!(upload.finish().unwrap_err().kind, Kind::Failed);
    assert!(contents(&store).is_empty());
}

#[test]
fn clones_of_a_memory_store_share_objects_and_faults() {
    let store = MemoryStore::new();
    let clone = store.clone();
    let _ = clone.write(&key("a"), b"x").unwrap();
    assert_eq!(store.read(&key("a"), 1).unwrap(), b"x");
    store.inject(Faults::FailFrom(1));
    for _ in 0..2 {
        assert_eq!(clone.stat(&key("a")).unwrap_err().kind, Kind::Unreachable);
    }
    clone.inject(Faults::None);
    assert_eq!(store.stat(&key("a")).unwrap().unwrap().bytes, 1);
}
