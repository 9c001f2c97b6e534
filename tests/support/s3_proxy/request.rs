//! Parses requests: their operation, bucket and key.

use std::io::{self, ErrorKind};

use super::Verb;
use super::http::{Framing, Head, rewrite};
use super::sign;

/// A parsed head of a request.
pub struct Request {
    pub head: Head,
    pub verb: Verb,
    pub method: String,
    pub path: String,
    pub query: String,
    pub framing: Framing,
}

impl Request {
    pub fn new(head: Head) -> io::Result<Self> {
        let mut words = head.first_line.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(ErrorKind::InvalidData.into());
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let framing = head.framing()?.unwrap_or(Framing::Length(0));
        let (method, query) = (method.to_owned(), query.to_owned());
        Ok(Request { verb: verb(&method, &path, &query), method, path, query, framing, head })
    }

    /// Returns a text that is equal for repetitions of the same request, and for requests for the rest of a range.
    pub fn identity(&self) -> String {
        let value_of = |name| parameter(&self.query, name).unwrap_or_default();
        let range_end = self.head.header("range").and_then(|range| range.split_once('-')).map_or("", |(_, end)| end);
        format!("{:?} {} {} {} {range_end}", self.verb, self.path, value_of("prefix"), value_of("partNumber"))
    }

    /// Returns the head without a header. If the header was signed and the secret key is known, the head gets a new
    /// signature.
    pub fn without(&self, name: &str, secret: Option<&str>) -> Vec<u8> {
        let bytes = rewrite(&self.head.bytes, name, None);
        match secret.and_then(|secret| sign::authorization_without(self, name, secret)) {
            Some(authorization) => rewrite(&bytes, "authorization", Some(&authorization)),
            None => bytes,
        }
    }
}

/// Returns the operation of a request with a path-style address.
fn verb(method: &str, path: &str, query: &str) -> Verb {
    let (_, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let is_bucket = key.is_empty() && path != "/";
    let has = |name| parameter(query, name).is_some();
    // Requests for the settings of a bucket have a query of one word without a value.
    let is_plain = query.split('&').all(|pair| pair.is_empty() || pair.contains('='));
    let is_other = ["acl", "attributes", "legal-hold", "retention", "tagging", "torrent"].into_iter().any(has);
    match method {
        _ if is_other => Verb::Other,
        "GET" if has("uploads") => Verb::ListUploads,
        "GET" if has("uploadId") => Verb::ListParts,
        "GET" if has("list-type") => Verb::List,
        "GET" if is_bucket && is_plain => Verb::List,
        "GET" if !key.is_empty() => Verb::Get,
        "HEAD" if !key.is_empty() => Verb::Head,
        "PUT" if has("partNumber") => Verb::UploadPart,
        "PUT" if !key.is_empty() => Verb::Put,
        "PUT" if is_bucket && is_plain => Verb::CreateBucket,
        "POST" if has("uploads") => Verb::CreateUpload,
        "POST" if has("uploadId") => Verb::CompleteUpload,
        "POST" if has("delete") => Verb::DeleteMany,
        "DELETE" if has("uploadId") => Verb::AbortUpload,
        "DELETE" if !key.is_empty() => Verb::Delete,
        _ => Verb::Other,
    }
}

/// Returns the value of a query parameter.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| v)
}
