//! Several programs that use one store at the same time.

use std::time::Duration;

use super::helpers::{Setup, id_of, wait_until};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{Running, sample};

on_every_server! {
    snapshots_at_the_same_time_create_one_store
    a_store_that_another_program_has_just_created_is_used
    several_copies_of_a_snapshot_at_the_same_time_succeed
}

fn snapshots_at_the_same_time_create_one_store(setup: &Setup) {
    sample(setup.at("app.db"), 3, "wal");
    for store in [setup.store.as_str(), "folder"] {
        let start = |number: usize| -> Running {
            // Each source gets two snapshots.
            let name = format!("app{}", number / 2);
            let command = setup.command(&["snapshot", "app.db", "--name", &name, "--store", store, "--json"]);
            setup.sandbox.start_command(command)
        };
        let running: Vec<Running> = (0..8).map(start).collect();
        let mut ids: Vec<String> = running.into_iter().map(|run| id_of(&run.finish().code(0).json())).collect();
        ids.sort();
        let mut listed = setup.ids(store);
        listed.sort();
        assert_eq!(listed, ids);
        assert_eq!(setup.json(&["verify", "--all", "--store", store])["ok"], true);
    }
}

fn a_store_that_another_program_has_just_created_is_used(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let proxy = S3Proxy::start(setup.server.port);
    proxy.add(Rule::on(Verb::List, Action::Delay(Duration::from_secs(2))));
    let store = setup.store_through(proxy.port);
    let slow = setup.sandbox.start_command(setup.command(&["snapshot", "app.db", "--name", "slow", "--store", &store]));
    // The slow program has not found a store, and now lists the prefix to check that it is empty.
    wait_until("the slow program lists the prefix", || proxy.count(Verb::List) == 1);
    let fast = setup.snapshot("app.db", &setup.store, &["--name", "fast"]);
    slow.finish().code(0);
    let ids = setup.ids(&setup.store);
    assert!(ids.len() == 2 && ids.contains(&fast), "{ids:?}");
}

fn several_copies_of_a_snapshot_at_the_same_time_succeed(setup: &Setup) {
    sample(setup.at("app.db"), 30, "delete");
    let id = setup.snapshot("app.db", "a", &[]);
    let start = || {
        let command = setup.command(&["copy", &id, "--from", "a", "--to", &setup.store, "--create", "--json"]);
        setup.sandbox.start_command(command)
    };
    let running: Vec<Running> = (0..4).map(|_| start()).collect();
    running.into_iter().for_each(|run| assert_eq!(id_of(&run.finish().code(0).json()), id));
    assert_eq!(setup.ids(&setup.store), std::slice::from_ref(&id));
    assert_eq!(setup.json(&["verify", &id, "--store", &setup.store])["ok"], true);
}
