//! Values from the environment, from a file of variables and from files of secrets.

use std::fs;

use super::{SECRET, lifeboat, ready, saved, with_config};
use crate::support::sample;

#[test]
fn a_variable_that_is_not_set_only_matters_to_who_needs_its_section() {
    let sandbox = with_config(
        "[[store]]\nurl = \"b\"\n[[source]]\nname = \"app\"\nurl = \"app.db\"\n\
         [notify]\nwebhook = \"${NO_WEBHOOK}\"\n[preflight]\nmounts = [\"${NO_MOUNT}\"]\n[retention]\nkeep_last = \"${NO_NUMBER}\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    ready(&sandbox, &[]);
    lifeboat(&sandbox, &["list"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot", "app", "--store", "b"], &[]);
    let run =
        lifeboat(&sandbox, &["prune"], &[]).code(2).says("retention.keep_last: the variable NO_NUMBER is not set");
    assert!(
        run.stderr().contains("lifeboat.toml:11") && run.stderr().contains("${NO_NUMBER:-...}"),
        "{}",
        run.transcript()
    );
    lifeboat(&sandbox, &["prune"], &[("NO_NUMBER", "3")]).code(0);
    // A source that cannot be named keeps nobody from another one, nor from looking.
    let sandbox = with_config("[[store]]\nurl = \"b\"\n[[source]]\nname = \"shop\"\nurl = \"${NO_URL}\"\n");
    sample(sandbox.path("app.db"), 2, "delete");
    ready(&sandbox, &[]);
    lifeboat(&sandbox, &["snapshot", "./app.db"], &[]).code(0);
    lifeboat(&sandbox, &["list"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("source.url: the variable NO_URL is not set");
    lifeboat(&sandbox, &["snapshot"], &[("NO_URL", "app.db")]).code(0);
    let sandbox = with_config("[[store]]\nurl = \"${NO_STORE}\"\n");
    lifeboat(&sandbox, &["list"], &[]).code(2).says("store.url: the variable NO_STORE is not set");
    // One word may be the name of a store; a path is none.
    lifeboat(&sandbox, &["list", "--store", "x"], &[]).code(2);
    lifeboat(&sandbox, &["list", "--store", "./x"], &[]).code(5);
}

#[test]
fn the_process_outdoes_the_file_of_variables() {
    let sandbox = with_config(
        "env_file = \"${WHICH:-.env}\"\n[[store]]\nurl = \"${STORE}\"\n[[source]]\nname = \"${NAME:-nobody}\"\nurl = \"sqlite:///./${FILE}\"\n",
    );
    sample(sandbox.path("app.db"), 2, "delete");
    sample(sandbox.path("two.db"), 2, "delete");
    fs::write(
        sandbox.path(".env"),
        "\u{feff}export STORE='b'\r\nNAME=\"of-file\" # mine\r\nFILE=app.db\r\nNAME2= # none\r\n",
    )
    .unwrap();
    ready(&sandbox, &[]);
    let of = |variables: &[(&str, &str)]| saved(&lifeboat(&sandbox, &["snapshot", "--json"], variables).code(0));
    assert_eq!(of(&[]), ["of-file"]);
    assert_eq!(of(&[("NAME", "mine"), ("FILE", "two.db")]), ["mine"]);
    // Empty counts as none where there is a default.
    assert_eq!(of(&[("NAME", ""), ("FILE", "two.db")]), ["nobody"]);
    fs::write(sandbox.path("other"), "STORE=b\nNAME=third\nFILE=two.db\n").unwrap();
    lifeboat(&sandbox, &["snapshot"], &[("WHICH", "other")]).code(0);
    // One that is not there is none; one that makes no sense is told by its line, without what stands there.
    lifeboat(&sandbox, &["snapshot"], &[("WHICH", "absent"), ("STORE", "b"), ("FILE", "two.db"), ("NAME", "third")])
        .code(0);
    fs::write(sandbox.path("bad"), format!("A=1\n{SECRET}\n")).unwrap();
    let run = lifeboat(&sandbox, &["list"], &[("WHICH", "bad")]).code(2).says("bad:2: ");
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
    lifeboat(&sandbox, &["list"], &[("WHICH", "/dev/zero")]).code(2).says("is too large");
}

#[test]
fn a_file_of_a_secret_is_read_once_it_is_needed() {
    let sandbox = with_config(
        "[[store]]\nurl = \"b\"\n[[source]]\nname = \"pg\"\nhost = \"127.0.0.1\"\nport = 1\ndbname = \"d\"\nuser = \"u\"\npassword_file = \"secret\"\n",
    );
    ready(&sandbox, &[]);
    lifeboat(&sandbox, &["list"], &[]).code(0);
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("cannot read the secret in");
    fs::write(sandbox.path("secret"), vec![b'x'; 1 << 17]).unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("too large");
    fs::write(sandbox.path("secret"), b"\xff").unwrap();
    lifeboat(&sandbox, &["snapshot"], &[]).code(2).says("not UTF-8");
    fs::write(sandbox.path("secret"), format!("{SECRET}\n")).unwrap();
    // Nobody listens there.
    let run = lifeboat(&sandbox, &["snapshot", "-vv"], &[]).code(5);
    assert!(!run.stderr().contains(SECRET), "{}", run.transcript());
}
