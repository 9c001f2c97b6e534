//! `check`: databases, rules, and the state of the backups.

use super::helpers::{App, assert_one_failed, failed_checks};
use crate::support::have;

#[test]
fn check_prints_the_observed_values_of_a_healthy_database() {
    let app = App::new("[backups]\nmax_age = \"26h\"\n");
    app.sandbox.ok(&["snapshot"]);
    let run = app.sandbox.ok(&["check"]);
    for part in ["app: integrity", "accounts", "app: rows", "240 rows", "app: newest", "expected at most 26h", "free"] {
        assert!(run.stdout().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
}

#[test]
fn failed_rules_are_reported_with_the_observed_value() {
    let rules = "[[source.rule]]\ntable = \"balances\"\nfresh = { column = \"created_at\", within = \"24h\" }\n\
                 [[source.rule]]\nquery = \"select count(*) > 100 from balances\"\n";
    let app = App::new(rules);
    app.sandbox.ok(&["snapshot"]);
    app.passes(&["check"]);
    app.sql("UPDATE balances SET created_at = datetime('now', '-3 days')");
    assert_one_failed(&app.fails(&["check"]).0, &["balances", "3d ago", "1d"]);
    app.sql("UPDATE balances SET created_at = datetime('now', '+3 days')");
    assert_one_failed(&app.fails(&["check"]).0, &["balances", "future"]);
    app.sql("UPDATE balances SET created_at = 'last tuesday'");
    assert_one_failed(&app.fails(&["check"]).0, &["last tuesday"]);
}

#[test]
fn rules_on_missing_tables_and_columns_fail_and_name_them() {
    let rules = "[[source.rule]]\ntable = \"acounts\"\nmin_rows = 1\n\
                 [[source.rule]]\ntable = \"balances\"\nfresh = { column = \"createdat\", within = \"24h\" }\n\
                 [[source.rule]]\nquery = \"select nothing from nowhere\"\n";
    let app = App::new(rules);
    app.sandbox.ok(&["snapshot", "--accept"]);
    let (failed, _) = app.fails(&["check"]);
    assert_eq!(failed.len(), 3, "{failed:#?}");
    assert!(failed[0].contains("acounts") && failed[0].contains("accounts"), "{failed:#?}");
    assert!(failed[1].contains("createdat") && failed[1].contains("created_at"), "{failed:#?}");
    assert!(failed[2].contains("nowhere"), "{failed:#?}");
}

#[test]
fn rules_find_tables_whose_names_only_look_like_those_of_sqlite() {
    let app = App::new("[[source.rule]]\ntable = \"sqlitedata\"\nmin_rows = 1\n");
    app.sql("CREATE TABLE sqlitedata (a); INSERT INTO sqlitedata VALUES (1)");
    app.sandbox.ok(&["snapshot"]);
    app.passes(&["check"]);
}

#[test]
fn damage_in_the_database_is_found() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE");
    let path = app.sandbox.path("app/app.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // These bytes are cells of the second page.
    for byte in &mut bytes[4096 + 8..4096 + 200] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let (failed, _) = app.fails(&["check"]);
    assert!(failed.iter().any(|line| line.contains("integrity") || line.contains("malformed")), "{failed:#?}");
}

#[test]
fn missing_unproven_old_and_shrunken_backups_are_reported() {
    if !have(&["faketime"]) {
        return;
    }
    let app = App::new("[backups]\nmax_age = \"26h\"\nproof_within = \"8d\"\n");
    let (lines, _) = app.fails(&["check"]);
    assert_one_failed(&lines, &["app: backups", "no full snapshot"]);
    app.sandbox.ok(&["snapshot"]);
    assert_one_failed(&app.fails(&["check"]).0, &["app: proof", "ever verified"]);
    app.sandbox.ok(&["verify"]);
    app.passes(&["check"]);
    // With a clock that is 40 hours ahead, the backup is too old.
    let mut command = std::process::Command::new("faketime");
    command.args(["-f", "+40h", crate::support::LIFEBOAT, "check", "--json"]).current_dir(app.sandbox.root());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let document = serde_json::from_slice(&output.stdout).unwrap();
    assert_one_failed(&failed_checks(&document), &["app: newest", "40h old", "26h"]);
    // Three quarters of all rows are deleted, and a snapshot of the rest is taken.
    app.sql("DELETE FROM balances WHERE id > 20; VACUUM");
    app.sandbox.run(&["snapshot"]).code(3);
    let (lines, _) = app.fails(&["check"]);
    assert!(lines.iter().any(|line| line.contains("app: size") && line.contains("60 rows")), "{lines:#?}");
}

#[test]
fn a_damaged_newest_snapshot_is_reported() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    std::fs::remove_file(app.sandbox.path(format!("backups/app/{id}.tar.gz"))).unwrap();
    let (failed, _) = app.fails(&["check"]);
    assert!(failed.iter().any(|line| line.contains(&id) && line.contains("damaged")), "{failed:#?}");
}

#[test]
fn rows_lost_since_the_last_snapshot_are_reported() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM accounts WHERE id > 20");
    assert_one_failed(&app.fails(&["check"]).0, &["accounts", "20", "40"]);
}

#[test]
fn a_drill_of_every_source_records_its_proof_and_its_time() {
    let app = App::new("[backups]\nproof = \"drilled\"\nproof_within = \"8d\"\n");
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["verify"]);
    assert_one_failed(&app.fails(&["check"]).0, &["app: proof", "drill"]);
    app.sandbox.ok(&["drill", "--random"]);
    let document = app.sandbox.json(&["drill"]);
    assert_eq!(document["snapshots"][0]["level"], "drilled");
    let list = app.sandbox.json(&["list"]);
    assert_eq!(list["snapshots"][0]["proof"], "drilled");
    assert!(list["snapshots"][0]["restore_seconds"].is_number());
    app.passes(&["check"]);
}

#[test]
fn a_snapshot_from_the_future_is_reported_and_is_not_a_baseline() {
    if !have(&["faketime"]) {
        return;
    }
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let output = std::process::Command::new("faketime")
        .args(["-f", "+20d", crate::support::LIFEBOAT, "snapshot"])
        .current_dir(app.sandbox.root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (lines, _) = app.fails(&["check"]);
    assert_one_failed(&lines, &["app: newest", "in the future"]);
    app.passes(&["predeploy"]);
}
