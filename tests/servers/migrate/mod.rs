//! Migrations from SQLite files into real PostgreSQL servers, through the binary.

mod apps;
mod choices;
mod existing;
mod helpers;
mod plan;
mod rollback;
mod run;
mod verify;
