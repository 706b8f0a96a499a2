//! An HTTPS server that no client can exhaust: connections, handshakes, requests and their memory are limited.

mod acceptor;
mod connection_slots;
pub mod limits;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use rustls::ServerConfig;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::acceptor::SlotAcceptor;
use self::connection_slots::ConnectionSlots;

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Until the headers of a connection's first request have arrived.
const FIRST_REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Until the headers of the next request have arrived, so it also closes idle connections. API servers close theirs after
/// 90 s; closing one earlier loses the request that is being sent at that moment.
const IDLE_DEADLINE: Duration = Duration::from_secs(150);
/// How long requests in flight may take once no new ones are accepted.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);

/// How a server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Connections at a time.
    pub connections: usize,
    /// How long it keeps serving after it was asked to stop, while clients learn that it is no longer ready.
    pub lame_duck: Duration,
}

/// Serves HTTP/1.1 over TLS until `stop` and then for `lame_duck`, during which clients are asked to connect elsewhere;
/// then finishes the requests in flight.
///
/// Clients learn only after a while that this replica is no longer ready. Closing a connection while a request is on its
/// way loses that request, so during that time each connection is closed with its next response, and only connections
/// that are not used are closed without one.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    options: ServerOptions,
    stop: CancellationToken,
) -> io::Result<()> {
    let tls = RustlsConfig::from_config(tls);
    let tls = RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_DEADLINE).acceptor(NoDelayAcceptor::new());
    let handle: Handle<SocketAddr> = Handle::new();
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(SlotAcceptor::new(ConnectionSlots::new(options.connections), tls, stop.clone()))
        .handle(handle.clone())
        .first_request_timeout(FIRST_REQUEST_DEADLINE)
        .http1_only();
    server.http_builder().http1().header_read_timeout(IDLE_DEADLINE);
    let shutdown = async {
        stop.cancelled().await;
        sleep(options.lame_duck).await;
        handle.graceful_shutdown(Some(SHUTDOWN_DEADLINE));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = server.serve(router.into_make_service()) => result,
        () = shutdown => Ok(()),
    }
}
