//! SQLite: the image of a database file, page by page, out of one read transaction.
//!
//! - [`source`] takes the snapshot, [`survey`] counts and hashes its rows, [`health`] asks SQLite's own checks.
//! - [`image`] is a restored image before anybody else sees it; [`target`] is what it becomes:
//!   a new file, the new content of a live database, or some of its tables.
//! - [`find`] finds databases in trees by their [`header`], [`inspect`] looks at one of them, [`still`] proves that nobody
//!   writes to one, [`holders`] names the processes that have it open.
//!
//! A rule that everything here keeps: a database file that somebody may have open in this process is
//! never opened or closed except through SQLite. Closing any descriptor of a file drops all POSIX
//! locks that the process has on it, and the torn image that follows hashes perfectly.

mod connection;
pub mod dump;
pub mod find;
pub mod glance;
pub mod header;
pub mod health;
pub mod holders;
pub mod image;
pub mod inspect;
pub mod live;
mod rows;
pub mod schema;
pub mod source;
pub mod still;
pub mod survey;
pub mod tables;
pub mod target;
pub mod values;

pub use connection::{check_library, library_version};
