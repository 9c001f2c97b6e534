//! Sends notices about runs: to a webhook, and to the ping URL of a service that checks that the runs take place.
//!
//! A notice never changes the result of the run that it reports: errors here are returned as warnings, and everything
//! has a time limit. Notices are also sent after a signal has asked to stop, because that is a failure like any other.

mod message;
pub(crate) mod metrics;
mod state;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::platform::error::{Error, Kind};
use crate::platform::http::{Answer, Body, Client, Url};

/// The maximum time that a notice may take, including all attempts and pauses.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
/// The maximum time that the ping at the start may delay the work.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum time for one attempt.
const TRY_TIMEOUT: Duration = Duration::from_secs(7);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The receivers of notices, and the times and the form of the notices.
///
/// The webhook gets a POST. In the plain form its body is a JSON document:
///
/// ```json
/// {
///   "tool": "lifeboat", "version": "0.1.0",
///   "event": "failure",
///   "summary": "lifeboat snapshot of app on web-1 failed",
///   "command": "snapshot", "ok": false, "exit_code": 5,
///   "host": "web-1", "at": "2026-11-21T17:05:01Z", "seconds": 1.25,
///   "sources": ["app"],
///   "snapshots": ["app-20261121T170501Z-7f3a"],
///   "error": {"kind": "unreachable", "message": "...", "hint": "...", "causes": ["..."]},
///   "checks": [{"name": "mount /app/data", "message": "..."}]
/// }
/// ```
///
/// `event` is `failure`, `success` or `recovery`. `error` is null if there is no error (a check that fails has `checks`
/// only); its `hint` may be null too. `snapshots` are those that were made. In Slack's form the body is
/// `{"text": "..."}`, with a text of at most 3,000 bytes.
///
/// The ping URL gets a POST at `URL/start`, at `URL` after success and at `URL/fail` after failure, as healthchecks.io
/// and similar services expect. The last two contain a text that describes the run, of at most 10 kB.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    /// The URL that notices are sent to.
    pub webhook: Option<Url>,
    /// The form of the notices.
    pub form: Form,
    /// The URL that is pinged at the start, the success and the failure of every run.
    pub ping: Option<Url>,
    /// The runs after which a notice goes to the webhook.
    pub on: When,
    /// The file that failures are remembered in for [`When::Recovery`]; `None` means the default path.
    pub state: Option<PathBuf>,
}

/// The form of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The plain document.
    #[default]
    Json,
    /// `{"text": "..."}`, as Slack expects it.
    Slack,
}

/// The runs after which a notice is sent to the webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// After every failure.
    #[default]
    Failure,
    /// After every failure, and after the first success that follows one.
    Recovery,
    /// After every run.
    Always,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Event {
    /// The command: `snapshot`.
    pub command: String,
    /// A key that all runs of the same work share, such as the command and the config's path.
    pub key: String,
    /// True if the run succeeded.
    pub ok: bool,
    /// The exit code of the process.
    pub exit_code: u8,
    /// The error, if there is one.
    pub error: Option<Failure>,
    /// The checks that failed.
    pub checks: Vec<CheckFailure>,
    /// The snapshots that were made.
    pub snapshots: Vec<String>,
    /// The sources that the run was about.
    pub sources: Vec<String>,
    /// The name of this machine.
    pub host: String,
    /// The time at which it ended.
    pub at: DateTime<Utc>,
    /// The time that it took, in seconds.
    pub seconds: f64,
    /// The version of the program.
    pub version: String,
}

/// An error, as a notice reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its kind, by name.
    pub kind: String,
    /// The message: what failed.
    pub message: String,
    /// The hint: what to do.
    pub hint: Option<String>,
    /// The causes, nearest first.
    pub causes: Vec<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Failure {
            kind: error.kind.name().to_owned(),
            message: error.message.clone(),
            hint: error.hint.clone(),
            causes: error.causes(),
        }
    }
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckFailure {
    /// The name of the check.
    pub name: String,
    /// The problem that the check found.
    pub message: String,
}

/// The event that a notice reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventKind {
    Failure,
    Success,
    Recovery,
}

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            EventKind::Failure => "failure",
            EventKind::Success => "success",
            EventKind::Recovery => "recovery",
        }
    }
}

impl Notify {
    /// Sends the ping at the start of a run. Returns warnings if that fails. Takes about five seconds at most.
    #[must_use]
    pub fn started(&self, command: &str) -> Vec<String> {
        let Some(ping) = &self.ping else { return Vec::new() };
        let text = format!("lifeboat {command} started");
        let sent = send(&ping.below("start"), &Body::Text(text), START_TIMEOUT);
        sent.err().map(|error| send_warning("ping", &error)).into_iter().collect()
    }

    /// Sends the notice and the ping at the end of a run. Returns warnings if that fails. Takes at most about
    /// 15 seconds.
    #[must_use]
    pub fn ended(&self, event: &Event) -> Vec<String> {
        self.ended_within(event, TOTAL_TIMEOUT)
    }

    /// Sends the same as [`ended`](Self::ended), but takes no longer than `time_limit`: a platform may leave little
    /// time after SIGTERM.
    #[must_use]
    pub fn ended_within(&self, event: &Event, time_limit: Duration) -> Vec<String> {
        // The notice and the ping must not delay each other.
        thread::scope(|scope| {
            let ping = scope.spawn(|| self.ping_end(event, time_limit));
            let mut warnings = self.send_notice(event, time_limit);
            match ping.join() {
                Ok(warning) => warnings.extend(warning),
                Err(_) => warnings.push("the ping was not sent: its thread has died".to_owned()),
            }
            warnings
        })
    }

    fn ping_end(&self, event: &Event, time_limit: Duration) -> Option<String> {
        let ping = self.ping.as_ref()?;
        let (url, kind) = match event.ok {
            true => (ping.clone(), EventKind::Success),
            false => (ping.below("fail"), EventKind::Failure),
        };
        let sent = send(&url, &Body::Text(message::ping(event, kind)), time_limit);
        sent.err().map(|error| send_warning("ping", &error))
    }

    /// Sends a notice to the webhook, if one is due after this run. Returns warnings if that fails.
    fn send_notice(&self, event: &Event, time_limit: Duration) -> Vec<String> {
        let Some(webhook) = &self.webhook else { return Vec::new() };
        let mut warnings = Vec::new();
        let state = match self.on {
            When::Recovery => match self.state.clone().map_or_else(state::default_path, Ok) {
                Ok(path) => Some(path),
                Err(error) => {
                    warnings.push(state_warning(&error));
                    None
                }
            },
            When::Failure | When::Always => None,
        };
        let kind = if !event.ok {
            EventKind::Failure
        } else if self.on == When::Always {
            EventKind::Success
        } else {
            let Some(path) = &state else { return warnings };
            match state::failing_since(path, &event.key) {
                Ok(Some(_)) => EventKind::Recovery,
                Ok(None) => return warnings,
                Err(error) => {
                    warnings.push(state_warning(&error));
                    return warnings;
                }
            }
        };
        // The failure is remembered before the notice is sent, in case the process is killed while sending.
        if let (EventKind::Failure, Some(path)) = (kind, &state)
            && let Err(error) = state::remember(path, &event.key, Some(event.at))
        {
            warnings.push(state_warning(&error));
        }
        let document = match self.form {
            Form::Json => message::document(event, kind),
            Form::Slack => message::slack(event, kind),
        };
        match send(webhook, &Body::Json(document), time_limit) {
            Err(error) => warnings.push(send_warning("notice", &error)),
            // The failure is forgotten only after the recovery was sent: otherwise the next success reports it.
            Ok(()) => {
                if let (EventKind::Recovery, Some(path)) = (kind, &state)
                    && let Err(error) = state::remember(path, &event.key, None)
                {
                    warnings.push(state_warning(&error));
                }
            }
        }
        warnings
    }
}

fn send_warning(what: &str, error: &Error) -> String {
    format!("the {what} was not sent: {}", error.full_message())
}

fn state_warning(error: &Error) -> String {
    format!("a notice of a recovery may not be sent: {}", error.full_message())
}

/// Retries until the request is accepted, is refused permanently, or `time_limit` is over.
fn send(url: &Url, body: &Body, time_limit: Duration) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = time_limit.saturating_sub(start.elapsed());
        // The body of the answer is not needed, and is not waited for.
        let client = Client::new(left.min(TRY_TIMEOUT)).body_bytes(0);
        let (error, wait) = match client.post(url, body.clone()) {
            Ok(answer) if answer.is_success() => return Ok(()),
            Ok(answer) if answer.status == 429 || answer.status >= 500 => {
                (refused(url, &answer), answer.retry_after.unwrap_or_default())
            }
            Ok(answer) => return Err(refused(url, &answer)),
            Err(error) if error.kind == Kind::Unreachable => (error, Duration::ZERO),
            Err(error) => return Err(error),
        };
        let wait = wait.max(pause);
        // Another try would have no time to succeed.
        if start.elapsed().saturating_add(wait) + FIRST_PAUSE > time_limit {
            return Err(error);
        }
        thread::sleep(wait);
        pause *= 2;
    }
}

fn refused(url: &Url, answer: &Answer) -> Error {
    match &answer.redirect {
        Some(target) => Error::failed(format!("{url} redirects to {target} ({})", answer.status)),
        None => Error::failed(format!("{url} answers {}", answer.status)),
    }
}
