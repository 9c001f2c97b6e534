//! The end of `guard`: what it says, which exit code it has, and what its notice says.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use super::helpers::App;
use crate::support::open;
use crate::support::web::{Web, answer};

/// Returns an app whose guard sends a notice after every run, and the server that receives the notices.
fn app_with_notices() -> (App, Web) {
    let web = Web::answering(&[answer("200 OK", "text/plain", "ok")]);
    let app = App::new(&format!("[notify]\non = \"always\"\nwebhook = \"{}\"\n", web.url("/hook")));
    (app, web)
}

fn notices(web: &Web) -> Vec<Value> {
    web.requests().iter().map(|request| serde_json::from_str(&request.body).unwrap()).collect()
}

fn notice(web: &Web) -> Value {
    let mut notices = notices(web);
    assert_eq!(notices.len(), 1, "{notices:#?}");
    notices.remove(0)
}

#[test]
fn a_program_that_cannot_be_run_is_a_failure_in_the_notice_and_in_the_metrics() {
    let (app, web) = app_with_notices();
    let run = app.sandbox.run(&["guard", "--metrics-file", "m.prom", "--", "no-such-program"]).code(127);
    assert!(run.stderr().contains("cannot run no-such-program"), "{}", run.transcript());
    assert!(run.stderr().contains("no snapshot is taken"), "{}", run.transcript());
    let notice = notice(&web);
    assert_eq!(
        (&notice["event"], &notice["exit_code"], &notice["ok"]),
        (&"failure".into(), &127.into(), &false.into())
    );
    assert!(notice["error"].to_string().contains("no-such-program"), "{notice:#}");
    let metrics = std::fs::read_to_string(app.sandbox.path("m.prom")).unwrap();
    assert!(metrics.contains("lifeboat_last_run_ok{source=\"app\"} 0"), "{metrics}");

    let (app, web) = app_with_notices();
    let script = app.sandbox.path("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o644)).unwrap();
    app.sandbox.run(&["guard", "--", "./script"]).code(126);
    assert_eq!(self::notice(&web)["event"], "failure");
}

#[test]
fn a_program_that_dies_at_once_is_a_failure_in_the_notice() {
    for (script, code) in [("exit 3", 3), ("kill -SEGV $$", 139)] {
        let (app, web) = app_with_notices();
        app.sandbox.run(&["guard", "--", "sh", "-c", script]).code(code);
        let notices = notices(&web);
        let notice = &notices[0];
        assert_eq!((&notice["event"], &notice["exit_code"]), (&"failure".into(), &code.into()), "{notice:#}");
        assert!(notice["error"]["message"].as_str().unwrap().contains("after its start"), "{notice:#}");
        assert_eq!(notice["snapshots"].as_array().unwrap().len(), 1, "its data was saved: {notice:#}");
        // The source was saved, which is a result of its own.
        let of_source = |notice: &Value| (notice["event"].clone(), notice["sources"].clone());
        let of_source: Vec<_> = notices[1..].iter().map(of_source).collect();
        assert_eq!(of_source, [("success".into(), serde_json::json!(["app"]))]);
    }
    let (app, web) = app_with_notices();
    app.sandbox.run(&["guard", "--", "true"]).code(0);
    assert_eq!(notice(&web)["event"], "success");
}

#[test]
fn a_program_that_was_asked_to_stop_may_end_with_any_exit_code() {
    let (app, web) = app_with_notices();
    let script = "trap 'exit 7' TERM; touch ready; while :; do sleep 0.02; done";
    let running = app.sandbox.start(&["guard", "--", "sh", "-c", script]);
    super::guard::wait_for(&app.sandbox.path("ready"));
    running.signal(Signal::TERM);
    running.finish().code(7);
    assert_eq!(notice(&web)["event"], "success");
}

#[test]
fn processes_in_the_background_are_named_before_they_are_ended() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot"]);
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    // A background process first has the name of the shell.
    let script = "sleep 600 & one=$!; setsid sleep 601 & for process in $one $!; do
        until [ \"$(cat /proc/$process/comm)\" = sleep ]; do :; done; done; exit 0";
    let run = app.sandbox.run(&["guard", "--", "sh", "-c", script]).code(0);
    let text = run.stderr();
    let said = text.find("left 2 processes in the background").unwrap_or_else(|| panic!("{}", run.transcript()));
    assert!(text[said..].contains("(sleep)") && text[said..].contains("the container stops"), "{}", run.transcript());
    assert!(text.find("saved app-").is_some_and(|saved| said < saved), "{}", run.transcript());
    assert!(text.contains("ended by itself with exit code 0"), "{}", run.transcript());
}

#[test]
fn a_last_snapshot_that_is_only_in_part_not_saved_names_what_was_saved() {
    let app = App::new("[[source]]\nname = \"other\"\nurl = \"./app/other.db\"\n");
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    let text = run.stderr();
    assert!(!text.contains("the last snapshot was not taken"), "{}", run.transcript());
    assert!(text.contains("the last snapshot is not complete; saved: app-"), "{}", run.transcript());
    assert!(text.contains("; not saved: other"), "{}", run.transcript());

    open(app.sandbox.path("app/other.db")).execute_batch("CREATE TABLE a (b); INSERT INTO a VALUES (1)").unwrap();
    app.sandbox.run(&["guard", "--", "true"]).code(0);
    // One of two stores is away.
    let config = std::fs::read_to_string(app.sandbox.path("lifeboat.toml")).unwrap();
    std::fs::write(app.sandbox.path("lifeboat.toml"), config + "[[store]]\nurl = \"./second\"\n").unwrap();
    app.sql("INSERT INTO accounts (name) VALUES ('new')");
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    let text = run.stderr();
    assert!(!text.contains("the last snapshot was not taken") && text.contains("second"), "{}", run.transcript());
    assert!(text.contains("saved: app-"), "{}", run.transcript());
    std::fs::rename(app.sandbox.path("backups"), app.sandbox.path("gone")).unwrap();
    let run = app.sandbox.run(&["guard", "--", "true"]).code(0);
    assert!(run.stderr().contains("the last snapshot was not taken"), "{}", run.transcript());
}
