//! A proxy between a controller and ARM, which can delay what was sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cluster::Cluster;

/// The first bytes of TLS records that are not application data: a change of the cipher, and a handshake.
const HANDSHAKE: [u8; 2] = [20, 22];

/// Forwards bytes to ARM and back. Held bytes arrive later, even if the sender has gone.
pub struct TcpProxy {
    address: SocketAddr,
    held: watch::Sender<bool>,
    waiting: AtomicUsize,
}

impl TcpProxy {
    /// A proxy to ARM at a loopback address.
    pub fn start(cluster: &Cluster, arm_endpoint: &str) -> Arc<Self> {
        let to = arm_endpoint.trim_start_matches("https://").to_owned();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("listen on loopback");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let address = listener.local_addr().expect("an address");
        let proxy = Arc::new(Self { address, held: watch::channel(false).0, waiting: AtomicUsize::new(0) });
        let weak = Arc::downgrade(&proxy);
        cluster.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let mut connections = JoinSet::new();
            // The task ends with the first connection after the proxy was dropped.
            while let Ok((client, _)) = listener.accept().await {
                let Some(proxy) = weak.upgrade() else { return };
                let server = TcpStream::connect(&to).await.expect("connect to ARM");
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                let there = proxy.clone();
                connections.spawn(async move { there.carry(from_client, to_server, true).await });
                connections.spawn(async move { proxy.carry(from_server, to_client, false).await });
            }
        });
        proxy
    }

    /// The endpoint of ARM through the proxy.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Holds everything that is sent to ARM until [`TcpProxy::release`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Whether something is held.
    pub fn is_holding(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, may_wait: bool) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            // Handshakes pass, so that it is a request that waits.
            if may_wait && !HANDSHAKE.contains(&buffer[0]) && *self.held.borrow() {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                let _ = self.held.subscribe().wait_for(|held| !held).await;
                self.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            if to.write_all(&buffer[..length]).await.is_err() {
                break;
            }
        }
        // The other direction may still send.
        let _ = to.shutdown().await;
    }
}
