//! A rollback does not take away rows that came after the snapshot, unless the user asks for it.

use super::helpers::App;
use crate::support::{Run, open};

/// Runs a rollback that must exit with 3.
#[track_caller]
fn roll_back(app: &App, more: &[&str]) -> Run {
    app.sandbox.run(&[&["postdeploy", "--rollback"], more].concat()).code(3)
}

#[test]
fn new_rows_are_counted_by_table_and_kept_unless_they_may_go() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    // The deploy drops a table. The program goes on, and adds rows to another one and to a new one.
    app.sql(
        "DROP TABLE balances; INSERT INTO accounts (name) VALUES ('new 1'), ('new 2'); UPDATE accounts SET name = 'x' WHERE id = 1;
         CREATE TABLE orders (id INTEGER PRIMARY KEY); INSERT INTO orders VALUES (1)",
    );
    let run = app.sandbox.run(&["postdeploy"]).code(3);
    assert!(
        run.stdout().contains("4 rows that came after") && run.stdout().contains("--discard-new"),
        "{}",
        run.transcript()
    );
    let run = roll_back(&app, &[]);
    for part in ["4 rows that came after app-", "3 of accounts, 1 of orders", "--discard-new"] {
        assert!(run.stderr().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 42, "{}", run.transcript());
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["new_rows"][0]["tables"][0], serde_json::json!({"name": "accounts", "rows": 3}));
    assert_eq!(app.ids().len(), 1, "nothing was changed, and nothing saved");
    // It names the safety snapshot, and the command that gets the rows from there.
    let run = roll_back(&app, &["--discard-new"]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    let safety = app.ids()[0].clone();
    let command = run.stdout().lines().rfind(|line| line.contains(" restore ")).unwrap_or_default().trim().to_owned();
    assert!(run.stdout().contains(&format!("are in {safety}")) && command.contains(&safety), "{}", run.transcript());
    crate::helpers::shell_ok(&app.sandbox, &command);
    let rows: i64 = open(app.sandbox.path("app-restored.db"))
        .query_row("SELECT count(*) FROM accounts WHERE name LIKE 'new%'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 2);
}

#[test]
fn a_database_that_has_nothing_new_is_restored_without_a_question() {
    // Emptied, started again from its schema, and recorded by the program's framework.
    for change in [
        "DELETE FROM balances; DELETE FROM accounts WHERE id > 3",
        "DROP TABLE balances; DELETE FROM accounts",
        "DROP TABLE balances; CREATE TABLE alembic_version (version TEXT); INSERT INTO alembic_version VALUES ('a1')",
        "DELETE FROM balances; ALTER TABLE accounts ADD COLUMN currency TEXT DEFAULT 'EUR'",
    ] {
        let app = App::new("");
        app.passes(&["predeploy"]);
        app.sql(change);
        let (_, document) = app.fails(&["postdeploy", "--rollback"]);
        assert!(document.get("new_rows").is_none() && document["restored"].is_array(), "{change}\n{document:#}");
        assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{change}");
    }
}

#[test]
fn new_rows_that_have_the_keys_of_lost_ones_are_new() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    // The program starts with an empty database, and its first customers get the numbers of others.
    app.sql("DELETE FROM balances; DELETE FROM accounts; INSERT INTO accounts VALUES (1, 'first customer'), (2, 'account 2')");
    let run = roll_back(&app, &[]);
    assert!(
        run.stderr().contains("1 rows that came after") && run.stderr().contains("1 of accounts"),
        "{}",
        run.transcript()
    );
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 2);
}

#[test]
fn no_source_is_restored_if_one_of_them_has_new_rows() {
    let app = App::new("");
    app.write_config("[[source]]\nname = \"users\"\nurl = \"./app/users.db\"\n");
    let users = app.sandbox.path("app/users.db");
    open(&users)
        .execute_batch("CREATE TABLE users (id); INSERT INTO users VALUES (1), (2); CREATE TABLE log (a)")
        .unwrap();
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances");
    open(&users).execute_batch("DELETE FROM users; INSERT INTO log VALUES (1)").unwrap();
    let run = roll_back(&app, &[]);
    assert!(
        run.stderr().contains("users was not restored") && run.stderr().contains("1 of log"),
        "{}",
        run.transcript()
    );
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 0, "the other source was restored\n{}", run.transcript());
    let run = roll_back(&app, &["--discard-new"]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{}", run.transcript());
}

#[test]
fn rows_that_differ_only_in_case_or_number_of_copies_are_new() {
    let app = App::new("");
    app.sql("CREATE TABLE words (word TEXT COLLATE NOCASE); INSERT INTO words VALUES ('a'), ('a'), ('b')");
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances; INSERT INTO words VALUES ('B'), ('a')");
    let run = roll_back(&app, &[]);
    assert!(run.stderr().contains("2 of words"), "{}", run.transcript());
    app.sandbox.run(&["postdeploy", "--discard-new"]).code(2);
}
