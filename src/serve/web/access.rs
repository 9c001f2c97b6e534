//! Access control: a token permits everything, a name and password permit reading.

use aws_smithy_types::base64;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, Uri};
use sha2::{Digest as _, Sha256};

use crate::config::Hosts;
use crate::platform::http::HttpHost;
use crate::platform::secret::Secret;

/// The right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// To read.
    Read,
    /// To start an action. Only a token is accepted here, because a browser sends names and passwords automatically,
    /// even for a request that another page makes.
    Act,
}

/// The reason for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No request has the right, because no token is configured.
    Off,
    /// The credentials are missing or wrong.
    Unknown,
}

/// The credentials, and what they permit.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The token that permits everything.
    pub token: Option<Secret>,
    /// The name and password that permit reading.
    pub login: Option<(String, Secret)>,
    /// True if everybody may read, even if there is a token or a login.
    pub public: bool,
    /// The hosts that requests may address if they need neither token nor login.
    pub hosts: Hosts,
}

impl Access {
    /// Returns true if everybody may read.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.public || (self.token.is_none() && self.login.is_none())
    }

    /// Returns true if a request addresses this server by a name that it answers to.
    ///
    /// Without a token and without a login, these are the names of this machine itself and the configured hosts. A web
    /// page whose name is pointed to 127.0.0.1 (DNS rebinding) is thus not answered: the browser sends the page's name.
    /// With a token or a login, any name is answered, because the browser sends neither for a page of another name.
    /// Headers that proxies add, such as X-Forwarded-Host, are not used: a page can set them.
    pub(crate) fn answers_to(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let named = match &self.hosts {
            Hosts::Any => return true,
            Hosts::Named(named) => named,
        };
        let has_secret = self.token.is_some() || self.login.is_some();
        if has_secret && (!self.public || named.is_empty()) {
            return true;
        }
        // The target of a request may be a whole URL (RFC 9112, section 3.2.2). Then both hosts must be allowed.
        let in_target = uri.authority().map(|authority| authority.as_str());
        let in_headers = headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        let all: Vec<&str> = in_target.into_iter().chain(in_headers).collect();
        let is_allowed =
            |text: &&str| HttpHost::of_authority(text).is_some_and(|host| host.is_loopback() || named.contains(&host));
        !all.is_empty() && all.iter().all(is_allowed)
    }

    /// Checks that the headers of a request grant a right.
    pub(crate) fn check(&self, headers: &HeaderMap, right: Right) -> Result<(), Refusal> {
        if right == Right::Act && self.token.is_none() {
            return Err(Refusal::Off);
        }
        if right == Right::Read && self.is_open() {
            return Ok(());
        }
        let credentials = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, rest) = credentials.split_once(' ').unwrap_or_default();
        let allowed = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => self.token.as_ref().is_some_and(|token| is_equal(rest.trim(), token.expose())),
            "basic" if right == Right::Read => self.accepts(rest.trim()),
            _ => false,
        };
        if allowed { Ok(()) } else { Err(Refusal::Unknown) }
    }

    /// Returns true if a name and password are right. The token is accepted as the password, with any name, because
    /// browsers ask for a password and not for a token.
    fn accepts(&self, encoded: &str) -> bool {
        let decoded = base64::decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else { return false };
        let is_login =
            self.login.as_ref().is_some_and(|(name, right)| is_equal(user, name) & is_equal(password, right.expose()));
        is_login | self.token.as_ref().is_some_and(|token| is_equal(password, token.expose()))
    }
}

/// Compares two texts by their digests, so that the time reveals nothing about either text.
fn is_equal(one: &str, other: &str) -> bool {
    Sha256::digest(one) == Sha256::digest(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(AUTHORIZATION, authorization.parse().expect("a header"));
        }
        headers
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", base64::encode(pair))
    }

    #[test]
    fn without_any_secret_everybody_reads_and_nobody_acts() {
        let access = Access { token: None, login: None, public: false, hosts: Hosts::Any };
        assert_eq!(access.check(&headers(""), Right::Read), Ok(()));
        assert_eq!(access.check(&headers("Bearer "), Right::Act), Err(Refusal::Off));
        assert_eq!(access.check(&headers("Bearer x"), Right::Act), Err(Refusal::Off));
    }

    #[test]
    fn a_token_is_for_everything_and_a_password_for_reading() {
        let login = Some(("ops".to_owned(), Secret::new("pass:word")));
        let access = Access { token: Some(Secret::new("0123456789abcdef")), login, public: false, hosts: Hosts::Any };
        let may = |text: &str, right| access.check(&headers(text), right).is_ok();
        assert!(may("Bearer 0123456789abcdef", Right::Act) && may("bearer 0123456789abcdef", Right::Read));
        assert!(may(&basic("ops:pass:word"), Right::Read) && !may(&basic("ops:pass:word"), Right::Act));
        assert!(may(&basic(":0123456789abcdef"), Right::Read));
        assert!(!may(&basic("any:0123456789abcdef"), Right::Act), "a browser would send it for any page that asks");
        let wrong = [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic",
            "Basic ====",
            "Token 0123456789abcdef",
        ];
        for text in wrong {
            assert!(!may(text, Right::Read) && !may(text, Right::Act), "{text}");
        }
        for pair in ["ops:", "ops:pass", ":", "ops", "pass:word:ops"] {
            assert!(!may(&basic(pair), Right::Read), "{pair}");
        }
    }

    #[test]
    fn where_reading_is_public_acting_is_not() {
        let access =
            Access { token: Some(Secret::new("0123456789abcdef")), login: None, public: true, hosts: Hosts::Any };
        assert_eq!(access.check(&headers(""), Right::Read), Ok(()));
        assert_eq!(access.check(&headers(""), Right::Act), Err(Refusal::Unknown));
    }
}
