use crate::helpers::{error_document, flip, has_fields, refused_by_the_parser, silent};
use crate::support::{Sandbox, sample};

fn sandbox(snapshots: usize) -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 20, "delete");
    let ids = (0..snapshots).map(|_| sandbox.snapshot("app.db")).collect();
    (sandbox, ids)
}

#[test]
fn verify_reads_all_and_keeps_its_proof() {
    let (sandbox, ids) = sandbox(1);
    let document = sandbox.json(&["verify", &ids[0], "--store", "backups"]);
    assert_eq!(document["ok"], true);
    let outcome = &document["snapshots"][0];
    has_fields(outcome, &["id", "level", "ok", "problems", "seconds"]);
    assert_eq!((&outcome["id"], &outcome["level"]), (&ids[0].as_str().into(), &"verified".into()));
    assert_eq!(outcome["problems"], serde_json::json!([]));
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["proof"], "verified");
}

#[test]
fn verify_without_a_name_means_the_latest() {
    let (sandbox, ids) = sandbox(2);
    let document = sandbox.json(&["verify", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["id"], ids[1].as_str());
}

#[test]
fn a_quick_look_reads_no_blocks_and_proves_nothing() {
    let (sandbox, ids) = sandbox(1);
    let document = sandbox.json(&["verify", "--quick", "--store", "backups"]);
    assert_eq!((&document["ok"], &document["snapshots"][0]["level"]), (&true.into(), &"none".into()));
    assert_eq!(sandbox.json(&["show", "--store", "backups"])["proof"], "none");
    let archive = sandbox.path(format!("backups/app/{}.tar.gz", ids[0]));
    let whole = std::fs::read(&archive).unwrap();
    std::fs::write(&archive, &whole[..whole.len() - 1]).unwrap();
    silent(sandbox.run(&["verify", &ids[0], "--quick", "--store", "backups"]).code(3));
    std::fs::remove_file(&archive).unwrap();
    let run = sandbox.run(&["verify", &ids[0], "--quick", "--store", "backups"]).code(3);
    assert!(run.stdout().contains("missing"), "{}", run.transcript());
}

#[test]
fn verify_all_tells_of_every_snapshot_and_fails_for_one() {
    let (sandbox, ids) = sandbox(3);
    flip(sandbox.path(format!("backups/app/{}.tar.gz", ids[1])), 100, 1);
    let run = sandbox.run(&["verify", "--all", "--store", "backups", "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["ok"], false);
    let told: Vec<_> = document["snapshots"].as_array().unwrap().iter().map(|one| (&one["id"], &one["ok"])).collect();
    let expected: Vec<_> = ids.iter().rev().map(|id| (id.clone().into(), (id != &ids[1]).into())).collect();
    assert_eq!(
        told,
        expected.iter().map(|(id, ok): &(serde_json::Value, serde_json::Value)| (id, ok)).collect::<Vec<_>>()
    );
    let run = sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
    assert_eq!(run.stdout().matches("DAMAGED").count(), 1, "{}", run.transcript());
    assert_eq!(run.stdout().matches("verified").count(), 2, "{}", run.transcript());
    assert_eq!(sandbox.ids().len(), 3);
    let listed = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(listed["snapshots"][1]["proof"], "damaged", "{listed:#}");
}

#[test]
fn what_was_found_damaged_is_no_longer_latest() {
    let (sandbox, ids) = sandbox(2);
    flip(sandbox.path(format!("backups/app/{}.tar.gz", ids[1])), 100, 1);
    sandbox.run(&["verify", "--store", "backups"]).code(3);
    let run = sandbox.ok(&["show", "latest", "--store", "backups", "--json"]).says(&ids[1]).says("passed over");
    assert_eq!(run.json()["id"], ids[0].as_str(), "{}", run.transcript());
}

#[test]
fn damage_outranks_a_later_proof() {
    let (sandbox, ids) = sandbox(1);
    let archive = sandbox.path(format!("backups/app/{}.tar.gz", ids[0]));
    let whole = std::fs::read(&archive).unwrap();
    flip(&archive, 100, 1);
    sandbox.run(&["verify", &ids[0], "--store", "backups"]).code(3);
    std::fs::write(&archive, whole).unwrap();
    sandbox.ok(&["verify", &ids[0], "--store", "backups"]);
    assert_eq!(sandbox.json(&["show", &ids[0], "--store", "backups"])["proof"], "damaged");
}

#[test]
fn verify_takes_a_name_or_all_of_them() {
    let (sandbox, ids) = sandbox(1);
    refused_by_the_parser(&sandbox, &["verify", &ids[0], "--all", "--store", "backups"]);
    refused_by_the_parser(&sandbox, &["verify", "--all", "--tag", "x", "--store", "backups"]);
    let run = sandbox.run(&["verify", "--all", "--source", "other", "--store", "backups", "--json"]).code(4);
    error_document(&run, "not_found");
}

#[test]
fn an_archive_that_was_away_for_a_while_is_good_again() {
    let sandbox = crate::support::Sandbox::new();
    crate::support::sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    let archive = sandbox.path(format!("backups/app/{id}.tar.gz"));
    std::fs::rename(&archive, sandbox.path("away")).unwrap();
    sandbox.run(&["verify", &id, "--store", "backups"]).code(3);
    std::fs::rename(sandbox.path("away"), &archive).unwrap();
    sandbox.ok(&["verify", "latest", "--store", "backups"]);
}
