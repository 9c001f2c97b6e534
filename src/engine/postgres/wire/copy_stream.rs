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

/// The maximum number of bytes that one read takes from the socket.
const INPUT_BYTES: usize = 128 << 10;

/// The number of unprocessed row bytes at which reading from the socket pauses.
const WAITING_BYTES: usize = 256 << 10;

/// The type of the message that starts the rows.
const COPY_OUT_RESPONSE: u8 = b'H';

/// The type of a message that carries rows.
const COPY_DATA: u8 = b'd';

/// The type of the message that reports a completed command; for COPY, it has the number of rows.
const COMMAND_COMPLETE: u8 = b'C';

/// The longest such message that is parsed.
const TAG_BYTES: usize = 64;

/// The size of a message's type and length.
const HEADER_BYTES: usize = 5;

/// The rows taken off one connection, in a buffer that others can read and empty.
#[derive(Clone, Default)]
pub(in crate::engine::postgres) struct Rows(Arc<Mutex<Waiting>>);

/// The rows to keep. Rows that are not wanted belong to a COPY that was given up, and are discarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wanted {
    #[default]
    None,
    /// Rows of the next COPY and later.
    Next,
    These,
}

#[derive(Default)]
struct Waiting {
    wanted: Wanted,
    rows: Vec<u8>,
    /// The number of bytes in `rows` that have been processed.
    seen: usize,
    /// The number of rows that the server reported at the end.
    told_rows: Option<u64>,
    /// The task that waits for rows.
    taker: Option<Waker>,
    /// The connection's task, if it waits until rows are processed.
    giver: Option<Waker>,
}

impl Waiting {
    fn unseen(&self) -> usize {
        self.rows.len() - self.seen
    }
}

impl Rows {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the rows of the next COPY in `buffer`, which is emptied first.
    pub(in crate::engine::postgres) fn keep_next(&self, buffer: Vec<u8>) {
        self.exchange(buffer, Wanted::Next);
    }

    /// Stops keeping rows, and returns the rows that are left.
    pub(in crate::engine::postgres) fn keep_none(&self) -> Vec<u8> {
        self.exchange(Vec::new(), Wanted::None)
    }

    fn exchange(&self, mut buffer: Vec<u8>, wanted: Wanted) -> Vec<u8> {
        buffer.clear();
        let mut waiting = self.lock();
        (waiting.wanted, waiting.seen, waiting.told_rows) = (wanted, 0, None);
        if let Some(giver) = waiting.giver.take() {
            giver.wake();
        }
        std::mem::replace(&mut waiting.rows, buffer)
    }

    /// Returns the number of rows once the server has reported it. Until then, `cx` is woken when it does.
    pub(in crate::engine::postgres) fn told(&self, cx: &Context<'_>) -> Option<u64> {
        let mut waiting = self.lock();
        if waiting.told_rows.is_none() {
            waiting.taker = Some(cx.waker().clone());
        }
        waiting.told_rows
    }

    /// Returns true if there are unprocessed rows. If not, `cx` is woken when some arrive.
    pub(in crate::engine::postgres) fn have_come(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.lock();
        let have = waiting.unseen() > 0;
        if !have {
            waiting.taker = Some(cx.waker().clone());
        }
        have
    }

    /// Passes the buffer to `look`, which may take all or some of it. Returns the number of new bytes in it.
    pub(in crate::engine::postgres) fn look<E>(
        &self,
        look: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut waiting = self.lock();
        let unseen = waiting.unseen();
        look(&mut waiting.rows)?;
        waiting.seen = waiting.rows.len();
        if let Some(giver) = waiting.giver.take() {
            giver.wake();
        }
        Ok(unseen)
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
pub(in crate::engine::postgres) struct Tap<S> {
    stream: S,
    messages: Messages,
    rows: Rows,
    input: Box<[u8]>,
    /// The start of the input that has not been processed.
    start: usize,
    end: usize,
    /// The number of bytes still to come of the current message.
    within: usize,
    /// The type of the current message.
    kind: u8,
    /// The beginning of the current message, if it is CommandComplete.
    tag: Vec<u8>,
}

impl<S> Tap<S> {
    pub(in crate::engine::postgres) fn new(stream: S, messages: Messages, rows: Rows) -> Self {
        Tap { stream, messages, rows, input: Box::default(), start: 0, end: 0, within: 0, kind: 0, tag: Vec::new() }
    }

    /// Returns the underlying stream.
    pub(in crate::engine::postgres) fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Sorts the input as far as `output` has room. Returns true if there are new rows or a row count.
    fn sort(&mut self, output: &mut ReadBuf<'_>, waiting: &mut Waiting) -> io::Result<bool> {
        let mut found = false;
        loop {
            let input = &self.input[self.start..self.end];
            if self.within == 0 {
                let Some(([kind, length @ ..], _)) = input.split_first_chunk::<HEADER_BYTES>() else { break };
                let length = u32::from_be_bytes(*length) as usize;
                if length < 4 {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the server sent no message of the protocol",
                    ));
                }
                self.kind = *kind;
                self.tag.clear();
                if *kind == COPY_OUT_RESPONSE && waiting.wanted != Wanted::None {
                    waiting.wanted = Wanted::These;
                }
                if *kind == COPY_DATA {
                    self.start += HEADER_BYTES;
                    self.within = length - 4;
                } else {
                    self.within = length + 1;
                }
                continue;
            }
            let is_rows = self.kind == COPY_DATA;
            let room = if is_rows { usize::MAX } else { output.remaining() };
            let now = &input[..input.len().min(self.within).min(room)];
            if now.is_empty() {
                break;
            }
            if is_rows {
                if waiting.wanted == Wanted::These {
                    waiting.rows.extend_from_slice(now);
                    found = true;
                }
            } else {
                output.put_slice(now);
                if self.kind == COMMAND_COMPLETE && self.tag.len() + now.len() <= TAG_BYTES {
                    self.tag.extend_from_slice(now);
                }
            }
            self.start += now.len();
            self.within -= now.len();
            if self.within == 0 && self.kind == COMMAND_COMPLETE && waiting.wanted == Wanted::These {
                waiting.told_rows = told_rows(&self.tag);
                found |= waiting.told_rows.is_some();
            }
        }
        Ok(found)
    }
}

/// Returns the number in a message that says `COPY 17`.
fn told_rows(message: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(message.get(HEADER_BYTES..)?).ok()?;
    text.strip_prefix("COPY ")?.strip_suffix('\0')?.parse().ok()
}

impl<S: AsyncRead + Unpin> Tap<S> {
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

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, output: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let tap = &mut *self;
        match tap.messages {
            _ if output.remaining() == 0 => return Poll::Ready(Ok(())),
            Messages::Nowhere => return Pin::new(&mut tap.stream).poll_read(cx, output),
            Messages::AfterRefusal => return tap.read_answer(cx, output),
            Messages::FromStart => {}
        }
        if tap.input.is_empty() {
            tap.input = vec![0; INPUT_BYTES].into_boxed_slice();
        }
        let shared = tap.rows.clone();
        let (before, mut found) = (output.filled().len(), false);
        let mut waiting = shared.lock();
        let read = loop {
            match tap.sort(output, &mut waiting) {
                Ok(some) => found |= some,
                Err(error) => break Poll::Ready(Err(error)),
            }
            if output.filled().len() > before {
                break Poll::Ready(Ok(()));
            }
            if waiting.unseen() >= WAITING_BYTES {
                waiting.giver = Some(cx.waker().clone());
                break Poll::Pending;
            }
            // The bytes that are left are fewer than a header.
            tap.input.copy_within(tap.start..tap.end, 0);
            (tap.start, tap.end) = (0, tap.end - tap.start);
            let mut input = ReadBuf::new(&mut tap.input[tap.end..]);
            match Pin::new(&mut tap.stream).poll_read(cx, &mut input) {
                // The end of the stream; a partial header is not a message.
                Poll::Ready(Ok(())) if input.filled().is_empty() => break Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => tap.end += input.filled().len(),
                other => break other,
            }
        };
        if found && let Some(taker) = waiting.taker.take() {
            taker.wake();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
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
            let mut tap = Tap::new(client, messages, rows.clone());
            tokio::spawn(async move {
                let _ = server.write_all(&bytes).await;
            });
            let passed = tokio::spawn(async move {
                let mut passed = Vec::new();
                tap.read_to_end(&mut passed).await.map(|_| passed)
            });
            let mut passed = std::pin::pin!(passed);
            let (mut taken, mut told) = (Vec::new(), None);
            let passed = std::future::poll_fn(|cx| {
                let ended = passed.as_mut().poll(cx);
                while rows.have_come(cx) {
                    let looked = rows.look(|buffer| {
                        assert!(buffer.len() < WAITING_BYTES + INPUT_BYTES, "memory has a bound");
                        taken.append(buffer);
                        io::Result::Ok(())
                    });
                    assert!(looked.unwrap() > 0);
                }
                told = told.or(rows.told(cx));
                ended
            });
            let passed = passed.await.unwrap();
            (passed, taken, told)
        })
    }

    #[test]
    fn rows_are_taken_and_all_else_passes_however_the_stream_is_cut() {
        let mut stream = message(b'H', &[0; 7]);
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
            let (passed, taken, told) = pass(stream.clone(), size, Messages::FromStart);
            assert_eq!(told, Some(3001), "{size}");
            assert!(passed.unwrap() == others, "{size}");
            assert!(taken == rows, "{size}");
        }
        for (answer, taps) in [(b'N', true), (b'S', false)] {
            // Rows before a COPY begins belong to an earlier COPY.
            let lost = message(b'd', b"lost");
            let mut stream =
                [&[answer][..], &lost, &message(b'H', &[]), &message(b'd', b"row"), &message(b'Z', b"I")].concat();
            let (passed, taken, _) = pass(stream.clone(), 100, Messages::AfterRefusal);
            if taps {
                stream.drain(15..23);
                stream.drain(1..10);
            }
            assert_eq!((passed.unwrap(), &taken[..]), (stream, if taps { &b"row"[..] } else { b"" }));
        }
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        let (passed, ..) = pass(vec![b'd', 0, 0, 0, 3, b'x'], 100, Messages::FromStart);
        assert_eq!(passed.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
