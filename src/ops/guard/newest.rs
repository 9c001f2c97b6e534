//! The newest snapshots of a source in all stores, as far as the stores answer in time.
//!
//! Each store is read in its own thread, so that one that hangs does not delay the answers of the others. A thread whose
//! answer is no longer awaited is left behind: it only reads objects, holds no lock, and ends with the process.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::ops::choose::open_without_manifest;
use crate::ops::inspect::Found;
use crate::ops::lost_manifests::wait_for_manifests;
use crate::ops::other_name::{newer, under_other_name};
use crate::ops::sources::Chosen;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::platform::{interrupt, text};
use crate::snapshots::catalog::{Catalog, Listed, time_of};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, Origin, SnapshotKind};
use crate::snapshots::search::{Flaw, PassedOver, Search, SnapshotFilter};
use crate::snapshots::without_manifest::ArchiveWithoutManifest;
use crate::store::StoreUrl;

/// The interval at which the wait for a store checks whether a signal asked to stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The most searches in one store, if snapshots are published meanwhile.
const MOST_SEARCHES: usize = 3;

/// The most safety and partial snapshots that are named.
const MOST_OTHERS: usize = 3;

/// A source whose snapshots are read.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) name: SourceName,
    /// The place of its database, if it is known.
    pub(super) origin: Option<Origin>,
    /// The snapshots whose restore has found damage.
    pub(super) damaged: Vec<DamagedCopy>,
}

/// A snapshot whose restore has found damage.
#[derive(Clone)]
pub(super) struct DamagedCopy {
    /// The location of its store.
    pub(super) location: String,
    pub(super) id: SnapshotId,
    /// The damage.
    pub(super) reason: String,
}

impl Wanted {
    pub(super) fn new(chosen: &Chosen, context: &Context) -> Result<Self> {
        Ok(Wanted { name: chosen.name()?, origin: context.origin_of(chosen), damaged: Vec::new() })
    }
}

/// A snapshot that is not restored, although it is newer than the one that would be.
pub(super) struct Newer {
    pub(super) id: SnapshotId,
    /// The manifest, if it can be read.
    pub(super) manifest: Option<Manifest>,
    /// The time that decides whether it is newer. See [`time_of`].
    time: DateTime<Utc>,
    /// The reason why it is not restored.
    pub(super) reason: String,
    /// The location of its store.
    pub(super) location: String,
    /// The way to use it.
    pub(super) remedy: Remedy,
    /// The advice of the reason, if it has one.
    pub(super) advice: Option<String>,
}

/// The way to use a snapshot that is not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// It is only tagged as suspect: it can be restored, and accepted.
    Accept,
    /// It is good, and encrypted to a key that is not here. It can still be compared.
    Key,
    /// It is a safety or partial snapshot, which no command takes for the newest state. It can be restored by its id.
    Restore,
    /// Its manifest is missing: a copy into the same store writes it again.
    Copy,
    /// It is not trusted. Only a person may look at it.
    Distrust,
    /// It is dated in the future. If that is wrong, it can be deleted.
    Delete,
    /// It cannot be used here.
    Unknown,
}

/// The snapshots of one source that the stores have.
#[derive(Default)]
pub(super) struct Stored {
    /// The newest snapshot that can be restored: the newest good one, or else the newest suspect one.
    pub(super) candidate: Option<Found>,
    /// True if the candidate is not suspect.
    pub(super) is_good: bool,
    /// The newer snapshots, newest first.
    pub(super) newer: Vec<Newer>,
    /// The safety and partial snapshots of the database, until they are added to `newer` for want of a full snapshot.
    others: Vec<Newer>,
    /// The newest snapshot of the same database under another source name, if there is nothing under this one.
    pub(super) other_name: Option<Found>,
    /// The number of suspect snapshots that were not read, because there are too many.
    pub(super) skipped: usize,
    /// The errors of the stores that could not be read.
    pub(super) failures: Vec<Error>,
}

impl Stored {
    /// Returns the snapshot that a database is compared with, and the location of its store: the newest good one, also
    /// if no key here opens it; or else the candidate.
    pub(super) fn baseline(&self) -> Option<(&Manifest, String)> {
        let closed = self.newer.iter().find(|newer| newer.remedy == Remedy::Key);
        let closed = closed.and_then(|newer| Some((newer.manifest.as_ref()?, newer.location.clone())));
        closed.or_else(|| self.candidate.as_ref().map(|found| (&found.manifest, found.catalog.location())))
    }

    /// Returns true if a snapshot has passed the rules of its time.
    pub(super) fn has_good(&self) -> bool {
        self.is_good || self.newer.iter().any(|newer| newer.remedy == Remedy::Key)
    }

    /// Returns the snapshot to restore: the candidate, or the newest one under another name.
    pub(super) fn newest(&self) -> Option<&Found> {
        self.candidate.as_ref().or(self.other_name.as_ref())
    }

    /// Returns true if no store has a full snapshot of the source under its name, and all of them could be read.
    pub(super) fn has_no_snapshot(&self) -> bool {
        let is_full = |newer: &Newer| newer.remedy != Remedy::Restore;
        self.candidate.is_none() && self.failures.is_empty() && !self.newer.iter().any(is_full)
    }

    /// Returns true if no store has anything of the source, and all of them could be read.
    pub(super) fn is_first_start(&self) -> bool {
        self.candidate.is_none() && self.newer.is_empty() && self.failures.is_empty()
    }

    /// Adds the answer of one store.
    fn add(&mut self, other: Stored) {
        let order = |found: &Found| (found.listed.time(), found.listed.id.stamp().to_owned());
        let is_newer = |other: &Found, own: &Found| order(other) > order(own);
        let takes = match (&self.candidate, &other.candidate) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(theirs)) => (other.is_good, is_newer(theirs, own)) > (self.is_good, false),
        };
        if takes {
            (self.candidate, self.is_good) = (other.candidate, other.is_good);
        }
        self.newer.extend(other.newer);
        self.others.extend(other.others);
        self.other_name = newer(self.other_name.take(), other.other_name);
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    /// Leaves only the snapshots that are newer than the candidate, each once.
    fn finish(&mut self) {
        if let Some(candidate) = &self.candidate {
            self.newer.retain(|newer| newer.id.stamp() > candidate.listed.id.stamp());
            // A wrong clock may have dated one after it that is older.
            let is_newer = |newer: &Newer| newer.time == newer.id.time() || newer.time > candidate.listed.time();
            let (newer, older) = self.newer.drain(..).partition(is_newer);
            self.newer = newer;
            let older: Vec<Newer> = older;
            for Newer { id, reason, time, .. } in older {
                let (candidate, time) = (&candidate.listed.id, text::time(time));
                tracing::warn!("passing over {id}: {reason}; its data is from before {time}, and {candidate} is newer");
            }
            self.others.clear();
        }
        self.others.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        self.others.truncate(MOST_OTHERS);
        // Without a full snapshot, they are all that is left of the database.
        self.newer.append(&mut self.others);
        if self.candidate.is_some() || !self.newer.is_empty() {
            self.other_name = None;
        }
        self.newer.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        // A snapshot can be damaged in one store and whole in another.
        self.newer.sort_by_key(|newer| newer.remedy == Remedy::Unknown);
        let mut seen = std::collections::BTreeSet::new();
        self.newer.retain(|newer| seen.insert(newer.id.clone()));
        self.newer.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
    }
}

/// Reads the newest snapshots of one source.
pub(super) fn read_one(wanted: &Wanted, context: &Arc<Context>) -> Result<Stored> {
    Ok(read(std::slice::from_ref(wanted), None, context)?.remove(0))
}

/// Reads the newest snapshots of these sources. With `wait`, a store that has not answered by then counts as one that
/// cannot be read. Returns one element for each source.
pub(super) fn read(sources: &[Wanted], wait: Option<Duration>, context: &Arc<Context>) -> Result<Vec<Stored>> {
    let urls = context.all_stores()?;
    let (sender, receiver) = channel();
    for (number, url) in urls.iter().enumerate() {
        let (sender, url, sources) = (sender.clone(), url.clone(), sources.to_vec());
        let context = Arc::clone(context);
        let read = move || {
            let answer: Vec<Result<Stored>> = sources.iter().map(|source| read_store(&url, source, &context)).collect();
            // Nobody listens any more after the wait.
            let _ = sender.send((number, answer));
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(read);
        thread.map_err(|error| Error::failed("cannot start a thread").because(error))?;
    }
    drop(sender);
    let begun = Instant::now();
    let mut answers: Vec<Option<Vec<Result<Stored>>>> = urls.iter().map(|_| None).collect();
    while answers.iter().any(Option::is_none) {
        interrupt::check()?;
        let left = wait.map(|wait| wait.saturating_sub(begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        match receiver.recv_timeout(left.unwrap_or(CHECK_INTERVAL).min(CHECK_INTERVAL)) {
            Ok((number, answer)) => answers[number] = Some(answer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let mut all: Vec<Stored> = sources.iter().map(|_| Stored::default()).collect();
    for (url, answer) in urls.iter().zip(answers) {
        let answer = answer.unwrap_or_else(|| sources.iter().map(|_| Err(no_answer(url, begun.elapsed()))).collect());
        for (stored, answer) in all.iter_mut().zip(answer) {
            match answer {
                Ok(other) => stored.add(other),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => stored.failures.push(error),
            }
        }
    }
    all.iter_mut().for_each(Stored::finish);
    Ok(all)
}

fn no_answer(url: &StoreUrl, after: Duration) -> Error {
    let after = text::seconds(after.as_secs_f64());
    Error::unreachable(format!("the store {} has not answered within {after}", one_line(&url.to_string())))
        .hint("check the store; store_wait in [guard] sets the time")
}

/// Reads the newest snapshots of one source in one store.
fn read_store(url: &StoreUrl, wanted: &Wanted, context: &Context) -> Result<Stored> {
    let catalog = context.open(url).map_err(|error| with_advice(error, context))?;
    let mut reading = Reading { catalog: &catalog, wanted, context, stored: Stored::default(), suspect: None };
    let mut search = reading.search()?;
    // Another host may be publishing a snapshot at this moment: its archive is there before its manifest.
    for _ in 0..MOST_SEARCHES {
        let found = search.without_manifest.len();
        search.without_manifest = wait_for_manifests(&catalog, search.without_manifest)?;
        if search.without_manifest.len() == found {
            break;
        }
        search = reading.search()?;
    }
    search.passed_over.into_iter().for_each(|passed_over| reading.pass_over(passed_over));
    search.without_manifest.into_iter().for_each(|archive| reading.add_archive(archive));
    let Reading { mut stored, suspect, .. } = reading;
    (stored.is_good, stored.skipped) = (search.found.is_some(), search.skipped);
    if let Some(listed) = search.found.map(|(listed, _)| listed).or(suspect) {
        let manifest = fetch::manifest(&catalog, &listed.id, context)?;
        stored.candidate = Some(Found { catalog, listed, manifest });
    } else if let Some(origin) = wanted.origin.as_ref().filter(|_| stored.newer.is_empty() && stored.others.is_empty())
    {
        stored.other_name = under_other_name(catalog, &wanted.name, origin, context)?;
    }
    Ok(stored)
}

/// Adds the advice to create a store that does not exist. A guard never creates one at its start: a disk may be missing.
fn with_advice(error: Error, context: &Context) -> Error {
    match (error.reason == Some(Reason::StoreIsAbsent), context.stores_are_given) {
        (false, _) => error,
        (true, false) => error.hint(
            "check that its disk is mounted; if this is a new store, 'lifeboat init' creates it before the first start",
        ),
        (true, true) => error.hint(
            "check that its disk is mounted; if this is a new store, name it in a config, and 'lifeboat init' creates it \
             before the first start",
        ),
    }
}

/// The search for the newest snapshots of one source in one store.
struct Reading<'a> {
    catalog: &'a Catalog,
    wanted: &'a Wanted,
    context: &'a Context,
    stored: Stored,
    /// The newest suspect snapshot.
    suspect: Option<Listed>,
}

impl Reading<'_> {
    /// Searches for the newest good snapshot that can be restored.
    fn search(&self) -> Result<Search> {
        let (source, without) = (Some(self.wanted.name.clone()), Some(SUSPECT.to_owned()));
        let filter = SnapshotFilter { source, without, ..SnapshotFilter::default() };
        self.catalog.search(&self.wanted.name, &filter, &|listed, manifest| self.refuse(listed, manifest))
    }

    /// Returns the reason why a good snapshot cannot be restored, if there is one.
    fn refuse(&self, listed: &Listed, manifest: &Manifest) -> Result<Option<Error>> {
        if let Some(damage) = self.damage_of(&listed.id) {
            return Ok(Some(Error::problem(damage)));
        }
        match manifest.encrypted.then(|| fetch::manifest(self.catalog, &listed.id, self.context)).transpose() {
            Ok(Some(manifest)) if manifest.lacks_tables() => {
                Ok(Some(Error::usage("it is encrypted, and no key here opens it (give one with --identity)")))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind == Kind::Problem => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Returns the damage that the restore of a snapshot has found in this store.
    fn damage_of(&self, id: &SnapshotId) -> Option<&str> {
        let location = self.catalog.location();
        let is_same = |damaged: &&DamagedCopy| damaged.id == *id && damaged.location == location;
        self.wanted.damaged.iter().find(is_same).map(|damaged| damaged.reason.as_str())
    }

    /// Adds a snapshot that the search has passed over.
    fn pass_over(&mut self, PassedOver { listed, flaw }: PassedOver) {
        let manifest = fetch::manifest(self.catalog, &listed.id, self.context);
        // A selection, or the state before a restore, is not meant to be the newest state.
        if let Ok(manifest) = &manifest
            && matches!(manifest.kind, SnapshotKind::Partial | SnapshotKind::Safety)
        {
            return self.add_other(manifest, listed.time(), flaw.message());
        }
        let is_open = manifest.as_ref().is_ok_and(|manifest| !manifest.lacks_tables());
        let damage = self.damage_of(&listed.id).map(str::to_owned);
        let remedy = match &flaw {
            Flaw::Tag(_) if is_open && damage.is_none() => Remedy::Accept,
            Flaw::Refused(error) if error.kind == Kind::Usage && manifest.is_ok() => Remedy::Key,
            Flaw::Untrusted(_) => Remedy::Distrust,
            Flaw::Future => Remedy::Delete,
            _ => Remedy::Unknown,
        };
        let advice = match &flaw {
            Flaw::Untrusted(error) => error.hint.clone(),
            _ => None,
        };
        let (id, time) = (listed.id.clone(), listed.time());
        let (location, reason) = (self.catalog.location(), damage.unwrap_or(flaw.message()));
        if remedy == Remedy::Accept && self.suspect.is_none() {
            self.suspect = Some(listed);
        }
        self.stored.newer.push(Newer { id, manifest: manifest.ok(), time, reason, location, remedy, advice });
    }

    /// Adds an archive without a manifest.
    fn add_archive(&mut self, archive: ArchiveWithoutManifest) {
        let lost = "its manifest is missing in the store";
        let manifest = open_without_manifest(self.catalog, &archive, self.context).map(|opened| opened.manifest);
        let time = time_of(&archive.id, Some(&archive.archive));
        let reason = match &manifest {
            Ok(manifest) if manifest.kind != SnapshotKind::Full => {
                return self.add_other(manifest, time, lost.to_owned());
            }
            Ok(_) => lost.to_owned(),
            Err(error) => format!("{lost}: {}", error.full_message()),
        };
        let (id, location) = (archive.id, self.catalog.location());
        self.stored.newer.push(Newer {
            id,
            manifest: manifest.ok(),
            time,
            reason,
            location,
            remedy: Remedy::Copy,
            advice: None,
        });
    }

    /// Adds a snapshot that is never the newest state, if it is of the source's database: a safety snapshot of another
    /// target of a restore can have the same source name.
    fn add_other(&mut self, manifest: &Manifest, time: DateTime<Utc>, reason: String) {
        if self.wanted.origin.as_ref().is_none_or(|origin| manifest.is_of_database_at(origin, None)) {
            let (id, location, manifest) = (manifest.id.clone(), self.catalog.location(), Some(manifest.clone()));
            self.stored.others.push(Newer {
                id,
                manifest,
                time,
                reason,
                location,
                remedy: Remedy::Restore,
                advice: None,
            });
        }
    }
}

/// Returns the age and the time of a snapshot, in words.
pub(super) fn taken(time: DateTime<Utc>) -> String {
    let now = Utc::now();
    let (age, verb) = (text::age_with("ago", time, now), if text::is_in_future(time, now) { "" } else { "taken " });
    format!("{verb}{age} ({})", text::time(time))
}
