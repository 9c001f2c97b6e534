//! Sends notices about runs: to a webhook, and to the ping URL of a service that checks that the runs take place.
//!
//! A notice never changes the result of the run that it reports: errors here are returned as warnings, and everything
//! has a time limit. Notices are also sent after a signal has asked to stop, because that is a failure like any other.

mod form;
mod markup;
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

pub use form::Form;

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
///   "results": [{"source": "app", "ok": false, "error": {...}}, {"source": "billing", "ok": true, "error": null}],
///   "snapshots": ["app-20261121T170501Z-7f3a"],
///   "error": {"kind": "unreachable", "message": "...", "hint": "...", "causes": ["..."]},
///   "checks": [{"name": "mount /app/data", "message": "..."}]
/// }
/// ```
///
/// `event` is `failure`, `success` or `recovery`. `sources` are those that the notice is about: the sources that failed,
/// or those that succeeded or work again. A run can send one notice of a failure and one about its other sources.
/// `results` are those of all sources of the run. A failure without a source, such as of the pruning, has no `sources`.
/// `error` is null if there is no error (a check that fails has `checks` only); its `hint` may be null too. `snapshots`
/// are those that were made. The other [forms](Form) are those of services, with the same facts as text.
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
    /// A key that all runs of the same work share, such as the command and the config's path. The failures of a source
    /// are remembered by this key and its name.
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
    /// Those of them that no test has proven yet.
    pub unproven: Vec<String>,
    /// The results of the run for each of its sources.
    pub results: Vec<SourceOutcome>,
    /// True if the run was about everything that such runs are about, and not only about some of the sources.
    pub is_complete: bool,
    /// The name of this machine.
    pub host: String,
    /// The time at which it ended.
    pub at: DateTime<Utc>,
    /// The time that it took, in seconds.
    pub seconds: f64,
    /// The version of the program.
    pub version: String,
}

/// The result of a run for one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceOutcome {
    /// The source's name.
    pub source: String,
    /// True if the run succeeded for it.
    pub ok: bool,
    /// The error, if an error is why it did not.
    pub error: Option<Failure>,
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
            let mut warnings = self.send_notices(event, time_limit);
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
        let failed = event.results.iter().filter(|result| !result.ok);
        let sources = match kind {
            EventKind::Failure => failed.map(|result| result.source.as_str()).collect(),
            _ => event.results.iter().map(|result| result.source.as_str()).collect(),
        };
        let notice = Notice { kind, sources, keys: Vec::new() };
        let sent = send(&url, &Body::Text(message::ping(event, &notice)), time_limit);
        sent.err().map(|error| send_warning("ping", &error))
    }

    /// Sends the notices to the webhook that are due after this run. Returns warnings if that fails.
    fn send_notices(&self, event: &Event, time_limit: Duration) -> Vec<String> {
        let Some(webhook) = &self.webhook else { return Vec::new() };
        let start = Instant::now();
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
        let is_failing = |key: &str| match &state {
            Some(path) => state::is_failing(path, key),
            None => Ok(false),
        };
        let (notices, error) = due(event, self.on, is_failing);
        warnings.extend(error.iter().map(state_warning));
        for notice in notices {
            // The failure is remembered before the notice is sent, in case the process is killed while sending.
            if let (EventKind::Failure, Some(path)) = (notice.kind, &state)
                && let Err(error) = state::remember(path, &notice.keys, Some(event.at))
            {
                warnings.push(state_warning(&error));
            }
            let (url, document) = match self.form {
                Form::Json => (webhook.clone(), message::document(event, &notice)),
                Form::Slack => (webhook.clone(), message::slack(event, &notice)),
                Form::Discord => (webhook.clone(), message::discord(event, &notice)),
                Form::Teams => (webhook.clone(), message::teams(event, &notice)),
                // The message names the topic, and is sent to the root of the server.
                Form::Ntfy => {
                    let topic = form::topic(webhook).unwrap_or_default();
                    (webhook.parent(), message::ntfy(event, &notice, &topic))
                }
            };
            match send(&url, &Body::Json(document), time_limit.saturating_sub(start.elapsed())) {
                Err(error) => warnings.push(send_warning("notice", &error)),
                // The failure is forgotten only after the recovery was sent: otherwise the next success reports it.
                Ok(()) => {
                    if let (EventKind::Recovery, Some(path)) = (notice.kind, &state)
                        && let Err(error) = state::remember(path, &notice.keys, None)
                    {
                        warnings.push(state_warning(&error));
                    }
                }
            }
        }
        warnings
    }
}

/// A notice about some of the sources of a run.
struct Notice<'a> {
    kind: EventKind,
    /// The sources that it is about; none if it is about the run as a whole.
    sources: Vec<&'a str>,
    /// The keys by which its failures are remembered.
    keys: Vec<String>,
}

/// Returns the notices that are due after a run: at most one of a failure, and one about the sources without a failure.
/// The error is that of a state that cannot be read.
fn due<'a>(
    event: &'a Event,
    on: When,
    is_failing: impl Fn(&str) -> Result<bool, Error>,
) -> (Vec<Notice<'a>>, Option<Error>) {
    let key = |source: &str| format!("{} {source}", event.key);
    let of = |ok: bool| -> Vec<&str> {
        event.results.iter().filter(|result| result.ok == ok).map(|result| result.source.as_str()).collect()
    };
    let (failed, succeeded) = (of(false), of(true));
    let mut notices = Vec::new();
    if !event.ok || !failed.is_empty() {
        let keys = match failed.as_slice() {
            [] => vec![event.key.clone()],
            failed => failed.iter().map(|source| key(source)).collect(),
        };
        notices.push(Notice { kind: EventKind::Failure, sources: failed, keys });
    }
    // A run as a whole has succeeded only if it was about everything that an earlier run can have been about.
    let is_whole = event.ok && notices.is_empty();
    match on {
        When::Failure => {}
        When::Always if is_whole || !succeeded.is_empty() => {
            notices.push(Notice { kind: EventKind::Success, sources: succeeded, keys: Vec::new() });
        }
        When::Always => {}
        When::Recovery => {
            let find = || -> Result<Option<Notice<'a>>, Error> {
                if is_whole && event.is_complete && is_failing(&event.key)? {
                    let keys = succeeded.iter().map(|source| key(source)).chain([event.key.clone()]).collect();
                    return Ok(Some(Notice { kind: EventKind::Recovery, sources: succeeded.clone(), keys }));
                }
                let mut recovered = Notice { kind: EventKind::Recovery, sources: Vec::new(), keys: Vec::new() };
                for source in &succeeded {
                    if is_failing(&key(source))? {
                        recovered.sources.push(source);
                        recovered.keys.push(key(source));
                    }
                }
                Ok(Some(recovered).filter(|recovered| !recovered.sources.is_empty()))
            };
            match find() {
                Ok(recovered) => notices.extend(recovered),
                Err(error) => return (notices, Some(error)),
            }
        }
    }
    (notices, None)
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
