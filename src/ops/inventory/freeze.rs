//! Watches databases for changes, and finds the processes that have them open.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::sqlite::find::FoundDatabase;
use crate::engine::sqlite::holders::{self, Holder, Wanted};
use crate::engine::sqlite::still::{self, Watched};
use crate::platform::error::{Error, Kind, Result};

/// The time between two checks of the files.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// The time between two checks of all processes.
const HOLDERS_INTERVAL: Duration = Duration::from_secs(2);

/// A watch over databases.
pub(super) struct Freeze {
    started: Instant,
    watched: Vec<Option<Watched>>,
    paths: Vec<std::path::PathBuf>,
    /// The observations so far, one for each database.
    pub(super) observations: Vec<Observation>,
    /// The number of processes of other users that could not be inspected.
    pub(super) hidden: usize,
}

/// The observations of one database.
#[derive(Default)]
pub(super) struct Observation {
    /// Descriptions of the changes; empty if nothing has changed.
    pub(super) changes: Vec<String>,
    /// The processes that had it open at some time.
    pub(super) holders: BTreeSet<Holder>,
    /// The reason why it could not be watched.
    pub(super) unwatched: Option<Error>,
}

impl Freeze {
    /// Begins to watch. This process must not have any of the databases open.
    pub(super) fn begin(databases: &[FoundDatabase]) -> Result<Self> {
        still::require_files(databases.len())?;
        let mut observations: Vec<Observation> = databases.iter().map(|_| Observation::default()).collect();
        for (database, observation) in databases.iter().zip(&mut observations) {
            crate::platform::interrupt::check()?;
            // This must happen before a connection is open, because this check would drop the connection's locks.
            observation.holders.extend(holders::lock_holders(&database.real_path));
        }
        let mut watched = Vec::new();
        for (database, observation) in databases.iter().zip(&mut observations) {
            crate::platform::interrupt::check()?;
            watched.push(match Watched::begin(&database.real_path) {
                Ok(watched) => Some(watched),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    observation.unwatched = Some(error);
                    None
                }
            });
        }
        let paths = databases.iter().map(|database| database.real_path.clone()).collect();
        let mut freeze = Freeze { started: Instant::now(), watched, paths, observations, hidden: 0 };
        freeze.update_holders();
        Ok(freeze)
    }

    /// Watches until `time` has passed since the beginning, then compares each database.
    pub(super) fn watch(&mut self, time: Duration) -> Result<()> {
        let mut holders_updated = Instant::now();
        let mut changed = vec![false; self.watched.len()];
        while let Some(left) = time.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero()) {
            crate::platform::interrupt::sleep(left.min(CHECK_INTERVAL))?;
            let mut is_new = false;
            for (watched, changed) in self.watched.iter().zip(&mut changed) {
                if let Some(watched) = watched.as_ref().filter(|_| !*changed) {
                    *changed = !watched.has_same_metadata();
                    is_new |= *changed;
                }
            }
            // A process that has just written may end at any moment.
            if is_new || holders_updated.elapsed() >= HOLDERS_INTERVAL {
                self.update_holders();
                holders_updated = Instant::now();
            }
        }
        self.compare()
    }

    /// Compares each database with its state at the beginning.
    pub(super) fn compare(&mut self) -> Result<()> {
        self.update_holders();
        for (watched, observation) in self.watched.iter().zip(&mut self.observations) {
            crate::platform::interrupt::check()?;
            if let Some(watched) = watched {
                observation.changes = watched.changes()?;
            }
        }
        Ok(())
    }

    /// Returns true if every database could be watched and none has changed.
    pub(super) fn is_unchanged(&self) -> bool {
        self.observations.iter().all(|observation| observation.changes.is_empty() && observation.unwatched.is_none())
    }

    /// Returns the duration of the watch so far, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    fn update_holders(&mut self) {
        let held = Wanted::of(self.paths.iter().map(|path| -> &Path { path })).search();
        self.hidden = self.hidden.max(held.hidden);
        for (number, holders) in held.holders {
            if let Some(observation) = self.observations.get_mut(number) {
                for holder in holders {
                    // A process that was known only by its lock is replaced, because more is known about it now.
                    observation.holders.retain(|known| known.pid != holder.pid || known.writes);
                    if !observation.holders.iter().any(|known| known.pid == holder.pid) {
                        observation.holders.insert(holder);
                    }
                }
            }
        }
    }
}
