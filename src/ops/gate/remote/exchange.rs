//! The requests to the other lifeboat: one starts a run, and others ask for its result until the run has ended.
//!
//! No request takes long, because proxies cut connections after a minute or a few. The client chooses the number of the
//! run. A request that is repeated with the same number gets the result of the same run, and starts no other one. A
//! lifeboat that does not know these numbers answers the first request with the result.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ops::gate::remote::errors::error_of;
use crate::ops::gate::remote::run_id::RunId;
use crate::ops::gate::wait_until;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::http::{Answer, Body, Client, Url};
use crate::platform::interrupt;
use crate::platform::secret::Secret;

/// The header with the exit code that the command would have had.
pub(crate) const EXIT_CODE: &str = "lifeboat-exit-code";
/// The header with the number of the run that a request starts.
pub(crate) const RUN: &str = "lifeboat-run";
/// The maximum number of bytes that a document may have.
const MAX_BYTES: u64 = 8 << 20;
/// The maximum time of a request for the result of a run. The other lifeboat answers earlier, also while it runs.
const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two such requests.
const POLL_PAUSE: Duration = Duration::from_millis(200);
/// The time for which a lifeboat that has begun a run may be out of reach.
const PATIENCE: Duration = Duration::from_secs(30);
/// The exit codes of lifeboat.
const EXIT_CODES: [u8; 7] = [0, 1, 2, 3, 4, 5, 130];

/// A run that is to be made.
pub(super) struct Exchange<'a> {
    pub(super) url: &'a Url,
    pub(super) token: Secret,
    /// The name of the gate.
    pub(super) gate: &'static str,
    /// The request, without the time to wait.
    pub(super) request: Value,
    /// The maximum time to wait until failing checks pass, and until the other lifeboat answers.
    pub(super) wait: Duration,
    /// The maximum time of a run.
    pub(super) timeout: Duration,
    /// True if the run can change data. Such a run is not repeated if its result is lost.
    pub(super) changes_data: bool,
}

/// A run that has ended.
pub(super) struct Ended {
    /// The exit code that it reports.
    pub(super) code: u8,
    /// Its document.
    pub(super) document: Value,
}

/// An answer of the other lifeboat, or of something in its place.
enum Reply {
    Ended(Ended),
    /// The run goes on.
    Running,
    /// Another run is in progress.
    Busy(Error),
    /// The other lifeboat does not know the run.
    Unknown(Error),
    /// The other lifeboat cannot be reached at the moment. Proxies answer in its place while a container starts.
    Away(Error),
    /// The other lifeboat refuses to do anything.
    Refused(Error),
}

impl Exchange<'_> {
    /// Makes the run, and returns its result. Until the time to wait is over, tries again if the other lifeboat cannot
    /// be reached, is busy, or is stopped during the run.
    pub(super) fn run(&self) -> Result<Ended> {
        let waited_until = Instant::now() + self.wait;
        let mut id = RunId::random()?;
        wait_until(self.wait, || {
            let mut reply = self.start(&id, waited_until)?;
            if matches!(reply, Reply::Running) {
                reply = self.follow(&id, waited_until).map_err(|error| match error.kind {
                    Kind::Interrupted => {
                        error.context(format!("the {} that was started at {} goes on there", self.gate, self.url))
                    }
                    _ => error,
                })?;
            }
            Ok(match reply {
                Reply::Ended(ended) if ended.code == Kind::Interrupted.exit_code() && !self.changes_data => {
                    id = RunId::random()?;
                    (false, Ok(ended))
                }
                Reply::Ended(ended) => (true, Ok(ended)),
                Reply::Unknown(error) => {
                    id = RunId::random()?;
                    (self.changes_data, Err(self.lost("it was stopped during the run").because(error)))
                }
                Reply::Refused(error) => (true, Err(error)),
                Reply::Busy(error) => (false, Err(error.context(format!("{} did nothing", self.other())))),
                Reply::Away(error) => (false, Err(error)),
                Reply::Running => (true, Err(self.lost("it still runs"))),
            })
        })?
    }

    fn other(&self) -> String {
        format!("the lifeboat at {}", self.url)
    }

    /// Returns the error for a run whose result is not known.
    fn lost(&self, reason: &str) -> Error {
        Error::unreachable(format!("the result of {} is not known: {}: {reason}", self.gate, self.other()))
            .hint("run the command again: it compares the data once more, and waits (--wait) for a run in progress")
    }

    fn client(&self, timeout: Duration) -> Client {
        Client::new(timeout).body_bytes(MAX_BYTES).bearer(self.token.clone()).interruptible()
    }

    /// Sends the request that starts the run.
    fn start(&self, id: &RunId, waited_until: Instant) -> Result<Reply> {
        let mut request = self.request.clone();
        request["wait_seconds"] = json!(waited_until.saturating_duration_since(Instant::now()).as_secs());
        let client = self.client(self.timeout).own_header(RUN, id.to_string());
        let reply = self.reply(client.post(&self.url.below("snapshots"), Body::Json(request)))?;
        Ok(match reply {
            Reply::Away(error) if error.hint.is_none() => {
                Reply::Away(error.hint(
                    "check the address, and that 'lifeboat serve' runs there; --wait tries again until it answers",
                ))
            }
            Reply::Unknown(error) => Reply::Refused(self.refusal(error)),
            reply => reply,
        })
    }

    /// Asks for the result until the run has ended.
    fn follow(&self, id: &RunId, waited_until: Instant) -> Result<Reply> {
        let address = self.url.below(&format!("runs/{id}"));
        let deadline = Instant::now() + self.timeout;
        let mut last_contact = Instant::now();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Reply::Running);
            }
            match self.reply(self.client(POLL_TIMEOUT.min(left)).get(&address))? {
                Reply::Running => last_contact = Instant::now(),
                Reply::Away(error) if last_contact.elapsed() >= PATIENCE && Instant::now() >= waited_until => {
                    return Ok(Reply::Refused(self.lost("it does not answer any more").because(error)));
                }
                Reply::Away(_) => {}
                reply => return Ok(reply),
            }
            interrupt::sleep(POLL_PAUSE)?;
        }
    }

    /// Interprets an answer. Nothing in it is trusted.
    fn reply(&self, answer: Result<Answer>) -> Result<Reply> {
        let answer = match answer {
            Err(error) if error.kind == Kind::Unreachable => return Ok(Reply::Away(error)),
            answer => answer?,
        };
        if let Some(target) = &answer.redirect {
            return Err(Error::usage(format!("{} redirects to {}", self.url, one_line(target)))
                .hint("give the final address to --remote: the token is not sent to another one"));
        }
        if !answer.is_complete {
            return Err(Error::failed(format!("the answer of {} is too long", self.url)));
        }
        let document: Option<Value> = serde_json::from_slice(&answer.body).ok().filter(Value::is_object);
        let Some(document) = document else { return self.foreign(answer.status) };
        if let Some(code) = answer.header(EXIT_CODE) {
            let known = code.parse().ok().filter(|code| EXIT_CODES.contains(code));
            let code = known.ok_or_else(|| {
                Error::failed(format!(
                    "{} reports the exit code '{}', which does not exist",
                    self.other(),
                    one_line(code)
                ))
            })?;
            return Ok(Reply::Ended(Ended { code, document }));
        }
        if answer.status == 202 && document["running"] == Value::Bool(true) {
            return Ok(Reply::Running);
        }
        match error_of(&document["error"]) {
            Some(error) if answer.status == 409 => Ok(Reply::Busy(error)),
            Some(error) if answer.status == 404 => Ok(Reply::Unknown(error)),
            Some(error) => Ok(Reply::Refused(self.refusal(error))),
            None => self.foreign(answer.status),
        }
    }

    /// Returns the reply for an answer that is not from lifeboat.
    fn foreign(&self, status: u16) -> Result<Reply> {
        let message = format!("{} answers {status}, and the answer is not from lifeboat", self.url);
        // Proxies of platforms answer like this while a container starts or stops.
        if matches!(status, 404 | 429 | 500..) {
            return Ok(Reply::Away(Error::unreachable(message)));
        }
        Err(Error::failed(message)
            .hint("give the address of 'lifeboat serve', without a path unless a proxy needs one"))
    }

    /// Returns the error for a refusal. An older lifeboat refuses gates and settings that it does not know.
    fn refusal(&self, error: Error) -> Error {
        let message = error.full_message();
        if ["unknown gate", "unknown field"].iter().any(|words| message.contains(words)) {
            return Error::usage(format!("{} is older than this one, and cannot do this {}", self.other(), self.gate))
                .because(error)
                .hint(concat!("install lifeboat ", env!("CARGO_PKG_VERSION"), " beside the database"));
        }
        error.context(format!("{} did nothing", self.other()))
    }
}
