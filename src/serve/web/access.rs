//! Who may do what: a token for everything, a name and password for reading.

use aws_smithy_types::base64;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::platform::secret::Secret;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To read.
    Read,
    /// To have something done. A browser sends names and passwords by itself, to whatever page asks for it: only a token
    /// will do here.
    Act,
}

/// Why somebody may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody may.
    Off,
    /// Nothing was shown, or nothing that is right.
    Unknown,
}

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who shows it may do everything.
    pub token: Option<Secret>,
    /// Who knows this name and password may read.
    pub login: Option<(String, Secret)>,
    /// Whether everybody may read, although there is a token or a login.
    pub public: bool,
}

impl Access {
    /// Whether everybody may read.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.public || (self.token.is_none() && self.login.is_none())
    }

    /// Whether who sends these headers may.
    pub fn check(&self, headers: &HeaderMap, right: Right) -> Result<(), Refusal> {
        if right == Right::Act && self.token.is_none() {
            return Err(Refusal::Off);
        }
        if right == Right::Read && self.is_open() {
            return Ok(());
        }
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, rest) = shown.split_once(' ').unwrap_or_default();
        let allowed = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => self.token.as_ref().is_some_and(|token| is_equal(rest.trim(), token.expose())),
            "basic" if right == Right::Read => self.knows(rest.trim()),
            _ => false,
        };
        if allowed { Ok(()) } else { Err(Refusal::Unknown) }
    }

    /// Whether a name and password are right; the token will do for a password, whatever the name: browsers ask for one.
    fn knows(&self, encoded: &str) -> bool {
        let decoded = base64::decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else { return false };
        let is_login =
            self.login.as_ref().is_some_and(|(name, right)| is_equal(user, name) & is_equal(password, right.expose()));
        is_login | self.token.as_ref().is_some_and(|token| is_equal(password, token.expose()))
    }
}

/// Compares two texts in a time that tells nothing of either.
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
