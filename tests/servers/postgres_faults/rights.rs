//! Logins that are not accepted, servers that are not there, roles that may not do what is asked.

use super::common::{MODES, Mode, Role, SECRET, Scene, Target, content};
use crate::support::postgres::server;

/// A port at which nobody listens.
const NOBODY: u16 = 1;

/// A certificate of nobody that the server knows.
fn strangers(scene: &Scene) -> String {
    let path = scene.sandbox.path("stranger.pem");
    let key = scene.sandbox.path("stranger.key");
    let mut command = std::process::Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
    ]);
    let output = command.arg("-keyout").arg(key).arg("-out").arg(&path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    path.display().to_string()
}

#[test]
#[ignore = "needs PostgreSQL"]
fn server_that_cannot_be_reached_is_named_and_no_store_is_made() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("unreached", 0);
    let port = server.port;
    let name = &source.name;
    let mut cases = vec![
        (format!("postgres://postgres:{SECRET}@127.0.0.1:{port}/{name}"), "the login to postgres://postgres@127.0.0.1"),
        (format!("postgres://nobody_here:{SECRET}@127.0.0.1:{port}/{name}"), "the login to postgres://nobody_here@"),
        (format!("postgres://postgres:{SECRET}@no-such-host.invalid/{name}"), "cannot find the host"),
        (format!("postgres://postgres:{SECRET}@127.0.0.1:{NOBODY}/{name}"), "cannot connect to postgres://postgres@"),
        (server.url("nodatabase"), "there is no database"),
    ];
    cases.push((
        format!("{}&sslrootcert={}", source.url() + "?sslmode=verify-full", strangers(&scene)),
        "cannot agree on TLS",
    ));
    for (url, words) in &cases {
        scene.fails(
            5,
            &["snapshot", url],
            &[words, "no-such-host.invalid"][..1 + usize::from(url.contains("invalid"))],
        );
        assert!(!scene.sandbox.path("backups").exists(), "{words}");
    }
    let id = scene.snapshot(&source.url());
    for (url, words) in &cases {
        if url.contains("nodatabase") {
            scene.fails(2, &["restore", &id, "--to", url], &["is not there", "--create"]);
            scene.fails(2, &["restore", &id, "--to", url, "--replace"], &["is not there", "--create"]);
            scene.fails(2, &["restore", &id, "--to", url, "--swap"], &["is not there", "--create"]);
            continue;
        }
        scene.fails(5, &["snapshot", url, "--name", "other"], &[words]);
        scene.fails(5, &["restore", &id, "--to", url, "--create"], &[]);
        scene.fails(5, &["restore", &id, "--to", url, "--replace", "--yes"], &[]);
        scene.fails(5, &["drill", &id, "--to", url], &[]);
    }
    scene.fails(2, &["restore", &id, "--to", &source.url(), "--create"], &["is there already", "--replace"]);
    // Of two sources the one that is there is saved.
    let run = scene.run(&["snapshot", &source.url(), &cases[3].0]).code(5);
    assert!(run.stdout().contains(&id[..8]), "{}", run.transcript());
    assert_eq!(scene.ids().len(), 2);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn all_that_a_role_may_not_read_is_named_before_any_work() {
    let server = server(15);
    let scene = Scene::new(&server);
    let source = scene.bank("unreadable", 0);
    let role = Role::new(&server, "reader", &[&source]);
    let name = &role.name;
    source.psql(format!(
        "CREATE TABLE secret (a int); INSERT INTO secret VALUES (1);
         CREATE TABLE columns_only (a int, b int);
         CREATE TABLE rows_only (a int); ALTER TABLE rows_only ENABLE ROW LEVEL SECURITY;
         CREATE POLICY few ON rows_only USING (a > 1);
         CREATE SEQUENCE hidden;
         CREATE SCHEMA closed; CREATE TABLE closed.inside (a int); INSERT INTO rows_only VALUES (1);
         SELECT lo_from_bytea(77001, 'mine'); SELECT lo_from_bytea(77002, 'yours');
         GRANT SELECT ON ALL TABLES IN SCHEMA public, closed TO \"{name}\";
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO \"{name}\";
         REVOKE SELECT ON secret, columns_only FROM \"{name}\"; REVOKE ALL ON SEQUENCE hidden FROM \"{name}\";
         GRANT SELECT (a) ON columns_only TO \"{name}\";
         GRANT SELECT ON LARGE OBJECT 77002 TO \"{name}\";"
    ));
    let url = role.url(&source.name);
    let named = [
        "6 things cannot be saved",
        "table public.secret: the role may not read it",
        "table public.columns_only: the role may not read it",
        "table public.rows_only: row security would hide rows",
        "table closed.inside: the role may not read it",
        "sequence public.hidden: the role may not read it",
        "large object 77001: the role may not read it",
        "--allow-partial",
    ];
    scene.fails(1, &["snapshot", &url], &named);
    scene.require_store(&[]);
    let run = scene.ok(&["snapshot", &url, "--allow-partial"]);
    let ids = scene.ids();
    let shown = scene.ok(&["show", &ids[0]]);
    for what in &named[1..7] {
        assert!(
            run.stderr().contains(what) && shown.stdout().contains(what),
            "{what}\n{}\n{}",
            run.transcript(),
            shown.transcript()
        );
    }
    assert_eq!(scene.json(&["show", &ids[0]])["kind"], "partial");
    // It is never what somebody gets who does not ask for it.
    scene.fails(4, &["restore", "latest", "--to", &server.url("anything"), "--create"], &[]);
    let back = server.reserve_database("partly_back");
    scene.ok(&["restore", &ids[0], "--to", &back.url(), "--create"]);
    assert_eq!(back.value("SELECT count(*) FROM accounts"), "200");
    assert_eq!(back.value("SELECT count(*) FROM secret"), "0");
    assert_eq!(back.value("SELECT convert_from(lo_get(77002), 'UTF8')"), "yours");
    scene.require_store(&ids);
    source.psql("SELECT lo_unlink(77001), lo_unlink(77002)");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn role_without_any_right_is_told_what_it_lacks() {
    let server = server(13);
    let scene = Scene::new(&server);
    let source = scene.bank("no_rights", 0);
    source.psql("REVOKE ALL ON SCHEMA public FROM public");
    let role = Role::new(&server, "nothing", &[&source]);
    let url = role.url(&source.name);
    scene.fails(
        1,
        &["snapshot", &url],
        &["table public.accounts: the role may not read it", "sequence public.tickets", "--allow-partial"],
    );
    scene.fails(1, &["snapshot", &url, "--schema-only"], &[]);
    server.psql("postgres", format!("REVOKE CONNECT ON DATABASE \"{}\" FROM public", source.name));
    scene.fails(5, &["snapshot", &url], &["may not connect", "GRANT CONNECT"]);
    scene.require_store(&[]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn role_that_may_not_restore_changes_nothing() {
    let server = server(18);
    let scene = Scene::new(&server);
    let source = scene.bank("may_not", 0);
    let id = scene.snapshot(&source.url());
    for mode in MODES {
        let target = Target::new(mode, &source);
        let role = Role::new(&server, &format!("weak_{mode:?}").to_lowercase(), &[]);
        let before = target.state();
        let url = role.url(&target.database.name);
        let mut arguments = target.arguments(&id, &url);
        // As the owner of nothing; with the owners of the snapshot that is told first.
        if matches!(mode, Mode::Create | Mode::Empty | Mode::Swap) {
            scene.fails(1, &arguments, &["may act as postgres", "--no-owner"]);
            arguments.push("--no-owner");
        }
        scene.fails(1, &arguments, &[]);
        assert_eq!(target.state(), before, "{mode:?}");
        assert_eq!(scene.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}");
    }
    scene.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn missing_roles_and_extensions_and_older_servers_are_named_first() {
    let (new, old) = (server(18), server(13));
    let scene = Scene::new(&new);
    let source = scene.bank("newer", 0);
    let role = Role::new(&new, "only_here", &[&source]);
    source.psql(format!("GRANT SELECT ON accounts TO \"{}\"; ALTER TABLE log OWNER TO \"{0}\"", role.name));
    let id = scene.snapshot(&source.url());
    let there = old.reserve_database("older");
    let missing = format!("the role {} is missing", role.name);
    scene.fails(
        1,
        &["restore", &id, "--to", &there.url(), "--create"],
        &["is PostgreSQL 13, and the snapshot came from 18", &missing],
    );
    scene.fails(1, &["restore", &id, "--to", &there.url(), "--create", "--no-owner"], &["the snapshot came from 18"]);
    scene.fails(1, &["drill", &id, "--to", &there.url()], &["the snapshot came from 18"]);
    let empty = old.create_database("older_empty");
    let before = content(&old, &empty.name);
    scene.fails(1, &["restore", &id, "--to", &empty.url()], &["the snapshot came from 18"]);
    assert_eq!(content(&old, &empty.name), before);
    assert!(old.query("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{}'", there.name)).is_empty());
    scene.require_store(&[id]);
}
