//! What clients may use: per request, and all requests together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The API server stores objects of up to 1.5 MiB and accepts requests of up to 3 MiB; a review wraps one object.
const MAX_BODY_BYTES: usize = 4 * MIB;
/// For reading a request and responding to it. The API server gives up after five seconds.
const REQUEST_DEADLINE: Duration = Duration::from_millis(4_500);
/// How long a request waits for capacity before its client is asked to retry, within the client's own deadline.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of a rejected body is read and thrown away.
const MAX_DISCARDED_BYTES: usize = 32 * MIB;
/// Allocated for an announced body before any of it has arrived; most reviews fit.
const INITIAL_BODY_BYTES: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// Default of [`RequestLimits::connections`]. An API server keeps 25 idle ones.
pub const DEFAULT_CONNECTIONS: usize = 1_024;
/// Default of [`RequestLimits::requests`].
pub const DEFAULT_REQUESTS: usize = 256;
/// Default of [`RequestLimits::memory_bytes`].
pub const DEFAULT_MEMORY_BYTES: usize = 64 * MIB;

/// What clients may use. The defaults suit a server whose clients are API servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Time for reading one request and responding to it.
    pub deadline: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Requests at a time.
    pub requests: usize,
    /// How long a request waits to be admitted, or for memory.
    pub patience: Duration,
    /// Bytes of all bodies at a time.
    pub memory_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_bytes: MAX_BODY_BYTES,
            deadline: REQUEST_DEADLINE,
            connections: DEFAULT_CONNECTIONS,
            requests: DEFAULT_REQUESTS,
            patience: PATIENCE,
            memory_bytes: DEFAULT_MEMORY_BYTES,
        }
    }
}

/// A request exceeds the limits, or its body can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Too many others are in flight; retrying may help.
    #[error("too many requests are in flight")]
    TooManyRequests,
    /// The bodies of others use up the memory; retrying may help.
    #[error("the memory for request bodies is used up")]
    OutOfMemory,
    /// Its body is too large.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The client closed the connection, or violated the protocol.
    #[error("cannot read the body")]
    Body(#[source] axum::Error),
}

/// The capacity for requests. A request that finds none waits for a while and is then rejected: API servers retry, and
/// memory does not grow with the number of clients.
#[derive(Clone, Debug)]
pub struct Limiter {
    limits: RequestLimits,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The right to have a request in flight, until it is dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// A request body, which counts as used memory until it is dropped.
#[derive(Debug)]
pub struct LimitedBody {
    bytes: Vec<u8>,
    memory: Option<OwnedSemaphorePermit>,
}

impl Limiter {
    /// A limiter with its whole capacity.
    pub fn new(limits: RequestLimits) -> Self {
        let requests = Arc::new(Semaphore::new(limits.requests));
        let bytes = Arc::new(Semaphore::new(limits.memory_bytes));
        Self { limits, requests, bytes }
    }

    /// Time for one request.
    pub fn deadline(&self) -> Duration {
        self.limits.deadline
    }

    /// Admits a request, after waiting if need be.
    pub async fn admit(&self) -> Result<Permit, LimitError> {
        let permit = timeout(self.limits.patience, Arc::clone(&self.requests).acquire_owned()).await;
        // The semaphore is never closed.
        permit.ok().and_then(Result::ok).map(Permit).ok_or(LimitError::TooManyRequests)
    }

    /// Reads a body. Memory is counted as it arrives, so that a client that announces much and sends little uses little.
    pub async fn read(&self, chunks: &mut BodyDataStream, announced: Option<usize>) -> Result<LimitedBody, LimitError> {
        if announced.is_some_and(|bytes| bytes > self.limits.body_bytes) {
            return Err(self.too_large());
        }
        let capacity = announced.unwrap_or_default().min(INITIAL_BODY_BYTES);
        let mut body = LimitedBody { bytes: Vec::with_capacity(capacity), memory: None };
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(LimitError::Body)?;
            if body.bytes.len() + chunk.len() > self.limits.body_bytes {
                return Err(self.too_large());
            }
            self.reserve(&mut body, chunk.len()).await?;
            body.bytes.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn reserve(&self, body: &mut LimitedBody, bytes: usize) -> Result<(), LimitError> {
        let bytes = u32::try_from(bytes).map_err(|_| LimitError::OutOfMemory)?;
        let more = timeout(self.limits.patience, Arc::clone(&self.bytes).acquire_many_owned(bytes)).await;
        let more = more.ok().and_then(Result::ok).ok_or(LimitError::OutOfMemory)?;
        match &mut body.memory {
            Some(memory) => memory.merge(more),
            None => body.memory = Some(more),
        }
        Ok(())
    }

    fn too_large(&self) -> LimitError {
        LimitError::BodyTooLarge { limit: self.limits.body_bytes }
    }
}

impl LimitedBody {
    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads what is left of a body and throws it away, up to a limit: a client whose connection is closed while it is still
/// sending never reads the response.
pub async fn discard(chunks: &mut BodyDataStream) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        discarded += chunk.len();
        if discarded > MAX_DISCARDED_BYTES {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};

    use super::*;

    async fn read(limiter: &Limiter, body: Body, announced: Option<usize>) -> Result<LimitedBody, LimitError> {
        limiter.read(&mut body.into_data_stream(), announced).await
    }

    fn limiter(requests: usize, memory_bytes: usize) -> Limiter {
        let patience = Duration::ZERO;
        Limiter::new(RequestLimits { requests, memory_bytes, patience, body_bytes: 100, ..RequestLimits::default() })
    }

    #[tokio::test]
    async fn a_request_beyond_the_limit_is_rejected_until_another_one_has_ended() {
        let limiter = limiter(1, 100);
        let first = limiter.admit().await.unwrap();
        assert!(matches!(limiter.admit().await, Err(LimitError::TooManyRequests)));
        drop(first);
        limiter.admit().await.unwrap();
    }

    #[tokio::test]
    async fn memory_is_freed_with_the_body() {
        let limiter = limiter(1, 100);
        let body = read(&limiter, Body::from(vec![b' '; 80]), None).await.unwrap();
        assert_eq!(body.bytes().len(), 80);
        assert!(matches!(read(&limiter, Body::from(vec![b' '; 30]), None).await, Err(LimitError::OutOfMemory)));
        assert_eq!(read(&limiter, Body::from(vec![b' '; 20]), None).await.unwrap().bytes().len(), 20);
        drop(body);
        read(&limiter, Body::from(vec![b' '; 100]), None).await.unwrap();
    }

    #[tokio::test]
    async fn an_announced_body_uses_no_memory_before_it_arrives() {
        let limiter = limiter(1, 100);
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let waiting = read(&limiter, silent, Some(100));
        let other = async { read(&limiter, Body::from(vec![b' '; 100]), None).await };
        tokio::select! {
            biased;
            _ = waiting => panic!("nothing arrived"),
            read = other => assert_eq!(read.unwrap().bytes().len(), 100),
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_rejected_whether_it_was_announced_or_not() {
        let limiter = limiter(1, 1_000);
        for announced in [Some(101), None] {
            let rejected = read(&limiter, Body::from(vec![b' '; 101]), announced).await;
            assert!(matches!(rejected, Err(LimitError::BodyTooLarge { limit: 100 })));
        }
        assert_eq!(limiter.bytes.available_permits(), 1_000);
    }
}
