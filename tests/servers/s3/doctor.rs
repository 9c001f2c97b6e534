//! `doctor`: what a store can do, what is wrong with one, and that nothing of the trial stays.

use std::fs;

use serde_json::Value;

use super::helpers::{Bucket, Place, files, text, with};
use super::several_stores::closed;
use crate::support::s3::forget_aws;
use crate::support::{Run, sample};

on_every_server! {
    a_good_store_passes_and_nothing_stays
    what_is_wrong_is_said
    who_may_only_read_is_told_so
    one_that_holds_other_things_is_tried_and_left_alone
}

fn check<'a>(document: &'a Value, name: &str) -> &'a Value {
    let found = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check '{name}': {document:#}"))
}

/// Runs it on a store in which something is wrong: exit 3, a document all the same, words for people.
#[track_caller]
fn fails(place: &Place, store: &str, name: &str, words: &str) -> Run {
    let run = place.run(&["doctor", "--store", store, "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["ok"], false);
    let check = check(&document, name);
    assert_eq!(check["ok"], false, "{}", run.transcript());
    assert!(text(&check["message"]).contains(words), "'{words}' is not said\n{}", run.transcript());
    let people = place.run(&["doctor", "--store", store]).code(3);
    assert!(people.stdout().contains("FAILED"), "{}", people.transcript());
    run
}

fn a_good_store_passes_and_nothing_stays(place: &Place) {
    let bucket = Bucket::of(&place.server, &place.server.bucket);
    // No store yet: nothing is made.
    let document = place.json(&["doctor", "--store", &place.store]);
    assert_eq!(document["ok"], true);
    for name in ["store", "write", "read", "read a range", "list", "write once", "write in parts", "clock", "delete"] {
        assert_eq!(check(&document, name)["ok"], true, "{document:#}");
    }
    assert!(text(&check(&document, "store")["message"]).contains("no store yet"), "{document:#}");
    for name in
        ["hashes", "condition on a write", "condition on parts", "batch delete", "unfinished uploads", "versions"]
    {
        assert_eq!(check(&document, name)["ok"], true, "{document:#}");
    }
    assert!(place.objects().is_empty());
    assert_eq!(bucket.uploads(&place.prefix()), 0);
    // And a store.
    sample(place.at("app.db"), 3, "delete");
    place.snapshot("app.db", &place.store, &[]);
    let before = place.objects();
    let run = place.ok(&["doctor", "--store", &place.store]);
    assert!(!run.stdout().contains("FAILED") && run.stderr().is_empty(), "{}", run.transcript());
    assert_eq!(place.objects(), before);
    assert_eq!(bucket.uploads(&place.prefix()), 0);
    // It can still be made into a store afterwards, and used at once.
    place.ok(&["doctor", "--store", &place.other_store("new")]);
    place.snapshot("app.db", &place.other_store("new"), &[]);
}

fn what_is_wrong_is_said(place: &Place) {
    fails(place, &place.store_in_no_bucket(), "store", "make the bucket first");
    fails(place, &closed(place), "store", "refused");
    let wrong = [("AWS_SECRET_ACCESS_KEY", "wrong".to_owned())];
    for (name, value) in wrong.iter().chain(&[("AWS_ACCESS_KEY_ID", "WRONG".to_owned())]) {
        let mut command = place.command(&["doctor", "--store", &place.store, "--json"]);
        command.env(name, value);
        let run = place.sandbox.finish(command).code(3);
        let document = run.json();
        assert_eq!(check(&document, "store")["ok"], false, "{}", run.transcript());
        assert!(!run.transcript().contains(&place.server.secret_key), "{}", run.transcript());
    }
    assert!(place.objects().is_empty());
}

fn who_may_only_read_is_told_so(place: &Place) {
    let server = &place.server;
    let (Some(access), Some(secret)) = (&server.limited_access_key, &server.limited_secret_key) else { return };
    let mut command = place.sandbox.command(&["doctor", "--store", &place.store, "--json"]);
    forget_aws(&mut command);
    command.env("AWS_ACCESS_KEY_ID", access).env("AWS_SECRET_ACCESS_KEY", secret);
    let run = place.sandbox.finish(command).code(3);
    let document = run.json();
    assert_eq!(check(&document, "store")["ok"], true, "{}", run.transcript());
    assert_eq!(check(&document, "write")["ok"], false, "{}", run.transcript());
    assert!(text(&check(&document, "write")["message"]).contains("may not do that"), "{}", run.transcript());
    assert!(place.objects().is_empty());
}

fn one_that_holds_other_things_is_tried_and_left_alone(place: &Place) {
    place.put("photos/cat.jpg", b"meow");
    place.put("trial.txt", b"not ours");
    let document = place.json(&["doctor", "--store", &place.store]);
    assert_eq!(document["ok"], true, "{document:#}");
    assert_eq!(place.objects(), ["photos/cat.jpg", "trial.txt"]);
    sample(place.at("app.db"), 3, "delete");
    place.run(&["snapshot", "app.db", "--store", &place.store]).code(2).says("not empty");
    assert_eq!(place.objects(), ["photos/cat.jpg", "trial.txt"]);
}

#[test]
#[ignore = "needs S3 servers"]
fn folders_are_tried_too() {
    let place = Place::new(&crate::support::s3::s3_servers()[0].name);
    sample(place.at("app.db"), 3, "delete");
    place.snapshot("app.db", "backups", &[]);
    let before = files(&place.sandbox.path("backups"));
    let document = place.json(&["doctor", "--store", "backups"]);
    assert_eq!(document["ok"], true);
    assert_eq!(check(&document, "free space")["ok"], true);
    assert_eq!(files(&place.sandbox.path("backups")), before);
    fs::create_dir(place.at("empty")).unwrap();
    assert!(text(&check(&place.json(&["doctor", "--store", "empty"]), "store")["message"]).contains("no store yet"));
    assert!(files(&place.sandbox.path("empty")).is_empty());
    fails(&place, "nowhere", "store", "");
    assert!(!place.sandbox.path("nowhere").exists());
    fs::write(place.at("a-file"), "x").unwrap();
    fails(&place, "a-file", "store", "");
    // A file system that cannot be written to, whoever asks.
    if fs::metadata("/sys/kernel").is_ok() {
        let run = place.run(&["doctor", "--store", "/sys/kernel", "--json"]).code(3);
        assert_eq!(check(&run.json(), "write")["ok"], false, "{}", run.transcript());
    }
    let both = place.run(&with(&["doctor", "--json"], &["--store", "nowhere", "--store", "backups"])).code(3).json();
    assert_eq!(check(&both, "write")["ok"], true, "the second one is tried: {both:#}");
    place.run(&["doctor"]).code(2).says("--store");
}
