//! Migrates SQLite files to PostgreSQL: plans the tables, loads them, and verifies every row.
//!
//! - [`plan`] is the plan of a migration, a file that people edit: [`profile`] inspects every value, [`propose`]
//!   makes a plan from the result, with the types that `choose` chooses, the `remarks` on their values, and the defaults and
//!   conditions that `defaults` and `translate` carry over, [`adopt`] fills tables that [`existing`] has found in the target,
//!   [`rehearse`] tries the statements of the plan, [`refused`] the values of types that only the server reads, and
//!   [`mod@write`] writes its text.
//! - [`run`] executes the plan: [`ddl`] builds the statements, [`make`] creates tables, [`load`] copies rows, [`steps`] adds
//!   keys, indexes and policies afterwards, [`convert`] converts values to the types of the plan, `notation` tells whether the
//!   server holds the values of other types exactly, `output` writes them as COPY reads them, `changes` counts values that are
//!   not exactly the same there, [`collisions`] counts rows of merged tables with the same key, and [`state`] keeps notes in
//!   the target on what has been done. `loaded` finds rows that others have changed meanwhile. [`keys`] drops foreign keys of
//!   existing tables for that time, [`orphans`] rejects rows that they refuse then, and [`retry`] loads rows again that came
//!   before those that they refer to.
//! - [`verify`] compares the target with the files, with separate code; [`rollback`] removes what a run created.

pub(crate) mod adopt;
mod changes;
mod choose;
pub(crate) mod collisions;
pub(crate) mod convert;
pub(crate) mod ddl;
mod decimal;
mod defaults;
pub(crate) mod existing;
mod foreign_key;
mod index_row;
mod json;
mod keys;
pub(crate) mod load;
mod loaded;
mod make;
mod not_planned;
mod notation;
pub(crate) mod orphaned;
mod orphans;
mod output;
mod parallel;
pub(crate) mod plan;
pub(crate) mod profile;
pub(crate) mod propose;
pub(crate) mod refused;
pub(crate) mod rehearse;
mod remarks;
mod retry;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod state;
mod steps;
mod translate;
pub(crate) mod verify;
pub(crate) mod write;

pub(crate) use plan::Plan;
