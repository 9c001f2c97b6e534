//! `doctor` of a store: it reports what the store can do and what is wrong, and leaves none of its test objects.

use std::fs;

use serde_json::Value;

use super::helpers::{Bucket, Setup, files, text, with};
use super::several_stores::unreachable_store;
use crate::support::s3::clear_aws_settings;
use crate::support::{Run, sample};

on_every_server! {
    doctor_of_a_working_store_passes_and_leaves_nothing
    doctor_reports_a_missing_bucket_and_wrong_credentials
    doctor_reports_that_a_user_may_only_read
    doctor_does_not_change_other_objects_in_the_prefix
}

fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let found = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check '{name}': {document:#}"))
}

/// Runs doctor on a store with a problem. Requires exit code 3, a JSON document in which the check has failed, and
/// these words in the message of the check.
#[track_caller]
fn fails(setup: &Setup, store: &str, name: &str, words: &str) -> Run {
    let run = setup.run(&["doctor", "--store", store, "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["ok"], false);
    let check = check(&document, name);
    assert_eq!(check["ok"], false, "{}", run.transcript());
    assert!(text(&check["message"]).contains(words), "the message lacks '{words}'\n{}", run.transcript());
    let text_run = setup.run(&["doctor", "--store", store]).code(3);
    assert!(text_run.stdout().contains("FAILED"), "{}", text_run.transcript());
    run
}

fn doctor_of_a_working_store_passes_and_leaves_nothing(setup: &Setup) {
    let bucket = Bucket::of(&setup.server, &setup.server.bucket);
    // The store does not exist yet. doctor does not create it.
    let document = setup.json(&["doctor", "--store", &setup.store]);
    assert_eq!(document["ok"], true);
    for name in ["store", "write", "read", "read a range", "list", "write once", "write in parts", "clock", "delete"] {
        assert_eq!(check(&document, name)["ok"], true, "{document:#}");
    }
    assert!(text(&check(&document, "store")["message"]).contains("no store exists yet"), "{document:#}");
    for name in [
        "hashes",
        "condition on a write",
        "condition on parts",
        "number of parts",
        "batch delete",
        "unfinished uploads",
        "versions",
    ] {
        assert_eq!(check(&document, name)["ok"], true, "{document:#}");
    }
    assert!(setup.objects().is_empty());
    assert_eq!(bucket.uploads(&setup.prefix()), 0);
    // The store exists.
    sample(setup.at("app.db"), 3, "delete");
    setup.snapshot("app.db", &setup.store, &[]);
    let before = setup.objects();
    let run = setup.ok(&["doctor", "--store", &setup.store]);
    assert!(!run.stdout().contains("FAILED") && run.stderr().is_empty(), "{}", run.transcript());
    assert_eq!(setup.objects(), before);
    assert_eq!(bucket.uploads(&setup.prefix()), 0);
    // After doctor, the prefix is still empty, so that a store can be created there.
    setup.ok(&["doctor", "--store", &setup.other_store("new")]);
    setup.snapshot("app.db", &setup.other_store("new"), &[]);
}

fn doctor_reports_a_missing_bucket_and_wrong_credentials(setup: &Setup) {
    fails(setup, &setup.store_in_missing_bucket(), "store", "create the bucket first");
    fails(setup, &unreachable_store(setup), "store", "refused");
    let wrong_secret = [("AWS_SECRET_ACCESS_KEY", "wrong".to_owned())];
    for (name, value) in wrong_secret.iter().chain(&[("AWS_ACCESS_KEY_ID", "WRONG".to_owned())]) {
        let mut command = setup.command(&["doctor", "--store", &setup.store, "--json"]);
        command.env(name, value);
        let run = setup.sandbox.finish(command).code(3);
        let document = run.json();
        assert_eq!(check(&document, "store")["ok"], false, "{}", run.transcript());
        assert!(!run.transcript().contains(&setup.server.secret_key), "{}", run.transcript());
    }
    assert!(setup.objects().is_empty());
}

fn doctor_reports_that_a_user_may_only_read(setup: &Setup) {
    let server = &setup.server;
    let (Some(access), Some(secret)) = (&server.limited_access_key, &server.limited_secret_key) else { return };
    let mut command = setup.sandbox.command(&["doctor", "--store", &setup.store, "--json"]);
    clear_aws_settings(&mut command);
    command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
    let run = setup.sandbox.finish(command).code(3);
    let document = run.json();
    assert_eq!(check(&document, "store")["ok"], true, "{}", run.transcript());
    assert_eq!(check(&document, "write")["ok"], false, "{}", run.transcript());
    assert!(text(&check(&document, "write")["message"]).contains("do not permit"), "{}", run.transcript());
    assert!(setup.objects().is_empty());
}

fn doctor_does_not_change_other_objects_in_the_prefix(setup: &Setup) {
    setup.put("photos/cat.jpg", b"meow");
    setup.put("trial.txt", b"not ours");
    let document = setup.json(&["doctor", "--store", &setup.store]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert_eq!(setup.objects(), ["photos/cat.jpg", "trial.txt"]);
    sample(setup.at("app.db"), 3, "delete");
    setup.run(&["snapshot", "app.db", "--store", &setup.store]).code(2).says("not empty");
    assert_eq!(setup.objects(), ["photos/cat.jpg", "trial.txt"]);
}

#[test]
#[ignore = "needs S3 servers"]
fn doctor_checks_stores_in_folders() {
    let setup = Setup::new(&crate::support::s3::s3_servers()[0].name);
    sample(setup.at("app.db"), 3, "delete");
    setup.snapshot("app.db", "backups", &[]);
    let before = files(&setup.sandbox.path("backups"));
    let document = setup.json(&["doctor", "--store", "backups"]);
    assert_eq!(document["ok"], true);
    assert_eq!(check(&document, "free space")["ok"], true);
    assert_eq!(files(&setup.sandbox.path("backups")), before);
    fs::create_dir(setup.at("empty")).unwrap();
    let document = setup.json(&["doctor", "--store", "empty"]);
    assert!(text(&check(&document, "store")["message"]).contains("no store exists yet"), "{document:#}");
    assert!(files(&setup.sandbox.path("empty")).is_empty());
    fails(&setup, "nowhere", "store", "");
    assert!(!setup.sandbox.path("nowhere").exists());
    fs::write(setup.at("a-file"), "x").unwrap();
    fails(&setup, "a-file", "store", "");
    // /sys/kernel is a file system that not even root can write to.
    if fs::metadata("/sys/kernel").is_ok() {
        let run = setup.run(&["doctor", "--store", "/sys/kernel", "--json"]).code(3);
        assert_eq!(check(&run.json(), "write")["ok"], false, "{}", run.transcript());
    }
    let both = setup.run(&with(&["doctor", "--json"], &["--store", "nowhere", "--store", "backups"])).code(3).json();
    assert_eq!(check(&both, "write")["ok"], true, "the second store must be checked: {both:#}");
    setup.run(&["doctor"]).code(2).says("--store");
}
