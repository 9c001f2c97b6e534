//! A WAL or a journal that does not belong to the database beside it is neither applied nor deleted, whatever the
//! command.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::helpers::{id_of, query_value, shell_ok};
use crate::support::Sandbox;

/// The bytes of the main file, the WAL and the journal of a database; no bytes for a file that does not exist.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Files {
    pub(crate) main: Vec<u8>,
    pub(crate) wal: Vec<u8>,
    pub(crate) journal: Vec<u8>,
}

impl Files {
    /// Reads the files of a database, also while it is open.
    fn of(path: &Path) -> Self {
        let read = |suffix: &str| fs::read(beside(path, suffix)).unwrap_or_default();
        Files { main: read(""), wal: read("-wal"), journal: read("-journal") }
    }

    pub(crate) fn write(&self, path: &Path) {
        for (suffix, bytes) in
            [("", &self.main), ("-wal", &self.wal), ("-journal", &self.journal), ("-shm", &Vec::new())]
        {
            let _ = fs::remove_file(beside(path, suffix));
            if suffix.is_empty() || !bytes.is_empty() {
                fs::write(beside(path, suffix), bytes).unwrap();
            }
        }
    }
}

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    path.with_file_name(format!("{}{suffix}", path.file_name().unwrap().to_str().unwrap()))
}

const PAGES: &str = "PRAGMA page_size = 4096;";
pub(crate) const ROWS: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a);
    WITH n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, hex(zeroblob(100)) FROM n;";
pub(crate) const MORE_ROWS: &str = "INSERT INTO t(a) SELECT a FROM t LIMIT 50;";

/// Opens a new database, sets it up, and runs `later` without a checkpoint, or without the end of the transaction.
pub(crate) fn files(folder: &Path, mode: &str, page_size: &str, setup: &str, later: &str) -> Files {
    let path = folder.join("made.db");
    Files::default().write(&path);
    let connection = Connection::open(&path).unwrap();
    let begin =
        format!("{page_size} PRAGMA journal_mode = {mode}; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = 2;");
    connection.execute_batch(&begin).unwrap();
    connection.execute_batch(setup).unwrap();
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    if mode != "wal" {
        connection.execute_batch("BEGIN").unwrap();
    }
    connection.execute_batch(later).unwrap();
    let files = Files::of(&path);
    let made = if mode == "wal" { &files.wal } else { &files.journal };
    assert!(later.is_empty() || made.len() > 512, "{mode} {setup} {later}");
    drop(connection);
    Files::default().write(&path);
    fs::remove_file(path).unwrap();
    files
}

pub(crate) fn wal(folder: &Path, setup: &str, later: &str) -> Files {
    files(folder, "wal", PAGES, setup, later)
}

pub(crate) fn hot(folder: &Path, setup: &str, later: &str) -> Files {
    files(folder, "delete", PAGES, setup, later)
}

/// A name, and a function that makes the files.
type Kind = (&'static str, fn(&Path) -> Files);

/// Sets of files that do not belong together.
const MISMATCHES: [Kind; 14] = [
    ("an empty file and a WAL", |folder| Files { main: Vec::new(), ..wal(folder, "", ROWS) }),
    ("a file of a few bytes and a WAL", |folder| Files { main: b"oops".to_vec(), ..wal(folder, "", ROWS) }),
    ("another page size than the WAL", |folder| Files {
        wal: files(folder, "wal", "PRAGMA page_size = 1024;", "", ROWS).wal,
        ..wal(folder, ROWS, "")
    }),
    ("a file that is not in WAL mode, and the WAL of the file before it", |folder| {
        let newer = format!("{ROWS} CREATE TABLE x(a);");
        Files { wal: wal(folder, &newer, MORE_ROWS).wal, ..hot(folder, ROWS, "") }
    }),
    ("a file that was cut, and its WAL", |folder| {
        let whole = wal(folder, ROWS, MORE_ROWS);
        Files { main: whole.main[..8192].to_vec(), ..whole }
    }),
    ("the WAL of an older state", |folder| {
        let changes = "CREATE TABLE x(a); DROP TABLE x;".repeat(20);
        let many = format!("PRAGMA journal_mode = delete; {ROWS} {changes} PRAGMA journal_mode = wal;");
        Files { wal: wal(folder, ROWS, MORE_ROWS).wal, ..wal(folder, &many, "") }
    }),
    ("the WAL of a database with fewer pages", |folder| {
        let update = "UPDATE t SET a = 'x' || a WHERE id = 500";
        Files { wal: wal(folder, ROWS, update).wal, ..wal(folder, &format!("{ROWS} {MORE_ROWS} {MORE_ROWS}"), "") }
    }),
    ("a file that was restored without WAL mode, and the old WAL", |folder| Files {
        main: hot(folder, &format!("{ROWS} {}", "CREATE TABLE x(a); DROP TABLE x;".repeat(20)), "").main,
        ..wal(folder, ROWS, MORE_ROWS)
    }),
    ("an empty file and a journal", |folder| Files {
        main: Vec::new(),
        ..hot(folder, ROWS, "UPDATE t SET a = a || 'y'")
    }),
    ("another page size than the journal", |folder| Files {
        journal: files(folder, "delete", "PRAGMA page_size = 1024;", ROWS, "UPDATE t SET a = a || 'y'").journal,
        ..hot(folder, ROWS, "")
    }),
    ("the journal of an older state", |folder| {
        let many = format!("{ROWS} {}", "CREATE TABLE x(a); DROP TABLE x;".repeat(20));
        Files { journal: hot(folder, ROWS, "UPDATE t SET a = a || 'y'").journal, ..hot(folder, &many, "") }
    }),
    ("a file that was cut, and its journal", |folder| {
        let whole = hot(folder, ROWS, "UPDATE t SET a = a || 'y' WHERE id < 300");
        Files { main: whole.main[..8192].to_vec(), ..whole }
    }),
    ("a journal that was cut", |folder| {
        let whole = hot(folder, ROWS, "UPDATE t SET a = a || 'y'");
        Files { journal: whole.journal[..whole.journal.len() / 2].to_vec(), ..whole }
    }),
    ("the journal of a transaction of several databases elsewhere", |folder| {
        let whole = hot(folder, ROWS, "UPDATE t SET a = a || 'y'");
        let name = b"/nowhere/main.db-mj0123AB9EF";
        let mut journal = whole.journal.clone();
        journal.extend(0x4000_0000u32.div_euclid(4096).wrapping_add(1).to_be_bytes());
        journal.extend(name);
        journal.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
        journal.extend(name.iter().map(|byte| u32::from(*byte)).sum::<u32>().to_be_bytes());
        journal.extend(&whole.journal[..8]);
        Files { journal, ..whole }
    }),
];

/// Sets of files that belong together, although they may look as if they did not.
const MATCHES: [Kind; 9] = [
    ("a WAL with all pages", |folder| wal(folder, "", ROWS)),
    ("a WAL with a few pages", |folder| wal(folder, ROWS, MORE_ROWS)),
    ("a WAL without page 1", |folder| wal(folder, ROWS, "UPDATE t SET a = 'x' || a WHERE id = 500")),
    ("a WAL that shrinks the database", |folder| wal(folder, ROWS, "DELETE FROM t WHERE id > 2; VACUUM")),
    ("a WAL that was copied back in part", |folder| {
        let path = folder.join("part.db");
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0;").unwrap();
        connection.execute_batch(ROWS).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
        connection.execute_batch(MORE_ROWS).unwrap();
        connection.execute_batch("CREATE TABLE x(a); PRAGMA wal_checkpoint(PASSIVE); CREATE TABLE y(a);").unwrap();
        let files = Files::of(&path);
        drop((reader, connection));
        Files::default().write(&path);
        fs::remove_file(path).unwrap();
        files
    }),
    ("a journal of an update", |folder| hot(folder, ROWS, "UPDATE t SET a = a || 'y'")),
    ("a journal of an insert", |folder| hot(folder, ROWS, &MORE_ROWS.repeat(20))),
    ("a journal that was used before", |folder| {
        let setup = format!("PRAGMA journal_mode = persist; {ROWS} UPDATE t SET a = a || 'y';");
        files(folder, "persist", PAGES, &setup, "UPDATE t SET a = a || 'z' WHERE id > 500")
    }),
    ("a journal of the first transaction", |folder| hot(folder, "", ROWS)),
];

/// Creates a source with a snapshot of one row in its store.
fn sandbox_with_snapshot() -> Sandbox {
    let sandbox = Sandbox::new();
    let config = "host = \"h\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    let connection = Connection::open(sandbox.path("app.db")).unwrap();
    connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 1)").unwrap();
    drop(connection);
    sandbox.ok(&["snapshot", "app", "--store", "backups"]);
    sandbox.ok(&["predeploy", "app"]);
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    sandbox
}

#[test]
fn no_command_changes_files_that_do_not_belong_together() {
    let sandbox = sandbox_with_snapshot();
    let path = sandbox.path("app.db");
    for (kind, make) in MISMATCHES {
        let files = make(&sandbox.path("elsewhere"));
        files.write(&path);
        for (arguments, code) in [
            (&["snapshot", "app"][..], 3),
            (&["check", "app"], 3),
            (&["doctor", "app"], 3),
            (&["predeploy", "app"], 3),
            (&["postdeploy", "app"], 3),
            (&["guard", "--", "true"], 3),
            (&["inventory", "app.db"], 3),
            (&["diff", "latest", "app"], 3),
            (&["restore", "latest", "--table", "t", "--replace", "--yes"], 2),
        ] {
            let run = sandbox.run(arguments);
            assert_eq!(run.exit(), code, "{kind}\n{}", run.transcript());
            assert!(Files::of(&path) == files, "{kind}: files were changed\n{}", run.transcript());
            let text = run.stdout() + &run.stderr();
            assert!(text.contains("do not belong together"), "{kind}\n{}", run.transcript());
        }
        // The snapshot has no rows, but there are snapshots with rows.
        let id = id_of(&sandbox.run(&["snapshot", "app", "--allow-damaged", "--json"]).code(3).json());
        assert!(Files::of(&path) == files, "{kind}: files were changed by a snapshot");
        sandbox.ok(&["extract", &id, "--to", "out"]);
        assert!(Files::of(&sandbox.path("out/data/app.db")) == files, "{kind}: the saved files differ");
        fs::remove_dir_all(sandbox.path("out")).unwrap();
    }
}

#[test]
fn files_that_do_not_belong_together_are_moved_aside_together() {
    for (kind, make) in MISMATCHES {
        for arguments in [&["restore", "latest", "--replace", "--yes"][..], &["postdeploy", "app", "--rollback"]] {
            let sandbox = sandbox_with_snapshot();
            let path = sandbox.path("app.db");
            let files = make(&sandbox.path("elsewhere"));
            files.write(&path);
            let run = sandbox.run(arguments);
            let names = fs::read_dir(sandbox.root()).unwrap().flatten().map(|entry| entry.path());
            let is_main = |path: &std::path::PathBuf| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with("app.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-journal")
            };
            let aside: Vec<_> = names.filter(is_main).collect();
            assert_eq!(aside.len(), 1, "{kind}\n{}", run.transcript());
            assert!(Files::of(&aside[0]) == files, "{kind}: the files aside differ\n{}", run.transcript());
            assert_eq!(query_value(&path, "SELECT count(*) FROM t"), "1", "{kind}\n{}", run.transcript());
        }
    }
}

/// Returns the names and the bytes of all files in a folder, without the caches that SQLite can create again.
fn folder(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(path).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_file());
    let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    files.filter(|(name, _)| !name.ends_with("-shm")).collect()
}

#[test]
fn the_undo_command_puts_back_the_files_that_were_moved_aside() {
    for (kind, make) in MISMATCHES {
        for main_is_missing in [false, true] {
            let sandbox = sandbox_with_snapshot();
            let path = sandbox.path("app.db");
            make(&sandbox.path("elsewhere")).write(&path);
            if main_is_missing {
                fs::remove_file(&path).unwrap();
            }
            let before = folder(sandbox.root());
            let document = sandbox.json(&["restore", "latest", "--replace", "--yes"]);
            assert_eq!(query_value(&path, "SELECT count(*) FROM t"), "1", "{kind}");
            // A program has used the database since, and has left files beside it.
            fs::write(beside(&path, "-wal"), "").unwrap();
            shell_ok(&sandbox, document["undo"].as_str().unwrap());
            assert!(folder(sandbox.root()) == before, "{kind}: other files than before\n{document:#}");
        }
    }
}

#[test]
fn guard_names_the_command_that_puts_a_lone_wal_back() {
    let sandbox = sandbox_with_snapshot();
    let path = sandbox.path("app.db");
    wal(&sandbox.path("elsewhere"), "", ROWS).write(&path);
    fs::remove_file(&path).unwrap();
    let wal = fs::read(beside(&path, "-wal")).unwrap();
    let run = sandbox.ok(&["guard", "--", "true"]);
    let stderr = run.stderr();
    let (_, command) = stderr.split_once("to put them back: ").unwrap_or_else(|| panic!("{}", run.transcript()));
    shell_ok(&sandbox, command.lines().next().unwrap());
    assert!(!path.exists() && fs::read(beside(&path, "-wal")).unwrap() == wal, "{}", run.transcript());
}

#[test]
fn files_that_belong_together_are_saved_as_sqlite_reads_them() {
    let sandbox = sandbox_with_snapshot();
    let path = sandbox.path("app.db");
    for (kind, make) in MATCHES {
        let files = make(&sandbox.path("elsewhere"));
        files.write(&path);
        let run = sandbox.run(&["snapshot", "app", "--accept", "--allow-empty", "--json"]);
        assert_eq!(run.exit(), 0, "{kind}\n{}", run.transcript());
        let id = id_of(&run.json());
        sandbox.ok(&["restore", &id, "--to", "copy.db"]);
        files.write(&path);
        let rows = |path: &Path| {
            let tables = query_value(path, "SELECT count(*) FROM sqlite_schema");
            let rows = || query_value(path, "SELECT count(*) || ' ' || sum(length(a)) FROM t");
            if tables == "0" { tables } else { format!("{tables} {}", rows()) }
        };
        assert_eq!(rows(&sandbox.path("copy.db")), rows(&path), "{kind}");
        fs::remove_file(sandbox.path("copy.db")).unwrap();
    }
}
