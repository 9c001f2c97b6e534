//! The location of a store in the service: a bucket and a prefix, reached through one client.

use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;

use super::client::Bridge;
use super::failure::{Answer, answer, is_absent, service_error};
use super::settings::S3Settings;
use crate::platform::error::{Error, Result};
use crate::store::interface::Key;

/// The largest object of S3 (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>). Ranges end at it,
/// because services may refuse larger numbers.
const MAX_OBJECT_BYTES: u64 = 50 << 40;

/// The bucket and prefix of a store, and the connection to its service.
pub(super) struct Place {
    pub(super) settings: S3Settings,
    pub(super) bridge: Bridge,
}

impl Place {
    pub(super) fn new(settings: S3Settings) -> Result<Self> {
        let bridge = Bridge::new(&settings)?;
        Ok(Place { settings, bridge })
    }

    pub(super) fn client(&self) -> &Client {
        &self.bridge.client
    }

    pub(super) fn bucket(&self) -> &str {
        &self.settings.bucket
    }

    /// Returns the start of all the store's keys: empty, or ending in a slash.
    pub(super) fn prefix(&self) -> String {
        if self.settings.prefix.is_empty() { String::new() } else { format!("{}/", self.settings.prefix) }
    }

    /// Returns the service's key of an object, with the prefix.
    pub(super) fn path(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix())
    }

    /// Returns the store's name for messages: bucket, prefix and endpoint, without the other settings.
    pub(super) fn name(&self) -> String {
        let separator = if self.settings.prefix.is_empty() { "" } else { "/" };
        let at = self.bridge.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        format!("s3://{}{separator}{}{at}", self.settings.bucket, self.settings.prefix)
    }
}

impl Place {
    /// Requests an object's metadata. Returns `None` if the object does not exist.
    pub(super) async fn head(&self, key: &Key) -> Result<Option<HeadObjectOutput>> {
        match self.client().head_object().bucket(self.bucket()).key(self.path(key)).send().await {
            Ok(head) => Ok(Some(head)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(service_error(error, format!("cannot read the metadata of {key} in {}", self.name()))),
        }
    }

    /// Reads a small object with one request. An object of more than `max_bytes` is refused before its body is read.
    pub(super) async fn get(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        let range = format!("bytes=0-{}", max_bytes.min(MAX_OBJECT_BYTES));
        let message = || format!("cannot read {key} in {}", self.name());
        self.until_complete(message, async || {
            let request = self.client().get_object().bucket(self.bucket()).key(self.path(key));
            // The reply to a range request has the length of the object as well as its own.
            let reply = match request.range(&range).send().await {
                Ok(reply) => reply,
                Err(error) if answer(&error) == Answer::Absent => {
                    return Err(Error::not_found(format!("{key} does not exist in {}", self.name())));
                }
                // An empty object has no valid range. HEAD confirms that it is empty.
                Err(error) if answer(&error) == Answer::Empty => {
                    return match self.head(key).await?.and_then(|head| head.content_length()) {
                        Some(0) => Ok(Ok(Vec::new())),
                        _ => Err(service_error(error, message())),
                    };
                }
                Err(error) => return Err(service_error(error, message())),
            };
            let total = reply.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
            let total = total.or(reply.content_length().and_then(|bytes| u64::try_from(bytes).ok()));
            let bytes =
                total.ok_or_else(|| Error::failed(message()).because("the service did not return its length"))?;
            if bytes > max_bytes {
                return Err(Error::problem(format!("{key} has {bytes} bytes, but at most {max_bytes} are allowed")));
            }
            let mut content = vec![0; usize::try_from(bytes).expect("a small object")];
            Ok(self.fill(reply.body, &mut content).await.map(|()| content))
        })
        .await
    }

    /// Fills `buffer` with a range of an object. Fails if the object's ETag is no longer `etag`: it is another object.
    pub(super) async fn get_range(&self, key: &Key, etag: Option<&str>, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let bytes = buffer.len() as u64;
        let time_limit = self.bridge.time_limit(bytes);
        let message = || format!("cannot read {key} in {}", self.name());
        self.until_complete(message, async || {
            let request = self.client().get_object().bucket(self.bucket()).key(self.path(key));
            let request = request.range(format!("bytes={offset}-{}", offset + bytes - 1));
            let request = request.set_if_match(etag.map(str::to_owned)).customize();
            match request.config_override(self.bridge.with_time_limit(time_limit)).send().await {
                Ok(reply) => Ok(self.fill(reply.body, buffer).await),
                Err(error) => Err(match answer(&error) {
                    Answer::Absent => Error::not_found(format!("{key} no longer exists in {}", self.name())),
                    // This is not damage: a new attempt may find the intended object.
                    Answer::ConditionFailed => {
                        Error::failed(message()).because("the object was replaced after it was opened")
                    }
                    _ => service_error(error, message()),
                }),
            }
        })
        .await
    }

    /// Repeats `attempt`, a bounded number of times, until it has read a reply's whole body. The SDK retries only until
    /// a reply begins, not if its body ends early. `attempt` returns the reason in the inner result.
    async fn until_complete<T>(
        &self,
        message: impl Fn() -> String,
        mut attempt: impl AsyncFnMut() -> Result<Result<T, String>>,
    ) -> Result<T> {
        let mut tries = 0;
        loop {
            let reason = match attempt().await? {
                Ok(complete) => return Ok(complete),
                Err(reason) => reason,
            };
            tries += 1;
            if tries > self.bridge.retries() {
                return Err(Error::unreachable(message()).because(reason).hint("try again later"));
            }
            tracing::debug!("{}: {reason}; trying again", message());
            self.bridge.back_off(tries).await;
        }
    }

    /// Fills the buffer from a reply's body, which must have exactly the buffer's length and arrive in time.
    async fn fill(&self, body: ByteStream, buffer: &mut [u8]) -> Result<(), String> {
        let time_limit = self.bridge.time_limit(buffer.len() as u64);
        let filled = tokio::time::timeout(time_limit, fill(body, buffer)).await;
        filled.unwrap_or_else(|_| Err("the service did not send the complete reply in time".to_owned()))
    }

    /// Deletes an object. It is not an error if the object does not exist.
    pub(super) async fn delete(&self, key: &Key) -> Result<()> {
        match self.client().delete_object().bucket(self.bucket()).key(self.path(key)).send().await {
            Ok(_) => Ok(()),
            Err(error) if answer(&error) == Answer::Absent => Ok(()),
            Err(error) => Err(service_error(error, format!("cannot delete {key} in {}", self.name()))),
        }
    }

    /// Aborts an unfinished upload. It is not an error if the upload does not exist.
    pub(super) async fn abort(&self, path: String, upload: String) -> Result<()> {
        let request = self.client().abort_multipart_upload().bucket(self.bucket()).key(&path).upload_id(upload);
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if answer(&error) == Answer::Absent => Ok(()),
            Err(error) => Err(service_error(error, format!("cannot abort an unfinished upload in {}", self.name()))),
        }
    }
}

/// Fills the buffer from a reply's body, which must have exactly the buffer's length.
async fn fill(mut body: ByteStream, buffer: &mut [u8]) -> Result<(), String> {
    let mut at = 0;
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| format!("the reply was interrupted: {error}"))?;
        let end = at + bytes.len();
        buffer.get_mut(at..end).ok_or("the reply is longer than requested")?.copy_from_slice(&bytes);
        at = end;
    }
    if at == buffer.len() { Ok(()) } else { Err(format!("the reply has {at} bytes instead of {}", buffer.len())) }
}
