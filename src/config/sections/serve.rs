//! `[serve]`: the settings of the web server.

use std::net::SocketAddr;

use chrono::Duration;
use serde::Deserialize;

use crate::config::sections::reading::{ReadContext, filled, is_on};
use crate::config::values::{Age, Flag, Parsed, Text};
use crate::platform::error::{Error, Result};
use crate::platform::http::HttpHost;
use crate::platform::secret::Secret;

/// The settings of `serve`.
#[derive(Clone, Debug)]
pub struct Serve {
    /// The address that it listens on.
    pub listen: SocketAddr,
    /// The time from the end of one inspection of a source or store to the start of the next.
    pub every: Duration,
    /// The time after which an unfinished inspection makes its source or store count as not answering.
    pub timeout: Duration,
    /// The token that permits everything: reading, and taking snapshots.
    pub token: Option<Secret>,
    /// The name and password that permit reading.
    pub login: Option<(String, Secret)>,
    /// True if everybody may read, even if there is a token or a login.
    pub public: bool,
    /// The hosts, besides those of this machine itself, whose requests are answered without a token; see [`Hosts`].
    pub hosts: Hosts,
}

/// The hosts that requests may address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Any host: `"*"`.
    Any,
    /// These hosts.
    Named(Vec<HttpHost>),
}

impl Default for Serve {
    fn default() -> Self {
        Serve {
            listen: SocketAddr::from(([127, 0, 0, 1], 8700)),
            every: Duration::seconds(15),
            timeout: Duration::seconds(60),
            token: None,
            login: None,
            public: false,
            hosts: Hosts::Named(Vec::new()),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawServe {
    listen: Option<Text>,
    every: Option<Parsed<Age>>,
    timeout: Option<Parsed<Age>>,
    token: Option<Text>,
    token_file: Option<Text>,
    user: Option<Text>,
    password: Option<Text>,
    password_file: Option<Text>,
    public: Option<Parsed<Flag>>,
    hosts: Vec<Parsed<MaybeHost>>,
}

/// A host, `*`, or an empty text for none.
struct MaybeHost(Option<Hosts>);

impl std::str::FromStr for MaybeHost {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "" => Ok(MaybeHost(None)),
            "*" => Ok(MaybeHost(Some(Hosts::Any))),
            host => host.parse().map(|host| MaybeHost(Some(Hosts::Named(vec![host])))),
        }
    }
}

impl RawServe {
    pub(in crate::config) fn read(self, context: &ReadContext<'_>) -> Result<Serve> {
        let default = Serve::default();
        let secret = |text: Option<Text>, file: Option<Text>| match filled(file) {
            Some(path) => context.secret_file(&path).map(Some),
            None => Ok(filled(text).map(Secret::new)),
        };
        let token = secret(self.token, self.token_file)?;
        if token.as_ref().is_some_and(|token| token.expose().len() < SHORTEST_TOKEN) {
            return Err(Error::usage(format!("the token has fewer than {SHORTEST_TOKEN} characters"))
                .hint("create one with 'openssl rand -hex 32'"));
        }
        let login = match (filled(self.user), secret(self.password, self.password_file)?) {
            (Some(user), Some(_)) if user.contains(':') => {
                return Err(Error::usage("the user name must not contain a colon"));
            }
            (Some(user), Some(password)) => Some((user, password)),
            (None, None) => None,
            _ => return Err(Error::usage("user and password must be set together")),
        };
        let listen = match filled(self.listen) {
            Some(text) => parse_listen(&text)?,
            None => default.listen,
        };
        let every = self.every.map_or(default.every, |age| age.0.0);
        let timeout = self.timeout.map_or(default.timeout, |age| age.0.0);
        if every < Duration::seconds(1) || timeout < Duration::seconds(1) {
            return Err(Error::usage("'every' and 'timeout' must be at least 1s"));
        }
        let mut hosts = Hosts::Named(Vec::new());
        for host in self.hosts.into_iter().filter_map(|host| host.0.0) {
            hosts = match (hosts, host) {
                (Hosts::Named(hosts), Hosts::Named(more)) => Hosts::Named([hosts, more].concat()),
                _ => Hosts::Any,
            };
        }
        Ok(Serve { listen, every, timeout, token, login, public: is_on(self.public, false), hosts })
    }
}

/// The minimum length of a token: a shorter one can be guessed.
const SHORTEST_TOKEN: usize = 16;

/// Parses an address to listen on: an IP address of this machine, and a port.
pub fn parse_listen(text: &str) -> Result<SocketAddr> {
    text.trim().parse().map_err(|_| {
        Error::usage(format!("'{}' is not an address to listen on", crate::platform::error::one_line(text)))
            .hint("write an address and a port: 127.0.0.1:8700, or 0.0.0.0:8700 for all addresses of this machine")
    })
}
