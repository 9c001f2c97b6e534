//! Serves HTTP: the connections and their limits. The caller's router decides what is answered.
//!
//! A request's head must arrive within [`HEAD_TIMEOUT`], and be no longer than [`HEAD_BYTES`]. A connection that is
//! kept alive must be used again within [`HEAD_TIMEOUT`]. At most [`MAX_CONNECTIONS`] are open at once; later ones
//! wait. A connection is closed if the client does not receive sent bytes within [`SEND_TIMEOUT`]. After a signal to
//! stop, the answers under way may still complete within the grace period.

mod access;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
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

pub(crate) use crate::serve::web::access::{Access, Refusal, Right};

/// The maximum time that the head of a request may take.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum time that the body of a request may take.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum size of a request's head, in bytes.
pub(crate) const HEAD_BYTES: usize = 16 << 10;
/// The maximum size of a request's body, in bytes.
pub(crate) const BODY_BYTES: usize = 64 << 10;
/// The maximum number of connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 512;
/// The maximum time until the client must have received bytes that were sent.
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between checks for a signal to stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The headers of every answer: its content type is not guessed, it is not cached, and no other page may embed it.
const HEADERS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
];

/// Answers requests until a signal asks to stop. Then waits for the answers under way, no longer than `grace`.
pub(crate) fn serve(listener: TcpListener, router: Router, policy: &str, grace: Duration) -> Result<()> {
    let policy = HeaderValue::try_from(policy)
        .map_err(|error| Error::failed("the Content-Security-Policy is not a valid header value").because(error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("web").enable_all().build();
    let runtime = runtime.map_err(|error| Error::failed("cannot start threads").because(error))?;
    let served = runtime.block_on(async {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        answer_all(&listener, router, policy, grace).await;
        Ok(())
    });
    // Work whose client no longer waits gets one more second.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn answer_all(listener: &tokio::net::TcpListener, router: Router, policy: HeaderValue, grace: Duration) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    while interrupt::check().is_ok() {
        let free_slot = Arc::clone(&slots).acquire_owned();
        let Ok(Ok(slot)) = tokio::time::timeout(CHECK_INTERVAL, free_slot).await else { continue };
        let stream = match tokio::time::timeout(CHECK_INTERVAL, listener.accept()).await {
            Ok(Ok((stream, _))) => stream,
            // For example, too many files are open: a moment later there may be fewer.
            Ok(Err(error)) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(CHECK_INTERVAL).await;
                continue;
            }
            Err(_) => continue,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(bounded(stream)), service(router.clone(), policy.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // The client may disconnect at any time.
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(slot);
        });
    }
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some answers were not complete when the server stopped");
    }
}

/// Sets the limit [`SEND_TIMEOUT`] on a connection.
fn bounded(stream: TcpStream) -> TcpStream {
    let _ = stream.set_nodelay(true);
    let timeout_ms = SEND_TIMEOUT.as_millis().try_into().unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, timeout_ms);
    stream
}

type Answer = std::result::Result<Response<Body>, Infallible>;

/// Returns the service that answers the requests of a connection.
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
            let mut answer = call(&mut router, request.map(Body::new)).await?;
            let headers = answer.headers_mut();
            for (name, value) in HEADERS {
                headers.insert(name, HeaderValue::from_static(value));
            }
            headers.insert(CONTENT_SECURITY_POLICY, policy);
            Ok(answer)
        }
    })
}

async fn call(router: &mut Router, request: Request<Body>) -> Answer {
    use tower_service::Service as _;
    // A router is always ready.
    router.call(request).await
}

/// The reason why the body of a request was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// It is longer than [`BODY_BYTES`].
    TooLong,
    /// It did not arrive within [`BODY_TIMEOUT`].
    Late,
    /// The connection ended before it was complete, or its encoding is invalid.
    Unreadable,
}

/// Reads the whole body of a request.
pub(crate) async fn body(request: Request<Body>) -> std::result::Result<Vec<u8>, BodyError> {
    tokio::time::timeout(BODY_TIMEOUT, read_all(request.into_body())).await.unwrap_or(Err(BodyError::Late))
}

async fn read_all(mut body: Body) -> std::result::Result<Vec<u8>, BodyError> {
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(BodyError::TooLong);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|_| BodyError::Unreadable)?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > BODY_BYTES {
            return Err(BodyError::TooLong);
        }
    }
    Ok(bytes)
}
