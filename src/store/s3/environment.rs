//! The settings of the service that the environment and AWS's own files give: endpoint, region, addressing style,
//! trusted certificates and credentials. The settings in a store's URL have priority over all of them.

use std::borrow::Cow;
use std::path::PathBuf;

use aws_config::profile::ProfileSet;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::property::PropertiesKey;
use aws_sdk_s3::config::Credentials;

use super::settings::{S3Settings, check_endpoint};
use crate::platform::error::{Error, Result, one_line};

/// The environment variables that name an endpoint other than AWS; the first one has priority.
const ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// The environment's settings of a service.
#[derive(Debug)]
pub(super) struct Environment {
    /// The files with profiles.
    pub(super) files: EnvConfigFiles,
    /// The profile, if the settings or `AWS_PROFILE` name one.
    pub(super) profile: Option<String>,
    /// The endpoint, if it is not AWS.
    pub(super) endpoint: Option<String>,
    /// The region of the settings or of the variables, but not that of the profile.
    pub(super) region: Option<String>,
    /// The addressing style that the profile sets: true if the bucket is in the path of an address.
    pub(super) path_style: Option<bool>,
    /// The file with the trusted certificates, which replaces those of the system.
    pub(super) ca_bundle: Option<PathBuf>,
    /// The file with the token of a web identity.
    web_identity_file: Option<PathBuf>,
    /// True if the profile logs in with single sign-on.
    uses_sso: bool,
}

impl Environment {
    /// Reads the variables and the files. A file that cannot be read is ignored here; the search for credentials
    /// reports it.
    pub(super) async fn read(settings: &S3Settings) -> Result<Self> {
        let files = EnvConfigFiles::builder().include_default_config_file(true);
        let files = match &settings.credentials_file {
            Some(path) => files.with_file(EnvConfigFileKind::Credentials, path),
            None => files.include_default_credentials_file(true),
        };
        let files = files.build();
        let profile = settings.profile.clone().or_else(|| variable("AWS_PROFILE"));
        let named = profile.clone().map(Cow::Owned);
        let sections = aws_config::profile::load(&Default::default(), &Default::default(), &files, named).await;
        let sections = sections.unwrap_or_else(|error| {
            tracing::debug!("the AWS profiles cannot be read: {error}");
            ProfileSet::default()
        });
        let of_profile = |name: &str| sections.get(name).map(str::trim).filter(|value| !value.is_empty());
        let file = |name: &str, key: &str| variable(name).or_else(|| of_profile(key).map(str::to_owned));
        Ok(Environment {
            endpoint: endpoint(settings, &sections)?,
            region: region(settings)?,
            path_style: of_profile("s3").and_then(addressing_style),
            ca_bundle: file("AWS_CA_BUNDLE", "ca_bundle").map(PathBuf::from),
            web_identity_file: file("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file").map(PathBuf::from),
            uses_sso: of_profile("sso_session").or(of_profile("sso_start_url")).is_some(),
            files,
            profile,
        })
    }

    /// Returns a provider that gives the credentials of `inner` without line breaks at their ends, and that names the
    /// file that is missing if there are none.
    pub(super) fn checked(&self, inner: SharedCredentialsProvider) -> CheckedCredentials {
        CheckedCredentials {
            inner,
            profile: self.profile.clone(),
            web_identity_file: self.web_identity_file.clone(),
            uses_sso: self.uses_sso,
        }
    }
}

/// Returns the value of a variable without white space around it; `None` if nothing is left.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

impl S3Settings {
    /// Takes the endpoint and the region of the environment's variables where the settings have none.
    pub(in crate::store) fn complete_from_variables(&mut self) {
        let ignores =
            variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let first = |names: [&str; 2]| names.into_iter().find_map(variable);
        if self.endpoint.is_none() && !ignores {
            self.endpoint = first(ENDPOINTS).and_then(|endpoint| check_endpoint(endpoint).ok());
        }
        if self.region.is_none() {
            self.region = first(REGIONS);
        }
    }
}

/// Returns the endpoint of the settings, of the variables or of the profile, in this order
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html>).
fn endpoint(settings: &S3Settings, sections: &ProfileSet) -> Result<Option<String>> {
    if settings.endpoint.is_some() {
        return Ok(settings.endpoint.clone());
    }
    let is_true = |value: &str| value.trim().eq_ignore_ascii_case("true");
    if variable("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(|value| is_true(&value))
        || sections.get("ignore_configured_endpoint_urls").is_some_and(is_true)
    {
        return Ok(None);
    }
    let checked = |place: &str, endpoint: &str| {
        check_endpoint(endpoint.trim().to_owned()).map_err(|error| error.context(format!("{place} is invalid")))
    };
    if let Some((name, value)) = ENDPOINTS.iter().find_map(|name| Some((name, variable(name)?))) {
        return checked(name, &value).map(Some);
    }
    let of_services = sections.get("services").and_then(|services| {
        let key = PropertiesKey::builder().section_key("services").section_name(services.trim());
        let key = key.property_name("s3").sub_property_name("endpoint_url").build().ok()?;
        sections.other_sections().get(&key).map(String::as_str)
    });
    let of_profile = of_services.or_else(|| sections.get("endpoint_url")).filter(|value| !value.trim().is_empty());
    let place = format!("endpoint_url of the profile {}", one_line(sections.selected_profile()));
    of_profile.map(|value| checked(&place, value)).transpose()
}

/// Returns the region of the settings or of the variables. A region is a part of host names and of signatures.
fn region(settings: &S3Settings) -> Result<Option<String>> {
    let from_variable = || REGIONS.iter().find_map(|name| Some(((*name).to_owned(), variable(name)?)));
    let found = match &settings.region {
        Some(region) => Some(("the store's region".to_owned(), region.trim().to_owned())),
        None => from_variable(),
    };
    match found {
        Some((_, region)) if is_region(&region) => Ok(Some(region)),
        Some((place, region)) => {
            Err(Error::usage(format!("{place} is invalid: '{}' is not the name of a region", one_line(&region)))
                .hint("write a name such as eu-central-1"))
        }
        None => Ok(None),
    }
}

/// Returns true if a text can be the name of a region.
pub(super) fn is_region(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Returns the `addressing_style` in the `s3` settings of a profile, which are lines of `name = value`.
fn addressing_style(settings: &str) -> Option<bool> {
    let mut pairs = settings.lines().filter_map(|line| line.split_once('='));
    let style = pairs.rfind(|(name, _)| name.trim() == "addressing_style")?.1;
    match style.trim() {
        "path" => Some(true),
        "virtual" => Some(false),
        _ => None,
    }
}

/// Returns the credentials without white space around their parts, such as the line break after a secret that `echo`
/// wrote. A part with a control character or a space inside cannot be sent in a header, and is refused.
pub(super) fn trimmed(credentials: &Credentials) -> provider::Result {
    let parts = [
        ("access key id", Some(credentials.access_key_id())),
        ("secret access key", Some(credentials.secret_access_key())),
        ("session token", credentials.session_token()),
    ];
    for (name, value) in parts {
        if value.is_some_and(|value| !value.trim().bytes().all(|b| b.is_ascii_graphic())) {
            return Err(CredentialsError::provider_error(format!(
                "the {name} contains a line break or another character that no key has"
            )));
        }
    }
    let [(_, id), (_, secret), (_, token)] = parts.map(|(name, value)| (name, value.unwrap_or_default().trim()));
    if id.is_empty() || secret.is_empty() {
        return Err(CredentialsError::provider_error("the access key is empty"));
    }
    let token = Some(token.to_owned()).filter(|token| !token.is_empty());
    Ok(Credentials::new(id, secret, token, credentials.expiry(), "lifeboat"))
}

/// A provider of credentials that checks them.
#[derive(Debug)]
pub(super) struct CheckedCredentials {
    inner: SharedCredentialsProvider,
    profile: Option<String>,
    web_identity_file: Option<PathBuf>,
    uses_sso: bool,
}

impl CheckedCredentials {
    async fn provide(&self) -> provider::Result {
        match self.inner.provide_credentials().await {
            Ok(credentials) => trimmed(&credentials),
            Err(error) => Err(self.missing_file(&error).map_or(error, CredentialsError::provider_error)),
        }
    }

    /// Returns a message with the name of the file that is missing, if that is why there are no credentials.
    fn missing_file(&self, error: &CredentialsError) -> Option<String> {
        if let Some(file) = &self.web_identity_file
            && let Err(cause) = std::fs::File::open(file)
        {
            return Some(format!("cannot read the web identity token file {}: {cause}", file.display()));
        }
        if self.uses_sso {
            let profile = self.profile.as_deref().unwrap_or("default");
            // Only the debug text of the SDK's error has the name of the file.
            let text = format!("{error:?}");
            let file = text.split_once("path: \"").and_then(|(_, rest)| Some(rest.split_once('"')?.0));
            // Other failures, such as of the network, have their own message.
            if file.is_none() && !text.to_ascii_lowercase().contains("expired") {
                return None;
            }
            let file = file.unwrap_or("~/.aws/sso/cache");
            return Some(format!("the SSO login of the profile {profile} is missing or has expired ({file})"));
        }
        None
    }
}

impl ProvideCredentials for CheckedCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_after_a_key_is_removed_and_one_inside_is_refused() {
        let good = Credentials::new("key\r\n", " secret\n", Some("token\n".to_owned()), None, "test");
        let good = trimmed(&good).expect("valid without the line breaks");
        assert_eq!((good.access_key_id(), good.secret_access_key()), ("key", "secret"));
        assert_eq!(good.session_token(), Some("token"));
        for (id, secret, token) in [("k\ney", "secret", None), ("key", "hun\rter2", None), ("key", "s", Some("t\nt"))] {
            let bad = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
            let error = trimmed(&bad).expect_err("a line break inside");
            let text = format!("{error:?}");
            assert!(text.contains("line break") && !text.contains("ter2"), "{text}");
        }
        assert!(trimmed(&Credentials::new("\n", "secret", None, None, "test")).is_err());
    }

    #[test]
    fn the_addressing_style_of_a_profile_is_read() {
        assert_eq!(addressing_style("\naddressing_style = path\nmax_concurrent_requests = 4"), Some(true));
        assert_eq!(addressing_style("\n addressing_style=virtual"), Some(false));
        assert_eq!(addressing_style("addressing_style = auto"), None);
        assert_eq!(addressing_style(""), None);
    }
}
