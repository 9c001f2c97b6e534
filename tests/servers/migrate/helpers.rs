//! Helpers for the tests in this folder.

use std::process::Command;

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::postgres::{TestDatabase, server};
use crate::support::{Run, Sandbox, open};

/// A sandbox with SQLite files, and a database to migrate them into.
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

    /// Creates an SQLite file.
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

    /// Runs `lifeboat migrate ARGUMENTS --json`, requires this exit code, and returns the document.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.migrate(&arguments).code(code).json()
    }

    /// Creates a plan for files in the time zone of Shanghai, and returns its text.
    #[track_caller]
    pub(crate) fn plan(&self, files: &[&str], more: &[&str]) -> String {
        let url = self.target.url();
        let mut arguments = vec!["plan"];
        arguments.extend(files);
        arguments.extend(["--to", &url, "--zone", "Asia/Shanghai"]);
        arguments.extend(more);
        self.migrate(&arguments).code(0);
        self.plan_text()
    }

    pub(crate) fn plan_text(&self) -> String {
        std::fs::read_to_string(self.sandbox.path("plan.toml")).unwrap()
    }

    /// Replaces a text in the plan.
    #[track_caller]
    pub(crate) fn edit_plan(&self, from: &str, to: &str) {
        let plan_text = self.plan_text();
        assert!(plan_text.contains(from), "{from} is not in\n{plan_text}");
        std::fs::write(self.sandbox.path("plan.toml"), plan_text.replace(from, to)).unwrap();
    }

    /// Returns the rejected rows, each as `TABLE ROW_NUMBER REASON`.
    pub(crate) fn rejects(&self) -> Vec<String> {
        let query = "SELECT source || ' ' || coalesce(rowid::text, '-') || ' ' || reason FROM lifeboat_migrate.rejects ORDER BY 1";
        self.target.query(query).into_iter().flatten().collect()
    }

    /// Creates a role that may use the schema `app` and do this with its tables, and nothing else. Returns the target's URL
    /// for it.
    pub(crate) fn role_with(&self, privileges: &str) -> String {
        let role = format!("loader_of_{}", self.target.name);
        let (database, password) = (&self.target.name, &self.password);
        self.target.psql(format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{password}'; GRANT CREATE ON DATABASE {database} TO {role};
             GRANT USAGE ON SCHEMA app TO {role}; GRANT {privileges} ON ALL TABLES IN SCHEMA app TO {role}"
        ));
        let (own, theirs) = (format!("//{}:", self.target.server.user), format!("//{role}:"));
        let url = self.target.url();
        assert!(url.contains(&own), "the URL does not name the user as {own}");
        url.replace(&own, &theirs)
    }

    /// Opens a session in the target.
    pub(crate) fn session(&self) -> Session {
        let server = server(15);
        let url =
            format!("postgres://{}:{}@127.0.0.1:{}/{}", server.user, server.password, server.port, self.target.name);
        Session::connect(&Params::parse(&url).unwrap()).unwrap()
    }

    /// Returns true if a relation exists in the target.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.target.value(&format!("SELECT to_regclass('{name}') IS NOT NULL")) == "t"
    }
}
