//! Tables that were dropped come back with what hung on them; tables beside; and what a dry run says.

use super::helpers::{Place, lasting, rows, shop, text};
use crate::support::compare::{assert_equal, data};
use crate::support::postgres::{oldest_and_newest, some_server};

#[test]
#[ignore = "needs PostgreSQL"]
fn a_dropped_table_comes_back_with_what_hung_on_it() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = shop(server, "dropped");
        let url = database.url();
        let id = place.snapshot(&database, &[]);
        let copy = place.restore_new(&id, &[]);
        let restore = ["restore", &id, "--table", "public.orders", "--to", &url];
        let before = (lasting(&database), data(&database));
        let run = place.run(&restore).code(2);
        assert!(run.stderr().contains("in the way") && run.stderr().contains("public.orders"), "{}", run.transcript());
        assert_eq!((lasting(&database), data(&database)), before);

        database.psql("DROP VIEW totals; DROP TABLE orders");
        let document = place.json(&restore);
        assert_eq!((&document["mode"], &document["safety_snapshot"]), (&"tables".into(), &serde_json::Value::Null));
        database.psql("CREATE VIEW totals AS SELECT user_id, sum(total) AS total FROM orders GROUP BY user_id");
        database.psql("GRANT SELECT ON totals TO lifeboat_reader");
        assert_equal(&copy, &database, "one dropped table");
        database.psql("DROP VIEW totals");
        place.paste(&text(&document["undo"]));
        assert_eq!(database.value("SELECT to_regclass('orders') IS NULL"), "t");
        place.ok(&restore);

        // With what other tables had of it: that is told.
        database.psql("SET client_min_messages = error; DROP TABLE users CASCADE");
        let run = place.ok(&["restore", &id, "--table", "users", "--to", &url]);
        for word in ["orders_user_id_fkey", "public.names"] {
            assert!(run.stderr().contains(word), "{word}\n{}", run.transcript());
        }
        assert_eq!(database.value("SELECT nextval('users_id_seq')"), "21");
        assert_eq!(database.value("SELECT obj_description('users'::regclass)"), "who they are");
        assert_eq!(
            rows(&database, "SELECT concat(tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"),
            ["alwaysA", "is_offD", "on_replicaR", "on_rowO", "on_truncateO"]
        );
        assert_eq!(database.value("SELECT count(*) FROM log"), "0");
        database.psql("DROP TABLE orders, users");
        place.ok(&["restore", &id, "--table", "users", "--table", "orders", "--to", &url]);
        assert_eq!(database.value("SELECT count(*) FROM orders JOIN users ON users.id = user_id"), "200");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn dropped_partitions_come_back() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = server.create_database("drop_parts");
        database.psql(
            "CREATE TABLE m (id integer PRIMARY KEY, v text DEFAULT 'x') PARTITION BY RANGE (id);
             CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM (0) TO (10);
             CREATE TABLE m_2 PARTITION OF m FOR VALUES FROM (10) TO (20);
             CREATE INDEX ON m (v); INSERT INTO m SELECT g FROM generate_series(0, 19) AS g; COMMENT ON TABLE m IS 'whole'",
        );
        let id = place.snapshot(&database, &[]);
        let copy = place.restore_new(&id, &[]);
        database.psql("DROP TABLE m_2");
        place.ok(&["restore", &id, "--table", "m_2", "--to", &database.url()]);
        assert_equal(&copy, &database, "one partition");
        database.psql("DROP TABLE m");
        place.ok(&["restore", &id, "--table", "m", "--to", &database.url()]);
        assert_equal(&copy, &database, "all of it");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn beside_brings_tables_back_under_another_schema() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = shop(server, "beside");
        let url = database.url();
        let id = place.snapshot(&database, &[]);
        let users = rows(&database, "SELECT * FROM users ORDER BY id");
        database.psql("DELETE FROM users WHERE id < 5");
        let (schema, now) = (lasting(&database), data(&database));
        let document = place.json(&["restore", &id, "--beside", "Old \"one\"", "--to", &url]);
        assert_eq!(document["mode"], "beside");
        let kept = "SELECT id, name, mood, born, note, initial FROM \"Old \"\"one\"\"\".users ORDER BY id";
        let columns = |rows: &[String]| rows.iter().map(|row| row.rsplit_once('|').unwrap().0.to_owned()).collect();
        let (got, expected): (Vec<String>, Vec<String>) = (columns(&rows(&database, kept)), columns(&users));
        assert_eq!(got, expected);
        assert_eq!(database.value("SELECT count(*) FROM \"Old \"\"one\"\"\".orders"), "200");
        let run = place.run(&["restore", &id, "--beside", "Old \"one\"", "--to", &url]).code(1);
        assert!(run.stderr().contains("already exists"), "{}", run.transcript());
        place.paste(&text(&document["undo"]));
        assert_eq!((lasting(&database), data(&database)), (schema, now));
        let document =
            place.json(&["restore", &id, "--beside", "two", "--table", "log", "--table", "Odd*", "--to", &url]);
        assert_eq!(document["tables"].as_array().unwrap().len(), 2);
        assert_eq!(
            rows(
                &database,
                "SELECT relname FROM pg_class WHERE relnamespace = 'two'::regnamespace AND relkind = 'r' ORDER BY 1"
            ),
            ["Odd \"name\"", "log"]
        );
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_dry_run_changes_nothing() {
    some_server(|server| {
        let place = Place::new(server);
        let database = shop(server, "dry");
        let url = database.url();
        let id = place.snapshot(&database, &[]);
        database.psql("DELETE FROM users WHERE id = 1");
        let everything = || {
            let databases = server.query(
                "postgres",
                "SELECT oid, datname FROM pg_database WHERE datname ~ '^dry_|^lifeboat_never' ORDER BY 1",
            );
            (lasting(&database), data(&database), place.sandbox.state(), databases)
        };
        let before = everything();
        let new = server.url(&format!("dry_new_{}", std::process::id()));
        for (mode, arguments) in [
            ("replace", vec!["--replace", "--to", &url]),
            ("replace", vec!["--replace", "--table", "orders", "--to", &url]),
            ("swap", vec!["--swap", "--to", &url]),
            ("beside", vec!["--beside", "old", "--to", &url]),
            ("create", vec!["--create", "--to", &new]),
        ] {
            let mut words = vec!["restore", &id, "--dry-run"];
            words.extend(&arguments);
            let document = place.json(&words);
            assert_eq!((&document["dry_run"], &document["mode"]), (&true.into(), &mode.into()), "{document:#}");
            assert!(document["tables"].as_array().unwrap().iter().all(|table| table["ok"] == false));
            assert!(place.ok(&words).stdout().contains("nothing was changed"));
            assert_eq!(everything(), before);
        }
        // It refuses what the real one would refuse.
        place.run(&["restore", &id, "--dry-run", "--replace", "--table", "users", "--to", &url]).code(1);
        place.run(&["restore", &id, "--dry-run", "--table", "users", "--to", &url]).code(2);
        place.run(&["restore", &id, "--dry-run", "--create", "--to", &url]).code(2);
        place.run(&["restore", &id, "--dry-run", "--to", &url]).code(2);
        assert_eq!(everything(), before);
    });
}

/// A table comes back with the sequences that it draws from where these are gone too; others stay as they are.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_dropped_table_comes_back_with_the_sequences_that_are_gone() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = server.create_database("drop_seq");
        database.psql(
            "CREATE SEQUENCE tickets START 100; CREATE SEQUENCE stays; CREATE SEQUENCE unused; CREATE SEQUENCE owned;
             CREATE TABLE t (id serial, ticket integer DEFAULT nextval('tickets'), other integer DEFAULT nextval('stays'),
                             again integer GENERATED BY DEFAULT AS IDENTITY);
             ALTER SEQUENCE owned OWNED BY t.other; SELECT nextval('owned'), nextval('unused');
             INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES",
        );
        let (id, url) = (place.snapshot(&database, &[]), database.url());
        let copy = place.restore_new(&id, &[]);
        database.psql("DROP TABLE t; DROP SEQUENCE tickets, unused; SELECT setval('stays', 50)");
        place.ok(&["restore", &id, "--table", "t", "--to", &url]);
        let drawn = "INSERT INTO t DEFAULT VALUES RETURNING id, ticket, other, again";
        assert_eq!(rows(&database, drawn), ["3|102|51|3"]);
        assert_eq!(database.value("SELECT nextval('owned')"), "2");
        assert_eq!(database.value("SELECT to_regclass('unused') IS NULL"), "t");
        database.psql("DELETE FROM t WHERE id = 3; CREATE SEQUENCE unused");
        database.psql("SELECT setval(name, value) FROM (VALUES ('t_id_seq', 2), ('tickets', 101), ('stays', 2), ('unused', 1), ('t_again_seq', 2), ('owned', 1)) AS v (name, value)");
        assert_equal(&copy, &database, "with its sequences");
    });
}
