//! A database, a store, and a way between the two that breaks on command.

use std::process::Command;

use lifeboat::store::{Names, Store};
use rusqlite::Connection;
use serde_json::Value;

use crate::support::s3::{S3Server, fresh_prefix, s3_server};
use crate::support::s3_proxy::S3Proxy;
use crate::support::{Run, Running, Sandbox};

/// What is needed to break an upload or a download, and to see afterwards, past what breaks, what came of it.
pub(crate) struct Bench {
    pub(crate) sandbox: Sandbox,
    pub(crate) server: S3Server,
    pub(crate) proxy: S3Proxy,
    prefix: String,
}

/// How much of the database no compression makes smaller: an archive of more than three parts.
const NOISE_BYTES: u32 = 17 << 20;

impl Bench {
    /// A store at SeaweedFS that is there already, and a database that it has no snapshot of.
    pub(crate) fn new() -> Self {
        Bench::at("seaweedfs")
    }

    pub(crate) fn at(server: &str) -> Self {
        let (sandbox, server) = (Sandbox::new(), s3_server(server));
        let proxy = S3Proxy::start(server.port);
        let bench = Bench { sandbox, server, proxy, prefix: fresh_prefix() };
        let database = Connection::open(bench.sandbox.path("app.db")).unwrap();
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
        let small = Connection::open(bench.sandbox.path("first.db")).unwrap();
        small.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
        drop(small);
        // A store is there, with an older snapshot that nothing may touch.
        bench.direct(&["snapshot", "first.db"]).code(0);
        bench.proxy.reset();
        bench
    }

    /// The store's URL past the proxy: parts small, patience and persistence short.
    pub(crate) fn url(&self) -> String {
        self.url_with("part_size=5MiB&timeout=1s&retries=3")
    }

    pub(crate) fn url_with(&self, settings: &str) -> String {
        format!("s3://{}/{}?endpoint={}&{settings}", self.server.bucket, self.prefix, self.proxy.endpoint())
    }

    /// The same store, without the proxy between.
    pub(crate) fn direct_url(&self) -> String {
        format!("s3://{}/{}?endpoint={}", self.server.bucket, self.prefix, self.server.endpoint)
    }

    pub(crate) fn command(&self, arguments: &[&str], store: &str) -> Command {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", store]);
        // The noise takes long to compress, and does not get smaller.
        if arguments[0] == "snapshot" && !arguments.contains(&"--compression") {
            arguments.extend(["--compression", "gzip:1"]);
        }
        let mut command = self.sandbox.command(&arguments);
        self.server.identify(&mut command);
        command
    }

    /// Runs `lifeboat ARGUMENTS --store STORE`, through the proxy.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments, &self.url()))
    }

    /// The same, and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.sandbox.start_command(self.command(arguments, &self.url()))
    }

    /// The same without the proxy between.
    pub(crate) fn direct(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments, &self.direct_url()))
    }

    /// The ids of app.db's snapshots that the store lists.
    pub(crate) fn ids(&self) -> Vec<String> {
        let listed: Value = self.direct(&["list", "--json"]).code(0).json();
        let ids = listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        let (app, first): (Vec<_>, Vec<_>) = ids.partition(|id| id.starts_with("app-"));
        assert_eq!(first.len(), 1, "the older snapshot of another source is untouched");
        app
    }

    /// Every object of the store, by its key.
    pub(crate) fn objects(&self) -> Vec<String> {
        let store = self.server.open(&self.direct_url());
        let top = store.list("", Names::All).unwrap();
        let mut keys: Vec<String> = top.objects.iter().map(|object| object.key.to_string()).collect();
        for folder in &top.folders {
            keys.extend(store.list(folder, Names::All).unwrap().objects.iter().map(|object| object.key.to_string()));
        }
        keys
    }

    /// Bytes in unfinished uploads, which are cleared by the asking.
    pub(crate) fn unfinished_bytes(&self) -> u64 {
        let store = self.server.open(&self.direct_url());
        store.clear_leftovers(std::time::Duration::ZERO).unwrap()
    }

    /// Requires that the one snapshot of app.db is whole, byte for byte, and that nothing else of it is there.
    #[track_caller]
    pub(crate) fn require_whole(&self, what: &str) {
        assert_eq!(self.ids().len(), 1, "{what}");
        self.direct(&["restore", "latest", "--source", "app", "--to", "back.db"]).code(0);
        let back = |name| std::fs::read(self.sandbox.path(name)).unwrap();
        let wanted = Connection::open(self.sandbox.path("app.db")).unwrap();
        let found = Connection::open(self.sandbox.path("back.db")).unwrap();
        let sum = |database: &Connection| -> (i64, Vec<u8>) {
            let all = "SELECT count(*), (SELECT body FROM noise ORDER BY id DESC LIMIT 1) FROM noise";
            database.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(sum(&wanted), sum(&found), "{what}");
        assert!(back("back.db").len() > NOISE_BYTES as usize, "{what}");
        std::fs::remove_file(self.sandbox.path("back.db")).unwrap();
    }

    /// Requires that a failure has left nothing: no snapshot, no object of its own, no unfinished upload.
    #[track_caller]
    pub(crate) fn require_nothing(&self, what: &str) {
        assert_eq!(self.ids(), [""; 0], "{what}");
        let own: Vec<String> = self.objects().into_iter().filter(|key| key.starts_with("app/")).collect();
        assert_eq!(own, [""; 0], "{what}");
        assert_eq!(self.unfinished_bytes(), 0, "{what}");
    }
}

/// Requires that a run has failed as one should: such an exit code, one line that says what, perhaps a hint, no panic, no key.
#[track_caller]
pub(crate) fn require_clear_failure(run: &Run, codes: &[i32], server: &S3Server) {
    assert!(codes.contains(&run.exit()), "{}", run.transcript());
    let stderr = run.stderr();
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{}", run.transcript());
    assert!(!stderr.contains("panicked"), "{}", run.transcript());
    assert!(!stderr.contains(&server.secret_key) && !run.stdout().contains(&server.secret_key), "{}", run.transcript());
}
