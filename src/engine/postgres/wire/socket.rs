//! The socket to a server: TCP, or a Unix socket in a folder of this machine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::engine::postgres::wire::params::{Host, Keepalives};

/// A stream of bytes in both directions.
pub(in crate::engine::postgres) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// An open socket of either type.
pub(in crate::engine::postgres) type Socket = Box<dyn Wire>;

/// The address of a server: an IP address of the host, or the folder of its Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::postgres) enum Address {
    /// The IP address; the port is the host's.
    Tcp(IpAddr),
    /// The folder is the host's name.
    Folder,
}

/// Opens the socket. The caller sets a time limit.
pub(in crate::engine::postgres) async fn open(
    host: &Host,
    address: Address,
    keepalives: &Keepalives,
) -> io::Result<Socket> {
    match address {
        Address::Folder => {
            let path = Path::new(&host.name).join(format!(".s.PGSQL.{}", host.port));
            Ok(Box::new(UnixStream::connect(path).await?))
        }
        Address::Tcp(address) => {
            let stream = TcpStream::connect(SocketAddr::new(address, host.port)).await?;
            stream.set_nodelay(true)?;
            keep_alive(&stream, keepalives)?;
            Ok(Box::new(stream))
        }
    }
}

/// Makes the kernel detect and report a dead connection.
fn keep_alive(stream: &TcpStream, keepalives: &Keepalives) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if let Some(limit) = keepalives.user_timeout {
        sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))?;
    }
    if !keepalives.on {
        return Ok(());
    }
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, keepalives.idle)?;
    if let Some(interval) = keepalives.interval {
        sockopt::set_tcp_keepintvl(stream, interval)?;
    }
    if let Some(count) = keepalives.count {
        sockopt::set_tcp_keepcnt(stream, count)?;
    }
    Ok(())
}
