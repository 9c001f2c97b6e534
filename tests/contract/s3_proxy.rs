//! Tests of the proxy that the S3 tests use: those tests prove something only if the proxy works as described.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::s3_proxy::{Action, LoggedRequest, MAX_FAULTS_IN_A_ROW, Rule, S3Proxy, Verb};

const OBJECT_BYTES: usize = 200_000;

fn object() -> Vec<u8> {
    (0..OBJECT_BYTES).map(|at| (at % 251) as u8).collect()
}

/// A head and the body after it.
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

/// Reads a head. Returns an empty text at the end of the connection.
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

/// A server that has one object and records the requests that it receives.
struct Upstream {
    port: u16,
    requests: Arc<Mutex<Vec<Message>>>,
    connections: Arc<Mutex<usize>>,
}

impl Upstream {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Upstream { port, requests: Arc::default(), connections: Arc::default() };
        let (requests, connections) = (Arc::clone(&server.requests), Arc::clone(&server.connections));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                *connections.lock().unwrap() += 1;
                let requests = Arc::clone(&requests);
                thread::spawn(move || serve(client, &requests));
            }
        });
        server
    }

    /// Returns the number of requests that the server has received.
    fn request_count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn serve(mut client: TcpStream, requests: &Mutex<Vec<Message>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    loop {
        let mut request = Message { head: read_head(&mut reader), body: Vec::new() };
        if request.head.is_empty() {
            return;
        }
        if request.head.contains("/refused") {
            // This answer is sent before the body has arrived.
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
        requests.lock().unwrap().push(request);
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

/// A client with one connection.
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

    fn send(&mut self, request_line: &str, headers: &str, body: &[u8]) {
        let length = if headers.contains("Transfer-Encoding") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!("{request_line} HTTP/1.1\r\nHost: example\r\n{headers}{length}\r\n");
        // The proxy may close the connection before everything is written.
        let _ = self.reader.get_mut().write_all(head.as_bytes()).and_then(|()| self.reader.get_mut().write_all(body));
    }

    /// Reads a reply. Returns true as the second value if the reply is complete.
    fn receive(&mut self, request_line: &str) -> (Message, bool) {
        let mut reply = Message { head: read_head(&mut self.reader), body: Vec::new() };
        if !reply.head.ends_with("\r\n\r\n") {
            return (reply, false);
        }
        let is_complete = request_line.starts_with("HEAD") || read_body(&mut self.reader, &mut reply).is_ok();
        (reply, is_complete)
    }

    /// Sends a request and reads the reply.
    fn ask(&mut self, request_line: &str, headers: &str, body: &[u8]) -> (Message, bool) {
        self.send(request_line, headers, body);
        self.receive(request_line)
    }

    /// Sends a request and requires a complete reply.
    #[track_caller]
    fn ok(&mut self, request_line: &str, headers: &str, body: &[u8]) -> Message {
        let (reply, is_complete) = self.ask(request_line, headers, body);
        assert!(is_complete, "{request_line}: {} and {} bytes", reply.head, reply.body.len());
        reply
    }
}

/// Sends one request with one fault. Returns the reply, whether it is complete, and the log entry of the proxy.
fn send_with_fault(
    server: &Upstream,
    action: Action,
    request_line: &str,
    body: &[u8],
) -> (Message, bool, LoggedRequest) {
    let proxy = S3Proxy::start(server.port);
    proxy.add(Rule::new(action.clone()));
    let (reply, is_complete) = Client::new(&proxy).ask(request_line, "", body);
    let mut logged = proxy.requests();
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].action, Some(action));
    // The rule applies only once.
    Client::new(&proxy).ok("GET /b/after", "", b"");
    (reply, is_complete, logged.remove(0))
}

#[test]
fn requests_of_one_connection_pass_unchanged_and_are_counted() {
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
    let received = server.requests.lock().unwrap().clone();
    assert!(received[0].head.contains("X-Odd:  kept \r\n") && received[2].body == body, "{}", received[0].head);
    assert_eq!((received[7].body.as_slice(), received[8].body.as_slice()), (&b"hello world"[..], &b"late"[..]));
    let logged = proxy.requests();
    assert_eq!((logged[0].verb, logged[0].path.as_str()), (Verb::UploadPart, "/b/a b"));
    assert_eq!((logged[3].range.as_deref(), logged[3].status), (Some("bytes=0-"), Some(200)));
    assert_eq!((logged[7].body_up, logged[4].body_down, logged[5].body_down), (11, 200_000, 0));
    assert_eq!((proxy.bytes_up(), proxy.bytes_down()), (600_015, 400_000));
    proxy.reset();
    assert_eq!((proxy.requests().len(), proxy.bytes_up()), (0, 0));
}

#[test]
fn the_verb_is_derived_from_method_and_query() {
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
    for (request_line, _) in cases {
        client.ok(request_line, "", b"");
    }
    let verbs: Vec<_> = proxy.requests().iter().map(|logged| logged.verb).collect();
    assert_eq!(verbs, cases.map(|(_, verb)| verb));
}

#[test]
fn requests_that_the_proxy_answers_do_not_reach_the_server() {
    let (server, body) = (Upstream::start(), object());
    let proxy = S3Proxy::start(server.port);
    proxy.add(
        Rule::on(Verb::Put, Action::Answer { status: 503, code: "SlowDown", retry_after: Some(0) }).skip(1).times(2),
    );
    proxy.add(
        Rule::new(Action::Answer { status: 403, code: "AccessDenied", retry_after: None }).key("no entry").forever(),
    );
    let mut client = Client::new(&proxy);
    let replies: Vec<_> = (0..4).map(|_| client.ok("PUT /b/k", "", &body)).collect();
    assert_eq!(replies.iter().map(Message::status).collect::<Vec<_>>(), ["200", "503", "503", "200"]);
    assert_eq!(replies[1].header("Retry-After"), Some("0"));
    assert!(String::from_utf8_lossy(&replies[1].body).contains("<Code>SlowDown</Code>"));
    for _ in 0..3 {
        assert_eq!(client.ok("HEAD /b/no%20entry", "", b"").status(), "403");
    }
    client.send("PUT /b/no%20entry", "Expect: 100-continue\r\n", b"late");
    assert_eq!(read_head(&mut client.reader), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.receive("").0.status(), "403");
    assert_eq!((server.request_count(), proxy.bytes_up()), (2, 2 * body.len() as u64));
    proxy.clear();
    assert_eq!(client.ok("HEAD /b/no%20entry", "", b"").status(), "200");

    // The ETag is the MD5 of "hello world", for a plain body and for one that the SDK streams.
    proxy.add(Rule::new(Action::LosePart).times(2));
    let part = "PUT /b/k?partNumber=1&uploadId=u";
    let chunks = b"5;chunk-signature=0\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
    client.ok("PUT /b/k", "", b"hello world");
    let plain = client.ok(part, "", b"hello world");
    let streamed = client.ok(part, "Content-Encoding: aws-chunked\r\n", chunks);
    for lost in [plain, streamed] {
        assert_eq!(lost.header("ETag"), Some("\"5eb63bbbe01eeed093cb22bb8f5acdc3\""));
    }
    assert_eq!(server.request_count(), 4);
}

#[test]
fn connections_are_cut_at_the_specified_byte() {
    let (server, body) = (Upstream::start(), object());
    let (reply, _, logged) = send_with_fault(&server, Action::CutAtOnce, "PUT /b/k", &body);
    assert_eq!((reply.head.as_str(), logged.status, logged.body_up, server.request_count()), ("", None, 0, 1));
    let (reply, _, logged) = send_with_fault(&server, Action::CutRequest(70_000), "PUT /b/k", &body);
    assert_eq!((reply.head.as_str(), logged.status, logged.body_up, server.request_count()), ("", None, 70_000, 2));
    let (_, _, logged) = send_with_fault(&server, Action::CutRequest(u64::MAX), "PUT /b/k", &body);
    assert_eq!((logged.body_up, server.request_count()), (199_999, 3));
    let (_, is_complete, _) = send_with_fault(&server, Action::CutRequest(0), "GET /b/k", b"");
    assert_eq!((is_complete, server.request_count()), (false, 4));

    for (request_line, most, length) in [
        ("GET /b/k", 0, 0),
        ("GET /b/k", 70_000, 70_000),
        ("GET /b/k", u64::MAX, 199_999),
        ("GET /b/chunked", 70_001, 70_001),
        ("GET /b/chunked", u64::MAX, 200_000),
    ] {
        let (reply, is_complete, logged) = send_with_fault(&server, Action::CutReply(most), request_line, b"");
        assert_eq!((reply.status(), is_complete, logged.body_down), ("200", false, length), "{request_line} {most}");
        if !request_line.contains("chunked") {
            assert_eq!(reply.body, body[..usize::try_from(length).unwrap()]);
        }
    }
    let before = server.request_count();
    for (action, request_line) in
        [(Action::CutReply(0), "PUT /b/k"), (Action::LoseReply, "PUT /b/k"), (Action::LoseReply, "GET /b/k")]
    {
        let (reply, is_complete, logged) = send_with_fault(&server, action, request_line, b"x");
        assert!(!is_complete && logged.status.is_none() && !reply.head.ends_with("\r\n\r\n"));
    }
    // The server executed each of them, and the request after it.
    assert_eq!(server.request_count(), before + 6);
}

#[test]
fn stalls_last_until_the_client_or_the_proxy_closes_the_connection() {
    let (server, body) = (Upstream::start(), object());
    let proxy = S3Proxy::start(server.port);
    proxy.add(Rule::on(Verb::Put, Action::StallRequest).forever());
    proxy.add(Rule::on(Verb::Get, Action::StallReply(70_000)).forever());
    proxy.add(Rule::on(Verb::Delete, Action::Delay(Duration::from_secs(3600))));
    let clients = ["PUT /b/k", "GET /b/k", "GET /b/chunked", "DELETE /b/k"].map(|request_line| {
        let mut client = Client::new(&proxy);
        client.send(request_line, "", &body);
        if request_line.starts_with("GET") {
            assert_eq!(read_head(&mut client.reader).split(' ').nth(1), Some("200"));
            client.reader.read_exact(&mut [0; 70_000]).unwrap();
        }
        client.reader.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let more = client.reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(more.kind(), std::io::ErrorKind::WouldBlock, "{request_line}");
        client.reader.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    });
    assert_eq!(server.request_count(), 2);
    let start = Instant::now();
    drop(proxy);
    for mut client in clients {
        assert_ne!(client.reader.read(&mut [0; 16]).ok(), Some(16));
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn requests_and_replies_are_changed_as_specified() {
    let (server, body) = (Upstream::start(), object());
    for request_line in ["GET /b/k", "GET /b/chunked"] {
        let (reply, is_complete, _) = send_with_fault(&server, Action::WrongBytes, request_line, b"");
        let wrong: Vec<_> = (0..body.len()).filter(|at| reply.body[*at] != body[*at]).collect();
        assert!(is_complete && reply.body.len() == body.len() && wrong.len() == 1, "{request_line} {wrong:?}");
        assert!(request_line.contains("chunked") || wrong == [100_000], "{wrong:?}");
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
    let received = server.requests.lock().unwrap().last().unwrap().clone();
    assert_eq!((received.header("If-None-Match"), received.header("X-After")), (None, Some("1")));
    let start = Instant::now();
    client.ok("PUT /b/k", "", b"");
    assert!(start.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_refusal_before_the_end_of_the_body_reaches_the_client() {
    let server = Upstream::start();
    let proxy = S3Proxy::start(server.port);
    let body = vec![0; 8 << 20];
    assert_eq!(Client::new(&proxy).ask("PUT /b/refused", "", &body).0.status(), "403");
    // A client that waits for `100 Continue` and is refused sends no body, and the proxy does not wait for it.
    let mut client = Client::new(&proxy);
    let head = "PUT /b/refused HTTP/1.1\r\nHost: example\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    client.reader.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(client.receive("").0.status(), "403");
    assert_eq!(client.reader.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_client_that_retries_gets_through_a_flaky_proxy() {
    let server = Upstream::start();
    let run = |seed| {
        let proxy = S3Proxy::start(server.port);
        proxy.flaky(seed, 40);
        let mut client = Client::new(&proxy);
        for number in 0..100 {
            let request_line = format!("GET /b/{}", number % 7);
            let is_through = (0..=MAX_FAULTS_IN_A_ROW).any(|_| {
                let (reply, is_complete) = client.ask(&request_line, "", b"");
                if !is_complete {
                    client = Client::new(&proxy);
                }
                is_complete && reply.status() == "200"
            });
            assert!(is_through, "{request_line}");
        }
        proxy.requests().into_iter().map(|logged| logged.action).collect::<Vec<_>>()
    };
    let (first, same_seed, other_seed) = (run(1), run(1), run(2));
    assert!(first == same_seed && first != other_seed);
    let fault_percent = first.iter().flatten().count() * 100 / first.len();
    assert!((25..50).contains(&fault_percent), "{fault_percent} percent");
}
