//! Several stores in one `snapshot`: one reading, one archive, and each store's own fate.

use std::fs;
use std::net::TcpListener;

use crate::helpers::{Place, files, id_of, one_error, sql, text, with};
use crate::support::{content, sample};

on_every_server! {
    one_archive_is_in_every_store
    a_store_that_cannot_be_used_keeps_the_others_from_nothing
    no_store_at_all_is_a_failure_of_its_own
    another_origin_in_one_store_refuses_all
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
        assert!(run.stdout().contains(store), "{store}\n{}", run.story());
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
        assert_eq!(run.exit(), *code, "{}", run.story());
        let id = id_of(&document);
        assert_eq!(
            document["snapshots"][0]["stores"],
            serde_json::json!([place.at("folder"), place.store]),
            "{}",
            run.story()
        );
        assert_eq!(document["problems"].as_array().unwrap().len(), 1, "{document:#}");
        assert_eq!((&document["problems"][0]["kind"], &document["error"]["kind"]), (&(*kind).into(), &(*kind).into()));
        assert!(run.stderr().starts_with("WARN") || run.stderr().contains("error: "), "{}", run.story());
        for store in ["folder", &place.store] {
            assert!(place.ids(store).contains(&id));
            assert_eq!(place.json(&["verify", &id, "--store", store])["ok"], true);
        }
        let words = place.run(&[&["snapshot", "app.db", "--name", &name], &stores[..]].concat()).code(*code);
        assert!(
            words.stdout().contains(&place.at("folder")) && words.stdout().contains(&place.store),
            "{}",
            words.story()
        );
        assert_eq!(words.stderr().matches("error: ").count(), 1, "{}", words.story());
    }
    // One whose folder of the source is not ours to write.
    fs::create_dir_all(place.at("folder/n9")).unwrap();
    fs::remove_dir(place.at("folder/n9")).unwrap();
    fs::write(place.at("folder/n9"), "in the way").unwrap();
    let stores = ["--store", "folder", "--store", &place.store];
    let run = place.run(&[&["snapshot", "app.db", "--name", "n9", "--json"], &stores[..]].concat());
    assert_ne!(run.exit(), 0, "{}", run.story());
    assert_eq!(run.json()["snapshots"][0]["stores"], serde_json::json!([place.store]), "{}", run.story());
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
        assert_eq!(run.json()["snapshots"][0]["stores"], serde_json::json!([place.at("folder")]), "{}", run.story());
        assert!(run.stderr().contains("may not"), "{}", run.story());
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
    // One that is named twice is one.
    let twice = format!("{}&path_style=true", place.store);
    let taken = place.json(&[
        "snapshot",
        "app.db",
        "--store",
        &place.store,
        "--store",
        &twice,
        "--store",
        "f",
        "--store",
        "./f/",
    ]);
    assert_eq!(taken["snapshots"][0]["stores"].as_array().unwrap().len(), 2, "{taken:#}");
    assert_eq!(place.ids(&place.store).len(), 1);
    assert_eq!(place.ids("f").len(), 1);
}

fn another_origin_in_one_store_refuses_all(place: &Place) {
    sample(place.at("app.db"), 3, "delete");
    sample(place.at("other.db"), 4, "delete");
    place.snapshot("other.db", &place.store, &["--name", "app"]);
    let before = place.objects();
    let run = place.run(&["snapshot", "app.db", "--store", "folder", "--store", &place.store]).code(2).says("other.db");
    assert!(run.stderr().contains("--name"), "{}", run.story());
    assert_eq!(place.objects(), before);
    assert!(place.ids("folder").is_empty(), "{}", run.story());
    let document =
        place.run(&["snapshot", "app.db", "--store", "folder", "--store", &place.store, "--json"]).code(2).json();
    assert_eq!(document["snapshots"], serde_json::json!([]));
    assert!(text(&document["problems"][0]["message"]).contains("other.db"));
    // An empty database stays refused wherever the newest good one is known.
    let good = place.snapshot("app.db", "folder", &[]);
    sql(place.at("app.db"), "DELETE FROM logs; DELETE FROM balances; DELETE FROM accounts; DELETE FROM logs");
    let other = place.other_store("second");
    let run = place.run(&["snapshot", "app.db", "--store", &other, "--store", "folder"]).code(3).says("--allow-empty");
    assert!(run.stderr().contains(&good), "{}", run.story());
    assert!(place.ids(&other).is_empty());
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
