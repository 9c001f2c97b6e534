//! An object of the service, read by ranges.

use std::io;
use std::sync::Arc;

use super::place::Place;
use crate::platform::ranged::{Ranged, require_within};
use crate::store::interface::Key;

/// The number of parallel range requests for one object: while one reply is in transit, others transfer data.
const PARALLEL_READS: usize = 4;

/// An object open for reading. A request whose reply ends early is repeated, a bounded number of times.
pub(super) struct S3Object {
    pub(super) place: Arc<Place>,
    pub(super) key: Key,
    pub(super) bytes: u64,
    /// The ETag, which distinguishes this object from another with the same key; `None` if the service sends none.
    pub(super) etag: Option<String>,
}

impl Ranged for S3Object {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        require_within(self.bytes, offset, buffer.len())?;
        if buffer.is_empty() {
            return Ok(());
        }
        let read = self.place.get_range(&self.key, self.etag.as_deref(), offset, buffer);
        self.place.bridge.wait(read).map_err(io::Error::from)
    }

    fn parallel_reads(&self) -> usize {
        PARALLEL_READS
    }
}
