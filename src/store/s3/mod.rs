//! A store in a bucket of S3 or of an S3-compatible service.
//!
//! Required of a service: PUT, ranged GET, HEAD, LIST (version 2), DELETE, and multipart uploads. Used if supported:
//! batch deletes, and `If-None-Match: *` on PUT and on the completion of an upload, so that one of two writers of a key
//! wins. Without support for the condition, a HEAD before the write replaces it: two uploads of one key at the same
//! instant could then both seem to win, which is why ids are random.
//!
//! After an upload, the stored object is checked: its size, and its ETag, which normally is the MD5 of the data sent.
//! If the ETag differs, the object is read back.

mod answers;
mod client;
mod connection;
mod environment;
mod failure;
mod object;
mod place;
mod probe;
mod settings;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{Delete, EncodingType, MultipartUpload, ObjectIdentifier};
use percent_encoding::percent_decode_str;

use self::failure::{Answer, answer, service_error};
use self::object::S3Object;
use self::place::Place;
use self::upload::S3Upload;
use crate::platform::error::{Error, Result};
use crate::platform::ranged::Ranged;
use crate::store::interface::{Key, Listing, Names, ObjectMeta, Store, Upload};

pub use settings::{AccessKey, Checksums, LockMode, ObjectLock, S3Settings, ServerEncryption};

/// The maximum number of objects that one request may delete.
const MAX_DELETES: usize = 1000;

/// The cause of an error if a listing is truncated and the service does not return a new token or marker.
const NO_NEXT_PAGE: &str = "the list is truncated, but the service did not say where it continues";

/// A store in a bucket. See [`Store`] for its guarantees, and the module's description for their implementation.
pub struct S3Store {
    place: Arc<Place>,
}

impl S3Store {
    /// Creates the client of a store. The first request to the service is sent when the store is used.
    pub fn new(settings: S3Settings) -> Result<Self> {
        Ok(S3Store { place: Arc::new(Place::new(settings)?) })
    }

    fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.place.bridge.wait(work)
    }

    fn absent(&self, key: &Key) -> Error {
        Error::not_found(format!("{key} does not exist in {}", self.place.name()))
    }

    /// Returns an object's length from the reply to a HEAD request.
    fn length(&self, key: &Key, head: &HeadObjectOutput) -> Result<u64> {
        head.content_length().and_then(|bytes| u64::try_from(bytes).ok()).ok_or_else(|| {
            Error::unreachable(format!("cannot read the metadata of {key} in {}", self.place.name()))
                .because("the service, or a proxy in front of it, did not return its length")
        })
    }

    /// Converts a key of the service to a key of this store; `None` if it is not one.
    fn key_of(&self, path: &str) -> Option<Key> {
        path.strip_prefix(&self.place.prefix())?.parse().ok()
    }

    async fn list_pages(&self, folder: &str, names: Names<'_>) -> Result<Listing> {
        let folder = if folder.is_empty() { String::new() } else { format!("{}/", folder.parse::<Key>()?) };
        let base = format!("{}{folder}", self.place.prefix());
        let (prefix, start_after) = match names {
            Names::All => (base.clone(), None),
            Names::StartingWith(start) => (format!("{base}{start}"), None),
            Names::Between(from, _) => (base.clone(), before(from).map(|before| format!("{base}{before}"))),
        };
        let mut listing = Listing::default();
        let (mut next, mut seen): (Option<String>, BTreeSet<String>) = (None, BTreeSet::new());
        loop {
            let request = self.place.client().list_objects_v2().bucket(self.place.bucket()).prefix(&prefix);
            let request = request.delimiter("/").encoding_type(EncodingType::Url);
            // A continuation token replaces `start_after`.
            let request = match &next {
                Some(token) => request.continuation_token(token),
                None => request.set_start_after(start_after.clone()),
            };
            let page = request.send().await;
            let cannot = || format!("cannot list {}/{folder}", self.place.name());
            let page = page.map_err(|error| service_error(error, cannot()))?;
            // A service that does not support URL encoding returns names unencoded.
            let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
            let decoded = |text: &str| if is_encoded { decoded(text) } else { text.to_owned() };
            for object in page.contents() {
                let path = decoded(object.key().unwrap_or_default());
                let Some(key) = self.key_of(&path).filter(|key| names.include(key.name())) else { continue };
                let bytes = object.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
                listing.objects.push(ObjectMeta { key, bytes, modified: time(object.last_modified()) });
            }
            for common in page.common_prefixes() {
                let path = decoded(common.prefix().unwrap_or_default());
                let name = path.strip_prefix(&base).and_then(|name| name.strip_suffix('/')).unwrap_or_default();
                if name.parse::<Key>().is_ok() && names.include(name) {
                    listing.folders.push(name.to_owned());
                }
            }
            // Names are sorted: later pages are not needed.
            let last = page.contents().last().and_then(|object| object.key()).map(decoded);
            let is_past = |until| last.as_ref().is_some_and(|last| *last >= format!("{base}{until}"));
            let is_past = matches!(names, Names::Between(_, Some(until)) if is_past(until));
            if page.is_truncated != Some(true) || is_past {
                break;
            }
            let token = next_page(page.next_continuation_token, &mut seen);
            next = Some(token.map_err(|error| error.context(cannot()))?);
        }
        listing.objects.sort_by(|a, b| a.key.cmp(&b.key));
        listing.folders.sort();
        listing.folders.dedup();
        Ok(listing)
    }

    /// Deletes up to [`MAX_DELETES`] objects in one request. Returns `None` if the service refused the request or some
    /// of the objects.
    async fn delete_batch(&self, keys: &[Key]) -> Result<Option<()>> {
        let object = |key: &Key| ObjectIdentifier::builder().key(self.place.path(key)).build();
        let cannot = || format!("cannot delete {} objects in {}", keys.len(), self.place.name());
        let objects = keys.iter().map(object).collect::<Result<Vec<_>, _>>();
        let batch = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(true).build());
        let batch = batch.map_err(|error| Error::failed(cannot()).because(error))?;
        let reply = match self.place.client().delete_objects().bucket(self.place.bucket()).delete(batch).send().await {
            Ok(reply) => reply,
            // The caller then deletes one by one. If that also fails, its error has the cause.
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|reply| reply.status().is_client_error() || reply.status().as_u16() == 501) =>
            {
                let error = service_error(error, "the request was refused");
                tracing::debug!("{} does not support batch deletes: {}", self.place.name(), error.full_message());
                return Ok(None);
            }
            Err(error) => return Err(service_error(error, cannot())),
        };
        match reply.errors().first() {
            Some(error) => {
                tracing::debug!("a batch delete did not delete {} objects", reply.errors().len());
                tracing::debug!("{}: {}", error.code().unwrap_or_default(), error.message().unwrap_or_default());
                Ok(None)
            }
            None => Ok(Some(())),
        }
    }

    /// Aborts an upload if neither it nor any of its parts is newer than `before`. Returns the bytes of its parts.
    async fn clear_upload(&self, upload: &MultipartUpload, before: SystemTime) -> Result<u64> {
        let (Some(path), Some(id)) = (upload.key(), upload.upload_id()) else { return Ok(0) };
        if upload.initiated().is_none_or(|begun| time(Some(begun)) >= before) {
            return Ok(0);
        }
        let mut bytes = 0;
        let (mut next, mut seen): (Option<String>, BTreeSet<String>) = (None, BTreeSet::new());
        let cannot = || format!("cannot list the parts of an unfinished upload in {}", self.place.name());
        loop {
            let request = self.place.client().list_parts().bucket(self.place.bucket()).key(path).upload_id(id);
            let page = match request.set_part_number_marker(next.take()).send().await {
                Ok(page) => page,
                // The upload has ended in the meantime.
                Err(error) if answer(&error) == Answer::Absent => return Ok(0),
                Err(error) => return Err(service_error(error, cannot())),
            };
            for part in page.parts() {
                // Parts still arrive: the upload is in progress.
                if time(part.last_modified()) >= before {
                    return Ok(0);
                }
                bytes += part.size().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
            }
            if page.is_truncated != Some(true) || page.next_part_number_marker.is_none() {
                break;
            }
            let marker = next_page(page.next_part_number_marker, &mut seen);
            next = Some(marker.map_err(|error| error.context(cannot()))?);
        }
        self.place.abort(path.to_owned(), id.to_owned()).await?;
        Ok(bytes)
    }

    async fn clear_uploads(&self, age: Duration) -> Result<u64> {
        let before = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut freed_bytes = 0;
        let (mut key, mut id): (Option<String>, Option<String>) = (None, None);
        let mut seen = BTreeSet::new();
        let cannot = || format!("cannot list unfinished uploads in {}", self.place.name());
        loop {
            let request = self.place.client().list_multipart_uploads().bucket(self.place.bucket());
            let request =
                request.prefix(self.place.prefix()).set_key_marker(key.clone()).set_upload_id_marker(id.clone());
            let page = match request.send().await {
                Ok(page) => page,
                Err(error) if answer(&error) == Answer::Unsupported => {
                    tracing::debug!("{} does not list unfinished uploads", self.place.name());
                    break;
                }
                Err(error) => return Err(service_error(error, cannot())),
            };
            for upload in page.uploads() {
                // A key that is not one of this store belongs to another program.
                if upload.key().is_some_and(|path| self.key_of(path).is_some()) {
                    freed_bytes += self.clear_upload(upload, before).await?;
                }
            }
            if page.is_truncated != Some(true) {
                break;
            }
            // One key may have several uploads, so the marker is a pair.
            (key, id) = (page.next_key_marker, page.next_upload_id_marker);
            if key.is_none() || !seen.insert((key.clone(), id.clone())) {
                return Err(Error::unreachable(cannot()).because(NO_NEXT_PAGE));
            }
        }
        Ok(freed_bytes)
    }
}

impl Store for S3Store {
    fn location(&self) -> String {
        self.place.settings.to_string()
    }

    fn create(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.create_large(key, 0)
    }

    fn create_large(&self, key: &Key, max_bytes: u64) -> Result<Box<dyn Upload>> {
        Ok(Box::new(S3Upload::new(Arc::clone(&self.place), key.clone(), max_bytes)?))
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Ranged>> {
        let head = self.wait(self.place.head(key))?.ok_or_else(|| self.absent(key))?;
        let bytes = self.length(key, &head)?;
        Ok(Box::new(S3Object { place: Arc::clone(&self.place), key: key.clone(), bytes, etag: head.e_tag }))
    }

    fn stat(&self, key: &Key) -> Result<Option<ObjectMeta>> {
        let Some(head) = self.wait(self.place.head(key))? else { return Ok(None) };
        let bytes = self.length(key, &head)?;
        Ok(Some(ObjectMeta { key: key.clone(), bytes, modified: time(head.last_modified()) }))
    }

    fn list(&self, folder: &str, names: Names<'_>) -> Result<Listing> {
        self.wait(self.list_pages(folder, names))
    }

    fn is_local(&self) -> bool {
        false
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.wait(self.place.delete(key))
    }

    fn delete_all(&self, keys: &[Key]) -> Result<()> {
        for batch in keys.chunks(MAX_DELETES) {
            if batch.len() > 1 && self.wait(self.delete_batch(batch))?.is_some() {
                continue;
            }
            batch.iter().try_for_each(|key| self.delete(key))?;
        }
        Ok(())
    }

    /// Aborts uploads of which no part arrived for `age`. A service that cannot list uploads must remove them itself.
    fn clear_leftovers(&self, age: Duration) -> Result<u64> {
        self.wait(self.clear_uploads(age))
    }

    fn probe(&self, key: &Key) -> Vec<(String, Result<String>)> {
        self.probe_service(key)
    }

    /// Reads a small object with one request.
    fn read(&self, key: &Key, max_bytes: u64) -> Result<Vec<u8>> {
        self.wait(self.place.get(key, max_bytes))
    }

    fn some_names(&self) -> Result<Vec<String>> {
        self.wait(async {
            let prefix = self.place.prefix();
            let request = self.place.client().list_objects_v2().bucket(self.place.bucket()).prefix(&prefix);
            let page = request.delimiter("/").max_keys(100).send().await;
            let page = page.map_err(|error| service_error(error, format!("cannot list {}", self.place.name())))?;
            let folders = page.common_prefixes().iter().filter_map(|common| common.prefix());
            let names = folders.chain(page.contents().iter().filter_map(|object| object.key()));
            let names = names.filter_map(|name| name.strip_prefix(&prefix)).map(|name| name.trim_end_matches('/'));
            // The prefix itself may be listed, as a folder that a user created.
            Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
        })
    }
}

/// Returns a text that sorts before `from`, but after every valid name that sorts before `from`. Returns `None` if
/// there is none.
fn before(from: &str) -> Option<String> {
    let (last, rest) = from.as_bytes().split_last()?;
    let mut before = String::from_utf8(rest.to_vec()).ok()?;
    // Keys have no tilde, and all characters of a key sort before it.
    before.push(char::from(last.checked_sub(1)?));
    before.push('~');
    Some(before)
}

/// Returns the token of the next page of a truncated listing. Fails without a new token, because a listing that ends
/// early would look complete.
fn next_page(token: Option<String>, seen: &mut BTreeSet<String>) -> Result<String> {
    token.filter(|token| seen.insert(token.clone())).ok_or_else(|| Error::unreachable(NO_NEXT_PAGE))
}

/// Decodes a URL-encoded key of a listing.
fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// Converts a time, truncated to the second, because a listing may be more precise than a HEAD reply.
fn time(time: Option<&DateTime>) -> SystemTime {
    let seconds = time.and_then(|time| u64::try_from(time.secs()).ok()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_listing_is_after_all_smaller_names() {
        for from in ["2", "app-20261126T000000Z", "a.", "b-"] {
            let before = before(from).expect("something");
            assert!(before.as_str() < from);
            let (last, rest) = from.as_bytes().split_last().expect("not empty");
            for smaller in (b'-'..*last).filter(|b| b.is_ascii_alphanumeric() || b"._-".contains(b)) {
                let name = format!("{}{}zzz", String::from_utf8_lossy(rest), char::from(smaller));
                assert!(name < before, "{name} {before}");
            }
        }
        assert_eq!(before(""), None);
    }
}
