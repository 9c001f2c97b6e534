//! Restores databases: creates and fills them, exchanges them, or replaces rows in place.
//!
//! - [`plan`] inspects the target and decides; [`whole`], [`rows`] and [`tables`] carry out what it decided, and
//!   [`drill`] tries a restore in a temporary database.
//! - [`target`] creates, marks and exchanges databases, [`create`] and [`post_data`] run the statements of a schema,
//!   [`build`] fills a database and compares it, [`replace`] exchanges the rows of existing tables.
//! - [`reload`], [`again`] and [`refresh`] repeat what has failed, and [`tied`] is about extensions that a server allows in one
//!   database only.
//! - [`roles`] knows which roles a restore acts as, [`existing`] leaves alone what an administrator has created before,
//!   and [`fill`] marks a database that is filled. [`created`] records the objects that are created there, [`drop_created`]
//!   drops them again, and [`before`] puts back what the database had before. [`new_roles`] makes the roles that are missing,
//!   [`tablespaces`] finds those that are, and [`in_use`] names what prevents the exchange of a database, or stays with the
//!   old one.

mod again;
mod archive_rows;
mod before;
mod build;
mod choose;
pub(crate) mod commit;
mod configuration;
pub(crate) mod contents;
pub(crate) mod create;
mod created;
pub(super) mod drill;
mod drop_created;
mod equal;
mod existing;
mod fill;
mod in_use;
pub(super) mod items;
mod locks;
pub(super) mod missing;
mod new_roles;
mod own_settings;
pub(super) mod plan;
pub(crate) mod post_data;
mod refresh;
mod reload;
pub(crate) mod replace;
mod roles;
mod rows;
mod tables;
mod tablespaces;
pub(crate) mod target;
mod tied;
mod undo;
mod whole;
mod without;
