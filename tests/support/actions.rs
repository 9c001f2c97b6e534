//! Runs the steps of a composite action from its `action.yml`, with the variables that a GitHub runner sets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Reads a YAML file.
#[track_caller]
pub fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{} is not YAML: {error}", path.display()))
}

/// Returns the root folder of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A composite action of this repository, with its inputs and environment.
pub struct Action {
    folder: PathBuf,
    action: Value,
    temp: PathBuf,
    workspace: PathBuf,
    inputs: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

/// The result of a run of an action.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code of the step that failed, or of the last step.
    pub code: i32,
    /// The output of all steps, in which the runner looks for `::error::` and `::add-mask::`.
    pub log: String,
    /// The action's outputs.
    pub outputs: BTreeMap<String, String>,
    /// The text that the steps wrote to the summary of the job.
    pub summary: String,
}

impl Action {
    /// Reads `.github/actions/NAME`. The steps run in `workspace`, with PATH and the runner's variables as their only
    /// environment.
    pub fn new(name: &str, workspace: &Path, temp: &Path) -> Self {
        let folder = repository().join(".github/actions").join(name);
        std::fs::create_dir_all(temp).unwrap();
        let environment = BTreeMap::from([
            ("PATH".to_owned(), std::env::var("PATH").unwrap()),
            ("HOME".to_owned(), temp.display().to_string()),
            ("CI".to_owned(), "true".to_owned()),
            ("GITHUB_ACTIONS".to_owned(), "true".to_owned()),
            ("GITHUB_SHA".to_owned(), "0123456789abcdef0123456789abcdef01234567".to_owned()),
            ("GITHUB_REPOSITORY".to_owned(), "owner/app".to_owned()),
            ("GITHUB_RUN_ID".to_owned(), "1".to_owned()),
            ("GITHUB_WORKSPACE".to_owned(), workspace.display().to_string()),
            ("RUNNER_TEMP".to_owned(), temp.display().to_string()),
            ("TMPDIR".to_owned(), temp.display().to_string()),
        ]);
        Action {
            action: yaml(&folder.join("action.yml")),
            folder,
            temp: temp.to_owned(),
            workspace: workspace.to_owned(),
            inputs: BTreeMap::new(),
            environment,
        }
    }

    /// Sets an input, which the action must declare.
    pub fn with(mut self, input: &str, value: &str) -> Self {
        assert!(self.action["inputs"].get(input).is_some(), "the action has no input {input}");
        self.inputs.insert(input.to_owned(), value.to_owned());
        self
    }

    /// Sets an environment variable of the job.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs the steps until one fails.
    pub fn run(mut self) -> Outcome {
        for (name, input) in self.action["inputs"].as_object().unwrap() {
            let default = input["default"].as_str().unwrap_or_default();
            self.inputs.entry(name.clone()).or_insert_with(|| default.to_owned());
        }
        let mut steps: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let summary = self.temp.join("summary.md");
        std::fs::write(&summary, "").unwrap();
        let (mut code, mut log) = (0, String::new());
        for (number, step) in self.action["runs"]["steps"].as_array().unwrap().iter().enumerate() {
            let [output, path] = ["output", "path"].map(|name| self.temp.join(format!("{name}-{number}")));
            let script = self.temp.join(format!("step-{number}"));
            std::fs::write(&output, "").unwrap();
            std::fs::write(&path, "").unwrap();
            std::fs::write(&script, step["run"].as_str().unwrap()).unwrap();
            // The runner uses these options for 'shell: sh' and 'shell: bash'.
            let mut command = match step["shell"].as_str().unwrap() {
                "sh" => {
                    let mut command = Command::new("sh");
                    command.arg("-e");
                    command
                }
                "bash" => {
                    let mut command = Command::new("bash");
                    command.args(["--noprofile", "--norc", "-e", "-o", "pipefail"]);
                    command
                }
                other => panic!("a step has the unknown shell {other}"),
            };
            command.arg(&script).current_dir(&self.workspace).env_clear().envs(&self.environment).stdin(Stdio::null());
            command.env("GITHUB_ACTION_PATH", &self.folder).env("GITHUB_OUTPUT", &output);
            command.env("GITHUB_PATH", &path).env("GITHUB_STEP_SUMMARY", &summary);
            for (name, value) in step["env"].as_object().into_iter().flatten() {
                command.env(name, evaluate(value.as_str().unwrap(), &self.inputs, &steps));
            }
            let result = command.output().unwrap();
            log += &String::from_utf8_lossy(&result.stdout);
            log += &String::from_utf8_lossy(&result.stderr);
            if let Some(id) = step["id"].as_str() {
                steps.insert(id.to_owned(), outputs(&std::fs::read_to_string(&output).unwrap()));
            }
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let search_path = format!("{line}:{}", self.environment["PATH"]);
                self.environment.insert("PATH".to_owned(), search_path);
            }
            code = result.status.code().unwrap_or(-1);
            if code != 0 {
                break;
            }
        }
        let declared = self.action["outputs"].as_object().unwrap();
        let value = |output: &Value| evaluate(output["value"].as_str().unwrap(), &self.inputs, &steps);
        let outputs = declared.iter().map(|(name, output)| (name.clone(), value(output))).collect();
        Outcome { code, log, outputs, summary: std::fs::read_to_string(&summary).unwrap() }
    }
}

/// Parses the text that a step wrote to `GITHUB_OUTPUT`: `NAME=VALUE`, or `NAME<<END`, lines, and `END`.
#[track_caller]
pub fn outputs(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let simple = line.split_once('=');
        match line.split_once("<<").filter(|(name, _)| simple.is_none_or(|(before, _)| name.len() < before.len())) {
            Some((name, end)) => {
                let value: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
                found.insert(name.to_owned(), value.join("\n"));
            }
            None => {
                let (name, value) = simple.unwrap_or_else(|| panic!("this line is not an output: {line}"));
                found.insert(name.to_owned(), value.to_owned());
            }
        }
    }
    found
}

/// Evaluates a text of an action: a plain text, or an expression that is a single reference.
fn evaluate(
    text: &str,
    inputs: &BTreeMap<String, String>,
    steps: &BTreeMap<String, BTreeMap<String, String>>,
) -> String {
    let Some(inner) = text.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")) else {
        assert!(!text.contains("${{"), "cannot evaluate {text}");
        return text.to_owned();
    };
    let words: Vec<&str> = inner.trim().split('.').collect();
    match words[..] {
        ["inputs", name] => inputs[name].clone(),
        // An output that the step did not set is empty.
        ["steps", id, "outputs", name] => {
            steps.get(id).and_then(|outputs| outputs.get(name)).cloned().unwrap_or_default()
        }
        ["github", "action_repository"] => "owner/lifeboat".to_owned(),
        ["github", "token"] => "a-token".to_owned(),
        _ => panic!("cannot evaluate {text}"),
    }
}
