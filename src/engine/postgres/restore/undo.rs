//! The commands that undo a restore.

use serde::{Deserialize, Serialize};

use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::params::Params;
use crate::platform::shell::quote_word;

/// The names that an exchange of two databases gave and took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exchange {
    /// The present name of the old database.
    pub aside: String,
    /// The earlier name of the new one.
    pub scratch: String,
}

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

/// Returns the command that gives two exchanged databases their earlier names. If `ends_sessions` is true, it ends the
/// sessions in the one that has the name of `params` now.
pub(super) fn of_exchange(params: &Params, names: &Exchange, ends_sessions: bool) -> String {
    let Exchange { aside, scratch } = names;
    let name = params.database();
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}", literal(name));
    let renames = [
        format!("ALTER DATABASE {} RENAME TO {}", ident(name), ident(scratch)),
        format!("ALTER DATABASE {} RENAME TO {}", ident(aside), ident(name)),
    ];
    let statements: Vec<String> = ends_sessions.then_some(end).into_iter().chain(renames).collect();
    sql_command(params, &statements)
}
