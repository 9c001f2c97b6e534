//! The snapshots while CMD runs: one in every interval, if something has changed. Before them, the first snapshot of a
//! source that has rows and is in no store: it begins before CMD, whose start waits for it only for a while.
//!
//! A thread of its own takes them, one at a time. They never disturb CMD: a failure is reported, and the next interval
//! tries again. When CMD has ended, [`Periodic::end`] hands the sources over for the last snapshot.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ops::guard::changes::Changes;
use crate::ops::guard::end;
use crate::ops::inspect::count;
use crate::ops::save::SnapshotReport;
use crate::ops::sources::Chosen;
use crate::ops::summary::{RunSummary, SnapshotSummary};
use crate::ops::watch::{Ending, Watch};
use crate::ops::{Context, Report as _, prune};
use crate::platform::error::{Error, Kind, Result};
use crate::platform::supervise::Supervisor;
use crate::platform::{interrupt, text};
use crate::snapshots::id::SourceName;

/// The name of these snapshots in messages.
const WHICH: &str = "the snapshot while the program runs";

/// The name of the snapshot before the program starts.
const FIRST: &str = "the first snapshot";

/// The interval at which the wait for the first snapshot checks whether a signal asked to stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The times of the snapshots.
pub(super) struct Schedule {
    /// The interval while CMD runs; `None` takes none.
    pub(super) every: Option<Duration>,
    /// The sources that have rows, and are in no store.
    pub(super) first: BTreeSet<SourceName>,
    /// The longest time that CMD's start waits for the snapshot of these.
    pub(super) first_wait: Duration,
}

/// The snapshots of a running program.
pub(super) struct Periodic {
    work: Arc<Work>,
    /// The thread ends when this is dropped.
    _stop: Sender<()>,
}

/// The state that both threads use.
struct Work {
    /// Locked during each snapshot. `None` after the sources were handed over.
    changes: Mutex<Option<Changes>>,
    /// The time that the newest whole snapshot took, in milliseconds; 0 before the first one.
    took_ms: AtomicU64,
    /// The first snapshots of sources that were in no store.
    first: Mutex<Vec<SnapshotSummary>>,
}

impl Periodic {
    /// Begins to take snapshots, and waits a while for the first ones. Fails only after a signal.
    pub(super) fn begin(
        changes: Changes,
        schedule: Schedule,
        watch: Option<Watch>,
        context: &Arc<Context>,
    ) -> Result<Self> {
        let there = changes.sources().iter().filter(|chosen| !chosen.source.is_absent()).map(Chosen::name);
        let seen = there.collect::<Result<BTreeSet<SourceName>>>()?;
        let work =
            Arc::new(Work { changes: Mutex::new(Some(changes)), took_ms: AtomicU64::new(0), first: Mutex::default() });
        let (stop, stopped) = channel();
        let Schedule { every, first, first_wait } = schedule;
        if every.is_none() && first.is_empty() {
            return Ok(Periodic { work, _stop: stop });
        }
        let (thread_work, context) = (Arc::clone(&work), Arc::clone(context));
        let mut worker = Worker { work: thread_work, seen, awaited: BTreeSet::new(), watch, context, fails: false };
        let (done, first_done) = channel::<()>();
        let has_first = !first.is_empty();
        let thread = thread::Builder::new()
            .name("snapshots".to_owned())
            .spawn(move || {
                if has_first {
                    let taken = worker.run(FIRST, |name| first.contains(name));
                    *worker.work.first.lock().unwrap_or_else(PoisonError::into_inner) = taken;
                }
                drop(done);
                if let Some(every) = every {
                    worker.repeat(every, &stopped);
                }
            })
            .map_err(|error| Error::failed("cannot start a thread for snapshots").because(error))?;
        if has_first && let Err(error) = wait_for(&first_done, first_wait) {
            // It must leave nothing incomplete.
            drop(stop);
            let _ = thread.join();
            return Err(error);
        }
        Ok(Periodic { work, _stop: stop })
    }

    /// Returns the first snapshots of sources that were in no store, as far as they were taken.
    pub(super) fn first_snapshots(&self) -> Vec<SnapshotSummary> {
        std::mem::take(&mut *self.work.first.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the snapshots, and returns the sources for the last one. `left` is the rest of the grace period, if that has
    /// begun. A snapshot in progress is stopped, because the last one has newer rows. Only if the time that is left is
    /// too short for a whole one, it may end.
    pub(super) fn end(self, left: Option<Duration>, signals: &Supervisor) -> Option<Changes> {
        match self.work.changes.try_lock() {
            Ok(mut changes) => return changes.take(),
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => {}
        }
        let took = Duration::from_millis(self.work.took_ms.load(Ordering::Relaxed));
        let take = || self.work.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        if left.is_some_and(|left| left < took) {
            let took = text::seconds(took.as_secs_f64());
            tracing::info!("a snapshot is in progress and is finished first: a new one would need about {took}");
            return take();
        }
        tracing::info!("a snapshot is in progress and is stopped: the last one has newer rows");
        let mut changes = None;
        signals.stop_work(|| changes = take());
        changes
    }
}

/// Waits until the first snapshot was taken, or has failed, or until the time is over. Fails after a signal.
fn wait_for(first_done: &Receiver<()>, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        interrupt::check()?;
        let left = end.saturating_duration_since(Instant::now());
        match first_done.recv_timeout(left.min(CHECK_INTERVAL)) {
            Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                let time = text::seconds(time.as_secs_f64());
                tracing::warn!("{FIRST} takes longer than {time}: the program is started meanwhile");
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// The thread that takes the snapshots.
struct Worker {
    work: Arc<Work>,
    /// The sources that have existed. One that does not exist yet is not missed.
    seen: BTreeSet<SourceName>,
    /// The sources that were said not to exist yet.
    awaited: BTreeSet<SourceName>,
    watch: Option<Watch>,
    context: Arc<Context>,
    /// True if the previous attempt has failed.
    fails: bool,
}

impl Worker {
    /// Takes snapshots in every interval until `stopped` is closed.
    fn repeat(&mut self, every: Duration, stopped: &Receiver<()>) {
        let mut next = Instant::now() + every;
        while stopped.recv_timeout(next.saturating_duration_since(Instant::now())) == Err(RecvTimeoutError::Timeout) {
            let _ = self.run(WHICH, |_| true);
            next += every;
            // If a snapshot takes longer than the interval, the database rests for one before the next.
            if next <= Instant::now() {
                tracing::info!("{WHICH} took longer than the interval between two");
                next = Instant::now() + every;
            }
        }
    }

    /// Takes one snapshot of each chosen source that has changed, and reports a failure. `which` names it in messages.
    /// Returns the snapshots.
    fn run(&mut self, which: &str, is_chosen: impl Fn(&SourceName) -> bool) -> Vec<SnapshotSummary> {
        let work = Arc::clone(&self.work);
        let mut changes = work.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changes_of_sources) = changes.as_mut() else { return Vec::new() };
        let clock = Instant::now();
        self.note_new(changes_of_sources.sources());
        let seen = &self.seen;
        let is_due = |chosen: &Chosen| chosen.name().is_ok_and(|name| seen.contains(&name) && is_chosen(&name));
        let (summary, failures) = match changes_of_sources.save(is_due, &self.context) {
            Ok(mut taken) => {
                end::log(which, &taken, changes_of_sources.sources().iter().filter(|chosen| is_due(chosen)));
                self.prune(which, &mut taken);
                if !taken.snapshots.is_empty() && taken.failures.is_empty() {
                    let took_ms = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
                    work.took_ms.store(took_ms, Ordering::Relaxed);
                }
                (taken.summary(), taken.failures)
            }
            Err(error) => (RunSummary::default(), vec![error]),
        };
        // The last snapshot must not wait for a webhook.
        drop(changes);
        self.report(which, &summary, &failures);
        summary.snapshots
    }

    /// Notes the sources that exist now for the first time.
    fn note_new(&mut self, sources: &[Chosen]) {
        for chosen in sources {
            let Ok(name) = chosen.name() else { continue };
            if self.seen.contains(&name) {
                continue;
            }
            match count(&chosen.source, &self.context.scratch) {
                Ok(counts) if counts.as_ref().is_none_or(|counts| counts.number_of_tables() == 0) => {
                    if self.awaited.insert(name.clone()) {
                        tracing::info!("{name} does not exist yet");
                    }
                }
                // The save reports why it cannot be read.
                _ => drop(self.seen.insert(name)),
            }
        }
    }

    /// Prunes as `snapshot` does, if the config asks for that and something was stored.
    fn prune(&self, which: &str, taken: &mut SnapshotReport) {
        if taken.snapshots.is_empty() || !taken.failures.is_empty() {
            return;
        }
        let pruned = self.context.prunes_after_snapshot().and_then(|prunes| {
            let sources: Vec<SourceName> = taken.snapshots.iter().map(|saved| saved.manifest.source.clone()).collect();
            if prunes {
                prune::after_snapshot(&sources, &self.context).map(|(_, failures)| failures)
            } else {
                Ok(Vec::new())
            }
        });
        for error in pruned.unwrap_or_else(|error| vec![error]) {
            if error.kind != Kind::Interrupted {
                let error = error.context("the snapshots were made, but a store was not pruned");
                tracing::error!("{which}: {}", error.full_message_with_hint());
                taken.failures.push(error);
            }
        }
    }

    /// Sends a notice of a failure, and of the first success after one. Every attempt is in the metrics.
    fn report(&mut self, which: &str, summary: &RunSummary, failures: &[Error]) {
        let error = failures.first();
        // The end of CMD has stopped it. The last snapshot follows.
        if error.is_some_and(|error| error.kind == Kind::Interrupted) {
            return;
        }
        let did_fail = std::mem::replace(&mut self.fails, error.is_some());
        if did_fail && error.is_none() {
            tracing::info!("{which} works again");
        }
        let Some(watch) = &self.watch else { return };
        let ending = Ending { code: error.map_or(0, |error| error.kind.exit_code()), error, summary };
        match did_fail || error.is_some() {
            true => watch.report_part(&ending),
            false => watch.write_metrics(&ending),
        }
    }
}
