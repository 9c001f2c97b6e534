//! The URL of a store in S3: `s3://bucket/prefix?endpoint=...&region=...`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::platform::duration::parse_duration;
use crate::platform::error::{Error, Result, one_line};
use crate::platform::secret::Secret;
use crate::platform::text;

/// The location and the settings of a store in S3. Neither `{}` nor `{:?}` shows its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// The prefix of all keys, without a slash at its end; may be empty.
    pub prefix: String,
    /// The endpoint of a service other than AWS: `http(s)://host[:port][/path]`.
    pub endpoint: Option<String>,
    /// The region; by default that of the environment or the profile.
    pub region: Option<String>,
    /// True if the bucket is in the path of an address, false if it is in the host name; the default is true with an
    /// endpoint other than AWS.
    pub path_style: Option<bool>,
    /// The store's own access key, which has priority over all other credentials.
    pub key: Option<AccessKey>,
    /// The profile in `~/.aws/config` and `~/.aws/credentials`. It has priority over keys in the environment.
    pub profile: Option<String>,
    /// The file with the profile's credentials, instead of `~/.aws/credentials`.
    pub credentials_file: Option<String>,
    /// The storage class of new objects.
    pub storage_class: Option<String>,
    /// The server-side encryption of new objects.
    pub encryption: Option<ServerEncryption>,
    /// The object lock of new objects.
    pub lock: Option<ObjectLock>,
    /// The use of CRC checksums in requests.
    pub checksums: Checksums,
    /// The timeout of a request, which is extended by the same time for each 4 MiB that it carries.
    pub timeout: Duration,
    /// The number of retries of a request after a transient failure.
    pub retries: u32,
    /// The size of an upload's parts; by default 8 MiB, or larger if the archive may need it.
    pub part_bytes: Option<u64>,
}

/// The credentials of a user of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// The access key id.
    pub id: String,
    /// The secret access key.
    pub secret: Secret,
    /// The session token of temporary credentials.
    pub token: Option<Secret>,
}

/// The server-side encryption of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEncryption {
    /// With a key that S3 manages (SSE-S3).
    Aes256,
    /// With a key of the key service (SSE-KMS): the one named, or the account's default key.
    Kms(Option<String>),
}

/// The retention of locked objects (object lock must be enabled on the bucket).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// The retention mode.
    pub mode: LockMode,
    /// The retention period in days, from the upload.
    pub days: u32,
}

/// The retention mode of a locked object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Users with a special permission may delete the object.
    Governance,
    /// No user may delete the object.
    Compliance,
}

/// The use of CRC checksums in requests; many compatible services refuse them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksums {
    /// Only if the service requires them.
    #[default]
    WhenRequired,
    /// Always.
    WhenSupported,
}

/// The characters that are percent-encoded in a setting's value.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'&').add(b'+').add(b'?');

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_RETRIES: u32 = 7;
/// S3's limits for the size of a part (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const PART_BYTES: std::ops::RangeInclusive<u64> = 5 << 20..=5 << 30;

const KNOWN_SETTINGS: &str = "endpoint, region, path_style, profile, credentials_file, storage_class, sse, kms_key, \
                              object_lock, object_lock_days, checksums, timeout, retries, part_size";

impl S3Settings {
    /// Returns the default settings of a store.
    fn new(bucket: &str, prefix: &str) -> Self {
        S3Settings {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            path_style: None,
            key: None,
            profile: None,
            credentials_file: None,
            storage_class: None,
            encryption: None,
            lock: None,
            checksums: Checksums::default(),
            timeout: DEFAULT_TIMEOUT,
            retries: DEFAULT_RETRIES,
            part_bytes: None,
        }
    }

    /// Applies one `name=value` pair of the URL.
    fn set(&mut self, name: &str, value: String, dependent: &mut DependentSettings) -> Result<()> {
        match name {
            "endpoint" => self.endpoint = Some(check_endpoint(value)?),
            "region" => self.region = Some(value),
            "path_style" => self.path_style = Some(parse_bool(name, &value)?),
            "profile" => self.profile = Some(value),
            "credentials_file" => self.credentials_file = Some(value),
            "storage_class" => self.storage_class = Some(value),
            "sse" => {
                self.encryption = Some(match value.as_str() {
                    "AES256" => ServerEncryption::Aes256,
                    "aws:kms" => ServerEncryption::Kms(None),
                    _ => return Err(bad_setting(name, "it must be AES256 or aws:kms")),
                });
            }
            "kms_key" => dependent.kms_key = Some(value),
            "object_lock" => {
                dependent.lock = Some(match value.as_str() {
                    "governance" => LockMode::Governance,
                    "compliance" => LockMode::Compliance,
                    _ => return Err(bad_setting(name, "it must be governance or compliance")),
                });
            }
            "object_lock_days" => dependent.days = Some(parse_number(name, &value, 1..=36_500)?),
            "checksums" => {
                self.checksums = match value.as_str() {
                    "when_required" => Checksums::WhenRequired,
                    "when_supported" => Checksums::WhenSupported,
                    _ => return Err(bad_setting(name, "it must be when_required or when_supported")),
                };
            }
            "timeout" => {
                self.timeout = parse_duration(&value)
                    .ok()
                    .and_then(|timeout| timeout.to_std().ok())
                    .filter(|timeout| (1..=3600).contains(&timeout.as_secs()))
                    .ok_or_else(|| bad_setting(name, "it must be a time from 1s to 1h, such as 30s"))?;
            }
            "retries" => self.retries = parse_number(name, &value, 0..=20)?,
            "part_size" => {
                let bytes = text::parse_bytes(&value).filter(|bytes| PART_BYTES.contains(bytes));
                self.part_bytes =
                    Some(bytes.ok_or_else(|| bad_setting(name, "it must be a size from 5MiB to 5GiB, such as 64MiB"))?);
            }
            _ => {
                return Err(Error::usage(format!("a store in S3 has no setting '{}'", one_line(name)))
                    .hint(format!("use {KNOWN_SETTINGS}; credentials come from the environment or a profile")));
            }
        }
        Ok(())
    }
}

/// Settings that are valid only together with another setting.
#[derive(Default)]
struct DependentSettings {
    kms_key: Option<String>,
    lock: Option<LockMode>,
    days: Option<u32>,
}

impl FromStr for S3Settings {
    type Err = Error;

    /// Parses `s3://bucket/prefix?...`.
    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix("s3://").unwrap_or(text);
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        check_bucket(bucket)?;
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        check_prefix(prefix)?;
        let mut settings = S3Settings::new(bucket, prefix);
        let mut dependent = DependentSettings::default();
        let mut names = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| bad_setting(pair, "it has no value"))?;
            let value = percent_decode_str(value).decode_utf8().map_err(|_| bad_setting(name, "it is not UTF-8"))?;
            if value.is_empty() {
                return Err(bad_setting(name, "it has no value"));
            }
            if names.contains(&name) {
                return Err(bad_setting(name, "it is given twice"));
            }
            names.push(name);
            settings.set(name, value.into_owned(), &mut dependent)?;
        }
        match (&mut settings.encryption, dependent.kms_key) {
            (Some(ServerEncryption::Kms(own)), key) => *own = key,
            (_, Some(_)) => return Err(bad_setting("kms_key", "it requires sse=aws:kms")),
            _ => {}
        }
        settings.lock = match (dependent.lock, dependent.days) {
            (Some(mode), Some(days)) => Some(ObjectLock { mode, days }),
            (None, None) => None,
            _ => return Err(bad_setting("object_lock", "object_lock and object_lock_days must be set together")),
        };
        Ok(settings)
    }
}

impl fmt::Display for S3Settings {
    /// Writes the URL that parses to the same settings, except for the access key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let (sse, kms_key) = match &self.encryption {
            None => (None, None),
            Some(ServerEncryption::Aes256) => (Some("AES256"), None),
            Some(ServerEncryption::Kms(key)) => (Some("aws:kms"), key.clone()),
        };
        let lock = self.lock.map(|lock| match lock.mode {
            LockMode::Governance => "governance",
            LockMode::Compliance => "compliance",
        });
        let settings = [
            ("endpoint", self.endpoint.clone()),
            ("region", self.region.clone()),
            ("path_style", self.path_style.map(|path_style| path_style.to_string())),
            ("profile", self.profile.clone()),
            ("credentials_file", self.credentials_file.clone()),
            ("storage_class", self.storage_class.clone()),
            ("sse", sse.map(str::to_owned)),
            ("kms_key", kms_key),
            ("object_lock", lock.map(str::to_owned)),
            ("object_lock_days", self.lock.map(|lock| lock.days.to_string())),
            ("checksums", (self.checksums == Checksums::WhenSupported).then(|| "when_supported".to_owned())),
            ("timeout", (self.timeout != DEFAULT_TIMEOUT).then(|| format!("{}s", self.timeout.as_secs()))),
            ("retries", (self.retries != DEFAULT_RETRIES).then(|| self.retries.to_string())),
            ("part_size", self.part_bytes.map(|bytes| bytes.to_string())),
        ];
        let mut separator = '?';
        for (name, value) in settings {
            if let Some(value) = value {
                write!(f, "{separator}{name}={}", utf8_percent_encode(&value, ESCAPED))?;
                separator = '&';
            }
        }
        Ok(())
    }
}

fn bad_setting(name: &str, reason: &str) -> Error {
    Error::usage(format!("the store's setting '{}' is invalid: {reason}", one_line(name)))
}

/// Checks the rules for bucket names that all services share
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
fn check_bucket(bucket: &str) -> Result<()> {
    let fits = (3..=63).contains(&bucket.len())
        && bucket.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        && bucket.starts_with(|c: char| c.is_ascii_alphanumeric());
    if fits {
        return Ok(());
    }
    if bucket.contains('@') {
        return Err(Error::usage("the URL of a store cannot contain credentials")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile with ?profile=NAME"));
    }
    Err(Error::usage(format!("'{}' is not a valid bucket name", one_line(bucket))).hint("write s3://bucket/prefix"))
}

fn check_prefix(prefix: &str) -> Result<()> {
    let good = |part: &str| {
        !part.is_empty()
            && !matches!(part, "." | "..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+=@,:!".contains(&b))
    };
    if prefix.is_empty() || (prefix.len() <= 512 && prefix.split('/').all(good)) {
        return Ok(());
    }
    Err(Error::usage(format!("'{}' is not a valid prefix in a bucket", one_line(prefix)))
        .hint("use letters, digits and ._-+=@,:! in parts that are separated by single slashes"))
}

/// Checks the endpoint of a service: `http(s)://host[:port]`, and a path if the service is below one, such as
/// `/storage/v1/s3`. Returns it without a slash at its end.
pub(super) fn check_endpoint(endpoint: String) -> Result<String> {
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let rest = rest.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let (host, path) = rest.unwrap_or_default().split_once('/').unwrap_or((rest.unwrap_or_default(), ""));
    if rest.is_some_and(|rest| rest.contains('@')) {
        return Err(Error::usage("an endpoint cannot contain credentials")
            .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile with profile=NAME"));
    }
    let is_good_part = |part: &str| {
        !matches!(part, "" | "." | "..") && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-~".contains(&b))
    };
    let is_good_host = !host.is_empty()
        && !host.contains(['?', '#', '\\'])
        && !host.contains(|c: char| c.is_whitespace() || c.is_control())
        && has_good_port(host);
    if is_good_host && (path.is_empty() || path.split('/').all(is_good_part)) {
        return Ok(endpoint.strip_suffix('/').unwrap_or(&endpoint).to_owned());
    }
    Err(bad_setting("endpoint", "it must be http://host:port or https://host, with a path if the service has one"))
}

/// Returns true if a host has no port or a valid one. An IPv6 address is in brackets.
fn has_good_port(host: &str) -> bool {
    let after_bracket = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after_bracket.split_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn parse_bool(name: &str, value: &str) -> Result<bool> {
    value.parse().map_err(|_| bad_setting(name, "it must be true or false"))
}

fn parse_number(name: &str, value: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| bad_setting(name, &format!("it must be a number from {} to {}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_settings_parse_to_the_same_settings() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b",
            "s3://bucket/prod?endpoint=http://127.0.0.1:9000",
            "s3://bucket?endpoint=https://s3.example.com&region=eu-central-1&path_style=false&profile=a%20b%26c",
            "s3://bucket/p?storage_class=STANDARD_IA&sse=aws:kms&kms_key=arn:aws:kms:eu:1:key/x&object_lock=governance&\
             object_lock_days=30&checksums=when_supported&timeout=5s&retries=2&part_size=67108864",
            "s3://bucket/p?path_style=true&sse=AES256",
            "s3://bucket?endpoint=http://[::1]:9000",
            "s3://bucket/p?endpoint=https://project.supabase.co/storage/v1/s3",
        ] {
            let settings: S3Settings = text.parse().expect(text);
            assert_eq!(settings.to_string(), text);
            assert_eq!(settings.to_string().parse::<S3Settings>().expect(text), settings);
        }
        let settings: S3Settings = "s3://bucket/p/?part_size=64MiB&endpoint=http://h:1/".parse().expect("good");
        assert_eq!((settings.part_bytes, settings.path_style), (Some(64 << 20), None));
        assert_eq!(settings.to_string(), "s3://bucket/p?endpoint=http://h:1&part_size=67108864");
    }

    #[test]
    fn invalid_settings_are_refused_without_repeating_a_secret() {
        for text in [
            "s3://",
            "s3:///x",
            "s3://b",
            "s3://bucket//x",
            "s3://bucket/../x",
            "s3://bucket/a b",
            "s3://bucket?regoin=x",
            "s3://bucket?region",
            "s3://bucket?region=",
            "s3://bucket?region=a&region=b",
            "s3://bucket?endpoint=ftp://x",
            "s3://bucket?endpoint=http://x//y",
            "s3://bucket?endpoint=http://x/../y",
            "s3://bucket?endpoint=http://x/a b",
            "s3://bucket?endpoint=http://x%0a",
            "s3://bucket?endpoint=http://x:19696x",
            "s3://bucket?endpoint=http://[::1]:",
            "s3://bucket?path_style=maybe",
            "s3://bucket?sse=rot13",
            "s3://bucket?kms_key=x",
            "s3://bucket?object_lock=governance",
            "s3://bucket?object_lock_days=0&object_lock=compliance",
            "s3://bucket?timeout=0s",
            "s3://bucket?retries=1000",
            "s3://bucket?part_size=1MiB",
            "s3://bucket?region=%ff",
        ] {
            let error = text.parse::<S3Settings>().expect_err(text);
            assert_eq!(error.kind, crate::platform::error::Kind::Usage, "{text}");
        }
        for text in ["s3://AKIA:hunter2@bucket/x", "s3://bucket?endpoint=http://AKIA:hunter2@host/s3"] {
            let error = text.parse::<S3Settings>().expect_err(text);
            let text = format!("{} {:?}", error.full_message(), error.hint);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
