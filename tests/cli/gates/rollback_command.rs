//! The commands that the gates print: pasted into a shell in another folder, they restore the data.

use std::path::Path;
use std::process::Output;

use super::helpers::{App, run_with_env};
use crate::support::{LIFEBOAT, Sandbox, open};

/// Runs a printed command in a shell, in another folder and without Lifeboat's variables.
fn paste(command: &str) -> Output {
    let elsewhere = Sandbox::new();
    let program = Path::new(LIFEBOAT).parent().unwrap().to_owned();
    let outer = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([program].into_iter().chain(std::env::split_paths(&outer))).unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).current_dir(elsewhere.root()).env("PATH", path);
    for name in ["LIFEBOAT_IDENTITY", "LIFEBOAT_HOST", "LIFEBOAT_STORE", "LIFEBOAT_CONFIG", "GITHUB_ACTIONS"] {
        shell.env_remove(name);
    }
    shell.output().unwrap()
}

#[track_caller]
fn assert_restores(command: &str, code: i32, app: &App) {
    let output = paste(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "$ {command}\n{stdout}{stderr}");
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "$ {command}\n{stdout}{stderr}");
}

#[test]
fn the_command_of_postdeploy_restores_with_a_config() {
    let app = App::new("");
    app.passes(&["predeploy", "--commit", "abc 'x'"]);
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances");
    let (_, document) = app.fails(&["postdeploy", "--commit", "abc 'x'", "--lock-timeout", "7"]);
    let command = document["rollback"][0].as_str().unwrap();
    assert!(command.contains("--commit") && command.contains("--lock-timeout 7"), "{command}");
    assert_restores(command, 3, &app);
}

#[test]
fn the_commit_of_the_workflow_is_a_part_of_the_command() {
    let app = App::new("");
    let variables = [("GITHUB_ACTIONS", "true"), ("GITHUB_SHA", "-abc")];
    run_with_env(&app.sandbox, &["predeploy"], &variables).code(0);
    app.sql("DELETE FROM balances");
    let document = run_with_env(&app.sandbox, &["postdeploy", "--json"], &variables).code(3).json();
    let command = document["rollback"][0].as_str().unwrap();
    assert!(command.contains("--commit=-abc"), "{command}");
    assert_restores(command, 3, &app);
}

#[test]
fn the_commands_of_gates_without_a_config_name_everything_with_absolute_paths() {
    let app = App::new("");
    std::fs::remove_file(app.sandbox.path("lifeboat.toml")).unwrap();
    std::fs::rename(app.sandbox.path("app"), app.sandbox.path("my app")).unwrap();
    std::fs::rename(app.sandbox.path("backups"), app.sandbox.path("my store")).unwrap();
    app.sandbox.ok(&["keygen", "--output", "key.txt"]);
    // The machine's name and the key are given by variables.
    let variables = [("LIFEBOAT_HOST", "shop 1"), ("LIFEBOAT_IDENTITY", "key.txt")];
    let gate = |command: &'static str| [command, "my app/app.db", "--store", "my store", "--json"];
    let before = run_with_env(&app.sandbox, &gate("predeploy"), &variables).code(0).json();
    let database = app.sandbox.path("my app/app.db");
    let rows = || -> i64 { open(&database).query_row("SELECT count(*) FROM balances", [], |row| row.get(0)).unwrap() };
    open(&database).execute_batch("DELETE FROM balances").unwrap();
    let after = run_with_env(&app.sandbox, &gate("postdeploy"), &variables).code(3).json();
    for (document, code) in [(&after, 3), (&before, 0)] {
        let command = document["rollback"][0].as_str().unwrap();
        for part in ["my app/app.db", "my store", "--host 'shop 1'"] {
            assert!(command.contains(part), "{command}");
        }
        open(&database).execute_batch("DELETE FROM balances").unwrap();
        let output = paste(command);
        assert_eq!(output.status.code(), Some(code), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(rows(), 200, "{command}");
    }
    assert!(after["rollback"][0].as_str().unwrap().contains("key.txt"), "{after:#}");
}

#[test]
fn a_source_of_the_command_line_is_restored_to_its_own_path_whatever_the_config_calls_so() {
    let app = App::new("");
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    std::fs::write(app.sandbox.path("lifeboat.toml"), config.replace("./app/app.db", "./other/app.db")).unwrap();
    std::fs::create_dir(app.sandbox.path("other")).unwrap();
    open(app.sandbox.path("other/app.db")).execute_batch("CREATE TABLE a (b)").unwrap();
    let before = app.passes(&["predeploy", "app/app.db"]);
    app.sql("DELETE FROM balances");
    assert_restores(before["rollback"][0].as_str().unwrap(), 0, &app);
    app.sql("DELETE FROM balances");
    let (_, document) = app.fails(&["postdeploy", "app/app.db"]);
    assert_restores(document["rollback"][0].as_str().unwrap(), 3, &app);
}

#[test]
fn a_printed_command_has_no_password() {
    let app = App::new("");
    let source = "postgres://me:hunter2hunter2@127.0.0.1:1/app";
    let run = app.sandbox.run(&["postdeploy", source]);
    assert!(!format!("{}{}", run.stdout(), run.stderr()).contains("hunter2"), "{}", run.transcript());
}
