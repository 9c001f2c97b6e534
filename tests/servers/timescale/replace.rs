//! `restore --replace` of all rows of a hypertable, or of the rows of a range of time.

use super::helpers::{fill, is_older_than, json, ok, run, snapshot, state};
use crate::support::Sandbox;
use crate::support::timescale::take_databases;

#[test]
#[ignore = "needs TimescaleDB"]
fn all_rows_or_the_rows_of_a_time_range_are_replaced() {
    let sandbox = Sandbox::new();
    let [database] = take_databases();
    fill(&database);
    let url = database.url();
    let id = snapshot(&sandbox, &database);
    let saved = state(&database);

    // Replaces all tables.
    database.psql("DELETE FROM app.ticks WHERE seq > 1500; UPDATE app.records SET note = 'x' WHERE at > now() - INTERVAL '2 days'");
    if is_older_than(&database, 17) {
        // These versions cannot drop keys of hypertables with compression, so the restore is refused.
        let refused = run(&sandbox, &["restore", &id, "--to", &url, "--replace", "--yes"]).code(1);
        assert!(
            refused.stderr().contains("nothing was changed") && refused.stderr().contains("--swap"),
            "{}",
            refused.transcript()
        );
        assert_eq!(database.rows("SELECT count(*) FROM app.ticks"), ["1500"]);
        ok(&sandbox, &["restore", &id, "--to", &url, "--replace", "--table", "app.ticks", "--yes"]);
    } else {
        ok(&sandbox, &["restore", &id, "--to", &url, "--replace", "--yes"]);
        let now = state(&database);
        for (before, after) in saved.iter().zip(&now) {
            assert_eq!(before, after);
        }
    }

    // Replaces the rows of a range in one table. Other rows are not changed.
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
    let dry_run = ok(&sandbox, &[&words[..], &["--dry-run"]].concat());
    assert!(dry_run.stdout().contains("only rows from 1001 until 2500"), "{}", dry_run.transcript());
    assert_eq!(database.rows("SELECT count(*) FROM app.ticks WHERE value = -1"), ["2000"]);
    let report = json(&sandbox, &words);
    assert_eq!(report["tables"][0]["rows"], 1499, "{report:#}");
    let summary = "SELECT min(seq), max(seq), count(*), count(*) FILTER (WHERE value = -1) FROM app.ticks";
    assert_eq!(database.rows(summary), ["1|2499|2499|1000"]);

    // Replaces rows in compressed chunks, with a time that has a zone as the start. A time without a zone is in UTC.
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
    assert_eq!(json(&sandbox, &records)["tables"][0]["rows"], 144);
    assert_eq!(
        database.rows(&format!(
            "SELECT min(at) = {day}, max(at) < {day} + INTERVAL '12 hours', count(*) FROM app.records
        WHERE at >= {day} AND at < {day} + INTERVAL '1 day'"
        )),
        ["t|t|144"]
    );
    assert_eq!(database.rows("SELECT count(*) FROM app.records"), ["2356"]);

    // Restores the rows of a range into another schema.
    let beside = ["restore", &id, "--to", &url, "--beside", "old", "--table", "app.ticks", "--until", "11", "--yes"];
    assert_eq!(json(&sandbox, &beside)["tables"][0]["rows"], 10);
    assert_eq!(database.rows("SELECT count(*), max(seq) FROM old.ticks"), ["10|10"]);

    // A table without such a column, or an invalid range, is refused, and nothing is changed.
    let refused = |words: &[&str], message: &str| {
        let run = run(&sandbox, &[&["restore", &id, "--to", &url, "--yes"], words].concat()).code(2);
        assert!(run.stderr().contains(message), "{message}\n{}", run.transcript());
    };
    refused(&["--replace", "--table", "app.symbols", "--from", "1"], "app.symbols is not one");
    refused(&["--replace", "--table", "app.daily", "--from", "2026-01-01"], "app.daily is not one");
    refused(
        &["--replace", "--table", "app.records", "--from", "soon"],
        "--from soon is not a valid timestamp with time zone",
    );
    refused(&["--replace", "--table", "app.ticks", "--from", "5", "--until", "5"], "is not before");
    refused(&["--replace", "--from", "5"], "--table");
    assert_eq!(database.rows(summary), ["1|2499|2499|1000"]);
}

#[test]
#[ignore = "needs TimescaleDB"]
fn a_dropped_hypertable_is_restored() {
    let sandbox = Sandbox::new();
    let [database] = take_databases();
    fill(&database);
    let id = snapshot(&sandbox, &database);
    let before = state(&database);
    database.psql("DROP TABLE app.ticks");
    ok(&sandbox, &["restore", &id, "--to", &database.url(), "--table", "app.ticks", "--yes"]);
    let after = state(&database);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
}
