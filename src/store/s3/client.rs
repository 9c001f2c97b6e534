//! The way to the service: one client, one runtime under it, and the one bridge from plain threads to both.

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

/// Where the environment names a service that is not AWS.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
/// How often a wait for the service looks whether a signal asked to stop.
const TICK: Duration = Duration::from_millis(100);
/// Threads that sign, hash and encrypt what goes over the wire; waiting needs none.
const THREADS: usize = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No service is waited for longer than this before the next try, whatever it asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How much a request may carry for each `timeout` that it may take longer.
const STEP_BYTES: u64 = 4 << 20;

/// The client, and the runtime that it lives in.
pub(super) struct Bridge {
    pub(super) client: Client,
    timeout: Duration,
    retries: u32,
    runtime: Option<Runtime>,
}

impl Bridge {
    /// Makes the client; the service is not asked for anything yet, but credentials and region are looked for when it is.
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

    /// Waits for the service's answer; ends early, with an error, once a signal has asked to stop.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime().block_on(async {
            tokio::pin!(work);
            loop {
                tokio::select! {
                    done = &mut work => return done,
                    () = tokio::time::sleep(TICK) => interrupt::check()?,
                }
            }
        })
    }

    /// Waits for what must also be done after a signal, such as clearing up, but only so long; None where it takes longer.
    pub(super) fn wait_at_most<T>(&self, longest: Duration, work: impl Future<Output = T>) -> Option<T> {
        self.runtime().block_on(async { tokio::time::timeout(longest, work).await.ok() })
    }

    /// Starts work that goes on by itself.
    pub(super) fn start<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime().spawn(work)
    }

    /// How long a request may take that carries so many bytes, either way.
    pub(super) fn patience(&self, bytes: u64) -> Duration {
        self.timeout.saturating_mul(u32::try_from(1 + bytes.div_ceil(STEP_BYTES)).unwrap_or(u32::MAX))
    }

    /// The settings of a request that may take so long.
    pub(super) fn patient(&self, longest: Duration) -> Builder {
        Builder::new().timeout_config(timeouts(self.timeout, longest))
    }

    /// How often a request is sent again.
    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Waits before try number `number` (from 1 on) is followed by another; longer each time, and never the same for two.
    pub(super) async fn pause(&self, number: u32) {
        let longest = FIRST_PAUSE.saturating_mul(1 << number.min(16)).min(LONGEST_PAUSE);
        let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
        tokio::time::sleep(longest.mul_f64(share.max(0.1))).await;
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Connections that are open have nothing to say any more.
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
    // What is named goes before what the environment holds, also before keys in it.
    if settings.profile.is_some() || settings.credentials_file.is_some() {
        let mut files = EnvConfigFiles::builder().include_default_config_file(true);
        files = match &settings.credentials_file {
            Some(path) => files.with_file(EnvConfigFileKind::Credentials, path),
            None => files.include_default_credentials_file(true),
        };
        let files = files.build();
        // A profile may ask AWS for the role that it names.
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
        .with_initial_backoff(FIRST_PAUSE)
        .with_max_backoff(LONGEST_PAUSE);
    let mut config = Builder::from(&environment)
        .force_path_style(settings.path_style.unwrap_or(!is_aws))
        .request_checksum_calculation(request)
        .response_checksum_validation(response)
        .retry_config(retries)
        .retry_classifier(AsTold)
        .timeout_config(timeouts(settings.timeout, settings.timeout))
        // What stands still is noticed long before the time is over that a large request may take.
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(settings.timeout).build());
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

/// The region: as it is named, or as the environment, the profile or the machine says.
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
        // Not the SDK's own chain: that asks the machine, which may be one of AWS's, with a client that we do not have.
        let provider = ProviderConfig::default().with_http_client(http.clone());
        return chain.or_else(ImdsRegionProvider::builder().configure(&provider).build()).region().await;
    }
    // A service that is not AWS mostly does not care, and the machine need not be asked whether it is one of AWS's.
    chain.or_else(Region::new("us-east-1")).region().await
}

fn timeouts(timeout: Duration, longest: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        // A connection belongs to those of the same timeouts: only the one of the attempt may differ.
        .connect_timeout(timeout.min(CONNECT_TIMEOUT))
        .operation_attempt_timeout(longest)
        .build()
}

/// TLS by rustls and ring, roots of the system; proxies as the environment names them.
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

/// Tries again after 429, and waits as long as a `Retry-After` asks: the SDK knows only AWS's own form of it.
#[derive(Debug)]
struct AsTold;

impl ClassifyRetry for AsTold {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        let kind = match response.status().as_u16() {
            429 => ErrorKind::ThrottlingError,
            503 => ErrorKind::ServerError,
            _ => return RetryAction::NoActionIndicated,
        };
        let after = response.headers().get("retry-after").and_then(|after| after.trim().parse().ok());
        match after.map(Duration::from_secs) {
            Some(after) => RetryAction::retryable_error_with_explicit_delay(kind, after.min(LONGEST_PAUSE)),
            None if kind == ErrorKind::ThrottlingError => RetryAction::throttling_error(),
            None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "as the service asks"
    }

    fn priority(&self) -> RetryClassifierPriority {
        // After all others: what they say of a 503 is said again here, with the time to wait.
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
