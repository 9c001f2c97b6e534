//! Two containers at once: a rolling deploy starts the new one before it stops the old one.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use super::guard::wait_for;
use super::helpers::create_store;
use crate::support::bucket::Bucket;
use crate::support::web::{Web, answer};
use crate::support::{LIFEBOAT, Running, Sandbox, have, open, skip_unless_ci};

/// The program of an app: it creates its table, runs the SQL in `$SQL`, writes the number of orders to `NAME.count`, and
/// waits for SIGTERM or until the guard is gone. If the SQL fails, it ends at once with exit code 9.
const PROGRAM: &str = r#"trap 'exit 0' TERM
sqlite3 data/app.db "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, note TEXT); $SQL" || exit 9
sqlite3 data/app.db "SELECT count(*) FROM orders" >$0.new; mv $0.new $0.count
while [ "$(cut -d' ' -f4 /proc/$$/stat)" = $PPID ]; do sleep 0.02; done"#;

/// Containers without a volume: each one has its own folder `data`.
pub(crate) struct Containers {
    pub(crate) sandbox: Sandbox,
}

impl Containers {
    /// Returns `None` if the test cannot run here. `config` is added to the config.
    pub(crate) fn new(config: &str) -> Option<Self> {
        if !have(&["sqlite3", "unshare"]) {
            return None;
        }
        let probe = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            skip_unless_ci("mounting a folder needs root");
            return None;
        }
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.path("data")).unwrap();
        let text =
            "host = \"shop\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"data/app.db\"\n";
        std::fs::write(sandbox.path("lifeboat.toml"), format!("{text}{config}")).unwrap();
        create_store(&sandbox);
        Some(Containers { sandbox })
    }

    /// Starts the guard of a container, whose program adds this number of orders with its name as the note.
    fn start(&self, name: &str, add: u32, options: &[&str]) -> Running {
        self.start_with(name, &orders(name, add), options)
    }

    /// Starts the guard of a container, whose program runs this SQL. The guard's messages are in the file `NAME.log`.
    pub(crate) fn start_with(&self, name: &str, sql: &str, options: &[&str]) -> Running {
        std::fs::create_dir_all(self.sandbox.path(name)).unwrap();
        let script = "name=$1; shift; mount --bind \"$name\" data && exec \"$@\" 2>>$name.log";
        let mut command = self.sandbox.command_of("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh", name, LIFEBOAT, "guard"]);
        command.args(options).args(["--", "sh", "-c", PROGRAM, name]);
        command.env("SQL", sql);
        self.sandbox.start_command(command)
    }

    /// Starts a container and waits until its program works. Returns the number of orders that the program has.
    fn started(&self, name: &str, add: u32, options: &[&str]) -> (Running, u32) {
        let running = self.start(name, add, options);
        wait_for(&self.sandbox.path(format!("{name}.count")));
        (running, self.count(name))
    }

    pub(crate) fn count(&self, name: &str) -> u32 {
        std::fs::read_to_string(self.sandbox.path(format!("{name}.count"))).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.sandbox.path(format!("{name}.log"))).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait_for_words(&self, name: &str, words: &str) {
        let start = Instant::now();
        while !self.log(name).contains(words) {
            assert!(start.elapsed() < Duration::from_secs(40), "no '{words}' in\n{}", self.log(name));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the leases in the store.
    pub(crate) fn leases(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.sandbox.path("backups/app"));
        let paths = folder.into_iter().flatten().flatten().map(|entry| entry.path());
        paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("guard.lease-")).collect()
    }

    pub(crate) fn snapshots(&self) -> Vec<Value> {
        self.sandbox.json(&["list"])["snapshots"].as_array().unwrap().clone()
    }
}

/// Returns SQL that adds orders with this note.
pub(crate) fn orders(note: &str, count: u32) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO orders (note) SELECT '{note}' FROM n;"
    )
}

#[track_caller]
pub(crate) fn stop(running: Running) {
    running.signal(Signal::TERM);
    running.finish().code(0);
}

#[test]
fn a_new_container_waits_for_the_last_snapshot_of_the_old_one() {
    let Some(containers) = Containers::new("") else { return };
    let (first, _) = containers.started("first", 100, &[]);
    assert_eq!(containers.leases().len(), 1);
    let second = containers.start("second", 5, &[]);
    containers.wait_for_words("second", "another guard of app is still running");
    assert!(!containers.sandbox.path("second.count").exists());
    stop(first);
    wait_for(&containers.sandbox.path("second.count"));
    assert_eq!(containers.count("second"), 105);
    stop(second);
    assert_eq!(containers.leases(), Vec::<PathBuf>::new());
    assert_eq!(containers.snapshots()[0]["rows"], 105);
}

#[test]
fn a_new_container_with_only_the_rows_of_its_image_waits_as_well() {
    let Some(containers) = Containers::new("") else { return };
    let (before, _) = containers.started("before", 50, &[]);
    stop(before);
    let (first, _) = containers.started("first", 100, &[]);
    std::fs::create_dir(containers.sandbox.path("second")).unwrap();
    crate::helpers::sql(
        containers.sandbox.path("second/app.db"),
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT); CREATE TABLE alembic_version (version_num TEXT);
         INSERT INTO alembic_version VALUES ('a1')",
    );
    let second = containers.start("second", 5, &[]);
    containers.wait_for_words("second", "another guard of app is still running");
    assert!(!containers.sandbox.path("second.count").exists());
    stop(first);
    wait_for(&containers.sandbox.path("second.count"));
    assert_eq!(containers.count("second"), 155);
    stop(second);
}

#[test]
fn a_new_container_is_refused_if_the_old_one_is_never_stopped() {
    let Some(containers) = Containers::new("") else { return };
    let (first, _) = containers.started("first", 100, &[]);
    containers.start("second", 5, &["--handover", "1s"]).finish().code(3);
    let log = containers.log("second");
    assert!(log.contains("was not started") && log.contains("is still running on "), "{log}");
    assert!(log.contains("on_overlap"), "{log}");
    assert!(!containers.sandbox.path("second.count").exists());
    assert_eq!(containers.leases().len(), 1, "only that of the first");
    stop(first);
}

#[test]
fn rows_that_the_old_container_saves_after_the_new_one_has_started_are_a_failure() {
    let web = Web::answering(&[answer("200 OK", "text/plain", "ok")]);
    let config = format!(
        "[guard]\non_overlap = \"start\"\nhandover = \"0s\"\n[notify]\nwebhook = \"{}\"\non = \"failure\"\n",
        web.url("/hook")
    );
    let Some(containers) = Containers::new(&config) else { return };
    stop(containers.started("zero", 100, &[]).0);
    let (first, rows) = containers.started("first", 50, &[]);
    assert_eq!(rows, 150);
    let (second, rows) = containers.started("second", 80, &["--every", "1s"]);
    assert_eq!(rows, 180, "it has the rows of the newest snapshot and its own");
    assert!(containers.log("second").contains("what the other program writes is not in this database"));
    stop(first);
    let old = containers.snapshots().into_iter().find(|snapshot| snapshot["rows"] == 150).unwrap();
    let old = old["id"].as_str().unwrap().to_owned();
    containers.wait_for_words("second", &format!("another guard saved {old}"));
    stop(second);
    let notice: Value = serde_json::from_str(&web.requests().last().unwrap().body).unwrap();
    assert_eq!((&notice["event"], &notice["exit_code"]), (&"failure".into(), &3.into()), "{notice:#}");
    assert!(notice["error"].to_string().contains(&old), "{notice:#}");
    // Both are kept, and the one that lacks rows is not the baseline, although it has more of them.
    let newest = containers.snapshots().remove(0);
    assert_eq!(newest["rows"], 180);
    assert!(newest["tags"].to_string().contains("suspect"), "{newest:#}");
    let latest = containers.sandbox.json(&["show", "latest", "--source", "app"]);
    assert!(latest["rows"] == 150 || latest["rows"] == 180, "{latest:#}");
}

#[test]
fn a_container_does_not_wait_for_one_that_was_killed() {
    let web = Web::answering(&[answer("200 OK", "text/plain", "ok")]);
    let config = format!("[notify]\nwebhook = \"{}\"\non = \"failure\"\n", web.url("/hook"));
    let Some(containers) = Containers::new(&config) else { return };
    let (first, _) = containers.started("first", 100, &["--every", "1s"]);
    containers.wait_for_words("first", "saved app-");
    first.signal(Signal::KILL);
    let _ = first.finish();
    assert_eq!(containers.leases().len(), 1);
    let (second, rows) = containers.started("second", 5, &[]);
    assert_eq!(rows, 105);
    // The rows that no store has are a failure at once, not only a line in a log.
    web.wait_for_request();
    assert!(web.requests()[0].body.contains("has ended without its last snapshot"), "{}", web.requests()[0].body);
    let log = containers.log("second");
    assert!(log.contains("has ended without its last snapshot") && !log.contains("still running"), "{log}");
    stop(second);
    assert_eq!(containers.leases(), Vec::<PathBuf>::new(), "the lease of the one that was killed is deleted too");
}

#[test]
fn a_last_snapshot_that_failed_is_known_to_the_next_container() {
    let Some(containers) = Containers::new("") else { return };
    let (first, _) = containers.started("first", 100, &["--every", "1s"]);
    containers.wait_for_words("first", "saved app-");
    open(containers.sandbox.path("first/app.db")).execute_batch("DELETE FROM orders").unwrap();
    stop(first);
    assert!(containers.log("first").contains("the last snapshot was not taken"), "{}", containers.log("first"));
    assert_eq!(containers.leases().len(), 1);
    let (second, rows) = containers.started("second", 5, &[]);
    assert_eq!(rows, 105);
    let log = containers.log("second");
    assert!(log.contains("has ended without its last snapshot") && !log.contains("still running"), "{log}");
    stop(second);
    assert_eq!(containers.leases(), Vec::<PathBuf>::new());
}

#[test]
fn a_lease_that_cannot_be_read_holds_until_it_expires_and_is_never_a_snapshot() {
    let Some(containers) = Containers::new("") else { return };
    stop(containers.started("first", 100, &[]).0);
    let lease = containers.sandbox.path("backups/app/guard.lease-0123456789abcdef-7");
    for text in ["garbage", "{\"format\": 9, \"id\": \"0123456789abcdef\"}", ""] {
        std::fs::write(&lease, text).unwrap();
        containers.start("second", 5, &["--handover", "1s"]).finish().code(3);
        assert!(containers.log("second").contains("is still running"), "{}", containers.log("second"));
    }
    assert_eq!(containers.snapshots().len(), 1);
    containers.sandbox.ok(&["verify", "latest", "--source", "app"]);
    containers.sandbox.ok(&["prune", "--keep-last", "1", "--yes"]);
    assert!(lease.exists(), "it may be in use");
    let file = File::options().write(true).open(&lease).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(200)).unwrap();
    let (second, rows) = containers.started("second", 5, &["--handover", "30s"]);
    assert_eq!(rows, 105);
    stop(second);
    assert!(!lease.exists());
    std::fs::write(&lease, "garbage").unwrap();
    let file = File::options().write(true).open(&lease).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    containers.sandbox.ok(&["prune", "--keep-last", "1"]);
    assert!(lease.exists(), "a dry run deletes nothing");
    containers.sandbox.ok(&["prune", "--keep-last", "1", "--yes"]);
    assert!(!lease.exists());
}

#[test]
fn of_containers_that_start_at_the_same_time_one_goes_first() {
    let Some(containers) = Containers::new("") else { return };
    stop(containers.started("first", 100, &[]).0);
    let mut waiting: Vec<(&str, Running)> =
        ["a", "b", "c"].map(|name| (name, containers.start(name, 1, &["--handover", "60s"]))).into();
    // One after the other runs, and each has the rows of those before it.
    for rows in 101..=103 {
        let start = Instant::now();
        let index = loop {
            let started = |(name, _): &(&str, Running)| containers.sandbox.path(format!("{name}.count")).exists();
            if let Some(index) = waiting.iter().position(started) {
                break index;
            }
            assert!(start.elapsed() < Duration::from_secs(40), "{}", containers.log(waiting[0].0));
            std::thread::sleep(Duration::from_millis(10));
        };
        let (name, running) = waiting.swap_remove(index);
        assert_eq!(containers.count(name), rows, "{}", containers.log(name));
        stop(running);
    }
}

#[test]
fn containers_that_share_a_volume_do_not_wait() {
    let Some(containers) = Containers::new("") else { return };
    let (first, _) = containers.started("shared", 100, &[]);
    std::fs::remove_file(containers.sandbox.path("shared.count")).unwrap();
    let (second, rows) = containers.started("shared", 5, &[]);
    assert_eq!(rows, 105);
    assert!(!containers.log("shared").contains("still running"), "{}", containers.log("shared"));
    stop(first);
    stop(second);
    let log = containers.log("shared");
    assert!(!log.contains("another guard saved") && !log.contains("ERROR"), "{log}");
    assert_eq!(containers.snapshots()[0]["rows"], 105);
}

#[test]
fn a_lease_in_a_bucket_holds_until_its_guard_has_ended() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    let config = format!(
        "host = \"shop\"\n[[store]]\nurl = \"{}\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
        bucket.store()
    );
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    open(sandbox.path("app.db")).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)").unwrap();
    Bucket::run(&sandbox, &["init"]).code(0);
    Bucket::run(&sandbox, &["guard", "--", "true"]).code(0);
    let run = Bucket::run(&sandbox, &["guard", "--", "true"]).code(0);
    assert!(run.stderr().contains("nothing changed since app-"), "{}", run.transcript());
    let leases = || bucket.keys().into_iter().filter(|key| key.contains("guard.lease-")).count();
    assert_eq!(leases(), 0, "{:?}", bucket.keys());
    let waits =
        "trap 'exit 0' TERM; touch ready; while [ \"$(cut -d' ' -f4 /proc/$$/stat)\" = $PPID ]; do sleep 0.02; done";
    let running = sandbox.start_command(Bucket::command(&sandbox, &["guard", "--", "sh", "-c", waits]));
    wait_for(&sandbox.path("ready"));
    std::fs::rename(sandbox.path("app.db"), sandbox.path("away.db")).unwrap();
    let run = Bucket::run(&sandbox, &["guard", "--handover", "1s", "--", "true"]).code(3);
    assert!(run.stderr().contains("is still running"), "{}", run.transcript());
    std::fs::rename(sandbox.path("away.db"), sandbox.path("app.db")).unwrap();
    stop(running);
    assert_eq!(leases(), 0, "{:?}", bucket.keys());
}
