//! A store whose `lifeboat.json` is missing or damaged: it is read as long as a manifest can be, and the next command
//! that writes to it writes the file again.

use std::fs;

use crate::helpers::refused;
use crate::support::bucket::{Bucket, refusal};
use crate::support::{Run, Sandbox, sample};

/// The bytes that are left of `lifeboat.json` after an accident; `None` if it does not exist.
const DAMAGED: [Option<&str>; 8] = [
    None,
    Some(""),
    Some("\n"),
    Some("{\"lifeboat_st"),
    Some("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    Some("{\"lifeboat_store\":0}"),
    Some("{\"lifeboat_store\":\"1\"}"),
    Some("<html>not a mark</html>"),
];

const MARK: &str = "{\"lifeboat_store\":1}";

fn store_with_snapshot() -> (Sandbox, String) {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let id = sandbox.snapshot("app.db");
    (sandbox, id)
}

fn damage(sandbox: &Sandbox, content: Option<&str>) {
    let path = sandbox.path("backups/lifeboat.json");
    match content {
        Some(content) => fs::write(path, content).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
}

fn mark(sandbox: &Sandbox, store: &str) -> String {
    fs::read_to_string(sandbox.path(format!("{store}/lifeboat.json"))).unwrap()
}

/// Requires exactly one warning about `lifeboat.json`.
#[track_caller]
fn warns_once(run: Run) -> Run {
    assert_eq!(run.stderr().matches("lifeboat.json in ").count(), 1, "{}", run.transcript());
    run
}

#[test]
fn a_store_is_read_without_its_mark_and_one_warning_is_printed() {
    for content in DAMAGED {
        let (sandbox, id) = store_with_snapshot();
        damage(&sandbox, content);
        for command in [
            &["list"][..],
            &["show", "latest"],
            &["verify", "--all"],
            &["restore", &id, "--to", "new.db"],
            &["diff", &id, "app.db"],
            &["prune", "--keep-last", "1"],
        ] {
            warns_once(sandbox.ok(&[command, &["--store", "backups"]].concat()));
        }
        // Commands that only read change nothing.
        let left = fs::read_to_string(sandbox.path("backups/lifeboat.json")).ok();
        assert_eq!(left.as_deref(), content);
    }
}

#[test]
fn snapshot_copy_and_init_write_the_mark_again() {
    for content in DAMAGED {
        let (sandbox, _) = store_with_snapshot();
        damage(&sandbox, content);
        sandbox.ok(&["snapshot", "app.db", "--store", "backups"]).says("written again");
        assert_eq!(mark(&sandbox, "backups"), MARK);
        assert_eq!(sandbox.ok(&["list", "--store", "backups"]).stderr(), "");

        // A store of the config, which only init creates.
        fs::write(
            sandbox.path("lifeboat.toml"),
            "[[store]]\nurl = \"backups\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
        )
        .unwrap();
        damage(&sandbox, content);
        sandbox.ok(&["snapshot"]).says("written again");
        assert_eq!(mark(&sandbox, "backups"), MARK);
        damage(&sandbox, content);
        sandbox.ok(&["init"]);
        assert_eq!(mark(&sandbox, "backups"), MARK);

        let copy = ["copy", "--all", "--from", "backups", "--to", "far"];
        sandbox.ok(&[&copy[..], &["--create"]].concat());
        match content {
            Some(content) => fs::write(sandbox.path("far/lifeboat.json"), content).unwrap(),
            None => fs::remove_file(sandbox.path("far/lifeboat.json")).unwrap(),
        }
        sandbox.ok(&copy).says("written again");
        assert_eq!(mark(&sandbox, "far"), MARK);
    }
}

#[test]
fn one_readable_manifest_is_enough() {
    let (sandbox, id) = store_with_snapshot();
    for _ in 0..3 {
        sandbox.snapshot("app.db");
    }
    for newer in sandbox.ids().iter().filter(|other| **other != id) {
        fs::write(sandbox.path(format!("backups/app/{newer}.json")), "{").unwrap();
    }
    fs::create_dir(sandbox.path("backups/0-empty")).unwrap();
    damage(&sandbox, None);
    let run = sandbox.ok(&["restore", "latest", "--to", "new.db", "--store", "backups"]);
    assert!(run.stdout().contains(&id), "{}", run.transcript());
    // Without any, the folder is not taken for a store: its disk may not be mounted.
    fs::write(sandbox.path(format!("backups/app/{id}.json")), "{").unwrap();
    refused(&sandbox, &["list", "--store", "backups"], 5).says("no lifeboat store");
    refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 2).says("not a lifeboat store");
    assert!(!sandbox.path("backups/lifeboat.json").exists());
}

#[test]
fn an_absent_store_of_the_config_is_still_an_error() {
    let (sandbox, _) = store_with_snapshot();
    fs::write(
        sandbox.path("lifeboat.toml"),
        "[[store]]\nurl = \"mount\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n",
    )
    .unwrap();
    for folder in ["", "mount", "mount/lost+found", "mount/app"] {
        if !folder.is_empty() {
            fs::create_dir(sandbox.path(folder)).unwrap();
        }
        let run = refused(&sandbox, &["snapshot"], 5);
        assert!(run.stderr().contains("mounted"), "{}", run.transcript());
        assert!(!sandbox.path("mount/lifeboat.json").exists(), "{}", run.transcript());
    }
}

#[test]
fn a_damaged_mark_in_a_folder_without_snapshots_is_an_error() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    fs::create_dir(sandbox.path("backups")).unwrap();
    for content in DAMAGED.into_iter().flatten().chain(["{\"name\": \"an app\"}", "[1]"]) {
        fs::write(sandbox.path("backups/lifeboat.json"), content).unwrap();
        refused(&sandbox, &["list", "--store", "backups"], 3).says("lifeboat.json");
        refused(&sandbox, &["snapshot", "app.db", "--store", "backups"], 3).says("lifeboat.json");
    }
}

#[test]
fn a_file_of_another_program_is_not_replaced() {
    let (sandbox, id) = store_with_snapshot();
    damage(&sandbox, Some("{\"name\": \"an app\"}"));
    sandbox.ok(&["show", &id, "--store", "backups"]).says("lifeboat.json");
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]).says("not written again");
    assert_eq!(mark(&sandbox, "backups"), "{\"name\": \"an app\"}");
    assert_eq!(sandbox.ids().len(), 2);
}

#[test]
fn the_mark_is_not_written_beside_manifests_of_a_newer_version() {
    let (sandbox, old) = store_with_snapshot();
    let newer = sandbox.snapshot("app.db");
    let make_newer = |id: &str| {
        let path = sandbox.path(format!("backups/app/{id}.json"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("\"format\": 1", "\"format\": 2", 1)).unwrap();
    };
    make_newer(&newer);
    damage(&sandbox, None);
    // One manifest can be read.
    sandbox.ok(&["restore", &old, "--to", "new.db", "--store", "backups"]);
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]).says("made by a newer lifeboat");
    assert!(!sandbox.path("backups/lifeboat.json").exists());
    // None can be read.
    sandbox.ids().iter().filter(|id| **id != newer).for_each(|id| make_newer(id));
    for command in [&["list"][..], &["snapshot", "app.db"]] {
        let run = refused(&sandbox, &[command, &["--store", "backups"]].concat(), 2);
        run.says("made by a newer lifeboat");
    }
    assert!(!sandbox.path("backups/lifeboat.json").exists());
}

#[test]
fn several_writers_write_the_mark_again_at_once() {
    for content in [None, Some("")] {
        let (sandbox, _) = store_with_snapshot();
        let sources: Vec<String> = (0..4).map(|number| format!("db{number}.db")).collect();
        sources.iter().for_each(|source| sample(sandbox.path(source), 2, "delete"));
        damage(&sandbox, content);
        let start = |source: &String| sandbox.start(&["snapshot", source, "--store", "backups"]);
        let running: Vec<_> = sources.iter().map(start).collect();
        for run in running {
            run.finish().code(0);
        }
        assert_eq!(mark(&sandbox, "backups"), MARK);
        assert_eq!(sandbox.ids().len(), 5);
    }
}

#[test]
fn a_bucket_whose_mark_has_expired_is_used() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let bucket = Bucket::new();
    let store = bucket.store();
    Bucket::run(&sandbox, &["snapshot", "app.db", "--store", &store]).code(0);
    bucket.remove("p/lifeboat.json");
    warns_once(Bucket::run(&sandbox, &["restore", "latest", "--to", "new.db", "--store", &store]).code(0));
    warns_once(Bucket::run(&sandbox, &["list", "--store", &store]).code(0));
    assert!(!bucket.keys().contains(&"p/lifeboat.json".to_owned()));
    Bucket::run(&sandbox, &["snapshot", "app.db", "--store", &store]).code(0).says("written again");
    assert!(bucket.keys().contains(&"p/lifeboat.json".to_owned()));
    assert_eq!(Bucket::run(&sandbox, &["list", "--store", &store]).code(0).stderr(), "");
    // Not a store: nothing but an empty prefix.
    let run = Bucket::run(&sandbox, &["list", "--store", &store.replace("/p?", "/q?")]).code(5);
    assert!(run.stderr().contains("no lifeboat store"), "{}", run.transcript());
}

#[test]
fn a_bucket_whose_manifests_cannot_be_read_now_is_not_taken_for_an_empty_one() {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    let is_archived = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = std::sync::Arc::clone(&is_archived);
    let bucket = Bucket::special(move |request| {
        let is_read = request.method == "GET" && request.key.ends_with(".json") && request.key.contains("/app/");
        let is_hit = is_read && flag.load(std::sync::atomic::Ordering::SeqCst);
        is_hit.then(|| {
            refusal("403 Forbidden", "InvalidObjectState", "The operation is not valid for the object's storage class")
        })
    });
    let store = bucket.store();
    Bucket::run(&sandbox, &["snapshot", "app.db", "--store", &store]).code(0);
    bucket.remove("p/lifeboat.json");
    is_archived.store(true, std::sync::atomic::Ordering::SeqCst);
    for command in [&["list"][..], &["snapshot", "app.db"]] {
        let run = Bucket::run(&sandbox, &[command, &["--store", &store]].concat()).code(5);
        assert!(!run.stderr().contains("no lifeboat store"), "{}", run.transcript());
    }
    assert!(!bucket.keys().contains(&"p/lifeboat.json".to_owned()));
}
