//! The materialized rows of continuous aggregates, whose raw data may be gone.

use crate::helpers::{ok, snapshot};
use crate::support::Sandbox;
use crate::support::timescale::take;

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
";

#[test]
fn rows_whose_raw_data_is_gone_come_back_and_outlive_a_refresh() {
    let place = Sandbox::new();
    let [source, target] = take();
    source.psql(SAMPLE);
    let query = "SELECT hour, sum FROM live ORDER BY 1";
    let before = source.rows(query);
    assert!(before.len() > 300, "{}", before.len());
    let id = snapshot(&place, &source);
    ok(&place, &["restore", &id, "--to", &target.url(), "--yes"]);
    assert_eq!(target.rows(query), before);
    assert_eq!(target.rows("SELECT count(*) FROM empty"), ["0"]);
    // What would have the source compute all anew has the restored one do the same, and no more.
    for database in [&source, &target] {
        database.psql("CALL refresh_continuous_aggregate('live', NULL, NULL)");
    }
    assert_eq!(source.rows(query), before);
    assert_eq!(target.rows(query), before);
    assert_eq!(target.rows("SELECT count(*) FROM pg_class WHERE relname ~ '^lifeboat'"), ["0"]);
}
