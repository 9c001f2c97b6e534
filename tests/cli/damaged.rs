//! Databases that are damaged before anybody saves them.

use std::fs;
use std::path::Path;

use crate::helpers::{ask, flip, has_fields, id_of, one_error, refused};
use crate::support::{Sandbox, count, sample};

const PAGE: usize = 4096;

/// A good database, a good snapshot of it, and nothing damaged yet.
fn sandbox() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 60, "delete");
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

/// The first page of a table or index.
fn root(path: &Path, name: &str) -> usize {
    ask(path, &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'")).parse().unwrap()
}

type Damage = (&'static str, fn(&Path));

/// What the damage does, and how: SQLite opens all of them far enough to find out.
const IN_PAGES: [Damage; 5] = [
    ("a page of a table", |path| flip(path, (root(path, "balances") - 1) * PAGE, 64)),
    ("a page of an index", |path| flip(path, (root(path, "balances_by_account") - 1) * PAGE, 64)),
    ("a leaf of a table", |path| {
        let last = fs::metadata(path).unwrap().len() as usize / PAGE;
        flip(path, (last - 1) * PAGE, PAGE);
    }),
    ("pages in the middle", |path| flip(path, 6 * PAGE, 3 * PAGE)),
    ("a zeroed page", |path| {
        let mut bytes = fs::read(path).unwrap();
        let start = (root(path, "logs") - 1) * PAGE;
        bytes[start..start + PAGE].fill(0);
        fs::write(path, bytes).unwrap();
    }),
];

/// Damage that keeps SQLite from opening the file at all.
const AT_THE_START: [Damage; 3] = [
    ("a file cut short", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("a file cut in its first page", |path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..1000]).unwrap();
    }),
    ("a schema page of noise", |path| flip(path, 100, PAGE - 100)),
];

#[test]
fn a_damaged_database_fails_the_snapshot_with_3() {
    for (what, damage) in IN_PAGES.iter().chain(&AT_THE_START) {
        let (sandbox, good) = sandbox();
        damage(&sandbox.path("app.db"));
        let before = sandbox.state();
        let run = sandbox.run(&["snapshot", "app.db", "--store", "backups"]);
        assert_eq!(run.exit(), 3, "{what}\n{}", run.transcript());
        assert_eq!((run.stdout(), sandbox.state()), (String::new(), before), "{what}\n{}", run.transcript());
        one_error(&run);
        let run = run.says("app.db").says("hint: ");
        drop(run);
        let run = sandbox.run(&["snapshot", "app.db", "--store", "backups", "--json"]).code(3);
        assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 0, "{what}\n{}", run.transcript());
        has_fields(&run.json()["problems"][0], &["kind", "message"]);
        assert_eq!(sandbox.ids(), [good], "{what}");
    }
}

#[test]
fn a_damaged_database_is_saved_as_damaged_when_asked_and_is_never_latest() {
    for (what, damage) in IN_PAGES.iter().chain(&AT_THE_START) {
        let (sandbox, good) = sandbox();
        damage(&sandbox.path("app.db"));
        let bytes = fs::read(sandbox.path("app.db")).unwrap();
        let run = sandbox.run(&["snapshot", "app.db", "--allow-damaged", "--store", "backups", "--json"]);
        assert_eq!(run.exit(), 0, "{what}\n{}", run.transcript());
        let id = id_of(&run.json());
        assert_eq!(run.json()["snapshots"][0]["kind"], "damaged", "{what}\n{}", run.transcript());
        assert_eq!(sandbox.ids(), [id.clone(), good.clone()], "{what}");
        let latest = sandbox.json(&["show", "latest", "--store", "backups"]);
        assert_eq!(latest["id"], good.as_str(), "{what}");
        sandbox.ok(&["verify", &id, "--store", "backups"]);
        sandbox.ok(&["extract", &id, "--to", "out", "--store", "backups"]);
        assert!(fs::read(sandbox.path("out/data/app.db")).unwrap() == bytes, "{what}: extract gives other bytes");
        assert!(fs::read(sandbox.path("app.db")).unwrap() == bytes, "{what}: the source was changed");
    }
}

#[test]
fn raw_bytes_are_extracted_and_not_restored() {
    let (sandbox, _) = sandbox();
    AT_THE_START[0].1(&sandbox.path("app.db"));
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
fn a_file_that_lost_its_first_bytes_is_saved_raw_when_asked() {
    let (sandbox, good) = sandbox();
    flip(sandbox.path("app.db"), 0, 16);
    let run = refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 2).says("--allow-damaged");
    drop(run);
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--allow-damaged", "--store", "backups"]));
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["kind"], "damaged");
    assert_eq!(sandbox.json(&["show", "latest", "--store", "backups"])["id"], good.as_str());
}

#[test]
fn a_damaged_snapshot_whose_pages_open_restores_to_what_it_was() {
    let mut failures = Vec::new();
    for (what, damage) in &IN_PAGES {
        for flags in [&[][..], &["--full-check"]] {
            let (sandbox, _) = sandbox();
            damage(&sandbox.path("app.db"));
            let mut arguments = vec!["snapshot", "app.db", "--allow-damaged", "--store", "backups"];
            arguments.extend(flags);
            let id = id_of(&sandbox.json(&arguments));
            let run = sandbox.run(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
            if run.exit() != 0 {
                failures.push(format!("{what} {flags:?}: {}", run.stderr()));
            } else {
                let (old, new) = (sandbox.path("app.db"), sandbox.path("copy.db"));
                assert!(fs::read(old).unwrap() == fs::read(new).unwrap(), "{what}\n{}", run.transcript());
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_damaged_file_is_put_right_by_a_restore_over_it() {
    for (what, damage) in IN_PAGES.iter().chain(&AT_THE_START) {
        let (sandbox, good) = sandbox();
        let whole = fs::read(sandbox.path("app.db")).unwrap();
        damage(&sandbox.path("app.db"));
        refused(&sandbox, &["restore", &good, "--to", "app.db", "--store", "backups"], 2).says("--replace");
        let run = sandbox.run(&["restore", &good, "--to", "app.db", "--replace", "--store", "backups", "--json"]);
        assert_eq!(run.exit(), 0, "{what}\n{}", run.transcript());
        assert_eq!((count(sandbox.path("app.db"), "balances"), count(sandbox.path("app.db"), "logs")), (600, 600));
        assert_eq!(ask(sandbox.path("app.db"), "PRAGMA integrity_check"), "ok", "{what}");
        assert_eq!(fs::read(sandbox.path("app.db")).unwrap().len(), whole.len(), "{what}");
    }
}

#[test]
fn the_undo_of_a_restore_over_a_damaged_file_brings_the_damage_back() {
    let mut failures = Vec::new();
    for (what, damage) in IN_PAGES.iter().chain(&AT_THE_START) {
        let (sandbox, good) = sandbox();
        damage(&sandbox.path("app.db"));
        let damaged = fs::read(sandbox.path("app.db")).unwrap();
        let document = sandbox.json(&["restore", &good, "--to", "app.db", "--replace", "--store", "backups"]);
        let undo = document["undo"].as_str().unwrap();
        let output = crate::helpers::shell(&sandbox, undo);
        let back = fs::read(sandbox.path("app.db")).unwrap();
        // SQLite's own counters in the header change when it writes.
        let same = back.len() == damaged.len() && back[100..] == damaged[100..];
        if !output.status.success() || !same {
            let stderr = String::from_utf8_lossy(&output.stderr);
            failures.push(format!("{what}: bytes are back: {same}\n  $ {undo}\n  {stderr}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_file_that_says_it_is_sqlite_is_damaged_and_not_something_else() {
    let (sandbox, _) = sandbox();
    let mut bytes = fs::read(sandbox.path("app.db")).unwrap();
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    bytes[16..24].copy_from_slice(&[0x12, 0x34, 9, 9, 9, 9, 9, 9]);
    fs::write(sandbox.path("app.db"), bytes).unwrap();
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3);
}

/// Changes an entry of an index in a way that leaves its b-tree sound: only the table says otherwise.
fn falsify_the_index(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let wanted = b"2026-11-07T12:00:00";
    let is_index_leaf = |page: &[u8]| page[0] == 0x0a;
    let page = bytes.chunks_mut(PAGE).skip(1).find(|page| is_index_leaf(page)).unwrap();
    // Cells fill a page from its end; what lies before them may be remains of others.
    let at = page.windows(wanted.len()).rposition(|window| window == wanted).unwrap();
    page[at + wanted.len() - 1] = b'1';
    fs::write(path, bytes).unwrap();
}

#[test]
fn an_index_that_disagrees_with_its_table_is_found_by_a_full_check() {
    let (sandbox, _) = sandbox();
    falsify_the_index(&sandbox.path("app.db"));
    let run = refused(&sandbox, &["snapshot", "app.db", "--full-check", "--store", "backups"], 3);
    drop(run.says("balances_by_account"));
    let id = id_of(&sandbox.json(&["snapshot", "app.db", "--full-check", "--allow-damaged", "--store", "backups"]));
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["kind"], "damaged");
    sandbox.ok(&["drill", &id, "--store", "backups"]);
}

#[test]
fn an_index_that_disagrees_with_its_table_is_told_of_when_it_is_restored() {
    let (sandbox, _) = sandbox();
    falsify_the_index(&sandbox.path("app.db"));
    let id = sandbox.snapshot("app.db");
    drop(sandbox.ok(&["drill", &id, "--store", "backups"]).says("REINDEX"));
    drop(sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]).says("REINDEX"));
    assert_eq!(fs::read(sandbox.path("copy.db")).unwrap(), fs::read(sandbox.path("app.db")).unwrap());
    drop(sandbox.ok(&["restore", &id, "--to", "app.db", "--replace", "--store", "backups"]).says("REINDEX"));
}
