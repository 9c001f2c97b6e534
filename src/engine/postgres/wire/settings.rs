//! The session settings that change what COPY prints or reads, and how long statements may run; pinned on both ways,
//! whatever the server, the database or the role sets.

use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// What is pinned on every connection that reads or writes rows.
const PINNED: &[&str] = &[
    "search_path = ''",
    "DateStyle = 'ISO, MDY'",
    "IntervalStyle = 'postgres'",
    "TimeZone = 'UTC'",
    "extra_float_digits = 3",
    "bytea_output = 'hex'",
    "lc_monetary = 'C'",
    "xmloption = 'content'",
    "quote_all_identifiers = off",
    "standard_conforming_strings = on",
    "synchronize_seqscans = off",
    "row_security = off",
    "statement_timeout = 0",
    "idle_in_transaction_session_timeout = 0",
    "check_function_bodies = off",
    // A database that somebody has set read-only is written to all the same: whoever restores has said so.
    "default_transaction_read_only = off",
    "default_transaction_isolation = 'read committed'",
    // With this off, the NULLs in arrays are read as words.
    "array_nulls = on",
    "transform_null_equals = off",
    "default_tablespace = ''",
    "default_table_access_method = 'heap'",
    // What is planned here is read once: compiling it takes longer than it saves.
    "jit = off",
    "lock_timeout = '60s'",
    "client_min_messages = 'warning'",
];

/// How soon the server finds out that nobody is at the other end any more. It would wait for hours, holding its locks.
const NOTICED: &[&str] = &["tcp_keepalives_idle = 60", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 6"];

/// The encoding in which rows pass; where the database takes any bytes for text, they pass as they are.
#[must_use]
pub fn encoding(of_database: &str) -> &'static str {
    if of_database == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" }
}

/// Pins the settings for the session.
pub fn pin(session: &mut Session) -> Result<()> {
    let mut sql: String = PINNED.iter().chain(NOTICED).map(|setting| format!("SET {setting};")).collect();
    sql.push_str(&format!("SET client_encoding = '{}';", encoding(&session.about().server_encoding)));
    if session.version() >= 140_000 {
        sql.push_str("SET idle_session_timeout = 0;");
    }
    if session.version() >= 170_000 {
        sql.push_str("SET transaction_timeout = 0;");
    }
    session.execute(&sql)
}

/// The same as lines of a script, for a database of this encoding.
#[must_use]
pub fn script(encoding_of_database: &str) -> String {
    let pinned: String = PINNED.iter().map(|setting| format!("SET {setting};\n")).collect();
    format!("{pinned}SET client_encoding = '{}';\n", encoding(encoding_of_database))
}
