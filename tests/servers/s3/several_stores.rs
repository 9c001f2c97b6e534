//! Several stores in one `snapshot`: one reading, one archive, and each store's own fate.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;

use super::helpers::{Bucket, Place, big, files, id_of, one_error, sql, text, wait_until, with};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{content, sample};

on_every_server! {
    one_archive_is_in_every_store
    a_store_that_cannot_be_used_keeps_the_others_from_nothing
    no_store_at_all_is_a_failure_of_its_own
    another_origin_in_one_store_refuses_all
    a_store_that_fails_on_the_way_has_nothing_and_the_others_all
    one_that_is_stopped_is_in_no_store
    one_that_is_stopped_after_the_first_store_says_who_has_it
    only_snapshot_takes_several
}

/// The URL of a store at a port where nobody listens.
pub(crate) fn closed(place: &Place) -> String {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    format!("{}&retries=1", place.store_by(port))
}

fn one_archive_is_in_every_store(place: &Place) {
    sample(place.at("app.db"), 30, "wal");
    let (key, public) = place.age_key("key.txt");
    let (second, third) = (place.other_store("second"), place.at("folder"));
    let stores = ["--store", &place.store, "--store", &second, "--store", "folder"];
    for (name, sealing) in [("plain", &[][..]), ("sealed", &["--encrypt-to", &public])] {
        let taken = place.json(&[&["snapshot", "app.db", "--name", name], &stores[..], sealing].concat());
        let id = id_of(&taken);
        let snapshot = &taken["snapshots"][0];
        assert_eq!(snapshot["stores"], serde_json::json!([place.store, second, third]));
        assert!(taken.get("problems").is_none() && taken.get("error").is_none(), "{taken:#}");
        let folder = files(&place.sandbox.path("folder").join(name));
        assert_eq!(folder.len(), 2);
        for (file, bytes) in &folder {
            // Encryption is never the same twice: equal bytes were made once.
            assert!(place.object(&format!("{name}/{file}")) == *bytes, "{file}");
        }
        for (number, store) in [place.store.as_str(), &second, "folder"].iter().enumerate() {
            let target = format!("{name}-{number}.db");
            place.ok(&["restore", &id, "--to", &target, "--store", store, "--identity", &key]);
            assert_eq!(content(place.at(&target)), content(place.at("app.db")));
        }
    }
    let run = place.ok(&with(&["snapshot", "app.db", "--name", "plain"], &stores));
    for store in [place.store.as_str(), &second, &third] {
        assert!(run.stdout().contains(store), "{store}\n{}", run.transcript());
    }
}

fn a_store_that_cannot_be_used_keeps_the_others_from_nothing(place: &Place) {
    sample(place.at("app.db"), 10, "delete");
    let closed = closed(place);
    fs::write(place.at("a-file"), "no folder").unwrap();
    let wrong = place.store_in_no_bucket();
    for (number, (bad, code, kind)) in
        [(closed.as_str(), 5, "unreachable"), (&wrong, 5, "unreachable"), ("a-file", 5, "unreachable")]
            .iter()
            .enumerate()
    {
        let name = format!("n{number}");
        // In the middle, so that neither the first nor the last decides.
        let stores = ["--store", "folder", "--store", bad, "--store", &place.store];
        let run = place.run(&[&["snapshot", "app.db", "--name", &name, "--json"], &stores[..]].concat());
        let document = run.json();
        assert_eq!(run.exit(), *code, "{}", run.transcript());
        let id = id_of(&document);
        assert_eq!(
            document["snapshots"][0]["stores"],
            serde_json::json!([place.at("folder"), place.store]),
            "{}",
            run.transcript()
        );
        assert_eq!(document["problems"].as_array().unwrap().len(), 1, "{document:#}");
        assert_eq!((&document["problems"][0]["kind"], &document["error"]["kind"]), (&(*kind).into(), &(*kind).into()));
        assert!(run.stderr().starts_with("WARN") || run.stderr().contains("error: "), "{}", run.transcript());
        for store in ["folder", &place.store] {
            assert!(place.ids(store).contains(&id));
            assert_eq!(place.json(&["verify", &id, "--store", store])["ok"], true);
        }
        let words = place.run(&[&["snapshot", "app.db", "--name", &name], &stores[..]].concat()).code(*code);
        assert!(
            words.stdout().contains(&place.at("folder")) && words.stdout().contains(&place.store),
            "{}",
            words.transcript()
        );
        assert_eq!(words.stderr().matches("error: ").count(), 1, "{}", words.transcript());
    }
    // One whose folder of the source is not ours to write.
    fs::create_dir_all(place.at("folder/n9")).unwrap();
    fs::remove_dir(place.at("folder/n9")).unwrap();
    fs::write(place.at("folder/n9"), "in the way").unwrap();
    let stores = ["--store", "folder", "--store", &place.store];
    let run = place.run(&[&["snapshot", "app.db", "--name", "n9", "--json"], &stores[..]].concat());
    assert_ne!(run.exit(), 0, "{}", run.transcript());
    assert_eq!(run.json()["snapshots"][0]["stores"], serde_json::json!([place.store]), "{}", run.transcript());
    // A user who may only read.
    if let (Some(access), Some(secret)) = (&place.server.limited_access_key, &place.server.limited_secret_key) {
        let profile = format!("[limited]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n");
        fs::write(place.at("credentials"), profile).unwrap();
        let limited = format!("{}&profile=limited", place.store);
        let mut command =
            place.command(&["snapshot", "app.db", "--name", "n0", "--store", &limited, "--store", "folder", "--json"]);
        command.env("AWS_SHARED_CREDENTIALS_FILE", place.at("credentials"));
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        let before = place.objects();
        let run = place.sandbox.finish(command).code(5);
        assert_eq!(
            run.json()["snapshots"][0]["stores"],
            serde_json::json!([place.at("folder")]),
            "{}",
            run.transcript()
        );
        assert!(run.stderr().contains("may not"), "{}", run.transcript());
        assert_eq!(place.objects(), before);
    }
}

fn no_store_at_all_is_a_failure_of_its_own(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let (closed, second) = (closed(place), closed(place));
    let run = place.run(&["snapshot", "app.db", "--store", &closed, "--store", &second, "--json"]).code(5);
    let document = run.json();
    assert_eq!(document["snapshots"], serde_json::json!([]), "{document:#}");
    assert_eq!(document["problems"].as_array().unwrap().len(), 2, "{document:#}");
    assert_eq!(document["error"]["kind"], "unreachable");
    // One that is named twice is one: nobody is to think that there are two copies.
    std::os::unix::fs::symlink("f", place.at("link")).unwrap();
    let (twice, thrice) = (format!("{}&path_style=true", place.store), format!("{}&retries=3", place.store));
    let stores = [place.store.as_str(), &twice, &thrice, "f", "./f/", &place.at("f"), "link"];
    let stores: Vec<&str> = stores.iter().flat_map(|store| ["--store", store]).collect();
    let run = place.ok(&[&["snapshot", "app.db", "--json"], &stores[..]].concat());
    assert_eq!(
        run.json()["snapshots"][0]["stores"],
        serde_json::json!([place.store, place.at("f")]),
        "{}",
        run.transcript()
    );
    assert!(!run.stderr().contains("lost"), "{}", run.transcript());
    assert_eq!(place.ids(&place.store).len(), 1);
    assert_eq!(place.ids("f").len(), 1);
}

fn a_store_that_fails_on_the_way_has_nothing_and_the_others_all(place: &Place) {
    big(place.at("big.db"), 20);
    let trouble = |status| Action::Answer { status, code: "SlowDown", retry_after: None };
    for (what, rule, code) in [
        ("no part gets through", Rule::on(Verb::UploadPart, Action::CutAtOnce).forever(), 5),
        ("the second part does not", Rule::on(Verb::UploadPart, trouble(503)).skip(1).forever(), 5),
        ("it cannot be put together", Rule::on(Verb::CompleteUpload, trouble(500)).forever(), 5),
        ("nothing answers any more", Rule::on(Verb::UploadPart, Action::StallRequest).forever(), 5),
        ("the manifest does not arrive", Rule::on(Verb::Put, trouble(500)).key("/big/").forever(), 5),
    ] {
        let failing = Place::new(&place.server.name);
        failing.put("lifeboat.json", b"{\"lifeboat_store\":1}");
        let proxy = S3Proxy::start(place.server.port);
        proxy.add(rule);
        let bad = format!("{}&retries=1&timeout=1s", failing.store_by(proxy.port));
        let folder = format!("folder-{}", what.replace(' ', "-"));
        let arguments =
            ["snapshot", "big.db", "--compression", "gzip:1", "--store", &bad, "--store", &folder, "--json"];
        let run = place.run(&arguments);
        assert_eq!(run.exit(), code, "{what}\n{}", run.transcript());
        let document = run.json();
        assert_eq!(
            document["snapshots"][0]["stores"],
            serde_json::json!([place.at(&folder)]),
            "{what}\n{}",
            run.transcript()
        );
        let problem = text(&document["problems"][0]["message"]);
        assert!(problem.contains(&id_of(&document)) && problem.contains("not in every store"), "{problem}");
        assert_eq!(place.json(&["verify", "--store", &folder])["ok"], true);
        // Where it failed there is nothing: not listed, not stored, not half sent.
        assert!(failing.ids(&failing.store).is_empty(), "{what}");
        let mut objects = failing.objects();
        if what.starts_with("the manifest") {
            // Its write may yet come to pass: the archive stays until prune.
            objects.retain(|key| !key.contains(".tar."));
        }
        assert_eq!(objects, ["lifeboat.json"], "{what}\n{}", run.transcript());
        let bucket = Bucket::of(&failing.server, &failing.server.bucket);
        assert_eq!(bucket.uploads(&failing.prefix()), 0, "{what}\n{}", run.transcript());
    }
}

fn another_origin_in_one_store_refuses_all(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    sample(place.at("other.db"), 4, "delete");
    place.snapshot("other.db", &place.store, &["--name", "app"]);
    let before = place.objects();
    let run = place.run(&["snapshot", "app.db", "--store", "folder", "--store", &place.store]).code(2).says("other.db");
    assert!(run.stderr().contains("--name"), "{}", run.transcript());
    assert_eq!(place.objects(), before);
    assert!(place.ids("folder").is_empty(), "{}", run.transcript());
    let document =
        place.run(&["snapshot", "app.db", "--store", "folder", "--store", &place.store, "--json"]).code(2).json();
    assert_eq!(document["snapshots"], serde_json::json!([]));
    assert!(text(&document["problems"][0]["message"]).contains("other.db"));
    // An empty database stays refused wherever the newest good one is known.
    let good = place.snapshot("app.db", "folder", &[]);
    sql(place.at("app.db"), "DELETE FROM logs; DELETE FROM balances; DELETE FROM accounts; DELETE FROM logs");
    let other = place.other_store("second");
    let run = place.run(&["snapshot", "app.db", "--store", &other, "--store", "folder"]).code(3).says("--allow-empty");
    assert!(run.stderr().contains(&good), "{}", run.transcript());
    assert!(place.ids(&other).is_empty());
}

fn one_that_is_stopped_is_in_no_store(place: &Place) {
    big(place.at("big.db"), 36);
    let (_, public) = place.age_key("key.txt");
    for (signal, exit) in [(Signal::TERM, 130), (Signal::KILL, 128 + 9)] {
        // Room for lifeboat.json and a part; then what is sent of the archive stands still, and soon so does its making.
        let proxy = Proxy::start(place.server.port, Trouble::Stall(7 << 20));
        let store = format!("{}&part_size=5MiB", place.store_by(proxy.port));
        let folder = format!("folder-{exit}");
        let arguments = ["snapshot", "big.db", "--compression", "zstd:1", "--store", &folder, "--store", &store];
        let command = place.command(&[&arguments[..], &["--encrypt-to", &public]].concat());
        let running = place.sandbox.start_command(command);
        wait_until("the snapshot is under way", || proxy.is_troubled());
        running.signal(signal);
        let run = running.finish();
        assert_eq!(run.exit(), exit, "{}", run.transcript());
        assert!(place.ids(&folder).is_empty() && place.ids(&place.store).is_empty(), "{}", run.transcript());
        assert_eq!(place.objects(), ["lifeboat.json"], "{}", run.transcript());
        if exit == 130 {
            let left = files(&place.sandbox.path(&folder));
            assert_eq!(
                left.len(),
                1,
                "{:?}\n{}",
                left.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                run.transcript()
            );
            let bucket = Bucket::of(&place.server, &place.server.bucket);
            assert_eq!(bucket.uploads(&place.prefix()), 0, "{}", run.transcript());
        }
    }
    // The next one is well, in both.
    let arguments = ["snapshot", "big.db", "--compression", "zstd:1", "--store", "folder-137", "--store", &place.store];
    let id = id_of(&place.json(&arguments));
    for store in ["folder-137", &place.store] {
        assert_eq!(place.ids(store), std::slice::from_ref(&id));
        place.ok(&["verify", "--store", store]);
    }
}

fn one_that_is_stopped_after_the_first_store_says_who_has_it(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let proxy = S3Proxy::start(place.server.port);
    proxy.add(Rule::on(Verb::Put, Action::StallRequest).key("/app/").forever());
    let store = place.store_by(proxy.port);
    let sources = ["snapshot", "app.db", "--name", "app", "--json"];
    let arguments = [&sources[..], &["--store", "folder", "--store", &store]].concat();
    let running = place.sandbox.start_command(place.command(&arguments));
    wait_until("the archive is sent", || {
        proxy.requests().iter().any(|seen| seen.verb == Verb::Put && seen.path.contains("/app/"))
    });
    running.signal(Signal::TERM);
    let run = running.finish().code(130);
    let document = run.json();
    let id = id_of(&document);
    assert_eq!(document["snapshots"][0]["stores"], serde_json::json!([place.at("folder")]), "{}", run.transcript());
    assert_eq!(document["error"]["kind"], "interrupted");
    assert_eq!(place.ids("folder"), std::slice::from_ref(&id));
    place.ok(&["verify", &id, "--store", "folder"]);
    assert!(place.ids(&place.store).is_empty());
    assert_eq!(place.objects(), ["lifeboat.json"]);
}

fn only_snapshot_takes_several(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    let stores = ["--store", &place.store, "--store", "folder"];
    let id = id_of(&place.json(&with(&["snapshot", "app.db"], &stores)));
    for arguments in [
        &["list"][..],
        &["show"],
        &["verify"],
        &["drill"],
        &["restore", &id, "--to", "x.db"],
        &["extract", &id, "--to", "x"],
        &["diff", &id],
        &["prune", "--keep-last", "1"],
        &["copy", "--to", "y", "--create"],
    ] {
        one_error(&place.run(&with(arguments, &stores)).code(2).says("several stores"));
        one_error(&place.run(arguments).code(2));
    }
    // Each is tried.
    let checks = place.json(&with(&["doctor"], &stores));
    let tried = checks["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "store").count();
    assert_eq!(tried, 2, "{checks:#}");
}
