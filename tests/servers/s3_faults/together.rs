//! Two hosts that take snapshots while a third one prunes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rusqlite::Connection;

use crate::support::Sandbox;
use crate::support::s3::{S3Server, s3_server};

const SNAPSHOTS_PER_HOST: usize = 50;

fn save_and_prune(server: &S3Server) {
    let sandbox = Sandbox::new();
    let store = server.new_store();
    for host in ["one", "two"] {
        let database = Connection::open(sandbox.path(format!("{host}.db"))).unwrap();
        database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1), (2);").unwrap();
    }
    server.run(&sandbox, &["snapshot", "one.db", "--store", &store]).code(0);
    let working = AtomicUsize::new(2);
    let save = |host: &str| {
        let mut ids = Vec::new();
        for _ in 0..SNAPSHOTS_PER_HOST {
            let file = format!("{}.db", &host[5..]);
            let run =
                server.run(&sandbox, &["snapshot", &file, "--host", host, "--name", host, "--store", &store, "--json"]);
            assert_eq!(run.exit(), 0, "{}", run.transcript());
            ids.push(run.json()["snapshots"][0]["id"].as_str().unwrap().to_owned());
        }
        working.fetch_sub(1, Ordering::SeqCst);
        ids
    };
    let prune = || {
        let mut prunes = 0;
        while working.load(Ordering::SeqCst) > 0 {
            server.run(&sandbox, &["prune", "--keep-last", "2", "--yes", "--store", &store]).code(0);
            prunes += 1;
        }
        prunes
    };
    // The first snapshot has its own source. Each of the two hosts also has a source of its own.
    let (first, second, prunes) = thread::scope(|scope| {
        let first = scope.spawn(|| save("host-one"));
        let second = scope.spawn(|| save("host-two"));
        let pruning = scope.spawn(prune);
        (first.join().unwrap(), second.join().unwrap(), pruning.join().unwrap())
    });
    assert!(prunes > 1, "only {prunes} prunes ran at the same time");
    for ids in [first, second] {
        let source = ids[0].rsplitn(3, '-').last().unwrap().to_owned();
        let listed = server.run(&sandbox, &["list", "--source", &source, "--store", &store, "--json"]).code(0).json();
        let listed: Vec<&str> =
            listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        // The newest two snapshots of each host are listed, and all listed snapshots are undamaged.
        assert!(ids.iter().rev().take(2).all(|id| listed.contains(&id.as_str())), "{listed:?}\n{ids:?}");
    }
    server.run(&sandbox, &["verify", "--all", "--store", &store]).code(0);
}

#[test]
#[ignore = "needs S3 servers"]
fn snapshots_and_prunes_at_the_same_time_lose_nothing_on_seaweedfs() {
    save_and_prune(&s3_server("seaweedfs"));
}

#[test]
#[ignore = "needs S3 servers"]
fn snapshots_and_prunes_at_the_same_time_lose_nothing_on_ceph() {
    save_and_prune(&s3_server("ceph"));
}
