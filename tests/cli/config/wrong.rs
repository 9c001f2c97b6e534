//! Errors in a config. They are reported with file, line and key, never with the value of a variable, and the exit
//! code is 2.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{SECRET, lifeboat, with_config};
use crate::support::{Run, Sandbox, sample};

const VARIABLES: [(&str, &str); 1] = [("SECRET", SECRET)];

/// Runs `list` with this config, which must be refused with a message that begins with the config's path and `words`.
#[track_caller]
fn refused(text: &str, words: &str) -> Run {
    let sandbox = with_config(text);
    let run = lifeboat(&sandbox, &["list", "--store", "s"], &VARIABLES).code(2);
    let stderr = run.stderr();
    let expected = format!("{}:{words}", sandbox.path("lifeboat.toml").display());
    assert!(stderr.contains(&expected), "stderr lacks '{expected}'\n{text}\n{}", run.transcript());
    assert!(!stderr.contains(SECRET) && !stderr.contains("panicked"), "{text}\n{}", run.transcript());
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{}", run.transcript());
    run
}

#[test]
fn unknown_keys_are_reported_in_every_section() {
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
fn a_url_in_a_wrong_place_is_reported_without_its_password() {
    let url = format!("postgres://app:{SECRET}@127.0.0.1/d");
    let source = format!("[[source]]\nname = \"a\"\nurl = \"{url}\"\n");
    for (wrong, words) in [
        (format!("[[source.rule]]\ntable = \"t\"\nmax_row_drop = \"{url}\"\n"), "6: source.rule.max_row_drop: "),
        (format!("[guard]\nevery = \"5{url}\"\n"), "5: guard.every: "),
        (format!("[guard]\n\"{url}\" = 1\n"), "5: guard."),
        (format!("\"{url}\" = 1\n\"{url}\" = 1\n"), "5: "),
        (format!("[retention]\nkeep_daily = \"{SECRET}\"\n"), "5: retention.keep_daily: "),
    ] {
        refused(&format!("{source}{wrong}"), words);
    }
}

#[test]
fn invalid_values_are_reported_with_their_line_and_key() {
    let source = "[[source]]\nname = \"a\"\nurl = \"a.db\"\n";
    let rule = format!("{source}[[source.rule]]\ntable = \"t\"\n");
    for (text, words) in [
        ("host = [1]\n".to_owned(), "1: host: "),
        ("compression = \"${SECRET}\"\n".to_owned(), "1: compression: unknown compression '${SECRET}'"),
        ("metrics_file = []\n".to_owned(), "1: metrics_file: "),
        ("env_file = []\n".to_owned(), "1: env_file: "),
        ("[store]\nurl = \"b\"\n".to_owned(), "1: store: must be an array of tables"),
        ("\nhost = \"a\"\nhost = \"b\"\n".to_owned(), "3: host: duplicate key"),
        ("host = \"a\"\n\nhost b\n".to_owned(), "3: "),
        ("host = \"${\"\n".to_owned(), "1: host: '${' is not closed"),
        ("host = \"${a b}\"\n".to_owned(), "1: host: between"),
        ("[[store]]\nname = \"s\"\n".to_owned(), "1: store: a store has no url"),
        ("[[store]]\nname = \"s\"\nurl = \"ftp://${SECRET}\"\n".to_owned(), "3: store.url: "),
        ("[[store]]\nname = \"a/b\"\nurl = \"b\"\n".to_owned(), "2: store.name: 'a/b' is not a valid name"),
        (
            "[[store]]\nurl = \"b\"\nregion = \"${SECRET}\"\n".to_owned(),
            "2: store.url: 'region' is only valid for a store in S3",
        ),
        ("[[store]]\nurl = \"b\"\naccess_key_id = \"${SECRET}\"\n".to_owned(), "2: store.url: access keys are only"),
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
        ("[[source]]\nname = \"${SECRET}/\"\n".to_owned(), "2: source.name: '${SECRET}/' is not a valid name"),
        ("[[source]]\nname = \"a\"\nurl = \"mysql://u:${SECRET}@h/d\"\n".to_owned(), "3: source.url: the source a: "),
        ("[[source]]\nname = \"a\"\nurl = \"postgres://h:${SECRET}/d\"\n".to_owned(), "3: source.url: the source a: "),
        (
            "[[source]]\nname = \"a\"\nurl = \"postgres://h/d\"\nsslmode = \"${SECRET}\"\n".to_owned(),
            "3: source.url: the source a: sslmode cannot be '${SECRET}'",
        ),
        (format!("{source}host = \"h\"\n"), "3: source.url: the source a: keywords such as host"),
        (format!("{source}tags = \"t\"\n"), "4: source.tags: "),
        (
            format!("{source}compression = \"gzip:77\"\n"),
            "4: source.compression: 'gzip:77' has an invalid compression level",
        ),
        (format!("{rule}min_rows = \"${{SECRET}}\"\n"), "6: source.rule.min_rows: '${SECRET}' is not a whole number"),
        (format!("{rule}fresh = {{ column = \"c\", within = \"soon\" }}\n"), "6: source.rule.fresh.within: 'soon'"),
        (
            format!("{rule}fresh = {{ column = \"c\", within = \"1h\", zone = \"Mars\" }}\n"),
            "6: source.rule.fresh.zone: 'Mars'",
        ),
        (rule.clone(), "4: source.rule: the rule has no condition"),
        (format!("{source}[[source.rule]]\nmin_rows = 1\n"), "4: source.rule: the rule has no table"),
        ("[preflight]\nmounts = \"/x\"\n".to_owned(), "2: preflight.mounts: "),
        ("[preflight]\nmin_free = \"${SECRET}\"\n".to_owned(), "2: preflight.min_free: '${SECRET}' is not a size"),
        (
            "[preflight]\nhttp = [{ url = \"ftp://${SECRET}\" }]\n".to_owned(),
            "2: preflight.http.url: the URL must start with",
        ),
        (
            "[preflight]\nhttp = [{ url = \"http://h\", status = 99 }]\n".to_owned(),
            "2: preflight.http.status: '99' is not an HTTP status",
        ),
        ("[backups]\nmax_age = 26\n".to_owned(), "2: backups.max_age: '26' is not a length of time"),
        (
            "[backups]\n\nproof = \"${SECRET}\"\n".to_owned(),
            "3: backups.proof: unknown value '${SECRET}': must be one of verified, drilled",
        ),
        ("[backups]\nproof = \"drilled\"\n".to_owned(), "1: backups: proof needs proof_within"),
        ("[retention]\nkeep_last = -1\n".to_owned(), "2: retention.keep_last: '-1' is not a whole number"),
        ("[retention]\nkeep_daily = 99999999999\n".to_owned(), "2: retention.keep_daily: '99999999999' is too large"),
        ("[retention]\nafter_snapshot = true\n".to_owned(), "1: retention: the policy keeps nothing"),
        ("[notify]\n\nform = \"xml\"\n".to_owned(), "3: notify.form: unknown value 'xml': must be one of json, slack"),
        (
            "[notify]\non = \"${SECRET}\"\n".to_owned(),
            "2: notify.on: unknown value '${SECRET}': must be one of failure",
        ),
        ("[notify]\nwebhook = \"${SECRET}\"\n".to_owned(), "2: notify.webhook: the URL must start with"),
        ("[notify]\nping = \"${SECRET}\"\n".to_owned(), "2: notify.ping: the URL must start with"),
        ("[notify]\nping = { backup = \"http://h\" }\n".to_owned(), "2: notify.ping"),
        ("[notify]\nping = 5\n".to_owned(), "2: notify.ping: found an integer"),
        (
            "[encryption]\nrecipients = [\"${SECRET}\"]\n".to_owned(),
            "2: encryption.recipients: '${SECRET}' is not an age public key",
        ),
        ("[guard]\nrestore_if_missing = 7\n".to_owned(), "2: guard.restore_if_missing: '7' is neither"),
        (
            "[guard]\non_doubt = \"${SECRET}\"\n".to_owned(),
            "2: guard.on_doubt: unknown value '${SECRET}': must be one of refuse, restore-older, start",
        ),
        ("[guard]\nstore_wait = \"soon\"\n".to_owned(), "2: guard.store_wait: 'soon' is not a length of time"),
        ("[guard]\ngrace = \"5s\"\nreserve = \"6s\"\n".to_owned(), "1: guard: the reserve"),
        ("[guard]\nevery = \"often\"\n".to_owned(), "2: guard.every: 'often' is not a length of time"),
        ("[guard]\non_overlap = \"wait\"\n".to_owned(), "2: guard.on_overlap: unknown value 'wait': must be one of"),
    ] {
        refused(&text, words);
    }
}

#[test]
fn an_invalid_value_from_env_prefix_is_reported_by_its_variable() {
    let sandbox = with_config("[[source]]\nname = \"a\"\nenv_prefix = \"X_\"\n");
    let run = lifeboat(&sandbox, &["snapshot", "--store", "s"], &[("X_NAME", "d"), ("X_SSLMODE", SECRET)]).code(2);
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    run.says("lifeboat.toml:3: source.env_prefix: the source a: sslmode cannot be '${X_SSLMODE}'");
}

#[test]
fn an_invalid_identity_is_reported_without_its_value() {
    let sandbox = with_config("[encryption]\nidentity = \"${SECRET}\"\n");
    sample(sandbox.path("app.db"), 1, "delete");
    lifeboat(&sandbox, &["snapshot", "app.db", "--store", "b"], &[("LIFEBOAT_CONFIG", "")]).code(0);
    let run = lifeboat(&sandbox, &["verify", "--all", "--store", "b"], &VARIABLES).code(0);
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    run.says("encryption.identity is not an age secret key");
}

#[test]
fn a_config_that_cannot_be_read_is_an_error() {
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
    // A broken symbolic link is an error, unlike an absent config.
    std::os::unix::fs::symlink("absent.toml", sandbox.path("lifeboat.toml")).unwrap();
    lifeboat(&sandbox, &["list", "--store", "s"], &[]).code(2).says("cannot read the config");
    // A config that this user may not read. Root may read every file.
    fs::write(sandbox.path("locked.toml"), "").unwrap();
    fs::set_permissions(sandbox.path("locked.toml"), fs::Permissions::from_mode(0o000)).unwrap();
    if !rustix::process::geteuid().is_root() {
        lifeboat(&sandbox, &["list", "--config", "locked.toml"], &[]).code(2).says("cannot read the config");
    }
}

#[test]
fn commands_that_need_no_config_ignore_a_broken_one() {
    let sandbox = with_config("colour = 1\n");
    lifeboat(&sandbox, &["keygen", "--output", "key.txt"], &[]).code(0);
    lifeboat(&sandbox, &["completions", "bash"], &[]).code(0);
    // With an empty LIFEBOAT_CONFIG, no config is read.
    sample(sandbox.path("app.db"), 1, "delete");
    lifeboat(&sandbox, &["snapshot", "app.db", "--store", "b"], &[("LIFEBOAT_CONFIG", "")]).code(0);
    lifeboat(&sandbox, &["list", "--store", "b"], &[]).code(2);
}

#[test]
fn byte_order_marks_and_windows_line_ends_are_accepted() {
    let sandbox = with_config("\u{feff}host = \"h\"\r\n[[store]]\r\nurl = \"b\"\r\n");
    lifeboat(&sandbox, &["init"], &[]).code(0);
    assert_eq!(lifeboat(&sandbox, &["list", "--json"], &[]).code(0).json()["snapshots"].as_array().unwrap().len(), 0);
    refused("\u{feff}\r\n\r\ncolour = 1\r\n", "3: colour: unknown key");
    let empty = with_config("");
    lifeboat(&empty, &["list"], &[]).code(2).says("no store is named");
    lifeboat(&empty, &["snapshot", "--store", "s"], &[]).code(2).says("has no source");
    assert!(!empty.path("s").exists());
}
