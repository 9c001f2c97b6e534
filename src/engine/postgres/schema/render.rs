//! The schema as a text for `psql -f`.

use std::fmt::Write as _;

use crate::engine::postgres::schema::object::{Item, Section};

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
/// left out.
#[must_use]
pub fn render(items: &[Item], section: Section, with_owner: bool) -> String {
    let mut text = String::from(SETTINGS);
    if section == Section::Last && with_owner {
        for item in items.iter().filter(|item| !item.grants.is_empty()) {
            heading(&mut text, item, " ACL");
            statements(&mut text, &item.grants);
        }
    }
    for item in items.iter().filter(|item| item.section == section) {
        heading(&mut text, item, "");
        statements(&mut text, &item.create);
        if with_owner {
            statements(&mut text, &item.set_owner);
        }
        statements(&mut text, &item.comments);
    }
    text
}

fn heading(text: &mut String, item: &Item, suffix: &str) {
    let (schema, owner) = (item.schema.as_deref().unwrap_or("-"), item.owner.as_deref().unwrap_or("-"));
    let kind = item.kind.words().to_uppercase();
    let line = format!("Name: {}; Type: {kind}{suffix}; Schema: {schema}; Owner: {owner}", item.name);
    // A name may contain a line break. The text after it would be run as SQL.
    let line: String = line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let _ = write!(text, "\n--\n-- {line}\n--\n\n");
}

fn statements(text: &mut String, list: &[String]) {
    for statement in list {
        text.push_str(statement);
        text.push_str(";\n");
    }
}
