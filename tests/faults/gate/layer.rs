//! The gate as a layer of a client.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use kube::client::Body as KubeBody;
use tower::{BoxError, Layer, Service};

use super::{Gate, lock};

/// A response whose body has one type.
pub struct AnyResponse(pub(super) Response<Body>);

impl<B> From<Response<B>> for AnyResponse
where
    B: axum::body::HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn from(response: Response<B>) -> Self {
        Self(response.map(Body::new))
    }
}

/// Wraps a client's service in the gate.
#[derive(Clone)]
pub struct GateLayer(pub Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = GateService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        GateService { gate: self.0.clone(), inner }
    }
}

#[derive(Clone)]
pub struct GateService<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<Request<KubeBody>> for GateService<S>
where
    S: Service<Request<KubeBody>, Error = BoxError> + Clone + Send + 'static,
    S::Response: Into<AnyResponse> + Send,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<KubeBody>) -> Self::Future {
        // Use the service that is ready, and keep its clone.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let gate = self.gate.clone();
        let target = request.uri().to_string();
        *lock(&gate.last) = format!("{} {target}", request.method());
        let action = gate.due(request.method().as_str(), &target);
        let under_way = UnderWay::new(gate.clone());
        async move {
            let answer = gate.pass(inner, request, action).await;
            drop(under_way);
            answer
        }
        .boxed()
    }
}

struct UnderWay(Arc<Gate>);

impl UnderWay {
    fn new(gate: Arc<Gate>) -> Self {
        gate.under_way.fetch_add(1, Ordering::SeqCst);
        Self(gate)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.seen.fetch_add(1, Ordering::SeqCst);
    }
}
