//! Webhooks, pings and metrics that report the result of a run, and HTTP checks. A failure to send them does not change
//! the result.

use serde_json::Value;

use super::helpers::{App, assert_one_failed};
use crate::support::web::{Web, answer, redirect};

/// Starts a server that accepts every request.
fn accepting_server() -> Web {
    Web::answering(&[answer("200 OK", "text/plain", "ok")])
}

#[test]
fn a_failure_sends_a_notice_and_a_ping_with_its_message() {
    let web = accepting_server();
    let app = App::new(&format!(
        "[notify]\nwebhook = \"{}\"\nping = \"{}\"\n",
        web.url("/hook/s3cr3t"),
        web.url("/ping/t0ken")
    ));
    app.sandbox.ok(&["snapshot"]);
    assert_eq!(web.request_lines(), ["POST /ping/t0ken/start", "POST /ping/t0ken"], "a success sends no notice");
    app.sql("DELETE FROM accounts; DELETE FROM balances");
    let run = app.sandbox.run(&["snapshot"]).code(3);
    assert!(!run.stderr().contains("s3cr3t") && !run.stderr().contains("t0ken"), "{}", run.transcript());
    let seen = web.requests();
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
fn a_recovery_is_reported_once_and_a_failed_check_by_its_name() {
    let web = accepting_server();
    let app = App::new(&format!(
        "[notify]\nwebhook = \"{}\"\nform = \"slack\"\non = \"recovery\"\nstate = \"./state.json\"\n",
        web.url("/hook")
    ));
    app.sandbox.ok(&["snapshot"]);
    app.sandbox.ok(&["check"]);
    assert_eq!(web.request_lines().len(), 0);
    app.sql("DELETE FROM accounts");
    app.sandbox.run(&["check"]).code(3);
    app.sql("INSERT INTO accounts (name) SELECT 'x' FROM balances LIMIT 40");
    app.sandbox.ok(&["check"]);
    app.sandbox.ok(&["check"]);
    let bodies: Vec<String> = web.requests().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies.len(), 2, "{bodies:#?}");
    let text = |body: &str| serde_json::from_str::<Value>(body).unwrap()["text"].as_str().unwrap().to_owned();
    assert!(text(&bodies[0]).contains("accounts"), "{bodies:#?}");
}

#[test]
fn an_unreachable_webhook_gives_a_warning() {
    let app = App::new("[notify]\nwebhook = \"http://127.0.0.1:1/secret\"\non = \"always\"\n");
    let run = app.sandbox.ok(&["snapshot"]);
    assert!(run.stderr().contains("WARN") && !run.stderr().contains("secret"), "{}", run.transcript());
    assert_eq!(app.ids().len(), 1);
}

#[test]
fn unhealthy_endpoints_close_the_gate() {
    let html = answer("200 OK", "text/html", "<html>login</html>");
    let web =
        Web::answering(&[redirect("302 Found", "https://elsewhere/login"), html, answer("500 Oops", "text/plain", "")]);
    let app = App::new("");
    app.write_config(&format!(
        "[preflight]\nhttp = [{{ url = \"{}\", json = \"status\", equals = \"ok\" }}]\n",
        web.url("/health")
    ));
    assert_one_failed(&app.fails(&["predeploy"]).0, &["health", "redirects"]);
    assert_one_failed(&app.fails(&["predeploy"]).0, &["health", "HTML"]);
    assert_one_failed(&app.fails(&["predeploy"]).0, &["health", "500"]);
    assert_eq!(app.ids(), Vec::<String>::new());
    let web = Web::answering(&[
        answer("503 Busy", "text/plain", ""),
        answer("200 OK", "application/json", "{\"status\": \"starting\"}"),
        answer("200 OK", "application/json", "{\"status\": \"ok\"}"),
    ]);
    app.write_config(&format!(
        "[preflight]\nhttp = [{{ url = \"{}\", json = \"status\", equals = \"ok\" }}]\n",
        web.url("/health")
    ));
    app.passes(&["predeploy", "--wait", "60s"]);
}

#[test]
fn metrics_keep_the_rows_of_the_last_successful_snapshot() {
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
        "the metrics of the last success are missing\n{}",
        read()
    );
}
