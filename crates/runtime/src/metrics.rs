//! Metrics in Prometheus' text format, at `/metrics` next to the health checks.
//!
//! Labels are closed enums, never names of objects: the number of series does not grow with the cluster, and a scrape does
//! not reveal who uses which identity. Each process registers its metrics; docs/metrics.md lists all of them, and a test
//! compares the two.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Implements [`EncodeLabelValue`](prometheus_client::encoding::EncodeLabelValue) for an enum, with the value of the label
/// for each variant: `label_values!(Outcome { Done => "done", Failed => "failed" });`.
#[macro_export]
macro_rules! label_values {
    ($type:ty { $($variant:ident => $value:literal),+ $(,)? }) => {
        impl ::prometheus_client::encoding::EncodeLabelValue for $type {
            fn encode(
                &self,
                encoder: &mut ::prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> ::core::result::Result<(), ::core::fmt::Error> {
                let value = match self {
                    $(Self::$variant => $value,)+
                };
                ::core::fmt::Write::write_str(encoder, value)
            }
        }
    };
}

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a process; registered first, served afterwards.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Registry>);

/// The registry of a process, with the metric of every process: its version.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("ensign_build", "Version that is running", build);
    registry
}

impl From<Registry> for Metrics {
    fn from(registry: Registry) -> Self {
        Self(Arc::new(registry))
    }
}

impl Metrics {
    /// All metrics as text.
    ///
    /// # Errors
    /// If a value can't be written.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// The route `/metrics`.
pub fn router(metrics: Metrics) -> Router {
    Router::new().route("/metrics", get(serve)).with_state(metrics)
}

async fn serve(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to encode metrics");
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
    async fn metrics_are_served_as_text() {
        let counter: Counter = Counter::default();
        let mut registry = Registry::default();
        registry.register("ships", "Ships that passed", counter.clone());
        let routes = router(registry.into());
        counter.inc_by(7);
        let response = routes.oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!(String::from_utf8(text.into()).unwrap().contains("ships_total 7\n"));
    }
}
