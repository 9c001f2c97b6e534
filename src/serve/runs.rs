//! The one thing that can be asked to be done: snapshots of the config's sources, one run at a time.

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

/// The longest that a gate waits, in seconds: nobody else has a turn meanwhile.
const MOST_WAIT: u32 = 3600;
/// How many mishaps are kept in mind.
const MOST_MISHAPS: usize = 500;

/// What is asked for: a document without any field means snapshots of all sources.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asked {
    /// `predeploy`, for the gate's checks before, and the reading back after.
    pub(crate) gate: Option<String>,
    /// Names of the config.
    pub(crate) sources: Vec<String>,
    /// More tags.
    pub(crate) tags: Vec<String>,
    /// The commit that is to be deployed.
    pub(crate) commit: Option<String>,
    /// How long a gate waits for what is not yet as it should be.
    pub(crate) wait_seconds: u32,
    /// SQLite's integrity_check instead of quick_check.
    pub(crate) full_check: bool,
}

/// A run that has ended.
pub(super) struct Done {
    /// The exit code that the command would have had.
    pub(super) code: u8,
    /// Its document.
    pub(super) document: Value,
}

/// The runs, of which there is one at a time.
#[derive(Default)]
pub(super) struct Runs {
    is_running: AtomicBool,
    mishaps: Mutex<Vec<Mishap>>,
}

/// That a run is going on: until this is dropped.
pub(super) struct Turn(Arc<Runs>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::SeqCst);
    }
}

impl Runs {
    /// The turn to run, where nobody else has it.
    pub(super) fn turn(self: &Arc<Self>) -> Option<Turn> {
        let is_free = self.is_running.compare_exchange(false, true, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        is_free.then(|| Turn(Arc::clone(self)))
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::SeqCst)
    }

    /// What went wrong since the start.
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

/// Reads what is asked for. Only names of the config's sources go: a path or an address is none.
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

/// Does what is asked for, and tells of it whoever the config names, as the command would.
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
