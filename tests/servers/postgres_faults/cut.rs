//! The connection to the server breaks, or becomes silent. A proxy breaks it; the server itself works.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::{MODES, Mode, Setup, Target, Watcher, copying_condition, require_error};
use crate::support::postgres::{Server, server};
use crate::support::proxy::{Proxy, Trouble};

/// Returns the URL of a database through a proxy.
fn url_through(server: &Server, proxy: &Proxy, database: &str) -> String {
    format!("postgres://{}:{}@127.0.0.1:{}/{database}", server.user, server.password, proxy.port)
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_connection_cut_at_any_point_of_a_snapshot_lists_nothing_new() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("cut_snapshot", 40);
    let id = setup.snapshot(&source.url());
    let before = setup.sandbox.state();
    let mut watcher = Watcher::new(&server);
    let uncut = Proxy::start(server.port, Trouble::Never);
    let url = url_through(&server, &uncut, &source.name);
    // The port of the proxy makes it another origin, so the snapshot needs another source name.
    setup.ok(&["snapshot", &url, "--name", "other", "--store", "elsewhere"]);
    let total = uncut.passed();
    assert!(total > 40 << 20, "only {total} bytes have passed");
    let mut points: Vec<u64> = vec![0, 1, 100, 2000, 10_000, 40_000, 100_000];
    points.extend((1..8).map(|part| total / 8 * part));
    for point in points {
        let proxy = Proxy::start(server.port, Trouble::Cut(point));
        let url = format!("{}?sslmode=disable", url_through(&server, &proxy, &source.name));
        let run = setup.run(&["snapshot", &url, "--name", "other", "-vv"]);
        assert!(proxy.is_troubled(), "the connection was not cut at {point}\n{}", run.transcript());
        let run = run.code(5);
        require_error(&run, &[]);
        watcher.wait_until_disconnected(&source.name);
        let mut after = setup.sandbox.state();
        after.remove(std::path::Path::new("backups/other"));
        after.retain(|path, _| !path.starts_with("elsewhere"));
        assert_eq!(after, before, "cut at {point}");
    }
    setup.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_connection_cut_at_any_point_of_a_restore_leaves_the_target_unchanged() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("cut_restore", 12);
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in MODES {
        let target = Target::new(mode, &source);
        let before = target.state();
        let uncut = Proxy::start(server.port, Trouble::Never);
        // This restore into another target only measures the number of bytes.
        let measured = Target::new(mode, &source);
        setup.ok(&target.arguments(&id, &url_through(&server, &uncut, &measured.database.name)));
        let total = uncut.passed();
        for part in [1, 4, 8, 13, 15] {
            let proxy = Proxy::start(server.port, Trouble::Cut(total / 16 * part));
            let url = format!("{}?sslmode=disable", url_through(&server, &proxy, &target.database.name));
            let run = setup.run(&target.arguments(&id, &url));
            assert!(proxy.is_troubled(), "{mode:?} was not cut\n{}", run.transcript());
            let run = run.code(5);
            let context = format!("{mode:?} cut at {part}/16 of {total}\n{}", run.transcript());
            watcher.wait_until_disconnected(&target.database.name);
            let after = target.state();
            if mode == Mode::Empty && after != before {
                // The restore could not empty the database again, so a comment marks it as incomplete.
                let (_, comment) = after.unwrap();
                assert!(comment.starts_with("lifeboat: not finished"), "{comment}\n{context}");
                assert!(run.stderr().contains("is left incomplete"), "{context}");
                setup.fails(1, &target.arguments(&id, &target.database.url()), &["only a part of"]);
                setup.fails(3, &["snapshot", &target.database.url()], &["the database is incomplete"]);
                let name = &target.database.name;
                let recreate = format!(
                    "DROP DATABASE \"{name}\" WITH (FORCE); CREATE DATABASE \"{name}\" TEMPLATE template0;
                                     COMMENT ON DATABASE \"{name}\" IS 'as it was'"
                );
                recreate.split(';').for_each(|sql| drop(server.psql("postgres", sql)));
            } else {
                assert_eq!(after, before, "{context}");
            }
        }
        setup.ok(&target.arguments(&id, &target.database.url()));
        assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}");
    }
    setup.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_interrupt_ends_a_run_whose_connection_is_silent() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("stall", 40);
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    let target = Target::new(Mode::Create, &source);
    let replaced = Target::new(Mode::Replace, &source);
    let before = replaced.state();
    // If new connections are silent too, the request to cancel does not arrive, and the end takes longer.
    let troubles = [(Trouble::Stall as fn(u64) -> Trouble, 2), (Trouble::StallAll, 4)];
    for (trouble, seconds) in troubles {
        for command in ["snapshot", "create", "replace"] {
            let proxy = Proxy::start(server.port, trouble(8 << 20));
            let url = |name: &str| format!("{}?sslmode=disable", url_through(&server, &proxy, name));
            let mut running = match command {
                "snapshot" => setup.start(&["snapshot", &url(&source.name), "--name", "other"]),
                "create" => setup.start(&target.arguments(&id, &url(&target.database.name))),
                _ => {
                    let url = url(&replaced.database.name);
                    setup.start(&[replaced.arguments(&id, &url), vec!["--no-safety"]].concat())
                }
            };
            let start = Instant::now();
            while !proxy.is_troubled() {
                assert!(start.elapsed() < Duration::from_secs(60) && !running.has_ended());
                std::thread::sleep(Duration::from_millis(5));
            }
            let start = Instant::now();
            running.signal(Signal::INT);
            let run = setup.finish(running).code(130);
            let took = start.elapsed();
            assert!(took < Duration::from_secs(seconds), "{command}: it took {took:?} to stop\n{}", run.transcript());
            // A server that waits for its client does not react to a request to cancel. It reacts to the end of the
            // connection.
            drop(proxy);
            watcher.wait_until_disconnected(&source.name);
            watcher.wait_until_disconnected(&replaced.database.name);
            assert_eq!(replaced.state(), before, "{command}");
            assert_eq!(target.state(), None, "{command}");
        }
    }
    setup.require_store(std::slice::from_ref(&id));
    setup.ok(&target.arguments(&id, &target.database.url()));
    assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_interrupt_cancels_the_statement_on_the_server() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.server.create_database("slow");
    source.psql(
        "CREATE TABLE rows (id int); INSERT INTO rows SELECT generate_series(1, 40);
         CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_sleep(coalesce(current_setting('bank.pause', true), '0.5')::float); RETURN $1; END$$;
         SET bank.pause = '0'; CREATE INDEX ON rows (slow(id));",
    );
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in [Mode::Create, Mode::Empty] {
        let target = match mode {
            Mode::Create => server.reserve_database("slow_created"),
            _ => server.create_database("slow_filled"),
        };
        let url = target.url();
        let arguments = ["restore", &id, "--to", &url, "--create"];
        let mut running = setup.start(&arguments[..if mode == Mode::Create { 5 } else { 4 }]);
        let indexing = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'lifeboat'
                           AND state = 'active' AND query LIKE 'CREATE INDEX %slow(id)%'";
        let is_indexing = watcher.wait_until_or_end(indexing, &mut running);
        assert!(is_indexing, "it ended too early\n{}", setup.finish(running).transcript());
        let start = Instant::now();
        running.signal(Signal::INT);
        let run = setup.finish(running).code(130);
        assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}\n{}", start.elapsed(), run.transcript());
        assert!(!watcher.holds(indexing), "the server still creates the index\n{}", run.transcript());
        assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new(), "{}", run.transcript());
        if mode == Mode::Empty {
            assert_eq!(target.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_interrupted_restore_undoes_its_changes() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("interrupted", 40);
    let id = setup.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in MODES {
        let target = Target::new(mode, &source);
        let before = target.state();
        let url = target.database.url();
        let mut running = setup.start(&target.arguments(&id, &url));
        let database = match mode {
            // The scratch database. Its full name is not known, and other tests may also have one.
            Mode::Create | Mode::Swap => "lifeboat_".to_owned(),
            _ => target.database.name.clone(),
        };
        // A restore of a single small table is too fast to be interrupted.
        if mode != Mode::Tables && watcher.wait_until_or_end(&copying_condition(&database, 1), &mut running) {
            running.signal(Signal::INT);
            let run = setup.finish(running).code(130);
            watcher.wait_until_disconnected(&target.database.name);
            assert_eq!(target.state(), before, "{mode:?}\n{}", run.transcript());
            assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}\n{}", run.transcript());
        }
    }
    setup.require_store(&[id]);
}
