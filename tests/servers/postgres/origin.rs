//! Where a snapshot goes back to by itself: to where it came from, whatever the environment names by then.

use std::process::Command;

use super::helpers::{Place, rows};
use crate::support::postgres::{TestDatabase, servers};

#[test]
#[ignore = "needs PostgreSQL"]
fn the_environment_does_not_say_where_a_snapshot_came_from() {
    let servers = servers();
    let (here, elsewhere) = (&servers[0], &servers[servers.len() - 1]);
    assert_ne!(here.port, elsewhere.port, "this takes two servers");
    let place = Place::new(here);
    let database = here.create_database("at_home");
    database.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('saved')");
    let id = place.snapshot(&database, &["--host", "this-host"]);
    // One of the same name, which would do as well.
    let other = TestDatabase { server: elsewhere.clone(), name: database.name.clone() };
    elsewhere.psql("postgres", format!("CREATE DATABASE \"{}\"", other.name));
    other.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('theirs')");
    let folder = elsewhere.socket_dir.to_str().unwrap();
    let port = elsewhere.port.to_string();
    let what = |database: &TestDatabase| rows(database, "SELECT what FROM t");
    let around = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command: Command = place.command(arguments);
        command.envs(variables.iter().copied());
        place.sandbox.finish(command)
    };
    let environments: [&[(&str, &str)]; 4] = [
        &[("PGHOST", folder), ("PGPORT", &port)],
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGDATABASE", "postgres"), ("PGUSER", "nobody_here")],
        &[("PGHOST", "no-such-host.invalid")],
        &[("PGHOSTADDR", "192.0.2.1"), ("PGCONNECT_TIMEOUT", "2")],
    ];
    for variables in environments {
        database.psql("UPDATE t SET what = 'now'");
        around(variables, &["restore", &id, "--replace", "--host", "this-host"]).code(0);
        assert_eq!((what(&database), what(&other)), (vec!["saved".to_owned()], vec!["theirs".to_owned()]));
        let run = around(variables, &["diff", &id, "--exit-code", "--host", "this-host"]).code(0);
        assert!(run.stdout().contains("no difference"), "{}", run.transcript());
        around(variables, &["drill", &id, "--host", "this-host"]).code(0);
    }
}

/// What was on the loopback there is not on the loopback here.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_of_another_machine_is_not_restored_to_this_one_unasked() {
    let servers = servers();
    let server = &servers[servers.len() - 1];
    let place = Place::new(server);
    let database = server.create_database("far_away");
    database.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('saved')");
    let id = place.snapshot(&database, &["--host", "their-host.invalid"]);
    database.psql("UPDATE t SET what = 'now'");
    let (folder, port) = (server.socket_dir.to_str().unwrap(), server.port.to_string());
    for variables in [
        &[][..],
        &[("PGHOST", folder), ("PGPORT", &port)],
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port)],
        &[("PGHOSTADDR", "127.0.0.1"), ("PGPORT", &port)],
    ] {
        let mut command = place.command(&["restore", &id, "--replace", "--host", "this-host"]);
        command.envs(variables.iter().copied());
        let run = place.sandbox.finish(command).code(5).says("their-host.invalid");
        assert_eq!(rows(&database, "SELECT what FROM t"), ["now"], "{}", run.transcript());
    }
    place.ok(&["restore", &id, "--replace", "--to", &database.url(), "--host", "this-host"]);
    assert_eq!(rows(&database, "SELECT what FROM t"), ["saved"]);
}
