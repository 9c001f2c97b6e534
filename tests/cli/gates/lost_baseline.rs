//! A database that has lost rows never silently becomes the newest good snapshot, also if the snapshot that shows the
//! loss cannot be restored or read any more.

use std::fs;

use serde_json::{Value, json};

use super::helpers::App;
use crate::helpers::flip_bytes;
use crate::support::count;

/// Takes a good snapshot of 200 balances and, after a pause of the clock, deletes half of them. Returns its id.
fn app_with_loss(app: &App) -> String {
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM balances WHERE id > 100");
    app.ids()[0].clone()
}

fn path(app: &App, id: &str, ending: &str) -> std::path::PathBuf {
    app.sandbox.path(format!("backups/app/{id}{ending}"))
}

/// Requires that a snapshot of the database now is tagged as suspect because of the loss, and never the latest.
#[track_caller]
fn require_suspect(app: &App, case: &str) {
    let run = app.sandbox.run(&["snapshot", "--json"]);
    assert_eq!(run.exit(), 3, "{case}\n{}", run.transcript());
    let document = run.json();
    assert_eq!(document["snapshots"][0]["tags"], json!(["suspect"]), "{case}: {document:#}");
    let problem = document["problems"][0]["message"].as_str().unwrap();
    assert!(problem.contains("balances") && problem.contains("200"), "{case}: {problem}");
    let closed = app.sandbox.run(&["predeploy"]);
    assert_eq!(closed.exit(), 3, "{case}\n{}", closed.transcript());
}

#[test]
fn a_damaged_or_missing_archive_is_still_compared_with() {
    for case in ["missing", "cut", "found damaged", "proof"] {
        let app = App::new("");
        let good = app_with_loss(&app);
        let archive = path(&app, &good, ".tar.gz");
        match case {
            "missing" => fs::remove_file(&archive).unwrap(),
            "cut" => fs::OpenOptions::new().write(true).open(&archive).unwrap().set_len(500).unwrap(),
            "found damaged" => {
                flip_bytes(&archive, 200, 4);
                app.sandbox.run(&["verify", &good]).code(3);
            }
            _ => {
                let proof = json!({"format": 2, "id": good, "level": "replayed"}).to_string();
                fs::write(path(&app, &good, ".proof-20270101T000000000Z.json"), proof).unwrap();
            }
        }
        require_suspect(&app, case);
        require_suspect(&app, case);
        if case != "proof" {
            app.sandbox.run(&["restore", "latest", "--to", "new.db"]).code(4);
        }
        // The user accepts the loss.
        app.sandbox.ok(&["snapshot", "--accept"]);
        app.sandbox.ok(&["snapshot"]);
        app.sandbox.ok(&["restore", "latest", "--to", "new.db"]);
        assert_eq!(count(app.sandbox.path("new.db"), "balances"), 100, "{case}");
    }
}

#[test]
fn a_manifest_that_is_lost_damaged_or_newer_is_still_compared_with() {
    for case in ["lost", "cut", "emptied", "garbage", "newer", "newer with other fields"] {
        let app = App::new("");
        let good = app_with_loss(&app);
        let manifest = path(&app, &good, ".json");
        let text = fs::read_to_string(&manifest).unwrap();
        match case {
            "lost" => fs::remove_file(&manifest).unwrap(),
            "cut" => fs::write(&manifest, &text[..text.len() / 2]).unwrap(),
            "emptied" => fs::write(&manifest, "").unwrap(),
            "garbage" => fs::write(&manifest, [0xff; 300]).unwrap(),
            "newer" => fs::write(&manifest, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap(),
            _ => {
                let mut document: Value = serde_json::from_str(&text).unwrap();
                document["format"] = 2.into();
                document["sqlite"] = json!(["other"]);
                for table in document["tables"].as_array_mut().unwrap() {
                    *table = json!({"name": table["name"], "rows": table["rows"], "type": table["type"], "more": 1});
                }
                fs::write(&manifest, document.to_string()).unwrap();
            }
        }
        require_suspect(&app, case);
        require_suspect(&app, case);
    }
}

#[test]
fn a_deleted_baseline_is_known_from_the_suspect_snapshots() {
    let app = App::new("");
    let good = app_with_loss(&app);
    app.sandbox.run(&["snapshot"]).code(3);
    app.sandbox.ok(&["delete", &good, "--yes"]);
    require_suspect(&app, "deleted");
    require_suspect(&app, "deleted");
    let (failed, _) = app.fails(&["check"]);
    assert!(failed.iter().any(|check| check.contains("balances") && check.contains("200")), "{failed:#?}");
    // With the rows back, everything is good again.
    app.sql("INSERT INTO balances (id, amount) SELECT id + 100, 1 FROM balances");
    app.sandbox.ok(&["snapshot"]);
    app.passes(&["predeploy"]);
}

#[test]
fn an_older_good_snapshot_does_not_hide_what_a_suspect_one_was_compared_with() {
    let app = App::new("");
    app.sql("DELETE FROM balances WHERE id > 60");
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO balances (id, amount) SELECT id + 1000, 1 FROM balances; INSERT INTO balances (id, amount) SELECT id + 5000, 1 FROM balances LIMIT 80");
    app.sandbox.ok(&["snapshot"]);
    let newest = app.ids()[0].clone();
    app.sql("DELETE FROM balances WHERE id > 60");
    app.sandbox.run(&["snapshot"]).code(3);
    app.sandbox.ok(&["delete", &newest, "--yes"]);
    require_suspect(&app, "60 rows are as many as in the oldest snapshot");
}

#[test]
fn the_total_of_an_encrypted_baseline_is_known_after_it_was_deleted() {
    let app = App::new("");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.write_config(&format!("[encryption]\nrecipients = [\"{public}\"]\n"));
    let good = app_with_loss(&app);
    app.sandbox.run(&["snapshot"]).code(3);
    let suspect = app.ids()[0].clone();
    let outside = fs::read_to_string(path(&app, &suspect, ".json")).unwrap();
    assert!(!outside.contains("balances"), "a table is named outside the encrypted archive: {outside}");
    app.sandbox.ok(&["verify", &suspect, "--identity", "key.txt"]);
    app.sandbox.ok(&["delete", &good, "--yes"]);
    for key in [&[][..], &["--identity", "key.txt"]] {
        let run = app.sandbox.run(&[&["snapshot", "--json"], key].concat()).code(3);
        assert_eq!(run.json()["snapshots"][0]["tags"], json!(["suspect"]), "{}", run.transcript());
    }
}

#[test]
fn a_baseline_whose_rows_are_not_known_is_named_aloud() {
    let app = App::new("");
    let good = app_with_loss(&app);
    let manifest = path(&app, &good, ".json");
    fs::write(&manifest, "{\"format\": 2, \"kind\": \"delta\"}").unwrap();
    app.sandbox.ok(&["snapshot"]).says(&good).says("not compared with").says("newer lifeboat");
    // Everything is gone but the folder.
    let app = App::new("");
    let good = app_with_loss(&app);
    app.sandbox.ok(&["delete", &good, "--yes"]);
    app.sandbox.ok(&["snapshot"]).says("no full snapshot is left");
    // A first snapshot is compared with nothing, and says nothing.
    let app = App::new("");
    let run = app.sandbox.ok(&["snapshot"]);
    assert!(!run.stderr().contains("compared"), "{}", run.transcript());
}

#[test]
fn a_source_of_no_config_is_warned_about_lost_rows_if_the_manifest_is_lost() {
    let app = App::new("");
    let snapshot = ["snapshot", "app/app.db", "--store", "other"];
    let id = app.sandbox.ok(&[&snapshot[..], &["--json"]].concat()).json()["snapshots"][0]["id"].clone();
    fs::remove_file(app.sandbox.path(format!("other/app/{}.json", id.as_str().unwrap()))).unwrap();
    app.sql("DELETE FROM balances WHERE id > 50");
    app.sandbox.ok(&snapshot).says("balances has 50 rows");
}
