//! All common commands on a database in use, to which pgbench writes all the time.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::helpers::{Setup, connect, text, wait_until};
use crate::support::postgres::{Server, TestDatabase, oldest_and_newest};

/// The pgbench of Debian, which works with every server version.
const PGBENCH: &str = "/usr/lib/postgresql/15/bin/pgbench";

/// A query that is true in every consistent state of the database, because each transaction changes all sums equally.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
    AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers)
    AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
    AND (SELECT count(*) FROM pgbench_history) > 0";

/// Clients that write all the time, and connect again if the server disconnects them.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(database: &TestDatabase) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_requested, server, name) = (Arc::clone(&stop), database.server.clone(), database.name.clone());
        let thread = thread::spawn(move || {
            while !stop_requested.load(Ordering::Relaxed) {
                pgbench(&server, &name, &["-n", "-C", "-M", "simple", "-c", "2", "-t", "50"]);
            }
        });
        Load { stop, thread: Some(thread) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn pgbench(server: &Server, database: &str, arguments: &[&str]) -> bool {
    assert!(Path::new(PGBENCH).exists(), "{PGBENCH} is missing: install Debian's postgresql-15");
    let mut command = Command::new(PGBENCH);
    command.args(arguments).arg(database).env("PGHOST", &server.socket_dir).env("PGPORT", server.port.to_string());
    command.env("PGUSER", &server.user).output().unwrap().status.success()
}

fn history(database: &TestDatabase) -> u64 {
    database.value("SELECT count(*) FROM pgbench_history").parse().unwrap()
}

#[track_caller]
fn require_sums(database: &TestDatabase, description: &str) {
    assert_eq!(database.value(SUMS), "t", "{description}: the sums differ");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn all_common_commands_work_while_clients_write() {
    oldest_and_newest(|server| {
        let setup = Setup::new(server);
        let database = server.create_database("bench");
        assert!(pgbench(server, &database.name, &["-i", "-q", "-s", "1", "--foreign-keys"]));
        database.psql("CREATE VIEW busy AS SELECT tid, count(*) FROM pgbench_history GROUP BY tid");
        let load = Load::start(&database);
        wait_until("pgbench writes", || history(&database) > 50);

        let first = setup.snapshot(&database, &["--compression", "zstd"]);
        let listed = setup.json(&["list"]);
        assert_eq!(listed["snapshots"][0]["id"], first);
        assert_eq!(listed["snapshots"][0]["kind"], "full");
        assert_eq!(setup.json(&["verify", "--all"])["ok"], true);
        let drilled = setup.json(&["drill", "latest"]);
        assert_eq!((&drilled["ok"], &drilled["snapshots"][0]["level"]), (&true.into(), &"drilled".into()));
        assert!(setup.ok(&["list"]).stdout().contains("drilled"));
        require_sums(&setup.restore_new("latest", &[]), "restored as a new database");

        // Replaces one table, after which the sums differ, and then all tables.
        let url = database.url();
        let replaced = ["restore", "latest", "--replace", "--table", "public.pgbench_history", "--to", &url];
        let replaced = setup.json(&replaced);
        assert_eq!(replaced["tables"][0]["name"], "public.pgbench_history");
        assert_eq!(replaced["tables"][0]["ok"], true);
        let all = setup.json(&["restore", "latest", "--replace", "--to", &url]);
        assert_eq!(all["tables"].as_array().unwrap().len(), 4);
        assert!(all["safety_snapshot"].is_string() && all["undo"].is_string());
        require_sums(&database, "replaced in place");
        let before = history(&database);
        wait_until("pgbench continues to write", || history(&database) > before);
        require_sums(&database, "written to afterwards");

        let second = setup.snapshot(&database, &[]);
        assert_ne!(first, second);
        database.psql("CREATE TABLE only_in_the_old_one ()");
        let client = connect(&database);
        let run = setup.run(&["restore", "latest", "--swap", "--to", &url]).code(1);
        assert!(run.stderr().contains("--disconnect"), "{}", run.transcript());
        let swapped = setup.json(&["restore", "latest", "--swap", "--disconnect", "--to", &url]);
        drop(client);
        let old = TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) };
        assert_eq!(database.value("SELECT to_regclass('only_in_the_old_one') IS NULL"), "t");
        let before = history(&database);
        wait_until("pgbench connects again and writes", || history(&database) > before);
        require_sums(&database, "exchanged");
        require_sums(&old, "the old one");

        drop(load);
        let last = history(&database);
        let swapped_in = setup.undo_swap(&swapped);
        assert_eq!(database.value("SELECT to_regclass('only_in_the_old_one') IS NULL"), "f");
        assert_eq!(history(&swapped_in), last);
    });
}
