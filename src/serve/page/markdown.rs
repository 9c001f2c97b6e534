//! Text in Markdown, where names of tables may hold anything.

use std::fmt::{self, Write};

/// Keeps a text from being anything but text: no markup of Markdown's or HTML's, and no end of a cell or line.
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
