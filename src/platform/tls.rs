//! Settings that all TLS connections share: the cryptography provider and the trusted certificates.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::platform::error::{Error, Result};

/// Returns the cryptography provider: ring.
#[must_use]
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// Returns the certificates that the system trusts, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Fails if
/// there are none.
pub(crate) fn system_certificates() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Some systems contain certificates that rustls cannot use.
    let usable: Vec<_> = found.certs.into_iter().filter(|one| store.add(one.clone()).is_ok()).collect();
    if !usable.is_empty() {
        return Ok(usable);
    }
    let error = Error::usage("the system has no trusted certificates");
    Err(match found.errors.into_iter().next() {
        Some(cause) => error.because(cause),
        None => error.hint("install ca-certificates, or name a file of certificates with SSL_CERT_FILE"),
    })
}

/// Reads the certificates of a text in PEM format. Fails if there is none, or if one cannot be used.
pub(crate) fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| Error::usage("it is not valid PEM").because(error))?;
    if found.is_empty() {
        return Err(Error::usage("it contains no certificate in PEM format"));
    }
    let mut store = RootCertStore::empty();
    for certificate in &found {
        store.add(certificate.clone()).map_err(|error| Error::usage("a certificate cannot be used").because(error))?;
    }
    Ok(found)
}

/// Returns settings that trust the issuers in `trusted`, and also servers whose own certificate is among them: a
/// self-signed certificate, as `openssl req -x509` makes it.
pub(crate) fn client_config(trusted: Vec<CertificateDer<'static>>) -> Result<ClientConfig> {
    let cannot = |error: &dyn StdError| Error::failed("cannot set up TLS").because(error.to_string());
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(trusted.iter().cloned());
    let issued = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider()).build();
    let verifier = Verifier { issued: issued.map_err(|error| cannot(&error))?, trusted };
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| cannot(&error))?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Returns true if a connection failed because of the server's certificate.
pub(crate) fn is_about_certificate(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An I/O error that wraps another error hides it from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// Verifies a server's certificate as webpki does, but also accepts a trusted certificate that is the server's own.
#[derive(Debug)]
struct Verifier {
    issued: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

/// Returns true if webpki refused a certificate only because it may issue others. Its validity was checked before that.
fn is_issuer_as_server(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.to_string().contains("CaUsedAsEndEntity")
        }
        _ => false,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.issued.verify_server_cert(certificate, intermediates, host, ocsp, now) {
            Err(error) if is_issuer_as_server(&error) && self.trusted.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
                Ok(ServerCertVerified::assertion())
            }
            done => done,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issued.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issued.supported_verify_schemes()
    }
}
