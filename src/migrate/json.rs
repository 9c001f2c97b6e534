//! Finds objects of a JSON text that have the same key more than once.

use std::borrow::Cow;

/// Returns true if an object of a valid JSON text has a key more than once. Nesting may be of any depth.
#[must_use]
pub(super) fn repeats_key(json: &str) -> bool {
    let bytes = json.as_bytes();
    // The keys of all open objects, and for each open bracket the number of keys before it; arrays have no keys.
    let (mut keys, mut open): (Vec<&str>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => open.push(keys.len()),
            b'}' | b']' => {
                let start = open.pop().unwrap_or_default();
                if has_equal(&mut keys[start..]) {
                    return true;
                }
                keys.truncate(start);
            }
            b'"' => {
                let start = at + 1;
                at = end_of_string(bytes, start);
                let rest = bytes[at.min(bytes.len())..].iter().skip(1);
                let is_key = rest.copied().find(|byte| !byte.is_ascii_whitespace()) == Some(b':');
                if let Some(key) = json.get(start..at).filter(|_| is_key) {
                    keys.push(key);
                }
            }
            _ => {}
        }
        at += 1;
    }
    false
}

/// Returns the position of the quote that ends a string, which begins at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(next) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += next;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

/// Returns true if two of the keys, as they are written between quotes, are equal.
fn has_equal(keys: &mut [&str]) -> bool {
    if keys.len() < 2 {
        return false;
    }
    if keys.iter().any(|key| key.contains('\\')) {
        let mut read: Vec<Cow<'_, str>> = keys.iter().map(|key| unescape(key)).collect();
        read.sort_unstable();
        return read.windows(2).any(|pair| pair[0] == pair[1]);
    }
    keys.sort_unstable();
    keys.windows(2).any(|pair| pair[0] == pair[1])
}

fn unescape(key: &str) -> Cow<'_, str> {
    if !key.contains('\\') {
        return Cow::Borrowed(key);
    }
    match serde_json::from_str::<String>(&format!("\"{key}\"")) {
        Ok(text) => Cow::Owned(text),
        // An unpaired surrogate, which only the type json can hold.
        Err(_) => Cow::Borrowed(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_within_one_object() {
        for json in [
            r#"{"a": 1, "a": 2}"#,
            r#"[{"b": {"x": 1, "y": 2, "\u0078": 3}}]"#,
            "{\"a\\\"\":1,\n\"a\\u0022\" :2}",
            r#"{"": 1, "b": [1, {}], "": 2}"#,
        ] {
            assert!(repeats_key(json), "{json}");
        }
        for json in [
            "1",
            "\"a\"",
            r#"{"a": {"a": "a"}, "b": ["a", "a", {"a": ":"}, {"a": 1}]}"#,
            r#"[{"a": 1}, {"a": 1}]"#,
            r#"{"a": "\"a\":", "A": 1}"#,
        ] {
            assert!(!repeats_key(json), "{json}");
        }
        let deep = 100_000;
        assert!(!repeats_key(&format!("{}{}", "[".repeat(deep), "]".repeat(deep))));
    }
}
