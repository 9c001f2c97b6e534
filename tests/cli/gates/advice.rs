//! The reasons and the commands that gates and guard print: they are true, complete, and the same for all of them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::first_deploy::new_app;
use super::helpers::{App, create_store};
use crate::helpers::{copy_with_time, query_value, run_without_root, sql};
use crate::ownership::is_root;
use crate::support::{LIFEBOAT, Sandbox, have, open, sample};

/// Returns the printed commands in a text: each is in single quotes, and has no quotes itself.
fn commands(text: &str) -> Vec<&str> {
    text.split('\'').filter(|part| part.starts_with("lifeboat ")).collect()
}

/// Runs a printed command in another folder.
#[track_caller]
fn run_printed(sandbox: &Sandbox, command: &str) {
    let program = Path::new(LIFEBOAT).parent().unwrap().to_owned();
    let outer = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths([program].into_iter().chain(std::env::split_paths(&outer))).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(sandbox.path("scratch")).env("PATH", path).env("TMPDIR", "/tmp");
    let output = shell.output().unwrap();
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_gate_refuses_a_database_at_the_path_of_a_former_link_and_the_printed_commands_settle_it() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("volume")).unwrap();
    symlink("volume", sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 3, "delete");
    let config =
        "host = \"test\"\n[[store]]\nurl = \"./backups\"\n[[source]]\nname = \"app\"\nurl = \"./data/app.db\"\n";
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    create_store(&sandbox);
    sandbox.ok(&["predeploy"]);
    fs::remove_file(sandbox.path("data")).unwrap();
    fs::create_dir(sandbox.path("data")).unwrap();
    sample(sandbox.path("data/app.db"), 3, "delete");
    for gate in [&["guard", "--", "true"][..], &["predeploy"], &["postdeploy"]] {
        sandbox.run(gate).code(2).says("is of another database");
    }
    let run = sandbox.run(&["check"]).code(3);
    assert!(run.stdout().contains("is of another database"), "{}", run.transcript());
    let stderr = sandbox.run(&["guard", "--", "true"]).stderr();
    let [moved, restore] = commands(&stderr)[..] else { panic!("{stderr}") };
    assert!(moved.contains("--moved") && restore.contains("restore"), "{stderr}");
    run_printed(&sandbox, restore);
    run_printed(&sandbox, moved);
    for gate in [&["guard", "--", "true"][..], &["postdeploy"], &["check"], &["predeploy"]] {
        sandbox.ok(gate);
    }
}

#[test]
fn a_snapshot_of_a_wrong_clock_is_refused_with_the_command_that_deletes_it() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO accounts SELECT id + 1000, 'new' FROM accounts");
    app.sandbox.ok(&["snapshot"]);
    let newest = app.ids()[0].clone();
    let in_30_days = chrono::Utc::now() + chrono::Duration::days(30);
    let future = copy_with_time(&app.sandbox.path("backups"), &newest, in_30_days);
    app.sandbox.ok(&["delete", &newest, "--yes"]);
    app.remove_database();
    let run = app.refuses(&[], 3);
    let stderr = run.stderr();
    let delete = commands(&stderr).into_iter().find(|command| command.starts_with("lifeboat delete "));
    let delete = delete.unwrap_or_else(|| panic!("{}", run.transcript()));
    assert!(delete.contains(&future), "{delete}");
    run_printed(&app.sandbox, &format!("{delete} --yes"));
    app.starts(&[]);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn a_table_without_rows_of_its_own_and_a_view_can_be_dropped_on_purpose() {
    let app = App::new("");
    app.sql(
        "CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('some words');
         CREATE VIRTUAL TABLE words USING fts5vocab('notes', 'row');
         CREATE VIEW totals AS SELECT count(*) AS n FROM accounts; CREATE VIEW others AS SELECT 1 AS n",
    );
    app.passes(&["predeploy"]);
    // An object that still exists was not dropped.
    let (failed, _) = app.fails(&["postdeploy", "--expect-dropped", "totals"]);
    assert_eq!(failed, ["app: drop of totals: the view is still there; expected the intended change"]);
    app.sql("DROP TABLE words; DROP VIEW totals; DROP VIEW others");
    let (_, document) = app.fails(&["predeploy"]);
    let verdict = document["verdict"].as_str().unwrap();
    assert!(commands(verdict).iter().any(|command| command.contains(" --accept")), "{verdict}");
    let (_, document) = app.fails(&["postdeploy"]);
    let verdict = document["verdict"].as_str().unwrap();
    let [accept] = commands(verdict)[..] else { panic!("{verdict}") };
    assert!(accept.contains(" --expect-dropped words"), "{verdict}");
    run_printed(&app.sandbox, &format!("{accept} --expect-dropped totals --expect-dropped others"));
    app.passes(&["predeploy"]);
}

#[test]
fn guard_says_that_it_waits_for_a_lock_and_waits_once() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let program = open(app.sandbox.path("app/app.db"));
    program.execute_batch("PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE").unwrap();
    let begun = Instant::now();
    let run = app.refuses(&[], 5).says("database is locked");
    let waits = run.stderr().matches("waiting for it, at most 30 s").count();
    assert!(begun.elapsed() < Duration::from_secs(50) && waits == 1, "{:?} {}", begun.elapsed(), run.transcript());
}

#[test]
fn a_gate_of_a_missing_database_prints_the_command_that_restores_it() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.remove_database();
    let (_, document) = app.fails(&["predeploy"]);
    let verdict = document["verdict"].as_str().unwrap();
    let [restore] = commands(verdict)[..] else { panic!("{verdict}") };
    run_printed(&app.sandbox, restore);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn a_guard_that_cannot_take_a_safety_snapshot_prints_a_whole_command() {
    if !is_root() {
        return;
    }
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.make_anew("");
    crate::helpers::shell_ok(&app.sandbox, "chmod -R a+rX . && chown -R 65534 app");
    let run = run_without_root(&app.sandbox, &["guard", "--", "true"]);
    let stderr = run.stderr();
    let restore = commands(&stderr).into_iter().find(|command| command.contains("--no-safety"));
    let restore = restore.unwrap_or_else(|| panic!("{}", run.transcript()));
    assert!(restore.starts_with("lifeboat restore app-") && restore.contains(" --config "), "{restore}");
    run_printed(&app.sandbox, restore);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn a_store_that_may_not_be_entered_is_not_called_absent() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox.ok(&["snapshot", "app.db", "--store", "private/backups"]);
    fs::set_permissions(sandbox.path("private"), fs::Permissions::from_mode(0o700)).unwrap();
    let run = run_without_root(&sandbox, &["list", "--store", "private/backups"]).code(5);
    assert!(!run.stderr().contains("mounted") && run.stderr().contains("run as a user who"), "{}", run.transcript());
    let run = sandbox.run(&["list", "--store", "missing"]).code(5).says("'lifeboat init'");
    assert!(!run.stderr().contains("only 'lifeboat"), "{}", run.transcript());
}

#[test]
fn check_fails_for_a_store_that_cannot_be_written_to() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "delete");
    sandbox.ok(&["snapshot", "app.db", "--store", "backups"]);
    for (name, mode) in
        [("app.db", 0o644), ("backups", 0o755), ("backups/app", 0o755), ("backups/lifeboat.json", 0o644)]
    {
        fs::set_permissions(sandbox.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for entry in fs::read_dir(sandbox.path("backups/app")).unwrap().flatten() {
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o644)).unwrap();
    }
    sandbox.ok(&["check", "app.db", "--store", "backups"]);
    let run = run_without_root(&sandbox, &["check", "app.db", "--store", "backups"]).code(3);
    assert!(run.stdout().contains("cannot store snapshots in"), "{}", run.transcript());
}

#[test]
fn a_full_text_index_that_was_emptied_is_not_called_sound() {
    let app = App::new("");
    app.sql(
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);
         CREATE VIRTUAL TABLE docs_fts USING fts5(body, content='docs', content_rowid='id');
         CREATE VIRTUAL TABLE bare_fts USING fts5(body, content='docs', content_rowid='id', columnsize=0);
         INSERT INTO docs (body) SELECT 'document ' || id FROM accounts;
         INSERT INTO docs_fts (docs_fts) VALUES ('rebuild'); INSERT INTO bare_fts (bare_fts) VALUES ('rebuild');",
    );
    app.sandbox.ok(&["snapshot"]);
    app.passes(&["check"]);
    for index in ["docs_fts", "bare_fts"] {
        app.sql(&format!("INSERT INTO {index} ({index}) VALUES ('delete-all')"));
        let (failed, _) = app.fails(&["check"]);
        assert!(failed[0].contains(&format!("the full-text index {index} is empty, but docs has rows")), "{failed:?}");
        // The index has no rows of its own.
        app.passes(&["predeploy"]);
        app.sql(&format!("INSERT INTO {index} ({index}) VALUES ('rebuild')"));
        app.passes(&["check"]);
    }
    app.sql("DELETE FROM docs; INSERT INTO docs_fts (docs_fts) VALUES ('rebuild')");
    let (failed, _) = app.fails(&["check"]);
    assert!(!failed.iter().any(|check| check.contains("full-text index")), "{failed:?}");
}

#[test]
fn a_deploy_that_is_compared_with_a_snapshot_by_guard_is_not_called_the_first() {
    if !have(&["sqlite3"]) {
        return;
    }
    let app = new_app("");
    let program = "sqlite3 app/app.db 'CREATE TABLE accounts (a); INSERT INTO accounts VALUES (1)'";
    app.sandbox.ok(&["guard", "--", "sh", "-c", program]);
    let document = app.passes(&["postdeploy"]);
    let text = document.to_string();
    assert!(
        !text.contains("first deploy") && text.contains(&format!("compared with {}", app.ids()[0])),
        "{document:#}"
    );
}

#[test]
fn an_argument_that_is_not_text_is_named() {
    let sandbox = Sandbox::new();
    for json in [false, true] {
        let mut command = sandbox.command(&["check", "--store", "x"]);
        command.arg(OsStr::from_bytes(b"caf\xe9.db")).args(json.then_some("--json"));
        sandbox.finish(command).code(2).says("caf").says("is not UTF-8");
    }
}

#[test]
fn a_database_behind_a_link_whose_folder_is_missing_is_restored() {
    let app = App::new("");
    app.remove_database();
    fs::create_dir_all(app.sandbox.path("volume/data")).unwrap();
    symlink("../volume/data/app.db", app.sandbox.path("app/app.db")).unwrap();
    sample(app.sandbox.path("volume/data/app.db"), 3, "delete");
    app.sandbox.ok(&["snapshot"]);
    fs::remove_dir_all(app.sandbox.path("volume")).unwrap();
    app.starts(&[]);
    assert_eq!(query_value(app.sandbox.path("volume/data/app.db"), "SELECT count(*) FROM accounts"), "3");
    sql(app.sandbox.path("app/app.db"), "DELETE FROM logs");
}
