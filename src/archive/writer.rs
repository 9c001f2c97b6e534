//! Writes an archive: cuts the tar stream into blocks, compresses them on several threads, and indexes them.

use std::collections::HashSet;
use std::io::Write;
use std::thread::{self, JoinHandle};

use super::codec::{Compression, Encoder};
use super::index::{self, Block, Entry, Index};
use super::pipeline::{self, Feeder, Ordered};
use super::tarfile;
use crate::archive::format::BLOCK_BYTES;
use crate::platform::digest::{Hasher, Sha256};
use crate::platform::entries::EntryWriter;
use crate::platform::error::{Error, Result};

/// The length and hash of a finished archive.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveSummary {
    /// The length of the file.
    pub bytes: u64,
    /// The SHA-256 of the whole file.
    pub sha256: Sha256,
    /// The SHA-256 of its index, if it was written here.
    pub index_sha256: Option<Sha256>,
}

/// Writes one archive into `W`. The archive is complete only after [`finish`](Self::finish). Dropping the writer
/// abandons the archive; `W` is dropped before the drop returns.
///
/// Memory: `jobs + 3` blocks of input and the same number of output.
pub struct ArchiveWriter<W: Write + Send + 'static> {
    compression: Compression,
    mtime: u64,
    pipe: Option<Pipe<W>>,
    block: Vec<u8>,
    tar_offset: u64,
    entries: Vec<Entry>,
    paths: HashSet<String>,
    path_bytes: usize,
    open: Option<OpenEntry>,
}

struct Pipe<W> {
    feeder: Feeder<u64>,
    sink: JoinHandle<Result<Sink<W>>>,
}

struct OpenEntry {
    path: String,
    tar_offset: u64,
    bytes: u64,
    written: u64,
    hasher: Hasher,
}

/// The output side: writes the compressed blocks in order and records them.
struct Sink<W> {
    writer: W,
    hasher: Hasher,
    offset: u64,
    tar_offset: u64,
    blocks: Vec<Block>,
}

impl<W: Write + Send + 'static> ArchiveWriter<W> {
    /// Starts an archive that is compressed on `jobs` threads. Every tar header has `mtime` (seconds since 1970).
    pub fn create(writer: W, compression: Compression, jobs: usize, mtime: u64) -> Result<Self> {
        let worker = || {
            let mut encoder = Encoder::new(compression)?;
            Ok(move |tar_bytes: u64, input: &[u8], output: &mut Vec<u8>| {
                encoder.encode(input, output).map(|()| (tar_bytes, Sha256::of(output)))
            })
        };
        let (feeder, results) = pipeline::start(jobs, "compress", worker)?;
        let sink = Sink { writer, hasher: Hasher::new(), offset: 0, tar_offset: 0, blocks: Vec::new() };
        let sink = thread::Builder::new().name("write".to_owned()).spawn(move || sink.run(results));
        let sink = sink.map_err(|error| Error::failed("cannot start a thread").because(error))?;
        let block = feeder.buffer().unwrap_or_default();
        Ok(ArchiveWriter {
            compression,
            mtime,
            pipe: Some(Pipe { feeder, sink }),
            block,
            tar_offset: 0,
            entries: Vec::new(),
            paths: HashSet::new(),
            path_bytes: 0,
            open: None,
        })
    }

    /// Ends the tar stream, and writes index and footer. Returns the writer, flushed but not published.
    pub fn finish(mut self) -> Result<(W, ArchiveSummary)> {
        assert!(self.open.is_none(), "the last entry was finished");
        self.push(&tarfile::END)?;
        self.flush_block()?;
        let Pipe { feeder, sink } = self.pipe.take().expect("taken only here and on failure");
        let sent = feeder.count();
        drop(feeder);
        let mut sink = join(sink)?;
        if sink.blocks.len() as u64 != sent || sink.tar_offset != self.tar_offset {
            return Err(Error::failed("a block of the archive was lost: a thread ended unexpectedly"));
        }
        let index = Index {
            codec: self.compression.codec(),
            mtime: self.mtime,
            tar_bytes: self.tar_offset,
            blocks: std::mem::take(&mut sink.blocks),
            entries: std::mem::take(&mut self.entries),
        };
        let (end, index_sha256) = index.encode(self.compression)?;
        sink.put(&end)?;
        sink.writer.flush()?;
        let index_sha256 = Some(index_sha256);
        Ok((sink.writer, ArchiveSummary { bytes: sink.offset, sha256: sink.hasher.finish(), index_sha256 }))
    }

    /// Adds bytes to the tar stream.
    fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.tar_offset += bytes.len() as u64;
        while !bytes.is_empty() {
            self.block.reserve_exact(BLOCK_BYTES - self.block.len());
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(part);
            bytes = rest;
            if self.block.len() == BLOCK_BYTES {
                self.flush_block()?;
            }
        }
        Ok(())
    }

    fn flush_block(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let Some(Pipe { feeder, .. }) = &mut self.pipe else {
            return Err(Error::failed("cannot write the archive after an earlier failure"));
        };
        let block = std::mem::take(&mut self.block);
        let tar_bytes = block.len() as u64;
        if feeder.send(tar_bytes, block)
            && let Some(mut buffer) = feeder.buffer()
        {
            buffer.clear();
            self.block = buffer;
            return Ok(());
        }
        // The output thread has ended: its error is the cause.
        let Pipe { feeder, sink } = self.pipe.take().expect("checked just above");
        drop(feeder);
        join(sink)?;
        Err(Error::failed("a compression thread ended unexpectedly"))
    }
}

impl<W: Write + Send + 'static> EntryWriter for ArchiveWriter<W> {
    fn start_entry(&mut self, path: &str, bytes: u64) -> Result<()> {
        assert!(self.open.is_none(), "one entry at a time");
        tarfile::check_path(path)?;
        let end = bytes.checked_add(self.tar_offset).filter(|end| *end < (index::MAX_BLOCKS - 2) * BLOCK_BYTES as u64);
        self.path_bytes += path.len();
        if end.is_none() || self.entries.len() as u64 >= index::MAX_ENTRIES || self.path_bytes > index::MAX_PATHS_BYTES
        {
            return Err(Error::failed("the archive would be larger than the format allows"));
        }
        if !self.paths.insert(path.to_owned()) {
            return Err(Error::failed(format!("the archive has two entries with the path '{path}'")));
        }
        self.push(&tarfile::header(path, bytes, self.mtime))?;
        let hasher = Hasher::new();
        self.open = Some(OpenEntry { path: path.to_owned(), tar_offset: self.tar_offset, bytes, written: 0, hasher });
        Ok(())
    }

    fn write(&mut self, content: &[u8]) -> Result<()> {
        let open = self.open.as_mut().expect("an entry was started");
        open.written += content.len() as u64;
        if open.written > open.bytes {
            return Err(Error::failed(format!("the entry '{}' is longer than announced", open.path)));
        }
        open.hasher.update(content);
        self.push(content)
    }

    fn finish_entry(&mut self) -> Result<()> {
        let open = self.open.take().expect("an entry was started");
        if open.written != open.bytes {
            return Err(Error::failed(format!("the entry '{}' is shorter than announced", open.path)));
        }
        let OpenEntry { path, tar_offset, bytes, hasher, .. } = open;
        self.push(&tarfile::END[..usize::try_from(tarfile::padding(bytes)).expect("less than a sector")])?;
        self.entries.push(Entry { path, tar_offset, bytes, sha256: hasher.finish() });
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        assert!(self.open.is_none(), "between entries");
        self.flush_block()
    }
}

impl<W: Write + Send + 'static> Drop for ArchiveWriter<W> {
    fn drop(&mut self) {
        if let Some(Pipe { feeder, sink }) = self.pipe.take() {
            drop(feeder);
            let _ = sink.join();
        }
    }
}

impl<W: Write> Sink<W> {
    fn run(mut self, mut results: Ordered<Result<(u64, Sha256)>>) -> Result<Self> {
        while let Some((result, output)) = results.next() {
            let (tar_bytes, sha256) = result?;
            let block = Block {
                offset: self.offset,
                bytes: output.len() as u64,
                tar_offset: self.tar_offset,
                tar_bytes,
                sha256,
            };
            self.put(&output)?;
            self.tar_offset += tar_bytes;
            self.blocks.push(block);
            results.recycle(output);
        }
        Ok(self)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes)?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(Error::failed("a thread ended unexpectedly")))
}
