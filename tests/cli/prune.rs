//! `prune`: plans, deletions, and the snapshots that are always kept.

use chrono::{Duration, Utc};
use serde_json::Value;

use crate::helpers::{assert_has_fields, copy_with_time, id_of, refused, refused_by_the_parser, silent};
use crate::support::{Sandbox, sample};

/// Creates a store with a new snapshot and with one of each of these ages in days. Returns the ids, the newest first.
fn snapshots_of_ages(days: &[i64]) -> (Sandbox, Vec<String>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 2, "delete");
    let now = sandbox.snapshot("app.db");
    let mut ids = vec![now.clone()];
    for day in days {
        ids.push(copy_with_time(&sandbox.path("backups"), &now, Utc::now() - Duration::days(*day)));
    }
    (sandbox, ids)
}

/// Returns the ids in a list of the document of a run.
fn ids(document: &Value, list: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn prune_without_yes_shows_its_plan_and_deletes_nothing() {
    let (sandbox, all) = snapshots_of_ages(&[1, 2, 3]);
    let before = sandbox.state();
    let document = sandbox.json(&["prune", "--keep-last", "2", "--store", "backups"]);
    assert_eq!(document["dry_run"], true);
    assert_eq!(ids(&document, "keep"), all[..2]);
    assert_eq!(ids(&document, "delete"), all[2..]);
    assert!(document["freed_bytes"].as_u64().unwrap() > 0);
    for kept in document["keep"].as_array().unwrap() {
        assert_has_fields(kept, &["id", "reasons"]);
        assert!(!kept["reasons"].as_array().unwrap().is_empty(), "{kept}");
    }
    let run = silent(sandbox.ok(&["prune", "--keep-last", "2", "--store", "backups"]));
    assert!(run.stdout().contains("nothing was deleted; --yes"), "{}", run.transcript());
    assert_eq!(sandbox.state(), before);
}

#[test]
fn prune_with_yes_deletes_exactly_the_planned_snapshots() {
    let (sandbox, all) = snapshots_of_ages(&[1, 2, 3]);
    let plan = sandbox.json(&["prune", "--keep-last", "2", "--store", "backups"]);
    let report = sandbox.json(&["prune", "--keep-last", "2", "--store", "backups", "--yes"]);
    assert_eq!(report["dry_run"], false);
    assert_eq!((ids(&report, "keep"), ids(&report, "delete")), (ids(&plan, "keep"), ids(&plan, "delete")));
    assert_eq!(sandbox.ids(), all[..2]);
    let files: Vec<_> =
        std::fs::read_dir(sandbox.path("backups/app")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    sandbox.ok(&["restore", &all[0], "--to", "x.db", "--store", "backups"]);
}

#[test]
fn prune_refuses_a_policy_that_keeps_nothing() {
    let (sandbox, _) = snapshots_of_ages(&[1]);
    refused(&sandbox, &["prune", "--store", "backups", "--yes"], 2).says("--keep-last");
    refused(&sandbox, &["prune", "--keep-last", "0", "--store", "backups", "--yes"], 2);
    refused(&sandbox, &["prune", "--keep-within", "0d", "--store", "backups", "--yes"], 2);
    refused_by_the_parser(&sandbox, &["prune", "--keep-last", "-1", "--store", "backups", "--yes"]);
    refused_by_the_parser(&sandbox, &["prune", "--keep-within", "a while", "--store", "backups", "--yes"]);
}

#[test]
fn prune_keeps_by_period_age_and_tag() {
    let (sandbox, all) = snapshots_of_ages(&[1, 2, 40, 400]);
    let kept = |flags: &[&str]| {
        let mut arguments = vec!["prune", "--store", "backups"];
        arguments.extend(flags);
        ids(&sandbox.json(&arguments), "keep")
    };
    assert_eq!(kept(&["--keep-daily", "3"]), all[..3]);
    assert_eq!(kept(&["--keep-yearly", "9"]).last(), all.last());
    assert_eq!(kept(&["--keep-within", "3d"]), all[..3]);
    assert_eq!(kept(&["--keep-hourly", "1"]), all[..1]);
    assert!(kept(&["--keep-monthly", "3"]).contains(&all[3]));
    assert!(kept(&["--keep-weekly", "9"]).contains(&all[4]));
    let tagged = id_of(&sandbox.json(&["snapshot", "app.db", "--tag", "keep-me", "--store", "backups"]));
    let newest = sandbox.snapshot("app.db");
    assert_eq!(kept(&["--keep-tag", "keep-me"]), [newest, tagged]);
}

#[test]
fn prune_keeps_the_newest_drilled_snapshot() {
    let (sandbox, all) = snapshots_of_ages(&[]);
    sandbox.ok(&["drill", &all[0], "--store", "backups"]);
    let newer: Vec<String> = (0..3).map(|_| sandbox.snapshot("app.db")).collect();
    let report = sandbox.json(&["prune", "--keep-last", "1", "--yes", "--store", "backups"]);
    assert_eq!(ids(&report, "keep"), [newer[2].clone(), all[0].clone()]);
    assert_eq!(sandbox.ids(), ids(&report, "keep"));
}

#[test]
fn prune_never_deletes_the_last_undamaged_snapshot() {
    let (sandbox, all) = snapshots_of_ages(&[]);
    let newer = sandbox.snapshot("app.db");
    crate::helpers::flip_bytes(sandbox.path(format!("backups/app/{newer}.tar.gz")), 90, 1);
    sandbox.run(&["verify", &newer, "--store", "backups"]).code(3);
    let report = sandbox.json(&["prune", "--keep-last", "1", "--yes", "--keep-others", "0d", "--store", "backups"]);
    assert!(ids(&report, "keep").contains(&all[0]), "{report:#}");
    assert!(sandbox.ids().contains(&all[0]));
}

#[test]
fn prune_applies_the_policy_to_each_source() {
    let (sandbox, all) = snapshots_of_ages(&[1, 2]);
    sample(sandbox.path("other.db"), 2, "delete");
    let other = sandbox.snapshot("other.db");
    let plan = sandbox.json(&["prune", "--keep-last", "1", "--source", "other", "--store", "backups"]);
    assert_eq!((ids(&plan, "keep"), ids(&plan, "delete")), (vec![other.clone()], vec![]));
    sandbox.ok(&["prune", "--keep-last", "1", "--store", "backups", "--yes"]);
    assert_eq!(sandbox.ids(), [other, all[0].clone()]);
}

#[test]
fn prune_keeps_safety_snapshots_for_some_time_and_does_not_count_them() {
    let (sandbox, all) = snapshots_of_ages(&[1]);
    let report = sandbox.json(&["restore", &all[0], "--to", "app.db", "--replace", "--store", "backups"]);
    let safety = report["safety_snapshot"].as_str().unwrap().to_owned();
    let plan = sandbox.json(&["prune", "--keep-last", "1", "--store", "backups"]);
    assert_eq!(ids(&plan, "keep"), [safety.clone(), all[0].clone()]);
    let plan = sandbox.json(&["prune", "--keep-last", "1", "--keep-others", "0s", "--store", "backups"]);
    assert_eq!(ids(&plan, "keep"), [all[0].clone()]);
    assert!(ids(&plan, "delete").contains(&safety));
}

#[test]
fn prune_keeps_snapshots_of_a_newer_format() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let old = sandbox.snapshot("app.db");
    let manifest = sandbox.path(format!("backups/app/{old}.json"));
    let newer = std::fs::read_to_string(&manifest).unwrap().replacen("\"format\": 1", "\"format\": 2", 1);
    std::fs::write(&manifest, newer).unwrap();
    sandbox.snapshot("app.db");
    let run = sandbox
        .ok(&["prune", "--keep-last", "1", "--keep-others", "0s", "--yes", "--store", "backups"])
        .says("made by a newer lifeboat: it has the format version 2");
    assert!(manifest.exists(), "{}", run.transcript());
    assert!(run.stdout().contains("made by a newer lifeboat"), "{}", run.transcript());
}

#[test]
fn prune_keeps_the_newest_snapshot_if_all_are_damaged() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let ids = [sandbox.snapshot("app.db"), sandbox.snapshot("app.db")];
    for id in &ids {
        crate::helpers::flip_bytes(sandbox.path(format!("backups/app/{id}.tar.gz")), 700, 5);
    }
    sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
    sandbox.ok(&["prune", "--keep-last", "1", "--keep-others", "0s", "--yes", "--store", "backups"]);
    assert_eq!(sandbox.ids(), ids[1..]);
}

#[test]
fn prune_of_an_unknown_source_is_exit_code_4() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox.snapshot("app.db");
    refused(&sandbox, &["prune", "--source", "aap", "--keep-last", "1", "--store", "backups"], 4).says("aap");
}

#[test]
fn a_tag_that_no_snapshot_has_does_not_empty_a_source() {
    let (sandbox, all) = snapshots_of_ages(&[1, 2, 3]);
    let before = sandbox.state();
    for arguments in [&["--yes"][..], &[]] {
        let prune = ["prune", "--keep-tag", "relaese", "--store", "backups"];
        let run = sandbox.run(&[&prune[..], arguments].concat()).code(2);
        assert!(run.stderr().contains("no snapshot of app has the tag relaese"), "{}", run.transcript());
    }
    assert_eq!(sandbox.state(), before);
    // Another rule keeps others.
    sandbox.ok(&["prune", "--keep-tag", "relaese", "--keep-last", "2", "--store", "backups", "--yes"]);
    assert_eq!(sandbox.ids(), all[..2]);
    // If a tag exists, all other snapshots may be deleted.
    sandbox.ok(&["snapshot", "app.db", "--tag", "release", "--store", "backups"]);
    sandbox.ok(&["prune", "--keep-tag", "release", "--store", "backups", "--yes"]);
    assert_eq!(sandbox.ids().len(), 1);
}

#[test]
fn a_snapshot_whose_archive_was_cut_displaces_no_good_one() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let good = sandbox.snapshot("app.db");
    let cut = sandbox.snapshot("app.db");
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    let archive = sandbox.path(format!("backups/app/{cut}.tar.gz"));
    std::fs::File::options().write(true).open(&archive).unwrap().set_len(100).unwrap();
    let document = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(document["snapshots"][0]["proof"], "damaged", "{document:#}");
    sandbox.ok(&["prune", "--keep-last", "1", "--yes", "--store", "backups"]);
    assert!(sandbox.ids().contains(&good), "{:?}", sandbox.ids());
    sandbox.ok(&["restore", "latest", "--to", "copy.db", "--store", "backups"]).says(&format!("skipping {cut}"));
}

#[test]
fn keep_others_alone_changes_the_policy_of_the_config_and_is_refused_without_one() {
    let (sandbox, all) = snapshots_of_ages(&[]);
    refused(&sandbox, &["prune", "--keep-others", "1d", "--store", "backups"], 2).says("the policy keeps nothing");
    std::fs::write(
        sandbox.path("lifeboat.toml"),
        "[[store]]\nurl = \"backups\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n[retention]\nkeep_last = 1\n",
    )
    .unwrap();
    // A partial snapshot of three days ago, whose rows newer ones have.
    let old = copy_with_time(&sandbox.path("backups"), &all[0], Utc::now() - Duration::days(3));
    let manifest = sandbox.path(format!("backups/app/{old}.json"));
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"kind\": \"full\"", "\"kind\": \"partial\"")).unwrap();
    assert_eq!(ids(&sandbox.json(&["prune"]), "delete"), Vec::<String>::new());
    assert_eq!(ids(&sandbox.json(&["prune", "--keep-others", "1d"]), "delete"), [old]);
}
