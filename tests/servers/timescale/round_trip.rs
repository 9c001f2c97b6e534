//! A restored database with hypertables is equal to the saved one.

use super::helpers::{fill, json, ok, run, snapshot, state};
use crate::support::Sandbox;
use crate::support::timescale::take_databases;

#[test]
#[ignore = "needs TimescaleDB"]
fn a_database_with_hypertables_is_restored_into_an_empty_one() {
    let sandbox = Sandbox::new();
    let [source, target] = take_databases();
    fill(&source);
    let id = snapshot(&sandbox, &source);

    // The tables of the snapshot are ordinary tables, hypertables and aggregates, but not chunks and internal tables.
    let shown = json(&sandbox, &["show", &id]);
    let tables: Vec<(&str, &str, u64)> = shown["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| {
            (table["name"].as_str().unwrap(), table["type"].as_str().unwrap(), table["rows"].as_u64().unwrap())
        })
        .collect();
    let count = |query: &str| source.psql(query).trim().parse::<u64>().unwrap();
    let hourly = count("SELECT count(*) FROM app.hourly WHERE hour < date_trunc('day', now()) - INTERVAL '1 day'");
    let daily = count("SELECT count(*) FROM app.daily");
    assert_eq!(
        tables,
        [
            ("app.daily", "continuous aggregate", daily),
            ("app.hourly", "continuous aggregate", hourly),
            ("app.records", "hypertable", 2500),
            ("app.symbols", "table", 20),
            ("app.ticks", "hypertable", 3000),
        ]
    );
    assert_eq!(shown["kind"], "full");

    // A database that has only the extension counts as empty.
    target.psql("CREATE EXTENSION timescaledb");
    let restored = json(&sandbox, &["restore", &id, "--to", &target.url(), "--yes"]);
    assert_eq!(restored["mode"], "empty");
    assert!(restored["tables"].as_array().unwrap().iter().all(|table| table["ok"] == true), "{restored:#}");
    let (before, after) = (state(&source), state(&target));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    let difference = json(&sandbox, &["diff", &id, &target.url()]);
    assert_eq!(difference["equal"], true, "{difference:#}");
    let again = run(&sandbox, &["restore", &id, "--to", &target.url(), "--yes"]).code(2);
    assert!(again.stderr().contains("is not empty"), "{}", again.transcript());

    assert_eq!(json(&sandbox, &["verify", &id])["ok"], true);
    let ticks = ok(&sandbox, &["extract", &id, "--table", "app.ticks"]);
    assert_eq!(ticks.stdout().lines().count(), 3000);
    let rows = ok(&sandbox, &["extract", &id, "--table", "app.hourly"]);
    assert_eq!(rows.stdout().lines().count() as u64, hourly);
}

#[test]
#[ignore = "needs TimescaleDB"]
fn a_hypertable_that_lost_rows_fails_the_check() {
    let sandbox = Sandbox::new();
    let [database] = take_databases();
    fill(&database);
    std::fs::write(
        sandbox.path("lifeboat.toml"),
        format!(
            "[[store]]\nurl = './backups'\n[[source]]\nname = 'app'\nurl = '{}'\n[[source.rule]]\ntable = 'app.records'\nmin_rows = 2400\n[[source.rule]]\nmax_row_drop = '10%'\n",
            database.url()
        ),
    )
    .unwrap();
    sandbox.ok(&["init", "--store", "backups"]);
    sandbox.ok(&["snapshot", "app"]);
    sandbox.ok(&["check", "app"]);
    database.psql("DELETE FROM app.ticks WHERE seq > 2000");
    let check = sandbox.run(&["check", "app"]).code(3);
    assert!(check.stdout().contains("app.ticks") && !check.stdout().contains("_hyper_"), "{}", check.transcript());
}
