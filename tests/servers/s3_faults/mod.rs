//! Failures of the S3 service. An upload retries a limited number of times, or fails with one clear error. A partial
//! snapshot is never listed, and a restore is complete or changes nothing.

mod bench;
mod bytes;
mod clock;
mod download;
mod killed_or_interrupted;
mod prune;
mod together;
mod upload;
