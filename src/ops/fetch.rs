//! Opens snapshots. Every byte is hashed while it is read.

use std::sync::Arc;

use crate::archive::{self, ArchiveReader, Entry, MANIFEST_PATH, README_PATH};
use crate::engine::restoring::SavedSnapshot;
use crate::engine::source::engine_named;
use crate::ops::Context;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::Ranged;
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::names_itself;

/// The start of the first line of files that are encrypted with age.
const AGE_START: &[u8; 19] = b"age-encryption.org/";

/// A snapshot whose manifest was read and whose archive was opened.
pub(crate) struct Opened {
    /// The manifest outside the archive; of an encrypted snapshot the one inside.
    pub(crate) manifest: Manifest,
    /// The manifest outside the archive, as the bytes in the store.
    pub(crate) document: Vec<u8>,
    /// The archive.
    pub(crate) reader: ArchiveReader,
    /// True if the archive has no manifest outside: it is described by its own, and `document` is that one's text.
    pub(crate) is_alone: bool,
    /// True if the archive is encrypted, whatever its manifest says.
    is_encrypted: bool,
}

/// Opens a snapshot, and compares the manifest outside the archive with the one inside before either is trusted.
pub(crate) fn open(catalog: &Catalog, id: &SnapshotId, context: &Context) -> Result<Opened> {
    let opened = open_uncompared(catalog, id, context)?;
    opened.compare_inside().map_err(|error| damaged(id, error))?;
    Ok(opened)
}

/// Opens a snapshot without comparing the two manifests. Every difference between manifest and archive that can be
/// found without reading blocks is damage. The manifest of an encrypted snapshot is read from inside the archive, since
/// the one outside has few fields.
pub(crate) fn open_uncompared(catalog: &Catalog, id: &SnapshotId, context: &Context) -> Result<Opened> {
    let (manifest, document) = catalog.manifest(id)?;
    let archive = catalog.open_archive(&manifest)?;
    let opened = || -> Result<Opened> {
        let reader = match manifest.encrypted {
            false => ArchiveReader::open(Arc::clone(&archive), context.jobs)?,
            true => ArchiveReader::open_encrypted(Arc::clone(&archive), &context.keys, context.jobs)?,
        };
        require_content(&manifest, &reader, archive, catalog)?;
        let is_encrypted = manifest.encrypted;
        let mut opened = Opened { manifest, document, reader, is_alone: false, is_encrypted };
        if opened.manifest.encrypted {
            let inside = Manifest::from_json(&opened.reader.read_entry(MANIFEST_PATH, Manifest::MAX_BYTES)?)?;
            let Manifest { archive_bytes, sha256, index_sha256, .. } = opened.manifest;
            opened.manifest = Manifest { archive_bytes, sha256, index_sha256, ..inside };
        }
        opened.check_layout()?;
        Ok(opened)
    };
    opened().map_err(|error| damaged(id, error))
}

/// Fails if the content of an archive is not the one that its manifest, which may be signed, stands for. Without this, a part
/// of an archive could be read that somebody else has put there.
fn require_content(
    manifest: &Manifest,
    reader: &ArchiveReader,
    archive: Arc<dyn Ranged>,
    catalog: &Catalog,
) -> Result<()> {
    let is_same = match manifest.index_sha256 {
        Some(sha256) => reader.index_sha256() == sha256,
        // A manifest of an earlier version that somebody has signed.
        None if catalog.requires_signatures() => Some(archive::stream(archive, &mut |_| Ok(()))?) == manifest.sha256,
        None => true,
    };
    match is_same {
        true => Ok(()),
        false => Err(Error::problem("its archive is another one than its manifest says")),
    }
}

/// Opens an archive that has no manifest outside, by the manifest in it. `name` names the archive in messages.
pub(crate) fn open_alone(archive: Arc<dyn Ranged>, name: &str, context: &Context) -> Result<Opened> {
    let archive_bytes = Some(archive.len());
    let opened = || -> Result<Opened> {
        let is_encrypted = is_encrypted(&*archive)?;
        let reader = match is_encrypted {
            false => ArchiveReader::open(archive, context.jobs)?,
            true => ArchiveReader::open_encrypted(archive, &context.keys, context.jobs)?,
        };
        let document = reader.read_entry(MANIFEST_PATH, Manifest::MAX_BYTES)?;
        let index_sha256 = Some(reader.index_sha256());
        let manifest = Manifest { archive_bytes, sha256: None, index_sha256, ..Manifest::from_json(&document)? };
        if !names_itself(&manifest) {
            return Err(Error::problem("its manifest does not describe itself"));
        }
        let opened = Opened { manifest, document, reader, is_alone: true, is_encrypted };
        opened.check_layout()?;
        Ok(opened)
    };
    opened().map_err(|error| match error.kind {
        Kind::Problem => error.context(format!("the archive {name} is damaged")),
        _ => error.context(format!("cannot open the archive {name}")),
    })
}

/// Returns true if a file begins as age's do.
pub(crate) fn is_encrypted(archive: &dyn Ranged) -> Result<bool> {
    let mut start = [0; AGE_START.len()];
    if archive.len() < start.len() as u64 {
        return Ok(false);
    }
    archive.read_at(0, &mut start).io(Kind::Unreachable, || "cannot read the archive's start".to_owned())?;
    Ok(start == *AGE_START)
}

/// Adds the snapshot's id to an error.
fn damaged(id: &SnapshotId, error: Error) -> Error {
    match error.kind {
        Kind::Problem => error.context(format!("the snapshot {id} is damaged")),
        _ => error.context(format!("cannot open the snapshot {id}")),
    }
}

/// Returns the complete manifest of a snapshot. That of an encrypted snapshot is read from inside the archive and
/// compared with the one outside. Returns the manifest outside if no key opens the archive.
pub(crate) fn manifest(catalog: &Catalog, id: &SnapshotId, context: &Context) -> Result<Manifest> {
    let (outside, _) = catalog.manifest(id)?;
    if !outside.encrypted || context.keys.is_empty() {
        return Ok(outside);
    }
    match open(catalog, id, context) {
        // None of the keys opens this snapshot.
        Err(error) if error.kind == Kind::Usage && !error.is_newer_format() => {
            tracing::warn!("{}", error.full_message());
            Ok(outside)
        }
        opened => Ok(opened?.manifest),
    }
}

impl Opened {
    fn check_layout(&self) -> Result<()> {
        let manifest = &self.manifest;
        if self.reader.codec().name() != manifest.codec {
            let codec = self.reader.codec().name();
            let message = format!("its archive is compressed with {codec}, but the manifest says {}", manifest.codec);
            return Err(Error::problem(message));
        }
        if self.reader.entry(MANIFEST_PATH)?.bytes > self.max_manifest_bytes() {
            return Err(Error::problem("the manifest inside the archive is too long to be a copy of the one outside"));
        }
        let entries = self.entries();
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Err(Error::problem("its archive is empty"));
        };
        if (*first, *last) != (README_PATH, MANIFEST_PATH) || entries.len() < 2 {
            return Err(Error::problem("its archive contains other files than those of a snapshot"));
        }
        engine_named(&manifest.engine)?.check_layout(manifest, &entries[1..entries.len() - 1])
    }

    /// Adds the snapshot's id to an error that is about its content.
    fn damaged(&self, error: Error) -> Error {
        match error.kind {
            Kind::Problem => error.context(format!("the snapshot {} is damaged", self.manifest.id)),
            _ => error,
        }
    }

    /// Returns true if the archive is encrypted, whatever its manifest says.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Reads the manifest inside the archive, and compares it with the one outside.
    pub(crate) fn compare_inside(&self) -> Result<()> {
        self.compare_manifests(&self.reader.read_entry(MANIFEST_PATH, self.max_manifest_bytes())?)
    }

    /// Returns the maximum length of the manifest inside the archive. It has fewer fields than the one outside, but
    /// perhaps more white space. That of an encrypted snapshot has more fields.
    fn max_manifest_bytes(&self) -> u64 {
        if self.manifest.encrypted { Manifest::MAX_BYTES } else { 4 * self.document.len() as u64 + 4096 }
    }

    /// Compares the manifest outside the archive with `inside`, the one in the archive.
    pub(crate) fn compare_manifests(&self, inside: &[u8]) -> Result<()> {
        if self.is_alone {
            return match self.document == inside {
                true => Ok(()),
                false => Err(Error::problem("the manifest in the archive changed while the archive was read")),
            };
        }
        match Manifest::differences(&self.document, inside)?.as_slice() {
            [] => Ok(()),
            fields => Err(Error::problem(format!(
                "the manifest outside and the one inside the archive differ in: {}",
                fields.join(", ")
            ))),
        }
    }
}

impl SavedSnapshot for Opened {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn entries(&self) -> Vec<(&str, u64)> {
        self.reader.entries().iter().map(|entry| (entry.path.as_str(), entry.bytes)).collect()
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>> {
        self.reader.read_entry(path, max_bytes)
    }

    fn read_all(&self, visitor: &mut dyn EntryVisitor) -> Result<()> {
        let mut with_manifest = ManifestKeeper { visitor, is_manifest: false, manifest: Vec::new() };
        let mut read = || {
            let walk = self.reader.walk(&mut with_manifest)?;
            // The hash of the whole archive is only in the manifest outside. The archive's own hashes cover every byte.
            if !self.is_alone && Some(walk.sha256) != self.manifest.sha256 {
                return Err(Error::problem("the SHA-256 of its archive is not the one in the manifest"));
            }
            self.compare_manifests(&with_manifest.manifest)
        };
        read().map_err(|error| self.damaged(error))
    }

    fn read_some(&self, is_wanted: &dyn Fn(&str) -> bool, visitor: &mut dyn EntryVisitor) -> Result<()> {
        let wanted: Vec<&Entry> = self.reader.entries().iter().filter(|entry| is_wanted(&entry.path)).collect();
        self.reader.visit(&wanted, visitor)
    }
}

/// Passes the entries on, and keeps the manifest.
struct ManifestKeeper<'a> {
    visitor: &'a mut dyn EntryVisitor,
    is_manifest: bool,
    manifest: Vec<u8>,
}

impl EntryVisitor for ManifestKeeper<'_> {
    fn start(&mut self, path: &str, bytes: u64) -> Result<()> {
        self.is_manifest = path == MANIFEST_PATH;
        self.visitor.start(path, bytes)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if self.is_manifest {
            self.manifest.extend_from_slice(bytes);
        }
        self.visitor.data(bytes)
    }

    fn end(&mut self) -> Result<()> {
        self.visitor.end()
    }
}
