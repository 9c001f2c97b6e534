//! `guard`: the data of a container survives although its folder is removed at every deployment.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::helpers::App;
use crate::support::{Running, Sandbox, have, open};

/// The program of an app: it creates its table if it does not exist, inserts a row, creates the file `ready`, and waits
/// for SIGTERM.
const PROGRAM: &str =
    "sqlite3 app/app.db 'CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY); INSERT INTO runs DEFAULT VALUES'
trap 'exit 7' TERM
touch ready
while :; do sleep 0.05; done";

/// Creates a sandbox with an empty folder for the app, a config and a store.
fn container() -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("app")).unwrap();
    let config = "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app/app.db\"\n\
                  [guard]\ngrace = \"20s\"\n";
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    super::helpers::create_store(&sandbox);
    sandbox
}

/// Starts the program under `guard` and waits until it is ready.
fn start(sandbox: &Sandbox) -> Running {
    let _ = std::fs::remove_file(sandbox.path("ready"));
    let running = sandbox.start(&["guard", "--", "sh", "-c", PROGRAM]);
    wait_for(&sandbox.path("ready"));
    running
}

#[track_caller]
pub(crate) fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "{} was not created", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rows(sandbox: &Sandbox) -> i64 {
    open(sandbox.path("app/app.db")).query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
}

#[test]
fn no_row_is_lost_if_the_container_is_removed_after_each_run() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = container();
    for deploy in 1..=3 {
        let running = start(&sandbox);
        running.signal(Signal::TERM);
        let run = running.finish().code(7);
        assert!(run.stderr().contains("saved app-"), "{}", run.transcript());
        assert_eq!(rows(&sandbox), deploy);
        // The folder is removed with the container.
        std::fs::remove_dir_all(sandbox.path("app")).unwrap();
        if deploy == 2 {
            // An image may contain an empty database.
            std::fs::create_dir(sandbox.path("app")).unwrap();
            open(sandbox.path("app/app.db")).execute_batch("CREATE TABLE runs (id INTEGER PRIMARY KEY)").unwrap();
        }
    }
    let list = sandbox.json(&["list"]);
    let full = list["snapshots"].as_array().unwrap().iter().filter(|snapshot| snapshot["kind"] == "full").count();
    assert_eq!(full, 3);
    assert_eq!(list["snapshots"][0]["rows"], 3);
}

#[test]
fn after_the_program_has_ended_a_snapshot_is_taken_and_its_exit_code_returned() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = container();
    let run = sandbox.run(&[
        "guard",
        "--",
        "sh",
        "-c",
        "sqlite3 app/app.db 'CREATE TABLE a (b); INSERT INTO a VALUES (1)'; echo out; exit 9",
    ]);
    assert_eq!((run.exit(), run.stdout().as_str()), (9, "out\n"), "{}", run.transcript());
    assert_eq!(sandbox.json(&["list"])["snapshots"].as_array().unwrap().len(), 1);
    sandbox.run(&["guard", "--", "/nowhere/at/all"]).code(127);
}

#[test]
fn a_missing_store_prevents_the_start_only_if_the_database_is_missing() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = container();
    start(&sandbox).signal(Signal::TERM);
    let running = start(&sandbox);
    running.signal(Signal::TERM);
    running.finish().code(7);
    std::fs::rename(sandbox.path("backups"), sandbox.path("gone")).unwrap();
    let run = sandbox.run(&["guard", "--", "true"]).code(0);
    assert!(run.stderr().contains("the last snapshot was not taken"), "{}", run.transcript());
    std::fs::remove_dir_all(sandbox.path("app")).unwrap();
    let run = sandbox.run(&["guard", "--", "touch", "started"]).code(5);
    assert!(run.stderr().contains("was not started"), "{}", run.transcript());
    assert!(!sandbox.path("started").exists());
}

#[test]
fn a_failed_preflight_prevents_the_start_of_the_program() {
    let app = App::new("");
    app.write_config("[preflight]\nmounts = [\"./app\"]\n");
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
    assert!(run.stderr().contains("not a mount point"), "{}", run.transcript());
    assert!(!app.sandbox.path("started").exists());
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_in_time_for_the_last_snapshot() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = container();
    let script = "sqlite3 app/app.db 'CREATE TABLE a (b); INSERT INTO a VALUES (1)'; trap '' TERM; touch ready; while :; do sleep 0.05; done";
    let running = sandbox.start(&["guard", "--grace", "6s", "--", "sh", "-c", script]);
    wait_for(&sandbox.path("ready"));
    let start = Instant::now();
    running.signal(Signal::TERM);
    let run = running.finish().code(137);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}\n{}", start.elapsed(), run.transcript());
    assert!(run.stderr().contains("was killed") && run.stderr().contains("saved app-"), "{}", run.transcript());
}
