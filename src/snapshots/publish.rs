//! Publishes snapshots: the archive first, then the manifest, which makes the snapshot exist.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::archive::{self, ArchiveSummary};
use crate::platform::digest::Sha256;
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::{CLOCK_SLACK, Catalog};
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::{archive_key, key, manifest_key};
use crate::snapshots::rivals::Rivals;
use crate::snapshots::signatures::Signing;
use crate::store::{Key, Published, StoreExt, Upload};

/// The condition for reading an archive back before its manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// Only if the store did not confirm the write.
    WhenInDoubt,
    /// Always.
    Always,
}

/// The options of [`Catalog::publish_document`].
#[derive(Clone, Debug)]
pub struct Publishing {
    /// The condition for reading the archive back.
    pub read_back: ReadBack,
    /// The treatment of snapshots of other databases.
    pub rivals: Rivals,
    /// The signature.
    pub signing: Signing,
}

impl Catalog {
    /// Returns an unused id for a snapshot of `source` taken at `time`.
    pub fn new_id(&self, source: &SourceName, time: DateTime<Utc>) -> Result<SnapshotId> {
        for _ in 0..100 {
            let random = getrandom::u32().map_err(|error| {
                Error::failed("cannot get random numbers from the system").because(error.to_string())
            })?;
            let id = SnapshotId::new(source, time, (random % 1296) as u16);
            if !self.has(&id)? {
                return Ok(id);
            }
        }
        Err(Error::failed("cannot find an unused snapshot id"))
    }

    /// Starts a snapshot's archive with the given file name and at most `max_bytes`.
    pub fn start_archive(&self, id: &SnapshotId, name: &str, max_bytes: u64) -> Result<Box<dyn Upload>> {
        self.store.create_large(&key(&format!("{}/{name}", id.source()))?, max_bytes)
    }

    /// Publishes a snapshot: its archive first, then the signature of its manifest, then its manifest, and then checks that the archive still exists. Fails
    /// if the source has a snapshot of another database, unless this is a safety snapshot.
    ///
    /// On failure no new snapshot is listed. If a reply was lost, reading the object back decides.
    pub fn publish(&self, archive: Box<dyn Upload>, summary: ArchiveSummary, manifest: &Manifest) -> Result<()> {
        let document = manifest.to_json();
        let options =
            Publishing { read_back: ReadBack::WhenInDoubt, rivals: Rivals::of(manifest), signing: Signing::New };
        self.publish_document(archive, summary, manifest, &document, options)
    }

    /// Publishes a snapshot as [`publish`](Self::publish) does, with `document` as the manifest's bytes. With
    /// [`ReadBack::Always`], the whole archive is read back before the manifest is written.
    pub fn publish_document(
        &self,
        archive: Box<dyn Upload>,
        summary: ArchiveSummary,
        manifest: &Manifest,
        document: &[u8],
        options: Publishing,
    ) -> Result<()> {
        let Publishing { read_back, rivals, signing } = options;
        let id = &manifest.id;
        let archive_key = archive_key(manifest)?;
        let manifest_key = manifest_key(id)?;
        let context = |error: Error| error.context(format!("cannot publish the snapshot {id}"));
        let is_own = self.finish_archive(archive, &archive_key, summary, read_back).map_err(context)?;
        let drop_archive = || {
            if is_own {
                let _ = self.store.delete(&archive_key);
            }
        };
        let before = match rivals {
            Rivals::Ignore => None,
            Rivals::Refuse => Some(self.require_no_rival(manifest).map_err(|error| {
                drop_archive();
                context(error)
            })?),
        };
        let is_signed = self.write_signature(id, document, &signing).map_err(|error| {
            drop_archive();
            context(error)
        })?;
        let drop_archive = || {
            drop_archive();
            if is_signed {
                let _ = self.delete_signature(id);
            }
        };
        let bytes = ArchiveSummary { bytes: document.len() as u64, sha256: Sha256::of(document), index_sha256: None };
        let written = match self.store.write(&manifest_key, document) {
            Ok(Published::Created) => Ok(()),
            Ok(Published::AlreadyExists) => {
                self.accept_if_stored(&manifest_key, bytes, Error::failed("a manifest with this id already exists"))
            }
            Err(error) => self.accept_if_stored(&manifest_key, bytes, error),
        };
        if let Err(mut error) = written {
            return Err(context(match self.store.stat(&manifest_key) {
                // Delete the archive only if certainly no manifest names it; otherwise a later prune removes it. A
                // write that a remote service did not confirm may still succeed.
                Ok(None) if self.is_local() || error.kind == Kind::Failed => {
                    drop_archive();
                    error
                }
                Ok(Some(_)) => error,
                Ok(None) | Err(_) => {
                    let hint = error.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
                    error.hint(format!("{hint}run 'lifeboat list' to see whether the snapshot exists"))
                }
            }));
        }
        if let Some(before) = before
            && let Err(rival) = self.settle_rivals(manifest, &before)
        {
            self.store.delete(&manifest_key).map_err(|error| {
                context(error.hint(format!("delete it with 'lifeboat delete {id}': {}", rival.full_message())))
            })?;
            drop_archive();
            return Err(context(rival));
        }
        self.require_archive(&archive_key, &manifest_key, summary, id).map_err(context)
    }

    /// Publishes an archive. Returns true if this call has created it, and false if it may have been there before: then
    /// nothing deletes it.
    fn finish_archive(
        &self,
        archive: Box<dyn Upload>,
        key: &Key,
        summary: ArchiveSummary,
        read_back: ReadBack,
    ) -> Result<bool> {
        match (archive.finish(), read_back) {
            (Ok(Published::Created), ReadBack::WhenInDoubt) => Ok(true),
            (Ok(Published::Created), ReadBack::Always) => {
                let error = match self.hash(key, summary.bytes) {
                    Ok(found) if found == summary.sha256 => return Ok(true),
                    Ok(_) => {
                        Error::failed("the stored archive differs from the written one: its SHA-256 does not match")
                    }
                    // Also after a signal: an archive without a manifest would be listed.
                    Err(error) => error,
                };
                let _ = self.store.delete(key);
                Err(error)
            }
            (Ok(Published::AlreadyExists), ReadBack::Always) => {
                let error = Error::failed("an archive with this id already exists");
                self.accept_if_stored(key, summary, error).map(|()| false)
            }
            // The id is new and random, so no other snapshot can have this archive.
            (Ok(Published::AlreadyExists), ReadBack::WhenInDoubt) => {
                Err(Error::failed("an archive with this id already exists")
                    .hint("check whether two of the stores are the same store under different names"))
            }
            (Err(error), _) => self.accept_if_stored(key, summary, error).map(|()| read_back == ReadBack::WhenInDoubt),
        }
    }

    /// Checks that the archive still exists, now that the manifest names it. If it does not, deletes the manifest.
    fn require_archive(
        &self,
        archive_key: &Key,
        manifest_key: &Key,
        summary: ArchiveSummary,
        id: &SnapshotId,
    ) -> Result<()> {
        match self.store.stat(archive_key) {
            Ok(Some(meta)) if meta.bytes == summary.bytes => {
                if !self.is_local() {
                    self.warn_about_clock(manifest_key);
                }
                Ok(())
            }
            Ok(_) => {
                self.store.delete(manifest_key)?;
                Err(Error::failed(format!("the archive of {id} disappeared while its manifest was written")))
            }
            Err(error) => {
                // Both writes were confirmed; only this last check was not possible.
                tracing::warn!("cannot check that the archive of {id} still exists: {}", error.full_message());
                Ok(())
            }
        }
    }

    /// Publishes the archive of a snapshot that the store already lists, but whose archive is missing or damaged, and
    /// reads it back. The broken archive is deleted only now that a whole one is ready to take its place. On failure
    /// the snapshot stays damaged.
    pub fn mend_archive(&self, archive: Box<dyn Upload>, summary: ArchiveSummary, manifest: &Manifest) -> Result<()> {
        let key = archive_key(manifest)?;
        let context = |error: Error| error.context(format!("cannot mend the snapshot {}", manifest.id));
        self.store.delete(&key).map_err(context)?;
        match archive.finish() {
            Ok(Published::Created) => {
                if self.hash(&key, summary.bytes).map_err(context)? == summary.sha256 {
                    return Ok(());
                }
                Err(context(Error::failed(
                    "the stored archive differs from the written one: its SHA-256 does not match",
                )))
            }
            Ok(Published::AlreadyExists) => {
                let error = Error::failed("another process wrote its archive at the same time");
                self.accept_if_stored(&key, summary, error).map_err(context)
            }
            Err(error) => self.accept_if_stored(&key, summary, error).map_err(context),
        }
    }

    /// Warns if this machine's clock and the store's differ: snapshots are named and found by their time.
    fn warn_about_clock(&self, just_written: &Key) {
        let Ok(Some(meta)) = self.store.stat(just_written) else { return };
        let ahead = Utc::now() - DateTime::<Utc>::from(meta.modified);
        if ahead.abs() > CLOCK_SLACK {
            let which = if ahead > chrono::Duration::zero() { "ahead of" } else { "behind" };
            tracing::warn!("this machine's clock is {} s {which} the store's: correct it", ahead.num_seconds().abs());
        }
    }

    /// Returns `Ok` if the stored object has the expected length and hash; otherwise returns `error`.
    fn accept_if_stored(&self, key: &Key, expected: ArchiveSummary, error: Error) -> Result<()> {
        match self.hash(key, expected.bytes) {
            Ok(sha256) if sha256 == expected.sha256 => {
                tracing::warn!(
                    "the store's reply for {key} was lost ({}); the object was read back and is complete",
                    error.full_message()
                );
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn hash(&self, key: &Key, expected_bytes: u64) -> Result<Sha256> {
        let object = self.store.open(key)?;
        if object.len() != expected_bytes {
            return Err(Error::problem(format!("{key} has {} bytes instead of {expected_bytes}", object.len())));
        }
        archive::stream(Arc::from(object), &mut |_| Ok(()))
    }
}
