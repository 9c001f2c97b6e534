//! Hosts that begin a source of the same name in the same store at the same time.

use crate::common::prepare;
use crate::store_failures::{listed, payload, save_of};
use crate::support::{Run, Running, Sandbox, sample};
use crate::system_calls::can_trace;
use lifeboat::platform::error::{Kind, Result};
use lifeboat::platform::ranged::Ranged;
use lifeboat::snapshots::catalog::Catalog;
use lifeboat::store::{Key, Listing, MemoryStore, Names, ObjectMeta, Published, Store, Upload};
use std::io::{self, Write};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Starts `lifeboat ARGUMENTS`, with a delay before each rename, which publishes an object.
fn start_slowly(sandbox: &Sandbox, delay_ms: u32, arguments: &[&str]) -> Running {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    command.arg(format!("inject=renameat2:delay_enter={delay_ms}000"));
    command.arg(crate::support::LIFEBOAT).args(arguments);
    prepare(&mut command, sandbox.root());
    sandbox.start_command(command)
}

/// Requires that one run succeeded and the others name its database and exit with 2, and that the store has nothing
/// of theirs.
#[track_caller]
fn require_one_winner(sandbox: &Sandbox, runs: &[Run], context: &str) {
    let transcripts: String = runs.iter().map(Run::transcript).collect();
    let succeeded = runs.iter().filter(|run| run.exit() == 0).count();
    let refused = runs.iter().filter(|run| run.exit() == 2 && run.stderr().contains("already has a source app, from"));
    assert_eq!((succeeded, refused.count()), (1, runs.len() - 1), "{context}: {transcripts}");
    assert_eq!(sandbox.ids().len(), 1, "{context}: {transcripts}");
    let names = std::fs::read_dir(sandbox.path("backups/app")).unwrap().count();
    assert_eq!(names, 2, "{context}: only one archive and one manifest may be left: {transcripts}");
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
}

#[test]
fn of_two_hosts_that_begin_a_source_at_once_one_gets_its_name() {
    if !can_trace() {
        return;
    }
    for (round, delays) in [[0, 0], [200, 200], [200, 250], [250, 200], [300, 0], [0, 300]].into_iter().enumerate() {
        let sandbox = Sandbox::new();
        sample(sandbox.path("other.db"), 1, "delete");
        sandbox.ok(&["snapshot", "other.db", "--store", "backups"]);
        sandbox.ok(&["delete", &sandbox.ids()[0], "--yes", "--store", "backups"]);
        let runs: Vec<Running> = ["one", "two"]
            .into_iter()
            .zip(delays)
            .map(|(host, delay)| {
                std::fs::create_dir(sandbox.path(host)).unwrap();
                let file = format!("{host}/app.db");
                sample(sandbox.path(&file), 2, "delete");
                start_slowly(&sandbox, delay, &["snapshot", &file, "--store", "backups"])
            })
            .collect();
        let runs: Vec<Run> = runs.into_iter().map(Running::finish).collect();
        require_one_winner(&sandbox, &runs, &format!("round {round}"));
    }
}

#[test]
fn of_two_stores_that_are_copied_at_once_into_a_third_one_gets_the_name() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    sample(sandbox.path("other.db"), 1, "delete");
    sandbox.ok(&["snapshot", "other.db", "--store", "backups"]);
    sandbox.ok(&["delete", &sandbox.ids()[0], "--yes", "--store", "backups"]);
    let runs: Vec<Running> = ["one", "two"]
        .into_iter()
        .map(|host| {
            std::fs::create_dir(sandbox.path(host)).unwrap();
            let (file, store) = (format!("{host}/app.db"), format!("{host}/store"));
            sample(sandbox.path(&file), 2, "delete");
            sandbox.ok(&["snapshot", &file, "--store", &store]);
            start_slowly(&sandbox, 200, &["copy", "latest", "--from", &store, "--to", "backups"])
        })
        .collect();
    let runs: Vec<Run> = runs.into_iter().map(Running::finish).collect();
    let transcripts: String = runs.iter().map(Run::transcript).collect();
    assert_eq!(runs.iter().filter(|run| run.exit() == 0).count(), 1, "{transcripts}");
    assert_eq!(runs.iter().filter(|run| run.exit() == 2).count(), 1, "{transcripts}");
    assert_eq!(sandbox.ids().len(), 1, "{transcripts}");
    assert_eq!(std::fs::read_dir(sandbox.path("backups/app")).unwrap().count(), 2, "{transcripts}");
}

#[test]
fn a_database_that_has_moved_is_no_rival_of_itself() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    for store in ["one", "two"] {
        sandbox.ok(&["snapshot", "app.db", "--store", store]);
    }
    // The two stores know it from different places.
    std::fs::create_dir(sandbox.path("b")).unwrap();
    std::fs::rename(sandbox.path("app.db"), sandbox.path("b/app.db")).unwrap();
    sandbox.ok(&["snapshot", "b/app.db", "--moved", "--store", "two"]);
    std::fs::create_dir(sandbox.path("c")).unwrap();
    std::fs::rename(sandbox.path("b/app.db"), sandbox.path("c/app.db")).unwrap();
    sandbox.run(&["snapshot", "c/app.db", "--store", "one", "--store", "two"]).code(2);
    sandbox.ok(&["snapshot", "c/app.db", "--moved", "--store", "one", "--store", "two"]);
    sandbox.ok(&["snapshot", "c/app.db", "--store", "one", "--store", "two"]);
    for store in ["one", "two"] {
        assert!(sandbox.json(&["list", "--store", store])["snapshots"].as_array().unwrap().len() >= 3);
    }
}

/// A point that several threads pass together.
#[derive(Default)]
struct Gate {
    arrived: Mutex<usize>,
    changed: Condvar,
}

impl Gate {
    /// Waits until `count` calls were made.
    fn pass(&self, count: usize) {
        let mut arrived = self.arrived.lock().unwrap();
        *arrived += 1;
        self.changed.notify_all();
        while *arrived < count {
            arrived = self.changed.wait(arrived).unwrap();
        }
    }
}

/// A store in which the writes of manifests wait for each other.
#[derive(Clone)]
struct Delaying {
    inner: MemoryStore,
    /// Passed before a manifest is written.
    before: Arc<Gate>,
    /// Passed after a manifest was written.
    after: Arc<Gate>,
    writers: usize,
}

struct DelayedUpload(Box<dyn Upload>, Delaying);

impl Write for DelayedUpload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Upload for DelayedUpload {
    fn finish(self: Box<Self>) -> Result<Published> {
        let DelayedUpload(upload, store) = *self;
        store.before.pass(store.writers);
        let published = upload.finish()?;
        store.after.pass(store.writers);
        Ok(published)
    }
}

impl Store for Delaying {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let upload = self.inner.create(key)?;
        let is_manifest = key.name().ends_with(".json") && key.as_str().contains('/');
        Ok(if is_manifest { Box::new(DelayedUpload(upload, self.clone())) } else { upload })
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
    fn create_large(&self, key: &Key, max_bytes: u64) -> Result<Box<dyn Upload>> {
        self.inner.create_large(key, max_bytes)
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
fn of_writers_that_all_see_each_other_exactly_one_stays() {
    for writers in [2, 3] {
        let inner = MemoryStore::new();
        drop(Catalog::create(Box::new(inner.clone())).unwrap());
        let store = Delaying { inner: inner.clone(), before: Arc::default(), after: Arc::default(), writers };
        let payload = payload(8);
        let results: Vec<_> = std::thread::scope(|scope| {
            let save = |host: usize| {
                let catalog = Catalog::open(Box::new(store.clone())).unwrap();
                let payload = &payload;
                scope.spawn(move || save_of(&catalog, payload, &format!("/{host}/app.db"), host as i64))
            };
            let running: Vec<_> = (0..writers).map(save).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let saved: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).cloned().collect();
        assert_eq!(saved.len(), 1, "{results:?}");
        assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.kind == Kind::Usage));
        let catalog = Catalog::open(Box::new(inner.clone())).unwrap();
        assert_eq!(listed(&catalog), saved);
        assert_eq!(inner.list("app", Names::All).unwrap().objects.len(), 2, "the archives of the others are deleted");
    }
}

#[test]
fn a_writer_withdraws_if_another_that_was_complete_before_it_was_written_stays() {
    // The first of the two manifests is written when the second writer has made its first check, and its own second
    // check is over before the second is written. The second is of an earlier time, so it waits for the first to
    // withdraw, in vain.
    let inner = MemoryStore::new();
    let catalog = Catalog::create(Box::new(inner.clone())).unwrap();
    let store = Delaying { inner: inner.clone(), before: Arc::default(), after: Arc::default(), writers: 2 };
    let payload = payload(8);
    std::thread::scope(|scope| {
        let second = Catalog::open(Box::new(Delaying {
            after: Arc::new(Gate { arrived: Mutex::new(9), ..Gate::default() }),
            ..store.clone()
        }))
        .unwrap();
        let payload = &payload;
        let second = scope.spawn(move || save_of(&second, payload, "/second/app.db", -100));
        // Wait until it is about to write its manifest.
        let mut arrived = store.before.arrived.lock().unwrap();
        while *arrived < 1 {
            arrived = store.before.changed.wait(arrived).unwrap();
        }
        drop(arrived);
        let first = save_of(&catalog, payload, "/first/app.db", 0).unwrap();
        store.before.pass(2);
        let error = second.join().unwrap().unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.full_message().contains("/first/app.db"), "{error:?}");
        assert_eq!(listed(&catalog), [first]);
        assert_eq!(inner.list("app", Names::All).unwrap().objects.len(), 2);
    });
}
