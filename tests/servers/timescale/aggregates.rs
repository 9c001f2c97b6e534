//! The materialized rows of continuous aggregates, which may exist longer than their raw data.

use super::helpers::{is_older_than, ok, snapshot};
use crate::support::Sandbox;
use crate::support::timescale::{TimescaleDatabase, take_databases};

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

/// Returns the number of rows of a query, and a hash of them.
fn digest(database: &TimescaleDatabase, query: &str) -> Vec<String> {
    database.rows(&format!("SELECT count(*), md5(string_agg(r::text, '|' ORDER BY r::text)) FROM ({query}) r"))
}

#[test]
#[ignore = "needs TimescaleDB"]
fn rows_without_raw_data_are_restored_and_kept_by_a_refresh() {
    let sandbox = Sandbox::new();
    let [source, target] = take_databases();
    source.psql(SAMPLE);
    let (live, late) = ("SELECT hour, sum FROM live", "SELECT hour, sum FROM late");
    let (before, late_before) = (digest(&source, live), digest(&source, late));
    assert_eq!(source.rows("SELECT count(*) > 300 FROM live"), ["t"]);
    let id = snapshot(&sandbox, &source);
    let restored = ok(&sandbox, &["restore", &id, "--to", &target.url(), "--yes"]);
    assert!(
        restored.stderr().contains("public.live: the raw data of its newest rows is gone"),
        "{}",
        restored.transcript()
    );
    if is_older_than(&target, 17) {
        target.psql("ALTER MATERIALIZED VIEW live SET (timescaledb.materialized_only = true)");
        let old_rows = "SELECT hour, sum FROM live WHERE hour < date_trunc('day', now()) - INTERVAL '10 days'";
        assert_eq!(digest(&target, old_rows), digest(&source, old_rows));
        return;
    }
    assert_eq!(digest(&target, live), before);
    assert_eq!(digest(&target, late), late_before);
    assert_eq!(target.rows("SELECT count(*) FROM empty"), ["0"]);
    assert_eq!(target.rows("SELECT count(*) FROM pg_class WHERE relname ~ '^lifeboat'"), ["0"]);
    // A refresh adds the rows that arrived late, as it does in the source, and removes nothing.
    for database in [&source, &target] {
        database.psql("CALL refresh_continuous_aggregate('late', NULL, NULL)");
    }
    assert_eq!(digest(&target, late), digest(&source, late));
    assert_ne!(digest(&target, late), late_before);
    target.psql("CALL refresh_continuous_aggregate('live', NULL, NULL)");
    assert_eq!(
        target.rows("SELECT count(*) FROM live WHERE hour < date_trunc('day', now()) - INTERVAL '9 days'"),
        source.rows("SELECT count(*) FROM live WHERE hour < date_trunc('day', now()) - INTERVAL '9 days'")
    );
}
