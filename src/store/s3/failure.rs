//! Converts the service's errors to errors of this program: what failed, the service's own message, and a hint.

use std::error::Error as StdError;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;

use super::answers::WEB_PAGE;
use crate::platform::error::{Error, Kind, Reason, one_line};
use crate::platform::tls;

/// The category of a failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The object or the upload does not exist.
    Absent,
    /// The range is invalid: the object is empty.
    Empty,
    /// A condition of the request failed, such as that the object must not exist.
    ConditionFailed,
    /// Another request for the same object is in progress.
    Conflict,
    /// The service does not support the request, or a part of it.
    Unsupported,
    /// Another failure.
    Failed,
}

/// Returns the category of a failure.
pub(super) fn answer<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Answer {
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    match (error.code().unwrap_or_default(), status) {
        ("NoSuchBucket", _) => Answer::Failed,
        ("NoSuchKey" | "NotFound" | "NoSuchUpload", _) => Answer::Absent,
        ("InvalidRange", _) | (_, 416) => Answer::Empty,
        ("PreconditionFailed", _) | (_, 412) => Answer::ConditionFailed,
        ("ConditionalRequestConflict" | "OperationAborted", _) => Answer::Conflict,
        ("NotImplemented" | "MethodNotAllowed", _) | (_, 405 | 501) => Answer::Unsupported,
        _ => Answer::Failed,
    }
}

/// Returns true if the service may have refused a request because of its condition: not all services that lack
/// `If-None-Match` for writes answer with 501. The request without the condition shows the real reason, if there is
/// another one.
pub(super) fn may_refuse_condition<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    const CODES: [&str; 8] = [
        "",
        "BadRequest",
        "InvalidArgument",
        "InvalidHeader",
        "InvalidRequest",
        "NotSupported",
        "UnsupportedHeader",
        "UnsupportedOperation",
    ];
    let is_400 = error.raw_response().is_some_and(|response| response.status().as_u16() == 400);
    answer(error) == Answer::Unsupported || (is_400 && CODES.contains(&error.code().unwrap_or_default()))
}

/// Returns true if a HEAD request found no object. A reply to HEAD has no body, and so no error code. For other
/// requests, a 404 without a code comes from a proxy or the like, and says nothing about the object.
pub(super) fn is_absent<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let is_404 = error.raw_response().is_some_and(|response| response.status().as_u16() == 404);
    answer(error) == Answer::Absent || (is_404 && error.code().is_none_or(str::is_empty))
}

/// Converts a failure to an [`Error`]. `message` says what failed; the kind and the hint depend on the cause.
pub(super) fn service_error<E>(error: SdkError<E, HttpResponse>, message: impl std::fmt::Display) -> Error
where
    E: ProvideErrorMetadata + RequestId + StdError + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let code = error.code().unwrap_or_default().to_owned();
    let (kind, hint) = match &error {
        SdkError::ServiceError(_) => kind_and_hint(&code, status),
        SdkError::ConstructionFailure(_) => (Kind::Unreachable, None),
        _ => (Kind::Unreachable, Some("check the endpoint, the network, and that the service is running")),
    };
    let (kind, hint) = match connection_hint(&error).or_else(|| missing_setting_hint(&error)) {
        Some(hint) => (Kind::Unreachable, Some(hint)),
        None => (kind, hint),
    };
    let cause = match &error {
        SdkError::ServiceError(service) => {
            let text = service.err().message().unwrap_or_default();
            let name = if code.is_empty() { String::new() } else { format!(" {code}") };
            let text = if text.is_empty() { String::new() } else { format!(": {text}") };
            let id = service.err().request_id().map(|id| format!(" (request {id})")).unwrap_or_default();
            format!("the service answered {status}{name}{text}{id}")
        }
        SdkError::TimeoutError(_) => "the service did not answer in time".to_owned(),
        // The causes of an SDK error repeat each other: the innermost one is enough.
        _ => innermost(&error),
    };
    let error = Error::new(kind, message).because(one_line(&cause));
    let error = if code == ARCHIVED { error.reason(Reason::ObjectIsArchived) } else { error };
    if let Some(hint) = hint { error.hint(hint) } else { error }
}

/// The error code for an object in an archive tier, whose content must be requested before it can be read.
const ARCHIVED: &str = "InvalidObjectState";

/// Returns the error kind and the hint for the service's error code and HTTP status.
fn kind_and_hint(code: &str, status: u16) -> (Kind, Option<&'static str>) {
    match code {
        "NoSuchBucket" => (Kind::Unreachable, Some("create the bucket first; lifeboat does not create buckets")),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" => {
            (Kind::Unreachable, Some("check the access key and the secret key"))
        }
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => {
            (Kind::Unreachable, Some("the credentials are no longer valid: get new ones"))
        }
        ARCHIVED => (
            Kind::Unreachable,
            Some(
                "the object was moved to an archive tier such as S3 Glacier: request a copy of it with 'aws s3api \
                 restore-object', wait until it is ready, and try again; let the bucket's lifecycle rule move only \
                 archives, and no .json object",
            ),
        ),
        "RequestTimeTooSkewed" => (Kind::Unreachable, Some("this machine's clock is wrong: set it")),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            (Kind::Unreachable, Some("the bucket is in another region: set its region with ?region=REGION"))
        }
        "QuotaExceeded" | "XMinioStorageFull" => (Kind::Failed, Some("the store is full: free some space")),
        "EntityTooLarge" => (Kind::Failed, Some("the service does not accept an object of this size")),
        "InvalidArgument" | "InvalidRequest" | "InvalidStorageClass" | "NotImplemented" => {
            (Kind::Failed, Some("run 'lifeboat doctor --store STORE' to see which features the service supports"))
        }
        _ if matches!(status, 401 | 403) => (
            Kind::Unreachable,
            Some("the credentials do not permit this: check the bucket's policy and the user's permissions"),
        ),
        _ if status == 507 => (Kind::Failed, Some("the store is full: free some space")),
        _ if status == 429 || status >= 500 => {
            (Kind::Unreachable, Some("the service is overloaded or has failed: try again later"))
        }
        // The reply to a HEAD request has no error code.
        "" if status == 400 => (
            Kind::Unreachable,
            Some("the credentials may have expired, or the region may be wrong: check both, and the endpoint"),
        ),
        "" if status == 404 => (Kind::Unreachable, Some("check the endpoint: this is not the answer of an S3 service")),
        _ if (300..400).contains(&status) => {
            (Kind::Unreachable, Some("the bucket is at another address: set ?region=REGION or the endpoint"))
        }
        _ => (Kind::Failed, None),
    }
}

/// Returns a hint if the other side is not the service, or is not trusted to be.
fn connection_hint<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> Option<&'static str> {
    if matches!(error, SdkError::ServiceError(_)) {
        return None;
    }
    let chain = DisplayErrorContext(error).to_string();
    if tls::is_about_certificate(error) || chain.contains("invalid peer certificate") {
        return Some(
            "the service's certificate is not trusted: name the file with the certificate of its issuer with \
             AWS_CA_BUNDLE or SSL_CERT_FILE, and check that the endpoint's host is the one in the certificate",
        );
    }
    if chain.contains(WEB_PAGE) {
        return Some(
            "check the endpoint: a console's port, or the login page of a network, answers instead of the service",
        );
    }
    None
}

/// Returns a hint if no request could be sent because credentials or a region are missing.
fn missing_setting_hint<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> Option<&'static str> {
    if matches!(error, SdkError::ServiceError(_)) {
        return None;
    }
    let chain = DisplayErrorContext(error).to_string();
    let has = |texts: &[&str]| texts.iter().any(|text| chain.contains(text));
    if has(&["the SSO login of the profile"]) {
        return Some("log in again with 'aws sso login', and --profile NAME if the profile has a name");
    }
    if has(&["the web identity token file"]) {
        return Some(
            "check the file that AWS_WEB_IDENTITY_TOKEN_FILE or the profile names, and that it is mounted in this \
             container",
        );
    }
    if has(&["another character that no key has", "the access key is empty"]) {
        return Some("check the access key, the secret key and the session token, and the files that they come from");
    }
    if has(&["region must be set", "Invalid Configuration: Missing Region", "MissingRegion"]) {
        return Some("set the region with ?region=REGION, AWS_REGION or a profile");
    }
    if has(&[
        "CredentialsNotLoaded",
        "no providers in chain provided credentials",
        "failed to load credentials",
        "IMDS",
    ]) {
        return Some(
            "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, use a profile with \
             ?profile=NAME, or run on a machine that has an IAM role",
        );
    }
    if has(&["profile", "ProfileFile", "credentials"]) && has(&["could not", "was not", "failed", "error"]) {
        return Some("check the profile and its credentials");
    }
    None
}

/// Returns the message of the innermost cause, such as `connection refused`.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last: &dyn StdError = error;
    let mut texts = Vec::new();
    while let Some(next) = last.source() {
        last = next;
        let text = last.to_string();
        if !text.is_empty() && texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts.pop().unwrap_or_else(|| error.to_string())
}
