//! Several runs at once, on one database or for one name.

use super::common::{Mode, Scene, Target, Watcher, content, copying, require_same};
use crate::support::postgres::server;

#[test]
#[ignore = "needs PostgreSQL"]
fn two_snapshots_at_once_are_both_whole() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("two_snapshots", 10);
    scene.snapshot(&source.url());
    let url = source.url();
    let runs: Vec<_> = (0..3).map(|_| scene.start(&["snapshot", &url])).collect();
    for run in runs {
        scene.finish(run).code(0);
    }
    let ids = scene.ids();
    assert_eq!(ids.len(), 4);
    scene.require_store(&ids);
    let digests: Vec<_> = ids.iter().map(|id| scene.json(&["show", id])["tables"].clone()).collect();
    assert!(digests.iter().all(|tables| *tables == digests[0]));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn two_restores_at_once_to_one_name_have_one_winner() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("two_restores", 8);
    let id = scene.snapshot(&source.url());
    let target = Target::new(Mode::Create, &source);
    let url = target.database.url();
    let runs: Vec<_> = (0..3).map(|_| scene.start(&target.arguments(&id, &url))).collect();
    let runs: Vec<_> = runs.into_iter().map(|run| scene.finish(run)).collect();
    let winners = runs.iter().filter(|run| run.exit() == 0).count();
    let stories: String = runs.iter().map(|run| run.transcript()).collect();
    assert_eq!(winners, 1, "{stories}");
    for run in runs.iter().filter(|run| run.exit() != 0) {
        assert!(run.stderr().contains("already"), "{stories}");
    }
    require_same(&content(&server, &target.database.name), &content(&server, &source.name));
    assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn two_restores_at_once_over_one_database_leave_the_snapshot() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("two_replaces", 8);
    let id = scene.snapshot(&source.url());
    let target = Target::new(Mode::Replace, &source);
    let url = target.database.url();
    let arguments = [target.arguments(&id, &url), vec!["--no-safety"]].concat();
    let runs: Vec<_> = (0..2).map(|_| scene.start(&arguments)).collect();
    for run in runs {
        scene.finish(run).code(0);
    }
    require_same(&content(&server, &target.database.name), &content(&server, &source.name));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn snapshot_during_a_restore_sees_old_or_new() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("during", 40);
    let id = scene.snapshot(&source.url());
    let new = scene.json(&["show", &id])["tables"].clone();
    let target = Target::new(Mode::Replace, &source);
    let url = target.database.url();
    let old = scene.json(&["snapshot", &url, "--name", "during"])["snapshots"][0]["tables"].clone();
    assert_ne!(old, new);
    let mut watcher = Watcher::new(&server);
    let mut running = scene.start(&[target.arguments(&id, &url), vec!["--no-safety"]].concat());
    assert!(watcher.until_or_end(&copying(&target.database.name, 1), &mut running), "too quick");
    // Now the tables are empty, in a transaction that nobody else sees: it waits, and is told who it waits for.
    let run = scene.run(&["snapshot", &url, "--name", "during", "--lock-timeout", "0"]);
    if run.exit() != 0 {
        let run = run.code(1);
        assert!(run.stderr().contains("application lifeboat"), "{}", run.transcript());
    }
    let during = scene.json(&["snapshot", &url, "--name", "during"])["snapshots"][0]["tables"].clone();
    scene.finish(running).code(0);
    let after = scene.json(&["snapshot", &url, "--name", "during"])["snapshots"][0]["tables"].clone();
    assert!(during == old || during == new, "{during}");
    assert_eq!(after, new);
}
