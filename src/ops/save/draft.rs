//! Writes an archive: compressed once, encrypted once, written to every store, and published in each.

use std::io::{self, Write};

use chrono::{DateTime, Utc};

use crate::archive::{ArchiveWriter, Compression, EncryptingWriter, MANIFEST_PATH};
use crate::ops::Context;
use crate::ops::destination::Destination;
use crate::ops::save::fanout::Fanout;
use crate::platform::entries::EntryWriter;
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::{SnapshotId, SourceName};
use crate::snapshots::manifest::Manifest;
use crate::snapshots::names::ENCRYPTED_ENDING;
use crate::snapshots::trust::Signer;

/// A snapshot that was made.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Its complete manifest, with the fields that the manifest outside an encrypted archive leaves out.
    pub manifest: Manifest,
    /// The stores that have it.
    pub stores: Vec<String>,
    /// The errors of the stores that do not have it.
    pub failures: Vec<Error>,
}

/// An archive that is being written.
pub(super) struct Draft<'a> {
    pub(super) id: SnapshotId,
    /// The archive's file name.
    name: String,
    pub(super) archive: ArchiveWriter<Outlet>,
    destination: &'a Destination<'a>,
}

/// The output that an archive is written to.
pub(super) enum Outlet {
    Plain(Fanout),
    Encrypted(Box<EncryptingWriter<Fanout>>),
}

impl<'a> Draft<'a> {
    /// Starts the archive of a snapshot in every store; `max_bytes` is the largest size that its contents should have.
    pub(super) fn start(
        destination: &'a Destination<'a>,
        source: &SourceName,
        started: DateTime<Utc>,
        compression: Compression,
        max_bytes: u64,
        context: &Context,
    ) -> Result<Self> {
        let id = destination.new_id(source, started)?;
        let ending = if destination.encrypt_with.is_some() { ENCRYPTED_ENDING } else { "" };
        let name = format!("{id}{}{ending}", compression.codec().extension());
        // Compression and encryption add no more than this.
        let max_bytes = max_bytes + max_bytes / 64 + (1 << 20);
        let start = |catalog: &&Catalog| catalog.start_archive(&id, &name, max_bytes);
        let fanout = Fanout::new(destination.catalogs.iter().map(start).collect())?;
        let outlet = match &destination.encrypt_with {
            None => Outlet::Plain(fanout),
            Some(encrypt_with) => Outlet::Encrypted(Box::new(EncryptingWriter::create(fanout, encrypt_with)?)),
        };
        let mtime = started.timestamp().unsigned_abs();
        let archive = ArchiveWriter::create(outlet, compression, context.jobs, mtime)?;
        Ok(Draft { id, name, archive, destination })
    }

    /// Returns the archive's file name.
    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    /// Returns true if the archive is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.destination.encrypt_with.is_some()
    }

    /// Finishes the archive and publishes it in each store where it could be written; fails if it is in no store.
    pub(super) fn publish(mut self, mut manifest: Manifest) -> Result<Saved> {
        // The manifest is read most often, so it is not in one block with the last rows.
        self.archive.cut()?;
        self.archive.append(MANIFEST_PATH, &manifest.to_json())?;
        let (outlet, summary) = self.archive.finish()?;
        let index_sha256 = summary.index_sha256;
        let (fanout, summary) = match outlet {
            Outlet::Plain(fanout) => (fanout, summary),
            Outlet::Encrypted(writer) => writer.finish()?,
        };
        (manifest.archive_bytes, manifest.sha256) = (Some(summary.bytes), Some(summary.sha256));
        // A manifest without a signature is as an earlier version writes it.
        let is_signed = self.destination.catalogs.iter().any(|catalog| !matches!(catalog.signer(), Signer::None));
        manifest.index_sha256 = index_sha256.filter(|_| is_signed);
        let outside = manifest.outside();
        let (mut stores, mut failures) = (Vec::new(), Vec::new());
        for (catalog, upload) in self.destination.catalogs.iter().zip(fanout.into_uploads()) {
            match upload.and_then(|upload| catalog.publish(upload, summary, &outside)) {
                Ok(()) => stores.push(catalog.location()),
                // If a store already has the archive, that must be reported.
                Err(error) if error.kind == Kind::Interrupted && stores.is_empty() => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        if stores.is_empty() {
            // The caller reports the first error.
            failures.iter().skip(1).for_each(|error| tracing::warn!("{}", error.full_message()));
            return Err(failures.into_iter().next().unwrap_or_else(|| Error::failed("there is no store to write to")));
        }
        Ok(Saved { manifest, stores, failures })
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Outlet::Plain(fanout) => fanout.write(bytes),
            Outlet::Encrypted(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Outlet::Plain(fanout) => fanout.flush(),
            Outlet::Encrypted(writer) => writer.flush(),
        }
    }
}
