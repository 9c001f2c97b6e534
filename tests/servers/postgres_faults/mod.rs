//! What stands after a failure of PostgreSQL, of the way to it, of those who share it, of the process itself.
//! Nothing new is listed, what was there restores, a database is the old one or the new one, whole; the error says what
//! failed, on what, and what to do; and no password is in any of it.

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
