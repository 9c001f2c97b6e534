//! `serve` and `report`: what platforms, programs and people are told over HTTP and in files.

mod access;
mod browser;
mod health;
mod helpers;
mod limits;
mod report;
mod runs;
