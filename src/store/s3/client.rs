//! The connection to the service: one client, its runtime, and the only bridge from plain threads to both.

use std::future::Future;
use std::time::Duration;

use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::retries::classifiers::RetryClassifierPriority;
use aws_smithy_types::retry::ErrorKind;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::answers::{LimitAnswers, RefuseWebPages};
use super::connection::http_client;
use super::environment::{Environment, is_region, trimmed};
use super::settings::{Checksums, S3Settings};
use crate::platform::error::{Error, Result};
use crate::platform::{interrupt, tls};

/// The interval at which a wait for the service checks whether a signal asked to stop.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The number of threads that sign, hash and encrypt requests; waiting needs no thread.
const THREADS: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// The maximum wait before a retry, even if the service asks for more.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// The number of bytes for which a request may take one `timeout` longer.
const BYTES_PER_TIMEOUT: u64 = 4 << 20;

/// The client and its runtime.
pub(super) struct Bridge {
    pub(super) client: Client,
    /// The endpoint of a service other than AWS, from the settings or the environment.
    pub(super) endpoint: Option<String>,
    timeout: Duration,
    retries: u32,
    runtime: Option<Runtime>,
}

impl Bridge {
    /// Creates the client. No request is sent to the service yet, and credentials are loaded only with the first one.
    pub(super) fn new(settings: &S3Settings) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("s3")
            .enable_all()
            .build()
            .map_err(|error| Error::failed("cannot start a thread").because(error))?;
        let (client, endpoint) = runtime.block_on(async {
            let environment = Environment::read(settings).await?;
            Ok::<_, Error>((client(settings, &environment).await?, environment.endpoint))
        })?;
        Ok(Bridge { client, endpoint, timeout: settings.timeout, retries: settings.retries, runtime: Some(runtime) })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only when dropped")
    }

    /// Waits for the service's reply. Ends early, with an error, after a signal has asked to stop.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime().block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    () = tokio::time::sleep(SIGNAL_CHECK_INTERVAL) => interrupt::check()?,
                }
            }
        })
    }

    /// Waits for work that must also be done after a signal, such as cleanup. Returns `None` if it takes longer than
    /// `longest`.
    pub(super) fn wait_at_most<T>(&self, longest: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.runtime().block_on(async { tokio::time::timeout(longest, work).await.ok() })
    }

    /// Starts work in the background.
    pub(super) fn start<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime().spawn(work)
    }

    /// Returns the time allowed for a request that sends or receives so many bytes.
    pub(super) fn time_limit(&self, bytes: u64) -> Duration {
        self.timeout.saturating_mul(u32::try_from(1 + bytes.div_ceil(BYTES_PER_TIMEOUT)).unwrap_or(u32::MAX))
    }

    /// Returns the client settings of a request that may take up to `longest`.
    pub(super) fn with_time_limit(&self, longest: Duration) -> Builder {
        Builder::new().timeout_config(timeouts(self.timeout, longest))
    }

    /// Returns the number of times that a request is retried.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Waits after attempt `number` (from 1 on) before the next one: exponential backoff with jitter.
    pub(super) async fn back_off(&self, number: u32) {
        let longest = FIRST_BACKOFF.saturating_mul(1 << number.min(16)).min(LONGEST_BACKOFF);
        let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        tokio::time::sleep(longest.mul_f64(share.max(0.1))).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Open connections are no longer needed.
            runtime.shutdown_background();
        }
    }
}

async fn client(settings: &S3Settings, environment: &Environment) -> Result<Client> {
    let http = http_client(environment, settings.timeout.min(CONNECT_TIMEOUT))?;
    let is_aws = environment.endpoint.is_none();
    let region = region(environment, is_aws, &http).await;
    let mut config = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).region(region.clone());
    if let Some(profile) = &environment.profile {
        config = config.profile_name(profile);
    }
    // A profile or file named in the settings has priority over the environment, including its keys.
    if settings.profile.is_some() || settings.credentials_file.is_some() {
        // A profile may assume a role, which needs requests to AWS.
        let provider = ProviderConfig::default().with_http_client(http).with_region(region);
        let mut credentials =
            ProfileFileCredentialsProvider::builder().configure(&provider).profile_files(environment.files.clone());
        config = config.profile_files(environment.files.clone());
        if let Some(profile) = &settings.profile {
            credentials = credentials.profile_name(profile);
        }
        config = config.credentials_provider(credentials.build());
    }
    let config = config.load().await;
    let mut builder = Builder::from(&config);
    if let Some(provider) = config.credentials_provider() {
        builder = builder.credentials_provider(environment.checked(provider));
    }
    if let Some(key) = &settings.key {
        let token = key.token.as_ref().map(|token| token.expose().to_owned());
        let key = Credentials::new(key.id.as_str(), key.secret.expose(), token, None, "lifeboat.toml");
        let key = trimmed(&key).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            Error::usage("the store's access key is invalid").because(cause)
        })?;
        builder = builder.credentials_provider(key);
    }
    let (request, response) = match settings.checksums {
        Checksums::WhenRequired => (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired),
        Checksums::WhenSupported => {
            (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported)
        }
    };
    let retries = RetryConfig::standard()
        .with_max_attempts(settings.retries + 1)
        .with_initial_backoff(FIRST_BACKOFF)
        .with_max_backoff(LONGEST_BACKOFF);
    let is_path_style = settings.path_style.or(environment.path_style).unwrap_or(!is_aws);
    builder = builder
        .force_path_style(is_path_style)
        .request_checksum_calculation(request)
        .response_checksum_validation(response)
        .retry_config(retries)
        .retry_classifier(RetryAfter)
        .interceptor(RefuseWebPages)
        .interceptor(LimitAnswers)
        .timeout_config(timeouts(settings.timeout, settings.timeout))
        // A stalled transfer is noticed long before a large request's timeout.
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(settings.timeout).build());
    if let Some(endpoint) = &environment.endpoint {
        // The SDK appends the bucket to the endpoint's path without a slash between them.
        builder = builder.endpoint_url(format!("{endpoint}/"));
    }
    Ok(Client::from_conf(builder.build()))
}

/// Returns the region from the settings or else from the environment, the profile or, on AWS, the machine.
async fn region(environment: &Environment, is_aws: bool, http: &SharedHttpClient) -> Option<Region> {
    if let Some(region) = &environment.region {
        return Some(Region::new(region.clone()));
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &environment.profile {
        profile = profile.profile_name(name);
    }
    let chain = RegionProviderChain::first_try(profile.build());
    let found = if is_aws {
        // Not the SDK's own chain: that asks the instance metadata service with a client that is not built in.
        let provider = ProviderConfig::default().with_http_client(http.clone());
        chain.or_else(ImdsRegionProvider::builder().configure(&provider).build()).region().await
    } else {
        // Most services other than AWS ignore the region, so the instance metadata service is not asked.
        chain.or_else(Region::new("us-east-1")).region().await
    };
    let found = found.map(|region| region.as_ref().trim().to_owned());
    found.filter(|region| is_region(region)).map(Region::new)
}

fn timeouts(timeout: Duration, longest: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        // Connections are shared only between requests with the same timeouts: only the attempt's timeout may differ.
        .connect_timeout(timeout.min(CONNECT_TIMEOUT))
        .operation_attempt_timeout(longest)
        .build()
}

/// A retry rule that never retries after a certificate was refused, that retries after status 429, and that waits as
/// long as `Retry-After` says after 429 or 503: the SDK knows only AWS's own header.
#[derive(Debug)]
struct RetryAfter;

impl ClassifyRetry for RetryAfter {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        // A certificate that is not trusted is not trusted after a retry either.
        let failure = context.output_or_error().and_then(|done| done.err()?.as_connector_error());
        if failure.is_some_and(|failure| tls::is_about_certificate(failure)) {
            return RetryAction::RetryForbidden;
        }
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        let kind = match response.status().as_u16() {
            429 => ErrorKind::ThrottlingError,
            503 => ErrorKind::ServerError,
            _ => return RetryAction::NoActionIndicated,
        };
        let after = response.headers().get("retry-after").and_then(|after| after.trim().parse().ok());
        match after.map(Duration::from_secs) {
            Some(after) => RetryAction::retryable_error_with_explicit_delay(kind, after.min(LONGEST_BACKOFF)),
            None if kind == ErrorKind::ThrottlingError => RetryAction::throttling_error(),
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "retry after"
    }

    fn priority(&self) -> RetryClassifierPriority {
        // After all others: this rule overrides their result for a 503 with the time to wait.
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
