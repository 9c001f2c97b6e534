//! Converts the service's errors to errors of this program: what failed, the service's own message, and a hint.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;

use crate::platform::error::{Error, Kind, one_line};

/// The category of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The object or the upload does not exist.
    Absent,
    /// The range is invalid: the object is empty.
    Empty,
    /// A condition of the request failed, such as that the object must not exist.
    AlreadyThere,
    /// Another request for the same object is in progress.
    Conflict,
    /// The service does not support the request, or a part of it.
    Unknown,
    /// Any other failure.
    Failed,
}

/// Returns the category of a failure.
pub(super) fn answer<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Answer {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    match (error.code().unwrap_or_default(), status) {
        ("NoSuchBucket", _) => Answer::Failed,
        ("NoSuchKey" | "NotFound" | "NoSuchUpload", _) => Answer::Absent,
        ("InvalidRange", _) | (_, 416) => Answer::Empty,
        ("PreconditionFailed", _) | (_, 412) => Answer::AlreadyThere,
        ("ConditionalRequestConflict" | "OperationAborted", _) => Answer::Conflict,
        ("NotImplemented" | "MethodNotAllowed", _) | (_, 405 | 501) => Answer::Unknown,
        _ => Answer::Failed,
    }
}

/// Returns true if a HEAD request found no object. A reply to HEAD has no body, and so no error code. For other
/// requests, a 404 without a code comes from a proxy or the like, and says nothing about the object.
pub(super) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let is_404 = error.raw_response().is_some_and(|response| response.status().as_u16() == 404);
    answer(error) == Answer::Absent || (is_404 && error.code().is_none_or(str::is_empty))
}

/// Converts a failure to an [`Error`]. `message` says what failed; the kind and the hint depend on the cause.
pub(super) fn told<E>(error: SdkError<E, HttpResponse>, message: impl std::fmt::Display) -> Error
where
    E: ProvideErrorMetadata + RequestId + StdError + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let (kind, hint) = match &error {
        SdkError::ServiceError(_) => judge(&code, status),
        SdkError::ConstructionFailure(_) => (Kind::Unreachable, None),
        _ => (Kind::Unreachable, Some("check the endpoint, the network, and that the service runs")),
    };
    let (kind, hint) = match missing(&error) {
        Some(hint) => (Kind::Unreachable, Some(hint)),
        None => (kind, hint),
    };
    let cause = match &error {
        SdkError::ServiceError(service) => {
            let words = service.err().message().unwrap_or_default();
            let name = if code.is_empty() { String::new() } else { format!(" {code}") };
            let words = if words.is_empty() { String::new() } else { format!(": {words}") };
            let id = service.err().request_id().map(|id| format!(" (request {id})")).unwrap_or_default();
            format!("the service answered {status}{name}{words}{id}")
        }
        SdkError::TimeoutError(_) => "the service did not answer in time".to_owned(),
        // The causes of an SDK error repeat each other: the innermost one is enough.
        _ => innermost(&error),
    };
    let told = Error::new(kind, message).because(one_line(&cause));
    if let Some(hint) = hint { told.hint(hint) } else { told }
}

/// Returns the error kind and the hint for the service's error code and HTTP status.
fn judge(code: &str, status: u16) -> (Kind, Option<&'static str>) {
    match code {
        "NoSuchBucket" => (Kind::Unreachable, Some("make the bucket first; lifeboat makes none")),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            (Kind::Unreachable, Some("check the access key and the secret key"))
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
            (Kind::Unreachable, Some("the credentials are valid no longer: get new ones"))
        }
        "RequestTimeTooSkewed" => (Kind::Unreachable, Some("this machine's clock is wrong: set it")),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            (Kind::Unreachable, Some("the bucket is in another region: name it with ?region=REGION"))
        }
        "QuotaExceeded" | "XMinioStorageFull" => (Kind::Failed, Some("the store is full: free some space")),
        "EntityTooLarge" => (Kind::Failed, Some("the service takes no object of that size")),
        "InvalidArgument" | "InvalidRequest" | "InvalidStorageClass" | "NotImplemented" => {
            (Kind::Failed, Some("'lifeboat doctor --store STORE' says what the service can do"))
        }
        _ if matches!(status, 401 | 403) => (
            Kind::Unreachable,
            Some("these credentials may not do that: check the bucket's policy and the user's rights"),
        ),
        _ if status == 507 => (Kind::Failed, Some("the store is full: free some space")),
        _ if status == 429 || status >= 500 => (Kind::Unreachable, Some("the service is in trouble: try again later")),
        "" if status == 404 => (Kind::Unreachable, Some("check the endpoint: no service of S3 answers so")),
        _ if (300..400).contains(&status) => {
            (Kind::Unreachable, Some("the bucket is elsewhere: name its region with ?region=REGION, or its endpoint"))
        }
        _ => (Kind::Failed, None),
    }
}

/// Returns a hint if no request could be sent because credentials or a region are missing.
fn missing<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> Option<&'static str> {
    if matches!(error, SdkError::ServiceError(_)) {
        return None;
    }
    let chain = DisplayErrorContext(error).to_string();
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    if has(&["region must be set", "Invalid Configuration: Missing Region", "MissingRegion"]) {
        return Some("name the region with ?region=REGION, AWS_REGION or a profile");
    }
    if has(&[
        "CredentialsNotLoaded",
        "no providers in chain provided credentials",
        "failed to load credentials",
        "IMDS",
    ]) {
        return Some(
            "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with \
             ?profile=NAME, or run where a role is attached",
        );
    }
    if has(&["profile", "ProfileFile", "credentials"]) && has(&["could not", "was not", "failed", "error"]) {
        return Some("check the profile and the credentials that it names");
    }
    None
}

/// Returns the message of the innermost cause, such as `connection refused`.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last: &dyn StdError = error;
    let mut words = Vec::new();
    while let Some(next) = last.source() {
        last = next;
        let text = last.to_string();
        if !text.is_empty() && words.last() != Some(&text) {
            words.push(text);
        }
    }
    words.pop().unwrap_or_else(|| error.to_string())
}
