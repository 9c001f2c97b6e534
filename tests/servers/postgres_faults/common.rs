//! Helpers for the tests in this folder: a store and a server, the targets of every kind of restore, and comparisons
//! that show that nothing was changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;
use serde_json::Value;

use crate::support::postgres::{Server, TestDatabase, schema_differences};
use crate::support::{Run, Running, Sandbox};

/// The longest time that a test waits for a condition.
pub const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// A sandbox with a store, and a server. The output of every run is searched for passwords.
pub struct Setup {
    pub sandbox: Sandbox,
    pub server: Server,
    /// The host name of this test. Tests share a server, and a run removes the scratch databases of its own host only.
    pub host: String,
}

impl Setup {
    pub fn new(server: &Server) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let host = format!("machine-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        Setup { sandbox: Sandbox::new(), server: server.clone(), host }
    }

    /// Adds the store, unless the arguments name one, and the host.
    fn full_arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = arguments.to_vec();
        if !arguments.contains(&"--store") {
            arguments.extend(["--store", "backups"]);
        }
        arguments.extend(["--host", &self.host]);
        arguments
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.require_no_secrets(self.sandbox.run(&self.full_arguments(arguments)))
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).code(0)
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.ok(&[arguments, &["--json"]].concat()).json()
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        self.sandbox.start(&self.full_arguments(arguments))
    }

    #[track_caller]
    pub fn finish(&self, running: Running) -> Run {
        self.require_no_secrets(running.finish())
    }

    #[track_caller]
    fn require_no_secrets(&self, run: Run) -> Run {
        let output = format!("{}{}", run.stdout(), run.stderr());
        let has_secret = [self.server.password.as_str(), SECRET].iter().any(|secret| output.contains(secret));
        assert!(!has_secret, "the output contains a password\n{}", run.transcript());
        run
    }

    /// Requires that a command fails with this exit code, with an error, a hint and these words on stderr, and with a
    /// message in the JSON document.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str], words: &[&str]) -> Run {
        let run = self.run(arguments).code(code);
        require_error(&run, words);
        let verbose = self.run(&[arguments, &["-vv", "--json"]].concat()).code(code);
        let document = verbose.json();
        let has_message = document["error"]["message"].is_string() || document["problems"][0]["message"].is_string();
        assert!(has_message || code == 3, "the document has no message\n{}", verbose.transcript());
        run
    }

    /// Takes a snapshot and returns its id.
    #[track_caller]
    pub fn snapshot(&self, url: &str) -> String {
        let document = self.json(&["snapshot", url]);
        document["snapshots"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Returns the ids that `list` shows, without safety snapshots.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        let document = self.json(&["list"]);
        let snapshots = document["snapshots"].as_array().unwrap();
        let ordinary = snapshots.iter().filter(|snapshot| snapshot["kind"] != "safety");
        ordinary.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Requires that `list` shows exactly these snapshots, that all of them are undamaged, and that no partial upload
    /// is left.
    #[track_caller]
    pub fn require_store(&self, ids: &[String]) {
        assert_eq!(self.ids(), ids);
        if !ids.is_empty() {
            self.ok(&["verify", "--all"]);
        }
        let state = self.sandbox.state();
        let partial: Vec<_> = state.keys().filter(|path| path.to_string_lossy().contains(".upload-")).collect();
        assert!(partial.is_empty(), "partial uploads are left: {partial:?}");
    }

    /// Creates a database of accounts with dependent objects, and with this many megabytes, which make a run slower.
    #[track_caller]
    pub fn bank(&self, name: &str, megabytes: u32) -> TestDatabase {
        let database = self.server.create_database(name);
        fill_bank(&database, megabytes);
        database
    }

    /// Returns the names and marks of the scratch databases that runs of this test have left on the server.
    #[track_caller]
    pub fn leftovers(&self) -> Vec<Vec<String>> {
        self.server.query(
            "postgres",
            &format!(
                "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
                  WHERE shobj_description(oid, 'pg_database') LIKE 'lifeboat: not finished %\"host\":\"{}\"%'",
                self.host
            ),
        )
    }
}

/// Requires an error, a hint and these words on stderr.
#[track_caller]
pub fn require_error(run: &Run, words: &[&str]) {
    let stderr = run.stderr();
    assert!(stderr.lines().any(|line| line.starts_with("error: ")), "stderr has no error\n{}", run.transcript());
    assert!(stderr.lines().any(|line| line.starts_with("hint: ")), "stderr has no hint\n{}", run.transcript());
    for words in words {
        assert!(stderr.contains(words), "stderr lacks '{words}'\n{}", run.transcript());
    }
    assert!(!stderr.contains("panicked"), "{}", run.transcript());
}

pub fn fill_bank(database: &TestDatabase, megabytes: u32) {
    database.psql(
        "CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE TABLE accounts (id integer PRIMARY KEY, name text NOT NULL, amount integer NOT NULL, mood mood);
         CREATE TABLE log (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                           account integer NOT NULL REFERENCES accounts, note text);
         CREATE INDEX ON log (account);
         CREATE TABLE events (at date NOT NULL, body jsonb) PARTITION BY RANGE (at);
         CREATE TABLE events_old PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
         CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
         CREATE SEQUENCE tickets;
         CREATE VIEW totals AS SELECT mood, sum(amount) AS amount FROM accounts GROUP BY mood;
         CREATE FUNCTION forbid() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN IF new.amount < 0 THEN RAISE 'no credit'; END IF; RETURN new; END$$;
         CREATE TRIGGER forbid BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION forbid();
         INSERT INTO accounts SELECT g, 'account ' || g, g * 10, 'good' FROM generate_series(1, 200) g;
         INSERT INTO log (account, note) SELECT 1 + g % 200, 'note ' || g FROM generate_series(1, 3000) g;
         INSERT INTO events SELECT date '2025-07-01' + g % 365, jsonb_build_object('n', g) FROM generate_series(1, 900) g;
         SELECT nextval('tickets') FROM generate_series(1, 7);",
    );
    if megabytes > 0 {
        // These rows make saving and restoring slower, but need almost no space, because they compress well.
        database.psql(format!(
            "CREATE TABLE heavy (id integer PRIMARY KEY, body text);
             INSERT INTO heavy SELECT g, repeat(md5(g::text), 32768) FROM generate_series(1, {megabytes}) g;"
        ));
    }
}

/// Returns the definitions of a database, and for each table the number of rows and a hash. It is equal to an earlier
/// result if nothing has changed.
#[track_caller]
pub fn content(server: &Server, database: &str) -> BTreeMap<String, String> {
    let mut content = BTreeMap::new();
    content.insert("schema".to_owned(), server.schema_dump(database));
    let rows = server.psql(
        database,
        // For a sequence, the next value is compared, because last_value and is_called can express it in two ways.
        "\\pset format unaligned\n\\pset tuples_only on\n
         SELECT format('SELECT json_build_array(%L::text, (%s))',
                CASE relkind WHEN 'S' THEN 'sequence ' ELSE '' END || nspname || '.' || relname,
                CASE relkind
                WHEN 'S' THEN format('SELECT last_value + is_called::int FROM %I.%I', nspname, relname)
                ELSE format('SELECT concat(count(*), '' '', sum(hashtextextended(t::text, 0)::numeric)) FROM ONLY %I.%I t',
                            nspname, relname) END)
           FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
          WHERE relkind IN ('r', 'S') AND nspname !~ '^(pg_|information_schema)' \\gexec\n",
    );
    for row in rows.lines() {
        let row: (String, Value) = serde_json::from_str(row).unwrap_or_else(|error| panic!("{error}: {row}"));
        content.insert(row.0, row.1.to_string());
    }
    content
}

/// Removes the sequences, because a server that crashes skips some of their values.
pub fn without_sequences(content: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = content.iter().filter(|(name, _)| !name.starts_with("sequence "));
    others.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Requires that two databases have the same content. The failure message shows the differences.
#[track_caller]
pub fn require_same(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let mut differences = String::new();
    for name in expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name))) {
        if found.get(name) != expected.get(name) && name == "schema" {
            differences += &schema_differences(&expected[name], &found[name]).to_string();
        } else if found.get(name) != expected.get(name) {
            differences += &format!("{name}: {:?} instead of {:?}\n", found.get(name), expected.get(name));
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// The kinds of restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Create,
    Empty,
    Replace,
    Swap,
    Beside,
    Tables,
}

pub const MODES: [Mode; 6] = [Mode::Create, Mode::Empty, Mode::Replace, Mode::Swap, Mode::Beside, Mode::Tables];

/// A database for a restore of one mode. Unless it is new or empty, it is a changed copy of the saved database.
pub struct Target {
    pub mode: Mode,
    pub database: TestDatabase,
}

/// The content and the comment of a target, or `None` if the database does not exist.
pub type State = Option<(BTreeMap<String, String>, String)>;

impl Target {
    #[track_caller]
    pub fn new(mode: Mode, source: &TestDatabase) -> Self {
        let server = &source.server;
        let name = format!("target_{mode:?}");
        let database = match mode {
            Mode::Create => server.reserve_database(&name),
            Mode::Empty => server.create_database(&name),
            _ => {
                let database = server.reserve_database(&name);
                copy_database(source, &database.name);
                database.psql(
                    "UPDATE accounts SET amount = 1; DELETE FROM log WHERE id % 3 = 0; SELECT nextval('tickets');
                     INSERT INTO events VALUES ('2026-05-05', '{\"new\": true}');",
                );
                if mode == Mode::Tables {
                    database.psql("DROP TABLE log");
                }
                database
            }
        };
        if mode != Mode::Create {
            let name = &database.name;
            server.psql("postgres", format!("COMMENT ON DATABASE \"{name}\" IS 'as it was'"));
        }
        Target { mode, database }
    }

    /// Returns the arguments of a restore to this target. `url` may lead through a proxy.
    pub fn arguments<'a>(&self, id: &'a str, url: &'a str) -> Vec<&'a str> {
        let mut arguments = vec!["restore", id, "--to", url, "--yes"];
        match self.mode {
            Mode::Create => arguments.push("--create"),
            Mode::Empty => {}
            Mode::Replace => arguments.push("--replace"),
            Mode::Swap => arguments.push("--swap"),
            Mode::Beside => arguments.extend(["--beside", "back"]),
            Mode::Tables => arguments.extend(["--table", "public.log"]),
        }
        arguments
    }

    #[track_caller]
    pub fn state(&self) -> State {
        let (server, name) = (&self.database.server, &self.database.name);
        let found = server.query(
            "postgres",
            &format!(
                "SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = '{name}'"
            ),
        );
        found.first().map(|row| (content(server, name), row[0].clone()))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // A swap keeps the old database under another name, which is dropped here.
        let (server, name) = (&self.database.server, &self.database.name);
        if self.mode != Mode::Swap || std::thread::panicking() {
            return;
        }
        let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{}_before_')", truncated(name));
        for row in server.query("postgres", &sql) {
            server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", row[0]));
        }
    }
}

fn truncated(name: &str) -> &str {
    &name[..name.len().min(38)]
}

/// Copies a database under another name. PostgreSQL waits until other sessions have left the database.
#[track_caller]
pub fn copy_database(source: &TestDatabase, name: &str) {
    source.server.psql("postgres", format!("CREATE DATABASE \"{name}\" TEMPLATE \"{}\"", source.name));
}

/// Opens a session of another application.
#[track_caller]
pub fn session(server: &Server, database: &str, application: &str) -> Session {
    let url = format!("{}?application_name={application}", server.socket_url(database));
    Session::connect(&Params::parse(&url).unwrap()).unwrap_or_else(|error| panic!("{}", error.full_message()))
}

/// A session that checks conditions on the server.
pub struct Watcher(Session);

impl Watcher {
    #[track_caller]
    pub fn new(server: &Server) -> Self {
        Watcher(session(server, "postgres", "watcher"))
    }

    /// Returns true if a condition holds now.
    #[track_caller]
    pub fn holds(&mut self, condition: &str) -> bool {
        let row = self.0.row(&format!("SELECT ({condition}) AS holds"));
        row.unwrap_or_else(|error| panic!("{}\n{condition}", error.full_message())).flag("holds").unwrap()
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub fn wait_until(&mut self, condition: &str) {
        let start = Instant::now();
        while !self.holds(condition) {
            assert!(start.elapsed() < WAIT_LIMIT, "this did not become true: {condition}");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Waits until a condition holds while a command runs. Returns false if the command ends before that.
    #[track_caller]
    pub fn wait_until_or_end(&mut self, condition: &str, running: &mut Running) -> bool {
        let start = Instant::now();
        while !self.holds(condition) {
            assert!(start.elapsed() < WAIT_LIMIT, "this did not become true: {condition}");
            if running.has_ended() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        true
    }

    /// Waits until the program has no session in databases whose names begin with `database`.
    #[track_caller]
    pub fn wait_until_disconnected(&mut self, database: &str) {
        self.wait_until(&format!(
            "SELECT count(*) = 0 FROM pg_stat_activity
              WHERE application_name = 'lifeboat' AND starts_with(datname, '{database}')"
        ));
    }
}

/// Returns an SQL condition: at least this many sessions of the program copy rows in databases whose names begin with
/// `database`.
pub fn copying_condition(database: &str, sessions: u32) -> String {
    format!(
        "SELECT count(*) >= {sessions} FROM pg_stat_activity WHERE application_name = 'lifeboat' AND state = 'active'
            AND query LIKE 'COPY %' AND starts_with(datname, '{database}')"
    )
}

/// A new role, which is dropped at the end with everything that it owns in these databases.
pub struct Role {
    pub server: Server,
    pub name: String,
    databases: Vec<String>,
}

/// The password of these roles.
pub const SECRET: &str = "gr8-s3cret-0f-mine";

impl Role {
    #[track_caller]
    pub fn new(server: &Server, name: &str, databases: &[&TestDatabase]) -> Self {
        let name = format!("{name}_{}", std::process::id());
        server.psql("postgres", format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{SECRET}'"));
        let databases = databases.iter().map(|database| database.name.clone()).collect();
        Role { server: server.clone(), name, databases }
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{}:{SECRET}@127.0.0.1:{}/{database}", self.name, self.server.port)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for database in &self.databases {
            self.server.psql(database, format!("DROP OWNED BY \"{}\"", self.name));
        }
        self.server.psql("postgres", format!("DROP OWNED BY \"{0}\"; DROP ROLE \"{0}\"", self.name));
    }
}
