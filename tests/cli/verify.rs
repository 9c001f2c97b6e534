//! `verify`: proofs, damaged and missing archives.

use crate::helpers::{assert_has_fields, error_document, flip_bytes, refused_by_the_parser, silent};
use crate::support::bucket::Bucket;
use crate::support::{Sandbox, sample};

/// Creates a database and takes this number of snapshots of it. Returns the sandbox and the ids, the oldest first.
fn database_with_snapshots(snapshots: usize) -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    let ids = (0..snapshots).map(|_| sandbox.snapshot("app.db")).collect();
    (sandbox, ids)
}

#[test]
fn verify_records_its_proof() {
    let (sandbox, ids) = database_with_snapshots(1);
    let document = sandbox.json(&["verify", &ids[0], "--store", "backups"]);
    assert_eq!(document["ok"], true);
    let outcome = &document["snapshots"][0];
    assert_has_fields(outcome, &["id", "level", "ok", "problems", "seconds"]);
    assert_eq!((&outcome["id"], &outcome["level"]), (&ids[0].as_str().into(), &"verified".into()));
    assert_eq!(outcome["problems"], serde_json::json!([]));
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["proof"], "verified");
}

#[test]
fn verify_without_an_id_verifies_the_latest_snapshot() {
    let (sandbox, ids) = database_with_snapshots(2);
    let document = sandbox.json(&["verify", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["id"], ids[1].as_str());
}

#[test]
fn verify_quick_finds_missing_and_truncated_archives_and_records_no_proof() {
    let (sandbox, ids) = database_with_snapshots(1);
    let document = sandbox.json(&["verify", "--quick", "--store", "backups"]);
    assert_eq!((&document["ok"], &document["snapshots"][0]["level"]), (&true.into(), &"none".into()));
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["proof"], "none");
    let archive = sandbox.path(format!("backups/app/{}.tar.gz", ids[0]));
    let original = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &original[..original.len() - 1]).unwrap();
    silent(sandbox.run(&["verify", &ids[0], "--quick", "--store", "backups"]).code(3));
    std::fs::remove_file(&archive).unwrap();
    let run = sandbox.run(&["verify", &ids[0], "--quick", "--store", "backups"]).code(3);
    assert!(run.stdout().contains("missing"), "{}", run.transcript());
}

#[test]
fn verify_all_reports_every_snapshot_and_fails_if_one_is_damaged() {
    let (sandbox, ids) = database_with_snapshots(3);
    flip_bytes(sandbox.path(format!("backups/app/{}.tar.gz", ids[1])), 100, 1);
    let run = sandbox.run(&["verify", "--all", "--store", "backups", "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["ok"], false);
    let outcomes = document["snapshots"].as_array().unwrap().iter();
    let found: Vec<_> = outcomes.map(|outcome| (&outcome["id"], &outcome["ok"])).collect();
    let expected: Vec<_> = ids.iter().rev().map(|id| (id.clone().into(), (id != &ids[1]).into())).collect();
    assert_eq!(
        found,
        expected.iter().map(|(id, ok): &(serde_json::Value, serde_json::Value)| (id, ok)).collect::<Vec<_>>()
    );
    let run = sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
    assert_eq!(run.stdout().matches("  DAMAGED  (").count(), 1, "{}", run.transcript());
    assert_eq!(run.stdout().matches("verified").count(), 2, "{}", run.transcript());
    assert_eq!(sandbox.ids().len(), 3);
    let list = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(list["snapshots"][1]["proof"], "damaged", "{list:#}");
}

#[test]
fn a_snapshot_that_was_found_damaged_is_not_the_latest() {
    let (sandbox, ids) = database_with_snapshots(2);
    flip_bytes(sandbox.path(format!("backups/app/{}.tar.gz", ids[1])), 100, 1);
    sandbox.run(&["verify", "--store", "backups"]).code(3);
    let run = sandbox.ok(&["show", "latest", "--store", "backups", "--json"]).says(&ids[1]).says("skipping");
    assert_eq!(run.json()["id"], ids[0].as_str(), "{}", run.transcript());
}

#[test]
fn a_later_proof_does_not_replace_recorded_damage() {
    let (sandbox, ids) = database_with_snapshots(1);
    let archive = sandbox.path(format!("backups/app/{}.tar.gz", ids[0]));
    let original = std::fs::read(&archive).unwrap();
    flip_bytes(&archive, 100, 1);
    sandbox.run(&["verify", &ids[0], "--store", "backups"]).code(3);
    std::fs::write(&archive, original).unwrap();
    sandbox.ok(&["verify", &ids[0], "--store", "backups"]);
    assert_eq!(sandbox.json(&["show", &ids[0], "--store", "backups"])["proof"], "damaged");
}

#[test]
fn verify_refuses_all_together_with_an_id_or_a_tag() {
    let (sandbox, ids) = database_with_snapshots(1);
    refused_by_the_parser(&sandbox, &["verify", &ids[0], "--all", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["verify", "--all", "--tag", "x", "--store", "backups"]);
    let run = sandbox.run(&["verify", "--all", "--source", "other", "--store", "backups", "--json"]).code(4);
    error_document(&run, "not_found");
}

#[test]
fn an_archive_that_was_temporarily_missing_is_verified_again() {
    let sandbox = crate::support::Sandbox::new();
    crate::support::sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    let archive = sandbox.path(format!("backups/app/{id}.tar.gz"));
    std::fs::rename(&archive, sandbox.path("away")).unwrap();
    sandbox.run(&["verify", &id, "--store", "backups"]).code(3);
    std::fs::rename(sandbox.path("away"), &archive).unwrap();
    sandbox.ok(&["verify", "latest", "--store", "backups"]);
}

#[test]
fn a_listing_costs_the_same_after_many_tests() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("a.db"), 5, "delete");
    let bucket = Bucket::new();
    let store = bucket.store();
    Bucket::run(&sandbox, &["snapshot", "a.db", "--store", &store]).code(0);
    let requests_of_list = || {
        let before = bucket.web.requests().len();
        let run = Bucket::run(&sandbox, &["list", "--json", "--store", &store]).code(0);
        (bucket.web.requests().len() - before, run.json()["snapshots"][0]["proof"].clone())
    };
    Bucket::run(&sandbox, &["drill", "latest", "--store", &store]).code(0);
    Bucket::run(&sandbox, &["verify", "--all", "--store", &store]).code(0);
    let (once, level) = requests_of_list();
    assert_eq!(level, "verified");
    for _ in 0..4 {
        Bucket::run(&sandbox, &["verify", "--all", "--store", &store]).code(0);
        Bucket::run(&sandbox, &["drill", "latest", "--store", &store]).code(0);
    }
    assert_eq!(requests_of_list(), (once, "drilled".into()), "{:#?}", bucket.keys());
}

#[test]
fn a_proof_of_damage_is_kept_whatever_later_tests_show() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 5, "delete");
    let id = sandbox.snapshot("app.db");
    let archive = sandbox.path(format!("backups/app/{id}.tar.gz"));
    let whole = std::fs::read(&archive).unwrap();
    std::fs::remove_file(&archive).unwrap();
    std::fs::write(&archive, &whole[..100]).unwrap();
    for _ in 0..3 {
        sandbox.run(&["verify", &id, "--store", "backups"]).code(3);
    }
    std::fs::write(&archive, whole).unwrap();
    for _ in 0..3 {
        sandbox.run(&["verify", &id, "--store", "backups"]);
    }
    assert_eq!(sandbox.json(&["show", &id, "--store", "backups"])["proof"], "damaged");
    let proofs = std::fs::read_dir(sandbox.path("backups/app")).unwrap().flatten();
    let count = proofs.filter(|entry| entry.file_name().to_string_lossy().contains(".proof-")).count();
    assert!(count <= 3, "{count} proofs");
}

#[test]
fn verify_all_ends_with_the_damaged_snapshots_and_a_sum() {
    let (sandbox, ids) = database_with_snapshots(5);
    flip_bytes(sandbox.path(format!("backups/app/{}.tar.gz", ids[2])), 100, 1);
    let run = sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
    let lines: Vec<String> = run.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines.last().unwrap(), "4 of 5 snapshots without a problem, 1 DAMAGED", "{}", run.transcript());
    let damaged = lines.iter().position(|line| line.starts_with(&ids[2])).unwrap();
    assert!(damaged > 3 && lines[damaged].contains("DAMAGED"), "{}", run.transcript());
    // One snapshot needs no sum.
    let run = sandbox.ok(&["verify", &ids[0], "--store", "backups"]);
    assert_eq!(run.stdout().lines().count(), 1, "{}", run.transcript());
}
