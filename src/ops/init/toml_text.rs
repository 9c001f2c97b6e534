//! Escapes text that is written into a config.

/// Escapes `${`, so that no part of the text is read as a variable.
pub(super) fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// Returns a text as a quoted TOML string. Control characters are escaped, so that the string stays on one line, even
/// in a comment.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Line and paragraph separators, and characters that change the direction of text, could make a comment
            // look like a setting.
            c if c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c) => {
                out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out + "\""
}
