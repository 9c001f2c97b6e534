//! Asks over HTTP, one question at a time: what notices, checks of endpoints and other lifeboats need.
//!
//! Everything has a bound: the connection, the whole of a question and its answer, the bytes that are read. A redirect
//! is an answer like any other, for whoever asked to judge: a notice goes to the host that was named and to none
//! else. Proxies are those of the environment; TLS is rustls and ring, with the certificates that the system trusts.
//! No message shows more of an address than scheme, host and port.

mod proxy;
mod url;

use std::io::{self, Read as _};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use ureq::http::{HeaderName, HeaderValue, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

use crate::platform::error::{Error, Result, one_line};
use crate::platform::secret::Secret;
use crate::platform::{interrupt, tls};

pub use url::Url;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of an answer is read.
const BODY_BYTES: u64 = 1 << 20;
/// How often a wait looks whether a signal asked to stop.
const TICK: Duration = Duration::from_millis(50);

/// Asks; each question has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    total: Duration,
    body_bytes: u64,
    bearer: Option<Secret>,
    heeds_signals: bool,
}

/// What is sent along.
#[derive(Clone, Debug)]
pub enum Body {
    /// A document.
    Json(Value),
    /// Plain text.
    Text(String),
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its number.
    pub status: u16,
    /// The type it says it is of, in small letters and without parameters; empty where it says nothing.
    pub content_type: String,
    /// Where it points to, as messages may show it; None where it points nowhere.
    pub redirect: Option<String>,
    /// How long to wait before asking again, where it says so in seconds.
    pub retry_after: Option<Duration>,
    /// Its headers that are lifeboat's own, by their names in small letters.
    pub own_headers: Vec<(String, String)>,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
    /// Whether that is all of it.
    pub whole: bool,
}

impl Answer {
    /// Whether it is a 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What one of lifeboat's own headers says.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.own_headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Asks questions that take at most so long, from looking up the host to the last byte of the answer.
    #[must_use]
    pub fn new(total: Duration) -> Self {
        // None at all is no length of time for the system.
        let total = total.max(Duration::from_millis(1));
        Client { total, body_bytes: BODY_BYTES, bearer: None, heeds_signals: false }
    }

    /// Reads at most so many bytes of an answer; of none, and so waits for none, where that is 0.
    #[must_use]
    pub fn body_bytes(self, body_bytes: u64) -> Self {
        Client { body_bytes, ..self }
    }

    /// Shows a token with every question.
    #[must_use]
    pub fn bearer(self, token: Secret) -> Self {
        Client { bearer: Some(token), ..self }
    }

    /// Ends the wait for an answer, with [`Kind::Interrupted`](crate::platform::error::Kind::Interrupted), once a signal has
    /// asked to stop. Without it a question is asked also then.
    #[must_use]
    pub fn heeds_signals(self) -> Self {
        Client { heeds_signals: true, ..self }
    }

    /// Asks with GET. An answer of any status is Ok; [`Kind::Unreachable`](crate::platform::error::Kind::Unreachable) where none
    /// came, which may be otherwise at the next try; any other kind where it will not.
    pub fn get(&self, url: &Url) -> Result<Answer> {
        self.send(url, None)
    }

    /// Asks with POST, as [`get`](Self::get) does.
    pub fn post(&self, url: &Url, body: Body) -> Result<Answer> {
        self.send(url, Some(body))
    }

    fn send(&self, url: &Url, body: Option<Body>) -> Result<Answer> {
        if !self.heeds_signals {
            return self.send_and_wait(url, body);
        }
        interrupt::check()?;
        let (sender, answers) = sync_channel(1);
        let (client, url) = (self.clone(), url.clone());
        // After a signal it is left behind, and ends by its own bounds.
        let work = move || drop(sender.send(client.send_and_wait(&url, body)));
        let spawned = thread::Builder::new().name("http".to_owned()).spawn(work);
        spawned.map_err(|error| Error::failed("cannot start a thread").because(error))?;
        loop {
            match answers.recv_timeout(TICK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => interrupt::check()?,
                Err(RecvTimeoutError::Disconnected) => return Err(Error::failed("a thread has died")),
            }
        }
    }

    fn send_and_wait(&self, url: &Url, body: Option<Body>) -> Result<Answer> {
        let proxy = proxy::proxy_for(url)?;
        let to = match &proxy {
            Some((_, shown)) => format!("{url} through the proxy {shown}"),
            None => url.to_string(),
        };
        let failed = |error: ureq::Error| self.failure(&to, error);
        let agent = self.agent(url, proxy.map(|(proxy, _)| proxy))?;
        let mut request = Request::builder().uri(url.expose());
        for (name, value) in self.headers(url, body.as_ref())? {
            request = request.header(name, value);
        }
        // Whatever is wrong with a request that cannot be built, its text may hold a secret.
        let unfit = |_| Error::usage(format!("the address at {url} is not a URL"));
        let response = match body {
            None => agent.run(request.method("GET").body(()).map_err(unfit)?),
            Some(Body::Text(text)) => agent.run(request.method("POST").body(text).map_err(unfit)?),
            Some(Body::Json(document)) => agent.run(request.method("POST").body(document.to_string()).map_err(unfit)?),
        };
        self.read(url, response.map_err(failed)?).map_err(|error| failed(ureq::Error::from(error)))
    }

    fn agent(&self, url: &Url, proxy: Option<ureq::Proxy>) -> Result<Agent> {
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
        // Reading them takes a moment, and plain HTTP needs none.
        if url.is_https() || proxy.as_ref().is_some_and(|proxy| proxy.protocol() == ureq::ProxyProtocol::Https) {
            let trusted = tls::system_certificates()?;
            let trusted: Vec<_> = trusted.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
            tls = tls.root_certs(RootCerts::new_with_certs(&trusted));
        } else {
            tls = tls.root_certs(RootCerts::new_with_certs(&[]));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_idle_connections(0)
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(self.total))
            .timeout_connect(Some(self.connect_timeout()))
            .timeout_resolve(Some(self.connect_timeout()))
            .build();
        Ok(config.new_agent())
    }

    fn connect_timeout(&self) -> Duration {
        self.total.min(CONNECT_TIMEOUT)
    }

    fn headers(&self, url: &Url, body: Option<&Body>) -> Result<Vec<(HeaderName, HeaderValue)>> {
        let mut headers = Vec::new();
        match body {
            None => {}
            Some(Body::Json(_)) => headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json"))),
            Some(Body::Text(_)) => headers.push((CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))),
        }
        let login = url.login().map(|login| {
            let plain = format!("{}:{}", login.user, login.password.expose());
            format!("Basic {}", aws_smithy_types::base64::encode(plain))
        });
        let bearer = || self.bearer.as_ref().map(|token| format!("Bearer {}", token.expose()));
        if let Some(text) = login.or_else(bearer) {
            let mut value = HeaderValue::try_from(text)
                .map_err(|_| Error::usage(format!("the token for {url} has characters that cannot be sent")))?;
            value.set_sensitive(true);
            headers.push((AUTHORIZATION, value));
        }
        Ok(headers)
    }

    fn read(&self, url: &Url, response: Response<ureq::Body>) -> io::Result<Answer> {
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = header(CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default();
        let mut answer = Answer {
            status: response.status().as_u16(),
            content_type: content_type.trim().to_ascii_lowercase(),
            redirect: header(LOCATION).filter(|_| response.status().is_redirection()).map(|to| pointed_to(url, to)),
            retry_after: header(RETRY_AFTER).and_then(|value| value.trim().parse().ok()).map(Duration::from_secs),
            own_headers: response
                .headers()
                .iter()
                .filter(|(name, _)| name.as_str().starts_with("lifeboat-"))
                .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
                .collect(),
            body: Vec::new(),
            whole: false,
        };
        if self.body_bytes > 0 {
            let mut body = response.into_body().into_reader();
            body.by_ref().take(self.body_bytes).read_to_end(&mut answer.body)?;
            answer.whole = body.read(&mut [0])? == 0;
        }
        Ok(answer)
    }

    /// What went wrong on the way `to` an address, in words that hold no secret.
    fn failure(&self, to: &str, error: ureq::Error) -> Error {
        let cannot = || Error::unreachable(format!("cannot reach {to}"));
        match error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Error::unreachable(format!("no connection to {to} within {}", shown(self.connect_timeout())))
            }
            ureq::Error::Timeout(_) => Error::unreachable(format!("no answer from {to} within {}", shown(self.total))),
            ureq::Error::HostNotFound => Error::unreachable(format!("cannot find the host of {to}")),
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Error::unreachable(format!("{to} refuses the connection")),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    Error::unreachable(format!("{to} ended the connection before its answer was whole"))
                }
                _ => match error.downcast::<rustls::Error>() {
                    Ok(error) => untrusted(to, error),
                    Err(error) => cannot().because(error),
                },
            },
            ureq::Error::Rustls(error) => untrusted(to, error),
            ureq::Error::ConnectProxyFailed(why) => cannot().because(one_line(&why)),
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
                Error::unreachable(format!("the answer of {to} is not HTTP")).because(error)
            }
            // These may show the address.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Error::usage(format!("the address at {to} is not a URL")),
            error => cannot().because(error),
        }
    }
}

/// A failure of TLS; a certificate that is not trusted today is not trusted in a second.
fn untrusted(to: &str, error: rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) => Error::failed(format!("the certificate of {to} is not trusted"))
            .because(error)
            .hint("if it is right, add it to the certificates that this system trusts, or name it with SSL_CERT_FILE"),
        _ => Error::unreachable(format!("cannot speak TLS with {to}")).because(error),
    }
}

/// The target of a redirect as messages may show it.
fn pointed_to(url: &Url, location: &str) -> String {
    match location.parse::<Url>() {
        Ok(target) if target.to_string() != url.to_string() => target.to_string(),
        Err(_) if location.starts_with("//") => "another host".to_owned(),
        _ => format!("another path of {url}"),
    }
}

/// A bound of time in a message.
fn shown(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{:.1}s", time.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_redirect_is_shown_without_its_path() {
        let url: Url = "http://app.example/hook/secret".parse().expect("an address");
        assert_eq!(pointed_to(&url, "https://app.example/hook/secret"), "https://app.example");
        assert_eq!(pointed_to(&url, "http://app.example/other"), "another path of http://app.example");
        assert_eq!(pointed_to(&url, "/login?next=secret"), "another path of http://app.example");
        assert_eq!(pointed_to(&url, "//other.example/secret"), "another host");
    }

    #[test]
    fn bounds_are_shown_as_they_were_given() {
        assert_eq!(shown(Duration::from_secs(10)), "10s");
        assert_eq!(shown(Duration::from_millis(300)), "0.3s");
    }
}
