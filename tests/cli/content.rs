//! Contents of SQLite databases: every kind of table, name, value and setting is saved and restored.

use std::fs;

use serde_json::Value;

use crate::helpers::{id_of, query_value, shell_ok, silent, sql};
use crate::support::{Run, Sandbox, have, open};

/// Creates the database `app.db` with this SQL, and saves and restores it as [`round_trip_of`] does.
#[track_caller]
fn round_trip(setup: &str) -> (Sandbox, Run, Value) {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), setup);
    let (run, document) = round_trip_of(&sandbox);
    (sandbox, run, document)
}

/// Takes a snapshot of `app.db`, drills it, restores it to `copy.db`, and requires that both files have the same bytes
/// and that `diff` finds no difference. Returns the run of the snapshot and its document.
#[track_caller]
fn round_trip_of(sandbox: &Sandbox) -> (Run, Value) {
    crate::helpers::empty_store(&sandbox.path("backups"));
    let run = sandbox.ok(&["snapshot", "app.db", "--store", "backups", "--json"]);
    let document = run.json()["snapshots"][0].clone();
    assert_eq!(document["kind"], "full", "{}", run.transcript());
    let id = id_of(&run.json());
    sandbox.ok(&["drill", &id, "--store", "backups"]);
    sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
    let bytes = fs::read(sandbox.path("app.db")).unwrap();
    assert!(fs::read(sandbox.path("copy.db")).unwrap() == bytes, "copy.db differs from app.db\n{}", run.transcript());
    let diff = sandbox.json(&["diff", &id, "--store", "backups"]);
    // `diff` cannot call the databases equal if a table has no digest. Virtual tables need none: their shadow tables,
    // which contain their rows, are compared.
    let tables = document["tables"].as_array().unwrap();
    let all_compared = tables.iter().all(|table| table["type"] == "virtual" || table["digest"].is_string());
    assert_eq!(diff["equal"], all_compared, "{diff:#}");
    (run, document)
}

#[track_caller]
fn table<'a>(document: &'a Value, name: &str) -> &'a Value {
    let found = document["tables"].as_array().unwrap().iter().find(|table| table["name"] == name);
    found.unwrap_or_else(|| panic!("no table {name:?} in {document:#}"))
}

/// Requires that the document of a snapshot has this number of rows and a digest for a table.
#[track_caller]
fn assert_hashed(document: &Value, name: &str, rows: u64) {
    let table = table(document, name);
    assert_eq!(table["rows"], rows, "{table:#}");
    assert!(table["digest"].is_string(), "{table:#}");
}

#[test]
fn virtual_and_shadow_tables_are_restored() {
    let (sandbox, run, document) = round_trip(
        "CREATE VIRTUAL TABLE notes USING fts5(title, body); INSERT INTO notes VALUES ('a', 'the quick fox'), ('b', 'lazy dog');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0, 1), (2, 5, 9);
         CREATE TABLE docs (id INTEGER PRIMARY KEY, body); INSERT INTO docs VALUES (7, 'outside words');
         CREATE VIRTUAL TABLE outside USING fts5(body, content = 'docs', content_rowid = 'id'); INSERT INTO outside (outside) VALUES ('rebuild');
         CREATE VIRTUAL TABLE without USING fts5(body, content = ''); INSERT INTO without (rowid, body) VALUES (1, 'unkept words');",
    );
    silent(run);
    assert_hashed(&document, "notes", 2);
    assert_hashed(&document, "boxes", 2);
    assert_hashed(&document, "notes_content", 2);
    assert_eq!(
        (&table(&document, "notes")["type"], &table(&document, "notes_data")["type"]),
        (&"virtual".into(), &"shadow".into())
    );
    sql(sandbox.path("other.db"), "CREATE TABLE x (a)");
    sandbox.ok(&["restore", "latest", "--to", "other.db", "--replace", "--store", "backups"]);
    for copy in ["copy.db", "other.db"] {
        let path = sandbox.path(copy);
        assert_eq!(query_value(&path, "SELECT title FROM notes WHERE notes MATCH 'dog'"), "b");
        assert_eq!(query_value(&path, "SELECT id FROM boxes WHERE x0 > 3"), "2");
        assert_eq!(query_value(&path, "SELECT rowid FROM outside WHERE outside MATCH 'words'"), "7");
        assert_eq!(query_value(&path, "SELECT rowid FROM without WHERE without MATCH 'unkept'"), "1");
        assert_eq!(query_value(&path, "PRAGMA integrity_check"), "ok");
    }
}

#[test]
fn every_kind_of_table_is_restored() {
    let (_, run, document) = round_trip(
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
        assert_hashed(&document, name, rows);
    }
    assert_hashed(&document, "sqlite_sequence", 1);
    assert!(table(&document, "sqlite_stat1")["digest"].is_string());
    assert!(!document["tables"].to_string().contains("\"v\""), "a view is in the list of tables");
}

#[test]
fn unusual_names_are_restored() {
    let (sandbox, run, document) = round_trip(
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
        assert_hashed(&document, name, 1);
        sandbox.ok(&["extract", "latest", "--table", name, "--store", "backups"]);
    }
    assert_hashed(&document, "", 2);
    let run = silent(sandbox.ok(&["show", "--store", "backups"]));
    assert!(run.stdout().contains("two\\nlines\\ttab"), "{}", run.transcript());
    sql(sandbox.path("app.db"), r#"DELETE FROM "a"".""b"; DROP TABLE "";"#);
    let arguments = ["restore", "latest", "--to", "app.db", "--table", "a\".\"b", "--table", "", "--store", "backups"];
    sandbox.ok(&arguments);
    assert_eq!(
        query_value(
            sandbox.path("app.db"),
            r#"SELECT "line
break" FROM "a"".""b""#
        ),
        "6"
    );
    assert_eq!(query_value(sandbox.path("app.db"), r#"SELECT sum("") FROM """#), "4");
}

#[test]
fn unusual_values_are_restored_and_diff_distinguishes_them() {
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
    let (run, document) = round_trip_of(&sandbox);
    silent(run);
    assert_hashed(&document, "t", 20);
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
fn utf16_databases_are_restored() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let (sandbox, run, document) = round_trip(&format!(
            "PRAGMA encoding = '{encoding}'; CREATE TABLE \"naïve\" (a TEXT); INSERT INTO \"naïve\" VALUES ('grüße 😀'), ('plain')"
        ));
        silent(run);
        assert_hashed(&document, "naïve", 2);
        assert_eq!(document["sqlite"]["encoding"], encoding);
        assert_eq!(query_value(sandbox.path("copy.db"), "PRAGMA encoding"), encoding);
        let dump = sandbox.ok(&["extract", "latest", "--table", "naïve", "--store", "backups"]);
        assert!(dump.stdout().contains("'grüße 😀'"), "{}", dump.transcript());
    }
}

#[test]
fn page_sizes_and_settings_are_restored() {
    let settings = [
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 65536",
        "PRAGMA auto_vacuum = FULL",
        "PRAGMA auto_vacuum = INCREMENTAL",
        "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL",
        "PRAGMA secure_delete = ON",
    ];
    for setting in settings {
        let (sandbox, _, document) = round_trip(&format!(
            "{setting}; PRAGMA user_version = 42; PRAGMA application_id = -7;
             CREATE TABLE t (a); INSERT INTO t SELECT zeroblob(3000) FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9));
             DELETE FROM t WHERE rowid IN (2, 3, 4); CREATE TABLE u (a)"
        ));
        assert_hashed(&document, "t", 6);
        for pragma in ["user_version", "application_id", "page_size", "auto_vacuum", "journal_mode"] {
            let query = format!("PRAGMA {pragma}");
            assert_eq!(
                query_value(sandbox.path("copy.db"), &query),
                query_value(sandbox.path("app.db"), &query),
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
fn rows_that_violate_constraints_are_saved_and_restored() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "PRAGMA ignore_check_constraints = ON;
         CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent(id), n INT CHECK (n > 0));
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 5), (2, 5), (3, -1);
         CREATE TABLE nulls (a); INSERT INTO nulls VALUES (NULL), (1);
         PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE nulls (a NOT NULL)' WHERE name = 'nulls'",
    );
    let (run, document) = round_trip_of(&sandbox);
    drop(run.says("faults, which are saved with it"));
    assert_hashed(&document, "child", 3);
    assert_eq!(document["sqlite"]["health"]["orphans"][0]["rows"], 2, "{document:#}");
    let run = sandbox.ok(&["show", "--store", "backups"]);
    assert!(run.stdout().contains("2 rows of child"), "{}", run.transcript());
    sandbox.ok(&["restore", "latest", "--to", "app.db", "--replace", "--store", "backups"]);
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
}

/// Replaces a part of an object's definition in `sqlite_schema`, which SQLite does not check.
fn redefine(sandbox: &Sandbox, name: &str, from: &str, to: &str) {
    let statement = format!(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = '{name}'"
    );
    sql(sandbox.path("app.db"), &statement);
}

#[test]
fn a_table_whose_module_is_missing_is_saved_with_a_warning() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE VIRTUAL TABLE odd USING fts5(body); INSERT INTO odd VALUES ('x'); CREATE TABLE t (a); INSERT INTO t VALUES (1)",
    );
    redefine(&sandbox, "odd", "fts5", "no_such_module");
    let (run, document) = round_trip_of(&sandbox);
    let run = run.says("odd").says("no_such_module");
    assert_eq!(run.stderr().lines().filter(|line| line.contains("odd")).count(), 1, "{}", run.transcript());
    assert!(table(&document, "odd")["digest"].is_null(), "{document:#}");
    assert!(table(&document, "odd")["reason"].as_str().unwrap().contains("no_such_module"));
    assert_hashed(&document, "t", 1);
    assert_hashed(&document, "odd_content", 1);
    sql(sandbox.path("app.db"), "DELETE FROM t");
    sandbox.ok(&["restore", "latest", "--to", "app.db", "--replace", "--store", "backups"]);
    assert_eq!(query_value(sandbox.path("app.db"), "SELECT count(*) FROM t"), "1");
}

#[test]
fn tables_whose_collation_is_missing_are_saved_and_compared() {
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
    let (run, document) = round_trip_of(&sandbox);
    assert_hashed(&document, "t", 1);
    assert_hashed(&document, "indexed", 2);
    assert_hashed(&document, "columned", 1);
    assert_hashed(&document, "keyed", 2);
    silent(run);
    // The document lists the checks that could not be made.
    let full = sandbox.ok(&["snapshot", "app.db", "--full-check", "--store", "backups", "--json"]).json();
    assert!(full["snapshots"][0]["sqlite"]["health"]["unchecked"].to_string().contains("house_order"), "{full:#}");
    sandbox.ok(&["restore", "latest", "--to", "app.db", "--replace", "--store", "backups"]);
}

#[test]
fn a_table_with_1500_columns_is_restored() {
    let columns: Vec<String> = (0..1500).map(|column| format!("c{column}")).collect();
    let values = vec!["1"; 1500].join(",");
    let (_, run, document) =
        round_trip(&format!("CREATE TABLE wide ({}); INSERT INTO wide VALUES ({values})", columns.join(",")));
    silent(run);
    assert_hashed(&document, "wide", 1);
}

#[test]
fn hundreds_of_tables_are_restored() {
    let tables: String = (0..500).map(|n| format!("CREATE TABLE t{n} (a); INSERT INTO t{n} VALUES ({n});")).collect();
    let (_, run, document) = round_trip(&format!("BEGIN; {tables} COMMIT"));
    silent(run);
    assert_eq!(document["tables"].as_array().unwrap().len(), 500);
    assert_eq!(document["rows"], 500);
}

#[test]
fn sqlite3_reads_the_same_rows_from_the_restored_database() {
    if !have(&["sqlite3"]) {
        return;
    }
    let (sandbox, _, _) =
        round_trip("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2.5, NULL), (x'00', 'it''s')");
    shell_ok(&sandbox, "sqlite3 app.db .dump > a.sql; sqlite3 copy.db .dump > b.sql; cmp a.sql b.sql");
}
