//! An HTTP server for tests. A test decides how it answers each request, correctly or not.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A request that the server received.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// The header lines, without the request line.
    pub headers: Vec<String>,
    pub body: String,
    /// The body before it was made text.
    pub bytes: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// Returns method and target.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// A server that listens on a free port until it is dropped.
pub struct Web {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    is_over: Arc<AtomicBool>,
}

impl Web {
    /// Starts a server that calls `handle` with the number of the request (from 1 on), the request, and the
    /// connection, and then closes the connection.
    pub fn start(handle: impl Fn(usize, &Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let web = Web { port, requests: Arc::default(), is_over: Arc::default() };
        let (requests, is_over, handle) = (Arc::clone(&web.requests), Arc::clone(&web.is_over), Arc::new(handle));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (requests, handle) = (Arc::clone(&requests), Arc::clone(&handle));
                thread::spawn(move || {
                    let Ok(request) = read_request(&stream) else { return };
                    let number = {
                        let mut requests = requests.lock().unwrap();
                        requests.push(request.clone());
                        requests.len()
                    };
                    // The client may have closed the connection.
                    let _ = handle(number, &request, &mut stream);
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
        web
    }

    /// Starts a server that sends these answers in order, and then repeats the last one.
    pub fn answering(answers: &[String]) -> Self {
        let answers = answers.to_vec();
        Web::start(move |number, _, stream| stream.write_all(answers[(number - 1).min(answers.len() - 1)].as_bytes()))
    }

    /// Starts a server that never answers.
    pub fn hanging() -> Self {
        Web::start(|_, _, stream| hang(stream))
    }

    pub fn url(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}{rest}", self.port)
    }

    /// Returns all requests until now.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Returns method and target of all requests until now.
    pub fn request_lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    /// Waits until the server has received a request.
    pub fn wait_for_request(&self) {
        let start = Instant::now();
        while self.requests.lock().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "the server received no request");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Sends nothing and waits until the client closes the connection.
pub fn hang(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 512])? > 0 {}
    Ok(())
}

/// Returns an answer with status, headers and body.
pub fn answer(status: &str, content_type: &str, body: &str) -> String {
    let bytes = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Returns an answer that redirects to `location`.
pub fn redirect(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Reads one request with its body.
pub fn read_request(stream: &TcpStream) -> io::Result<Request> {
    let mut from = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        headers: lines.split_off(1.min(lines.len())),
        ..Request::default()
    };
    let bytes = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; bytes];
    from.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    request.bytes = body;
    Ok(request)
}
