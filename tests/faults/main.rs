//! Tests of failures: disk errors, damaged and malicious archives, and other programs that use the same files.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod bank;
mod common;
mod concurrency;
mod damage;
mod disks;
mod exchanged;
mod file_systems;
mod hostile;
mod killed;
mod memory;
mod model;
mod mutations;
mod newer;
mod reports;
mod rivals;
mod signals;
mod store_failures;
mod strace;
mod system_calls;
