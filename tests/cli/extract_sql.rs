//! `extract --table`: the sqlite3 program loads the SQL to the same rows, or the table is refused.

use rusqlite::types::Value;

use crate::helpers::{query_value, refused, shell_ok, sql};
use crate::support::{Sandbox, content, have, integrity, open};

/// Creates a database, takes a snapshot, extracts a table, and loads it with the sqlite3 program into `loaded.db`.
fn load(sandbox: &Sandbox, id: &str, table: &str) {
    for name in ["table.sql", "loaded.db"] {
        let _ = std::fs::remove_file(sandbox.path(name));
    }
    sandbox.ok(&["extract", id, "--table", table, "--to", "table.sql", "--store", "backups"]);
    shell_ok(sandbox, "sqlite3 -bail loaded.db < table.sql");
}

/// Requires that both databases return the same values for a query.
#[track_caller]
fn assert_same(sandbox: &Sandbox, query: &str) {
    let read = |name: &str| -> Vec<Vec<Value>> {
        let connection = open(sandbox.path(name));
        let mut statement = connection.prepare(query).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        statement.query_map([], row).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(format!("{:?}", read("loaded.db")), format!("{:?}", read("app.db")), "{query}");
}

#[test]
fn odd_tables_are_loaded_with_the_same_rows() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE line (a TEXT) -- the end;
;
         CREATE INDEX line_index ON line (a) -- for 'the list
;
         CREATE TABLE open (a); INSERT INTO open VALUES (1);
         CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT, a);
         INSERT INTO counted VALUES (1, 'x'), (70, 'y'); DELETE FROM counted WHERE id = 70;
         CREATE TABLE emptied (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO emptied VALUES (9); DELETE FROM emptied;
         CREATE TABLE bare (a, rowid TEXT); INSERT INTO bare (_rowid_, a, rowid) VALUES (-5, 'x', 'r'), (70, 'y', 's');
         CREATE TABLE \"sqlite-look 'alike'\" (\"select\" INT, \"a\"\"b\" TEXT DEFAULT 'it''s', \"c
d\"); INSERT INTO \"sqlite-look 'alike'\" VALUES (1, 'x', 2);
         CREATE TABLE sqlitex (a); INSERT INTO sqlitex VALUES ('-- no comment'), ('ends in ;'), ('a
.quit
go
/
b'), ('\\n'), (''), (';' || char(10));
         CREATE TABLE checked (n INT CHECK (n > 0), twice AS (n * 2) STORED, half AS (n / 2));
         PRAGMA ignore_check_constraints = ON; INSERT INTO checked VALUES (1), (-1);
         CREATE TABLE strictly (k TEXT PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID; INSERT INTO strictly VALUES ('1', '1'), ('2', 1);
         CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes(rowid, body) VALUES (7, 'hello'), (90, 'there');
         CREATE VIRTUAL TABLE boxes USING rtree(id, a, b); INSERT INTO boxes VALUES (3, 0.1, 0.7);
         CREATE TABLE acted (a); INSERT INTO acted DEFAULT VALUES; CREATE TRIGGER acts AFTER INSERT ON acted BEGIN
           SELECT CASE WHEN new.a THEN 1 END; DELETE FROM nowhere; END -- done
;",
    );
    // SQLite takes a comment without its end as one that ends with the statement.
    sql(sandbox.path("app.db"), "CREATE INDEX open_index ON open (a) /* not closed; -- \"");
    let columns: Vec<String> = (0..2000).map(|number| format!("c{number}")).collect();
    let wide = format!("CREATE TABLE wide ({}); INSERT INTO wide (c1999) VALUES (1)", columns.join(","));
    sql(sandbox.path("app.db"), &wide);
    let connection = open(sandbox.path("app.db"));
    connection.execute_batch("CREATE TABLE texts (a TEXT, b)").unwrap();
    for text in [
        "a\r\nb\r\n",
        "\r",
        "\u{feff}bom",
        "\u{1b}[31m\u{7f}",
        "tab\tand 'quotes' \"\"",
        "\u{0}",
        "a\u{0}b",
        "\u{2028}",
    ] {
        connection.execute("INSERT INTO texts VALUES (?1, ?2)", (text, text.as_bytes())).unwrap();
    }
    connection.execute_batch("INSERT INTO texts VALUES (CAST(x'fffe80' AS TEXT), CAST(x'27800a' AS TEXT))").unwrap();
    connection.execute_batch("CREATE TABLE numbers (a, b REAL, c INTEGER)").unwrap();
    let mut state = 7u64;
    let mut reals =
        vec![-0.0, 0.0, 0.1 + 0.2, 1e300, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, 2f64.powi(53), 1e15];
    for _ in 0..3000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        reals.push(f64::from_bits(state));
        reals.push((state >> 11) as f64 / 1e13);
    }
    connection.execute_batch("BEGIN").unwrap();
    for real in reals.iter().filter(|real| !real.is_nan()) {
        connection.execute("INSERT INTO numbers VALUES (?1, ?1, ?2)", (real, real.to_bits() as i64)).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    drop(connection);
    let id = sandbox.snapshot("app.db");
    let expected = content(sandbox.path("app.db"));
    for table in [
        "line",
        "open",
        "counted",
        "emptied",
        "sqlite-look 'alike'",
        "sqlitex",
        "checked",
        "strictly",
        "notes",
        "boxes",
        "acted",
        "texts",
        "numbers",
        "bare",
        "notes_content",
        "wide",
    ] {
        load(&sandbox, &id, table);
        assert_eq!(content(sandbox.path("loaded.db"))[table], expected[table], "{table}");
        assert_eq!(
            integrity(sandbox.path("loaded.db")),
            if table == "checked" { "CHECK constraint failed in checked" } else { "ok" }
        );
        match table {
            "counted" | "emptied" => {
                assert_same(&sandbox, &format!("SELECT name, seq FROM sqlite_sequence WHERE name = '{table}'"));
            }
            "bare" => assert_same(&sandbox, "SELECT _rowid_, * FROM bare"),
            "notes" => assert_same(&sandbox, "SELECT rowid, * FROM notes WHERE notes MATCH 'there'"),
            "line" => assert_eq!(
                query_value(sandbox.path("loaded.db"), "SELECT group_concat(name) FROM sqlite_schema"),
                "line,line_index"
            ),
            _ => {}
        }
    }
}

#[test]
fn tables_that_sql_cannot_recreate_are_refused() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE docs (id INTEGER PRIMARY KEY AUTOINCREMENT, a); INSERT INTO docs (a) VALUES ('x');
         CREATE VIRTUAL TABLE empty USING fts5(a, content=''); INSERT INTO empty (rowid, a) VALUES (1, 'x');
         CREATE VIRTUAL TABLE outside USING fts5(a, content='docs', content_rowid='id');
         INSERT INTO outside (outside) VALUES ('rebuild'); CREATE INDEX i ON docs (a); ANALYZE;
         CREATE TABLE broken (a); INSERT INTO broken VALUES (NULL); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE TABLE broken (a DEFAULT ''x' || char(13) || char(10) || ''')' WHERE name = 'broken'",
    );
    let id = sandbox.snapshot("app.db");
    for table in ["empty", "outside", "sqlite_sequence", "sqlite_stat1", "broken"] {
        let arguments = ["extract", &id, "--table", table, "--to", "table.sql", "--store", "backups"];
        let run = refused(&sandbox, &arguments, 2).says("cannot be extracted as SQL");
        assert!(run.stderr().contains("\nhint: use --format csv"), "{}", run.transcript());
    }
    sandbox.ok(&["extract", &id, "--table", "sqlite_sequence", "--format", "csv", "--store", "backups"]);
}

#[test]
fn sql_that_needs_a_missing_collation_is_refused_and_nothing_is_written() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (a TEXT COLLATE NOCASE UNIQUE); INSERT INTO t VALUES ('x'); PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'special')",
    );
    let id = sandbox.snapshot("app.db");
    refused(&sandbox, &["extract", &id, "--table", "t", "--store", "backups"], 2).says("special");
}

#[test]
fn large_rows_are_loaded_with_the_same_values() {
    if !have(&["sqlite3"]) {
        return;
    }
    let sandbox = Sandbox::new();
    // The row of each number is large by another value.
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (\"a'b\" TEXT, n INTEGER, bytes BLOB, real REAL, twice AS (n * 2) STORED);
         INSERT INTO t (rowid, \"a'b\", n, bytes, real) VALUES
           (5, replace(hex(zeroblob(700000)), '00', 'it''s' || char(10)), 1, NULL, 0.1),
           (70, 'x' || char(0) || hex(zeroblob(700000)), '2', x'', -1e300),
           (-3, '', 3, randomblob(2000001), NULL),
           (9, '12', 'no number', randomblob(10), 1)",
    );
    let id = sandbox.snapshot("app.db");
    load(&sandbox, &id, "t");
    assert_same(&sandbox, "SELECT rowid, *, typeof(n), typeof(bytes), length(\"a'b\") FROM t ORDER BY rowid");
    sandbox.ok(&["extract", &id, "--table", "t", "--format", "csv", "--to", "table.csv", "--store", "backups"]);
    let lines = std::fs::read_to_string(sandbox.path("table.csv")).unwrap();
    let expected = query_value(
        sandbox.path("app.db"),
        "SELECT group_concat(line, '') FROM (SELECT char(13, 10) || '\"\",3,' || lower(hex(bytes)) || ',,6' || char(13, 10) AS line
         FROM t WHERE rowid = -3)",
    );
    assert!(lines.contains(&expected), "the blob differs: {} bytes", lines.len());
    assert!(lines.contains("it's\nit's") && lines.starts_with("a'b,n,bytes,real,twice\r\n"), "{} bytes", lines.len());
}
