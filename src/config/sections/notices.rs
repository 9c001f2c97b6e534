//! `[notify]`: webhooks and pings.

use std::fmt;
use std::path::PathBuf;

use chrono::Utc;
use serde::{Deserialize, Deserializer, de};

use crate::config::sections::reading::{ReadContext, filled};
use crate::config::values::{Form as FormWord, HttpUrl, Occasion, Parsed, Text};
use crate::notify::{Event, Form, Notify, When};
use crate::platform::error::{Error, Result};
use crate::platform::http::Url;

/// The settings of notices.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    /// The URL that notices are sent to.
    pub webhook: Option<Url>,
    /// The form of the notices.
    pub form: Form,
    /// The runs after which a notice is sent.
    pub on: When,
    /// The URLs that are pinged at start, success and failure, by command.
    pub pings: Vec<(String, Url)>,
    /// The file that failures are remembered in.
    pub state: Option<PathBuf>,
}

impl Notices {
    /// Returns the settings for the notices of one command.
    #[must_use]
    pub fn of(&self, command: &str) -> Notify {
        let ping = self.pings.iter().find(|(of, _)| of == command).map(|(_, url)| url.clone());
        let Notices { webhook, form, on, state, .. } = self.clone();
        Notify { webhook, form, ping, on, state }
    }

    /// Sends a notice and every ping as a test. Returns warnings about those that could not be sent.
    #[must_use]
    pub fn trial(&self) -> Vec<String> {
        let event = |command: &str| Event {
            command: command.to_owned(),
            key: "trial".to_owned(),
            ok: true,
            exit_code: 0,
            error: None,
            checks: Vec::new(),
            snapshots: Vec::new(),
            unproven: Vec::new(),
            results: Vec::new(),
            is_complete: true,
            host: "a test by lifeboat doctor".to_owned(),
            at: Utc::now(),
            seconds: 0.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let webhook = Notify { ping: None, on: When::Always, ..self.of("doctor") };
        let ping = |(command, _): &(String, Url)| Notify { webhook: None, ..self.of(command) }.ended(&event(command));
        let mut warnings = webhook.ended(&event("doctor"));
        warnings.extend(self.pings.iter().flat_map(ping));
        warnings
    }
}

/// The commands that notices are sent for.
pub const WATCHED: [&str; 9] =
    ["snapshot", "check", "predeploy", "postdeploy", "guard", "drill", "verify", "prune", "copy"];

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawNotices {
    webhook: Option<Parsed<HttpUrl>>,
    webhook_file: Option<Text>,
    form: Option<Parsed<FormWord>>,
    on: Option<Parsed<Occasion>>,
    ping: Option<Pings>,
    state: Option<Text>,
}

/// The URLs of pings, by command.
struct Pings(Vec<(String, HttpUrl)>);

impl<'de> Deserialize<'de> for Pings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or a table with a URL for each command")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Pings, E> {
                let url = text.parse().map_err(|error: Error| de::Error::custom(error.full_message_with_hint()))?;
                // The job that a ping watches is the backup.
                Ok(Pings(vec![("snapshot".to_owned(), url)]))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Pings, A::Error> {
                let mut pings = Vec::new();
                while let Some((command, url)) = map.next_entry::<String, Parsed<HttpUrl>>()? {
                    if !WATCHED.contains(&command.as_str()) {
                        let known = WATCHED.join(", ");
                        return Err(de::Error::custom(format!("unknown command '{command}': must be one of {known}")));
                    }
                    pings.push((command, url.0));
                }
                Ok(Pings(pings))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl RawNotices {
    pub(in crate::config) fn read(self, context: &ReadContext<'_>) -> Result<Notices> {
        let mut webhook = self.webhook.map(|url| url.0);
        if let Some(path) = filled(self.webhook_file) {
            let parsed = context.secret_file(&path)?.expose().parse();
            webhook = Some(parsed.map_err(|error: Error| error.context("webhook_file"))?);
        }
        let pings = self.ping.map(|pings| pings.0).unwrap_or_default();
        let webhook: Option<Url> = webhook.filter(|url| !url.0.is_empty()).map(|url| url.0.parse()).transpose()?;
        let named = self.form.as_ref().map(|form| form.0.0.as_str());
        let named = Form::ALL.into_iter().find(|(_, name)| Some(*name) == named).map(|(form, _)| form);
        let form = named.or_else(|| webhook.as_ref().map(Form::of_url)).unwrap_or_default();
        Ok(Notices {
            webhook,
            form,
            on: match self.on.as_ref().map(|on| on.0.0.as_str()) {
                Some("recovery") => When::Recovery,
                Some("always") => When::Always,
                _ => When::Failure,
            },
            pings: pings
                .into_iter()
                .filter(|(_, url)| !url.0.is_empty())
                .map(|(command, url)| Ok((command, url.0.parse()?)))
                .collect::<Result<_>>()?,
            state: filled(self.state).map(|path| context.path(&path)).transpose()?,
        })
    }
}
