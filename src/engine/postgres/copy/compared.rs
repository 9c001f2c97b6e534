//! Sums the rows of a table with the values of its generated columns, which takes a query: if planning that would run code of
//! the table's owner with the rights of a superuser, the owner's rights are used.

use crate::engine::postgres::copy::as_owner;
use crate::engine::postgres::copy::plans;
use crate::engine::postgres::copy::row_source::RowSource;
use crate::engine::postgres::copy::rows::RowSum;
use crate::engine::postgres::schema::quote::{ident, literal};
use crate::engine::postgres::wire::session::{Session, sqlstate};
use crate::platform::error::{Result, one_line};

/// The table that the owner's code writes the rows into.
const COPY: &str = "pg_temp.lifeboat_compared";

/// Sums the rows, and the generated columns that they are to be read with. If the owner may not read them, a warning says so,
/// and the sum has no generated columns.
pub(crate) fn sum(session: &mut Session, rows: &RowSource) -> Result<RowSum> {
    if rows.generated.is_empty() || !plans::tables_with_code(session)?.contains(&rows.qualified) {
        return rows.sum(session);
    }
    let (begin, end, undo) = if session.is_in_transaction() {
        let undo = "ROLLBACK TO SAVEPOINT lifeboat_compare; RELEASE SAVEPOINT lifeboat_compare";
        ("SAVEPOINT lifeboat_compare", "RELEASE SAVEPOINT lifeboat_compare", undo)
    } else {
        ("BEGIN", "COMMIT", "ROLLBACK")
    };
    session.execute(begin)?;
    match sum_as_owner(session, rows) {
        Ok(sum) => session.execute(end).map(|()| sum),
        Err(error) if sqlstate(&error).is_some_and(|state| is_of_code(&state)) => {
            session.execute(undo)?;
            tracing::warn!(
                "the generated columns {} of the table {} were not compared, because its owner cannot read them: {}",
                one_line(&rows.generated.join(", ")),
                one_line(&rows.qualified),
                error.full_message()
            );
            RowSource { generated: Vec::new(), ..rows.clone() }.sum(session)
        }
        Err(error) => Err(error),
    }
}

/// Returns true if the owner may not do something, or if code of the database has failed: the reason is neither the server nor
/// its resources, nor another session.
fn is_of_code(state: &str) -> bool {
    ["0A", "21", "22", "23", "2F", "38", "39", "42", "44", "P0"].iter().any(|class| state.starts_with(class))
}

/// Sums a copy of the rows that is made with the rights of the table's owner.
fn sum_as_owner(session: &mut Session, rows: &RowSource) -> Result<RowSum> {
    let owner = session
        .row(&format!(
            "SELECT pg_catalog.pg_get_userbyid(c.relowner) AS owner FROM pg_catalog.pg_class c
              WHERE c.oid = {}::pg_catalog.regclass",
            literal(&rows.qualified)
        ))?
        .text("owner")?
        .to_owned();
    let columns: Vec<&str> = rows.columns.iter().chain(&rows.generated).map(String::as_str).collect();
    let select = format!("SELECT {} FROM {}", columns.join(", "), rows.relation());
    session.execute(&format!(
        "CREATE TEMPORARY TABLE lifeboat_compared AS {select} WITH NO DATA; GRANT INSERT ON {COPY} TO {}",
        ident(&owner)
    ))?;
    let condition = rows.condition.as_deref().unwrap_or_default();
    as_owner::run(session, &owner, &format!("INSERT INTO {COPY} {select} {condition}"))?;
    let copy = RowSource { qualified: COPY.to_owned(), condition: None, span: None, ..rows.clone() };
    let sum = copy.sum(session)?;
    session.execute(&format!("DROP TABLE {COPY}"))?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_server_is_not_one_of_the_code() {
        for state in ["42501", "22012", "P0001", "38001", "39000"] {
            assert!(is_of_code(state), "{state}");
        }
        for state in ["53100", "55P03", "57014", "40P01", "40001", "58030", "XX001"] {
            assert!(!is_of_code(state), "{state}");
        }
    }
}
