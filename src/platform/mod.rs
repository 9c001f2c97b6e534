//! What the other rooms stand on: errors, hashes, files, signals, processes, HTTP and TLS, secrets, and texts for people.
//! Nothing here knows of databases, archives or snapshots.

pub mod digest;
pub mod disk;
pub mod duration;
pub mod error;
pub mod http;
pub mod interrupt;
pub mod progress;
pub mod ranged;
pub mod scratch;
pub mod secret;
pub mod supervise;
pub mod text;
pub mod tls;
