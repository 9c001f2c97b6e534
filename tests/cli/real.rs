//! Databases that others made.

use std::fs;

use crate::helpers::{flip, id_of, refused};
use crate::support::{Sandbox, real_database};

type Damage = Box<dyn Fn(&std::path::Path)>;

/// Snapshot, verify, drill and restore; the copy is the file that was saved.
fn survives(name: &str, compression: &str) {
    let sandbox = Sandbox::new();
    let source = real_database(name);
    let source = source.to_str().unwrap();
    let bytes = lifeboat::platform::digest::Sha256::of(&fs::read(source).unwrap());
    crate::helpers::empty_store(&sandbox.path("backups"));
    let taken = sandbox.json(&["snapshot", source, "--compression", compression, "--store", "backups"]);
    let id = id_of(&taken);
    for table in taken["snapshots"][0]["tables"].as_array().unwrap() {
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
fn proj_comes_back_byte_for_byte() {
    survives("proj.db", "gzip:6");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn cangjie_comes_back_byte_for_byte() {
    survives("cangjie.db", "zstd");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn jamdict_comes_back_byte_for_byte() {
    survives("jamdict.db", "zstd:1");
}

#[test]
#[ignore = "needs databases that scripts/test fetches"]
fn broken_copies_of_proj_are_found_out() {
    let sandbox = Sandbox::new();
    let original = fs::read(real_database("proj.db")).unwrap();
    crate::helpers::empty_store(&sandbox.path("backups"));
    fs::create_dir(sandbox.path("scratch")).unwrap();
    let pages = original.len() / 4096;
    let middle = |page: usize| move |path: &std::path::Path| flip(path, page * 4096, 128);
    let damages: Vec<(&str, Damage)> = vec![
        ("half of it", Box::new(|path| fs::write(path, &fs::read(path).unwrap()[..4_000_000]).unwrap())),
        ("a page of the first half", Box::new(middle(pages / 4))),
        ("a page in the middle", Box::new(middle(pages / 2))),
        ("a page of the last half", Box::new(middle(pages - pages / 8))),
        ("the schema", Box::new(|path| flip(path, 100, 300))),
    ];
    for (what, damage) in damages {
        fs::write(sandbox.path("proj.db"), &original).unwrap();
        damage(&sandbox.path("proj.db"));
        refused(&sandbox, &["snapshot", "proj.db", "--store", "backups"], 3).says("proj.db");
        let bytes = fs::read(sandbox.path("proj.db")).unwrap();
        let taken =
            sandbox.json(&["snapshot", "proj.db", "--allow-damaged", "--compression", "zstd:1", "--store", "backups"]);
        assert_eq!(taken["snapshots"][0]["kind"], "damaged", "{what}");
        let out = format!("out of {what}");
        sandbox.ok(&["extract", &id_of(&taken), "--to", &out, "--store", "backups"]);
        assert!(fs::read(sandbox.path(out).join("data/proj.db")).unwrap() == bytes, "{what}");
    }
    refused(&sandbox, &["show", "latest", "--store", "backups"], 4);
}
