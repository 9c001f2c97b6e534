//! Prunes with a service that refuses or fails deletes, in batches and of single objects.

use lifeboat::store::{Published, StoreExt as _};

use super::bench::{Setup, require_clear_failure};
use crate::support::s3_proxy::{Action, Rule, Verb};

fn answer(status: u16, code: &'static str) -> Action {
    Action::Answer { status, code, retry_after: None }
}

/// Returns a setup with three snapshots.
fn setup_with_three_snapshots() -> Setup {
    let setup = Setup::new();
    for _ in 0..3 {
        setup.direct(&["snapshot", "first.db", "--name", "app"]).code(0);
    }
    setup
}

const PRUNE: &[&str] = &["prune", "--source", "app", "--keep-last", "1", "--yes"];

#[test]
#[ignore = "needs S3 servers"]
fn objects_are_deleted_one_by_one_if_batch_deletes_are_not_supported() {
    for refusal in [answer(501, "NotImplemented"), answer(400, "MalformedXML"), answer(403, "AccessDenied")] {
        let setup = setup_with_three_snapshots();
        setup.proxy.add(Rule::on(Verb::DeleteMany, refusal).forever());
        setup.run(PRUNE).code(0);
        assert_eq!(setup.ids().len(), 1);
        assert_eq!(setup.proxy.count(Verb::Delete), 4, "two manifests, two archives");
        let app_objects = setup.objects().into_iter().filter(|key| key.starts_with("app/")).count();
        assert_eq!(app_objects, 2, "one archive and its manifest");
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn denied_deletes_are_reported_and_leave_complete_snapshots() {
    let setup = setup_with_three_snapshots();
    for verb in [Verb::DeleteMany, Verb::Delete] {
        setup.proxy.add(Rule::on(verb, answer(403, "AccessDenied")).forever());
    }
    let run = setup.run(PRUNE);
    require_clear_failure(&run, &[5], &setup.server);
    assert!(run.stderr().contains("cannot delete"), "{}", run.transcript());
    assert_eq!(setup.ids().len(), 3);
    setup.direct(&["verify", "--all"]).code(0);
}

#[test]
#[ignore = "needs S3 servers"]
fn a_prune_that_fails_after_the_manifests_leaves_no_partial_snapshots() {
    let setup = setup_with_three_snapshots();
    setup.proxy.add(Rule::on(Verb::DeleteMany, answer(500, "InternalError")).skip(1).forever());
    setup.proxy.add(Rule::on(Verb::Delete, answer(500, "InternalError")).forever());
    let run = setup.run(PRUNE);
    require_clear_failure(&run, &[5], &setup.server);
    assert_eq!(setup.ids().len(), 1);
    setup.direct(&["verify", "--all"]).code(0);
}

#[test]
#[ignore = "needs S3 servers"]
fn a_prune_survives_each_kind_of_failure_once() {
    let setup = setup_with_three_snapshots();
    for verb in [Verb::DeleteMany, Verb::List, Verb::ListUploads, Verb::Get] {
        setup.proxy.add(Rule::on(verb, answer(503, "SlowDown")));
        setup.proxy.add(Rule::on(verb, Action::CutAtOnce));
    }
    setup.proxy.add(Rule::on(Verb::DeleteMany, Action::LoseReply));
    setup.run(PRUNE).code(0);
    assert_eq!(setup.ids().len(), 1);
}

/// The newest snapshot has a proof of damage. If the proof cannot be read, the snapshot may not count as a good one, so
/// that the older good snapshot would be deleted.
#[test]
#[ignore = "needs S3 servers"]
fn a_prune_keeps_the_newest_good_snapshot_if_a_proof_cannot_be_read() {
    let setup = setup_with_three_snapshots();
    let newest = setup.ids()[0].clone();
    let store = setup.server.open(&setup.direct_url());
    let proof = format!(
        r#"{{"id":"{newest}","level":"damaged","at":"2026-11-26T00:00:00Z","host":"here","seconds":1.0,"problems":["x"]}}"#
    );
    let key = format!("app/{newest}.proof-20261126T000000000Z.json").parse().unwrap();
    assert_eq!(store.write(&key, proof.as_bytes()).unwrap(), Published::Created);
    for trouble in [answer(403, "AccessDenied"), answer(500, "InternalError")] {
        setup.proxy.add(Rule::on(Verb::Get, trouble).key(".proof-").forever());
        setup.run(PRUNE).code(0);
        assert!(setup.ids().len() >= 2, "the newest good snapshot must be kept beside the damaged one");
        let run = setup.run(&["restore", "latest", "--source", "app", "--to", "back.db"]);
        require_clear_failure(&run, &[5], &setup.server);
        setup.proxy.clear();
    }
    let latest = setup.run(&["show", "latest", "--source", "app", "--json"]).code(0).json();
    assert_ne!(latest["id"].as_str().unwrap(), newest);
}

#[test]
#[ignore = "needs S3 servers"]
fn a_prune_reports_what_it_deleted_if_it_cannot_remove_unfinished_uploads() {
    let setup = setup_with_three_snapshots();
    setup.proxy.add(Rule::on(Verb::ListUploads, answer(403, "AccessDenied")).forever());
    let run = setup.run(&[PRUNE, &["--json"]].concat());
    assert_eq!(run.exit(), 5, "{}", run.transcript());
    let document = run.json();
    assert_eq!(document["delete"].as_array().unwrap().len(), 2, "{document}");
    assert_eq!(document["problems"].as_array().unwrap().len(), 1, "{document}");
    assert_eq!(setup.ids().len(), 1);
}
