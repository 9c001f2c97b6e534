//! Downloads from a service that fails.

use super::bench::{Setup, require_clear_failure};
use crate::support::s3_proxy::{Action, Rule, Verb};

/// Returns a setup with a snapshot of app.db.
fn setup_with_snapshot() -> Setup {
    let setup = Setup::new();
    setup.direct(&["snapshot", "app.db"]).code(0);
    setup
}

/// Restores through the proxy. The file must be equal to that of a restore without the proxy.
#[track_caller]
fn require_restored(setup: &Setup, context: &str) {
    let run = setup.run(&["restore", "latest", "--source", "app", "--to", "through.db"]).code(0);
    setup.direct(&["restore", "latest", "--source", "app", "--to", "direct.db"]).code(0);
    let read = |name| std::fs::read(setup.sandbox.path(name)).unwrap();
    assert!(read("through.db") == read("direct.db"), "{context}\n{}", run.transcript());
    for name in ["through.db", "direct.db"] {
        std::fs::remove_file(setup.sandbox.path(name)).unwrap();
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn a_restore_survives_each_kind_of_failure_once() {
    let setup = setup_with_snapshot();
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
        // The failure affects a later range of the archive, and the documents that are read before the archive.
        setup.proxy.add(Rule::on(Verb::Get, action.clone()).key(".tar.").skip(2));
        setup.proxy.add(Rule::on(Verb::Get, action.clone()).key("lifeboat.json"));
        setup.proxy.add(Rule::on(Verb::Get, action.clone()).key("/app-").skip(1));
        require_restored(&setup, &format!("{action:?}"));
        setup.proxy.clear();
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn a_restore_from_a_flaky_service_is_exact() {
    let setup = setup_with_snapshot();
    for seed in 1..=3 {
        setup.proxy.flaky(seed, 25);
        let store = setup.url_with("timeout=2s&retries=8");
        let arguments = ["restore", "latest", "--source", "app", "--to", "through.db"];
        let run = setup.sandbox.finish(setup.command(&arguments, &store)).code(0);
        setup.proxy.clear();
        setup.direct(&["restore", "latest", "--source", "app", "--to", "direct.db"]).code(0);
        let read = |name| std::fs::read(setup.sandbox.path(name)).unwrap();
        assert!(read("through.db") == read("direct.db"), "{seed}\n{}", run.transcript());
        for name in ["through.db", "direct.db"] {
            std::fs::remove_file(setup.sandbox.path(name)).unwrap();
        }
    }
}

/// Lets all reads of the archive after the third fail. A restore must fail, and must not change its target.
fn require_failed_restore(action: &Action, codes: &[i32]) {
    let setup = setup_with_snapshot();
    std::fs::copy(setup.sandbox.path("first.db"), setup.sandbox.path("target.db")).unwrap();
    let before = setup.sandbox.state();
    setup.proxy.add(Rule::on(Verb::Get, action.clone()).key(".tar.").skip(3).forever());
    let run = setup.run(&["restore", "latest", "--source", "app", "--to", "new.db"]);
    require_clear_failure(&run, codes, &setup.server);
    let run = setup.run(&["restore", "latest", "--source", "app", "--to", "target.db", "--replace", "--no-safety"]);
    require_clear_failure(&run, codes, &setup.server);
    assert_eq!(setup.sandbox.state(), before, "{action:?}");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_restore_fails_and_changes_nothing_if_the_service_keeps_failing() {
    require_failed_restore(&Action::Answer { status: 500, code: "InternalError", retry_after: None }, &[5]);
    require_failed_restore(&Action::CutReply(500_000), &[5]);
    require_failed_restore(&Action::ShortBody(1), &[5]);
    require_failed_restore(&Action::Answer { status: 403, code: "AccessDenied", retry_after: None }, &[5]);
}

#[test]
#[ignore = "needs S3 servers"]
fn wrong_bytes_are_never_restored() {
    require_failed_restore(&Action::WrongBytes, &[3]);
}

#[test]
#[ignore = "needs S3 servers"]
fn damage_during_a_download_is_not_recorded_as_damage_of_the_snapshot() {
    let setup = setup_with_snapshot();
    setup.proxy.add(Rule::on(Verb::Get, Action::WrongBytes).key(".tar.").skip(3));
    let run = setup.run(&["verify", "latest", "--source", "app"]).code(0);
    assert!(run.stderr().contains("intact at the second"), "{}", run.transcript());
    setup.proxy.add(Rule::on(Verb::Get, Action::WrongBytes).key(".tar.").skip(3));
    setup.run(&["drill", "latest", "--source", "app"]).code(0);
    let listed = setup.direct(&["list", "--source", "app", "--json"]).code(0).json();
    assert_eq!(listed["snapshots"][0]["proof"], "drilled");
}

/// A 404 without an error code of S3 may come from a proxy. It does not mean that the object was deleted.
#[test]
#[ignore = "needs S3 servers"]
fn a_404_without_an_s3_error_code_does_not_count_as_a_missing_object() {
    let setup = setup_with_snapshot();
    setup
        .proxy
        .add(Rule::on(Verb::Get, Action::Answer { status: 404, code: "", retry_after: None }).key("/app-").forever());
    let run = setup.run(&["verify", "--all"]);
    assert_eq!(run.exit(), 3, "{}", run.transcript());
    assert!(run.stdout().contains("NOT PROVEN"), "{}", run.transcript());
    let run = setup.run(&["restore", "latest", "--source", "app", "--to", "back.db"]);
    require_clear_failure(&run, &[5], &setup.server);
    setup.proxy.clear();
    let listed = setup.direct(&["list", "--source", "app", "--json"]).code(0).json();
    assert_eq!(listed["snapshots"][0]["proof"], "none", "no damage may be recorded");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_denied_listing_is_reported() {
    let setup = setup_with_snapshot();
    setup
        .proxy
        .add(Rule::on(Verb::List, Action::Answer { status: 403, code: "AccessDenied", retry_after: None }).forever());
    for arguments in [&["list"][..], &["verify"], &["prune", "--keep-last", "1", "--yes"], &["snapshot", "app.db"]] {
        let run = setup.run(arguments);
        require_clear_failure(&run, &[5], &setup.server);
        assert!(run.stderr().contains("cannot list"), "{}", run.transcript());
    }
    assert_eq!(setup.ids().len(), 1);
}
