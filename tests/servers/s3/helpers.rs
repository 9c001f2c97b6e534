//! Helpers for the tests in this folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::s3::{S3Server, clear_aws_settings, fresh_prefix, s3_server};
use crate::support::{LIFEBOAT, Run, Sandbox, open};

/// Defines a test for each of these functions on each server.
macro_rules! on_every_server {
    ($($test:ident)*) => {
        mod seaweedfs {
            $(#[test]
            #[ignore = "needs S3 servers"]
            fn $test() {
                super::$test(&super::super::helpers::Setup::new("seaweedfs"));
            })*
        }

        mod ceph {
            $(#[test]
            #[ignore = "needs S3 servers"]
            fn $test() {
                super::$test(&super::super::helpers::Setup::new("ceph"));
            })*
        }
    };
}

/// A sandbox for the program, and a new store on one server.
pub(crate) struct Setup {
    pub(crate) sandbox: Sandbox,
    pub(crate) server: S3Server,
    prefix: String,
    /// The store's URL.
    pub(crate) store: String,
    /// Additional environment variables of the program.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Setup {
    #[track_caller]
    pub(crate) fn new(server: &str) -> Self {
        let server = s3_server(server);
        let prefix = fresh_prefix();
        let store = format!("s3://{}/{prefix}?endpoint={}", server.bucket, server.endpoint);
        Setup { sandbox: Sandbox::new(), server, prefix, store, environment: Vec::new() }
    }

    /// Returns the URL of the store through a proxy at this port.
    pub(crate) fn store_through(&self, port: u16) -> String {
        format!("s3://{}/{}?endpoint=http://127.0.0.1:{port}", self.server.bucket, self.prefix)
    }

    /// Returns the URL of another store, whose prefix begins with the prefix of this one.
    pub(crate) fn other_store(&self, name: &str) -> String {
        format!("s3://{}/{}.{name}?endpoint={}", self.server.bucket, self.prefix, self.server.endpoint)
    }

    /// Returns the URL of a store in a bucket that does not exist.
    pub(crate) fn store_in_missing_bucket(&self) -> String {
        format!("s3://no-{}/x?endpoint={}", self.prefix, self.server.endpoint)
    }

    /// Returns the command `lifeboat ARGUMENTS` with the credentials, which is not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        self.set_credentials(&mut command);
        command
    }

    fn set_credentials(&self, command: &mut Command) {
        self.server.set_credentials(command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Runs `lifeboat ARGUMENTS`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments))
    }

    /// Runs `lifeboat ARGUMENTS` and requires exit code 0.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).code(0)
    }

    /// Runs `lifeboat ARGUMENTS --json`, requires exit code 0, and returns the document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.ok(&with(arguments, &["--json"])).json()
    }

    /// Takes a snapshot of `source` into a store and returns its id.
    #[track_caller]
    pub(crate) fn snapshot(&self, source: &str, store: &str, more: &[&str]) -> String {
        id_of(&self.json(&with(&["snapshot", source, "--store", store], more)))
    }

    /// Returns the ids that `list` shows for a store, newest first.
    #[track_caller]
    pub(crate) fn ids(&self, store: &str) -> Vec<String> {
        let document = self.json(&["list", "--store", store]);
        document["snapshots"].as_array().unwrap().iter().map(|snapshot| text(&snapshot["id"])).collect()
    }

    /// Runs a line of shell in the sandbox, with the program on PATH and the credentials, as a person would paste it.
    pub(crate) fn shell(&self, line: &str) -> Output {
        let folder = Path::new(LIFEBOAT).parent().unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-ec", &format!("set -o pipefail; {line}")]).current_dir(self.sandbox.root()).env("PATH", path);
        command.env("TMPDIR", self.sandbox.path("scratch"));
        for name in ["LIFEBOAT_IDENTITY", "LIFEBOAT_HOST", "LIFEBOAT_SCRATCH"] {
            command.env_remove(name);
        }
        self.set_credentials(&mut command);
        command.output().unwrap()
    }

    /// Runs a line of shell, requires that it succeeds, and returns its output.
    #[track_caller]
    pub(crate) fn paste(&self, line: &str) -> Vec<u8> {
        let output = self.shell(line);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "$ {line}\n{}\n-- stdout\n{stdout}-- stderr\n{stderr}", output.status);
        output.stdout
    }

    /// Returns a path in the sandbox as a string.
    pub(crate) fn at(&self, name: &str) -> String {
        self.sandbox.path(name).to_str().unwrap().to_owned()
    }

    /// Creates a key with age-keygen, and returns the name of its file and the public key.
    #[track_caller]
    pub(crate) fn age_key(&self, name: &str) -> (String, String) {
        self.paste(&format!("age-keygen -o {name} 2>/dev/null"));
        (name.to_owned(), String::from_utf8(self.paste(&format!("age-keygen -y {name}"))).unwrap().trim().to_owned())
    }

    /// Returns the keys of the store's objects without its prefix, in the order of the service.
    pub(crate) fn objects(&self) -> Vec<String> {
        Bucket::of(&self.server, &self.server.bucket).list(&format!("{}/", self.prefix))
    }

    /// Returns the content of an object of the store.
    pub(crate) fn object(&self, key: &str) -> Vec<u8> {
        Bucket::of(&self.server, &self.server.bucket).get(&format!("{}/{key}", self.prefix))
    }

    /// Writes an object into the store without the program.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        Bucket::of(&self.server, &self.server.bucket).put(&format!("{}/{key}", self.prefix), bytes);
    }

    /// Returns the prefix of the store, with a slash at its end.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }
}

/// A bucket that is accessed with the SDK, without the program.
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: String,
}

/// Waits for an operation of the SDK.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());
    runtime.block_on(work)
}

impl Bucket {
    pub(crate) fn of(server: &S3Server, name: &str) -> Self {
        let keys = Credentials::new(&server.access_key, &server.secret_key, None, None, "test");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(keys)
            .endpoint_url(&server.endpoint)
            .force_path_style(true)
            .request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(aws_sdk_s3::config::ResponseChecksumValidation::WhenRequired)
            .http_client(aws_smithy_http_client::Builder::new().build_http());
        Bucket { client: Client::from_conf(config.build()), name: name.to_owned() }
    }

    /// Returns all keys that begin with `prefix`, without the prefix.
    pub(crate) fn list(&self, prefix: &str) -> Vec<String> {
        block_on(async {
            let mut keys = Vec::new();
            let mut next = None;
            loop {
                let request = self.client.list_objects_v2().bucket(&self.name).prefix(prefix);
                let page = request.set_continuation_token(next).send().await.unwrap();
                keys.extend(page.contents().iter().map(|object| object.key().unwrap()[prefix.len()..].to_owned()));
                next = page.next_continuation_token;
                if next.is_none() {
                    return keys;
                }
            }
        })
    }

    pub(crate) fn get(&self, key: &str) -> Vec<u8> {
        block_on(async {
            let reply = self.client.get_object().bucket(&self.name).key(key).send().await.unwrap();
            reply.body.collect().await.unwrap().to_vec()
        })
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        block_on(async {
            let body = bytes.to_vec().into();
            self.client.put_object().bucket(&self.name).key(key).body(body).send().await.unwrap();
        });
    }

    /// Returns the number of unfinished uploads whose keys begin with `prefix`.
    pub(crate) fn uploads(&self, prefix: &str) -> usize {
        block_on(async {
            let page = self.client.list_multipart_uploads().bucket(&self.name).prefix(prefix).send().await.unwrap();
            page.uploads().len()
        })
    }
}

/// Joins two lists of arguments.
pub(crate) fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// Returns the string in a JSON value.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

/// Returns the id of the only snapshot in a document.
#[track_caller]
pub(crate) fn id_of(document: &Value) -> String {
    assert_eq!(document["snapshots"].as_array().map(Vec::len), Some(1), "{document:#}");
    text(&document["snapshots"][0]["id"])
}

/// Runs SQL on a database.
#[track_caller]
pub(crate) fn sql(path: impl AsRef<Path>, statements: &str) {
    open(path).execute_batch(statements).unwrap();
}

/// Creates a database of this many mebibytes that do not compress.
pub(crate) fn big_database(path: impl AsRef<Path>, mebibytes: u32) {
    sql(
        path,
        &format!(
            "CREATE TABLE noise (id INTEGER PRIMARY KEY, body BLOB);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
             INSERT INTO noise SELECT i, randomblob(65000) FROM n",
            mebibytes * 16
        ),
    );
}

/// Returns the relative path and the content of every file in a folder and its subfolders.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => {
                    let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                    found.push((name, fs::read(entry.path()).unwrap()));
                }
            }
        }
    }
    found.sort();
    found
}

/// Returns the path of the only archive in the folder of a source.
#[track_caller]
pub(crate) fn archive_in(folder: &Path) -> PathBuf {
    let mut archives = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    archives.find(|path| path.to_string_lossy().contains(".tar.")).expect("an archive")
}

/// Requires that stderr has exactly one `error:` line, at most one `hint:` line after it, and otherwise only warnings.
#[track_caller]
pub(crate) fn one_error(run: &Run) {
    let stderr = run.stderr();
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim_start().starts_with("WARN")).collect();
    let good = match lines.as_slice() {
        [error] => error.starts_with("error: "),
        [error, hint] => error.starts_with("error: ") && hint.starts_with("hint: "),
        _ => false,
    };
    assert!(good && !stderr.contains("panicked"), "stderr is not one error and at most one hint\n{}", run.transcript());
}

/// Waits until a condition is true that depends on another process. `description` names it in the failure message.
#[track_caller]
pub(crate) fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed().as_secs() < 60, "not true within a minute: {description}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns a command without any credentials.
pub(crate) fn command_without_credentials(setup: &Setup, arguments: &[&str]) -> Command {
    let mut command = setup.sandbox.command(arguments);
    clear_aws_settings(&mut command);
    command
}
