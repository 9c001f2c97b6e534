//! A real HTTP server for tests that does to each request what it is told to, good or bad.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub method: String,
    pub target: String,
    /// The header lines.
    pub headers: Vec<String>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// Method and target.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// A server at a port of its own, until it is dropped.
pub struct Web {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicBool>,
}

impl Web {
    /// Starts a server that calls `act` with the number of the request (from 1 on), the request and the connection,
    /// which is closed afterwards.
    pub fn start(act: impl Fn(usize, &Seen, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let web = Web { port: listener.local_addr().unwrap().port(), seen: Arc::default(), ended: Arc::default() };
        let (seen, ended, act) = (Arc::clone(&web.seen), Arc::clone(&web.ended), Arc::new(act));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, act) = (Arc::clone(&seen), Arc::clone(&act));
                thread::spawn(move || {
                    let Ok(request) = read_request(&stream) else { return };
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(request.clone());
                        seen.len()
                    };
                    // Whoever asked may be gone.
                    let _ = act(number, &request, &mut stream);
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
        web
    }

    /// Starts a server that gives the answers in turn, and the last of them from then on.
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

    /// All requests until now.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and target of all requests until now.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// Waits until a request has come.
    pub fn wait_for_request(&self) {
        let start = Instant::now();
        while self.seen.lock().unwrap().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(20), "no request came");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Says nothing until the other end goes.
pub fn hang(stream: &mut TcpStream) -> io::Result<()> {
    while stream.read(&mut [0; 512])? > 0 {}
    Ok(())
}

/// A whole answer.
pub fn answer(status: &str, content_type: &str, body: &str) -> String {
    let bytes = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// A redirect.
pub fn redirect(status: &str, location: &str) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

pub fn read_request(stream: &TcpStream) -> io::Result<Seen> {
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
    let mut seen = Seen {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        headers: lines.split_off(1.min(lines.len())),
        body: String::new(),
    };
    let bytes = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; bytes];
    from.read_exact(&mut body)?;
    seen.body = String::from_utf8(body).unwrap();
    Ok(seen)
}
