//! Watching: a thread for each source and store looks at it again and again, and leaves what it saw where answers find it.
//!
//! A look that hangs makes what it looks at one that does not answer, and keeps nobody else from looking or answering.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::ops::Context;
use crate::ops::checks::told;
use crate::ops::sources::Chosen;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::interrupt;
use crate::serve::status::history::{History, StoreSeen};
use crate::serve::status::{Reading, SourceLook, Standing, assemble, least_free, look_at};
use crate::snapshots::id::SourceName;
use crate::snapshots::manifest::Manifest;
use crate::store::StoreUrl;

/// Of the time, so many parts are rest for one part that a look takes: looking is never more than a tenth of the load.
const REST: u32 = 9;
/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(15 * 60);
/// How often a store's names are looked through from the first to the last.
const ALL_NAMES_EVERY: Duration = Duration::from_secs(10 * 60);
/// How many manifests are read between two times that what was read is shown.
const READ_AT_ONCE: usize = 200;

/// What was seen of one thing.
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

    /// Leaves what was seen so far.
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
    /// Begins to watch the config's sources and the stores.
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
                // What was lost since the newest snapshot is seen only by who knows that.
                if await_stores(&stores, timeout).is_err() {
                    return;
                }
                let look = || look_at(&chosen, measure(&stores, &name).as_deref(), least_free);
                repeat(&post, every, look, SourceLook::failed);
            })?;
        }
        Ok(posts)
    }

    /// How everything stands now, by what was seen last.
    pub(super) fn standing(&self, context: &Context) -> Result<Standing> {
        let sources = self.sources.iter().map(|source| (&source.chosen, source.post.read(self.timeout)));
        let stores = self.stores.iter().map(|store| (store.location.clone(), store.post.read(self.timeout)));
        assemble(sources.collect(), stores.collect(), context)
    }

    /// The names of the sources.
    pub(super) fn names(&self) -> Result<Vec<SourceName>> {
        self.sources.iter().map(|source| source.chosen.name()).collect()
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Error::failed("cannot start a thread").because(error))
}

/// Looks again and again until a signal asks to stop. A look that fails, or ends in a fault of our own, is one that `failed`
/// tells of: nobody goes on with what was seen before.
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
            Ok(Err(error)) => failed(told(&error)),
            Err(_) => failed("the look ended in a fault of lifeboat's own".to_owned()),
        };
        post.leave(seen, false);
        if rest(every, begun.elapsed()).is_err() {
            return;
        }
    }
}

/// Waits until every store was looked at, but no longer than a look may take.
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

/// The newest good snapshot of a source in whatever store, for what is lost since.
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
    // What was known of it is still worth to be shown.
    repeat(post, every, look, |why| {
        let last = post.last().map(|last| StoreSeen::clone(&last)).unwrap_or_default();
        StoreSeen { error: Some(why), ..last }
    });
}
