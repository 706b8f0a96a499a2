//! The HTTPS server.

mod acceptor;
pub mod connection_slots;
pub mod limits;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::acceptor::Door;
use self::connection_slots::ConnectionSlots;
use self::limits::{Limiter, RequestLimits};
use super::admission::Admission;
use super::certificates::Resolver;
use super::review::Rejection;
use ensign_core::webhook_configuration::MUTATE_PODS_PATH;

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Until the head of a connection's first request is there.
const FIRST_REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Until the head of the next one is there, so it also ends connections that rest. API servers end those after 90 s; to end
/// one before they do is to lose the request that they send at that moment, and with it a pod.
const REST_DEADLINE: Duration = Duration::from_secs(150);
/// How long requests under way may take once no new ones are taken.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// When a client that was sent away for the moment should come again. The API server does.
const RETRY_AFTER_SECONDS: u16 = 1;

#[derive(Clone)]
struct Served {
    admission: Arc<Admission>,
    capacity: Limiter,
}

/// The webhook's one route.
pub fn router(admission: Arc<Admission>, limits: RequestLimits) -> Router {
    let served = Served { admission, capacity: Limiter::new(limits) };
    Router::new().route(MUTATE_PODS_PATH, post(mutate_pods)).with_state(served)
}

async fn mutate_pods(State(Served { admission, capacity }): State<Served>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut chunks = body.into_data_stream();
    let answered = timeout(capacity.deadline(), async {
        let answer = async {
            check_content_type(&head.headers)?;
            let _turn = capacity.turn().await?;
            let body = capacity.read(&mut chunks, content_length(&head.headers)).await?;
            admission.review(body.bytes()).await
        };
        let answer = answer.await;
        if answer.is_err() {
            limits::discard(&mut chunks).await;
        }
        answer
    });
    let too_slow = |_| Rejection::new(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive or to answer");
    match answered.await.map_err(too_slow).flatten() {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(rejection) => {
            tracing::warn!(status = rejection.status.as_u16(), error = %rejection, "request rejected");
            let mut response = (rejection.status, format!("{rejection}\n")).into_response();
            if rejection.status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
            }
            response
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
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

/// Serves until `stop` and for `lame_duck` after it, in which clients are asked to go elsewhere, then finishes the
/// requests under way.
///
/// Whoever sends requests here learns only after a while that this replica is no longer ready. A connection that is
/// closed while a request is on its way to it costs that request, so during that time each is closed with its next
/// answer, and only those that nobody has used are closed without one.
///
/// # Errors
/// When the TLS configuration is refused, or the listener breaks.
pub async fn serve(
    listener: TcpListener,
    resolver: Arc<Resolver>,
    router: Router,
    connections: usize,
    lame_duck: Duration,
    stop: CancellationToken,
) -> io::Result<()> {
    let tls = RustlsConfig::from_config(Arc::new(resolver.server_config().map_err(io::Error::other)?));
    let tls = RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_DEADLINE).acceptor(NoDelayAcceptor::new());
    let handle: Handle<SocketAddr> = Handle::new();
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(Door::new(ConnectionSlots::new(connections), tls, stop.clone()))
        .handle(handle.clone())
        .first_request_timeout(FIRST_REQUEST_DEADLINE)
        .http1_only();
    server.http_builder().http1().header_read_timeout(REST_DEADLINE);
    let drain = async {
        stop.cancelled().await;
        sleep(lame_duck).await;
        handle.graceful_shutdown(Some(DRAIN_DEADLINE));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = server.serve(router.into_make_service()) => outcome,
        () = drain => Ok(()),
    }
}
