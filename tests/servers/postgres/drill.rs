//! `drill`: a scratch database that is gone afterwards, whatever becomes of the program.

use std::process::Stdio;

use super::helpers::{Place, shop, wait_until};
use crate::support::postgres::{Server, TestDatabase, oldest_and_newest, some_server};
use crate::support::samples;

fn scratch_of(place: &Place, id: &str) -> Vec<String> {
    place.databases_like(&format!("shobj_description(oid, 'pg_database') ~ 'not finished.*{id}'"))
}

#[test]
#[ignore = "needs PostgreSQL"]
fn drill_leaves_nothing_behind() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let source = samples::database(server, "everything");
        let id = place.snapshot(&source, &[]);
        let of_others = format!("datname ~ '^lifeboat_.*' AND datname <> '{}'", source.name);
        let before = place.databases_like(&of_others);
        let document = place.json(&["drill", &id]);
        assert_eq!(document["ok"], true);
        assert!(document["snapshots"][0]["restore_seconds"].as_f64().unwrap() > 0.0);
        assert!(scratch_of(&place, &id).is_empty());
        // Other tests make theirs at the same time; none of them is of this snapshot.
        let left: Vec<String> =
            place.databases_like(&of_others).into_iter().filter(|name| !before.contains(name)).collect();
        for name in left {
            let tables = "SELECT to_regclass('app.accounts') IS NOT NULL";
            let is_ours = || server.value(&name, tables) == "t";
            assert!(
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(is_ours)).map_or(true, |ours| !ours),
                "{name}"
            );
        }
        assert_eq!(place.json(&["show", &id])["proof"], "drilled");
        // On another server, or as another: where it is said.
        place.ok(&["drill", &id, "--to", &server.socket_url("postgres")]);
    });
}

/// A database that looks like a scratch database.
fn made(server: &Server, name: &str, comment: &str) -> TestDatabase {
    let name = format!("lifeboat_{name}_{}", std::process::id());
    server.psql("postgres", format!("CREATE DATABASE {name}; COMMENT ON DATABASE {name} IS {comment}"));
    TestDatabase { server: server.clone(), name }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn what_a_killed_drill_left_is_dropped_by_the_next_and_nothing_else() {
    some_server(|server| {
        let place = Place::new(server);
        let source = shop(server, "killed");
        // Slow where it is drilled, so that it is met at it.
        source.psql(
            "CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
                 IF current_database() ~ '^lifeboat_' THEN PERFORM pg_catalog.pg_sleep(0.005); END IF; RETURN true; END$$;
             CREATE TABLE big (id integer CHECK (public.slow())); INSERT INTO big SELECT generate_series(1, 500)",
        );
        let id = place.snapshot(&source, &["--compression", "zstd:1"]);
        let mark = |host: &str, process: u32| {
            format!(
                "'lifeboat: not finished {{\"purpose\":\"drill\",\"snapshot\":\"x\",\"host\":\"{host}\",\"process\":{process},\"since\":\"2026-11-21T00:00:00Z\"}}'"
            )
        };
        let own = made(server, "users_own", "NULL");
        let elsewhere = made(server, "elsewhere", &mark("another-host", 1));
        let alive = made(server, "alive", &mark("this-host", std::process::id()));
        let host = ["--host", "this-host"];
        let mut drill = place.command(&["drill", &id, host[0], host[1]]);
        let mut drill = drill.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the drill has begun", || {
            !scratch_of(&place, &id).is_empty() || drill.try_wait().unwrap().is_some()
        });
        drill.kill().unwrap();
        assert!(!drill.wait().unwrap().success(), "it was over before it could be killed");
        let left = scratch_of(&place, &id);
        assert_eq!(left.len(), 1);
        wait_until("the server has noticed", || {
            server.value("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", left[0]))
                == "0"
        });
        // The proof is of what was proven.
        assert_eq!(place.json(&["show", &id])["proof"], "none");
        let run = place.ok(&["drill", &id, host[0], host[1]]);
        assert!(run.stderr().contains(&format!("dropped {}", left[0])), "{}", run.transcript());
        assert!(scratch_of(&place, &id).is_empty());
        for kept in [&own, &elsewhere, &alive] {
            assert_eq!(place.databases_like(&format!("datname = '{}'", kept.name)).len(), 1);
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_that_cannot_be_restored_is_found_out() {
    let server = crate::support::postgres::server(15);
    let place = Place::new(&server);
    let source = server.create_database("undrillable");
    source.psql(format!(
        "CREATE FUNCTION here() RETURNS boolean LANGUAGE sql AS $$SELECT current_database() = '{}'$$;
         CREATE TABLE b (id integer, CONSTRAINT only_here CHECK (public.here())); INSERT INTO b VALUES (1)",
        source.name
    ));
    let id = place.snapshot(&source, &[]);
    let run = place.run(&["drill", &id]).code(1);
    assert!(run.stderr().contains("only_here"), "{}", run.transcript());
    assert!(scratch_of(&place, &id).is_empty());
}

/// The archive is good, and the restored database holds something else all the same: a check that writes, as it is
/// run by whoever loads rows.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_drill_that_finds_other_rows_is_a_problem_and_no_damage() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let source = server.create_database("differs");
        source.psql(
            "CREATE TABLE log (what text);
             CREATE FUNCTION noted(id integer) RETURNS boolean LANGUAGE plpgsql AS
                 $$BEGIN INSERT INTO public.log VALUES ('checked ' || id); RETURN true; END$$;
             CREATE TABLE t (id integer CHECK (public.noted(id))); INSERT INTO t VALUES (1), (2)",
        );
        let id = place.snapshot(&source, &[]);
        let run = place.run(&["drill", &id, "--json"]).code(3);
        let document = run.json();
        let drilled = &document["snapshots"][0];
        assert_eq!(
            (&document["ok"], &drilled["ok"], &drilled["level"]),
            (&false.into(), &false.into(), &"none".into())
        );
        let problem = &drilled["problems"][0];
        assert_eq!(problem["kind"], "different", "{}", run.transcript());
        let told = problem["message"].as_str().unwrap();
        assert!(told.contains("the table public.log has 4 rows, and 2 were saved"), "{told}");
        assert!(scratch_of(&place, &id).is_empty());
        // Nothing is held against the archive, and what was known of it stays.
        assert_eq!(place.json(&["show", &id])["proof"], "none");
        place.ok(&["verify", &id]);
        let verified = place.json(&["show", &id])["proof"].clone();
        let run = place.run(&["drill", &id]).code(3);
        assert!(format!("{}{}", run.stdout(), run.stderr()).contains("public.log"), "{}", run.transcript());
        assert_eq!((place.json(&["show", &id])["proof"].clone(), verified == "none"), (verified, false));
        assert_eq!(place.json(&["show", "latest"])["id"], id);
        // Nor is it kept by a restore.
        let new = server.reserve_database("differs_new");
        place.run(&["restore", &id, "--to", &new.url(), "--create"]).code(3).says("public.log");
        assert!(place.databases_like(&format!("datname = '{}'", new.name)).is_empty());
    });
}
