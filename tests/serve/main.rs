//! `serve` and `report`: what platforms, programs and people are told over HTTP and in files.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod browser;
mod helpers;
mod limits;
mod report;
mod runs;
mod story;
