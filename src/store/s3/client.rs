//! The connection to the service: one client, its runtime, and the only bridge from plain threads to both.

use std::future::Future;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::retries::classifiers::RetryClassifierPriority;
use aws_smithy_types::retry::ErrorKind;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::settings::{Checksums, S3Settings};
use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

/// The environment variables that name an endpoint other than AWS.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
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
        let client = runtime.block_on(client(settings));
        Ok(Bridge { client, timeout: settings.timeout, retries: settings.retries, runtime: Some(runtime) })
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

async fn client(settings: &S3Settings) -> Client {
    let http = http_client();
    let is_aws = settings.endpoint.is_none() && ENDPOINTS.iter().all(|name| std::env::var_os(name).is_none());
    let region = region(settings, is_aws, &http).await;
    let mut environment =
        aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).region(region.clone());
    // A profile or file named in the settings has priority over the environment, including its keys.
    if settings.profile.is_some() || settings.credentials_file.is_some() {
        let mut files = EnvConfigFiles::builder().include_default_config_file(true);
        files = match &settings.credentials_file {
            Some(path) => files.with_file(EnvConfigFileKind::Credentials, path),
            None => files.include_default_credentials_file(true),
        };
        let files = files.build();
        // A profile may assume a role, which needs requests to AWS.
        let provider = ProviderConfig::default().with_http_client(http).with_region(region);
        let mut credentials =
            ProfileFileCredentialsProvider::builder().configure(&provider).profile_files(files.clone());
        environment = environment.profile_files(files);
        if let Some(profile) = &settings.profile {
            credentials = credentials.profile_name(profile);
            environment = environment.profile_name(profile);
        }
        environment = environment.credentials_provider(credentials.build());
    }
    if let Some(key) = &settings.key {
        let token = key.token.as_ref().map(|token| token.expose().to_owned());
        let key = Credentials::new(key.id.as_str(), key.secret.expose(), token, None, "lifeboat.toml");
        environment = environment.credentials_provider(key);
    }
    let environment = environment.load().await;
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
    let mut config = Builder::from(&environment)
        .force_path_style(settings.path_style.unwrap_or(!is_aws))
        .request_checksum_calculation(request)
        .response_checksum_validation(response)
        .retry_config(retries)
        .retry_classifier(RetryAfter)
        .timeout_config(timeouts(settings.timeout, settings.timeout))
        // A stalled transfer is noticed long before a large request's timeout.
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(settings.timeout).build());
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

/// Returns the region from the settings or else from the environment, the profile or, on AWS, the machine.
async fn region(settings: &S3Settings, is_aws: bool, http: &SharedHttpClient) -> Option<Region> {
    if let Some(region) = &settings.region {
        return Some(Region::new(region.clone()));
    }
    let mut profile = ProfileFileRegionProvider::builder();
    if let Some(name) = &settings.profile {
        profile = profile.profile_name(name);
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new()).or_else(profile.build());
    if is_aws {
        // Not the SDK's own chain: that asks the instance metadata service with a client that is not built in.
        let provider = ProviderConfig::default().with_http_client(http.clone());
        return chain.or_else(ImdsRegionProvider::builder().configure(&provider).build()).region().await;
    }
    // Most services other than AWS ignore the region, so the instance metadata service is not asked.
    chain.or_else(Region::new("us-east-1")).region().await
}

fn timeouts(timeout: Duration, longest: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        // Connections are shared only between requests with the same timeouts: only the attempt's timeout may differ.
        .connect_timeout(timeout.min(CONNECT_TIMEOUT))
        .operation_attempt_timeout(longest)
        .build()
}

/// Creates the HTTP client: TLS by rustls and ring with the system's root certificates, proxies from the environment.
fn http_client() -> SharedHttpClient {
    HttpBuilder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .proxy_config(ProxyConfig::from_env())
            .enable_tcp_nodelay(true);
        if let Some(settings) = settings {
            connector = connector.connector_settings(settings.clone());
        }
        if let Some(components) = components {
            connector.set_sleep_impl(components.sleep_impl());
        }
        connector.build()
    })
}

/// A retry rule that retries after status 429, and waits as long as `Retry-After` says after 429 or 503: the SDK knows
/// only AWS's own header.
#[derive(Debug)]
struct RetryAfter;

impl ClassifyRetry for RetryAfter {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
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
