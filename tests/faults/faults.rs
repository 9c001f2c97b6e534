//! What stands after a failure: of the store, of the disk, of single system calls, of the process itself.
//! Nothing new is listed, what was there restores, and a target is the old or the new database, whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rustix::process::{Pid, Signal};
use serde_json::json;

use crate::support::{Sandbox, integrity, open, sample, skip_unless_ci};
use lifeboat::archive::{ArchiveReader, ArchiveWriter, Codec, Compression, MANIFEST_PATH};
use lifeboat::platform::error::{Kind, Result};
use lifeboat::platform::ranged::Ranged;
use lifeboat::snapshots::catalog::Catalog;
use lifeboat::snapshots::id::{SnapshotId, SourceName};
use lifeboat::snapshots::manifest::Manifest;
use lifeboat::store::memory::Faults;
use lifeboat::store::{Key, Listing, MemoryStore, Names, ObjectMeta, Published, Store, Upload};

// ---------------------------------------------------------------- the store breaks down

/// What a snapshot is made of, without a database.
fn payload(seed: u8) -> Vec<u8> {
    (0..9_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 7 | seed).collect()
}

fn document(id: &SnapshotId, raw_bytes: usize) -> Manifest {
    let manifest = json!({
        "format": 1, "lifeboat_version": "0.1.0", "id": id.to_string(), "source": id.source().as_str(),
        "origin": {"host": "here", "path": "/app.db"}, "kind": "full", "engine": "sqlite",
        "created_at": "2026-11-21T17:05:01Z", "tags": [], "archive": format!("{id}{}", Codec::Zstd.extension()),
        "raw_bytes": raw_bytes, "codec": "zstd", "encrypted": false, "server_version": "3", "rows": 0, "tables": [],
        "seconds": 0.5,
    });
    Manifest::from_json(manifest.to_string().as_bytes()).unwrap()
}

/// All of a snapshot's life up to its publication, as the command does it.
fn save(catalog: &Catalog, payload: &[u8]) -> Result<SnapshotId> {
    let source: SourceName = "app".parse()?;
    let time: DateTime<Utc> = "2026-11-21T17:05:01Z".parse().unwrap();
    let _ = catalog.newest_full(&source)?;
    let id = catalog.new_id(&source, time)?;
    let compression: Compression = "zstd:1".parse()?;
    let upload =
        catalog.start_archive(&id, &format!("{id}{}", compression.codec().extension()), payload.len() as u64)?;
    let mut archive = ArchiveWriter::create(upload, compression, 2, 1)?;
    archive.start_entry("data/app.db", payload.len() as u64)?;
    for piece in payload.chunks(1 << 20) {
        archive.write(piece)?;
    }
    archive.finish_entry()?;
    let mut manifest = document(&id, payload.len());
    archive.append(MANIFEST_PATH, &manifest.to_json())?;
    let (upload, summary) = archive.finish()?;
    (manifest.archive_bytes, manifest.sha256) = (Some(summary.bytes), Some(summary.sha256));
    catalog.publish(upload, summary, &manifest)?;
    Ok(id)
}

fn listed(catalog: &Catalog) -> Vec<SnapshotId> {
    catalog.list_all(None).unwrap().into_iter().map(|listed| listed.id).collect()
}

/// Requires that a listed snapshot reads back, every byte of it hashed.
fn require_whole(catalog: &Catalog, id: &SnapshotId, payload: &[u8], what: &str) {
    let (manifest, _) = catalog.manifest(id).unwrap_or_else(|error| panic!("{what}: {id}: {error:?}"));
    let archive = catalog.open_archive(&manifest).unwrap_or_else(|error| panic!("{what}: {id}: {error:?}"));
    let reader = ArchiveReader::open(archive, 2).unwrap_or_else(|error| panic!("{what}: {id}: {error:?}"));
    let walk = reader.inspect().unwrap_or_else(|error| panic!("{what}: {id}: {error:?}"));
    assert!(walk.problems.is_empty(), "{what}: {id}: {:?}", walk.problems);
    assert_eq!(Some(walk.sha256), manifest.sha256, "{what}: {id}");
    assert!(reader.read_entry("data/app.db", 1 << 30).unwrap() == payload, "{what}: {id} has other bytes");
}

/// A store with one snapshot in it.
fn store_with_one(older: &[u8]) -> (MemoryStore, SnapshotId) {
    let store = MemoryStore::new();
    let catalog = Catalog::create(Box::new(store.clone())).unwrap();
    let id = save(&catalog, older).unwrap();
    (store, id)
}

fn open_catalog(store: &MemoryStore) -> Catalog {
    store.inject(Faults::None);
    Catalog::open(Box::new(store.clone())).unwrap()
}

#[test]
fn failure_of_any_store_operation_lists_nothing_new_and_a_retry_succeeds() {
    let (older, newer) = (payload(8), payload(16));
    let mut wrong = String::new();
    for (name, fault) in [("once", Faults::FailOnce as fn(u64) -> Faults), ("for good", Faults::FailFrom)] {
        for n in 1.. {
            let what = format!("operation {n} fails {name}");
            let (store, old) = store_with_one(&older);
            store.inject(fault(n));
            let result = Catalog::open(Box::new(store.clone())).and_then(|catalog| save(&catalog, &newer));
            let was_hit = store.operations() >= n;
            let catalog = open_catalog(&store);
            let now = listed(&catalog);
            require_whole(&catalog, &old, &older, &what);
            match &result {
                // A failure of the last look may be passed over, but then the snapshot is there, whole.
                Ok(id) => {
                    assert_eq!(now.len(), 2, "{what}: {now:?}");
                    require_whole(&catalog, id, &newer, &what);
                }
                Err(error) if now != [old.clone()] => {
                    let _ = writeln!(wrong, "{what}: the command failed ({error}) and yet {now:?} are listed");
                }
                Err(_) => {
                    let id = save(&catalog, &newer).unwrap_or_else(|error| panic!("{what}, retried: {error:?}"));
                    assert_eq!(listed(&catalog).len(), 2, "{what}, retried");
                    require_whole(&catalog, &id, &newer, &what);
                    require_whole(&catalog, &old, &older, &what);
                }
            }
            if !was_hit {
                assert!(result.is_ok(), "{what}: {result:?}");
                assert!(n > 10, "only {n} operations were met");
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn failure_of_any_store_operation_while_a_store_is_made_leaves_none_or_an_empty_one() {
    for n in 1.. {
        let store = MemoryStore::new();
        store.inject(Faults::FailOnce(n));
        let created = Catalog::create(Box::new(store.clone())).map(drop);
        let was_hit = store.operations() >= n;
        store.inject(Faults::None);
        let again = Catalog::create(Box::new(store.clone())).unwrap();
        assert!(listed(&again).is_empty());
        let payload = payload(8);
        let id = save(&again, &payload).unwrap();
        require_whole(&again, &id, &payload, "made again");
        if !was_hit {
            created.unwrap();
            break;
        }
        assert_eq!(created.unwrap_err().kind, Kind::Unreachable, "operation {n}");
    }
}

#[test]
fn lost_reply_is_settled_and_the_snapshot_is_listed_once() {
    let (older, newer) = (payload(8), payload(16));
    for reply in 1..=2 {
        let what = format!("reply {reply} is lost");
        let (store, old) = store_with_one(&older);
        let catalog = Catalog::open(Box::new(store.clone())).unwrap();
        store.inject(Faults::LoseReply(reply));
        let id = save(&catalog, &newer).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let catalog = open_catalog(&store);
        let now = listed(&catalog);
        assert_eq!(now.iter().filter(|listed| **listed == id).count(), 1, "{what}: {now:?}");
        assert_eq!(now.len(), 2, "{what}: {now:?}");
        require_whole(&catalog, &id, &newer, &what);
        require_whole(&catalog, &old, &older, &what);
    }
}

/// A store that loses the reply to one `finish`, over one that fails at an operation.
#[derive(Clone)]
struct Lossy {
    inner: MemoryStore,
    lost: Arc<std::sync::atomic::AtomicI64>,
    fail_after: u64,
}

struct LossyUpload(Box<dyn Upload>, Lossy);

impl std::io::Write for LossyUpload {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Upload for LossyUpload {
    fn finish(self: Box<Self>) -> Result<Published> {
        let published = self.0.finish()?;
        if self.1.lost.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1 {
            self.1.inner.inject(Faults::FailOnce(self.1.fail_after));
            return Err(lifeboat::platform::error::Error::unreachable("the reply was lost"));
        }
        Ok(published)
    }
}

impl Store for Lossy {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(LossyUpload(self.inner.create(key)?, self.clone())))
    }
    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>> {
        self.inner.open(key)
    }
    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        self.inner.stat(key)
    }
    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing> {
        self.inner.list(folder, names)
    }
    fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key)
    }
    fn clear_leftovers(&self, age: Duration) -> Result<u64> {
        self.inner.clear_leftovers(age)
    }
}

#[test]
fn failure_after_a_lost_reply_lists_nothing_half() {
    let (older, newer) = (payload(8), payload(16));
    for reply in 1..=2 {
        for fail_after in 1..=12 {
            let what = format!("reply {reply} is lost, then operation {fail_after} fails");
            let (inner, old) = store_with_one(&older);
            let store = Lossy { inner: inner.clone(), lost: Arc::new(reply.into()), fail_after };
            let result = Catalog::open(Box::new(store)).and_then(|catalog| save(&catalog, &newer));
            let catalog = open_catalog(&inner);
            let now = listed(&catalog);
            require_whole(&catalog, &old, &older, &what);
            for id in now.iter().filter(|id| **id != old) {
                require_whole(&catalog, id, &newer, &what);
            }
            if let Ok(id) = result {
                assert!(now.contains(&id), "{what}: {now:?}");
            }
        }
    }
}

// ---------------------------------------------------------------- helpers for whole programs

/// Random numbers that a test can be run again with: `LIFEBOAT_TEST_SEED`.
struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    fn new() -> Self {
        let given = std::env::var("LIFEBOAT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| Utc::now().timestamp_micros().unsigned_abs());
        eprintln!("LIFEBOAT_TEST_SEED={seed}");
        Random { seed, state: seed }
    }

    /// Between 0 and 1 (SplitMix64).
    fn next(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

/// Every table's rows as one number each, order aside: quicker than comparing texts.
fn fingerprint(path: impl AsRef<Path>) -> BTreeMap<String, (u64, u64)> {
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

/// Copies a folder, files only.
fn copy_folder(from: &Path, to: &Path) {
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

/// The names in a folder and below, sorted; a folder that is not there is empty.
fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
            names.push(entry.path().strip_prefix(folder).unwrap().display().to_string());
        }
    }
    names.sort();
    names
}

/// Runs the program in `folder` with its scratch in `folder/scratch`.
fn program(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(crate::support::LIFEBOAT);
    command.args(arguments);
    prepare(&mut command, folder);
    command
}

fn prepare(command: &mut Command, folder: &Path) {
    for name in ["LIFEBOAT_HOST", "LIFEBOAT_SCRATCH", "LIFEBOAT_STORE", "LIFEBOAT_CONFIG"] {
        command.env_remove(name);
    }
    fs::create_dir_all(folder.join("scratch")).unwrap();
    command.current_dir(folder).env("TMPDIR", folder.join("scratch"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

/// All that is known of a run that went wrong.
fn transcript(what: &str, folder: &Path, output: &Output) -> String {
    let files = names_below(folder).join("\n  ");
    format!(
        "{what}\n{}\n-- stdout\n{}-- stderr\n{}-- files\n  {files}\n",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Starts the program, sends it a signal after `wait`, and gives what it left to say.
fn signalled(folder: &Path, arguments: &[&str], wait: Duration, signal: Signal) -> Output {
    let child = program(folder, arguments).spawn().unwrap();
    // The random instant itself: nothing is waited for.
    std::thread::sleep(wait);
    let _ = rustix::process::kill_process(Pid::from_child(&child), signal);
    child.wait_with_output().unwrap()
}

/// Random instants in a run, until enough runs have died of them.
struct Instants {
    random: Random,
    span: Duration,
    wanted: u32,
    tried: u32,
    died: u32,
}

impl Instants {
    /// `span` is how long a run takes.
    fn new(span: Duration, wanted: u32) -> Self {
        Instants { random: Random::new(), span, wanted, tried: 0, died: 0 }
    }

    /// The next one; None when enough have died.
    fn next(&mut self) -> Option<Duration> {
        assert!(self.tried < 10 * self.wanted, "only {} of {} runs have died", self.died, self.tried);
        self.tried += 1;
        (self.died < self.wanted).then(|| self.span.mul_f64(self.random.next()))
    }

    /// Notes what became of the run: one that came through, though a signal was sent, was quicker than thought.
    fn note(&mut self, wait: Duration, died: bool) {
        if died {
            self.died += 1;
        } else {
            self.span = (self.span * 3 + wait) / 4;
        }
    }

    fn transcript(&self, wait: Duration) -> String {
        format!(
            "LIFEBOAT_TEST_SEED={}, run {}, a signal after {wait:?} of {:?}",
            self.random.seed, self.tried, self.span
        )
    }
}

/// The longest of three whole runs, each in a copy of `template`.
fn measure(sandbox: &Sandbox, template: &Path, arguments: &[&str]) -> Duration {
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

/// The ids that `list` shows, without its help: manifests in the source's folder.
fn ids_in(store: &Path) -> Vec<String> {
    let names = names_below(store).into_iter();
    let mut ids: Vec<String> = names
        .filter(|name| name.contains('/') && !name.contains(".proof-"))
        .filter_map(|name| name.rsplit('/').next()?.strip_suffix(".json").map(str::to_owned))
        .collect();
    ids.sort();
    ids
}

/// Requires that every listed snapshot verifies, and that the files which were in the store are as they were.
#[track_caller]
fn require_good_store(folder: &Path, before: &BTreeMap<String, Vec<u8>>, what: &str) {
    let output = program(folder, &["verify", "--all", "--store", "backups"]).output().unwrap();
    assert!(output.status.success(), "{}", transcript(&format!("{what}; verify --all"), folder, &output));
    for (name, bytes) in before {
        assert!(&fs::read(folder.join(name)).unwrap() == bytes, "{what}: {name} has changed");
    }
}

fn files_of(folder: &Path, below: &str) -> BTreeMap<String, Vec<u8>> {
    let names = names_below(&folder.join(below)).into_iter().map(|name| format!("{below}/{name}"));
    names
        .filter(|name| folder.join(name).is_file())
        .map(|name| (name.clone(), fs::read(folder.join(&name)).unwrap()))
        .collect()
}

/// A database of some megabytes: `seed` makes its content differ.
fn middling(path: &Path, journal: &str, rows: u32, seed: u32) {
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

/// Copies a database while a connection holds content of it in the WAL, so that the copy needs recovery.
fn with_live_wal(path: &Path, make: impl FnOnce(&rusqlite::Connection)) {
    let building = path.with_extension("building");
    fs::rename(path, &building).unwrap();
    let connection = open(&building);
    let mode: String = connection.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    make(&connection);
    fs::copy(&building, path).unwrap();
    fs::copy(building.with_extension("building-wal"), path.with_extension("db-wal")).unwrap();
    drop(connection);
    fs::remove_file(&building).unwrap();
    assert!(fs::metadata(path.with_extension("db-wal")).unwrap().len() > 4096);
}

// ---------------------------------------------------------------- kill -9

/// Takes snapshots and kills them at instants spread over the time that one takes.
fn kill_snapshots(journal: &str, compression: &str, kills: u32) {
    let sandbox = Sandbox::new();
    // Made where it will run: a source belongs to its path.
    let template = sandbox.path("run");
    fs::create_dir(&template).unwrap();
    middling(&template.join("app.db"), journal, 30_000, 1);
    let arguments = ["snapshot", "app.db", "--store", "backups", "-j", "2", "--compression", compression];
    let first = program(&template, &arguments).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", &template, &first));
    let older = ids_in(&template.join("backups"));
    if journal == "wal" {
        with_live_wal(&template.join("app.db"), |db| db.execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap());
    } else {
        open(template.join("app.db")).execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap();
    }
    let restored =
        program(&template, &["restore", "latest", "--store", "backups", "--to", "older.db"]).output().unwrap();
    assert!(restored.status.success(), "{}", transcript("older", &template, &restored));
    let older_bytes = fs::read(template.join("older.db")).unwrap();
    fs::remove_file(template.join("older.db")).unwrap();
    let source = files_of(&template, ".")
        .into_iter()
        .filter(|(name, _)| name.starts_with("./app.db") && !name.ends_with("-shm"));
    let source: BTreeMap<_, _> = source.collect();
    let (built, template) = (template, sandbox.path("template"));
    fs::rename(built, &template).unwrap();
    let mut instants = Instants::new(measure(&sandbox, &template, &arguments), kills);

    let folder = sandbox.path("run");
    copy_folder(&template, &folder);
    let before = files_of(&folder, "backups");
    while let Some(wait) = instants.next() {
        let output = signalled(&folder, &arguments, wait, Signal::KILL);
        let what = format!("{}: {}", instants.transcript(wait), arguments.join(" "));
        instants.note(wait, !output.status.success());
        for (name, bytes) in &source {
            assert!(
                &fs::read(folder.join(name)).unwrap() == bytes,
                "{}",
                transcript(&format!("{what}: {name} has changed"), &folder, &output)
            );
        }
        let listed = program(&folder, &["list", "--store", "backups", "--json"]).output().unwrap();
        assert!(listed.status.success(), "{}", transcript(&what, &folder, &listed));
        for id in ids_in(&folder.join("backups")) {
            let archive = names_below(&folder.join("backups/app"))
                .into_iter()
                .find(|name| name.starts_with(&format!("{id}.tar.")));
            assert!(archive.is_some(), "{}", transcript(&format!("{what}: {id} has no archive"), &folder, &output));
        }
        if instants.tried.is_multiple_of(5) || instants.died == kills {
            require_good_store(&folder, &before, &what);
        }
        if instants.tried.is_multiple_of(20) || instants.died == kills {
            let restored =
                program(&folder, &["restore", &older[0], "--store", "backups", "--to", "older.db"]).output().unwrap();
            assert!(restored.status.success(), "{}", transcript(&what, &folder, &restored));
            assert!(
                fs::read(folder.join("older.db")).unwrap() == older_bytes,
                "{what}: the older snapshot restores to other bytes"
            );
            fs::remove_file(folder.join("older.db")).unwrap();
        }
    }
    eprintln!("{journal}, {compression}: {} of {} died", instants.died, instants.tried);
    // What the dead left: a later run clears the scratch, and prune what is old enough in the store.
    let last = program(&folder, &arguments).output().unwrap();
    assert!(last.status.success(), "{}", transcript("last", &folder, &last));
    if journal != "wal" {
        assert_eq!(
            scratch_with_content(&folder),
            Vec::<String>::new(),
            "{}",
            transcript("scratch is left", &folder, &last)
        );
    }
    let newest = program(&folder, &["restore", "latest", "--store", "backups", "--to", "newest.db"]).output().unwrap();
    assert!(newest.status.success(), "{}", transcript("newest", &folder, &newest));
    assert_eq!(fingerprint(folder.join("newest.db")), fingerprint(folder.join("app.db")));
}

/// Files in scratch (a folder without any costs nothing).
fn scratch_with_content(folder: &Path) -> Vec<String> {
    let scratch = folder.join("scratch");
    names_below(&scratch).into_iter().filter(|name| scratch.join(name).is_file()).collect()
}

#[test]
fn killed_snapshot_of_a_wal_database_lists_nothing_half_made() {
    kill_snapshots("wal", "gzip", 60);
}

#[test]
fn killed_snapshot_of_a_rollback_journal_database_lists_nothing_half_made() {
    kill_snapshots("delete", "gzip", 60);
}

/// What a restore goes over.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Over {
    Nothing,
    Wal,
    Delete,
    OtherPageSize,
    Damaged,
    Tables,
}

/// A folder with a store of one snapshot, and a target of other content; what either holds.
struct Restoring {
    template: PathBuf,
    arguments: Vec<String>,
    old: BTreeMap<String, (u64, u64)>,
    new: BTreeMap<String, (u64, u64)>,
    old_bytes: Vec<u8>,
}

fn restoring(sandbox: &Sandbox, over: Over, rows: u32) -> Restoring {
    let template = sandbox.path("template");
    fs::create_dir(&template).unwrap();
    middling(&template.join("source.db"), if over == Over::Delete { "delete" } else { "wal" }, rows, 1);
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
    if over != Over::Nothing {
        if over == Over::OtherPageSize {
            open(&target).execute_batch("PRAGMA page_size = 1024; VACUUM").unwrap();
        }
        middling(&target, if over == Over::Wal { "wal" } else { "delete" }, rows + rows / 3, 2);
        if over == Over::Wal {
            with_live_wal(&target, |db| db.execute_batch("DELETE FROM logs WHERE rowid % 3 = 0").unwrap());
            let aside = sandbox.path("aside");
            copy_folder(&template, &aside);
            old = fingerprint(aside.join("app.db"));
            fs::remove_dir_all(aside).unwrap();
        } else {
            old = fingerprint(&target);
        }
        if over == Over::Damaged {
            let mut bytes = fs::read(&target).unwrap();
            bytes[..100].fill(0xA5);
            fs::write(&target, &bytes).unwrap();
        }
        old_bytes = fs::read(&target).unwrap();
    }
    if over == Over::Tables {
        let only = new.remove("logs").unwrap();
        new.clone_from(&old);
        new.insert("logs".to_owned(), only);
    }
    assert_ne!(old, new);
    let mut arguments = vec!["restore", &id, "--store", "backups", "--to", "app.db", "-j", "2"];
    match over {
        Over::Nothing => {}
        Over::Tables => arguments.extend(["--replace", "--table", "logs"]),
        _ => arguments.push("--replace"),
    }
    Restoring { arguments: arguments.into_iter().map(str::to_owned).collect(), template, old, new, old_bytes }
}

/// What a target turned out to be.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Found {
    Old,
    New,
}

impl Restoring {
    fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    /// Requires that the target is whole, and says which of the two it is.
    #[track_caller]
    fn look(&self, over: Over, folder: &Path, what: &str) -> Found {
        let target = folder.join("app.db");
        let told = || format!("{what}\n-- files\n  {}", names_below(folder).join("\n  "));
        if over == Over::Nothing && !target.exists() {
            return Found::Old;
        }
        assert!(target.exists(), "the target is gone: {}", told());
        if over == Over::Damaged && fs::read(&target).unwrap() == self.old_bytes {
            return Found::Old;
        }
        let copy = folder.join("opened");
        fs::create_dir(&copy).unwrap();
        for suffix in ["", "-wal", "-journal"] {
            let _ = fs::copy(folder.join(format!("app.db{suffix}")), copy.join(format!("app.db{suffix}")));
        }
        assert_eq!(integrity(copy.join("app.db")), "ok", "{}", told());
        let found = fingerprint(copy.join("app.db"));
        fs::remove_dir_all(&copy).unwrap();
        if found == self.new {
            if over == Over::Damaged {
                let aside = names_below(folder).into_iter().find(|name| name.starts_with("app.db.damaged-"));
                let aside = aside.unwrap_or_else(|| panic!("the damaged file is gone: {}", told()));
                assert!(
                    fs::read(folder.join(aside)).unwrap() == self.old_bytes,
                    "the way back has other bytes: {}",
                    told()
                );
            }
            return Found::New;
        }
        assert!(
            found == self.old && over != Over::Nothing,
            "the target is neither old nor new, but {found:?}\nold {:?}\nnew {:?}\n{}",
            self.old,
            self.new,
            told()
        );
        Found::Old
    }
}

fn kill_restores(over: Over, kills: u32) {
    let sandbox = Sandbox::new();
    let restoring = restoring(&sandbox, over, 30_000);
    let arguments = restoring.arguments();
    let mut instants = Instants::new(measure(&sandbox, &restoring.template, &arguments), kills);
    let before = files_of(&restoring.template, "backups");
    let (mut left_old, mut left_new) = (0, 0);
    while let Some(wait) = instants.next() {
        let folder = sandbox.path("run");
        copy_folder(&restoring.template, &folder);
        let output = signalled(&folder, &arguments, wait, Signal::KILL);
        let what = transcript(&format!("{}: {}", instants.transcript(wait), arguments.join(" ")), &folder, &output);
        instants.note(wait, !output.status.success());
        match restoring.look(over, &folder, &what) {
            Found::New => left_new += 1,
            Found::Old => {
                left_old += 1;
                assert!(!output.status.success(), "it said that it was done: {what}");
            }
        }
        require_good_store(&folder, &before, &what);
        // Trying again gets there, whatever lies about.
        if instants.tried.is_multiple_of(3) {
            let again = program(&folder, &arguments).output().unwrap();
            let told = transcript(&format!("{what}\nagain:"), &folder, &again);
            let is_there = over == Over::Nothing && folder.join("app.db").exists() && !again.status.success();
            assert!(again.status.success() || is_there, "{told}");
            assert_eq!(restoring.look(over, &folder, &told), Found::New, "{told}");
            assert_eq!(scratch_with_content(&folder), Vec::<String>::new(), "{told}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
    let (died, tried) = (instants.died, instants.tried);
    eprintln!("{over:?}: {died} of {tried} died; {left_old} left the old content, {left_new} the new");
}

#[test]
fn killed_restore_to_a_new_path_leaves_nothing_or_all() {
    kill_restores(Over::Nothing, 40);
}

#[test]
fn killed_restore_over_a_wal_database_leaves_old_or_new() {
    kill_restores(Over::Wal, 50);
}

#[test]
fn killed_restore_over_a_rollback_journal_database_leaves_old_or_new() {
    kill_restores(Over::Delete, 50);
}

#[test]
fn killed_restore_over_another_page_size_leaves_old_or_new() {
    kill_restores(Over::OtherPageSize, 30);
}

#[test]
fn killed_restore_over_a_damaged_database_leaves_old_or_new() {
    kill_restores(Over::Damaged, 40);
}

#[test]
fn killed_restore_of_a_table_leaves_old_or_new() {
    kill_restores(Over::Tables, 40);
}

#[test]
fn killed_restore_leaves_nothing_beside_the_target_after_the_next() {
    let sandbox = Sandbox::new();
    let restoring = restoring(&sandbox, Over::Nothing, 30_000);
    let deadline = Instant::now() + Duration::from_secs(60);
    let folder = sandbox.path("run");
    copy_folder(&restoring.template, &folder);
    let beside = || names_below(&folder).into_iter().find(|name| name.starts_with(".lifeboat-"));
    // Until one dies in the middle.
    while beside().is_none() {
        assert!(Instant::now() < deadline, "no kill landed in the middle");
        let mut child = program(&folder, &restoring.arguments()).spawn().unwrap();
        while beside().is_none() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        let _ = fs::remove_file(folder.join("app.db"));
    }
    let again = program(&folder, &restoring.arguments()).output().unwrap();
    assert!(again.status.success(), "{}", transcript("again", &folder, &again));
    assert_eq!(beside(), None, "{}", transcript("a killed restore's file is never cleared", &folder, &again));
}

// ---------------------------------------------------------------- SIGINT and SIGTERM

#[test]
fn interrupted_snapshot_exits_130_and_leaves_nothing() {
    let mut random = Random::new();
    for journal in ["wal", "delete"] {
        let sandbox = Sandbox::new();
        let built = sandbox.path("run");
        fs::create_dir(&built).unwrap();
        middling(&built.join("app.db"), journal, 60_000, 1);
        let arguments = ["snapshot", "app.db", "--store", "backups", "-j", "2"];
        let first = program(&built, &arguments).output().unwrap();
        assert!(first.status.success(), "{}", transcript("first", &built, &first));
        let template = sandbox.path("template");
        fs::rename(built, &template).unwrap();
        let longest = measure(&sandbox, &template, &arguments);
        for signal in [Signal::INT, Signal::TERM] {
            let (mut stopped, mut tried) = (0, 0);
            while stopped < 4 {
                tried += 1;
                assert!(tried < 100, "{journal}: only {stopped} were interrupted in the middle");
                let folder = sandbox.path("run");
                copy_folder(&template, &folder);
                let before = files_of(&folder, "backups");
                let wait = longest.mul_f64(random.next());
                let output = signalled(&folder, &arguments, wait, signal);
                let what =
                    format!("seed {}, {signal:?} after {wait:?} of {longest:?}: {}", random.seed, arguments.join(" "));
                let told = transcript(&what, &folder, &output);
                match output.status.code() {
                    Some(0) => assert_eq!(ids_in(&folder.join("backups")).len(), 2, "{told}"),
                    Some(130) => {
                        stopped += 1;
                        assert_eq!(files_of(&folder, "backups"), before, "{told}");
                        assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{told}");
                    }
                    // Before the program had begun to listen.
                    None => assert_eq!(files_of(&folder, "backups"), before, "{told}"),
                    _ => panic!("{told}"),
                }
                if output.status.code().is_some() {
                    assert_eq!(names_below(&folder.join("scratch")), Vec::<String>::new(), "{told}");
                }
                require_good_store(&folder, &before, &what);
                fs::remove_dir_all(&folder).unwrap();
            }
        }
    }
}

#[test]
fn interrupted_restore_exits_130_and_leaves_the_target_and_no_litter() {
    let mut random = Random::new();
    for over in [Over::Nothing, Over::Wal, Over::Delete, Over::Damaged, Over::Tables] {
        let sandbox = Sandbox::new();
        let restoring = restoring(&sandbox, over, 60_000);
        let arguments = restoring.arguments();
        let longest = measure(&sandbox, &restoring.template, &arguments);
        let before = files_of(&restoring.template, "backups");
        let mut stopped = 0;
        for signal in [Signal::INT, Signal::TERM] {
            for instant in 0..6 {
                let folder = sandbox.path("run");
                copy_folder(&restoring.template, &folder);
                let wait = longest.mul_f64((f64::from(instant) + random.next()) / 6.0);
                let output = signalled(&folder, &arguments, wait, signal);
                let what =
                    format!("seed {}, {signal:?} after {wait:?} of {longest:?}: {}", random.seed, arguments.join(" "));
                let told = transcript(&what, &folder, &output);
                let found = restoring.look(over, &folder, &told);
                match output.status.code() {
                    Some(0) => assert_eq!(found, Found::New, "{told}"),
                    Some(130) => {
                        stopped += 1;
                        assert_eq!(found, Found::Old, "{told}");
                    }
                    None => assert_eq!(found, Found::Old, "{told}"),
                    _ => panic!("{told}"),
                }
                if output.status.code().is_some() {
                    assert_eq!(names_below(&folder.join("scratch")), Vec::<String>::new(), "{told}");
                    let litter = names_below(&folder)
                        .into_iter()
                        .find(|name| name.contains("lifeboat-") || name.contains(".upload-"));
                    assert_eq!(litter, None, "{told}");
                }
                require_good_store(&folder, &before, &what);
                fs::remove_dir_all(&folder).unwrap();
            }
        }
        eprintln!("{over:?}: {stopped} of 12 were interrupted in the middle");
        assert!(stopped >= 2, "{over:?}: only {stopped} of 12 were interrupted in the middle");
    }
}

// ---------------------------------------------------------------- system calls fail

fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-f", "-qq", "--seccomp-bpf", "-e", "trace=fsync", "true"]).output();
    let can = tried.is_ok_and(|output| output.status.success());
    if !can {
        skip_unless_ci("strace cannot make system calls fail here");
    }
    can
}

/// Lets something befall the n-th call of `call` in each thread (`+`: and all after it). None when there are not as
/// many; else the output, and the calls that failed.
fn injected(folder: &Path, arguments: &[String], call: &str, effect: &str, n: &str) -> Option<(Output, Vec<String>)> {
    let log = folder.join("strace.log");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log).arg("-e").arg(format!("trace={call}"));
    // strace 6.1 delivers no signals with it.
    if effect.starts_with("error") {
        command.arg("--seccomp-bpf");
    }
    command.arg("-e").arg(format!("inject={call}:{effect}:when={n}")).arg(crate::support::LIFEBOAT).args(arguments);
    prepare(&mut command, folder);
    let output = command.output().unwrap();
    let trace = fs::read_to_string(&log).unwrap();
    fs::remove_file(log).unwrap();
    let is_hit =
        |line: &&str| line.contains("(INJECTED)") || line.contains("--- SIGTERM") || line.contains("--- SIGINT");
    let mut failed: Vec<String> = trace.lines().filter(is_hit).map(str::to_owned).collect();
    if output.status.signal() == Some(9) {
        failed.push(trace.lines().last().unwrap_or_default().to_owned());
    }
    (!failed.is_empty()).then_some((output, failed))
}

/// Calls that a disk can fail, and how. Whether what the failure leaves may lie about is told by the last.
const CALLS: [(&str, &str, bool); 16] = [
    ("fsync", "EIO", false),
    ("fdatasync", "EIO", false),
    ("write", "ENOSPC", false),
    ("pwrite64", "ENOSPC", false),
    ("pwrite64", "EIO", false),
    ("renameat2", "EIO", false),
    ("rename", "EIO", false),
    ("linkat", "EIO", false),
    ("ftruncate", "EIO", false),
    ("fallocate", "ENOSPC", false),
    ("mkdir", "ENOSPC", false),
    ("read", "EIO", true),
    ("pread64", "EIO", false),
    ("openat", "ENOSPC", true),
    ("unlink", "EIO", true),
    ("unlinkat", "EIO", true),
];

/// Runs `check` for every call of every kind that fails, alone and with all after it.
fn fail_every_call(
    sandbox: &Sandbox,
    template: &Path,
    arguments: &[String],
    check: impl Fn(&Path, &Output, &str, &[String]) -> std::result::Result<(), String>,
) {
    let mut wrong = Vec::new();
    let mut met = 0;
    for (call, error, may_litter) in CALLS {
        for suffix in ["", "+"] {
            for n in 1..500 {
                let folder = sandbox.path("run");
                copy_folder(template, &folder);
                let when = format!("{n}{suffix}");
                let hit = injected(&folder, arguments, call, &format!("error={error}"), &when);
                if let Some((output, failed)) = &hit {
                    met += 1;
                    let what = format!("{call} {error} {when}: {}", arguments.join(" "));
                    let told = format!("{}-- failed\n{}\n", transcript(&what, &folder, output), failed.join("\n"));
                    let mut checked = check(&folder, output, &told, failed);
                    let litter: Vec<String> = names_below(&folder)
                        .into_iter()
                        .filter(|name| name.contains("lifeboat-") || name.contains(".upload-"))
                        .collect();
                    if !litter.is_empty() && !may_litter && checked.is_ok() {
                        checked = Err(format!("left {litter:?}: {told}"));
                    }
                    if let Err(why) = checked {
                        wrong.push(why);
                    }
                }
                fs::remove_dir_all(&folder).unwrap();
                if hit.is_none() {
                    break;
                }
            }
        }
    }
    eprintln!("{met} failures of system calls met");
    assert!(met > 50, "only {met} system calls were met");
    assert!(wrong.is_empty(), "{} of {met} went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// True where the program could only not tell what it had done.
fn was_only_muted(failed: &[String]) -> bool {
    failed.iter().all(|line| line.contains(" write(1,") || line.contains(" write(2,"))
}

fn failing_snapshots(journal: &str) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let built = sandbox.path("run");
    fs::create_dir(&built).unwrap();
    middling(&built.join("app.db"), journal, 30, 1);
    let arguments = ["snapshot", "app.db", "--store", "backups", "-j", "1"];
    let first = program(&built, &arguments).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", &built, &first));
    if journal == "wal" {
        with_live_wal(&built.join("app.db"), |db| db.execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap());
    }
    let template = sandbox.path("template");
    fs::rename(built, &template).unwrap();
    let aside = sandbox.path("aside");
    copy_folder(&template, &aside);
    let expected = fingerprint(aside.join("app.db"));
    let older = ids_in(&template.join("backups"));
    let before = files_of(&template, "backups");
    let source: Vec<_> = ["app.db", "app.db-wal"].map(|name| (name, fs::read(template.join(name)).ok())).into();
    let arguments: Vec<String> = arguments.map(str::to_owned).into();
    fail_every_call(&sandbox, &template, &arguments, |folder, output, told, failed| {
        for (name, bytes) in &source {
            if &fs::read(folder.join(name)).ok() != bytes {
                return Err(format!("{name} has changed: {told}"));
            }
        }
        for (name, bytes) in &before {
            if fs::read(folder.join(name)).ok().as_ref() != Some(bytes) {
                return Err(format!("{name} has changed: {told}"));
            }
        }
        let now = ids_in(&folder.join("backups"));
        let is_listed = now != older;
        if output.status.success() && !is_listed {
            return Err(format!("exit 0, and no snapshot: {told}"));
        }
        if !output.status.success() && is_listed && !was_only_muted(failed) {
            return Err(format!("it failed, and its snapshot is listed: {told}"));
        }
        if is_listed {
            let verified = program(folder, &["verify", "--all", "--store", "backups"]).output().unwrap();
            let restored =
                program(folder, &["restore", "latest", "--store", "backups", "--to", "new.db"]).output().unwrap();
            if !verified.status.success() || !restored.status.success() {
                return Err(format!(
                    "{}{}{told}",
                    transcript("verify", folder, &verified),
                    transcript("restore", folder, &restored)
                ));
            }
            if fingerprint(folder.join("new.db")) != expected {
                return Err(format!("the snapshot is another state: {told}"));
            }
        }
        Ok(())
    });
}

#[test]
fn failing_system_call_never_leaves_half_a_snapshot_of_a_wal_database() {
    failing_snapshots("wal");
}

#[test]
fn failing_system_call_never_leaves_half_a_snapshot_of_a_rollback_journal_database() {
    failing_snapshots("delete");
}

fn failing_restores(over: Over) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let restoring = restoring(&sandbox, over, 30);
    let before = files_of(&restoring.template, "backups");
    fail_every_call(&sandbox, &restoring.template, &restoring.arguments, |folder, output, told, _| {
        for (name, bytes) in &before {
            if fs::read(folder.join(name)).ok().as_ref() != Some(bytes) {
                return Err(format!("{name} has changed: {told}"));
            }
        }
        // Panics where it is neither.
        let found = restoring.look(over, folder, told);
        if output.status.success() && found != Found::New {
            return Err(format!("exit 0, and the target is old: {told}"));
        }
        for id in ids_in(&folder.join("backups")) {
            let archive = folder.join(format!("backups/app/{id}.tar.gz"));
            if !archive.exists() {
                return Err(format!("{id} is listed without an archive: {told}"));
            }
        }
        Ok(())
    });
}

#[test]
fn failing_system_call_never_leaves_half_a_new_database() {
    failing_restores(Over::Nothing);
}

#[test]
fn failing_system_call_never_leaves_half_a_restore_over_a_wal_database() {
    failing_restores(Over::Wal);
}

#[test]
fn failing_system_call_never_leaves_half_a_restore_over_a_rollback_journal_database() {
    failing_restores(Over::Delete);
}

#[test]
fn failing_system_call_never_leaves_half_a_restore_over_a_damaged_database() {
    failing_restores(Over::Damaged);
}

#[test]
fn failing_system_call_never_leaves_half_a_restored_table() {
    failing_restores(Over::Tables);
}

/// Sends a signal at every call of every kind that changes something, and looks at what is left.
fn signal_at_every_call(over: Over, signal: &str) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let restoring = restoring(&sandbox, over, 30);
    let before = files_of(&restoring.template, "backups");
    let (mut met, mut wrong) = (0, Vec::new());
    for call in
        ["fsync", "fdatasync", "pwrite64", "ftruncate", "renameat2", "rename", "linkat", "unlink", "unlinkat", "openat"]
    {
        for n in 1..500 {
            let folder = sandbox.path("run");
            copy_folder(&restoring.template, &folder);
            let hit = injected(&folder, &restoring.arguments, call, &format!("signal={signal}"), &n.to_string());
            if let Some((output, heard)) = &hit {
                met += 1;
                // Each thread has an n-th call. The second signal ends the program at once, whatever lies about then.
                let is_last_word = heard.iter().filter(|line| line.contains("--- SIG")).count() > 1;
                let what = format!("{signal} at {call} {n}: {}", restoring.arguments.join(" "));
                let told = transcript(&what, &folder, output);
                // Panics where it is neither.
                let found = restoring.look(over, &folder, &told);
                let is_right = match output.status.code() {
                    Some(0) => found == Found::New,
                    Some(130) => found == Found::Old,
                    // Killed, or before the program had begun to listen.
                    None => signal == "SIGKILL" || found == Found::Old,
                    _ => false,
                };
                let litter = names_below(&folder)
                    .into_iter()
                    .find(|name| name.contains("lifeboat-") || name.contains(".upload-"));
                if !is_right {
                    wrong.push(format!("the target is {found:?}: {told}"));
                } else if output.status.code().is_some() && !is_last_word && litter.is_some() {
                    wrong.push(format!("left {litter:?}: {told}"));
                }
                require_good_store(&folder, &before, &told);
            }
            fs::remove_dir_all(&folder).unwrap();
            if hit.is_none() {
                break;
            }
        }
    }
    eprintln!("{signal} at {met} system calls");
    assert!(met > 30, "only {met} system calls were met");
    assert!(wrong.is_empty(), "{} of {met} went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn kill_at_any_system_call_leaves_old_or_new_in_place_of_a_wal_database() {
    signal_at_every_call(Over::Wal, "SIGKILL");
}

#[test]
fn kill_at_any_system_call_leaves_old_or_new_in_place_of_a_rollback_journal_database() {
    signal_at_every_call(Over::Delete, "SIGKILL");
}

#[test]
fn kill_at_any_system_call_leaves_old_or_new_in_place_of_a_damaged_database() {
    signal_at_every_call(Over::Damaged, "SIGKILL");
}

#[test]
fn kill_at_any_system_call_leaves_nothing_or_all_at_a_new_path() {
    signal_at_every_call(Over::Nothing, "SIGKILL");
}

#[test]
fn sigterm_at_any_system_call_of_a_replacement_means_130_and_old_or_0_and_new() {
    signal_at_every_call(Over::Wal, "SIGTERM");
}

#[test]
fn sigterm_at_any_system_call_of_a_table_restore_means_130_and_old_or_0_and_new() {
    signal_at_every_call(Over::Tables, "SIGTERM");
}

#[test]
fn sigterm_at_any_system_call_of_a_new_restore_means_130_and_nothing_or_0_and_all() {
    signal_at_every_call(Over::Nothing, "SIGTERM");
}

// ---------------------------------------------------------------- full and read-only disks

/// A small disk of its own, gone at the end.
struct Disk(PathBuf);

impl Disk {
    /// None where this user may not mount one.
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&path).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Disk(path));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount a tmpfs: {mounted:?}");
        skip_unless_ci("no disk can be mounted here, which takes root");
        None
    }

    fn make_read_only(&self) {
        let done = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    fn make_writable(&self) {
        let done = Command::new("mount").args(["-o", "remount,rw"]).arg(&self.0).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }

    /// Takes space until `bytes` are free.
    fn leave(&self, bytes: u64) {
        let filler = self.0.join("filler");
        let _ = fs::remove_file(&filler);
        let state = rustix::fs::statvfs(&self.0).unwrap();
        let free = state.f_bavail * state.f_frsize;
        fs::write(filler, vec![1; usize::try_from(free.saturating_sub(bytes)).unwrap()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Requires exit code and one line that says what, with a hint.
#[track_caller]
fn require_told(told: &str, output: &Output, code: i32, hint: &str) {
    assert_eq!(output.status.code(), Some(code), "{told}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let count = |start: &str| stderr.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("error: "), count("hint: ")), (1, 1), "not one line and a hint: {told}");
    assert!(
        stderr.lines().all(|line| ["error: ", "hint: ", " WARN"].iter().any(|start| line.starts_with(start))),
        "{told}"
    );
    assert!(stderr.contains(hint), "the hint lacks '{hint}': {told}");
}

#[test]
fn snapshot_into_a_full_store_fails_and_leaves_the_store_as_it_was() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    middling(&sandbox.path("app.db"), "wal", 30_000, 1);
    let arguments = ["snapshot", "app.db", "--store", "disk/backups"];
    let first = program(root, &arguments).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", root, &first));
    let archive_bytes = files_of(root, "disk/backups").values().map(|bytes| bytes.len() as u64).sum::<u64>();
    let before = files_of(root, "disk/backups");
    let (mut failures, mut successes) = (0, 0);
    for step in 0..12 {
        disk.leave(archive_bytes * step / 8);
        let output = program(root, &arguments).output().unwrap();
        let told = transcript(&format!("{step}/8 of the archive's length is free"), root, &output);
        if output.status.success() {
            successes += 1;
            for (name, _) in files_of(root, "disk/backups").iter().filter(|(name, _)| !before.contains_key(*name)) {
                fs::remove_file(root.join(name)).unwrap();
            }
        } else {
            failures += 1;
            require_told(&told, &output, 1, "the disk is full");
        }
        assert_eq!(files_of(root, "disk/backups"), before, "{told}");
        let names = names_below(&sandbox.path("disk/backups"));
        assert!(!names.iter().any(|name| name.contains(".upload-")), "{told}");
    }
    assert!(failures >= 6 && successes >= 1, "{failures} failures, {successes} successes");
    let restored =
        program(root, &["restore", "latest", "--store", "disk/backups", "--to", "copy.db"]).output().unwrap();
    assert!(restored.status.success(), "{}", transcript("restore", root, &restored));
    assert_eq!(fingerprint(sandbox.path("copy.db")), fingerprint(sandbox.path("app.db")));
}

#[test]
fn first_snapshot_into_a_full_store_lists_nothing_and_a_retry_succeeds() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    middling(&sandbox.path("app.db"), "delete", 30_000, 1);
    disk.leave(100_000);
    let output = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    require_told(&transcript("first", root, &output), &output, 1, "the disk is full");
    assert!(ids_in(&sandbox.path("disk/backups")).is_empty());
    assert_eq!(names_below(&sandbox.path("scratch")), Vec::<String>::new());
    disk.leave(4 << 20);
    let again = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    assert!(again.status.success(), "{}", transcript("again", root, &again));
}

#[test]
fn restore_to_a_disk_without_room_is_whole_or_nothing() {
    let mut untold = Vec::new();
    for over in [Over::Nothing, Over::Wal, Over::Delete, Over::Damaged, Over::Tables] {
        let sandbox = Sandbox::new();
        let Some(disk) = Disk::mount(sandbox.path("disk"), "32m") else { return };
        let restoring = restoring(&sandbox, over, 30_000);
        let image = 5 << 20;
        let (mut failures, mut successes) = (0, 0);
        for step in 0..14 {
            let folder = sandbox.path("run");
            copy_folder(&restoring.template, &folder);
            let inside = sandbox.path("disk/inside");
            fs::create_dir(&inside).unwrap();
            for suffix in ["", "-wal"] {
                let name = format!("app.db{suffix}");
                if folder.join(&name).exists() {
                    fs::copy(folder.join(&name), inside.join(&name)).unwrap();
                    fs::remove_file(folder.join(&name)).unwrap();
                }
            }
            disk.leave(image * step / 8);
            let mut arguments = restoring.arguments();
            let to = arguments.iter().position(|argument| *argument == "app.db").unwrap();
            arguments[to] = "../disk/inside/app.db";
            let before = files_of(&folder, "backups");
            let output = program(&folder, &arguments).output().unwrap();
            let told = format!(
                "{}{:?}",
                transcript(&format!("{over:?}, {step}/8 of 5 MiB is free"), &folder, &output),
                names_below(&inside)
            );
            fs::remove_file(sandbox.path("disk/filler")).unwrap();
            let found = restoring.look(over, &inside, &told);
            if output.status.success() {
                successes += 1;
                assert_eq!(found, Found::New, "{told}");
            } else {
                failures += 1;
                assert_eq!(found, Found::Old, "{told}");
                assert_eq!(output.status.code(), Some(1), "{told}");
                let stderr = String::from_utf8_lossy(&output.stderr);
                assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{told}");
                if !stderr.contains("hint: ") || !stderr.contains("free some space") {
                    untold.push(told.clone());
                }
                let litter = names_below(&inside)
                    .into_iter()
                    .find(|name| name.contains("lifeboat-") || name.contains(".damaged-"));
                assert_eq!(litter, None, "{told}");
            }
            require_good_store(&folder, &before, &told);
            fs::remove_dir_all(&folder).unwrap();
            fs::remove_dir_all(&inside).unwrap();
        }
        eprintln!("{over:?}: {failures} without room, {successes} with");
        assert!(failures >= 2 && successes >= 2, "{over:?}: {failures} failures, {successes} successes");
    }
    assert!(untold.is_empty(), "no word of the full disk:\n{}", untold.join("\n"));
}

#[test]
fn full_scratch_fails_with_nothing_changed_and_names_the_flag() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let restoring = restoring(&sandbox, Over::Delete, 30_000);
    let folder = &restoring.template;
    let state = |folder: &Path| -> BTreeMap<String, Vec<u8>> {
        files_of(folder, ".").into_iter().filter(|(name, _)| !name.ends_with("-shm")).collect()
    };
    let before = state(folder);
    disk.leave(1 << 20);
    let mut restore = restoring.arguments();
    restore.extend(["--scratch", "../disk"]);
    let snapshot = ["snapshot", "app.db", "--name", "other", "--store", "backups", "--scratch", "../disk"];
    for arguments in [&snapshot[..], &restore[..]] {
        let output = program(folder, arguments).output().unwrap();
        let told = transcript(&arguments.join(" "), folder, &output);
        require_told(&told, &output, 1, "--scratch");
        assert_eq!(state(folder), before, "{told}");
        assert_eq!(names_below(&sandbox.path("disk")), ["filler"], "{told}");
        // The same by TMPDIR.
        let plain: Vec<&str> = arguments[..arguments.len() - 2].to_vec();
        let output = program(folder, &plain).env("TMPDIR", sandbox.path("disk")).output().unwrap();
        let told = transcript(&plain.join(" "), folder, &output);
        require_told(&told, &output, 1, "--scratch");
        assert_eq!(state(folder), before, "{told}");
    }
    disk.leave(8 << 20);
    let output = program(folder, &restore).output().unwrap();
    let told = transcript("with room", folder, &output);
    if output.status.success() {
        assert_eq!(restoring.look(Over::Delete, folder, &told), Found::New, "{told}");
    }
    assert_eq!(names_below(&sandbox.path("disk")), ["filler"], "{told}");
}

#[test]
fn scratch_that_fills_up_midway_is_told_and_cleared() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let restoring = restoring(&sandbox, Over::Delete, 30_000);
    // The file system says that there is room, and has none at the second write of the image.
    let hit = injected(&restoring.template, &restoring.arguments, "write", "error=ENOSPC", "2+");
    let (output, _) = hit.unwrap();
    let told = transcript("write fails", &restoring.template, &output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(restoring.look(Over::Delete, &restoring.template, &told), Found::Old);
    assert_eq!(names_below(&restoring.template.join("scratch")), Vec::<String>::new(), "{told}");
}

#[test]
fn read_only_store_refuses_snapshots_and_still_restores() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    middling(&sandbox.path("app.db"), "wal", 3_000, 1);
    let first = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", root, &first));
    disk.make_read_only();
    let before = files_of(root, "disk");
    let output = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    let told = transcript("snapshot", root, &output);
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "{told}"
    );
    let restored =
        program(root, &["restore", "latest", "--store", "disk/backups", "--to", "copy.db"]).output().unwrap();
    assert!(restored.status.success(), "{}", transcript("restore", root, &restored));
    assert_eq!(fingerprint(sandbox.path("copy.db")), fingerprint(sandbox.path("app.db")));
    // No way back can be saved: nothing is overwritten, unless asked in so many words.
    open(sandbox.path("app.db")).execute_batch("DELETE FROM logs").unwrap();
    let changed = fingerprint(sandbox.path("app.db"));
    let replace = ["restore", "latest", "--store", "disk/backups", "--to", "app.db", "--replace"];
    let output = program(root, &replace).output().unwrap();
    let told = transcript("replace", root, &output);
    assert!(!output.status.success(), "{told}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing was changed"), "{told}");
    assert_eq!(fingerprint(sandbox.path("app.db")), changed, "{told}");
    let mut unsafely = replace.to_vec();
    unsafely.push("--no-safety");
    let output = program(root, &unsafely).output().unwrap();
    assert!(output.status.success(), "{}", transcript("--no-safety", root, &output));
    assert_eq!(fingerprint(sandbox.path("app.db")), fingerprint(sandbox.path("copy.db")));
    assert_eq!(files_of(root, "disk"), before);
    assert_eq!(names_below(&sandbox.path("scratch")), Vec::<String>::new());
}

#[test]
fn read_only_store_can_be_listed_and_verified() {
    let sandbox = Sandbox::new();
    let Some(disk) = Disk::mount(sandbox.path("disk"), "8m") else { return };
    let root = sandbox.root();
    middling(&sandbox.path("app.db"), "wal", 3_000, 1);
    let first = program(root, &["snapshot", "app.db", "--store", "disk/backups"]).output().unwrap();
    assert!(first.status.success(), "{}", transcript("first", root, &first));
    disk.make_read_only();
    for arguments in [["list", "--store", "disk/backups"].as_slice(), &["verify", "--all", "--store", "disk/backups"]] {
        let output = program(root, arguments).output().unwrap();
        assert!(output.status.success(), "{}", transcript(&arguments.join(" "), root, &output));
    }
}

#[test]
fn source_on_a_read_only_disk_is_saved_whole_or_refused() {
    for state in ["wal, clean", "wal, to be recovered", "delete", "delete, to be recovered"] {
        let sandbox = Sandbox::new();
        let Some(disk) = Disk::mount(sandbox.path("disk"), "32m") else { return };
        let (root, source) = (sandbox.root(), sandbox.path("disk/app.db"));
        middling(&source, state.split(',').next().unwrap(), 20_000, 1);
        if state == "wal, to be recovered" {
            with_live_wal(&source, |db| db.execute_batch("DELETE FROM logs WHERE rowid % 7 = 0").unwrap());
        }
        let mut expected = None;
        if state == "delete, to be recovered" {
            expected = Some(fingerprint(&source));
            let building = sandbox.path("disk/building");
            fs::rename(&source, &building).unwrap();
            let connection = open(&building);
            connection.execute_batch("PRAGMA cache_size = 5; BEGIN; UPDATE logs SET body = 'gone'").unwrap();
            fs::copy(&building, &source).unwrap();
            fs::copy(sandbox.path("disk/building-journal"), sandbox.path("disk/app.db-journal")).unwrap();
            connection.execute_batch("ROLLBACK").unwrap();
            drop(connection);
            fs::remove_file(building).unwrap();
        }
        let expected = expected.unwrap_or_else(|| {
            let aside = sandbox.path("aside");
            copy_folder(&sandbox.path("disk"), &aside);
            fingerprint(aside.join("app.db"))
        });
        let before: BTreeMap<_, _> = files_of(root, "disk");
        disk.make_read_only();
        let output = program(root, &["snapshot", "disk/app.db", "--store", "backups"]).output().unwrap();
        let told = transcript(state, root, &output);
        assert_eq!(files_of(root, "disk"), before, "{told}");
        if !state.ends_with("recovered") {
            assert!(output.status.success(), "{told}");
        }
        if output.status.success() {
            let restored =
                program(root, &["restore", "latest", "--store", "backups", "--to", "copy.db"]).output().unwrap();
            assert!(restored.status.success(), "{told}{}", transcript("restore", root, &restored));
            assert_eq!(fingerprint(sandbox.path("copy.db")), expected, "{told}");
        } else {
            require_told(&told, &output, 5, "");
            assert!(ids_in(&sandbox.path("backups")).is_empty(), "{told}");
        }
        // Where it can be recovered, it is, and saved whole.
        disk.make_writable();
        let output = program(root, &["snapshot", "disk/app.db", "--store", "backups"]).output().unwrap();
        let told = transcript(&format!("{state}, writable"), root, &output);
        assert!(output.status.success(), "{told}");
        let restored =
            program(root, &["restore", "latest", "--store", "backups", "--to", "again.db"]).output().unwrap();
        assert!(restored.status.success(), "{told}{}", transcript("restore", root, &restored));
        assert_eq!(fingerprint(sandbox.path("again.db")), expected, "{told}");
    }
}

#[test]
fn store_that_is_a_file_is_refused_and_left() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 5, "wal");
    fs::write(sandbox.path("backups"), b"mine").unwrap();
    let before = sandbox.state();
    for arguments in
        [["snapshot", "app.db"].as_slice(), &["list"], &["verify", "--all"], &["restore", "latest", "--to", "copy.db"]]
    {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--store", "backups"]);
        let output = program(sandbox.root(), &arguments).output().unwrap();
        let told = transcript(&arguments.join(" "), sandbox.root(), &output);
        require_told(&told, &output, 5, "");
        assert_eq!(sandbox.state(), before, "{told}");
    }
}

#[test]
fn store_that_goes_away_meanwhile_fails_and_is_not_made_again() {
    for _ in 0..5 {
        let sandbox = Sandbox::new();
        let root = sandbox.root();
        middling(&sandbox.path("app.db"), "wal", 60_000, 1);
        let first = program(root, &["snapshot", "app.db", "--store", "backups"]).output().unwrap();
        assert!(first.status.success(), "{}", transcript("first", root, &first));
        let before = files_of(root, "backups");
        let mut child =
            program(root, &["snapshot", "app.db", "--store", "backups", "--compression", "gzip:9"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !names_below(&sandbox.path("backups")).iter().any(|name| name.contains(".upload-")) {
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no upload was seen");
            std::thread::yield_now();
        }
        fs::rename(sandbox.path("backups"), sandbox.path("unplugged")).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = transcript("store moved away", root, &output);
        assert!(!output.status.success(), "{told}");
        assert_eq!(
            String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{told}"
        );
        assert!(!sandbox.path("backups").exists(), "{told}");
        fs::rename(sandbox.path("unplugged"), sandbox.path("backups")).unwrap();
        assert_eq!(ids_in(&sandbox.path("backups")).len(), 1, "{told}");
        require_good_store(root, &before, &told);
    }
}
