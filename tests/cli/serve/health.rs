//! The health that `serve` reports when data is lost, or when a database or a store does not answer.

use std::io::Write;
use std::process::{Command, Stdio};

use super::helpers::{ServeProcess, app, configure, sql, wait_for};
use crate::support::Sandbox;
use crate::support::postgres::server;
use crate::support::s3::{fresh_prefix, s3_server};

/// Tests the health with an SQLite source, a PostgreSQL source and a store in S3.
#[test]
#[ignore = "needs PostgreSQL 15 and S3 servers"]
fn an_emptied_database_makes_the_health_503_and_names_the_rule() {
    let sandbox = Sandbox::new();
    sql(
        &sandbox,
        "app.db",
        "CREATE TABLE ibkr_accounts (id INTEGER PRIMARY KEY); INSERT INTO ibkr_accounts VALUES (1), (2);",
    );
    let server = server(15);
    let shop = server.create_database("served");
    shop.psql("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 100)");
    let bucket = s3_server("seaweedfs");
    let prefix = fresh_prefix();
    let store = format!("s3://{}/{prefix}", bucket.bucket);
    let config = format!(
        "[[store]]\nurl = \"{store}\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n[[source.rule]]\n\
         table = \"ibkr_accounts\"\nmin_rows = 1\n[[source]]\nname = \"shop\"\nurl = \"{}\"\n[[source.rule]]\n\
         max_row_drop = \"5%\"\n[serve]\nevery = \"1s\"\n",
        shop.url()
    );
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    let mut command = sandbox.command(&["snapshot", "app", "shop", "--store", &store]);
    bucket.set_credentials(&mut command);
    command.env("AWS_ENDPOINT_URL", &bucket.endpoint);
    sandbox.finish(command).code(0);
    let serve = ServeProcess::start_with(&sandbox, |command| {
        bucket.set_credentials(command);
        command.env("AWS_ENDPOINT_URL", &bucket.endpoint);
    });
    assert_eq!(serve.get("/health").json()["status"], "ok");
    let health = serve.wait_for_health(200, |health| {
        let sources = health["sources"].as_array().unwrap();
        sources.iter().all(|source| source["newest_snapshot"]["proof"] == "none")
    });
    let (app, orders) = (&health["sources"][0], &health["sources"][1]);
    assert_eq!((&app["reachable"], &app["status"]), (&true.into(), &"healthy".into()), "{health:#}");
    assert_eq!(app["tables"][0]["rows"], 2);
    assert!(app["free_bytes"].as_u64().unwrap() > 0 && app["newest_snapshot"]["archive_bytes"].as_u64().unwrap() > 0);
    assert_eq!(app["rules"][0]["observed"], "2 rows");
    assert_eq!(orders["rules"][0]["name"], "rows of public.orders", "{health:#}");
    let metrics = serve.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(metrics.body.contains("lifeboat_snapshot_rows{source=\"shop\"} 100\n"), "{}", metrics.body);
    parse_metrics(&metrics.body);
    let page = serve.get("/");
    assert!(page.body.contains("<h2>shop ") && page.body.contains("no table has fewer rows"));
    assert_eq!(serve.get("/snapshots").json()["snapshots"].as_array().unwrap().len(), 2);

    // A new container starts with an empty database.
    sql(&sandbox, "app.db", "DELETE FROM ibkr_accounts");
    let health = serve.wait_for_health(503, |_| true);
    let problems = health["sources"][0]["problems"].to_string();
    assert!(problems.contains("min_rows of ibkr_accounts: 0 rows; expected at least 1 rows"), "{problems}");
    assert!(problems.contains("rows of ibkr_accounts: 0 rows, 2 before"), "{problems}");
    assert_eq!(health["sources"][1]["status"], "healthy");
    // The page is rendered once per second.
    wait_for("the page to report the problem", || {
        let page = serve.get("/").body;
        page.contains("UNHEALTHY") && page.contains("min_rows of ibkr_accounts")
    });
    assert!(
        serve.get("/metrics").body.contains("lifeboat_rule_ok{source=\"app\",rule=\"min_rows of ibkr_accounts\"} 0\n")
    );
    sql(&sandbox, "app.db", "INSERT INTO ibkr_accounts VALUES (1), (2)");
    serve.wait_for_health(200, |_| true);
    shop.psql("DELETE FROM orders WHERE id > 90");
    let health = serve.wait_for_health(503, |_| true);
    let problems = health["sources"][1]["problems"].to_string();
    assert!(
        problems.contains("rows of public.orders: 90 rows, 100 before: 10 are gone; expected at most 5% lost"),
        "{problems}"
    );
}

/// Requires that the client library of Prometheus can parse the metrics, and that each metric and series is unique.
fn parse_metrics(text: &str) {
    let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families as parse\n\
                  families = list(parse(sys.stdin.read()))\n\
                  names = [f.name for f in families]\n\
                  assert len(names) > 10 and len(names) == len(set(names)), names\n\
                  assert all(f.type == 'gauge' and f.documentation for f in families), names\n\
                  assert all(len({tuple(sorted(s.labels.items())) for s in f.samples}) == len(f.samples) for f in families)\n";
    let mut python = Command::new("/usr/bin/python3").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(python.wait().unwrap().success(), "{text}");
}

#[test]
fn the_health_is_503_while_a_store_or_a_database_is_missing() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(200, |_| true);
    std::fs::rename(sandbox.path("backups"), sandbox.path("elsewhere")).unwrap();
    let health = serve.wait_for_health(503, |_| true);
    assert_eq!(health["sources"][0]["reachable"], true);
    assert!(health["stores"][0]["message"].as_str().unwrap().contains("backups"), "{health:#}");
    // The newest snapshot that was found before is still shown.
    assert!(health["sources"][0]["newest_snapshot"]["id"].is_string(), "{health:#}");
    assert_eq!(serve.get("/").status, 200);
    std::fs::rename(sandbox.path("elsewhere"), sandbox.path("backups")).unwrap();
    serve.wait_for_health(200, |_| true);
    for file in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::rename(sandbox.path(file), sandbox.path(format!("{file}.away")));
    }
    let health = serve.wait_for_health(503, |_| true);
    assert_eq!(health["sources"][0]["reachable"], false);
    assert!(health["sources"][0]["problems"][0].as_str().unwrap().starts_with("app: database:"), "{health:#}");
    assert!(serve.get("/metrics").body.contains("lifeboat_source_reachable{source=\"app\"} 0\n"));
}

/// Tests a source whose server accepts connections and never answers.
#[test]
fn a_hanging_check_makes_its_source_unhealthy_and_blocks_no_other() {
    let sandbox = app();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let more = format!(
        "[[source]]\nname = \"silent\"\nurl = \"postgres://user@127.0.0.1:{port}/shop?connect_timeout=300&sslmode=disable\"\n"
    );
    configure(&sandbox, &more);
    let serve = ServeProcess::start(&sandbox);
    let is_late = |health: &serde_json::Value| health["sources"][1]["problems"].to_string().contains("does not answer");
    let health = serve.wait_for_health(503, is_late);
    assert_eq!(health["sources"][1]["reachable"], false);
    // The other source is still checked regularly.
    let checked_at = health["sources"][0]["checked_at"].clone();
    assert_eq!(health["sources"][0]["status"], "healthy", "{health:#}");
    wait_for("another check", || serve.get("/health/data").json()["sources"][0]["checked_at"] != checked_at);
    assert_eq!(serve.get("/health").status, 200);
    let mut serve = serve;
    serve.signal(rustix::process::Signal::TERM);
    assert_eq!(serve.wait(), Some(0), "{}", serve.log());
}

/// Tests a store whose server accepts connections and never answers.
#[test]
fn a_hanging_store_is_unhealthy_and_pages_are_still_served() {
    let sandbox = app();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let more = format!(
        "[[store]]\nurl = \"s3://bucket/prefix\"\nendpoint = \"{endpoint}\"\nregion = \"x\"\naccess_key_id = \"k\"\n\
         secret_access_key = \"s\"\n"
    );
    configure(&sandbox, &more);
    let serve = ServeProcess::start(&sandbox);
    let health =
        serve.wait_for_health(503, |health| health["stores"][1]["message"].to_string().contains("does not answer"));
    assert_eq!(health["stores"][0]["status"], "healthy", "{health:#}");
    assert_eq!(serve.get("/").status, 200);
    let id = health["sources"][0]["newest_snapshot"]["id"].as_str().unwrap().to_owned();
    assert_eq!(serve.get(&format!("/snapshots/{id}")).status, 200);
}

#[test]
fn a_damaged_or_missing_newest_snapshot_makes_the_health_503() {
    let sandbox = app();
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(200, |_| true);
    let folder = sandbox.path("backups").join("app");
    let files = || std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let archive = files().find(|path| path.to_str().unwrap().ends_with(".tar.gz")).unwrap();
    let original = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, b"").unwrap();
    let health = serve.wait_for_health(503, |_| true);
    assert!(health["sources"][0]["problems"].to_string().contains("is damaged"), "{health:#}");
    let check = sandbox.run(&["check"]).code(3);
    assert!(check.stdout().contains("is damaged"), "{}", check.transcript());
    std::fs::write(&archive, original).unwrap();
    serve.wait_for_health(200, |_| true);
    // Another program removes all snapshots.
    files().for_each(|file| std::fs::remove_file(file).unwrap());
    let health = serve.wait_for_health(503, |_| true);
    assert!(health["sources"][0]["problems"].to_string().contains("there is no full snapshot"), "{health:#}");
    assert_eq!(health["sources"][0]["newest_snapshot"], serde_json::Value::Null);
}

/// Tests two rules with the same name. They have one metric, which must be 0 if either of them fails.
#[test]
fn a_failed_rule_is_not_hidden_by_another_rule_of_its_name() {
    let sandbox = app();
    let config = std::fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    let more = "[[source.rule]]\ntable = \"accounts\"\nmin_rows = 1000\n[serve]";
    std::fs::write(sandbox.path("lifeboat.toml"), config.replace("[serve]", more)).unwrap();
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(503, |health| health["sources"][0]["problems"].to_string().contains("at least 1000 rows"));
    let metrics = serve.get("/metrics").body;
    assert!(metrics.contains("lifeboat_rule_ok{source=\"app\",rule=\"min_rows of accounts\"} 0\n"), "{metrics}");
    parse_metrics(&metrics);
}

#[test]
fn growth_that_could_not_be_calculated_is_calculated_later() {
    let sandbox = app();
    let key = sandbox.json(&["keygen", "--output", "key.txt"]);
    let recipient = key["public_key"].as_str().unwrap().to_owned();
    std::fs::remove_dir_all(sandbox.path("backups")).unwrap();
    let encryption = format!("[encryption]\nrecipients = [\"{recipient}\"]\nidentity_file = \"key.txt\"\n");
    configure(&sandbox, &encryption);
    sandbox.ok(&["snapshot", "app", "--store", "backups"]);
    let archives = || std::fs::read_dir(sandbox.path("backups/app")).unwrap().flatten().map(|entry| entry.path());
    let first = archives().find(|path| path.to_string_lossy().ends_with(".age")).unwrap();
    sql(&sandbox, "app.db", "INSERT INTO accounts (name) VALUES ('c')");
    sandbox.ok(&["snapshot", "app", "--store", "backups"]);
    // The tables of the first snapshot cannot be read.
    let whole = std::fs::read(&first).unwrap();
    std::fs::write(&first, vec![0; whole.len()]).unwrap();
    let serve = ServeProcess::start(&sandbox);
    serve.wait_for_health(200, |health| health["sources"][0]["newest_snapshot"].is_object());
    assert!(!serve.get("/").body.contains("Growth of tables"));
    std::fs::write(&first, whole).unwrap();
    wait_for("the growth", || serve.get("/").body.contains("Growth of tables"));
}
