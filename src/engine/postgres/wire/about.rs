//! Facts that a server reports when a session begins.

/// The server and the identity of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAbout {
    /// The version as a number: 150004 for 15.4.
    pub version_num: u32,
    /// The version as people write it: `15.4`.
    pub version: String,
    /// The host that answered: a name, an address, or the folder of a socket.
    pub host: String,
    /// The port that answered.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role that statements run as.
    pub user: String,
    /// True if that role is a superuser.
    pub is_superuser: bool,
    /// True if the server is a standby or in recovery.
    pub in_recovery: bool,
    /// True if transactions are read-only by default.
    pub read_only: bool,
    /// The encoding in which the database stores text; the connection always uses UTF-8.
    pub server_encoding: String,
}
