//! A server under test, and a client that says exactly what is to be said.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::Sandbox;

pub const TOKEN: &str = "0123456789abcdef-token";

/// A `lifeboat serve` that runs.
pub struct Served {
    pub address: String,
    child: Child,
    log: std::path::PathBuf,
}

/// An answer.
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

impl Served {
    /// Starts it in the sandbox, at a port of the system's choice.
    pub fn start(sandbox: &Sandbox) -> Served {
        Served::start_with(sandbox, |_| {})
    }

    /// Starts it with more in its environment.
    pub fn start_with(sandbox: &Sandbox, prepare: impl FnOnce(&mut Command)) -> Served {
        let log = sandbox.path("serve.log");
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        prepare(command.env("LIFEBOAT_TOKEN", TOKEN));
        let child = command.spawn().unwrap();
        let mut served = Served { address: String::new(), child, log };
        wait_for("it to listen", || {
            let log = std::fs::read_to_string(&served.log).unwrap_or_default();
            let found = log.lines().find_map(|line| line.split("listening at http://").nth(1)).map(str::to_owned);
            assert!(found.is_some() || served.child.try_wait().unwrap().is_none(), "it has ended: {log}");
            served.address = found.unwrap_or_default();
            !served.address.is_empty()
        });
        served
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }

    /// Asks with the token.
    pub fn post(&self, body: &str) -> Answer {
        self.ask("POST", "/snapshots", &format!("Authorization: Bearer {TOKEN}\r\n"), body)
    }

    /// Asks; `headers` are whole lines.
    pub fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n");
        self.send(format!("{head}{headers}\r\n{body}").as_bytes()).expect("an answer")
    }

    /// Sends bytes as they are; the answer, if there is one.
    pub fn send(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // A server that has heard enough answers before all is sent.
        let _ = stream.write_all(bytes);
        read_answer(&mut stream)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream
    }

    /// Waits until `/health/data` has this status and its document is as wanted.
    pub fn wait_for_health(&self, status: u16, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("health to be {status}"), || {
            let answer = self.get("/health/data");
            last = answer.json();
            answer.status == status && is_wanted(&last)
        });
        last
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for it to end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        wait_for("it to end", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A connection that was cut has said what it had to say.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

pub fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs SQL on an SQLite file.
pub fn sql(sandbox: &Sandbox, file: &str, script: &str) {
    let connection = rusqlite::Connection::open(sandbox.path(file)).unwrap();
    connection.execute_batch(&format!("PRAGMA journal_mode = wal; {script}")).unwrap();
}

/// An app's database with a rule, a store in a folder, and looks every second.
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

/// Writes the config of [`app`], and what is given behind it.
pub fn configure(sandbox: &Sandbox, more: &str) {
    let config = format!(
        "[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./app.db\"\n[[source.rule]]\n\
         table = \"accounts\"\nmin_rows = 1\n[serve]\nevery = \"1s\"\ntimeout = \"2s\"\n\
         token = \"${{LIFEBOAT_TOKEN:-}}\"\npublic = true\n{more}"
    );
    std::fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
}

/// Runs a program and requires that it succeeds; what it prints.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes the app's database so large that a snapshot takes a while, and takes one.
pub fn grow(sandbox: &Sandbox) {
    sql(
        sandbox,
        "app.db",
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
         INSERT INTO log SELECT randomblob(100000) FROM n",
    );
}
