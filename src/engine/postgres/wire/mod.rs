//! The way to a server: what to connect to, the connection and its TLS, a session on it, and what a server says went wrong.

pub mod about;
mod certificate;
mod connect;
mod conninfo;
mod copy_stream;
mod failure;
pub mod params;
mod passfile;
mod service;
pub mod session;
pub mod settings;
mod socket;
mod tls;
