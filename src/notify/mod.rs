//! Tells others how a run went: a webhook, and a ping URL for whoever watches that runs happen at all.
//!
//! A notice never changes the result of the work that it tells of: what goes wrong here comes back as warnings, and all
//! of it has a bound. Notices are also sent after a signal has asked to stop, for that is a failure like others.

mod message;
pub mod metrics;
mod state;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::platform::error::{Error, Kind};
use crate::platform::http::{Answer, Body, Client, Url};

/// How long a notice may take in all, tries and pauses.
const LONGEST: Duration = Duration::from_secs(15);
/// How long the ping at the start may hold up the work.
const LONGEST_AT_START: Duration = Duration::from_secs(5);
/// How long one try may take.
const LONGEST_TRY: Duration = Duration::from_secs(7);
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Whom to tell, when and how.
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
/// `event` is `failure`, `success` or `recovery`; `error` is null where there is none (a check that fails has `checks`
/// only), and so may be its `hint`; `snapshots` are those that were made. In Slack's form it is `{"text": "..."}`,
/// at most 3,000 bytes.
///
/// The ping URL gets a POST at `URL/start`, at `URL` after success and at `URL/fail` after failure, as healthchecks.io
/// and those like it want them; the last two with the text of what happened, at most 10 kB.
#[derive(Clone, Debug, Default)]
pub struct Notify {
    /// Where notices go.
    pub webhook: Option<Url>,
    /// In which form.
    pub form: Form,
    /// Whom to ping at start, success and failure, always.
    pub ping: Option<Url>,
    /// When a notice goes to the webhook.
    pub on: When,
    /// The file that failures are remembered in for [`When::Recovery`]; in its usual place where None.
    pub state: Option<PathBuf>,
}

/// The form of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The plain document.
    #[default]
    Json,
    /// `{"text": "..."}`, as Slack wants it.
    Slack,
}

/// When a notice is sent to the webhook.
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

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Event {
    /// The command: `snapshot`.
    pub command: String,
    /// What tells runs of the same work from others, such as the command and the config's path.
    pub key: String,
    /// Whether all went well.
    pub ok: bool,
    /// The exit code of the process.
    pub exit_code: u8,
    /// What went wrong, if something did.
    pub error: Option<Failure>,
    /// The checks that failed.
    pub checks: Vec<CheckFailure>,
    /// The snapshots that were made.
    pub snapshots: Vec<String>,
    /// The sources that the run was about.
    pub sources: Vec<String>,
    /// This machine.
    pub host: String,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// How long it took.
    pub seconds: f64,
    /// The version of the program.
    pub version: String,
}

/// An error, as a notice tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its kind, by name.
    pub kind: String,
    /// What failed.
    pub message: String,
    /// What to do.
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
    /// What was checked.
    pub name: String,
    /// What it found.
    pub message: String,
}

/// What a notice is about.
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
    /// Tells that a run begins; gives what went wrong with that, and takes some five seconds at most.
    #[must_use]
    pub fn started(&self, command: &str) -> Vec<String> {
        let Some(ping) = &self.ping else { return Vec::new() };
        let text = format!("lifeboat {command} started");
        let sent = send(&ping.below("start"), &Body::Text(text), LONGEST_AT_START);
        sent.err().map(|error| unsent("ping", &error)).into_iter().collect()
    }

    /// Tells how a run ended; gives what went wrong with that, and takes some 15 seconds at most.
    #[must_use]
    pub fn ended(&self, event: &Event) -> Vec<String> {
        self.ended_within(event, LONGEST)
    }

    /// Tells how a run ended, as [`ended`](Self::ended) does, and takes no longer than `longest`: where a platform
    /// leaves little time after SIGTERM.
    #[must_use]
    pub fn ended_within(&self, event: &Event, longest: Duration) -> Vec<String> {
        // Neither may hold up the other.
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

    /// Sends a notice to the webhook, if this is a time for one.
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
        // Before it is sent: who is killed while sending has failed all the same.
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
            // A recovery that nobody heard of is told by the next success.
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

/// Sends until it is taken, refused for good, or `longest` is over.
fn send(url: &Url, body: &Body, longest: Duration) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let left = longest.saturating_sub(start.elapsed());
        // The body of an answer does not matter, and is not waited for.
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
        // A try that has no time to succeed is none.
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
