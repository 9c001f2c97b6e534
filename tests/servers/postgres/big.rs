//! A snapshot and a restore of large tables use a bounded amount of memory.

use std::process::{Child, Command, Stdio};

use super::helpers::Setup;
use crate::support::postgres::{server, servers};

/// The memory that two jobs may use, for a database of any size.
const MEMORY_LIMIT_MIB: u64 = 128;

/// Runs a command to its end, requires exit code 0, and returns the peak of its memory in MiB.
#[track_caller]
pub(crate) fn peak_memory_mib(mut command: Command) -> u64 {
    let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let code = loop {
        // The kernel keeps the highest value, until the process ends.
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak_kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0).max(peak_kib);
        if let Some(code) = child.try_wait().unwrap() {
            break code;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert!(code.success(), "{command:?}: {code}");
    assert!(peak_kib > 0, "cannot read the memory of {command:?}");
    peak_kib / 1024
}

#[test]
#[ignore = "needs PostgreSQL"]
fn two_gigabytes_are_saved_and_restored_in_bounded_memory() {
    let majors: Vec<u32> = servers().iter().map(|server| server.major).collect();
    let server = server(if majors.contains(&17) { 17 } else { majors[majors.len() - 1] });
    let setup = Setup::new(&server);
    let source = server.create_database("two_gigabytes");
    source.psql(
        "SET synchronous_commit = off;
         CREATE UNLOGGED TABLE big (id bigint, at timestamptz, filler text);
         INSERT INTO big SELECT g, timestamptz '2026-01-01 00:00+00' + g * interval '1 second', repeat(md5(g::text), 31)
           FROM generate_series(1, 1950000) AS g;
         CREATE INDEX ON big (id);
         CREATE TABLE wide (id integer, body text);
         INSERT INTO wide SELECT g, repeat(md5(g::text), 200000) FROM generate_series(1, 4) AS g;
         CHECKPOINT",
    );
    let bytes: u64 = source.value("SELECT pg_table_size('big')").parse().unwrap();
    assert!(bytes > 2_000_000_000, "{bytes}");
    let snapshot = setup.command(&["snapshot", &source.url(), "--compression", "zstd:1", "-j", "2", "-q"]);
    let memory = peak_memory_mib(snapshot);
    assert!(memory <= MEMORY_LIMIT_MIB, "the snapshot took {memory} MiB");
    let new = server.reserve_database("two_gigabytes_again");
    let restore = setup.command(&["restore", "latest", "--to", &new.url(), "--create", "-j", "2", "-q"]);
    let memory = peak_memory_mib(restore);
    assert!(memory <= MEMORY_LIMIT_MIB, "the restore took {memory} MiB");
    // The program has compared every row. This query checks the result independently.
    let sums = "SELECT count(*), sum(id), sum(hashtext(filler)), max(at) FROM big";
    assert_eq!(new.query(sums), source.query(sums));
    assert_eq!(setup.json(&["verify", "latest"])["ok"], true);
}
