//! `diff`: a snapshot compared with the live database or with another snapshot.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::helpers::{assert_has_fields, refused, silent, sql};
use crate::support::{Sandbox, sample};

/// Returns the status of each table in the document of a diff.
fn statuses(document: &Value) -> BTreeMap<String, String> {
    let tables = document["tables"].as_array().unwrap().iter();
    let text = |table: &Value, field: &str| table[field].as_str().unwrap().to_owned();
    tables.map(|table| (text(table, "name"), text(table, "status"))).collect()
}

/// Creates `app.db`, takes a snapshot of it, and changes it. Returns the sandbox and the id of the snapshot.
fn changed_after_snapshot() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 4, "delete");
    sql(sandbox.path("app.db"), "CREATE TABLE gone (a); INSERT INTO gone VALUES (1); CREATE TABLE wide (a)");
    let id = sandbox.snapshot("app.db");
    sql(
        sandbox.path("app.db"),
        "DROP TABLE gone; CREATE TABLE fresh (a); INSERT INTO fresh VALUES (1), (2); ALTER TABLE wide ADD COLUMN b TEXT;
         UPDATE accounts SET name = 'other' WHERE id = 2; INSERT INTO logs VALUES ('x', 'y')",
    );
    (sandbox, id)
}

#[test]
fn diff_reports_every_kind_of_change_in_the_live_database() {
    let (sandbox, id) = changed_after_snapshot();
    let run = silent(sandbox.ok(&["diff", &id, "--store", "backups", "--json"]));
    let document = run.json();
    assert_eq!(document["equal"], false);
    let expected = [
        ("accounts", "changed"),
        ("balances", "same"),
        ("fresh", "added"),
        ("gone", "removed"),
        ("logs", "changed"),
        ("sqlite_sequence", "same"),
        ("wide", "changed"),
    ];
    assert_eq!(statuses(&document), expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    let table = |name: &str| document["tables"].as_array().unwrap().iter().find(|table| table["name"] == name).unwrap();
    assert_has_fields(table("logs"), &["name", "status", "rows_before", "rows_after"]);
    assert_eq!((&table("logs")["rows_before"], &table("logs")["rows_after"]), (&40.into(), &41.into()));
    assert_eq!((&table("gone")["rows_before"], &table("gone")["rows_after"]), (&1.into(), &Value::Null));
    assert_eq!((&table("fresh")["rows_before"], &table("fresh")["rows_after"]), (&Value::Null, &2.into()));
    assert_eq!((&table("wide")["columns_changed"], &table("logs")["columns_changed"]), (&true.into(), &false.into()));
}

#[test]
fn diff_prints_only_the_changes() {
    let (sandbox, id) = changed_after_snapshot();
    let run = sandbox.ok(&["diff", &id, "--store", "backups"]);
    for words in ["accounts", "fresh", "gone", "changed (columns)", "+1", "the schema differs"] {
        assert!(run.stdout().contains(words), "{words}\n{}", run.transcript());
    }
    assert!(!run.stdout().contains("balances"), "{}", run.transcript());
}

#[test]
fn diff_compares_with_a_path_or_another_snapshot() {
    let (sandbox, id) = changed_after_snapshot();
    let newer = sandbox.snapshot("app.db");
    let live = sandbox.json(&["diff", &id, "--store", "backups"]);
    for other in [&newer[..], "app.db", "./app.db", "sqlite:///app.db", "latest"] {
        let document = sandbox.json(&["diff", &id, other, "--store", "backups"]);
        assert_eq!(document["tables"], live["tables"], "{other}");
    }
    let reverse = sandbox.json(&["diff", &newer, &id, "--store", "backups"]);
    assert_eq!(statuses(&reverse)["gone"], "added");
    let same = sandbox.json(&["diff", &newer, &newer, "--store", "backups"]);
    assert_eq!(same["equal"], true);
    let run = sandbox.ok(&["diff", &newer, "--store", "backups"]);
    assert!(run.stdout().contains("no difference"), "{}", run.transcript());
}

#[test]
fn diff_reports_a_dropped_index() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let id = sandbox.snapshot("app.db");
    sql(sandbox.path("app.db"), "DROP INDEX balances_by_account");
    let document = sandbox.json(&["diff", &id, "--store", "backups"]);
    assert_eq!((&document["equal"], &document["schema_equal"]), (&false.into(), &false.into()), "{document:#}");
}

#[test]
fn diff_with_a_missing_snapshot_or_database_is_refused() {
    let (sandbox, id) = changed_after_snapshot();
    refused(&sandbox, &["diff", &id, "app-20200101T000000Z-0000", "--store", "backups"], 4);
    refused(&sandbox, &["diff", &id, "./missing.db", "--store", "backups"], 5);
    std::fs::remove_file(sandbox.path("app.db")).unwrap();
    refused(&sandbox, &["diff", &id, "--store", "backups"], 5);
    refused(&sandbox, &["diff", &id, "--store", "backups", "--host", "elsewhere"], 2).says("another machine");
}

#[test]
fn diff_never_reports_a_table_as_equal_that_it_could_not_compare() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE keyed (a TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('x');
         CREATE TABLE t (a); INSERT INTO t VALUES (1)",
    );
    let redefine = |from: &str, to: &str| {
        let statement = format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'keyed'"
        );
        sql(sandbox.path("app.db"), &statement);
    };
    redefine("NOCASE", "house_order");
    let id = sandbox.snapshot("app.db");
    redefine("house_order", "NOCASE");
    sql(sandbox.path("app.db"), "INSERT INTO keyed VALUES ('y')");
    redefine("NOCASE", "house_order");
    let document = sandbox.json(&["diff", &id, "--store", "backups"]);
    assert_eq!(document["equal"], false, "{document:#}");
    let run = sandbox.ok(&["diff", &id, "--store", "backups"]);
    assert!(run.stdout().contains("keyed"), "{}", run.transcript());
}

#[test]
fn with_exit_code_a_difference_is_exit_code_3() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["diff", &id, "--exit-code", "--store", "backups"]);
    sql(sandbox.path("app.db"), "DELETE FROM logs");
    sandbox.ok(&["diff", &id, "--store", "backups"]);
    let run = sandbox.run(&["diff", &id, "--exit-code", "--store", "backups", "--json"]).code(3);
    assert_eq!(run.json()["equal"], false, "{}", run.transcript());
}

#[test]
fn net_numbers_are_called_so() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 100, "delete");
    let id = sandbox.snapshot("app.db");
    sql(
        sandbox.path("app.db"),
        "DELETE FROM accounts WHERE id <= 10; INSERT INTO logs VALUES ('x', 'y'); DELETE FROM accounts WHERE id > 20 AND id <= 25; UPDATE accounts SET name = 'other'",
    );
    let run = silent(sandbox.ok(&["diff", &id, "--store", "backups"]));
    let line = run.stdout().lines().find(|line| line.starts_with("accounts")).unwrap().to_owned();
    assert!(line.contains("-15"), "{}", run.transcript());
    assert!(run.stdout().contains("more rows may be lost, added or"), "{}", run.transcript());
}

#[test]
fn the_latest_snapshot_compared_with_a_source_is_that_of_the_source() {
    let sandbox = Sandbox::new();
    let mut config = "[[store]]\nurl = \"backups\"\n".to_owned();
    for name in ["app", "other"] {
        sample(sandbox.path(format!("{name}.db")), 5, "delete");
        config += &format!("[[source]]\nname = \"{name}\"\nurl = \"{name}.db\"\n");
    }
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox.snapshot("app.db");
    sandbox.snapshot("other.db");
    let run = sandbox.ok(&["diff", "latest", "app"]);
    assert!(run.stdout().starts_with("app-"), "{}", run.transcript());
    assert!(sandbox.ok(&["diff", "latest", "other"]).stdout().starts_with("other-"));
    sandbox.run(&["diff", "latest"]).code(2).says("several sources: app, other");
}
