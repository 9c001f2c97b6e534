//! Downloads.

use super::bench::{Bench, require_clear_failure};
use crate::support::s3_proxy::{Action, Rule, Verb};

fn saved() -> Bench {
    let bench = Bench::new();
    bench.direct(&["snapshot", "app.db"]).code(0);
    bench
}

/// Restores through the proxy; the bytes must be those that a restore past it gives.
#[track_caller]
fn require_restored(bench: &Bench, what: &str) {
    let run = bench.run(&["restore", "latest", "--source", "app", "--to", "through.db"]).code(0);
    bench.direct(&["restore", "latest", "--source", "app", "--to", "direct.db"]).code(0);
    let read = |name| std::fs::read(bench.sandbox.path(name)).unwrap();
    assert!(read("through.db") == read("direct.db"), "{what}\n{}", run.transcript());
    for name in ["through.db", "direct.db"] {
        std::fs::remove_file(bench.sandbox.path(name)).unwrap();
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn restore_survives_what_breaks_once() {
    let bench = saved();
    for action in [
        Action::Answer { status: 500, code: "InternalError", retry_after: None },
        Action::Answer { status: 503, code: "SlowDown", retry_after: Some(0) },
        Action::Answer { status: 429, code: "TooManyRequests", retry_after: None },
        Action::CutAtOnce,
        Action::CutReply(1000),
        Action::CutReply(3 << 20),
        Action::ShortBody(17),
        Action::StallReply(2000),
        Action::StallRequest,
        Action::LoseReply,
    ] {
        // A range well within the archive, and the documents that are read before.
        bench.proxy.add(Rule::on(Verb::Get, action.clone()).key(".tar.").skip(2));
        bench.proxy.add(Rule::on(Verb::Get, action.clone()).key("lifeboat.json"));
        bench.proxy.add(Rule::on(Verb::Get, action.clone()).key("/app-").skip(1));
        require_restored(&bench, &format!("{action:?}"));
        bench.proxy.clear();
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn restore_through_a_flaky_service_is_byte_exact() {
    let bench = saved();
    for seed in 1..=3 {
        bench.proxy.flaky(seed, 25);
        let store = bench.url_with("timeout=2s&retries=8");
        let arguments = ["restore", "latest", "--source", "app", "--to", "through.db"];
        let run = bench.sandbox.finish(bench.command(&arguments, &store)).code(0);
        bench.proxy.clear();
        bench.direct(&["restore", "latest", "--source", "app", "--to", "direct.db"]).code(0);
        let read = |name| std::fs::read(bench.sandbox.path(name)).unwrap();
        assert!(read("through.db") == read("direct.db"), "{seed}\n{}", run.transcript());
        for name in ["through.db", "direct.db"] {
            std::fs::remove_file(bench.sandbox.path(name)).unwrap();
        }
    }
}

/// Breaks every read of the archive for ever: the restore fails, and what it would have overwritten stays as it was.
fn fails(action: &Action, codes: &[i32]) {
    let bench = saved();
    std::fs::copy(bench.sandbox.path("first.db"), bench.sandbox.path("target.db")).unwrap();
    let before = bench.sandbox.state();
    bench.proxy.add(Rule::on(Verb::Get, action.clone()).key(".tar.").skip(3).forever());
    let run = bench.run(&["restore", "latest", "--source", "app", "--to", "new.db"]);
    require_clear_failure(&run, codes, &bench.server);
    let run = bench.run(&["restore", "latest", "--source", "app", "--to", "target.db", "--replace", "--no-safety"]);
    require_clear_failure(&run, codes, &bench.server);
    assert_eq!(bench.sandbox.state(), before, "{action:?}");
}

#[test]
#[ignore = "needs S3 servers"]
fn restore_fails_and_changes_nothing_where_the_service_keeps_failing() {
    fails(&Action::Answer { status: 500, code: "InternalError", retry_after: None }, &[5]);
    fails(&Action::CutReply(500_000), &[5]);
    fails(&Action::ShortBody(1), &[5]);
    fails(&Action::Answer { status: 403, code: "AccessDenied", retry_after: None }, &[5]);
}

#[test]
#[ignore = "needs S3 servers"]
fn wrong_bytes_are_never_restored() {
    fails(&Action::WrongBytes, &[3]);
}

#[test]
#[ignore = "needs S3 servers"]
fn bytes_that_were_damaged_on_their_way_are_no_damage_of_the_snapshot() {
    let bench = saved();
    bench.proxy.add(Rule::on(Verb::Get, Action::WrongBytes).key(".tar.").skip(3));
    let run = bench.run(&["verify", "latest", "--source", "app"]).code(0);
    assert!(run.stderr().contains("whole when it was read again"), "{}", run.transcript());
    bench.proxy.add(Rule::on(Verb::Get, Action::WrongBytes).key(".tar.").skip(3));
    bench.run(&["drill", "latest", "--source", "app"]).code(0);
    let listed = bench.direct(&["list", "--source", "app", "--json"]).code(0).json();
    assert_eq!(listed["snapshots"][0]["proof"], "drilled");
}

/// A page of something between us and the service says nothing of the object, least of all that it was pruned.
#[test]
#[ignore = "needs S3 servers"]
fn not_found_without_the_services_own_word_is_no_absence() {
    let bench = saved();
    bench
        .proxy
        .add(Rule::on(Verb::Get, Action::Answer { status: 404, code: "", retry_after: None }).key("/app-").forever());
    let run = bench.run(&["verify", "--all"]);
    assert_eq!(run.exit(), 3, "{}", run.transcript());
    assert!(run.stdout().contains("NOT PROVEN"), "{}", run.transcript());
    let run = bench.run(&["restore", "latest", "--source", "app", "--to", "back.db"]);
    require_clear_failure(&run, &[5], &bench.server);
    bench.proxy.clear();
    let listed = bench.direct(&["list", "--source", "app", "--json"]).code(0).json();
    assert_eq!(listed["snapshots"][0]["proof"], "none", "nothing was recorded as damage");
}

#[test]
#[ignore = "needs S3 servers"]
fn denied_listing_is_told() {
    let bench = saved();
    bench
        .proxy
        .add(Rule::on(Verb::List, Action::Answer { status: 403, code: "AccessDenied", retry_after: None }).forever());
    for arguments in [&["list"][..], &["verify"], &["prune", "--keep-last", "1", "--yes"], &["snapshot", "app.db"]] {
        let run = bench.run(arguments);
        require_clear_failure(&run, &[5], &bench.server);
        assert!(run.stderr().contains("cannot list"), "{}", run.transcript());
    }
    assert_eq!(bench.ids().len(), 1);
}
