//! A bucket of an S3 service in memory, for tests of services that behave in a special way: a test decides how the
//! service answers some requests. Signatures are not checked.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::web::{Request, Web, answer};
use super::{Run, Sandbox};

/// An answer that a test gives instead of the bucket's.
pub type Special = Option<String>;

/// A request to the bucket.
#[derive(Clone, Debug)]
pub struct S3Request {
    pub method: String,
    /// The key in the bucket, decoded.
    pub key: String,
    /// The parameters after the question mark.
    pub query: BTreeMap<String, String>,
    pub is_conditional: bool,
}

impl S3Request {
    pub fn is(&self, method: &str, parameter: &str) -> bool {
        self.method == method && self.query.contains_key(parameter)
    }

    pub fn part_number(&self) -> usize {
        self.query.get("partNumber").map_or(0, |number| number.parse().unwrap())
    }
}

struct Object {
    content: Vec<u8>,
    etag: String,
    modified: SystemTime,
    metadata: Vec<String>,
}

/// The parts of an upload by their numbers, and the metadata of the object.
type PendingUpload = (BTreeMap<usize, Vec<u8>>, Vec<String>);

#[derive(Default)]
struct Content {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, PendingUpload>,
}

/// A service with one bucket, named `bucket`.
pub struct Bucket {
    pub web: Web,
    /// The port to connect to: that of the server, or the one with TLS.
    pub port: u16,
    base: String,
    content: Arc<Mutex<Content>>,
}

impl Bucket {
    pub fn new() -> Self {
        Bucket::below("", |_| None)
    }

    /// Starts a service whose addresses begin with the path `base`. `special` may answer a request itself.
    pub fn below(base: &str, special: impl Fn(&S3Request) -> Special + Send + Sync + 'static) -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let (shared, own_base) = (Arc::clone(&content), base.to_owned());
        let web = Web::start(move |_, request, stream| respond(&shared, &own_base, &special, request, stream));
        Bucket { port: web.port, web, base: base.to_owned(), content }
    }

    /// Starts a service that is also reached with TLS on [`port`](Self::port), with this certificate and key.
    pub fn with_tls(certificate: &Path, key: &Path) -> Self {
        let mut bucket = Bucket::new();
        let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let plain = std::mem::replace(&mut bucket.port, listener.local_addr().unwrap().port());
        // The thread ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // A client that does not trust the certificate breaks the connection off.
                thread::spawn(move || drop(forward(stream, config, plain)));
            }
        });
        bucket
    }

    /// Starts a service that answers some requests in a special way.
    pub fn special(special: impl Fn(&S3Request) -> Special + Send + Sync + 'static) -> Self {
        Bucket::below("", special)
    }

    pub fn endpoint(&self) -> String {
        self.web.url(&self.base)
    }

    /// Returns the URL of a store that does not retry.
    pub fn store(&self) -> String {
        format!("s3://bucket/p?endpoint={}&retries=0", self.endpoint())
    }

    /// Returns the number of requests until now whose line begins with this text.
    pub fn count(&self, start: &str) -> usize {
        self.web.request_lines().iter().filter(|line| line.starts_with(start)).count()
    }

    pub fn keys(&self) -> Vec<String> {
        self.content.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Returns the text of an object.
    pub fn text(&self, key: &str) -> String {
        String::from_utf8(self.content.lock().unwrap().objects[key].content.clone()).unwrap()
    }

    /// Writes an object, as another program does.
    pub fn put(&self, key: &str, content: &str) {
        self.content.lock().unwrap().insert(key, content.as_bytes().to_vec(), "etag".to_owned(), Vec::new());
    }

    /// Removes an object, as a lifecycle rule does.
    pub fn remove(&self, key: &str) {
        assert!(self.content.lock().unwrap().objects.remove(key).is_some(), "there is no {key}");
    }

    /// Returns a command with credentials, and without the AWS settings of the outer environment.
    pub fn command(sandbox: &Sandbox, arguments: &[&str]) -> Command {
        let mut command = sandbox.command(arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") || name.to_string_lossy().to_uppercase().ends_with("_PROXY") {
                command.env_remove(name);
            }
        }
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env("HOME", sandbox.root());
        command.env("AWS_ACCESS_KEY_ID", "key").env("AWS_SECRET_ACCESS_KEY", "secret");
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    pub fn run(sandbox: &Sandbox, arguments: &[&str]) -> Run {
        sandbox.finish(Bucket::command(sandbox, arguments))
    }
}

/// Forwards one request from a TLS connection to a plain one, and its reply back.
fn forward(stream: TcpStream, config: Arc<rustls::ServerConfig>, plain: u16) -> io::Result<()> {
    let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
    let mut client = BufReader::new(rustls::StreamOwned::new(connection, stream));
    let mut server = TcpStream::connect(("127.0.0.1", plain))?;
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 {
            return Ok(());
        }
        server.write_all(line.as_bytes())?;
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    io::copy(&mut client.by_ref().take(body_bytes), &mut server)?;
    let client = client.get_mut();
    io::copy(&mut server, client)?;
    client.conn.send_close_notify();
    client.flush()?;
    client.sock.shutdown(Shutdown::Write)
}

/// Returns an error of the service.
pub fn refusal(status: &str, code: &str, message: &str) -> String {
    answer(status, "application/xml", &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
}

fn respond(
    content: &Mutex<Content>,
    base: &str,
    special: &(impl Fn(&S3Request) -> Special + ?Sized),
    request: &Request,
    stream: &mut TcpStream,
) -> io::Result<()> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let Some(key) = path.strip_prefix(&format!("{base}/bucket")) else {
        return stream.write_all(refusal("404 Not Found", "NoSuchPath", "outside of the bucket").as_bytes());
    };
    let pair =
        |pair: &str| pair.split_once('=').map_or((pair.to_owned(), String::new()), |(n, v)| (n.into(), decoded(v)));
    let request_of = S3Request {
        method: request.method.clone(),
        key: decoded(key.trim_start_matches('/')),
        query: query.split('&').filter(|text| !text.is_empty()).map(pair).collect(),
        is_conditional: request.header("if-none-match").is_some(),
    };
    let reply = match special(&request_of) {
        Some(reply) => reply.into_bytes(),
        None => content.lock().unwrap().answer(&request_of, request),
    };
    stream.write_all(&reply)
}

fn xml(body: &str) -> Vec<u8> {
    answer("200 OK", "application/xml", body).into_bytes()
}

impl Content {
    fn answer(&mut self, request: &S3Request, raw: &Request) -> Vec<u8> {
        let method = request.method.as_str();
        let has = |name: &str| request.query.contains_key(name);
        let id = request.query.get("uploadId").cloned().unwrap_or_default();
        let metadata = || raw.headers.iter().filter(|line| line.to_lowercase().starts_with("x-amz-meta-")).cloned();
        match method {
            "GET" if has("list-type") => self.list(&request.query),
            "GET" if has("uploads") => xml("<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
            "GET" if has("versioning") => xml("<VersioningConfiguration/>"),
            "GET" | "HEAD" => self.read(request, raw.header("range")),
            "POST" if has("uploads") => {
                let id = format!("upload{}", self.uploads.len());
                self.uploads.insert(id.clone(), (BTreeMap::new(), metadata().collect()));
                xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            "PUT" if has("partNumber") => {
                let Some((parts, _)) = self.uploads.get_mut(&id) else {
                    return refusal("404 Not Found", "NoSuchUpload", "no such upload").into_bytes();
                };
                parts.insert(request.part_number(), raw.bytes.clone());
                with_etag(&hex::encode(Md5::digest(&raw.bytes)))
            }
            "POST" if has("uploadId") => {
                let Some((parts, metadata)) = self.uploads.remove(&id) else {
                    return refusal("404 Not Found", "NoSuchUpload", "no such upload").into_bytes();
                };
                if request.is_conditional && self.objects.contains_key(&request.key) {
                    return refusal("412 Precondition Failed", "PreconditionFailed", "it exists").into_bytes();
                }
                let md5s: Vec<u8> = parts.values().flat_map(|part| Md5::digest(part).to_vec()).collect();
                let etag = format!("{}-{}", hex::encode(Md5::digest(&md5s)), parts.len());
                let content = parts.into_values().flatten().collect();
                self.insert(&request.key, content, etag.clone(), metadata);
                xml(&format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"))
            }
            "POST" if has("delete") => {
                for key in raw.body.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next()) {
                    self.objects.remove(key);
                }
                xml("<DeleteResult/>")
            }
            "PUT" => {
                if request.is_conditional && self.objects.contains_key(&request.key) {
                    return refusal("412 Precondition Failed", "PreconditionFailed", "it exists").into_bytes();
                }
                let etag = hex::encode(Md5::digest(&raw.bytes));
                self.insert(&request.key, raw.bytes.clone(), etag.clone(), metadata().collect());
                with_etag(&etag)
            }
            "DELETE" => {
                if has("uploadId") {
                    self.uploads.remove(&id);
                } else {
                    self.objects.remove(&request.key);
                }
                b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec()
            }
            _ => refusal("501 Not Implemented", "NotImplemented", "not implemented").into_bytes(),
        }
    }

    fn insert(&mut self, key: &str, content: Vec<u8>, etag: String, metadata: Vec<String>) {
        self.objects.insert(key.to_owned(), Object { content, etag, modified: SystemTime::now(), metadata });
    }

    fn read(&self, request: &S3Request, range: Option<&str>) -> Vec<u8> {
        let Some(object) = self.objects.get(&request.key) else {
            let mut reply = refusal("404 Not Found", "NoSuchKey", "no such key");
            if request.method == "HEAD" {
                reply = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
            }
            return reply.into_bytes();
        };
        let total = object.content.len();
        let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let range = range.map(|(first, last)| (first.parse().unwrap(), last.parse().unwrap_or(total).min(total - 1)));
        let (status, content) = match range {
            Some((first, last)) => ("206 Partial Content", &object.content[first..=last]),
            None => ("200 OK", &object.content[..]),
        };
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", content.len());
        if let Some((first, last)) = range {
            head.push_str(&format!("Content-Range: bytes {first}-{last}/{total}\r\n"));
        }
        let modified = chrono::DateTime::<chrono::Utc>::from(object.modified).format("%a, %d %b %Y %H:%M:%S GMT");
        head.push_str(&format!("ETag: \"{}\"\r\nLast-Modified: {modified}\r\n", object.etag));
        for line in &object.metadata {
            head.push_str(&format!("{line}\r\n"));
        }
        head.push_str("\r\n");
        let body = if request.method == "HEAD" { &[] } else { content };
        [head.as_bytes(), body].concat()
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Vec<u8> {
        let of = |name: &str| query.get(name).cloned().unwrap_or_default();
        let (prefix, after) = (of("prefix"), of("start-after"));
        let mut folders = std::collections::BTreeSet::new();
        let mut rows = String::new();
        for (key, object) in &self.objects {
            let Some(rest) = key.strip_prefix(&prefix).filter(|_| *key > after) else { continue };
            if let Some((folder, _)) = rest.split_once('/').filter(|_| query.contains_key("delimiter")) {
                folders.insert(format!("{prefix}{folder}/"));
                continue;
            }
            let modified = object.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let modified = chrono::DateTime::from_timestamp(modified.as_secs().try_into().unwrap(), 0).unwrap();
            rows.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>{}</LastModified><Size>{}</Size></Contents>",
                modified.format("%Y-%m-%dT%H:%M:%S.000Z"),
                object.content.len()
            ));
        }
        for folder in folders {
            rows.push_str(&format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
        }
        xml(&format!("<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"))
    }
}

fn with_etag(etag: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nETag: \"{etag}\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}
