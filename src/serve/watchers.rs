//! Watching: one thread for each source and store inspects it repeatedly, and keeps the result for the answers.
//!
//! If an inspection hangs, its source or store counts as not answering. Other inspections and the answers go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::ops::Context;
use crate::ops::sources::Chosen;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::{interrupt, text};
use crate::serve::status::history::{History, StoreContents};
use crate::serve::status::{OverallStatus, Reading, SourceInspection, assemble, inspect_source, min_free_bytes};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Manifest;
use crate::store::StoreUrl;

/// The pause after an inspection, as a multiple of its duration. Inspections take at most a tenth of the time, unless
/// [`MAX_PAUSE`] shortens the pause.
const PAUSE_FACTOR: u32 = 9;
/// The longest such pause.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);
/// The time between two complete listings of a store.
const FULL_LIST_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The number of manifests that are read before the result so far is shown.
const READ_AT_ONCE: usize = 200;

/// The last inspection of one source or store.
struct Watcher<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    last: Option<Arc<T>>,
    at: Option<DateTime<Utc>>,
    seconds: f64,
    begun: Option<Instant>,
}

impl<T> Watcher<T> {
    fn new() -> Arc<Self> {
        Arc::new(Watcher { state: Mutex::new(State { last: None, at: None, seconds: 0.0, begun: None }) })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.state().begun = Some(Instant::now());
    }

    /// Publishes a result. `continues` is true if the inspection is not over yet.
    fn publish(&self, result: T, continues: bool) {
        let mut state = self.state();
        state.last = Some(Arc::new(result));
        state.at = Some(Utc::now());
        state.seconds = state.begun.map(|begun| begun.elapsed().as_secs_f64()).unwrap_or_default();
        state.begun = continues.then(Instant::now);
    }

    /// Withdraws the beginning of an inspection.
    fn cancel(&self) {
        self.state().begun = None;
    }

    fn is_inspecting(&self) -> bool {
        self.state().begun.is_some()
    }

    fn last(&self) -> Option<Arc<T>> {
        self.state().last.clone()
    }

    fn read(&self, timeout: Duration) -> Reading<T> {
        let state = self.state();
        let late = state.begun.map(|begun| begun.elapsed()).filter(|elapsed| *elapsed > timeout);
        Reading { last: state.last.clone(), at: state.at, seconds: state.seconds, late }
    }
}

struct WatchedSource {
    chosen: Chosen,
    watcher: Arc<Watcher<SourceInspection>>,
}

struct WatchedStore {
    location: String,
    watcher: Arc<Watcher<StoreContents>>,
}

/// Everything that is watched.
pub(super) struct Watchers {
    sources: Vec<WatchedSource>,
    /// The number of pauses that hold back the inspections of sources.
    pauses: Arc<AtomicUsize>,
    stores: Arc<Vec<WatchedStore>>,
    timeout: Duration,
}

impl Watchers {
    /// Starts to watch the config's sources and the stores.
    pub(super) fn start(context: &Arc<Context>, every: Duration, timeout: Duration) -> Result<Watchers> {
        let chosen = context.sources(&[])?;
        let names: Vec<SourceName> = chosen.iter().map(Chosen::name).collect::<Result<_>>()?;
        let min_free_bytes = min_free_bytes(context)?;
        let stores = context.all_stores()?.iter().map(|store| (store.clone(), Watcher::new()));
        let stores: Vec<(StoreUrl, Arc<Watcher<StoreContents>>)> = stores.collect();
        let watched = |(store, watcher): &(StoreUrl, Arc<Watcher<StoreContents>>)| WatchedStore {
            location: one_line(&store.to_string()),
            watcher: Arc::clone(watcher),
        };
        let watched = stores.iter().map(watched).collect();
        let watchers = Watchers {
            sources: chosen.into_iter().map(|chosen| WatchedSource { chosen, watcher: Watcher::new() }).collect(),
            pauses: Arc::default(),
            stores: Arc::new(watched),
            timeout,
        };
        for (store, watcher) in stores {
            let (context, names) = (Arc::clone(context), names.clone());
            spawn("store", move || watch_store(&store, &names, &watcher, every, &context))?;
        }
        for (source, name) in watchers.sources.iter().zip(names) {
            let (chosen, watcher) = (source.chosen.clone(), Arc::clone(&source.watcher));
            let (stores, scratch) = (Arc::clone(&watchers.stores), context.scratch.clone());
            let pauses = Arc::clone(&watchers.pauses);
            spawn("source", move || {
                // Losses since the newest snapshot can only be found once that snapshot is known.
                if await_stores(&stores, timeout).is_err() {
                    return;
                }
                let inspect = || inspect_source(&chosen, baseline(&stores, &name).as_deref(), min_free_bytes, &scratch);
                repeat(&watcher, every, &pauses, inspect, SourceInspection::failed);
            })?;
        }
        Ok(watchers)
    }

    /// Returns the current status of everything, from the last inspections.
    pub(super) fn status(&self, context: &Context) -> Result<OverallStatus> {
        let sources = self.sources.iter().map(|source| (&source.chosen, source.watcher.read(self.timeout)));
        let stores = self.stores.iter().map(|store| (store.location.clone(), store.watcher.read(self.timeout)));
        assemble(sources.collect(), stores.collect(), context)
    }

    /// Holds back new inspections of all sources, and waits until none of these sources is inspected; without names, none
    /// of all. A restore searches for programs that hold a file open, which would drop the locks of an inspection in this
    /// process. Fails if an inspection has not ended within the timeout.
    pub(super) fn pause(&self, names: &[String]) -> Result<Pause> {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        let pause = Pause(Arc::clone(&self.pauses));
        let begun = Instant::now();
        for source in &self.sources {
            let name = source.chosen.name()?;
            let is_wanted = names.is_empty() || names.iter().any(|wanted| wanted == name.as_str());
            // A server does not mind an inspection.
            if !is_wanted || source.chosen.source.file().is_none() {
                continue;
            }
            while source.watcher.is_inspecting() {
                if begun.elapsed() >= self.timeout {
                    let seconds = text::seconds(self.timeout.as_secs_f64());
                    return Err(Error::unreachable(format!("an inspection of {name} has not ended within {seconds}"))
                        .hint("check what holds it up on the status page, and try again"));
                }
                interrupt::sleep(Duration::from_millis(10))?;
            }
        }
        Ok(pause)
    }

    /// Returns the names of the sources.
    pub(super) fn names(&self) -> Result<Vec<SourceName>> {
        self.sources.iter().map(|source| source.chosen.name()).collect()
    }
}

/// A pause of the inspections, until it is dropped.
pub(super) struct Pause(Arc<AtomicUsize>);

impl Drop for Pause {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Error::failed("cannot start a thread").because(error))
}

/// Inspects repeatedly until a signal asks to stop. If an inspection fails or panics, the result of `failed` is
/// published, so that the previous result does not count as current.
fn repeat<T>(
    watcher: &Watcher<T>,
    every: Duration,
    pauses: &AtomicUsize,
    mut inspect: impl FnMut() -> Result<T>,
    failed: impl Fn(String) -> T,
) {
    loop {
        let begun = Instant::now();
        watcher.begin();
        // A pause that begins later waits for this inspection.
        while pauses.load(Ordering::SeqCst) > 0 {
            watcher.cancel();
            if interrupt::sleep(Duration::from_millis(20)).is_err() {
                return;
            }
            watcher.begin();
        }
        let result = catch_unwind(AssertUnwindSafe(&mut inspect));
        if interrupt::check().is_err() {
            return;
        }
        let result = match result {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => failed(error.full_message_with_hint()),
            Err(_) => failed("the check failed because of a bug in lifeboat".to_owned()),
        };
        watcher.publish(result, false);
        if pause(every, begun.elapsed()).is_err() {
            return;
        }
    }
}

/// Waits until every store was inspected once, but no longer than `timeout`. Fails if a signal asks to stop.
fn await_stores(stores: &[WatchedStore], timeout: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < timeout && stores.iter().any(|store| store.watcher.last().is_none()) {
        interrupt::sleep(Duration::from_millis(20))?;
    }
    interrupt::check()
}

fn pause(every: Duration, took: Duration) -> Result<()> {
    interrupt::sleep(every.max((took * PAUSE_FACTOR).min(MAX_PAUSE)))
}

/// Returns the baseline of a source: the newest good snapshot in any store, for finding losses since then.
fn baseline(stores: &[WatchedStore], name: &SourceName) -> Option<Arc<Manifest>> {
    let contents = stores.iter().filter_map(|store| store.watcher.last());
    let baselines = contents.filter_map(|contents| contents.sources.get(name)?.summary.baseline.clone());
    baselines.max_by_key(|manifest| manifest.created_at)
}

fn watch_store(
    store: &StoreUrl,
    names: &[SourceName],
    watcher: &Watcher<StoreContents>,
    every: Duration,
    context: &Context,
) {
    let mut history: Option<History> = None;
    let mut listed: Option<Instant> = None;
    let inspect = || {
        let history = match &mut history {
            Some(history) => history,
            history => history.insert(History::open(store, names, context)?),
        };
        history.read_newest()?;
        history.update_summaries(context);
        if listed.is_none_or(|listed| listed.elapsed() > FULL_LIST_INTERVAL) {
            watcher.publish(history.contents(), true);
            history.list()?;
            while history.read_some(READ_AT_ONCE)? {
                interrupt::check()?;
                watcher.publish(history.contents(), true);
            }
            history.update_summaries(context);
            listed = Some(Instant::now());
        }
        Ok(history.contents())
    };
    // The last known contents of the store are still shown, together with the error.
    repeat(watcher, every, &AtomicUsize::new(0), inspect, |reason| {
        let last = watcher.last().map(|last| StoreContents::clone(&last)).unwrap_or_default();
        StoreContents { error: Some(reason), ..last }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_pause_holds_back_inspections() {
        let (watcher, pauses) = (Watcher::<()>::new(), Arc::new(AtomicUsize::new(1)));
        let (sender, inspections) = channel();
        let inspect = move || {
            let _ = sender.send(());
            Ok(())
        };
        let (watched, counted) = (Arc::clone(&watcher), Arc::clone(&pauses));
        spawn("source", move || repeat(&watched, Duration::from_secs(3600), &counted, inspect, drop))
            .expect("a thread");
        assert!(inspections.recv_timeout(Duration::from_millis(100)).is_err(), "the pause has not ended");
        drop(Pause(pauses));
        assert!(inspections.recv_timeout(Duration::from_secs(60)).is_ok(), "the pause has ended");
    }
}
