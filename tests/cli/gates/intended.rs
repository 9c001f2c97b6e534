//! Deploys that drop and rename tables on purpose: a true migration passes `postdeploy`, and a false one does not.

use super::helpers::{App, assert_one_failed};
use crate::support::{Run, open};

/// An app whose snapshot from before the deploy exists.
fn deployed(more: &str) -> App {
    let app = App::new(more);
    app.sql(
        "CREATE TABLE legacy_cache (key TEXT, value TEXT); INSERT INTO legacy_cache VALUES ('a', 'b');
         CREATE TABLE \"order items\" (id INTEGER PRIMARY KEY, \"a=b\" TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
         INSERT INTO \"order items\" SELECT i, 'item ' || i FROM n",
    );
    app.passes(&["predeploy", "--commit", "one"]);
    app
}

#[track_caller]
fn usage(app: &App, arguments: &[&str]) -> Run {
    let run = app.sandbox.run(&[&["postdeploy"], arguments].concat()).code(2);
    assert_eq!(run.stdout(), "", "{}", run.transcript());
    run
}

#[test]
fn a_migration_that_renames_and_drops_passes_and_the_next_gates_accept_it() {
    let app = deployed("");
    app.sql("ALTER TABLE balances RENAME TO ledger; DROP TABLE legacy_cache; ALTER TABLE ledger ADD COLUMN note TEXT");
    let gate = ["postdeploy", "--commit", "one"];
    assert_eq!(app.fails(&gate).0.len(), 2);
    let flags = ["--expect-dropped", "LEGACY_cache", "--expect-renamed", "Balances=Ledger"];
    let run = app.sandbox.ok(&[&gate[..], &flags].concat());
    for part in ["200 of the 200 rows of balances are in it", "rows of legacy_cache: the table is gone", "its 1 rows"] {
        assert!(run.stdout().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    assert!(run.stdout().contains("except as allowed"), "{}", run.transcript());
    assert!(!run.stderr().contains("is gone"), "the loss was intended\n{}", run.transcript());
    // The snapshot that the gate has taken is what later ones are compared with.
    app.passes(&["predeploy", "--commit", "two"]);
    app.sandbox.ok(&["snapshot"]);
    app.passes(&["postdeploy", "--commit", "two"]);
    // The same gate again passes, and rows that are lost later are found.
    app.passes(&[&gate[..], &flags].concat());
    app.sql("DELETE FROM ledger WHERE id > 100");
    assert!(!app.fails(&[&gate[..], &flags].concat()).0.is_empty());
    assert_one_failed(&app.fails(&["postdeploy", "--commit", "two"]).0, &["ledger"]);
}

#[test]
fn a_rename_is_not_believed_without_the_rows() {
    let app = deployed("");
    let gate = ["postdeploy", "--expect-renamed", "balances=ledger"];
    // Neither table is there.
    app.sql("ALTER TABLE balances RENAME TO hidden");
    let (failed, document) = app.fails(&gate);
    assert_one_failed(&failed, &["rename of balances to ledger", "no table ledger"]);
    let command = document["rollback"][0].as_str().unwrap();
    assert!(command.contains("--expect-renamed balances=ledger"), "{command}");
    // An empty table, and one with too few rows.
    app.sql("CREATE TABLE ledger (id INTEGER PRIMARY KEY, account INTEGER, amount REAL, created_at TEXT)");
    assert!(!app.fails(&gate).0.is_empty());
    app.sql("INSERT INTO ledger SELECT * FROM hidden WHERE id <= 150");
    assert!(app.fails(&gate).0.iter().any(|line| line.contains("150 rows, 200 before")));
    // As many rows, but other ones.
    app.sql("DELETE FROM ledger; INSERT INTO ledger SELECT id + 1000, 0, 0, '' FROM hidden");
    assert_one_failed(&app.fails(&gate).0, &["content of ledger", "0 of the 200 rows of balances"]);
    // The true rows, some of which the program has changed since.
    app.sql("DELETE FROM ledger; INSERT INTO ledger SELECT * FROM hidden; UPDATE ledger SET amount = 0 WHERE id <= 15");
    app.passes(&gate);
    // The rollback of a false rename brings the old table back.
    app.sql("DELETE FROM ledger; DROP TABLE hidden");
    let (_, document) = app.fails(&["postdeploy", "--expect-renamed", "balances=ledger", "--rollback"]);
    assert!(document["restored"][0]["safety_snapshot"].is_string(), "{document:#}");
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
}

#[test]
fn an_intended_change_that_was_not_made_is_reported_and_restores_nothing() {
    let app = deployed("");
    let (failed, document) = app.fails(&["postdeploy", "--rollback", "--expect-dropped", "legacy_cache"]);
    assert_one_failed(&failed, &["drop of legacy_cache", "still there, with 1 rows"]);
    assert!(document.get("restored").is_none(), "{document:#}");
    app.sql("CREATE TABLE ledger AS SELECT * FROM balances");
    let (failed, document) = app.fails(&["postdeploy", "--rollback", "--expect-renamed", "balances=ledger"]);
    assert_one_failed(&failed, &["balances is still there, with 200 rows"]);
    assert!(document.get("restored").is_none(), "{document:#}");
}

#[test]
fn a_table_that_the_snapshot_never_had_is_an_error_with_the_nearest_name() {
    let app = deployed("");
    let run = usage(&app, &["--expect-dropped", "legacy_cahe"]);
    assert!(
        run.stderr().contains("had no table legacy_cahe") && run.stderr().contains("are legacy_cache,"),
        "{}",
        run.transcript()
    );
    usage(&app, &["--expect-renamed", "balance=ledger"]).says("similar names are balances");
    usage(&app, &["--expect-renamed", "balances"]).says("OLD=NEW");
    usage(&app, &["--expect-renamed", "=ledger"]).says("OLD=NEW");
    // Two sources have a table of this name.
    app.write_config("[[source]]\nname = \"users\"\nurl = \"./app/users.db\"\n");
    open(app.sandbox.path("app/users.db"))
        .execute_batch("CREATE TABLE accounts (id); INSERT INTO accounts VALUES (1)")
        .unwrap();
    app.passes(&["predeploy"]);
    usage(&app, &["--expect-dropped", "accounts"]).says("one source at a time");
    open(app.sandbox.path("app/users.db"))
        .execute_batch("DROP TABLE accounts; CREATE TABLE a (b); INSERT INTO a VALUES (1)")
        .unwrap();
    app.passes(&["postdeploy", "users", "--expect-dropped", "accounts"]);
}

#[test]
fn names_with_spaces_signs_and_quotes_are_found() {
    let app = deployed("");
    app.sql("ALTER TABLE \"order items\" RENAME TO \"a=b c\"");
    app.passes(&["postdeploy", "--expect-renamed", "Order Items=a=b c"]);
    app.sql("CREATE TABLE \"x=y\" (a); INSERT INTO \"x=y\" VALUES (1)");
    app.passes(&["predeploy"]);
    app.sql("ALTER TABLE \"x=y\" RENAME TO z");
    app.passes(&["postdeploy", "--expect-renamed", "x=y=z"]);
    app.passes(&["predeploy"]);
    app.sql("DROP TABLE z");
    app.passes(&["postdeploy", "--expect-dropped", "\"z\""]);
}

#[test]
fn a_view_may_take_the_place_of_a_table_and_a_table_may_be_split() {
    let app = deployed("");
    app.sql("ALTER TABLE balances RENAME TO ledger; CREATE VIEW balances AS SELECT * FROM ledger");
    app.passes(&["postdeploy", "--expect-renamed", "balances=ledger"]);
    let app = deployed("");
    app.sql("ALTER TABLE balances RENAME TO ledger; CREATE VIEW v AS SELECT * FROM ledger");
    assert!(
        !app.fails(&["postdeploy", "--expect-renamed", "balances=v"]).0.is_empty(),
        "a view has no rows of its own"
    );
    let app = deployed("");
    app.sql(
        "CREATE TABLE old AS SELECT * FROM balances WHERE id <= 120; CREATE TABLE new AS SELECT * FROM balances WHERE id > 120;
         DROP TABLE balances",
    );
    app.passes(&["postdeploy", "--expect-renamed", "balances=old", "--expect-renamed", "balances=new"]);
    app.sql("DELETE FROM new");
    assert!(
        !app.fails(&["postdeploy", "--expect-renamed", "balances=old", "--expect-renamed", "balances=new"])
            .0
            .is_empty()
    );
}

#[test]
fn rules_of_the_config_let_tables_go_in_gates_snapshots_and_guard() {
    let rules = "[[source.rule]]\ntable = \"Legacy_Cache\"\nmay_drop = true\n[[source.rule]]\ntable = \"order items\"\n\
                 max_row_drop = \"100%\"\n[[source.rule]]\ntable = \"balances\"\nrenamed_to = \"ledger\"\n";
    let app = deployed(rules);
    app.passes(&["postdeploy"]);
    app.sql("DROP TABLE legacy_cache; DROP TABLE \"order items\"; ALTER TABLE balances RENAME TO ledger");
    let run = app.sandbox.ok(&["postdeploy", "--commit", "one"]);
    assert!(run.stdout().contains("allowed: app: rows of legacy_cache"), "{}", run.transcript());
    app.sandbox.ok(&["check", "--no-backups"]);
    app.sandbox.ok(&["guard", "--", "true"]);
    let list = app.sandbox.json(&["list"]);
    assert_eq!(list["snapshots"][0]["tags"], serde_json::json!(["guard"]), "a snapshot after the migration is suspect");
    app.passes(&["predeploy"]);
    app.sql("DROP TABLE ledger");
    assert!(!app.fails(&["predeploy"]).0.is_empty());
}

#[test]
fn what_a_tolerance_let_pass_is_named() {
    let app = deployed("");
    let run = app.sandbox.ok(&["postdeploy"]);
    assert!(
        run.stdout().contains("no table has fewer rows than in app-") && !run.stdout().contains("except"),
        "{}",
        run.transcript()
    );
    app.sql("DELETE FROM balances WHERE id <= 20");
    let run = app.sandbox.ok(&["postdeploy"]);
    for part in ["rows of balances: 180 rows, 200 before: 20 are gone; expected at most 10% lost", "except as allowed"]
    {
        assert!(run.stdout().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    assert!(!run.stdout().contains("fewer rows than in app-"), "{}", run.transcript());
}

#[test]
fn a_migration_cannot_be_proven_without_the_key_of_the_snapshot() {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    app.passes(&["predeploy"]);
    app.sql("ALTER TABLE balances RENAME TO ledger");
    let gate = ["postdeploy", "--expect-renamed", "balances=ledger"];
    let (failed, _) = app.fails(&gate);
    assert!(failed.iter().all(|line| line.contains("--identity")), "{failed:#?}");
    app.passes(&[&gate[..], &["--identity", "key.txt"]].concat());
    app.passes(&["predeploy", "--identity", "key.txt"]);
}

#[test]
fn tables_that_swap_their_names_must_have_each_others_rows() {
    let app = App::new("");
    app.sql("CREATE TABLE left_side (n TEXT); CREATE TABLE right_side (n TEXT);
             INSERT INTO left_side SELECT 'left ' || id FROM accounts; INSERT INTO right_side SELECT 'right ' || id FROM accounts");
    app.passes(&["predeploy"]);
    let gate = ["postdeploy", "--expect-renamed", "left_side=right_side", "--expect-renamed", "right_side=left_side"];
    assert_eq!(app.fails(&gate).0.len(), 2, "nothing was renamed");
    app.sql(
        "ALTER TABLE left_side RENAME TO aside; ALTER TABLE right_side RENAME TO left_side;
             ALTER TABLE aside RENAME TO right_side",
    );
    app.passes(&gate);
    app.sql("UPDATE left_side SET n = 'junk'");
    assert_one_failed(&app.fails(&gate).0, &["content of left_side"]);
}
