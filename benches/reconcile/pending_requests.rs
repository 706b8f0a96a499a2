//! Counts the requests of a client that wait for a response.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};

use tower::{Layer, Service};

/// A layer that counts requests without a response.
#[derive(Clone, Default)]
pub struct PendingRequests {
    now: Arc<AtomicI64>,
    all: Arc<AtomicU64>,
}

impl PendingRequests {
    /// How many wait for a response, and how many were ever sent.
    pub fn counts(&self) -> (i64, u64) {
        (self.now.load(Ordering::SeqCst), self.all.load(Ordering::SeqCst))
    }
}

impl<S> Layer<S> for PendingRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, count: self.clone() }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub struct Counted<S> {
    inner: S,
    count: PendingRequests,
}

impl<R, S: Service<R>> Service<R> for Counted<S>
where
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let begun = Begun(self.count.now.clone());
        self.count.now.fetch_add(1, Ordering::SeqCst);
        self.count.all.fetch_add(1, Ordering::SeqCst);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let begun = begun;
            let answer = answer.await;
            drop(begun);
            answer
        })
    }
}

struct Begun(Arc<AtomicI64>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
