//! A folder with files to migrate, and a database to migrate them into.

use std::process::Command;

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::postgres::{TestDatabase, server};
use crate::support::{Run, Sandbox, open};

/// A folder and a database.
pub(crate) struct Migration {
    pub(crate) sandbox: Sandbox,
    pub(crate) target: TestDatabase,
    password: String,
}

impl Migration {
    pub(crate) fn new() -> Self {
        let server = server(15);
        let target = server.create_database("migrated");
        Migration { sandbox: Sandbox::new(), target, password: server.password.clone() }
    }

    /// Makes a file.
    pub(crate) fn file(&self, name: &str, sql: &str) -> Connection {
        let connection = open(self.sandbox.path(name));
        connection.execute_batch(sql).unwrap();
        connection
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(&["migrate"]);
        command.args(arguments).args(["--store", "store"]).env("PGPASSWORD", &self.password);
        command
    }

    pub(crate) fn migrate(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments))
    }

    /// Runs it with `--json`, requires this exit code, and reads the document.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.migrate(&arguments).code(code).json()
    }

    /// Plans files in the zone of Shanghai; the plan's text.
    #[track_caller]
    pub(crate) fn plan(&self, files: &[&str], more: &[&str]) -> String {
        let url = self.target.url();
        let mut arguments = vec!["plan"];
        arguments.extend(files);
        arguments.extend(["--to", &url, "--zone", "Asia/Shanghai"]);
        arguments.extend(more);
        self.migrate(&arguments).code(0);
        self.text()
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.sandbox.path("plan.toml")).unwrap()
    }

    /// Changes the plan as a person would.
    #[track_caller]
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "{from} is not in\n{text}");
        std::fs::write(self.sandbox.path("plan.toml"), text.replace(from, to)).unwrap();
    }

    /// The rows that were rejected: table, row number, reason.
    pub(crate) fn rejects(&self) -> Vec<String> {
        let query = "SELECT source || ' ' || coalesce(rowid::text, '-') || ' ' || reason FROM lifeboat_migrate.rejects ORDER BY 1";
        self.target.query(query).into_iter().flatten().collect()
    }

    /// A session of one's own in the target.
    pub(crate) fn session(&self) -> Session {
        let server = server(15);
        let url =
            format!("postgres://{}:{}@127.0.0.1:{}/{}", server.user, server.password, server.port, self.target.name);
        Session::connect(&Params::parse(&url).unwrap()).unwrap()
    }

    /// Whether a relation is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.target.value(&format!("SELECT to_regclass('{name}') IS NOT NULL")) == "t"
    }
}
