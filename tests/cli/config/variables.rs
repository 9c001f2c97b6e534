//! Values from the environment, from the file that `env_file` names, and from files that contain a secret.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use super::{SECRET, create_stores, lifeboat, snapshot_sources, with_config};
use crate::helpers::shell_ok;
use crate::support::sample;

#[test]
fn an_unset_variable_fails_only_the_commands_that_need_its_section() {
    let sandbox = with_config(
        "[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n\
         [notify]\nwebhook = \"${NO_WEBHOOK}\"\n[preflight]\nmounts = [\"${NO_MOUNT}\"]\n[retention]\nkeep_last = \"${NO_NUMBER}\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    lifeboat(&sandbox, &["list"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot", "app", "--store", "b"], &[]);
    let run =
        lifeboat(&sandbox, &["prune"], &[]).code(2).says("retention.keep_last: the variable NO_NUMBER is not set");
    assert!(
        run.stderr().contains("lifeboat.toml:11") && run.stderr().contains("${NO_NUMBER:-...}"),
        "{}",
        run.transcript()
    );
    lifeboat(&sandbox, &["prune"], &[("NO_NUMBER", "3")]).code(0);
    // A source with an unset variable does not prevent a snapshot of another database or a listing.
    let sandbox = with_config("[[store]]\nurl = \"b\"\n[[source]]\nname = \"shop\"\nurl = \"${NO_URL}\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    create_stores(&sandbox, &[]);
    lifeboat(&sandbox, &["snapshot", "./app.db"], &[]).code(0);
    lifeboat(&sandbox, &["list"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("source.url: the variable NO_URL is not set");
    lifeboat(&sandbox, &["snapshot"], &[("NO_URL", "app.db")]).code(0);
    let sandbox = with_config("[[store]]\nurl = \"${NO_STORE}\"\n");
    lifeboat(&sandbox, &["list"], &[]).code(2).says("store.url: the variable NO_STORE is not set");
    // A word without a slash may be the name of a store in the config, so the config is needed. A path is not a name.
    lifeboat(&sandbox, &["list", "--store", "x"], &[]).code(2);
    lifeboat(&sandbox, &["list", "--store", "./x"], &[]).code(5);
}

#[test]
fn variables_of_the_process_override_the_env_file() {
    let sandbox = with_config(
        "env_file = \"${WHICH:-.env}\"\n[[store]]\nurl = \"${STORE}\"\n[[source]]\nname = \"${NAME:-nobody}\"\nurl = \"sqlite:///./${FILE}\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    sample(sandbox.path("two.db"), 2, "delete");
    fs::write(
        sandbox.path(".env"),
        "\u{feff}export STORE='b'\r\nNAME=\"of-file\" # mine\r\nFILE=app.db\r\nNAME2= # none\r\n",
    )
    .unwrap();
    create_stores(&sandbox, &[]);
    let sources_with = |variables: &[(&str, &str)]| {
        let run = lifeboat(&sandbox, &["snapshot", "--json"], variables).code(0);
        snapshot_sources(&run)
    };
    assert_eq!(sources_with(&[]), ["of-file"]);
    assert_eq!(sources_with(&[("NAME", "mine"), ("FILE", "two.db")]), ["mine"]);
    // An empty variable counts as not set if the config has a default for it.
    assert_eq!(sources_with(&[("NAME", ""), ("FILE", "two.db")]), ["nobody"]);
    fs::write(sandbox.path("other"), "STORE=b\nNAME=third\nFILE=two.db\n").unwrap();
    lifeboat(&sandbox, &["snapshot"], &[("WHICH", "other")]).code(0);
    // A missing env file is the same as no env file. The message about an invalid one names the line, but does not
    // contain its text.
    lifeboat(&sandbox, &["snapshot"], &[("WHICH", "absent"), ("STORE", "b"), ("FILE", "two.db"), ("NAME", "third")])
        .code(0);
    fs::write(sandbox.path("bad"), format!("A=1\n{SECRET}\n")).unwrap();
    let run = lifeboat(&sandbox, &["list"], &[("WHICH", "bad")]).code(2).says("bad:2: ");
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    lifeboat(&sandbox, &["list"], &[("WHICH", "/dev/zero")]).code(2).says("is too large");
}

#[test]
fn a_file_with_a_secret_is_read_only_when_it_is_needed() {
    let sandbox = with_config(
        "[[store]]\nurl = \"b\"\n[[source]]\nname = \"pg\"\nhost = \"127.0.0.1\"\nport = 1\ndbname = \"d\"\nuser = \"u\"\npassword_file = \"secret\"\n",
    );
    create_stores(&sandbox, &[]);
    lifeboat(&sandbox, &["list"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("cannot read the secret in");
    fs::write(sandbox.path("secret"), vec![b'x'; 1 << 17]).unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("too large");
    fs::write(sandbox.path("secret"), b"\xff").unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("not UTF-8");
    fs::write(sandbox.path("secret"), format!("{SECRET}\n")).unwrap();
    // No server listens on this port.
    let run = lifeboat(&sandbox, &["snapshot", "-vv"], &[]).code(5);
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
}

#[test]
fn a_signal_ends_the_wait_for_a_pipe_that_nobody_writes_to() {
    let sandbox = with_config("[[store]]\nurl = \"b\"\n");
    create_stores(&sandbox, &[]);
    shell_ok(&sandbox, "mkfifo pipe");
    fs::write(sandbox.path("env.toml"), "env_file = \"pipe\"\n[[store]]\nurl = \"b\"\n").unwrap();
    fs::write(sandbox.path("key.toml"), "[[store]]\nurl = \"b\"\n[signing]\nkey_file = \"pipe\"\n").unwrap();
    for (arguments, signal) in [
        (&["list", "--config", "pipe"][..], Signal::TERM),
        (&["list", "--config", "env.toml"], Signal::INT),
        (&["verify", "--all", "--config", "key.toml"], Signal::TERM),
        (&["verify", "--all", "--identity", "pipe"], Signal::TERM),
        (&["verify", "--all", "--passphrase-file", "pipe"], Signal::TERM),
    ] {
        let mut run = sandbox.start(arguments);
        std::thread::sleep(Duration::from_millis(700));
        assert!(!run.has_ended(), "{arguments:?} did not wait");
        run.signal(signal);
        run.finish().code(130).says("interrupted");
    }
}

#[test]
fn a_config_and_secrets_are_read_from_pipes() {
    let sandbox = with_config("");
    let store = sandbox.path("b");
    fs::write(
        sandbox.path("c.toml"),
        format!("env_file = \"{}\"\n[[store]]\nurl = \"${{STORE}}\"\n", sandbox.path("pipe").display()),
    )
    .unwrap();
    create_stores(&sandbox, &[]);
    let variable = format!("STORE={}", store.display());
    shell_ok(&sandbox, "mkfifo pipe");
    for (way, secret) in [
        ("--config <(sleep 1; cat c.toml)", "<(echo x)"),
        ("--config /dev/stdin < <(cat c.toml)", "<(sleep 1; echo x)"),
    ] {
        let program = env!("CARGO_BIN_EXE_lifeboat");
        let script =
            format!("(sleep 1; echo '{variable}' > pipe) & {program} verify --all --passphrase-file {secret} {way}");
        let mut command = std::process::Command::new("bash");
        let output = command.args(["-c", &script]).current_dir(sandbox.root()).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!message.contains("cannot read") && !message.contains("is empty"), "{way}: {message}");
        assert_ne!(output.status.code(), Some(2), "{way}: {message}");
    }
}

#[test]
fn values_that_grow_without_end_are_refused() {
    let sandbox = with_config("env_file = \".env\"\n[[store]]\nurl = \"b\"\n");
    let lines: String = (0..40).map(|number| format!("A{}=${{A{number}}}${{A{number}}}\n", number + 1)).collect();
    fs::write(sandbox.path(".env"), format!("A0=xxxxxxxxxx\n{lines}")).unwrap();
    lifeboat(&sandbox, &["list"], &[]).code(2).says(".env:17: the values of variables are too large");
    let values = "\"${A}\", ".repeat(20);
    let config = format!("[[store]]\nurl = \"b\"\n[encryption]\nidentity_files = [{values}]\n");
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    let large = "x".repeat(100_000);
    lifeboat(&sandbox, &["list"], &[("A", &large)]).code(2).says("the values of variables are too large");
}
