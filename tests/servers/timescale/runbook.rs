//! A trading app's seven files become one TimescaleDB database, step by step, and go back again.

use serde_json::Value;

use super::helpers::json;
use crate::support::Sandbox;
use crate::support::timescale::take;

/// Rows of all files together; LIFEBOAT_TEST_ROWS makes them more, millions say.
fn rows() -> i64 {
    std::env::var("LIFEBOAT_TEST_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(40_000)
}

/// What makes a table a hypertable, and what is done to it by itself.
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
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
#[ignore = "needs TimescaleDB"]
fn seven_files_become_one_database_and_go_back() {
    let place = Sandbox::new();
    let [target, copy] = take();
    super::trading::make_in(&place.path("trading"), rows()).unwrap();
    let url = target.url();
    let (user, at) = url.trim_start_matches("postgres://").split_once('@').unwrap();
    let (host, database) = at.split_once('/').unwrap();
    let (host, port) = host.split_once(':').unwrap();
    std::fs::write(
        place.path(".env"),
        format!("TDX_DB_HOST={host}\nTDX_DB_PORT={port}\nTDX_DB_NAME={database}\nTDX_DB_USER={user}\nTDX_DB_PASSWORD=unused\n"),
    )
    .unwrap();
    let config =
        "env_file = \".env\"\n[[store]]\nurl = \"backups\"\n[[source]]\nname = \"tdx\"\nenv_prefix = \"TDX_DB_\"\n";
    std::fs::write(place.path("moving.toml"), config).unwrap();

    // M0: what there is, that nothing writes to it, and all of it saved.
    let found = json(&place, &["inventory", "trading", "--watch", "1s"]);
    let databases = found["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 7);
    let counted: u64 =
        databases.iter().flat_map(|one| one["tables"].as_array().unwrap()).map(|table| number(&table["rows"])).sum();
    assert!(counted as i64 >= rows() * 9 / 10, "{counted} rows");
    let saved = json(&place, &["inventory", "trading", "--snapshot"]);
    assert_eq!(saved["snapshots"].as_array().unwrap().len(), 7);

    // M2: who we are there, and what is there.
    target.psql("CREATE EXTENSION timescaledb");
    let doctor = place.run(&["doctor", "tdx", "--config", "moving.toml", "-j", "1"]).code(0);
    assert!(doctor.stdout().contains("timescaledb"), "{}", doctor.transcript());

    // M1: two files have notifications, with the same keys; compression and retention are the reader's.
    let mut files: Vec<String> = std::fs::read_dir(place.path("trading"))
        .unwrap()
        .map(|entry| format!("trading/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm") && !name.ends_with("-journal"))
        .collect();
    files.sort();
    let mut plan = vec!["migrate", "plan", "--env-prefix", "TDX_DB_", "--zone", "Asia/Shanghai", "-j", "1", "--json"];
    plan.extend(files.iter().map(String::as_str));
    let planned = place.run(&plan).code(3).json();
    assert_eq!(planned["differences"][0]["table"], "app.notifications", "{:#}", planned["differences"]);
    assert_eq!(planned["tables"].as_array().unwrap().iter().map(|table| number(&table["rows"])).sum::<u64>(), counted);
    let text = std::fs::read_to_string(place.path("plan.toml")).unwrap();
    let (before, after) = text.rsplit_once("source = \"notifications\"").unwrap();
    let after = after.replacen("name = \"notifications\"", "name = \"notifications_2\"", 1);
    let text = format!("{before}source = \"notifications\"{after}");
    let text = text.replace("# compress = ", "compress = ").replace("# retention = ", "retention = ");
    assert!(text.contains("\n[table.hypertable]\n") && text.contains("\ncompress = "), "{text}");
    std::fs::write(place.path("plan.toml"), text).unwrap();

    // M3 to M6: every row arrives, or is kept aside with the reason.
    let run = json(&place, &["migrate", "run", "plan.toml", "-j", "1"]);
    for (before, after) in planned["tables"].as_array().unwrap().iter().zip(run["tables"].as_array().unwrap()) {
        assert_eq!(before["source"], after["source"]);
        assert_eq!(number(&before["rows"]), number(&after["rows"]) + number(&after["rejected"]), "{after}");
    }
    let rejected: u64 = run["tables"].as_array().unwrap().iter().map(|table| number(&table["rejected"])).sum();
    assert!(rejected > 0 && rejected < counted / 50, "{rejected} of {counted}");
    let kept = target.psql("SELECT count(*) FROM lifeboat_migrate.rejects");
    assert_eq!(kept.trim(), rejected.to_string());

    // Acceptance: all rows are compared, and what is there is saved and comes back elsewhere as the same.
    assert_eq!(json(&place, &["migrate", "verify", "plan.toml", "-j", "1"])["ok"], true);
    let made = target.rows(DEFINITIONS[0]);
    assert!(made.len() >= 3, "{made:?}");
    let jobs = target.rows(DEFINITIONS[3]);
    assert!(
        jobs.iter().any(|job| job.contains("retention")) && jobs.iter().any(|job| job.contains("compress")),
        "{jobs:?}"
    );
    let snapshot = place.run(&["snapshot", "tdx", "--config", "moving.toml", "-j", "1", "--json"]).code(0).json();
    let id = snapshot["snapshots"][0]["id"].as_str().unwrap();
    copy.psql("CREATE EXTENSION timescaledb");
    let restored = json(&place, &["restore", id, "--to", &copy.url(), "--yes", "-j", "1"]);
    assert!(restored["tables"].as_array().unwrap().iter().all(|table| table["ok"] == true), "{restored:#}");
    for query in DEFINITIONS {
        assert_eq!(target.rows(query), copy.rows(query));
    }
    assert_eq!(json(&place, &["diff", id, &copy.url(), "-j", "1"])["equal"], true);

    // The way back: all that was made is gone, and the files are as they were.
    json(&place, &["migrate", "rollback", "plan.toml", "-j", "1"]);
    let left = target.psql("SELECT count(*) FROM pg_namespace WHERE nspname IN ('app', 'lifeboat_migrate')");
    assert_eq!(left.trim(), "0");
    let again = json(&place, &["inventory", "trading"]);
    let totals = |document: &Value| -> Vec<Value> {
        document["databases"].as_array().unwrap().iter().map(|one| one["tables"].clone()).collect()
    };
    assert_eq!(totals(&again), totals(&found));
}
