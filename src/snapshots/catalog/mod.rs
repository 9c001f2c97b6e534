//! The catalog: lists, describes, publishes and deletes the snapshots in a store.
//!
//! ```text
//! lifeboat.json                     the store's format version
//! <source>/<id>.tar.gz              the archive; .tar.zst with zstd, followed by .age if it is encrypted
//! <source>/<id>.json                the manifest, written last: it makes the snapshot exist
//! <source>/<id>.proof-<time>.json   the result of a verify or drill
//! <source>/<id>.lease-<random>      the mark of a reader at work (see `lease`)
//! ```

mod lease;
mod newest;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::archive::{self, ArchiveSummary, Codec, FORMAT};
use crate::platform::digest::Sha256;
use crate::platform::error::{Error, Kind, Result, one_line};
use crate::platform::ranged::Ranged;
use crate::snapshots::id::{STAMP_BYTES, SnapshotId, SourceName};
use crate::snapshots::manifest::{Manifest, SnapshotKind};
use crate::store::{Key, Names, ObjectMeta, Published, Store, Upload};

pub use lease::Lease;

/// The last extension of an encrypted archive's name.
pub const SEALED_ENDING: &str = ".age";
const STORE_DOCUMENT: &str = "lifeboat.json";
/// The prefix of the names of objects with which `doctor` tests a store.
pub const TRIAL_PREFIX: &str = "trial-";
/// The most that another machine's clock may be ahead before its snapshots count as dated in the future.
const CLOCK_SLACK: chrono::Duration = chrono::Duration::seconds(60);
/// The number of threads that read manifests in parallel.
const READERS: usize = 16;
/// The number of snapshots of a remote store that are deleted together.
const DELETED_AT_ONCE: usize = 300;
const MAX_PROOF_BYTES: u64 = 1 << 20;
const MAX_DOCUMENT_BYTES: u64 = 1 << 16;
/// The minimum age of a crashed writer's data before it is removed.
pub const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);

/// The minimum age of archives and proofs without a manifest in a remote store before they are removed. There, an
/// archive's age may count from the start of its upload, which can take days, and the archive may be read back before
/// its manifest is written.
const FAR_LEFTOVER_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The result of a snapshot's tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofLevel {
    /// The snapshot was not tested.
    None,
    /// Every byte was read and its hash checked.
    Verified,
    /// The snapshot was restored and compared.
    Drilled,
    /// The snapshot is damaged; overrides all other levels.
    Damaged,
}

impl ProofLevel {
    /// Returns its name in tables and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProofLevel::None => "none",
            ProofLevel::Verified => "verified",
            ProofLevel::Drilled => "drilled",
            ProofLevel::Damaged => "damaged",
        }
    }
}

/// The result of one test, as stored in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// The snapshot.
    pub id: SnapshotId,
    /// The result of the test.
    pub level: ProofLevel,
    /// The time at which it ended.
    pub at: DateTime<Utc>,
    /// The machine that ran it.
    pub host: String,
    /// The duration of the test.
    pub seconds: f64,
    /// The duration of the restore in a drill, including checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_seconds: Option<f64>,
    /// The problems found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The summary of all tests of one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct ProofSummary {
    /// The newest test's level, or `Damaged` if any test found damage.
    pub level: ProofLevel,
    /// The time of the test that determines the level.
    pub at: Option<DateTime<Utc>>,
    /// True if any drill ever succeeded.
    pub drilled: bool,
    /// The time of the newest successful drill.
    pub drilled_at: Option<DateTime<Utc>>,
    /// The restore time that the newest successful drill measured.
    pub restore_seconds: Option<f64>,
}

impl Default for ProofSummary {
    fn default() -> Self {
        ProofSummary { level: ProofLevel::None, at: None, drilled: false, drilled_at: None, restore_seconds: None }
    }
}

/// A snapshot known only from the names in a store: its manifest exists, but was not read yet.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its id.
    pub id: SnapshotId,
    /// Its archive; `None` if it is missing.
    pub archive: Option<ObjectMeta>,
    /// The keys of its proofs, oldest first.
    pub proofs: Vec<Key>,
}

/// A snapshot with its manifest and its proofs.
#[derive(Debug)]
pub struct Described {
    /// The facts known from the names.
    pub listed: Listed,
    /// The manifest, or the error that prevents its use.
    pub manifest: Result<Manifest>,
    /// The summary of its tests. A snapshot with a missing archive or an invalid manifest is damaged.
    pub proof: ProofSummary,
}

/// The conditions that a snapshot must meet to be `latest`.
#[derive(Clone, Debug, Default)]
pub struct Narrow {
    /// Only snapshots of this source.
    pub source: Option<SourceName>,
    /// Only snapshots with all of these tags.
    pub tags: Vec<String>,
    /// Only snapshots without this tag.
    pub without: Option<String>,
    /// Only snapshots taken before this time.
    pub before: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
struct StoreDocument {
    lifeboat_store: u32,
}

/// The snapshots of one store.
pub struct Catalog {
    store: Box<dyn Store>,
}

/// The objects of one snapshot, grouped by type.
#[derive(Default)]
struct Files {
    manifest: Option<ObjectMeta>,
    archives: Vec<ObjectMeta>,
    proofs: Vec<ObjectMeta>,
}

/// Objects that belong to no snapshot.
#[derive(Debug, Default)]
pub struct Orphans {
    /// Archives and proofs without a manifest, too old to belong to a snapshot in progress.
    pub objects: Vec<ObjectMeta>,
}

impl Catalog {
    /// Opens an existing store.
    pub fn open(store: Box<dyn Store>) -> Result<Self> {
        let location = store.location();
        let document = store.read(&key(STORE_DOCUMENT)?, MAX_DOCUMENT_BYTES).map_err(|error| match error.kind {
            Kind::NotFound => Error::unreachable(format!("there is no lifeboat store in {}", one_line(&location))).hint(
                match store.is_near() {
                    true => "check the path, and that its disk is mounted; 'lifeboat snapshot --store' makes a new store where there is no folder yet",
                    false => "check the bucket and the prefix; 'lifeboat snapshot --store' makes a new store where there is nothing yet",
                },
            ),
            _ => error,
        })?;
        let document: StoreDocument = serde_json::from_slice(&document).map_err(|error| {
            Error::problem(format!("{STORE_DOCUMENT} in {} is not readable", one_line(&location))).because(error)
        })?;
        if document.lifeboat_store != FORMAT {
            return Err(Error::usage(format!(
                "the store {} has the unknown format version {}",
                one_line(&location),
                document.lifeboat_store
            ))
            .hint("a newer lifeboat made it: use that one"));
        }
        Ok(Catalog { store })
    }

    /// Returns true if `store` is already a store of snapshots.
    pub fn is_there(store: &dyn Store) -> Result<bool> {
        // Read instead of stat: if the request is refused, only a reply with a body has the cause.
        match store.read(&key(STORE_DOCUMENT)?, MAX_DOCUMENT_BYTES) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns true if an object with this name at a store's top level belongs to the store itself.
    #[must_use]
    pub fn is_own(name: &str) -> bool {
        name == STORE_DOCUMENT || name.starts_with(TRIAL_PREFIX)
    }

    /// Creates a store in an empty place, and opens it.
    pub fn create(store: Box<dyn Store>) -> Result<Self> {
        let document = serde_json::to_vec(&StoreDocument { lifeboat_store: FORMAT }).expect("one number");
        // If another process was first, the document is the same.
        let _ = store.write(&key(STORE_DOCUMENT)?, &document)?;
        Catalog::open(store)
    }

    /// Returns the store's location.
    #[must_use]
    pub fn location(&self) -> String {
        self.store.location()
    }

    /// Returns the store's free space in bytes, or `None` if it is not known.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        self.store.free_bytes()
    }

    /// Returns true if the store is local, false if it is reached over a network.
    #[must_use]
    pub fn is_near(&self) -> bool {
        self.store.is_near()
    }

    /// Returns the sources that have a folder in the store, sorted by name. A folder may have no snapshot.
    pub fn sources(&self) -> Result<Vec<SourceName>> {
        Ok(self.store.list("", Names::All)?.folders.iter().filter_map(|folder| folder.parse().ok()).collect())
    }

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

    fn list_named(&self, source: &SourceName, names: Names<'_>) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for (id, files) in self.files(source, names)?.into_iter().rev() {
            if files.manifest.is_none() {
                continue;
            }
            // A listing made during a write may show the manifest and miss the archive.
            let archive = match files.archives.into_iter().next() {
                Some(archive) => Some(archive),
                None => self.stat_archive(&id)?,
            };
            listed.push(Listed { id, archive, proofs: files.proofs.into_iter().map(|proof| proof.key).collect() });
        }
        Ok(listed)
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
            .hint(format!("the store knows: {}", names.join(", "))))
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
        let sources = match source {
            Some(source) => vec![source.clone()],
            None => self.sources()?,
        };
        let (mut all, mut is_all) = (Vec::new(), true);
        let fits = |listed: &Listed| before.is_none_or(|before| listed.id.time() < before);
        for source in &sources {
            let mut newest = self.newest_first(source, before);
            let most = if self.store.is_near() { usize::MAX } else { limit };
            for listed in newest.by_ref().filter(|listed| listed.as_ref().map_or(true, fits)).take(most) {
                all.push(listed?);
            }
            is_all &= newest.is_at_end();
        }
        all.sort_by(|a, b| b.id.stamp().cmp(a.id.stamp()));
        let left_out = all.len().saturating_sub(limit);
        all.truncate(limit);
        Ok((all, if is_all { LeftOut::These(left_out) } else { LeftOut::Some }))
    }

    /// Returns archives and proofs without a manifest that are older than [`LEFTOVER_AGE`] (7 days in a remote store).
    pub fn orphans(&self, source: &SourceName) -> Result<Orphans> {
        let now = std::time::SystemTime::now();
        let most = if self.is_near() { LEFTOVER_AGE } else { FAR_LEFTOVER_AGE };
        let old = |object: &ObjectMeta| now.duration_since(object.modified).is_ok_and(|age| age > most);
        let lonely = self.files(source, Names::All)?.into_values().filter(|files| files.manifest.is_none());
        let objects = lonely.flat_map(|files| files.archives.into_iter().chain(files.proofs)).filter(old).collect();
        Ok(Orphans { objects })
    }

    /// Reads a snapshot's manifest. Returns it parsed and as bytes.
    pub fn manifest(&self, id: &SnapshotId) -> Result<(Manifest, Vec<u8>)> {
        let bytes = self.store.read(&manifest_key(id)?, Manifest::MAX_BYTES).map_err(|error| match error.kind {
            Kind::NotFound => {
                Error::not_found(format!("there is no snapshot {id}")).hint("'lifeboat list' shows what there is")
            }
            _ => error,
        })?;
        let manifest =
            Manifest::from_json(&bytes).map_err(|error| error.context(format!("the snapshot {id} is damaged")))?;
        let ending = manifest.archive.strip_prefix(&id.to_string()).filter(|ending| is_archive(ending));
        let own_archive = ending.is_some_and(|ending| ending.ends_with(SEALED_ENDING) == manifest.encrypted);
        let same_time = manifest.created_at.timestamp() == id.time().timestamp();
        if &manifest.id != id || &manifest.source != id.source() || !own_archive || !same_time {
            return Err(Error::problem(format!("the snapshot {id} is damaged: its manifest is of another snapshot")));
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
                Error::not_found(format!("there is no snapshot {id} any more"))
            }
            Kind::NotFound => Error::problem(format!("the snapshot {id} is damaged: its archive is missing")),
            _ => error,
        })?;
        if Some(archive.len()) != manifest.archive_bytes {
            return Err(Error::problem(format!(
                "the snapshot {id} is damaged: its archive has {} bytes where the manifest says {}",
                archive.len(),
                manifest.archive_bytes.map_or("nothing".to_owned(), |bytes| bytes.to_string())
            )));
        }
        Ok(Arc::from(archive))
    }

    /// Reads a snapshot's proofs and returns their summary.
    pub fn proof(&self, listed: &Listed) -> Result<ProofSummary> {
        let mut summary = ProofSummary::default();
        if listed.archive.is_none() {
            summary.level = ProofLevel::Damaged;
        }
        for key in &listed.proofs {
            let proof = match self.store.read(key, MAX_PROOF_BYTES) {
                Ok(bytes) => Some(serde_json::from_slice::<Proof>(&bytes).map_err(|error| {
                    Error::unreachable(format!("the proof {key} cannot be read"))
                        .because(error)
                        .hint("look at it, and remove it where it says nothing; then verify the snapshot")
                })?),
                // The proof was deleted after the listing.
                Err(error) if error.kind == Kind::NotFound => None,
                Err(error) => return Err(error),
            };
            let Some(proof) = proof.filter(|proof| proof.id == listed.id) else { continue };
            if proof.level == ProofLevel::Drilled {
                summary.drilled = true;
                summary.drilled_at = Some(proof.at);
                summary.restore_seconds = proof.restore_seconds;
            }
            if summary.level != ProofLevel::Damaged {
                (summary.level, summary.at) = (proof.level, Some(proof.at));
            }
        }
        Ok(summary)
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
            if manifest.as_ref().is_err_and(|error| error.kind == Kind::Problem) {
                proof.level = ProofLevel::Damaged;
            }
            Ok(Some(Described { listed, manifest, proof }))
        };
        let share = listed.len().div_ceil(READERS).max(1);
        let mut shares: Vec<Vec<Listed>> = Vec::new();
        let mut rest = listed.into_iter().peekable();
        while rest.peek().is_some() {
            shares.push(rest.by_ref().take(share).collect());
        }
        let read = |share: Vec<Listed>| share.into_iter().map(one).collect::<Result<Vec<_>>>();
        let parts = thread::scope(|scope| {
            let threads: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| read(share))).collect();
            let joined = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::failed("a thread has died"))));
            joined.collect::<Result<Vec<_>>>()
        })?;
        Ok(parts.into_iter().flatten().flatten().collect())
    }

    /// Finds the snapshot that a user names by its id, a unique prefix of its id, or `latest`.
    pub fn find(&self, wanted: &str, narrow: &Narrow) -> Result<Listed> {
        if wanted == "latest" {
            return self.latest(narrow);
        }
        if !narrow.tags.is_empty() || narrow.before.is_some() {
            return Err(Error::usage("--tag and --before choose among snapshots, and this one is named")
                .hint("name 'latest' with them"));
        }
        self.by_prefix(wanted, narrow)
    }

    fn by_prefix(&self, wanted: &str, narrow: &Narrow) -> Result<Listed> {
        let none = || {
            Error::not_found(format!("there is no snapshot {} in {}", one_line(wanted), one_line(&self.location())))
                .hint("'lifeboat list' shows what there is")
        };
        if wanted.is_empty() {
            return Err(Error::usage("a snapshot is named by its id, the start of one, or 'latest'"));
        }
        let could_be = |source: &SourceName| {
            let start = format!("{source}-");
            start.starts_with(wanted) || wanted.starts_with(&start)
        };
        let mut found = Vec::new();
        for source in self.sources()?.iter().filter(|source| could_be(source)) {
            if narrow.source.as_ref().is_none_or(|only| only == source) {
                found.extend(self.list_named(source, Names::StartingWith(wanted))?);
            }
        }
        if let Some(exact) = found.iter().position(|listed| listed.id.to_string() == wanted) {
            return Ok(found.swap_remove(exact));
        }
        match found.len() {
            0 => Err(none()),
            1 => Ok(found.swap_remove(0)),
            count => {
                let some: Vec<String> = found.iter().take(3).map(|listed| listed.id.to_string()).collect();
                Err(Error::usage(format!("'{}' is the start of {count} snapshots", one_line(wanted))).hint(format!(
                    "name more of the id: {}{}",
                    some.join(", "),
                    if count > 3 { ", ..." } else { "" }
                )))
            }
        }
    }

    fn latest(&self, narrow: &Narrow) -> Result<Listed> {
        let source = match &narrow.source {
            Some(source) => source.clone(),
            None => {
                let mut sources = self.sources()?;
                if sources.len() > 1 {
                    // A folder without a snapshot (empty, or with data of a crashed writer) is not a source.
                    let mut lived_in = Vec::new();
                    for source in sources {
                        if self.newest_first(&source, None).next().transpose()?.is_some() {
                            lived_in.push(source);
                        }
                    }
                    sources = lived_in;
                }
                if sources.len() > 1 {
                    let names: Vec<&str> = sources.iter().map(SourceName::as_str).collect();
                    return Err(Error::usage(format!(
                        "the store has snapshots of several sources: {}",
                        names.join(", ")
                    ))
                    .hint("say which with --source"));
                }
                sources.pop().ok_or_else(|| {
                    Error::not_found(format!("there is no snapshot in {}", one_line(&self.location())))
                        .hint("take one with 'lifeboat snapshot'")
                })?
            }
        };
        let now = Utc::now();
        for listed in self.newest_first(&source, narrow.before) {
            let listed = listed?;
            // The listing includes the second of `before`.
            if narrow.before.is_some_and(|before| listed.id.time() >= before) {
                continue;
            }
            if listed.id.time() > now + CLOCK_SLACK {
                tracing::warn!("{} is dated in the future and passed over: a clock was or is wrong", listed.id);
                continue;
            }
            // One at a time: nearly always the first one matches.
            let Some(described) = self.describe(vec![listed])?.pop() else { continue };
            if described.proof.level == ProofLevel::Damaged {
                tracing::warn!("{} is damaged and passed over", described.listed.id);
                continue;
            }
            let manifest = match described.manifest {
                Ok(manifest) => manifest,
                Err(error) if error.kind != Kind::Problem && !self.is_near() => {
                    return Err(error.context(format!("cannot tell whether {} is the latest", described.listed.id)));
                }
                Err(error) => {
                    tracing::warn!("{} is passed over: {}", described.listed.id, error.whole());
                    continue;
                }
            };
            let tagged = narrow.tags.iter().all(|tag| manifest.tags.contains(tag))
                && narrow.without.as_ref().is_none_or(|tag| !manifest.tags.contains(tag));
            if manifest.kind == SnapshotKind::Full
                && tagged
                && narrow.before.is_none_or(|before| manifest.created_at < before)
            {
                return Ok(described.listed);
            }
        }
        Err(Error::not_found(format!(
            "there is no full, undamaged snapshot of {source} that fits in {}",
            one_line(&self.location())
        ))
        .hint("'lifeboat list' shows what there is"))
    }

    /// Returns the newest readable manifest of a full snapshot of `source`, damaged or not; `None` if there is none.
    pub fn newest_full(&self, source: &SourceName) -> Result<Option<Manifest>> {
        for listed in self.newest_first(source, None) {
            match self.manifest(&listed?.id) {
                Ok((manifest, _)) if manifest.kind == SnapshotKind::Full => return Ok(Some(manifest)),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                // In a local store, skip one unreadable file. In a remote store, the whole service is unreachable.
                Err(error) if error.kind == Kind::Unreachable && !self.is_near() => return Err(error),
                Err(error) if error.kind == Kind::Unreachable => tracing::warn!("{}", error.whole()),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Returns true if the store has a snapshot with this id.
    pub fn has(&self, id: &SnapshotId) -> Result<bool> {
        Ok(self.store.stat(&manifest_key(id)?)?.is_some())
    }

    /// Returns an unused id for a snapshot of `source` taken at `time`.
    pub fn new_id(&self, source: &SourceName, time: DateTime<Utc>) -> Result<SnapshotId> {
        for _ in 0..100 {
            let random = getrandom::u32()
                .map_err(|error| Error::failed("the system gives no random numbers").because(error.to_string()))?;
            let id = SnapshotId::new(source, time, (random % 1296) as u16);
            if !self.has(&id)? {
                return Ok(id);
            }
        }
        Err(Error::failed("found no free snapshot id"))
    }

    /// Starts a snapshot's archive with the given file name and at most `most_bytes`.
    pub fn start_archive(&self, id: &SnapshotId, name: &str, most_bytes: u64) -> Result<Box<dyn Upload>> {
        self.store.create_large(&key(&format!("{}/{name}", id.source()))?, most_bytes)
    }

    /// Publishes a snapshot: its archive first, then its manifest, and then checks that the archive still exists.
    ///
    /// On failure no new snapshot is listed. If a reply was lost, reading the object back decides.
    pub fn publish(&self, archive: Box<dyn Upload>, summary: ArchiveSummary, manifest: &Manifest) -> Result<()> {
        self.publish_document(archive, summary, manifest, &manifest.to_json(), ReadBack::WhenInDoubt)
    }

    /// Publishes a snapshot as [`publish`](Self::publish) does, with `document` as the manifest's bytes. With
    /// [`ReadBack::Always`], the whole archive is read back before the manifest is written.
    pub fn publish_document(
        &self,
        archive: Box<dyn Upload>,
        summary: ArchiveSummary,
        manifest: &Manifest,
        document: &[u8],
        read_back: ReadBack,
    ) -> Result<()> {
        let id = &manifest.id;
        let archive_key = archive_key(manifest)?;
        let manifest_key = manifest_key(id)?;
        let context = |error: Error| error.context(format!("cannot publish the snapshot {id}"));
        let settle = |error: Error| self.settle(&archive_key, summary, error).map_err(context);
        match (archive.finish(), read_back) {
            (Ok(Published::Created), ReadBack::WhenInDoubt) => {}
            (Ok(Published::Created), ReadBack::Always) => {
                let sha256 = self.hash(&archive_key, summary.bytes).map_err(context)?;
                if sha256 != summary.sha256 {
                    let _ = self.store.delete(&archive_key);
                    return Err(context(Error::failed(
                        "what was stored is not what was written: its SHA-256 is another",
                    )));
                }
            }
            (Ok(Published::AlreadyThere), ReadBack::Always) => {
                settle(Error::failed("an archive of that id is there already"))?;
            }
            // The id is new and random, so no other snapshot can have this archive.
            (Ok(Published::AlreadyThere), ReadBack::WhenInDoubt) => {
                return Err(context(
                    Error::failed("an archive of that id is there already")
                        .hint("are two of the stores one, under two names?"),
                ));
            }
            (Err(error), _) => settle(error)?,
        }
        let bytes = ArchiveSummary { bytes: document.len() as u64, sha256: Sha256::of(document) };
        let written = match self.store.write(&manifest_key, document) {
            Ok(Published::Created) => Ok(()),
            Ok(Published::AlreadyThere) => {
                self.settle(&manifest_key, bytes, Error::failed("a manifest of that id is there already"))
            }
            Err(error) => self.settle(&manifest_key, bytes, error),
        };
        if let Err(mut error) = written {
            return Err(context(match self.store.stat(&manifest_key) {
                // Delete the archive only if certainly no manifest names it; otherwise a later prune removes it. A
                // write that a remote service did not confirm may still succeed.
                Ok(None) if self.is_near() || error.kind == Kind::Failed => {
                    let _ = self.store.delete(&archive_key);
                    error
                }
                Ok(Some(_)) => error,
                Ok(None) | Err(_) => {
                    let hint = error.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
                    error.hint(format!("{hint}whether it is there after all, 'lifeboat list' will tell"))
                }
            }));
        }
        match self.store.stat(&archive_key) {
            Ok(Some(meta)) if meta.bytes == summary.bytes => {
                if !self.is_near() {
                    self.tell_clock(&manifest_key);
                }
                Ok(())
            }
            Ok(_) => {
                self.store.delete(&manifest_key).map_err(context)?;
                Err(Error::failed(format!("the archive of {id} vanished while its manifest was written")))
            }
            Err(error) => {
                // Both writes were confirmed; only this last check was not possible.
                tracing::warn!("cannot look whether the archive of {id} is still there: {}", error.whole());
                Ok(())
            }
        }
    }

    /// Warns if this machine's clock and the store's differ: snapshots are named and found by their time.
    fn tell_clock(&self, just_written: &Key) {
        let Ok(Some(meta)) = self.store.stat(just_written) else { return };
        let ahead = Utc::now() - DateTime::<Utc>::from(meta.modified);
        if ahead.abs() > CLOCK_SLACK {
            let which = if ahead > chrono::Duration::zero() { "ahead of" } else { "behind" };
            tracing::warn!("this machine's clock is {} s {which} the store's: set it", ahead.num_seconds().abs());
        }
    }

    /// Returns `Ok` if the stored object has the expected length and hash; otherwise returns `error`.
    fn settle(&self, key: &Key, expected: ArchiveSummary, error: Error) -> Result<()> {
        match self.hash(key, expected.bytes) {
            Ok(sha256) if sha256 == expected.sha256 => {
                tracing::warn!(
                    "the store's reply for {key} was lost ({}); reading back shows it is there, whole",
                    error.whole()
                );
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn hash(&self, key: &Key, expected_bytes: u64) -> Result<Sha256> {
        let object = self.store.open(key)?;
        if object.len() != expected_bytes {
            return Err(Error::problem(format!("{key} has another length")));
        }
        archive::stream(Arc::from(object), &mut |_| Ok(()))
    }

    /// Stores a test's result.
    pub fn record_proof(&self, proof: &Proof) -> Result<()> {
        let document = serde_json::to_vec_pretty(proof).expect("a proof has only string keys");
        let mut at = proof.at;
        for _ in 0..100 {
            let name = format!("{}/{}.proof-{}.json", proof.id.source(), proof.id, at.format("%Y%m%dT%H%M%S%3fZ"));
            if self.store.write(&key(&name)?, &document)? == Published::Created {
                return Ok(());
            }
            at += chrono::Duration::milliseconds(1);
        }
        Err(Error::failed(format!("cannot record the proof of {}", proof.id)))
    }

    /// Deletes snapshots, manifests first, so that an interrupted deletion leaves no partly deleted snapshot in
    /// listings. Returns the bytes of their archives.
    pub fn delete(&self, doomed: &[&Listed]) -> Result<u64> {
        let mut freed_bytes = 0;
        for some in doomed.chunks(if self.store.is_near() { 1 } else { DELETED_AT_ONCE }) {
            crate::platform::interrupt::check()?;
            let manifests = some.iter().map(|listed| manifest_key(&listed.id)).collect::<Result<Vec<_>>>()?;
            let archives = some.iter().filter_map(|listed| listed.archive.as_ref());
            let rest =
                some.iter().flat_map(|listed| &listed.proofs).chain(archives.clone().map(|archive| &archive.key));
            let delete = |keys: &[Key]| {
                let first = &some[0].id;
                self.store.delete_all(keys).map_err(|error| match some.len() {
                    1 => error.context(format!("cannot delete the snapshot {first}")),
                    more => error.context(format!("cannot delete {more} snapshots, the newest of them {first}")),
                })
            };
            delete(&manifests)?;
            delete(&rest.cloned().collect::<Vec<_>>())?;
            freed_bytes += archives.map(|archive| archive.bytes).sum::<u64>();
        }
        Ok(freed_bytes)
    }

    /// Deletes an object that belongs to no snapshot, after checking again that there is no manifest.
    pub fn delete_orphan(&self, object: &ObjectMeta) -> Result<()> {
        let id_bytes = object.key.folder().len() + 1 + STAMP_BYTES;
        let id = object.key.name().get(..id_bytes).and_then(|id| id.parse::<SnapshotId>().ok());
        match id {
            Some(id) if self.store.stat(&manifest_key(&id)?)?.is_none() => self.store.delete(&object.key),
            _ => Ok(()),
        }
    }

    /// Removes data of crashed uploads and of interrupted tests of the store that is older than [`LEFTOVER_AGE`].
    /// Returns the number of bytes freed.
    pub fn clear_leftovers(&self) -> Result<u64> {
        let mut freed_bytes = self.store.clear_leftovers(LEFTOVER_AGE)?;
        let now = std::time::SystemTime::now();
        for object in self.store.list("", Names::StartingWith(TRIAL_PREFIX))?.objects {
            if now.duration_since(object.modified).is_ok_and(|age| age > LEFTOVER_AGE) {
                self.store.delete(&object.key)?;
                freed_bytes += object.bytes;
            }
        }
        Ok(freed_bytes)
    }
}

/// The condition for reading an archive back before its manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Only if the store did not confirm the write.
    WhenInDoubt,
    /// Always.
    Always,
}

/// The number of snapshots that a listing left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Exactly this many.
    These(usize),
    /// There may be some; they were not listed.
    Some,
}

/// Returns all extensions that an archive's name can have after the id.
fn archive_endings() -> impl Iterator<Item = String> {
    [Codec::Gzip, Codec::Zstd]
        .into_iter()
        .flat_map(|codec| ["", SEALED_ENDING].map(|sealed| codec.extension().to_owned() + sealed))
}

fn is_archive(ending: &str) -> bool {
    archive_endings().any(|own| own == ending)
}

fn key(text: &str) -> Result<Key> {
    text.parse()
}

fn manifest_key(id: &SnapshotId) -> Result<Key> {
    key(&format!("{}/{id}.json", id.source()))
}

fn archive_key(manifest: &Manifest) -> Result<Key> {
    key(&format!("{}/{}", manifest.source, manifest.archive))
}
