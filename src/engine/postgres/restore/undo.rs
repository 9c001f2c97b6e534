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

impl Exchange {
    /// Returns true if these are names that an exchange of the database `name` may have given. A comment of a database, which
    /// its owner can write, could hold others.
    pub(super) fn is_of(&self, name: &str) -> bool {
        let before = self.aside.rsplit_once(BEFORE).map(|(before, _)| before);
        before.is_some_and(|before| !before.is_empty() && name.starts_with(before)) && self.scratch.starts_with(SCRATCH)
    }
}

/// The middle of the name that an old database gets, after its own name and before the time.
pub(super) const BEFORE: &str = "_before_";

/// The prefix of the names of scratch databases. Their marks describe what they are for.
pub(crate) const SCRATCH: &str = "lifeboat_";

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
