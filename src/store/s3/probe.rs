//! Tests of a service's optional features.

use aws_sdk_s3::types::{BucketVersioningStatus, ServerSideEncryption};

use super::S3Store;
use super::failure::{Answer, answer, service_error};
use super::upload::{probe_conditions, probe_parts};
use crate::platform::error::{Error, Result};
use crate::store::interface::Key;

/// The text for a service that honors a condition.
const SUPPORTED: &str = "supported: if two clients write one object, only one succeeds";
/// The text for a service that ignores or refuses a condition.
const NOT_SUPPORTED: &str = "not supported: before a write, a request checks that the object does not exist";

impl S3Store {
    pub(super) fn probe_service(&self, key: &Key) -> Vec<(String, Result<String>)> {
        // First, because the later tests may overwrite the object.
        let hashes = self.wait(self.probe_hashes(key));
        let [small, in_parts] = probe_conditions(&self.place, key)
            .map(|found| found.map(|is_supported| if is_supported { SUPPORTED } else { NOT_SUPPORTED }.to_owned()));
        let found = [
            ("hashes", hashes),
            ("condition on a write", small),
            ("condition on parts", in_parts),
            ("number of parts", probe_parts(&self.place, key)),
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
            Some(()) => "supported: one request deletes many objects",
            None => "not supported: objects are deleted one by one",
        }
        .to_owned())
    }

    async fn probe_uploads(&self) -> Result<String> {
        let request = self.place.client().list_multipart_uploads().bucket(self.place.bucket());
        match request.prefix(self.place.prefix()).send().await {
            Ok(page) => Ok(match page.uploads().len() {
                0 => "listed: none exist".to_owned(),
                count => format!("listed: {count}; 'prune' removes those older than a day"),
            }),
            Err(error) if answer(&error) == Answer::Unsupported => {
                Ok("not listed: remove them with a lifecycle rule of the bucket".to_owned())
            }
            Err(error) => Err(service_error(error, "cannot list unfinished uploads")),
        }
    }

    async fn probe_hashes(&self, key: &Key) -> Result<String> {
        let head = self
            .place
            .head(key)
            .await?
            .ok_or_else(|| Error::failed("an object that was just written does not exist"))?;
        let etag = head.e_tag().unwrap_or_default().trim_matches('"').to_owned();
        let hash = etag.split('-').next().unwrap_or_default();
        let kms = [ServerSideEncryption::AwsKms, ServerSideEncryption::AwsKmsDsse];
        let is_hidden = head.server_side_encryption().is_some_and(|encryption| kms.contains(encryption));
        let is_md5 = !is_hidden && hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let keeps_metadata = head.metadata().is_some_and(|metadata| !metadata.is_empty());
        Ok(format!(
            "{}{}",
            if is_md5 { "returned: they verify stored objects" } else { "not returned: stored objects are read back" },
            if keeps_metadata { "" } else { "; the metadata of objects is not stored" }
        ))
    }

    async fn probe_versions(&self) -> Result<String> {
        match self.place.client().get_bucket_versioning().bucket(self.place.bucket()).send().await {
            Ok(versions) if versions.status() == Some(&BucketVersioningStatus::Enabled) => Ok(
                "enabled: what 'prune' deletes takes space until a lifecycle rule of the bucket removes old versions"
                    .to_owned(),
            ),
            Ok(_) => Ok("not enabled: a deleted object cannot be recovered".to_owned()),
            // Few users have this permission, and nothing depends on the result.
            Err(error) => {
                let error = service_error(error, "cannot read whether the bucket keeps versions");
                Ok(format!("unknown: {}", error.full_message()))
            }
        }
    }
}
