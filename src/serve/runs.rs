//! The one action that a request can start: snapshots of the config's sources, one run at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{Duration, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ops::gate::predeploy::{self, PredeployOptions};
use crate::ops::snapshot::{self, SaveOptions};
use crate::ops::watch::{Ending, Watch};
use crate::ops::{Context, Report, error_document};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::serve::status::view::Mishap;
use crate::snapshots::id::SourceName;

/// The longest time that a gate waits, in seconds: no other run can start meanwhile.
const MOST_WAIT: u32 = 3600;
/// The maximum number of failures that are kept in memory.
const MOST_MISHAPS: usize = 500;

/// A request. A document without any field asks for snapshots of all sources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    /// `predeploy`: runs the gate's checks before the snapshots, and reads the snapshots back after them.
    pub(crate) gate: Option<String>,
    /// Names of sources in the config.
    pub(crate) sources: Vec<String>,
    /// Additional tags.
    pub(crate) tags: Vec<String>,
    /// The commit that is to be deployed.
    pub(crate) commit: Option<String>,
    /// The longest time that the gate waits for checks that do not pass yet, in seconds.
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
    mishaps: Mutex<Vec<Mishap>>,
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

    /// Returns the failures since the start, at most the last [`MOST_MISHAPS`].
    pub(super) fn mishaps(&self) -> Vec<Mishap> {
        self.mishaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, message: String) {
        let mut mishaps = self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        if mishaps.len() >= MOST_MISHAPS {
            mishaps.remove(0);
        }
        mishaps.push(Mishap { at: Utc::now(), source: None, message });
    }
}

/// Reads a request. Sources must be names in the config; paths and URLs are refused.
pub(super) fn read(body: &[u8], names: &[SourceName]) -> Result<Asked> {
    let is_empty = body.iter().all(u8::is_ascii_whitespace);
    let asked: Asked = if is_empty {
        Asked::default()
    } else {
        serde_json::from_slice::<Map<String, Value>>(body)
            .and_then(|fields| serde_json::from_value(Value::Object(fields)))
            .map_err(|error| Error::usage("the request is no document that is understood here").because(error))?
    };
    if let Some(gate) = asked.gate.as_ref().filter(|gate| *gate != "predeploy") {
        return Err(Error::usage(format!("there is no gate '{}' here", one_line(gate))).hint("there is predeploy"));
    }
    for source in &asked.sources {
        if !names.iter().any(|name| name.as_str() == source) {
            let known: Vec<&str> = names.iter().map(SourceName::as_str).collect();
            return Err(Error::usage(format!("the config has no source '{}'", one_line(source)))
                .hint(format!("it has {}", known.join(", "))));
        }
    }
    snapshot::require_free_tags(&asked.tags)?;
    snapshot::require_free_tags(asked.commit.as_slice())?;
    if asked.wait_seconds > MOST_WAIT {
        return Err(Error::usage(format!("wait_seconds is at most {MOST_WAIT}")));
    }
    Ok(asked)
}

/// Runs what is asked for, and sends the notices of the config, as the command would.
pub(super) fn run(asked: &Asked, turn: &Turn, context: &Arc<Context>) -> Done {
    let command = if asked.gate.is_some() { "predeploy" } else { "snapshot" };
    let watch = Watch::begin(command, None, Arc::clone(context));
    let outcome = execute(asked, context);
    let (code, document, error) = match outcome {
        Ok((code, document, error)) => (code, document, error),
        Err(error) => (error.kind.exit_code(), serde_json::json!({"error": error_document(&error)}), Some(error)),
    };
    if code != 0 {
        let told = error.as_ref().map_or_else(|| format!("{command} ended with {code}"), Error::whole);
        if code != Kind::Interrupted.exit_code() {
            turn.0.note(format!("{command}: {told}"));
        }
        tracing::warn!("{command}, asked for by a request: {told}");
    }
    watch.end(&Ending { code, error: error.as_ref().filter(|_| code != 0), document: &document });
    Done { code, document }
}

fn execute(asked: &Asked, context: &Context) -> Result<(u8, Value, Option<Error>)> {
    if asked.gate.is_some() {
        let options = PredeployOptions {
            sources: asked.sources.clone(),
            commit: asked.commit.clone(),
            tag: asked.tags.clone(),
            wait: Duration::seconds(asked.wait_seconds.into()),
            full_check: asked.full_check,
        };
        return summed_up(&predeploy::run(&options, context)?);
    }
    let mut tags = asked.tags.clone();
    tags.extend(asked.commit.clone());
    let options = SaveOptions {
        sources: asked.sources.clone(),
        tag: tags,
        full_check: asked.full_check,
        ..SaveOptions::default()
    };
    summed_up(&snapshot::run(&options, context)?)
}

fn summed_up(report: &impl Report) -> Result<(u8, Value, Option<Error>)> {
    let document = serde_json::to_value(report).map_err(|error| Error::failed("no document").because(error))?;
    Ok((report.exit_code(), document, report.errors().first().map(Error::again)))
}
