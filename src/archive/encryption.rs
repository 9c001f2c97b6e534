//! Encryption of a whole archive with age, version 1 (<https://c2sp.org/age>), to recipients or with a passphrase.
//!
//! ```text
//! +--------+-------+---------+---------+-- --+--------------+
//! | header | nonce | chunk 0 | chunk 1 | ... | chunk n, last |
//! +--------+-------+---------+---------+-- --+--------------+
//!           16       65,552    65,552          16 to 65,552 bytes
//! ```
//! The header holds the file key, wrapped for each recipient or with the passphrase. Each chunk is 64 KiB of the
//! archive and a tag of 16 bytes, which authenticates the chunk, its position and whether it is the last one. So an
//! archive can be read from any offset, and every change, move, truncation or addition is detected. The `age` crate
//! does all cryptography.

use std::cell::RefCell;
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::iter;
use std::sync::Arc;

use age::secrecy::{ExposeSecret, SecretString};
use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, Identity, scrypt};
use age_core::format::{FileKey, Stanza};

use super::keys::{EncryptWith, Keys, MAX_RECIPIENTS, recipient_of};
use super::writer::ArchiveSummary;
use crate::platform::digest::Hasher;
use crate::platform::error::{Error, IoContext, Kind, Result};
use crate::platform::ranged::{Ranged, require_within};
use crate::platform::secret::Secret;

/// The plaintext bytes of every chunk but the last, which may have fewer.
const CHUNK_BYTES: u64 = 64 << 10;

/// The bytes that encryption adds to each chunk.
const TAG_BYTES: u64 = 16;

/// The bytes of a full encrypted chunk in the file.
const ENCRYPTED_CHUNK_BYTES: u64 = CHUNK_BYTES + TAG_BYTES;

/// The bytes of the nonce, which follows the header.
const NONCE_BYTES: usize = 16;

/// The maximum number of bytes of header and nonce; [`MAX_RECIPIENTS`] need 27 KiB.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// scrypt's work factor (binary logarithm) for new archives, as in the `age` program: 256 MiB and about a second.
const WORK: u8 = 18;

/// The highest work factor that a header may require: 1 GiB and about four seconds.
const MAX_WORK: u8 = 20;

/// The first line of every file encrypted with version 1 of age.
const FIRST_LINE: &[u8] = b"age-encryption.org/v1\n";

/// Encrypts the bytes written to it and writes them to `W`. The file is complete only after [`finish`](Self::finish).
/// Dropping the writer abandons the file; every reader refuses what `W` has received by then.
///
/// Memory: two chunks, and the header.
pub struct EncryptingWriter<W: Write + Send> {
    /// `None` after a write has failed: age's writer would continue and write one chunk too many.
    stream: Option<StreamWriter<HashingWriter<W>>>,
}

impl<W: Write + Send> EncryptingWriter<W> {
    /// Starts an encrypted file with a new file key. With a passphrase this takes about a second.
    pub fn create(writer: W, encrypt_with: &EncryptWith) -> Result<Self> {
        Self::create_with(writer, encrypt_with, WORK)
    }

    fn create_with(writer: W, encrypt_with: &EncryptWith, work: u8) -> Result<Self> {
        let encryptor = match encrypt_with {
            EncryptWith::Recipients(recipients) => {
                if recipients.len() > MAX_RECIPIENTS {
                    return Err(Error::usage(format!("an archive can have at most {MAX_RECIPIENTS} recipients")));
                }
                Encryptor::with_recipients(recipients.iter().map(|recipient| recipient.as_age()))
            }
            EncryptWith::Passphrase(passphrase) => {
                if passphrase.is_empty() {
                    return Err(Error::usage("the passphrase is empty"));
                }
                let mut recipient = scrypt::Recipient::new(secret_string(passphrase));
                recipient.set_work_factor(work);
                Encryptor::with_recipients(iter::once(&recipient as &dyn age::Recipient))
            }
        };
        let encryptor = encryptor.map_err(|error| match error {
            age::EncryptError::MissingRecipients => Error::usage("an encrypted archive needs at least one recipient"),
            other => Error::failed("cannot start the encryption").because(other),
        })?;
        let hashing = HashingWriter { writer, hasher: Hasher::new(), bytes: 0, buffered: Vec::new() };
        Ok(EncryptingWriter { stream: Some(encryptor.wrap_output(hashing)?) })
    }

    /// Writes the last chunk. Returns the writer, flushed but not published, and the encrypted file's length and hash.
    pub fn finish(mut self) -> Result<(W, ArchiveSummary)> {
        let mut hashing = self.stream.take().ok_or_else(failed_before)?.finish()?;
        hashing.flush()?;
        Ok((
            hashing.writer,
            ArchiveSummary { bytes: hashing.bytes, sha256: hashing.hasher.finish(), index_sha256: None },
        ))
    }
}

impl<W: Write + Send> Write for EncryptingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.as_mut().ok_or_else(failed_before)?.write(bytes);
        if written.is_err() {
            self.stream = None;
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.stream.as_mut().ok_or_else(failed_before)?.flush();
        if flushed.is_err() {
            self.stream = None;
        }
        flushed
    }
}

fn failed_before() -> Error {
    Error::failed("cannot write the encrypted archive after an earlier failure")
}

fn secret_string(secret: &Secret) -> SecretString {
    SecretString::from(secret.expose().to_owned())
}

/// Counts and hashes the bytes written to `W`.
///
/// Less than 64 KiB is buffered until more is written: age writes its header in small pieces, and drops the kind of an
/// error that occurs there.
struct HashingWriter<W> {
    writer: W,
    hasher: Hasher,
    bytes: u64,
    buffered: Vec<u8>,
}

impl<W: Write> HashingWriter<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn write_buffered(&mut self) -> io::Result<()> {
        let buffered = std::mem::take(&mut self.buffered);
        if buffered.is_empty() { Ok(()) } else { self.put(&buffered) }
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffered.len() + bytes.len() < MAX_HEAD_BYTES {
            self.buffered.extend_from_slice(bytes);
        } else {
            self.write_buffered()?;
            self.put(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffered()?;
        self.writer.flush()
    }
}

/// The plaintext of an encrypted archive. It can be read at any offset, from several threads at once.
///
/// All bytes that it returns are authenticated. [`open`](Self::open) has already verified the archive's end.
pub struct DecryptedArchive {
    cipher: Arc<dyn Ranged>,
    head: Head,
    file_key: FileKey,
    encrypt_with: EncryptWith,
    len: u64,
    /// The plaintext offset of the tail, which begins at a chunk.
    tail_at: u64,
    /// The plaintext of the last two chunks. They hold the archive's footer and most of its index.
    tail: Vec<u8>,
}

/// The header and nonce of an encrypted file.
#[derive(Clone)]
struct Head {
    bytes: Arc<[u8]>,
    header_bytes: usize,
}

impl DecryptedArchive {
    /// Opens an encrypted archive with the first key that matches. Reads its head once and its tail once. With a
    /// passphrase this takes about a second.
    ///
    /// Fails with [`Kind::Usage`] if no key matches, and with [`Kind::Problem`] if the archive is damaged, truncated or
    /// followed by other bytes. (A damaged header can look like one for another key; these two cases cannot be
    /// distinguished.)
    pub fn open(cipher: Arc<dyn Ranged>, keys: &Keys) -> Result<Self> {
        if keys.is_empty() {
            return Err(Error::usage("the archive is encrypted and no key is given").hint(HOW_TO_GIVE_KEYS));
        }
        let cipher_bytes = cipher.len();
        let mut first = vec![0; usize::try_from(cipher_bytes).unwrap_or(usize::MAX).min(MAX_HEAD_BYTES)];
        cipher
            .read_at(0, &mut first)
            .io(Kind::Unreachable, || "cannot read the start of the encrypted archive".to_owned())?;
        let head = Head::find(&first, cipher_bytes)?;
        let (file_key, encrypt_with) = unwrap_file_key(&head, keys)?;

        let head_bytes = head.bytes.len() as u64;
        let chunks = Chunks::of(cipher_bytes - head_bytes)?;
        let first_of_tail = chunks.count.saturating_sub(2);
        let start = first_of_tail * ENCRYPTED_CHUNK_BYTES;
        let tail_bytes = usize::try_from(chunks.encrypted_bytes - start).expect("two chunks");
        let encrypted = match first.get(usize::try_from(head_bytes + start).unwrap_or(usize::MAX)..) {
            // A small archive was read completely with its head.
            Some(rest) if rest.len() == tail_bytes => rest.to_vec(),
            _ => {
                let mut encrypted = vec![0; tail_bytes];
                cipher
                    .read_at(head_bytes + start, &mut encrypted)
                    .io(Kind::Unreachable, || "cannot read the end of the encrypted archive".to_owned())?;
                encrypted
            }
        };
        let window = Window { start, encrypted, end: chunks.encrypted_bytes, at: 0 };
        let mut decrypted =
            DecryptedArchive { cipher, head, file_key, encrypt_with, len: chunks.bytes, tail_at: 0, tail: Vec::new() };
        decrypted.tail_at = first_of_tail * CHUNK_BYTES;
        decrypted.tail = decrypted.open_tail(window).map_err(|error| {
            Error::problem(
                "the end of the encrypted archive is damaged, or the archive is truncated or followed by other bytes",
            )
            .because(error)
        })?;
        Ok(decrypted)
    }

    /// Returns the recipient or passphrase with which another archive can be encrypted so that the key that opened this
    /// one opens it too.
    #[must_use]
    pub fn encrypt_with(&self) -> &EncryptWith {
        &self.encrypt_with
    }

    /// Returns a reader of the plaintext in order; `cipher` must read the whole encrypted file from its start. A file
    /// that is truncated or followed by other bytes is detected only when the plaintext is read to its end.
    pub fn stream<R: Read>(&self, mut cipher: R) -> Result<impl Read + use<R>> {
        let mut head = Vec::new();
        cipher
            .by_ref()
            .take(self.head.bytes.len() as u64)
            .read_to_end(&mut head)
            .io(Kind::Unreachable, || "cannot read the encrypted archive".to_owned())?;
        if head != *self.head.bytes {
            return Err(Error::problem("the start of the encrypted archive has changed since it was opened"));
        }
        Ok(Sequential { reader: self.reader(Source(cipher))? })
    }

    /// Checks that the last chunk is marked as the last, and returns the plaintext of the tail.
    fn open_tail(&self, window: Window) -> io::Result<Vec<u8>> {
        let mut reader = self.reader(window)?;
        // A seek from the end authenticates the last chunk as such.
        if reader.seek(SeekFrom::End(0))? != self.len {
            return Err(io::Error::other("its length does not match its last chunk"));
        }
        let mut tail = vec![0; usize::try_from(self.len - self.tail_at).expect("two chunks")];
        if !tail.is_empty() {
            go_to(&mut reader, self.tail_at)?;
            reader.read_exact(&mut tail)?;
        }
        Ok(tail)
    }

    /// Returns a reader of the plaintext of the encrypted chunks in `body`.
    fn reader<R: Read>(&self, body: R) -> Result<StreamReader<Input<R>>> {
        let decryptor = self.head.decryptor(body)?;
        decryptor.decrypt(iter::once(&Unwrapped(&self.file_key) as &dyn Identity)).map_err(|error| damaged_head(&error))
    }
}

impl Ranged for DecryptedArchive {
    fn len(&self) -> u64 {
        self.len
    }

    fn parallel_reads(&self) -> usize {
        self.cipher.parallel_reads()
    }

    /// Reads all chunks that the range touches with one read of the cipher; no read if the range lies in the tail.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        require_within(self.len, offset, buffer.len())?;
        let before_tail = usize::try_from(self.tail_at.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let (buffer, in_tail) = buffer.split_at_mut(before_tail);
        if !in_tail.is_empty() {
            let from = usize::try_from(offset + before_tail as u64 - self.tail_at).expect("inside the tail");
            in_tail.copy_from_slice(&self.tail[from..][..in_tail.len()]);
        }
        if buffer.is_empty() {
            return Ok(());
        }
        // Only whole chunks lie before the tail.
        let first = offset / CHUNK_BYTES;
        let count = (offset + before_tail as u64).div_ceil(CHUNK_BYTES) - first;
        let start = first * ENCRYPTED_CHUNK_BYTES;
        let encrypted_bytes = usize::try_from(count * ENCRYPTED_CHUNK_BYTES).map_err(io::Error::other)?;
        let mut encrypted = vec![0; encrypted_bytes];
        self.cipher.read_at(self.head.bytes.len() as u64 + start, &mut encrypted)?;
        let end = self.cipher.len() - self.head.bytes.len() as u64;
        let mut reader = self.reader(Window { start, encrypted, end, at: 0 })?;
        go_to(&mut reader, offset).and_then(|()| reader.read_exact(buffer)).map_err(|error| {
            let chunk = self.head.bytes.len() as u64 + start;
            Error::problem(format!("the encrypted archive is damaged at or after offset {chunk}")).because(error).into()
        })
    }
}

/// Moves the reader to a plaintext offset whose chunk is in the window.
fn go_to<R: Read + Seek>(reader: &mut StreamReader<R>, offset: u64) -> io::Result<()> {
    // A seek to a chunk's start makes age read the last chunk, which the window may not hold. A seek one byte further
    // does not, and the seek back within the chunk only changes a number.
    reader.seek(SeekFrom::Start(offset / CHUNK_BYTES * CHUNK_BYTES + 1))?;
    reader.seek(SeekFrom::Start(offset))?;
    Ok(())
}

/// The number of chunks, and their encrypted and plaintext length.
struct Chunks {
    count: u64,
    encrypted_bytes: u64,
    bytes: u64,
}

impl Chunks {
    fn of(encrypted_bytes: u64) -> Result<Self> {
        let count = encrypted_bytes.div_ceil(ENCRYPTED_CHUNK_BYTES);
        let last = encrypted_bytes - count.saturating_sub(1) * ENCRYPTED_CHUNK_BYTES;
        // Only a file without content has an empty chunk.
        if count == 0 || last < TAG_BYTES || (last == TAG_BYTES && count > 1) {
            return Err(Error::problem("the encrypted archive is truncated or followed by other bytes"));
        }
        Ok(Chunks { count, encrypted_bytes, bytes: encrypted_bytes - count * TAG_BYTES })
    }
}

impl Head {
    /// Finds the header and nonce in a file's first bytes.
    fn find(first: &[u8], cipher_bytes: u64) -> Result<Self> {
        if !first.starts_with(FIRST_LINE) {
            let armored = first.starts_with(b"-----BEGIN AGE");
            let newer = first.starts_with(b"age-encryption.org/");
            return Err(if armored {
                Error::problem("the archive is encrypted in age's text form, which is not supported")
                    .hint("decrypt it with 'age --decrypt' first")
            } else if newer {
                Error::problem("the archive is encrypted with an unknown version of age, or is damaged")
            } else {
                Error::problem("the archive does not start with the header of age")
            });
        }
        // Stanza bodies are base64: only the header's last line starts with `---`.
        let mut header_bytes = None;
        let mut at = FIRST_LINE.len();
        while let Some(length) = memchr::memchr(b'\n', &first[at..]) {
            let line = &first[at..at + length];
            at += length + 1;
            if line.starts_with(b"---") {
                header_bytes = Some(at);
                break;
            }
        }
        let found = header_bytes.and_then(|header_bytes| {
            first.get(..header_bytes + NONCE_BYTES).map(|bytes| Head { bytes: bytes.into(), header_bytes })
        });
        found.ok_or_else(|| {
            let is_whole_file = first.len() as u64 == cipher_bytes;
            Error::problem(if is_whole_file {
                "the encrypted archive is truncated in its header".to_owned()
            } else {
                format!("the encrypted archive's header does not end within {MAX_HEAD_BYTES} bytes")
            })
        })
    }

    fn decryptor<R: Read>(&self, body: R) -> Result<Decryptor<Input<R>>> {
        let input = Input { head: self.clone(), at: 0, body };
        Decryptor::new_buffered(input).map_err(|error| damaged_head(&error))
    }
}

/// The hint for an archive that is encrypted if no key was given.
pub const HOW_TO_GIVE_KEYS: &str =
    "give the secret key with --identity FILE or LIFEBOAT_IDENTITY, or the passphrase with --passphrase-file FILE";

/// Tries the keys one after the other. Returns the file key, and the recipient or passphrase of the key that matches.
fn unwrap_file_key(head: &Head, keys: &Keys) -> Result<(FileKey, EncryptWith)> {
    for identity in &keys.identities {
        if let Some(file_key) = try_key(head, identity)? {
            return Ok((file_key, EncryptWith::Recipients(vec![recipient_of(identity)])));
        }
    }
    let with_passphrase = head.decryptor(io::empty())?.is_scrypt();
    if !with_passphrase {
        return Err(if keys.identities.is_empty() {
            Error::usage("the archive is encrypted to keys, and only a passphrase is given")
                .hint("give the secret key with --identity FILE or LIFEBOAT_IDENTITY")
        } else {
            Error::usage("none of the keys given opens the archive")
                .hint("give the secret key of a recipient; if you gave it, the archive's header is damaged")
        });
    }
    for passphrase in &keys.passphrases {
        let mut identity = scrypt::Identity::new(secret_string(passphrase));
        identity.set_max_work_factor(MAX_WORK);
        if let Some(file_key) = try_key(head, &identity)? {
            return Ok((file_key, EncryptWith::Passphrase(passphrase.clone())));
        }
    }
    Err(if keys.passphrases.is_empty() {
        Error::usage("the archive is encrypted with a passphrase, and none is given")
            .hint("give it with --passphrase-file FILE")
    } else {
        Error::usage("none of the keys given opens the archive")
            .hint("check the passphrase; if it is right, the archive's header is damaged")
    })
}

/// Returns the file key, or `None` if this identity does not unwrap it.
fn try_key(head: &Head, identity: &dyn Identity) -> Result<Option<FileKey>> {
    let remembering = Remembering { identity, found: RefCell::new(None) };
    match head.decryptor(io::empty())?.decrypt(iter::once(&remembering as &dyn Identity)) {
        Ok(_) => Ok(remembering.found.into_inner()),
        Err(DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed) => {
            Ok(None)
        }
        Err(error) => Err(damaged_head(&error)),
    }
}

/// Replaces age's errors, which are several lines long: a header is either damaged or requires too much work.
fn damaged_head(error: &DecryptError) -> Error {
    let reason = match error {
        DecryptError::ExcessiveWork { required, .. } => {
            return Error::problem(format!(
                "the encrypted archive's header requires 2^{required} rounds of scrypt; the limit is 2^{MAX_WORK}"
            ));
        }
        DecryptError::InvalidMac => "it was changed after it was written",
        DecryptError::Io(_) => "it is truncated",
        _ => "it is not a valid header of age",
    };
    Error::problem("the encrypted archive's header is damaged").because(reason)
}

/// An identity that keeps a copy of the file key when it has unwrapped it.
struct Remembering<'a> {
    identity: &'a dyn Identity,
    found: RefCell<Option<FileKey>>,
}

impl Identity for Remembering<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let result = self.identity.unwrap_stanza(stanza);
        if let Some(Ok(file_key)) = &result {
            *self.found.borrow_mut() = Some(copy(file_key));
        }
        result
    }
}

/// An identity that returns a file key unwrapped earlier; age still checks it against the header.
struct Unwrapped<'a>(&'a FileKey);

impl Identity for Unwrapped<'_> {
    fn unwrap_stanza(&self, _: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        Some(Ok(copy(self.0)))
    }
}

fn copy(file_key: &FileKey) -> FileKey {
    FileKey::new(Box::new(*file_key.expose_secret()))
}

/// An encrypted file as age reads it: the head comes from memory, the chunks from `body`. A seek applies to the chunks.
struct Input<R> {
    head: Head,
    at: usize,
    body: R,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rest = &self.head.bytes[self.at..];
        if rest.is_empty() {
            return self.body.read(buffer);
        }
        let count = rest.read(buffer)?;
        self.at += count;
        Ok(count)
    }
}

impl<R: Read> BufRead for Input<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.head.bytes[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }

    /// Returns the whole header at once, because age parses from the start again after each line that it receives. That
    /// is slow for a hostile header, and costs time in each read.
    fn read_until(&mut self, _: u8, data: &mut Vec<u8>) -> io::Result<usize> {
        let rest = self.head.bytes.get(self.at..self.head.header_bytes).unwrap_or_default();
        data.extend_from_slice(rest);
        self.at += rest.len();
        Ok(rest.len())
    }
}

impl<R: Seek> Seek for Input<R> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.body.seek(position)
    }
}

/// A range of consecutive encrypted chunks, at their position among all chunks.
struct Window {
    start: u64,
    encrypted: Vec<u8>,
    /// The end of all chunks.
    end: u64,
    at: u64,
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let from = self.at.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let count = match from.and_then(|from| self.encrypted.get(from..)) {
            Some(mut rest) if !rest.is_empty() || self.at == self.end => rest.read(buffer)?,
            _ => return Err(io::Error::other("a chunk was requested that was not read")),
        };
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Window {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let target = match position {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// A sequential reader of the plaintext.
struct Sequential<R> {
    reader: StreamReader<Input<Source<R>>>,
}

impl<R: Read> Read for Sequential<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if !error.get_ref().is_some_and(|inner| inner.is::<SourceError>()) {
                return Error::problem("the encrypted archive is damaged, truncated or followed by other bytes")
                    .because(error)
                    .into();
            }
            match error.into_inner().map(|inner| inner.downcast::<SourceError>()) {
                Some(Ok(source)) => source.0,
                _ => io::Error::other("cannot read the encrypted archive"),
            }
        })
    }
}

/// Marks errors of the underlying reader, so that they are not mistaken for damage that age found.
struct Source<R>(R);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(SourceError(error)),
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SourceError(io::Error);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;
    use std::thread;

    use super::*;
    use crate::archive::generate_key;
    use crate::platform::digest::Sha256;

    /// A low work factor that keeps the tests fast.
    const TEST_WORK: u8 = 4;

    const SIZES: [usize; 9] = [0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 196_608, 3_000_001];

    fn key() -> (EncryptWith, Keys) {
        let (public, text) = generate_key(chrono::Utc::now());
        let mut keys = Keys::new();
        keys.add_identity(text.expose(), "a key").unwrap();
        (EncryptWith::Recipients(vec![public]), keys)
    }

    fn passphrase(text: &str) -> (EncryptWith, Keys) {
        let mut keys = Keys::new();
        keys.add_passphrase(Secret::new(text));
        (EncryptWith::Passphrase(Secret::new(text)), keys)
    }

    /// Bytes that differ from chunk to chunk.
    fn plain(count: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ count as u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes: Vec<u8> = iter::repeat_with(|| next().to_le_bytes()).take(count / 8 + 1).flatten().collect();
        bytes.truncate(count);
        bytes
    }

    fn encrypt(bytes: &[u8], encrypt_with: &EncryptWith) -> Vec<u8> {
        let mut writer = EncryptingWriter::create_with(Vec::new(), encrypt_with, TEST_WORK).unwrap();
        for piece in bytes.chunks(50_000) {
            writer.write_all(piece).unwrap();
        }
        let (cipher, summary) = writer.finish().unwrap();
        assert_eq!((summary.bytes, summary.sha256), (cipher.len() as u64, Sha256::of(&cipher)));
        cipher
    }

    fn head_bytes(cipher: &[u8]) -> usize {
        Head::find(&cipher[..cipher.len().min(MAX_HEAD_BYTES)], cipher.len() as u64).unwrap().bytes.len()
    }

    fn all(decrypted: &DecryptedArchive) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(decrypted.len()).unwrap()];
        decrypted.read_at(0, &mut bytes).map(|()| bytes)
    }

    fn streamed(decrypted: &DecryptedArchive, cipher: impl Read) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        decrypted.stream(cipher)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Opens an archive and reads all of it with `read_at` and with `stream`.
    fn open_and_read(cipher: &[u8], keys: &Keys) -> Result<Vec<u8>> {
        let decrypted = DecryptedArchive::open(Arc::new(cipher.to_vec()), keys)?;
        let bytes = all(&decrypted)?;
        assert_eq!(streamed(&decrypted, cipher)?, bytes);
        Ok(bytes)
    }

    /// A file that records its reads, and fails on request.
    struct Watched {
        bytes: Vec<u8>,
        reads: Mutex<Vec<(u64, usize)>>,
        failing: Mutex<Option<Kind>>,
    }

    impl Watched {
        fn new(bytes: Vec<u8>) -> Arc<Self> {
            Arc::new(Watched { bytes, reads: Mutex::default(), failing: Mutex::default() })
        }

        fn reads(&self) -> Vec<(u64, usize)> {
            std::mem::take(&mut self.reads.lock().unwrap())
        }
    }

    impl Ranged for Watched {
        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            self.reads.lock().unwrap().push((offset, buffer.len()));
            if let Some(kind) = *self.failing.lock().unwrap() {
                return Err(Error::new(kind, "the store is gone").into());
            }
            self.bytes.read_at(offset, buffer)
        }
    }

    #[track_caller]
    fn fails<T>(result: Result<T>, kind: Kind, words: &str) -> Error {
        let Err(error) = result else { panic!("nothing failed; expected: {words}") };
        let text = format!("{} / {}", error.full_message(), error.hint.clone().unwrap_or_default());
        assert_eq!(error.kind, kind, "{text}");
        assert!(text.contains(words), "'{words}' is not in: {text}");
        error
    }

    #[test]
    fn archives_of_all_sizes_are_read_at_offsets_and_as_a_stream() {
        for (encrypt_with, keys) in [key(), passphrase("correct horse")] {
            for size in SIZES {
                let bytes = plain(size);
                let cipher = encrypt(&bytes, &encrypt_with);
                assert_eq!(open_and_read(&cipher, &keys).unwrap(), bytes, "{size}");
                let encrypted = cipher.len() - head_bytes(&cipher);
                assert_eq!(encrypted, size + 16 * size.div_ceil(65_536).max(1));
            }
        }
    }

    #[test]
    fn any_range_equals_that_of_the_plaintext() {
        let (encrypt_with, keys) = key();
        for size in SIZES {
            let bytes = plain(size);
            let decrypted = DecryptedArchive::open(Arc::new(encrypt(&bytes, &encrypt_with)), &keys).unwrap();
            let mut offsets: Vec<usize> = [0, 1, 65_535, 65_536, 65_537, 131_071, 131_072, 196_607, 196_608].to_vec();
            offsets.extend([
                size / 2,
                size.saturating_sub(90),
                size.saturating_sub(65_536),
                size.saturating_sub(1),
                size,
            ]);
            for offset in offsets.into_iter().filter(|offset| *offset <= size) {
                for count in [0, 1, 90, 65_535, 65_536, 65_537, 300_000, size - offset] {
                    let count = count.min(size - offset);
                    let mut found = vec![0; count];
                    decrypted.read_at(offset as u64, &mut found).unwrap();
                    assert!(found == bytes[offset..offset + count], "{count} bytes at {offset} of {size}");
                }
            }
            for (offset, count) in [(size as u64, 1), (0, size + 1), (size as u64 + 1, 0), (u64::MAX, 2)] {
                let error = decrypted.read_at(offset, &mut vec![0; count]).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
    }

    #[test]
    fn each_read_is_one_request_and_opening_is_two() {
        let (encrypt_with, keys) = key();
        let bytes = plain(3_000_001);
        let cipher = encrypt(&bytes, &encrypt_with);
        let head = head_bytes(&cipher) as u64;
        let watched = Watched::new(cipher);
        let decrypted = DecryptedArchive::open(Arc::clone(&watched) as Arc<dyn Ranged>, &keys).unwrap();
        // 46 chunks; the last two are the tail.
        let tail = head + 44 * 65_552;
        assert_eq!(watched.reads(), [(0, 65_536), (tail, usize::try_from(watched.len() - tail).unwrap())]);
        for (offset, count, encrypted) in [
            (0, 1, Some((head, 65_552))),
            (65_536, 65_536, Some((head + 65_552, 65_552))),
            (65_535, 2, Some((head, 131_104))),
            (100_000, 2_000_000, Some((head + 65_552, 32 * 65_552))),
            (0, 3_000_001, Some((head, 44 * 65_552))),
            (44 * 65_536 - 1, 2, Some((head + 43 * 65_552, 65_552))),
            (44 * 65_536, 100, None),
            (3_000_001 - 90, 90, None),
        ] {
            let mut found = vec![0; count];
            decrypted.read_at(offset as u64, &mut found).unwrap();
            assert!(found == bytes[offset..offset + count]);
            assert_eq!(watched.reads(), encrypted.into_iter().collect::<Vec<_>>(), "{count} bytes at {offset}");
        }
    }

    #[test]
    fn a_small_archive_is_opened_with_one_request() {
        let (encrypt_with, keys) = key();
        let watched = Watched::new(encrypt(&plain(50_000), &encrypt_with));
        let decrypted = DecryptedArchive::open(Arc::clone(&watched) as Arc<dyn Ranged>, &keys).unwrap();
        assert_eq!(all(&decrypted).unwrap(), plain(50_000));
        assert_eq!(watched.reads().len(), 1);
    }

    #[test]
    fn many_threads_read_at_the_same_time() {
        let (encrypt_with, keys) = passphrase("correct horse");
        let bytes = plain(3_000_001);
        let decrypted = DecryptedArchive::open(Arc::new(encrypt(&bytes, &encrypt_with)), &keys).unwrap();
        thread::scope(|scope| {
            for thread in 0..8_usize {
                let (decrypted, bytes) = (&decrypted, &bytes);
                scope.spawn(move || {
                    for step in 0..20 {
                        let offset = (thread * 37_777 + step * 141_421) % bytes.len();
                        let count = 200_000.min(bytes.len() - offset);
                        let mut found = vec![0; count];
                        decrypted.read_at(offset as u64, &mut found).unwrap();
                        assert!(found == bytes[offset..offset + count]);
                    }
                });
            }
        });
    }

    #[test]
    fn every_recipient_opens_it_and_the_matching_key_is_known() {
        let (pairs, mut recipients) = ([key(), key(), key()], Vec::new());
        for (encrypt_with, _) in &pairs {
            let EncryptWith::Recipients(own) = encrypt_with else { panic!("no passphrase") };
            recipients.extend(own.clone());
        }
        let cipher = encrypt(b"all of us", &EncryptWith::Recipients(recipients));
        for (encrypt_with, keys) in &pairs {
            let mut several = key().1;
            several.add_passphrase(Secret::new("another"));
            several.identities.extend(keys.identities.clone());
            let decrypted = DecryptedArchive::open(Arc::new(cipher.clone()), &several).unwrap();
            assert_eq!(all(&decrypted).unwrap(), b"all of us");
            let again = encrypt(b"safety", decrypted.encrypt_with());
            assert_eq!(open_and_read(&again, keys).unwrap(), b"safety");
            assert!(format!("{:?}", decrypted.encrypt_with()) == format!("{encrypt_with:?}"));
        }
    }

    #[test]
    fn the_passphrase_that_decrypted_it_encrypts_again() {
        let (encrypt_with, mut keys) = passphrase("first");
        keys.passphrases.insert(0, Secret::new("wrong"));
        keys.identities = key().1.identities;
        let decrypted = DecryptedArchive::open(Arc::new(encrypt(b"x", &encrypt_with)), &keys).unwrap();
        let EncryptWith::Passphrase(passphrase) = decrypted.encrypt_with() else { panic!("a passphrase") };
        assert_eq!(passphrase.expose(), "first");
    }

    #[test]
    fn missing_keys_and_wrong_keys_are_distinguished() {
        let to_key = encrypt(b"x", &key().0);
        let with_passphrase = encrypt(b"x", &passphrase("right").0);
        let open = |cipher: &Vec<u8>, keys: &Keys| DecryptedArchive::open(Arc::new(cipher.clone()), keys);
        for cipher in [&to_key, &with_passphrase] {
            let error = fails(open(cipher, &Keys::new()), Kind::Usage, "the archive is encrypted and no key is given");
            let hint = error.hint.unwrap();
            for word in ["--identity FILE", "LIFEBOAT_IDENTITY", "--passphrase-file"] {
                assert!(hint.contains(word), "{hint}");
            }
        }
        fails(open(&to_key, &key().1), Kind::Usage, "none of the keys given opens the archive");
        fails(open(&to_key, &passphrase("right").1), Kind::Usage, "encrypted to keys, and only a passphrase is given");
        fails(open(&with_passphrase, &key().1), Kind::Usage, "encrypted with a passphrase, and none is given");
        fails(open(&with_passphrase, &passphrase("wrong").1), Kind::Usage, "none of the keys given opens the archive");
    }

    #[test]
    fn files_that_age_did_not_encrypt_are_refused() {
        let keys = key().1;
        let open = |cipher: &[u8]| DecryptedArchive::open(Arc::new(cipher.to_vec()), &keys);
        fails(open(b""), Kind::Problem, "does not start with the header of age");
        fails(open(&[0x1f, 0x8b, 8, 0]), Kind::Problem, "does not start with the header of age");
        fails(open(b"age-encryption.org/v2\nx"), Kind::Problem, "an unknown version of age");
        fails(open(b"-----BEGIN AGE ENCRYPTED FILE-----\n"), Kind::Problem, "age's text form");
        fails(open(b"age-encryption.org/v1\n-> X25519"), Kind::Problem, "truncated in its header");
        let mut long = b"age-encryption.org/v1\n".to_vec();
        long.extend(b"-> x\n\n".repeat(20_000));
        fails(open(&long), Kind::Problem, "does not end within 65536 bytes");
        // As long as allowed, and of quadratic cost if parsed line by line.
        long.truncate(65_000 / 6 * 6 + 22);
        long.extend(format!("--- {}\n", "A".repeat(43)).as_bytes());
        long.extend([0; 16 + 16]);
        fails(open(&long), Kind::Usage, "none of the keys");
    }

    #[test]
    fn a_header_with_an_excessive_work_factor_is_refused_at_once() {
        let (encrypt_with, keys) = passphrase("right");
        let cipher = encrypt(b"x", &encrypt_with);
        let line = cipher.split(|byte| *byte == b'\n').nth(1).unwrap().to_vec();
        let line = String::from_utf8(line).unwrap();
        let start = line.strip_suffix(" 4").unwrap();
        for work in ["21", "30", "63", "64", "255", "256", "0", "-1", "04", "99999999999999999999"] {
            let hostile = format!("{start} {work}");
            let rest = &cipher[22 + line.len()..];
            let hostile = [&cipher[..22], hostile.as_bytes(), rest].concat();
            let error = DecryptedArchive::open(Arc::new(hostile), &keys).map(|_| ()).unwrap_err();
            // An invalid work factor is a damaged header; with a work factor of 0 no key matches.
            assert!(matches!(error.kind, Kind::Problem | Kind::Usage), "{work}: {}", error.full_message());
            if ["21", "30", "63"].contains(&work) {
                let message = error.full_message();
                assert!(message.contains(&format!("2^{work} rounds of scrypt")), "{message}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let (encrypt_with, keys) = key();
        let bytes = plain(300_000);
        let cipher = encrypt(&bytes, &encrypt_with);
        let head = head_bytes(&cipher);
        let whole = DecryptedArchive::open(Arc::new(cipher.clone()), &keys).unwrap();
        // Every byte of the head; of each chunk, its first and last byte, its tag and some bytes between.
        let mut places: Vec<usize> = (0..head).collect();
        for start in (head..cipher.len()).step_by(65_552) {
            let end = (start + 65_552).min(cipher.len());
            places.extend([start, start + 1, (start + end) / 2, end - 17, end - 16, end - 1]);
        }
        for place in places {
            let mut damaged = cipher.clone();
            damaged[place] ^= 1;
            let error = open_and_read(&damaged, &keys).map(|_| ()).unwrap_err();
            // A damaged wrapped key looks like one for another recipient.
            let wrapped = place > 22 && place < head - 16;
            assert!(
                error.kind == Kind::Problem || (wrapped && error.kind == Kind::Usage),
                "at {place} of {head}: {}",
                error.full_message()
            );
            // A stream also finds it if the archive was opened before the damage.
            let words = if place < head { "has changed since it was opened" } else { "damaged" };
            fails(streamed(&whole, &damaged[..]), Kind::Problem, words);
        }
    }

    #[test]
    fn damage_is_found_by_each_read_that_includes_it() {
        let (encrypt_with, keys) = key();
        let bytes = plain(1_000_000);
        let mut cipher = encrypt(&bytes, &encrypt_with);
        let place = head_bytes(&cipher) + 3 * 65_552 + 7;
        cipher[place] ^= 0x40;
        let decrypted = DecryptedArchive::open(Arc::new(cipher), &keys).unwrap();
        let mut found = vec![0; 65_536];
        decrypted.read_at(2 * 65_536, &mut found).unwrap();
        assert!(found == bytes[2 * 65_536..][..65_536]);
        let error = Error::from(decrypted.read_at(3 * 65_536 + 60_000, &mut found[..1]).unwrap_err());
        fails::<()>(Err(error), Kind::Problem, "damaged at or after offset");
        decrypted.read_at(4 * 65_536, &mut found).unwrap();
    }

    #[test]
    fn truncation_and_additions_are_found_by_open_and_by_stream() {
        let (encrypt_with, keys) = key();
        for size in [0, 100, 65_536, 200_000, 262_144] {
            let cipher = encrypt(&plain(size), &encrypt_with);
            let (head, len) = (head_bytes(&cipher), cipher.len());
            let whole = DecryptedArchive::open(Arc::new(cipher.clone()), &keys).unwrap();
            let mut wrong: Vec<Vec<u8>> = Vec::new();
            let cuts = [1, 15, 16, 17, 90, 65_536, 65_552, 65_553, 131_104, len - head, len - head + 1, len - 5];
            for cut in cuts.into_iter().filter(|cut| *cut <= len) {
                wrong.push(cipher[..len - cut].to_vec());
            }
            // At each chunk's end.
            wrong.extend((head..len).step_by(65_552).map(|end| cipher[..end].to_vec()));
            for more in [1, 15, 16, 17, 65_552] {
                wrong.push([&cipher[..], &vec![0; more]].concat());
                wrong.push([&cipher[..], &cipher[len - more.min(len)..]].concat());
            }
            // The last chunk twice, and chunks exchanged.
            wrong.push([&cipher[..], &cipher[head + (size.saturating_sub(1) / 65_536) * 65_552..]].concat());
            if size > 131_072 {
                let (one, two) = (&cipher[head..head + 65_552], &cipher[head + 65_552..head + 131_104]);
                wrong.push([&cipher[..head], two, one, &cipher[head + 131_104..]].concat());
            }
            for cipher in wrong {
                let found = open_and_read(&cipher, &keys);
                fails(found, Kind::Problem, "");
                fails(streamed(&whole, &cipher[..]), Kind::Problem, "");
                if cipher.len() != len {
                    fails(DecryptedArchive::open(Arc::new(cipher), &keys), Kind::Problem, "");
                }
            }
        }
    }

    #[test]
    fn an_empty_chunk_after_a_full_one_is_refused() {
        assert!(Chunks::of(0).is_err() && Chunks::of(15).is_err());
        assert_eq!(Chunks::of(16).unwrap().bytes, 0);
        assert_eq!(Chunks::of(65_552).unwrap().bytes, 65_536);
        for extra in 1..=16 {
            assert!(Chunks::of(65_552 + extra).is_err());
        }
        assert_eq!(Chunks::of(65_552 + 17).unwrap().bytes, 65_537);
        assert_eq!(Chunks::of(65_552 * 3 + 20).unwrap().bytes, 65_536 * 3 + 4);
    }

    #[test]
    fn errors_of_the_source_keep_their_kind() {
        let (encrypt_with, keys) = key();
        let cipher = encrypt(&plain(1_000_000), &encrypt_with);
        let watched = Watched::new(cipher.clone());
        let decrypted = DecryptedArchive::open(Arc::clone(&watched) as Arc<dyn Ranged>, &keys).unwrap();
        for kind in [Kind::Unreachable, Kind::Interrupted, Kind::NotFound] {
            *watched.failing.lock().unwrap() = Some(kind);
            fails(DecryptedArchive::open(Arc::clone(&watched) as Arc<dyn Ranged>, &keys), kind, "the store is gone");
            fails(decrypted.read_at(0, &mut [0; 10]).map_err(Error::from), kind, "the store is gone");

            struct Failing(Kind);
            impl Read for Failing {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(Error::new(self.0, "the store is gone").into())
                }
            }
            for before in [0, 100, 300, 5_000, 65_552, 500_000] {
                fails(streamed(&decrypted, cipher[..before].chain(Failing(kind))), kind, "the store is gone");
            }
        }
        let shorter = Watched::new(cipher[..cipher.len() / 2].to_vec());
        let error = decrypted.stream(&shorter.bytes[..]).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        fails::<()>(Err(error.into()), Kind::Problem, "truncated");
    }

    #[test]
    fn a_failed_write_keeps_its_kind_and_ends_the_archive() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if bytes.len() > self.0 {
                    self.0 = usize::MAX;
                    return Err(Error::unreachable("the store is gone").into());
                }
                self.0 -= bytes.len();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let encrypt_with = key().0;
        for room in [0, 10, 70_000, 140_000] {
            let mut writer = EncryptingWriter::create(Full(room), &encrypt_with).unwrap();
            let failed = (0..10).find_map(|_| writer.write_all(&plain(30_000)).err()).unwrap();
            fails::<()>(Err(failed.into()), Kind::Unreachable, "the store is gone");
            // The store accepts writes again, but the upload has failed for good.
            fails(writer.write(b"more").map_err(Error::from), Kind::Failed, "after an earlier failure");
            fails(writer.flush().map_err(Error::from), Kind::Failed, "after an earlier failure");
            fails(writer.finish().map(|_| ()), Kind::Failed, "after an earlier failure");
        }
        let writer = EncryptingWriter::create(Full(0), &encrypt_with).unwrap();
        fails(writer.finish().map(|_| ()), Kind::Unreachable, "the store is gone");
    }

    #[test]
    fn an_abandoned_archive_does_not_open() {
        let (encrypt_with, keys) = key();
        for size in [0, 10, 65_536, 131_072, 200_000] {
            let mut cipher = Vec::new();
            let mut writer = EncryptingWriter::create(&mut cipher, &encrypt_with).unwrap();
            writer.write_all(&plain(size)).unwrap();
            writer.flush().unwrap();
            drop(writer);
            fails(DecryptedArchive::open(Arc::new(cipher), &keys), Kind::Problem, "");
        }
    }

    #[test]
    fn no_recipient_and_too_many_recipients_are_refused() {
        fails(EncryptingWriter::create(Vec::new(), &EncryptWith::Recipients(Vec::new())), Kind::Usage, "at least one");
        fails(EncryptingWriter::create(Vec::new(), &EncryptWith::Passphrase(Secret::new(""))), Kind::Usage, "is empty");
        let EncryptWith::Recipients(one) = key().0 else { panic!("no passphrase") };
        let many = |count: usize| EncryptWith::Recipients(one.iter().cycle().take(count).cloned().collect());
        fails(EncryptingWriter::create(Vec::new(), &many(MAX_RECIPIENTS + 1)), Kind::Usage, "at most");
        let cipher = encrypt(b"x", &many(MAX_RECIPIENTS));
        assert!(head_bytes(&cipher) < MAX_HEAD_BYTES / 2);
    }
}
