//! `restore --table`: some tables, into a database that lives on.

use crate::helpers::{ask, refused, shell_ok, sql};
use crate::support::{Sandbox, content, integrity, sample};

fn saved() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 6, "wal");
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE log_2025 (a); INSERT INTO log_2025 VALUES (1); CREATE TABLE log_2026 (a); INSERT INTO log_2026 VALUES (2);
         CREATE TABLE keyed (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO keyed VALUES ('a', 1), ('b', 2);
         CREATE TABLE computed (a INT, b AS (a + 1) STORED, c AS (a * 2)); INSERT INTO computed VALUES (1), (2);
         CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('hello');
         CREATE TABLE bare (a); INSERT INTO bare (rowid, a) VALUES (5, 'five'), (100, 'hundred'), (-3, 'less');
         CREATE INDEX bare_index ON bare (a); CREATE TRIGGER bare_trigger AFTER INSERT ON bare BEGIN INSERT INTO logs VALUES ('t', new.a); END;",
    );
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

fn restore<'a>(id: &'a str, tables: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["restore", id, "--to", "app.db", "--store", "backups"];
    tables.iter().for_each(|table| arguments.extend(["--table", table]));
    arguments.extend(more);
    arguments
}

/// The names, kinds and SQL of the schema.
fn schema(sandbox: &Sandbox) -> Vec<String> {
    let connection = crate::support::open(sandbox.path("app.db"));
    let mut statement =
        connection.prepare("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema").unwrap();
    let mut rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().flatten().collect();
    rows.sort();
    rows
}

#[test]
fn a_dropped_table_comes_back_with_indexes_and_triggers() {
    let (sandbox, id) = saved();
    let (before, shape) = (content(sandbox.path("app.db")), schema(&sandbox));
    sql(sandbox.path("app.db"), "DROP TABLE bare");
    let document = sandbox.json(&restore(&id, &["bare"], &[]));
    assert_eq!(document["mode"], "tables");
    assert_eq!(document["tables"].as_array().unwrap().len(), 1);
    assert_eq!(document["tables"][0], serde_json::json!({"name": "bare", "rows": 3, "ok": true}));
    assert_eq!(content(sandbox.path("app.db")), before);
    assert_eq!(schema(&sandbox), shape);
    assert_eq!(integrity(sandbox.path("app.db")), "ok");
}

#[test]
fn an_emptied_table_comes_back_and_no_other_is_touched() {
    let (sandbox, id) = saved();
    let before = content(sandbox.path("app.db"));
    sql(
        sandbox.path("app.db"),
        "DELETE FROM bare; DELETE FROM keyed; UPDATE accounts SET name = 'changed since'; DELETE FROM computed",
    );
    let mut expected = content(sandbox.path("app.db"));
    sandbox.ok(&restore(&id, &["bare", "keyed", "computed"], &[]));
    for table in ["bare", "keyed", "computed"] {
        expected.insert(table.to_owned(), before[table].clone());
    }
    assert_eq!(content(sandbox.path("app.db")), expected);
    assert_eq!(
        ask(sandbox.path("app.db"), "SELECT group_concat(rowid) FROM (SELECT rowid FROM bare ORDER BY rowid)"),
        "-3,5,100"
    );
}

#[test]
fn a_table_with_rows_is_replaced_only_when_asked() {
    let (sandbox, id) = saved();
    let before = content(sandbox.path("app.db"));
    sql(sandbox.path("app.db"), "INSERT INTO keyed VALUES ('new', 9); UPDATE keyed SET v = 7 WHERE k = 'a'");
    // The safety snapshot is made before, and stays: the store may grow, the database may not change.
    let database = content(sandbox.path("app.db"));
    let run = sandbox.run(&restore(&id, &["keyed"], &["--no-safety"])).code(2).says("--replace");
    crate::helpers::one_error(&run);
    assert_eq!(content(sandbox.path("app.db")), database);
    let document = sandbox.json(&restore(&id, &["keyed"], &["--replace"]));
    assert_eq!(content(sandbox.path("app.db")), before);
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert_eq!(content(sandbox.path("app.db")), database);
}

#[test]
fn what_is_refused_leaves_no_safety_snapshot_behind() {
    let (sandbox, id) = saved();
    refused(&sandbox, &restore(&id, &["keyed"], &[]), 2).says("--replace");
}

#[test]
fn patterns_choose_ordinary_tables() {
    let (sandbox, id) = saved();
    let before = content(sandbox.path("app.db"));
    sql(sandbox.path("app.db"), "DROP TABLE log_2025; DELETE FROM log_2026");
    let document = sandbox.json(&restore(&id, &["log_*"], &[]));
    let names: Vec<_> =
        document["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["log_2025", "log_2026"]);
    assert_eq!(content(sandbox.path("app.db")), before);
    sql(sandbox.path("app.db"), "DELETE FROM log_2026; DELETE FROM keyed");
    sandbox.ok(&restore(&id, &["LOG_202?", "KEYED"], &["--replace"]));
    assert_eq!(content(sandbox.path("app.db")), before);
    let all = sandbox.json(&restore(&id, &["*"], &["--replace"]));
    let names: Vec<_> = all["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["accounts", "balances", "bare", "computed", "keyed", "log_2025", "log_2026", "logs"]);
    assert_eq!(content(sandbox.path("app.db")), before);
    refused(&sandbox, &restore(&id, &["no_such*"], &["--no-safety"]), 2).says("no_such*");
    refused(&sandbox, &restore(&id, &["keyed", "nope"], &["--replace", "--no-safety"]), 2).says("nope");
}

#[test]
fn virtual_shadow_and_system_tables_are_refused() {
    let (sandbox, id) = saved();
    for table in ["notes", "notes_content", "sqlite_sequence"] {
        let before = content(sandbox.path("app.db"));
        let run = sandbox.run(&restore(&id, &[table], &["--replace", "--no-safety"])).code(2).says(table);
        crate::helpers::one_error(&run);
        assert_eq!(content(sandbox.path("app.db")), before);
    }
}

#[test]
fn a_schema_that_has_changed_is_refused() {
    let (sandbox, id) = saved();
    for change in [
        "ALTER TABLE keyed ADD COLUMN more",
        "ALTER TABLE computed RENAME COLUMN a TO z",
        "DROP TABLE bare; CREATE TABLE bare (a INTEGER)",
    ] {
        sql(sandbox.path("app.db"), change);
    }
    let before = content(sandbox.path("app.db"));
    for table in ["keyed", "computed", "bare"] {
        let run = sandbox.run(&restore(&id, &["logs", table], &["--replace", "--no-safety"])).code(2).says(table);
        crate::helpers::one_error(&run);
        assert_eq!(content(sandbox.path("app.db")), before, "{table}");
    }
}

#[test]
fn rows_elsewhere_that_would_become_orphans_are_refused() {
    let (sandbox, id) = saved();
    sql(
        sandbox.path("app.db"),
        "INSERT INTO accounts (id, name) VALUES (99, 'opened since'); INSERT INTO balances (account_id, amount) VALUES (99, 1.0)",
    );
    let before = content(sandbox.path("app.db"));
    let run = sandbox.run(&restore(&id, &["accounts"], &["--replace", "--no-safety"])).code(1).says("balances");
    crate::helpers::one_error(&run);
    assert_eq!(content(sandbox.path("app.db")), before);
    sandbox.ok(&restore(&id, &["accounts", "balances"], &["--replace"]));
    assert_eq!(ask(sandbox.path("app.db"), "SELECT max(id) FROM accounts"), "6");
}

#[test]
fn orphans_that_were_there_at_birth_do_not_keep_a_table_away() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sql(sandbox.path("app.db"), "INSERT INTO balances (account_id, amount) VALUES (777, 1.0)");
    let id = sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]).json();
    let id = crate::helpers::id_of(&id);
    let before = content(sandbox.path("app.db"));
    sql(sandbox.path("app.db"), "DROP TABLE balances");
    sandbox.ok(&restore(&id, &["balances"], &[]));
    assert_eq!(content(sandbox.path("app.db"))["balances"], before["balances"]);
}

#[test]
fn rows_that_break_a_check_at_birth_come_back_with_their_table() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "PRAGMA ignore_check_constraints = ON; CREATE TABLE t (n INT CHECK (n > 0)); INSERT INTO t VALUES (1), (-1); CREATE TABLE u (a)",
    );
    let id = crate::helpers::id_of(&sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]).json());
    sql(sandbox.path("app.db"), "DELETE FROM t");
    sandbox.ok(&restore(&id, &["t"], &[]));
    assert_eq!(ask(sandbox.path("app.db"), "SELECT count(*) FROM t"), "2");
}

#[test]
fn a_counter_never_goes_backwards() {
    let (sandbox, id) = saved();
    let sequence = || ask(sandbox.path("app.db"), "SELECT seq FROM sqlite_sequence WHERE name = 'balances'");
    sql(
        sandbox.path("app.db"),
        "INSERT INTO balances (account_id, amount) VALUES (1, 1.0), (1, 2.0); DELETE FROM balances",
    );
    assert_eq!(sequence(), "62");
    sandbox.ok(&restore(&id, &["balances"], &[]));
    assert_eq!(sequence(), "62");
    sql(sandbox.path("app.db"), "DROP TABLE balances");
    sandbox.ok(&restore(&id, &["balances"], &[]));
    assert_eq!(sequence(), "60");
    sql(sandbox.path("app.db"), "DELETE FROM balances; DELETE FROM sqlite_sequence");
    sandbox.ok(&restore(&id, &["balances"], &[]));
    assert_eq!(sequence(), "60");
}

#[test]
fn triggers_do_not_fire_while_rows_come_back() {
    let (sandbox, id) = saved();
    let before = content(sandbox.path("app.db"));
    sandbox.ok(&restore(&id, &["bare", "balances"], &["--replace"]));
    assert_eq!(content(sandbox.path("app.db")), before);
}

#[test]
fn table_needs_a_database_that_is_there_and_opens() {
    let (sandbox, id) = saved();
    let to = |target: &'static str| {
        ["restore", &id, "--to", target, "--table", "keyed", "--store", "backups"].map(str::to_owned)
    };
    let refuse = |target, words: &str| {
        let arguments = to(target);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        drop(refused(&sandbox, &arguments, 2).says(words));
    };
    refuse("new.db", "--table");
    std::fs::write(sandbox.path("ruined.db"), "ruined ".repeat(1000)).unwrap();
    refuse("ruined.db", "--table");
}

#[test]
fn a_table_goes_into_another_database_with_other_tables() {
    let (sandbox, id) = saved();
    sql(sandbox.path("other.db"), "PRAGMA page_size = 1024; CREATE TABLE mine (a); INSERT INTO mine VALUES (1)");
    let arguments = [
        "restore", &id, "--to", "other.db", "--table", "keyed", "--table", "balances", "--table", "accounts",
        "--store", "backups",
    ];
    sandbox.ok(&arguments);
    let (saved, other) = (content(sandbox.path("app.db")), content(sandbox.path("other.db")));
    for table in ["keyed", "balances", "accounts"] {
        assert_eq!(other[table], saved[table], "{table}");
    }
    assert_eq!(other["mine"].len(), 1);
}

#[test]
fn writers_see_a_restored_table_all_at_once() {
    let (sandbox, id) = saved();
    let reader = crate::support::open(sandbox.path("app.db"));
    reader.execute_batch("BEGIN; SELECT count(*) FROM keyed").unwrap();
    sql(sandbox.path("app.db"), "DELETE FROM keyed");
    sandbox.ok(&restore(&id, &["keyed"], &[]));
    let count = || reader.query_row("SELECT count(*) FROM keyed", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 2);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count(), 2);
}

#[test]
fn a_table_without_the_rowids_of_the_snapshot_is_refused() {
    let (sandbox, id) = saved();
    sql(sandbox.path("app.db"), "DROP TABLE bare; CREATE TABLE bare (a PRIMARY KEY) WITHOUT ROWID");
    let before = content(sandbox.path("app.db"));
    let run = sandbox.run(&restore(&id, &["bare"], &["--no-safety"])).code(2).says("bare");
    crate::helpers::one_error(&run);
    assert_eq!(content(sandbox.path("app.db")), before);
}

#[test]
fn a_name_that_something_else_has_is_refused() {
    let (sandbox, id) = saved();
    sql(
        sandbox.path("app.db"),
        "DROP TABLE keyed; CREATE VIEW keyed AS SELECT 1; DROP TABLE bare; CREATE INDEX bare_index ON logs (at)",
    );
    let before = content(sandbox.path("app.db"));
    for table in ["keyed", "bare"] {
        let run = sandbox.run(&restore(&id, &[table], &["--no-safety"]));
        assert_ne!(run.exit(), 0, "{}", run.transcript());
        crate::helpers::one_error(&run);
        assert_eq!(content(sandbox.path("app.db")), before, "{table}");
    }
}
