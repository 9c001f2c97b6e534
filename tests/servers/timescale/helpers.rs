//! Helpers for the tests in this folder.

use serde_json::Value;

use crate::support::timescale::TimescaleDatabase;
use crate::support::{Run, Sandbox};

/// Runs `lifeboat ARGUMENTS --store backups`, and requires exit code 0.
#[track_caller]
pub(crate) fn ok(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    run(sandbox, arguments).code(0)
}

#[track_caller]
pub(crate) fn run(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--store", "backups"]);
    sandbox.run(&arguments)
}

/// Runs `lifeboat ARGUMENTS --store backups --json`, requires exit code 0, and returns the document.
#[track_caller]
pub(crate) fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    ok(sandbox, &arguments).json()
}

/// Takes a snapshot and returns its id.
#[track_caller]
pub(crate) fn snapshot(sandbox: &Sandbox, source: &TimescaleDatabase) -> String {
    let document = json(sandbox, &["snapshot", &source.url(), "--name", "app"]);
    document["snapshots"][0]["id"].as_str().unwrap().to_owned()
}

/// Returns true if the version of the extension is older than `2.MINOR`.
#[track_caller]
pub(crate) fn is_older_than(database: &TimescaleDatabase, minor: u32) -> bool {
    let version =
        database.psql("SELECT split_part(extversion, '.', 2) FROM pg_extension WHERE extname = 'timescaledb'");
    version.trim().parse::<u32>().unwrap() < minor
}

/// Fills a database like that of an application: a table of keys, two hypertables, compressed chunks, continuous
/// aggregates and policies.
#[track_caller]
pub(crate) fn fill(database: &TimescaleDatabase) {
    database.psql(SAMPLE);
}

/// Returns everything that a restore must bring back: definitions, policies, rows, the compressed chunks, and the
/// results of queries on aggregates.
#[track_caller]
pub(crate) fn state(database: &TimescaleDatabase) -> Vec<Vec<String>> {
    STATE_QUERIES.iter().map(|query| database.rows(query)).collect()
}

const SAMPLE: &str = r#"
SET client_min_messages = warning;
CREATE EXTENSION timescaledb;
CREATE SCHEMA app;
CREATE TABLE app.symbols (symbol text PRIMARY KEY, name text NOT NULL);
INSERT INTO app.symbols SELECT 's' || n, '股票 ' || n FROM generate_series(1, 20) n;
CREATE TABLE app.records (symbol text NOT NULL REFERENCES app.symbols, at timestamptz NOT NULL, price double precision,
    doc jsonb, note text, id bigint GENERATED ALWAYS AS IDENTITY, CHECK (price > 0), PRIMARY KEY (symbol, at));
SELECT create_hypertable('app.records', 'at', chunk_time_interval => INTERVAL '1 day');
CREATE INDEX records_note ON app.records (note);
CREATE INDEX records_doc ON app.records USING gin (doc);
INSERT INTO app.records (symbol, at, price, doc, note)
    SELECT 's' || (n % 20 + 1), date_trunc('day', now()) + INTERVAL '3 hours' - n * INTERVAL '5 minutes', n + 0.25,
           jsonb_build_object('n', n, '名', '中文'), '备注' || n || E'\t\n\\' FROM generate_series(1, 2500) n;
-- By numbers, and by a hash too.
CREATE TABLE app.ticks (seq bigint NOT NULL, "device id" integer NOT NULL, value numeric);
CREATE FUNCTION app.ticks_now() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT coalesce(max(seq), 0) FROM app.ticks';
SELECT create_hypertable('app.ticks', 'seq', chunk_time_interval => 1000);
SELECT add_dimension('app.ticks', 'device id', number_partitions => 2);
SELECT set_integer_now_func('app.ticks', 'app.ticks_now');
INSERT INTO app.ticks SELECT n, n % 7, n / 3.0 FROM generate_series(1, 3000) n;
ALTER TABLE app.records SET (timescaledb.compress, timescaledb.compress_segmentby = 'symbol',
    timescaledb.compress_orderby = 'at DESC, id');
SELECT compress_chunk(c) FROM show_chunks('app.records', older_than => now() - INTERVAL '5 days') c;
CREATE MATERIALIZED VIEW app.hourly WITH (timescaledb.continuous, timescaledb.materialized_only = false) AS
    SELECT time_bucket('1 hour', at) AS hour, symbol, avg(price) AS mean, count(*) AS n FROM app.records GROUP BY 1, 2
    WITH NO DATA;
CALL refresh_continuous_aggregate('app.hourly', NULL, date_trunc('day', now()) - INTERVAL '1 day');
CREATE MATERIALIZED VIEW app.daily WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
    SELECT time_bucket('1 day', hour) AS day, sum(n) AS n FROM app.hourly GROUP BY 1 WITH NO DATA;
CALL refresh_continuous_aggregate('app.daily', NULL, NULL);
CREATE INDEX hourly_mean ON app.hourly (mean);
COMMENT ON VIEW app.hourly IS 'by the hour';
CREATE VIEW app.seen AS SELECT symbol, sum(n) AS n FROM app.hourly GROUP BY 1;
SELECT add_retention_policy('app.records', INTERVAL '90 days');
SELECT add_compression_policy('app.records', INTERVAL '30 days');
SELECT add_retention_policy('app.ticks', BIGINT '100000');
SELECT add_continuous_aggregate_policy('app.hourly', start_offset => INTERVAL '3 days', end_offset => INTERVAL '1 hour',
    schedule_interval => INTERVAL '1 hour');
ALTER MATERIALIZED VIEW app.hourly SET (timescaledb.compress = true);
SELECT add_compression_policy('app.hourly', INTERVAL '40 days');
SELECT alter_job(job_id, scheduled => false, max_retries => 3) FROM timescaledb_information.jobs
    WHERE proc_name = 'policy_refresh_continuous_aggregate';
CREATE PROCEDURE app.act(job_id int, config jsonb) LANGUAGE plpgsql AS 'BEGIN NULL; END';
SELECT add_job('app.act', '1 h', config => '{"a": 1}');
"#;

const STATE_QUERIES: &[&str] = &[
    "SELECT hypertable_schema, hypertable_name, num_dimensions, compression_enabled, num_chunks
       FROM timescaledb_information.hypertables ORDER BY 1, 2",
    "SELECT hypertable_name, dimension_number, column_name, column_type, time_interval, integer_interval, integer_now_func,
            num_partitions FROM timescaledb_information.dimensions WHERE hypertable_schema = 'app' ORDER BY 1, 2",
    "SELECT hypertable_name, range_start, range_start_integer, is_compressed FROM timescaledb_information.chunks
      WHERE hypertable_schema = 'app' ORDER BY 1, 2, 3, chunk_name",
    "SELECT attname, segmentby_column_index, orderby_column_index, orderby_asc, orderby_nullsfirst
       FROM timescaledb_information.compression_settings WHERE hypertable_schema = 'app' ORDER BY 1, 2, 3",
    "SELECT proc_name, schedule_interval, max_runtime, max_retries, retry_period, scheduled, fixed_schedule, initial_start,
            config - 'hypertable_id' - 'mat_hypertable_id', hypertable_name = 'records'
       FROM timescaledb_information.jobs WHERE job_id >= 1000 ORDER BY 1, 9",
    "SELECT view_name, materialized_only, view_definition FROM timescaledb_information.continuous_aggregates ORDER BY 1",
    "SELECT obj_description('app.hourly'::regclass)",
    "SELECT hour, symbol, mean, n FROM app.hourly ORDER BY 1, 2",
    "SELECT day, n FROM app.daily ORDER BY 1",
    "SELECT * FROM app.seen ORDER BY 1",
    "SELECT * FROM app.symbols ORDER BY 1",
    "SELECT count(*), sum(hashtext(r::text)::bigint) FROM app.records r",
    "SELECT count(*), sum(hashtext(t::text)::bigint) FROM app.ticks t",
    "SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'app' ORDER BY 1",
    "SELECT indexdef ~ 'hourly_mean' FROM pg_indexes WHERE indexname = 'hourly_mean'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
      WHERE connamespace = 'app'::regnamespace ORDER BY 1, 2",
    "SELECT c.relname, c.relkind FROM pg_class c WHERE c.relnamespace = 'app'::regnamespace ORDER BY 1",
];
