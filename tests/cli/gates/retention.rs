//! Pruning by the config: after good snapshots only, and never what is being read.

use super::helpers::App;

const KEEP_TWO: &str = "[retention]\nkeep_last = 2\n";

#[test]
fn a_good_snapshot_prunes_and_shows_its_plan() {
    let app = App::new(KEEP_TWO);
    for _ in 0..3 {
        app.sandbox.ok(&["snapshot"]);
    }
    assert_eq!(app.ids().len(), 3, "nobody asked for it");
    let run = app.sandbox.ok(&["snapshot", "--prune"]);
    assert_eq!(app.ids().len(), 2);
    assert!(run.stdout().contains("deleted") && run.stdout().contains("keep"), "{}", run.transcript());
    app.config("[retention]\nkeep_last = 1\nafter_snapshot = true\n");
    app.sandbox.ok(&["snapshot"]);
    assert_eq!(app.ids().len(), 1);
}

#[test]
fn a_snapshot_that_fails_prunes_nothing() {
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
fn what_is_being_read_is_not_pruned() {
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
fn a_store_that_is_out_of_reach_keeps_every_snapshot_and_is_told() {
    let app = App::new("");
    app.config("[retention]\nkeep_last = 1\n[[store]]\nurl = \"./second\"\n");
    app.sandbox.ok(&["init"]);
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["snapshot"]);
    std::fs::rename(app.sandbox.path("second"), app.sandbox.path("away")).unwrap();
    let run = app.sandbox.run(&["snapshot", "--prune"]).code(5);
    assert!(run.stderr().contains("second") && run.stderr().contains("nothing was pruned"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 3, "it was saved where it could be");
    let run = app.sandbox.run(&["prune", "--yes"]).code(5);
    assert!(run.stderr().contains("a store was not pruned"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1, "and the other store is pruned all the same");
    std::fs::rename(app.sandbox.path("away"), app.sandbox.path("second")).unwrap();
    app.sandbox.ok(&["prune", "--yes"]);
    assert_eq!(app.sandbox.json(&["list", "--store", "second"])["snapshots"].as_array().unwrap().len(), 1);
}
