//! `snapshot` of SQLite databases: sources, names, stores, and databases in every state.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::helpers::{
    SNAPSHOT_FIELDS, assert_has_fields, empty_store, error_document, id_of, refused, refused_by_the_parser, shell_ok,
    silent, sql,
};
use crate::support::{Sandbox, content, have, open, sample};

/// Creates a sandbox with a database, but without a store.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("scratch")).unwrap();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox
}

#[test]
fn snapshot_of_a_database_is_listed() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "wal");
    let id = sandbox.snapshot("app.db");
    assert_eq!(sandbox.ids(), [id]);
}

#[test]
fn snapshot_documents_have_every_field() {
    let sandbox = sandbox();
    let document = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--tag", "a", "--tag", "b"]);
    let snapshot = &document["snapshots"][0];
    assert_has_fields(snapshot, SNAPSHOT_FIELDS);
    let id = id_of(&document);
    assert_eq!(snapshot["source"], "app");
    assert_eq!(snapshot["kind"], "full");
    assert_eq!(snapshot["engine"], "sqlite");
    assert_eq!(snapshot["codec"], "gzip");
    assert_eq!(snapshot["encrypted"], false);
    assert_eq!(snapshot["tags"], json!(["a", "b"]));
    assert_eq!(snapshot["archive"], format!("{id}.tar.gz"));
    let archive = fs::read(sandbox.path(format!("backups/app/{id}.tar.gz"))).unwrap();
    assert_eq!(snapshot["archive_bytes"], archive.len());
    assert_eq!(snapshot["sha256"], lifeboat::platform::digest::Sha256::of(&archive).to_string());
    assert_eq!(snapshot["raw_bytes"], fs::metadata(sandbox.path("app.db")).unwrap().len());
    for table in snapshot["tables"].as_array().unwrap() {
        assert_has_fields(table, &["name", "rows", "bytes", "digest"]);
    }
}

#[test]
fn snapshot_text_names_the_id_the_rows_and_the_size() {
    let sandbox = sandbox();
    sandbox.snapshot("app.db");
    let run = silent(sandbox.ok(&["snapshot", "app.db", "--store", "backups"]));
    let line = run.stdout().lines().next().unwrap().to_owned();
    assert!(line.starts_with(&sandbox.ids()[0]), "{}", run.transcript());
    assert!(line.contains("rows") && line.contains("tables"), "{}", run.transcript());
}

#[test]
fn every_compression_can_be_restored() {
    let sandbox = sandbox();
    for (index, compression) in ["gzip", "gzip:1", "gzip:9", "zstd", "zstd:1", "zstd:19"].iter().enumerate() {
        let document = sandbox.json(&["snapshot", "app.db", "--compression", compression, "--store", "backups"]);
        let codec = compression.split(':').next().unwrap();
        assert_eq!(document["snapshots"][0]["codec"], codec);
        let copy = format!("{index}.db");
        sandbox.ok(&["restore", &id_of(&document), "--to", &copy, "--store", "backups"]);
        assert_eq!(fs::read(sandbox.path(copy)).unwrap(), fs::read(sandbox.path("app.db")).unwrap());
    }
    for compression in ["gzip:0", "gzip:10", "zstd:0", "zstd:20", "zstd:-1", "gzip:", "gzip:six", "xz", "", "GZIP"] {
        refused_by_the_parser(&sandbox, &["snapshot", "app.db", "--compression", compression, "--store", "new"]);
    }
}

#[test]
fn a_file_that_is_not_an_sqlite_database_is_refused() {
    let sandbox = sandbox();
    fs::write(sandbox.path("text.db"), "this is a diary, not a database\n".repeat(500)).unwrap();
    // An encrypted database looks like random bytes.
    let mut state = 1u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(40960).collect();
    fs::write(sandbox.path("noise.db"), noise).unwrap();
    empty_store(&sandbox.path("backups"));
    for name in ["text.db", "noise.db"] {
        refused(&sandbox, &["snapshot", name, "--store", "backups"], 2).says(name).says("hint: ");
        let run = sandbox.run(&["snapshot", name, "--store", "backups", "--json"]).code(2);
        error_document(&run, "usage");
    }
    assert!(sandbox.ids().is_empty());
}

#[test]
fn a_refused_source_creates_no_store() {
    let sandbox = sandbox();
    fs::write(sandbox.path("text.db"), "this is a diary, not a database\n".repeat(500)).unwrap();
    fs::write(sandbox.path("zero.db"), "").unwrap();
    refused(&sandbox, &["snapshot", "missing.db", "--store", "backups"], 5);
    refused(&sandbox, &["snapshot", ".", "--store", "backups"], 2);
    refused(&sandbox, &["snapshot", "text.db", "--store", "backups"], 2);
    refused(&sandbox, &["snapshot", "zero.db", "--store", "backups"], 3);
}

#[test]
fn a_path_that_is_not_a_regular_file_is_refused() {
    let sandbox = sandbox();
    empty_store(&sandbox.path("backups"));
    shell_ok(&sandbox, "mkfifo pipe; mkdir folder; ln -s nowhere dangling; ln -s loop loop");
    refused(&sandbox, &["snapshot", "missing.db", "--store", "backups"], 5).says("missing.db").says("hint: ");
    refused(&sandbox, &["snapshot", "no/such/folder/x.db", "--store", "backups"], 5);
    refused(&sandbox, &["snapshot", "app.db/x.db", "--store", "backups"], 5);
    refused(&sandbox, &["snapshot", "dangling", "--store", "backups"], 5);
    refused(&sandbox, &["snapshot", "loop", "--store", "backups"], 5);
    refused(&sandbox, &["snapshot", "folder", "--store", "backups"], 2).says("folder");
    refused(&sandbox, &["snapshot", "/", "--store", "backups"], 2);
    refused(&sandbox, &["snapshot", "pipe", "--store", "backups"], 2).says("regular");
    refused(&sandbox, &["snapshot", "/dev/zero", "--store", "backups"], 2);
    refused(&sandbox, &["snapshot", "", "--store", "backups"], 2);
    refused(&sandbox, &["snapshot", "sqlite://", "--store", "backups"], 2);
    refused(&sandbox, &["snapshot", "line\nbreak.db", "--store", "backups"], 5).says("line\\nbreak.db");
}

#[test]
fn a_folder_that_cannot_be_a_store_is_refused() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("foreign")).unwrap();
    fs::write(sandbox.path("foreign/holiday.jpg"), "x").unwrap();
    refused(&sandbox, &["snapshot", "app.db", "--store", "foreign"], 2).says("holiday.jpg");
    refused(&sandbox, &["snapshot", "app.db", "--store", "."], 2);
    refused(&sandbox, &["snapshot", "app.db", "--store", "app.db"], 5);
    refused(&sandbox, &["snapshot", "app.db", "--store", "app.db/backups"], 5);
    refused(&sandbox, &["snapshot", "app.db", "--store", "/proc/lifeboat-backups"], 5);
    refused(&sandbox, &["snapshot", "app.db"], 2).says("--store");
    fs::create_dir(sandbox.path("newer")).unwrap();
    fs::write(sandbox.path("newer/lifeboat.json"), "{\"lifeboat_store\":999}").unwrap();
    refused(&sandbox, &["snapshot", "app.db", "--store", "newer"], 2).says("999");
}

#[test]
fn a_new_store_is_readable_only_by_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = sandbox();
    fs::create_dir_all(sandbox.path("disk/lost+found")).unwrap();
    sandbox.ok(&["snapshot", "app.db", "--store", "disk"]);
    sandbox.ok(&["snapshot", "app.db", "--store", "new/deep/store"]);
    let mode = |name: &str| fs::metadata(sandbox.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("new/deep/store"), mode("new/deep/store/app")), (0o700, 0o700));
    for entry in fs::read_dir(sandbox.path("new/deep/store/app")).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn invalid_source_names_are_refused() {
    let sandbox = sandbox();
    let long = "n".repeat(65);
    let invalid =
        ["a\"b", "a'b", "a\nb", "a b", "ünïcode", "数据", "..", ".", "../x", "a/b", "-x", "", "_x", "a\\b", &long];
    for name in invalid {
        let name = format!("--name={name}");
        refused_by_the_parser(&sandbox, &["snapshot", "app.db", &name, "--store", "backups"]);
    }
    let longest = "n".repeat(64);
    for name in [&longest[..], "A.b_c-9", "9", "latest", "all"] {
        sandbox.ok(&["snapshot", "app.db", "--name", name, "--store", "backups"]);
        let id = id_of(&sandbox.json(&["list", "--source", name, "--store", "backups"]));
        sandbox.ok(&["verify", &id, "--store", "backups"]);
    }
}

#[test]
fn one_name_for_two_sources_is_refused() {
    let sandbox = sandbox();
    sample(sandbox.path("other.db"), 1, "delete");
    refused(&sandbox, &["snapshot", "app.db", "other.db", "--name", "x", "--store", "backups"], 2);
}

#[test]
fn a_source_named_twice_is_saved_once() {
    let sandbox = sandbox();
    symlink("app.db", sandbox.path("link.db")).unwrap();
    sandbox.ok(&["snapshot", "app.db", "./app.db", "link.db", "sqlite:///app.db", "--store", "backups"]);
    assert_eq!(sandbox.ids().len(), 1);
}

#[test]
fn a_name_that_belongs_to_another_origin_is_refused() {
    let sandbox = sandbox();
    sandbox.snapshot("app.db");
    fs::create_dir(sandbox.path("other")).unwrap();
    sample(sandbox.path("other/app.db"), 1, "delete");
    refused(&sandbox, &["snapshot", "other/app.db", "--store", "backups"], 2).says("--name");
    let moved = ["snapshot", "app.db", "--store", "backups", "--host", "another-host"];
    refused(&sandbox, &moved, 2).says("--name");
    let before = sandbox.state();
    let output = sandbox.command(&["snapshot", "app.db", "--store", "backups"]).env("LIFEBOAT_HOST", "box").output();
    assert_eq!(output.unwrap().status.code(), Some(2));
    assert_eq!(sandbox.state(), before);
    let document = sandbox.json(&["snapshot", "other/app.db", "--name", "other", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["source"], "other");
}

#[test]
fn the_host_in_the_origin_can_be_set() {
    let sandbox = sandbox();
    let output = sandbox.command(&["snapshot", "app.db", "--store", "backups"]).env("LIFEBOAT_HOST", "box").output();
    assert_eq!(output.unwrap().status.code(), Some(0));
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["origin"]["host"], "box");
}

#[test]
fn source_names_are_derived_from_unusual_file_names() {
    if !have(&["tar"]) {
        return;
    }
    let sandbox = sandbox();
    let files = [
        ("my app (1).sqlite3", "my-app-1"),
        ("we\"ird 'quoted'.db", "we-ird-quoted"),
        ("line\nbreak.db", "line-break"),
        ("-dash.db", "dash"),
        ("file:x?mode=ro.db", "file-x-mode-ro"),
        ("a%2Fb#c.db", "a-2Fb-c"),
        ("no extension", "no-extension"),
        (":memory:", "memory"),
        ("naïve café.db", "na-ve-caf"),
        ("..hidden.db", "hidden"),
        (&"long".repeat(40), &"long".repeat(16)),
    ];
    for (file, name) in files {
        sample(sandbox.root().join("x"), 2, "delete");
        fs::rename(sandbox.path("x"), sandbox.path(file)).unwrap();
        let document = sandbox.ok(&["snapshot", "--json", "--store", "backups", "--", file]).json();
        assert_eq!(document["snapshots"][0]["source"], name, "{file}");
        let path = document["snapshots"][0]["origin"]["path"].as_str().unwrap();
        assert_eq!(path, sandbox.path(file).canonicalize().unwrap().to_str().unwrap());
        let id = id_of(&document);
        let copy = format!("copy of {name}.db");
        sandbox.ok(&["restore", &id, "--to", &copy, "--store", "backups"]);
        assert_eq!(fs::read(sandbox.path(&copy)).unwrap(), fs::read(sandbox.path(file)).unwrap(), "{file}");
        sandbox.ok(&["restore", &id, "--replace", "--store", "backups"]);
        sandbox.ok(&["diff", &id, "--store", "backups"]);
        sandbox.ok(&["extract", &id, "--to", &format!("out of {name}"), "--store", "backups"]);
        shell_ok(&sandbox, &format!("tar xzf backups/{name}/{id}.tar.gz -O manifest.json > /dev/null"));
    }
}

#[test]
fn a_file_name_that_gives_no_valid_name_needs_a_name() {
    let sandbox = sandbox();
    empty_store(&sandbox.path("backups"));
    fs::copy(sandbox.path("app.db"), sandbox.path("数据.db")).unwrap();
    refused(&sandbox, &["snapshot", "数据.db", "--store", "backups"], 2).says("--name");
    let id = id_of(&sandbox.json(&["snapshot", "数据.db", "--name", "data", "--store", "backups"]));
    fs::remove_file(sandbox.path("数据.db")).unwrap();
    sandbox.ok(&["restore", &id, "--store", "backups"]);
    assert_eq!(content(sandbox.path("数据.db")), content(sandbox.path("app.db")));
}

#[test]
fn a_path_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = sandbox();
    let name = std::ffi::OsStr::from_bytes(b"bad-\xff.db");
    fs::copy(sandbox.path("app.db"), sandbox.path(name)).unwrap();
    let arguments = [std::ffi::OsStr::new("snapshot"), name, "--store".as_ref(), "backups".as_ref()];
    let output = sandbox.command(&arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("error:").count(), 1, "{stderr}");
}

#[test]
fn a_link_is_followed_to_the_database_and_its_wal() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("real")).unwrap();
    sample(sandbox.path("real/data.db"), 3, "wal");
    // While this connection is open, the row is in the WAL only.
    let writer = open(sandbox.path("real/data.db"));
    writer.execute_batch("INSERT INTO logs VALUES ('in', 'the wal')").unwrap();
    symlink("real/data.db", sandbox.path("link.db")).unwrap();
    let document = sandbox.json(&["snapshot", "link.db", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["source"], "data");
    sandbox.ok(&["restore", "latest", "--to", "copy.db", "--store", "backups"]);
    assert_eq!(content(sandbox.path("copy.db")), content(sandbox.path("real/data.db")));
}

#[test]
fn sqlite_urls_are_read_as_sqlalchemy_writes_them() {
    let sandbox = sandbox();
    fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/x.db"), 1, "delete");
    let absolute = format!("sqlite:///{}", sandbox.path("data/x.db").display());
    for url in ["sqlite:///data/x.db", "sqlite:///./data/x.db", "sqlite:///data/x.db?timeout=5", &absolute] {
        let document = sandbox.json(&["snapshot", url, "--store", "backups"]);
        assert_eq!(document["snapshots"][0]["source"], "x", "{url}");
    }
    assert_eq!(sandbox.ids().len(), 4);
}

#[test]
fn a_selection_of_tables_is_refused_for_sqlite() {
    let sandbox = sandbox();
    for flag in ["--table", "--exclude-table", "--exclude-data"] {
        refused(&sandbox, &["snapshot", "app.db", flag, "logs", "--store", "backups"], 2).says(flag);
    }
}

#[test]
fn an_empty_database_is_saved_only_with_allow_empty() {
    let sandbox = sandbox();
    fs::write(sandbox.path("zero.db"), "").unwrap();
    sql(sandbox.path("bare.db"), "CREATE TABLE t (a); DROP TABLE t");
    sql(sandbox.path("view.db"), "CREATE VIEW v AS SELECT 1");
    empty_store(&sandbox.path("backups"));
    for file in ["zero.db", "bare.db", "view.db"] {
        refused(&sandbox, &["snapshot", file, "--store", "backups"], 3).says("empty").says("--allow-empty");
        let run = sandbox.run(&["snapshot", file, "--store", "backups", "--json"]).code(3);
        assert_eq!(run.json()["snapshots"], json!([]), "{}", run.transcript());
        assert_has_fields(&run.json()["problems"][0], &["kind", "message"]);
        let id = id_of(&sandbox.json(&["snapshot", file, "--allow-empty", "--store", "backups"]));
        sandbox.ok(&["verify", &id, "--store", "backups"]);
        sandbox.ok(&["drill", &id, "--store", "backups"]);
        sandbox.ok(&["restore", &id, "--to", &format!("copy-{file}"), "--store", "backups"]);
        let (old, new) = (sandbox.path(file), sandbox.path(format!("copy-{file}")));
        assert_eq!(fs::read(old).unwrap(), fs::read(new).unwrap(), "{file}");
    }
}

#[test]
fn a_new_database_with_tables_and_no_rows_is_saved() {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), "CREATE TABLE t (a)");
    sandbox.snapshot("app.db");
}

#[test]
fn a_snapshot_of_an_emptied_database_is_refused() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (a); CREATE TABLE u (a); INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)",
    );
    let good_id = sandbox.snapshot("app.db");
    sql(sandbox.path("app.db"), "DELETE FROM t; DELETE FROM u");
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3).says(&good_id);
    sql(sandbox.path("app.db"), "DROP TABLE t; DROP TABLE u");
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3);
    fs::remove_file(sandbox.path("app.db")).unwrap();
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 5);
    fs::write(sandbox.path("app.db"), "").unwrap();
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3);
    assert_eq!(sandbox.ids(), [good_id]);
}

#[test]
fn rows_of_internal_tables_do_not_hide_an_emptied_database() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); CREATE INDEX i ON t (a); INSERT INTO t (a) VALUES (1), (2); ANALYZE",
    );
    let good_id = sandbox.snapshot("app.db");
    sql(sandbox.path("app.db"), "DELETE FROM t");
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3).says(&good_id);
}

#[test]
fn losses_since_the_previous_snapshot_are_reported() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 10, "delete");
    sql(sandbox.path("app.db"), "CREATE TABLE extra (a); INSERT INTO extra VALUES (1)");
    sandbox.snapshot("app.db");
    sql(sandbox.path("app.db"), "DELETE FROM accounts WHERE id > 2; DROP TABLE extra");
    let run = sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
    drop(run.says("accounts has 2 rows").says("extra is gone"));
}

#[test]
fn a_wal_that_is_in_use_is_saved_and_not_changed() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "wal");
    let writer = open(sandbox.path("app.db"));
    writer.execute_batch("PRAGMA wal_autocheckpoint = 0; INSERT INTO logs VALUES ('only', 'in the wal'); UPDATE accounts SET name = 'new'")
        .unwrap();
    let expected = content(sandbox.path("app.db"));
    let files = || (fs::read(sandbox.path("app.db")).unwrap(), fs::read(sandbox.path("app.db-wal")).unwrap());
    let before = files();
    assert!(!before.1.is_empty());
    sandbox.snapshot("app.db");
    assert!(files() == before, "the source was changed");
    sandbox.ok(&["diff", "latest", "--store", "backups"]);
    assert!(files() == before, "the source was changed");
    // A copy of the files is a database whose program has crashed: its WAL must be recovered. A snapshot does not
    // change this WAL either.
    fs::create_dir(sandbox.path("dead")).unwrap();
    for name in ["app.db", "app.db-wal"] {
        fs::copy(sandbox.path(name), sandbox.path("dead").join(name)).unwrap();
    }
    drop(writer);
    let dead = |name: &str| fs::read(sandbox.path("dead").join(name)).unwrap();
    let id = id_of(&sandbox.json(&["snapshot", "dead/app.db", "--name", "dead", "--store", "backups"]));
    assert!((dead("app.db"), dead("app.db-wal")) == before, "the source was changed");
    for (source, copy) in [("app", "one.db"), ("dead", "two.db")] {
        sandbox.ok(&["restore", "latest", "--source", source, "--to", copy, "--store", "backups"]);
        assert_eq!(content(sandbox.path(copy)), expected);
    }
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["sqlite"]["journal_mode"], "wal");
}

#[test]
fn a_hot_journal_is_rolled_back_before_the_snapshot() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("live.db"), 20, "delete");
    let expected = content(sandbox.path("live.db"));
    let writer = open(sandbox.path("live.db"));
    // With a cache of a few pages, SQLite writes uncommitted pages to the file and the original ones to the journal.
    writer
        .execute_batch("PRAGMA cache_size = 4; PRAGMA cache_spill = 4; BEGIN IMMEDIATE; UPDATE logs SET body = body || 'half done'; UPDATE accounts SET name = 'half'")
        .unwrap();
    fs::copy(sandbox.path("live.db"), sandbox.path("app.db")).unwrap();
    fs::copy(sandbox.path("live.db-journal"), sandbox.path("app.db-journal")).unwrap();
    writer.execute_batch("ROLLBACK").unwrap();
    assert!(
        fs::read(sandbox.path("app.db")).unwrap() != fs::read(sandbox.path("live.db")).unwrap(),
        "no uncommitted page was written"
    );
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
    assert_eq!(content(sandbox.path("copy.db")), expected);
}

#[test]
fn an_uncommitted_transaction_is_not_saved() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "wal");
    let expected = content(sandbox.path("app.db"));
    let writer = open(sandbox.path("app.db"));
    writer.execute_batch("BEGIN IMMEDIATE; DELETE FROM accounts; DELETE FROM logs").unwrap();
    sandbox.snapshot("app.db");
    writer.execute_batch("COMMIT").unwrap();
    sandbox.ok(&["restore", "latest", "--to", "copy.db", "--store", "backups"]);
    assert_eq!(content(sandbox.path("copy.db")), expected);
}

#[test]
fn a_snapshot_changes_neither_the_source_nor_its_folder() {
    for journal in ["delete", "wal"] {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path("scratch")).unwrap();
        sample(sandbox.path("app.db"), 3, journal);
        let before = sandbox.state();
        sandbox.snapshot("app.db");
        sandbox.ok(&["diff", "latest", "--store", "backups"]);
        refused(&sandbox, &["restore", "latest", "--to", "app.db", "--store", "backups"], 2);
        let mut after = sandbox.state();
        after.retain(|path, _| !path.starts_with("backups"));
        assert_eq!(after, before, "{journal}");
    }
}

#[test]
fn a_snapshot_that_locks_writers_for_too_long_is_refused() {
    let sandbox = sandbox();
    empty_store(&sandbox.path("backups"));
    let arguments = ["snapshot", "app.db", "--max-lock", "0", "--store", "backups"];
    refused(&sandbox, &arguments, 1).says("locked out").says("--max-lock");
    let run = sandbox.run(&["snapshot", "app.db", "--max-lock", "0", "--store", "backups", "--json"]).code(1);
    error_document(&run, "failed");
    // A reader of a WAL database does not lock writers.
    sample(sandbox.path("wal.db"), 3, "wal");
    sandbox.ok(&["snapshot", "wal.db", "--max-lock", "0", "--store", "backups"]);
}

#[test]
fn control_characters_in_the_path_of_a_store_are_escaped() {
    let sandbox = sandbox();
    let store = "odd \u{1b}[31m\nstore";
    let run = sandbox.ok(&["snapshot", "app.db", "--store", store]);
    assert_eq!(run.stderr().lines().count(), 1, "{}", run.transcript());
    assert!(!run.stderr().contains('\u{1b}'), "{}", run.transcript());
    let run = sandbox.ok(&["show", "--store", store]);
    assert!(run.stdout().contains("lifeboat restore"), "{}", run.transcript());
}

#[test]
fn an_outdated_full_text_index_is_saved_with_a_warning() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE note (body TEXT); INSERT INTO note VALUES ('old');
         CREATE VIRTUAL TABLE words USING fts4(body, content=\"note\"); INSERT INTO words (words) VALUES ('rebuild');
         UPDATE note SET body = 'new'",
    );
    let run = sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]).says("inverted index");
    assert_eq!(run.json()["snapshots"][0]["kind"], "full", "{}", run.transcript());
    sandbox.ok(&["drill", "latest", "--store", "backups"]);
}

#[test]
fn foreign_files_in_the_scratch_folder_are_not_touched() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    std::fs::create_dir_all(sandbox.path("scratch/lifeboat-scratch-x")).unwrap();
    shell_ok(&sandbox, "mkfifo scratch/lifeboat-scratch-x/making");
    sandbox.snapshot("app.db");
    assert!(sandbox.path("scratch/lifeboat-scratch-x/making").exists());
}

#[test]
fn a_database_that_has_moved_keeps_its_history() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("a.db"), 5, "delete");
    let save = |path: &str, more: &[&str]| {
        sandbox.run(&[&["snapshot", path, "--name", "app", "--store", "backups", "--json"], more].concat())
    };
    save("a.db", &[]).code(0);
    std::fs::create_dir(sandbox.path("data")).unwrap();
    std::fs::rename(sandbox.path("a.db"), sandbox.path("data/a.db")).unwrap();
    let run = save("data/a.db", &[]).code(2);
    assert!(run.stderr().contains("lifeboat snapshot --moved"), "{}", run.transcript());
    let moved = save("data/a.db", &["--moved"]).code(0).json();
    let from = moved["snapshots"][0]["moved_from"].as_array().unwrap();
    assert!(from.len() == 1 && from[0]["path"].as_str().unwrap().ends_with("/a.db"), "{moved:#}");
    // From now on the new place is the source's, and the old one is refused.
    let next = save("data/a.db", &[]).code(0).json();
    assert_eq!(next["snapshots"][0]["moved_from"], moved["snapshots"][0]["moved_from"]);
    sample(sandbox.path("a.db"), 5, "delete");
    save("a.db", &[]).code(2);
    // While the file of the source exists, a second one is not accepted in its place.
    save("a.db", &["--accept"]).code(2);
    // The whole history can be copied, in any order.
    sandbox.ok(&["copy", "--all", "--from", "backups", "--to", "far", "--create"]);
    let oldest = sandbox.ids().pop().unwrap();
    sandbox.ok(&["copy", &oldest, "--from", "backups", "--to", "older", "--create"]);
    sandbox.ok(&["copy", "--all", "--from", "backups", "--to", "older"]);
    // And back.
    std::fs::rename(sandbox.path("data/a.db"), sandbox.path("a.db")).unwrap();
    let back = save("a.db", &["--accept"]).code(0).json();
    assert_eq!(back["snapshots"][0]["moved_from"].as_array().unwrap().len(), 1, "{back:#}");
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
}
