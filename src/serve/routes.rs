//! The requests that `serve` accepts, and its answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, Request, Response, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::ops::gate::remote::{EXIT_CODE, RUN, RunId};
use crate::ops::{Context, error_document};
use crate::platform::error::{Error, Kind, Result};
use crate::serve::documents;
use crate::serve::page::{self, Status};
use crate::serve::requests::RunRequest;
use crate::serve::runs::{self, RunResult, Runs};
use crate::serve::status::history::is_good;
use crate::serve::status::{OverallStatus, view};
use crate::serve::watchers::Watchers;
use crate::serve::web::{Access, BODY_BYTES, BODY_TIMEOUT, BodyError, Refusal, Right, body};
use crate::snapshots::id::SnapshotId;

/// The maximum number of snapshot pages that are created at once: each reads from a store.
const PAGES_AT_ONCE: usize = 4;
/// The maximum time that a snapshot page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);
/// The time for which the overview page is reused before it is created again.
const PAGE_MAX_AGE: Duration = Duration::from_secs(1);
/// The time for which the answer about a run that has not ended is delayed. Proxies wait longer.
const RUN_HOLD: Duration = Duration::from_secs(10);
/// The default and the maximum number of snapshots in a list.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// The state that all request handlers share.
pub(super) struct Server {
    pub(super) watchers: Watchers,
    pub(super) runs: Arc<Runs>,
    pub(super) access: Access,
    pub(super) context: Arc<Context>,
    pub(super) started_at: Instant,
    page_permits: Arc<Semaphore>,
    cached_page: Mutex<Option<(Instant, String)>>,
}

type Shared = State<Arc<Server>>;

impl Server {
    pub(super) fn new(watchers: Watchers, access: Access, context: Arc<Context>) -> Arc<Server> {
        Arc::new(Server {
            watchers,
            runs: Arc::default(),
            access,
            context,
            started_at: Instant::now(),
            page_permits: Arc::new(Semaphore::new(PAGES_AT_ONCE)),
            cached_page: Mutex::new(None),
        })
    }

    fn status(&self) -> Result<OverallStatus> {
        self.watchers.status(&self.context)
    }

    /// Returns the overview page, which is created at most once a second.
    fn page(&self) -> Result<String> {
        let mut cached = self.cached_page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, page)) = cached.as_ref().filter(|(at, _)| at.elapsed() < PAGE_MAX_AGE) {
            return Ok(page.clone());
        }
        let page = view::overview(&self.status()?, &self.runs.failures(), true, &self.context).html()?;
        *cached = Some((Instant::now(), page.clone()));
        Ok(page)
    }

    /// Fails, with the answer to send, if the headers do not grant the right.
    fn admit(&self, headers: &HeaderMap, right: Right) -> std::result::Result<(), Box<Response<Body>>> {
        let refused = match self.access.check(headers, right) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        let mut answer = match refused {
            Refusal::Off => failed(
                StatusCode::FORBIDDEN,
                &Error::usage("runs cannot be requested here: no token is configured")
                    .hint("set token under [serve] in lifeboat.toml"),
            ),
            Refusal::Unknown => failed(
                StatusCode::UNAUTHORIZED,
                &Error::usage("the token or password is missing or wrong").hint(
                    "send 'Authorization: Bearer TOKEN'; 'lifeboat predeploy --remote' reads it from LIFEBOAT_TOKEN",
                ),
            ),
        };
        if refused == Refusal::Unknown {
            let scheme = if right == Right::Read { "Basic realm=\"lifeboat\", charset=\"UTF-8\"" } else { "Bearer" };
            answer.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static(scheme));
        }
        Err(Box::new(answer))
    }
}

/// Returns the router with all routes.
pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(overview))
        .route("/health", get(health))
        .route("/health/data", get(health_of_data))
        .route("/metrics", get(metrics))
        .route("/snapshots", get(list).post(take))
        .route("/snapshots/{id}", get(snapshot))
        .route("/runs/{id}", get(run))
        .fallback(unknown_path)
        .layer(from_fn_with_state(Arc::clone(&server), require_host))
        .with_state(server)
}

/// Refuses a request that addresses another host. Only `/health` answers it: health checks of platforms use the address
/// of the container or a name of their own.
async fn require_host(State(server): Shared, request: Request<Body>, next: Next) -> Response<Body> {
    if request.uri().path() == "/health" || server.access.answers_to(request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let error = Error::usage("requests for this host are not answered").hint(
        "without a token, only localhost and the loopback addresses are answered: add the host to hosts under [serve] \
         in lifeboat.toml, or set token",
    );
    failed(StatusCode::MISDIRECTED_REQUEST, &error)
}

fn answer(status: StatusCode, content_type: &'static str, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, axum::http::HeaderValue::from_static(content_type));
    answer
}

fn document(status: StatusCode, document: &Value) -> Response<Body> {
    answer(status, "application/json", format!("{document}\n"))
}

fn failed(status: StatusCode, error: &Error) -> Response<Body> {
    document(status, &json!({"error": error_document(error)}))
}

fn html(status: StatusCode, page: Result<String>) -> Response<Body> {
    match page {
        Ok(page) => answer(status, "text/html; charset=utf-8", page),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn unknown_path() -> Response<Body> {
    failed(
        StatusCode::NOT_FOUND,
        &Error::not_found("unknown path").hint("see /, /health, /health/data, /metrics and /snapshots"),
    )
}

/// Answers that the process runs. The answer says nothing about the data, and everybody gets it. Only a request for a
/// host that the server answers to gets the version.
async fn health(State(server): Shared, uri: Uri, headers: HeaderMap) -> Response<Body> {
    if !server.access.answers_to(&uri, &headers) {
        return document(StatusCode::OK, &json!({"status": "ok"}));
    }
    let up = server.started_at.elapsed().as_secs();
    document(StatusCode::OK, &json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "seconds": up}))
}

async fn health_of_data(State(server): Shared, headers: HeaderMap) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Read) {
        return *refused;
    }
    match server.status() {
        Ok(overall) => {
            let is_healthy = overall.status() == Status::Good;
            let status = if is_healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            document(status, &documents::health(&overall))
        }
        Err(error) => failed(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

async fn metrics(State(server): Shared, headers: HeaderMap) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Read) {
        return *refused;
    }
    match server.status() {
        Ok(status) => {
            let text = documents::metrics(&status, server.runs.is_running(), server.started_at.elapsed());
            answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
        }
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn overview(State(server): Shared, headers: HeaderMap) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Read) {
        return *refused;
    }
    html(StatusCode::OK, server.page())
}

#[derive(Deserialize)]
struct ListQuery {
    source: Option<String>,
    limit: Option<usize>,
}

async fn list(
    State(server): Shared,
    headers: HeaderMap,
    query: std::result::Result<Query<ListQuery>, QueryRejection>,
) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Read) {
        return *refused;
    }
    let Ok(Query(query)) = query else {
        let error = Error::usage("invalid query parameters").hint("the parameters are source=NAME and limit=N");
        return failed(StatusCode::BAD_REQUEST, &error);
    };
    match server.status() {
        Ok(status) => {
            let limit = query.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
            document(StatusCode::OK, &documents::snapshots(&status, query.source.as_deref(), limit))
        }
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

/// Answers with the page of one snapshot, which is read from a store.
async fn snapshot(State(server): Shared, headers: HeaderMap, Path(id): Path<String>) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Read) {
        return *refused;
    }
    let not_found = || {
        let message = "The snapshot was pruned, or it never existed.";
        html(StatusCode::NOT_FOUND, page::message("Snapshot not found", message))
    };
    let Ok(id) = id.parse::<SnapshotId>() else { return not_found() };
    let status = match server.status() {
        Ok(status) => status,
        Err(error) => return failed(StatusCode::INTERNAL_SERVER_ERROR, &error),
    };
    let of_source = status.sources.iter().find(|source| source.name == *id.source());
    let snapshots = of_source.map(|source| source.snapshots.as_slice()).unwrap_or_default();
    let Some(at) = snapshots.iter().position(|described| described.listed.id == id) else { return not_found() };
    let described = Arc::clone(&snapshots[at]);
    let before = snapshots[at + 1..].iter().find(|described| is_good(described)).map(|one| one.listed.id.clone());
    let made = tokio::time::timeout(PAGE_TIMEOUT, async {
        // The permit is held until the work is done, even if the client no longer waits: a store that hangs blocks
        // at most `PAGES_AT_ONCE` threads.
        let permit = Arc::clone(&server.page_permits).acquire_owned().await;
        let context = Arc::clone(&server.context);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            view::snapshot(&id, &described, before.as_ref(), &context)
        })
        .await
    });
    match made.await {
        Ok(Ok(Ok(Some(page)))) => html(StatusCode::OK, page.html()),
        Ok(Ok(Ok(None))) => not_found(),
        Ok(Ok(Err(error))) => {
            html(StatusCode::BAD_GATEWAY, page::message("The snapshot cannot be shown", &error.full_message()))
        }
        Ok(Err(_)) => html(StatusCode::INTERNAL_SERVER_ERROR, page::message("The page cannot be created", "")),
        Err(_) => html(
            StatusCode::GATEWAY_TIMEOUT,
            page::message("The store does not answer", "The store did not return the snapshot in time."),
        ),
    }
}

/// Starts a run: snapshots of the config's sources, or a gate.
async fn take(State(server): Shared, headers: HeaderMap, request: Request<Body>) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Act) {
        return *refused;
    }
    let body = match body(request).await {
        Ok(body) => body,
        Err(BodyError::TooLong) => {
            let error = Error::usage(format!("the request body is longer than {BODY_BYTES} bytes"));
            return failed(StatusCode::PAYLOAD_TOO_LARGE, &error);
        }
        Err(BodyError::Late) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let error = Error::usage(format!("the request body did not arrive within {seconds} seconds"));
            return failed(StatusCode::REQUEST_TIMEOUT, &error);
        }
        Err(BodyError::Unreadable) => {
            return failed(StatusCode::BAD_REQUEST, &Error::usage("the request body is not complete"));
        }
    };
    let run_request = match server.watchers.names().and_then(|names| RunRequest::read(&body, &names)) {
        Ok(run_request) => run_request,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &error),
    };
    let id = match headers.get(RUN).map(|id| id.to_str().unwrap_or_default().parse::<RunId>()).transpose() {
        Ok(id) => id,
        Err(error) => return failed(StatusCode::BAD_REQUEST, &error),
    };
    // A request that is repeated, because its answer was lost, does not start another run.
    if let Some((id, result)) = id.as_ref().and_then(|id| Some((id, server.runs.find(id)?))) {
        return run_answer(Some(id), result, Duration::ZERO).await;
    }
    let Some(turn) = server.runs.turn() else {
        let error = Error::failed("another snapshot is already being taken, or a gate runs")
            .hint("repeat the request when it has ended; GET /snapshots lists the snapshots");
        let mut answer = failed(StatusCode::CONFLICT, &error);
        answer.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("5"));
        return answer;
    };
    let (sender, result) = watch::channel(None);
    if let Some(id) = &id {
        server.runs.remember(id.clone(), result.clone());
    }
    // The run goes on even if the client disconnects.
    tokio::task::spawn_blocking(move || {
        let pause = || run_request.changes_data().then(|| server.watchers.pause(run_request.sources())).transpose();
        let done = runs::run(&run_request, pause, &turn, &server.context);
        sender.send_replace(Some(Arc::new(done)));
        drop(turn);
    });
    // A client that can ask for the result by the run's number gets an answer at once, because a proxy may cut a long
    // request.
    let hold = if id.is_some() { Duration::ZERO } else { Duration::MAX };
    run_answer(id.as_ref(), result, hold).await
}

/// Answers with the result of a run. If it has not ended yet, the answer is delayed a little.
async fn run(State(server): Shared, headers: HeaderMap, Path(id): Path<String>) -> Response<Body> {
    if let Err(refused) = server.admit(&headers, Right::Act) {
        return *refused;
    }
    let found = id.parse::<RunId>().ok().and_then(|id| Some((server.runs.find(&id)?, id)));
    match found {
        Some((result, id)) => run_answer(Some(&id), result, RUN_HOLD).await,
        None => {
            let error = Error::not_found("there is no run with this number since the start of this process");
            failed(StatusCode::NOT_FOUND, &error)
        }
    }
}

/// Answers with the result of a run, or after `hold` that it has not ended.
async fn run_answer(id: Option<&RunId>, mut result: RunResult, hold: Duration) -> Response<Body> {
    let ended = tokio::time::timeout(hold, result.wait_for(Option::is_some)).await;
    let done = match ended {
        Err(_) => {
            let id = id.map(RunId::to_string);
            return document(StatusCode::ACCEPTED, &json!({"running": true, "run": id}));
        }
        Ok(done) => done.ok().and_then(|done| done.clone()),
    };
    let Some(done) = done else {
        let error = Error::failed("the run failed because of a bug in lifeboat");
        return failed(StatusCode::INTERNAL_SERVER_ERROR, &error);
    };
    let status = match done.code {
        0 if done.takes_snapshots => StatusCode::CREATED,
        0 => StatusCode::OK,
        code if code == Kind::Usage.exit_code() => StatusCode::BAD_REQUEST,
        code if code == Kind::Problem.exit_code() => StatusCode::UNPROCESSABLE_ENTITY,
        code if code == Kind::Unreachable.exit_code() || code == Kind::Interrupted.exit_code() => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut answer = document(status, &done.document);
    answer.headers_mut().insert(EXIT_CODE, axum::http::HeaderValue::from(u16::from(done.code)));
    answer
}
