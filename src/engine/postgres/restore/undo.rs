//! The commands that undo a restore.

use crate::engine::postgres::wire::params::Params;
use crate::platform::shell::quote_word;

/// Returns a command that runs statements in one transaction, from the database `postgres`.
pub(super) fn sql_command(params: &Params, statements: &[String]) -> String {
    sql_command_in(params, "postgres", statements)
}

pub(super) fn sql_command_in(params: &Params, database: &str, statements: &[String]) -> String {
    let sql = match statements {
        [one] => one.clone(),
        many => format!("BEGIN; {}; COMMIT", many.join("; ")),
    };
    format!("psql {} -c {}", quote_word(&params.with_database(database).shown()), quote_word(&sql))
}
