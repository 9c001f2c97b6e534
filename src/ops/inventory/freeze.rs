//! Watches databases for changes, and finds the processes that have them open.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::engine::sqlite::find::FoundDatabase;
use crate::engine::sqlite::holders::{self, Holder, Wanted};
use crate::engine::sqlite::still::{self, Watched};
use crate::platform::error::{Error, Kind, Result};

/// The time between two checks of the files.
const LOOK: Duration = Duration::from_millis(200);

/// The time between two checks of all processes.
const LOOK_FOR_HOLDERS: Duration = Duration::from_secs(2);

/// A watch over databases.
pub(super) struct Freeze {
    begun: Instant,
    watched: Vec<Option<Watched>>,
    paths: Vec<std::path::PathBuf>,
    /// The observations so far, one for each database.
    pub(super) seen: Vec<Seen>,
    /// The number of processes of other users that could not be inspected.
    pub(super) hidden: usize,
}

/// The observations of one database.
#[derive(Default)]
pub(super) struct Seen {
    /// The changes, in words; empty if nothing has changed.
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
        let mut seen: Vec<Seen> = databases.iter().map(|_| Seen::default()).collect();
        for (database, seen) in databases.iter().zip(&mut seen) {
            crate::platform::interrupt::check()?;
            // This must happen before a connection is open, because this check would drop the connection's locks.
            seen.holders.extend(holders::lockers(&database.real_path));
        }
        let mut watched = Vec::new();
        for (database, seen) in databases.iter().zip(&mut seen) {
            crate::platform::interrupt::check()?;
            watched.push(match Watched::begin(&database.real_path, &database.header) {
                Ok(watched) => Some(watched),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    seen.unwatched = Some(error);
                    None
                }
            });
        }
        let paths = databases.iter().map(|database| database.real_path.clone()).collect();
        let mut freeze = Freeze { begun: Instant::now(), watched, paths, seen, hidden: 0 };
        freeze.look_for_holders();
        Ok(freeze)
    }

    /// Watches until `time` has passed since the beginning, then compares each database.
    pub(super) fn watch(&mut self, time: Duration) -> Result<()> {
        let mut looked_for_holders = Instant::now();
        let mut stirred = vec![false; self.watched.len()];
        while let Some(left) = time.checked_sub(self.begun.elapsed()).filter(|left| !left.is_zero()) {
            crate::platform::interrupt::sleep(left.min(LOOK))?;
            let mut is_new = false;
            for (watched, stirred) in self.watched.iter().zip(&mut stirred) {
                if let Some(watched) = watched.as_ref().filter(|_| !*stirred) {
                    *stirred = !watched.looks_still();
                    is_new |= *stirred;
                }
            }
            // A process that has just written may end at any moment.
            if is_new || looked_for_holders.elapsed() >= LOOK_FOR_HOLDERS {
                self.look_for_holders();
                looked_for_holders = Instant::now();
            }
        }
        self.look_closely()
    }

    /// Compares each database with its state at the beginning.
    pub(super) fn look_closely(&mut self) -> Result<()> {
        self.look_for_holders();
        for (watched, seen) in self.watched.iter().zip(&mut self.seen) {
            crate::platform::interrupt::check()?;
            if let Some(watched) = watched {
                seen.changes = watched.changes()?;
            }
        }
        Ok(())
    }

    /// Returns true if every database could be watched and none has changed.
    pub(super) fn is_still(&self) -> bool {
        self.seen.iter().all(|seen| seen.changes.is_empty() && seen.unwatched.is_none())
    }

    /// Returns the duration of the watch so far, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn look_for_holders(&mut self) {
        let held = Wanted::of(self.paths.iter().map(|path| -> &Path { path })).look();
        self.hidden = self.hidden.max(held.hidden);
        for (number, holders) in held.holders {
            if let Some(seen) = self.seen.get_mut(number) {
                for holder in holders {
                    // A process that was known only by its lock is replaced: more is known of it now.
                    seen.holders.retain(|known| known.pid != holder.pid || known.writes);
                    if !seen.holders.iter().any(|known| known.pid == holder.pid) {
                        seen.holders.insert(holder);
                    }
                }
            }
        }
    }
}
