//! `[[store]]`: the locations of stores, and the settings of S3.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use toml::Spanned;

use crate::config::sections::reading::{ReadContext, TILDE_HINT, filled};
use crate::config::values::{Parsed, Text};
use crate::config::variables::Variables;
use crate::platform::error::{Error, Result};
use crate::platform::home;
use crate::platform::secret::Secret;
use crate::snapshots::id::SourceName;
use crate::store::StoreUrl;
use crate::store::s3::AccessKey;

/// A store of the config.
#[derive(Clone, Debug)]
pub struct ConfiguredStore {
    /// The name by which `--store` can select it.
    pub name: Option<SourceName>,
    /// Its location.
    pub store: StoreUrl,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawStore {
    url: Option<Spanned<Text>>,
    name: Option<Parsed<SourceName>>,
    access_key_id: Option<Text>,
    secret_access_key: Option<Text>,
    secret_access_key_file: Option<Text>,
    session_token: Option<Text>,
    endpoint: Option<Text>,
    region: Option<Text>,
    path_style: Option<Text>,
    profile: Option<Text>,
    credentials_file: Option<Text>,
    storage_class: Option<Text>,
    sse: Option<Text>,
    kms_key: Option<Text>,
    object_lock: Option<Text>,
    object_lock_days: Option<Text>,
    checksums: Option<Text>,
    timeout: Option<Text>,
    retries: Option<Text>,
    part_size: Option<Text>,
}

impl RawStore {
    /// Returns the position of its url.
    pub(in crate::config) fn position(&self) -> Option<std::ops::Range<usize>> {
        self.url.as_ref().map(Spanned::span)
    }

    pub(in crate::config) fn read(self, context: &ReadContext<'_>) -> Result<ConfiguredStore> {
        let mut url = filled(self.url.map(Spanned::into_inner))
            .ok_or_else(|| Error::usage("a store has no url").hint("name a folder, or s3://bucket/prefix"))?;
        home::refuse(&url, TILDE_HINT)?;
        let is_s3 = url.starts_with("s3://");
        let settings = [
            ("endpoint", self.endpoint),
            ("region", self.region),
            ("path_style", self.path_style),
            ("profile", self.profile),
            ("credentials_file", self.credentials_file),
            ("storage_class", self.storage_class),
            ("sse", self.sse),
            ("kms_key", self.kms_key),
            ("object_lock", self.object_lock),
            ("object_lock_days", self.object_lock_days),
            ("checksums", self.checksums),
            ("timeout", self.timeout),
            ("retries", self.retries),
            ("part_size", self.part_size),
        ];
        for (name, value) in settings {
            let Some(mut value) = filled(value) else { continue };
            if !is_s3 {
                return Err(Error::usage(format!("'{name}' is only valid for a store in S3, but the url is a folder")));
            }
            if name == "credentials_file" {
                value = context.path(&value)?.display().to_string();
            }
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", utf8_percent_encode(&value, NON_ALPHANUMERIC)));
        }
        let mut store: StoreUrl = url.parse()?;
        let id = filled(self.access_key_id);
        let mut secret = filled(self.secret_access_key).map(Secret::new);
        if let Some(path) = filled(self.secret_access_key_file) {
            secret = Some(context.secret_file(&path)?);
        }
        match &mut store {
            StoreUrl::Folder(path) => {
                if id.is_some() || secret.is_some() {
                    return Err(Error::usage("access keys are only valid for a store in S3, but the url is a folder"));
                }
                *path = context.folder.join(&*path).components().collect();
            }
            StoreUrl::S3(settings) => {
                let token = filled(self.session_token).map(Secret::new);
                settings.key = match (id, secret) {
                    (Some(id), Some(secret)) => Some(AccessKey { id, secret, token }),
                    (None, None) => None,
                    _ => return Err(Error::usage("access_key_id and secret_access_key must be set together")),
                };
                complete_s3(settings, context.variables);
            }
        }
        Ok(ConfiguredStore { name: self.name.map(|name| name.0), store })
    }
}

/// Applies AWS variables from the file of variables as if they were in the process's environment.
fn complete_s3(settings: &mut crate::store::s3::S3Settings, variables: &Variables) {
    let file = variables.of_file();
    let get = |name: &str| file.get(name).filter(|value| !value.is_empty());
    let is_named = settings.profile.is_some() || settings.credentials_file.is_some() || settings.key.is_some();
    if let (false, Some(id), Some(secret)) = (is_named, get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"))
        && std::env::var_os("AWS_ACCESS_KEY_ID").is_none()
    {
        let token = get("AWS_SESSION_TOKEN").map(|token| Secret::new(token.as_str()));
        settings.key = Some(AccessKey { id: id.clone(), secret: Secret::new(secret.as_str()), token });
    }
    if settings.region.is_none() {
        settings.region = get("AWS_REGION").or(get("AWS_DEFAULT_REGION")).cloned();
    }
    if settings.endpoint.is_none() {
        settings.endpoint = get("AWS_ENDPOINT_URL_S3").or(get("AWS_ENDPOINT_URL")).cloned();
    }
}
