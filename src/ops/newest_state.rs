//! The newest good state of a source: the number of its rows when it was last saved without a loss.
//!
//! It is not only known from snapshots that can be restored. A snapshot whose archive is damaged or missing has its
//! manifest, an archive whose manifest is lost has its own, a suspect snapshot records the one that it was compared
//! with, and the rows in a manifest of a newer format can be read. Without these, a database that has lost rows would be
//! the newest good snapshot as soon as the one that shows the loss is damaged or deleted.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::ops::choose::open_without_manifest;
use crate::ops::tags::SUSPECT;
use crate::ops::{Context, fetch};
use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::snapshots::catalog::{CLOCK_SLACK, Catalog};
use crate::snapshots::find::Named;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::snapshots::search::Suspects;
use crate::snapshots::without_manifest::ArchiveWithoutManifest;

/// The number of snapshots and archives that cannot be read after which the search in a store ends.
const MOST_UNREADABLE: usize = 32;
/// The number of manifests in an archive tier after which the search in a store ends.
const MOST_ARCHIVED: usize = 3;

/// The newest good state of a source. See [`Context::newest_state`].
pub(crate) struct NewestState {
    /// The manifest of the newest full snapshot that is not suspect. It is for comparisons only: it may have no more
    /// than the rows of the tables.
    manifest: Option<Manifest>,
    /// The snapshots that a wrong clock has dated after it.
    dated_in_future: BTreeSet<SnapshotId>,
    /// The newer snapshots and archives whose rows are not known, each with the reason.
    unknown: Vec<(SnapshotId, Error)>,
}

impl NewestState {
    /// Returns the manifest. Logs a warning for everything newer whose rows are not known.
    pub(crate) fn or_warn(self) -> Option<Manifest> {
        for (id, error) in self.unknown {
            tracing::warn!("not compared with {id}, whose rows are not known: {}", error.full_message());
        }
        for id in self.dated_in_future {
            tracing::warn!(
                "not compared with {id}: it is dated in the future, so a clock was or is wrong; if nobody needs it, \
                 'lifeboat delete {id}' deletes it"
            );
        }
        self.manifest
    }

    /// Returns the manifest, as [`or_warn`](Self::or_warn) does. Fails if there is none, although there is something
    /// whose rows are not known.
    pub(crate) fn or_fail(mut self) -> Result<Option<Manifest>> {
        match self.manifest {
            None if !self.unknown.is_empty() => Err(self.unknown.swap_remove(0).1),
            _ => Ok(self.or_warn()),
        }
    }
}

impl Context {
    /// Returns the newest full snapshot of a source that is not suspect, from any store, whether or not it can be
    /// restored. Logs a warning for a store that cannot be reached, and returns its error if no other store has a
    /// snapshot.
    pub(crate) fn newest_state(&self, source: &SourceName) -> Result<NewestState> {
        let (mut found, mut unreachable) = (Found::default(), None);
        for store in self.all_stores()? {
            match self.open(store).and_then(|catalog| found.add(&catalog, source, self)) {
                Ok(()) => {}
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    tracing::warn!("{}", error.full_message_with_hint());
                    unreachable = Some(error);
                }
            }
        }
        let (mut unknown, has_others) = (std::mem::take(&mut found.unknown), found.has_others);
        let mut dated_in_future: BTreeSet<SnapshotId> =
            std::mem::take(&mut found.dated_in_future).into_iter().collect();
        let manifest = found.newest();
        match (&manifest, unreachable) {
            (None, Some(error)) => return Err(error),
            (None, None) if unknown.is_empty() && has_others => {
                tracing::warn!("there was data of {source}, but no full snapshot is left that it can be compared with");
            }
            _ => {}
        }
        let is_newer = |id: &SnapshotId| manifest.as_ref().is_none_or(|manifest| manifest.id.stamp() < id.stamp());
        dated_in_future.retain(|id| manifest.is_some() && is_newer(id));
        unknown.retain(|(id, _)| is_newer(id));
        Ok(NewestState { manifest, dated_in_future, unknown })
    }
}

/// The states of a source that were found in the stores.
#[derive(Default)]
struct Found {
    /// The newest full snapshot that is not suspect, and the time that decides that.
    good: Option<(DateTime<Utc>, Manifest)>,
    /// The newest snapshot that a suspect one was compared with.
    compared: Option<Manifest>,
    /// The newest suspect snapshot.
    suspect: Option<Manifest>,
    /// The newest one that is dated in the future, because a clock was wrong.
    future: Option<Manifest>,
    /// The snapshots that a wrong clock has dated in the future.
    dated_in_future: Vec<SnapshotId>,
    /// The snapshots and archives whose rows are not known, each with the reason.
    unknown: Vec<(SnapshotId, Error)>,
    /// True if the stores have other data of the source: partial and safety snapshots, or a folder that held some.
    has_others: bool,
}

/// A snapshot, or an archive without a manifest, as far as it can be read.
enum Read {
    /// Its manifest, or as much of it as is known.
    Manifest(Box<Manifest>),
    /// It was deleted meanwhile.
    Gone,
    /// Its rows are not known.
    Unknown(Error),
}

impl Found {
    /// Searches one store, from the newest snapshot on, until a good one is found.
    fn add(&mut self, catalog: &Catalog, source: &SourceName, context: &Context) -> Result<()> {
        let (mut archived, mut unreadable, mut suspects) = (0, 0, Suspects::default());
        let mut is_empty = true;
        // The time of the newest good one of this store.
        let mut newest: Option<DateTime<Utc>> = None;
        for named in catalog.newest_data(source) {
            let named = named?;
            is_empty = false;
            if newest.is_some_and(|newest| newest >= named.id().time()) {
                break;
            }
            if suspects.skip(named.id()) {
                continue;
            }
            let manifest = match read(catalog, &named, context)? {
                Read::Manifest(manifest) => *manifest,
                Read::Gone => continue,
                Read::Unknown(error) => {
                    unreadable += 1;
                    archived += usize::from(error.reason == Some(Reason::ObjectIsArchived));
                    self.unknown.push((named.id().clone(), error));
                    // Older ones were probably moved to the archive tier, too.
                    if archived == MOST_ARCHIVED || unreadable == MOST_UNREADABLE {
                        break;
                    }
                    continue;
                }
            };
            if manifest.kind != SnapshotKind::Full {
                self.has_others = true;
            } else if manifest.has_tag(SUSPECT) {
                suspects.add(&manifest);
                keep_newer(&mut self.compared, manifest.of_compared());
                keep_newer(&mut self.suspect, Some(manifest));
            } else if manifest.id.time() > Utc::now() + CLOCK_SLACK {
                self.dated_in_future.push(manifest.id.clone());
                keep_newer(&mut self.future, Some(manifest));
            } else {
                let time = named.time();
                let is_certain = time == manifest.id.time();
                newest = newest.max(Some(time));
                self.add_good(time, manifest);
                if is_certain {
                    break;
                }
            }
        }
        // Only snapshots have left the folder of a source in a local store, unless a guard is at work there.
        self.has_others |= is_empty
            && catalog.sources()?.contains(source)
            && catalog.guard_leases(source).is_ok_and(|leases| leases.is_empty());
        Ok(())
    }

    /// Adds a full snapshot that is not suspect. `time` decides whether it is the newest: a clock may have been wrong.
    fn add_good(&mut self, time: DateTime<Utc>, manifest: Manifest) {
        let is_newer =
            |(known, own): &(DateTime<Utc>, Manifest)| (time, manifest.id.stamp()) > (*known, own.id.stamp());
        if self.good.as_ref().is_none_or(is_newer) {
            self.dated_in_future.extend(self.good.take().map(|(_, own)| own.id).filter(|id| id.time() > time));
            self.good = Some((time, manifest));
        } else if manifest.id.time() > time {
            self.dated_in_future.push(manifest.id);
        }
    }

    /// Returns the newest state. A suspect snapshot is one only if nothing else is known.
    fn newest(self) -> Option<Manifest> {
        let mut newest = self.good.map(|(_, good)| good);
        keep_newer(&mut newest, self.compared);
        newest.or(self.suspect).or(self.future)
    }
}

fn keep_newer(newest: &mut Option<Manifest>, other: Option<Manifest>) {
    let is_newer = |other: &Manifest| newest.as_ref().is_none_or(|newest| newest.id.stamp() < other.id.stamp());
    if let Some(other) = other.filter(is_newer) {
        *newest = Some(other);
    }
}

/// Reads a manifest. If it cannot be read, reads the one in the archive.
fn read(catalog: &Catalog, named: &Named, context: &Context) -> Result<Read> {
    let listed = match named {
        Named::WithoutManifest(archive) => return read_inside(catalog, archive, context),
        Named::Snapshot(listed) => listed,
    };
    let error = match catalog.manifest(&listed.id) {
        Ok((outside, _)) => return complete(catalog, outside, context),
        Err(error) => error,
    };
    if error.kind == Kind::NotFound {
        return Ok(Read::Gone);
    }
    if error.kind == Kind::Interrupted || is_outage(&error, catalog) {
        return Err(error);
    }
    if error.is_newer_format() {
        return Ok(match catalog.rows_of_newer(&listed.id) {
            Ok(Some(manifest)) => Read::Manifest(Box::new(manifest)),
            _ => Read::Unknown(error),
        });
    }
    // The manifest in the archive is not trusted either.
    if error.reason == Some(Reason::ObjectIsArchived) || error.is_not_trusted() {
        return Ok(Read::Unknown(error));
    }
    let Some(archive) = listed.archive.clone() else { return Ok(Read::Unknown(error)) };
    let (id, proofs) = (listed.id.clone(), listed.proofs.clone());
    let alone = ArchiveWithoutManifest { id, archive, proofs, has_lost_manifest: true };
    Ok(match read_inside(catalog, &alone, context)? {
        Read::Unknown(_) => Read::Unknown(error),
        read => read,
    })
}

/// Reads the manifest in an archive.
fn read_inside(catalog: &Catalog, archive: &ArchiveWithoutManifest, context: &Context) -> Result<Read> {
    let opened = open_without_manifest(catalog, archive, context).and_then(|opened| {
        catalog.require_trusted_alone(&opened.manifest, opened.is_encrypted())?;
        Ok(opened)
    });
    match opened {
        Ok(opened) => Ok(Read::Manifest(Box::new(opened.manifest))),
        Err(error) if error.kind == Kind::NotFound => Ok(Read::Gone),
        Err(error) if error.kind == Kind::Interrupted || is_outage(&error, catalog) => Err(error),
        Err(error) => Ok(Read::Unknown(error)),
    }
}

/// Returns the complete manifest of an encrypted snapshot, if a key opens it and its archive can be read; otherwise the
/// manifest outside.
fn complete(catalog: &Catalog, outside: Manifest, context: &Context) -> Result<Read> {
    if outside.encrypted && !context.keys.is_empty() {
        match fetch::manifest(catalog, &outside.id, context) {
            Ok(manifest) => return Ok(Read::Manifest(Box::new(manifest))),
            Err(error) if error.kind == Kind::Interrupted || is_outage(&error, catalog) => return Err(error),
            Err(error) => {
                let id = &outside.id;
                tracing::warn!("only the total of the rows of {id} is known: {}", one_line(&error.full_message()));
            }
        }
    }
    Ok(Read::Manifest(Box::new(outside)))
}

/// Returns true if a whole service cannot be reached, and not only one object.
fn is_outage(error: &Error, catalog: &Catalog) -> bool {
    error.kind == Kind::Unreachable && error.reason.is_none() && !catalog.is_local()
}
