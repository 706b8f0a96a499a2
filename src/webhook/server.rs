//! The HTTPS server.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use bytes::Bytes;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::admission::Admission;
use super::certificates::Resolver;
use super::review::Rejection;
use crate::decide::registration::MUTATE_PODS_PATH;

/// The API server stores objects of up to 1.5 MiB and accepts requests of up to 3 MiB; a review wraps one object.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// For reading a request and answering it. The API server gives up after five seconds.
const REQUEST_DEADLINE: Duration = Duration::from_millis(4_500);
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);
const MAX_CONCURRENT_STREAMS: u32 = 250;
/// How long requests under way may take once the process stops.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// What one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Time for reading and answering it.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: MAX_BODY_BYTES, deadline: REQUEST_DEADLINE }
    }
}

#[derive(Clone)]
struct Served {
    admission: Arc<Admission>,
    limits: Limits,
}

/// The webhook's one route.
pub fn router(admission: Arc<Admission>, limits: Limits) -> Router {
    Router::new()
        .route(MUTATE_PODS_PATH, post(mutate_pods))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .with_state(Served { admission, limits })
}

async fn mutate_pods(State(Served { admission, limits }): State<Served>, request: Request) -> Response {
    let answered = timeout(limits.deadline, async {
        let body = read(request, limits).await?;
        admission.review(&body).await
    });
    let too_slow = |_| Rejection::new(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive or to answer");
    match answered.await.map_err(too_slow).flatten() {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(rejection) => {
            tracing::warn!(status = rejection.status.as_u16(), error = %rejection, "request rejected");
            (rejection.status, format!("{rejection}\n")).into_response()
        }
    }
}

async fn read(request: Request, limits: Limits) -> Result<Bytes, Rejection> {
    check_content_type(request.headers())?;
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Rejection::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} bytes", limits.body_bytes),
        ),
        // A client that went away, or broke the protocol.
        _ => Rejection::new(StatusCode::BAD_REQUEST, format!("the body can't be read: {}", rejection.body_text())),
    })
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Rejection> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Rejection::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send an AdmissionReview with content-type application/json",
        ))
    }
}

/// Serves until `stop`, then finishes the requests under way.
///
/// # Errors
/// When the TLS configuration is refused, or the listener breaks.
pub async fn serve(
    listener: TcpListener,
    resolver: Arc<Resolver>,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let tls = RustlsConfig::from_config(Arc::new(resolver.server_config().map_err(io::Error::other)?));
    let acceptor = RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_DEADLINE).acceptor(NoDelayAcceptor::new());
    let handle: Handle<SocketAddr> = Handle::new();
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(acceptor)
        .handle(handle.clone())
        .first_request_timeout(HEADER_DEADLINE);
    server.http_builder().http1().header_read_timeout(HEADER_DEADLINE);
    server
        .http_builder()
        .http2()
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_DEADLINE);
    let drain = async {
        stop.cancelled().await;
        handle.graceful_shutdown(Some(DRAIN_DEADLINE));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = server.serve(router.into_make_service()) => outcome,
        () = drain => Ok(()),
    }
}
