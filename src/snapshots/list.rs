//! Lists the snapshots of a store, and reads their manifests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::platform::error::{Error, Kind, Reason, Result, one_line};
use crate::platform::ranged::Ranged;
use crate::snapshots::catalog::{Catalog, LEFTOVER_AGE, Listed};
use crate::snapshots::id::{STAMP_BYTES, SnapshotId, SourceName};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::{
    SIGNATURE_ENDING, archive_endings, archive_key, is_archive, key, manifest_key, names_itself,
};
use crate::snapshots::proofs::{ProofLevel, ProofSummary};
use crate::snapshots::without_manifest::{ArchiveWithoutManifest, LEAST_ARCHIVE_BYTES};
use crate::store::{Key, Names, ObjectMeta};

/// The number of threads that read manifests in parallel.
pub(super) const READERS: usize = 16;
/// The size from which manifests are read one at a time: all of them at once would fill memory.
const LARGE_BYTES: u64 = 4 << 20;
/// Held while a large manifest is in memory.
static LARGE: Mutex<()> = Mutex::new(());
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
    /// The reason why a snapshot whose manifest was read all the same is not trusted.
    pub distrust: Option<Error>,
    /// The summary of its tests. A snapshot with an invalid manifest, or whose archive is missing or has another length
    /// than the manifest says, is damaged.
    pub proof: ProofSummary,
}

/// The manifests that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Those of snapshots that are trusted; the others are errors.
    Trusted,
    /// All.
    AsStored,
}

/// The objects of one snapshot, grouped by type.
#[derive(Default)]
struct Files {
    manifest: Option<ObjectMeta>,
    archives: Vec<ObjectMeta>,
    proofs: Vec<ObjectMeta>,
    signature: Option<ObjectMeta>,
}

/// Objects that belong to no snapshot, and hold no data.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Proofs and signatures without manifest and archive, and archives that are shorter than any archive, too old to belong to a
    /// snapshot in progress.
    pub objects: Vec<ObjectMeta>,
}

/// Snapshots, and archives whose manifest was not in the listing.
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
                SIGNATURE_ENDING => files.entry(id).or_default().signature = Some(object),
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

    /// Lists snapshots, and archives whose manifest was not in the listing, of one source, newest first. A caller that
    /// uses the archives calls [`only_without_manifest`](Self::only_without_manifest) first, which costs a request for
    /// each of them.
    pub(super) fn list_grouped(&self, source: &SourceName, names: Names<'_>) -> Result<Grouped> {
        let (mut listed, mut without) = (Vec::new(), Vec::new());
        for (id, files) in self.files(source, names)?.into_iter().rev() {
            let Some(manifest) = files.manifest else {
                let proofs: Vec<Key> = files.proofs.into_iter().map(|proof| proof.key).collect();
                let with_data = files.archives.into_iter().filter(|archive| archive.bytes >= LEAST_ARCHIVE_BYTES);
                without.extend(with_data.map(|archive| ArchiveWithoutManifest {
                    id: id.clone(),
                    archive,
                    proofs: proofs.clone(),
                    has_lost_manifest: false,
                }));
                continue;
            };
            // A listing made during a write may show the manifest and miss the archive.
            let archive = match files.archives.into_iter().next() {
                Some(archive) => Some(archive),
                None => self.stat_archive(&id)?,
            };
            let proofs = files.proofs.into_iter().map(|proof| proof.key).collect();
            let signature = files.signature.map(|signature| signature.key);
            listed.push(Listed { id, manifest_bytes: manifest.bytes, archive, proofs, signature });
        }
        Ok((listed, without))
    }

    /// Lists the snapshots of one source, and its archives without a manifest, newest first.
    pub fn list_with_all_archives(&self, source: &SourceName) -> Result<(Vec<Listed>, Vec<ArchiveWithoutManifest>)> {
        let (listed, archives) = self.list_grouped(source, Names::All)?;
        Ok((listed, self.only_without_manifest(archives)?))
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
        let error = Error::not_found(format!("there is no snapshot of {source} in {}", one_line(&self.location())));
        Err(match names.is_empty() {
            true => error.hint("take one with 'lifeboat snapshot'"),
            false => error.hint(format!("the store has the sources: {}", names.join(", "))),
        })
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
        let newest = self.list_newest_grouped(source, before, limit)?;
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
        let mut newest = self.list_newest_grouped(source, before, limit)?;
        newest.without_manifest = self.only_without_manifest(newest.without_manifest)?;
        Ok(newest)
    }

    fn list_newest_grouped(
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

    /// Returns proofs and signatures without manifest and archive, and archives without a manifest that cannot hold data, that are older
    /// than [`LEFTOVER_AGE`] (7 days in a remote store).
    pub fn orphans(&self, source: &SourceName) -> Result<Orphans> {
        let now = std::time::SystemTime::now();
        let most = if self.is_local() { LEFTOVER_AGE } else { REMOTE_LEFTOVER_AGE };
        let old = |object: &ObjectMeta| now.duration_since(object.modified).is_ok_and(|age| age > most);
        let has_data = |files: &Files| files.archives.iter().any(|archive| archive.bytes >= LEAST_ARCHIVE_BYTES);
        let is_orphaned = |files: &Files| files.manifest.is_none() && !has_data(files);
        let orphaned = self.files(source, Names::All)?.into_values().filter(is_orphaned);
        let of = |files: Files| files.archives.into_iter().chain(files.proofs).chain(files.signature);
        let objects = orphaned.flat_map(of).filter(old).collect();
        Ok(Orphans { objects })
    }

    /// Reads a snapshot's manifest without its tables. Threads that read large ones wait for each other.
    /// Returns it whether or not it is trusted, and the reason why it is not.
    pub(super) fn manifest_without_tables(&self, listed: &Listed) -> Result<(Manifest, Option<Error>)> {
        let is_large = listed.manifest_bytes >= LARGE_BYTES;
        let _turn = is_large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        let (manifest, document) = self.manifest_as_stored(&listed.id)?;
        let distrust = match self.require_trusted(&manifest, &document) {
            Err(error) if !error.is_not_trusted() => return Err(error),
            checked => checked.err(),
        };
        // The tables of thousands of manifests would fill memory.
        Ok((Manifest { tables: Vec::new(), sqlite: None, ..manifest }, distrust))
    }

    /// Reads a snapshot's manifest. Returns it parsed and as bytes. Fails with [`Reason::NotTrusted`] if the snapshot is
    /// not trusted.
    pub fn manifest(&self, id: &SnapshotId) -> Result<(Manifest, Vec<u8>)> {
        let (manifest, document) = self.manifest_as_stored(id)?;
        self.require_trusted(&manifest, &document)?;
        Ok((manifest, document))
    }

    /// Reads a snapshot's manifest, trusted or not. Returns it parsed and as bytes.
    pub fn manifest_as_stored(&self, id: &SnapshotId) -> Result<(Manifest, Vec<u8>)> {
        let bytes = self.store.read(&manifest_key(id)?, Manifest::MAX_BYTES).map_err(|error| match error.kind {
            Kind::NotFound => {
                Error::not_found(format!("there is no snapshot {id}")).hint("run 'lifeboat list' to see the snapshots")
            }
            _ => error,
        })?;
        let manifest = Manifest::from_json(&bytes).map_err(|error| {
            if error.is_newer_format() {
                return error.context(format!("cannot read the snapshot {id}"));
            }
            let error = error.context(format!("the snapshot {id} is damaged")).hint(
                "its archive holds its own manifest, and may be whole: 'lifeboat restore PATH' with the path of the \
                 archive restores it",
            );
            let is_lost = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_err();
            if is_lost { error.reason(Reason::ManifestIsLost) } else { error }
        })?;
        if &manifest.id != id || !names_itself(&manifest) {
            let message = format!("the snapshot {id} is damaged: its manifest belongs to another snapshot");
            return Err(Error::problem(message));
        }
        Ok((manifest, bytes))
    }

    /// Returns the rows in a manifest of a newer format, as far as this version can read them. See
    /// [`Manifest::rows_of_newer`].
    pub fn rows_of_newer(&self, id: &SnapshotId) -> Result<Option<Manifest>> {
        let bytes = self.store.read(&manifest_key(id)?, Manifest::MAX_BYTES)?;
        Ok(Manifest::rows_of_newer(&bytes).filter(|manifest| manifest.id == *id))
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
    /// read at this moment, or that is not trusted, has the error in [`Described::manifest`].
    pub fn describe(&self, listed: Vec<Listed>) -> Result<Vec<Described>> {
        self.describe_by(listed, Reading::Trusted)
    }

    /// Does the same as [`describe`](Self::describe), but also reads the manifests of snapshots that are not trusted: see
    /// [`Described::distrust`].
    pub fn describe_as_stored(&self, listed: Vec<Listed>) -> Result<Vec<Described>> {
        self.describe_by(listed, Reading::AsStored)
    }

    fn describe_by(&self, listed: Vec<Listed>, reading: Reading) -> Result<Vec<Described>> {
        let one = |listed: Listed| -> Result<Option<Described>> {
            let mut distrust = None;
            let read = self.manifest_without_tables(&listed).and_then(|(manifest, found)| match (found, reading) {
                (Some(error), Reading::Trusted) => Err(error),
                (found, _) => {
                    distrust = found;
                    Ok(manifest)
                }
            });
            let manifest = match read {
                Err(error) if error.kind == Kind::NotFound => return Ok(None),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                // One unreadable manifest must not hide the other snapshots.
                manifest => manifest,
            };
            // The use of a snapshot depends on its tests: if its proofs cannot be read, its state is unknown.
            let (manifest, mut proof) = match self.proof(&listed) {
                Ok(proof) => (manifest, proof),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => (manifest.and(Err(error)), ProofSummary::default()),
            };
            match &manifest {
                Err(error) if error.is_not_trusted() => {}
                Err(error) if error.kind == Kind::Problem => proof.level = ProofLevel::Damaged,
                // A newer version may also name its archives in another way: nothing here says that it is damaged.
                Err(error) if error.is_newer_format() => proof = ProofSummary::default(),
                // The length is known from the listing: an archive that was cut is not counted as a good one.
                Ok(manifest) if has_other_length(&listed, manifest) => proof.level = ProofLevel::Damaged,
                _ => {}
            }
            Ok(Some(Described { listed, manifest, distrust, proof }))
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
pub(super) fn in_parallel<T: Send, R: Send>(items: Vec<T>, one: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
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
