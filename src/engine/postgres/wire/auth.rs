//! The methods by which a server may ask for a login (`require_auth`), and what may be sent over which connection.
//!
//! The protocol library answers whatever the server asks for. So the request is checked before the library sees it: a
//! server, or somebody who answers in its place, must not get a password in clear, or a weaker login than the user wants.

use std::{fmt, io};

use crate::platform::error::{Error, Result};

/// The methods, by their names in `require_auth`.
const METHODS: &[&str] = &["password", "md5", "gss", "sspi", "scram-sha-256", "oauth", "none"];

/// The methods that the user accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine::postgres) struct Methods {
    /// The accepted methods; `None` if all are.
    accepted: Option<Vec<&'static str>>,
    /// True if the user names `password`: then it may also be sent over a connection that is not encrypted.
    names_password: bool,
}

impl Methods {
    /// Parses the value of `require_auth`: a list of methods, or of methods with `!` that are not accepted.
    pub(in crate::engine::postgres) fn parse(text: &str) -> Result<Self> {
        let mut named: Vec<&'static str> = Vec::new();
        let is_negative = text.starts_with('!');
        for word in text.split(',') {
            let (method, negated) = match word.strip_prefix('!') {
                Some(method) => (method, true),
                None => (word, false),
            };
            let wrong = |what: &str| {
                Error::usage(format!("require_auth cannot be '{text}': {what}"))
                    .hint(format!("name methods of {}, or put ! before each of them", METHODS.join(", ")))
            };
            if negated != is_negative {
                return Err(wrong("methods with and without ! cannot be mixed"));
            }
            let known = METHODS.iter().find(|known| **known == method);
            let known = known.ok_or_else(|| wrong(&format!("there is no method '{method}'")))?;
            if named.contains(known) {
                return Err(wrong(&format!("'{method}' is named twice")));
            }
            named.push(known);
        }
        let accepted = METHODS.iter().copied().filter(|method| named.contains(method) != is_negative).collect();
        Ok(Methods { accepted: Some(accepted), names_password: !is_negative && named.contains(&"password") })
    }

    fn accepts(&self, method: &str) -> bool {
        self.accepted.as_ref().is_none_or(|accepted| accepted.contains(&method))
    }
}

/// The rules for one login, and its state.
#[derive(Clone, Debug, Default)]
pub(in crate::engine::postgres) struct Login {
    pub(in crate::engine::postgres) methods: Methods,
    /// True if there is a password that could be sent.
    pub(in crate::engine::postgres) has_password: bool,
    /// True if the connection is encrypted with TLS.
    pub(in crate::engine::postgres) is_encrypted: bool,
    /// True if the server has asked for something.
    has_asked: bool,
}

impl Login {
    /// Returns the rules for a login with a password, or without one.
    pub(in crate::engine::postgres) fn new(methods: Methods, has_password: bool) -> Self {
        Login { methods, has_password, is_encrypted: false, has_asked: false }
    }

    /// Returns the same rules for a connection that is encrypted.
    pub(in crate::engine::postgres) fn encrypted(self) -> Self {
        Login { is_encrypted: true, ..self }
    }

    /// Checks the code of an authentication message. Returns an error if it asks for what the client must not send, or ends
    /// a login that has asked for nothing.
    pub(in crate::engine::postgres) fn check(&mut self, code: u32) -> io::Result<()> {
        let method = match code {
            0 if self.has_asked => return Ok(()),
            0 => "none",
            3 => "password",
            5 => "md5",
            2 | 7 => "gss",
            9 => "sspi",
            10 => "scram-sha-256",
            // The next steps of a method, or one that is unknown, which the library refuses.
            _ => return Ok(()),
        };
        self.has_asked = true;
        if !self.methods.accepts(method) {
            return Err(io::Error::other(Refused::Method(method)));
        }
        if method == "password" && self.has_password && !self.is_encrypted && !self.methods.names_password {
            return Err(io::Error::other(Refused::ClearText));
        }
        Ok(())
    }
}

/// The reason why a request of a server was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum Refused {
    /// The user does not accept the method.
    Method(&'static str),
    /// The password would be sent in clear over a connection that is not encrypted.
    ClearText,
}

impl Refused {
    /// Returns the reason and the hint for a message that begins with the server's URL.
    pub(in crate::engine::postgres) fn texts(self) -> (String, &'static str) {
        match self {
            Refused::Method("none") => (
                "lets the role in without authentication, which require_auth does not accept".to_owned(),
                "check that this is the right server, and its pg_hba.conf; or add none to require_auth",
            ),
            Refused::Method(method) => (
                format!("asks for the method {method}, which require_auth does not accept"),
                "check that this is the right server, and its pg_hba.conf; or change require_auth",
            ),
            Refused::ClearText => (
                "asks for the password in clear text, but the connection is not encrypted: it was not sent".to_owned(),
                "use TLS (sslmode=require or stricter), or scram-sha-256 in pg_hba.conf; require_auth=password sends it \
                 over this connection too",
            ),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().0)
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const CODES: [(u32, &str); 6] =
        [(0, "none"), (3, "password"), (5, "md5"), (7, "gss"), (9, "sspi"), (10, "scram-sha-256")];

    #[test]
    fn methods_are_accepted_as_in_libpq() {
        for (text, accepted) in [
            ("scram-sha-256", &["scram-sha-256"][..]),
            ("password,md5", &["password", "md5"]),
            ("none", &["none"]),
            ("!none", &["password", "md5", "gss", "sspi", "scram-sha-256"]),
            ("!password,!md5", &["none", "gss", "sspi", "scram-sha-256"]),
        ] {
            for (code, method) in CODES {
                let mut login = Login::new(Methods::parse(text).unwrap(), true).encrypted();
                assert_eq!(login.check(code).is_ok(), accepted.contains(&method), "{text}: {method}");
            }
        }
        for text in
            ["", "md5,", "scram", "md5,md5", "!md5,!md5", "md5,!password", "!md5,password", "md5, password", "!"]
        {
            assert!(Methods::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_sent_in_clear_only_over_tls_or_if_it_is_named() {
        let sends = |methods: &str, encrypted: bool| {
            let methods = if methods.is_empty() { Methods::default() } else { Methods::parse(methods).unwrap() };
            let login = Login::new(methods, true);
            let mut login = if encrypted { login.encrypted() } else { login };
            login.check(3).is_ok()
        };
        assert!(!sends("", false) && !sends("!md5", false) && !sends("md5", false));
        assert!(sends("", true) && sends("password", false) && sends("md5,password", false));
    }

    #[test]
    fn the_end_of_a_login_needs_a_method_before_it() {
        let mut login = Login::new(Methods::parse("!none").unwrap(), true);
        assert!(login.check(0).is_err());
        let mut login = Login::new(Methods::parse("scram-sha-256").unwrap(), true);
        for code in [10, 11, 12, 0] {
            login.check(code).unwrap();
        }
    }
}
