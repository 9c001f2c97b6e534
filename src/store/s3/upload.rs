//! An object being written: small ones in one request, large ones in parts of equal size that are sent while more is
//! being written.
//!
//! Every upload puts a word of its own into the object's metadata. Where a reply was lost, or where the service says
//! that an object is there already, that word tells whether it is ours.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{
    ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart, ObjectLockMode, ServerSideEncryption, StorageClass,
};
use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::task::JoinHandle;

use super::failure::{Answer, answer, told};
use super::place::Place;
use super::settings::{Checksums, LockMode, ServerEncryption};
use crate::platform::error::{Error, Result};
use crate::store::{Key, Published, Upload};

/// The size of a part where nothing speaks for another.
const PART_BYTES: u64 = 8 << 20;
/// The most parts that an upload may have, a few less than S3's 10,000.
const MAX_PARTS: u64 = 9_900;
/// The most parts on their way at once, and the most bytes in them.
const LANES: u64 = 4;
const LANES_BYTES: u64 = 48 << 20;
/// Where an object carries the word of its upload.
const WORD: &str = "lifeboat-upload";
/// How long giving up may take; whoever pressed Ctrl-C is waiting.
const ABORT: Duration = Duration::from_secs(5);
/// The same for each try, within that, in milliseconds.
const ABORT_TRIES_MS: [u64; 5] = [500, 500, 1000, 1000, 1900];
/// How often a publish is tried again that met another one of its object under way.
const CONFLICTS: u32 = 5;
/// How long the service may take over putting parts together, as many times as a request.
const COMPLETION: u32 = 10;

/// An object being written; nothing of it is to be seen before `finish`, and it is given up when dropped.
pub(super) struct S3Upload {
    place: Arc<Place>,
    key: Key,
    word: String,
    part_bytes: usize,
    buffer: Vec<u8>,
    parts: Option<Parts>,
    bytes: u64,
    /// Set by the first error for good: bytes may be missing, so nothing may be published.
    failed: bool,
}

/// The parts of an upload that is under way.
struct Parts {
    upload: String,
    on_their_way: VecDeque<JoinHandle<Result<CompletedPart>>>,
    sent: Vec<CompletedPart>,
    /// The MD5 of each part, which is what the service gives as a part's ETag where it hides nothing.
    md5s: Vec<[u8; 16]>,
}

/// What an object must be to be ours.
struct Expected {
    bytes: u64,
    etag: String,
    md5s: Vec<[u8; 16]>,
}

/// Whose the object is that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Ours,
    Others,
    Nothing,
}

/// How a try to publish ended that was not simply done.
enum Try {
    /// Look at what is there.
    Look,
    /// Try again.
    Again,
    /// Try again, and do not ask the service to refuse where an object is there: it does not know how.
    Unconditionally,
    /// It has failed, unless what is there says otherwise.
    Failed(Error),
}

impl Try {
    /// What a refused publish is to be followed by.
    fn after<E>(error: SdkError<E, HttpResponse>, is_conditional: bool, message: String) -> Self
    where
        E: ProvideErrorMetadata + RequestId + std::error::Error + Send + Sync + 'static,
    {
        match answer(&error) {
            Answer::AlreadyThere => Try::Look,
            Answer::Conflict => Try::Again,
            Answer::Unknown if is_conditional => Try::Unconditionally,
            _ => Try::Failed(told(error, message)),
        }
    }
}

/// The size of the parts of an upload of at most so many bytes.
pub(super) fn part_bytes(asked: Option<u64>, most_bytes: u64) -> u64 {
    asked.unwrap_or_else(|| most_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART_BYTES))
}

/// Adds to a request how new objects are kept.
macro_rules! kept {
    ($request:expr, $upload:expr) => {{
        let settings = &$upload.place.settings;
        let (sse, key) = match &settings.encryption {
            None => (None, None),
            Some(ServerEncryption::Aes256) => (Some(ServerSideEncryption::Aes256), None),
            Some(ServerEncryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        };
        let mode = settings.lock.map(|lock| match lock.mode {
            LockMode::Governance => ObjectLockMode::Governance,
            LockMode::Compliance => ObjectLockMode::Compliance,
        });
        let until = settings
            .lock
            .map(|lock| DateTime::from(SystemTime::now() + Duration::from_secs(u64::from(lock.days) * 24 * 3600)));
        $request
            .metadata(WORD, &$upload.word)
            .set_storage_class(settings.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(key)
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
    }};
}

impl S3Upload {
    pub(super) fn new(place: Arc<Place>, key: Key, most_bytes: u64) -> Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::failed("the system gives no random numbers").because(error.to_string()))?;
        let part_bytes = part_bytes(place.settings.part_bytes, most_bytes);
        Ok(S3Upload {
            place,
            key,
            word: hex::encode(random),
            part_bytes: usize::try_from(part_bytes).map_err(|_| Error::usage("the store's part_size is too large"))?,
            buffer: Vec::new(),
            parts: None,
            bytes: 0,
            failed: false,
        })
    }

    fn message(&self) -> String {
        format!("cannot write {} in {}", self.key, self.place.name())
    }

    fn check_whole(&self) -> Result<()> {
        if self.failed {
            return Err(Error::failed(format!("{} after an earlier failure", self.message())));
        }
        Ok(())
    }

    /// Sends what the buffer holds as the next part; waits where too many are on their way.
    fn send_part(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let upload = self.place.bridge.wait(self.begin())?;
            self.parts = Some(Parts { upload, on_their_way: VecDeque::new(), sent: Vec::new(), md5s: Vec::new() });
        }
        let lanes = (LANES_BYTES / self.part_bytes as u64).clamp(1, LANES) as usize;
        self.wait_for_parts(lanes - 1)?;
        let (place, key, message) = (Arc::clone(&self.place), self.key.clone(), self.message());
        let body = Bytes::from(std::mem::take(&mut self.buffer));
        let parts = self.parts.as_mut().expect("begun just above");
        if parts.md5s.len() as u64 >= MAX_PARTS {
            return Err(Error::failed(format!("{message}: it is larger than was expected, and has too many parts"))
                .hint(format!("make its parts larger, with ?part_size={}", self.part_bytes * 4)));
        }
        let md5: [u8; 16] = Md5::digest(&body).into();
        parts.md5s.push(md5);
        let number = i32::try_from(parts.md5s.len()).expect("bounded just above");
        let upload = parts.upload.clone();
        parts.on_their_way.push_back(self.place.bridge.start(async move {
            let patience = place.bridge.patience(body.len() as u64);
            let request = place.client().upload_part().bucket(place.bucket()).key(place.path(&key)).upload_id(upload);
            let request = request.part_number(number).content_md5(base64(md5)).body(ByteStream::from(body));
            match request.customize().config_override(place.bridge.patient(patience)).send().await {
                Ok(reply) => {
                    let part = CompletedPart::builder().part_number(number).set_e_tag(reply.e_tag);
                    Ok(part.set_checksum_crc32(reply.checksum_crc32).build())
                }
                Err(error) => Err(told(error, message)),
            }
        }));
        Ok(())
    }

    async fn begin(&self) -> Result<String> {
        let request = self.place.client().create_multipart_upload().bucket(self.place.bucket());
        // An upload whose parts carry checksums must say so, and of what kind they are.
        let is_summed = self.place.settings.checksums == Checksums::WhenSupported;
        let request = request.set_checksum_algorithm(is_summed.then_some(ChecksumAlgorithm::Crc32));
        let request = kept!(request.key(self.place.path(&self.key)), self);
        let begun = request.send().await.map_err(|error| told(error, self.message()))?;
        begun.upload_id.ok_or_else(|| Error::failed(self.message()).because("the service gave the upload no id"))
    }

    /// Waits until no more than `most` parts are on their way.
    fn wait_for_parts(&mut self, most: usize) -> Result<()> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        while parts.on_their_way.len() > most {
            let next = parts.on_their_way.front_mut().expect("there are some");
            let done = self
                .place
                .bridge
                .wait(async { next.await.unwrap_or_else(|_| Err(Error::failed("a thread has died"))) });
            parts.on_their_way.pop_front();
            parts.sent.push(done?);
        }
        Ok(())
    }

    fn expected(&self) -> Expected {
        match &self.parts {
            None => {
                let md5: [u8; 16] = Md5::digest(&self.buffer).into();
                Expected { bytes: self.bytes, etag: hex::encode(md5), md5s: vec![md5] }
            }
            Some(parts) => {
                let etag = format!("{}-{}", hex::encode(Md5::digest(parts.md5s.concat())), parts.md5s.len());
                Expected { bytes: self.bytes, etag, md5s: parts.md5s.clone() }
            }
        }
    }

    async fn publish(&self) -> Result<Published> {
        let expected = self.expected();
        // For services that do not heed the condition below.
        if self.head().await?.is_some() {
            return Ok(Published::AlreadyThere);
        }
        let (mut is_conditional, mut tries) = (true, 0);
        loop {
            let done = match &self.parts {
                None => self.put(is_conditional).await,
                Some(parts) => self.complete(parts, is_conditional).await,
            };
            let failure = match done {
                Ok(()) | Err(Try::Look) => None,
                Err(Try::Unconditionally) if is_conditional => {
                    tracing::debug!("{} takes no conditional writes", self.place.name());
                    is_conditional = false;
                    continue;
                }
                Err(Try::Again) if tries < CONFLICTS => {
                    tries += 1;
                    self.place.bridge.pause(tries).await;
                    continue;
                }
                Err(Try::Failed(error)) => Some(error),
                Err(Try::Again | Try::Unconditionally) => {
                    Some(Error::unreachable(self.message()).because("another upload of it was under way all the time"))
                }
            };
            return match (self.look(&expected).await, failure) {
                (Ok(Found::Ours), None) => Ok(Published::Created),
                (Ok(Found::Ours), Some(error)) => {
                    tracing::warn!("the service's reply was lost ({}); {} is there, whole", error.whole(), self.key);
                    Ok(Published::Created)
                }
                (Ok(Found::Others), None) => Ok(Published::AlreadyThere),
                (Ok(Found::Nothing), None) => {
                    Err(Error::failed(self.message())
                        .because("the service said that it was stored, and it is not there"))
                }
                (_, Some(error)) | (Err(error), None) => Err(error),
            };
        }
    }

    /// Writes a small object.
    async fn put(&self, is_conditional: bool) -> Result<(), Try> {
        let md5: [u8; 16] = Md5::digest(&self.buffer).into();
        let request = self.place.client().put_object().bucket(self.place.bucket()).key(self.place.path(&self.key));
        let request = kept!(request, self).content_md5(base64(md5)).body(ByteStream::from(self.buffer.clone()));
        let request = request.set_if_none_match(is_conditional.then(|| "*".to_owned()));
        let patience = self.place.bridge.patience(self.bytes);
        match request.customize().config_override(self.place.bridge.patient(patience)).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(Try::after(error, is_conditional, self.message())),
        }
    }

    /// Puts the parts together.
    async fn complete(&self, parts: &Parts, is_conditional: bool) -> Result<(), Try> {
        let request = self.place.client().complete_multipart_upload().bucket(self.place.bucket());
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.sent.clone())).build();
        let request = request.key(self.place.path(&self.key)).upload_id(&parts.upload).multipart_upload(list);
        let request = request.set_if_none_match(is_conditional.then(|| "*".to_owned()));
        let patience = self.place.bridge.patience(0) * COMPLETION;
        match request.customize().config_override(self.place.bridge.patient(patience)).send().await {
            Ok(_) => Ok(()),
            // "No such upload" also where this very one was completed, and the reply lost.
            Err(error) => Err(Try::after(error, is_conditional, self.message())),
        }
    }

    async fn head(&self) -> Result<Option<HeadObjectOutput>> {
        self.place.head(&self.key).await
    }

    /// Looks at what the store has under the key, and whether that is what was sent, whatever the service said.
    async fn look(&self, expected: &Expected) -> Result<Found> {
        let Some(head) = self.head().await? else { return Ok(Found::Nothing) };
        let word = head.metadata().and_then(|metadata| metadata.get(WORD));
        if word.is_some_and(|word| *word != self.word) {
            return Ok(Found::Others);
        }
        let bytes = head.content_length().and_then(|bytes| u64::try_from(bytes).ok());
        let etag = head.e_tag().map(|etag| etag.trim_matches('"'));
        let is_whole = bytes == Some(expected.bytes)
            && (etag == Some(&expected.etag) || self.reads_back(expected, head.e_tag()).await?);
        match (is_whole, word) {
            (true, _) => Ok(Found::Ours),
            // It carries no word: somebody else's.
            (false, None) => Ok(Found::Others),
            (false, Some(_)) => {
                let _ = self.place.delete(&self.key).await;
                Err(Error::failed(self.message()).because(format!(
                    "the service has stored something else than was sent ({} bytes of {})",
                    bytes.unwrap_or(0),
                    expected.bytes
                )))
            }
        }
    }

    /// Reads the object back, for services whose ETag is no MD5: those that encrypt with a key service, for one.
    async fn reads_back(&self, expected: &Expected, etag: Option<&str>) -> Result<bool> {
        tracing::info!("reading {} back: the service does not tell its MD5", self.key);
        let mut buffer = vec![0; self.part_bytes.min(LANES_BYTES as usize)];
        let mut at = 0;
        for md5 in &expected.md5s {
            let end = (at + self.part_bytes as u64).min(expected.bytes);
            let mut hasher = Md5::new();
            while at < end {
                let length = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
                self.place.get_range(&self.key, etag, at, &mut buffer[..length]).await?;
                hasher.update(&buffer[..length]);
                at += length as u64;
            }
            if <[u8; 16]>::from(hasher.finalize()) != *md5 {
                return Ok(false);
            }
        }
        Ok(at == expected.bytes)
    }
}

/// Whether the service heeds `If-None-Match: *` where it writes a small object, and where it puts parts together: tried on
/// an object that is there, with all that goes with a write of ours.
pub(super) fn probe_conditions(place: &Arc<Place>, key: &Key) -> [Result<bool>; 2] {
    let upload = || -> Result<S3Upload> {
        let mut upload = S3Upload::new(Arc::clone(place), key.clone(), 0)?;
        upload.write_all(b"overwritten")?;
        Ok(upload)
    };
    let small = || {
        let upload = upload()?;
        upload.place.bridge.wait(async { is_heeded(upload.put(true).await) })
    };
    let in_parts = || {
        let mut upload = upload()?;
        upload.send_part()?;
        upload.wait_for_parts(0)?;
        let parts = upload.parts.as_ref().expect("one was sent");
        // Given up when it is dropped; where it was completed there is nothing to give up.
        upload.place.bridge.wait(async { is_heeded(upload.complete(parts, true).await) })
    };
    [small(), in_parts()]
}

fn is_heeded(tried: Result<(), Try>) -> Result<bool> {
    match tried {
        Err(Try::Look) => Ok(true),
        Ok(()) | Err(Try::Unconditionally) => Ok(false),
        Err(Try::Again) => Err(Error::unreachable("another upload is under way")),
        Err(Try::Failed(error)) => Err(error),
    }
}

impl Write for S3Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_whole()?;
        if self.buffer.capacity() == 0 && self.parts.is_some() {
            self.buffer.reserve_exact(self.part_bytes);
        }
        let length = bytes.len().min(self.part_bytes - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        self.bytes += length as u64;
        if self.buffer.len() == self.part_bytes
            && let Err(error) = self.send_part()
        {
            self.failed = true;
            return Err(error.into());
        }
        Ok(length)
    }

    /// Does nothing: only whole parts are sent.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.check_whole()?)
    }
}

impl Upload for S3Upload {
    fn finish(mut self: Box<Self>) -> Result<Published> {
        self.check_whole()?;
        if self.parts.is_some() {
            if !self.buffer.is_empty() {
                self.send_part()?;
            }
            self.wait_for_parts(0)?;
        }
        let published = self.place.bridge.wait(self.publish())?;
        if published == Published::Created {
            self.parts = None;
        }
        Ok(published)
    }
}

impl Drop for S3Upload {
    /// Gives up what was sent. Where even that cannot be, `prune` clears it some day.
    fn drop(&mut self) {
        let Some(Parts { upload, on_their_way, .. }) = self.parts.take() else { return };
        on_their_way.iter().for_each(JoinHandle::abort);
        let place = &self.place;
        let given_up = place.bridge.wait_at_most(ABORT, async {
            for part in on_their_way {
                let _ = part.await;
            }
            // A connection that is dead gives no answer, and there may be several: each try has another.
            for longest in ABORT_TRIES_MS.map(Duration::from_millis) {
                let tried = place.abort(place.path(&self.key), upload.clone());
                if let Ok(done) = tokio::time::timeout(longest, tried).await {
                    return done;
                }
            }
            Err(Error::unreachable("the service does not answer"))
        });
        match given_up {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!("an unfinished upload stays until 'prune' clears it: {}", error.whole()),
            None => tracing::warn!("an unfinished upload of {} stays until 'prune' clears it", self.key),
        }
    }
}

/// A hash as HTTP headers carry it.
fn base64(md5: [u8; 16]) -> String {
    aws_smithy_types::base64::encode(md5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_archive_fits_into_the_parts() {
        assert_eq!(part_bytes(None, 0), PART_BYTES);
        assert_eq!(part_bytes(None, 70 << 30), PART_BYTES);
        for most_bytes in [100 << 30, 1 << 40, 5 << 40] {
            let part = part_bytes(None, most_bytes);
            assert!(most_bytes.div_ceil(part) <= MAX_PARTS, "{most_bytes} in {part}");
            assert_eq!(part % (1 << 20), 0);
        }
        assert_eq!(part_bytes(Some(5 << 20), 1 << 40), 5 << 20);
    }
}
