//! Migrations from SQLite files into real PostgreSQL servers, through the binary.

mod choices;
mod helpers;
mod plan;
mod rollback;
mod run;
mod verify;
