//! How far long work has come, told to whoever watches.

/// Is told of the progress of one piece of work after the other.
pub trait Progress: Send + Sync {
    /// A piece of work of `total` bytes begins.
    fn start(&self, what: &str, total: u64);

    /// So many bytes more are done.
    fn advance(&self, bytes: u64);

    /// The piece of work is over, well or not.
    fn finish(&self);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn finish(&self) {}
}
