//! `guard`: a container whose folder is thrown away at every deploy, and loses nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::helpers::App;
use crate::support::{Running, Sandbox, have, open};

/// A program as an app has it: makes its tables where they are not there, adds a row, says so, and waits for its end.
const PROGRAM: &str =
    "sqlite3 app/app.db 'CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY); INSERT INTO runs DEFAULT VALUES'
touch ready
trap 'exit 7' TERM
while :; do sleep 0.05; done";

fn container() -> Sandbox {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("app")).unwrap();
    let config = "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app/app.db\"\n\
                  [guard]\ngrace = \"20s\"\n";
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    super::helpers::make_store(&sandbox);
    sandbox
}

fn start(sandbox: &Sandbox) -> Running {
    let _ = std::fs::remove_file(sandbox.path("ready"));
    let running = sandbox.start(&["guard", "--", "sh", "-c", PROGRAM]);
    wait_for(&sandbox.path("ready"));
    running
}

#[track_caller]
fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(30), "{} did not come", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rows(sandbox: &Sandbox) -> i64 {
    open(sandbox.path("app/app.db")).query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_container_that_is_thrown_away_between_two_runs_loses_nothing() {
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
        // The container's folder goes with the container.
        std::fs::remove_dir_all(sandbox.path("app")).unwrap();
        if deploy == 2 {
            // An image may bring an empty database along.
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
fn a_program_that_ends_by_itself_is_saved_too_and_its_code_is_ours() {
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
fn a_store_that_is_out_of_reach_keeps_an_empty_app_from_starting_and_a_full_one_not() {
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
fn a_preflight_that_fails_keeps_the_program_from_starting() {
    let app = App::new("");
    app.config("[preflight]\nmounts = [\"./app\"]\n");
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3);
    assert!(run.stderr().contains("not a mount point"), "{}", run.transcript());
    assert!(!app.sandbox.path("started").exists());
}

#[test]
fn a_program_that_does_not_end_leaves_time_for_the_last_snapshot() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = container();
    let stubborn = "sqlite3 app/app.db 'CREATE TABLE a (b); INSERT INTO a VALUES (1)'; trap '' TERM; touch ready; while :; do sleep 0.05; done";
    let running = sandbox.start(&["guard", "--grace", "6s", "--", "sh", "-c", stubborn]);
    wait_for(&sandbox.path("ready"));
    let begun = Instant::now();
    running.signal(Signal::TERM);
    let run = running.finish().code(137);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}\n{}", begun.elapsed(), run.transcript());
    assert!(run.stderr().contains("was killed") && run.stderr().contains("saved app-"), "{}", run.transcript());
}
