//! What every TLS connection of ours shares: who does the cryptography, and whose certificates are trusted.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::CertificateDer;

use crate::platform::error::{Error, Result};

/// Does the cryptography: ring.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// The certificates that the system trusts (or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name), never none of them.
pub fn system_certificates() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Systems carry some that are of no use to anybody.
    let usable: Vec<_> = found.certs.into_iter().filter(|one| store.add(one.clone()).is_ok()).collect();
    if !usable.is_empty() {
        return Ok(usable);
    }
    let error = Error::usage("the system has no certificates that it trusts");
    Err(match found.errors.into_iter().next() {
        Some(cause) => error.because(cause),
        None => error.hint("install ca-certificates, or name a file of certificates with SSL_CERT_FILE"),
    })
}
