//! Turns errors of a server or its connection into this program's errors, with the server's own messages as causes.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::error::{DbError, SqlState};

use crate::engine::postgres::wire::auth::Refused;
use crate::engine::postgres::wire::hosted;
use crate::engine::postgres::wire::params::{Host, Params};
use crate::engine::postgres::wire::tls::HandshakeError;
use crate::platform::error::{Error, Kind};

/// One text in a chain of causes; the next one, if any, is its source.
#[derive(Debug)]
struct Cause {
    text: String,
    sqlstate: Option<String>,
    next: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

/// Chains the texts, the first one outermost.
fn chain(texts: Vec<String>, sqlstate: Option<&str>) -> Option<Cause> {
    texts
        .into_iter()
        .rev()
        .fold(None, |next, text| Some(Cause { text, sqlstate: sqlstate.map(str::to_owned), next: next.map(Box::new) }))
}

/// Returns all additional fields of the server's message: DETAIL, HINT, CONTEXT, SQLSTATE.
fn additional_fields(error: &DbError) -> Vec<String> {
    let mut texts = Vec::new();
    for (field, text) in [("detail", error.detail()), ("hint", error.hint()), ("context", error.where_())] {
        texts.extend(text.into_iter().flat_map(str::lines).map(|line| format!("{field}: {line}")));
    }
    texts.push(format!("SQLSTATE {}", error.code().code()));
    texts
}

/// Returns the server's message with all additional fields.
fn message_with_fields(error: &DbError) -> Option<Cause> {
    let mut texts = vec![error.message().to_owned()];
    texts.extend(additional_fields(error));
    chain(texts, Some(error.code().code()))
}

/// The SQLSTATE of a statement that the role may not run.
pub(in crate::engine::postgres) const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Returns the SQLSTATE that the server reported for a failure, wherever it is among the causes.
#[must_use]
pub fn sqlstate(error: &Error) -> Option<String> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = next {
        if let Some(cause) = cause.downcast_ref::<Cause>() {
            return cause.sqlstate.clone();
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

/// The hint for a query that a standby has cancelled.
const RECOVERY_CONFLICT: &str = "the standby cancelled the query, because it could not replay a change of the primary meanwhile: \
     try again; set hot_standby_feedback = on and a higher max_standby_streaming_delay on the standby; or read from the primary";

/// Returns true if a standby has cancelled a query, or ended a session, so that recovery can go on. Texts of the server may
/// be in any language; the names of its functions are not.
fn is_recovery_conflict(error: &DbError) -> bool {
    let of_recovery = |routine: &str| routine == "ProcessInterrupts" || routine.starts_with("ProcessRecoveryConflict");
    *error.code() == SqlState::T_R_SERIALIZATION_FAILURE
        && (error.routine().is_some_and(of_recovery) || error.message().contains("conflict with recovery"))
}

/// Builds the error for failed work in a session. `lost` is the error that ended the connection, if any.
pub(in crate::engine::postgres) fn in_session(
    error: &tokio_postgres::Error,
    lost: Option<&tokio_postgres::Error>,
    url: &str,
) -> Error {
    let reported = error.as_db_error().or_else(|| lost.and_then(tokio_postgres::Error::as_db_error));
    if let Some(reported) = reported {
        if ends_connection(reported.code()) {
            let error = Error::unreachable(format!("{url} ended the connection")).hint(
                "the server was stopped, or the session was terminated: see the server's log for the reason, then try \
                 again",
            );
            return with_cause(error, message_with_fields(reported));
        }
        let mut error = Error::new(Kind::Failed, reported.message());
        error.hint = match reported.code().code() {
            _ if is_recovery_conflict(reported) => Some(RECOVERY_CONFLICT.to_owned()),
            INSUFFICIENT_PRIVILEGE if reported.routine() == Some("check_enable_rls") => Some(
                "the table has row-level security: connect as its owner, unless it is forced for the owner too, or as a \
                 role with BYPASSRLS"
                    .to_owned(),
            ),
            INSUFFICIENT_PRIVILEGE => {
                Some("grant the missing privilege to the role, or connect as a role that has it".to_owned())
            }
            "53100" => Some("the server's disk is full: free some space there".to_owned()),
            _ => None,
        };
        return with_cause(error, chain(additional_fields(reported), Some(reported.code().code())));
    }
    let reason = lost.unwrap_or(error);
    if error.is_closed() || lost.is_some() || io_error(error).is_some() {
        let error = Error::unreachable(format!("the connection to {url} was lost")).hint(
            "check that the server is running and that the network works: the server's log may show why the \
             connection was closed; then try again",
        );
        return with_cause(error, chain(texts_of(reason), None));
    }
    with_cause(Error::failed(format!("cannot understand the answer of {url}")), chain(texts_of(reason), None))
}

fn with_cause(error: Error, cause: Option<Cause>) -> Error {
    match cause {
        Some(cause) => error.because(cause),
        None => error,
    }
}

/// Returns the texts of an error and its causes.
fn texts_of(error: &tokio_postgres::Error) -> Vec<String> {
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

/// Returns the reason if a request of the server for a login was not answered.
pub(in crate::engine::postgres) fn not_answered(error: &tokio_postgres::Error) -> Option<Refused> {
    io_error(error)?.get_ref()?.downcast_ref().copied()
}

/// Builds the error for a failed connection to one host. Its kind is always [`Kind::Unreachable`].
pub(in crate::engine::postgres) fn connecting(
    error: &tokio_postgres::Error,
    params: &Params,
    host: &Host,
    password_from: Option<&str>,
) -> Error {
    let url = params.shown_at(std::slice::from_ref(host));
    if let Some(reported) = error.as_db_error() {
        return refused(reported, params, &url, password_from);
    }
    if let Some(failed) = handshake(error) {
        let failure = with_cause(
            Error::unreachable(format!("cannot complete the TLS handshake with {url}")),
            chain(vec![failed.to_string()], None),
        );
        return match failed.tls() {
            Some(reason) => failure.hint(tls_hint(reason, host)),
            None => {
                failure.hint("the server, or a proxy in front of it, ended the handshake: see its log for the reason")
            }
        };
    }
    if let Some(refused) = not_answered(error) {
        let (message, hint) = refused.texts();
        return Error::unreachable(format!("{url} {message}")).hint(hint);
    }
    // The library has no error kinds for these cases; tests check that the texts stay the same.
    let inner = error.source().map(ToString::to_string).unwrap_or_default();
    if inner == "password missing" {
        return Error::unreachable(format!("{url} requires a password, but none was given"))
            .hint("set PGPASSWORD, or add a line to ~/.pgpass (and run chmod 600), or use a connection service");
    }
    if inner == "server does not support TLS" {
        return Error::unreachable(format!("{url} does not support TLS"))
            .hint("turn ssl on in the server; or use sslmode=prefer or sslmode=disable if you trust the network");
    }
    if inner == "server did not use channel binding" {
        return Error::unreachable(format!("{url} does not use channel binding")).hint(
            "channel_binding=require needs TLS and a password that is stored as scram-sha-256; otherwise remove it",
        );
    }
    let mut texts = texts_of(error);
    // The library's text "error connecting to server" adds nothing.
    if texts.len() > 1 {
        texts.remove(0);
    }
    let failure = Error::unreachable(format!("cannot connect to {url}"));
    with_cause(failure.hint(socket_hint(io_error(error), host)), chain(texts, None))
}

/// Builds the error for a host to which no socket can be opened. Its kind is [`Kind::Unreachable`].
pub(in crate::engine::postgres) fn no_socket(
    error: &io::Error,
    params: &Params,
    host: &Host,
    has_only_ipv6: bool,
) -> Error {
    let url = params.shown_at(std::slice::from_ref(host));
    // Of EADDRNOTAVAIL and EAFNOSUPPORT, only the first has a kind.
    let has_no_way = matches!(
        error.kind(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable
    ) || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    let hint = if has_only_ipv6 && has_no_way { hosted::ipv6_hint(&host.name) } else { socket_hint(Some(error), host) };
    with_cause(Error::unreachable(format!("cannot connect to {url}")).hint(hint), chain(vec![error.to_string()], None))
}

/// Returns the hint for a socket that cannot be opened, or that breaks before the login.
fn socket_hint(error: Option<&io::Error>, host: &Host) -> String {
    match error.map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) if host.is_socket() => format!(
            "the socket {}/.s.PGSQL.{} does not exist: check that the server is running and that this is the folder \
             of its socket",
            host.name, host.port
        ),
        Some(io::ErrorKind::PermissionDenied) if host.is_socket() => {
            format!("the current user has no permission to use the socket in {}", host.name)
        }
        Some(io::ErrorKind::ConnectionRefused) => {
            format!("check that the server is running and listens on port {} of {}", host.port, host.name)
        }
        Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
            "check that a PostgreSQL server listens there; its log may show why it closed the connection".to_owned()
        }
        _ => "check the host and the port, and that the server is running".to_owned(),
    }
}

/// Builds the error for a login that the server refused.
fn refused(error: &DbError, params: &Params, url: &str, password_from: Option<&str>) -> Error {
    let (user, database) = (params.user(), params.database());
    let code = error.code();
    let (message, hint) = if *code == SqlState::INVALID_PASSWORD {
        let hint = match password_from {
            Some(from) => format!("the password that was not accepted is from {from}"),
            None => "no password was given: set PGPASSWORD, or add a line to ~/.pgpass".to_owned(),
        };
        (format!("the login to {url} was not accepted"), hint)
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        // Both cases have the same code, and the text is in the server's language; the name of the server's function
        // differs.
        let hint = if error.routine() == Some("InitializeSessionUserId") {
            format!("check the name of the role '{user}'; CREATE ROLE ... LOGIN creates a role")
        } else {
            format!(
                "the server's pg_hba.conf must allow '{user}' to connect from this machine to '{database}'; some of \
                 its entries may require TLS (sslmode=require), or forbid it"
            )
        };
        (format!("the login to {url} was not accepted"), hint)
    } else if *code == SqlState::UNDEFINED_DATABASE {
        (format!("the database {url} does not exist"), format!("check the name '{database}': it is case-sensitive"))
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        (format!("'{user}' may not connect to {url}"), "GRANT CONNECT ON DATABASE grants this privilege".to_owned())
    } else if *code == SqlState::PROTOCOL_VIOLATION && error.message().starts_with("unsupported startup parameter") {
        (
            format!("{url} is a pooler that accepts no options"),
            "remove 'options' (from the URL, the config or PGOPTIONS), or connect to the server's own host and port"
                .to_owned(),
        )
    } else if *code == SqlState::PROTOCOL_VIOLATION && error.message().starts_with("no such database") {
        (
            format!("{url} is a pooler that does not know the database '{database}'"),
            "add the database to the pooler's configuration, or connect to the server's own host and port".to_owned(),
        )
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        (format!("{url} has no free connection"), "try again later, or with fewer jobs".to_owned())
    } else if *code == SqlState::CANNOT_CONNECT_NOW {
        (format!("{url} is not ready"), "the server is starting or stopping: try again in a moment".to_owned())
    } else {
        (format!("cannot connect to {url}"), "see the server's log for details".to_owned())
    };
    with_cause(Error::unreachable(message).hint(hint), message_with_fields(error))
}

/// Returns the hint for a certificate that is not accepted, the client's or the server's.
fn tls_hint(error: &rustls::Error, host: &Host) -> String {
    let name = &host.name;
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => {
                "the server's certificate was not issued by a trusted root: set sslrootcert=FILE to the right root \
                 certificate"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
                "the certificate is not for the host '{name}': connect with a name that is in the certificate, or use \
                 sslmode=verify-ca to accept any host with a certificate of this issuer"
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired: renew it".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the server's certificate is not valid yet: check the clock of this machine".to_owned()
            }
            CertificateError::Other(_) | CertificateError::BadEncoding => {
                "this type of server certificate is not accepted (for example version 1): create a certificate of \
                 version 3 with a subjectAltName"
                    .to_owned()
            }
            _ => "use another certificate on the server".to_owned(),
        },
        rustls::Error::AlertReceived(_) => {
            "the server rejected the handshake: it may require a client certificate (sslcert and sslkey) from another \
             issuer"
                .to_owned()
        }
        rustls::Error::PeerIncompatible(_) => "the server must support TLS 1.2 or 1.3".to_owned(),
        _ => "sslmode sets which properties of TLS are checked".to_owned(),
    }
}

/// Builds the error for a host name that cannot be resolved.
pub(in crate::engine::postgres) fn unknown_host(params: &Params, host: &Host, error: io::Error) -> Error {
    let hint = format!("check the host name '{}' and the network", host.name);
    // The system may hide IPv6 addresses from programs if it has none itself.
    let hint =
        if host.name.ends_with(".supabase.co") { format!("{hint}; {}", hosted::ipv6_hint(&host.name)) } else { hint };
    Error::unreachable(format!("cannot find the host of {}", params.shown_at(std::slice::from_ref(host))))
        .because(error)
        .hint(hint)
}

/// Builds the error for a server that did not answer in time.
pub(in crate::engine::postgres) fn no_answer(
    params: &Params,
    host: &Host,
    has_only_ipv6: bool,
    limit: Duration,
) -> Error {
    let url = params.shown_at(std::slice::from_ref(host));
    let hint = "check the host, the port and any firewall; to wait longer, set connect_timeout=SECONDS".to_owned();
    let hint = if has_only_ipv6 { format!("{}; or {hint}", hosted::ipv6_hint(&host.name)) } else { hint };
    Error::unreachable(format!("no answer from {url} within {} s", limit.as_secs())).hint(hint)
}

/// Builds the error for a pooler that has let a client wait in vain for a connection to the server. Its SQLSTATE is that of
/// a server that accepts no more connections.
pub(in crate::engine::postgres) fn no_free_connection(params: &Params, host: &Host, limit: Duration) -> Error {
    let url = params.shown_at(std::slice::from_ref(host));
    let error = Error::unreachable(format!("the pooler {url} had no free connection within {} s", limit.as_secs()))
        .hint("try again with fewer jobs (-j 1), or raise the size of the pool; some commands need two connections");
    with_cause(error, chain(vec!["too many connections".to_owned()], Some(SqlState::TOO_MANY_CONNECTIONS.code())))
}

/// Combines the failures of several hosts, or of several attempts at one host.
pub(in crate::engine::postgres) fn combined(params: &Params, mut failures: Vec<Error>) -> Error {
    let mut texts: Vec<String> = Vec::new();
    for failure in &failures {
        let text = failure.full_message();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let Some(last) = failures.pop() else {
        return Error::unreachable(format!("cannot connect to {params}")).hint("the host name has no address");
    };
    // A pooler that cannot be used is the user's to know, whatever the other hosts answer.
    if texts.len() < 2 || last.kind == Kind::Usage {
        return last;
    }
    let code = failures.iter().chain([&last]).find_map(sqlstate);
    let error = Error::unreachable(format!("cannot connect to {params}"));
    let error = with_cause(error, chain(texts, code.as_deref()));
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
    fn several_failures_are_combined_and_one_is_returned_alone() {
        let params = Params::parse_in("postgres://u:hunter2@a:1,b:2/d", &Default::default()).unwrap();
        let one = || Error::unreachable("first").hint("h1");
        assert_eq!(combined(&params, vec![one(), one()]).message, "first");
        let both = combined(&params, vec![one(), Error::unreachable("second").hint("h2")]);
        assert_eq!(both.message, "cannot connect to postgres://u@a:1,b:2/d");
        assert_eq!(both.causes(), ["first", "second"]);
        assert_eq!(both.hint.as_deref(), Some("h2"));
        assert!(!format!("{both:?}").contains("hunter2"));
    }

    #[test]
    fn the_sqlstate_is_found_under_any_contexts() {
        let cause = chain(vec!["detail: x".to_owned(), "SQLSTATE 23505".to_owned()], Some("23505"));
        let error = with_cause(Error::failed("duplicate key"), cause);
        let error = error.context("cannot load t").context("cannot restore");
        assert_eq!(sqlstate(&error).as_deref(), Some("23505"));
        assert_eq!(error.causes(), ["cannot load t", "duplicate key", "detail: x", "SQLSTATE 23505"]);
        assert_eq!(sqlstate(&Error::failed("other")), None);
    }
}
