//! The S3 servers that `scripts/servers` started, and new stores on them.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use lifeboat::store::{S3Store, Store as _};
use serde::Deserialize;

use super::{Run, Sandbox};

/// A running server.
#[derive(Clone, Debug, Deserialize)]
pub struct S3Server {
    /// `seaweedfs` or `ceph`.
    pub name: String,
    pub endpoint: String,
    pub port: u16,
    pub access_key: String,
    pub secret_key: String,
    /// The key of a user who may read but not write, if the server has one.
    pub limited_access_key: Option<String>,
    pub limited_secret_key: Option<String>,
    pub bucket: String,
    /// A bucket whose objects can be locked, if the server has one.
    pub locked_bucket: Option<String>,
}

/// Returns all S3 servers that run.
#[track_caller]
pub fn s3_servers() -> Vec<S3Server> {
    static SERVERS: OnceLock<Result<Vec<S3Server>, String>> = OnceLock::new();
    match SERVERS.get_or_init(read_servers) {
        Ok(servers) => servers.clone(),
        Err(error) => panic!(
            "{error}: this test needs S3 servers; run 'scripts/test', or \
             'scripts/servers run seaweedfs ceph -- cargo test ...'"
        ),
    }
}

/// Returns the server with this name.
#[track_caller]
pub fn s3_server(name: &str) -> S3Server {
    let found = s3_servers().into_iter().find(|server| server.name == name);
    found.unwrap_or_else(|| panic!("{name} was not started: run 'scripts/servers run {name} -- ...'"))
}

fn read_servers() -> Result<Vec<S3Server>, String> {
    let folder = std::env::var("LIFEBOAT_TEST_SERVERS").map_err(|_| "LIFEBOAT_TEST_SERVERS is not set".to_owned())?;
    let path = Path::new(&folder).join("s3.json");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Returns a prefix that no other test uses, for the bucket that all tests share.
pub fn fresh_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("t{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl S3Server {
    /// Returns the URL of a new store on this server.
    pub fn new_store(&self) -> String {
        self.store_at(&self.endpoint)
    }

    /// Returns the URL of a new store that is reached through another address, such as that of a proxy.
    pub fn store_at(&self, endpoint: &str) -> String {
        format!("s3://{}/{}?endpoint={endpoint}", self.bucket, fresh_prefix())
    }

    /// Opens a new store within the test process.
    pub fn open_new(&self) -> S3Store {
        self.open(&self.new_store())
    }

    /// Opens a store of this server within the test process. The credentials come from a file, because environment
    /// variables would affect other threads.
    pub fn open(&self, url: &str) -> S3Store {
        let credentials = std::env::temp_dir().join(format!("lifeboat-credentials-{}", fresh_prefix()));
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            self.access_key, self.secret_key
        );
        std::fs::write(&credentials, text).unwrap();
        let url = format!("{url}&profile=default&credentials_file={}", credentials.display());
        let store = S3Store::new(url.parse().unwrap()).unwrap();
        // The first request reads the file.
        let _ = store.stat(&"lifeboat.json".parse().unwrap()).unwrap();
        std::fs::remove_file(&credentials).unwrap();
        store
    }

    /// Sets the credentials of this server as the only AWS settings of a command.
    pub fn set_credentials(&self, command: &mut Command) {
        clear_aws_settings(command);
        command.env("AWS_ACCESS_KEY_ID", &self.access_key).env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
    }

    /// Runs `lifeboat ARGUMENTS` with this server's credentials.
    pub fn run(&self, sandbox: &Sandbox, arguments: &[&str]) -> Run {
        let mut command = sandbox.command(arguments);
        self.set_credentials(&mut command);
        sandbox.finish(command)
    }
}

/// Removes all AWS settings from the environment of a command.
pub fn clear_aws_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    // The SDK must not read the files in the home folder, nor ask the metadata service of a cloud. The paths are those
    // of /dev/null, because the SDK warns of missing files.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
}
