//! Tests of a service's optional features.

use aws_sdk_s3::types::{BucketVersioningStatus, ServerSideEncryption};

use super::S3Store;
use super::failure::{Answer, answer, told};
use super::upload::probe_conditions;
use crate::platform::error::{Error, Result};
use crate::store::Key;

/// The text for a service that honors a condition.
const HEEDED: &str = "heeded: of two that write one object one wins";
const NOT_HEEDED: &str = "not heeded: a look before the write takes its place";

impl S3Store {
    pub(super) fn probe_service(&self, key: &Key) -> Vec<(String, Result<String>)> {
        // First, because the later tests may overwrite the object.
        let hashes = self.wait(self.probe_hashes(key));
        let [small, in_parts] = probe_conditions(&self.place, key)
            .map(|heeded| heeded.map(|heeded| if heeded { HEEDED } else { NOT_HEEDED }.to_owned()));
        let found = [
            ("hashes", hashes),
            ("condition on a write", small),
            ("condition on parts", in_parts),
            ("batch delete", self.wait(self.probe_batch())),
            ("unfinished uploads", self.wait(self.probe_uploads())),
            ("versions", self.wait(self.probe_versions())),
        ];
        found.map(|(name, found)| (name.to_owned(), found)).into()
    }

    async fn probe_batch(&self) -> Result<String> {
        // Objects that do not exist: no error if the service supports the request.
        let nothing = ["trial-nothing-1", "trial-nothing-2"].map(|name| name.parse::<Key>());
        let nothing = nothing.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(match self.delete_batch(&nothing).await? {
            Some(()) => "many objects by one request",
            None => "not there: objects are deleted one by one",
        }
        .to_owned())
    }

    async fn probe_uploads(&self) -> Result<String> {
        let request = self.place.client().list_multipart_uploads().bucket(self.place.bucket());
        match request.prefix(self.place.prefix()).send().await {
            Ok(page) => Ok(match page.uploads().len() {
                0 => "listed: there are none".to_owned(),
                some => format!("listed: {some}; 'prune' clears those of a day ago"),
            }),
            Err(error) if answer(&error) == Answer::Unknown => {
                Ok("not listed: let a rule of the bucket's lifecycle clear them".to_owned())
            }
            Err(error) => Err(told(error, "cannot list unfinished uploads")),
        }
    }

    async fn probe_hashes(&self, key: &Key) -> Result<String> {
        let head =
            self.place.head(key).await?.ok_or_else(|| Error::failed("an object that was written is not there"))?;
        let etag = head.e_tag().unwrap_or_default().trim_matches('"').to_owned();
        let hash = etag.split('-').next().unwrap_or_default();
        let keys = [ServerSideEncryption::AwsKms, ServerSideEncryption::AwsKmsDsse];
        let is_hidden = head.server_side_encryption().is_some_and(|encryption| keys.contains(encryption));
        let is_md5 = !is_hidden && hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let keeps_words = head.metadata().is_some_and(|metadata| !metadata.is_empty());
        Ok(format!(
            "{}{}",
            if is_md5 { "told: what is stored is compared by them" } else { "not told: what is stored is read back" },
            if keeps_words { "" } else { "; metadata of objects is not kept" }
        ))
    }

    async fn probe_versions(&self) -> Result<String> {
        match self.place.client().get_bucket_versioning().bucket(self.place.bucket()).send().await {
            Ok(versions) if versions.status() == Some(&BucketVersioningStatus::Enabled) => {
                Ok("kept: what 'prune' deletes takes room until a rule of the bucket's lifecycle removes old versions"
                    .to_owned())
            }
            Ok(_) => Ok("not kept: what is deleted is gone".to_owned()),
            // Few users have this permission, and nothing depends on the result.
            Err(error) => Ok(format!("not known: {}", told(error, "cannot ask").whole())),
        }
    }
}
