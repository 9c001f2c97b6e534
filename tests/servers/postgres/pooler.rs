//! Connections through PgBouncer. In transaction and in statement mode, the settings of one client would reach others.

use std::cell::Cell;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, Command, Stdio};

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::{Session, open_up_to};

use super::helpers::{Setup, rows, text, wait_until};
use crate::support::postgres::{Server, TestDatabase, TestRole, server};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::{have, program_path};

/// A running PgBouncer, which is stopped when it is dropped.
struct Pooler {
    child: Child,
    port: u16,
    role: String,
}

impl Pooler {
    /// Starts a pooler in front of all databases of a server, for one role, with this number of connections for each.
    fn start(setup: &Setup, role: &str, mode: &str, size: u32) -> Self {
        Self::start_with(setup, role, mode, size, "")
    }

    /// Starts a pooler with one more line in its configuration.
    fn start_with(setup: &Setup, role: &str, mode: &str, size: u32, line: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = setup.sandbox.path(format!("pooler-{mode}-{size}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(setup.sandbox.root(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (config, roles) = (folder.join("pooler.ini"), folder.join("roles.txt"));
        std::fs::write(&roles, format!("\"{role}\" \"\"\n")).unwrap();
        let Server { socket_dir, port: server_port, .. } = &setup.server;
        let text = format!(
            "[databases]\n* = host={} port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             auth_type = trust\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {size}\nserver_round_robin = 1\n\
             ignore_startup_parameters = options\nunix_socket_dir =\n{line}\n",
            socket_dir.display(),
            roles.display(),
        );
        std::fs::write(&config, text).unwrap();
        for file in [&config, &roles] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
        let program = program_path("pgbouncer").unwrap();
        let mut command = Command::new(&program);
        if rustix::process::geteuid().is_root() {
            // PgBouncer refuses to run as root, and only the owner of the server may use its socket.
            let owner = std::fs::metadata(&setup.server.data).unwrap();
            command = Command::new("setpriv");
            command.args([&format!("--reuid={}", owner.uid()), &format!("--regid={}", owner.gid()), "--clear-groups"]);
            command.arg(&program);
        }
        let child = command.arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pooler = Pooler { child, port, role: role.to_owned() };
        wait_until("PgBouncer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        pooler
    }

    fn url(&self, database: &str) -> String {
        self.url_at(self.port, database)
    }

    fn url_at(&self, port: u16, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{port}/{database}", self.role)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates a role with a database, all of whose statements are in the server's log.
fn logged_database(server: &Server, name: &str) -> (TestRole, TestDatabase) {
    let role = TestRole::create(server, name, "LOGIN CREATEDB");
    let database = server.create_database(name);
    server.psql(
        "postgres",
        format!("ALTER ROLE {role} SET log_statement = 'all'; ALTER DATABASE \"{}\" OWNER TO {role}", database.name),
    );
    database.psql(format!("CREATE TABLE t (a integer); INSERT INTO t VALUES (1), (2); ALTER TABLE t OWNER TO {role}"));
    (role, database)
}

/// Returns the logged statements of a role that contain one of these words.
fn logged(server: &Server, role: &str, words: &[&str]) -> Vec<String> {
    let log = std::fs::read_to_string(&server.log).unwrap();
    let is_one = |line: &&str| {
        line.contains(&format!(" {role}@")) && words.iter().any(|word| line.contains(&format!("statement: {word}")))
    };
    log.lines().filter(is_one).map(str::to_owned).collect()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn no_command_sets_anything_in_the_sessions_of_a_shared_pool() {
    if !have(&["pgbouncer"]) {
        return;
    }
    let server = server(15);
    let setup = Setup::new(&server);
    let (role, database) = logged_database(&server, "shared_pool");
    let id = setup.snapshot(&database, &["--name", "direct"]);
    rusqlite::Connection::open(setup.sandbox.path("old.db"))
        .unwrap()
        .execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
        .unwrap();
    setup.ok(&["migrate", "plan", "old.db", "--to", &database.url(), "--zone", "UTC"]);
    for (mode, size) in [("transaction", 1), ("transaction", 4), ("statement", 1)] {
        let pooler = Pooler::start(&setup, &role, mode, size);
        let url = pooler.url(&database.name);
        let config = format!(
            "host = \"here\"\n[[store]]\nname = \"main\"\nurl = \"backups\"\n[[source]]\nname = \"pooled\"\nurl = \"{url}\"\n"
        );
        std::fs::write(setup.sandbox.path("lifeboat.toml"), config).unwrap();
        let commands: [&[&str]; 12] = [
            &["snapshot", &url],
            &["check", "pooled"],
            &["predeploy", "pooled"],
            &["postdeploy", "pooled"],
            &["guard", "--", "true"],
            &["doctor"],
            &["diff", &id, &url],
            &["drill", &id, "--to", &url],
            &["restore", &id, "--to", &url, "--replace", "--yes"],
            &["restore", &id, "--to", &pooler.url("shared_pool_new"), "--create"],
            &["restore", &id, "--to", &url, "--beside", "beside"],
            &["migrate", "run", "plan.toml", "--to", &url],
        ];
        for arguments in commands {
            let mut command = setup.sandbox.command(arguments);
            command.args(["--store", "backups"]).env_remove("PGPASSWORD").env("PGOPTIONS", "-c geqo=off");
            let run = setup.sandbox.finish(command);
            let output = format!("{}{}", run.stdout(), run.stderr());
            assert!(output.contains("is a pooler in transaction or statement mode"), "{mode}\n{}", run.transcript());
            assert_ne!(run.exit(), 0, "{mode}\n{}", run.transcript());
        }
        setup.run(&["snapshot", &url]).code(2).says("pool_mode = session");
        // As long as the second client has not logged in, the first one gets the same connection again and again.
        let slow = Proxy::start(pooler.port, Trouble::LateStart(1500));
        let url = pooler.url_at(slow.port, &database.name);
        setup.run(&["snapshot", &url]).code(2).says("is a pooler in transaction or statement mode");
        let slow = Proxy::start(pooler.port, Trouble::LateStart(1500));
        let url = pooler.url_at(slow.port, &database.name);
        setup.run(&["snapshot", &format!("{url}?connect_timeout=1")]).code(5).says("it cannot be found out");
    }
    assert_eq!(logged(&server, &role, &["SET", "BEGIN", "CREATE", "LOCK"]), Vec::<String>::new());
    assert!(!logged(&server, &role, &["SELECT pg_catalog.pg_backend_pid()"]).is_empty());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_pool_in_session_mode_is_used_like_a_server() {
    if !have(&["pgbouncer"]) {
        return;
    }
    let server = server(16);
    let setup = Setup::new(&server);
    let (role, database) = logged_database(&server, "session_pool");
    // With one connection in the pool, a second client waits for the first one to leave.
    let one = Pooler::start(&setup, &role, "session", 1);
    let run = setup.ok(&["snapshot", &one.url(&database.name), "-j", "1", "--json"]);
    let id = text(&run.json()["snapshots"][0]["id"]);
    setup.ok(&["check", &one.url(&database.name)]);
    let slow = Proxy::start(one.port, Trouble::LateStart(1500));
    setup.ok(&["snapshot", &one.url_at(slow.port, &database.name), "--name", "slow", "-j", "1"]);
    let some = Pooler::start(&setup, &role, "session", 9);
    let new = server.reserve_database("session_pool_new");
    let mut command = setup.command(&["restore", &id, "--to", &some.url(&new.name), "--create"]);
    command.env("PGOPTIONS", "-c geqo=off");
    setup.sandbox.finish(command).code(0);
    assert_eq!(rows(&new, "SELECT a FROM t ORDER BY a"), ["1", "2"]);
    setup.ok(&["drill", &id, "--to", &some.url(&database.name)]);
    database.psql("DELETE FROM t");
    setup.ok(&["restore", &id, "--to", &some.url(&database.name), "--replace", "--yes"]);
    assert_eq!(rows(&database, "SELECT a FROM t ORDER BY a"), ["1", "2"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_pool_that_accepts_one_client_is_used_if_the_url_says_that_sessions_are_not_shared() {
    if !have(&["pgbouncer"]) {
        return;
    }
    let server = server(15);
    let setup = Setup::new(&server);
    let (role, database) = logged_database(&server, "one_client");
    let one = Pooler::start_with(&setup, &role, "session", 1, "max_client_conn = 1");
    let url = format!("{}?connect_timeout=3", one.url(&database.name));
    setup.run(&["snapshot", &url, "-j", "1"]).code(5).says("it cannot be found out").says("pgbouncer=false");
    setup.ok(&["snapshot", &format!("{url}&pgbouncer=false"), "-j", "1"]);
    // That clients share sessions is found out all the same.
    let shared = Pooler::start(&setup, &role, "transaction", 1);
    let url = format!("{}?pgbouncer=false", shared.url(&database.name));
    setup.run(&["snapshot", &url]).code(2).says("is a pooler in transaction or statement mode");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_pool_with_too_few_connections_lets_one_client_wait_only_once() {
    if !have(&["pgbouncer"]) {
        return;
    }
    let server = server(15);
    let setup = Setup::new(&server);
    let (role, database) = logged_database(&server, "small_pool");
    let pooler = Pooler::start(&setup, &role, "session", 2);
    let params = Params::parse(&format!("{}?connect_timeout=2", pooler.url(&database.name))).unwrap();
    let _first = Session::connect(&params).unwrap();
    let asked = Cell::new(0);
    for (most, all) in [(3, 2), (3, 3), (1, 4)] {
        let open = || {
            asked.set(asked.get() + 1);
            Session::connect(&params)
        };
        assert_eq!(open_up_to(&params, most, open).unwrap().len(), 1);
        assert_eq!(asked.get(), all);
    }
}

/// No server is needed to refuse a host that is known to be a pool, or to hint at IPv6.
#[test]
#[ignore = "needs PostgreSQL"]
fn hosts_that_cannot_be_used_are_refused_with_the_way_to_the_server() {
    let setup = Setup::new(&server(15));
    for (url, words) in [
        ("postgres://u@aws-0-eu-central-1.pooler.supabase.com:6543/postgres", "the same host with port 5432"),
        ("postgres://u@ep-x-pooler.eu-central-1.aws.neon.tech/app", "ep-x.eu-central-1.aws.neon.tech"),
        ("postgres://u@db.invalid:6432/app?pgbouncer=true", "remove pgbouncer=true"),
    ] {
        setup.run(&["snapshot", url]).code(2).says("is").says(words);
    }
    // An address for documentation, which nothing has.
    let url = "postgres://u@[2001:db8::1]/app?connect_timeout=2";
    setup.run(&["snapshot", url]).code(5).says("has only an IPv6 address");
}
