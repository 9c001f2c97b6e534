//! Connection parameters: the text that a user gave, completed as libpq completes it.
//!
//! The given text overrides the connection service, which overrides the `PG*` variables, which override the defaults.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::engine::postgres::provider::Provider;
use crate::engine::postgres::wire::auth::Methods;
pub use crate::engine::postgres::wire::conninfo::looks_like;
use crate::engine::postgres::wire::conninfo::{self, KEYWORDS, PGBOUNCER, encode};
use crate::engine::postgres::wire::tls::{RootCertificates, SslMode, TlsParams};
use crate::engine::postgres::wire::{passfile, service};
use crate::platform::error::{Error, Result};
use crate::platform::secret::Secret;

/// The default time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The folder in which Debian's libpq has its system-wide service file.
const SYSTEM_FOLDER: &str = "/etc/postgresql-common";

/// Complete connection parameters. Neither `{}` nor `{:?}` shows a password.
#[derive(Clone)]
pub struct Params {
    pub(in crate::engine::postgres) hosts: Vec<Host>,
    pub(in crate::engine::postgres) database: String,
    pub(in crate::engine::postgres) user: String,
    password: Option<(Secret, &'static str)>,
    passfile: Option<PathBuf>,
    pub(in crate::engine::postgres) connect_timeout: Option<Duration>,
    pub(in crate::engine::postgres) options: Option<String>,
    pub(in crate::engine::postgres) application_name: String,
    pub(in crate::engine::postgres) keepalives: Keepalives,
    pub(in crate::engine::postgres) target_session: TargetSession,
    pub(in crate::engine::postgres) channel_binding: tokio_postgres::config::ChannelBinding,
    /// The accepted methods of authentication (`require_auth`).
    pub(in crate::engine::postgres) methods: Methods,
    pub(in crate::engine::postgres) random_order: bool,
    pub(in crate::engine::postgres) tls: TlsParams,
    /// True if the user says that each client has a session of its own.
    pub(in crate::engine::postgres) has_own_session: bool,
    /// The provider of the server, if the config names one.
    pub(in crate::engine::postgres) provider: Option<Provider>,
}

/// One host on which the server may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) struct Host {
    /// A name, an address, or the folder of a Unix socket.
    pub(in crate::engine::postgres) name: String,
    /// The address of the host (`hostaddr`), if it was given too.
    pub(in crate::engine::postgres) address: Option<IpAddr>,
    /// The port; it is also part of a Unix socket's name.
    pub(in crate::engine::postgres) port: u16,
}

/// The settings that detect a dead connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) struct Keepalives {
    pub(in crate::engine::postgres) on: bool,
    pub(in crate::engine::postgres) idle: Duration,
    pub(in crate::engine::postgres) interval: Option<Duration>,
    pub(in crate::engine::postgres) count: Option<u32>,
    pub(in crate::engine::postgres) user_timeout: Option<Duration>,
}

/// The wanted type of server (`target_session_attrs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// The environment of the process: variables, user, home folder, socket folders. Tests provide their own.
#[derive(Clone, Default)]
pub struct Environment {
    /// The environment variables. Only those of PostgreSQL are read.
    pub variables: BTreeMap<String, String>,
    /// The name of the user that the process runs as.
    pub user: Option<String>,
    /// That user's home folder.
    pub home: Option<PathBuf>,
    /// The folders in which the server's socket may be, if no host is given.
    pub socket_folders: Vec<PathBuf>,
}

impl Environment {
    /// Returns the environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let postgres = |name: &String| name.starts_with("PG");
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Environment {
            variables: std::env::vars_os().filter_map(text).filter(|(name, _)| postgres(name)).collect(),
            user: whoami::username().ok(),
            home: std::env::home_dir().filter(|home| !home.as_os_str().is_empty()),
            socket_folders: vec![PathBuf::from("/var/run/postgresql"), PathBuf::from("/tmp")],
        }
    }

    /// Adds one variable to the environment.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable from the environment. Returns true if it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.variables.remove(name).is_some()
    }

    /// Returns true if the environment names this host as the one of a server.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        self.variable("PGHOST").is_some_and(|hosts| hosts.split(',').any(|named| named.eq_ignore_ascii_case(host)))
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}

/// The keywords' values, and the origin of each.
struct Settings(HashMap<&'static str, (String, &'static str)>);

impl Settings {
    /// Stores a value, which overrides earlier ones.
    fn put(&mut self, name: &str, value: String, from: &'static str) {
        let mut known = KEYWORDS.iter().map(|(known, _)| *known).chain([PGBOUNCER]);
        if let Some(name) = known.find(|known| *known == name) {
            self.0.insert(name, (value, from));
        }
    }

    /// Stores a value if the keyword has none yet.
    fn fill(&mut self, name: &str, value: String, from: &'static str) {
        if !self.0.contains_key(name) {
            self.put(name, value, from);
        }
    }

    /// Returns the value of a keyword. An empty value counts as absent.
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the value of a keyword as a number.
    fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |text: &str| {
            text.trim().parse().map_err(|_| Error::usage(format!("'{text}' is not a valid number for {name}")))
        };
        self.get(name).map(parse).transpose()
    }

    /// Returns the value of a keyword as seconds. Returns `None` if it is absent, zero or negative, which means no
    /// limit.
    fn seconds(&self, name: &str) -> Result<Option<Duration>> {
        let seconds = self.number::<i64>(name)?.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }

    /// Translates a keyword's value to the matching choice.
    fn choice<T: Copy>(&self, name: &str, default: T, choices: &[(&str, T)]) -> Result<T> {
        let Some(text) = self.get(name) else { return Ok(default) };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(*meaning),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(Error::usage(format!("{name} cannot be '{text}'"))
                    .hint(format!("{name} must be one of {}", words.join(", "))))
            }
        }
    }
}

impl Params {
    /// Parses a URL or keywords, and completes them from the process's environment.
    ///
    /// Fails with [`crate::platform::error::Kind::Usage`]; no message shows a password or a part of one.
    pub fn parse(text: &str) -> Result<Self> {
        Params::parse_in(text, &Environment::of_process())
    }

    /// Parses like [`Params::parse`], but with the given environment.
    pub fn parse_in(text: &str, env: &Environment) -> Result<Self> {
        Params::parse_with(text, &[], env)
    }

    /// Parses like [`Params::parse_in`], with additional keywords and values that override those in the text. They are
    /// not escaped.
    pub fn parse_with(text: &str, keywords: &[(String, String)], env: &Environment) -> Result<Self> {
        let mut settings = Settings(HashMap::new());
        for (name, value) in conninfo::split(text)?.into_iter().chain(keywords.iter().cloned()) {
            settings.put(&name, value, "the connection string or the config");
        }
        let service = settings.get("service").or(env.variable("PGSERVICE")).map(str::to_owned);
        if let Some(service) = service.filter(|service| !service.is_empty()) {
            for (name, value) in service::read(&service, &service_files(&settings, env))? {
                settings.fill(&name, value, "the connection service");
            }
        }
        for (name, variable) in KEYWORDS {
            if let Some(value) = variable.and_then(|variable| env.variable(variable)) {
                let from = if *name == "password" { "PGPASSWORD" } else { "the environment" };
                settings.fill(name, value.to_owned(), from);
            }
        }
        // libpq's older variable for the same setting.
        if env.variable("PGREQUIRESSL") == Some("1") {
            settings.fill("sslmode", "require".to_owned(), "the environment");
        }
        refuse_unsupported(&settings)?;
        Params::complete(&settings, env)
    }

    /// Parses the values, and adds the defaults.
    fn complete(settings: &Settings, env: &Environment) -> Result<Self> {
        use tokio_postgres::config::ChannelBinding;
        let user = settings.get("user").map(str::to_owned).or_else(|| env.user.clone()).ok_or_else(|| {
            Error::usage("cannot find the name of the current user").hint("give the role: postgres://ROLE@host/db")
        })?;
        let password = settings.0.get("password").filter(|(value, _)| !value.is_empty());
        let name = settings.get("application_name").or(settings.get("fallback_application_name"));
        Ok(Params {
            hosts: hosts(settings, env)?,
            database: settings.get("dbname").unwrap_or(&user).to_owned(),
            user,
            password: password.map(|(value, from)| (Secret::new(value.as_str()), *from)),
            passfile: settings.get("passfile").map(PathBuf::from).or_else(|| env.in_home(".pgpass")),
            connect_timeout: match settings.get("connect_timeout") {
                Some(_) => settings.seconds("connect_timeout")?,
                None => Some(CONNECT_TIMEOUT),
            },
            options: settings.get("options").map(str::to_owned),
            application_name: name.unwrap_or("lifeboat").to_owned(),
            keepalives: Keepalives {
                on: settings.number::<i64>("keepalives")? != Some(0),
                // The kernel's default of two hours would outlast any pipeline.
                idle: settings.seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(60)),
                interval: settings.seconds("keepalives_interval")?.or(Some(Duration::from_secs(15))),
                count: settings.number::<u32>("keepalives_count")?.filter(|count| *count > 0).or(Some(4)),
                user_timeout: settings
                    .number::<u64>("tcp_user_timeout")?
                    .filter(|wait_ms| *wait_ms > 0)
                    .map(Duration::from_millis),
            },
            target_session: settings.choice(
                "target_session_attrs",
                TargetSession::Any,
                &[
                    ("any", TargetSession::Any),
                    ("read-write", TargetSession::ReadWrite),
                    ("read-only", TargetSession::ReadOnly),
                    ("primary", TargetSession::Primary),
                    ("standby", TargetSession::Standby),
                    ("prefer-standby", TargetSession::PreferStandby),
                ],
            )?,
            channel_binding: settings.choice(
                "channel_binding",
                ChannelBinding::Prefer,
                &[
                    ("disable", ChannelBinding::Disable),
                    ("prefer", ChannelBinding::Prefer),
                    ("require", ChannelBinding::Require),
                ],
            )?,
            methods: settings.get("require_auth").map(Methods::parse).transpose()?.unwrap_or_default(),
            random_order: settings.choice("load_balance_hosts", false, &[("disable", false), ("random", true)])?,
            tls: tls(settings, env)?,
            has_own_session: settings.get(PGBOUNCER).is_some(),
            provider: None,
        })
    }

    /// Returns the host's name or address, or the folder of its socket; the first one if several were given.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.hosts[0].name
    }

    /// Returns the port of [`Params::host`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.hosts[0].port
    }

    /// Returns the name of the database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Returns the role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Returns the password that was given, if any. Callers must not show it.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref().map(|(password, _)| password)
    }

    /// Returns the same parameters for a session in which event triggers do not fire. The server must have version 17, and
    /// the role must be a superuser.
    #[must_use]
    pub fn without_event_triggers(&self) -> Params {
        let options = self.options.iter().map(String::as_str).chain(["-c event_triggers=off"]);
        Params { options: Some(options.collect::<Vec<_>>().join(" ")), ..self.clone() }
    }

    /// Returns the same server and role with another database.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Params {
        Params { database: name.to_owned(), ..self.clone() }
    }

    /// Returns the same server and role, at a provider.
    #[must_use]
    pub fn with_provider(&self, provider: Option<Provider>) -> Params {
        Params { provider, ..self.clone() }
    }

    /// Returns `postgres://user@host:port/dbname`, for messages and commands. It never contains a password.
    #[must_use]
    pub fn shown(&self) -> String {
        self.shown_at(&self.hosts)
    }

    /// Formats like [`Params::shown`], but with the given hosts only.
    pub(in crate::engine::postgres) fn shown_at(&self, hosts: &[Host]) -> String {
        let host_and_port = |host: &Host| {
            let name = &host.name;
            let bracketed = name.contains(':') && !host.is_socket();
            if bracketed { format!("[{name}]:{}", host.port) } else { format!("{}:{}", encode(name), host.port) }
        };
        let hosts: Vec<String> = hosts.iter().map(host_and_port).collect();
        format!("postgres://{}@{}/{}", encode(&self.user), hosts.join(","), encode(&self.database))
    }

    /// Returns the password for a host and its origin. The password file is read last.
    pub(in crate::engine::postgres) fn password_for(&self, host: &Host) -> Option<(Secret, String)> {
        if let Some((password, from)) = &self.password {
            return Some((password.clone(), (*from).to_owned()));
        }
        let file = self.passfile.as_ref()?;
        // In the password file, libpq uses the name localhost for a socket in the default folder.
        let is_default = ["/var/run/postgresql", "/tmp"].contains(&host.name.as_str());
        let name = if is_default { "localhost" } else { &host.name };
        let password = passfile::password(file, name, host.port, &self.database, &self.user)?;
        Some((password, file.display().to_string()))
    }
}

/// Returns true if a host is this machine: a socket folder or a loopback address. Of a list of hosts, all must be.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    host.split(',').map(str::trim).all(|host| {
        host.starts_with('/')
            || host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

impl Host {
    /// Returns true if this is the folder of a Unix socket.
    pub(in crate::engine::postgres) fn is_socket(&self) -> bool {
        self.name.starts_with('/')
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({self})")
    }
}

impl FromStr for Params {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Params::parse(text)
    }
}

/// Returns the possible service files, the user's own first.
fn service_files(settings: &Settings, env: &Environment) -> Vec<PathBuf> {
    let named = settings.get("servicefile").or(env.variable("PGSERVICEFILE")).map(PathBuf::from);
    let own = named.or_else(|| env.in_home(".pg_service.conf"));
    let system = env.variable("PGSYSCONFDIR").unwrap_or(SYSTEM_FOLDER);
    own.into_iter().chain([PathBuf::from(system).join("pg_service.conf")]).collect()
}

/// Refuses settings of libpq that are not supported here, if ignoring them would be less safe or would change the
/// meaning.
fn refuse_unsupported(settings: &Settings) -> Result<()> {
    for (name, harmless, hint) in [
        ("gssencmode", &["disable", "prefer"][..], "remove it, or use 'disable': GSSAPI is not supported"),
        ("replication", &["false", "off", "no", "0"], "remove it"),
        ("requirepeer", &[], "remove it"),
        ("sslcertmode", &["disable", "allow"], "use 'allow', and set sslcert and sslkey"),
        ("sslcrl", &[], "remove it: revocation lists are not supported"),
        ("sslcrldir", &[], "remove it: revocation lists are not supported"),
        ("ssl_max_protocol_version", &["TLSv1.2", "TLSv1.3"], "use TLSv1.2 or TLSv1.3"),
    ] {
        if let Some(value) = settings.get(name).filter(|value| !harmless.contains(value)) {
            return Err(Error::usage(format!("lifeboat does not support {name}={value}")).hint(hint));
        }
    }
    Ok(())
}

/// Returns the hosts on which the server may run; at least one.
fn hosts(settings: &Settings, env: &Environment) -> Result<Vec<Host>> {
    let list = |name| settings.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (names, addresses) = (list("host"), list("hostaddr"));
    if let (Some(names), Some(addresses)) = (&names, &addresses)
        && names.len() != addresses.len()
    {
        return Err(Error::usage(format!("there are {} hosts but {} hostaddr values", names.len(), addresses.len())));
    }
    let count = names.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    let ports = list("port").unwrap_or_default();
    if ports.len() > 1 && ports.len() != count {
        return Err(Error::usage(format!("there are {count} hosts but {} ports", ports.len())));
    }
    let at = |list: &Option<Vec<&str>>, index: usize| {
        list.as_ref().map(|list| list[index]).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let port = match ports.get(index).or(ports.first().filter(|_| ports.len() == 1)) {
            None | Some(&"") => 5432,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| Error::usage("the port must be a number from 1 to 65535"))?,
        };
        let address: Option<IpAddr> = at(&addresses, index)
            .map(|text| text.parse().map_err(|_| Error::usage(format!("hostaddr '{text}' is not an IP address"))))
            .transpose()?;
        let name = match (at(&names, index), address) {
            (Some(name), _) => name,
            (None, Some(address)) => address.to_string(),
            (None, None) => default_host(port, env),
        };
        hosts.push(Host { name, address, port });
    }
    Ok(hosts)
}

/// Returns the folder that has a server's socket, or else `localhost`.
fn default_host(port: u16, env: &Environment) -> String {
    let has_socket = |folder: &&PathBuf| folder.join(format!(".s.PGSQL.{port}")).exists();
    match env.socket_folders.iter().find(has_socket) {
        Some(folder) => folder.display().to_string(),
        None => "localhost".to_owned(),
    }
}

/// Returns the TLS settings.
fn tls(settings: &Settings, env: &Environment) -> Result<TlsParams> {
    let roots = match settings.get("sslrootcert") {
        Some("system") => RootCertificates::System,
        Some(file) => RootCertificates::File(PathBuf::from(file)),
        None => RootCertificates::Default(env.in_home(".postgresql/root.crt")),
    };
    let system = matches!(roots, RootCertificates::System);
    let default = if system { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = settings.choice(
        "sslmode",
        default,
        &[
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ],
    )?;
    // Anybody can get a certificate that the system trusts, for some host.
    if system && !matches!(mode, SslMode::VerifyFull | SslMode::Disable) {
        return Err(Error::usage("sslrootcert=system needs sslmode=verify-full")
            .hint("remove sslmode, or set it to verify-full"));
    }
    let direct = settings.choice("sslnegotiation", false, &[("postgres", false), ("direct", true)])?;
    if direct && !matches!(mode, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) {
        return Err(Error::usage("sslnegotiation=direct needs sslmode=require or stricter"));
    }
    let version = |name| {
        settings.choice(
            name,
            None,
            &[("TLSv1", Some(10)), ("TLSv1.1", Some(11)), ("TLSv1.2", Some(12)), ("TLSv1.3", Some(13))],
        )
    };
    Ok(TlsParams {
        mode,
        roots,
        certificate: settings.get("sslcert").map(PathBuf::from),
        key: settings.get("sslkey").map(PathBuf::from),
        default_certificate: env.in_home(".postgresql/postgresql.crt"),
        default_key: env.in_home(".postgresql/postgresql.key"),
        no_certificate: settings.get("sslcertmode") == Some("disable"),
        direct,
        server_name: settings.get("sslsni") != Some("0"),
        only_13: version("ssl_min_protocol_version")? == Some(13),
        only_12: version("ssl_max_protocol_version")? == Some(12),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn env() -> Environment {
        Environment { user: Some("me".to_owned()), ..Environment::default() }
    }

    fn parse(text: &str) -> Params {
        Params::parse_in(text, &env())
            .unwrap_or_else(|error| panic!("{text}: {} {:?}", error.full_message(), error.hint))
    }

    fn password(params: &Params) -> Option<String> {
        params.password_for(&params.hosts[0]).map(|(password, _)| password.expose().to_owned())
    }

    #[test]
    fn missing_parameters_have_libpqs_defaults() {
        for (text, shown) in [
            ("", "postgres://me@localhost:5432/me"),
            ("postgres://", "postgres://me@localhost:5432/me"),
            ("postgres://alice@db", "postgres://alice@db:5432/alice"),
            ("postgres:///app", "postgres://me@localhost:5432/app"),
            ("host=db port=1 dbname=x user=y", "postgres://y@db:1/x"),
            ("postgres://h1:1,h2:2/db", "postgres://me@h1:1,h2:2/db"),
            ("postgres://h1,h2:2/db", "postgres://me@h1:5432,h2:2/db"),
            ("host=a,b,c port=7", "postgres://me@a:7,b:7,c:7/me"),
            ("host=/run/pg", "postgres://me@%2Frun%2Fpg:5432/me"),
            ("hostaddr=10.0.0.1", "postgres://me@10.0.0.1:5432/me"),
            ("host=db hostaddr=10.0.0.1", "postgres://me@db:5432/me"),
            ("host=::1 dbname='a b/c@d'", "postgres://me@[::1]:5432/a%20b%2Fc%40d"),
            ("postgres://üser:x@db/日本", "postgres://üser@db:5432/日本"),
        ] {
            assert_eq!(parse(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn shown_text_parses_to_the_same_parameters() {
        for text in ["host=/run/pg port=3 user='a b' dbname='x@/y'", "host=::1", "postgres://a@h1:1,h2:2/%25"] {
            let shown = parse(text).shown();
            assert_eq!(parse(&shown).shown(), shown);
        }
    }

    #[test]
    fn the_text_overrides_the_service_and_the_service_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("services");
        std::fs::write(&file, "[prod]\nhost=service-host\nport=2\nuser=service-user\npassword=service-pw\n").unwrap();
        let env = env()
            .with("PGSERVICEFILE", file.to_str().unwrap())
            .with("PGHOST", "env-host")
            .with("PGPORT", "3")
            .with("PGUSER", "env-user")
            .with("PGDATABASE", "env-db")
            .with("PGPASSWORD", "env-pw");
        let from = |text: &str, env: &Environment| {
            let params = Params::parse_in(text, env).unwrap();
            format!("{params} {}", password(&params).unwrap())
        };
        assert_eq!(from("", &env), "postgres://env-user@env-host:3/env-db env-pw");
        assert_eq!(from("postgres://u:p@h:1/d", &env), "postgres://u@h:1/d p");
        assert_eq!(from("service=prod", &env), "postgres://service-user@service-host:2/env-db service-pw");
        assert_eq!(from("postgres://?service=prod&user=u", &env), "postgres://u@service-host:2/env-db service-pw");
        let env = env.with("PGSERVICE", "prod");
        assert_eq!(from("port=9", &env), "postgres://service-user@service-host:9/env-db service-pw");
        let error = Params::parse_in("service=absent", &env).unwrap_err();
        assert!(error.message.contains("absent") && error.hint.unwrap().contains(file.to_str().unwrap()));
    }

    #[test]
    fn the_password_file_is_searched_by_host_port_database_and_user() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".pgpass");
        std::fs::write(&file, "h2:5432:db:me:second\n*:5432:other:*:third\nlocalhost:5432:*:*:socket\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let env = Environment { home: Some(home.path().to_owned()), ..env() };
        let params = Params::parse_in("postgres://h1,h2/db", &env).unwrap();
        let at = |params: &Params, index: usize| {
            params.password_for(&params.hosts[index]).map(|(password, _)| password.expose().to_owned())
        };
        assert_eq!((at(&params, 0), at(&params, 1)), (None, Some("second".to_owned())));
        assert_eq!(at(&params.with_database("other"), 0).as_deref(), Some("third"));
        let socket = Params::parse_in("host=/var/run/postgresql", &env).unwrap();
        assert_eq!(at(&socket, 0).as_deref(), Some("socket"));
        let given = Params::parse_in("postgres://:pw@h2/db", &env).unwrap();
        assert_eq!(at(&given, 0).as_deref(), Some("pw"));
    }

    #[test]
    fn a_list_of_hosts_is_this_machine_only_if_all_of_them_are() {
        assert!(["/tmp", "localhost", "127.0.0.1", "::1", "/run/pg,127.0.0.2"].into_iter().all(is_this_machine));
        assert!(!["/tmp,db", "/tmp, 10.0.0.1", "localhost,db", "@db", "", "db"].into_iter().any(is_this_machine));
    }

    #[test]
    fn a_socket_is_used_if_one_exists() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".s.PGSQL.5499"), "").unwrap();
        let env = Environment { socket_folders: vec![PathBuf::from("/absent"), folder.path().to_owned()], ..env() };
        assert_eq!(Params::parse_in("port=5499", &env).unwrap().host(), folder.path().to_str().unwrap());
        assert_eq!(Params::parse_in("", &env).unwrap().host(), "localhost");
    }

    #[test]
    fn the_other_parameters_mean_the_same_as_in_libpq() {
        assert_eq!(parse("").connect_timeout, Some(CONNECT_TIMEOUT));
        assert_eq!(parse("connect_timeout=3").connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(parse("connect_timeout=0").connect_timeout, None);
        assert_eq!(parse("connect_timeout=-1").connect_timeout, None);
        assert_eq!(parse("").application_name, "lifeboat");
        assert_eq!(parse("fallback_application_name=x").application_name, "x");
        assert_eq!(parse("fallback_application_name=x application_name=y").application_name, "y");
        assert_eq!(parse("sslmode=verify-full").tls.mode, SslMode::VerifyFull);
        assert_eq!(parse("sslrootcert=system").tls.mode, SslMode::VerifyFull);
        assert_eq!(parse("").tls.mode, SslMode::Prefer);
        assert_eq!(parse("target_session_attrs=prefer-standby").target_session, TargetSession::PreferStandby);
        assert!(!parse("keepalives=0").keepalives.on);
        assert_eq!(parse("client_encoding=latin1 krbsrvname=x gssencmode=prefer sslcompression=1").port(), 5432);
        let env = env().with("PGREQUIRESSL", "1");
        assert_eq!(Params::parse_in("", &env).unwrap().tls.mode, SslMode::Require);
    }

    #[test]
    fn invalid_parameters_are_usage_errors() {
        for text in [
            "sslmode=yes",
            "port=0",
            "port=65536",
            "port=x",
            "host=a,b,c port=1,2",
            "host=a,b hostaddr=1.2.3.4",
            "hostaddr=db",
            "connect_timeout=soon",
            "target_session_attrs=best",
            "sslrootcert=system sslmode=require",
            "sslnegotiation=direct",
            "sslcrl=/x",
            "require_auth=scram",
            "require_auth=md5,!none",
            "gssencmode=require",
            "replication=database",
            "nonsense=1",
            "app.db",
        ] {
            let error = Params::parse_in(text, &env()).expect_err(text);
            assert_eq!(error.kind, crate::platform::error::Kind::Usage, "{text}");
        }
        let nameless = Environment::default();
        assert!(Params::parse_in("host=x", &nameless).is_err());
        assert!(Params::parse_in("host=x user=y", &nameless).is_ok());
    }

    #[test]
    fn the_password_is_never_printed() {
        let params = parse("postgres://alice:hunter2@db/app?sslmode=require");
        let printed = format!("{params} {params:?} {:?} {}", Some(&params), params.shown());
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(password(&params).as_deref(), Some("hunter2"));
    }
}
