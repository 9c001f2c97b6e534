//! The server, a session or the program itself dies at work. All of it on servers of one's own.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::{
    MODES, Mode, Scene, Target, Watcher, content, copying, require_same, require_told, session, without_sequences,
};
use crate::support::postgres::{PrivateServer, server};

#[test]
#[ignore = "needs PostgreSQL"]
fn server_killed_at_work_costs_nothing_but_the_run() {
    let server = PrivateServer::start(18);
    let scene = Scene::new(&server);
    let source = scene.bank("killed", 60);
    let id = scene.snapshot(&source.url());
    let kept = content(&server, &source.name);

    let mut running = scene.start(&["snapshot", &source.url()]);
    let met = Watcher::new(&server).until_or_end(&copying(&source.name, 1), &mut running);
    assert!(met, "too quick");
    server.kill();
    let run = scene.finish(running).code(5);
    require_told(&run, &["no snapshot of"]);
    server.start_again();
    require_same(&without_sequences(&content(&server, &source.name)), &without_sequences(&kept));
    scene.require_store(std::slice::from_ref(&id));

    for mode in [Mode::Create, Mode::Empty, Mode::Replace, Mode::Swap, Mode::Beside] {
        let target = Target::new(mode, &source);
        let before = target.state();
        let url = target.database.url();
        let mut arguments = target.arguments(&id, &url);
        if mode == Mode::Replace {
            arguments.push("--no-safety");
        }
        let mut running = scene.start(&arguments);
        let place = if matches!(mode, Mode::Create | Mode::Swap) { "lifeboat_" } else { target.database.name.as_str() };
        let met = Watcher::new(&server).until_or_end(&copying(place, 1), &mut running);
        assert!(met, "{mode:?}: too quick");
        server.kill();
        let run = scene.finish(running).code(5);
        require_told(&run, &[]);
        server.start_again();
        let after = target.state();
        if mode == Mode::Empty {
            assert!(after.unwrap().1.starts_with("lifeboat: not finished"), "{}", run.transcript());
        } else {
            let rows =
                |state: super::common::State| state.map(|(content, comment)| (without_sequences(&content), comment));
            assert_eq!(rows(after), rows(before), "{mode:?}\n{}", run.transcript());
        }
        // Nobody was there to drop it.
        let is_left = scene.leftovers().iter().any(|row| row[0].starts_with("lifeboat_"));
        assert!(is_left || !matches!(mode, Mode::Create | Mode::Swap), "{mode:?}\n{}", run.transcript());
    }
    // What could not be dropped is dropped by the next run, all but the database that was there before.
    let target = Target::new(Mode::Create, &source);
    let run = scene.ok(&target.arguments(&id, &target.database.url()));
    assert!(run.stderr().contains("dropped lifeboat_"), "{}", run.transcript());
    require_same(&content(&server, &target.database.name), &kept);
    assert!(scene.leftovers().iter().all(|row| !row[0].starts_with("lifeboat_")), "{:?}", scene.leftovers());
    scene.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn session_that_is_ended_ends_the_run_and_nothing_else() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("ended", 90);
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    let mut admin = session(&server, "postgres", "admin");
    // The session that holds the locks was there first. Of those that copy, the one that began last has the most before it:
    // one that has just copied its last is missed by nobody.
    for (who, which) in [
        ("main", "ORDER BY backend_start"),
        ("worker", "AND state = 'active' AND query LIKE 'COPY %' ORDER BY query_start DESC"),
    ] {
        let mut running = scene.start(&["snapshot", &source.url(), "--jobs", "3"]);
        assert!(watcher.until_or_end(&copying(&source.name, 1), &mut running), "too quick");
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = '{}' AND application_name = 'lifeboat' {which} LIMIT 1",
            source.name
        );
        // Between two tables nobody copies for a moment.
        let ended = (0..1000).find(|_| !admin.rows(&end).unwrap().is_empty());
        assert!(ended.is_some(), "{who}");
        let run = scene.finish(running).code(5);
        require_told(&run, &["no snapshot of", "connection"]);
        watcher.until_left(&source.name);
    }
    for mode in [Mode::Create, Mode::Empty, Mode::Replace, Mode::Beside] {
        let target = Target::new(mode, &source);
        let before = target.state();
        let url = target.database.url();
        let mut arguments = target.arguments(&id, &url);
        if mode == Mode::Replace {
            arguments.push("--no-safety");
        }
        let mut running = scene.start(&arguments);
        let place = if mode == Mode::Create { scratch_of(&scene, &mut watcher) } else { target.database.name.clone() };
        assert!(watcher.until_or_end(&copying(&place, 1), &mut running), "{mode:?}: too quick");
        let ended = admin.rows(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
              WHERE datname = '{place}' AND application_name = 'lifeboat' AND query LIKE 'COPY %' LIMIT 1"
        ));
        assert_eq!(ended.unwrap().len(), 1, "{mode:?}");
        let run = scene.finish(running).code(5);
        // Whether the server's last word has come through is a matter of luck.
        require_told(&run, &["connection"]);
        watcher.until_left(&target.database.name);
        assert_eq!(target.state(), before, "{mode:?}\n{}", run.transcript());
        assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}\n{}", run.transcript());
    }
    scene.require_store(&[id]);
}

/// The scratch database that this scene's run has made.
fn scratch_of(scene: &Scene, watcher: &mut Watcher) -> String {
    watcher.until(&format!(
        "SELECT count(*) > 0 FROM pg_database
          WHERE shobj_description(oid, 'pg_database') LIKE 'lifeboat: not finished %\"host\":\"{}\"%'",
        scene.host
    ));
    scene.leftovers()[0][0].clone()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn kill_9_at_any_moment_of_a_snapshot_lists_nothing_new() {
    let server = server(13);
    let scene = Scene::new(&server);
    let source = scene.bank("kill_snapshot", 30);
    let mut ids = vec![scene.snapshot(&source.url())];
    let clock = Instant::now();
    ids.insert(0, scene.snapshot(&source.url()));
    let span = clock.elapsed();
    let mut watcher = Watcher::new(&server);
    for part in 1..10 {
        let running = scene.start(&["snapshot", &source.url()]);
        std::thread::sleep(span.mul_f64(f64::from(part) / 10.0));
        running.signal(Signal::KILL);
        let run = scene.finish(running);
        watcher.until_left(&source.name);
        assert!(run.exit() == 0 || run.exit() == 128 + 9, "{}", run.transcript());
        // One that was published at the last moment is there, and whole, as is seen in the end.
        let now = scene.ids();
        assert!(now == ids || now[1..] == ids && run.stderr().is_empty(), "{now:?}\n{}", run.transcript());
        ids = now;
    }
    ids.insert(0, scene.snapshot(&source.url()));
    assert_eq!(scene.ids(), ids);
    scene.ok(&["verify", "--all"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn kill_9_at_any_moment_of_a_restore_leaves_what_was_there_or_all() {
    let server = PrivateServer::start(18);
    let scene = Scene::new(&server);
    let source = scene.bank("kill_restore", 6);
    // The mark must outlast the comment that comes back with the database.
    server.psql("postgres", format!("COMMENT ON DATABASE \"{}\" IS 'the bank'", source.name));
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    let unmarked = "SELECT count(*) = 0 FROM pg_database WHERE starts_with(datname, 'lifeboat_')
                       AND coalesce(shobj_description(oid, 'pg_database'), '') NOT LIKE 'lifeboat: not finished%'";
    let (mut died, mut left, mut nameless) = (0, 0, 0usize);
    for mode in MODES {
        let measured = Target::new(mode, &source);
        let clock = Instant::now();
        scene.ok(&measured.arguments(&id, &measured.database.url()));
        let span = clock.elapsed();
        let new = measured.state();
        drop(measured);
        let mut target = Target::new(mode, &source);
        let mut before = target.state();
        for part in 0..8 {
            let url = target.database.url();
            let running = scene.start(&target.arguments(&id, &url));
            std::thread::sleep(span.mul_f64((f64::from(part) + 0.5) / 8.0));
            running.signal(Signal::KILL);
            let run = scene.finish(running);
            let told = format!("{mode:?}, {part} of 8 parts of {span:?}\n{}", run.transcript());
            // What it has asked the server for may still come to its end.
            watcher.until("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'lifeboat'");
            let after = target.state();
            died += u32::from(run.exit() != 0);
            let is_marked = after.as_ref().is_some_and(|state| state.1.starts_with("lifeboat: not finished"));
            if after == before || mode == Mode::Empty && is_marked {
                assert!(run.exit() != 0, "{told}");
            } else {
                // It had come to its end, but for the word of it.
                assert_eq!(after, new, "{told}");
            }
            // One that was being made: its name must be enough.
            nameless += usize::from(!watcher.holds(unmarked));
            left += scene.leftovers().iter().filter(|row| row[0].starts_with("lifeboat_")).count();
            if after != before {
                target = Target::new(mode, &source);
                before = target.state();
            }
        }
        // The next run finds what the others have left.
        drop(target);
        let target = Target::new(Mode::Create, &source);
        let run = scene.ok(&target.arguments(&id, &target.database.url()));
        assert!(
            watcher.holds("SELECT count(*) = 0 FROM pg_database WHERE starts_with(datname, 'lifeboat_')"),
            "{mode:?}: scratch databases are left\n{:?}\n{}",
            server.query("postgres", "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"),
            run.transcript()
        );
    }
    eprintln!(
        "{died} runs have died, {left} times one has left a marked database, {nameless} times one without a mark"
    );
    assert!(died > 24 && left + nameless > 3, "{died} runs have died, {left} databases were left");
    assert_eq!(scene.ids(), [id]);
    scene.ok(&["verify", "--all"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn second_interrupt_ends_it_at_once_and_the_next_run_clears_up() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("twice", 40);
    let id = scene.snapshot(&source.url());
    let target = Target::new(Mode::Create, &source);
    let url = target.database.url();
    let mut running = scene.start(&target.arguments(&id, &url));
    let scratch = scratch_of(&scene, &mut Watcher::new(&server));
    assert!(Watcher::new(&server).until_or_end(&copying(&scratch, 1), &mut running), "too quick");
    running.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(1));
    running.signal(Signal::TERM);
    scene.finish(running).code(130);
    assert_eq!(target.state(), None);
    Watcher::new(&server).until_left(&scratch);
    scene.ok(&target.arguments(&id, &url));
    assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new());
}
