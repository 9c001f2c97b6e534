//! The rows of virtual tables (FTS5, FTS4, R-tree) are data: a database with such rows is not empty, they can be lost,
//! and a rollback names those that it would take away. An index of the rows of another table has none of its own.

use std::fs;

use super::helpers::{App, assert_one_failed, create_store};
use crate::helpers::sql;
use crate::support::{Run, Sandbox, copy_folder};

/// Virtual tables named `notes`, with the statement that adds a row.
const KINDS: [(&str, &str); 5] = [
    (
        "CREATE VIRTUAL TABLE notes USING fts5(title, body)",
        "INSERT INTO notes VALUES ('a', 'the quick fox ' || random())",
    ),
    (
        "CREATE VIRTUAL TABLE notes USING fts4(title, body)",
        "INSERT INTO notes VALUES ('a', 'the lazy dog ' || random())",
    ),
    ("CREATE VIRTUAL TABLE notes USING rtree(id, x0, x1)", "INSERT INTO notes VALUES (NULL, 1, 2)"),
    (
        "CREATE VIRTUAL TABLE notes USING fts5(body, content='')",
        "INSERT INTO notes (rowid, body) VALUES (1 + (SELECT count(*) FROM notes), 'words')",
    ),
    (
        "CREATE VIRTUAL TABLE notes USING fts5(body, content='', contentless_delete=1)",
        "INSERT INTO notes (rowid, body) VALUES (1 + (SELECT count(*) FROM notes), 'words')",
    ),
];

/// A table with a full-text index of its rows, which triggers keep.
const DOCS: &str = "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
    CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id');
    CREATE TRIGGER ai AFTER INSERT ON docs BEGIN
      INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END;
    CREATE TRIGGER ad AFTER DELETE ON docs BEGIN
      INSERT INTO docs_fts(docs_fts, rowid, body) VALUES ('delete', old.id, old.body); END;
    INSERT INTO docs (body) SELECT 'document ' || id FROM accounts;";

/// Creates a sandbox with a config, a store, and the database `app.db`, in which `statements` are run.
fn sandbox(statements: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), statements);
    let config = "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    create_store(&sandbox);
    sandbox
}

fn rows(sandbox: &Sandbox, table: &str) -> i64 {
    crate::support::count(sandbox.path("app.db"), table)
}

/// Changes the statement that created a table, as if the program of the database had other modules or tokenizers.
fn redefine(sandbox: &Sandbox, table: &str, from: &str, to: &str) {
    let statement = format!(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = '{table}'"
    );
    sql(sandbox.path("app.db"), &statement);
}

fn repeat(statement: &str, times: usize) -> String {
    format!("{statement};").repeat(times)
}

#[test]
fn a_database_whose_only_rows_are_in_a_virtual_table_is_not_empty() {
    for (create, insert) in KINDS {
        let sandbox = sandbox(&format!("{create}; {}", repeat(insert, 3)));
        sandbox.ok(&["snapshot"]);
        sql(sandbox.path("app.db"), &repeat(insert, 2));
        let run = sandbox.ok(&["guard", "--", "true"]);
        assert_eq!(rows(&sandbox, "notes"), 5, "{create}: an older snapshot was restored\n{}", run.transcript());
        assert!(!run.stderr().contains("is empty"), "{create}\n{}", run.transcript());
        // A database that is emptied is restored, and not saved.
        sql(sandbox.path("app.db"), &format!("DROP TABLE notes; {create}"));
        let run = sandbox.run(&["snapshot"]).code(3);
        assert!(run.stderr().contains("it has no rows, but app-"), "{create}\n{}", run.transcript());
        let total = sandbox.json(&["list"])["snapshots"][0]["rows"].as_u64().unwrap();
        let run = sandbox.ok(&["guard", "--", "true"]).says("app is empty, and was restored");
        // As many rows as `list` shows: the rows of a virtual table are not added to those of its storage.
        assert!(run.stderr().contains(&format!(": {total} rows in ")), "{create}\n{}", run.transcript());
        assert_eq!(rows(&sandbox, "notes"), 5, "{create}");
        // One that was saved without rows is not restored again and again.
        sql(sandbox.path("app.db"), &format!("DROP TABLE notes; {create}"));
        sandbox.ok(&["snapshot", "--accept", "--allow-empty"]);
        let run = sandbox.ok(&["guard", "--", "true"]);
        assert!(!run.stderr().contains("was restored"), "{create}\n{}", run.transcript());
    }
}

#[test]
fn rows_that_a_virtual_table_has_lost_are_missed_by_every_gate() {
    for (create, insert) in KINDS {
        let sandbox =
            sandbox(&format!("CREATE TABLE t (a); INSERT INTO t VALUES (1); {create}; {}", repeat(insert, 10)));
        sandbox.ok(&["predeploy"]);
        sql(sandbox.path("app.db"), &format!("DROP TABLE notes; {create}; {}", repeat(insert, 5)));
        let lost = "rows of notes: 5 rows, 10 before: 5 are gone";
        let run = sandbox.run(&["postdeploy"]).code(3);
        assert!(run.stdout().contains("5 rows, 10 before"), "{create}\n{}", run.transcript());
        sandbox.run(&["guard", "--", "true"]).code(3).says(lost);
        sandbox.run(&["predeploy"]).code(3);
        let run = sandbox.run(&["check"]).code(3);
        assert!(run.stdout().contains("5 rows, 10 before"), "{create}\n{}", run.transcript());
        sandbox.run(&["snapshot"]).code(3).says(lost);
        sandbox.run(&["postdeploy", "--rollback"]).code(3);
        // The texts came after the snapshot, and those of an index without content perhaps too. The boxes are in it.
        if !create.contains("rtree") {
            assert_eq!(rows(&sandbox, "notes"), 5, "{create}");
            sandbox.run(&["postdeploy", "--rollback", "--discard-new"]).code(3);
        }
        assert_eq!(rows(&sandbox, "notes"), 10, "{create}");
        sql(sandbox.path("app.db"), "DROP TABLE notes");
        let run = sandbox.run(&["postdeploy", "--rollback"]).code(3);
        assert!(run.stdout().contains("the table is gone"), "{create}\n{}", run.transcript());
        assert_eq!(rows(&sandbox, "notes"), 10, "{create}");
    }
}

#[test]
fn a_rollback_names_the_new_rows_of_virtual_tables() {
    let app = App::new("");
    app.sql(&format!(
        "{DOCS} CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('old'), ('older');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0, 1);
         CREATE VIRTUAL TABLE bare USING fts5(body, content=''); INSERT INTO bare (rowid, body) VALUES (1, 'x')"
    ));
    app.passes(&["predeploy"]);
    app.sql(
        "DROP TABLE balances; UPDATE notes SET body = 'changed' WHERE body = 'old'; INSERT INTO notes VALUES ('new');
         INSERT INTO boxes VALUES (2, 3, 4); INSERT INTO bare (rowid, body) VALUES (2, 'y');
         INSERT INTO docs (body) VALUES ('a document')",
    );
    let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
    let words = "5 rows that came after app-";
    assert!(run.stderr().contains(words), "'{words}' is missing\n{}", run.transcript());
    let words = "2 of notes, 1 of bare, 1 of boxes, 1 of docs";
    assert!(run.stderr().contains(words), "'{words}' is missing\n{}", run.transcript());
    assert_eq!(app.integer("SELECT count(*) FROM notes"), 3);
    app.sandbox.run(&["postdeploy", "--rollback", "--discard-new"]).code(3);
    assert_eq!(app.integer("SELECT count(*) FROM notes WHERE notes MATCH 'old'"), 1);
}

#[test]
fn an_index_of_another_table_can_be_gone_but_its_rows_are_not_counted_twice() {
    let rule = "[[source.rule]]\ntable = \"docs\"\nmax_row_drop = \"60%\"\n";
    let app = App::new(rule);
    app.sql(DOCS);
    app.passes(&["predeploy"]);
    // The rule on the table is enough.
    app.sql("DELETE FROM docs WHERE id > 20");
    let document = app.passes(&["postdeploy"]);
    assert!(document.to_string().contains("4 tables, 260 rows"), "{document:#}");
    app.sql("DELETE FROM docs WHERE id > 5");
    let (failed, _) = app.fails(&["postdeploy"]);
    assert_one_failed(&failed, &["rows of docs: 5 rows, 40 before"]);
    let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
    assert_eq!(app.integer("SELECT count(*) FROM docs"), 40, "{}", run.transcript());
    app.sql("DROP TRIGGER ai; DROP TRIGGER ad; DROP TABLE docs_fts");
    // No row is lost with it, so a rollback of the whole database would do more harm than good.
    let (failed, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_one_failed(&failed, &["rows of docs_fts: the table is gone", "an index of the rows of docs"]);
    assert!(document["verdict"].as_str().unwrap().contains("nothing was restored"), "{document:#}");
    // A deploy may drop it on purpose.
    app.passes(&["postdeploy", "--expect-dropped", "docs_fts"]);
}

#[test]
fn a_virtual_table_whose_module_or_tokenizer_is_missing_is_neither_empty_nor_lost() {
    for (from, to) in [("fts5", "house_search"), ("unicode61", "house_words")] {
        let create = "CREATE VIRTUAL TABLE notes USING fts5(body, tokenize='unicode61')";
        let sandbox = sandbox(&format!("{create}; {}", repeat("INSERT INTO notes VALUES ('x' || random())", 4)));
        redefine(&sandbox, "notes", from, to);
        sandbox.ok(&["predeploy"]);
        sandbox.ok(&["postdeploy"]);
        redefine(&sandbox, "notes", to, from);
        sql(sandbox.path("app.db"), "INSERT INTO notes VALUES ('y'), ('z')");
        redefine(&sandbox, "notes", from, to);
        let run = sandbox.ok(&["guard", "--", "true"]);
        assert!(!run.stderr().contains("restored"), "{to}\n{}", run.transcript());
        sandbox.ok(&["postdeploy"]);
        sandbox.ok(&["predeploy"]);
        redefine(&sandbox, "notes", to, from);
        assert_eq!(rows(&sandbox, "notes"), 6, "{to}");
        // The rows that are gone are missed here too.
        sql(sandbox.path("app.db"), "DELETE FROM notes; INSERT INTO notes VALUES ('new')");
        redefine(&sandbox, "notes", from, to);
        sandbox.run(&["guard", "--", "true"]).code(3);
        let run = sandbox.run(&["postdeploy", "--rollback"]).code(3);
        assert!(run.stderr().contains("rows that came after app-"), "{to}\n{}", run.transcript());
        sql(sandbox.path("app.db"), "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'notes'");
        let run = sandbox.run(&["postdeploy"]).code(3);
        let line = run.stdout().lines().find(|line| line.contains("rows of notes ")).unwrap_or_default().to_owned();
        assert!(line.contains("the table is gone"), "{to}\n{}", run.transcript());
    }
}

#[test]
fn a_rollback_takes_no_rows_away_that_cannot_be_counted() {
    let app = App::new("");
    app.sql(
        "CREATE VIRTUAL TABLE notes USING fts5(body, content='', columnsize=0, tokenize='unicode61');
         INSERT INTO notes (rowid, body) VALUES (1, 'old')",
    );
    app.passes(&["predeploy"]);
    app.sql(
        "DROP TABLE balances; INSERT INTO notes (rowid, body) VALUES (2, 'new');
         INSERT INTO accounts (name) VALUES ('new'); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'unicode61', 'house_words') WHERE name = 'notes'",
    );
    let run = app.sandbox.run(&["postdeploy", "--rollback"]).code(3);
    assert!(run.stderr().contains("the rows of notes cannot be counted"), "{}", run.transcript());
    assert_eq!(app.integer("SELECT count(*) FROM accounts WHERE name = 'new'"), 1, "{}", run.transcript());
    app.sandbox.run(&["postdeploy", "--rollback", "--discard-new"]).code(3);
    assert_eq!(app.integer("SELECT count(*) FROM accounts WHERE name = 'new'"), 0);
}

/// The program's own tokenizer is not known here when the snapshot is taken, and later it is.
#[test]
fn rows_that_could_not_be_counted_in_the_snapshot_are_named() {
    let app = App::new("");
    app.sql(
        "CREATE VIRTUAL TABLE notes USING fts5(body, content='', columnsize=0, tokenize='unicode61');
         INSERT INTO notes (rowid, body) VALUES (1, 'old'), (2, 'older')",
    );
    app.sandbox.ok(&["snapshot"]);
    let exchange = |from: &str, to: &str| {
        app.sql(&format!(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'notes'"
        ));
    };
    exchange("unicode61", "house_words");
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    let run = app.sandbox.ok(&["predeploy"]);
    assert!(run.stderr().contains("the table notes is saved, but cannot be counted"), "{}", run.transcript());
    exchange("house_words", "unicode61");
    let document = app.passes(&["postdeploy"]);
    let verdict = document["verdict"].as_str().unwrap();
    assert!(verdict.contains("because the rows of notes could not be counted"), "{verdict}");
}

#[test]
fn the_totals_of_an_encrypted_snapshot_are_compared_in_the_same_way() {
    let create = "CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE VIRTUAL TABLE notes USING fts5(body)";
    let sandbox = sandbox(&format!("{create}; {}", repeat("INSERT INTO notes VALUES ('x' || random())", 40)));
    sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned();
    let config = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    fs::write(sandbox.path("lifeboat.toml"), format!("{config}[encryption]\nrecipients = [\"{public}\"]\n")).unwrap();
    let total = sandbox.json(&["snapshot"])["snapshots"][0]["rows"].as_u64().unwrap();
    let run: Run = sandbox.ok(&["predeploy", "--json"]);
    let words = format!("which is {total} now and {total} in the snapshot");
    assert!(run.stdout().contains(&words), "'{words}' is missing\n{}", run.transcript());
    let run = sandbox.ok(&["guard", "--", "true"]);
    assert!(!run.stderr().contains("fewer rows"), "{}", run.transcript());
    sql(sandbox.path("app.db"), "DELETE FROM notes WHERE rowid > 20");
    sandbox.run(&["predeploy"]).code(3);
}

#[test]
fn the_first_comparison_after_an_upgrade_finds_nothing_lost() {
    // A snapshot of an earlier version has no word about the contents of indexes.
    let sandbox = sandbox(&format!("CREATE TABLE accounts (id); INSERT INTO accounts VALUES (1), (2), (3); {DOCS}"));
    copy_folder(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v1/gzip"), &sandbox.path("old"));
    sandbox.ok(&["restore", "latest", "--source", "odd", "--store", "old", "--to", "odd.db"]);
    for source in ["odd.db", "app.db"] {
        let name = source.trim_end_matches(".db");
        let store = if name == "odd" { "old" } else { "backups" };
        if name == "app" {
            sandbox.ok(&["snapshot"]);
            forget_contents(&sandbox, "app");
        }
        let run = sandbox.ok(&["snapshot", source, "--name", name, "--store", store, "--moved"]);
        assert!(!run.stderr().contains("gone") && !run.stderr().contains("suspect"), "{}", run.transcript());
    }
}

#[test]
fn a_virtual_table_that_is_renamed_has_the_rows_of_the_old_one() {
    for (create, insert) in KINDS {
        let sandbox =
            sandbox(&format!("CREATE TABLE t (a); INSERT INTO t VALUES (1); {create}; {}", repeat(insert, 10)));
        sandbox.ok(&["predeploy"]);
        sql(sandbox.path("app.db"), "ALTER TABLE notes RENAME TO remarks");
        let run = sandbox.run(&["postdeploy"]).code(3);
        assert!(run.stdout().contains("the table is gone"), "{create}\n{}", run.transcript());
        let run = sandbox.ok(&["postdeploy", "--expect-renamed", "notes=remarks"]);
        assert!(run.stdout().contains("10 of the 10 rows of notes are in it"), "{create}\n{}", run.transcript());
    }
}

#[test]
fn a_suspect_snapshot_with_the_most_rows_of_a_virtual_table_is_not_pruned() {
    let insert = "INSERT INTO notes VALUES ('x' || random())";
    let sandbox = sandbox(&format!(
        "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3); CREATE VIRTUAL TABLE notes USING fts5(body); {}",
        repeat(insert, 9)
    ));
    sandbox.ok(&["snapshot"]);
    sql(sandbox.path("app.db"), &format!("DELETE FROM t WHERE a > 1; {}", repeat(insert, 9)));
    sandbox.run(&["snapshot"]).code(3);
    let young = sandbox.ids()[0].clone();
    let long_ago = chrono::Utc::now() - chrono::Duration::days(60);
    let suspect = crate::helpers::copy_with_time(&sandbox.path("backups"), &young, long_ago);
    for ending in ["json", "tar.gz"] {
        fs::remove_file(sandbox.path(format!("backups/app/{young}.{ending}"))).unwrap();
    }
    sql(sandbox.path("app.db"), &format!("INSERT INTO t VALUES (2), (3); DELETE FROM notes; {}", repeat(insert, 12)));
    sandbox.ok(&["snapshot", "--accept"]);
    let document = sandbox.json(&["prune", "--keep-last", "1"]);
    let kept = document["keep"].as_array().unwrap().iter().find(|kept| kept["id"] == suspect.as_str());
    assert!(kept.is_some_and(|kept| kept["reasons"].to_string().contains("rows in notes")), "{document:#}");
}

/// Removes the names of the contents of indexes from the manifests of a source.
fn forget_contents(sandbox: &Sandbox, source: &str) {
    for path in fs::read_dir(sandbox.path("backups").join(source)).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ending| ending == "json") {
            let text = fs::read_to_string(&path).unwrap();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("\"content\":"));
            let changed = lines.collect::<Vec<_>>().join("\n") + "\n";
            assert_ne!(changed, text);
            fs::write(&path, changed).unwrap();
        }
    }
}
