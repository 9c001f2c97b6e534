//! Restores to a server without TimescaleDB.

use super::helpers::{fill, ok, run, snapshot};
use crate::support::Sandbox;
use crate::support::postgres::server;
use crate::support::timescale::take_databases;

#[test]
#[ignore = "needs TimescaleDB"]
fn a_restore_without_timescaledb_needs_plain_tables() {
    let sandbox = Sandbox::new();
    let [source] = take_databases();
    fill(&source);
    let id = snapshot(&sandbox, &source);
    let server_without_extension = server(17);
    let new = server_without_extension.reserve_database("plain");
    let refused = run(&sandbox, &["restore", &id, "--to", &new.url(), "--create", "--no-owner", "--yes"]).code(1);
    assert!(refused.stderr().contains("--plain-tables"), "{}", refused.transcript());

    let restored =
        ok(&sandbox, &["restore", &id, "--to", &new.url(), "--create", "--no-owner", "--plain-tables", "--yes"]);
    for word in ["app.seen", "policy_retention app.records", "continuous aggregate app.hourly"] {
        assert!(restored.stderr().contains(word), "{word}\n{}", restored.transcript());
    }
    let rows = |query: &str| new.query(query).into_iter().map(|row| row.join("|")).collect::<Vec<_>>();
    for query in [
        "SELECT symbol, at AT TIME ZONE 'UTC', price, doc, id FROM app.records ORDER BY 1, 2",
        "SELECT * FROM app.ticks ORDER BY seq",
        "SELECT day AT TIME ZONE 'UTC', n FROM app.daily ORDER BY 1",
    ] {
        assert_eq!(rows(query), source.rows(query), "{query}");
    }
    let kinds =
        "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'v')
                  ORDER BY 1";
    assert_eq!(rows(kinds), ["daily|r", "hourly|r", "records|r", "symbols|r", "ticks|r"]);
    assert_eq!(rows("SELECT count(*) FROM pg_constraint WHERE conname = 'records_symbol_fkey'"), ["1"]);
}
