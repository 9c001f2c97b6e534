//! What commands call around the work itself: questions over HTTP, notices, and looks before a deploy; against real
//! servers that misbehave and real mounts.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::web::{Web, answer, hang, read_request, redirect};
use crate::support::{child_test, have, skip_unless_ci};
use lifeboat::config::{HttpCheck, JsonField};
use lifeboat::notify::{CheckFailure, Event, Failure, Form, Notify, When};
use lifeboat::ops::preflight::{self, Finding};
use lifeboat::platform::error::{Kind, Result};
use lifeboat::platform::http::{Body, Client, Url};
use lifeboat::platform::interrupt;
use lifeboat::platform::secret::Secret;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What must be in no message.
const SECRET: &str = "T0k3n";

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn ok() -> String {
    answer("200 OK", "text/plain", "OK")
}

/// A port at which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Runs one of the tests below that stand for a program of their own, with these variables and no proxies of ours.
fn program(name: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = child_test(module_path!(), name);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "LIFEBOAT_STATE", "XDG_STATE_HOME"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What such a program said.
fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

// ---------------------------------------------------------------- questions

#[test]
fn a_question_carries_its_body_its_type_and_who_asks() {
    let server = Web::answering(&[ok()]);
    let client = Client::new(ms(5000)).bearer(Secret::new("abc"));
    let reply = client.post(&url(&server.url("/a?b=c")), Body::Json(json!({"x": 1}))).unwrap();
    assert_eq!((reply.status, reply.body.as_slice(), reply.whole), (200, b"OK".as_slice(), true));
    assert_eq!(reply.content_type, "text/plain");
    client.post(&url(&server.url("/t")), Body::Text("h\u{e9}llo".to_owned())).unwrap();
    client.get(&url(&format!("http://me:p%40ss@127.0.0.1:{}", server.port))).unwrap();
    let seen = server.seen();
    assert_eq!(server.lines(), ["POST /a?b=c", "POST /t", "GET /"]);
    assert_eq!((seen[0].header("content-type"), seen[0].body.as_str()), (Some("application/json"), "{\"x\":1}"));
    assert_eq!(seen[0].header("authorization"), Some("Bearer abc"));
    assert!(seen[0].header("user-agent").unwrap().starts_with("lifeboat/"));
    assert_eq!(
        (seen[1].header("content-type"), seen[1].body.as_str()),
        (Some("text/plain; charset=utf-8"), "h\u{e9}llo")
    );
    // base64 of "me:p@ss"
    assert_eq!(seen[2].header("authorization"), Some("Basic bWU6cEBzcw=="));
}

#[test]
fn a_redirect_is_an_answer_and_is_not_followed() {
    let target = Web::answering(&[ok()]);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let server = Web::answering(&[redirect(status, &target.url("/other/T0k3n"))]);
        let client = Client::new(ms(5000));
        let asked = url(&server.url("/T0k3n"));
        for reply in [client.get(&asked), client.post(&asked, Body::Json(json!({"secret": SECRET})))] {
            let reply = reply.unwrap();
            assert_eq!(reply.status.to_string(), status[..3]);
            assert_eq!(reply.redirect, Some(target.url("")));
        }
    }
    assert_eq!(target.lines(), [""; 0]);
}

#[test]
fn servers_that_misbehave_are_told_and_bounded() {
    let refusing = format!("http://127.0.0.1:{}/T0k3n", closed_port());
    let endless_head = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"X-More: yes yes yes yes yes yes yes yes\r\n")?;
        }
    });
    let dripping = Web::start(|_, _, stream| {
        for byte in answer("200 OK", "text/plain", &"x".repeat(10_000)).bytes() {
            stream.write_all(&[byte])?;
            stream.flush()?;
            thread::sleep(ms(10));
        }
        Ok(())
    });
    let hanging_body = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
        hang(stream)
    });
    let cut_body = Web::start(|_, _, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
    let other = Web::start(|_, _, stream| stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\nand more\r\n\r\n"));
    let (silent, rude) = (Web::hanging(), Web::start(|_, _, _| Ok(())));
    for (address, words) in [
        (refusing, "refuses the connection"),
        (silent.url("/T0k3n"), "no answer from"),
        (dripping.url("/T0k3n"), "no answer from"),
        (hanging_body.url("/T0k3n"), "no answer from"),
        (cut_body.url("/T0k3n"), "ended the connection before its answer was whole"),
        (rude.url("/T0k3n"), "ended the connection before its answer was whole"),
        (other.url("/T0k3n"), "is not HTTP"),
        (endless_head.url("/T0k3n"), "is not HTTP"),
        (silent.url("/T0k3n").replace("http:", "https:"), "cannot reach"),
        (other.url("/T0k3n").replace("127.0.0.1", "T0k3n@no-such-host.invalid"), "no-such-host.invalid"),
    ] {
        let start = Instant::now();
        let error = Client::new(ms(400)).get(&url(&address)).expect_err(&address);
        let whole = error.whole();
        assert!(start.elapsed() < ms(3000), "{address} took {:?}: {whole}", start.elapsed());
        assert!(!format!("{whole} {error:?}").contains(SECRET), "{error:?}");
        assert_eq!(error.kind, Kind::Unreachable, "{address}: {whole}");
        // TLS with whoever does not speak it ends in one way or another.
        assert!(whole.contains(words) || address.starts_with("https:"), "{address}: {whole}");
    }
    let error = Client::new(ms(400)).get(&url(&silent.url("/"))).unwrap_err();
    assert_eq!(error.message, format!("no answer from http://127.0.0.1:{} within 0.4s", silent.port));
}

#[test]
fn an_answer_without_end_is_read_so_far_and_no_further() {
    let endless = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 8192])?;
        }
    });
    let reply = Client::new(ms(10_000)).get(&url(&endless.url("/"))).unwrap();
    assert_eq!((reply.body.len(), reply.whole), (1 << 20, false));
    let reply = Client::new(ms(10_000)).body_bytes(10).get(&url(&endless.url("/"))).unwrap();
    assert_eq!((reply.body.as_slice(), reply.whole), (b"xxxxxxxxxx".as_slice(), false));
    // Who wants no body does not wait for one.
    let stuck = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")?;
        hang(stream)
    });
    let reply = Client::new(ms(10_000)).body_bytes(0).get(&url(&stuck.url("/"))).unwrap();
    assert_eq!((reply.status, reply.body.len()), (204, 0));
}

/// Asks for `ASK` and says what came of it.
#[test]
#[ignore = "it is the other half of the tests of proxies and certificates"]
fn child_asks() {
    let asked = url(&std::env::var("ASK").unwrap());
    match Client::new(ms(5000)).get(&asked) {
        Ok(reply) => println!("got {} {}", reply.status, String::from_utf8_lossy(&reply.body)),
        Err(error) => println!("failed: {}: {}", error.kind.name(), error.whole()),
    }
}

fn asked(address: &str, variables: &[(&str, &str)]) -> String {
    let output = program("child_asks", &[&[("ASK", address)], variables].concat()).output().unwrap();
    let said = said(&output);
    assert!(!said.contains(SECRET), "{said}");
    said
}

#[test]
fn proxies_are_those_of_the_environment() {
    let proxy = Web::start(|_, request, stream| {
        if request.method != "CONNECT" {
            return stream.write_all(answer("400 Bad Request", "text/plain", "").as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let inner = read_request(stream)?;
        stream.write_all(answer("200 OK", "text/plain", &inner.line().replace(SECRET, "hidden")).as_bytes())
    });
    let address = format!("http://user:T0k3n@127.0.0.1:{}", proxy.port);
    let target = "http://app.invalid:8080/T0k3n?a=b";
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let said = asked(target, &[(name, &address)]);
        assert!(said.contains("got 200 GET /hidden?a=b"), "{name}: {said}");
    }
    let seen = proxy.seen();
    assert_eq!(seen[0].line(), "CONNECT app.invalid:8080");
    // base64 of "user:T0k3n"
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic dXNlcjpUMGszbg=="));
    // Not for this address: another scheme, listed, this machine itself.
    let server = Web::answering(&[ok()]);
    let count = proxy.seen().len();
    assert!(asked(target, &[("HTTPS_PROXY", &address)]).contains("failed: unreachable"));
    assert!(asked(target, &[("HTTP_PROXY", &address), ("NO_PROXY", "other,invalid")]).contains("failed: unreachable"));
    assert!(asked(&server.url("/"), &[("HTTP_PROXY", &address)]).contains("got 200 OK"));
    assert_eq!(proxy.seen().len(), count);
    // A proxy that refuses, is not there, or is none.
    let refusing = Web::answering(&[answer("407 Proxy Authentication Required", "text/plain", "")]);
    let address = format!("http://user:T0k3n@127.0.0.1:{}", refusing.port);
    let said = asked(target, &[("HTTP_PROXY", &address)]);
    let through = format!("http://app.invalid:8080 through the proxy 127.0.0.1:{}", refusing.port);
    assert!(said.contains(&through) && said.contains("407"), "{said}");
    let gone = format!("127.0.0.1:{}", closed_port());
    let said = asked(target, &[("HTTP_PROXY", &format!("http://{gone}"))]);
    assert!(said.contains(&format!("through the proxy {gone} refuses the connection")), "{said}");
    let said = asked(target, &[("HTTP_PROXY", "socks5://T0k3n@127.0.0.1:1")]);
    assert!(said.contains("failed: usage: HTTP_PROXY"), "{said}");
}

/// A program that is ended with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_is_trusted_where_the_system_trusts_it() {
    if !have(&["openssl"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let port = closed_port().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=a lifeboat at home", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", "certificate.pem"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &port, "-cert", "certificate.pem", "-key", "key.pem", "-www", "-quiet"]);
    let server = server.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Killed(server.spawn().unwrap());
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_err() {
        assert!(start.elapsed() < ms(10_000), "openssl does not listen");
        thread::sleep(ms(10));
    }
    let address = format!("https://localhost:{port}/T0k3n");
    let said = asked(&address, &[]);
    let words = format!("failed: failed: the certificate of https://localhost:{port} is not trusted");
    assert!(said.contains(&words), "{said}");
    let trusted = folder.path().join("certificate.pem");
    let said = asked(&address, &[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    assert!(said.contains("got 200"), "{said}");
    let said = asked(&address, &[("SSL_CERT_FILE", "/nowhere/ca.pem")]);
    assert!(said.contains("failed: usage: the system has no certificates that it trusts"), "{said}");
}

// ---------------------------------------------------------------- notices

fn event(ok: bool) -> Event {
    Event {
        command: "snapshot".to_owned(),
        key: "snapshot /etc/lifeboat.toml".to_owned(),
        ok,
        exit_code: if ok { 0 } else { 3 },
        error: (!ok).then(|| Failure {
            kind: "problem".to_owned(),
            message: "a <check> failed".to_owned(),
            hint: Some("look".to_owned()),
            causes: vec![],
        }),
        checks: if ok {
            vec![]
        } else {
            vec![CheckFailure { name: "rows".to_owned(), message: "0 & none".to_owned() }]
        },
        snapshots: vec!["app-20261121T170501Z-7f3a".to_owned()],
        sources: vec!["app".to_owned()],
        host: "web-1".to_owned(),
        at: chrono::Utc::now(),
        seconds: 1.5,
        version: "0.1.0".to_owned(),
    }
}

fn webhook(server: &Web) -> Notify {
    Notify { webhook: Some(url(&server.url("/hook/T0k3n"))), ..Notify::default() }
}

fn none() -> [String; 0] {
    []
}

#[test]
fn a_notice_is_sent_again_after_trouble_that_passes() {
    let server = Web::answering(&[
        answer("503 Service Unavailable", "text/html", "<h1>no</h1>"),
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ok(),
    ]);
    let start = Instant::now();
    assert_eq!(webhook(&server).ended(&event(false)), none());
    assert!(start.elapsed() >= ms(1500), "not waited as asked: {:?}", start.elapsed());
    let seen = server.seen();
    assert_eq!(server.lines(), vec!["POST /hook/T0k3n"; 3]);
    let document: Value = serde_json::from_str(&seen[2].body).unwrap();
    assert_eq!((&document["event"], &document["ok"]), (&json!("failure"), &json!(false)));
    assert_eq!(document["checks"], json!([{"name": "rows", "message": "0 & none"}]));
    assert_eq!(seen[2].header("content-type"), Some("application/json"));
}

#[test]
fn a_notice_that_is_refused_is_one_warning_without_secrets() {
    let target = Web::answering(&[ok()]);
    for (reply, words) in [
        (answer("404 Not Found", "text/plain", "no_service T0k3n"), "answers 404".to_owned()),
        (redirect("302 Found", &target.url("/T0k3n")), format!("redirects to {} (302)", target.url(""))),
    ] {
        let server = Web::answering(&[reply]);
        let warnings = webhook(&server).ended(&event(false));
        assert_eq!(warnings, [format!("the notice was not sent: {} {words}", server.url(""))]);
        assert_eq!(server.lines().len(), 1);
    }
    assert_eq!(target.lines(), none());
}

#[test]
fn a_notice_to_nobody_or_to_one_who_hangs_ends_in_time() {
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
fn a_ping_that_hangs_at_the_start_holds_up_the_work_for_five_seconds_at_most() {
    let server = Web::hanging();
    let notify = Notify { ping: Some(url(&server.url("/id"))), ..Notify::default() };
    let start = Instant::now();
    assert_eq!(notify.started("snapshot").len(), 1);
    assert!(start.elapsed() < ms(7000), "{:?}", start.elapsed());
}

#[test]
fn pings_tell_start_success_and_failure_whatever_the_webhook_is_for() {
    let server = Web::answering(&[ok()]);
    for (address, start, success, fail) in [
        ("/id", "POST /id/start", "POST /id", "POST /id/fail"),
        ("/id/?create=1", "POST /id/start?create=1", "POST /id/?create=1", "POST /id/fail?create=1"),
    ] {
        let seen = server.lines().len();
        let notify = Notify { ping: Some(url(&server.url(address))), ..Notify::default() };
        assert_eq!(notify.started("snapshot"), none());
        assert_eq!(notify.ended(&event(true)), none());
        let mut long = event(false);
        long.checks[0].message = "\u{e9}".repeat(20_000);
        assert_eq!(notify.ended(&long), none());
        assert_eq!(server.lines()[seen..], [start, success, fail]);
        let last = server.seen().pop().unwrap();
        assert!(last.body.contains("error: a <check> failed\nhint: look"), "{}", last.body);
        assert!((9_900..=10_000).contains(&last.body.len()), "{}", last.body.len());
    }
}

#[test]
fn slack_gets_its_own_form() {
    let server = Web::answering(&[ok()]);
    let notify = Notify { form: Form::Slack, on: When::Always, ..webhook(&server) };
    assert_eq!(notify.ended(&event(false)), none());
    assert_eq!(notify.ended(&event(true)), none());
    let texts: Vec<Value> = server.seen().iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    let failed = texts[0]["text"].as_str().unwrap();
    assert!(
        failed.starts_with("lifeboat snapshot of app on web-1 failed\nerror: a &lt;check&gt; failed\n"),
        "{failed}"
    );
    assert!(failed.contains("failed check: rows: 0 &amp; none"), "{failed}");
    assert!(texts[1]["text"].as_str().unwrap().starts_with("lifeboat snapshot of app on web-1 succeeded\n"));
}

/// The events that the server was told of.
fn events(server: &Web) -> Vec<String> {
    let event = |body: &str| serde_json::from_str::<Value>(body).unwrap()["event"].as_str().unwrap().to_owned();
    server.seen().iter().map(|seen| event(&seen.body)).collect()
}

#[test]
fn a_notice_is_sent_when_it_is_wanted() {
    for (on, expected) in [
        (When::Failure, vec!["failure", "failure"]),
        (When::Recovery, vec!["failure", "failure", "recovery"]),
        (When::Always, vec!["success", "failure", "failure", "success", "success"]),
    ] {
        let (server, folder) = (Web::answering(&[ok()]), TempDir::new().unwrap());
        let notify = Notify { on, state: Some(folder.path().join("state.json")), ..webhook(&server) };
        for ok in [true, false, false, true, true] {
            assert_eq!(notify.ended(&event(ok)), none());
        }
        assert_eq!(events(&server), expected, "{on:?}");
    }
}

#[test]
fn a_recovery_is_told_per_key_and_until_somebody_has_heard_of_it() {
    let folder = TempDir::new().unwrap();
    let state = folder.path().join("state.json");
    let server = Web::answering(&[ok(), answer("403 Forbidden", "text/plain", ""), ok()]);
    let notify = Notify { on: When::Recovery, state: Some(state.clone()), ..webhook(&server) };
    assert_eq!(notify.ended(&event(false)), none());
    let other = Event { key: "check /etc/lifeboat.toml".to_owned(), ..event(true) };
    assert_eq!(notify.ended(&other), none());
    assert_eq!(notify.ended(&event(true)).len(), 1);
    assert_eq!(notify.ended(&event(true)), none());
    assert_eq!(notify.ended(&event(true)), none());
    assert_eq!(events(&server), ["failure", "recovery", "recovery"]);
    // A state that cannot be read is a warning, and a failure is told all the same.
    fs::write(&state, "not json").unwrap();
    let warnings = notify.ended(&event(true));
    assert!(warnings.len() == 1 && warnings[0].starts_with("a recovery may go untold: "), "{warnings:?}");
    let nowhere = Notify { state: Some(PathBuf::from("/proc/nowhere/state.json")), ..notify.clone() };
    assert_eq!(nowhere.ended(&event(false)).len(), 1);
    assert_eq!(notify.ended(&event(false)), none(), "it is written anew");
    assert_eq!(notify.ended(&event(true)), none());
    assert_eq!(events(&server)[3..], ["failure", "failure", "recovery"]);
}

/// Fails or succeeds as `OK` says, with the state in its usual place.
#[test]
#[ignore = "it is the other half of the test of the usual place"]
fn child_runs() {
    let webhook = Some(url(&std::env::var("HOOK").unwrap()));
    let notify = Notify { webhook, on: When::Recovery, ..Notify::default() };
    println!("warnings {:?}", notify.ended(&event(std::env::var("OK").unwrap() == "1")));
}

#[test]
fn failures_are_remembered_in_the_usual_place() {
    let (server, folder) = (Web::answering(&[ok()]), TempDir::new().unwrap());
    let (hook, base) = (server.url("/"), folder.path().to_str().unwrap());
    let state = folder.path().join("state");
    for (variables, place) in [
        (vec![("HOME", base)], ".local/state/lifeboat/notices.json"),
        (vec![("HOME", "/nowhere"), ("XDG_STATE_HOME", base)], "lifeboat/notices.json"),
        (
            vec![("HOME", "/nowhere"), ("XDG_STATE_HOME", "/nowhere"), ("LIFEBOAT_STATE", state.to_str().unwrap())],
            "state/notices.json",
        ),
    ] {
        let run = |ok: &str| {
            let variables = [variables.as_slice(), &[("HOOK", hook.as_str()), ("OK", ok)]].concat();
            let said = said(&program("child_runs", &variables).output().unwrap());
            assert!(said.contains("warnings []"), "{said}");
        };
        run("0");
        assert!(folder.path().join(place).is_file(), "{place}");
        run("1");
        assert_eq!(events(&server).last().unwrap(), "recovery");
    }
    let variables = [("HOME", ""), ("HOOK", hook.as_str()), ("OK", "0")];
    let said = said(&program("child_runs", &variables).output().unwrap());
    assert!(said.contains("a recovery may go untold: there is no place to remember failures in"), "{said}");
    assert_eq!(events(&server).last().unwrap(), "failure");
}

// ---------------------------------------------------------------- endpoints

fn check(server: &Web) -> HttpCheck {
    HttpCheck { timeout: ms(500), ..HttpCheck::new(url(&server.url("/health?key=T0k3n"))) }
}

#[track_caller]
fn bad(finding: Result<Finding>, words: &str) {
    let finding = finding.unwrap();
    assert!(!finding.ok && finding.message.contains(words), "{finding:?}");
    assert!(!format!("{finding:?}").contains(SECRET), "{finding:?}");
}

fn status_is(expected: &str) -> Option<JsonField> {
    Some(JsonField { path: "status".to_owned(), expected: expected.to_owned() })
}

#[test]
fn an_endpoint_that_answers_as_it_should_is_told_with_what_it_answered() {
    let server = Web::answering(&[answer("200 OK", "application/json", "{\"status\":\"ok\"}")]);
    let full = HttpCheck { json: status_is("ok"), contains: Some("stat".to_owned()), ..check(&server) };
    let finding = preflight::http(&full, Duration::ZERO).unwrap();
    assert!(finding.ok, "{finding:?}");
    assert_eq!(finding.name, format!("http {}", server.url("/health")));
    assert!(finding.message.contains("answers 200, status is 'ok', holds 'stat' in "), "{finding:?}");
    let gone = Web::answering(&[answer("410 Gone", "text/plain", "")]);
    assert!(preflight::http(&HttpCheck { status: 410, ..check(&gone) }, Duration::ZERO).unwrap().ok);
}

#[test]
fn an_endpoint_is_asked_until_it_answers_as_it_should() {
    let starting = answer("503 Service Unavailable", "text/html", "<h1>starting</h1>");
    let not_yet = answer("200 OK", "application/json", "{\"status\":\"starting\"}");
    let up = answer("200 OK", "application/json", "{\"status\":\"ok\"}");
    let server = Web::answering(&[starting, not_yet, up]);
    let wanted = HttpCheck { json: status_is("ok"), ..check(&server) };
    let finding = preflight::http(&wanted, ms(20_000)).unwrap();
    assert!(finding.ok, "{finding:?}");
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn an_endpoint_that_is_wrong_says_how() {
    let ask = |reply: String, change: fn(&mut HttpCheck)| {
        let server = Web::answering(&[reply]);
        let mut check = check(&server);
        change(&mut check);
        preflight::http(&check, Duration::ZERO)
    };
    let page = || answer("200 OK", "text/html", "<!doctype html><title>Sign in</title>");
    bad(
        ask(redirect("302 Found", "https://login.example/T0k3n"), |_| {}),
        "redirects to https://login.example (302): name the final address",
    );
    bad(ask(redirect("301 Moved", "/health/?T0k3n"), |_| {}), "redirects to another path of http://127.0.0.1");
    bad(ask(answer("500 Oops", "text/plain", SECRET), |_| {}), "answers 500, not 200");
    bad(ask(page(), |check| check.json = status_is("ok")), "answers HTML, not JSON");
    bad(ask(page(), |check| check.contains = Some("healthy".to_owned())), "does not hold 'healthy'");
    let up = || answer("200 OK", "application/json", "{\"status\":\"down\"}");
    bad(ask(up(), |check| check.json = status_is("ok")), "answers that status is 'down', not 'ok'");
    let other =
        |check: &mut HttpCheck| check.json = Some(JsonField { path: "a.b".to_owned(), expected: String::new() });
    bad(ask(up(), other), "answers JSON without the field a.b");
}

#[test]
fn an_endpoint_that_hangs_or_is_not_there_is_told_in_time() {
    let server = Web::hanging();
    let start = Instant::now();
    bad(preflight::http(&check(&server), Duration::ZERO), "within 0.5s");
    assert!(start.elapsed() < ms(2000));
    let start = Instant::now();
    let finding = preflight::http(&check(&server), ms(3000));
    assert!(start.elapsed() < ms(4500), "{:?}", start.elapsed());
    bad(finding, "(2 tries in ");
    let gone = HttpCheck::new(url(&format!("http://127.0.0.1:{}/", closed_port())));
    bad(preflight::http(&gone, Duration::ZERO), "refuses the connection");
    let endless = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b'{'; 8192])?;
        }
    });
    let check = HttpCheck { timeout: ms(10_000), json: status_is("ok"), ..check(&endless) };
    bad(preflight::http(&check, Duration::ZERO), "answers more than is read of it");
}

/// Waits for an endpoint that hangs for a minute.
#[test]
#[ignore = "it is the other half of the test of signals"]
fn child_waits() {
    interrupt::listen().unwrap();
    let check = HttpCheck { timeout: ms(60_000), ..HttpCheck::new(url(&std::env::var("ASK").unwrap())) };
    println!("ended {:?}", preflight::http(&check, ms(60_000)).map_err(|error| error.kind));
    // A notice is sent also now.
    let hook = Some(url(&std::env::var("HOOK").unwrap()));
    println!("warnings {:?}", Notify { webhook: hook, ..Notify::default() }.ended(&event(false)));
}

#[test]
fn a_signal_ends_the_waiting_and_a_notice_goes_out_all_the_same() {
    let (server, hook) = (Web::hanging(), Web::answering(&[ok()]));
    let start = Instant::now();
    let child = program("child_waits", &[("ASK", &server.url("/")), ("HOOK", &hook.url("/"))]).spawn().unwrap();
    server.wait_for_request();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let said = said(&child.wait_with_output().unwrap());
    assert!(said.contains("ended Err(Interrupted)") && said.contains("warnings []"), "{said}");
    assert!(start.elapsed() < ms(10_000), "{:?}", start.elapsed());
    assert_eq!(events(&hook), ["failure"]);
}

// ---------------------------------------------------------------- mounts and disks

/// A mount, gone at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// None where this user may not mount.
    fn new(arguments: &[&str], path: &Path) -> Option<Self> {
        let output = Command::new("mount").args(arguments).arg(path).output();
        if output.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Mounted(path.to_owned()));
        }
        assert!(!rustix::process::geteuid().is_root(), "root cannot mount: {output:?}");
        skip_unless_ci("nothing can be mounted here, which takes root");
        None
    }

    fn tmpfs(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        Mounted::new(&["-t", "tmpfs", "-o", options, "a-disk"], path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// A folder whose own path has no links.
fn folder() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

#[test]
fn a_folder_is_no_mount_point_and_the_mount_that_it_lies_in_is_named() {
    let (_folder, base) = folder();
    fs::write(base.join("file"), "").unwrap();
    let output = Command::new("stat").args(["-c", "%m"]).arg(&base).output().unwrap();
    let lies_in = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let finding = preflight::mount(&base, true);
    let start = format!("{} is a folder on {lies_in} (", base.display());
    assert!(!finding.ok && finding.message.starts_with(&start), "{finding:?}");
    assert!(finding.message.contains("), not a mount point: ") && finding.name.starts_with("mount /"), "{finding:?}");
    assert!(preflight::mount(&base.join("file"), true).message.contains("is a file on"));
    let finding = preflight::mount(&base.join("none"), true);
    assert!(!finding.ok && finding.message.contains("is not there"), "{finding:?}");
    assert!(preflight::mount(Path::new("/proc"), false).ok);
}

#[test]
fn mounts_are_recognized_whatever_they_are_of_and_however_they_are_named() {
    let (_folder, base) = folder();
    let disk = base.join("my disk\\x");
    let Some(_disk) = Mounted::tmpfs(&disk, "size=1m") else { return };
    let refused = preflight::mount(&disk, false);
    assert!(!refused.ok && refused.message.contains("is a mount of tmpfs, whose files are gone"), "{refused:?}");
    let allowed = preflight::mount(&disk, true);
    let message = format!("{} is a mount of a-disk (tmpfs), 1.00 MiB free", disk.display());
    assert_eq!((allowed.ok, allowed.message), (true, message));
    // Below it, and through a link.
    let inside = disk.join("inside");
    fs::create_dir(&inside).unwrap();
    let finding = preflight::mount(&inside, true);
    assert!(!finding.ok && finding.message.contains(&format!("a folder on {} (tmpfs)", disk.display())), "{finding:?}");
    std::os::unix::fs::symlink(&disk, base.join("link")).unwrap();
    let finding = preflight::mount(&base.join("link"), true);
    assert!(finding.ok && finding.message.contains(&format!("({})", disk.display())), "{finding:?}");
    // A part of it, and one file of it, mounted elsewhere.
    let bound = base.join("bound");
    fs::create_dir(&bound).unwrap();
    let _bound = Mounted::new(&["--bind", inside.to_str().unwrap()], &bound).unwrap();
    let finding = preflight::mount(&bound, true);
    assert!(finding.ok && finding.message.contains("is a mount of a-disk[/inside] (tmpfs)"), "{finding:?}");
    let (file, bound_file) = (disk.join("file"), base.join("bound file"));
    fs::write(&file, "").unwrap();
    fs::write(&bound_file, "").unwrap();
    let _bound_file = Mounted::new(&["--bind", file.to_str().unwrap()], &bound_file).unwrap();
    let finding = preflight::mount(&bound_file, true);
    assert!(finding.ok && finding.message.contains("a-disk[/file]"), "{finding:?}");
    // Another one over it.
    let _over = Mounted::new(&["-t", "tmpfs", "-o", "size=2m,ro", "another"], &disk).unwrap();
    let finding = preflight::mount(&disk, true);
    assert!(
        finding.ok && finding.message.contains("is a mount of another (tmpfs, read-only), 2.00 MiB"),
        "{finding:?}"
    );
    // A mount point that another mount hides is a folder like any other.
    let hidden = bound.join("hidden");
    fs::create_dir(&hidden).unwrap();
    let _hidden = Mounted::new(&["-t", "tmpfs", "hidden"], &hidden).unwrap();
    assert!(preflight::mount(&hidden, true).ok);
    let _cover = Mounted::new(&["-t", "tmpfs", "cover"], &bound).unwrap();
    fs::create_dir(&hidden).unwrap();
    let finding = preflight::mount(&hidden, true);
    assert!(!finding.ok && finding.message.contains(&format!("a folder on {}", bound.display())), "{finding:?}");
}

#[test]
fn a_real_disk_that_is_mounted_passes() {
    let (_folder, base) = folder();
    let (data, point) = (base.join("data"), base.join("point"));
    fs::create_dir_all(&data).unwrap();
    fs::create_dir_all(&point).unwrap();
    let Some(_point) = Mounted::new(&["--bind", data.to_str().unwrap()], &point) else { return };
    let finding = preflight::mount(&point, false);
    // Where the tests themselves run in a container, its folder is the container's.
    let is_fleeting = ["overlay", "tmpfs"].iter().any(|name| finding.message.contains(&format!("a mount of {name},")));
    assert!(finding.ok != is_fleeting, "{finding:?}");
}

#[test]
fn a_folder_that_can_be_written_to_is_left_as_it_was() {
    let (_folder, base) = folder();
    fs::write(base.join("app.db"), "x").unwrap();
    assert!(preflight::writable(&base).ok);
    assert!(preflight::writable(&base.join("app.db")).ok);
    assert_eq!(fs::read_to_string(base.join("app.db")).unwrap(), "x");
    assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
    let finding = preflight::writable(&base.join("none"));
    assert!(!finding.ok && finding.message.ends_with("is not there"), "{finding:?}");
}

/// Looks at `PLACE`.
#[test]
#[ignore = "it is the other half of the test of permissions"]
fn child_looks() {
    println!("found {:?}", preflight::writable(Path::new(&std::env::var("PLACE").unwrap())));
}

#[test]
fn why_a_folder_cannot_be_written_to_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, base) = folder();
    let closed = base.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let looker = program("child_looks", &[("PLACE", closed.to_str().unwrap())]);
    let output = if rustix::process::geteuid().is_root() {
        // Permissions are nothing to root, but for this power of theirs.
        let mut command = Command::new("setpriv");
        command.args(["--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]);
        command.arg(looker.get_program()).args(looker.get_args()).env("PLACE", &closed).output().unwrap()
    } else {
        let mut looker = looker;
        looker.output().unwrap()
    };
    let told = said(&output);
    assert!(told.contains("ok: false") && told.contains("may not write to"), "{told}");

    let Some(full) = Mounted::tmpfs(&base.join("full"), "size=64k") else { return };
    let _ = fs::write(full.0.join("filler"), vec![1; 1 << 20]);
    let finding = preflight::writable(&full.0);
    assert!(!finding.ok && finding.message.contains("no space is left"), "{finding:?}");
    assert_eq!(fs::read_dir(&full.0).unwrap().count(), 1, "the probe is left over");
    let finding = preflight::min_free(&full.0, 1);
    assert!(!finding.ok && finding.message.starts_with("0 B free, 1 B asked for"), "{finding:?}");

    let crowded = Mounted::tmpfs(&base.join("crowded"), "size=1m,nr_inodes=3").unwrap();
    for name in ["a", "b"] {
        fs::write(crowded.0.join(name), "").unwrap();
    }
    assert!(preflight::writable(&crowded.0).message.contains("no space is left"));
    let finding = preflight::min_free(&crowded.0, 1);
    assert!(!finding.ok && finding.message.contains("only 0 more files can be made"), "{finding:?}");

    let locked = Mounted::tmpfs(&base.join("locked"), "size=1m").unwrap();
    fs::write(locked.0.join("app.db"), "").unwrap();
    let output = Command::new("mount").args(["-o", "remount,ro"]).arg(&locked.0).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for path in [locked.0.clone(), locked.0.join("app.db")] {
        let finding = preflight::writable(&path);
        assert!(!finding.ok && finding.message.contains("is on a read-only mount"), "{finding:?}");
    }
}

#[test]
fn free_space_is_compared_with_what_is_asked_for() {
    let (_folder, base) = folder();
    let finding = preflight::min_free(&base, 1);
    assert!(finding.ok && finding.message.ends_with("free, 1 B asked for"), "{finding:?}");
    let finding = preflight::min_free(&base, 1 << 60);
    assert!(!finding.ok && finding.message.contains("1.00 EiB asked for: free some space"), "{finding:?}");
    assert!(preflight::min_free(&base.join("none"), 1).message.contains("is not there"));
}
