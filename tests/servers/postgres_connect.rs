//! Connecting to PostgreSQL as libpq does, on real servers: every way to name one, to log in, and to fail.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::postgres::{Server, each_server, server};
use crate::support::{Sandbox, child_test};
use bytes::Bytes;
use lifeboat::engine::postgres::wire::params::{Params, Surroundings};
use lifeboat::engine::postgres::wire::session::{Session, sqlstate};
use lifeboat::platform::error::{Error, Kind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The password of the roles that tests make, and what no output may have.
const SECRET: &str = "gr8-s3cret-0f-mine";

/// A port at which nobody listens.
const NOBODY: u16 = 1;

/// A process without variables and without a home.
fn around() -> Surroundings {
    Surroundings { user: Some("nobody_at_all".to_owned()), ..Surroundings::default() }
}

fn connect_in(text: &str, around: &Surroundings) -> Result<Session, Error> {
    Session::connect(&Params::parse_in(text, around)?)
}

#[track_caller]
fn connect(text: &str) -> Session {
    connect_in(text, &around()).unwrap_or_else(|error| panic!("{}\nhint: {:?}", error.whole(), error.hint))
}

/// Collects what is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `work`, and gives what was logged meanwhile on this thread.
fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let done = tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (done, text)
}

/// Connects, which must fail, and gives all that is told of it; no secret of `secrets` may be in it.
#[track_caller]
fn fails_in(text: &str, around: &Surroundings, secrets: &[&str]) -> (Error, String) {
    let (done, log) = logged(|| connect_in(text, around));
    let error = done.err().unwrap_or_else(|| panic!("connected"));
    let hint = error.hint.clone().unwrap_or_default();
    let told = format!("{}\nhint: {hint}", error.whole());
    let everything = format!("{told}\n{error:?}\n{error:#?}\n{log}");
    for secret in secrets.iter().chain([&SECRET]) {
        assert!(!everything.contains(secret), "a secret is told: {everything}");
    }
    assert_eq!(error.kind, Kind::Unreachable, "{told}");
    assert!(!hint.is_empty(), "no hint: {told}");
    (error, told)
}

#[track_caller]
fn fails(text: &str, expected: &[&str]) {
    let (_, told) = fails_in(text, &around(), &[]);
    for part in expected {
        assert!(told.contains(part), "'{part}' is not in: {told}");
    }
}

/// Whether a session is inside TLS, as the server sees it.
fn has_tls(session: &mut Session) -> bool {
    let row = session.row("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap();
    row.flag("ssl").unwrap()
}

/// A role of one's own with the password [`SECRET`], gone at the end.
struct Role {
    server: Server,
    name: String,
}

impl Role {
    fn new(server: &Server, name: &str) -> Self {
        let name = format!("{name}_{}", std::process::id());
        server.psql("postgres", format!("CREATE ROLE \"{name}\" LOGIN PASSWORD '{SECRET}'"));
        Role { server: server.clone(), name }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.server.psql("postgres", format!("DROP ROLE \"{}\"", self.name));
    }
}

// ---------------------------------------------------------------- who is there

#[test]
#[ignore = "needs PostgreSQL"]
fn connecting_tells_what_the_server_is() {
    each_server(|server| {
        let params = Params::parse_in(&server.url("postgres"), &around()).unwrap();
        let (session, log) = logged(|| Session::connect(&params));
        let mut session = session.unwrap();
        let about = session.about().clone();
        assert_eq!(about.version, server.version);
        assert_eq!(about.version_num / 10000, server.major);
        assert_eq!(session.version(), about.version_num);
        assert_eq!((about.host.as_str(), about.port), ("127.0.0.1", server.port));
        assert_eq!((about.database.as_str(), about.user.as_str()), ("postgres", "postgres"));
        assert!(about.is_superuser && !about.in_recovery && !about.read_only);
        assert_eq!(about.server_encoding, "UTF8");
        let row = session.row("SELECT pg_backend_pid() AS pid, current_setting('application_name') AS name").unwrap();
        assert_eq!(row.number::<i32>("pid").unwrap(), session.pid());
        assert_eq!(row.text("name").unwrap(), "lifeboat");
        let line = format!(
            "connected to postgres://postgres@127.0.0.1:{}/postgres: PostgreSQL {}",
            server.port, server.version
        );
        assert!(log.contains(&line) && log.contains("as postgres (a superuser)"), "{log}");
        assert!(!log.contains(&server.password));
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_password_is_found_wherever_libpq_finds_it() {
    let server = server(15);
    let role = Role::new(&server, "finder");
    let sandbox = Sandbox::new();
    let (port, user) = (server.port, &role.name);
    let passfile = sandbox.path("passes");
    fs::write(&passfile, format!("# ours\nother:*:*:*:wrong\n127.0.0.1:{port}:postgres:{user}:{SECRET}\n")).unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(&passfile, sandbox.path(".pgpass")).unwrap();
    let services = sandbox.path("services");
    fs::write(
        &services,
        format!("[mine]\nhost=127.0.0.1\nport={port}\nuser={user}\npassword={SECRET}\ndbname=postgres\n"),
    )
    .unwrap();
    fs::copy(&services, sandbox.path(".pg_service.conf")).unwrap();
    let services = services.to_str().unwrap();
    let passfile = passfile.to_str().unwrap();
    let home = || Surroundings { home: Some(sandbox.root().to_owned()), ..around() };
    let plain = format!("postgres://{user}@127.0.0.1:{port}/postgres");
    let ways = [
        (format!("postgres://{user}:{SECRET}@127.0.0.1:{port}/postgres"), around()),
        (format!("postgresql+psycopg2://{user}:{SECRET}@127.0.0.1:{port}/postgres"), around()),
        (format!("host=127.0.0.1 port={port} user={user} password='{SECRET}' dbname=postgres"), around()),
        (plain.clone(), around().with("PGPASSWORD", SECRET)),
        (plain.clone(), around().with("PGPASSFILE", passfile)),
        (format!("{plain}?passfile={passfile}"), around()),
        (plain.clone(), home()),
        ("service=mine".to_owned(), around().with("PGSERVICEFILE", services)),
        ("postgres://?service=mine".to_owned(), around().with("PGSERVICEFILE", services)),
        (String::new(), home().with("PGSERVICE", "mine")),
        (
            "postgres://".to_owned(),
            around()
                .with("PGHOST", "127.0.0.1")
                .with("PGPORT", &port.to_string())
                .with("PGUSER", user)
                .with("PGDATABASE", "postgres")
                .with("PGPASSWORD", SECRET),
        ),
        // A Unix socket, where nobody is asked for one.
        (format!("host={} port={port} user={user} dbname=postgres", server.socket_dir.display()), around()),
        (
            format!("port={port} user={user} dbname=postgres"),
            Surroundings { socket_folders: vec![server.socket_dir.clone()], ..around() },
        ),
    ];
    for (text, around) in ways {
        let (done, log) = logged(|| connect_in(&text, &around));
        let session = done.unwrap_or_else(|error| panic!("{text}: {}", error.whole()));
        assert_eq!(&session.about().user, user, "{text}");
        assert!(!log.contains(SECRET), "{log}");
    }
    // What libpq passes over: a password file that others may read, and other lines.
    fs::set_permissions(passfile, fs::Permissions::from_mode(0o644)).unwrap();
    let ((_, told), log) = logged(|| fails_in(&plain, &around().with("PGPASSFILE", passfile), &[]));
    assert!(told.contains("asks for a password, and there is none"), "{told}");
    drop(log);
    let ((), log) = logged(|| drop(connect_in(&plain, &around().with("PGPASSFILE", passfile))));
    assert!(log.contains("may be read by others") && log.contains("chmod 600"), "{log}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_socket_that_is_shown_can_be_pasted() {
    let server = server(15);
    let session = connect(&server.socket_url("postgres"));
    assert_eq!(session.about().host, server.socket_dir.to_str().unwrap());
    let params = Params::parse_in(&server.socket_url("postgres"), &around()).unwrap();
    drop(connect(&params.shown()));
    // A socket has no TLS, whatever is asked for.
    let mut session = connect(&format!("{}?sslmode=verify-full&sslrootcert=/absent", server.socket_url("postgres")));
    assert!(!has_tls(&mut session));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn every_sort_of_password_is_given() {
    let server = server(15);
    let private = Private::start(
        &server,
        &["password_encryption = md5"],
        &["host all plain all password", "host all old all md5"],
    );
    private.psql(&format!("CREATE ROLE plain LOGIN PASSWORD '{SECRET}'; CREATE ROLE old LOGIN PASSWORD '{SECRET}';"));
    for user in ["plain", "old"] {
        drop(connect(&format!("postgres://{user}:{SECRET}@127.0.0.1:{}/postgres", private.port)));
        fails(&format!("postgres://{user}:{SECRET}x@127.0.0.1:{}/postgres", private.port), &["was not accepted"]);
    }
}

// ---------------------------------------------------------------- what a config says

#[test]
#[ignore = "needs PostgreSQL"]
fn odd_passwords_of_a_config_need_no_escapes() {
    let server = server(17);
    let database = server.create_database("odd_password");
    server.psql(&database.name, "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)");
    let role = Role::new(&server, "odd");
    let password = "p@ss:w/rd#1 $x";
    server.psql("postgres", format!("ALTER ROLE \"{}\" SUPERUSER PASSWORD '{password}'", role.name));
    let sandbox = Sandbox::new();
    let run = |arguments: &[&str], more: &[(&str, &str)]| {
        let mut command = sandbox.command(arguments);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("TMPDIR", sandbox.path("scratch"));
        command.envs(more.iter().copied());
        sandbox.finish(command)
    };
    // In a file of variables, as an application has it; 'init' finds it, and a snapshot is made of what it wrote.
    let env = format!(
        "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={}\nTDX_DB_NAME={}\nTDX_DB_USER={}\nTDX_DB_PASSWORD='{password}'\n",
        server.port, database.name, role.name
    );
    fs::write(sandbox.path(".env"), &env).unwrap();
    let made = run(&["init"], &[]).code(0);
    let saved = run(&["snapshot", "-vv", "--json"], &[]).code(0);
    assert_eq!(saved.json()["snapshots"][0]["rows"], 2, "{}", saved.transcript());
    let text = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    for told in [made.stdout(), made.stderr(), saved.stdout(), saved.stderr(), text] {
        assert!(!told.contains(password) && !told.contains("w/rd"), "{told}");
    }
    // The process outdoes the file; a wrong password is refused, and not told.
    let wrong = run(&["snapshot", "-vv"], &[("TDX_DB_PASSWORD", SECRET)]).code(5);
    assert!(!wrong.stderr().contains(SECRET), "{}", wrong.transcript());
    // As a key of its own, in a file of its own, and from PostgreSQL's own variables in the file.
    fs::write(sandbox.path("password"), format!("{password}\n")).unwrap();
    fs::write(sandbox.path("pg"), format!("PGPASSWORD=\"p@ss:w/rd#1 \\$x\"\nPGUSER={}\n", role.name)).unwrap();
    let place = format!("host = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\n", server.port, database.name);
    let user = format!("user = \"{}\"\n", role.name);
    let url = format!("url = \"postgresql+asyncpg://127.0.0.1:{}/{}\"\n", server.port, database.name);
    for (number, (head, keys)) in [
        ("", format!("{place}{user}password = \"{password}\"\n")),
        ("", format!("{place}{user}password = \"${{PASSWORD}}\"\n")),
        ("", format!("{place}{user}password_file = \"password\"\n")),
        ("", format!("{url}{user}password_file = \"password\"\n")),
        ("env_file = \"pg\"\n", url.clone()),
    ]
    .into_iter()
    .enumerate()
    {
        let text = format!("{head}[[store]]\nurl = \"backups\"\n[[source]]\nname = \"n{number}\"\n{keys}");
        fs::write(sandbox.path("my.toml"), text).unwrap();
        let saved = run(&["snapshot", "--config", "my.toml", "--json"], &[("PASSWORD", password)]).code(0);
        assert_eq!(saved.json()["snapshots"][0]["rows"], 2, "{}", saved.transcript());
    }
}

// ---------------------------------------------------------------- TLS

#[test]
#[ignore = "needs PostgreSQL"]
fn each_sslmode_trusts_what_libpq_trusts() {
    each_server(|server| {
        let ca = server.ca.to_str().unwrap();
        let port = server.port;
        let url = |host: &str, parameters: &str| {
            format!("postgres://postgres:{}@{host}:{port}/postgres?{parameters}", server.password)
        };
        let trusted = format!("sslrootcert={ca}&sslmode");
        for (host, parameters, tls) in [
            ("localhost", "sslmode=disable".to_owned(), false),
            ("localhost", "sslmode=allow".to_owned(), false),
            ("localhost", "sslmode=prefer".to_owned(), true),
            ("localhost", String::new(), true),
            ("localhost", "sslmode=require".to_owned(), true),
            ("localhost", format!("{trusted}=verify-ca"), true),
            ("localhost", format!("{trusted}=verify-full"), true),
            ("127.0.0.1", format!("{trusted}=verify-full"), true),
            // Any host will do for verify-ca, and no certificate is looked at below.
            ("db.example.org", format!("hostaddr=127.0.0.1&{trusted}=verify-ca"), true),
            ("not_a_dns_name_", format!("hostaddr=127.0.0.1&{trusted}=verify-ca"), true),
            ("db.example.org", "hostaddr=127.0.0.1&sslmode=require".to_owned(), true),
            ("localhost", "sslmode=require&ssl_min_protocol_version=TLSv1.3".to_owned(), true),
            ("localhost", "sslmode=require&ssl_max_protocol_version=TLSv1.2".to_owned(), true),
            ("localhost", "sslmode=require&channel_binding=require".to_owned(), true),
            ("localhost", "sslmode=require&ssl_max_protocol_version=TLSv1.2&channel_binding=require".to_owned(), true),
            ("localhost", "sslmode=require&sslsni=0".to_owned(), true),
        ] {
            let mut session = connect(&url(host, &parameters));
            assert_eq!(has_tls(&mut session), tls, "{host} {parameters}");
        }
        let (_, told) = fails_in(
            &url("db.example.org", &format!("hostaddr=127.0.0.1&{trusted}=verify-full")),
            &around(),
            &[&server.password],
        );
        assert!(told.contains("for another host than 'db.example.org'"), "{told}");
        let (_, told) =
            fails_in(&url("localhost", "sslmode=disable&channel_binding=require"), &around(), &[&server.password]);
        assert!(told.contains("channel_binding=require needs TLS"), "{told}");
        if server.major >= 17 {
            assert!(has_tls(&mut connect(&url("localhost", "sslmode=require&sslnegotiation=direct"))));
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_root_certificate_in_its_usual_place_is_used() {
    let server = server(15);
    let sandbox = Sandbox::new();
    let home = Surroundings { home: Some(sandbox.root().to_owned()), ..around() };
    let url = |host: &str, mode: &str| {
        format!(
            "postgres://postgres:{}@{host}:{}/postgres?hostaddr=127.0.0.1&sslmode={mode}",
            server.password, server.port
        )
    };
    // None there: checking is impossible, and a mistake of the user's.
    for mode in ["verify-ca", "verify-full"] {
        let error = connect_in(&url("localhost", mode), &home).err().unwrap();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.message.contains(".postgresql/root.crt"), "{error}");
    }
    connect_in(&url("localhost", "require"), &home).map(drop).unwrap();
    fs::create_dir(sandbox.path(".postgresql")).unwrap();
    fs::copy(&server.ca, sandbox.path(".postgresql/root.crt")).unwrap();
    for (host, mode) in [("localhost", "verify-full"), ("other", "verify-ca"), ("other", "require")] {
        connect_in(&url(host, mode), &home).map(drop).unwrap();
    }
    // Another authority's: even require refuses then, as libpq does; prefer goes on without TLS.
    let other = Certificates::new(&sandbox, "other");
    fs::copy(&other.ca, sandbox.path(".postgresql/root.crt")).unwrap();
    for mode in ["verify-full", "verify-ca", "require"] {
        let (_, told) = fails_in(&url("localhost", mode), &home, &[&server.password]);
        assert!(told.contains("not from a root that is trusted"), "{told}");
    }
    assert!(!has_tls(&mut connect_in(&url("localhost", "prefer"), &home).unwrap()));
    // The system trusts none of ours.
    let (_, told) = fails_in(
        &format!("postgres://postgres:{SECRET}@localhost:{}/postgres?sslrootcert=system", server.port),
        &around(),
        &[],
    );
    assert!(told.contains("not from a root that is trusted"), "{told}");
    // What is no certificate, or not there.
    fs::write(sandbox.path("empty"), "").unwrap();
    for file in ["empty", "absent"] {
        let text = format!("{}&sslrootcert={}", url("localhost", "require"), sandbox.path(file).display());
        assert_eq!(connect_in(&text, &around()).err().unwrap().kind, Kind::Usage);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn certificates_that_openssl_accepts_are_accepted() {
    let server = server(15);
    let sandbox = Sandbox::new();
    let made = Certificates::new(&sandbox, "made");
    let connect_to = |front: &Front, parameters: &str| {
        let text = format!(
            "postgres://postgres:{}@db.example.org:{}/postgres?hostaddr=127.0.0.1&{parameters}",
            server.password, front.port
        );
        connect_in(&text, &around()).map(drop)
    };
    let with = |mode: &str, root: &Path| format!("sslmode={mode}&sslrootcert={}", root.display());
    // As in PostgreSQL's documentation: a common name and no subjectAltName.
    let (chain, key) = made.issue("common", "/CN=db.example.org", "basicConstraints=CA:FALSE", "30");
    let front = Front::new(&server, &chain, &key);
    connect_to(&front, &with("verify-full", &made.ca)).unwrap();
    // A subjectAltName outdoes it.
    let (chain, key) = made.issue("both", "/CN=db.example.org", "subjectAltName=DNS:other.example.org", "30");
    let front = Front::new(&server, &chain, &key);
    let error = connect_to(&front, &with("verify-full", &made.ca)).unwrap_err();
    assert!(error.hint.as_deref().unwrap().contains("another host"), "{error:?}");
    connect_to(&front, &with("verify-ca", &made.ca)).unwrap();
    // The server's own self-signed one, copied to its clients; it calls itself an authority.
    let (chain, key) = made.self_sign("own", "/CN=db.example.org");
    let front = Front::new(&server, &chain, &key);
    connect_to(&front, &with("verify-full", &chain)).unwrap();
    let error = connect_to(&front, &with("verify-full", &made.ca)).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    // One that has run out, from an authority and copied to its clients.
    let (chain, key) = made.issue("late", "/CN=db.example.org", "basicConstraints=CA:FALSE", "-1");
    let front = Front::new(&server, &chain, &key);
    for root in [&made.ca, &chain] {
        let error = connect_to(&front, &with("verify-ca", root)).unwrap_err();
        assert!(error.hint.as_deref().unwrap().contains("run out"), "{error:?}");
    }
    // Version 1: fine where nothing is checked, told where it cannot be.
    let (chain, key) = made.issue("first", "/CN=db.example.org", "", "30");
    let front = Front::new(&server, &chain, &key);
    connect_to(&front, "sslmode=require").unwrap();
    let error = connect_to(&front, &with("verify-full", &made.ca)).unwrap_err();
    assert!(error.hint.as_deref().unwrap().contains("version 3"), "{error:?} {:?}", error.hint);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn client_certificates_are_shown_to_servers_that_ask() {
    let server = server(15);
    let sandbox = Sandbox::new();
    let made = Certificates::new(&sandbox, "clients");
    let private = Private::start(&server, &["ssl = on"], &["hostssl all all all cert"]);
    private.keep(&made.ca, "clients.pem");
    private.psql("ALTER SYSTEM SET ssl_ca_file = 'clients.pem'");
    private.psql("SELECT pg_reload_conf()");
    let start = Instant::now();
    while private.value("SELECT current_setting('ssl_ca_file') AS value").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let (chain, key) = made.issue("postgres", "/CN=postgres", "basicConstraints=CA:FALSE", "30");
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", private.port);
    let full = format!("{url}&sslcert={}&sslkey={}", chain.display(), key.display());
    assert!(has_tls(&mut connect(&full)));
    fails(&url, &["certificate"]);
    let (chain, key) = made.issue("other", "/CN=somebody", "basicConstraints=CA:FALSE", "30");
    fails(
        &format!("{url}&sslcert={}&sslkey={}", chain.display(), key.display()),
        &["certificate authentication failed"],
    );
    // In their usual place.
    fs::create_dir(sandbox.path(".postgresql")).unwrap();
    fs::copy(sandbox.path("clients/postgres.pem"), sandbox.path(".postgresql/postgresql.crt")).unwrap();
    fs::copy(sandbox.path("clients/postgres.key"), sandbox.path(".postgresql/postgresql.key")).unwrap();
    let home = Surroundings { home: Some(sandbox.root().to_owned()), ..around() };
    connect_in(&url, &home).map(drop).unwrap();
    fs::set_permissions(sandbox.path(".postgresql/postgresql.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = connect_in(&url, &home).err().unwrap();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.message.contains("may be read by others"), "{error}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn tls_is_left_out_or_added_as_pg_hba_wants_it() {
    let server = server(15);
    let private = Private::start(
        &server,
        &["ssl = on"],
        &["hostnossl all plain all scram-sha-256", "hostssl all hidden all scram-sha-256", "host all shut all reject"],
    );
    private.psql(&format!(
        "CREATE ROLE plain LOGIN PASSWORD '{SECRET}'; CREATE ROLE hidden LOGIN PASSWORD '{SECRET}';
         CREATE ROLE shut LOGIN PASSWORD '{SECRET}'"
    ));
    let url = |user: &str, mode: &str| {
        format!("postgres://{user}:{SECRET}@127.0.0.1:{}/postgres?sslmode={mode}", private.port)
    };
    for (user, mode, tls) in [
        ("plain", "prefer", false),
        ("plain", "disable", false),
        ("plain", "allow", false),
        ("hidden", "prefer", true),
        ("hidden", "allow", true),
        ("hidden", "require", true),
    ] {
        assert_eq!(has_tls(&mut connect(&url(user, mode))), tls, "{user} {mode}");
    }
    fails(&url("plain", "require"), &["pg_hba.conf", "was not accepted"]);
    fails(&url("hidden", "disable"), &["pg_hba.conf", "no encryption", "sslmode=require"]);
    for mode in ["disable", "allow", "prefer", "require"] {
        fails(&url("shut", mode), &["pg_hba.conf"]);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_server_without_tls_is_named_as_one() {
    let server = server(15);
    let private = Private::start(&server, &[], &["host all all all trust"]);
    let url = |mode: &str| format!("postgres://postgres:{SECRET}@127.0.0.1:{}/postgres?sslmode={mode}", private.port);
    for mode in ["disable", "allow", "prefer"] {
        assert!(!has_tls(&mut connect(&url(mode))));
    }
    fails(&url("require"), &["has no TLS", "turn ssl on"]);
    fails(&format!("{}&sslrootcert={}", url("verify-full"), server.ca.display()), &["has no TLS"]);
}

// ---------------------------------------------------------------- failures

#[test]
#[ignore = "needs PostgreSQL"]
fn every_refusal_is_told_without_the_password() {
    each_server(|server| {
        let port = server.port;
        let role = Role::new(server, "refused");
        let user = &role.name;
        let database = server.create_database("refusing");
        database.psql(format!("REVOKE CONNECT ON DATABASE \"{}\" FROM public", database.name));
        let at = |user: &str, password: &str, database: &str| {
            format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
        };
        let place = format!("postgres://{user}@127.0.0.1:{port}/postgres");
        // Wrong passwords are secrets too: most are right, somewhere else.
        let (error, told) = fails_in(&at(user, "wr0ng-one", "postgres"), &around(), &["wr0ng-one"]);
        assert!(told.contains(&place) && told.contains("password authentication failed"), "{told}");
        assert!(told.contains("is from what was given"), "{told}");
        assert_eq!(sqlstate(&error).as_deref(), Some("28P01"));
        let (_, told) = fails_in(&place, &around().with("PGPASSWORD", "wr0ng-one"), &["wr0ng-one"]);
        assert!(told.contains("is from PGPASSWORD"), "{told}");
        fails(&place, &[&place, "asks for a password, and there is none", "PGPASSWORD"]);
        fails(&at(user, SECRET, "no%20such"), &["no%20such", "does not exist", "is the name 'no such' right"]);
        fails(&at(user, SECRET, &database.name), &["may not connect", "GRANT CONNECT"]);
        fails(&at("no_such_role", SECRET, "postgres"), &["no_such_role", "password authentication failed"]);
        // Without a password to be wrong, the server says what it is.
        let socket = format!("host={} port={port} user=no_such_role dbname=postgres", server.socket_dir.display());
        fails(&socket, &["role \"no_such_role\" does not exist", "CREATE ROLE"]);
        fails(&format!("{}?options=-c%20nonsense%3D1", at(user, SECRET, "postgres")), &["nonsense"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_server_that_is_not_there_is_told_without_the_password() {
    let closed = NOBODY;
    let url = |place: &str| format!("postgres://me:{SECRET}@{place}/app?connect_timeout=1");
    fails(
        &url(&format!("127.0.0.1:{closed}")),
        &[
            &format!("postgres://me@127.0.0.1:{closed}/app"),
            "refused",
            &format!("does it listen on port {closed} of 127.0.0.1"),
        ],
    );
    fails(&url("no-such-host.invalid"), &["cannot find the host", "postgres://me@no-such-host.invalid:5432/app"]);
    fails(&url("%2Fno%2Fsuch%2Ffolder"), &["there is no socket /no/such/folder/.s.PGSQL.5432", "No such file"]);
    // Of several hosts, each is told.
    fails(&url(&format!("no-such-host.invalid,127.0.0.1:{closed}")), &["cannot find the host", "refused"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_server_that_says_nothing_is_given_up() {
    let url = |port: u16, more: &str| format!("postgres://me:{SECRET}@127.0.0.1:{port}/app?connect_timeout=1{more}");
    // Accepted by the kernel, and never by anybody.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    for mode in ["disable", "prefer", "require"] {
        fails(&url(port, &format!("&sslmode={mode}")), &["no answer from", "within 1 s", "connect_timeout"]);
    }
    // One that agrees to TLS, and then is silent.
    let port = answer(b"S", false);
    fails(&url(port, "&sslmode=require"), &["no answer from"]);
    // One that hangs up; one that speaks something else.
    let port = answer(b"", true);
    fails(&url(port, "&sslmode=disable"), &["cannot connect to"]);
    fails(&url(port, "&sslmode=require"), &["cannot connect to"]);
    let port = answer(b"HTTP/1.1 400 Bad Request\r\n\r\n", true);
    fails(&url(port, "&sslmode=disable"), &["cannot connect to"]);
    fails(&url(port, "&sslmode=require"), &["has no TLS"]);
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// A port that gives everybody the same answer; then it hangs up, or is silent for ever.
fn answer(words: &'static [u8], hang_up: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(words);
            if !hang_up {
                kept.push(stream);
            }
        }
    });
    port
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_next_host_is_tried_where_one_is_away_and_not_where_one_says_no() {
    let server = server(15);
    let closed = NOBODY;
    let hosts = |first: &str, password: &str, more: &str| {
        format!("postgres://postgres:{password}@{first},127.0.0.1:{}/postgres?connect_timeout=2{more}", server.port)
    };
    let session = connect(&hosts(&format!("127.0.0.1:{closed},no-such-host.invalid:1"), &server.password, ""));
    assert_eq!(session.about().port, server.port);
    let (_, told) = fails_in(&hosts(&format!("localhost:{}", server.port), SECRET, ""), &around(), &[&server.password]);
    assert!(told.contains("@localhost:") && !told.contains("127.0.0.1"), "{told}");
    for sort in ["any", "read-write", "primary", "prefer-standby"] {
        let more = format!("&target_session_attrs={sort}&load_balance_hosts=random");
        drop(connect(&hosts(&format!("127.0.0.1:{closed}"), &server.password, &more)));
    }
    for (sort, told) in [("read-only", "is not read-only"), ("standby", "is not a standby")] {
        fails(&format!("{}?target_session_attrs={sort}", server.url("postgres")), &[told, "target_session_attrs"]);
    }
}

// ---------------------------------------------------------------- in a session

#[test]
#[ignore = "needs PostgreSQL"]
fn what_the_server_says_of_an_error_is_kept() {
    each_server(|server| {
        let database = server.create_database("errors");
        let mut session = connect(&database.url());
        session.execute("CREATE TABLE t (id int PRIMARY KEY)").unwrap();
        session.execute("INSERT INTO t VALUES (1)").unwrap();
        let error = session.execute("INSERT INTO t VALUES (1)").unwrap_err();
        assert_eq!((error.kind, sqlstate(&error).as_deref()), (Kind::Failed, Some("23505")));
        assert!(error.message.contains("t_pkey"), "{error}");
        assert!(error.causes().contains(&"detail: Key (id)=(1) already exists.".to_owned()), "{:?}", error.causes());
        let error = session.rows("SELECT no_such_function()").unwrap_err().context("cannot ask");
        assert!(error.causes().iter().any(|cause| cause.starts_with("hint: No function matches")), "{error:?}");
        assert_eq!(sqlstate(&error).as_deref(), Some("42883"));
        let lines = ["2\n", "x\n"].map(|line| Ok(Some(Bytes::from(line))));
        let mut lines = lines.into_iter();
        let error = session.copy_in("COPY t FROM STDIN", || lines.next().unwrap_or(Ok(None))).unwrap_err();
        assert!(error.causes().iter().any(|cause| cause.starts_with("context: COPY t, line 2")), "{error:?}");
        // A command that is no COPY.
        let error = session.copy_out("SELECT 1", Vec::new(), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{error:?}");
        assert_eq!(session.row("SELECT count(*) AS n FROM t").unwrap().number::<u32>("n").unwrap(), 1);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn notices_are_kept_for_whoever_asks() {
    let mut session = connect(&server(15).url("postgres"));
    session.execute("DO $$ BEGIN RAISE WARNING 'beware'; RAISE NOTICE 'by the way'; END $$").unwrap();
    assert_eq!(session.take_notices(), ["WARNING: beware", "NOTICE: by the way"]);
    assert!(session.take_notices().is_empty());
    session.execute("DO $$ BEGIN FOR i IN 1..1500 LOOP RAISE NOTICE 'number %', i; END LOOP; END $$").unwrap();
    let notices = session.take_notices();
    assert_eq!((notices.len(), notices[999].as_str()), (1000, "NOTICE: number 1500"));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_connection_that_the_server_ends_is_told_as_lost() {
    each_server(|server| {
        let end = |session: &Session| {
            server.psql("postgres", format!("SELECT pg_terminate_backend({})", session.pid()));
            // It is gone before anything else is asked of it.
            while server
                .value("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", session.pid()))
                != "0"
            {}
        };
        let mut idle = connect(&server.url("postgres"));
        end(&idle);
        let error = idle.execute("SELECT 1").unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
        assert!(error.whole().contains("terminating connection due to administrator command"), "{}", error.whole());
        assert!(error.whole().contains("postgres://postgres@127.0.0.1") && !error.whole().contains(&server.password));
        assert_eq!(sqlstate(&error).as_deref(), Some("57P01"));
        let mut busy = connect(&server.url("postgres"));
        let error = std::thread::scope(|scope| {
            let pid = busy.pid();
            let asked = scope.spawn(move || busy.execute("SELECT pg_sleep(60)").unwrap_err());
            wait_until_sleeping(server, pid);
            server.psql("postgres", format!("SELECT pg_terminate_backend({pid})"));
            asked.join().unwrap()
        });
        assert_eq!((error.kind, sqlstate(&error).as_deref()), (Kind::Unreachable, Some("57P01")), "{error:?}");
        // In a COPY, and by the session itself, whose answer is the end.
        let mut session = connect(&server.url("postgres"));
        let pid = session.pid();
        let mut count = 0;
        let error = session
            .copy_out(
                "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT",
                Vec::new(),
                |rows| {
                    rows.clear();
                    count += 1;
                    if count == 1 {
                        server.psql("postgres", format!("SELECT pg_terminate_backend({pid})"));
                    }
                    Ok(())
                },
            )
            .unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    });
}

/// Waits until a connection of that process runs `pg_sleep`.
fn wait_until_sleeping(server: &Server, pid: i32) {
    let query = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    let start = Instant::now();
    while server.value("postgres", &query) != "1" {
        assert!(start.elapsed() < Duration::from_secs(30), "{pid} does not sleep");
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_crash_of_the_server_is_told_as_lost() {
    let server = server(15);
    let private = Private::start(&server, &[], &["host all all all trust"]);
    let mut session = connect(&format!("postgres://postgres@127.0.0.1:{}/postgres", private.port));
    session.execute("SELECT 1").unwrap();
    drop(private);
    let error = session.execute("SELECT 1").unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn rows_go_out_and_in_by_copy() {
    each_server(|server| {
        let database = server.create_database("copying");
        let mut session = connect(&database.url());
        session.execute("CREATE TABLE t (id int, body text); CREATE TABLE u (LIKE t)").unwrap();
        session
            .execute("INSERT INTO t SELECT i, repeat('ä', i % 300) FROM generate_series(1, 5000) i; INSERT INTO t VALUES (0, repeat('z', 300000)), (NULL, E'a\\nb')")
            .unwrap();
        let mut taken: Vec<u8> = Vec::new();
        let (text, rows) = session.copy_out("COPY t TO STDOUT", Vec::new(), |_| Ok(())).unwrap();
        assert_eq!((rows, text.iter().filter(|byte| **byte == b'\n').count()), (5002, 5002));
        // Whoever takes some of it gets the rest as well; inside TLS as outside, and where TLS was asked for in vain.
        for mode in ["disable", "prefer", "require"] {
            let mut session = connect(&format!("{}?sslmode={mode}", database.url()));
            taken.clear();
            let (rest, rows) = session
                .copy_out("COPY t TO STDOUT", b"is emptied".to_vec(), |rows| {
                    taken.extend(rows.drain(..rows.len() / 2));
                    Ok(())
                })
                .unwrap();
            assert!(rows == 5002 && [&taken[..], &rest].concat() == text, "{mode}");
        }
        // In pieces that have nothing to do with rows: small, big, and one by one.
        for piece in [7, 4096, 100_000, text.len()] {
            let mut pieces = text.chunks(piece).map(Bytes::copy_from_slice);
            session.execute("TRUNCATE u").unwrap();
            assert_eq!(session.copy_in("COPY u FROM STDIN", || Ok(pieces.next())).unwrap(), 5002);
            let row = session.row("SELECT count(*) AS n FROM (SELECT * FROM t EXCEPT ALL SELECT * FROM u) d").unwrap();
            assert_eq!(row.text("n").unwrap(), "0", "{piece}");
        }
        assert_eq!(session.copy_in("COPY u FROM STDIN", || Ok(None)).unwrap(), 0);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_copy_that_is_given_up_leaves_the_session_usable() {
    let server = server(15);
    let database = server.create_database("giving_up");
    let mut session = connect(&database.url());
    session.execute("CREATE TABLE t (id int)").unwrap();
    let start = Instant::now();
    let mut seen = 0;
    // It would take minutes to the end.
    let error = session
        .copy_out("COPY (SELECT repeat('x', 1000), generate_series(1, 200000000)) TO STDOUT", Vec::new(), |rows| {
            rows.clear();
            seen += 1;
            if seen == 10 { Err(Error::problem("enough")) } else { Ok(()) }
        })
        .unwrap_err();
    assert_eq!((error.kind, error.message.as_str(), seen), (Kind::Problem, "enough", 10));
    assert!(start.elapsed() < Duration::from_secs(20));
    // None of what was still on its way is taken for rows of the next.
    let next = session.copy_out("COPY (VALUES (1), (2)) TO STDOUT", Vec::new(), |_| Ok(())).unwrap();
    assert_eq!(next, (b"1\n2\n".to_vec(), 2));
    let mut pieces = [Ok(Some(Bytes::from_static(b"1\n2\n"))), Err(Error::problem("source is gone"))].into_iter();
    let error = session.copy_in("COPY t FROM STDIN", || pieces.next().unwrap()).unwrap_err();
    assert_eq!(error.message, "source is gone");
    assert_eq!(session.row("SELECT count(*) AS n FROM t").unwrap().text("n").unwrap(), "0");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_error_in_the_middle_of_a_copy_is_told_as_the_server_says_it() {
    each_server(|server| {
        let mut session = connect(&server.url("postgres"));
        // Rows are on the way when it happens, whatever their number.
        for rows in [1, 5000, 500_000] {
            let copy = format!("COPY (SELECT 1 / ({rows} - g) FROM generate_series(1, {rows}) AS g) TO STDOUT");
            let error = session.copy_out(&copy, Vec::new(), |_| Ok(())).unwrap_err();
            assert_eq!(error.message, "division by zero", "{rows}: {error:?}");
            assert_eq!(sqlstate(&error).as_deref(), Some("22012"), "{rows}");
            let next = session.copy_out("COPY (VALUES (1)) TO STDOUT", Vec::new(), |_| Ok(())).unwrap();
            assert_eq!(next, (b"1\n".to_vec(), 1));
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn one_session_can_feed_another() {
    let server = server(15);
    let (from, to) = (server.create_database("from"), server.create_database("to"));
    let (mut source, mut target) = (connect(&from.url()), connect(&to.url()));
    target.execute("CREATE TABLE t (id int)").unwrap();
    source
        .copy_out("COPY (SELECT generate_series(1, 100)) TO STDOUT", Vec::new(), |rows| {
            let mut rows = Some(Bytes::from(std::mem::take(rows)));
            target.copy_in("COPY t FROM STDIN", || Ok(rows.take())).map(drop)
        })
        .unwrap();
    assert_eq!(target.row("SELECT sum(id) AS n FROM t").unwrap().text("n").unwrap(), "5050");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_session_says_goodbye() {
    let server = server(15);
    let private = Private::start(&server, &["log_disconnections = on"], &["host all all all trust"]);
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", private.port);
    let mut session = connect(&url);
    session.execute("BEGIN; SELECT 1").unwrap();
    let pid = session.pid();
    drop(session);
    let gone = format!("SELECT count(*) AS n FROM pg_stat_activity WHERE pid = {pid}");
    let mut other = connect(&url);
    let start = Instant::now();
    while other.row(&gone).unwrap().text("n").unwrap() != "0" {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let log = private.log();
    assert!(!log.contains("unexpected EOF"), "{log}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn ctrl_c_stops_the_query_in_the_server_too() {
    let server = server(15);
    for (what, mode) in [("query", "disable"), ("query", "require"), ("copy", "require")] {
        let name = format!("interrupt-{what}-{mode}-{}", std::process::id());
        let mut child = child_test(module_path!(), "child_is_interrupted")
            .env("INTERRUPTED_CHILD", what)
            .env("INTERRUPTED_URL", format!("{}?sslmode={mode}&application_name={name}", server.url("postgres")))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let running = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        let busy = format!("{running} AND state = 'active' AND query ~ 'generate_series|pg_sleep'");
        let start = Instant::now();
        while server.value("postgres", &busy) != "1" {
            assert!(start.elapsed() < Duration::from_secs(30), "{what} does not run");
            assert_eq!(child.try_wait().unwrap(), None, "{what} ended early");
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        let start = Instant::now();
        assert!(child.wait().unwrap().success(), "{what} {mode}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what} {mode} took {:?}", start.elapsed());
        while server.value("postgres", &running) != "0" {
            assert!(start.elapsed() < Duration::from_secs(5), "the server works on: {what} {mode}");
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn ctrl_c_ends_the_wait_for_a_server_that_says_nothing() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut child = child_test(module_path!(), "child_is_interrupted")
        .env("INTERRUPTED_CHILD", "connect")
        .env("INTERRUPTED_URL", format!("postgres://me@{}/?connect_timeout=60", silent.local_addr().unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stream, _) = silent.accept().unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    let start = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
#[ignore = "it is the other half of the tests of Ctrl-C"]
fn child_is_interrupted() {
    let Ok(what) = std::env::var("INTERRUPTED_CHILD") else { return };
    lifeboat::platform::interrupt::listen().unwrap();
    let url = std::env::var("INTERRUPTED_URL").unwrap();
    if what == "connect" {
        assert_eq!(connect_in(&url, &around()).err().unwrap().kind, Kind::Interrupted);
        return;
    }
    let mut session = connect(&url);
    let error = match what.as_str() {
        "copy" => {
            let endless = "COPY (SELECT generate_series(1, 2000000000)) TO STDOUT";
            let take = |rows: &mut Vec<u8>| {
                rows.clear();
                Ok(())
            };
            session.copy_out(endless, Vec::new(), take).unwrap_err()
        }
        _ => session.execute("SELECT pg_sleep(600)").unwrap_err(),
    };
    assert_eq!(error.kind, Kind::Interrupted);
}

// ---------------------------------------------------------------- what the tests bring along

/// A server of one's own, of the same version as another, for settings that others must not have.
struct Private {
    folder: PathBuf,
    like: Server,
    port: u16,
    process: Child,
}

impl Private {
    /// Starts one with lines of its own in postgresql.conf and pg_hba.conf. It has the other's certificate.
    fn start(like: &Server, settings: &[&str], entries: &[&str]) -> Self {
        let owner = fs::metadata(&like.data).unwrap();
        let shared = like.socket_dir.parent().unwrap();
        let port = Private::free_port();
        // Where scripts/servers finds it, should this process be killed.
        let folder = shared.join(format!("{}-private-{port}", like.major));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
        let data = folder.join("data");
        let copy = Command::new("cp").arg("-a").arg(Private::template(like, shared)).arg(&data).status().unwrap();
        assert!(copy.success());
        let mut conf = fs::read_to_string(data.join("postgresql.conf")).unwrap();
        conf += &format!(
            "\nport = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             ssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\nlc_messages = 'C'\n",
            folder.display()
        );
        conf += &settings.join("\n");
        fs::write(data.join("postgresql.conf"), conf).unwrap();
        fs::write(data.join("pg_hba.conf"), format!("local all all trust\n{}\n", entries.join("\n"))).unwrap();
        for name in ["server.pem", "server.key"] {
            fs::copy(like.data.join(name), data.join(name)).unwrap();
            std::os::unix::fs::chown(data.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let process = Private::spawn(like, &folder);
        let private = Private { folder, like: like.clone(), port, process };
        private.wait();
        private
    }

    /// A port below those that outgoing connections and the shared servers get.
    fn free_port() -> u16 {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = std::process::id().wrapping_mul(37).wrapping_add(COUNTER.fetch_add(1, Ordering::Relaxed));
            let port = u16::try_from(10_000 + number % 10_000).unwrap();
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    }

    /// A server's folder as initdb makes it; it takes seconds, so it is made once.
    fn template(like: &Server, shared: &Path) -> PathBuf {
        let owner = fs::metadata(&like.data).unwrap();
        let folder = shared.join(format!("{}-template", like.major));
        let lock = fs::File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let data = folder.join("data");
        if !data.exists() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
            let mut command = Private::command(like, "initdb", &folder);
            command.args(["--pgdata=half", "--username=postgres", "--auth=trust", "--no-sync"]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            fs::rename(folder.join("half"), &data).unwrap();
        }
        data
    }

    fn spawn(like: &Server, folder: &Path) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Private::command(like, "postgres", folder);
        command.arg("-D").arg(folder.join("data")).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// One of the server's programs, as the user of the servers.
    fn command(like: &Server, program: &str, folder: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let owner = fs::metadata(&like.data).unwrap();
        let mut command = Command::new(like.bin.join(program));
        command.current_dir(folder).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        if let Some(libraries) = &like.library_path {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command
    }

    fn wait(&self) {
        let url = format!("host={} port={} user=postgres dbname=postgres", self.folder.display(), self.port);
        let start = Instant::now();
        while let Err(error) = connect_in(&url, &around()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{}\n{}", error.whole(), self.log());
        }
    }

    fn psql(&self, script: &str) {
        let url = format!("host={} port={} user=postgres dbname=postgres", self.folder.display(), self.port);
        connect(&url).execute(script).unwrap();
    }

    /// The one value that a query gives in a new session.
    fn value(&self, query: &str) -> String {
        let url = format!("host={} port={} user=postgres dbname=postgres", self.folder.display(), self.port);
        connect(&url).row(query).unwrap().text("value").unwrap().to_owned()
    }

    /// Puts a file into the server's folder.
    fn keep(&self, file: &Path, name: &str) {
        let owner = fs::metadata(&self.like.data).unwrap();
        let target = self.folder.join("data").join(name);
        fs::copy(file, &target).unwrap();
        std::os::unix::fs::chown(&target, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // SIGQUIT is a server's way out without a checkpoint.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// An authority, and what it issues.
struct Certificates {
    folder: PathBuf,
    ca: PathBuf,
}

impl Certificates {
    fn new(sandbox: &Sandbox, name: &str) -> Self {
        let folder = sandbox.path(name);
        fs::create_dir(&folder).unwrap();
        let made = Certificates { ca: folder.join("ca.pem"), folder };
        made.self_sign("ca", "/CN=An authority");
        made
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

    /// A certificate that vouches for itself, and its key.
    fn self_sign(&self, name: &str, subject: &str) -> (PathBuf, PathBuf) {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        let mut arguments = vec!["req", "-x509", "-subj", subject, "-keyout", &key, "-out", &pem];
        arguments.extend(Certificates::CURVE);
        self.openssl(&arguments);
        (self.folder.join(pem), self.folder.join(key))
    }

    /// A certificate with an extension, or of version 1 without any, and its key.
    fn issue(&self, name: &str, subject: &str, extension: &str, days: &str) -> (PathBuf, PathBuf) {
        let (pem, key, csr) = (format!("{name}.pem"), format!("{name}.key"), format!("{name}.csr"));
        let mut arguments = vec!["req", "-subj", subject, "-keyout", &key, "-out", &csr];
        arguments.extend(Certificates::CURVE);
        self.openssl(&arguments);
        let mut arguments = vec!["x509", "-req", "-in", &csr, "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
        arguments.extend(["-days", days, "-out", &pem]);
        if !extension.is_empty() {
            fs::write(self.folder.join("extensions"), extension).unwrap();
            arguments.extend(["-extfile", "extensions"]);
        }
        self.openssl(&arguments);
        (self.folder.join(pem), self.folder.join(key))
    }
}

/// TLS with a certificate of one's choice, before a server that sees none of it.
struct Front {
    port: u16,
}

impl Front {
    fn new(server: &Server, chain: &Path, key: &Path) -> Self {
        let chain: Vec<_> = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let signing = provider.key_provider.load_private_key(key).unwrap();
        let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, signing));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, behind) = (listener.local_addr().unwrap().port(), server.port);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (acceptor, mut stream) = (acceptor.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    // The eight bytes that ask for TLS.
                    stream.read_exact(&mut [0; 8]).unwrap();
                    stream.write_all(b"S").unwrap();
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        stream.set_nonblocking(true).unwrap();
                        let inner = tokio::net::TcpStream::from_std(stream).unwrap();
                        let Ok(mut inner) = acceptor.accept(inner).await else { return };
                        let outer = TcpStream::connect(("127.0.0.1", behind)).unwrap();
                        outer.set_nonblocking(true).unwrap();
                        let mut outer = tokio::net::TcpStream::from_std(outer).unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                    });
                });
            }
        });
        Front { port }
    }
}
