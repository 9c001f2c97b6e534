//! Somebody who may write to the store, and has no key.

use std::fs;
use std::time::{Duration, Instant};

use chrono::Utc;

use super::{assert_distrusted, make_signing_key, object, plant, sign_with, signed_app};
use crate::gates::helpers::{App, assert_one_failed};
use crate::helpers::{copy_with_time, shell_ok};
use crate::support::craft::{Codec, Layout, file};
use crate::support::{have, skip};

/// Makes an archive of the same length as that of a snapshot, with the same manifest in it, and with another image.
fn forge(app: &App, id: &str) -> Vec<u8> {
    let entry = |name: &str| {
        let to = format!("entry-{}", name.replace('/', "-"));
        app.sandbox.ok(&["extract", id, "--entry", name, "--to", &to]);
        fs::read(app.sandbox.path(to)).unwrap()
    };
    let (manifest, image) = (entry("manifest.json"), entry("data/app.db"));
    let wanted = fs::read(object(app, id, ".tar.gz")).unwrap().len();
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    let noise: Vec<u8> = (0..image.len()).map(|_| next()).collect();
    // The more noise the image begins with, the longer is the archive. The noise in the other file makes small steps.
    let of_noise = |length: usize, more: usize| {
        let other = [&noise[..length], &vec![0; image.len() - length]].concat();
        let files = [
            file("README.txt", noise[..more].to_vec()),
            file("data/app.db", other),
            file("manifest.json", manifest.clone()),
        ];
        Layout::of(Codec::Gzip, &files, 4 << 20).bytes()
    };
    let is_near = |length: &usize| of_noise(*length, 1).len() + 64 >= wanted;
    let near = (0..image.len()).step_by(128).find(is_near).unwrap();
    let from = near.saturating_sub(128);
    let lengths = (1..64).flat_map(|more| (from..image.len().min(from + 256)).map(move |length| (length, more)));
    let mut forged = lengths.map(|(length, more)| of_noise(length, more));
    forged.find(|forged| forged.len() == wanted).expect("an archive of this length")
}

/// Takes a second snapshot, and returns the ids of the older and of the newer one.
fn two(app: &App) -> (String, String) {
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    app.sandbox.ok(&["snapshot"]);
    let ids = app.ids();
    (ids[1].clone(), ids[0].clone())
}

#[test]
fn an_old_snapshot_under_a_new_name_is_not_trusted() {
    let (app, _) = signed_app("");
    let own = app.ids()[0].clone();
    let forged = copy_with_time(&app.sandbox.path("backups"), &own, Utc::now());
    fs::copy(object(&app, &own, ".json.sig"), object(&app, &forged, ".json.sig")).unwrap();
    assert_distrusted(&app, &own, &forged);
}

#[test]
fn a_snapshot_that_another_key_has_signed_is_not_trusted() {
    let (app, public) = signed_app("");
    let own = app.ids()[0].clone();
    let other = App::new("");
    let theirs = make_signing_key(&other, "sign.key");
    sign_with(&other, &[&theirs], "");
    other.sandbox.ok(&["snapshot"]);
    let forged = other.ids()[0].clone();
    for ending in [".json", ".json.sig", ".tar.gz"] {
        fs::copy(object(&other, &forged, ending), object(&app, &forged, ending)).unwrap();
    }
    assert_distrusted(&app, &own, &forged);
    // Both keys may be trusted, as when one replaces the other.
    sign_with(&app, &[&public, &theirs], "");
    app.sandbox.ok(&["verify", "--all"]);
}

#[test]
fn a_changed_manifest_and_a_swapped_archive_are_found() {
    let (app, _) = signed_app("");
    let (older, newer) = two(&app);
    let manifest = fs::read_to_string(object(&app, &newer, ".json")).unwrap();
    fs::write(object(&app, &newer, ".json"), manifest.replace("\"tags\": []", "\"tags\": [\"x\"]")).unwrap();
    assert_distrusted(&app, &older, &newer);
    // White space, too.
    fs::write(object(&app, &newer, ".json"), format!("{manifest} ")).unwrap();
    app.sandbox.run(&["verify", &newer]).code(3);
    fs::write(object(&app, &newer, ".json"), &manifest).unwrap();
    app.sandbox.ok(&["verify", &newer]);
    // The archive and its hash of another one.
    fs::copy(object(&app, &older, ".tar.gz"), object(&app, &newer, ".tar.gz")).unwrap();
    app.sandbox.run(&["restore", &newer, "--to", "swapped.db"]).code(3).says("damaged");
}

#[test]
fn a_part_of_a_swapped_archive_is_not_read_either() {
    let (app, _) = signed_app("");
    app.sandbox.ok(&["snapshot", "--compression", "gzip:1"]);
    let id = app.ids()[0].clone();
    let path = object(&app, &id, ".tar.gz");
    let whole = fs::read(&path).unwrap();
    let forged = forge(&app, &id);
    assert_ne!(forged, whole);
    fs::write(&path, &forged).unwrap();
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(object(&app, &id, ".json")).unwrap()).unwrap();
    assert_eq!(manifest["archive_bytes"], forged.len());
    for arguments in [
        &["extract", &id, "--entry", "data/app.db", "--to", "part.db"][..],
        &["extract", &id, "--table", "accounts", "--to", "part.db"],
        &["restore", &id, "--to", "part.db"],
    ] {
        app.sandbox.run(arguments).code(3).says("its archive is another one than its manifest says");
        assert!(!app.sandbox.path("part.db").exists());
    }
}

#[test]
fn the_signature_of_another_document_is_none() {
    let (app, _) = signed_app("");
    let (older, newer) = two(&app);
    fs::copy(object(&app, &older, ".json.sig"), object(&app, &newer, ".json.sig")).unwrap();
    app.sandbox.run(&["restore", &newer, "--to", "copy.db"]).code(3).says("its signature is one of another document");
    // Of the same database under another name.
    app.sandbox.ok(&["snapshot", "app/app.db", "--name", "other", "--store", "backups"]);
    let other = app.sandbox.json(&["list", "--source", "other"])["snapshots"][0]["id"].as_str().unwrap().to_owned();
    fs::copy(app.sandbox.path(format!("backups/other/{other}.json.sig")), object(&app, &newer, ".json.sig")).unwrap();
    app.sandbox.run(&["restore", &newer, "--to", "copy.db"]).code(3).says("not trusted");
}

#[test]
fn an_object_that_is_not_exactly_one_signature_is_none() {
    let (app, _) = signed_app("");
    let id = app.ids()[0].clone();
    let path = object(&app, &id, ".json.sig");
    let signature = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = signature.lines().collect();
    let unarmored = lines[1..lines.len() - 1].concat();
    for forged in [
        String::new(),
        format!("{signature}x"),
        format!("{signature}\n"),
        format!("x\n{signature}"),
        format!("{signature}{signature}"),
        signature.replace("SSH SIGNATURE", "SIGNATURE"),
        signature.replace('\n', "\r\n"),
        unarmored,
        signature.replacen("AAAA", "AAAB", 1),
        "x".repeat(64 << 20),
    ] {
        fs::write(&path, &forged).unwrap();
        let start = forged.get(..200).unwrap_or(&forged);
        let run = app.sandbox.run(&["restore", &id, "--to", "copy.db"]);
        assert_eq!(run.exit(), 3, "{start}: {}", run.transcript());
        let _ = run.says("not trusted");
    }
    fs::write(&path, signature.trim_end()).unwrap();
    app.sandbox.ok(&["restore", &id, "--to", "copy.db"]);
}

#[test]
fn keys_of_other_types_and_signatures_for_other_purposes_are_refused() {
    if !have(&["ssh-keygen"]) {
        return skip("ssh-keygen is not installed");
    }
    let (app, _) = signed_app("");
    let id = app.ids()[0].clone();
    let sign = |key: &str, namespace: &str| {
        let file = format!("backups/app/{id}.json");
        shell_ok(&app.sandbox, &format!("rm -f {file}.sig; ssh-keygen -q -Y sign -f {key} -n {namespace} {file}"));
        app.sandbox.run(&["restore", &id, "--to", "copy.db"]).code(3).says("not trusted");
    };
    for kind in ["rsa", "ecdsa", "ed25519"] {
        shell_ok(&app.sandbox, &format!("ssh-keygen -q -t {kind} -N '' -f {kind}.key"));
        sign(&format!("{kind}.key"), "lifeboat-manifest");
        let public = fs::read_to_string(app.sandbox.path(format!("{kind}.key.pub"))).unwrap();
        if kind != "ed25519" {
            sign_with(&app, &[public.trim()], "");
            app.sandbox.run(&["list"]).code(2).says("signing.trusted");
            let own = app.sandbox.ok(&["keygen", "--public", "sign.key"]).stdout();
            sign_with(&app, &[own.trim()], "");
        }
    }
    sign("sign.key", "file");
    sign("sign.key", "lifeboat-proof");
    shell_ok(&app.sandbox, "ssh-keygen -q -t ed25519 -N '' -f ca; ssh-keygen -q -s ca -I x -n x ed25519.key.pub");
    let certificate = fs::read_to_string(app.sandbox.path("ed25519.key-cert.pub")).unwrap();
    sign_with(&app, &[certificate.trim()], "");
    app.sandbox.run(&["list"]).code(2);
}

#[test]
fn an_unsigned_proof_decides_nothing() {
    let (app, _) = signed_app("[backups]\nproof_within = \"1d\"\n");
    let id = app.ids()[0].clone();
    let write = |level: &str, time: &str| {
        let proof = serde_json::json!({"id": id, "level": level, "at": Utc::now(), "host": "x", "seconds": 1.0});
        let path = object(&app, &id, &format!(".proof-{time}.json"));
        fs::write(&path, serde_json::to_vec_pretty(&proof).unwrap()).unwrap();
        path
    };
    write("verified", "29990101T000000000Z");
    let (failed, _) = app.fails(&["check"]);
    assert!(failed[0].contains("no snapshot was ever"), "{failed:?}");
    let damaged = write("damaged", "29990101T000000001Z");
    fs::write(object(&app, &id, ".proof-29990101T000000002Z.json"), "garbage").unwrap();
    fs::write(object(&app, &id, ".proof-29990101T000000003Z.json"), "{\"format\": 99}").unwrap();
    app.remove_database();
    app.sandbox.ok(&["guard", "--", "true"]).says("is not trusted, and decides nothing");
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    app.sandbox.ok(&["verify", &id]);
    assert_eq!(app.sandbox.json(&["show", &id])["proof"], "verified");
    // A signed proof counts, and nobody can use that of another snapshot.
    app.passes(&["check"]);
    assert!(damaged.exists());
}

#[test]
fn an_unsigned_lease_does_not_delay_a_guard() {
    let (app, _) = signed_app("");
    let process = serde_json::json!({"node": "elsewhere", "boot": "b", "namespace": "pid:[1]", "pid": 1, "started": 1});
    let lease = serde_json::json!({
        "format": 1, "id": "zz", "host": "elsewhere", "started_at": Utc::now(), "began_ms": 1, "state": "running",
        "file": null, "process": process,
    });
    fs::write(app.sandbox.path("backups/app/guard.lease-zz-1"), serde_json::to_vec_pretty(&lease).unwrap()).unwrap();
    fs::write(app.sandbox.path("backups/app/guard.lease-yy-1"), "x".repeat(1 << 20)).unwrap();
    app.remove_database();
    let start = Instant::now();
    app.sandbox.ok(&["guard", "--handover", "60s", "--", "true"]).says("a lease of app is ignored");
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
}

#[test]
fn a_removed_snapshot_is_noticed_and_an_ordinary_prune_is_none() {
    let (app, _) = signed_app("[retention]\nkeep_last = 3\nafter_snapshot = true\n");
    for _ in 0..5 {
        two(&app);
    }
    let ids = app.ids();
    assert_eq!(ids.len(), 3);
    app.passes(&["check"]);
    let removed = &ids[1];
    for ending in [".json", ".json.sig", ".tar.gz"] {
        fs::remove_file(object(&app, removed, ending)).unwrap();
    }
    let (failed, _) = app.fails(&["check"]);
    assert_one_failed(&failed, &["app: history", removed, "is gone"]);
    // Without signatures, it is a remark: a person may have deleted it.
    app.write_config("[retention]\nkeep_last = 3\n");
    let document = app.passes(&["check"]);
    assert!(document.to_string().contains("is gone"), "{document:#}");
}

#[test]
fn many_unsigned_snapshots_end_a_search_and_not_the_memory_or_the_patience() {
    let (app, _) = signed_app("");
    let own = app.ids()[0].clone();
    let planted = plant(&app, &["snapshot"]);
    for number in 1..70 {
        copy_with_time(
            &app.sandbox.path("backups"),
            &planted,
            Utc::now() + chrono::Duration::milliseconds(20 * number),
        );
    }
    app.sandbox.run(&["restore", "latest", "--to", "copy.db"]).code(3).says("not trusted");
    app.sandbox.ok(&["restore", &own, "--to", "copy.db"]);
}
