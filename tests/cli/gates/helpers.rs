//! An app with its database and its config.

use serde_json::Value;

use crate::support::{Run, Sandbox, open};

/// An app: `app/app.db` with 40 accounts and 200 balances, a config beside, a store in `backups`.
pub(crate) struct App {
    pub(crate) sandbox: Sandbox,
}

impl App {
    /// `more` is added to the config, behind the source's rules.
    pub(crate) fn new(more: &str) -> Self {
        let app = App { sandbox: Sandbox::new() };
        std::fs::create_dir(app.sandbox.path("app")).unwrap();
        app.fill();
        app.config(more);
        make_store(&app.sandbox);
        app
    }

    /// Writes the config.
    pub(crate) fn config(&self, more: &str) {
        let config = format!(
            "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app/app.db\"\n\
             [[source.rule]]\ntable = \"accounts\"\nmin_rows = 1\n{more}"
        );
        std::fs::write(self.sandbox.path("lifeboat.toml"), config).unwrap();
    }

    /// Makes the database.
    pub(crate) fn fill(&self) {
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

    /// What one value of the database is.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        open(self.sandbox.path("app/app.db")).query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Takes the database away, with its companions.
    pub(crate) fn remove(&self) {
        for name in ["app.db", "app.db-wal", "app.db-shm"] {
            let _ = std::fs::remove_file(self.sandbox.path("app").join(name));
        }
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.sandbox.ids()
    }

    /// A gate that lets through; its document.
    #[track_caller]
    pub(crate) fn passes(&self, arguments: &[&str]) -> Value {
        let document = self.sandbox.json(arguments);
        assert_eq!(document["ok"], true, "{document:#}");
        document
    }

    /// A gate that is closed: exit 3, and the names and messages of what failed.
    #[track_caller]
    pub(crate) fn closed(&self, arguments: &[&str]) -> (Vec<String>, Value) {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        let run = self.sandbox.run(&arguments).code(3);
        let document = run.json();
        assert_eq!(document["ok"], false, "{}", run.transcript());
        (failed(&document), document)
    }
}

/// The checks that failed, as `name: message`.
pub(crate) fn failed(document: &Value) -> Vec<String> {
    let checks = document["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
    let words = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
    checks.map(|check| format!("{}: {}", words(check, "name"), words(check, "message"))).collect()
}

/// Requires that exactly one check failed, and that it says all of this.
#[track_caller]
pub(crate) fn only(failed: &[String], parts: &[&str]) {
    assert_eq!(failed.len(), 1, "{failed:#?}");
    for part in parts {
        assert!(failed[0].contains(part), "'{part}' is not in {failed:#?}");
    }
}

/// Runs with variables in the environment.
pub(crate) fn with_env(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.command(arguments);
    command.envs(variables.iter().copied());
    sandbox.finish(command)
}

/// What `init` makes of a store that is not there yet.
pub(crate) fn make_store(sandbox: &Sandbox) {
    sandbox.ok(&["init"]);
}
