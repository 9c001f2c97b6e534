//! Answers over HTTP: the connections, and what bounds them. What is asked and answered is the affair of whoever calls.
//!
//! A request's head must come within [`HEAD`], and be no longer than [`HEAD_BYTES`]; so must a connection that is kept be
//! used again. There are at most [`CONNECTIONS`] at once: who comes later waits. What is not taken is given up after
//! [`UNTAKEN`]. A signal to stop lets the answers that are under way end, for as long as the grace is.

mod access;

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::platform::error::{Error, Result};
use crate::platform::interrupt;

pub use crate::serve::web::access::{Access, Refusal, Right};

/// How long the head of a request may take.
pub const HEAD: Duration = Duration::from_secs(5);
/// How long the body of a request may take.
pub const BODY: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
pub const HEAD_BYTES: usize = 16 << 10;
/// The most bytes of a request's body.
pub const BODY_BYTES: usize = 64 << 10;
/// The most connections at once.
pub const CONNECTIONS: usize = 512;
/// How long it may take until bytes that were sent are taken.
pub const UNTAKEN: Duration = Duration::from_secs(30);
/// How often it is looked whether a signal asked to stop.
const TICK: Duration = Duration::from_millis(50);

/// What every answer says of itself: that it is what it says, is nobody's to keep, and is shown in no other page.
const HEADERS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// Answers until a signal asks to stop; then waits for the answers that are under way, no longer than the grace.
pub fn serve(listener: TcpListener, router: Router, policy: &str, grace: Duration) -> Result<()> {
    let policy = HeaderValue::try_from(policy).map_err(|error| Error::failed("no such policy").because(error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("web").enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed("cannot start threads").because(error))?;
    let served = runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        answer_all(&listener, router, policy, grace).await;
        Ok(())
    });
    // What is still being done for nobody is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn answer_all(listener: &tokio::net::TcpListener, router: Router, policy: HeaderValue, grace: Duration) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while interrupt::check().is_ok() {
        let Ok(Ok(slot)) = tokio::time::timeout(TICK, Arc::clone(&slots).acquire_owned()).await else { continue };
        let stream = match tokio::time::timeout(TICK, listener.accept()).await {
            Ok(Ok((stream, _))) => stream,
            // Too many open files, say: a moment later there may be fewer.
            Ok(Err(error)) => {
                tracing::warn!("a connection was not taken: {error}");
                tokio::time::sleep(TICK).await;
                continue;
            }
            Err(_) => continue,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(bounded(stream)), service(router.clone(), policy.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // Whoever is at the other end may go away at any time.
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(slot);
        });
    }
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some answers were not whole when it was time to stop");
    }
}

/// A connection whose other end must take what it is sent.
fn bounded(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, UNTAKEN.as_millis().try_into().unwrap_or(u32::MAX));
    stream
}

type Answer = std::result::Result<Response<Body>, Infallible>;

/// What answers the requests of a connection.
fn service(
    router: Router,
    policy: HeaderValue,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Answer> + Send,
> {
    service_fn(move |request: Request<Incoming>| {
        let (mut router, policy) = (router.clone(), policy.clone());
        async move {
            let mut answer = tower_call(&mut router, request.map(Body::new)).await?;
            let headers = answer.headers_mut();
            for (name, value) in HEADERS {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers.insert(CONTENT_SECURITY_POLICY, policy);
            Ok(answer)
        }
    })
}

async fn tower_call(router: &mut Router, request: Request<Body>) -> Answer {
    use tower_service::Service as _;
    // A router is always ready.
    router.call(request).await
}

/// The body of a request, whole; None where it is longer than [`BODY_BYTES`], or takes longer than [`BODY`].
pub async fn body(request: Request<Body>) -> Option<Vec<u8>> {
    let read = axum::body::to_bytes(request.into_body(), BODY_BYTES);
    let bytes = tokio::time::timeout(BODY, read).await.ok()?.ok()?;
    Some(bytes.to_vec())
}
