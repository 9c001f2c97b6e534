//! Connections to PostgreSQL on real servers, which must behave as with libpq: connection strings, logins, failures.

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
use lifeboat::engine::postgres::wire::params::{Environment, Params};
use lifeboat::engine::postgres::wire::session::{Session, sqlstate};
use lifeboat::platform::error::{Error, Kind};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The password of the roles that tests create. It must not appear in any output.
const SECRET: &str = "gr8-s3cret-0f-mine";

/// A port on which no server listens.
const CLOSED_PORT: u16 = 1;

/// Returns the environment of a process without variables and without a home folder.
fn empty_environment() -> Environment {
    Environment { user: Some("nobody_at_all".to_owned()), ..Environment::default() }
}

fn connect_in(text: &str, env: &Environment) -> Result<Session, Error> {
    Session::connect(&Params::parse_in(text, env)?)
}

#[track_caller]
fn connect(text: &str) -> Session {
    let session = connect_in(text, &empty_environment());
    session.unwrap_or_else(|error| panic!("{}\nhint: {:?}", error.full_message(), error.hint))
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

/// Runs `work`, and returns its result and everything that it logged on this thread.
fn logged<T>(work: impl FnOnce() -> T) -> (T, String) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let result = tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    (result, text)
}

/// Connects, which must fail, and returns the error, and its causes and hint as text. Neither the error nor the log may
/// contain [`SECRET`] or one of `secrets`.
#[track_caller]
fn fails_in(text: &str, env: &Environment, secrets: &[&str]) -> (Error, String) {
    let (result, log) = logged(|| connect_in(text, env));
    let error = result.err().unwrap_or_else(|| panic!("connecting succeeded"));
    let hint = error.hint.clone().unwrap_or_default();
    let message = format!("{}\nhint: {hint}", error.full_message());
    let everything = format!("{message}\n{error:?}\n{error:#?}\n{log}");
    for secret in secrets.iter().chain([&SECRET]) {
        assert!(!everything.contains(secret), "the output contains a secret: {everything}");
    }
    assert_eq!(error.kind, Kind::Unreachable, "{message}");
    assert!(!hint.is_empty(), "no hint: {message}");
    (error, message)
}

/// Connects, which must fail with every part of `expected` in the message.
#[track_caller]
fn fails(text: &str, expected: &[&str]) {
    let (_, message) = fails_in(text, &empty_environment(), &[]);
    for part in expected {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
}

/// Returns true if the server reports that a session uses TLS.
fn has_tls(session: &mut Session) -> bool {
    let row = session.row("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").unwrap();
    row.flag("ssl").unwrap()
}

/// A new role with the password [`SECRET`], which is dropped with this value.
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

// ---------------------------------------------------------------- logging in

#[test]
#[ignore = "needs PostgreSQL"]
fn connecting_reports_the_server_and_the_session() {
    each_server(|server| {
        let params = Params::parse_in(&server.url("postgres"), &empty_environment()).unwrap();
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
    let home = || Environment { home: Some(sandbox.root().to_owned()), ..empty_environment() };
    let plain = format!("postgres://{user}@127.0.0.1:{port}/postgres");
    let logins = [
        (format!("postgres://{user}:{SECRET}@127.0.0.1:{port}/postgres"), empty_environment()),
        (format!("postgresql+psycopg2://{user}:{SECRET}@127.0.0.1:{port}/postgres"), empty_environment()),
        (format!("host=127.0.0.1 port={port} user={user} password='{SECRET}' dbname=postgres"), empty_environment()),
        (plain.clone(), empty_environment().with("PGPASSWORD", SECRET)),
        (plain.clone(), empty_environment().with("PGPASSFILE", passfile)),
        (format!("{plain}?passfile={passfile}"), empty_environment()),
        (plain.clone(), home()),
        ("service=mine".to_owned(), empty_environment().with("PGSERVICEFILE", services)),
        ("postgres://?service=mine".to_owned(), empty_environment().with("PGSERVICEFILE", services)),
        (String::new(), home().with("PGSERVICE", "mine")),
        (
            "postgres://".to_owned(),
            empty_environment()
                .with("PGHOST", "127.0.0.1")
                .with("PGPORT", &port.to_string())
                .with("PGUSER", user)
                .with("PGDATABASE", "postgres")
                .with("PGPASSWORD", SECRET),
        ),
        // Over a Unix socket, the server does not ask for a password.
        (format!("host={} port={port} user={user} dbname=postgres", server.socket_dir.display()), empty_environment()),
        (
            format!("port={port} user={user} dbname=postgres"),
            Environment { socket_folders: vec![server.socket_dir.clone()], ..empty_environment() },
        ),
    ];
    for (text, env) in logins {
        let (result, log) = logged(|| connect_in(&text, &env));
        let session = result.unwrap_or_else(|error| panic!("{text}: {}", error.full_message()));
        assert_eq!(&session.about().user, user, "{text}");
        assert!(!log.contains(SECRET), "{log}");
    }
    // As in libpq, a password file that other users can read is ignored, with a warning in the log.
    fs::set_permissions(passfile, fs::Permissions::from_mode(0o644)).unwrap();
    let ((_, message), log) = logged(|| fails_in(&plain, &empty_environment().with("PGPASSFILE", passfile), &[]));
    assert!(message.contains("requires a password, but none was given"), "{message}");
    drop(log);
    let ((), log) = logged(|| drop(connect_in(&plain, &empty_environment().with("PGPASSFILE", passfile))));
    assert!(log.contains("may be read by others") && log.contains("chmod 600"), "{log}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_shown_url_of_a_socket_can_be_used_to_connect() {
    let server = server(15);
    let session = connect(&server.socket_url("postgres"));
    assert_eq!(session.about().host, server.socket_dir.to_str().unwrap());
    let params = Params::parse_in(&server.socket_url("postgres"), &empty_environment()).unwrap();
    drop(connect(&params.shown()));
    // A connection over a socket has no TLS, even if the connection string requires it.
    let mut session = connect(&format!("{}?sslmode=verify-full&sslrootcert=/absent", server.socket_url("postgres")));
    assert!(!has_tls(&mut session));
}

#[test]
#[ignore = "needs PostgreSQL"]
fn cleartext_and_md5_passwords_are_supported() {
    let server = server(15);
    let custom = CustomServer::start(
        &server,
        &["password_encryption = md5"],
        &["host all plain all password", "host all old all md5"],
    );
    custom.psql(&format!("CREATE ROLE plain LOGIN PASSWORD '{SECRET}'; CREATE ROLE old LOGIN PASSWORD '{SECRET}';"));
    // Without TLS, a password is sent in clear only if the user allows it.
    for (user, more) in [("plain", "?require_auth=password"), ("old", "")] {
        drop(connect(&format!("postgres://{user}:{SECRET}@127.0.0.1:{}/postgres{more}", custom.port)));
        fails(&format!("postgres://{user}:{SECRET}x@127.0.0.1:{}/postgres{more}", custom.port), &["was not accepted"]);
    }
    for more in ["", "?sslmode=disable", "?sslmode=allow", "?require_auth=!md5"] {
        let url = format!("postgres://plain:{SECRET}@127.0.0.1:{}/postgres{more}", custom.port);
        fails(&url, &["asks for the password in clear text"]);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_password_in_clear_is_sent_over_tls() {
    let server = server(15);
    let custom = CustomServer::start(&server, &["ssl = on"], &["host all plain all password"]);
    custom.psql(&format!("CREATE ROLE plain LOGIN PASSWORD '{SECRET}'"));
    let url = |mode: &str| format!("postgres://plain:{SECRET}@127.0.0.1:{}/postgres?sslmode={mode}", custom.port);
    for mode in ["allow", "prefer", "require"] {
        assert!(has_tls(&mut connect(&url(mode))), "{mode}");
    }
    fails(&url("disable"), &["in clear text"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn require_auth_selects_the_methods_as_in_libpq() {
    let server = server(17);
    let custom = CustomServer::start(
        &server,
        &["password_encryption = md5"],
        &[
            "host all plain all password",
            "host all old all md5",
            "host all new all scram-sha-256",
            "host all open all trust",
        ],
    );
    custom.psql(&format!(
        "CREATE ROLE plain LOGIN PASSWORD '{SECRET}'; CREATE ROLE old LOGIN PASSWORD '{SECRET}';
         CREATE ROLE open LOGIN; SET password_encryption = 'scram-sha-256'; CREATE ROLE new LOGIN PASSWORD '{SECRET}';"
    ));
    let roles = [("plain", "password"), ("old", "md5"), ("new", "scram-sha-256"), ("open", "none")];
    for (require, accepted) in [
        ("password", &["password"][..]),
        ("md5", &["md5"]),
        ("scram-sha-256", &["scram-sha-256"]),
        ("none", &["none"]),
        ("md5,scram-sha-256,password", &["md5", "scram-sha-256", "password"]),
        ("!md5,!password", &["scram-sha-256", "none"]),
        ("!none,!password", &["md5", "scram-sha-256"]),
        ("gss,sspi", &[]),
    ] {
        for (role, method) in roles {
            let url = format!("postgres://{role}:{SECRET}@127.0.0.1:{}/postgres", custom.port);
            let env = empty_environment().with("PGREQUIREAUTH", require);
            if accepted.contains(&method) {
                drop(connect(&format!("{url}?require_auth={require}")));
                connect_in(&url, &env).unwrap();
            } else {
                fails(&format!("{url}?require_auth={require}"), &["which require_auth does not accept"]);
                fails_in(&url, &env, &[]);
            }
        }
    }
    // The text overrides the variable.
    let url = format!("postgres://old:{SECRET}@127.0.0.1:{}/postgres?require_auth=md5", custom.port);
    connect_in(&url, &empty_environment().with("PGREQUIREAUTH", "none")).unwrap();
    let error = connect_in(&url, &empty_environment().with("PGSSLNEGOTIATION", "directly")).err().unwrap();
    assert_eq!(error.kind, Kind::Usage, "{error:?}");
}

/// A server that refuses TLS, sends `words` in answer to the start of a login, and keeps everything that it receives.
fn lying_server(words: &'static [u8]) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut is_answered = false;
                while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                    kept.lock().unwrap().extend_from_slice(&buffer[..bytes]);
                    let is_tls_request = bytes == 8 && buffer[4..8] == 80_877_103u32.to_be_bytes();
                    let answer = if is_tls_request { &b"N"[..] } else { words };
                    if is_tls_request || !is_answered {
                        let _ = stream.write_all(answer);
                        is_answered |= !is_tls_request;
                    }
                }
            });
        }
    });
    (port, received)
}

#[test]
fn a_server_that_lies_gets_no_password_and_no_weaker_login() {
    const CLEAR: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
    const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";
    const DONE: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
    for (words, more, expected) in [
        (CLEAR, "", "in clear text"),
        (CLEAR, "&sslmode=disable", "in clear text"),
        (CLEAR, "&require_auth=scram-sha-256", "which require_auth does not accept"),
        (MD5, "&require_auth=scram-sha-256", "which require_auth does not accept"),
        (MD5, "&require_auth=!md5", "which require_auth does not accept"),
        (DONE, "&require_auth=scram-sha-256", "without authentication"),
        (DONE, "&require_auth=!none", "without authentication"),
        (DONE, "&channel_binding=require", "does not use channel binding"),
        (CLEAR, "&require_auth=password&channel_binding=require", "does not use channel binding"),
    ] {
        let (port, received) = lying_server(words);
        fails(&format!("postgres://me:{SECRET}@127.0.0.1:{port}/db?connect_timeout=5{more}"), &[expected]);
        let received = received.lock().unwrap().clone();
        // The first byte of a message with a password, or with an answer to a request, is 'p'.
        let contains = |part: &[u8]| received.windows(part.len()).any(|window| window == part);
        assert!(
            !contains(SECRET.as_bytes()) && !contains(b"p\0\0\0"),
            "{more}: {:?}",
            received.escape_ascii().to_string()
        );
    }
}

// ---------------------------------------------------------------- passwords in a config

#[test]
#[ignore = "needs PostgreSQL"]
fn passwords_with_special_characters_need_no_escapes_in_a_config() {
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
    // The password is in the .env file of an application. 'init' finds the file and writes a config that refers to it.
    let env = format!(
        "TDX_DB_HOST=127.0.0.1\nTDX_DB_PORT={}\nTDX_DB_NAME={}\nTDX_DB_USER={}\nTDX_DB_PASSWORD='{password}'\n",
        server.port, database.name, role.name
    );
    fs::write(sandbox.path(".env"), &env).unwrap();
    let init = run(&["init"], &[]).code(0);
    let saved = run(&["snapshot", "-vv", "--json"], &[]).code(0);
    assert_eq!(saved.json()["snapshots"][0]["rows"], 2, "{}", saved.transcript());
    let text = fs::read_to_string(sandbox.path("lifeboat.toml")).unwrap();
    for output in [init.stdout(), init.stderr(), saved.stdout(), saved.stderr(), text] {
        assert!(!output.contains(password) && !output.contains("w/rd"), "{output}");
    }
    // A variable of the process has priority over the file. This one is wrong, and must not be printed.
    let wrong = run(&["snapshot", "-vv"], &[("TDX_DB_PASSWORD", SECRET)]).code(5);
    assert!(!wrong.stderr().contains(SECRET), "{}", wrong.transcript());
    // The password is a config key, is in a password file, or is in PostgreSQL's own variables in a file.
    fs::write(sandbox.path("password"), format!("{password}\n")).unwrap();
    fs::write(sandbox.path("pg"), format!("PGPASSWORD=\"p@ss:w/rd#1 \\$x\"\nPGUSER={}\n", role.name)).unwrap();
    let config_keys = format!("host = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\n", server.port, database.name);
    let user = format!("user = \"{}\"\n", role.name);
    let url = format!("url = \"postgresql+asyncpg://127.0.0.1:{}/{}\"\n", server.port, database.name);
    for (number, (head, keys)) in [
        ("", format!("{config_keys}{user}password = \"{password}\"\n")),
        ("", format!("{config_keys}{user}password = \"${{PASSWORD}}\"\n")),
        ("", format!("{config_keys}{user}password_file = \"password\"\n")),
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
fn each_sslmode_checks_the_certificate_as_libpq_does() {
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
            // verify-ca does not check the host, and the modes below do not check the certificate at all.
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
        let (_, message) = fails_in(
            &url("db.example.org", &format!("hostaddr=127.0.0.1&{trusted}=verify-full")),
            &empty_environment(),
            &[&server.password],
        );
        assert!(message.contains("not for the host 'db.example.org'"), "{message}");
        let (_, message) = fails_in(
            &url("localhost", "sslmode=disable&channel_binding=require"),
            &empty_environment(),
            &[&server.password],
        );
        assert!(message.contains("channel_binding=require needs TLS"), "{message}");
        if server.major >= 17 {
            assert!(has_tls(&mut connect(&url("localhost", "sslmode=require&sslnegotiation=direct"))));
        }
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_root_certificate_in_the_home_folder_is_used() {
    let server = server(15);
    let sandbox = Sandbox::new();
    let home = Environment { home: Some(sandbox.root().to_owned()), ..empty_environment() };
    let url = |host: &str, mode: &str| {
        format!(
            "postgres://postgres:{}@{host}:{}/postgres?hostaddr=127.0.0.1&sslmode={mode}",
            server.password, server.port
        )
    };
    // The file does not exist: the certificate cannot be checked, which is an error in the user's settings.
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
    // The file is the certificate of another authority: even require fails, as in libpq; prefer connects without TLS.
    let other = Certificates::new(&sandbox, "other");
    fs::copy(&other.ca, sandbox.path(".postgresql/root.crt")).unwrap();
    for mode in ["verify-full", "verify-ca", "require"] {
        let (_, message) = fails_in(&url("localhost", mode), &home, &[&server.password]);
        assert!(message.contains("not issued by a trusted root"), "{message}");
    }
    assert!(!has_tls(&mut connect_in(&url("localhost", "prefer"), &home).unwrap()));
    // The system does not trust the authority of the test servers.
    let (_, message) = fails_in(
        &format!("postgres://postgres:{SECRET}@localhost:{}/postgres?sslrootcert=system", server.port),
        &empty_environment(),
        &[],
    );
    assert!(message.contains("not issued by a trusted root"), "{message}");
    // The file is not a certificate, or does not exist.
    fs::write(sandbox.path("empty"), "").unwrap();
    for file in ["empty", "absent"] {
        let text = format!("{}&sslrootcert={}", url("localhost", "require"), sandbox.path(file).display());
        assert_eq!(connect_in(&text, &empty_environment()).err().unwrap().kind, Kind::Usage);
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn certificates_that_openssl_accepts_are_accepted() {
    let server = server(15);
    let sandbox = Sandbox::new();
    let authority = Certificates::new(&sandbox, "made");
    let connect_to = |front: &TlsProxy, parameters: &str| {
        let text = format!(
            "postgres://postgres:{}@db.example.org:{}/postgres?hostaddr=127.0.0.1&{parameters}",
            server.password, front.port
        );
        connect_in(&text, &empty_environment()).map(drop)
    };
    let with = |mode: &str, root: &Path| format!("sslmode={mode}&sslrootcert={}", root.display());
    // The certificate of PostgreSQL's documentation has a common name and no subjectAltName.
    let (chain, key) = authority.issue("common", "/CN=db.example.org", "basicConstraints=CA:FALSE", "30");
    let front = TlsProxy::new(&server, &chain, &key);
    connect_to(&front, &with("verify-full", &authority.ca)).unwrap();
    // If there is a subjectAltName, the common name is ignored.
    let (chain, key) = authority.issue("both", "/CN=db.example.org", "subjectAltName=DNS:other.example.org", "30");
    let front = TlsProxy::new(&server, &chain, &key);
    let error = connect_to(&front, &with("verify-full", &authority.ca)).unwrap_err();
    assert!(error.hint.as_deref().unwrap().contains("not for the host"), "{error:?}");
    connect_to(&front, &with("verify-ca", &authority.ca)).unwrap();
    // A self-signed certificate, marked as an authority, which the client has as its root certificate.
    let (chain, key) = authority.self_sign("own", "/CN=db.example.org");
    let front = TlsProxy::new(&server, &chain, &key);
    connect_to(&front, &with("verify-full", &chain)).unwrap();
    let error = connect_to(&front, &with("verify-full", &authority.ca)).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable);
    // An expired certificate, whose root is the authority, or the certificate itself.
    let (chain, key) = authority.issue("late", "/CN=db.example.org", "basicConstraints=CA:FALSE", "-1");
    let front = TlsProxy::new(&server, &chain, &key);
    for root in [&authority.ca, &chain] {
        let error = connect_to(&front, &with("verify-ca", root)).unwrap_err();
        assert!(error.hint.as_deref().unwrap().contains("has expired"), "{error:?}");
    }
    // A certificate of version 1 is accepted without a check. A check is not possible, and the hint says so.
    let (chain, key) = authority.issue("first", "/CN=db.example.org", "", "30");
    let front = TlsProxy::new(&server, &chain, &key);
    connect_to(&front, "sslmode=require").unwrap();
    let error = connect_to(&front, &with("verify-full", &authority.ca)).unwrap_err();
    assert!(error.hint.as_deref().unwrap().contains("version 3"), "{error:?} {:?}", error.hint);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn client_certificates_are_sent_to_servers_that_request_them() {
    let server = server(15);
    let sandbox = Sandbox::new();
    let authority = Certificates::new(&sandbox, "clients");
    let custom = CustomServer::start(&server, &["ssl = on"], &["hostssl all all all cert"]);
    custom.copy_to_data_folder(&authority.ca, "clients.pem");
    custom.psql("ALTER SYSTEM SET ssl_ca_file = 'clients.pem'");
    custom.psql("SELECT pg_reload_conf()");
    let start = Instant::now();
    while custom.value("SELECT current_setting('ssl_ca_file') AS value").is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let (chain, key) = authority.issue("postgres", "/CN=postgres", "basicConstraints=CA:FALSE", "30");
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", custom.port);
    let full = format!("{url}&sslcert={}&sslkey={}", chain.display(), key.display());
    assert!(has_tls(&mut connect(&full)));
    fails(&url, &["certificate"]);
    let (chain, key) = authority.issue("other", "/CN=somebody", "basicConstraints=CA:FALSE", "30");
    fails(
        &format!("{url}&sslcert={}&sslkey={}", chain.display(), key.display()),
        &["certificate authentication failed"],
    );
    // The certificate and the key are in ~/.postgresql, where libpq looks for them.
    fs::create_dir(sandbox.path(".postgresql")).unwrap();
    fs::copy(sandbox.path("clients/postgres.pem"), sandbox.path(".postgresql/postgresql.crt")).unwrap();
    fs::copy(sandbox.path("clients/postgres.key"), sandbox.path(".postgresql/postgresql.key")).unwrap();
    let home = Environment { home: Some(sandbox.root().to_owned()), ..empty_environment() };
    connect_in(&url, &home).map(drop).unwrap();
    fs::set_permissions(sandbox.path(".postgresql/postgresql.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = connect_in(&url, &home).err().unwrap();
    assert_eq!(error.kind, Kind::Usage);
    assert!(error.message.contains("may be read by others"), "{error}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn tls_is_used_as_pg_hba_conf_requires() {
    let server = server(15);
    let custom = CustomServer::start(
        &server,
        &["ssl = on"],
        &["hostnossl all plain all scram-sha-256", "hostssl all hidden all scram-sha-256", "host all shut all reject"],
    );
    custom.psql(&format!(
        "CREATE ROLE plain LOGIN PASSWORD '{SECRET}'; CREATE ROLE hidden LOGIN PASSWORD '{SECRET}';
         CREATE ROLE shut LOGIN PASSWORD '{SECRET}'"
    ));
    let url = |user: &str, mode: &str| {
        format!("postgres://{user}:{SECRET}@127.0.0.1:{}/postgres?sslmode={mode}", custom.port)
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
fn requiring_tls_fails_on_a_server_without_tls() {
    let server = server(15);
    let custom = CustomServer::start(&server, &[], &["host all all all trust"]);
    let url = |mode: &str| format!("postgres://postgres:{SECRET}@127.0.0.1:{}/postgres?sslmode={mode}", custom.port);
    for mode in ["disable", "allow", "prefer"] {
        assert!(!has_tls(&mut connect(&url(mode))));
    }
    fails(&url("require"), &["does not support TLS", "turn ssl on"]);
    fails(&format!("{}&sslrootcert={}", url("verify-full"), server.ca.display()), &["does not support TLS"]);
}

// ---------------------------------------------------------------- failures

#[test]
#[ignore = "needs PostgreSQL"]
fn a_refused_login_is_explained_without_the_password() {
    each_server(|server| {
        let port = server.port;
        let role = Role::new(server, "refused");
        let user = &role.name;
        let database = server.create_database("refusing");
        database.psql(format!("REVOKE CONNECT ON DATABASE \"{}\" FROM public", database.name));
        let at = |user: &str, password: &str, database: &str| {
            format!("postgres://{user}:{password}@127.0.0.1:{port}/{database}")
        };
        let shown_url = format!("postgres://{user}@127.0.0.1:{port}/postgres");
        // A wrong password is a secret too, because it is often valid for something else.
        let (error, message) = fails_in(&at(user, "wr0ng-one", "postgres"), &empty_environment(), &["wr0ng-one"]);
        assert!(message.contains(&shown_url) && message.contains("password authentication failed"), "{message}");
        assert!(message.contains("is from the connection string"), "{message}");
        assert_eq!(sqlstate(&error).as_deref(), Some("28P01"));
        let (_, message) = fails_in(&shown_url, &empty_environment().with("PGPASSWORD", "wr0ng-one"), &["wr0ng-one"]);
        assert!(message.contains("is from PGPASSWORD"), "{message}");
        fails(&shown_url, &[&shown_url, "requires a password, but none was given", "PGPASSWORD"]);
        fails(&at(user, SECRET, "no%20such"), &["no%20such", "does not exist", "check the name 'no such'"]);
        fails(&at(user, SECRET, &database.name), &["may not connect", "GRANT CONNECT"]);
        fails(&at("no_such_role", SECRET, "postgres"), &["no_such_role", "password authentication failed"]);
        // Over a socket no password is checked, so the server says that the role does not exist.
        let socket = format!("host={} port={port} user=no_such_role dbname=postgres", server.socket_dir.display());
        fails(&socket, &["role \"no_such_role\" does not exist", "CREATE ROLE"]);
        fails(&format!("{}?options=-c%20nonsense%3D1", at(user, SECRET, "postgres")), &["nonsense"]);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_unreachable_server_is_reported_without_the_password() {
    let closed_port = CLOSED_PORT;
    let url = |address: &str| format!("postgres://me:{SECRET}@{address}/app?connect_timeout=1");
    fails(
        &url(&format!("127.0.0.1:{closed_port}")),
        &[
            &format!("postgres://me@127.0.0.1:{closed_port}/app"),
            "refused",
            &format!("listens on port {closed_port} of 127.0.0.1"),
        ],
    );
    fails(&url("no-such-host.invalid"), &["cannot find the host", "postgres://me@no-such-host.invalid:5432/app"]);
    fails(&url("%2Fno%2Fsuch%2Ffolder"), &["the socket /no/such/folder/.s.PGSQL.5432 does not exist", "No such file"]);
    // If there are several hosts, the error names the failure of each.
    fails(&url(&format!("no-such-host.invalid,127.0.0.1:{closed_port}")), &["cannot find the host", "refused"]);
}

#[test]
#[ignore = "needs PostgreSQL"]
fn connecting_fails_if_the_server_does_not_answer_in_time() {
    let url = |port: u16, more: &str| format!("postgres://me:{SECRET}@127.0.0.1:{port}/app?connect_timeout=1{more}");
    // The kernel accepts connections to this port, and nothing ever reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    for mode in ["disable", "prefer", "require"] {
        fails(&url(port, &format!("&sslmode={mode}")), &["no answer from", "within 1 s", "connect_timeout"]);
    }
    // A server that agrees to TLS and then does not answer.
    let port = port_that_answers(b"S", false);
    fails(&url(port, "&sslmode=require"), &["no answer from"]);
    // A server that closes the connection, and a server of another protocol.
    let port = port_that_answers(b"", true);
    fails(&url(port, "&sslmode=disable"), &["cannot connect to"]);
    fails(&url(port, "&sslmode=require"), &["cannot connect to"]);
    let port = port_that_answers(b"HTTP/1.1 400 Bad Request\r\n\r\n", true);
    fails(&url(port, "&sslmode=disable"), &["cannot connect to"]);
    fails(&url(port, "&sslmode=require"), &["does not support TLS"]);
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// Returns a port that gives every client the same answer. After that, it closes the connection or remains silent.
fn port_that_answers(words: &'static [u8], hang_up: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(words);
            if !hang_up {
                connections.push(stream);
            }
        }
    });
    port
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_next_host_is_tried_after_an_unreachable_one_but_not_after_a_refused_password() {
    let server = server(15);
    let closed_port = CLOSED_PORT;
    let hosts = |first: &str, password: &str, more: &str| {
        format!("postgres://postgres:{password}@{first},127.0.0.1:{}/postgres?connect_timeout=2{more}", server.port)
    };
    let session = connect(&hosts(&format!("127.0.0.1:{closed_port},no-such-host.invalid:1"), &server.password, ""));
    assert_eq!(session.about().port, server.port);
    let refusing = hosts(&format!("localhost:{}", server.port), SECRET, "");
    let (_, message) = fails_in(&refusing, &empty_environment(), &[&server.password]);
    assert!(message.contains("@localhost:") && !message.contains("127.0.0.1"), "{message}");
    for sort in ["any", "read-write", "primary", "prefer-standby"] {
        let more = format!("&target_session_attrs={sort}&load_balance_hosts=random");
        drop(connect(&hosts(&format!("127.0.0.1:{closed_port}"), &server.password, &more)));
    }
    for (sort, reason) in [("read-only", "is not read-only"), ("standby", "is not a standby")] {
        fails(&format!("{}?target_session_attrs={sort}", server.url("postgres")), &[reason, "target_session_attrs"]);
    }
}

// ---------------------------------------------------------------- sessions

#[test]
#[ignore = "needs PostgreSQL"]
fn an_error_keeps_the_detail_hint_and_context_from_the_server() {
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
        // A statement other than COPY is an error, and the session remains usable.
        let error = session.copy_out("SELECT 1", Vec::new(), |_| Ok(())).unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{error:?}");
        assert_eq!(session.row("SELECT count(*) AS n FROM t").unwrap().number::<u32>("n").unwrap(), 1);
    });
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_session_keeps_the_last_thousand_notices() {
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
fn a_connection_that_the_server_ends_is_reported_as_lost() {
    each_server(|server| {
        let end = |session: &Session| {
            server.psql("postgres", format!("SELECT pg_terminate_backend({})", session.pid()));
            // The next statement must find the connection closed, so this waits until the server process has ended.
            while server
                .value("postgres", &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", session.pid()))
                != "0"
            {}
        };
        let mut idle = connect(&server.url("postgres"));
        end(&idle);
        let error = idle.execute("SELECT 1").unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
        let message = error.full_message();
        assert!(message.contains("terminating connection due to administrator command"), "{message}");
        assert!(message.contains("postgres://postgres@127.0.0.1") && !message.contains(&server.password));
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
        // The connection is ended in the middle of a COPY.
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

/// Waits until the server process `pid` runs `pg_sleep`.
fn wait_until_sleeping(server: &Server, pid: i32) {
    let query = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    let start = Instant::now();
    while server.value("postgres", &query) != "1" {
        assert!(start.elapsed() < Duration::from_secs(30), "{pid} does not sleep");
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_crash_of_the_server_is_reported_as_a_lost_connection() {
    let server = server(15);
    let custom = CustomServer::start(&server, &[], &["host all all all trust"]);
    let mut session = connect(&format!("postgres://postgres@127.0.0.1:{}/postgres", custom.port));
    session.execute("SELECT 1").unwrap();
    drop(custom);
    let error = session.execute("SELECT 1").unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn copy_reads_and_writes_rows_in_pieces_of_any_size() {
    each_server(|server| {
        let database = server.create_database("copying");
        let mut session = connect(&database.url());
        session.execute("CREATE TABLE t (id int, body text); CREATE TABLE u (LIKE t)").unwrap();
        session
            .execute("INSERT INTO t SELECT i, repeat('ä', i % 300) FROM generate_series(1, 5000) i; INSERT INTO t VALUES (0, repeat('z', 300000)), (NULL, E'a\\nb')")
            .unwrap();
        let mut received: Vec<u8> = Vec::new();
        let (text, rows) = session.copy_out("COPY t TO STDOUT", Vec::new(), |_| Ok(())).unwrap();
        assert_eq!((rows, text.iter().filter(|byte| **byte == b'\n').count()), (5002, 5002));
        // A reader may take only a part of the buffer each time; the rest is returned at the end. This works with and
        // without TLS.
        for mode in ["disable", "prefer", "require"] {
            let mut session = connect(&format!("{}?sslmode={mode}", database.url()));
            received.clear();
            let (rest, rows) = session
                .copy_out("COPY t TO STDOUT", b"is emptied".to_vec(), |rows| {
                    received.extend(rows.drain(..rows.len() / 2));
                    Ok(())
                })
                .unwrap();
            assert!(rows == 5002 && [&received[..], &rest].concat() == text, "{mode}");
        }
        // The pieces that are sent need not end at the end of a row.
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
fn an_abandoned_copy_leaves_the_session_usable() {
    let server = server(15);
    let database = server.create_database("giving_up");
    let mut session = connect(&database.url());
    session.execute("CREATE TABLE t (id int)").unwrap();
    let start = Instant::now();
    let mut calls = 0;
    // The whole COPY would take minutes.
    let error = session
        .copy_out("COPY (SELECT repeat('x', 1000), generate_series(1, 200000000)) TO STDOUT", Vec::new(), |rows| {
            rows.clear();
            calls += 1;
            if calls == 10 { Err(Error::problem("enough")) } else { Ok(()) }
        })
        .unwrap_err();
    assert_eq!((error.kind, error.message.as_str(), calls), (Kind::Problem, "enough", 10));
    assert!(start.elapsed() < Duration::from_secs(20));
    // Rows of the abandoned COPY that arrive later are not taken for rows of the next one.
    let next = session.copy_out("COPY (VALUES (1), (2)) TO STDOUT", Vec::new(), |_| Ok(())).unwrap();
    assert_eq!(next, (b"1\n2\n".to_vec(), 2));
    let mut pieces = [Ok(Some(Bytes::from_static(b"1\n2\n"))), Err(Error::problem("source is gone"))].into_iter();
    let error = session.copy_in("COPY t FROM STDIN", || pieces.next().unwrap()).unwrap_err();
    assert_eq!(error.message, "source is gone");
    assert_eq!(session.row("SELECT count(*) AS n FROM t").unwrap().text("n").unwrap(), "0");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn an_error_in_the_middle_of_a_copy_has_the_message_of_the_server() {
    each_server(|server| {
        let mut session = connect(&server.url("postgres"));
        // The error occurs at the last row, after any number of rows was sent.
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
fn rows_can_be_copied_from_one_session_to_another() {
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
fn a_dropped_session_closes_its_connection_cleanly() {
    let server = server(15);
    let custom = CustomServer::start(&server, &["log_disconnections = on"], &["host all all all trust"]);
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", custom.port);
    let mut session = connect(&url);
    session.execute("BEGIN; SELECT 1").unwrap();
    let pid = session.pid();
    drop(session);
    let query = format!("SELECT count(*) AS n FROM pg_stat_activity WHERE pid = {pid}");
    let mut other = connect(&url);
    let start = Instant::now();
    while other.row(&query).unwrap().text("n").unwrap() != "0" {
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let log = custom.log();
    assert!(!log.contains("unexpected EOF"), "{log}");
}

#[test]
#[ignore = "needs PostgreSQL"]
fn ctrl_c_also_cancels_the_query_on_the_server() {
    let server = server(15);
    for (action, mode) in [("query", "disable"), ("query", "require"), ("copy", "require")] {
        let name = format!("interrupt-{action}-{mode}-{}", std::process::id());
        let mut child = child_test(module_path!(), "child_is_interrupted")
            .env("INTERRUPTED_CHILD", action)
            .env("INTERRUPTED_URL", format!("{}?sslmode={mode}&application_name={name}", server.url("postgres")))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let running = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        let busy = format!("{running} AND state = 'active' AND query ~ 'generate_series|pg_sleep'");
        let start = Instant::now();
        while server.value("postgres", &busy) != "1" {
            assert!(start.elapsed() < Duration::from_secs(30), "the {action} does not run");
            assert_eq!(child.try_wait().unwrap(), None, "the {action} ended early");
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
        let start = Instant::now();
        assert!(child.wait().unwrap().success(), "{action} {mode}");
        assert!(start.elapsed() < Duration::from_secs(5), "{action} {mode} took {:?}", start.elapsed());
        while server.value("postgres", &running) != "0" {
            assert!(start.elapsed() < Duration::from_secs(5), "the server still runs the {action} (sslmode={mode})");
        }
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn ctrl_c_ends_the_wait_for_a_server_that_does_not_answer() {
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
    // The tests above start this in a process of its own, because the signal must reach only that process.
    let Ok(action) = std::env::var("INTERRUPTED_CHILD") else { return };
    lifeboat::platform::interrupt::listen().unwrap();
    let url = std::env::var("INTERRUPTED_URL").unwrap();
    if action == "connect" {
        assert_eq!(connect_in(&url, &empty_environment()).err().unwrap().kind, Kind::Interrupted);
        return;
    }
    let mut session = connect(&url);
    let error = match action.as_str() {
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

// ---------------------------------------------------------------- helpers

/// A server for one test, of the same version as a shared server, with settings that the shared server must not have.
struct CustomServer {
    folder: PathBuf,
    base: Server,
    port: u16,
    process: Child,
}

impl CustomServer {
    /// Starts a server with these lines in postgresql.conf and pg_hba.conf, and with the certificate of `base`.
    fn start(base: &Server, settings: &[&str], entries: &[&str]) -> Self {
        let owner = fs::metadata(&base.data).unwrap();
        let shared = base.socket_dir.parent().unwrap();
        let port = CustomServer::free_port();
        // scripts/servers removes what is in this folder, also if this process is killed.
        let folder = shared.join(format!("{}-private-{port}", base.major));
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
        let data = folder.join("data");
        let copy = Command::new("cp").arg("-a").arg(CustomServer::template(base, shared)).arg(&data).status().unwrap();
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
            fs::copy(base.data.join(name), data.join(name)).unwrap();
            std::os::unix::fs::chown(data.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        }
        let process = CustomServer::spawn(base, &folder);
        let custom = CustomServer { folder, base: base.clone(), port, process };
        custom.wait_until_ready();
        custom
    }

    /// Returns a free port below the range of outgoing connections and of the shared servers.
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

    /// Returns a data folder as initdb creates it. All tests share it, because initdb takes seconds.
    fn template(base: &Server, shared: &Path) -> PathBuf {
        let owner = fs::metadata(&base.data).unwrap();
        let folder = shared.join(format!("{}-template", base.major));
        let lock = fs::File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let data = folder.join("data");
        if !data.exists() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).unwrap();
            std::os::unix::fs::chown(&folder, Some(owner.uid()), Some(owner.gid())).unwrap();
            let mut command = CustomServer::command(base, "initdb", &folder);
            command.args(["--pgdata=half", "--username=postgres", "--auth=trust", "--no-sync"]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            fs::rename(folder.join("half"), &data).unwrap();
        }
        data
    }

    fn spawn(base: &Server, folder: &Path) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = CustomServer::command(base, "postgres", folder);
        command.arg("-D").arg(folder.join("data")).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Returns a command for one of the server's programs, to run as the user of the servers.
    fn command(base: &Server, program: &str, folder: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let owner = fs::metadata(&base.data).unwrap();
        let mut command = Command::new(base.bin.join(program));
        command.current_dir(folder).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin");
        if let Some(libraries) = &base.library_path {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        if rustix::process::geteuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command
    }

    fn wait_until_ready(&self) {
        let url = format!("host={} port={} user=postgres dbname=postgres", self.folder.display(), self.port);
        let start = Instant::now();
        while let Err(error) = connect_in(&url, &empty_environment()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{}\n{}", error.full_message(), self.log());
        }
    }

    fn psql(&self, script: &str) {
        let url = format!("host={} port={} user=postgres dbname=postgres", self.folder.display(), self.port);
        connect(&url).execute(script).unwrap();
    }

    /// Returns the column `value` of the row that a query returns, in a new session.
    fn value(&self, query: &str) -> String {
        let url = format!("host={} port={} user=postgres dbname=postgres", self.folder.display(), self.port);
        connect(&url).row(query).unwrap().text("value").unwrap().to_owned()
    }

    /// Copies a file into the data folder of the server.
    fn copy_to_data_folder(&self, file: &Path, name: &str) {
        let owner = fs::metadata(&self.base.data).unwrap();
        let target = self.folder.join("data").join(name);
        fs::copy(file, &target).unwrap();
        std::os::unix::fs::chown(&target, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }
}

impl Drop for CustomServer {
    fn drop(&mut self) {
        // On SIGQUIT, the server exits at once, without a checkpoint.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A certificate authority, and the folder of the certificates that it issues.
struct Certificates {
    folder: PathBuf,
    ca: PathBuf,
}

impl Certificates {
    fn new(sandbox: &Sandbox, name: &str) -> Self {
        let folder = sandbox.path(name);
        fs::create_dir(&folder).unwrap();
        let authority = Certificates { ca: folder.join("ca.pem"), folder };
        authority.self_sign("ca", "/CN=An authority");
        authority
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl").args(arguments).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    const CURVE: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

    /// Creates a self-signed certificate, and returns the paths of the certificate and its key.
    fn self_sign(&self, name: &str, subject: &str) -> (PathBuf, PathBuf) {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        let mut arguments = vec!["req", "-x509", "-subj", subject, "-keyout", &key, "-out", &pem];
        arguments.extend(Certificates::CURVE);
        self.openssl(&arguments);
        (self.folder.join(pem), self.folder.join(key))
    }

    /// Issues a certificate, and returns the paths of the certificate and its key. Without an extension, it is a
    /// certificate of version 1.
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

/// A proxy that accepts TLS with a given certificate, and connects to a server without TLS.
struct TlsProxy {
    port: u16,
}

impl TlsProxy {
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
        let (port, server_port) = (listener.local_addr().unwrap().port(), server.port);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (acceptor, mut stream) = (acceptor.clone(), stream.unwrap());
                std::thread::spawn(move || {
                    // The request for TLS has eight bytes.
                    stream.read_exact(&mut [0; 8]).unwrap();
                    stream.write_all(b"S").unwrap();
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        stream.set_nonblocking(true).unwrap();
                        let inner = tokio::net::TcpStream::from_std(stream).unwrap();
                        let Ok(mut inner) = acceptor.accept(inner).await else { return };
                        let outer = TcpStream::connect(("127.0.0.1", server_port)).unwrap();
                        outer.set_nonblocking(true).unwrap();
                        let mut outer = tokio::net::TcpStream::from_std(outer).unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
                    });
                });
            }
        });
        TlsProxy { port }
    }
}
