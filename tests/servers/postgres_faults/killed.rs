//! The server, a session or the program is killed during a run. Servers that are killed are private to the test.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::{
    MODES, Mode, Setup, Target, Watcher, content, copying_condition, require_error, require_same, session,
    without_sequences,
};
use crate::support::postgres::{PrivateServer, server};

#[test]
#[ignore = "needs PostgreSQL"]
fn a_killed_server_fails_the_run_and_damages_nothing() {
    let server = PrivateServer::start(18);
    let setup = Setup::new(&server);
    let source = setup.bank("killed", 60);
    let id = setup.snapshot(&source.url());
    let saved = content(&server, &source.name);

    let mut running = setup.start(&["snapshot", &source.url()]);
    let is_copying = Watcher::new(&server).wait_until_or_end(&copying_condition(&source.name, 1), &mut running);
    assert!(is_copying, "it ended too early");
    server.kill();
    let run = setup.finish(running).code(5);
    require_error(&run, &["no snapshot of"]);
    server.start_again();
    require_same(&without_sequences(&content(&server, &source.name)), &without_sequences(&saved));
    setup.require_store(std::slice::from_ref(&id));

    for mode in [Mode::Create, Mode::Empty, Mode::Replace, Mode::Swap, Mode::Beside] {
        let target = Target::new(mode, &source);
        let before = target.state();
        let url = target.database.url();
        let mut arguments = target.arguments(&id, &url);
        if mode == Mode::Replace {
            arguments.push("--no-safety");
        }
        let mut running = setup.start(&arguments);
        let in_scratch = matches!(mode, Mode::Create | Mode::Swap);
        let database = if in_scratch { "lifeboat_" } else { target.database.name.as_str() };
        let is_copying = Watcher::new(&server).wait_until_or_end(&copying_condition(database, 1), &mut running);
        assert!(is_copying, "{mode:?}: it ended too early");
        server.kill();
        let run = setup.finish(running).code(5);
        require_error(&run, &[]);
        server.start_again();
        let after = target.state();
        if mode == Mode::Empty {
            assert!(after.unwrap().1.starts_with("lifeboat: not finished"), "{}", run.transcript());
        } else {
            let stable =
                |state: super::common::State| state.map(|(content, comment)| (without_sequences(&content), comment));
            assert_eq!(stable(after), stable(before), "{mode:?}\n{}", run.transcript());
        }
        // The scratch database is left, because the server was not running when the program ended.
        let is_left = setup.leftovers().iter().any(|row| row[0].starts_with("lifeboat_"));
        assert!(is_left || !matches!(mode, Mode::Create | Mode::Swap), "{mode:?}\n{}", run.transcript());
    }
    // The next run drops the scratch databases that were left, but not the database that existed before.
    let target = Target::new(Mode::Create, &source);
    let run = setup.ok(&target.arguments(&id, &target.database.url()));
    assert!(run.stderr().contains("dropped lifeboat_"), "{}", run.transcript());
    require_same(&content(&server, &target.database.name), &saved);
    assert!(setup.leftovers().iter().all(|row| !row[0].starts_with("lifeboat_")), "{:?}", setup.leftovers());
    setup.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_session_that_the_server_ends_fails_the_run_and_changes_nothing() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("ended", 90);
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    let mut admin = session(&server, "postgres", "admin");
    // The oldest session is the main one, which holds the locks. Of the sessions that copy, the one whose query began
    // last is chosen, because it has the most to do: a session that has copied its last row may end without an effect.
    for (session_kind, condition) in [
        ("main", "ORDER BY backend_start"),
        ("worker", "AND state = 'active' AND query LIKE 'COPY %' ORDER BY query_start DESC"),
    ] {
        let mut running = setup.start(&["snapshot", &source.url(), "--jobs", "3"]);
        assert!(watcher.wait_until_or_end(&copying_condition(&source.name, 1), &mut running), "it ended too early");
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = '{}' AND application_name = 'lifeboat' {condition} LIMIT 1",
            source.name
        );
        // Between two tables, there is a moment without a session that copies.
        let ended = (0..1000).find(|_| !admin.rows(&end).unwrap().is_empty());
        assert!(ended.is_some(), "{session_kind}");
        let run = setup.finish(running).code(5);
        require_error(&run, &["no snapshot of", "connection"]);
        watcher.wait_until_disconnected(&source.name);
    }
    for mode in [Mode::Create, Mode::Empty, Mode::Replace, Mode::Beside] {
        let target = Target::new(mode, &source);
        let before = target.state();
        let url = target.database.url();
        let mut arguments = target.arguments(&id, &url);
        if mode == Mode::Replace {
            arguments.push("--no-safety");
        }
        let mut running = setup.start(&arguments);
        let database = match mode {
            Mode::Create => wait_for_scratch_database(&setup, &mut watcher),
            _ => target.database.name.clone(),
        };
        let is_copying = watcher.wait_until_or_end(&copying_condition(&database, 1), &mut running);
        assert!(is_copying, "{mode:?}: it ended too early");
        let ended = admin.rows(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = '{database}' AND application_name = 'lifeboat' AND query LIKE 'COPY %' LIMIT 1"
        ));
        assert_eq!(ended.unwrap().len(), 1, "{mode:?}");
        let run = setup.finish(running).code(5);
        // The last message of the server may be lost, so only the word `connection` is required.
        require_error(&run, &["connection"]);
        watcher.wait_until_disconnected(&target.database.name);
        assert_eq!(target.state(), before, "{mode:?}\n{}", run.transcript());
        assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}\n{}", run.transcript());
    }
    setup.require_store(&[id]);
}

/// Waits until a run of this test has created its scratch database, and returns its name.
fn wait_for_scratch_database(setup: &Setup, watcher: &mut Watcher) -> String {
    watcher.wait_until(&format!(
        "SELECT count(*) > 0 FROM pg_database
          WHERE shobj_description(oid, 'pg_database') LIKE 'lifeboat: not finished %\"host\":\"{}\"%'",
        setup.host
    ));
    setup.leftovers()[0][0].clone()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_snapshot_killed_at_any_moment_leaves_an_undamaged_store() {
    let server = server(13);
    let setup = Setup::new(&server);
    let source = setup.bank("kill_snapshot", 30);
    let mut ids = vec![setup.snapshot(&source.url())];
    let start = Instant::now();
    ids.insert(0, setup.snapshot(&source.url()));
    let duration = start.elapsed();
    let mut watcher = Watcher::new(&server);
    for part in 1..10 {
        let running = setup.start(&["snapshot", &source.url()]);
        std::thread::sleep(duration.mul_f64(f64::from(part) / 10.0));
        running.signal(Signal::KILL);
        let run = setup.finish(running);
        watcher.wait_until_disconnected(&source.name);
        assert!(run.exit() == 0 || run.exit() == 128 + 9, "{}", run.transcript());
        // A snapshot that was published just before the kill is listed. The verification at the end checks it.
        let now = setup.ids();
        assert!(now == ids || now[1..] == ids && run.stderr().is_empty(), "{now:?}\n{}", run.transcript());
        ids = now;
    }
    ids.insert(0, setup.snapshot(&source.url()));
    assert_eq!(setup.ids(), ids);
    setup.ok(&["verify", "--all"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_restore_killed_at_any_moment_leaves_the_old_or_the_restored_database() {
    let server = PrivateServer::start(18);
    let setup = Setup::new(&server);
    let source = setup.bank("kill_restore", 6);
    // The restore of this comment must not overwrite the mark of a scratch database.
    server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS 'the bank'", source.name));
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    let all_are_marked = "SELECT count(*) = 0 FROM pg_database WHERE starts_with(datname, 'lifeboat_')
                       AND coalesce(shobj_description(oid, 'pg_database'), '') NOT LIKE 'lifeboat: not finished%'";
    let (mut killed_runs, mut marked, mut unmarked) = (0, 0, 0usize);
    for mode in MODES {
        let measured = Target::new(mode, &source);
        let start = Instant::now();
        setup.ok(&measured.arguments(&id, &measured.database.url()));
        let duration = start.elapsed();
        let new = measured.state();
        drop(measured);
        let mut target = Target::new(mode, &source);
        let mut before = target.state();
        for part in 0..8 {
            let url = target.database.url();
            let running = setup.start(&target.arguments(&id, &url));
            std::thread::sleep(duration.mul_f64((f64::from(part) + 0.5) / 8.0));
            running.signal(Signal::KILL);
            let run = setup.finish(running);
            let context = format!("{mode:?}, {part} of 8 parts of {duration:?}\n{}", run.transcript());
            // A statement that the killed program has sent may still run on the server.
            watcher.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'lifeboat'");
            let after = target.state();
            killed_runs += u32::from(run.exit() != 0);
            let is_marked = after.as_ref().is_some_and(|state| state.1.starts_with("lifeboat: not finished"));
            if after == before || mode == Mode::Empty && is_marked {
                assert!(run.exit() != 0, "{context}");
            } else {
                // The restore was complete when the program was killed.
                assert_eq!(after, new, "{context}");
            }
            // A run that is killed between CREATE DATABASE and the mark leaves an unmarked database. The next run must
            // recognize it by its name.
            unmarked += usize::from(!watcher.holds(all_are_marked));
            marked += setup.leftovers().iter().filter(|row| row[0].starts_with("lifeboat_")).count();
            if after != before {
                target = Target::new(mode, &source);
                before = target.state();
            }
        }
        // The next run drops all scratch databases that were left.
        drop(target);
        let target = Target::new(Mode::Create, &source);
        let run = setup.ok(&target.arguments(&id, &target.database.url()));
        assert!(
            watcher.holds("SELECT count(*) = 0 FROM pg_database WHERE starts_with(datname, 'lifeboat_')"),
            "{mode:?}: scratch databases are left\n{:?}\n{}",
            server.query("postgres", "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"),
            run.transcript()
        );
    }
    eprintln!("{killed_runs} runs were killed; {marked} marked and {unmarked} unmarked databases were left");
    assert!(killed_runs > 24 && marked + unmarked > 3, "{killed_runs} runs were killed, {marked} databases were left");
    assert_eq!(setup.ids(), [id]);
    setup.ok(&["verify", "--all"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_second_signal_ends_the_run_at_once_and_the_next_run_drops_its_database() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("twice", 40);
    let id = setup.snapshot(&source.url());
    let target = Target::new(Mode::Create, &source);
    let url = target.database.url();
    let mut running = setup.start(&target.arguments(&id, &url));
    let scratch = wait_for_scratch_database(&setup, &mut Watcher::new(&server));
    let is_copying = Watcher::new(&server).wait_until_or_end(&copying_condition(&scratch, 1), &mut running);
    assert!(is_copying, "it ended too early");
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(1));
    running.signal(Signal::TERM);
    setup.finish(running).code(130);
    assert_eq!(target.state(), None);
    Watcher::new(&server).wait_until_disconnected(&scratch);
    setup.ok(&target.arguments(&id, &url));
    assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new());
}
