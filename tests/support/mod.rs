//! What all tests share: a folder of one's own, the program in it, databases to save.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod actions;
pub mod compare;
pub mod craft;
pub mod postgres;
pub mod proxy;
pub mod s3;
pub mod s3_proxy;
pub mod samples;
pub mod timescale;
pub mod vault;
pub mod web;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// The longest time that a run of the program may take in a test. A longer one is killed, and the test fails.
pub const LONGEST_RUN: Duration = Duration::from_secs(300);

/// The program under test.
pub const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A folder of one's own, gone at the end.
pub struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        default_signals();
        Sandbox { folder: tempfile::Builder::new().prefix("lifeboat-test-").tempdir().unwrap() }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }

    /// The program, to be run in this folder, untouched by the outer environment.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(LIFEBOAT);
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null());
        for name in ["LIFEBOAT_IDENTITY", "LIFEBOAT_HOST", "LIFEBOAT_SCRATCH", "LIFEBOAT_STORE", "LIFEBOAT_CONFIG"] {
            command.env_remove(name);
        }
        // Scratch stays inside, so that what is left over shows.
        std::fs::create_dir_all(self.path("scratch")).unwrap();
        command.env("TMPDIR", self.path("scratch"));
        command
    }

    /// Runs `lifeboat ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.finish(self.command(arguments))
    }

    /// Runs a command that [`command`](Self::command) made, to its end.
    pub fn finish(&self, command: Command) -> Run {
        self.start_command(command).finish()
    }

    /// Starts `lifeboat ARGUMENTS` and leaves it running.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_command(self.command(arguments))
    }

    /// Starts a command that [`command`](Self::command) made, and leaves it running.
    pub fn start_command(&self, mut command: Command) -> Running {
        let what: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Some(command.spawn().unwrap());
        Running { what: what.join(" "), root: self.root().to_owned(), child }
    }

    /// Runs it and requires exit code 0.
    pub fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).code(0)
    }

    /// Runs it with `--json`, requires exit code 0, and reads the document.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.ok(&arguments).json()
    }

    /// Takes a snapshot of `source` into `./backups`; its id.
    pub fn snapshot(&self, source: &str) -> String {
        let document = self.json(&["snapshot", source, "--store", "backups"]);
        document["snapshots"][0]["id"].as_str().unwrap().to_owned()
    }

    /// The ids that `list` shows, newest first.
    pub fn ids(&self) -> Vec<String> {
        let document = self.json(&["list", "--store", "backups"]);
        document["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Path, length and SHA-256 of every file below this folder (scratch aside), for saying that nothing changed.
    pub fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut state = BTreeMap::new();
        collect(self.root(), self.root(), &mut state);
        state.retain(|path, _| !path.starts_with("scratch"));
        state
    }
}

fn collect(root: &Path, folder: &Path, state: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let facts = std::fs::symlink_metadata(&path).unwrap();
        if facts.is_dir() {
            state.insert(name, "folder".to_owned());
            collect(root, &path, state);
        } else if facts.is_symlink() {
            state.insert(name, format!("link to {}", std::fs::read_link(&path).unwrap().display()));
        } else if facts.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            state.insert(name, format!("{} {}", bytes.len(), lifeboat::platform::digest::Sha256::of(&bytes)));
        }
    }
}

/// A run of the program that goes on meanwhile; killed when dropped.
pub struct Running {
    what: String,
    root: PathBuf,
    child: Option<Child>,
}

impl Running {
    /// Sends a signal; one that has ended gets none.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its end, which must come within [`LONGEST_RUN`].
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let is_late = end.recv_timeout(LONGEST_RUN) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if is_late {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            is_late
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        let run = Run { what: self.what.clone(), root: self.root.clone(), output };
        assert!(!watch.join().unwrap(), "it did not end within {LONGEST_RUN:?}\n{}", run.transcript());
        run
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A finished run of the program.
pub struct Run {
    what: String,
    root: PathBuf,
    pub output: Output,
}

impl Run {
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The exit code; 128 and the signal's number where a signal ended it.
    pub fn exit(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.output.status.code().unwrap_or_else(|| 128 + self.output.status.signal().unwrap_or(0))
    }

    /// Requires an exit code; shows everything where it is another.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.exit(), expected, "{}", self.transcript());
        self
    }

    /// The JSON document on stdout, which must be exactly one.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.transcript()))
    }

    /// Requires words on stderr.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr().contains(words), "stderr lacks '{words}'\n{}", self.transcript());
        self
    }

    /// Command, exit code, both streams and the folder.
    pub fn transcript(&self) -> String {
        let mut files = BTreeMap::new();
        collect(&self.root, &self.root, &mut files);
        let mut listing = String::new();
        for (path, what) in files {
            let _ = writeln!(listing, "  {} {}", path.display(), what.split(' ').next().unwrap_or_default());
        }
        format!(
            "$ lifeboat {}\nexit {}\n-- stdout\n{}-- stderr\n{}-- files\n{listing}",
            self.what,
            self.exit(),
            self.stdout(),
            self.stderr()
        )
    }
}

/// This test program again, to run one of its tests as a process of its own: `module` is the caller's `module_path!()`.
/// The tests that are run so have names that begin with `child_`, and are ignored otherwise.
pub fn child_test(module: &str, test: &str) -> Command {
    default_signals();
    let (_, inner) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{inner}::{test}"), "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// The name of the test that runs: as cargo-nextest gives it, or from the thread that `cargo test` runs it on.
pub fn test_name() -> String {
    let thread = std::thread::current();
    std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| thread.name().unwrap_or("a test").to_owned())
}

/// Says that a test, or a part of it, cannot be run on this machine. `scripts/test` lists all that was skipped.
pub fn skip(reason: &str) {
    let line = format!("{}: {reason}\n", test_name());
    // Not eprintln, which the harness hides where a test passes.
    let _ = write!(std::io::stderr().lock(), "SKIPPED {line}");
    if let Some(path) = std::env::var_os("LIFEBOAT_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}

/// The same for what every machine that CI runs on can do: there it is a failure.
#[track_caller]
pub fn skip_unless_ci(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}: this must not be skipped in CI");
    skip(reason);
}

/// Returns true if all these programs are here; otherwise the test that asks is reported as skipped.
#[track_caller]
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_here = |program: &&&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing: Vec<&str> = programs.iter().filter(|program| !is_here(program)).copied().collect();
    if !missing.is_empty() {
        skip_unless_ci(&format!("it needs {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Gives the programs that a test starts the default dispositions of signals, wherever the tests were started: `nohup`
/// ignores SIGHUP, the background of a script ignores SIGINT and SIGQUIT, and a program inherits what is ignored.
///
/// A signal with a handler gets its default when another program is executed. The handler here does nothing, so this
/// process goes on ignoring the signal.
pub fn default_signals() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            if ignored & (1 << (signal - 1)) != 0 {
                signal_hook::flag::register(signal, Arc::default()).unwrap();
            }
        }
    });
}

/// Opens a database as any program would, foreign keys not enforced.
pub fn open(path: impl AsRef<Path>) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection
}

/// A small database with accounts, balances that refer to them, JSON logs, an index, a view and a trigger.
/// `journal` is `wal` or `delete`.
pub fn sample(path: impl AsRef<Path>, accounts: u32, journal: &str) {
    let connection = open(path);
    let _: String = connection.query_row(&format!("PRAGMA journal_mode = {journal}"), [], |row| row.get(0)).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT NOT NULL, currency TEXT NOT NULL DEFAULT 'EUR');
             CREATE TABLE balances (id INTEGER PRIMARY KEY AUTOINCREMENT, account_id INTEGER NOT NULL REFERENCES accounts(id),
                                    amount REAL, created_at TEXT);
             CREATE TABLE logs (at TEXT, body TEXT);
             CREATE INDEX balances_by_account ON balances (account_id, created_at DESC);
             CREATE VIEW totals AS SELECT account_id, sum(amount) AS total FROM balances GROUP BY account_id;
             CREATE TRIGGER log_balance AFTER DELETE ON balances BEGIN INSERT INTO logs VALUES ('now', 'deleted ' || old.id); END;
             BEGIN;",
        )
        .unwrap();
    for account in 1..=accounts {
        connection
            .execute("INSERT INTO accounts (id, name) VALUES (?1, ?2)", (account, format!("account {account}")))
            .unwrap();
        for day in 1..=10u32 {
            let balance = f64::from(account * 100 + day) / 3.0;
            let at = format!("2026-11-{day:02}T12:00:00");
            connection
                .execute(
                    "INSERT INTO balances (account_id, amount, created_at) VALUES (?1, ?2, ?3)",
                    (account, balance, &at),
                )
                .unwrap();
            let body = format!(
                "{{\"account\":{account},\"day\":{day},\"status\":\"ok\",\"took_ms\":{}}}",
                account * day % 997
            );
            connection.execute("INSERT INTO logs VALUES (?1, ?2)", (&at, body)).unwrap();
        }
    }
    connection.execute_batch("COMMIT").unwrap();
}

/// The number of rows of a table.
pub fn count(path: impl AsRef<Path>, table: &str) -> i64 {
    open(path)
        .query_row(&format!("SELECT count(*) FROM \"{}\"", table.replace('"', "\"\"")), [], |row| row.get(0))
        .unwrap()
}

/// What `integrity_check` says; `ok` when all is well.
pub fn integrity(path: impl AsRef<Path>) -> String {
    open(path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// All rows of all tables, for comparing two databases by another way than the program's own.
pub fn content(path: impl AsRef<Path>) -> BTreeMap<String, Vec<String>> {
    let connection = open(path);
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().flatten().collect();
    let mut content = BTreeMap::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\""))).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            Ok((0..columns).map(|i| format!("{:?}", row.get_ref(i).unwrap())).collect::<Vec<_>>().join("|"))
        });
        let mut rows: Vec<String> = rows.unwrap().flatten().collect();
        rows.sort();
        content.insert(name, rows);
    }
    content
}

/// A database that others made, fetched by `scripts/test`.
#[track_caller]
pub fn real_database(name: &str) -> PathBuf {
    let folder = std::env::var_os("LIFEBOAT_TEST_DATA")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/lifeboat/data"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run scripts/test, which fetches it", path.display());
    path
}

/// Copies a folder and all in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}
