//! Functions that the tests of requests, notices and preflight checks share.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::child_test;
use crate::support::web::{Web, answer};
use lifeboat::notify::{CheckFailure, Event, Failure, SourceOutcome};
use lifeboat::platform::http::Url;
use serde_json::Value;

/// A secret that no message may contain.
pub(crate) const SECRET: &str = "T0k3n";

pub(crate) fn url(text: &str) -> Url {
    text.parse().unwrap()
}

pub(crate) fn ok_answer() -> String {
    answer("200 OK", "text/plain", "OK")
}

/// Returns a port on which no program listens.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns the command that runs one of the `child_` tests below as a separate process with the given environment
/// variables. Variables of the outer environment that set a proxy, certificates or the folder for state are removed.
pub(crate) fn child_process(module: &str, name: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = child_test(module, name);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "LIFEBOAT_STATE", "XDG_STATE_HOME"] {
        command.env_remove(variable).env_remove(variable.to_lowercase());
    }
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Returns stdout and stderr of a child process.
pub(crate) fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub(crate) fn event(ok: bool) -> Event {
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
        unproven: vec![],
        results: vec![SourceOutcome { source: "app".to_owned(), ok, error: None }],
        is_complete: true,
        host: "web-1".to_owned(),
        at: chrono::Utc::now(),
        seconds: 1.5,
        version: "0.1.0".to_owned(),
    }
}

/// Returns the events of the notices that the server has received.
pub(crate) fn events(server: &Web) -> Vec<String> {
    let event = |body: &str| serde_json::from_str::<Value>(body).unwrap()["event"].as_str().unwrap().to_owned();
    server.requests().iter().map(|seen| event(&seen.body)).collect()
}
