//! Commands that only inspect: `diff`, `extract`, `show`, `list`, and the JSON documents; and the choice of what a
//! snapshot contains.

use std::collections::BTreeSet;

use serde_json::Value;

use super::helpers::{Setup, rows, shop, text};
use crate::support::compare::{assert_equal_data, data};
use crate::support::postgres::{TestDatabase, oldest_and_newest, server, some_server};
use crate::support::samples;

#[track_caller]
fn require_fields(value: &Value, names: &str) {
    let fields: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let missing: Vec<&str> = names.split(' ').filter(|name| !fields.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {value:#}");
}

/// Returns the tables that differ, each as `NAME STATUS ROWS_BEFORE ROWS_AFTER`.
fn changed_tables(document: &Value) -> Vec<String> {
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
fn diff_shows_changed_tables_and_schemas() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "differs");
        let (id, url) = (setup.snapshot(&database, &[]), database.url());
        // Without a second argument, the snapshot is compared with the database that it was taken from.
        let same = setup.json(&["diff", &id]);
        require_fields(&same, "equal tables");
        assert_eq!((&same["equal"], changed_tables(&same)), (&true.into(), Vec::new()));
        setup.ok(&["diff", &id, &url, "--exit-code"]);
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
        let differs = setup.json(&["diff", &id, &url]);
        assert_eq!(differs["equal"], false);
        assert_eq!(changed_tables(&differs), expected);
        let run = setup.run(&["diff", &id, &url, "--exit-code"]).code(3);
        assert!(run.stdout().contains("-10") && run.stdout().contains("added"), "{}", run.transcript());
        let second = setup.snapshot(&database, &[]);
        assert_eq!(changed_tables(&setup.json(&["diff", &id, &second])), expected);
        assert_eq!(setup.json(&["diff", &second, "latest"])["equal"], true);
        database.psql("CREATE INDEX ON users (born)");
        let index = setup.json(&["diff", &second]);
        assert_eq!((&index["schema_equal"], changed_tables(&index)), (&false.into(), Vec::new()));
        setup.run(&["diff", &second, "--exit-code"]).code(3);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn extract_prints_a_table_as_copy_does() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "extracted");
        let id = setup.snapshot(&database, &[]);
        let users = database.psql("COPY (SELECT id, name, mood, born, note FROM users) TO STDOUT");
        for name in ["public.users", "users"] {
            assert_eq!(setup.ok(&["extract", &id, "--table", name]).stdout(), users);
        }
        assert_eq!(
            setup.ok(&["extract", &id, "--table", "public.\"Odd \"\"name\"\"\""]).stdout(),
            "1\tone\n2\ttab\\tand\\nline\n"
        );
        let document = setup.json(&["extract", &id, "--table", "public.log", "--to", "log.copy"]);
        require_fields(&document, "id files");
        assert_eq!(std::fs::read(setup.sandbox.path("log.copy")).unwrap(), b"");
        setup.run(&["extract", &id, "--table", "nothing"]).code(2);
        setup.run(&["extract", &id, "--table", "*"]).code(2);
        setup.run(&["extract", &id, "--table", "users", "--format", "csv"]).code(2);
        let script = setup.ok(&["extract", &id, "--entry", "schema/pre-data.sql"]).stdout();
        assert!(script.contains("CREATE TABLE public.users"), "{script}");
        let files = setup.json(&["extract", &id, "--to", "all"]);
        assert!(files["files"].as_array().unwrap().iter().any(|file| text(&file["path"]).ends_with("restore.sql")));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_commands_that_show_prints_work_when_pasted() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "shown");
        let id = setup.snapshot(&database, &["--tag", "a b"]);
        let saved = data(&database);
        let shown = setup.json(&["show", &id]);
        let run = setup.ok(&["show", &id]);
        for word in [&id[..], "public.users", "--create", "--replace", "--swap", &server.version] {
            assert!(run.stdout().contains(word), "{word}\n{}", run.transcript());
        }
        let commands: Vec<String> = shown["restore"].as_array().unwrap().iter().map(text).collect();
        let with = |flag: &str| commands.iter().find(|command| command.contains(flag)).unwrap().as_str();
        database.psql("DELETE FROM users");
        setup.paste(with("--replace").replace("--table SCHEMA.TABLE", "").as_str());
        assert_eq!(data(&database), saved);
        let table = commands.iter().find(|command| command.contains("SCHEMA.TABLE")).unwrap();
        database.psql("DELETE FROM orders");
        setup.paste(&table.replace("SCHEMA.TABLE", "public.orders"));
        assert_eq!(database.value("SELECT count(*) FROM orders"), "200");
        let new = TestDatabase { server: server.clone(), name: format!("{}_restored", database.name) };
        setup.paste(with("--create"));
        assert_equal_data(&database, &new, "pasted");
        setup.paste(with("--swap"));
        assert_equal_data(&new, &database, "pasted swap");
        for name in setup.databases_where(&format!("datname ~ '^{}_before'", database.name)) {
            drop(TestDatabase { server: server.clone(), name });
        }
        // Without --to, the target is the database that the snapshot was taken from.
        setup.ok(&["restore", &id, "--replace"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn json_documents_have_their_fields_and_no_password() {
    let server = server(15);
    let setup = Setup::new(&server);
    let database = shop(&server, "documents");
    let document = setup.json(&["snapshot", &database.url(), "--tag", "one", "--name", "web"]);
    let fields = "id source origin kind engine created_at tags archive archive_bytes raw_bytes sha256 codec encrypted server_version rows proof seconds";
    let snapshot = &document["snapshots"][0];
    require_fields(snapshot, fields);
    require_fields(snapshot, "tables");
    assert_eq!((&snapshot["engine"], &snapshot["source"]), (&"postgres".into(), &"web".into()));
    assert_eq!(snapshot["origin"]["database"], database.name);
    // A server at a loopback address is on this machine, so the origin has the name of the machine.
    let (host, port) = (&snapshot["postgres"]["reached_by"], &snapshot["origin"]["port"]);
    assert_eq!((host, port), (&"127.0.0.1".into(), &server.port.into()));
    assert_ne!(snapshot["origin"]["host"], "127.0.0.1");
    for table in snapshot["tables"].as_array().unwrap() {
        require_fields(table, "name rows bytes digest");
    }
    let id = text(&snapshot["id"]);
    let listed = setup.json(&["list"]);
    require_fields(&listed["snapshots"][0], fields);
    assert!(listed["snapshots"][0].get("tables").is_none());
    require_fields(&setup.json(&["show", &id]), fields);
    let verified = setup.json(&["verify", &id]);
    require_fields(&verified["snapshots"][0], "id level ok problems seconds");
    let new = server.reserve_database("documented");
    let restored = setup.json(&["restore", &id, "--to", &new.url(), "--create"]);
    require_fields(&restored, "id target mode safety_snapshot undo tables seconds");
    require_fields(&restored["tables"][0], "name rows ok");
    setup.paste(&text(&restored["undo"]));
    assert!(setup.databases_where(&format!("datname = '{}'", new.name)).is_empty());
    // The password is not in the documents, in the store, or in the output of verbose runs.
    let run = setup.ok(&["snapshot", &database.url(), "--name", "web", "-v", "-v"]);
    assert!(!run.transcript().replace(&database.url(), "").contains(&server.password), "{}", run.transcript());
    for file in std::fs::read_dir(setup.sandbox.path("backups/web")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(&server.password));
    }
    // A snapshot of another database under the same name is refused.
    let other = shop(&server, "other");
    let run = setup.run(&["snapshot", &other.url(), "--name", "web"]).code(2);
    assert!(run.stderr().contains("--name"), "{}", run.transcript());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_of_an_empty_or_emptied_database_is_refused() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("emptied");
        let url = database.url();
        let run = setup.run(&["snapshot", &url]).code(3);
        assert!(run.stderr().contains("empty") && run.stderr().contains("--allow-empty"), "{}", run.transcript());
        assert!(setup.sandbox.ids().is_empty());
        database.psql("CREATE TABLE t (id integer); INSERT INTO t VALUES (1)");
        let good = setup.snapshot(&database, &[]);
        database.psql("TRUNCATE t");
        setup.run(&["snapshot", &url]).code(3);
        database.psql("DROP TABLE t");
        let document = setup.run(&["snapshot", &url, "--json"]).code(3).json();
        assert_eq!(document["snapshots"], serde_json::json!([]));
        assert!(!document["problems"].as_array().unwrap().is_empty());
        assert_eq!(setup.sandbox.ids(), [good]);
        setup.ok(&["snapshot", &url, "--allow-empty"]);
        assert_eq!(setup.sandbox.ids().len(), 2);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_of_selected_tables_is_partial_and_never_latest() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "partial");
        database.psql("SELECT lo_from_bytea(4711, 'x')");
        let full = setup.snapshot(&database, &[]);
        let cases: [(&[&str], &str, i64); 4] = [
            (&["--table", "public.u*"], "rows of public.orders", 20),
            (&["--exclude-table", "orders"], "rows of public.orders", 22),
            (&["--exclude-data", "public.orders"], "rows of public.orders", 22),
            (&["--schema-only"], "rows of public.users", 0),
        ];
        for (arguments, left_out, count) in cases {
            let mut words = arguments.to_vec();
            words.push("--allow-empty");
            let id = setup.snapshot(&database, &words);
            let shown = setup.json(&["show", &id]);
            assert_eq!((&shown["kind"], &shown["rows"]), (&"partial".into(), &count.into()), "{arguments:?}");
            let run = setup.ok(&["show", &id]);
            assert!(run.stdout().contains(left_out) && run.stdout().contains("large objects"), "{}", run.transcript());
            assert_eq!(setup.json(&["show", "latest"])["id"], full);
            // A restored table whose rows were left out is empty, and the restore does not compare it.
            let new = setup.restore_new(&id, &[]);
            assert_eq!(
                new.value("SELECT count(*) FROM users").parse::<i64>().unwrap() * i64::from(count > 0),
                count.min(20)
            );
            assert_eq!(new.value("SELECT to_regclass('orders') IS NOT NULL"), "t");
        }
        let run = setup.run(&["snapshot", &database.url(), "--table", "usres"]).code(2);
        assert!(run.stderr().contains("usres"), "{}", run.transcript());
    });
}

/// Saves and restores text that is not UTF-8, in databases with the encodings that store it.
#[test]
#[ignore = "needs PostgreSQL"]
fn databases_with_other_encodings_are_restored_unchanged() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
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
            let id = setup.snapshot(&source, &["--name", &encoding.to_lowercase()]);
            let new = setup.restore_new(&id, &[]);
            let hex = if encoding == "SQL_ASCII" {
                "v"
            } else {
                "convert_from(convert_to(v, getdatabaseencoding()), 'SQL_ASCII')"
            };
            let hex = &format!("SELECT id, md5({hex}) FROM t ORDER BY id");
            assert_eq!(rows(&new, hex), rows(&source, hex), "{encoding}");
            assert_eq!(new.value("SELECT getdatabaseencoding()"), encoding);
            assert_eq!(setup.json(&["diff", &id, &new.url()])["equal"], true, "{encoding}");
            source.psql("DELETE FROM t");
            setup.ok(&["restore", &id, "--replace", "--to", &source.url()]);
            assert_eq!(rows(&new, hex), rows(&source, hex), "{encoding}");
        }
    });
}

/// Uses a role whose settings change the text form of values.
#[test]
#[ignore = "needs PostgreSQL"]
fn settings_of_the_role_do_not_change_snapshots_and_restores() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = samples::database(server, "types");
        source.psql("DELETE FROM every_char WHERE code BETWEEN 128 AND 255");
        let plain = setup.snapshot(&source, &["--compression", "zstd:1"]);
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
        let document = setup.json(&["snapshot", &url(&source), "--compression", "zstd:1"]);
        let id = text(&document["snapshots"][0]["id"]);
        let difference = setup.json(&["diff", &plain, &id]);
        assert_eq!(difference["equal"], true, "{difference:#}");
        let new = server.reserve_database("by_odd_role");
        setup.ok(&["restore", &plain, "--to", &url(&new), "--create"]);
        assert_equal_data(&source, &new, "restored by another role");
        setup.ok(&["restore", &plain, "--to", &url(&new), "--replace", "--no-safety"]);
        assert_equal_data(&source, &new, "replaced by another role");
        drop(new);
        server.psql("postgres", format!("DROP ROLE {role}"));
    });
}
