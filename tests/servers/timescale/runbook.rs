//! The migration of a trading application: seven SQLite files into one TimescaleDB database, step by step, and its
//! rollback.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::helpers::json;
use crate::support::Sandbox;
use crate::support::timescale::take_databases;

/// Returns the number of rows in all files together. LIFEBOAT_TEST_ROWS can make it larger, such as millions.
fn rows() -> i64 {
    std::env::var("LIFEBOAT_TEST_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(40_000)
}

/// Queries of the definitions of hypertables: dimensions, compression, jobs and indexes.
const DEFINITIONS: [&str; 5] = [
    "SELECT hypertable_schema, hypertable_name, num_dimensions, compression_enabled, num_chunks
       FROM timescaledb_information.hypertables ORDER BY 1, 2",
    "SELECT hypertable_name, column_name, column_type, time_interval FROM timescaledb_information.dimensions ORDER BY 1, 2",
    "SELECT hypertable_name, attname, segmentby_column_index, orderby_column_index, orderby_asc
       FROM timescaledb_information.compression_settings ORDER BY 1, 2",
    "SELECT proc_name, hypertable_name, schedule_interval, config - 'hypertable_id' FROM timescaledb_information.jobs
      WHERE job_id >= 1000 ORDER BY 1, 2",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'app' ORDER BY 1",
];

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("not a number: {value}"))
}

#[test]
#[ignore = "needs TimescaleDB"]
fn seven_files_are_migrated_into_one_database_and_rolled_back() {
    let sandbox = Sandbox::new();
    let [target, copy] = take_databases();
    super::trading::make_in(&sandbox.path("trading"), rows()).unwrap();
    let url = target.url();
    let (user, at) = url.trim_start_matches("postgres://").split_once('@').unwrap();
    let (host, database) = at.split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    std::fs::write(
        sandbox.path(".env"),
        format!("TDX_DB_HOST={host}\nTDX_DB_PORT={port}\nTDX_DB_NAME={database}\nTDX_DB_USER={user}\nTDX_DB_PASSWORD=unused\n"),
    )
    .unwrap();
    std::fs::set_permissions(sandbox.path(".env"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let config =
        "env_file = \".env\"\n[[store]]\nurl = \"backups\"\n[[source]]\nname = \"tdx\"\nenv_prefix = \"TDX_DB_\"\n";
    std::fs::write(sandbox.path("moving.toml"), config).unwrap();

    // Step M0: list the files, check that nothing writes to them, and save them.
    let found = json(&sandbox, &["inventory", "trading", "--watch", "1s"]);
    let databases = found["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 7);
    let total_rows: u64 =
        databases.iter().flat_map(|one| one["tables"].as_array().unwrap()).map(|table| number(&table["rows"])).sum();
    assert!(total_rows as i64 >= rows() * 9 / 10, "{total_rows} rows");
    let saved = json(&sandbox, &["inventory", "trading", "--snapshot"]);
    assert_eq!(saved["snapshots"].as_array().unwrap().len(), 7);

    // Step M2: check the role and the server.
    target.psql("CREATE EXTENSION timescaledb");
    let doctor = sandbox.run(&["doctor", "tdx", "--config", "moving.toml", "-j", "1"]).code(0);
    assert!(doctor.stdout().contains("timescaledb"), "{}", doctor.transcript());

    // Step M1: write the plan. Two files have a table notifications with the same keys, so one is renamed. Compression
    // and retention are comments in the plan, which a person enables.
    let mut files: Vec<String> = std::fs::read_dir(sandbox.path("trading"))
        .unwrap()
        .map(|entry| format!("trading/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm") && !name.ends_with("-journal"))
        .collect();
    files.sort();
    let mut plan = vec!["migrate", "plan", "--env-prefix", "TDX_DB_", "--zone", "Asia/Shanghai", "-j", "1", "--json"];
    plan.extend(files.iter().map(String::as_str));
    let planned = sandbox.run(&plan).code(3).json();
    assert_eq!(planned["differences"][0]["table"], "app.notifications", "{:#}", planned["differences"]);
    let planned_rows: u64 = planned["tables"].as_array().unwrap().iter().map(|table| number(&table["rows"])).sum();
    assert_eq!(planned_rows, total_rows);
    let text = std::fs::read_to_string(sandbox.path("plan.toml")).unwrap();
    let (before, after) = text.rsplit_once("source = \"notifications\"").unwrap();
    let after = after.replacen("name = \"notifications\"", "name = \"notifications_2\"", 1);
    let text = format!("{before}source = \"notifications\"{after}");
    let text = text.replace("# compress = ", "compress = ").replace("# retention = ", "retention = ");
    assert!(text.contains("\n[table.hypertable]\n") && text.contains("\ncompress = "), "{text}");
    std::fs::write(sandbox.path("plan.toml"), text).unwrap();

    // Steps M3 to M6: run the plan. Every row is loaded, or is rejected with the reason.
    let run = json(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]);
    for (before, after) in planned["tables"].as_array().unwrap().iter().zip(run["tables"].as_array().unwrap()) {
        assert_eq!(before["source"], after["source"]);
        assert_eq!(number(&before["rows"]), number(&after["rows"]) + number(&after["rejected"]), "{after}");
    }
    let rejected: u64 = run["tables"].as_array().unwrap().iter().map(|table| number(&table["rejected"])).sum();
    assert!(rejected > 0 && rejected < total_rows / 50, "{rejected} of {total_rows}");
    let recorded = target.psql("SELECT count(*) FROM lifeboat_migrate.rejects");
    assert_eq!(recorded.trim(), rejected.to_string());

    // Acceptance: all rows are compared. A snapshot of the database is restored elsewhere and is equal.
    assert_eq!(json(&sandbox, &["migrate", "verify", "plan.toml", "-j", "1"])["ok"], true);
    let hypertables = target.rows(DEFINITIONS[0]);
    assert!(hypertables.len() >= 3, "{hypertables:?}");
    let jobs = target.rows(DEFINITIONS[3]);
    assert!(
        jobs.iter().any(|job| job.contains("retention")) && jobs.iter().any(|job| job.contains("compress")),
        "{jobs:?}"
    );
    let snapshot = sandbox.run(&["snapshot", "tdx", "--config", "moving.toml", "-j", "1", "--json"]).code(0).json();
    let id = snapshot["snapshots"][0]["id"].as_str().unwrap();
    copy.psql("CREATE EXTENSION timescaledb");
    let restored = json(&sandbox, &["restore", id, "--to", &copy.url(), "--yes", "-j", "1"]);
    assert!(restored["tables"].as_array().unwrap().iter().all(|table| table["ok"] == true), "{restored:#}");
    for query in DEFINITIONS {
        assert_eq!(target.rows(query), copy.rows(query));
    }
    assert_eq!(json(&sandbox, &["diff", id, &copy.url(), "-j", "1"])["equal"], true);

    // Rollback: everything that was created is removed, and the files are unchanged.
    json(&sandbox, &["migrate", "rollback", "plan.toml", "-j", "1"]);
    let remaining = target.psql("SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'lifeboat_migrate')");
    assert_eq!(remaining.trim(), "0");
    let again = json(&sandbox, &["inventory", "trading"]);
    let totals = |document: &Value| -> Vec<Value> {
        document["databases"].as_array().unwrap().iter().map(|one| one["tables"].clone()).collect()
    };
    assert_eq!(totals(&again), totals(&found));
}

/// Beside the extension, tables that refer to each other cannot be dropped in one statement.
#[test]
#[ignore = "needs TimescaleDB"]
fn tables_that_refer_to_each_other_and_hypertables_are_rolled_back() {
    let sandbox = Sandbox::new();
    let [target] = take_databases();
    target.psql("CREATE EXTENSION timescaledb");
    let file = crate::support::open(sandbox.path("app.db"));
    file.execute_batch(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER REFERENCES b); CREATE TABLE b (id INTEGER PRIMARY KEY, a INTEGER REFERENCES a);
         INSERT INTO a VALUES (1, NULL); INSERT INTO b VALUES (1, 1); UPDATE a SET b = 1;
         CREATE TABLE ticks (at DATETIME NOT NULL, symbol TEXT NOT NULL, a INTEGER REFERENCES a, price REAL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO ticks SELECT datetime(1790000000 + i * 3600, 'unixepoch'), 's' || i % 5, 1, i FROM n;",
    )
    .unwrap();
    let url = target.url();
    for _ in 0..2 {
        let plan = ["migrate", "plan", "app.db", "--to", &url, "--schema", "app", "-j", "1", "--json"];
        let planned = sandbox.run(&plan).code(0).json();
        assert_eq!(number(&planned["tables"][2]["rows"]), 3000, "{planned}");
        json(&sandbox, &["migrate", "run", "plan.toml", "-j", "1"]);
        assert!(target.rows(DEFINITIONS[0])[0].starts_with("app|ticks|1|f|"), "{:?}", target.rows(DEFINITIONS[0]));
        json(&sandbox, &["migrate", "verify", "plan.toml", "-j", "1"]);
        json(&sandbox, &["migrate", "rollback", "plan.toml", "-j", "1"]);
        let remaining = target.psql("SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'lifeboat_migrate')");
        assert_eq!(remaining.trim(), "0");
        std::fs::remove_file(sandbox.path("plan.toml")).unwrap();
    }
}
