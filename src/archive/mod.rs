//! The archive, format 1: a plain tar file that is compressed in blocks and contains the hashes to verify itself.
//!
//! This page is the specification; a second implementation can be written from it alone, and
//! `tests/contract/formats.rs` holds one that reads the samples in `tests/data/v1/`. Numbers are little-endian,
//! SHA-256 is written as 64 lower-case hexadecimal digits, text is UTF-8.
//!
//! ```text
//! +---------+---------+-- --+---------+-------+--------+
//! | block 0 | block 1 | ... | block n | index | footer |
//! +---------+---------+-- --+---------+-------+--------+
//! '------- one tar file, cut in pieces ------'
//! ```
//!
//! # The tar stream
//! Entries follow each other without gaps; each is a 512-byte header, its content, and zero bytes up
//! to a multiple of 512. Two blocks of 512 zero bytes end the stream, and nothing follows them. The
//! index determines every byte of the headers:
//!
//! | at | bytes | content |
//! | --- | --- | --- |
//! | 0 | 100 | the path, zero padded (its first 100 bytes where it is longer) |
//! | 100 | 8 | mode `0000600`, NUL |
//! | 108 | 8 + 8 | uid and gid, `0000000`, NUL each |
//! | 124 | 12 | length: 11 octal digits and NUL; from 8 GiB on `80`, then 11 bytes big-endian |
//! | 136 | 12 | the index's `mtime`: 11 octal digits and NUL |
//! | 148 | 8 | checksum: 7 octal digits and NUL |
//! | 156 | 1 | `0`, a regular file |
//! | 257 | 8 | `ustar`, two spaces, NUL |
//! | | | all else is zero |
//!
//! The header of a path of more than 100 bytes is preceded by a long-name record: a header of the same form with path
//! `././@LongLink`, mode and `mtime` 0, type `L` and the path's length plus one, followed by the path, a NUL and zero
//! padding.
//!
//! Paths are relative and at most 4,096 bytes; their parts are separated by `/`, are not empty, `.` or `..`, and
//! hold no control character and no backslash. [`encode_name`] makes one part out of a name of a file or table; its
//! description belongs to this page. A path occurs only once.
//!
//! # Entries
//! The first entry is `README.txt`, the last is `manifest.json` (see [`crate::snapshots::manifest`]). For SQLite, the
//! only entry between them is the database image `data/<file name>`; in a raw copy of a damaged database (whose
//! manifest has no `sqlite.health`) it may be followed by `data/<file name>-wal` and `data/<file name>-journal`, in
//! this order. There are at most 1,048,576 entries, and their paths have at most 64 MiB together.
//!
//! # Blocks
//! The tar stream is cut into blocks of 1 to 4,194,304 bytes, at most 1,048,576 of them. Each is compressed on its own:
//! - gzip: one member; header `1f 8b 08 00 00000000 00 ff`, deflate data, CRC-32, length.
//! - zstd: exactly one frame, which holds its content size and checksum (RFC 8878).
//!
//! No block has more than 8 MiB of compressed bytes. Blocks follow each other from offset 0. So the file as a whole is
//! an ordinary `.tar.gz` or `.tar.zst`.
//!
//! # The index
//! The index follows the last block and is one gzip member or zstd frame. Its content is JSON, one document per line,
//! each with exactly these fields (when the whole file is decompressed, the lines follow the end of the tar stream,
//! where tar ignores them):
//! ```text
//! {"format":1,"codec":"gzip","mtime":1795280701,"tar_bytes":4201984,"blocks":2,"entries":3}
//! {"offset":0,"bytes":1310720,"tar_offset":0,"tar_bytes":4194304,"sha256":"..."}      for each block, in order
//! {"path":"README.txt","tar_offset":512,"bytes":1893,"sha256":"..."}                  for each entry, in order
//! ```
//! A block's `offset` and `bytes` are the position and length of its compressed bytes in the file, and its `sha256` is
//! the hash of these compressed bytes; `tar_offset` and `tar_bytes` are the position and length of its content in the
//! tar stream. An entry's `tar_offset` is the position at which its content starts in the tar stream, `bytes` is the
//! length of the content, and `sha256` is the hash of the content. `mtime` is less than 2^33. No line has more than
//! 32 KiB.
//!
//! # The footer
//! The last bytes of the file: a 64-byte payload inside a member or frame that decompresses to nothing.
//!
//! | at | bytes | content |
//! | --- | --- | --- |
//! | 0 | 8 | `LIFEBOAT` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | 0 |
//! | 16 | 8 | the index's offset in the file |
//! | 24 | 8 | the index's length |
//! | 32 | 32 | SHA-256 of the index's compressed bytes |
//!
//! - gzip, 90 bytes: `1f 8b 08 04 00000000 00 ff 4400 'L' 'B' 4000`, the payload, `03 00`, 8 zero bytes.
//! - zstd, 72 bytes: the skippable frame `5b 2a 4d 18 40000000`, the payload.
//!
//! The index ends where the footer begins. Every byte of a file is thus verified: the index covers the blocks, the
//! footer covers the index, and the footer itself has only one valid form.
//!
//! # Encryption
//! The whole file described above may be encrypted with age, version 1 (<https://c2sp.org/age>), in its binary form, to
//! X25519 recipients or with a passphrase; its name then ends in `.age`. `age --decrypt` restores the plain file.
//! Header and nonce have at most 64 KiB together, and a passphrase's work factor is at most 20.
//!
//! # Requirements for readers
//! A reader refuses any file that deviates from the above; it never guesses. It allocates memory only by numbers that
//! it has checked against the file's length or the block size.

mod ahead;
mod codec;
mod format;
mod index;
mod keys;
mod pipeline;
mod reader;
mod seal;
mod tarfile;
mod writer;

pub use ahead::stream;
pub use codec::{Codec, Compression};
pub use format::{BLOCK_BYTES, FORMAT, MANIFEST_PATH, README_PATH};
pub use index::{Block, Entry};
pub use keys::{Keys, MAX_RECIPIENTS, Recipient, Sealing, generate_key, read_passphrase_file};
pub use reader::{ArchiveReader, Visitor, Walk};
pub use seal::{HOW_TO_GIVE_KEYS, SealedWriter, Unsealed};
pub use tarfile::{check_path, encode_name, header as tar_header};
pub use writer::{ArchiveSummary, ArchiveWriter};
