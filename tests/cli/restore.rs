//! `restore` of whole SQLite databases: to a new path, over a database, over a damaged one, and the commands that undo
//! it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::helpers::{
    assert_has_fields, flip_bytes, id_of, query_value, refused, refused_by_the_parser, shell_ok, silent, sql,
};
use crate::support::bucket::Bucket;
use crate::support::{Sandbox, content, integrity, open, sample};

/// Creates `app.db`, takes a snapshot of it, and changes it. Returns the sandbox and the id of the snapshot.
fn changed_after_snapshot(journal: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 10, journal);
    let id = sandbox.snapshot("app.db");
    sql(
        sandbox.path("app.db"),
        "DELETE FROM accounts WHERE id > 5; UPDATE logs SET body = 'lost'; CREATE TABLE newer (a); INSERT INTO newer VALUES (1)",
    );
    (sandbox, id)
}

/// Another process that has a file open, and is killed when this is dropped.
struct Holder(Child);

impl Holder {
    fn open_file(sandbox: &Sandbox, name: &str) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "exec 3<\"$1\"; echo ready; exec cat >/dev/null", "sh", name])
            .current_dir(sandbox.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_restore_to_a_new_path_has_every_row() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    sandbox.snapshot("app.db");
    sandbox.ok(&["restore", "latest", "--store", "backups", "--to", "copy.db"]);
    assert_eq!(content(sandbox.path("app.db")), content(sandbox.path("copy.db")));
}

#[test]
fn a_restore_to_a_new_path_has_the_same_bytes_and_mode() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    fs::set_permissions(sandbox.path("app.db"), fs::Permissions::from_mode(0o640)).unwrap();
    let id = sandbox.snapshot("app.db");
    let document = sandbox.json(&["restore", &id, "--store", "backups", "--to", "copy.db"]);
    assert_eq!(fs::read(sandbox.path("app.db")).unwrap(), fs::read(sandbox.path("copy.db")).unwrap());
    assert_eq!(fs::metadata(sandbox.path("copy.db")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!((&document["id"], &document["mode"]), (&id.as_str().into(), &"create".into()));
    assert_eq!(document["target"], sandbox.path("copy.db").canonicalize().unwrap().to_str().unwrap());
    assert!(document["safety_snapshot"].is_null());
    for table in document["tables"].as_array().unwrap() {
        assert_has_fields(table, &["name", "rows", "ok"]);
        assert_eq!(table["ok"], true, "{document:#}");
    }
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert!(!sandbox.path("copy.db").exists());
    // The folder contains no other files.
    let mut names: Vec<_> = fs::read_dir(sandbox.root()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["app.db", "backups", "scratch"]);
}

#[test]
fn the_text_of_a_restore_names_snapshot_target_and_undo_command() {
    let (sandbox, id) = changed_after_snapshot("delete");
    let run = sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    for words in [&id[..], "app.db", "replace", "compared and equal", "undo: lifeboat restore"] {
        assert!(run.stdout().contains(words), "{words}\n{}", run.transcript());
    }
}

#[test]
fn nothing_is_overwritten_without_replace() {
    let (sandbox, id) = changed_after_snapshot("delete");
    fs::create_dir(sandbox.path("folder")).unwrap();
    fs::write(sandbox.path("zero"), "").unwrap();
    fs::write(sandbox.path("text"), "a letter").unwrap();
    shell_ok(&sandbox, "mkfifo pipe; ln -s loop loop");
    let refuse =
        |target: &str, code: i32| refused(&sandbox, &["restore", &id, "--to", target, "--store", "backups"], code);
    refuse("app.db", 2).says("--replace");
    refuse("zero", 2).says("--replace");
    refuse("text", 2).says("--replace");
    refuse("folder", 2);
    refuse("folder/", 2);
    refuse(".", 2);
    refuse("/", 2);
    refuse("..", 2);
    refuse("pipe", 2);
    refuse("/dev/null", 2);
    refuse("", 2);
    refuse("no/such/folder/x.db", 5).says("folder");
    refuse("app.db/x.db", 5);
    refuse("loop", 2);
    refused(&sandbox, &["restore", &id, "--store", "backups"], 2).says("--replace");
    refused(&sandbox, &["restore", &id, "--to", "app.db", "--create", "--store", "backups"], 2);
    refused(&sandbox, &["restore", &id, "--to", "folder", "--replace", "--store", "backups"], 2);
    refused_by_the_parser(&sandbox, &["restore", &id, "--to", "x.db", "--create", "--replace", "--store", "backups"]);
    for flags in [&["--swap"][..], &["--beside", "old"]] {
        let mut arguments = vec!["restore", &id, "--to", "x.db", "--store", "backups"];
        arguments.extend(flags);
        refused(&sandbox, &arguments, 2).says(flags[0]);
    }
}

#[test]
fn a_missing_snapshot_is_exit_code_4() {
    let (sandbox, _) = changed_after_snapshot("delete");
    refused(&sandbox, &["restore", "app-20200101T000000Z-0000", "--to", "x.db", "--store", "backups"], 4);
    refused(&sandbox, &["restore", "latest", "--source", "nope", "--to", "x.db", "--store", "backups"], 4);
}

#[test]
fn a_damaged_snapshot_is_refused_and_the_target_is_not_changed() {
    let (sandbox, id) = changed_after_snapshot("delete");
    flip_bytes(sandbox.path(format!("backups/app/{id}.tar.gz")), 700, 5);
    refused(&sandbox, &["restore", &id, "--to", "copy.db", "--store", "backups"], 3).says("damaged");
    refused(&sandbox, &["restore", &id, "--to", "app.db", "--replace", "--store", "backups"], 3);
    refused(&sandbox, &["restore", &id, "--to", "app.db", "--table", "accounts", "--replace", "--store", "backups"], 3);
    let run = sandbox.run(&["restore", &id, "--to", "copy.db", "--store", "backups", "--json"]).code(3);
    assert_eq!(run.json()["ok"], false, "{}", run.transcript());
}

#[test]
fn replace_restores_the_content_and_keeps_the_journal_mode() {
    for journal in ["delete", "wal"] {
        for target_journal in ["delete", "wal"] {
            let (sandbox, id) = changed_after_snapshot(journal);
            sandbox.ok(&["restore", &id, "--to", "expected.db", "--store", "backups"]);
            sample(sandbox.path("target.db"), 3, target_journal);
            let document = sandbox.json(&["restore", &id, "--to", "target.db", "--replace", "--store", "backups"]);
            assert_eq!(document["mode"], "replace");
            assert_eq!(
                content(sandbox.path("target.db")),
                content(sandbox.path("expected.db")),
                "{journal} over {target_journal}"
            );
            assert_eq!(integrity(sandbox.path("target.db")), "ok");
            assert_eq!(
                query_value(sandbox.path("target.db"), "PRAGMA journal_mode"),
                target_journal,
                "{journal} over {target_journal}"
            );
        }
    }
}

#[test]
fn replace_takes_a_safety_snapshot_which_the_undo_command_restores() {
    for journal in ["delete", "wal"] {
        let (sandbox, id) = changed_after_snapshot(journal);
        let before = content(sandbox.path("app.db"));
        let document = sandbox.json(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
        let safety = document["safety_snapshot"].as_str().unwrap().to_owned();
        let list = sandbox.json(&["list", "--store", "backups"]);
        assert_eq!((&list["snapshots"][0]["id"], &list["snapshots"][0]["kind"]), (&safety.into(), &"safety".into()));
        assert_eq!(
            sandbox.json(&["show", "latest", "--store", "backups"])["id"],
            id.as_str(),
            "a safety snapshot is the latest one"
        );
        assert!(content(sandbox.path("app.db")) != before);
        let undo = document["undo"].as_str().unwrap();
        shell_ok(&sandbox, undo);
        assert_eq!(content(sandbox.path("app.db")), before, "{undo}");
        assert_eq!(query_value(sandbox.path("app.db"), "PRAGMA journal_mode"), journal);
    }
}

#[test]
fn the_undo_command_works_in_any_folder() {
    let (sandbox, id) = changed_after_snapshot("delete");
    let before = content(sandbox.path("app.db"));
    let document = sandbox.json(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    shell_ok(&sandbox, &format!("cd scratch; {}", document["undo"].as_str().unwrap()));
    assert_eq!(content(sandbox.path("app.db")), before);
}

#[test]
fn the_undo_command_quotes_unusual_paths() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("it's a \"dir\" $HOME\n")).unwrap();
    let name = "it's a \"dir\" $HOME\n/-we ird'.db";
    sample(sandbox.path(name), 3, "delete");
    let snapshot = sandbox.json(&["snapshot", name, "--store", "back 'ups'"]);
    sql(sandbox.path(name), "DELETE FROM accounts");
    let before = content(sandbox.path(name));
    let document = sandbox.json(&["restore", &id_of(&snapshot), "--replace", "--store", "back 'ups'"]);
    assert!(content(sandbox.path(name)) != before);
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert_eq!(content(sandbox.path(name)), before);
}

#[test]
fn no_safety_takes_no_snapshot_and_prints_no_undo_command() {
    let (sandbox, id) = changed_after_snapshot("delete");
    let document = sandbox.json(&["restore", &id, "--to", "app.db", "--replace", "--no-safety", "--store", "backups"]);
    assert!(document["safety_snapshot"].is_null() && document["undo"].is_null(), "{document:#}");
    assert_eq!(sandbox.ids(), [id]);
    assert!(!content(sandbox.path("app.db")).contains_key("newer"));
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let (sandbox, id) = changed_after_snapshot("delete");
    fs::create_dir_all(sandbox.path("scratch")).unwrap();
    let before = sandbox.state();
    let cases: [(&[&str], &str); 3] = [
        (&["--to", "app.db", "--replace"], "replace"),
        (&["--to", "copy.db"], "create"),
        (&["--to", "app.db", "--table", "accounts", "--replace"], "tables"),
    ];
    for (flags, mode) in cases {
        let mut arguments = vec!["restore", &id, "--dry-run", "--store", "backups"];
        arguments.extend(flags);
        let document = sandbox.json(&arguments);
        assert_eq!((&document["dry_run"], &document["mode"]), (&true.into(), &mode.into()), "{document:#}");
        assert!(document["safety_snapshot"].is_null() && document["undo"].is_null(), "{document:#}");
        let run = silent(sandbox.ok(&arguments));
        assert!(run.stdout().contains("would be restored"), "{}", run.transcript());
        assert_eq!(sandbox.state(), before, "{mode}");
    }
    refused(&sandbox, &["restore", &id, "--to", "app.db", "--dry-run", "--store", "backups"], 2);
}

#[test]
fn a_dry_run_says_which_rows_would_be_replaced_and_how_long_it_takes() {
    let (sandbox, id) = changed_after_snapshot("delete");
    let arguments = |flags: &[&'static str]| {
        let mut arguments = vec!["restore".to_owned(), id.clone()];
        arguments.extend(["--store", "backups", "--to", "app.db", "--replace", "--dry-run"].map(str::to_owned));
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        arguments
    };
    let json = |flags: &[&'static str]| {
        let arguments = arguments(flags);
        sandbox.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let rows = |document: &Value| -> Vec<(String, Option<u64>, Option<u64>)> {
        let one = |table: &Value| {
            (table["table"].as_str().unwrap().to_owned(), table["rows_now"].as_u64(), table["rows_after"].as_u64())
        };
        document["overwrites"].as_array().unwrap().iter().map(one).collect()
    };
    let document = json(&[]);
    let found = rows(&document);
    assert!(found.contains(&("accounts".to_owned(), Some(5), Some(10))), "{document:#}");
    assert!(found.contains(&("newer".to_owned(), Some(1), None)), "{document:#}");
    assert!(document["estimated_seconds"].is_null(), "{document:#}");
    assert_eq!(rows(&json(&["--table", "accounts"])), [("accounts".to_owned(), Some(5), Some(10))]);
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    assert!(json(&[])["estimated_seconds"].as_f64().unwrap() > 0.0);
    let all = arguments(&[]);
    let run = silent(sandbox.ok(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    for words in ["ROWS NOW", "dropped", "nothing was changed", "as a drill has measured"] {
        assert!(run.stdout().contains(words), "{words}\n{}", run.transcript());
    }
}

#[test]
fn a_damaged_snapshot_is_not_said_to_be_restorable() {
    let (sandbox, good) = changed_after_snapshot("delete");
    let id = id_of(&sandbox.run(&["snapshot", "app.db", "--store", "backups", "--accept", "--json"]).json());
    flip_bytes(sandbox.path(format!("backups/app/{id}.tar.gz")), 100, 1);
    sandbox.run(&["verify", &id, "--store", "backups"]).code(3);
    refused(&sandbox, &["restore", &id, "--to", "copy.db", "--dry-run", "--store", "backups"], 3).says("is damaged");
    let show = sandbox.ok(&["show", &id, "--store", "backups"]).stdout();
    let (first, commands) = (show.lines().next().unwrap(), show.split("to look at it").nth(1).unwrap());
    assert!(first.starts_with("DAMAGED: ") && commands.contains("damaged"), "{show}");
    assert!(show.contains(&format!("the last good snapshot is {good}")), "{show}");
    let good_command = show.lines().find(|line| line.contains("lifeboat restore")).unwrap();
    assert!(good_command.contains(&good), "{show}");
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["last_good"], good.as_str());
    assert!(!sandbox.ok(&["show", &good, "--store", "backups"]).stdout().contains("damaged"));
}

#[test]
fn without_to_the_original_path_is_restored() {
    let (sandbox, id) = changed_after_snapshot("delete");
    sandbox.ok(&["restore", &id, "--replace", "--store", "backups"]);
    assert!(!content(sandbox.path("app.db")).contains_key("newer"));
    fs::remove_file(sandbox.path("app.db")).unwrap();
    let document = sandbox.json(&["restore", &id, "--store", "backups"]);
    assert_eq!(document["target"], sandbox.path("app.db").canonicalize().unwrap().to_str().unwrap());
}

#[test]
fn a_snapshot_from_another_host_needs_a_target() {
    let (sandbox, id) = changed_after_snapshot("delete");
    let arguments = ["restore", &id, "--replace", "--store", "backups", "--host", "elsewhere"];
    refused(&sandbox, &arguments, 2).says("--to");
    sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups", "--host", "elsewhere"]);
}

#[test]
fn a_symbolic_link_is_kept_and_its_target_is_replaced() {
    let (sandbox, id) = changed_after_snapshot("delete");
    fs::create_dir(sandbox.path("real")).unwrap();
    fs::rename(sandbox.path("app.db"), sandbox.path("real/data.db")).unwrap();
    symlink("real/data.db", sandbox.path("app.db")).unwrap();
    sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    assert!(fs::symlink_metadata(sandbox.path("app.db")).unwrap().is_symlink());
    assert!(!content(sandbox.path("real/data.db")).contains_key("newer"));
    symlink("real/later.db", sandbox.path("later.db")).unwrap();
    sandbox.ok(&["restore", &id, "--to", "later.db", "--store", "backups"]);
    assert!(fs::symlink_metadata(sandbox.path("later.db")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(sandbox.path("real/later.db")).unwrap().is_file());
    fs::write(sandbox.path("real/data.db"), "ruined ".repeat(1000)).unwrap();
    sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    assert!(fs::symlink_metadata(sandbox.path("app.db")).unwrap().is_symlink());
    assert_eq!(content(sandbox.path("real/data.db")), content(sandbox.path("real/later.db")));
}

#[test]
fn owner_and_mode_of_the_target_are_kept() {
    let (sandbox, id) = changed_after_snapshot("delete");
    let is_root = rustix::process::geteuid().is_root();
    for damaged in [false, true] {
        if damaged {
            fs::write(sandbox.path("app.db"), "ruined ".repeat(1000)).unwrap();
        }
        fs::set_permissions(sandbox.path("app.db"), fs::Permissions::from_mode(0o664)).unwrap();
        if is_root {
            std::os::unix::fs::chown(sandbox.path("app.db"), Some(12345), Some(23456)).unwrap();
        }
        sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
        let metadata = fs::metadata(sandbox.path("app.db")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o664, "damaged: {damaged}");
        if is_root {
            assert_eq!((metadata.uid(), metadata.gid()), (12345, 23456), "damaged: {damaged}");
        }
    }
}

#[test]
fn a_target_with_another_page_size_is_replaced() {
    for journal in ["delete", "wal"] {
        let (sandbox, id) = changed_after_snapshot("delete");
        sandbox.ok(&["restore", &id, "--to", "expected.db", "--store", "backups"]);
        sql(
            sandbox.path("target.db"),
            &format!(
                "PRAGMA page_size = 1024; PRAGMA journal_mode = {journal}; CREATE TABLE x (a); INSERT INTO x VALUES (1)"
            ),
        );
        let before = content(sandbox.path("target.db"));
        let document = sandbox.json(&["restore", &id, "--to", "target.db", "--replace", "--store", "backups"]);
        assert_eq!(content(sandbox.path("target.db")), content(sandbox.path("expected.db")));
        assert_eq!(integrity(sandbox.path("target.db")), "ok");
        shell_ok(&sandbox, document["undo"].as_str().unwrap());
        assert_eq!(content(sandbox.path("target.db")), before);
    }
}

#[test]
fn a_target_with_another_text_encoding_is_refused() {
    let (sandbox, id) = changed_after_snapshot("delete");
    sql(sandbox.path("target.db"), "PRAGMA encoding = 'UTF-16le'; CREATE TABLE x (a); INSERT INTO x VALUES ('x')");
    refused(&sandbox, &["restore", &id, "--to", "target.db", "--replace", "--store", "backups"], 2).says("UTF-16le");
}

#[test]
fn an_empty_file_can_be_replaced() {
    let (sandbox, id) = changed_after_snapshot("delete");
    sandbox.ok(&["restore", &id, "--to", "expected.db", "--store", "backups"]);
    fs::write(sandbox.path("target.db"), "").unwrap();
    let document = sandbox.json(&["restore", &id, "--to", "target.db", "--replace", "--store", "backups"]);
    assert_eq!(content(sandbox.path("target.db")), content(sandbox.path("expected.db")));
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert!(content(sandbox.path("target.db")).is_empty());
}

#[test]
fn the_wal_and_the_journal_of_an_earlier_file_are_moved_aside() {
    let (sandbox, id) = changed_after_snapshot("wal");
    sandbox.ok(&["restore", &id, "--to", "expected.db", "--store", "backups"]);
    // A WAL and a journal that an earlier database left at the path.
    let other = open(sandbox.path("other.db"));
    other.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE evil (a); INSERT INTO evil VALUES (1)").unwrap();
    fs::copy(sandbox.path("other.db-wal"), sandbox.path("new.db-wal")).unwrap();
    fs::write(sandbox.path("new.db-journal"), "old journal").unwrap();
    let document = sandbox.json(&["restore", &id, "--to", "new.db", "--store", "backups"]);
    assert_eq!(content(sandbox.path("new.db")), content(sandbox.path("expected.db")));
    let moved: Vec<_> = document["moved_aside"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(moved.len(), 2, "{document:#}");
    assert_eq!(fs::read(moved[0]).unwrap(), fs::read(sandbox.path("other.db-wal")).unwrap());
    assert_eq!(fs::read(moved[1]).unwrap(), b"old journal");
}

#[test]
fn a_damaged_target_is_moved_aside_with_its_wal_and_journal() {
    let (sandbox, id) = changed_after_snapshot("delete");
    sandbox.ok(&["restore", &id, "--to", "expected.db", "--store", "backups"]);
    flip_bytes(sandbox.path("app.db"), 0, 2000);
    fs::write(sandbox.path("app.db-wal"), "old wal").unwrap();
    fs::write(sandbox.path("app.db-shm"), "").unwrap();
    // A journal that starts with zeros is not hot, so SQLite does not roll it back.
    fs::write(sandbox.path("app.db-journal"), "\0\0\0\0old journal").unwrap();
    // The -shm file is a cache that SQLite can create again, so its content is not compared.
    let names = ["app.db", "app.db-wal", "app.db-journal"];
    let state = || names.map(|name| fs::read(sandbox.path(name)).ok());
    let before = state();
    let document = sandbox.json(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    assert_eq!(document["mode"], "replace-damaged");
    for name in ["app.db-wal", "app.db-shm", "app.db-journal"] {
        assert!(!sandbox.path(name).exists(), "{name} is beside the restored file");
    }
    assert_eq!(content(sandbox.path("app.db")), content(sandbox.path("expected.db")));
    let aside = document["moved_aside"][0].as_str().unwrap();
    for (name, bytes) in ["", "-wal", "-journal"].iter().zip(&before) {
        assert!(fs::read(format!("{aside}{name}")).ok() == *bytes, "{aside}{name} differs from the original file");
    }
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert!(state() == before, "the undo command does not restore the original files");
}

#[test]
fn the_undo_command_leaves_no_new_wal_beside_a_damaged_target() {
    let (sandbox, id) = changed_after_snapshot("wal");
    fs::write(sandbox.path("app.db"), "ruined ".repeat(1000)).unwrap();
    for name in ["app.db-wal", "app.db-shm"] {
        let _ = fs::remove_file(sandbox.path(name));
    }
    let document = sandbox.json(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    // The program starts again and writes to the database.
    let program = open(sandbox.path("app.db"));
    program.execute_batch("PRAGMA wal_autocheckpoint = 0; INSERT INTO logs VALUES ('new', 'work')").unwrap();
    assert!(sandbox.path("app.db-wal").exists());
    shell_ok(&sandbox, document["undo"].as_str().unwrap());
    assert_eq!(fs::read(sandbox.path("app.db")).unwrap(), "ruined ".repeat(1000).as_bytes());
    assert!(!sandbox.path("app.db-wal").exists(), "the WAL of the new file is beside the old file");
}

#[test]
fn a_damaged_target_that_another_process_has_open_is_refused() {
    let (sandbox, id) = changed_after_snapshot("delete");
    fs::write(sandbox.path("app.db"), "ruined ".repeat(1000)).unwrap();
    let arguments = ["restore", &id, "--to", "app.db", "--replace", "--store", "backups"];
    let holder = Holder::open_file(&sandbox, "app.db");
    refused(&sandbox, &arguments, 5).says(&holder.0.id().to_string());
    drop(holder);
    fs::write(sandbox.path("app.db-wal"), "old wal").unwrap();
    let holder = Holder::open_file(&sandbox, "app.db-wal");
    refused(&sandbox, &arguments, 5).says(&holder.0.id().to_string());
    drop(holder);
    sandbox.ok(&arguments);
}

#[test]
fn replace_works_with_open_readers_which_see_the_new_rows() {
    for journal in ["delete", "wal"] {
        let (sandbox, id) = changed_after_snapshot(journal);
        let reader = open(sandbox.path("app.db"));
        let before: i64 = reader.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap();
        sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
        let after: i64 = reader.query_row("SELECT count(*) FROM accounts", [], |row| row.get(0)).unwrap();
        assert_eq!((before, after), (5, 10), "{journal}");
        reader.execute_batch("INSERT INTO logs VALUES ('after', 'restore')").unwrap();
        assert_eq!(integrity(sandbox.path("app.db")), "ok");
    }
}

#[test]
fn a_target_can_be_replaced_twice() {
    let (sandbox, id) = changed_after_snapshot("wal");
    for _ in 0..2 {
        sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]);
    }
    assert_eq!(sandbox.ids().len(), 3);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
}

#[test]
fn a_prefix_can_name_the_snapshot_and_a_url_the_target() {
    let (sandbox, id) = changed_after_snapshot("delete");
    sandbox.ok(&["restore", &id[..id.len() - 3], "--to", "sqlite:///copy.db", "--store", "backups"]);
    assert!(sandbox.path("copy.db").exists());
    sandbox.ok(&["restore", &id, "--to=-dash.db", "--store", "backups"]);
    assert!(sandbox.path("-dash.db").exists());
    sandbox.ok(&["restore", &id, "--to", "file:x?mode=memory", "--store", "backups"]);
    assert!(sandbox.path("file:x?mode=memory").exists());
}

#[test]
fn create_and_yes_are_accepted() {
    let (sandbox, id) = changed_after_snapshot("delete");
    sandbox.ok(&["restore", &id, "--to", "new.db", "--create", "--yes", "--store", "backups"]);
    sandbox.ok(&["restore", &id, "--to", "new.db", "--replace", "-y", "--store", "backups"]);
}

#[test]
fn a_table_that_could_not_be_compared_is_not_reported_as_equal() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE VIRTUAL TABLE odd USING fts5(body); CREATE TABLE t (a); INSERT INTO t VALUES (1);
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'fts5', 'no_such_module') WHERE name = 'odd'",
    );
    let id = sandbox.snapshot("app.db");
    let document = sandbox.json(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
    let odd = document["tables"].as_array().unwrap().iter().find(|table| table["name"] == "odd").unwrap();
    assert_eq!(odd["ok"], false, "the table cannot be compared: {document:#}");
}

#[test]
fn the_safety_snapshot_of_a_crashed_target_has_exactly_the_committed_rows() {
    let (sandbox, id) = changed_after_snapshot("delete");
    // A database with committed rows that are only in the WAL.
    let writer = open(sandbox.path("live.db"));
    writer.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (a); INSERT INTO t VALUES ('in the wal')").unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(sandbox.path(format!("live.db{suffix}")), sandbox.path(format!("wal.db{suffix}"))).unwrap();
    }
    let expected = content(sandbox.path("live.db"));
    drop(writer);
    // A database with uncommitted rows, which the journal must roll back.
    sample(sandbox.path("other.db"), 20, "delete");
    let committed = content(sandbox.path("other.db"));
    let writer = open(sandbox.path("other.db"));
    writer.execute_batch("PRAGMA cache_size = 4; PRAGMA cache_spill = 4; BEGIN IMMEDIATE; UPDATE logs SET body = body || 'half done'").unwrap();
    for suffix in ["", "-journal"] {
        fs::copy(sandbox.path(format!("other.db{suffix}")), sandbox.path(format!("hot.db{suffix}"))).unwrap();
    }
    writer.execute_batch("ROLLBACK").unwrap();
    for (target, before) in [("wal.db", expected), ("hot.db", committed)] {
        let document = sandbox.json(&["restore", &id, "--to", target, "--replace", "--store", "backups"]);
        assert!(content(sandbox.path(target)).contains_key("accounts") && integrity(sandbox.path(target)) == "ok");
        assert!(content(sandbox.path(target)) != before);
        shell_ok(&sandbox, document["undo"].as_str().unwrap());
        assert_eq!(content(sandbox.path(target)), before, "{target}");
    }
}

#[test]
fn rowids_are_kept_if_the_target_has_another_page_size() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "PRAGMA page_size = 4096; CREATE TABLE note (body TEXT);
         INSERT INTO note (rowid, body) VALUES (10, 'ten'), (20, 'twenty'), (30, 'thirty');
         CREATE VIRTUAL TABLE words USING fts5(body, content = 'note'); INSERT INTO words (words) VALUES ('rebuild')",
    );
    let id = sandbox.snapshot("app.db");
    sql(sandbox.path("other.db"), "PRAGMA page_size = 8192; CREATE TABLE t (a)");
    sandbox.ok(&["restore", &id, "--to", "other.db", "--replace", "--store", "backups"]);
    let connection = open(sandbox.path("other.db"));
    let query = "SELECT rowid FROM words WHERE words MATCH 'twenty'";
    assert_eq!(connection.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap(), 20);
    assert_eq!(connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0)).unwrap(), 8192);
}

#[test]
fn an_index_on_a_function_of_the_application_does_not_prevent_a_restore() {
    let sandbox = Sandbox::new();
    let connection = open(sandbox.path("app.db"));
    let flags = rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function("norm", 1, flags, |row| row.get::<String>(0)).unwrap();
    connection
        .execute_batch("CREATE TABLE u (email TEXT); INSERT INTO u VALUES ('a'); CREATE INDEX ux ON u (norm(email))")
        .unwrap();
    drop(connection);
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["drill", &id, "--store", "backups"]).says("norm");
    sandbox.ok(&["restore", "latest", "--to", "copy.db", "--store", "backups"]);
    assert_eq!(content(sandbox.path("copy.db")), content(sandbox.path("app.db")));
}

#[test]
fn a_dry_run_refuses_a_target_that_a_restore_would_refuse() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    sql(sandbox.path("wide.db"), "PRAGMA encoding = 'UTF-16le'; CREATE TABLE t (a); INSERT INTO t VALUES ('x')");
    for extra in ["--dry-run", "--yes"] {
        refused(&sandbox, &["restore", &id, "--to", "wide.db", "--replace", extra, "--store", "backups"], 2)
            .says("encoding");
    }
}

#[test]
fn before_is_refused_with_the_id_of_a_snapshot() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    refused(&sandbox, &["restore", &id, "--before", "2020-01-01", "--to", "new.db", "--store", "backups"], 2)
        .says("--before");
}

/// A guard that stops a writer when it is dropped, even if the test fails.
struct StopOnDrop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_database_under_constant_writes_is_replaced_or_not_changed() {
    for arguments in [&["--replace"][..], &["--table", "balances", "--replace"]] {
        let (sandbox, id) = changed_after_snapshot("wal");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            scope.spawn(|| {
                let connection = open(sandbox.path("app.db"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // The table exists before and after the restore. It does not matter if single inserts fail.
                    let _ = connection.execute("INSERT INTO logs VALUES ('now', 'busy')", []);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
            let mut command = vec!["restore", &id, "--to", "app.db", "--store", "backups", "--yes"];
            command.extend(arguments);
            // If rows are written between the safety snapshot and the restore, the restore is refused and tried again.
            let runs = (0..5)
                .map(|_| sandbox.run(&command))
                .find(|run| run.exit() == 0 || !run.stderr().contains("was written to"));
            runs.expect("five attempts were refused because rows were written").code(0);
        });
        assert_eq!(integrity(sandbox.path("app.db")), "ok");
    }
}

#[test]
fn a_restore_that_is_interrupted_while_it_prepares_prints_its_document() {
    // The service answers the first request for the archive only after the signal has arrived.
    let (asked, was_asked) = std::sync::mpsc::sync_channel(8);
    let is_slow = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let slow = std::sync::Arc::clone(&is_slow);
    let bucket = Bucket::special(move |request| {
        if slow.load(std::sync::atomic::Ordering::SeqCst) && request.method == "GET" {
            let _ = asked.try_send(());
            std::thread::park_timeout(std::time::Duration::from_secs(20));
        }
        None
    });
    let sandbox = Sandbox::new();
    sample(sandbox.path("a.db"), 5, "delete");
    Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &bucket.store()]).code(0);
    is_slow.store(true, std::sync::atomic::Ordering::SeqCst);
    let arguments = ["restore", "latest", "--to", "b.db", "--json", "--store", &bucket.store()];
    let running = sandbox.start_command(Bucket::command(&sandbox, &arguments));
    was_asked.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    running.signal(rustix::process::Signal::TERM);
    let run = running.finish().code(130);
    assert_eq!(run.json()["error"]["kind"], "interrupted", "{}", run.transcript());
    assert!(!sandbox.path("b.db").exists());
}
