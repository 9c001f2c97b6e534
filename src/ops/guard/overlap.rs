//! Two containers at once: a rolling deploy starts the new one before it stops the old one.
//!
//! If the database must be restored, and another guard of the same source is at work, the newest rows are not in the
//! store yet. So the new guard waits for the last snapshot of the other. A guard that finds its database does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use crate::config::OnOverlap;
use crate::ops::Context;
use crate::ops::guard::lease::Leases;
use crate::ops::guard::others::{Status, described, file_mark, own_process};
use crate::ops::inspect::count;
use crate::ops::sources::Chosen;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::{interrupt, text};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::guard_leases::{FoundLease, GuardState, ProcessMark};
use crate::snapshots::id::SourceName;

/// The pause between two inspections of the leases in a folder, and in a remote store.
const LOCAL_PAUSE: Duration = Duration::from_millis(200);
const REMOTE_PAUSE: Duration = Duration::from_secs(2);
/// The size from which a database file is taken to have rows.
const MOST_BYTES_COUNTED: u64 = 64 << 20;
/// The longest time to wait for the first lease of this guard. A store that is slower is read without it.
const LONGEST_WRITE: Duration = Duration::from_secs(30);

/// The settings for two guards at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handover {
    /// The maximum time to wait for the last snapshots of other guards.
    pub(super) time: Duration,
    /// The end of this time, which is the same for all sources.
    pub(super) end: Instant,
    /// The decision after that.
    pub(super) on_overlap: OnOverlap,
}

/// Returns the sources whose databases are missing or empty.
pub(super) fn missing<'a>(chosen: &'a [Chosen], context: &Context) -> Result<BTreeMap<SourceName, &'a Chosen>> {
    let missing = chosen.iter().filter(|chosen| is_missing(chosen, context));
    missing.map(|chosen| Ok((chosen.name()?, chosen))).collect()
}

/// Waits until no other guard is at work with one of these sources, whose databases must be restored. Returns failures
/// for the guards that have ended without a last snapshot, so that rows are perhaps lost. Fails if another guard is still at work at the end of the time, unless the config says to start anyway.
pub(super) fn wait(
    sources: &BTreeMap<SourceName, &Chosen>,
    leases: &Leases,
    handover: Handover,
    context: &Context,
) -> Result<Vec<Error>> {
    let mut failures = Vec::new();
    // Only a guard whose own lease is in the store can be seen by one that starts at the same time.
    if !sources.is_empty() && !leases.wait_for_first(LONGEST_WRITE) {
        tracing::debug!("a store has not taken the lease yet");
    }
    for (name, chosen) in sources {
        let was_missing = is_missing(chosen, context);
        let wait = Wait { name, chosen, was_missing, leases, handover, own: own_process() };
        failures.extend(wait.run(context)?);
    }
    Ok(failures)
}

/// Returns true if a database is missing or has no rows. One that cannot be read is handled elsewhere.
fn is_missing(chosen: &Chosen, context: &Context) -> bool {
    // The rows of a large file are not counted, and those of a server are the same for both guards.
    let bytes = chosen.source.file().and_then(|path| std::fs::metadata(path).ok()).map(|facts| facts.len());
    match bytes {
        Some(bytes) if bytes <= MOST_BYTES_COUNTED => {
            let counts = count(&chosen.source, &context.scratch);
            counts.is_ok_and(|counts| counts.is_none_or(|counts| counts.is_without_rows()))
        }
        _ => chosen.source.is_absent(),
    }
}

/// The wait for one source.
struct Wait<'a> {
    name: &'a SourceName,
    chosen: &'a Chosen,
    /// True if the database was missing or empty before the wait.
    was_missing: bool,
    leases: &'a Leases,
    handover: Handover,
    own: ProcessMark,
}

/// The other guards of a source, as all stores show them.
#[derive(Default)]
struct View {
    /// The guards that go first: each with its description, and true if it takes its last snapshot.
    at_work: BTreeMap<String, (String, bool)>,
    /// True if another guard has not decided yet which of the two goes first.
    is_undecided: bool,
    /// The guards that have ended without saving all, and their descriptions.
    unsaved: BTreeMap<String, String>,
}

impl Wait<'_> {
    fn run(&self, context: &Context) -> Result<Vec<Error>> {
        let catalogs: Vec<Catalog> = context.stores.iter().filter_map(|store| context.open(store).ok()).collect();
        let pause = if catalogs.iter().all(Catalog::is_local) { LOCAL_PAUSE } else { REMOTE_PAUSE };
        let mut clocks: Vec<Option<(SystemTime, Instant)>> = vec![None; catalogs.len()];
        let (mut said, mut said_ending) = (false, false);
        loop {
            let view = self.view(&catalogs, &mut clocks)?;
            if view.at_work.is_empty() && !view.is_undecided {
                return Ok(self.unsaved(&view));
            }
            let others: Vec<String> = view.at_work.values().map(|(other, _)| other.clone()).collect();
            let others = others.join(" and ");
            if !others.is_empty() && !std::mem::replace(&mut said, true) {
                self.leases.set(GuardState::Waiting);
                let time = text::seconds(self.handover.time.as_secs_f64());
                tracing::info!(
                    "another guard of {} is still running {others}, and has rows that no store has: waiting up to {time} \
                     for its last snapshot",
                    self.name
                );
            }
            if view.at_work.values().any(|(_, is_ending)| *is_ending) && !std::mem::replace(&mut said_ending, true) {
                tracing::info!("the other guard of {} takes its last snapshot", self.name);
            }
            let left = self.handover.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.decide(&others)?;
                return Ok(self.unsaved(&view));
            }
            interrupt::sleep(pause.min(left))?;
            if self.was_missing && !is_missing(self.chosen, context) {
                tracing::info!("the database of {} is there now: another guard has restored or created it", self.name);
                return Ok(Vec::new());
            }
        }
    }

    /// Decides at the end of the time.
    fn decide(&self, others: &str) -> Result<()> {
        let (name, time) = (self.name, text::seconds(self.handover.time.as_secs_f64()));
        let others = if others.is_empty() { "that starts at the same time" } else { others };
        match self.handover.on_overlap {
            OnOverlap::Refuse => Err(Error::problem(format!(
                "the program was not started: another guard of {name} is still running {others}, and its last snapshot \
                 did not come within {time}"
            ))
            .hint(
                "stop the old container before the new one starts (a platform that does it the other way round loses \
                 what the old one writes meanwhile), keep the database on a volume, or accept the loss with on_overlap \
                 = \"start\" under [guard]; handover sets the time to wait",
            )),
            OnOverlap::Start => {
                tracing::warn!(
                    "another guard of {name} is still running {others}, and its last snapshot did not come within \
                     {time}: starting with the newest snapshot; what the other program writes is not in this database"
                );
                Ok(())
            }
        }
    }

    /// Returns a failure for each guard that has ended without its last snapshot.
    fn unsaved(&self, view: &View) -> Vec<Error> {
        let failure = |other: &String| {
            Error::problem(format!(
                "the guard of {} that ran {other} has ended without its last snapshot: what its program wrote after the \
                 newest snapshot is lost",
                self.name
            ))
            .hint("every in [guard], or --every, also takes snapshots while the program runs")
        };
        let failures: Vec<Error> = view.unsaved.values().map(failure).collect();
        failures.iter().for_each(|failure| tracing::warn!("{}", failure.full_message_with_hint()));
        failures
    }

    /// Reads the leases in all stores. One that cannot be read is left out: the restore reports it.
    /// `clocks` has a time of each store's clock, and the time at which it was seen.
    fn view(&self, catalogs: &[Catalog], clocks: &mut [Option<(SystemTime, Instant)>]) -> Result<View> {
        let (mut view, mut known) = (View::default(), BTreeSet::new());
        for (catalog, clock) in catalogs.iter().zip(clocks) {
            let found = match catalog.guard_leases(self.name) {
                Ok(found) => found,
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    tracing::info!("the leases of {} cannot be read: {}", self.name, error.full_message());
                    continue;
                }
            };
            let own = found.iter().find(|found| found.id == self.leases.id);
            let now = match *clock {
                Some((time, seen)) => time + seen.elapsed(),
                // Our own lease has just been written when it is seen first.
                None => own.map_or_else(SystemTime::now, |own| clock.insert((own.renewed, Instant::now())).0),
            };
            for other in found.iter().filter(|found| found.id != self.leases.id) {
                // Two guards may have begun in another order in another store.
                if known.insert(other.id.clone()) {
                    self.add(&mut view, other, own, Status::of(other, now, &self.own));
                }
            }
        }
        Ok(view)
    }

    fn add(&self, view: &mut View, other: &FoundLease, own: Option<&FoundLease>, status: Status) {
        // The rows of the other are in the same file, as on a volume that both have.
        let shares = other.lease.as_ref().ok().and_then(|lease| lease.file.as_ref());
        if shares.is_some() && self.chosen.source.file().and_then(file_mark).as_ref() == shares {
            return;
        }
        let is_earlier = own.is_none_or(|own| other.order() < own.order());
        let mut at_work = |is_ending| drop(view.at_work.insert(other.id.clone(), (described(other), is_ending)));
        match status {
            Status::AtWork(GuardState::Running) => at_work(false),
            Status::AtWork(GuardState::Ending) => at_work(true),
            Status::AtWork(GuardState::Starting | GuardState::Waiting) if is_earlier => at_work(false),
            // It may have inspected the leases before ours was written.
            Status::AtWork(GuardState::Starting) => view.is_undecided = true,
            // It waits, and we go first.
            Status::AtWork(GuardState::Waiting | GuardState::Unsaved) => {}
            Status::Unsaved | Status::Killed => {
                // A guard that only waited had no data.
                let had_data = |state| matches!(state, GuardState::Running | GuardState::Ending | GuardState::Unsaved);
                if other.lease.as_ref().map_or(true, |lease| had_data(lease.state)) {
                    view.unsaved.insert(other.id.clone(), described(other));
                }
            }
        }
    }
}
