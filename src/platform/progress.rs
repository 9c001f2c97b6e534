//! The interface for reporting the progress of long operations.

/// Receives the progress of one operation after the other.
pub trait Progress: Send + Sync {
    /// Called when an operation on `total` bytes begins.
    fn start(&self, operation: &str, total: u64);

    /// Called when this many more bytes are done.
    fn advance(&self, bytes: u64);

    /// Called when the operation ends, whether it succeeded or not.
    fn finish(&self);
}

/// Discards the progress.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}
