//! A folder, a server, databases in all that a restore may meet, and what it means that nothing was changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;
use serde_json::Value;

use crate::support::postgres::{Server, TestDatabase, schema_differences};
use crate::support::{Run, Running, Sandbox};

/// After that a test has hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a store, and a server; every run is looked through for the server's password.
pub struct Scene {
    pub sandbox: Sandbox,
    pub server: Server,
    /// This test's own name for the machine: others share the server, and clear up after their own runs only.
    pub host: String,
}

impl Scene {
    pub fn new(server: &Server) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let host = format!("machine-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        Scene { sandbox: Sandbox::new(), server: server.clone(), host }
    }

    fn whole<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut whole = arguments.to_vec();
        // One that names its own store comes with it.
        if !arguments.contains(&"--store") {
            whole.extend(["--store", "backups"]);
        }
        whole.extend(["--host", &self.host]);
        whole
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.without_secrets(self.sandbox.run(&self.whole(arguments)))
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
        self.sandbox.start(&self.whole(arguments))
    }

    #[track_caller]
    pub fn finish(&self, running: Running) -> Run {
        self.without_secrets(running.finish())
    }

    #[track_caller]
    fn without_secrets(&self, run: Run) -> Run {
        let told = format!("{}{}", run.stdout(), run.stderr());
        let is_told = [self.server.password.as_str(), SECRET].iter().any(|secret| told.contains(secret));
        assert!(!is_told, "the password is told\n{}", run.transcript());
        run
    }

    /// Requires that it fails so, in words on stderr with a hint, and in a document; whatever is said of it.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str], words: &[&str]) -> Run {
        let run = self.run(arguments).code(code);
        require_told(&run, words);
        let talking = self.run(&[arguments, &["-vv", "--json"]].concat()).code(code);
        let document = talking.json();
        let told = document["error"]["message"].is_string() || document["problems"][0]["message"].is_string();
        assert!(told || code == 3, "the document does not tell\n{}", talking.transcript());
        run
    }

    /// Takes a snapshot; its id.
    #[track_caller]
    pub fn snapshot(&self, url: &str) -> String {
        let document = self.json(&["snapshot", url]);
        document["snapshots"][0]["id"].as_str().unwrap().to_owned()
    }

    /// The ids that `list` shows, safety snapshots aside.
    #[track_caller]
    pub fn ids(&self) -> Vec<String> {
        let document = self.json(&["list"]);
        let snapshots = document["snapshots"].as_array().unwrap();
        let made = snapshots.iter().filter(|snapshot| snapshot["kind"] != "safety");
        made.map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Requires that `list` shows these, that all of them are whole, and that nothing else lies about.
    #[track_caller]
    pub fn require_store(&self, ids: &[String]) {
        assert_eq!(self.ids(), ids);
        if !ids.is_empty() {
            self.ok(&["verify", "--all"]);
        }
        let state = self.sandbox.state();
        let half: Vec<_> = state.keys().filter(|path| path.to_string_lossy().contains(".upload-")).collect();
        assert!(half.is_empty(), "half uploads are left: {half:?}");
    }

    /// A database of accounts, and what hangs on them; with so many megabytes that take their time.
    #[track_caller]
    pub fn bank(&self, name: &str, megabytes: u32) -> TestDatabase {
        let database = self.server.create_database(name);
        fill_bank(&database, megabytes);
        database
    }

    /// The scratch databases that are left on the server by this scene's runs: name and mark.
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

/// Requires an error in words, with a hint.
#[track_caller]
pub fn require_told(run: &Run, words: &[&str]) {
    let stderr = run.stderr();
    assert!(stderr.lines().any(|line| line.starts_with("error: ")), "no error is told\n{}", run.transcript());
    assert!(stderr.lines().any(|line| line.starts_with("hint: ")), "no hint is given\n{}", run.transcript());
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
        // Takes the server, the way and the archive their time, and next to no disk.
        database.psql(format!(
            "CREATE TABLE heavy (id integer PRIMARY KEY, body text);
             INSERT INTO heavy SELECT g, repeat(md5(g::text), 32768) FROM generate_series(1, {megabytes}) g;"
        ));
    }
}

/// The definitions and the rows of a database: equal where nothing has changed.
#[track_caller]
pub fn content(server: &Server, database: &str) -> BTreeMap<String, String> {
    let mut content = BTreeMap::new();
    content.insert("schema".to_owned(), server.schema_dump(database));
    let rows = server.psql(
        database,
        // Of a sequence the next value counts: there are two ways to say where it stands.
        "\\pset format unaligned\n\\pset tuples_only on\n
         SELECT format('SELECT json_build_array(%L::text, (%s))', CASE relkind WHEN 'S' THEN 'sequence ' ELSE '' END || relname,
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

/// The same without sequences: where a server crashes it leaves some values of them out.
pub fn without_sequences(content: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let kept = content.iter().filter(|(name, _)| !name.starts_with("sequence "));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Requires that two databases hold the same; says what differs.
#[track_caller]
pub fn require_same(found: &BTreeMap<String, String>, expected: &BTreeMap<String, String>) {
    let mut told = String::new();
    for name in expected.keys().chain(found.keys().filter(|name| !expected.contains_key(*name))) {
        if found.get(name) != expected.get(name) && name == "schema" {
            told += &schema_differences(&expected[name], &found[name]).to_string();
        } else if found.get(name) != expected.get(name) {
            told += &format!("{name}: {:?} instead of {:?}\n", found.get(name), expected.get(name));
        }
    }
    assert!(told.is_empty(), "{told}");
}

/// How a restore may be asked for.
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

/// A database for a restore of one mode, made from the one that was saved and changed since.
pub struct Target {
    pub mode: Mode,
    pub database: TestDatabase,
}

/// What is there of a target: its content and its comment; None where there is no such database.
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

    /// The arguments of the restore, with another way to the server.
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
        // What an exchange keeps, under another name.
        let (server, name) = (&self.database.server, &self.database.name);
        if self.mode != Mode::Swap || std::thread::panicking() {
            return;
        }
        let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{}_before_')", cut(name));
        for row in server.query("postgres", &sql) {
            server.psql("postgres", format!("DROP DATABASE \"{}\" WITH (FORCE)", row[0]));
        }
    }
}

fn cut(name: &str) -> &str {
    &name[..name.len().min(38)]
}

/// A copy of a database under another name; who is in it is waited for.
#[track_caller]
pub fn copy_database(source: &TestDatabase, name: &str) {
    source.server.psql("postgres", format!("CREATE DATABASE \"{name}\" TEMPLATE \"{}\"", source.name));
}

/// A session of somebody else's.
#[track_caller]
pub fn session(server: &Server, database: &str, application: &str) -> Session {
    let url = format!("{}?application_name={application}", server.socket_url(database));
    Session::connect(&Params::parse(&url).unwrap()).unwrap_or_else(|error| panic!("{}", error.whole()))
}

/// Looks at the server again and again.
pub struct Watcher(Session);

impl Watcher {
    #[track_caller]
    pub fn new(server: &Server) -> Self {
        Watcher(session(server, "postgres", "watcher"))
    }

    /// Whether a condition holds now.
    #[track_caller]
    pub fn holds(&mut self, condition: &str) -> bool {
        let row = self.0.row(&format!("SELECT ({condition}) AS holds"));
        row.unwrap_or_else(|error| panic!("{}\n{condition}", error.whole())).flag("holds").unwrap()
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub fn until(&mut self, condition: &str) {
        let clock = Instant::now();
        while !self.holds(condition) {
            assert!(clock.elapsed() < PATIENCE, "this does not come true: {condition}");
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Waits until a condition holds while a run goes on; false where it ended before.
    #[track_caller]
    pub fn until_or_end(&mut self, condition: &str, running: &mut Running) -> bool {
        let clock = Instant::now();
        while !self.holds(condition) {
            assert!(clock.elapsed() < PATIENCE, "this does not come true: {condition}");
            if running.has_ended() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        true
    }

    /// Waits until no run of the program is in a database whose name begins so.
    #[track_caller]
    pub fn until_left(&mut self, database: &str) {
        self.until(&format!(
            "SELECT count(*) = 0 FROM pg_stat_activity
              WHERE application_name = 'lifeboat' AND starts_with(datname, '{database}')"
        ));
    }
}

/// A condition: so many sessions of the program copy rows in a database whose name begins so.
pub fn copying(database: &str, sessions: u32) -> String {
    format!(
        "SELECT count(*) >= {sessions} FROM pg_stat_activity WHERE application_name = 'lifeboat' AND state = 'active'
            AND query LIKE 'COPY %' AND starts_with(datname, '{database}')"
    )
}

/// A role of one's own, gone at the end with all that it owns in the databases named.
pub struct Role {
    pub server: Server,
    pub name: String,
    databases: Vec<String>,
}

/// The password of such roles.
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
