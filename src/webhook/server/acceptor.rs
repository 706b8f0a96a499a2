//! How a connection comes in: a seat, a TLS handshake in time, and out again when the seat is lost or the replica stops.

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

type Tls = RustlsAcceptor<NoDelayAcceptor>;

/// Lets connections in.
#[derive(Clone)]
pub(super) struct Door {
    seats: ConnectionSlots,
    tls: Tls,
    stop: CancellationToken,
}

/// What the requests of a connection have in common.
#[derive(Clone)]
struct Visit {
    seat: Arc<ConnectionSlot>,
    stop: CancellationToken,
}

impl Door {
    /// Once `stop` is cancelled, those who get an answer are sent elsewhere.
    pub(super) fn new(seats: ConnectionSlots, tls: Tls, stop: CancellationToken) -> Self {
        Self { seats, tls, stop }
    }
}

impl Accept<TcpStream, Router> for Door {
    type Stream = Seated<<Tls as Accept<TcpStream, Router>>::Stream>;
    type Service = <Tls as Accept<TcpStream, Router>>::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, router: Router) -> Self::Future {
        let Self { seats, tls, stop } = self.clone();
        Box::pin(async move {
            let Some(seat) = seats.take().map(Arc::new) else {
                tracing::warn!("a connection is refused: every other one has requests under way (--max-connections)");
                return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
            };
            let visit = Visit { seat: Arc::clone(&seat), stop };
            let router = router.layer(middleware::from_fn_with_state(visit, attend));
            let (stream, service) = tokio::select! {
                () = seat.lost().cancelled() => return Err(lost()),
                accepted = tls.accept(stream, router) => accepted?,
            };
            Ok((Seated::new(stream, seat), service))
        })
    }
}

/// Keeps the seat while a request is under way, and for good after one that was answered well. Once this replica stops,
/// asks whoever gets an answer to open the next connection elsewhere.
///
/// One layer for both: each one costs every request several allocations.
async fn attend(State(Visit { seat, stop }): State<Visit>, request: Request, next: Next) -> Response {
    let under_way = seat.begin();
    let mut response = next.run(request).await;
    if response.status().is_success() {
        under_way.good();
    }
    if stop.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection made room for another")
}

/// A stream that breaks when its seat is lost.
pub(super) struct Seated<S> {
    stream: S,
    lost: Pin<Box<WaitForCancellationFutureOwned>>,
    // Free again once the connection is gone.
    _seat: Arc<ConnectionSlot>,
}

impl<S> Seated<S> {
    fn new(stream: S, seat: Arc<ConnectionSlot>) -> Self {
        Self { stream, lost: Box::pin(seat.lost().clone().cancelled_owned()), _seat: seat }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.lost.as_mut().poll(context).is_ready() { Err(lost()) } else { Ok(()) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
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
