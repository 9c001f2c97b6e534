//! Writes archives byte by byte, from the specification in `lifeboat::archive` alone: valid ones, and every kind of
//! invalid one.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::io::{Read, Write};
use std::ops::Range;

use serde_json::{Value, json};
use sha2::Digest as _;

/// The maximum of tar bytes in a block.
pub const BLOCK: usize = 4 << 20;

const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Gzip,
    Zstd,
}

pub const CODECS: [Codec; 2] = [Codec::Gzip, Codec::Zstd];

impl Codec {
    pub fn name(self) -> &'static str {
        match self {
            Codec::Gzip => "gzip",
            Codec::Zstd => "zstd",
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Codec::Gzip => ".tar.gz",
            Codec::Zstd => ".tar.zst",
        }
    }

    /// Returns the offset of the payload in a footer, and the length of the footer.
    pub fn footer(self) -> (usize, usize) {
        match self {
            Codec::Gzip => (16, 90),
            Codec::Zstd => (8, 72),
        }
    }
}

/// Returns the SHA-256 as 64 lower-case hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(sha2::Sha256::digest(bytes))
}

/// One file for an archive.
#[derive(Clone, Debug)]
pub struct File {
    pub path: String,
    pub content: Vec<u8>,
    /// A header to write instead of the correct one.
    pub header: Option<Vec<u8>>,
}

pub fn file(path: &str, content: impl Into<Vec<u8>>) -> File {
    File { path: path.to_owned(), content: content.into(), header: None }
}

/// The fields of a tar header, which is 512 bytes long.
#[derive(Clone, Debug)]
pub struct Header {
    pub name: Vec<u8>,
    pub mode: u64,
    pub length: u64,
    pub mtime: u64,
    pub kind: u8,
    pub link: Vec<u8>,
}

impl Header {
    pub fn of(path: &str, length: u64, mtime: u64) -> Self {
        Header { name: path.into(), mode: 0o600, length, mtime, kind: b'0', link: Vec::new() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut sector = vec![0u8; 512];
        let name = &self.name[..self.name.len().min(100)];
        sector[..name.len()].copy_from_slice(name);
        let mut put = |at: usize, text: String| sector[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(100, format!("{:07o}", self.mode));
        put(108, "0000000".to_owned());
        put(116, "0000000".to_owned());
        if self.length < 8 << 30 {
            put(124, format!("{:011o}", self.length));
        }
        put(136, format!("{:011o}", self.mtime));
        put(148, " ".repeat(8));
        put(257, "ustar  ".to_owned());
        if self.length >= 8 << 30 {
            sector[124] = 0x80;
            sector[128..136].copy_from_slice(&self.length.to_be_bytes());
        }
        sector[156] = self.kind;
        sector[157..157 + self.link.len()].copy_from_slice(&self.link);
        let sum: u64 = sector.iter().map(|byte| u64::from(*byte)).sum();
        sector[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        sector
    }
}

/// Returns all bytes before the content of an entry: its header, and a long-name record if the path needs one.
pub fn full_header(path: &str, length: u64, mtime: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if path.len() > 100 {
        let long = Header {
            name: b"././@LongLink".to_vec(),
            mode: 0,
            length: path.len() as u64 + 1,
            mtime: 0,
            kind: b'L',
            link: Vec::new(),
        };
        bytes.extend(long.bytes());
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(0);
        pad(&mut bytes);
    }
    bytes.extend(Header::of(path, length, mtime).bytes());
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

/// Compresses the content of a block, as one gzip member or zstd frame.
pub fn pack(codec: Codec, content: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let mut bytes = GZIP_HEAD.to_vec();
            let mut deflate = flate2::write::DeflateEncoder::new(&mut bytes, flate2::Compression::new(1));
            deflate.write_all(content).unwrap();
            deflate.finish().unwrap();
            let mut crc = flate2::Crc::new();
            crc.update(content);
            bytes.extend(crc.sum().to_le_bytes());
            bytes.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
            bytes
        }
        Codec::Zstd => {
            let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
            compressor.include_checksum(true).unwrap();
            compressor.include_contentsize(true).unwrap();
            compressor.compress(content).unwrap()
        }
    }
}

/// Compresses a stream as one gzip member or zstd frame, without holding its content in memory.
pub fn pack_stream(codec: Codec, mut content: impl Read) -> Vec<u8> {
    match codec {
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
            std::io::copy(&mut content, &mut encoder).unwrap();
            let mut bytes = encoder.finish().unwrap();
            bytes[..10].copy_from_slice(&GZIP_HEAD);
            bytes
        }
        Codec::Zstd => zstd::stream::encode_all(content, 1).unwrap(),
    }
}

/// Decompresses any number of gzip members or zstd frames.
pub fn unpack(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    match codec {
        Codec::Gzip => drop(flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut content).unwrap()),
        Codec::Zstd => content = zstd::stream::decode_all(bytes).unwrap(),
    }
    content
}

/// Returns a footer with these values.
pub fn footer(codec: Codec, version: u32, offset: u64, bytes: u64, sha256: &[u8]) -> Vec<u8> {
    let mut payload = b"LIFEBOAT".to_vec();
    payload.extend(version.to_le_bytes());
    payload.extend([0; 4]);
    payload.extend(offset.to_le_bytes());
    payload.extend(bytes.to_le_bytes());
    payload.extend(sha256);
    match codec {
        Codec::Gzip => {
            let head = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 0x44, 0, b'L', b'B', 0x40, 0];
            [&head[..], &payload, &[3, 0], &[0; 8]].concat()
        }
        Codec::Zstd => [&[0x5b, 0x2a, 0x4d, 0x18, 0x40, 0, 0, 0][..], &payload].concat(),
    }
}

/// Returns an archive of blocks, a compressed index, and a footer that fits them.
pub fn assemble(codec: Codec, blocks: &[u8], index: &[u8], version: u32) -> Vec<u8> {
    let hash = sha2::Sha256::digest(index);
    [blocks, index, &footer(codec, version, blocks.len() as u64, index.len() as u64, &hash)].concat()
}

/// The parts of an archive, which a test changes before [`Layout::bytes`] assembles them.
#[derive(Clone, Debug)]
pub struct Layout {
    pub codec: Codec,
    /// The compressed blocks.
    pub blocks: Vec<Vec<u8>>,
    pub head: Value,
    pub block_lines: Vec<Value>,
    pub entry_lines: Vec<Value>,
    pub version: u32,
}

/// The modification time of the files in a [`Layout`].
pub const MTIME: u64 = 1_795_280_701;

impl Layout {
    /// Returns the valid archive of these files, in blocks of `block_bytes` tar bytes.
    pub fn of(codec: Codec, files: &[File], block_bytes: usize) -> Self {
        let (tar, entries) = tar(files, MTIME);
        Layout::of_tar(codec, &tar, entries, block_bytes)
    }

    /// Returns the archive of a tar stream with these entry lines.
    pub fn of_tar(codec: Codec, tar: &[u8], entry_lines: Vec<Value>, block_bytes: usize) -> Self {
        let mut layout = Layout {
            codec,
            blocks: tar.chunks(block_bytes).map(|content| pack(codec, content)).collect(),
            head: json!({"format": 1, "codec": codec.name(), "mtime": MTIME, "tar_bytes": tar.len(),
                "blocks": tar.len().div_ceil(block_bytes), "entries": entry_lines.len()}),
            block_lines: Vec::new(),
            entry_lines,
            version: 1,
        };
        let lengths: Vec<usize> = tar.chunks(block_bytes).map(<[u8]>::len).collect();
        layout.describe_blocks(&lengths);
        layout
    }

    /// Rewrites the block lines of the index, so that they describe the current blocks.
    pub fn describe_blocks(&mut self, tar_lengths: &[usize]) {
        let (mut offset, mut tar_offset) = (0, 0);
        self.block_lines.clear();
        for (block, tar_bytes) in self.blocks.iter().zip(tar_lengths) {
            self.block_lines.push(json!({"offset": offset, "bytes": block.len(), "tar_offset": tar_offset,
                "tar_bytes": tar_bytes, "sha256": sha256(block)}));
            offset += block.len();
            tar_offset += tar_bytes;
        }
    }

    /// Returns the index before compression.
    pub fn index_text(&self) -> Vec<u8> {
        let mut text = String::new();
        for line in [&self.head].into_iter().chain(&self.block_lines).chain(&self.entry_lines) {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text.into_bytes()
    }

    /// Returns the bytes of the archive.
    pub fn bytes(&self) -> Vec<u8> {
        self.with_index(&self.index_text())
    }

    /// Returns the archive with another text as its index.
    pub fn with_index(&self, text: &[u8]) -> Vec<u8> {
        self.with_packed_index(&pack_stream(self.codec, text))
    }

    /// Returns the archive with other bytes in place of the compressed index.
    pub fn with_packed_index(&self, index: &[u8]) -> Vec<u8> {
        assemble(self.codec, &self.blocks.concat(), index, self.version)
    }
}

/// Returns the tar stream of these files, and their lines in the index.
pub fn tar(files: &[File], mtime: u64) -> (Vec<u8>, Vec<Value>) {
    let (mut tar, mut lines) = (Vec::new(), Vec::new());
    for file in files {
        let header = file.header.clone();
        tar.extend(header.unwrap_or_else(|| full_header(&file.path, file.content.len() as u64, mtime)));
        lines.push(json!({"path": file.path, "tar_offset": tar.len(), "bytes": file.content.len(),
            "sha256": sha256(&file.content)}));
        tar.extend_from_slice(&file.content);
        pad(&mut tar);
    }
    tar.extend([0; 1024]);
    (tar, lines)
}

/// The places and files of a valid archive.
#[derive(Clone, Debug)]
pub struct Map {
    pub codec: Codec,
    pub blocks: Vec<Range<usize>>,
    pub index: Range<usize>,
    pub footer: Range<usize>,
    pub files: Vec<File>,
    pub tar_lengths: Vec<usize>,
    pub mtime: u64,
}

/// Reads a valid archive. Panics if it is invalid.
pub fn map(archive: &[u8]) -> Map {
    let codec = if archive.starts_with(&[0x1f, 0x8b]) { Codec::Gzip } else { Codec::Zstd };
    let (payload, length) = codec.footer();
    let footer = archive.len() - length..archive.len();
    let number = |at: usize| {
        let at = footer.start + payload + at;
        usize::try_from(u64::from_le_bytes(archive[at..at + 8].try_into().unwrap())).unwrap()
    };
    let index = number(16)..number(16) + number(24);
    assert_eq!(index.end, footer.start);
    let text = String::from_utf8(unpack(codec, &archive[index.clone()])).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |line: &Value, name: &str| usize::try_from(line[name].as_u64().unwrap()).unwrap();
    let (block_lines, entry_lines) = lines[1..].split_at(at(&lines[0], "blocks"));
    let tar = unpack(codec, &archive[..index.start]);
    let files = entry_lines.iter().map(|line| {
        let start = at(line, "tar_offset");
        file(line["path"].as_str().unwrap(), &tar[start..start + at(line, "bytes")])
    });
    Map {
        codec,
        blocks: block_lines.iter().map(|line| at(line, "offset")..at(line, "offset") + at(line, "bytes")).collect(),
        files: files.collect(),
        tar_lengths: block_lines.iter().map(|line| at(line, "tar_bytes")).collect(),
        index,
        footer,
        mtime: lines[0]["mtime"].as_u64().unwrap(),
    }
}
