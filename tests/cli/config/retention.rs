//! Pruning by the section `[retention]` of the config.

use std::fs;

use super::{create_stores, lifeboat, snapshot_sources, with_config};
use crate::support::{Sandbox, sample};

/// Creates a sandbox with two databases and a config of them, to which these lines are added.
fn project(retention: &str) -> Sandbox {
    let sandbox = with_config(&format!(
        "[[store]]\nurl = \"b\"\n[[source]]\nname = \"one\"\nurl = \"one.db\"\n[[source]]\nname = \"two\"\nurl = \"two.db\"\n{retention}"
    ));
    sample(sandbox.path("one.db"), 2, "delete");
    sample(sandbox.path("two.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    sandbox
}

fn snapshot_count(sandbox: &Sandbox) -> usize {
    snapshot_sources(&lifeboat(sandbox, &["list", "--json"], &[]).code(0)).len()
}

#[test]
fn prune_applies_the_policy_of_the_config_or_of_the_command_line() {
    let sandbox = project("[retention]\nkeep_last = 2\nkeep_tags = [\"gold\"]\n");
    lifeboat(&sandbox, &["snapshot", "one", "--tag", "gold"], &[]).code(0);
    for _ in 0..3 {
        lifeboat(&sandbox, &["snapshot", "one"], &[]).code(0);
    }
    let plan = lifeboat(&sandbox, &["prune", "--json"], &[]).code(0).json();
    assert_eq!((plan["dry_run"].clone(), plan["delete"].as_array().unwrap().len()), (true.into(), 1), "{plan:#}");
    assert_eq!(snapshot_count(&sandbox), 4);
    lifeboat(&sandbox, &["prune", "--yes"], &[]).code(0);
    assert_eq!(snapshot_count(&sandbox), 3);
    lifeboat(&sandbox, &["prune", "--yes", "--keep-last", "1"], &[]).code(0);
    assert_eq!(snapshot_count(&sandbox), 1);
    // Without a policy in the config and on the command line, nothing is deleted.
    let sandbox = project("");
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    lifeboat(&sandbox, &["prune", "--yes"], &[]).code(2);
    lifeboat(&sandbox, &["snapshot", "--prune"], &[]).code(2);
    assert!(snapshot_count(&sandbox) >= 2);
}

#[test]
fn a_snapshot_prunes_only_after_all_sources_are_saved() {
    let sandbox = project("[retention]\nkeep_last = 1\n");
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    assert_eq!(snapshot_count(&sandbox), 4);
    // One of the two databases is missing: the other one is saved, and nothing is deleted.
    fs::rename(sandbox.path("two.db"), sandbox.path("away.db")).unwrap();
    lifeboat(&sandbox, &["snapshot", "--prune"], &[]).code(5).says("nothing was pruned");
    assert_eq!(snapshot_count(&sandbox), 5);
    fs::rename(sandbox.path("away.db"), sandbox.path("two.db")).unwrap();
    let run = lifeboat(&sandbox, &["snapshot", "--prune"], &[]).code(0);
    assert!(run.stdout().contains("deleted") && run.stdout().contains("keep"), "{}", run.transcript());
    assert_eq!(snapshot_count(&sandbox), 2);
    // A snapshot of one source prunes only the snapshots of that source.
    lifeboat(&sandbox, &["snapshot", "two"], &[]).code(0);
    let run = lifeboat(&sandbox, &["snapshot", "one", "--prune", "--json"], &[]).code(0).json();
    assert_eq!(run["pruned"][0]["delete"].as_array().unwrap().len(), 1, "{run:#}");
    assert_eq!(snapshot_count(&sandbox), 3);
}

#[test]
fn the_config_can_request_pruning_after_every_snapshot() {
    let sandbox = project("[retention]\nkeep_last = 1\nafter_snapshot = true\n");
    for _ in 0..3 {
        lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    }
    assert_eq!(snapshot_count(&sandbox), 2);
}
