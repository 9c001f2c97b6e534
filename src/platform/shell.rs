//! Words of the shell commands that are printed for people.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Quotes a path as one word of a shell command.
#[must_use]
pub(crate) fn quote_path(path: &Path) -> String {
    match path.to_str() {
        Some(text) => quote_word(text),
        None => printed(path.as_os_str().as_bytes().utf8_chunks().flat_map(|chunk| {
            let invalid = chunk.invalid().iter().map(|byte| format!("\\0{byte:03o}"));
            chunk.valid().chars().map(printf_escape).chain(invalid)
        })),
    }
}

/// Quotes any text as one word of a shell command.
#[must_use]
pub(crate) fn quote_word(text: &str) -> String {
    let plain = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'=' | b'@' | b'%' | b'+' | b',')
    };
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    // A line break would divide the command, and other control characters would reach a terminal. A shell removes line
    // breaks at the end of what a program prints.
    if text.contains(char::is_control) && !text.ends_with('\n') {
        return printed(text.chars().map(printf_escape));
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Returns a word that `printf %b` prints from these escapes.
fn printed(escapes: impl Iterator<Item = String>) -> String {
    format!("\"$(printf %b '{}')\"", escapes.collect::<String>())
}

/// Returns a character as `printf %b` reads it between single quotes.
fn printf_escape(character: char) -> String {
    let mut bytes = [0; 4];
    match character {
        '\\' => "\\\\".to_owned(),
        '\'' => "\\0047".to_owned(),
        _ if character.is_control() => {
            character.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\0{byte:03o}")).collect()
        }
        _ => character.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::process::Command;

    #[test]
    fn a_shell_reads_each_path_as_one_word_with_the_same_bytes() {
        let long =
            [b"a b".as_slice(), b"it's", b"$(x) `y` \\n", b"a\nb\tc", b"-x", b"Gr\xf6\xdfe's \\ \xe2\x82\xac", b""];
        for bytes in long {
            let word = quote_path(Path::new(OsStr::from_bytes(bytes)));
            let output = Command::new("sh").arg("-c").arg(format!("printf %s {word}")).output().expect("a shell");
            assert_eq!(output.stdout, bytes, "{word}");
        }
        assert_eq!(quote_path(Path::new("/srv/app.db")), "/srv/app.db");
    }
}
