//! Escapes text for the markup of chat services, and cuts it to their limits.

/// The mark that shows that a text was cut.
pub(super) const CUT: &str = "\u{2026}";

/// Returns `text` with each character replaced by what `escape` returns for it, cut between two characters to at most
/// `most` units, which `length` counts. `escape` gets the text of the line before the character, too.
fn escaped_within(
    text: &str,
    most: usize,
    length: impl Fn(&str) -> usize,
    escape: impl Fn(&str, char) -> String,
) -> String {
    let (mut out, mut used) = (String::with_capacity(text.len()), 0);
    // The last position where a cut leaves room for the mark.
    let mut cut = 0;
    let mut line_start = 0;
    for (at, character) in text.char_indices() {
        let piece = escape(&text[line_start..at], character);
        used += length(&piece);
        if used > most {
            out.truncate(cut);
            out.push_str(CUT);
            return out;
        }
        out.push_str(&piece);
        if used + length(CUT) <= most {
            cut = out.len();
        }
        if character == '\n' {
            line_start = at + 1;
        }
    }
    out
}

/// Escapes `text` for Slack (`&`, `<` and `>` begin its markup), and cuts the result to at most `most` bytes.
pub(super) fn slack(text: &str, most: usize) -> String {
    escaped_within(text, most, str::len, |_, character| match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        other => other.to_string(),
    })
}

/// Escapes `text` for Discord, whose messages are Markdown with mentions, emojis and times (`<@1>`, `:name:`), and cuts
/// the result to at most `most` characters. Characters outside the basic plane count twice, as in Discord's clients.
pub(super) fn discord(text: &str, most: usize) -> String {
    let length = |text: &str| text.encode_utf16().count();
    escaped_within(text, most, length, |before, character| escaped(before, character, "\\`*_~|#[]()<>@:-+"))
}

/// Escapes `text` for a text block of an adaptive card, which is Markdown with functions for times (`{{DATE(...)}}`), and
/// cuts the result to at most `most` bytes.
pub(super) fn adaptive_card(text: &str, most: usize) -> String {
    escaped_within(text, most, str::len, |before, character| escaped(before, character, "\\`*_~|#[]()<>-+!{}"))
}

/// Returns a character with a backslash before it if it is one of `special`, or if it makes the number at the start of
/// a line that of a list.
fn escaped(before: &str, character: char, special: &str) -> String {
    let number = before.trim_start();
    let is_list =
        matches!(character, '.' | ')') && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    if special.contains(character) || is_list { format!("\\{character}") } else { character.to_string() }
}

/// Cuts `text` to at most `most` bytes.
pub(super) fn plain(text: &str, most: usize) -> String {
    escaped_within(text, most, str::len, |_, character| character.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_escapes() {
        let text = "a<\u{1f6a3}*".repeat(20);
        for most in 8..80 {
            let cut = slack(&text, most);
            assert!(cut.len() <= most && cut.ends_with(CUT), "{cut}");
            assert_eq!(cut.matches('&').count(), cut.matches("&lt;").count(), "{cut}");
            let cut = discord(&text, most);
            assert!(cut.encode_utf16().count() <= most && cut.ends_with(CUT) && !cut.ends_with("\\\u{2026}"), "{cut}");
            let cut = adaptive_card(&text, most);
            assert!(cut.len() <= most && cut.ends_with(CUT) && !cut.ends_with("\\\u{2026}"), "{cut}");
        }
        assert_eq!(slack("a<b", 6), "a&lt;b");
        assert_eq!(plain("abc", 3), "abc");
        assert_eq!(plain("\u{e9}\u{e9}\u{e9}", 5), "\u{e9}\u{2026}");
    }

    #[test]
    fn markdown_of_a_text_is_shown_as_it_is() {
        let text = "*b* _i_ ~s~ `c` |p| # h\n- l\n1. n\n@everyone <@&1> :x: [a](b) a.b 3.5 {{DATE(2026)}}";
        assert_eq!(
            discord(text, 2000),
            "\\*b\\* \\_i\\_ \\~s\\~ \\`c\\` \\|p\\| \\# h\n\\- l\n1\\. n\n\\@everyone \\<\\@&1\\> \\:x\\: \\[a\\]\\(b\\) a.b 3.5 \
             {{DATE\\(2026\\)}}"
        );
        let card = adaptive_card(text, 2000);
        assert!(card.contains("\\*b\\*") && card.contains("1\\. n") && card.contains("\\{\\{DATE"), "{card}");
    }
}
