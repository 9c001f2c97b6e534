//! `predeploy` and `postdeploy`: deployments that lose data, and the gates that detect the loss and roll back.

use std::path::Path;

use super::helpers::{App, assert_one_failed};
use crate::support::{Sandbox, open};

#[test]
fn a_deploy_that_loses_nothing_passes_both_gates() {
    let app = App::new("");
    let before = app.passes(&["predeploy", "--commit", "abc123"]);
    let snapshot = &before["snapshots"][0];
    assert_eq!(snapshot["rows"], 240);
    assert_eq!(snapshot["proof"], "verified");
    assert_eq!(snapshot["tags"], serde_json::json!(["predeploy", "abc123"]));
    let rollback = before["rollback"][0].as_str().unwrap();
    assert!(rollback.contains("restore") && rollback.contains("--config"), "{rollback}");
    // The deployment adds a column, a table and a row, and deletes no more rows than the default rule allows.
    app.sql(
        "ALTER TABLE accounts ADD COLUMN currency TEXT; CREATE TABLE news (id INTEGER);
         INSERT INTO accounts (name) VALUES ('new'); DELETE FROM balances WHERE id <= 20",
    );
    let after = app.passes(&["postdeploy", "--commit", "abc123"]);
    assert_eq!(after["snapshots"][0]["id"], snapshot["id"]);
}

#[test]
fn the_command_that_predeploy_prints_restores_the_data() {
    let app = App::new("");
    let before = app.passes(&["predeploy", "--commit", "abc123"]);
    app.sql("DROP TABLE balances; DELETE FROM accounts");
    let command = before["rollback"][0].as_str().unwrap();
    let elsewhere = Sandbox::new();
    let program = Path::new(crate::support::LIFEBOAT).parent().unwrap().to_owned();
    let path =
        std::env::join_paths([program].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())));
    let output = std::process::Command::new("sh")
        .args(["-c", command])
        .current_dir(elsewhere.root())
        .env("PATH", path.unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
}

#[test]
fn a_deploy_that_starts_with_an_empty_database_is_detected_and_rolled_back() {
    let app = App::new("");
    app.passes(&["predeploy", "--commit", "abc123"]);
    // The database file was removed with the old container, and the new container created an empty one.
    app.remove_database();
    app.sql("CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE balances (id INTEGER)");
    let (failed, document) = app.fails(&["postdeploy", "--commit", "abc123"]);
    assert!(failed.iter().any(|line| line.contains("accounts") && line.contains("40")), "{failed:#?}");
    assert!(failed.iter().any(|line| line.contains("balances") && line.contains("200")), "{failed:#?}");
    assert!(document["rollback"][0].as_str().unwrap().contains("postdeploy --rollback"), "{document:#}");
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 0, "postdeploy restored without --rollback");
    let (_, document) = app.fails(&["postdeploy", "--commit", "abc123", "--rollback"]);
    let restored = &document["restored"][0];
    assert_eq!(restored["mode"], "replace");
    assert!(restored["safety_snapshot"].is_string(), "{document:#}");
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
    app.passes(&["postdeploy", "--commit", "abc123"]);
}

#[test]
fn a_deploy_that_loses_the_file_is_detected_and_rolled_back() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    std::fs::remove_dir_all(app.sandbox.path("app")).unwrap();
    let (failed, _) = app.fails(&["postdeploy"]);
    assert_one_failed(&failed, &["app: database", "cannot find the database"]);
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["restored"][0]["mode"], "create", "{document:#}");
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
    app.passes(&["postdeploy"]);
}

#[test]
fn a_dropped_table_and_lost_rows_are_reported_by_name_and_number() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("DROP TABLE balances");
    assert_one_failed(&app.fails(&["postdeploy"]).0, &["balances", "200"]);
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances WHERE id <= 60");
    assert_one_failed(&app.fails(&["postdeploy"]).0, &["balances", "140", "200"]);
    // The config can allow a larger loss.
    app.write_config("[[source.rule]]\ntable = \"balances\"\nmax_row_drop = \"30%\"\n");
    app.passes(&["postdeploy"]);
    app.sql("DELETE FROM balances WHERE id = 61");
    assert_one_failed(&app.fails(&["postdeploy"]).0, &["balances", "139", "200"]);
}

#[test]
fn an_empty_database_closes_the_gate_and_is_not_saved() {
    let app = App::new("");
    app.passes(&["predeploy", "--commit", "one"]);
    let before = app.ids();
    app.sql("DELETE FROM balances");
    let (failed, document) = app.fails(&["predeploy", "--commit", "two"]);
    assert_one_failed(&failed, &["balances", "0", "200"]);
    assert_eq!(document["snapshots"], serde_json::json!([]));
    assert_eq!(app.ids(), before, "a closed gate kept a snapshot");
    app.remove_database();
    std::fs::write(app.sandbox.path("app/app.db"), "").unwrap();
    let (failed, _) = app.fails(&["predeploy", "--commit", "two"]);
    assert!(!failed.is_empty());
    assert_eq!(app.ids(), before);
}

#[test]
fn a_rule_that_fails_closes_the_first_gate() {
    let app = App::new("");
    app.remove_database();
    app.sql("CREATE TABLE accounts (id INTEGER)");
    assert_one_failed(&app.fails(&["predeploy"]).0, &["accounts", "min"]);
    app.remove_database();
    assert_eq!(app.ids(), Vec::<String>::new());
    app.create_database();
    app.passes(&["predeploy"]);
}

#[test]
fn postdeploy_compares_with_the_snapshot_of_its_commit() {
    let app = App::new("");
    app.passes(&["predeploy", "--commit", "one"]);
    app.sql("INSERT INTO balances (amount) SELECT amount FROM balances");
    app.passes(&["predeploy", "--commit", "two"]);
    app.sql("DELETE FROM balances WHERE id > 200");
    // The rows of the first one are all there, and those of the newer one are still missed.
    let newer = app.ids()[0].clone();
    let (failed, document) = app.fails(&["postdeploy", "--commit", "one"]);
    assert_one_failed(&failed, &[&format!("balances since {newer}"), "200 rows, 400 before"]);
    assert!(document.get("rollback").is_none(), "{document:#}");
    let (failed, document) = app.fails(&["postdeploy", "--commit", "two"]);
    assert_one_failed(&failed, &["rows of balances:", "200 rows, 400 before"]);
    assert!(document["rollback"].is_array(), "{document:#}");
    let run = app.sandbox.run(&["postdeploy", "--commit", "three", "--json"]).code(4);
    assert!(run.json()["error"]["hint"].as_str().unwrap().contains("predeploy"), "{}", run.transcript());
}

#[test]
fn with_wait_a_gate_repeats_its_checks_until_they_pass() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("ALTER TABLE balances RENAME TO moved");
    let running = app.sandbox.start(&["postdeploy", "--wait", "60s"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    app.sql("ALTER TABLE moved RENAME TO balances");
    running.finish().code(0);
}

#[test]
fn a_missing_mount_closes_both_gates_and_nothing_is_restored() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.write_config("[preflight]\nmounts = [\"./app\"]\n");
    assert_one_failed(&app.fails(&["predeploy"]).0, &["app", "not a mount point"]);
    app.remove_database();
    let run = app.sandbox.run(&["postdeploy", "--rollback", "--json"]);
    assert!(run.exit() == 3, "{}", run.transcript());
    assert!(run.stderr().contains("is not mounted"), "{}", run.transcript());
    assert!(!app.sandbox.path("app/app.db").exists());
}

#[test]
fn gates_that_run_concurrently_all_save() {
    let app = App::new("");
    let runs: Vec<_> = (0..3).map(|_| app.sandbox.start(&["predeploy", "--commit", "abc"])).collect();
    for run in runs {
        run.finish().code(0);
    }
    assert_eq!(app.ids().len(), 3);
    app.sandbox.ok(&["verify", "--all"]);
}

#[test]
fn a_store_on_an_unmounted_disk_is_not_created_again() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    let state = app.sandbox.state();
    std::fs::rename(app.sandbox.path("backups"), app.sandbox.path("elsewhere")).unwrap();
    std::fs::create_dir(app.sandbox.path("backups")).unwrap();
    for command in ["predeploy", "snapshot", "postdeploy", "check", "prune"] {
        let mut arguments = vec![command];
        if command == "prune" {
            arguments.extend(["--keep-last", "1", "--yes"]);
        }
        let run = app.sandbox.run(&arguments);
        let expected = if command == "check" { 3 } else { 5 };
        assert_eq!(run.exit(), expected, "{}", run.transcript());
        assert!(run.stderr().contains("mounted") || run.stdout().contains("mounted"), "{}", run.transcript());
        assert_eq!(std::fs::read_dir(app.sandbox.path("backups")).unwrap().count(), 0, "{command}");
    }
    std::fs::remove_dir(app.sandbox.path("backups")).unwrap();
    std::fs::rename(app.sandbox.path("elsewhere"), app.sandbox.path("backups")).unwrap();
    let _ = open(app.sandbox.path("app/app.db"));
    assert_eq!(app.sandbox.state().len(), state.len());
}

#[test]
fn a_locked_database_is_not_overwritten_by_a_rollback() {
    let app = App::new("");
    app.sql("PRAGMA journal_mode = DELETE");
    app.passes(&["predeploy"]);
    let writer = open(app.sandbox.path("app/app.db"));
    writer.execute_batch("BEGIN EXCLUSIVE; INSERT INTO accounts (name) VALUES ('after the deploy')").unwrap();
    let run = app.sandbox.start(&["postdeploy", "--rollback", "--json"]).finish().code(3);
    assert!(run.json().get("restored").is_none(), "{}", run.transcript());
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 41);
    app.passes(&["postdeploy"]);
}

#[test]
fn rows_without_parents_fail_check_but_close_no_gate() {
    let app = App::new("");
    app.sql(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (id INTEGER REFERENCES parent (id));
         INSERT INTO child VALUES (7)",
    );
    app.passes(&["predeploy"]);
    app.passes(&["postdeploy"]);
    assert_one_failed(&app.fails(&["check"]).0, &["integrity", "1 rows of child", "parent"]);
}

#[test]
fn a_rule_that_cannot_be_evaluated_closes_the_gate_and_restores_nothing() {
    let app = App::new("[[source.rule]]\nquery = \"select sum(amount) > 0 from balances\"\n");
    app.passes(&["predeploy"]);
    app.sql("ALTER TABLE balances RENAME COLUMN amount TO value");
    let (lines, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_one_failed(&lines, &["query", "amount"]);
    assert!(document.get("restored").is_none(), "{document:#}");
}
