//! Bytes of known length that can be read at any offset: how an archive looks at whatever holds it.

use std::io;

/// A finished object, read by ranges, from several threads at once.
pub trait Ranged: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// True where there is no byte to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many reads at once are worth it: 1 where the next byte is near, more where each read is a way to a server.
    fn lanes(&self) -> usize {
        1
    }

    /// Fills `buffer` with the bytes from `offset` on; fewer bytes than asked for are an error
    /// ([`io::ErrorKind::UnexpectedEof`]).
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Fails for a range that does not lie within `bytes` bytes.
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
