//! The HTTP client of the service: TLS by rustls and ring, proxies from the environment, and the certificates that the
//! system trusts or that `AWS_CA_BUNDLE`, `SSL_CERT_FILE` and `SSL_CERT_DIR` name.

use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::client::legacy::{Client, Error as HyperError};
use hyper_util::rt::TokioExecutor;

use super::environment::Environment;
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::tls;

/// The variables that name certificates to trust instead of those of the system.
const CERTIFICATES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The variables that name a proxy.
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Creates the HTTP client.
pub(super) fn http_client(environment: &Environment, connect_timeout: Duration) -> Result<SharedHttpClient> {
    let bundle = match &environment.ca_bundle {
        None => None,
        Some(file) => {
            let cannot = || format!("cannot read the trusted certificates in {}", file.display());
            let pem = std::fs::read(file).io(Kind::Usage, cannot).map_err(|error| error.hint(BUNDLE_HINT))?;
            tls::certificates_in(&pem).map_err(|error| error.context(cannot()).hint(BUNDLE_HINT))?;
            Some(pem)
        }
    };
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_plain = environment.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let names_certificates = bundle.is_some() || CERTIFICATES.iter().any(|name| is_set(name));
    // The SDK's own client refuses a server's self-signed certificate even if it is trusted. The other client connects
    // without a proxy.
    if names_certificates && !is_plain && !PROXIES.iter().any(|name| is_set(name)) {
        return own_client(bundle.as_deref(), connect_timeout);
    }
    let trust = match bundle {
        Some(pem) => TrustStore::empty().with_pem_certificate(pem),
        None => TrustStore::default(),
    };
    let context = TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| Error::failed("cannot set up TLS").because(error))?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .proxy_config(ProxyConfig::from_env())
            .enable_tcp_nodelay(true);
        if let Some(settings) = settings {
            connector = connector.connector_settings(settings.clone());
        }
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    }))
}

const BUNDLE_HINT: &str = "AWS_CA_BUNDLE, or ca_bundle of the profile, must name a file of certificates in PEM format";

/// Creates a client that also accepts a server's own certificate if that is among the trusted ones.
fn own_client(bundle: Option<&[u8]>, connect_timeout: Duration) -> Result<SharedHttpClient> {
    let trusted = match bundle {
        Some(pem) => tls::certificates_in(pem)?,
        None => tls::system_certificates()?,
    };
    let mut tcp = Tcp::new();
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    tcp.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls::client_config(trusted)?);
    let https = https.https_or_http().enable_http1().wrap_connector(tcp);
    let connector = SharedHttpConnector::new(OwnConnector(Client::builder(TokioExecutor::new()).build(https)));
    // All requests have the same timeout for connecting; the timeouts of a whole request are the SDK's.
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// A connector with the trust of [`tls::client_config`].
#[derive(Debug)]
struct OwnConnector(Client<HttpsConnector<Tcp>, SdkBody>);

impl HttpConnector for OwnConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        let response = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let response = response.await.map_err(connector_error)?.map(SdkBody::from_body_1_x);
            HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Converts a failure to send a request. A certificate that is not trusted is not trusted after a retry either.
fn connector_error(error: HyperError) -> ConnectorError {
    if tls::is_about_certificate(&error) {
        return ConnectorError::user(error.into());
    }
    if error.is_connect() {
        return ConnectorError::io(error.into());
    }
    ConnectorError::other(error.into(), Some(ErrorKind::TransientError))
}
