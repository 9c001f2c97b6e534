//! What the tests of several themes share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::s3::{S3Server, forget_aws, fresh_prefix, s3_server};
use crate::support::{LIFEBOAT, Run, Sandbox, open};

/// Runs every test against every server.
macro_rules! on_every_server {
    ($($test:ident)*) => {
        mod seaweedfs {
            $(#[test]
            #[ignore = "needs S3 servers"]
            fn $test() {
                super::$test(&super::super::helpers::Place::new("seaweedfs"));
            })*
        }

        mod ceph {
            $(#[test]
            #[ignore = "needs S3 servers"]
            fn $test() {
                super::$test(&super::super::helpers::Place::new("ceph"));
            })*
        }
    };
}

/// The program in a folder of its own, and a store of its own in one server.
pub(crate) struct Place {
    pub(crate) sandbox: Sandbox,
    pub(crate) server: S3Server,
    prefix: String,
    /// The store's URL.
    pub(crate) store: String,
    /// Further variables of the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Place {
    #[track_caller]
    pub(crate) fn new(server: &str) -> Self {
        let server = s3_server(server);
        let prefix = fresh_prefix();
        let store = format!("s3://{}/{prefix}?endpoint={}", server.bucket, server.endpoint);
        Place { sandbox: Sandbox::new(), server, prefix, store, environment: Vec::new() }
    }

    /// The store by another address, a proxy's.
    pub(crate) fn store_by(&self, port: u16) -> String {
        format!("s3://{}/{}?endpoint=http://127.0.0.1:{port}", self.server.bucket, self.prefix)
    }

    /// Another store below this one's prefix.
    pub(crate) fn other_store(&self, name: &str) -> String {
        format!("s3://{}/{}.{name}?endpoint={}", self.server.bucket, self.prefix, self.server.endpoint)
    }

    /// The URL of a store in a bucket that is not there.
    pub(crate) fn store_in_no_bucket(&self) -> String {
        format!("s3://no-{}/x?endpoint={}", self.prefix, self.server.endpoint)
    }

    /// `lifeboat ARGUMENTS` with the credentials, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sandbox.command(arguments);
        self.identify(&mut command);
        command
    }

    fn identify(&self, command: &mut Command) {
        self.server.identify(command);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Runs `lifeboat ARGUMENTS`.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.sandbox.finish(self.command(arguments))
    }

    /// Runs it and requires exit code 0.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> Run {
        self.run(arguments).code(0)
    }

    /// Runs it with `--json`, requires exit code 0, and reads the document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.ok(&with(arguments, &["--json"])).json()
    }

    /// Takes a snapshot of `source` into a store; its id.
    #[track_caller]
    pub(crate) fn snapshot(&self, source: &str, store: &str, more: &[&str]) -> String {
        id_of(&self.json(&with(&["snapshot", source, "--store", store], more)))
    }

    /// The ids that `list` shows of a store, newest first.
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
        self.identify(&mut command);
        command.output().unwrap()
    }

    /// Runs a line of shell and requires that it succeeds; what it prints.
    #[track_caller]
    pub(crate) fn paste(&self, line: &str) -> Vec<u8> {
        let output = self.shell(line);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "$ {line}\n{}\n-- stdout\n{stdout}-- stderr\n{stderr}", output.status);
        output.stdout
    }

    /// A path in the sandbox as text.
    pub(crate) fn at(&self, name: &str) -> String {
        self.sandbox.path(name).to_str().unwrap().to_owned()
    }

    /// Makes a key with the stock age-keygen; its file, and its public half.
    #[track_caller]
    pub(crate) fn age_key(&self, name: &str) -> (String, String) {
        self.paste(&format!("age-keygen -o {name} 2>/dev/null"));
        (name.to_owned(), String::from_utf8(self.paste(&format!("age-keygen -y {name}"))).unwrap().trim().to_owned())
    }

    /// The keys of the store's objects without its prefix, in order, as the service lists them.
    pub(crate) fn objects(&self) -> Vec<String> {
        Bucket::of(&self.server, &self.server.bucket).list(&format!("{}/", self.prefix))
    }

    /// An object of the store, as the service gives it.
    pub(crate) fn object(&self, key: &str) -> Vec<u8> {
        Bucket::of(&self.server, &self.server.bucket).get(&format!("{}/{key}", self.prefix))
    }

    /// Puts an object into the store, past the program.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        Bucket::of(&self.server, &self.server.bucket).put(&format!("{}/{key}", self.prefix), bytes);
    }

    /// The prefix of the store, with a slash at its end.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }
}

/// A bucket, by the SDK alone.
pub(crate) struct Bucket {
    pub(crate) client: Client,
    pub(crate) name: String,
}

/// Waits for what the SDK does.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
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

    /// All keys that begin with `prefix`, without it.
    pub(crate) fn list(&self, prefix: &str) -> Vec<String> {
        wait(async {
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
        wait(async {
            let reply = self.client.get_object().bucket(&self.name).key(key).send().await.unwrap();
            reply.body.collect().await.unwrap().to_vec()
        })
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        wait(async {
            let body = bytes.to_vec().into();
            self.client.put_object().bucket(&self.name).key(key).body(body).send().await.unwrap();
        });
    }

    /// The uploads under way of which the key begins with `prefix`.
    pub(crate) fn uploads(&self, prefix: &str) -> usize {
        wait(async {
            let page = self.client.list_multipart_uploads().bucket(&self.name).prefix(prefix).send().await.unwrap();
            page.uploads().len()
        })
    }
}

/// Two lists of arguments as one.
pub(crate) fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

/// The text in a JSON value.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The id of the one snapshot in a document.
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

/// A database of so many mebibytes that do not compress.
pub(crate) fn big(path: impl AsRef<Path>, mebibytes: u32) {
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

/// Every file below a folder, by its path from there, and its bytes.
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

/// The one archive in a store's folder of a source.
#[track_caller]
pub(crate) fn archive_in(folder: &Path) -> PathBuf {
    let mut archives = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    archives.find(|path| path.to_string_lossy().contains(".tar.")).expect("an archive")
}

/// Requires exactly one `error:` line, at most one `hint:` line behind it, and nothing else but warnings.
#[track_caller]
pub(crate) fn one_error(run: &Run) {
    let stderr = run.stderr();
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim_start().starts_with("WARN")).collect();
    let good = match lines.as_slice() {
        [error] => error.starts_with("error: "),
        [error, hint] => error.starts_with("error: ") && hint.starts_with("hint: "),
        _ => false,
    };
    assert!(good && !stderr.contains("panicked"), "not one error line and at most one hint\n{}", run.transcript());
}

/// Waits until something has come about that another process does.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = std::time::Instant::now();
    while !is_so() {
        assert!(clock.elapsed().as_secs() < 60, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command without credentials of any sort.
pub(crate) fn nobody(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.sandbox.command(arguments);
    forget_aws(&mut command);
    command
}
