//! The text of a notice, in each of its forms.

use serde_json::{Value, json};

use super::{Event, EventKind};
use crate::platform::text;

/// The maximum length of a text for Slack, which cuts or refuses texts that are much longer.
const SLACK_BYTES: usize = 3_000;
/// The maximum length of the text of a ping; the receivers cut or refuse longer texts.
const PING_BYTES: usize = 10_000;
/// The mark that shows that a text was cut.
const CUT: &str = "\u{2026}";

/// Returns the plain document; see [`Notify`](super::Notify).
pub(super) fn document(event: &Event, kind: EventKind) -> Value {
    json!({
        "tool": "lifeboat",
        "version": event.version,
        "event": kind.name(),
        "summary": headline(event, kind),
        "command": event.command,
        "ok": event.ok,
        "exit_code": event.exit_code,
        "host": event.host,
        "at": event.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "seconds": event.seconds,
        "sources": event.sources,
        "snapshots": event.snapshots,
        "error": event.error,
        "checks": event.checks,
    })
}

/// Returns the form for Slack, which some other services accept too.
pub(super) fn slack(event: &Event, kind: EventKind) -> Value {
    json!({ "text": escaped(&text_of(event, kind), SLACK_BYTES) })
}

/// Returns the text of a ping.
pub(super) fn ping(event: &Event, kind: EventKind) -> String {
    let text = text_of(event, kind);
    if text.len() <= PING_BYTES {
        return text;
    }
    format!("{}{CUT}", &text[..text.floor_char_boundary(PING_BYTES - CUT.len())])
}

/// Returns a summary in one line.
fn headline(event: &Event, kind: EventKind) -> String {
    let ended = match kind {
        EventKind::Failure => "failed",
        EventKind::Success => "succeeded",
        EventKind::Recovery => "works again",
    };
    let sources = if event.sources.is_empty() { String::new() } else { format!(" of {}", event.sources.join(", ")) };
    format!("lifeboat {}{sources} on {} {ended}", event.command, event.host)
}

/// Returns the full text for people.
fn text_of(event: &Event, kind: EventKind) -> String {
    let mut lines = vec![headline(event, kind)];
    if let Some(error) = &event.error {
        let causes: String = error.causes.iter().map(|cause| format!(": {cause}")).collect();
        lines.push(format!("error: {}{causes}", error.message));
        lines.extend(error.hint.iter().map(|hint| format!("hint: {hint}")));
    }
    lines.extend(event.checks.iter().map(|check| format!("failed check: {}: {}", check.name, check.message)));
    lines.extend(event.snapshots.iter().map(|id| format!("snapshot: {id}")));
    let (code, took, at) = (event.exit_code, text::seconds(event.seconds), text::time(event.at));
    lines.push(format!("exit code {code} after {took}, at {at}"));
    lines.join("\n")
}

/// Escapes `text` for Slack (`&`, `<` and `>` begin its markup), and cuts the result to at most `max_bytes` bytes.
fn escaped(text: &str, max_bytes: usize) -> String {
    let mut escaped_text = String::with_capacity(text.len());
    // The last position where a cut leaves room for the mark.
    let mut cut = 0;
    for character in text.chars() {
        match character {
            '&' => escaped_text.push_str("&amp;"),
            '<' => escaped_text.push_str("&lt;"),
            '>' => escaped_text.push_str("&gt;"),
            other => escaped_text.push(other),
        }
        if escaped_text.len() + CUT.len() <= max_bytes {
            cut = escaped_text.len();
        }
        if escaped_text.len() > max_bytes {
            escaped_text.truncate(cut);
            escaped_text.push_str(CUT);
            break;
        }
    }
    escaped_text
}

#[cfg(test)]
mod tests {
    use super::super::{CheckFailure, Failure};
    use super::*;

    fn event() -> Event {
        Event {
            command: "snapshot".to_owned(),
            key: "snapshot lifeboat.toml".to_owned(),
            ok: false,
            exit_code: 5,
            error: Some(Failure {
                kind: "unreachable".to_owned(),
                message: "cannot reach <db> & co".to_owned(),
                hint: Some("is it up?".to_owned()),
                causes: vec!["connection refused".to_owned()],
            }),
            checks: vec![CheckFailure { name: "mount /app/data".to_owned(), message: "not mounted".to_owned() }],
            snapshots: vec!["app-20261121T170501Z-7f3a".to_owned()],
            sources: vec!["app".to_owned(), "billing".to_owned()],
            host: "web-1".to_owned(),
            at: chrono::DateTime::from_timestamp(1_700_000_000, 0).expect("a time"),
            seconds: 1.25,
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_document_is_what_is_promised() {
        let document = document(&event(), EventKind::Failure);
        assert_eq!(
            document,
            json!({
                "tool": "lifeboat", "version": "0.1.0", "event": "failure",
                "summary": "lifeboat snapshot of app, billing on web-1 failed",
                "command": "snapshot", "ok": false, "exit_code": 5, "host": "web-1",
                "at": "2023-11-14T22:13:20Z", "seconds": 1.25, "sources": ["app", "billing"],
                "snapshots": ["app-20261121T170501Z-7f3a"],
                "error": {"kind": "unreachable", "message": "cannot reach <db> & co", "hint": "is it up?",
                    "causes": ["connection refused"]},
                "checks": [{"name": "mount /app/data", "message": "not mounted"}],
            })
        );
    }

    #[test]
    fn slack_gets_one_text_without_markup_of_its_own() {
        let document = slack(&event(), EventKind::Failure);
        let text = document["text"].as_str().expect("a text");
        assert!(text.contains("cannot reach &lt;db&gt; &amp; co: connection refused\nhint: is it up?"), "{text}");
        assert!(text.contains("failed check: mount /app/data: not mounted"), "{text}");
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(1));
    }

    #[test]
    fn texts_are_cut_between_characters_and_entities() {
        for most in 8..40 {
            let cut = escaped(&"a<\u{1f6a3}".repeat(20), most);
            assert!(cut.len() <= most && cut.ends_with(CUT), "{cut}");
            assert_eq!(cut.matches('&').count(), cut.matches("&lt;").count(), "{cut}");
        }
        assert_eq!(escaped("a<b", 6), "a&lt;b");
        let mut long = event();
        long.checks = vec![CheckFailure { name: "x".to_owned(), message: "\u{e9}<".repeat(9_000) }];
        let bytes = |value: &str| value.len();
        assert!((PING_BYTES - 4..=PING_BYTES).contains(&bytes(&ping(&long, EventKind::Failure))));
        let slack = slack(&long, EventKind::Failure);
        assert!((SLACK_BYTES - 8..=SLACK_BYTES).contains(&bytes(slack["text"].as_str().expect("a text"))));
    }
}
