//! What was saved comes back as it was.

use super::helpers::{everything, fill, json, ok, run, snapshot};
use crate::support::Sandbox;
use crate::support::timescale::take;

#[test]
#[ignore = "needs TimescaleDB"]
fn a_database_with_hypertables_comes_back_into_an_empty_one() {
    let place = Sandbox::new();
    let [source, target] = take();
    fill(&source);
    let id = snapshot(&place, &source);

    // Hypertables and the rows of aggregates are tables of the snapshot; chunks and what else the extension keeps are not.
    let shown = json(&place, &["show", &id]);
    let tables: Vec<(&str, &str, u64)> = shown["tables"]
        .as_array()
        .unwrap()
        .iter()
        .map(|table| {
            (table["name"].as_str().unwrap(), table["type"].as_str().unwrap(), table["rows"].as_u64().unwrap())
        })
        .collect();
    let counted = |query: &str| source.psql(query).trim().parse::<u64>().unwrap();
    let hourly = counted("SELECT count(*) FROM app.hourly WHERE hour < date_trunc('day', now()) - INTERVAL '1 day'");
    let daily = counted("SELECT count(*) FROM app.daily");
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

    // The extension alone does not make a database other than empty.
    target.psql("CREATE EXTENSION timescaledb");
    let restored = json(&place, &["restore", &id, "--to", &target.url(), "--yes"]);
    assert_eq!(restored["mode"], "empty");
    assert!(restored["tables"].as_array().unwrap().iter().all(|table| table["ok"] == true), "{restored:#}");
    let (before, after) = (everything(&source), everything(&target));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    let difference = json(&place, &["diff", &id, &target.url()]);
    assert_eq!(difference["equal"], true, "{difference:#}");
    let again = run(&place, &["restore", &id, "--to", &target.url(), "--yes"]).code(2);
    assert!(again.stderr().contains("is not empty"), "{}", again.transcript());

    assert_eq!(json(&place, &["verify", &id])["ok"], true);
    let ticks = ok(&place, &["extract", &id, "--table", "app.ticks"]);
    assert_eq!(ticks.stdout().lines().count(), 3000);
    let rows = ok(&place, &["extract", &id, "--table", "app.hourly"]);
    assert_eq!(rows.stdout().lines().count() as u64, hourly);
}

#[test]
#[ignore = "needs TimescaleDB"]
fn a_hypertable_that_lost_rows_is_seen() {
    let place = Sandbox::new();
    let [database] = take();
    fill(&database);
    std::fs::write(
        place.path("lifeboat.toml"),
        format!(
            "[[store]]\nurl = './backups'\n[[source]]\nname = 'app'\nurl = '{}'\n[[source.rule]]\ntable = 'app.records'\nmin_rows = 2400\n[[source.rule]]\nmax_row_drop = '10%'\n",
            database.url()
        ),
    )
    .unwrap();
    place.ok(&["init", "--store", "backups"]);
    place.ok(&["snapshot", "app"]);
    place.ok(&["check", "app"]);
    database.psql("DELETE FROM app.ticks WHERE seq > 2000");
    let check = place.run(&["check", "app"]).code(3);
    assert!(check.stdout().contains("app.ticks") && !check.stdout().contains("_hyper_"), "{}", check.transcript());
}
