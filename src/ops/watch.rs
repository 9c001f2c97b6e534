//! Reports a run as the config asks: a ping at its start and end, a notice, metrics for Prometheus.
//!
//! A failure here is only a warning: a backup is still good if a webhook is down.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;

use crate::notify::metrics::{self, ProofSample, Sample, SnapshotSample};
use crate::notify::{CheckFailure, Event, Failure, Notify};
use crate::ops::Context;
use crate::ops::summary::RunSummary;
use crate::platform::error::Error;
use crate::snapshots::id::SourceName;

/// The outcome of a run.
pub(crate) struct Ending<'a> {
    /// The exit code of the process.
    pub code: u8,
    /// The error, if there was one.
    pub error: Option<&'a Error>,
    /// The summary of the command's report.
    pub summary: &'a RunSummary,
}

/// A run that is watched.
pub(crate) struct Watch {
    command: &'static str,
    begun: Instant,
    notify: Option<Notify>,
    metrics_file: Option<PathBuf>,
    context: Arc<Context>,
}

/// The maximum time that a guard may spend on the notices of its end.
const GUARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The commands whose outcome is written to the metrics.
const COMMANDS_WITH_METRICS: [&str; 5] = ["snapshot", "predeploy", "guard", "drill", "verify"];

fn warn(warnings: Vec<String>) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

impl Watch {
    /// Begins to watch a run of one of the [`crate::config::WATCHED`] commands.
    #[must_use]
    pub(crate) fn begin(command: &'static str, metrics_file: Option<PathBuf>, context: Arc<Context>) -> Self {
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
            Some(Ok(file)) => file.filter(|_| COMMANDS_WITH_METRICS.contains(&command)),
            Some(Err(error)) => {
                tracing::warn!("no metrics are written: {}", error.full_message());
                None
            }
            None => None,
        };
        if let Some(notify) = &notify {
            warn(notify.started(command));
        }
        Watch { command, begun: Instant::now(), notify, metrics_file, context }
    }

    /// Reports the end of the run.
    pub(crate) fn end(self, ending: &Ending<'_>) {
        if let Some(notify) = &self.notify {
            let event = self.event(ending);
            // A guard has little of its grace period left.
            warn(match self.command {
                "guard" => notify.ended_within(&event, GUARD_TIMEOUT),
                _ => notify.ended(&event),
            });
        }
        if let Some(file) = &self.metrics_file
            && let Err(error) = metrics::write(file, &self.samples(ending))
        {
            tracing::warn!("no metrics were written: {}", error.full_message());
        }
    }

    fn event(&self, ending: &Ending<'_>) -> Event {
        let failure = |error: &Error| Failure {
            kind: error.kind.name().to_owned(),
            message: error.message.clone(),
            hint: error.hint.clone(),
            causes: error.causes(),
        };
        let summary = ending.summary;
        let failed = summary.checks.iter().filter(|check| !check.ok);
        let failed = failed.map(|check| CheckFailure { name: check.name.clone(), message: check.message.clone() });
        let problems = summary.snapshots.iter().flat_map(|snapshot| {
            let of = |message: &String| CheckFailure { name: snapshot.id.clone(), message: message.clone() };
            snapshot.problems.iter().map(of)
        });
        let config = self.context.config.as_ref();
        let path = config.map(|config| config.path.display().to_string()).unwrap_or_default();
        Event {
            command: self.command.to_owned(),
            key: format!("{} {path}", self.command),
            ok: ending.code == 0,
            exit_code: ending.code,
            error: ending.error.map(failure),
            checks: failed.chain(problems).collect(),
            snapshots: summary.snapshots.iter().map(|snapshot| snapshot.id.clone()).collect(),
            sources: self.sources().iter().map(ToString::to_string).collect(),
            host: self.context.host.clone(),
            at: Utc::now(),
            seconds: self.begun.elapsed().as_secs_f64(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Returns the names of the config's sources, or none if the config is absent or invalid.
    fn sources(&self) -> Vec<SourceName> {
        let sources = self.context.config.as_ref().and_then(|config| config.sources().ok()).unwrap_or_default();
        sources.iter().map(|source| source.name.clone()).collect()
    }

    /// Returns the metrics of every source: those of the config and those in the command's document.
    fn samples(&self, ending: &Ending<'_>) -> Vec<Sample> {
        let incomplete = |source: &SourceName, error: &Error| {
            tracing::warn!("the metrics of {source} are incomplete: {}", error.full_message());
        };
        let mut names = self.sources();
        let saved = ending.summary.snapshots.iter().filter_map(|snapshot| snapshot.source.as_ref()?.parse().ok());
        for name in saved {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut samples = Vec::new();
        for source in names {
            let mut sample = Sample {
                source: source.to_string(),
                ok: ending.code == 0,
                at: Utc::now(),
                snapshot: None,
                proof: None,
            };
            // The failure of the run is reported even if no store can be reached.
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
                        Err(error) => incomplete(&source, &error),
                    }
                }
                Ok(None) => {}
                Err(error) => incomplete(&source, &error),
            }
            samples.push(sample);
        }
        samples
    }
}
