//! The one action that a request can start: snapshots of the config's sources, one run at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Duration, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ops::gate::predeploy::{self, PredeployOptions};
use crate::ops::save::{self, SaveOptions};
use crate::ops::summary::RunSummary;
use crate::ops::watch::{Ending, Watch};
use crate::ops::{Context, Report, error_document};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::serve::status::view::RunFailure;
use crate::snapshots::id::SourceName;

/// The maximum time that a gate waits, in seconds: no other run can start meanwhile.
const MAX_WAIT_SECONDS: u32 = 3600;
/// The maximum number of failures that are kept in memory.
const MAX_FAILURES: usize = 500;

/// A request. A document without any field asks for snapshots of all sources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunRequest {
    /// `predeploy`: runs the gate's checks before the snapshots, and reads the snapshots back after them.
    pub(crate) gate: Option<String>,
    /// Names of sources in the config.
    pub(crate) sources: Vec<String>,
    /// Additional tags.
    pub(crate) tags: Vec<String>,
    /// The commit that is to be deployed.
    pub(crate) commit: Option<String>,
    /// The maximum time that the gate waits for checks that do not pass yet, in seconds.
    pub(crate) wait_seconds: u32,
    /// True if SQLite's integrity_check is to run instead of quick_check.
    pub(crate) full_check: bool,
}

/// A run that has ended.
pub(super) struct Done {
    /// The exit code that the command would have had.
    pub(super) code: u8,
    /// Its report, or its error, as JSON.
    pub(super) document: Value,
}

/// The runs, at most one at a time, and their failures.
#[derive(Default)]
pub(super) struct Runs {
    is_running: AtomicBool,
    failures: Mutex<Vec<RunFailure>>,
}

/// The right to run, held until it is dropped.
pub(super) struct Turn(Arc<Runs>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::SeqCst);
    }
}

impl Runs {
    /// Returns the right to run, or `None` if another run holds it.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let is_free = self.is_running.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        is_free.then(|| Turn(Arc::clone(self)))
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::SeqCst)
    }

    /// Returns the failures since the start, at most the last [`MAX_FAILURES`].
    pub(super) fn failures(&self) -> Vec<RunFailure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, message: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_FAILURES {
            failures.remove(0);
        }
        failures.push(RunFailure { at: Utc::now(), source: None, message });
    }
}

/// Reads a request. Sources must be names in the config; paths and URLs are refused.
pub(super) fn read(body: &[u8], names: &[SourceName]) -> Result<RunRequest> {
    let is_empty = body.iter().all(u8::is_ascii_whitespace);
    let request: RunRequest = if is_empty {
        RunRequest::default()
    } else {
        serde_json::from_slice::<Map<String, Value>>(body)
            .and_then(|fields| serde_json::from_value(Value::Object(fields)))
            .map_err(|error| Error::usage("the body is not a valid JSON request").because(error))?
    };
    if let Some(gate) = request.gate.as_ref().filter(|gate| *gate != "predeploy") {
        return Err(Error::usage(format!("unknown gate '{}'", one_line(gate))).hint("the only gate is predeploy"));
    }
    for source in &request.sources {
        if !names.iter().any(|name| name.as_str() == source) {
            let known: Vec<&str> = names.iter().map(SourceName::as_str).collect();
            return Err(Error::usage(format!("the config has no source '{}'", one_line(source)))
                .hint(format!("its sources are: {}", known.join(", "))));
        }
    }
    save::require_free_tags(&request.tags)?;
    save::require_free_tags(request.commit.as_slice())?;
    if request.wait_seconds > MAX_WAIT_SECONDS {
        return Err(Error::usage(format!("wait_seconds must be at most {MAX_WAIT_SECONDS}")));
    }
    Ok(request)
}

/// Runs what is requested, and sends the notices of the config, as the command would.
pub(super) fn run(request: &RunRequest, turn: &Turn, context: &Arc<Context>) -> Done {
    let command = if request.gate.is_some() { "predeploy" } else { "snapshot" };
    let watch = Watch::begin(command, None, Arc::clone(context));
    let outcome = execute(request, context);
    let (code, document, summary, error) = match outcome {
        Ok(ended) => ended,
        Err(error) => {
            let document = serde_json::json!({"error": error_document(&error)});
            (error.kind.exit_code(), document, RunSummary::default(), Some(error))
        }
    };
    if code != 0 {
        let no_error = || format!("{command} ended with exit code {code}");
        let message = error.as_ref().map_or_else(no_error, Error::full_message);
        if code != Kind::Interrupted.exit_code() {
            turn.0.note(format!("{command}: {message}"));
        }
        tracing::warn!("a request started {command}, which failed: {message}");
    }
    watch.end(&Ending { code, error: error.as_ref().filter(|_| code != 0), summary: &summary });
    Done { code, document }
}

/// The exit code, the document, the summary, and the first error of a run.
type Ended = (u8, Value, RunSummary, Option<Error>);

fn execute(request: &RunRequest, context: &Context) -> Result<Ended> {
    if request.gate.is_some() {
        let options = PredeployOptions {
            sources: request.sources.clone(),
            commit: request.commit.clone(),
            tag: request.tags.clone(),
            wait: Duration::seconds(request.wait_seconds.into()),
            full_check: request.full_check,
        };
        return outcome_of(&predeploy::run(&options, context)?);
    }
    let mut tags = request.tags.clone();
    tags.extend(request.commit.clone());
    let options = SaveOptions {
        sources: request.sources.clone(),
        tag: tags,
        full_check: request.full_check,
        ..SaveOptions::default()
    };
    outcome_of(&save::run(&options, context)?)
}

fn outcome_of(report: &impl Report) -> Result<Ended> {
    let document = serde_json::to_value(report)
        .map_err(|error| Error::failed("cannot convert the report to JSON").because(error))?;
    Ok((report.exit_code(), document, report.summary(), report.errors().first().map(Error::duplicate)))
}
