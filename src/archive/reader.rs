//! Reads an archive: all of it in order, or only the blocks of one entry. Every byte is hashed while it is read.

use std::io::Read;
use std::sync::Arc;
use std::thread;

use super::codec::{Codec, Decoder};
use super::encryption::DecryptedArchive;
use super::index::{Block, Entry, Index};
use super::keys::{EncryptWith, Keys};
use super::pipeline::{self, Feeder, Ordered};
use super::readahead::ReadAhead;
use super::tarfile;
use crate::platform::digest::{Hasher, Sha256};
use crate::platform::entries::EntryVisitor;
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::Ranged;

/// An archive whose footer and index were read and found to agree.
pub struct ArchiveReader {
    /// The file as it is stored.
    file: Arc<dyn Ranged>,
    /// The decrypted file; `None` if the file is not encrypted.
    decrypted: Option<Arc<DecryptedArchive>>,
    index: Index,
    index_sha256: Sha256,
    jobs: usize,
}

/// The result of reading a whole archive.
#[derive(Debug)]
pub struct Walk {
    /// The SHA-256 of the whole file.
    pub sha256: Sha256,
    /// The damage found, at most 100 problems. [`ArchiveReader::walk`] fails with the first problem instead.
    pub problems: Vec<Error>,
}

/// The reaction to a damaged block or entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnDamage {
    Stop,
    GoOn,
}

/// Takes a block's content, or the error that prevented reading it.
type Consume<'a> = dyn FnMut(&Block, Result<&[u8]>) -> Result<()> + 'a;

/// The maximum number of problems that one walk collects.
const MAX_PROBLEMS: usize = 100;

impl ArchiveReader {
    /// Opens an archive: reads its footer and index. Blocks are later decompressed on `jobs` threads.
    pub fn open(file: Arc<dyn Ranged>, jobs: usize) -> Result<Self> {
        let (index, index_sha256) = Index::read(&*file)?;
        Ok(ArchiveReader { file, decrypted: None, index, index_sha256, jobs })
    }

    /// Opens an encrypted archive. See [`DecryptedArchive::open`] for the errors if no key matches.
    pub fn open_encrypted(file: Arc<dyn Ranged>, keys: &Keys, jobs: usize) -> Result<Self> {
        let decrypted = DecryptedArchive::open(Arc::clone(&file), keys)?;
        let (index, index_sha256) = Index::read(&decrypted)?;
        Ok(ArchiveReader { file, decrypted: Some(Arc::new(decrypted)), index, index_sha256, jobs })
    }

    /// Returns the recipients or passphrase with which another archive can be encrypted so that the key that opened
    /// this one opens it too. Returns `None` if this archive is not encrypted.
    #[must_use]
    pub fn encrypt_with(&self) -> Option<&EncryptWith> {
        self.decrypted.as_ref().map(|decrypted| decrypted.encrypt_with())
    }

    /// Returns the archive's bytes, decrypted if the file is encrypted.
    fn plain(&self) -> Arc<dyn Ranged> {
        match &self.decrypted {
            Some(decrypted) => Arc::clone(decrypted) as Arc<dyn Ranged>,
            None => Arc::clone(&self.file),
        }
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.index.entries
    }

    /// The blocks, in order.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.index.blocks
    }

    /// The SHA-256 of the index, which has that of every block: it stands for the whole content.
    #[must_use]
    pub fn index_sha256(&self) -> Sha256 {
        self.index_sha256
    }

    /// The codec.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.index.codec
    }

    /// Finds the entry with this path. Fails with [`Kind::Problem`] if it does not exist.
    pub fn entry(&self, path: &str) -> Result<&Entry> {
        let found = self.index.entries.iter().find(|entry| entry.path == path);
        found.ok_or_else(|| {
            Error::problem(format!("the archive has no entry '{}'", crate::platform::error::one_line(path)))
        })
    }

    /// Reads a small entry into memory. An entry of more than `max_bytes` is refused before any of it is read.
    pub fn read_entry(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>> {
        let entry = self.entry(path)?;
        if entry.bytes > max_bytes {
            return Err(Error::problem(format!(
                "the entry '{path}' has {} bytes, but at most {max_bytes} are allowed",
                entry.bytes
            )));
        }
        let mut content = Vec::new();
        self.stream_entry(entry, &mut |bytes| {
            content.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(content)
    }

    /// Streams one entry into `sink` and reads only its blocks. Its SHA-256 is checked before this returns `Ok`.
    pub fn stream_entry(&self, entry: &Entry, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        struct Sink<'a>(&'a mut dyn FnMut(&[u8]) -> Result<()>);
        impl EntryVisitor for Sink<'_> {
            fn start(&mut self, _: &str, _: u64) -> Result<()> {
                Ok(())
            }
            fn data(&mut self, bytes: &[u8]) -> Result<()> {
                (self.0)(bytes)
            }
            fn end(&mut self) -> Result<()> {
                Ok(())
            }
        }
        self.visit(&[entry], &mut Sink(sink))
    }

    /// Passes some of the entries to `visitor`. `entries` must be in the archive's order. Only their blocks are read,
    /// each of them once. An entry's SHA-256 is checked before [`EntryVisitor::end`] is called for it.
    pub fn visit(&self, entries: &[&Entry], visitor: &mut dyn EntryVisitor) -> Result<()> {
        let mut rest = entries;
        while let Some(first) = rest.first() {
            let mut blocks = self.blocks_of(first);
            let mut count = 1;
            while let Some(next) = rest.get(count).map(|next| self.blocks_of(next)) {
                if next.start > blocks.end {
                    break;
                }
                blocks.end = blocks.end.max(next.end);
                count += 1;
            }
            let (run, later) = rest.split_at(count);
            self.visit_run(run, blocks, visitor)?;
            rest = later;
        }
        Ok(())
    }

    /// Returns the range of blocks that hold an entry's content.
    fn blocks_of(&self, entry: &Entry) -> std::ops::Range<usize> {
        let (start, end) = (entry.tar_offset, entry.tar_offset + entry.bytes);
        let first = self.index.blocks.partition_point(|block| block.tar_offset + block.tar_bytes <= start);
        let last = self.index.blocks.partition_point(|block| block.tar_offset < end).max(first);
        first..last
    }

    /// Passes entries whose blocks follow each other to `visitor`.
    fn visit_run(&self, run: &[&Entry], blocks: std::ops::Range<usize>, visitor: &mut dyn EntryVisitor) -> Result<()> {
        let mut rest = run.iter().peekable();
        let mut current: Option<(&Entry, Hasher)> = None;
        let mut ended = 0;
        let mut consume = |from: u64, content: &[u8], to: u64| -> Result<()> {
            loop {
                let (entry, mut hasher) = match current.take() {
                    Some(current) => current,
                    None => match rest.next_if(|entry| entry.tar_offset < to || entry.bytes == 0) {
                        Some(entry) => {
                            visitor.start(&entry.path, entry.bytes)?;
                            (*entry, Hasher::new())
                        }
                        None => return Ok(()),
                    },
                };
                let (start, end) = (entry.tar_offset, entry.tar_offset + entry.bytes);
                let part = start.clamp(from, to).max(from) - from..end.clamp(from, to) - from;
                if !part.is_empty() {
                    let part = &content[part.start as usize..part.end as usize];
                    hasher.update(part);
                    visitor.data(part)?;
                }
                if end > to && entry.bytes > 0 {
                    current = Some((entry, hasher));
                    return Ok(());
                }
                check_entry(entry, hasher.finish())?;
                visitor.end()?;
                ended += 1;
            }
        };
        if blocks.is_empty() {
            // Entries without content.
            return consume(0, &[], 0);
        }
        let range = &self.index.blocks[blocks.clone()];
        let (first, last) = (&range[0], &range[range.len() - 1]);
        let mut input = ReadAhead::new(self.plain(), first.offset..last.offset + last.bytes)?;
        self.each_block(blocks, &mut input, &mut |block, content| {
            consume(block.tar_offset, content?, block.tar_offset + block.tar_bytes)
        })?;
        if ended == run.len() {
            Ok(())
        } else {
            Err(Error::failed("the requested entries are not in the order of the archive"))
        }
    }

    /// Reads every byte of the archive: blocks, headers, entries, padding, index, footer. Stops at the first damage.
    pub fn walk(&self, visitor: &mut dyn EntryVisitor) -> Result<Walk> {
        self.walk_all(visitor, OnDamage::Stop)
    }

    /// Reads every byte, as [`walk`](Self::walk) does, but continues after damage to report all of it.
    pub fn inspect(&self) -> Result<Walk> {
        struct Ignore;
        impl EntryVisitor for Ignore {
            fn start(&mut self, _: &str, _: u64) -> Result<()> {
                Ok(())
            }
            fn data(&mut self, _: &[u8]) -> Result<()> {
                Ok(())
            }
            fn end(&mut self) -> Result<()> {
                Ok(())
            }
        }
        self.walk_all(&mut Ignore, OnDamage::GoOn)
    }

    fn walk_all(&self, visitor: &mut dyn EntryVisitor, on_damage: OnDamage) -> Result<Walk> {
        let mut file = ReadAhead::new(Arc::clone(&self.file), 0..self.file.len())?;
        let problems = match &self.decrypted {
            Some(decrypted) => self.walk_through(&mut decrypted.stream(&mut file)?, visitor, on_damage)?,
            None => self.walk_through(&mut file, visitor, on_damage)?,
        };
        Ok(Walk { sha256: file.sha256(), problems })
    }

    /// Reads the archive's bytes from `input` to its end. Returns the damage found.
    fn walk_through(
        &self,
        input: &mut (dyn Read + Send),
        visitor: &mut dyn EntryVisitor,
        on_damage: OnDamage,
    ) -> Result<Vec<Error>> {
        let mut problems = Vec::new();
        let mut tar = TarWalker::new(&self.index, visitor);
        self.each_block(0..self.index.blocks.len(), input, &mut |block, content| match content
            .and_then(|content| tar.feed(content))
        {
            Err(error) if on_damage == OnDamage::GoOn && error.kind == Kind::Problem => {
                tar.resume_at(block.tar_offset + block.tar_bytes);
                if problems.len() < MAX_PROBLEMS {
                    problems.push(error);
                }
                Ok(())
            }
            other => other,
        })?;
        if problems.is_empty() {
            tar.finish()?;
        }
        let mut rest = vec![0; 64 << 10];
        while input.read(&mut rest).io(Kind::Unreachable, || "cannot read the archive's end".to_owned())? > 0 {}
        Ok(problems)
    }

    /// Reads a range of blocks from `input`, hashes and decompresses them, and passes them to `consume` in order.
    fn each_block(
        &self,
        range: std::ops::Range<usize>,
        input: &mut (dyn Read + Send),
        consume: &mut Consume<'_>,
    ) -> Result<()> {
        let blocks = &self.index.blocks[range];
        if blocks.is_empty() {
            return Ok(());
        }
        let codec = self.index.codec;
        let worker = || {
            let mut decoder = Decoder::new(codec)?;
            Ok(move |(sha256, tar_bytes): (Sha256, u64), input: &[u8], output: &mut Vec<u8>| {
                if Sha256::of(input) != sha256 {
                    return Err(Error::problem("its SHA-256 does not match"));
                }
                decoder.decode(input, usize::try_from(tar_bytes).expect("the index was checked"), output)
            })
        };
        let (feeder, results) = pipeline::start(self.jobs.min(blocks.len()), "decompress", worker)?;
        thread::scope(|scope| {
            let fetcher =
                thread::Builder::new().name("fetch".to_owned()).spawn_scoped(scope, || fetch(blocks, input, feeder));
            let fetcher = fetcher.map_err(|error| Error::failed("cannot start a thread").because(error))?;
            let consumed = take_in_order(blocks, results, consume);
            let fetched = fetcher.join().unwrap_or_else(|_| Err(Error::failed("a thread ended unexpectedly")));
            match consumed {
                // Too few results: the error of the fetching thread is the cause.
                Ok(false) => fetched.and(Err(Error::failed("a decompression thread ended unexpectedly"))),
                Ok(true) => fetched,
                Err(error) => Err(error),
            }
        })
    }
}

fn fetch(blocks: &[Block], input: &mut (dyn Read + Send), mut feeder: Feeder<(Sha256, u64)>) -> Result<()> {
    for block in blocks {
        let Some(mut buffer) = feeder.buffer() else { return Ok(()) };
        buffer.resize(usize::try_from(block.bytes).expect("the index was checked"), 0);
        input
            .read_exact(&mut buffer)
            .io(Kind::Unreachable, || format!("cannot read the archive at offset {}", block.offset))?;
        if !feeder.send((block.sha256, block.tar_bytes), buffer) {
            return Ok(());
        }
    }
    Ok(())
}

/// Passes every block to `consume`. Returns false if the results ended before the last block.
fn take_in_order(blocks: &[Block], mut results: Ordered<Result<()>>, consume: &mut Consume<'_>) -> Result<bool> {
    for block in blocks {
        crate::platform::interrupt::check()?;
        let Some((result, output)) = results.next() else { return Ok(false) };
        let content = result.map(|()| &output[..]);
        consume(
            block,
            content.map_err(|error| error.context(format!("the block at offset {} is damaged", block.offset))),
        )?;
        results.recycle(output);
    }
    Ok(true)
}

fn check_entry(entry: &Entry, sha256: Sha256) -> Result<()> {
    if sha256 == entry.sha256 {
        Ok(())
    } else {
        Err(Error::problem(format!(
            "the entry '{}' is damaged: its SHA-256 does not match",
            crate::platform::error::one_line(&entry.path)
        )))
    }
}

/// Checks the tar stream against the index: every byte is either content or is determined by the index.
struct TarWalker<'a> {
    index: &'a Index,
    visitor: &'a mut dyn EntryVisitor,
    /// The tar stream's offset of the next byte.
    at: u64,
    /// The number of the current entry: the next byte lies in or before its content.
    entry: usize,
    started: bool,
    hasher: Hasher,
    /// The bytes required between the content of the previous entry and that of this one (or the stream's end).
    framing: Vec<u8>,
    framing_at: u64,
    /// The part of the framing that has been read.
    framing_read: Vec<u8>,
    /// True if a part of the current entry could not be read.
    lost: bool,
}

impl<'a> TarWalker<'a> {
    fn new(index: &'a Index, visitor: &'a mut dyn EntryVisitor) -> Self {
        let mut walker = TarWalker {
            index,
            visitor,
            at: 0,
            entry: 0,
            started: false,
            hasher: Hasher::new(),
            framing: Vec::new(),
            framing_at: 0,
            framing_read: Vec::new(),
            lost: false,
        };
        walker.expect_framing(0);
        walker
    }

    fn current(&self) -> Option<&'a Entry> {
        self.index.entries.get(self.entry)
    }

    fn framing_end(&self) -> u64 {
        self.framing_at + self.framing.len() as u64
    }

    /// Computes the bytes between the content of the previous entry (padding included) and the content of this one.
    fn expect_framing(&mut self, padding: u64) {
        self.framing_at = self.at;
        self.framing_read.clear();
        self.framing.clear();
        self.framing.resize(usize::try_from(padding).expect("less than a sector"), 0);
        match self.current() {
            Some(entry) => self.framing.extend_from_slice(&tarfile::header(&entry.path, entry.bytes, self.index.mtime)),
            None => self.framing.extend_from_slice(&tarfile::END),
        }
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.at < self.framing_end() {
                let part = self.take(&mut bytes, self.framing_end() - self.at);
                self.framing_read.extend_from_slice(part);
                if self.at < self.framing_end() {
                    return Ok(());
                }
                self.check_framing()?;
                self.begin()?;
                continue;
            }
            let Some(entry) = self.current() else {
                return Err(Error::problem("the tar stream continues after its end"));
            };
            let part = self.take(&mut bytes, entry.tar_offset + entry.bytes - self.at);
            self.hasher.update(part);
            self.visitor.data(part)?;
            self.end_if_complete()?;
        }
        Ok(())
    }

    /// Removes at most `most` bytes from the front and returns them.
    fn take<'b>(&mut self, bytes: &mut &'b [u8], most: u64) -> &'b [u8] {
        let (part, rest) = bytes.split_at(bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX)));
        *bytes = rest;
        self.at += part.len() as u64;
        part
    }

    fn check_framing(&mut self) -> Result<()> {
        // After a part that could not be read, only the end of the framing is present.
        if self.framing.ends_with(&self.framing_read) {
            return Ok(());
        }
        let end = tarfile::END.len();
        let path = self.current().map_or("the end of the archive", |entry| &entry.path);
        let header =
            self.framing.len() - self.current().map_or(end as u64, |entry| tarfile::header_bytes(&entry.path)) as usize;
        let problem = Error::problem(format!(
            "the tar stream does not match the index: {}",
            tarfile::explain(path, self.framing_read.get(header..).unwrap_or_default())
        ));
        self.begin()?;
        Err(problem)
    }

    /// Enters the content of the current entry.
    fn begin(&mut self) -> Result<()> {
        let Some(entry) = self.current() else { return Ok(()) };
        if !self.started {
            self.started = true;
            self.hasher = Hasher::new();
            self.visitor.start(&entry.path, entry.bytes)?;
            return self.end_if_complete();
        }
        Ok(())
    }

    fn end_if_complete(&mut self) -> Result<()> {
        let Some(entry) = self.current() else { return Ok(()) };
        if self.at < entry.tar_offset + entry.bytes {
            return Ok(());
        }
        let checked = if self.lost { Ok(()) } else { check_entry(entry, std::mem::take(&mut self.hasher).finish()) };
        if checked.is_ok() && !self.lost {
            self.visitor.end()?;
        }
        self.next_entry();
        checked
    }

    fn next_entry(&mut self) {
        let padding = self.current().map_or(0, |entry| tarfile::padding(entry.bytes));
        self.entry += 1;
        self.started = false;
        self.lost = false;
        self.expect_framing(padding);
    }

    /// Skips a part of the stream that could not be read or was invalid, up to `end`.
    fn resume_at(&mut self, end: u64) {
        while let Some(entry) = self.current() {
            let content_end = entry.tar_offset + entry.bytes;
            if end < content_end {
                break;
            }
            self.at = content_end;
            self.next_entry();
        }
        self.framing_read.clear();
        self.at = self.at.max(end);
        self.started = self.at >= self.framing_end();
        self.lost = self.started;
    }

    fn finish(self) -> Result<()> {
        if self.entry == self.index.entries.len() && self.at == self.index.tar_bytes {
            Ok(())
        } else {
            Err(Error::problem("the tar stream is truncated"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::archive::{ArchiveWriter, EncryptingWriter, generate_key};
    use crate::platform::entries::EntryWriter;

    /// A file in memory that counts the bytes read from it.
    struct Counted(Vec<u8>, Mutex<u64>);

    impl Ranged for Counted {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            *self.1.lock().expect("no panic") += buffer.len() as u64;
            self.0.read_at(offset, buffer)
        }
        fn parallel_reads(&self) -> usize {
            3
        }
    }

    #[derive(Default)]
    struct Collect(Vec<(String, Vec<u8>, bool)>);

    impl EntryVisitor for Collect {
        fn start(&mut self, path: &str, _: u64) -> Result<()> {
            self.0.push((path.to_owned(), Vec::new(), false));
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> Result<()> {
            self.0.last_mut().expect("started").1.extend_from_slice(bytes);
            Ok(())
        }
        fn end(&mut self) -> Result<()> {
            self.0.last_mut().expect("started").2 = true;
            Ok(())
        }
    }

    fn noise(seed: u32, length: usize) -> Vec<u8> {
        let next =
            |at: u32| (at.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 24;
        (0..length as u32).map(|at| next(at) as u8).collect()
    }

    /// Sizes around that of a block and around zero. A `cut` precedes every fourth entry (numbers 3, 7 and 11).
    const SIZES: [usize; 13] = [0, 1, 4_193_792, 0, 0, 512, 5 << 20, 3, 0, (9 << 20) + 1, 100, 4 << 20, 0];

    fn archive() -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        let mut writer = ArchiveWriter::create(Vec::new(), "zstd:1".parse().expect("a codec"), 2, 1).expect("starts");
        let mut content = Vec::new();
        for (number, size) in SIZES.into_iter().enumerate() {
            if number % 4 == 3 {
                writer.cut().expect("between entries");
            }
            let (path, bytes) = (format!("data/{number}"), noise(number as u32, size));
            writer.append(&path, &bytes).expect("in memory");
            content.push((path, bytes));
        }
        (writer.finish().expect("in memory").0, content)
    }

    fn encrypted(plain: &[u8]) -> (Vec<u8>, Keys) {
        use std::io::Write as _;
        let (recipient, secret) = generate_key(chrono::Utc::now());
        let mut keys = Keys::new();
        keys.add_identity(secret.expose(), "a key").expect("a key");
        let encrypt_with = EncryptWith::Recipients(vec![recipient]);
        let mut writer = EncryptingWriter::create(Vec::new(), &encrypt_with).expect("starts");
        writer.write_all(plain).expect("in memory");
        (writer.finish().expect("in memory").0, keys)
    }

    #[test]
    fn any_entries_in_order_are_returned_completely() {
        let (bytes, content) = archive();
        let (cipher, keys) = encrypted(&bytes);
        let plain = ArchiveReader::open(Arc::new(Counted(bytes, Mutex::new(0))), 2).expect("whole");
        let encrypted = Arc::new(Counted(cipher, Mutex::new(0)));
        let encrypted = ArchiveReader::open_encrypted(encrypted, &keys, 2).expect("complete");
        for reader in [plain, encrypted] {
            // All subsets of the first seven entries, each with every other one of the rest.
            for chosen in 0..128_u32 {
                let wanted = |number: usize| {
                    if number < 7 { chosen >> number & 1 == 1 } else { (number as u32 + chosen).is_multiple_of(2) }
                };
                let picked: Vec<usize> = (0..SIZES.len()).filter(|number| wanted(*number)).collect();
                if chosen % 16 != 5 && picked.iter().map(|number| SIZES[*number]).sum::<usize>() > 1 << 20 {
                    continue;
                }
                let entries: Vec<&Entry> = picked.iter().map(|number| &reader.entries()[*number]).collect();
                let mut found = Collect::default();
                reader.visit(&entries, &mut found).expect("whole");
                let expected: Vec<_> = picked.iter().map(|number| content[*number].clone()).collect();
                assert!(found.0.iter().all(|(_, _, ended)| *ended), "{picked:?}");
                let found: Vec<_> = found.0.into_iter().map(|(path, bytes, _)| (path, bytes)).collect();
                assert!(found == expected, "{picked:?}");
            }
        }
    }

    #[test]
    fn entries_in_another_order_are_refused() {
        let (bytes, _) = archive();
        let reader = ArchiveReader::open(Arc::new(bytes), 1).expect("whole");
        let entries = reader.entries();
        for wrong in [vec![&entries[7], &entries[6]], vec![&entries[6], &entries[6]], vec![&entries[9], &entries[2]]] {
            assert!(reader.visit(&wrong, &mut Collect::default()).is_err());
        }
    }

    #[test]
    fn a_block_of_many_entries_is_read_once() {
        let mut writer = ArchiveWriter::create(Vec::new(), "gzip:1".parse().expect("a codec"), 2, 1).expect("starts");
        for number in 0..200 {
            writer.append(&format!("data/{number}"), &noise(number, 50_000)).expect("in memory");
        }
        let bytes = writer.finish().expect("in memory").0;
        let file_bytes = bytes.len() as u64;
        let counted = Arc::new(Counted(bytes, Mutex::new(0)));
        let reader = ArchiveReader::open(Arc::clone(&counted) as Arc<dyn Ranged>, 2).expect("whole");
        let opened = std::mem::take(&mut *counted.1.lock().expect("no panic"));
        let entries: Vec<&Entry> = reader.entries().iter().collect();
        reader.visit(&entries, &mut Collect::default()).expect("whole");
        let read = *counted.1.lock().expect("no panic");
        assert!(read <= file_bytes && opened < 100_000, "{read} of {file_bytes}, {opened} to open it");
    }

    #[test]
    fn a_walk_hashes_the_stored_file() {
        let (bytes, content) = archive();
        let (cipher, keys) = encrypted(&bytes);
        let (plain_hash, cipher_hash) = (Sha256::of(&bytes), Sha256::of(&cipher));
        let plain = ArchiveReader::open(Arc::new(Counted(bytes, Mutex::new(0))), 2).expect("whole");
        let encrypted = Arc::new(Counted(cipher, Mutex::new(0)));
        let encrypted = ArchiveReader::open_encrypted(encrypted, &keys, 2).expect("complete");
        for (reader, hash) in [(plain, plain_hash), (encrypted, cipher_hash)] {
            let mut found = Collect::default();
            assert_eq!(reader.walk(&mut found).expect("whole").sha256, hash);
            assert!(found.0.into_iter().map(|(path, bytes, _)| (path, bytes)).eq(content.iter().cloned()));
        }
    }
}
