//! `serve`: reports the health of the data over HTTP, to platforms, to Prometheus, and to people.

mod documents;
pub(crate) mod page;
pub(crate) mod report;
mod requests;
mod routes;
mod runs;
pub(crate) mod status;
mod watchers;
pub(crate) mod web;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::Serve;
use crate::ops::{Context, Report};
use crate::platform::error::{Error, Result};
use crate::serve::routes::{Server, router};
use crate::serve::watchers::Watchers;
use crate::serve::web::Access;

/// The maximum time that answers under way may take after a signal has asked the server to stop.
const GRACE: Duration = Duration::from_secs(20);

/// Options of [`run`].
#[derive(Clone, Debug, Default)]
pub(crate) struct ServeOptions {
    /// The address to listen on; default: listen in the config, or 127.0.0.1:8700.
    pub listen: Option<SocketAddr>,
}

/// The result of the command.
#[derive(Debug, Serialize)]
pub(crate) struct ServeReport {
    /// The address that it listened on.
    pub listen: SocketAddr,
    /// The time that it ran, in seconds.
    pub seconds: f64,
}

impl Report for ServeReport {}

/// Runs the command until a signal asks it to stop.
pub(crate) fn run(options: &ServeOptions, context: &Arc<Context>) -> Result<ServeReport> {
    let started_at = Instant::now();
    let config = context.config.as_ref().ok_or_else(|| {
        Error::usage("serve shows the sources of a config, but there is no config")
            .hint("name one with --config; 'lifeboat init' writes one")
    })?;
    let Serve { listen, every, timeout, token, login, public, hosts } = config.serve()?.clone();
    let listen = options.listen.unwrap_or(listen);
    let access = Access { token, login, public, hosts };
    let seconds = |time: chrono::Duration| time.to_std().unwrap_or(Duration::from_secs(1));
    let listener = TcpListener::bind(listen).map_err(|error| {
        Error::unreachable(format!("cannot listen at {listen}"))
            .hint("another program may listen there; choose another port with --listen")
            .because(error)
    })?;
    let listen = listener.local_addr()?;
    let watchers = Watchers::start(context, seconds(every), seconds(timeout))?;
    if access.is_open() && !listen.ip().is_loopback() {
        tracing::warn!(
            "everyone who can connect to {listen} can read table names and row counts: set token under [serve]; without \
             a token, only requests for localhost and the hosts under [serve] are answered"
        );
    }
    tracing::info!("listening at http://{listen}");
    let server = Server::new(watchers, access, Arc::clone(context));
    let runs = Arc::clone(&server.runs);
    web::serve(listener, router(server), &page::policy(), GRACE)?;
    // The signal also interrupts the run in progress, which may still have something to undo.
    let stopped_at = Instant::now();
    while runs.is_running() && stopped_at.elapsed() < GRACE {
        std::thread::sleep(Duration::from_millis(20));
    }
    tracing::info!("stopped");
    Ok(ServeReport { listen, seconds: started_at.elapsed().as_secs_f64() })
}
