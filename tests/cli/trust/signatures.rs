//! Snapshots are signed, and only signed ones are trusted, with keys and tools of OpenSSH.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{make_key, make_signing_key, object, plant, sign_with, signed_app};
use crate::gates::helpers::{App, assert_one_failed, failed_checks};
use crate::helpers::shell_ok;
use crate::support::bucket::Bucket;
use crate::support::{Sandbox, have, open, skip};

#[test]
fn ssh_keygen_verifies_the_signature_of_a_snapshot() {
    if !have(&["ssh-keygen"]) {
        return skip("ssh-keygen is not installed");
    }
    let (app, public) = signed_app("");
    let id = app.ids()[0].clone();
    fs::write(app.sandbox.path("allowed_signers"), format!("lifeboat {public}\n")).unwrap();
    // A page names this command.
    let command = "ssh-keygen -Y verify -f allowed_signers -I lifeboat -n lifeboat-manifest -s ID.json.sig < ID.json";
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md")).unwrap();
    assert!(page.contains(command));
    shell_ok(&app.sandbox, &command.replace("ID", &format!("backups/app/{id}")));
    // A manifest that ssh-keygen has signed is trusted.
    fs::remove_file(object(&app, &id, ".json.sig")).unwrap();
    app.sandbox.run(&["restore", "latest", "--to", "copy.db"]).code(3).says("it is not signed");
    shell_ok(&app.sandbox, &format!("ssh-keygen -Y sign -f sign.key -n lifeboat-manifest backups/app/{id}.json"));
    app.sandbox.ok(&["restore", "latest", "--to", "copy.db"]);
    // Proofs name the snapshot, and are signed, too.
    app.sandbox.ok(&["verify"]);
    let names = fs::read_dir(app.sandbox.path("backups/app")).unwrap().flatten().map(|file| file.path());
    let proof = names.into_iter().find(|path| path.to_string_lossy().contains("proof")).unwrap();
    assert!(fs::read_to_string(proof).unwrap().contains("BEGIN SSH SIGNATURE"));
}

#[test]
fn keys_of_keygen_and_of_ssh_keygen_are_equivalent() {
    if !have(&["ssh-keygen"]) {
        return skip("ssh-keygen is not installed");
    }
    let app = App::new("");
    let public = make_signing_key(&app, "sign.key");
    let mode = fs::metadata(app.sandbox.path("sign.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let derived = shell_ok(&app.sandbox, "ssh-keygen -y -f sign.key");
    let word = |text: &str| text.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(word(&String::from_utf8_lossy(&derived.stdout)), word(&public));
    shell_ok(&app.sandbox, "rm sign.key && ssh-keygen -q -t ed25519 -N '' -C 'a comment' -f sign.key");
    let public = fs::read_to_string(app.sandbox.path("sign.key.pub")).unwrap();
    sign_with(&app, &[public.trim()], "");
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["verify"]);
    assert_eq!(app.sandbox.ok(&["keygen", "--public", "sign.key"]).stdout(), public);
}

#[test]
fn a_key_that_cannot_be_used_fails_the_snapshot_and_is_never_printed() {
    if !have(&["ssh-keygen"]) {
        return skip("ssh-keygen is not installed");
    }
    let app = App::new("");
    let public = make_signing_key(&app, "good.key");
    sign_with(&app, &[&public], "");
    for (make, words) in [
        ("true", "cannot read the signing key"),
        ("ssh-keygen -q -t rsa -b 2048 -N '' -f sign.key", "not Ed25519"),
        ("ssh-keygen -q -t ed25519 -N 'secret words' -f sign.key", "has a passphrase"),
        ("cp good.key sign.key; chmod 644 sign.key", "can be read by other users"),
        ("head -c 100 good.key > sign.key; chmod 600 sign.key", "not a private key in the format of OpenSSH"),
    ] {
        shell_ok(&app.sandbox, &format!("rm -f sign.key sign.key.pub; {make}"));
        let run = app.sandbox.run(&["snapshot"]);
        assert_ne!(run.exit(), 0, "{make}: {}", run.transcript());
        let run = run.says(words);
        let key = fs::read_to_string(app.sandbox.path("good.key")).unwrap();
        let secret = key.lines().nth(2).unwrap();
        assert!(!run.transcript().contains(&secret[..20]), "{}", run.transcript());
        let left = fs::read_dir(app.sandbox.path("backups/app")).into_iter().flatten().count();
        assert_eq!(left, 0, "{make}: {}", run.transcript());
    }
    let run = app.sandbox.run(&["keygen", "--signing", "--json"]).code(2);
    assert!(!run.stdout().contains("PRIVATE"), "{}", run.transcript());
}

#[test]
fn every_command_works_with_signed_snapshots() {
    let (app, _) = signed_app("[backups]\nproof_within = \"1d\"\n");
    app.sandbox.ok(&["drill"]);
    app.passes(&["check"]);
    app.passes(&["predeploy", "--commit", "abc"]);
    app.passes(&["postdeploy", "--commit", "abc"]);
    app.sandbox.ok(&["diff", "latest"]);
    app.sandbox.ok(&["extract", "--entry", "README.txt", "--to", "-"]);
    app.remove_database();
    app.sandbox.ok(&["guard", "--", "true"]);
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 40);
    for id in app.ids() {
        assert!(object(&app, &id, ".json.sig").exists(), "{id}");
        app.sandbox.ok(&["delete", &id, "--yes"]);
    }
    let left: Vec<_> = fs::read_dir(app.sandbox.path("backups/app")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_unsigned_snapshot_is_refused_and_a_person_can_look_at_it() {
    let (app, _) = signed_app("");
    let own = app.ids()[0].clone();
    let planted = plant(&app, &["snapshot"]);
    super::assert_distrusted(&app, &own, &planted);
    let run = app.sandbox.ok(&["list"]);
    let line = run.stdout().lines().find(|line| line.contains(&planted)).unwrap().to_owned();
    assert!(line.contains("NOT-TRUSTED"), "{}", run.transcript());
    assert!(app.sandbox.ok(&["show", &planted]).stdout().contains("it is not signed"));
    app.sandbox.ok(&["restore", &planted, "--to", "looked-at.db", "--allow-unsigned"]);
    let (failed, _) = app.fails(&["check"]);
    assert_one_failed(&failed, &["app: newest", &planted, "not signed"]);
    let document = app.sandbox.run(&["doctor", "--json"]).code(3).json();
    assert_one_failed(&failed_checks(&document), &["app: trust", &planted]);
    // A guard has no such option.
    app.sandbox.run(&["guard", "--allow-unsigned", "--", "true"]).code(2);
    // The file of an archive has no signature, and neither has an archive without its manifest.
    let archive = format!("backups/app/{own}.tar.gz");
    app.sandbox.run(&["restore", &archive, "--to", "copy.db"]).code(3).says("only manifests are signed");
    app.sandbox.ok(&["restore", &archive, "--to", "copy.db", "--allow-unsigned"]);
}

#[test]
fn copies_keep_the_signature_and_a_manifest_that_is_written_again_fits_it() {
    let (app, _) = signed_app("");
    let id = app.ids()[0].clone();
    app.sandbox.ok(&["copy", &id, "--from", "backups", "--to", "other", "--create"]);
    app.sandbox.ok(&["restore", &id, "--store", "other", "--to", "copy.db"]);
    // A copy that lacks it gets it.
    fs::remove_file(app.sandbox.path(format!("other/app/{id}.json.sig"))).unwrap();
    app.sandbox.run(&["verify", &id, "--store", "other"]).code(3);
    app.sandbox.ok(&["copy", "--all", "--from", "backups", "--to", "other"]);
    app.sandbox.ok(&["verify", &id, "--store", "other"]);
    fs::remove_file(object(&app, &id, ".json")).unwrap();
    app.sandbox.run(&["restore", &id, "--to", "copy-2.db"]).code(3);
    let run = app.sandbox.ok(&["copy", &id, "--from", "backups", "--to", "backups"]);
    assert!(!run.stderr().contains("is not signed"), "{}", run.transcript());
    app.sandbox.ok(&["restore", &id, "--to", "copy-2.db"]);
    // Nobody vouches for an archive without a signature.
    fs::remove_file(object(&app, &id, ".json")).unwrap();
    fs::remove_file(object(&app, &id, ".json.sig")).unwrap();
    app.sandbox.ok(&["copy", &id, "--from", "backups", "--to", "backups"]).says("is not signed");
    app.sandbox.run(&["restore", &id, "--to", "copy-3.db"]).code(3).says("it is not signed");
}

#[test]
fn a_copy_that_is_encrypted_to_another_key_is_signed_anew() {
    let (app, public) = signed_app("");
    let age = make_key(&app.sandbox);
    app.sandbox.ok(&["snapshot", "--encrypt-to", &age]);
    let id = app.ids()[0].clone();
    let copy = |store: &str, more: &[&str]| {
        let arguments = ["copy", &id, "--from", "backups", "--to", store, "--create", "--identity", "key.txt"];
        app.sandbox.ok(&[&arguments[..], &["--encrypt-to", &age], more].concat())
    };
    copy("other", &[]);
    app.sandbox.ok(&["verify", &id, "--store", "other", "--identity", "key.txt"]);
    // Without a key, it says that the copy is not signed.
    app.write_config(&format!("[signing]\ntrusted = [\"{public}\"]\n"));
    copy("third", &[]).says("is not signed");
    app.sandbox.run(&["verify", &id, "--store", "third", "--identity", "key.txt"]).code(3);
}

#[test]
fn without_trusted_keys_nothing_is_checked_and_with_an_empty_variable_nothing_is_trusted() {
    let app = App::new("");
    make_signing_key(&app, "sign.key");
    app.write_config("[signing]\nkey_file = \"./sign.key\"\n");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    assert!(object(&app, &id, ".json.sig").exists());
    fs::write(object(&app, &id, ".json.sig"), "garbage").unwrap();
    app.sandbox.ok(&["restore", "latest", "--to", "copy.db"]);
    app.write_config("[signing]\ntrusted = [\"${TRUSTED:-}\"]\n");
    app.sandbox.run(&["restore", "latest", "--to", "copy-2.db"]).code(3);
    app.sandbox.run(&["snapshot"]).code(2).says("trusted or key_file is set, but empty");
}

#[test]
fn only_trusted_keys_cost_a_request_for_each_manifest_that_is_read() {
    let (sandbox, bucket) = (Sandbox::new(), Bucket::new());
    open(sandbox.path("a.db")).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1);").unwrap();
    sandbox.ok(&["keygen", "--signing", "--output", "sign.key"]);
    let public = sandbox.ok(&["keygen", "--public", "sign.key"]).stdout().trim().to_owned();
    let requests_of = |config: &str, arguments: &[&str]| {
        fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
        let before = bucket.web.requests().len();
        Bucket::run(&sandbox, &[arguments, &["--store", &bucket.store()]].concat()).code(0);
        bucket.web.request_lines().split_off(before)
    };
    let signs = "[signing]\nkey_file = \"./sign.key\"\n";
    let trusts = format!("{signs}trusted = [\"{public}\"]\n");
    requests_of(signs, &["snapshot", "a.db"]);
    for (number, command) in [&["list"][..], &["restore", "latest", "--to"], &["verify"]].into_iter().enumerate() {
        let run = |config: &str, target: &str| match command.last() {
            Some(&"--to") => requests_of(config, &[command, &[target]].concat()),
            _ => requests_of(config, command),
        };
        let plain = run("", &format!("{number}-plain.db"));
        let signing = run(signs, &format!("{number}-signs.db"));
        let trusting = run(&trusts, &format!("{number}-trusts.db"));
        let of_signatures = |lines: &[String]| lines.iter().filter(|line| line.contains(".json.sig")).count();
        assert_eq!((of_signatures(&plain), of_signatures(&signing)), (0, 0), "{command:?}");
        let of_manifests = |line: &&String| line.starts_with("GET") && line.contains("Z-") && line.contains(".json?");
        let manifests = trusting.iter().filter(of_manifests).filter(|line| !line.contains("proof")).count();
        let signatures = of_signatures(&trusting);
        assert!(signatures > 0 && signatures <= manifests, "{command:?}: {trusting:#?}");
        assert_eq!(trusting.len(), signing.len() + signatures, "{command:?}: {trusting:#?}");
    }
}

/// A machine that restores has only the public key. What it saves is not signed, and the commands that it prints say so.
#[test]
fn a_machine_without_a_key_can_undo_its_own_restore() {
    let (app, public) = signed_app("");
    app.write_config(&format!("[signing]\ntrusted = [\"{public}\"]\n"));
    app.sql("DELETE FROM accounts WHERE id > 5");
    let report = app.sandbox.json(&["restore", "latest", "--replace", "--yes"]);
    let undo = report["undo"].as_str().unwrap();
    let folder = std::path::Path::new(crate::support::LIFEBOAT).parent().unwrap().display().to_string();
    shell_ok(&app.sandbox, &format!("PATH={folder}:$PATH; {undo} --yes"));
    assert_eq!(app.integer("SELECT count(*) FROM accounts"), 5);
    app.sandbox.run(&["snapshot"]).says("is not trusted here: no key in trusted of [signing] signs it");
    // With the key, nothing is said.
    sign_with(&app, &[&public], "");
    let run = app.sandbox.run(&["snapshot", "--accept"]).code(0);
    assert!(!run.stderr().contains("is not trusted here"), "{}", run.transcript());
}
