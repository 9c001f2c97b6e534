//! The config, and the command that writes one, through the program itself.

mod encryption;
mod init;
mod retention;
mod stores;
mod variables;
mod wrong;

use std::fs;

use crate::support::{Run, Sandbox};

/// What no output may have.
const SECRET: &str = "hunter2-sesame";

/// Runs the program with these variables and no others of the outer environment.
fn lifeboat(sandbox: &Sandbox, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let mut command = sandbox.command(arguments);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", sandbox.path("scratch"));
    command.env("TMPDIR", sandbox.path("scratch")).env("AWS_EC2_METADATA_DISABLED", "true");
    command.envs(variables.iter().copied());
    sandbox.finish(command)
}

/// A folder with a config.
fn with_config(text: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("lifeboat.toml"), text).unwrap();
    sandbox
}

/// The sources of the snapshots that a run made, in order.
#[track_caller]
fn saved(run: &Run) -> Vec<String> {
    let document = run.json();
    let snapshots = document["snapshots"].as_array().unwrap_or_else(|| panic!("{}", run.transcript()));
    snapshots.iter().map(|snapshot| snapshot["source"].as_str().unwrap().to_owned()).collect()
}

/// Makes what is missing, so that a config's store is there.
#[track_caller]
fn ready(sandbox: &Sandbox, variables: &[(&str, &str)]) {
    lifeboat(sandbox, &["init"], variables).code(0);
}
