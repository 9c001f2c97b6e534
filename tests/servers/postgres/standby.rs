//! Snapshots of a standby.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use lifeboat::engine::postgres::Params;
use lifeboat::engine::postgres::wire::session::Session;

use super::helpers::{Setup, rows, text};
use crate::support::postgres::{PrivateServer, Server};

/// A standby has the definition of an unlogged table without its rows. A snapshot with zero rows would lose the rows
/// without a message.
#[test]
#[ignore = "needs PostgreSQL"]
fn unlogged_objects_are_named_on_a_standby_and_left_out_only_with_allow_partial() {
    let server = PrivateServer::start(18);
    let setup = Setup::new(&server);
    let database = server.create_database("on_standby");
    database.psql(
        "CREATE TABLE kept (id integer); INSERT INTO kept VALUES (1), (2);
         CREATE UNLOGGED TABLE cache (id serial, what text); INSERT INTO cache (what) VALUES ('a'), ('b');
         CREATE UNLOGGED SEQUENCE quick; SELECT nextval('quick')",
    );
    let url = database.url();
    let full = setup.snapshot(&database, &[]);
    assert_eq!(setup.json(&["show", &full])["rows"], 4);
    server.become_standby();

    let run = setup.run(&["snapshot", &url]).code(1);
    let messages = [
        "table public.cache: it is unlogged, and has no rows on a standby",
        "sequence public.quick: it is unlogged, and has no value on a standby",
    ];
    assert!(messages.iter().all(|words| run.stderr().contains(words)), "{}", run.transcript());
    assert!(run.stderr().contains("2 objects cannot be saved"), "{}", run.transcript());
    assert_eq!(setup.sandbox.ids(), std::slice::from_ref(&full));

    let run = setup.ok(&["snapshot", &url, "--allow-partial", "--json"]);
    let saved = &run.json()["snapshots"][0];
    assert_eq!((&saved["kind"], &saved["rows"]), (&"partial".into(), &2.into()));
    let partial = text(&saved["id"]);
    let shown = setup.ok(&["show", &partial]);
    assert!(messages.iter().all(|words| shown.stdout().contains(words)), "{}", shown.transcript());
    assert_eq!(setup.json(&["show", "latest"])["id"], full);

    // Nothing can be restored on a standby.
    setup.run(&["drill", &full]).code(2).says("is on a standby").says("--to postgres://user@host/database");

    // If the options exclude the unlogged table and the sequence that it owns, these are not named.
    let run = setup.run(&["snapshot", &url, "--exclude-data", "cache"]).code(1).says("1 object cannot be saved");
    assert!(run.stderr().contains(messages[1]), "{}", run.transcript());

    server.become_primary();
    let new = setup.restore_new(&partial, &[]);
    assert_eq!(rows(&new, "SELECT count(*) FROM kept UNION ALL SELECT count(*) FROM cache"), ["2", "0"]);
}

/// A standby that replays the changes of a server. It is stopped and removed when it is dropped.
struct Standby {
    primary: Server,
    data: PathBuf,
    port: u16,
}

impl Standby {
    fn start(primary: &Server) -> Self {
        // It has only a socket, so that no other program can use its port.
        let port = primary.port + 1;
        let data = primary.data.with_file_name(format!("standby-{port}"));
        let standby = Standby { primary: primary.clone(), data, port };
        let data = standby.data.to_str().unwrap();
        let folder = primary.socket_dir.to_str().unwrap();
        let url = format!("host={folder} port={} user={}", primary.port, primary.user);
        standby
            .run("pg_basebackup", &["--pgdata", data, "--dbname", &url, "--write-recovery-conf", "--checkpoint=fast"]);
        let options = format!("-c port={port} -c listen_addresses= -c max_standby_streaming_delay=0 -c hot_standby=on");
        standby.run(
            "pg_ctl",
            &["start", "--silent", "--wait", "--pgdata", data, "--log=/dev/null", "--options", &options],
        );
        standby
    }

    /// Runs a program of the server as its owner.
    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) {
        let owner = std::fs::metadata(&self.primary.data).unwrap();
        let mut command = Command::new("env");
        if rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args([&format!("--reuid={}", owner.uid()), &format!("--regid={}", owner.gid()), "--clear-groups"]);
        }
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").arg(self.primary.bin.join(program));
        command.args(arguments).current_dir(self.primary.data.parent().unwrap());
        // A server would keep a pipe open.
        let status = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().unwrap();
        assert!(status.success(), "{command:?}");
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let stop =
            || self.run("pg_ctl", &["stop", "--silent", "--mode=immediate", "--pgdata", self.data.to_str().unwrap()]);
        // A panic during a panic would hide the first message.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(stop)).is_ok() {
            let _ = std::fs::remove_dir_all(&self.data);
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL 15"]
fn a_conflict_with_recovery_names_the_settings_that_prevent_it() {
    let primary = PrivateServer::start(15);
    let database = primary.create_database("replayed");
    database.psql("CREATE TABLE t (a integer); INSERT INTO t VALUES (1)");
    let standby = Standby::start(&primary);
    let url = database.socket_url().replace(&format!(":{}/", primary.port), &format!(":{}/", standby.port));
    let mut session = Session::connect(&Params::parse(&url).unwrap()).unwrap();
    session.execute("BEGIN; LOCK TABLE public.t IN ACCESS SHARE MODE").unwrap();
    let waiting = std::thread::spawn(move || session.execute("SELECT pg_catalog.pg_sleep(60)").unwrap_err());
    database.psql("TRUNCATE t");
    let error = waiting.join().unwrap();
    let hint = error.hint.as_deref().unwrap_or_default();
    assert!(hint.contains("hot_standby_feedback") && hint.contains("try again"), "{error:?}");
}
