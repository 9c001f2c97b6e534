//! Finds the table that a person means by a name: as the catalog has it, as SQL quotes it, without its schema, or in
//! another case.

/// Returns the one of `names` that `written` means, or `None` if there is none, or if several match equally well.
///
/// Names of databases with schemas are `schema.table`, each part quoted where SQL requires it.
pub(crate) fn find_table<'a>(written: &str, names: &[&'a str], has_schemas: bool) -> Option<&'a str> {
    if let Some(exact) = names.iter().find(|name| **name == written) {
        return Some(exact);
    }
    let wanted = unquoted(written);
    for equals in
        [|one: &str, other: &str| one == other, |one: &str, other: &str| one.to_lowercase() == other.to_lowercase()]
    {
        if !has_schemas {
            match names.iter().filter(|name| equals(name, &wanted)).collect::<Vec<_>>().as_slice() {
                [] => continue,
                [one] => return Some(one),
                _ => return None,
            }
        }
        let matching = |is_meant: &dyn Fn(&str, &str) -> bool| -> Vec<&'a str> {
            let is_meant = |name: &&&'a str| {
                let (schema, table) = split(name);
                is_meant(&schema, &table)
            };
            names.iter().filter(is_meant).copied().collect()
        };
        let mut found = matching(&|schema, table| equals(&format!("{schema}.{table}"), written));
        if found.is_empty() {
            found = names.iter().filter(|name| equals(name, written)).copied().collect();
        }
        if found.is_empty() {
            found = matching(&|_, table| equals(table, &wanted));
            if found.len() > 1 {
                found.retain(|name| split(name).0 == "public");
            }
        }
        match found.as_slice() {
            [] => {}
            [one] => return Some(one),
            _ => return None,
        }
    }
    None
}

/// Splits a name into its schema and its table, both without quotes.
pub(crate) fn split(name: &str) -> (String, String) {
    let mut is_quoted = false;
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b'.' if !is_quoted => return (unquoted(&name[..at]), unquoted(&name[at + 1..])),
            _ => {}
        }
    }
    (String::new(), unquoted(name))
}

/// Removes the quotes of SQL around a name.
fn unquoted(name: &str) -> String {
    for (open, close) in [('"', '"'), ('`', '`'), ('[', ']')] {
        if let Some(inner) = name.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)) {
            return inner.replace(&format!("{close}{close}"), &close.to_string());
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_sqlite_is_found_by_any_spelling_of_its_name() {
        let names = ["users", "Order Items", "a.b", "log", "LOG"];
        let find = |written: &str| find_table(written, &names, false);
        assert_eq!(find("Users"), Some("users"));
        assert_eq!(find("\"order items\""), Some("Order Items"));
        assert_eq!(find("[Order Items]"), Some("Order Items"));
        assert_eq!((find("LOG"), find("Log")), (Some("LOG"), None));
        assert_eq!((find("a.b"), find("b"), find("main.users")), (Some("a.b"), None, None));
    }

    #[test]
    fn a_table_of_postgresql_is_found_with_and_without_its_schema() {
        let names = ["public.users", "sales.users", "sales.orders", "public.\"Order Items\"", "\"My App\".\"a.b\""];
        let find = |written: &str| find_table(written, &names, true);
        assert_eq!(find("users"), Some("public.users"));
        assert_eq!(find("Sales.Users"), Some("sales.users"));
        assert_eq!(find("orders"), Some("sales.orders"));
        assert_eq!(find("Order Items"), Some("public.\"Order Items\""));
        assert_eq!(find("public.Order Items"), Some("public.\"Order Items\""));
        assert_eq!(find("\"Order Items\""), Some("public.\"Order Items\""));
        assert_eq!(find("a.b"), Some("\"My App\".\"a.b\""));
        assert_eq!(find("My App.a.b"), Some("\"My App\".\"a.b\""));
        assert_eq!(find("none"), None);
    }
}
