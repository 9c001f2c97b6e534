//! A source that was renamed in the config: the store has its history under the old name, and nothing under the new one.

use std::fs;

use super::guard_start::{commands, run_printed};
use super::helpers::App;

/// Takes a snapshot of the app, and renames its source to `main`. Returns the app and the id of the snapshot.
fn renamed() -> (App, String) {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let id = app.ids()[0].clone();
    rename(&app, "app", "main");
    (app, id)
}

fn rename(app: &App, old: &str, new: &str) {
    let config = fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    let config = config.replace(&format!("name = \"{old}\""), &format!("name = \"{new}\""));
    fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
}

/// Replaces the database by one with the tables of the app, one account and no balances.
fn seed(app: &App) {
    app.make_anew("INSERT INTO accounts (name) VALUES ('admin')");
}

#[test]
fn guard_does_not_start_the_program_without_the_rows_of_a_renamed_source() {
    let (app, id) = renamed();
    app.remove_database();
    let run = app.refuses(&[], 3).says("main is missing, and this is not its first start");
    for part in [&*id, "under the name app", "test:", "with 240 rows", "earlier name again: app", "-- CMD"] {
        assert!(run.stderr().contains(part), "'{part}' is missing\n{}", run.transcript());
    }
    app.starts(&["--on-doubt", "start"]).says("started all the same");
    assert!(!app.sandbox.path("app/app.db").exists());
    // With its earlier name, it is restored.
    rename(&app, "main", "app");
    app.starts(&[]);
    assert_eq!(app.rows(), (40, 200));
    // The printed command restores it as well, and its history continues under the new name.
    rename(&app, "app", "main");
    app.remove_database();
    run_printed(&app.sandbox, &commands(&run.stderr())[0]);
    assert_eq!(app.rows(), (40, 200));
    app.starts(&[]).says("its database has all tables and rows of it");
    assert!(app.ids()[0].starts_with("main-"), "{:?}", app.ids());
    app.remove_database();
    app.starts(&[]);
    assert_eq!(app.rows(), (40, 200));
}

#[test]
fn guard_restores_a_renamed_source_if_older_states_are_allowed() {
    let (app, _) = renamed();
    app.remove_database();
    app.starts(&["--on-doubt", "restore-older"]).says("under the name app");
    assert_eq!(app.rows(), (40, 200));
    app.starts(&[]);
}

#[test]
fn a_seeded_database_of_a_renamed_source_does_not_pass_as_a_new_one() {
    let (app, id) = renamed();
    seed(&app);
    app.refuses(&[], 3).says("rows of balances").says("under the name app");
    let (failed, document) = app.fails(&["predeploy"]);
    assert!(failed.iter().any(|check| check.contains("rows of balances")), "{failed:#?}");
    assert!(document.to_string().contains("under the name app") && document.to_string().contains(&id), "{document:#}");
    let run = app.sandbox.run(&["postdeploy"]).code(3);
    assert!(run.stderr().contains("under the name app"), "{}", run.transcript());
    let (failed, _) = app.fails(&["check", "--no-backups"]);
    assert!(failed.iter().any(|check| check.contains("rows of balances")), "{failed:#?}");
    let run = app.sandbox.run(&["snapshot"]).code(3).says("under the name app");
    assert!(run.stderr().contains("not used as the baseline"), "{}", run.transcript());
    let run = app.sandbox.run(&["predeploy"]).code(3);
    assert!(run.stdout().contains("rows of balances"), "{}", run.transcript());
    // A person who has read the warning decides.
    app.sandbox.ok(&["snapshot", "--accept"]);
    app.passes(&["predeploy"]);
}

#[test]
fn accepting_the_state_of_a_renamed_source_names_its_other_history() {
    let (app, id) = renamed();
    seed(&app);
    app.sandbox.ok(&["snapshot", "--accept"]).says("under the name app").says(&id);
    app.passes(&["predeploy"]);
    app.starts(&[]);
}

#[test]
fn a_renamed_source_with_all_its_rows_passes_everywhere() {
    let (app, id) = renamed();
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    let document = app.passes(&["predeploy"]);
    assert!(document["checks"].to_string().contains(&id), "{document:#}");
    app.passes(&["postdeploy"]);
    let (app, _) = renamed();
    app.starts(&[]);
    app.sandbox.ok(&["snapshot"]);
    assert!(app.ids().iter().filter(|id| id.starts_with("main-")).count() >= 2, "{:?}", app.ids());
}

#[test]
fn another_database_in_the_same_store_is_no_other_name() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    let config = fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    let config = config.replace("name = \"app\"", "name = \"main\"").replace("./app/app.db", "./app/main.db");
    fs::write(app.sandbox.path("lifeboat.toml"), config).unwrap();
    app.starts(&[]).says("this is its first start");
    app.passes(&["predeploy"]);
}
