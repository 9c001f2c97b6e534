//! Tests of everything that runs on GitHub: workflows, actions and the scripts of their steps, the release, and its
//! installer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::actions::{Action, outputs, repository, yaml};
use crate::support::{Sandbox, have};
use serde_json::Value;

// ---------------------------------------------------------------- the form of workflows and actions

const WORKFLOW_KEYS: &[&str] = &["name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"];
const JOB_KEYS: &[&str] = &[
    "name",
    "needs",
    "if",
    "runs-on",
    "permissions",
    "environment",
    "concurrency",
    "outputs",
    "env",
    "defaults",
    "steps",
    "timeout-minutes",
    "strategy",
    "continue-on-error",
    "container",
    "services",
];
const STEP_KEYS: &[&str] = &[
    "id",
    "if",
    "name",
    "uses",
    "run",
    "shell",
    "with",
    "env",
    "continue-on-error",
    "timeout-minutes",
    "working-directory",
];
const EVENTS: &[&str] = &["push", "pull_request", "schedule", "workflow_dispatch", "workflow_call", "release"];
const PERMISSIONS: &[&str] = &[
    "actions",
    "attestations",
    "checks",
    "contents",
    "deployments",
    "id-token",
    "issues",
    "packages",
    "pull-requests",
];

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(repository().join(folder)).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(path.to_str().unwrap(), ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Collects all strings of a document, each with its place.
fn strings(value: &Value, place: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.push((place.to_owned(), text.clone())),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(number, item)| strings(item, &format!("{place}[{number}]"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, field)| strings(field, &format!("{place}.{name}"), found));
        }
        _ => {}
    }
}

/// Returns the expressions `${{ ... }}` in a text, or `None` if one is not closed.
fn expressions(text: &str) -> Option<Vec<&str>> {
    text.split("${{").skip(1).map(|rest| rest.split_once("}}").map(|(inner, _)| inner.trim())).collect()
}

/// Returns the references `CONTEXT.NAME...` in an expression, or in the value of an `if`, which needs no braces.
fn references(expression: &str) -> Vec<Vec<&str>> {
    let outside_quotes: Vec<&str> = expression.split('\'').step_by(2).collect();
    let is_word = |character: char| character.is_alphanumeric() || "._-".contains(character);
    let words = outside_quotes.into_iter().flat_map(move |part| part.split(move |c| !is_word(c)));
    words.filter(|word| word.contains('.')).map(|word| word.split('.').collect()).collect()
}

/// Collects the mistakes in a workflow or an action.
struct Check {
    wrong: Vec<String>,
}

impl Check {
    /// Adds a mistake if the condition is false.
    fn require(&mut self, condition: bool, mistake: impl AsRef<str>) {
        if !condition {
            self.wrong.push(mistake.as_ref().to_owned());
        }
    }

    /// Requires that a mapping has only known keys.
    fn keys(&mut self, value: &Value, known: &[&str], place: &str) {
        let Some(fields) = value.as_object() else {
            self.wrong.push(format!("{place} is not a mapping"));
            return;
        };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            self.wrong.push(format!("{place} has the unknown key '{name}'"));
        }
    }

    /// Requires known permissions and levels.
    fn permissions(&mut self, value: &Value, place: &str) {
        self.keys(value, PERMISSIONS, &format!("permissions of {place}"));
        for (name, level) in value.as_object().into_iter().flatten() {
            let known = ["read", "write", "none"].contains(&level.as_str().unwrap_or_default());
            self.require(known, format!("{place}: {name} is {level}"));
        }
    }

    /// Checks the steps of a job, or of a composite action with `inputs`, which must name the shell of each step.
    /// Returns the ids of the steps.
    fn steps(&mut self, steps: &Value, inputs: Option<&Value>, place: &str) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        let list = steps.as_array().cloned().unwrap_or_default();
        self.require(!list.is_empty(), format!("{place} has no steps"));
        for (number, step) in list.iter().enumerate() {
            let place = format!("{place} step {}", number + 1);
            self.keys(step, STEP_KEYS, &place);
            let (run, uses) = (step["run"].as_str(), step["uses"].as_str());
            self.require(run.is_some() != uses.is_some(), format!("{place} must have one of 'run' and 'uses'"));
            if let Some(run) = run {
                self.require(!run.contains("${{"), format!("{place} has an expression in the text of a script"));
                let shell = ["sh", "bash"].contains(&step["shell"].as_str().unwrap_or_default());
                self.require(shell || inputs.is_none(), format!("{place} names no shell"));
            }
            if let Some(uses) = uses {
                let pinned = uses.split_once('@').is_some_and(|(name, commit)| {
                    name.matches('/').count() >= 1
                        && commit.len() == 40
                        && commit.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
                });
                self.require(
                    pinned || uses.starts_with("./"),
                    format!("{place} uses {uses}, which is not pinned to a commit"),
                );
                if uses.starts_with("actions/checkout@") {
                    let kept = step["with"]["persist-credentials"] != Value::Bool(false);
                    self.require(!kept, format!("{place} leaves its token in the work tree"));
                }
                self.repository_action(uses, step, &place);
            }
            self.expressions(step, &ids, inputs, &place);
            if let Some(id) = step["id"].as_str() {
                self.require(ids.insert(id.to_owned()), format!("{place}: the id {id} is used twice"));
            }
        }
        ids
    }

    /// Requires that a step passes only declared inputs to an action of this repository.
    fn repository_action(&mut self, uses: &str, step: &Value, place: &str) {
        let Some((_, rest)) = uses.split_once(".github/actions/") else { return };
        let name = rest.split('@').next().unwrap();
        let path = repository().join(".github/actions").join(name).join("action.yml");
        if !path.is_file() {
            self.wrong.push(format!("{place} uses {uses}, which does not exist"));
            return;
        }
        let inputs = yaml(&path)["inputs"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let known: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.keys(&step["with"], &known, &format!("{place} 'with'"));
    }

    /// Requires that expressions refer to existing steps, inputs and contexts.
    fn expressions(&mut self, value: &Value, steps: &BTreeSet<String>, inputs: Option<&Value>, place: &str) {
        let mut found = Vec::new();
        strings(value, place, &mut found);
        for (place, text) in found {
            let Some(mut inner) = expressions(&text) else {
                self.wrong.push(format!("{place} has an expression that is not closed: {text}"));
                continue;
            };
            if place.ends_with(".if") && inner.is_empty() {
                inner.push(&text);
            }
            for reference in inner.into_iter().flat_map(references) {
                let good = match (reference[0], inputs) {
                    ("steps", _) => steps.contains(reference[1]),
                    ("inputs", Some(inputs)) => inputs.get(reference[1]).is_some(),
                    ("github" | "runner" | "env", _) => true,
                    ("secrets" | "matrix" | "needs" | "vars", None) => true,
                    _ => false,
                };
                self.require(good, format!("{place} refers to {}, which does not exist", reference.join(".")));
            }
        }
    }

    fn workflow(&mut self, document: &Value) {
        self.keys(document, WORKFLOW_KEYS, "the workflow");
        for key in ["name", "on", "permissions", "jobs"] {
            self.require(document.get(key).is_some(), format!("the workflow has no '{key}'"));
        }
        self.keys(&document["on"], EVENTS, "'on'");
        for entry in document["on"]["schedule"].as_array().into_iter().flatten() {
            let fields = entry["cron"].as_str().unwrap_or_default().split(' ').count();
            self.require(fields == 5, format!("{entry} is not a schedule"));
        }
        self.permissions(&document["permissions"], "the workflow");
        let writes = document["permissions"].as_object().into_iter().flatten().any(|(_, level)| level == "write");
        self.require(!writes, "every job has the permission to write");
        self.expressions(&document["concurrency"], &BTreeSet::new(), None, "concurrency");
        let jobs = document["jobs"].as_object().cloned().unwrap_or_default();
        self.require(!jobs.is_empty(), "the workflow has no jobs");
        for (name, job) in &jobs {
            let place = format!("job {name}");
            self.keys(job, JOB_KEYS, &place);
            self.require(job["runs-on"].is_string(), format!("{place} has no 'runs-on'"));
            self.require(job["timeout-minutes"].is_u64(), format!("{place} has no 'timeout-minutes'"));
            let services = job["services"].as_object().into_iter().flatten().map(|(_, service)| service);
            for container in services.chain([&job["container"]]) {
                let image = container["image"].as_str().or(container.as_str());
                let is_pinned = |image: &str| {
                    let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
                    digest.is_some_and(|it| it.len() == 64 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
                };
                let image = image.filter(|image| !is_pinned(image));
                self.require(
                    image.is_none(),
                    format!("{place} uses an image that is not pinned to a digest: {image:?}"),
                );
            }
            if let Some(permissions) = job.get("permissions") {
                self.permissions(permissions, &place);
            }
            if let Some(needs) = job["needs"].as_str() {
                self.require(jobs.contains_key(needs), format!("{place} needs {needs}, which does not exist"));
            }
            let ids = self.steps(&job["steps"], None, &place);
            for (key, value) in job.as_object().into_iter().flatten().filter(|(key, _)| *key != "steps") {
                self.expressions(value, &ids, None, &format!("{place}.{key}"));
            }
        }
    }

    fn action(&mut self, document: &Value) {
        self.keys(document, &["name", "description", "author", "branding", "inputs", "outputs", "runs"], "the action");
        for key in ["name", "description"] {
            self.require(document[key].is_string(), format!("the action has no '{key}'"));
        }
        for (name, input) in document["inputs"].as_object().into_iter().flatten() {
            self.keys(input, &["description", "required", "default"], &format!("input {name}"));
            self.require(input["description"].is_string(), format!("input {name} is not described"));
            // GitHub converts a default of another type to a string, and the result may be unexpected.
            self.require(input["default"].is_string(), format!("the default of input {name} is not a string"));
        }
        self.keys(&document["runs"], &["using", "steps"], "'runs'");
        self.require(document["runs"]["using"] == "composite", "the action is not composite");
        let ids = self.steps(&document["runs"]["steps"], Some(&document["inputs"]), "the action");
        for (name, output) in document["outputs"].as_object().into_iter().flatten() {
            self.keys(output, &["description", "value"], &format!("output {name}"));
            self.require(output["description"].is_string(), format!("output {name} is not described"));
            self.expressions(output, &ids, Some(&document["inputs"]), &format!("output {name}"));
        }
    }
}

/// Returns the mistakes in a workflow or an action.
fn mistakes_in(text: &str) -> Vec<String> {
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let mut check = Check { wrong: Vec::new() };
    if document.get("runs").is_some() {
        check.action(&document)
    } else {
        check.workflow(&document)
    }
    check.wrong
}

#[test]
fn workflows_and_actions_are_well_formed() {
    let mut all = files(".github/workflows", ".yml");
    all.extend(files("examples/github", ".yml"));
    all.extend(files(".github/actions", "action.yml"));
    assert_eq!(all.len(), 7, "{all:?}");
    let mut wrong = String::new();
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        for mistake in mistakes_in(&text) {
            writeln!(wrong, "{}: {mistake}", path.display()).unwrap();
        }
        // The samples name this repository's own actions by a placeholder.
        for line in text.lines().filter(|line| line.contains("uses: ") && !line.contains("uses: OWNER/")) {
            let version = line.rsplit_once(" # v").is_some_and(|(_, version)| version.split('.').count() == 3);
            assert!(version, "{}: this line has no comment with the version: {line}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn mistakes_in_workflows_and_actions_are_found() {
    let good = fs::read_to_string(repository().join("examples/github/deploy.yml")).unwrap();
    assert_eq!(mistakes_in(&good), Vec::<String>::new());
    let cases = [
        ("permissions:\n  contents: read\n", "", "no 'permissions'"),
        ("contents: read", "contents: write", "permission to write"),
        ("timeout-minutes: 60", "timeout-minute: 60", "unknown key 'timeout-minute'"),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1", "v7", "not pinned"),
        ("persist-credentials: false", "persist-credentials: true", "leaves its token"),
        ("echo \"snapshot before this deploy: $SNAPSHOT\"", "echo ${{ github.ref_name }}", "in the text of a script"),
        ("steps.before.outputs", "steps.befor.outputs", "steps.befor.outputs.snapshot-id, which does not exist"),
        ("steps.before.outcome", "steps.after.outcome", "steps.after.outcome, which does not exist"),
        ("          wait: 5m", "          waits: 5m", "unknown key 'waits'"),
        ("/pre-deploy@", "/predeploy@", "which does not exist"),
        ("    runs-on:", "    container: debian:12\n    runs-on:", "not pinned to a digest"),
        ("${{ secrets.DATABASE_URL }}", "${{ secrets.DATABASE_URL }", "not closed"),
        ("    branches: [main]", "    branches: [main]\n  pull_request_target:", "unknown key 'pull_request_target'"),
        ("        run: |\n", "        uses: a/b@0000000000000000000000000000000000000000\n        run: |\n", "one of"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        let wrong = mistakes_in(&good.replacen(from, to, 1));
        assert!(wrong.iter().any(|mistake| mistake.contains(expected)), "{to}: {wrong:?}");
    }
    let good = fs::read_to_string(repository().join(".github/actions/post-deploy/action.yml")).unwrap();
    let cases = [
        ("      shell: sh\n", "", "names no shell"),
        ("${{ inputs.wait }}", "${{ inputs.await }}", "inputs.await, which does not exist"),
        ("steps.gate.outputs.ok", "steps.gates.outputs.ok", "steps.gates.outputs.ok, which does not exist"),
        ("default: \"false\"", "default: false", "not a string"),
        ("${{ inputs.config }}", "${{ secrets.CONFIG }}", "secrets.CONFIG, which does not exist"),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from), "{from}");
        let wrong = mistakes_in(&good.replacen(from, to, 1));
        assert!(wrong.iter().any(|mistake| mistake.contains(expected)), "{to}: {wrong:?}");
    }
}

// ---------------------------------------------------------------- the actions' steps

/// Writes an executable script.
fn write_script(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Writes a script in place of lifeboat that stores its arguments, sets outputs, and ends with the code in $CODE.
fn write_fake_lifeboat(path: &Path) {
    write_script(
        path,
        r#"#!/bin/sh
        [ "$1" != --version ] || { echo "lifeboat 0.1.0"; exit 0; }
        printf '%s' "${LIFEBOAT_TOKEN:-}" >"$RUNNER_TEMP/token"
        for argument; do printf '%s\n' "$argument"; done >"$RUNNER_TEMP/arguments"
        printf 'snapshot-id=app-1\nok=%s\nsnapshot-ids<<END\napp-1\nlog-2\nEND\n' "$OK" >>"$GITHUB_OUTPUT"
        exit "$CODE""#,
    );
}

#[test]
fn actions_pass_on_their_inputs_and_outputs_and_the_exit_code() {
    let sandbox = Sandbox::new();
    let (temp, work) = (sandbox.path("temp"), sandbox.path("work"));
    fs::create_dir_all(&work).unwrap();
    write_fake_lifeboat(&sandbox.path("bin/lifeboat"));
    let path = format!("{}:{}", sandbox.path("bin").display(), std::env::var("PATH").unwrap());
    let run = |action: &str, code: &str, inputs: &[(&str, &str)]| {
        let mut action = Action::new(action, &work, &temp).env("PATH", &path).env("CODE", code);
        action = action.env("OK", if code == "0" { "true" } else { "false" });
        for (name, value) in inputs {
            action = action.with(name, value);
        }
        let outcome = action.run();
        let arguments = fs::read_to_string(temp.join("arguments")).unwrap_or_default();
        let _ = fs::remove_file(temp.join("arguments"));
        (outcome, arguments.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let sha = "0123456789abcdef0123456789abcdef01234567";

    let (outcome, arguments) = run("pre-deploy", "0", &[]);
    assert_eq!(arguments, ["predeploy", "--json", "--commit", sha]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let expected = [("ok", "true"), ("snapshot-id", "app-1"), ("snapshot-ids", "app-1\nlog-2")];
    assert_eq!(outcome.outputs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());

    // A closed gate fails the step, but the outputs are still set.
    let (outcome, _) = run("pre-deploy", "3", &[]);
    assert_eq!((outcome.code, outcome.outputs["ok"].as_str()), (3, "false"));

    // Inputs are data, even if they look like shell code or expressions.
    let odd = "a b'\"; $(touch pwned) `touch pwned` ${{ x }}";
    let (outcome, arguments) = run("pre-deploy", "0", &[("config", odd)]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(arguments, ["--config", odd, "predeploy", "--json", "--commit", sha]);

    let (_, arguments) = run("post-deploy", "0", &[]);
    assert_eq!(arguments, ["postdeploy", "--json"]);
    // The token is never an argument.
    let url = "https://app.example";
    for (action, expected) in [
        ("pre-deploy", &["predeploy", "--json", "--commit", sha, "--remote", url][..]),
        ("post-deploy", &["postdeploy", "--json", "--remote", url]),
    ] {
        let (_, arguments) = run(action, "0", &[("remote", url), ("token", "a $(touch pwned) token")]);
        assert_eq!(arguments, expected);
        assert_eq!(fs::read_to_string(temp.join("token")).unwrap(), "a $(touch pwned) token");
    }
    let (outcome, arguments) = run("post-deploy", "3", &[("config", "c.toml"), ("wait", "5m"), ("rollback", "true")]);
    assert_eq!(arguments, ["--config", "c.toml", "postdeploy", "--json", "--wait", "5m", "--rollback"]);
    assert_eq!(outcome.code, 3);
    for word in ["yes", "TRUE", "1", ""] {
        let (outcome, arguments) = run("post-deploy", "0", &[("rollback", word)]);
        if word.is_empty() {
            assert_eq!((outcome.code, arguments.len()), (0, 2));
        } else {
            assert_eq!((outcome.code, arguments.len()), (2, 0), "{word}");
            assert!(
                outcome.log.contains("::error title=Lifeboat::the input 'rollback' must be true or false"),
                "{outcome:?}"
            );
        }
    }
    assert!(!work.join("pwned").exists() && !temp.join("pwned").exists());
}

#[test]
fn action_uses_the_given_binary_or_else_installs_a_release() {
    if !have(&["curl", "wget", "tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let (temp, work) = (sandbox.path("temp"), sandbox.path("work"));
    fs::create_dir_all(&work).unwrap();
    write_fake_lifeboat(&work.join("tools/mine"));
    let action = || {
        let action = Action::new("pre-deploy", &work, &temp).env("CODE", "0").env("OK", "true");
        action.env("PATH", &path_with_tools(&sandbox, &["curl"]))
    };
    let outcome = action().with("binary", "tools/mine").run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let outcome = action().with("binary", "tools/none").run();
    assert_eq!(outcome.code, 2);
    assert!(outcome.log.contains("::error title=Lifeboat::the input 'binary'"), "{outcome:?}");

    let release = Release::new(&sandbox, &fs::read_to_string(work.join("tools/mine")).unwrap());
    // By default, the action installs the release of its own version.
    assert_eq!(env!("CARGO_PKG_VERSION"), "0.1.0", "the release in this test has version 0.1.0");
    let outcome = action().env("LIFEBOAT_RELEASES", &release.url).run();
    assert_eq!((outcome.code, outcome.outputs["snapshot-id"].as_str()), (0, "app-1"), "{outcome:?}");
    assert!(temp.join("lifeboat-bin/lifeboat").exists());
    let outcome = action().with("version", "0.9.9").env("LIFEBOAT_RELEASES", &release.url).run();
    assert_eq!(outcome.code, 1);
    assert!(outcome.log.contains("::error title=Lifeboat::the binary could not be installed"), "{outcome:?}");
}

#[test]
fn outputs_are_parsed_like_a_runner_does() {
    let read = outputs("a=1\nb<<E=F\nx=y\n\nz\nE=F\nc=d<<e\n");
    let expected = [("a", "1"), ("b", "x=y\n\nz"), ("c", "d<<e")];
    assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
}

// ---------------------------------------------------------------- the installer

/// Returns a PATH with only the tools that the installer may rely on, and some more.
fn path_with_tools(sandbox: &Sandbox, more: &[&str]) -> String {
    let folder = sandbox.path(format!("tools-{}", more.join("-")));
    fs::create_dir_all(&folder).unwrap();
    let base = [
        "sh",
        "awk",
        "tar",
        "gzip",
        "sha256sum",
        "cut",
        "mktemp",
        "mv",
        "rm",
        "mkdir",
        "chmod",
        "uname",
        "dirname",
        "sed",
        "head",
    ];
    for tool in base.iter().chain(more) {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|folder| folder.join(tool))
            .find(|path| path.is_file());
        let link = folder.join(tool);
        if !link.exists() {
            std::os::unix::fs::symlink(found.unwrap_or_else(|| panic!("{tool} is missing")), link).unwrap();
        }
    }
    folder.display().to_string()
}

/// A release on an HTTP server with the paths that GitHub uses. Its lifeboat is a script.
struct Release {
    folder: PathBuf,
    url: String,
}

impl Release {
    fn new(sandbox: &Sandbox, lifeboat: &str) -> Self {
        let folder = sandbox.path("releases");
        let release = Release { url: serve(&folder), folder };
        release.publish(sandbox, lifeboat);
        release
    }

    fn assets(&self) -> PathBuf {
        self.folder.join("download/v0.1.0")
    }

    /// Creates the release with the script that the release workflow uses.
    fn publish(&self, sandbox: &Sandbox, lifeboat: &str) {
        write_script(&sandbox.path("built"), lifeboat);
        let assets = self.assets();
        let package = |arguments: &[&str]| {
            let script = repository().join("scripts/package");
            assert!(Command::new(script).args(arguments).status().unwrap().success(), "{arguments:?}");
        };
        let (built, dist) = (sandbox.path("built").display().to_string(), assets.display().to_string());
        for target in ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"] {
            package(&["archive", &built, target, &dist]);
        }
        package(&["finish", &dist, "owner/lifeboat"]);
        let latest = self.folder.join("latest");
        fs::create_dir_all(&latest).unwrap();
        let _ = fs::remove_file(latest.join("download"));
        std::os::unix::fs::symlink(&assets, latest.join("download")).unwrap();
    }
}

/// Serves the files of a folder over HTTP until the test program ends. Returns the URL.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let request = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            let path = request.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, body) = match fs::read(folder.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", b"<html>Not Found</html>".to_vec()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}

const GOOD: &str = "#!/bin/sh\necho 'lifeboat 0.1.0'\n";

struct Installer<'a> {
    sandbox: &'a Sandbox,
    release: Release,
    environment: BTreeMap<String, String>,
}

impl<'a> Installer<'a> {
    fn new(sandbox: &'a Sandbox) -> Self {
        let release = Release::new(sandbox, GOOD);
        let environment = BTreeMap::from([
            ("PATH".to_owned(), path_with_tools(sandbox, &["curl"])),
            ("HOME".to_owned(), sandbox.root().display().to_string()),
            ("LIFEBOAT_RELEASES".to_owned(), release.url.clone()),
        ]);
        Installer { sandbox, release, environment }
    }

    fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs the installer of this repository. Returns the exit code and stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String) {
        self.run_script(&repository().join("scripts/install"), arguments)
    }

    fn run_script(&self, script: &Path, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new("/bin/sh");
        command.arg(script).args(arguments).current_dir(self.sandbox.root()).env_clear().envs(&self.environment);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Returns the names and contents of the files in the target folder.
    fn installed(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.sandbox.path("to")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|_| "a folder".to_owned());
            found.push((entry.file_name().to_string_lossy().into_owned(), text));
        }
        found
    }
}

#[test]
fn installer_installs_the_release_over_an_older_one() {
    if !have(&["curl", "wget", "tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let mut installer = Installer::new(&sandbox);
    let good = vec![("lifeboat".to_owned(), GOOD.to_owned())];
    for arguments in
        [&["--to", "to"][..], &["--to", "to", "--version", "0.1.0"], &["--version", "v0.1.0", "--to", "to"]]
    {
        let (code, output) = installer.run(arguments);
        assert_eq!(code, 0, "{output}");
        assert!(output.contains("installed lifeboat 0.1.0 as to/lifeboat"), "{output}");
        assert!(output.contains("add it to PATH"), "{output}");
        assert!(output.contains("attestation not checked: the repository is not known"), "{output}");
        assert_eq!(installer.installed(), good);
        let mode = fs::metadata(sandbox.path("to/lifeboat")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        // The next run installs over this one.
        write_script(&sandbox.path("to/lifeboat"), "#!/bin/sh\necho old\n");
    }
    // The installer of the release works without curl and outside the repository.
    let wget = path_with_tools(&sandbox, &["wget"]);
    let released_installer = installer.release.assets().join("install");
    let (code, output) = installer.env("PATH", &wget).run_script(&released_installer, &["--to", "to"]);
    assert_eq!(code, 0, "{output}");
    // This installer knows its repository, so the only reason is the missing program.
    assert!(output.contains("attestation not checked: 'gh' is not installed"), "{output}");
    assert_eq!(installer.installed(), good);
    // Each machine gets its binary, or a message that there is none for it.
    for (machine, code, word) in [("aarch64", 0, "installed"), ("riscv64", 1, "there is no binary for riscv64")] {
        let folder = sandbox.path(machine);
        write_script(&folder.join("uname"), &format!("#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo {machine}\n"));
        let path = format!("{}:{}", folder.display(), path_with_tools(&sandbox, &["curl"]));
        let (exit_code, output) = installer.env("PATH", &path).run(&["--to", "to"]);
        assert_eq!(exit_code, code, "{output}");
        assert!(output.contains(word), "{output}");
    }
}

#[test]
fn installer_keeps_the_old_binary_if_anything_is_wrong() {
    if !have(&["curl", "wget", "tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let installer = Installer::new(&sandbox);
    let old = "#!/bin/sh\necho old\n";
    write_script(&sandbox.path("to/lifeboat"), old);
    let assets = installer.release.assets();
    let refused = |arguments: &[&str], expected: &str| {
        let (code, output) = installer.run(&[&["--to", "to"], arguments].concat());
        assert_eq!(code, 1, "{output}");
        assert!(output.contains(expected), "{output}");
        assert_eq!(installer.installed(), [("lifeboat".to_owned(), old.to_owned())], "{output}");
    };
    refused(&["--version", "9.9.9"], "/download/v9.9.9/SHA256SUMS cannot be downloaded");
    // The archives are complete, but differ from the released ones.
    for target in ["x86_64", "aarch64"] {
        let archive = assets.join(format!("lifeboat-{target}-unknown-linux-musl.tar.gz"));
        let mut bytes = fs::read(&archive).unwrap();
        bytes.extend([0; 512]);
        fs::write(&archive, bytes).unwrap();
    }
    refused(&[], "is damaged or not what was released");
    // The checksums are of other files.
    fs::write(assets.join("SHA256SUMS"), "0000  lifeboat-other.tar.gz\n").unwrap();
    refused(&[], "SHA256SUMS does not name lifeboat-");
    installer.release.publish(&sandbox, "#!/bin/sh\nexit 1\n");
    refused(&[], "does not run here");
    installer.release.publish(&sandbox, "#!/bin/sh\necho 'lifeboat 0.2.0'\n");
    refused(&["--version", "0.1.0"], "the downloaded program is 'lifeboat 0.2.0', not 0.1.0");
    for target in ["x86_64", "aarch64"] {
        fs::remove_file(assets.join(format!("lifeboat-{target}-unknown-linux-musl.tar.gz"))).unwrap();
    }
    refused(&[], "cannot fetch");
}

/// Serves the files of a folder over TLS until this is dropped. Each file is a complete HTTP response.
struct TlsServer {
    process: std::process::Child,
    url: String,
}

impl TlsServer {
    fn start(sandbox: &Sandbox, folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (key, certificate) = (sandbox.path("key.pem"), sandbox.path("certificate.pem"));
        let mut create = Command::new("openssl");
        create.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2"]);
        create.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(&key).arg("-out").arg(&certificate);
        assert!(create.stderr(Stdio::null()).status().unwrap().success());
        let mut server = Command::new("openssl");
        server.args(["s_server", "-quiet", "-HTTP", "-accept", &format!("127.0.0.1:{port}"), "-key"]).arg(&key);
        server.arg("-cert").arg(&certificate).current_dir(folder);
        let process = server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < std::time::Duration::from_secs(30), "the server does not start");
            std::thread::yield_now();
        }
        TlsServer { process, url: format!("https://127.0.0.1:{port}") }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn installer_follows_redirects_to_https_only() {
    if !have(&["curl", "wget", "openssl", "tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let mut installer = Installer::new(&sandbox);
    let assets = installer.release.assets();
    let responses = sandbox.path("responses");
    let server = {
        fs::create_dir_all(responses.join("latest/download")).unwrap();
        fs::create_dir_all(responses.join("files")).unwrap();
        TlsServer::start(&sandbox, &responses)
    };
    let redirect = |to: &str| {
        for entry in fs::read_dir(&assets).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let body = fs::read(entry.path()).unwrap();
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            fs::write(responses.join("files").join(&name), [head.into_bytes(), body].concat()).unwrap();
            let moved = format!("HTTP/1.0 302 Found\r\nLocation: {to}/{name}\r\nContent-Length: 0\r\n\r\n");
            fs::write(responses.join("latest/download").join(&name), moved).unwrap();
        }
    };
    let certificate = sandbox.path("certificate.pem").display().to_string();
    fs::write(sandbox.path("wgetrc"), format!("ca_certificate = {certificate}\n")).unwrap();
    let wgetrc = sandbox.path("wgetrc").display().to_string();
    installer.env("CURL_CA_BUNDLE", &certificate).env("WGETRC", &wgetrc).env("LIFEBOAT_RELEASES", &server.url);
    let plain = format!("{}/latest/download", installer.release.url);
    for tool in ["curl", "wget"] {
        let path = path_with_tools(&sandbox, &[tool]);
        installer.env("PATH", &path);
        redirect(&plain);
        let (code, output) = installer.run(&["--to", "to"]);
        assert_eq!((code, installer.installed()), (1, Vec::new()), "{tool}: {output}");
        redirect(&format!("{}/files", server.url));
        let (code, output) = installer.run(&["--to", "to"]);
        assert_eq!(code, 0, "{tool}: {output}");
        fs::remove_dir_all(sandbox.path("to")).unwrap();
    }
    // BusyBox's wget does not check certificates.
    write_script(&sandbox.path("busybox/wget"), "#!/bin/sh\necho 'BusyBox v1.36.1' >&2\nexit 1\n");
    let path = format!("{}:{}", sandbox.path("busybox").display(), path_with_tools(&sandbox, &[]));
    let (code, output) = installer.env("PATH", &path).run(&["--to", "to"]);
    assert!(code == 1 && output.contains("does not check certificates"), "{output}");
}

#[test]
fn installer_refuses_a_mirror_whose_checksums_cannot_be_trusted() {
    let sandbox = Sandbox::new();
    let mut installer = Installer::new(&sandbox);
    for (mirror, code, message) in [
        ("http://mirror.invalid/releases", 1, "cannot be verified, because it is not https"),
        ("http://127.0.0.1.mirror.invalid/releases", 1, "cannot be verified, because it is not https"),
        ("ftp://mirror.invalid/releases", 2, "is not the URL of releases"),
    ] {
        let (exit_code, output) = installer.env("LIFEBOAT_RELEASES", mirror).run(&["--to", "to"]);
        assert_eq!((exit_code, installer.installed()), (code, Vec::new()), "{output}");
        assert!(output.contains(message), "{output}");
    }
    installer.env("LIFEBOAT_ATTESTATION", "require");
    let (_, output) = installer.env("LIFEBOAT_RELEASES", "http://mirror.invalid/releases").run(&["--to", "to"]);
    assert!(output.contains("cannot be downloaded"), "{output}");
}

#[test]
fn installer_checks_the_attestation_if_gh_is_installed_and_logged_in() {
    if !have(&["curl", "wget", "tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let mut installer = Installer::new(&sandbox);
    let script = r#"#!/bin/sh
        echo "$*" >>"$HOME/gh-calls"
        case $1 in
        auth) exit "$GH_AUTH" ;;
        attestation) [ "$GH_HOLDS" = 1 ] || { echo "no attestation found"; exit 1; } ;;
        esac"#;
    write_script(&sandbox.path("gh/gh"), script);
    let with_gh = format!("{}:{}", sandbox.path("gh").display(), path_with_tools(&sandbox, &["curl"]));
    installer.env("PATH", &with_gh).env("LIFEBOAT_REPOSITORY", "owner/lifeboat");
    installer.env("GH_AUTH", "0").env("GH_HOLDS", "1").env("LIFEBOAT_ATTESTATION", "require");
    let (code, output) = installer.run(&["--to", "to"]);
    assert_eq!(code, 0, "{output}");
    assert!(!output.contains("not checked"), "{output}");
    let calls = fs::read_to_string(sandbox.path("gh-calls")).unwrap();
    assert!(
        calls.contains("attestation verify to/.lifeboat-install-") && calls.contains("--repo owner/lifeboat"),
        "{calls}"
    );

    fs::remove_file(sandbox.path("to/lifeboat")).unwrap();
    let (code, output) = installer.env("GH_HOLDS", "0").env("LIFEBOAT_ATTESTATION", "auto").run(&["--to", "to"]);
    assert_eq!(code, 1);
    assert!(output.contains("is not valid: no attestation found; nothing was installed"), "{output}");
    let (code, output) = installer.env("GH_AUTH", "1").env("LIFEBOAT_ATTESTATION", "require").run(&["--to", "to"]);
    assert_eq!(code, 1);
    assert!(output.contains("was not checked: 'gh' is not logged in"), "{output}");
    assert!(installer.installed().is_empty());
    let (code, output) = installer.env("LIFEBOAT_ATTESTATION", "auto").run(&["--to", "to"]);
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("attestation not checked: 'gh' is not logged in"), "{output}");
}

#[test]
fn installer_explains_wrong_arguments() {
    if !have(&["curl", "wget", "tar", "gzip"]) {
        return;
    }
    let sandbox = Sandbox::new();
    let mut installer = Installer::new(&sandbox);
    for (arguments, expected) in [
        (&["--version"][..], "--version needs a value"),
        (&["--version", "../../x"], "is not a version"),
        (&["--repository", "lifeboat"], "is not a repository"),
        (&["--help"], "unknown argument '--help'"),
    ] {
        let (code, output) = installer.run(arguments);
        assert_eq!(code, 2, "{output}");
        assert!(output.contains(expected) && output.contains("usage: install"), "{output}");
    }
    let (code, output) = installer.env("LIFEBOAT_RELEASES", "").run(&["--to", "to"]);
    assert_eq!(code, 2, "{output}");
    assert!(output.contains("no repository is given"), "{output}");
    fs::write(sandbox.path("file"), "").unwrap();
    let url = installer.release.url.clone();
    let (code, output) = installer.env("LIFEBOAT_RELEASES", &url).run(&["--to", "file"]);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("cannot create the folder file"), "{output}");
}
