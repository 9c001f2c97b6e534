//! TLS to a server, as in libpq: the modes of `sslmode`, trusted certificates, client certificates, and the hash that
//! binds a login to the server's certificate (channel binding).

use std::fmt;
use std::future::Future;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::engine::postgres::wire::auth::Login;
use crate::engine::postgres::wire::certificate::Certificate;
use crate::engine::postgres::wire::copy_stream::{CopyStream, Messages, Rows};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::tls;

/// The modes of `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The source of the trusted root certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum RootCertificates {
    /// The default file, if it exists.
    Default(Option<PathBuf>),
    /// A named file, which must exist.
    File(PathBuf),
    /// The certificates that the system trusts.
    System,
}

/// All settings for TLS.
#[derive(Clone, Debug)]
pub(in crate::engine::postgres) struct TlsParams {
    pub(in crate::engine::postgres) mode: SslMode,
    pub(in crate::engine::postgres) roots: RootCertificates,
    pub(in crate::engine::postgres) certificate: Option<PathBuf>,
    pub(in crate::engine::postgres) key: Option<PathBuf>,
    pub(in crate::engine::postgres) default_certificate: Option<PathBuf>,
    pub(in crate::engine::postgres) default_key: Option<PathBuf>,
    pub(in crate::engine::postgres) no_certificate: bool,
    pub(in crate::engine::postgres) direct: bool,
    pub(in crate::engine::postgres) server_name: bool,
    pub(in crate::engine::postgres) only_13: bool,
    pub(in crate::engine::postgres) only_12: bool,
}

/// Makes TLS connections to one server.
#[derive(Clone)]
pub(in crate::engine::postgres) struct Connector(Arc<ClientConfig>);

impl Connector {
    /// Reads the certificates that `params` names. Fails with [`Kind::Usage`] if they cannot be read or used.
    pub(in crate::engine::postgres) fn new(params: &TlsParams) -> Result<Self> {
        let provider = tls::provider();
        let versions: &[&rustls::SupportedProtocolVersion] = match (params.only_12, params.only_13) {
            (true, true) => {
                return Err(Error::usage("ssl_min_protocol_version is higher than ssl_max_protocol_version"));
            }
            (true, false) => &[&rustls::version::TLS12],
            (false, true) => &[&rustls::version::TLS13],
            (false, false) => rustls::DEFAULT_VERSIONS,
        };
        let verifier = Verifier { trust: trust(params)?, provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| Error::failed("cannot set up TLS").because(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client_certificate(params)? {
            None => builder.with_no_client_auth(),
            Some((file, chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                Error::usage(format!("cannot use the client certificate {}", file.display())).because(error)
            })?,
        };
        config.enable_sni = params.server_name;
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Connector(Arc::new(config)))
    }

    /// Returns the handshake with one server; the rows of that connection go to `rows`.
    pub(in crate::engine::postgres) fn handshake(&self, host: &str, rows: Rows, login: Login) -> Handshake {
        // A name that no certificate can have is not sent to the server, and matches no certificate.
        let no_name = ServerName::IpAddress(std::net::Ipv6Addr::UNSPECIFIED.into());
        let host = ServerName::try_from(host.to_owned()).unwrap_or(no_name);
        Handshake { config: Arc::clone(&self.0), host, rows, login: login.encrypted() }
    }

    /// Returns a connector that reads no file and is never used: a Unix socket needs no TLS.
    pub(in crate::engine::postgres) fn unused() -> Result<Self> {
        Connector::new(&TlsParams {
            mode: SslMode::Disable,
            roots: RootCertificates::Default(None),
            certificate: None,
            key: None,
            default_certificate: None,
            default_key: None,
            no_certificate: true,
            direct: false,
            server_name: false,
            only_13: false,
            only_12: false,
        })
    }
}

/// The required level of trust in the server's certificate.
#[derive(Debug)]
enum Trust {
    /// No check: TLS only protects against passive eavesdropping.
    Anything,
    /// One of these roots issued the certificate; the host does not matter.
    Issuer(Roots),
    /// One of these roots issued the certificate, and it is for this host.
    IssuerAndHost(Roots),
}

/// Trusted certificates.
#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    /// The same certificates as bytes: a server's own certificate may be among them.
    certificates: Vec<CertificateDer<'static>>,
}

/// Returns the level of trust for the mode and the existing files. As in libpq, an existing root certificate file is
/// used in every mode but `disable`.
fn trust(params: &TlsParams) -> Result<Trust> {
    let must_verify = matches!(params.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    let roots = match &params.roots {
        _ if params.mode == SslMode::Disable => None,
        RootCertificates::System => Some(system_roots()?),
        RootCertificates::File(file) => Some(roots_in(file)?),
        RootCertificates::Default(Some(file)) if file.exists() => Some(roots_in(file)?),
        RootCertificates::Default(file) if must_verify => {
            let shown = file.as_ref().map_or("~/.postgresql/root.crt".to_owned(), |file| file.display().to_string());
            return Err(Error::usage(format!(
                "cannot verify the server's certificate: the root certificate file {shown} does not exist"
            ))
            .hint("set sslrootcert=FILE, or use sslrootcert=system to trust the certificates of the system"));
        }
        RootCertificates::Default(_) => None,
    };
    Ok(match (roots, params.mode) {
        (None, _) => Trust::Anything,
        (Some(roots), SslMode::VerifyFull) => Trust::IssuerAndHost(roots),
        (Some(roots), _) => Trust::Issuer(roots),
    })
}

/// Reads the certificates in a PEM file.
fn certificates_in(file: &Path, description: &str) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(file).io(Kind::Usage, || format!("cannot read the {description} {}", file.display()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => {
            Err(Error::usage(format!("the {description} {} contains no certificate in PEM format", file.display())))
        }
        Err(error) => Err(Error::usage(format!("cannot read the {description} {}", file.display())).because(error)),
    }
}

fn roots_in(file: &Path) -> Result<Roots> {
    const DESCRIPTION: &str = "root certificate file";
    let certificates = certificates_in(file, DESCRIPTION)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| Error::usage(format!("cannot use the {DESCRIPTION} {}", file.display())).because(error))?;
    }
    Ok(Roots { store, certificates })
}

fn system_roots() -> Result<Roots> {
    let found = tls::system_certificates().map_err(|error| match error.hint {
        Some(_) => error.hint("install ca-certificates, or set sslrootcert=FILE"),
        None => error,
    })?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found);
    Ok(Roots { store, certificates: Vec::new() })
}

type ClientCertificate = (PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Returns the certificate for a server that requests one, and its key.
fn client_certificate(params: &TlsParams) -> Result<Option<ClientCertificate>> {
    let default = params.default_certificate.clone().filter(|file| file.exists());
    let Some(file) = params.certificate.clone().or(default) else { return Ok(None) };
    if params.no_certificate || params.mode == SslMode::Disable {
        return Ok(None);
    }
    let key = params.key.clone().or_else(|| params.default_key.clone()).ok_or_else(|| {
        Error::usage(format!("the client certificate {} has no key", file.display())).hint("set sslkey=FILE")
    })?;
    let chain = certificates_in(&file, "client certificate")?;
    let found = std::fs::metadata(&key).io(Kind::Usage, || format!("cannot read the key {}", key.display()))?;
    // As in libpq, only the owner may read the key, but a key owned by root may also be readable by its group.
    let allowed = if found.uid() == 0 { 0o640 } else { 0o600 };
    if found.permissions().mode() & 0o777 & !allowed != 0 {
        return Err(Error::usage(format!("the key {} may be read by others", key.display()))
            .hint(format!("run 'chmod 600 {}'", key.display())));
    }
    let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
        Error::usage(format!("cannot read the key {}", key.display()))
            .because(error)
            .hint("it must be in PEM format and not encrypted")
    })?;
    Ok(Some((file, chain, secret)))
}

/// Decides whether a server's certificate is accepted.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Checks that one of `roots` issued the certificate, or that it is one of them.
    fn check_issuer(
        &self,
        roots: &Roots,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // This is a server's self-signed certificate that was copied to its clients; rustls accepts only issued
        // certificates.
        if roots.certificates.contains(certificate) {
            return match Certificate::read(certificate) {
                Some(read) if read.is_valid_at(now) => Ok(()),
                Some(_) => Err(CertificateError::Expired.into()),
                None => Err(CertificateError::BadEncoding.into()),
            };
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, intermediates, now, algorithms)
    }

    /// Checks that the certificate is for this host.
    fn check_host(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        verify_server_name(&parsed, host).or_else(|error| match Certificate::read(certificate) {
            Some(read) if read.common_name_is(&host.to_str()) => Ok(()),
            _ => Err(error),
        })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.trust {
            Trust::Anything => {}
            Trust::Issuer(roots) => self.check_issuer(roots, certificate, intermediates, now)?,
            Trust::IssuerAndHost(roots) => {
                self.check_issuer(roots, certificate, intermediates, now)?;
                Verifier::check_host(certificate, host)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let done = crypto::verify_tls13_signature(message, certificate, signed, algorithms);
        match (done, &self.trust) {
            // Version 1 certificates, as `openssl x509 -req` makes them, are refused before their key is checked. If
            // any certificate is accepted, the key in it is accepted too.
            (Err(rustls::Error::InvalidCertificate(_)), Trust::Anything) => {
                let read = Certificate::read(certificate).ok_or(CertificateError::BadEncoding)?;
                let key = SubjectPublicKeyInfoDer::from(read.public_key);
                crypto::verify_tls13_signature_with_raw_key(message, &key, signed, algorithms)
            }
            (done, _) => done,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A failed TLS handshake; its cause is the library's own error if there is one.
#[derive(Debug)]
pub(in crate::engine::postgres) struct HandshakeError(io::Error);

impl HandshakeError {
    /// Returns the error of TLS itself, or `None` if the connection broke.
    pub(in crate::engine::postgres) fn tls(&self) -> Option<&rustls::Error> {
        self.0.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for HandshakeError {}

/// A handshake with one server, ready to start.
pub(in crate::engine::postgres) struct Handshake {
    config: Arc<ClientConfig>,
    host: ServerName<'static>,
    rows: Rows,
    login: Login,
}

/// A TLS connection.
pub(in crate::engine::postgres) struct Stream<S>(CopyStream<tokio_rustls::client::TlsStream<S>>);

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = HandshakeError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, HandshakeError>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = tokio_rustls::TlsConnector::from(self.config).connect(self.host, stream);
        let (rows, login) = (self.rows, self.login);
        Box::pin(async move {
            let stream = connecting.await.map_err(HandshakeError)?;
            Ok(Stream(CopyStream::new(stream, Messages::FromStart, rows, login)))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref().get_ref();
        let certificate = session.peer_certificates().and_then(<[_]>::first);
        match certificate.and_then(|certificate| Certificate::read(certificate)?.end_point_hash()) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
