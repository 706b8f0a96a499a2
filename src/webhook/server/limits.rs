//! What clients may take: of one request, and of all of them together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::BodyDataStream;
use axum::http::StatusCode;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::review::Rejection;

/// The API server stores objects of up to 1.5 MiB and accepts requests of up to 3 MiB; a review wraps one object.
const MAX_BODY_BYTES: usize = 4 * MIB;
/// For reading a request and answering it. The API server gives up after five seconds.
const REQUEST_DEADLINE: Duration = Duration::from_millis(4_500);
/// How long a request waits for its turn. Then its sender is told to come again, within the time that it has.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much of a refused body is read and thrown away.
const MAX_DISCARDED_BYTES: usize = 32 * MIB;
/// Room that is made for an announced body before any of it is there; most reviews fit.
const ROOM_BYTES: usize = 64 * 1024;
const MIB: usize = 1024 * 1024;

/// Default of [`RequestLimits::connections`]. An API server keeps 25 idle ones.
pub const DEFAULT_CONNECTIONS: usize = 1_024;
/// Default of [`RequestLimits::requests`].
pub const DEFAULT_REQUESTS: usize = 256;
/// Default of [`RequestLimits::memory_bytes`].
pub const DEFAULT_MEMORY_BYTES: usize = 64 * MIB;

/// What clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Time for reading and answering one request.
    pub deadline: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Requests at a time.
    pub requests: usize,
    /// How long a request waits for its turn, or for memory.
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

/// What is left for requests. A request that finds nothing left waits for its turn a while, and is sent away then: the
/// API server comes again when it is told to, and memory does not grow with the number of clients.
#[derive(Clone, Debug)]
pub struct Limiter {
    limits: RequestLimits,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// The right to have a request under way, for as long as it lives.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// A body, and its share of the memory for as long as it lives.
#[derive(Debug)]
pub struct Held {
    bytes: Vec<u8>,
    share: Option<OwnedSemaphorePermit>,
}

impl Limiter {
    /// All of it.
    pub fn new(limits: RequestLimits) -> Self {
        let requests = Arc::new(Semaphore::new(limits.requests));
        let bytes = Arc::new(Semaphore::new(limits.memory_bytes));
        Self { limits, requests, bytes }
    }

    /// Time for one request.
    pub fn deadline(&self) -> Duration {
        self.limits.deadline
    }

    /// Waits for the turn of a request.
    pub async fn turn(&self) -> Result<Permit, Rejection> {
        let turn = timeout(self.limits.patience, Arc::clone(&self.requests).acquire_owned()).await;
        // The semaphore is never closed.
        turn.ok().and_then(Result::ok).map(Permit).ok_or_else(|| Rejection::busy("too many requests are under way"))
    }

    /// Reads a body. Memory is counted as it arrives, so that who announces much and sends little holds little.
    pub async fn read(&self, chunks: &mut BodyDataStream, announced: Option<usize>) -> Result<Held, Rejection> {
        if announced.is_some_and(|bytes| bytes > self.limits.body_bytes) {
            return Err(self.too_large());
        }
        let mut held = Held { bytes: Vec::with_capacity(announced.unwrap_or_default().min(ROOM_BYTES)), share: None };
        while let Some(chunk) = chunks.next().await {
            let chunk = arrived(chunk)?;
            if held.bytes.len() + chunk.len() > self.limits.body_bytes {
                return Err(self.too_large());
            }
            self.account(&mut held, chunk.len()).await?;
            held.bytes.extend_from_slice(&chunk);
        }
        Ok(held)
    }

    async fn account(&self, held: &mut Held, bytes: usize) -> Result<(), Rejection> {
        let full = || Rejection::busy("the memory for requests is used up");
        let bytes = u32::try_from(bytes).map_err(|_| full())?;
        let more = timeout(self.limits.patience, Arc::clone(&self.bytes).acquire_many_owned(bytes)).await;
        let more = more.ok().and_then(Result::ok).ok_or_else(full)?;
        match &mut held.share {
            Some(share) => share.merge(more),
            None => held.share = Some(more),
        }
        Ok(())
    }

    fn too_large(&self) -> Rejection {
        let message = format!("the body is larger than {} bytes", self.limits.body_bytes);
        Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }
}

impl Held {
    /// The body.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads what is left of a body and throws it away, within reason: a sender whose connection is closed while it still
/// sends does not get to read the answer.
pub async fn discard(chunks: &mut BodyDataStream) {
    let mut discarded = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        discarded += chunk.len();
        if discarded > MAX_DISCARDED_BYTES {
            break;
        }
    }
}

fn arrived(chunk: Result<Bytes, axum::Error>) -> Result<Bytes, Rejection> {
    // A client that went away, or broke the protocol.
    chunk.map_err(|error| Rejection::new(StatusCode::BAD_REQUEST, format!("the body can't be read: {error}")))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn read(capacity: &Limiter, body: Body, announced: Option<usize>) -> Result<Held, Rejection> {
        capacity.read(&mut body.into_data_stream(), announced).await
    }

    fn capacity(requests: usize, memory_bytes: usize) -> Limiter {
        let patience = Duration::ZERO;
        Limiter::new(RequestLimits { requests, memory_bytes, patience, body_bytes: 100, ..RequestLimits::default() })
    }

    #[tokio::test]
    async fn a_request_beyond_the_limit_is_told_to_come_again_and_finds_its_turn_once_another_has_ended() {
        let capacity = capacity(1, 100);
        let first = capacity.turn().await.unwrap();
        assert_eq!(capacity.turn().await.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        capacity.turn().await.unwrap();
    }

    #[tokio::test]
    async fn memory_is_given_back_with_the_body() {
        let capacity = capacity(1, 100);
        let held = read(&capacity, Body::from(vec![b' '; 80]), None).await.unwrap();
        assert_eq!(held.bytes().len(), 80);
        let refused = read(&capacity, Body::from(vec![b' '; 30]), None).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(read(&capacity, Body::from(vec![b' '; 20]), None).await.unwrap().bytes().len(), 20);
        drop(held);
        read(&capacity, Body::from(vec![b' '; 100]), None).await.unwrap();
    }

    #[tokio::test]
    async fn an_announcement_alone_takes_no_memory() {
        let capacity = capacity(1, 100);
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let waiting = read(&capacity, silent, Some(100));
        let other = async { read(&capacity, Body::from(vec![b' '; 100]), None).await };
        tokio::select! {
            biased;
            _ = waiting => panic!("nothing arrived"),
            read = other => assert_eq!(read.unwrap().bytes().len(), 100),
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_refused_whether_it_says_so_or_not() {
        let capacity = capacity(1, 1_000);
        for announced in [Some(101), None] {
            let refused = read(&capacity, Body::from(vec![b' '; 101]), announced).await.unwrap_err();
            assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        }
        assert_eq!(capacity.bytes.available_permits(), 1_000);
    }
}
