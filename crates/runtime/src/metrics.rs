//! Metrics in the text format of Prometheus, at `/metrics` beside the health checks.
//!
//! Labels are closed enums, never names of objects: the number of series does not grow with a cluster, and a scrape tells
//! nobody who uses what. Each process registers what it counts; docs/metrics.md lists it all, and a test compares the two.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a process counts; registered first, served afterwards.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Registry>);

/// The registry of a process, with what every process tells: its version.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("ensign_build", "The version that runs", build);
    registry
}

impl From<Registry> for Metrics {
    fn from(registry: Registry) -> Self {
        Self(Arc::new(registry))
    }
}

impl Metrics {
    /// Everything as text.
    ///
    /// # Errors
    /// When a value can't be written.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// The route `/metrics`.
pub fn router(metrics: Metrics) -> Router {
    Router::new().route("/metrics", get(answer)).with_state(metrics)
}

async fn answer(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics can't be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn what_is_counted_is_served_as_text() {
        let counter: Counter = Counter::default();
        let mut registry = Registry::default();
        registry.register("ships", "Ships that were seen", counter.clone());
        let routes = router(registry.into());
        counter.inc_by(7);
        let answer = routes.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        let text = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert!(String::from_utf8(text.into()).unwrap().contains("ships_total 7\n"));
    }
}
