//! `check`: databases, rules, and the backups' own health.

use super::helpers::{App, failed, only};
use crate::support::have;

#[test]
fn all_is_well_and_every_check_says_what_it_saw() {
    let app = App::new("[backups]\nmax_age = \"26h\"\n");
    app.sandbox.ok(&["snapshot"]);
    let run = app.sandbox.ok(&["check"]);
    for part in ["app: integrity", "accounts", "app: rows", "240 rows", "app: newest", "expected at most 26h", "free"] {
        assert!(run.stdout().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
}

#[test]
fn rules_that_do_not_hold_are_told_with_what_was_seen() {
    let rules = "[[source.rule]]\ntable = \"balances\"\nfresh = { column = \"created_at\", within = \"24h\" }\n\
                 [[source.rule]]\nquery = \"select count(*) > 100 from balances\"\n";
    let app = App::new(rules);
    app.sandbox.ok(&["snapshot"]);
    app.passes(&["check"]);
    app.sql("UPDATE balances SET created_at = datetime('now', '-3 days')");
    only(&app.closed(&["check"]).0, &["balances", "3d ago", "1d"]);
    app.sql("UPDATE balances SET created_at = datetime('now', '+3 days')");
    only(&app.closed(&["check"]).0, &["balances", "future"]);
    app.sql("UPDATE balances SET created_at = 'last tuesday'");
    only(&app.closed(&["check"]).0, &["last tuesday"]);
}

#[test]
fn a_rule_on_what_is_not_there_fails_by_name() {
    let rules = "[[source.rule]]\ntable = \"acounts\"\nmin_rows = 1\n\
                 [[source.rule]]\ntable = \"balances\"\nfresh = { column = \"createdat\", within = \"24h\" }\n\
                 [[source.rule]]\nquery = \"select nothing from nowhere\"\n";
    let app = App::new(rules);
    app.sandbox.ok(&["snapshot", "--accept"]);
    let (failed, _) = app.closed(&["check"]);
    assert_eq!(failed.len(), 3, "{failed:#?}");
    assert!(failed[0].contains("acounts") && failed[0].contains("accounts"), "{failed:#?}");
    assert!(failed[1].contains("createdat") && failed[1].contains("created_at"), "{failed:#?}");
    assert!(failed[2].contains("nowhere"), "{failed:#?}");
}

#[test]
fn damage_in_the_database_is_found() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE");
    let path = app.sandbox.path("app/app.db");
    let mut bytes = std::fs::read(&path).unwrap();
    // The cells of the second page.
    for byte in &mut bytes[4096 + 8..4096 + 200] {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let (failed, _) = app.closed(&["check"]);
    assert!(failed.iter().any(|line| line.contains("integrity") || line.contains("malformed")), "{failed:#?}");
}

#[test]
fn backups_that_are_missing_old_damaged_or_shrunken_are_told() {
    if !have(&["faketime"]) {
        return;
    }
    let app = App::new("[backups]\nmax_age = \"26h\"\nproof_within = \"8d\"\n");
    let (lines, _) = app.closed(&["check"]);
    only(&lines, &["app: backups", "no full snapshot"]);
    app.sandbox.ok(&["snapshot"]);
    only(&app.closed(&["check"]).0, &["app: proof", "ever verified"]);
    app.sandbox.ok(&["verify"]);
    app.passes(&["check"]);
    // A clock that is 40 hours ahead sees an old backup.
    let mut command = std::process::Command::new("faketime");
    command.args(["-f", "+40h", crate::support::LIFEBOAT, "check", "--json"]).current_dir(app.sandbox.root());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let document = serde_json::from_slice(&output.stdout).unwrap();
    only(&failed(&document), &["app: newest", "40h old", "26h"]);
    // Four in five rows are gone, and somebody has saved that.
    app.sql("DELETE FROM balances WHERE id > 20; VACUUM");
    app.sandbox.run(&["snapshot"]).code(3);
    let (lines, _) = app.closed(&["check"]);
    assert!(lines.iter().any(|line| line.contains("app: size") && line.contains("60 rows")), "{lines:#?}");
}

#[test]
fn a_newest_snapshot_that_is_damaged_is_told() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    std::fs::remove_file(app.sandbox.path(format!("backups/app/{id}.tar.gz"))).unwrap();
    let (failed, _) = app.closed(&["check"]);
    assert!(failed.iter().any(|line| line.contains(&id) && line.contains("damaged")), "{failed:#?}");
}

#[test]
fn what_was_lost_since_the_last_snapshot_is_told_before_the_next_one() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM accounts WHERE id > 20");
    only(&app.closed(&["check"]).0, &["accounts", "20", "40"]);
}

#[test]
fn a_drill_of_every_source_leaves_its_proof_and_its_time() {
    let app = App::new("[backups]\nproof = \"drilled\"\nproof_within = \"8d\"\n");
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["verify"]);
    only(&app.closed(&["check"]).0, &["app: proof", "drill"]);
    app.sandbox.ok(&["drill", "--random"]);
    let document = app.sandbox.json(&["drill"]);
    assert_eq!(document["snapshots"][0]["level"], "drilled");
    let list = app.sandbox.json(&["list"]);
    assert_eq!(list["snapshots"][0]["proof"], "drilled");
    assert!(list["snapshots"][0]["restore_seconds"].is_number());
    app.passes(&["check"]);
}

#[test]
fn a_snapshot_from_a_clock_that_was_ahead_is_told_and_compared_with_by_nobody() {
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
    let (lines, _) = app.closed(&["check"]);
    only(&lines, &["app: newest", "in the future"]);
    app.passes(&["predeploy"]);
}
