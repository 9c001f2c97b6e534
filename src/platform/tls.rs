//! Settings that all TLS connections share: the cryptography provider and the trusted certificates.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::CertificateDer;

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
