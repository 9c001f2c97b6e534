//! Runs tasks on several sessions at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::engine::postgres::wire::session::Session;
use crate::platform::error::{Error, Kind as ErrorKind, Result};

/// Returns the first session.
pub(super) fn first(sessions: &mut [Session]) -> Result<&mut Session> {
    sessions.first_mut().ok_or_else(|| Error::failed("no database session is left"))
}

/// Runs tasks on several sessions. The first failure stops all of them and is returned.
pub(super) fn run_in_parallel<T: Send, S>(
    sessions: Vec<Session>,
    tasks: VecDeque<T>,
    stop: &AtomicBool,
    work: impl Fn(&mut Session, T, &mut Option<S>) -> Result<()> + Sync,
) -> Result<Vec<Session>> {
    let tasks = Mutex::new(tasks);
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let run = |mut session: Session| -> Result<Session> {
        let mut state = None;
        while let Some(task) = next().filter(|_| !stop.load(Ordering::Relaxed)) {
            work(&mut session, task, &mut state).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        }
        Ok(session)
    };
    let results: Vec<Result<Session>> = thread::scope(|scope| {
        let threads: Vec<_> = sessions.into_iter().map(|session| scope.spawn(|| run(session))).collect();
        let panicked = || Err(Error::failed("a worker thread has panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    let mut sessions = Vec::new();
    let mut failed: Option<Error> = None;
    for result in results {
        match result {
            Ok(session) => sessions.push(session),
            // A worker that stopped only because another one failed is not the cause.
            Err(error) if failed.as_ref().is_none_or(|first| first.kind == ErrorKind::Interrupted) => {
                failed = Some(error)
            }
            Err(_) => {}
        }
    }
    failed.map_or(Ok(sessions), Err)
}
