//! Uploads: small objects in one request, large ones as multipart uploads with parts of equal size, which are sent
//! while more is being written.
//!
//! Every upload writes its own random id into the object's metadata. If a reply was lost, or if the service says that
//! the object exists already, this id shows whether this upload wrote it.

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

use super::failure::{Answer, answer, may_refuse_condition, service_error};
use super::place::Place;
use super::settings::{Checksums, LockMode, ServerEncryption};
use crate::platform::error::{Error, Result};
use crate::platform::text;
use crate::store::interface::{Key, Published, Upload};

/// The default size of a part.
const PART_BYTES: u64 = 8 << 20;
/// The maximum number of parts of an upload, a few less than S3's limit of 10,000.
const MAX_PARTS: u64 = 9_900;
/// The maximum number of parts in flight, and the maximum number of bytes in them.
const MAX_PARTS_IN_FLIGHT: u64 = 4;
const MAX_BYTES_IN_FLIGHT: u64 = 48 << 20;
/// The metadata key that holds an upload's id.
const ID_METADATA: &str = "lifeboat-upload";
/// The maximum time for aborting an upload; a user who pressed Ctrl-C is waiting.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum time for each attempt to abort, in milliseconds; together they fit in [`ABORT_TIMEOUT`].
const ABORT_ATTEMPTS_MS: [u64; 5] = [500, 500, 1000, 1000, 1900];
/// The number of retries of a publish if another upload of the same object is in progress.
const CONFLICT_RETRIES: u32 = 5;
/// The time allowed for completing a multipart upload, as a multiple of a request's timeout.
const COMPLETION_TIMEOUTS: u32 = 10;

/// An object being written. It is invisible before `finish`, and the upload is aborted when dropped.
pub(super) struct S3Upload {
    place: Arc<Place>,
    key: Key,
    id: String,
    part_bytes: usize,
    buffer: Vec<u8>,
    parts: Option<Parts>,
    bytes: u64,
    /// True after the first error, permanently: bytes may be missing, so nothing may be published.
    failed: bool,
}

/// The state of a multipart upload in progress.
struct Parts {
    upload: String,
    in_flight: VecDeque<JoinHandle<Result<CompletedPart>>>,
    sent: Vec<CompletedPart>,
    /// The MD5 of each part. A service that does not encrypt with a key service uses it as the part's ETag.
    md5s: Vec<[u8; 16]>,
}

/// The properties that the stored object must have if this upload wrote it.
struct Expected {
    bytes: u64,
    etag: String,
    md5s: Vec<[u8; 16]>,
}

/// The owner of the object found under the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Ours,
    Others,
    Nothing,
}

/// The next step after an attempt to publish that did not succeed.
enum NextStep {
    /// Check which object exists.
    CheckStored,
    /// Retry.
    Retry,
    /// Retry without the condition that the object must not exist: the service does not support it.
    RetryUnconditionally,
    /// The publish has failed, unless the stored object shows that it succeeded.
    Failed(Error),
}

impl NextStep {
    /// Returns the next step after a publish failed with `error`.
    fn after<E>(error: SdkError<E, HttpResponse>, is_conditional: bool, message: String) -> Self
    where
        E: ProvideErrorMetadata + RequestId + std::error::Error + Send + Sync + 'static,
    {
        match answer(&error) {
            Answer::ConditionFailed => NextStep::CheckStored,
            Answer::Conflict => NextStep::Retry,
            _ if is_conditional && may_refuse_condition(&error) => NextStep::RetryUnconditionally,
            _ => NextStep::Failed(service_error(error, message)),
        }
    }
}

/// Returns the part size for an upload of at most `max_bytes`: `configured`, or one that keeps to [`MAX_PARTS`].
pub(super) fn part_bytes(configured: Option<u64>, max_bytes: u64) -> u64 {
    configured.unwrap_or_else(|| max_bytes.div_ceil(MAX_PARTS).next_multiple_of(1 << 20).max(PART_BYTES))
}

/// Adds the upload's id and the store's settings for new objects to a request: class, encryption, object lock.
macro_rules! with_object_settings {
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
            .metadata(ID_METADATA, &$upload.id)
            .set_storage_class(settings.storage_class.as_deref().map(StorageClass::from))
            .set_server_side_encryption(sse)
            .set_ssekms_key_id(key)
            .set_object_lock_mode(mode)
            .set_object_lock_retain_until_date(until)
    }};
}

impl S3Upload {
    pub(super) fn new(place: Arc<Place>, key: Key, max_bytes: u64) -> Result<Self> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| Error::failed("cannot get random numbers from the system").because(error.to_string()))?;
        let part_bytes = part_bytes(place.settings.part_bytes, max_bytes);
        Ok(S3Upload {
            place,
            key,
            id: hex::encode(random),
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

    fn check_not_failed(&self) -> Result<()> {
        if self.failed {
            return Err(Error::failed(format!("{} after an earlier failure", self.message())));
        }
        Ok(())
    }

    /// Starts sending the buffer as the next part. Waits first if too many parts are in flight.
    fn send_part(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let upload = self.place.bridge.wait(self.begin())?;
            self.parts = Some(Parts { upload, in_flight: VecDeque::new(), sent: Vec::new(), md5s: Vec::new() });
        }
        let most = (MAX_BYTES_IN_FLIGHT / self.part_bytes as u64).clamp(1, MAX_PARTS_IN_FLIGHT) as usize;
        self.wait_for_parts(most - 1)?;
        let (place, key, message) = (Arc::clone(&self.place), self.key.clone(), self.message());
        let body = Bytes::from(std::mem::take(&mut self.buffer));
        let parts = self.parts.as_mut().expect("begun just above");
        if parts.md5s.len() as u64 >= MAX_PARTS {
            return Err(Error::failed(format!(
                "{message}: the object is larger than expected and needs too many parts"
            ))
            .hint(format!("set a larger part size with ?part_size={}", self.part_bytes * 4)));
        }
        let md5: [u8; 16] = Md5::digest(&body).into();
        parts.md5s.push(md5);
        let number = i32::try_from(parts.md5s.len()).expect("bounded just above");
        let part_size_hint = part_size_hint(number, self.part_bytes);
        let upload = parts.upload.clone();
        parts.in_flight.push_back(self.place.bridge.start(async move {
            let time_limit = place.bridge.time_limit(body.len() as u64);
            let request = place.client().upload_part().bucket(place.bucket()).key(place.path(&key)).upload_id(upload);
            let request = request.part_number(number).content_md5(base64(md5)).body(ByteStream::from(body));
            match request.customize().config_override(place.bridge.with_time_limit(time_limit)).send().await {
                Ok(reply) => {
                    let part = CompletedPart::builder().part_number(number).set_e_tag(reply.e_tag);
                    Ok(part.set_checksum_crc32(reply.checksum_crc32).build())
                }
                // The service accepted the parts before this one: it may allow fewer parts than S3 does.
                Err(error) if number > 1 && is_about_parts(&error) => {
                    Err(service_error(error, message).hint(part_size_hint))
                }
                Err(error) => Err(service_error(error, message)),
            }
        }));
        Ok(())
    }

    async fn begin(&self) -> Result<String> {
        let request = self.place.client().create_multipart_upload().bucket(self.place.bucket());
        // If the parts have checksums, the upload must declare their algorithm.
        let is_summed = self.place.settings.checksums == Checksums::WhenSupported;
        let request = request.set_checksum_algorithm(is_summed.then_some(ChecksumAlgorithm::Crc32));
        let request = with_object_settings!(request.key(self.place.path(&self.key)), self);
        let begun = request.send().await.map_err(|error| service_error(error, self.message()))?;
        begun.upload_id.ok_or_else(|| Error::failed(self.message()).because("the service did not return an upload id"))
    }

    /// Waits until at most `most` parts are in flight.
    fn wait_for_parts(&mut self, most: usize) -> Result<()> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        while parts.in_flight.len() > most {
            let next = parts.in_flight.front_mut().expect("there are some");
            let done = self
                .place
                .bridge
                .wait(async { next.await.unwrap_or_else(|_| Err(Error::failed("a task ended unexpectedly"))) });
            parts.in_flight.pop_front();
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
        // For services that ignore the condition below.
        if self.head().await?.is_some() {
            return Ok(Published::AlreadyExists);
        }
        let (mut is_conditional, mut tries) = (true, 0);
        loop {
            let done = match &self.parts {
                None => self.put(is_conditional).await,
                Some(parts) => self.complete(parts, is_conditional).await,
            };
            let failure = match done {
                Ok(()) | Err(NextStep::CheckStored) => None,
                Err(NextStep::RetryUnconditionally) if is_conditional => {
                    tracing::debug!("{} does not support conditional writes", self.place.name());
                    is_conditional = false;
                    continue;
                }
                Err(NextStep::Retry) if tries < CONFLICT_RETRIES => {
                    tries += 1;
                    self.place.bridge.back_off(tries).await;
                    continue;
                }
                Err(NextStep::Failed(error)) => Some(error),
                Err(NextStep::Retry | NextStep::RetryUnconditionally) => {
                    Some(Error::unreachable(self.message()).because("another upload of the object is in progress"))
                }
            };
            return match (self.check_stored(&expected).await, failure) {
                (Ok(Found::Ours), None) => Ok(Published::Created),
                (Ok(Found::Ours), Some(error)) => {
                    let reason = error.full_message();
                    tracing::warn!("the service's reply was lost ({reason}), but {} was stored", self.key);
                    Ok(Published::Created)
                }
                (Ok(Found::Others), None) => Ok(Published::AlreadyExists),
                (Ok(Found::Nothing), None) => Err(Error::failed(self.message())
                    .because("the service reported success, but the object does not exist")),
                (_, Some(error)) | (Err(error), None) => Err(error),
            };
        }
    }

    /// Writes a small object.
    async fn put(&self, is_conditional: bool) -> Result<(), NextStep> {
        let md5: [u8; 16] = Md5::digest(&self.buffer).into();
        let request = self.place.client().put_object().bucket(self.place.bucket()).key(self.place.path(&self.key));
        let request = with_object_settings!(request, self).content_md5(base64(md5));
        let request = request.body(ByteStream::from(self.buffer.clone()));
        let request = request.set_if_none_match(is_conditional.then(|| "*".to_owned()));
        let time_limit = self.place.bridge.time_limit(self.bytes);
        match request.customize().config_override(self.place.bridge.with_time_limit(time_limit)).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(NextStep::after(error, is_conditional, self.message())),
        }
    }

    /// Completes the multipart upload.
    async fn complete(&self, parts: &Parts, is_conditional: bool) -> Result<(), NextStep> {
        let request = self.place.client().complete_multipart_upload().bucket(self.place.bucket());
        let list = CompletedMultipartUpload::builder().set_parts(Some(parts.sent.clone())).build();
        let request = request.key(self.place.path(&self.key)).upload_id(&parts.upload).multipart_upload(list);
        let request = request.set_if_none_match(is_conditional.then(|| "*".to_owned()));
        let time_limit = self.place.bridge.time_limit(0) * COMPLETION_TIMEOUTS;
        match request.customize().config_override(self.place.bridge.with_time_limit(time_limit)).send().await {
            Ok(_) => Ok(()),
            Err(error) if parts.sent.len() > 1 && is_too_many(&error) => {
                let count = i32::try_from(parts.sent.len()).unwrap_or(i32::MAX);
                let hint = part_size_hint(count, self.part_bytes);
                Err(NextStep::Failed(service_error(error, self.message()).hint(hint)))
            }
            // "No such upload" is also the error if this upload was completed and the reply was lost.
            Err(error) => Err(NextStep::after(error, is_conditional, self.message())),
        }
    }

    async fn head(&self) -> Result<Option<HeadObjectOutput>> {
        self.place.head(&self.key).await
    }

    /// Returns the owner of the stored object, regardless of the service's reply. Deletes the object if this upload
    /// wrote it but it differs from what was sent.
    async fn check_stored(&self, expected: &Expected) -> Result<Found> {
        let Some(head) = self.head().await? else { return Ok(Found::Nothing) };
        let id = head.metadata().and_then(|metadata| metadata.get(ID_METADATA));
        if id.is_some_and(|id| *id != self.id) {
            return Ok(Found::Others);
        }
        let bytes = head.content_length().and_then(|bytes| u64::try_from(bytes).ok());
        let etag = head.e_tag().map(|etag| etag.trim_matches('"'));
        let is_equal = bytes == Some(expected.bytes)
            && (etag == Some(&expected.etag) || self.equals_when_read_back(expected, head.e_tag()).await?);
        match (is_equal, id) {
            (true, _) => Ok(Found::Ours),
            // It has no upload id: another writer wrote it.
            (false, None) => Ok(Found::Others),
            (false, Some(_)) => {
                let _ = self.place.delete(&self.key).await;
                Err(Error::failed(self.message()).because(format!(
                    "the stored object differs from what was sent ({} bytes of {})",
                    bytes.unwrap_or(0),
                    expected.bytes
                )))
            }
        }
    }

    /// Reads the object back and compares its MD5s, for services whose ETag is not an MD5, such as those that encrypt
    /// with a key service.
    async fn equals_when_read_back(&self, expected: &Expected, etag: Option<&str>) -> Result<bool> {
        tracing::info!("reading {} back to verify it: the service does not return its MD5", self.key);
        let mut buffer = vec![0; self.part_bytes.min(MAX_BYTES_IN_FLIGHT as usize)];
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

/// Returns true if a service may have refused a part because of its number. Services with a smaller limit than S3 use
/// various codes for that, but always status 400.
fn is_about_parts<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    const CODES: [&str; 5] = ["InvalidArgument", "InvalidPart", "InvalidPartNumber", "InvalidRequest", "TooManyParts"];
    CODES.contains(&error.code().unwrap_or_default())
}

/// Returns true if a service refused to complete an upload because of the number of its parts.
fn is_too_many<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let message = error.message().unwrap_or_default().to_ascii_lowercase();
    error.code() == Some("TooManyParts") || (message.contains("parts") && message.contains("many"))
}

fn part_size_hint(number: i32, part_bytes: usize) -> String {
    let larger = text::bytes(part_bytes as u64 * 8).replace(' ', "").replace(".00", "");
    format!(
        "part {number} was refused: if the service allows fewer parts than S3, set a larger part size with \
         ?part_size={larger}, or part_size in the config"
    )
}

/// The part numbers that a probe tries: the most that an upload may have, and the limit of some services.
const PROBED_PARTS: [i32; 2] = [MAX_PARTS as i32, 1_000];

/// Tests how many parts the service allows for one upload: it sends a part with a high number, and aborts the upload.
pub(super) fn probe_parts(place: &Arc<Place>, key: &Key) -> Result<String> {
    let upload = S3Upload::new(Arc::clone(place), key.clone(), 0)?;
    let id = place.bridge.wait(upload.begin())?;
    let found = place.bridge.wait(async { Ok(highest_part(place, key, &id).await) });
    place.bridge.wait(place.abort(place.path(key), id))?;
    Ok(match found? {
        Ok(Some(number)) if number == PROBED_PARTS[0] => format!("up to {number} are allowed"),
        Ok(Some(number)) => format!(
            "{number} are allowed, but not {MAX_PARTS}: an archive of more than {} needs a larger part_size",
            text::bytes(u64::from(number.unsigned_abs()) * upload.part_bytes as u64)
        ),
        Ok(None) => format!("fewer than {} are allowed: set a larger part_size for large archives", PROBED_PARTS[1]),
        // Other checks report a service that fails, and nothing depends on this result.
        Err(error) => format!("unknown: {}", error.full_message()),
    })
}

/// Returns the highest of [`PROBED_PARTS`] that the service accepts; `None` if it refuses all of them.
async fn highest_part(place: &Place, key: &Key, upload: &str) -> Result<Option<i32>> {
    for number in PROBED_PARTS {
        let request = place.client().upload_part().bucket(place.bucket()).key(place.path(key)).upload_id(upload);
        let request = request.part_number(number).body(ByteStream::from_static(b"a part with a high number"));
        match request.send().await {
            Ok(_) => return Ok(Some(number)),
            Err(error) if is_about_parts(&error) => {}
            Err(error) => return Err(service_error(error, "a part with a high number was refused")),
        }
    }
    Ok(None)
}

/// Tests whether the service honors `If-None-Match: *` for writing a small object and for completing a multipart
/// upload. The tests use an existing object and requests with all settings of a real upload.
pub(super) fn probe_conditions(place: &Arc<Place>, key: &Key) -> [Result<bool>; 2] {
    let upload = || -> Result<S3Upload> {
        let mut upload = S3Upload::new(Arc::clone(place), key.clone(), 0)?;
        upload.write_all(b"overwritten")?;
        Ok(upload)
    };
    let small = || {
        let upload = upload()?;
        upload.place.bridge.wait(async { is_condition_supported(upload.put(true).await) })
    };
    let in_parts = || {
        let mut upload = upload()?;
        upload.send_part()?;
        upload.wait_for_parts(0)?;
        let parts = upload.parts.as_ref().expect("one was sent");
        // Aborted when dropped; if it was completed, there is nothing to abort.
        upload.place.bridge.wait(async { is_condition_supported(upload.complete(parts, true).await) })
    };
    [small(), in_parts()]
}

fn is_condition_supported(attempt: Result<(), NextStep>) -> Result<bool> {
    match attempt {
        Err(NextStep::CheckStored) => Ok(true),
        Ok(()) | Err(NextStep::RetryUnconditionally) => Ok(false),
        Err(NextStep::Retry) => Err(Error::unreachable("another upload of the object is in progress")),
        Err(NextStep::Failed(error)) => Err(error),
    }
}

impl Write for S3Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.check_not_failed()?;
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

    /// Only reports an earlier failure: data is sent in whole parts.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.check_not_failed()?)
    }
}

impl Upload for S3Upload {
    fn finish(mut self: Box<Self>) -> Result<Published> {
        self.check_not_failed()?;
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
    /// Aborts the multipart upload. If the abort fails, a later `prune` removes the upload.
    fn drop(&mut self) {
        let Some(Parts { upload, in_flight, .. }) = self.parts.take() else { return };
        in_flight.iter().for_each(JoinHandle::abort);
        let place = &self.place;
        let aborted = place.bridge.wait_at_most(ABORT_TIMEOUT, async {
            for part in in_flight {
                let _ = part.await;
            }
            // A dead connection gives no reply, and there may be several: each attempt uses another one.
            for longest in ABORT_ATTEMPTS_MS.map(Duration::from_millis) {
                let attempt = place.abort(place.path(&self.key), upload.clone());
                if let Ok(done) = tokio::time::timeout(longest, attempt).await {
                    return done;
                }
            }
            Err(Error::unreachable("the service does not answer"))
        });
        match aborted {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tracing::warn!("an unfinished upload remains until 'prune' removes it: {}", error.full_message());
            }
            None => tracing::warn!("an unfinished upload of {} remains until 'prune' removes it", self.key),
        }
    }
}

/// Encodes a hash in base64, as HTTP headers carry it.
fn base64(md5: [u8; 16]) -> String {
    aws_smithy_types::base64::encode(md5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_archive_fits_in_the_parts() {
        assert_eq!(part_bytes(None, 0), PART_BYTES);
        assert_eq!(part_bytes(None, 70 << 30), PART_BYTES);
        for max_bytes in [100 << 30, 1 << 40, 5 << 40] {
            let part = part_bytes(None, max_bytes);
            assert!(max_bytes.div_ceil(part) <= MAX_PARTS, "{max_bytes} in {part}");
            assert_eq!(part % (1 << 20), 0);
        }
        assert_eq!(part_bytes(Some(5 << 20), 1 << 40), 5 << 20);
    }
}
