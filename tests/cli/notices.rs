//! Notices and pings: their forms, when they are sent, and failures of their servers.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use crate::network::{SECRET, child_process, closed_port, event, events, ms, ok_answer, text_of, url};
use crate::support::web::{Web, answer, redirect};
use lifeboat::notify::{Event, Form, Notify, When};
use serde_json::{Value, json};
use tempfile::TempDir;

fn webhook(server: &Web) -> Notify {
    Notify { webhook: Some(url(&server.url("/hook/T0k3n"))), ..Notify::default() }
}

fn no_warnings() -> [String; 0] {
    []
}

#[test]
fn a_notice_is_sent_again_after_a_temporary_failure() {
    let server = Web::answering(&[
        answer("503 Service Unavailable", "text/html", "<h1>no</h1>"),
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ok_answer(),
    ]);
    let start = Instant::now();
    assert_eq!(webhook(&server).ended(&event(false)), no_warnings());
    assert!(start.elapsed() >= ms(1500), "the wait in Retry-After was not respected: {:?}", start.elapsed());
    let seen = server.requests();
    assert_eq!(server.request_lines(), vec!["POST /hook/T0k3n"; 3]);
    let document: Value = serde_json::from_str(&seen[2].body).unwrap();
    assert_eq!((&document["event"], &document["ok"]), (&json!("failure"), &json!(false)));
    assert_eq!(document["checks"], json!([{"name": "rows", "message": "0 & none"}]));
    assert_eq!(seen[2].header("content-type"), Some("application/json"));
}

#[test]
fn a_refused_notice_gives_one_warning_without_secrets() {
    let target = Web::answering(&[ok_answer()]);
    for (reply, words) in [
        (answer("404 Not Found", "text/plain", "no_service T0k3n"), "answers 404".to_owned()),
        (redirect("302 Found", &target.url("/T0k3n")), format!("redirects to {} (302)", target.url(""))),
    ] {
        let server = Web::answering(&[reply]);
        let warnings = webhook(&server).ended(&event(false));
        assert_eq!(warnings, [format!("the notice was not sent: {} {words}", server.url(""))]);
        assert_eq!(server.request_lines().len(), 1);
    }
    assert_eq!(target.request_lines(), [""; 0]);
}

#[test]
fn notices_to_a_hanging_server_or_a_closed_port_end_in_time() {
    let (hook, ping) = (Web::hanging(), Web::hanging());
    let notify = Notify { ping: Some(url(&ping.url("/T0k3n"))), ..webhook(&hook) };
    let start = Instant::now();
    let warnings = notify.ended_within(&event(false), ms(2000));
    assert!(start.elapsed() < ms(4000), "{:?}", start.elapsed());
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("the notice was not sent: no answer from http://127.0.0.1:"), "{warnings:?}");
    assert!(warnings[1].starts_with("the ping was not sent: no answer from http://127.0.0.1:"), "{warnings:?}");
    let start = Instant::now();
    let notify = Notify { ping: Some(url(&format!("http://127.0.0.1:{}/T0k3n", closed_port()))), ..Notify::default() };
    let mut all = notify.started("snapshot");
    all.extend(warnings);
    assert!(all[0].contains("refuses the connection"), "{all:?}");
    assert!(start.elapsed() < ms(6000), "{:?}", start.elapsed());
    assert!(!format!("{all:?} {notify:?}").contains(SECRET), "{all:?}");
}

#[test]
fn a_hanging_ping_at_the_start_delays_the_work_by_at_most_five_seconds() {
    let server = Web::hanging();
    let notify = Notify { ping: Some(url(&server.url("/id"))), ..Notify::default() };
    let start = Instant::now();
    assert_eq!(notify.started("snapshot").len(), 1);
    assert!(start.elapsed() < ms(7000), "{:?}", start.elapsed());
}

#[test]
fn pings_report_start_success_and_failure() {
    let server = Web::answering(&[ok_answer()]);
    for (address, start, success, fail) in [
        ("/id", "POST /id/start", "POST /id", "POST /id/fail"),
        ("/id/?create=1", "POST /id/start?create=1", "POST /id/?create=1", "POST /id/fail?create=1"),
    ] {
        let seen = server.request_lines().len();
        let notify = Notify { ping: Some(url(&server.url(address))), ..Notify::default() };
        assert_eq!(notify.started("snapshot"), no_warnings());
        assert_eq!(notify.ended(&event(true)), no_warnings());
        let mut long = event(false);
        long.checks[0].message = "\u{e9}".repeat(20_000);
        assert_eq!(notify.ended(&long), no_warnings());
        assert_eq!(server.request_lines()[seen..], [start, success, fail]);
        let last = server.requests().pop().unwrap();
        assert!(last.body.contains("error: a <check> failed\nhint: look"), "{}", last.body);
        assert!((9_900..=10_000).contains(&last.body.len()), "{}", last.body.len());
    }
}

#[test]
fn notices_to_slack_have_its_format() {
    let server = Web::answering(&[ok_answer()]);
    let notify = Notify { form: Form::Slack, on: When::Always, ..webhook(&server) };
    assert_eq!(notify.ended(&event(false)), no_warnings());
    assert_eq!(notify.ended(&event(true)), no_warnings());
    let texts: Vec<Value> = server.requests().iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    let failed = texts[0]["text"].as_str().unwrap();
    assert!(
        failed.starts_with("lifeboat snapshot of app on web-1 failed\nerror: a &lt;check&gt; failed\n"),
        "{failed}"
    );
    assert!(failed.contains("failed check: rows: 0 &amp; none"), "{failed}");
    assert!(texts[1]["text"].as_str().unwrap().starts_with("lifeboat snapshot of app on web-1 succeeded\n"));
}

#[test]
fn notices_are_sent_for_the_configured_results() {
    for (on, expected) in [
        (When::Failure, vec!["failure", "failure"]),
        (When::Recovery, vec!["failure", "failure", "recovery"]),
        (When::Always, vec!["success", "failure", "failure", "success", "success"]),
    ] {
        let (server, folder) = (Web::answering(&[ok_answer()]), TempDir::new().unwrap());
        let notify = Notify { on, state: Some(folder.path().join("state.json")), ..webhook(&server) };
        for ok in [true, false, false, true, true] {
            assert_eq!(notify.ended(&event(ok)), no_warnings());
        }
        assert_eq!(events(&server), expected, "{on:?}");
    }
}

#[test]
fn a_recovery_notice_is_sent_for_each_key_until_it_is_delivered() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state.json");
    let server = Web::answering(&[ok_answer(), answer("403 Forbidden", "text/plain", ""), ok_answer()]);
    let notify = Notify { on: When::Recovery, state: Some(state.clone()), ..webhook(&server) };
    assert_eq!(notify.ended(&event(false)), no_warnings());
    let other = Event { key: "check /etc/lifeboat.toml".to_owned(), ..event(true) };
    assert_eq!(notify.ended(&other), no_warnings());
    assert_eq!(notify.ended(&event(true)).len(), 1);
    assert_eq!(notify.ended(&event(true)), no_warnings());
    assert_eq!(notify.ended(&event(true)), no_warnings());
    assert_eq!(events(&server), ["failure", "recovery", "recovery"]);
    // A state that cannot be read gives a warning, and the notice of a failure is still sent.
    fs::write(&state, "not json").unwrap();
    let warnings = notify.ended(&event(true));
    assert!(warnings.len() == 1 && warnings[0].starts_with("a notice of a recovery may not be sent: "), "{warnings:?}");
    let nowhere = Notify { state: Some(PathBuf::from("/proc/nowhere/state.json")), ..notify.clone() };
    assert_eq!(nowhere.ended(&event(false)).len(), 1);
    assert_eq!(notify.ended(&event(false)), no_warnings(), "the state was not written again");
    assert_eq!(notify.ended(&event(true)), no_warnings());
    assert_eq!(events(&server)[3..], ["failure", "failure", "recovery"]);
}

/// Sends the notice of a success if `OK` is 1 and of a failure otherwise, with the state in the default folder.
#[test]
#[ignore = "it is the other half of the test of the usual place"]
fn child_sends_a_notice() {
    let webhook = Some(url(&std::env::var("HOOK").unwrap()));
    let notify = Notify { webhook, on: When::Recovery, ..Notify::default() };
    println!("warnings {:?}", notify.ended(&event(std::env::var("OK").unwrap() == "1")));
}

#[test]
fn failures_are_recorded_in_the_folder_that_the_environment_sets() {
    let (server, folder) = (Web::answering(&[ok_answer()]), TempDir::new().unwrap());
    let (hook, base) = (server.url("/"), folder.path().to_str().unwrap());
    let state = folder.path().join("state");
    for (variables, file) in [
        (vec![("HOME", base)], ".local/state/lifeboat/notices.json"),
        (vec![("HOME", "/nowhere"), ("XDG_STATE_HOME", base)], "lifeboat/notices.json"),
        (
            vec![("HOME", "/nowhere"), ("XDG_STATE_HOME", "/nowhere"), ("LIFEBOAT_STATE", state.to_str().unwrap())],
            "state/notices.json",
        ),
    ] {
        let run = |ok: &str| {
            let variables = [variables.as_slice(), &[("HOOK", hook.as_str()), ("OK", ok)]].concat();
            let printed = text_of(&child_process(module_path!(), "child_sends_a_notice", &variables).output().unwrap());
            assert!(printed.contains("warnings []"), "{printed}");
        };
        run("0");
        assert!(folder.path().join(file).is_file(), "{file}");
        run("1");
        assert_eq!(events(&server).last().unwrap(), "recovery");
    }
    let variables = [("HOME", ""), ("HOOK", hook.as_str()), ("OK", "0")];
    let printed = text_of(&child_process(module_path!(), "child_sends_a_notice", &variables).output().unwrap());
    assert!(printed.contains("recovery may not be sent: there is no folder for the record of failures"), "{printed}");
    assert_eq!(events(&server).last().unwrap(), "failure");
}
