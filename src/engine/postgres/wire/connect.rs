//! Connects to a server: tries hosts and their addresses in turn, with and without TLS as `sslmode` allows. Each try
//! has a time limit.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslNegotiation;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{AsyncMessage, CancelToken, Client, Connection, SimpleQueryMessage};

use crate::engine::postgres::wire::about::ServerAbout;
use crate::engine::postgres::wire::copy_stream::{Messages, Rows, Tap};
use crate::engine::postgres::wire::failure;
use crate::engine::postgres::wire::params::{Host, Keepalives, Params, Wanted};
use crate::engine::postgres::wire::socket::{self, Address, Socket};
use crate::engine::postgres::wire::tls::{Connector, SslMode, Stream};
use crate::platform::error::{Error, Result};

/// The number of server notices that are kept.
const MAX_NOTICES: usize = 1000;

/// An open connection and the task that drives it.
pub(in crate::engine::postgres) struct Link {
    pub(in crate::engine::postgres) client: Client,
    /// Reads and writes the socket; ends when the client is dropped or the connection is lost.
    pub(in crate::engine::postgres) driver: JoinHandle<()>,
    pub(in crate::engine::postgres) heard: Arc<Heard>,
    /// The rows that COPY returns.
    pub(in crate::engine::postgres) rows: Rows,
    /// The place at which the server was reached.
    pub(in crate::engine::postgres) place: Place,
    pub(in crate::engine::postgres) about: ServerAbout,
    pub(in crate::engine::postgres) pid: i32,
}

/// One address of a host, and the settings for connecting to it.
#[derive(Clone)]
pub(in crate::engine::postgres) struct Place {
    host: Host,
    address: Address,
    keepalives: Keepalives,
    connector: Connector,
}

impl Place {
    async fn open(&self) -> io::Result<Socket> {
        socket::open(&self.host, self.address, &self.keepalives).await
    }

    /// Asks the server to cancel the running command of a connection. This opens a second connection.
    pub(in crate::engine::postgres) async fn cancel(&self, token: CancelToken) -> std::result::Result<(), Unconnected> {
        let socket = self.open().await.map_err(Unconnected::Socket)?;
        token
            .cancel_query_raw(socket, self.connector.handshake(&self.host.name, Rows::default()))
            .await
            .map_err(Unconnected::Server)
    }
}

/// The reason why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine::postgres) enum Unconnected {
    /// No socket could be opened.
    #[error("{0}")]
    Socket(#[source] io::Error),
    /// The socket was opened, but the exchange with the server failed.
    #[error("{0}")]
    Server(#[source] tokio_postgres::Error),
}

/// Messages that the server sent unasked.
#[derive(Default)]
pub(in crate::engine::postgres) struct Heard {
    notices: Mutex<VecDeque<String>>,
    lost: Mutex<Option<Arc<tokio_postgres::Error>>>,
}

impl Heard {
    /// Returns the notices since the last call, oldest first.
    pub(in crate::engine::postgres) fn take_notices(&self) -> Vec<String> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// Returns the error that ended the connection, if it has ended with one.
    pub(in crate::engine::postgres) fn lost(&self) -> Option<Arc<tokio_postgres::Error>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn notice(&self, notice: &DbError) {
        tracing::debug!("the server says: {}: {}", notice.severity(), notice.message());
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        if notices.len() == MAX_NOTICES {
            notices.pop_front();
        }
        notices.push_back(format!("{}: {}", notice.severity(), notice.message()));
    }
}

/// Drives a connection until it ends.
async fn drive(mut connection: Connection<Tap<Socket>, Stream<Tap<Socket>>>, heard: Arc<Heard>) {
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => heard.notice(&notice),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                *heard.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(error));
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
    let all_sockets = params.hosts.iter().all(Host::is_socket);
    let connector = if all_sockets { Connector::unused()? } else { Connector::new(&params.tls)? };
    let mut failures = Vec::new();
    let passes: &[Wanted] =
        if params.wanted == Wanted::PreferStandby { &[Wanted::Standby, Wanted::Any] } else { &[params.wanted] };
    for wanted in passes {
        for host in order(&params.hosts, params.random_order)? {
            let addresses = match addresses(params, host).await {
                Ok(addresses) => order(&addresses, params.random_order)?.into_iter().copied().collect(),
                Err(failure) => {
                    failures.push(failure);
                    Vec::new()
                }
            };
            for address in addresses {
                match reach(params, host, address, &connector, *wanted).await {
                    Ok(link) => return Ok(link),
                    Err((tries, End::NextHost)) => failures.extend(tries),
                    Err((tries, End::Stop)) => {
                        failures.extend(tries);
                        return Err(failure::of_all(params, failures));
                    }
                }
            }
        }
    }
    Err(failure::of_all(params, failures))
}

/// Returns the items in the order in which they are tried.
fn order<T>(items: &[T], random: bool) -> Result<Vec<&T>> {
    let mut ordered: Vec<&T> = items.iter().collect();
    if random {
        for index in (1..ordered.len()).rev() {
            let number =
                getrandom::u64().map_err(|error| Error::failed("the system gives no random numbers").because(error))?;
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
    let found = match bounded(params.connect_timeout, tokio::net::lookup_host((host.name.as_str(), host.port))).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(failure::unknown_host(params, host, error)),
        Err(bound) => return Err(failure::no_answer(params, host, bound)),
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
async fn bounded<T>(bound: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Duration> {
    match bound {
        Some(bound) => tokio::time::timeout(bound, work).await.map_err(|_| bound),
        None => Ok(work.await),
    }
}

/// The step after a failed host: try the next host, or stop.
enum End {
    NextHost,
    Stop,
}

/// Returns the TLS modes to try, in order. A Unix socket needs no TLS.
fn ways(mode: SslMode, host: &Host) -> &'static [tokio_postgres::config::SslMode] {
    use tokio_postgres::config::SslMode as Way;
    match mode {
        _ if host.is_socket() => &[Way::Disable],
        SslMode::Disable => &[Way::Disable],
        SslMode::Allow => &[Way::Disable, Way::Require],
        SslMode::Prefer => &[Way::Prefer, Way::Disable],
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Way::Require],
    }
}

/// Connects to one address of a host.
async fn reach(
    params: &Params,
    host: &Host,
    address: Address,
    connector: &Connector,
    wanted: Wanted,
) -> Result<Link, (Vec<Error>, End)> {
    let mut failures = Vec::new();
    let password = params.password_for(host);
    let mut config = config(params);
    let (host_of_place, keepalives, connector) = (host.clone(), params.keepalives, connector.clone());
    let place = Place { host: host_of_place, address, keepalives, connector };
    if let Some((password, _)) = &password {
        config.password(password.expose());
    }
    let mut end = End::NextHost;
    for way in ways(params.tls.mode, host) {
        config.ssl_mode(*way);
        match bounded(params.connect_timeout, log_in(&config, *way, &place, params.tls.direct)).await {
            Ok(Ok(link)) => {
                check_version(&link.about, params, host).map_err(|error| (vec![error], End::Stop))?;
                return match unwanted(wanted, &link.about) {
                    None => Ok(link),
                    Some(what) => {
                        let place = params.shown_at(std::slice::from_ref(host));
                        let hint = "target_session_attrs says what sort of server will do";
                        Err((vec![Error::unreachable(format!("{place} is {what}")).hint(hint)], End::NextHost))
                    }
                };
            }
            Ok(Err(Unconnected::Socket(error))) => {
                failures.push(failure::no_socket(&error, params, host));
                end = End::NextHost;
                break;
            }
            Ok(Err(Unconnected::Server(error))) => {
                let from = password.as_ref().map(|(_, from)| from.as_str());
                failures.push(failure::connecting(&error, params, host, from));
                let login_refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
                let answered = error.code().is_some_and(|code| *code != SqlState::CANNOT_CONNECT_NOW);
                end = if answered { End::Stop } else { End::NextHost };
                // pg_hba.conf may have a line for the other mode, and a broken TLS setup may be optional.
                if !login_refused && failure::handshake(&error).is_none() {
                    break;
                }
            }
            Err(bound) => {
                failures.push(failure::no_answer(params, host, bound));
                break;
            }
        }
    }
    Err((failures, end))
}

/// Returns the library's configuration for a login, without password and TLS.
fn config(params: &Params) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .user(&params.user)
        .dbname(&params.database)
        .application_name(&params.application_name)
        .channel_binding(params.channel_binding);
    if let Some(options) = &params.options {
        config.options(options);
    }
    if params.tls.direct {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    config
}

/// Logs in and asks the server for its version and settings.
async fn log_in(
    config: &tokio_postgres::Config,
    way: tokio_postgres::config::SslMode,
    place: &Place,
    direct: bool,
) -> std::result::Result<Link, Unconnected> {
    use tokio_postgres::config::SslMode as Way;
    let socket = place.open().await.map_err(Unconnected::Socket)?;
    let rows = Rows::default();
    let messages = match way {
        Way::Disable => Messages::FromStart,
        _ if direct => Messages::Nowhere,
        _ => Messages::AfterRefusal,
    };
    let handshake = place.connector.handshake(&place.host.name, rows.clone());
    let connected = config.connect_raw(Tap::new(socket, messages, rows.clone()), handshake).await;
    let (client, connection) = connected.map_err(Unconnected::Server)?;
    let heard = Arc::new(Heard::default());
    let driver = tokio::spawn(drive(connection, Arc::clone(&heard)));
    // A role or database may set a statement_timeout that even the first statements exceed. A timer that expires at the
    // very end of one statement cancels the next one, as if a user had done it. So both statements are repeated.
    let mut tries = 0;
    let messages = loop {
        let asked = async {
            client.simple_query("SET statement_timeout = 0").await?;
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
            asked => break asked.map_err(Unconnected::Server)?,
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
        host: place.host.name.clone(),
        port: place.host.port,
        database: text(2),
        user: text(3),
        is_superuser: text(4) == "on",
        in_recovery: text(5) == "t",
        server_encoding: text(6),
        read_only: text(7) == "on",
    };
    let pid = text(1).parse().unwrap_or(0);
    Ok(Link { client, driver, heard, rows, place: place.clone(), about, pid })
}

/// Refuses servers that are too old, and warns if a server is newer than the supported versions.
fn check_version(about: &ServerAbout, params: &Params, host: &Host) -> Result<()> {
    let place = params.shown_at(std::slice::from_ref(host));
    match about.version_num {
        ..130_000 => Err(Error::failed(format!("{place} is PostgreSQL {}, which is not supported", about.version))
            .hint("PostgreSQL 13 to 18 are")),
        190_000.. => {
            tracing::warn!("{place} is PostgreSQL {}: 13 to 18 are supported, newer ones are untried", about.version);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Describes why a server is not of the wanted type. Returns `None` if it is.
fn unwanted(wanted: Wanted, about: &ServerAbout) -> Option<&'static str> {
    match wanted {
        Wanted::Any | Wanted::PreferStandby => None,
        Wanted::ReadWrite => (about.read_only || about.in_recovery).then_some("read-only"),
        Wanted::ReadOnly => (!about.read_only && !about.in_recovery).then_some("not read-only"),
        Wanted::Primary => about.in_recovery.then_some("a standby"),
        Wanted::Standby => (!about.in_recovery).then_some("not a standby"),
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
    fn servers_that_are_too_old_are_refused_by_their_version() {
        let params = Params::parse_in("postgres://me@db/app", &Default::default()).unwrap();
        let check = |version| check_version(&about(version, false, false), &params, &params.hosts[0]);
        for version in [130_000, 130_023, 150_018, 180_004, 190_000] {
            check(version).unwrap();
        }
        let error = check(120_022).unwrap_err();
        assert_eq!(error.message, "postgres://me@db:5432/app is PostgreSQL 12.22, which is not supported");
        assert_eq!(error.kind, crate::platform::error::Kind::Failed);
    }

    #[test]
    fn the_sort_of_server_that_is_wanted_is_libpqs() {
        use Wanted::*;
        let (primary, standby, locked) = (about(1, false, false), about(1, true, true), about(1, false, true));
        for (wanted, fits) in [
            (Any, [true, true, true]),
            (ReadWrite, [true, false, false]),
            (ReadOnly, [false, true, true]),
            (Primary, [true, false, true]),
            (Standby, [false, true, false]),
        ] {
            let found = [&primary, &standby, &locked].map(|about| unwanted(wanted, about).is_none());
            assert_eq!(found, fits, "{wanted:?}");
        }
    }

    #[test]
    fn a_random_order_has_every_host_once() {
        let items: Vec<usize> = (0..20).collect();
        let mut mixed: Vec<usize> = order(&items, true).unwrap().into_iter().copied().collect();
        mixed.sort_unstable();
        assert_eq!(mixed, items);
        assert_eq!(order(&items, false).unwrap(), items.iter().collect::<Vec<_>>());
    }
}
