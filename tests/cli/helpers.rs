//! Functions that the tests of several subcommands share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{LIFEBOAT, Run, Sandbox, open};

/// Runs a command that must be refused. Requires this exit code, one `error:` line and at most one `hint:` line on
/// stderr, an empty stdout, and that no file has changed.
#[track_caller]
pub(crate) fn refused(sandbox: &Sandbox, arguments: &[&str], code: i32) -> Run {
    let before = lasting_files(sandbox);
    let run = sandbox.run(arguments).code(code);
    assert_eq!(lasting_files(sandbox), before, "a file has changed\n{}", run.transcript());
    assert_eq!(run.stdout(), "", "stdout is not empty\n{}", run.transcript());
    assert_one_error(&run);
    run
}

/// Returns the state of all files except those that a command may create although it changes nothing: the `-shm` and
/// the empty `-wal` that SQLite creates when it reads a WAL database, and a source's folder in the store `backups`.
pub(crate) fn lasting_files(sandbox: &Sandbox) -> BTreeMap<PathBuf, String> {
    let mut state = sandbox.state();
    state.retain(|path, description| {
        let name = path.to_string_lossy();
        let is_of_sqlite = name.ends_with("-shm") || (name.ends_with("-wal") && description.starts_with("0 "));
        let is_in_store = path.parent().is_some_and(|parent| parent.ends_with("backups"));
        !(is_of_sqlite || is_in_store && description == "folder")
    });
    state
}

/// Requires that stderr consists of exactly one `error:` line, at most one `hint:` line after it, and warnings.
#[track_caller]
pub(crate) fn assert_one_error(run: &Run) {
    let stderr = run.stderr();
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim_start().starts_with("WARN")).collect();
    let is_one_error = match lines.as_slice() {
        [error] => error.starts_with("error: "),
        [error, hint] => error.starts_with("error: ") && hint.starts_with("hint: "),
        _ => false,
    };
    assert!(is_one_error, "stderr is not one error line and at most one hint line\n{}", run.transcript());
    assert!(!stderr.contains("panicked"), "{}", run.transcript());
}

/// Runs a command that the parser of the command line must refuse. Requires exit code 2, a single `error:` line at the
/// start of stderr, an empty stdout, and that no file has changed.
#[track_caller]
pub(crate) fn refused_by_the_parser(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    let before = sandbox.state();
    let run = sandbox.run(arguments).code(2);
    assert_eq!(sandbox.state(), before, "a file has changed\n{}", run.transcript());
    assert_eq!(run.stdout(), "", "stdout is not empty\n{}", run.transcript());
    assert!(run.stderr().starts_with("error: "), "{}", run.transcript());
    assert_eq!(run.stderr().lines().filter(|line| line.starts_with("error:")).count(), 1, "{}", run.transcript());
    run
}

/// Requires that stderr is empty, and returns the run.
#[track_caller]
pub(crate) fn silent(run: Run) -> Run {
    assert_eq!(run.stderr(), "", "{}", run.transcript());
    run
}

/// Returns the names of an object's fields.
#[track_caller]
pub(crate) fn field_names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("not an object: {value:#}")).keys().map(String::as_str).collect()
}

/// Requires that an object has at least these fields.
#[track_caller]
pub(crate) fn assert_has_fields(value: &Value, names: &[&str]) {
    let fields = field_names(value);
    let missing: Vec<_> = names.iter().filter(|name| !fields.contains(**name)).collect();
    assert!(missing.is_empty(), "the fields {missing:?} are missing in {value:#}");
}

/// The fields of the JSON document of a snapshot, except `tables`.
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

/// Requires that stdout is an error document of this kind, and returns its `error` object.
#[track_caller]
pub(crate) fn error_document(run: &Run, kind: &str) -> Value {
    let document = run.json();
    let error = &document["error"];
    assert_eq!(field_names(error), BTreeSet::from(["causes", "hint", "kind", "message"]), "{}", run.transcript());
    assert_eq!(error["kind"], kind, "{}", run.transcript());
    assert!(!error["message"].as_str().unwrap().is_empty(), "{}", run.transcript());
    assert!(error["causes"].is_array(), "{}", run.transcript());
    error.clone()
}

/// Changes `length` bytes of a file, from the offset `start`: every byte gets a different value.
pub(crate) fn flip_bytes(path: impl AsRef<Path>, start: usize, length: usize) {
    let mut bytes = fs::read(&path).unwrap();
    let end = (start + length).min(bytes.len());
    bytes[start..end].iter_mut().for_each(|byte| *byte ^= 0xa5);
    fs::write(&path, bytes).unwrap();
}

/// Runs a shell command in the sandbox, with the program on PATH.
pub(crate) fn shell(sandbox: &Sandbox, line: &str) -> Output {
    let folder = Path::new(LIFEBOAT).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-ec", line]).current_dir(sandbox.root()).env("PATH", path).env("TMPDIR", sandbox.path("scratch"));
    command.env_remove("LIFEBOAT_HOST").env_remove("LIFEBOAT_SCRATCH");
    command.output().unwrap()
}

/// Runs a shell command as [`shell`] does and requires that it succeeds.
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

/// Returns the first column of a query's first row as text.
#[track_caller]
pub(crate) fn query_value(path: impl AsRef<Path>, query: &str) -> String {
    let value: rusqlite::types::Value = open(path).query_row(query, [], |row| row.get(0)).unwrap();
    match value {
        rusqlite::types::Value::Null => "null".to_owned(),
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Real(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        rusqlite::types::Value::Blob(bytes) => format!("{bytes:?}"),
    }
}

/// Returns the id of the only snapshot in a document.
#[track_caller]
pub(crate) fn id_of(document: &Value) -> String {
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1, "{document:#}");
    document["snapshots"][0]["id"].as_str().unwrap().to_owned()
}

/// Creates an empty store.
pub(crate) fn empty_store(path: &Path) {
    let store = lifeboat::store::LocalStore::create(path).unwrap();
    lifeboat::snapshots::catalog::Catalog::create(Box::new(store)).unwrap();
}

/// Adds a copy of a snapshot with another time of creation, like one that was taken while the clock was wrong. Returns
/// the id of the copy.
pub(crate) fn copy_with_time(store: &Path, id: &str, time: chrono::DateTime<chrono::Utc>) -> String {
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

/// Runs the program as a user other than root, because file permissions do not restrict root.
pub(crate) fn run_without_root(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    if !rustix::process::geteuid().is_root() {
        return sandbox.run(arguments);
    }
    // The program is copied, because that user may not be allowed to enter the folder in which it was built.
    let program = sandbox.path("scratch/lifeboat");
    let original = sandbox.command(arguments);
    if !program.exists() {
        fs::copy(LIFEBOAT, &program).unwrap();
    }
    let mut command = Command::new(&program);
    command.args(original.get_args()).current_dir(sandbox.root()).uid(65_534).gid(65_534);
    sandbox.finish(command)
}
