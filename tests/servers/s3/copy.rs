//! `copy`: it copies snapshots between stores byte for byte. A copy that fails leaves nothing behind.

use std::fs;

use rustix::process::Signal;

use super::helpers::{Bucket, Setup, archive_in, big_database, files, one_error, sql, text, wait_until};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::s3::{clear_aws_settings, s3_servers};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{content, sample};

on_every_server! {
    snapshots_are_copied_from_a_folder_to_s3_and_back
    snapshots_are_copied_from_one_server_to_another
    damaged_snapshots_are_not_copied
    copies_to_a_missing_store_or_of_another_origin_are_refused
    a_copy_that_is_killed_leaves_nothing_listed
    a_copy_that_is_killed_before_its_manifest_leaves_nothing_listed
    an_interrupted_copy_removes_what_it_has_uploaded
}

fn snapshots_are_copied_from_a_folder_to_s3_and_back(setup: &Setup) {
    sample(setup.at("app.db"), 20, "delete");
    let (key, public) = setup.age_key("key.txt");
    let first = setup.snapshot("app.db", "a", &["--tag", "one"]);
    let saved = content(setup.at("app.db"));
    sql(setup.at("app.db"), "DELETE FROM logs WHERE rowid > 50");
    let second = setup.snapshot("app.db", "a", &["--compression", "zstd", "--encrypt-to", &public]);
    let other = setup.snapshot("app.db", "a", &["--name", "other"]);

    // Without an id, the latest snapshot of the source is copied. It is encrypted, and no key is needed.
    let run = setup
        .ok(&["copy", "--source", "app", "--from", "a", "--to", &setup.store, "--create"])
        .says("created a new store");
    assert!(run.stdout().contains("copied and read back"), "{}", run.transcript());
    assert_eq!(setup.ids(&setup.store), std::slice::from_ref(&second));
    // The second copy finds the snapshot in the target, and changes nothing.
    let before = setup.objects();
    let again = setup.json(&["copy", &second, "--store", "a", "--to", &setup.store]);
    assert_eq!(
        (&again["snapshots"][0]["was_there"], &again["snapshots"][0]["id"]),
        (&true.into(), &second.as_str().into())
    );
    assert_eq!(setup.objects(), before);
    // Copies all snapshots of one source, and then all snapshots.
    let all = setup.json(&["copy", "--all", "--source", "app", "--from", "a", "--to", &setup.store]);
    let results = |document: &serde_json::Value| -> Vec<(String, bool)> {
        let snapshots = document["snapshots"].as_array().unwrap();
        snapshots.iter().map(|one| (text(&one["id"]), one["was_there"].as_bool().unwrap())).collect()
    };
    assert_eq!(results(&all), [(second.clone(), true), (first.clone(), false)]);
    let all = setup.json(&["copy", "--all", "--from", "a", "--to", &setup.store]);
    assert_eq!(results(&all), [(other.clone(), false), (second.clone(), true), (first.clone(), true)]);

    // Copies all snapshots into another folder, which then has the same files as the first one.
    setup.json(&["copy", "--all", "--from", &setup.store, "--to", "b", "--create"]);
    assert_eq!(files(&setup.sandbox.path("a")), files(&setup.sandbox.path("b")));
    for (number, store) in [setup.store.as_str(), "b"].iter().enumerate() {
        let target = format!("{number}.db");
        setup.ok(&["restore", &first, "--to", &target, "--store", store]);
        assert_eq!(content(setup.at(&target)), saved);
        setup.ok(&["verify", "--all", "--store", store, "--identity", &key]);
    }
    for (from, to) in [("a", "a"), (setup.store.as_str(), setup.store.as_str())] {
        one_error(&setup.run(&["copy", &first, "--from", from, "--to", to]).code(2).says("two stores are the same"));
    }
    one_error(&setup.run(&["copy", "app-2001", "--from", "a", "--to", &setup.store]).code(4));
    one_error(&setup.run(&["copy", &first, "--to", &setup.store]).code(2).says("--from"));
    // It is an error if there is nothing to copy.
    setup.snapshot("app.db", &setup.other_store("empty"), &["--name", "x"]);
    setup.ok(&["prune", "--keep-last", "1", "--yes", "--store", &setup.other_store("empty")]);
    one_error(&setup.run(&["copy", "--all", "--source", "nosuch", "--from", "a", "--to", "b"]).code(4));
}

fn snapshots_are_copied_from_one_server_to_another(setup: &Setup) {
    let Some(other) = s3_servers().into_iter().find(|other| other.name != setup.server.name) else { return };
    let other = Setup::new(&other.name);
    sample(setup.at("app.db"), 20, "wal");
    let id = setup.snapshot("app.db", &setup.store, &[]);
    let mut credentials = String::new();
    for server in [&setup.server, &other.server] {
        credentials += &format!(
            "[{}]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            server.name, server.access_key, server.secret_key
        );
    }
    fs::write(setup.at("credentials"), credentials).unwrap();
    let url = |setup: &Setup| format!("{}&profile={}", setup.store, setup.server.name);
    let mut command =
        setup.sandbox.command(&["copy", &id, "--from", &url(setup), "--to", &url(&other), "--create", "--json"]);
    clear_aws_settings(&mut command);
    command.env("AWS_SHARED_CREDENTIALS_FILE", setup.at("credentials"));
    let document = setup.sandbox.finish(command).code(0).json();
    assert_eq!(document["snapshots"][0]["was_there"], false);
    let objects = setup.objects();
    assert_eq!(other.objects(), objects);
    for key in &objects {
        assert!(setup.object(key) == other.object(key), "{key}");
    }
    other.ok(&["restore", &id, "--to", "new.db", "--store", &other.store]);
    assert_eq!(content(other.at("new.db")), content(setup.at("app.db")));
}

fn damaged_snapshots_are_not_copied(setup: &Setup) {
    sample(setup.at("app.db"), 20, "delete");
    let good = setup.snapshot("app.db", "a", &["--name", "good"]);
    for (source, change) in [
        ("flipped", Box::new(|bytes: &mut Vec<u8>| bytes[3000] ^= 1) as Box<dyn Fn(&mut Vec<u8>)>),
        ("cut", Box::new(|bytes: &mut Vec<u8>| bytes.truncate(2000))),
        ("longer", Box::new(|bytes: &mut Vec<u8>| bytes.push(0))),
    ] {
        let id = setup.snapshot("app.db", "a", &["--name", source]);
        let archive = archive_in(&setup.sandbox.path("a").join(source));
        let mut bytes = fs::read(&archive).unwrap();
        change(&mut bytes);
        fs::write(&archive, bytes).unwrap();
        let run = setup.run(&["copy", &id, "--from", "a", "--to", &setup.store, "--create"]).code(3).says("damaged");
        assert!(run.stderr().contains(&id), "{}", run.transcript());
        assert_eq!(setup.objects(), ["lifeboat.json"], "{}", run.transcript());
    }
    // --all copies the undamaged snapshots, and reports the damaged ones.
    let run = setup.run(&["copy", "--all", "--from", "a", "--to", &setup.store, "--json"]).code(3);
    let document = run.json();
    assert_eq!(document["snapshots"].as_array().unwrap().len(), 1, "{document:#}");
    assert_eq!(document["problems"].as_array().unwrap().len(), 3, "{document:#}");
    assert_eq!(setup.ids(&setup.store), std::slice::from_ref(&good));
    // The archive is missing at the target: it is copied again.
    let key = setup.objects().into_iter().find(|key| key.contains(".tar.gz")).unwrap();
    let bucket = Bucket::of(&setup.server, &setup.server.bucket);
    let path = setup.prefix() + &key;
    super::helpers::block_on(bucket.client.delete_object().bucket(&bucket.name).key(path).send()).unwrap();
    let copied = setup.json(&["copy", &good, "--from", "a", "--to", &setup.store]);
    assert_eq!(copied["snapshots"][0]["mended"], true, "{copied:#}");
    setup.ok(&["verify", "--all", "--store", &setup.store]);
}

fn copies_to_a_missing_store_or_of_another_origin_are_refused(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    sample(setup.at("second.db"), 4, "delete");
    let id = setup.snapshot("app.db", "a", &["--name", "app"]);
    one_error(&setup.run(&["copy", &id, "--from", "a", "--to", &setup.store]).code(5).says("--create"));
    assert!(setup.objects().is_empty());
    one_error(&setup.run(&["copy", &id, "--from", "a", "--to", "b"]).code(5).says("--create"));
    assert!(!setup.sandbox.path("b").exists());
    one_error(&setup.run(&["copy", &id, "--from", &setup.store, "--to", "a"]).code(5));

    setup.snapshot("second.db", &setup.store, &["--name", "app"]);
    let before = setup.objects();
    let run = setup.run(&["copy", &id, "--from", "a", "--to", &setup.store]).code(2).says("second.db");
    assert!(run.stderr().contains("hint: "), "{}", run.transcript());
    assert_eq!(setup.objects(), before);
    // A prefix with other objects is not made into a store.
    let foreign = Setup::new(&setup.server.name);
    foreign.put("photos/cat.jpg", b"meow");
    let run = setup.run(&["copy", &id, "--from", "a", "--to", &foreign.store, "--create"]).code(2).says("photos");
    one_error(&run);
    assert_eq!(foreign.objects(), ["photos/cat.jpg"]);
}

/// Starts a copy of 24 MiB that stalls after a part of them.
fn start_stalled_copy(setup: &Setup, proxy: &Proxy) -> (String, crate::support::Running) {
    big_database(setup.at("app.db"), 24);
    let id = setup.snapshot("app.db", "a", &["--compression", "gzip:1"]);
    let to = setup.store_through(proxy.port);
    let running = setup.sandbox.start_command(setup.command(&["copy", &id, "--from", "a", "--to", &to, "--create"]));
    wait_until("the copy is under way", || proxy.is_troubled());
    (id, running)
}

fn a_copy_that_is_killed_leaves_nothing_listed(setup: &Setup) {
    let proxy = Proxy::start(setup.server.port, Trouble::StallAll(12 << 20));
    let (id, running) = start_stalled_copy(setup, &proxy);
    running.signal(Signal::KILL);
    assert_eq!(running.finish().exit(), 128 + 9);
    assert!(setup.ids(&setup.store).is_empty());
    assert_eq!(setup.objects(), ["lifeboat.json"]);
    // The remains of the killed copy do not prevent another copy.
    setup.ok(&["copy", &id, "--from", "a", "--to", &setup.store]);
    assert_eq!(setup.ids(&setup.store), [id]);
    setup.ok(&["verify", "--store", &setup.store]);
}

fn a_copy_that_is_killed_before_its_manifest_leaves_nothing_listed(setup: &Setup) {
    sample(setup.at("app.db"), 20, "delete");
    let id = setup.snapshot("app.db", "a", &[]);
    let proxy = S3Proxy::start(setup.server.port);
    proxy.add(Rule::on(Verb::Put, Action::StallRequest).key(&format!("{id}.json")).forever());
    let to = setup.store_through(proxy.port);
    let running = setup.sandbox.start_command(setup.command(&["copy", &id, "--from", "a", "--to", &to, "--create"]));
    wait_until("the manifest is sent", || {
        let is_manifest = |path: &str| path.ends_with(&format!("{id}.json"));
        proxy.requests().iter().any(|request| request.verb == Verb::Put && is_manifest(&request.path))
    });
    running.signal(Signal::KILL);
    assert_eq!(running.finish().exit(), 128 + 9);
    assert!(setup.ids(&setup.store).is_empty());
    assert_eq!(setup.objects(), [format!("app/{id}.tar.gz"), "lifeboat.json".to_owned()]);
    // The next copy uses the complete archive that is already in the target.
    setup.ok(&["copy", &id, "--from", "a", "--to", &setup.store]);
    assert_eq!(setup.ids(&setup.store), std::slice::from_ref(&id));
    setup.ok(&["verify", "--store", &setup.store]);
}

fn an_interrupted_copy_removes_what_it_has_uploaded(setup: &Setup) {
    let proxy = Proxy::start(setup.server.port, Trouble::Stall(12 << 20));
    let (_, running) = start_stalled_copy(setup, &proxy);
    running.signal(Signal::TERM);
    let run = running.finish();
    assert_eq!(run.exit(), 130, "{}", run.transcript());
    assert_eq!(setup.objects(), ["lifeboat.json"]);
    let bucket = Bucket::of(&setup.server, &setup.server.bucket);
    assert_eq!(bucket.uploads(&setup.prefix()), 0, "{}", run.transcript());
}
