//! The text of a notice, in each of its forms.

use serde_json::{Value, json};

use super::{Event, EventKind, Failure, Notice, markup};
use crate::platform::text;

/// The maximum length of a text for Slack, which cuts or refuses texts that are much longer.
const SLACK_BYTES: usize = 3_000;
/// The maximum length of the text of a ping; the receivers cut or refuse longer texts.
const PING_BYTES: usize = 10_000;
/// The maximum length of a message for Discord, in characters.
const DISCORD_CHARACTERS: usize = 2_000;
/// The maximum length of the escaped text of a card for Teams, which refuses messages of more than 28 KB.
const TEAMS_BYTES: usize = 16_000;
/// The maximum number of lines of a card: each one is an element of it.
const TEAMS_LINES: usize = 60;
/// The maximum length of a message for ntfy, in bytes, and of its title.
const NTFY_BYTES: usize = 4_096;
const NTFY_TITLE_BYTES: usize = 250;

/// Returns the plain document; see [`Notify`](super::Notify).
pub(super) fn document(event: &Event, notice: &Notice<'_>) -> Value {
    let is_failure = notice.kind == EventKind::Failure;
    json!({
        "tool": "lifeboat",
        "version": event.version,
        "event": notice.kind.name(),
        "summary": headline(event, notice),
        "command": event.command,
        "ok": !is_failure,
        "exit_code": event.exit_code,
        "host": event.host,
        "at": event.at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "seconds": event.seconds,
        "sources": notice.sources,
        "results": event.results,
        "snapshots": event.snapshots,
        "error": error_of(event, notice),
        "checks": if is_failure { event.checks.as_slice() } else { &[] },
    })
}

/// Returns the form for Slack, which some other services accept too.
pub(super) fn slack(event: &Event, notice: &Notice<'_>) -> Value {
    json!({ "text": markup::slack(&text_of(event, notice), SLACK_BYTES) })
}

/// Returns the form for Discord. Nobody is mentioned, whatever the text contains.
pub(super) fn discord(event: &Event, notice: &Notice<'_>) -> Value {
    json!({
        "content": markup::discord(&text_of(event, notice), DISCORD_CHARACTERS),
        "allowed_mentions": { "parse": [] },
    })
}

/// Returns the form for a workflow of Microsoft Teams: an adaptive card with one element for each line.
pub(super) fn teams(event: &Event, notice: &Notice<'_>) -> Value {
    let text = text_of(event, notice);
    let mut left = TEAMS_BYTES;
    let mut elements = Vec::new();
    for (number, line) in text.lines().enumerate() {
        // An element of few bytes would only hold the mark of a cut.
        if number == TEAMS_LINES || left < 16 {
            elements.push(json!({ "type": "TextBlock", "text": markup::CUT, "wrap": true }));
            break;
        }
        let escaped = markup::adaptive_card(line, left);
        left -= escaped.len();
        let mut element = json!({ "type": "TextBlock", "text": escaped, "wrap": true });
        if number == 0 {
            element["weight"] = json!("Bolder");
            element["size"] = json!("Medium");
            element["color"] = json!(match notice.kind {
                EventKind::Failure => "Attention",
                // A snapshot that no test has proven is not shown as good.
                _ if !event.unproven.is_empty() => "Default",
                EventKind::Success | EventKind::Recovery => "Good",
            });
        } else {
            element["spacing"] = json!("Small");
        }
        elements.push(element);
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": elements,
            },
        }],
    })
}

/// Returns the form for ntfy. The text is shown as it is, because ntfy reads Markdown only on request.
pub(super) fn ntfy(event: &Event, notice: &Notice<'_>, topic: &str) -> Value {
    let text = text_of(event, notice);
    let (title, details) = text.split_once('\n').unwrap_or((&text, ""));
    let (priority, tag) = match notice.kind {
        EventKind::Failure => (4, "warning"),
        _ if !event.unproven.is_empty() => (3, "information_source"),
        EventKind::Success | EventKind::Recovery => (3, "white_check_mark"),
    };
    json!({
        "topic": topic,
        "title": markup::plain(title, NTFY_TITLE_BYTES),
        "message": markup::plain(details, NTFY_BYTES),
        "priority": priority,
        "tags": [tag],
    })
}

/// Returns the text of a ping.
pub(super) fn ping(event: &Event, notice: &Notice<'_>) -> String {
    markup::plain(&text_of(event, notice), PING_BYTES)
}

/// Returns the error that a notice reports: that of its first source that has one, or else that of the run.
fn error_of<'a>(event: &'a Event, notice: &Notice<'_>) -> Option<&'a Failure> {
    if notice.kind != EventKind::Failure {
        return None;
    }
    event.results.iter().find_map(|result| result.error.as_ref()).or(event.error.as_ref())
}

/// Returns a summary in one line.
fn headline(event: &Event, notice: &Notice<'_>) -> String {
    let ended = match notice.kind {
        EventKind::Failure => "failed",
        EventKind::Success => "succeeded",
        EventKind::Recovery => "works again",
    };
    let sources = if notice.sources.is_empty() { String::new() } else { format!(" of {}", notice.sources.join(", ")) };
    format!("lifeboat {}{sources} on {} {ended}", event.command, event.host)
}

/// Returns the full text for people.
fn text_of(event: &Event, notice: &Notice<'_>) -> String {
    let mut lines = vec![headline(event, notice)];
    let is_failure = notice.kind == EventKind::Failure;
    let of = |ok: bool| -> Vec<&str> {
        event.results.iter().filter(|result| result.ok == ok).map(|result| result.source.as_str()).collect()
    };
    if is_failure {
        let of_sources: Vec<&Failure> = event.results.iter().filter_map(|result| result.error.as_ref()).collect();
        let errors = if of_sources.is_empty() { event.error.iter().collect() } else { of_sources };
        for (number, error) in errors.iter().enumerate() {
            // The same failure of a store is one of every source.
            if errors[..number].contains(error) {
                continue;
            }
            let causes: String = error.causes.iter().map(|cause| format!(": {cause}")).collect();
            lines.push(format!("error: {}{causes}", error.message));
            lines.extend(error.hint.iter().map(|hint| format!("hint: {hint}")));
        }
        lines.extend(event.checks.iter().map(|check| format!("failed check: {}: {}", check.name, check.message)));
    }
    let proof = |id: &String| if event.unproven.contains(id) { " (proof: none)" } else { "" };
    lines.extend(event.snapshots.iter().map(|id| format!("snapshot: {id}{}", proof(id))));
    let others = of(is_failure);
    if !others.is_empty() && others.len() < event.results.len() {
        lines.push(format!("{}: {}", if is_failure { "no failure" } else { "failed" }, others.join(", ")));
    }
    let (code, took, at) = (event.exit_code, text::seconds(event.seconds), text::time(event.at));
    lines.push(format!("exit code {code} after {took}, at {at}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::{CheckFailure, SourceOutcome};
    use super::*;

    fn failed(source: &str) -> SourceOutcome {
        SourceOutcome { source: source.to_owned(), ok: false, error: None }
    }

    fn failure() -> Notice<'static> {
        Notice { kind: EventKind::Failure, sources: vec!["app", "billing"], keys: Vec::new() }
    }

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
            unproven: Vec::new(),
            results: ["app", "billing"].map(failed).into(),
            is_complete: true,
            host: "web-1".to_owned(),
            at: chrono::DateTime::from_timestamp(1_700_000_000, 0).expect("a time"),
            seconds: 1.25,
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn the_document_is_what_is_promised() {
        let document = document(&event(), &failure());
        assert_eq!(
            document,
            json!({
                "tool": "lifeboat", "version": "0.1.0", "event": "failure",
                "summary": "lifeboat snapshot of app, billing on web-1 failed",
                "command": "snapshot", "ok": false, "exit_code": 5, "host": "web-1",
                "at": "2023-11-14T22:13:20Z", "seconds": 1.25, "sources": ["app", "billing"],
                "results": [{"source": "app", "ok": false, "error": null},
                    {"source": "billing", "ok": false, "error": null}],
                "snapshots": ["app-20261121T170501Z-7f3a"],
                "error": {"kind": "unreachable", "message": "cannot reach <db> & co", "hint": "is it up?",
                    "causes": ["connection refused"]},
                "checks": [{"name": "mount /app/data", "message": "not mounted"}],
            })
        );
    }

    #[test]
    fn slack_gets_one_text_without_markup_of_its_own() {
        let document = slack(&event(), &failure());
        let text = document["text"].as_str().expect("a text");
        assert!(text.contains("cannot reach &lt;db&gt; &amp; co: connection refused\nhint: is it up?"), "{text}");
        assert!(text.contains("failed check: mount /app/data: not mounted"), "{text}");
        assert_eq!(document.as_object().map(serde_json::Map::len), Some(1));
    }

    #[test]
    fn every_form_keeps_to_the_limits_of_its_service() {
        let mut long = event();
        long.checks = (0..300)
            .map(|number| CheckFailure { name: format!("x{number}"), message: "\u{e9}<*\u{1f6a3}".repeat(900) })
            .collect();
        let bytes = |value: &Value| value.as_str().expect("a text").len();
        assert!((PING_BYTES - 4..=PING_BYTES).contains(&ping(&long, &failure()).len()));
        let text = slack(&long, &failure())["text"].clone();
        assert!((SLACK_BYTES - 8..=SLACK_BYTES).contains(&bytes(&text)));
        let content = discord(&long, &failure())["content"].clone();
        let units = content.as_str().expect("a text").encode_utf16().count();
        assert!((DISCORD_CHARACTERS - 8..=DISCORD_CHARACTERS).contains(&units), "{units}");
        let card = serde_json::to_vec(&teams(&long, &failure())).expect("a document").len();
        assert!((10_000..28_000).contains(&card), "{card}");
        let message = ntfy(&long, &failure(), "t");
        assert!((NTFY_BYTES - 8..=NTFY_BYTES).contains(&bytes(&message["message"])));
        // Many short lines are cut too.
        long.checks.iter_mut().for_each(|check| check.message = "0".to_owned());
        let elements = teams(&long, &failure())["attachments"][0]["content"]["body"].clone();
        assert_eq!(elements.as_array().map(Vec::len), Some(TEAMS_LINES + 1));
    }
}
