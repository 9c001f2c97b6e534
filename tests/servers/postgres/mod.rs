//! PostgreSQL as users see it: these tests run the program with servers of every version. Each file has one subject.

mod helpers;

mod beside_others;
pub(crate) mod big;
mod by_hand;
mod dangling;
mod doctor;
mod drill;
mod dropped;
mod extension;
mod extensions_of_others;
mod fill;
mod formats;
mod generated_columns;
mod held;
mod hidden_dependencies;
mod hostile;
mod inspection;
mod new_in_servers;
mod newer;
mod options;
mod origin;
mod other_database;
mod owners_code;
mod partial;
mod pooler;
mod providers;
mod psql_commands;
mod replace;
mod restricted;
mod roles;
mod roles_and_names;
mod round_trip;
mod standby;
mod swap;
mod under_load;
mod without_kinds;
