//! `serve` and `report`: health, metrics, pages and snapshots over HTTP, and the page as a file.

mod access;
mod browser;
mod health;
mod helpers;
mod limits;
mod remote;
mod report;
mod runs;
