//! The proxy that S3 tests go through does what it says, else they prove nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::s3_proxy::{Action, MOST_TROUBLES_IN_A_ROW, Rule, S3Proxy, Seen, Verb};

const OBJECT_BYTES: usize = 200_000;

fn object() -> Vec<u8> {
    (0..OBJECT_BYTES).map(|at| (at % 251) as u8).collect()
}

/// A head and what came after it.
#[derive(Clone, Debug, Default)]
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(other, _)| *other == name).map(|(_, v)| v)
    }

    fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// Reads a head; empty at the end.
fn read_head(from: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && from.read_line(&mut head).unwrap_or(0) > 0 {}
    head
}

fn read_body(from: &mut BufReader<TcpStream>, message: &mut Message) -> std::io::Result<()> {
    if message.header("Transfer-Encoding").is_some() {
        loop {
            let mut line = String::new();
            from.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).map_err(|_| std::io::ErrorKind::UnexpectedEof)?;
            let mut chunk = vec![0; usize::try_from(length).unwrap() + 2];
            from.read_exact(&mut chunk)?;
            message.body.extend_from_slice(&chunk[..chunk.len() - 2]);
            if length == 0 {
                return Ok(());
            }
        }
    }
    let length = message.header("Content-Length").map_or(0, |length| length.parse().unwrap());
    from.take(length).read_to_end(&mut message.body)?;
    if message.body.len() as u64 == length { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// A server that knows one object and keeps what it is told.
struct Upstream {
    port: u16,
    told: Arc<Mutex<Vec<Message>>>,
    connections: Arc<Mutex<usize>>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server =
            Upstream { port: listener.local_addr().unwrap().port(), told: Arc::default(), connections: Arc::default() };
        let (told, connections) = (Arc::clone(&server.told), Arc::clone(&server.connections));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                *connections.lock().unwrap() += 1;
                let told = Arc::clone(&told);
                thread::spawn(move || serve(client, &told));
            }
        });
        server
    }

    fn told(&self) -> usize {
        self.told.lock().unwrap().len()
    }
}

fn serve(mut client: TcpStream, told: &Mutex<Vec<Message>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    loop {
        let mut request = Message { head: read_head(&mut reader), body: Vec::new() };
        if request.head.is_empty() {
            return;
        }
        if request.head.contains("/refused") {
            // Before the body has come.
            let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        if request.header("Expect").is_some() {
            client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        }
        if read_body(&mut reader, &mut request).is_err() {
            return;
        }
        let (method, object) = (request.head.split(' ').next().unwrap().to_owned(), object());
        let is_chunked = request.head.contains("/chunked");
        told.lock().unwrap().push(request);
        let mut reply = match method.as_str() {
            "DELETE" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "PUT" | "POST" => b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 0\r\n\r\n".to_vec(),
            _ if is_chunked => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", object.len()).into_bytes(),
        };
        if method == "GET" && is_chunked {
            for chunk in object.chunks(70_000) {
                reply.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                reply.extend_from_slice(chunk);
                reply.extend_from_slice(b"\r\n");
            }
            reply.extend_from_slice(b"0\r\n\r\n");
        } else if method == "GET" {
            reply.extend_from_slice(&object);
        }
        if client.write_all(&reply).is_err() {
            return;
        }
    }
}

/// A client with one connection, opened anew after a trouble.
struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn new(proxy: &S3Proxy) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { reader: BufReader::new(socket) }
    }

    fn send(&mut self, what: &str, headers: &str, body: &[u8]) {
        let length = if headers.contains("Transfer-Encoding") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!("{what} HTTP/1.1\r\nHost: example\r\n{headers}{length}\r\n");
        // A cut may come before all of it is written.
        let _ = self.reader.get_mut().write_all(head.as_bytes()).and_then(|()| self.reader.get_mut().write_all(body));
    }

    /// What came of a reply, and whether that is all of it.
    fn receive(&mut self, what: &str) -> (Message, bool) {
        let mut reply = Message { head: read_head(&mut self.reader), body: Vec::new() };
        if !reply.head.ends_with("\r\n\r\n") {
            return (reply, false);
        }
        let is_whole = what.starts_with("HEAD") || read_body(&mut self.reader, &mut reply).is_ok();
        (reply, is_whole)
    }

    fn ask(&mut self, what: &str, headers: &str, body: &[u8]) -> (Message, bool) {
        self.send(what, headers, body);
        self.receive(what)
    }

    #[track_caller]
    fn ok(&mut self, what: &str, headers: &str, body: &[u8]) -> Message {
        let (reply, is_whole) = self.ask(what, headers, body);
        assert!(is_whole, "{what}: {} and {} bytes", reply.head, reply.body.len());
        reply
    }
}

/// One request with one trouble: what the client got, whether all of it, and what was seen.
fn troubled(server: &Upstream, action: Action, what: &str, body: &[u8]) -> (Message, bool, Seen) {
    let proxy = S3Proxy::start(server.port);
    proxy.add(Rule::new(action.clone()));
    let (reply, is_whole) = Client::new(&proxy).ask(what, "", body);
    let mut seen = proxy.requests();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].action, Some(action));
    // It was one time only.
    Client::new(&proxy).ok("GET /b/after", "", b"");
    (reply, is_whole, seen.remove(0))
}

#[test]
fn requests_of_one_connection_pass_whole_and_are_counted() {
    let (server, body) = (Upstream::start(), object());
    let proxy = S3Proxy::start(server.port);
    let mut client = Client::new(&proxy);
    for _ in 0..3 {
        client.ok("PUT /b/a%20b?partNumber=1&uploadId=u", "X-Odd:  kept \r\n", &body);
    }
    assert_eq!(client.ok("GET /b/a", "Range: bytes=0-\r\n", b"").body, body);
    assert_eq!(client.ok("GET /b/chunked", "", b"").body, body);
    assert_eq!(client.ok("HEAD /b/a", "", b"").header("Content-Length"), Some("200000"));
    assert_eq!(client.ok("DELETE /b/a", "", b"").status(), "204");
    client.send("PUT /b/c", "Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    assert_eq!(client.receive("").0.status(), "200");
    client.send("PUT /b/d", "Expect: 100-continue\r\n", b"late");
    assert_eq!(read_head(&mut client.reader), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.receive("").0.status(), "200");

    assert_eq!(*server.connections.lock().unwrap(), 1);
    let told = server.told.lock().unwrap().clone();
    assert!(told[0].head.contains("X-Odd:  kept \r\n") && told[2].body == body, "{}", told[0].head);
    assert_eq!((told[7].body.as_slice(), told[8].body.as_slice()), (&b"hello world"[..], &b"late"[..]));
    let seen = proxy.requests();
    assert_eq!((seen[0].verb, seen[0].path.as_str()), (Verb::UploadPart, "/b/a b"));
    assert_eq!((seen[3].range.as_deref(), seen[3].status), (Some("bytes=0-"), Some(200)));
    assert_eq!((seen[7].body_up, seen[4].body_down, seen[5].body_down), (11, 200_000, 0));
    assert_eq!((proxy.bytes_up(), proxy.bytes_down()), (600_015, 400_000));
    proxy.reset();
    assert_eq!((proxy.requests().len(), proxy.bytes_up()), (0, 0));
}

#[test]
fn verbs_are_told_from_method_and_query() {
    let server = Upstream::start();
    let proxy = S3Proxy::start(server.port);
    let mut client = Client::new(&proxy);
    let cases = [
        ("PUT /b/k?x-id=PutObject", Verb::Put),
        ("POST /b/k?uploads", Verb::CreateUpload),
        ("PUT /b/k?x-id=UploadPart&partNumber=2&uploadId=u", Verb::UploadPart),
        ("POST /b/k?uploadId=u", Verb::CompleteUpload),
        ("DELETE /b/k?x-id=AbortMultipartUpload&uploadId=u", Verb::AbortUpload),
        ("GET /b?uploads=&prefix=p", Verb::ListUploads),
        ("GET /b/k?x-id=ListParts&uploadId=u", Verb::ListParts),
        ("GET /b/k/l?x-id=GetObject", Verb::Get),
        ("HEAD /b/k", Verb::Head),
        ("GET /b/?list-type=2&prefix=p", Verb::List),
        ("GET /b?prefix=p", Verb::List),
        ("DELETE /b/k", Verb::Delete),
        ("POST /b/?delete", Verb::DeleteMany),
        ("PUT /b", Verb::CreateBucket),
        ("PUT /b/", Verb::CreateBucket),
        ("GET /", Verb::Other),
        ("HEAD /b", Verb::Other),
        ("GET /b?versioning", Verb::Other),
        ("PUT /b?lifecycle", Verb::Other),
        ("DELETE /b", Verb::Other),
    ];
    for (what, _) in cases {
        client.ok(what, "", b"");
    }
    let told: Vec<_> = proxy.requests().iter().map(|seen| seen.verb).collect();
    assert_eq!(told, cases.map(|(_, verb)| verb));
}

#[test]
fn what_the_proxy_answers_the_server_never_hears() {
    let (server, body) = (Upstream::start(), object());
    let proxy = S3Proxy::start(server.port);
    proxy.add(
        Rule::on(Verb::Put, Action::Answer { status: 503, code: "SlowDown", retry_after: Some(0) }).skip(1).times(2),
    );
    proxy.add(
        Rule::new(Action::Answer { status: 403, code: "AccessDenied", retry_after: None }).key("no entry").forever(),
    );
    let mut client = Client::new(&proxy);
    let told: Vec<_> = (0..4).map(|_| client.ok("PUT /b/k", "", &body)).collect();
    assert_eq!(told.iter().map(Message::status).collect::<Vec<_>>(), ["200", "503", "503", "200"]);
    assert_eq!(told[1].header("Retry-After"), Some("0"));
    assert!(String::from_utf8_lossy(&told[1].body).contains("<Code>SlowDown</Code>"));
    for _ in 0..3 {
        assert_eq!(client.ok("HEAD /b/no%20entry", "", b"").status(), "403");
    }
    client.send("PUT /b/no%20entry", "Expect: 100-continue\r\n", b"late");
    assert_eq!(read_head(&mut client.reader), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.receive("").0.status(), "403");
    assert_eq!((server.told(), proxy.bytes_up()), (2, 2 * body.len() as u64));
    proxy.clear();
    assert_eq!(client.ok("HEAD /b/no%20entry", "", b"").status(), "200");

    // The MD5 of "hello world", plain and as the SDK streams it.
    proxy.add(Rule::new(Action::LosePart).times(2));
    let part = "PUT /b/k?partNumber=1&uploadId=u";
    let chunks = b"5;chunk-signature=0\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
    client.ok("PUT /b/k", "", b"hello world");
    let plain = client.ok(part, "", b"hello world");
    let streamed = client.ok(part, "Content-Encoding: aws-chunked\r\n", chunks);
    for lost in [plain, streamed] {
        assert_eq!(lost.header("ETag"), Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
    }
    assert_eq!(server.told(), 4);
}

#[test]
fn cuts_fall_where_they_are_told_to() {
    let (server, body) = (Upstream::start(), object());
    let (reply, _, seen) = troubled(&server, Action::CutAtOnce, "PUT /b/k", &body);
    assert_eq!((reply.head.as_str(), seen.status, seen.body_up, server.told()), ("", None, 0, 1));
    let (reply, _, seen) = troubled(&server, Action::CutRequest(70_000), "PUT /b/k", &body);
    assert_eq!((reply.head.as_str(), seen.status, seen.body_up, server.told()), ("", None, 70_000, 2));
    let (_, _, seen) = troubled(&server, Action::CutRequest(u64::MAX), "PUT /b/k", &body);
    assert_eq!((seen.body_up, server.told()), (199_999, 3));
    let (_, is_whole, _) = troubled(&server, Action::CutRequest(0), "GET /b/k", b"");
    assert_eq!((is_whole, server.told()), (false, 4));

    for (what, most, length) in [
        ("GET /b/k", 0, 0),
        ("GET /b/k", 70_000, 70_000),
        ("GET /b/k", u64::MAX, 199_999),
        ("GET /b/chunked", 70_001, 70_001),
        ("GET /b/chunked", u64::MAX, 200_000),
    ] {
        let (reply, is_whole, seen) = troubled(&server, Action::CutReply(most), what, b"");
        assert_eq!((reply.status(), is_whole, seen.body_down), ("200", false, length), "{what} {most}");
        if !what.contains("chunked") {
            assert_eq!(reply.body, body[..usize::try_from(length).unwrap()]);
        }
    }
    let before = server.told();
    for (action, what) in
        [(Action::CutReply(0), "PUT /b/k"), (Action::LoseReply, "PUT /b/k"), (Action::LoseReply, "GET /b/k")]
    {
        let (reply, is_whole, seen) = troubled(&server, action, what, b"x");
        assert!(!is_whole && seen.status.is_none() && !reply.head.ends_with("\r\n\r\n"));
    }
    // Each of them was done, and so was what came after.
    assert_eq!(server.told(), before + 6);
}

#[test]
fn stalls_last_until_the_client_or_the_proxy_goes() {
    let (server, body) = (Upstream::start(), object());
    let proxy = S3Proxy::start(server.port);
    proxy.add(Rule::on(Verb::Put, Action::StallRequest).forever());
    proxy.add(Rule::on(Verb::Get, Action::StallReply(70_000)).forever());
    proxy.add(Rule::on(Verb::Delete, Action::Delay(Duration::from_secs(3600))));
    let clients = ["PUT /b/k", "GET /b/k", "GET /b/chunked", "DELETE /b/k"].map(|what| {
        let mut client = Client::new(&proxy);
        client.send(what, "", &body);
        if what.starts_with("GET") {
            assert_eq!(read_head(&mut client.reader).split(' ').nth(1), Some("200"));
            client.reader.read_exact(&mut [0; 70_000]).unwrap();
        }
        client.reader.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let more = client.reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(more.kind(), std::io::ErrorKind::WouldBlock, "{what}");
        client.reader.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    });
    assert_eq!(server.told(), 2);
    let start = Instant::now();
    drop(proxy);
    for mut client in clients {
        assert_ne!(client.reader.read(&mut [0; 16]).ok(), Some(16));
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn replies_are_spoiled_where_they_are_told_to_be() {
    let (server, body) = (Upstream::start(), object());
    for what in ["GET /b/k", "GET /b/chunked"] {
        let (reply, is_whole, _) = troubled(&server, Action::WrongBytes, what, b"");
        let wrong: Vec<_> = (0..body.len()).filter(|at| reply.body[*at] != body[*at]).collect();
        assert!(is_whole && reply.body.len() == body.len() && wrong.len() == 1, "{what} {wrong:?}");
        assert!(what.contains("chunked") || wrong == [100_000], "{wrong:?}");
    }
    let proxy = S3Proxy::start(server.port);
    proxy.add(Rule::new(Action::ShortBody(1)).times(2));
    proxy.add(Rule::new(Action::DropHeader("if-none-match")));
    proxy.add(Rule::on(Verb::Put, Action::Delay(Duration::from_millis(100))).skip(1));
    let mut client = Client::new(&proxy);
    assert_eq!(client.ok("GET /b/k", "", b"").body, body[..199_999]);
    assert_eq!(client.ok("HEAD /b/k", "", b"").header("Content-Length"), Some("199999"));
    assert_eq!(client.ok("GET /b/k", "", b"").body, body);
    client.ok("PUT /b/k", "", b"");
    client.ok("PUT /b/k", "If-None-Match: *\r\nX-After: 1\r\n", b"");
    let told = server.told.lock().unwrap().last().unwrap().clone();
    assert_eq!((told.header("If-None-Match"), told.header("X-After")), (None, Some("1")));
    let start = Instant::now();
    client.ok("PUT /b/k", "", b"");
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn an_early_refusal_reaches_the_client() {
    let server = Upstream::start();
    let proxy = S3Proxy::start(server.port);
    let body = vec![0; 8 << 20];
    assert_eq!(Client::new(&proxy).ask("PUT /b/refused", "", &body).0.status(), "403");
    // A client that asks first and is refused sends no body, and is not waited for.
    let mut client = Client::new(&proxy);
    let head = "PUT /b/refused HTTP/1.1\r\nHost: example\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    client.reader.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(client.receive("").0.status(), "403");
    assert_eq!(client.reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_flaky_way_lets_the_patient_through() {
    let server = Upstream::start();
    let run = |seed| {
        let proxy = S3Proxy::start(server.port);
        proxy.flaky(seed, 40);
        let mut client = Client::new(&proxy);
        for number in 0..100 {
            let what = format!("GET /b/{}", number % 7);
            let is_through = (0..=MOST_TROUBLES_IN_A_ROW).any(|_| {
                let (reply, is_whole) = client.ask(&what, "", b"");
                if !is_whole {
                    client = Client::new(&proxy);
                }
                is_whole && reply.status() == "200"
            });
            assert!(is_through, "{what}");
        }
        proxy.requests().into_iter().map(|seen| seen.action).collect::<Vec<_>>()
    };
    let (one, again, other) = (run(1), run(1), run(2));
    assert!(one == again && one != other);
    let hits = one.iter().flatten().count() * 100 / one.len();
    assert!((25..50).contains(&hits), "{hits} percent");
}
