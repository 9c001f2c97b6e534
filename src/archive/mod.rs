//! Writes and reads archives: compressed in blocks, indexed, and encrypted if asked.
//!
#![doc = include_str!("format.md")]

mod codec;
mod encryption;
mod format;
mod index;
mod keys;
mod pipeline;
mod readahead;
mod reader;
mod tarfile;
mod writer;

pub use codec::{Codec, Compression};
pub use encryption::{DecryptedArchive, EncryptingWriter, HOW_TO_GIVE_KEYS};
pub use format::{BLOCK_BYTES, FORMAT, MANIFEST_PATH, README_PATH, check_version};
pub use index::{Block, Entry, require_known_format};
pub use keys::{EncryptWith, Keys, MAX_RECIPIENTS, Recipient, generate_key, read_passphrase_file};
pub use readahead::stream;
pub use reader::{ArchiveReader, Walk};
pub use tarfile::{check_path, header as tar_header};
pub use writer::{ArchiveSummary, ArchiveWriter};
