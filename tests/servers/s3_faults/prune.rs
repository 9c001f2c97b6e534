//! Deletes that are refused, in batches and alone.

use lifeboat::store::{Published, Store as _};

use super::bench::{Bench, require_clear_failure};
use crate::support::s3_proxy::{Action, Rule, Verb};

fn answer(status: u16, code: &'static str) -> Action {
    Action::Answer { status, code, retry_after: None }
}

fn with_three() -> Bench {
    let bench = Bench::new();
    for _ in 0..3 {
        bench.direct(&["snapshot", "first.db", "--name", "app"]).code(0);
    }
    bench
}

const PRUNE: &[&str] = &["prune", "--source", "app", "--keep-last", "1", "--yes"];

#[test]
#[ignore = "needs S3 servers"]
fn service_without_batch_deletes_is_pruned_one_by_one() {
    for refusal in [answer(501, "NotImplemented"), answer(400, "MalformedXML"), answer(403, "AccessDenied")] {
        let bench = with_three();
        bench.proxy.add(Rule::on(Verb::DeleteMany, refusal).forever());
        bench.run(PRUNE).code(0);
        assert_eq!(bench.ids().len(), 1);
        assert_eq!(bench.proxy.count(Verb::Delete), 4, "two manifests, two archives");
        let own = bench.objects().into_iter().filter(|key| key.starts_with("app/")).count();
        assert_eq!(own, 2, "one archive and its manifest");
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn denied_deletes_are_told_and_leave_whole_snapshots() {
    let bench = with_three();
    for verb in [Verb::DeleteMany, Verb::Delete] {
        bench.proxy.add(Rule::on(verb, answer(403, "AccessDenied")).forever());
    }
    let run = bench.run(PRUNE);
    require_clear_failure(&run, &[5], &bench.server);
    assert!(run.stderr().contains("cannot delete"), "{}", run.transcript());
    assert_eq!(bench.ids().len(), 3);
    bench.direct(&["verify", "--all"]).code(0);
}

#[test]
#[ignore = "needs S3 servers"]
fn prune_that_breaks_between_manifests_and_archives_shows_nothing_half() {
    let bench = with_three();
    bench.proxy.add(Rule::on(Verb::DeleteMany, answer(500, "InternalError")).skip(1).forever());
    bench.proxy.add(Rule::on(Verb::Delete, answer(500, "InternalError")).forever());
    let run = bench.run(PRUNE);
    require_clear_failure(&run, &[5], &bench.server);
    assert_eq!(bench.ids().len(), 1);
    bench.direct(&["verify", "--all"]).code(0);
}

#[test]
#[ignore = "needs S3 servers"]
fn prune_survives_what_breaks_once() {
    let bench = with_three();
    for verb in [Verb::DeleteMany, Verb::List, Verb::ListUploads, Verb::Get] {
        bench.proxy.add(Rule::on(verb, answer(503, "SlowDown")));
        bench.proxy.add(Rule::on(verb, Action::CutAtOnce));
    }
    bench.proxy.add(Rule::on(Verb::DeleteMany, Action::LoseReply));
    bench.run(PRUNE).code(0);
    assert_eq!(bench.ids().len(), 1);
}

/// What a test found is not forgotten because it cannot be read: the good snapshot is not taken for superseded.
#[test]
#[ignore = "needs S3 servers"]
fn proof_that_cannot_be_read_costs_no_good_snapshot() {
    let bench = with_three();
    let newest = bench.ids()[0].clone();
    let store = bench.server.open(&bench.direct_url());
    let proof = format!(
        r#"{{"id":"{newest}","level":"damaged","at":"2026-11-26T00:00:00Z","host":"here","seconds":1.0,"problems":["x"]}}"#
    );
    let key = format!("app/{newest}.proof-20261126T000000000Z.json").parse().unwrap();
    assert_eq!(store.write(&key, proof.as_bytes()).unwrap(), Published::Created);
    for trouble in [answer(403, "AccessDenied"), answer(500, "InternalError")] {
        bench.proxy.add(Rule::on(Verb::Get, trouble).key(".proof-").forever());
        bench.run(PRUNE).code(0);
        assert!(bench.ids().len() >= 2, "the newest good one is there beside the damaged one");
        let run = bench.run(&["restore", "latest", "--source", "app", "--to", "back.db"]);
        require_clear_failure(&run, &[5], &bench.server);
        bench.proxy.clear();
    }
    let latest = bench.run(&["show", "latest", "--source", "app", "--json"]).code(0).json();
    assert_ne!(latest["id"].as_str().unwrap(), newest);
}

#[test]
#[ignore = "needs S3 servers"]
fn prune_tells_what_it_deleted_where_it_may_not_clear_the_rest() {
    let bench = with_three();
    bench.proxy.add(Rule::on(Verb::ListUploads, answer(403, "AccessDenied")).forever());
    let run = bench.run(&[PRUNE, &["--json"]].concat());
    assert_eq!(run.exit(), 5, "{}", run.transcript());
    let told = run.json();
    assert_eq!(told["delete"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["problems"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(bench.ids().len(), 1);
}
