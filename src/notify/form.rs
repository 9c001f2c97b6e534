//! The forms of a notice, and the services that accept only one of them.

use serde::Deserialize;

use crate::platform::http::Url;

/// The form of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The plain document.
    #[default]
    Json,
    /// `{"text": "..."}`, as Slack expects it (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).
    Slack,
    /// `{"content": "..."}`, as Discord expects it (<https://docs.discord.com/developers/resources/webhook>).
    Discord,
    /// A message with an adaptive card, as a workflow of Microsoft Teams expects it
    /// (<https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>).
    Teams,
    /// A JSON message to the server's root, as ntfy expects it (<https://docs.ntfy.sh/publish/#publish-as-json>).
    Ntfy,
}

/// A service that is known by the URL of its webhooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Slack,
    Discord,
    Teams,
    /// The connectors of Office 365, which Microsoft has retired.
    Connector,
    Ntfy,
}

impl Form {
    /// All forms and their names in a config.
    pub const ALL: [(Form, &'static str); 5] = [
        (Form::Json, "json"),
        (Form::Slack, "slack"),
        (Form::Discord, "discord"),
        (Form::Teams, "teams"),
        (Form::Ntfy, "ntfy"),
    ];

    /// Returns the form that the service at a webhook's URL expects; the plain document if the service is not known.
    #[must_use]
    pub fn of_url(url: &Url) -> Form {
        match service(url) {
            Some((_, form)) => form,
            None => Form::Json,
        }
    }

    /// Returns its name in a config.
    #[must_use]
    pub fn name(self) -> &'static str {
        Form::ALL.iter().find(|(form, _)| *form == self).map(|(_, name)| *name).unwrap_or_default()
    }

    /// Returns the reason why the service at the URL refuses notices in this form, with what to do, or `None` if it
    /// accepts them or is not known.
    #[must_use]
    pub fn refusal(self, url: &Url) -> Option<(String, String)> {
        if self == Form::Ntfy && topic(url).is_none() {
            let message = "the URL of an ntfy webhook ends with the name of a topic: letters, digits, '-' and '_'";
            return Some((message.to_owned(), "write https://ntfy.sh/TOPIC".to_owned()));
        }
        let (service, form) = service(url)?;
        let name = match service {
            Service::Connector => {
                return Some((
                    "Microsoft has retired the connectors of Office 365, and their URLs accept no messages".to_owned(),
                    "create a webhook with the Workflows app of Teams, and use its URL".to_owned(),
                ));
            }
            // It shows any other form as text.
            Service::Ntfy => return None,
            Service::Slack => "Slack",
            Service::Discord => "Discord",
            Service::Teams => "Microsoft Teams",
        };
        (self != form).then(|| {
            let message = format!("{name} refuses notices of the form {}", self.name());
            (message, format!("remove form, or write form = \"{}\"", form.name()))
        })
    }
}

/// Returns the service at the URL of a webhook, if it is certain, and the form that it expects.
fn service(url: &Url) -> Option<(Service, Form)> {
    let host = url.host().trim_end_matches('.').to_ascii_lowercase();
    let path = url.expose_path();
    let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|before| before.ends_with('.'));
    match host.as_str() {
        "hooks.slack.com" | "hooks.slack-gov.com" => Some((Service::Slack, Form::Slack)),
        "discord.com" | "discordapp.com" | "canary.discord.com" | "ptb.discord.com"
            if path.starts_with("/api/") && path.contains("/webhooks/") =>
        {
            // At this address, Discord accepts the form of Slack.
            let form = if path.trim_end_matches('/').ends_with("/slack") { Form::Slack } else { Form::Discord };
            Some((Service::Discord, form))
        }
        "ntfy.sh" => Some((Service::Ntfy, if topic(url).is_some() { Form::Ntfy } else { Form::Json })),
        "outlook.office.com" | "outlook.office365.com" if path.starts_with("/webhook") => {
            Some((Service::Connector, Form::Teams))
        }
        _ if is_below("webhook.office.com") => Some((Service::Connector, Form::Teams)),
        _ if (is_below("logic.azure.com") || is_below("powerplatform.com")) && path.contains("/workflows/") => {
            Some((Service::Teams, Form::Teams))
        }
        _ => None,
    }
}

/// Returns the name of the topic that the URL of an ntfy webhook ends with.
pub(super) fn topic(url: &Url) -> Option<String> {
    let path = url.expose_path();
    let name = path.trim_end_matches('/').rsplit('/').next()?;
    let is_topic = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    is_topic(name).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn services_are_recognized_by_their_urls() {
        for (text, form) in [
            ("https://hooks.slack.com/services/T0/B0/x", Form::Slack),
            ("https://discord.com/api/webhooks/123/abc", Form::Discord),
            ("https://discordapp.com/api/v10/webhooks/123/abc?wait=true", Form::Discord),
            ("https://discord.com/api/webhooks/123/abc/slack", Form::Slack),
            (
                "https://prod-01.westeurope.logic.azure.com:443/workflows/a/triggers/manual/paths/invoke?sig=x",
                Form::Teams,
            ),
            (
                "https://default0.1.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/a/triggers/manual/paths/invoke?sig=x",
                Form::Teams,
            ),
            ("https://ntfy.sh/backups", Form::Ntfy),
            ("https://NTFY.sh/backups/", Form::Ntfy),
            ("https://ntfy.sh/", Form::Json),
            ("https://discord.com/channels/1/2", Form::Json),
            ("https://hooks.example.com/services/x", Form::Json),
            ("https://discord.com.evil.example/api/webhooks/1/2", Form::Json),
            ("https://evillogic.azure.com/workflows/a", Form::Json),
            ("https://my-discord.com/api/webhooks/1/2", Form::Json),
        ] {
            assert_eq!(Form::of_url(&url(text)), form, "{text}");
            assert_eq!(form.refusal(&url(text)), None, "{text}");
        }
    }

    #[test]
    fn forms_that_a_service_refuses_are_known() {
        for (form, text) in [
            (Form::Json, "https://discord.com/api/webhooks/1/x"),
            (Form::Slack, "https://discord.com/api/webhooks/1/x"),
            (Form::Discord, "https://discord.com/api/webhooks/1/x/slack"),
            (Form::Json, "https://hooks.slack.com/services/x"),
            (Form::Discord, "https://hooks.slack.com/services/x"),
            (Form::Slack, "https://a.b.logic.azure.com/workflows/x"),
            (Form::Teams, "https://a.webhook.office.com/webhookb2/x"),
            (Form::Json, "https://outlook.office.com/webhook/x"),
            (Form::Ntfy, "https://ntfy.example.com/"),
            (Form::Ntfy, "https://ntfy.example.com/a%20b"),
            (Form::Ntfy, "https://hooks.slack.com/services/x"),
        ] {
            assert!(form.refusal(&url(text)).is_some(), "{form:?} {text}");
        }
        for (form, text) in [
            (Form::Json, "https://ntfy.sh/x"),
            (Form::Ntfy, "https://ntfy.example.com/below/x"),
            (Form::Slack, "https://chat.example.com/hooks/x"),
            (Form::Discord, "https://proxy.example.com/x"),
        ] {
            assert_eq!(form.refusal(&url(text)), None, "{form:?} {text}");
        }
    }
}
