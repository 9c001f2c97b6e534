//! Reports a run as the config asks: a ping at its start and end, a notice, metrics for Prometheus.
//!
//! A failure here is only a warning: a backup is still good if a webhook is down.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chrono::Utc;

use crate::notify::metrics::{self, ProofSample, Sample, SnapshotSample};
use crate::notify::{CheckFailure, Event, Failure, Notify, SourceOutcome};
use crate::ops::Context;
use crate::ops::summary::{Check, RunSummary, SourceResult, SourceResults};
use crate::platform::error::Error;
use crate::snapshots::id::SourceName;
use crate::snapshots::proofs::ProofLevel;

/// The outcome of a run.
pub(crate) struct Ending<'a> {
    /// The exit code of the process.
    pub code: u8,
    /// The error, if there was one.
    pub error: Option<&'a Error>,
    /// The summary of the command's report.
    pub summary: &'a RunSummary,
}

/// The sources that a run was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// All sources of the config.
    All,
    /// The sources that these texts name, as on the command line.
    Named(Vec<String>),
    /// Unknown before the run has found them.
    Unknown,
}

impl Asked {
    /// Returns the sources that the arguments of a command name. If they name none, these are all sources of the config.
    pub(crate) fn of(named: &[String]) -> Self {
        if named.is_empty() { Asked::All } else { Asked::Named(named.to_vec()) }
    }
}

/// A run that is watched.
#[derive(Clone)]
pub(crate) struct Watch {
    command: &'static str,
    asked: Asked,
    begun: Instant,
    notify: Option<Notify>,
    metrics_file: Option<PathBuf>,
    context: Arc<Context>,
}

/// The maximum time that a guard may spend on the notices of its end.
const GUARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The commands that take snapshots of all sources that they are asked for.
const SAVING_COMMANDS: [&str; 3] = ["snapshot", "predeploy", "guard"];

fn warn(warnings: Vec<String>) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

impl Watch {
    /// Begins to watch a run of one of the [`crate::config::WATCHED`] commands.
    #[must_use]
    pub(crate) fn begin(
        command: &'static str,
        asked: Asked,
        metrics_file: Option<PathBuf>,
        context: Arc<Context>,
    ) -> Self {
        let notify = match context.config.as_ref().map(|config| config.notices()) {
            Some(Ok(notices)) => Some(notices.of(command)),
            Some(Err(error)) => {
                tracing::warn!("no notices are sent for this run: {}", error.full_message());
                None
            }
            None => None,
        };
        let from_config = || context.config.as_ref().map(|config| config.metrics_file());
        let metrics_file = match metrics_file.map_or_else(from_config, |file| Some(Ok(Some(file)))) {
            Some(Ok(file)) => file,
            Some(Err(error)) => {
                tracing::warn!("no metrics are written: {}", error.full_message());
                None
            }
            None => None,
        };
        if let Some(notify) = &notify {
            warn(notify.started(command));
        }
        Watch { command, asked, begun: Instant::now(), notify, metrics_file, context }
    }

    /// Reports failures while the run continues. It does so in the background, because the run must not wait.
    pub(crate) fn report_now(&self, failures: &[Error]) {
        let (Some(notify), Some(first)) = (self.notify.clone(), failures.first()) else { return };
        let check = |error: &Error| Check::bad(error.kind.name(), error.full_message_with_hint());
        let summary = RunSummary { checks: failures.iter().skip(1).map(check).collect(), ..RunSummary::default() };
        let ending = Ending { code: first.kind.exit_code(), error: Some(first), summary: &summary };
        let event = self.event(&ending, &self.results(&ending));
        let sent = thread::Builder::new().name("notice".to_owned()).spawn(move || warn(notify.ended(&event)));
        if let Err(error) = sent {
            tracing::warn!("no notice was sent: cannot start a thread: {error}");
        }
    }

    /// Reports the end of the run.
    pub(crate) fn end(self, ending: &Ending<'_>) {
        // A guard has little of its grace period left.
        self.report(ending, (self.command == "guard").then_some(GUARD_TIMEOUT));
    }

    /// Reports a part of the run that has ended, while the run continues.
    pub(crate) fn report_part(&self, ending: &Ending<'_>) {
        self.report(ending, None);
    }

    /// Writes the metrics of a part of the run that has ended.
    pub(crate) fn write_metrics(&self, ending: &Ending<'_>) {
        if let Some(file) = &self.metrics_file
            && let Err(error) = metrics::write(file, &self.samples(&self.results(ending)))
        {
            tracing::warn!("no metrics were written: {}", error.full_message());
        }
    }

    /// Reports the run, or a part of it that has ended. With `time_limit`, the notices take no longer than that.
    fn report(&self, ending: &Ending<'_>, time_limit: Option<Duration>) {
        let results = self.results(ending);
        if let Some(notify) = &self.notify {
            let event = self.event(ending, &results);
            warn(match time_limit {
                Some(time_limit) => notify.ended_within(&event, time_limit),
                None => notify.ended(&event),
            });
        }
        self.write_metrics(ending);
    }

    /// Returns one result for each source that the run was about.
    fn results(&self, ending: &Ending<'_>) -> SourceResults {
        let summary = ending.summary;
        let mut results = summary.results.clone();
        if !results.as_slice().is_empty() {
            return results;
        }
        // The command has ended before it had a result for any source, or it has none.
        if ending.code != 0 {
            self.asked_sources().iter().for_each(|source| results.fail(source, ending.error));
        } else if SAVING_COMMANDS.contains(&self.command) {
            let saved = summary.snapshots.iter().filter_map(|snapshot| snapshot.source.as_ref());
            saved.for_each(|source| results.succeed(source));
        } else {
            self.asked_sources().iter().for_each(|source| results.succeed(source));
        }
        results
    }

    /// Returns the names of the sources that the run was asked for, as far as they are known.
    fn asked_sources(&self) -> Vec<SourceName> {
        let name = |asked: &String| self.context.named_source(asked).and_then(|chosen| chosen.name()).ok();
        match &self.asked {
            Asked::All => self.configured(),
            Asked::Named(asked) => asked.iter().filter_map(name).collect(),
            Asked::Unknown => Vec::new(),
        }
    }

    /// Returns the names of the config's sources, also of those that cannot be used.
    fn configured(&self) -> Vec<SourceName> {
        self.context.config.as_ref().map(|config| config.source_names().to_vec()).unwrap_or_default()
    }

    fn event(&self, ending: &Ending<'_>, results: &SourceResults) -> Event {
        let summary = ending.summary;
        let failed = summary.checks.iter().filter(|check| !check.ok);
        let failed = failed.map(|check| CheckFailure { name: check.name.clone(), message: check.message.clone() });
        let problems = summary.snapshots.iter().flat_map(|snapshot| {
            let of = |message: &String| CheckFailure { name: snapshot.id.clone(), message: message.clone() };
            snapshot.problems.iter().map(of)
        });
        let unproven = summary.snapshots.iter().filter(|snapshot| snapshot.proof == ProofLevel::None.name());
        let config = self.context.config.as_ref();
        let path = config.map(|config| config.path.display().to_string()).unwrap_or_default();
        let has_result = |name: &SourceName| results.as_slice().iter().any(|result| result.source == name.as_str());
        let outcome = |result: &SourceResult| SourceOutcome {
            source: result.source.clone(),
            ok: result.ok,
            error: result.error.clone(),
        };
        Event {
            command: self.command.to_owned(),
            key: format!("{} {path}", self.command),
            ok: ending.code == 0,
            exit_code: ending.code,
            error: ending.error.map(Failure::from),
            checks: failed.chain(problems).collect(),
            snapshots: summary.snapshots.iter().map(|snapshot| snapshot.id.clone()).collect(),
            unproven: unproven.map(|snapshot| snapshot.id.clone()).collect(),
            results: results.as_slice().iter().map(outcome).collect(),
            is_complete: self.configured().iter().all(has_result),
            host: self.context.host.clone(),
            at: Utc::now(),
            seconds: self.begun.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Returns the metrics of every source that has a result. The others stay as they are.
    fn samples(&self, results: &SourceResults) -> Vec<Sample> {
        results.as_slice().iter().map(|result| self.sample(result)).collect()
    }

    fn sample(&self, result: &SourceResult) -> Sample {
        let mut sample = Sample {
            source: result.source.clone(),
            command: self.command,
            saves: SAVING_COMMANDS.contains(&self.command),
            ok: result.ok,
            at: Utc::now(),
            snapshot: None,
            proof: None,
        };
        let incomplete = |error: &Error| {
            tracing::warn!("the metrics of {} are incomplete: {}", result.source, error.full_message());
        };
        // The result is reported even if no store can be reached.
        let Ok(source) = result.source.parse::<SourceName>() else { return sample };
        // A command with stores of its own, such as `copy`, has none in the context.
        if self.context.stores.is_empty() {
            return sample;
        }
        match self.context.newest_of(&source) {
            Ok(Some(found)) => {
                let manifest = &found.manifest;
                sample.snapshot = Some(SnapshotSample {
                    created_at: manifest.created_at,
                    archive_bytes: manifest.archive_bytes.unwrap_or(0),
                    raw_bytes: manifest.raw_bytes,
                    rows: manifest.rows,
                    seconds: manifest.seconds,
                });
                match found.catalog.proof(&found.listed) {
                    Ok(proof) => {
                        sample.proof = proof.at.map(|at| ProofSample { level: proof.level.name().to_owned(), at });
                    }
                    Err(error) => incomplete(&error),
                }
            }
            Ok(None) => {}
            Err(error) => incomplete(&error),
        }
        sample
    }
}
