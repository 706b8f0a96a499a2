//! Admission reviews over HTTPS.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::limits::{LimitError, Limiter, RequestLimits};
use super::admission::Admission;
use super::certificates::Resolver;
use super::review::Rejection;
use ensign_core::webhook_configuration::MUTATE_PODS_PATH;
use ensign_runtime::error_chain;
use ensign_runtime::server::{self, ServerOptions};

pub use ensign_runtime::server::limits;

/// When to retry a request for which there was no capacity. API servers do so.
const RETRY_AFTER_SECONDS: u16 = 1;

#[derive(Clone)]
struct Handler {
    admission: Arc<Admission>,
    limiter: Limiter,
}

/// The webhook's one route.
pub fn router(admission: Arc<Admission>, limits: RequestLimits) -> Router {
    let handler = Handler { admission, limiter: Limiter::new(limits) };
    Router::new().route(MUTATE_PODS_PATH, post(mutate_pods)).with_state(handler)
}

async fn mutate_pods(State(Handler { admission, limiter }): State<Handler>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut chunks = body.into_data_stream();
    let reviewed = timeout(limiter.deadline(), async {
        let reviewed = async {
            check_content_type(&head.headers)?;
            let _permit = limiter.admit().await?;
            let body = limiter.read(&mut chunks, content_length(&head.headers)).await?;
            admission.review(body.bytes()).await
        };
        let reviewed = reviewed.await;
        if reviewed.is_err() {
            limits::discard(&mut chunks).await;
        }
        reviewed
    });
    let too_slow = |_| Rejection::new(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive or to process");
    match reviewed.await.map_err(too_slow).flatten() {
        Ok(review) => ([(header::CONTENT_TYPE, "application/json")], review).into_response(),
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

impl From<LimitError> for Rejection {
    fn from(error: LimitError) -> Self {
        let status = match error {
            LimitError::TooManyRequests | LimitError::OutOfMemory => StatusCode::SERVICE_UNAVAILABLE,
            LimitError::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            LimitError::Body(_) => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error_chain::line(&error))
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

/// Serves until `stop` and for `lame_duck` after it; see [`server::serve`].
///
/// # Errors
/// When the TLS configuration is invalid, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    resolver: Arc<Resolver>,
    router: Router,
    connections: usize,
    lame_duck: Duration,
    stop: CancellationToken,
) -> io::Result<()> {
    let tls = resolver.server_config().map_err(io::Error::other)?;
    server::serve(listener, Arc::new(tls), router, ServerOptions { connections, lame_duck }, stop).await
}
