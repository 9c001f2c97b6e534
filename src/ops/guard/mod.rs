//! `guard -- CMD`: a container's entry point, for a database inside the container.
//!
//! Runs the preflight checks, judges the databases and restores those that are missing, runs CMD until it ends, and takes
//! snapshots meanwhile and afterwards. Stdout belongs to CMD; messages of the guard go to stderr.

mod changes;
mod comparison;
mod end;
mod every;
mod foreign;
mod fresh;
pub(crate) mod grace;
mod judge;
mod lease;
mod newest;
mod older_state;
mod others;
mod overlap;
mod renamed;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Guard, OnDoubt};
use crate::ops::guard::changes::Changes;
use crate::ops::guard::every::{Periodic, Schedule};
use crate::ops::guard::foreign::Foreign;
use crate::ops::guard::grace::{Comparison, Grace, MARGIN};
use crate::ops::guard::lease::Leases;
use crate::ops::guard::overlap::Handover;
use crate::ops::guard::start::Settings;
use crate::ops::sources::Chosen;
use crate::ops::summary::{Check, RunSummary};
use crate::ops::watch::Watch;
use crate::ops::{Context, host_name};
use crate::platform::error::{Error, Kind, Result};
use crate::platform::supervise::{Ended, Options, Supervisor};
use crate::platform::text;
use crate::snapshots::guard_leases::GuardState;
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::MissingPeriod;

/// A program that ends with an error within this time of its start has never worked.
const AT_ONCE: Duration = Duration::from_secs(30);

/// Options of [`run`].
#[derive(Clone, Debug)]
pub(crate) struct GuardOptions {
    /// The time that the platform allows between SIGTERM and SIGKILL: 10s with Docker, 30s with Kubernetes; default:
    /// grace in the config, or 10s
    pub grace: Option<Duration>,
    /// The maximum time to wait until failing preflight checks pass, before CMD is started
    pub wait: Duration,
    /// Restore a database that is missing or empty; default: restore_if_missing in the config, or true
    pub restore_if_missing: Option<bool>,
    /// The action if a restore could lose newer rows, or if rows are missing; default: on_doubt in the config, or refuse
    pub on_doubt: Option<OnDoubt>,
    /// The interval between snapshots while CMD runs, such as 15m; default: every in the config, or none
    pub every: Option<Duration>,
    /// The maximum time to wait for the last snapshot of another guard of the same source, if the database must be
    /// restored; default: handover in the config, or 3m
    pub handover: Option<Duration>,
    /// The sources to restore and save: names from the config, or SQLite files; default: all sources of the config
    pub source: Vec<String>,
    /// The program to run, and its arguments
    pub command: Vec<OsString>,
}

/// The result of `guard`.
#[derive(Debug, Default)]
pub(crate) struct GuardOutcome {
    /// The exit code of CMD.
    pub code: u8,
    /// The exit code of the guard's own part, for notices: that of its first failure, or CMD's if CMD has failed at its
    /// start.
    pub own_code: u8,
    /// The failures of the guard's own work, and of a program that could not work at all.
    pub failures: Vec<Error>,
    /// The snapshots that were taken.
    pub summary: RunSummary,
}

/// Runs the command. `watch` reports failures at the start, and of the snapshots while CMD runs, at once.
pub(crate) fn run(options: &GuardOptions, watch: Option<&Watch>, context: &Arc<Context>) -> Result<GuardOutcome> {
    let mut signals = Supervisor::listen()?;
    let guard = match &context.config {
        Some(config) => config.guard()?.clone(),
        None => Guard::default(),
    };
    let grace = options.grace.unwrap_or_else(|| guard.grace.to_std().unwrap_or_default());
    // By default, half of the grace period is reserved for the last snapshot.
    let reserve = match guard.snapshot_at_end {
        true => Grace::new(grace, guard.reserve.and_then(|reserve| reserve.to_std().ok())).reserve,
        false => Duration::ZERO,
    };
    let every = options.every.or_else(|| guard.every.and_then(|every| every.to_std().ok()));
    let every = every.filter(|every| !every.is_zero());
    let chosen = context.sources(&options.source)?;
    host_name::require_permanent(&context.host)?;
    start::require_preflight(options.wait, &chosen, context)?;
    // A guard that saves nothing has nothing to hand over.
    let leased = if guard.snapshot_at_end || every.is_some() { chosen.as_slice() } else { &[] };
    let saves = !leased.is_empty();
    let leases = Leases::begin(leased, watch, context)?;
    let Prepared { foreign, doubts, missing_periods, unsaved: first } =
        prepare(&chosen, options, &guard, &leases, context)?;
    let names = chosen.iter().map(Chosen::name).collect::<Result<Vec<_>>>()?;
    let saved_at_end = if guard.snapshot_at_end { names.clone() } else { Vec::new() };
    if let Some(watch) = watch {
        watch.report_now(&doubts);
    }
    leases.set(GuardState::Running);
    let comparison = Comparison::begin(Grace { total: grace, reserve }, saved_at_end, context);
    let (first, first_wait) =
        (if saves { first } else { BTreeSet::new() }, guard.store_wait.to_std().unwrap_or_default());
    if !first.is_empty() {
        // The folder of a new source then has a lease, and does not look like one that has lost its snapshots.
        leases.wait_for_first(first_wait);
    }
    let schedule = Schedule { every, first, first_wait };
    let changes = Changes::new(chosen, foreign, missing_periods);
    let periodic = Periodic::begin(changes, schedule, watch.cloned(), context)?;
    let bounds = Options { grace: grace - reserve, ..Options::default() };
    let ended = signals.run(&options.command, &bounds)?;
    log_end(&ended);
    if guard.snapshot_at_end {
        leases.set(GuardState::Ending);
    }
    // If CMD has ended by itself, a signal can still arrive during the snapshot; then the grace period starts. The
    // snapshot is interrupted before that period ends, so that it leaves nothing incomplete.
    signals.finish_within(grace.saturating_sub(MARGIN));
    let left = ended.stopped.as_ref().map(|stop| stop.remaining(grace));
    let first = periodic.first_snapshots();
    let changes = periodic.end(left.map(|left| left.saturating_sub(MARGIN)), &signals);
    let mut outcome = GuardOutcome { code: u8::try_from(ended.code).unwrap_or(1), ..GuardOutcome::default() };
    // Without a last snapshot, the newest state may be in no store.
    let has_run = ended.not_started.is_none();
    let (mut unsaved, mut is_saved) = (if has_run && !guard.snapshot_at_end { names } else { Vec::new() }, false);
    if let Some(changes) = changes.filter(|_| has_run && guard.snapshot_at_end) {
        if let Some(left) = left {
            let left = text::seconds(left.as_secs_f64());
            tracing::info!("taking the last snapshot; {left} of the grace period are left");
        }
        let last = end::save(changes, context);
        is_saved = last.unsaved.is_empty();
        (outcome.summary, outcome.failures, unsaved) = (last.summary, last.failures, last.unsaved);
        outcome.summary.snapshots.splice(0..0, first);
        if signals.is_overdue() {
            tracing::error!(
                "the grace period ended before the last snapshot was complete: increase it on the platform and in \
                 [guard]"
            );
        }
    }
    // A store that has the last snapshot lets itself be written.
    let has_saved = is_saved && !outcome.summary.snapshots.is_empty() && outcome.failures.is_empty();
    outcome.failures.extend(leases.refused().into_iter().filter(|_| !has_saved));
    leases.end(&unsaved);
    // A store that did not answer at the start, and has the last snapshot now, is no failure any more.
    outcome.failures.extend(doubts.into_iter().filter(|doubt| !is_saved || doubt.kind != Kind::Unreachable));
    outcome.add_failure_of_program(ended);
    comparison.end();
    Ok(outcome)
}

/// The state after the judgement and the restores.
#[derive(Default)]
struct Prepared {
    /// The snapshots that are known at the start.
    foreign: Foreign,
    /// The failures that do not prevent the start.
    doubts: Vec<Error>,
    /// The sources that were restored to an older state, each with the period whose rows it lacks.
    missing_periods: BTreeMap<SourceName, MissingPeriod>,
    /// The sources that have rows, and of which no store has a snapshot.
    unsaved: BTreeSet<SourceName>,
}

/// Waits for the last snapshots of other guards, and judges and restores the databases.
fn prepare(
    chosen: &[Chosen],
    options: &GuardOptions,
    guard: &Guard,
    leases: &Leases,
    context: &Arc<Context>,
) -> Result<Prepared> {
    let settings = Settings {
        restores: options.restore_if_missing.unwrap_or(guard.restore_if_missing),
        on_doubt: options.on_doubt.unwrap_or(guard.on_doubt),
        store_wait: guard.store_wait.to_std().unwrap_or_default(),
    };
    let mut prepared = Prepared::default();
    if !settings.restores {
        let plan = start::judge(chosen, &settings, context)?;
        prepared.unsaved.clone_from(&plan.unsaved);
        prepared.doubts = plan.restore(&settings, context)?.failures;
        return Ok(prepared);
    }
    let time = options.handover.unwrap_or_else(|| guard.handover.to_std().unwrap_or_default());
    let handover = Handover { end: Instant::now() + time, time, on_overlap: guard.on_overlap };
    let missing = overlap::missing(chosen, context)?;
    let mut killed = overlap::wait(&missing, leases, handover, context)?;
    prepared.foreign.begin(missing.keys(), context);
    let mut plan = start::judge(chosen, &settings, context)?;
    // A database that has some rows, but none that the snapshot lacks, is replaced as well.
    let late: BTreeMap<SourceName, &Chosen> = plan.restored().filter(|(name, _)| !missing.contains_key(name)).collect();
    if !late.is_empty() {
        killed.extend(overlap::wait(&late, leases, handover, context)?);
        prepared.foreign.begin(late.keys(), context);
        plan = start::judge(chosen, &settings, context)?;
    }
    prepared.unsaved.clone_from(&plan.unsaved);
    let restored = plan.restore(&settings, context)?;
    prepared.foreign.accept_restored(chosen, context)?;
    (prepared.doubts, prepared.missing_periods) = (restored.failures, restored.lacks);
    prepared.doubts.extend(killed);
    Ok(prepared)
}

impl GuardOutcome {
    /// Adds the failure of the program, if it has one, and decides the exit code of the guard's own part.
    fn add_failure_of_program(&mut self, ended: Ended) {
        self.own_code = self.failures.first().map_or(0, |error| error.kind.exit_code());
        if let Some(failure) = failure_of_program(ended) {
            if self.failures.is_empty() {
                self.own_code = self.code;
            }
            self.failures.push(failure);
        }
        let others = self.failures.iter().skip(1);
        self.summary.checks.extend(others.map(|error| Check::bad("guard", error.full_message_with_hint())));
    }
}

/// Returns the failure of a program that did not start, or that ended with an error right after its start although
/// nobody had asked it to stop. The platform starts such a container again and again, and nobody may notice.
fn failure_of_program(ended: Ended) -> Option<Error> {
    if let Some(error) = ended.not_started {
        return Some(error.context("the program was not started, and no snapshot was taken at the end"));
    }
    if ended.code == 0 || ended.stopped.is_some() || ended.ran > AT_ONCE {
        return None;
    }
    let after = text::seconds(ended.ran.as_secs_f64());
    let error = Error::failed(format!("the program ended with exit code {} only {after} after its start", ended.code));
    Some(error.hint("its own output says why"))
}

/// Logs the problems at the end of the program: it did not start, or processes had to be killed.
fn log_end(ended: &Ended) {
    if let Some(error) = &ended.not_started {
        tracing::error!("{}; no snapshot is taken at the end, because nothing ran", error.full_message_with_hint());
    }
    if ended.killed {
        tracing::warn!("the program did not end before the time for the last snapshot, and was killed");
    }
    if ended.orphans.killed > 0 || !ended.orphans.left.is_empty() {
        tracing::warn!(
            "{} processes that the program left behind were killed{}",
            ended.orphans.killed,
            match ended.orphans.left.as_slice() {
                [] => String::new(),
                left => format!(", and these could not be killed: {}", left.join(", ")),
            }
        );
    }
}
