//! Hosts that begin a source of the same name in the same store at the same time.

use crate::store_failures::{listed, payload, save_of};
use crate::strace::{can_trace, start_with_effects};
use crate::support::controlled_store::ControlledStore;
use crate::support::{Run, Running, Sandbox, sample};
use lifeboat::platform::error::Kind;
use lifeboat::snapshots::catalog::Catalog;
use lifeboat::store::{MemoryStore, Names, Store as _};
use std::sync::{Arc, Condvar, Mutex};

/// Starts `lifeboat ARGUMENTS`, with a delay before each rename, which publishes an object.
fn start_slowly(sandbox: &Sandbox, delay_ms: u32, arguments: &[&str]) -> Running {
    start_with_effects(sandbox, &[&format!("renameat2:delay_enter={delay_ms}000")], &[], arguments)
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
    // Some rounds wait for seconds, so all run at the same time.
    std::thread::scope(|scope| {
        for delays in [[0, 0], [200, 200], [200, 250], [250, 200], [300, 0], [0, 300]] {
            scope.spawn(move || begin_at_once(delays));
        }
    });
}

/// Takes the first snapshots of a source of the same name from two places at once, with these delays before each rename.
fn begin_at_once(delays: [u32; 2]) {
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
    require_one_winner(&sandbox, &runs, &format!("delays {delays:?}"));
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

/// Returns a store in which the writes of manifests wait for each other, at one gate before they are written and at
/// another after that.
fn delaying(inner: &MemoryStore, before: &Arc<Gate>, after: &Arc<Gate>, writers: usize) -> ControlledStore {
    let (before, after) = (Arc::clone(before), Arc::clone(after));
    ControlledStore::new(inner, move |key, upload| {
        let is_manifest = key.name().ends_with(".json") && key.as_str().contains('/');
        if !is_manifest {
            return upload.finish();
        }
        before.pass(writers);
        let published = upload.finish()?;
        after.pass(writers);
        Ok(published)
    })
}

#[test]
fn of_writers_that_all_see_each_other_exactly_one_stays() {
    for writers in [2, 3] {
        let inner = MemoryStore::new();
        drop(Catalog::create(Box::new(inner.clone())).unwrap());
        let store = delaying(&inner, &Arc::default(), &Arc::default(), writers);
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
    let before = Arc::<Gate>::default();
    let open = Arc::new(Gate { arrived: Mutex::new(9), ..Gate::default() });
    let store = delaying(&inner, &before, &open, 2);
    let payload = payload(8);
    std::thread::scope(|scope| {
        let second = Catalog::open(Box::new(store)).unwrap();
        let payload = &payload;
        let second = scope.spawn(move || save_of(&second, payload, "/second/app.db", -100));
        // Wait until it is about to write its manifest.
        let mut arrived = before.arrived.lock().unwrap();
        while *arrived < 1 {
            arrived = before.changed.wait(arrived).unwrap();
        }
        drop(arrived);
        let first = save_of(&catalog, payload, "/first/app.db", 0).unwrap();
        before.pass(2);
        let error = second.join().unwrap().unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.full_message().contains("/first/app.db"), "{error:?}");
        assert_eq!(listed(&catalog), [first]);
        assert_eq!(inner.list("app", Names::All).unwrap().objects.len(), 2);
    });
}
