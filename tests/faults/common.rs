//! Databases, stores and commands that the tests of failures share.

use crate::support::{Sandbox, integrity, open, sample};
use chrono::Utc;
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Random numbers from a seed that is printed. With it in `LIFEBOAT_TEST_SEED` a run can be repeated.
pub(crate) struct Random {
    pub(crate) seed: u64,
    pub(crate) state: u64,
}

impl Random {
    pub(crate) fn new() -> Self {
        let from_environment = std::env::var("LIFEBOAT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = from_environment.unwrap_or_else(|| Utc::now().timestamp_micros().unsigned_abs());
        eprintln!("LIFEBOAT_TEST_SEED={seed}");
        Random { seed, state: seed }
    }

    /// Returns the next number between 0 and 1 (SplitMix64).
    pub(crate) fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

/// Returns the number of rows and a hash of all rows for every table, which is quicker than a comparison of the rows.
/// The order of the rows does not matter.
pub(crate) fn fingerprint(path: impl AsRef<Path>) -> BTreeMap<String, (u64, u64)> {
    let connection = open(path);
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").unwrap();
    let names: Vec<String> = names.query_map([], |row| row.get(0)).unwrap().map(rusqlite::Result::unwrap).collect();
    let mut prints = BTreeMap::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        let (mut count, mut sum) = (0, 0u64);
        while let Some(row) = rows.next().unwrap() {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            for column in 0..columns {
                let value: rusqlite::types::Value = row.get(column).unwrap();
                match value {
                    rusqlite::types::Value::Text(text) => text.hash(&mut hasher),
                    other => format!("{other:?}").hash(&mut hasher),
                }
            }
            count += 1;
            sum = sum.wrapping_add(hasher.finish());
        }
        prints.insert(name, (count, sum));
    }
    prints
}

/// Copies the files of a folder and of the folders below it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Returns the sorted names in a folder and below. A missing folder counts as empty.
pub(crate) fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut remaining = vec![folder.to_owned()];
    while let Some(next) = remaining.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remaining.push(entry.path());
            }
            names.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
        }
    }
    names.sort();
    names
}

/// Returns a command that runs the program in `folder`, with its scratch in `folder/scratch`.
pub(crate) fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::support::LIFEBOAT);
    command.args(arguments);
    prepare(&mut command, folder);
    command
}

pub(crate) fn prepare(command: &mut Command, folder: &Path) {
    for name in ["LIFEBOAT_HOST", "LIFEBOAT_SCRATCH", "LIFEBOAT_STORE", "LIFEBOAT_CONFIG"] {
        command.env_remove(name);
    }
    fs::create_dir_all(folder.join("scratch")).unwrap();
    command.current_dir(folder).env("TMPDIR", folder.join("scratch"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// Describes a run for a failure message.
pub(crate) fn transcript(context: &str, folder: &Path, output: &Output) -> String {
    let files = names_below(folder).join("\n  ");
    format!(
        "{context}\n{}\n-- stdout\n{}-- stderr\n{}-- files\n  {files}\n",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Starts the program, sends it a signal after `wait`, and returns its output.
pub(crate) fn run_with_signal(folder: &Path, arguments: &[&str], wait: Duration, signal: Signal) -> Output {
    let child = program(folder, arguments).spawn().unwrap();
    // This is the random instant of the signal, not a wait for an event.
    std::thread::sleep(wait);
    let _ = rustix::process::kill_process(Pid::from_child(&child), signal);
    child.wait_with_output().unwrap()
}

/// Random instants within a run at which to kill it, until enough runs were killed.
pub(crate) struct KillTimes {
    pub(crate) random: Random,
    /// The estimated duration of a run.
    pub(crate) run_time: Duration,
    pub(crate) wanted: u32,
    pub(crate) tried: u32,
    pub(crate) killed: u32,
}

impl KillTimes {
    pub(crate) fn new(run_time: Duration, wanted: u32) -> Self {
        KillTimes { random: Random::new(), run_time, wanted, tried: 0, killed: 0 }
    }

    /// Returns the time until the next kill, or `None` when enough runs were killed.
    pub(crate) fn next(&mut self) -> Option<Duration> {
        assert!(self.tried < 10 * self.wanted, "only {} of {} runs were killed", self.killed, self.tried);
        self.tried += 1;
        (self.killed < self.wanted).then(|| self.run_time.mul_f64(self.random.next()))
    }

    /// Counts the run. A run that ended before the signal was quicker than estimated, so this lowers the estimate.
    pub(crate) fn count(&mut self, wait: Duration, was_killed: bool) {
        if was_killed {
            self.killed += 1;
        } else {
            self.run_time = (self.run_time * 3 + wait) / 4;
        }
    }

    pub(crate) fn transcript(&self, wait: Duration) -> String {
        format!(
            "LIFEBOAT_TEST_SEED={}, run {}, a signal after {wait:?} of {:?}",
            self.random.seed, self.tried, self.run_time
        )
    }
}

/// Returns the duration of the longest of three complete runs, each in a copy of `template`.
pub(crate) fn measure(sandbox: &Sandbox, template: &Path, arguments: &[&str]) -> Duration {
    let mut longest = Duration::ZERO;
    for _ in 0..3 {
        let folder = sandbox.path("run");
        copy_folder(template, &folder);
        let clock = Instant::now();
        let output = program(&folder, arguments).output().unwrap();
        longest = longest.max(clock.elapsed());
        assert!(output.status.success(), "{}", transcript(&arguments.join(" "), &folder, &output));
        fs::remove_dir_all(&folder).unwrap();
    }
    longest
}

/// Returns the ids of the snapshots that `list` must show, from the manifests in the folders of the sources.
pub(crate) fn ids_in(store: &Path) -> Vec<String> {
    let names = names_below(store).into_iter();
    let mut ids: Vec<String> = names
        .filter(|name| name.contains('/') && !name.contains(".proof-"))
        .filter_map(|name| name.rsplit('/').next()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    ids.sort();
    ids
}

/// Requires that every listed snapshot passes `verify`, and that the files that were in the store are unchanged.
#[track_caller]
pub(crate) fn require_good_store(folder: &Path, before: &BTreeMap<String, Vec<u8>>, context: &str) {
    let output = program(folder, &["verify", "--all", "--store", "backups"]).output().unwrap();
    assert!(output.status.success(), "{}", transcript(&format!("{context}; verify --all"), folder, &output));
    for (name, bytes) in before {
        assert!(&fs::read(folder.join(name)).unwrap() == bytes, "{context}: {name} has changed");
    }
}

pub(crate) fn files_of(folder: &Path, below: &str) -> BTreeMap<String, Vec<u8>> {
    let names = names_below(&folder.join(below)).into_iter().map(|name| format!("{below}/{name}"));
    names
        .filter(|name| folder.join(name).is_file())
        .map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap()))
        .collect()
}

/// Creates a database of some megabytes. Different seeds give different contents.
pub(crate) fn create_database(path: &Path, journal: &str, rows: u32, seed: u32) {
    sample(path, if rows < 1000 { 10 } else { 300 }, journal);
    let connection = open(path);
    connection.execute_batch("BEGIN").unwrap();
    let mut insert = connection.prepare("INSERT INTO logs VALUES (?1, ?2)").unwrap();
    for i in 0..rows {
        let body = format!(
            "{{\"n\":{},\"m\":{},\"text\":\"what happened on day {i} of run {seed}\"}}",
            i.wrapping_mul(2_654_435_761),
            i * seed
        );
        insert.execute((format!("2026-11-21T{:02}:00:00", i % 24), body)).unwrap();
    }
    drop(insert);
    connection.execute_batch(&format!("UPDATE accounts SET name = name || ' {seed}'; COMMIT")).unwrap();
}

/// Replaces a database by a copy whose last changes are only in its WAL, so that it needs recovery. `change` makes
/// these changes.
pub(crate) fn leave_changes_in_wal(path: &Path, change: impl FnOnce(&rusqlite::Connection)) {
    let building = path.with_extension("building");
    fs::rename(path, &building).unwrap();
    let connection = open(&building);
    let mode: String = connection.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    change(&connection);
    fs::copy(&building, path).unwrap();
    fs::copy(building.with_extension("building-wal"), path.with_extension("db-wal")).unwrap();
    drop(connection);
    fs::remove_file(&building).unwrap();
    assert!(fs::metadata(path.with_extension("db-wal")).unwrap().len() > 4096);
}

/// The state of the target before a restore.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum TargetKind {
    Absent,
    Wal,
    Delete,
    OtherPageSize,
    Damaged,
    /// A database of which one table is restored.
    OneTable,
}

/// A folder with a store of one snapshot and a target with other content, and the content of both.
pub(crate) struct RestoreSetup {
    pub(crate) template: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) old: BTreeMap<String, (u64, u64)>,
    pub(crate) new: BTreeMap<String, (u64, u64)>,
    pub(crate) old_bytes: Vec<u8>,
}

pub(crate) fn set_up_restore(sandbox: &Sandbox, kind: TargetKind, rows: u32) -> RestoreSetup {
    let template = sandbox.path("template");
    fs::create_dir(&template).unwrap();
    create_database(&template.join("source.db"), if kind == TargetKind::Delete { "delete" } else { "wal" }, rows, 1);
    let taken = program(&template, &["snapshot", "source.db", "--name", "app", "--store", "backups"]).output().unwrap();
    assert!(taken.status.success(), "{}", transcript("snapshot", &template, &taken));
    let id = ids_in(&template.join("backups")).remove(0);
    let mut new = fingerprint(template.join("source.db"));
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(template.join(format!("source.db{suffix}")));
    }
    let target = template.join("app.db");
    let mut old_bytes = Vec::new();
    let mut old = BTreeMap::new();
    if kind != TargetKind::Absent {
        if kind == TargetKind::OtherPageSize {
            open(&target).execute_batch("PRAGMA page_size = 1024; VACUUM").unwrap();
        }
        create_database(&target, if kind == TargetKind::Wal { "wal" } else { "delete" }, rows + rows / 3, 2);
        if kind == TargetKind::Wal {
            leave_changes_in_wal(&target, |db| db.execute_batch("DELETE FROM logs WHERE rowid % 3 = 0").unwrap());
            // Opening the database would recover it, so a copy is opened.
            let copy = sandbox.path("aside");
            copy_folder(&template, &copy);
            old = fingerprint(copy.join("app.db"));
            fs::remove_dir_all(copy).unwrap();
        } else {
            old = fingerprint(&target);
        }
        if kind == TargetKind::Damaged {
            let mut bytes = fs::read(&target).unwrap();
            bytes[..100].fill(0xA5);
            fs::write(&target, &bytes).unwrap();
        }
        old_bytes = fs::read(&target).unwrap();
    }
    if kind == TargetKind::OneTable {
        let restored_table = new.remove("logs").unwrap();
        new.clone_from(&old);
        new.insert("logs".to_owned(), restored_table);
    }
    assert_ne!(old, new);
    let mut arguments = vec!["restore", &id, "--store", "backups", "--to", "app.db", "-j", "2"];
    match kind {
        TargetKind::Absent => {}
        TargetKind::OneTable => arguments.extend(["--replace", "--table", "logs"]),
        _ => arguments.push("--replace"),
    }
    RestoreSetup { arguments: arguments.into_iter().map(str::to_owned).collect(), template, old, new, old_bytes }
}

/// The content of a target after a restore.
#[derive(Debug, PartialEq, Clone, Copy)]
pub(crate) enum Found {
    Old,
    New,
}

impl RestoreSetup {
    pub(crate) fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    /// Requires that the target is the old or the new database without damage, and returns which of them.
    #[track_caller]
    pub(crate) fn inspect_target(&self, kind: TargetKind, folder: &Path, context: &str) -> Found {
        let target = folder.join("app.db");
        let message = || format!("{context}\n-- files\n  {}", names_below(folder).join("\n  "));
        if kind == TargetKind::Absent && !target.exists() {
            return Found::Old;
        }
        assert!(target.exists(), "the target is missing: {}", message());
        if kind == TargetKind::Damaged && fs::read(&target).unwrap() == self.old_bytes {
            return Found::Old;
        }
        let copy = folder.join("opened");
        fs::create_dir(&copy).unwrap();
        for suffix in ["", "-wal", "-journal"] {
            let _ = fs::copy(folder.join(format!("app.db{suffix}")), copy.join(format!("app.db{suffix}")));
        }
        assert_eq!(integrity(copy.join("app.db")), "ok", "{}", message());
        let found = fingerprint(copy.join("app.db"));
        fs::remove_dir_all(&copy).unwrap();
        if found == self.new {
            if kind == TargetKind::Damaged {
                let kept = names_below(folder).into_iter().find(|name| name.starts_with("app.db.damaged-"));
                let kept = kept.unwrap_or_else(|| panic!("the damaged file was not kept: {}", message()));
                assert!(
                    fs::read(folder.join(kept)).unwrap() == self.old_bytes,
                    "the kept damaged file has other bytes: {}",
                    message()
                );
            }
            return Found::New;
        }
        assert!(
            found == self.old && kind != TargetKind::Absent,
            "the target is neither old nor new, but {found:?}\nold {:?}\nnew {:?}\n{}",
            self.old,
            self.new,
            message()
        );
        Found::Old
    }
}

/// Returns the files in the scratch folder. Empty folders in it do not matter.
pub(crate) fn scratch_files(folder: &Path) -> Vec<String> {
    let scratch = folder.join("scratch");
    names_below(&scratch).into_iter().filter(|name| scratch.join(name).is_file()).collect()
}
