//! A service that breaks: whatever it does, an upload retries within bounds or fails with one clear line, nothing half is
//! ever listed, and a restore is whole or not at all.

mod bench;
mod bytes;
mod clock;
mod download;
mod killed_or_interrupted;
mod prune;
mod together;
mod upload;
