//! `restore --table`: some tables are restored into a database that keeps its other tables.

use crate::helpers::{query_value, refused, shell_ok, sql};
use crate::support::{Sandbox, content, integrity, sample};

/// Creates `app.db` with tables of many kinds and takes a snapshot of it. Returns the sandbox and the id.
fn database_with_snapshot() -> (Sandbox, String) {
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

/// Returns the arguments of a restore of these tables into `app.db`.
fn restore_arguments<'a>(id: &'a str, tables: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["restore", id, "--to", "app.db", "--store", "backups"];
    tables.iter().for_each(|table| arguments.extend(["--table", table]));
    arguments.extend(more);
    arguments
}

/// Returns kind, name and SQL of each object in the schema of `app.db`.
fn schema(sandbox: &Sandbox) -> Vec<String> {
    let connection = crate::support::open(sandbox.path("app.db"));
    let mut statement =
        connection.prepare("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema").unwrap();
    let mut rows: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().flatten().collect();
    rows.sort();
    rows
}

#[test]
fn a_dropped_table_is_restored_with_its_indexes_and_triggers() {
    let (sandbox, id) = database_with_snapshot();
    let (content_before, schema_before) = (content(sandbox.path("app.db")), schema(&sandbox));
    sql(sandbox.path("app.db"), "DROP TABLE bare");
    let document = sandbox.json(&restore_arguments(&id, &["bare"], &[]));
    assert_eq!(document["mode"], "tables");
    assert_eq!(document["tables"].as_array().unwrap().len(), 1);
    assert_eq!(document["tables"][0], serde_json::json!({"name": "bare", "rows": 3, "ok": true}));
    assert_eq!(content(sandbox.path("app.db")), content_before);
    assert_eq!(schema(&sandbox), schema_before);
    assert_eq!(integrity(sandbox.path("app.db")), "ok");
}

#[test]
fn an_emptied_table_is_restored_and_no_other_is_changed() {
    let (sandbox, id) = database_with_snapshot();
    let before = content(sandbox.path("app.db"));
    sql(
        sandbox.path("app.db"),
        "DELETE FROM bare; DELETE FROM keyed; UPDATE accounts SET name = 'changed since'; DELETE FROM computed",
    );
    let mut expected = content(sandbox.path("app.db"));
    sandbox.ok(&restore_arguments(&id, &["bare", "keyed", "computed"], &[]));
    for table in ["bare", "keyed", "computed"] {
        expected.insert(table.to_owned(), before[table].clone());
    }
    assert_eq!(content(sandbox.path("app.db")), expected);
    assert_eq!(
        query_value(sandbox.path("app.db"), "SELECT group_concat(rowid) FROM (SELECT rowid FROM bare ORDER BY rowid)"),
        "-3,5,100"
    );
}

#[test]
fn a_table_with_rows_is_replaced_only_with_replace() {
    let (sandbox, id) = database_with_snapshot();
    let before = content(sandbox.path("app.db"));
    sql(sandbox.path("app.db"), "INSERT INTO keyed VALUES ('new', 9); UPDATE keyed SET v = 7 WHERE k = 'a'");
    // A refused restore must not change the database.
    let database = content(sandbox.path("app.db"));
    let run = sandbox.run(&restore_arguments(&id, &["keyed"], &["--no-safety"])).code(2).says("--replace");
    crate::helpers::assert_one_error(&run);
    assert_eq!(content(sandbox.path("app.db")), database);
    let document = sandbox.json(&restore_arguments(&id, &["keyed"], &["--replace"]));
    assert_eq!(content(sandbox.path("app.db")), before);
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert_eq!(content(sandbox.path("app.db")), database);
}

#[test]
fn a_refused_restore_leaves_no_safety_snapshot() {
    let (sandbox, id) = database_with_snapshot();
    refused(&sandbox, &restore_arguments(&id, &["keyed"], &[]), 2).says("--replace");
}

#[test]
fn patterns_match_ordinary_tables_only() {
    let (sandbox, id) = database_with_snapshot();
    let before = content(sandbox.path("app.db"));
    sql(sandbox.path("app.db"), "DROP TABLE log_2025; DELETE FROM log_2026");
    let document = sandbox.json(&restore_arguments(&id, &["log_*"], &[]));
    let names: Vec<_> =
        document["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["log_2025", "log_2026"]);
    assert_eq!(content(sandbox.path("app.db")), before);
    sql(sandbox.path("app.db"), "DELETE FROM log_2026; DELETE FROM keyed");
    sandbox.ok(&restore_arguments(&id, &["LOG_202?", "KEYED"], &["--replace"]));
    assert_eq!(content(sandbox.path("app.db")), before);
    let all = sandbox.json(&restore_arguments(&id, &["*"], &["--replace"]));
    let names: Vec<_> = all["tables"].as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["accounts", "balances", "bare", "computed", "keyed", "log_2025", "log_2026", "logs"]);
    assert_eq!(content(sandbox.path("app.db")), before);
    refused(&sandbox, &restore_arguments(&id, &["no_such*"], &["--no-safety"]), 2).says("no_such*");
    refused(&sandbox, &restore_arguments(&id, &["keyed", "nope"], &["--replace", "--no-safety"]), 2).says("nope");
}

#[test]
fn virtual_shadow_and_system_tables_are_refused() {
    let (sandbox, id) = database_with_snapshot();
    for table in ["notes", "notes_content", "sqlite_sequence"] {
        let before = content(sandbox.path("app.db"));
        let run = sandbox.run(&restore_arguments(&id, &[table], &["--replace", "--no-safety"])).code(2).says(table);
        crate::helpers::assert_one_error(&run);
        assert_eq!(content(sandbox.path("app.db")), before);
    }
}

#[test]
fn a_table_whose_definition_has_changed_is_refused() {
    let (sandbox, id) = database_with_snapshot();
    for change in [
        "ALTER TABLE keyed ADD COLUMN more",
        "ALTER TABLE computed RENAME COLUMN a TO z",
        "DROP TABLE bare; CREATE TABLE bare (a INTEGER)",
    ] {
        sql(sandbox.path("app.db"), change);
    }
    let before = content(sandbox.path("app.db"));
    for table in ["keyed", "computed", "bare"] {
        let arguments = restore_arguments(&id, &["logs", table], &["--replace", "--no-safety"]);
        let run = sandbox.run(&arguments).code(2).says(table);
        crate::helpers::assert_one_error(&run);
        assert_eq!(content(sandbox.path("app.db")), before, "{table}");
    }
}

#[test]
fn a_restore_that_would_orphan_rows_of_other_tables_is_refused() {
    let (sandbox, id) = database_with_snapshot();
    sql(
        sandbox.path("app.db"),
        "INSERT INTO accounts (id, name) VALUES (99, 'opened since'); INSERT INTO balances (account_id, amount) VALUES (99, 1.0)",
    );
    let before = content(sandbox.path("app.db"));
    let arguments = restore_arguments(&id, &["accounts"], &["--replace", "--no-safety"]);
    let run = sandbox.run(&arguments).code(1).says("balances");
    crate::helpers::assert_one_error(&run);
    assert_eq!(content(sandbox.path("app.db")), before);
    sandbox.ok(&restore_arguments(&id, &["accounts", "balances"], &["--replace"]));
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT max(id) FROM accounts"), "6");
}

#[test]
fn orphaned_rows_of_the_snapshot_do_not_prevent_a_restore() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sql(sandbox.path("app.db"), "INSERT INTO balances (account_id, amount) VALUES (777, 1.0)");
    let id = sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]).json();
    let id = crate::helpers::id_of(&id);
    let before = content(sandbox.path("app.db"));
    sql(sandbox.path("app.db"), "DROP TABLE balances");
    sandbox.ok(&restore_arguments(&id, &["balances"], &[]));
    assert_eq!(content(sandbox.path("app.db"))["balances"], before["balances"]);
}

#[test]
fn rows_of_the_snapshot_that_violate_a_check_are_restored() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "PRAGMA ignore_check_constraints = ON; CREATE TABLE t (n INT CHECK (n > 0)); INSERT INTO t VALUES (1), (-1); CREATE TABLE u (a)",
    );
    let id = crate::helpers::id_of(&sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]).json());
    sql(sandbox.path("app.db"), "DELETE FROM t");
    sandbox.ok(&restore_arguments(&id, &["t"], &[]));
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT count(*) FROM t"), "2");
}

#[test]
fn the_counter_of_an_existing_table_never_decreases() {
    let (sandbox, id) = database_with_snapshot();
    let sequence = || query_value(sandbox.path("app.db"), "SELECT seq FROM sqlite_sequence WHERE name = 'balances'");
    sql(
        sandbox.path("app.db"),
        "INSERT INTO balances (account_id, amount) VALUES (1, 1.0), (1, 2.0); DELETE FROM balances",
    );
    assert_eq!(sequence(), "62");
    sandbox.ok(&restore_arguments(&id, &["balances"], &[]));
    assert_eq!(sequence(), "62");
    sql(sandbox.path("app.db"), "DROP TABLE balances");
    sandbox.ok(&restore_arguments(&id, &["balances"], &[]));
    assert_eq!(sequence(), "60");
    sql(sandbox.path("app.db"), "DELETE FROM balances; DELETE FROM sqlite_sequence");
    sandbox.ok(&restore_arguments(&id, &["balances"], &[]));
    assert_eq!(sequence(), "60");
}

#[test]
fn triggers_do_not_fire_during_a_restore() {
    let (sandbox, id) = database_with_snapshot();
    let before = content(sandbox.path("app.db"));
    sandbox.ok(&restore_arguments(&id, &["bare", "balances"], &["--replace"]));
    assert_eq!(content(sandbox.path("app.db")), before);
}

#[test]
fn tables_are_refused_for_a_missing_or_damaged_target() {
    let (sandbox, id) = database_with_snapshot();
    let arguments_for = |target: &'static str| {
        ["restore", &id, "--to", target, "--table", "keyed", "--store", "backups"].map(str::to_owned)
    };
    let refuse = |target, words: &str| {
        let arguments = arguments_for(target);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        drop(refused(&sandbox, &arguments, 2).says(words));
    };
    refuse("new.db", "--table");
    std::fs::write(sandbox.path("ruined.db"), "ruined ".repeat(1000)).unwrap();
    refuse("ruined.db", "--table");
}

#[test]
fn tables_can_be_restored_into_another_database() {
    let (sandbox, id) = database_with_snapshot();
    sql(sandbox.path("other.db"), "PRAGMA page_size = 1024; CREATE TABLE mine (a); INSERT INTO mine VALUES (1)");
    let arguments = [
        "restore", &id, "--to", "other.db", "--table", "keyed", "--table", "balances", "--table", "accounts",
        "--store", "backups",
    ];
    sandbox.ok(&arguments);
    let (original, other) = (content(sandbox.path("app.db")), content(sandbox.path("other.db")));
    for table in ["keyed", "balances", "accounts"] {
        assert_eq!(other[table], original[table], "{table}");
    }
    assert_eq!(other["mine"].len(), 1);
}

#[test]
fn a_reader_never_sees_a_partly_restored_table() {
    let (sandbox, id) = database_with_snapshot();
    let reader = crate::support::open(sandbox.path("app.db"));
    reader.execute_batch("BEGIN; SELECT count(*) FROM keyed").unwrap();
    sql(sandbox.path("app.db"), "DELETE FROM keyed");
    sandbox.ok(&restore_arguments(&id, &["keyed"], &[]));
    let count = || reader.query_row("SELECT count(*) FROM keyed", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 2);
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count(), 2);
}

#[test]
fn a_table_without_the_rowids_of_the_snapshot_is_refused() {
    let (sandbox, id) = database_with_snapshot();
    sql(sandbox.path("app.db"), "DROP TABLE bare; CREATE TABLE bare (a PRIMARY KEY) WITHOUT ROWID");
    let before = content(sandbox.path("app.db"));
    let run = sandbox.run(&restore_arguments(&id, &["bare"], &["--no-safety"])).code(2).says("bare");
    crate::helpers::assert_one_error(&run);
    assert_eq!(content(sandbox.path("app.db")), before);
}

#[test]
fn a_table_whose_name_another_object_has_is_refused() {
    let (sandbox, id) = database_with_snapshot();
    sql(
        sandbox.path("app.db"),
        "DROP TABLE keyed; CREATE VIEW keyed AS SELECT 1; DROP TABLE bare; CREATE INDEX bare ON logs (at)",
    );
    let before = content(sandbox.path("app.db"));
    for table in ["keyed", "bare"] {
        let run = sandbox.run(&restore_arguments(&id, &[table], &["--no-safety"]));
        assert_ne!(run.exit(), 0, "{}", run.transcript());
        crate::helpers::assert_one_error(&run);
        assert_eq!(content(sandbox.path("app.db")), before, "{table}");
    }
}
