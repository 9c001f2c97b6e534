//! What a service can do beside what every store must: tried, not asked.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{BucketVersioningStatus, CompletedMultipartUpload, CompletedPart};

use super::S3Store;
use super::failure::{Answer, answer, told};
use crate::error::{Error, Result};
use crate::store::Key;

/// How a service took a condition.
const HEEDED: &str = "heeded: of two that write one object one wins";
const NOT_HEEDED: &str = "not heeded: a look before the write takes its place";

impl S3Store {
    pub(super) async fn probe_service(&self, key: &Key) -> Vec<(String, Result<String>)> {
        let found = [
            // Before those that may overwrite it.
            ("hashes", self.probe_hashes(key).await),
            ("condition on a write", self.probe_put(key).await),
            ("condition on parts", self.probe_parts(key).await),
            ("batch delete", self.probe_batch().await),
            ("unfinished uploads", self.probe_uploads().await),
            ("versions", self.probe_versions().await),
        ];
        found.map(|(name, found)| (name.to_owned(), found)).into()
    }

    async fn probe_put(&self, key: &Key) -> Result<String> {
        let place = &self.place;
        let request = place.client().put_object().bucket(place.bucket()).key(place.path(key));
        let sent = request.if_none_match("*").body(ByteStream::from_static(b"overwritten")).send().await;
        told_condition(sent.map(drop).map_err(|error| (answer(&error), told(error, "cannot write with a condition"))))
    }

    async fn probe_parts(&self, key: &Key) -> Result<String> {
        let place = &self.place;
        let cannot = "cannot write in parts";
        let begun = place.client().create_multipart_upload().bucket(place.bucket()).key(place.path(key)).send().await;
        let upload = begun.map_err(|error| told(error, cannot))?.upload_id;
        let upload = upload.ok_or_else(|| Error::failed(cannot).because("the service gave the upload no id"))?;
        let request = place.client().upload_part().bucket(place.bucket()).key(place.path(key)).upload_id(&upload);
        let part = request.part_number(1).body(ByteStream::from_static(b"overwritten")).send().await;
        let part = part.map_err(|error| told(error, cannot))?;
        let part = CompletedPart::builder().part_number(1).set_e_tag(part.e_tag).build();
        let list = CompletedMultipartUpload::builder().parts(part).build();
        let request = place.client().complete_multipart_upload().bucket(place.bucket()).key(place.path(key));
        let sent = request.upload_id(&upload).multipart_upload(list).if_none_match("*").send().await;
        let found = told_condition(sent.map(drop).map_err(|error| (answer(&error), told(error, cannot))));
        place.abort(place.path(key), upload).await?;
        found
    }

    async fn probe_batch(&self) -> Result<String> {
        // Of nothing that is there: no error, where the request is known.
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
        let is_md5 = hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit());
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
            // Few may ask, and nothing depends on it.
            Err(error) => Ok(format!("not known: {}", told(error, "cannot ask").whole())),
        }
    }
}

fn told_condition(sent: std::result::Result<(), (Answer, Error)>) -> Result<String> {
    match sent {
        Err((Answer::AlreadyThere, _)) => Ok(HEEDED.to_owned()),
        Ok(()) | Err((Answer::Unknown, _)) => Ok(NOT_HEEDED.to_owned()),
        Err((_, error)) => Err(error),
    }
}
