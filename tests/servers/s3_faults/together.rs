//! Two hosts that save and one that prunes, all at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rusqlite::Connection;

use crate::support::Sandbox;
use crate::support::s3::{S3Server, s3_server};

const ROUNDS: usize = 50;

fn play(server: &S3Server) {
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
        for _ in 0..ROUNDS {
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
        let mut rounds = 0;
        while working.load(Ordering::SeqCst) > 0 {
            server.run(&sandbox, &["prune", "--keep-last", "2", "--yes", "--store", &store]).code(0);
            rounds += 1;
        }
        rounds
    };
    // One source was made before, by this machine's own name: the two hosts have sources of their own.
    let (first, second, rounds) = thread::scope(|scope| {
        let first = scope.spawn(|| save("host-one"));
        let second = scope.spawn(|| save("host-two"));
        let pruning = scope.spawn(prune);
        (first.join().unwrap(), second.join().unwrap(), pruning.join().unwrap())
    });
    assert!(rounds > 1, "there was nothing to prune meanwhile");
    for ids in [first, second] {
        let source = ids[0].rsplitn(3, '-').last().unwrap().to_owned();
        let listed = server.run(&sandbox, &["list", "--source", &source, "--store", &store, "--json"]).code(0).json();
        let listed: Vec<&str> =
            listed["snapshots"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        // The newest two are there, in any case, and each that is there is whole.
        assert!(ids.iter().rev().take(2).all(|id| listed.contains(&id.as_str())), "{listed:?}\n{ids:?}");
    }
    server.run(&sandbox, &["verify", "--all", "--store", &store]).code(0);
}

#[test]
#[ignore = "needs S3 servers"]
fn two_hosts_save_and_one_prunes_and_nothing_is_lost_seaweedfs() {
    play(&s3_server("seaweedfs"));
}

#[test]
#[ignore = "needs S3 servers"]
fn two_hosts_save_and_one_prunes_and_nothing_is_lost_ceph() {
    play(&s3_server("ceph"));
}
