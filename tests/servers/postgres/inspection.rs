//! Commands that only inspect: `diff`, `extract`, `show`, `list`, and the documents that programs read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::helpers::{Place, rows, shop, text};
use crate::support::compare::{assert_equal_data, data};
use crate::support::postgres::{TestDatabase, oldest_and_newest, server, some_server};
use crate::support::samples;

#[track_caller]
fn has_fields(value: &Value, names: &str) {
    let fields: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<&str> = names.split(' ').filter(|name| !fields.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {value:#}");
}

/// The tables that differ: `name status before after`.
fn told(document: &Value) -> Vec<String> {
    let changed = document["tables"].as_array().unwrap().iter().filter(|table| table["status"] != "same");
    changed
        .map(|table| {
            let status = table["status"].as_str().unwrap();
            let columns = if table["columns_changed"] == true { " columns" } else { "" };
            format!("{} {status}{columns} {} {}", text(&table["name"]), table["rows_before"], table["rows_after"])
        })
        .collect()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn diff_tells_what_has_changed() {
    some_server(|server| {
        let place = Place::new(server);
        let database = shop(server, "differs");
        let (id, url) = (place.snapshot(&database, &[]), database.url());
        // Against where it came from.
        let same = place.json(&["diff", &id]);
        has_fields(&same, "equal tables");
        assert_eq!((&same["equal"], told(&same)), (&true.into(), Vec::new()));
        place.ok(&["diff", &id, &url, "--exit-code"]);
        database.psql(
            "DELETE FROM orders WHERE id < 11; UPDATE users SET note = 'x' WHERE id = 1; ALTER TABLE log ADD more text;
             DROP TABLE \"Odd \"\"name\"\"\"; CREATE TABLE added AS SELECT 1 AS one; TRUNCATE log",
        );
        let expected = [
            "public.\"Odd \"\"name\"\"\" removed 2 null",
            "public.added added null 1",
            "public.log changed columns 0 0",
            "public.orders changed 200 190",
            "public.users changed 20 20",
        ];
        let differs = place.json(&["diff", &id, &url]);
        assert_eq!((&differs["equal"], told(&differs)), (&false.into(), expected.map(str::to_owned).to_vec()));
        let run = place.run(&["diff", &id, &url, "--exit-code"]).code(3);
        assert!(run.stdout().contains("-10") && run.stdout().contains("added"), "{}", run.transcript());
        let second = place.snapshot(&database, &[]);
        assert_eq!(told(&place.json(&["diff", &id, &second])), expected);
        assert_eq!(place.json(&["diff", &second, "latest"])["equal"], true);
        database.psql("CREATE INDEX ON users (born)");
        let index = place.json(&["diff", &second]);
        assert_eq!((&index["schema_equal"], told(&index)), (&false.into(), Vec::new()));
        place.run(&["diff", &second, "--exit-code"]).code(3);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn extract_gives_a_table_as_copy_prints_it() {
    some_server(|server| {
        let place = Place::new(server);
        let database = shop(server, "extracted");
        let id = place.snapshot(&database, &[]);
        let users = database.psql("COPY (SELECT id, name, mood, born, note FROM users) TO STDOUT");
        for name in ["public.users", "users"] {
            assert_eq!(place.ok(&["extract", &id, "--table", name]).stdout(), users);
        }
        assert_eq!(
            place.ok(&["extract", &id, "--table", "public.\"Odd \"\"name\"\"\""]).stdout(),
            "1\tone\n2\ttab\\tand\\nline\n"
        );
        let document = place.json(&["extract", &id, "--table", "public.log", "--to", "log.copy"]);
        has_fields(&document, "id files");
        assert_eq!(std::fs::read(place.sandbox.path("log.copy")).unwrap(), b"");
        place.run(&["extract", &id, "--table", "nothing"]).code(2);
        place.run(&["extract", &id, "--table", "*"]).code(2);
        place.run(&["extract", &id, "--table", "users", "--format", "csv"]).code(2);
        let script = place.ok(&["extract", &id, "--entry", "schema/pre-data.sql"]).stdout();
        assert!(script.contains("CREATE TABLE public.users"), "{script}");
        let files = place.json(&["extract", &id, "--to", "all"]);
        assert!(files["files"].as_array().unwrap().iter().any(|file| text(&file["path"]).ends_with("restore.sql")));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_commands_that_show_prints_work_when_pasted() {
    some_server(|server| {
        let place = Place::new(server);
        let database = shop(server, "shown");
        let id = place.snapshot(&database, &["--tag", "a b"]);
        let saved = data(&database);
        let shown = place.json(&["show", &id]);
        let run = place.ok(&["show", &id]);
        for word in [&id[..], "public.users", "--create", "--replace", "--swap", &server.version] {
            assert!(run.stdout().contains(word), "{word}\n{}", run.transcript());
        }
        let commands: Vec<String> = shown["restore"].as_array().unwrap().iter().map(text).collect();
        let with = |flag: &str| commands.iter().find(|command| command.contains(flag)).unwrap().as_str();
        database.psql("DELETE FROM users");
        place.paste(with("--replace").replace("--table SCHEMA.TABLE", "").as_str());
        assert_eq!(data(&database), saved);
        let table = commands.iter().find(|command| command.contains("SCHEMA.TABLE")).unwrap();
        database.psql("DELETE FROM orders");
        place.paste(&table.replace("SCHEMA.TABLE", "public.orders"));
        assert_eq!(database.value("SELECT count(*) FROM orders"), "200");
        let new = TestDatabase { server: server.clone(), name: format!("{}_restored", database.name) };
        place.paste(with("--create"));
        assert_equal_data(&database, &new, "pasted");
        place.paste(with("--swap"));
        assert_equal_data(&new, &database, "pasted swap");
        for name in place.databases_like(&format!("datname ~ '^{}_before'", database.name)) {
            drop(TestDatabase { server: server.clone(), name });
        }
        // Without --to: to where it came from.
        place.ok(&["restore", &id, "--replace"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn documents_carry_their_fields() {
    let server = server(15);
    let place = Place::new(&server);
    let database = shop(&server, "documents");
    let taken = place.json(&["snapshot", &database.url(), "--tag", "one", "--name", "web"]);
    let fields = "id source origin kind engine created_at tags archive archive_bytes raw_bytes sha256 codec encrypted server_version rows proof seconds";
    let snapshot = &taken["snapshots"][0];
    has_fields(snapshot, fields);
    has_fields(snapshot, "tables");
    assert_eq!((&snapshot["engine"], &snapshot["source"]), (&"postgres".into(), &"web".into()));
    assert_eq!(snapshot["origin"]["database"], database.name);
    // What is reached by the loopback is on this machine, and known by its name.
    let (host, port) = (&snapshot["postgres"]["reached_by"], &snapshot["origin"]["port"]);
    assert_eq!((host, port), (&"127.0.0.1".into(), &server.port.into()));
    assert_ne!(snapshot["origin"]["host"], "127.0.0.1");
    for table in snapshot["tables"].as_array().unwrap() {
        has_fields(table, "name rows bytes digest");
    }
    let id = text(&snapshot["id"]);
    let listed = place.json(&["list"]);
    has_fields(&listed["snapshots"][0], fields);
    assert!(listed["snapshots"][0].get("tables").is_none());
    has_fields(&place.json(&["show", &id]), fields);
    let verified = place.json(&["verify", &id]);
    has_fields(&verified["snapshots"][0], "id level ok problems seconds");
    let new = server.reserve_database("documented");
    let restored = place.json(&["restore", &id, "--to", &new.url(), "--create"]);
    has_fields(&restored, "id target mode safety_snapshot undo tables seconds");
    has_fields(&restored["tables"][0], "name rows ok");
    place.paste(&text(&restored["undo"]));
    assert!(place.databases_like(&format!("datname = '{}'", new.name)).is_empty());
    // No password anywhere: not in documents, nor in the store, nor in what verbose runs say.
    let run = place.ok(&["snapshot", &database.url(), "--name", "web", "-v", "-v"]);
    assert!(!run.transcript().replace(&database.url(), "").contains(&server.password), "{}", run.transcript());
    for file in std::fs::read_dir(place.sandbox.path("backups/web")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(&server.password));
    }
    // The same name for another database is refused.
    let other = shop(&server, "other");
    let run = place.run(&["snapshot", &other.url(), "--name", "web"]).code(2);
    assert!(run.stderr().contains("--name"), "{}", run.transcript());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_empty_database_is_no_new_truth() {
    some_server(|server| {
        let place = Place::new(server);
        let database = server.create_database("emptied");
        let url = database.url();
        let run = place.run(&["snapshot", &url]).code(3);
        assert!(run.stderr().contains("empty") && run.stderr().contains("--allow-empty"), "{}", run.transcript());
        assert!(place.sandbox.ids().is_empty());
        database.psql("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)");
        let good = place.snapshot(&database, &[]);
        database.psql("TRUNCATE t");
        place.run(&["snapshot", &url]).code(3);
        database.psql("DROP TABLE t");
        let document = place.run(&["snapshot", &url, "--json"]).code(3).json();
        assert_eq!(document["snapshots"], serde_json::json!([]));
        assert!(!document["problems"].as_array().unwrap().is_empty());
        assert_eq!(place.sandbox.ids(), [good]);
        place.ok(&["snapshot", &url, "--allow-empty"]);
        assert_eq!(place.sandbox.ids().len(), 2);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_selection_is_partial_and_never_latest() {
    some_server(|server| {
        let place = Place::new(server);
        let database = shop(server, "partial");
        database.psql("SELECT lo_from_bytea(4711, 'x')");
        let full = place.snapshot(&database, &[]);
        let cases: [(&[&str], &str, i64); 4] = [
            (&["--table", "public.u*"], "rows of public.orders", 20),
            (&["--exclude-table", "orders"], "rows of public.orders", 22),
            (&["--exclude-data", "public.orders"], "rows of public.orders", 22),
            (&["--schema-only"], "rows of public.users", 0),
        ];
        for (arguments, left_out, count) in cases {
            let mut words = arguments.to_vec();
            words.push("--allow-empty");
            let id = place.snapshot(&database, &words);
            let shown = place.json(&["show", &id]);
            assert_eq!((&shown["kind"], &shown["rows"]), (&"partial".into(), &count.into()), "{arguments:?}");
            let run = place.ok(&["show", &id]);
            assert!(run.stdout().contains(left_out) && run.stdout().contains("large objects"), "{}", run.transcript());
            assert_eq!(place.json(&["show", "latest"])["id"], full);
            // What was left out is empty there, and is not compared.
            let new = place.restore_new(&id, &[]);
            assert_eq!(
                new.value("SELECT count(*) FROM users").parse::<i64>().unwrap() * i64::from(count > 0),
                count.min(20)
            );
            assert_eq!(new.value("SELECT to_regclass('orders') IS NOT NULL"), "t");
        }
        let run = place.run(&["snapshot", &database.url(), "--table", "usres"]).code(2);
        assert!(run.stderr().contains("usres"), "{}", run.transcript());
    });
}

/// Text that is not UTF-8, in databases that keep it as it is.
#[test]
#[ignore = "needs PostgreSQL"]
fn other_encodings_come_back() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        for (encoding, insert) in [
            (
                "LATIN1",
                "SET client_encoding = LATIN1; INSERT INTO t SELECT g, chr(g) FROM generate_series(1, 255) AS g",
            ),
            (
                "SQL_ASCII",
                "SET client_encoding = SQL_ASCII; INSERT INTO t SELECT g, convert_from(decode(lpad(to_hex(g), 2, '0'), 'hex'), 'SQL_ASCII') FROM generate_series(1, 255) AS g",
            ),
            ("EUC_JP", "SET client_encoding = UTF8; INSERT INTO t VALUES (1, '日本語'), (2, 'é')"),
        ] {
            let source = server.create_database_with("encoded", &format!("ENCODING '{encoding}' LOCALE 'C'"));
            source.psql(
                "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE \"naïve\" (\"é\" text DEFAULT 'ü')",
            );
            source.psql(insert);
            let id = place.snapshot(&source, &["--name", &encoding.to_lowercase()]);
            let new = place.restore_new(&id, &[]);
            let hex = if encoding == "SQL_ASCII" {
                "v"
            } else {
                "convert_from(convert_to(v, getdatabaseencoding()), 'SQL_ASCII')"
            };
            let hex = &format!("SELECT id, md5({hex}) FROM t ORDER BY id");
            assert_eq!(rows(&new, hex), rows(&source, hex), "{encoding}");
            assert_eq!(new.value("SELECT getdatabaseencoding()"), encoding);
            assert_eq!(place.json(&["diff", &id, &new.url()])["equal"], true, "{encoding}");
            source.psql("DELETE FROM t");
            place.ok(&["restore", &id, "--replace", "--to", &source.url()]);
            assert_eq!(rows(&new, hex), rows(&source, hex), "{encoding}");
        }
    });
}

/// Whoever reads has settings of its own that change what rows look like.
#[test]
#[ignore = "needs PostgreSQL"]
fn settings_of_the_role_do_not_matter() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let source = samples::database(server, "types");
        source.psql("DELETE FROM every_char WHERE code BETWEEN 128 AND 255");
        let plain = place.snapshot(&source, &["--compression", "zstd:1"]);
        let role = format!("lifeboat_odd_{}", std::process::id());
        server.psql("postgres", format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{}'", server.password));
        for setting in [
            "DateStyle = 'German'",
            "IntervalStyle = 'sql_standard'",
            "TimeZone = 'America/St_Johns'",
            "extra_float_digits = -15",
            "bytea_output = 'escape'",
            "search_path = 'nowhere'",
            "standard_conforming_strings = off",
            "quote_all_identifiers = on",
            "default_transaction_read_only = on",
            "statement_timeout = 1",
            "array_nulls = off",
            "client_encoding = 'LATIN1'",
            "row_security = on",
            "default_transaction_isolation = 'serializable'",
            "session_replication_role = 'replica'",
            "transform_null_equals = on",
        ] {
            server.psql("postgres", format!("ALTER ROLE {role} SET {setting}"));
        }
        let url = |database: &TestDatabase| database.url().replacen("//postgres:", &format!("//{role}:"), 1);
        let taken = place.json(&["snapshot", &url(&source), "--compression", "zstd:1"]);
        let id = text(&taken["snapshots"][0]["id"]);
        let difference = place.json(&["diff", &plain, &id]);
        assert_eq!(difference["equal"], true, "{difference:#}");
        let new = server.reserve_database("by_odd_role");
        place.ok(&["restore", &plain, "--to", &url(&new), "--create"]);
        assert_equal_data(&source, &new, "restored by another role");
        place.ok(&["restore", &plain, "--to", &url(&new), "--replace", "--no-safety"]);
        assert_equal_data(&source, &new, "replaced by another role");
        drop(new);
        server.psql("postgres", format!("DROP ROLE {role}"));
    });
}
