//! Many programs at one store at the same time.

use std::time::Duration;

use super::helpers::{Place, id_of, wait_until};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{Running, sample};

on_every_server! {
    many_make_one_store_at_once
    a_store_that_is_made_between_two_looks_is_used
    one_snapshot_is_copied_twice_at_once
}

fn many_make_one_store_at_once(place: &Place) {
    sample(place.at("app.db"), 3, "wal");
    for store in [place.store.as_str(), "folder"] {
        let start = |number: usize| -> Running {
            // Two of each source.
            let name = format!("app{}", number / 2);
            let command = place.command(&["snapshot", "app.db", "--name", &name, "--store", store, "--json"]);
            place.sandbox.start_command(command)
        };
        let running: Vec<Running> = (0..8).map(start).collect();
        let mut ids: Vec<String> = running.into_iter().map(|one| id_of(&one.finish().code(0).json())).collect();
        ids.sort();
        let mut listed = place.ids(store);
        listed.sort();
        assert_eq!(listed, ids);
        assert_eq!(place.json(&["verify", "--all", "--store", store])["ok"], true);
    }
}

fn a_store_that_is_made_between_two_looks_is_used(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let proxy = S3Proxy::start(place.server.port);
    proxy.add(Rule::on(Verb::List, Action::Delay(Duration::from_secs(2))));
    let store = place.store_by(proxy.port);
    let slow = place.sandbox.start_command(place.command(&["snapshot", "app.db", "--name", "slow", "--store", &store]));
    // It has seen no store, and looks whether the place is empty.
    wait_until("the first look", || proxy.count(Verb::List) == 1);
    let fast = place.snapshot("app.db", &place.store, &["--name", "fast"]);
    slow.finish().code(0);
    let ids = place.ids(&place.store);
    assert!(ids.len() == 2 && ids.contains(&fast), "{ids:?}");
}

fn one_snapshot_is_copied_twice_at_once(place: &Place) {
    sample(place.at("app.db"), 30, "delete");
    let id = place.snapshot("app.db", "a", &[]);
    let start = || {
        let command = place.command(&["copy", &id, "--from", "a", "--to", &place.store, "--create", "--json"]);
        place.sandbox.start_command(command)
    };
    let running: Vec<Running> = (0..4).map(|_| start()).collect();
    running.into_iter().for_each(|one| assert_eq!(id_of(&one.finish().code(0).json()), id));
    assert_eq!(place.ids(&place.store), std::slice::from_ref(&id));
    assert_eq!(place.json(&["verify", &id, "--store", &place.store])["ok"], true);
}
