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
