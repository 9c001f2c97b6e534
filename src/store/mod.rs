//! Stores, which hold snapshots: named objects that are written once and read by ranges.
//!
//! Every store guarantees the following; one contract suite tests it for all stores:
//! - an object is invisible before `finish`, and complete when it becomes visible;
//! - an upload that is dropped, or whose `finish` fails, leaves no object;
//! - an existing object is never overwritten;
//! - an object survives a power cut once `finish` has returned.
//!
//! A store does not know archives, manifests or databases: it maps keys to bytes.

mod interface;
pub mod local;
pub mod memory;
mod open;
pub mod s3;

pub use interface::{Key, Listing, Names, ObjectMeta, Published, Store, StoreExt, Upload, read_opened};
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use open::StoreUrl;
pub use s3::S3Store;
