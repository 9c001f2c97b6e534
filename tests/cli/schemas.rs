//! Schemas of other programs: names that are not UTF-8, and collations, functions and modules that SQLite does not have.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::helpers::{id_of, query_value, refused, silent, sql};
use crate::support::{Run, Sandbox, content, count};

/// Replaces bytes everywhere in a file, as another program with another encoding would have written them.
fn replace_bytes(path: impl AsRef<Path>, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(&path).unwrap();
    let mut found = 0;
    for start in 0..bytes.len().saturating_sub(from.len()) {
        if &bytes[start..start + from.len()] == from {
            bytes[start..start + from.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0);
    fs::write(path, bytes).unwrap();
}

/// Creates a database with the statements, in which every `GrXXe` is `Größe` in Latin-1.
fn latin1(sandbox: &Sandbox, name: &str, statements: &str) {
    let _ = fs::remove_file(sandbox.path(name));
    sql(sandbox.path(name), statements);
    replace_bytes(sandbox.path(name), b"GrXXe", b"Gr\xf6\xdfe");
}

/// Replaces a part of an object's definition in `sqlite_schema`, which SQLite does not check.
fn redefine(sandbox: &Sandbox, name: &str, from: &str, to: &str) {
    let statement = format!(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = '{name}'"
    );
    sql(sandbox.path("app.db"), &statement);
}

/// Takes a snapshot with the full check. Returns its document.
fn full_check(sandbox: &Sandbox) -> Value {
    sandbox.json(&["snapshot", "app.db", "--full-check", "--store", "backups"])["snapshots"][0].clone()
}

fn integrity_line(run: &Run) -> String {
    run.stdout().lines().find(|line| line.contains("integrity")).unwrap_or_default().to_owned()
}

#[test]
fn values_of_a_column_whose_name_is_not_utf8_are_compared_and_extracted() {
    let sandbox = Sandbox::new();
    let with = |word: &str| {
        format!(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, \"GrXXe\" TEXT); INSERT INTO t VALUES (1, '{word}'), (2, '{word}')"
        )
    };
    latin1(&sandbox, "app.db", &with("before"));
    let id = sandbox.snapshot("app.db");
    assert_eq!(sandbox.json(&["diff", &id, "--store", "backups"])["equal"], true);
    latin1(&sandbox, "app.db", &with("after"));
    let run = sandbox.run(&["diff", &id, "--exit-code", "--json", "--store", "backups"]).code(3);
    assert_eq!(run.json()["tables"][0]["status"], "changed", "{}", run.transcript());
    let document = sandbox.json(&["show", &id, "--store", "backups"]);
    assert_eq!(document["tables"][0]["columns"][1]["name"], "Gr\\xF6\\xDFe");

    sandbox.ok(&["extract", &id, "--table", "t", "--format", "csv", "--to", "t.csv", "--store", "backups"]);
    assert_eq!(fs::read(sandbox.path("t.csv")).unwrap(), b"id,Gr\xf6\xdfe\r\n1,before\r\n2,before\r\n");
    sandbox.ok(&["extract", &id, "--table", "t", "--to", "t.sql", "--store", "backups"]);
    let text = fs::read(sandbox.path("t.sql")).unwrap();
    let insert = b"INSERT INTO \"t\" (\"id\",\"Gr\xf6\xdfe\") VALUES (1,'before');";
    assert!(text.windows(insert.len()).any(|window| window == insert), "{}", String::from_utf8_lossy(&text));

    sandbox.ok(&["drill", &id, "--store", "backups"]);
    silent(sandbox.ok(&["restore", &id, "--to", "app.db", "--table", "t", "--replace", "--store", "backups"]));
    assert_eq!(sandbox.json(&["diff", &id, "--store", "backups"])["equal"], true);
}

#[test]
fn tables_whose_names_differ_only_in_bytes_that_are_not_utf8_are_two_tables() {
    let sandbox = Sandbox::new();
    let two = |first: u32, second: u32| {
        format!(
            "CREATE TABLE \"GrXXe\" (a UNIQUE); CREATE TABLE \"GrYYe\" (a); CREATE INDEX by_a ON \"GrYYe\" (a);
             INSERT INTO \"GrXXe\" VALUES ({first}); INSERT INTO \"GrYYe\" VALUES ({second}), (9)"
        )
    };
    let create = |first, second| {
        latin1(&sandbox, "app.db", &two(first, second));
        replace_bytes(sandbox.path("app.db"), b"GrYYe", b"Gr\xf7\xdfe");
    };
    create(1, 2);
    let id = sandbox.snapshot("app.db");
    assert!(sandbox.ok(&["check", "app.db", "--store", "backups"]).stdout().contains("2 tables, 3 rows"));
    create(1, 3);
    let document = sandbox.json(&["diff", &id, "--store", "backups"]);
    let statuses: Vec<&str> =
        document["tables"].as_array().unwrap().iter().map(|table| table["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["same", "changed"], "{document:#}");
    let table = "Gr\\xF7\\xDFe";
    sandbox.ok(&["restore", &id, "--to", "app.db", "--table", table, "--replace", "--store", "backups"]);
    assert_eq!(sandbox.json(&["diff", &id, "--store", "backups"])["equal"], true);
    // The table, its rows and its index are created again where they are missing.
    sql(sandbox.path("other.db"), "CREATE TABLE t (a)");
    sandbox.ok(&["restore", &id, "--to", "other.db", "--table", table, "--store", "backups"]);
    replace_bytes(sandbox.path("other.db"), b"Gr\xf7\xdfe", b"GrYYe");
    assert_eq!(count(sandbox.path("other.db"), "GrYYe"), 2);
    assert_eq!(
        query_value(sandbox.path("other.db"), "SELECT tbl_name FROM sqlite_schema WHERE name = 'by_a'"),
        "GrYYe"
    );
}

#[test]
fn text_that_is_not_utf8_is_extracted_byte_by_byte() {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), "CREATE TABLE t (a); INSERT INTO t VALUES (CAST(x'4772F6DF65' AS TEXT))");
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["extract", &id, "--table", "t", "--format", "csv", "--to", "t.csv", "--store", "backups"]);
    assert_eq!(fs::read(sandbox.path("t.csv")).unwrap(), b"a\r\nGr\xf6\xdfe\r\n");
}

#[test]
fn a_schema_with_strings_in_double_quotes_is_restored_by_its_own_statements() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "PRAGMA page_size = 4096; CREATE TABLE t (kind TEXT CHECK (kind IN (\"a\", \"b\")));
         CREATE INDEX only_a ON t (kind) WHERE kind = \"a\"; INSERT INTO t VALUES ('a'), ('b')",
    );
    let id = sandbox.snapshot("app.db");
    sql(sandbox.path("other.db"), "CREATE TABLE u (a)");
    sandbox.ok(&["restore", &id, "--to", "other.db", "--table", "t", "--store", "backups"]);
    assert_eq!(count(sandbox.path("other.db"), "t"), 2);
    sql(sandbox.path("large.db"), "PRAGMA page_size = 8192; CREATE TABLE u (a)");
    sandbox.ok(&["restore", &id, "--to", "large.db", "--replace", "--store", "backups"]);
    assert_eq!(content(sandbox.path("large.db")), content(sandbox.path("app.db")));
}

#[test]
fn the_gates_pass_a_sound_database_with_a_collation_of_its_program() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE items (id INTEGER PRIMARY KEY, title TEXT, sort TEXT); CREATE INDEX by_sort ON items (sort COLLATE NOCASE);
         INSERT INTO items VALUES (1, 'B', 'b'), (2, 'A', 'A')",
    );
    redefine(&sandbox, "by_sort", "NOCASE", "icu_root");
    sandbox.snapshot("app.db");
    sandbox.ok(&["check", "app.db", "--store", "backups"]);
    sandbox.ok(&["predeploy", "app.db", "--store", "backups"]);
    sandbox.ok(&["postdeploy", "app.db", "--store", "backups"]);
    let document = full_check(&sandbox);
    let health = &document["sqlite"]["health"];
    assert_eq!(health["integrity"], serde_json::json!([]), "{document:#}");
    let expected = serde_json::json!(["the order of the index by_sort: the collation icu_root is missing here"]);
    assert_eq!(health["unchecked"], expected, "{document:#}");
    sandbox.ok(&["drill", document["id"].as_str().unwrap(), "--store", "backups"]);
}

/// Creates a table WITHOUT ROWID whose key has the collation of a program, and destroys some of its pages.
fn destroyed_pages_behind_a_collation(sandbox: &Sandbox) {
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE tags (tag TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, usn INTEGER) WITHOUT ROWID;
         CREATE TABLE notes (id INTEGER PRIMARY KEY); INSERT INTO notes VALUES (1);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
         INSERT INTO tags SELECT printf('tag%06d', i), i FROM n",
    );
    redefine(sandbox, "tags", "NOCASE", "unicase");
    let mut bytes = fs::read(sandbox.path("app.db")).unwrap();
    let pages = bytes.len() / 4096;
    bytes[(pages - 4) * 4096..(pages - 1) * 4096].fill(0xde);
    fs::write(sandbox.path("app.db"), bytes).unwrap();
}

#[test]
fn damage_is_found_behind_a_collation_that_is_missing() {
    let sandbox = Sandbox::new();
    destroyed_pages_behind_a_collation(&sandbox);
    for check in [&[][..], &["--full-check"]] {
        let run = sandbox.run(&[&["snapshot", "app.db", "--store", "backups"], check].concat()).code(3);
        assert!(run.stderr().contains("the database is damaged"), "{}", run.transcript());
    }
    let run = sandbox.run(&["check", "app.db", "--store", "backups"]);
    assert!(!integrity_line(&run).contains("sound"), "{}", run.transcript());
    assert_eq!(run.exit(), 3, "{}", run.transcript());
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--allow-damaged", "--store", "backups"]));
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["kind"], "damaged");
}

#[test]
fn order_that_cannot_be_checked_hides_no_other_fault() {
    let sandbox = Sandbox::new();
    let nulls: String = (0..12).map(|n| format!("CREATE TABLE n{n} (a); INSERT INTO n{n} VALUES (NULL);")).collect();
    // In the order of bytes, all capital letters are before all small ones.
    sql(
        sandbox.path("app.db"),
        &format!(
            "CREATE TABLE mixed (a TEXT); CREATE INDEX by_a ON mixed (a COLLATE NOCASE);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO mixed SELECT char(CASE i % 2 WHEN 0 THEN 65 ELSE 97 END + i % 26) || i FROM n; {nulls}"
        ),
    );
    redefine(&sandbox, "by_a", "NOCASE", "house_order");
    for n in 0..12 {
        redefine(&sandbox, &format!("n{n}"), "(a)", "(a NOT NULL)");
    }
    let document = full_check(&sandbox);
    let health = &document["sqlite"]["health"];
    let faults: Vec<&str> =
        health["integrity"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap()).collect();
    assert_eq!(faults.len(), 12, "{health:#}");
    assert!(faults.iter().all(|fault| fault.starts_with("NULL value in n")), "{health:#}");
    assert!(health["unchecked"].to_string().contains("by_a"), "{health:#}");
    sandbox.ok(&["drill", "latest", "--store", "backups"]);
}

#[test]
fn missing_functions_and_modules_are_named_and_the_rest_is_checked() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE u (a TEXT, b TEXT AS (lower(a)) VIRTUAL NOT NULL, CHECK (lower(a) IS NOT NULL));
         CREATE INDEX by_b ON u (b); CREATE INDEX by_text ON u (lower(a)); INSERT INTO u VALUES ('X'), ('Y');
         CREATE TABLE nulls (a); INSERT INTO nulls VALUES (NULL); CREATE TABLE plain (a); CREATE INDEX by_a ON plain (a);
         CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES ('x')",
    );
    redefine(&sandbox, "u", "lower", "house_fold");
    redefine(&sandbox, "by_text", "lower", "house_fold");
    redefine(&sandbox, "words", "fts5", "house_search");
    redefine(&sandbox, "nulls", "(a)", "(a NOT NULL)");
    let run = sandbox.run(&["check", "app.db", "--store", "backups"]);
    assert!(!integrity_line(&run).contains("sound"), "{}", run.transcript());
    let document = full_check(&sandbox);
    let health = &document["sqlite"]["health"];
    assert_eq!(health["integrity"], serde_json::json!(["NULL value in nulls.a"]), "{health:#}");
    let expected = serde_json::json!([
        "the virtual table words: the module house_search is missing here",
        "the constraints of the table u: the function house_fold is missing here",
        "the order of the index by_b: the function house_fold is missing here",
        "the order of the index by_text: the function house_fold is missing here",
    ]);
    assert_eq!(health["unchecked"], expected, "{health:#}");
    sandbox.ok(&["drill", "latest", "--store", "backups"]);
    sandbox.ok(&["predeploy", "app.db", "--store", "backups"]);
}

#[test]
fn parents_in_the_order_of_a_missing_collation_are_not_reported_as_missing() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE parent (name TEXT COLLATE NOCASE PRIMARY KEY, id INTEGER UNIQUE);
         CREATE TABLE child (name TEXT REFERENCES parent (name), id INTEGER REFERENCES parent (id));
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
         INSERT INTO parent SELECT char(CASE i % 2 WHEN 0 THEN 65 ELSE 97 END + i % 26) || i, i FROM n;
         INSERT INTO child SELECT name, id FROM parent; INSERT INTO child VALUES (NULL, 1000)",
    );
    redefine(&sandbox, "parent", "NOCASE", "house_order");
    let document = full_check(&sandbox);
    let health = &document["sqlite"]["health"];
    // The row without a parent in a key that can be read is reported.
    assert_eq!(health["orphans"].as_array().unwrap().len(), 1, "{health:#}");
    assert_eq!(health["orphans"][0]["rows"], 1, "{health:#}");
    assert!(health["unchecked"].to_string().contains("the foreign key of child to parent"), "{health:#}");
    sandbox.ok(&["drill", "latest", "--store", "backups"]);
}

#[test]
fn an_index_with_a_missing_collation_is_never_written() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE items (a TEXT); CREATE INDEX by_a ON items (a COLLATE NOCASE); INSERT INTO items VALUES ('x'), ('Y')",
    );
    redefine(&sandbox, "by_a", "NOCASE", "house_order");
    let id = sandbox.snapshot("app.db");
    let restore =
        ["restore", &id, "--to", "app.db", "--table", "items", "--replace", "--no-safety", "--store", "backups"];
    refused(&sandbox, &restore, 1).says("house_order");
    sql(sandbox.path("large.db"), "PRAGMA page_size = 8192; CREATE TABLE u (a)");
    let restore = ["restore", &id, "--to", "large.db", "--replace", "--no-safety", "--store", "backups"];
    refused(&sandbox, &restore, 1).says("house_order");
}

#[test]
fn rules_use_no_stand_in_for_a_missing_collation() {
    let sandbox = Sandbox::new();
    sql(sandbox.path("app.db"), "CREATE TABLE items (a TEXT COLLATE NOCASE); INSERT INTO items VALUES ('a'), ('B')");
    redefine(&sandbox, "items", "NOCASE", "house_order");
    let config = "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n\
                  [[source.rule]]\nquery = \"SELECT max(a) = 'a' FROM items\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox.snapshot("app.db");
    let run = sandbox.run(&["check"]).code(3);
    assert!((run.stdout() + &run.stderr()).contains("no such collation sequence: house_order"), "{}", run.transcript());
}

#[test]
fn a_view_is_called_a_view_and_not_a_missing_table() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE map (x, tile); CREATE VIEW tiles AS SELECT x FROM map; INSERT INTO map VALUES (1, 2)",
    );
    let id = sandbox.snapshot("app.db");
    for name in ["tiles", "TILES"] {
        let restore = ["restore", &id, "--table", name, "--replace", "--yes", "--store", "backups"];
        refused(&sandbox, &restore, 2).says("is a view in the snapshot").says("hint: ");
        refused(&sandbox, &["extract", &id, "--table", name, "--store", "backups"], 2)
            .says("is a view in the snapshot")
            .says("hint: ");
    }
    refused(&sandbox, &["restore", &id, "--table", "none", "--replace", "--yes", "--store", "backups"], 2)
        .says("has no table none");
}

#[test]
fn the_sql_of_a_table_keeps_a_comment_at_the_end_of_a_statement() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (a) -- rows\n; CREATE INDEX by_a ON t (a) -- the end\n; INSERT INTO t VALUES (1)",
    );
    let id = sandbox.snapshot("app.db");
    sandbox.ok(&["extract", &id, "--table", "t", "--to", "t.sql", "--store", "backups"]);
    sql(sandbox.path("loaded.db"), &fs::read_to_string(sandbox.path("t.sql")).unwrap());
    assert_eq!(count(sandbox.path("loaded.db"), "t"), 1);
    assert_eq!(query_value(sandbox.path("loaded.db"), "SELECT count(*) FROM sqlite_schema WHERE type = 'index'"), "1");
}

/// Whoever owns a table can write a constraint that takes hours for its rows.
#[test]
fn a_check_of_expressions_that_take_too_long_ends_and_says_so() {
    fn nested(depth: u32) -> String {
        match depth {
            0 => "a >= 0".to_owned(),
            _ => format!("({0} AND {0})", nested(depth - 1)),
        }
    }
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        &format!(
            "CREATE TABLE good (a); INSERT INTO good VALUES (1); CREATE TABLE slow (a INTEGER CHECK ({}));
             PRAGMA ignore_check_constraints = ON;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO slow SELECT 1 FROM n",
            nested(14)
        ),
    );
    // There is no store yet.
    let run = sandbox.run(&["check", "app.db", "--store", "backups"]).code(3);
    let words = "integrity of slow: the expressions of its schema take too long to evaluate";
    assert!(run.stdout().contains(words), "{}", run.transcript());
}
