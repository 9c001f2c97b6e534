//! Migrations from SQLite files into real PostgreSQL servers, through the binary.

mod apps;
mod choices;
mod existing;
mod helpers;
mod limits;
mod plan;
mod rollback;
mod run;
mod values;
mod verify;
