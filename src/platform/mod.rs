//! The base for all other modules: errors, hashes, files, signals, processes, HTTP and TLS, secrets, and texts for
//! people. It must not depend on databases, archives or snapshots.

pub(crate) mod attributes;
pub mod digest;
pub(crate) mod disk;
pub(crate) mod duration;
pub mod entries;
pub mod error;
pub(crate) mod exposed;
pub(crate) mod file_birth;
pub(crate) mod home;
pub mod home_variable;
pub mod http;
pub(crate) mod incidental;
pub mod interrupt;
pub mod json;
pub(crate) mod new_name;
pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod progress;
pub mod ranged;
pub(crate) mod restored;
pub(crate) mod scratch;
pub mod secret;
pub(crate) mod secret_file;
pub(crate) mod shell;
pub mod signature;
pub mod supervise;
pub(crate) mod temporary_folder;
pub(crate) mod text;
pub(crate) mod tls;
