//! Around a deploy, through the program itself: gates, guards, checks, and who is told, one file for each theme.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, unreachable_pub)]
#[path = "../support/web.rs"]
mod web;

mod actions;
mod check;
mod deploy;
mod done_when;
mod guard;
mod helpers;
mod notices;
mod postgres;
mod retention;
mod truth;
