//! A good snapshot that is newer than the one of `predeploy`, and a second `predeploy` for the same commit: rows that only
//! one of two snapshots has are never left out in silence.

use super::helpers::{App, assert_one_failed};
use crate::support::Run;

/// Returns the `lifeboat` commands in single quotes.
fn quoted_commands(text: &str) -> Vec<String> {
    text.split('\'').skip(1).step_by(2).filter(|part| part.starts_with("lifeboat ")).map(str::to_owned).collect()
}

fn verdict(run: &Run, word: &str) -> String {
    run.stdout().lines().rfind(|line| line.contains(word)).unwrap_or_default().to_owned()
}

/// Adds 60 balances after the gate, and saves them as a cron job does. Returns the ids of both snapshots.
fn saved_twice(app: &App) -> (String, String) {
    app.passes(&["predeploy", "--commit", "one"]);
    app.sql("INSERT INTO balances (id, amount) SELECT id + 1000, 1 FROM balances WHERE id <= 60");
    app.sandbox.ok(&["snapshot"]);
    let ids = app.ids();
    (ids[1].clone(), ids[0].clone())
}

#[test]
fn a_rollback_names_the_newer_snapshot_and_the_command_that_restores_it() {
    let app = App::new("");
    let (gate, newer) = saved_twice(&app);
    app.sql("DELETE FROM balances");
    for options in [&["postdeploy"][..], &["postdeploy", "--rollback"]] {
        let run = app.sandbox.run(&[options, &["--commit", "one"]].concat()).code(3);
        let verdict = verdict(&run, "checks FAILED");
        let parts =
            [&format!("is newer than {gate}"), newer.as_str(), "260 rows of balances (200)", "restores it instead"];
        for part in parts {
            assert!(verdict.contains(part), "'{part}' is not in the verdict\n{}", run.transcript());
        }
        assert!(run.stdout().contains("app: newer snapshot"), "{}", run.transcript());
        if options.len() == 2 {
            assert_eq!(app.integer("SELECT count(*) FROM balances"), 200, "{}", run.transcript());
            crate::helpers::shell_ok(&app.sandbox, &quoted_commands(&verdict)[0]);
            assert_eq!(app.integer("SELECT count(*) FROM balances"), 260, "{}", run.transcript());
        }
    }
    app.passes(&["postdeploy", "--commit", "one"]);
}

#[test]
fn rows_that_only_the_newer_snapshot_has_are_lost_too() {
    let app = App::new("");
    let (gate, newer) = saved_twice(&app);
    let run = app.sandbox.ok(&["postdeploy", "--commit", "one"]);
    assert!(!run.stdout().contains(&newer), "nothing is lost\n{}", run.transcript());
    app.sql("DELETE FROM balances WHERE id > 1000");
    let (failed, document) = app.fails(&["postdeploy", "--commit", "one", "--rollback"]);
    assert_one_failed(&failed, &[&format!("rows of balances since {newer}"), "200 rows, 260 before: 60 are gone"]);
    assert!(document.get("restored").is_none(), "{document:#}");
    let verdict = document["verdict"].as_str().unwrap();
    for part in [&format!("has lost rows since {newer}"), &format!("fewer rows than in {gate}"), "nothing was restored"]
    {
        assert!(verdict.contains(part), "'{part}' is not in {verdict}");
    }
    crate::helpers::shell_ok(&app.sandbox, &quoted_commands(verdict)[0]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 260);
    // Within the tolerance, the gate passes, and says so.
    app.sql("DELETE FROM balances WHERE id > 1040");
    let run = app.sandbox.ok(&["postdeploy", "--commit", "one"]);
    assert!(verdict_of(&run).contains(&format!("fewer rows than {newer}")), "{}", run.transcript());
}

fn verdict_of(run: &Run) -> String {
    verdict(run, "values were not compared")
}

#[test]
fn a_newer_snapshot_that_is_suspect_or_has_less_is_not_proposed() {
    let app = App::new("");
    app.passes(&["predeploy"]);
    app.sql("DELETE FROM balances WHERE id > 185");
    app.sandbox.ok(&["snapshot"]);
    app.sql("DELETE FROM balances");
    app.sandbox.run(&["snapshot"]).code(3);
    let run = app.sandbox.run(&["postdeploy"]).code(3);
    assert!(!run.stdout().contains("is newer than"), "{}", run.transcript());
}

#[test]
fn a_second_gate_for_a_commit_names_the_rows_that_only_the_first_one_saved() {
    let app = App::new("");
    app.passes(&["predeploy", "--commit", "one"]);
    let first = app.ids()[0].clone();
    let run = app.sandbox.ok(&["predeploy", "--commit", "one"]);
    assert!(!run.stdout().contains("earlier"), "{}", run.transcript());
    app.sql("DELETE FROM balances WHERE id > 185");
    app.sandbox.ok(&["snapshot"]);
    let run = app.sandbox.ok(&["predeploy", "--commit", "one"]);
    let second = app.ids()[2].clone();
    assert_ne!(first, second);
    let verdict = verdict(&run, "the gate is open");
    for part in
        ["an earlier predeploy for one has taken", &second, "185 rows, 200 before: 15 are gone", "restores the earlier"]
    {
        assert!(verdict.contains(part), "'{part}' is not in the verdict\n{}", run.transcript());
    }
    crate::helpers::shell_ok(&app.sandbox, &quoted_commands(&verdict)[0]);
    assert_eq!(app.integer("SELECT count(*) FROM balances"), 200);
    // Another commit begins anew, and a loss beyond the tolerance closes the gate of the same one.
    app.sql("DELETE FROM balances WHERE id > 185");
    let run = app.sandbox.ok(&["predeploy", "--commit", "two"]);
    assert!(!run.stdout().contains("earlier"), "{}", run.transcript());
    app.sql("DELETE FROM balances WHERE id > 100");
    let ids = app.ids();
    assert_one_failed(&app.fails(&["predeploy", "--commit", "two"]).0, &["rows of balances"]);
    assert_eq!(app.ids(), ids);
}
