//! Accepts connections: a slot, a TLS handshake within its deadline, and an end when the slot is lost or the server stops.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::RustlsAcceptor;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connection_slots::{ConnectionSlot, ConnectionSlots};

type TlsAcceptor = RustlsAcceptor<NoDelayAcceptor>;

/// Accepts connections as long as there are slots.
#[derive(Clone)]
pub(super) struct SlotAcceptor {
    slots: ConnectionSlots,
    tls: TlsAcceptor,
    stop: CancellationToken,
}

/// What the requests of a connection share.
#[derive(Clone)]
struct Connection {
    slot: Arc<ConnectionSlot>,
    stop: CancellationToken,
}

impl SlotAcceptor {
    /// Once `stop` is cancelled, every response closes its connection.
    pub(super) fn new(slots: ConnectionSlots, tls: TlsAcceptor, stop: CancellationToken) -> Self {
        Self { slots, tls, stop }
    }
}

impl Accept<TcpStream, Router> for SlotAcceptor {
    type Stream = SlotStream<<TlsAcceptor as Accept<TcpStream, Router>>::Stream>;
    type Service = <TlsAcceptor as Accept<TcpStream, Router>>::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, router: Router) -> Self::Future {
        let Self { slots, tls, stop } = self.clone();
        Box::pin(async move {
            let Some(slot) = slots.take().map(Arc::new) else {
                tracing::warn!("connection refused: all connections have requests in flight (--max-connections)");
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            };
            let connection = Connection { slot: Arc::clone(&slot), stop };
            let router = router.layer(middleware::from_fn_with_state(connection, track));
            let (stream, service) = tokio::select! {
                () = slot.lost().cancelled() => return Err(lost()),
                accepted = tls.accept(stream, router) => accepted?,
            };
            Ok((SlotStream::new(stream, slot), service))
        })
    }
}

/// Protects the slot while a request is in flight, and marks it as proven after a successful one. Once the server stops,
/// asks the client to open its next connection elsewhere.
///
/// One layer for both: each layer costs every request several allocations.
async fn track(State(Connection { slot, stop }): State<Connection>, request: Request, next: Next) -> Response {
    let in_flight = slot.begin();
    let mut response = next.run(request).await;
    if response.status().is_success() {
        in_flight.succeeded();
    }
    if stop.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection made room for another one")
}

/// A stream that fails when its slot is lost.
pub(super) struct SlotStream<S> {
    stream: S,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    // Freed when the connection ends.
    _slot: Arc<ConnectionSlot>,
}

impl<S> SlotStream<S> {
    fn new(stream: S, slot: Arc<ConnectionSlot>) -> Self {
        Self { stream, lost: Box::pin(slot.lost().clone().cancelled_owned()), _slot: slot }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.lost.as_mut().poll(context).is_ready() { Err(lost()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for SlotStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for SlotStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }
}
