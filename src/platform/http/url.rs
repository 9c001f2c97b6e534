//! Addresses that carry secrets: the path of a webhook's address is its key.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use ureq::http::Uri;

use crate::platform::error::{Error, Result};
use crate::platform::secret::Secret;

/// An `http://` or `https://` address. `{}` and `{:?}` show only its scheme, host and port.
#[derive(Clone)]
pub struct Url {
    shown: String,
    https: bool,
    host: String,
    port: u16,
    path: Secret,
    query: Option<Secret>,
    login: Option<Login>,
}

/// The user and password in an address.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Secret,
}

impl Url {
    /// Returns the address with `part` appended to its path; the query is kept.
    #[must_use]
    pub fn below(&self, part: &str) -> Url {
        let path = format!("{}/{part}", self.path.expose().trim_end_matches('/'));
        Url { path: Secret::new(path), ..self.clone() }
    }

    /// Returns scheme, host, port and path, for addresses whose path is not a secret, such as a health endpoint. The
    /// query and the login stay hidden.
    #[must_use]
    pub fn with_path(&self) -> String {
        match self.path.expose() {
            "/" => self.shown.clone(),
            path => format!("{}{path}", self.shown),
        }
    }

    /// Returns true if the scheme is https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Returns the host: a name, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, or the default of the scheme if the address has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the path, which must only be compared or sent, never shown in a message.
    pub(crate) fn expose_path(&self) -> &str {
        self.path.expose()
    }

    /// Returns the address without the last part of its path; the query is kept.
    #[must_use]
    pub(crate) fn parent(&self) -> Url {
        let path = self.path.expose().trim_end_matches('/');
        let end = path.rfind('/').map_or(0, |end| end + 1);
        Url { path: Secret::new(if end == 0 { "/" } else { &path[..end] }), ..self.clone() }
    }

    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Returns the whole address except the login. It must only be sent, never shown in a message.
    pub(super) fn expose(&self) -> String {
        let mut text = format!("{}{}", self.shown, self.path.expose());
        if let Some(query) = &self.query {
            text.push('?');
            text.push_str(query.expose());
        }
        text
    }
}

impl FromStr for Url {
    type Err = Error;

    /// Parses an address. The error does not show any part of it.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: &str| {
            Error::usage(format!("the address {reason}"))
                .hint("write https://host/path, with special characters as %XX")
        };
        let uri: Uri = text.parse().map_err(|_| refuse("is not a URL"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(refuse("is neither http:// nor https://")),
            None => return Err(refuse("does not begin with http:// or https://")),
        };
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let (login, host_and_port) = match authority.rsplit_once('@') {
            Some((login, host_and_port)) => {
                let login = read_login(login).ok_or_else(|| refuse("has a login that is not valid UTF-8"))?;
                (Some(login), host_and_port)
            }
            None => (None, authority),
        };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(refuse("has no host"));
        }
        let port = match uri.port_u16() {
            Some(port) => port,
            None if host_and_port.ends_with(&host) || host_and_port.ends_with(']') => {
                if https {
                    443
                } else {
                    80
                }
            }
            None => return Err(refuse("has an invalid port")),
        };
        let scheme = if https { "https" } else { "http" };
        Ok(Url {
            shown: format!("{scheme}://{host_and_port}"),
            https,
            host,
            port,
            path: Secret::new(if uri.path().is_empty() { "/" } else { uri.path() }),
            query: uri.query().map(Secret::new),
            login,
        })
    }
}

/// Parses `user:password` and decodes %XX in both.
fn read_login(text: &str) -> Option<Login> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let plain = |part: &str| percent_decode_str(part).decode_utf8().ok().map(|text| text.into_owned());
    Some(Login { user: plain(user)?, password: Secret::new(plain(password)?) })
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect(text)
    }

    #[test]
    fn scheme_host_and_port_are_shown_and_nothing_else() {
        let secret = url("https://me:hunter2@hooks.example.com:8443/services/T0/B0/key?token=key");
        assert_eq!(
            format!("{secret} {secret:?}"),
            "https://hooks.example.com:8443 Url(https://hooks.example.com:8443)"
        );
        assert_eq!(secret.with_path(), "https://hooks.example.com:8443/services/T0/B0/key");
        assert_eq!(secret.expose(), "https://hooks.example.com:8443/services/T0/B0/key?token=key");
        let login = secret.login().expect("it has one");
        assert_eq!((login.user.as_str(), login.password.expose()), ("me", "hunter2"));
    }

    #[test]
    fn a_login_may_be_percent_encoded() {
        let url = url("http://a%40b:p%3Aw@host");
        let login = url.login().expect("it has one");
        assert_eq!((login.user.as_str(), login.password.expose()), ("a@b", "p:w"));
        assert_eq!(url.expose(), "http://host/");
    }

    #[test]
    fn hosts_and_ports_are_parsed() {
        let expected = [
            ("http://host", "host", 80),
            ("https://host/", "host", 443),
            ("https://host:8443", "host", 8443),
            ("http://127.0.0.1:8000/health", "127.0.0.1", 8000),
            ("http://[::1]:8000/health", "::1", 8000),
            ("http://[::1]/health", "::1", 80),
        ];
        for (text, host, port) in expected {
            let url = url(text);
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn a_part_is_added_before_the_query() {
        for (text, below) in [
            ("https://hc.example/uuid", "https://hc.example/uuid/fail"),
            ("https://hc.example/uuid/", "https://hc.example/uuid/fail"),
            ("https://hc.example/uuid?create=1", "https://hc.example/uuid/fail?create=1"),
            ("https://hc.example", "https://hc.example/fail"),
        ] {
            assert_eq!(url(text).below("fail").expose(), below);
        }
    }

    #[test]
    fn invalid_addresses_are_refused_without_being_shown() {
        for text in [
            "",
            "hunter2",
            "hunter2/x",
            "ftp://hunter2",
            "https://",
            "https:///hunter2",
            "http://hunter2:99999/",
            "http://hunter 2/",
        ] {
            let error = text.parse::<Url>().expect_err(text);
            assert_eq!(error.kind, crate::platform::error::Kind::Usage, "{text}");
            assert!(!format!("{error:?} {}", error.full_message()).contains("hunter"), "{error:?}");
        }
    }
}
