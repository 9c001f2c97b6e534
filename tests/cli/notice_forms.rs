//! The forms of notices. Servers that check a message as the services do, by their published schemas and limits:
//! <https://docs.discord.com/developers/resources/webhook#execute-webhook>,
//! <https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>,
//! <https://docs.ntfy.sh/publish/#publish-as-json>.

use std::fs;

use serde_json::{Map, Value, json};

use crate::support::web::{Request, Web, answer, read_request};
use crate::support::{Run, Sandbox, sample};

/// Starts a server that accepts what `check` accepts, as the service would.
fn service(status: &'static str, check: impl Fn(&Request) -> Result<(), String> + Send + Sync + 'static) -> Web {
    Web::start(move |_, request, stream| {
        let mut request = request.clone();
        if request.method == "CONNECT" {
            // The server is a proxy: the request to the service follows.
            std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\n\r\n")?;
            request = read_request(stream)?;
        }
        let reply = match check(&request) {
            Ok(()) => answer(status, "text/plain", ""),
            Err(reason) => answer("400 Bad Request", "text/plain", &reason),
        };
        std::io::Write::write_all(stream, reply.as_bytes())
    })
}

fn require(condition: bool, reason: &str) -> Result<(), String> {
    if condition { Ok(()) } else { Err(reason.to_owned()) }
}

fn object(request: &Request) -> Result<Map<String, Value>, String> {
    require(request.method == "POST" && request.header("content-type") == Some("application/json"), "no JSON")?;
    serde_json::from_str(&request.body).map_err(|error| error.to_string())
}

/// Requires that an object has no other keys than these.
fn only(object: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("unknown key {key}")),
        None => Ok(()),
    }
}

fn discord(request: &Request) -> Result<(), String> {
    let message = object(request)?;
    only(&message, &["content", "username", "avatar_url", "tts", "embeds", "allowed_mentions", "flags"])?;
    let content = message["content"].as_str().ok_or("no content")?;
    require((1..=2000).contains(&content.chars().count()), "the content is too long")?;
    require(message["allowed_mentions"] == json!({"parse": []}), "anybody can be mentioned")
}

fn teams(request: &Request) -> Result<(), String> {
    require(request.body.len() <= 28 * 1024, "the message is too large")?;
    let message = object(request)?;
    require(message["type"] == "message", "it is not a message")?;
    let [attachment] = message["attachments"].as_array().ok_or("no attachments")?.as_slice() else {
        return Err("not one attachment".to_owned());
    };
    require(attachment["contentType"] == "application/vnd.microsoft.card.adaptive", "it is not an adaptive card")?;
    let card = attachment["content"].as_object().ok_or("no card")?;
    only(card, &["$schema", "type", "version", "body", "actions", "msteams"])?;
    require(card["type"] == "AdaptiveCard" && card["version"] == "1.4", "it is not a card of this version")?;
    for element in card["body"].as_array().ok_or("no body")? {
        let element = element.as_object().ok_or("an element is not an object")?;
        only(element, &["type", "text", "wrap", "weight", "size", "color", "spacing"])?;
        require(element["type"] == "TextBlock" && element["text"].is_string(), "it is not a text")?;
        let word = |key: &str, known: &[&str]| element.get(key).is_none_or(|word| known.iter().any(|one| word == one));
        require(word("weight", &["Default", "Lighter", "Bolder"]), "weight")?;
        require(word("size", &["Default", "Small", "Medium", "Large", "ExtraLarge"]), "size")?;
        require(word("color", &["Default", "Dark", "Light", "Accent", "Good", "Warning", "Attention"]), "color")?;
        require(word("spacing", &["Default", "None", "Small", "Medium", "Large", "ExtraLarge", "Padding"]), "spacing")?;
    }
    Ok(())
}

fn ntfy(request: &Request) -> Result<(), String> {
    require(request.target == "/", "JSON is published to the root")?;
    let message = object(request)?;
    only(
        &message,
        &["topic", "message", "title", "tags", "priority", "actions", "click", "markdown", "icon", "delay"],
    )?;
    require(message["topic"] == "my-backups", "another topic")?;
    let text = message["message"].as_str().ok_or("no message")?;
    require((1..=4096).contains(&text.len()), "the message is too long")?;
    require(message["title"].as_str().is_some_and(|title| !title.contains('\n')), "the title")?;
    require(message["priority"].as_u64().is_some_and(|priority| (1..=5).contains(&priority)), "the priority")?;
    require(message["tags"].as_array().is_some_and(|tags| tags.iter().all(Value::is_string)), "the tags")
}

/// Returns a sandbox with a database whose rule has a name of `odd`, and a config with these lines under `[notify]`.
fn machine(notify: &str, odd: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sample(sandbox.path("app.db"), 3, "wal");
    let odd = odd.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let config = format!(
        "host = \"shop\"\n[notify]\non = \"always\"\n{notify}\n[[store]]\nurl = \"./store\"\n[[source]]\nname = \"app\"\n\
         url = \"app.db\"\n[[source.rule]]\ntable = \"{odd}\"\nmin_rows = 1\n"
    );
    fs::write(sandbox.path("lifeboat.toml"), config).unwrap();
    sandbox.run(&["init"]).code(0);
    sandbox
}

/// Requires that a run gave no warning about a notice that was not sent.
#[track_caller]
fn is_sent(run: &Run) {
    assert!(!run.stderr().contains("was not sent"), "{}", run.transcript());
}

const ODD: &str = "*b* _i_ `c` [a](http://x) <@&1> @everyone <!channel> {{DATE(2026)}} <at>all</at> ||s|| # h\n- l\\";

#[test]
fn every_service_accepts_its_form_and_shows_the_text_as_it_is() {
    let long = format!("{ODD}{}", "\u{e9}*<\u{1f6a3}".repeat(1500));
    for odd in [ODD, &long] {
        for (form, web, path) in [
            ("discord", service("204 No Content", discord), "/api/webhooks/1/x"),
            ("teams", service("202 Accepted", teams), "/workflows/x"),
            ("ntfy", service("200 OK", ntfy), "/my-backups"),
        ] {
            let sandbox = machine(&format!("webhook = \"{}\"\nform = \"{form}\"", web.url(path)), odd);
            is_sent(&sandbox.run(&["check", "--no-backups"]).code(3));
            let requests = web.requests();
            assert_eq!(requests.len(), 1, "{form}");
            let document: Value = serde_json::from_str(&requests[0].body).unwrap();
            let text = match form {
                "discord" => document["content"].as_str().unwrap().to_owned(),
                "teams" => document["attachments"][0]["content"]["body"].to_string(),
                _ => document["message"].as_str().unwrap().to_owned(),
            };
            if form != "ntfy" {
                for markup in ["[a](", "<@&1>", "{{DATE", "<at>", "**", " *b*", " _i_", "||s"] {
                    assert!(
                        form == "discord" && markup == "{{DATE" || !text.contains(markup),
                        "{form} {markup}: {text}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_form_is_that_of_the_service_at_the_url() {
    // The server is a proxy, so that the program can send to the names of the services.
    for (url, check) in [
        ("http://discord.com/api/webhooks/1/x", discord as fn(&Request) -> Result<(), String>),
        ("http://ptb.discord.com/api/v10/webhooks/1/x?thread_id=5", discord),
        ("http://prod-1.westeurope.logic.azure.com/workflows/a/triggers/manual/paths/invoke?sig=x", teams),
        ("http://ntfy.sh/my-backups", ntfy),
    ] {
        let web = service("200 OK", check);
        let sandbox = machine(&format!("webhook = \"{url}\""), "accounts");
        let mut command = sandbox.command(&["check", "--no-backups"]);
        command
            .env("http_proxy", web.url(""))
            .env("HTTP_PROXY", web.url(""))
            .env_remove("NO_PROXY")
            .env_remove("no_proxy");
        let run = sandbox.finish(command).code(0);
        is_sent(&run);
        assert_eq!(web.requests().len(), 1, "{url}\n{}", run.transcript());
    }
}

#[test]
fn doctor_finds_a_form_that_the_service_refuses() {
    for (url, form, words) in [
        ("https://discord.com/api/webhooks/1/s3cr3t", "json", Some("Discord refuses notices of the form json")),
        ("https://hooks.slack.com/services/s3cr3t", "discord", Some("Slack refuses notices of the form discord")),
        ("https://a.webhook.office.com/webhookb2/s3cr3t", "teams", Some("retired the connectors")),
        ("https://outlook.office.com/webhook/s3cr3t", "", Some("retired the connectors")),
        ("https://ntfy.example.com/", "ntfy", Some("ends with the name of a topic")),
        ("https://discord.com/api/webhooks/1/s3cr3t", "", None),
        ("https://hooks.slack.com/services/s3cr3t", "slack", None),
    ] {
        let form = if form.is_empty() { String::new() } else { format!("form = \"{form}\"") };
        let sandbox = machine(&format!("webhook = \"{url}\"\n{form}"), "accounts");
        let run = sandbox.run(&["doctor", "--json"]);
        let document = run.json();
        let check =
            document["checks"].as_array().unwrap().iter().find(|check| check["name"] == "webhook form").unwrap();
        assert_eq!(check["ok"], words.is_none(), "{url} {form}: {check}");
        assert!(check["message"].as_str().unwrap().contains(words.unwrap_or("notices have the form")), "{check}");
        assert!(!run.stdout().contains("s3cr3t") && !run.stderr().contains("s3cr3t"), "{}", run.transcript());
    }
}

#[test]
fn a_snapshot_without_a_proof_is_not_shown_as_good() {
    let web = service("200 OK", teams);
    let sandbox = machine(&format!("webhook = \"{}\"\nform = \"teams\"", web.url("/workflows/x")), "accounts");
    sandbox.ok(&["snapshot"]);
    sandbox.ok(&["verify", "--all"]);
    let cards: Vec<Value> = web.requests().iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    let body = |number: usize| &cards[number]["attachments"][0]["content"]["body"];
    assert_eq!(body(0)[0]["color"], "Default");
    assert!(body(0).to_string().contains("proof: none"), "{}", body(0));
    assert_eq!(body(1)[0]["color"], "Good");
    assert!(!body(1).to_string().contains("proof: none"), "{}", body(1));
}
