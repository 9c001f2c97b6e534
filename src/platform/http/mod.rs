//! An HTTP client that sends one request at a time, for notifications, checks of endpoints and other lifeboats.
//!
//! Everything is limited: the time to connect, the time of a whole request with its response, and the bytes that are
//! read. Redirects are not followed but returned as responses, so that a notification reaches only the host that was
//! configured. Proxies are taken from the environment. TLS is rustls with ring, and the certificates that the system
//! trusts. Messages show only scheme, host and port of an address.

mod host;
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

pub use host::HttpHost;
pub use url::Url;

/// The time limit for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of bytes of a response that are read.
const BODY_BYTES: u64 = 1 << 20;
/// The interval at which a wait checks for a signal to stop.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// An HTTP client; each request uses a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    total: Duration,
    body_bytes: u64,
    bearer: Option<Secret>,
    own_header: Option<(HeaderName, String)>,
    interruptible: bool,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// A JSON document.
    Json(Value),
    /// Plain text.
    Text(String),
}

/// A response of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The content type in lower case, without parameters; empty if the header is absent.
    pub content_type: String,
    /// The target of a redirect, in the form that messages may show; `None` if it is not a redirect.
    pub redirect: Option<String>,
    /// The time to wait before the next request, if `Retry-After` gives it in seconds.
    pub retry_after: Option<Duration>,
    /// The headers whose names begin with `lifeboat-`, with their names in lower case.
    pub own_headers: Vec<(String, String)>,
    /// The body, up to the limit of bytes.
    pub body: Vec<u8>,
    /// True if `body` is the complete body.
    pub is_complete: bool,
}

impl Answer {
    /// Returns true if the status is 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the value of one of lifeboat's own headers.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.own_headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// Creates a client whose requests take at most `total`, from the lookup of the host to the last byte of the
    /// response.
    #[must_use]
    pub fn new(total: Duration) -> Self {
        // A timeout of zero is not valid.
        let total = total.max(Duration::from_millis(1));
        Client { total, body_bytes: BODY_BYTES, bearer: None, own_header: None, interruptible: false }
    }

    /// Limits the bytes of a response that are read. If the limit is 0, the body is neither read nor waited for.
    #[must_use]
    pub fn body_bytes(self, body_bytes: u64) -> Self {
        Client { body_bytes, ..self }
    }

    /// Sends a bearer token with every request, unless the address contains a login.
    #[must_use]
    pub fn bearer(self, token: Secret) -> Self {
        Client { bearer: Some(token), ..self }
    }

    /// Sends one of lifeboat's own headers with every request. Its name is in lower case.
    #[must_use]
    pub fn own_header(self, name: &'static str, value: String) -> Self {
        Client { own_header: Some((HeaderName::from_static(name), value)), ..self }
    }

    /// Ends the wait for a response, with [`Kind::Interrupted`](crate::platform::error::Kind::Interrupted), when a
    /// signal asks to stop. Without this setting, requests are sent even after such a signal.
    #[must_use]
    pub fn interruptible(self) -> Self {
        Client { interruptible: true, ..self }
    }

    /// Sends a GET request. A response of any status is `Ok`. Fails with
    /// [`Kind::Unreachable`](crate::platform::error::Kind::Unreachable) if no response came but another attempt may
    /// succeed, and with any other kind if it will not.
    pub fn get(&self, url: &Url) -> Result<Answer> {
        self.send(url, None)
    }

    /// Sends a POST request; see [`get`](Self::get).
    pub fn post(&self, url: &Url, body: Body) -> Result<Answer> {
        self.send(url, Some(body))
    }

    fn send(&self, url: &Url, body: Option<Body>) -> Result<Answer> {
        if !self.interruptible {
            return self.send_and_wait(url, body);
        }
        interrupt::check()?;
        let (sender, answers) = sync_channel(1);
        let (client, url) = (self.clone(), url.clone());
        // After a signal, the thread is abandoned and ends by its own time limits.
        let work = move || drop(sender.send(client.send_and_wait(&url, body)));
        let spawned = thread::Builder::new().name("http".to_owned()).spawn(work);
        spawned.map_err(|error| Error::failed("cannot start a thread").because(error))?;
        loop {
            match answers.recv_timeout(SIGNAL_CHECK_INTERVAL) {
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
        // The cause is dropped, because its text may contain a secret.
        let invalid = |_| Error::usage(format!("the address at {url} is not a URL"));
        let response = match body {
            None => agent.run(request.method("GET").body(()).map_err(invalid)?),
            Some(Body::Text(text)) => agent.run(request.method("POST").body(text).map_err(invalid)?),
            Some(Body::Json(document)) => {
                agent.run(request.method("POST").body(document.to_string()).map_err(invalid)?)
            }
        };
        self.read(url, response.map_err(failed)?).map_err(|error| failed(ureq::Error::from(error)))
    }

    fn agent(&self, url: &Url, proxy: Option<ureq::Proxy>) -> Result<Agent> {
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
        // Reading the certificates takes a moment, and plain HTTP does not need them.
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
        if let Some((name, value)) = &self.own_header {
            let value = HeaderValue::try_from(value)
                .map_err(|error| Error::failed(format!("the header {name} cannot be sent")).because(error))?;
            headers.push((name.clone(), value));
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
            redirect: header(LOCATION).filter(|_| response.status().is_redirection()).map(|to| target_of(url, to)),
            retry_after: header(RETRY_AFTER).and_then(|value| value.trim().parse().ok()).map(Duration::from_secs),
            own_headers: response
                .headers()
                .iter()
                .filter(|(name, _)| name.as_str().starts_with("lifeboat-"))
                .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
                .collect(),
            body: Vec::new(),
            is_complete: false,
        };
        if self.body_bytes > 0 {
            let mut body = response.into_body().into_reader();
            body.by_ref().take(self.body_bytes).read_to_end(&mut answer.body)?;
            answer.is_complete = body.read(&mut [0])? == 0;
        }
        Ok(answer)
    }

    /// Returns the error for a failed request `to` an address, without any secret.
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
                    Error::unreachable(format!("{to} closed the connection before its answer was complete"))
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
            // The texts of these errors may contain the address.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Error::usage(format!("the address at {to} is not a URL")),
            error => cannot().because(error),
        }
    }
}

/// Returns the error for a failure of TLS. An untrusted certificate is not worth another attempt.
fn untrusted(to: &str, error: rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) => Error::failed(format!("the certificate of {to} is not trusted"))
            .because(error)
            .hint("if it is correct, add it to the system's trusted certificates, or set SSL_CERT_FILE to its file"),
        _ => Error::unreachable(format!("cannot establish a TLS connection to {to}")).because(error),
    }
}

/// Returns the target of a redirect in the form that messages may show.
fn target_of(url: &Url, location: &str) -> String {
    match location.parse::<Url>() {
        Ok(target) if target.to_string() != url.to_string() => target.to_string(),
        Err(_) if location.starts_with("//") => "another host".to_owned(),
        _ => format!("another path of {url}"),
    }
}

/// Returns a time limit for a message.
fn shown(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{:.1}s", time.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_redirect_is_shown_without_its_path() {
        let url: Url = "http://app.example/hook/secret".parse().expect("an address");
        assert_eq!(target_of(&url, "https://app.example/hook/secret"), "https://app.example");
        assert_eq!(target_of(&url, "http://app.example/other"), "another path of http://app.example");
        assert_eq!(target_of(&url, "/login?next=secret"), "another path of http://app.example");
        assert_eq!(target_of(&url, "//other.example/secret"), "another host");
    }

    #[test]
    fn bounds_are_shown_as_they_were_given() {
        assert_eq!(shown(Duration::from_secs(10)), "10s");
        assert_eq!(shown(Duration::from_millis(300)), "0.3s");
    }
}
