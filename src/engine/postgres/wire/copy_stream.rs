//! Takes the rows of a COPY off a connection before the protocol library sees them.
//!
//! The server sends every row as a separate message. The library makes an object of each message and hands it from task
//! to task, which takes longer than all later processing of the row. So this module reads the stream below the library:
//! the content of `CopyData` messages goes into a buffer, all other messages pass through. (A protocol message is a
//! type byte, then a length that includes its own four bytes, then the content: "Message Formats" in PostgreSQL's
//! documentation.)

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::postgres::wire::auth::Login;

/// The maximum number of bytes that one read takes from the socket.
const INPUT_BYTES: usize = 128 << 10;

/// The number of unprocessed row bytes at which reading from the socket pauses.
const MAX_BUFFERED_BYTES: usize = 256 << 10;

/// The type of the message that starts the rows.
const COPY_OUT_RESPONSE: u8 = b'H';

/// The type of a message that carries rows.
const COPY_DATA: u8 = b'd';

/// The type of the message that reports a completed command; for COPY, it has the number of rows.
const COMMAND_COMPLETE: u8 = b'C';

/// The longest such message that is parsed.
const TAG_BYTES: usize = 64;

/// The type of the message that reports that the server waits for a command; the first one ends the login.
const READY_FOR_QUERY: u8 = b'Z';

/// The type of the messages by which a server asks for a login.
const AUTHENTICATION: u8 = b'R';

/// The type of the message by which a server names its process, for cancel requests (BackendKeyData).
const BACKEND_KEY_DATA: u8 = b'K';

/// The size of a message's type and length.
const HEADER_BYTES: usize = 5;

/// The longest message before the end of the login, as in libpq.
const MAX_LOGIN_MESSAGE_BYTES: usize = 30_000;

/// The maximum number of bytes of all messages before the end of the login: whoever answers has not logged in, and the
/// library keeps their notices.
const MAX_LOGIN_BYTES: usize = 1 << 20;

/// The types of the messages that carry values of a row, or describe its columns. They may have any length.
const OF_ROWS: [u8; 4] = [COPY_DATA, b'D', b'T', b'V'];

/// The types of the messages that carry texts: errors, notices and notifications.
const OF_TEXTS: [u8; 3] = [b'E', b'N', b'A'];

/// The longest message with a text.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// The longest other message.
const MAX_OTHER_BYTES: usize = 1 << 20;

/// The rows taken off one connection, in a buffer that others can read and empty.
#[derive(Clone, Default)]
pub(in crate::engine::postgres) struct Rows(Arc<Mutex<Buffer>>);

/// The rows to keep. All others belong to a COPY that was abandoned, and are discarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keep {
    #[default]
    None,
    /// The rows of the next COPY.
    NextCopy,
    /// The rows of the current COPY.
    CurrentCopy,
}

#[derive(Default)]
struct Buffer {
    keep: Keep,
    rows: Vec<u8>,
    /// The number of bytes in `rows` that have been processed.
    processed: usize,
    /// The number of rows that the server reported at the end.
    reported_rows: Option<u64>,
    /// The process that the server, or a pooler, named in the login.
    process: Option<i32>,
    /// The task that waits for rows.
    consumer: Option<Waker>,
    /// The connection's task, if it waits until rows are processed.
    producer: Option<Waker>,
}

impl Buffer {
    fn unprocessed(&self) -> usize {
        self.rows.len() - self.processed
    }
}

impl Rows {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the rows of the next COPY in `buffer`, which is emptied first.
    pub(in crate::engine::postgres) fn keep_next(&self, buffer: Vec<u8>) {
        self.exchange(buffer, Keep::NextCopy);
    }

    /// Stops keeping rows, and returns the rows that are left.
    pub(in crate::engine::postgres) fn keep_none(&self) -> Vec<u8> {
        self.exchange(Vec::new(), Keep::None)
    }

    fn exchange(&self, mut rows: Vec<u8>, keep: Keep) -> Vec<u8> {
        rows.clear();
        let mut buffer = self.lock();
        (buffer.keep, buffer.processed, buffer.reported_rows) = (keep, 0, None);
        if let Some(producer) = buffer.producer.take() {
            producer.wake();
        }
        std::mem::replace(&mut buffer.rows, rows)
    }

    /// Returns the number of rows once the server has reported it. Until then, `cx` is woken when it does.
    pub(in crate::engine::postgres) fn reported_rows(&self, cx: &Context<'_>) -> Option<u64> {
        let mut buffer = self.lock();
        if buffer.reported_rows.is_none() {
            buffer.consumer = Some(cx.waker().clone());
        }
        buffer.reported_rows
    }

    /// Returns the process that was named in the login.
    pub(in crate::engine::postgres) fn process_of_login(&self) -> Option<i32> {
        self.lock().process
    }

    /// Returns true if there are unprocessed rows. If not, `cx` is woken when some arrive.
    pub(in crate::engine::postgres) fn have_arrived(&self, cx: &Context<'_>) -> bool {
        let mut buffer = self.lock();
        let have_arrived = buffer.unprocessed() > 0;
        if !have_arrived {
            buffer.consumer = Some(cx.waker().clone());
        }
        have_arrived
    }

    /// Passes the buffer to `sink`, which may take all or some of it. Returns the number of new bytes in it.
    pub(in crate::engine::postgres) fn process<E>(
        &self,
        sink: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut buffer = self.lock();
        let new_bytes = buffer.unprocessed();
        sink(&mut buffer.rows)?;
        buffer.processed = buffer.rows.len();
        if let Some(producer) = buffer.producer.take() {
            producer.wake();
        }
        Ok(new_bytes)
    }
}

/// The position in the stream at which messages begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum Messages {
    /// At the first byte.
    FromStart,
    /// After the one-byte answer to a TLS request, if the answer is no; if it is yes, nowhere.
    AfterRefusal,
    /// Nowhere: the stream is encrypted with TLS.
    Nowhere,
}

/// A stream that diverts COPY rows to a buffer.
pub(in crate::engine::postgres) struct CopyStream<S> {
    stream: S,
    messages: Messages,
    rows: Rows,
    input: Box<[u8]>,
    /// The start of the input that has not been processed.
    start: usize,
    end: usize,
    /// The number of bytes of the current message that have not arrived.
    remaining: usize,
    /// The type of the current message.
    kind: u8,
    /// The beginning of the current message, if it is CommandComplete.
    tag: Vec<u8>,
    /// The number of bytes of the messages of the login; `None` after its end.
    login_bytes: Option<usize>,
    /// The rules for the login.
    login: Login,
}

impl<S> CopyStream<S> {
    pub(in crate::engine::postgres) fn new(stream: S, messages: Messages, rows: Rows, login: Login) -> Self {
        let (input, tag) = (Box::default(), Vec::new());
        let login_bytes = Some(0);
        CopyStream { stream, messages, rows, input, start: 0, end: 0, remaining: 0, kind: 0, tag, login_bytes, login }
    }

    /// Returns the underlying stream.
    pub(in crate::engine::postgres) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns the text of an error in the form that a server uses before it has read the version of the protocol: when it
    /// cannot start a process for the connection, for example. What would be the length is the start of the text.
    fn old_error(&self, length: usize) -> Option<String> {
        let is_text = self.kind == b'E' && self.login_bytes.is_some() && length > MAX_LOGIN_MESSAGE_BYTES;
        let text = self.input[self.start + 1..self.end].split(|byte| *byte == 0).next().filter(|_| is_text)?;
        let text = std::str::from_utf8(&text[..text.len().min(1000)]).ok()?;
        Some(format!("the server answers: {}", text.trim_end()))
    }

    /// Fails if the current message is too long for its type or for the login: the library keeps each message in memory
    /// until it is complete.
    fn require_bounded(&mut self, length: usize) -> io::Result<()> {
        let too_long = |what: &str, most: usize| {
            let message = format!("the server sent {what} of more than {most} bytes");
            io::Error::new(io::ErrorKind::InvalidData, message)
        };
        if self.kind == READY_FOR_QUERY {
            self.login_bytes = None;
        }
        if let Some(bytes) = &mut self.login_bytes {
            *bytes = bytes.saturating_add(length);
            return match *bytes {
                _ if length > MAX_LOGIN_MESSAGE_BYTES => {
                    Err(too_long("a message before the end of the login", MAX_LOGIN_MESSAGE_BYTES))
                }
                bytes if bytes > MAX_LOGIN_BYTES => {
                    Err(too_long("messages before the end of the login", MAX_LOGIN_BYTES))
                }
                _ => Ok(()),
            };
        }
        match self.kind {
            kind if OF_ROWS.contains(&kind) => Ok(()),
            kind if OF_TEXTS.contains(&kind) && length > MAX_TEXT_BYTES => Err(too_long("a text", MAX_TEXT_BYTES)),
            kind if !OF_TEXTS.contains(&kind) && length > MAX_OTHER_BYTES => {
                Err(too_long("a message", MAX_OTHER_BYTES))
            }
            _ => Ok(()),
        }
    }

    /// Moves rows from the input to `buffer`, and everything else to `output` as far as it has room. Returns true if
    /// there are new rows or a row count.
    fn separate(&mut self, output: &mut ReadBuf<'_>, buffer: &mut Buffer) -> io::Result<bool> {
        let mut found = false;
        loop {
            let input = &self.input[self.start..self.end];
            if self.remaining == 0 {
                let Some((&[kind, ref length @ ..], _)) = input.split_first_chunk::<HEADER_BYTES>() else { break };
                let length = u32::from_be_bytes(*length) as usize;
                if length < 4 {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the server sent data that is not a message of the PostgreSQL protocol",
                    ));
                }
                let is_of_login = self.login_bytes.is_some() && [AUTHENTICATION, BACKEND_KEY_DATA].contains(&kind);
                if is_of_login && length >= HEADER_BYTES + 3 {
                    let Some((_, number)) = input.split_first_chunk::<HEADER_BYTES>() else { break };
                    let Some(number) = number.first_chunk() else { break };
                    match kind {
                        AUTHENTICATION => self.login.check(u32::from_be_bytes(*number))?,
                        _ => buffer.process = Some(i32::from_be_bytes(*number)),
                    }
                }
                self.kind = kind;
                if let Some(text) = self.old_error(length) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                self.require_bounded(length)?;
                self.tag.clear();
                if kind == COPY_OUT_RESPONSE && buffer.keep != Keep::None {
                    buffer.keep = Keep::CurrentCopy;
                }
                if kind == COPY_DATA {
                    self.start += HEADER_BYTES;
                    self.remaining = length - 4;
                } else {
                    self.remaining = length + 1;
                }
                continue;
            }
            let is_rows = self.kind == COPY_DATA;
            let room = if is_rows { usize::MAX } else { output.remaining() };
            let bytes = &input[..input.len().min(self.remaining).min(room)];
            if bytes.is_empty() {
                break;
            }
            if is_rows {
                if buffer.keep == Keep::CurrentCopy {
                    buffer.rows.extend_from_slice(bytes);
                    found = true;
                }
            } else {
                output.put_slice(bytes);
                if self.kind == COMMAND_COMPLETE && self.tag.len() + bytes.len() <= TAG_BYTES {
                    self.tag.extend_from_slice(bytes);
                }
            }
            self.start += bytes.len();
            self.remaining -= bytes.len();
            if self.remaining == 0 && self.kind == COMMAND_COMPLETE && buffer.keep == Keep::CurrentCopy {
                buffer.reported_rows = reported_rows(&self.tag);
                found |= buffer.reported_rows.is_some();
            }
        }
        Ok(found)
    }
}

/// Returns the number of rows in a message such as `COPY 17`.
fn reported_rows(message: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(message.get(HEADER_BYTES..)?).ok()?;
    text.strip_prefix("COPY ")?.strip_suffix('\0')?.parse().ok()
}

impl<S: AsyncRead + Unpin> CopyStream<S> {
    /// Reads the one-byte answer to a TLS request.
    fn read_answer(&mut self, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut answer = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut answer))?;
        if let [answer] = answer.filled() {
            self.messages = if *answer == b'S' { Messages::Nowhere } else { Messages::FromStart };
            output.put_slice(&[*answer]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CopyStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.messages {
            _ if output.remaining() == 0 => return Poll::Ready(Ok(())),
            Messages::Nowhere => return Pin::new(&mut this.stream).poll_read(cx, output),
            Messages::AfterRefusal => return this.read_answer(cx, output),
            Messages::FromStart => {}
        }
        if this.input.is_empty() {
            this.input = vec![0; INPUT_BYTES].into_boxed_slice();
        }
        let shared = this.rows.clone();
        let (before, mut found) = (output.filled().len(), false);
        let mut buffer = shared.lock();
        let read = loop {
            match this.separate(output, &mut buffer) {
                Ok(some) => found |= some,
                // With an error, a reader must not get bytes. The next call finds the error again.
                Err(_) if output.filled().len() > before => break Poll::Ready(Ok(())),
                Err(error) => break Poll::Ready(Err(error)),
            }
            if output.filled().len() > before {
                break Poll::Ready(Ok(()));
            }
            if buffer.unprocessed() >= MAX_BUFFERED_BYTES {
                buffer.producer = Some(cx.waker().clone());
                break Poll::Pending;
            }
            // The bytes that are left are fewer than a header and a code.
            this.input.copy_within(this.start..this.end, 0);
            (this.start, this.end) = (0, this.end - this.start);
            let mut input = ReadBuf::new(&mut this.input[this.end..]);
            match Pin::new(&mut this.stream).poll_read(cx, &mut input) {
                // The end of the stream; a partial header is not a message.
                Poll::Ready(Ok(())) if input.filled().is_empty() => break Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this.end += input.filled().len(),
                other => break other,
            }
        };
        if found && let Some(consumer) = buffer.consumer.take() {
            consumer.wake();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CopyStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// The message that ends the login.
    const READY: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    /// Sends `bytes` in pieces of `size`. Returns the bytes that pass through, the rows, and the row count.
    fn pass(bytes: Vec<u8>, size: usize, messages: Messages) -> (io::Result<Vec<u8>>, Vec<u8>, Option<u64>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut server, client) = tokio::io::duplex(size);
            let rows = Rows::default();
            rows.keep_next(Vec::new());
            let mut stream = CopyStream::new(client, messages, rows.clone(), Login::default());
            tokio::spawn(async move {
                let _ = server.write_all(&bytes).await;
            });
            let passed = tokio::spawn(async move {
                let mut passed = Vec::new();
                stream.read_to_end(&mut passed).await.map(|_| passed)
            });
            let mut passed = std::pin::pin!(passed);
            let (mut taken, mut reported) = (Vec::new(), None);
            let passed = std::future::poll_fn(|cx| {
                let ended = passed.as_mut().poll(cx);
                while rows.have_arrived(cx) {
                    let new_bytes = rows.process(|buffer| {
                        assert!(buffer.len() < MAX_BUFFERED_BYTES + INPUT_BYTES, "memory has a bound");
                        taken.append(buffer);
                        io::Result::Ok(())
                    });
                    assert!(new_bytes.unwrap() > 0);
                }
                reported = reported.or(rows.reported_rows(cx));
                ended
            });
            let passed = passed.await.unwrap();
            (passed, taken, reported)
        })
    }

    #[test]
    fn rows_are_taken_and_everything_else_passes_however_the_stream_is_cut() {
        let mut stream = [&READY[..], &message(b'H', &[0; 7])].concat();
        let (mut others, mut rows) = (stream.clone(), Vec::new());
        for number in 0..3000usize {
            let row = vec![b'a' + (number % 26) as u8; number % 700];
            rows.extend_from_slice(&row);
            stream.extend(message(b'd', &row));
            if number % 100 == 7 {
                let notice = message(b'N', &vec![b'd'; number]);
                others.extend_from_slice(&notice);
                stream.extend(notice);
            }
        }
        let huge = vec![b'z'; 5 << 20];
        stream.extend(message(b'd', &huge));
        rows.extend_from_slice(&huge);
        for end in [message(b'c', &[]), message(b'C', b"COPY 3001\0"), message(b'Z', b"I")] {
            others.extend_from_slice(&end);
            stream.extend(end);
        }
        for size in [1 << 20, 8192, 613, 3] {
            let (passed, taken, reported) = pass(stream.clone(), size, Messages::FromStart);
            assert_eq!(reported, Some(3001), "{size}");
            assert!(passed.unwrap() == others, "{size}");
            assert!(taken == rows, "{size}");
        }
        for (answer, is_plain) in [(b'N', true), (b'S', false)] {
            // Rows before a COPY begins belong to an earlier COPY.
            let lost = message(b'd', b"lost");
            let mut stream =
                [&[answer][..], &lost, &message(b'H', &[]), &message(b'd', b"row"), &message(b'Z', b"I")].concat();
            let (passed, taken, _) = pass(stream.clone(), 100, Messages::AfterRefusal);
            if is_plain {
                stream.drain(15..23);
                stream.drain(1..10);
            }
            assert_eq!((passed.unwrap(), &taken[..]), (stream, if is_plain { &b"row"[..] } else { b"" }));
        }
    }

    #[test]
    fn messages_have_a_bound_that_is_low_before_the_end_of_the_login() {
        let passes = |stream: Vec<u8>| {
            let (passed, ..) = pass(stream, 8192, Messages::FromStart);
            passed.map(|_| ()).map_err(|error| error.to_string())
        };
        let notice = |bytes: usize| message(b'N', &vec![b'x'; bytes]);
        passes([notice(20_000), READY.to_vec(), notice(40 << 20)].concat()).unwrap();
        passes(notice(20_000).repeat(50)).unwrap();
        passes([READY.to_vec(), message(b'D', &vec![0; 70 << 20])].concat()).unwrap();
        // The length alone is refused: the bytes need not come.
        let begun = |kind: u8, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
        for (stream, expected) in [
            (
                b"Ecould not fork new process for connection: Cannot allocate memory\n\0".to_vec(),
                "the server answers: could not fork new process for connection: Cannot allocate memory",
            ),
            (notice(30_000), "a message before the end of the login of more than 30000 bytes"),
            (notice(20_000).repeat(53), "messages before the end of the login of more than 1048576 bytes"),
            ([READY.to_vec(), begun(b'N', 900_000_000)].concat(), "a text of more than 67108864 bytes"),
            ([READY.to_vec(), begun(b'S', 2_000_000)].concat(), "a message of more than 1048576 bytes"),
        ] {
            let error = passes(stream).unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_message_are_an_error() {
        let (passed, ..) = pass(vec![b'd', 0, 0, 0, 3, b'x'], 100, Messages::FromStart);
        assert_eq!(passed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
