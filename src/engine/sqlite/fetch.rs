//! Reads the image of a database out of a snapshot.

use std::path::PathBuf;
use std::time::Instant;

use super::image::{ImageFile, ImageWriter};
use crate::engine::restoring::SavedSnapshot;
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, Kind, Result};
use crate::platform::progress::Progress;
use crate::snapshots::manifest::{Manifest, SqliteFacts};

/// An image that was read out of a snapshot.
pub(crate) struct Fetched {
    /// The file, removed when dropped.
    pub(crate) image: ImageFile,
    /// The time for reading, hashing, decompressing and writing.
    pub(crate) stream_seconds: f64,
    /// The time for syncing to disk.
    pub(crate) sync_seconds: f64,
}

/// Returns the manifest's facts about the image. Fails for a raw copy of a damaged file, which has no image.
pub(crate) fn image_facts(manifest: &Manifest) -> Result<&SqliteFacts> {
    let id = &manifest.id;
    manifest.sqlite.as_ref().filter(|facts| facts.health.is_some()).ok_or_else(|| {
        Error::usage(format!("{id} holds the raw bytes of a damaged file, and cannot be restored as a database"))
            .hint(format!("get its files with 'lifeboat extract {id}'"))
    })
}

/// Writes the image to `path`, which must not exist. When this returns, the file is exactly what was saved, and is
/// synced. On failure no file is left.
pub(crate) fn fetch_image(snapshot: &dyn SavedSnapshot, path: PathBuf, progress: &dyn Progress) -> Result<Fetched> {
    let manifest = snapshot.manifest();
    let facts = image_facts(manifest)?;
    let clock = Instant::now();
    let writer = ImageWriter::create(path, manifest.raw_bytes)?;
    let mut sink = Sink { image: &facts.image, writer, is_image: false, progress };
    progress.start("restoring", manifest.raw_bytes);
    let read = snapshot.read_all(&mut sink);
    progress.finish();
    read.map_err(|error| match error.kind {
        Kind::Problem => error,
        _ => error.context(format!("cannot restore the snapshot {}", manifest.id)),
    })?;
    let streamed = clock.elapsed().as_secs_f64();
    let image = sink.writer.finish()?;
    Ok(Fetched { image, stream_seconds: streamed, sync_seconds: clock.elapsed().as_secs_f64() - streamed })
}

struct Sink<'a> {
    image: &'a str,
    writer: ImageWriter,
    /// True while the image is read.
    is_image: bool,
    progress: &'a dyn Progress,
}

impl EntryVisitor for Sink<'_> {
    fn start(&mut self, path: &str, _: u64) -> Result<()> {
        self.is_image = path == self.image;
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.is_image {
            return Ok(());
        }
        self.progress.advance(bytes.len() as u64);
        self.writer.write(bytes)
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}
