//! The default target of a restore: the database that the snapshot was taken from, even if environment variables name
//! another one.

use std::process::Command;

use super::helpers::{Setup, rows};
use crate::support::postgres::{TestDatabase, servers};

#[test]
#[ignore = "needs PostgreSQL"]
fn environment_variables_do_not_change_the_default_target() {
    let servers = servers();
    let (origin_server, other_server) = (&servers[0], &servers[servers.len() - 1]);
    assert_ne!(origin_server.port, other_server.port, "this test needs two servers");
    let setup = Setup::new(origin_server);
    let database = origin_server.create_database("at_home");
    database.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('saved')");
    let id = setup.snapshot(&database, &["--host", "this-host"]);
    // A database of the same name on another server, which the restore could take for its target.
    let other = TestDatabase { server: other_server.clone(), name: database.name.clone() };
    other_server.psql("postgres", format!("CREATE DATABASE \"{}\"", other.name));
    other.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('theirs')");
    let folder = other_server.socket_dir.to_str().unwrap();
    let port = other_server.port.to_string();
    let content = |database: &TestDatabase| rows(database, "SELECT what FROM t");
    let run_with = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command: Command = setup.command(arguments);
        command.envs(variables.iter().copied());
        setup.sandbox.finish(command)
    };
    let environments: [&[(&str, &str)]; 4] = [
        &[("PGHOST", folder), ("PGPORT", &port)],
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGDATABASE", "postgres"), ("PGUSER", "nobody_here")],
        &[("PGHOST", "no-such-host.invalid")],
        &[("PGHOSTADDR", "192.0.2.1"), ("PGCONNECT_TIMEOUT", "2")],
    ];
    for variables in environments {
        database.psql("UPDATE t SET what = 'now'");
        run_with(variables, &["restore", &id, "--replace", "--host", "this-host"]).code(0);
        assert_eq!((content(&database), content(&other)), (vec!["saved".to_owned()], vec!["theirs".to_owned()]));
        let run = run_with(variables, &["diff", &id, "--exit-code", "--host", "this-host"]).code(0);
        assert!(run.stdout().contains("no difference"), "{}", run.transcript());
        run_with(variables, &["drill", &id, "--host", "this-host"]).code(0);
    }
}

/// A server at a loopback address of another machine is not the server at the loopback address of this machine.
#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_of_another_machine_is_restored_to_this_one_only_with_to() {
    let servers = servers();
    let server = &servers[servers.len() - 1];
    let setup = Setup::new(server);
    let database = server.create_database("far_away");
    database.psql("CREATE TABLE t (what text); INSERT INTO t VALUES ('saved')");
    let id = setup.snapshot(&database, &["--host", "their-host.invalid"]);
    database.psql("UPDATE t SET what = 'now'");
    let (folder, port) = (server.socket_dir.to_str().unwrap(), server.port.to_string());
    for variables in [
        &[][..],
        &[("PGHOST", folder), ("PGPORT", &port)],
        &[("PGHOST", "127.0.0.1"), ("PGPORT", &port)],
        &[("PGHOSTADDR", "127.0.0.1"), ("PGPORT", &port)],
    ] {
        let mut command = setup.command(&["restore", &id, "--replace", "--host", "this-host"]);
        command.envs(variables.iter().copied());
        let run = setup.sandbox.finish(command).code(5).says("their-host.invalid");
        assert_eq!(rows(&database, "SELECT what FROM t"), ["now"], "{}", run.transcript());
    }
    setup.ok(&["restore", &id, "--replace", "--to", &database.url(), "--host", "this-host"]);
    assert_eq!(rows(&database, "SELECT what FROM t"), ["saved"]);
}
