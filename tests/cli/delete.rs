//! `delete`: of the snapshots that are named, and of nothing else.

use crate::helpers::refused;
use crate::support::{Sandbox, sample};

fn three() -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    for _ in 0..3 {
        sandbox.snapshot("app.db");
    }
    let ids = sandbox.ids();
    (sandbox, ids)
}

#[test]
fn delete_removes_all_objects_of_the_named_snapshots() {
    let (sandbox, ids) = three();
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    let before = sandbox.state();
    let plan = sandbox.json(&["delete", &ids[0], &ids[2], "--store", "backups"]);
    assert_eq!(plan["dry_run"], true);
    assert_eq!(sandbox.state(), before);
    // The same snapshot by two names is one.
    let report = sandbox.json(&["delete", &ids[0], &ids[2], &ids[2], "--yes", "--store", "backups"]);
    assert_eq!(report["delete"].as_array().unwrap().len(), 2, "{report:#}");
    assert!(report["freed_bytes"].as_u64().unwrap() > 0);
    assert_eq!(sandbox.ids(), [ids[1].clone()]);
    let names = std::fs::read_dir(sandbox.path("backups/app")).unwrap().flatten();
    let names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|name| name.starts_with(&ids[1])), "{names:?}");
    sandbox.ok(&["restore", "latest", "--to", "b.db", "--store", "backups"]);
}

#[test]
fn delete_refuses_what_it_cannot_find_and_deletes_nothing() {
    let (sandbox, ids) = three();
    refused(&sandbox, &["delete", &ids[0], "app-20200101T000000Z-0000", "--yes", "--store", "backups"], 4);
    refused(&sandbox, &["delete", "latest", "--yes", "--store", "backups"], 2).says("the ids");
    refused(&sandbox, &["delete", "app-2", "--yes", "--store", "backups"], 2);
    sandbox.run(&["delete", "--yes", "--store", "backups"]).code(2);
    assert_eq!(sandbox.ids(), ids);
}

#[test]
fn delete_removes_a_snapshot_whose_manifest_cannot_be_read() {
    let (sandbox, ids) = three();
    let manifest = sandbox.path(format!("backups/app/{}.json", ids[1]));
    std::fs::remove_file(&manifest).unwrap();
    std::fs::write(&manifest, "{").unwrap();
    sandbox.ok(&["delete", &ids[1], "--yes", "--store", "backups"]);
    let listed = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
fn delete_spares_a_snapshot_that_is_being_read() {
    let (sandbox, ids) = three();
    std::fs::write(sandbox.path(format!("backups/app/{}.lease-0011", ids[0])), "").unwrap();
    let run = sandbox.run(&["delete", &ids[0], "--yes", "--store", "backups"]).code(1);
    assert!(run.stderr().contains("is being restored or drilled"), "{}", run.transcript());
    assert_eq!(sandbox.ids(), ids);
}

#[test]
fn delete_warns_before_the_newest_good_snapshot_is_gone() {
    let (sandbox, ids) = three();
    sandbox.ok(&["delete", &ids[0], "--store", "backups"]).says("newest good snapshot of app");
    let run = sandbox.ok(&["delete", &ids[1], "--store", "backups"]);
    assert!(!run.stderr().contains("newest good"), "{}", run.transcript());
}
