//! The names of the objects of a snapshot in a store.

use chrono::{DateTime, Utc};

use crate::archive::Codec;
use crate::platform::error::Result;
use crate::snapshots::id::{STAMP_BYTES, SnapshotId, SourceName};
use crate::snapshots::manifest::Manifest;
use crate::store::Key;

/// The last extension of an encrypted archive's name.
pub(crate) const ENCRYPTED_ENDING: &str = ".age";

/// Returns all extensions that an archive's name can have after the id.
pub(super) fn archive_endings() -> impl Iterator<Item = String> {
    [Codec::Gzip, Codec::Zstd]
        .into_iter()
        .flat_map(|codec| ["", ENCRYPTED_ENDING].map(|ending| codec.extension().to_owned() + ending))
}

pub(super) fn is_archive(ending: &str) -> bool {
    archive_endings().any(|own| own == ending)
}

pub(super) fn key(text: &str) -> Result<Key> {
    text.parse()
}

pub(super) fn manifest_key(id: &SnapshotId) -> Result<Key> {
    key(&format!("{}/{id}.json", id.source()))
}

/// The ending of the name of a manifest's signature, after the id. `ssh-keygen -Y sign` names it so.
pub(super) const SIGNATURE_ENDING: &str = ".json.sig";

pub(super) fn signature_key(id: &SnapshotId) -> Result<Key> {
    key(&format!("{}/{id}{SIGNATURE_ENDING}", id.source()))
}

pub(super) fn archive_key(manifest: &Manifest) -> Result<Key> {
    key(&format!("{}/{}", manifest.source, manifest.archive))
}

/// Returns true if source, time, archive and encryption in a manifest are those of its id.
pub(crate) fn names_itself(manifest: &Manifest) -> bool {
    let ending = manifest.archive.strip_prefix(&manifest.id.to_string()).filter(|ending| is_archive(ending));
    ending.is_some_and(|ending| ending.ends_with(ENCRYPTED_ENDING) == manifest.encrypted)
        && &manifest.source == manifest.id.source()
        && manifest.created_at.timestamp() == manifest.id.time().timestamp()
}

/// Returns true if a file's name ends as that of an archive.
pub(crate) fn is_archive_name(name: &str) -> bool {
    archive_endings().any(|ending| name.ends_with(&ending))
}

/// Returns a text that sorts before, or is a prefix of, the names of all snapshots taken at `time` or later.
pub(super) fn first_name(source: &SourceName, time: DateTime<Utc>) -> String {
    SnapshotId::new(source, time, 0).to_string()[..source.as_str().len() + 1 + STAMP_BYTES - 5].to_owned()
}
