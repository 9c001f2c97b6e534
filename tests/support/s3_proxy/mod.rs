//! A way to an S3 server that counts what passes and breaks on command.
//!
//! HTTP/1.1 on loopback, without TLS. Heads pass as they came, byte for byte, since a signature is made over them; what
//! an [`Action`] changes is the only exception. Verbs and keys are told from path-style addresses: `/bucket/key`.

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

/// What a flaky way does to one request at most, one time after the other.
pub const MOST_TROUBLES_IN_A_ROW: u32 = 3;

/// What a request asks for.
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

/// What is done to a request or its reply. A cut or a stall never lets the whole of a body through, however long it
/// was to be; where there is no body, it falls within the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// An error in S3's XML, without asking the server; the request's body is read and thrown away.
    Answer {
        status: u16,
        code: &'static str,
        retry_after: Option<u64>,
    },
    /// Closes the connection before the request's body is read; nothing reaches the server.
    CutAtOnce,
    /// Passes so many bytes of the request's body on, then closes both sides. Without a body nothing is passed on.
    CutRequest(u64),
    /// Passes the reply's head and so many bytes of its body, then closes.
    CutReply(u64),
    /// Takes the request and its body, tells the server nothing, never answers.
    StallRequest,
    /// Passes the reply's head and so many bytes of its body, then nothing more, the connection kept open.
    StallReply(u64),
    /// Flips a bit in the middle of the reply's body (of its first piece, where no length is given).
    WrongBytes,
    /// Makes the reply's body shorter by so many bytes, and its Content-Length (also HEAD's) agrees. Replies in chunks
    /// stay as they are.
    ShortBody(u64),
    /// The server does what is asked, but its reply is kept back and the connection closed.
    LoseReply,
    /// Answers with the right ETag and never tells the server. Acts on UploadPart only.
    LosePart,
    Delay(Duration),
    /// Removes a header, as if the service did not know it. Acts on requests that have it only. Where the header is
    /// signed (the SDK signs every one), [`S3Proxy::sign_with`] is needed too.
    DropHeader(&'static str),
}

/// Which requests an action befalls: all, the next one only, unless said otherwise.
#[derive(Clone, Debug)]
pub struct Rule {
    verb: Option<Verb>,
    key: Option<String>,
    skip: u32,
    times: u32,
    action: Action,
}

impl Rule {
    pub fn new(action: Action) -> Self {
        Rule { verb: None, key: None, skip: 0, times: 1, action }
    }

    /// A rule for one verb.
    pub fn on(verb: Verb, action: Action) -> Self {
        Rule { verb: Some(verb), ..Rule::new(action) }
    }

    /// Only where the decoded path contains this.
    pub fn key(self, key: &str) -> Self {
        Rule { key: Some(key.to_owned()), ..self }
    }

    /// Lets so many matching requests go (to later rules) first.
    pub fn skip(self, skip: u32) -> Self {
        Rule { skip, ..self }
    }

    pub fn times(self, times: u32) -> Self {
        Rule { times, ..self }
    }

    pub fn forever(self) -> Self {
        self.times(u32::MAX)
    }

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

    /// Whether its time has come, given that it matches.
    fn acts(&mut self) -> bool {
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

/// A request, as far as it has come.
#[derive(Clone, Debug)]
pub struct Seen {
    pub verb: Verb,
    pub method: String,
    /// Decoded.
    pub path: String,
    /// As it was sent, without the question mark.
    pub query: String,
    pub range: Option<String>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was done to it.
    pub action: Option<Action>,
    /// What the client was told; none where no whole head reached it.
    pub status: Option<u16>,
    /// Bytes of the body passed to the server.
    pub body_up: u64,
    /// Bytes of the body passed to the client.
    pub body_down: u64,
    pub at: Instant,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// Listens on a port of its own and passes requests on to a port of this machine; gone when dropped, with all its
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
        let own = Arc::clone(&state);
        let listener = thread::spawn(move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            for (number, client) in (0..).zip(listener.incoming()) {
                if own.is_over() {
                    break;
                }
                let Ok(client) = client else { continue };
                threads.retain(|thread| !thread.is_finished());
                let own = Arc::clone(&own);
                threads.push(thread::spawn(move || {
                    // A connection that fails is one that ends.
                    let _ = Link::open(&own, number, client).and_then(Link::serve);
                    own.close(number);
                }));
            }
            own.end();
            for thread in threads {
                let _ = thread.join();
            }
        });
        S3Proxy { port, state, listener: Some(listener) }
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Adds a rule after those there are. The first that matches, is not used up and has nothing left to skip acts, and
    /// those after it do not see the request.
    pub fn add(&self, rule: Rule) {
        self.state.rules.lock().unwrap().push(rule);
    }

    /// Ends all rules and flakiness. What has stalled stays so.
    pub fn clear(&self) {
        self.state.rules.lock().unwrap().clear();
        *self.state.flaky.lock().unwrap() = None;
    }

    /// Hits so many percent of the requests that no rule hits with a random trouble: 500, 503 with and without
    /// Retry-After, a cut before, during or instead of the reply.
    ///
    /// The seed and the number of requests so far decide, so that a client that asks for one thing at a time meets the
    /// same troubles again. No request is hit more than [`MOST_TROUBLES_IN_A_ROW`] times before it gets through; the
    /// same request is one with the same verb, path, prefix, part number and end of the range.
    pub fn flaky(&self, seed: u64, percent: u64) {
        *self.state.flaky.lock().unwrap() = Some(Flaky { seed, percent, arrived: 0, in_a_row: HashMap::new() });
    }

    /// The secret key to make a signature anew with where [`Action::DropHeader`] takes a signed header away.
    pub fn sign_with(&self, secret: &str) {
        *self.state.secret.lock().unwrap() = Some(secret.to_owned());
    }

    /// Every request so far, also those that the proxy answered, in the order in which their heads came.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.log.lock().unwrap().seen.clone()
    }

    /// How many requests there were so far for one thing.
    pub fn count(&self, verb: Verb) -> usize {
        self.state.log.lock().unwrap().seen.iter().filter(|seen| seen.verb == verb).count()
    }

    /// Forgets what was seen, also of what is still under way.
    pub fn reset(&self) {
        let mut log = self.state.log.lock().unwrap();
        log.first += log.seen.len();
        log.seen.clear();
    }

    /// Bytes of bodies passed to the client.
    pub fn bytes_down(&self) -> u64 {
        self.state.log.lock().unwrap().seen.iter().map(|seen| seen.body_down).sum()
    }

    /// Bytes of bodies passed to the server.
    pub fn bytes_up(&self) -> u64 {
        self.state.log.lock().unwrap().seen.iter().map(|seen| seen.body_up).sum()
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

/// What all connections share.
struct State {
    upstream: u16,
    rules: Mutex<Vec<Rule>>,
    flaky: Mutex<Option<Flaky>>,
    secret: Mutex<Option<String>>,
    log: Mutex<Log>,
    /// The sockets of each connection, to end those that wait.
    open: Mutex<HashMap<u64, Vec<TcpStream>>>,
    is_over: AtomicBool,
}

/// Requests, of which those before `first` are forgotten.
#[derive(Default)]
struct Log {
    first: usize,
    seen: Vec<Seen>,
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

    /// Ends every connection, and those that come.
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        for socket in self.open.lock().unwrap().values().flatten() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Keeps a socket until the connection ends.
    fn keep(&self, connection: u64, socket: &TcpStream) -> io::Result<()> {
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

    /// Notes a request and decides what befalls it; its number in the log.
    fn judge(&self, request: &Request) -> (usize, Option<Action>) {
        let ruled = self.rules.lock().unwrap().iter_mut().find_map(|rule| {
            let acts = rule.matches(request) && rule.acts();
            acts.then(|| rule.action.clone())
        });
        let action = ruled.or_else(|| self.flaky.lock().unwrap().as_mut().and_then(|flaky| flaky.trouble(request)));
        let mut log = self.log.lock().unwrap();
        log.seen.push(Seen {
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
        (log.first + log.seen.len() - 1, action)
    }

    /// Notes what became of a request. Before the bytes go, so that whoever has them finds them counted.
    fn note(&self, number: usize, change: impl FnOnce(&mut Seen)) {
        let mut log = self.log.lock().unwrap();
        let Some(at) = number.checked_sub(log.first) else { return };
        if let Some(seen) = log.seen.get_mut(at) {
            change(seen);
        }
    }
}

/// Troubles at random, the same ones for the same seed.
struct Flaky {
    seed: u64,
    percent: u64,
    arrived: u64,
    in_a_row: HashMap<String, u32>,
}

impl Flaky {
    fn trouble(&mut self, request: &Request) -> Option<Action> {
        self.arrived += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.arrived).hash(&mut hasher);
        let (random, percent) = (hasher.finish() / 100, hasher.finish() % 100);
        let in_a_row = self.in_a_row.entry(request.identity()).or_default();
        if percent >= self.percent || *in_a_row == MOST_TROUBLES_IN_A_ROW {
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

/// The connection is to end here.
fn cut() -> io::Error {
    ErrorKind::ConnectionAborted.into()
}
