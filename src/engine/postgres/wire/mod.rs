//! The connection to a server: its parameters, the socket and TLS, a session on it, and the server's errors.

pub mod about;
mod auth;
mod certificate;
mod connect;
mod conninfo;
mod copy_stream;
pub(in crate::engine::postgres) mod created;
mod failure;
mod hosted;
pub mod majors;
pub mod params;
mod passfile;
mod pooler;
mod service;
pub mod session;
pub(crate) mod settings;
mod socket;
mod tls;
