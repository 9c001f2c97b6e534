//! The config and the command `init` that writes it, tested through the program.

mod encryption;
mod exposed;
mod init;
mod projects;
mod retention;
mod stores;
mod variables;
mod wrong;

use std::fs;

use crate::support::{Run, Sandbox};

/// A secret that no output may contain.
const SECRET: &str = "hunter2-sesame";

/// Runs the program with these environment variables, and with none of the outer environment except PATH.
fn lifeboat(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.command(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", sandbox.path("scratch"));
    command.env("TMPDIR", sandbox.path("scratch")).env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(variables.iter().copied());
    sandbox.finish(command)
}

/// Creates a sandbox with this config.
fn with_config(text: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("lifeboat.toml"), text).unwrap();
    sandbox
}

/// Returns the sources of the snapshots in the document of a run, in their order.
#[track_caller]
fn snapshot_sources(run: &Run) -> Vec<String> {
    let document = run.json();
    let snapshots = document["snapshots"].as_array().unwrap_or_else(|| panic!("{}", run.transcript()));
    snapshots.iter().map(|snapshot| snapshot["source"].as_str().unwrap().to_owned()).collect()
}

/// Creates the stores of the config that do not exist yet.
#[track_caller]
fn create_stores(sandbox: &Sandbox, variables: &[(&str, &str)]) {
    lifeboat(sandbox, &["init"], variables).code(0);
}
