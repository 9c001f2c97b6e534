//! Snapshots and restores of databases that are damaged before a snapshot is taken.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::helpers::{assert_has_fields, assert_one_error, flip_bytes, id_of, query_value, refused, shell_ok, sql};
use crate::support::{Sandbox, count, sample, skip_unless_ci};

const PAGE: usize = 4096;

/// Creates an undamaged database and takes a snapshot of it. Returns the sandbox and the id.
fn database_with_snapshot() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 60, "delete");
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

/// Returns the number of the first page of a table or an index.
fn root_page(path: &Path, name: &str) -> usize {
    query_value(path, &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'")).parse().unwrap()
}

/// A description of a damage, and a function that does it to a file.
type Damage = (&'static str, fn(&Path));

/// Damage in pages. SQLite can open the file and finds the damage when it reads the pages.
const DAMAGED_PAGES: [Damage; 5] = [
    ("a page of a table", |path| flip_bytes(path, (root_page(path, "balances") - 1) * PAGE, 64)),
    ("a page of an index", |path| flip_bytes(path, (root_page(path, "balances_by_account") - 1) * PAGE, 64)),
    ("a leaf of a table", |path| {
        let last = fs::metadata(path).unwrap().len() as usize / PAGE;
        flip_bytes(path, (last - 1) * PAGE, PAGE);
    }),
    ("pages in the middle", |path| flip_bytes(path, 6 * PAGE, 3 * PAGE)),
    ("a zeroed page", |path| {
        let mut bytes = fs::read(path).unwrap();
        let start = (root_page(path, "logs") - 1) * PAGE;
        bytes[start..start + PAGE].fill(0);
        fs::write(path, bytes).unwrap();
    }),
];

/// Damage with which SQLite cannot open the file.
const DAMAGED_FILES: [Damage; 3] = [
    ("a file cut short", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("a file cut in its first page", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..1000]).unwrap();
    }),
    ("a schema page of noise", |path| flip_bytes(path, 100, PAGE - 100)),
];

#[test]
fn a_snapshot_of_a_damaged_database_fails_with_exit_code_3() {
    for (description, damage) in DAMAGED_PAGES.iter().chain(&DAMAGED_FILES) {
        let (sandbox, good_id) = database_with_snapshot();
        damage(&sandbox.path("app.db"));
        let before = sandbox.state();
        let run = sandbox.run(&["snapshot", "app.db", "--store", "backups"]);
        assert_eq!(run.exit(), 3, "{description}\n{}", run.transcript());
        assert_eq!((run.stdout(), sandbox.state()), (String::new(), before), "{description}\n{}", run.transcript());
        assert_one_error(&run);
        let run = run.says("app.db").says("hint: ");
        drop(run);
        let run = sandbox.run(&["snapshot", "app.db", "--store", "backups", "--json"]).code(3);
        assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 0, "{description}\n{}", run.transcript());
        assert_has_fields(&run.json()["problems"][0], &["kind", "message"]);
        assert_eq!(sandbox.ids(), [good_id], "{description}");
    }
}

#[test]
fn with_allow_damaged_a_damaged_database_is_saved_and_never_latest() {
    for (description, damage) in DAMAGED_PAGES.iter().chain(&DAMAGED_FILES) {
        let (sandbox, good_id) = database_with_snapshot();
        damage(&sandbox.path("app.db"));
        let bytes = fs::read(sandbox.path("app.db")).unwrap();
        let run = sandbox.run(&["snapshot", "app.db", "--allow-damaged", "--store", "backups", "--json"]);
        assert_eq!(run.exit(), 0, "{description}\n{}", run.transcript());
        let id = id_of(&run.json());
        assert_eq!(run.json()["snapshots"][0]["kind"], "damaged", "{description}\n{}", run.transcript());
        assert_eq!(sandbox.ids(), [id.clone(), good_id.clone()], "{description}");
        let latest = sandbox.json(&["show", "latest", "--store", "backups"]);
        assert_eq!(latest["id"], good_id.as_str(), "{description}");
        sandbox.ok(&["verify", &id, "--store", "backups"]);
        sandbox.ok(&["extract", &id, "--to", "out", "--store", "backups"]);
        assert!(
            fs::read(sandbox.path("out/data/app.db")).unwrap() == bytes,
            "{description}: the extracted bytes differ"
        );
        assert!(fs::read(sandbox.path("app.db")).unwrap() == bytes, "{description}: the source was changed");
    }
}

#[test]
fn a_snapshot_of_raw_bytes_can_only_be_extracted() {
    let (sandbox, _) = database_with_snapshot();
    DAMAGED_FILES[0].1(&sandbox.path("app.db"));
    fs::write(sandbox.path("app.db-wal"), "what a WAL once was").unwrap();
    let bytes = fs::read(sandbox.path("app.db")).unwrap();
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--allow-damaged", "--store", "backups"]));
    refused(&sandbox, &["restore", &id, "--to", "x.db", "--store", "backups"], 2).says("lifeboat extract");
    refused(&sandbox, &["drill", &id, "--store", "backups"], 2).says("lifeboat extract");
    refused(&sandbox, &["diff", &id, &id, "--store", "backups"], 2);
    refused(&sandbox, &["extract", &id, "--table", "logs", "--store", "backups"], 2);
    let shown = sandbox.json(&["show", &id, "--store", "backups"]);
    assert!(shown["restore"][0].as_str().unwrap().contains("lifeboat extract"), "{shown:#}");
    sandbox.ok(&["extract", &id, "--to", "out", "--store", "backups"]);
    assert_eq!(fs::read(sandbox.path("out/data/app.db")).unwrap(), bytes);
    assert!(sandbox.path("out/data/app.db-wal").exists(), "the WAL was not saved");
    assert_eq!(fs::read(sandbox.path("out/data/app.db-wal")).unwrap(), b"what a WAL once was");
}

#[test]
fn with_allow_damaged_a_file_without_its_first_bytes_is_saved() {
    let (sandbox, good_id) = database_with_snapshot();
    flip_bytes(sandbox.path("app.db"), 0, 16);
    let run = refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 2).says("--allow-damaged");
    drop(run);
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--allow-damaged", "--store", "backups"]));
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["kind"], "damaged");
    assert_eq!(sandbox.json(&["show", "latest", "--store", "backups"])["id"], good_id.as_str());
}

#[test]
fn a_snapshot_with_damaged_pages_is_restored_with_the_same_bytes() {
    let mut failures = Vec::new();
    for (description, damage) in &DAMAGED_PAGES {
        for flags in [&[][..], &["--full-check"]] {
            let (sandbox, _) = database_with_snapshot();
            damage(&sandbox.path("app.db"));
            let mut arguments = vec!["snapshot", "app.db", "--allow-damaged", "--store", "backups"];
            arguments.extend(flags);
            let id = id_of(&sandbox.json(&arguments));
            let run = sandbox.run(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
            if run.exit() != 0 {
                failures.push(format!("{description} {flags:?}: {}", run.stderr()));
            } else {
                let (old, new) = (sandbox.path("app.db"), sandbox.path("copy.db"));
                assert!(fs::read(old).unwrap() == fs::read(new).unwrap(), "{description}\n{}", run.transcript());
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn replace_repairs_a_damaged_database() {
    for (description, damage) in DAMAGED_PAGES.iter().chain(&DAMAGED_FILES) {
        let (sandbox, good_id) = database_with_snapshot();
        let original = fs::read(sandbox.path("app.db")).unwrap();
        damage(&sandbox.path("app.db"));
        refused(&sandbox, &["restore", &good_id, "--to", "app.db", "--store", "backups"], 2).says("--replace");
        let run = sandbox.run(&["restore", &good_id, "--to", "app.db", "--replace", "--store", "backups", "--json"]);
        assert_eq!(run.exit(), 0, "{description}\n{}", run.transcript());
        assert_eq!((count(sandbox.path("app.db"), "balances"), count(sandbox.path("app.db"), "logs")), (600, 600));
        assert_eq!(query_value(sandbox.path("app.db"), "PRAGMA integrity_check"), "ok", "{description}");
        assert_eq!(fs::read(sandbox.path("app.db")).unwrap().len(), original.len(), "{description}");
    }
}

#[test]
fn the_undo_command_restores_the_damaged_file() {
    let mut failures = Vec::new();
    for (description, damage) in DAMAGED_PAGES.iter().chain(&DAMAGED_FILES) {
        let (sandbox, good_id) = database_with_snapshot();
        damage(&sandbox.path("app.db"));
        let damaged = fs::read(sandbox.path("app.db")).unwrap();
        let document = sandbox.json(&["restore", &good_id, "--to", "app.db", "--replace", "--store", "backups"]);
        let undo = document["undo"].as_str().unwrap();
        let output = crate::helpers::shell(&sandbox, undo);
        let after_undo = fs::read(sandbox.path("app.db")).unwrap();
        // The first 100 bytes are the header, which has counters that SQLite changes when it writes.
        let is_same = after_undo.len() == damaged.len() && after_undo[100..] == damaged[100..];
        if !output.status.success() || !is_same {
            let stderr = String::from_utf8_lossy(&output.stderr);
            failures.push(format!("{description}: the bytes are the same: {is_same}\n  $ {undo}\n  {stderr}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_database_with_an_invalid_header_is_reported_as_damaged() {
    let (sandbox, _) = database_with_snapshot();
    let mut bytes = fs::read(sandbox.path("app.db")).unwrap();
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    bytes[16..24].copy_from_slice(&[0x12, 0x34, 9, 9, 9, 9, 9, 9]);
    fs::write(sandbox.path("app.db"), bytes).unwrap();
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3);
}

/// Changes a value in an index so that the index itself stays valid, but differs from its table.
fn change_index_entry(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let value = b"2026-11-07T12:00:00";
    let is_index_leaf = |page: &[u8]| page[0] == 0x0a;
    let page = bytes.chunks_mut(PAGE).skip(1).find(|page| is_index_leaf(page)).unwrap();
    // SQLite fills a page from its end. An occurrence before the last one may be in a deleted cell.
    let start = page.windows(value.len()).rposition(|window| window == value).unwrap();
    page[start + value.len() - 1] = b'1';
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_full_check_finds_an_index_that_differs_from_its_table() {
    let (sandbox, _) = database_with_snapshot();
    change_index_entry(&sandbox.path("app.db"));
    let run = refused(&sandbox, &["snapshot", "app.db", "--full-check", "--store", "backups"], 3);
    drop(run.says("balances_by_account"));
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--full-check", "--allow-damaged", "--store", "backups"]));
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["kind"], "damaged");
    sandbox.ok(&["drill", &id, "--store", "backups"]);
}

#[test]
fn a_restore_warns_about_an_index_that_differs_from_its_table() {
    let (sandbox, _) = database_with_snapshot();
    change_index_entry(&sandbox.path("app.db"));
    let id = sandbox.snapshot("app.db");
    drop(sandbox.ok(&["drill", &id, "--store", "backups"]).says("REINDEX"));
    drop(sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]).says("REINDEX"));
    assert_eq!(fs::read(sandbox.path("copy.db")).unwrap(), fs::read(sandbox.path("app.db")).unwrap());
    drop(sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]).says("REINDEX"));
}

#[test]
fn damage_is_described_by_its_first_line_and_not_by_a_heading() {
    for (description, damage) in &DAMAGED_PAGES {
        let (sandbox, _) = database_with_snapshot();
        damage(&sandbox.path("app.db"));
        let run = sandbox.run(&["snapshot", "app.db", "--full-check", "--store", "backups"]).code(3);
        assert!(!run.stderr().contains("*** in database"), "{description}\n{}", run.transcript());
        let run = sandbox.run(&["check", "app.db", "--store", "backups"]).code(3);
        assert!(!run.stdout().contains("*** in database"), "{description}\n{}", run.transcript());
    }
}

#[test]
fn the_error_for_a_schema_that_cannot_be_parsed_says_how_to_save_the_bytes() {
    let sandbox = Sandbox::new();
    sql(
        sandbox.path("app.db"),
        "CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1);
         PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 't'",
    );
    let bytes = fs::read(sandbox.path("app.db")).unwrap();
    let run = sandbox.run(&["snapshot", "app.db", "--store", "backups"]).code(3);
    drop(run.says("--allow-damaged").says("newer SQLite").says("malformed database schema"));
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--allow-damaged", "--store", "backups"]));
    sandbox.ok(&["extract", &id, "--to", "out", "--store", "backups"]);
    assert_eq!(fs::read(sandbox.path("out/data/app.db")).unwrap(), bytes);
}

/// A file that is mounted to another path; removed when it is dropped.
struct MountedFile(std::path::PathBuf);

impl MountedFile {
    /// Returns `None` if this user is not allowed to mount.
    fn new(file: &Path, path: &Path) -> Option<Self> {
        fs::write(path, "").unwrap();
        let output = Command::new("mount").arg("--bind").args([file, path]).output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(MountedFile(path.to_owned()));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount: {output:?}");
        skip_unless_ci("mounting needs root");
        None
    }
}

impl Drop for MountedFile {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_damaged_file_that_is_a_mount_is_restored_in_place() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("host")).unwrap();
    fs::create_dir(sandbox.path("app")).unwrap();
    sample(sandbox.path("host/app.db"), 60, "delete");
    let original = fs::read(sandbox.path("host/app.db")).unwrap();
    let Some(_mount) = MountedFile::new(&sandbox.path("host/app.db"), &sandbox.path("app/app.db")) else { return };
    let id = sandbox.snapshot("app/app.db");
    // The damaged file can be longer or shorter than the image.
    for damaged in [[&[0; 200], &original[200..], &[7; 10_000]].concat(), vec![1; 10], [0; 8192].to_vec()] {
        fs::write(sandbox.path("host/app.db"), &damaged).unwrap();
        let mode = fs::metadata(sandbox.path("host/app.db")).unwrap().permissions();
        let document = sandbox.json(&["restore", &id, "--replace", "--yes", "--store", "backups"]);
        assert_eq!(document["mode"], "replace-damaged", "{document:#}");
        assert!(fs::read(sandbox.path("host/app.db")).unwrap() == original);
        assert_eq!(fs::metadata(sandbox.path("host/app.db")).unwrap().permissions(), mode);
        sandbox.ok(&["check", "app/app.db", "--store", "backups"]);
        shell_ok(&sandbox, document["undo"].as_str().unwrap());
        assert!(fs::read(sandbox.path("host/app.db")).unwrap() == damaged, "the undo command restores other bytes");
    }
}
