//! Snapshots that are not encrypted, where the config or an older snapshot of the source is.

use std::fs;

use super::{assert_not_mallory, encrypt, encrypted_app, make_key, plant};
use crate::gates::helpers::{App, assert_one_failed, failed_checks};
use crate::helpers::refused;

#[test]
fn guard_does_not_restore_a_plaintext_snapshot_where_the_config_encrypts() {
    let app = encrypted_app();
    let own = app.ids()[0].clone();
    let planted = plant(&app, &["snapshot"]);
    app.remove_database();
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).code(3).says(&planted).says("is not encrypted");
    assert_not_mallory(&app, &run);
    assert!(!app.sandbox.path("started").exists());
    let run =
        app.sandbox.ok(&["guard", "--on-doubt", "restore-older", "--", "touch", "started"]).says(&own).says(&planted);
    assert_not_mallory(&app, &run);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    assert!(app.sandbox.path("started").exists());
}

#[test]
fn guard_names_a_plaintext_snapshot_that_it_is_not_compared_with() {
    let app = encrypted_app();
    let planted = plant(&app, &["snapshot"]);
    app.sandbox.ok(&["guard", "--", "true"]).says(&planted).says("it is not trusted");
    // The snapshot of the guard is newer, and is compared with from now on.
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    assert!(!run.stderr().contains(&planted), "{}", run.transcript());
}

#[test]
fn commands_that_read_a_plaintext_snapshot_refuse_it_and_latest_passes_over_it() {
    let app = encrypted_app();
    let own = app.ids()[0].clone();
    let planted = plant(&app, &["snapshot"]);
    for arguments in
        [&["restore", &planted, "--to", "copy.db"][..], &["extract", &planted, "--to", "folder"], &["diff", &planted]]
    {
        refused_as_untrusted(&app, arguments);
    }
    app.sandbox.run(&["drill", &planted]).code(3).says("not trusted");
    let run = app.sandbox.ok(&["restore", "latest", "--to", "copy.db"]).says(&format!("skipping {planted}"));
    assert!(run.stdout().contains(&own), "{}", run.transcript());
    assert!(app.sandbox.ok(&["drill"]).stdout().contains(&own));
    // A test of it is neither a proof nor damage.
    let run = app.sandbox.run(&["verify", &planted, "--json"]).code(3);
    assert_eq!(run.json()["snapshots"][0]["problems"][0]["kind"], "untrusted", "{}", run.transcript());
    let run = app.sandbox.run(&["verify", "--all", "--json"]).code(3);
    assert_eq!(run.json()["snapshots"].as_array().unwrap().len(), 2, "{}", run.transcript());
    let names = fs::read_dir(app.sandbox.path("backups/app")).unwrap().flatten().map(|file| file.file_name());
    let mut proofs = names.filter(|name| name.to_string_lossy().contains("proof"));
    assert!(proofs.all(|name| name.to_string_lossy().contains(&own)));
    app.sandbox.ok(&["restore", &planted, "--to", "looked-at.db", "--allow-plaintext"]);
    app.sandbox.ok(&["extract", &planted, "--to", "folder", "--allow-plaintext"]);
    app.sandbox.ok(&["drill", &planted, "--allow-plaintext"]);
    app.sandbox.ok(&["verify", &planted, "--allow-plaintext"]);
}

#[track_caller]
fn refused_as_untrusted(app: &App, arguments: &[&str]) {
    let run =
        app.sandbox.run(arguments).code(3).says("is not encrypted, but the config encrypts").says("--allow-plaintext");
    assert!(!app.sandbox.path("copy.db").exists() && !app.sandbox.path("folder").exists(), "{}", run.transcript());
}

#[test]
fn an_older_encrypted_snapshot_is_enough_to_refuse_a_plaintext_one() {
    let app = App::new("");
    let public = make_key(&app.sandbox);
    app.sandbox.ok(&["snapshot", "--encrypt-to", &public]);
    let planted = plant(&app, &["snapshot"]);
    let again = plant(&app, &["snapshot"]);
    app.remove_database();
    let run = app.sandbox.run(&["guard", "--identity", "key.txt", "--", "true"]).code(3);
    let run = run.says(&planted).says(&again).says("which is older, is");
    assert_not_mallory(&app, &run);
    let run = app.sandbox.ok(&["restore", "latest", "--identity", "key.txt"]).says(&format!("skipping {planted}"));
    assert_not_mallory(&app, &run);
    // Without a config, too.
    let without = ["--config", "/dev/null", "--store", "backups", "--to", "copy.db"];
    app.sandbox.run(&[&["restore", &planted][..], &without].concat()).code(3).says("--allow-plaintext");
    app.sandbox.ok(&[&["restore", &planted, "--allow-plaintext"][..], &without].concat());
}

#[test]
fn a_plaintext_snapshot_that_is_older_than_every_encrypted_one_is_as_before() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let plain = app.ids()[0].clone();
    let public = make_key(&app.sandbox);
    app.sandbox.ok(&["snapshot", "--encrypt-to", &public]);
    app.sandbox.ok(&["restore", &plain, "--to", "copy.db"]);
}

#[test]
fn list_show_check_and_doctor_call_it_out() {
    let app = encrypted_app();
    let own = app.ids()[0].clone();
    let planted = plant(&app, &["snapshot"]);
    let run = app.sandbox.ok(&["list"]);
    let line = |id: &str| run.stdout().lines().find(|line| line.contains(id)).unwrap().to_owned();
    assert!(line(&own).contains("encrypted") && !line(&own).contains("NOT-TRUSTED"), "{}", run.transcript());
    assert!(!line(&planted).contains("age") && line(&planted).contains("NOT-TRUSTED"), "{}", run.transcript());
    let listed = app.sandbox.json(&["list"]);
    assert_eq!(listed["snapshots"][0]["encrypted"], false);
    assert!(listed["snapshots"][0]["untrusted"].as_str().unwrap().contains("is not encrypted"), "{listed:#}");
    assert_eq!(listed["snapshots"][1]["untrusted"], serde_json::Value::Null);
    let shown = app.sandbox.ok(&["show", &planted]);
    assert!(
        shown.stdout().contains("NOT TRUSTED") && shown.stdout().contains("encrypted no"),
        "{}",
        shown.transcript()
    );
    assert!(app.sandbox.ok(&["show", &own]).stdout().contains("encrypted with age"));
    let (failed, _) = app.fails(&["check"]);
    assert_one_failed(&failed, &["app: newest", &planted, "is not encrypted"]);
    let document = app.sandbox.run(&["doctor", "--json"]).code(3).json();
    assert_one_failed(&failed_checks(&document), &["app: trust", &planted]);
}

#[test]
fn switching_encryption_on_leaves_the_old_snapshots_usable_and_the_next_one_is_trusted() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let old = app.ids()[0].clone();
    encrypt(&app);
    app.sandbox
        .run(&["restore", "latest", "--to", "copy.db"])
        .code(3)
        .says("--allow-plaintext")
        .says("allow_plaintext = true");
    app.sandbox.ok(&["restore", "latest", "--to", "copy.db", "--allow-plaintext"]);
    app.sandbox.ok(&["restore", &old, "--to", "copy-2.db", "--allow-plaintext"]);
    // The config can say so, too, for a guard.
    let text = fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    fs::write(app.sandbox.path("trusting.toml"), text + "allow_plaintext = true\n").unwrap();
    app.remove_database();
    app.sandbox.run(&["guard", "--", "true"]).code(3).says(&old).says("allow_plaintext = true");
    app.sandbox.ok(&["guard", "--config", "trusting.toml", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    // The guard has taken an encrypted snapshot at its end.
    app.remove_database();
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    app.passes(&["check"]);
}

#[test]
fn the_first_snapshot_after_encryption_is_switched_on_is_taken() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    encrypt(&app);
    app.sandbox.ok(&["snapshot"]).says("not compared with");
    app.passes(&["check"]);
    app.passes(&["predeploy"]);
}

#[test]
fn snapshots_of_others_do_not_push_trusted_ones_out_of_the_retention() {
    let app = encrypted_app();
    let own = app.ids()[0].clone();
    for _ in 0..3 {
        plant(&app, &["snapshot"]);
    }
    let pruned = app.sandbox.json(&["prune", "--keep-last", "1", "--yes"]);
    let kept: Vec<&str> = pruned["keep"].as_array().unwrap().iter().map(|kept| kept["id"].as_str().unwrap()).collect();
    assert!(kept.contains(&own.as_str()), "{pruned:#}");
    assert_eq!(kept.len(), 2, "{pruned:#}");
}

#[test]
fn a_rollback_does_not_restore_a_plaintext_snapshot() {
    let app = encrypted_app();
    app.passes(&["predeploy", "--commit", "abc"]);
    let planted = plant(&app, &["predeploy", "--commit", "abc"]);
    app.sql("DELETE FROM accounts");
    let run =
        app.sandbox.run(&["postdeploy", "--commit", "abc", "--rollback"]).code(3).says(&format!("skipping {planted}"));
    assert_not_mallory(&app, &run);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40, "{}", run.transcript());
}

#[test]
fn an_archive_without_a_manifest_and_the_file_of_an_archive_are_refused() {
    let app = encrypted_app();
    let planted = plant(&app, &["snapshot"]);
    let archive = format!("backups/app/{planted}.tar.gz");
    refused(&app.sandbox, &["restore", &archive, "--to", "copy.db"], 3).says("--allow-plaintext");
    app.sandbox.ok(&["restore", &archive, "--to", "file.db", "--allow-plaintext"]);
    fs::remove_file(app.sandbox.path(format!("backups/app/{planted}.json"))).unwrap();
    app.sandbox.run(&["restore", &planted, "--to", "copy.db"]).code(3).says("--allow-plaintext");
    assert!(!app.sandbox.path("copy.db").exists());
    let run = app.sandbox.run(&["verify", &planted]).code(3);
    assert!(run.stdout().contains("it is not trusted"), "{}", run.transcript());
    app.sandbox.ok(&["verify", &planted, "--allow-plaintext"]);
    app.sandbox.ok(&["verify", &archive]);
}

#[test]
fn an_older_encrypted_snapshot_in_another_store_of_the_config_is_enough() {
    let app = App::new("");
    let public = make_key(&app.sandbox);
    let other_store = "[[store]]\nurl = \"./other\"\n";
    app.write_config(&format!("{other_store}[encryption]\nidentity_file = \"./key.txt\"\n"));
    app.sandbox.ok(&["init"]);
    app.sandbox.ok(&["snapshot", "--encrypt-to", &public, "--store", "other"]);
    // Somebody may write to the first store only.
    fs::create_dir(app.sandbox.path("backups/app")).unwrap();
    let planted = plant(&app, &["predeploy", "--commit", "abc"]);
    for arguments in [
        &["restore", &planted, "--to", "copy.db"][..],
        &["restore", "latest", "--to", "copy.db", "--store", "backups"],
        &["diff", &planted],
        &["drill", &planted],
    ] {
        app.sandbox.run(arguments).code(3).says("other, is: it is not trusted");
    }
    let run = app.sandbox.run(&["postdeploy", "--commit", "abc", "--rollback"]);
    assert_not_mallory(&app, &run);
    let (failed, _) = app.fails(&["check"]);
    assert!(failed.iter().any(|check| check.contains("app: newest") && check.contains(&planted)), "{failed:#?}");
    app.remove_database();
    app.sandbox.run(&["guard", "--", "true"]).code(3).says(&planted).says("is: it is not trusted");
    assert!(!app.sandbox.path("app/app.db").exists());
    // A store that cannot be read is no reason for trust.
    fs::rename(app.sandbox.path("other"), app.sandbox.path("elsewhere")).unwrap();
    let run = app.sandbox.run(&["guard", "--", "touch", "started"]).says("it is not known whether an older snapshot");
    assert!(!app.sandbox.path("app/app.db").exists() && !app.sandbox.path("started").exists(), "{}", run.transcript());
    // Without encryption in the config, a second store must not stop the restore from the first.
    app.write_config(other_store);
    app.sandbox.ok(&["restore", &planted, "--to", "copy.db"]);
}

#[test]
fn a_copy_of_a_snapshot_that_is_not_trusted_is_named() {
    let app = encrypted_app();
    let own = app.ids()[0].clone();
    let planted = plant(&app, &["snapshot"]);
    let run = app.sandbox.ok(&["copy", &own, "--from", "backups", "--to", "other", "--create"]);
    assert!(!run.stderr().contains("not trusted"), "{}", run.transcript());
    let named = format!("copying a snapshot that is not trusted: {planted} is not encrypted");
    app.sandbox.ok(&["copy", &planted, "--from", "backups", "--to", "second", "--create"]).says(&named);
    let archive = format!("backups/app/{planted}.tar.gz");
    app.sandbox.ok(&["copy", &archive, "--to", "third", "--create"]).says(&named);
}

#[test]
fn switching_encryption_off_is_called_out_at_every_snapshot_and_closes_the_gate_with_the_reason() {
    let app = encrypted_app();
    app.write_config("");
    for _ in 0..2 {
        app.sandbox.ok(&["snapshot"]).says("allow_plaintext = true is set under [encryption], it is not trusted");
    }
    let run = app.sandbox.run(&["predeploy", "--commit", "abc"]).code(3);
    assert!(!run.transcript().contains("could not be read back"), "{}", run.transcript());
    assert!(run.transcript().contains("it is not trusted: set recipients in [encryption]"), "{}", run.transcript());
    assert!(run.transcript().contains("allow_plaintext = true"), "{}", run.transcript());
    app.write_config("[encryption]\nallow_plaintext = true\n");
    let run = app.sandbox.ok(&["predeploy", "--commit", "abc"]);
    assert!(!run.transcript().contains("is not trusted"), "{}", run.transcript());
}

#[test]
fn printed_commands_have_the_options_that_they_need_and_hints_only_those_that_exist() {
    let app = encrypted_app();
    let planted = plant(&app, &["snapshot"]);
    let document = app.sandbox.json(&["show", &planted]);
    let command = document["restore"][0].as_str().unwrap().to_owned();
    assert!(command.contains(&planted) && command.contains("--allow-plaintext"), "{command}");
    let run = app.sandbox.run(&["restore", &planted, "--replace", "--allow-plaintext"]).code(2);
    run.says("app.db --replace --allow-plaintext --config");
    // These commands have no such option.
    for arguments in [&["check"][..], &["doctor"]] {
        let run = app.sandbox.run(arguments).code(3);
        assert!(run.stdout().contains("allow_plaintext = true"), "{}", run.transcript());
        assert!(!run.transcript().contains("--allow-plaintext"), "{}", run.transcript());
    }
    app.remove_database();
    let run = app.sandbox.run(&["guard", "--", "true"]).code(3).says("allow_plaintext = true");
    assert!(!run.stderr().contains("--allow-plaintext"), "{}", run.transcript());
    let stderr = run.stderr();
    let deletes = stderr.split('\'').find(|part| part.starts_with(&format!("lifeboat delete {planted}"))).unwrap();
    let words: Vec<&str> = deletes.split_whitespace().skip(1).collect();
    assert!(words.contains(&"--config") && words.contains(&"--store"), "{deletes}");
    app.sandbox.ok(&[&words[..], &["--yes"]].concat());
    app.sandbox.ok(&["guard", "--", "true"]);
}

/// A restore with a key encrypts the safety snapshot. The config does not encrypt, and its snapshots stay trusted.
#[test]
fn an_encrypted_safety_snapshot_does_not_make_others_untrusted() {
    let app = App::new("");
    make_key(&app.sandbox);
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["restore", "latest", "--replace", "--yes", "--identity", "key.txt"]);
    let safety = app.sandbox.json(&["list"])["snapshots"][0].clone();
    assert_eq!((&safety["kind"], &safety["encrypted"]), (&"safety".into(), &true.into()), "{safety:#}");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    app.sandbox.ok(&["snapshot"]);
    app.remove_database();
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 41);
}
