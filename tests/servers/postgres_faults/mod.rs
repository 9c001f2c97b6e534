//! Failures of PostgreSQL, of the connection, of the process itself, and conflicts with other clients. After each of
//! them, `list` shows nothing new, the existing snapshots can be restored, and a database is completely the old one or
//! completely the new one. The error says what failed, on what, and what to do. No output contains a password.

mod common;
mod cut;
mod damage;
mod ddl;
mod full;
mod killed;
mod names;
mod refused;
mod rights;
mod together;
