//! Escapes texts for a config.

/// Returns a text in which nothing is read as a variable.
pub(super) fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// Returns a text as a quoted string of TOML. Control characters are escaped, so that it is one line in a comment too.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Separators of lines and paragraphs, and characters that change the direction of writing, could falsify a
            // comment.
            c if c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out + "\""
}
