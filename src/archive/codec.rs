//! Compresses and decompresses one block at a time. Contexts are created once and reused.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor, Crc};

use crate::archive::format::BLOCK_BYTES;
use crate::platform::error::{Error, Result};

/// The compressed form of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// `.tar.gz`: every system can open it.
    Gzip,
    /// `.tar.zst`: several times faster, and smaller.
    Zstd,
}

impl Codec {
    /// Returns its name in manifests and indexes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        }
    }

    /// Returns the extension of an archive's file name, including the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Codec::Gzip => ".tar.gz",
            Codec::Zstd => ".tar.zst",
        }
    }
}

/// A codec and its compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    codec: Codec,
    level: u8,
}

impl Compression {
    /// Returns the codec.
    #[must_use]
    pub fn codec(self) -> Codec {
        self.codec
    }
}

impl Default for Compression {
    fn default() -> Self {
        Compression { codec: Codec::Gzip, level: 6 }
    }
}

impl FromStr for Compression {
    type Err = Error;

    /// Parses `gzip`, `gzip:1` to `gzip:9`, `zstd`, `zstd:1` to `zstd:19`.
    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let (codec, default, highest) = match name {
            "gzip" => (Codec::Gzip, 6, 9),
            "zstd" => (Codec::Zstd, 3, 19),
            _ => {
                return Err(Error::usage(format!("unknown compression '{text}'"))
                    .hint("use gzip, gzip:1..9, zstd or zstd:1..19"));
            }
        };
        let level =
            level.map_or(Some(default), |level| level.parse().ok().filter(|level| (1..=highest).contains(level)));
        let level = level.ok_or_else(|| {
            Error::usage(format!("'{text}' has an invalid compression level"))
                .hint(format!("use a level from 1 to {highest} for {name}"))
        })?;
        Ok(Compression { codec, level })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.codec.name(), self.level)
    }
}

const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
const GZIP_TRAILER_BYTES: usize = 8;

/// Compresses blocks, one after the other.
///
/// Gzip members are written by libdeflate, which takes a whole block at once: it is faster than zlib and its forks,
/// and its output is smaller. They are read by zlib-rs, which is safe Rust, because the input may be hostile.
pub(super) enum Encoder {
    /// The buffer is large enough for the compressed form of the largest block.
    Gzip(Compressor, Vec<u8>),
    Zstd(Box<ZstdEncoder>),
}

/// The level of libdeflate for each level of gzip, 1 to 9: the output is about as small as gzip's own, or smaller. At
/// the same number, libdeflate searches longer and writes smaller files.
const LIBDEFLATE_LEVELS: [i32; 9] = [1, 2, 3, 3, 4, 5, 6, 8, 9];

/// A zstd compressor and, at the levels where it is worth it, a second one of level 1.
///
/// Levels 3 and 4 search for long and short matches. In text that is half random (JSON with hashes, UUIDs, numbers) the
/// short ones cost more than they save: level 1 takes half the time, and its output is up to a sixth smaller. A sample
/// of each block is compressed with both to choose the better one for that block.
pub(super) struct ZstdEncoder {
    configured: zstd::bulk::Compressor<'static>,
    fastest: Option<zstd::bulk::Compressor<'static>>,
    sample: Vec<u8>,
}

/// A sample of a block is this many pieces of it, evenly spread, each this long.
const SAMPLE_PIECES: usize = 8;
const SAMPLE_PIECE_BYTES: usize = 16 << 10;

impl ZstdEncoder {
    fn new(level: u8) -> Result<Self> {
        let compressor = |level: u8| -> io::Result<_> {
            let mut compressor = zstd::bulk::Compressor::new(level.into())?;
            compressor.include_checksum(true)?;
            compressor.include_contentsize(true)?;
            Ok(compressor)
        };
        let fastest = if matches!(level, 3 | 4) { Some(compressor(1)?) } else { None };
        Ok(ZstdEncoder { configured: compressor(level)?, fastest, sample: Vec::new() })
    }

    /// Returns the compressor that is better for a block.
    fn choose(&mut self, input: &[u8], scratch: &mut Vec<u8>) -> io::Result<&mut zstd::bulk::Compressor<'static>> {
        let stride = input.len() / SAMPLE_PIECES;
        let Some(fastest) = self.fastest.as_mut().filter(|_| stride >= 2 * SAMPLE_PIECE_BYTES) else {
            return Ok(&mut self.configured);
        };
        self.sample.clear();
        for piece in input.chunks_exact(stride) {
            self.sample.extend_from_slice(&piece[..SAMPLE_PIECE_BYTES]);
        }
        scratch.clear();
        let fastest_bytes = fastest.compress_to_buffer(&self.sample, scratch)?;
        scratch.clear();
        let configured_bytes = self.configured.compress_to_buffer(&self.sample, scratch)?;
        scratch.clear();
        // Require a gain of more than 5 %: a sample is only an estimate of the block.
        Ok(if fastest_bytes * 100 < configured_bytes * 95 { fastest } else { &mut self.configured })
    }
}

impl Encoder {
    pub(super) fn new(compression: Compression) -> Result<Self> {
        Ok(match compression.codec {
            Codec::Gzip => {
                let level = LIBDEFLATE_LEVELS[usize::from(compression.level) - 1];
                let level = CompressionLvl::new(level).expect("libdeflate has these levels");
                let mut compressor = Compressor::new(level);
                let buffer = vec![0; compressor.deflate_compress_bound(BLOCK_BYTES)];
                Encoder::Gzip(compressor, buffer)
            }
            Codec::Zstd => Encoder::Zstd(Box::new(ZstdEncoder::new(compression.level)?)),
        })
    }

    /// Replaces the content of `output` with the compressed form of `input`.
    pub(super) fn encode(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<()> {
        output.clear();
        match self {
            Encoder::Gzip(compressor, buffer) => {
                output.extend_from_slice(&GZIP_HEADER);
                let written = compressor.deflate_compress(input, buffer).map_err(|error| {
                    Error::failed("the compressor's buffer is too small for a block").because(error)
                })?;
                output.extend_from_slice(&buffer[..written]);
                let mut crc = Crc::new();
                crc.update(input);
                output.extend_from_slice(&crc.sum().to_le_bytes());
                output.extend_from_slice(&u32::try_from(input.len()).expect("blocks are small").to_le_bytes());
            }
            Encoder::Zstd(compressor) => {
                output.reserve(zstd::zstd_safe::compress_bound(input.len()));
                compressor.choose(input, output)?.compress_to_buffer(input, output)?;
            }
        }
        Ok(())
    }
}

/// Decompresses blocks, one after the other.
pub(super) enum Decoder {
    Gzip(Box<Decompress>),
    Zstd(Box<zstd::bulk::Decompressor<'static>>),
}

impl Decoder {
    pub(super) fn new(codec: Codec) -> Result<Self> {
        Ok(match codec {
            Codec::Gzip => Decoder::Gzip(Box::new(Decompress::new(false))),
            Codec::Zstd => Decoder::Zstd(Box::new(zstd::bulk::Decompressor::new()?)),
        })
    }

    /// Replaces the content of `output` with the decompressed `input`, which must be exactly `length` bytes (at most a
    /// block).
    pub(super) fn decode(&mut self, input: &[u8], length: usize, output: &mut Vec<u8>) -> Result<()> {
        assert!((1..=BLOCK_BYTES).contains(&length), "the index was checked");
        output.clear();
        let mismatch = || Error::problem("its content does not match the index");
        match self {
            Decoder::Gzip(inflate) => {
                let body = input
                    .strip_prefix(&GZIP_HEADER)
                    .ok_or_else(|| Error::problem("it does not start with the header of a gzip member"))?;
                let (data, trailer) = body
                    .len()
                    .checked_sub(GZIP_TRAILER_BYTES)
                    .map(|at| body.split_at(at))
                    .ok_or_else(|| Error::problem("it is too short for a gzip member"))?;
                inflate.reset(false);
                // One byte more than the largest block, so that longer content is noticed.
                output.reserve_exact(BLOCK_BYTES + 1);
                let status = inflate.decompress_vec(data, output, FlushDecompress::Finish);
                let status = status.map_err(|error| Error::problem("it cannot be decompressed").because(error))?;
                let mut crc = Crc::new();
                crc.update(output);
                let expected = [crc.sum().to_le_bytes(), (output.len() as u32).to_le_bytes()].concat();
                let is_complete =
                    status == Status::StreamEnd && inflate.total_in() == data.len() as u64 && output.len() == length;
                if !is_complete || trailer != expected {
                    return Err(mismatch());
                }
            }
            Decoder::Zstd(decompressor) => {
                check_frame(input, length)?;
                output.reserve_exact(BLOCK_BYTES);
                let written = decompressor.decompress_to_buffer(input, output);
                let written = written.map_err(|error| Error::problem("it cannot be decompressed").because(error))?;
                if written != length || output.len() != length {
                    return Err(mismatch());
                }
            }
        }
        Ok(())
    }
}

/// Fails unless `input` is one zstd frame with a content size of `length` and a checksum.
fn check_frame(input: &[u8], length: usize) -> Result<()> {
    // The frame header descriptor follows the magic number; its bit 2 is the checksum flag (RFC 8878, 3.1.1.1.1).
    let checksummed = input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) && input.get(4).is_some_and(|flags| flags & 4 != 0);
    let sized = matches!(zstd::zstd_safe::get_frame_content_size(input), Ok(Some(size)) if size == length as u64);
    let alone = zstd::zstd_safe::find_frame_compressed_size(input) == Ok(input.len());
    if checksummed && sized && alone {
        Ok(())
    } else {
        Err(Error::problem("it is not exactly one zstd frame with a content size and a checksum"))
    }
}

/// Compresses bytes of any length into one member or frame.
pub(super) fn encode_stream(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    Ok(match compression.codec {
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(bytes)?;
            encoder.finish()?
        }
        Codec::Zstd => zstd::stream::encode_all(bytes, 3)?,
    })
}

/// Decompresses a single member or frame as a stream.
pub(super) fn decode_stream<'a>(codec: Codec, bytes: impl io::BufRead + 'a) -> Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::Gzip => Box::new(flate2::bufread::GzDecoder::new(bytes)),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_checked() {
        for (text, shown) in [("gzip", "gzip:6"), ("gzip:1", "gzip:1"), ("zstd", "zstd:3"), ("zstd:19", "zstd:19")] {
            assert_eq!(text.parse::<Compression>().expect("good").to_string(), shown);
        }
        for text in ["", "gzip:0", "gzip:10", "gzip:", "zstd:20", "zstd:-1", "lz4", "gzip:6:6"] {
            assert!(text.parse::<Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_that_grows_beyond_its_length_is_refused() {
        for text in ["gzip:9", "zstd:3"] {
            let compression: Compression = text.parse().expect("good");
            let (mut packed, mut back) = (Vec::new(), Vec::new());
            Encoder::new(compression).and_then(|mut e| e.encode(&vec![7; BLOCK_BYTES], &mut packed)).expect("packs");
            let mut decoder = Decoder::new(compression.codec()).expect("starts");
            decoder.decode(&packed, BLOCK_BYTES, &mut back).expect("unpacks");
            for length in [1, BLOCK_BYTES - 1] {
                assert!(decoder.decode(&packed, length, &mut back).is_err(), "{text} {length}");
            }
            assert!(decoder.decode(&[], 1, &mut back).is_err());
            // A decompression bomb: 64 MiB of content in a block of at most 4 MiB.
            let bomb = encode_stream(compression, &vec![0; 64 << 20]).expect("packs");
            assert!(decoder.decode(&bomb, BLOCK_BYTES, &mut back).is_err());
            assert!(back.capacity() <= 2 * BLOCK_BYTES);
        }
    }

    #[test]
    fn incompressible_and_tiny_blocks_come_back() {
        let mut noise = vec![0u8; BLOCK_BYTES];
        getrandom::fill(&mut noise).expect("noise");
        for text in ["gzip:1", "gzip:6", "zstd:3"] {
            let compression: Compression = text.parse().expect("good");
            let mut encoder = Encoder::new(compression).expect("starts");
            let mut decoder = Decoder::new(compression.codec()).expect("starts");
            let (mut packed, mut back) = (Vec::new(), Vec::new());
            for block in [&noise[..], &noise[..1], &noise[..4097]] {
                encoder.encode(block, &mut packed).expect("packs");
                decoder.decode(&packed, block.len(), &mut back).expect("unpacks");
                assert!(back == block, "{text} {}", block.len());
            }
        }
    }
}
