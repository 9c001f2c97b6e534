//! The S3 servers that `scripts/servers` started, and a place of one's own in each.

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
    /// A user who may read and not write, where the server has one.
    pub limited_access_key: Option<String>,
    pub limited_secret_key: Option<String>,
    pub bucket: String,
    /// A bucket whose objects can be locked, where the server has one.
    pub locked_bucket: Option<String>,
}

/// All S3 servers that run.
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

/// The server of that name.
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

/// A prefix that nobody else uses, in the bucket that all tests share.
pub fn fresh_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("t{}-{now}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl S3Server {
    /// The URL of a new store, at this server.
    pub fn new_store(&self) -> String {
        self.store_at(&self.endpoint)
    }

    /// The URL of a new store, reached by another address, a proxy's.
    pub fn store_at(&self, endpoint: &str) -> String {
        format!("s3://{}/{}?endpoint={endpoint}", self.bucket, fresh_prefix())
    }

    /// A new store, used from within the test; other threads' environment stays as it is.
    pub fn open_new(&self) -> S3Store {
        self.open(&self.new_store())
    }

    /// The store of a URL of this server's.
    pub fn open(&self, url: &str) -> S3Store {
        let credentials = std::env::temp_dir().join(format!("lifeboat-credentials-{}", fresh_prefix()));
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            self.access_key, self.secret_key
        );
        std::fs::write(&credentials, text).unwrap();
        let url = format!("{url}&profile=default&credentials_file={}", credentials.display());
        let store = S3Store::new(url.parse().unwrap()).unwrap();
        // The file is read with the first request.
        let _ = store.stat(&"lifeboat.json".parse().unwrap()).unwrap();
        std::fs::remove_file(&credentials).unwrap();
        store
    }

    /// Gives a command the credentials, and nothing else of AWS's environment.
    pub fn identify(&self, command: &mut Command) {
        forget_aws(command);
        command.env("AWS_ACCESS_KEY_ID", &self.access_key).env("AWS_SECRET_ACCESS_KEY", &self.secret_key);
    }

    /// Runs `lifeboat ARGUMENTS` with this server's credentials.
    pub fn run(&self, sandbox: &Sandbox, arguments: &[&str]) -> Run {
        let mut command = sandbox.command(arguments);
        self.identify(&mut command);
        sandbox.finish(command)
    }
}

/// Takes what the outer environment says of AWS away.
pub fn forget_aws(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
    }
    // Nothing of the home folder (of files that are not there the SDK warns), and no metadata service of a cloud.
    command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
}
