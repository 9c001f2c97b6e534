//! What stands after failures: of disks, of archives that are damaged or made to do harm, of other programs at work.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod concurrency;
mod damage;
mod faults;
mod hostile;
mod model;
