//! Databases with TimescaleDB: those that `scripts/servers` started, or new ones on the server in
//! LIFEBOAT_TEST_TIMESCALE.
//!
//! The servers of `scripts/servers` are compiled to WebAssembly. They accept one session at a time and have no
//! background workers, so they suit tests of definitions, rows and policies, but not of concurrency.
//! LIFEBOAT_TEST_TIMESCALE names a full server (`postgres://role@host:port`, with a role that may create databases), on
//! which the same tests run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;

use super::postgres::server;

/// An empty database that one test uses alone, until this value is dropped.
pub struct TimescaleDatabase {
    url: String,
    psql: PathBuf,
    /// The URL on which the database is dropped, if it was created on the server in LIFEBOAT_TEST_TIMESCALE.
    drop_url: Option<String>,
    /// The lock that reserves the database, if it is one of those that all tests share.
    _lock: Option<File>,
}

#[derive(Deserialize)]
struct Entry {
    ports: Vec<u16>,
    user: String,
    database: String,
}

/// Lets one test at a time wait for databases. Otherwise two tests that each have one database and need another would
/// wait for ever.
static WAITING: Mutex<()> = Mutex::new(());

/// Reserves `COUNT` databases, in which the extension is not yet created.
#[track_caller]
pub fn take_databases<const COUNT: usize>() -> [TimescaleDatabase; COUNT] {
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
    assert!(COUNT <= entry.ports.len(), "there are only {} databases", entry.ports.len());
    let turn = WAITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let turn_file = File::create(Path::new(&folder).join("timescale.lock")).unwrap();
    turn_file.lock().unwrap();
    let mut found = Vec::new();
    while found.len() < COUNT {
        for port in &entry.ports {
            let lock = File::create(Path::new(&folder).join(format!("timescale-{port}.lock"))).unwrap();
            if found.len() < COUNT && lock.try_lock().is_ok() {
                let url = |name: &str| format!("postgres://{}@127.0.0.1:{port}/{name}", entry.user);
                // The database still has the data of the previous test. A connection to 'fresh' replaces it by an empty
                // one.
                run(&psql, &url("fresh"), "SELECT 1");
                let (url, psql) = (url(&entry.database), psql.clone());
                found.push(TimescaleDatabase { url, psql, drop_url: None, _lock: Some(lock) });
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop((turn_file, turn));
    found.try_into().ok().unwrap()
}

/// Returns true if the databases accept only one session at a time.
pub fn has_single_session() -> bool {
    std::env::var_os("LIFEBOAT_TEST_TIMESCALE").is_none()
}

impl TimescaleDatabase {
    fn create(server: &str, psql: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("timescale_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let maintenance_url = format!("{server}/postgres");
        run(psql, &maintenance_url, &format!("CREATE DATABASE {name} TEMPLATE template0"));
        let url = format!("{server}/{name}");
        TimescaleDatabase { url, psql: psql.to_owned(), drop_url: Some(maintenance_url), _lock: None }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Runs a script with psql, which stops at the first error, and returns its output.
    #[track_caller]
    pub fn psql(&self, script: &str) -> String {
        run(&self.psql, &self.url, script)
    }

    /// Runs a script file with psql in the folder of the file.
    #[track_caller]
    pub fn psql_file(&self, file: &Path) {
        let mut command = command(&self.psql, &self.url);
        command.arg("-f").arg(file).current_dir(file.parent().unwrap());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the rows of a query, one line each.
    #[track_caller]
    pub fn rows(&self, query: &str) -> Vec<String> {
        self.psql(query).lines().map(str::to_owned).collect()
    }
}

impl Drop for TimescaleDatabase {
    fn drop(&mut self) {
        let Some(maintenance_url) = &self.drop_url else { return };
        let name = self.url.rsplit('/').next().unwrap_or_default();
        let statement = format!("DROP DATABASE {name} WITH (FORCE)");
        let _ = command(&self.psql, maintenance_url).arg("-c").arg(statement).output();
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
