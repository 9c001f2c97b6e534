//! What stands after a failure of PostgreSQL, of the way to it, of those who share it, of the process itself.
//! Nothing new is listed, what was there restores, a database is the old one or the new one, whole; the error says what
//! failed, on what, and what to do; and no password is in any of it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "postgres_faults/common.rs"]
mod common;
#[path = "support/craft.rs"]
mod craft;
#[path = "postgres_faults/cut.rs"]
mod cut;
#[path = "postgres_faults/damage.rs"]
mod damage;
#[path = "postgres_faults/ddl.rs"]
mod ddl;
#[path = "postgres_faults/full.rs"]
mod full;
#[path = "postgres_faults/killed.rs"]
mod killed;
#[path = "postgres_faults/names.rs"]
mod names;
#[path = "postgres_faults/refused.rs"]
mod refused;
#[path = "postgres_faults/rights.rs"]
mod rights;
#[path = "support/mod.rs"]
mod support;
#[path = "postgres_faults/together.rs"]
mod together;
