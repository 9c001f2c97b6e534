//! What is wrong in a config: told by file, line and key, exit 2, and never with what a variable holds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{SECRET, lifeboat, with_config};
use crate::support::{Run, Sandbox, sample};

const VARIABLES: [(&str, &str); 1] = [("SECRET", SECRET)];

/// Runs a command that must refuse the config with these words.
#[track_caller]
fn refused(text: &str, words: &str) -> Run {
    let sandbox = with_config(text);
    let run = lifeboat(&sandbox, &["list", "--store", "s"], &VARIABLES).code(2);
    let stderr = run.stderr();
    let told = format!("{}:{words}", sandbox.path("lifeboat.toml").display());
    assert!(stderr.contains(&told), "stderr lacks '{told}'\n{text}\n{}", run.transcript());
    assert!(!stderr.contains(SECRET) && !stderr.contains("panicked"), "{text}\n{}", run.transcript());
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", run.transcript());
    run
}

#[test]
fn unknown_keys_are_told_in_every_section() {
    for (section, key) in [
        ("[[store]]\nurl = \"b\"\n", "store.colour"),
        ("[[source]]\nname = \"a\"\n", "source.colour"),
        ("[[source]]\n[[source.rule]]\n", "source.rule.colour"),
        ("[preflight]\n\n", "preflight.colour"),
        ("[backups]\n\n", "backups.colour"),
        ("[retention]\n\n", "retention.colour"),
        ("[notify]\n\n", "notify.colour"),
        ("[encryption]\n\n", "encryption.colour"),
        ("[guard]\n\n", "guard.colour"),
    ] {
        refused(&format!("{section}colour = \"${{SECRET}}\"\n"), &format!("3: {key}: unknown field"));
    }
    refused("host = \"x\"\n[colours]\n", "2: colours: unknown key");
    refused("[preflight]\nhttp = [{ url = \"http://h\", colour = 1 }]\n", "2: preflight.http.colour: unknown field");
    refused(
        "[[source]]\nname = \"a\"\n[[source.rule]]\ntable = \"t\"\nfresh = { colour = 1 }\n",
        "5: source.rule.fresh.colour: unknown field",
    );
}

#[test]
fn bad_values_are_told_by_their_line_and_key() {
    let source = "[[source]]\nname = \"a\"\nurl = \"a.db\"\n";
    let rule = format!("{source}[[source.rule]]\ntable = \"t\"\n");
    for (text, words) in [
        ("host = [1]\n".to_owned(), "1: host: "),
        ("compression = \"${SECRET}\"\n".to_owned(), "1: compression: unknown compression '${SECRET}'"),
        ("metrics_file = []\n".to_owned(), "1: metrics_file: "),
        ("env_file = []\n".to_owned(), "1: env_file: "),
        ("[store]\nurl = \"b\"\n".to_owned(), "1: store: there may be several"),
        ("\nhost = \"a\"\nhost = \"b\"\n".to_owned(), "3: host: duplicate key"),
        ("host = \"a\"\n\nhost b\n".to_owned(), "3: "),
        ("host = \"${\"\n".to_owned(), "1: host: '${' is not closed"),
        ("host = \"${a b}\"\n".to_owned(), "1: host: between"),
        ("[[store]]\nname = \"s\"\n".to_owned(), "1: store: a store has no url"),
        ("[[store]]\nname = \"s\"\nurl = \"ftp://${SECRET}\"\n".to_owned(), "3: store.url: "),
        ("[[store]]\nname = \"a/b\"\nurl = \"b\"\n".to_owned(), "2: store.name: 'a/b' cannot name"),
        (
            "[[store]]\nurl = \"b\"\nregion = \"${SECRET}\"\n".to_owned(),
            "2: store.url: 'region' goes with a store in S3",
        ),
        ("[[store]]\nurl = \"b\"\naccess_key_id = \"${SECRET}\"\n".to_owned(), "2: store.url: keys go with"),
        (
            "[[store]]\nurl = \"s3://buc/x\"\nsecret_access_key = \"${SECRET}\"\n".to_owned(),
            "2: store.url: access_key_id and",
        ),
        ("[[store]]\nurl = \"s3://buc/x\"\nretries = \"${SECRET}\"\n".to_owned(), "2: store.url: "),
        (
            "[[store]]\nurl = \"a\"\nname = \"n\"\n[[store]]\nurl = \"b\"\nname = \"n\"\n".to_owned(),
            "5: store.url: two stores have the name n",
        ),
        (format!("{source}{source}"), "4: source: two sources have the name a"),
        ("[[source]]\nurl = \"a.db\"\n".to_owned(), "2: source.url: a source has no name"),
        ("[[source]]\nname = \"a\"\n".to_owned(), "1: source: the source a: it has no url"),
        ("[[source]]\nname = \"${SECRET}/\"\n".to_owned(), "2: source.name: '${SECRET}/' cannot name"),
        ("[[source]]\nname = \"a\"\nurl = \"mysql://u:${SECRET}@h/d\"\n".to_owned(), "3: source.url: the source a: "),
        ("[[source]]\nname = \"a\"\nurl = \"postgres://h:${SECRET}/d\"\n".to_owned(), "3: source.url: the source a: "),
        (
            "[[source]]\nname = \"a\"\nurl = \"postgres://h/d\"\nsslmode = \"${SECRET}\"\n".to_owned(),
            "3: source.url: the source a: sslmode cannot be '${SECRET}'",
        ),
        (format!("{source}host = \"h\"\n"), "3: source.url: the source a: keywords such as host"),
        (format!("{source}tags = \"t\"\n"), "4: source.tags: "),
        (format!("{source}compression = \"gzip:77\"\n"), "4: source.compression: 'gzip:77' has no such level"),
        (format!("{rule}min_rows = \"${{SECRET}}\"\n"), "6: source.rule.min_rows: '${SECRET}' is no whole number"),
        (format!("{rule}fresh = {{ column = \"c\", within = \"soon\" }}\n"), "6: source.rule.fresh.within: 'soon'"),
        (
            format!("{rule}fresh = {{ column = \"c\", within = \"1h\", zone = \"Mars\" }}\n"),
            "6: source.rule.fresh.zone: 'Mars'",
        ),
        (rule.clone(), "4: source.rule: the rule demands nothing"),
        (format!("{source}[[source.rule]]\nmin_rows = 1\n"), "4: source.rule: the rule names no table"),
        ("[preflight]\nmounts = \"/x\"\n".to_owned(), "2: preflight.mounts: "),
        ("[preflight]\nmin_free = \"${SECRET}\"\n".to_owned(), "2: preflight.min_free: '${SECRET}' is no size"),
        (
            "[preflight]\nhttp = [{ url = \"ftp://${SECRET}\" }]\n".to_owned(),
            "2: preflight.http.url: an address starts with",
        ),
        (
            "[preflight]\nhttp = [{ url = \"http://h\", status = 99 }]\n".to_owned(),
            "2: preflight.http.status: '99' is no status",
        ),
        ("[backups]\nmax_age = 26\n".to_owned(), "2: backups.max_age: '26' is not a length of time"),
        (
            "[backups]\n\nproof = \"${SECRET}\"\n".to_owned(),
            "3: backups.proof: '${SECRET}' is none of verified, drilled",
        ),
        ("[backups]\nproof = \"drilled\"\n".to_owned(), "1: backups: proof goes with proof_within"),
        ("[retention]\nkeep_last = -1\n".to_owned(), "2: retention.keep_last: '-1' is no whole number"),
        ("[retention]\nkeep_daily = 99999999999\n".to_owned(), "2: retention.keep_daily: '99999999999' is more"),
        ("[retention]\nafter_snapshot = true\n".to_owned(), "1: retention: the policy keeps nothing"),
        ("[notify]\n\nform = \"xml\"\n".to_owned(), "3: notify.form: 'xml' is none of json, slack"),
        ("[notify]\non = \"${SECRET}\"\n".to_owned(), "2: notify.on: '${SECRET}' is none of failure"),
        ("[notify]\nwebhook = \"${SECRET}\"\n".to_owned(), "2: notify.webhook: an address starts with"),
        ("[notify]\nping = \"${SECRET}\"\n".to_owned(), "2: notify.ping: an address starts with"),
        ("[notify]\nping = { backup = \"http://h\" }\n".to_owned(), "2: notify.ping"),
        ("[notify]\nping = 5\n".to_owned(), "2: notify.ping: here stands a number"),
        (
            "[encryption]\nrecipients = [\"${SECRET}\"]\n".to_owned(),
            "2: encryption.recipients: '${SECRET}' is no public key",
        ),
        ("[guard]\nrestore_if_missing = 7\n".to_owned(), "2: guard.restore_if_missing: '7' is neither"),
        ("[guard]\ngrace = \"5s\"\nreserve = \"6s\"\n".to_owned(), "1: guard: the reserve"),
    ] {
        refused(&text, words);
    }
}

#[test]
fn what_a_prefix_finds_is_told_by_the_variable() {
    let sandbox = with_config("[[source]]\nname = \"a\"\nenv_prefix = \"X_\"\n");
    let run = lifeboat(&sandbox, &["snapshot", "--store", "s"], &[("X_NAME", "d"), ("X_SSLMODE", SECRET)]).code(2);
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    run.says("lifeboat.toml:3: source.env_prefix: the source a: sslmode cannot be '${X_SSLMODE}'");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_told() {
    let sandbox = with_config("[encryption]\nidentity = \"${SECRET}\"\n");
    sample(sandbox.path("app.db"), 1, "delete");
    lifeboat(&sandbox, &["snapshot", "app.db", "--store", "b"], &[("LIFEBOAT_CONFIG", "")]).code(0);
    let run = lifeboat(&sandbox, &["verify", "--all", "--store", "b"], &VARIABLES).code(0);
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    run.says("encryption.identity is no secret key");
}

#[test]
fn a_config_that_cannot_be_read_is_told() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("folder")).unwrap();
    fs::write(sandbox.path("latin.toml"), b"host = \"\xe9\"\n").unwrap();
    fs::write(sandbox.path("huge.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    for (path, words) in [
        ("absent.toml", "'lifeboat init' writes one"),
        ("folder", "cannot read the config"),
        ("latin.toml", "is not UTF-8"),
        ("huge.toml", "is too large"),
        ("/dev/zero", "is too large"),
    ] {
        let run = lifeboat(&sandbox, &["list", "--config", path], &[]).code(2).says(words);
        assert!(!run.stderr().contains("panicked"), "{}", run.transcript());
        lifeboat(&sandbox, &["list"], &[("LIFEBOAT_CONFIG", path)]).code(2).says(words);
    }
    // A link that leads nowhere is no config left out on purpose.
    std::os::unix::fs::symlink("absent.toml", sandbox.path("lifeboat.toml")).unwrap();
    lifeboat(&sandbox, &["list", "--store", "s"], &[]).code(2).says("cannot read the config");
    // As a user whose file it is not.
    fs::write(sandbox.path("locked.toml"), "").unwrap();
    fs::set_permissions(sandbox.path("locked.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    if !rustix::process::geteuid().is_root() {
        lifeboat(&sandbox, &["list", "--config", "locked.toml"], &[]).code(2).says("cannot read the config");
    }
}

#[test]
fn a_broken_config_is_no_matter_for_what_needs_none() {
    let sandbox = with_config("colour = 1\n");
    lifeboat(&sandbox, &["keygen", "--output", "key.txt"], &[]).code(0);
    lifeboat(&sandbox, &["completions", "bash"], &[]).code(0);
    // An empty variable: no config at all.
    sample(sandbox.path("app.db"), 1, "delete");
    lifeboat(&sandbox, &["snapshot", "app.db", "--store", "b"], &[("LIFEBOAT_CONFIG", "")]).code(0);
    lifeboat(&sandbox, &["list", "--store", "b"], &[]).code(2);
}

#[test]
fn marks_and_line_ends_of_windows_are_read() {
    let sandbox = with_config("\u{feff}host = \"h\"\r\n[[store]]\r\nurl = \"b\"\r\n");
    lifeboat(&sandbox, &["init"], &[]).code(0);
    assert_eq!(lifeboat(&sandbox, &["list", "--json"], &[]).code(0).json()["snapshots"].as_array().unwrap().len(), 0);
    refused("\u{feff}\r\n\r\ncolour = 1\r\n", "3: colour: unknown key");
    let empty = with_config("");
    lifeboat(&empty, &["list"], &[]).code(2).says("no store is named");
    lifeboat(&empty, &["snapshot", "--store", "s"], &[]).code(2).says("has no source");
    assert!(!empty.path("s").exists());
}
