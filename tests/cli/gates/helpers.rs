//! A sample app with a database and a config, and functions that run the gates on it.

use serde_json::Value;

use crate::support::{Run, Sandbox, open};

/// An app in a sandbox: `app/app.db` with 40 accounts and 200 balances, a config, and a store in `backups`.
pub(crate) struct App {
    pub(crate) sandbox: Sandbox,
}

impl App {
    /// Creates the app. `more` is added to the config after the rules of the source.
    pub(crate) fn new(more: &str) -> Self {
        let app = App { sandbox: Sandbox::new() };
        std::fs::create_dir(app.sandbox.path("app")).unwrap();
        app.create_database();
        app.write_config(more);
        create_store(&app.sandbox);
        app
    }

    /// Writes the config, with `more` after the rules of the source.
    pub(crate) fn write_config(&self, more: &str) {
        let config = format!(
            "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app/app.db\"\n\
             [[source.rule]]\ntable = \"accounts\"\nmin_rows = 1\n{more}"
        );
        std::fs::write(self.sandbox.path("lifeboat.toml"), config).unwrap();
    }

    /// Creates the database and fills it.
    pub(crate) fn create_database(&self) {
        open(self.sandbox.path("app/app.db"))
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE balances (id INTEGER PRIMARY KEY, account INTEGER, amount REAL, created_at TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
                 INSERT INTO accounts SELECT i, 'account ' || i FROM n;
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                 INSERT INTO balances SELECT i, i % 40 + 1, i * 1.5, datetime('now') FROM n;",
            )
            .unwrap();
    }

    /// Runs SQL on the database.
    pub(crate) fn sql(&self, sql: &str) {
        open(self.sandbox.path("app/app.db")).execute_batch(sql).unwrap();
    }

    /// Returns the integer that a query of the database returns.
    pub(crate) fn integer(&self, sql: &str) -> i64 {
        open(self.sandbox.path("app/app.db")).query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Removes the database with its WAL and its shared memory file.
    pub(crate) fn remove_database(&self) {
        for name in ["app.db", "app.db-wal", "app.db-shm"] {
            let _ = std::fs::remove_file(self.sandbox.path("app").join(name));
        }
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.sandbox.ids()
    }

    /// Runs a gate or a check that must pass, and returns its document.
    #[track_caller]
    pub(crate) fn passes(&self, arguments: &[&str]) -> Value {
        let document = self.sandbox.json(arguments);
        assert_eq!(document["ok"], true, "{document:#}");
        document
    }

    /// Runs a gate or a check that must fail with exit code 3. Returns the failed checks and the document.
    #[track_caller]
    pub(crate) fn fails(&self, arguments: &[&str]) -> (Vec<String>, Value) {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let run = self.sandbox.run(&arguments).code(3);
        let document = run.json();
        assert_eq!(document["ok"], false, "{}", run.transcript());
        (failed_checks(&document), document)
    }
}

/// Returns the checks that failed, each as `name: message`.
pub(crate) fn failed_checks(document: &Value) -> Vec<String> {
    let checks = document["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
    let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
    checks.map(|check| format!("{}: {}", text(check, "name"), text(check, "message"))).collect()
}

/// Requires that exactly one check has failed, and that its name and message contain all these parts.
#[track_caller]
pub(crate) fn assert_one_failed(failed: &[String], parts: &[&str]) {
    assert_eq!(failed.len(), 1, "{failed:#?}");
    for part in parts {
        assert!(failed[0].contains(part), "'{part}' is not in {failed:#?}");
    }
}

/// Runs the program with these environment variables.
pub(crate) fn run_with_env(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.command(arguments);
    command.envs(variables.iter().copied());
    sandbox.finish(command)
}

/// Creates the stores of the config that do not exist yet.
pub(crate) fn create_store(sandbox: &Sandbox) {
    sandbox.ok(&["init"]);
}
