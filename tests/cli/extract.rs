//! `extract`: whole archives, single entries, and tables as SQL or CSV.

use std::collections::BTreeSet;

use rusqlite::types::Value as Cell;

use crate::helpers::{assert_has_fields, flip_bytes, refused, refused_by_the_parser, shell_ok, silent, sql};
use crate::support::{Sandbox, content, have, open, sample};

/// Creates `app.db` and takes a snapshot of it. Returns the sandbox and the id.
fn database_with_snapshot() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 6, "delete");
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

#[test]
fn extract_writes_every_file_of_the_archive_to_a_new_folder() {
    let (sandbox, id) = database_with_snapshot();
    let document = sandbox.json(&["extract", &id, "--to", "folder", "--store", "backups"]);
    assert_eq!(document["id"], id.as_str());
    for file in document["files"].as_array().unwrap() {
        assert_has_fields(file, &["path", "bytes"]);
        let length = std::fs::metadata(sandbox.path(file["path"].as_str().unwrap())).unwrap().len();
        assert_eq!(file["bytes"], length);
    }
    let names: BTreeSet<_> =
        document["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["folder/README.txt", "folder/data/app.db", "folder/manifest.json"]));
    let (old, new) = (sandbox.path("app.db"), sandbox.path("folder/data/app.db"));
    assert_eq!(std::fs::read(old).unwrap(), std::fs::read(new).unwrap());
}

#[test]
fn extract_accepts_an_empty_folder_and_refuses_others() {
    let (sandbox, id) = database_with_snapshot();
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    silent(sandbox.ok(&["extract", &id, "--to", "empty", "--store", "backups"]));
    assert!(sandbox.path("empty/data/app.db").exists());
    refused(&sandbox, &["extract", &id, "--to", "empty", "--store", "backups"], 2).says("not empty");
    refused(&sandbox, &["extract", &id, "--to", "app.db", "--store", "backups"], 2).says("not a folder");
    refused(&sandbox, &["extract", &id, "--to", "no/such/folder", "--store", "backups"], 5);
}

#[test]
fn extract_to_stdout_is_a_tar_stream() {
    if !have(&["tar"]) {
        return;
    }
    let (sandbox, id) = database_with_snapshot();
    let line = format!("lifeboat extract {id} --to - --store backups > whole.tar && tar tf whole.tar");
    let listing = String::from_utf8(shell_ok(&sandbox, &line).stdout).unwrap();
    assert_eq!(listing, "README.txt\ndata/app.db\nmanifest.json\n");
    shell_ok(&sandbox, "mkdir out && tar xf whole.tar -C out && cmp out/data/app.db app.db");
}

#[test]
fn archives_can_be_extracted_with_tar() {
    if !have(&["tar"]) {
        return;
    }
    let (sandbox, id) = database_with_snapshot();
    shell_ok(&sandbox, &format!("mkdir out && tar xzf backups/app/{id}.tar.gz -C out && cmp out/data/app.db app.db"));
    sandbox.ok(&["snapshot", "app.db", "--compression", "zstd", "--name", "z", "--store", "backups"]);
    shell_ok(&sandbox, "mkdir zout && tar --zstd -xf backups/z/*.tar.zst -C zout && cmp zout/data/app.db app.db");
}

#[test]
fn one_entry_is_written_to_stdout_or_to_a_new_file() {
    let (sandbox, id) = database_with_snapshot();
    let run = silent(sandbox.ok(&["extract", &id, "--entry", "manifest.json", "--store", "backups"]));
    assert_eq!(run.json()["id"], id.as_str());
    let run = sandbox.ok(&["extract", &id, "--entry", "README.txt", "--to", "-", "--store", "backups"]);
    assert!(run.stdout().contains("lifeboat restore"), "{}", run.transcript());
    let arguments = ["extract", &id, "--entry", "data/app.db", "--to", "image.db", "--store", "backups"];
    let document = sandbox.json(&arguments);
    assert_eq!(document["files"][0]["path"], "image.db");
    assert_eq!(std::fs::read(sandbox.path("image.db")).unwrap(), std::fs::read(sandbox.path("app.db")).unwrap());
    refused(&sandbox, &arguments, 2).says("already");
    refused(&sandbox, &["extract", &id, "--entry", "../app.db", "--store", "backups"], 2).says("README.txt");
    let missing = ["extract", &id, "--entry", "README.txt", "--to", "no/such/x", "--store", "backups"];
    refused(&sandbox, &missing, 5);
}

#[test]
fn extract_refuses_invalid_arguments() {
    let (sandbox, id) = database_with_snapshot();
    refused(&sandbox, &["extract", &id, "--store", "backups"], 2).says("--to");
    let arguments = ["extract", &id, "--entry", "x", "--table", "logs", "--store", "backups"];
    refused_by_the_parser(&sandbox, &arguments);
    refused_by_the_parser(&sandbox, &["extract", &id, "--table", "logs", "--format", "xml", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["extract", &id, "--format", "csv", "--store", "backups"]);
    refused(&sandbox, &["extract", &id, "--table", "no such", "--store", "backups"], 2).says("no such");
    let run = sandbox.run(&["extract", &id, "--to", "-", "--store", "backups", "--json"]).code(2);
    crate::helpers::error_document(&run, "usage");
}

#[test]
fn a_damaged_archive_is_not_extracted() {
    let (sandbox, id) = database_with_snapshot();
    flip_bytes(sandbox.path(format!("backups/app/{id}.tar.gz")), 300, 2);
    refused(&sandbox, &["extract", &id, "--to", "folder", "--store", "backups"], 3);
    refused(&sandbox, &["extract", &id, "--entry", "data/app.db", "--to", "x.db", "--store", "backups"], 3);
    refused(&sandbox, &["extract", &id, "--table", "logs", "--to", "x.sql", "--store", "backups"], 3);
}

#[test]
fn every_table_as_sql_is_loaded_with_the_same_rows() {
    let (sandbox, _) = database_with_snapshot();
    sql(
        sandbox.path("app.db"),
        r#"CREATE TABLE "odd ""name"".x" ("a b" INTEGER, "select" TEXT, "" BLOB, real REAL, twice AS ("a b" * 2) STORED);
           INSERT INTO "odd ""name"".x" VALUES (1, 'it''s', x'00ff', 0.1), (-9223372036854775808, CAST(x'6100620a' AS TEXT), x'', 9e999),
             (9223372036854775807, CAST(x'fffe41' AS TEXT), NULL, -9e999), (NULL, '', NULL, 1e300), (5, 'line
break', x'0a', 5e-324);
           CREATE TABLE keyed (k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID; INSERT INTO keyed VALUES ('x', 1), ('y', 'z');
           CREATE UNIQUE INDEX odd_index ON "odd ""name"".x" ("a b");
           CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('hello there'), ('second');"#,
    );
    let id = sandbox.snapshot("app.db");
    let expected = content(sandbox.path("app.db"));
    for table in ["accounts", "balances", "logs", "odd \"name\".x", "keyed", "notes"] {
        let run = silent(sandbox.ok(&["extract", &id, "--table", table, "--store", "backups"]));
        let copy = sandbox.path(format!("{}.db", table.len()));
        let _ = std::fs::remove_file(&copy);
        open(&copy).execute_batch(&run.stdout()).unwrap_or_else(|error| panic!("{error}\n{}", run.transcript()));
        assert_eq!(content(&copy)[table], expected[table], "{}", run.transcript());
    }
    let indexes: i64 = open(sandbox.path("12.db"))
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'odd_index'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(indexes, 1);
}

#[test]
fn table_names_ignore_case_and_sqlite3_loads_the_table() {
    if !have(&["sqlite3"]) {
        return;
    }
    let (sandbox, id) = database_with_snapshot();
    sandbox.ok(&["extract", &id, "--table", "BALANCES", "--to", "balances.sql", "--store", "backups"]);
    shell_ok(&sandbox, "sqlite3 loaded.db < balances.sql");
    assert_eq!(content(sandbox.path("loaded.db"))["balances"], content(sandbox.path("app.db"))["balances"]);
}

#[test]
fn a_table_as_csv_is_quoted_only_where_necessary() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (\"a,b\" TEXT, n INTEGER, r REAL, b BLOB);
         INSERT INTO t VALUES ('plain', 1, 0.5, x'00ff'), ('with \"quotes\", and comma', NULL, 1e300, NULL), ('', -1, -0.25, x''), ('two
lines', 0, 2.0, NULL)",
    );
    let id = sandbox.snapshot("app.db");
    let run = silent(sandbox.ok(&["extract", &id, "--table", "t", "--format", "csv", "--store", "backups"]));
    let expected = "\"a,b\",n,r,b\r\nplain,1,0.5,00ff\r\n\"with \"\"quotes\"\", and comma\",,1e300,\r\n\"\",-1,-0.25,\r\n\"two\nlines\",0,2.0,\r\n";
    assert_eq!(run.stdout(), expected, "{}", run.transcript());
}

#[test]
fn a_table_of_a_wal_database_can_be_extracted() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "wal");
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["extract", &id, "--table", "logs", "--to", "logs.sql", "--store", "backups"]);
    let copy = open(sandbox.path("copy.db"));
    copy.execute_batch(&std::fs::read_to_string(sandbox.path("logs.sql")).unwrap()).unwrap();
    let rows: Cell = copy.query_row("SELECT count(*) FROM logs", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, Cell::Integer(30));
}
