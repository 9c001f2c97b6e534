//! Snapshots of a standby.

use super::helpers::{Place, rows, text};
use crate::support::postgres::PrivateServer;

/// A standby has the definition of an unlogged table and none of its rows: zero rows and no error would be a loss.
#[test]
#[ignore = "needs PostgreSQL"]
fn what_is_unlogged_is_named_on_a_standby_and_left_out_only_when_allowed() {
    let server = PrivateServer::start(18);
    let place = Place::new(&server);
    let database = server.create_database("on_standby");
    database.psql(
        "CREATE TABLE kept (id integer); INSERT INTO kept VALUES (1), (2);
         CREATE UNLOGGED TABLE cache (id serial, what text); INSERT INTO cache (what) VALUES ('a'), ('b');
         CREATE UNLOGGED SEQUENCE quick; SELECT nextval('quick')",
    );
    let url = database.url();
    let whole = place.snapshot(&database, &[]);
    assert_eq!(place.json(&["show", &whole])["rows"], 4);
    server.become_standby();

    let run = place.run(&["snapshot", &url]).code(1);
    let named = [
        "table public.cache: it is unlogged, and has no rows on a standby",
        "sequence public.quick: it is unlogged, and has no value on a standby",
    ];
    assert!(named.iter().all(|words| run.stderr().contains(words)), "{}", run.transcript());
    assert!(run.stderr().contains("2 things cannot be saved"), "{}", run.transcript());
    assert_eq!(place.sandbox.ids(), std::slice::from_ref(&whole));

    let run = place.ok(&["snapshot", &url, "--allow-partial", "--json"]);
    let saved = &run.json()["snapshots"][0];
    assert_eq!((&saved["kind"], &saved["rows"]), (&"partial".into(), &2.into()));
    let partial = text(&saved["id"]);
    let shown = place.ok(&["show", &partial]);
    assert!(named.iter().all(|words| shown.stdout().contains(words)), "{}", shown.transcript());
    assert_eq!(place.json(&["show", "latest"])["id"], whole);

    // Left out by choice, an unlogged table is in nobody's way, nor is its own sequence.
    let run = place.run(&["snapshot", &url, "--exclude-data", "cache"]).code(1).says("1 things cannot be saved");
    assert!(run.stderr().contains(named[1]), "{}", run.transcript());

    server.become_primary();
    let new = place.restore_new(&partial, &[]);
    assert_eq!(rows(&new, "SELECT count(*) FROM kept UNION ALL SELECT count(*) FROM cache"), ["2", "0"]);
}
