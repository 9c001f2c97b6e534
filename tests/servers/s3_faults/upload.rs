//! Uploads.

use std::io::Write as _;
use std::time::{Duration, Instant};

use lifeboat::store::{Published, Store as _};

use super::bench::{Bench, require_clear_failure};
use crate::support::s3_proxy::{Action, Rule, Verb};

const KEPT: &[&str] = &["snapshot", "app.db"];

fn answer(status: u16, code: &'static str) -> Action {
    Action::Answer { status, code, retry_after: None }
}

/// Breaks each of these verbs once, in such a way, and requires that the upload gets through all the same.
fn gets_through(verbs: &[Verb], action: &Action) {
    let bench = Bench::new();
    for verb in verbs {
        bench.proxy.add(Rule::on(*verb, action.clone()));
    }
    let what = format!("{verbs:?} {action:?}");
    let run = bench.run(KEPT).code(0);
    for verb in verbs {
        assert!(bench.proxy.count(*verb) >= 2, "{what} was not even asked for twice\n{}", run.transcript());
    }
    bench.require_whole(&what);
}

const ALL: &[Verb] = &[Verb::Put, Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Head, Verb::List];

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_an_error_of_the_service_once() {
    gets_through(ALL, &answer(500, "InternalError"));
    gets_through(ALL, &answer(503, "SlowDown"));
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_being_told_to_slow_down() {
    gets_through(ALL, &answer(429, "TooManyRequests"));
    gets_through(
        &[Verb::Put, Verb::UploadPart],
        &Action::Answer { status: 429, code: "TooManyRequests", retry_after: Some(1) },
    );
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_waits_as_long_as_it_is_asked_to() {
    let bench = Bench::new();
    bench.proxy.add(Rule::on(Verb::UploadPart, Action::Answer { status: 503, code: "SlowDown", retry_after: Some(2) }));
    bench.run(KEPT).code(0);
    let parts: Vec<Instant> =
        bench.proxy.requests().into_iter().filter(|seen| seen.verb == Verb::UploadPart).map(|seen| seen.at).collect();
    let (first, last) = (parts.iter().min().unwrap(), parts.iter().max().unwrap());
    assert!(last.duration_since(*first) >= Duration::from_millis(1900), "{parts:?}");
    bench.require_whole("Retry-After");
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_a_connection_that_is_cut_before_a_request() {
    gets_through(ALL, &Action::CutAtOnce);
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_a_connection_that_is_cut_within_a_request() {
    gets_through(&[Verb::Put, Verb::UploadPart, Verb::CompleteUpload], &Action::CutRequest(100));
    gets_through(&[Verb::UploadPart], &Action::CutRequest(3 << 20));
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_a_reply_that_is_cut() {
    gets_through(&[Verb::List, Verb::CreateUpload, Verb::CompleteUpload], &Action::CutReply(20));
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_lost_replies() {
    // What was done is done again, or met: the condition on the write then meets its own object.
    for verb in [Verb::Put, Verb::UploadPart, Verb::CompleteUpload, Verb::CreateUpload] {
        gets_through(&[verb], &Action::LoseReply);
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn publish_whose_replies_are_all_lost_is_settled_by_looking() {
    for verb in [Verb::CompleteUpload, Verb::Put] {
        let bench = Bench::new();
        bench.proxy.add(Rule::on(verb, Action::LoseReply).forever());
        let run = bench.run(KEPT).code(0);
        assert!(run.stderr().contains("reply was lost"), "{}", run.transcript());
        bench.require_whole(&format!("{verb:?}"));
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_survives_a_service_that_says_nothing() {
    gets_through(&[Verb::UploadPart], &Action::StallRequest);
    gets_through(&[Verb::CreateUpload, Verb::Put, Verb::Head], &Action::StallRequest);
}

#[test]
#[ignore = "needs S3 servers"]
fn service_that_takes_no_condition_is_written_to_without() {
    let bench = Bench::new();
    // The manifest, and the completion of the archive: told once that the condition is not known.
    bench.proxy.add(Rule::on(Verb::Put, answer(501, "NotImplemented")));
    bench.proxy.add(Rule::on(Verb::CompleteUpload, answer(501, "NotImplemented")));
    bench.run(KEPT).code(0);
    for verb in [Verb::Put, Verb::CompleteUpload] {
        let conditions: Vec<bool> = bench
            .proxy
            .requests()
            .iter()
            .filter(|seen| seen.verb == verb)
            .map(|seen| seen.header("if-none-match").is_some())
            .collect();
        assert_eq!(conditions, [true, false], "{verb:?}");
    }
    bench.require_whole("501");
}

#[test]
#[ignore = "needs S3 servers"]
fn manifest_that_is_written_late_makes_a_whole_snapshot() {
    // Nobody is told, for longer than anybody waits, of a write that then comes to pass.
    let bench = Bench::new();
    bench.proxy.add(Rule::on(Verb::Put, Action::LoseReply).forever());
    for verb in [Verb::Head, Verb::Get] {
        bench.proxy.add(Rule::on(verb, Action::CutAtOnce).key(".json").skip(2).forever());
    }
    let run = bench.run(KEPT);
    require_clear_failure(&run, &[5], &bench.server);
    assert!(run.stderr().contains("'lifeboat list' will tell"), "{}", run.transcript());
    bench.require_whole("late");
}

#[test]
#[ignore = "needs S3 servers"]
fn parts_may_carry_the_newer_checksums() {
    let bench = Bench::new();
    let store = bench.url_with("part_size=5MiB&checksums=when_supported");
    bench.sandbox.finish(bench.command(KEPT, &store)).code(0);
    let parts: Vec<bool> = bench
        .proxy
        .requests()
        .iter()
        .filter(|seen| seen.verb == Verb::UploadPart)
        .map(|seen| seen.header("x-amz-checksum-crc32").is_some())
        .collect();
    assert!(parts.len() > 3 && parts.iter().all(|is_summed| *is_summed), "{parts:?}");
    let begun = bench.proxy.requests().into_iter().find(|seen| seen.verb == Verb::CreateUpload).unwrap();
    assert_eq!(begun.header("x-amz-checksum-algorithm"), Some("CRC32"));
    bench.require_whole("checksums");
}

#[test]
#[ignore = "needs S3 servers"]
fn service_that_ignores_conditions_is_asked_first() {
    // Nothing that is there is overwritten, also where the service would do so.
    let bench = Bench::new();
    bench.proxy.sign_with(&bench.server.secret_key);
    bench.proxy.add(Rule::new(Action::DropHeader("if-none-match")).forever());
    bench.run(KEPT).code(0);
    bench.require_whole("conditions ignored");
    let doctor = bench.run(&["doctor"]).code(0);
    assert_eq!(doctor.stdout().matches("not heeded").count(), 2, "{}", doctor.transcript());
    let store = bench.server.open(&bench.url());
    let key = "app/there.bin".parse().unwrap();
    assert_eq!(store.write(&key, b"first").unwrap(), Published::Created);
    assert_eq!(store.write(&key, b"second").unwrap(), Published::AlreadyThere);
    let mut upload = store.create_large(&key, 0).unwrap();
    upload.write_all(&vec![7; 11 << 20]).unwrap();
    assert_eq!(upload.finish().unwrap(), Published::AlreadyThere);
    assert_eq!(store.read(&key, 100).unwrap(), b"first");
}

/// Breaks a verb for ever and requires that the snapshot fails within bounds, and leaves nothing.
fn fails(verb: Verb, action: &Action, codes: &[i32]) -> String {
    let bench = Bench::new();
    let what = format!("{verb:?} {action:?}");
    bench.proxy.add(Rule::on(verb, action.clone()).forever());
    let begun = Instant::now();
    let run = bench.run(KEPT);
    assert!(begun.elapsed() < Duration::from_secs(60), "{what} took {:?}", begun.elapsed());
    require_clear_failure(&run, codes, &bench.server);
    // Bounded: not one request of a kind for ever.
    assert!(bench.proxy.count(verb) <= 4 * 6, "{what}: {} tries", bench.proxy.count(verb));
    if verb == Verb::Put {
        // A manifest whose write was not confirmed may yet come to pass: its archive stays, and is nobody's, until prune.
        assert_eq!(bench.ids(), [""; 0], "{what}");
        assert_eq!(bench.unfinished_bytes(), 0, "{what}");
    } else {
        bench.require_nothing(&what);
    }
    run.stderr()
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_fails_where_the_service_keeps_failing() {
    for verb in [Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Put] {
        let said = fails(verb, &answer(500, "InternalError"), &[5]);
        assert!(said.contains("500 InternalError"), "{said}");
    }
    let said = fails(Verb::UploadPart, &Action::Answer { status: 503, code: "SlowDown", retry_after: Some(0) }, &[5]);
    assert!(said.contains("try again later"), "{said}");
    fails(Verb::UploadPart, &answer(429, "TooManyRequests"), &[5]);
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_fails_where_connections_keep_being_cut() {
    for verb in [Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Put] {
        fails(verb, &Action::CutAtOnce, &[5]);
    }
    fails(Verb::UploadPart, &Action::CutRequest(1 << 20), &[5]);
}

#[test]
#[ignore = "needs S3 servers"]
fn upload_fails_where_the_service_never_answers() {
    let said = fails(Verb::Put, &Action::StallRequest, &[5]);
    assert!(said.contains("did not answer in time"), "{said}");
}

#[test]
#[ignore = "needs S3 servers"]
fn write_that_is_denied_is_told_and_leaves_nothing() {
    for verb in [Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Put] {
        let said = fails(verb, &answer(403, "AccessDenied"), &[5]);
        assert!(said.contains("403 AccessDenied") && said.contains("hint: "), "{said}");
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn part_that_the_service_lost_is_noticed() {
    let bench = Bench::new();
    bench.proxy.add(Rule::on(Verb::UploadPart, Action::LosePart).skip(1));
    let run = bench.run(KEPT);
    require_clear_failure(&run, &[1, 5], &bench.server);
    bench.require_nothing("a part was lost");
}

#[test]
#[ignore = "needs S3 servers"]
fn success_with_an_error_in_it_is_an_error() {
    // As S3 answers when the putting together of parts fails late: status 200, and the error in the body.
    for verb in [Verb::CompleteUpload, Verb::Put] {
        let bench = Bench::new();
        bench.proxy.add(Rule::on(verb, answer(200, "InternalError")).forever());
        let run = bench.run(KEPT);
        require_clear_failure(&run, &[1, 5], &bench.server);
        assert_eq!(bench.ids(), [""; 0]);
    }
    let bench = Bench::new();
    bench.proxy.add(Rule::on(Verb::CompleteUpload, answer(200, "InternalError")));
    bench.run(KEPT).code(0);
    bench.require_whole("200 with an error, once");
}

#[test]
#[ignore = "needs S3 servers"]
fn credentials_that_expire_midway_are_told_and_what_is_left_is_cleared_later() {
    let bench = Bench::new();
    // From the second part on nothing is allowed any more, giving up least of all.
    bench.proxy.add(Rule::on(Verb::UploadPart, answer(400, "ExpiredToken")).skip(1).forever());
    bench.proxy.add(Rule::on(Verb::AbortUpload, answer(400, "ExpiredToken")).forever());
    let run = bench.run(KEPT);
    require_clear_failure(&run, &[5], &bench.server);
    assert!(run.stderr().contains("ExpiredToken") && run.stderr().contains("get new ones"), "{}", run.transcript());
    assert!(run.stderr().contains("stays until 'prune' clears it"), "{}", run.transcript());
    assert_eq!(bench.ids(), [""; 0]);
    assert!(bench.unfinished_bytes() > 0, "what could not be given up is found");
    assert_eq!(bench.unfinished_bytes(), 0, "and was cleared");
}

#[test]
#[ignore = "needs S3 servers"]
fn user_who_may_not_write_is_told() {
    let bench = Bench::new();
    let mut command = bench.command(KEPT, &bench.direct_url());
    command.env("AWS_ACCESS_KEY_ID", bench.server.limited_access_key.as_ref().unwrap());
    command.env("AWS_SECRET_ACCESS_KEY", bench.server.limited_secret_key.as_ref().unwrap());
    let run = bench.sandbox.finish(command);
    require_clear_failure(&run, &[5], &bench.server);
    assert!(run.stderr().contains("AccessDenied"), "{}", run.transcript());
    bench.require_nothing("limited");
}

#[test]
#[ignore = "needs S3 servers"]
fn flaky_service_gets_a_whole_snapshot() {
    for seed in 1..=3 {
        let bench = Bench::new();
        bench.proxy.flaky(seed, 20);
        let store = bench.url_with("part_size=5MiB&timeout=2s&retries=8");
        let run = bench.sandbox.finish(bench.command(KEPT, &store)).code(0);
        bench.proxy.clear();
        bench.require_whole(&format!("flaky {seed}\n{}", run.transcript()));
    }
}
