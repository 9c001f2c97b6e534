//! A TCP proxy that closes or stalls its connections after a number of bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The fault that begins when a number of bytes has passed, counted over both directions and all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Never,
    /// Closes all connections, and new ones too.
    Cut(u64),
    /// Stalls the open connections. New ones work.
    Stall(u64),
    /// Stalls all connections, and new ones too.
    StallAll(u64),
    /// Forwards nothing in the first milliseconds of all connections but the first. No number of bytes matters.
    LateStart(u64),
}

struct State {
    trouble: Trouble,
    /// Bytes of the server, and the bytes that clients get in their place.
    replaced: Option<(Vec<u8>, Vec<u8>)>,
    passed: AtomicU64,
    is_over: AtomicBool,
    /// The number of directions of connections that are forwarded.
    forwarded: AtomicU64,
}

impl State {
    fn is_troubled(&self) -> bool {
        let passed = self.passed.load(Ordering::SeqCst);
        match self.trouble {
            Trouble::Never | Trouble::LateStart(_) => false,
            Trouble::Cut(limit) | Trouble::Stall(limit) | Trouble::StallAll(limit) => passed >= limit,
        }
    }
}

/// A proxy that listens on a free port and forwards all bytes to another port of this machine, until it is dropped.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(to: u16, trouble: Trouble) -> Self {
        Self::start_with(to, trouble, None)
    }

    /// Starts a proxy that gives clients other bytes in the place of some bytes of the server. Both must have the same
    /// length.
    pub fn start_replacing(to: u16, bytes: &str, by: &str) -> Self {
        assert_eq!(bytes.len(), by.len());
        Self::start_with(to, Trouble::Never, Some((bytes.into(), by.into())))
    }

    fn start_with(to: u16, trouble: Trouble, replaced: Option<(Vec<u8>, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            trouble,
            replaced,
            passed: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            forwarded: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        let listener = thread::spawn(move || {
            let mut pause = Duration::ZERO;
            for client in listener.incoming().flatten() {
                if shared.is_over.load(Ordering::SeqCst) {
                    break;
                }
                if shared.is_troubled() && matches!(shared.trouble, Trouble::Cut(_)) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                // A connection that begins after the others have stalled works.
                let is_exempt = shared.is_troubled() && matches!(shared.trouble, Trouble::Stall(_));
                for (from, to, is_server) in [(&client, &server, false), (&server, &client, true)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let shared = Arc::clone(&shared);
                    shared.forwarded.fetch_add(1, Ordering::SeqCst);
                    thread::spawn(move || {
                        thread::sleep(pause);
                        forward(from, to, &shared, is_exempt, is_server);
                        shared.forwarded.fetch_sub(1, Ordering::SeqCst);
                    });
                }
                if let Trouble::LateStart(milliseconds) = shared.trouble {
                    pause = Duration::from_millis(milliseconds);
                }
            }
        });
        Proxy { port, state, listener: Some(listener) }
    }

    /// Returns the number of bytes that have passed.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Returns true if the trouble has begun.
    pub fn is_troubled(&self) -> bool {
        self.state.is_troubled()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        // Nothing passes after this, except to a peer that reads nothing.
        let start = Instant::now();
        while self.state.forwarded.load(Ordering::SeqCst) > 0 && start.elapsed() < Duration::from_secs(2) {
            thread::yield_now();
        }
    }
}

/// Forwards one direction of a connection until it ends or the trouble begins.
fn forward(mut from: TcpStream, mut to: TcpStream, state: &State, is_exempt: bool, is_server: bool) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    let mut buffer = [0; 4096];
    loop {
        let is_over = state.is_over.load(Ordering::SeqCst);
        if is_over || (!is_exempt && state.is_troubled() && matches!(state.trouble, Trouble::Cut(_))) {
            break;
        }
        if !is_exempt && state.is_troubled() {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                state.passed.fetch_add(length as u64, Ordering::SeqCst);
                if let Some((bytes, by)) = state.replaced.as_ref().filter(|_| is_server) {
                    for at in 0..length.saturating_sub(bytes.len() - 1) {
                        if buffer[at..].starts_with(bytes) {
                            buffer[at..at + by.len()].copy_from_slice(by);
                        }
                    }
                }
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
