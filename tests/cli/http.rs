//! Requests over HTTP: failures, limits, redirects, proxies and certificates.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::network::{SECRET, child_process, closed_port, ms, ok_answer, text_of, url};
use crate::support::have;
use crate::support::web::{Web, answer, hang, read_request, redirect};
use lifeboat::platform::error::Kind;
use lifeboat::platform::http::{Body, Client};
use lifeboat::platform::secret::Secret;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn a_request_contains_its_body_content_type_user_agent_and_credentials() {
    let server = Web::answering(&[ok_answer()]);
    let client = Client::new(ms(5000)).bearer(Secret::new("abc"));
    let reply = client.post(&url(&server.url("/a?b=c")), Body::Json(json!({"x": 1}))).unwrap();
    assert_eq!((reply.status, reply.body.as_slice(), reply.is_complete), (200, b"OK".as_slice(), true));
    assert_eq!(reply.content_type, "text/plain");
    client.post(&url(&server.url("/t")), Body::Text("h\u{e9}llo".to_owned())).unwrap();
    client.get(&url(&format!("http://me:p%40ss@127.0.0.1:{}", server.port))).unwrap();
    let seen = server.requests();
    assert_eq!(server.request_lines(), ["POST /a?b=c", "POST /t", "GET /"]);
    assert_eq!((seen[0].header("content-type"), seen[0].body.as_str()), (Some("application/json"), "{\"x\":1}"));
    assert_eq!(seen[0].header("authorization"), Some("Bearer abc"));
    assert!(seen[0].header("user-agent").unwrap().starts_with("lifeboat/"));
    assert_eq!(
        (seen[1].header("content-type"), seen[1].body.as_str()),
        (Some("text/plain; charset=utf-8"), "h\u{e9}llo")
    );
    // base64 of "me:p@ss"
    assert_eq!(seen[2].header("authorization"), Some("Basic bWU6cEBzcw=="));
}

#[test]
fn a_redirect_is_returned_and_not_followed() {
    let target = Web::answering(&[ok_answer()]);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let server = Web::answering(&[redirect(status, &target.url("/other/T0k3n"))]);
        let client = Client::new(ms(5000));
        let address = url(&server.url("/T0k3n"));
        for reply in [client.get(&address), client.post(&address, Body::Json(json!({"secret": SECRET})))] {
            let reply = reply.unwrap();
            assert_eq!(reply.status.to_string(), status[..3]);
            assert_eq!(reply.redirect, Some(target.url("")));
        }
    }
    assert_eq!(target.request_lines(), [""; 0]);
}

#[test]
fn each_failure_of_a_server_is_reported_within_the_timeout() {
    let refusing = format!("http://127.0.0.1:{}/T0k3n", closed_port());
    let endless_head = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"X-More: yes yes yes yes yes yes yes yes\r\n")?;
        }
    });
    let dripping = Web::start(|_, _, stream| {
        for byte in answer("200 OK", "text/plain", &"x".repeat(10_000)).bytes() {
            stream.write_all(&[byte])?;
            stream.flush()?;
            thread::sleep(ms(10));
        }
        Ok(())
    });
    let hanging_body = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
        hang(stream)
    });
    let cut_body = Web::start(|_, _, stream| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"));
    let ssh = Web::start(|_, _, stream| stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\nand more\r\n\r\n"));
    let (hanging, closing) = (Web::hanging(), Web::start(|_, _, _| Ok(())));
    for (address, words) in [
        (refusing, "refuses the connection"),
        (hanging.url("/T0k3n"), "no answer from"),
        (dripping.url("/T0k3n"), "no answer from"),
        (hanging_body.url("/T0k3n"), "no answer from"),
        (cut_body.url("/T0k3n"), "closed the connection before its answer was complete"),
        (closing.url("/T0k3n"), "closed the connection before its answer was complete"),
        (ssh.url("/T0k3n"), "is not HTTP"),
        (endless_head.url("/T0k3n"), "is not HTTP"),
        (hanging.url("/T0k3n").replace("http:", "https:"), "cannot reach"),
        (ssh.url("/T0k3n").replace("127.0.0.1", "T0k3n@no-such-host.invalid"), "no-such-host.invalid"),
    ] {
        let start = Instant::now();
        let error = Client::new(ms(400)).get(&url(&address)).expect_err(&address);
        let message = error.full_message();
        assert!(start.elapsed() < ms(3000), "{address} took {:?}: {message}", start.elapsed());
        assert!(!format!("{message} {error:?}").contains(SECRET), "{error:?}");
        assert_eq!(error.kind, Kind::Unreachable, "{address}: {message}");
        // The message about a server without TLS depends on the TLS library and is not tested.
        assert!(message.contains(words) || address.starts_with("https:"), "{address}: {message}");
    }
    let error = Client::new(ms(400)).get(&url(&hanging.url("/"))).unwrap_err();
    assert_eq!(error.message, format!("no answer from http://127.0.0.1:{} within 0.4s", hanging.port));
}

#[test]
fn an_endless_response_is_read_up_to_the_limit() {
    let endless = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 8192])?;
        }
    });
    let reply = Client::new(ms(10_000)).get(&url(&endless.url("/"))).unwrap();
    assert_eq!((reply.body.len(), reply.is_complete), (1 << 20, false));
    let reply = Client::new(ms(10_000)).body_bytes(10).get(&url(&endless.url("/"))).unwrap();
    assert_eq!((reply.body.as_slice(), reply.is_complete), (b"xxxxxxxxxx".as_slice(), false));
    // With a limit of 0 bytes, the client does not wait for the body.
    let without_body = Web::start(|_, _, stream| {
        stream.write_all(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")?;
        hang(stream)
    });
    let reply = Client::new(ms(10_000)).body_bytes(0).get(&url(&without_body.url("/"))).unwrap();
    assert_eq!((reply.status, reply.body.len()), (204, 0));
}

/// Requests the URL in the variable `ADDRESS` and prints the result.
#[test]
#[ignore = "it is the other half of the tests of proxies and certificates"]
fn child_sends_a_request() {
    let address = url(&std::env::var("ADDRESS").unwrap());
    match Client::new(ms(5000)).get(&address) {
        Ok(reply) => println!("got {} {}", reply.status, String::from_utf8_lossy(&reply.body)),
        Err(error) => println!("failed: {}: {}", error.kind.name(), error.full_message()),
    }
}

/// Requests an address in a child process with these environment variables. Returns the output of the child process,
/// which must not contain the secret.
#[track_caller]
fn request_in_child(address: &str, variables: &[(&str, &str)]) -> String {
    let variables = [&[("ADDRESS", address)], variables].concat();
    let output = child_process(module_path!(), "child_sends_a_request", &variables).output().unwrap();
    let printed = text_of(&output);
    assert!(!printed.contains(SECRET), "{printed}");
    printed
}

#[test]
fn proxies_are_read_from_the_environment() {
    let proxy = Web::start(|_, request, stream| {
        if request.method != "CONNECT" {
            return stream.write_all(answer("400 Bad Request", "text/plain", "").as_bytes());
        }
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let inner = read_request(stream)?;
        stream.write_all(answer("200 OK", "text/plain", &inner.line().replace(SECRET, "hidden")).as_bytes())
    });
    let address = format!("http://user:T0k3n@127.0.0.1:{}", proxy.port);
    let target = "http://app.invalid:8080/T0k3n?a=b";
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let printed = request_in_child(target, &[(name, &address)]);
        assert!(printed.contains("got 200 GET /hidden?a=b"), "{name}: {printed}");
    }
    let seen = proxy.requests();
    assert_eq!(seen[0].line(), "CONNECT app.invalid:8080");
    // base64 of "user:T0k3n"
    assert_eq!(seen[0].header("proxy-authorization"), Some("Basic dXNlcjpUMGszbg=="));
    // The proxy is not used for another scheme, for a host in NO_PROXY, and for this machine.
    let server = Web::answering(&[ok_answer()]);
    let count = proxy.requests().len();
    assert!(request_in_child(target, &[("HTTPS_PROXY", &address)]).contains("failed: unreachable"));
    let printed = request_in_child(target, &[("HTTP_PROXY", &address), ("NO_PROXY", "other,invalid")]);
    assert!(printed.contains("failed: unreachable"), "{printed}");
    assert!(request_in_child(&server.url("/"), &[("HTTP_PROXY", &address)]).contains("got 200 OK"));
    assert_eq!(proxy.requests().len(), count);
    // A proxy that refuses the request, a port without a proxy, and a kind of proxy that is not supported.
    let refusing = Web::answering(&[answer("407 Proxy Authentication Required", "text/plain", "")]);
    let address = format!("http://user:T0k3n@127.0.0.1:{}", refusing.port);
    let printed = request_in_child(target, &[("HTTP_PROXY", &address)]);
    let through = format!("http://app.invalid:8080 through the proxy 127.0.0.1:{}", refusing.port);
    assert!(printed.contains(&through) && printed.contains("407"), "{printed}");
    let closed = format!("127.0.0.1:{}", closed_port());
    let printed = request_in_child(target, &[("HTTP_PROXY", &format!("http://{closed}"))]);
    assert!(printed.contains(&format!("through the proxy {closed} refuses the connection")), "{printed}");
    let printed = request_in_child(target, &[("HTTP_PROXY", "socks5://T0k3n@127.0.0.1:1")]);
    assert!(printed.contains("failed: usage: HTTP_PROXY"), "{printed}");
}

/// A process that is killed when this is dropped.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_certificate_is_accepted_only_if_the_system_trusts_it() {
    if !have(&["openssl"]) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let port = closed_port().to_string();
    let openssl = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=a lifeboat at home", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out", "certificate.pem"])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{openssl:?}");
    let mut server = Command::new("openssl");
    server.args(["s_server", "-accept", &port, "-cert", "certificate.pem", "-key", "key.pem", "-www", "-quiet"]);
    let server = server.current_dir(&folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = KilledOnDrop(server.spawn().unwrap());
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_err() {
        assert!(start.elapsed() < ms(10_000), "openssl does not listen");
        thread::sleep(ms(10));
    }
    let address = format!("https://localhost:{port}/T0k3n");
    let printed = request_in_child(&address, &[]);
    let words = format!("failed: failed: the certificate of https://localhost:{port} is not trusted");
    assert!(printed.contains(&words), "{printed}");
    let trusted = folder.path().join("certificate.pem");
    let printed = request_in_child(&address, &[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    assert!(printed.contains("got 200"), "{printed}");
    let printed = request_in_child(&address, &[("SSL_CERT_FILE", "/nowhere/ca.pem")]);
    assert!(printed.contains("failed: usage: the system has no trusted certificates"), "{printed}");
}
