//! Lists the snapshots of a store, and reads their manifests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::ranged::Ranged;
use crate::snapshots::catalog::{Catalog, LEFTOVER_AGE, Listed};
use crate::snapshots::id::{STAMP_BYTES, SnapshotId, SourceName};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::{archive_endings, archive_key, is_archive, key, manifest_key, names_itself};
use crate::snapshots::proofs::{ProofLevel, ProofSummary};
use crate::snapshots::without_manifest::{ArchiveWithoutManifest, LEAST_ARCHIVE_BYTES};
use crate::store::{Key, Names, ObjectMeta};

/// The number of threads that read manifests in parallel.
const READERS: usize = 16;
/// The minimum age of archives and proofs without a manifest in a remote store before they are removed. There, an
/// archive's age may count from the start of its upload, which can take days, and the archive may be read back before
/// its manifest is written.
const REMOTE_LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A snapshot with its manifest and its proofs.
#[derive(Debug)]
pub struct Described {
    /// The facts known from the names.
    pub listed: Listed,
    /// The manifest, or the error that prevents its use.
    pub manifest: Result<Manifest>,
    /// The summary of its tests. A snapshot with an invalid manifest, or whose archive is missing or has another length
    /// than the manifest says, is damaged.
    pub proof: ProofSummary,
}

/// The objects of one snapshot, grouped by type.
#[derive(Default)]
struct Files {
    manifest: Option<ObjectMeta>,
    archives: Vec<ObjectMeta>,
    proofs: Vec<ObjectMeta>,
}

/// Objects that belong to no snapshot, and hold no data.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Proofs without manifest and archive, and archives that are shorter than any archive, too old to belong to a
    /// snapshot in progress.
    pub objects: Vec<ObjectMeta>,
}

/// Snapshots, and archives without a manifest.
pub(super) type Grouped = (Vec<Listed>, Vec<ArchiveWithoutManifest>);

/// The newest snapshots of a store. See [`Catalog::list_with_archives`].
#[derive(Debug)]
pub struct NewestListing {
    /// The snapshots, newest first.
    pub listed: Vec<Listed>,
    /// The number of snapshots that were left out.
    pub left_out: LeftOut,
    /// The archives without a manifest that are as new as the snapshots, newest first.
    pub without_manifest: Vec<ArchiveWithoutManifest>,
}

/// The number of snapshots that a listing left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Exactly this many.
    Exactly(usize),
    /// There may be more; they were not listed.
    Unknown,
}

impl Catalog {
    fn files(&self, source: &SourceName, names: Names<'_>) -> Result<BTreeMap<SnapshotId, Files>> {
        let mut files: BTreeMap<SnapshotId, Files> = BTreeMap::new();
        for object in self.store.list(source.as_str(), names)?.objects {
            let name = object.key.name();
            let id_bytes = source.as_str().len() + 1 + STAMP_BYTES;
            let Some((id, rest)) = name.split_at_checked(id_bytes) else { continue };
            let Ok(id) = id.parse::<SnapshotId>() else { continue };
            if id.source() != source {
                continue;
            }
            match rest {
                ".json" => files.entry(id).or_default().manifest = Some(object),
                _ if is_archive(rest) => files.entry(id).or_default().archives.push(object),
                _ if rest.starts_with(".proof-") => files.entry(id).or_default().proofs.push(object),
                _ => {}
            }
        }
        Ok(files)
    }

    /// Lists the snapshots of one source, newest first.
    pub fn list(&self, source: &SourceName) -> Result<Vec<Listed>> {
        self.list_named(source, Names::All)
    }

    pub(super) fn list_named(&self, source: &SourceName, names: Names<'_>) -> Result<Vec<Listed>> {
        Ok(self.list_grouped(source, names)?.0)
    }

    /// Lists snapshots, and archives without a manifest, of one source, newest first.
    pub(super) fn list_grouped(&self, source: &SourceName, names: Names<'_>) -> Result<Grouped> {
        let (mut listed, mut without) = (Vec::new(), Vec::new());
        for (id, files) in self.files(source, names)?.into_iter().rev() {
            if files.manifest.is_none() {
                let proofs: Vec<Key> = files.proofs.into_iter().map(|proof| proof.key).collect();
                for archive in files.archives.into_iter().filter(|archive| archive.bytes >= LEAST_ARCHIVE_BYTES) {
                    let found = ArchiveWithoutManifest { id: id.clone(), archive, proofs: proofs.clone() };
                    if self.lacks_manifest(&found)? {
                        without.push(found);
                    }
                }
                continue;
            }
            // A listing made during a write may show the manifest and miss the archive.
            let archive = match files.archives.into_iter().next() {
                Some(archive) => Some(archive),
                None => self.stat_archive(&id)?,
            };
            listed.push(Listed { id, archive, proofs: files.proofs.into_iter().map(|proof| proof.key).collect() });
        }
        Ok((listed, without))
    }

    /// Returns the snapshot with this id, or `None` if the store does not have it.
    pub fn listed(&self, id: &SnapshotId) -> Result<Option<Listed>> {
        let found = self.list_named(id.source(), Names::StartingWith(&id.to_string()))?;
        Ok(found.into_iter().find(|listed| listed.id == *id))
    }

    /// Returns the ids of one source's snapshots, oldest first. Their archives may be missing.
    pub(super) fn ids_with_manifest(&self, source: &SourceName) -> Result<Vec<SnapshotId>> {
        let start = format!("{source}-");
        let files = self.files(source, Names::StartingWith(&start))?.into_iter();
        Ok(files.filter(|(_, files)| files.manifest.is_some()).map(|(id, _)| id).collect())
    }

    /// Returns the error of a manifest that a newer version of this program wrote, or `None` if there is none. Reads the
    /// manifests from the newest on.
    pub(super) fn newer_manifest(&self) -> Result<Option<Error>> {
        for source in self.sources()? {
            let mut ids = self.ids_with_manifest(&source)?;
            ids.reverse();
            for some in ids.chunks(8 * READERS) {
                let read = in_parallel(some.to_vec(), |id| match self.manifest(&id) {
                    Err(error) if error.kind == Kind::Interrupted => Err(error),
                    read => Ok(read.err().filter(Error::is_newer_format)),
                })?;
                if let Some(newer) = read.into_iter().flatten().next() {
                    return Ok(Some(newer));
                }
            }
        }
        Ok(None)
    }

    fn stat_archive(&self, id: &SnapshotId) -> Result<Option<ObjectMeta>> {
        for ending in archive_endings() {
            let found = self.store.stat(&key(&format!("{}/{id}{ending}", id.source()))?)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Fails with [`Kind::NotFound`] if the store has no snapshot of `source`.
    pub fn require_source(&self, source: &SourceName) -> Result<()> {
        if let Some(found) = self.newest_first(source, None).next() {
            return found.map(drop);
        }
        let names: Vec<String> = self.sources()?.iter().map(ToString::to_string).collect();
        Err(Error::not_found(format!("there is no snapshot of {source} in {}", one_line(&self.location())))
            .hint(format!("the store has the sources: {}", names.join(", "))))
    }

    /// Lists the snapshots of all sources, or of one, newest first.
    pub fn list_all(&self, source: Option<&SourceName>) -> Result<Vec<Listed>> {
        let sources = match source {
            Some(source) => vec![source.clone()],
            None => self.sources()?,
        };
        let mut all = Vec::new();
        for source in &sources {
            all.extend(self.list(source)?);
        }
        all.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        Ok(all)
    }

    /// Lists the newest `limit` snapshots of all sources, or of one, newest first. With `before`, only those taken
    /// before that time. Also returns the number of snapshots left out, if it is known.
    pub fn list_newest(
        &self,
        source: Option<&SourceName>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> Result<(Vec<Listed>, LeftOut)> {
        let newest = self.list_with_archives(source, before, limit)?;
        Ok((newest.listed, newest.left_out))
    }

    /// Lists the newest snapshots as [`list_newest`](Self::list_newest) does, and the archives without a manifest among
    /// them.
    pub fn list_with_archives(
        &self,
        source: Option<&SourceName>,
        before: Option<DateTime<Utc>>,
        limit: usize,
    ) -> Result<NewestListing> {
        let sources = match source {
            Some(source) => vec![source.clone()],
            None => self.sources()?,
        };
        let (mut all, mut is_all, mut without_manifest) = (Vec::new(), true, Vec::new());
        let fits = |listed: &Listed| before.is_none_or(|before| listed.id.time() < before);
        for source in &sources {
            let mut newest = self.newest_first(source, before);
            let most = if self.store.is_local() { usize::MAX } else { limit };
            for listed in newest.by_ref().filter(|listed| listed.as_ref().map_or(true, fits)).take(most) {
                all.push(listed?);
            }
            is_all &= newest.is_at_end();
            without_manifest.extend(newest.take_without_manifest());
        }
        without_manifest.retain(|archive| before.is_none_or(|before| archive.id.time() < before));
        without_manifest.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        all.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        let left_out = all.len().saturating_sub(limit);
        all.truncate(limit);
        let left_out = if is_all { LeftOut::Exactly(left_out) } else { LeftOut::Unknown };
        Ok(NewestListing { listed: all, left_out, without_manifest })
    }

    /// Returns proofs without manifest and archive, and archives without a manifest that cannot hold data, that are older
    /// than [`LEFTOVER_AGE`] (7 days in a remote store).
    pub fn orphans(&self, source: &SourceName) -> Result<Orphans> {
        let now = std::time::SystemTime::now();
        let most = if self.is_local() { LEFTOVER_AGE } else { REMOTE_LEFTOVER_AGE };
        let old = |object: &ObjectMeta| now.duration_since(object.modified).is_ok_and(|age| age > most);
        let has_data = |files: &Files| files.archives.iter().any(|archive| archive.bytes >= LEAST_ARCHIVE_BYTES);
        let is_orphaned = |files: &Files| files.manifest.is_none() && !has_data(files);
        let orphaned = self.files(source, Names::All)?.into_values().filter(is_orphaned);
        let objects = orphaned.flat_map(|files| files.archives.into_iter().chain(files.proofs)).filter(old).collect();
        Ok(Orphans { objects })
    }

    /// Reads a snapshot's manifest. Returns it parsed and as bytes.
    pub fn manifest(&self, id: &SnapshotId) -> Result<(Manifest, Vec<u8>)> {
        let bytes = self.store.read(&manifest_key(id)?, Manifest::MAX_BYTES).map_err(|error| match error.kind {
            Kind::NotFound => {
                Error::not_found(format!("there is no snapshot {id}")).hint("run 'lifeboat list' to see the snapshots")
            }
            _ => error,
        })?;
        let manifest = Manifest::from_json(&bytes).map_err(|error| {
            let is_newer = error.is_newer_format();
            error.context(match is_newer {
                true => format!("cannot read the snapshot {id}"),
                false => format!("the snapshot {id} is damaged"),
            })
        })?;
        if &manifest.id != id || !names_itself(&manifest) {
            let message = format!("the snapshot {id} is damaged: its manifest belongs to another snapshot");
            return Err(Error::problem(message));
        }
        Ok((manifest, bytes))
    }

    /// Opens a snapshot's archive. Fails with [`Kind::Problem`] if it is missing or its length differs from the
    /// manifest's, and with [`Kind::NotFound`] if the snapshot was deleted meanwhile.
    pub fn open_archive(&self, manifest: &Manifest) -> Result<Arc<dyn Ranged>> {
        let id = &manifest.id;
        let archive = self.store.open(&archive_key(manifest)?).map_err(|error| match error.kind {
            // Distinguish a snapshot that was pruned meanwhile from one whose archive is missing.
            Kind::NotFound if matches!(manifest_key(id).and_then(|key| self.store.stat(&key)), Ok(None)) => {
                Error::not_found(format!("the snapshot {id} no longer exists"))
            }
            Kind::NotFound => Error::problem(format!("the snapshot {id} is damaged: its archive is missing")),
            _ => error,
        })?;
        if Some(archive.len()) != manifest.archive_bytes {
            return Err(Error::problem(format!(
                "the snapshot {id} is damaged: its archive has {} bytes, but its manifest records {}",
                archive.len(),
                manifest.archive_bytes.map_or("no size".to_owned(), |bytes| bytes.to_string())
            )));
        }
        Ok(Arc::from(archive))
    }

    /// Returns true if the store has a snapshot with this id.
    pub fn has(&self, id: &SnapshotId) -> Result<bool> {
        Ok(self.store.stat(&manifest_key(id)?)?.is_some())
    }

    /// Reads manifests (without their tables) and proofs of many snapshots in parallel, in the given order.
    ///
    /// A snapshot that was pruned meanwhile is left out. One with an invalid manifest is damaged. One that cannot be
    /// read at this moment has the error in [`Described::manifest`].
    pub fn describe(&self, listed: Vec<Listed>) -> Result<Vec<Described>> {
        let one = |listed: Listed| -> Result<Option<Described>> {
            let manifest = match self.manifest(&listed.id) {
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Interrupted) => {
                    return if error.kind == Kind::NotFound { Ok(None) } else { Err(error) };
                }
                // The tables of thousands of manifests would fill memory.
                Ok((manifest, _)) => Ok(Manifest { tables: Vec::new(), sqlite: None, ..manifest }),
                // One unreadable manifest must not hide the other snapshots.
                Err(error) => Err(error),
            };
            // The use of a snapshot depends on its tests: if its proofs cannot be read, its state is unknown.
            let (manifest, mut proof) = match self.proof(&listed) {
                Ok(proof) => (manifest, proof),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => (manifest.and(Err(error)), ProofSummary::default()),
            };
            match &manifest {
                Err(error) if error.kind == Kind::Problem => proof.level = ProofLevel::Damaged,
                // A newer version may also name its archives in another way: nothing here says that it is damaged.
                Err(error) if error.is_newer_format() => proof = ProofSummary::default(),
                // The length is known from the listing: an archive that was cut is not counted as a good one.
                Ok(manifest) if has_other_length(&listed, manifest) => proof.level = ProofLevel::Damaged,
                _ => {}
            }
            Ok(Some(Described { listed, manifest, proof }))
        };
        Ok(in_parallel(listed, one)?.into_iter().flatten().collect())
    }
}

/// Returns true if the archive of a snapshot has another length than its manifest says.
fn has_other_length(listed: &Listed, manifest: &Manifest) -> bool {
    let lengths = listed.archive.as_ref().map(|archive| archive.bytes).zip(manifest.archive_bytes);
    lengths.is_some_and(|(found, recorded)| found != recorded)
}

/// Passes every item to `one` on up to [`READERS`] threads. Returns the results in order, or the first error.
fn in_parallel<T: Send, R: Send>(items: Vec<T>, one: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let share = items.len().div_ceil(READERS).max(1);
    let mut shares: Vec<Vec<T>> = Vec::new();
    let mut rest = items.into_iter().peekable();
    while rest.peek().is_some() {
        shares.push(rest.by_ref().take(share).collect());
    }
    let all = |share: Vec<T>| share.into_iter().map(&one).collect::<Result<Vec<_>>>();
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| all(share))).collect();
        let joined =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(Error::failed("a thread has died"))));
        joined.collect::<Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}
