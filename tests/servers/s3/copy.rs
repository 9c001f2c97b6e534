//! `copy`: from store to store, byte for byte; what cannot be copied leaves nothing behind.

use std::fs;

use rustix::process::Signal;

use super::helpers::{Bucket, Place, archive_in, big, files, one_error, sql, text, wait_until};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::s3::{forget_aws, s3_servers};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{content, sample};

on_every_server! {
    snapshots_go_from_a_folder_to_s3_and_back
    snapshots_go_from_one_server_to_another
    what_is_damaged_is_not_copied
    a_source_from_elsewhere_and_an_absent_store_are_refused
    a_copy_that_is_killed_leaves_nothing_listed
    a_copy_that_is_killed_before_its_manifest_leaves_nothing_listed
    a_copy_that_is_interrupted_clears_up
}

fn snapshots_go_from_a_folder_to_s3_and_back(place: &Place) {
    sample(place.at("app.db"), 20, "delete");
    let (key, public) = place.age_key("key.txt");
    let first = place.snapshot("app.db", "a", &["--tag", "one"]);
    let saved = content(place.at("app.db"));
    sql(place.at("app.db"), "DELETE FROM logs WHERE rowid > 50");
    let second = place.snapshot("app.db", "a", &["--compression", "zstd", "--encrypt-to", &public]);
    let other = place.snapshot("app.db", "a", &["--name", "other"]);

    // One, which is 'latest' of its source; no key is needed.
    let run = place
        .ok(&["copy", "--source", "app", "--from", "a", "--to", &place.store, "--create"])
        .says("made a new store");
    assert!(run.stdout().contains("copied and read back"), "{}", run.transcript());
    assert_eq!(place.ids(&place.store), std::slice::from_ref(&second));
    // Again: it is there, and all stays as it is.
    let before = place.objects();
    let again = place.json(&["copy", &second, "--store", "a", "--to", &place.store]);
    assert_eq!(
        (&again["snapshots"][0]["was_there"], &again["snapshots"][0]["id"]),
        (&true.into(), &second.as_str().into())
    );
    assert_eq!(place.objects(), before);
    // All of one source, then all.
    let all = place.json(&["copy", "--all", "--source", "app", "--from", "a", "--to", &place.store]);
    let there = |document: &serde_json::Value| -> Vec<(String, bool)> {
        let snapshots = document["snapshots"].as_array().unwrap();
        snapshots.iter().map(|one| (text(&one["id"]), one["was_there"].as_bool().unwrap())).collect()
    };
    assert_eq!(there(&all), [(second.clone(), true), (first.clone(), false)]);
    let all = place.json(&["copy", "--all", "--from", "a", "--to", &place.store]);
    assert_eq!(there(&all), [(other.clone(), false), (second.clone(), true), (first.clone(), true)]);

    // And back, into another folder: the same files.
    place.json(&["copy", "--all", "--from", &place.store, "--to", "b", "--create"]);
    assert_eq!(files(&place.sandbox.path("a")), files(&place.sandbox.path("b")));
    for (number, store) in [place.store.as_str(), "b"].iter().enumerate() {
        let target = format!("{number}.db");
        place.ok(&["restore", &first, "--to", &target, "--store", store]);
        assert_eq!(content(place.at(&target)), saved);
        place.ok(&["verify", "--all", "--store", store, "--identity", &key]);
    }
    for (from, to) in [("a", "a"), (place.store.as_str(), place.store.as_str())] {
        one_error(&place.run(&["copy", &first, "--from", from, "--to", to]).code(2).says("two stores are one"));
    }
    one_error(&place.run(&["copy", "app-2001", "--from", "a", "--to", &place.store]).code(4));
    one_error(&place.run(&["copy", &first, "--to", &place.store]).code(2).says("--from"));
    // Nothing to copy is no success.
    place.snapshot("app.db", &place.other_store("empty"), &["--name", "x"]);
    place.ok(&["prune", "--keep-last", "1", "--yes", "--store", &place.other_store("empty")]);
    one_error(&place.run(&["copy", "--all", "--source", "nosuch", "--from", "a", "--to", "b"]).code(4));
}

fn snapshots_go_from_one_server_to_another(place: &Place) {
    let Some(other) = s3_servers().into_iter().find(|other| other.name != place.server.name) else { return };
    let other = Place::new(&other.name);
    sample(place.at("app.db"), 20, "wal");
    let id = place.snapshot("app.db", &place.store, &[]);
    let mut credentials = String::new();
    for server in [&place.server, &other.server] {
        credentials += &format!(
            "[{}]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            server.name, server.access_key, server.secret_key
        );
    }
    fs::write(place.at("credentials"), credentials).unwrap();
    let url = |place: &Place| format!("{}&profile={}", place.store, place.server.name);
    let mut command =
        place.sandbox.command(&["copy", &id, "--from", &url(place), "--to", &url(&other), "--create", "--json"]);
    forget_aws(&mut command);
    command.env("AWS_SHARED_CREDENTIALS_FILE", place.at("credentials"));
    let document = place.sandbox.finish(command).code(0).json();
    assert_eq!(document["snapshots"][0]["was_there"], false);
    let objects = place.objects();
    assert_eq!(other.objects(), objects);
    for key in &objects {
        assert!(place.object(key) == other.object(key), "{key}");
    }
    other.ok(&["restore", &id, "--to", "new.db", "--store", &other.store]);
    assert_eq!(content(other.at("new.db")), content(place.at("app.db")));
}

fn what_is_damaged_is_not_copied(place: &Place) {
    sample(place.at("app.db"), 20, "delete");
    let good = place.snapshot("app.db", "a", &["--name", "good"]);
    for (source, change) in [
        ("flipped", Box::new(|bytes: &mut Vec<u8>| bytes[3000] ^= 1) as Box<dyn Fn(&mut Vec<u8>)>),
        ("cut", Box::new(|bytes: &mut Vec<u8>| bytes.truncate(2000))),
        ("longer", Box::new(|bytes: &mut Vec<u8>| bytes.push(0))),
    ] {
        let id = place.snapshot("app.db", "a", &["--name", source]);
        let archive = archive_in(&place.sandbox.path("a").join(source));
        let mut bytes = fs::read(&archive).unwrap();
        change(&mut bytes);
        fs::write(&archive, bytes).unwrap();
        let run = place.run(&["copy", &id, "--from", "a", "--to", &place.store, "--create"]).code(3).says("damaged");
        assert!(run.stderr().contains(&id), "{}", run.transcript());
        assert_eq!(place.objects(), ["lifeboat.json"], "{}", run.transcript());
    }
    // Of several the good ones are copied, and the others told.
    let run = place.run(&["copy", "--all", "--from", "a", "--to", &place.store, "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1, "{document:#}");
    assert_eq!(document["problems"].as_array().unwrap().len(), 3, "{document:#}");
    assert_eq!(place.ids(&place.store), std::slice::from_ref(&good));
    // The archive is missing at the target: 'was there' would be a lie.
    let key = place.objects().into_iter().find(|key| key.contains(".tar.gz")).unwrap();
    let bucket = Bucket::of(&place.server, &place.server.bucket);
    let path = place.prefix() + &key;
    super::helpers::wait(bucket.client.delete_object().bucket(&bucket.name).key(path).send()).unwrap();
    place.run(&["copy", &good, "--from", "a", "--to", &place.store]).code(3).says("missing");
}

fn a_source_from_elsewhere_and_an_absent_store_are_refused(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    sample(place.at("second.db"), 4, "delete");
    let id = place.snapshot("app.db", "a", &["--name", "app"]);
    one_error(&place.run(&["copy", &id, "--from", "a", "--to", &place.store]).code(5).says("--create"));
    assert!(place.objects().is_empty());
    one_error(&place.run(&["copy", &id, "--from", "a", "--to", "b"]).code(5).says("--create"));
    assert!(!place.sandbox.path("b").exists());
    one_error(&place.run(&["copy", &id, "--from", &place.store, "--to", "a"]).code(5));

    place.snapshot("second.db", &place.store, &["--name", "app"]);
    let before = place.objects();
    let run = place.run(&["copy", &id, "--from", "a", "--to", &place.store]).code(2).says("second.db");
    assert!(run.stderr().contains("hint: "), "{}", run.transcript());
    assert_eq!(place.objects(), before);
    // One that is no store of ours is not made into one.
    let foreign = Place::new(&place.server.name);
    foreign.put("photos/cat.jpg", b"meow");
    let run = place.run(&["copy", &id, "--from", "a", "--to", &foreign.store, "--create"]).code(2).says("photos");
    one_error(&run);
    assert_eq!(foreign.objects(), ["photos/cat.jpg"]);
}

/// Starts a copy of 24 MiB that gets stuck after some of them.
fn stuck(place: &Place, proxy: &Proxy) -> (String, crate::support::Running) {
    big(place.at("app.db"), 24);
    let id = place.snapshot("app.db", "a", &["--compression", "gzip:1"]);
    let to = place.store_by(proxy.port);
    let running = place.sandbox.start_command(place.command(&["copy", &id, "--from", "a", "--to", &to, "--create"]));
    wait_until("the copy is under way", || proxy.is_troubled());
    (id, running)
}

fn a_copy_that_is_killed_leaves_nothing_listed(place: &Place) {
    let proxy = Proxy::start(place.server.port, Trouble::StallAll(12 << 20));
    let (id, running) = stuck(place, &proxy);
    running.signal(Signal::KILL);
    assert_eq!(running.finish().exit(), 128 + 9);
    assert!(place.ids(&place.store).is_empty());
    assert_eq!(place.objects(), ["lifeboat.json"]);
    // What it left behind is in nobody's way.
    place.ok(&["copy", &id, "--from", "a", "--to", &place.store]);
    assert_eq!(place.ids(&place.store), [id]);
    place.ok(&["verify", "--store", &place.store]);
}

fn a_copy_that_is_killed_before_its_manifest_leaves_nothing_listed(place: &Place) {
    sample(place.at("app.db"), 20, "delete");
    let id = place.snapshot("app.db", "a", &[]);
    let proxy = S3Proxy::start(place.server.port);
    proxy.add(Rule::on(Verb::Put, Action::StallRequest).key(&format!("{id}.json")).forever());
    let to = place.store_by(proxy.port);
    let running = place.sandbox.start_command(place.command(&["copy", &id, "--from", "a", "--to", &to, "--create"]));
    wait_until("the manifest is sent", || {
        proxy.requests().iter().any(|seen| seen.verb == Verb::Put && seen.path.ends_with(&format!("{id}.json")))
    });
    running.signal(Signal::KILL);
    assert_eq!(running.finish().exit(), 128 + 9);
    assert!(place.ids(&place.store).is_empty());
    assert_eq!(place.objects(), [format!("app/{id}.tar.gz"), "lifeboat.json".to_owned()]);
    // Again: the archive is there, whole, and is taken as it is.
    place.ok(&["copy", &id, "--from", "a", "--to", &place.store]);
    assert_eq!(place.ids(&place.store), std::slice::from_ref(&id));
    place.ok(&["verify", "--store", &place.store]);
}

fn a_copy_that_is_interrupted_clears_up(place: &Place) {
    let proxy = Proxy::start(place.server.port, Trouble::Stall(12 << 20));
    let (_, running) = stuck(place, &proxy);
    running.signal(Signal::TERM);
    let run = running.finish();
    assert_eq!(run.exit(), 130, "{}", run.transcript());
    assert_eq!(place.objects(), ["lifeboat.json"]);
    let bucket = Bucket::of(&place.server, &place.server.bucket);
    assert_eq!(bucket.uploads(&place.prefix()), 0, "{}", run.transcript());
}
