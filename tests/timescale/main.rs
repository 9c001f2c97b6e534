//! Hypertables and continuous aggregates, through the program itself: saved, restored, replaced, made plain.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

#[path = "../../examples/trading.rs"]
#[allow(dead_code)]
mod trading;

mod helpers;

mod aggregates;
mod by_hand;
mod plain;
mod replace;
mod round_trip;
mod runbook;
