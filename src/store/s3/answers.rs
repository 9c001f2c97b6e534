//! Refuses answers that no S3 service gives, before the SDK reads them.

use aws_sdk_s3::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeDeserializationInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// The text in the error of a request that was answered by a web page. A service of S3 never sends one with success.
pub(super) const WEB_PAGE: &str = "the answer is a web page, and not that of an S3 service";

/// Refuses a web page in answer to a request, which the login page of a network or a console's port sends with status
/// 200: without this check, it would count as the content of an object.
#[derive(Debug)]
pub(super) struct RefuseWebPages;

impl Intercept for RefuseWebPages {
    fn name(&self) -> &'static str {
        "refuse web pages"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let kind = response.headers().get("content-type").unwrap_or_default().trim_start().to_ascii_lowercase();
        if response.status().is_success() && kind.starts_with("text/html") {
            return Err(WEB_PAGE.into());
        }
        Ok(())
    }
}

/// The maximum length of an answer that is not the content of an object. The longest are pages of a listing: 1,000 keys of
/// at most 1,024 bytes, each written as up to three.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Limits the length of every answer that the SDK reads as a whole: errors, listings, and results of uploads. The content
/// of an object is limited by whoever reads it.
#[derive(Debug)]
pub(super) struct LimitAnswers;

impl Intercept for LimitAnswers {
    fn name(&self) -> &'static str {
        "limit answers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        settings: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let is_of_object = settings.load::<Metadata>().is_some_and(|request| request.name() == "GetObject");
        if !(is_of_object && response.status().is_success()) {
            let body = std::mem::replace(response.body_mut(), SdkBody::taken());
            *response.body_mut() = SdkBody::from_body_1_x(Limited::new(body, MAX_ANSWER_BYTES));
        }
        Ok(())
    }
}
