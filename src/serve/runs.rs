//! The runs that requests start, one at a time, and their results.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::Utc;
use serde_json::Value;
use tokio::sync::watch;

use crate::ops::gate::remote::RunId;
use crate::ops::summary::RunSummary;
use crate::ops::watch::{Asked, Ending, Watch};
use crate::ops::{Context, error_document};
use crate::platform::error::{Error, Kind, Result};
use crate::serve::requests::RunRequest;
use crate::serve::status::view::RunFailure;
use crate::serve::watchers::Pause;

/// The maximum number of failures that are kept in memory.
const MAX_FAILURES: usize = 500;
/// The maximum number of results that are kept in memory, for clients that ask again.
const MAX_RESULTS: usize = 8;

/// A run that has ended.
pub(super) struct Done {
    /// The exit code that the command would have had.
    pub(super) code: u8,
    /// Its report, or its error, as JSON.
    pub(super) document: Value,
    /// True if it took snapshots.
    pub(super) takes_snapshots: bool,
}

/// The result of a run: `None` until it has ended.
pub(super) type RunResult = watch::Receiver<Option<Arc<Done>>>;

/// The runs, at most one at a time, and their failures.
#[derive(Default)]
pub(super) struct Runs {
    is_running: AtomicBool,
    results: Mutex<VecDeque<(RunId, RunResult)>>,
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

    fn results(&self) -> MutexGuard<'_, VecDeque<(RunId, RunResult)>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the result of a run for clients that ask for it by its number. Only the newest [`MAX_RESULTS`] are kept.
    pub(super) fn remember(&self, id: RunId, result: RunResult) {
        let mut results = self.results();
        results.truncate(MAX_RESULTS - 1);
        results.push_front((id, result));
    }

    /// Returns the result of the run with this number.
    pub(super) fn find(&self, id: &RunId) -> Option<RunResult> {
        self.results().iter().find(|(known, _)| known == id).map(|(_, result)| result.clone())
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

/// Runs what is requested, and sends the notices of the config, as the command would. `pause` holds the inspections back
/// until the run has ended.
pub(super) fn run(
    request: &RunRequest,
    pause: impl FnOnce() -> Result<Option<Pause>>,
    turn: &Turn,
    context: &Arc<Context>,
) -> Done {
    let command = request.command_name();
    let watch = Watch::begin(command, Asked::of(request.sources()), None, Arc::clone(context));
    let (code, document, summary, error) = match pause().and_then(|_pause| request.execute(context)) {
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
    Done { code, document, takes_snapshots: request.takes_snapshots() }
}
