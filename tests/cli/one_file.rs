//! A snapshot is of one file in one state, also while programs replace the file or write to it without SQLite.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;

use crate::helpers::{id_of, query_value, refused, sql};
use crate::support::{Sandbox, have, skip_unless_ci};

/// Work that is repeated in a thread until it is stopped.
struct Repeated {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repeated {
    fn start(mut work: impl FnMut(usize) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || (0..).take_while(|_| !flag.load(Ordering::Relaxed)).for_each(&mut work));
        Repeated { stop, thread: Some(thread) }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Creates a database with `rows` rows that all have the value `value`.
fn database(path: &Path, mode: &str, rows: u32, value: &str) {
    sql(
        path,
        &format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t(id INTEGER PRIMARY KEY, v, rest);
        WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO t SELECT i, '{value}', hex(zeroblob(500)) FROM n;"
        ),
    );
}

#[test]
fn a_database_that_is_replaced_by_renames_is_saved_as_one_of_the_files() {
    for mode in ["wal", "delete"] {
        let sandbox = Sandbox::new();
        database(&sandbox.path("a.db"), mode, 100, "a");
        database(&sandbox.path("b.db"), mode, 200, "b");
        fs::copy(sandbox.path("a.db"), sandbox.path("live.db")).unwrap();
        let folder = sandbox.root().to_owned();
        let replace = Repeated::start(move |time| {
            fs::copy(folder.join(["a.db", "b.db"][time % 2]), folder.join("new.db")).unwrap();
            fs::rename(folder.join("new.db"), folder.join("live.db")).unwrap();
        });
        let mut taken = Vec::new();
        for _ in 0..20 {
            let run = sandbox.run(&["snapshot", "live.db", "--store", "backups", "--json"]);
            match run.exit() {
                0 => taken.push(run.json()),
                5 => drop(run.says("live.db")),
                _ => panic!("{mode}\n{}", run.transcript()),
            }
        }
        drop(replace);
        assert!(!taken.is_empty(), "{mode}: no snapshot was taken");
        for document in taken {
            let id = id_of(&document);
            sandbox.ok(&["drill", &id, "--store", "backups"]);
            sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
            let rows: u64 = query_value(sandbox.path("copy.db"), "SELECT count(*) FROM t").parse().unwrap();
            assert_eq!(document["snapshots"][0]["rows"], rows, "{mode} {id}");
            assert!([100, 200].contains(&rows), "{mode} {id}: {rows} rows");
            fs::remove_file(sandbox.path("copy.db")).unwrap();
        }
    }
}

#[test]
fn a_database_that_is_written_to_without_locks_is_not_saved_until_that_ends() {
    let sandbox = Sandbox::new();
    database(&sandbox.path("app.db"), "delete", 20_000, "a");
    let bytes = Arc::new(fs::read(sandbox.path("app.db")).unwrap());
    // The bytes stay the same, so that a snapshot is right even if these threads do not run for a while.
    let start = || {
        let (path, bytes) = (sandbox.path("app.db"), Arc::clone(&bytes));
        Repeated::start(move |_| {
            let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            bytes.chunks(65_536).for_each(|piece| file.write_all(piece).unwrap());
        })
    };
    let writers = [start(), start()];
    let mut refused = 0;
    for _ in 0..4 {
        let run = sandbox.run(&["snapshot", "app.db", "--store", "backups"]);
        if run.exit() != 0 {
            drop(run.code(5).says("its file was changed despite SQLite's lock"));
            refused += 1;
        }
    }
    drop(writers);
    assert!(refused > 0, "every snapshot was taken while the file was written to");
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["drill", &id, "--store", "backups"]);
}

#[test]
fn a_database_that_is_being_copied_over_is_not_called_damaged_or_empty() {
    let sandbox = Sandbox::new();
    database(&sandbox.path("a.db"), "delete", 10_000, "a");
    database(&sandbox.path("b.db"), "delete", 20_000, "b");
    fs::copy(sandbox.path("a.db"), sandbox.path("live.db")).unwrap();
    let folder = sandbox.root().to_owned();
    // As 'cp' does it: the file is cut to 0 bytes first, and then grows.
    let copies = Repeated::start(move |time| {
        let bytes = fs::read(folder.join(["a.db", "b.db"][time % 2])).unwrap();
        let mut file = fs::File::create(folder.join("live.db")).unwrap();
        bytes.chunks(65_536).for_each(|piece| file.write_all(piece).unwrap());
    });
    let mut refused = 0;
    for _ in 0..6 {
        let run = sandbox.run(&["snapshot", "live.db", "--store", "backups"]);
        match run.exit() {
            0 => {}
            5 => refused += 1,
            _ => panic!("{}", run.transcript()),
        }
    }
    drop(copies);
    assert!(refused > 0, "every snapshot was taken while the file was copied over");
}

/// Opens a database in WAL mode whose newest rows are only in the WAL: 10 rows in the file, 100 in all.
fn program(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t(id INTEGER PRIMARY KEY, a);
             WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 10) INSERT INTO t SELECT i, 1 FROM n;
             PRAGMA wal_checkpoint(TRUNCATE);
             WITH n(i) AS (VALUES(11) UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO t SELECT i, 2 FROM n;",
        )
        .unwrap();
    connection
}

/// Tests that `side/app.db`, the other name of `app/app.db`, is refused while a program uses the database.
fn assert_other_name_is_refused(sandbox: &Sandbox, says: &str) {
    let before = sandbox.state();
    for arguments in [&["snapshot", "side/app.db"][..], &["check", "side/app.db"], &["doctor", "side/app.db"]] {
        let arguments = [arguments, &["--store", "backups"]].concat();
        let run = sandbox.run(&arguments);
        let text = run.stdout() + &run.stderr();
        assert!(run.exit() != 0 && text.contains(says), "{}", run.transcript());
        assert_eq!(sandbox.state(), before, "{}", run.transcript());
    }
    drop(refused(sandbox, &["snapshot", "side/app.db", "--store", "backups"], 2).says(says));
    drop(refused(
        sandbox,
        &["restore", "latest", "--to", "side/app.db", "--replace", "--yes", "--store", "backups"],
        2,
    ));
}

#[test]
fn a_database_in_wal_mode_is_refused_under_a_hard_link_that_its_program_does_not_use() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("app")).unwrap();
    fs::create_dir(sandbox.path("side")).unwrap();
    let program = program(&sandbox.path("app/app.db"));
    fs::hard_link(sandbox.path("app/app.db"), sandbox.path("side/app.db")).unwrap();
    let document = sandbox.json(&["snapshot", "app/app.db", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["rows"], 100, "{document:#}");
    assert_other_name_is_refused(&sandbox, "hard links");
    // A copy of the WAL does not make it the name that the program uses.
    fs::copy(sandbox.path("app/app.db-wal"), sandbox.path("side/app.db-wal")).unwrap();
    assert_other_name_is_refused(&sandbox, "hard links");
    fs::remove_file(sandbox.path("side/app.db-wal")).unwrap();
    let run = sandbox.run(&["inventory", "side", "--json"]).code(3);
    let problem = run.json()["databases"][0]["problem"].to_string();
    assert!(problem.contains("one of several hard links"), "{}", run.transcript());
    drop(program);
    // Without WAL mode, all is in the file.
    sql(sandbox.path("app/app.db"), "PRAGMA journal_mode = delete");
    let document = sandbox.json(&["snapshot", "side/app.db", "--name", "side", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["rows"], 100, "{document:#}");
}

#[test]
fn a_database_in_wal_mode_is_refused_as_a_mount_of_its_single_file() {
    if !have(&["unshare", "mount"]) {
        return;
    }
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("app")).unwrap();
    fs::create_dir(sandbox.path("side")).unwrap();
    fs::write(sandbox.path("side/app.db"), "").unwrap();
    let _program = program(&sandbox.path("app/app.db"));
    let run = |mount: &str, name: &str| {
        let script = format!(
            "mount --bind {mount} || exit 77; exec {} snapshot {name} --store backups --json",
            crate::support::LIFEBOAT
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).current_dir(sandbox.root()).output().unwrap()
    };
    let output = run("app/app.db side/app.db", "side/app.db");
    if output.status.code() == Some(77) || output.status.code() == Some(1) {
        return skip_unless_ci("this user cannot mount");
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("a mount of a single file"), "{text}");
    // The mount of its folder has the WAL.
    let output = run("app side", "side/app.db");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("\"rows\": 100"), "{text}");
}
