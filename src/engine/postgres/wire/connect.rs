//! Connects to a server: tries hosts and their addresses in turn, with and without TLS as `sslmode` allows. Each try
//! has a time limit.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Connection, SimpleQueryMessage};

use crate::engine::postgres::schema::quote::literal;
use crate::engine::postgres::wire::about::ServerAbout;
use crate::engine::postgres::wire::auth::Login;
use crate::engine::postgres::wire::copy_stream::{CopyStream, Messages, Rows};
use crate::engine::postgres::wire::failure;
use crate::engine::postgres::wire::majors;
use crate::engine::postgres::wire::params::{Host, Keepalives, Params, TargetSession};
use crate::engine::postgres::wire::pooler::{self, Known, Pool, Pooled};
use crate::engine::postgres::wire::socket::{self, Address, Socket};
use crate::engine::postgres::wire::tls::{Connector, SslMode, Stream};
use crate::platform::error::{Error, Result};

/// The number of server notices that are kept.
const MAX_NOTICES: usize = 1000;
/// The number of characters of a notice that are kept.
const MAX_NOTICE_CHARACTERS: usize = 4000;

/// The maximum wait until a connection is closed that is not used any more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of logins that are tried after another session was ended.
const MOST_TRIES_AFTER_ANOTHER: u32 = 40;
/// The pause between these logins.
const PAUSE_AFTER_ANOTHER: Duration = Duration::from_millis(25);

/// An open connection and the task that drives it.
pub(in crate::engine::postgres) struct Link {
    pub(in crate::engine::postgres) client: Client,
    /// Reads and writes the socket; ends when the client is dropped or the connection is lost.
    pub(in crate::engine::postgres) driver: JoinHandle<()>,
    pub(in crate::engine::postgres) state: Arc<LinkState>,
    /// The rows that COPY returns.
    pub(in crate::engine::postgres) rows: Rows,
    /// The address at which the server answered.
    pub(in crate::engine::postgres) endpoint: Endpoint,
    pub(in crate::engine::postgres) about: ServerAbout,
    pub(in crate::engine::postgres) pid: i32,
}

/// One address of a host, and the settings for connecting to it.
#[derive(Clone)]
pub(in crate::engine::postgres) struct Endpoint {
    host: Host,
    address: Address,
    /// True if all addresses of the host are IPv6 addresses.
    has_only_ipv6: bool,
    keepalives: Keepalives,
    connector: Connector,
}

impl Endpoint {
    async fn open(&self) -> io::Result<Socket> {
        socket::open(&self.host, self.address, &self.keepalives).await
    }

    /// Asks the server to cancel the running command of a connection. This opens a second connection.
    pub(in crate::engine::postgres) async fn cancel(
        &self,
        token: CancelToken,
    ) -> std::result::Result<(), ConnectError> {
        let socket = self.open().await.map_err(ConnectError::Socket)?;
        token
            .cancel_query_raw(socket, self.connector.handshake(&self.host.name, Rows::default(), Login::default()))
            .await
            .map_err(ConnectError::Server)
    }
}

/// The reason why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine::postgres) enum ConnectError {
    /// No socket could be opened.
    #[error("{0}")]
    Socket(#[source] io::Error),
    /// The socket was opened, but the exchange with the server failed.
    #[error("{0}")]
    Server(#[source] tokio_postgres::Error),
    /// A pooler answers that cannot be used.
    #[error("{0}")]
    Pooler(#[source] Pooled),
    /// There was no answer within the time limit.
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
}

/// The notices that the server sent, and the error that ended the connection.
#[derive(Default)]
pub(in crate::engine::postgres) struct LinkState {
    notices: Mutex<VecDeque<String>>,
    lost: Mutex<Option<Arc<tokio_postgres::Error>>>,
}

impl LinkState {
    /// Returns the notices since the last call, oldest first.
    pub(in crate::engine::postgres) fn take_notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Returns the error that ended the connection, if it has ended with one.
    pub(in crate::engine::postgres) fn lost(&self) -> Option<Arc<tokio_postgres::Error>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add_notice(&self, notice: &DbError) {
        tracing::debug!("notice from the server: {}: {}", notice.severity(), notice.message());
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() == MAX_NOTICES {
            notices.pop_front();
        }
        let message: String = notice.message().chars().take(MAX_NOTICE_CHARACTERS).collect();
        notices.push_back(format!("{}: {message}", notice.severity()));
    }
}

/// Drives a connection until it ends.
async fn drive(mut connection: Connection<CopyStream<Socket>, Stream<CopyStream<Socket>>>, state: Arc<LinkState>) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => state.add_notice(&notice),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                *state.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
                return;
            }
            None => return,
        }
    }
}

/// Connects to the first suitable host.
///
/// Like libpq, it tries the next host if one cannot be reached or is not of the wanted type, and stops if a server
/// rejects the login.
pub(in crate::engine::postgres) async fn connect(params: &Params) -> Result<Link> {
    pooler::refuse_by_name(params)?;
    let all_sockets = params.hosts.iter().all(Host::is_socket);
    let connector = if all_sockets { Connector::unused()? } else { Connector::new(&params.tls)? };
    let mut failures = Vec::new();
    let passes: &[TargetSession] = match params.target_session {
        TargetSession::PreferStandby => &[TargetSession::Standby, TargetSession::Any],
        _ => std::slice::from_ref(&params.target_session),
    };
    for wanted in passes {
        for host in order(&params.hosts, params.random_order)? {
            let addresses: Vec<Address> = match addresses(params, host).await {
                Ok(addresses) => order(&addresses, params.random_order)?.into_iter().copied().collect(),
                Err(failure) => {
                    failures.push(failure);
                    Vec::new()
                }
            };
            let is_ipv6 = |address: &Address| matches!(address, Address::Tcp(IpAddr::V6(_)));
            let has_only_ipv6 = addresses.iter().all(is_ipv6);
            for address in addresses {
                let (keepalives, connector) = (params.keepalives, connector.clone());
                let endpoint = Endpoint { host: host.clone(), address, has_only_ipv6, keepalives, connector };
                match connect_to_address(params, &endpoint, *wanted).await {
                    Ok(link) => return Ok(link),
                    Err((tries, AfterFailure::NextHost)) => failures.extend(tries),
                    Err((tries, AfterFailure::Stop)) => {
                        failures.extend(tries);
                        return Err(failure::combined(params, failures));
                    }
                }
            }
        }
    }
    Err(failure::combined(params, failures))
}

/// Returns the items in the order in which they are to be tried.
fn order<T>(items: &[T], random: bool) -> Result<Vec<&T>> {
    let mut ordered: Vec<&T> = items.iter().collect();
    if random {
        for index in (1..ordered.len()).rev() {
            let number = getrandom::u64()
                .map_err(|error| Error::failed("cannot get random numbers from the system").because(error))?;
            let other = usize::try_from(number % (index as u64 + 1)).unwrap_or(index);
            ordered.swap(index, other);
        }
    }
    Ok(ordered)
}

/// Returns the addresses of a host.
async fn addresses(params: &Params, host: &Host) -> Result<Vec<Address>> {
    if host.is_socket() {
        return Ok(vec![Address::Folder]);
    }
    if let Some(address) = host.address {
        return Ok(vec![Address::Tcp(address)]);
    }
    let lookup = tokio::net::lookup_host((host.name.as_str(), host.port));
    let found = match with_time_limit(params.connect_timeout, lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(failure::unknown_host(params, host, error)),
        Err(limit) => return Err(failure::no_answer(params, host, false, limit)),
    };
    let mut addresses: Vec<Address> = Vec::new();
    for address in found.map(|found| Address::Tcp(found.ip())) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Waits for `work` for at most the time limit. If the limit expires, returns it as the error.
async fn with_time_limit<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Duration> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.map_err(|_| limit),
        None => Ok(work.await),
    }
}

/// The step after a failed host: try the next host, or stop.
enum AfterFailure {
    NextHost,
    Stop,
}

/// Returns the TLS modes to try, in order. A Unix socket needs no TLS.
fn tls_modes(mode: SslMode, host: &Host) -> &'static [tokio_postgres::config::SslMode] {
    use tokio_postgres::config::SslMode as TlsMode;
    match mode {
        _ if host.is_socket() => &[TlsMode::Disable],
        SslMode::Disable => &[TlsMode::Disable],
        SslMode::Allow => &[TlsMode::Disable, TlsMode::Require],
        SslMode::Prefer => &[TlsMode::Prefer, TlsMode::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[TlsMode::Require],
    }
}

/// Connects to one address of a host.
async fn connect_to_address(
    params: &Params,
    endpoint: &Endpoint,
    wanted: TargetSession,
) -> Result<Link, (Vec<Error>, AfterFailure)> {
    let (host, has_only_ipv6) = (&endpoint.host, endpoint.has_only_ipv6);
    let mut failures = Vec::new();
    let password = params.password_for(host);
    let mut config = config(params);
    let pool = Pool::of(params, host);
    if let Some((password, _)) = &password {
        config.password(password.expose());
    }
    let login = Login::new(params.methods.clone(), password.is_some());
    let mut end = AfterFailure::NextHost;
    for tls_mode in tls_modes(params.tls.mode, host) {
        config.ssl_mode(*tls_mode);
        let tls = (*tls_mode, params.tls.direct);
        match log_in(&config, tls, endpoint, &login, params, &pool).await {
            Err(ConnectError::Pooler(why)) => {
                return Err((vec![pooler::refused(params, host, why)], AfterFailure::Stop));
            }
            Ok(link) => {
                check_version(&link.about, params, host).map_err(|error| (vec![error], AfterFailure::Stop))?;
                return match unwanted(wanted, &link.about) {
                    None => Ok(link),
                    Some(server_type) => {
                        let url = params.shown_at(std::slice::from_ref(host));
                        let hint = "target_session_attrs sets which type of server is accepted";
                        let failure = Error::unreachable(format!("{url} is {server_type}")).hint(hint);
                        Err((vec![failure], AfterFailure::NextHost))
                    }
                };
            }
            Err(ConnectError::Socket(error)) => {
                failures.push(failure::no_socket(&error, params, host, has_only_ipv6));
                end = AfterFailure::NextHost;
                break;
            }
            Err(ConnectError::Server(error)) => {
                let from = password.as_ref().map(|(_, from)| from.as_str());
                failures.push(failure::connecting(&error, params, host, from));
                let login_refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
                let not_answered = failure::not_answered(&error).is_some();
                let answered = error.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW);
                end = if answered || not_answered { AfterFailure::Stop } else { AfterFailure::NextHost };
                // pg_hba.conf may have a line for the other mode, and a broken TLS setup may be optional.
                if !login_refused && !not_answered && failure::handshake(&error).is_none() {
                    break;
                }
            }
            Err(ConnectError::NoAnswer(limit)) if pool.is_in_session_mode() => {
                failures.push(failure::no_free_connection(params, host, limit));
                break;
            }
            Err(ConnectError::NoAnswer(limit)) => {
                failures.push(failure::no_answer(params, host, has_only_ipv6, limit));
                break;
            }
        }
    }
    Err((failures, end))
}

/// Returns the library's configuration for a login, without password, TLS and options. A pooler may pass settings of a login
/// on to a session that other clients use too, so it has none.
fn config(params: &Params) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.user(&params.user).dbname(&params.database).channel_binding(params.channel_binding);
    if params.tls.direct {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    config
}

/// A login whose session has its initial settings.
struct LoggedIn {
    client: Client,
    driver: JoinHandle<()>,
    state: Arc<LinkState>,
    rows: Rows,
}

impl LoggedIn {
    /// Ends the session, and waits until the connection is closed.
    async fn close(self) {
        drop(self.client);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.driver).await;
    }
}

/// A way to log in.
struct Opening<'a> {
    tls: (tokio_postgres::config::SslMode, bool),
    endpoint: &'a Endpoint,
    login: &'a Login,
    limit: Option<Duration>,
}

impl Opening<'_> {
    /// Logs in. Sets nothing.
    async fn open(&self, config: &tokio_postgres::Config) -> std::result::Result<LoggedIn, ConnectError> {
        with_time_limit(self.limit, self.open_without_limit(config)).await.map_err(ConnectError::NoAnswer)?
    }

    async fn open_without_limit(&self, config: &tokio_postgres::Config) -> std::result::Result<LoggedIn, ConnectError> {
        use tokio_postgres::config::SslMode as TlsMode;
        let Opening { tls: (tls_mode, direct), endpoint, login, .. } = *self;
        let socket = endpoint.open().await.map_err(ConnectError::Socket)?;
        let rows = Rows::default();
        let messages = match tls_mode {
            TlsMode::Disable => Messages::FromStart,
            _ if direct => Messages::Nowhere,
            _ => Messages::AfterRefusal,
        };
        let handshake = endpoint.connector.handshake(&endpoint.host.name, rows.clone(), login.clone());
        let connected =
            config.connect_raw(CopyStream::new(socket, messages, rows.clone(), login.clone()), handshake).await;
        let (client, connection) = connected.map_err(ConnectError::Server)?;
        let state = Arc::new(LinkState::default());
        let driver = tokio::spawn(drive(connection, Arc::clone(&state)));
        Ok(LoggedIn { client, driver, state, rows })
    }

    /// Logs in after another session of this role was ended. For a short time after that, the server may still count it: a
    /// role may have a limit of one connection.
    async fn open_after_another(&self, config: &tokio_postgres::Config) -> std::result::Result<LoggedIn, ConnectError> {
        let mut opened = self.open(config).await;
        for _ in 0..MOST_TRIES_AFTER_ANOTHER {
            match &opened {
                Err(ConnectError::Server(error)) if error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) => {}
                _ => break,
            }
            tokio::time::sleep(PAUSE_AFTER_ANOTHER).await;
            opened = self.open(config).await;
        }
        opened
    }
}

/// Logs in, and asks the server for its version and settings. If the session may be shared with other clients of a pooler,
/// nothing is set in it, and the login fails.
async fn log_in(
    config: &tokio_postgres::Config,
    tls: (tokio_postgres::config::SslMode, bool),
    endpoint: &Endpoint,
    login: &Login,
    params: &Params,
    pool: &Pool,
) -> std::result::Result<Link, ConnectError> {
    let opening = Opening { tls, endpoint, login, limit: params.connect_timeout };
    let with_options = |options: &String| {
        let mut config = config.clone();
        config.options(options);
        config
    };
    let config_with_options = params.options.as_ref().map(with_options);
    let config_with_options = config_with_options.as_ref().unwrap_or(config);
    let opened = if pool.is_known() {
        opening.open(config_with_options).await?
    } else {
        // Some providers find the database by the options.
        let first = match opening.open(config).await {
            Err(ConnectError::Server(_)) if params.options.is_some() => opening.open(config_with_options).await?,
            first => first?,
        };
        require_own_session(&first, opening.open(config), &opening, params, pool).await?;
        if params.options.is_some() {
            first.close().await;
            opening.open_after_another(config_with_options).await?
        } else {
            first
        }
    };
    let asked = with_time_limit(params.connect_timeout, ask(opened, endpoint, params)).await;
    asked.map_err(ConnectError::NoAnswer)?.map_err(ConnectError::Server)
}

/// Fails if the session may be shared with other clients of a pooler. `second` opens another connection.
async fn require_own_session(
    first: &LoggedIn,
    second: impl Future<Output = std::result::Result<LoggedIn, ConnectError>>,
    opening: &Opening<'_>,
    params: &Params,
    pool: &Pool,
) -> std::result::Result<(), ConnectError> {
    let asked = with_time_limit(opening.limit, pooler::ask_twice(&first.client)).await;
    let (one, two) = asked.map_err(ConnectError::NoAnswer)?.map_err(ConnectError::Server)?;
    if one != two {
        return Err(ConnectError::Pooler(Pooled::Shared));
    }
    if first.rows.process_of_login().is_some_and(|process| Some(process) == one) {
        pool.remember(Known::Direct);
        return Ok(());
    }
    tracing::debug!("the login named another process than the one that answers: there is a pooler or a proxy");
    // Until it has logged in, a second client says nothing about the pool.
    let clock = Instant::now();
    let why = match second.await {
        Ok(second) => {
            let inspected = pooler::inspect(&first.client, one, &second.client, clock.elapsed()).await;
            second.close().await;
            inspected.map_err(ConnectError::Server)?
        }
        Err(_) => Some(Pooled::Unknown),
    };
    match why {
        Some(Pooled::Unknown) if params.has_own_session => {}
        Some(why) => return Err(ConnectError::Pooler(why)),
        None => {}
    }
    pool.remember(Known::SessionMode);
    Ok(())
}

/// Makes the first settings of the session, and asks the server for its version and settings.
async fn ask(
    opened: LoggedIn,
    endpoint: &Endpoint,
    params: &Params,
) -> std::result::Result<Link, tokio_postgres::Error> {
    let LoggedIn { client, driver, state, rows } = opened;
    let name = literal(&params.application_name);
    // A role or database may set a statement_timeout that even the first statements exceed. A timer that expires at the
    // very end of one statement cancels the next one, as if a user had done it. So both statements are repeated.
    let mut tries = 0;
    let messages = loop {
        let asked = async {
            client.simple_query(&format!("SET statement_timeout = 0; SET application_name = {name}")).await?;
            client
                .simple_query(
                    "SELECT pg_catalog.current_setting('server_version_num'), pg_catalog.pg_backend_pid(),
                            pg_catalog.current_database(), current_user, pg_catalog.current_setting('is_superuser'),
                            pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('server_encoding'),
                            pg_catalog.current_setting('transaction_read_only')",
                )
                .await
        };
        match asked.await {
            Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) && tries < 20 => tries += 1,
            asked => break asked?,
        }
    };
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |index: usize| row.and_then(|row| row.get(index)).unwrap_or_default().to_owned();
    let version_num: u32 = text(0).parse().unwrap_or(0);
    let about = ServerAbout {
        version_num,
        version: format!("{}.{}", version_num / 10000, version_num % 10000),
        host: endpoint.host.name.clone(),
        port: endpoint.host.port,
        database: text(2),
        user: text(3),
        is_superuser: text(4) == "on",
        in_recovery: text(5) == "t",
        server_encoding: text(6),
        read_only: text(7) == "on",
    };
    let pid = text(1).parse().unwrap_or(0);
    Ok(Link { client, driver, state, rows, endpoint: endpoint.clone(), about, pid })
}

/// Fails if a server is too old, or too new and not allowed.
fn check_version(about: &ServerAbout, params: &Params, host: &Host) -> Result<()> {
    let url = params.shown_at(std::slice::from_ref(host));
    majors::require_supported(&url, about.version_num, &about.version)
}

/// Describes why a server is not of the wanted type. Returns `None` if it is.
fn unwanted(wanted: TargetSession, about: &ServerAbout) -> Option<&'static str> {
    match wanted {
        TargetSession::Any | TargetSession::PreferStandby => None,
        TargetSession::ReadWrite => (about.read_only || about.in_recovery).then_some("read-only"),
        TargetSession::ReadOnly => (!about.read_only && !about.in_recovery).then_some("not read-only"),
        TargetSession::Primary => about.in_recovery.then_some("a standby"),
        TargetSession::Standby => (!about.in_recovery).then_some("not a standby"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn about(version_num: u32, in_recovery: bool, read_only: bool) -> ServerAbout {
        ServerAbout {
            version_num,
            version: format!("{}.{}", version_num / 10000, version_num % 10000),
            host: "db".to_owned(),
            port: 5432,
            database: "app".to_owned(),
            user: "me".to_owned(),
            is_superuser: false,
            in_recovery,
            read_only,
            server_encoding: "UTF8".to_owned(),
        }
    }

    #[test]
    fn the_type_of_server_is_chosen_as_in_libpq() {
        use TargetSession::*;
        let (primary, standby, read_only) = (about(1, false, false), about(1, true, true), about(1, false, true));
        for (wanted, expected) in [
            (Any, [true, true, true]),
            (ReadWrite, [true, false, false]),
            (ReadOnly, [false, true, true]),
            (Primary, [true, false, true]),
            (Standby, [false, true, false]),
        ] {
            let accepted = [&primary, &standby, &read_only].map(|about| unwanted(wanted, about).is_none());
            assert_eq!(accepted, expected, "{wanted:?}");
        }
    }

    #[test]
    fn a_random_order_has_every_host_once() {
        let items: Vec<usize> = (0..20).collect();
        let mut shuffled: Vec<usize> = order(&items, true).unwrap().into_iter().copied().collect();
        shuffled.sort_unstable();
        assert_eq!(shuffled, items);
        assert_eq!(order(&items, false).unwrap(), items.iter().collect::<Vec<_>>());
    }
}
