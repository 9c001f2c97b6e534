//! Commands that the other lifeboat prints for people to copy into a shell.

use crate::platform::shell::quote_word;

/// The commands that restore data.
const COMMANDS: [&str; 2] = ["restore", "postdeploy"];

/// Returns a command if it is one of lifeboat that restores data, and nothing else that a shell would run.
pub(super) fn own_command(text: &str) -> Option<String> {
    let words = words(text)?;
    let mut first = words.iter().map(String::as_str);
    let is_own = first.next() == Some("lifeboat") && first.next().is_some_and(|word| COMMANDS.contains(&word));
    is_own.then(|| words.iter().map(|word| quote_word(word)).collect::<Vec<_>>().join(" "))
}

/// Splits a command into words. Returns `None` if a shell would read more than plain words and words in single quotes.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            _ if character.is_control() => return None,
            ' ' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        quoted if quoted.is_control() => return None,
                        quoted => word.push(quoted),
                    }
                }
            }
            '\\' if characters.next() == Some('\'') => word.get_or_insert_default().push('\''),
            plain if plain.is_ascii_alphanumeric() || "._-/:=@%+,".contains(plain) => {
                word.get_or_insert_default().push(plain);
            }
            _ => return None,
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_lifeboat_that_restore_data_are_kept() {
        for good in [
            "lifeboat restore app-20260101T000000Z-aaaa --replace --store /backups",
            "lifeboat postdeploy --rollback --config '/a b/it'\\''s.toml'",
        ] {
            assert_eq!(own_command(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "lifeboat",
            "lifeboat delete app-20260101T000000Z-aaaa",
            "lifeboat guard -- sh",
            "rm -rf /",
            "lifeboat restore x; rm -rf /",
            "lifeboat restore $(id)",
            "lifeboat restore `id`",
            "lifeboat restore x > /etc/passwd",
            "lifeboat restore \"x\"",
            "lifeboat restore 'x",
            "lifeboat restore x\\",
            "lifeboat restore x\n::set-output name=ok::true",
            "lifeboat restore 'x\u{1b}[2J'",
            "::set-output name=ok::true",
        ] {
            assert_eq!(own_command(bad), None, "{bad}");
        }
    }
}
