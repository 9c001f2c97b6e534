//! A proxy for an S3 server that logs and counts requests, and causes faults as its rules say.
//!
//! It speaks HTTP/1.1 on loopback, without TLS. Heads are forwarded byte for byte, because their signature covers them,
//! unless an [`Action`] changes them. Verbs and keys are derived from path-style addresses: `/bucket/key`.

mod http;
mod link;
mod request;
mod sign;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::find;
use link::Link;
use request::Request;

/// The maximum of faults in a row that [`S3Proxy::flaky`] causes for the same request.
pub const MAX_FAULTS_IN_A_ROW: u32 = 3;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Put,
    CreateUpload,
    UploadPart,
    CompleteUpload,
    AbortUpload,
    ListUploads,
    ListParts,
    Get,
    Head,
    List,
    Delete,
    DeleteMany,
    CreateBucket,
    Other,
}

/// A fault in a request or its reply. A cut or a stall never lets a whole body pass, even if its number of bytes is
/// larger than the body. Without a body, it takes place within the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answers with an error in S3's XML. The request's body is read and discarded; the server receives nothing.
    Answer { status: u16, code: &'static str, retry_after: Option<u64> },
    /// Closes the connection before the request's body is read. The server receives nothing.
    CutAtOnce,
    /// Forwards this number of bytes of the request's body, then closes both connections. Nothing of a request without
    /// a body is forwarded.
    CutRequest(u64),
    /// Forwards the reply's head and this number of bytes of its body, then closes both connections.
    CutReply(u64),
    /// Accepts the request and its body, but neither forwards nor answers it.
    StallRequest,
    /// Forwards the reply's head and this number of bytes of its body, then nothing, and keeps the connection open.
    StallReply(u64),
    /// Flips a bit in the middle of the reply's body, or of its first piece if the head does not state a length.
    WrongBytes,
    /// Shortens the reply's body by this number of bytes and changes its Content-Length (also that of HEAD)
    /// accordingly. Chunked replies are not changed.
    ShortBody(u64),
    /// Forwards the request, discards the reply and closes the connection.
    LoseReply,
    /// Answers with the right ETag without forwarding the request. Applies to UploadPart only.
    LosePart,
    /// Waits before the request is forwarded.
    Delay(Duration),
    /// Removes a header, as if the service did not know it. Applies only to requests that have it. If the header is
    /// signed (the SDK signs all of them), [`S3Proxy::sign_with`] is needed too.
    DropHeader(&'static str),
}

/// An action and the requests to which it applies: by default, the next request of any kind.
#[derive(Clone, Debug)]
pub struct Rule {
    verb: Option<Verb>,
    key: Option<String>,
    skip: u32,
    times: u32,
    action: Action,
}

impl Rule {
    /// A rule for all verbs.
    pub fn new(action: Action) -> Self {
        Rule { verb: None, key: None, skip: 0, times: 1, action }
    }

    /// A rule for one verb.
    pub fn on(verb: Verb, action: Action) -> Self {
        Rule { verb: Some(verb), ..Rule::new(action) }
    }

    /// Restricts the rule to requests whose decoded path contains this text.
    pub fn key(self, key: &str) -> Self {
        Rule { key: Some(key.to_owned()), ..self }
    }

    /// Ignores this number of matching requests first; later rules may apply to them.
    pub fn skip(self, skip: u32) -> Self {
        Rule { skip, ..self }
    }

    /// Applies the rule to this number of requests.
    pub fn times(self, times: u32) -> Self {
        Rule { times, ..self }
    }

    /// Applies the rule to all requests from then on.
    pub fn forever(self) -> Self {
        self.times(u32::MAX)
    }

    /// Returns true if the rule is not used up and is meant for this request.
    fn matches(&self, request: &Request) -> bool {
        self.times > 0
            && self.verb.is_none_or(|verb| verb == request.verb)
            && self.key.as_ref().is_none_or(|key| request.path.contains(key))
            && match self.action {
                Action::LosePart => request.verb == Verb::UploadPart,
                Action::DropHeader(name) => request.head.header(name).is_some(),
                _ => true,
            }
    }

    /// Counts a matching request. Returns true if the rule applies to it, and false if it is one of those to skip.
    fn count_match(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.times != u32::MAX {
            self.times -= 1;
        }
        true
    }
}

/// A request in the log, with its progress so far.
#[derive(Clone, Debug)]
pub struct LoggedRequest {
    pub verb: Verb,
    pub method: String,
    /// The decoded path.
    pub path: String,
    /// The query as it was sent, without the question mark.
    pub query: String,
    pub range: Option<String>,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The action that was applied.
    pub action: Option<Action>,
    /// The status that was sent to the client, or `None` if the client has not received a whole head.
    pub status: Option<u16>,
    /// The bytes of the body that were sent to the server.
    pub body_up: u64,
    /// The bytes of the body that were sent to the client.
    pub body_down: u64,
    /// The time at which the head arrived.
    pub at: Instant,
}

impl LoggedRequest {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// A proxy that listens on a free port and forwards requests to another port of this machine. Dropping it closes all
/// connections.
pub struct S3Proxy {
    pub port: u16,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

impl S3Proxy {
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::new(upstream));
        let shared = Arc::clone(&state);
        let listener = thread::spawn(move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            for (number, client) in (0..).zip(listener.incoming()) {
                if shared.is_over() {
                    break;
                }
                let Ok(client) = client else { continue };
                threads.retain(|thread| !thread.is_finished());
                let shared = Arc::clone(&shared);
                threads.push(thread::spawn(move || {
                    // An error only ends the connection.
                    let _ = Link::open(&shared, number, client).and_then(Link::serve);
                    shared.close(number);
                }));
            }
            shared.end();
            for thread in threads {
                let _ = thread.join();
            }
        });
        S3Proxy { port, state, listener: Some(listener) }
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds a rule at the end. The first rule that matches, is not used up and has nothing left to skip is applied, and
    /// the rules after it do not count the request.
    pub fn add(&self, rule: Rule) {
        self.state.rules.lock().unwrap().push(rule);
    }

    /// Removes all rules, and ends [`flaky`](Self::flaky). Stalled connections remain stalled.
    pub fn clear(&self) {
        self.state.rules.lock().unwrap().clear();
        *self.state.flaky.lock().unwrap() = None;
    }

    /// Applies a random fault to a percentage of the requests to which no rule applies: status 500, status 503 with and
    /// without Retry-After, or a cut before, during or instead of the reply.
    ///
    /// The seed and the number of requests so far determine the faults, so a client that sends one request at a time
    /// gets the same faults in each run. No request fails more than [`MAX_FAULTS_IN_A_ROW`] times in a row. Requests
    /// are the same if they have the same verb, path, prefix, part number and end of the range.
    pub fn flaky(&self, seed: u64, percent: u64) {
        *self.state.flaky.lock().unwrap() = Some(Flaky { seed, percent, arrived: 0, in_a_row: HashMap::new() });
    }

    /// Sets the secret key for the new signature that is needed when [`Action::DropHeader`] removes a signed header.
    pub fn sign_with(&self, secret: &str) {
        *self.state.secret.lock().unwrap() = Some(secret.to_owned());
    }

    /// Returns every request so far, including those that the proxy answered, in the order in which their heads
    /// arrived.
    pub fn requests(&self) -> Vec<LoggedRequest> {
        self.state.log.lock().unwrap().requests.clone()
    }

    /// Returns the number of requests with one verb so far.
    pub fn count(&self, verb: Verb) -> usize {
        self.state.log.lock().unwrap().requests.iter().filter(|logged| logged.verb == verb).count()
    }

    /// Clears the log, including requests that are not finished yet.
    pub fn reset(&self) {
        let mut log = self.state.log.lock().unwrap();
        log.first += log.requests.len();
        log.requests.clear();
    }

    /// Returns the number of body bytes that were sent to the client.
    pub fn bytes_down(&self) -> u64 {
        self.state.log.lock().unwrap().requests.iter().map(|logged| logged.body_down).sum()
    }

    /// Returns the number of body bytes that were sent to the server.
    pub fn bytes_up(&self) -> u64 {
        self.state.log.lock().unwrap().requests.iter().map(|logged| logged.body_up).sum()
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        self.state.end();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

/// The state that all connections share.
struct State {
    upstream: u16,
    rules: Mutex<Vec<Rule>>,
    flaky: Mutex<Option<Flaky>>,
    secret: Mutex<Option<String>>,
    log: Mutex<Log>,
    /// The sockets of each connection, which the proxy closes at its end.
    open: Mutex<HashMap<u64, Vec<TcpStream>>>,
    is_over: AtomicBool,
}

/// The logged requests. Those with a number below `first` were removed.
#[derive(Default)]
struct Log {
    first: usize,
    requests: Vec<LoggedRequest>,
}

impl State {
    fn new(upstream: u16) -> Self {
        State {
            upstream,
            rules: Mutex::default(),
            flaky: Mutex::default(),
            secret: Mutex::default(),
            log: Mutex::default(),
            open: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Closes every connection, and new ones too.
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        for socket in self.open.lock().unwrap().values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Registers a socket, so that it is closed when the proxy ends.
    fn register(&self, connection: u64, socket: &TcpStream) -> io::Result<()> {
        let mut open = self.open.lock().unwrap();
        if self.is_over() {
            return Err(cut());
        }
        open.entry(connection).or_default().push(socket.try_clone()?);
        Ok(())
    }

    fn close(&self, connection: u64) {
        for socket in self.open.lock().unwrap().remove(&connection).unwrap_or_default() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Logs a request. Returns its number in the log and the action to apply.
    fn log_and_decide(&self, request: &Request) -> (usize, Option<Action>) {
        let by_rule = self.rules.lock().unwrap().iter_mut().find_map(|rule| {
            let applies = rule.matches(request) && rule.count_match();
            applies.then(|| rule.action.clone())
        });
        let action = by_rule.or_else(|| self.flaky.lock().unwrap().as_mut().and_then(|flaky| flaky.fault(request)));
        let mut log = self.log.lock().unwrap();
        log.requests.push(LoggedRequest {
            verb: request.verb,
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            range: request.head.header("range").map(str::to_owned),
            headers: request.head.headers.clone(),
            action: action.clone(),
            status: None,
            body_up: 0,
            body_down: 0,
            at: Instant::now(),
        });
        (log.first + log.requests.len() - 1, action)
    }

    /// Updates the log entry of a request. This happens before bytes are sent, so that bytes that a client has received
    /// are always counted.
    fn note(&self, number: usize, change: impl FnOnce(&mut LoggedRequest)) {
        let mut log = self.log.lock().unwrap();
        let Some(at) = number.checked_sub(log.first) else { return };
        if let Some(logged) = log.requests.get_mut(at) {
            change(logged);
        }
    }
}

/// Random faults that are the same for the same seed.
struct Flaky {
    seed: u64,
    percent: u64,
    arrived: u64,
    in_a_row: HashMap<String, u32>,
}

impl Flaky {
    /// Returns the fault for a request, if it gets one.
    fn fault(&mut self, request: &Request) -> Option<Action> {
        self.arrived += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.arrived).hash(&mut hasher);
        let (random, percent) = (hasher.finish() / 100, hasher.finish() % 100);
        let in_a_row = self.in_a_row.entry(request.identity()).or_default();
        if percent >= self.percent || *in_a_row == MAX_FAULTS_IN_A_ROW {
            *in_a_row = 0;
            return None;
        }
        *in_a_row += 1;
        Some(match random % 6 {
            0 => Action::Answer { status: 500, code: "InternalError", retry_after: None },
            1 => Action::Answer { status: 503, code: "SlowDown", retry_after: None },
            2 => Action::Answer { status: 503, code: "SlowDown", retry_after: Some(0) },
            3 => Action::CutAtOnce,
            4 => Action::CutReply(1 << (random / 6 % 24)),
            _ => Action::LoseReply,
        })
    }
}

/// Returns the error that ends a connection.
fn cut() -> io::Error {
    ErrorKind::ConnectionAborted.into()
}
