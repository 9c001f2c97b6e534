//! `drill`: it restores into a scratch database, which is dropped afterwards, even if the program is killed.

use std::process::Stdio;

use super::helpers::{Setup, shop, wait_until};
use crate::support::postgres::{Server, TestDatabase, oldest_and_newest, some_server};
use crate::support::samples;

/// Returns the scratch databases of drills of this snapshot.
fn scratch_databases(setup: &Setup, id: &str) -> Vec<String> {
    setup.databases_where(&format!("shobj_description(oid, 'pg_database') ~ 'not finished.*{id}'"))
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_drops_its_scratch_database() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = samples::database(server, "everything");
        let id = setup.snapshot(&source, &[]);
        let scratch_condition = format!("datname ~ '^lifeboat_.*' AND datname <> '{}'", source.name);
        let before = setup.databases_where(&scratch_condition);
        let document = setup.json(&["drill", &id]);
        assert_eq!(document["ok"], true);
        assert!(document["snapshots"][0]["restore_seconds"].as_f64().unwrap() > 0.0);
        assert!(scratch_databases(&setup, &id).is_empty());
        // Other tests create scratch databases at the same time. None of them may contain the tables of this snapshot.
        let remaining: Vec<String> =
            setup.databases_where(&scratch_condition).into_iter().filter(|name| !before.contains(name)).collect();
        for name in remaining {
            let tables = "SELECT to_regclass('app.accounts') IS NOT NULL";
            let is_ours = || server.value(&name, tables) == "t";
            assert!(
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(is_ours)).map_or(true, |ours| !ours),
                "{name}"
            );
        }
        assert_eq!(setup.json(&["show", &id])["proof"], "drilled");
        // --to names the server on which the snapshot is drilled.
        setup.ok(&["drill", &id, "--to", &server.socket_url("postgres")]);
    });
}

/// Creates a database whose name is that of a scratch database, with this comment.
fn create_database(server: &Server, name: &str, comment: &str) -> TestDatabase {
    let name = format!("lifeboat_{name}_{}", std::process::id());
    server.psql("postgres", format!("CREATE DATABASE {name}; COMMENT ON DATABASE {name} IS {comment}"));
    TestDatabase { server: server.clone(), name }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_drops_the_scratch_database_of_a_killed_drill_and_no_other_database() {
    some_server(|server| {
        let setup = Setup::new(server);
        let source = shop(server, "killed");
        // The check constraint is slow in a scratch database, so that the drill can be killed while it runs.
        source.psql(
            "CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
                 IF current_database() ~ '^lifeboat_' THEN PERFORM pg_catalog.pg_sleep(0.005); END IF; RETURN true; END$$;
             CREATE TABLE big (id integer CHECK (public.slow())); INSERT INTO big SELECT generate_series(1, 500)",
        );
        let id = setup.snapshot(&source, &["--compression", "zstd:1"]);
        let comment = |host: &str, process: u32| {
            format!(
                "'lifeboat: not finished {{\"purpose\":\"drill\",\"snapshot\":\"x\",\"host\":\"{host}\",\"process\":{process},\"since\":\"2026-11-21T00:00:00Z\"}}'"
            )
        };
        let user_database = create_database(server, "users_own", "NULL");
        let of_other_host = create_database(server, "elsewhere", &comment("another-host", 1));
        let of_running_process = create_database(server, "alive", &comment("this-host", std::process::id()));
        let server_url = server.socket_url("postgres");
        let drill = ["drill", &id, "--host", "this-host", "--to", &server_url];
        let mut killed = setup.command(&drill);
        let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the drill has created its database", || {
            !scratch_databases(&setup, &id).is_empty() || killed.try_wait().unwrap().is_some()
        });
        killed.kill().unwrap();
        assert!(!killed.wait().unwrap().success(), "the drill ended before it was killed");
        let remaining = scratch_databases(&setup, &id);
        assert_eq!(remaining.len(), 1);
        wait_until("the server has closed the connections of the killed drill", || {
            let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", remaining[0]);
            server.value("postgres", &sessions) == "0"
        });
        // The killed drill has proved nothing.
        assert_eq!(setup.json(&["show", &id])["proof"], "none");
        let run = setup.ok(&drill);
        assert!(run.stderr().contains(&format!("dropped {}", remaining[0])), "{}", run.transcript());
        assert!(scratch_databases(&setup, &id).is_empty());
        for kept in [&user_database, &of_other_host, &of_running_process] {
            assert_eq!(setup.databases_where(&format!("datname = '{}'", kept.name)).len(), 1);
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_fails_if_the_snapshot_cannot_be_restored() {
    let server = crate::support::postgres::server(15);
    let setup = Setup::new(&server);
    let source = server.create_database("undrillable");
    source.psql(format!(
        "CREATE FUNCTION here() RETURNS boolean LANGUAGE sql AS $$SELECT current_database() = '{}'$$;
         CREATE TABLE b (id integer, CONSTRAINT only_here CHECK (public.here())); INSERT INTO b VALUES (1)",
        source.name
    ));
    let id = setup.snapshot(&source, &[]);
    let run = setup.run(&["drill", &id]).code(1);
    assert!(run.stderr().contains("only_here"), "{}", run.transcript());
    assert!(scratch_databases(&setup, &id).is_empty());
}

/// The archive is undamaged, but the restored database has other rows: a check constraint that writes to a table runs
/// again when the rows are loaded.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_that_finds_other_rows_reports_a_problem_but_no_damage() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let source = server.create_database("differs");
        source.psql(
            "CREATE TABLE log (what text);
             CREATE FUNCTION noted(id integer) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO public.log VALUES ('checked ' || id); RETURN true; END$$;
             CREATE TABLE t (id integer CHECK (public.noted(id))); INSERT INTO t VALUES (1), (2)",
        );
        let id = setup.snapshot(&source, &[]);
        let run = setup.run(&["drill", &id, "--json"]).code(3);
        let document = run.json();
        let drilled = &document["snapshots"][0];
        assert_eq!(
            (&document["ok"], &drilled["ok"], &drilled["level"]),
            (&false.into(), &false.into(), &"none".into())
        );
        let problem = &drilled["problems"][0];
        assert_eq!(problem["kind"], "different", "{}", run.transcript());
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("the table public.log has 4 rows, but 2 were saved"), "{message}");
        assert!(scratch_databases(&setup, &id).is_empty());
        // The archive is not marked as damaged, and the earlier proof of the snapshot is kept.
        assert_eq!(setup.json(&["show", &id])["proof"], "none");
        setup.ok(&["verify", &id]);
        let verified = setup.json(&["show", &id])["proof"].clone();
        let run = setup.run(&["drill", &id]).code(3);
        assert!(format!("{}{}", run.stdout(), run.stderr()).contains("public.log"), "{}", run.transcript());
        assert_eq!((setup.json(&["show", &id])["proof"].clone(), verified == "none"), (verified, false));
        assert_eq!(setup.json(&["show", "latest"])["id"], id);
        // A restore that finds other rows drops the new database.
        let new = server.reserve_database("differs_new");
        setup.run(&["restore", &id, "--to", &new.url(), "--create"]).code(3).says("public.log");
        assert!(setup.databases_where(&format!("datname = '{}'", new.name)).is_empty());
    });
}
