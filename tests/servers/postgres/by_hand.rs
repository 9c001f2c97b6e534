//! Archives can be restored without Lifeboat, with tar and psql alone.

use std::process::Command;

use super::helpers::Setup;
use crate::support::postgres::{Server, TestDatabase, oldest_and_newest, servers, some_server};
use crate::support::{compare, samples};

#[track_caller]
fn require_loads_by_hand(server: &Server, sample: &str, compression: &str) {
    let (setup, source) = (Setup::new(server), samples::database(server, sample));
    let target = server.create_database("by_hand");
    let id = load(&setup, &source, &target, compression);
    compare::assert_equal(&source, &target, sample);
    let difference = setup.json(&["diff", &id, &target.url()]);
    assert_eq!(difference["equal"], true, "{sample}: {difference:#}");
}

/// Takes a snapshot, unpacks the archive and runs its script in an empty database, as the README in the archive says.
/// Returns the id of the snapshot.
#[track_caller]
fn load(setup: &Setup, source: &TestDatabase, target: &TestDatabase, compression: &str) -> String {
    let server = &source.server;
    let id = setup.snapshot(source, &["--compression", compression]);
    let name = setup.json(&["show", &id])["archive"].as_str().unwrap().to_owned();
    let source_name = name.rsplitn(3, '-').last().unwrap().to_owned();
    let archive = setup.sandbox.path(format!("backups/{source_name}/{name}"));
    let folder = setup.sandbox.path("by hand");
    std::fs::create_dir(&folder).unwrap();
    let options: &[&str] = if name.ends_with(".zst") { &["--zstd", "-xf"] } else { &["xzf"] };
    let unpacked = Command::new("tar").args(options).arg(&archive).current_dir(&folder).status().unwrap();
    assert!(unpacked.success());
    let mut command = server.command(&server.psql, &target.name);
    let output = command.args(["-X", "-f", "restore.sql"]).current_dir(&folder).output().unwrap();
    assert!(
        output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("ERROR"),
        "{} on PostgreSQL {}\n{}",
        source.name,
        server.version,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("All data was loaded.\n"));
    id
}

#[test]
#[ignore = "needs PostgreSQL"]
fn bytes_that_are_not_valid_text_can_be_loaded_by_hand() {
    some_server(|server| {
        let options = "ENCODING 'SQL_ASCII' LOCALE 'C'";
        let source = server.create_database_with("bytes", options);
        source.psql("SET client_encoding = SQL_ASCII; CREATE TABLE t AS SELECT g, convert_from(decode(lpad(to_hex(g), 2, '0'), 'hex'), 'SQL_ASCII') AS v FROM generate_series(1, 255) AS g");
        let target = server.create_database_with("bytes", options);
        let id = load(&Setup::new(server), &source, &target, "gzip");
        let sum = "SELECT md5(string_agg(v, '' ORDER BY g)) FROM t";
        assert_eq!(target.value(sum), source.value(sum), "{id}");
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn every_kind_of_object_can_be_loaded_by_hand() {
    oldest_and_newest(|server| require_loads_by_hand(server, "everything", "gzip"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_database_with_unusual_settings_can_be_loaded_by_hand() {
    some_server(|server| require_loads_by_hand(server, "odd_settings", "zstd"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn every_type_can_be_loaded_by_hand() {
    // Servers before PostgreSQL 15 cannot load some of their own values.
    require_loads_by_hand(servers().last().unwrap(), "types", "gzip:1");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn many_tables_can_be_loaded_by_hand() {
    require_loads_by_hand(servers().last().unwrap(), "many", "gzip:1");
}
