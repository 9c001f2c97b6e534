//! An object of the service, read by ranges.

use std::io;
use std::sync::Arc;

use super::place::Place;
use crate::platform::ranged::{Ranged, require_within};
use crate::store::Key;

/// How many ranges of one object are worth asking for at once: the way of one answer is then the others' time.
const LANES: usize = 4;

/// An object open for reading. A reply that ends early is asked for again, a bounded number of times.
pub(super) struct S3Object {
    pub(super) place: Arc<Place>,
    pub(super) key: Key,
    pub(super) bytes: u64,
    /// What tells this object from another of its key, where the service says.
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

    fn lanes(&self) -> usize {
        LANES
    }
}
