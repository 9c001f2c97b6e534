//! The settings and services that a long operation on a database needs: threads, temporary files, progress messages.

use std::sync::Arc;

use crate::platform::progress::Progress;
use crate::platform::scratch::Scratch;

/// The settings and services of an operation on a database.
#[derive(Clone)]
pub struct EngineContext {
    /// This machine's name, as it is recorded in origins and in the marks of unfinished databases.
    pub host: String,
    /// The number of threads, and of sessions on a server.
    pub jobs: usize,
    /// The folder for temporary files.
    pub scratch: Scratch,
    /// The receiver of progress messages.
    pub progress: Arc<dyn Progress>,
}
