//! Opens snapshots, and reads SQLite images out of archives. Every byte is hashed while it is read.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::archive::{ArchiveReader, Entry, MANIFEST_PATH, README_PATH, Visitor};
use crate::engine::postgres::schema::Item;
use crate::engine::postgres::schema::options::leave_out_servers_own;
use crate::engine::sqlite::image::{ImageFile, ImageWriter};
use crate::ops::destination::Destination;
use crate::ops::{Context, layout};
use crate::platform::error::{Error, Kind, Result};
use crate::snapshots::catalog::Catalog;
use crate::snapshots::id::SnapshotId;
use crate::snapshots::manifest::{Manifest, SqliteFacts};

/// A snapshot whose manifest was read and whose archive was opened.
pub(crate) struct Opened {
    /// The manifest outside the archive; of an encrypted snapshot the one inside.
    pub(crate) manifest: Manifest,
    /// The manifest outside the archive, as the bytes in the store.
    pub(crate) document: Vec<u8>,
    /// The archive.
    pub(crate) reader: ArchiveReader,
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
            false => ArchiveReader::open(archive, context.jobs)?,
            true => ArchiveReader::open_sealed(archive, &context.keys, context.jobs)?,
        };
        let mut opened = Opened { manifest, document, reader };
        if opened.manifest.encrypted {
            let inside = Manifest::from_json(&opened.reader.read_entry(MANIFEST_PATH, Manifest::MAX_BYTES)?)?;
            let Manifest { archive_bytes, sha256, .. } = opened.manifest;
            opened.manifest = Manifest { archive_bytes, sha256, ..inside };
        }
        opened.check_layout()?;
        Ok(opened)
    };
    opened().map_err(|error| damaged(id, error))
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
        Err(error) if error.kind == Kind::Usage => {
            tracing::warn!("{}", error.whole());
            Ok(outside)
        }
        opened => Ok(opened?.manifest),
    }
}

/// The entries before the rows in the archive of a PostgreSQL snapshot, and below the entries after them.
const LAYOUT_BEFORE: [&str; 3] = [README_PATH, layout::OBJECTS, layout::PRE_DATA];
const LAYOUT_AFTER: [&str; 4] = [layout::SEQUENCES, layout::POST_DATA, layout::RESTORE, MANIFEST_PATH];

/// An image that was read out of an archive.
pub(crate) struct Fetched {
    /// The file, removed when dropped.
    pub(crate) image: ImageFile,
    /// The time for reading, hashing, decompressing and writing.
    pub(crate) stream_seconds: f64,
    /// The time for syncing to disk.
    pub(crate) sync_seconds: f64,
}

impl Opened {
    fn check_layout(&self) -> Result<()> {
        let manifest = &self.manifest;
        if self.reader.codec().name() != manifest.codec {
            let codec = self.reader.codec().name();
            return Err(Error::problem(format!("its archive is {codec} where the manifest says {}", manifest.codec)));
        }
        if self.reader.entry(MANIFEST_PATH)?.bytes > self.most_manifest_bytes() {
            return Err(Error::problem("the manifest inside is longer than one that says the same as the one outside"));
        }
        match (&manifest.sqlite, &manifest.postgres) {
            (Some(facts), None) => self.check_sqlite_layout(facts),
            (None, Some(_)) => self.check_postgres_layout(),
            _ => Err(Error::problem("its manifest is neither of an SQLite nor of a PostgreSQL snapshot")),
        }
    }

    /// Checks that the archive holds exactly the entries of a PostgreSQL snapshot, in their order, with all pieces of
    /// each table.
    fn check_postgres_layout(&self) -> Result<()> {
        let entries = self.reader.entries();
        let (first, last) = (&LAYOUT_BEFORE[..], &LAYOUT_AFTER[..]);
        let wrong =
            |what: &str| Error::problem(format!("its archive holds other files than its manifest says: {what}"));
        let is = |entry: &Entry, path: &&str| entry.path == **path;
        let middle = entries.len().checked_sub(first.len() + last.len()).ok_or_else(|| wrong("some are missing"))?;
        let (head, rest) = entries.split_at(first.len());
        let (data, tail) = rest.split_at(middle);
        if !head.iter().zip(first).all(|(entry, path)| is(entry, path))
            || !tail.iter().zip(last).all(|(entry, path)| is(entry, path))
        {
            return Err(wrong("those of the schema are not where they belong"));
        }
        let mut pieces: HashMap<String, u32> = HashMap::new();
        for table in &self.manifest.tables {
            let relation = table.relation.as_ref().ok_or_else(|| wrong("a table has no name"))?;
            pieces.insert(layout::table_folder(&relation.schema, &relation.table), 0);
        }
        pieces.insert(layout::LARGE_OBJECTS.to_owned(), 0);
        for entry in data {
            let (folder, name) = entry.path.rsplit_once('/').ok_or_else(|| wrong("an entry is of no table"))?;
            let count = pieces.get_mut(&format!("{folder}/")).ok_or_else(|| wrong("an entry is of no table"))?;
            *count += 1;
            if name != format!("{count:06}.copy") {
                return Err(wrong("the pieces of a table are not all there"));
            }
        }
        let bytes: u64 = data.iter().map(|entry| entry.bytes).sum();
        if bytes != self.manifest.raw_bytes {
            return Err(wrong("the rows have another length"));
        }
        Ok(())
    }

    fn check_sqlite_layout(&self, facts: &SqliteFacts) -> Result<()> {
        let manifest = &self.manifest;
        let is_whole = facts.health.is_some();
        let mut expected = vec![README_PATH.to_owned(), facts.image.clone()];
        let entries = self.reader.entries();
        for suffix in ["-wal", "-journal"] {
            let companion = format!("{}{suffix}", facts.image);
            if !is_whole && entries.iter().any(|entry| entry.path == companion) {
                expected.push(companion);
            }
        }
        expected.push(MANIFEST_PATH.to_owned());
        let one_part = facts.image.strip_prefix("data/").is_some_and(|name| !name.is_empty() && !name.contains('/'));
        if !one_part || !entries.iter().map(|entry| &entry.path).eq(&expected) {
            return Err(Error::problem("its archive holds other files than an SQLite snapshot does"));
        }
        let image = self.reader.entry(&facts.image)?.bytes;
        if is_whole && (image != manifest.raw_bytes || facts.page_bytes.checked_mul(facts.pages) != Some(image)) {
            return Err(Error::problem("the image has another length than the manifest says"));
        }
        Ok(())
    }

    /// Reads the steps that create the schema of a PostgreSQL snapshot. Each step needs only earlier ones.
    ///
    /// Archives of earlier versions may set options that the source's server set for its own use. These are removed.
    pub(crate) fn schema_items(&self) -> Result<Vec<Item>> {
        let bytes = self.reader.read_entry(layout::OBJECTS, 1 << 30)?;
        let mut items: Vec<Item> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::problem("the list of what makes the schema is not readable").because(error))?;
        let is_in_order = items.iter().enumerate().all(|(place, item)| {
            item.id == place
                && item.needs.iter().all(|need| *need < place)
                && item.table.is_none_or(|table| table < items.len())
        });
        if !is_in_order {
            return Err(Error::problem("the list of what makes the schema is out of order"));
        }
        items.iter_mut().for_each(leave_out_servers_own);
        Ok(items)
    }

    /// Reads the whole archive into `visitor`, and fails if any byte differs from what was written.
    pub(crate) fn walk(&self, visitor: &mut dyn Visitor) -> Result<()> {
        let id = &self.manifest.id;
        let damaged = |error: Error| {
            if error.kind == Kind::Problem { error.context(format!("the snapshot {id} is damaged")) } else { error }
        };
        let walk = self.reader.walk(visitor).map_err(damaged)?;
        if Some(walk.sha256) != self.manifest.sha256 {
            return Err(damaged(Error::problem("its archive is another than the manifest names: the SHA-256 is off")));
        }
        Ok(())
    }

    /// Reads the manifest inside the archive, and compares it with the one outside.
    pub(crate) fn compare_inside(&self) -> Result<()> {
        self.compare_manifests(&self.reader.read_entry(MANIFEST_PATH, self.most_manifest_bytes())?)
    }

    /// Returns the maximum length of the manifest inside the archive. It has fewer fields than the one outside, but
    /// perhaps more white space. That of an encrypted snapshot has more fields.
    fn most_manifest_bytes(&self) -> u64 {
        if self.manifest.encrypted { Manifest::MAX_BYTES } else { 4 * self.document.len() as u64 + 4096 }
    }

    /// Returns the destination for a safety snapshot of what this snapshot overwrites: the same store. If this snapshot
    /// is encrypted, the key that opened it also opens the safety snapshot.
    pub(crate) fn safety_destination<'a>(&self, catalog: &'a Catalog, context: &Context) -> Result<Destination<'a>> {
        // The safety snapshot holds today's data. It is also encrypted if only the config asks for it or keys are
        // given.
        let mut sealing = self.reader.sealing().cloned();
        if sealing.is_none() {
            sealing = context.config_sealing()?;
        }
        Ok(Destination { catalogs: vec![catalog], sealing: sealing.or_else(|| context.keys.sealing()) })
    }

    /// Compares the manifest outside the archive with `inside`, the one in the archive.
    pub(crate) fn compare_manifests(&self, inside: &[u8]) -> Result<()> {
        match Manifest::differences(&self.document, inside)?.as_slice() {
            [] => Ok(()),
            fields => Err(Error::problem(format!(
                "the manifest outside and the one inside the archive differ in: {}",
                fields.join(", ")
            ))),
        }
    }

    /// Returns the manifest's facts about the image. Fails for a raw copy of a damaged file, which has no image.
    pub(crate) fn image_facts(&self) -> Result<&SqliteFacts> {
        let id = &self.manifest.id;
        self.manifest.sqlite.as_ref().filter(|facts| facts.health.is_some()).ok_or_else(|| {
            Error::usage(format!("{id} holds the raw bytes of a damaged file, and cannot be restored as a database"))
                .hint(format!("get its files with 'lifeboat extract {id}'"))
        })
    }

    /// Writes the image to `path`, which must not exist. When this returns, the file is exactly what was saved, and is
    /// synced. On failure no file is left.
    pub(crate) fn fetch_image(&self, path: PathBuf, context: &Context) -> Result<Fetched> {
        let id = &self.manifest.id;
        let damaged = |error: Error| match error.kind {
            Kind::Problem => error.context(format!("the snapshot {id} is damaged")),
            _ => error.context(format!("cannot restore the snapshot {id}")),
        };
        let facts = self.image_facts()?;
        let clock = Instant::now();
        let writer = ImageWriter::create(path, self.manifest.raw_bytes)?;
        let mut sink = Sink { image: &facts.image, writer, current: Current::Other, manifest: Vec::new(), context };
        context.progress.start("restoring", self.manifest.raw_bytes);
        let walked = self.reader.walk(&mut sink);
        context.progress.finish();
        let check = || {
            let walk = walked?;
            if Some(walk.sha256) != self.manifest.sha256 {
                return Err(Error::problem("its archive is another than the manifest names: the SHA-256 is off"));
            }
            self.compare_manifests(&sink.manifest)
        };
        check().map_err(damaged)?;
        let streamed = clock.elapsed().as_secs_f64();
        let image = sink.writer.finish()?;
        Ok(Fetched { image, stream_seconds: streamed, sync_seconds: clock.elapsed().as_secs_f64() - streamed })
    }
}

struct Sink<'a> {
    image: &'a str,
    writer: ImageWriter,
    current: Current,
    manifest: Vec<u8>,
    context: &'a Context,
}

enum Current {
    Image,
    Manifest,
    Other,
}

impl Visitor for Sink<'_> {
    fn start(&mut self, entry: &Entry) -> Result<()> {
        self.current = match entry.path.as_str() {
            path if path == self.image => Current::Image,
            MANIFEST_PATH => Current::Manifest,
            _ => Current::Other,
        };
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        match self.current {
            Current::Image => {
                self.context.progress.advance(bytes.len() as u64);
                self.writer.write(bytes)
            }
            Current::Manifest => {
                self.manifest.extend_from_slice(bytes);
                Ok(())
            }
            Current::Other => Ok(()),
        }
    }

    fn end(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }
}
