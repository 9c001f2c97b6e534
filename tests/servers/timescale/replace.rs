//! Rows in place: all of them, or those of a time.

use super::helpers::{everything, fill, is_before, json, ok, run, snapshot};
use crate::support::Sandbox;
use crate::support::timescale::take;

#[test]
#[ignore = "needs TimescaleDB"]
fn rows_are_replaced_in_place_and_by_time() {
    let place = Sandbox::new();
    let [database] = take();
    fill(&database);
    let url = database.url();
    let id = snapshot(&place, &database);
    let saved = everything(&database);

    // All of it.
    database.psql("DELETE FROM app.ticks WHERE seq > 1500; UPDATE app.records SET note = 'x' WHERE at > now() - INTERVAL '2 days'");
    if is_before(&database, 17) {
        // Keys of hypertables with compression cannot be taken away there: refused, and nothing is changed.
        let refused = run(&place, &["restore", &id, "--to", &url, "--replace", "--yes"]).code(1);
        assert!(
            refused.stderr().contains("nothing was changed") && refused.stderr().contains("--swap"),
            "{}",
            refused.transcript()
        );
        assert_eq!(database.rows("SELECT count(*) FROM app.ticks"), ["1500"]);
        ok(&place, &["restore", &id, "--to", &url, "--replace", "--table", "app.ticks", "--yes"]);
    } else {
        ok(&place, &["restore", &id, "--to", &url, "--replace", "--yes"]);
        let now = everything(&database);
        for (before, after) in saved.iter().zip(&now) {
            assert_eq!(before, after);
        }
    }

    // Of one table a time: other rows stay.
    database.psql("DELETE FROM app.ticks WHERE seq > 2000; UPDATE app.ticks SET value = -1 WHERE seq <= 2000");
    let words = [
        "restore",
        &id,
        "--to",
        &url,
        "--replace",
        "--table",
        "app.ticks",
        "--from",
        "1001",
        "--until",
        "2500",
        "--yes",
    ];
    let told = ok(&place, &[&words[..], &["--dry-run"]].concat());
    assert!(told.stdout().contains("only rows from 1001 until 2500"), "{}", told.transcript());
    assert_eq!(database.rows("SELECT count(*) FROM app.ticks WHERE value = -1"), ["2000"]);
    let report = json(&place, &words);
    assert_eq!(report["tables"][0]["rows"], 1499, "{report:#}");
    let left = "SELECT min(seq), max(seq), count(*), count(*) FILTER (WHERE value = -1) FROM app.ticks";
    assert_eq!(database.rows(left), ["1|2499|2499|1000"]);

    // By a time with a zone, out of compressed chunks: days are UTC's.
    let day = "date_trunc('day', now(), 'UTC') - INTERVAL '6 days'";
    let date = database.rows(&format!("SELECT ({day})::date"));
    let (from, until) = (format!("{} 08:00+08", date[0]), format!("{} 12:00", date[0]));
    database.psql(&format!("DELETE FROM app.records WHERE at >= {day} AND at < {day} + INTERVAL '1 day'"));
    let records = [
        "restore",
        &id,
        "--to",
        &url,
        "--replace",
        "--table",
        "app.records",
        "--from",
        &from,
        "--until",
        &until,
        "--yes",
    ];
    assert_eq!(json(&place, &records)["tables"][0]["rows"], 144);
    assert_eq!(
        database.rows(&format!(
            "SELECT min(at) = {day}, max(at) < {day} + INTERVAL '12 hours', count(*) FROM app.records
        WHERE at >= {day} AND at < {day} + INTERVAL '1 day'"
        )),
        ["t|t|144"]
    );
    assert_eq!(database.rows("SELECT count(*) FROM app.records"), ["2356"]);

    // Beside, to look at.
    let beside = ["restore", &id, "--to", &url, "--beside", "old", "--table", "app.ticks", "--until", "11", "--yes"];
    assert_eq!(json(&place, &beside)["tables"][0]["rows"], 10);
    assert_eq!(database.rows("SELECT count(*), max(seq) FROM old.ticks"), ["10|10"]);

    // What has no such time is a mistake, and changes nothing.
    let refused = |words: &[&str], said: &str| {
        let run = run(&place, &[&["restore", &id, "--to", &url, "--yes"], words].concat()).code(2);
        assert!(run.stderr().contains(said), "{said}\n{}", run.transcript());
    };
    refused(&["--replace", "--table", "app.symbols", "--from", "1"], "app.symbols is none");
    refused(&["--replace", "--table", "app.daily", "--from", "2026-01-01"], "app.daily is none");
    refused(&["--replace", "--table", "app.records", "--from", "soon"], "--from soon is no timestamp with time zone");
    refused(&["--replace", "--table", "app.ticks", "--from", "5", "--until", "5"], "is not before");
    refused(&["--replace", "--from", "5"], "--table");
    assert_eq!(database.rows(left), ["1|2499|2499|1000"]);
}

#[test]
#[ignore = "needs TimescaleDB"]
fn a_hypertable_that_was_dropped_is_made_again() {
    let place = Sandbox::new();
    let [database] = take();
    fill(&database);
    let id = snapshot(&place, &database);
    let before = everything(&database);
    database.psql("DROP TABLE app.ticks");
    ok(&place, &["restore", &id, "--to", &database.url(), "--table", "app.ticks", "--yes"]);
    let after = everything(&database);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}
