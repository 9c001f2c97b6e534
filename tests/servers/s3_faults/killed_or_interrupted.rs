//! Uploads and downloads that are killed, or interrupted by Ctrl-C.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::bench::Setup;
use crate::support::Running;
use crate::support::s3_proxy::{Action, Rule, Verb};

/// Waits until the program has sent this number of requests with a verb. It must not end before that.
fn wait_for_requests(setup: &Setup, running: &mut Running, verb: Verb, count: usize) {
    let start = Instant::now();
    while setup.proxy.count(verb) < count {
        assert!(!running.has_ended(), "the program ended before that");
        assert!(start.elapsed() < Duration::from_secs(30), "no {verb:?} request arrived");
        std::thread::yield_now();
    }
}

/// The moments at which a snapshot stalls: a verb, and the number of its requests that succeed before.
const MOMENTS: &[(Verb, u32)] =
    &[(Verb::CreateUpload, 0), (Verb::UploadPart, 0), (Verb::UploadPart, 2), (Verb::CompleteUpload, 0), (Verb::Put, 0)];

#[test]
#[ignore = "needs S3 servers"]
fn a_killed_upload_leaves_no_listed_snapshot() {
    for (verb, skip) in MOMENTS {
        let setup = Setup::new();
        setup.proxy.add(Rule::on(*verb, Action::StallRequest).skip(*skip).forever());
        let mut running = setup.start(&["snapshot", "app.db"]);
        wait_for_requests(&setup, &mut running, *verb, *skip as usize + 1);
        running.signal(Signal::KILL);
        assert_eq!(running.finish().exit(), 137);
        assert_eq!(setup.ids(), [""; 0], "{verb:?}");
        // The unfinished upload that it left is found and removed.
        setup.clear_unfinished_uploads();
        assert_eq!(setup.clear_unfinished_uploads(), 0, "{verb:?}");
        // The next snapshot succeeds.
        setup.direct(&["snapshot", "app.db"]).code(0);
        setup.require_one_good_snapshot(&format!("{verb:?}"));
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn an_interrupted_upload_ends_soon_and_leaves_nothing() {
    for (verb, skip) in MOMENTS {
        let setup = Setup::new();
        setup.proxy.add(Rule::on(*verb, Action::StallRequest).skip(*skip).forever());
        let mut running = setup.start(&["snapshot", "app.db"]);
        wait_for_requests(&setup, &mut running, *verb, *skip as usize + 1);
        let start = Instant::now();
        running.signal(Signal::INT);
        let run = running.finish();
        assert_eq!(run.exit(), 130, "{}", run.transcript());
        assert!(start.elapsed() < Duration::from_secs(8), "{verb:?} took {:?}", start.elapsed());
        assert_eq!(setup.ids(), [""; 0], "{verb:?}");
        assert_eq!(setup.clear_unfinished_uploads(), 0, "{verb:?}: the upload must be aborted");
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn an_interrupted_restore_ends_soon_and_leaves_nothing() {
    let setup = Setup::new();
    setup.direct(&["snapshot", "app.db"]).code(0);
    let before = setup.sandbox.state();
    setup.proxy.reset();
    setup.proxy.add(Rule::on(Verb::Get, Action::StallRequest).key(".tar.").skip(2).forever());
    let mut running = setup.start(&["restore", "latest", "--source", "app", "--to", "back.db"]);
    wait_for_requests(&setup, &mut running, Verb::Get, 4);
    let start = Instant::now();
    running.signal(Signal::INT);
    let run = running.finish();
    assert_eq!(run.exit(), 130, "{}", run.transcript());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(setup.sandbox.state(), before);
}
