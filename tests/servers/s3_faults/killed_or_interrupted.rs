//! A plug that is pulled, and Ctrl-C.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::bench::Bench;
use crate::support::Running;
use crate::support::s3_proxy::{Action, Rule, Verb};

/// Waits until the service was asked for such a thing; the run must not have ended before.
fn wait_for(bench: &Bench, running: &mut Running, verb: Verb, count: usize) {
    let begun = Instant::now();
    while bench.proxy.count(verb) < count {
        assert!(!running.has_ended(), "it has ended before");
        assert!(begun.elapsed() < Duration::from_secs(30), "{verb:?} was never asked for");
        std::thread::yield_now();
    }
}

/// The moments of a snapshot: a verb, and which of its requests hangs there.
const MOMENTS: &[(Verb, u32)] =
    &[(Verb::CreateUpload, 0), (Verb::UploadPart, 0), (Verb::UploadPart, 2), (Verb::CompleteUpload, 0), (Verb::Put, 0)];

#[test]
#[ignore = "needs S3 servers"]
fn killed_upload_leaves_nothing_listed() {
    for (verb, skip) in MOMENTS {
        let bench = Bench::new();
        bench.proxy.add(Rule::on(*verb, Action::StallRequest).skip(*skip).forever());
        let mut running = bench.start(&["snapshot", "app.db"]);
        wait_for(&bench, &mut running, *verb, *skip as usize + 1);
        running.signal(Signal::KILL);
        assert_eq!(running.finish().exit(), 137);
        assert_eq!(bench.ids(), [""; 0], "{verb:?}");
        // What it left is found, and cleared.
        bench.unfinished_bytes();
        assert_eq!(bench.unfinished_bytes(), 0, "{verb:?}");
        // Nothing stands in the way of the next one.
        bench.direct(&["snapshot", "app.db"]).code(0);
        bench.require_whole(&format!("{verb:?}"));
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn interrupted_upload_ends_soon_and_leaves_nothing_at_all() {
    for (verb, skip) in MOMENTS {
        let bench = Bench::new();
        bench.proxy.add(Rule::on(*verb, Action::StallRequest).skip(*skip).forever());
        let mut running = bench.start(&["snapshot", "app.db"]);
        wait_for(&bench, &mut running, *verb, *skip as usize + 1);
        let begun = Instant::now();
        running.signal(Signal::INT);
        let run = running.finish();
        assert_eq!(run.exit(), 130, "{}", run.transcript());
        assert!(begun.elapsed() < Duration::from_secs(8), "{verb:?} took {:?}", begun.elapsed());
        assert_eq!(bench.ids(), [""; 0], "{verb:?}");
        assert_eq!(bench.unfinished_bytes(), 0, "{verb:?}: the upload was given up");
    }
}

#[test]
#[ignore = "needs S3 servers"]
fn interrupted_restore_ends_soon_and_leaves_nothing() {
    let bench = Bench::new();
    bench.direct(&["snapshot", "app.db"]).code(0);
    let before = bench.sandbox.state();
    bench.proxy.reset();
    bench.proxy.add(Rule::on(Verb::Get, Action::StallRequest).key(".tar.").skip(2).forever());
    let mut running = bench.start(&["restore", "latest", "--source", "app", "--to", "back.db"]);
    wait_for(&bench, &mut running, Verb::Get, 4);
    let begun = Instant::now();
    running.signal(Signal::INT);
    let run = running.finish();
    assert_eq!(run.exit(), 130, "{}", run.transcript());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(bench.sandbox.state(), before);
}
