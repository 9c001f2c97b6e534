//! The fixed numbers and names of the archive format.

/// The version of archives, manifests and stores that this program writes.
pub const FORMAT: u32 = 1;

/// The maximum number of tar bytes in a block.
pub const BLOCK_BYTES: usize = 4 << 20;

/// The first entry of every archive.
pub const README_PATH: &str = "README.txt";

/// The last entry of every archive.
pub const MANIFEST_PATH: &str = "manifest.json";
