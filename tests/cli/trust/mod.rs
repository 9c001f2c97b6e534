//! Snapshots that somebody else has put into the store, or has changed there: which ones are trusted.

mod attacks;
mod plaintext;
mod proofs;
mod signatures;

use std::fs;

use crate::gates::helpers::App;
use crate::support::{Run, Sandbox, open};

/// The lines of a config that encrypts to the key `key.txt`.
const ENCRYPTION: &str = "[encryption]\nrecipients = [\"PUBLIC\"]\nidentity_file = \"./key.txt\"\n";

/// Returns an app whose config encrypts, with an encrypted snapshot of 40 accounts.
fn encrypted_app() -> App {
    let app = App::new("");
    encrypt(&app);
    app.sandbox.ok(&["snapshot"]);
    app
}

/// Makes a key, and lets the config encrypt to it.
fn encrypt(app: &App) {
    let public = make_key(&app.sandbox);
    app.write_config(&ENCRYPTION.replace("PUBLIC", &public));
}

/// Makes the key `key.txt`, and returns its public half.
fn make_key(sandbox: &Sandbox) -> String {
    sandbox.ok(&["keygen", "--output", "key.txt"]);
    sandbox.ok(&["keygen", "--public", "key.txt"]).stdout().trim().to_owned()
}

/// Takes a snapshot of another database as somebody else would, without the config of the app, and puts it into the store.
/// All accounts of it are `mallory`. `command` takes the snapshot. Returns its id.
fn plant(app: &App, command: &[&str]) -> String {
    let evil = app.sandbox.path("evil");
    let _ = fs::remove_dir_all(&evil);
    fs::create_dir_all(evil.join("store/app")).unwrap();
    fs::copy(app.sandbox.path("backups/lifeboat.json"), evil.join("store/lifeboat.json")).unwrap();
    open(evil.join("app.db"))
        .execute_batch(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, name TEXT);
             CREATE TABLE balances (id INTEGER PRIMARY KEY, account INTEGER, amount REAL, created_at TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
             INSERT INTO balances SELECT i, i % 40 + 1, i * 1.5, datetime('now') FROM n;
             INSERT INTO accounts (name) SELECT 'mallory' FROM balances LIMIT 50;",
        )
        .unwrap();
    let mut all = command.to_vec();
    all.extend(["evil/app.db", "--store", "evil/store", "--config", "/dev/null", "--host", "test"]);
    let document = app.sandbox.json(&all);
    let id = document["snapshots"][0]["id"].as_str().unwrap().to_owned();
    // It says that it is of the app's database.
    for file in fs::read_dir(evil.join("store/app")).unwrap().flatten() {
        fs::copy(file.path(), app.sandbox.path("backups/app").join(file.file_name())).unwrap();
    }
    id
}

/// Requires that no account of the database is `mallory`.
#[track_caller]
fn assert_not_mallory(app: &App, run: &Run) {
    let path = app.sandbox.path("app/app.db");
    let mallory = "SELECT count(*) FROM accounts WHERE name = 'mallory'";
    assert!(!path.exists() || app.integer(mallory) == 0, "{}", run.transcript());
}

/// Writes a config that signs with `sign.key` and trusts these public keys. `more` is added to it.
fn sign_with(app: &App, trusted: &[&str], more: &str) {
    let trusted: Vec<String> = trusted.iter().map(|key| format!("\"{key}\"")).collect();
    let section = format!("[signing]\nkey_file = \"./sign.key\"\ntrusted = [{}]\n{more}", trusted.join(", "));
    app.write_config(&section);
}

/// Makes the signing key `name`, and returns its public half.
fn make_signing_key(app: &App, name: &str) -> String {
    app.sandbox.ok(&["keygen", "--signing", "--output", name]);
    app.sandbox.ok(&["keygen", "--public", name]).stdout().trim().to_owned()
}

/// Returns an app whose config signs with the key `sign.key` and trusts no other, with a signed snapshot of 40 accounts.
/// `more` is added to the config. Also returns the public key.
fn signed_app(more: &str) -> (App, String) {
    let app = App::new("");
    let public = make_signing_key(&app, "sign.key");
    sign_with(&app, &[&public], more);
    app.sandbox.ok(&["snapshot"]);
    (app, public)
}

/// Returns the path of an object of a snapshot.
fn object(app: &App, id: &str, ending: &str) -> std::path::PathBuf {
    app.sandbox.path(format!("backups/app/{id}{ending}"))
}

/// Requires that nothing restores or believes a snapshot, which is in the store beside the good one `own`.
#[track_caller]
fn assert_distrusted(app: &App, own: &str, forged: &str) {
    app.sandbox.run(&["restore", forged, "--to", "copy.db"]).code(3).says("not trusted");
    assert!(!app.sandbox.path("copy.db").exists());
    app.sandbox.run(&["drill", forged]).code(3).says("not trusted");
    app.sandbox.run(&["verify", forged]).code(3);
    app.remove_database();
    let run = app.sandbox.run(&["guard", "--", "true"]).code(3).says(forged).says("not trusted");
    assert_not_mallory(app, &run);
    assert!(!app.sandbox.path("app/app.db").exists(), "{}", run.transcript());
    let run = app.sandbox.ok(&["restore", "latest"]).says(&format!("skipping {forged}"));
    assert!(run.stdout().contains(own), "{}", run.transcript());
    assert_not_mallory(app, &run);
}
