//! The gates with an app whose database is in PostgreSQL.

use super::helpers::{assert_one_failed, failed_checks};
use crate::support::Sandbox;
use crate::support::postgres::{Server, TestDatabase, server};
use crate::support::proxy::{Proxy, Trouble};

/// An app with a PostgreSQL database of 500 trades and 50 codes, a config, and a store in `backups`.
struct PgApp {
    sandbox: Sandbox,
    server: Server,
    database: TestDatabase,
}

impl PgApp {
    fn new(name: &str, more: &str) -> Self {
        let server = server(17);
        let database = server.create_database(name);
        let app = PgApp { sandbox: Sandbox::new(), server, database };
        app.create_database();
        let config = format!(
            "env_file = \".env\"\nhost = \"test\"\n[[store]]\nurl = \"./backups\"\n\
             [[source]]\nname = \"app\"\nenv_prefix = \"TDX_DB_\"\n[[source.rule]]\ntable = \"trades\"\nmin_rows = 10\n{more}"
        );
        let env = format!(
            "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={}\nTDX_DB_NAME={}\nTDX_DB_USER={}\nTDX_DB_PASSWORD='{}'\n",
            app.server.port, app.database.name, app.server.user, app.server.password
        );
        std::fs::write(app.sandbox.path(".env"), env).unwrap();
        std::fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
        super::helpers::create_store(&app.sandbox);
        app
    }

    fn create_database(&self) {
        self.sql(
            "CREATE TABLE trades (id bigint PRIMARY KEY, price numeric, at timestamptz NOT NULL DEFAULT now());
             CREATE TABLE codes (code text PRIMARY KEY);
             INSERT INTO trades SELECT i, i * 1.25, now() FROM generate_series(1, 500) i;
             INSERT INTO codes SELECT 'c' || i FROM generate_series(1, 50) i;",
        );
    }

    /// Lets the app reach its server through a proxy. Once that is dropped, the server is down.
    fn reach_by_proxy(&self) -> Proxy {
        let proxy = Proxy::start(self.server.port, Trouble::Never);
        let env = std::fs::read_to_string(self.sandbox.path(".env")).unwrap();
        let env = env.replace(&format!("_PORT={}", self.server.port), &format!("_PORT={}", proxy.port));
        std::fs::write(self.sandbox.path(".env"), env).unwrap();
        proxy
    }

    fn sql(&self, sql: &str) {
        self.server.psql(&self.database.name, sql);
    }

    fn value(&self, sql: &str) -> String {
        self.server.value(&self.database.name, sql)
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> (Vec<String>, serde_json::Value) {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let run = self.sandbox.run(&arguments).code(3);
        assert!(!run.stderr().contains(&self.server.password), "{}", run.transcript());
        (failed_checks(&run.json()), run.json())
    }
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_rollback_restores_lost_rows_in_place() {
    let app = PgApp::new("gate_rows", "");
    app.sandbox.ok(&["predeploy", "--commit", "abc123"]);
    app.sql("ALTER TABLE codes ADD COLUMN market text");
    app.sandbox.ok(&["postdeploy", "--commit", "abc123"]);
    app.sql("ALTER TABLE codes DROP COLUMN market; DELETE FROM trades WHERE id > 300");
    let (lines, _) = app.fails(&["postdeploy", "--commit", "abc123"]);
    assert_one_failed(&lines, &["trades", "300", "500"]);
    let (_, document) = app.fails(&["postdeploy", "--commit", "abc123", "--rollback"]);
    assert_eq!(app.value("SELECT count(*) FROM trades"), "500", "{document:#}");
    app.sandbox.ok(&["postdeploy", "--commit", "abc123"]);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_rollback_restores_a_dropped_table_by_a_swap() {
    let app = PgApp::new("gate_drop", "");
    app.sandbox.ok(&["predeploy"]);
    app.sql("DROP TABLE codes; TRUNCATE trades");
    let (lines, _) = app.fails(&["postdeploy"]);
    assert!(lines.iter().any(|line| line.contains("codes") && line.contains("50")), "{lines:#?}");
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["restored"][0]["mode"], "swap", "{document:#}");
    assert_eq!(app.value("SELECT count(*) FROM codes"), "50");
    app.sandbox.ok(&["postdeploy"]);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_rollback_fills_an_empty_database_and_creates_a_missing_one() {
    let app = PgApp::new("gate_wipe", "");
    app.sandbox.ok(&["predeploy"]);
    let before = app.sandbox.ids();
    app.sql("DROP TABLE codes; DROP TABLE trades");
    assert!(!app.fails(&["predeploy"]).0.is_empty());
    assert_eq!(app.sandbox.ids(), before, "a closed gate kept a snapshot");
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["restored"][0]["mode"], "empty", "{document:#}");
    app.sandbox.ok(&["postdeploy"]);
    app.server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", app.database.name));
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["restored"][0]["mode"], "create", "{document:#}");
    assert_eq!(app.value("SELECT sum(price) FROM trades"), "156562.50");
    app.sandbox.ok(&["postdeploy"]);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_guard_restores_a_new_schema_and_refuses_lost_rows_and_another_database() {
    let app = PgApp::new("guard_judge", "");
    app.sandbox.ok(&["snapshot"]);
    let guard = ["guard", "--", "true"];
    app.sql("TRUNCATE trades, codes; CREATE TABLE schema_migrations (v int); INSERT INTO schema_migrations VALUES (7)");
    app.sandbox.ok(&guard).says("holds nothing that the snapshot lacks");
    assert_eq!(app.value("SELECT count(*) FROM trades"), "500");
    app.sql("DELETE FROM trades WHERE id > 300");
    app.sandbox.run(&guard).code(3).says("trades: 300 rows, 500 before");
    app.server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", app.database.name));
    app.sandbox.ok(&guard).says("was restored from app-");
    assert_eq!(app.value("SELECT sum(price) FROM trades"), "156562.50");
    let env = std::fs::read_to_string(app.sandbox.path(".env")).unwrap();
    let other = app.server.create_database("guard_other");
    let env = env.replace(&format!("TDX_DB_NAME={}", app.database.name), &format!("TDX_DB_NAME={}", other.name));
    std::fs::write(app.sandbox.path(".env"), env).unwrap();
    app.sandbox.run(&guard).code(2).says("is of another database");
    app.sandbox.run(&["drill"]).code(2).says("is of another database");
    assert_eq!(app.server.value(&other.name, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_guard_restores_a_new_schema_whose_rows_the_snapshot_has_too() {
    let app = PgApp::new("guard_seed", "");
    app.sandbox.ok(&["snapshot"]);
    let guard = ["guard", "--", "true"];
    app.sql("TRUNCATE trades, codes; INSERT INTO codes VALUES ('c7')");
    app.sandbox.ok(&guard).says("holds nothing that the snapshot lacks");
    assert_eq!(app.value("SELECT count(*) FROM codes"), "50");
    app.sql("TRUNCATE trades, codes; INSERT INTO codes VALUES ('C7')");
    app.sandbox.run(&guard).code(3).says("codes may have rows that the snapshot lacks");
    // The columns have changed: the rows cannot be compared.
    app.sql("TRUNCATE codes; ALTER TABLE codes ADD COLUMN market text; INSERT INTO codes VALUES ('c7', 'x')");
    app.sandbox.run(&guard).code(3).says("codes may have rows that the snapshot lacks");
    assert_eq!(app.value("SELECT count(*) FROM codes"), "1");
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_column_that_is_gone_is_named_and_a_server_that_is_away_was_not_compared() {
    let app = PgApp::new("gate_verdict", "");
    let proxy = app.reach_by_proxy();
    app.sql(
        "CREATE SCHEMA \"My App\"; CREATE TABLE \"My App\".\"Order Items\" (id int, \"Net Price\" int, kept int);
         INSERT INTO \"My App\".\"Order Items\" VALUES (1, 2, 3); ALTER TABLE codes ADD COLUMN market text",
    );
    app.sandbox.ok(&["predeploy"]);
    app.sql(
        "ALTER TABLE \"My App\".\"Order Items\" DROP COLUMN \"Net Price\"; ALTER TABLE codes RENAME TO marks;
         ALTER TABLE marks RENAME COLUMN market TO \"Market\"",
    );
    let run = app.sandbox.ok(&["postdeploy", "--expect-renamed", "codes=marks"]);
    let gone = "the columns \"My App\".\"Order Items\".Net Price and public.codes.market";
    assert_eq!(run.stdout().matches(gone).count(), 2, "{}", run.transcript());
    drop(proxy);
    let (_, document) = app.fails(&["postdeploy"]);
    let verdict = document["verdict"].as_str().unwrap();
    for part in ["no rollback is proposed", "the rows of app were not compared with app-"] {
        assert!(verdict.contains(part), "'{part}' is not in {verdict}");
    }
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn rules_on_times_and_sums_are_evaluated_on_the_server() {
    let rules = "[[source.rule]]\ntable = \"trades\"\nfresh = { column = \"at\", within = \"24h\", zone = \"Asia/Shanghai\" }\n\
                 [[source.rule]]\nquery = \"select sum(price) > 0 from trades\"\n";
    let app = PgApp::new("gate_rules", rules);
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["check"]);
    app.sql("UPDATE trades SET at = now() - interval '2 days', price = -1");
    let (lines, _) = app.fails(&["check"]);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("1d") && lines[1].contains("select sum"), "{lines:#?}");
    let document = app.sandbox.json(&["drill"]);
    assert_eq!(document["ok"], true);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_server_that_is_down_closes_the_gate_and_saves_nothing() {
    let app = PgApp::new("gate_down", "");
    let proxy = app.reach_by_proxy();
    app.sandbox.ok(&["predeploy"]);
    drop(proxy);
    let (lines, _) = app.fails(&["predeploy"]);
    assert_one_failed(&lines, &["app: database"]);
    assert_eq!(app.sandbox.ids().len(), 1);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn tables_that_are_renamed_moved_and_dropped_on_purpose_pass() {
    let app = PgApp::new("gate_intended", "");
    app.sql("CREATE TABLE legacy (a int); INSERT INTO legacy VALUES (1)");
    app.sandbox.ok(&["predeploy", "--commit", "one"]);
    app.sql(
        "ALTER TABLE trades RENAME TO \"Trades 2026\"; CREATE SCHEMA archive; ALTER TABLE codes SET SCHEMA archive;
         DROP TABLE legacy; CREATE VIEW trades AS SELECT * FROM \"Trades 2026\"",
    );
    let gate = ["postdeploy", "--commit", "one"];
    assert_eq!(app.fails(&gate).0.len(), 3);
    let flags = ["--expect-renamed", "Trades=Trades 2026", "--expect-renamed", "codes=archive.codes"];
    let flags = [&gate[..], &flags, &["--expect-dropped", "public.legacy"]].concat();
    let run = app.sandbox.ok(&flags);
    assert!(run.stdout().contains("500 of the 500 rows of public.trades are in it"), "{}", run.transcript());
    app.sandbox.ok(&["predeploy", "--commit", "two"]);
    app.sandbox.ok(&["postdeploy", "--commit", "two"]);
    app.sandbox
        .run(&["postdeploy", "--commit", "one", "--expect-dropped", "publc.legacy"])
        .code(2)
        .says("public.legacy");
    // As many rows, but other ones.
    app.sql("UPDATE archive.codes SET code = 'other ' || code");
    assert_one_failed(&app.fails(&flags).0, &["content of archive.codes", "0 of the 50 rows"]);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn a_rollback_keeps_new_rows_unless_they_may_go() {
    let app = PgApp::new("gate_new", "");
    app.sandbox.ok(&["predeploy"]);
    // There are fewer rows than before, and some of them are new.
    app.sql("DELETE FROM trades WHERE id > 300; INSERT INTO trades VALUES (1000, 1, now()), (1001, 1, now())");
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["new_rows"][0]["tables"], serde_json::json!([{"name": "public.trades", "rows": 2}]));
    assert_eq!(app.value("SELECT count(*) FROM trades"), "302");
    // The columns of another table have changed: only its numbers of rows are compared.
    app.sql("ALTER TABLE codes ADD COLUMN market text; INSERT INTO codes VALUES ('new', 'x')");
    let (_, document) = app.fails(&["postdeploy", "--rollback"]);
    assert_eq!(document["new_rows"][0]["tables"][1], serde_json::json!({"name": "public.codes", "rows": 1}));
    let (_, document) = app.fails(&["postdeploy", "--rollback", "--discard-new"]);
    assert_eq!(app.value("SELECT count(*) FROM trades"), "500", "{document:#}");
    app.sandbox.ok(&["postdeploy"]);
}

#[test]
#[ignore = "needs PostgreSQL 17"]
fn the_first_deploy_passes_with_an_empty_and_with_a_missing_database() {
    let app = PgApp::new("gate_first", "");
    app.sql("DROP TABLE codes; DROP TABLE trades");
    let run = app.sandbox.ok(&["predeploy"]);
    assert!(run.stdout().contains("first deploy: nothing to save yet"), "{}", run.transcript());
    app.server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", app.database.name));
    app.sandbox.ok(&["predeploy"]);
    app.sandbox.ok(&["snapshot", "--accept"]);
    assert!(!app.fails(&["postdeploy"]).0.is_empty());
    app.server.psql("postgres", format!("CREATE DATABASE \"{}\"", app.database.name));
    app.create_database();
    app.sandbox.ok(&["postdeploy"]);
    app.sandbox.ok(&["predeploy"]);
    app.sql("DROP TABLE codes; DROP TABLE trades");
    assert!(!app.fails(&["predeploy"]).0.is_empty());
}
