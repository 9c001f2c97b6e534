//! Escaping for Markdown: names of tables may contain any characters.

use std::fmt::{self, Write};

/// Escapes a text so that it contains no Markdown or HTML markup and does not end a table cell or a line.
#[derive(Clone, Copy)]
pub(super) struct Escaper;

impl askama::filters::Escaper for Escaper {
    fn write_escaped_str<W: Write>(&self, mut to: W, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => to.write_str("&amp;")?,
                '<' => to.write_str("&lt;")?,
                '>' => to.write_str("&gt;")?,
                '\r' | '\n' => to.write_char(' ')?,
                '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '!' | '~' | '#' => {
                    to.write_char('\\')?;
                    to.write_char(character)?;
                }
                other => to.write_char(other)?,
            }
        }
        Ok(())
    }
}
