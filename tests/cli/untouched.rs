//! Looking at a database changes nothing: neither its file, nor its WAL or journal, nor the names in its folder.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::companions::{Files, MORE_ROWS, ROWS, files, hot, wal};
use crate::helpers::{query_value, sql};
use crate::support::Sandbox;

/// Name, inode, time of the last write and bytes of every file in a folder.
fn state(folder: &Path) -> Vec<(PathBuf, u64, SystemTime, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut state: Vec<_> = paths
        .map(|path| {
            let facts = fs::metadata(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            (path, facts.ino(), facts.modified().unwrap(), bytes)
        })
        .collect();
    state.sort();
    state
}

/// Requires that a state has not changed; shows only the names and lengths if it has.
#[track_caller]
fn require_same(folder: &Path, before: &[(PathBuf, u64, SystemTime, Vec<u8>)], context: &str) {
    let after = state(folder);
    let short = |state: &[(PathBuf, u64, SystemTime, Vec<u8>)]| {
        state
            .iter()
            .map(|(path, inode, at, bytes)| format!("{path:?} {inode} {at:?} {}", bytes.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(short(&after), short(before), "{context}");
    assert!(after == before, "the bytes of a file have changed\n{context}");
}

/// Creates a source `app` at `data/NAME` that has one row, with a snapshot, and a folder `elsewhere`.
fn sandbox(name: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    for folder in ["data", "elsewhere"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
    }
    let config = format!(
        "host = \"h\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./data/{name}\"\n\
         [[source.rule]]\ntable = \"t\"\nmin_rows = 1\n"
    );
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sql(sandbox.path(format!("data/{name}")), "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 1)");
    sandbox.ok(&["snapshot", "app", "--store", "backups"]);
    sandbox
}

/// The commands that read a database.
const READERS: [&[&str]; 10] = [
    &["check", "app"],
    &["check", "app", "--full", "--no-backups"],
    &["doctor", "app"],
    &["diff", "latest", "app"],
    &["inventory", "data", "--json"],
    &["inventory", "data", "--watch", "0s"],
    &["restore", "latest", "--replace", "--dry-run"],
    &["predeploy", "app"],
    &["postdeploy", "app"],
    &["snapshot", "app"],
];

/// Runs every command that reads a database on `data/NAME`, and requires that each succeeds and changes nothing there.
/// The database has `rows` rows.
fn require_untouched(sandbox: &Sandbox, what: &str, rows: u64) {
    let before = state(&sandbox.path("data"));
    for arguments in READERS {
        let run = sandbox.run(arguments);
        require_same(&sandbox.path("data"), &before, &format!("{what}\n{}", run.transcript()));
        assert_eq!(run.exit(), 0, "{what}\n{}", run.transcript());
        if arguments.contains(&"--json") {
            assert_eq!(run.json()["databases"][0]["rows"], rows, "{what}\n{}", run.transcript());
        }
    }
    sandbox.ok(&["restore", "latest", "--to", "copy.db"]);
    assert_eq!(query_value(sandbox.path("copy.db"), "SELECT count(*) FROM t"), rows.to_string(), "{what}");
}

/// Writes a set of files to `data/app.db`, and tests it with [`require_untouched`].
fn test(what: &str, make: impl FnOnce(&Path) -> Files, rows: u64) {
    let sandbox = sandbox("app.db");
    make(&sandbox.path("elsewhere")).write(&sandbox.path("data/app.db"));
    require_untouched(&sandbox, what, rows);
}

#[test]
fn the_wal_of_a_killed_program_is_left_as_it_is() {
    test("a WAL", |folder| wal(folder, ROWS, MORE_ROWS), 1050);
    test("a WAL with all pages", |folder| wal(folder, "", ROWS), 1000);
}

#[test]
fn a_file_in_wal_mode_without_a_wal_is_left_as_it_is() {
    test("no WAL", |folder| wal(folder, ROWS, ""), 1000);
    let sandbox = sandbox("app.db");
    wal(&sandbox.path("elsewhere"), ROWS, "").write(&sandbox.path("data/app.db"));
    fs::write(sandbox.path("data/app.db-wal"), "").unwrap();
    require_untouched(&sandbox, "an empty WAL", 1000);
}

#[test]
fn a_wal_that_ends_within_a_frame_is_left_as_it_is() {
    let cut = |folder: &Path| {
        let mut files = wal(folder, ROWS, MORE_ROWS);
        let more = files.wal[files.wal.len() - 4120..][..3000].to_vec();
        files.wal.extend(more);
        files
    };
    test("a torn frame", cut, 1050);
    let large = |folder: &Path| files(folder, "wal", "PRAGMA page_size = 65536;", ROWS, MORE_ROWS);
    test("large pages", large, 1050);
}

#[test]
fn a_hot_journal_is_not_rolled_back_in_place() {
    test("an update", |folder| hot(folder, ROWS, "UPDATE t SET a = a || 'y'; DELETE FROM t"), 1000);
    let small = |folder: &Path| files(folder, "delete", "PRAGMA page_size = 512;", ROWS, "DELETE FROM t");
    test("small pages", small, 1000);
}

#[test]
fn a_hot_journal_that_was_used_before_is_not_rolled_back_in_place() {
    for mode in ["persist", "truncate"] {
        let setup = format!("PRAGMA journal_mode = {mode}; {ROWS} UPDATE t SET a = a || 'y';");
        let make = |folder: &Path| {
            files(folder, mode, "PRAGMA page_size = 4096;", &setup, "UPDATE t SET a = a || 'z' WHERE id > 500")
        };
        test(mode, make, 1000);
    }
}

#[test]
fn a_journal_of_a_transaction_that_has_ended_is_left_as_it_is() {
    let setup = format!("PRAGMA journal_mode = persist; {ROWS}");
    let cold = |folder: &Path| {
        let mut files = files(folder, "persist", "PRAGMA page_size = 4096;", &setup, "DELETE FROM t");
        // SQLite overwrites the header when the transaction ends.
        files.journal[..28].fill(0);
        files.main = hot(folder, ROWS, "").main;
        files
    };
    test("persist", cold, 1000);
    let switched = |folder: &Path| Files { journal: vec![0; 4096], ..wal(folder, ROWS, MORE_ROWS) };
    test("WAL mode since then", switched, 1050);
}

#[test]
fn names_with_special_characters_and_links_are_read_in_the_same_way() {
    let name = "my app?mode=memory&x#1%20;.db";
    let sandbox = sandbox(name);
    hot(&sandbox.path("elsewhere"), ROWS, "DELETE FROM t").write(&sandbox.path(format!("data/{name}")));
    require_untouched(&sandbox, "a hot journal", 1000);
    wal(&sandbox.path("elsewhere"), ROWS, MORE_ROWS).write(&sandbox.path(format!("data/{name}")));
    std::os::unix::fs::symlink(format!("data/{name}"), sandbox.path("link.db")).unwrap();
    let before = state(&sandbox.path("data"));
    for arguments in [
        &["check", "link.db", "--no-backups"][..],
        &["diff", "latest", "link.db"],
        &["inventory", "link.db"],
        &["restore", "latest", "--to", "link.db", "--replace", "--dry-run"],
    ] {
        let run = sandbox.ok(arguments);
        require_same(&sandbox.path("data"), &before, &run.transcript());
    }
}

/// Returns a hot journal of a transaction of several databases; the file `decider` decides about it.
fn of_several(folder: &Path, decider: &Path) -> Files {
    let whole = hot(folder, ROWS, "UPDATE t SET a = a || 'y' WHERE id = 1; DELETE FROM t WHERE id > 10");
    let name = decider.to_str().unwrap().as_bytes();
    let mut journal = whole.journal.clone();
    journal.extend((0x4000_0000u32 / 4096 + 1).to_be_bytes());
    journal.extend(name);
    journal.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    journal.extend(name.iter().map(|byte| u32::from(*byte)).sum::<u32>().to_be_bytes());
    journal.extend(&whole.journal[..8]);
    Files { journal, ..whole }
}

#[test]
fn the_super_journal_of_a_transaction_of_several_databases_is_left_as_it_is() {
    let sandbox = sandbox("app.db");
    let decider = sandbox.path("data").canonicalize().unwrap().join("app.db-mj0123AB9EF");
    of_several(&sandbox.path("elsewhere"), &decider).write(&sandbox.path("data/app.db"));
    // The journals that it names do not exist: SQLite would delete it after a rollback.
    fs::write(&decider, b"/nowhere/a.db-journal\0/nowhere/b.db-journal\0").unwrap();
    require_untouched(&sandbox, "not committed", 1000);
}

#[test]
fn a_database_that_others_use_keeps_its_files() {
    let sandbox = sandbox("app.db");
    let path = sandbox.path("data/app.db");
    wal(&sandbox.path("elsewhere"), ROWS, "").write(&path);
    let program = rusqlite::Connection::open(&path).unwrap();
    program.execute_batch("PRAGMA wal_autocheckpoint = 0; INSERT INTO t(a) VALUES(1)").unwrap();
    for arguments in READERS.iter().filter(|arguments| !arguments.contains(&"--json")) {
        sandbox.ok(arguments);
        assert!(sandbox.path("data/app.db-shm").exists() && sandbox.path("data/app.db-wal").exists(), "{arguments:?}");
        program.execute_batch("INSERT INTO t(a) VALUES(2)").unwrap();
    }
    let other = rusqlite::Connection::open(&path).unwrap();
    let rows: i64 = other.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1000 + READERS.len() as i64);
}

#[test]
fn a_copy_that_cannot_be_made_is_reported_with_the_way_out() {
    let sandbox = sandbox("app.db");
    hot(&sandbox.path("elsewhere"), ROWS, "DELETE FROM t").write(&sandbox.path("data/app.db"));
    let before = state(&sandbox.path("data"));
    for command in [&["check", "app"][..], &["diff", "latest", "app"], &["snapshot", "app"]] {
        let run = sandbox.run(&[command, &["--scratch", "missing"]].concat());
        assert!(run.exit() != 0, "{}", run.transcript());
        let text = run.stdout() + &run.stderr();
        assert!(text.contains("a copy is needed") && text.contains("--scratch"), "{}", run.transcript());
        require_same(&sandbox.path("data"), &before, &run.transcript());
    }
}
