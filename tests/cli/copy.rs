//! `copy`: between stores in folders, and how it mends what is damaged in the target.

use std::fs;
use std::path::PathBuf;

use crate::support::{Sandbox, sample};

/// Returns a sandbox with two snapshots in the store `near`, all copied to the store `far`, and their ids.
fn two_stores() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("a.db"), 20, "wal");
    for _ in 0..2 {
        sandbox.ok(&["snapshot", "a.db", "--store", "near"]);
    }
    let copied = sandbox.json(&["copy", "--all", "--from", "near", "--to", "far", "--create"]);
    let ids =
        copied["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    (sandbox, ids)
}

fn archive(sandbox: &Sandbox, store: &str, id: &str) -> PathBuf {
    sandbox.path(format!("{store}/a/{id}.tar.gz"))
}

#[test]
fn archives_that_are_missing_or_cut_are_copied_again() {
    let (sandbox, ids) = two_stores();
    fs::remove_file(archive(&sandbox, "far", &ids[0])).unwrap();
    let file = fs::OpenOptions::new().write(true).open(archive(&sandbox, "far", &ids[1])).unwrap();
    file.set_len(100).unwrap();
    // The damage is recorded, and forgotten once it is mended.
    sandbox.run(&["verify", "--all", "--store", "far"]).code(3);
    let copied = sandbox.json(&["copy", "--all", "--from", "near", "--to", "far"]);
    for one in copied["snapshots"].as_array().unwrap() {
        assert_eq!((&one["was_there"], &one["mended"]), (&true.into(), &true.into()), "{copied:#}");
    }
    sandbox.ok(&["verify", "--all", "--store", "far"]);
    for id in &ids {
        assert_eq!(fs::read(archive(&sandbox, "near", id)).unwrap(), fs::read(archive(&sandbox, "far", id)).unwrap());
        let shown = sandbox.json(&["show", id, "--store", "far"]);
        assert_eq!(shown["proof"], "verified", "{shown:#}");
    }
    // Now there is nothing to do.
    let copied = sandbox.json(&["copy", "--all", "--from", "near", "--to", "far"]);
    assert!(copied["snapshots"].as_array().unwrap().iter().all(|one| one["mended"] == false), "{copied:#}");
}

#[test]
fn an_archive_with_a_changed_byte_is_copied_again_after_a_test_found_it() {
    let (sandbox, ids) = two_stores();
    let path = archive(&sandbox, "far", &ids[0]);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    sandbox.run(&["verify", &ids[0], "--store", "far"]).code(3);
    let run = sandbox.ok(&["copy", &ids[0], "--from", "near", "--to", "far"]);
    assert!(run.stdout().contains("mended"), "{}", run.transcript());
    sandbox.ok(&["verify", "--all", "--store", "far"]);
}

#[test]
fn what_is_damaged_in_the_source_changes_nothing_and_is_named() {
    let (sandbox, ids) = two_stores();
    fs::remove_file(archive(&sandbox, "near", &ids[0])).unwrap();
    // The target has it whole.
    let run = sandbox.ok(&["copy", &ids[0], "--from", "near", "--to", "far"]);
    assert!(run.stdout().contains("already exists"), "{}", run.transcript());
    let far = archive(&sandbox, "far", &ids[0]);
    fs::OpenOptions::new().write(true).open(&far).unwrap().set_len(100).unwrap();
    let run = sandbox.run(&["copy", &ids[0], "--from", "near", "--to", "far"]).code(3);
    assert!(run.stderr().contains("/far") && run.stderr().contains("damaged in both stores"), "{}", run.transcript());
    assert_eq!(fs::metadata(&far).unwrap().len(), 100);
}

#[test]
fn encrypted_snapshots_are_copied_for_another_key() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("a.db"), 20, "wal");
    let mut public = Vec::new();
    for name in ["old.txt", "new.txt"] {
        sandbox.ok(&["keygen", "--output", name]);
        public.push(sandbox.ok(&["keygen", "--public", name]).stdout().trim().to_owned());
    }
    sandbox.ok(&["snapshot", "a.db", "--store", "near", "--encrypt-to", &public[0]]);
    sandbox.ok(&["snapshot", "a.db", "--store", "near", "--encrypt-to", &public[0], "--compression", "zstd:3"]);
    let copy = ["copy", "--all", "--from", "near", "--to", "far", "--create", "--encrypt-to", &public[1]];
    // The old key is needed, and without it nothing is published.
    assert_ne!(sandbox.run(&copy).exit(), 0);
    assert_eq!(sandbox.json(&["list", "--store", "far"])["snapshots"], serde_json::json!([]));
    let copied = sandbox.json(&[&copy[..], &["--identity", "old.txt"]].concat());
    let near = sandbox.json(&["list", "--store", "near"]);
    for (one, original) in copied["snapshots"].as_array().unwrap().iter().zip(near["snapshots"].as_array().unwrap()) {
        for same in ["id", "origin", "created_at", "rows", "raw_bytes", "tags", "archive"] {
            assert_eq!(one[same], original[same], "{same}: {copied:#}");
        }
        assert_ne!(one["sha256"], original["sha256"]);
        let id = one["id"].as_str().unwrap();
        sandbox.ok(&["verify", id, "--store", "far"]);
        sandbox.ok(&["drill", id, "--store", "far", "--identity", "new.txt"]);
        sandbox.run(&["restore", id, "--store", "far", "--identity", "old.txt", "--to", "old.db"]).code(2);
        sandbox.ok(&["restore", id, "--store", "far", "--identity", "new.txt", "--to", "new.db"]);
        assert_eq!(crate::support::content(sandbox.path("new.db")), crate::support::content(sandbox.path("a.db")));
        fs::remove_file(sandbox.path("new.db")).unwrap();
    }
    // An archive does not show its keys: a snapshot that is there may be encrypted to others.
    let again = sandbox.run(&[&copy[..], &["--identity", "old.txt"]].concat()).code(1);
    assert!(again.stderr().contains("already has the snapshot"), "{}", again.transcript());
    // A snapshot that is not encrypted says so in its archive, which cannot be changed.
    sandbox.ok(&["snapshot", "a.db", "--store", "plain"]);
    let plain = ["copy", "latest", "--from", "plain", "--to", "far", "--encrypt-to", &public[1]];
    sandbox.run(&plain).code(2).says("is not encrypted");
    // A changed byte is found before anything is published.
    let id = near["snapshots"][0]["id"].as_str().unwrap();
    let path = sandbox.path(format!("near/a/{}", near["snapshots"][0]["archive"].as_str().unwrap()));
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    let damaged = ["copy", id, "--from", "near", "--to", "third", "--create", "--encrypt-to", &public[1]];
    sandbox.run(&[&damaged[..], &["--identity", "old.txt"]].concat()).code(3);
    assert_eq!(sandbox.json(&["list", "--store", "third"])["snapshots"], serde_json::json!([]));
}
