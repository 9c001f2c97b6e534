//! Turns errors of a server or its connection into this program's errors, with the server's own messages as causes.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::error::{DbError, SqlState};

use crate::engine::postgres::wire::params::{Host, Params};
use crate::engine::postgres::wire::tls::HandshakeError;
use crate::platform::error::{Error, Kind};

/// One message of the server; the next one, if any, is its source.
#[derive(Debug)]
struct Told {
    text: String,
    sqlstate: Option<String>,
    next: Option<Box<Told>>,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Told {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

/// Chains the texts, the first one outermost.
fn chain(texts: Vec<String>, sqlstate: Option<&str>) -> Option<Told> {
    texts
        .into_iter()
        .rev()
        .fold(None, |next, text| Some(Told { text, sqlstate: sqlstate.map(str::to_owned), next: next.map(Box::new) }))
}

/// Returns all additional fields of the server's message: DETAIL, HINT, CONTEXT, SQLSTATE.
fn beside(told: &DbError) -> Vec<String> {
    let mut texts = Vec::new();
    for (word, text) in [("detail", told.detail()), ("hint", told.hint()), ("context", told.where_())] {
        texts.extend(text.into_iter().flat_map(str::lines).map(|line| format!("{word}: {line}")));
    }
    texts.push(format!("SQLSTATE {}", told.code().code()));
    texts
}

/// Returns the server's message with all additional fields.
fn whole(told: &DbError) -> Option<Told> {
    let mut texts = vec![told.message().to_owned()];
    texts.extend(beside(told));
    chain(texts, Some(told.code().code()))
}

/// Returns the SQLSTATE that the server reported for a failure, wherever it is among the causes.
#[must_use]
pub fn sqlstate(error: &Error) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(told) = cause.downcast_ref::<Told>() {
            return told.sqlstate.clone();
        }
        if let Some(code) = cause.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code) {
            return Some(code.code().to_owned());
        }
        next = cause.source();
    }
    None
}

/// Returns true if the server ended the connection with this code: a shutdown, a crash, `pg_terminate_backend`, a
/// timeout.
fn ends_connection(code: &SqlState) -> bool {
    ["57P01", "57P02", "57P03", "57P04", "57P05", "25P03", "25P04"].contains(&code.code())
}

/// Builds the error for failed work in a session. `lost` is the error that ended the connection, if any.
pub(in crate::engine::postgres) fn in_session(
    error: &tokio_postgres::Error,
    lost: Option<&tokio_postgres::Error>,
    place: &str,
) -> Error {
    let told = error.as_db_error().or_else(|| lost.and_then(tokio_postgres::Error::as_db_error));
    if let Some(told) = told {
        if ends_connection(told.code()) {
            let error = Error::unreachable(format!("{place} ended the connection"))
                .hint("it was stopped, or somebody ended the session there: its log says which; then try again");
            return caused(error, whole(told));
        }
        let mut error = Error::new(Kind::Failed, told.message());
        error.hint = match told.code().code() {
            "42501" => Some("give the role that right, or connect as one that has it".to_owned()),
            "53100" => Some("the server's disk is full: free some space there".to_owned()),
            _ => None,
        };
        return caused(error, chain(beside(told), Some(told.code().code())));
    }
    let why = lost.unwrap_or(error);
    if error.is_closed() || lost.is_some() || io_error(error).is_some() {
        let error = Error::unreachable(format!("the connection to {place} was lost"))
            .hint("is the server still running, and the network well? its log may say why it hung up; then try again");
        return caused(error, chain(words(why), None));
    }
    caused(Error::failed(format!("{place} gave an answer that is not understood")), chain(words(why), None))
}

fn caused(error: Error, cause: Option<Told>) -> Error {
    match cause {
        Some(cause) => error.because(cause),
        None => error,
    }
}

/// Returns the texts of an error and its causes.
fn words(error: &tokio_postgres::Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        // The TLS library refers to its own documentation, which is for programmers.
        let text = cause.to_string();
        texts.push(text.split(": https://").next().unwrap_or(&text).to_owned());
        next = cause.source();
    }
    texts.dedup();
    texts
}

/// Returns the socket error inside an error.
fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// Returns the TLS handshake error inside an error.
pub(in crate::engine::postgres) fn handshake(error: &tokio_postgres::Error) -> Option<&HandshakeError> {
    error.source()?.downcast_ref()
}

/// Builds the error for a failed connection to one host. Its kind is always [`Kind::Unreachable`].
pub(in crate::engine::postgres) fn connecting(
    error: &tokio_postgres::Error,
    params: &Params,
    host: &Host,
    password_from: Option<&str>,
) -> Error {
    let place = params.shown_at(std::slice::from_ref(host));
    let cannot = || Error::unreachable(format!("cannot connect to {place}"));
    if let Some(told) = error.as_db_error() {
        return refused(told, params, &place, password_from);
    }
    if let Some(failed) = handshake(error) {
        let failure = caused(
            Error::unreachable(format!("cannot agree on TLS with {place}")),
            chain(vec![failed.to_string()], None),
        );
        return match failed.tls() {
            Some(why) => failure.hint(tls_hint(why, host)),
            None => failure.hint("the server, or something before it, ended the handshake; its log says why"),
        };
    }
    // The library has no error kinds for these cases; tests check that the texts stay the same.
    let inner = error.source().map(ToString::to_string).unwrap_or_default();
    if inner == "password missing" {
        return Error::unreachable(format!("{place} asks for a password, and there is none"))
            .hint("set PGPASSWORD, or write a line into ~/.pgpass (and chmod 600), or use a connection service");
    }
    if inner == "server does not support TLS" {
        return Error::unreachable(format!("{place} has no TLS"))
            .hint("turn ssl on in the server; or sslmode=prefer or disable, if the network between is your own");
    }
    if inner == "server did not use channel binding" {
        return Error::unreachable(format!("{place} does not tie the login to its certificate"))
            .hint("channel_binding=require needs TLS and a password kept as scram-sha-256; leave it out otherwise");
    }
    let mut texts = words(error);
    // The library's text "error connecting to server" adds nothing.
    if texts.len() > 1 {
        texts.remove(0);
    }
    caused(cannot().hint(socket_hint(io_error(error), host)), chain(texts, None))
}

/// Builds the error for a host to which no socket can be opened. Its kind is [`Kind::Unreachable`].
pub(in crate::engine::postgres) fn no_socket(error: &io::Error, params: &Params, host: &Host) -> Error {
    let place = params.shown_at(std::slice::from_ref(host));
    let error_hint = socket_hint(Some(error), host);
    caused(
        Error::unreachable(format!("cannot connect to {place}")).hint(error_hint),
        chain(vec![error.to_string()], None),
    )
}

/// Returns the hint for a socket that cannot be opened, or that breaks before the login.
fn socket_hint(error: Option<&io::Error>, host: &Host) -> String {
    match error.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) if host.is_socket() => format!(
            "there is no socket {}/.s.PGSQL.{}: is the server running, and is its socket in that folder?",
            host.name, host.port
        ),
        Some(io::ErrorKind::PermissionDenied) if host.is_socket() => {
            format!("this user may not use the socket in {}", host.name)
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            format!("is the server running, and does it listen on port {} of {}?", host.port, host.name)
        }
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "is it a PostgreSQL server that listens there? its log may say why it hung up".to_owned()
        }
        _ => "are host and port right, and is the server running?".to_owned(),
    }
}

/// Builds the error for a login that the server refused.
fn refused(told: &DbError, params: &Params, place: &str, password_from: Option<&str>) -> Error {
    let (user, database) = (params.user(), params.database());
    let code = told.code();
    let (message, hint) = if *code == SqlState::INVALID_PASSWORD {
        let hint = match password_from {
            Some(from) => format!("the password that was tried is from {from}"),
            None => "no password was given: set PGPASSWORD, or write a line into ~/.pgpass".to_owned(),
        };
        (format!("the login to {place} was not accepted"), hint)
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        // Both cases have the same code, and the text is in the server's language; the name of the server's function
        // differs.
        let hint = if told.routine() == Some("InitializeSessionUserId") {
            format!("is the role '{user}' right? CREATE ROLE ... LOGIN makes one")
        } else {
            format!(
                "the server's pg_hba.conf must let '{user}' from this machine into '{database}'; some lines of it \
                     ask for TLS (sslmode=require), or for none"
            )
        };
        (format!("the login to {place} was not accepted"), hint)
    } else if *code == SqlState::UNDEFINED_DATABASE {
        (format!("there is no database {place}"), format!("is the name '{database}' right? it is case-sensitive"))
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        (format!("'{user}' may not connect to {place}"), "GRANT CONNECT ON DATABASE gives that right".to_owned())
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        (format!("{place} has no free connection"), "try again later, or with fewer jobs".to_owned())
    } else if *code == SqlState::CANNOT_CONNECT_NOW {
        (format!("{place} is not ready"), "it is starting or stopping: try again in a moment".to_owned())
    } else {
        (format!("cannot connect to {place}"), "the server's log may say more".to_owned())
    };
    caused(Error::unreachable(message).hint(hint), whole(told))
}

/// Returns the hint for a certificate that is not accepted, the client's or the server's.
fn tls_hint(why: &rustls::Error, host: &Host) -> String {
    let name = &host.name;
    match why {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::UnknownIssuer => {
                "the server's certificate is not from a root that is trusted: name the right one with \
                 sslrootcert=FILE"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "the certificate is for another host than '{name}': connect by a name that it has, or use \
                 sslmode=verify-ca if any host of that issuer will do"
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has run out: renew it".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: is the clock right?".to_owned()
            }
            CertificateError::Other(_) | CertificateError::BadEncoding => {
                "the server's certificate is of a kind that is not accepted (version 1, say): make one of version 3 \
                 with a subjectAltName"
                    .to_owned()
            }
            _ => "the server needs another certificate".to_owned(),
        },
        rustls::Error::AlertReceived(_) => {
            "the server refused: it may ask for a client certificate (sslcert and sslkey) from another issuer"
                .to_owned()
        }
        rustls::Error::PeerIncompatible(_) => "the server must speak TLS 1.2 or 1.3".to_owned(),
        _ => "sslmode says how much TLS must be right".to_owned(),
    }
}

/// Builds the error for a host name that cannot be resolved.
pub(in crate::engine::postgres) fn unknown_host(params: &Params, host: &Host, error: io::Error) -> Error {
    Error::unreachable(format!("cannot find the host of {}", params.shown_at(std::slice::from_ref(host))))
        .because(error)
        .hint(format!("is the name '{}' right, and is there a network?", host.name))
}

/// Builds the error for a server that did not answer in time.
pub(in crate::engine::postgres) fn no_answer(params: &Params, host: &Host, bound: Duration) -> Error {
    let place = params.shown_at(std::slice::from_ref(host));
    Error::unreachable(format!("no answer from {place} within {} s", bound.as_secs()))
        .hint("are host and port right, and does a firewall stand between? connect_timeout=SECONDS waits longer")
}

/// Combines the failures of several hosts, or of several attempts at one host.
pub(in crate::engine::postgres) fn of_all(params: &Params, mut failures: Vec<Error>) -> Error {
    let mut texts: Vec<String> = Vec::new();
    for failure in &failures {
        let text = failure.whole();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let Some(last) = failures.pop() else {
        return Error::unreachable(format!("cannot connect to {params}")).hint("its name has no address");
    };
    if texts.len() < 2 {
        return last;
    }
    let code = failures.iter().chain([&last]).find_map(sqlstate);
    let error = Error::unreachable(format!("cannot connect to {params}"));
    let error = caused(error, chain(texts, code.as_deref()));
    match last.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn several_failures_are_told_together_and_one_alone() {
        let params = Params::parse_in("postgres://u:hunter2@a:1,b:2/d", &Default::default()).unwrap();
        let one = || Error::unreachable("first").hint("h1");
        assert_eq!(of_all(&params, vec![one(), one()]).message, "first");
        let both = of_all(&params, vec![one(), Error::unreachable("second").hint("h2")]);
        assert_eq!(both.message, "cannot connect to postgres://u@a:1,b:2/d");
        assert_eq!(both.causes(), ["first", "second"]);
        assert_eq!(both.hint.as_deref(), Some("h2"));
        assert!(!format!("{both:?}").contains("hunter2"));
    }

    #[test]
    fn the_sqlstate_is_found_under_whatever_is_around_it() {
        let told = chain(vec!["detail: x".to_owned(), "SQLSTATE 23505".to_owned()], Some("23505"));
        let error = caused(Error::failed("duplicate key"), told).context("cannot load t").context("cannot restore");
        assert_eq!(sqlstate(&error).as_deref(), Some("23505"));
        assert_eq!(error.causes(), ["cannot load t", "duplicate key", "detail: x", "SQLSTATE 23505"]);
        assert_eq!(sqlstate(&Error::failed("other")), None);
    }
}
