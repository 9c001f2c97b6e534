//! What the tests of several subcommands share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{LIFEBOAT, Run, Sandbox, open};

/// Runs what must be refused: the exit code, one line that says why, at most one that says what to do, nothing on
/// stdout, and every file as it was.
#[track_caller]
pub(crate) fn refused(sandbox: &Sandbox, arguments: &[&str], code: i32) -> Run {
    let before = lasting(sandbox);
    let run = sandbox.run(arguments).code(code);
    assert_eq!(lasting(sandbox), before, "something was changed\n{}", run.transcript());
    assert_eq!(run.stdout(), "", "stdout is for data\n{}", run.transcript());
    one_error(&run);
    run
}

/// Every file that holds something of its own. SQLite makes a `-shm` and an empty `-wal` where it reads a WAL database;
/// a source's folder in a store may stay empty.
pub(crate) fn lasting(sandbox: &Sandbox) -> BTreeMap<PathBuf, String> {
    let mut state = sandbox.state();
    state.retain(|path, what| {
        let name = path.to_string_lossy();
        let of_sqlite = name.ends_with("-shm") || (name.ends_with("-wal") && what.starts_with("0 "));
        let folder_of_a_store = what == "folder" && path.parent().is_some_and(|parent| parent.ends_with("backups"));
        !of_sqlite && !folder_of_a_store
    });
    state
}

/// Requires exactly one `error:` line, at most one `hint:` line behind it, and nothing else but warnings.
#[track_caller]
pub(crate) fn one_error(run: &Run) {
    let stderr = run.stderr();
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim_start().starts_with("WARN")).collect();
    let good = match lines.as_slice() {
        [error] => error.starts_with("error: "),
        [error, hint] => error.starts_with("error: ") && hint.starts_with("hint: "),
        _ => false,
    };
    assert!(good, "not one error line and at most one hint\n{}", run.transcript());
    assert!(!stderr.contains("panicked"), "{}", run.transcript());
}

/// Runs what the parser of the command line refuses: exit 2, one `error:` line first, every file as it was.
#[track_caller]
pub(crate) fn refused_by_the_parser(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    let before = sandbox.state();
    let run = sandbox.run(arguments).code(2);
    assert_eq!(sandbox.state(), before, "something was changed\n{}", run.transcript());
    assert_eq!(run.stdout(), "", "stdout is for data\n{}", run.transcript());
    assert!(run.stderr().starts_with("error: "), "{}", run.transcript());
    assert_eq!(run.stderr().lines().filter(|line| line.starts_with("error:")).count(), 1, "{}", run.transcript());
    run
}

/// Requires silence on stderr, which means success.
#[track_caller]
pub(crate) fn silent(run: Run) -> Run {
    assert_eq!(run.stderr(), "", "{}", run.transcript());
    run
}

/// The names of an object's fields.
#[track_caller]
pub(crate) fn fields(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value:#}")).keys().map(String::as_str).collect()
}

/// Requires that an object has at least these fields.
#[track_caller]
pub(crate) fn has_fields(value: &Value, names: &[&str]) {
    let fields = fields(value);
    let missing: Vec<_> = names.iter().filter(|name| !fields.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {value:#}");
}

/// Every field that a snapshot's document has, as the contract lists them; `tables` aside.
pub(crate) const SNAPSHOT_FIELDS: &[&str] = &[
    "id",
    "source",
    "origin",
    "kind",
    "engine",
    "created_at",
    "tags",
    "archive",
    "archive_bytes",
    "raw_bytes",
    "sha256",
    "codec",
    "encrypted",
    "server_version",
    "rows",
    "proof",
    "seconds",
];

/// Requires an error document with this kind, and an exit code to match; what it says.
#[track_caller]
pub(crate) fn error_document(run: &Run, kind: &str) -> Value {
    let document = run.json();
    let error = &document["error"];
    assert_eq!(fields(error), BTreeSet::from(["causes", "hint", "kind", "message"]), "{}", run.transcript());
    assert_eq!(error["kind"], kind, "{}", run.transcript());
    assert!(!error["message"].as_str().unwrap().is_empty(), "{}", run.transcript());
    assert!(error["causes"].is_array(), "{}", run.transcript());
    error.clone()
}

/// Overwrites bytes of a file with others that are surely different.
pub(crate) fn flip(path: impl AsRef<Path>, start: usize, length: usize) {
    let mut bytes = fs::read(&path).unwrap();
    let end = (start + length).min(bytes.len());
    bytes[start..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
    fs::write(&path, bytes).unwrap();
}

/// Runs a line of shell in the sandbox, with the program on PATH.
pub(crate) fn shell(sandbox: &Sandbox, line: &str) -> Output {
    let folder = Path::new(LIFEBOAT).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-ec", line]).current_dir(sandbox.root()).env("PATH", path).env("TMPDIR", sandbox.path("scratch"));
    command.env_remove("LIFEBOAT_HOST").env_remove("LIFEBOAT_SCRATCH");
    command.output().unwrap()
}

/// Runs a line of shell and requires that it succeeds.
#[track_caller]
pub(crate) fn shell_ok(sandbox: &Sandbox, line: &str) -> Output {
    let output = shell(sandbox, line);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "$ {line}\n-- stdout\n{stdout}-- stderr\n{stderr}");
    output
}

/// Runs SQL on a database.
#[track_caller]
pub(crate) fn sql(path: impl AsRef<Path>, statements: &str) {
    open(path).execute_batch(statements).unwrap();
}

/// The first column of a query's first row, as text.
#[track_caller]
pub(crate) fn ask(path: impl AsRef<Path>, query: &str) -> String {
    let value: rusqlite::types::Value = open(path).query_row(query, [], |row| row.get(0)).unwrap();
    match value {
        rusqlite::types::Value::Null => "null".to_owned(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(bytes) => format!("{bytes:?}"),
    }
}

/// The id of the one snapshot in a document.
#[track_caller]
pub(crate) fn id_of(document: &Value) -> String {
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1, "{document:#}");
    document["snapshots"][0]["id"].as_str().unwrap().to_owned()
}

/// Makes an empty store.
pub(crate) fn empty_store(path: &Path) {
    let store = lifeboat::store::LocalStore::create(path).unwrap();
    lifeboat::snapshots::catalog::Catalog::create(Box::new(store)).unwrap();
}

/// Adds a copy of a snapshot that is dated otherwise, as a wrong clock would have made it; its id.
pub(crate) fn redate(store: &Path, id: &str, time: chrono::DateTime<chrono::Utc>) -> String {
    let old: lifeboat::snapshots::id::SnapshotId = id.parse().unwrap();
    let new = lifeboat::snapshots::id::SnapshotId::new(old.source(), time, 7);
    let folder = store.join(old.source().as_str());
    let text = fs::read_to_string(folder.join(format!("{id}.json"))).unwrap();
    let mut manifest: Value = serde_json::from_str(&text).unwrap();
    manifest["id"] = new.to_string().into();
    manifest["archive"] = format!("{new}.tar.gz").into();
    manifest["created_at"] = time.to_rfc3339().into();
    fs::copy(folder.join(format!("{id}.tar.gz")), folder.join(format!("{new}.tar.gz"))).unwrap();
    fs::write(folder.join(format!("{new}.json")), serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    new.to_string()
}
