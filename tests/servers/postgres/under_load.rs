//! A database in use: everything a person does with it, while pgbench goes on writing.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::helpers::{Place, stay, text, wait_until};
use crate::support::postgres::{Server, TestDatabase, oldest_and_newest};

/// pgbench of Debian's; it works on every server.
const PGBENCH: &str = "/usr/lib/postgresql/15/bin/pgbench";

/// Equal at every instant that a transaction can see.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches)
    AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(tbalance) FROM pgbench_tellers)
    AND (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
    AND (SELECT count(*) FROM pgbench_history) > 0";

/// Clients that write all the time, and connect again when they are thrown out.
struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    fn start(database: &TestDatabase) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked, server, name) = (Arc::clone(&stop), database.server.clone(), database.name.clone());
        let thread = thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
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
fn require_sums(database: &TestDatabase, what: &str) {
    assert_eq!(database.value(SUMS), "t", "{what}: the sums differ");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn everything_works_under_load() {
    oldest_and_newest(|server| {
        let place = Place::new(server);
        let database = server.create_database("bench");
        assert!(pgbench(server, &database.name, &["-i", "-q", "-s", "1", "--foreign-keys"]));
        database.psql("CREATE VIEW busy AS SELECT tid, count(*) FROM pgbench_history GROUP BY tid");
        let load = Load::start(&database);
        wait_until("pgbench writes", || history(&database) > 50);

        let first = place.snapshot(&database, &["--compression", "zstd"]);
        let listed = place.json(&["list"]);
        assert_eq!(listed["snapshots"][0]["id"], first);
        assert_eq!(listed["snapshots"][0]["kind"], "full");
        assert_eq!(place.json(&["verify", "--all"])["ok"], true);
        let drilled = place.json(&["drill", "latest"]);
        assert_eq!((&drilled["ok"], &drilled["snapshots"][0]["level"]), (&true.into(), &"drilled".into()));
        assert!(place.ok(&["list"]).stdout().contains("drilled"));
        require_sums(&place.restore_new("latest", &[]), "restored as a new database");

        // Its own rows as they were, the others' as they are now; then all of them.
        let url = database.url();
        let one = ["restore", "latest", "--replace", "--table", "public.pgbench_history", "--to", &url];
        let one = place.json(&one);
        assert_eq!(one["tables"][0]["name"], "public.pgbench_history");
        assert_eq!(one["tables"][0]["ok"], true);
        let all = place.json(&["restore", "latest", "--replace", "--to", &url]);
        assert_eq!(all["tables"].as_array().unwrap().len(), 4);
        assert!(all["safety_snapshot"].is_string() && all["undo"].is_string());
        require_sums(&database, "replaced in place");
        let before = history(&database);
        wait_until("pgbench goes on", || history(&database) > before);
        require_sums(&database, "written to afterwards");

        let second = place.snapshot(&database, &[]);
        assert_ne!(first, second);
        database.psql("CREATE TABLE only_in_the_old_one ()");
        let somebody = stay(&database);
        let run = place.run(&["restore", "latest", "--swap", "--to", &url]).code(1);
        assert!(run.stderr().contains("--disconnect"), "{}", run.transcript());
        let swapped = place.json(&["restore", "latest", "--swap", "--disconnect", "--to", &url]);
        drop(somebody);
        let old = TestDatabase { server: server.clone(), name: text(&swapped["moved_aside"][0]) };
        assert_eq!(database.value("SELECT to_regclass('only_in_the_old_one') IS NULL"), "t");
        let before = history(&database);
        wait_until("pgbench comes back", || history(&database) > before);
        require_sums(&database, "exchanged");
        require_sums(&old, "the old one");

        drop(load);
        let last = history(&database);
        place.paste(&text(&swapped["undo"]));
        assert_eq!(database.value("SELECT to_regclass('only_in_the_old_one') IS NULL"), "f");
        let aside = place.databases_like("datname ~ '^lifeboat_' AND shobj_description(oid, 'pg_database') IS NULL");
        let kept = aside.into_iter().map(|name| TestDatabase { server: server.clone(), name });
        // Other tests of this program undo at the same time: it is among theirs.
        let mut own = kept.filter(|kept| kept.value("SELECT to_regclass('busy') IS NOT NULL") == "t");
        let own = own.next().expect("what was exchanged is kept");
        assert_eq!(history(&own), last);
    });
}
