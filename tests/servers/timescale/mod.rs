//! Hypertables and continuous aggregates: these tests run the program to save, restore and replace them.

#[path = "../../../examples/trading.rs"]
#[allow(dead_code)]
mod trading;

mod helpers;

mod aggregates;
mod by_hand;
mod interrupted;
mod names;
mod plain;
mod replace;
mod round_trip;
mod runbook;
