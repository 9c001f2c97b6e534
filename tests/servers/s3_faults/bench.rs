//! A database, a store, and a proxy between the two that a test can break.

use std::process::Command;

use lifeboat::store::{Names, Store};
use rusqlite::Connection;
use serde_json::Value;

use crate::support::s3::{S3Server, fresh_prefix, s3_server};
use crate::support::s3_proxy::S3Proxy;
use crate::support::{Run, Running, Sandbox};

/// A sandbox, a server, and a proxy. Commands run through the proxy, or directly to check the result.
pub(crate) struct Setup {
    pub(crate) sandbox: Sandbox,
    pub(crate) server: S3Server,
    pub(crate) proxy: S3Proxy,
    prefix: String,
}

/// The size of the part of the database that does not compress. It gives an archive of more than three parts.
const NOISE_BYTES: u32 = 17 << 20;

impl Setup {
    /// Creates a store on SeaweedFS, and a database of which the store has no snapshot.
    pub(crate) fn new() -> Self {
        Setup::at("seaweedfs")
    }

    pub(crate) fn at(server: &str) -> Self {
        let (sandbox, server) = (Sandbox::new(), s3_server(server));
        let proxy = S3Proxy::start(server.port);
        let setup = Setup { sandbox, server, proxy, prefix: fresh_prefix() };
        let database = Connection::open(setup.sandbox.path("app.db")).unwrap();
        database.pragma_update(None, "journal_mode", "wal").unwrap();
        database
            .execute_batch(&format!(
                "CREATE TABLE noise (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
                 INSERT INTO noise SELECT i, randomblob(65536) FROM n;
                 CREATE TABLE small (id INTEGER PRIMARY KEY, name TEXT);
                 INSERT INTO small VALUES (1, 'one'), (2, 'two');",
                NOISE_BYTES / 65_536
            ))
            .unwrap();
        drop(database);
        let small = Connection::open(setup.sandbox.path("first.db")).unwrap();
        small.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
        drop(small);
        // The store has an older snapshot of another source, which must not change.
        setup.direct(&["snapshot", "first.db"]).code(0);
        setup.proxy.reset();
        setup
    }

    /// Returns the URL of the store through the proxy, with small parts, a short timeout and few retries.
    pub(crate) fn url(&self) -> String {
        self.url_with("part_size=5MiB&timeout=1s&retries=3")
    }

    pub(crate) fn url_with(&self, settings: &str) -> String {
        format!("s3://{}/{}?endpoint={}&{settings}", self.server.bucket, self.prefix, self.proxy.endpoint())
    }

    /// Returns the URL of the store without the proxy.
    pub(crate) fn direct_url(&self) -> String {
        format!("s3://{}/{}?endpoint={}", self.server.bucket, self.prefix, self.server.endpoint)
    }

    pub(crate) fn command(&self, arguments: &[&str], store: &str) -> Command {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", store]);
        // A better compression takes longer, and does not make the noise smaller.
        if arguments[0] == "snapshot" && !arguments.contains(&"--compression") {
            arguments.extend(["--compression", "gzip:1"]);
        }
        let mut command = self.sandbox.command(&arguments);
        self.server.set_credentials(&mut command);
        command
    }

    /// Runs `lifeboat ARGUMENTS --store STORE`, through the proxy.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments, &self.url()))
    }

    /// Starts `lifeboat ARGUMENTS --store STORE`, through the proxy, and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.sandbox.start_command(self.command(arguments, &self.url()))
    }

    /// Runs `lifeboat ARGUMENTS --store STORE`, without the proxy.
    pub(crate) fn direct(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments, &self.direct_url()))
    }

    /// Returns the ids of the listed snapshots of app.db.
    pub(crate) fn ids(&self) -> Vec<String> {
        let listed: Value = self.direct(&["list", "--json"]).code(0).json();
        let ids = listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        let (app, first): (Vec<_>, Vec<_>) = ids.partition(|id| id.starts_with("app-"));
        assert_eq!(first.len(), 1, "the older snapshot of another source must be listed");
        app
    }

    /// Returns the keys of all objects of the store.
    pub(crate) fn objects(&self) -> Vec<String> {
        let store = self.server.open(&self.direct_url());
        let top = store.list("", Names::All).unwrap();
        let mut keys: Vec<String> = top.objects.iter().map(|object| object.key.to_string()).collect();
        for folder in &top.folders {
            keys.extend(store.list(folder, Names::All).unwrap().objects.iter().map(|object| object.key.to_string()));
        }
        keys
    }

    /// Removes unfinished uploads, and returns the number of their bytes.
    pub(crate) fn clear_unfinished_uploads(&self) -> u64 {
        let store = self.server.open(&self.direct_url());
        store.clear_leftovers(std::time::Duration::ZERO).unwrap()
    }

    /// Requires that app.db has exactly one listed snapshot, and that a restore of it gives the saved rows.
    #[track_caller]
    pub(crate) fn require_one_good_snapshot(&self, context: &str) {
        assert_eq!(self.ids().len(), 1, "{context}");
        self.direct(&["restore", "latest", "--source", "app", "--to", "back.db"]).code(0);
        let expected = Connection::open(self.sandbox.path("app.db")).unwrap();
        let found = Connection::open(self.sandbox.path("back.db")).unwrap();
        let summary = |database: &Connection| -> (i64, Vec<u8>) {
            let all = "SELECT count(*), (SELECT body FROM noise ORDER BY id DESC LIMIT 1) FROM noise";
            database.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(summary(&expected), summary(&found), "{context}");
        let restored = std::fs::read(self.sandbox.path("back.db")).unwrap();
        assert!(restored.len() > NOISE_BYTES as usize, "{context}");
        std::fs::remove_file(self.sandbox.path("back.db")).unwrap();
    }

    /// Requires that a failed run has left no snapshot, no object of app.db, and no unfinished upload.
    #[track_caller]
    pub(crate) fn require_nothing_left(&self, context: &str) {
        assert_eq!(self.ids(), [""; 0], "{context}");
        let app_objects: Vec<String> = self.objects().into_iter().filter(|key| key.starts_with("app/")).collect();
        assert_eq!(app_objects, [""; 0], "{context}");
        assert_eq!(self.clear_unfinished_uploads(), 0, "{context}");
    }
}

/// Requires that a run has failed with one of these exit codes and one error line, without a panic, and without the
/// secret key in its output.
#[track_caller]
pub(crate) fn require_clear_failure(run: &Run, codes: &[i32], server: &S3Server) {
    assert!(codes.contains(&run.exit()), "{}", run.transcript());
    let stderr = run.stderr();
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{}", run.transcript());
    assert!(!stderr.contains("panicked"), "{}", run.transcript());
    assert!(!stderr.contains(&server.secret_key) && !run.stdout().contains(&server.secret_key), "{}", run.transcript());
}
