//! Losses that a tolerance lets pass, and snapshots that can only be compared by their totals, are named by `guard` and
//! `snapshot`.

use serde_json::json;

use super::helpers::App;
use crate::support::Run;

/// Returns the lines of a log that are warnings.
fn warnings(run: &Run) -> Vec<String> {
    run.stderr().lines().filter(|line| line.to_lowercase().contains("warn")).map(str::to_owned).collect()
}

/// Creates an app whose snapshots are encrypted to a key that this machine does not have.
fn sealed() -> App {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    app
}

#[test]
fn guard_warns_of_rows_that_the_tolerance_let_go() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    app.sql("DELETE FROM balances WHERE id > 185");
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    let found = warnings(&run);
    assert_eq!(found.len(), 1, "{}", run.transcript());
    for part in [id.as_str(), "within the tolerance", "rows of balances: 185 rows, 200 before: 15 are gone", "10%"] {
        assert!(found[0].contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    // The last snapshot was compared too, and the next start is compared with it.
    run.says(&format!("fewer rows than in {id}"));
    assert_eq!(warnings(&app.sandbox.ok(&["guard", "--", "true"])), Vec::<String>::new());
}

#[test]
fn the_first_snapshot_of_a_guard_is_compared_with_nothing() {
    let app = App::new("");
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(warnings(&run), Vec::<String>::new(), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1);
}

#[test]
fn a_rule_on_the_table_makes_its_losses_no_warning() {
    for rule in ["max_row_drop = \"50%\"", "may_drop = true"] {
        let app = App::new(&format!("[[source.rule]]\ntable = \"balances\"\n{rule}\n"));
        app.sandbox.ok(&["snapshot"]);
        app.sql("DELETE FROM balances WHERE id > 185");
        let run = app.sandbox.ok(&["guard", "--", "true"]).says("as its rules allow");
        assert_eq!(warnings(&run), Vec::<String>::new(), "{}", run.transcript());
    }
}

#[test]
fn snapshot_names_the_rows_that_the_tolerance_let_go() {
    let app = App::new("");
    let document = app.sandbox.json(&["snapshot"]);
    assert!(document["snapshots"][0].get("compared").is_none(), "{document:#}");
    let id = app.ids()[0].clone();
    let first = id.clone();
    app.sql("DELETE FROM balances WHERE id > 185");
    let run = app.sandbox.ok(&["snapshot", "--quiet"]);
    let line = format!("  fewer rows than in {id}, as allowed: rows of balances: 185 rows, 200 before: 15 are gone");
    assert!(run.stdout().contains(&line), "{}", run.transcript());
    assert_eq!(run.stderr(), "", "cron mails every line of stderr");
    let id = app.ids()[0].clone();
    app.sql("DELETE FROM balances WHERE id > 170");
    let document = app.sandbox.json(&["snapshot"]);
    let loss = "rows of balances: 170 rows, 185 before: 15 are gone; expected at most 10% lost";
    let compared = json!({"with": id, "tables": true, "allowed_losses": [loss], "losses_since": {"balances": {"id": first, "rows": 200}}});
    assert_eq!(document["snapshots"][0]["compared"], compared, "{document:#}");
    assert!(!app.sandbox.ok(&["snapshot"]).stdout().contains("fewer rows"));
}

/// Deletes all balances but this number.
fn keep(app: &App, rows: i64) {
    app.sql(&format!("DELETE FROM balances WHERE id > {rows}"));
}

#[test]
fn small_losses_add_up_and_each_halving_is_a_warning() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let first = app.ids()[0].clone();
    for rows in [180, 162, 146, 132, 119, 108] {
        keep(&app, rows);
        let run = app.sandbox.ok(&["snapshot"]);
        assert_eq!(run.stderr(), "", "{}", run.transcript());
        let sum = format!("rows before several losses within the tolerance: balances in {first}: 200");
        assert_eq!(run.stdout().contains(&sum), rows < 180, "{}", run.transcript());
    }
    let document = app.sandbox.json(&["snapshot"]);
    let since = json!({"balances": {"id": first, "rows": 200}});
    assert_eq!(document["snapshots"][0]["compared"]["losses_since"], since, "{document:#}");
    keep(&app, 98);
    let run = app.sandbox.ok(&["snapshot", "--quiet"]);
    for part in ["balances has lost half of its rows", "98 rows now, 200 in", first.as_str(), "max_row_drop"] {
        assert!(run.stderr().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    // It is said once, and the next half begins.
    let next = app.ids()[0].clone();
    keep(&app, 90);
    let run = app.sandbox.ok(&["snapshot"]);
    assert_eq!(run.stderr(), "", "{}", run.transcript());
    let document = app.sandbox.json(&["snapshot"]);
    let since = json!({"balances": {"id": next, "rows": 98}});
    assert_eq!(document["snapshots"][0]["compared"]["losses_since"], since, "{document:#}");
}

#[test]
fn losses_do_not_add_up_after_growth_after_they_were_accepted_or_by_a_rule() {
    let losses = |app: &App| app.sandbox.json(&["snapshot"])["snapshots"][0]["compared"]["losses_since"].clone();
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    keep(&app, 185);
    assert_ne!(losses(&app), json!({}));
    app.sandbox.ok(&["snapshot", "--accept"]);
    assert_eq!(losses(&app), json!({}), "accepted");
    keep(&app, 175);
    assert_ne!(losses(&app), json!({}));
    app.sql("INSERT INTO balances (amount) SELECT 1 FROM balances LIMIT 10");
    assert_eq!(losses(&app), json!({}), "there are as many rows again");
    app.write_config("[[source.rule]]\ntable = \"balances\"\nmax_row_drop = \"20%\"\n");
    for rows in [160, 140, 120, 100, 90] {
        keep(&app, rows);
        assert_eq!(losses(&app), json!({}), "a rule on the table allows them");
    }
    // An encrypted snapshot names no table outside.
    let app = sealed();
    app.sandbox.ok(&["snapshot"]);
    for rows in [185, 175] {
        keep(&app, rows);
        let document = app.sandbox.json(&["snapshot", "--identity", "key.txt"]);
        assert!(document["snapshots"][0]["compared"]["losses_since"]["balances"].is_object(), "{document:#}");
        let id = document["snapshots"][0]["id"].as_str().unwrap();
        let outside = std::fs::read_to_string(app.sandbox.path(format!("backups/app/{id}.json"))).unwrap();
        assert!(!outside.contains("balances"), "{outside}");
        app.sandbox.ok(&["verify", id, "--identity", "key.txt"]);
    }
}

#[test]
fn min_rows_limits_the_sum_of_small_losses() {
    let app = App::new("[[source.rule]]\ntable = \"balances\"\nmin_rows = 150\n");
    app.sandbox.ok(&["snapshot"]);
    for rows in [185, 170, 155] {
        app.sql(&format!("DELETE FROM balances WHERE id > {rows}"));
        app.sandbox.ok(&["snapshot"]);
    }
    app.sql("DELETE FROM balances WHERE id > 145");
    app.sandbox.run(&["snapshot"]).code(3).says("min_rows of balances: 145 rows; expected at least 150 rows");
}

#[test]
fn without_a_key_guard_and_snapshot_say_that_only_totals_were_compared() {
    let app = sealed();
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    app.sql("DELETE FROM accounts; INSERT INTO accounts (name) VALUES ('only one'); INSERT INTO balances (amount) SELECT 1 FROM balances LIMIT 40");
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    let found = warnings(&run);
    assert_eq!(found.len(), 1, "{}", run.transcript());
    for part in ["only the total number of rows was compared", id.as_str(), "241 rows now, 240 in the snapshot"] {
        assert!(found[0].contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    // A host that only saves has no key. That is the safe way, and nothing to be mailed about each night.
    let run = app.sandbox.ok(&["snapshot", "--quiet"]);
    assert_eq!(run.stderr(), "", "{}", run.transcript());
    assert!(run.stdout().contains("  only the total number of rows was compared with app-"), "{}", run.transcript());
    let document = app.sandbox.json(&["snapshot"]);
    assert_eq!(document["snapshots"][0]["compared"]["tables"], false, "{document:#}");
    let run = app.sandbox.ok(&["predeploy"]);
    assert!(run.stdout().contains("; only the total number of rows of app was compared"), "{}", run.transcript());
    // With the key, tables are compared.
    app.sql("INSERT INTO balances (amount) SELECT 1 FROM balances");
    let run = app.sandbox.ok(&["guard", "--identity", "key.txt", "--", "true"]);
    assert_eq!(warnings(&run), Vec::<String>::new(), "{}", run.transcript());
    app.sql("DELETE FROM balances WHERE id > 100");
    app.sandbox.run(&["guard", "--identity", "key.txt", "--", "true"]).code(3).says("rows of balances");
}

#[test]
fn with_a_key_snapshot_compares_the_tables_of_an_encrypted_one() {
    // One table has lost its rows, and another one has grown.
    let lose = "DELETE FROM accounts WHERE id > 1; INSERT INTO balances (amount) SELECT 1 FROM balances LIMIT 60";
    for key in ["--identity", "identity_file", "none", "absent"] {
        let app = sealed();
        let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
        let file = if key == "absent" { "no-such-key.txt" } else { "key.txt" };
        if key.starts_with("identity") || key == "absent" {
            let config = config + &format!("identity_file = \"{file}\"\n");
            std::fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
        }
        app.sandbox.ok(&["snapshot"]);
        app.sql(lose);
        let options: &[&str] = if key == "--identity" { &["--identity", "key.txt"] } else { &[] };
        let run = app.sandbox.run(&[&["snapshot", "--quiet"], options].concat());
        match key {
            "none" | "absent" => {
                assert_eq!((run.exit(), run.stderr().as_str()), (0, ""), "{key}\n{}", run.transcript());
                assert!(run.stdout().contains("only the total number of rows"), "{key}\n{}", run.transcript());
            }
            _ => drop(run.code(3).says("rows of accounts: 1 rows, 40 before")),
        }
    }
    // A key that is given and cannot be used is said, and the snapshot is taken.
    let app = sealed();
    app.sandbox.ok(&["snapshot", "--identity", "no-such-key.txt"]).says("compared by their totals");
}

#[test]
fn predeploy_names_what_the_tolerance_let_pass() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances WHERE id > 185");
    let run = app.sandbox.ok(&["predeploy"]);
    let verdict = run.stdout().lines().find(|line| line.contains("the gate is open")).unwrap_or_default().to_owned();
    assert!(verdict.contains("except as allowed: rows of balances: 185 rows"), "{}", run.transcript());
}
