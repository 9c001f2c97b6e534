//! From SQLite files to PostgreSQL: what their tables become, how they get there, and whether all did.
//!
//! - [`plan`] is what is to be done, as a file that people edit: [`profile`] looks at every value, [`propose`] makes
//!   a plan of that, [`mod@write`] its text.
//! - [`run`] does it: [`ddl`] is the statements, [`load`] moves rows, [`convert`] makes values what the plan says, and
//!   [`state`] is what is noted in the target on the way.
//! - [`verify`] compares what is there with the files, by a way of its own; [`rollback`] takes it back.

pub mod convert;
pub mod ddl;
pub mod load;
pub mod plan;
pub mod profile;
pub mod propose;
pub mod rollback;
pub mod run;
pub mod state;
mod translate;
pub mod verify;
pub mod write;

pub use plan::Plan;
