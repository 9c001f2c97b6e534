//! A process of `lifeboat serve`, and an HTTP client that can also send invalid requests.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::Sandbox;

pub const TOKEN: &str = "0123456789abcdef-token";

/// A running `lifeboat serve`, which is killed when this is dropped.
pub struct ServeProcess {
    pub address: String,
    child: Child,
    log: std::path::PathBuf,
}

/// An HTTP response. The header is in lower case.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl ServeProcess {
    /// Starts the server in the sandbox, at a free port.
    pub fn start(sandbox: &Sandbox) -> ServeProcess {
        ServeProcess::start_with(sandbox, |_| {})
    }

    /// Starts the server with a command that `prepare` can change.
    pub fn start_with(sandbox: &Sandbox, prepare: impl FnOnce(&mut Command)) -> ServeProcess {
        let log = sandbox.path("serve.log");
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        prepare(command.env("LIFEBOAT_TOKEN", TOKEN));
        let child = command.spawn().unwrap();
        let mut serve = ServeProcess { address: String::new(), child, log };
        wait_for("the server to listen", || {
            let log = std::fs::read_to_string(&serve.log).unwrap_or_default();
            let found = log.lines().find_map(|line| line.split("listening at http://").nth(1)).map(str::to_owned);
            assert!(found.is_some() || serve.child.try_wait().unwrap().is_none(), "the server has ended: {log}");
            serve.address = found.unwrap_or_default();
            !serve.address.is_empty()
        });
        serve
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", "")
    }

    /// Requests a snapshot with the token.
    pub fn post(&self, body: &str) -> Answer {
        self.request("POST", "/snapshots", &format!("Authorization: Bearer {TOKEN}\r\n"), body)
    }

    /// Sends a request. `headers` are complete lines, each with its line end.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
        self.send(format!("{head}{headers}\r\n{body}").as_bytes()).expect("an answer")
    }

    /// Sends these bytes and returns the answer, if there is one.
    pub fn send(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // The server may answer and close the connection before everything is sent.
        let _ = stream.write_all(bytes);
        read_answer(&mut stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// Waits until `/health/data` has this status and `is_expected` accepts its document. Returns the document.
    pub fn wait_for_health(&self, status: u16, is_expected: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("health to be {status}"), || {
            let answer = self.get("/health/data");
            last = answer.json();
            answer.status == status && is_expected(&last)
        });
        last
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the server ends, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for("the server to end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for ServeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads until the server closes the connection. Returns the answer, or `None` if it is incomplete.
pub fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // After an error, the bytes that were received until then are the answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// Waits until a condition is true, for at most a minute.
pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(60), "timed out waiting for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs SQL on an SQLite database in WAL mode.
pub fn sql(sandbox: &Sandbox, file: &str, script: &str) {
    let connection = rusqlite::Connection::open(sandbox.path(file)).unwrap();
    connection.execute_batch(&format!("PRAGMA journal_mode = wal; {script}")).unwrap();
}

/// Creates a sandbox with a database `app.db`, a config with a rule and a check every second, and one snapshot.
pub fn app() -> Sandbox {
    let sandbox = Sandbox::new();
    sql(
        &sandbox,
        "app.db",
        "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO accounts (name) VALUES ('a'), ('b');
         CREATE TABLE log (line TEXT); INSERT INTO log VALUES ('x'), ('y'), ('z');",
    );
    configure(&sandbox, "");
    std::fs::create_dir(sandbox.path("scratch")).unwrap_or_default();
    sandbox.ok(&["snapshot", "app", "--store", "backups"]);
    sandbox
}

/// Writes the config of [`app`] with `more` at its end.
pub fn configure(sandbox: &Sandbox, more: &str) {
    let config = format!(
        "[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n[[source.rule]]\n\
         table = \"accounts\"\nmin_rows = 1\n[serve]\nevery = \"1s\"\ntimeout = \"2s\"\n\
         token = \"${{LIFEBOAT_TOKEN:-}}\"\npublic = true\n{more}"
    );
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
}

/// Makes the database of [`app`] so large that a snapshot of it takes some time.
pub fn make_database_large(sandbox: &Sandbox) {
    sql(
        sandbox,
        "app.db",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
         INSERT INTO log SELECT randomblob(100000) FROM n",
    );
}
