//! Encryption as the config says it.

use std::fs;

use super::{SECRET, lifeboat, ready, with_config};
use crate::support::{Sandbox, count, sample};

/// A folder with a key, a database, and a config whose encryption section this is.
fn project(section: &str) -> (Sandbox, String) {
    let text = "[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n[encryption]\n";
    let sandbox = with_config(&format!("{text}{section}"));
    sample(sandbox.path("app.db"), 5, "delete");
    lifeboat(&sandbox, &["keygen", "--output", "key.txt"], &[]).code(0);
    let public = lifeboat(&sandbox, &["keygen", "--public", "key.txt"], &[]).code(0).stdout().trim().to_owned();
    ready(&sandbox, &[]);
    (sandbox, public)
}

/// How many archives are in the store, by whether they are encrypted.
fn archives(sandbox: &Sandbox) -> (usize, usize) {
    let files = fs::read_dir(sandbox.path("b/app")).into_iter().flatten().flatten();
    let names: Vec<String> =
        files.map(|file| file.file_name().into_string().unwrap()).filter(|name| name.contains(".tar.")).collect();
    let closed = names.iter().filter(|name| name.ends_with(".age")).count();
    (closed, names.len() - closed)
}

#[test]
fn recipients_close_and_an_identity_opens() {
    let (sandbox, public) = project("recipients = [\"${PUBLIC}\"]\nidentity_file = \"key.txt\"\n");
    let variables = [("PUBLIC", public.as_str())];
    lifeboat(&sandbox, &["snapshot"], &variables).code(0);
    assert_eq!(archives(&sandbox), (1, 0));
    fs::remove_file(sandbox.path("app.db")).unwrap();
    lifeboat(&sandbox, &["restore", "latest", "--yes"], &variables).code(0);
    assert_eq!(count(sandbox.path("app.db"), "accounts"), 5);
    lifeboat(&sandbox, &["verify", "--all"], &variables).code(0);
    // A machine that only saves has no such file.
    fs::rename(sandbox.path("key.txt"), sandbox.path("away.txt")).unwrap();
    lifeboat(&sandbox, &["snapshot"], &variables).code(0);
    lifeboat(&sandbox, &["restore", "latest", "--yes", "--to", "copy.db"], &variables).code(2);
    assert!(!sandbox.path("copy.db").exists());
}

#[test]
fn what_was_to_be_encrypted_is_never_saved_in_the_clear() {
    for (section, variables, words) in [
        ("recipients = [\"${PUBLIC}\"]\n", vec![], "the variable PUBLIC is not set"),
        ("recipients = [\"${PUBLIC}\"]\n", vec![("PUBLIC", "")], "are empty"),
        ("recipients = [\"${PUBLIC:-}\"]\n", vec![], "are empty"),
        ("recipients = [\"${PUBLIC}\"]\n", vec![("PUBLIC", SECRET)], "is no public key"),
        ("passphrase_file = \"${PASS}\"\n", vec![("PASS", "")], "are empty"),
        ("passphrase_file = \"absent\"\n", vec![], "absent"),
    ] {
        let (sandbox, _) = project("");
        let path = sandbox.path("lifeboat.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + section).unwrap();
        let run = lifeboat(&sandbox, &["snapshot"], &variables).code(2).says(words);
        assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
        assert_eq!(archives(&sandbox), (0, 0), "{}", run.transcript());
    }
}

#[test]
fn a_passphrase_closes_and_opens() {
    let (sandbox, _) = project("passphrase_file = \"pass\"\n");
    fs::write(sandbox.path("pass"), format!("{SECRET}\n")).unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    assert_eq!(archives(&sandbox), (1, 0));
    lifeboat(&sandbox, &["restore", "latest", "--yes", "--to", "copy.db"], &[]).code(0);
    assert_eq!(count(sandbox.path("copy.db"), "accounts"), 5);
    let (sandbox, public) = project("recipients = [\"${PUBLIC}\"]\npassphrase_file = \"pass\"\n");
    lifeboat(&sandbox, &["list"], &[("PUBLIC", &public)]).code(2).says("not both");
}
