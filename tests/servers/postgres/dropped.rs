//! Restores of dropped tables with their dependent objects; `restore --beside`; and dry runs.

use super::helpers::{Setup, definitions_and_oids, rows, shop, text};
use crate::support::compare::{assert_equal, data};
use crate::support::postgres::{oldest_and_newest, some_server};

#[test]
#[ignore = "needs PostgreSQL"]
fn a_dropped_table_is_restored_with_its_dependent_objects() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "dropped");
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        let copy = setup.restore_new(&id, &[]);
        let restore = ["restore", &id, "--table", "public.orders", "--to", &url];
        let before = (definitions_and_oids(&database), data(&database));
        let run = setup.run(&restore).code(2);
        assert!(run.stderr().contains("already exist in the database: public.orders"), "{}", run.transcript());
        assert_eq!((definitions_and_oids(&database), data(&database)), before);

        database.psql("DROP VIEW totals; DROP TABLE orders");
        let document = setup.json(&restore);
        assert_eq!((&document["mode"], &document["safety_snapshot"]), (&"tables".into(), &serde_json::Value::Null));
        database.psql("CREATE VIEW totals AS SELECT user_id, sum(total) AS total FROM orders GROUP BY user_id");
        database.psql("GRANT SELECT ON totals TO lifeboat_reader");
        assert_equal(&copy, &database, "one dropped table");
        database.psql("DROP VIEW totals");
        setup.paste(&text(&document["undo"]));
        assert_eq!(database.value("SELECT to_regclass('orders') IS NULL"), "t");
        setup.ok(&restore);

        // The objects of other tables that depended on it are not restored, and a warning names them.
        database.psql("SET client_min_messages = error; DROP TABLE users CASCADE");
        let run = setup.ok(&["restore", &id, "--table", "users", "--to", &url]);
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
        setup.ok(&["restore", &id, "--table", "users", "--table", "orders", "--to", &url]);
        assert_eq!(database.value("SELECT count(*) FROM orders JOIN users ON users.id = user_id"), "200");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn dropped_partitions_can_be_restored() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("drop_parts");
        database.psql(
            "CREATE TABLE m (id integer PRIMARY KEY, v text DEFAULT 'x') PARTITION BY RANGE (id);
             CREATE TABLE m_1 PARTITION OF m FOR VALUES FROM (0) TO (10);
             CREATE TABLE m_2 PARTITION OF m FOR VALUES FROM (10) TO (20);
             CREATE INDEX ON m (v); INSERT INTO m SELECT g FROM generate_series(0, 19) AS g; COMMENT ON TABLE m IS 'whole'",
        );
        let id = setup.snapshot(&database, &[]);
        let copy = setup.restore_new(&id, &[]);
        database.psql("DROP TABLE m_2");
        setup.ok(&["restore", &id, "--table", "m_2", "--to", &database.url()]);
        assert_equal(&copy, &database, "one partition");
        database.psql("DROP TABLE m");
        setup.ok(&["restore", &id, "--table", "m", "--to", &database.url()]);
        assert_equal(&copy, &database, "the whole partitioned table");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn beside_restores_tables_into_another_schema() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "beside");
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        let users = rows(&database, "SELECT * FROM users ORDER BY id");
        database.psql("DELETE FROM users WHERE id < 5");
        let (schema, now) = (definitions_and_oids(&database), data(&database));
        let document = setup.json(&["restore", &id, "--beside", "Old \"one\"", "--to", &url]);
        assert_eq!(document["mode"], "beside");
        let query = "SELECT id, name, mood, born, note, initial FROM \"Old \"\"one\"\"\".users ORDER BY id";
        let columns = |rows: &[String]| rows.iter().map(|row| row.rsplit_once('|').unwrap().0.to_owned()).collect();
        let (got, expected): (Vec<String>, Vec<String>) = (columns(&rows(&database, query)), columns(&users));
        assert_eq!(got, expected);
        assert_eq!(database.value("SELECT count(*) FROM \"Old \"\"one\"\"\".orders"), "200");
        let run = setup.run(&["restore", &id, "--beside", "Old \"one\"", "--to", &url]).code(1);
        assert!(run.stderr().contains("already exists"), "{}", run.transcript());
        setup.paste(&text(&document["undo"]));
        assert_eq!((definitions_and_oids(&database), data(&database)), (schema, now));
        let document =
            setup.json(&["restore", &id, "--beside", "two", "--table", "log", "--table", "Odd*", "--to", &url]);
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
fn a_dry_run_changes_nothing_and_fails_as_the_restore_would() {
    some_server(|server| {
        let setup = Setup::new(server);
        let database = shop(server, "dry");
        let url = database.url();
        let id = setup.snapshot(&database, &[]);
        database.psql("DELETE FROM users WHERE id = 1");
        let state = || {
            let databases = server.query(
                "postgres",
                "SELECT oid, datname FROM pg_database WHERE datname ~ '^dry_|^lifeboat_never' ORDER BY 1",
            );
            (definitions_and_oids(&database), data(&database), setup.sandbox.state(), databases)
        };
        let before = state();
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
            let document = setup.json(&words);
            assert_eq!((&document["dry_run"], &document["mode"]), (&true.into(), &mode.into()), "{document:#}");
            assert!(document["tables"].as_array().unwrap().iter().all(|table| table["ok"] == false));
            assert!(setup.ok(&words).stdout().contains("nothing was changed"));
            assert_eq!(state(), before);
        }
        // A dry run fails with the exit code of the restore.
        setup.run(&["restore", &id, "--dry-run", "--replace", "--table", "users", "--to", &url]).code(1);
        setup.run(&["restore", &id, "--dry-run", "--table", "users", "--to", &url]).code(2);
        setup.run(&["restore", &id, "--dry-run", "--create", "--to", &url]).code(2);
        setup.run(&["restore", &id, "--dry-run", "--to", &url]).code(2);
        assert_eq!(state(), before);
    });
}

/// Restores a table together with the sequences that its defaults use, if they do not exist. Other sequences are not
/// changed.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_dropped_table_is_restored_with_its_missing_sequences() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("drop_seq");
        database.psql(
            "CREATE SEQUENCE tickets START 100; CREATE SEQUENCE stays; CREATE SEQUENCE unused; CREATE SEQUENCE owned;
             CREATE TABLE t (id serial, ticket integer DEFAULT nextval('tickets'), other integer DEFAULT nextval('stays'),
                             again integer GENERATED BY DEFAULT AS IDENTITY);
             ALTER SEQUENCE owned OWNED BY t.other; SELECT nextval('owned'), nextval('unused');
             INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES",
        );
        let (id, url) = (setup.snapshot(&database, &[]), database.url());
        let copy = setup.restore_new(&id, &[]);
        database.psql("DROP TABLE t; DROP SEQUENCE tickets, unused; SELECT setval('stays', 50)");
        setup.ok(&["restore", &id, "--table", "t", "--to", &url]);
        let insert = "INSERT INTO t DEFAULT VALUES RETURNING id, ticket, other, again";
        assert_eq!(rows(&database, insert), ["3|102|51|3"]);
        assert_eq!(database.value("SELECT nextval('owned')"), "2");
        assert_eq!(database.value("SELECT to_regclass('unused') IS NULL"), "t");
        database.psql("DELETE FROM t WHERE id = 3; CREATE SEQUENCE unused");
        database.psql("SELECT setval(name, value) FROM (VALUES ('t_id_seq', 2), ('tickets', 101), ('stays', 2), ('unused', 1), ('t_again_seq', 2), ('owned', 1)) AS v (name, value)");
        assert_equal(&copy, &database, "with its sequences");
    });
}
