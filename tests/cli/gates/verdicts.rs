//! The last line of `postdeploy` says what is known of lost data, and no more than that.

use super::helpers::App;
use crate::helpers::{run_without_root, shell_ok};
use crate::support::{Run, open};

/// A rule that fails after [`break_rule`], which loses no row.
const RULE: &str = "[[source.rule]]\nquery = \"select max(amount) < 1000 from balances\"\n";

fn break_rule(app: &App) {
    app.sql("UPDATE balances SET amount = 5000 WHERE id = 7");
}

/// Runs `postdeploy`, which must fail. Its verdict must contain these parts, and must not say that nothing was lost.
#[track_caller]
fn fails_and_says(app: &App, arguments: &[&str], parts: &[&str]) -> Run {
    says(app.sandbox.run(&[&["postdeploy"], arguments].concat()), parts)
}

#[track_caller]
fn says(run: Run, parts: &[&str]) -> Run {
    let run = run.code(3);
    let verdict = run.stdout().lines().find(|line| line.contains("checks FAILED")).unwrap_or_default().to_owned();
    for part in parts {
        assert!(verdict.contains(part), "'{part}' is not in the verdict\n{}", run.transcript());
    }
    for wrong in ["no data was lost", "nothing was lost", "needs to be restored"] {
        assert!(!run.stdout().contains(wrong), "'{wrong}' is not known\n{}", run.transcript());
    }
    run
}

/// Encrypts the snapshots of an app to a key, which is in `key.txt` and which the config does not name.
fn encrypt(app: &App, more: &str) {
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("{more}[encryption]\nrecipients = [\"{public}\"]\n"));
}

#[test]
fn a_failed_rule_does_not_hide_what_was_dropped_on_purpose() {
    let app = App::new(RULE);
    app.sql(
        "CREATE TABLE cache (a); INSERT INTO cache VALUES (1), (2); CREATE TABLE log (a); INSERT INTO log VALUES (1)",
    );
    app.passes(&["predeploy"]);
    app.sql("DROP TABLE cache; ALTER TABLE log RENAME TO events");
    break_rule(&app);
    let flags = ["--expect-dropped", "cache", "--expect-renamed", "log=events"];
    let run =
        fails_and_says(&app, &flags, &["1 checks FAILED", "except as allowed", "rows of cache: the table is gone"]);
    assert!(run.stdout().contains("its 2 rows"), "{}", run.transcript());
    // A second failure, of an intended change that was not made, does not hide it either.
    app.sql("ALTER TABLE events RENAME TO log");
    fails_and_says(&app, &flags, &["except as allowed", "rows of cache: the table is gone"]);
}

#[test]
fn a_failed_rule_does_not_hide_rows_that_the_tolerance_let_go() {
    let app = App::new(RULE);
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances WHERE id > 185");
    break_rule(&app);
    let parts = ["1 checks FAILED; nothing was restored", "185 rows, 200 before: 15 are gone", "at most 10% lost"];
    fails_and_says(&app, &["--rollback"], &parts);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 185);
}

#[test]
fn without_a_key_the_verdict_names_the_totals_that_were_compared() {
    let app = App::new("");
    encrypt(&app, RULE);
    app.passes(&["predeploy"]);
    let id = app.ids()[0].clone();
    app.sql("DELETE FROM accounts WHERE id > 35; INSERT INTO balances (amount) SELECT 1 FROM balances LIMIT 3");
    let total = "only the total number of rows of app was compared";
    let parts = ["nothing was restored", total, "238 rows now, 240 in", id.as_str(), "no key here"];
    fails_and_says(&app, &["--rollback"], &parts);
    break_rule(&app);
    fails_and_says(&app, &[], &[total]);
    // With the key it is known.
    let run = app.sandbox.run(&["postdeploy", "--identity", "key.txt"]).code(3);
    assert!(run.stdout().contains("35 rows, 40 before: 5 are gone"), "{}", run.transcript());
    app.sql("INSERT INTO accounts (name) VALUES ('a')");
    fails_and_says(&app, &["--identity", "key.txt"], &["36 rows, 40 before: 4 are gone"]);
}

#[test]
fn a_database_that_cannot_be_read_was_not_compared() {
    let app = App::new("");
    app.write_config("[[source]]\nname = \"users\"\nurl = \"./app/users.db\"\n");
    let users = app.sandbox.path("app/users.db");
    open(&users).execute_batch("CREATE TABLE users (id); INSERT INTO users VALUES (1), (2)").unwrap();
    app.passes(&["predeploy"]);
    shell_ok(&app.sandbox, "chmod -R a+rwX . && chmod 000 app/users.db");
    // Root may read every file.
    let run = |arguments: &[&str]| run_without_root(&app.sandbox, arguments);
    let not_compared = "the rows of users were not compared with users-";
    let first = says(run(&["postdeploy", "--rollback"]), &["nothing was restored", not_compared, "cannot be read"]);
    assert!(first.stdout().contains("no table of app has fewer rows"), "{}", first.transcript());
    // The loss of another source is restored, and this is still said.
    app.sql("DELETE FROM balances");
    says(run(&["postdeploy"]), &["this command restores the data", not_compared]);
    says(run(&["postdeploy", "--rollback"]), &["was restored: 1 sources", not_compared]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
}

#[test]
fn a_failed_rule_alone_leaves_the_number_of_rows_in_each_table() {
    let app = App::new(RULE);
    app.passes(&["predeploy"]);
    break_rule(&app);
    let parts = ["1 checks FAILED; nothing was restored", "no table of app has fewer rows", "values were not compared"];
    fails_and_says(&app, &["--rollback"], &parts);
}

#[test]
fn a_first_deploy_without_a_database_is_not_called_a_deploy_without_losses() {
    let app = App::new("");
    app.remove_database();
    app.passes(&["predeploy"]);
    fails_and_says(&app, &[], &["app has no snapshot from before its first deploy"]);
}

#[test]
fn a_gate_that_passes_says_that_only_numbers_of_rows_were_compared() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("UPDATE balances SET amount = 0");
    let run = app.sandbox.ok(&["postdeploy"]);
    let verdict = "no table has fewer rows than before the deploy (values were not compared)\n";
    assert!(run.stdout().ends_with(verdict), "{}", run.transcript());
    let document = app.passes(&["postdeploy"]);
    assert_eq!(format!("{}\n", document["verdict"].as_str().unwrap()), verdict, "{document:#}");
}

#[test]
fn columns_and_views_that_are_gone_are_named() {
    let app = App::new("");
    app.sql(
        "ALTER TABLE accounts ADD COLUMN email TEXT; UPDATE accounts SET email = name;
         CREATE VIEW rich AS SELECT * FROM balances; CREATE VIEW kept AS SELECT name FROM accounts",
    );
    app.passes(&["predeploy"]);
    app.sql(
        "DROP VIEW rich; ALTER TABLE accounts DROP COLUMN email; ALTER TABLE balances RENAME COLUMN amount TO Value",
    );
    let run = app.sandbox.ok(&["postdeploy"]);
    let gone = "gone or renamed since app-";
    for part in [gone, "the columns accounts.email and balances.amount", "the view rich"] {
        assert_eq!(run.stdout().matches(part).count(), 2, "'{part}'\n{}", run.transcript());
    }
    assert!(!run.stdout().contains("kept"), "{}", run.transcript());
    // A table that is renamed takes its columns along, and a new case of a name is no other name.
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("ALTER TABLE balances RENAME TO ledger; ALTER TABLE ledger DROP COLUMN account; ALTER TABLE ledger RENAME COLUMN amount TO AMOUNT");
    let run = app.sandbox.ok(&["postdeploy", "--expect-renamed", "balances=ledger"]);
    assert!(run.stdout().contains("the column balances.account"), "{}", run.transcript());
    assert!(!run.stdout().to_lowercase().contains("balances.amount"), "{}", run.transcript());
}
