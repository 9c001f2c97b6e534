//! What may be in an SQLite database: every kind of table, name, value and setting comes back.

use std::fs;

use serde_json::Value;

use crate::helpers::{ask, id_of, shell_ok, silent, sql};
use crate::support::{Run, Sandbox, have, open};

/// Makes a database, saves it, drills it, restores it to a new path and over another database; both come back.
/// The run of the snapshot, and its document.
#[track_caller]
fn survives(setup: &str) -> (Sandbox, Run, Value) {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), setup);
    let (run, document) = comes_back(&sandbox);
    (sandbox, run, document)
}

#[track_caller]
fn comes_back(sandbox: &Sandbox) -> (Run, Value) {
    crate::helpers::empty_store(&sandbox.path("backups"));
    let run = sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]);
    let document = run.json()["snapshots"][0].clone();
    assert_eq!(document["kind"], "full", "{}", run.transcript());
    let id = id_of(&run.json());
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
    let bytes = fs::read(sandbox.path("app.db")).unwrap();
    assert!(fs::read(sandbox.path("copy.db")).unwrap() == bytes, "the copy is another\n{}", run.transcript());
    let diff = sandbox.json(&["diff", &id, "--store", "backups"]);
    // What a virtual table shows is in its shadows; any other table that has no digest was not compared.
    let tables = document["tables"].as_array().unwrap();
    let compared = tables.iter().all(|table| table["type"] == "virtual" || table["digest"].is_string());
    assert_eq!(diff["equal"], compared, "{diff:#}");
    (run, document)
}

#[track_caller]
fn table<'a>(document: &'a Value, name: &str) -> &'a Value {
    let found = document["tables"].as_array().unwrap().iter().find(|table| table["name"] == name);
    found.unwrap_or_else(|| panic!("no table {name:?} in {document:#}"))
}

#[track_caller]
fn is_hashed(document: &Value, name: &str, rows: u64) {
    let table = table(document, name);
    assert_eq!(table["rows"], rows, "{table:#}");
    assert!(table["digest"].is_string(), "{table:#}");
}

#[test]
fn virtual_and_shadow_tables_come_back() {
    let (sandbox, run, document) = survives(
        "CREATE VIRTUAL TABLE notes USING fts5(title, body); INSERT INTO notes VALUES ('a', 'the quick fox'), ('b', 'lazy dog');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0, 1), (2, 5, 9);
         CREATE TABLE docs (id INTEGER PRIMARY KEY, body); INSERT INTO docs VALUES (7, 'outside words');
         CREATE VIRTUAL TABLE outside USING fts5(body, content = 'docs', content_rowid = 'id'); INSERT INTO outside (outside) VALUES ('rebuild');
         CREATE VIRTUAL TABLE without USING fts5(body, content = ''); INSERT INTO without (rowid, body) VALUES (1, 'unkept words');",
    );
    silent(run);
    is_hashed(&document, "notes", 2);
    is_hashed(&document, "boxes", 2);
    is_hashed(&document, "notes_content", 2);
    assert_eq!(
        (&table(&document, "notes")["type"], &table(&document, "notes_data")["type"]),
        (&"virtual".into(), &"shadow".into())
    );
    sql(sandbox.path("other.db"), "CREATE TABLE x (a)");
    sandbox.ok(&["restore", "latest", "--to", "other.db", "--replace", "--store", "backups"]);
    for copy in ["copy.db", "other.db"] {
        let path = sandbox.path(copy);
        assert_eq!(ask(&path, "SELECT title FROM notes WHERE notes MATCH 'dog'"), "b");
        assert_eq!(ask(&path, "SELECT id FROM boxes WHERE x0 > 3"), "2");
        assert_eq!(ask(&path, "SELECT rowid FROM outside WHERE outside MATCH 'words'"), "7");
        assert_eq!(ask(&path, "SELECT rowid FROM without WHERE without MATCH 'unkept'"), "1");
        assert_eq!(ask(&path, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn every_form_of_table_comes_back() {
    let (_, run, document) = survives(
        "CREATE TABLE keyed (a TEXT, b INT, PRIMARY KEY (a, b)) WITHOUT ROWID; INSERT INTO keyed VALUES ('x', 1), ('x', 2);
         CREATE TABLE generated (a INT, stored AS (a * 2) STORED, computed AS (a * 3)); INSERT INTO generated VALUES (1), (2), (3);
         CREATE TABLE typed (i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT; INSERT INTO typed VALUES (1, 2.5, 'x', x'00', 'any'), (NULL, NULL, NULL, NULL, 1);
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted VALUES (5), (9);
         CREATE TABLE bare (a); INSERT INTO bare (rowid, a) VALUES (100, 1), (-5, 2);
         CREATE TABLE empty (a);
         CREATE TABLE rowids (rowid, oid, _rowid_); INSERT INTO rowids VALUES (1, 2, 3);
         CREATE TABLE untyped (a, b) ; INSERT INTO untyped VALUES (1, 'x'), ('1', x'31');
         CREATE INDEX partial ON keyed (b) WHERE b > 1; CREATE INDEX expression ON typed (lower(t));
         CREATE VIEW v AS SELECT * FROM keyed; CREATE TRIGGER tr INSTEAD OF INSERT ON v BEGIN SELECT 1; END;
         ANALYZE;",
    );
    silent(run);
    for (name, rows) in
        [("keyed", 2), ("generated", 3), ("typed", 2), ("counted", 2), ("bare", 2), ("empty", 0), ("rowids", 1)]
    {
        is_hashed(&document, name, rows);
    }
    is_hashed(&document, "sqlite_sequence", 1);
    assert!(table(&document, "sqlite_stat1")["digest"].is_string());
    assert!(!document["tables"].to_string().contains("\"v\""), "a view is no table");
}

#[test]
fn odd_names_come_back() {
    let (sandbox, run, document) = survives(
        r#"CREATE TABLE "a.b" ("c.d"); INSERT INTO "a.b" VALUES (1);
           CREATE TABLE "a"".""b" ("x""y", "select", "order by", "naïve", "😀", "line
break"); INSERT INTO "a"".""b" VALUES (1, 2, 3, 4, 5, 6);
           CREATE TABLE "select" ("from" INT PRIMARY KEY); INSERT INTO "select" VALUES (1);
           CREATE TABLE "😀" (a); INSERT INTO "😀" VALUES (1);
           CREATE TABLE "" ("" INT, a); INSERT INTO "" VALUES (1, 2), (3, 4);
           CREATE TABLE "'; DROP TABLE x; --" (a); INSERT INTO "'; DROP TABLE x; --" VALUES (1);
           CREATE TABLE "two
lines	tab" (a); INSERT INTO "two
lines	tab" VALUES (1);
           CREATE TABLE " spaced " (" "); INSERT INTO " spaced " VALUES (1);
           CREATE TABLE "[brackets]" ("]"); INSERT INTO "[brackets]" VALUES (1);
           CREATE TABLE "../../x" (a); INSERT INTO "../../x" VALUES (1);
           CREATE TABLE "%s%n" (a); INSERT INTO "%s%n" VALUES (1);
           CREATE INDEX "index "" odd" ON "" ("");"#,
    );
    silent(run);
    let names = [
        "a.b",
        "a\".\"b",
        "select",
        "😀",
        "'; DROP TABLE x; --",
        "two\nlines\ttab",
        " spaced ",
        "[brackets]",
        "../../x",
        "%s%n",
    ];
    for name in names {
        is_hashed(&document, name, 1);
        sandbox.ok(&["extract", "latest", "--table", name, "--store", "backups"]);
    }
    is_hashed(&document, "", 2);
    let text = silent(sandbox.ok(&["show", "--store", "backups"]));
    assert!(text.stdout().contains("two\\nlines\\ttab"), "{}", text.transcript());
    sql(sandbox.path("app.db"), r#"DELETE FROM "a"".""b"; DROP TABLE "";"#);
    let chosen = ["restore", "latest", "--to", "app.db", "--table", "a\".\"b", "--table", "", "--store", "backups"];
    sandbox.ok(&chosen);
    assert_eq!(
        ask(
            sandbox.path("app.db"),
            r#"SELECT "line
break" FROM "a"".""b""#
        ),
        "6"
    );
    assert_eq!(ask(sandbox.path("app.db"), r#"SELECT sum("") FROM """#), "4");
}

#[test]
fn odd_values_come_back_and_are_told_apart() {
    let sandbox = Sandbox::new();
    let connection = open(sandbox.path("app.db"));
    connection.execute_batch("CREATE TABLE t (a, b)").unwrap();
    let statements = [
        "INSERT INTO t VALUES ('nul', CAST(x'610062' AS TEXT)), ('not utf-8', CAST(x'ff80fe41' AS TEXT)), ('half', CAST(x'c3' AS TEXT))",
        "INSERT INTO t VALUES ('inf', 9e999), ('-inf', -9e999), ('-0.0', -0.0), ('0.0', 0.0), ('small', 5e-324), ('big', 1.7976931348623157e308)",
        "INSERT INTO t VALUES ('max', 9223372036854775807), ('min', -9223372036854775808), ('null', NULL), ('empty', ''), ('empty blob', x'')",
        "INSERT INTO t VALUES ('one', 1), ('one real', 1.0), ('one text', '1'), ('one blob', x'31')",
    ];
    for statement in statements {
        connection.execute_batch(statement).unwrap();
    }
    connection.execute("INSERT INTO t VALUES ('large', zeroblob(20000000))", []).unwrap();
    connection.execute("INSERT INTO t VALUES ('long', printf('%.*c', 3000000, 'x'))", []).unwrap();
    drop(connection);
    let (run, document) = comes_back(&sandbox);
    silent(run);
    is_hashed(&document, "t", 20);
    let id = document["id"].as_str().unwrap();
    let changes = [
        "UPDATE t SET b = 1.0 WHERE a = 'one'",
        "UPDATE t SET b = '1' WHERE a = 'one blob'",
        "UPDATE t SET b = '' WHERE a = 'null'",
        "UPDATE t SET b = x'' WHERE a = 'empty'",
        "UPDATE t SET b = CAST(x'61006200' AS TEXT) WHERE a = 'nul'",
        "UPDATE t SET b = CAST(x'ff80fe42' AS TEXT) WHERE a = 'not utf-8'",
    ];
    for change in changes {
        fs::copy(sandbox.path("copy.db"), sandbox.path("changed.db")).unwrap();
        sql(sandbox.path("changed.db"), change);
        let diff = sandbox.json(&["diff", id, "changed.db", "--store", "backups"]);
        assert_eq!(diff["tables"][0]["status"], "changed", "{change}");
    }
}

#[test]
fn databases_in_utf16_come_back() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let (sandbox, run, document) = survives(&format!(
            "PRAGMA encoding = '{encoding}'; CREATE TABLE \"naïve\" (a TEXT); INSERT INTO \"naïve\" VALUES ('grüße 😀'), ('plain')"
        ));
        silent(run);
        is_hashed(&document, "naïve", 2);
        assert_eq!(document["sqlite"]["encoding"], encoding);
        assert_eq!(ask(sandbox.path("copy.db"), "PRAGMA encoding"), encoding);
        let dump = sandbox.ok(&["extract", "latest", "--table", "naïve", "--store", "backups"]);
        assert!(dump.stdout().contains("'grüße 😀'"), "{}", dump.transcript());
    }
}

#[test]
fn every_page_size_and_setting_comes_back() {
    let settings = [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 65536",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL",
        "PRAGMA secure_delete = ON",
    ];
    for setting in settings {
        let (sandbox, _, document) = survives(&format!(
            "{setting}; PRAGMA user_version = 42; PRAGMA application_id = -7;
             CREATE TABLE t (a); INSERT INTO t SELECT zeroblob(3000) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9));
             DELETE FROM t WHERE rowid IN (2, 3, 4); CREATE TABLE u (a)"
        ));
        is_hashed(&document, "t", 6);
        for pragma in ["user_version", "application_id", "page_size", "auto_vacuum", "journal_mode"] {
            let query = format!("PRAGMA {pragma}");
            assert_eq!(
                ask(sandbox.path("copy.db"), &query),
                ask(sandbox.path("app.db"), &query),
                "{setting}: {pragma}"
            );
        }
        assert_eq!(
            (&document["sqlite"]["user_version"], &document["sqlite"]["application_id"]),
            (&42.into(), &(-7).into())
        );
    }
}

#[test]
fn orphans_and_broken_rules_at_birth_do_not_fail_a_restore() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "PRAGMA ignore_check_constraints = ON;
         CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent(id), n INT CHECK (n > 0));
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 5), (2, 5), (3, -1);
         CREATE TABLE nulls (a); INSERT INTO nulls VALUES (NULL), (1);
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE nulls (a NOT NULL)' WHERE name = 'nulls'",
    );
    let (run, document) = comes_back(&sandbox);
    drop(run.says("faults of its own"));
    is_hashed(&document, "child", 3);
    assert_eq!(document["sqlite"]["health"]["orphans"][0]["rows"], 2, "{document:#}");
    let silent_now = sandbox.ok(&["show", "--store", "backups"]);
    assert!(silent_now.stdout().contains("2 rows of child"), "{}", silent_now.transcript());
    sandbox.ok(&["restore", "latest", "--to", "app.db", "--replace", "--store", "backups"]);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
}

/// Gives something in the schema another definition behind SQLite's back.
fn redefine(sandbox: &Sandbox, name: &str, from: &str, to: &str) {
    let statement = format!(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = '{name}'"
    );
    sql(sandbox.path("app.db"), &statement);
}

#[test]
fn a_table_of_a_missing_module_is_saved_and_named() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE VIRTUAL TABLE odd USING fts5(body); INSERT INTO odd VALUES ('x'); CREATE TABLE t (a); INSERT INTO t VALUES (1)",
    );
    redefine(&sandbox, "odd", "fts5", "no_such_module");
    let (run, document) = comes_back(&sandbox);
    let run = run.says("odd").says("no_such_module");
    assert_eq!(run.stderr().lines().filter(|line| line.contains("odd")).count(), 1, "{}", run.transcript());
    assert!(table(&document, "odd")["digest"].is_null(), "{document:#}");
    assert!(table(&document, "odd")["reason"].as_str().unwrap().contains("no_such_module"));
    is_hashed(&document, "t", 1);
    is_hashed(&document, "odd_content", 1);
    sql(sandbox.path("app.db"), "DELETE FROM t");
    sandbox.ok(&["restore", "latest", "--to", "app.db", "--replace", "--store", "backups"]);
    assert_eq!(ask(sandbox.path("app.db"), "SELECT count(*) FROM t"), "1");
}

#[test]
fn a_missing_collation_is_saved_and_named() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE indexed (a TEXT); CREATE INDEX i ON indexed (a COLLATE NOCASE); INSERT INTO indexed VALUES ('x'), ('Y');
         CREATE TABLE columned (a TEXT COLLATE NOCASE); INSERT INTO columned VALUES ('x');
         CREATE TABLE keyed (a TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID; INSERT INTO keyed VALUES ('x'), ('Y');
         CREATE TABLE t (a); INSERT INTO t VALUES (1)",
    );
    for name in ["i", "columned", "keyed"] {
        redefine(&sandbox, name, "NOCASE", "house_order");
    }
    let (run, document) = comes_back(&sandbox);
    is_hashed(&document, "t", 1);
    is_hashed(&document, "indexed", 2);
    is_hashed(&document, "columned", 1);
    let keyed = table(&document, "keyed");
    assert!(keyed["digest"].is_null() && keyed["reason"].is_string(), "{keyed:#}");
    let run = run.says("keyed");
    // What could not be checked is told, not passed over.
    let full = sandbox.ok(&["snapshot", "app.db", "--full-check", "--store", "backups", "--json"]).json();
    assert!(full["snapshots"][0]["sqlite"]["health"]["unchecked"].to_string().contains("house_order"), "{full:#}");
    drop(run);
    sandbox.ok(&["restore", "latest", "--to", "app.db", "--replace", "--store", "backups"]);
}

#[test]
fn a_column_more_than_others_have_is_no_trouble() {
    let columns: Vec<String> = (0..1500).map(|column| format!("c{column}")).collect();
    let values = vec!["1"; 1500].join(",");
    let (_, run, document) =
        survives(&format!("CREATE TABLE wide ({}); INSERT INTO wide VALUES ({values})", columns.join(",")));
    silent(run);
    is_hashed(&document, "wide", 1);
}

#[test]
fn hundreds_of_tables_come_back() {
    let tables: String = (0..500).map(|n| format!("CREATE TABLE t{n} (a); INSERT INTO t{n} VALUES ({n});")).collect();
    let (_, run, document) = survives(&format!("BEGIN; {tables} COMMIT"));
    silent(run);
    assert_eq!(document["tables"].as_array().unwrap().len(), 500);
    assert_eq!(document["rows"], 500);
}

#[test]
fn what_comes_back_is_what_sqlite3_itself_reads() {
    if !have(&["sqlite3"]) {
        return;
    }
    let (sandbox, _, _) =
        survives("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2.5, NULL), (x'00', 'it''s')");
    shell_ok(&sandbox, "sqlite3 app.db .dump > a.sql; sqlite3 copy.db .dump > b.sql; cmp a.sql b.sql");
}
