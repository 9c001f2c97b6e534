//! Helpers for the tests in this folder.

use std::path::Path;
use std::process::{Command, Output};

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;
use serde_json::Value;

use crate::support::compare::data;
use crate::support::postgres::{Server, TestDatabase};
use crate::support::{LIFEBOAT, Run, Sandbox};

/// A sandbox for the program, and a server whose password is in the program's environment.
pub(crate) struct Setup {
    pub(crate) sandbox: Sandbox,
    pub(crate) server: Server,
}

impl Setup {
    pub(crate) fn new(server: &Server) -> Self {
        Setup { sandbox: Sandbox::new(), server: server.clone() }
    }

    /// Returns the command `lifeboat ARGUMENTS --store backups`, which is not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        command.args(["--store", "backups"]).env("PGPASSWORD", &self.server.password);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments))
    }

    /// Runs `lifeboat ARGUMENTS` and requires exit code 0.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).code(0)
    }

    /// Runs `lifeboat ARGUMENTS --json`, requires exit code 0, and returns the document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.ok(&arguments).json()
    }

    /// Takes a snapshot and returns its id.
    #[track_caller]
    pub(crate) fn snapshot(&self, source: &TestDatabase, more: &[&str]) -> String {
        let url = source.url();
        let mut arguments = vec!["snapshot", &url];
        arguments.extend(more);
        text(&self.json(&arguments)["snapshots"][0]["id"])
    }

    /// Restores a snapshot as a new database, which is dropped at the end.
    #[track_caller]
    pub(crate) fn restore_new(&self, id: &str, more: &[&str]) -> TestDatabase {
        let new = self.server.reserve_database("restored");
        let url = new.url();
        let mut arguments = vec!["restore", id, "--to", &url, "--create"];
        arguments.extend(more);
        self.ok(&arguments);
        new
    }

    /// Runs a command that the program has printed, as a person would paste it.
    #[track_caller]
    pub(crate) fn paste(&self, command: &str) -> Output {
        let folders = [Path::new(LIFEBOAT).parent().unwrap(), self.server.psql.parent().unwrap()];
        let path = folders.map(|folder| folder.to_str().unwrap()).join(":");
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(self.sandbox.root())
            .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()))
            .env("PGPASSWORD", &self.server.password)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "$ {command}\n{}\n-- stdout\n{}-- stderr\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Undoes a swap as a person would, with the command that its report names. Returns the database that was swapped in,
    /// which has the name again under which it was built.
    #[track_caller]
    pub(crate) fn undo_swap(&self, report: &Value) -> TestDatabase {
        let undo = text(&report["undo"]);
        self.paste(&undo);
        let name = undo.split("RENAME TO ").nth(1).unwrap().split(';').next().unwrap();
        TestDatabase { server: self.server.clone(), name: name.to_owned() }
    }

    /// Returns the names of the databases for which an SQL condition on `pg_database` is true.
    pub(crate) fn databases_where(&self, condition: &str) -> Vec<String> {
        let rows = self.server.query("postgres", &format!("SELECT datname FROM pg_database d WHERE {condition}"));
        rows.into_iter().map(|mut row| row.remove(0)).collect()
    }
}

/// Returns the string in a JSON value.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

/// Waits until a condition is true that depends on another process. `description` names it in the failure message.
#[track_caller]
pub(crate) fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "not true within a minute: {description}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Opens a session in a database, as another program would do.
pub(crate) fn connect(database: &TestDatabase) -> Session {
    Session::connect(&Params::parse(&database.url()).unwrap()).unwrap()
}

/// Creates the database of a small shop: keys between tables, sequences, triggers, views, grants, comments, an enum.
pub(crate) fn shop(server: &Server, name: &str) -> TestDatabase {
    crate::support::samples::create_roles(server);
    let database = server.create_database(name);
    database.psql(SHOP);
    database
}

const SHOP: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE, mood mood DEFAULT 'ok', born date, note text,
    initial text GENERATED ALWAYS AS (substr(name, 1, 1)) STORED);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id integer NOT NULL REFERENCES users ON DELETE CASCADE DEFERRABLE, total numeric(10, 2), at timestamptz DEFAULT '2026-01-01 00:00+00');
CREATE INDEX orders_by_user ON orders (user_id, at DESC) WHERE total > 0;
CREATE TABLE log (at timestamptz DEFAULT '2026-01-01 00:00+00', what text);
CREATE TABLE \"Odd \"\"name\"\"\" (\"a b\" integer, \"c.d\" text);
CREATE VIEW totals AS SELECT user_id, sum(total) AS total FROM orders GROUP BY user_id;
CREATE MATERIALIZED VIEW names AS SELECT id, upper(name) AS name FROM users;
CREATE MATERIALIZED VIEW name_lengths AS SELECT id, length(name) AS letters FROM names;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
    INSERT INTO public.log (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME || ' ' || TG_NAME); RETURN NULL; END$$;
CREATE TRIGGER on_row AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER on_truncate AFTER TRUNCATE ON users FOR EACH STATEMENT EXECUTE FUNCTION note();
CREATE TRIGGER is_off AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER always AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER on_replica AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note();
INSERT INTO users (name, born) SELECT 'user ' || g, date '2000-01-01' + g FROM generate_series(1, 20) AS g;
INSERT INTO orders (user_id, total) SELECT g % 20 + 1, g / 3.0 FROM generate_series(1, 200) AS g;
INSERT INTO \"Odd \"\"name\"\"\" VALUES (1, 'one'), (2, E'tab\\tand\\nline');
ALTER TABLE users DISABLE TRIGGER is_off;
ALTER TABLE users ENABLE ALWAYS TRIGGER always;
ALTER TABLE users ENABLE REPLICA TRIGGER on_replica;
TRUNCATE log;
GRANT SELECT ON users TO lifeboat_reader;
GRANT UPDATE (note) ON users TO lifeboat_writer WITH GRANT OPTION;
GRANT SELECT ON totals TO lifeboat_reader;
COMMENT ON TABLE users IS 'who they are';
COMMENT ON COLUMN users.born IS 'a day';
COMMENT ON CONSTRAINT orders_user_id_fkey ON orders IS 'whose';
COMMENT ON TRIGGER on_row ON users IS 'tells';
REFRESH MATERIALIZED VIEW names;
REFRESH MATERIALIZED VIEW name_lengths;
";

/// Returns what must not change while rows are replaced: the definitions, and the oids of tables, views and indexes.
#[track_caller]
pub(crate) fn definitions_and_oids(database: &TestDatabase) -> (String, Vec<Vec<String>>) {
    let oids = database.query(
        "SELECT c.oid, c.relname, c.relkind, c.relacl FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1",
    );
    (database.schema_dump(), oids)
}

/// Returns the rows of a query, each as one line.
#[track_caller]
pub(crate) fn rows(database: &TestDatabase, query: &str) -> Vec<String> {
    database.query(query).into_iter().map(|row| row.join("|")).collect()
}

/// Runs a command that must fail with this exit code and these words on stderr. Requires that the database and the list
/// of snapshots have not changed.
#[track_caller]
pub(crate) fn require_refused(setup: &Setup, database: &TestDatabase, arguments: &[&str], code: i32, words: &[&str]) {
    let before = (definitions_and_oids(database), data(database), setup.sandbox.ids());
    let run = setup.run(arguments).code(code);
    for word in words {
        assert!(run.stderr().contains(word), "stderr lacks '{word}'\n{}", run.transcript());
    }
    assert_eq!((definitions_and_oids(database), data(database), setup.sandbox.ids()), before, "{}", run.transcript());
}
