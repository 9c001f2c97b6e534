//! The gates in GitHub Actions: outputs, summary, annotations and masked secrets.

use super::helpers::{App, run_with_env};
use crate::support::Sandbox;
use crate::support::actions::outputs;

/// The files that a runner of GitHub Actions gives to a step.
struct Runner {
    output: String,
    summary: String,
}

impl Runner {
    fn new(sandbox: &Sandbox) -> Self {
        let file = |name: &str| {
            let path = sandbox.path(name);
            std::fs::write(&path, "").unwrap();
            path.to_str().unwrap().to_owned()
        };
        Runner { output: file("github-output"), summary: file("github-summary") }
    }

    fn variables(&self) -> [(&str, &str); 4] {
        [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SHA", "abc123"),
            ("GITHUB_OUTPUT", &self.output),
            ("GITHUB_STEP_SUMMARY", &self.summary),
        ]
    }

    fn read(path: &str) -> String {
        std::fs::read_to_string(path).unwrap()
    }
}

#[test]
fn the_gates_write_outputs_summary_and_annotations() {
    let app = App::new("");
    let runner = Runner::new(&app.sandbox);
    let run = run_with_env(&app.sandbox, &["predeploy", "--json"], &runner.variables()).code(0);
    let document = run.json();
    let id = document["snapshots"][0]["id"].as_str().unwrap();
    assert_eq!(document["snapshots"][0]["tags"], serde_json::json!(["predeploy", "abc123"]));
    let output = Runner::read(&runner.output);
    let expected = [("ok", "true"), ("snapshot-id", id), ("snapshot-ids", id)];
    assert_eq!(outputs(&output), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    // The line that ends the ids is another one in each run, so that no text can contain it.
    let delimiter =
        |output: &str| output.lines().find_map(|line| line.strip_prefix("snapshot-ids<<").map(str::to_owned));
    std::fs::write(&runner.output, "").unwrap();
    run_with_env(&app.sandbox, &["postdeploy"], &runner.variables()).code(0);
    assert_ne!(delimiter(&output), delimiter(&Runner::read(&runner.output)), "{output}");
    let summary = Runner::read(&runner.summary);
    assert!(summary.contains("lifeboat predeploy") && summary.contains(id) && summary.contains("restore"), "{summary}");
    app.sql("DELETE FROM balances");
    let run = run_with_env(&app.sandbox, &["postdeploy"], &runner.variables()).code(3);
    assert!(run.stderr().contains("::error title=lifeboat postdeploy::app: "), "{}", run.transcript());
    assert!(Runner::read(&runner.summary).contains("❌ | app: "), "{}", Runner::read(&runner.summary));
    assert!(Runner::read(&runner.output).contains("ok=false"), "{}", Runner::read(&runner.output));
}

#[test]
fn secrets_of_the_config_are_masked_in_later_steps() {
    let app = App::new("");
    let runner = Runner::new(&app.sandbox);
    app.write_config("[[source]]\nname = \"pg\"\nurl = \"postgres://me:hunter2hunter2@127.0.0.1:1/db\"\n");
    let run = run_with_env(&app.sandbox, &["predeploy"], &runner.variables()).code(3);
    assert_eq!(run.stderr().matches("hunter2hunter2").count(), 1, "{}", run.transcript());
    assert!(run.stderr().contains("::add-mask::hunter2hunter2"), "{}", run.transcript());
    let run = app.sandbox.run(&["predeploy"]).code(3);
    assert!(!run.stderr().contains("hunter2"), "the secret is printed outside of GitHub Actions\n{}", run.transcript());
}

#[test]
fn an_error_in_the_config_is_an_annotation() {
    let app = App::new("");
    let runner = Runner::new(&app.sandbox);
    app.write_config("[preflight]\nmount = []\n");
    let run = run_with_env(&app.sandbox, &["predeploy"], &runner.variables()).code(2);
    assert!(run.stderr().contains("::error title=lifeboat predeploy::"), "{}", run.transcript());
    assert!(Runner::read(&runner.summary).contains("mount"), "{}", Runner::read(&runner.summary));
}
