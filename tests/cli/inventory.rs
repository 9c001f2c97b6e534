//! `inventory`: databases that are found and described, saved with `--snapshot`, and watched with `--watch`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::companions::{Files, ROWS, hot, wal};
use crate::helpers::{assert_has_fields, lasting_files, run_without_root, shell_ok, sql};
use crate::support::{LIFEBOAT, Sandbox, content, copy_folder, count, open, sample};

/// Returns the databases in a document.
#[track_caller]
fn databases(document: &Value) -> Vec<&Value> {
    document["databases"].as_array().unwrap_or_else(|| panic!("{document:#}")).iter().collect()
}

/// Returns the database with this path in a document.
#[track_caller]
fn database<'a>(document: &'a Value, path: &str) -> &'a Value {
    let found = databases(document).into_iter().find(|database| database["path"] == path);
    found.unwrap_or_else(|| panic!("no {path} in {document:#}"))
}

fn paths(document: &Value) -> Vec<String> {
    databases(document).iter().map(|database| database["path"].as_str().unwrap().to_owned()).collect()
}

/// Returns the number of rows of a table of a database, or `None` if it is not known.
#[track_caller]
fn rows(database: &Value, table: &str) -> Option<u64> {
    let tables = database["tables"].as_array().unwrap();
    let table = tables.iter().find(|found| found["name"] == table).unwrap_or_else(|| panic!("{database:#}"));
    table["rows"].as_u64()
}

/// Returns the messages about a path in a list of a document: `notes` or `problems`.
fn messages(document: &Value, list: &str, path: &str) -> String {
    let of_path = document[list].as_array().unwrap().iter().filter(|entry| entry["path"] == path);
    of_path.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("; ")
}

#[test]
fn databases_are_found_by_their_content_and_fully_described() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("tree/deep/er")).unwrap();
    sample(sandbox.path("tree/app.db"), 7, "delete");
    sample(sandbox.path("tree/deep/er/no-such-ending"), 3, "wal");
    fs::write(sandbox.path("tree/notes.txt"), "SQLite format 3, what I know of it").unwrap();
    sql(
        sandbox.path("tree/app.db"),
        "PRAGMA user_version = 42; PRAGMA application_id = 77; CREATE VIRTUAL TABLE words USING fts5(body);
         INSERT INTO words VALUES ('one'), ('two')",
    );
    // The newest row of this database is in the WAL only.
    let writer = open(sandbox.path("tree/deep/er/no-such-ending"));
    writer.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    writer.execute_batch("INSERT INTO logs VALUES ('now', 'in the WAL')").unwrap();
    drop(writer);
    let before = lasting_files(&sandbox);
    let document = sandbox.json(&["inventory", "tree"]);
    assert_eq!(paths(&document), ["tree/app.db", "tree/deep/er/no-such-ending"]);
    assert_eq!((&document["ok"], document["problems"].as_array().unwrap().len()), (&true.into(), 0));
    let app = database(&document, "tree/app.db");
    assert_has_fields(
        app,
        &["path", "bytes", "journal_mode", "modified_at", "tables", "real_path", "mode", "owner", "schema"],
    );
    assert_eq!(app["bytes"], fs::metadata(sandbox.path("tree/app.db")).unwrap().len());
    assert_eq!(app["real_path"], sandbox.path("tree/app.db").canonicalize().unwrap().to_str().unwrap());
    assert_eq!(
        (&app["journal_mode"], &app["encoding"], &app["auto_vacuum"]),
        (&"delete".into(), &"UTF-8".into(), &"none".into())
    );
    assert_eq!((app["user_version"].as_i64(), app["application_id"].as_i64()), (Some(42), Some(77)));
    assert_eq!(app["page_bytes"].as_u64().unwrap() * app["pages"].as_u64().unwrap(), app["bytes"].as_u64().unwrap());
    assert_eq!((rows(app, "accounts"), rows(app, "balances"), rows(app, "words")), (Some(7), Some(70), Some(2)));
    assert_eq!(
        (&app["schema"]["views"], &app["schema"]["triggers"], &app["schema"]["virtual_tables"]),
        (&1.into(), &1.into(), &1.into())
    );
    let other = database(&document, "tree/deep/er/no-such-ending");
    assert_eq!((&other["journal_mode"], rows(other, "logs")), (&"wal".into(), Some(31)));
    assert!(other["wal_bytes"].as_u64().unwrap() > 0, "{other:#}");
    assert_eq!(lasting_files(&sandbox), before, "the inventory changed a file");
    let run = sandbox.ok(&["inventory", "tree"]);
    assert_eq!(run.stderr(), "");
    let last_line = run.stdout().lines().last().unwrap().to_owned();
    assert!(last_line.starts_with("2 databases, ") && last_line.contains(" rows, "), "{}", run.transcript());
    assert!(run.stdout().lines().all(|line| line.chars().count() <= 80), "{}", run.transcript());
}

#[test]
fn a_database_with_several_paths_is_listed_once() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("a")).unwrap();
    fs::create_dir_all(sandbox.path("elsewhere")).unwrap();
    sample(sandbox.path("a/app.db"), 2, "delete");
    sample(sandbox.path("elsewhere/other.db"), 2, "delete");
    fs::hard_link(sandbox.path("a/app.db"), sandbox.path("a/hard.db")).unwrap();
    symlink("app.db", sandbox.path("a/link.db")).unwrap();
    symlink("../elsewhere", sandbox.path("a/folder")).unwrap();
    symlink("..", sandbox.path("a/loop")).unwrap();
    symlink("../elsewhere/other.db", sandbox.path("a/other")).unwrap();
    let document = sandbox.json(&["inventory", "a", "a/app.db", "a/link.db"]);
    assert_eq!(paths(&document), ["a/app.db", "a/other"]);
    let app = database(&document, "a/app.db");
    assert_eq!(app["other_paths"], serde_json::json!(["a/hard.db", "a/link.db"]));
    let other = database(&document, "a/other")["real_path"].as_str().unwrap().to_owned();
    assert!(other.ends_with("/elsewhere/other.db"), "{other}");
    // A link to a folder is followed only if it is an argument. Otherwise a note reports it.
    assert!(messages(&document, "notes", "a/folder").contains("not followed"), "{document:#}");
    assert_eq!(paths(&sandbox.json(&["inventory", "a/folder"])), ["a/folder/other.db"]);
    assert_eq!(databases(&sandbox.json(&["inventory", "."])).len(), 2);
}

#[test]
fn other_files_are_noted_and_fail_only_as_arguments() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("tree")).unwrap();
    sample(sandbox.path("tree/app.db"), 2, "delete");
    fs::write(sandbox.path("tree/empty.db"), "").unwrap();
    fs::write(sandbox.path("tree/sealed.sqlite3"), [0x5a; 4096]).unwrap();
    fs::write(sandbox.path("tree/readme.md"), "nothing of ours").unwrap();
    fs::write(sandbox.path("tree/gone.db-wal"), [&[0x37, 0x7f, 0x06, 0x82][..], &[0; 100]].concat()).unwrap();
    let document = sandbox.json(&["inventory", "tree"]);
    assert_eq!(paths(&document), ["tree/app.db"]);
    assert!(messages(&document, "notes", "tree/empty.db").contains("0 bytes"), "{document:#}");
    assert!(messages(&document, "notes", "tree/sealed.sqlite3").contains("encrypted"), "{document:#}");
    assert!(messages(&document, "notes", "tree/gone.db-wal").contains("gone.db, which does not exist"), "{document:#}");
    assert_eq!(document["notes"].as_array().unwrap().len(), 3, "{document:#}");
    for (name, words) in [
        ("tree/empty.db", "0 bytes"),
        ("tree/sealed.sqlite3", "not an SQLite database"),
        ("tree/missing.db", "cannot access"),
    ] {
        let run = sandbox.run(&["inventory", "tree/app.db", name, "--json"]).code(3).says(words);
        let document = run.json();
        assert_eq!(
            (paths(&document), &document["ok"]),
            (vec!["tree/app.db".to_owned()], &false.into()),
            "{}",
            run.transcript()
        );
        assert!(messages(&document, "problems", name).contains(words), "{}", run.transcript());
    }
    // A database with an invalid header is damaged, and always a failure.
    let mut bytes = fs::read(sandbox.path("tree/app.db")).unwrap();
    bytes[16..18].copy_from_slice(&[3, 3]);
    fs::write(sandbox.path("tree/broken"), bytes).unwrap();
    let run = sandbox.run(&["inventory", "tree", "--json"]).code(3).says("its header is invalid");
    assert_eq!(paths(&run.json()), ["tree/app.db"]);
}

#[test]
fn the_wal_and_the_shm_of_a_database_can_be_arguments_too() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "wal");
    let writer = open(sandbox.path("app.db"));
    writer.execute_batch("INSERT INTO logs VALUES ('now', 'in the WAL')").unwrap();
    let document = sandbox.json(&["inventory", "app.db-wal", "app.db-shm", "app.db"]);
    assert_eq!((paths(&document), document["notes"].as_array().unwrap().len()), (vec!["app.db".to_owned()], 0));
    drop(writer);
}

#[test]
fn an_inventory_without_a_database_fails() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("empty/er")).unwrap();
    let run = sandbox.run(&["inventory", "empty", "--json"]).code(3).says("no SQLite database was found");
    assert_eq!(run.json()["databases"], serde_json::json!([]));
    sandbox.run(&["inventory"]).code(2);
    sandbox.run(&["inventory", "empty", "--tag", "x"]).code(2);
    sandbox.run(&["inventory", "empty", "--watch", "soon"]).code(2);
    sandbox.run(&["inventory", "empty", "--snapshot"]).code(2).says("no store is named");
}

#[test]
fn unreadable_files_fail_and_the_others_are_listed() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("tree/shut")).unwrap();
    sample(sandbox.path("tree/app.db"), 2, "delete");
    sample(sandbox.path("tree/shut/hidden.db"), 2, "delete");
    sample(sandbox.path("tree/mine.db"), 2, "delete");
    symlink("not-mounted/x.db", sandbox.path("tree/lost.db")).unwrap();
    let run = sandbox.run(&["inventory", "tree", "--json"]).code(3).says("is a broken link");
    assert!(messages(&run.json(), "problems", "tree/lost.db").contains("is a broken link"), "{}", run.transcript());
    assert_eq!(paths(&run.json()), ["tree/app.db", "tree/mine.db", "tree/shut/hidden.db"]);
    fs::remove_file(sandbox.path("tree/lost.db")).unwrap();
    fs::set_permissions(sandbox.path("tree/shut"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(sandbox.path("tree/mine.db"), fs::Permissions::from_mode(0o000)).unwrap();
    let run = run_without_root(&sandbox, &["inventory", "tree", "--json"]);
    fs::set_permissions(sandbox.path("tree/shut"), fs::Permissions::from_mode(0o700)).unwrap();
    let run = run.code(3);
    assert_eq!(paths(&run.json()), ["tree/app.db"], "{}", run.transcript());
    assert!(messages(&run.json(), "problems", "tree/shut").contains("cannot list"), "{}", run.transcript());
    assert!(messages(&run.json(), "problems", "tree/mine.db").contains("cannot read"), "{}", run.transcript());
}

#[test]
fn databases_in_a_read_only_folder_are_read() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("tree")).unwrap();
    sample(sandbox.path("tree/rollback.db"), 3, "delete");
    sample(sandbox.path("tree/wal.db"), 4, "wal");
    for name in ["tree/rollback.db", "tree/wal.db"] {
        fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(0o444)).unwrap();
    }
    fs::set_permissions(sandbox.path("tree"), fs::Permissions::from_mode(0o555)).unwrap();
    let before = sandbox.state();
    let run = run_without_root(&sandbox, &["inventory", "tree", "--json"]);
    fs::set_permissions(sandbox.path("tree"), fs::Permissions::from_mode(0o755)).unwrap();
    let run = run.code(0);
    let document = run.json();
    assert_eq!(rows(database(&document, "tree/rollback.db"), "accounts"), Some(3), "{}", run.transcript());
    assert_eq!(rows(database(&document, "tree/wal.db"), "accounts"), Some(4), "{}", run.transcript());
    assert!(messages(&document, "notes", "tree/wal.db").contains("without locks"), "{}", run.transcript());
    assert_eq!(sandbox.state(), before);
}

#[test]
fn unusual_file_names_are_listed_and_escaped() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("tree")).unwrap();
    let odd = sandbox.path("tree").join(OsStr::from_bytes(b"a\xffb.db"));
    sample(&odd, 2, "delete");
    sample(sandbox.path("tree/two\nlines.db"), 3, "wal");
    sample(sandbox.path("tree/持仓.db"), 4, "delete");
    let document = sandbox.json(&["inventory", "tree"]);
    assert_eq!(paths(&document), ["tree/a\u{fffd}b.db", "tree/two\nlines.db", "tree/持仓.db"]);
    assert_eq!(rows(database(&document, "tree/two\nlines.db"), "accounts"), Some(3));
    let run = sandbox.ok(&["inventory", "tree"]);
    assert!(run.stdout().contains("tree/two\\nlines.db\n"), "{}", run.transcript());
    // A path that is not UTF-8 cannot be recorded as an origin, so this database is reported and not saved.
    let run =
        sandbox.run(&["inventory", "tree", "--snapshot", "--store", "backups", "--json"]).code(2).says("not UTF-8");
    assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 2, "{}", run.transcript());
}

#[test]
fn a_hot_journal_is_rolled_back_in_a_copy_only() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("live")).unwrap();
    sample(sandbox.path("live/app.db"), 20, "delete");
    let writer = open(sandbox.path("live/app.db"));
    writer.execute_batch("PRAGMA cache_size = 5; BEGIN IMMEDIATE; UPDATE logs SET body = body || 'x'").unwrap();
    assert!(sandbox.path("live/app.db-journal").metadata().unwrap().len() > 512, "the journal was not written yet");
    // A copy of the files has the state after a power failure.
    copy_folder(&sandbox.path("live"), &sandbox.path("crashed"));
    drop(writer);
    let before = sandbox.state();
    let run = sandbox.ok(&["inventory", "crashed", "--json"]);
    let document = run.json();
    let app = &document["databases"][0];
    assert_eq!((&app["path"], &app["problem"]), (&"crashed/app.db".into(), &Value::Null), "{}", run.transcript());
    assert_eq!(app["tables"], sandbox.json(&["inventory", "live"])["databases"][0]["tables"]);
    assert!(app["journal_bytes"].as_u64().unwrap() > 512, "{document:#}");
    assert!(document["notes"][0]["message"].as_str().unwrap().contains("hot journal"), "{document:#}");
    assert_eq!(sandbox.state(), before, "the journal was rolled back\n{}", run.transcript());
    sandbox.ok(&["inventory", "crashed", "--watch", "0s"]);
}

#[test]
fn a_wal_with_changes_beside_a_database_in_another_mode_is_a_problem() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "wal");
    let writer = open(sandbox.path("app.db"));
    writer.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    writer.execute_batch("INSERT INTO logs VALUES ('now', 'in the WAL')").unwrap();
    drop(writer);
    // The header says that the database is not in WAL mode. This happens if a file is replaced with an old copy and the
    // WAL of the file before it is not removed.
    let mut bytes = fs::read(sandbox.path("app.db")).unwrap();
    bytes[18..20].copy_from_slice(&[1, 1]);
    fs::write(sandbox.path("app.db"), bytes).unwrap();
    let before = lasting_files(&sandbox);
    let run = sandbox.run(&["inventory", ".", "--json"]).code(3);
    let problem = database(&run.json(), "./app.db")["problem"].to_string();
    assert!(problem.contains("the file is not in WAL mode"), "{}", run.transcript());
    assert_eq!(lasting_files(&sandbox), before);
}

#[test]
fn a_damaged_database_is_reported_and_the_others_are_listed() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("good.db"), 2, "delete");
    sample(sandbox.path("bad.db"), 200, "delete");
    let length = fs::metadata(sandbox.path("bad.db")).unwrap().len() as usize;
    crate::helpers::flip_bytes(sandbox.path("bad.db"), 4096 * 2, length - 4096 * 2);
    let run = sandbox.run(&["inventory", ".", "--json"]).code(3);
    let document = run.json();
    assert_eq!(rows(database(&document, "./good.db"), "accounts"), Some(2));
    assert!(database(&document, "./bad.db")["problem"].is_string(), "{}", run.transcript());
    assert!(database(&document, "./bad.db")["rows"].is_null(), "{}", run.transcript());
}

#[test]
fn two_thousand_databases_are_found_and_watched() {
    let sandbox = Sandbox::new();
    sql(sandbox.path("one.db"), "PRAGMA page_size = 512; CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)");
    for folder in 0..20 {
        fs::create_dir_all(sandbox.path(format!("tree/{folder}"))).unwrap();
        for file in 0..100 {
            fs::copy(sandbox.path("one.db"), sandbox.path(format!("tree/{folder}/{file}.db"))).unwrap();
        }
    }
    // Many systems limit the number of open files to 1024.
    let output = shell_ok(&sandbox, &format!("ulimit -S -n 1024; {LIFEBOAT} inventory tree --watch 0s --json"));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((databases(&document).len(), &document["watch"]["still"]), (2000, &true.into()));
    let total: u64 = databases(&document).iter().map(|database| database["rows"].as_u64().unwrap()).sum();
    assert_eq!(total, 4000);
}

#[test]
fn all_databases_are_saved_under_stable_names() {
    let sandbox = Sandbox::new();
    for folder in ["data/a", "data/b"] {
        fs::create_dir_all(sandbox.path(folder)).unwrap();
    }
    sample(sandbox.path("data/a/app.db"), 2, "delete");
    sample(sandbox.path("data/trades.sqlite"), 5, "wal");
    let sources = |arguments: &[&str]| -> Vec<(String, String)> {
        let document = sandbox.json(arguments);
        let snapshots = document["snapshots"].as_array().unwrap().iter();
        let mut sources: Vec<(String, String)> = snapshots
            .map(|snapshot| {
                let path = snapshot["origin"]["path"].as_str().unwrap();
                let path = Path::new(path).strip_prefix(sandbox.path("data").canonicalize().unwrap()).unwrap();
                (path.to_str().unwrap().to_owned(), snapshot["source"].as_str().unwrap().to_owned())
            })
            .collect();
        sources.sort();
        sources
    };
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(path, name)| ((*path).to_owned(), (*name).to_owned())).collect()
    };
    let save = ["inventory", "data", "--snapshot", "--store", "backups", "--tag", "m0"];
    assert_eq!(sources(&save), pairs(&[("a/app.db", "app"), ("trades.sqlite", "trades")]));
    // A second database of the same name gets the name of its folder too, and the first one keeps its name.
    sample(sandbox.path("data/b/app.db"), 3, "delete");
    let both = pairs(&[("a/app.db", "app"), ("b/app.db", "b-app"), ("trades.sqlite", "trades")]);
    assert_eq!(sources(&save), both);
    assert_eq!(sources(&save), both);
    let second = sources(&["inventory", "data/b", "--snapshot", "--store", "backups"]);
    assert_eq!(second, pairs(&[("b/app.db", "b-app")]));
    // In a new store neither of them is first, so both get the names of their folders.
    let fresh = sources(&["inventory", "data", "--snapshot", "--store", "fresh"]);
    assert_eq!(fresh, pairs(&[("a/app.db", "a-app"), ("b/app.db", "b-app"), ("trades.sqlite", "trades")]));
    let document = sandbox.json(&["list", "--store", "backups", "--source", "b-app", "--tag", "m0"]);
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 2);
    sandbox.ok(&["restore", "latest", "--source", "b-app", "--store", "backups", "--to", "back.db"]);
    assert_eq!(content(sandbox.path("back.db")), content(sandbox.path("data/b/app.db")));
}

#[test]
fn a_database_that_cannot_be_saved_does_not_prevent_the_others() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 2, "delete");
    sql(sandbox.path("data/hollow.db"), "CREATE TABLE t (a); DROP TABLE t");
    let save = ["inventory", "data", "--snapshot", "--store", "backups", "--json"];
    let run = sandbox.run(&save).code(3).says("the database is empty");
    let document = run.json();
    assert_eq!(
        (databases(&document).len(), document["snapshots"].as_array().unwrap().len()),
        (2, 1),
        "{}",
        run.transcript()
    );
    assert_eq!(document["ok"], false);
    let document = sandbox.json(&["inventory", "data", "--snapshot", "--store", "backups", "--allow-empty"]);
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 2);
    sandbox.run(&["inventory", "data", "--snapshot", "--store", "backups", "--tag", "predeploy"]).code(2);
}

#[test]
fn databases_of_the_config_are_saved_under_their_names_in_it() {
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 2, "delete");
    sample(sandbox.path("data/main.db"), 2, "delete");
    let config = "[[store]]\nurl = \"backups\"\n[[source]]\nname = \"main\"\nurl = \"data/app.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    crate::helpers::empty_store(&sandbox.path("backups"));
    let document = sandbox.json(&["inventory", "data", "--snapshot"]);
    let names: Vec<&str> =
        document["snapshots"].as_array().unwrap().iter().map(|saved| saved["source"].as_str().unwrap()).collect();
    assert_eq!(names, ["main", "data-main"]);
}

#[test]
fn a_watch_passes_unchanged_databases_and_names_the_processes_that_have_them_open() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("held.db"), 2, "wal");
    sample(sandbox.path("free.db"), 2, "delete");
    let holder = open(sandbox.path("held.db"));
    assert_eq!(holder.query_row("SELECT count(*) FROM accounts", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    let run = sandbox.run(&["inventory", ".", "--watch", "1s", "--snapshot", "--store", "backups", "--json"]).code(0);
    let document = run.json();
    assert_eq!((&document["watch"]["still"], document["snapshots"].as_array().unwrap().len()), (&true.into(), 2));
    assert!(document["watch"]["seconds"].as_f64().unwrap() >= 1.0, "{}", run.transcript());
    let held = database(&document, "./held.db");
    assert_eq!(
        (held["holders"][0]["pid"].as_u64(), &held["holders"][0]["writes"]),
        (Some(std::process::id().into()), &true.into())
    );
    assert!(held["holders"][0]["command"].is_string(), "{}", run.transcript());
    assert_eq!(held["changes"], serde_json::json!([]));
    assert_eq!(database(&document, "./free.db")["holders"], serde_json::json!([]));
    let note = messages(&document, "notes", "./held.db");
    assert!(note.contains(&format!("process {}", std::process::id())) && note.contains("not changed"), "{note}");
    assert!(sandbox.ok(&["inventory", ".", "--watch", "0s"]).stdout().contains("nothing changed for 0s\n"));
    drop(holder);
}

/// A thread that inserts rows into a database until it is stopped, and counts them.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU32>,
    thread: Option<std::thread::JoinHandle<u32>>,
}

impl Writer {
    fn start(path: &Path, busy_timeout: Duration) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (is_stopped, count, path) = (Arc::clone(&stop), Arc::clone(&written), path.to_owned());
        let thread = std::thread::spawn(move || {
            let connection = open(&path);
            connection.busy_timeout(busy_timeout).unwrap();
            let mut failed_inserts = 0;
            while !is_stopped.load(Ordering::SeqCst) {
                match connection.execute("INSERT INTO logs VALUES ('now', 'more')", []) {
                    Ok(_) => drop(count.fetch_add(1, Ordering::SeqCst)),
                    Err(_) => failed_inserts += 1,
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            failed_inserts
        });
        let writer = Writer { stop, written, thread: Some(thread) };
        while writer.written.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        writer
    }

    /// Stops the thread and returns the number of inserts that failed.
    fn finish(mut self) -> u32 {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_database_that_changes_is_named_and_nothing_is_saved() {
    for journal in ["wal", "delete"] {
        let sandbox = Sandbox::new();
        sample(sandbox.path("busy.db"), 2, journal);
        sample(sandbox.path("still.db"), 2, journal);
        let busy_timeout = if journal == "wal" { Duration::ZERO } else { Duration::from_secs(5) };
        let writer = Writer::start(&sandbox.path("busy.db"), busy_timeout);
        let arguments =
            ["inventory", "busy.db", "still.db", "--watch", "1s", "--snapshot", "--store", "backups", "--json"];
        let run = sandbox.run(&arguments).code(3).says("busy.db changed while it was watched");
        let failed_inserts = writer.finish();
        let document = run.json();
        let changes = database(&document, "busy.db")["changes"].to_string();
        assert!(changes.contains("another program committed"), "{journal}: {}", run.transcript());
        assert_eq!(
            database(&document, "still.db")["changes"],
            serde_json::json!([]),
            "{journal}: {}",
            run.transcript()
        );
        assert_eq!((&document["watch"]["still"], &document["ok"]), (&false.into(), &false.into()));
        assert!(document.get("snapshots").is_none() && !sandbox.path("backups").exists(), "{}", run.transcript());
        assert!(messages(&document, "problems", "busy.db").contains(&format!("process {}", std::process::id())));
        assert_eq!(failed_inserts, 0, "{journal}: inserts failed during the watch");
        let run = sandbox.run(&["inventory", "still.db", "--watch", "0s"]).code(0);
        assert!(!run.stdout().contains("CHANGED"), "{}", run.transcript());
        assert!(count(sandbox.path("busy.db"), "logs") > 20);
    }
}

#[test]
fn an_interrupted_watch_ends_at_once() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "wal");
    fs::remove_file(sandbox.path("app.db-shm")).unwrap_or_default();
    let start = std::time::Instant::now();
    let running = sandbox.start(&["inventory", "app.db", "--watch", "10m", "--json"]);
    // SQLite creates this file when the watch opens the database.
    while !sandbox.path("app.db-shm").exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "the watch has not begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.signal(rustix::process::Signal::INT);
    let run = running.finish().code(130);
    assert_eq!(run.json()["error"]["kind"], "interrupted");
    assert!(start.elapsed() < Duration::from_secs(90));
}

#[test]
fn a_database_whose_header_is_only_in_its_wal_or_journal_is_listed() {
    let sandbox = Sandbox::new();
    for folder in ["wal", "hot", "elsewhere"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
    }
    let mut files = wal(&sandbox.path("elsewhere"), "", ROWS);
    files.main.fill(0);
    files.write(&sandbox.path("wal/state"));
    // Page 1 was only written in part when the program was killed.
    let mut files = hot(&sandbox.path("elsewhere"), ROWS, "DELETE FROM t; CREATE TABLE more(a)");
    files.main[..100].fill(0xff);
    files.write(&sandbox.path("hot/state"));
    let before = sandbox.state();
    for folder in ["wal", "hot"] {
        for path in [folder.to_owned(), format!("{folder}/state")] {
            let run = sandbox.ok(&["inventory", &path, "--json"]);
            let database = &run.json()["databases"][0];
            assert_eq!(database["path"], format!("{folder}/state"), "{}", run.transcript());
            assert_eq!(
                (&database["rows"], &database["tables"][0]["name"]),
                (&1000.into(), &"t".into()),
                "{database:#}"
            );
        }
    }
    assert_eq!(sandbox.state(), before);
}

#[test]
fn an_empty_file_behind_a_link_is_named_if_there_is_a_wal_beside_it() {
    let sandbox = Sandbox::new();
    for folder in ["real", "links"] {
        fs::create_dir(sandbox.path(folder)).unwrap();
    }
    let files = Files { main: Vec::new(), ..wal(&sandbox.path("real"), "", ROWS) };
    files.write(&sandbox.path("real/state"));
    std::os::unix::fs::symlink("../real/state", sandbox.path("links/state")).unwrap();
    sandbox.run(&["inventory", "links"]).code(3).says("do not belong together");
    assert!(sandbox.path("real/state-wal").exists());
}
