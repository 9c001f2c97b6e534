//! Snapshots of a standby.

use super::helpers::{Setup, rows, text};
use crate::support::postgres::PrivateServer;

/// A standby has the definition of an unlogged table without its rows. A snapshot with zero rows would lose the rows
/// without a message.
#[test]
#[ignore = "needs PostgreSQL"]
fn unlogged_objects_are_named_on_a_standby_and_left_out_only_with_allow_partial() {
    let server = PrivateServer::start(18);
    let setup = Setup::new(&server);
    let database = server.create_database("on_standby");
    database.psql(
        "CREATE TABLE kept (id integer); INSERT INTO kept VALUES (1), (2);
         CREATE UNLOGGED TABLE cache (id serial, what text); INSERT INTO cache (what) VALUES ('a'), ('b');
         CREATE UNLOGGED SEQUENCE quick; SELECT nextval('quick')",
    );
    let url = database.url();
    let full = setup.snapshot(&database, &[]);
    assert_eq!(setup.json(&["show", &full])["rows"], 4);
    server.become_standby();

    let run = setup.run(&["snapshot", &url]).code(1);
    let messages = [
        "table public.cache: it is unlogged, and has no rows on a standby",
        "sequence public.quick: it is unlogged, and has no value on a standby",
    ];
    assert!(messages.iter().all(|words| run.stderr().contains(words)), "{}", run.transcript());
    assert!(run.stderr().contains("2 objects cannot be saved"), "{}", run.transcript());
    assert_eq!(setup.sandbox.ids(), std::slice::from_ref(&full));

    let run = setup.ok(&["snapshot", &url, "--allow-partial", "--json"]);
    let saved = &run.json()["snapshots"][0];
    assert_eq!((&saved["kind"], &saved["rows"]), (&"partial".into(), &2.into()));
    let partial = text(&saved["id"]);
    let shown = setup.ok(&["show", &partial]);
    assert!(messages.iter().all(|words| shown.stdout().contains(words)), "{}", shown.transcript());
    assert_eq!(setup.json(&["show", "latest"])["id"], full);

    // Nothing can be restored on a standby.
    setup.run(&["drill", &full]).code(2).says("is on a standby").says("--to postgres://user@host/database");

    // If the options exclude the unlogged table and the sequence that it owns, these are not named.
    let run = setup.run(&["snapshot", &url, "--exclude-data", "cache"]).code(1).says("1 object cannot be saved");
    assert!(run.stderr().contains(messages[1]), "{}", run.transcript());

    server.become_primary();
    let new = setup.restore_new(&partial, &[]);
    assert_eq!(rows(&new, "SELECT count(*) FROM kept UNION ALL SELECT count(*) FROM cache"), ["2", "0"]);
}
