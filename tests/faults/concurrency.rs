//! Snapshots and restores while other processes use the database: writers, readers, checkpointers, and other runs of
//! the program. Every transaction of a writer keeps the invariant of [`bank`](crate::bank), so a mixture of two states
//! breaks it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, ErrorCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bank::{create_bank, read_bank, require_invariant, transfer};
use crate::strace::{can_trace, start_with_effects};
use crate::support::{Sandbox, child_test, open};

/// The time after which a test fails because something hangs.
const TIMEOUT: Duration = Duration::from_secs(120);

// ---------------------------------------------------------------- other processes

/// The task of a helper process.
#[derive(Serialize, Deserialize, Clone, Debug)]
struct Order {
    /// `writer`, `reader` or `checkpointer`.
    role: String,
    database: PathBuf,
    busy_ms: u64,
    /// The pause between two transactions.
    pause_ms: u64,
    /// A file that the helper creates after its first transaction.
    ready: PathBuf,
    /// A file whose existence makes the helper end.
    stop: PathBuf,
    /// The file of the [`Report`], which the helper writes at its end.
    report: PathBuf,
}

/// The results of a helper process.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
struct Report {
    /// The number of successful transactions.
    successes: u64,
    /// The number of attempts that failed with "busy" or "locked".
    refused: u64,
    /// The longest time from the first attempt of a transaction to its end.
    longest_seconds: f64,
    /// The highest counter of a committed transaction, by generation.
    acknowledged: BTreeMap<String, i64>,
    /// The generations in the order in which the helper has read them.
    generations: Vec<String>,
    /// Broken invariants and unexpected errors.
    wrong: Vec<String>,
}

impl Report {
    fn add_generation(&mut self, generation: String) {
        if self.generations.last() != Some(&generation) {
            self.generations.push(generation);
        }
    }

    /// Counts an error of SQLite.
    fn add_error(&mut self, error: &rusqlite::Error) {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => self.refused += 1,
            _ => self.wrong.push(format!("{error:?}")),
        }
    }
}

/// The code of the helper processes. The tests start this test program again, with the task in an environment variable.
#[test]
#[ignore = "it is the other process of the tests here"]
fn child_uses_the_database() {
    let order = std::env::var("LIFEBOAT_TEST_ORDER").unwrap();
    let order: Order = serde_json::from_str(&order).unwrap();
    let db = Connection::open(&order.database).unwrap();
    db.busy_timeout(Duration::from_millis(order.busy_ms)).unwrap();
    // This is quicker but less durable. The durability of this process is not tested.
    db.execute_batch("PRAGMA synchronous = NORMAL").unwrap();
    let mut report = Report::default();
    let mut step = 0;
    let deadline = Instant::now() + TIMEOUT;
    while !order.stop.exists() && Instant::now() < deadline {
        let clock = Instant::now();
        match order.role.as_str() {
            "writer" => loop {
                step += 1;
                match transfer(&db, step) {
                    Ok((generation, counter)) => {
                        report.successes += 1;
                        report.acknowledged.insert(generation.clone(), counter);
                        report.add_generation(generation);
                        break;
                    }
                    Err(error) => report.add_error(&error),
                }
                if order.stop.exists() || !report.wrong.is_empty() {
                    break;
                }
            },
            "reader" => match read_bank(&db) {
                Ok(Ok((generation, _))) => {
                    report.successes += 1;
                    report.add_generation(generation);
                }
                Ok(Err(problem)) => report.wrong.push(problem),
                Err(error) => report.add_error(&error),
            },
            "checkpointer" => {
                step += 1;
                let mode = if step % 2 == 0 { "TRUNCATE" } else { "RESTART" };
                match db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
                    Ok(()) => report.successes += 1,
                    Err(error) => report.add_error(&error),
                }
            }
            other => panic!("unknown role: {other}"),
        }
        report.longest_seconds = report.longest_seconds.max(clock.elapsed().as_secs_f64());
        if report.successes > 0 && !order.ready.exists() {
            fs::write(&order.ready, b"").unwrap();
        }
        if report.wrong.len() > 5 {
            break;
        }
        if order.pause_ms > 0 {
            std::thread::sleep(Duration::from_millis(order.pause_ms));
        }
    }
    let part = order.report.with_extension("part");
    fs::write(&part, serde_json::to_vec_pretty(&report).unwrap()).unwrap();
    fs::rename(part, &order.report).unwrap();
}

/// A helper process, which is killed when this value is dropped.
struct Helper {
    child: Child,
    order: Order,
}

impl Helper {
    fn start(sandbox: &Sandbox, role: &str, database: &Path, busy_ms: u64, pause_ms: u64) -> Self {
        let folder = tempfile::Builder::new().prefix("helper-").tempdir_in(sandbox.root()).unwrap().keep();
        let order = Order {
            role: role.to_owned(),
            database: database.to_owned(),
            busy_ms,
            pause_ms,
            ready: folder.join("ready"),
            stop: folder.join("stop"),
            report: folder.join("report"),
        };
        let child = child_test(module_path!(), "child_uses_the_database")
            .env("LIFEBOAT_TEST_ORDER", serde_json::to_string(&order).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Helper { child, order }
    }

    /// Waits until the helper has finished its first transaction.
    fn wait_ready(mut self) -> Self {
        let deadline = Instant::now() + TIMEOUT;
        while !self.order.ready.exists() {
            assert!(Instant::now() < deadline, "{:?} does not start", self.order);
            assert!(self.child.try_wait().unwrap().is_none(), "{:?} has ended", self.order);
            std::thread::sleep(Duration::from_millis(1));
        }
        self
    }

    /// Makes the helper end and reads its report.
    fn stop(mut self) -> Report {
        fs::write(&self.order.stop, b"").unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{:?} does not end", self.order);
            std::thread::sleep(Duration::from_millis(1));
        }
        let report = fs::read(&self.order.report);
        let report = report.unwrap_or_else(|error| panic!("{:?} wrote no report: {error}", self.order));
        serde_json::from_slice(&report).unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the program and leaves it running.
fn start(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    let mut command = sandbox.command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Describes a run for a failure message.
fn transcript(context: &str, output: &Output) -> String {
    format!(
        "{context}\n{}\n-- stdout\n{}-- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Restores a snapshot to a new file and requires the invariant in it. Returns generation and counter.
#[track_caller]
fn require_consistent(sandbox: &Sandbox, id: &str) -> (String, i64) {
    let copy = format!("{id}.db");
    sandbox.ok(&["restore", id, "--store", "backups", "--to", &copy]);
    // The transcript of the run is not used, because it lists files that other processes remove at the same time.
    let found = require_invariant(&sandbox.path(&copy), id);
    fs::remove_file(sandbox.path(&copy)).unwrap();
    found
}

fn id_of(document: &Value) -> String {
    document["snapshots"][0]["id"].as_str().unwrap().to_owned()
}

// ---------------------------------------------------------------- snapshots of a database in use

#[test]
fn snapshot_of_a_wal_database_under_load_is_consistent_and_never_blocks_the_writer() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 6000);
    // The writer has no busy timeout: if the snapshot held a lock, an attempt would fail at once.
    let writer = Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 0, 0).wait_ready();
    let mut counters = Vec::new();
    for codec in ["gzip", "zstd", "gzip:1", "gzip", "zstd", "gzip:9", "gzip", "gzip"] {
        let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--compression", codec, "-j", "2"]);
        assert_eq!(document["snapshots"][0]["sqlite"]["locked_seconds"].as_f64(), Some(0.0));
        counters.push(require_consistent(&sandbox, &id_of(&document)).1);
    }
    let report = writer.stop();
    assert!(report.wrong.is_empty(), "{report:?}");
    assert_eq!(report.refused, 0, "the snapshot blocked the writer: {report:?}");
    assert!(counters.is_sorted_by(|a, b| a < b), "{counters:?}");
    assert_eq!(require_invariant(&sandbox.path("app.db"), "the source").1, report.acknowledged["a"]);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
}

#[test]
fn snapshot_of_a_rollback_journal_database_under_load_is_consistent_and_locks_no_longer_than_reported() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "delete", 4096, "a", 40_000);
    let writer = Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 30_000, 0).wait_ready();
    let (mut counters, mut locked, mut shortest) = (Vec::new(), 0.0f64, f64::MAX);
    for codec in ["gzip:9", "zstd:15", "gzip:9"] {
        let clock = Instant::now();
        let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--compression", codec, "-j", "1"]);
        shortest = shortest.min(clock.elapsed().as_secs_f64());
        locked = locked.max(document["snapshots"][0]["sqlite"]["locked_seconds"].as_f64().unwrap());
        counters.push(require_consistent(&sandbox, &id_of(&document)).1);
    }
    let report = writer.stop();
    assert!(report.wrong.is_empty(), "{report:?}");
    assert_eq!(report.refused, 0, "{report:?}");
    assert!(locked > 0.0);
    // The busy handler of SQLite sleeps up to 100 ms at a time, and the machine may be slow.
    let bound = locked + 0.5;
    assert!(
        report.longest_seconds <= bound,
        "a transaction took {} s, but the reported lock time is {locked} s (the quickest snapshot took {shortest} s)",
        report.longest_seconds
    );
    // The lock is released after the copy. The compression, which takes longer, does not need it.
    assert!(locked < 0.9 * shortest, "the lock was held during the compression: {locked} s of {shortest} s");
    assert!(counters.is_sorted_by(|a, b| a < b), "{counters:?}");
    assert_eq!(require_invariant(&sandbox.path("app.db"), "the source").1, report.acknowledged["a"]);
}

#[test]
fn repeated_snapshots_of_a_rollback_journal_database_under_load_are_consistent() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "delete", 1024, "a", 1000);
    // Both writers pause, because SQLite's locks are not fair: a writer without pauses would block the other one.
    let writers =
        [5, 11].map(|pause| Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 30_000, pause).wait_ready());
    for _ in 0..10 {
        let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--compression", "zstd"]);
        require_consistent(&sandbox, &id_of(&document));
    }
    for writer in writers {
        let report = writer.stop();
        assert!(report.wrong.is_empty() && report.refused == 0, "{report:?}");
    }
}

#[test]
fn snapshot_is_consistent_while_checkpoints_empty_the_wal() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 4000);
    let writer = Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 20_000, 0).wait_ready();
    let checkpointers =
        [5, 30].map(|pause| Helper::start(&sandbox, "checkpointer", &sandbox.path("app.db"), 20, pause).wait_ready());
    let mut counters = Vec::new();
    for _ in 0..12 {
        let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--compression", "zstd", "-j", "2"]);
        counters.push(require_consistent(&sandbox, &id_of(&document)).1);
    }
    for checkpointer in checkpointers {
        let report = checkpointer.stop();
        assert!(report.wrong.is_empty() && report.successes > 0, "{report:?}");
    }
    let report = writer.stop();
    assert!(report.wrong.is_empty(), "{report:?}");
    // A checkpointer that waits for a reader also blocks writers, so not every snapshot contains a new commit.
    assert!(counters.is_sorted() && counters[0] < counters[11], "{counters:?}");
    assert_eq!(require_invariant(&sandbox.path("app.db"), "the source").1, report.acknowledged["a"]);
}

/// A source with checkpointers that hold their lock nearly all the time while they wait for readers to end.
fn source_with_busy_checkpointers() -> (Sandbox, [Helper; 3]) {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 4000);
    let database = sandbox.path("app.db");
    let helpers = [("writer", 20_000, 0), ("checkpointer", 100, 0), ("checkpointer", 100, 3)]
        .map(|(role, busy_ms, pause_ms)| Helper::start(&sandbox, role, &database, busy_ms, pause_ms).wait_ready());
    (sandbox, helpers)
}

#[test]
fn snapshot_completes_beside_a_checkpointer_that_never_pauses() {
    let (sandbox, helpers) = source_with_busy_checkpointers();
    for round in 0..6 {
        let mut child = start(&sandbox, &["snapshot", "app.db", "--store", "backups", "--compression", "zstd"]);
        let clock = Instant::now();
        while child.try_wait().unwrap().is_none() && clock.elapsed() < Duration::from_secs(25) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let is_stuck = child.try_wait().unwrap().is_none();
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let report = transcript(&format!("round {round}, after {:?}", clock.elapsed()), &output);
        assert!(!is_stuck, "the snapshot and the checkpointer wait for each other: {report}");
        assert!(output.status.success(), "{report}");
    }
    helpers.into_iter().map(Helper::stop).for_each(|report| assert!(report.wrong.is_empty(), "{report:?}"));
    for id in sandbox.ids() {
        require_consistent(&sandbox, &id);
    }
}

#[test]
fn snapshot_that_waits_for_a_checkpointer_can_be_interrupted() {
    let (sandbox, _helpers) = source_with_busy_checkpointers();
    for round in 0..6 {
        let mut child = start(&sandbox, &["snapshot", "app.db", "--store", "backups", "--compression", "zstd"]);
        let clock = Instant::now();
        while child.try_wait().unwrap().is_none() && clock.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM);
        while child.try_wait().unwrap().is_none() && clock.elapsed() < Duration::from_secs(12) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let is_stuck = child.try_wait().unwrap().is_none();
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        let report = transcript(&format!("round {round}, after {:?}", clock.elapsed()), &output);
        assert!(!is_stuck, "the snapshot still runs ten seconds after SIGTERM: {report}");
        assert!(matches!(output.status.code(), Some(0 | 130)), "{report}");
    }
}

#[test]
fn snapshot_that_starts_together_with_the_first_writer_of_a_wal_database_is_consistent() {
    let sandbox = Sandbox::new();
    for round in 0..12 {
        let database = sandbox.path(format!("app{round}.db"));
        create_bank(&database, "wal", 4096, "a", 500);
        assert!(!sandbox.path(format!("app{round}.db-wal")).exists());
        let writer = Helper::start(&sandbox, "writer", &database, 20_000, 0);
        // In every other round the writer starts a little earlier.
        let writer = if round % 2 == 0 { writer } else { writer.wait_ready() };
        let name = format!("app{round}.db");
        let document = sandbox.json(&["snapshot", &name, "--store", "backups", "--compression", "zstd"]);
        require_consistent(&sandbox, &id_of(&document));
        let report = writer.wait_ready().stop();
        assert!(report.wrong.is_empty(), "round {round}: {report:?}");
        assert_eq!(require_invariant(&database, "the source").1, report.acknowledged["a"]);
    }
}

// ---------------------------------------------------------------- restores over a database in use

/// Takes a snapshot of generation `new` and creates a target `app.db` of generation `old`. Returns the snapshot's id.
fn set_up_replacement(sandbox: &Sandbox, journal: &str, page_bytes: u32) -> String {
    create_bank(&sandbox.path("source.db"), "wal", 4096, "new", 3000);
    create_bank(&sandbox.path("app.db"), journal, page_bytes, "old", 4000);
    let document = sandbox.json(&["snapshot", "source.db", "--name", "app", "--store", "backups"]);
    id_of(&document)
}

fn readers_see_old_then_new(journal: &str, page_bytes: u32) {
    let sandbox = Sandbox::new();
    let id = set_up_replacement(&sandbox, journal, page_bytes);
    let database = sandbox.path("app.db");
    let readers: Vec<Helper> =
        [0, 1].map(|pause| Helper::start(&sandbox, "reader", &database, 20_000, pause).wait_ready()).into();
    let run = sandbox.run(&["restore", &id, "--store", "backups", "--to", "app.db", "--replace"]);
    // This reader starts after the restore.
    let late = Helper::start(&sandbox, "reader", &sandbox.path("app.db"), 20_000, 0).wait_ready().stop();
    let expected = if run.exit() == 0 { "new" } else { "old" };
    let deadline = Instant::now() + Duration::from_secs(20);
    assert_eq!(late.generations, [expected], "{}", run.transcript());
    while Instant::now() < deadline && open(sandbox.path("app.db")).query_row("SELECT 1", [], |_| Ok(())).is_err() {}
    // Each reader gets the time for at least one more transaction before it is stopped.
    std::thread::sleep(Duration::from_millis(50));
    for reader in readers {
        let report = reader.stop();
        assert!(report.wrong.is_empty(), "{report:?}\n{}", run.transcript());
        let allowed: &[&str] = if run.exit() == 0 { &["old", "new"] } else { &["old"] };
        assert_eq!(report.generations, allowed, "{report:?}\n{}", run.transcript());
    }
    assert_eq!(require_invariant(&sandbox.path("app.db"), &run.transcript()).0, expected);
    assert_eq!(run.exit(), 0, "{}", run.transcript());
    // The safety snapshot contains the old generation.
    let document = sandbox.json(&["list", "--store", "backups"]);
    let safety =
        document["snapshots"].as_array().unwrap().iter().find(|snapshot| snapshot["kind"] == "safety").unwrap();
    assert_eq!(require_consistent(&sandbox, safety["id"].as_str().unwrap()).0, "old");
}

#[test]
fn readers_of_a_wal_database_see_old_then_new_while_it_is_replaced() {
    readers_see_old_then_new("wal", 4096);
}

#[test]
fn readers_of_a_rollback_journal_database_see_old_then_new_while_it_is_replaced() {
    readers_see_old_then_new("delete", 4096);
}

#[test]
fn readers_of_a_wal_database_with_another_page_size_see_old_then_new_while_it_is_replaced() {
    readers_see_old_then_new("wal", 8192);
}

#[test]
fn readers_of_a_rollback_journal_database_with_another_page_size_see_old_then_new_while_it_is_replaced() {
    readers_see_old_then_new("delete", 1024);
}

/// Restores over a database under load, and requires that every committed transaction is in the database or in the
/// safety snapshot.
fn require_no_lost_commit(journal: &str, page_bytes: u32, pauses_ms: &[u64]) {
    let (mut replaced, mut refused) = (0, 0);
    for (round, pause_ms) in pauses_ms.iter().enumerate() {
        let sandbox = Sandbox::new();
        let id = set_up_replacement(&sandbox, journal, page_bytes);
        let writer = Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 20_000, *pause_ms).wait_ready();
        let reader = Helper::start(&sandbox, "reader", &sandbox.path("app.db"), 20_000, 1).wait_ready();
        let run = sandbox.run(&["restore", &id, "--store", "backups", "--to", "app.db", "--replace", "--json"]);
        let (writer, reader) = (writer.stop(), reader.stop());
        let context = format!("round {round}: {writer:?}\n{reader:?}\n{}", run.transcript());
        assert!(writer.wrong.is_empty() && reader.wrong.is_empty(), "{context}");
        let (generation, counter) = require_invariant(&sandbox.path("app.db"), &context);
        if run.exit() == 0 {
            replaced += 1;
            assert_eq!(generation, "new", "{context}");
            assert_eq!(counter, writer.acknowledged.get("new").copied().unwrap_or(0), "{context}");
            let safety = run.json()["safety_snapshot"].as_str().unwrap_or_else(|| panic!("{context}")).to_owned();
            let (generation, counter) = require_consistent(&sandbox, &safety);
            assert_eq!((generation.as_str(), counter), ("old", writer.acknowledged["old"]), "lost commit: {context}");
            assert!(writer.generations == ["old", "new"] || writer.generations == ["old"], "{context}");
        } else {
            refused += 1;
            assert!(matches!(run.exit(), 1 | 5), "{context}");
            assert_eq!((generation.as_str(), counter), ("old", writer.acknowledged["old"]), "{context}");
            assert_eq!(writer.generations, ["old"], "{context}");
            assert_eq!(reader.generations, ["old"], "{context}");
            assert!(run.stderr().contains("nothing was changed") || run.exit() == 5, "{context}");
        }
        sandbox.ok(&["verify", "--all", "--store", "backups"]);
    }
    eprintln!("{journal}, pages of {page_bytes}: {replaced} replaced, {refused} refused");
}

#[test]
fn commit_to_a_wal_database_is_never_lost_while_it_is_replaced() {
    require_no_lost_commit("wal", 4096, &[0, 0, 5, 20, 50, 100, 200, 400]);
}

#[test]
fn commit_to_a_rollback_journal_database_is_never_lost_while_it_is_replaced() {
    require_no_lost_commit("delete", 4096, &[0, 5, 20, 50, 100, 200, 400]);
}

#[test]
fn commit_to_a_database_with_another_page_size_is_never_lost_while_it_is_replaced() {
    require_no_lost_commit("wal", 1024, &[0, 50, 200, 400]);
    require_no_lost_commit("delete", 8192, &[0, 50, 200, 400]);
}

#[test]
fn commit_is_never_lost_while_one_table_is_restored() {
    for pause_ms in [0, 20, 100, 300] {
        let sandbox = Sandbox::new();
        let id = set_up_replacement(&sandbox, "wal", 4096);
        let writer = Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 20_000, pause_ms).wait_ready();
        let run =
            sandbox.run(&["restore", &id, "--store", "backups", "--to", "app.db", "--replace", "--table", "ballast"]);
        let report = writer.stop();
        let context = format!("{report:?}\n{}", run.transcript());
        assert!(report.wrong.is_empty(), "{context}");
        // The writer uses other tables than the restored one. They must keep all its commits.
        let (generation, counter) = require_invariant(&sandbox.path("app.db"), &context);
        assert_eq!((generation.as_str(), counter), ("old", report.acknowledged["old"]), "{context}");
        let ballast = crate::support::count(sandbox.path("app.db"), "ballast");
        assert_eq!(ballast, if run.exit() == 0 { 3000 } else { 4000 }, "{context}");
    }
}

#[test]
fn long_reader_of_a_wal_database_keeps_the_old_content_while_it_is_replaced() {
    let sandbox = Sandbox::new();
    let id = set_up_replacement(&sandbox, "wal", 4096);
    let reader = open(sandbox.path("app.db"));
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(read_bank(&reader).unwrap().unwrap().0, "old");
    let run = sandbox.ok(&["restore", &id, "--store", "backups", "--to", "app.db", "--replace"]);
    assert_eq!(read_bank(&reader).unwrap().unwrap().0, "old", "{}", run.transcript());
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(read_bank(&reader).unwrap().unwrap().0, "new", "{}", run.transcript());
    assert_eq!(require_invariant(&sandbox.path("app.db"), &run.transcript()).0, "new");
}

#[test]
fn held_lock_on_the_target_refuses_the_restore_with_exit_5_and_nothing_changed() {
    // Each restore waits 30 seconds for the lock, so all cases run at the same time.
    let cases = [
        ("wal", "BEGIN IMMEDIATE"),
        ("delete", "BEGIN IMMEDIATE"),
        ("delete", "BEGIN; SELECT count(*) FROM log"),
        ("delete", "BEGIN EXCLUSIVE"),
    ];
    let mut running = Vec::new();
    for (journal, hold) in cases {
        let sandbox = Sandbox::new();
        let id = set_up_replacement(&sandbox, journal, 4096);
        let before = fs::read(sandbox.path("app.db")).unwrap();
        let holder = open(sandbox.path("app.db"));
        holder.execute_batch(hold).unwrap();
        let child = start(&sandbox, &["restore", &id, "--store", "backups", "--to", "app.db", "--replace"]);
        running.push((sandbox, holder, child, before, Instant::now(), format!("{journal}: {hold}")));
    }
    for (sandbox, holder, child, before, clock, context) in running {
        let output = child.wait_with_output().unwrap();
        let elapsed = clock.elapsed();
        let report = transcript(&context, &output);
        assert_eq!(output.status.code(), Some(5), "{report}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("holds a lock"), "{report}");
        assert!(elapsed < Duration::from_secs(75), "{elapsed:?}: {report}");
        holder.execute_batch("COMMIT").unwrap();
        drop(holder);
        assert!(fs::read(sandbox.path("app.db")).unwrap() == before, "{report}");
        assert_eq!(require_invariant(&sandbox.path("app.db"), &report).0, "old");
        assert_eq!(fs::read_dir(sandbox.path("scratch")).unwrap().count(), 0, "{report}");
    }
}

// ---------------------------------------------------------------- several runs of the program

#[test]
fn two_snapshots_at_once_are_both_listed_and_complete() {
    for journal in ["wal", "delete"] {
        let sandbox = Sandbox::new();
        create_bank(&sandbox.path("app.db"), journal, 4096, "a", 2000);
        for round in 1..=10 {
            let running = [(); 2].map(|()| start(&sandbox, &["snapshot", "app.db", "--store", "backups", "--json"]));
            let mut ids: Vec<String> = running
                .into_iter()
                .map(|child| {
                    let output = child.wait_with_output().unwrap();
                    assert!(output.status.success(), "{}", transcript(&format!("{journal}, round {round}"), &output));
                    id_of(&serde_json::from_slice(&output.stdout).unwrap())
                })
                .collect();
            ids.dedup();
            assert_eq!(ids.len(), 2);
            let listed = sandbox.ids();
            assert_eq!(listed.len(), 2 * round);
            assert!(ids.iter().all(|id| listed.contains(id)), "{ids:?} {listed:?}");
        }
        sandbox.ok(&["verify", "--all", "--store", "backups"]);
        for id in sandbox.ids().iter().take(3) {
            require_consistent(&sandbox, id);
        }
        assert_eq!(fs::read_dir(sandbox.path("scratch")).unwrap().count(), 0);
    }
}

#[test]
fn scratch_of_a_snapshot_that_has_just_begun_is_not_cleared_by_another() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "delete", 4096, "a", 500);
    sandbox.snapshot("app.db");
    // The first snapshot is delayed after it has created its marker file and before it locks that file.
    let snapshot = ["snapshot", "app.db", "--store", "backups"];
    let mut slow = start_with_effects(&sandbox, &["flock:delay_enter=1500000:when=1"], &[], &snapshot);
    let deadline = Instant::now() + TIMEOUT;
    let is_marked =
        || fs::read_dir(sandbox.path("scratch")).unwrap().flatten().any(|folder| folder.path().join("making").exists());
    while !is_marked() {
        assert!(Instant::now() < deadline && !slow.has_ended(), "the scratch folder was not seen");
        std::thread::yield_now();
    }
    let quick = sandbox.run(&snapshot);
    // It fails if its scratch folder was cleared.
    slow.finish().code(0);
    quick.code(0);
}

#[test]
fn of_two_restores_at_once_to_one_new_path_exactly_one_succeeds() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 3000);
    sandbox.snapshot("app.db");
    for round in 0..10 {
        let running =
            [(); 2].map(|()| start(&sandbox, &["restore", "latest", "--store", "backups", "--to", "copy.db"]));
        let outputs = running.map(|child| child.wait_with_output().unwrap());
        let context = format!("round {round}: {}{}", transcript("one", &outputs[0]), transcript("two", &outputs[1]));
        let mut codes = outputs.map(|output| output.status.code().unwrap());
        codes.sort_unstable();
        assert_eq!(codes[0], 0, "{context}");
        assert!(matches!(codes[1], 1 | 2), "{context}");
        assert_eq!(require_invariant(&sandbox.path("copy.db"), &context).0, "a");
        let leftover = fs::read_dir(sandbox.root())
            .unwrap()
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().contains("lifeboat-2"));
        assert!(leftover.is_none(), "{leftover:?}: {context}");
        fs::remove_file(sandbox.path("copy.db")).unwrap();
    }
}

#[test]
fn restore_to_a_path_where_a_database_has_appeared_fails_and_leaves_its_wal_unchanged() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("image.db"), "delete", 4096, "loser", 10);
    create_bank(&sandbox.path("app.db"), "wal", 4096, "winner", 10);
    // Another program has opened the existing database and has written to it.
    let program = open(sandbox.path("app.db"));
    transfer(&program, 1).unwrap();
    let before = sandbox.state();
    let placed = lifeboat::engine::sqlite::target::place_new(&sandbox.path("image.db"), &sandbox.path("app.db"), "now");
    assert!(placed.is_err(), "the existing database was overwritten");
    assert_eq!(sandbox.state(), before, "the files of the existing database changed");
    assert_eq!(require_invariant(&sandbox.path("app.db"), "the existing database"), ("winner".to_owned(), 1));
}

#[test]
fn prune_beside_snapshots_loses_nothing_that_the_policy_keeps() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 1500);
    let writer = Helper::start(&sandbox, "writer", &sandbox.path("app.db"), 20_000, 1).wait_ready();
    let mut taken = vec![sandbox.snapshot("app.db")];
    let prune = ["prune", "--store", "backups", "--keep-last", "4", "--yes"];
    for round in 0..20 {
        let snapshot = start(&sandbox, &["snapshot", "app.db", "--store", "backups", "--json"]);
        let prunes = [(); 2].map(|()| start(&sandbox, &prune));
        for (command, child) in ["snapshot", "prune", "prune"].into_iter().zip([snapshot].into_iter().chain(prunes)) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", transcript(&format!("round {round}: {command}"), &output));
            if command == "snapshot" {
                taken.push(id_of(&serde_json::from_slice(&output.stdout).unwrap()));
            }
        }
        let listed = sandbox.ids();
        for id in taken.iter().rev().take(4) {
            assert!(listed.contains(id), "round {round}: {id} was deleted: {listed:?} of {taken:?}");
        }
    }
    sandbox.ok(&prune);
    let mut kept: Vec<String> = taken.iter().rev().take(4).cloned().collect();
    let mut listed = sandbox.ids();
    kept.sort();
    listed.sort();
    assert_eq!(listed, kept);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    for id in &kept {
        require_consistent(&sandbox, id);
    }
    assert!(writer.stop().wrong.is_empty());
}

#[test]
fn prune_leaves_an_archive_that_is_being_written() {
    let sandbox = Sandbox::new();
    create_bank(&sandbox.path("app.db"), "wal", 4096, "a", 20_000);
    let first = sandbox.snapshot("app.db");
    let prune = ["prune", "--store", "backups", "--keep-last", "1", "--yes"];
    let mut child =
        start(&sandbox, &["snapshot", "app.db", "--store", "backups", "--compression", "gzip:9", "-j", "1"]);
    let deadline = Instant::now() + TIMEOUT;
    let folder = sandbox.path("backups/app");
    let uploads = || {
        let entries = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".upload-")).collect::<Vec<_>>()
    };
    while uploads().is_empty() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "the upload was not seen");
        std::thread::yield_now();
    }
    // The upload gets the age of a very slow one.
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for upload in uploads() {
        let _ = fs::File::options().append(true).open(upload).and_then(|file| file.set_modified(old));
    }
    sandbox.ok(&prune);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", transcript("snapshot", &output));
    assert_eq!(sandbox.ids().len(), 2);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    // A recent archive without a manifest is kept, because its manifest may follow. An old one that is too short to hold
    // any data is deleted.
    let (young, stale) = (
        folder.join(format!("{}{}.tar.gz", &first[..first.len() - 1], if first.ends_with('0') { '1' } else { '0' })),
        folder.join("app-20200101T000000Z-0000.tar.gz"),
    );
    fs::write(&young, b"young").unwrap();
    fs::write(&stale, b"stale").unwrap();
    fs::File::options().append(true).open(&stale).unwrap().set_modified(old).unwrap();
    sandbox.ok(&prune);
    assert!(young.exists() && !stale.exists());
}
