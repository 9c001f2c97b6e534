//! The grace period of `guard`, compared with the time that the last snapshots took.

use super::helpers::App;

/// Makes every snapshot of the app say that it took this number of seconds.
fn set_seconds(app: &App, seconds: &str) {
    for entry in std::fs::read_dir(app.sandbox.path("backups/app")).unwrap().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let line = text.lines().find(|line| line.contains("\"seconds\"")).unwrap();
            std::fs::write(entry.path(), text.replace(line, &format!("  \"seconds\": {seconds},"))).unwrap();
        }
    }
}

#[test]
fn a_grace_period_that_is_too_short_is_a_warning_at_the_start_and_fails_doctor() {
    let app = App::new("[guard]\ngrace = \"10s\"\n");
    app.passes(&["doctor"]);
    app.sandbox.ok(&["snapshot"]);
    set_seconds(&app, "4.0");
    let run = app.sandbox.ok(&["guard", "--", "true"]);
    assert!(!run.stderr().contains("grace"), "{}", run.transcript());
    app.passes(&["doctor"]);
    for (seconds, words, needed) in [("6.5", "may not be complete", "18s"), ("61.0", "cannot be complete", "154s")] {
        set_seconds(&app, seconds);
        let run = app.sandbox.ok(&["guard", "--", "true"]);
        assert!(run.stderr().contains("grace period is too short"), "{}", run.transcript());
        assert!(run.stderr().contains(words) && run.stderr().contains(needed), "{}", run.transcript());
        let (failed, _) = app.fails(&["doctor"]);
        assert!(failed.len() == 1 && failed[0].starts_with("guard: the grace period is too short"), "{failed:#?}");
        // The number in the message is enough.
        app.write_config(&format!("[guard]\ngrace = \"{needed}\"\n"));
        app.passes(&["doctor"]);
        app.write_config("[guard]\ngrace = \"10s\"\n");
    }
}

#[test]
fn doctor_checks_the_grace_period_only_where_a_guard_is_used() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    set_seconds(&app, "61.0");
    app.passes(&["doctor"]);
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    app.sandbox.ok(&["guard", "--", "true"]);
    set_seconds(&app, "61.0");
    let (failed, _) = app.fails(&["doctor"]);
    assert!(failed[0].starts_with("guard: the grace period"), "{failed:#?}");
}
