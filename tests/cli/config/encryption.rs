//! Encryption that the config asks for.

use std::fs;

use super::{SECRET, create_stores, lifeboat, with_config};
use crate::support::{Sandbox, count, sample};

/// Creates a sandbox with a key, a database, and a config with these lines in `[encryption]`. Returns it with the
/// public key.
fn project(section: &str) -> (Sandbox, String) {
    let text = "[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n[encryption]\n";
    let sandbox = with_config(&format!("{text}{section}"));
    sample(sandbox.path("app.db"), 5, "delete");
    lifeboat(&sandbox, &["keygen", "--output", "key.txt"], &[]).code(0);
    let public = lifeboat(&sandbox, &["keygen", "--public", "key.txt"], &[]).code(0).stdout().trim().to_owned();
    create_stores(&sandbox, &[]);
    (sandbox, public)
}

/// Returns the number of encrypted and of unencrypted archives in the store.
fn archives(sandbox: &Sandbox) -> (usize, usize) {
    let files = fs::read_dir(sandbox.path("b/app")).into_iter().flatten().flatten();
    let names: Vec<String> =
        files.map(|file| file.file_name().into_string().unwrap()).filter(|name| name.contains(".tar.")).collect();
    let encrypted = names.iter().filter(|name| name.ends_with(".age")).count();
    (encrypted, names.len() - encrypted)
}

#[test]
fn recipients_encrypt_and_the_identity_decrypts() {
    let (sandbox, public) = project("recipients = [\"${PUBLIC}\"]\nidentity_file = \"key.txt\"\n");
    let variables = [("PUBLIC", public.as_str())];
    lifeboat(&sandbox, &["snapshot"], &variables).code(0);
    assert_eq!(archives(&sandbox), (1, 0));
    fs::remove_file(sandbox.path("app.db")).unwrap();
    lifeboat(&sandbox, &["restore", "latest", "--yes"], &variables).code(0);
    assert_eq!(count(sandbox.path("app.db"), "accounts"), 5);
    lifeboat(&sandbox, &["verify", "--all"], &variables).code(0);
    // A machine that only takes snapshots does not need the identity file.
    fs::rename(sandbox.path("key.txt"), sandbox.path("away.txt")).unwrap();
    lifeboat(&sandbox, &["snapshot"], &variables).code(0);
    lifeboat(&sandbox, &["restore", "latest", "--yes", "--to", "copy.db"], &variables).code(2);
    assert!(!sandbox.path("copy.db").exists());
}

#[test]
fn a_config_with_encryption_never_gives_an_unencrypted_archive() {
    for (section, variables, words) in [
        ("recipients = [\"${PUBLIC}\"]\n", vec![], "the variable PUBLIC is not set"),
        ("recipients = [\"${PUBLIC}\"]\n", vec![("PUBLIC", "")], "but empty"),
        ("recipients = [\"${PUBLIC:-}\"]\n", vec![], "but empty"),
        ("recipients = [\"${PUBLIC}\"]\n", vec![("PUBLIC", SECRET)], "is not an age public key"),
        ("passphrase_file = \"${PASS}\"\n", vec![("PASS", "")], "but empty"),
        ("passphrase_file = \"absent\"\n", vec![], "cannot read the passphrase file"),
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
fn a_passphrase_encrypts_and_decrypts() {
    let (sandbox, _) = project("passphrase_file = \"pass\"\n");
    fs::write(sandbox.path("pass"), format!("{SECRET}\n")).unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(0);
    assert_eq!(archives(&sandbox), (1, 0));
    lifeboat(&sandbox, &["restore", "latest", "--yes", "--to", "copy.db"], &[]).code(0);
    assert_eq!(count(sandbox.path("copy.db"), "accounts"), 5);
    let (sandbox, public) = project("recipients = [\"${PUBLIC}\"]\npassphrase_file = \"pass\"\n");
    lifeboat(&sandbox, &["list"], &[("PUBLIC", &public)]).code(2).says("not both");
}

#[test]
fn a_secret_that_is_given_as_the_path_of_its_file_is_never_printed() {
    const PHRASE: &str = "correct horse battery";
    let key = fs::read_to_string(project("").0.path("key.txt")).unwrap();
    let key = key.lines().last().unwrap().to_owned();
    let pem =
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAA\n-----END OPENSSH PRIVATE KEY-----";
    let is_key = "a secret key is given instead of the path of";
    for (section, value, part, words) in [
        ("identity_file = \"${VALUE}\"", key.as_str(), &key[20..40], is_key),
        ("identity_files = [\"${VALUE}\"]", &key, &key[20..40], is_key),
        ("passphrase_file = \"${VALUE}\"", &key, &key[20..40], is_key),
        ("passphrase_file = \"${VALUE}\"", PHRASE, "horse", "not the secret itself"),
        ("[signing]\nkey_file = \"${VALUE}\"", pem, "bm9uZQAAA", is_key),
        ("[signing]\nkey_file = \"${VALUE}\"", &pem[36..60], "zaC1rZXktdjE", is_key),
        ("[signing]\nkey_file = \"${VALUE}\"", PHRASE, "horse", "not the secret itself"),
        ("[serve]\ntoken_file = \"${VALUE}\"", PHRASE, "horse", "not the secret itself"),
        ("[serve]\nuser = \"u\"\npassword_file = \"${VALUE}\"", &key, &key[20..40], is_key),
    ] {
        let (sandbox, _) = project(&format!("{section}\n"));
        let variables = [("VALUE", value)];
        let mut said = false;
        let commands =
            [&["snapshot"][..], &["guard", "--", "true"], &["doctor"], &["restore", "latest", "--to", "new.db"]];
        let commands = if section.starts_with("[serve]") { &[&["serve"][..]][..] } else { &commands[..] };
        for command in commands {
            let run = lifeboat(&sandbox, &[&["-vv"], *command].concat(), &variables);
            assert!(!run.transcript().contains(part), "{section}: {}", run.transcript());
            said |= run.transcript().contains(words);
        }
        assert!(said, "{section}: nothing says {words}");
    }
    let (sandbox, _) = project("");
    for (flag, value, part) in [("--passphrase-file", PHRASE, "horse"), ("--identity", key.as_str(), &key[20..40])] {
        let run = lifeboat(&sandbox, &["list", "-vv", flag, value], &[]);
        assert!(!run.transcript().replace(value, "").contains(part), "{}", run.transcript());
        let run = lifeboat(&sandbox, &["verify", "--all", "-vv", flag, value], &[]).code(2);
        assert!(!run.stderr().contains(part), "{}", run.transcript());
    }
}
