//! The base for all other modules: errors, hashes, files, signals, processes, HTTP and TLS, secrets, and texts for
//! people. It must not depend on databases, archives or snapshots.

pub(crate) mod attributes;
pub mod digest;
pub(crate) mod disk;
pub(crate) mod duration;
pub mod entries;
pub mod error;
pub mod http;
pub(crate) mod incidental;
pub mod interrupt;
pub(crate) mod new_name;
pub(crate) mod progress;
pub mod ranged;
pub(crate) mod scratch;
pub mod secret;
pub mod supervise;
pub(crate) mod text;
pub(crate) mod tls;
