//! Snapshots with several stores: the source is read once, all stores get the same archive, and a store that fails does
//! not affect the others.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;

use super::helpers::{Bucket, Setup, big_database, files, id_of, one_error, sql, text, wait_until, with};
use crate::support::proxy::{Proxy, Trouble};
use crate::support::s3_proxy::{Action, Rule, S3Proxy, Verb};
use crate::support::{content, sample};

on_every_server! {
    every_store_gets_the_same_archive
    a_store_that_cannot_be_used_does_not_affect_the_others
    a_snapshot_fails_without_a_usable_store_and_uses_a_repeated_store_once
    a_snapshot_is_refused_in_all_stores_if_one_has_another_origin
    a_store_that_fails_during_the_upload_keeps_nothing_and_the_others_succeed
    a_snapshot_stopped_during_the_upload_is_in_no_store
    a_snapshot_stopped_after_the_first_store_names_the_stores_that_have_it
    only_snapshot_and_doctor_accept_several_stores
}

/// Returns the URL of a store at a port on which no server listens.
pub(crate) fn unreachable_store(setup: &Setup) -> String {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    format!("{}&retries=1", setup.store_through(port))
}

fn every_store_gets_the_same_archive(setup: &Setup) {
    sample(setup.at("app.db"), 30, "wal");
    let (key, public) = setup.age_key("key.txt");
    let (second, third) = (setup.other_store("second"), setup.at("folder"));
    let stores = ["--store", &setup.store, "--store", &second, "--store", "folder"];
    for (name, encryption) in [("plain", &[][..]), ("sealed", &["--encrypt-to", &public])] {
        let document = setup.json(&[&["snapshot", "app.db", "--name", name], &stores[..], encryption].concat());
        let id = id_of(&document);
        let snapshot = &document["snapshots"][0];
        assert_eq!(snapshot["stores"], serde_json::json!([setup.store, second, third]));
        assert!(document.get("problems").is_none() && document.get("error").is_none(), "{document:#}");
        let folder = files(&setup.sandbox.path("folder").join(name));
        assert_eq!(folder.len(), 2);
        for (file, bytes) in &folder {
            // Each encryption gives other bytes, so equal bytes show that the archive was created once.
            assert!(setup.object(&format!("{name}/{file}")) == *bytes, "{file}");
        }
        for (number, store) in [setup.store.as_str(), &second, "folder"].iter().enumerate() {
            let target = format!("{name}-{number}.db");
            setup.ok(&["restore", &id, "--to", &target, "--store", store, "--identity", &key]);
            assert_eq!(content(setup.at(&target)), content(setup.at("app.db")));
        }
    }
    let run = setup.ok(&with(&["snapshot", "app.db", "--name", "plain"], &stores));
    for store in [setup.store.as_str(), &second, &third] {
        assert!(run.stdout().contains(store), "{store}\n{}", run.transcript());
    }
}

fn a_store_that_cannot_be_used_does_not_affect_the_others(setup: &Setup) {
    sample(setup.at("app.db"), 10, "delete");
    let unreachable = unreachable_store(setup);
    fs::write(setup.at("a-file"), "no folder").unwrap();
    let wrong = setup.store_in_missing_bucket();
    for (number, (bad, code, kind)) in
        [(unreachable.as_str(), 5, "unreachable"), (&wrong, 5, "unreachable"), ("a-file", 5, "unreachable")]
            .iter()
            .enumerate()
    {
        let name = format!("n{number}");
        // The bad store is neither the first nor the last.
        let stores = ["--store", "folder", "--store", bad, "--store", &setup.store];
        let run = setup.run(&[&["snapshot", "app.db", "--name", &name, "--json"], &stores[..]].concat());
        let document = run.json();
        assert_eq!(run.exit(), *code, "{}", run.transcript());
        let id = id_of(&document);
        assert_eq!(
            document["snapshots"][0]["stores"],
            serde_json::json!([setup.at("folder"), setup.store]),
            "{}",
            run.transcript()
        );
        assert_eq!(document["problems"].as_array().unwrap().len(), 1, "{document:#}");
        assert_eq!((&document["problems"][0]["kind"], &document["error"]["kind"]), (&(*kind).into(), &(*kind).into()));
        assert!(run.stderr().starts_with("WARN") || run.stderr().contains("error: "), "{}", run.transcript());
        for store in ["folder", &setup.store] {
            assert!(setup.ids(store).contains(&id));
            assert_eq!(setup.json(&["verify", &id, "--store", store])["ok"], true);
        }
        let text_run = setup.run(&[&["snapshot", "app.db", "--name", &name], &stores[..]].concat()).code(*code);
        assert!(
            text_run.stdout().contains(&setup.at("folder")) && text_run.stdout().contains(&setup.store),
            "{}",
            text_run.transcript()
        );
        assert_eq!(text_run.stderr().matches("error: ").count(), 1, "{}", text_run.transcript());
    }
    // A store in which a file has the name of the source's folder.
    fs::create_dir_all(setup.at("folder/n9")).unwrap();
    fs::remove_dir(setup.at("folder/n9")).unwrap();
    fs::write(setup.at("folder/n9"), "in the way").unwrap();
    let stores = ["--store", "folder", "--store", &setup.store];
    let run = setup.run(&[&["snapshot", "app.db", "--name", "n9", "--json"], &stores[..]].concat());
    assert_ne!(run.exit(), 0, "{}", run.transcript());
    assert_eq!(run.json()["snapshots"][0]["stores"], serde_json::json!([setup.store]), "{}", run.transcript());
    // A store whose user may only read.
    if let (Some(access), Some(secret)) = (&setup.server.limited_access_key, &setup.server.limited_secret_key) {
        let profile = format!("[limited]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n");
        fs::write(setup.at("credentials"), profile).unwrap();
        let limited = format!("{}&profile=limited", setup.store);
        let mut command =
            setup.command(&["snapshot", "app.db", "--name", "n0", "--store", &limited, "--store", "folder", "--json"]);
        command.env("AWS_SHARED_CREDENTIALS_FILE", setup.at("credentials"));
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        let before = setup.objects();
        let run = setup.sandbox.finish(command).code(5);
        assert_eq!(
            run.json()["snapshots"][0]["stores"],
            serde_json::json!([setup.at("folder")]),
            "{}",
            run.transcript()
        );
        assert!(run.stderr().contains("do not permit"), "{}", run.transcript());
        assert_eq!(setup.objects(), before);
    }
}

fn a_snapshot_fails_without_a_usable_store_and_uses_a_repeated_store_once(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let (first, second) = (unreachable_store(setup), unreachable_store(setup));
    let run = setup.run(&["snapshot", "app.db", "--store", &first, "--store", &second, "--json"]).code(5);
    let document = run.json();
    assert_eq!(document["snapshots"], serde_json::json!([]), "{document:#}");
    assert_eq!(document["problems"].as_array().unwrap().len(), 2, "{document:#}");
    assert_eq!(document["error"]["kind"], "unreachable");
    // A store that is named several times counts once, because it holds only one copy.
    std::os::unix::fs::symlink("f", setup.at("link")).unwrap();
    let (twice, thrice) = (format!("{}&path_style=true", setup.store), format!("{}&retries=3", setup.store));
    let stores = [setup.store.as_str(), &twice, &thrice, "f", "./f/", &setup.at("f"), "link"];
    let stores: Vec<&str> = stores.iter().flat_map(|store| ["--store", store]).collect();
    let run = setup.ok(&[&["snapshot", "app.db", "--json"], &stores[..]].concat());
    assert_eq!(
        run.json()["snapshots"][0]["stores"],
        serde_json::json!([setup.store, setup.at("f")]),
        "{}",
        run.transcript()
    );
    assert!(!run.stderr().contains("lost"), "{}", run.transcript());
    assert_eq!(setup.ids(&setup.store).len(), 1);
    assert_eq!(setup.ids("f").len(), 1);
}

fn a_store_that_fails_during_the_upload_keeps_nothing_and_the_others_succeed(setup: &Setup) {
    big_database(setup.at("big.db"), 20);
    let trouble = |status| Action::Answer { status, code: "SlowDown", retry_after: None };
    for (label, rule, code) in [
        ("no part gets through", Rule::on(Verb::UploadPart, Action::CutAtOnce).forever(), 5),
        ("the second part does not", Rule::on(Verb::UploadPart, trouble(503)).skip(1).forever(), 5),
        ("it cannot be put together", Rule::on(Verb::CompleteUpload, trouble(500)).forever(), 5),
        ("nothing answers any more", Rule::on(Verb::UploadPart, Action::StallRequest).forever(), 5),
        ("the manifest does not arrive", Rule::on(Verb::Put, trouble(500)).key("/big/").forever(), 5),
    ] {
        let failing = Setup::new(&setup.server.name);
        failing.put("lifeboat.json", b"{\"lifeboat_store\":1}");
        let proxy = S3Proxy::start(setup.server.port);
        proxy.add(rule);
        let bad = format!("{}&retries=1&timeout=1s", failing.store_through(proxy.port));
        let folder = format!("folder-{}", label.replace(' ', "-"));
        let arguments =
            ["snapshot", "big.db", "--compression", "gzip:1", "--store", &bad, "--store", &folder, "--json"];
        let run = setup.run(&arguments);
        assert_eq!(run.exit(), code, "{label}\n{}", run.transcript());
        let document = run.json();
        assert_eq!(
            document["snapshots"][0]["stores"],
            serde_json::json!([setup.at(&folder)]),
            "{label}\n{}",
            run.transcript()
        );
        let problem = text(&document["problems"][0]["message"]);
        assert!(problem.contains(&id_of(&document)) && problem.contains("not in every store"), "{problem}");
        assert_eq!(setup.json(&["verify", "--store", &folder])["ok"], true);
        // The failed store lists no snapshot, and has no object and no unfinished upload.
        assert!(failing.ids(&failing.store).is_empty(), "{label}");
        let mut objects = failing.objects();
        if label.starts_with("the manifest") {
            // The service may still complete the write of the manifest, so the archive is kept until the next prune.
            objects.retain(|key| !key.contains(".tar."));
        }
        assert_eq!(objects, ["lifeboat.json"], "{label}\n{}", run.transcript());
        let bucket = Bucket::of(&failing.server, &failing.server.bucket);
        assert_eq!(bucket.uploads(&failing.prefix()), 0, "{label}\n{}", run.transcript());
    }
}

fn a_snapshot_is_refused_in_all_stores_if_one_has_another_origin(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    sample(setup.at("other.db"), 4, "delete");
    setup.snapshot("other.db", &setup.store, &["--name", "app"]);
    let before = setup.objects();
    let run = setup.run(&["snapshot", "app.db", "--store", "folder", "--store", &setup.store]).code(2).says("other.db");
    assert!(run.stderr().contains("--name"), "{}", run.transcript());
    assert_eq!(setup.objects(), before);
    assert!(setup.ids("folder").is_empty(), "{}", run.transcript());
    let document =
        setup.run(&["snapshot", "app.db", "--store", "folder", "--store", &setup.store, "--json"]).code(2).json();
    assert_eq!(document["snapshots"], serde_json::json!([]));
    assert!(text(&document["problems"][0]["message"]).contains("other.db"));
    // A snapshot of an emptied database is refused if one of the stores has a snapshot with rows.
    let good = setup.snapshot("app.db", "folder", &[]);
    sql(setup.at("app.db"), "DELETE FROM logs; DELETE FROM balances; DELETE FROM accounts; DELETE FROM logs");
    let other = setup.other_store("second");
    let run = setup.run(&["snapshot", "app.db", "--store", &other, "--store", "folder"]).code(3).says("--allow-empty");
    assert!(run.stderr().contains(&good), "{}", run.transcript());
    assert!(setup.ids(&other).is_empty());
}

fn a_snapshot_stopped_during_the_upload_is_in_no_store(setup: &Setup) {
    big_database(setup.at("big.db"), 36);
    let (_, public) = setup.age_key("key.txt");
    for (signal, exit) in [(Signal::TERM, 130), (Signal::KILL, 128 + 9)] {
        // The proxy passes lifeboat.json and one part. Then the upload stalls, and soon also the reading of the source.
        let proxy = Proxy::start(setup.server.port, Trouble::Stall(7 << 20));
        let store = format!("{}&part_size=5MiB", setup.store_through(proxy.port));
        let folder = format!("folder-{exit}");
        let arguments = ["snapshot", "big.db", "--compression", "zstd:1", "--store", &folder, "--store", &store];
        let command = setup.command(&[&arguments[..], &["--encrypt-to", &public]].concat());
        let running = setup.sandbox.start_command(command);
        wait_until("the snapshot is under way", || proxy.is_troubled());
        running.signal(signal);
        let run = running.finish();
        assert_eq!(run.exit(), exit, "{}", run.transcript());
        assert!(setup.ids(&folder).is_empty() && setup.ids(&setup.store).is_empty(), "{}", run.transcript());
        assert_eq!(setup.objects(), ["lifeboat.json"], "{}", run.transcript());
        if exit == 130 {
            let remaining = files(&setup.sandbox.path(&folder));
            assert_eq!(
                remaining.len(),
                1,
                "{:?}\n{}",
                remaining.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                run.transcript()
            );
            let bucket = Bucket::of(&setup.server, &setup.server.bucket);
            assert_eq!(bucket.uploads(&setup.prefix()), 0, "{}", run.transcript());
        }
    }
    // The next snapshot succeeds in both stores.
    let arguments = ["snapshot", "big.db", "--compression", "zstd:1", "--store", "folder-137", "--store", &setup.store];
    let id = id_of(&setup.json(&arguments));
    for store in ["folder-137", &setup.store] {
        assert_eq!(setup.ids(store), std::slice::from_ref(&id));
        setup.ok(&["verify", "--store", store]);
    }
}

fn a_snapshot_stopped_after_the_first_store_names_the_stores_that_have_it(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let proxy = S3Proxy::start(setup.server.port);
    proxy.add(Rule::on(Verb::Put, Action::StallRequest).key("/app/").forever());
    let store = setup.store_through(proxy.port);
    let snapshot = ["snapshot", "app.db", "--name", "app", "--json"];
    let arguments = [&snapshot[..], &["--store", "folder", "--store", &store]].concat();
    let running = setup.sandbox.start_command(setup.command(&arguments));
    wait_until("the archive is sent", || {
        proxy.requests().iter().any(|request| request.verb == Verb::Put && request.path.contains("/app/"))
    });
    running.signal(Signal::TERM);
    let run = running.finish().code(130);
    let document = run.json();
    let id = id_of(&document);
    assert_eq!(document["snapshots"][0]["stores"], serde_json::json!([setup.at("folder")]), "{}", run.transcript());
    assert_eq!(document["error"]["kind"], "interrupted");
    assert_eq!(setup.ids("folder"), std::slice::from_ref(&id));
    setup.ok(&["verify", &id, "--store", "folder"]);
    assert!(setup.ids(&setup.store).is_empty());
    assert_eq!(setup.objects(), ["lifeboat.json"]);
}

fn only_snapshot_and_doctor_accept_several_stores(setup: &Setup) {
    sample(setup.at("app.db"), 3, "delete");
    let stores = ["--store", &setup.store, "--store", "folder"];
    let id = id_of(&setup.json(&with(&["snapshot", "app.db"], &stores)));
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
        one_error(&setup.run(&with(arguments, &stores)).code(2).says("several stores"));
        one_error(&setup.run(arguments).code(2));
    }
    // doctor checks each store.
    let checks = setup.json(&with(&["doctor"], &stores));
    let store_checks = checks["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "store").count();
    assert_eq!(store_checks, 2, "{checks:#}");
}
