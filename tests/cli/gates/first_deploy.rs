//! The first deploy of a source: there is no database yet, and no store has anything of it. It passes; everything else
//! that looks like it does not.

use super::helpers::{App, assert_one_failed, failed_checks};
use crate::support::{have, open};

/// The words by which people and scripts recognize the state.
const NOTHING_YET: &str = "first deploy: nothing to save yet";

/// Creates an app whose folder exists, as a mounted volume does, and whose database does not.
pub(super) fn new_app(more: &str) -> App {
    let app = App::new(more);
    app.remove_database();
    app
}

#[test]
fn the_first_deploy_passes_both_gates_and_a_later_loss_closes_them() {
    let app = new_app("");
    let run = app.sandbox.ok(&["predeploy", "--commit", "one"]);
    assert!(run.stdout().contains(NOTHING_YET) && run.stdout().contains("open"), "{}", run.transcript());
    let document = app.passes(&["predeploy", "--commit", "one"]);
    assert_eq!(document["first_deploy"], serde_json::json!(["app"]));
    assert_eq!(document["snapshots"], serde_json::json!([]));
    let run = app.sandbox.ok(&["snapshot", "--accept"]);
    assert!(run.stdout().contains(NOTHING_YET), "{}", run.transcript());
    // The first deployed program creates its database.
    app.create_database();
    let run = app.sandbox.ok(&["postdeploy", "--commit", "one"]);
    assert!(run.stdout().contains("no snapshot from before it"), "{}", run.transcript());
    assert!(!run.stdout().contains("nothing was lost"), "{}", run.transcript());
    let document = app.passes(&["predeploy", "--commit", "two"]);
    assert_eq!(document["snapshots"][0]["rows"], 240);
    assert!(document.get("first_deploy").is_none(), "{document:#}");
    app.remove_database();
    for gate in ["predeploy", "postdeploy"] {
        let run = app.sandbox.run(&[gate, "--commit", "two"]).code(3);
        assert!(run.stdout().contains("cannot find the database"), "{}", run.transcript());
        assert!(!run.stdout().contains("--accept"), "an absent database cannot be accepted\n{}", run.transcript());
    }
    app.sandbox.run(&["snapshot", "--accept"]).code(5);
}

#[test]
fn a_first_deploy_that_leaves_no_database_fails() {
    let app = new_app("");
    app.passes(&["predeploy"]);
    assert_one_failed(&app.fails(&["postdeploy"]).0, &["app: database", "cannot find the database"]);
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert!(document.get("restored").is_none() && document.get("rollback").is_none(), "{document:#}");
    // The program has created the file, but no table in it.
    std::fs::write(app.sandbox.path("app/app.db"), "").unwrap();
    assert!(!app.fails(&["postdeploy"]).0.is_empty());
}

#[test]
fn a_database_without_tables_is_as_good_as_none_before_the_first_deploy_and_lost_after_it() {
    let app = new_app("");
    std::fs::write(app.sandbox.path("app/app.db"), "").unwrap();
    let document = app.passes(&["predeploy"]);
    assert_eq!(document["first_deploy"], serde_json::json!(["app"]));
    app.sandbox.ok(&["snapshot", "--accept"]);
    app.sql("CREATE VIRTUAL TABLE words USING fts5(word); INSERT INTO words VALUES ('a')");
    assert!(!app.fails(&["predeploy"]).0.is_empty(), "a database with rows is not saved");
    app.remove_database();
    app.create_database();
    app.passes(&["predeploy"]);
    app.remove_database();
    std::fs::write(app.sandbox.path("app/app.db"), "").unwrap();
    assert!(!app.fails(&["predeploy"]).0.is_empty());
}

#[test]
fn of_two_sources_the_existing_one_is_saved_and_the_new_one_is_named() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.write_config("[[source]]\nname = \"users\"\nurl = \"./app/users.db\"\n");
    let document = app.passes(&["predeploy", "--commit", "two"]);
    assert_eq!(document["first_deploy"], serde_json::json!(["users"]));
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1);
    open(app.sandbox.path("app/users.db"))
        .execute_batch("CREATE TABLE users (id); INSERT INTO users VALUES (1)")
        .unwrap();
    app.passes(&["postdeploy", "--commit", "two"]);
    // The loss of the other source is found although this one has no snapshot.
    app.sql("DELETE FROM balances");
    assert_one_failed(&app.fails(&["postdeploy", "--commit", "two"]).0, &["app: rows of balances"]);
}

#[test]
fn a_store_that_cannot_be_read_does_not_look_like_a_first_deploy() {
    let app = App::new("");
    app.write_config("[[store]]\nurl = \"./second\"\n");
    app.sandbox.ok(&["init"]);
    app.passes(&["predeploy"]);
    app.remove_database();
    std::fs::remove_dir_all(app.sandbox.path("backups/app")).unwrap();
    app.sandbox.run(&["predeploy"]).code(3);
    std::fs::rename(app.sandbox.path("second"), app.sandbox.path("unmounted")).unwrap();
    for command in [&["predeploy"][..], &["postdeploy"], &["snapshot", "--accept"]] {
        let run = app.sandbox.run(command).code(5);
        assert!(!run.stdout().contains("first deploy"), "{}", run.transcript());
    }
}

#[test]
fn anything_in_a_store_or_beside_the_database_shows_that_it_was_lost() {
    // Only a suspect snapshot.
    let app = App::new("[[source.rule]]\nquery = \"select count(*) > 500 from balances\"\n");
    app.sandbox.run(&["snapshot"]).code(3);
    app.remove_database();
    assert_one_failed(&app.fails(&["predeploy"]).0, &["cannot find the database"]);
    // Only an archive whose manifest is lost.
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    std::fs::remove_file(app.sandbox.path(format!("backups/app/{}.json", app.ids()[0]))).unwrap();
    assert_one_failed(&app.fails(&["predeploy"]).0, &["cannot find the database"]);
    // The write-ahead log of a database that is gone.
    let app = new_app("");
    std::fs::write(app.sandbox.path("app/app.db-wal"), "rows").unwrap();
    assert_one_failed(&app.fails(&["predeploy"]).0, &["cannot find the database"]);
    // The source was renamed in the same deploy.
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    std::fs::write(app.sandbox.path("lifeboat.toml"), config.replace("name = \"app\"", "name = \"shop\"")).unwrap();
    assert_one_failed(&app.fails(&["predeploy"]).0, &["under the name app", &app.ids()[0]]);
    app.sandbox.run(&["snapshot", "--accept"]).code(5);
}

#[test]
fn snapshots_that_guard_takes_in_the_first_deploy_do_not_fail_its_gate() {
    if !have(&["sqlite3"]) {
        return;
    }
    let app = new_app("");
    app.passes(&["predeploy", "--commit", "one"]);
    let program = "sqlite3 app/app.db 'CREATE TABLE accounts (a); INSERT INTO accounts VALUES (1)'";
    app.sandbox.ok(&["guard", "--", "sh", "-c", program]);
    let document = app.passes(&["postdeploy", "--commit", "one"]);
    assert_eq!(document["snapshots"][0]["tags"], serde_json::json!(["guard"]));
    app.sql("DELETE FROM accounts");
    assert!(!app.fails(&["postdeploy", "--commit", "one"]).0.is_empty());
    // With other snapshots, a snapshot from before the deploy is missing.
    app.sql("INSERT INTO accounts VALUES (1)");
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.run(&["postdeploy", "--commit", "one"]).code(4);
}

#[test]
fn check_says_the_same_and_that_there_are_no_backups() {
    let app = new_app("");
    let run = app.sandbox.run(&["check"]).code(3);
    assert!(run.stdout().contains(NOTHING_YET), "{}", run.transcript());
    let document = app.sandbox.run(&["check", "--json"]).code(3).json();
    assert_one_failed(&failed_checks(&document), &["app: backups", "no full snapshot"]);
    let run = app.sandbox.run(&["check", "--no-backups"]);
    assert!(run.stdout().contains(NOTHING_YET), "{}", run.transcript());
}

#[test]
fn a_gate_without_an_earlier_snapshot_says_that_nothing_was_compared() {
    let app = App::new("");
    let run = app.sandbox.ok(&["predeploy"]);
    assert!(run.stdout().contains("no good earlier snapshot to compare with"), "{}", run.transcript());
    let run = app.sandbox.ok(&["predeploy"]);
    assert!(!run.stdout().contains("to compare with"), "{}", run.transcript());
}
