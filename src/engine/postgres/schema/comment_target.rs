//! The names of objects in `COMMENT ON`.

use crate::engine::postgres::schema::object::{Address, catalogs};

/// Returns the name of an object for `COMMENT ON`, from the type and the identity that `pg_identify_object` returns.
pub(super) fn comment_target(address: Address, kind: &str, identity: &str) -> String {
    if address.column != 0 {
        return format!("COLUMN {identity}");
    }
    let word = match kind {
        "table constraint" => "CONSTRAINT",
        "domain constraint" => {
            let (name, domain) = identity.split_at(name_length(identity));
            let domain = domain.strip_prefix(" on ").unwrap_or(domain);
            return format!("CONSTRAINT {name} ON DOMAIN {domain}");
        }
        "statistics object" => "STATISTICS",
        "foreign-data wrapper" => "FOREIGN DATA WRAPPER",
        "composite type" => "TYPE",
        other => return format!("{} {}", other.to_uppercase(), with_on(address, identity)),
    };
    format!("{word} {}", with_on(address, identity))
}

/// Replaces the `on` of `c on public.t` with the `ON` of a statement.
fn with_on(address: Address, identity: &str) -> String {
    let on_a_table =
        [catalogs::CONSTRAINT, catalogs::TRIGGER, catalogs::REWRITE, catalogs::POLICY].contains(&address.catalog);
    let (name, rest) = identity.split_at(if on_a_table { name_length(identity) } else { identity.len() });
    match rest.strip_prefix(" on ") {
        Some(table) => format!("{name} ON {table}"),
        None => identity.to_owned(),
    }
}

/// Returns the length of the name, quoted or not, at the start of `text`.
fn name_length(text: &str) -> usize {
    if !text.starts_with('"') {
        return text.find(' ').unwrap_or(text.len());
    }
    let mut at = 1;
    while let Some(quote) = text[at..].find('"') {
        at += quote + 1;
        if !text[at..].starts_with('"') {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts_contain_the_name_of_their_object() {
        let constraint = Address::new(catalogs::CONSTRAINT, 1);
        assert_eq!(
            comment_target(constraint, "table constraint", "\"a \"\" on b\" on public.t"),
            "CONSTRAINT \"a \"\" on b\" ON public.t"
        );
        assert_eq!(comment_target(constraint, "domain constraint", "c on public.d"), "CONSTRAINT c ON DOMAIN public.d");
        let column = Address { column: 2, ..Address::new(catalogs::CLASS, 1) };
        assert_eq!(comment_target(column, "table column", "public.t.b"), "COLUMN public.t.b");
        assert_eq!(
            comment_target(Address::new(catalogs::CLASS, 1), "materialized view", "public.m"),
            "MATERIALIZED VIEW public.m"
        );
    }
}
