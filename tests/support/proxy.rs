//! A way to a server that breaks: cut, or silent, after so many bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What becomes of connections once so many bytes have passed, both ways and all connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Never,
    /// All end, and new ones too.
    Cut(u64),
    /// Those that are open pass nothing on any more; new ones are well.
    Stall(u64),
    /// Nothing passes any more.
    StallAll(u64),
}

struct State {
    trouble: Trouble,
    passed: AtomicU64,
    is_over: AtomicBool,
}

impl State {
    fn is_troubled(&self) -> bool {
        let passed = self.passed.load(Ordering::SeqCst);
        match self.trouble {
            Trouble::Never => false,
            Trouble::Cut(limit) | Trouble::Stall(limit) | Trouble::StallAll(limit) => passed >= limit,
        }
    }
}

/// Listens on a port of its own and passes everything on to a port of this machine; gone when dropped.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
    listener: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(to: u16, trouble: Trouble) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State { trouble, passed: AtomicU64::new(0), is_over: AtomicBool::new(false) });
        let own = Arc::clone(&state);
        let listener = thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if own.is_over.load(Ordering::SeqCst) {
                    break;
                }
                if own.is_troubled() && matches!(own.trouble, Trouble::Cut(_)) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                // A connection that begins when others stall already is well.
                let well = own.is_troubled() && matches!(own.trouble, Trouble::Stall(_));
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let own = Arc::clone(&own);
                    thread::spawn(move || pump(from, to, &own, well));
                }
            }
        });
        Proxy { port, state, listener: Some(listener) }
    }

    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

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
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, well: bool) {
    let _ = from.set_read_timeout(Some(Duration::from_millis(20)));
    let mut buffer = [0; 4096];
    loop {
        let over = state.is_over.load(Ordering::SeqCst);
        if over || (!well && state.is_troubled() && matches!(state.trouble, Trouble::Cut(_))) {
            break;
        }
        if !well && state.is_troubled() {
            thread::sleep(Duration::from_millis(20));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                state.passed.fetch_add(length as u64, Ordering::SeqCst);
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
