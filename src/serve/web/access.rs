//! Access control: a token permits everything, a name and password permit reading.

use aws_smithy_types::base64;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// The token that permits everything.
    pub token: Option<Secret>,
    /// The name and password that permit reading.
    pub login: Option<(String, Secret)>,
    /// True if everybody may read, even if there is a token or a login.
    pub public: bool,
}

impl Access {
    /// Returns true if everybody may read.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.public || (self.token.is_none() && self.login.is_none())
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
        let access = Access::default();
        assert_eq!(access.check(&headers(""), Right::Read), Ok(()));
        assert_eq!(access.check(&headers("Bearer "), Right::Act), Err(Refusal::Off));
        assert_eq!(access.check(&headers("Bearer x"), Right::Act), Err(Refusal::Off));
    }

    #[test]
    fn a_token_is_for_everything_and_a_password_for_reading() {
        let login = Some(("ops".to_owned(), Secret::new("pass:word")));
        let access = Access { token: Some(Secret::new("0123456789abcdef")), login, public: false };
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
        let access = Access { token: Some(Secret::new("0123456789abcdef")), login: None, public: true };
        assert_eq!(access.check(&headers(""), Right::Read), Ok(()));
        assert_eq!(access.check(&headers(""), Right::Act), Err(Refusal::Unknown));
    }
}
