//! `restore --replace`: it replaces the rows of existing tables in one transaction, and can be undone.

use super::helpers::{Setup, connect, definitions_and_oids, require_refused, rows, shop, text};
use crate::support::compare::{assert_equal_data, data};
use crate::support::postgres::{PrivateServer, oldest_and_newest, some_server};

/// The damage that a bad deployment does to the shop.
const DAMAGE: &str = "DELETE FROM orders WHERE id > 100; UPDATE users SET name = 'nobody ' || id WHERE id < 10;
    INSERT INTO users (name) VALUES ('new 1'), ('new 2'); DELETE FROM \"Odd \"\"name\"\"\";
    INSERT INTO orders (user_id, total) VALUES (1, 1), (2, 2)";

#[test]
#[ignore = "needs PostgreSQL"]
fn replace_restores_exactly_the_saved_rows_and_can_be_undone() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "replaced");
        let id = setup.snapshot(&database, &[]);
        let (saved, schema) = (data(&database), definitions_and_oids(&database));
        let names = rows(&database, "SELECT * FROM names ORDER BY 1");
        database.psql(DAMAGE);
        database.psql("REFRESH MATERIALIZED VIEW names; REFRESH MATERIALIZED VIEW name_lengths");
        let damaged = data(&database);
        assert_ne!(saved, damaged);

        let document = setup.json(&["restore", &id, "--replace", "--to", &database.url()]);
        // No trigger has run, so the log is still empty. The sequences have their saved values.
        assert_eq!(data(&database), saved);
        assert_eq!(definitions_and_oids(&database), schema);
        assert_eq!(rows(&database, "SELECT * FROM names ORDER BY 1"), names);
        assert_eq!(database.value("SELECT count(*) FROM name_lengths"), "20");
        assert_eq!(database.value("SELECT nextval('users_id_seq')"), "21");
        for field in ["id", "target", "mode", "safety_snapshot", "undo", "tables", "seconds"] {
            assert!(!document[field].is_null(), "{field} is missing: {document:#}");
        }
        assert_eq!(document["mode"], "replace");
        assert!(document["tables"].as_array().unwrap().iter().all(|table| table["ok"] == true));
        assert!(!document.to_string().contains(&server.password));
        let listed = setup.json(&["list"]);
        assert_eq!(listed["snapshots"][0]["id"], document["safety_snapshot"]);

        setup.paste(&text(&document["undo"]));
        assert_eq!(data(&database), damaged);
        assert_eq!(definitions_and_oids(&database), schema);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn replace_advances_the_sequences_of_defaults_and_never_sets_them_back() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("drawn");
        database.psql(
            "CREATE SEQUENCE shared; CREATE SEQUENCE unused;
             CREATE TABLE a (id bigint DEFAULT nextval('shared'), what text);
             CREATE TABLE b (id bigint, what text);
             INSERT INTO a (what) SELECT 'row' FROM generate_series(1, 50); SELECT nextval('unused')",
        );
        let id = setup.snapshot(&database, &[]);
        let replace = ["restore", &id, "--replace", "--table", "a", "--to", &database.url()];
        database.psql("TRUNCATE a; SELECT setval('shared', 3), setval('unused', 9)");
        setup.ok(&replace);
        assert_eq!(database.value("SELECT nextval('shared')"), "51", "PostgreSQL {}", server.version);
        assert_eq!(database.value("SELECT nextval('unused')"), "10");
        database.psql("SELECT setval('shared', 1000)");
        setup.ok(&replace);
        assert_eq!(database.value("SELECT nextval('shared')"), "1001");
        // The defaults of table b use no sequence, so no sequence is changed.
        database.psql("SELECT setval('shared', 5)");
        setup.ok(&["restore", &id, "--replace", "--table", "b", "--to", &database.url()]);
        assert_eq!(database.value("SELECT nextval('shared')"), "6");
        // Rows are restored even if the sequence is locked, with a warning, or does not exist.
        let mut locking = connect(&database);
        locking.execute("BEGIN; ALTER SEQUENCE shared CACHE 1").unwrap();
        let run = setup.ok(&replace);
        assert!(run.stderr().contains("shared") && run.stderr().contains("cannot be advanced"), "{}", run.transcript());
        locking.execute("ROLLBACK").unwrap();
        database.psql("ALTER TABLE a ALTER id DROP DEFAULT; DROP SEQUENCE shared; TRUNCATE a");
        setup.ok(&replace);
        assert_eq!(database.value("SELECT count(*) FROM a"), "50");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn replace_of_selected_tables_does_not_change_the_others() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "some");
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        let orders = rows(&database, "SELECT * FROM orders ORDER BY id");
        database.psql(DAMAGE);
        let users = rows(&database, "SELECT * FROM users ORDER BY id");
        let damaged = data(&database);
        let document = setup.json(&["restore", &id, "--replace", "--table", "public.orders", "--to", &url]);
        assert_eq!(rows(&database, "SELECT * FROM orders ORDER BY id"), orders);
        assert_eq!(rows(&database, "SELECT * FROM users ORDER BY id"), users);
        assert_eq!(document["tables"].as_array().unwrap().len(), 1);
        // The sequence is not set back, because an application may have used its numbers.
        assert_eq!(database.value("SELECT nextval(pg_get_serial_sequence('orders', 'id'))"), "203");
        database.psql("ALTER SEQUENCE orders_id_seq RESTART WITH 202");
        setup.ok(&[&["restore"], &*undo_arguments(&document), &["--no-safety"]].concat());
        database.psql("SELECT setval('orders_id_seq', 202)");
        assert_eq!(data(&database), damaged);
        // A sequence that is behind the saved value is advanced.
        database.psql("ALTER SEQUENCE orders_id_seq RESTART");
        setup.ok(&["restore", &id, "--replace", "--table", "orders", "--to", &url, "--no-safety"]);
        assert_eq!(database.value("SELECT nextval('orders_id_seq')"), "201");

        // A table can be named by a pattern, by its plain name, and by its quoted SQL name.
        for name in ["Odd*", "Odd \"name\"", "public.\"Odd \"\"name\"\"\"", "public.Odd \"name\""] {
            database.psql("DELETE FROM \"Odd \"\"name\"\"\"");
            setup.ok(&["restore", &id, "--replace", "--table", name, "--to", &url, "--no-safety"]);
            assert_eq!(database.value("SELECT count(*) FROM \"Odd \"\"name\"\"\""), "2", "{name}");
        }
        database.psql("REFRESH MATERIALIZED VIEW names");
        let both = setup.json(&["restore", &id, "--replace", "--table", "users", "--table", "public.o*", "--to", &url]);
        assert_eq!(both["tables"].as_array().unwrap().len(), 2);
        // Materialized views of the replaced tables are refreshed.
        assert_eq!(
            rows(&database, "SELECT name FROM names ORDER BY id LIMIT 1"),
            rows(&database, "SELECT upper(name) FROM users ORDER BY id LIMIT 1")
        );
        assert_eq!(document["safety_snapshot"].as_str().unwrap().len(), id.len());
        for name in ["usres", "public.user", "other.users", ""] {
            require_refused(
                &setup,
                &database,
                &["restore", &id, "--replace", "--table", name, "--to", &url],
                2,
                &["no table"],
            );
        }
    });
}

/// Returns the arguments of the printed undo command, without `--store` and its value.
fn undo_arguments(document: &serde_json::Value) -> Vec<&str> {
    let words: Vec<&str> = document["undo"].as_str().unwrap().split(' ').collect();
    let end = words.iter().position(|word| *word == "--store").unwrap();
    words[2..end].iter().map(|word| word.trim_matches('\'')).collect()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn replace_is_refused_if_the_tables_do_not_fit_the_snapshot() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "misfit");
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        let all = ["restore", &id, "--replace", "--to", &url];
        let users = ["restore", &id, "--replace", "--table", "public.users", "--to", &url];
        let orders = ["restore", &id, "--replace", "--table", "public.orders", "--to", &url];
        // Orders refer to users, so users cannot be replaced alone.
        require_refused(&setup, &database, &users, 1, &["public.orders", "public.users"]);
        // The saved orders refer to a user that does not exist any more. The sequence is not changed either.
        database.psql("DELETE FROM users WHERE id = 7; ALTER SEQUENCE orders_id_seq RESTART");
        require_refused(
            &setup,
            &database,
            &[&orders[..], &["--no-safety"]].concat(),
            1,
            &["nothing was changed", "users"],
        );
        // The definitions of the tables have changed since the snapshot.
        database.psql("ALTER TABLE orders ADD paid boolean");
        require_refused(&setup, &database, &all, 1, &["public.orders", "+paid boolean"]);
        require_refused(&setup, &database, &orders, 1, &["public.orders", "+paid boolean"]);
        database
            .psql("DROP VIEW totals; ALTER TABLE orders DROP paid; ALTER TABLE orders ALTER total TYPE numeric(12, 2)");
        require_refused(&setup, &database, &orders, 1, &["-total numeric(10,2)", "+total numeric(12,2)"]);
        database.psql("ALTER TABLE orders ALTER total TYPE numeric(10, 2); CREATE TABLE later ()");
        require_refused(&setup, &database, &all, 1, &["public.later is not in the snapshot"]);
        database.psql("DROP TABLE later; ALTER TABLE log ALTER what SET NOT NULL");
        require_refused(&setup, &database, &all, 1, &["-what text", "+what text NOT NULL"]);
        database.psql("DROP TABLE log CASCADE");
        require_refused(&setup, &database, &all, 1, &["public.log does not exist"]);
        // The order of the columns does not matter.
        database.psql("CREATE TABLE log (what text, at timestamptz DEFAULT '2026-01-01 00:00+00')");
        setup.ok(&["restore", &id, "--replace", "--to", &url, "--no-safety"]);
        // Another session has locked a table.
        let mut writer = connect(&database);
        writer.execute("BEGIN; SET LOCAL application_name = 'the app'; UPDATE public.orders SET total = 1").unwrap();
        let orders = [&orders[..], &["--lock-timeout", "1"]].concat();
        let words = ["cannot lock the tables within 1 s", "application the app", "public.orders"];
        let run = setup.run(&orders).code(1);
        assert!(words.iter().all(|word| run.stderr().contains(word)), "{}", run.transcript());
        writer.execute("ROLLBACK").unwrap();
        assert_eq!(setup.sandbox.ids().len(), 1);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn partitions_and_child_tables_can_be_replaced_separately() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("parts");
        database.psql(
            "CREATE TABLE kinds (id integer PRIMARY KEY); INSERT INTO kinds VALUES (1), (2);
             CREATE TABLE log (what text);
             CREATE TABLE m (id integer, day date, kind integer REFERENCES kinds, PRIMARY KEY (id, day, kind)) PARTITION BY RANGE (day);
             CREATE TABLE m_2025 PARTITION OF m FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
             CREATE TABLE m_2026 PARTITION OF m FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (kind);
             CREATE TABLE m_2026_1 PARTITION OF m_2026 FOR VALUES IN (1);
             CREATE TABLE m_2026_2 PARTITION OF m_2026 FOR VALUES IN (2);
             CREATE TABLE refers (id integer, day date, kind integer, FOREIGN KEY (id, day, kind) REFERENCES m);
             CREATE TABLE none_yet (id integer REFERENCES kinds) PARTITION BY LIST (id);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (TG_TABLE_NAME); RETURN NEW; END';
             INSERT INTO m SELECT g, date '2025-06-01' + g, g % 2 + 1 FROM generate_series(1, 400) AS g;
             INSERT INTO refers SELECT id, day, kind FROM m WHERE id < 10;
             CREATE TRIGGER note AFTER INSERT ON m FOR EACH ROW EXECUTE FUNCTION note();
             CREATE TABLE parent (id integer); CREATE TABLE child (more text) INHERITS (parent);
             INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (3, 'x')",
        );
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        let (saved, schema) = (data(&database), definitions_and_oids(&database));
        let damage = "DELETE FROM refers; DELETE FROM m WHERE id % 3 = 0; INSERT INTO m VALUES (1000, '2026-12-01', 2)";
        database.psql(damage);
        database.psql("TRUNCATE log; DELETE FROM ONLY parent; UPDATE child SET more = 'y'");
        let damaged = data(&database);
        let document = setup.json(&["restore", &id, "--replace", "--to", &url]);
        assert_eq!((data(&database), definitions_and_oids(&database)), (saved.clone(), schema.clone()));
        setup.paste(&text(&document["undo"]));
        assert_eq!((data(&database), definitions_and_oids(&database)), (damaged, schema.clone()));
        // Replaces single partitions, then the whole partitioned table by its name, then a parent without its child.
        setup.ok(&[
            "restore",
            &id,
            "--replace",
            "--table",
            "m_2025",
            "--table",
            "refers",
            "--table",
            "m_2026_*",
            "--to",
            &url,
        ]);
        let of_m = |data: &std::collections::BTreeMap<String, Vec<String>>| -> Vec<Vec<String>> {
            data.iter().filter(|(name, _)| name.starts_with("COPY public.m_")).map(|(_, rows)| rows.clone()).collect()
        };
        assert_eq!(of_m(&data(&database)), of_m(&saved));
        database.psql(damage);
        setup.ok(&["restore", &id, "--replace", "--table", "public.m", "--table", "refers", "--to", &url]);
        assert_eq!(of_m(&data(&database)), of_m(&saved));
        setup.ok(&["restore", &id, "--replace", "--table", "parent", "--to", &url]);
        assert_eq!(rows(&database, "SELECT id FROM parent ORDER BY 1"), ["1", "2", "3"]);
        assert_eq!(rows(&database, "SELECT more FROM child"), ["y"]);
        database.psql("DELETE FROM log");
        let run = setup.run(&["restore", &id, "--replace", "--table", "m_2025", "--to", &url]).code(1);
        assert!(run.stderr().contains("public.refers"), "{}", run.transcript());
        assert_eq!(database.value("SELECT count(*) FROM log"), "0");
    });
}

/// Restores rows that violate a foreign key that was created with NOT VALID.
#[test]
#[ignore = "needs PostgreSQL"]
fn foreign_keys_that_are_not_validated_stay_not_validated() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("lax");
        database.psql(
            "CREATE TABLE a (id integer PRIMARY KEY); INSERT INTO a VALUES (1);
             CREATE TABLE b (a integer); INSERT INTO b VALUES (1), (99);
             ALTER TABLE b ADD CONSTRAINT lax FOREIGN KEY (a) REFERENCES a NOT VALID;
             CREATE TABLE c (a integer CONSTRAINT late REFERENCES a DEFERRABLE INITIALLY DEFERRED); INSERT INTO c VALUES (1)",
        );
        let id = setup.snapshot(&database, &[]);
        let saved = (data(&database), definitions_and_oids(&database));
        database.psql("DELETE FROM b; INSERT INTO b VALUES (1)");
        setup.ok(&["restore", &id, "--replace", "--table", "b", "--table", "c", "--to", &database.url()]);
        assert_eq!((data(&database), definitions_and_oids(&database)), saved);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn large_objects_are_not_replaced() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "objects");
        let without = setup.snapshot(&database, &[]);
        database.psql("SELECT lo_from_bytea(0, 'one')");
        // Large objects that the snapshot does not have are not changed, and do not prevent the undo.
        let document = setup.json(&["restore", &without, "--replace", "--to", &database.url()]);
        setup.paste(&text(&document["undo"]));
        assert_eq!(database.value("SELECT count(*) FROM pg_largeobject_metadata"), "1");
        let with = setup.snapshot(&database, &[]);
        let run = setup.run(&["restore", &with, "--replace", "--to", &database.url()]).code(2);
        assert!(run.stderr().contains("large objects") && run.stderr().contains("--swap"), "{}", run.transcript());
        setup.ok(&["restore", &with, "--replace", "--table", "users", "--table", "orders", "--to", &database.url()]);
    });
}

/// Restores into a database whose settings forbid writing, or change how values are read.
#[test]
#[ignore = "needs PostgreSQL"]
fn settings_of_the_database_do_not_change_what_is_restored() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = crate::support::samples::database(server, "odd_settings");
        database.psql(
            "SET default_transaction_read_only = off; SET search_path = public; SET standard_conforming_strings = on;
             SET array_nulls = on; SET client_encoding = UTF8; SET session_replication_role = origin;
             CREATE TABLE arrays (a text[], m money, i interval, t timestamptz, b bytea, f float8);
             INSERT INTO arrays VALUES ('{NULL,\"NULL\",x}', '1.50', '1 year -2 days', '2026-03-29 01:30:00+00', '\\x00ff', 0.1);",
        );
        database.psql(format!(
            "SET default_transaction_read_only = off; ALTER DATABASE \"{}\" SET statement_timeout = 1",
            database.name
        ));
        let writable = "SET default_transaction_read_only = off;";
        let id = setup.snapshot(&database, &[]);
        let original = server.reserve_database("quiet_copy");
        setup.ok(&["restore", &id, "--to", &original.url(), "--create"]);
        server.psql("postgres", format!("ALTER DATABASE \"{}\" RESET statement_timeout", original.name));
        let url = database.url();
        database.psql(format!("{writable} UPDATE public.arrays SET a = NULL"));
        setup.ok(&["restore", &id, "--replace", "--to", &url]);
        database.psql(format!("{writable} DROP TABLE public.arrays"));
        setup.ok(&["restore", &id, "--table", "arrays", "--to", &url]);
        setup.ok(&["restore", &id, "--beside", "old", "--to", &url]);
        database.psql(format!("{writable} SET client_min_messages = error; DROP SCHEMA old CASCADE"));
        assert_eq!(setup.json(&["diff", &id, &url])["equal"], true);
        server.psql("postgres", format!("ALTER DATABASE \"{}\" RESET statement_timeout", database.name));
        assert_equal_data(&original, &database, "odd settings");
    });
}

/// A role may TRUNCATE and INSERT without SELECT. It could not save the rows, so the restore could not be undone.
#[test]
#[ignore = "needs PostgreSQL"]
fn rows_that_the_safety_snapshot_cannot_read_are_not_overwritten() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "unsafe");
        database.psql("INSERT INTO log (what) VALUES ('saved')");
        let id = setup.snapshot(&database, &[]);
        let role = format!("lifeboat_blind_{}_{}", std::process::id(), server.major);
        server.psql("postgres", format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", server.password));
        database.psql(format!("UPDATE log SET what = 'now'; GRANT INSERT, TRUNCATE ON log TO {role}"));
        let url = database.url().replacen("//postgres:", &format!("//{role}:"), 1);
        let words = ["cannot save the data that would be overwritten", "public.log", "may not read it", "--no-safety"];
        require_refused(&setup, &database, &["restore", &id, "--replace", "--table", "log", "--to", &url], 1, &words);
        database.psql(format!("GRANT SELECT ON log TO {role}"));
        setup.ok(&["restore", &id, "--replace", "--table", "log", "--to", &url]);
        assert_eq!(database.value("SELECT what FROM log"), "saved");
        database.psql(format!("DROP OWNED BY {role}"));
        server.psql("postgres", format!("DROP ROLE {role}"));
    });
}

/// The table was saved as an ordinary table. Now it is a hash partition by an enum, whose rows cannot be saved.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_table_that_cannot_be_saved_now_is_not_overwritten() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("unsafe_part");
        database.psql(
            "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TABLE calm (mood mood); INSERT INTO calm VALUES ('ok');
             CREATE TABLE other (id integer); INSERT INTO other VALUES (1)",
        );
        let id = setup.snapshot(&database, &[]);
        database.psql(
            "UPDATE calm SET mood = 'sad'; CREATE TABLE moods (mood mood) PARTITION BY HASH (mood);
             ALTER TABLE moods ATTACH PARTITION calm FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        );
        let url = database.url();
        for table in [&[][..], &["--table", "calm"]] {
            let arguments = [&["restore", &id, "--replace", "--to", &url][..], table].concat();
            require_refused(
                &setup,
                &database,
                &arguments,
                1,
                &["public.calm", "hash partition by an enum", "--no-safety"],
            );
        }
        setup.ok(&["restore", &id, "--replace", "--table", "calm", "--to", &url, "--no-safety"]);
        assert_eq!(database.value("SELECT mood FROM moods"), "ok");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn replace_is_refused_if_a_sequence_of_the_snapshot_is_missing() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("no_sequence");
        database.psql(
            "CREATE TABLE t (id serial, what text); INSERT INTO t (what) VALUES ('saved');
             CREATE SEQUENCE tickets; SELECT nextval('tickets'); CREATE TABLE u (id integer)",
        );
        let (id, url) = (setup.snapshot(&database, &[]), database.url());
        let all = ["restore", &id, "--replace", "--no-safety", "--to", &url];
        let one_table = [&all[..], &["--table", "t"]].concat();
        database.psql("UPDATE t SET what = 'now'; DROP SEQUENCE tickets");
        // A sequence that no column owns is needed only if all tables are replaced.
        require_refused(
            &setup,
            &database,
            &all,
            1,
            &["the sequence public.tickets does not exist", "nothing was changed"],
        );
        setup.ok(&one_table);
        assert_eq!(database.value("SELECT what FROM t"), "saved");
        database.psql("CREATE SEQUENCE tickets; UPDATE t SET what = 'now'; ALTER TABLE t ALTER id DROP DEFAULT; DROP SEQUENCE t_id_seq");
        for arguments in [&all[..], &one_table] {
            require_refused(
                &setup,
                &database,
                arguments,
                1,
                &["the sequence public.t_id_seq does not exist", "nothing was changed"],
            );
        }
        setup.ok(&[&all[..], &["--table", "u"]].concat());
    });
}

/// The server has room for a fixed number of locks. Without this check, it runs out of memory for them in the middle.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_replacement_that_needs_more_locks_than_the_server_has_room_for_is_refused_before_work() {
    let private = PrivateServer::start(15);
    private.configure(
        "max_locks_per_transaction = 10\nmax_connections = 20\nmax_worker_processes = 2\nmax_wal_senders = 2",
    );
    let setup = Setup::new(&private);
    let database = private.create_database("locks");
    let tables = |from: u32, to: u32| -> String {
        (from..to)
            .map(|n| format!("CREATE TABLE t{n} (id integer PRIMARY KEY, v text); INSERT INTO t{n} VALUES (1, 'x');"))
            .collect()
    };
    database.psql(tables(0, 30));
    let id = setup.snapshot(&database, &[]);
    database.psql("DELETE FROM t7");
    setup.ok(&["restore", &id, "--to", &database.url(), "--replace", "--yes"]);
    assert_eq!(rows(&database, "SELECT count(*) FROM t7"), ["1"]);
    database.psql(tables(30, 90));
    let id = setup.snapshot(&database, &[]);
    let words =
        ["90 tables takes 360 locks", "max_locks_per_transaction = 10", "--table", "--swap", "nothing was changed"];
    require_refused(&setup, &database, &["restore", &id, "--to", &database.url(), "--replace", "--yes"], 1, &words);
}
