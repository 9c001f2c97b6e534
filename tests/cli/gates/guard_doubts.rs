//! `guard` when the newest state is not certain: what is left in the store, snapshots that are passed over, damage that
//! only the restore finds, and wrong clocks.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use chrono::Utc;
use rustix::process::Signal;
use serde_json::Value;

use super::guard_start::{commands, run_printed};
use super::helpers::App;
use crate::helpers::{copy_with_time, flip_bytes};
use crate::support::bucket::{Bucket, refusal};
use crate::support::web::{Web, answer};
use crate::support::{Sandbox, open};

fn archive(app: &App, id: &str) -> std::path::PathBuf {
    app.sandbox.path(format!("backups/app/{id}.tar.gz"))
}

/// Takes a snapshot, adds 50 accounts, and takes another one. Returns the ids.
fn two_snapshots(app: &App) -> (String, String) {
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO accounts SELECT id + 1000, 'new' FROM balances WHERE id <= 50");
    app.sandbox.ok(&["snapshot"]);
    let mut ids = app.ids();
    ids.sort_by_key(|id| app.sandbox.json(&["show", id])["rows"].as_u64());
    (ids[0].clone(), ids[1].clone())
}

#[test]
fn a_safety_snapshot_that_is_all_that_is_left_is_no_first_start() {
    for archive_only in [false, true] {
        let app = App::new("");
        app.sandbox.ok(&["snapshot"]);
        let full = app.ids()[0].clone();
        app.sql("INSERT INTO accounts (name) VALUES ('new')");
        app.sandbox.ok(&["restore", &full, "--replace"]);
        app.sandbox.ok(&["delete", &full, "--yes"]);
        let safety = app.ids()[0].clone();
        if archive_only {
            fs::remove_file(app.sandbox.path(format!("backups/app/{safety}.json"))).unwrap();
        }
        app.remove_database();
        app.fails(&["predeploy"]);
        let run = app.refuses(&[], 3).says("no snapshot of it can be restored").says(&safety);
        assert!(run.stderr().contains("241 rows"), "{}", run.transcript());
        app.starts(&["--on-doubt", "start"]).says(&safety);
        assert!(!app.sandbox.path("app/app.db").exists());
        if !archive_only {
            run_printed(&app.sandbox, &commands(&run.stderr())[0]);
            assert_eq!(app.rows(), (41, 200));
            app.starts(&[]);
        }
    }
}

#[test]
fn damaged_snapshots_and_archives_without_a_manifest_are_no_first_start() {
    for case in ["damaged", "without a manifest", "manifest emptied", "archive gone"] {
        let app = App::new("");
        app.sandbox.ok(&["snapshot"]);
        let id = app.ids()[0].clone();
        let manifest = app.sandbox.path(format!("backups/app/{id}.json"));
        match case {
            "damaged" => {
                flip_bytes(archive(&app, &id), 200, 4);
                app.sandbox.run(&["verify", &id]).code(3);
            }
            "without a manifest" => fs::remove_file(&manifest).unwrap(),
            "manifest emptied" => fs::write(&manifest, "").unwrap(),
            _ => fs::remove_file(archive(&app, &id)).unwrap(),
        }
        app.remove_database();
        let run = app.refuses(&[], 3).says(&id);
        assert!(!run.stderr().contains("first start"), "{case}\n{}", run.transcript());
    }
}

#[test]
fn rows_of_a_snapshot_that_was_passed_over_are_never_pruned() {
    let app = App::new("[retention]\nkeep_last = 1\n[encryption]\nallow_plaintext = true\n");
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = app.sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO accounts SELECT id + 1000, 'new' FROM balances WHERE id <= 50");
    app.sandbox.run(&["snapshot", "--encrypt-to", &public]);
    let newer = app.sandbox.json(&["list"])["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .find(|snapshot| snapshot["encrypted"] == true)
        .unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    app.remove_database();
    app.refuses(&[], 3).says(&newer);
    app.starts(&["--on-doubt", "restore-older"]).says(&newer);
    assert_eq!(app.rows(), (40, 200));
    for round in 1..=3 {
        app.sql(&format!("INSERT INTO accounts SELECT id + {round}0000, 'later' FROM balances WHERE id <= 100"));
        app.starts(&["--identity", "key.txt"]);
        app.sandbox.ok(&["snapshot"]);
    }
    let run = app.sandbox.ok(&["prune", "--yes"]);
    assert!(app.ids().contains(&newer), "the only copy of rows was deleted\n{}", run.transcript());
    assert!(run.stdout().contains("which guard has restored"), "{}", run.transcript());
    // The others are the newest one, and the young suspect one of the first start.
    assert!(app.ids().len() <= 3, "{}", run.transcript());
    // A person accepts that they are missing.
    app.sandbox.ok(&["snapshot", "--accept"]);
    app.sandbox.ok(&["prune", "--yes"]);
    assert!(!app.ids().contains(&newer));
}

#[test]
fn damage_that_the_restore_finds_names_the_next_older_snapshot() {
    let app = App::new("");
    let (older, newer) = two_snapshots(&app);
    let bytes = fs::metadata(archive(&app, &newer)).unwrap().len();
    flip_bytes(archive(&app, &newer), usize::try_from(bytes / 2).unwrap(), 16);
    app.remove_database();
    let run = app.refuses(&[], 3).says(&newer).says(&older);
    for part in ["damaged", "restore-older", "90 rows of accounts (40)"] {
        assert!(run.stderr().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    assert!(!app.sandbox.path("app/app.db").exists());
    app.starts(&["--on-doubt", "restore-older"]).says(&newer);
    assert_eq!(app.rows(), (40, 200));
    // In one step, without the proof that the first restore left.
    let app = App::new("");
    let (_, newer) = two_snapshots(&app);
    flip_bytes(archive(&app, &newer), usize::try_from(bytes / 2).unwrap(), 16);
    app.remove_database();
    app.starts(&["--on-doubt", "restore-older"]).says(&newer);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn damage_in_one_store_is_no_doubt_if_another_has_the_snapshot() {
    let app = App::new("[[store]]\nurl = \"./second\"\n");
    app.sandbox.ok(&["init"]);
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    let bytes = fs::metadata(archive(&app, &id)).unwrap().len();
    flip_bytes(archive(&app, &id), usize::try_from(bytes / 2).unwrap(), 16);
    app.remove_database();
    app.starts(&[]);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn a_snapshot_of_a_wrong_clock_never_displaces_newer_rows() {
    // The date in its id has passed, but the store has had it since before the other one was taken.
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let real = app.ids()[0].clone();
    app.sql("DELETE FROM accounts WHERE id = 40");
    app.sandbox.ok(&["snapshot"]);
    let wrong = app.ids().into_iter().find(|id| *id != real).unwrap();
    let wrong = copy_with_time(&app.sandbox.path("backups"), &wrong, Utc::now() + chrono::Duration::seconds(5));
    let file = File::options().write(true).open(archive(&app, &wrong)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    let other = app.ids().into_iter().find(|id| *id != real && *id != wrong).unwrap();
    app.sandbox.ok(&["delete", &other, "--yes"]);
    assert_eq!(app.sandbox.json(&["show", "latest"])["id"], real.as_str());
    app.sandbox.ok(&["show", "latest"]).says(&wrong).says("a clock was wrong");
    app.remove_database();
    app.starts(&[]).says(&format!("passing over {wrong}"));
    assert_eq!(app.rows(), (40, 200));
    app.sql("DELETE FROM balances WHERE id > 20");
    let run = app.sandbox.run(&["snapshot"]).code(3).says(&wrong);
    assert!(run.stderr().contains("200 before"), "{}", run.transcript());
}

#[test]
fn a_snapshot_dated_in_the_future_is_named_where_it_is_passed_over() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    let future = copy_with_time(&app.sandbox.path("backups"), &id, Utc::now() + chrono::Duration::days(20));
    app.sandbox.ok(&["snapshot"]).says(&future).says("dated in the future");
    app.sandbox.ok(&["predeploy"]).says(&future);
    // The store has had it since before the newest good snapshot was taken, so that no row can be lost without it.
    let file = File::options().write(true).open(archive(&app, &future)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    app.remove_database();
    app.starts(&[]).says(&format!("passing over {future}"));
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn without_restores_a_missing_database_is_named_with_the_command_that_restores_it() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    app.remove_database();
    let run = app.starts(&["--restore-if-missing=false"]).says(&id).says("restore_if_missing is false");
    assert!(!app.sandbox.path("app/app.db").exists());
    run_printed(&app.sandbox, &commands(&run.stderr())[0]);
    assert_eq!(app.rows(), (40, 200));
    // A store need not exist.
    app.remove_database();
    fs::rename(app.sandbox.path("backups"), app.sandbox.path("away")).unwrap();
    app.starts(&["--restore-if-missing=false"]);
}

#[test]
fn a_store_that_may_only_be_read_is_a_failure_at_the_start() {
    let (is_closed, hook) = (Arc::new(AtomicBool::new(false)), Web::answering(&[answer("200 OK", "text/plain", "ok")]));
    let closed = Arc::clone(&is_closed);
    let bucket = Bucket::special(move |request| {
        let is_write = matches!(request.method.as_str(), "PUT" | "POST" | "DELETE");
        (is_write && closed.load(Ordering::Relaxed)).then(|| refusal("403 Forbidden", "AccessDenied", "read only"))
    });
    let sandbox = Sandbox::new();
    let config = format!(
        "host = \"shop\"\n[[store]]\nurl = \"{}\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n\
         [notify]\nwebhook = \"{}\"\non = \"failure\"\n",
        bucket.store(),
        hook.url("/hook")
    );
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    open(sandbox.path("app.db")).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)").unwrap();
    Bucket::run(&sandbox, &["init"]).code(0);
    Bucket::run(&sandbox, &["guard", "--", "true"]).code(0);
    is_closed.store(true, Ordering::Relaxed);
    let script =
        "trap 'exit 0' TERM; touch ready; while [ \"$(cut -d' ' -f4 /proc/$$/stat)\" = $PPID ]; do sleep 0.02; done";
    let running = sandbox.start_command(Bucket::command(&sandbox, &["guard", "--", "sh", "-c", script]));
    super::guard::wait_for(&sandbox.path("ready"));
    hook.wait_for_request();
    let body = hook.requests()[0].body.clone();
    assert!(body.contains("cannot be written") && body.contains("AccessDenied"), "{body}");
    running.signal(Signal::TERM);
    let run = running.finish().code(0);
    // Nothing has changed, so that no snapshot was written. The store is still a failure.
    assert!(run.stderr().contains("nothing changed since app-"), "{}", run.transcript());
    let last = hook.requests().last().unwrap().body.clone();
    assert!(last.contains("\"failure\"") && last.contains("cannot be written"), "{last}");
}

#[test]
fn any_number_of_suspect_snapshots_is_passed_over_with_few_requests() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    let config = format!(
        "host = \"shop\"\n[[store]]\nurl = \"{}\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
        bucket.store()
    );
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    let database = open(sandbox.path("app.db"));
    database.execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1), (2), (3), (4)").unwrap();
    Bucket::run(&sandbox, &["init"]).code(0);
    Bucket::run(&sandbox, &["snapshot"]).code(0);
    database.execute_batch("DELETE FROM a WHERE b > 1").unwrap();
    Bucket::run(&sandbox, &["snapshot"]).code(3);
    let good = Bucket::run(&sandbox, &["show", "latest", "--json"]).code(0).json()["id"].clone();
    let suspect =
        bucket.keys().into_iter().find(|key| key.ends_with(".json") && bucket.text(key).contains("\"suspect\""));
    let mut manifest: Value = serde_json::from_str(&bucket.text(&suspect.unwrap())).unwrap();
    let archive = "x".repeat(usize::try_from(manifest["archive_bytes"].as_u64().unwrap()).unwrap());
    // 300 more of the same.
    let time = Utc::now() + chrono::Duration::seconds(10);
    manifest["created_at"] = time.to_rfc3339().into();
    for number in 1..=300 {
        let id = format!("app-{}-{number:04}", time.format("%Y%m%dT%H%M%SZ"));
        manifest["id"] = id.clone().into();
        manifest["archive"] = format!("{id}.tar.gz").into();
        bucket.put(&format!("p/app/{id}.json"), &manifest.to_string());
        bucket.put(&format!("p/app/{id}.tar.gz"), &archive);
    }
    for command in [&["show", "latest"][..], &["predeploy"], &["snapshot"]] {
        let before = bucket.count("GET /bucket/p/app/");
        let run = Bucket::run(&sandbox, command);
        let requests = bucket.count("GET /bucket/p/app/") - before;
        assert!(requests < 150, "{command:?}: {requests} requests\n{}", run.transcript());
    }
    let latest = Bucket::run(&sandbox, &["show", "latest", "--json"]).code(0);
    assert_eq!(latest.json()["id"], good);
    assert_eq!(latest.stderr().matches("it has the tag 'suspect'").count(), 32, "{}", latest.transcript());
}
