//! Runs jobs on several threads and returns their results in the order of the jobs.
//!
//! Buffers are reused: memory is a fixed number of input buffers and of output buffers, however slow one job may be.
//! If one side (feeder, workers, receiver) goes away, the others end: no thread waits forever. A worker that panics
//! ends the results, so the receiver must compare the number of results with the number of jobs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::platform::error::{Error, Result};

type Queue<T> = Arc<Mutex<Receiver<T>>>;

/// The sending side of a pipeline. It accepts jobs.
pub(super) struct Feeder<J> {
    jobs: SyncSender<(u64, J, Vec<u8>)>,
    empty: Receiver<Vec<u8>>,
    count: u64,
}

impl<J> Feeder<J> {
    /// Waits for a buffer for the next job's input; it may hold old content. Returns `None` if the other side is gone.
    pub(super) fn buffer(&self) -> Option<Vec<u8>> {
        self.empty.recv().ok()
    }

    /// Sends a job. Returns false if the other side is gone.
    #[must_use]
    pub(super) fn send(&mut self, job: J, input: Vec<u8>) -> bool {
        let sent = self.jobs.send((self.count, job, input)).is_ok();
        self.count += 1;
        sent
    }

    /// Returns the number of jobs sent.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

/// A job's number, result and output; `None` from a worker that panicked.
type Done<R> = Option<(u64, R, Vec<u8>)>;

/// The receiving side of a pipeline. It returns results in the order of the jobs.
pub(super) struct Ordered<R> {
    done: Receiver<Done<R>>,
    early: BTreeMap<u64, (R, Vec<u8>)>,
    next: u64,
    spent: Sender<Vec<u8>>,
}

impl<R> Ordered<R> {
    /// Waits for the next result and its output. Returns `None` if there are no more results.
    pub(super) fn next(&mut self) -> Option<(R, Vec<u8>)> {
        loop {
            if let Some(result) = self.early.remove(&self.next) {
                self.next += 1;
                return Some(result);
            }
            let (number, result, output) = self.done.recv().ok()??;
            self.early.insert(number, (result, output));
        }
    }

    /// Returns an output buffer to the workers. The pipeline stops if buffers are not returned.
    pub(super) fn recycle(&self, output: Vec<u8>) {
        // A failure only means that all workers have ended.
        let _ = self.spent.send(output);
    }
}

/// Starts `jobs` threads. Each has its own worker, which turns a job and its input into a result and its output.
pub(super) fn start<J, R, W>(jobs: usize, name: &str, worker: impl Fn() -> Result<W>) -> Result<(Feeder<J>, Ordered<R>)>
where
    J: Send + 'static,
    R: Send + 'static,
    W: FnMut(J, &[u8], &mut Vec<u8>) -> R + Send + 'static,
{
    let jobs = jobs.max(1);
    let buffers = jobs + 2;
    let (job_sender, job_queue) = sync_channel(buffers);
    let (done_sender, done) = channel();
    let (empty_sender, empty) = channel();
    let (spent, spent_queue) = channel();
    for _ in 0..buffers {
        empty_sender.send(Vec::new()).expect("the receiver is in scope");
        spent.send(Vec::new()).expect("the receiver is in scope");
    }
    let job_queue: Queue<(u64, J, Vec<u8>)> = Arc::new(Mutex::new(job_queue));
    let spent_queue: Queue<Vec<u8>> = Arc::new(Mutex::new(spent_queue));
    for _ in 0..jobs {
        let (jobs, spent, done, empty) =
            (Arc::clone(&job_queue), Arc::clone(&spent_queue), done_sender.clone(), empty_sender.clone());
        let mut work = worker()?;
        let run = move || {
            // Take the output buffer before the job, so that the oldest job always has one and completes.
            while let Some(mut output) = receive(&spent) {
                let Some((number, job, input)) = receive(&jobs) else { return };
                let Ok(result) = catch_unwind(AssertUnwindSafe(|| work(job, &input, &mut output))) else {
                    let _ = done.send(None);
                    return;
                };
                let _ = empty.send(input);
                if done.send(Some((number, result, output))).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        thread.map_err(|error| Error::failed("cannot start a thread").because(error))?;
    }
    Ok((Feeder { jobs: job_sender, empty, count: 0 }, Ordered { done, early: BTreeMap::new(), next: 0, spent }))
}

fn receive<T>(queue: &Queue<T>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_jobs() {
        let worker = || {
            Ok(|job: u64, input: &[u8], output: &mut Vec<u8>| {
                if job.is_multiple_of(7) {
                    thread::yield_now();
                }
                output.clear();
                output.extend(input.iter().rev());
                job * 2
            })
        };
        let (mut feeder, mut ordered) = start(4, "test", worker).expect("starts");
        let feed = thread::spawn(move || {
            for job in 0..1000u64 {
                let mut buffer = feeder.buffer().expect("workers live");
                buffer.clear();
                buffer.extend(job.to_le_bytes());
                assert!(feeder.send(job, buffer));
            }
            feeder.count()
        });
        let mut expected = 0u64;
        while let Some((result, output)) = ordered.next() {
            assert_eq!(result, expected * 2);
            assert_eq!(output, expected.to_be_bytes());
            ordered.recycle(output);
            expected += 1;
        }
        assert_eq!(feed.join().ok(), Some(expected));
    }

    #[test]
    fn a_panic_of_a_worker_ends_the_results() {
        let worker = || {
            Ok(|job: u64, _: &[u8], _: &mut Vec<u8>| {
                assert!(job != 5, "a panic on purpose");
                job
            })
        };
        let (mut feeder, mut ordered) = start(2, "test", worker).expect("starts");
        let feed = thread::spawn(move || {
            for job in 0..100u64 {
                let Some(buffer) = feeder.buffer() else { break };
                if !feeder.send(job, buffer) {
                    break;
                }
            }
        });
        let mut count = 0;
        while let Some((_, output)) = ordered.next() {
            ordered.recycle(output);
            count += 1;
        }
        drop(ordered);
        assert!(count <= 5, "{count}");
        feed.join().expect("the feeder ends too");
    }

    #[test]
    fn a_dropped_side_ends_the_other_side() {
        let worker = || Ok(|(): (), _: &[u8], _: &mut Vec<u8>| ());
        let (mut feeder, ordered) = start(2, "test", worker).expect("starts");
        drop(ordered);
        while let Some(buffer) = feeder.buffer() {
            if !feeder.send((), buffer) {
                break;
            }
        }
        let (feeder, mut ordered) = start::<(), (), _>(2, "test", worker).expect("starts");
        drop(feeder);
        assert!(ordered.next().is_none());
    }
}
