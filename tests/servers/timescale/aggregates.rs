//! The materialized rows of continuous aggregates, whose raw data may be gone.

use super::helpers::{is_before, ok, snapshot};
use crate::support::Sandbox;
use crate::support::timescale::{TimescaleDatabase, take};

const SAMPLE: &str = "
SET client_min_messages = warning;
CREATE EXTENSION timescaledb;
CREATE TABLE raw (at timestamptz NOT NULL, value double precision);
SELECT create_hypertable('raw', 'at', chunk_time_interval => INTERVAL '1 day');
INSERT INTO raw SELECT date_trunc('hour', now()) - n * INTERVAL '1 hour', n FROM generate_series(1, 480) n;
CREATE MATERIALIZED VIEW live WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
    SELECT time_bucket('1 hour', at) AS hour, sum(value) AS sum FROM raw GROUP BY 1 WITH NO DATA;
CALL refresh_continuous_aggregate('live', NULL, date_trunc('day', now()) - INTERVAL '10 days');
CREATE MATERIALIZED VIEW empty WITH (timescaledb.continuous) AS
    SELECT time_bucket('1 hour', at) AS hour, count(*) AS n FROM raw GROUP BY 1 WITH NO DATA;
-- All raw data of what is materialized, and more, is gone.
SELECT drop_chunks('raw', older_than => now() - INTERVAL '8 days');
-- Late, and not yet in the rows that are kept.
CREATE MATERIALIZED VIEW late WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
    SELECT time_bucket('1 hour', at) AS hour, sum(value) AS sum FROM raw GROUP BY 1 WITH NO DATA;
CALL refresh_continuous_aggregate('late', NULL, date_trunc('day', now()));
INSERT INTO raw VALUES (date_trunc('day', now()) - INTERVAL '90 minutes', 100000);
";

/// Rows of a query as one value, and how many.
fn sum_of(database: &TimescaleDatabase, query: &str) -> Vec<String> {
    database.rows(&format!("SELECT count(*), md5(string_agg(r::text, '|' ORDER BY r::text)) FROM ({query}) r"))
}

#[test]
#[ignore = "needs TimescaleDB"]
fn rows_whose_raw_data_is_gone_come_back_and_outlive_a_refresh() {
    let place = Sandbox::new();
    let [source, target] = take();
    source.psql(SAMPLE);
    let (live, late) = ("SELECT hour, sum FROM live", "SELECT hour, sum FROM late");
    let (before, late_before) = (sum_of(&source, live), sum_of(&source, late));
    assert_eq!(source.rows("SELECT count(*) > 300 FROM live"), ["t"]);
    let id = snapshot(&place, &source);
    let restored = ok(&place, &["restore", &id, "--to", &target.url(), "--yes"]);
    assert!(
        restored.stderr().contains("public.live: the raw data of its newest rows is gone"),
        "{}",
        restored.transcript()
    );
    if is_before(&target, 17) {
        target.psql("ALTER MATERIALIZED VIEW live SET (timescaledb.materialized_only = true)");
        let kept = "SELECT hour, sum FROM live WHERE hour < date_trunc('day', now()) - INTERVAL '10 days'";
        assert_eq!(sum_of(&target, kept), sum_of(&source, kept));
        return;
    }
    assert_eq!(sum_of(&target, live), before);
    assert_eq!(sum_of(&target, late), late_before);
    assert_eq!(target.rows("SELECT count(*) FROM empty"), ["0"]);
    assert_eq!(target.rows("SELECT count(*) FROM pg_class WHERE relname ~ '^lifeboat'"), ["0"]);
    // A refresh takes up what came late, as it would have, and takes nothing away.
    for database in [&source, &target] {
        database.psql("CALL refresh_continuous_aggregate('late', NULL, NULL)");
    }
    assert_eq!(sum_of(&target, late), sum_of(&source, late));
    assert_ne!(sum_of(&target, late), late_before);
    target.psql("CALL refresh_continuous_aggregate('live', NULL, NULL)");
    assert_eq!(
        target.rows("SELECT count(*) FROM live WHERE hour < date_trunc('day', now()) - INTERVAL '9 days'"),
        source.rows("SELECT count(*) FROM live WHERE hour < date_trunc('day', now()) - INTERVAL '9 days'")
    );
}
