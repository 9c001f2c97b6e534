//! The index and the footer. They are written last and read first, and are used only after every number was checked.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};

use super::codec::{self, Codec, Compression};
use super::tarfile;
use crate::archive::format::{BLOCK_BYTES, FORMAT, check_version};
use crate::platform::digest::{Hasher, Sha256};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::Ranged;

/// One independently compressed piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The offset of its compressed bytes in the file.
    pub offset: u64,
    /// The number of compressed bytes.
    pub bytes: u64,
    /// The offset of its content in the tar stream.
    pub tar_offset: u64,
    /// The number of its bytes in the tar stream.
    pub tar_bytes: u64,
    /// The SHA-256 of the compressed bytes.
    pub sha256: Sha256,
}

/// One file in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A relative path that passes [`super::check_path`].
    pub path: String,
    /// The offset of its content in the tar stream.
    pub tar_offset: u64,
    /// The length of its content.
    pub bytes: u64,
    /// The SHA-256 of its content.
    pub sha256: Sha256,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: u32,
    codec: String,
    mtime: u64,
    tar_bytes: u64,
    blocks: u64,
    entries: u64,
}

/// The content of an archive's index.
pub(super) struct Index {
    pub(super) codec: Codec,
    /// Seconds since 1970, in every tar header.
    pub(super) mtime: u64,
    pub(super) tar_bytes: u64,
    pub(super) blocks: Vec<Block>,
    pub(super) entries: Vec<Entry>,
}

const PAYLOAD_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"LIFEBOAT";
const GZIP_FOOTER_HEAD: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 68, 0, b'L', b'B', 64, 0];
const GZIP_FOOTER_TAIL: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ZSTD_FOOTER_HEAD: [u8; 8] = [0x5b, 0x2a, 0x4d, 0x18, 64, 0, 0, 0];
/// The maximum number of blocks in an archive: 4 TiB of tar if all are full.
pub(super) const MAX_BLOCKS: u64 = 1 << 20;
/// The maximum number of entries in an archive.
pub(super) const MAX_ENTRIES: u64 = 1 << 20;
/// The maximum number of bytes of all paths together.
pub(super) const MAX_PATHS_BYTES: usize = 64 << 20;
/// The longest line of an index: numbers and a path of 4096 bytes, each of which takes up to 6 (`\u0000`).
const MAX_LINE_BYTES: u64 = 32 << 10;

/// The footer: the index's offset, length and SHA-256.
#[derive(Clone, Copy)]
struct Footer {
    format: u32,
    offset: u64,
    bytes: u64,
    sha256: Sha256,
}

impl Footer {
    fn encode(&self, codec: Codec) -> Vec<u8> {
        let (head, tail) = footer_frame(codec);
        let mut bytes = head.to_vec();
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.sha256.0);
        bytes.extend_from_slice(tail);
        bytes
    }

    /// Reads the footer at the end of `source`. Only the numbers of a footer of the version [`FORMAT`] are checked.
    fn read(source: &dyn Ranged) -> Result<(Codec, Footer)> {
        for codec in [Codec::Gzip, Codec::Zstd] {
            let (head, tail) = footer_frame(codec);
            let length = head.len() + PAYLOAD_BYTES + tail.len();
            let Some(start) = source.len().checked_sub(length as u64) else { continue };
            let mut bytes = vec![0; length];
            source.read_at(start, &mut bytes).io(Kind::Unreachable, || "cannot read the archive's end".to_owned())?;
            let payload = &bytes[head.len()..head.len() + PAYLOAD_BYTES];
            if !payload.starts_with(MAGIC) {
                continue;
            }
            let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
            let format = u32::from_le_bytes(payload[8..12].try_into().expect("four bytes"));
            let sha256 = Sha256(payload[32..].try_into().expect("32 bytes"));
            let footer = Footer { format, offset: number(16), bytes: number(24), sha256 };
            let is_exact = footer.encode(codec) == bytes;
            let ends_at_footer = footer.offset.checked_add(footer.bytes) == Some(start);
            if format != FORMAT {
                return Err(footer.version_error(codec, is_exact && ends_at_footer, source));
            }
            if !is_exact {
                return Err(Error::problem("the archive's footer is damaged"));
            }
            if !ends_at_footer {
                return Err(Error::problem("the archive's footer points beyond the archive"));
            }
            return Ok((codec, footer));
        }
        Err(Error::problem(
            "the archive has no footer: it is truncated, is followed by other bytes, or is not a lifeboat archive",
        ))
    }

    /// Returns the error for a footer of another version. If a valid index of this version is before it, the footer is
    /// damaged: a flipped bit does not make an archive one of a newer program. `points_to_index` is true if its numbers
    /// could be those of a footer of this version.
    fn version_error(&self, codec: Codec, points_to_index: bool, source: &dyn Ranged) -> Error {
        if points_to_index {
            match Index::read_at(codec, self, source) {
                Ok(_) => {
                    return Error::problem(format!(
                        "the archive's footer is damaged: it has the unknown format version {}, and the index has {FORMAT}",
                        self.format
                    ));
                }
                Err(error) if matches!(error.kind, Kind::Unreachable | Kind::Interrupted) => return error,
                Err(_) => {}
            }
        }
        match check_version("the archive", &self.format.into()) {
            Err(error) => error,
            Ok(()) => Error::problem("the archive's footer is damaged"),
        }
    }
}

/// Fails with [`Reason::NewerFormat`](crate::platform::error::Reason) if an archive that is not encrypted was made by a
/// newer version of this program. Reads only the footer and the start of the index. An archive that is damaged passes.
pub fn require_known_format(archive: &dyn Ranged) -> Result<()> {
    let head = || -> Result<Head> {
        let (codec, footer) = Footer::read(archive)?;
        let bytes = HashingRange {
            source: archive,
            at: footer.offset,
            end: footer.offset + footer.bytes,
            hasher: Hasher::new(),
        };
        let mut compressed = BufReader::with_capacity(64 << 10, bytes);
        Lines { reader: BufReader::new(codec::decode_stream(codec, &mut compressed)?), line: Vec::new() }.read_head()
    };
    match head() {
        Err(error) if error.kind != Kind::Problem => Err(error),
        _ => Ok(()),
    }
}

fn footer_frame(codec: Codec) -> (&'static [u8], &'static [u8]) {
    match codec {
        Codec::Gzip => (&GZIP_FOOTER_HEAD, &GZIP_FOOTER_TAIL),
        Codec::Zstd => (&ZSTD_FOOTER_HEAD, &[]),
    }
}

impl Index {
    /// Returns the offset at which the blocks end and the index starts.
    pub(super) fn blocks_end(&self) -> u64 {
        self.blocks.last().map_or(0, |block| block.offset + block.bytes)
    }

    /// Encodes the index and the footer as they are written at the end of a file. Also returns the SHA-256 of the index.
    pub(super) fn encode(&self, compression: Compression) -> Result<(Vec<u8>, Sha256)> {
        let mut lines = Vec::new();
        let mut line = |value: &dyn erased::Line| -> Result<()> {
            lines.extend_from_slice(&value.json()?);
            lines.push(b'\n');
            Ok(())
        };
        line(&Head {
            format: FORMAT,
            codec: self.codec.name().to_owned(),
            mtime: self.mtime,
            tar_bytes: self.tar_bytes,
            blocks: self.blocks.len() as u64,
            entries: self.entries.len() as u64,
        })?;
        self.blocks.iter().try_for_each(|block| line(block))?;
        self.entries.iter().try_for_each(|entry| line(entry))?;
        let mut end = codec::encode_stream(compression, &lines)?;
        let (offset, bytes, sha256) = (self.blocks_end(), end.len() as u64, Sha256::of(&end));
        let footer = Footer { format: FORMAT, offset, bytes, sha256 };
        end.extend_from_slice(&footer.encode(self.codec));
        Ok((end, sha256))
    }

    /// Reads footer and index and checks every number in them. Also returns the SHA-256 of the index.
    pub(super) fn read(source: &dyn Ranged) -> Result<(Self, Sha256)> {
        let (codec, footer) = Footer::read(source)?;
        Ok((Self::read_at(codec, &footer, source)?, footer.sha256))
    }

    /// Reads the index that the footer points to, whose range must be within `source`.
    fn read_at(codec: Codec, footer: &Footer, source: &dyn Ranged) -> Result<Self> {
        let mut hashing =
            HashingRange { source, at: footer.offset, end: footer.offset + footer.bytes, hasher: Hasher::new() };
        let index = Self::parse(codec, footer, &mut hashing);
        // Report a wrong hash first: it is the cause of every error that parsing found.
        std::io::copy(&mut hashing, &mut std::io::sink())
            .io(Kind::Unreachable, || "cannot read the archive's index".to_owned())?;
        if hashing.hasher.finish() != footer.sha256 {
            return Err(Error::problem("the archive's index is damaged: its SHA-256 does not match"));
        }
        index
    }

    fn parse(codec: Codec, footer: &Footer, bytes: &mut HashingRange) -> Result<Self> {
        let wrong = |reason: &str| Error::problem(format!("the archive's index is invalid: {reason}"));
        let mut compressed = BufReader::with_capacity(1 << 20, bytes);
        let mut lines =
            Lines { reader: BufReader::new(codec::decode_stream(codec, &mut compressed)?), line: Vec::new() };
        let head = lines.read_head()?;
        if head.codec != codec.name() {
            return Err(wrong("its codec differs from the footer's"));
        }
        if head.mtime >= 1 << 33 {
            return Err(wrong("its mtime is too large for a tar header"));
        }
        if head.blocks > MAX_BLOCKS || head.entries > MAX_ENTRIES {
            return Err(wrong("it has more blocks or entries than the format allows"));
        }
        let (mut blocks, mut entries) = (Vec::new(), Vec::new());
        let (mut offset, mut tar_offset) = (0u64, 0u64);
        for _ in 0..head.blocks {
            let block: Block = lines.read()?;
            let fits = block.offset == offset
                && block.bytes > 0
                && block.bytes <= 2 * BLOCK_BYTES as u64
                && block.tar_offset == tar_offset
                && (1..=BLOCK_BYTES as u64).contains(&block.tar_bytes);
            if !fits {
                return Err(wrong("a block does not start where the previous one ends, or has an invalid size"));
            }
            offset += block.bytes;
            tar_offset += block.tar_bytes;
            if offset > footer.offset {
                return Err(wrong("its blocks overlap the index"));
            }
            blocks.push(block);
        }
        if offset != footer.offset || tar_offset != head.tar_bytes {
            return Err(wrong("the sizes of its blocks do not match the size of the archive"));
        }
        let mut tar_offset = 0u64;
        let mut paths = HashSet::new();
        let mut path_bytes = 0;
        for _ in 0..head.entries {
            let entry: Entry = lines.read()?;
            tarfile::check_path(&entry.path)?;
            path_bytes += entry.path.len();
            if path_bytes > MAX_PATHS_BYTES {
                return Err(wrong("its paths are longer in total than the format allows"));
            }
            let start = tar_offset + tarfile::header_bytes(&entry.path);
            let end = start.checked_add(entry.bytes).and_then(|end| end.checked_next_multiple_of(tarfile::SECTOR));
            match end {
                Some(end) if entry.tar_offset == start && end <= head.tar_bytes => tar_offset = end,
                _ => return Err(wrong("an entry does not start where the previous one ends, or has an invalid size")),
            }
            if !paths.insert(Sha256::of(entry.path.as_bytes())) {
                return Err(wrong("a path occurs twice"));
            }
            entries.push(entry);
        }
        if tar_offset + tarfile::END.len() as u64 != head.tar_bytes {
            return Err(wrong("the sizes of its entries do not match the size of the tar stream"));
        }
        lines.end()?;
        drop(lines);
        if !compressed.fill_buf().is_ok_and(<[u8]>::is_empty) {
            return Err(wrong("other bytes follow it"));
        }
        Ok(Index { codec, mtime: head.mtime, tar_bytes: head.tar_bytes, blocks, entries })
    }
}

mod erased {
    use crate::platform::error::{Error, Result};

    /// A document that is one line of the index.
    pub(super) trait Line {
        fn json(&self) -> Result<Vec<u8>>;
    }

    impl<T: serde::Serialize> Line for T {
        fn json(&self) -> Result<Vec<u8>> {
            serde_json::to_vec(self).map_err(|error| Error::failed("cannot write the archive's index").because(error))
        }
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::problem("the archive's index cannot be read").because(error.to_string())
}

struct Lines<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Reads the first line. Its version is checked before any other field: those of a newer version are not known.
    fn read_head(&mut self) -> Result<Head> {
        #[derive(Deserialize)]
        struct Versioned {
            format: serde_json::Value,
        }
        let line = self.next_line()?;
        if let Ok(Versioned { format }) = serde_json::from_slice(line) {
            check_version("the archive", &format)?;
        }
        serde_json::from_slice(line).map_err(|error| unreadable(&error))
    }

    fn read<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        serde_json::from_slice(self.next_line()?).map_err(|error| unreadable(&error))
    }

    fn next_line(&mut self) -> Result<&[u8]> {
        self.line.clear();
        let read = (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
        read.map_err(|error| unreadable(&error))?;
        self.line.strip_suffix(b"\n").ok_or_else(|| unreadable(&"it is truncated, or a line is too long"))
    }

    fn end(&mut self) -> Result<()> {
        match self.reader.fill_buf() {
            Ok([]) => Ok(()),
            _ => Err(Error::problem("the archive's index has content after its last line")),
        }
    }
}

/// Reads a range and hashes the bytes that it returns.
struct HashingRange<'a> {
    source: &'a dyn Ranged,
    at: u64,
    end: u64,
    hasher: Hasher,
}

impl Read for HashingRange<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        self.source.read_at(self.at, &mut buffer[..length])?;
        self.hasher.update(&buffer[..length]);
        self.at += length as u64;
        Ok(length)
    }
}
