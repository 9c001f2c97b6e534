//! The snapshots that `guard` takes while the program runs, and those that it does not store because nothing has changed.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::guard::wait_for;
use super::helpers::App;
use crate::support::web::{Web, answer};
use crate::support::{LIFEBOAT, Running, Sandbox, open};

/// A program that waits until it is asked to stop, or until the guard is gone.
const WAITS: &str = "trap 'exit 0' TERM; touch ready
while [ \"$(cut -d' ' -f4 /proc/$$/stat)\" = $PPID ]; do sleep 0.02; done";

/// Starts a program under `guard` with messages in the file `log`, and waits until it runs.
fn start(sandbox: &Sandbox, options: &[&str]) -> Running {
    let _ = std::fs::remove_file(sandbox.path("ready"));
    let running = sandbox.start_command(logged(sandbox, options, WAITS));
    wait_for(&sandbox.path("ready"));
    running
}

/// Returns the command `lifeboat guard OPTIONS -- sh -c SCRIPT`, with its messages in the file `log`.
fn logged(sandbox: &Sandbox, options: &[&str], script: &str) -> Command {
    let mut command = sandbox.command_of("sh");
    command.args(["-c", "exec \"$@\" 2>>log", "sh", LIFEBOAT, "guard"]).args(options).args(["--", "sh", "-c", script]);
    command
}

fn log(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.path("log")).unwrap_or_default()
}

/// Waits until the log has this number of lines with `words`.
#[track_caller]
fn wait_for_lines(sandbox: &Sandbox, words: &str, count: usize) {
    let start = Instant::now();
    while log(sandbox).matches(words).count() < count {
        assert!(start.elapsed() < Duration::from_secs(40), "not {count} times '{words}' in\n{}", log(sandbox));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn stop(running: Running) {
    running.signal(Signal::TERM);
    running.finish().code(0);
}

fn snapshots(app: &App) -> Vec<Value> {
    app.sandbox.json(&["list"])["snapshots"].as_array().unwrap().clone()
}

#[test]
fn a_program_that_is_killed_loses_only_the_rows_since_the_last_interval() {
    let app = App::new("");
    let running = start(&app.sandbox, &["--every", "1s"]);
    wait_for_lines(&app.sandbox, "saved app-", 1);
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    wait_for_lines(&app.sandbox, "saved app-", 2);
    running.signal(Signal::KILL);
    let _ = running.finish();
    let newest = &snapshots(&app)[0];
    assert_eq!((&newest["rows"], &newest["tags"][0]), (&241.into(), &"guard".into()), "{newest:#}");
    app.remove_database();
    app.sandbox.ok(&["guard", "--handover", "0s", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 41);
}

#[test]
fn nothing_is_stored_where_nothing_changed() {
    let app = App::new("[guard]\nevery = \"1s\"\n");
    app.sandbox.ok(&["snapshot"]);
    let running = start(&app.sandbox, &[]);
    wait_for_lines(&app.sandbox, "nothing changed since app-", 3);
    stop(running);
    wait_for_lines(&app.sandbox, "nothing changed since app-", 4);
    assert_eq!(app.ids().len(), 1, "{}", log(&app.sandbox));
    // A snapshot by hand and a gate always save.
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["predeploy"]);
    assert_eq!(app.ids().len(), 3);
}

#[test]
fn a_crash_loop_adds_no_snapshot_and_prunes_none() {
    let app = App::new("[retention]\nkeep_last = 3\nafter_snapshot = true\n");
    app.sandbox.ok(&["snapshot", "--tag", "yesterday"]);
    for _ in 0..5 {
        app.sandbox.run(&["guard", "--", "false"]).code(1);
    }
    let all = snapshots(&app);
    assert_eq!((all.len(), &all[0]["tags"][0]), (1, &"yesterday".into()));
}

#[test]
fn every_change_of_the_content_is_saved() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let mut count = 1;
    for change in [
        "UPDATE accounts SET name = 'other' WHERE id = 1",
        "CREATE INDEX balances_by_account ON balances (account)",
        "CREATE VIEW names AS SELECT name FROM accounts",
        "CREATE TRIGGER t AFTER INSERT ON accounts BEGIN SELECT 1; END",
        "PRAGMA user_version = 7",
        "PRAGMA application_id = 8",
        "ALTER TABLE accounts ADD COLUMN mail TEXT",
        "PRAGMA journal_mode = DELETE",
        "CREATE TABLE empty (a)",
        "DELETE FROM balances WHERE id = 5; INSERT INTO balances VALUES (5, 6, 7.6, '2026-01-01')",
    ] {
        app.sql(change);
        let run = app.sandbox.ok(&["guard", "--", "true"]);
        count += 1;
        assert_eq!(app.ids().len(), count, "{change}\n{}", run.transcript());
        app.sandbox.ok(&["guard", "--", "true"]);
        assert_eq!(app.ids().len(), count, "{change}: it was saved already");
    }
    // The same rows in other pages are no change.
    app.sql("VACUUM");
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    assert!(run.stderr().contains("nothing changed since app-"), "{}", run.transcript());
    assert_eq!(app.ids().len(), count);
}

#[test]
fn a_newest_snapshot_that_is_damaged_or_missing_in_one_store_does_not_count() {
    let app = App::new("[[store]]\nurl = \"./second\"\n");
    app.sandbox.ok(&["init"]);
    app.sandbox.ok(&["guard", "--", "true"]);
    app.sandbox.ok(&["guard", "--", "true"]);
    let count = |store: &str| app.sandbox.json(&["list", "--store", store])["snapshots"].as_array().unwrap().len();
    assert_eq!((count("backups"), count("second")), (1, 1));
    let id = app.ids().remove(0);
    app.sandbox.ok(&["delete", &id, "--store", "second", "--yes"]);
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!((count("backups"), count("second")), (2, 1));
    // The archive of the newest one is gone.
    let id = app.ids().remove(0);
    std::fs::remove_file(app.sandbox.path(format!("second/app/{id}.tar.gz"))).unwrap();
    app.sandbox.run(&["guard", "--", "true"]);
    assert_eq!((count("backups"), count("second")), (3, 2));
}

#[test]
fn a_suspect_snapshot_does_not_count_for_a_database_that_is_whole_again() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("CREATE TABLE kept AS SELECT * FROM accounts; DELETE FROM accounts WHERE id > 3");
    app.sandbox.run(&["snapshot"]).code(3);
    app.sql("DELETE FROM accounts; INSERT INTO accounts SELECT * FROM kept; DROP TABLE kept");
    app.sandbox.run(&["guard", "--", "true"]);
    let all = snapshots(&app);
    assert_eq!(all.len(), 3);
    assert!(!all[0]["tags"].to_string().contains("suspect"), "{all:#?}");
}

#[test]
fn an_encrypted_snapshot_is_compared_only_with_its_key() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["keygen", "--output", "key.txt"]);
    let text = std::fs::read_to_string(sandbox.path("key.txt")).unwrap();
    let public = text.split_whitespace().find(|word| word.starts_with("age1")).unwrap().to_owned();
    let config = format!(
        "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n\
         [encryption]\nrecipients = [\"{public}\"]\n"
    );
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    open(sandbox.path("app.db")).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)").unwrap();
    super::helpers::create_store(&sandbox);
    // Without the key, nothing is known of the tables.
    sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(sandbox.ids().len(), 2, "one before the program, and one after it");
    sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(sandbox.ids().len(), 3);
    let run = sandbox.ok(&["guard", "--identity", "key.txt", "--", "true"]);
    assert!(run.stderr().contains("nothing changed since app-"), "{}", run.transcript());
    assert_eq!(sandbox.ids().len(), 3);
}

#[test]
fn a_failed_snapshot_is_reported_once_and_tried_again() {
    let web = Web::answering(&[answer("200 OK", "text/plain", "ok")]);
    let app = App::new(&format!("[notify]\non = \"always\"\nwebhook = \"{}\"\n", web.url("/hook")));
    let running = start(&app.sandbox, &["--every", "1s"]);
    wait_for_lines(&app.sandbox, "saved app-", 1);
    assert_eq!(web.requests().len(), 0, "a success while the program runs sends no notice");
    std::fs::rename(app.sandbox.path("backups"), app.sandbox.path("away")).unwrap();
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    wait_for_lines(&app.sandbox, "the snapshot while the program runs was not taken", 1);
    std::fs::rename(app.sandbox.path("away"), app.sandbox.path("backups")).unwrap();
    wait_for_lines(&app.sandbox, "saved app-", 2);
    wait_for_lines(&app.sandbox, "works again", 1);
    stop(running);
    let events: Vec<Value> =
        web.requests().iter().map(|seen| serde_json::from_str::<Value>(&seen.body).unwrap()["event"].clone()).collect();
    assert_eq!((&events[0], events.last()), (&"failure".into(), Some(&"success".into())), "{events:?}");
}

#[test]
fn a_database_that_does_not_exist_yet_is_saved_when_it_does() {
    let app = App::new("");
    app.remove_database();
    let running = start(&app.sandbox, &["--every", "1s"]);
    wait_for_lines(&app.sandbox, "app does not exist yet", 1);
    app.create_database();
    wait_for_lines(&app.sandbox, "saved app-", 1);
    // Another database takes its place.
    app.sql(&format!("VACUUM INTO '{}'", app.sandbox.path("app/new.db").display()));
    open(app.sandbox.path("app/new.db")).execute_batch("INSERT INTO accounts (name) VALUES ('new')").unwrap();
    std::fs::rename(app.sandbox.path("app/new.db"), app.sandbox.path("app/app.db")).unwrap();
    wait_for_lines(&app.sandbox, "saved app-", 2);
    stop(running);
    assert!(!log(&app.sandbox).contains("ERROR"), "{}", log(&app.sandbox));
    assert_eq!(snapshots(&app)[0]["rows"], 241);
}

#[test]
fn the_end_of_the_program_stops_a_snapshot_in_progress() {
    let app = App::new("");
    // Rows that are slow to hash and to compress.
    app.sql(
        "CREATE TABLE blobs (b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
         INSERT INTO blobs SELECT randomblob(1000000) FROM n",
    );
    let running = start(&app.sandbox, &["--every", "1s", "--grace", "60s"]);
    let start = Instant::now();
    while !std::fs::read_dir(app.sandbox.path("backups/app")).is_ok_and(|mut folder| folder.next().is_some()) {
        assert!(start.elapsed() < Duration::from_secs(40), "{}", log(&app.sandbox));
        std::thread::sleep(Duration::from_millis(2));
    }
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    stop(running);
    assert!(!log(&app.sandbox).contains("ERROR"), "{}", log(&app.sandbox));
    let newest = &snapshots(&app)[0];
    assert_eq!(newest["rows"], 301, "{}", log(&app.sandbox));
    app.sandbox.ok(&["verify", newest["id"].as_str().unwrap()]);
}

#[test]
fn data_that_is_in_no_store_is_saved_before_the_program_starts() {
    let app = App::new("");
    let run = app.sandbox.ok(&["guard", "--", "sh", "-c", "ls backups/app >seen"]);
    let seen = std::fs::read_to_string(app.sandbox.path("seen")).unwrap();
    assert!(seen.contains(".json"), "{seen}\n{}", run.transcript());
    assert!(!run.stderr().contains("there was data"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1, "nothing has changed since");
    // Once there is one, the program does not wait for the next.
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    app.sandbox.ok(&["guard", "--", "sh", "-c", "ls backups/app/*.json | wc -l >seen"]);
    assert_eq!(std::fs::read_to_string(app.sandbox.path("seen")).unwrap().trim(), "1");
    // Without snapshots in the config, none is taken.
    let app = App::new("[guard]\nsnapshot_at_end = false\n");
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(app.ids(), Vec::<String>::new());
    // A first start without a database does not look like a loss either.
    let app = App::new("");
    app.remove_database();
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    assert!(!run.stderr().contains("there was data"), "{}", run.transcript());
}

#[test]
fn a_first_snapshot_that_takes_long_does_not_delay_the_program_and_has_the_rows_from_before_it() {
    // The highest level takes several seconds for these rows on any machine.
    let app = App::new("[guard]\nstore_wait = \"1s\"\n");
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    std::fs::write(app.sandbox.path("lifeboat.toml"), format!("compression = \"zstd:19\"\n{config}")).unwrap();
    app.sql(
        "CREATE TABLE blobs (b); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
         INSERT INTO blobs SELECT randomblob(1000000) FROM n",
    );
    let running = start(&app.sandbox, &[]);
    assert!(log(&app.sandbox).contains("the first snapshot takes longer than"), "{}", log(&app.sandbox));
    wait_for_lines(&app.sandbox, "saved app-", 1);
    assert_eq!(snapshots(&app)[0]["rows"], 280);
    stop(running);
}
