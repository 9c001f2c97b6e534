//! The schema as a text for `psql -f`.

use std::fmt::Write as _;

use crate::engine::postgres::schema::object::{Item, Section};
use crate::engine::postgres::schema::psql_text::for_psql;
use crate::platform::error::{Error, Result, one_line};

/// The settings that the statements require of their session. One statement in each line.
pub const SETTINGS: &str = "\
SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET search_path = '';
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
";

/// Returns one section as text. The last section starts with all grants. Without `with_owner`, owners and grants are
/// left out, and so are objects of the provider of a server. Fails if psql would not read the text of a statement as that one statement.
pub fn render(items: &[Item], section: Section, with_owner: bool) -> Result<String> {
    let mut text = String::from(SETTINGS);
    if section == Section::Last && with_owner {
        for item in items.iter().filter(|item| !item.grants.is_empty() && !item.provided) {
            heading(&mut text, item, " ACL");
            statements(&mut text, item, &item.grants)?;
        }
    }
    for item in items.iter().filter(|item| item.section == section && !item.provided) {
        heading(&mut text, item, "");
        statements(&mut text, item, &item.create)?;
        if with_owner {
            statements(&mut text, item, &item.set_owner)?;
        }
        statements(&mut text, item, &item.comments)?;
    }
    Ok(text)
}

/// Fails if psql would not read the text of a statement as that one statement: it would run a part of it by itself.
pub(in crate::engine::postgres) fn require_sql(items: &[Item]) -> Result<()> {
    let mut unused = String::new();
    for item in items {
        for list in [&item.create, &item.set_owner, &item.comments, &item.grants] {
            statements(&mut unused, item, list)?;
            unused.clear();
        }
    }
    Ok(())
}

fn heading(text: &mut String, item: &Item, suffix: &str) {
    let (schema, owner) = (item.schema.as_deref().unwrap_or("-"), item.owner.as_deref().unwrap_or("-"));
    let kind = item.kind.words().to_uppercase();
    let mut line = format!("Name: {}; Type: {kind}{suffix}; Schema: {schema}; Owner: {owner}", item.name);
    if let Some(tablespace) = item.tablespace.as_ref().filter(|_| suffix.is_empty()) {
        // The file must run on servers that do not have it.
        let _ = write!(line, "; Tablespace (not set): {tablespace}");
    }
    // A name may contain a line break. The text after it would be run as SQL.
    let line: String = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let _ = write!(text, "\n--\n-- {line}\n--\n\n");
}

fn statements(text: &mut String, item: &Item, list: &[String]) -> Result<()> {
    for statement in list {
        text.push_str(&for_psql(statement).map_err(|reason| not_sql(&shown(item), reason))?);
        text.push_str(";\n");
    }
    Ok(())
}

fn shown(item: &Item) -> String {
    if item.identity.is_empty() {
        let schema = item.schema.iter().map(|schema| format!("{schema}."));
        return format!("{} {}{}", item.kind.words(), schema.collect::<String>(), item.name);
    }
    item.identity.clone()
}

/// Returns the error for an object whose definition psql would not read as SQL alone.
pub(in crate::engine::postgres) fn not_sql(name: &str, reason: &str) -> Error {
    Error::failed(format!("the definition of {} is not SQL that psql can run safely: {reason}", one_line(name))).hint(
        "a definition in this form can run commands where a file is loaded with psql: look at it in the server, and report it \
         to the project if it is as it should be",
    )
}
