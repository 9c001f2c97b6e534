//! Databases with TimescaleDB: those that `scripts/servers` started, or on a server of one's own choice.
//!
//! Those of `scripts/servers` are compiled to WebAssembly and let one session in at a time, without background workers:
//! they test definitions, rows and policies, not what happens side by side. LIFEBOAT_TEST_TIMESCALE names a full server
//! (`postgres://role@host:port`, of a role that makes databases), on which the same tests run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

use super::postgres::server;

/// An empty database for one test alone, until it is dropped.
pub struct TimescaleDatabase {
    url: String,
    psql: PathBuf,
    /// On a server of one's own choice: where to drop it.
    made_on: Option<String>,
    /// Of those that all tests share: held while it is used.
    _lock: Option<File>,
}

#[derive(Deserialize)]
struct Entry {
    ports: Vec<u16>,
    user: String,
    database: String,
}

/// One test waits for databases at a time: two that each have one, and want another, would wait for ever.
static TAKING: Mutex<()> = Mutex::new(());

/// Takes so many databases, without the extension.
#[track_caller]
pub fn take<const COUNT: usize>() -> [TimescaleDatabase; COUNT] {
    let psql = server(15).psql;
    if let Ok(url) = std::env::var("LIFEBOAT_TEST_TIMESCALE") {
        return std::array::from_fn(|_| TimescaleDatabase::create(&url, &psql));
    }
    let folder = std::env::var("LIFEBOAT_TEST_SERVERS").unwrap();
    let path = Path::new(&folder).join("timescale.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}: this test needs TimescaleDB; run 'scripts/servers run 15 timescale -- ...'",
            path.display()
        )
    });
    let entries: Vec<Entry> = serde_json::from_str(&text).unwrap();
    let entry = &entries[0];
    assert!(COUNT <= entry.ports.len(), "there are {} databases", entry.ports.len());
    let turn = TAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let all = File::create(Path::new(&folder).join("timescale.lock")).unwrap();
    all.lock().unwrap();
    let mut found = Vec::new();
    while found.len() < COUNT {
        for port in &entry.ports {
            let lock = File::create(Path::new(&folder).join(format!("timescale-{port}.lock"))).unwrap();
            if found.len() < COUNT && lock.try_lock().is_ok() {
                let url = |name: &str| format!("postgres://{}@127.0.0.1:{port}/{name}", entry.user);
                // Whoever was there before has left everything.
                run(&psql, &url("fresh"), "SELECT 1");
                let (url, psql) = (url(&entry.database), psql.clone());
                found.push(TimescaleDatabase { url, psql, made_on: None, _lock: Some(lock) });
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop((all, turn));
    found.try_into().ok().unwrap()
}

/// Whether it is one of those that let one session in at a time.
pub fn is_alone() -> bool {
    std::env::var_os("LIFEBOAT_TEST_TIMESCALE").is_none()
}

impl TimescaleDatabase {
    fn create(server: &str, psql: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("timescale_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let home = format!("{server}/postgres");
        run(psql, &home, &format!("CREATE DATABASE {name} TEMPLATE template0"));
        TimescaleDatabase { url: format!("{server}/{name}"), psql: psql.to_owned(), made_on: Some(home), _lock: None }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Runs a script as psql does, one statement after the other, stopping at the first error; what it prints.
    #[track_caller]
    pub fn psql(&self, script: &str) -> String {
        run(&self.psql, &self.url, script)
    }

    /// The same of a file, with the folder that it stands in.
    #[track_caller]
    pub fn psql_file(&self, file: &Path) {
        let mut command = command(&self.psql, &self.url);
        command.arg("-f").arg(file).current_dir(file.parent().unwrap());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The rows of a query, one line each.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<String> {
        self.psql(query).lines().map(str::to_owned).collect()
    }
}

impl Drop for TimescaleDatabase {
    fn drop(&mut self) {
        let Some(home) = &self.made_on else { return };
        let name = self.url.rsplit('/').next().unwrap_or_default();
        let _ = command(&self.psql, home).arg("-c").arg(format!("DROP DATABASE {name} WITH (FORCE)")).output();
    }
}

fn command(psql: &Path, url: &str) -> Command {
    let mut command = Command::new(psql);
    command.env_clear().env("LC_ALL", "C.UTF-8").env("PGCLIENTENCODING", "UTF8").env("PGOPTIONS", "-c TimeZone=UTC");
    command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", url]);
    command
}

#[track_caller]
fn run(psql: &Path, url: &str, script: &str) -> String {
    use std::io::Write as _;
    let mut command = command(psql, url);
    command.args(["-f", "-"]).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{url}\n{script}\n-- stdout\n{out}-- stderr\n{err}");
    out.into_owned()
}
