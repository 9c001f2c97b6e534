//! Code that all tests share: a sandbox to run the program in, sample databases, and servers.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

pub mod actions;
pub mod bucket;
pub mod compare;
pub mod controlled_store;
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

/// The longest time that a run of the program may take in a test. A longer run is killed, and the test fails.
pub const LONGEST_RUN: Duration = Duration::from_secs(300);

/// The program under test.
pub const LIFEBOAT: &str = env!("CARGO_BIN_EXE_lifeboat");

/// A temporary folder for one test, removed when it is dropped.
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

    /// Returns a command that runs the program in this folder, without Lifeboat's variables of the outer environment.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = self.command_of(LIFEBOAT);
        command.args(arguments);
        command
    }

    /// Returns a command that runs another program in the same way.
    pub fn command_of(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.root()).stdin(Stdio::null());
        for name in ["LIFEBOAT_IDENTITY", "LIFEBOAT_HOST", "LIFEBOAT_SCRATCH", "LIFEBOAT_STORE", "LIFEBOAT_CONFIG"] {
            command.env_remove(name);
        }
        // The scratch folder is inside, so that a test sees what a run leaves there.
        std::fs::create_dir_all(self.path("scratch")).unwrap();
        command.env("TMPDIR", self.path("scratch"));
        command
    }

    /// Runs `lifeboat ARGUMENTS`.
    pub fn run(&self, arguments: &[&str]) -> Run {
        self.finish(self.command(arguments))
    }

    /// Runs a command from [`command`](Self::command) to its end.
    pub fn finish(&self, command: Command) -> Run {
        self.start_command(command).finish()
    }

    /// Starts `lifeboat ARGUMENTS` and leaves it running.
    pub fn start(&self, arguments: &[&str]) -> Running {
        self.start_command(self.command(arguments))
    }

    /// Starts a command from [`command`](Self::command) and leaves it running.
    pub fn start_command(&self, mut command: Command) -> Running {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = Some(command.spawn().unwrap());
        Running { arguments: arguments.join(" "), root: self.root().to_owned(), child }
    }

    /// Runs `lifeboat ARGUMENTS` and requires exit code 0.
    pub fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).code(0)
    }

    /// Runs `lifeboat ARGUMENTS --json`, requires exit code 0, and returns the document.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.push("--json");
        self.ok(&arguments).json()
    }

    /// Takes a snapshot of `source` into `./backups` and returns its id.
    pub fn snapshot(&self, source: &str) -> String {
        let document = self.json(&["snapshot", source, "--store", "backups"]);
        document["snapshots"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Returns the ids that `list` shows, newest first.
    pub fn ids(&self) -> Vec<String> {
        let document = self.json(&["list", "--store", "backups"]);
        document["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Returns path, length and SHA-256 of every file in this folder, without the scratch folder. Two equal states
    /// show that nothing changed.
    pub fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut state = BTreeMap::new();
        collect(self.root(), self.root(), &mut state);
        state.retain(|path, _| !path.starts_with("scratch"));
        state
    }
}

/// Adds the state of every file below `folder` to `state`. Leaves out those that are removed meanwhile.
fn collect(root: &Path, folder: &Path, state: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            state.insert(name, "folder".to_owned());
            collect(root, &path, state);
        } else if metadata.is_symlink() {
            state.insert(name, format!("link to {}", std::fs::read_link(&path).unwrap().display()));
        } else if metadata.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            state.insert(name, format!("{} {}", bytes.len(), lifeboat::platform::digest::Sha256::of(&bytes)));
        }
    }
}

/// A run of the program that is not finished yet. Dropping it kills the program.
pub struct Running {
    arguments: String,
    root: PathBuf,
    child: Option<Child>,
}

impl Running {
    /// Sends a signal, if the program still runs.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().unwrap();
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for the end of the program, which must come within [`LONGEST_RUN`].
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        // The watchdog waits until this channel is closed, and kills the program if that takes too long.
        let (running, closed) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let is_late = closed.recv_timeout(LONGEST_RUN) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if is_late {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            is_late
        });
        let output = child.wait_with_output().unwrap();
        drop(running);
        let run = Run { arguments: self.arguments.clone(), root: self.root.clone(), output };
        assert!(!watchdog.join().unwrap(), "the program did not end within {LONGEST_RUN:?}\n{}", run.transcript());
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
    arguments: String,
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

    /// Returns the exit code, or 128 plus the number of the signal that ended the program.
    pub fn exit(&self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        self.output.status.code().unwrap_or_else(|| 128 + self.output.status.signal().unwrap_or(0))
    }

    /// Requires an exit code. The failure message is the transcript.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.exit(), expected, "{}", self.transcript());
        self
    }

    /// Parses stdout, which must be exactly one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.output.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.transcript()))
    }

    /// Requires that stderr contains these words.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.stderr().contains(words), "stderr does not contain '{words}'\n{}", self.transcript());
        self
    }

    /// Returns the command, the exit code, both streams, and a list of the files in the folder.
    pub fn transcript(&self) -> String {
        let mut files = BTreeMap::new();
        collect(&self.root, &self.root, &mut files);
        let mut listing = String::new();
        for (path, state) in files {
            let _ = writeln!(listing, "  {} {}", path.display(), state.split(' ').next().unwrap_or_default());
        }
        format!(
            "$ lifeboat {}\nexit {}\n-- stdout\n{}-- stderr\n{}-- files\n{listing}",
            self.arguments,
            self.exit(),
            self.stdout(),
            self.stderr()
        )
    }
}

/// Returns a command that runs one test of this test program in another process. `module` is the caller's
/// `module_path!()`. Such a test has a name that begins with `child_`, and is ignored otherwise.
pub fn child_test(module: &str, test: &str) -> Command {
    default_signals();
    let (_, path) = module.split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{path}::{test}"), "--ignored", "--nocapture", "--test-threads=1"]);
    command
}

/// Returns the name of the running test, from cargo-nextest or from the thread on which `cargo test` runs it.
pub fn test_name() -> String {
    let thread = std::thread::current();
    std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| thread.name().unwrap_or("a test").to_owned())
}

/// Reports that a test, or a part of it, cannot run on this machine. `scripts/test` lists the skipped tests.
pub fn skip(reason: &str) {
    let line = format!("{}: {reason}\n", test_name());
    // The test harness hides the output of `eprintln!` if the test passes.
    let _ = write!(std::io::stderr().lock(), "SKIPPED {line}");
    if let Some(path) = std::env::var_os("LIFEBOAT_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}

/// Does the same as [`skip`], but fails in CI, whose machines can run the test.
#[track_caller]
pub fn skip_unless_ci(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}: this must not be skipped in CI");
    skip(reason);
}

/// Returns true if all these programs are installed; otherwise reports the test as skipped.
#[track_caller]
pub fn have(programs: &[&str]) -> bool {
    let is_installed = |program: &&&str| program_path(program).is_some();
    let missing: Vec<&str> = programs.iter().filter(|program| !is_installed(program)).copied().collect();
    if !missing.is_empty() {
        skip_unless_ci(&format!("it needs {}", missing.join(", ")));
    }
    missing.is_empty()
}

/// Returns the path of a program. Debian installs servers in a folder that is not in the PATH of every user.
pub fn program_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Makes the programs that a test starts handle signals by default, even if the tests were started with ignored
/// signals: `nohup` ignores SIGHUP, a background job of a script ignores SIGINT and SIGQUIT, and a program inherits
/// this.
///
/// A signal that has a handler gets its default action when another program is executed. The handler here does nothing,
/// so this process still ignores the signal.
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

/// Opens a database as another program would do, with foreign keys not enforced.
pub fn open(path: impl AsRef<Path>) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection
}

/// Creates a small database with accounts, balances that refer to them, JSON logs, an index, a view and a trigger.
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

/// Returns the number of rows of a table.
pub fn count(path: impl AsRef<Path>, table: &str) -> i64 {
    open(path)
        .query_row(&format!("SELECT count(*) FROM \"{}\"", table.replace('"', "\"\"")), [], |row| row.get(0))
        .unwrap()
}

/// Returns the result of `integrity_check`, which is `ok` for an intact database.
pub fn integrity(path: impl AsRef<Path>) -> String {
    open(path).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// Returns all rows of all tables, for a comparison of two databases that does not use the program's own code.
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

/// Returns the path of a public database that `scripts/test` has fetched.
#[track_caller]
pub fn real_database(name: &str) -> PathBuf {
    let folder = std::env::var_os("LIFEBOAT_TEST_DATA")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/lifeboat/data"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run scripts/test, which fetches it", path.display());
    path
}

/// Copies a folder and everything in it.
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
