//! Who is told how a run went: webhook, pings, metrics. None of it changes what the run itself says.

use serde_json::Value;

use super::helpers::{App, only};
use crate::support::web::{Web, answer, redirect};

fn fine() -> Web {
    Web::answering(&[answer("200 OK", "text/plain", "ok")])
}

#[test]
fn a_failure_is_told_and_pinged_with_its_words() {
    let web = fine();
    let app = App::new(&format!(
        "[notify]\nwebhook = \"{}\"\nping = \"{}\"\n",
        web.url("/hook/s3cr3t"),
        web.url("/ping/t0ken")
    ));
    app.sandbox.ok(&["snapshot"]);
    assert_eq!(web.lines(), ["POST /ping/t0ken/start", "POST /ping/t0ken"], "good news is no notice");
    app.sql("DELETE FROM accounts; DELETE FROM balances");
    let run = app.sandbox.run(&["snapshot"]).code(3);
    assert!(!run.stderr().contains("s3cr3t") && !run.stderr().contains("t0ken"), "{}", run.transcript());
    let seen = web.seen();
    let fail = seen.iter().find(|seen| seen.target == "/ping/t0ken/fail").expect("a ping of the failure");
    assert!(fail.body.contains("empty"), "{}", fail.body);
    let hook = seen.iter().find(|seen| seen.target == "/hook/s3cr3t").expect("a notice");
    let notice: Value = serde_json::from_str(&hook.body).unwrap();
    assert_eq!(
        (&notice["event"], &notice["command"], &notice["exit_code"]),
        (&"failure".into(), &"snapshot".into(), &3.into())
    );
    assert_eq!(notice["host"], "test");
    assert!(notice["error"]["causes"].to_string().contains("empty"), "{notice:#}");
}

#[test]
fn a_recovery_is_told_once_and_a_failed_check_by_name() {
    let web = fine();
    let app = App::new(&format!(
        "[notify]\nwebhook = \"{}\"\nform = \"slack\"\non = \"recovery\"\nstate = \"./state.json\"\n",
        web.url("/hook")
    ));
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["check"]);
    assert_eq!(web.lines().len(), 0);
    app.sql("DELETE FROM accounts");
    app.sandbox.run(&["check"]).code(3);
    app.sql("INSERT INTO accounts (name) SELECT 'x' FROM balances LIMIT 40");
    app.sandbox.ok(&["check"]);
    app.sandbox.ok(&["check"]);
    let bodies: Vec<String> = web.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 2, "{bodies:#?}");
    let text = |body: &str| serde_json::from_str::<Value>(body).unwrap()["text"].as_str().unwrap().to_owned();
    assert!(text(&bodies[0]).contains("accounts"), "{bodies:#?}");
}

#[test]
fn a_webhook_that_is_down_is_a_warning() {
    let app = App::new("[notify]\nwebhook = \"http://127.0.0.1:1/secret\"\non = \"always\"\n");
    let run = app.sandbox.ok(&["snapshot"]);
    assert!(run.stderr().contains("WARN") && !run.stderr().contains("secret"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1);
}

#[test]
fn endpoints_that_do_not_answer_as_they_should_close_the_gate() {
    let html = answer("200 OK", "text/html", "<html>login</html>");
    let web =
        Web::answering(&[redirect("302 Found", "https://elsewhere/login"), html, answer("500 Oops", "text/plain", "")]);
    let app = App::new("");
    app.config(&format!(
        "[preflight]\nhttp = [{{ url = \"{}\", json = \"status\", equals = \"ok\" }}]\n",
        web.url("/health")
    ));
    only(&app.closed(&["predeploy"]).0, &["health", "redirects"]);
    only(&app.closed(&["predeploy"]).0, &["health", "HTML"]);
    only(&app.closed(&["predeploy"]).0, &["health", "500"]);
    assert_eq!(app.ids(), Vec::<String>::new());
    let web = Web::answering(&[
        answer("503 Busy", "text/plain", ""),
        answer("200 OK", "application/json", "{\"status\": \"starting\"}"),
        answer("200 OK", "application/json", "{\"status\": \"ok\"}"),
    ]);
    app.config(&format!(
        "[preflight]\nhttp = [{{ url = \"{}\", json = \"status\", equals = \"ok\" }}]\n",
        web.url("/health")
    ));
    app.passes(&["predeploy", "--wait", "60s"]);
}

#[test]
fn metrics_say_when_the_last_good_snapshot_was() {
    let app = App::new("");
    app.sandbox.ok(&["snapshot", "--metrics-file", "lifeboat.prom"]);
    let read = || std::fs::read_to_string(app.sandbox.path("lifeboat.prom")).unwrap();
    let value = |name: &str| {
        let text = read();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{source=\"app\"")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(value("lifeboat_last_run_ok"), 1.0);
    let names: Vec<String> = read().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert!(names.iter().any(|line| line.contains("rows") && line.ends_with(" 240")), "{names:#?}");
    app.sql("DELETE FROM accounts; DELETE FROM balances");
    app.sandbox.run(&["snapshot", "--metrics-file", "lifeboat.prom"]).code(3);
    assert_eq!(value("lifeboat_last_run_ok"), 0.0);
    assert!(
        read().lines().any(|line| line.contains("rows") && line.ends_with(" 240")),
        "the last success stays\n{}",
        read()
    );
}
