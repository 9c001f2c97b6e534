//! `restore --table`: full-text indexes, triggers and indexes that depend on the restored tables.

use crate::helpers::{assert_one_error, query_value, shell_ok, sql};
use crate::support::{Sandbox, content, integrity};

/// A table with full-text indexes that triggers keep.
const DOCS: &str = "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
    CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id');
    CREATE VIRTUAL TABLE docs_old USING fts4(content=\"docs\", body);
    CREATE VIEW shown AS SELECT id, upper(body) AS body FROM \"docs\";
    CREATE VIRTUAL TABLE shown_fts USING fts5(body, content=[shown], content_rowid=id);
    CREATE TRIGGER ai AFTER INSERT ON docs BEGIN
      INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body);
      INSERT INTO docs_old(docid, body) VALUES (new.id, new.body);
      INSERT INTO shown_fts(rowid, body) VALUES (new.id, upper(new.body)); END;
    CREATE TRIGGER ad AFTER DELETE ON docs BEGIN
      INSERT INTO docs_fts(docs_fts, rowid, body) VALUES ('delete', old.id, old.body);
      DELETE FROM docs_old WHERE docid = old.id;
      INSERT INTO shown_fts(shown_fts, rowid, body) VALUES ('delete', old.id, upper(old.body)); END;
    INSERT INTO docs (body) VALUES ('alpha lifeboat'), ('beta harbour');";

fn snapshot(statements: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), statements);
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

fn restore<'a>(id: &'a str, table: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["restore", id, "--to", "app.db", "--table", table, "--store", "backups"];
    arguments.extend(more);
    arguments
}

fn found(sandbox: &Sandbox, index: &str, word: &str) -> String {
    query_value(sandbox.path("app.db"), &format!("SELECT count(*) FROM {index} WHERE {index} MATCH '{word}'"))
}

#[test]
fn full_text_indexes_of_a_restored_table_find_its_rows() {
    for change in ["DELETE FROM docs; INSERT INTO docs (body) VALUES ('junk gamma')", "DROP TABLE docs"] {
        let (sandbox, id) = snapshot(DOCS);
        sql(sandbox.path("app.db"), change);
        let document = sandbox.json(&restore(&id, "docs", &["--replace"]));
        assert_eq!(document["rebuilt"], serde_json::json!(["docs_fts", "docs_old", "shown_fts"]), "{document:#}");
        assert_eq!(document["skipped_triggers"], serde_json::Value::Null, "{document:#}");
        for index in ["docs_fts", "docs_old", "shown_fts"] {
            assert_eq!(found(&sandbox, index, "lifeboat"), "1", "{change}: {index}");
            assert_eq!(found(&sandbox, index, "junk"), "0", "{change}: {index}");
        }
        sql(
            sandbox.path("app.db"),
            "INSERT INTO docs_fts(docs_fts, rank) VALUES ('integrity-check', 1);
             INSERT INTO docs_old(docs_old) VALUES ('integrity-check');
             INSERT INTO shown_fts(shown_fts, rank) VALUES ('integrity-check', 1)",
        );
        assert_eq!(integrity(sandbox.path("app.db")), "ok");
        shell_ok(&sandbox, document["undo"].as_str().unwrap());
    }
}

#[test]
fn a_full_text_index_of_chosen_rows_is_not_filled_with_all_rows() {
    let (sandbox, id) = snapshot(
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT, public INT);
         CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id');
         CREATE TRIGGER ai AFTER INSERT ON docs WHEN new.public BEGIN
           INSERT INTO docs_fts(rowid, body) VALUES (new.id, new.body); END;
         INSERT INTO docs (body, public) VALUES ('open', 1), ('secret', 0)",
    );
    let run = sandbox.ok(&restore(&id, "docs", &["--replace"]));
    assert_eq!(found(&sandbox, "docs_fts", "secret"), "0", "{}", run.transcript());
    for words in ["docs_fts was not renewed", "VALUES ('rebuild');", "the trigger ai of docs"] {
        assert!(run.stdout().contains(words), "{words}\n{}", run.transcript());
    }
}

#[test]
fn triggers_that_did_not_run_are_named_with_the_tables_that_they_write() {
    let (sandbox, id) = snapshot(
        "CREATE TABLE places (id INTEGER PRIMARY KEY, x REAL, y REAL, changed TEXT);
         CREATE VIRTUAL TABLE places_rtree USING rtree(id, x0, x1, y0, y1);
         CREATE TABLE counts (n); INSERT INTO counts VALUES (0); CREATE TABLE \"audit log\" (what);
         CREATE TRIGGER r1 AFTER INSERT ON places BEGIN
           INSERT OR REPLACE INTO places_rtree VALUES (new.id, new.x, new.x, new.y, new.y);
           UPDATE counts SET n = n + 1; UPDATE places SET changed = 'now' WHERE id = new.id; END;
         CREATE TRIGGER r2 AFTER DELETE ON places BEGIN DELETE FROM places_rtree WHERE id = old.id;
           INSERT INTO \"audit log\" SELECT missing_function(old.id); END;
         CREATE TRIGGER r3 BEFORE INSERT ON places WHEN new.x IS NULL BEGIN SELECT raise(ABORT, 'no x'); END;
         CREATE TRIGGER r4 AFTER UPDATE ON places BEGIN UPDATE places SET changed = 'x' WHERE id = new.id; END;",
    );
    let document = sandbox.json(&restore(&id, "places", &["--replace"]));
    let expected = serde_json::json!([
        {"name": "r1", "table": "places", "writes": ["places_rtree", "counts"]},
        {"name": "r2", "table": "places", "writes": ["places_rtree", "audit log"]},
    ]);
    assert_eq!(document["skipped_triggers"], expected, "{document:#}");
    // A table that is restored too is as it was.
    let mut arguments = restore(&id, "places", &["--replace"]);
    arguments.extend(["--table", "counts"]);
    let run = sandbox.ok(&arguments);
    assert!(run.stdout().contains("may be out of date: places_rtree\n"), "{}", run.transcript());
}

#[test]
fn a_renamed_table_is_restored_and_its_indexes_are_left_to_the_user() {
    let (sandbox, id) = snapshot(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, c TEXT); CREATE UNIQUE INDEX \"idx \"\"c\" ON orders (c) -- by c
         ; CREATE INDEX own ON orders (id, c); CREATE TABLE log (a);
         CREATE TRIGGER t AFTER INSERT ON orders BEGIN INSERT INTO log VALUES (new.c); END;
         INSERT INTO orders VALUES (1, 1), (2, 2)",
    );
    let expected = content(sandbox.path("app.db"))["orders"].clone();
    sql(sandbox.path("app.db"), "ALTER TABLE orders RENAME TO orders_old; DROP INDEX own");
    let document = sandbox.json(&restore(&id, "orders", &[]));
    assert_eq!(content(sandbox.path("app.db"))["orders"], expected);
    let left_out = document["left_out"].as_array().unwrap();
    let names: Vec<_> = left_out.iter().map(|object| object["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["idx \"c", "t"], "{document:#}");
    assert!(left_out[0]["reason"].as_str().unwrap().contains("orders_old"), "{document:#}");
    let statements: Vec<_> = left_out
        .iter()
        .flat_map(|object| object["statements"].as_array().unwrap())
        .map(|statement| statement.as_str().unwrap())
        .collect();
    sql(sandbox.path("app.db"), &statements.join("\n"));
    let owners = "SELECT group_concat(tbl_name) FROM sqlite_schema WHERE name IN ('idx \"c', 't', 'own')";
    assert_eq!(query_value(sandbox.path("app.db"), owners), "orders,orders,orders");
    assert_eq!(integrity(sandbox.path("app.db")), "ok");
}

#[test]
fn a_name_of_an_index_that_a_table_has_is_left_out_too() {
    let (sandbox, id) = snapshot("CREATE TABLE t (a); CREATE INDEX taken ON t (a); INSERT INTO t VALUES (1)");
    sql(sandbox.path("app.db"), "DROP TABLE t; CREATE TABLE TAKEN (b)");
    let run = sandbox.ok(&restore(&id, "t", &[]));
    assert!(run.stdout().contains("its name belongs to a table"), "{}", run.transcript());
    assert!(run.stdout().contains("CREATE INDEX taken ON t (a);"), "{}", run.transcript());
}

/// Requires that a restore of the table `t` is refused with a hint, with no safety snapshot and no change.
#[track_caller]
fn refused_before_the_safety_snapshot(sandbox: &Sandbox, id: &str, words: &str) {
    let before = content(sandbox.path("app.db"));
    let run = sandbox.run(&restore(id, "t", &["--replace"]));
    assert_ne!(run.exit(), 0, "{}", run.transcript());
    assert_one_error(&run);
    assert!(run.stderr().contains("\nhint: ") && run.stderr().contains(words), "{}", run.transcript());
    assert_eq!(sandbox.ids(), [id], "{}", run.transcript());
    assert_eq!(content(sandbox.path("app.db")), before);
}

#[test]
fn a_restore_that_would_fail_is_refused_before_the_safety_snapshot() {
    let table = "CREATE TABLE other (x); CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 1), (2, 1)";
    for (change, words) in [
        // A constraint that only the target has.
        ("DELETE FROM t; CREATE UNIQUE INDEX u ON t (b)", "UNIQUE"),
        ("DROP TABLE t; CREATE TABLE t (a, b NOT NULL CHECK (b > 1), UNIQUE (b))", "UNIQUE"),
        ("DROP TABLE t; CREATE VIEW t AS SELECT 1", "view"),
        ("DROP TABLE t; CREATE INDEX t ON other (x)", "index"),
        ("DROP TABLE t; CREATE VIRTUAL TABLE t USING fts5(a, b)", "virtual"),
        ("DROP TABLE t; CREATE TABLE t (a, b, c)", "columns"),
    ] {
        let (sandbox, id) = snapshot(table);
        sql(sandbox.path("app.db"), change);
        refused_before_the_safety_snapshot(&sandbox, &id, words);
    }
}

#[test]
fn an_index_that_needs_a_missing_collation_is_refused_or_left_out() {
    let sandbox = Sandbox::new();
    // The collation is renamed in the schema to one that no program has.
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (a TEXT, b); CREATE INDEX i ON t (a COLLATE NOCASE); CREATE INDEX j ON t (b);
         INSERT INTO t VALUES ('x', 1), ('y', 2); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'special')",
    );
    let id = sandbox.snapshot("app.db");
    // The index of an existing table cannot be written here.
    let run = sandbox.run(&restore(&id, "t", &["--replace"])).code(1).says("special");
    assert!(run.stderr().contains("\nhint: "), "{}", run.transcript());
    assert_eq!(sandbox.ids(), [id.as_str()]);
    sql(sandbox.path("app.db"), "DROP TABLE t");
    let document = sandbox.json(&restore(&id, "t", &[]));
    assert_eq!(document["left_out"].as_array().unwrap().len(), 1, "{document:#}");
    assert_eq!(document["left_out"][0]["statements"][0], "CREATE INDEX i ON t (a COLLATE special);", "{document:#}");
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT count(*) FROM t"), "2");
}

#[test]
fn a_table_with_the_greatest_number_of_columns_is_restored() {
    let columns: Vec<String> = (1..2000).map(|number| format!("c{number}")).collect();
    let (sandbox, id) = snapshot(&format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, {}); INSERT INTO t (id, c1999) VALUES (7, 'x')",
        columns.join(", ")
    ));
    sql(sandbox.path("app.db"), "DELETE FROM t");
    sandbox.ok(&restore(&id, "t", &[]));
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT id || c1999 FROM t"), "7x");
}

#[test]
fn an_r_tree_that_triggers_keep_is_copied_with_its_table() {
    // As in a GeoPackage: the triggers need functions that only the program has.
    let schema = "CREATE TABLE places (id INTEGER PRIMARY KEY, x REAL);
         CREATE VIRTUAL TABLE places_rtree USING rtree(id, x0, x1); CREATE TABLE log (a);
         CREATE VIRTUAL TABLE names USING fts5(name);
         INSERT INTO places VALUES (1, 1.5), (7, 0.1); INSERT INTO places_rtree SELECT id, x, x FROM places;
         INSERT INTO names (rowid, name) VALUES (1, 'harbour'), (7, 'lifeboat');
         CREATE TRIGGER r1 AFTER INSERT ON places BEGIN
           INSERT INTO places_rtree VALUES (new.id, ST_MinX(new.x), ST_MaxX(new.x));
           INSERT INTO names (rowid, name) VALUES (new.id, 'new'); INSERT INTO log VALUES (1); END;
         CREATE TRIGGER r2 AFTER DELETE ON places BEGIN DELETE FROM places_rtree WHERE id = old.id; END;";
    let read = |sandbox: &Sandbox| {
        let rows = "SELECT (SELECT group_concat(id || ' ' || x0) FROM places_rtree) || ' ' || \
                    (SELECT group_concat(rowid) FROM names WHERE names MATCH 'lifeboat')";
        query_value(sandbox.path("app.db"), rows)
    };
    for change in [
        "DROP TABLE places",
        "DROP TRIGGER r1; DROP TRIGGER r2; UPDATE places SET id = 9 WHERE id = 7; DELETE FROM places_rtree;
         INSERT INTO places_rtree SELECT id, x, x FROM places; DELETE FROM names",
    ] {
        let (sandbox, id) = snapshot(schema);
        let before = read(&sandbox);
        sql(sandbox.path("app.db"), change);
        let document = sandbox.json(&restore(&id, "places", &["--replace"]));
        assert_eq!(document["rebuilt"], serde_json::json!(["places_rtree", "names"]), "{document:#}");
        assert_eq!(read(&sandbox), before, "{change}");
        let skipped = serde_json::to_string(&document["skipped_triggers"]).unwrap();
        assert!(!skipped.contains("places_rtree") && !skipped.contains("names"), "{document:#}");
        assert_eq!(integrity(sandbox.path("app.db")), "ok");
    }
    // Rows that stand for no row of the table: another program keeps them. The statements of the note copy all rows.
    let (sandbox, id) = snapshot(schema);
    let before = read(&sandbox);
    sql(sandbox.path("app.db"), "INSERT INTO places_rtree VALUES (100, 5, 5)");
    let document = sandbox.json(&restore(&id, "places", &["--replace"]));
    assert_eq!(document["rebuilt"], serde_json::json!(["names"]), "{document:#}");
    let note = document["notes"][0].as_str().unwrap();
    let (_, statements) = note.split_once("and run: ").unwrap_or_else(|| panic!("{note}"));
    sandbox.ok(&["restore", &id, "--to", "new.db", "--store", "backups"]);
    let new = sandbox.path("new.db");
    sql(sandbox.path("app.db"), &statements.replace("NEW.db", new.to_str().unwrap()));
    assert_eq!(read(&sandbox), before);
}

#[test]
fn a_trigger_that_would_make_every_write_fail_is_left_out() {
    let (sandbox, id) = snapshot(
        "CREATE TABLE log (a); CREATE TABLE t (a INTEGER, b); INSERT INTO t VALUES (1, 2);
         CREATE TRIGGER logs AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;
         CREATE TRIGGER reads AFTER UPDATE OF b ON t WHEN new.b > (SELECT max(a) FROM log) BEGIN SELECT 1; END;
         CREATE TRIGGER calls AFTER INSERT ON t BEGIN SELECT function_of_the_program(new.a); END;",
    );
    sql(sandbox.path("app.db"), "DROP TABLE t; DROP TABLE log");
    let document = sandbox.json(&restore(&id, "t", &[]));
    let left_out = document["left_out"].as_array().unwrap();
    let names: Vec<_> = left_out.iter().map(|object| object["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["logs", "reads"], "{document:#}");
    assert!(left_out[0]["reason"].as_str().unwrap().contains("no such table: main.log"), "{document:#}");
    // With both tables, in any order, nothing is left out.
    sql(sandbox.path("app.db"), "DROP TABLE t");
    let mut arguments = restore(&id, "t", &[]);
    arguments.extend(["--table", "log"]);
    let document = sandbox.json(&arguments);
    assert_eq!(document["left_out"], serde_json::Value::Null, "{document:#}");
    sql(sandbox.path("app.db"), "DROP TRIGGER calls; INSERT INTO t VALUES (5, 5)");
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT max(a) FROM log"), "5");
    // A trigger of a table that exists may write to one that is gone: there is nothing that could be out of date.
    sql(sandbox.path("app.db"), "DROP TABLE log");
    let document = sandbox.json(&restore(&id, "t", &["--replace"]));
    assert_eq!(document["skipped_triggers"], serde_json::Value::Null, "{document:#}");
}

#[test]
fn the_greatest_number_of_columns_and_rowids_are_both_restored() {
    let columns: Vec<String> = (0..2000).map(|number| format!("c{number}")).collect();
    let list = columns.join(", ").replace("c1999", "c1999 NOT NULL").replace("c1998", "c1998 DEFAULT 7 UNIQUE");
    let (sandbox, id) = snapshot(&format!(
        "CREATE TABLE t ({list}); INSERT INTO t (c0, c1998, c1999) VALUES (1, 5, 'x'), (2, 6, 'y'), (3, NULL, 'z');
         DELETE FROM t WHERE c0 = 1"
    ));
    let rows = "SELECT group_concat(rowid || ' ' || c0 || ' ' || coalesce(c1998, '-') || ' ' || c1999) FROM t";
    let before = query_value(sandbox.path("app.db"), rows);
    sql(sandbox.path("app.db"), "DROP TABLE t");
    sandbox.ok(&restore(&id, "t", &[]));
    assert_eq!(query_value(sandbox.path("app.db"), rows), before);
    assert_eq!(integrity(sandbox.path("app.db")), "ok");
}

#[test]
fn a_name_in_another_case_is_the_same_table() {
    let (sandbox, id) = snapshot(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO orders (a) VALUES (1), (2), (3);
         CREATE TABLE parts (o REFERENCES orders (id)); INSERT INTO parts VALUES (2), (77);",
    );
    sql(
        sandbox.path("app.db"),
        "DROP TABLE orders; DROP TABLE parts;
         CREATE TABLE Orders (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO Orders (a) VALUES (9);
         CREATE TABLE PARTS (o REFERENCES Orders (id))",
    );
    let mut arguments = restore(&id, "ORDERS", &["--replace"]);
    arguments.extend(["--table", "Parts"]);
    sandbox.ok(&arguments);
    let sequences = "SELECT group_concat(name || seq) FROM sqlite_sequence";
    assert_eq!(query_value(sandbox.path("app.db"), sequences), "Orders3");
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT sum(a) FROM orders"), "6");
    assert_eq!(integrity(sandbox.path("app.db")), "ok");
}

#[test]
fn a_dry_run_refuses_a_table_that_a_restore_would_refuse() {
    let schema = "CREATE TABLE other (x); CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 1);
                  CREATE VIRTUAL TABLE v USING rtree(id, a, b)";
    for (change, table, words) in [
        ("DROP TABLE t; CREATE VIEW T AS SELECT 1", "t", "DROP VIEW \"T\";"),
        ("DROP TABLE t; CREATE INDEX \"T\" ON other (x)", "t", "an index of other"),
        ("DROP TABLE t; CREATE TABLE t (a, b, c)", "t", "columns"),
        ("SELECT 1", "t", "--replace"),
        ("SELECT 1", "v", "lifeboat extract"),
        ("SELECT 1", "v_node", "virtual table"),
    ] {
        let (sandbox, id) = snapshot(schema);
        sql(sandbox.path("app.db"), change);
        for more in [&["--dry-run"][..], &[]] {
            let run = sandbox.run(&restore(&id, table, more)).code(2).says(words);
            assert_one_error(&run);
            assert!(run.stderr().contains("\nhint: "), "{}", run.transcript());
            assert_eq!(sandbox.ids(), [id.as_str()], "{}", run.transcript());
        }
    }
}
