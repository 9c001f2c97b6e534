//! Refused logins, unreachable servers, and roles without the necessary rights.

use super::common::{MODES, Mode, Role, SECRET, Setup, Target, content};
use crate::support::postgres::server;

/// A port on which no server listens.
const CLOSED_PORT: u16 = 1;

/// Creates a certificate that did not sign the certificate of the server, and returns its path.
fn unrelated_certificate(setup: &Setup) -> String {
    let path = setup.sandbox.path("stranger.pem");
    let key = setup.sandbox.path("stranger.key");
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
fn an_unreachable_server_is_named_and_no_store_is_created() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("unreached", 0);
    let port = server.port;
    let name = &source.name;
    let mut cases = vec![
        (format!("postgres://postgres:{SECRET}@127.0.0.1:{port}/{name}"), "the login to postgres://postgres@127.0.0.1"),
        (format!("postgres://nobody_here:{SECRET}@127.0.0.1:{port}/{name}"), "the login to postgres://nobody_here@"),
        (format!("postgres://postgres:{SECRET}@no-such-host.invalid/{name}"), "cannot find the host"),
        (
            format!("postgres://postgres:{SECRET}@127.0.0.1:{CLOSED_PORT}/{name}"),
            "cannot connect to postgres://postgres@",
        ),
        (server.url("nodatabase"), "the database postgres://"),
    ];
    cases.push((
        format!("{}&sslrootcert={}", source.url() + "?sslmode=verify-full", unrelated_certificate(&setup)),
        "cannot complete the TLS handshake",
    ));
    for (url, words) in &cases {
        setup.fails(
            5,
            &["snapshot", url],
            &[words, "no-such-host.invalid"][..1 + usize::from(url.contains("invalid"))],
        );
        assert!(!setup.sandbox.path("backups").exists(), "{words}");
    }
    let id = setup.snapshot(&source.url());
    for (url, words) in &cases {
        if url.contains("nodatabase") {
            setup.fails(2, &["restore", &id, "--to", url], &["does not exist", "--create"]);
            setup.fails(2, &["restore", &id, "--to", url, "--replace"], &["does not exist", "--create"]);
            setup.fails(2, &["restore", &id, "--to", url, "--swap"], &["does not exist", "--create"]);
            continue;
        }
        setup.fails(5, &["snapshot", url, "--name", "other"], &[words]);
        setup.fails(5, &["restore", &id, "--to", url, "--create"], &[]);
        setup.fails(5, &["restore", &id, "--to", url, "--replace", "--yes"], &[]);
        setup.fails(5, &["drill", &id, "--to", url], &[]);
    }
    setup.fails(2, &["restore", &id, "--to", &source.url(), "--create"], &["already exists", "--replace"]);
    // If one of two sources cannot be reached, the other one is still saved.
    let run = setup.run(&["snapshot", &source.url(), &cases[3].0]).code(5);
    assert!(run.stdout().contains(&id[..8]), "{}", run.transcript());
    assert_eq!(setup.ids().len(), 2);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn all_objects_that_a_role_may_not_read_are_named_before_the_snapshot_starts() {
    let server = server(15);
    let setup = Setup::new(&server);
    let source = setup.bank("unreadable", 0);
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
    let messages = [
        "6 objects cannot be saved",
        "table public.secret: the role may not read it",
        "table public.columns_only: the role may not read it",
        "table public.rows_only: row security would hide rows",
        "table closed.inside: the role may not read it",
        "sequence public.hidden: the role may not read it",
        "large object 77001: the role may not read it",
        "--allow-partial",
    ];
    setup.fails(1, &["snapshot", &url], &messages);
    setup.require_store(&[]);
    let run = setup.ok(&["snapshot", &url, "--allow-partial"]);
    let ids = setup.ids();
    let shown = setup.ok(&["show", &ids[0]]);
    for object in &messages[1..7] {
        assert!(
            run.stderr().contains(object) && shown.stdout().contains(object),
            "{object}\n{}\n{}",
            run.transcript(),
            shown.transcript()
        );
    }
    assert_eq!(setup.json(&["show", &ids[0]])["kind"], "partial");
    // A partial snapshot is never `latest`.
    setup.fails(4, &["restore", "latest", "--to", &server.url("anything"), "--create"], &[]);
    let restored = server.reserve_database("partly_back");
    setup.ok(&["restore", &ids[0], "--to", &restored.url(), "--create"]);
    assert_eq!(restored.value("SELECT count(*) FROM accounts"), "200");
    assert_eq!(restored.value("SELECT count(*) FROM secret"), "0");
    assert_eq!(restored.value("SELECT convert_from(lo_get(77002), 'UTF8')"), "yours");
    setup.require_store(&ids);
    source.psql("SELECT lo_unlink(77001), lo_unlink(77002)");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_missing_rights_of_a_role_are_named() {
    let server = server(13);
    let setup = Setup::new(&server);
    let source = setup.bank("no_rights", 0);
    source.psql("REVOKE ALL ON SCHEMA public FROM public");
    let role = Role::new(&server, "nothing", &[&source]);
    let url = role.url(&source.name);
    setup.fails(
        1,
        &["snapshot", &url],
        &["table public.accounts: the role may not read it", "sequence public.tickets", "--allow-partial"],
    );
    setup.fails(1, &["snapshot", &url, "--schema-only"], &[]);
    server.psql("postgres", format!("REVOKE CONNECT ON DATABASE \"{}\" FROM public", source.name));
    setup.fails(5, &["snapshot", &url], &["may not connect", "GRANT CONNECT"]);
    setup.require_store(&[]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_role_without_the_right_to_restore_changes_nothing() {
    let server = server(18);
    let setup = Setup::new(&server);
    let source = setup.bank("may_not", 0);
    let id = setup.snapshot(&source.url());
    for mode in MODES {
        let target = Target::new(mode, &source);
        let role = Role::new(&server, &format!("weak_{mode:?}").to_lowercase(), &[]);
        let before = target.state();
        let url = role.url(&target.database.name);
        let mut arguments = target.arguments(&id, &url);
        // The first error is that the role cannot set the owners of the snapshot. With --no-owner, the restore fails
        // because another right is missing.
        if matches!(mode, Mode::Create | Mode::Empty | Mode::Swap) {
            setup.fails(1, &arguments, &["is not a member of postgres", "--no-owner"]);
            arguments.push("--no-owner");
        }
        setup.fails(1, &arguments, &[]);
        assert_eq!(target.state(), before, "{mode:?}");
        assert_eq!(setup.leftovers(), Vec::<Vec<String>>::new(), "{mode:?}");
    }
    setup.require_store(&[id]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn missing_roles_and_older_servers_are_named_before_a_restore_starts() {
    let (new, old) = (server(18), server(13));
    let setup = Setup::new(&new);
    let source = setup.bank("newer", 0);
    let role = Role::new(&new, "only_here", &[&source]);
    source.psql(format!("GRANT SELECT ON accounts TO \"{}\"; ALTER TABLE log OWNER TO \"{0}\"", role.name));
    let id = setup.snapshot(&source.url());
    let target = old.reserve_database("older");
    let missing = format!("the role {} is missing", role.name);
    setup.fails(
        1,
        &["restore", &id, "--to", &target.url(), "--create"],
        &["is PostgreSQL 13, but the snapshot came from 18", &missing],
    );
    setup.fails(1, &["restore", &id, "--to", &target.url(), "--create", "--no-owner"], &["the snapshot came from 18"]);
    setup.fails(1, &["drill", &id, "--to", &target.url()], &["the snapshot came from 18"]);
    let empty = old.create_database("older_empty");
    let before = content(&old, &empty.name);
    setup.fails(1, &["restore", &id, "--to", &empty.url()], &["the snapshot came from 18"]);
    assert_eq!(content(&old, &empty.name), before);
    assert!(old.query("postgres", &format!("SELECT 1 FROM pg_database WHERE datname = '{}'", target.name)).is_empty());
    setup.require_store(&[id]);
}
