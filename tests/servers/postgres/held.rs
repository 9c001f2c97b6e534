//! Databases with parts that prevent a rename or a drop, or that outlive an exchange: subscriptions, event triggers,
//! replication slots and prepared transactions.

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;

use super::helpers::{Setup, rows, text};
use crate::support::postgres::{TestDatabase, oldest_and_newest, some_server};

/// A disabled subscription without a slot, an event trigger that refuses all DDL, and default privileges, which are
/// restored after everything else.
const REFUSES_DDL: &str = "
CREATE TABLE t (a integer); INSERT INTO t VALUES (1), (2);
CREATE SUBSCRIPTION \"a sub\" CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false);
ALTER SUBSCRIPTION \"a sub\" SET (slot_name = NONE);
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no DDL in production'; END$$;
CREATE EVENT TRIGGER refuses ON ddl_command_start EXECUTE FUNCTION refuse();
ALTER EVENT TRIGGER refuses ENABLE ALWAYS;";

/// An event trigger that refuses every session in other databases than the first, and writes a row there.
const REFUSES_LOGIN: &str = "
CREATE TABLE logins (who text); INSERT INTO logins VALUES ('first');
CREATE FUNCTION at_login() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
    IF current_database() <> '@database@' THEN
        INSERT INTO public.logins VALUES (session_user); RAISE EXCEPTION 'nobody may log in';
    END IF; END$$;
CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION at_login();";

#[test]
#[ignore = "needs PostgreSQL"]
fn a_database_that_refuses_ddl_is_drilled_and_its_restore_is_undone() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("refuses");
        source.psql(REFUSES_DDL);
        let id = setup.snapshot(&source, &[]);
        let left = format!("shobj_description(oid, 'pg_database') ~ 'not finished.*{id}'");
        assert_eq!(setup.json(&["drill", &id])["ok"], true);
        assert!(setup.databases_where(&left).is_empty());
        let require_undo = |report: &serde_json::Value, name: &str| {
            setup.paste(&text(&report["undo"]));
            assert!(setup.databases_where(&format!("datname = '{name}'")).is_empty(), "{report}");
        };
        let new = server.reserve_database("refuses_new");
        let report = setup.json(&["restore", &id, "--to", &new.url(), "--create"]);
        assert_eq!(rows(&new, "SELECT evtname, evtenabled FROM pg_event_trigger"), ["refuses|A"]);
        assert_eq!(new.value("SELECT count(*) FROM pg_default_acl"), "1");
        // A program is connected already.
        let client = Session::connect(&Params::parse(&new.socket_url()).unwrap()).unwrap();
        require_undo(&report, &new.name);
        drop(client);

        source.psql("ALTER EVENT TRIGGER refuses DISABLE");
        if server.major >= 17 {
            source.psql(REFUSES_LOGIN.replace("@database@", &source.name));
            source.psql("ALTER EVENT TRIGGER refuses ENABLE");
            let id = setup.snapshot(&source, &["--name", "login"]);
            assert_eq!(setup.json(&["drill", &id])["ok"], true);
            let new = server.reserve_database("login_new");
            require_undo(&setup.json(&["restore", &id, "--to", &new.url(), "--create"]), &new.name);
            source.psql("ALTER EVENT TRIGGER refuses DISABLE; ALTER EVENT TRIGGER at_login DISABLE");
        }
    });
}

/// A prepared transaction in a database. It is rolled back at the end of its test, because it keeps other tests of the
/// server from making replication slots.
struct Prepared<'a> {
    database: &'a TestDatabase,
    name: String,
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        self.database.psql(format!("ROLLBACK PREPARED '{}'", self.name));
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn what_outlives_an_exchange_or_prevents_it_is_named_before_the_build() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("outlives");
        source.psql("CREATE TABLE t (a integer); INSERT INTO t VALUES (1); CREATE TABLE u (a integer)");
        let id = setup.snapshot(&source, &[]);
        let (name, url, slot) = (&source.name, source.url(), format!("slot_{}", std::process::id()));
        source.psql(format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding');
             CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p
                 WITH (connect = false, slot_name = 'no_such_slot');
             CREATE FUNCTION quiet() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
             CREATE EVENT TRIGGER later ON sql_drop EXECUTE FUNCTION quiet();
             BEGIN; UPDATE t SET a = 2; PREPARE TRANSACTION 'left_{slot}'"
        ));
        let prepared = Prepared { database: &source, name: format!("left_{slot}") };
        let swap = ["restore", &id, "--swap", "--to", &url];
        for arguments in [&swap[..], &[&swap[..], &["--dry-run"]].concat()] {
            setup
                .run(arguments)
                .code(1)
                .says(&format!("left_{slot}"))
                .says("ROLLBACK PREPARED")
                .says("nothing was changed");
        }
        let replace = ["restore", &id, "--replace", "--table", "t", "--to", &url, "--lock-timeout", "1"];
        let run = setup.run(&replace).code(1);
        for words in [
            format!("the prepared transaction 'left_{slot}' uses public.t"),
            format!("the consumers of the replication slot {slot} get"),
            "the event trigger later fires".to_owned(),
        ] {
            assert!(run.stderr().contains(&words), "{words}\n{}", run.transcript());
        }
        drop(prepared);

        // The worker of an enabled subscription is a session in the database. The event trigger would refuse to disable it.
        source.psql(
            "ALTER SUBSCRIPTION sub ENABLE;
             CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no DDL'; END$$;
             CREATE EVENT TRIGGER refuses ON ddl_command_start EXECUTE FUNCTION refuse();
             ALTER EVENT TRIGGER refuses ENABLE ALWAYS",
        );
        setup
            .run(&swap)
            .code(1)
            .says("enabled subscriptions (sub)")
            .says("ALTER SUBSCRIPTION")
            .says("nothing was changed");
        let run = setup.run(&[&swap[..], &["--disconnect", "--json"]].concat()).code(0);
        for words in [
            format!("the replication slot {slot} stays with the old database"),
            "the subscription sub stays with the old database".to_owned(),
            "the event trigger later stays with the old database".to_owned(),
        ] {
            assert!(run.stderr().contains(&words), "{words}\n{}", run.transcript());
        }
        let report = run.json();
        assert_eq!(report["notes"].as_array().unwrap().len(), 4, "{report}");
        let swapped = setup.undo_swap(&report);
        // The first name in the command is that of the old database, whose subscription is disabled for the renames.
        drop(swapped);
        assert_eq!(
            rows(
                &source,
                "SELECT subname, subenabled FROM pg_subscription s JOIN pg_database d
            ON d.oid = subdbid WHERE datname = current_database()"
            ),
            ["sub|t"]
        );
        assert_eq!(
            rows(&source, "SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1"),
            ["later|O", "refuses|A"]
        );
        assert_eq!(source.value("SELECT count(*) FROM u"), "0");
        source.psql("ALTER EVENT TRIGGER refuses DISABLE");
        source.psql(format!("ALTER SUBSCRIPTION sub DISABLE; SELECT pg_drop_replication_slot('{slot}')"));
        assert_eq!(setup.databases_where(&format!("datname LIKE '{}_before_%'", &name[..name.len().min(38)])), [""; 0]);
    });
}

/// The scratch database of a drill that was killed is dropped by the next drill, unless somebody uses its subscription.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_left_over_scratch_database_is_dropped_although_it_has_a_subscription() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("leaves");
        source.psql("CREATE TABLE t (a integer); INSERT INTO t VALUES (1)");
        let id = setup.snapshot(&source, &[]);
        let [left, kept] = ["left", "kept"].map(|word| {
            let name = format!("lifeboat_{word}_{}", std::process::id());
            server.psql(
                "postgres",
                format!(
                    "CREATE DATABASE {name}; COMMENT ON DATABASE {name} IS 'lifeboat: not finished {{\"purpose\":\"drill\",\
                     \"snapshot\":\"x\",\"host\":\"this-host\",\"process\":1999999999,\"since\":\
                     \"2026-11-21T00:00:00Z\"}}'"
                ),
            );
            TestDatabase { server: server.clone(), name }
        });
        left.psql(REFUSES_DDL);
        kept.psql(
            "CREATE SUBSCRIPTION has_slot CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p
                 WITH (connect = false, slot_name = 'of_others')",
        );
        let to = server.socket_url("postgres");
        let run = setup.ok(&["drill", &id, "--host", "this-host", "--to", &to]);
        assert!(run.stderr().contains(&format!("dropped {}", left.name)), "{}", run.transcript());
        assert!(setup.databases_where(&format!("datname = '{}'", left.name)).is_empty());
        assert_eq!(setup.databases_where(&format!("datname = '{}'", kept.name)).len(), 1);
        assert_eq!(kept.value("SELECT subslotname FROM pg_subscription WHERE subname = 'has_slot'"), "of_others");
    });
}
