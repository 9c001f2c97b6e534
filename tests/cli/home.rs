//! The home folder without the variable HOME, as in a system service of systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{LIFEBOAT, Sandbox, have, sample, skip};

/// Returns the home folder that the user database has for this user.
fn home_in_user_database() -> PathBuf {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields.into_iter().find(|fields| fields[2] == uid).map(|fields| PathBuf::from(fields[5])).unwrap()
}

/// Returns a sandbox with a database.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "wal");
    sandbox
}

#[test]
fn without_home_the_folder_is_that_of_the_user_database() {
    let sandbox = sandbox();
    let home = home_in_user_database();
    for variable in [None, Some("")] {
        let config = "[[store]]\nurl = \"${HOME}/no-such-store-of-a-test\"\n";
        fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
        let mut command = sandbox.command(&["list"]);
        command.env_remove("HOME").envs(variable.map(|value| ("HOME", value)));
        let run = sandbox.finish(command).code(5);
        let path = home.join("no-such-store-of-a-test");
        assert!(run.stderr().contains(path.to_str().unwrap()), "{variable:?}: {}", run.transcript());
    }
    fs::remove_file(sandbox.path("lifeboat.toml")).unwrap();
    // A supervised program gets the variables that were there, and no others.
    let mut command = sandbox.command(&["guard", "--source", "app.db", "--store", "new", "--host", "a", "--", "env"]);
    command.env_remove("HOME");
    let run = sandbox.finish(command).code(0);
    assert!(!run.stdout().lines().any(|line| line.starts_with("HOME=")), "{}", run.transcript());
}

/// Returns the paths that a listing of a bucket opens whose names contain `.aws` or a '~'. `before` is a program that
/// starts it, with its arguments.
fn opened(sandbox: &Sandbox, before: &[&str]) -> Vec<String> {
    let trace = sandbox.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=openat,open", "-o"]).arg(&trace).args(before).arg(LIFEBOAT);
    command.args(["list", "--store", "s3://bucket/p?endpoint=http://127.0.0.1:9&retries=0"]);
    command
        .current_dir(sandbox.root())
        .env_clear()
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PATH", "/usr/bin:/bin");
    let output = command.output().unwrap();
    let text = fs::read_to_string(&trace).unwrap_or_default();
    assert_eq!(output.status.code(), Some(5), "{}{text}", String::from_utf8_lossy(&output.stderr));
    let paths = text.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned);
    paths.filter(|path| path.contains(".aws") || path.contains('~')).collect()
}

#[test]
fn without_home_the_files_of_aws_are_those_of_the_user() {
    if !have(&["strace"]) {
        return;
    }
    let sandbox = sandbox();
    fs::create_dir_all(sandbox.path("~/.aws")).unwrap();
    let opened_by_user = opened(&sandbox, &[]);
    let credentials = home_in_user_database().join(".aws/credentials");
    assert!(opened_by_user.iter().any(|path| Path::new(path) == credentials), "{opened_by_user:?}");
    assert!(!opened_by_user.iter().any(|path| path.starts_with('~')), "{opened_by_user:?}");
    // A user without an entry in the user database has no home at all.
    if !rustix::process::getuid().is_root() {
        skip("only root can become a user without an entry");
        return;
    }
    let without_entry = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"];
    assert_eq!(opened(&sandbox, &without_entry), [""; 0]);
}
