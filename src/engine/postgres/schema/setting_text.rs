//! The settings of databases and roles, as the catalogs store them: `name=value`.

/// The settings whose value is a list of names. Each name is quoted separately.
const LISTS: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// Returns the name of a setting, and its value: several values if it is a list of names.
pub(super) fn parse(setting: &str) -> (&str, Vec<String>) {
    let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
    (name, if LISTS.contains(&name.to_lowercase().as_str()) { list(value) } else { vec![value.to_owned()] })
}

/// Returns the names in the value of a setting that is a list: `"$user", public`.
pub(in crate::engine::postgres) fn list(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = String::new();
    let mut quoted = false;
    let mut was_quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                name.push('"');
            }
            '"' => {
                quoted = !quoted;
                was_quoted = true;
            }
            ',' if !quoted => {
                names.push(std::mem::take(&mut name));
                was_quoted = false;
            }
            letter if !quoted && letter.is_whitespace() => {}
            letter => name.push(letter),
        }
    }
    if !name.is_empty() || was_quoted || names.is_empty() {
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use crate::engine::postgres::schema::setting_text::list;

    #[test]
    fn lists_are_split_at_commas_outside_of_quotes() {
        assert_eq!(list("\"$user\", public"), ["$user", "public"]);
        assert_eq!(list("\"a, \"\"b\", c"), ["a, \"b", "c"]);
        assert_eq!(list("\"\""), [""]);
        assert_eq!(list(""), [""]);
    }
}
