//! Several runs at the same time, with the same database or the same new name.

use super::common::{Mode, Setup, Target, Watcher, content, copying_condition, require_same};
use crate::support::postgres::server;

#[test]
#[ignore = "needs PostgreSQL"]
fn snapshots_at_the_same_time_are_all_complete() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("two_snapshots", 10);
    setup.snapshot(&source.url());
    let url = source.url();
    let runs: Vec<_> = (0..3).map(|_| setup.start(&["snapshot", &url])).collect();
    for run in runs {
        setup.finish(run).code(0);
    }
    let ids = setup.ids();
    assert_eq!(ids.len(), 4);
    setup.require_store(&ids);
    let digests: Vec<_> = ids.iter().map(|id| setup.json(&["show", id])["tables"].clone()).collect();
    assert!(digests.iter().all(|tables| *tables == digests[0]));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn one_of_several_restores_to_the_same_new_name_succeeds() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("two_restores", 8);
    let id = setup.snapshot(&source.url());
    let target = Target::new(Mode::Create, &source);
    let url = target.database.url();
    let runs: Vec<_> = (0..3).map(|_| setup.start(&target.arguments(&id, &url))).collect();
    let runs: Vec<_> = runs.into_iter().map(|run| setup.finish(run)).collect();
    let succeeded = runs.iter().filter(|run| run.exit() == 0).count();
    let transcripts: String = runs.iter().map(|run| run.transcript()).collect();
    assert_eq!(succeeded, 1, "{transcripts}");
    for run in runs.iter().filter(|run| run.exit() != 0) {
        assert!(run.stderr().contains("already"), "{transcripts}");
    }
    require_same(&content(&server, &target.database.name), &content(&server, &source.name));
    assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn two_restores_of_one_database_at_the_same_time_both_succeed() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("two_replaces", 8);
    let id = setup.snapshot(&source.url());
    let target = Target::new(Mode::Replace, &source);
    let url = target.database.url();
    let arguments = [target.arguments(&id, &url), vec!["--no-safety"]].concat();
    let runs: Vec<_> = (0..2).map(|_| setup.start(&arguments)).collect();
    for run in runs {
        setup.finish(run).code(0);
    }
    require_same(&content(&server, &target.database.name), &content(&server, &source.name));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_during_a_restore_has_the_old_or_the_new_rows() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("during", 40);
    let id = setup.snapshot(&source.url());
    let new = setup.json(&["show", &id])["tables"].clone();
    let target = Target::new(Mode::Replace, &source);
    let url = target.database.url();
    let old = setup.json(&["snapshot", &url, "--name", "during"])["snapshots"][0]["tables"].clone();
    assert_ne!(old, new);
    let mut watcher = Watcher::new(&server);
    let mut running = setup.start(&[target.arguments(&id, &url), vec!["--no-safety"]].concat());
    let is_copying = watcher.wait_until_or_end(&copying_condition(&target.database.name, 1), &mut running);
    assert!(is_copying, "it ended too early");
    // The restore has emptied the tables in a transaction that is not committed yet. The snapshot waits for its lock,
    // and the error names the application that holds it.
    let run = setup.run(&["snapshot", &url, "--name", "during", "--lock-timeout", "0"]);
    if run.exit() != 0 {
        let run = run.code(1);
        assert!(run.stderr().contains("application lifeboat"), "{}", run.transcript());
    }
    let during = setup.json(&["snapshot", &url, "--name", "during"])["snapshots"][0]["tables"].clone();
    setup.finish(running).code(0);
    let after = setup.json(&["snapshot", &url, "--name", "during"])["snapshots"][0]["tables"].clone();
    assert!(during == old || during == new, "{during}");
    assert_eq!(after, new);
}
