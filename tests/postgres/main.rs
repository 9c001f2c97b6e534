//! What people see of PostgreSQL, through the program itself, on every server version: one file for each theme.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/craft.rs"]
mod craft;
#[path = "../support/mod.rs"]
mod support;

mod helpers;

mod big;
mod by_hand;
mod doctor;
mod done_when;
mod drill;
mod dropped;
mod extension;
mod fill;
mod formats;
mod hostile;
mod look;
mod origin;
mod partial;
mod replace;
mod roles_and_names;
mod round_trip;
mod standby;
mod swap;
