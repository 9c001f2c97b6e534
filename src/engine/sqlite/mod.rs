//! SQLite: reads the image of a database file page by page, in one read transaction.
//!
//! - [`database`] implements what Lifeboat needs of an engine.
//! - [`source`] takes the snapshot, [`survey`] counts and hashes its rows, [`health`] runs SQLite's own checks.
//! - [`image`] is a restored image before it is in place; [`target`] puts it in place:
//!   as a new file, as the new content of a live database, or as some of its tables.
//! - [`reading`] chooses how a database is read, so that nothing of it is changed; [`connection`] opens it, after
//!   [`companions`] has checked that its [`wal`] and [`journal`] belong to it. SQLite opens files by [`system_calls`] of
//!   this program.
//! - [`find`] finds databases in directory trees by their [`header`], [`inspect`] inspects one of them, [`still`]
//!   checks that nobody writes to one, [`holders`] lists the processes that have it open.
//!
//! One rule holds for everything here: a database file that may be open in this process is never opened or closed
//! except through SQLite. Closing any descriptor of a file drops all POSIX locks that the process has on it, and the
//! torn image that follows would have a valid hash.

mod aliases;
mod companions;
mod compare_rows;
mod connection;
pub(crate) mod database;
mod derived;
pub(crate) mod dump;
pub(crate) mod fetch;
mod files;
pub(crate) mod find;
pub(crate) mod header;
pub(crate) mod health;
pub(crate) mod holders;
pub(crate) mod image;
pub(crate) mod inspect;
mod journal;
pub(crate) mod live;
mod lock_wait;
mod main_file;
mod names;
mod outside_writes;
mod ownership;
mod reading;
mod readme;
mod restore;
mod rows;
pub(crate) mod save;
pub(crate) mod schema;
mod schema_objects;
pub(crate) mod source;
mod sql_dump;
mod stand_ins;
pub(crate) mod still;
pub(crate) mod survey;
mod system_calls;
pub(crate) mod table_counts;
pub(crate) mod tables;
pub mod target;
mod tokens;
mod trigger_indexes;
pub(crate) mod values;
mod wal;

pub use connection::{check_library, library_version};
