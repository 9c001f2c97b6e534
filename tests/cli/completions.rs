//! `completions` and `man`.

use crate::helpers::{refused_by_the_parser, silent};
use crate::support::Sandbox;

#[test]
fn completions_are_printed_for_every_shell() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = silent(sandbox.ok(&["completions", shell]));
        assert!(run.stdout().contains("lifeboat"), "{}", run.transcript());
        assert!(run.stdout().contains("snapshot"), "{}", run.transcript());
    }
}

#[test]
fn the_completions_for_bash_are_valid_bash() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("completions.bash"), sandbox.ok(&["completions", "bash"]).stdout()).unwrap();
    crate::helpers::shell_ok(&sandbox, "bash -n completions.bash");
}

#[test]
fn completions_for_an_unknown_shell_are_refused() {
    let sandbox = Sandbox::new();
    refused_by_the_parser(&sandbox, &["completions", "cmd.exe"]);
}

#[test]
fn man_prints_a_page_that_names_every_command() {
    let sandbox = Sandbox::new();
    let run = silent(sandbox.ok(&["man"]));
    let page = run.stdout();
    assert!(page.contains(".TH lifeboat"), "{}", run.transcript());
    for command in ["snapshot", "list", "show", "verify", "drill", "restore", "extract", "diff", "prune", "keygen"] {
        assert!(page.contains(&format!("lifeboat\\-{command}")), "{command} is not in the manual page");
    }
}
