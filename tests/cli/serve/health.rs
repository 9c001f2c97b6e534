//! The health that `serve` reports when data is lost, or a store does not answer.

use std::io::Write;
use std::process::{Command, Stdio};

use super::helpers::{Served, app, configure, sql, wait_for};
use crate::support::Sandbox;
use crate::support::postgres::server;
use crate::support::s3::{fresh_prefix, s3_server};

/// An SQLite and a PostgreSQL source, a store in S3.
#[test]
#[ignore = "needs PostgreSQL 15 and S3 servers"]
fn a_database_that_is_emptied_turns_the_health_to_503_and_names_the_rule() {
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
    bucket.identify(&mut command);
    command.env("AWS_ENDPOINT_URL", &bucket.endpoint);
    sandbox.finish(command).code(0);
    let served = Served::start_with(&sandbox, |command| {
        bucket.identify(command);
        command.env("AWS_ENDPOINT_URL", &bucket.endpoint);
    });
    assert_eq!(served.get("/health").json()["status"], "ok");
    let health = served.wait_for_health(200, |health| {
        let sources = health["sources"].as_array().unwrap();
        sources.iter().all(|source| source["newest_snapshot"]["proof"] == "none")
    });
    let (app, orders) = (&health["sources"][0], &health["sources"][1]);
    assert_eq!((&app["reachable"], &app["status"]), (&true.into(), &"healthy".into()), "{health:#}");
    assert_eq!(app["tables"][0]["rows"], 2);
    assert!(app["free_bytes"].as_u64().unwrap() > 0 && app["newest_snapshot"]["archive_bytes"].as_u64().unwrap() > 0);
    assert_eq!(app["rules"][0]["observed"], "2 rows");
    assert_eq!(orders["rules"][0]["name"], "rows of public.orders", "{health:#}");
    let metrics = served.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    assert!(metrics.body.contains("lifeboat_snapshot_rows{source=\"shop\"} 100\n"), "{}", metrics.body);
    parse_metrics(&metrics.body);
    let page = served.get("/");
    assert!(
        page.body.contains("<h2>shop ") && page.body.contains("public.orders") | page.body.contains("nothing lost")
    );
    assert_eq!(served.get("/snapshots").json()["snapshots"].as_array().unwrap().len(), 2);

    // The container starts anew, and empty.
    sql(&sandbox, "app.db", "DELETE FROM ibkr_accounts");
    let health = served.wait_for_health(503, |_| true);
    let problems = health["sources"][0]["problems"].to_string();
    assert!(problems.contains("min_rows of ibkr_accounts: 0 rows; expected at least 1 rows"), "{problems}");
    assert!(problems.contains("rows of ibkr_accounts: 0 rows, 2 before"), "{problems}");
    assert_eq!(health["sources"][1]["status"], "healthy");
    // A page is made once a second.
    wait_for("the page to tell of it", || {
        let page = served.get("/").body;
        page.contains("UNHEALTHY") && page.contains("min_rows of ibkr_accounts")
    });
    assert!(
        served.get("/metrics").body.contains("lifeboat_rule_ok{source=\"app\",rule=\"min_rows of ibkr_accounts\"} 0\n")
    );
    sql(&sandbox, "app.db", "INSERT INTO ibkr_accounts VALUES (1), (2)");
    served.wait_for_health(200, |_| true);
    shop.psql("DELETE FROM orders WHERE id > 90");
    let health = served.wait_for_health(503, |_| true);
    let problems = health["sources"][1]["problems"].to_string();
    assert!(
        problems.contains("rows of public.orders: 90 rows, 100 before: 10 are gone; expected at most 5% lost"),
        "{problems}"
    );
}

/// Reads metrics as Prometheus' own client library does.
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
fn a_database_or_store_that_goes_away_is_told_and_comes_back() {
    let sandbox = app();
    let served = Served::start(&sandbox);
    served.wait_for_health(200, |_| true);
    std::fs::rename(sandbox.path("backups"), sandbox.path("elsewhere")).unwrap();
    let health = served.wait_for_health(503, |_| true);
    assert_eq!(health["sources"][0]["reachable"], true);
    assert!(health["stores"][0]["message"].as_str().unwrap().contains("backups"), "{health:#}");
    // What was known of it is still shown.
    assert!(health["sources"][0]["newest_snapshot"]["id"].is_string(), "{health:#}");
    assert_eq!(served.get("/").status, 200);
    std::fs::rename(sandbox.path("elsewhere"), sandbox.path("backups")).unwrap();
    served.wait_for_health(200, |_| true);
    for file in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::rename(sandbox.path(file), sandbox.path(format!("{file}.away")));
    }
    let health = served.wait_for_health(503, |_| true);
    assert_eq!(health["sources"][0]["reachable"], false);
    assert!(health["sources"][0]["problems"][0].as_str().unwrap().starts_with("app: database:"), "{health:#}");
    assert!(served.get("/metrics").body.contains("lifeboat_source_reachable{source=\"app\"} 0\n"));
}

/// A server that takes connections and says nothing.
#[test]
fn a_look_that_hangs_makes_its_source_unhealthy_and_blocks_nothing_else() {
    let sandbox = app();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let more = format!(
        "[[source]]\nname = \"silent\"\nurl = \"postgres://user@127.0.0.1:{port}/shop?connect_timeout=300&sslmode=disable\"\n"
    );
    configure(&sandbox, &more);
    let served = Served::start(&sandbox);
    let is_late = |health: &serde_json::Value| health["sources"][1]["problems"].to_string().contains("does not answer");
    let health = served.wait_for_health(503, is_late);
    assert_eq!(health["sources"][1]["reachable"], false);
    // The other one is looked at again and again.
    let looked = health["sources"][0]["checked_at"].clone();
    assert_eq!(health["sources"][0]["status"], "healthy", "{health:#}");
    wait_for("another look", || served.get("/health/data").json()["sources"][0]["checked_at"] != looked);
    assert_eq!(served.get("/health").status, 200);
    let mut served = served;
    served.signal(rustix::process::Signal::TERM);
    assert_eq!(served.wait(), Some(0), "{}", served.log());
}

/// A store that takes connections and says nothing.
#[test]
fn a_store_that_hangs_is_told_and_pages_come_all_the_same() {
    let sandbox = app();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let more = format!(
        "[[store]]\nurl = \"s3://bucket/prefix\"\nendpoint = \"{endpoint}\"\nregion = \"x\"\naccess_key_id = \"k\"\n\
         secret_access_key = \"s\"\n"
    );
    configure(&sandbox, &more);
    let served = Served::start(&sandbox);
    let health =
        served.wait_for_health(503, |health| health["stores"][1]["message"].to_string().contains("does not answer"));
    assert_eq!(health["stores"][0]["status"], "healthy", "{health:#}");
    assert_eq!(served.get("/").status, 200);
    let id = health["sources"][0]["newest_snapshot"]["id"].as_str().unwrap().to_owned();
    assert_eq!(served.get(&format!("/snapshots/{id}")).status, 200);
}

/// What cannot be compared is not called well.
#[test]
fn a_newest_snapshot_that_cannot_be_read_or_is_gone_is_told() {
    let sandbox = app();
    let served = Served::start(&sandbox);
    served.wait_for_health(200, |_| true);
    let folder = sandbox.path("backups").join("app");
    let files = || std::fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path());
    let archive = files().find(|path| path.to_str().unwrap().ends_with(".tar.gz")).unwrap();
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, b"").unwrap();
    let health = served.wait_for_health(503, |_| true);
    assert!(health["sources"][0]["problems"].to_string().contains("is damaged"), "{health:#}");
    let check = sandbox.run(&["check"]).code(3);
    assert!(check.stdout().contains("is damaged"), "{}", check.transcript());
    std::fs::write(&archive, whole).unwrap();
    served.wait_for_health(200, |_| true);
    // Somebody removes all of them.
    files().for_each(|file| std::fs::remove_file(file).unwrap());
    let health = served.wait_for_health(503, |_| true);
    assert!(health["sources"][0]["problems"].to_string().contains("there is no full snapshot"), "{health:#}");
    assert_eq!(health["sources"][0]["newest_snapshot"], serde_json::Value::Null);
}

/// Two rules of one name are one series: all of them must hold.
#[test]
fn a_rule_that_fails_is_not_hidden_by_one_of_its_name() {
    let sandbox = app();
    let config = std::fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    let more = "[[source.rule]]\ntable = \"accounts\"\nmin_rows = 1000\n[serve]";
    std::fs::write(sandbox.path("lifeboat.toml"), config.replace("[serve]", more)).unwrap();
    let served = Served::start(&sandbox);
    served.wait_for_health(503, |health| health["sources"][0]["problems"].to_string().contains("at least 1000 rows"));
    let metrics = served.get("/metrics").body;
    assert!(metrics.contains("lifeboat_rule_ok{source=\"app\",rule=\"min_rows of accounts\"} 0\n"), "{metrics}");
    parse_metrics(&metrics);
}
