//! The gates with an app whose database is in PostgreSQL.

use super::helpers::{assert_one_failed, failed_checks};
use crate::support::Sandbox;
use crate::support::postgres::{Server, TestDatabase, server};

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
    app.sandbox.ok(&["predeploy"]);
    let env = std::fs::read_to_string(app.sandbox.path(".env")).unwrap();
    let env = env.replace(&format!("TDX_DB_PORT={}", app.server.port), "TDX_DB_PORT=1");
    std::fs::write(app.sandbox.path(".env"), env).unwrap();
    let (lines, _) = app.fails(&["predeploy"]);
    assert_one_failed(&lines, &["app: database"]);
    assert_eq!(app.sandbox.ids().len(), 1);
}
