//! Pruning by the config's retention.

use std::fs;

use super::{lifeboat, ready, saved, with_config};
use crate::support::{Sandbox, sample};

fn project(more: &str) -> Sandbox {
    let sandbox = with_config(&format!(
        "[[store]]\nurl = \"b\"\n[[source]]\nname = \"one\"\nurl = \"one.db\"\n[[source]]\nname = \"two\"\nurl = \"two.db\"\n{more}"
    ));
    sample(sandbox.path("one.db"), 2, "delete");
    sample(sandbox.path("two.db"), 2, "delete");
    ready(&sandbox, &[]);
    sandbox
}

fn listed(sandbox: &Sandbox) -> usize {
    saved(&lifeboat(sandbox, &["list", "--json"], &[]).code(0)).len()
}

#[test]
fn prune_keeps_what_the_config_says_and_the_command_line_outdoes_it() {
    let sandbox = project("[retention]\nkeep_last = 2\nkeep_tags = [\"gold\"]\n");
    lifeboat(&sandbox, &["snapshot", "one", "--tag", "gold"], &[]).code(0);
    for _ in 0..3 {
        lifeboat(&sandbox, &["snapshot", "one"], &[]).code(0);
    }
    let plan = lifeboat(&sandbox, &["prune", "--json"], &[]).code(0).json();
    assert_eq!((plan["dry_run"].clone(), plan["delete"].as_array().unwrap().len()), (true.into(), 1), "{plan:#}");
    assert_eq!(listed(&sandbox), 4);
    lifeboat(&sandbox, &["prune", "--yes"], &[]).code(0);
    assert_eq!(listed(&sandbox), 3);
    lifeboat(&sandbox, &["prune", "--yes", "--keep-last", "1"], &[]).code(0);
    assert_eq!(listed(&sandbox), 1);
    // No policy anywhere: nothing is deleted.
    let sandbox = project("");
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    lifeboat(&sandbox, &["prune", "--yes"], &[]).code(2);
    lifeboat(&sandbox, &["snapshot", "--prune"], &[]).code(2);
    assert!(listed(&sandbox) >= 2);
}

#[test]
fn a_snapshot_prunes_once_all_is_saved_and_shows_its_plan() {
    let sandbox = project("[retention]\nkeep_last = 1\n");
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    assert_eq!(listed(&sandbox), 4);
    // One of the two is gone: the other is saved, and nothing is deleted.
    fs::rename(sandbox.path("two.db"), sandbox.path("away.db")).unwrap();
    lifeboat(&sandbox, &["snapshot", "--prune"], &[]).code(5).says("nothing was pruned");
    assert_eq!(listed(&sandbox), 5);
    fs::rename(sandbox.path("away.db"), sandbox.path("two.db")).unwrap();
    let run = lifeboat(&sandbox, &["snapshot", "--prune"], &[]).code(0);
    assert!(run.stdout().contains("deleted") && run.stdout().contains("keep"), "{}", run.transcript());
    assert_eq!(listed(&sandbox), 2);
    // Of one source only that is pruned.
    lifeboat(&sandbox, &["snapshot", "two"], &[]).code(0);
    let run = lifeboat(&sandbox, &["snapshot", "one", "--prune", "--json"], &[]).code(0).json();
    assert_eq!(run["pruned"][0]["delete"].as_array().unwrap().len(), 1, "{run:#}");
    assert_eq!(listed(&sandbox), 3);
}

#[test]
fn the_config_may_ask_for_it_after_every_snapshot() {
    let sandbox = project("[retention]\nkeep_last = 1\nafter_snapshot = true\n");
    for _ in 0..3 {
        lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    }
    assert_eq!(listed(&sandbox), 2);
}
