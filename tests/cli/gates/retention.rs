//! Pruning by the config: only after successful snapshots, and never a snapshot that is being read.

use super::helpers::App;

const KEEP_TWO: &str = "[retention]\nkeep_last = 2\n";

#[test]
fn a_successful_snapshot_prunes_and_prints_the_plan() {
    let app = App::new(KEEP_TWO);
    for _ in 0..3 {
        app.sandbox.ok(&["snapshot"]);
    }
    assert_eq!(app.ids().len(), 3, "snapshots were pruned without --prune");
    let run = app.sandbox.ok(&["snapshot", "--prune"]);
    assert_eq!(app.ids().len(), 2);
    assert!(run.stdout().contains("deleted") && run.stdout().contains("keep"), "{}", run.transcript());
    app.write_config("[retention]\nkeep_last = 1\nafter_snapshot = true\n");
    app.sandbox.ok(&["snapshot"]);
    assert_eq!(app.ids().len(), 1);
}

#[test]
fn a_failed_snapshot_prunes_nothing() {
    let app = App::new(KEEP_TWO);
    for _ in 0..3 {
        app.sandbox.ok(&["snapshot"]);
    }
    let before = app.ids();
    app.sql("DELETE FROM accounts; DELETE FROM balances");
    let run = app.sandbox.run(&["snapshot", "--prune"]).code(3);
    assert_eq!(app.ids(), before);
    assert!(run.stderr().contains("nothing was pruned"), "{}", run.transcript());
}

#[test]
fn a_snapshot_that_is_being_read_is_not_pruned() {
    use lifeboat::snapshots::catalog::Catalog;
    use lifeboat::store::LocalStore;
    let app = App::new(KEEP_TWO);
    for _ in 0..3 {
        app.sandbox.ok(&["snapshot"]);
    }
    let ids = app.ids();
    let catalog = Catalog::open(Box::new(LocalStore::open(&app.sandbox.path("backups")).unwrap())).unwrap();
    let lease = catalog.lease(&ids[2].parse().unwrap()).unwrap();
    let run = app.sandbox.ok(&["prune", "--yes"]);
    assert!(run.stdout().contains("being read"), "{}", run.transcript());
    assert_eq!(app.ids(), ids);
    drop(lease);
    app.sandbox.ok(&["prune", "--yes"]);
    assert_eq!(app.ids(), ids[..2]);
}

#[test]
fn a_policy_that_keeps_nothing_is_refused_before_anything_is_saved() {
    let app = App::new("");
    app.sandbox.run(&["snapshot", "--prune"]).code(2);
    app.sandbox.run(&["prune"]).code(2);
    assert_eq!(app.ids(), Vec::<String>::new());
}

#[test]
fn with_a_missing_store_a_snapshot_prunes_nothing_and_reports_it() {
    let app = App::new("");
    app.write_config("[retention]\nkeep_last = 1\n[[store]]\nurl = \"./second\"\n");
    app.sandbox.ok(&["init"]);
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["snapshot"]);
    std::fs::rename(app.sandbox.path("second"), app.sandbox.path("away")).unwrap();
    let run = app.sandbox.run(&["snapshot", "--prune"]).code(5);
    assert!(run.stderr().contains("second") && run.stderr().contains("nothing was pruned"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 3, "the snapshot is not in the store that exists");
    let run = app.sandbox.run(&["prune", "--yes"]).code(5);
    assert!(run.stderr().contains("a store was not pruned"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1, "the store that exists was not pruned");
    std::fs::rename(app.sandbox.path("away"), app.sandbox.path("second")).unwrap();
    app.sandbox.ok(&["prune", "--yes"]);
    assert_eq!(app.sandbox.json(&["list", "--store", "second"])["snapshots"].as_array().unwrap().len(), 1);
}
