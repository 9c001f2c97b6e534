//! Uploads to a service that fails.

use std::io::Write as _;
use std::time::{Duration, Instant};

use lifeboat::store::{Published, Store as _, StoreExt as _};

use super::bench::{Setup, require_clear_failure};
use crate::support::s3_proxy::{Action, Rule, Verb};

const SNAPSHOT: &[&str] = &["snapshot", "app.db"];

fn answer(status: u16, code: &'static str) -> Action {
    Action::Answer { status, code, retry_after: None }
}

/// Applies an action to the first request with each of these verbs, and requires that the upload still succeeds.
fn require_success_after_one(verbs: &[Verb], action: &Action) {
    let setup = Setup::new();
    for verb in verbs {
        setup.proxy.add(Rule::on(*verb, action.clone()));
    }
    let context = format!("{verbs:?} {action:?}");
    let run = setup.run(SNAPSHOT).code(0);
    for verb in verbs {
        assert!(setup.proxy.count(*verb) >= 2, "{context}: {verb:?} was not sent again\n{}", run.transcript());
    }
    setup.require_one_good_snapshot(&context);
}

const ALL: &[Verb] = &[Verb::Put, Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Head, Verb::List];

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_one_error_of_the_service() {
    require_success_after_one(ALL, &answer(500, "InternalError"));
    require_success_after_one(ALL, &answer(503, "SlowDown"));
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_too_many_requests() {
    require_success_after_one(ALL, &answer(429, "TooManyRequests"));
    require_success_after_one(
        &[Verb::Put, Verb::UploadPart],
        &Action::Answer { status: 429, code: "TooManyRequests", retry_after: Some(1) },
    );
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_waits_as_long_as_retry_after_says() {
    let setup = Setup::new();
    setup.proxy.add(Rule::on(Verb::UploadPart, Action::Answer { status: 503, code: "SlowDown", retry_after: Some(2) }));
    setup.run(SNAPSHOT).code(0);
    let parts: Vec<Instant> = setup
        .proxy
        .requests()
        .into_iter()
        .filter(|request| request.verb == Verb::UploadPart)
        .map(|request| request.at)
        .collect();
    let (first, last) = (parts.iter().min().unwrap(), parts.iter().max().unwrap());
    assert!(last.duration_since(*first) >= Duration::from_millis(1900), "{parts:?}");
    setup.require_one_good_snapshot("Retry-After");
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_a_connection_that_is_cut_before_a_request() {
    require_success_after_one(ALL, &Action::CutAtOnce);
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_a_connection_that_is_cut_within_a_request() {
    require_success_after_one(&[Verb::Put, Verb::UploadPart, Verb::CompleteUpload], &Action::CutRequest(100));
    require_success_after_one(&[Verb::UploadPart], &Action::CutRequest(3 << 20));
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_a_reply_that_is_cut() {
    require_success_after_one(&[Verb::List, Verb::CreateUpload, Verb::CompleteUpload], &Action::CutReply(20));
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_a_lost_reply() {
    // The service has done what was requested. The client sends the request again, and its condition on the write may
    // find the object that the client itself has written.
    for verb in [Verb::Put, Verb::UploadPart, Verb::CompleteUpload, Verb::CreateUpload] {
        require_success_after_one(&[verb], &Action::LoseReply);
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_whose_replies_are_all_lost_succeeds_if_the_object_exists() {
    for verb in [Verb::CompleteUpload, Verb::Put] {
        let setup = Setup::new();
        setup.proxy.add(Rule::on(verb, Action::LoseReply).forever());
        let run = setup.run(SNAPSHOT).code(0);
        assert!(run.stderr().contains("reply was lost"), "{}", run.transcript());
        setup.require_one_good_snapshot(&format!("{verb:?}"));
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_survives_one_request_without_an_answer() {
    require_success_after_one(&[Verb::UploadPart], &Action::StallRequest);
    require_success_after_one(&[Verb::CreateUpload, Verb::Put, Verb::Head], &Action::StallRequest);
}

#[test]
#[ignore = "needs S3 servers"]
fn a_service_that_does_not_support_conditions_is_written_to_without_them() {
    let setup = Setup::new();
    // The service refuses the condition once for the manifest, and once for the completion of the archive.
    setup.proxy.add(Rule::on(Verb::Put, answer(501, "NotImplemented")));
    setup.proxy.add(Rule::on(Verb::CompleteUpload, answer(501, "NotImplemented")));
    setup.run(SNAPSHOT).code(0);
    for verb in [Verb::Put, Verb::CompleteUpload] {
        let conditions: Vec<bool> = setup
            .proxy
            .requests()
            .iter()
            .filter(|request| request.verb == verb)
            .map(|request| request.header("if-none-match").is_some())
            .collect();
        assert_eq!(conditions, [true, false], "{verb:?}");
    }
    setup.require_one_good_snapshot("501");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_manifest_whose_write_is_confirmed_late_gives_a_complete_snapshot() {
    // The service has written the manifest, but all replies about it are lost. The run fails, and the snapshot exists.
    let setup = Setup::new();
    setup.proxy.add(Rule::on(Verb::Put, Action::LoseReply).forever());
    // Before it writes the manifest, a snapshot reads the mark twice, and tests twice that there is no manifest.
    for (verb, before) in [(Verb::Head, 2), (Verb::Get, 2)] {
        setup.proxy.add(Rule::on(verb, Action::CutAtOnce).key(".json").skip(before).forever());
    }
    let run = setup.run(SNAPSHOT);
    require_clear_failure(&run, &[5], &setup.server);
    assert!(run.stderr().contains("run 'lifeboat list'"), "{}", run.transcript());
    setup.require_one_good_snapshot("late");
}

#[test]
#[ignore = "needs S3 servers"]
fn parts_have_checksums_if_the_settings_say_so() {
    let setup = Setup::new();
    let store = setup.url_with("part_size=5MiB&checksums=when_supported");
    setup.sandbox.finish(setup.command(SNAPSHOT, &store)).code(0);
    let parts: Vec<bool> = setup
        .proxy
        .requests()
        .iter()
        .filter(|request| request.verb == Verb::UploadPart)
        .map(|request| request.header("x-amz-checksum-crc32").is_some())
        .collect();
    assert!(parts.len() > 3 && parts.iter().all(|has_checksum| *has_checksum), "{parts:?}");
    let create = setup.proxy.requests().into_iter().find(|request| request.verb == Verb::CreateUpload).unwrap();
    assert_eq!(create.header("x-amz-checksum-algorithm"), Some("CRC32"));
    setup.require_one_good_snapshot("checksums");
}

#[test]
#[ignore = "needs S3 servers"]
fn existing_objects_are_not_overwritten_on_a_service_that_ignores_conditions() {
    // The proxy removes the condition, as if the service ignored it. The client then checks for the object before it
    // writes.
    let setup = Setup::new();
    setup.proxy.sign_with(&setup.server.secret_key);
    setup.proxy.add(Rule::new(Action::DropHeader("if-none-match")).forever());
    setup.run(SNAPSHOT).code(0);
    setup.require_one_good_snapshot("conditions ignored");
    let doctor = setup.run(&["doctor"]).code(0);
    assert_eq!(doctor.stdout().matches("not supported: before a write").count(), 2, "{}", doctor.transcript());
    let store = setup.server.open(&setup.url());
    let key = "app/there.bin".parse().unwrap();
    assert_eq!(store.write(&key, b"first").unwrap(), Published::Created);
    assert_eq!(store.write(&key, b"second").unwrap(), Published::AlreadyExists);
    let mut upload = store.create_large(&key, 0).unwrap();
    upload.write_all(&vec![7; 11 << 20]).unwrap();
    assert_eq!(upload.finish().unwrap(), Published::AlreadyExists);
    assert_eq!(store.read(&key, 100).unwrap(), b"first");
}

/// Applies an action to all requests with a verb. Requires that the snapshot fails after a limited time and number of
/// requests, and leaves nothing. Returns stderr.
fn require_failure(verb: Verb, action: &Action, codes: &[i32]) -> String {
    let setup = Setup::new();
    let context = format!("{verb:?} {action:?}");
    setup.proxy.add(Rule::on(verb, action.clone()).forever());
    let start = Instant::now();
    let run = setup.run(SNAPSHOT);
    assert!(start.elapsed() < Duration::from_secs(60), "{context} took {:?}", start.elapsed());
    require_clear_failure(&run, codes, &setup.server);
    // The number of retries is limited.
    assert!(setup.proxy.count(verb) <= 4 * 6, "{context}: {} tries", setup.proxy.count(verb));
    if verb == Verb::Put {
        // The service may still complete the write of the manifest, so the archive is kept until the next prune.
        assert_eq!(setup.ids(), [""; 0], "{context}");
        assert_eq!(setup.clear_unfinished_uploads(), 0, "{context}");
    } else {
        setup.require_nothing_left(&context);
    }
    run.stderr()
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_fails_if_the_service_keeps_failing() {
    for verb in [Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Put] {
        let stderr = require_failure(verb, &answer(500, "InternalError"), &[5]);
        assert!(stderr.contains("500 InternalError"), "{stderr}");
    }
    let slow_down = Action::Answer { status: 503, code: "SlowDown", retry_after: Some(0) };
    let stderr = require_failure(Verb::UploadPart, &slow_down, &[5]);
    assert!(stderr.contains("try again later"), "{stderr}");
    require_failure(Verb::UploadPart, &answer(429, "TooManyRequests"), &[5]);
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_fails_if_all_connections_are_cut() {
    for verb in [Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Put] {
        require_failure(verb, &Action::CutAtOnce, &[5]);
    }
    require_failure(Verb::UploadPart, &Action::CutRequest(1 << 20), &[5]);
}

#[test]
#[ignore = "needs S3 servers"]
fn an_upload_fails_if_the_service_never_answers() {
    let stderr = require_failure(Verb::Put, &Action::StallRequest, &[5]);
    assert!(stderr.contains("did not answer in time"), "{stderr}");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_denied_write_is_reported_and_leaves_nothing() {
    for verb in [Verb::CreateUpload, Verb::UploadPart, Verb::CompleteUpload, Verb::Put] {
        let stderr = require_failure(verb, &answer(403, "AccessDenied"), &[5]);
        assert!(stderr.contains("403 AccessDenied") && stderr.contains("hint: "), "{stderr}");
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn a_part_that_the_service_has_lost_fails_the_snapshot() {
    let setup = Setup::new();
    setup.proxy.add(Rule::on(Verb::UploadPart, Action::LosePart).skip(1));
    let run = setup.run(SNAPSHOT);
    require_clear_failure(&run, &[1, 5], &setup.server);
    setup.require_nothing_left("a part was lost");
}

#[test]
#[ignore = "needs S3 servers"]
fn an_error_in_a_reply_with_status_200_is_an_error() {
    // If S3 fails late to join the parts, it answers with status 200 and an error in the body.
    for verb in [Verb::CompleteUpload, Verb::Put] {
        let setup = Setup::new();
        setup.proxy.add(Rule::on(verb, answer(200, "InternalError")).forever());
        let run = setup.run(SNAPSHOT);
        require_clear_failure(&run, &[1, 5], &setup.server);
        assert_eq!(setup.ids(), [""; 0]);
    }
    let setup = Setup::new();
    setup.proxy.add(Rule::on(Verb::CompleteUpload, answer(200, "InternalError")));
    setup.run(SNAPSHOT).code(0);
    setup.require_one_good_snapshot("200 with an error, once");
}

#[test]
#[ignore = "needs S3 servers"]
fn expired_credentials_are_reported_and_the_unfinished_upload_is_removed_later() {
    let setup = Setup::new();
    // From the second part on, all requests are refused, also the request to abort the upload.
    setup.proxy.add(Rule::on(Verb::UploadPart, answer(400, "ExpiredToken")).skip(1).forever());
    setup.proxy.add(Rule::on(Verb::AbortUpload, answer(400, "ExpiredToken")).forever());
    let run = setup.run(SNAPSHOT);
    require_clear_failure(&run, &[5], &setup.server);
    assert!(run.stderr().contains("ExpiredToken") && run.stderr().contains("get new ones"), "{}", run.transcript());
    assert!(run.stderr().contains("remains until 'prune' removes it"), "{}", run.transcript());
    assert_eq!(setup.ids(), [""; 0]);
    assert!(setup.clear_unfinished_uploads() > 0, "the unfinished upload must be found");
    assert_eq!(setup.clear_unfinished_uploads(), 0, "the unfinished upload must be removed");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_user_without_the_right_to_write_gets_an_error() {
    let setup = Setup::new();
    let mut command = setup.command(SNAPSHOT, &setup.direct_url());
    command.env("AWS_ACCESS_KEY_ID", setup.server.limited_access_key.as_ref().unwrap());
    command.env("AWS_SECRET_ACCESS_KEY", setup.server.limited_secret_key.as_ref().unwrap());
    let run = setup.sandbox.finish(command);
    require_clear_failure(&run, &[5], &setup.server);
    assert!(run.stderr().contains("AccessDenied"), "{}", run.transcript());
    setup.require_nothing_left("limited");
}

#[test]
#[ignore = "needs S3 servers"]
fn a_flaky_service_gets_a_complete_snapshot() {
    for seed in 1..=3 {
        let setup = Setup::new();
        setup.proxy.flaky(seed, 20);
        let store = setup.url_with("part_size=5MiB&timeout=2s&retries=8");
        let run = setup.sandbox.finish(setup.command(SNAPSHOT, &store)).code(0);
        setup.proxy.clear();
        setup.require_one_good_snapshot(&format!("flaky {seed}\n{}", run.transcript()));
    }
}
