//! The lease of this guard: written to every store at the start, renewed while it works, and deleted at its end.
//!
//! One thread for each store does this, so that a store that hangs delays neither CMD nor the other stores.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::ops::guard::others::{Status, described, file_mark, own_process};
use crate::ops::sources::Chosen;
use crate::ops::watch::Watch;
use crate::ops::{Context, stores};
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::interrupt;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::guard_leases::{GuardLease, GuardState, RENEW_AFTER, milliseconds};
use crate::snapshots::id::SourceName;
use crate::snapshots::trust::Trust;
use crate::store::{Key, StoreUrl};

/// The pause before the next attempt if a store is away.
const RETRY_AFTER: Duration = Duration::from_secs(15);
/// The longest time that the end of a lease may delay the exit.
const LONGEST_END: Duration = Duration::from_secs(2);
/// The maximum number of old objects that a store may refuse to delete, before the lease is no longer renewed there.
const MOST_UNDELETED: usize = 8;

/// The leases of this guard.
pub(super) struct Leases {
    /// The id of this guard.
    pub(super) id: String,
    holders: Vec<Holder>,
    /// The result of the wait for the first leases, once it was awaited.
    first: OnceCell<bool>,
}

/// The thread that holds the leases in one store.
struct Holder {
    orders: Sender<Order>,
    /// Gets a message after the first attempt to write the leases, and is closed when the thread has ended.
    events: Receiver<()>,
    /// The error of a store that can be read, and has not let the leases be written yet.
    refused: Arc<Mutex<Option<Error>>>,
}

enum Order {
    /// The guard does something else now.
    State(GuardState),
    /// The guard ends. The leases of these sources stay, and say that their last snapshots were not taken.
    End { unsaved: Vec<SourceName> },
}

impl Leases {
    /// Begins to hold a lease of every source in every store. `watch` reports a store that can be read and not written.
    pub(super) fn begin(sources: &[Chosen], watch: Option<&Watch>, context: &Arc<Context>) -> Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| Error::failed("cannot get random numbers from the system").because(error.to_string()))?;
        let id = hex::encode(random);
        let lease = GuardLease::new(id.clone(), context.host.clone(), own_process());
        let mut leases = Leases { id, holders: Vec::new(), first: OnceCell::new() };
        for url in &context.stores {
            let mut url = url.clone();
            // A locked object could not be deleted.
            let _ = url.take_lock();
            let (orders, received) = channel();
            let (sender, events) = channel();
            let places = sources.iter().map(Place::new).collect::<Result<Vec<_>>>()?;
            let refused = Arc::default();
            let mut worker = Worker {
                url,
                catalog: None,
                places,
                lease: lease.clone(),
                trust: context.trust.clone(),
                is_away: false,
                is_first: true,
                refused: Arc::clone(&refused),
                watch: watch.cloned(),
            };
            thread::Builder::new()
                .name("lease".to_owned())
                .spawn(move || worker.work(&received, &sender))
                .map_err(|error| Error::failed("cannot start a thread for the lease").because(error))?;
            leases.holders.push(Holder { orders, events, refused });
        }
        Ok(leases)
    }

    /// Waits until the first leases were written, or until the time is over. Returns true if all attempts have ended.
    pub(super) fn wait_for_first(&self, time: Duration) -> bool {
        *self.first.get_or_init(|| {
            let end = Instant::now() + time;
            self.holders.iter().all(|holder| {
                let left = end.saturating_duration_since(Instant::now());
                holder.events.recv_timeout(left) != Err(RecvTimeoutError::Timeout)
            })
        })
    }

    /// Notes what the guard does now, for other guards.
    pub(super) fn set(&self, state: GuardState) {
        for holder in &self.holders {
            // The thread ends only after the last order.
            let _ = holder.orders.send(Order::State(state));
        }
    }

    /// Returns the errors of the stores that can be read, and have never let the leases be written.
    pub(super) fn refused(&self) -> Vec<Error> {
        let of = |holder: &Holder| {
            holder.refused.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Error::duplicate)
        };
        self.holders.iter().filter_map(of).collect()
    }

    /// Ends the leases. Those of `unsaved` stay, and say so.
    pub(super) fn end(mut self, unsaved: &[SourceName]) {
        self.finish(unsaved);
    }

    fn finish(&mut self, unsaved: &[SourceName]) {
        // A request to stop was for the work before. The leases must be deleted in any case.
        interrupt::clear();
        let end = Instant::now() + LONGEST_END;
        let holders: Vec<Holder> = self.holders.drain(..).collect();
        for holder in &holders {
            let _ = holder.orders.send(Order::End { unsaved: unsaved.to_vec() });
        }
        for holder in holders {
            while holder.events.recv_timeout(end.saturating_duration_since(Instant::now())).is_ok() {}
        }
    }
}

/// A guard that does not start its program has no data to hand over.
impl Drop for Leases {
    fn drop(&mut self) {
        self.finish(&[]);
    }
}

/// The lease of one source in one store.
struct Place {
    source: SourceName,
    /// The database file, if it is one.
    path: Option<PathBuf>,
    number: u64,
    /// The objects that were written and not deleted yet.
    objects: Vec<Key>,
    began_ms: Option<u64>,
    /// The store's time of the newest object.
    renewed: Option<SystemTime>,
}

impl Place {
    fn new(chosen: &Chosen) -> Result<Self> {
        let (source, path) = (chosen.name()?, chosen.source.file().map(Path::to_owned));
        Ok(Place { source, path, number: 0, objects: Vec::new(), began_ms: None, renewed: None })
    }

    fn renew(&mut self, lease: &GuardLease, catalog: &Catalog) -> Result<()> {
        if self.objects.len() > MOST_UNDELETED {
            return Ok(());
        }
        self.number += 1;
        let file = self.path.as_deref().and_then(file_mark);
        let lease = GuardLease { began_ms: self.began_ms, file, ..lease.clone() };
        let written = catalog.write_guard_lease(&self.source, &lease, self.number)?;
        self.began_ms.get_or_insert(milliseconds(written.modified));
        self.renewed = Some(written.modified);
        let old = std::mem::replace(&mut self.objects, vec![written.key]);
        for key in old {
            if let Err(error) = catalog.delete_guard_lease(&key) {
                tracing::debug!("cannot delete the lease {key}: {}", error.full_message());
                self.objects.push(key);
            }
        }
        if self.objects.len() > MOST_UNDELETED {
            tracing::warn!(
                "{} does not let leases be deleted, so the lease of {} is no longer renewed there, and another guard may \
                 start meanwhile: allow deletions of {}/guard.lease-*",
                one_line(&catalog.location()),
                self.source,
                self.source
            );
        }
        Ok(())
    }

    /// Deletes all objects of the lease, also those whose write was not confirmed.
    fn delete(&self, id: &str, catalog: &Catalog) -> Result<()> {
        let own = catalog.guard_leases_as_stored(&self.source)?.into_iter().filter(|found| found.id == id);
        own.flat_map(|found| found.keys).try_for_each(|key| catalog.delete_guard_lease(&key))
    }
}

struct Worker {
    url: StoreUrl,
    catalog: Option<Catalog>,
    places: Vec<Place>,
    lease: GuardLease,
    trust: Trust,
    is_away: bool,
    /// True until the other leases were inspected once.
    is_first: bool,
    /// See [`Holder::refused`].
    refused: Arc<Mutex<Option<Error>>>,
    watch: Option<Watch>,
}

impl Worker {
    fn work(&mut self, orders: &Receiver<Order>, events: &Sender<()>) {
        let mut was_written = false;
        // The receiver waits for the first attempt only, and for the end of this thread.
        let mut first = Some(());
        loop {
            let renewed = self.renew();
            if let Some(first) = first.take() {
                let _ = events.send(first);
            }
            match &renewed {
                Ok(()) if self.is_away => {
                    tracing::info!("the lease is renewed again in {}", one_line(&self.url.to_string()))
                }
                Err(error) if was_written && !self.is_away && error.kind != Kind::Interrupted => tracing::warn!(
                    "the lease was not renewed, so that another guard may start meanwhile: {}",
                    error.full_message()
                ),
                // The judgement and the snapshots report a store that was away from the start.
                Err(error) => tracing::debug!("the lease was not written: {}", error.full_message()),
                Ok(()) => {}
            }
            self.note_refusal(was_written, renewed.as_ref().err());
            was_written |= renewed.is_ok();
            self.is_away = renewed.is_err();
            let pause = if self.is_away { RETRY_AFTER } else { RENEW_AFTER };
            match orders.recv_timeout(pause) {
                Ok(Order::State(state)) => self.lease.state = state,
                Ok(Order::End { unsaved }) => return self.end(&unsaved),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(&[]),
            }
        }
    }

    /// Reports a store that can be read, but has not let the first lease be written: it will not take a snapshot either.
    fn note_refusal(&self, was_written: bool, error: Option<&Error>) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else { return *refused = None };
        if was_written || refused.is_some() || error.kind == Kind::Interrupted {
            return;
        }
        let can_be_read = self.catalog.as_ref().zip(self.places.first());
        if can_be_read.is_none_or(|(catalog, place)| catalog.guard_leases(&place.source).is_err()) {
            return;
        }
        let error = error.duplicate().context(format!(
            "{} can be read, but the lease of this guard cannot be written there: probably no snapshot can be saved either",
            one_line(&self.url.to_string())
        ));
        tracing::error!("{}", error.full_message_with_hint());
        if let Some(watch) = &self.watch {
            watch.report_now(std::slice::from_ref(&error));
        }
        *refused = Some(error);
    }

    fn renew(&mut self) -> Result<()> {
        let catalog = match &mut self.catalog {
            Some(catalog) => catalog,
            none => none.insert(stores::open(&self.url)?.with_trust(self.trust.clone())),
        };
        for place in &mut self.places {
            place.renew(&self.lease, catalog)?;
        }
        if self.is_first && self.lease.state == GuardState::Running {
            self.is_first = false;
            for place in &self.places {
                inspect_others(place, &self.lease, catalog)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, unsaved: &[SourceName]) {
        self.lease.state = GuardState::Unsaved;
        let Some(catalog) = &self.catalog else { return };
        for place in &mut self.places {
            let ended = match unsaved.contains(&place.source) {
                true => place.renew(&self.lease, catalog),
                false => place.delete(&self.lease.id, catalog),
            };
            if let Err(error) = ended {
                tracing::info!("the lease of {} is left, and expires: {}", place.source, error.full_message());
            }
        }
    }
}

/// Names the other guards of a source that are at work and deletes the leases of those that are gone.
fn inspect_others(place: &Place, own: &GuardLease, catalog: &Catalog) -> Result<()> {
    let Some(now) = place.renewed else { return Ok(()) };
    for found in catalog.guard_leases(&place.source)?.iter().filter(|found| found.id != own.id) {
        match Status::of(found, now, &own.process) {
            Status::AtWork(_) => tracing::info!("another guard of {} is at work {}", place.source, described(found)),
            _ => found.keys.iter().try_for_each(|key| catalog.delete_guard_lease(key))?,
        }
    }
    Ok(())
}
