//! The wait for a lock that another program holds. A wait of more than a moment is reported, because nothing else would
//! show why a command takes so long.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ffi};

use crate::platform::disk::shown;
use crate::platform::interrupt;

/// The time to wait for a lock that another connection holds.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(30);

/// The time after which a wait is reported.
const REPORTED: Duration = Duration::from_secs(1);

/// The time after a wait that was given up in which the next one is given up at once. A command opens a database several
/// times, and must not wait for the same lock each time.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// A database that connections wait for.
struct Awaited {
    path: PathBuf,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    /// The time of the last report.
    reported: Option<Instant>,
    /// The end of the last wait that was given up.
    given_up: Option<Instant>,
}

/// Every database that this process has waited for: SQLite keeps a pointer to it.
static AWAITED: Mutex<BTreeMap<PathBuf, &'static Awaited>> = Mutex::new(BTreeMap::new());

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets a connection to the database at a path wait for locks.
pub(super) fn wait_for_locks(connection: &Connection, path: &Path) {
    let awaited = std::ptr::from_ref(of(path)).cast_mut().cast::<c_void>();
    // SAFETY: the handle is open, and what the pointer refers to exists as long as the process.
    unsafe { ffi::sqlite3_busy_handler(connection.handle(), Some(try_again), awaited) };
}

/// Reports the wait for a lock that began at this time, if it is long and was not reported yet.
pub(super) fn report(path: &Path, since: Instant) {
    of(path).report(since);
}

fn of(path: &Path) -> &'static Awaited {
    let mut all = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(path.to_owned())
        .or_insert_with(|| Box::leak(Box::new(Awaited { path: path.to_owned(), times: Mutex::default() })))
}

impl Awaited {
    fn report(&self, since: Instant) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if since.elapsed() < REPORTED || times.reported.is_some_and(|at| at.elapsed() < BUSY_WAIT) {
            return;
        }
        times.reported = Some(Instant::now());
        let seconds = BUSY_WAIT.as_secs();
        tracing::warn!("another program holds a lock on {}: waiting for it, at most {seconds} s", shown(&self.path));
    }
}

/// Called by SQLite when a lock is held, for the `count`th time in one wait. Returns 0 to give up.
unsafe extern "C" fn try_again(awaited: *mut c_void, count: c_int) -> c_int {
    // SAFETY: this is the pointer that `wait_for_locks` has passed.
    let awaited = unsafe { &*awaited.cast::<Awaited>() };
    if count == 0 {
        BEGUN.set(Some(Instant::now()));
    }
    let begun = BEGUN.get().unwrap_or_else(Instant::now);
    let given_up = awaited.times.lock().unwrap_or_else(PoisonError::into_inner).given_up;
    if given_up.is_some_and(|at| at.elapsed() < GIVEN_UP) || interrupt::check().is_err() {
        return 0;
    }
    if begun.elapsed() >= BUSY_WAIT {
        awaited.times.lock().unwrap_or_else(PoisonError::into_inner).given_up = Some(Instant::now());
        return 0;
    }
    awaited.report(begun);
    std::thread::sleep(Duration::from_millis(1 << count.clamp(0, 6)).min(PAUSE));
    1
}
