//! Proofs that somebody else has put beside a good snapshot.

use std::fs::{self, File};

use super::object;
use crate::gates::helpers::App;

/// Writes a well-formed proof of a test at `at`, in a name with the time `name`.
fn write_proof(app: &App, id: &str, level: &str, at: &str, name: &str) {
    let proof = serde_json::json!({"id": id, "level": level, "at": at, "host": "x", "seconds": 1.0});
    fs::write(object(app, id, &format!(".proof-{name}.json")), serde_json::to_vec(&proof).unwrap()).unwrap();
}

#[test]
fn an_unusable_proof_is_named_and_hides_no_snapshot() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    app.sandbox.ok(&["verify", &id]);
    let path = |number: u32| object(&app, &id, &format!(".proof-29990101T00000000{number}Z.json"));
    for (number, junk) in [(0, ""), (1, "{\"id\": \"cut"), (2, "{\"id\": \"x\"}"), (3, "[]")] {
        fs::write(path(number), junk).unwrap();
    }
    File::create(path(4)).unwrap().set_len(90 << 20).unwrap();
    write_proof(&app, &id, "damaged", "2999-01-01T00:00:00Z", "29990101T000000005Z");
    let run = app.sandbox.ok(&["restore", "latest", "--to", "copy.db"]);
    for number in 0..6 {
        let run = run.stderr();
        assert!(run.contains(&format!("proof-29990101T00000000{number}Z.json is ignored")), "{run}");
    }
    assert_eq!(app.sandbox.json(&["list"])["snapshots"][0]["proof"], "verified");
    app.sandbox.ok(&["verify", "latest"]);
    app.passes(&["check"]);
    let pruned = app.sandbox.ok(&["prune", "--keep-last", "1", "--yes"]);
    assert!(!pruned.transcript().contains("unreadable"), "{}", pruned.transcript());
    app.remove_database();
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
}

#[test]
fn a_proof_from_the_future_neither_counts_nor_hides_a_real_one() {
    let app = App::new("[backups]\nproof_within = \"1d\"\n");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    write_proof(&app, &id, "verified", "2999-01-01T00:00:00Z", "29990101T000000000Z");
    let (failed, _) = app.fails(&["check"]);
    assert!(failed[0].contains("no snapshot was ever"), "{failed:?}");
    app.sandbox.ok(&["verify", &id]);
    app.passes(&["check"]);
    // The time in the name of an old one decides nothing.
    write_proof(&app, &id, "drilled", "2020-01-01T00:00:00Z", "29990101T000000001Z");
    assert_eq!(app.sandbox.json(&["show", &id])["proof"], "verified");
    app.sandbox.ok(&["verify", &id]);
    app.passes(&["check"]);
}
