//! Snapshots and restores of public databases from other projects.

use std::fs;

use crate::helpers::{flip_bytes, id_of, refused};
use crate::support::{Sandbox, real_database};

type Damage = Box<dyn Fn(&std::path::Path)>;

/// Takes a snapshot, verifies, drills and restores it, and requires that the restored file has the same bytes.
fn round_trip(name: &str, compression: &str) {
    let sandbox = Sandbox::new();
    let source = real_database(name);
    let source = source.to_str().unwrap();
    let bytes = lifeboat::platform::digest::Sha256::of(&fs::read(source).unwrap());
    crate::helpers::empty_store(&sandbox.path("backups"));
    let document = sandbox.json(&["snapshot", source, "--compression", compression, "--store", "backups"]);
    let id = id_of(&document);
    for table in document["snapshots"][0]["tables"].as_array().unwrap() {
        assert!(table["digest"].is_string(), "{table:#}");
    }
    assert_eq!(sandbox.json(&["verify", &id, "--store", "backups"])["ok"], true);
    assert_eq!(sandbox.json(&["drill", &id, "--store", "backups"])["ok"], true);
    sandbox.ok(&["restore", &id, "--to", "copy.db", "--store", "backups"]);
    let copy = lifeboat::platform::digest::Sha256::of(&fs::read(sandbox.path("copy.db")).unwrap());
    assert_eq!(copy, bytes, "{name}");
    assert_eq!(lifeboat::platform::digest::Sha256::of(&fs::read(source).unwrap()), bytes, "{name} itself was changed");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn proj_is_restored_with_the_same_bytes() {
    round_trip("proj.db", "gzip:6");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn cangjie_is_restored_with_the_same_bytes() {
    round_trip("cangjie.db", "zstd");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn jamdict_is_restored_with_the_same_bytes() {
    round_trip("jamdict.db", "zstd:1");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn damaged_copies_of_proj_are_detected() {
    let sandbox = Sandbox::new();
    let original = fs::read(real_database("proj.db")).unwrap();
    crate::helpers::empty_store(&sandbox.path("backups"));
    fs::create_dir(sandbox.path("scratch")).unwrap();
    let pages = original.len() / 4096;
    let damage_page = |page: usize| move |path: &std::path::Path| flip_bytes(path, page * 4096, 128);
    let damages: Vec<(&str, Damage)> = vec![
        ("half of it", Box::new(|path| fs::write(path, &fs::read(path).unwrap()[..4_000_000]).unwrap())),
        ("a page of the first half", Box::new(damage_page(pages / 4))),
        ("a page in the middle", Box::new(damage_page(pages / 2))),
        ("a page of the last half", Box::new(damage_page(pages - pages / 8))),
        ("the schema", Box::new(|path| flip_bytes(path, 100, 300))),
    ];
    for (description, damage) in damages {
        fs::write(sandbox.path("proj.db"), &original).unwrap();
        damage(&sandbox.path("proj.db"));
        refused(&sandbox, &["snapshot", "proj.db", "--store", "backups"], 3).says("proj.db");
        let bytes = fs::read(sandbox.path("proj.db")).unwrap();
        let document =
            sandbox.json(&["snapshot", "proj.db", "--allow-damaged", "--compression", "zstd:1", "--store", "backups"]);
        assert_eq!(document["snapshots"][0]["kind"], "damaged", "{description}");
        let out = format!("out of {description}");
        sandbox.ok(&["extract", &id_of(&document), "--to", &out, "--store", "backups"]);
        assert!(fs::read(sandbox.path(out).join("data/proj.db")).unwrap() == bytes, "{description}");
    }
    refused(&sandbox, &["show", "latest", "--store", "backups"], 4);
}
