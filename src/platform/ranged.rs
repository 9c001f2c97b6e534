//! Bytes of known length that can be read at any offset: the interface through which an archive is read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A finished object that can be read by ranges, from several threads at once.
pub trait Ranged: Send + Sync {
    /// Returns the length in bytes.
    fn len(&self) -> u64;

    /// Returns true if the length is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the useful number of concurrent reads: 1 for local bytes, more if each read is a request to a server.
    fn parallel_reads(&self) -> usize {
        1
    }

    /// Fills `buffer` with the bytes that start at `offset`. Fails with [`io::ErrorKind::UnexpectedEof`] if there are
    /// fewer bytes than requested.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Fails with [`io::ErrorKind::UnexpectedEof`] if the range does not lie within `bytes` bytes.
pub fn require_within(bytes: u64, offset: u64, length: usize) -> io::Result<()> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= bytes => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Ranged for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let end = start.checked_add(buffer.len()).filter(|end| *end <= Vec::len(self));
        let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        buffer.copy_from_slice(&self[start..end]);
        Ok(())
    }
}

/// A file that is open for reading.
pub struct RangedFile {
    file: File,
    bytes: u64,
}

impl RangedFile {
    /// Takes an open file with its present length.
    pub fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(RangedFile { file, bytes })
    }
}

impl Ranged for RangedFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        require_within(self.bytes, offset, buffer.len())?;
        self.file.read_exact_at(buffer, offset)
    }
}
