//! Sends notices about runs: to a webhook, and to the ping URL of a service that watches that runs happen at all.
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

/// The longest time that a notice may take, including all tries and pauses.
const LONGEST: Duration = Duration::from_secs(15);
/// The longest time that the ping at the start may delay the work.
const LONGEST_AT_START: Duration = Duration::from_secs(5);
/// The longest time that one try may take.
const LONGEST_TRY: Duration = Duration::from_secs(7);
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
/// and similar services expect. The last two contain a text that says what happened, of at most 10 kB.
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
enum What {
    Failure,
    Success,
    Recovery,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Failure => "failure",
            What::Success => "success",
            What::Recovery => "recovery",
        }
    }
}

impl Notify {
    /// Sends the ping at the start of a run. Returns warnings if that fails. Takes about five seconds at most.
    #[must_use]
    pub fn started(&self, command: &str) -> Vec<String> {
        let Some(ping) = &self.ping else { return Vec::new() };
        let text = format!("lifeboat {command} started");
        let sent = send(&ping.below("start"), &Body::Text(text), LONGEST_AT_START);
        sent.err().map(|error| unsent("ping", &error)).into_iter().collect()
    }

    /// Sends the notice and the ping at the end of a run. Returns warnings if that fails. Takes at most about
    /// 15 seconds.
    #[must_use]
    pub fn ended(&self, event: &Event) -> Vec<String> {
        self.ended_within(event, LONGEST)
    }

    /// Sends the same as [`ended`](Self::ended), but takes no longer than `longest`: a platform may leave little time
    /// after SIGTERM.
    #[must_use]
    pub fn ended_within(&self, event: &Event, longest: Duration) -> Vec<String> {
        // The notice and the ping must not delay each other.
        thread::scope(|scope| {
            let ping = scope.spawn(|| self.ping_end(event, longest));
            let mut warnings = self.tell(event, longest);
            match ping.join() {
                Ok(warning) => warnings.extend(warning),
                Err(_) => warnings.push("the ping was not sent: its thread has died".to_owned()),
            }
            warnings
        })
    }

    fn ping_end(&self, event: &Event, longest: Duration) -> Option<String> {
        let ping = self.ping.as_ref()?;
        let (url, what) = if event.ok { (ping.clone(), What::Success) } else { (ping.below("fail"), What::Failure) };
        let sent = send(&url, &Body::Text(message::ping(event, what)), longest);
        sent.err().map(|error| unsent("ping", &error))
    }

    /// Sends a notice to the webhook, if one is due after this run. Returns warnings if that fails.
    fn tell(&self, event: &Event, longest: Duration) -> Vec<String> {
        let Some(webhook) = &self.webhook else { return Vec::new() };
        let mut warnings = Vec::new();
        let state = match self.on {
            When::Recovery => match self.state.clone().map_or_else(state::usual_path, Ok) {
                Ok(path) => Some(path),
                Err(error) => {
                    warnings.push(forgotten(&error));
                    None
                }
            },
            When::Failure | When::Always => None,
        };
        let what = if !event.ok {
            What::Failure
        } else if self.on == When::Always {
            What::Success
        } else {
            let Some(path) = &state else { return warnings };
            match state::failing_since(path, &event.key) {
                Ok(Some(_)) => What::Recovery,
                Ok(None) => return warnings,
                Err(error) => {
                    warnings.push(forgotten(&error));
                    return warnings;
                }
            }
        };
        // The failure is remembered before the notice is sent, in case the process is killed while sending.
        if let (What::Failure, Some(path)) = (what, &state)
            && let Err(error) = state::remember(path, &event.key, Some(event.at))
        {
            warnings.push(forgotten(&error));
        }
        let document = match self.form {
            Form::Json => message::document(event, what),
            Form::Slack => message::slack(event, what),
        };
        match send(webhook, &Body::Json(document), longest) {
            Err(error) => warnings.push(unsent("notice", &error)),
            // The failure is forgotten only after the recovery was sent: otherwise the next success reports it.
            Ok(()) => {
                if let (What::Recovery, Some(path)) = (what, &state)
                    && let Err(error) = state::remember(path, &event.key, None)
                {
                    warnings.push(forgotten(&error));
                }
            }
        }
        warnings
    }
}

fn unsent(what: &str, error: &Error) -> String {
    format!("the {what} was not sent: {}", error.whole())
}

fn forgotten(error: &Error) -> String {
    format!("a recovery may go untold: {}", error.whole())
}

/// Retries until the request is accepted, is refused permanently, or `longest` is over.
fn send(url: &Url, body: &Body, longest: Duration) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = longest.saturating_sub(start.elapsed());
        // The body of the answer is not needed, and is not waited for.
        let client = Client::new(left.min(LONGEST_TRY)).body_bytes(0);
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
        if start.elapsed().saturating_add(wait) + FIRST_PAUSE > longest {
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
