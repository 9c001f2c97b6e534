//! Hypertables and continuous aggregates, through the program itself: saved, restored, replaced, made plain.

#[path = "../../../examples/trading.rs"]
#[allow(dead_code)]
mod trading;

mod helpers;

mod aggregates;
mod by_hand;
mod plain;
mod replace;
mod round_trip;
mod runbook;
