//! PostgreSQL as users see it: these tests run the program with servers of every version. Each file has one subject.

mod helpers;

mod big;
mod by_hand;
mod dangling;
mod doctor;
mod drill;
mod dropped;
mod extension;
mod fill;
mod formats;
mod held;
mod hostile;
mod inspection;
mod new_in_servers;
mod newer;
mod options;
mod origin;
mod owners_code;
mod partial;
mod pooler;
mod psql_commands;
mod replace;
mod restricted;
mod roles;
mod roles_and_names;
mod round_trip;
mod standby;
mod swap;
mod under_load;
