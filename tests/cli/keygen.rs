//! `keygen`: key files, public keys, and secrets that are never printed by mistake.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::helpers::{assert_one_error, error_document, field_names, refused, refused_by_the_parser, silent};
use crate::support::{Run, Sandbox};

const SECRET: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

/// Returns the public key that stderr names.
#[track_caller]
fn printed_public_key(run: &Run) -> String {
    let stderr = run.stderr();
    let key = stderr.strip_prefix("public key: ").and_then(|rest| rest.strip_suffix('\n'));
    key.unwrap_or_else(|| panic!("{}", run.transcript())).to_owned()
}

/// Requires that this is the text of a key file for this public key.
#[track_caller]
fn assert_key_file(text: &str, public: &str) {
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let created = lines[0].strip_prefix("# created: ").unwrap();
    assert!(chrono::DateTime::parse_from_rfc3339(created).is_ok(), "{created}");
    assert_eq!(lines[1], format!("# public key: {public}"));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1"));
}

#[test]
fn keygen_prints_the_key_file_on_stdout_and_the_public_key_on_stderr() {
    let sandbox = Sandbox::new();
    let (one, two) = (sandbox.ok(&["keygen"]), sandbox.ok(&["keygen"]));
    assert_key_file(&one.stdout(), &printed_public_key(&one));
    assert_key_file(&two.stdout(), &printed_public_key(&two));
    assert_ne!(printed_public_key(&one), printed_public_key(&two));
    let quiet = silent(sandbox.ok(&["keygen", "--quiet"]));
    assert!(quiet.stdout().contains("AGE-SECRET-KEY-1"), "{}", quiet.transcript());
}

#[test]
fn keygen_writes_a_file_that_only_its_owner_can_read() {
    let sandbox = Sandbox::new();
    let run = sandbox.ok(&["keygen", "--output", "key.txt"]);
    assert_eq!(run.stdout(), "", "{}", run.transcript());
    assert_key_file(&fs::read_to_string(sandbox.path("key.txt")).unwrap(), &printed_public_key(&run));
    assert_eq!(fs::metadata(sandbox.path("key.txt")).unwrap().permissions().mode() & 0o7777, 0o600);
    let public = silent(sandbox.ok(&["keygen", "--public", "key.txt"]));
    assert_eq!(public.stdout(), format!("{}\n", printed_public_key(&run)));
    // The folder contains no other file.
    assert_eq!(sandbox.state().len(), 1, "{}", run.transcript());
}

#[test]
fn keygen_never_overwrites_a_file() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["keygen", "-o", "key.txt"]);
    refused(&sandbox, &["keygen", "-o", "key.txt"], 2).says("key.txt already exists").says("hint: name another file");
    std::os::unix::fs::symlink("nowhere", sandbox.path("link")).unwrap();
    refused(&sandbox, &["keygen", "-o", "link"], 2).says("link already exists");
    fs::create_dir(sandbox.path("folder")).unwrap();
    refused(&sandbox, &["keygen", "-o", "folder"], 2).says("folder already exists");
    refused(&sandbox, &["keygen", "-o", "no/key.txt"], 1).says("cannot write the key to no/key.txt");
}

#[test]
fn keygen_never_prints_the_secret_key_in_json() {
    let sandbox = Sandbox::new();
    let run = sandbox.run(&["keygen", "--json"]).code(2);
    assert!(!run.stdout().contains("AGE-SECRET-KEY-1"), "{}", run.transcript());
    assert!(error_document(&run, "usage")["hint"].as_str().unwrap().contains("--output FILE"));

    let run = sandbox.ok(&["keygen", "--json", "--output", "key.txt"]);
    assert!(!run.stdout().contains("AGE-SECRET-KEY-1"), "{}", run.transcript());
    let document = run.json();
    assert_eq!(field_names(&document).into_iter().collect::<Vec<_>>(), ["path", "public_key"]);
    assert_eq!(document["path"], "key.txt");
    assert_eq!(document["public_key"], printed_public_key(&run));
    let document = sandbox.json(&["keygen", "--public", "key.txt"]);
    assert_eq!(document["public_keys"][0], printed_public_key(&run));
}

#[test]
fn keygen_shows_the_public_keys_of_a_file() {
    let sandbox = Sandbox::new();
    let other = sandbox.ok(&["keygen"]);
    let path = sandbox.path("keys.txt");
    fs::write(&path, format!("# two\r\n{SECRET}\r\n\r\n{}", other.stdout())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let run = silent(sandbox.ok(&["keygen", "--public", "keys.txt"]));
    assert_eq!(run.stdout(), format!("{PUBLIC}\n{}\n", printed_public_key(&other)));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let run = sandbox.ok(&["keygen", "--public", "keys.txt"]).says("WARN").says("keys.txt can be read by other users");
    assert_eq!(run.stdout(), format!("{PUBLIC}\n{}\n", printed_public_key(&other)));
}

#[test]
fn keygen_never_shows_a_secret_key_in_an_error() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("broken.txt"), format!("{}\n", &SECRET[..60])).unwrap();
    fs::set_permissions(sandbox.path("broken.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    for arguments in [["keygen", "--public", SECRET], ["keygen", "--public", "broken.txt"]] {
        let run = sandbox.run(&arguments).code(2);
        assert_one_error(&run);
        assert!(!run.stderr().contains("GQ9778"), "{}", run.stderr());
    }
    refused(&sandbox, &["keygen", "--public", "none.txt"], 2).says("cannot read the identity file none.txt");
    refused_by_the_parser(&sandbox, &["keygen", "--public", "broken.txt", "--output", "x"]);
}
