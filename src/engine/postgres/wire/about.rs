//! What a server says of itself when a session begins.

/// What a server is, and as whom we are there.
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
    /// Whether that role may do everything.
    pub is_superuser: bool,
    /// Whether the server is a standby, or recovers.
    pub in_recovery: bool,
    /// Whether transactions are read-only unless they ask otherwise.
    pub read_only: bool,
    /// The encoding that the database keeps text in; over the connection it is always UTF-8.
    pub server_encoding: String,
}
