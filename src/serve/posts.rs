//! Watching: one thread for each source and store inspects it repeatedly, and keeps the result for the answers.
//!
//! If an inspection hangs, its source or store counts as not answering. Other inspections and the answers go on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::ops::Context;
use crate::ops::sources::Chosen;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;
use crate::serve::status::history::{History, StoreSeen};
use crate::serve::status::{Reading, SourceLook, Standing, assemble, least_free, look_at};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Manifest;
use crate::store::StoreUrl;

/// The pause after an inspection, as a multiple of its duration. Inspections take at most a tenth of the time, unless
/// [`LONGEST_REST`] shortens the pause.
const REST: u32 = 9;
/// The longest such pause.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);
/// The time between two complete listings of a store.
const ALL_NAMES_EVERY: Duration = Duration::from_secs(10 * 60);
/// The number of manifests that are read before the result so far is shown.
const READ_AT_ONCE: usize = 200;

/// The last inspection of one source or store.
struct Post<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    last: Option<Arc<T>>,
    at: Option<DateTime<Utc>>,
    seconds: f64,
    begun: Option<Instant>,
}

impl<T> Post<T> {
    fn new() -> Arc<Self> {
        Arc::new(Post { state: Mutex::new(State { last: None, at: None, seconds: 0.0, begun: None }) })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) {
        self.state().begun = Some(Instant::now());
    }

    /// Publishes what was seen so far. `goes_on` is true if the inspection continues.
    fn leave(&self, seen: T, goes_on: bool) {
        let mut state = self.state();
        state.last = Some(Arc::new(seen));
        state.at = Some(Utc::now());
        state.seconds = state.begun.map(|begun| begun.elapsed().as_secs_f64()).unwrap_or_default();
        state.begun = goes_on.then(Instant::now);
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
    post: Arc<Post<SourceLook>>,
}

struct WatchedStore {
    location: String,
    post: Arc<Post<StoreSeen>>,
}

/// Everything that is watched.
pub(super) struct Posts {
    sources: Vec<WatchedSource>,
    stores: Arc<Vec<WatchedStore>>,
    timeout: Duration,
}

impl Posts {
    /// Starts to watch the config's sources and the stores.
    pub(super) fn start(context: &Arc<Context>, every: Duration, timeout: Duration) -> Result<Posts> {
        let chosen = context.sources(&[])?;
        let names: Vec<SourceName> = chosen.iter().map(Chosen::name).collect::<Result<_>>()?;
        let least_free = least_free(context)?;
        let stores = context.all_stores()?.iter().map(|store| (store.clone(), Post::new()));
        let stores: Vec<(StoreUrl, Arc<Post<StoreSeen>>)> = stores.collect();
        let watched = stores
            .iter()
            .map(|(store, post)| WatchedStore { location: one_line(&store.to_string()), post: Arc::clone(post) })
            .collect();
        let posts = Posts {
            sources: chosen.into_iter().map(|chosen| WatchedSource { chosen, post: Post::new() }).collect(),
            stores: Arc::new(watched),
            timeout,
        };
        for (store, post) in stores {
            let (context, names) = (Arc::clone(context), names.clone());
            spawn("store", move || watch_store(&store, &names, &post, every, &context))?;
        }
        for (source, name) in posts.sources.iter().zip(names) {
            let (chosen, post, stores) = (source.chosen.clone(), Arc::clone(&source.post), Arc::clone(&posts.stores));
            spawn("source", move || {
                // Losses since the newest snapshot can only be found once that snapshot is known.
                if await_stores(&stores, timeout).is_err() {
                    return;
                }
                let look = || look_at(&chosen, measure(&stores, &name).as_deref(), least_free);
                repeat(&post, every, look, SourceLook::failed);
            })?;
        }
        Ok(posts)
    }

    /// Returns the current status of everything, from the last inspections.
    pub(super) fn standing(&self, context: &Context) -> Result<Standing> {
        let sources = self.sources.iter().map(|source| (&source.chosen, source.post.read(self.timeout)));
        let stores = self.stores.iter().map(|store| (store.location.clone(), store.post.read(self.timeout)));
        assemble(sources.collect(), stores.collect(), context)
    }

    /// Returns the names of the sources.
    pub(super) fn names(&self) -> Result<Vec<SourceName>> {
        self.sources.iter().map(|source| source.chosen.name()).collect()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Error::failed("cannot start a thread").because(error))
}

/// Inspects repeatedly until a signal asks to stop. If an inspection fails or panics, the result of `failed` is
/// published, so that the previous result does not count as current.
fn repeat<T>(post: &Post<T>, every: Duration, mut look: impl FnMut() -> Result<T>, failed: impl Fn(String) -> T) {
    loop {
        let begun = Instant::now();
        post.begin();
        let seen = catch_unwind(AssertUnwindSafe(&mut look));
        if interrupt::check().is_err() {
            return;
        }
        let seen = match seen {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => failed(error.whole_with_hint()),
            Err(_) => failed("the look ended in a fault of lifeboat's own".to_owned()),
        };
        post.leave(seen, false);
        if rest(every, begun.elapsed()).is_err() {
            return;
        }
    }
}

/// Waits until every store was inspected once, but no longer than `timeout`. Fails if a signal asks to stop.
fn await_stores(stores: &[WatchedStore], timeout: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < timeout && stores.iter().any(|store| store.post.last().is_none()) {
        interrupt::sleep(Duration::from_millis(20))?;
    }
    interrupt::check()
}

fn rest(every: Duration, took: Duration) -> Result<()> {
    interrupt::sleep(every.max((took * REST).min(LONGEST_REST)))
}

/// Returns the baseline of a source: the newest good snapshot in any store, for finding losses since then.
fn measure(stores: &[WatchedStore], name: &SourceName) -> Option<Arc<Manifest>> {
    let seen = stores.iter().filter_map(|store| store.post.last());
    let measures = seen.filter_map(|seen| seen.sources.get(name)?.summary.measure.clone());
    measures.max_by_key(|manifest| manifest.created_at)
}

fn watch_store(store: &StoreUrl, names: &[SourceName], post: &Post<StoreSeen>, every: Duration, context: &Context) {
    let mut history: Option<History> = None;
    let mut listed: Option<Instant> = None;
    let look = || {
        let history = match &mut history {
            Some(history) => history,
            history => history.insert(History::open(store, names)?),
        };
        history.read_newest()?;
        history.sum_up(context);
        if listed.is_none_or(|listed| listed.elapsed() > ALL_NAMES_EVERY) {
            post.leave(history.seen(), true);
            history.list()?;
            while history.read_some(READ_AT_ONCE)? {
                interrupt::check()?;
                post.leave(history.seen(), true);
            }
            history.sum_up(context);
            listed = Some(Instant::now());
        }
        Ok(history.seen())
    };
    // What was known of the store before is still shown, together with the error.
    repeat(post, every, look, |why| {
        let last = post.last().map(|last| StoreSeen::clone(&last)).unwrap_or_default();
        StoreSeen { error: Some(why), ..last }
    });
}
