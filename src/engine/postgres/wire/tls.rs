//! TLS to a server, as libpq does it: what `sslmode` asks for, which certificates are trusted, client certificates,
//! and the hash that ties a login to the server's certificate (channel binding).

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

use crate::engine::postgres::wire::certificate::Certificate;
use crate::engine::postgres::wire::copy_stream::{Messages, Rows, Tap};
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::tls;

/// What `sslmode` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where the certificates are that a server's own must come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum RootCertificates {
    /// The usual file, if it is there.
    Usual(Option<PathBuf>),
    /// A file that was named, and must be there.
    File(PathBuf),
    /// Those that the system trusts.
    System,
}

/// All that is asked of TLS.
#[derive(Clone, Debug)]
pub(in crate::engine::postgres) struct TlsParams {
    pub(in crate::engine::postgres) mode: SslMode,
    pub(in crate::engine::postgres) roots: RootCertificates,
    pub(in crate::engine::postgres) certificate: Option<PathBuf>,
    pub(in crate::engine::postgres) key: Option<PathBuf>,
    pub(in crate::engine::postgres) usual_certificate: Option<PathBuf>,
    pub(in crate::engine::postgres) usual_key: Option<PathBuf>,
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
    /// Reads the certificates that `params` name, and fails with [`Kind::Usage`] where that cannot be.
    pub(in crate::engine::postgres) fn new(params: &TlsParams) -> Result<Self> {
        let provider = tls::provider();
        let versions: &[&rustls::SupportedProtocolVersion] = match (params.only_12, params.only_13) {
            (true, true) => return Err(Error::usage("no version of TLS is in the range that is allowed")),
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

    /// What agrees on TLS with one server; `rows` is where the rows of that connection go.
    pub(in crate::engine::postgres) fn handshake(&self, host: &str, rows: Rows) -> Handshake {
        // A name that no certificate can have is told to no server, and matches none.
        let nowhere = ServerName::IpAddress(std::net::Ipv6Addr::UNSPECIFIED.into());
        let host = ServerName::try_from(host.to_owned()).unwrap_or(nowhere);
        Handshake { config: Arc::clone(&self.0), host, rows }
    }

    /// One that reads no file and is never used: a Unix socket needs no TLS.
    pub(in crate::engine::postgres) fn unused() -> Result<Self> {
        Connector::new(&TlsParams {
            mode: SslMode::Disable,
            roots: RootCertificates::Usual(None),
            certificate: None,
            key: None,
            usual_certificate: None,
            usual_key: None,
            no_certificate: true,
            direct: false,
            server_name: false,
            only_13: false,
            only_12: false,
        })
    }
}

/// How much of the server's certificate must be right.
#[derive(Debug)]
enum Trust {
    /// Nothing: it hides what is said from those who only listen.
    Anything,
    /// It comes from one of these; for which host does not matter.
    Issuer(Roots),
    /// It comes from one of these, for the very host.
    IssuerAndHost(Roots),
}

/// Certificates that are trusted.
#[derive(Debug)]
struct Roots {
    store: RootCertStore,
    /// The same as bytes: a server's own certificate may be among them.
    certificates: Vec<CertificateDer<'static>>,
}

/// What the mode and the files that are there ask for. As with libpq, a root certificate that is there is used in
/// every mode.
fn trust(params: &TlsParams) -> Result<Trust> {
    let must = matches!(params.mode, SslMode::VerifyCa | SslMode::VerifyFull);
    let roots = match &params.roots {
        _ if params.mode == SslMode::Disable => None,
        RootCertificates::System => Some(system_roots()?),
        RootCertificates::File(file) => Some(roots_in(file)?),
        RootCertificates::Usual(Some(file)) if file.exists() => Some(roots_in(file)?),
        RootCertificates::Usual(file) if must => {
            let shown = file.as_ref().map_or("~/.postgresql/root.crt".to_owned(), |file| file.display().to_string());
            return Err(Error::usage(format!("there is no root certificate file {shown} to check the server with"))
                .hint("name one with sslrootcert=FILE, or use sslrootcert=system for those that the system trusts"));
        }
        RootCertificates::Usual(_) => None,
    };
    Ok(match (roots, params.mode) {
        (None, _) => Trust::Anything,
        (Some(roots), SslMode::VerifyFull) => Trust::IssuerAndHost(roots),
        (Some(roots), _) => Trust::Issuer(roots),
    })
}

/// The certificates in a PEM file.
fn certificates_in(file: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(file).io(Kind::Usage, || format!("cannot read the {what} {}", file.display()))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(Error::usage(format!("the {what} {} has no certificate in PEM form", file.display()))),
        Err(error) => Err(Error::usage(format!("cannot read the {what} {}", file.display())).because(error)),
    }
}

fn roots_in(file: &Path) -> Result<Roots> {
    const WHAT: &str = "root certificate file";
    let certificates = certificates_in(file, WHAT)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store
            .add(certificate.clone())
            .map_err(|error| Error::usage(format!("cannot use the {WHAT} {}", file.display())).because(error))?;
    }
    Ok(Roots { store, certificates })
}

fn system_roots() -> Result<Roots> {
    let found = tls::system_certificates().map_err(|error| match error.hint {
        Some(_) => error.hint("install ca-certificates, or name a file with sslrootcert=FILE"),
        None => error,
    })?;
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found);
    Ok(Roots { store, certificates: Vec::new() })
}

type ClientCertificate = (PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The certificate to show to a server that asks for one, and its key.
fn client_certificate(params: &TlsParams) -> Result<Option<ClientCertificate>> {
    let usual = params.usual_certificate.clone().filter(|file| file.exists());
    let Some(file) = params.certificate.clone().or(usual) else { return Ok(None) };
    if params.no_certificate || params.mode == SslMode::Disable {
        return Ok(None);
    }
    let key = params.key.clone().or_else(|| params.usual_key.clone()).ok_or_else(|| {
        Error::usage(format!("the client certificate {} has no key", file.display())).hint("name it with sslkey=FILE")
    })?;
    let chain = certificates_in(&file, "client certificate")?;
    let found = std::fs::metadata(&key).io(Kind::Usage, || format!("cannot read the key {}", key.display()))?;
    // libpq's rule: nobody else may read it, but root's may be readable by a group.
    let allowed = if found.uid() == 0 { 0o640 } else { 0o600 };
    if found.permissions().mode() & 0o777 & !allowed != 0 {
        return Err(Error::usage(format!("the key {} may be read by others", key.display()))
            .hint(format!("run 'chmod 600 {}'", key.display())));
    }
    let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
        Error::usage(format!("cannot read the key {}", key.display()))
            .because(error)
            .hint("it must be in PEM form and not encrypted")
    })?;
    Ok(Some((file, chain, secret)))
}

/// Decides whether a server is the one it should be.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Checks that the certificate comes from one of `roots`, or is one of them.
    fn check_issuer(
        &self,
        roots: &Roots,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // A server's self-signed certificate, copied to its clients: rustls knows only certificates of an issuer.
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
            // Certificates of version 1, as an `openssl x509 -req` makes them, are refused before their key is looked
            // at. Where any certificate will do, the key in it will do too.
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

/// A TLS handshake that failed; its cause is the library's own word where there is one.
#[derive(Debug)]
pub(in crate::engine::postgres) struct HandshakeError(io::Error);

impl HandshakeError {
    /// What TLS itself found wrong; None where the connection broke.
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

/// The name of one server, ready to shake hands.
pub(in crate::engine::postgres) struct Handshake {
    config: Arc<ClientConfig>,
    host: ServerName<'static>,
    rows: Rows,
}

/// A connection inside TLS.
pub(in crate::engine::postgres) struct Stream<S>(Tap<tokio_rustls::client::TlsStream<S>>);

impl<S> TlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = HandshakeError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream<S>, HandshakeError>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = tokio_rustls::TlsConnector::from(self.config).connect(self.host, stream);
        let rows = self.rows;
        Box::pin(async move {
            let stream = connecting.await.map_err(HandshakeError)?;
            Ok(Stream(Tap::new(stream, Messages::FromStart, rows)))
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let (_, session) = self.0.get_ref().get_ref();
        let own = session.peer_certificates().and_then(<[_]>::first);
        match own.and_then(|own| Certificate::read(own)?.end_point_hash()) {
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
