//! One connection of a client: forwards its requests to the server and the replies back, and applies the actions.

use std::io::{self, BufReader, ErrorKind, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use md5::{Digest as _, Md5};

use super::http::{AwsChunks, Framing, Head, Piece, is_bodiless, read_body, rewrite};
use super::request::Request;
use super::{Action, LoggedRequest, State, cut};

/// The time that a client may continue to send a body after the server has answered.
const AFTER_EARLY_REPLY: Duration = Duration::from_secs(2);

/// The state of a connection after a reply.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    KeepOpen,
    Close,
    Stall,
}

/// A client's connection and the connection to the server that belongs to it.
pub struct Link<'a> {
    state: &'a State,
    number: u64,
    client: Side,
    server: Option<Side>,
}

/// One end of a connection: the same socket for reading and for writing.
struct Side {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Side {
    fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Side { writer: socket.try_clone()?, reader: BufReader::new(socket) })
    }

    /// Returns true if the other side has closed the connection or has sent data that nobody requested.
    fn is_stale(&self) -> bool {
        let check_silence = || {
            self.writer.set_nonblocking(true)?;
            let is_silent = matches!(self.writer.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
            self.writer.set_nonblocking(false)?;
            Ok::<_, io::Error>(is_silent)
        };
        !self.reader.buffer().is_empty() || !check_silence().unwrap_or(false)
    }
}

impl<'a> Link<'a> {
    pub fn open(state: &'a State, number: u64, client: TcpStream) -> io::Result<Self> {
        state.register(number, &client)?;
        Ok(Link { state, number, client: Side::new(client)?, server: None })
    }

    /// Handles the requests of the client until the connection ends.
    pub fn serve(mut self) -> io::Result<()> {
        while let Some(head) = Head::read(&mut self.client.reader)? {
            let request = Request::new(head)?;
            let (number, action) = self.state.log_and_decide(&request);
            let next = match action {
                Some(Action::CutAtOnce) => Next::Close,
                Some(Action::StallRequest) => {
                    self.send_continue(&request)?;
                    Next::Stall
                }
                Some(Action::Answer { status, code, retry_after }) => {
                    self.send_continue(&request)?;
                    read_body(&mut self.client.reader, request.framing, |_, _| Ok(()))?;
                    self.answer_error(&request, number, status, code, retry_after)?
                }
                Some(Action::LosePart) => self.lose_part(&request, number)?,
                Some(Action::Delay(time)) => {
                    self.wait(time);
                    self.pass(&request, number, None)?
                }
                action => self.pass(&request, number, action.as_ref())?,
            };
            match next {
                Next::KeepOpen if request.head.wants_close() => return Ok(()),
                Next::KeepOpen => {}
                Next::Close => return Ok(()),
                Next::Stall => {
                    // This ends when the client or the proxy closes the connection.
                    io::copy(&mut self.client.reader, &mut io::sink())?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn wait(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.state.is_over() && Instant::now() < end {
            thread::sleep((end - Instant::now()).min(Duration::from_millis(20)));
        }
    }

    /// Sends `100 Continue` if the client waits for it before it sends the body.
    fn send_continue(&mut self, request: &Request) -> io::Result<()> {
        if request.head.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.client.writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(())
    }

    fn answer_error(
        &mut self,
        request: &Request,
        number: usize,
        status: u16,
        code: &str,
        retry_after: Option<u64>,
    ) -> io::Result<Next> {
        let mut headers = "Content-Type: application/xml\r\n".to_owned();
        if let Some(seconds) = retry_after {
            headers += &format!("Retry-After: {seconds}\r\n");
        }
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>the proxy says {code}\
             </Message><RequestId>proxy-{number}</RequestId></Error>"
        );
        let body = if request.method == "HEAD" || is_bodiless(status) { "" } else { &body };
        self.answer(number, status, &headers, body)
    }

    fn answer(&mut self, number: usize, status: u16, headers: &str, body: &str) -> io::Result<Next> {
        let date = chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT");
        let reply = format!(
            "HTTP/1.1 {status} Proxy\r\nDate: {date}\r\nx-amz-request-id: proxy-{number}\r\n{headers}Content-Length: {}\
             \r\n\r\n{body}",
            body.len()
        );
        self.state.note(number, |logged| {
            logged.status = Some(status);
            logged.body_down += body.len() as u64;
        });
        self.client.writer.write_all(reply.as_bytes())?;
        Ok(Next::KeepOpen)
    }

    /// Answers that a part is stored, although it is not.
    fn lose_part(&mut self, request: &Request, number: usize) -> io::Result<Next> {
        self.send_continue(request)?;
        let mut hash = Md5::new();
        let mut chunks = request
            .head
            .header("content-encoding")
            .is_some_and(|value| value.contains("aws-chunked"))
            .then(AwsChunks::default);
        read_body(&mut self.client.reader, request.framing, |bytes, piece| {
            match (&mut chunks, piece) {
                (Some(chunks), Piece::Payload) => chunks.read(bytes, |bytes| hash.update(bytes)),
                (None, Piece::Payload) => hash.update(bytes),
                _ => {}
            }
            Ok(())
        })?;
        let mut headers = format!("ETag: \"{}\"\r\n", hex::encode(hash.finalize()));
        for (name, value) in request.head.headers.iter().filter(|(name, _)| name.starts_with("x-amz-checksum-")) {
            headers += &format!("{name}: {value}\r\n");
        }
        self.answer(number, 200, &headers, "")
    }

    /// Returns the connection to the server, a new one if the last one is stale.
    fn connect(&mut self) -> io::Result<&mut Side> {
        let side = match self.server.take().filter(|side| !side.is_stale()) {
            Some(side) => side,
            None => {
                let socket = TcpStream::connect(("127.0.0.1", self.state.upstream))?;
                self.state.register(self.number, &socket)?;
                Side::new(socket)?
            }
        };
        Ok(self.server.insert(side))
    }

    /// Forwards a request and its reply. Both run at the same time, because a server may answer before it has received
    /// the whole body.
    fn pass(&mut self, request: &Request, number: usize, action: Option<&Action>) -> io::Result<Next> {
        let most_up = match action {
            Some(Action::CutRequest(_)) if request.framing.is_empty() => return Ok(Next::Close),
            Some(Action::CutRequest(most)) => Some(request.framing.less_than_all(*most)),
            _ => None,
        };
        let head = match action {
            Some(Action::DropHeader(name)) => request.without(name, self.state.secret.lock().unwrap().as_deref()),
            _ => request.head.bytes.clone(),
        };
        let state = self.state;
        self.connect()?.writer.write_all(&head)?;
        let Link { client, server: Some(server), .. } = self else { unreachable!("connected above") };
        let (Side { reader: from_client, writer: to_client }, Side { reader: from_server, writer: to_server }) =
            (client, server);
        let (to_client, to_server) = (&*to_client, &*to_server);

        let next = thread::scope(|scope| {
            let (sender, uploaded) = mpsc::channel();
            if request.framing.is_empty() {
                let _ = sender.send(true);
            } else {
                scope.spawn(move || {
                    let count = |length| state.note(number, |logged| logged.body_up += length);
                    let result = pass_up(from_client, to_server, request.framing, most_up, count);
                    if result.is_err() {
                        // The server does not reply without the rest of the body.
                        let _ = to_server.shutdown(Shutdown::Both);
                    }
                    let _ = sender.send(matches!(result, Ok(Upload::Whole)));
                });
            }
            let next = pass_down(from_server, to_client, request, action, |change| state.note(number, change));
            if next.is_ok() && uploaded.recv_timeout(AFTER_EARLY_REPLY) == Ok(true) {
                return next;
            }
            for socket in [to_client, to_server] {
                let _ = socket.shutdown(Shutdown::Both);
            }
            next.and(Ok(Next::Close))
        });
        if !matches!(next, Ok(Next::KeepOpen)) {
            self.server = None;
        }
        next
    }
}

/// The amount of a request's body that the server has accepted.
enum Upload {
    Whole,
    Part,
}

/// Forwards the body of a request. If the server stops accepting it, reads the rest, because the server may have sent
/// its reply already.
fn pass_up(
    from: &mut BufReader<TcpStream>,
    mut to: &TcpStream,
    framing: Framing,
    most: Option<u64>,
    count: impl Fn(u64),
) -> io::Result<Upload> {
    let mut limit = BodyLimit { left: most };
    let mut upload = Upload::Whole;
    read_body(from, framing, |bytes, piece| {
        let (bytes, is_last) = limit.admit(bytes, piece);
        if matches!(upload, Upload::Whole) {
            if piece == Piece::Payload {
                count(bytes.len() as u64);
            }
            if to.write_all(bytes).is_err() {
                upload = Upload::Part;
            }
        }
        if is_last { Err(cut()) } else { Ok(()) }
    })?;
    Ok(upload)
}

/// Forwards a reply to the client and applies the action to it.
fn pass_down(
    from: &mut BufReader<TcpStream>,
    mut to: &TcpStream,
    request: &Request,
    action: Option<&Action>,
    note: impl Fn(&dyn Fn(&mut LoggedRequest)),
) -> io::Result<Next> {
    let (head, status) = loop {
        let head = Head::read(from)?.ok_or_else(cut)?;
        let status = head.first_line.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok()).ok_or_else(cut)?;
        if status >= 200 {
            break (head, status);
        }
        to.write_all(&head.bytes)?;
    };
    let framing = if request.method == "HEAD" || is_bodiless(status) {
        Framing::Length(0)
    } else {
        head.framing()?.unwrap_or(Framing::ToEnd)
    };

    if action == Some(&Action::LoseReply) {
        read_body(from, framing, |_, _| Ok(()))?;
        return Err(cut());
    }
    let is_stall = matches!(action, Some(Action::StallReply(_)));
    let mut limit = BodyLimit { left: None };
    let mut bytes = head.bytes.clone();
    let mut most = u64::MAX;
    match action {
        Some(Action::CutReply(_) | Action::StallReply(_)) if framing.is_empty() => {
            // The head is sent without its empty line, so it is incomplete.
            to.write_all(&bytes[..bytes.len() - 2])?;
            return if is_stall { Ok(Next::Stall) } else { Err(cut()) };
        }
        Some(Action::CutReply(most) | Action::StallReply(most)) => limit.left = Some(framing.less_than_all(*most)),
        Some(Action::ShortBody(less)) => {
            if let Some(length) = head.header("content-length").and_then(|length| length.parse::<u64>().ok()) {
                most = length.saturating_sub(*less);
                bytes = rewrite(&bytes, "content-length", Some(&most.to_string()));
            }
        }
        _ => {}
    }
    note(&|logged| logged.status = Some(status));
    to.write_all(&bytes)?;

    let mut at = 0;
    let mut wrong_at = match framing {
        Framing::Length(length) if action == Some(&Action::WrongBytes) => Some(length / 2),
        _ => None,
    };
    let mut is_cut = false;
    let result = read_body(from, framing, |bytes, piece| {
        if piece == Piece::Payload {
            if action == Some(&Action::WrongBytes) {
                let wrong_at = *wrong_at.get_or_insert(bytes.len() as u64 / 2);
                if let Some(byte) = wrong_at.checked_sub(at).and_then(|at| bytes.get_mut(at as usize)) {
                    *byte ^= 0x10;
                }
            }
            at += bytes.len() as u64;
        }
        let (bytes, is_last) = limit.admit(bytes, piece);
        let bytes = &bytes[..bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX))];
        if piece == Piece::Payload {
            most -= bytes.len() as u64;
            note(&|logged| logged.body_down += bytes.len() as u64);
        }
        to.write_all(bytes)?;
        is_cut = is_last;
        if is_last { Err(cut()) } else { Ok(()) }
    });
    if is_cut && is_stall {
        return Ok(Next::Stall);
    }
    result?;
    if head.wants_close() || framing == Framing::ToEnd { Ok(Next::Close) } else { Ok(Next::KeepOpen) }
}

/// Lets `left` bytes of a body pass, but never its end. Without a number, lets the whole body pass.
struct BodyLimit {
    left: Option<u64>,
}

impl BodyLimit {
    /// Returns the bytes of a piece that may pass, and true if nothing may pass after them.
    fn admit<'b>(&mut self, bytes: &'b [u8], piece: Piece) -> (&'b [u8], bool) {
        match (&mut self.left, piece) {
            (None, _) | (Some(_), Piece::Frame) => (bytes, false),
            (Some(_), Piece::End) => (&[], true),
            (Some(left), Piece::Payload) => {
                let length = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= length as u64;
                (&bytes[..length], *left == 0)
            }
        }
    }
}
