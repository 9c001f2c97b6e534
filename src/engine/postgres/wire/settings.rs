//! Sets the session settings that change the output or input of COPY and the run time of statements, for backup and
//! restore alike. They override those of the server, the database and the role.

use crate::engine::postgres::wire::session::Session;
use crate::platform::error::Result;

/// The settings for every connection that reads or writes rows.
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
    // The user asked for a restore, so it also writes to a database that is read-only by default.
    "default_transaction_read_only = off",
    "default_transaction_isolation = 'read committed'",
    // If this is off, NULL in an array is read as the string "NULL".
    "array_nulls = on",
    "transform_null_equals = off",
    "default_tablespace = ''",
    "default_table_access_method = 'heap'",
    // The queries here run only once: compiling them takes longer than it saves.
    "jit = off",
    "lock_timeout = '60s'",
    "client_min_messages = 'warning'",
];

/// The settings that make the server detect a dead client. By default it would wait for hours and hold its locks.
const KEEPALIVES: &[&str] = &["tcp_keepalives_idle = 60", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 6"];

/// Returns the client encoding for rows. Rows of an SQL_ASCII database, which accepts any bytes as text, are not
/// converted.
#[must_use]
pub(crate) fn encoding(of_database: &str) -> &'static str {
    if of_database == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" }
}

/// Applies the settings to the session.
pub(crate) fn pin(session: &mut Session) -> Result<()> {
    let mut sql: String = PINNED.iter().chain(KEEPALIVES).map(|setting| format!("SET {setting};")).collect();
    sql.push_str(&format!("SET client_encoding = '{}';", encoding(&session.about().server_encoding)));
    if session.version() >= 140_000 {
        sql.push_str("SET idle_session_timeout = 0;");
    }
    if session.version() >= 170_000 {
        sql.push_str("SET transaction_timeout = 0;");
    }
    session.execute(&sql)
}

/// Applies the settings again that code of others could have changed. The search path has `pg_temp` last: otherwise, types
/// that such code created there would be found before those of the server.
pub(crate) fn pin_again(session: &mut Session) -> Result<()> {
    let kept = |setting: &&&str| !setting.starts_with("lock_timeout") && !setting.starts_with("search_path");
    let mut sql: String = PINNED.iter().filter(kept).map(|setting| format!("SET {setting};")).collect();
    sql.push_str(&format!("SET client_encoding = '{}';", encoding(&session.about().server_encoding)));
    session.execute(&format!("SET search_path = pg_catalog, pg_temp; {sql}"))
}

/// Returns the same settings as lines of a script, for a database with this encoding.
#[must_use]
pub(crate) fn script(encoding_of_database: &str) -> String {
    let pinned: String = PINNED.iter().map(|setting| format!("SET {setting};\n")).collect();
    format!("{pinned}SET client_encoding = '{}';\n", encoding(encoding_of_database))
}
