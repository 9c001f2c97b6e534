//! Archives whose manifest is lost: they are listed, can be used by their id or path, are put back by `copy`, and are
//! deleted only if they are named.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::helpers::{flip_bytes, refused};
use crate::support::bucket::Bucket;
use crate::support::{Run, Sandbox, content, sample};

/// Returns a sandbox whose store has a snapshot with a manifest, and an older archive without one, and both ids.
fn store_with_lost_manifest(snapshot_flags: &[&str]) -> (Sandbox, String, String, Vec<u8>) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 4, "delete");
    let take = || {
        let saved = sandbox.json(&[&["snapshot", "app.db", "--store", "backups"], snapshot_flags].concat());
        saved["snapshots"][0]["id"].as_str().unwrap().to_owned()
    };
    let (lost, kept) = (take(), take());
    let manifest = sandbox.path(format!("backups/app/{lost}.json"));
    let document = fs::read(&manifest).unwrap();
    fs::remove_file(manifest).unwrap();
    (sandbox, lost, kept, document)
}

/// Gives all files of a store an age of three days.
fn age(sandbox: &Sandbox, store: &str) {
    let old = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for entry in fs::read_dir(sandbox.path(format!("{store}/app"))).unwrap().flatten() {
        fs::File::options().append(true).open(entry.path()).unwrap().set_modified(old).unwrap();
    }
}

fn archive(sandbox: &Sandbox, id: &str) -> std::path::PathBuf {
    sandbox.path(format!("backups/app/{id}.tar.gz"))
}

fn ids(document: &Value, list: &str) -> Vec<String> {
    document[list].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn list_shows_archives_without_a_manifest_beside_the_snapshots() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    let document = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!((ids(&document, "snapshots"), ids(&document, "without_manifest")), (vec![kept], vec![lost.clone()]));
    let found = &document["without_manifest"][0];
    assert_eq!((&found["source"], &found["archive"]), (&json!("app"), &json!(format!("{lost}.tar.gz"))));
    assert_eq!(found["archive_bytes"], fs::metadata(archive(&sandbox, &lost)).unwrap().len());
    assert!(found["modified_at"].as_str().unwrap().starts_with("20"), "{document:#}");
    let run = sandbox.ok(&["list", "--store", "backups"]);
    for words in [&lost[..], "without manifest", "--without-manifest", "may belong to a snapshot"] {
        assert!(run.stdout().contains(words), "{words}\n{}", run.transcript());
    }
    age(&sandbox, "backups");
    let run = sandbox.ok(&["list", "--store", "backups"]);
    assert!(!run.stdout().contains("may belong"), "{}", run.transcript());
    // A name that the store does not have is not a source without snapshots.
    let other = sandbox.run(&["list", "--source", "other", "--store", "backups"]).code(2);
    assert!(other.stderr().contains("the store has the sources: app"), "{}", other.transcript());
}

#[test]
fn an_archive_without_a_manifest_is_used_by_its_id() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    let before = content(sandbox.path("app.db"));
    let shown = sandbox.json(&["show", &lost, "--store", "backups"]);
    assert_eq!(
        (&shown["id"], &shown["without_manifest"], &shown["proof"]),
        (&json!(lost), &json!(true), &json!("none"))
    );
    let verified = sandbox.json(&["verify", &lost, "--store", "backups"]);
    assert_eq!((&verified["ok"], &verified["snapshots"][0]["level"]), (&json!(true), &json!("verified")));
    sandbox.ok(&["restore", &lost, "--to", "new.db", "--store", "backups"]);
    assert_eq!(content(sandbox.path("new.db")), before);
    // By the start of the id, which no other id has.
    let common = lost.bytes().zip(kept.bytes()).take_while(|(one, other)| one == other).count();
    sandbox.ok(&["restore", &lost[..=common], "--to", "second.db", "--store", "backups"]);
    refused(&sandbox, &["restore", &lost[..common], "--to", "third.db", "--store", "backups"], 2).says(&lost);
    sandbox.ok(&["extract", &lost, "--to", "files", "--store", "backups"]);
    assert!(sandbox.path("files/manifest.json").exists());
    // Over a live database, with a safety snapshot in the same store.
    let report = sandbox.json(&["restore", &lost, "--to", "app.db", "--replace", "--yes", "--store", "backups"]);
    assert!(report["safety_snapshot"].is_string(), "{report:#}");
    // Nothing was recorded for it.
    let names = fs::read_dir(sandbox.path("backups/app")).unwrap().flatten();
    assert_eq!(names.filter(|file| file.file_name().to_string_lossy().starts_with(&lost)).count(), 1);
    // It is never the latest.
    assert_ne!(sandbox.json(&["show", "latest", "--store", "backups"])["id"], json!(lost));
    // Commands that change or judge snapshots do not take it for one.
    refused(&sandbox, &["delete", &lost, "--yes", "--store", "backups"], 4).says("without a manifest");
    sandbox.run(&["drill", &lost, "--store", "backups"]).code(4);
}

#[test]
fn an_archive_in_a_file_is_used_without_store_and_config() {
    let (sandbox, lost, _, _) = store_with_lost_manifest(&[]);
    let before = content(sandbox.path("app.db"));
    fs::rename(archive(&sandbox, &lost), sandbox.path("x y.tar.gz")).unwrap();
    fs::remove_dir_all(sandbox.path("backups")).unwrap();
    let absolute = sandbox.path("x y.tar.gz").display().to_string();
    for (number, path) in ["x y.tar.gz", "./x y.tar.gz", &absolute].into_iter().enumerate() {
        assert_eq!(sandbox.json(&["verify", path])["snapshots"][0]["level"], "verified");
        let to = format!("new{number}.db");
        sandbox.ok(&["restore", path, "--to", &to]);
        assert_eq!(content(sandbox.path(&to)), before);
        sandbox.ok(&["extract", path, "--table", "accounts"]);
        let shown = sandbox.json(&["show", path]);
        assert_eq!(shown["id"], json!(lost));
        let command = shown["restore"][0].as_str().unwrap();
        assert!(command.contains("x y.tar.gz") && !command.contains("--store"), "{shown:#}");
    }
    // No store is given for the safety snapshot of the existing file.
    let replace = ["restore", "./x y.tar.gz", "--to", "app.db", "--replace", "--yes"];
    refused(&sandbox, &replace, 2).says("safety snapshot");
    let report = sandbox.ok(&[&replace[..], &["--store", "other", "--json"]].concat()).json();
    assert!(report["undo"].as_str().unwrap().contains("/other"), "{report:#}");
    sandbox.ok(&[&replace[..], &["--no-safety"]].concat());
    // Files that are not archives.
    refused(&sandbox, &["restore", "./none.tar.gz", "--to", "n.db"], 4).says("no archive");
    refused(&sandbox, &["restore", "./other", "--to", "n.db"], 2).says("not a file");
    refused(&sandbox, &["restore", "./app.db", "--to", "n.db"], 3).says("damaged");
    refused(&sandbox, &["restore", "./x y.tar.gz", "--to", "n.db", "--tag", "a"], 2).says("--tag");
}

#[test]
fn a_damaged_archive_in_a_file_is_refused() {
    let (sandbox, lost, _, _) = store_with_lost_manifest(&[]);
    let good = fs::read(archive(&sandbox, &lost)).unwrap();
    for (number, bytes) in [&good[..good.len() / 2], &good[..good.len() - 1], &[&good[..], b"x"].concat(), b""]
        .into_iter()
        .map(<[u8]>::to_vec)
        .chain((0..8).map(|part| {
            let mut bytes = good.clone();
            let at = part * good.len() / 8 + 7;
            bytes[at] ^= 1;
            bytes
        }))
        .enumerate()
    {
        let name = format!("./bad{number}.tar.gz");
        fs::write(sandbox.path(&name), bytes).unwrap();
        sandbox.run(&["verify", &name]).code(3);
        refused(&sandbox, &["restore", &name, "--to", "n.db"], 3);
        let copy = ["copy", &name, "--to", "backups"];
        sandbox.run(&copy).code(3);
    }
    assert_eq!(sandbox.ids().len(), 1);
}

#[test]
fn copy_writes_the_manifest_again() {
    for flags in [&[][..], &["--compression", "zstd", "--tag", "a,b"]] {
        let (sandbox, lost, kept, document) = store_with_lost_manifest(flags);
        let extension = if flags.is_empty() { "tar.gz" } else { "tar.zst" };
        let copied = sandbox.json(&["copy", &lost, "--from", "backups", "--to", "backups"]);
        assert_eq!(copied["snapshots"][0]["manifest_written"], true, "{copied:#}");
        // It is the same document, byte for byte.
        assert_eq!(fs::read(sandbox.path(format!("backups/app/{lost}.json"))).unwrap(), document);
        assert_eq!(sandbox.ids(), [kept, lost.clone()]);
        sandbox.ok(&["verify", "--all", "--store", "backups"]);

        // From a file, into a store that has only the archive, and into one that has nothing.
        let name = format!("{lost}.{extension}");
        fs::copy(sandbox.path(format!("backups/app/{name}")), sandbox.path("moved.bin")).unwrap();
        fs::remove_file(sandbox.path(format!("backups/app/{lost}.json"))).unwrap();
        sandbox.ok(&["copy", "./moved.bin", "--to", "backups"]);
        sandbox.ok(&["copy", "./moved.bin", "--to", "far", "--create"]);
        for store in ["backups", "far"] {
            assert_eq!(fs::read(sandbox.path(format!("{store}/app/{lost}.json"))).unwrap(), document);
            sandbox.ok(&["verify", &lost, "--store", store]);
        }
        let again = sandbox.json(&["copy", "./moved.bin", "--to", "far"]);
        assert_eq!(again["snapshots"][0]["was_there"], true, "{again:#}");
        // A broken archive there is mended.
        fs::remove_file(sandbox.path(format!("far/app/{name}"))).unwrap();
        let mended = sandbox.json(&["copy", "./moved.bin", "--to", "far"]);
        assert_eq!(mended["snapshots"][0]["mended"], true, "{mended:#}");
        sandbox.ok(&["verify", &lost, "--store", "far"]);
    }
}

#[test]
fn copy_never_touches_another_archive_of_the_same_name() {
    let (sandbox, lost, _, _) = store_with_lost_manifest(&[]);
    fs::copy(archive(&sandbox, &lost), sandbox.path("x.tar.gz")).unwrap();
    let other = vec![7; 5000];
    fs::write(archive(&sandbox, &lost), &other).unwrap();
    let run = refused(&sandbox, &["copy", "./x.tar.gz", "--to", "backups"], 1);
    assert!(run.stderr().contains("--without-manifest"), "{}", run.transcript());
    assert_eq!(fs::read(archive(&sandbox, &lost)).unwrap(), other);
    refused(&sandbox, &["copy", &lost, "--from", "backups", "--to", "backups"], 3);
    assert_eq!(fs::read(archive(&sandbox, &lost)).unwrap(), other);
}

#[test]
fn prune_never_deletes_an_archive_without_a_manifest_unless_it_is_named() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    // One that was cut, and is data all the same; and one that holds nothing.
    let (cut, empty) = ("app-20200101T000000Z-0000", "app-20200101T000000Z-0001");
    let whole = fs::read(archive(&sandbox, &lost)).unwrap();
    fs::write(archive(&sandbox, cut), &whole[..whole.len() / 2]).unwrap();
    fs::write(archive(&sandbox, empty), b"").unwrap();
    age(&sandbox, "backups");
    let prune = ["prune", "--keep-last", "1", "--keep-others", "0s", "--yes", "--store", "backups"];
    let run = sandbox.ok(&prune).says("have no manifest");
    assert!(run.stdout().contains(&lost) && run.stdout().contains("--without-manifest"), "{}", run.transcript());
    assert!(archive(&sandbox, &lost).exists() && archive(&sandbox, cut).exists() && !archive(&sandbox, empty).exists());
    let report = sandbox.ok(&[&prune[..], &["--json"]].concat()).json();
    assert_eq!(ids(&report, "without_manifest"), [lost.clone(), cut.to_owned()]);
    assert_eq!((ids(&report, "keep"), ids(&report, "delete")), (vec![kept.clone()], vec![]));

    // Named: first the plan, then the deletion.
    let named = ["prune", "--without-manifest", &lost, cut, "--store", "backups"];
    let plan = sandbox.json(&named);
    assert_eq!((&plan["dry_run"], ids(&plan, "delete")), (&json!(true), vec![lost.clone(), cut.to_owned()]));
    assert!(archive(&sandbox, &lost).exists() && archive(&sandbox, cut).exists());
    refused(&sandbox, &["prune", "--without-manifest", &kept, "--yes", "--store", "backups"], 2).says("has a manifest");
    refused(&sandbox, &["prune", "--without-manifest", &lost, "app-1", "--yes", "--store", "backups"], 4);
    sandbox.run(&["prune", "--without-manifest", "", "--yes", "--store", "backups"]).code(4);
    sandbox.run(&[&named[..], &["--keep-last", "1"]].concat()).code(2);
    assert!(archive(&sandbox, &lost).exists() && archive(&sandbox, cut).exists());
    sandbox.ok(&[&named[..], &["--yes"]].concat());
    assert!(!archive(&sandbox, &lost).exists() && !archive(&sandbox, cut).exists());
    assert_eq!(sandbox.ids(), [kept]);
}

#[test]
fn verify_all_fails_for_old_archives_without_a_manifest() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    // A young one may be part of a snapshot that is being written.
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    age(&sandbox, "backups");
    for flags in [&[][..], &["--quick"]] {
        let run = sandbox.run(&[&["verify", "--all", "--json", "--store", "backups"], flags].concat()).code(3);
        let document = run.json();
        assert_eq!(ids(&document, "snapshots"), [kept.clone(), lost.clone()], "{document:#}");
        assert_eq!((&document["snapshots"][0]["ok"], &document["snapshots"][1]["ok"]), (&json!(true), &json!(false)));
        let problem = &document["snapshots"][1]["problems"][0];
        assert_eq!(problem["kind"], "without_manifest");
        assert!(problem["message"].as_str().unwrap().contains("lifeboat copy"), "{document:#}");
    }
    // The printed command puts it back.
    let run = sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
    assert!(run.stdout().contains("every byte of it is as it was written"), "{}", run.transcript());
    let command = run.stdout().split("'lifeboat ").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    sandbox.ok(&command.split(' ').collect::<Vec<_>>());
    sandbox.ok(&["verify", "--all", "--store", "backups"]);
    // Also if nothing else is there.
    for id in [&lost, &kept] {
        fs::remove_file(sandbox.path(format!("backups/app/{id}.json"))).unwrap();
    }
    age(&sandbox, "backups");
    sandbox.run(&["verify", "--all", "--store", "backups"]).code(3);
    assert_eq!(ids(&sandbox.json(&["list", "--store", "backups"]), "without_manifest"), [kept, lost]);
}

#[test]
fn an_encrypted_archive_without_a_manifest_is_used_with_its_key() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 4, "delete");
    sandbox.ok(&["keygen", "--output", "key.txt"]);
    let public = sandbox.ok(&["keygen", "--public", "key.txt"]).stdout();
    let recipient = public.split_whitespace().find(|word| word.starts_with("age1")).unwrap();
    let saved = sandbox.json(&["snapshot", "app.db", "--store", "backups", "--encrypt-to", recipient]);
    let id = saved["snapshots"][0]["id"].as_str().unwrap();
    let manifest = sandbox.path(format!("backups/app/{id}.json"));
    let document = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let key = ["--identity", "key.txt"];
    assert_eq!(ids(&sandbox.json(&["list", "--store", "backups"]), "without_manifest"), [id]);
    refused(&sandbox, &["restore", id, "--to", "new.db", "--store", "backups"], 2);
    for command in [&["verify", id][..], &["show", id], &["restore", id, "--to", "new.db"]] {
        sandbox.ok(&[command, &["--store", "backups"], &key].concat());
    }
    let path = format!("./backups/app/{id}.tar.gz.age");
    sandbox.ok(&[&["restore", &path, "--to", "second.db"][..], &key].concat());
    sandbox.ok(&[&["copy", id, "--from", "backups", "--to", "backups"][..], &key].concat());
    assert_eq!(fs::read(&manifest).unwrap(), document);
    sandbox.ok(&[&["verify", "--all", "--store", "backups"][..], &key].concat());
}

#[test]
fn a_bucket_keeps_archives_without_a_manifest() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 4, "delete");
    let bucket = Bucket::new();
    let store = bucket.store();
    let take = || Bucket::run(&sandbox, &["snapshot", "app.db", "--json", "--store", &store]).code(0).json();
    let (lost, kept) = (take(), take());
    let id = |saved: &Value| saved["snapshots"][0]["id"].as_str().unwrap().to_owned();
    let (lost, kept) = (id(&lost), id(&kept));
    let manifest = format!("p/app/{lost}.json");
    bucket.remove(&manifest);
    let listed = Bucket::run(&sandbox, &["list", "--json", "--store", &store]).code(0).json();
    assert_eq!((ids(&listed, "snapshots"), ids(&listed, "without_manifest")), (vec![kept], vec![lost.clone()]));
    Bucket::run(&sandbox, &["restore", &lost, "--to", "new.db", "--store", &store]).code(0);
    Bucket::run(&sandbox, &["prune", "--keep-last", "1", "--yes", "--store", &store]).code(0);
    assert!(bucket.keys().contains(&format!("p/app/{lost}.tar.gz")));
    Bucket::run(&sandbox, &["copy", &lost, "--from", &store, "--to", &store]).code(0);
    assert!(bucket.keys().contains(&manifest), "{:?}", bucket.keys());
    Bucket::run(&sandbox, &["verify", "--all", "--store", &store]).code(0);
}

/// The bytes that are left of a manifest after an accident.
const LOST: [&[u8]; 4] = [b"", b"{\"format\": 1, \"lifeboat_ver", &[0; 700], b"<html>"];

#[test]
fn an_archive_whose_manifest_was_cut_or_emptied_is_used_by_its_id_and_put_back() {
    for lost in LOST {
        let (sandbox, id, kept, document) = store_with_lost_manifest(&[]);
        let manifest = sandbox.path(format!("backups/app/{id}.json"));
        fs::write(&manifest, lost).unwrap();
        let before = sandbox.state();
        let shown = sandbox.ok(&["show", &id, "--json", "--store", "backups"]).says("is damaged");
        assert_eq!((&shown.json()["id"], &shown.json()["without_manifest"]), (&json!(id), &json!(true)));
        sandbox.ok(&["extract", &id, "--to", "files", "--store", "backups"]);
        fs::remove_dir_all(sandbox.path("files")).unwrap();
        let run = sandbox.ok(&["list", "--store", "backups"]);
        assert!(
            run.stdout().contains("manifest lost") && run.stdout().contains("lifeboat copy"),
            "{}",
            run.transcript()
        );
        sandbox.run(&["drill", &id, "--store", "backups"]).code(3);
        for which in [&id[..], "--all"] {
            let run = sandbox.run(&["verify", which, "--json", "--store", "backups"]).code(3);
            let outcomes = run.json()["snapshots"].as_array().unwrap().clone();
            let outcome = outcomes.iter().find(|outcome| outcome["id"] == id.as_str()).unwrap();
            let message = outcome["problems"][0]["message"].as_str().unwrap();
            assert!(message.contains("every byte of it is as it was written"), "{}", run.transcript());
            assert!(message.contains("lifeboat copy"), "{}", run.transcript());
        }
        sandbox.ok(&["prune", "--keep-last", "1", "--keep-others", "0s", "--yes", "--store", "backups"]);
        let mut after = sandbox.state();
        after.retain(|path, _| !path.to_string_lossy().contains(&format!("{kept}.proof-")));
        assert_eq!(after, before, "something was recorded about it, or deleted");
        sandbox.ok(&["restore", &id, "--to", "new.db", "--store", "backups"]).says("is damaged");
        assert_eq!(content(sandbox.path("new.db")), content(sandbox.path("app.db")));
        // It is not the latest.
        assert_eq!(sandbox.json(&["show", "latest", "--store", "backups"])["id"], json!(kept));
        let copied = sandbox.json(&["copy", &id, "--from", "backups", "--to", "backups"]);
        assert_eq!(copied["snapshots"][0]["manifest_written"], true, "{copied:#}");
        assert_eq!(fs::read(&manifest).unwrap(), document);
        sandbox.ok(&["verify", "--all", "--store", "backups"]);
        // A copy mends the manifest of the other store, too.
        sandbox.ok(&["copy", "--all", "--from", "backups", "--to", "far", "--create"]);
        let far = sandbox.path(format!("far/app/{id}.json"));
        fs::write(&far, lost).unwrap();
        sandbox.ok(&["copy", &id, "--from", "backups", "--to", "far"]);
        assert_eq!(fs::read(&far).unwrap(), document);
        sandbox.ok(&["verify", &id, "--store", "far"]);
    }
}

#[test]
fn a_damaged_archive_with_a_damaged_manifest_is_damaged() {
    let (sandbox, id, _, _) = store_with_lost_manifest(&[]);
    fs::write(sandbox.path(format!("backups/app/{id}.json")), "{").unwrap();
    flip_bytes(archive(&sandbox, &id), 300, 3);
    let run = sandbox.run(&["verify", &id, "--json", "--store", "backups"]).code(3);
    assert_eq!(run.json()["snapshots"][0]["level"], "damaged", "{}", run.transcript());
    refused(&sandbox, &["restore", &id, "--to", "new.db", "--store", "backups"], 3);
    refused(&sandbox, &["copy", &id, "--from", "backups", "--to", "backups"], 3);
    assert_eq!(fs::read(sandbox.path(format!("backups/app/{id}.json"))).unwrap(), b"{");
}

#[test]
fn a_store_that_has_nothing_but_archives_is_used() {
    let (sandbox, lost, kept, document) = store_with_lost_manifest(&[]);
    fs::remove_file(sandbox.path(format!("backups/app/{kept}.json"))).unwrap();
    fs::remove_file(sandbox.path("backups/lifeboat.json")).unwrap();
    let listed = sandbox.json(&["list", "--store", "backups"]);
    assert_eq!(ids(&listed, "without_manifest"), [kept, lost.clone()]);
    sandbox.ok(&["verify", &lost, "--store", "backups"]);
    sandbox.ok(&["restore", &lost, "--to", "new.db", "--store", "backups"]);
    assert!(!sandbox.path("backups/lifeboat.json").exists());
    sandbox.ok(&["copy", &lost, "--from", "backups", "--to", "backups"]);
    assert_eq!(fs::read(sandbox.path(format!("backups/app/{lost}.json"))).unwrap(), document);
    assert!(sandbox.path("backups/lifeboat.json").exists());
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
}

#[test]
fn copy_all_reports_the_archives_that_it_leaves_out() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    let copy = ["copy", "--all", "--from", "backups", "--to", "far", "--create"];
    // A young one may belong to a snapshot that is being written.
    sandbox.ok(&copy);
    age(&sandbox, "backups");
    let run = sandbox.run(&[&copy[..], &["--json"]].concat()).code(3).says(&lost).says("lifeboat copy");
    assert_eq!(ids(&run.json(), "snapshots"), [kept]);
    sandbox.ok(&["copy", &lost, "--from", "backups", "--to", "far"]);
}

#[test]
fn an_archive_is_not_put_back_beside_snapshots_of_another_database() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    fs::remove_file(sandbox.path(format!("backups/app/{kept}.json"))).unwrap();
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    sample(sandbox.path("elsewhere/app.db"), 2, "delete");
    sandbox.ok(&["snapshot", "elsewhere/app.db", "--store", "backups"]);
    let before = sandbox.state();
    let copy = ["copy", &lost, "--from", "backups", "--to", "backups"];
    refused(&sandbox, &copy, 2).says("elsewhere").says("separate store");
    assert_eq!(sandbox.state(), before);
}

#[test]
fn check_and_report_mention_archives_without_a_manifest() {
    let (sandbox, lost, kept, _) = store_with_lost_manifest(&[]);
    fs::write(
        sandbox.path("lifeboat.toml"),
        "[[store]]\nurl = \"backups\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
    )
    .unwrap();
    let of_archives = |run: &Run| {
        let document = run.json();
        let found = document["checks"].as_array().unwrap().iter().find(|check| check["name"] == "app: archives");
        found.cloned().unwrap_or_default()
    };
    // An older one is only mentioned.
    let run = sandbox.ok(&["check", "--json"]);
    let check = of_archives(&run);
    assert!(check["ok"] == true && check["message"].as_str().unwrap().contains(&lost), "{}", run.transcript());
    // The newest data of the source is not a snapshot.
    fs::remove_file(sandbox.path(format!("backups/app/{kept}.json"))).unwrap();
    sandbox.ok(&["copy", &lost, "--from", "backups", "--to", "backups"]);
    age(&sandbox, "backups");
    let run = sandbox.run(&["check", "--json"]).code(3);
    let check = of_archives(&run);
    assert!(check["ok"] == false && check["message"].as_str().unwrap().contains(&kept), "{}", run.transcript());
    let run = sandbox.run(&["report", "--html", "page.html", "--json"]);
    let page = fs::read_to_string(sandbox.path("page.html")).unwrap();
    assert!(page.contains("without a manifest") && page.contains(&kept), "{}", run.transcript());
    sandbox.ok(&["copy", &kept, "--from", "backups", "--to", "backups"]);
    let run = sandbox.ok(&["check", "--json"]);
    assert_eq!(of_archives(&run), Value::Null, "{}", run.transcript());
}
