//! `guard -- CMD`: a container's entry point, for a database inside the container.
//!
//! Runs the preflight checks, restores missing databases, runs CMD until it ends, and then takes a snapshot. With it a
//! redeploy loses no data even if no volume is mounted. Stdout belongs to CMD; messages of the guard go to stderr.

use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Guard;
use crate::ops::checks::Checks;
use crate::ops::look::count;
use crate::ops::put_back::{gone_mounts, put_back};
use crate::ops::snapshot::{self, SaveOptions};
use crate::ops::sources::Chosen;
use crate::ops::{Context, gate, snapshot_document};
use crate::platform::disk::shown;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::supervise::{Ended, Options, Supervisor};
use crate::platform::text;
use crate::snapshots::catalog::ProofSummary;

/// The part of the grace period that is kept for an orderly end.
const MARGIN: Duration = Duration::from_millis(500);

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct GuardOptions {
    /// The time from SIGTERM to SIGKILL that the platform grants: 10s with Docker, 30s with Kubernetes; by default what
    /// the config says, or 10s
    pub grace: Option<Duration>,
    /// The longest time to wait for failed preflight checks to pass before CMD is started, such as 60s
    pub wait: Duration,
    /// Restore a database that is missing or empty; by default what the config says, or true
    pub restore_if_missing: Option<bool>,
    /// The source to keep, by its name in the config, or as a file (repeatable); by default all of the config
    pub source: Vec<String>,
    /// The program to run, and its arguments
    pub command: Vec<OsString>,
}

/// The outcome of a guarded run.
#[derive(Debug)]
pub(crate) struct Guarded {
    /// The exit code of CMD.
    pub code: u8,
    /// The failures of the guard's own work.
    pub failures: Vec<Error>,
    /// The snapshots that were taken, as a document.
    pub document: Value,
}

/// Runs the command.
pub(crate) fn run(options: &GuardOptions, context: &Context) -> Result<Guarded> {
    let mut signals = Supervisor::listen()?;
    let guard = match &context.config {
        Some(config) => config.guard()?.clone(),
        None => Guard::default(),
    };
    let grace = options.grace.unwrap_or_else(|| guard.grace.to_std().unwrap_or_default());
    // By default half of the grace period is reserved for the last snapshot.
    let reserve = match guard.snapshot_at_end {
        true => guard.reserve.and_then(|reserve| reserve.to_std().ok()).unwrap_or(grace / 2).min(grace),
        false => Duration::ZERO,
    };
    let chosen = context.sources(&options.source)?;
    require_name(context)?;
    require_preflight(options, &chosen, context)?;
    if options.restore_if_missing.unwrap_or(guard.restore_if_missing) {
        for chosen in &chosen {
            restore_if_missing(chosen, context)?;
        }
    }
    let bounds = Options { grace: grace - reserve, ..Options::default() };
    let ended = signals.run(&options.command, &bounds)?;
    tell(&ended);
    let mut guarded =
        Guarded { code: u8::try_from(ended.code).unwrap_or(1), failures: Vec::new(), document: Value::Null };
    if ended.not_started.is_none() && guard.snapshot_at_end {
        let left = ended.stopped.as_ref().map(|stop| stop.remaining(grace));
        if let Some(left) = left {
            let left = text::seconds(left.as_secs_f64());
            tracing::info!("taking a last snapshot, within the {left} that are left of the grace");
        }
        // A signal that arrives only now also starts a grace period. A snapshot that we stop ourselves leaves nothing
        // incomplete.
        signals.finish_within(grace.saturating_sub(MARGIN));
        save(&chosen, &mut guarded, context);
        if signals.is_overdue() {
            tracing::error!(
                "the grace was over before the last snapshot was: give the platform more of it, and [guard] too"
            );
        }
    }
    Ok(guarded)
}

/// Fails if the host name is one that a container runtime generated: it changes with each container, and snapshots
/// belong to a host name and a path.
fn require_name(context: &Context) -> Result<()> {
    if crate::ops::doctor::is_containers_own(&context.host) {
        return Err(Error::usage(format!("{} is a container's own name, and the next one has another", context.host))
            .hint("give it a name that stays: host = \"...\" in the config, --host or LIFEBOAT_HOST"));
    }
    Ok(())
}

fn require_preflight(options: &GuardOptions, chosen: &[Chosen], context: &Context) -> Result<()> {
    let checks = gate::wait_until(options.wait, || {
        let mut checks = Checks::default();
        gate::preflight(chosen, context, &mut checks)?;
        Ok((checks.are_ok(), checks))
    })?;
    let failed: Vec<String> =
        checks.failed().map(|check| format!("{}: {}", one_line(&check.name), one_line(&check.message))).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::problem(format!("the program was not started: {}", failed.join("; ")))
        .hint("mend it, or change [preflight] in the config"))
}

/// Restores a database that is missing or empty, if a store has a snapshot of it. A missing snapshot is normal at a
/// first start. An unreachable store is an error, unless the database has rows.
fn restore_if_missing(chosen: &Chosen, context: &Context) -> Result<()> {
    let name = chosen.name()?;
    let held = match count(&chosen.source) {
        Ok(held) => held,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        Err(error) => {
            return Err(error
                .context(format!("the program was not started: the database of {name} cannot be read"))
                .hint(format!("look at it; 'lifeboat restore latest --source {name} --replace' puts the last snapshot in its place")));
        }
    };
    // The baseline is preferred; without one, the newest snapshot is used.
    let newest = || match context.newest_measure(&name)? {
        Some(found) => Ok(Some(found)),
        None => context.newest_of(&name),
    };
    let found = match newest() {
        Ok(found) => found,
        Err(error) if error.kind == Kind::Interrupted => return Err(error),
        // The database has rows, so CMD can run. Errors of the last snapshot are reported at the end.
        Err(error) if held.is_some_and(|(_, rows)| rows > 0) => {
            tracing::warn!("{name} is there, but no store can be asked for its snapshots: {}", error.whole_with_hint());
            return Ok(());
        }
        Err(error) => {
            return Err(error.context(format!(
                "the program was not started: {name} is missing or empty, and no store can be asked for its snapshots"
            )));
        }
    };
    let Some(found) = found else {
        if held.is_none_or(|(tables, _)| tables == 0) {
            tracing::info!("{name} is not there yet, and has no snapshot: a first start");
        }
        return Ok(());
    };
    let is_wanting = match held {
        None | Some((0, _)) => true,
        Some((_, 0)) => found.manifest.rows > 0,
        Some(_) => false,
    };
    if !is_wanting {
        return Ok(());
    }
    if let Some(path) = chosen.source.file() {
        tracing::info!("{} is missing or empty: restoring {}", shown(path), found.manifest.id);
    }
    let restored = put_back(&found, chosen, 30, &gone_mounts(context)?, context)
        .map_err(|error| error.context(format!("the program was not started: {name} could not be restored")))?;
    tracing::warn!(
        "{name} was missing or empty, and was restored from {}: {} rows in {}",
        restored.id,
        restored.tables.iter().filter_map(|table| table.rows).sum::<u64>(),
        text::seconds(restored.seconds)
    );
    Ok(())
}

fn tell(ended: &Ended) {
    if let Some(error) = &ended.not_started {
        tracing::error!("{}", error.whole());
    }
    if ended.killed {
        tracing::warn!("the program did not end within its part of the grace, and was killed");
    }
    if ended.orphans.killed > 0 || !ended.orphans.left.is_empty() {
        tracing::warn!(
            "{} processes that the program left behind were killed{}",
            ended.orphans.killed,
            match ended.orphans.left.as_slice() {
                [] => String::new(),
                left => format!(", and these could not be: {}", left.join(", ")),
            }
        );
    }
}

/// Takes the last snapshot. Its outcome does not change CMD's exit code.
fn save(chosen: &[Chosen], guarded: &mut Guarded, context: &Context) {
    let options = SaveOptions { tag: vec!["guard".to_owned()], ..SaveOptions::default() };
    match snapshot::take(&options, chosen, context) {
        Ok(taken) => {
            for saved in &taken.snapshots {
                tracing::info!("saved {}: {} rows", saved.manifest.id, saved.manifest.rows);
            }
            let documents: Vec<_> = taken
                .snapshots
                .iter()
                .map(|saved| snapshot_document(&saved.manifest, &ProofSummary::default()))
                .collect();
            guarded.document = json!({ "snapshots": documents });
            guarded.failures = taken.failures;
        }
        Err(error) => guarded.failures.push(error),
    }
    for error in &guarded.failures {
        tracing::error!("the last snapshot was not taken: {}", error.whole_with_hint());
    }
}
