//! The way to the server breaks: cut, or silent. The proxy is what breaks it; the server is well.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::common::{MODES, Mode, Scene, Target, Watcher, copying, require_told};
use crate::support::postgres::{Server, server};
use crate::support::proxy::{Proxy, Trouble};

/// A database by way of a proxy.
fn by_way(server: &Server, proxy: &Proxy, database: &str) -> String {
    format!("postgres://{}:{}@127.0.0.1:{}/{database}", server.user, server.password, proxy.port)
}

#[test]
#[ignore = "needs PostgreSQL"]
fn connection_cut_at_any_point_of_a_snapshot_lists_nothing_new() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("cut_snapshot", 40);
    let id = scene.snapshot(&source.url());
    let before = scene.sandbox.state();
    let mut watcher = Watcher::new(&server);
    let whole = Proxy::start(server.port, Trouble::Never);
    let url = by_way(&server, &whole, &source.name);
    // To another name, since the port makes it another origin.
    scene.ok(&["snapshot", &url, "--name", "other", "--store", "elsewhere"]);
    let total = whole.passed();
    assert!(total > 40 << 20, "only {total} bytes have passed");
    let mut points: Vec<u64> = vec![0, 1, 100, 2000, 10_000, 40_000, 100_000];
    points.extend((1..8).map(|part| total / 8 * part));
    for point in points {
        let proxy = Proxy::start(server.port, Trouble::Cut(point));
        let url = format!("{}?sslmode=disable", by_way(&server, &proxy, &source.name));
        let run = scene.run(&["snapshot", &url, "--name", "other", "-vv"]);
        assert!(proxy.is_troubled(), "the connection was not cut at {point}\n{}", run.transcript());
        let run = run.code(5);
        require_told(&run, &[]);
        watcher.until_left(&source.name);
        let mut after = scene.sandbox.state();
        after.remove(std::path::Path::new("backups/other"));
        after.retain(|path, _| !path.starts_with("elsewhere"));
        assert_eq!(after, before, "cut at {point}");
    }
    scene.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn connection_cut_at_any_point_of_a_restore_leaves_what_was_there() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("cut_restore", 12);
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in MODES {
        let target = Target::new(mode, &source);
        let before = target.state();
        let whole = Proxy::start(server.port, Trouble::Never);
        // Only its length is wanted; what it does to the target is taken back.
        let measured = Target::new(mode, &source);
        scene.ok(&target.arguments(&id, &by_way(&server, &whole, &measured.database.name)));
        let total = whole.passed();
        for part in [1, 4, 8, 13, 15] {
            let proxy = Proxy::start(server.port, Trouble::Cut(total / 16 * part));
            let url = format!("{}?sslmode=disable", by_way(&server, &proxy, &target.database.name));
            let run = scene.run(&target.arguments(&id, &url));
            assert!(proxy.is_troubled(), "{mode:?} was not cut\n{}", run.transcript());
            let run = run.code(5);
            let told = format!("{mode:?} cut at {part}/16 of {total}\n{}", run.transcript());
            watcher.until_left(&target.database.name);
            let after = target.state();
            if mode == Mode::Empty && after != before {
                // It could not be cleared, and says so itself.
                let (_, comment) = after.unwrap();
                assert!(comment.starts_with("lifeboat: not finished"), "{comment}\n{told}");
                assert!(run.stderr().contains("is left incomplete"), "{told}");
                scene.fails(1, &target.arguments(&id, &target.database.url()), &["half of"]);
                scene.fails(3, &["snapshot", &target.database.url()], &["not whole"]);
                let name = &target.database.name;
                let again = format!(
                    "DROP DATABASE \"{name}\" WITH (FORCE); CREATE DATABASE \"{name}\" TEMPLATE template0;
                                     COMMENT ON DATABASE \"{name}\" IS 'as it was'"
                );
                again.split(';').for_each(|sql| drop(server.psql("postgres", sql)));
            } else {
                assert_eq!(after, before, "{told}");
            }
        }
        scene.ok(&target.arguments(&id, &target.database.url()));
        assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}");
    }
    scene.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn interrupt_ends_what_a_silent_connection_holds_up() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("stall", 40);
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    let target = Target::new(Mode::Create, &source);
    let replaced = Target::new(Mode::Replace, &source);
    let before = replaced.state();
    // Where new connections are silent too nobody can be told to stop, and that takes a moment longer.
    let stalls = [(Trouble::Stall as fn(u64) -> Trouble, 2), (Trouble::StallAll, 4)];
    for (stall, seconds) in stalls {
        for what in ["snapshot", "create", "replace"] {
            let proxy = Proxy::start(server.port, stall(8 << 20));
            let url = |name: &str| format!("{}?sslmode=disable", by_way(&server, &proxy, name));
            let (from, to, over) = (url(&source.name), url(&target.database.name), url(&replaced.database.name));
            let mut running = match what {
                "snapshot" => scene.start(&["snapshot", &from, "--name", "other"]),
                "create" => scene.start(&target.arguments(&id, &to)),
                _ => scene.start(&[replaced.arguments(&id, &over), vec!["--no-safety"]].concat()),
            };
            let clock = Instant::now();
            while !proxy.is_troubled() {
                assert!(clock.elapsed() < Duration::from_secs(60) && !running.has_ended());
                std::thread::sleep(Duration::from_millis(5));
            }
            let clock = Instant::now();
            running.signal(Signal::INT);
            let run = scene.finish(running).code(130);
            let took = clock.elapsed();
            assert!(took < Duration::from_secs(seconds), "{what}: it took {took:?} to stop\n{}", run.transcript());
            // A server that waits for its client hears nothing of a request to stop; it sees the connection end.
            drop(proxy);
            watcher.until_left(&source.name);
            watcher.until_left(&replaced.database.name);
            assert_eq!(replaced.state(), before, "{what}");
            assert_eq!(target.state(), None, "{what}");
        }
    }
    scene.require_store(std::slice::from_ref(&id));
    scene.ok(&target.arguments(&id, &target.database.url()));
    assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new());
}

#[test]
#[ignore = "needs PostgreSQL"]
fn interrupt_stops_what_the_server_is_at() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.server.create_database("slow");
    source.psql(
        "CREATE TABLE rows (id int); INSERT INTO rows SELECT generate_series(1, 40);
         CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_sleep(coalesce(current_setting('bank.pause', true), '0.5')::float); RETURN $1; END$$;
         SET bank.pause = '0'; CREATE INDEX ON rows (slow(id));",
    );
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in [Mode::Create, Mode::Empty] {
        let target = match mode {
            Mode::Create => server.reserve_database("slow_created"),
            _ => server.create_database("slow_filled"),
        };
        let url = target.url();
        let arguments = ["restore", &id, "--to", &url, "--create"];
        let mut running = scene.start(&arguments[..if mode == Mode::Create { 5 } else { 4 }]);
        let indexing = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'lifeboat'
                           AND state = 'active' AND query LIKE 'CREATE INDEX %slow(id)%'";
        assert!(watcher.until_or_end(indexing, &mut running), "too quick\n{}", scene.finish(running).transcript());
        let clock = Instant::now();
        running.signal(Signal::INT);
        let run = scene.finish(running).code(130);
        assert!(clock.elapsed() < Duration::from_secs(2), "it took {:?}\n{}", clock.elapsed(), run.transcript());
        assert!(!watcher.holds(indexing), "the server is still at it\n{}", run.transcript());
        assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new(), "{}", run.transcript());
        if mode == Mode::Empty {
            assert_eq!(target.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"), "0");
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn interrupt_takes_what_was_made_away_again() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("interrupted", 40);
    let id = scene.snapshot(&source.url());
    let mut watcher = Watcher::new(&server);
    for mode in MODES {
        let target = Target::new(mode, &source);
        let before = target.state();
        let url = target.database.url();
        let mut running = scene.start(&target.arguments(&id, &url));
        let place = match mode {
            // Its scratch database: which of those that others may make, only the mark would tell.
            Mode::Create | Mode::Swap => "lifeboat_".to_owned(),
            _ => target.database.name.clone(),
        };
        // A single small table is too quick to be met at work.
        if mode != Mode::Tables && watcher.until_or_end(&copying(&place, 1), &mut running) {
            running.signal(Signal::INT);
            let run = scene.finish(running).code(130);
            watcher.until_left(&target.database.name);
            assert_eq!(target.state(), before, "{mode:?}\n{}", run.transcript());
            assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}\n{}", run.transcript());
        }
    }
    scene.require_store(&[id]);
}
